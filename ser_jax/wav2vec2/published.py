"""Load published wav2vec 2.0 checkpoints: the architecture and its parameters."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ser_jax.errors import check
from ser_jax.wav2vec2.architecture import Architecture, read_architecture
from ser_jax.wav2vec2.hub_folder import PROCESSORS, find_folder, read_object
from ser_jax.wav2vec2.weight_files import read_weights

_PREFIX = "wav2vec2"
HEADS = ("quantizer", "project_q", "project_hid")
"""The parts that pre-training adds to the backbone."""


def load_backbone(path: str | Path, dtype: Any = jnp.float32) -> tuple[Any, dict[str, Any]]:
    """Load a network and its parameters for `module.apply({'params': params}, x_BN, mask_BN)`.

    Args:
      path: a folder in transformers' format, or a hub id such as facebook/wav2vec2-base.
      dtype: type of the computation.

    Returns:
      A `wav2vec2.encoder.Backbone` and its parameters, float32.

    Raises:
      UserError: there is no such folder or id, weights are missing or damaged, the network is not
        wav2vec 2.0, or a tensor is missing or has the wrong shape.
    """
    from ser_jax.wav2vec2.encoder import Backbone

    return Backbone(load_architecture(path), dtype), load_params(path)


def load_architecture(path: str | Path) -> Architecture:
    """Read config.json and the preprocessor's do_normalize; raises as `load_backbone`."""
    file = find_folder(path) / "config.json"
    normalised = {k: v for k, v in load_preprocessor(path).items() if k == "do_normalize"}
    return read_architecture(read_object(file) | normalised, str(file))


_PREPROCESSOR = {"do_normalize": bool, "feature_size": int, "sampling_rate": int,
                 "return_attention_mask": bool}  # fmt: skip


def load_preprocessor(path: str | Path) -> dict[str, Any]:
    """Read the input's settings from preprocessor_config.json or, as newer versions of transformers
    save them, processor_config.json; {} if there is neither.

    Raises:
      UserError: the file is damaged, a value has the wrong type, or the input is not samples.
    """
    folder = find_folder(path)
    file = next((folder / name for name in PROCESSORS if (folder / name).exists()), None)
    if file is None:
        return {}
    found = read_object(file)
    if isinstance(nested := found.get("feature_extractor"), dict):
        found = nested
    for key, kind in _PREPROCESSOR.items():
        value = found.get(key)
        check(
            value is None or type(value) is kind, f"{file}: {key}={value}: must be {kind.__name__}"
        )
    size = found.get("feature_size") or 1
    check(
        size == 1,
        f"{file}: feature_size={size}: the network takes the samples alone, so it must be 1",
    )
    return {key: value for key, value in found.items() if value is not None}


def load_params(path: str | Path) -> dict[str, Any]:
    """Load the backbone's parameters, NumPy float32, nested as in Flax; raises as `load_backbone`.

    Heads are ignored. Some files lack the mask embedding, which is then drawn at random.
    """
    folder, architecture = find_folder(path), load_architecture(path)
    tree = read_weights(folder)
    tree = tree.get(_PREFIX, tree)
    if "masked_spec_embed" not in tree:
        drawn = np.random.default_rng(0).uniform(size=architecture.hidden_size)
        tree = tree | {"masked_spec_embed": drawn.astype(np.float32)}
    return _check_shapes(tree, _describe(architecture), folder)


def load_heads(path: str | Path) -> dict[str, Any]:
    """Load the quantiser and projections of pre-training, if the checkpoint has them."""
    tree = read_weights(find_folder(path))
    return {name: tree[name] for name in HEADS if name in tree}


@functools.cache
def _describe(architecture: Architecture) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The shape of every parameter of a backbone."""
    from ser_jax.wav2vec2.encoder import Backbone

    x_BN = jnp.zeros((1, architecture.receptive_field))
    tree = jax.eval_shape(Backbone(architecture).init, jax.random.key(0), x_BN)["params"]
    flat: dict[Any, Any] = flatten_dict(tree)
    return {path: leaf.shape for path, leaf in flat.items()}


def _check_shapes(
    tree: dict[str, Any], shapes: dict[tuple[str, ...], tuple[int, ...]], folder: Path
) -> dict[str, Any]:
    """The part of `tree` that belongs to the network; raises `UserError` for a misfit."""
    flat: dict[Any, Any] = flatten_dict(tree)
    for path, shape in shapes.items():
        name = ".".join(path)
        check(path in flat, f"{folder}: lacks the tensor {name} {list(shape)} of its config.json")
        found = flat[path].shape
        check(
            found == shape,
            f"{folder}: {name} has the shape {list(found)}, its config.json says {list(shape)}",
        )
    return unflatten_dict({path: flat[path] for path in shapes})
