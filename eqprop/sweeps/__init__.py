"""Many trainings compared: a recipe over values of its fields.

Read first `space.py`, the members of a sweep; then `sweep.py`, which trains and compares them, by
`here.py` in this process or by `cluster.py` as jobs.
"""
