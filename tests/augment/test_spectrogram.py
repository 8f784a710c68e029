"""Features of training rows masked, warped, shifted, mixed: what each must leave and change."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.augment.mixup import Mix, draw_mix, mix_batch, mix_labels
from ser_jax.augment.spectrogram import (
    draw_masks,
    mask_bands,
    mask_time,
    move_time,
    perturb,
    warp_bands,
)
from ser_jax.features.batching import Batch
from tests.tolerance import assert_near

B, T, F = 40, 30, 10
KEY = jax.random.key(3)
LENGTH_B = np.random.default_rng(0).integers(5, T + 1, B)
LENGTH_B[:2] = T, 0  # one without padding, one row that only fills up


def make_batch(x_BTF: Any = None) -> Batch:
    mask_BT = np.arange(T)[None] < LENGTH_B[:, None]
    if x_BTF is None:  # no number is 0
        x_BTF = 1 + np.random.default_rng(1).random((B, T, F)).astype(np.float32)
    return Batch(
        jnp.asarray(x_BTF, jnp.float32), jnp.asarray(mask_BT), jnp.arange(B) % 4,
        jnp.asarray(LENGTH_B > 0, jnp.float32),
    )  # fmt: skip


# Masks.


@pytest.mark.device
def test_time_masks_lie_in_real_frames_and_set_all_bands_to_zero():
    before = make_batch()
    after = jax.jit(mask_time)(before, KEY, jnp.array([6.0, 6.0]))
    masked_BTF = np.asarray(after.x_BTF) == 0
    masked_BT = masked_BTF.all(axis=2)
    np.testing.assert_array_equal(masked_BTF.any(axis=2), masked_BT)
    assert not masked_BT[~np.asarray(before.mask_BT)].any()
    assert masked_BT.sum(axis=1).max() <= 12
    assert masked_BT.any(axis=1).mean() > 0.7
    left = ~masked_BTF
    np.testing.assert_array_equal(np.asarray(after.x_BTF)[left], np.asarray(before.x_BTF)[left])
    np.testing.assert_array_equal(after.mask_BT, before.mask_BT)
    assert len({row.tobytes() for row in masked_BT}) > B / 2  # each row draws its own


def test_band_masks_run_through_all_frames():
    after = jax.jit(mask_bands)(make_batch(), KEY, jnp.array([4.0]))
    masked_BTF = np.asarray(after.x_BTF) == 0
    np.testing.assert_array_equal(masked_BTF, masked_BTF[:, :1].repeat(T, axis=1))
    widths = masked_BTF[:, 0].sum(axis=1)
    assert set(widths) == {0, 1, 2, 3, 4}
    edges = np.diff(masked_BTF[:, 0].astype(int), axis=1)
    assert (np.abs(edges).sum(axis=1) <= 2).all()  # one stretch


def test_masks_are_as_wide_and_lie_as_far_as_uniform_draws_would():
    n, most, first, length = 30_000, 4, 2, 9
    ones_B1 = jnp.ones((n, 1), jnp.int32)
    draw = jax.jit(draw_masks, static_argnums=4)
    masked_BS = np.asarray(draw(KEY, first * ones_B1, length * ones_B1, jnp.array([4.0]), 15))
    widths = masked_BS.sum(axis=1)
    share = np.bincount(widths, minlength=most + 1) / n
    np.testing.assert_allclose(share, 1 / (most + 1), atol=0.01)
    for width in range(1, most + 1):
        starts = masked_BS[widths == width].argmax(axis=1)
        share = np.bincount(starts, minlength=15) * 1.0 / len(starts)
        expected = np.zeros(15)
        expected[first : first + length - width + 1] = 1 / (length - width + 1)
        np.testing.assert_allclose(share, expected, atol=0.025)


def test_no_mask_is_wider_than_the_clip():
    ones_B1 = jnp.ones((200, 1), jnp.int32)
    draw = jax.jit(draw_masks, static_argnums=4)
    masked_BS = draw(KEY, 0 * ones_B1, 3 * ones_B1, jnp.array([50.0]), 8)
    assert np.asarray(masked_BS).sum(axis=1).max() == 3
    assert not np.asarray(masked_BS)[:, 3:].any()


# Warps and shifts. A ramp along an axis tells from where each place was taken.


def make_ramp(axis: int) -> tuple[Batch, np.ndarray]:
    """Noise, but for a ramp along time in band 0 (axis 1) or along bands in frame 0 (axis 2)."""
    x_BTF = np.random.default_rng(1).standard_normal((B, T, F)).astype(np.float32)
    if axis == 1:
        x_BTF[:, :, 0] = np.arange(T)
    else:
        x_BTF[:, 0, :] = np.arange(F)
    return make_batch(x_BTF), x_BTF


@pytest.mark.device
def test_time_is_warped_and_shifted_by_linear_interpolation():
    before, x_BTF = make_ramp(1)
    move = jax.jit(functools.partial(move_time, before, KEY))
    after = move(shift_frames=jnp.float32(4), warp=jnp.float32(0.2))
    source_BT = np.asarray(after.x_BTF)[:, :, 0]
    rates, shifts = [], []
    for row in range(B):
        source_T = source_BT[row]
        inner = (source_T > 0) & (source_T < T - 1)
        rate, start = np.polyfit(np.flatnonzero(inner), source_T[inner], 1)
        rates, shifts = [*rates, rate], [*shifts, -start / rate]
        expected_T = np.clip((np.arange(T) - shifts[-1]) * rate, 0, T - 1)
        assert_near(source_T, expected_T, atol=1e-3)
        for band in range(1, F):
            expected_T = np.interp(source_T, np.arange(T), x_BTF[row, :, band])
            assert_near(after.x_BTF[row, :, band], expected_T, atol=1e-3)
    assert 0.8 <= min(rates) < 0.85
    assert 1.15 < max(rates) <= 1.2
    np.testing.assert_allclose(shifts, np.round(shifts), atol=1e-2)
    assert {-4, 4} <= set(np.round(shifts)) <= set(range(-4, 5))
    # Real frames are those up to where the last one went.
    length_B = np.where(
        LENGTH_B > 0, np.clip(np.round(LENGTH_B / rates) + np.round(shifts), 1, T), 0
    )
    np.testing.assert_array_equal(after.mask_BT, np.arange(T)[None] < length_B[:, None])


def test_a_shift_alone_moves_whole_frames_and_repeats_those_at_the_ends():
    before, x_BTF = make_ramp(1)
    after = jax.jit(move_time)(before, KEY, shift_frames=jnp.float32(3))
    shift_B = np.arange(T)[15] - np.asarray(after.x_BTF)[:, 15, 0]
    assert set(shift_B) == set(range(-3, 4))
    for row, shift in enumerate(shift_B.astype(int)):
        source_T = np.clip(np.arange(T) - shift, 0, T - 1)
        np.testing.assert_array_equal(after.x_BTF[row], x_BTF[row][source_T])


@pytest.mark.device
def test_bands_are_warped_by_linear_interpolation():
    before, x_BTF = make_ramp(2)
    after = jax.jit(warp_bands)(before, KEY, jnp.float32(0.2))
    factors = np.asarray(after.x_BTF)[:, 0, 5] / 5
    assert 0.8 <= factors.min() < 0.83
    assert 1.17 < factors.max() <= 1.2
    for row, factor in enumerate(factors):
        source_F = np.clip(np.arange(F) * factor, 0, F - 1)
        expected_TF = [np.interp(source_F, np.arange(F), x_F) for x_F in x_BTF[row]]
        assert_near(after.x_BTF[row], expected_TF, atol=1e-5)
    np.testing.assert_array_equal(after.mask_BT, before.mask_BT)


def test_every_width_zero_leaves_a_batch_as_it_was():
    before = make_batch()
    names = ["band_warp", "time_warp", "feature_shift_frames"]
    numbers = {name: jnp.float32(0) for name in names} | {
        "time_mask_frames": jnp.zeros(2), "band_mask_bands": jnp.zeros(1),
    }  # fmt: skip
    after = jax.jit(perturb)(before, numbers, KEY)
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_draws_follow_from_the_key_alone_and_no_two_kinds_share_theirs():
    numbers = {"time_warp": jnp.float32(0.2), "band_warp": jnp.float32(0.2)}
    before, _ = make_ramp(1)
    apply = jax.jit(perturb)
    one, same, other = (apply(before, numbers, key) for key in (KEY, KEY, jax.random.key(4)))
    np.testing.assert_array_equal(one.x_BTF, same.x_BTF)
    assert np.any(np.asarray(one.x_BTF != other.x_BTF))
    bands, time = (apply(make_ramp(axis)[0], numbers, KEY) for axis in (2, 1))
    factor_B = np.asarray(bands.x_BTF)[:, 0, 5] / 5
    rate_B = np.asarray(time.x_BTF)[:, 12, 0] / 12
    assert abs(np.corrcoef(factor_B, rate_B)[0, 1]) < 0.5


# mixup.


@pytest.mark.device
def test_mixed_rows_labels_and_masks_are_those_of_numpy():
    batch = make_batch()
    mix: Any = jax.jit(draw_mix)(KEY, jnp.float32(0.4), batch.weight_B)
    mixed: Any = jax.jit(mix_batch)(batch, mix)
    targets_BC = np.asarray(mix_labels(batch.label_B, mix, 4))
    x_BTF, mask_BT, label_B = (np.asarray(x) for x in (batch.x_BTF, batch.mask_BT, batch.label_B))
    partner_B, share_B = np.asarray(mix.partner_B), np.asarray(mix.share_B)
    assert sorted(partner_B) == list(range(B))
    for row, (partner, share) in enumerate(zip(partner_B, share_B, strict=True)):
        if 1 in (row, partner):  # it only fills up
            assert share == 1
            np.testing.assert_array_equal(mixed.mask_BT[row], mask_BT[row])
        else:
            np.testing.assert_array_equal(mixed.mask_BT[row], mask_BT[row] | mask_BT[partner])
        expected = share * x_BTF[row] + (1 - share) * x_BTF[partner]
        assert_near(mixed.x_BTF[row], expected, rtol=1e-5)
        target_C = np.zeros(4)
        target_C[label_B[row]] += share
        target_C[label_B[partner]] += 1 - share
        assert_near(targets_BC[row], target_C, rtol=1e-5, atol=1e-7)
        assert mixed.label_B[row] == label_B[row if share >= 0.5 else partner]
    assert (share_B < 1).sum() == B - 2
    np.testing.assert_array_equal(mixed.weight_B, batch.weight_B)


def test_the_content_of_padding_rows_is_ignored():
    batch = make_batch()
    junk_BTF = jnp.where(batch.weight_B[:, None, None] == 0, jnp.nan, batch.x_BTF)
    mix = Mix(jnp.ones(B, jnp.int32), jnp.ones(B))  # all have the row that fills up
    mixed: Any = mix_batch(batch.replace(x_BTF=junk_BTF), mix)  # pyright: ignore
    real = np.asarray(batch.weight_B) > 0
    np.testing.assert_array_equal(mixed.x_BTF[real], batch.x_BTF[real])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_shares_have_the_moments_of_the_beta_distribution(alpha):
    draw: Any = jax.jit(draw_mix)
    share_B = np.asarray(draw(KEY, jnp.float32(alpha), jnp.ones(20_000)).share_B)
    np.testing.assert_allclose(share_B.mean(), 0.5, atol=0.01)
    np.testing.assert_allclose(share_B.var(), 1 / (4 * (2 * alpha + 1)), rtol=0.04)
