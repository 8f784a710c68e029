"""The networks: one dictionary from names to what builds them."""

import functools

import flax.linen as nn
import jax.numpy as jnp

from ser_jax.config import ModelConfig
from ser_jax.models.blstm import make_blstm
from ser_jax.models.cnn import make_cnn
from ser_jax.models.cnn_lstm import make_cnn_lstm
from ser_jax.models.conv import check_poolings
from ser_jax.models.cvt import make_cvt
from ser_jax.models.ensemble import Ensemble
from ser_jax.models.forms import Forms
from ser_jax.models.lstm import make_lstm_network
from ser_jax.models.msdc_lstm import make_msdc_lstm
from ser_jax.models.reslstm import make_reslstm
from ser_jax.models.resnet import make_resnet
from ser_jax.models.tcn import make_tcn
from ser_jax.models.vit import make_vit
from ser_jax.systems.own_network import Network, import_network
from ser_jax.wav2vec2.architecture import BackboneSpec

NETWORKS: dict[str, Network] = {
    "cnn": Network(make_cnn, check=check_poolings),
    "lstm": Network(make_lstm_network, convolves=False),
    "cnn_lstm": Network(make_cnn_lstm, check=check_poolings),
    "tcn": Network(make_tcn),
    "blstm": Network(make_blstm, convolves=False),
    "msdc_lstm": Network(make_msdc_lstm),
    "reslstm": Network(make_reslstm, convolves=False),
    "resnet": Network(make_resnet),
    "resnet1d": Network(functools.partial(make_resnet, along_time=True), convolves=False),
    "vit": Network(make_vit),
    "cvt": Network(make_cvt),
}


def find_network(name: str) -> Network:
    """The network called `name`, or one from outside the package, given as MODULE:CLASS.

    Raises:
      UserError: there is no such module or class.
    """
    return import_network(name) if ":" in name else NETWORKS[name]


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
    In training an ensemble gives those of its M members, [M, B, C].

    Args:
      config: sizes and initial values.
      n_classes: number of logits.
      dtype: type of the computation; parameters and statistics are float32.
      axis_name: mapped axis that shards the batch, for the statistics of batch norm.
      forms: how convolutions and recurrences are computed; `None`: the fast forms for any device.
      spec: the backbone of wav2vec2, which has no other use of `axis_name` and `forms`.
    """
    if spec is not None:
        # transformers takes seconds to import.
        from ser_jax.wav2vec2.classifier import make_classifier

        return make_classifier(config, n_classes, jnp.dtype(dtype), spec)
    network = find_network(config.name).build(
        config, n_classes, jnp.dtype(dtype), axis_name, forms or Forms()
    )
    return network if config.ensemble == 1 else Ensemble(network, config.ensemble)
