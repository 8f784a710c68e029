"""Convolution blocks: convolution, masked batch norm, ELU, pooling, dropout."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.config import ModelConfig
from ser_jax.errors import check
from ser_jax.models.fast.cell_pooling import pool_by_sign, store
from ser_jax.models.fast.channel_scaling import elu, scale_channels
from ser_jax.models.fast.first_convolution import compute_convolution_moments, convolve_and_pool
from ser_jax.models.fast.im2col import convolve_by_product, convolve_by_rows
from ser_jax.models.forms import Forms
from ser_jax.models.layers import KERNEL_INITS, Initializer, drop, halve_mask, zero_padding


def compute_moments(
    x: jax.Array, mask_BT: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """Mean and variance per channel over real frames of real rows only, float32 [C] and [C].

    Sums, squared sums and counts are added across devices before the division, so ragged shards and
    shards of padding only are handled exactly (a mean of means is not).

    Args:
      x: [B, T, ..., C].
      mask_BT: True for real frames.
      axis_name: mapped axis over which the batch is sharded; `None`: not mapped.
    """
    B, T, C = *x.shape[:2], x.shape[-1]
    x_BTFC = x.astype(jnp.float32).reshape(B, T, -1, C)
    weight_BT1 = mask_BT.astype(jnp.float32)[..., None]
    # Summed over features before it is weighted: XLA on CPU would store the weighted array.
    sum_C = (x_BTFC.sum(axis=2) * weight_BT1).sum(axis=(0, 1))
    square_C = ((x_BTFC * x_BTFC).sum(axis=2) * weight_BT1).sum(axis=(0, 1))
    sums = (sum_C, square_C, weight_BT1.sum() * x_BTFC.shape[2])
    if axis_name is not None:
        sums = jax.lax.psum(sums, axis_name)
    sum_C, square_C, count = sums
    count = jnp.maximum(count, 1.0)
    mean_C = sum_C / count
    return mean_C, jnp.maximum(square_C / count - mean_C**2, 0.0)


class MaskedBatchNorm(nn.Module):
    """Batch norm over real frames of real rows only, the same on one device and on many.

    Attributes:
      momentum: fraction of the running statistics that each step keeps.
      epsilon: added to the variance.
      axis_name: mapped axis over which the batch is sharded; `None`: not mapped.
      dtype: type of the output; statistics are float32.
    """

    momentum: float = 0.99
    epsilon: float = 1e-3
    axis_name: str | None = None
    dtype: Any = jnp.float32

    def __call__(self, x: jax.Array, mask_BT: jax.Array, *, train: bool) -> jax.Array:
        """`x` [B, T, ..., C] normalised per channel over all other axes."""
        moments = compute_moments(x, mask_BT, self.axis_name) if train else None
        gain_C, shift_C = self.make_affine(x.shape[-1], moments)
        shape = (1,) * (x.ndim - 1) + (-1,)
        y = x.astype(jnp.float32) * gain_C.reshape(shape) + shift_C.reshape(shape)
        return y.astype(self.dtype)

    @nn.compact
    def make_affine(
        self, channels: int, moments: tuple[jax.Array, jax.Array] | None
    ) -> tuple[jax.Array, jax.Array]:
        """Gain and shift, float32 [channels], of the norm by `moments`; updates running statistics.

        Args:
          channels: number of channels.
          moments: mean and variance of a training batch; None: the running statistics.
        """
        shape = (channels,)
        scale_C = self.param("scale", nn.initializers.ones, shape)
        bias_C = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var = self.variable("batch_stats", "var", jnp.ones, shape)
        mean_C, var_C = (mean.value, var.value) if moments is None else moments
        if moments is not None and not self.is_initializing():
            mean.value = self.momentum * mean.value + (1 - self.momentum) * mean_C
            var.value = self.momentum * var.value + (1 - self.momentum) * var_C
        gain_C = scale_C * jax.lax.rsqrt(var_C + self.epsilon)
        return gain_C, bias_C - mean_C * gain_C


Norm = Callable[..., MaskedBatchNorm]
"""Makes a norm of the given name with the network's settings."""


class PlainBlock(nn.Module):
    """Convolution 3 x 3, batch norm, ELU, max-pool 2 x 2, dropout, written plainly in Flax.

    The study puts ELU before the pooling. ELU is monotonic, so pooling first gives the same numbers
    for a quarter of the work.
    """

    channels: int
    kernel_init: Initializer
    norm: Callable[..., MaskedBatchNorm]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_BTFC: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float
    ) -> tuple[jax.Array, jax.Array]:
        """[B, T, F, C] and its mask to [B, T/2, F/2, channels] and its mask."""
        x = zero_padding(x_BTFC, mask_BT)
        x = nn.Conv(
            self.channels, (3, 3), use_bias=False, kernel_init=self.kernel_init,
            dtype=self.dtype, name="conv",
        )(x)  # fmt: skip
        x = self.norm(name="norm", dtype=self.dtype)(x, mask_BT, train=train)
        x = nn.elu(nn.max_pool(x, (2, 2), (2, 2)))
        if train:
            x = drop(x, dropout, self.make_rng("dropout"))
        return x, halve_mask(mask_BT)


class Kernel(nn.Module):
    """The kernel of a 3 x 3 convolution, at the place in the tree where `nn.Conv` would put it."""

    channels: int
    kernel_init: Initializer

    @nn.compact
    def __call__(self, channels_in: int) -> jax.Array:
        """[3, 3, channels_in, channels]."""
        return self.param("kernel", self.kernel_init, (3, 3, channels_in, self.channels))


def convolve(x_BTFC: jax.Array, kernel: jax.Array) -> jax.Array:
    """The 'same' convolution with a kernel [3, 3, C_in, C_out]."""
    return jax.lax.conv_general_dilated(
        x_BTFC, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


class FastBlock(nn.Module):
    """The same numbers from the same parameters as `PlainBlock`, pooling before it normalises."""

    channels: int
    kernel_init: Initializer
    norm: Callable[..., MaskedBatchNorm]
    dtype: Any = jnp.float32
    convolve: Callable[[jax.Array, jax.Array], jax.Array] = convolve

    @nn.compact
    def __call__(
        self, x_BTFC: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float
    ) -> tuple[jax.Array, jax.Array]:
        """[B, T, F, C] and its mask to [B, T/2, F/2, channels] and its mask."""
        x = zero_padding(x_BTFC, mask_BT)
        kernel = Kernel(self.channels, self.kernel_init, name="conv")(x.shape[-1])
        kernel, norm = kernel.astype(self.dtype), self.norm(name="norm", dtype=self.dtype)
        first = x.shape[-1] == 1
        make = self._convolve_one_channel if first else self._convolve_many
        moments, pool = make(x, kernel, mask_BT, norm.axis_name)
        gain_C, shift_C = norm.make_affine(self.channels, moments() if train else None)
        pooled = pool(jnp.where(gain_C < 0, -1.0, 1.0)).astype(jnp.float32)
        x = elu(scale_channels(pooled, gain_C, shift_C).astype(self.dtype))
        if train:
            x = drop(x, dropout, self.make_rng("dropout"))
        return x, halve_mask(mask_BT)

    def _convolve_many(
        self, x: jax.Array, kernel: jax.Array, mask_BT: jax.Array, axis_name: str | None
    ) -> tuple[Any, Any]:
        y = self.convolve(store(x, kernel[0, 0, 0, 0]), kernel)
        return (
            lambda: compute_moments(y, mask_BT, axis_name),
            lambda sign_C: pool_by_sign(y, sign_C.astype(y.dtype)),
        )

    def _convolve_one_channel(
        self, x: jax.Array, kernel: jax.Array, mask_BT: jax.Array, axis_name: str | None
    ) -> tuple[Any, Any]:
        x_BTF, kernel_33C = x[..., 0].astype(jnp.float32), kernel[:, :, 0].astype(jnp.float32)
        return (
            lambda: compute_convolution_moments(x_BTF, kernel_33C, mask_BT, axis_name),
            # Computed in float32, but stored in the same precision as the other blocks' outputs.
            lambda sign_C: convolve_and_pool(x_BTF, kernel_33C, sign_C).astype(self.dtype),
        )


BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "plain": PlainBlock,
    "fast": FastBlock,
    "im2col": functools.partial(FastBlock, convolve=convolve_by_product),
    "rows": functools.partial(FastBlock, convolve=convolve_by_rows),
}
"""Implementations of a block: same numbers, one parameter tree. 'rows' is for NVIDIA GPUs, where
autotuning the cuDNN convolutions of 'fast' takes long; 'im2col' is for runs under `vmap`."""


class ConvStack(nn.Module):
    """A stack of convolution blocks, shared by CNN and CNN-LSTM."""

    channels: Sequence[int]
    kernel_init: Initializer
    norm_momentum: float = 0.9
    norm_epsilon: float = 1e-3
    axis_name: str | None = None
    dtype: Any = jnp.float32
    form: str = "fast"

    @nn.compact
    def __call__(
        self, x_BTF: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float
    ) -> tuple[jax.Array, jax.Array]:
        """[B, T, F] to [B, T', F' * C], one vector per remaining time step, and its mask."""
        norm = functools.partial(
            MaskedBatchNorm, self.norm_momentum, self.norm_epsilon, self.axis_name
        )
        make_block = BLOCKS[self.form]
        x = x_BTF[..., None].astype(self.dtype)
        for index, channels in enumerate(self.channels):
            block = make_block(channels, self.kernel_init, norm, self.dtype, name=f"block_{index}")
            x, mask_BT = block(x, mask_BT, train=train, dropout=dropout)
        return x.reshape(*x.shape[:2], -1), mask_BT


def make_conv_stack(
    config: ModelConfig, dtype: jnp.dtype, axis_name: str | None, forms: Forms
) -> ConvStack:
    """The study's blocks, as the network's settings describe them."""
    return ConvStack(
        config.channels, KERNEL_INITS[config.kernel_init], config.norm_momentum,
        config.norm_epsilon, axis_name, dtype, forms.conv,
    )  # fmt: skip


def check_poolings(config: ModelConfig, n_frames: int, n_features: int) -> None:
    """Check that frames and features are left: each block of the stack halves both axes."""
    least = 2 ** len(config.channels)
    check(
        n_frames >= least and n_features >= least,
        f"model.channels={list(config.channels)}: {len(config.channels)} poolings need "
        f"at least {least} frames and features, not {n_frames} and {n_features}; take fewer "
        "blocks, longer clips (data.clip_s) or a shorter features.hop_length",
    )
