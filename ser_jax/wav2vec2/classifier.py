"""wav2vec 2.0 as a classifier: mean over frames, projection, logits."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.config import ModelConfig
from ser_jax.models.layers import keep_rows
from ser_jax.wav2vec2.architecture import BackboneSpec
from ser_jax.wav2vec2.blocks import Lora
from ser_jax.wav2vec2.encoder import Backbone
from ser_jax.wav2vec2.masks import make_frame_mask, normalise_wave


class Wav2Vec2Network(nn.Module):
    """A backbone with the head of transformers' Wav2Vec2ForSequenceClassification.

    Attributes:
      backbone: the network below the head.
      n_classes: number of logits.
      projector: number of hidden units in the head.
      weighted: use a learned weighted sum of all layers' states instead of the last layer's.
      mask_padding: exclude padding from attention and from the mean.
      normalise_before_padding: scale a clip's own samples to unit variance, without its padding.
      frozen: run the backbone in evaluation mode even in training.
      entry: the kind of input: 'wave' (samples [B, N, 1]), 'features' (of the convolutions,
        [B, T, C]) or 'pooled' (mean states of every layer, [B, L + 1, H]).
    """

    backbone: Backbone
    n_classes: int
    projector: int = 256
    weighted: bool = False
    mask_padding: bool = False
    normalise_before_padding: bool = False
    frozen: bool = False
    entry: str = "wave"

    def setup(self) -> None:
        n_states = self.backbone.config.num_hidden_layers + 1
        if self.weighted:
            fill = nn.initializers.constant(1 / n_states)
            self.layer_weights = self.param("layer_weights", fill, (n_states,))
        # PyTorch's default initialisation of a linear layer; the head is cheap, so in float32.
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        self.project = nn.Dense(self.projector, kernel_init=init, name="projector")
        self.classify = nn.Dense(self.n_classes, kernel_init=init, name="classifier")

    def __call__(
        self, x_BTF: jax.Array, mask_BT: jax.Array, *, train: bool, dropout: jax.Array | float = 0.0
    ) -> jax.Array:
        """Map the input that `entry` names and its mask [B, T] to float32 logits [B, C]."""
        del dropout  # the backbone has its own rates
        if self.entry == "pooled":
            return self._classify(x_BTF)
        if self.entry == "wave":
            x_BTF, mask_BT = self.encode(x_BTF, mask_BT)
        return self._classify(self.pool(x_BTF, mask_BT, train=train))

    def encode(self, x_BN1: jax.Array, mask_BN: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map samples to the convolutions' features [B, T, C] and their mask [B, T]."""
        config = self.backbone.config
        short = max(config.receptive_field - x_BN1.shape[1], 0)
        x_BN = jnp.pad(x_BN1[:, :, 0], ((0, 0), (0, short)))
        mask_BN = jnp.pad(mask_BN, ((0, 0), (0, short)))
        if config.do_normalize:
            x_BN = normalise_wave(x_BN, mask_BN if self.normalise_before_padding else None)
        z_BTC = self.backbone.encode(x_BN)
        return z_BTC, make_frame_mask(config, mask_BN, z_BTC.shape[1])

    def pool(self, z_BTC: jax.Array, mask_BT: jax.Array, *, train: bool = False) -> jax.Array:
        """Map features to the float32 mean state of every layer, [B, L + 1, H]."""
        inner_BT = mask_BT if self.mask_padding else None
        states = self.backbone.contextualise(
            z_BTC, inner_BT, train=train and not self.frozen, all_layers=True
        )
        counted_BT = mask_BT if self.mask_padding else keep_rows(mask_BT)
        count_B1 = jnp.maximum(counted_BT.sum(axis=1, keepdims=True), 1)
        means = [
            jnp.where(counted_BT[:, :, None], h_BTH, 0).sum(axis=1, dtype=jnp.float32) / count_B1
            for h_BTH in (states if self.weighted or self.frozen else states[-1:])
        ]
        return jnp.stack(means, axis=1)

    def _classify(self, pooled_BLH: jax.Array) -> jax.Array:
        # The mean over frames and the projection are both linear, so they commute.
        if self.weighted:
            weight_L = jax.nn.softmax(self.layer_weights)
            pooled_BH = jnp.einsum("blh,l->bh", pooled_BLH, weight_L)
        else:
            pooled_BH = pooled_BLH[:, -1]
        logits_BC: Any = self.classify(self.project(pooled_BH))
        return logits_BC


def make_classifier(
    config: ModelConfig, n_classes: int, dtype: jnp.dtype, spec: BackboneSpec
) -> nn.Module:
    """Make a `Wav2Vec2Network` from its settings; see `systems.networks.make_model`."""
    settings = spec.settings
    lora = None
    if settings.lora_rank:
        lora = Lora(settings.lora_rank, settings.lora_alpha, settings.lora_targets)
    return Wav2Vec2Network(
        Backbone(spec.architecture, dtype, lora, settings.remat, settings.attention),
        n_classes, settings.projector, settings.weighted_layers, config.mask_padding,
        settings.normalise_before_padding, settings.freeze == "all", spec.entry,
    )  # fmt: skip
