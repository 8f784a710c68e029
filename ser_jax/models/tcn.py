"""The temporal convolutional network: causal convolutions with growing dilation."""

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
)


class TemporalBlock(nn.Module):
    """Convolution, batch norm, ReLU and dropout, twice, and a skip connection.

    Attributes:
      channels: of both convolutions.
      kernel: kernel width of both, in frames.
      dilation: frames between taps.
      kernel_init: initial values of all kernels.
      norm: makes the batch norm.
      dtype: type of the computation.
    """

    channels: int
    kernel: int
    dilation: int
    kernel_init: Initializer
    norm: Norm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_BTH: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float
    ) -> jax.Array:
        """[B, T, H] to [B, T, channels]; frame t depends on no later frame."""
        conv = functools.partial(nn.Conv, kernel_init=self.kernel_init, dtype=self.dtype)
        y = x_BTH
        for n in (0, 1):
            y = conv(
                self.channels, (self.kernel,), kernel_dilation=(self.dilation,), padding="CAUSAL",
                use_bias=False, name=f"conv_{n}",
            )(y)  # fmt: skip
            y = nn.relu(self.norm(name=f"norm_{n}")(y, mask_BT, train=train))
            if train:
                # Whole channels, as in the paper: neighbours would reveal a dropped frame.
                ones_B1C = jnp.ones((y.shape[0], 1, self.channels), y.dtype)
                y = y * drop(ones_B1C, dropout, self.make_rng("dropout"))
        if x_BTH.shape[-1] != self.channels:
            x_BTH = conv(self.channels, (1,), name="around")(x_BTH)
        return nn.relu(x_BTH + y)


class TCN(nn.Module):
    """Temporal blocks with dilations 1, 2, 4, ..., the mean over real frames, the head.

    Source: Bai, Kolter and Koltun 2018, 'An empirical evaluation of generic convolutional and
    recurrent networks for sequence modeling'. The features are the channels. Two things differ from
    the paper: batch norm over real frames replaces weight norm, so that this network is normalised
    like all others here; and the mean over frames replaces the last frame, since a clip has
    one label. The convolutions are causal, so padding after a clip never affects it.

    Attributes:
      channels: of each block; block n has dilation 2 ** n.
      kernel: width of the convolutions, in frames.
      norm: makes the batch norm.
      head: from the mean over frames to logits.
      kernel_init: initial values of all kernels.
      mask_padding: keep zero padding out of norm and mean.
      dtype: type of the computation.
    """

    channels: Sequence[int]
    kernel: int
    norm: Norm
    head: Head
    kernel_init: Initializer
    mask_padding: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def read_frames(
        self, x_BTF: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float = 0.0
    ) -> jax.Array:
        """Features [B, T, F] and mask [B, T] to [B, T, H]; frame t depends on no later frame."""
        x = x_BTF.astype(self.dtype)
        for index, channels in enumerate(self.channels):
            block = TemporalBlock(
                channels, self.kernel, 2**index, self.kernel_init, self.norm, self.dtype,
                name=f"block_{index}",
            )  # fmt: skip
            x = block(x, mask_BT, train=train, dropout=dropout)
        return x

    def __call__(
        self, x_BTF: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float = 0.0
    ) -> jax.Array:
        """Features [B, T, F] and mask [B, T] to logits [B, C]."""
        mask_BT = mask_BT if self.mask_padding else keep_rows(mask_BT)
        h_BTH = self.read_frames(x_BTF, mask_BT, train=train, dropout=dropout)
        return self.head(average_frames(h_BTH, mask_BT))


def make_tcn(
    config: ModelConfig, n_classes: int, dtype: jnp.dtype, axis_name: str | None, forms: object
) -> nn.Module:
    """`TCN` by its settings; see `systems.networks.make_model`."""
    del forms
    kernel_init = KERNEL_INITS[config.kernel_init]
    norm = functools.partial(
        MaskedBatchNorm, config.norm_momentum, config.norm_epsilon, axis_name, dtype
    )
    head = make_head(config, n_classes, dtype)
    return TCN(config.channels, config.kernel, norm, head, kernel_init, config.mask_padding, dtype)
