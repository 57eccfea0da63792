"""Equilibrium Propagation: networks that learn by relaxing.

The public names, in the order in which the theory introduces them. Each is loaded when it is first
used, so that the command line answers without waiting for JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eqprop.anderson import Anderson
    from eqprop.baselines import BPTT, RecurrentBackprop
    from eqprop.building import Built, build
    from eqprop.configuration import Recipe
    from eqprop.continual import continual_phase, continual_step
    from eqprop.convolution import AveragePool, Conv, MaxPool, NoPool, conv, conv_shape, shortcut
    from eqprop.curves import Problem
    from eqprop.data import load
    from eqprop.dataset import Dataset
    from eqprop.dynamics import ACTIVATIONS, Dynamics, EnergyBased, Prototypical, activation
    from eqprop.errors import EqpropError
    from eqprop.graphs import Lateral, chain, graph, untied
    from eqprop.learning import Continual, Learner, WithOptimizer
    from eqprop.network import Connection, Dense, Edge, Network, Tied, Untied
    from eqprop.nudging import (
        Centered,
        Cost,
        CrossEntropy,
        Holomorphic,
        Nudge,
        OneSided,
        RandomSign,
        SquaredError,
        Stencil,
    )
    from eqprop.phases import System
    from eqprop.recipes import RECIPES, recipe
    from eqprop.relaxation import FixedSteps, Relaxation, ToTolerance
    from eqprop.rules import AfterPhase, Equilibrium, Free, Increment, Rule, VectorField
    from eqprop.training import Examples, Trainer, TrainState
    from eqprop.verification import Plan, verify

_HOMES = {
    "network": ("Connection", "Dense", "Edge", "Tied", "Untied", "Network"),
    "graphs": ("Lateral", "graph", "chain", "untied"),
    "convolution": ("Conv", "MaxPool", "AveragePool", "NoPool", "conv", "conv_shape", "shortcut"),
    "dynamics": ("ACTIVATIONS", "activation", "Dynamics", "Prototypical", "EnergyBased"),
    "nudging": (
        "Cost",
        "SquaredError",
        "CrossEntropy",
        "Nudge",
        "Stencil",
        "OneSided",
        "RandomSign",
        "Centered",
        "Holomorphic",
    ),
    "relaxation": ("Relaxation", "FixedSteps", "ToTolerance"),
    "anderson": ("Anderson",),
    "phases": ("System",),
    "rules": ("Increment", "Equilibrium", "VectorField", "Rule", "Free", "AfterPhase"),
    "continual": ("continual_step", "continual_phase"),
    "learning": ("Learner", "WithOptimizer", "Continual"),
    "baselines": ("BPTT", "RecurrentBackprop"),
    "curves": ("Problem",),
    "verification": ("Plan", "verify"),
    "dataset": ("Dataset",),
    "data": ("load",),
    "recipes": ("Recipe", "RECIPES", "recipe"),
    "building": ("Built", "build"),
    "training": ("Examples", "TrainState", "Trainer"),
    "errors": ("EqpropError",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022 - in the order of the theory
    "Connection", "Dense", "Edge", "Tied", "Untied", "Network",
    "Lateral", "graph", "chain", "untied",
    "Conv", "MaxPool", "AveragePool", "NoPool", "conv", "conv_shape", "shortcut",
    "ACTIVATIONS", "activation", "Dynamics", "Prototypical", "EnergyBased",
    "Cost", "SquaredError", "CrossEntropy",
    "Nudge", "Stencil", "OneSided", "RandomSign", "Centered", "Holomorphic",
    "Relaxation", "FixedSteps", "ToTolerance", "Anderson", "System",
    "Increment", "Equilibrium", "VectorField", "Rule", "Free", "AfterPhase",
    "continual_step", "continual_phase", "Learner", "WithOptimizer", "Continual",
    "BPTT", "RecurrentBackprop", "Problem", "Plan", "verify",
    "Dataset", "load", "Recipe", "RECIPES", "recipe", "Built", "build",
    "Examples", "TrainState", "Trainer", "EqpropError",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("eqprop")
    if name not in _HOME:
        raise AttributeError(f"module 'eqprop' has no attribute {name!r}")
    return getattr(importlib.import_module(f"eqprop.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
