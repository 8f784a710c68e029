"""Published wav2vec 2.0 checkpoints, from a folder or the Hugging Face hub, to parameters."""

import functools
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ser_jax.errors import UserError, check
from ser_jax.files.atomic import expand
from ser_jax.files.failures import tell_system_error
from ser_jax.files.stand_ins import check_not_pointer
from ser_jax.wav2vec2.architecture import Architecture, read_architecture
from ser_jax.wav2vec2.weights import to_flax

WEIGHTS = ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack")
"""Files of weights, in the order in which they are looked for."""
_INDEX = "model.safetensors.index.json"
_PREFIX = "wav2vec2"
_TYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": jnp.bfloat16, "I64": "i8", "I32": "i4",
          "BOOL": "?"}  # fmt: skip
HEADS = ("quantizer", "project_q", "project_hid")
"""The parts of pre-training beside the backbone."""


def load_backbone(path: str | Path, dtype: Any = jnp.float32) -> tuple[Any, dict[str, Any]]:
    """A network and its parameters: `module.apply({'params': params}, x_BN, mask_BN)`.

    Args:
      path: a folder as transformers saves it, or a hub id, such as facebook/wav2vec2-base.
      dtype: type of the computation.

    Returns:
      A `wav2vec2.encoder.Backbone` and its parameters, float32.

    Raises:
      UserError: no such folder or id; no weights; a damaged file; another kind of network; a tensor
        that is missing or of another shape.
    """
    from ser_jax.wav2vec2.encoder import Backbone

    return Backbone(load_architecture(path), dtype), load_params(path)


def load_architecture(path: str | Path) -> Architecture:
    """What config.json says, and do_normalize of preprocessor_config.json; errors as
    `load_backbone`."""
    file = find_folder(path) / "config.json"
    normalised = {k: v for k, v in load_preprocessor(path).items() if k == "do_normalize"}
    return read_architecture(_read_json(file) | normalised, str(file))


_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_PREPROCESSOR = {"do_normalize": bool, "feature_size": int, "sampling_rate": int,
                 "return_attention_mask": bool}  # fmt: skip


def load_preprocessor(path: str | Path) -> dict[str, Any]:
    """What preprocessor_config.json says of the input, or processor_config.json, into which later
    versions of transformers put it; {} where there is neither.

    Raises:
      UserError: it is damaged; a key of a wrong type; it makes other features than samples.
    """
    folder = find_folder(path)
    file = next((folder / name for name in _PROCESSORS if (folder / name).exists()), None)
    if file is None:
        return {}
    found = _read_json(file)
    if isinstance(nested := found.get("feature_extractor"), dict):
        found = nested
    for key, kind in _PREPROCESSOR.items():
        value = found.get(key)
        check(
            value is None or type(value) is kind, f"{file}: {key}={value}: must be {kind.__name__}"
        )
    size = found.get("feature_size") or 1
    check(
        size == 1, f"{file}: feature_size={size}: the network takes the samples alone, which is 1"
    )
    return {key: value for key, value in found.items() if value is not None}


def load_params(path: str | Path) -> dict[str, Any]:
    """The backbone's parameters, NumPy float32, nested as in Flax; errors as `load_backbone`.

    Heads are left out. A mask's embedding that the file lacks, as some do, is drawn.
    """
    folder, architecture = find_folder(path), load_architecture(path)
    tree = read_weights(folder)
    tree = tree.get(_PREFIX, tree)
    if "masked_spec_embed" not in tree:
        drawn = np.random.default_rng(0).uniform(size=architecture.hidden_size)
        tree = tree | {"masked_spec_embed": drawn.astype(np.float32)}
    return _check_shapes(tree, _describe(architecture), folder)


def load_heads(path: str | Path) -> dict[str, Any]:
    """Quantiser and projections of pre-training, as far as the checkpoint has them."""
    tree = read_weights(find_folder(path))
    return {name: tree[name] for name in HEADS if name in tree}


def read_weights(folder: Path) -> dict[str, Any]:
    """All weights of a folder, nested as in Flax, NumPy float32.

    Raises:
      UserError: there are none; the file is damaged; PyTorch's file without PyTorch.
    """
    if (folder / _INDEX).exists() and not (folder / WEIGHTS[0]).exists():
        names = sorted(set(_read_json(folder / _INDEX).get("weight_map", {}).values()))
        parts = [read_safetensors(folder / name) for name in names]
        return to_flax({name: t for part in parts for name, t in part.items()})
    for name, read in zip(WEIGHTS, (read_safetensors, _read_bin, _read_msgpack), strict=True):
        if (folder / name).exists():
            found = read(folder / name)
            return found if name.endswith(".msgpack") else to_flax(found)
    raise UserError(f"{folder}: holds no weights; it needs one of {', '.join(WEIGHTS)}")


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name, float32.

    Raises:
      UserError: the file is missing, cut short or damaged; its weights are quantised.
    """
    from safetensors import SafetensorError, deserialize

    try:
        tensors = {}
        for name, found in deserialize(file.read_bytes()):
            kind = found["dtype"]
            check(
                kind in _TYPES,
                f"{file}: {name} is of type {kind}, as quantised weights are, which are not read; "
                "take a checkpoint in float32, float16 or bfloat16",
            )
            dtype = np.dtype(_TYPES[kind])
            array = np.frombuffer(found["data"], dtype).reshape(found["shape"])
            tensors[name] = array.astype(np.float32)
        return tensors
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise _damaged(file, error) from error


def _read_bin(file: Path) -> dict[str, np.ndarray]:
    check(
        importlib.util.find_spec("torch") is not None,
        f"{file}: needs PyTorch to be read; pip install torch, or take a checkpoint with "
        "model.safetensors",
    )
    import torch

    remedy = (
        "save model.state_dict() alone by torch.save, or take a checkpoint with model.safetensors"
    )
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and PyTorch have an error each for one fact
        if "Unsupported global" in str(error):
            raise UserError(f"{file}: holds other objects than tensors; {remedy}") from error
        raise _damaged(file, error) from error
    check(isinstance(tensors, dict), f"{file}: holds no tensors by name; {remedy}")
    for name, tensor in tensors.items():
        kind = type(tensor).__name__
        check(isinstance(tensor, torch.Tensor), f"{file}: {name} is {kind}, no tensor; {remedy}")
    return {name: tensor.float().numpy() for name, tensor in tensors.items()}


def _read_msgpack(file: Path) -> dict[str, Any]:
    from flax.serialization import msgpack_restore

    try:
        tree = flatten_dict(msgpack_restore(file.read_bytes()))
        return unflatten_dict({path: np.asarray(leaf, np.float32) for path, leaf in tree.items()})
    except Exception as error:  # msgpack's own, and what NumPy says of wrong sizes
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> Exception:
    if (told := tell_system_error(file, error)) is not None:
        return told
    check_not_pointer(file)
    return UserError(f"{file}: damaged or cut short; download it again")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        tree = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise UserError(
            f"{file}: no such file; name a folder with config.json and weights"
        ) from error
    except OSError as error:
        raise UserError(f"{file}: cannot read: {error.strerror}; check its permissions") from error
    except ValueError as error:
        check_not_pointer(file)
        raise UserError(f"{file}: cannot be read as JSON; download it again") from error
    check(isinstance(tree, dict), f"{file}: must hold an object; download it again")
    return tree


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
    """What of `tree` has a place in the network, or an error that names what does not fit."""
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


@functools.cache
def find_folder(path: str | Path) -> Path:
    """The folder of a checkpoint, downloaded from the hub if `path` is no folder but an id.

    Raises:
      UserError: neither; or the hub cannot be reached and does not have it in its cache.
    """
    folder = expand(path)
    if folder.is_dir():
        return folder
    text = str(path)
    is_id = text.count("/") == 1 and not text.startswith((".", "/", "~")) and os.sep == "/"
    check(
        is_id and not folder.exists(),
        f"backbone.path={text}: no such folder; name one with config.json and weights, or a hub id "
        "such as facebook/wav2vec2-base-960h",
    )
    return _download(text)


def _download(hub_id: str) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download

    try:
        weights = list(WEIGHTS)
        if not constants.HF_HUB_OFFLINE:  # one file of weights is enough
            there = HfApi().list_repo_files(hub_id)
            weights = [name for name in WEIGHTS if name in there][:1]
            weights = weights or [_INDEX, "model-*.safetensors"]
        patterns = ["config.json", *_PROCESSORS, *weights]
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except Exception as error:  # the hub's, its HTTP library's and the system's own
        raise UserError(
            f"backbone.path={hub_id}: cannot be had from the Hugging Face hub "
            f"({type(error).__name__}); download config.json and model.safetensors elsewhere and "
            "name their folder"
        ) from error
