"""Speed: how long a recipe takes, beside the same equations written out in NumPy.

Read first `speed.py`, then `transcription.py`, the equations once more, which is also the oracle of
the tests. `operations.py` counts what must be multiplied.
"""
