"""Settings of the recordings: which, from where, and how they are split."""

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

Protocol = Literal["auto", "study", "given", "emobox6", "luna5", "loso", "speakers", "speakers5"]
CorpusName = Literal[
    "ravdess", "synthetic", "crema_d", "savee", "tess", "emodb", "manifest", "joined"
]
_RAVDESS_ACTORS = ("ravdess", "synthetic")  # the corpora whose speakers are RAVDESS' 24


def choose_protocol(protocol: Protocol, corpus: str, root: str | None = None) -> Protocol:
    """What `auto` means for a corpus: the study's own split on RAVDESS, a manifest's own where it
    has one, and elsewhere none that lets a speaker be in two parts."""
    if protocol != "auto":
        return protocol
    # The one file that a default depends on; a run's config.yaml records the outcome.
    if corpus == "manifest" and root and "split" in read_columns(expand(root)):
        return "given"
    return "study" if corpus in _RAVDESS_ACTORS else "speakers"


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
    store_dir: str = field(default_factory=default_store_dir)
    """Folder that keeps downloads and decoded corpora between runs."""
    rate_hz: Annotated[int, between(4000, 192000)] = 16000
    """Sample rate in Hz to which every clip is resampled (not stated in the study)."""
    clip_s: Annotated[float | None, within("(0, 600]", " seconds")] = None
    """Seconds to which clips are padded or cut; none: the longest clip, as in the study."""
    trim_db: Annotated[float | None, within("(0, 120]", " dB; null trims nothing")] = None
    """Cut off what is quieter than this many dB below a clip's loudest frame before its first and
    after its last louder frame; none: nothing, as in the study."""
    trim_margin_s: Annotated[float, at_least(0)] = 0.1
    """Seconds of it that are kept on either side."""
    protocol: Protocol = "auto"
    """Split: study (random 70:15:15 of the clips), or, with no speaker in two parts, speakers
    (about 70:15:15 of clips, classes and genders), speakers5 (five such folds), loso (leave one
    speaker out) and, on RAVDESS' actors, emobox6 and luna5; given: by a manifest's column split;
    auto: study for ravdess and synthetic, given where a manifest can, else speakers."""
    fold: Annotated[int, at_least(1)] = 1
    """Which fold of the protocol, counted from 1; study, given and speakers have one."""
    split_seed: Annotated[int | None, SEED] = None
    """Seed of the study's, speakers' and speakers5's draw alone; none: the run's seed."""
    strict: bool = False
    """Stop at the first clip that cannot be read, or sounds like another with another emotion or
    speaker, instead of leaving it out with a warning."""
    synthetic_actors: Annotated[int, between(1, 24)] = 24
    """Number of actors in the synthetic corpus, 1 to 24."""
    synthetic_clips: Annotated[int, between(1, 60)] = 60
    """Clips per actor in the synthetic corpus, 1 to 60."""
    workers: Annotated[int | None, at_least(1)] = None
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
        check_bounds(self, "data")
        self._check_corpus()
        self._check_roots()

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
