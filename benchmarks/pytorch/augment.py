"""The study's four augmentations in PyTorch, batched on the device.

torchaudio has no batch with a rate per clip; the phase vocoder and the windowed-sinc resampling
follow its `phase_vocoder` and `resample` (width 6), with the clips' rates as a vector.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.pytorch.training import pick_device, synchronize
from benchmarks.worker import Job
from ser_jax.config import AugmentConfig, override

N_FFT, HOP = 512, 128  # torchaudio's pitch_shift: an FFT of 512, a hop of a quarter of it
WIDTH = 6  # zero crossings of the sinc on either side


@torch.no_grad()
def apply(
    wave_BN: torch.Tensor,
    length_B: torch.Tensor,
    config: AugmentConfig,
    rate_hz: int,
    *,
    alone: bool | None = None,
) -> torch.Tensor:
    """Noise, time stretch, pitch shift and time shift, each clip with draws of its own.

    Args:
      wave_BN: float32 [B, N], zero padded.
      length_B: real samples of each clip.
      config: ranges and probability; the clip alone is augmented, shifts wrap round.
      rate_hz: sample rate.
      alone: compute only the clips that were drawn, which makes the host wait for the draw; False:
        compute all and choose; None: the former on CPU, the latter on a GPU.
    """
    B, N = wave_BN.shape
    device = wave_BN.device
    alone = device.type == "cpu" if alone is None else alone
    real_BN = torch.arange(N, device=device)[None] < length_B[:, None]

    def draw(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(B, device=device)

    def change(x_BN: torch.Tensor, function: Callable[..., torch.Tensor], *draws: torch.Tensor):
        chosen_B = torch.rand(B, device=device) < config.p
        if not alone:
            return torch.where(chosen_B[:, None] & real_BN, function(x_BN, *draws), x_BN)
        rows = chosen_B.nonzero()[:, 0]
        if len(rows) == 0:  # an FFT needs at least one row
            return x_BN
        new = function(x_BN[rows], *(values[rows] for values in draws))
        return x_BN.index_copy(0, rows, torch.where(real_BN[rows], new, 0))

    most = max(config.pitch_max, 0.0)
    x = change(wave_BN, add_noise, draw(config.noise_min, config.noise_max))
    x = change(x, stretch, draw(config.stretch_min, config.stretch_max))
    x = change(
        x, functools.partial(shift_pitch, most=most), draw(config.pitch_min, config.pitch_max)
    )
    shift_B = (draw(config.shift_min_s, config.shift_max_s) * rate_hz).long()
    return change(x, roll, shift_B, length_B)


def add_noise(wave_BN: torch.Tensor, amplitude_B: torch.Tensor) -> torch.Tensor:
    """White noise of each clip's own standard deviation."""
    return wave_BN + amplitude_B[:, None] * torch.randn_like(wave_BN)


def roll(wave_BN: torch.Tensor, shift_B: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
    """Each clip moved by `shift_B` samples within its own length; what goes out comes back in."""
    place_BN = torch.arange(wave_BN.shape[1], device=wave_BN.device)[None] - shift_B[:, None]
    return wave_BN.gather(1, place_BN % length_B[:, None].clamp_min(1))


def stretch(wave_BN: torch.Tensor, rate_B: torch.Tensor, n_out: int | None = None) -> torch.Tensor:
    """Each clip `rate_B` times as fast at its own pitch, by a phase vocoder; [B, n_out or N].

    `n_out` must be long enough for the slowest clip.
    """
    n_out = n_out or wave_BN.shape[1]
    window = torch.hann_window(N_FFT, device=wave_BN.device)
    spectrum_BKT = torch.stft(
        wave_BN, N_FFT, HOP, window=window, pad_mode="constant", return_complex=True
    )
    return invert(vocode(spectrum_BKT, rate_B, n_out // HOP + 2), window)[:, :n_out]


def invert(spectrum_BKT: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """Waves [B, (T - 1) * HOP] of centred spectra.

    Equals `torch.istft`, which checks the window's envelope on the host; the device would wait for
    that, and no CUDA graph could hold it.
    """
    frames_BTN = torch.fft.irfft(spectrum_BKT.mT, N_FFT) * window
    wave_BN = overlap(frames_BTN)
    envelope_BN = overlap(window.square().expand(1, frames_BTN.shape[1], N_FFT))
    half = N_FFT // 2
    return wave_BN[:, half:-half] / envelope_BN[:, half:-half]


def overlap(frames_BTN: torch.Tensor) -> torch.Tensor:
    """Frames added up, each HOP samples after the one before; [B, (T - 1) * HOP + N_FFT]."""
    B, T, _ = frames_BTN.shape
    parts = N_FFT // HOP
    parts_BTPN = frames_BTN.unflatten(2, (parts, HOP))
    out_BTN = frames_BTN.new_zeros(B, T + parts - 1, HOP)
    for part in range(parts):
        out_BTN[:, part : part + T] += parts_BTPN[:, :, part]
    return out_BTN.flatten(1)


def vocode(spectrum_BKT: torch.Tensor, rate_B: torch.Tensor, n_frames: int) -> torch.Tensor:
    """Phase vocoder: frame t of the result lies at t * rate of the input; past its end is silence.

    Source: torchaudio.functional.phase_vocoder, with a rate per clip.
    """
    B, K, T = spectrum_BKT.shape
    device = spectrum_BKT.device
    advance_K1 = torch.linspace(0, math.pi * HOP, K, device=device)[:, None]
    step_BT = torch.arange(n_frames, device=device)[None] * rate_B[:, None]
    padded = F.pad(spectrum_BKT, (0, 2))
    # Frames past the end lie between zeros of the padding.
    left_BT = step_BT.long().clamp_max(T)
    alpha_B1T = (step_BT % 1)[:, None]
    left = padded.gather(2, left_BT[:, None].expand(B, K, n_frames))
    right = padded.gather(2, (left_BT + 1)[:, None].expand(B, K, n_frames))
    phase = right.angle() - left.angle() - advance_K1
    phase = phase - 2 * math.pi * torch.round(phase / (2 * math.pi)) + advance_K1
    phase = torch.cat([spectrum_BKT[..., :1].angle(), phase[..., :-1]], dim=2).cumsum(2)
    size = alpha_B1T * right.abs() + (1 - alpha_B1T) * left.abs()
    return torch.polar(size, phase)


def shift_pitch(
    wave_BN: torch.Tensor, semitones_B: torch.Tensor, most: float = 4.0
) -> torch.Tensor:
    """Each clip higher by `semitones_B`: stretched, then resampled to its own duration.

    `most` is the greatest shift that can occur, in semitones.
    """
    N = wave_BN.shape[1]
    ratio_B = torch.exp2(semitones_B / 12)
    longest = math.ceil(N * 2 ** (most / 12)) + 1
    return resample(stretch(wave_BN, 1 / ratio_B, n_out=longest), ratio_B, N, 2 ** (most / 12))


def resample(wave_BM: torch.Tensor, ratio_B: torch.Tensor, n_out: int, most: float) -> torch.Tensor:
    """Sample n of clip b is the wave at n * ratio (at most `most`), by a windowed sinc; [B, n_out].

    Source: torchaudio.functional.resample's kernel, evaluated where each clip needs it.
    """
    place_BN = torch.arange(n_out, device=wave_BM.device)[None] * ratio_B[:, None]
    first_BN = place_BN.long()
    # Sped up, it must not fold back: a lower cut-off, and as many more taps.
    cutoff_B1 = (1 / ratio_B).clamp_max(1.0)[:, None]
    reach = math.ceil(WIDTH * max(1.0, most))
    padded = F.pad(wave_BM, (reach, reach + n_out))
    out = torch.zeros_like(place_BN)
    for tap in range(-reach + 1, reach + 1):
        t_BN = (first_BN + tap - place_BN) * cutoff_B1
        window = torch.cos(math.pi / 2 * (t_BN / WIDTH).clamp(-1, 1)).square()
        index = (first_BN + tap + reach).clamp_max(padded.shape[1] - 1)
        out += padded.gather(1, index) * torch.sinc(t_BN) * window * cutoff_B1
    return out


def make_augment(
    *, wave_BN: np.ndarray, length_B: np.ndarray, rate_hz: int, augment: dict[str, Any], kind: str,
    alone: bool,
) -> Job:  # fmt: skip
    """One turn augments all clips with new draws; the clips are on the device; see `apply`."""
    device, config = pick_device(kind), override(AugmentConfig(), augment)
    wave, length = torch.from_numpy(wave_BN).to(device), torch.from_numpy(length_B).to(device)

    def turn() -> None:
        apply(wave.float() / 32768, length, config, rate_hz, alone=alone)
        synchronize(device)

    return Job(turn)
