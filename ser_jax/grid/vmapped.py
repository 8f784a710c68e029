"""A function of one run as a program of many, side by side (vmap) or one after another (map)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec

from ser_jax.machine.accelerator import compile_ahead, jit
from ser_jax.training.layouts import Layout


class Cost(NamedTuple):
    """The cost of a program: bytes on each device while it runs, and seconds to compile it."""

    n_bytes: int
    compile_s: float


class Vmapped:
    """A function (carry, own, dataset) of one run as a program of R; the carry is donated."""

    def __init__(self, function: Callable[..., Any], layout: Layout, how: str):
        """
        Args:
          function: of one run.
          layout: each device has its share of the runs, and none waits for another.
          how: 'vmap' (side by side) or 'map' (one after another).
        """

        def map_runs(carry: Any, own: Any, dataset: Any) -> Any:
            return jax.lax.map(lambda pair: function(*pair, dataset), (carry, own))

        many = jax.vmap(function, (0, 0, None)) if how == "vmap" else map_runs
        if layout.mode == "mesh":
            one, whole = PartitionSpec(layout.axis), PartitionSpec()
            many = jax.shard_map(
                many, mesh=layout.mesh, in_specs=(one, one, whole), out_specs=one, check_vma=False
            )
        self._program = jit(many, donate_argnums=0)
        self._compiled: dict[Any, tuple[Any, Cost]] = {}

    def __call__(self, *arguments: Any) -> Any:
        program, _ = self._compiled.get(_describe(arguments), (self._program, None))
        return program(*arguments)

    def measure(self, *arguments: Any) -> Cost:
        """Its cost for arguments of these shapes, for which it is compiled once."""
        shapes = _describe(arguments)
        if shapes not in self._compiled:
            program, seconds = compile_ahead(self._program, *arguments)
            self._compiled[shapes] = program, Cost(_count_bytes(program), seconds)
        return self._compiled[shapes][1]


def _count_bytes(program: Any) -> int:
    found = program.memory_analysis()
    if found is None:  # a backend that does not say
        return 0
    # Donated arguments make room for outputs.
    return (
        found.argument_size_in_bytes + found.output_size_in_bytes
        + found.temp_size_in_bytes - found.alias_size_in_bytes
    )  # fmt: skip


def _describe(arguments: Any) -> tuple[Any, ...]:
    """Shapes and types of all arrays."""
    leaves, tree = jax.tree.flatten(arguments)
    return tree, *((np.shape(leaf), leaf.dtype) for leaf in leaves)
