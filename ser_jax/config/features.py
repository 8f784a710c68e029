"""Settings of the features that the networks see."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ser_jax.config.fields import at_least, check_bounds, check_order, positive
from ser_jax.errors import check

OWN_STATISTICS = ("clip", "speaker", "corpus")
"""Values of `FeaturesConfig.normalise` for which the clips that are heard give the statistics."""


@dataclass(frozen=True)
class FeaturesConfig:
    """Waveform to features, with librosa's conventions; all but `kind` not stated in the study."""

    kind: Literal["mfcc", "logmel", "wave"] = "mfcc"
    """Input of the networks: mfcc, the log-mel spectrogram itself, or the samples (wave), which
    the network normalises on its own; the keys below then count for the report's figure alone."""
    n_fft: Annotated[int, at_least(16)] = 2048
    """Length of the Hann window and of the FFT, in samples."""
    hop_length: Annotated[int, at_least(1)] = 1024
    """Samples between frames; librosa's default is 512, twice the time for no more accuracy."""
    n_mels: Annotated[int, at_least(1)] = 128
    """Number of Slaney mel bands."""
    n_mfcc: Annotated[int, at_least(1)] = 20
    """Number of cepstral coefficients kept (mfcc only)."""
    fmin_hz: Annotated[float, at_least(0)] = 0.0
    """Lowest frequency of the mel bands, in Hz."""
    fmax_hz: float | None = None
    """Highest frequency of the mel bands, in Hz; none: half the rate."""
    top_db: Annotated[float | None, positive(", or null")] = 80.0
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
        check_bounds(self, "features")
        check(
            self.kind != "mfcc" or self.n_mfcc <= self.n_mels,
            f"features.n_mfcc={self.n_mfcc}: must not exceed features.n_mels={self.n_mels}",
        )
        check(
            self.kind != "wave" or not self.is_own,
            f"features.normalise={self.normalise}: with features.kind=wave the network normalises "
            "each clip by itself; leave the key out",
        )
        if self.fmax_hz is not None:
            check_order("features", self, "fmin_hz", "fmax_hz")
