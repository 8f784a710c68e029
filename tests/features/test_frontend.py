"""Features against librosa, on real recordings and on made-up signals; normalisation."""

from typing import Any

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax.augment.epochs import AugmentedEpochs
from ser_jax.augment.host import Pending
from ser_jax.augment.waveform import make_take_augmented
from ser_jax.config import AugmentConfig, DataConfig, FeaturesConfig
from ser_jax.errors import UserError
from ser_jax.features import frontend
from ser_jax.features.corpus_features import fit_to_training, load_inputs, make_dataset
from ser_jax.features.normaliser import fit_normaliser, normalise
from tests.tolerance import assert_near, tolerance

RATE_HZ = 16000
STUDY = {"rate_hz": RATE_HZ, "n_fft": 2048, "hop_length": 512, "n_mels": 128, "n_mfcc": 40}
# n_fft, hop_length, n_mels, n_mfcc, fmin_hz, fmax_hz: hops that divide the window and that do not.
SETTINGS = [
    (2048, 512, 128, 40, 0.0, None),
    (1024, 256, 64, 64, 0.0, None),
    (2048, 300, 80, 13, 50.0, 7600.0),
    (512, 160, 40, 20, 20.0, 4000.0),
    (400, 160, 30, 12, 0.0, None),
    (510, 701, 24, 24, 300.0, 3400.0),
]


@pytest.fixture(scope="module")
def clips_BN(ravdess_root) -> np.ndarray:
    """One real clip of each of the 24 actors, cut or zero-padded to one odd length."""
    waves = []
    for i, folder in enumerate(sorted(ravdess_root.glob("*/Actor_*"))):
        files = sorted(folder.iterdir())
        wave, rate_hz = soundfile.read(files[(7 * i) % len(files)], always_2d=True)
        wave = librosa.resample(wave.mean(axis=1), orig_sr=rate_hz, target_sr=RATE_HZ)
        waves.append(librosa.util.fix_length(wave, size=60001).astype(np.float32))
    assert len(waves) == 24
    return np.stack(waves)


def make_signals(n_samples: int) -> np.ndarray:
    """A chirp, loud noise, quiet noise after silence, an impulse: [4, N]."""
    rng = np.random.default_rng(0)
    time_s = np.arange(n_samples) / RATE_HZ
    chirp = 0.5 * np.sin(2 * np.pi * (100 + 900 * time_s) * time_s)
    noise = 0.3 * rng.standard_normal(n_samples)
    late = 1e-3 * rng.standard_normal(n_samples) * (np.arange(n_samples) > n_samples // 2)
    impulse = 1.0 * (np.arange(n_samples) == n_samples // 3)
    return np.stack([chirp, noise, late, impulse]).astype(np.float32)


def reference_power(wave, n_fft, hop, n_mels, fmin_hz=0.0, fmax_hz=None) -> np.ndarray:
    return librosa.feature.melspectrogram(
        y=wave, sr=RATE_HZ, n_fft=n_fft, hop_length=hop, n_mels=n_mels, fmin=fmin_hz, fmax=fmax_hz
    )


def find_differences(wave_BN, n_fft, hop, n_mels, n_mfcc, fmin_hz, fmax_hz) -> np.ndarray:
    """Greatest differences to librosa, clip by clip: log-mel, MFCC, and log-mel without floor."""
    keys = {"rate_hz": RATE_HZ, "n_fft": n_fft, "hop_length": hop, "n_mels": n_mels,
            "fmin_hz": fmin_hz, "fmax_hz": fmax_hz}  # fmt: skip
    db_BTF, mfcc_BTF, bare_BTF = jax.jit(
        lambda wave_BN: (
            frontend.compute_log_mel(wave_BN, **keys),
            frontend.compute_mfcc(wave_BN, n_mfcc=n_mfcc, **keys),
            frontend.compute_log_mel(wave_BN, **keys, top_db=None),
        )
    )(wave_BN)
    assert db_BTF.dtype == mfcc_BTF.dtype == bare_BTF.dtype == np.float32
    n_frames = frontend.count_frames(wave_BN.shape[1], hop)
    assert db_BTF.shape == (len(wave_BN), n_frames, n_mels)
    worst = np.zeros(3)
    for i, wave in enumerate(wave_BN):
        power_FT = reference_power(wave, n_fft, hop, n_mels, fmin_hz, fmax_hz)
        db_FT = librosa.power_to_db(power_FT, top_db=80.0)
        mfcc_FT = librosa.feature.mfcc(S=db_FT, n_mfcc=n_mfcc)
        loud_FT = power_FT > 1e-6 * power_FT.max()
        bare_FT = np.abs(bare_BTF[i].T - librosa.power_to_db(power_FT, top_db=None))
        found = (
            np.abs(db_BTF[i].T - db_FT).max(),
            np.abs(mfcc_BTF[i].T - mfcc_FT).max(),
            bare_FT.max(where=loud_FT, initial=0.0),
        )
        worst = np.maximum(worst, found)
    return worst


@pytest.mark.parametrize("setting", SETTINGS)
def test_real_clips_equal_librosas(clips_BN, setting):
    few_BN = clips_BN if setting == SETTINGS[0] else clips_BN[::6]
    worst = find_differences(few_BN, *setting)
    assert (worst < tolerance(1e-2, "fft")).all(), worst


@pytest.mark.device
@pytest.mark.parametrize("n_samples", [16001, 8192])
@pytest.mark.parametrize("setting", SETTINGS)
def test_synthetic_signals_equal_librosas(setting, n_samples):
    worst = find_differences(make_signals(n_samples), *setting)
    assert (worst < tolerance(1e-2, "fft")).all(), worst


@pytest.mark.filterwarnings("ignore:n_fft=2048 is too large")
@pytest.mark.parametrize("n_samples", [1, 2, 511, 1500])
def test_a_clip_shorter_than_one_window_equals_librosas(n_samples):
    wave_BN = np.random.default_rng(1).standard_normal((2, n_samples)).astype(np.float32)
    assert (find_differences(wave_BN, *SETTINGS[0]) < tolerance(1e-2, "fft")).all()


@pytest.mark.parametrize("setting", SETTINGS)
def test_mel_filter_equals_librosas(setting):
    n_fft, _, n_mels, _, fmin_hz, fmax_hz = setting
    expected_FK = librosa.filters.mel(
        sr=RATE_HZ, n_fft=n_fft, n_mels=n_mels, fmin=fmin_hz, fmax=fmax_hz
    )
    actual_KF = frontend.make_mel_filter(RATE_HZ, n_fft, n_mels, fmin_hz, fmax_hz)
    np.testing.assert_allclose(actual_KF.T, expected_FK, atol=1e-6 * expected_FK.max())


def test_silence_is_minus_100_db():
    log_mel = frontend.make_front_end(FeaturesConfig(kind="logmel"), RATE_HZ)(jnp.zeros(5000))
    assert_near(log_mel, -100.0, rtol=1e-6, why="fft")


@pytest.mark.device
def test_a_batch_equals_its_clips_one_by_one():
    wave_BN = make_signals(9001)  # of very different loudness: a floor for all of them would show
    front_end = frontend.make_front_end(FeaturesConfig(hop_length=512), RATE_HZ)
    together = front_end(wave_BN)
    for wave_N, row in zip(wave_BN, together, strict=True):
        assert_near(row, front_end(wave_N), rtol=1e-5, atol=1e-3, why="fft")


@pytest.mark.device
@pytest.mark.parametrize("kind", ["mfcc", "logmel", "mfcc_chroma"])
def test_leading_axes_jit_and_vmap_change_nothing(kind):
    config = FeaturesConfig(kind=kind, hop_length=512, n_mels=64, n_mfcc=20)
    front_end = frontend.make_front_end(config, RATE_HZ)
    wave_BN = make_signals(9001)
    expected = front_end(wave_BN)
    shape = (4, frontend.count_frames(9001, 512), frontend.count_features(config))
    assert shape[-1] == {"mfcc": 20, "logmel": 64, "mfcc_chroma": 32}[kind]
    assert expected.shape == shape
    for actual in (
        jax.jit(front_end)(wave_BN),
        jax.vmap(front_end)(wave_BN),
        front_end(wave_BN.reshape(2, 1, 2, -1)).reshape(shape),
    ):
        assert_near(actual, expected, rtol=1e-5, atol=1e-3, why="fft")


@settings(max_examples=8, deadline=None, derandomize=True)
@given(n_samples=st.integers(1, 4000), extra=st.integers(1, 3000), hop=st.sampled_from([160, 512]))
def test_zeros_at_the_end_do_not_change_the_frames_before_them(n_samples, extra, hop):
    # The window hangs over the end of a clip into zeros anyway: more zeros change no frame. (With
    # a floor they could, if the loudest frame of all were one past the end.)
    wave = np.random.default_rng(n_samples).standard_normal(n_samples).astype(np.float32)
    keys = {"rate_hz": RATE_HZ, "n_fft": 1024, "hop_length": hop, "n_mels": 40, "top_db": None}
    alone = frontend.compute_log_mel(wave, **keys)
    padded = frontend.compute_log_mel(np.pad(wave, (0, extra)), **keys)
    assert_near(padded[: len(alone)], alone, atol=1e-3, why="fft")


def test_the_floor_lies_top_db_below_each_clips_loudest_bin():
    varied_BN = make_signals(9001)[[0, 2, 3]]
    log_mel = frontend.compute_log_mel(
        varied_BN, rate_hz=RATE_HZ, n_fft=1024, hop_length=512, n_mels=40, top_db=30.0
    )
    spread_B = log_mel.max(axis=(1, 2)) - log_mel.min(axis=(1, 2))
    assert_near(spread_B, 30.0, atol=1e-4, why="fft")


@pytest.mark.device
def test_matrix_products_ask_for_highest_precision():
    front_end = frontend.make_front_end(FeaturesConfig(), RATE_HZ)
    program = str(jax.make_jaxpr(front_end)(jnp.zeros((2, 8000))))
    products = program.count("dot_general[")
    assert products == 2
    assert program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == products


@pytest.mark.parametrize(
    ("wave", "changes", "message"),
    [
        (np.zeros((2, 0), np.float32), {}, "0 samples"),
        (np.zeros(4000, np.float32), {"n_fft": 1023}, "n_fft=1023"),
        (np.zeros(4000, np.float32), {"n_mfcc": 129}, "n_mfcc=129"),
    ],
)
def test_bad_input_is_named(wave, changes, message):
    with pytest.raises(UserError, match=message):
        frontend.compute_mfcc(wave, **(STUDY | changes))


def test_integer_samples_are_refused():
    with pytest.raises(TypeError, match="int16"):
        frontend.compute_mfcc(np.zeros(4000, np.int16), **STUDY)


def make_features() -> tuple[np.ndarray, np.ndarray]:
    """Frames of very unequal features far from zero, and wild ones where the mask is False."""
    rng = np.random.default_rng(0)
    x_BTF = rng.standard_normal((5, 7, 3)) * [1, 10, 0.1] + [-40, 1000, 3]
    mask_BT = np.arange(7)[None, :] < np.array([7, 3, 1, 5, 2])[:, None]
    return np.where(mask_BT[:, :, None], x_BTF, 1e6).astype(np.float32), mask_BT


def test_normalised_features_have_mean_0_and_deviation_1_over_real_frames():
    x_BTF, mask_BT = make_features()
    normaliser = fit_normaliser(x_BTF, mask_BT)
    real_RF = np.asarray(normalise(jnp.asarray(x_BTF), normaliser))[mask_BT]
    assert_near(real_RF.mean(axis=0), 0, atol=2e-4)
    assert_near(real_RF.std(axis=0), 1, atol=1e-4)


def test_global_normalisation_shares_one_mean_and_deviation():
    x_BTF, mask_BT = make_features()
    normaliser = fit_normaliser(x_BTF, mask_BT, "global")
    real = x_BTF[mask_BT].astype(np.float64)
    assert_near(normaliser.mean_F, np.full(3, real.mean()), rtol=1e-6)
    assert_near(normaliser.std_F, np.full(3, real.std()), rtol=1e-6)


def test_without_a_mask_all_frames_count():
    x_BTF, _ = make_features()
    normaliser = fit_normaliser(x_BTF)
    expected = x_BTF.reshape(-1, 3).mean(axis=0, dtype=np.float64)
    assert_near(normaliser.mean_F, expected, rtol=1e-6)


def test_no_normalisation_leaves_features_alone():
    x_BTF, mask_BT = make_features()
    normaliser = fit_normaliser(x_BTF, mask_BT, "none")
    np.testing.assert_array_equal(normalise(jnp.asarray(x_BTF), normaliser), x_BTF)


def test_a_feature_that_never_varies_becomes_0():
    x_BTF = jnp.full((2, 3, 4), -100.0)
    normaliser = fit_normaliser(x_BTF)
    np.testing.assert_array_equal(normalise(x_BTF, normaliser), jnp.zeros((2, 3, 4)))


def test_statistics_of_no_frame_are_refused():
    x_BTF, mask_BT = make_features()
    with pytest.raises(UserError, match="no frame"):
        fit_normaliser(x_BTF, np.zeros_like(mask_BT))


# Samples as features.

WAVE = FeaturesConfig(kind="wave")


def test_samples_themselves_are_features_of_kind_wave():
    wave_BN = make_signals(500)
    front_end = frontend.make_front_end(WAVE, RATE_HZ)
    np.testing.assert_array_equal(front_end(wave_BN), wave_BN[..., None])
    np.testing.assert_array_equal(jax.jit(front_end)(wave_BN[0]), wave_BN[0][:, None])


@pytest.mark.parametrize("kind", ["wave", "mfcc", "logmel", "mfcc_chroma"])
@pytest.mark.parametrize("n_samples", [2048, 5000, 16384])
def test_frames_are_counted_as_the_front_end_makes_them(kind, n_samples):
    settings = FeaturesConfig(kind=kind)
    made = frontend.make_front_end(settings, RATE_HZ)(jnp.zeros(n_samples))
    assert frontend.count_feature_frames(settings, n_samples) == len(made)


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    data = DataConfig(
        corpus="synthetic", synthetic_actors=2, synthetic_clips=8, clip_s=0.5,
        store_dir=str(tmp_path_factory.mktemp("store")),
    )  # fmt: skip
    return load_inputs(data, WAVE)


def test_corpus_of_samples_stays_int16_and_is_not_normalised(waves):
    assert waves.x_BTF.dtype == np.int16
    assert waves.x_BTF.base is waves.corpus.wave_BN or np.shares_memory(
        waves.x_BTF, waves.corpus.wave_BN
    )
    np.testing.assert_array_equal(waves.frames_B, waves.corpus.length_B)
    normaliser = fit_to_training(waves, np.arange(4), FeaturesConfig(kind="wave"), masked=True)
    x_BTF = jnp.asarray(waves.x_BTF[:2], jnp.float32)
    np.testing.assert_array_equal(normalise(x_BTF, normaliser), x_BTF)


def test_samples_are_augmented_on_the_device(waves):
    dataset = make_dataset(
        waves, fit_to_training(waves, np.arange(4), WAVE, False), with_waves=True
    )
    take = jax.jit(make_take_augmented(
        AugmentConfig(enabled=True), RATE_HZ, frontend.make_front_end(WAVE, RATE_HZ)
    ))  # fmt: skip
    key, index_B = jax.random.key(0), jnp.asarray([1, 3, -1])
    plain, changed = (take(dataset, index_B, key, dataset.draw, p) for p in (0.0, 1.0))
    full = waves.corpus.wave_BN[[1, 3]] / 32768
    assert_near(plain.x_BTF[:2, :, 0], full, atol=1e-6)
    assert changed.x_BTF.shape == plain.x_BTF.shape
    assert 1e-3 < np.abs(changed.x_BTF[:2] - plain.x_BTF[:2]).max() < 2
    np.testing.assert_array_equal(changed.x_BTF[2], 0)


class Doubler:
    """An augmenter of the host that makes clips twice as loud, beyond full scale where they were
    loud."""

    def submit(self, draw, clips, wave_BN, length_B):
        return wave_BN.astype(np.float32) / 16384

    def result(self, pending: Pending, advance):
        return pending


@pytest.mark.parametrize("on_host", [False, True])
def test_samples_augmented_on_the_host_keep_their_scale(waves, on_host):
    normaliser = fit_to_training(waves, np.arange(4), WAVE, False)
    dataset = make_dataset(waves, normaliser, on_host=on_host)
    augmenter: Any = Doubler()
    load = AugmentedEpochs(waves, dataset, np.array([0, 2]), augmenter, epochs=1, once=False)
    x_BTF = np.asarray(load(1).x_BTF)
    full = waves.corpus.wave_BN[:3, :, None] / 32768
    assert_near(x_BTF[:3], full * np.array([2, 1, 2])[:, None, None], atol=1e-6)
    assert dataset.x_BTF.dtype == np.int16
