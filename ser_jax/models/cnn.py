"""The study's CNN: four convolution blocks, then the head."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.config import ModelConfig
from ser_jax.models.conv import ConvStack, make_conv_stack
from ser_jax.models.forms import Forms
from ser_jax.models.layers import Head, keep_rows, make_head, zero_padding


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


def make_cnn(
    config: ModelConfig, n_classes: int, dtype: jnp.dtype, axis_name: str | None, forms: Forms
) -> nn.Module:
    """`CNN` by its settings; see `systems.networks.make_model`."""
    stack, head = (
        make_conv_stack(config, dtype, axis_name, forms),
        make_head(config, n_classes, dtype),
    )
    return CNN(stack, head, config.mask_padding, config.cnn_pool)
