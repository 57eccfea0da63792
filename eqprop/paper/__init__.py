"""The tables and figures of the paper, from the runs that are there.

Read first `item.py`, what each table or figure asks for and shows; then `reproduce.py`, which runs
what is missing.
"""
