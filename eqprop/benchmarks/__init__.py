"""Speed: how long a recipe takes, beside the same equations written out in NumPy.

Read first ``speed.py``, then ``transcription.py``, the equations once more, which is also the
oracle of the tests; ``conv_transcription.py`` has what edges of convolutional nets do.
``baseline.py`` compares the two, ``operations.py`` counts what must be multiplied, ``table.py``
shows it all.
"""
