"""The study's CNN-LSTM: convolution blocks, one vector per time step, LSTM, head."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.config import ModelConfig
from ser_jax.models.conv import ConvStack, make_conv_stack
from ser_jax.models.forms import Forms
from ser_jax.models.layers import Head, keep_rows, make_head
from ser_jax.models.recurrent import LSTM, make_lstm


class CNNLSTM(nn.Module):
    """The convolution blocks shorten time sixteenfold; the LSTM reads the remaining steps."""

    stack: ConvStack
    lstm: LSTM
    head: Head
    mask_padding: bool = False

    def __call__(
        self, x_BTF: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float = 0.0
    ) -> jax.Array:
        """Features [B, T, F] and mask [B, T] to logits [B, C]."""
        mask_BT = mask_BT if self.mask_padding else keep_rows(mask_BT)
        h_BTH, mask_BT = self.stack(x_BTF, mask_BT, train=train, dropout=dropout)
        return self.head(self.lstm(h_BTH, mask_BT))


def make_cnn_lstm(
    config: ModelConfig, n_classes: int, dtype: jnp.dtype, axis_name: str | None, forms: Forms
) -> nn.Module:
    """`CNNLSTM` by its settings; see `systems.networks.make_model`."""
    stack, lstm = make_conv_stack(config, dtype, axis_name, forms), make_lstm(config, dtype, forms)
    return CNNLSTM(stack, lstm, make_head(config, n_classes, dtype), config.mask_padding)
