"""Settings of the features that the networks are given."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ser_jax.config.fields import at_least, check_bounds, check_order, positive
from ser_jax.errors import check

OWN_STATISTICS = ("clip", "speaker", "corpus")
"""Values of `FeaturesConfig.normalise` that take statistics from the very clips they normalise."""


@dataclass(frozen=True)
class FeaturesConfig:
    """From waveform to features, with librosa's conventions; the study states only the kind."""

    kind: Literal["mfcc", "logmel", "mfcc_chroma", "wave"] = "mfcc"
    """Input of the network: mfcc, logmel (the log-mel spectrogram), mfcc_chroma (the MFCC, then the
    energy of each pitch class, tuned to the clip) or wave (the samples, which wav2vec2 takes and
    normalises itself; the keys below then affect only a figure of the report)."""
    n_fft: Annotated[int, at_least(16)] = 2048
    """Length of the Hann window and of the FFT, in samples."""
    hop_length: Annotated[int, at_least(1)] = 1024
    """Hop between frames, in samples; librosa's default, 512, takes twice the time for no more
    accuracy."""
    n_mels: Annotated[int, at_least(1)] = 128
    """Number of Slaney mel bands."""
    n_mfcc: Annotated[int, at_least(1)] = 20
    """Number of cepstral coefficients kept, for features.kind=mfcc and mfcc_chroma."""
    n_chroma: Annotated[int, at_least(2)] = 12
    """Number of pitch classes of an octave, for features.kind=mfcc_chroma."""
    fmin_hz: Annotated[float, at_least(0)] = 0.0
    """Lowest frequency of the mel bands, in Hz."""
    fmax_hz: float | None = None
    """Highest frequency of the mel bands, in Hz; null: half of data.rate_hz."""
    top_db: Annotated[float | None, positive(", or null")] = 80.0
    """Floor of the log-mel spectrogram, in dB below the clip's loudest bin; null: no floor."""
    normalise: Literal["coefficient", "global", "none", "clip", "speaker", "corpus"] = "coefficient"
    """Normalisation to zero mean and unit variance: coefficient (each coefficient, over the
    training clips), global (all coefficients together), none, or each coefficient over a clip, a
    speaker or a corpus, which includes validation and test clips but not their labels (files given
    to predict count as one speaker). With raw MFCC, unlike normalised ones, an LSTM holds its state
    over padding."""

    @property
    def is_own(self) -> bool:
        """Whether statistics come from the very clips that are normalised, not from training
        clips."""
        return self.normalise in OWN_STATISTICS

    def __post_init__(self) -> None:
        check_bounds(self, "features")
        check(
            self.kind not in ("mfcc", "mfcc_chroma") or self.n_mfcc <= self.n_mels,
            f"features.n_mfcc={self.n_mfcc}: must not exceed features.n_mels={self.n_mels}",
        )
        check(
            self.kind != "wave" or not self.is_own,
            f"features.normalise={self.normalise}: with features.kind=wave the network normalises "
            "each clip by itself; leave the key out",
        )
        if self.fmax_hz is not None:
            check_order("features", self, "fmin_hz", "fmax_hz")
