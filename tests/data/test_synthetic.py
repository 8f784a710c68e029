"""The synthetic corpus: RAVDESS' names, repeatable clips, effects measurable and learnable."""

import pickle
import re
from collections import Counter

import librosa
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ser_jax.data.sources.synthetic import iterate_spoken_clips
from ser_jax.errors import UserError

RATE_HZ = 16000
NAME = re.compile(r"03-01-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])\.wav")


def parse(name: str) -> tuple[int, ...]:
    """Emotion, intensity, statement, repetition, actor."""
    found = NAME.fullmatch(name)
    assert found, name
    return tuple(int(group) for group in found.groups())


def rms_db(clip: np.ndarray) -> float:
    return 10 * np.log10(np.mean((clip / 32768.0) ** 2))


def median_pitch_hz(clip: np.ndarray) -> float:
    pitch_hz = librosa.yin(clip / 32768.0, fmin=60, fmax=600, sr=RATE_HZ)
    loud = librosa.feature.rms(y=clip / 32768.0)[0]
    return float(np.median(pitch_hz[loud > np.median(loud)]))


@pytest.fixture(scope="module")
def corpus() -> list[tuple[str, np.ndarray]]:
    """Sixteen clips of each of the 24 actors."""
    return [(name, make()) for name, make in iterate_spoken_clips(24, 16, RATE_HZ)]


def test_full_corpus_has_the_names_of_ravdess():
    names = [name for name, _ in iterate_spoken_clips(24, 60, RATE_HZ)]
    fields = [parse(name) for name in names]
    assert names == sorted(set(names))
    assert len(names) == 1440
    assert set(Counter(f[4] for f in fields).values()) == {60}
    by_emotion = Counter(f[0] for f in fields)
    assert by_emotion == {1: 96} | {emotion: 192 for emotion in range(2, 9)}
    assert {f[1] for f in fields if f[0] == 1} == {1}


def test_full_corpus_has_the_very_names_on_disk(ravdess_root):
    real = {path.stem for path in ravdess_root.rglob("03-01-*.flac")}
    real |= {path.stem for path in ravdess_root.rglob("03-01-*.wav")}
    assert {name[:-4] for name, _ in iterate_spoken_clips(24, 60, RATE_HZ)} == real


@pytest.mark.parametrize(("n_actors", "n_clips"), [(1, 8), (4, 8), (24, 12), (3, 29), (2, 59)])
def test_small_corpora_represent_emotions_evenly(n_actors, n_clips):
    names = [name for name, _ in iterate_spoken_clips(n_actors, n_clips, RATE_HZ)]
    fields = [parse(name) for name in names]
    assert len(set(names)) == n_actors * n_clips
    for actor in range(1, n_actors + 1):
        counts = Counter(f[0] for f in fields if f[4] == actor)
        others = [counts[emotion] for emotion in range(2, 9)]
        assert max(others) - min(others) <= 1
        # Neutral has four clips an actor, so it keeps up only that far.
        assert min(4, min(others)) <= counts[1] <= min(4, max(others))


def test_few_clips_cover_all_emotions_over_the_actors():
    fields = [parse(name) for name, _ in iterate_spoken_clips(8, 3, RATE_HZ)]
    assert Counter(f[0] for f in fields) == {emotion: 3 for emotion in range(1, 9)}


def test_small_corpora_balance_intensity_statement_and_gender():
    fields = [parse(name) for name, _ in iterate_spoken_clips(24, 8, RATE_HZ)]
    for emotion in range(2, 9):
        of_emotion = [f for f in fields if f[0] == emotion]
        for field in (1, 2):
            assert abs(sum(f[field] == 1 for f in of_emotion) - 12) <= 2
        men, women = ([f[:4] for f in of_emotion if f[4] % 2 == odd] for odd in (1, 0))
        assert men == women


@pytest.mark.parametrize(("n_actors", "n_clips"), [(0, 1), (25, 1), (1, 0), (1, 61)])
def test_sizes_that_ravdess_does_not_have_are_refused(n_actors, n_clips):
    with pytest.raises(UserError, match=r"data\.synthetic_(actors|clips)="):
        iterate_spoken_clips(n_actors, n_clips, RATE_HZ)


@pytest.mark.parametrize("rate_hz", [4000, 8000, 16000, 22050, 48000])
def test_clips_are_int16_of_two_to_three_and_a_half_seconds_at_any_rate(rate_hz):
    for _, make in iterate_spoken_clips(2, 8, rate_hz):
        clip = make()
        assert clip.dtype == np.int16
        assert clip.ndim == 1
        assert 2.0 <= len(clip) / rate_hz <= 3.5
        assert np.abs(clip).max() > 100


def test_same_name_gives_the_same_samples_in_any_corpus():
    small, large = (
        dict(iterate_spoken_clips(2, 8, RATE_HZ)),
        dict(iterate_spoken_clips(24, 60, RATE_HZ)),
    )
    assert set(small) < set(large)
    for name, make in small.items():
        clip = make()
        np.testing.assert_array_equal(clip, make())
        np.testing.assert_array_equal(clip, pickle.loads(pickle.dumps(large[name]))())


def test_no_two_clips_are_alike(corpus):
    assert len({clip.tobytes() for _, clip in corpus}) == len(corpus)


def test_women_speak_higher_than_men(corpus):
    neutral = [(parse(name)[4], clip) for name, clip in corpus if parse(name)[0] == 1]
    women = [median_pitch_hz(clip) for actor, clip in neutral if actor % 2 == 0]
    men = [median_pitch_hz(clip) for actor, clip in neutral if actor % 2 == 1]
    assert 85 < np.median(men) < 150
    assert 165 < np.median(women) < 255


def test_anger_is_louder_and_sadness_slower_than_neutral(corpus):
    level_db, length = {}, {}
    for emotion in range(1, 9):
        clips = [clip for name, clip in corpus if parse(name)[0] == emotion]
        level_db[emotion] = np.median([rms_db(clip) for clip in clips])
        length[emotion] = np.median([len(clip) for clip in clips])
    assert level_db[5] > level_db[1] + 4
    assert level_db[4] < level_db[1] - 3
    assert length[4] > 1.1 * length[1]
    assert length[6] < 0.95 * length[1]


def test_strong_intensity_is_louder(corpus):
    angry = [(parse(name)[1], rms_db(clip)) for name, clip in corpus if parse(name)[0] == 5]
    normal_db, strong_db = (np.median([db for i, db in angry if i == level]) for level in (1, 2))
    assert strong_db > normal_db + 1


def test_statements_differ_in_their_first_vowel(corpus):
    def second_formant_db(clip: np.ndarray) -> float:
        # "Kids" has it near 1.9 kHz, "dogs" near 0.8 kHz.
        power = np.abs(np.fft.rfft(clip[int(0.3 * RATE_HZ) : int(0.4 * RATE_HZ)] / 32768.0)) ** 2
        hz = np.fft.rfftfreq(int(0.1 * RATE_HZ), 1 / RATE_HZ)
        high, low = (power[(hz > a) & (hz < b)].sum() for a, b in ((1700, 2400), (600, 1100)))
        return 10 * np.log10(high / low)

    kids_db, dogs_db = (
        np.median([second_formant_db(clip) for name, clip in corpus if parse(name)[2] == k])
        for k in (1, 2)
    )
    assert kids_db > dogs_db + 6


def test_a_linear_classifier_learns_it_on_unseen_actors_but_not_perfectly(corpus):
    emotion_B = np.array([parse(name)[0] for name, _ in corpus])
    actor_B = np.array([parse(name)[4] for name, _ in corpus])
    edges = np.unique(np.geomspace(2, 256, 21).astype(int))[:-1]  # of bands, in bins
    features = []
    for _, clip in corpus:
        frames_TN = clip[: len(clip) // 512 * 512].reshape(-1, 512) * np.hanning(512)
        power_TF = np.add.reduceat(np.abs(np.fft.rfft(frames_TN)) ** 2, edges, axis=1)
        level_TF = np.log(power_TF + 1)
        features.append(np.concatenate([level_TF.mean(0), level_TF.std(0)]))
    x_BF = np.stack(features)
    test_B = actor_B > 16
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    classifier.fit(x_BF[~test_B], emotion_B[~test_B])
    accuracy = classifier.score(x_BF[test_B], emotion_B[test_B])
    assert 0.45 < accuracy < 0.9
