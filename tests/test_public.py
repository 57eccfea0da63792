"""The public names: all there, and documented."""

import subprocess
import sys

import pytest

import eqprop


@pytest.mark.parametrize("name", eqprop.__all__)
def test_a_public_name_exists_and_is_documented(name: str) -> None:
    assert name in {"ACTIVATIONS", "RECIPES"} or getattr(eqprop, name).__doc__


def test_names_that_are_not_there() -> None:
    assert set(eqprop.__all__) <= set(dir(eqprop))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = eqprop.nothing


def test_importing_the_package_loads_no_jax() -> None:
    code = (
        "import sys, eqprop, eqprop.recipes.catalogue, eqprop.cli.main;"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
