"""The bidirectional LSTM, with separate self-attention for each direction."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.config import ModelConfig
from ser_jax.errors import check
from ser_jax.models.layers import (
    KERNEL_INITS,
    Head,
    Initializer,
    average_frames,
    drop,
    keep_rows,
    make_head,
)
from ser_jax.models.recurrent import LSTM


class BidirectionalLSTM(nn.Module):
    """Two LSTMs; the second reads the frames in reverse."""

    forward: LSTM
    backward: LSTM

    def __call__(self, x_BTF: jax.Array, mask_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, T, F] to the states of both directions, [B, T, H] each, aligned with the frames."""
        forward_BTH = self.forward(x_BTF, mask_BT, return_sequence=True)
        # Padding now comes first, and leaves the state at zero until the last real frame.
        flipped_BTF, flipped_BT = jnp.flip(x_BTF, axis=1), jnp.flip(mask_BT, axis=1)
        backward_BTH = self.backward(flipped_BTF, flipped_BT, return_sequence=True)
        return forward_BTH, jnp.flip(backward_BTH, axis=1)


class DirectionalAttention(nn.Module):
    """Scaled dot-product attention of each state to itself and those its direction read before.

    Attributes:
      head_width: width of each attention head; divides that of the states.
      backward: whether the states were read from the last frame to the first.
      kernel_init: initial values of the kernels.
      dtype: type of the products; the softmax is float32.
    """

    head_width: int
    backward: bool
    kernel_init: Initializer
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, h_BTH: jax.Array, mask_BT: jax.Array) -> jax.Array:
        """States [B, T, H] and mask [B, T] to [B, T, H]; frames that are padding are ignored."""
        B, T, H = h_BTH.shape
        shape = (B, T, H // self.head_width, self.head_width)
        query, key, value = (
            nn.Dense(H, kernel_init=self.kernel_init, dtype=self.dtype, name=name)(h_BTH)
            for name in ("query", "key", "value")
        )
        read_TT = jnp.tri(T, dtype=bool)
        mask_B1TT = mask_BT[:, None, None] & (read_TT.T if self.backward else read_TT)[None, None]
        mixed = jax.nn.dot_product_attention(
            query.reshape(shape), key.reshape(shape), value.reshape(shape), mask=mask_B1TT
        )
        return mixed.reshape(B, T, H)


class BLSTM(nn.Module):
    """Bidirectional LSTM, self-attention in each direction, mean over frames, head.

    Source: Li, Liu, Liu, Zhao and Ma 2021, 'Speech emotion recognition using recurrent neural
    networks with directional self-attention'. Its abstract fixes only that frames are
    weighted by the states of the forward and the backward LSTM separately, not by their sum. Chosen
    here: multi-head dot products; a frame attends to itself and to those that its direction read
    before it; both results are concatenated, averaged over real frames, and dropout follows.
    """

    lstm: BidirectionalLSTM
    forward: DirectionalAttention
    backward: DirectionalAttention
    head: Head
    mask_padding: bool = False

    def __call__(
        self, x_BTF: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float = 0.0
    ) -> jax.Array:
        """Features [B, T, F] and mask [B, T] to logits [B, C]."""
        mask_BT = mask_BT if self.mask_padding else keep_rows(mask_BT)
        forward_BTH, backward_BTH = self.lstm(x_BTF, mask_BT)
        mixed = self.forward(forward_BTH, mask_BT), self.backward(backward_BTH, mask_BT)
        h_BH = average_frames(jnp.concatenate(mixed, axis=-1), mask_BT)
        if train:
            h_BH = drop(h_BH, dropout, self.make_rng("dropout"))
        return self.head(h_BH)


def make_blstm(
    config: ModelConfig, n_classes: int, dtype: jnp.dtype, axis_name: str | None, forms: Any
) -> nn.Module:
    """`BLSTM` by its settings; see `systems.networks.make_model`.

    Raises:
      UserError: `model.head_width` does not divide `model.hidden`.
    """
    del axis_name  # no batch norm, so nothing to sum across devices
    check(
        config.hidden % config.head_width == 0,
        f"model.head_width={config.head_width}: must divide model.hidden={config.hidden}; "
        "change one of them",
    )
    kernel_init = KERNEL_INITS[config.kernel_init]

    def make_lstm() -> LSTM:
        return LSTM(
            config.hidden, kernel_init, KERNEL_INITS[config.recurrent_init], config.forget_bias,
            dtype, forms.lstm,
        )  # fmt: skip

    def make_attention(backward: bool) -> DirectionalAttention:
        return DirectionalAttention(config.head_width, backward, kernel_init, dtype)

    head = make_head(config, n_classes, dtype)
    return BLSTM(
        BidirectionalLSTM(make_lstm(), make_lstm()), make_attention(False), make_attention(True),
        head, config.mask_padding,
    )  # fmt: skip
