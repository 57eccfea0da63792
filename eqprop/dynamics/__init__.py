"""How a network settles: one step F of the states, the force that nudges it, its relaxation.

Read first `step.py` (discrete time, and real time on an energy), then `system.py`, which makes the
free and the nudged phase of a step, a cost (`costs.py`) and a relaxation. Nudges are
finite-difference stencils in beta; relaxations know nothing of networks. `altered.py` has steps
that do something else besides; dropout is one.
"""
