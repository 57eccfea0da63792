"""Theorem 1, measured: what a rule does at each nudged step against the gradients of BPTT.

Read first ``curves.py`` (both, step by step, by the code that trains), then ``agreement.py``
(RelMSE, angles, orders) and ``verification.py``, which asks the whole question of any network:
these and ``settling.py`` know no recipe. ``questions.py`` has the papers' figures; ``launch.py`` is
what ``eqprop verify`` calls, and ``verdict.py`` says in words what was found.
"""
