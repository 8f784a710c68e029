"""Settings of the recordings, their features and their augmentation."""

import codecs
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal, get_args

from ser_jax.config.checks import (
    check_min,
    check_range,
    check_seed,
    default_store_dir,
    expand_paths,
)
from ser_jax.errors import check

Protocol = Literal["auto", "study", "given", "emobox6", "luna5", "loso", "speakers", "speakers5"]
CorpusName = Literal[
    "ravdess", "synthetic", "crema_d", "savee", "tess", "emodb", "manifest", "joined"
]
_HEAD_BYTES = 2**16  # of a manifest
_RAVDESS_ACTORS = ("ravdess", "synthetic")  # the corpora whose speakers are RAVDESS' 24


def choose_protocol(protocol: Protocol, corpus: str, root: str | None = None) -> Protocol:
    """What `auto` means for a corpus: the study's own split on RAVDESS, a manifest's own where it
    has one, and elsewhere none that lets a speaker be in two parts."""
    if protocol != "auto":
        return protocol
    if corpus == "manifest" and root and _has_split(root):
        return "given"
    return "study" if corpus in _RAVDESS_ACTORS else "speakers"


def _has_split(path: str) -> bool:
    """Whether a manifest's head names a column split; False where it cannot be read.

    The one file that a setting's default depends on. A run's own config.yaml says what came of it.
    """
    try:
        with Path(os.path.expanduser(path)).open("rb") as file:
            start = file.read(_HEAD_BYTES)
    except OSError:
        return False
    is_utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = start.decode("utf-16" if is_utf16 else "utf-8-sig", errors="ignore")
    lines = [line for line in text.splitlines() if line.strip(' "')]
    head = next((line for line in lines if not re.match('"?sep=', line, re.IGNORECASE)), "")
    return "split" in (cell.strip(' "\r\n').lower() for cell in re.split("[,;\t]", head))


def _as_text(labels: Mapping[Any, Any]) -> dict[str, str | None]:
    """Words and classes, which YAML may have read as numbers, as text."""
    for word, name in labels.items():
        for value in (word, name):
            check(
                not isinstance(value, bool),
                f"data.labels.{word}={name}: YAML reads {value} out of yes, no, on, off, true or "
                "false; write the word in quotes",
            )
    return {str(word): None if name is None else str(name) for word, name in labels.items()}


@dataclass(frozen=True)
class DataConfig:
    """Which recordings, at which rate, and how they are split."""

    corpus: CorpusName = "ravdess"
    """Corpus: ravdess, crema_d, savee, tess or emodb (recordings in a folder, told by their file
    names), manifest (any others, listed in a CSV file), joined (several, see data.roots), or
    synthetic (made on the spot, no download)."""
    root: str | None = None
    """Folder of wav or flac files with the corpus' own names, searched at any depth (ravdess: none
    downloads them); for manifest the CSV file with columns path, emotion, speaker and, where known,
    gender, intensity, statement, repetition, corpus, split (train, val, test), start, end (s)."""
    roots: dict[str, str | None] = field(default_factory=dict, hash=False)
    """The corpora of data.corpus=joined and their roots: {ravdess: DIR, emodb: DIR, my: FILE.csv},
    where any other name is a manifest's; speakers stay apart, classes are those of all."""
    labels: dict[str, str | None] = field(default_factory=dict, hash=False)
    """What to change in the table from a corpus' words to classes, which 'ser-jax labels' shows:
    {boredom: sad, calm: null}; null leaves the clips out."""
    source: Literal["folder", "tfds"] = "folder"
    """Where recordings come from: a folder, or tensorflow-datasets' own crema_d or savee with
    data.root as its data_dir, which takes TensorFlow."""
    store_dir: str = field(default_factory=default_store_dir)
    """Folder that keeps downloads and decoded corpora between runs."""
    rate_hz: int = 16000
    """Sample rate in Hz to which every clip is resampled (not stated in the study)."""
    clip_s: float | None = None
    """Seconds to which clips are padded or cut; none: the longest clip, as in the study."""
    trim_db: float | None = None
    """Cut off what is quieter than this many dB below a clip's loudest frame before its first and
    after its last louder frame; none: nothing, as in the study."""
    trim_margin_s: float = 0.1
    """Seconds of it that are kept on either side."""
    protocol: Protocol = "auto"
    """Split: study (random 70:15:15 of the clips), or, with no speaker in two parts, speakers
    (about 70:15:15 of clips, classes and genders), speakers5 (five such folds), loso (leave one
    speaker out) and, on RAVDESS' actors, emobox6 and luna5; given: by a manifest's column split;
    auto: study for ravdess and synthetic, given where a manifest can, else speakers."""
    fold: int = 1
    """Which fold of the protocol, counted from 1; study, given and speakers have one."""
    split_seed: int | None = None
    """Seed of the study's, speakers' and speakers5's draw alone; none: the run's seed."""
    strict: bool = False
    """Stop at the first clip that cannot be read, or sounds like another with another emotion or
    speaker, instead of leaving it out with a warning."""
    synthetic_actors: int = 24
    """Number of actors in the synthetic corpus, 1 to 24."""
    synthetic_clips: int = 60
    """Clips per actor in the synthetic corpus, 1 to 60."""
    workers: int | None = None
    """Threads or processes that decode audio; none: one per core."""

    @property
    def title(self) -> str:
        """The corpus' name in results: a manifest's is its file's; joined ones are a sum."""
        if self.corpus == "manifest":
            return PurePath(self.root or "").stem
        return "+".join(sorted(self.roots)) if self.corpus == "joined" else self.corpus

    @property
    def has_ravdess_actors(self) -> bool:
        """Whether the speakers are RAVDESS' 24 actors, whose folds are published."""
        return self.corpus in _RAVDESS_ACTORS

    def __post_init__(self) -> None:
        expand_paths(self, "data.", "root", "roots", "store_dir")
        object.__setattr__(self, "protocol", choose_protocol(self.protocol, self.corpus, self.root))
        object.__setattr__(self, "labels", _as_text(self.labels))
        check(
            4000 <= self.rate_hz <= 192000,
            f"data.rate_hz={self.rate_hz}: must lie between 4000 and 192000",
        )
        check_min("data", self, 1, "fold")
        check_seed("data.split_seed", self.split_seed)
        self._check_corpus()
        self._check_roots()
        for name, most in (("synthetic_actors", 24), ("synthetic_clips", 60)):
            value = getattr(self, name)
            check(1 <= value <= most, f"data.{name}={value}: must lie between 1 and {most}")
        if self.clip_s is not None:
            check(
                0 < self.clip_s <= 600, f"data.clip_s={self.clip_s}: must lie in (0, 600] seconds"
            )
        if self.trim_db is not None:
            check(
                0 < self.trim_db <= 120,
                f"data.trim_db={self.trim_db}: must lie in (0, 120] dB; null trims nothing",
            )
        check_min("data", self, 0, "trim_margin_s")
        if self.workers is not None:
            check_min("data", self, 1, "workers")

    def _check_corpus(self) -> None:
        check(
            self.protocol not in ("emobox6", "luna5") or self.has_ravdess_actors,
            f"data.protocol={self.protocol}: its folds are of RAVDESS' actors; with "
            f"data.corpus={self.corpus} take speakers, speakers5, loso or study",
        )
        check(
            self.protocol != "given" or self.corpus == "manifest",
            f"data.protocol=given: takes data.corpus=manifest with a column split; with "
            f"data.corpus={self.corpus} take speakers, speakers5, loso or study",
        )
        check(
            self.source == "folder" or self.corpus in ("crema_d", "savee"),
            f"data.source={self.source}: takes data.corpus=crema_d or savee",
        )
        check(
            self.corpus != "manifest" or self.root is not None,
            "data.root: missing; with data.corpus=manifest name the CSV file",
        )
        check(
            self.root is not None
            or self.source == "tfds"
            or self.corpus in (*_RAVDESS_ACTORS, "manifest", "joined"),
            f"data.root: missing; name the folder of data.corpus={self.corpus}, which has to be "
            "downloaded by hand (docs/corpora.md says where)",
        )

    def _check_roots(self) -> None:
        if self.corpus != "joined":
            check(not self.roots, f"data.roots={self.roots}: takes data.corpus=joined")
            return
        check(self.root is None, f"data.root={self.root}: data.corpus=joined takes data.roots")
        check(
            len(self.roots) > 1,
            f"data.roots={self.roots}: name at least two corpora, as in "
            "{ravdess: DIR, emodb: DIR}",
        )
        known = [name for name in get_args(CorpusName) if name != "joined"]
        for name, root in self.roots.items():
            is_manifest = str(root).lower().endswith((".csv", ".tsv", ".txt"))
            check(
                name in known or (is_manifest and re.fullmatch(r"[\w-]+", name) is not None),
                f"data.roots.{name}={root}: no such corpus; known are {', '.join(known)}; any "
                "other name of letters and digits takes a manifest, as in {mine: FILE.csv}, its "
                "path in quotes where it holds a comma",
            )


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


@dataclass(frozen=True)
class AugmentConfig:
    """The study's four augmentations, in its order, on training clips only; then those of their
    features, which are independent of `enabled`."""

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
    time_masks: int = 0
    """SpecAugment: stretches of each clip's real frames that are set to the training mean."""
    time_mask_frames: int = 20
    """Greatest width of such a stretch, in frames; the least is 0."""
    band_masks: int = 0
    """SpecAugment: stretches of bands (or coefficients) that are set to the training mean."""
    band_mask_bands: int = 12
    """Greatest width of such a stretch, in bands; the least is 0."""
    feature_shift_frames: int = 0
    """Shift features along time by up to this many frames either way; what comes in repeats the
    first or last frame. 0: no."""
    time_warp: float = 0.0
    """Play features faster or slower, by a factor from 1 - this to 1 + this; 0: no."""
    band_warp: float = 0.0
    """Rescale the bands by a factor from 1 - this to 1 + this, as another vocal tract would, which
    means something with features.kind=logmel; 0: no."""

    def __post_init__(self) -> None:
        if self.workers is not None:
            check_min("augment", self, 1, "workers")
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
        for name in ("time_masks", "band_masks"):  # a shape of the program
            value = getattr(self, name)
            check(0 <= value <= 100, f"augment.{name}={value}: must lie between 0 and 100")
        names = ("time_mask_frames", "band_mask_bands", "feature_shift_frames")
        check_min("augment", self, 0, *names)
        for name in ("time_warp", "band_warp"):
            value = getattr(self, name)
            check(0 <= value <= 0.5, f"augment.{name}={value}: must lie between 0 and 0.5")

    def list_on_features(self) -> list[str]:
        """The keys that switch on an augmentation of features, and do."""
        return [name for name in FEATURE_SWITCHES if getattr(self, name)]
