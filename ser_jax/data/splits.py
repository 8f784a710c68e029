"""Which clips train, validate and test: the study's random split, speaker-independent splits, a
manifest's own, or one corpus against another."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ser_jax.config import DataConfig
from ser_jax.data.corpus import Corpus
from ser_jax.data.cross_corpus import (
    CROSS_CORPUS,
    find_used,
    list_corpora,
    name_pair,
    split_pair,
)
from ser_jax.data.published_folds import get_test_actors, get_val_actors
from ser_jax.data.speakers import DRAWN, choose_speakers
from ser_jax.errors import check

_PARTS = 3  # training, validation, test
_STUDY_PART = 0.15  # share of all clips, for validation and for test each
_SINGLE = {"study", "given", "speakers"}  # protocols without folds
_MAY_SHARE = {"study", "given"}  # parts may share speakers


@dataclass(frozen=True)
class Split:
    """Indices of the clips of each part, ascending.

    The parts share no clip, unless `data.train_on_validation` lets `train` hold those of `val` too.
    """

    protocol: str
    fold: int
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    @property
    def checksum(self) -> str:
        """Identifies the split by its indices, whatever its name."""
        parts = [index.tolist() for index in (self.train, self.val, self.test)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def count_folds(protocol: str, n_speakers: int | None = None, n_corpora: int = 0) -> int:
    """Number of folds of a protocol. Over several folds each speaker is tested once; under
    cross_corpus each pair of corpora is a fold.

    Args:
      protocol: its name.
      n_speakers: of the corpus, which loso leaves out one by one; `None`: RAVDESS' 24 actors.
      n_corpora: joined, for cross_corpus.
    """
    if protocol == CROSS_CORPUS:
        check(n_corpora > 1, f"data.protocol={protocol}: needs several corpora; join them")
        return n_corpora**2
    if protocol == "loso" and n_speakers is not None:
        return n_speakers
    if protocol in _SINGLE or protocol in DRAWN:
        return DRAWN.get(protocol, 1)
    return len(get_test_actors(protocol))


def check_fold(protocol: str, fold: int, n_folds: int) -> None:
    """Raise a UserError if a protocol of so many folds has no such fold."""
    check(
        1 <= fold <= n_folds,
        f"data.fold={fold}: data.protocol={protocol} has folds 1 to {n_folds}"
        if n_folds > 1
        else f"data.fold={fold}: data.protocol={protocol} has only fold 1",
    )


def name_fold(protocol: str, fold: int, pair: str = "") -> str:
    """`emobox6 split, fold 2`; without the fold where the protocol has only one; with the pair of
    `cross_corpus.name_pair` instead where there is one."""
    name = "" if protocol in _SINGLE else pair or f"fold {fold}"
    return f"{protocol} split" + f", {name}" * bool(name)


def name_own_fold(data: DataConfig) -> str:
    """`name_fold` of the protocol and fold of settings."""
    return name_fold(data.protocol, data.fold, name_pair(data))


def make_split(
    protocol: str,
    fold: int,
    seed: int,
    emotion_B: np.ndarray,
    actor_B: np.ndarray,
    *,
    n_speakers: int | None = None,
    stratum_B: np.ndarray | None = None,
    given_B: np.ndarray | None = None,
    corpus_B: np.ndarray | None = None,
) -> Split:
    """Split clips into training, validation and test.

    `study` draws 70:15:15 of the clips at random, stratified by emotion; `given` takes `given_B`.
    In the other protocols no speaker is in two parts: `speakers` draws speakers with about 70:15:15
    of the clips, of each class and of each stratum; `speakers5` draws five folds of about equal
    size; the rest ignore the seed. Fold k validates on the test speakers of fold k + 1, in loso on
    the next 15 % of the speakers, and in luna5_val2 on two published actors. See
    `cross_corpus.split_pair` for cross_corpus.

    Args:
      protocol: study, given, emobox6, luna5, luna5_val2, loso, speakers, speakers5 or cross_corpus.
      fold: 1 to `count_folds(protocol, n_speakers, n_corpora)`.
      seed: of the draw.
      emotion_B: int [clips], class.
      actor_B: int [clips], speaker, from 1.
      n_speakers: number of speakers; `None`: RAVDESS' 24 actors.
      stratum_B: str [clips], stratum of which each part gets its share; see `list_strata`.
      given_B: str [clips], train, val or test, for `given`.
      corpus_B: str [clips], name of the corpus, for `cross_corpus`.

    Returns:
      A split that has passed `check_split`.

    Raises:
      UserError: no such protocol or fold; too few clips or actors for it.
    """
    n_corpora = 0 if corpus_B is None else len(np.unique(corpus_B))
    check_fold(protocol, fold, count_folds(protocol, n_speakers, n_corpora))
    if protocol == "study":
        split = _make_study_split(seed, emotion_B)
    elif protocol == "given":
        split = _take_given(given_B)
    elif protocol == CROSS_CORPUS and corpus_B is not None:
        parts = split_pair(fold, seed, emotion_B, actor_B, corpus_B, stratum_B)
        split = Split(protocol, fold, *parts)
    else:
        if protocol in DRAWN or n_speakers is not None:
            val, test = choose_speakers(protocol, fold, seed, actor_B, emotion_B, stratum_B)
        else:
            val, test = get_val_actors(protocol, fold), get_test_actors(protocol)[fold - 1]
        is_val_B, is_test_B = np.isin(actor_B, val), np.isin(actor_B, test)
        parts = (~is_val_B & ~is_test_B, is_val_B, is_test_B)
        split = Split(protocol, fold, *map(np.flatnonzero, parts))
    check_split(split, actor_B, corpus_B)
    return split


def list_strata(attributes: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Corpus and gender of each clip, as far as known; `None` if neither is."""
    known = [attributes[name] for name in ("corpus", "gender") if name in attributes]
    return np.array([" ".join(values) for values in zip(*known, strict=True)]) if known else None


def check_split(split: Split, actor_B: np.ndarray, corpus_B: np.ndarray | None = None) -> None:
    """Raise if test clips or speakers leak into training, or a clip is lost.

    Args:
      split: of the clips.
      actor_B: int [clips], speaker.
      corpus_B: str [clips], corpus, for cross_corpus, which uses no clips of a third one.

    Raises:
      UserError: an empty part; a clip in two parts, in none or out of range; an actor in two
        parts of a speaker-independent protocol; a clip of a corpus that its part is not of.
    """
    where = f"data.protocol={split.protocol}, data.fold={split.fold}"
    parts = {"training": split.train, "validation": split.val, "test": split.test}
    for part, index in parts.items():
        remedy = "use more actors, or another fold"
        if split.protocol == "given":
            remedy = f"name rows of {part} in the manifest's column split, or take another protocol"
        check(len(index) > 0, f"{where}: no clips for {part}; {remedy}")
    every, counts = np.unique(np.concatenate(list(parts.values())), return_counts=True)
    n_clips, report_it = len(actor_B), "this is a bug, report it"
    used = np.arange(n_clips)
    if split.protocol == CROSS_CORPUS and corpus_B is not None:
        used = find_used(split.fold, parts, corpus_B, where)
    check(
        every[0] >= 0 and every[-1] < n_clips,
        f"{where}: names clips that are not among the {n_clips}; {report_it}",
    )
    for clips, what in (
        (every[counts > 1], "twice"),
        (np.setdiff1d(used, every), "in no part"),
    ):
        check(len(clips) == 0, f"{where}: clip {clips[:1].tolist()} is used {what}; {report_it}")
    if split.protocol in _MAY_SHARE:
        return
    uses = Counter(actor for index in parts.values() for actor in set(actor_B[index].tolist()))
    shared = sorted(actor for actor, count in uses.items() if count > 1)
    check(not shared, f"{where}: actors {shared} are in two parts; {report_it}")


def _make_study_split(seed: int, emotion_B: np.ndarray) -> Split:
    from sklearn.model_selection import train_test_split

    n_part = round(_STUDY_PART * len(emotion_B))
    _, counts = np.unique(emotion_B, return_counts=True)
    check(
        n_part >= len(counts) and counts.min() >= _PARTS,
        f"data.protocol=study: {len(emotion_B)} clips are too few to give each part some of every "
        f"emotion (parts of {n_part} for {len(counts)} emotions, of which the rarest has "
        f"{counts.min()}); use more clips, or leave rare emotions out by data.labels",
    )
    rest = np.arange(len(emotion_B))
    rest, test = train_test_split(rest, test_size=n_part, random_state=seed, stratify=emotion_B)
    train, val = train_test_split(
        rest, test_size=n_part, random_state=seed, stratify=emotion_B[rest]
    )
    return Split("study", 1, np.sort(train), np.sort(val), np.sort(test))


def _take_given(given_B: np.ndarray | None) -> Split:
    check(
        given_B is not None,
        "data.protocol=given: the corpus names no split; give a manifest with a column split, or "
        "take another protocol",
    )
    train, val, test = (np.flatnonzero(given_B == part) for part in ("train", "val", "test"))
    return Split("given", 1, train, val, test)


def draw_split(data: DataConfig, seed: int, corpus: Corpus) -> Split:
    """The split of `corpus` by the protocol and fold of its settings.

    Args:
      data: settings of the corpus.
      seed: of the split if `data.split_seed` is not set.
      corpus: clips.

    Raises:
      UserError: see `splits.make_split`.
    """
    corpus_B = np.array(list_corpora(corpus.file_names)) if data.protocol == CROSS_CORPUS else None
    split = make_split(
        data.protocol, data.fold, seed if data.split_seed is None else data.split_seed,
        corpus.emotion_B, corpus.actor_B,
        n_speakers=len(corpus.speakers) or None, stratum_B=list_strata(corpus.attributes),
        given_B=corpus.attributes.get("split"), corpus_B=corpus_B,
    )  # fmt: skip
    if data.train_on_validation:
        split = dataclasses.replace(split, train=np.union1d(split.train, split.val))
    return split
