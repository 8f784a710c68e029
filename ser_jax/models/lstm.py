"""The study's LSTM: one recurrent layer over the features, then the head."""

import flax.linen as nn
import jax

from ser_jax.models.layers import Head, keep_rows
from ser_jax.models.recurrent import LSTM


class LSTMNetwork(nn.Module):
    """LSTM over the frames, its last state into the head. It has no dropout and no batch norm."""

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
