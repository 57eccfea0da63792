"""What can be found out about the network of a run: from its checkpoint, or else why not."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from eqprop.errors import EqpropError
from eqprop.networks.network import Network
from eqprop.reports.groups import Group, Trained
from eqprop.reports.inspection import Relaxed, Tiles, filters, receptive_fields, relax
from eqprop.theorem.trained import Theorem, examine
from eqprop.training.checkpoint import newest_path
from eqprop.training.display import Display
from eqprop.training.experiment import Job, load
from eqprop.training.launch import precision, prepare_again

NO_CHECKPOINT = "no checkpoint has been kept with this run"


@final
@dataclass(frozen=True)
class Insight:
    """A network looked into; ``missing`` says why the rest is not there."""

    origin: str = ""
    """Of which seed, and from when."""
    filters: tuple[Tiles, ...] = ()
    fields: tuple[Tiles, ...] = ()
    relaxed: Relaxed | None = None
    theorem: Theorem | None = None
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """By part, ``network`` and ``theorem``."""


def look(group: Group, example: int, theorem: bool, display: Display) -> Insight:
    """Looks into the network of the first seed of a group that has a checkpoint.

    Without one, Theorem 1 is measured on the network as it was before training. What cannot be had
    (a checkpoint, the data, a free phase that settles) is left out.
    """
    kept = [m for m in group.members if newest_path(m.folder / "checkpoints")]
    member = (kept or group.members)[0]
    if not kept and not theorem:
        return _without(Insight(), "network", NO_CHECKPOINT)
    with precision(group.recipe):
        try:
            job = prepare_again(member.record, group.recipe, display)
        except EqpropError as error:
            insight = _without(Insight(), "network", str(error) if kept else NO_CHECKPOINT)
            return _without(insight, "theorem", str(error)) if theorem else insight
        network, insight = _inside(job, member, example, display)
        return _verified(job, network, member, insight, display) if theorem else insight


def _without(insight: Insight, part: str, reason: str) -> Insight:
    return dataclasses.replace(insight, missing={**insight.missing, part: reason})


def _inside(job: Job, member: Trained, example: int, display: Display) -> tuple[Network, Insight]:
    """The trained network, with what it shows; else the untrained one."""
    with display.doing("looking into the network"):
        start = job.start(member.seed).network
        insight = Insight(origin=f"seed {member.seed}, before training")
        try:
            found = load(job, member.folder / "checkpoints", member.seed)
        except EqpropError as error:
            return start, _without(insight, "network", str(error))
        if found is None:
            return start, _without(insight, "network", NO_CHECKPOINT)
        network = found.state.network
        return network, Insight(
            f"seed {member.seed}, after {_place(int(found.state.epoch), int(found.state.batch))}",
            tuple(filters(network, member.record.data.image)),
            tuple(receptive_fields(job, network, example)),
            relax(job, network, example),
        )


def _place(epochs: int, batches: int) -> str:
    within = f" and {batches} minibatches" if batches else ""
    return f"{epochs} epoch{'s' if epochs != 1 else ''}{within}"


def _verified(
    job: Job, network: Network, member: Trained, insight: Insight, display: Display
) -> Insight:
    with display.doing("verifying Theorem 1") as tell:
        try:
            found = examine(job, network, member.seed, tell)
        except EqpropError as error:
            return _without(insight, "theorem", str(error))
    return dataclasses.replace(insight, theorem=found)
