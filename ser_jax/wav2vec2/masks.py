"""Masks of real frames, and of the spans hidden in training, drawn in JAX inside the step."""

from typing import Any

import jax
import jax.numpy as jnp

from ser_jax.wav2vec2.architecture import Architecture


def make_frame_mask(config: Architecture, mask_BN: jax.Array, n_frames: int) -> jax.Array:
    """The mask of real frames [B, T], given the mask of real samples [B, N].

    A clip too short for a single frame keeps its first one; a row without samples has none.
    """
    length_B = mask_BN.sum(axis=1, dtype=jnp.int32)
    frames_B = jnp.maximum(config.count_frames(length_B), (length_B > 0).astype(jnp.int32))
    return jnp.arange(n_frames)[None, :] < frames_B[:, None]


def draw_spans(
    key: jax.Array, length_B: jax.Array, T: int, prob: float, length: int, least: int = 0
) -> jax.Array:
    """A mask [B, T] that is True on random spans of `length` frames.

    As in wav2vec 2.0, every clip has prob x frames / length spans, rounded up or down at random.
    They start at different frames and may overlap; none extends into padding.

    Args:
      key: random key.
      length_B: real frames of each clip, int32.
      T: frames of the longest clip.
      prob: share of frames that the spans would cover if none overlapped.
      length: frames of a span.
      least: minimum number of spans in a clip that is long enough for one.
    """
    count_key, place_key = jax.random.split(key)
    B = length_B.shape[0]
    n_starts_B = jnp.maximum(length_B - length + 1, 0)
    spans_B = jnp.floor(prob * length_B / length + jax.random.uniform(count_key, (B,)))
    spans_B = jnp.minimum(jnp.maximum(spans_B.astype(jnp.int32), least), n_starts_B)
    order_BT = jax.random.uniform(place_key, (B, T))
    order_BT = jnp.where(jnp.arange(T)[None, :] < n_starts_B[:, None], order_BT, 2.0)
    rank_BT = jnp.argsort(jnp.argsort(order_BT, axis=1), axis=1)
    start_BT = rank_BT < spans_B[:, None]
    begun_BT = jnp.cumsum(start_BT.astype(jnp.int32), axis=1)
    return begun_BT > jnp.pad(begun_BT, ((0, 0), (length, 0)))[:, :T]


def augment_spectrum(
    key: jax.Array, h_BTH: jax.Array, frame_mask_BT: jax.Array, fill_H: jax.Array, config: Any
) -> jax.Array:
    """SpecAugment: fill spans of frames with `fill_H`, and spans of features with zeros."""
    time_key, feature_key = jax.random.split(key)
    B, T, H = h_BTH.shape
    if config.mask_time_prob > 0:
        frames_B = frame_mask_BT.sum(axis=1, dtype=jnp.int32)
        mask_BT = draw_spans(
            time_key, frames_B, T, config.mask_time_prob, config.mask_time_length, least=2
        )
        fill_H = fill_H.astype(h_BTH.dtype)[None, None, :]
        h_BTH = jnp.where(mask_BT[:, :, None], fill_H, h_BTH)
    if config.mask_feature_prob > 0:
        all_B = jnp.full((B,), H, jnp.int32)
        mask_BH = draw_spans(
            feature_key, all_B, H, config.mask_feature_prob, config.mask_feature_length
        )
        h_BTH = jnp.where(mask_BH[:, None, :], 0, h_BTH)
    return h_BTH


def normalise_wave(x_BN: jax.Array, mask_BN: jax.Array | None = None) -> jax.Array:
    """Scale every clip to zero mean and unit variance, as transformers' Wav2Vec2FeatureExtractor.

    Args:
      x_BN: samples.
      mask_BN: samples to take the statistics over, all others becoming zero; `None` for all.
    """
    real_BN = jnp.ones(x_BN.shape, bool) if mask_BN is None else mask_BN
    count_B1 = jnp.maximum(real_BN.sum(axis=1, keepdims=True), 1)
    mean_B1 = jnp.where(real_BN, x_BN, 0).sum(axis=1, keepdims=True) / count_B1
    centred_BN = jnp.where(real_BN, x_BN - mean_B1, 0)
    variance_B1 = jnp.square(centred_BN).sum(axis=1, keepdims=True) / count_B1
    return centred_BN * jax.lax.rsqrt(variance_B1 + 1e-7)
