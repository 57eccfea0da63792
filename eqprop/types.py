"""Array aliases and shape letters.

``B`` batch rows, ``T`` free steps, ``K`` nudged steps, ``N`` state layers (layer 0 is the input). A
layer of units has a shape without the batch axis, ``(n,)`` or ``(height, width, channels)``.
"""

from jaxtyping import Array, Bool, Float, Inexact, Int, PRNGKeyArray, UInt8

type Layer = Inexact[Array, "B ..."]
"""Values of one layer for a batch, ``(B, *units)``; complex in holomorphic phases, else real."""

type States = tuple[Layer, ...]
"""States of the layers 1 ... N."""

type Forces = tuple[Layer | None, ...]
"""What pushes each layer, ``-beta dl/ds``; None where nothing does."""

type Rates = tuple[Layer, ...]
"""What each neuron sends, layers 0 ... N (layer 0 is the input)."""

type Shape = tuple[int, ...]
"""Shape of one layer, without the batch axis."""

type Inputs = Inexact[Array, "inputs ..."]
"""Inputs of which each may belong to several rows of a batch."""

type Targets = Float[Array, "B classes"]
"""What outputs are compared with: one-hot classes, real numbers, or labels 0 and 1."""

type Scalar = Inexact[Array, ""]

type Strength = Inexact[Array, ""] | Inexact[Array, " B"]
"""A nudging strength beta: one number, or one for each row of the batch."""

__all__ = [
    "Array",
    "Bool",
    "Float",
    "Forces",
    "Inexact",
    "Inputs",
    "Int",
    "Layer",
    "PRNGKeyArray",
    "Rates",
    "Scalar",
    "Shape",
    "States",
    "Strength",
    "Targets",
    "UInt8",
]
