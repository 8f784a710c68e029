"""The study's CNN: four convolution blocks, then the head."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.models.conv import ConvStack
from ser_jax.models.layers import Head, keep_rows, zero_padding


class CNN(nn.Module):
    """Convolution blocks, flattened (or averaged over real frames), then the head."""

    stack: ConvStack
    head: Head
    mask_padding: bool = False
    pool: str = "flatten"

    def __call__(
        self, x_BTF: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float = 0.0
    ) -> jax.Array:
        """Features [B, T, F] and mask [B, T] to logits [B, C]."""
        mask_BT = mask_BT if self.mask_padding else keep_rows(mask_BT)
        h_BTH, mask_BT = self.stack(x_BTF, mask_BT, train=train, dropout=dropout)
        h_BTH = zero_padding(h_BTH, mask_BT)
        if self.pool == "flatten":
            return self.head(h_BTH.reshape(h_BTH.shape[0], -1))
        return self.head(h_BTH.sum(axis=1) / jnp.maximum(mask_BT.sum(axis=1, keepdims=True), 1))
