"""A step as a program on the devices of a layout: on one or many, once or an epoch at a time."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ser_jax.config import ParallelConfig
from ser_jax.errors import check
from ser_jax.features.batching import Dataset
from ser_jax.machine.accelerator import compile_ahead, jit
from ser_jax.machine.cpu_devices import choose_devices
from ser_jax.multihost.sharing import spread

AXIS = "data"
"""The axis of devices that shards a batch."""


class Layout(NamedTuple):
    """How programs are laid on devices.

    Attributes:
      mode: 'jit' (one device), 'mesh' or 'pmap' (a batch's rows shared out over `devices`).
      scan: an epoch is one program; else a program per step.
      devices: all that take part; none: JAX's default device.
    """

    mode: str = "jit"
    scan: bool = False
    devices: tuple[Any, ...] = ()

    @property
    def axis_name(self) -> str | None:
        """What `systems.networks.make_model` must know: the mapped axis, under pmap alone."""
        return AXIS if self.mode == "pmap" else None

    @property
    def n_shards(self) -> int:
        """A batch's number of rows must be a multiple of it; see `batching.cut_batches`."""
        return 1 if self.mode == "jit" else len(self.devices)


def choose_layout(
    parallel: ParallelConfig, *, batch_size: int, convolves: bool, by_step: bool = False
) -> Layout:
    """The layout that the configuration asks for on the devices of this machine.

    Args:
      parallel: what is asked for.
      batch_size: clips per step.
      convolves: whether the network has convolutions.
      by_step: a program per step whatever is asked, to tell the steps apart.

    Raises:
      UserError: one device only is asked for where several processes train together.
    """
    devices = choose_devices(batch_size)
    mode = parallel.mode
    if mode == "auto":
        mode = "jit" if len(devices) == 1 else "mesh"
    check(
        mode == "mesh" or jax.process_count() == 1,
        f"parallel.mode={mode}: several processes train together by mesh alone; leave the key out",
    )
    # XLA on CPU runs a convolution inside a loop ten times slower (jax issue 12868).
    slow = convolves and devices[0].platform == "cpu"
    scan = parallel.scan == "on" or (parallel.scan == "auto" and not slow)
    return Layout(mode, scan and not by_step, devices if mode != "jit" else ())


def scan_steps(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step(carry, dataset, index_B, *rest) -> carry` over all batches of `index_SB`."""

    def epoch(carry: Any, dataset: Dataset, index_SB: jax.Array, *rest: Any) -> Any:
        def body(carry: Any, index_B: jax.Array) -> tuple[Any, None]:
            return step(carry, dataset, index_B, *rest), None

        return jax.lax.scan(body, carry, index_SB)[0]

    return epoch


def replicated(layout: Layout) -> NamedSharding:
    """The whole of an array on every device of a mesh."""
    return NamedSharding(Mesh(np.asarray(layout.devices), (AXIS,)), PartitionSpec())


class Program:
    """A function (carry, dataset, index, *rest) -> carry on devices; the carry is used up."""

    def __init__(self, jitted: Any, whole: NamedSharding | None = None):
        """
        Args:
          jitted: of `jax.jit`.
          whole: where carry and rest belong; None: on JAX's default device.
        """
        self._jitted, self._whole = jitted, whole

    def __call__(self, carry: Any, dataset: Dataset, index: Any, *rest: Any) -> Any:
        return self._jitted(*self._lay_out(carry, dataset, index, *rest))

    def compile(self, carry: Any, dataset: Dataset, index: Any, *rest: Any) -> None:
        """Compile for arguments, or shapes, like those of calls to come, which then need not."""
        compile_ahead(self._jitted, *self._lay_out(carry, dataset, index, *rest))

    def _lay_out(self, carry: Any, dataset: Dataset, index: Any, *rest: Any) -> tuple[Any, ...]:
        if self._whole is not None:
            carry, rest = lay_out((carry, rest), self._whole)
        return carry, dataset, index, *rest


def compile_step(step: Callable[..., Any], layout: Layout) -> Callable[..., Any]:
    """A program (carry, dataset, index, *rest) -> carry on the devices of a layout.

    The last axis of the clip numbers is shared out, all else is on every device.

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
        function = _share_out_index(function, whole)
    return Program(jit(function, donate_argnums=0, out_shardings=whole), whole)


def share_out_clips(layout: Layout) -> NamedSharding | None:
    """How several processes share the clips of a corpus out; None: there is one process."""
    if jax.process_count() == 1:
        return None
    return NamedSharding(replicated(layout).mesh, PartitionSpec(AXIS))


def place(dataset: Dataset, layout: Layout) -> Dataset:
    """The corpus where a layout wants it: on every device, or shared out to the processes'."""
    return lay_out(dataset, replicated(layout)) if layout.mode == "mesh" else dataset


def lay_out(arguments: Any, whole: NamedSharding) -> Any:
    """Arrays, or shapes of them, on every device of a mesh."""
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(arguments)):
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), arguments
        )
    put = jax.device_put if whole.is_fully_addressable else spread
    return put(arguments, whole)


def _share_out_index(function: Callable[..., Any], whole: NamedSharding) -> Callable[..., Any]:
    def constrained(carry: Any, dataset: Dataset, index: jax.Array, *rest: Any) -> Any:
        spec = PartitionSpec(*(None,) * (index.ndim - 1), AXIS)
        index = jax.lax.with_sharding_constraint(index, NamedSharding(whole.mesh, spec))
        return function(carry, dataset, index, *rest)

    return constrained


def _compile_pmap(function: Callable[..., Any], layout: Layout) -> Callable[..., Any]:
    @functools.cache
    def make(n_rest: int) -> Callable[..., Any]:
        in_axes = (None, None, 0, *(None,) * n_rest)
        return jax.pmap(function, AXIS, in_axes=in_axes, out_axes=None, devices=layout.devices)

    def program(carry: Any, dataset: Dataset, index: np.ndarray, *rest: Any) -> Any:
        shards = index.reshape(*index.shape[:-1], len(layout.devices), -1)
        return make(len(rest))(carry, dataset, np.moveaxis(shards, -2, 0), *rest)

    return program
