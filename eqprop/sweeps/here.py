"""Trainings in this process, one after another."""

import shlex
from collections.abc import Callable, Mapping, Sequence

from eqprop.training.planned import PlannedTraining


def work_here(
    trainings: Mapping[str, PlannedTraining], command: Sequence[str], done: Callable[[], None]
) -> None:
    """Trains all that have not ended, by their names; ``done`` is called after each.

    Raises:
        Stopped: a signal came; says that ``command`` goes on with all of them.
        EqpropError: as ``PlannedTraining.work`` does.
    """
    from eqprop.training.session import Stopped  # loads JAX

    for number, (name, planned) in enumerate(trainings.items(), 1):
        if planned.ended:
            continue
        print(f"[{number}/{len(trainings)}] {name}", flush=True)
        try:
            planned.work(command)
        except Stopped as stop:
            stop.args = (f"{stop}; or with all of them: {shlex.join(command)}",)
            raise
        done()
