"""Self-supervised pre-training of wav2vec 2.0: quantiser, contrastive and diversity losses."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from transformers.models.wav2vec2 import modeling_flax_wav2vec2 as hf

from ser_jax.wav2vec2.architecture import Architecture
from ser_jax.wav2vec2.blocks import maybe_drop
from ser_jax.wav2vec2.encoder import Backbone


class Quantised(NamedTuple):
    """Quantised features.

    Attributes:
      vectors_BTD: the code vectors of all groups, concatenated.
      code_BTG: indices of the chosen vectors.
      probability_BTGV: probability of each vector, for the perplexity; one-hot in evaluation.
    """

    vectors_BTD: jax.Array
    code_BTG: jax.Array
    probability_BTGV: jax.Array


class Quantizer(hf.FlaxWav2Vec2GumbelVectorQuantizer):
    """The Gumbel product quantiser of the PyTorch version, with a straight-through estimator.

    transformers' Flax class, which has the same parameters, uses a soft mixture in training.
    """

    def __call__(  # pyright: ignore
        self,
        z_BTC: jax.Array,
        *,
        temperature: jax.Array | float = 1.0,
        noise_BTGV: jax.Array | None = None,
    ) -> Quantised:
        """Choose a vector from each group.

        Args:
          z_BTC: normalised features.
          temperature: of the softmax that supplies the gradient.
          noise_BTGV: Gumbel noise for training; `None` picks the most probable vectors, without a
            gradient.
        """
        B, T, _ = z_BTC.shape
        logits = self.weight_proj(z_BTC).reshape(B, T, self.num_groups, self.num_vars)
        logits = logits.astype(jnp.float32)
        noisy = logits if noise_BTGV is None else (logits + noise_BTGV) / temperature
        code_BTG = jnp.argmax(noisy, axis=-1)
        chosen = hard = jax.nn.one_hot(code_BTG, self.num_vars)
        if noise_BTGV is not None:
            soft = jax.nn.softmax(noisy, axis=-1)
            chosen = hard + soft - jax.lax.stop_gradient(soft)
        book_GVD = self.codevectors.reshape(self.num_groups, self.num_vars, -1)
        vectors = jnp.einsum("btgv,gvd->btgd", chosen, book_GVD).reshape(B, T, -1)
        probability = hard if noise_BTGV is None else jax.nn.softmax(logits, axis=-1)
        return Quantised(vectors.astype(self.dtype), code_BTG, probability)


class PretrainNetwork(nn.Module):
    """Backbone, quantiser and projections, named as in Wav2Vec2ForPreTraining."""

    config: Architecture
    dtype: Any = jnp.float32
    remat: bool = False

    def setup(self) -> None:
        config: Any = self.config
        self.backbone = Backbone(config, self.dtype, remat=self.remat)
        self.quantizer = Quantizer(config, dtype=self.dtype)
        init = nn.initializers.normal(config.initializer_range)
        self.project_hid = nn.Dense(config.proj_codevector_dim, kernel_init=init, dtype=self.dtype)
        self.project_q = nn.Dense(config.proj_codevector_dim, kernel_init=init, dtype=self.dtype)

    def __call__(
        self,
        x_BN: jax.Array,
        frame_mask_BT: jax.Array | None,
        masked_BT: jax.Array,
        *,
        train: bool,
        temperature: jax.Array | float = 1.0,
        noise_BTGV: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array, Quantised]:
        """Context vectors [B, T, D], targets [B, T, D] and quantised features of all frames.

        Args:
          x_BN: samples with zero mean and unit variance.
          frame_mask_BT: True for real frames; `None` if all are real.
          masked_BT: frames hidden from the transformer.
          train: apply dropout and LayerDrop.
          temperature, noise_BTGV: see `Quantizer`.
        """
        h_BTH, normed_BTC = self.backbone.contextualise(
            self.backbone.encode(x_BN), frame_mask_BT, train=train, time_mask_BT=masked_BT,
            return_features=True,
        )  # fmt: skip
        normed_BTC = maybe_drop(self, normed_BTC, self.config.feat_quantizer_dropout, train)
        quantised = self.quantizer(normed_BTC, temperature=temperature, noise_BTGV=noise_BTGV)
        return self.project_hid(h_BTH), self.project_q(quantised.vectors_BTD), quantised


class Losses(NamedTuple):
    """Sums over masked frames, except for the perplexity.

    Attributes:
      contrastive: cross-entropy of the true target among the distractors.
      diversity: share of unused code vectors, times the number of masked frames.
      perplexity: effective number of code vectors in use, summed over groups.
      correct: number of frames whose true target is the most similar.
      count: number of masked frames.
    """

    contrastive: jax.Array
    diversity: jax.Array
    perplexity: jax.Array
    correct: jax.Array
    count: jax.Array


def compute_pretraining_losses(
    context_BTD: jax.Array,
    target_BTD: jax.Array,
    quantised: Quantised,
    masked_BT: jax.Array,
    negative_BTK: jax.Array,
    temperature: float,
) -> Losses:
    """The terms of wav2vec 2.0's loss (Baevski et al. 2020, equations 3 and 4).

    Args:
      context_BTD, target_BTD, quantised: outputs of the network.
      masked_BT: frames that the loss is summed over.
      negative_BTK: frames of the same clip that serve as distractors; those whose vectors equal the
        true ones are ignored.
      temperature: divisor of the similarities.
    """
    similarity_BTT = jnp.einsum("btd,bsd->bts", _to_unit(context_BTD), _to_unit(target_BTD))
    similarity_BTT = similarity_BTT / temperature
    # For all pairs of frames: gathering the distractors' vectors would take K times the memory.
    true_BT = jnp.diagonal(similarity_BTT, axis1=1, axis2=2)
    false_BTK = jnp.take_along_axis(similarity_BTT, negative_BTK, axis=2)
    code_BTG = quantised.code_BTG
    same_BTK = jnp.ones(negative_BTK.shape, bool)
    for group in range(code_BTG.shape[2]):
        code_BT = code_BTG[:, :, group]
        other_BTK = jax.vmap(lambda code_T, index_TK: code_T[index_TK])(code_BT, negative_BTK)
        same_BTK &= other_BTK == code_BT[:, :, None]
    false_BTK = jnp.where(same_BTK, jnp.finfo(jnp.float32).min, false_BTK)
    logits = jnp.concatenate([true_BT[:, :, None], false_BTK], axis=2)
    loss_BT = jax.nn.logsumexp(logits, axis=2) - true_BT
    masked = masked_BT.astype(jnp.float32)
    count = masked.sum()
    share = (quantised.probability_BTGV * masked[:, :, None, None]).sum(axis=(0, 1))
    share = share / jnp.maximum(count, 1)
    perplexity = jnp.exp(-(share * jnp.log(share + 1e-7)).sum(axis=-1)).sum()
    n_vectors = share.size
    return Losses(
        contrastive=(loss_BT * masked).sum(),
        diversity=(n_vectors - perplexity) / n_vectors * count,
        perplexity=perplexity,
        correct=((true_BT >= false_BTK.max(axis=2)) * masked).sum(),
        count=count,
    )


def _to_unit(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    # The gradient of a norm at zero is NaN; this way a row of zeros has a gradient of zero.
    square = jnp.square(x).sum(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-16))


def draw_negatives(key: jax.Array, masked_BT: jax.Array, n_negatives: int) -> jax.Array:
    """Draw, for every frame, uniform indices of other masked frames of its clip, int32 [B, T, K].

    A clip needs at least two masked frames; otherwise its indices are meaningless.
    """
    B, T = masked_BT.shape
    count_B11 = masked_BT.sum(axis=1)[:, None, None]
    place_BT = jnp.argsort(~masked_BT, axis=1, stable=True)  # the masked frames first, in order
    own_BT1 = jnp.cumsum(masked_BT, axis=1)[:, :, None] - 1
    uniform = jax.random.uniform(key, (B, T, n_negatives))
    rank = jnp.floor(uniform * (count_B11 - 1)).astype(jnp.int32)
    rank = jnp.clip(rank + (rank >= own_BT1), 0, T - 1)
    return jax.vmap(lambda place_T, rank_TK: place_T[rank_TK])(place_BT, rank)
