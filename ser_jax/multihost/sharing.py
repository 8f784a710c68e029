"""Arrays and values that processes share: clips are sharded, states are replicated."""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from ser_jax.errors import UserError
from ser_jax.multihost.processes import is_writer


def share(make: Callable[[], Any]) -> Any:
    """What `make` returns on process 0, JSON-able, on all processes; all must call.

    Raises:
      UserError: what `make` raises on process 0, on all processes.
    """
    if jax.process_count() == 1:
        return make()
    made: dict[str, Any] = {}
    if is_writer():
        try:
            made = {"value": make()}
        except UserError as error:
            made = {"error": str(error)}
    data = np.frombuffer(json.dumps(made).encode(), np.uint8)
    size = int(broadcast(np.asarray(len(data))))
    made = json.loads(broadcast(data if is_writer() else np.zeros(size, np.uint8)).tobytes())
    if "error" in made:
        raise UserError(made["error"])
    return made["value"]


def broadcast(tree: Any) -> Any:
    """Process 0's NumPy arrays, to the bit; all must call, with equal shapes and types."""
    return _from_bytes(multihost_utils.broadcast_one_to_all(_to_bytes(tree)), tree)


def gather(x: np.ndarray) -> np.ndarray:
    """Each process's `x`, of equal shapes, to the bit: [processes, ...]; all must call."""
    rows = multihost_utils.process_allgather(_to_bytes(x))
    return np.frombuffer(rows.tobytes(), x.dtype).reshape(-1, *x.shape)


def _to_bytes(tree: Any) -> Any:
    # JAX would round float64.
    return jax.tree.map(lambda x: np.frombuffer(x.tobytes(), np.uint8), tree)


def _from_bytes(raw: Any, like: Any) -> Any:
    return jax.tree.map(
        lambda raw, x: np.frombuffer(raw.tobytes(), x.dtype).reshape(x.shape), raw, like
    )


def add_up(part: np.ndarray) -> np.ndarray:
    """The sum of all processes' `part`, bit-equal on all; all must call."""
    return gather(part).sum(axis=0)


# States: replicated on every device of every process.


def collect(tree: Any) -> Any:
    """A tree of replicated arrays as NumPy arrays; random keys as their numbers."""
    return jax.tree.map(lambda leaf: np.asarray(_plain(leaf)), tree)


def spread(tree: Any, whole: NamedSharding) -> Any:
    """A tree of arrays, equal on all processes, replicated on every device.

    Arrays that already span the processes, replicated or sharded, are left as they are. Unlike
    `jax.device_put` this does not make the processes compare the values.
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


# Clips: each process holds those that belong to its devices.


@struct.dataclass
class ShardedRows:
    """An array [B, ...] sharded by rows over the devices; stands in for the array in a `Dataset`.

    Indexing costs one sum over the devices, of the rows taken.

    Attributes:
      rows: sharded along its first axis, padded with zeros to a multiple of the devices.
    """

    rows: jax.Array
    sharding: NamedSharding = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows.shape

    def __getitem__(self, index_B: jax.Array) -> jax.Array:
        """Rows `index_B`, sharded too; their number must be a multiple of the devices."""
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
    """The numbers of the rows, of `n_rows`, that this process holds, sorted."""
    padded = _round_up(n_rows, sharding)
    slices = sharding.addressable_devices_indices_map((padded,)).values()
    rows = np.unique(np.concatenate([np.arange(padded)[index] for index in slices]))  # pyright: ignore
    return rows[rows < n_rows]


def shard(x: np.ndarray, sharding: NamedSharding) -> ShardedRows:
    """Shard an array [B, ...] in which this process has filled in the rows of `find_rows`."""
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
    """Checkpoints of a run that several processes train: only process 0 reads and writes them.

    The others need not see its disk. All processes must call, with replicated states; the methods
    are those of `checkpoint.Checkpoints`.
    """

    def __init__(self, own: Any, whole: NamedSharding):
        """
        Args:
          own: the `checkpoint.Checkpoints` of process 0; `None` on the others.
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
