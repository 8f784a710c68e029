"""Settings of the recordings, their features and their augmentation."""

from dataclasses import dataclass, field
from typing import Literal

from ser_jax.config.checks import check_min, check_range, default_store_dir
from ser_jax.errors import check

Protocol = Literal["study", "emobox6", "luna5", "loso"]


@dataclass(frozen=True)
class DataConfig:
    """Which recordings, at which rate, and how they are split."""

    corpus: Literal["ravdess", "synthetic"] = "ravdess"
    """Corpus: ravdess (real recordings) or synthetic (made on the spot, no download)."""
    root: str | None = None
    """Folder of wav or flac files with RAVDESS names, searched at any depth; none: download."""
    store_dir: str = field(default_factory=default_store_dir)
    """Folder that keeps downloads and decoded corpora between runs."""
    rate_hz: int = 16000
    """Sample rate in Hz to which every clip is resampled (not stated in the study)."""
    clip_s: float | None = None
    """Seconds to which clips are padded or cut; none: the longest clip, as in the study."""
    protocol: Protocol = "study"
    """Split: study (random 70:15:15), or speaker-independent emobox6, luna5, loso."""
    fold: int = 1
    """Which fold of a speaker-independent protocol, counted from 1; study has one."""
    split_seed: int | None = None
    """Seed of the study split alone; none: the run's seed."""
    strict: bool = False
    """Stop at the first clip that cannot be read, instead of leaving it out with a warning."""
    synthetic_actors: int = 24
    """Number of actors in the synthetic corpus, 1 to 24."""
    synthetic_clips: int = 60
    """Clips per actor in the synthetic corpus, 1 to 60."""
    workers: int | None = None
    """Threads or processes that decode audio; none: one per core."""

    def __post_init__(self) -> None:
        check(
            4000 <= self.rate_hz <= 192000,
            f"data.rate_hz={self.rate_hz}: must lie between 4000 and 192000",
        )
        check_min("data", self, 1, "fold")
        for name, most in (("synthetic_actors", 24), ("synthetic_clips", 60)):
            value = getattr(self, name)
            check(1 <= value <= most, f"data.{name}={value}: must lie between 1 and {most}")
        if self.clip_s is not None:
            check(
                0 < self.clip_s <= 600, f"data.clip_s={self.clip_s}: must lie in (0, 600] seconds"
            )
        if self.workers is not None:
            check_min("data", self, 1, "workers")


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
    normalise: Literal["coefficient", "global", "none"] = "coefficient"
    """Zero mean and unit variance by training clips: per coefficient, over all, or not at all. Raw
    MFCC drive an LSTM's gates far enough to hold its state over padding; scaled ones do not."""

    def __post_init__(self) -> None:
        check_min("features", self, 1, "hop_length", "n_mels", "n_mfcc")
        check_min("features", self, 16, "n_fft")
        check(
            self.kind != "mfcc" or self.n_mfcc <= self.n_mels,
            f"features.n_mfcc={self.n_mfcc}: must not exceed features.n_mels={self.n_mels}",
        )
        check_min("features", self, 0, "fmin_hz")
        if self.fmax_hz is not None:
            check_range("features", self, "fmin_hz", "fmax_hz")
        if self.top_db is not None:
            check(self.top_db > 0, f"features.top_db={self.top_db}: must be positive, or null")


@dataclass(frozen=True)
class AugmentConfig:
    """The study's four augmentations, in its order, on training clips only."""

    enabled: bool = False
    """Augment the training clips."""
    p: float = 0.5
    """Probability of each of the four."""
    noise_min: float = 0.001
    """Least amplitude (standard deviation) of the Gaussian noise, full scale being 1."""
    noise_max: float = 0.015
    """Greatest amplitude of the Gaussian noise, full scale being 1."""
    stretch_min: float = 0.8
    """Least rate of the time stretch (below 1 is slower)."""
    stretch_max: float = 1.2
    """Greatest rate of the time stretch."""
    pitch_min: float = -4.0
    """Lowest pitch shift, in semitones."""
    pitch_max: float = 4.0
    """Highest pitch shift, in semitones."""
    shift_min_s: float = -0.5
    """Earliest time shift, in seconds."""
    shift_max_s: float = 0.5
    """Latest time shift, in seconds."""
    normalise: Literal["none", "peak"] = "none"
    """Scale a clip to peak 1 before the noise: none, or peak (not stated in the study)."""
    when: Literal["epoch", "once"] = "epoch"
    """Draw anew each epoch, or once before the first (not stated in the study)."""
    before_padding: bool = True
    """Augment the clip alone, or with its zero padding (not stated in the study)."""
    rollover: bool = True
    """Whether what is shifted out comes back in at the other end (not stated in the study)."""
    method: Literal["signalsmith_stretch", "librosa_phase_vocoder"] = "signalsmith_stretch"
    """audiomentations' algorithm for stretch and pitch (not stated in the study); the device
    backend has its own phase vocoder."""
    backend: Literal["device", "host"] = "device"
    """Where it is done: device (in JAX, inside the training step), or host (audiomentations)."""
    workers: int | None = None
    """Worker processes of the host backend; none: one per core."""

    def __post_init__(self) -> None:
        check(0 <= self.p <= 1, f"augment.p={self.p}: must lie between 0 and 1")
        check_min("augment", self, 0, "noise_min")
        check(
            self.stretch_min >= 0.1 and self.stretch_max <= 10,
            f"augment.stretch_min={self.stretch_min}, stretch_max={self.stretch_max}: "
            "must lie between 0.1 and 10",
        )
        check(
            self.pitch_min >= -24 and self.pitch_max <= 24,
            f"augment.pitch_min={self.pitch_min}, pitch_max={self.pitch_max}: "
            "must lie between -24 and 24 semitones",
        )
        for low, high in (
            ("noise_min", "noise_max"),
            ("stretch_min", "stretch_max"),
            ("pitch_min", "pitch_max"),
            ("shift_min_s", "shift_max_s"),
        ):
            check_range("augment", self, low, high)
        if self.workers is not None:
            check_min("augment", self, 1, "workers")
