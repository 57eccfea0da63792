"""Equilibrium Propagation: networks that learn by relaxing.

The public names are those of ``__init__.pyi``, in the order in which the theory introduces them.
Each is loaded when it is first used, so that the command line answers without waiting for JAX. The
folders below are no API: their modules may change from one version to the next.
"""

from typing import Any

import lazy_loader

_load, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("eqprop")
    if name not in __all__:
        raise AttributeError(f"module 'eqprop' has no attribute {name!r}")
    return _load(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_names()})
