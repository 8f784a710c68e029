"""What of a state a checkpoint holds: which of its arrays, in which form, and the state again."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.training.state import TrainState


def list_saved(state: Any) -> Any:
    """What of a state is saved, by the names that checkpoints had before anything was frozen or
    averaged."""
    if not isinstance(state, TrainState):
        return state
    names = {field.name for field in dataclasses.fields(state)} - {"frozen"}
    names -= set() if state.average else {"average"}
    return {name: getattr(state, name) for name in sorted(names)}


def copy_to_host(state: Any) -> Any:
    """What of a state is saved, in NumPy's own memory; random keys as their numbers."""

    def copy(leaf: Any, on_host: Any) -> np.ndarray:
        # On CPU JAX lends its buffer, which a step that is given the state writes over.
        devices = leaf.devices() if isinstance(leaf, jax.Array) else ()
        is_lent = all(device.platform == "cpu" for device in devices)
        return np.array(on_host) if is_lent else on_host

    plain = jax.tree.map(_get_numbers, list_saved(state))
    return jax.tree.map(copy, plain, jax.device_get(plain))


def restore(saved: Any, like: Any) -> Any:
    """The state of which `saved` was read, with the types and places of `like`."""
    wanted = list_saved(like)
    state = jax.tree.map(_restore_place, jax.tree.map(_restore_key, saved, wanted), wanted)
    return dataclasses.replace(like, **state) if isinstance(like, TrainState) else state


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", np.int32), jax.dtypes.prng_key)


def _get_numbers(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _restore_key(leaf: Any, like: Any) -> Any:
    """A random key again; older checkpoints hold keys as keys."""
    if _is_key(like) and not _is_key(leaf):
        return jax.random.wrap_key_data(leaf, impl=_find_impl(like))
    return leaf


def _find_impl(like: Any) -> Any:
    """The algorithm of a random key, or of the shape of one; computes nothing."""
    if isinstance(like, jax.Array):
        return jax.random.key_impl(like)
    found = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), like)
    return found[0]


def _restore_place(leaf: Any, like: Any) -> Any:
    """Bound to its device only if `like` is: JAX would compile programs anew for bound arrays."""
    if getattr(like, "committed", True):
        return leaf
    if _is_key(leaf):
        data = jax.device_put(np.array(jax.random.key_data(leaf)))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return jax.device_put(np.array(leaf))
