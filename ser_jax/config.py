"""Every setting of a run: frozen dataclasses, checked as they are made.

The text under a field is its help on the command line. Fields marked 'not stated in the study' are
where the study is silent; their defaults are Keras' or librosa's, since the study used both.
"""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import Any, Literal

from ser_jax.errors import check

Protocol = Literal["study", "emobox6", "luna5", "loso"]


def _default_store_dir() -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return os.path.join(cache, "ser_jax")


def _default_compile_cache() -> str:
    return os.path.join(_default_store_dir(), "compiled")


def _check_min(section: str, config: Any, least: float, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        check(value >= least, f"{section}.{name}={value}: must be at least {least}")


def _check_range(section: str, config: Any, low: str, high: str) -> None:
    a, b = getattr(config, low), getattr(config, high)
    check(a <= b, f"{section}.{low}={a}: must not exceed {section}.{high}={b}")


@dataclass(frozen=True)
class DataConfig:
    """Which recordings, at which rate, and how they are split."""

    corpus: Literal["ravdess", "synthetic"] = "ravdess"
    """Corpus: ravdess (real recordings) or synthetic (made on the spot, no download)."""
    root: str | None = None
    """Folder of wav or flac files with RAVDESS names, searched at any depth; none: download."""
    store_dir: str = field(default_factory=_default_store_dir)
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
        _check_min("data", self, 1, "fold")
        for name, most in (("synthetic_actors", 24), ("synthetic_clips", 60)):
            value = getattr(self, name)
            check(1 <= value <= most, f"data.{name}={value}: must lie between 1 and {most}")
        if self.clip_s is not None:
            check(
                0 < self.clip_s <= 600, f"data.clip_s={self.clip_s}: must lie in (0, 600] seconds"
            )
        if self.workers is not None:
            _check_min("data", self, 1, "workers")


@dataclass(frozen=True)
class FeaturesConfig:
    """Waveform to features, with librosa's conventions; all but `kind` not stated in the study."""

    kind: Literal["mfcc", "logmel"] = "mfcc"
    """Input of the networks: mfcc, or the log-mel spectrogram itself."""
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
        _check_min("features", self, 1, "hop_length", "n_mels", "n_mfcc")
        _check_min("features", self, 16, "n_fft")
        check(
            self.kind != "mfcc" or self.n_mfcc <= self.n_mels,
            f"features.n_mfcc={self.n_mfcc}: must not exceed features.n_mels={self.n_mels}",
        )
        _check_min("features", self, 0, "fmin_hz")
        if self.fmax_hz is not None:
            _check_range("features", self, "fmin_hz", "fmax_hz")
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
        _check_min("augment", self, 0, "noise_min")
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
            _check_range("augment", self, low, high)
        if self.workers is not None:
            _check_min("augment", self, 1, "workers")


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    name: Literal["cnn", "lstm", "cnn_lstm"] = "cnn_lstm"
    """Network: cnn, lstm or cnn_lstm."""
    mask_padding: bool = False
    """Keep zero padding out of normalisation, pooling and recurrence (false: the study's way)."""
    channels: tuple[int, ...] = (64, 64, 128, 128)
    """Channels of the convolution blocks."""
    dropout: float = 0.2
    """Dropout rate after each convolution block."""
    hidden: int = 256
    """Units of the LSTM."""
    dense: tuple[int, ...] = (128,)
    """Units of the fully connected layers (their number is not stated in the study)."""
    activation: Literal["relu", "elu", "tanh", "linear"] = "relu"
    """Activation of the fully connected layers (not stated in the study)."""
    cnn_pool: Literal["flatten", "mean"] = "flatten"
    """How the CNN alone makes one vector: flatten, or mean over time (not stated in the study)."""
    kernel_init: Literal["glorot_uniform", "he_uniform", "lecun_normal"] = "glorot_uniform"
    """Initial kernels (not stated in the study; Keras' default)."""
    recurrent_init: Literal["orthogonal", "glorot_uniform"] = "orthogonal"
    """Initial recurrent kernel of the LSTM (not stated in the study; Keras' default)."""
    forget_bias: float = 1.0
    """Initial bias of the LSTM's forget gate (not stated in the study; Keras' default)."""
    norm_momentum: float = 0.99
    """Share of the old running statistics kept by batch norm (Keras' default)."""
    norm_epsilon: float = 1e-3
    """Added to the variance in batch norm (Keras' default)."""

    def __post_init__(self) -> None:
        check(0 <= self.dropout < 1, f"model.dropout={self.dropout}: must lie in [0, 1)")
        _check_min("model", self, 1, "hidden")
        for name in ("channels", "dense"):
            value = getattr(self, name)
            check(
                all(units >= 1 for units in value),
                f"model.{name}={list(value)}: every entry must be at least 1",
            )
        check(len(self.channels) >= 1, "model.channels=[]: needs at least one block")
        check(
            0 <= self.norm_momentum < 1,
            f"model.norm_momentum={self.norm_momentum}: must lie in [0, 1)",
        )
        check(self.norm_epsilon > 0, f"model.norm_epsilon={self.norm_epsilon}: must be positive")


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation, and what is kept of it."""

    epochs: int = 10
    """Passes over the training clips."""
    batch_size: int = 32
    """Clips per step (not stated in the study)."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimiser: adam, or plain sgd."""
    learning_rate: float = 1e-3
    """Step size of the optimiser."""
    adam_epsilon: float = 1e-7
    """Added to the root of the second moment (not stated in the study; Keras' default)."""
    best_by: Literal["accuracy", "loss"] = "accuracy"
    """Validation figure that picks the epoch to keep; equal accuracies are parted by the loss."""
    early_stop_epochs: int = 0
    """Stop after this many epochs without a better validation figure; 0: never, as in the study."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and statistics stay float32."""
    profile: int = 0
    """Write a profiler trace of this many steps of the first epoch; 0: none."""

    def __post_init__(self) -> None:
        _check_min("train", self, 1, "epochs", "batch_size")
        _check_min("train", self, 0, "early_stop_epochs", "profile")
        for name in ("learning_rate", "adam_epsilon"):
            value = getattr(self, name)
            check(value > 0, f"train.{name}={value}: must be positive")


@dataclass(frozen=True)
class ParallelConfig:
    """How the work is laid on devices and processes; decides the speed of a run, not its result."""

    mode: Literal["auto", "jit", "mesh", "pmap"] = "auto"
    """jit (one device), mesh (the batch shared out to all devices), pmap (the same by jax.pmap), or
    auto: jit on one device, mesh on several."""
    scan: Literal["auto", "on", "off"] = "auto"
    """An epoch as one program (on) or step by step (off); auto: on, except on CPU for networks that
    convolve, since XLA runs a convolution inside a loop slowly there."""
    placement: Literal["auto", "device", "stream"] = "auto"
    """Where the corpus lives: on the device, or on the host with batches streamed from there; auto:
    on the device if it fits."""
    cache_dir: str | None = field(default_factory=_default_compile_cache)
    """Folder that keeps compiled programs between processes; none: nothing is kept."""
    coordinator: str | None = None
    """HOST:PORT of process 0 when several processes train together; none: found by itself on SLURM
    and TPU pods (with num_processes above 1), otherwise one process."""
    num_processes: int | None = None
    """Number of processes that train together; none: one, or what SLURM or the TPU pod says."""
    process_id: int | None = None
    """Number of this process, from 0."""
    heartbeat_s: int = 12
    """Seconds of silence after which a process counts as dead, 5 to 14; one whose connection
    closes does at once."""

    def __post_init__(self) -> None:
        check(
            5 <= self.heartbeat_s <= 14,  # JAX' own watch aborts after 15, in a page of C++
            f"parallel.heartbeat_s={self.heartbeat_s}: must lie between 5 and 14 seconds",
        )
        if self.num_processes is not None:
            _check_min("parallel", self, 1, "num_processes")
        if self.process_id is not None:
            check(
                0 <= self.process_id < (self.num_processes or 2**31),
                f"parallel.process_id={self.process_id}: must lie between 0 and "
                "parallel.num_processes - 1",
            )
        if self.coordinator is not None:
            host, _, port = self.coordinator.rpartition(":")
            check(
                bool(host) and port.isdecimal(),
                f"parallel.coordinator={self.coordinator}: must be HOST:PORT",
            )


@dataclass(frozen=True)
class Experiment:
    """What a single run and a grid of runs have in common."""

    data: DataConfig = field(default_factory=DataConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        fmax_hz, nyquist_hz = self.features.fmax_hz, self.data.rate_hz / 2
        if fmax_hz is not None:
            check(
                fmax_hz <= nyquist_hz,
                f"features.fmax_hz={fmax_hz}: must not exceed half of data.rate_hz, {nyquist_hz}",
            )
        check(
            self.features.fmin_hz < nyquist_hz,
            f"features.fmin_hz={self.features.fmin_hz}: must lie below half of data.rate_hz",
        )


@dataclass(frozen=True)
class Config(Experiment):
    """One training run."""

    seed: int = 0
    """Sets the split, the initial values, the order of the clips, dropout and augmentation."""
    run_dir: str | None = None
    """Folder of the run; none: runs/MODEL-CORPUS-PROTOCOL-seedN-HASH.
    A run of the same settings found there is gone on with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.seed >= 0, f"seed={self.seed}: must be at least 0")


@dataclass(frozen=True)
class AblationConfig(Experiment):
    """A grid of runs: systems x protocols x folds x seeds x sweep over shared settings."""

    out: str = "runs/ablation"
    """Folder of the grid: one run directory per cell, tables and figures."""
    systems: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Rows of the table: a name and the dotted keys in which the row differs."""
    protocols: tuple[Protocol, ...] = ("study",)
    """Splits to run."""
    folds: tuple[int, ...] | None = None
    """Folds to run, counted from 1; none: all of the protocol's."""
    seeds: tuple[int, ...] = (0,)
    """Seeds to run."""
    sweep: dict[str, list[Any]] = field(default_factory=dict)
    """Dotted keys and the values to try, in all combinations: {model.dropout: [0.1, 0.2]}."""
    batching: Literal["auto", "vmap", "map", "one"] = "auto"
    """Runs of equal shapes as one program, side by side (vmap) or one after another (map), or a
    program each (one); auto: the fastest by a short timed probe."""
    runs_at_a_time: int | None = None
    """Most runs in one program; none: as many as the device's memory holds."""
    shard: str | None = None
    """I/N: do share I (from 0) of N of the grid, on one of N machines with one shared out."""
    workers: int | None = None
    """Processes for `one`; none: on CPU one per core, on a GPU or TPU one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("protocols", "seeds"):
            check(len(getattr(self, name)) > 0, f"{name}=[]: name at least one")
        check(min(self.seeds) >= 0, f"seeds={list(self.seeds)}: none may be below 0")
        if self.workers is not None:
            check(self.workers >= 1, f"workers={self.workers}: must be at least 1")
        if self.runs_at_a_time is not None:
            check(
                self.runs_at_a_time >= 1,
                f"runs_at_a_time={self.runs_at_a_time}: must be at least 1",
            )
        for key, values in self.sweep.items():
            check(
                isinstance(values, list) and len(values) > 0,
                f"sweep.{key}={values}: must be a list of at least one value",
            )
        if self.shard is not None:
            index, _, count = self.shard.partition("/")
            check(
                index.isdecimal() and count.isdecimal() and int(index) < int(count),
                f"shard={self.shard}: must be I/N with I from 0 to N - 1",
            )


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain dictionaries, lists and scalars, as written to YAML and JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


# What says where or how loudly a run works, but not what it computes.
_WHEREABOUTS = (
    "run_dir", "out", "workers", "data.root", "data.store_dir", "data.workers", "data.strict",
    "augment.workers", "train.profile", "batching", "runs_at_a_time", "shard", "parallel",
)  # fmt: skip


def compute_identity(config: Any) -> str:
    """Hash of all that decides a run's result, 12 hexadecimal digits. Paths do not.

    Args:
      config: a configuration, or the dictionary that `to_dict` made of one. A config.yaml written
        before a setting existed keeps its hash as a dictionary.
    """
    flat = list_settings(config)
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()[:12]


def list_settings(config: Any) -> dict[str, Any]:
    """All that decides a result, as dotted keys and their values; see `compute_identity`."""
    tree = config if isinstance(config, dict) else to_dict(config)
    return {
        key: value
        for key, value in flatten(tree).items()
        if key not in _WHEREABOUTS and key.partition(".")[0] not in _WHEREABOUTS
    }


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def override(config: Any, changes: dict[str, Any]) -> Any:
    """A copy of `config` with dotted keys replaced, all at once, and then checked again.

    Raises:
      UserError: a key that does not exist; a value out of its range.
    """
    names = {f.name for f in dataclasses.fields(config)}
    values: dict[str, Any] = {}
    below: dict[str, dict[str, Any]] = {}
    for dotted, value in changes.items():
        head, _, rest = dotted.partition(".")
        check(head in names, f"{dotted}: no such key here; known are {', '.join(sorted(names))}")
        if rest:
            check(
                dataclasses.is_dataclass(getattr(config, head)),
                f"{dotted}: {head} has no keys of its own",
            )
            below.setdefault(head, {})[rest] = value
            continue
        check(
            not dataclasses.is_dataclass(getattr(config, head)),
            f"{head}={value}: {head} has keys of its own; set {head}.KEY",
        )
        is_tuple = isinstance(getattr(config, head), tuple)
        values[head] = tuple(value) if is_tuple and isinstance(value, list) else value
    for head, inner in below.items():
        values[head] = override(getattr(config, head), inner)
    return dataclasses.replace(config, **values)
