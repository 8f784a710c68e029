"""The study's LSTM: one recurrent layer over the features, then the head."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.config import ModelConfig
from ser_jax.models.forms import Forms
from ser_jax.models.layers import Head, keep_rows, make_head
from ser_jax.models.recurrent import LSTM, make_lstm


class LSTMNetwork(nn.Module):
    """LSTM over the frames; its last state goes to the head. No dropout, no batch norm."""

    lstm: LSTM
    head: Head
    mask_padding: bool = False

    def __call__(
        self, x_BTF: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float = 0.0
    ) -> jax.Array:
        """Features [B, T, F] and mask [B, T] to logits [B, C]."""
        del train, dropout
        mask_BT = mask_BT if self.mask_padding else keep_rows(mask_BT)
        return self.head(self.lstm(x_BTF, mask_BT))


def make_lstm_network(
    config: ModelConfig, n_classes: int, dtype: jnp.dtype, axis_name: str | None, forms: Forms
) -> nn.Module:
    """`LSTMNetwork` by its settings; see `systems.networks.make_model`."""
    del axis_name  # no batch norm, so nothing to sum across devices
    lstm, head = make_lstm(config, dtype, forms), make_head(config, n_classes, dtype)
    return LSTMNetwork(lstm, head, config.mask_padding)
