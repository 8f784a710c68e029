"""Vision Transformer: a spectrogram cut into patches, which attend to one another.

Source: Dosovitskiy et al. 2021, 'An image is worth 16x16 words: Transformers for image recognition
at scale'. Two things differ, so that clips of any length work. A position is the sum of a learned
vector for its time and one for its band; the paper learns one for each patch. The logits come from
the mean over real patches; the paper uses a class token (its appendix D.3 finds both equally good).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.config import ModelConfig
from ser_jax.errors import check
from ser_jax.models.attention import Block, attend_on_grid
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


def cut_patches(x_BTF: jax.Array, patch: tuple[int, int]) -> jax.Array:
    """Adjacent patches of `patch` frames and bands, zero-padded to whole patches.

    [B, T, F] to [B, T / frames, F / bands, frames * bands], both rounded up; within a patch the
    bands of its first frame come first.
    """
    B, T, F = x_BTF.shape
    frames, bands = patch
    x_BTF = jnp.pad(x_BTF, ((0, 0), (0, -T % frames), (0, -F % bands)))
    x = x_BTF.reshape(B, -(-T // frames), frames, -(-F // bands), bands)
    x = x.transpose(0, 1, 3, 2, 4)
    return x.reshape(*x.shape[:3], frames * bands)


def cut_mask(mask_BT: jax.Array, frames: int) -> jax.Array:
    """Mask of the patches, [B, T / frames] rounded up: one is real if any of its frames is."""
    B, T = mask_BT.shape
    return jnp.pad(mask_BT, ((0, 0), (0, -T % frames))).reshape(B, -1, frames).any(axis=-1)


class Positions(nn.Module):
    """A learned vector for each time and one for each band, added to the tokens."""

    @nn.compact
    def __call__(self, x_BTFH: jax.Array) -> jax.Array:
        """[B, T, F, H] to the same shape."""
        T, F, H = x_BTFH.shape[1:]
        # One for each time of the clips that the network was built for; later times share the last.
        known = T
        if self.has_variable("params", "time"):
            known = self.get_variable("params", "time").shape[0]
        init = nn.initializers.normal(0.02)
        time_TH = self.param("time", init, (known, H))
        band_FH = self.param("band", init, (F, H))
        time_TH = jnp.pad(time_TH, ((0, max(T - known, 0)), (0, 0)), mode="edge")[:T]
        return x_BTFH + (time_TH[:, None] + band_FH[None])[None].astype(x_BTFH.dtype)


class SelfAttention(nn.Module):
    """Every patch attends to every real patch of its clip."""

    head_width: int
    kernel_init: Initializer
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BTFH: jax.Array, mask_BT: jax.Array, *, train: bool) -> jax.Array:
        """[B, T, F, H] to the same shape."""
        del train
        dense = functools.partial(
            nn.Dense, x_BTFH.shape[-1], kernel_init=self.kernel_init, dtype=self.dtype
        )
        q, k, v = (dense(name=name)(x_BTFH) for name in ("query", "key", "value"))
        return dense(name="out")(attend_on_grid(q, k, v, mask_BT, self.head_width))


class ViT(nn.Module):
    """Patches, their positions, Transformer blocks, the mean over real patches, the head.

    Attributes:
      patch: frames and bands of a patch.
      hidden: features of a token.
      layers: Transformer blocks.
      head_width: width of each attention head.
      head: from the mean to logits.
      kernel_init: initial values of the kernels.
      mask_padding: keep zero padding out of attention and mean.
      dtype: type of the computation.
    """

    patch: tuple[int, int]
    hidden: int
    layers: int
    head_width: int
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
        # The last real patch may reach into the padding.
        x_BTF = zero_padding(x_BTF, mask_BT).astype(self.dtype)
        embed = nn.Dense(
            self.hidden, kernel_init=self.kernel_init, dtype=self.dtype, name="embedding"
        )
        x_BTFH = Positions(name="positions")(embed(cut_patches(x_BTF, self.patch)))
        mask_BT = cut_mask(mask_BT, self.patch[0])
        if train:
            x_BTFH = drop(x_BTFH, dropout, self.make_rng("dropout"))
        attention = functools.partial(SelfAttention, self.head_width, self.kernel_init, self.dtype)
        for index in range(self.layers):
            block = Block(attention, self.kernel_init, self.dtype, name=f"block_{index}")
            x_BTFH = block(x_BTFH, mask_BT, train=train, dropout=dropout)
        x_BTFH = nn.LayerNorm(dtype=self.dtype, name="norm")(x_BTFH)
        return self.head(average_frames(x_BTFH.mean(axis=2), mask_BT))


def make_vit(
    config: ModelConfig, n_classes: int, dtype: jnp.dtype, axis_name: str | None, forms: object
) -> nn.Module:
    """`ViT` by its settings; see `systems.networks.make_model`.

    Raises:
      UserError: `model.head_width` does not divide `model.hidden`.
    """
    del axis_name, forms  # no batch norm, and only one form
    check(
        config.hidden % config.head_width == 0,
        f"model.head_width={config.head_width}: must divide model.hidden={config.hidden}",
    )
    kernel_init = KERNEL_INITS[config.kernel_init]
    head = make_head(config, n_classes, dtype)
    return ViT(
        config.patch, config.hidden, config.layers, config.head_width, head, kernel_init,
        config.mask_padding, dtype,
    )  # fmt: skip
