"""What of a state a checkpoint holds: its arrays by name, and the state again."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.training.state import TrainState


def name_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths: params/out/kernel."""
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def list_saved(state: Any) -> Any:
    """What of a state is saved: all but what is frozen, and averages where there are any."""
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


def restore(arrays: dict[str, np.ndarray], like: Any) -> Any:
    """The tree of `arrays`, in the structure, types and places of `like`.

    Raises:
      KeyError: an array is missing or has another shape.
    """
    leaves = [_restore_leaf(name, arrays[name], leaf) for name, leaf in name_leaves(like).items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _restore_leaf(name: str, array: np.ndarray, like: Any) -> jax.Array:
    # Bound to its device only if `like` is: JAX would compile programs anew for bound arrays.
    place = getattr(like, "sharding", None) if getattr(like, "committed", True) else None
    if _is_key(like):
        data = jax.device_put(array.astype(np.uint32))
        leaf = jax.random.wrap_key_data(data, impl=_find_impl(like))
    else:
        known = array.dtype.kind != "V"  # NumPy's files have no name for bfloat16
        leaf = array.astype(like.dtype) if known else array.view(like.dtype)
    if leaf.shape != like.shape:
        raise KeyError(f"{name} of shape {leaf.shape}, not {like.shape},")
    return jax.device_put(leaf, place)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", np.int32), jax.dtypes.prng_key)


def _get_numbers(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _find_impl(like: Any) -> Any:
    """The algorithm of a random key, or of the shape of one; computes nothing."""
    if isinstance(like, jax.Array):  # traces nothing
        return jax.random.key_impl(like)
    found = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), like)
    return found[0]
