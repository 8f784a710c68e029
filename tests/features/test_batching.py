"""Batches of clip numbers: every clip once, in an order of its own per epoch, ragged at the end."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_jax.config import FeaturesConfig
from ser_jax.features.batching import (
    PADDING,
    Dataset,
    compute_features,
    count_steps,
    cut_batches,
    cut_buckets,
    order_epoch,
    scale_samples,
    shuffle,
    take,
)
from ser_jax.features.corpus_features import make_fast_front_end
from ser_jax.features.normaliser import Normaliser


def make_dataset():
    """Five clips of up to four frames; a clip's features say its number."""
    x_BTF = np.arange(5, dtype=np.float32)[:, None, None] + np.zeros((5, 4, 2), np.float32) + 1
    return Dataset(
        jnp.asarray(x_BTF), jnp.asarray([4, 3, 2, 1, 4], jnp.int32), jnp.arange(5, dtype=jnp.int32),
        Normaliser(jnp.zeros(2), jnp.ones(2)), jnp.ones((), jnp.int32),
    )  # fmt: skip


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_batch_holds_the_clips_asked_for(wrap):
    batch = wrap(take)(make_dataset(), jnp.asarray([3, 0, 1], jnp.int32))
    np.testing.assert_array_equal(batch.x_BTF[:, 0, 0], [4, 1, 2])
    np.testing.assert_array_equal(batch.label_B, [3, 0, 1])
    np.testing.assert_array_equal(batch.weight_B, [1, 1, 1])
    T, F = True, False
    np.testing.assert_array_equal(batch.mask_BT, [[T, F, F, F], [T, T, T, T], [T, T, T, F]])


def test_padding_row_has_no_frames_no_weight_and_no_features():
    dataset = make_dataset()
    nan_first = dataset.x_BTF.at[0].set(jnp.nan)  # clip 0 stands in for padding: it must not leak
    dataset = dataclasses.replace(dataset, x_BTF=nan_first)
    batch = take(dataset, jnp.asarray([4, PADDING], jnp.int32))
    np.testing.assert_array_equal(batch.x_BTF[1], 0)
    np.testing.assert_array_equal(batch.mask_BT[1], False)
    np.testing.assert_array_equal(batch.weight_B, [1, 0])
    assert batch.weight_B.dtype == jnp.float32
    assert batch.label_B[1] == 0


def test_batch_is_normalised_as_it_is_taken_and_padding_is_zero_after_it():
    normaliser = Normaliser(jnp.asarray([1.0, 2.0]), jnp.asarray([2.0, 4.0]))
    dataset = dataclasses.replace(make_dataset(), normaliser=normaliser)
    batch = take(dataset, jnp.asarray([4, PADDING], jnp.int32))
    np.testing.assert_array_equal(batch.x_BTF[0, 0], [(5 - 1) / 2, (5 - 2) / 4])
    np.testing.assert_array_equal(batch.x_BTF[1], 0)


@given(st.integers(1, 20), st.integers(1, 9), st.integers(1, 8))
def test_batches_divide_among_any_number_of_devices(n_clips, batch_size, n_shards):
    index_SB = cut_batches(np.arange(n_clips), batch_size, n_shards)
    assert index_SB.shape[1] % n_shards == 0
    assert index_SB.shape[1] < batch_size + n_shards
    clips = [row[row != PADDING].tolist() for row in index_SB]
    plain = [row[row != PADDING].tolist() for row in cut_batches(np.arange(n_clips), batch_size)]
    assert clips == plain


@given(st.lists(st.integers(0, 10**6), max_size=40), st.integers(1, 9))
def test_batches_hold_every_clip_once_in_order_and_are_filled_up_at_the_end(clips, batch_size):
    index_SB = cut_batches(np.array(clips, np.int64), batch_size)
    assert index_SB.dtype == np.int32
    assert index_SB.shape[1] == batch_size
    flat = index_SB.ravel().tolist()
    assert flat[: len(clips)] == clips
    assert flat[len(clips) :] == [PADDING] * (len(flat) - len(clips))
    assert len(flat) - len(clips) < batch_size


@given(st.integers(0, 2**32), st.integers(0, 1000))
def test_order_is_a_permutation_that_follows_from_seed_and_epoch(seed, epoch):
    clips = np.arange(100, 150)
    order = shuffle(clips, seed, epoch)
    assert sorted(order.tolist()) == clips.tolist()
    assert clips.tolist() == list(range(100, 150))
    np.random.seed(epoch)  # the global state has no say
    assert order.tolist() == shuffle(clips, seed, epoch).tolist()
    assert order.tolist() != shuffle(clips, seed + 1, epoch).tolist()
    assert order.tolist() != shuffle(clips, seed, epoch + 1).tolist()


@given(st.integers(0, 100), st.integers(0, 50), st.integers(1, 40), st.integers(1, 5))
def test_balanced_order_has_every_class_equally_often(seed, epoch, n_clips, n_classes):
    rng = np.random.default_rng(seed)
    label_B = rng.geometric(0.5, 60).clip(0, n_classes) - 1
    clips = rng.permutation(60)[:n_clips]
    order = order_epoch(clips, seed, epoch, label_B)
    assert len(order) == n_clips
    assert set(order) <= set(clips)
    counts = np.bincount(label_B[order], minlength=n_classes)[np.unique(label_B[clips])]
    assert counts.max() - counts.min() <= 1
    for label in np.unique(label_B[order]):  # none twice more than another of its class
        own = [int((order == clip).sum()) for clip in clips if label_B[clip] == label]
        assert max(own) - min(own) <= 1
    assert order.tolist() == order_epoch(clips, seed, epoch, label_B).tolist()


def test_balanced_order_changes_from_epoch_to_epoch_in_the_classes_with_an_extra_clip():
    label_B = np.array([0] * 20 + [1] * 3)
    orders = [order_epoch(np.arange(23), 0, epoch, label_B) for epoch in range(1, 20)]
    assert {int((label_B[order] == 1).sum()) for order in orders} == {11, 12}
    assert len({tuple(order) for order in orders}) == len(orders)
    assert order_epoch(np.arange(23), 0, 1).tolist() == shuffle(np.arange(23), 0, 1).tolist()


def test_buckets_hold_a_clip_as_often_as_it_was_drawn():
    order = np.array([3, 1, 3, 0, 2, 3, 1])
    batches = cut_buckets(order, np.array([5, 6, 7, 8]), 3, lambda index: cut_batches(index, 2))
    clips = np.concatenate([row_SB[row_SB != PADDING] for _, row_SB in batches])
    assert sorted(clips.tolist()) == sorted(order.tolist())


def test_batch_is_cut_to_the_longest_of_its_bucket():
    dataset, index_B = make_dataset(), jnp.asarray([3, 2], jnp.int32)
    whole, cut = (take(dataclasses.replace(dataset, n_frames=n), index_B) for n in (None, 2))
    assert cut.x_BTF.shape == (2, 2, 2)
    np.testing.assert_array_equal(cut.x_BTF, whole.x_BTF[:, :2])
    np.testing.assert_array_equal(cut.mask_BT, whole.mask_BT[:, :2])
    assert not whole.mask_BT[:, 2:].any()


def test_samples_are_kept_as_int16_and_taken_at_full_scale_one():
    x_BTF = np.array([[16384, -32768, 32767]], np.int16)[..., None]
    dataset = Dataset(
        jnp.asarray(x_BTF), jnp.asarray([3]), jnp.asarray([0], jnp.int32),
        Normaliser(jnp.zeros(1), jnp.ones(1)), jnp.ones((), jnp.int32),
    )  # fmt: skip
    batch = take(dataset, jnp.asarray([0, PADDING], jnp.int32))
    assert batch.x_BTF.dtype == jnp.float32
    np.testing.assert_array_equal(batch.x_BTF[:, :, 0], [[0.5, -1, 32767 / 32768], [0, 0, 0]])


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 8), st.integers(1, 6))
def test_buckets_make_as_many_batches_as_counted_and_hold_every_clip_once(
    n_clips, batch_size, n_buckets, multiple
):
    rng = np.random.default_rng(n_clips)
    frames_B, order = rng.integers(1, 50, n_clips + 3), rng.permutation(n_clips)
    batches = cut_buckets(
        order, frames_B, n_buckets, lambda index: cut_batches(index, batch_size, multiple)
    )
    assert len(batches) == count_steps(n_clips, batch_size, n_buckets)
    clips = [row_SB[row_SB != PADDING] for _, row_SB in batches]
    assert sorted(np.concatenate(clips).tolist()) == list(range(n_clips))
    assert all(frames_B[members].max() <= n for (n, _), members in zip(batches, clips, strict=True))
    assert len({n for n, _ in batches}) <= n_buckets


@pytest.mark.parametrize("n_clips", [1, 4, 7, 8])
def test_features_in_chunks_equal_features_at_once(n_clips):
    rng = np.random.default_rng(0)
    wave_BN = rng.uniform(-1, 1, (n_clips, 6)).astype(np.float32)
    shapes, told = [], []

    def front_end(wave_BN):
        shapes.append(wave_BN.shape)
        return jnp.asarray(wave_BN).reshape(-1, 3, 2) * 2

    x_BTF = compute_features(front_end, wave_BN, chunk=4, on_chunk=told.append)
    np.testing.assert_array_equal(x_BTF, 2 * wave_BN.reshape(-1, 3, 2))
    assert set(shapes) == {(4, 6)}  # one shape, so one compilation
    assert sum(told) == n_clips


def test_samples_reach_the_front_end_in_their_own_type():
    wave_BN = np.array([[0, 16384, -32768, 32767]], np.int16)
    types = []

    def front_end(wave_BN):
        types.append(wave_BN.dtype)
        return scale_samples(jnp.asarray(wave_BN))[:, None, :]

    x_BTF = compute_features(front_end, wave_BN, chunk=2)
    assert types == [np.int16]
    assert x_BTF.dtype == jnp.float32
    np.testing.assert_array_equal(x_BTF, [[[0, 0.5, -1, 32767 / 32768]]])


@pytest.mark.parametrize("kind", ["mfcc", "logmel", "mfcc_chroma", "wave"])
def test_features_of_int16_samples_are_those_of_floats_to_the_bit(kind):
    front_end = make_fast_front_end(FeaturesConfig(kind=kind), 16000)
    wave_BN = np.random.default_rng(0).integers(-32768, 32768, (3, 5000)).astype(np.int16)
    found = compute_features(front_end, wave_BN, chunk=2)
    expected = compute_features(front_end, wave_BN.astype(np.float32) / 32768, chunk=2)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
