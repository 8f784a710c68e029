"""A small residual network on log-mel spectrograms, with attentive pooling over time."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.config import ModelConfig
from ser_jax.models.conv import MaskedBatchNorm, Norm
from ser_jax.models.layers import (
    KERNEL_INITS,
    Head,
    Initializer,
    average_frames,
    drop,
    keep_rows,
    make_head,
    zero_padding,
)

_SQUEEZE = 8
"""Reduction ratio of squeeze-and-excitation."""
_ATTENTION = 128
"""Hidden units of the attention over frames."""


def _convolve(
    x_BTFC: jax.Array, channels: int, size: int, stride: int, init: Initializer, dtype: Any
) -> jax.Array:
    """A convolution without bias, inside the calling module; output t is centred on input
    `stride * t`, however much padding follows."""
    side = (size - 1) // 2
    conv = nn.Conv(
        channels, (size, size), (stride, stride), padding=((side, side), (side, side)),
        use_bias=False, kernel_init=init, dtype=dtype,
    )  # fmt: skip
    return conv(x_BTFC)


class SqueezeExcitation(nn.Module):
    """Each channel scaled by a gate computed from all channels' means over real frames.

    Source: Hu, Shen and Sun 2018, 'Squeeze-and-excitation networks'.
    """

    kernel_init: Initializer
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTFC: jax.Array, mask_BT: jax.Array) -> jax.Array:
        """[B, T, F, C] to the same shape."""
        C = x_BTFC.shape[-1]
        mean_BC = average_frames(x_BTFC.mean(axis=2), mask_BT)
        dense = functools.partial(nn.Dense, kernel_init=self.kernel_init, dtype=self.dtype)
        narrow = nn.relu(dense(max(C // _SQUEEZE, 1), name="squeeze")(mean_BC))
        gate_BC = nn.sigmoid(dense(C, name="excite")(narrow))
        return x_BTFC * gate_BC[:, None, None]


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm, a channel gate, and a skip connection.

    Source: He et al. 2016, 'Deep residual learning for image recognition'.
    """

    channels: int
    stride: int
    kernel_init: Initializer
    norm: Norm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_BTFC: jax.Array, mask_BT: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """[B, T, F, C] and its mask to [B, T / stride, F / stride, channels] and its mask."""
        convolve = functools.partial(_convolve, init=self.kernel_init, dtype=self.dtype)
        short_mask_BT = mask_BT[:, :: self.stride]
        x = zero_padding(x_BTFC, mask_BT)
        y = convolve(x, self.channels, 3, self.stride)
        y = nn.relu(self.norm(name="norm_0")(y, short_mask_BT, train=train))
        y = convolve(zero_padding(y, short_mask_BT), self.channels, 3, 1)
        y = self.norm(name="norm_1")(y, short_mask_BT, train=train)
        y = SqueezeExcitation(self.kernel_init, self.dtype, name="gate")(y, short_mask_BT)
        if self.stride > 1 or x.shape[-1] != self.channels:
            x = convolve(x, self.channels, 1, self.stride)
            x = self.norm(name="norm_around")(x, short_mask_BT, train=train)
        return nn.relu(x + y), short_mask_BT


class AttentiveStatistics(nn.Module):
    """Mean and standard deviation of each feature over real frames, with learned weights.

    Source: Okabe, Koshinaka and Shinoda 2018, 'Attentive statistics pooling for deep speaker
    embedding'; one weight for each feature and frame, as in Desplanques et al. 2020, 'ECAPA-TDNN'.
    """

    kernel_init: Initializer
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTH: jax.Array, mask_BT: jax.Array) -> jax.Array:
        """[B, T, H] to [B, 2 H], float32; a row without real frames gives finite numbers."""
        dense = functools.partial(nn.Dense, kernel_init=self.kernel_init, dtype=self.dtype)
        score_BTH = dense(x_BTH.shape[-1], name="score")(
            jnp.tanh(dense(_ATTENTION, name="hidden")(x_BTH))
        )
        x_BTH, mask_BT1 = x_BTH.astype(jnp.float32), mask_BT[..., None]
        score_BTH = jnp.where(mask_BT1, score_BTH.astype(jnp.float32), -1e9)
        weight_BTH = jnp.where(mask_BT1, jax.nn.softmax(score_BTH, axis=1), 0)
        mean_BH = (weight_BTH * x_BTH).sum(axis=1)
        square_BH = (weight_BTH * jnp.square(x_BTH - mean_BH[:, None])).sum(axis=1)
        return jnp.concatenate([mean_BH, jnp.sqrt(square_BH + 1e-5)], axis=-1)


class ResNet(nn.Module):
    """A convolution, stages of residual blocks, attentive pooling, dropout, the head.

    The first convolution, and each stage after the first, halve time and bands.

    Attributes:
      channels: of each stage.
      layers: blocks of each stage.
      norm: makes the batch norm.
      head: from the pooled statistics to logits.
      kernel_init: initial values of all kernels.
      mask_padding: keep zero padding out of everything.
      dtype: type of the computation.
    """

    channels: Sequence[int]
    layers: int
    norm: Norm
    head: Head
    kernel_init: Initializer
    mask_padding: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_BTF: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float = 0.0
    ) -> jax.Array:
        """Features [B, T, F] and mask [B, T] to logits [B, C]."""
        mask_BT = mask_BT if self.mask_padding else keep_rows(mask_BT)
        x = zero_padding(x_BTF[..., None].astype(self.dtype), mask_BT)
        x = _convolve(x, self.channels[0], 3, 2, self.kernel_init, self.dtype)
        mask_BT = mask_BT[:, ::2]
        x = nn.relu(self.norm(name="norm")(x, mask_BT, train=train))
        for stage, channels in enumerate(self.channels):
            for layer in range(self.layers):
                stride = 2 if stage and not layer else 1
                block = ResidualBlock(
                    channels, stride, self.kernel_init, self.norm, self.dtype,
                    name=f"stage_{stage}_block_{layer}",
                )  # fmt: skip
                x, mask_BT = block(x, mask_BT, train=train)
        h_BTH = x.reshape(*x.shape[:2], -1)
        pool = AttentiveStatistics(self.kernel_init, self.dtype, name="pool")
        h_BH = pool(h_BTH, mask_BT)
        if train:
            h_BH = drop(h_BH, dropout, self.make_rng("dropout"))
        return self.head(h_BH)


def make_resnet(
    config: ModelConfig, n_classes: int, dtype: jnp.dtype, axis_name: str | None, forms: object
) -> nn.Module:
    """`ResNet` by its settings; see `systems.networks.make_model`."""
    del forms
    kernel_init = KERNEL_INITS[config.kernel_init]
    norm = functools.partial(
        MaskedBatchNorm, config.norm_momentum, config.norm_epsilon, axis_name, dtype
    )
    head = make_head(config, n_classes, dtype)
    return ResNet(
        config.channels, config.layers, norm, head, kernel_init, config.mask_padding, dtype
    )
