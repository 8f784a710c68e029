"""Warnings about a valid split: what a part lacks, and what leaks from one part to another."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ser_jax.data.cross_corpus import CROSS_CORPUS, list_corpora
from ser_jax.data.sources.listing import Clip
from ser_jax.data.speakers import DRAWN
from ser_jax.data.splits import Split

_SHOWN = 5  # names in a line
_FEW = 12  # speakers: with so few, a single split says little


def describe_split(split: Split, clips: Sequence[Clip], classes: Sequence[str]) -> list[str]:
    """One line each for: classes or genders missing from validation or test; speakers in two parts
    of a given split; parts of one recording that overlap across the split.

    Args:
      split: of the clips.
      clips, classes: those that were split.
    """
    parts = {"training": split.train, "validation": split.val, "test": split.test}
    where = f"data.protocol={split.protocol}"
    lines = [
        f"{where}, data.fold={split.fold}: {lack}" for lack in _list_lacks(split, clips, classes)
    ]
    part_B = np.empty(len(clips), object)
    for part, index in parts.items():
        part_B[index] = part
    if split.protocol == "given" and (shared := _list_shared(clips, part_B)):
        count = len(shared)
        lines.append(
            f"{where}: {count} speaker{' is' if count == 1 else 's are'} in two parts, so that the "
            f"test is easier than with unknown speakers: {', '.join(shared[:_SHOWN])}"
        )
    if overlapping := list(_find_overlaps(clips, part_B)):
        one, other = overlapping[0]
        lines.append(
            f"{where}: parts of recordings overlap across the split ({len(overlapping)} pairs), so "
            f"that test clips contain training sound: {one.file_name} and {other.file_name}; take "
            "data.protocol=speakers, or give such rows one split"
        )
    return lines


def _list_lacks(split: Split, clips: Sequence[Clip], classes: Sequence[str]) -> Iterator[str]:
    groups = {"clips of": np.array(classes), "": np.array([clip.facts.gender for clip in clips])}
    n_speakers = len({clip.facts.speaker for clip in clips})
    remedy = "take another data.split_seed"
    if split.protocol in DRAWN and n_speakers <= _FEW:
        may_fold = split.protocol != "speakers5" and n_speakers >= DRAWN["speakers5"]
        better = "speakers5 or loso" if may_fold else "loso"
        remedy = f"with {n_speakers} speakers take data.protocol={better}"
    elif split.protocol not in (*DRAWN, CROSS_CORPUS):
        remedy = "figures cover the others only"
    parts, own_B = [("validation", split.val), ("test", split.test)], np.ones(len(clips), bool)
    if split.protocol == CROSS_CORPUS:
        corpus_B = np.array(list_corpora(clip.file_name for clip in clips))
        own_B = corpus_B == corpus_B[split.train[0]]
        # Across corpora all clips of one are the test.
        parts = [(part, index) for part, index in parts if own_B[index[0]]]
    for part, index in parts:
        for what, value_B in groups.items():
            if split.protocol == "loso" and (part == "test" or not what):
                continue  # one speaker, who has one gender
            missing = sorted(set(value_B[own_B].tolist()) - set(value_B[index].tolist()) - {""})
            if missing:
                said = (
                    f"{what} {', '.join(missing)}" if what else f"{' or '.join(missing)} speakers"
                )
                yield f"no {said} in {part}; {remedy}"


def _list_shared(clips: Sequence[Clip], part_B: np.ndarray) -> list[str]:
    parts: dict[str, set[str]] = defaultdict(set)
    for clip, part in zip(clips, part_B, strict=True):
        parts[clip.facts.speaker].add(part)
    return sorted(speaker for speaker, own in parts.items() if len(own) > 1)


def _find_overlaps(clips: Sequence[Clip], part_B: np.ndarray) -> Iterator[tuple[Clip, Clip]]:
    """Pairs of clips that overlap in one file but lie in different parts of the split."""
    by_file: dict[Path, list[tuple[float, float, int]]] = defaultdict(list)
    for number, clip in enumerate(clips):
        if clip.path is not None and part_B[number] is not None:
            start_s, end_s = clip.part_s or (0.0, np.inf)
            by_file[clip.path].append((start_s, end_s, number))
    for spans in by_file.values():
        spans.sort()
        latest: dict[str, tuple[float, int]] = {}  # for each part, its clip that ends last
        for start_s, end_s, number in spans:
            for part, (other_end_s, other) in latest.items():
                if part != part_B[number] and other_end_s > start_s:
                    yield clips[other], clips[number]
            if end_s > latest.get(part_B[number], (0.0, 0))[0]:
                latest[part_B[number]] = end_s, number
