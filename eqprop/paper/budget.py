"""A budget of time, shared out among trainings: how many epochs of how many seeds of each.

Epochs of one seed come first, for all trainings; then further seeds of those that are complete.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from eqprop.errors import EqpropError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_in(text: str) -> float:
    """``90s``, ``30m`` or ``1.5h`` in seconds. Raises ``EqpropError`` for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not match or not float(match[1]):
        raise EqpropError(f"budget is {text!r}: give a time such as 90s, 30m or 8h")
    return float(match[1]) * _UNITS[match[2]]


@final
@dataclass(frozen=True)
class Demand:
    """A training in full, and what it costs."""

    epochs: int
    seeds: int
    epoch_seconds: float
    """Of one seed, with the test."""
    start_seconds: float = 0.0
    """Spent once, before the first epoch."""
    done: tuple[int, ...] = ()
    """Epochs that the first seeds have finished already."""
    together: int = 1
    """Seeds that have been begun in one run, and go on together."""

    def cost(self, share: "Share") -> float:
        """Seconds that are left to spend for so much of the training."""
        done = (*self.done, *[0] * share.seeds)[: share.seeds]
        left = sum(max(0, share.epochs - epochs) for epochs in done)
        return self.start_seconds + self.epoch_seconds * left if left else 0.0


@final
@dataclass(frozen=True)
class Share:
    """As much of a training as a budget allows; no epochs of no seed where that is nothing."""

    epochs: int
    seeds: int


NOTHING = Share(0, 0)


def share_out(demands: Mapping[str, Demand], seconds: float) -> dict[str, Share]:
    """What becomes of each training within so many seconds.

    First every training gets an equal part of the time for its first seed (or for those that were
    begun together). What one does not need goes to the others. One whose part is too short for an
    epoch gets nothing, the dearest first, and its part goes to the others too. What remains buys
    complete seeds of complete trainings, one for each in turn, the cheapest first. Several seeds
    are taken to cost several times as much as one, which on a GPU they may not.
    """
    shares = _first_seeds(demands, seconds)
    left = seconds - sum(demands[name].cost(share) for name, share in shares.items())
    full = [n for n, share in shares.items() if share.epochs >= demands[n].epochs]
    full.sort(key=lambda name: demands[name].epoch_seconds * demands[name].epochs)
    while full:
        for name in tuple(full):
            demand, share = demands[name], shares[name]
            more = dataclasses.replace(share, seeds=share.seeds + 1)
            price = demand.cost(more) - demand.cost(share)
            if more.seeds > demand.seeds or price > left:
                full.remove(name)
                continue
            shares[name], left = more, left - price
    return shares


def _first_seeds(demands: Mapping[str, Demand], seconds: float) -> dict[str, Share]:
    """Epochs of the first seed of each training."""
    shares: dict[str, Share] = {}
    waiting = dict(demands)
    while waiting:
        part = seconds / len(waiting)
        cheap = [n for n, d in waiting.items() if d.cost(Share(d.epochs, d.together)) <= part]
        for name in cheap:
            demand = waiting.pop(name)
            shares[name] = Share(demand.epochs, demand.together)
            seconds -= demand.cost(shares[name])
        if cheap:
            continue
        epochs = {name: _affordable(demand, part) for name, demand in waiting.items()}
        none = [name for name, count in epochs.items() if count == 0]
        if not none:
            return shares | {n: Share(count, waiting[n].together) for n, count in epochs.items()}
        dearest = max(none, key=lambda name: waiting[name].cost(Share(1, waiting[name].together)))
        shares[dearest] = NOTHING
        del waiting[dearest]
    return shares


def _affordable(demand: Demand, seconds: float) -> int:
    """The most epochs that cost no more, counting those that are done."""
    counts = range(demand.epochs, 0, -1)
    return next((n for n in counts if demand.cost(Share(n, demand.together)) <= seconds), 0)
