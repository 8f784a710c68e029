"""Convolutional vision Transformer: Transformer blocks on a grid that convolutions make coarser.

Source: Wu et al. 2021, 'CvT: Introducing convolutions to vision transformers'. It needs no
positional encoding, since convolutions are local. The logits come from the mean over real
steps; the paper uses a class token in its last stage.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.config import ModelConfig
from ser_jax.errors import check
from ser_jax.models.attention import Block, attend_on_grid
from ser_jax.models.conv import MaskedBatchNorm, Norm
from ser_jax.models.layers import (
    KERNEL_INITS,
    Head,
    Initializer,
    average_frames,
    keep_rows,
    make_head,
    zero_padding,
)

_FIRST, _LATER = (7, 4), (3, 2)
"""Size and stride of the convolution into the first stage, and into each later one."""
_KEY_STRIDE = 2
"""Stride of the convolutions before keys and values."""


def convolve_depthwise(x_BTFC: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Depthwise 3 x 3 convolution with a kernel [3, 3, 1, C].

    Nine shifted products, which XLA fuses into one loop; its grouped convolution takes ten times as
    long on a CPU, forwards and backwards.

    [B, T, F, C] to [B, T / stride, F / stride, C], rounded up; output t is centred on `t * stride`.
    """
    T, F = x_BTFC.shape[1:3]
    x = jnp.pad(x_BTFC, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = jnp.zeros((), x.dtype)
    for t in range(3):
        for f in range(3):
            y = y + x[:, t : t + T : stride, f : f + F : stride] * kernel[t, f][None, None]
    return y


class ConvProjection(nn.Module):
    """Depthwise 3 x 3 convolution, batch norm, dense layer: projects to queries, keys or values."""

    stride: int
    kernel_init: Initializer
    norm: Norm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTFC: jax.Array, mask_BT: jax.Array, *, train: bool) -> jax.Array:
        """[B, T, F, C] and its mask to [B, T / stride, F / stride, C]."""
        C = x_BTFC.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (3, 3, 1, C)).astype(self.dtype)
        x = convolve_depthwise(zero_padding(x_BTFC, mask_BT), kernel, self.stride)
        x = self.norm(name="norm", dtype=self.dtype)(x, mask_BT[:, :: self.stride], train=train)
        return nn.Dense(C, kernel_init=self.kernel_init, dtype=self.dtype, name="dense")(x)


class ConvAttention(nn.Module):
    """Every step attends to every second step along time and bands."""

    head_width: int
    kernel_init: Initializer
    norm: Norm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTFC: jax.Array, mask_BT: jax.Array, *, train: bool) -> jax.Array:
        """[B, T, F, C] to the same shape."""
        strides = {"query": 1, "key": _KEY_STRIDE, "value": _KEY_STRIDE}
        q, k, v = (
            ConvProjection(stride, self.kernel_init, self.norm, self.dtype, name=name)(
                x_BTFC, mask_BT, train=train
            )
            for name, stride in strides.items()
        )
        mixed = attend_on_grid(q, k, v, mask_BT[:, ::_KEY_STRIDE], self.head_width)
        out = nn.Dense(x_BTFC.shape[-1], kernel_init=self.kernel_init, dtype=self.dtype, name="out")
        return out(mixed)


class CvT(nn.Module):
    """Stages of a convolution and Transformer blocks, the mean over real steps, the head.

    Attributes:
      channels: of each stage; the first shortens time and bands by four, each other by two.
      layers: Transformer blocks of each stage.
      head_width: width of each attention head.
      norm: makes the batch norm.
      head: from the mean to logits.
      kernel_init: initial values of all kernels.
      mask_padding: keep zero padding out of everything.
      dtype: type of the computation.
    """

    channels: Sequence[int]
    layers: int
    head_width: int
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
        x, init = x_BTF[..., None].astype(self.dtype), self.kernel_init
        attention = functools.partial(ConvAttention, self.head_width, init, self.norm, self.dtype)
        for stage, channels in enumerate(self.channels):
            x, mask_BT = self._embed(x, mask_BT, stage, channels)
            for layer in range(self.layers):
                name = f"stage_{stage}_block_{layer}"
                block = Block(attention, init, self.dtype, name=name)
                x = block(x, mask_BT, train=train, dropout=dropout)
        x = nn.LayerNorm(dtype=self.dtype, name="norm")(x)
        return self.head(average_frames(x.mean(axis=2), mask_BT))

    def _embed(
        self, x: jax.Array, mask_BT: jax.Array, stage: int, channels: int
    ) -> tuple[jax.Array, jax.Array]:
        """The stage's input tokens, [B, T, F, C], and their mask.

        Padding is symmetric, so token t is centred on frame `t * stride` whatever follows the clip;
        it is real if that frame is.
        """
        size, stride = _LATER if stage else _FIRST
        x = zero_padding(x, mask_BT)
        conv = nn.Conv(
            channels, (size, size), (stride, stride), padding=size // 2,
            kernel_init=self.kernel_init, dtype=self.dtype, name=f"stage_{stage}_conv",
        )  # fmt: skip
        norm = nn.LayerNorm(dtype=self.dtype, name=f"stage_{stage}_norm")
        return norm(conv(x)), mask_BT[:, ::stride]


def make_cvt(
    config: ModelConfig, n_classes: int, dtype: jnp.dtype, axis_name: str | None, forms: object
) -> nn.Module:
    """`CvT` by its settings; see `systems.networks.make_model`.

    Raises:
      UserError: `model.head_width` does not divide the channels of a stage.
    """
    del forms  # only one form
    check(
        all(channels % config.head_width == 0 for channels in config.channels),
        f"model.head_width={config.head_width}: must divide every one of "
        f"model.channels={list(config.channels)}",
    )
    kernel_init = KERNEL_INITS[config.kernel_init]
    norm = functools.partial(MaskedBatchNorm, config.norm_momentum, config.norm_epsilon, axis_name)
    head = make_head(config, n_classes, dtype)
    return CvT(
        config.channels, config.layers, config.head_width, norm, head, kernel_init,
        config.mask_padding, dtype,
    )  # fmt: skip
