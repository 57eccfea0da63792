"""What is learnt from: labelled data sets, by name or of your own, read without trusting files.

Read first `dataset.py`, then `named.py`, which loads by name; `files.py` finds and downloads. A
format has a module of its own; `augmentation.py` alters images on the device.
"""
