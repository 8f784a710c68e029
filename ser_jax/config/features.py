"""Settings of the features that the networks see."""

from dataclasses import dataclass
from typing import Literal

from ser_jax.config.fields import check_min, check_range
from ser_jax.errors import check

OWN_STATISTICS = ("clip", "speaker", "corpus")
"""Values of `FeaturesConfig.normalise` for which the clips that are heard give the statistics."""


@dataclass(frozen=True)
class FeaturesConfig:
    """Waveform to features, with librosa's conventions; all but `kind` not stated in the study."""

    kind: Literal["mfcc", "logmel", "wave"] = "mfcc"
    """Input of the networks: mfcc, the log-mel spectrogram itself, or the samples (wave), which
    the network normalises on its own; the keys below then count for the report's figure alone."""
    n_fft: int = 2048
    """Length of the Hann window and of the FFT, in samples."""
    hop_length: int = 512
    """Samples between frames."""
    n_mels: int = 128
    """Number of Slaney mel bands."""
    n_mfcc: int = 20
    """Number of cepstral coefficients kept (mfcc only)."""
    fmin_hz: float = 0.0
    """Lowest frequency of the mel bands, in Hz."""
    fmax_hz: float | None = None
    """Highest frequency of the mel bands, in Hz; none: half the rate."""
    top_db: float | None = 80.0
    """Floor of the log-mel spectrogram, in dB below the clip's loudest bin; none: no floor."""
    normalise: Literal["coefficient", "global", "none", "clip", "speaker", "corpus"] = "coefficient"
    """Zero mean and unit variance by training clips, per coefficient, over all, or not at all; or
    per coefficient over each clip, each speaker's or each corpus' clips, those of validation and
    test among them, without their labels (of files given to predict, all are one speaker's). Raw
    MFCC drive an LSTM's gates far enough to hold its state over padding; scaled ones do not."""

    @property
    def is_own(self) -> bool:
        """Whether the clips that are heard give the statistics, and not the training clips."""
        return self.normalise in OWN_STATISTICS

    def __post_init__(self) -> None:
        check_min("features", self, 1, "hop_length", "n_mels", "n_mfcc")
        check_min("features", self, 16, "n_fft")
        check(
            self.kind != "mfcc" or self.n_mfcc <= self.n_mels,
            f"features.n_mfcc={self.n_mfcc}: must not exceed features.n_mels={self.n_mels}",
        )
        check(
            self.kind != "wave" or not self.is_own,
            f"features.normalise={self.normalise}: with features.kind=wave the network normalises "
            "each clip by itself; leave the key out",
        )
        check_min("features", self, 0, "fmin_hz")
        if self.fmax_hz is not None:
            check_range("features", self, "fmin_hz", "fmax_hz")
        if self.top_db is not None:
            check(self.top_db > 0, f"features.top_db={self.top_db}: must be positive, or null")


FEATURE_SWITCHES = (
    "time_masks", "band_masks", "feature_shift_frames", "time_warp", "band_warp",
)  # fmt: skip
"""Keys of `AugmentConfig` each of which switches on an augmentation of features."""
