"""Waveform to log-mel or MFCC in PyTorch, by librosa's conventions: `torch.stft` on the device."""

from typing import Any

import numpy as np
import torch

from benchmarks.pytorch.training import pick_device, synchronize
from benchmarks.worker import Job
from ser_jax.config import FeaturesConfig, override


class FrontEnd(torch.nn.Module):
    """Waves [B, N] to features [B, T, F]; the twin of `features.frontend`."""

    window_N: torch.Tensor
    filter_KF: torch.Tensor
    dct_FC: torch.Tensor

    def __init__(self, features: FeaturesConfig, rate_hz: int):
        super().__init__()
        from librosa.filters import mel

        self.features = features
        filter_FK = mel(
            sr=rate_hz, n_fft=features.n_fft, n_mels=features.n_mels, fmin=features.fmin_hz,
            fmax=features.fmax_hz,
        )  # fmt: skip
        self.register_buffer("window_N", torch.hann_window(features.n_fft))
        self.register_buffer("filter_KF", torch.from_numpy(filter_FK.T.copy()))
        self.register_buffer("dct_FC", _make_dct(features.n_mels, features.n_mfcc))

    @torch.no_grad()
    def forward(self, wave_BN: torch.Tensor) -> torch.Tensor:
        """float32 [B, N], full scale 1, to float32 [B, T, F]."""
        features = self.features
        spectrum_BKT = torch.stft(
            wave_BN, features.n_fft, features.hop_length, window=self.window_N,
            pad_mode="constant", return_complex=True,
        )  # fmt: skip
        power_BKT = spectrum_BKT.real.square() + spectrum_BKT.imag.square()
        db_BTF = 10 * (power_BKT.mT @ self.filter_KF).clamp_min(1e-10).log10()
        if features.top_db is not None:
            db_BTF = torch.maximum(db_BTF, db_BTF.amax((1, 2), keepdim=True) - features.top_db)
        return db_BTF @ self.dct_FC if features.kind == "mfcc" else db_BTF


def _make_dct(n_mels: int, n_mfcc: int) -> torch.Tensor:
    from scipy.fft import dct

    basis_FF = np.asarray(dct(np.eye(n_mels), type=2, norm="ortho", axis=0))
    return torch.from_numpy(basis_FF[:n_mfcc].T.astype(np.float32).copy())


def make_features(
    *, wave_BN: np.ndarray, length_B: np.ndarray, rate_hz: int, features: dict[str, Any],
    kind: str, compiled: bool = False,
) -> Job:  # fmt: skip
    """One turn computes the features of all clips, int16 [B, N] on the device."""
    del length_B
    device = pick_device(kind)
    front_end = FrontEnd(override(FeaturesConfig(), features), rate_hz).to(device)
    wave = torch.from_numpy(wave_BN).to(device)

    def compute(wave_BN: torch.Tensor) -> torch.Tensor:
        return front_end(wave_BN.float() / 32768)

    run = torch.compile(compute) if compiled else compute

    def turn() -> None:
        run(wave)
        synchronize(device)

    return Job(turn)
