"""Layouts: the devices that programs run on, what they shard, and whether by step or by epoch."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ser_jax.config import ParallelConfig
from ser_jax.errors import check
from ser_jax.machine.cpu_devices import choose_devices
from ser_jax.multihost.sharing import spread

BATCH_AXIS, RUN_AXIS = "data", "run"
"""Axes of devices: one shares out the rows of a batch, the other the runs of a grid."""


class Layout(NamedTuple):
    """How programs are laid out on devices.

    Attributes:
      mode: 'jit' (one device), 'mesh' or 'pmap' (rows or runs shared out over `devices`).
      scan: an epoch is one program; else a program per step.
      devices: all that take part; empty: JAX's default device.
      axis: what the devices share out, `BATCH_AXIS` or `RUN_AXIS`.
    """

    mode: str = "jit"
    scan: bool = False
    devices: tuple[Any, ...] = ()
    axis: str = BATCH_AXIS

    @property
    def axis_name(self) -> str | None:
        """The mapped axis, which `systems.networks.make_model` needs; only under pmap."""
        return self.axis if self.mode == "pmap" else None

    @property
    def n_shards(self) -> int:
        """The number of rows or runs must be a multiple of it; see `batching.cut_batches`."""
        return 1 if self.mode == "jit" else len(self.devices)

    @property
    def mesh(self) -> Mesh:
        """The devices as a mesh of one axis."""
        return Mesh(np.asarray(self.devices), (self.axis,))


def choose_layout(
    parallel: ParallelConfig, *, batch_size: int, convolves: bool, by_step: bool = False
) -> Layout:
    """The layout that the configuration asks for on the devices of this machine.

    Args:
      parallel: what is asked for.
      batch_size: clips per step.
      convolves: whether the network has convolutions.
      by_step: one program per step, whatever `parallel.scan` says.

    Raises:
      UserError: another mode than mesh, where several processes train together.
    """
    devices = choose_devices(batch_size)
    mode = parallel.mode
    if mode == "auto":
        mode = "jit" if len(devices) == 1 else "mesh"
    check(
        mode == "mesh" or jax.process_count() == 1,
        f"parallel.mode={mode}: several processes train together by mesh alone; leave the key out",
    )
    scan = not by_step and _choose_scan(parallel.scan, devices, convolves)
    return Layout(mode, scan, devices if mode != "jit" else ())


def choose_run_layout(parallel: ParallelConfig) -> Layout:
    """The layout of runs trained together: each device of this process trains some of them."""
    devices = tuple(jax.local_devices())
    scan = _choose_scan(parallel.scan, devices, convolves=True)  # whatever the network
    return Layout("mesh", scan, devices, RUN_AXIS) if len(devices) > 1 else Layout(scan=scan)


def _choose_scan(scan: str, devices: tuple[Any, ...], convolves: bool) -> bool:
    """Whether an epoch is one program."""
    # XLA on CPU runs a convolution inside a loop ten times slower (jax issue 12868).
    slow = convolves and devices[0].platform == "cpu"
    return scan == "on" or (scan == "auto" and not slow)


def replicated(layout: Layout) -> NamedSharding:
    """The whole of an array on every device of a mesh."""
    return NamedSharding(layout.mesh, PartitionSpec())


def shared_out(layout: Layout) -> NamedSharding:
    """An array's leading axis, of rows or of runs, over the devices of a mesh."""
    return NamedSharding(layout.mesh, PartitionSpec(layout.axis))


def share_out_clips(layout: Layout) -> NamedSharding | None:
    """How several processes shard the clips of a corpus; `None` with one process."""
    return None if jax.process_count() == 1 else shared_out(layout)


def place(common: Any, layout: Layout) -> Any:
    """Arrays common to all rows or runs, or their shapes: replicated over a mesh, otherwise as they
    are."""
    return lay_out(common, replicated(layout)) if layout.mode == "mesh" else common


def place_runs(stacked: Any, layout: Layout) -> Any:
    """Arrays with a leading axis of runs on the devices that train them."""
    return jax.device_put(stacked, shared_out(layout) if layout.mode == "mesh" else None)


def lay_out(arguments: Any, whole: NamedSharding) -> Any:
    """Arrays, or their shapes, replicated over a mesh."""
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(arguments)):
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), arguments
        )
    put = jax.device_put if whole.is_fully_addressable else spread
    return put(arguments, whole)
