"""A step as a program on the devices of a layout: on one or many, once or an epoch at a time."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ser_jax.features.batching import Dataset
from ser_jax.machine.accelerator import compile_ahead, jit
from ser_jax.training.layouts import Layout, lay_out, replicated


def scan_steps(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step(carry, dataset, index_B, *rest) -> carry` over all batches of `index_SB`."""

    def epoch(carry: Any, dataset: Dataset, index_SB: jax.Array, *rest: Any) -> Any:
        def body(carry: Any, index_B: jax.Array) -> tuple[Any, None]:
            return step(carry, dataset, index_B, *rest), None

        return jax.lax.scan(body, carry, index_SB)[0]

    return epoch


class Program:
    """A function (carry, dataset, index, *rest) -> carry on devices; the carry is donated."""

    def __init__(self, jitted: Any, whole: NamedSharding | None = None):
        """
        Args:
          jitted: of `jax.jit`.
          whole: the sharding of carry and rest; `None`: JAX's default device.
        """
        self._jitted, self._whole = jitted, whole

    def __call__(self, carry: Any, dataset: Dataset, index: Any, *rest: Any) -> Any:
        return self._jitted(*self._lay_out(carry, dataset, index, *rest))

    def compile(self, carry: Any, dataset: Dataset, index: Any, *rest: Any) -> None:
        """Compile ahead for arguments, or shapes, like those of later calls."""
        compile_ahead(self._jitted, *self._lay_out(carry, dataset, index, *rest))

    def _lay_out(self, carry: Any, dataset: Dataset, index: Any, *rest: Any) -> tuple[Any, ...]:
        if self._whole is not None:
            carry, rest = lay_out((carry, rest), self._whole)
        return carry, dataset, index, *rest


def compile_step(step: Callable[..., Any], layout: Layout) -> Callable[..., Any]:
    """A program (carry, dataset, index, *rest) -> carry on the devices of a layout.

    The last axis of the clip numbers is sharded; everything else is replicated.

    Args:
      step: (carry, dataset, index_B, *rest) -> carry, pure.
      layout: `layout.scan` makes the program take index_SB, else index_B.

    Returns:
      A `Program`; under pmap a plain function, which compiles at its first call.
    """
    function = scan_steps(step) if layout.scan else step
    if layout.mode == "pmap":
        return _compile_pmap(function, layout)
    whole = None
    if layout.mode == "mesh":
        whole = replicated(layout)
        function = _share_out_index(function, layout)
    return Program(jit(function, donate_argnums=0, out_shardings=whole), whole)


def _share_out_index(function: Callable[..., Any], layout: Layout) -> Callable[..., Any]:
    def constrained(carry: Any, dataset: Dataset, index: jax.Array, *rest: Any) -> Any:
        spec = PartitionSpec(*(None,) * (index.ndim - 1), layout.axis)
        index = jax.lax.with_sharding_constraint(index, NamedSharding(layout.mesh, spec))
        return function(carry, dataset, index, *rest)

    return constrained


def _compile_pmap(function: Callable[..., Any], layout: Layout) -> Callable[..., Any]:
    @functools.cache
    def make(n_rest: int) -> Callable[..., Any]:
        in_axes = (None, None, 0, *(None,) * n_rest)
        return jax.pmap(
            function, layout.axis, in_axes=in_axes, out_axes=None, devices=layout.devices
        )

    def program(carry: Any, dataset: Dataset, index: np.ndarray, *rest: Any) -> Any:
        carry = lay_out(carry, replicated(layout))  # as it is returned, or step 2 compiles again
        shards = index.reshape(*index.shape[:-1], len(layout.devices), -1)
        return make(len(rest))(carry, dataset, np.moveaxis(shards, -2, 0), *rest)

    return program
