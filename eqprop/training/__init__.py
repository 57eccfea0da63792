"""A training and what it leaves on disk, so that whatever is killed goes on bit for bit.

Read first `trainer.py` (the compiled epoch; a state that is all there is to a run), then
`session.py`, the loop around it, and `runs.py`, the run directory. `metrics.py` says what is
measured; `launch.py` and `evaluation.py` are what commands call. Replicas and devices are in
`replicas.py`, hosts in `hosts.py`.
"""
