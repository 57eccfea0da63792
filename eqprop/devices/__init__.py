"""Imperfect hardware, as data, and what it does to a network that learns on it.

Read ``record.py`` first: a ``Device`` says what is wrong with synapses, neurons, reading and
feedback. ``synapses.py``, ``neurons.py``, ``reading.py`` and ``feedback.py`` each change one thing
that is there without a device: what a learner writes, what a step computes, what a rule reads.
"""
