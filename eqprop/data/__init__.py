"""What is learnt from: data sets, by name or of your own, read without trusting files.

Read first `dataset.py`, with `targets.py` and `scaling.py`; then `named.py`, which loads by name,
and `paths.py`, which loads your own. A format has a module of its own; `files.py` finds and
downloads; `augmentation.py` alters images on the device.
"""
