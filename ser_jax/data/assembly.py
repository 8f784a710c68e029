"""From stored clips to a corpus in memory: words become classes, speakers become numbers, and clips
are padded to one length."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from ser_jax.audio.reading import find_sound
from ser_jax.config import DataConfig
from ser_jax.data.corpus import Corpus, CorpusDigest, PrepareReport
from ser_jax.data.cross_corpus import CROSS_CORPUS, find_common
from ser_jax.data.labels import find_class, list_classes, list_in_order, make_label_table
from ser_jax.data.records import Stored, damaged, make_silence
from ser_jax.data.sources.filenames import ATTRIBUTES, GRAMMARS, Facts
from ser_jax.errors import check

_MOST_TIMES = 20  # the longest clip, in median clips, from which padding may be refused
_MOST_BYTES = 2e9  # of all clips padded to the longest


def assemble(
    data: DataConfig, clips: Iterable[Stored], report: PrepareReport, *, keep: bool = True
) -> tuple[Corpus, np.ndarray, list[np.ndarray]]:
    """The corpus of a store's clips without those that `data.labels` or cross_corpus leaves out.

    Args:
      data: settings.
      clips: all of the store's, in order.
      report: of the store.
      keep: keep the clips' samples; otherwise silence of the same length replaces them.

    Returns:
      The corpus with a `wave_BN` of no columns; the position of each of its clips in the store; and
      the clips, trimmed by `data.trim_db` and cut to `data.clip_s`, of which memory holds no more.

    Raises:
      UserError: an emotion that is not in the table of labels; fewer than two classes, or no clips
        left; the store is damaged.
    """
    table, common = make_label_table(data.labels), _find_common_here(data, report)
    digest = CorpusDigest(data)
    kept: list[Stored] = []
    names, rows, row = [], [], -1
    for row, clip in enumerate(clips):
        name = find_class(table, clip.facts.emotion, data.title)
        if name is None or (common is not None and name not in common):
            continue
        if chooses_clips(data):  # otherwise the store's checksum applies
            digest.add(clip.file_name, clip.wave_N, name, clip.facts.speaker)
        wave_N = cut_clip(data, clip.wave_N)
        # A copy, since a view would keep the whole clip in memory.
        wave_N = wave_N.copy() if keep else make_silence(len(wave_N))
        kept.append(clip._replace(wave_N=wave_N))
        names.append(name)
        rows.append(row)
    if row + 1 != report.clips:
        raise damaged(report.folder, ValueError(f"{row + 1} of {report.clips} clips"))
    corpus = make_corpus(
        data,
        [clip.file_name for clip in kept],
        [clip.facts for clip in kept],
        names,
        length_B=np.array([len(clip.wave_N) for clip in kept], np.int32),
        checksum=digest.hexdigest() if chooses_clips(data) else report.checksum,
    )
    return corpus, np.array(rows, np.int64), [clip.wave_N for clip in kept]


def chooses_clips(data: DataConfig) -> bool:
    """Whether settings change the classes of a store's clips, or leave some out."""
    return len(data.labels) > 0 or data.protocol == CROSS_CORPUS


def _find_common_here(data: DataConfig, report: PrepareReport) -> frozenset[str] | None:
    """The classes of which clips are kept; `None`: all."""
    if data.protocol != CROSS_CORPUS:
        return None
    counts = ((speaker, name, count) for (name, speaker, _), count in report.counts.items())
    return find_common(data, counts).classes


def make_corpus(
    data: DataConfig,
    file_names: Sequence[str],
    facts: Sequence[Facts],
    names: Sequence[str],
    length_B: np.ndarray,
    checksum: str,
) -> Corpus:
    """A corpus with a `wave_BN` of no columns.

    Args:
      data: settings.
      file_names, facts, names: of the clips; their classes.
      length_B, checksum: see `Corpus`.

    Raises:
      UserError: no clips; fewer than two classes.
    """
    check(len(facts) > 0, f"data.labels={data.labels}: leaves no clips of {data.title}")
    labels = _list_labels(data, facts, names)
    actor_B, speakers = _number_speakers(data, facts)
    values = {name: np.array([getattr(one, name) for one in facts]) for name in ATTRIBUTES}
    return Corpus(
        name=data.title,
        rate_hz=data.rate_hz,
        labels=labels,
        wave_BN=np.zeros((len(facts), 0), np.int16),
        length_B=length_B,
        emotion_B=np.array([labels.index(name) for name in names], np.int32),
        actor_B=actor_B,
        attributes={name: value_B for name, value_B in values.items() if (value_B != "").any()},
        file_names=tuple(file_names),
        checksum=checksum,
        speakers=speakers,
    )


def with_samples(
    data: DataConfig, corpus: Corpus, waves: Iterable[tuple[int, np.ndarray]]
) -> Corpus:
    """The corpus with the given samples of some of its clips; the others are zeros, which take no
    memory.

    Raises:
      UserError: padding all clips to the longest would take gigabytes.
    """
    n_samples = _count_samples(data) or _find_longest(corpus)
    wave_BN = np.zeros((len(corpus.file_names), n_samples), np.int16)
    for row, wave_N in waves:
        wave_BN[row, : len(wave_N)] = wave_N
    return dataclasses.replace(corpus, wave_BN=wave_BN)


def cut_clip(data: DataConfig, wave_N: np.ndarray) -> np.ndarray:
    """A clip trimmed by `data.trim_db`, then cut, but not padded, to `data.clip_s`."""
    sound = find_sound(wave_N, data.rate_hz, data.trim_db, data.trim_margin_s)
    return wave_N[sound][: _count_samples(data)]


def _count_samples(data: DataConfig) -> int | None:
    return None if data.clip_s is None else max(1, round(data.clip_s * data.rate_hz))


def _find_longest(corpus: Corpus) -> int:
    """Samples of the longest clip, to which all others are padded."""
    length_B = corpus.length_B
    longest, median_s = int(length_B.max()), float(np.median(length_B)) / corpus.rate_hz
    n_bytes = 2 * len(length_B) * longest
    check(
        n_bytes <= _MOST_BYTES or longest <= _MOST_TIMES * median_s * corpus.rate_hz,
        f"{corpus.file_names[int(length_B.argmax())]}: lasts {longest / corpus.rate_hz:.0f} s, the "
        f"median clip {median_s:.1f} s: all {len(length_B)} padded to it would take "
        f"{n_bytes / 1e9:.1f} GB; set data.clip_s, as in --data.clip_s "
        f"{max(1, round(2 * median_s))}, or leave that clip out",
    )
    return longest


def _list_labels(
    data: DataConfig, facts: Sequence[Facts], classes: Sequence[str]
) -> tuple[str, ...]:
    """The classes: for a manifest, and under cross_corpus, those that occur; for a named corpus all
    that it declares."""
    if data.protocol == CROSS_CORPUS:
        return list_in_order(classes)
    names = sorted(data.roots) if data.corpus == "joined" else [data.corpus]
    words: list[str] = []
    for name in names:
        grammar = GRAMMARS.get("ravdess" if name == "synthetic" else name)
        words += grammar.words if grammar else [one.emotion for one in facts]
    return list_classes(data, dict.fromkeys(words))


def _number_speakers(
    data: DataConfig, facts: Sequence[Facts]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """See `Corpus.actor_B` and `Corpus.speakers`."""
    if data.has_ravdess_actors:
        return np.array([int(one.speaker) for one in facts], np.int32), ()
    speakers = sorted({one.speaker for one in facts})
    number = {speaker: place for place, speaker in enumerate(speakers, 1)}
    return np.array([number[one.speaker] for one in facts], np.int32), tuple(speakers)
