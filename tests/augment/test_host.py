"""Host augmentation: what each setting does, and that neither workers nor order decide a result."""

import copy
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ser_jax.augment import host as augment_module
from ser_jax.augment.host import HostAugmenter
from ser_jax.config import AugmentConfig
from ser_jax.errors import UserError

pytestmark = pytest.mark.cpu_only("computes in worker processes of the host")

RATE_HZ = 16000
N_SAMPLES = 9000


def make_clips(n_clips: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """Tones of unequal length and loudness, zero padded; the last one silent."""
    time_s = np.arange(N_SAMPLES)[None, :] / RATE_HZ
    clip = np.arange(n_clips)[:, None]
    length_B = 5000 + 400 * np.arange(n_clips)
    tone_BN = 0.05 * (1 + clip) * np.sin(2 * np.pi * (150 + 40 * clip) * time_s)
    tone_BN = tone_BN * (np.arange(N_SAMPLES)[None, :] < length_B[:, None])
    tone_BN[-1] = 0
    return np.round(32767 * tone_BN).astype(np.int16), length_B.astype(np.int32)


WAVE_BN, LENGTH_B = make_clips()
CLIP_IDS = np.arange(100, 111)


@pytest.fixture(scope="module")
def augmenter():
    with HostAugmenter(AugmentConfig(enabled=True, workers=2), RATE_HZ, seed=3) as augmenter:
        yield augmenter


def run(augmenter: HostAugmenter, epoch: int = 1, rows: Any = slice(None), **changes) -> np.ndarray:
    """Some clips through the shared workers, under changed settings."""
    augmenter = copy.copy(augmenter)
    augmenter._seed = changes.pop("seed", augmenter._seed)
    augmenter._augment = dataclasses.replace(augmenter._augment, **changes)
    pending = augmenter.submit(epoch, CLIP_IDS[rows], WAVE_BN[rows], LENGTH_B[rows])
    return augmenter.result(pending)


def make_transform(name: str, n_samples: int = N_SAMPLES, **changes):
    """One of the four transforms, alone."""
    config = AugmentConfig(p=1.0, **changes)
    transforms = augment_module._make_transforms(config, RATE_HZ, n_samples)
    return next(t for t in transforms if type(t).__name__ == name)


def test_the_four_transforms_come_in_the_protocols_order():
    transforms = augment_module._make_transforms(AugmentConfig(p=0.3), RATE_HZ, N_SAMPLES)
    names = [type(t).__name__ for t in transforms]
    assert names == ["AddGaussianNoise", "TimeStretch", "PitchShift", "Shift"]
    assert [t.p for t in transforms] == [0.3] * 4
    assert {t.method for t in transforms[1:3]} == {AugmentConfig().method}


def test_probability_0_gives_the_samples_themselves(augmenter):
    np.testing.assert_array_equal(run(augmenter, p=0.0), WAVE_BN.astype(np.float32) / 32768)


@pytest.mark.parametrize("before_padding", [True, False])
def test_the_result_is_float32_of_the_inputs_shape_and_something_happened(
    augmenter, before_padding
):
    out_BN = run(augmenter, p=1.0, before_padding=before_padding)
    assert out_BN.shape == WAVE_BN.shape
    assert out_BN.dtype == np.float32
    assert np.isfinite(out_BN).all()
    assert (np.abs(out_BN - WAVE_BN / 32768).max(axis=1) > 1e-3).all()


@pytest.mark.parametrize("method", ["signalsmith_stretch", "librosa_phase_vocoder"])
def test_a_clips_result_does_not_depend_on_workers_order_or_other_clips(augmenter, method):
    whole_BN = run(augmenter, p=1.0, method=method)
    backwards_BN = run(augmenter, rows=slice(None, None, -1), p=1.0, method=method)
    np.testing.assert_array_equal(backwards_BN[::-1], whole_BN)
    np.testing.assert_array_equal(run(augmenter, rows=[4], p=1.0, method=method)[0], whole_BN[4])


def test_one_worker_gives_what_two_give(augmenter):
    config = AugmentConfig(enabled=True, workers=1)
    with HostAugmenter(config, RATE_HZ, seed=3) as alone:
        pending = alone.submit(1, CLIP_IDS, WAVE_BN, LENGTH_B)
        counts = []
        out_BN = alone.result(pending, counts.append)
    np.testing.assert_array_equal(out_BN, run(augmenter))
    assert sum(counts) == len(CLIP_IDS)


def test_epochs_and_seeds_draw_differently_and_repeat(augmenter):
    first_BN = run(augmenter, epoch=1)
    np.testing.assert_array_equal(run(augmenter, epoch=1), first_BN)
    assert (run(augmenter, epoch=2) != first_BN).any()
    assert (run(augmenter, epoch=1, seed=4) != first_BN).any()


def test_equal_clips_with_different_numbers_are_drawn_differently(augmenter):
    wave_BN, length_B = np.repeat(WAVE_BN[3:4], 2, axis=0), np.repeat(LENGTH_B[3:4], 2)
    noisy = copy.copy(augmenter)
    noisy._augment = dataclasses.replace(augmenter._augment, p=1.0)
    first_N, second_N = noisy.result(noisy.submit(1, [5, 6], wave_BN, length_B))
    assert (first_N != second_N).any()


def test_once_uses_epoch_0s_draw_for_all_epochs(augmenter):
    drawn_BN = run(augmenter, epoch=0)
    np.testing.assert_array_equal(run(augmenter, epoch=7, when="once"), drawn_BN)


def test_before_padding_leaves_the_padding_zero(augmenter):
    padding_BN = np.arange(N_SAMPLES)[None, :] >= LENGTH_B[:, None]
    assert (run(augmenter, p=1.0, before_padding=True)[padding_BN] == 0).all()
    assert (run(augmenter, p=1.0, before_padding=False)[padding_BN] != 0).mean() > 0.9


def test_peak_normalisation_scales_to_1_and_leaves_silence(augmenter):
    out_BN = run(augmenter, p=0.0, normalise="peak")
    np.testing.assert_allclose(np.abs(out_BN[:-1]).max(axis=1), 1.0, rtol=1e-6)
    assert (out_BN[-1] == 0).all()
    scaled_N = WAVE_BN[2] / np.abs(WAVE_BN[2]).max()
    np.testing.assert_allclose(out_BN[2], scaled_N, atol=1e-6)


def test_peak_normalisation_comes_before_the_noise(monkeypatch):
    make_all = augment_module._make_transforms
    monkeypatch.setattr(augment_module, "_make_transforms", lambda *a: make_all(*a)[:1])
    config = AugmentConfig(p=1.0, normalise="peak", noise_min=0.01, noise_max=0.01)
    quiet_N = WAVE_BN[0] // 50
    out_N = augment_module._augment_clip(quiet_N, 1, 1, config, RATE_HZ, 0)
    noise_N = out_N - quiet_N / np.abs(quiet_N).max()
    assert abs(noise_N.std() - 0.01) < 5e-4


def test_noise_lies_within_its_amplitudes():
    noise = make_transform("AddGaussianNoise", noise_min=0.004, noise_max=0.006)
    silence = np.zeros(N_SAMPLES, np.float32)
    deviations = [noise(silence, RATE_HZ).std() for _ in range(30)]
    assert 0.0038 < min(deviations) < 0.0045
    assert 0.0055 < max(deviations) < 0.0062


def test_noise_of_amplitude_0_changes_nothing():
    noise = make_transform("AddGaussianNoise", noise_min=0.0, noise_max=0.0)
    wave = WAVE_BN[3].astype(np.float32) / 32768
    np.testing.assert_allclose(noise(wave, RATE_HZ), wave, atol=1e-30)


@pytest.mark.parametrize("method", ["signalsmith_stretch", "librosa_phase_vocoder"])
@pytest.mark.parametrize("rate", [0.8, 1.2])
def test_stretch_keeps_duration_and_pitch_and_moves_the_end(method, rate):
    stretch = make_transform("TimeStretch", stretch_min=rate, stretch_max=rate, method=method)
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(N_SAMPLES) / RATE_HZ).astype(np.float32)
    wave[N_SAMPLES // 2 :] = 0
    out_N = stretch(wave, RATE_HZ)
    assert out_N.shape == wave.shape
    assert abs(find_pitch_hz(out_N) - 440) < 8
    power_N = np.cumsum(out_N**2)
    end = np.searchsorted(power_N, 0.98 * power_N[-1])
    assert abs(end - 0.98 * N_SAMPLES / 2 / rate) < 800


@pytest.mark.parametrize("method", ["signalsmith_stretch", "librosa_phase_vocoder"])
@pytest.mark.parametrize("semitones", [-4.0, 4.0])
def test_pitch_shift_moves_a_tone_by_its_semitones(method, semitones):
    shift = make_transform("PitchShift", pitch_min=semitones, pitch_max=semitones, method=method)
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(N_SAMPLES) / RATE_HZ).astype(np.float32)
    out_N = shift(wave, RATE_HZ)
    assert out_N.shape == wave.shape
    assert abs(find_pitch_hz(out_N) - 440 * 2 ** (semitones / 12)) < 8


def find_pitch_hz(wave: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 65536))
    return float(np.argmax(spectrum) * RATE_HZ / 65536)


@pytest.mark.parametrize("rollover", [True, False])
@pytest.mark.parametrize("shift_s", [0.25, -0.25])
def test_shift_moves_by_its_seconds_and_wraps_round_if_asked(shift_s, rollover):
    shift = make_transform("Shift", shift_min_s=shift_s, shift_max_s=shift_s, rollover=rollover)
    wave = np.random.default_rng(0).standard_normal(N_SAMPLES).astype(np.float32)
    places = round(shift_s * RATE_HZ)
    expected_N = np.roll(wave, places)
    if not rollover:
        expected_N[slice(places) if places > 0 else slice(places, None)] = 0
    seam = places % N_SAMPLES
    far = np.abs(np.arange(N_SAMPLES) - seam) > 0.005 * RATE_HZ  # it fades over 5 ms at the seam
    np.testing.assert_array_equal(shift(wave, RATE_HZ)[far], expected_N[far])


def test_shifts_are_drawn_from_their_whole_range():
    shift = make_transform("Shift")
    drawn_s = []
    for _ in range(60):
        shift(np.zeros(N_SAMPLES, np.float32), RATE_HZ)
        drawn_s.append(shift.parameters["shift_amount"])
    assert -0.5 <= min(drawn_s) < -0.4
    assert 0.4 < max(drawn_s) <= 0.5


@pytest.mark.parametrize("rollover", [True, False])
@pytest.mark.parametrize("n_samples", [0, 1, 2, 100, 4000])
def test_clips_shorter_than_a_shift_or_a_window_pass(n_samples, rollover):
    config = AugmentConfig(p=1.0, rollover=rollover)
    for clip_id in range(6):
        wave = np.full(n_samples, 1000, np.int16)
        out_N = augment_module._augment_clip(wave, clip_id, 1, config, RATE_HZ, 0)
        assert out_N.shape == (n_samples,)
        assert np.isfinite(out_N).all()


def test_a_stretch_that_no_seed_reproduces_is_refused():
    with pytest.raises(UserError, match=r"augment\.stretch_min=0\.3"):
        HostAugmenter(AugmentConfig(stretch_min=0.3), RATE_HZ, 0)


def test_a_worker_that_dies_is_one_line_for_the_user():
    with HostAugmenter(AugmentConfig(workers=1), RATE_HZ, 0) as augmenter:
        worker = augmenter._submit(os.getpid).result()
        os.kill(worker, signal.SIGKILL)
        time.sleep(0.5)
        with pytest.raises(UserError, match=r"augment\.workers=1: a worker process died") as error:
            augmenter.result(augmenter.submit(0, CLIP_IDS, WAVE_BN, LENGTH_B))
    assert "\n" not in str(error.value)


TOLD = """
import os, sys, time

def describe():
    time.sleep(0.3)  # so that the other worker takes the other one
    return os.getpid(), "jax" in sys.modules
"""
"""A module of its own, since workers do not run their parent's script."""

PARENT = """
import os, sys, time
import numpy as np
from ser_jax.augment.host import HostAugmenter
from ser_jax.config import AugmentConfig
from told import describe

if __name__ == "__main__":
    with HostAugmenter(AugmentConfig(workers=2), 16000, 0) as augmenter:
        workers = [f.result() for f in [augmenter._submit(describe) for _ in range(2)]]
        try:
            print(*(pid for pid, _ in workers), any(has for _, has in workers), flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            pass
        wave = np.ones((1, 8000), np.int16)
        print(augmenter.result(augmenter.submit(0, [0], wave, [8000])).shape, flush=True)
        for epoch in range(10_000):
            augmenter.result(augmenter.submit(epoch, range(64), np.ones((64, 80000), np.int16),
                                              [80000] * 64))
"""


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie, dead and not yet buried, does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_workers_know_no_jax_survive_ctrl_c_and_die_with_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    (tmp_path / "told.py").write_text(TOLD)
    environment = os.environ | {"PYTHONPATH": str(Path(augment_module.__file__).parents[2])}
    parent = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        assert parent.stdout is not None
        *workers, has_jax = parent.stdout.readline().split()
        assert has_jax == "False"
        assert len(set(workers)) == 2
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: parent and workers alike
        assert parent.stdout.readline() == "(1, 8000)\n"
        assert all(is_alive(int(pid)) for pid in workers)
    finally:
        parent.kill()
    deadline_s = time.monotonic() + 10
    while any(is_alive(int(pid)) for pid in workers) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    left = [int(pid) for pid in workers if is_alive(int(pid))]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []
    assert "Traceback" not in parent.communicate()[1]
