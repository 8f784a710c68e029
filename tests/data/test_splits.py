"""Splits: the published actors, no clip lost or shared, and a check that notices when one is."""

import dataclasses
import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax.config import DataConfig
from ser_jax.data.splits import check_split, count_folds, draw_split, make_split
from ser_jax.data.store import load_corpus
from ser_jax.errors import UserError
from tests.tiny import make_folder

# RAVDESS: per actor 4 neutral clips and 8 of each other emotion, sorted by name: emotion first.
EMOTION_B = np.repeat(np.arange(8), [96] + [192] * 7)
ACTOR_B = np.tile(np.arange(1, 25), 60)
FOLDS = [
    (p, k) for p in ("emobox6", "luna5", "luna5_val2", "loso") for k in range(1, count_folds(p) + 1)
]


def make(protocol: str, fold: int = 1, seed: int = 0):
    return make_split(protocol, fold, seed, EMOTION_B, ACTOR_B)


def get_actors(index: np.ndarray) -> set[int]:
    return set(ACTOR_B[index].tolist())


@pytest.mark.parametrize(
    ("protocol", "seed", "digest"),
    [
        ("study", 0, "48433d17916ae04c"),
        ("study", 7, "2ddbc9e9d0630999"),
        ("emobox6", 0, "5cae11d2695bec73"),
        ("luna5", 0, "eaa519c3afd763bc"),
        ("loso", 0, "e79fe49138f0024d"),
        ("speakers", 0, "30820bcbf0af156e"),
        ("speakers", 7, "137422cc11ab59c8"),
        ("speakers5", 0, "0f03b26192552efb"),
        ("speakers5", 7, "1d45f08714aebedd"),
    ],
)
def test_every_split_of_ravdess_is_the_one_of_published_results(protocol, seed, digest):
    gender_B = np.where(ACTOR_B % 2 == 1, "male", "female")
    splits = (
        make_split(protocol, fold, seed, EMOTION_B, ACTOR_B, stratum_B=gender_B)
        for fold in range(1, count_folds(protocol) + 1)
    )
    checksums = "".join(split.checksum for split in splits)
    assert hashlib.sha256(checksums.encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize(
    ("n_speakers", "digests"),
    [
        (5, ("01c227e934c5b866", "57a7ce4d67cf4f17", "eff50ccb330dfe87")),
        (10, ("a3933429f945adbf", "a0740ed2dec7bfc9", "d77597b14f4d367b")),
        (40, ("2564dbb56cf97bcb", "43b0903eb1df58fe", "3e2cf6a57b8a5b32")),
    ],
)
def test_splits_of_other_corpora_stay_the_same(n_speakers, digests):
    counts_SC = np.random.default_rng(n_speakers).integers(1, 12, (n_speakers, 5))
    actor_B = np.repeat(np.arange(1, n_speakers + 1), counts_SC.sum(1))
    emotion_B = np.concatenate([np.repeat(np.arange(5), row) for row in counts_SC])
    gender_B = np.where(actor_B % 3 == 0, "male", "female")
    for protocol, digest in zip(("speakers", "speakers5", "loso"), digests, strict=True):
        splits = (
            make_split(
                protocol, fold, 1, emotion_B, actor_B, n_speakers=n_speakers, stratum_B=gender_B
            )
            for fold in range(1, count_folds(protocol, n_speakers) + 1)
        )
        checksums = "".join(split.checksum for split in splits)
        assert hashlib.sha256(checksums.encode()).hexdigest()[:16] == digest


def test_the_study_split_has_the_study_s_sizes():
    split = make("study")
    assert (len(split.train), len(split.val), len(split.test)) == (1008, 216, 216)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_study_split_is_stratified_by_emotion_and_loses_no_clip(seed):
    split = make("study", seed=seed)
    parts = (split.train, split.val, split.test)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1440))
    whole_C = np.bincount(EMOTION_B) / 1440
    for index in parts:
        assert np.abs(np.bincount(EMOTION_B[index]) - whole_C * len(index)).max() <= 1


def test_the_study_split_follows_its_seed():
    first, same, other = make("study", seed=3), make("study", seed=3), make("study", seed=4)
    np.testing.assert_array_equal(first.test, same.test)
    assert not np.array_equal(first.test, other.test)


@pytest.mark.parametrize(("protocol", "fold"), FOLDS)
def test_folds_share_no_actor_lose_no_clip_and_ignore_the_seed(protocol, fold):
    split, other = make(protocol, fold, seed=0), make(protocol, fold, seed=99)
    parts = (split.train, split.val, split.test)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1440))
    train, val, test = map(get_actors, parts)
    assert not train & val
    assert not train & test
    assert not val & test
    np.testing.assert_array_equal(split.train, other.train)
    np.testing.assert_array_equal(split.val, other.val)


@pytest.mark.parametrize("protocol", ["emobox6", "luna5", "luna5_val2", "loso"])
def test_each_actor_is_tested_exactly_once_over_the_folds(protocol):
    folds = range(1, count_folds(protocol) + 1)
    tested = [actor for fold in folds for actor in get_actors(make(protocol, fold).test)]
    assert sorted(tested) == list(range(1, 25))


@pytest.mark.parametrize("protocol", ["emobox6", "luna5"])
def test_a_fold_validates_on_the_next_fold_s_test_actors(protocol):
    n_folds = count_folds(protocol)
    for fold in range(1, n_folds + 1):
        following = make(protocol, fold % n_folds + 1)
        np.testing.assert_array_equal(make(protocol, fold).val, following.test)


@pytest.mark.parametrize(
    ("protocol", "fold", "val", "test"),
    [
        ("emobox6", 1, {4, 10, 12, 14}, {1, 11, 20, 21}),
        ("emobox6", 6, {1, 11, 20, 21}, {6, 13, 17, 22}),
        ("luna5", 1, {3, 6, 7, 13, 18}, {2, 5, 14, 15, 16}),
        ("luna5", 5, {2, 5, 14, 15, 16}, {1, 4, 9, 22}),
        ("luna5_val2", 1, {3, 6}, {2, 5, 14, 15, 16}),
        ("luna5_val2", 4, {1, 14}, {8, 17, 21, 23, 24}),
        ("luna5_val2", 5, {2, 5}, {1, 4, 9, 22}),
        ("loso", 1, {3, 5, 2, 4}, {1}),
        ("loso", 22, {23, 1, 24, 2}, {22}),
        ("loso", 24, {1, 3, 2, 4}, {24}),
    ],
)
def test_folds_have_the_published_actors(protocol, fold, val, test):
    split = make(protocol, fold)
    assert get_actors(split.val) == val
    assert get_actors(split.test) == test


@pytest.mark.parametrize(
    ("protocol", "fold"), [("study", 2), ("emobox6", 7), ("loso", 25), ("luna5", 0)]
)
def test_a_fold_out_of_range_is_an_error_naming_the_key(protocol, fold):
    with pytest.raises(UserError, match=rf"data.fold={fold}: data.protocol={protocol}"):
        make(protocol, fold)


def test_an_unknown_protocol_is_an_error_naming_the_known():
    with pytest.raises(
        UserError, match=r"data.protocol=kfold.*study, emobox6, luna5, luna5_val2, loso, speakers"
    ):
        make("kfold")


def test_a_fold_without_its_actors_is_an_error_naming_protocol_and_fold():
    few = ACTOR_B <= 4
    with pytest.raises(UserError, match=r"data.protocol=emobox6, data.fold=3: no clips for test"):
        make_split("emobox6", 3, 0, EMOTION_B[few], ACTOR_B[few])
    with pytest.raises(UserError, match="no clips for training"):
        make_split("loso", 1, 0, EMOTION_B[few], np.minimum(ACTOR_B[few], 2))


def test_too_few_clips_for_stratification_is_an_error_naming_the_protocol():
    with pytest.raises(UserError, match=r"data.protocol=study: 16 clips are too few"):
        make_split("study", 1, 0, np.tile(np.arange(8), 2), np.ones(16, int))


def make_of_speakers(protocol: str, n_women: int, n_men: int, fold: int = 1, seed: int = 0):
    """A split of 8 clips per speaker, and the speakers of its parts."""
    n = n_women + n_men
    actor_B = np.repeat(np.arange(1, n + 1), 8)
    gender_B = np.where(actor_B <= n_women, "female", "male")
    split = make_split(
        protocol, fold, seed, np.tile(np.arange(8), n), actor_B, n_speakers=n, stratum_B=gender_B
    )
    parts = [set(actor_B[index].tolist()) for index in (split.train, split.val, split.test)]
    assert len(split.train) + len(split.val) + len(split.test) == len(actor_B)
    return split, parts


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 40), st.integers(3, 40), st.integers(0, 2**32 - 1))
def test_speakers_are_split_70_15_15_with_each_gender_s_share(n_women, n_men, seed):
    _, (train, val, test) = make_of_speakers("speakers", n_women, n_men, seed=seed)
    n = n_women + n_men
    assert not train & val
    assert not train & test
    assert not val & test
    for part in (val, test):
        women = sum(speaker <= n_women for speaker in part)
        for count, whole in ((len(part), n), (women, n_women), (len(part) - women, n_men)):
            assert abs(count - 0.15 * whole) <= 1.5
            assert count > 0 or 0 < whole < 8 or whole == 0


def draw_uneven(rng, n_speakers: int, n_classes: int):
    """Speaker, class and gender of each clip: uneven counts, some speakers without some classes."""
    counts_SC = rng.integers(0, 9, (n_speakers, n_classes))
    counts_SC[np.arange(n_speakers), np.arange(n_speakers) % n_classes] += 1
    speaker_B = np.repeat(np.arange(1, n_speakers + 1), counts_SC.sum(1))
    emotion_B = np.concatenate([np.repeat(np.arange(n_classes), row) for row in counts_SC])
    return speaker_B, emotion_B, np.where(speaker_B % 2 == 0, "female", "male")


def compute_costs(part_XS, shares, speaker_B, emotion_B, gender_B) -> np.ndarray:
    """What `draw_parts` says that it minimises, written out, for several assignments."""
    total_X = np.zeros(len(part_XS))
    for part, share in enumerate(shares):
        for values_B in (np.zeros(len(speaker_B)), emotion_B, gender_B):
            costs_GX = []
            for value in np.unique(values_B):
                count_S = np.bincount(speaker_B[values_B == value] - 1, minlength=part_XS.shape[1])
                count_X = (part_XS == part) @ count_S
                off_X = count_X / (share * count_S.sum()) - 1
                costs_GX.append(off_X**2 + 4 * (count_X == 0))
            total_X += np.mean(costs_GX, axis=0)
    return total_X


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 7), st.integers(2, 4))
def test_few_speakers_are_split_about_as_evenly_as_possible(seed, n_speakers, n_classes):
    clips = draw_uneven(np.random.default_rng(seed), n_speakers, n_classes)
    shares = (0.15, 0.15, 0.7)
    every = itertools.product(range(3), repeat=n_speakers)
    part_XS = np.array([places for places in every if set(places) == {0, 1, 2}])
    best = compute_costs(part_XS, shares, *clips).min()
    split = make_split(
        "speakers", 1, seed, clips[1], clips[0], n_speakers=n_speakers, stratum_B=clips[2]
    )
    part_S = np.zeros(n_speakers, int)
    for part, index in enumerate((split.test, split.val, split.train)):
        part_S[clips[0][index] - 1] = part
    assert best - 1e-6 <= compute_costs(part_S[None], shares, *clips)[0] <= best + 0.5 + 1e-6


def test_no_class_or_gender_is_missing_where_a_head_count_would_lose_one():
    # Ten speakers like EmoDB's: a class that two of them hardly have, and uneven clips.
    rng = np.random.default_rng(5)
    actor_B = np.repeat(np.arange(1, 11), rng.integers(35, 70, 10))
    emotion_B = rng.choice(7, len(actor_B), p=[0.24, 0.15, 0.08, 0.13, 0.13, 0.12, 0.15])
    emotion_B[(actor_B < 4) & (emotion_B == 2)] = 0
    gender_B = np.where(actor_B <= 5, "male", "female")
    for seed in range(10):
        split = make_split(
            "speakers", 1, seed, emotion_B, actor_B, n_speakers=10, stratum_B=gender_B
        )
        for index in (split.val, split.test):
            assert 0.09 < len(index) / len(actor_B) < 0.27
            assert set(emotion_B[index].tolist()) == set(range(7))
            assert set(gender_B[index].tolist()) == {"female", "male"}


def test_five_folds_of_many_speakers_have_their_shares_of_all_classes_and_genders():
    rng = np.random.default_rng(0)
    actor_B = np.minimum(rng.pareto(1.2, 20000) * 20, 299).astype(int) + 1
    actor_B = np.unique(actor_B, return_inverse=True)[1] + 1
    emotion_B = rng.integers(0, 8, len(actor_B))
    gender_B = np.where(actor_B % 3 == 0, "male", "female")
    for fold in range(1, 6):
        index = make_split(
            "speakers5", fold, 1, emotion_B, actor_B, n_speakers=actor_B.max(), stratum_B=gender_B
        ).test
        for values_B in (emotion_B, gender_B):
            for value in np.unique(values_B):
                assert (
                    abs((values_B[index] == value).sum() / (values_B == value).sum() - 0.2) < 0.03
                )


def test_a_given_split_is_taken_as_it_is_and_its_parts_may_not_be_empty():
    given_B = np.array(["train", "test", "val", "train"])
    numbers_B = np.array([0, 1, 0, 1])
    split = make_split("given", 1, 0, numbers_B, numbers_B + 1, n_speakers=2, given_B=given_B)
    assert (split.train.tolist(), split.val.tolist(), split.test.tolist()) == ([0, 3], [2], [1])
    given_B[2] = "train"
    with pytest.raises(UserError, match="no clips for validation; name rows of validation in"):
        make_split("given", 1, 0, numbers_B, numbers_B + 1, n_speakers=2, given_B=given_B)
    with pytest.raises(UserError, match=r"data.protocol=given: .* manifest with a column split"):
        make_split("given", 1, 0, numbers_B, numbers_B + 1, n_speakers=2)


def test_speakers_follow_the_seed():
    tests = [make_of_speakers("speakers", 12, 12, seed=seed)[1][2] for seed in range(6)]
    assert make_of_speakers("speakers", 12, 12, seed=3)[1][2] == tests[3]
    assert len({frozenset(test) for test in tests}) > 1


@pytest.mark.parametrize(("protocol", "n_women", "n_men"), [
    ("speakers5", 5, 5), ("speakers5", 0, 7), ("loso", 5, 5), ("loso", 0, 4),
])  # fmt: skip
def test_folds_of_any_speakers_test_each_once(protocol, n_women, n_men):
    n = n_women + n_men
    folds = range(1, count_folds(protocol, n) + 1)
    parts = [make_of_speakers(protocol, n_women, n_men, fold)[1] for fold in folds]
    assert sorted(speaker for _, _, test in parts for speaker in test) == list(range(1, n + 1))
    assert all(not val & test for _, val, test in parts)
    if protocol == "speakers5":
        tests = [test for _, _, test in parts]
        assert [val for _, val, _ in parts] == [*tests[1:], tests[0]]


def test_loso_by_gender_is_the_published_one_on_ravdess_actors():
    gender_B = np.where(ACTOR_B % 2 == 1, "male", "female")
    for fold in (1, 21, 24):
        general = make_split("loso", fold, 0, EMOTION_B, ACTOR_B, n_speakers=24, stratum_B=gender_B)
        np.testing.assert_array_equal(general.val, make("loso", fold).val)
        np.testing.assert_array_equal(general.test, make("loso", fold).test)


@pytest.mark.parametrize(("protocol", "n"), [("speakers", 2), ("loso", 2), ("speakers5", 4)])
def test_too_few_speakers_are_an_error_naming_the_remedy(protocol, n):
    with pytest.raises(UserError, match=rf"data.protocol={protocol}: needs at least .* are {n};"):
        make_of_speakers(protocol, 0, n)


def break_two_parts(split):
    return dataclasses.replace(split, val=np.append(split.val, split.train[0]))


def break_repeat(split):
    return dataclasses.replace(split, train=np.append(split.train, split.train[5]))


def break_lost(split):
    return dataclasses.replace(split, train=split.train[1:])


def break_empty(split):
    return dataclasses.replace(split, test=split.test[:0])


def break_range(split):
    return dataclasses.replace(split, test=np.append(split.test, 1440))


def break_actor(split):
    return dataclasses.replace(
        split, train=np.append(split.train, split.test[0]), test=split.test[1:]
    )


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (break_two_parts, "twice"),
        (break_repeat, "twice"),
        (break_lost, "in no part"),
        (break_empty, "no clips for test"),
        (break_range, "not among"),
        (break_actor, r"actors \[\d+\] are in two parts"),
    ],
)
def test_the_check_notices_a_damaged_split(damage, said):
    split = make("emobox6", 2)
    check_split(split, ACTOR_B)
    with pytest.raises(UserError, match=said):
        check_split(damage(split), ACTOR_B)


def test_the_study_split_may_share_actors():
    split = make("study")
    assert get_actors(split.train) & get_actors(split.test)
    check_split(split, ACTOR_B)


def test_validation_clips_may_join_the_training_clips_and_never_the_test_clips():
    corpus = load_corpus(
        DataConfig(corpus="synthetic", synthetic_clips=2, store_dir=make_folder("store"))
    )
    data = DataConfig(corpus="synthetic", protocol="luna5", fold=2)
    apart = draw_split(data, 0, corpus)
    joined = draw_split(dataclasses.replace(data, train_on_validation=True), 0, corpus)
    assert joined.train.tolist() == sorted({*apart.train.tolist(), *apart.val.tolist()})
    assert joined.val.tolist() == apart.val.tolist()
    assert joined.test.tolist() == apart.test.tolist()
