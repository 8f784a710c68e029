"""A corpus that stays on the host: grain reads a batch's clips and brings them to the device ahead.

Only what every clip has a row of stays there, features or samples; the small rest, the classes
and lengths of all clips, is on the device, so that a streamed batch is taken by the same function
as any other and equals it to the bit.
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
"""Of a device's free memory, for the corpus; the rest is the network's."""


def choose_placement(parallel: ParallelConfig, n_bytes: int, free_bytes: int | None = None) -> str:
    """'device' or 'stream'.

    Args:
      parallel: what is asked for.
      n_bytes: of the corpus' features or samples, as far as one device holds them.
      free_bytes: of a device; None: as `measure_free_memory` finds.
    """
    if parallel.placement != "auto":
        return parallel.placement
    free = measure_free_memory() if free_bytes is None else free_bytes
    return "device" if n_bytes <= SHARE * free else "stream"


def measure_free_memory(device: Any = None) -> int:
    """Bytes that a JAX device (None: the first) can still take; on CPU, those free."""
    device = device or jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    name = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")


@struct.dataclass
class TakenRows:
    """The rows of a batch; stands in for the whole array in a `Dataset`, whatever is taken of it.

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
      dataset: as it would be on the device, but `x_BTF` and, if there, `wave_BN` are arrays of the
        host that can be read by row: NumPy's, or a `np.memmap` of a file.
      mesh: the devices that share out a batch; None: the first. Of several processes each must
        have all that `dataset` holds at hand, and reads only the rows of its own devices.
      prefetch: batches that are read at once, each by a thread, and as many that are on the
        device, before they are needed.
    """

    dataset: Dataset
    mesh: Mesh | None = None
    prefetch: int = 4

    def __post_init__(self) -> None:
        check(self.prefetch >= 1, f"prefetch={self.prefetch}: must be at least 1")

    def stream(self, index_SB: np.ndarray) -> Iterator[tuple[Dataset, jax.Array]]:
        """For each row of `index_SB` [S, B] a dataset with those clips, and the clip numbers.

        They come in order; threads read ahead. Abandoning the iterator ends them.
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
        """What of the corpus is on the device."""
        small = self.dataset.replace(x_BTF=None, wave_BN=None)  # pyright: ignore
        return jax.device_put(small, self._sharding(PartitionSpec()))

    def _read(self, index_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """This process' rows of a batch; `PADDING` reads the first clip, which is zeroed later."""
        own_B = index_B[self._find_own(len(index_B))]
        row_B = np.maximum(own_B, 0)
        waves = self.dataset.wave_BN
        x_BTF = np.asarray(self.dataset.x_BTF[row_B])
        return own_B, x_BTF, None if waves is None else np.asarray(waves[row_B])

    def _put(self, local: Any) -> Any:
        """A batch's rows on the devices, those of all processes together."""
        sharding = self._sharding(PartitionSpec(*self.mesh.axis_names) if self.mesh else None)
        if sharding is None:
            return jax.device_put(local)
        return jax.tree.map(partial(jax.make_array_from_process_local_data, sharding), local)

    def _sharding(self, spec: PartitionSpec | None) -> NamedSharding | None:
        return None if self.mesh is None or spec is None else NamedSharding(self.mesh, spec)

    def _find_own(self, n_rows: int) -> slice:
        """The rows of a batch that lie on this process' devices, which follow each other."""
        if self.mesh is None:
            return slice(None)
        sharding = NamedSharding(self.mesh, PartitionSpec(*self.mesh.axis_names))
        places = sharding.addressable_devices_indices_map((n_rows,)).values()
        bounds = [place[0].indices(n_rows)[:2] for place in places if place is not None]
        return slice(min(start for start, _ in bounds), max(stop for _, stop in bounds))
