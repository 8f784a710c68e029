"""Names and shapes of wav2vec 2.0's parameters in PyTorch and in Flax."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

_WEIGHT_NORM = re.compile(r"(.*pos_conv_embed\.conv)\.(?:parametrizations\.weight\.)?(\w+)$")
_SPELLINGS = {"original0": "weight_g", "original1": "weight_v"}


def to_flax(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Convert PyTorch's tensors by name to Flax's tree.

    A linear weight [out, in] becomes a kernel [in, out], a convolution's [out, in, K] becomes
    [K, in, out], and a norm's weight becomes a scale; both spellings of weight norm are understood.
    """
    flat: dict[tuple[str, ...], np.ndarray] = {}
    for name, tensor in tensors.items():
        if match := _WEIGHT_NORM.match(name):
            name = f"{match[1]}.{_SPELLINGS.get(match[2], match[2])}"
        *path, last = name.split(".")
        if last == "weight":
            last = "scale" if tensor.ndim == 1 else "kernel"
            tensor = tensor.transpose()
        flat[(*path, last)] = np.ascontiguousarray(tensor)
    return unflatten_dict(flat)


def to_torch(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Convert Flax's tree to PyTorch's tensors by name, the inverse of `to_flax`."""
    tensors = {}
    for path, leaf in flatten_dict(params).items():
        array, last = np.asarray(leaf, np.float32), path[-1]
        if last in ("kernel", "scale"):
            array, last = array.transpose(), "weight"
        tensors[".".join((*path[:-1], last))] = np.ascontiguousarray(array)
    return tensors
