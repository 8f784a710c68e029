"""A corpus that stays on the host: grain prefetches the clips of each batch to the device.

Only features and samples stay on the host. The classes and lengths of all clips, which are small,
are on the device, so that streamed batches use the same function as others and are bit-equal.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ser_jax.config import ParallelConfig
from ser_jax.errors import check
from ser_jax.features.batching import Dataset

SHARE = 0.5
"""Share of a device's free memory for the corpus; the rest is for the network."""


def choose_placement(parallel: ParallelConfig, n_bytes: int, free_bytes: int | None = None) -> str:
    """'device' or 'stream'.

    Args:
      parallel: settings.
      n_bytes: size of the features or samples on one device.
      free_bytes: of a device; by default that of `measure_free_memory`.
    """
    if parallel.placement != "auto":
        return parallel.placement
    free = measure_free_memory() if free_bytes is None else free_bytes
    return "device" if n_bytes <= SHARE * free else "stream"


def measure_free_memory(device: Any = None) -> int:
    """Free bytes of a JAX device (by default the first); on CPU those of the machine."""
    device = device or jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    name = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")


@struct.dataclass
class TakenRows:
    """The rows of a batch, in place of the whole array in a `Dataset`; indexing returns them all.

    Attributes:
      rows: those of `index_B`, in its order.
    """

    rows: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows.shape

    def __getitem__(self, index_B: jax.Array) -> jax.Array:
        return self.rows


@dataclass(frozen=True)
class StreamedCorpus:
    """A `training.programs.Stream`: a corpus on the host.

    Attributes:
      dataset: as on the device, but `x_BTF` and, if present, `wave_BN` are arrays on the host that
        can be read by row: NumPy arrays, or a `np.memmap` of a file.
      mesh: the devices that share a batch; None for the first. Each of several processes needs
        access to the whole `dataset`, and reads only the rows of its own devices.
      prefetch: batches to read ahead, each in a thread, and to hold ready on the device.
    """

    dataset: Dataset
    mesh: Mesh | None = None
    prefetch: int = 4

    def __post_init__(self) -> None:
        check(self.prefetch >= 1, f"prefetch={self.prefetch}: must be at least 1")

    def stream(self, index_SB: np.ndarray) -> Iterator[tuple[Dataset, jax.Array]]:
        """For each row of `index_SB` [S, B] a dataset with those clips, and the clip numbers.

        Rows come in order; threads read ahead. Closing the iterator ends them.
        """
        import grain

        options = grain.ReadOptions(num_threads=self.prefetch, prefetch_buffer_size=self.prefetch)
        batches = grain.MapDataset.source(list(index_SB)).map(self._read)
        ahead = grain.experimental.ThreadPrefetchIterDataset(
            batches.to_iter_dataset(options).map(self._put), prefetch_buffer_size=self.prefetch
        )
        small = self._small
        for index_B, x_BTF, wave_BN in ahead:
            rows = {"x_BTF": TakenRows(x_BTF)}
            if wave_BN is not None:
                rows["wave_BN"] = TakenRows(wave_BN)
            yield small.replace(**rows), index_B

    @property
    def _small(self) -> Any:
        """The part of the corpus that is on the device."""
        small = self.dataset.replace(x_BTF=None, wave_BN=None)  # pyright: ignore
        return jax.device_put(small, self._sharding(PartitionSpec()))

    def _read(self, index_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """This process's rows of a batch; `PADDING` reads the first clip, which is zeroed later."""
        own_B = index_B[self._find_own(len(index_B))]
        row_B = np.maximum(own_B, 0)
        waves = self.dataset.wave_BN
        x_BTF = np.asarray(self.dataset.x_BTF[row_B])
        return own_B, x_BTF, None if waves is None else np.asarray(waves[row_B])

    def _put(self, local: Any) -> Any:
        """Put a batch's rows on the devices, as one array over all processes."""
        sharding = self._sharding(PartitionSpec(*self.mesh.axis_names) if self.mesh else None)
        if sharding is None:
            return jax.device_put(local)
        return jax.tree.map(partial(jax.make_array_from_process_local_data, sharding), local)

    def _sharding(self, spec: PartitionSpec | None) -> NamedSharding | None:
        return None if self.mesh is None or spec is None else NamedSharding(self.mesh, spec)

    def _find_own(self, n_rows: int) -> slice:
        """The rows of a batch on this process's devices, which are contiguous."""
        if self.mesh is None:
            return slice(None)
        sharding = NamedSharding(self.mesh, PartitionSpec(*self.mesh.axis_names))
        places = sharding.addressable_devices_indices_map((n_rows,)).values()
        bounds = [place[0].indices(n_rows)[:2] for place in places if place is not None]
        return slice(min(start for start, _ in bounds), max(stop for _, stop in bounds))
