"""Whether a corpus can be split as asked, checked before any clip is read."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ser_jax.config import DataConfig
from ser_jax.data.assembly import make_corpus
from ser_jax.data.corpus import Corpus
from ser_jax.data.cross_corpus import CROSS_CORPUS, find_common
from ser_jax.data.labels import find_class, make_label_table
from ser_jax.data.leaks import describe_split
from ser_jax.data.sources.find import find_source
from ser_jax.data.sources.listing import Clip
from ser_jax.data.splits import check_fold, count_folds, draw_split
from ser_jax.errors import FewWarnings, check, count_noun, warn, warn_once

_PARTS = 3  # training, validation, test


class _Known(NamedTuple):
    """What is known of a corpus before it is read."""

    clips: list[Clip]
    classes: list[str]
    corpus: Corpus


def check_protocols(runs: Iterable[tuple[DataConfig, int]]) -> None:
    """Raise if a protocol cannot split a corpus, before any clip is read or fetched.

    Args:
      runs: settings, and the seed of the split if `data.split_seed` is not set.

    Raises:
      UserError: as `prepare`; no such fold; too few speakers; a class with fewer clips than the
        split has parts, or one that no training speaker has.
    """
    corpora: dict[DataConfig, _Known] = {}  # each is listed once for all splits of a grid
    warnings: dict[str, None] = {}
    for data, seed in runs:
        if data.corpus == "synthetic" or (data.corpus == "ravdess" and data.root is None):
            check_fold(data.protocol, data.fold, count_folds(data.protocol))
            continue  # known to be complete
        base = data.without_split()
        if data.protocol == "given":  # its column split must be checked too
            base = dataclasses.replace(data, split_seed=None)
        if base not in corpora:
            corpora[base] = _list_kept(base)
            _check_speakers(corpora[base], data)
            _check_counts(corpora[base])
        warnings |= dict.fromkeys(_check_split(corpora[base], data, seed))
    few = FewWarnings()
    for warning in warnings:
        few.add(warning)
    if few.n_unsaid:
        warn(f"{few.n_unsaid} more of this kind")


def _check_split(known: _Known, data: DataConfig, seed: int) -> list[str]:
    """Raise if a class has no training clips; return warnings about the split."""
    split = draw_split(data, seed, known.corpus)
    emotion_B, labels = known.corpus.emotion_B, known.corpus.labels
    untrained = set(emotion_B.tolist()) - set(emotion_B[split.train].tolist())
    check(
        not untrained,
        f"data.protocol={data.protocol}, data.fold={data.fold}: no training speaker has clips of "
        f"{', '.join(labels[place] for place in sorted(untrained))}; take another "
        "data.split_seed, or leave such clips out by data.labels",
    )
    return describe_split(split, known.clips, known.classes)


def count_speakers(data: DataConfig) -> int | None:
    """Number of speakers, for `splits.count_folds`; `None` for RAVDESS' 24 actors."""
    if data.has_ravdess_actors:
        return None
    return len({clip.facts.speaker for clip in _list_kept(data).clips})


def _list_kept(data: DataConfig) -> _Known:
    """The clips that `data.labels` and cross_corpus keep, and their classes."""
    table = make_label_table(data.labels)
    clips, classes = [], []
    for clip in find_source(data).list_clips().clips:
        name = find_class(table, clip.facts.emotion, clip.where)
        if name is not None:
            clips.append(clip)
            classes.append(name)
    check(len(clips) > 0, f"data.labels={data.labels}: leaves no clips of {data.title}")
    if data.protocol == CROSS_CORPUS:
        clips, classes = _keep_common(data, clips, classes)
    first = clips[0]
    check(
        len(set(classes)) > 1,
        f"{first.where}: emotion={first.facts.emotion}: all {len(clips)} clips are {classes[0]}; a "
        "network needs two classes: add clips of others, or map words to several by data.labels",
    )
    facts, names = [clip.facts for clip in clips], [clip.file_name for clip in clips]
    corpus = make_corpus(data, names, facts, classes, np.zeros(len(clips), np.int32), checksum="")
    return _Known(clips, classes, corpus)


def _keep_common(
    data: DataConfig, clips: list[Clip], classes: list[str]
) -> tuple[list[Clip], list[str]]:
    """The clips of common classes, and their classes; a warning says what is left out."""
    pairs = list(zip(clips, classes, strict=True))
    common = find_common(data, ((clip.file_name, name, 1) for clip, name in pairs))
    if said := common.describe():
        warn_once(f"data.protocol={CROSS_CORPUS}: {said} left out, since not every corpus has them")
    kept = [(clip, name) for clip, name in pairs if name in common.classes]
    return [clip for clip, _ in kept], [name for _, name in kept]


def _check_speakers(known: _Known, data: DataConfig) -> None:
    first = known.clips[0]
    check(
        len({clip.facts.speaker for clip in known.clips}) > 1
        or data.protocol in ("study", "given"),
        f"{first.where}: speaker={first.facts.speaker}: is the only speaker; "
        f"data.protocol={data.protocol} needs several; add speakers, or take data.protocol=study",
    )


def _check_counts(known: _Known) -> None:
    for name, count in Counter(known.classes).items():
        first = known.clips[known.classes.index(name)]
        check(
            count >= _PARTS,
            f"{first.where}: emotion={first.facts.emotion}: class {name} has "
            f"{count_noun(count, 'clip')}, fewer than the {_PARTS} parts of the split; add "
            f"clips, or leave them out: data.labels={{{first.facts.emotion}: null}}",
        )
