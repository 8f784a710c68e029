"""Arrays and values that several processes share: clips sharded, states alike on all of them."""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ser_jax.multihost.processes import is_writer


def share(make: Callable[[], Any]) -> Any:
    """What `make` gives on process 0, JSON-able, on all processes; all must call."""
    if jax.process_count() == 1:
        return make()
    data = json.dumps(make()).encode() if is_writer() else b""
    size = int(broadcast(np.asarray(len(data))))
    raw = np.frombuffer(data, np.uint8) if is_writer() else np.zeros(size, np.uint8)
    return json.loads(broadcast(raw).tobytes())


def broadcast(tree: Any) -> Any:
    """Process 0's NumPy arrays, to the bit; all must call, with equal shapes and types."""
    return _combine(tree if is_writer() else jax.tree.map(np.zeros_like, tree))


def gather(x: np.ndarray) -> np.ndarray:
    """Each process' `x`, of equal shapes, to the bit: [processes, ...]; all must call."""
    rows = np.zeros((jax.process_count(), *x.shape), x.dtype)
    rows[jax.process_index()] = x
    return _combine(rows)


def _combine(tree: Any) -> Any:
    """Arrays of which each byte is zero on all processes but one, with all bytes, on all."""
    mesh = Mesh(np.asarray(jax.devices()), ("device",))
    by_device = NamedSharding(mesh, PartitionSpec("device"))
    own_row = jax.devices().index(jax.local_devices()[0])

    def put(x: np.ndarray) -> jax.Array:
        # As bytes: JAX would round float64.
        raw_1N = np.frombuffer(x.tobytes(), np.uint8)[None]
        zeros_1N = np.zeros_like(raw_1N)

        def read(index: Any) -> np.ndarray:
            return raw_1N if (index[0].start or 0) == own_row else zeros_1N

        return jax.make_array_from_callback((mesh.size, raw_1N.size), by_device, read)

    whole = NamedSharding(mesh, PartitionSpec())
    summed = jax.jit(_add_devices, out_shardings=whole)(jax.tree.map(put, tree))
    return jax.tree.map(
        lambda x, found: np.frombuffer(np.asarray(found).tobytes(), x.dtype).reshape(x.shape),
        tree, summed,
    )  # fmt: skip


def _add_devices(tree: Any) -> Any:
    return jax.tree.map(lambda raw_DN: raw_DN.sum(axis=0, dtype=raw_DN.dtype), tree)


def add_up(part: np.ndarray) -> np.ndarray:
    """The sum of each process' `part`, the same on all to the bit; all must call."""
    return gather(part).sum(axis=0)


# States: the same on every device of every process.


def collect(tree: Any) -> Any:
    """A tree of arrays that are whole on every device, as NumPy arrays; keys as their numbers."""
    return jax.tree.map(lambda leaf: np.asarray(_plain(leaf)), tree)


def spread(tree: Any, whole: NamedSharding) -> Any:
    """A tree of arrays, equal on all processes, as arrays that are whole on every device.

    What is spread over the processes already, whole or in shards, is left as it is. Unlike
    `jax.device_put` this does not make the processes compare what they hold.
    """
    return jax.tree.map(lambda leaf: _spread(leaf, whole), tree)


def _spread(leaf: Any, whole: NamedSharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf
    raw = np.asarray(_plain(leaf))
    array = jax.make_array_from_callback(raw.shape, whole, lambda index: raw[index])
    return _like(array, leaf)


def _plain(leaf: Any) -> Any:
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _like(array: Any, leaf: Any) -> Any:
    """`array` as a random key if `leaf` is one."""
    if jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key):
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf))
    return array


# Clips: each process holds those of its devices.


@struct.dataclass
class ShardedRows:
    """An array [B, ...] of which every device holds some rows; stands in for it in a `Dataset`.

    Taking rows costs one sum over the devices, of the rows taken.

    Attributes:
      rows: sharded along its first axis, filled up with zeros to a multiple of the devices.
    """

    rows: jax.Array
    sharding: NamedSharding = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows.shape

    def __getitem__(self, index_B: jax.Array) -> jax.Array:
        """Rows `index_B`, as many as are a multiple of the devices, sharded in their turn."""
        spec = self.sharding.spec
        (axis,) = spec

        def take_own(rows: jax.Array, index_B: jax.Array) -> jax.Array:
            own_B = index_B - jax.lax.axis_index(axis) * len(rows)
            mine_B = (own_B >= 0) & (own_B < len(rows))
            taken = rows[jnp.clip(own_B, 0, len(rows) - 1)]
            mine_B = mine_B.reshape(-1, *(1,) * (rows.ndim - 1))
            wide = jnp.int32 if jnp.issubdtype(rows.dtype, jnp.integer) else rows.dtype
            taken = jnp.where(mine_B, taken, 0).astype(wide)
            summed = jax.lax.psum_scatter(taken, axis, scatter_dimension=0, tiled=True)
            return summed.astype(rows.dtype)

        return jax.shard_map(
            take_own, mesh=self.sharding.mesh, in_specs=(spec, PartitionSpec()), out_specs=spec
        )(self.rows, index_B)


def find_rows(n_rows: int, sharding: NamedSharding) -> np.ndarray:
    """Which of `n_rows` rows this process holds, sorted."""
    padded = _round_up(n_rows, sharding)
    slices = sharding.addressable_devices_indices_map((padded,)).values()
    rows = np.unique(np.concatenate([np.arange(padded)[index] for index in slices]))  # pyright: ignore
    return rows[rows < n_rows]


def shard(x: np.ndarray, sharding: NamedSharding) -> ShardedRows:
    """An array [B, ...] of which this process has filled in the rows of `find_rows`."""
    padded = _round_up(len(x), sharding)

    def read(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(padded)
        part = x[start:stop]
        return np.pad(part, ((0, stop - start - len(part)), *((0, 0),) * (x.ndim - 1)))

    rows = jax.make_array_from_callback((padded, *x.shape[1:]), sharding, read)
    return ShardedRows(rows, sharding)


def _round_up(n_rows: int, sharding: NamedSharding) -> int:
    return n_rows + -n_rows % sharding.num_devices


class SharedCheckpoints:
    """Checkpoints of a run that several processes train: process 0 alone reads and writes them.

    The others need not see its disk. All processes must call, with states that are whole on every
    device; the same methods as `checkpoint.Checkpoints`.
    """

    def __init__(self, own: Any, whole: NamedSharding):
        """
        Args:
          own: the `checkpoint.Checkpoints` of process 0, None on the others.
          whole: the sharding of a state.
        """
        self._own, self._whole = own, whole

    def save(self, epoch: int, state: Any, facts: dict[str, Any], *, best_epoch: int) -> None:
        """See `checkpoint.Checkpoints.save`."""
        if self._own is not None:
            self._own.save(epoch, state, facts, best_epoch=best_epoch)

    def wait(self) -> None:
        """See `checkpoint.Checkpoints.wait`."""
        if self._own is not None:
            self._own.wait()

    def latest_epoch(self) -> int | None:
        """See `checkpoint.Checkpoints.latest_epoch`."""
        return share(lambda: self._own.latest_epoch())

    def load_facts(self, epoch: int) -> dict[str, Any]:
        """See `checkpoint.Checkpoints.load_facts`."""
        return share(lambda: self._own.load_facts(epoch))

    def load_state(self, epoch: int, like: Any) -> Any:
        """See `checkpoint.Checkpoints.load_state`."""
        state = collect(like)
        if self._own is not None:
            state = self._own.load_state(epoch, state)
        return jax.tree.map(_like, spread(broadcast(state), self._whole), like)

    def close(self) -> None:
        """See `checkpoint.Checkpoints.close`."""
        if self._own is not None:
            self._own.close()
