"""The files in which weights are published: safetensors, PyTorch's and Flax' own."""

import importlib.util
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ser_jax.errors import UserError, check
from ser_jax.files.failures import tell_system_error
from ser_jax.files.stand_ins import check_not_pointer
from ser_jax.wav2vec2.hub_folder import INDEX, WEIGHTS, read_object
from ser_jax.wav2vec2.parameter_names import to_flax

_TYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": jnp.bfloat16, "I64": "i8", "I32": "i4",
          "BOOL": "?"}  # fmt: skip


def read_weights(folder: Path) -> dict[str, Any]:
    """All weights of a folder, nested as in Flax, NumPy float32.

    Raises:
      UserError: there are none; the file is damaged; PyTorch's file without PyTorch.
    """
    if (folder / INDEX).exists() and not (folder / WEIGHTS[0]).exists():
        names = sorted(set(read_object(folder / INDEX).get("weight_map", {}).values()))
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
