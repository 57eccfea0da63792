"""Numerics: what results hang on beside the numbers that they are computed from."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def numerics(*, double: bool) -> Iterator[None]:
    """Single or double precision; the rest as JAX has it by itself, whatever a user's program or
    environment sets: one seed means one training.
    """
    with (
        jax.enable_x64(double),
        jax.default_prng_impl("threefry2x32"),
        jax.threefry_partitionable(True),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.transfer_guard("allow"),
    ):
        yield
