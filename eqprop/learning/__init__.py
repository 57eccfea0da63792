"""How a network learns: what its synapses see of two states, and when that is applied.

Read first `increments.py` (EP and VF, between two consecutive states), then `rules.py` (summed
after the nudged phase) and `continual.py` (applied at every step of it). `learners.py` turns either
into a step of training. `asymmetric.py` has the rule for weights that differ in the two directions,
`writing.py` says how a device takes a change; `baselines.py` has backpropagation, through time and
recurrent.
"""
