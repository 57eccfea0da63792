"""A name for each parameter tensor of a network: W1, b1, W2, Wb2, W0->2."""

from collections import Counter
from typing import Any

import jax

from eqprop.networks.model import Model
from eqprop.networks.network import Network
from eqprop.types import Array

LETTERS = {"weight": "W", "bias": "b"}


def dynamic_names(network: Model) -> list[str]:
    """A name for each parameter that takes part in the dynamics, in the order of
    ``jax.tree.leaves``: of a network those of its edges, of other models the places of their
    parameters, ``w1`` or ``layer.0``.

    ``W2`` and ``b2`` lead from layer 1 to layer 2, ``Wb2`` back; a skip edge has ``W0->2``, a
    lateral one ``W1->1``. A second connection between the same two layers has ``W2#2``. Fields of a
    connection other than ``weight`` and ``bias`` keep their own names; where a connection is made
    of others, names that would be the same have the field before them, ``down.W2`` and ``up.W2``.
    """
    if not isinstance(network, Network):
        paths = jax.tree_util.tree_leaves_with_path(network.dynamic_parameters)
        own = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
        taken = state_names(network)
        return [f"theta.{name}" if name in taken else name or "theta" for name in own]
    twins: Counter[tuple[int, int]] = Counter()
    names, within = list[str](), list[str]()
    for edge in network.edges:
        twins[edge.pre, edge.post] += 1
        where = f"{edge.post}" if edge.pre == edge.post - 1 else f"{edge.pre}->{edge.post}"
        if (twin := twins[edge.pre, edge.post]) > 1:
            where += f"#{twin}"
        for path, _ in jax.tree_util.tree_leaves_with_path(edge):
            fields = [str(getattr(key, "name", key)) for key in path]
            back = "b" if "back" in fields else ""
            names.append(LETTERS.get(fields[-1], fields[-1]) + back + where)
            within.append(fields[-2])
    # A connection may be made of others, each with a weight.
    twice = {name for name, count in Counter(names).items() if count > 1}
    return [f"{of}.{n}" if n in twice else n for of, n in zip(within, names, strict=True)]


def parameter_names(network: Model) -> list[str]:
    """A name for each leaf of a network: those of its dynamics, and ``Wout`` ... of its readout."""
    names = dynamic_names(network)
    for path, _ in jax.tree_util.tree_leaves_with_path(network.readout):
        field = str(getattr(path[-1], "name", path[-1]))
        names.append(LETTERS.get(field, field) + "out")
    return names


def named_parameters(network: Model) -> dict[str, Array]:
    """The parameters of a network by their names."""
    return dict(zip(parameter_names(network), jax.tree.leaves(network), strict=True))


def learning(network: Model) -> Model:
    """For each parameter whether it learns: whatever is called ``back`` or ``bias`` stands beside a
    ``learns_back`` or ``learns_bias`` that says so.
    """

    def learns(path: tuple[Any, ...], _: Array) -> bool:
        node: Any = network
        for key in path:
            if isinstance(key, jax.tree_util.GetAttrKey):
                if not getattr(node, f"learns_{key.name}", True):
                    return False
                node = getattr(node, key.name)
            else:
                node = node[key.idx if isinstance(key, jax.tree_util.SequenceKey) else key.key]
        return True

    return jax.tree_util.tree_map_with_path(learns, network)


def state_names(network: Model) -> list[str]:
    """``s1 ... sN``."""
    return [f"s{n}" for n in range(1, len(network.shapes))]
