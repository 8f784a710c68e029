"""The multiscale deep convolutional LSTM: segments of several lengths, one network for each."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.config import ModelConfig
from ser_jax.errors import check
from ser_jax.models.conv import ConvStack
from ser_jax.models.layers import KERNEL_INITS, Head, average_frames, keep_rows, make_head
from ser_jax.models.recurrent import LSTM


def cut_segments(x_BTF: jax.Array, mask_BT: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
    """Segments of `length` frames with half a length between their starts.

    The last ones reach beyond the end and are zero-padded, so a frame lies in the same segments
    however the clip is padded.

    Returns:
      Segments [B, S, length, F] and the mask of their frames [B, S, length], where S is the number
      of half lengths in T, rounded up.
    """
    T, hop = x_BTF.shape[1], length // 2
    index_SL = jnp.arange(0, T, hop)[:, None] + jnp.arange(length)[None, :]
    x_BTF = jnp.pad(x_BTF, ((0, 0), (0, length), (0, 0)))
    mask_BT = jnp.pad(mask_BT, ((0, 0), (0, length)))
    return x_BTF[:, index_SL], mask_BT[:, index_SL]


class SegmentNetwork(nn.Module):
    """Convolution blocks on each segment, mean over its frames, LSTM over segments, head.

    Attributes:
      length: of a segment, in frames.
      stack: convolution blocks, at most as many as times the segment can be halved.
      lstm: reads one vector per segment.
      head: from the state after the last real segment to logits.
    """

    length: int
    stack: ConvStack
    lstm: LSTM
    head: Head

    def __call__(
        self, x_BTF: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float
    ) -> jax.Array:
        """Features [B, T, F] and mask [B, T] to logits [B, C]."""
        x_BSLF, mask_BSL = cut_segments(x_BTF, mask_BT, self.length)
        B, S, L, F = x_BSLF.shape
        # Each segment is a row of the stack; one without a real frame only fills up the batch.
        h_NTH, mask_NT = self.stack(
            x_BSLF.reshape(B * S, L, F), mask_BSL.reshape(B * S, L), train=train, dropout=dropout
        )
        h_BSH = average_frames(h_NTH, mask_NT).reshape(B, S, -1)
        return self.head(self.lstm(h_BSH, mask_BSL.any(axis=-1)))


class MSDCLSTM(nn.Module):
    """The mean of the logits of several `SegmentNetwork`, one for each length of segments.

    Source: Zhang, Zhao and Tian 2019, 'Spontaneous speech emotion recognition using multiscale deep
    convolutional LSTM'. The paper feeds a spectrogram and its two deltas, as the channels of an
    image, to a large network; here small blocks take the features as they are. The paper
    fuses the scores of separately trained networks with weights; here all are trained jointly, with
    equal weights.
    """

    parts: Sequence[SegmentNetwork]
    mask_padding: bool = False

    def __call__(
        self, x_BTF: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float = 0.0
    ) -> jax.Array:
        """Features [B, T, F] and mask [B, T] to logits [B, C].

        Raises:
          UserError: a segment longer than the clip; more poolings than the bands allow.
        """
        scales = [part.length for part in self.parts]
        T, F = x_BTF.shape[1:]
        check(
            max(scales) <= T,
            f"model.scales={scales}: segments of {max(scales)} frames need clips that long, not of "
            f"{T}; take shorter ones, longer clips (data.clip_s) or a shorter features.hop_length",
        )
        n_blocks = max(len(part.stack.channels) for part in self.parts)
        check(
            2**n_blocks <= F,
            f"model.channels: {n_blocks} poolings need at least {2**n_blocks} features, not {F}; "
            "take fewer blocks or more features",
        )
        mask_BT = mask_BT if self.mask_padding else keep_rows(mask_BT)
        logits = [part(x_BTF, mask_BT, train=train, dropout=dropout) for part in self.parts]
        return jnp.stack(logits).mean(axis=0)


def make_msdc_lstm(
    config: ModelConfig, n_classes: int, dtype: jnp.dtype, axis_name: str | None, forms: Any
) -> nn.Module:
    """`MSDCLSTM` by its settings; see `systems.networks.make_model`.

    Raises:
      UserError: a segment of one frame.
    """
    check(
        min(config.scales) >= 2,
        f"model.scales={list(config.scales)}: half a segment must be a frame; take 2 or more",
    )
    kernel_init = KERNEL_INITS[config.kernel_init]

    def make_part(length: int) -> SegmentNetwork:
        n_blocks = min(len(config.channels), length.bit_length() - 1)
        stack = ConvStack(
            config.channels[:n_blocks], kernel_init, config.norm_momentum, config.norm_epsilon,
            axis_name, dtype, forms.conv,
        )  # fmt: skip
        lstm = LSTM(
            config.hidden, kernel_init, KERNEL_INITS[config.recurrent_init], config.forget_bias,
            dtype, forms.lstm,
        )  # fmt: skip
        head = make_head(config, n_classes, dtype)
        return SegmentNetwork(length, stack, lstm, head)

    return MSDCLSTM(tuple(map(make_part, config.scales)), config.mask_padding)
