"""wav2vec 2.0 without a head: from samples to the hidden states of every layer."""

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from transformers.modeling_flax_utils import ACT2FN
from transformers.models.wav2vec2 import modeling_flax_wav2vec2 as hf

from ser_jax.wav2vec2.architecture import Architecture
from ser_jax.wav2vec2.blocks import FeatureProjection, Layers, Lora, maybe_drop
from ser_jax.wav2vec2.convolutions import convolve_same
from ser_jax.wav2vec2.feature_encoder import FeatureEncoder
from ser_jax.wav2vec2.masks import augment_spectrum, make_frame_mask
from ser_jax.wav2vec2.norms import LayerNorm, match_last


class PositionalConvEmbedding(hf.FlaxWav2Vec2PositionalConvEmbedding):
    """transformers' positional convolution and activation, computed by `convolve_same`."""

    def setup(self) -> None:
        self.conv = _WeightNormKernel(self.config, dtype=self.dtype)
        self.activation = ACT2FN[self.config.feat_extract_activation]
        self.num_pad_remove = 1 if self.config.num_conv_pos_embeddings % 2 == 0 else 0

    def __call__(self, hidden_states: jax.Array) -> jax.Array:
        kernel, bias = self.conv()
        groups = self.config.num_conv_pos_embedding_groups
        h: Any = convolve_same(hidden_states.astype(self.dtype), kernel, groups)
        h = h + match_last(bias, h)
        if self.num_pad_remove > 0:
            h = h[:, : -self.num_pad_remove]
        return self.activation(h)


class _WeightNormKernel(hf.FlaxConvWithWeightNorm):
    """The weight-normalised kernel, and the bias."""

    def __call__(self) -> tuple[jax.Array, jax.Array]:  # pyright: ignore
        return self._get_normed_weights().T.astype(self.dtype), self.bias.astype(self.dtype)


class Encoder(nn.Module):
    """Positional convolution, norm and layers; the layout puts the norm first or last."""

    config: Architecture
    dtype: Any = jnp.float32
    lora: Lora | None = None
    attention: str = "auto"
    remat: bool = False

    def setup(self) -> None:
        config: Any = self.config  # has the attributes that transformers' modules read
        self.pos_conv_embed = PositionalConvEmbedding(config, dtype=self.dtype)
        self.layer_norm = LayerNorm(self.config.layer_norm_eps, self.dtype)
        self.layers = Layers(self.config, self.dtype, self.lora, self.attention, self.remat)

    def __call__(
        self, h_BTH: jax.Array, mask_BT: jax.Array | None, *, train: bool
    ) -> list[jax.Array]:
        if mask_BT is not None:
            h_BTH = jnp.where(mask_BT[:, :, None], h_BTH, 0)
        h_BTH = h_BTH + self.pos_conv_embed(h_BTH)
        stable = self.config.do_stable_layer_norm
        h_BTH = h_BTH if stable else self.layer_norm(h_BTH)
        h_BTH = maybe_drop(self, h_BTH, self.config.hidden_dropout, train)
        states = self.layers(h_BTH, mask_BT, train=train)
        return [*states[:-1], self.layer_norm(states[-1])] if stable else states


class Backbone(nn.Module):
    """wav2vec 2.0 of either layout, with the parameter tree of transformers' FlaxWav2Vec2Module.

    Attributes:
      config: sizes and rates.
      dtype: type of the computation; parameters, norm statistics and softmax are float32.
      lora: low-rank adaptation of the attention; `None` disables it.
      remat: recompute each layer in the backward pass instead of storing its activations.
      attention: 'plain', or 'auto' for cuDNN's fused kernel unless `self_attention.find_obstacle`
        names an obstacle. Here 'fused' means 'auto'; `finetune` checks it beforehand.
    """

    config: Architecture
    dtype: Any = jnp.float32
    lora: Lora | None = None
    remat: bool = False
    attention: str = "auto"

    def setup(self) -> None:
        config = cast(Any, self.config)
        self.feature_extractor = FeatureEncoder(self.config, self.dtype)
        self.feature_projection = FeatureProjection(config, dtype=self.dtype)
        self.masked_spec_embed = self.param(
            "masked_spec_embed", nn.initializers.uniform(1.0), (self.config.hidden_size,)
        )
        self.encoder = Encoder(self.config, self.dtype, self.lora, self.attention, self.remat)

    def __call__(
        self,
        x_BN: jax.Array,
        mask_BN: jax.Array | None = None,
        *,
        train: bool = False,
        all_layers: bool = False,
    ) -> Any:
        """Map samples to hidden states.

        Args:
          x_BN: samples with zero mean and unit variance, at least `config.receptive_field` each.
          mask_BN: True for real samples; `None` treats padding like any other sound.
          train: apply dropout, LayerDrop and SpecAugment, with keys from the 'dropout' stream.
          all_layers: also return the input of the first layer and the output of each layer.

        Returns:
          The last layer's states [B, T, H], or a tuple of all L + 1.
        """
        z_BTC = self.encode(x_BN)
        mask_BT = None
        if mask_BN is not None:
            mask_BT = make_frame_mask(self.config, mask_BN, z_BTC.shape[1])
        return self.contextualise(z_BTC, mask_BT, train=train, all_layers=all_layers)

    def encode(self, x_BN: jax.Array) -> jax.Array:
        """Map samples [B, N] to the convolutions' features [B, T, C]."""
        return self.feature_extractor(x_BN)

    def contextualise(
        self,
        z_BTC: jax.Array,
        mask_BT: jax.Array | None = None,
        *,
        train: bool = False,
        all_layers: bool = False,
        time_mask_BT: jax.Array | None = None,
        return_features: bool = False,
    ) -> Any:
        """Map features of the convolutions to hidden states.

        Args:
          z_BTC: features from `encode`.
          mask_BT: True for real frames; `None` if all are real.
          train, all_layers: as in `__call__`.
          time_mask_BT: frames to replace by the mask embedding; `None` lets SpecAugment draw them
            in training.
          return_features: return (states, normalised features [B, T, C]); pre-training quantises
            the latter.
        """
        h_BTH, normed_BTC = self.feature_projection(z_BTC, train=train)
        fill_H = self.masked_spec_embed.astype(self.dtype)
        if time_mask_BT is not None:
            h_BTH = jnp.where(time_mask_BT[:, :, None], fill_H[None, None, :], h_BTH)
        elif train and self.config.apply_spec_augment and not self.is_initializing():
            real_BT = jnp.ones(h_BTH.shape[:2], bool) if mask_BT is None else mask_BT
            key = self.make_rng("dropout")
            h_BTH = augment_spectrum(key, h_BTH, real_BT, fill_H, self.config)
        states = self.encoder(h_BTH, mask_BT, train=train)
        result = tuple(states) if all_layers else states[-1]
        return (result, normed_BTC) if return_features else result
