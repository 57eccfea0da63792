"""Recipes that are trained together: series over a field, the algorithms and networks that other
papers compare, and how long our own may take.

Nothing here loads JAX.
"""

import dataclasses
from typing import Any, NamedTuple, final

from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.fast import fast
from eqprop.recipes.recipe import Recipe


@final
class Goal(NamedTuple):
    """A test error in %, and in how many seconds a recipe is to be there, on two cores that do
    nothing else: data, compilation and tests included.
    """

    recipe: str
    error: float
    seconds: float


GOALS = (
    Goal("ep-1h-few", 2.0, 30),
    Goal("ep-1h-shift", 1.2, 90),
    Goal("ep-conv-few", 1.0, 100),
    Goal("ep-conv-best", 0.5, 25 * 60),
)
"""What our own recipes are to reach, the quickest first."""


@final
@dataclasses.dataclass(frozen=True)
class Series:
    """One recipe, trained once for each of several values of a field."""

    about: str
    base: str
    field: str
    values: tuple[float, ...]
    settled: Recipe
    """A form of the base whose free phases settle, where as published they do not."""

    def members(self, base: Recipe) -> dict[str, Recipe]:
        """The recipes of the series, made from ``base``, under names such as ``angle-22.5``."""
        return {
            f"{self.field}-{value:g}": dataclasses.replace(base, **{self.field: value})
            for value in self.values
        }


_ANGLES = tuple(22.5 * n for n in range(9))

_SWEEPS = {"sweeps": True, "T": 20}

_NUDGES = ("positive", "negative", "centered")

CONTRASTIVE: dict[str, dict[str, Any]] = {
    "contrastive learning": {"hold": True, "nudge": "positive", "beta": 1.0},
    **{f"coupled learning, {nudge}": {"hold": True, "nudge": nudge} for nudge in _NUDGES},
    **{f"EP, {nudge}": {"hold": False, "nudge": nudge} for nudge in _NUDGES},
}
"""The seven algorithms that arXiv:2312.15103 compares, as fields of a recipe."""


def _asymmetric(base: str, angles: tuple[float, ...], **fields: Any) -> list[Recipe]:
    fields = {"epochs": 20} | fields
    return [dataclasses.replace(RECIPES[base], angle=a, **fields) for a in angles]


_THREE_ANGLES = (0.0, 90.0, 180.0)
_SETTLED = {"sweeps": True, "T": 30, "tolerance": 1e-3}
_SYNCHRONOUS = {"epochs": 3, "nudged_sweeps": False, "K": 8}
_FROZEN = {"feedback": "frozen", "angles": (90.0,)}


def _settled(epochs: int) -> dict[str, Any]:
    """So many epochs of ten nudged steps, with free phases that settle."""
    return {"epochs": epochs, "K": 10, **_SETTLED}


def _slower(base: str, part: float) -> dict[str, Any]:
    """VF at a part of the rates of EP."""
    return {"rule": "vf", "lr": tuple(part * rate for rate in RECIPES[base].lr)}


def _continual(base: str, **fields: Any) -> dict[str, list[Recipe]]:
    """C-AEP and C-VF at the rates of EP, in as few nudged steps as reach the first layer."""
    few = {"nudge": "random-sign", "K": len(RECIPES[base].lr)} | fields
    return {
        f"C-{rule}, few steps": _asymmetric(base, _THREE_ANGLES, rule=f"c-{rule.lower()}", **few)
        for rule in ("AEP", "VF")
    }


def _deep(base: str, epochs: int) -> dict[str, list[Recipe]]:
    """The four rules on more hidden layers, with free phases that settle."""
    return {
        "AEP": _asymmetric(base, _THREE_ANGLES, rule="aep", **_settled(epochs)),
        "VF": _asymmetric(base, _THREE_ANGLES, rule="vf", **_settled(epochs)),
        **_continual(base, epochs=epochs, **_SETTLED),
    }


ASYMMETRIC: dict[str, dict[str, list[Recipe]]] = {
    "one hidden layer": {
        "AEP": _asymmetric("ep-1h", _THREE_ANGLES, rule="aep", sweeps=True, T=15),
        "VF": _asymmetric("ep-1h", _THREE_ANGLES, rule="vf", sweeps=True, T=15),
        **_continual("ep-1h", sweeps=True, T=15),
        "C-VF": _asymmetric("c-vf-1h", _ANGLES[::2], **_SWEEPS),
        "AEP, synchronous": _asymmetric("ep-1h", _ANGLES[::2], rule="aep"),
        "VF, synchronous": _asymmetric("ep-1h", _ANGLES[::2], **_slower("ep-1h", 0.25)),
        "AEP, frozen feedback": _asymmetric("ep-1h", **_FROZEN, rule="aep"),
        "VF, frozen feedback": _asymmetric("ep-1h", **_FROZEN, **_slower("ep-1h", 0.25)),
        "BPTT, frozen feedback": _asymmetric("bptt-1h", **_FROZEN),
    },
    "two hidden layers": {
        **_deep("ep-2h", 10),
        "VF, half rates": _asymmetric("ep-2h", (90.0,), **_slower("ep-2h", 0.5), **_settled(10)),
        "AEP, frozen feedback": _asymmetric("ep-2h", **_FROZEN, rule="aep", **_settled(10)),
        "VF, frozen feedback": _asymmetric("ep-2h", **_FROZEN, rule="vf", **_settled(10)),
        "VF, frozen feedback, half rates": _asymmetric(
            "ep-2h", **_FROZEN, **_slower("ep-2h", 0.5), **_settled(10)
        ),
        "BPTT, frozen feedback": _asymmetric("bptt-2h", **_FROZEN, **_settled(10)),
    },
    "three hidden layers": {
        **_deep("ep-3h", 3),
        "VF, half rates": _asymmetric("ep-3h", (180.0,), **_slower("ep-3h", 0.5), **_settled(3)),
    },
    "convolutional": {
        rule: _asymmetric("ep-conv-fast", (0.0, 90.0), rule=rule.lower(), **_SYNCHRONOUS)
        for rule in ("AEP", "VF")
    },
}
"""Asymmetric networks, and rules on each, at initial angles between forward and feedback weights:
with free phases that settle by sweeps, and without. With one hidden layer VF in synchronous steps,
and with frozen feedback, takes a quarter of the rates: at the full ones it is lost within a few
epochs.
"""


SERIES: dict[str, Series] = {
    f"{settled.name}-angle": Series(
        f"{settled.name} at initial angles from 0 to 180", settled.name, "angle", _ANGLES, settled
    )
    for settled in (
        dataclasses.replace(RECIPES["c-vf-1h"], **_SWEEPS),
        fast(RECIPES["c-vf-2h"]),
    )
}
