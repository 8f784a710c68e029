"""The networks: one dictionary of names to builders."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from ser_jax.config import ModelConfig
from ser_jax.models.cnn import CNN
from ser_jax.models.cnn_lstm import CNNLSTM
from ser_jax.models.layers import KERNEL_INITS, LSTM, ConvStack, Head
from ser_jax.models.lstm import LSTMNetwork


def _make_stack(config: ModelConfig, dtype: jnp.dtype, axis_name: str | None) -> ConvStack:
    return ConvStack(
        config.channels, KERNEL_INITS[config.kernel_init], config.norm_momentum,
        config.norm_epsilon, axis_name, dtype,
    )  # fmt: skip


def _make_lstm(config: ModelConfig, dtype: jnp.dtype) -> LSTM:
    return LSTM(
        config.hidden, KERNEL_INITS[config.kernel_init], KERNEL_INITS[config.recurrent_init],
        config.forget_bias, dtype,
    )  # fmt: skip


def _make_head(config: ModelConfig, n_classes: int, dtype: jnp.dtype) -> Head:
    kernel_init = KERNEL_INITS[config.kernel_init]
    return Head(config.dense, n_classes, config.activation, kernel_init, dtype)


def _make_cnn(
    config: ModelConfig, n_classes: int, dtype: jnp.dtype, axis_name: str | None
) -> nn.Module:
    stack, head = _make_stack(config, dtype, axis_name), _make_head(config, n_classes, dtype)
    return CNN(stack, head, config.mask_padding, config.cnn_pool)


def _make_lstm_network(
    config: ModelConfig, n_classes: int, dtype: jnp.dtype, axis_name: str | None
) -> nn.Module:
    del axis_name  # no batch norm, so nothing to add over devices
    lstm, head = _make_lstm(config, dtype), _make_head(config, n_classes, dtype)
    return LSTMNetwork(lstm, head, config.mask_padding)


def _make_cnn_lstm(
    config: ModelConfig, n_classes: int, dtype: jnp.dtype, axis_name: str | None
) -> nn.Module:
    stack, lstm = _make_stack(config, dtype, axis_name), _make_lstm(config, dtype)
    return CNNLSTM(stack, lstm, _make_head(config, n_classes, dtype), config.mask_padding)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "cnn": _make_cnn,
    "lstm": _make_lstm_network,
    "cnn_lstm": _make_cnn_lstm,
}


def make_model(
    config: ModelConfig, n_classes: int, *, dtype: str = "float32", axis_name: str | None = None
) -> nn.Module:
    """The network that `config.name` names.

    Every network maps features [B, T, F] and a mask [B, T] (True for real frames; a row without
    any only fills up the batch) to logits [B, C]:
    `model.apply(variables, x_BTF, mask_BT, train=..., dropout=..., rngs={"dropout": key})`.

    Args:
      config: sizes and initial values.
      n_classes: number of logits.
      dtype: type of the computation; parameters and statistics are float32.
      axis_name: mapped axis that shards the batch, for the statistics of batch norm.
    """
    return MODELS[config.name](config, n_classes, jnp.dtype(dtype), axis_name)
