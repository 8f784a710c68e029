"""The networks: one dictionary of names to builders."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from ser_jax.config import ModelConfig
from ser_jax.models.blstm import make_blstm
from ser_jax.models.cnn import CNN
from ser_jax.models.cnn_lstm import CNNLSTM
from ser_jax.models.conv import ConvStack
from ser_jax.models.cvt import make_cvt
from ser_jax.models.forms import Forms
from ser_jax.models.layers import KERNEL_INITS, Head
from ser_jax.models.lstm import LSTMNetwork
from ser_jax.models.msdc_lstm import make_msdc_lstm
from ser_jax.models.recurrent import LSTM
from ser_jax.models.resnet import make_resnet
from ser_jax.models.tcn import make_tcn
from ser_jax.models.vit import make_vit
from ser_jax.wav2vec2.architecture import BackboneSpec


def _make_stack(
    config: ModelConfig, dtype: jnp.dtype, axis_name: str | None, forms: Forms
) -> ConvStack:
    return ConvStack(
        config.channels, KERNEL_INITS[config.kernel_init], config.norm_momentum,
        config.norm_epsilon, axis_name, dtype, forms.conv,
    )  # fmt: skip


def _make_lstm(config: ModelConfig, dtype: jnp.dtype, forms: Forms) -> LSTM:
    return LSTM(
        config.hidden, KERNEL_INITS[config.kernel_init], KERNEL_INITS[config.recurrent_init],
        config.forget_bias, dtype, forms.lstm,
    )  # fmt: skip


def _make_head(config: ModelConfig, n_classes: int, dtype: jnp.dtype) -> Head:
    kernel_init = KERNEL_INITS[config.kernel_init]
    return Head(config.dense, n_classes, config.activation, kernel_init, dtype)


def _make_cnn(
    config: ModelConfig, n_classes: int, dtype: jnp.dtype, axis_name: str | None, forms: Forms
) -> nn.Module:
    stack, head = _make_stack(config, dtype, axis_name, forms), _make_head(config, n_classes, dtype)
    return CNN(stack, head, config.mask_padding, config.cnn_pool)


def _make_lstm_network(
    config: ModelConfig, n_classes: int, dtype: jnp.dtype, axis_name: str | None, forms: Forms
) -> nn.Module:
    del axis_name  # no batch norm, so nothing to add over devices
    lstm, head = _make_lstm(config, dtype, forms), _make_head(config, n_classes, dtype)
    return LSTMNetwork(lstm, head, config.mask_padding)


def _make_cnn_lstm(
    config: ModelConfig, n_classes: int, dtype: jnp.dtype, axis_name: str | None, forms: Forms
) -> nn.Module:
    stack, lstm = _make_stack(config, dtype, axis_name, forms), _make_lstm(config, dtype, forms)
    return CNNLSTM(stack, lstm, _make_head(config, n_classes, dtype), config.mask_padding)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "cnn": _make_cnn,
    "lstm": _make_lstm_network,
    "cnn_lstm": _make_cnn_lstm,
    "tcn": make_tcn,
    "blstm": make_blstm,
    "msdc_lstm": make_msdc_lstm,
    "resnet": make_resnet,
    "vit": make_vit,
    "cvt": make_cvt,
}


def make_model(
    config: ModelConfig,
    n_classes: int,
    *,
    dtype: str = "float32",
    axis_name: str | None = None,
    forms: Forms | None = None,
    spec: BackboneSpec | None = None,
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
      forms: how convolutions and recurrences are computed; None: the fast forms for any device.
      spec: the backbone of wav2vec2, which has no other use of `axis_name` and `forms`.
    """
    if spec is not None:
        # transformers takes seconds to import.
        from ser_jax.wav2vec2.classifier import make_classifier

        return make_classifier(config, n_classes, jnp.dtype(dtype), spec)
    build = MODELS[config.name]
    return build(config, n_classes, jnp.dtype(dtype), axis_name, forms or Forms())
