"""The file formats of published weights: safetensors, PyTorch's and Flax's."""

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
    """Read all weights of a folder, nested as in Flax, NumPy float32.

    Raises:
      UserError: there are none, a file is damaged, or PyTorch's format is found without PyTorch.
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
    """Read the tensors of a file by name, float32.

    Raises:
      UserError: the file is missing, truncated or damaged, or its weights are quantised.
    """
    from safetensors import SafetensorError, deserialize

    try:
        tensors = {}
        for name, found in deserialize(file.read_bytes()):
            kind = found["dtype"]
            check(
                kind in _TYPES,
                f"{file}: {name} is of type {kind}, and quantised weights are not supported; "
                "use a checkpoint in float32, float16 or bfloat16",
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
        f"{file}: reading it needs PyTorch; pip install torch, or use a checkpoint with "
        "model.safetensors",
    )
    import torch

    remedy = (
        "save only model.state_dict() with torch.save, or use a checkpoint with model.safetensors"
    )
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile, pickle and PyTorch each raise their own
        if "Unsupported global" in str(error):
            raise UserError(f"{file}: holds objects other than tensors; {remedy}") from error
        raise _damaged(file, error) from error
    check(isinstance(tensors, dict), f"{file}: is not a dictionary of tensors; {remedy}")
    for name, tensor in tensors.items():
        kind = type(tensor).__name__
        check(isinstance(tensor, torch.Tensor), f"{file}: {name} is {kind}, not a tensor; {remedy}")
    return {name: tensor.float().numpy() for name, tensor in tensors.items()}


def _read_msgpack(file: Path) -> dict[str, Any]:
    from flax.serialization import msgpack_restore

    try:
        tree = flatten_dict(msgpack_restore(file.read_bytes()))
        return unflatten_dict({path: np.asarray(leaf, np.float32) for path, leaf in tree.items()})
    except Exception as error:  # msgpack's errors, and NumPy's for wrong sizes
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> Exception:
    if (told := tell_system_error(file, error)) is not None:
        return told
    check_not_pointer(file)
    return UserError(f"{file}: damaged or cut short; download it again")
