"""ResLSTM-SA: two LSTMs, the first of them residual, and soft attention over their states."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.config import ModelConfig
from ser_jax.models.attention import attend
from ser_jax.models.conv import MaskedBatchNorm, Norm
from ser_jax.models.forms import Forms
from ser_jax.models.layers import KERNEL_INITS, Head, Initializer, drop, keep_rows
from ser_jax.models.recurrent import LSTM


class SoftAttention(nn.Module):
    """Weighted mean of the states over real frames; their products with one vector are the scores.

    Attributes:
      init: initial values of the vector.
    """

    init: Initializer

    @nn.compact
    def __call__(self, h_BTH: jax.Array, mask_BT: jax.Array) -> jax.Array:
        """[B, T, H] to [B, H]; zeros in a row without a real frame."""
        B, _, H = h_BTH.shape
        vector_H1 = self.param("vector", self.init, (H, 1))
        # `attend` divides the scores by the square root of H; these are not to be scaled.
        query = jnp.broadcast_to(vector_H1[:, 0] * H**0.5, (B, 1, 1, H)).astype(h_BTH.dtype)
        return attend(query, h_BTH[:, None], h_BTH[:, None], mask_BT)[:, 0, 0]


class ResLSTM(nn.Module):
    """LSTM plus its input, batch norm, LSTM, soft attention, batch norm, dropout, head.

    Source: Krasnoproshin and Vashkevich 2026, 'Speech emotion recognition using attention-based
    LSTM-network with residual connection', and its code, github.com/Mak-Sim/ResLSTM-SER. With 46
    features, 64 units and 8 classes it has 46,772 parameters there and 46,332 here, since PyTorch's
    LSTM adds two biases of 4 H numbers where this one has their sum (hence `model.forget_bias: 2`
    for its two of 1). With `model.mask_padding`, padding is never read; the code there packs
    sequences for the LSTMs, but its first batch norm averages over zero padding up to the longest
    clip of the batch, and its attention gives weight to it. PyTorch's running variance is that of a
    sample, larger by n / (n - 1).

    Attributes:
      hidden: units of the second LSTM; the first has as many as there are features.
      make_lstm: (units, name) -> an LSTM.
      norm: (name) -> a batch norm.
      head: from the attention's mean to logits.
      attention_init: initial values of the attention's vector.
      mask_padding: exclude padding from everything.
      dtype: type of the input and the states.
    """

    hidden: int
    make_lstm: Callable[..., LSTM]
    norm: Norm
    head: Head
    attention_init: Initializer
    mask_padding: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_BTF: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float = 0.0
    ) -> jax.Array:
        """Features [B, T, F] and mask [B, T] to logits [B, C]."""
        mask_BT = mask_BT if self.mask_padding else keep_rows(mask_BT)
        x_BTF = x_BTF.astype(self.dtype)
        first = self.make_lstm(x_BTF.shape[-1], name="residual_lstm")
        sum_BTF = x_BTF + first(x_BTF, mask_BT, return_sequence=True)
        sum_BTF = self.norm(name="residual_norm")(sum_BTF, mask_BT, train=train)
        second = self.make_lstm(self.hidden, name="lstm")
        h_BTH = second(sum_BTF, mask_BT, return_sequence=True)
        h_BH = SoftAttention(self.attention_init, name="attention")(h_BTH, mask_BT)
        # To the norm a clip is one frame, which is real if any of the clip's frames is.
        any_B1 = mask_BT.any(axis=1, keepdims=True)
        h_BH = self.norm(name="norm")(h_BH[:, None], any_B1, train=train)[:, 0]
        if train:
            h_BH = drop(h_BH, dropout, self.make_rng("dropout"))
        return self.head(h_BH)


def make_reslstm(
    config: ModelConfig, n_classes: int, dtype: jnp.dtype, axis_name: str | None, forms: Forms
) -> nn.Module:
    """`ResLSTM` by its settings; see `systems.networks.make_model`.

    As published, the head's kernels are Glorot uniform whatever `model.kernel_init` is.
    """
    kernel_init = KERNEL_INITS[config.kernel_init]
    make_lstm = functools.partial(
        LSTM, kernel_init=kernel_init, recurrent_init=KERNEL_INITS[config.recurrent_init],
        forget_bias=config.forget_bias, dtype=dtype, form=forms.lstm,
    )  # fmt: skip
    norm = functools.partial(
        MaskedBatchNorm, config.norm_momentum, config.norm_epsilon, axis_name, dtype
    )
    head = Head(config.dense, n_classes, config.activation, KERNEL_INITS["glorot_uniform"], dtype)
    return ResLSTM(config.hidden, make_lstm, norm, head, kernel_init, config.mask_padding, dtype)
