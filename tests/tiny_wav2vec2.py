"""Small wav2vec 2.0 networks, and PyTorch's of the same weights."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model

from ser_jax.wav2vec2.architecture import Architecture
from ser_jax.wav2vec2.parameter_names import to_flax

flax_wav2vec2: Any = pytest.importorskip(
    "transformers.models.wav2vec2.modeling_flax_wav2vec2",
    reason="transformers 5 has no Flax classes: install 'transformers<5'",
    exc_type=ImportError,
)

SMALL: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
    "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
    "num_codevectors_per_group": 64, "codevector_dim": 16, "proj_codevector_dim": 16,
}  # fmt: skip
SHALLOW: dict[str, Any] = {
    "num_hidden_layers": 2, "conv_dim": (16,) * 4, "conv_stride": (5, 4, 4, 4),
    "conv_kernel": (10, 8, 4, 4),
}  # fmt: skip
"""Changes that halve what there is to compile: 320 samples a frame still, in fewer layers."""
LAYOUTS: dict[str, dict[str, Any]] = {
    "base": {},
    "large": {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
}


def make_architecture(layout: str, **changes: Any) -> Architecture:
    return Architecture(**SMALL | LAYOUTS[layout] | changes)


def build_torch(architecture: Architecture, kind: Any = Wav2Vec2Model, **settings: Any) -> Any:
    """A network of PyTorch's with random weights, norms and biases among them, in evaluation."""
    config = Wav2Vec2Config(**architecture.to_dict(), **settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config).eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
    return model


make_torch = functools.cache(build_torch)
"""For small networks: it keeps every one."""


def get_params(model: Any) -> Any:
    """The weights of PyTorch's network as Flax has them."""
    tensors = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    params = jax.tree.map(jnp.asarray, to_flax(tensors))
    return {"backbone" if name == "wav2vec2" else name: leaf for name, leaf in params.items()}


def make_waves(lengths: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise of these lengths, padded with zeros, float32 [B, N], and its mask."""
    rng, N = np.random.default_rng(seed), max(lengths)
    mask_BN = np.arange(N)[None, :] < np.array(lengths)[:, None]
    x_BN = rng.normal(size=(len(lengths), N)).astype(np.float32)
    return np.where(mask_BN, x_BN, 0).astype(np.float32), mask_BN
