"""A small residual network on log-mel spectrograms, with attentive pooling over time.

Its convolutions read the spectrogram as an image of one channel, or along time alone with the bands
as channels, which costs a small fraction of the work.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.config import ModelConfig
from ser_jax.errors import check
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


class FrameConv(nn.Module):
    """A convolution along time without bias, as one product of all its taps.

    A product stays a product where runs or members are trained side by side under `vmap`; XLA would
    make a slow grouped convolution of `nn.Conv`.
    """

    channels: int
    size: int
    stride: int
    kernel_init: Initializer
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BT1C: jax.Array) -> jax.Array:
        """[B, T, 1, C] to [B, T / stride, 1, channels]; odd `size`, zeros beyond both ends."""
        T, C, side = x_BT1C.shape[1], x_BT1C.shape[-1], (self.size - 1) // 2
        kernel = self.param("kernel", self.kernel_init, (self.size, C, self.channels))
        padded = jnp.pad(x_BT1C.astype(self.dtype), ((0, 0), (side, side), (0, 0), (0, 0)))
        taps = [padded[:, tap : tap + T : self.stride] for tap in range(self.size)]
        product = kernel.reshape(self.size * C, self.channels).astype(self.dtype)
        return jnp.concatenate(taps, axis=-1) @ product


class Convolutions(NamedTuple):
    """How convolutions are made: `size` wide along time and, on an image, along the bands.

    Attributes:
      kernel_init: initial values of the kernels.
      size: taps of each kernel, odd.
      along_time: the bands are channels, and there is no axis of bands to convolve along.
      dtype: type of the computation.
    """

    kernel_init: Initializer
    size: int = 3
    along_time: bool = False
    dtype: Any = jnp.float32

    def apply(self, x_BTFC: jax.Array, channels: int, stride: int, *, size: int = 0) -> jax.Array:
        """A convolution without bias, inside the calling module; output t is centred on input
        `stride * t`, however much padding follows."""
        size = size or self.size
        if self.along_time:
            return FrameConv(channels, size, stride, self.kernel_init, self.dtype)(x_BTFC)
        side = (size - 1) // 2
        conv = nn.Conv(
            channels, (size, size), (stride, stride), padding=((side, side), (side, side)),
            use_bias=False, kernel_init=self.kernel_init, dtype=self.dtype,
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
    """Two convolutions with batch norm, a channel gate, and a skip connection.

    Source: He et al. 2016, 'Deep residual learning for image recognition'.
    """

    channels: int
    stride: int
    convolutions: Convolutions
    norm: Norm

    @nn.compact
    def __call__(
        self, x_BTFC: jax.Array, mask_BT: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """[B, T, F, C] and its mask to [B, T / stride, F / stride, channels] and its mask."""
        convolve = self.convolutions.apply
        short_mask_BT = mask_BT[:, :: self.stride]
        x = zero_padding(x_BTFC, mask_BT)
        y = convolve(x, self.channels, self.stride)
        y = nn.relu(self.norm(name="norm_0")(y, short_mask_BT, train=train))
        y = convolve(zero_padding(y, short_mask_BT), self.channels, 1)
        y = self.norm(name="norm_1")(y, short_mask_BT, train=train)
        gate = SqueezeExcitation(
            self.convolutions.kernel_init, self.convolutions.dtype, name="gate"
        )
        y = gate(y, short_mask_BT)
        if self.stride > 1 or x.shape[-1] != self.channels:
            x = convolve(x, self.channels, self.stride, size=1)
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

    The first convolution, and each stage after the first, halve time and, on an image, bands.

    Attributes:
      channels: of each stage.
      layers: blocks of each stage.
      convolutions: how all of them are made; the rest takes kernels and type from them.
      norm: makes the batch norm.
      head: from the pooled statistics to logits.
      mask_padding: keep zero padding out of everything.
    """

    channels: Sequence[int]
    layers: int
    convolutions: Convolutions
    norm: Norm
    head: Head
    mask_padding: bool = False

    @nn.compact
    def __call__(
        self, x_BTF: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float = 0.0
    ) -> jax.Array:
        """Features [B, T, F] and mask [B, T] to logits [B, C]."""
        mask_BT = mask_BT if self.mask_padding else keep_rows(mask_BT)
        kernel_init, dtype = self.convolutions.kernel_init, self.convolutions.dtype
        x = x_BTF[:, :, None] if self.convolutions.along_time else x_BTF[..., None]
        x = zero_padding(x.astype(dtype), mask_BT)
        x = self.convolutions.apply(x, self.channels[0], 2)
        mask_BT = mask_BT[:, ::2]
        x = nn.relu(self.norm(name="norm")(x, mask_BT, train=train))
        for stage, channels in enumerate(self.channels):
            for layer in range(self.layers):
                stride = 2 if stage and not layer else 1
                block = ResidualBlock(
                    channels, stride, self.convolutions, self.norm,
                    name=f"stage_{stage}_block_{layer}",
                )  # fmt: skip
                x, mask_BT = block(x, mask_BT, train=train)
        h_BTH = x.reshape(*x.shape[:2], -1)
        pool = AttentiveStatistics(kernel_init, dtype, name="pool")
        h_BH = pool(h_BTH, mask_BT)
        if train:
            h_BH = drop(h_BH, dropout, self.make_rng("dropout"))
        return self.head(h_BH)


def make_resnet(
    config: ModelConfig,
    n_classes: int,
    dtype: jnp.dtype,
    axis_name: str | None,
    forms: object,
    *,
    along_time: bool = False,
) -> nn.Module:
    """`ResNet` by its settings, for `resnet` and, `along_time`, `resnet1d`; see
    `systems.networks.make_model`.

    Raises:
      UserError: `model.kernel` is even, which would shift the frames.
    """
    del forms
    check(
        config.kernel % 2 == 1 or not along_time,
        f"model.kernel={config.kernel}: must be odd for model.name={config.name}",
    )
    kernel_init = KERNEL_INITS[config.kernel_init]
    convolutions = Convolutions(kernel_init, config.kernel if along_time else 3, along_time, dtype)
    norm = functools.partial(
        MaskedBatchNorm, config.norm_momentum, config.norm_epsilon, axis_name, dtype
    )
    head = make_head(config, n_classes, dtype)
    return ResNet(config.channels, config.layers, convolutions, norm, head, config.mask_padding)
