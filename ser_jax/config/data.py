"""Settings of the recordings: which ones, where they are, and how they are split."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated, Any, Literal, get_args

from ser_jax.config.fields import SEED, at_least, between, check_bounds, within
from ser_jax.config.paths import default_store_dir, expand_paths
from ser_jax.errors import check
from ser_jax.files.atomic import expand
from ser_jax.files.csv_rows import read_columns

Protocol = Literal[
    "auto", "study", "given", "emobox6", "luna5", "luna5_val2", "loso", "speakers", "speakers5",
    "cross_corpus",
]  # fmt: skip
_OF_RAVDESS = ("emobox6", "luna5", "luna5_val2")  # the protocols whose folds are of its actors
CorpusName = Literal[
    "ravdess", "synthetic", "crema_d", "savee", "tess", "emodb", "manifest", "joined"
]
_RAVDESS_ACTORS = ("ravdess", "synthetic")  # the corpora whose speakers are RAVDESS's 24


def choose_protocol(protocol: Protocol, corpus: str, root: str | None = None) -> Protocol:
    """What `auto` means for a corpus: the study's split on RAVDESS, a manifest's own if it has one,
    and otherwise a speaker-independent one."""
    if protocol != "auto":
        return protocol
    # The one file that a default depends on; a run's config.yaml records the outcome.
    if corpus == "manifest" and root and "split" in read_columns(expand(root)):
        return "given"
    return "study" if corpus in _RAVDESS_ACTORS else "speakers"


def name_joined(name: str, root: str | None) -> str:
    """The name of a corpus of `DataConfig.roots` in results."""
    return PurePath(root or "").stem if name == "manifest" else name


def _as_text(labels: Mapping[Any, Any]) -> dict[str, str | None]:
    """Words and classes as text, which YAML may have read as numbers."""
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
    """Recordings, their sample rate and their split."""

    corpus: CorpusName = "ravdess"
    """Corpus: ravdess, crema_d, savee, tess or emodb (recordings in a folder, recognised by their
    file names), manifest (any other recordings, listed in a CSV file), joined (several corpora, see
    data.roots) or synthetic (generated, nothing to download)."""
    root: str | None = None
    """Folder of wav or flac files with the corpus's own names, searched recursively (null: ravdess
    is downloaded); for manifest a CSV file with the columns path, emotion, speaker and, where
    known, gender, intensity, statement, repetition, corpus, split (train, val, test), start, end
    (s)."""
    roots: dict[str, str | None] = field(default_factory=dict, hash=False)
    """Corpora of data.corpus=joined with their roots, as in {ravdess: DIR, emodb: DIR, my:
    FILE.csv}, where any other name stands for a manifest; the classes are those of all corpora
    together."""
    labels: dict[str, str | None] = field(default_factory=dict, hash=False)
    """Changes to the table from a corpus's words to classes, which 'ser-jax labels' prints, as in
    {boredom: sad, calm: null}; null leaves the clips out."""
    store_dir: str = field(default_factory=default_store_dir)
    """Folder where downloads and decoded corpora are kept between runs."""
    rate_hz: Annotated[int, between(4000, 192000)] = 16000
    """Sample rate to which every clip is resampled, in Hz (not stated in the study)."""
    clip_s: Annotated[float | None, within("(0, 600]", " seconds")] = None
    """Length to which clips are padded or cut, in seconds; null: that of the longest clip, as in
    the study."""
    trim_db: Annotated[float | None, within("(0, 120]", " dB; null trims nothing")] = None
    """Trim leading and trailing silence, that is frames more than this many dB below a clip's
    loudest frame; null: trim nothing, as in the study."""
    trim_margin_s: Annotated[float, at_least(0)] = 0.1
    """Silence that data.trim_db keeps at either end, in seconds."""
    protocol: Protocol = "auto"
    """Split: study (random, 70:15:15 of the clips), given (a manifest's column split) or one of the
    speaker-independent ones: speakers (about 70:15:15, balanced by class and gender), speakers5
    (five such folds), loso (leave one speaker out), for RAVDESS's actors emobox6, luna5 and
    luna5_val2 (luna5 with two validation actors in each fold), and for joined corpora cross_corpus
    (a fold for each ordered pair of them: trained on the one, tested on the other, or on unseen
    speakers of the same; only classes that all of them have). auto: study for ravdess and
    synthetic, given for a manifest with that column, otherwise speakers."""
    fold: Annotated[int, at_least(1)] = 1
    """Fold of the protocol, counted from 1; study, given and speakers have only one."""
    split_seed: Annotated[int | None, SEED] = None
    """Seed of the random splits study, speakers, speakers5 and cross_corpus; null: the run's
    seed."""
    train_on_validation: bool = False
    """Train on the validation clips too, which leaves nothing to choose by: for a recipe that was
    chosen before. Requires train.best_by=last. Validation figures in events.jsonl are then of
    training clips; metrics.json has none, and no curve shows them."""
    strict: bool = False
    """Stop at the first clip that cannot be read, or that duplicates a clip of another emotion or
    speaker, instead of leaving it out with a warning."""
    synthetic_actors: Annotated[int, between(1, 24)] = 24
    """Number of actors in the synthetic corpus, from 1 to 24."""
    synthetic_clips: Annotated[int, between(1, 60)] = 60
    """Number of clips per actor in the synthetic corpus, from 1 to 60."""
    workers: Annotated[int | None, at_least(1)] = None
    """Number of threads or processes that decode audio; null: one per core."""

    @property
    def title(self) -> str:
        """The corpus's name in results: a manifest's file name, joined corpora as a sum."""
        if self.corpus == "manifest":
            return PurePath(self.root or "").stem
        return "+".join(sorted(self.roots)) if self.corpus == "joined" else self.corpus

    @property
    def has_ravdess_actors(self) -> bool:
        """Whether the speakers are RAVDESS's 24 actors, whose folds are published."""
        return self.corpus in _RAVDESS_ACTORS

    @property
    def corpora(self) -> tuple[str, ...]:
        """Names of the joined corpora, sorted; a plain manifest's is that of its file."""
        return tuple(sorted(name_joined(name, root) for name, root in self.roots.items()))

    def without_split(self) -> "DataConfig":
        """The settings that decide which clips there are, equal for all splits of them."""
        protocol = self.protocol if self.protocol == "cross_corpus" else "study"
        return dataclasses.replace(
            self, protocol=protocol, fold=1, split_seed=None, train_on_validation=False
        )

    def __post_init__(self) -> None:
        expand_paths(self, "data.", "root", "roots", "store_dir")
        object.__setattr__(self, "protocol", choose_protocol(self.protocol, self.corpus, self.root))
        object.__setattr__(self, "labels", _as_text(self.labels))
        check_bounds(self, "data")
        self._check_corpus()
        self._check_roots()

    def _check_corpus(self) -> None:
        check(
            self.protocol not in _OF_RAVDESS or self.has_ravdess_actors,
            f"data.protocol={self.protocol}: its folds are of RAVDESS's actors; with "
            f"data.corpus={self.corpus} use speakers, speakers5, loso or study",
        )
        check(
            self.protocol != "given" or self.corpus == "manifest",
            f"data.protocol=given: requires data.corpus=manifest with a column split; with "
            f"data.corpus={self.corpus} use speakers, speakers5, loso or study",
        )
        check(
            self.protocol != "cross_corpus" or self.corpus == "joined",
            f"data.protocol=cross_corpus: requires data.corpus=joined, whose corpora it compares; "
            f"with data.corpus={self.corpus} use speakers, speakers5, loso or study",
        )
        check(
            self.corpus != "manifest" or self.root is not None,
            "data.root: missing; with data.corpus=manifest name the CSV file",
        )
        check(
            self.root is not None or self.corpus in (*_RAVDESS_ACTORS, "manifest", "joined"),
            f"data.root: missing; name the folder of data.corpus={self.corpus}, which has to be "
            "downloaded by hand (docs/corpora.md says where)",
        )

    def _check_roots(self) -> None:
        if self.corpus != "joined":
            check(not self.roots, f"data.roots={self.roots}: requires data.corpus=joined")
            return
        check(
            self.root is None,
            f"data.root={self.root}: data.corpus=joined requires data.roots instead",
        )
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
                "other name of letters and digits stands for a manifest, as in {mine: FILE.csv}; "
                "put a path with a comma in quotes",
            )
