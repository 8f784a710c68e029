"""Protocol cross_corpus: trained on one of several joined corpora, and tested on another or on
unseen speakers of the same, with the classes that all of them have."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ser_jax.config import DataConfig
from ser_jax.data.labels import list_in_order
from ser_jax.data.speakers import choose_speakers, choose_validation
from ser_jax.errors import check, count_noun

CROSS_CORPUS = "cross_corpus"
_ARROW = " -> "


class Common(NamedTuple):
    """Classes of joined corpora."""

    classes: frozenset[str]
    """Those that every corpus has."""
    n_left_out: dict[str, int]
    """Number of clips of each other class."""

    def describe(self) -> str:
        """`384 clips of calm (192) and disgust (192)`; empty if all classes are common."""
        said = [f"{name} ({count})" for name, count in self.n_left_out.items()]
        listed = " and ".join(filter(None, [", ".join(said[:-1]), *said[-1:]]))
        return listed and f"{count_noun(sum(self.n_left_out.values()), 'clip')} of {listed}"


def list_corpora(names: Iterable[str]) -> list[str]:
    """The corpus of each clip or speaker of joined corpora, with which its name begins."""
    return [name.partition("/")[0] for name in names]


def find_pair(corpora: Sequence[str], fold: int) -> tuple[str, str]:
    """The corpus that trains and the corpus that is tested in a fold, counted from 1.

    Args:
      corpora: names, sorted.
      fold: 1 to the square of their number; the tested corpus changes fastest.
    """
    source, target = divmod(fold - 1, len(corpora))
    return corpora[source], corpora[target]


def name_pair(data: DataConfig) -> str:
    """The name of a fold: `ravdess -> nemo`, trained on the former; empty under other protocols."""
    if data.protocol != CROSS_CORPUS:
        return ""
    check(
        data.fold <= len(data.corpora) ** 2,
        f"data.fold={data.fold}: data.protocol={CROSS_CORPUS} of {len(data.corpora)} corpora has "
        f"folds 1 to {len(data.corpora) ** 2}",
    )
    return _ARROW.join(find_pair(data.corpora, data.fold))


def record_pair(data: DataConfig) -> dict[str, str]:
    """The fold's name for metrics.json and results.json, where it has one."""
    pair = name_pair(data)
    return {"fold_name": pair} if pair else {}


def read_pair(name: str) -> tuple[str, str]:
    """The corpora of a fold that `name_pair` has named."""
    source, _, target = name.partition(_ARROW)
    return source, target


def find_common(data: DataConfig, counts: Iterable[tuple[str, str, int]]) -> Common:
    """The classes that every joined corpus has, and what the others lose.

    Args:
      data: settings.
      counts: name of a clip or speaker, its class, and the number of such clips.

    Raises:
      UserError: fewer than two common classes.
    """
    classes: dict[str, set[str]] = defaultdict(set)
    n_clips: Counter[str] = Counter()
    for name, label, count in counts:
        classes[name.partition("/")[0]].add(label)
        n_clips[label] += count
    common = frozenset[str].intersection(*(frozenset(classes[name]) for name in data.corpora))
    said = "; ".join(f"{name} has {', '.join(list_in_order(classes[name])) or 'no clips'}"
                     for name in data.corpora)  # fmt: skip
    check(
        len(common) > 1,
        f"data.protocol={CROSS_CORPUS}: needs two classes that all corpora have, and there "
        f"{'is one' if common else 'are none'}: {said}; map words to common classes by data.labels",
    )
    others = list_in_order(n_clips.keys() - common)
    return Common(common, {label: n_clips[label] for label in others})


def split_pair(
    fold: int,
    seed: int,
    emotion_B: np.ndarray,
    actor_B: np.ndarray,
    corpus_B: np.ndarray,
    stratum_B: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clips of training, validation and test.

    Within a corpus these are the parts that protocol `speakers` draws from it alone. Across corpora
    speakers with about 15 % of the clips of the one validate, and all clips of the other are the
    test. Arguments as in `splits.make_split`.

    Raises:
      UserError: too few speakers in the corpus that trains.
    """
    source, target = find_pair(np.unique(corpus_B).tolist(), fold)
    own = np.flatnonzero(corpus_B == source)
    stratum = None if stratum_B is None else stratum_B[own]
    n_speakers, least = len(np.unique(actor_B[own])), 3 if source == target else 2
    check(
        n_speakers >= least,
        f"data.protocol={CROSS_CORPUS}, data.fold={fold} ({source} -> {target}): needs at least "
        f"{least} speakers of {source}, and there {'is' if n_speakers == 1 else 'are'} "
        f"{n_speakers}; add speakers, or run other folds",
    )
    if source == target:
        val, test = choose_speakers("speakers", 1, seed, actor_B[own], emotion_B[own], stratum)
        tested_B = np.isin(actor_B, test)
    else:
        val = choose_validation(seed, actor_B[own], emotion_B[own], stratum)
        tested_B = corpus_B == target
    val_B = np.isin(actor_B, val)
    train_B = (corpus_B == source) & ~val_B & ~tested_B
    train, val, test = map(np.flatnonzero, (train_B, val_B, tested_B))
    return train, val, test


def find_used(
    fold: int, parts: Mapping[str, np.ndarray], corpus_B: np.ndarray, where: str
) -> np.ndarray:
    """The clips that a fold must use: those of its two corpora, but of no third one.

    Args:
      fold: counted from 1.
      parts: clips of training, validation and test, in this order.
      corpus_B: str [clips], name of the corpus.
      where: the start of a message.

    Raises:
      UserError: a clip of a corpus that its part is not of.
    """
    source, target = find_pair(np.unique(corpus_B).tolist(), fold)
    for (part, index), own in zip(parts.items(), (source, source, target), strict=True):
        others = index[corpus_B[index] != own].tolist()
        check(
            not others,
            f"{where}: clip {others[:1]} of {part} is not of {own}; this is a bug, report it",
        )
    return np.flatnonzero(np.isin(corpus_B, (source, target)))
