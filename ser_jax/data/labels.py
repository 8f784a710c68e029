"""From the corpora's words for emotions to classes: one table, which users can show and change."""

import itertools
import json
import re
import shlex
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ser_jax.config import DataConfig
from ser_jax.data.sources.ravdess import EMOTIONS
from ser_jax.errors import UserError, check

COMMON = (*EMOTIONS, "bored")
"""The common classes in their order, RAVDESS' eight first."""

TABLE: dict[str, str] = {
    **{name: name for name in COMMON},
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "anger": "angry",
    "fear": "fearful",
    "anxiety": "fearful",
    "disgusted": "disgust",
    "surprise": "surprised",
    "pleasant surprise": "surprised",
    "boredom": "bored",
}
"""From word to class; `data.labels` changes it."""

_SHOWN = 20  # words in a message


def make_label_table(labels: Mapping[str, str | None]) -> dict[str, str | None]:
    """The table with the changes of `data.labels`; `None` leaves clips out.

    Raises:
      UserError: a class that is neither in the common set nor kept under its own name.
    """
    table: dict[str, str | None] = dict(TABLE)
    own = {tidy(word) for word, name in labels.items() if name and tidy(name) == tidy(word)}
    for word, name in labels.items():
        check(
            name is None or tidy(name) in {*COMMON, *own},
            f"data.labels.{word}={name}: no such class; known are {', '.join(COMMON)}; a new class "
            f"is a word mapped onto itself, as {{{word}: {word}}}; null leaves the clips out",
        )
        table[tidy(word)] = None if name is None else tidy(name)
    return table


def tidy(word: str) -> str:
    """A word as the table spells it: `Pleasant_Surprise ` becomes `pleasant surprise`."""
    word = unicodedata.normalize("NFC", word)
    return " ".join(word.replace("_", " ").lower().split())


def find_class(table: Mapping[str, str | None], word: str, where: str) -> str | None:
    """The class of a word; `None` if its clips are left out.

    Raises:
      UserError: the word is not in the table; the message begins with `where`.
    """
    if tidy(word) not in table:
        raise UserError(
            f"{where}: emotion={word}: not in the table of labels (ser-jax labels shows it); "
            f"correct it, or map it by data.labels, as in {{{word}: happy}}, or to null to leave "
            "its clips out"
        )
    return table[tidy(word)]


def check_words(
    labels: Mapping[str, str | None], words: Sequence[str], path: Path, rows: Sequence[int]
) -> None:
    """Raise where words of a manifest's rows are not in the table, naming all of them.

    Args:
      labels: `data.labels`.
      words: of each row.
      path: of the manifest.
      rows: their numbers.
    """
    table = make_label_table(labels)
    known = {word: tidy(word) in table for word in dict.fromkeys(words)}
    unknown: dict[str, list[int]] = defaultdict(list)
    for word, row in zip(words, rows, strict=True):
        if not known[word]:
            unknown[word].append(row)
    if not unknown:
        return
    shown = dict(itertools.islice(unknown.items(), _SHOWN))
    said = ", ".join(f"{word} ({_count_rows(found)})" for word, found in shown.items())
    said += f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    first = next(iter(unknown.values()))[0]
    raise UserError(
        f"{path}: row {first}: emotion={next(iter(unknown))}: not in the table of labels (ser-jax "
        f"labels shows it)"
        + (f"; {len(unknown)} words are not in it: {said}" if len(unknown) > 1 else "")
        + f"; correct it, or map it by data.labels, as in {_propose(labels, shown)}, or to null "
        "to leave its clips out"
    )


def _count_rows(rows: Sequence[int]) -> str:
    return f"row {rows[0]}" if len(rows) == 1 else f"{len(rows)} rows from row {rows[0]}"


def _propose(labels: Mapping[str, str | None], unknown: Iterable[str]) -> str:
    """--data.labels with every unknown word mapped to some class, for the user to change."""
    examples = itertools.cycle(("happy", "sad", "angry", "neutral"))
    tree = {**labels, **{word: next(examples) for word in unknown}}
    pairs = (f"{_quote(word)}: {_quote(name or 'null')}" for word, name in tree.items())
    return f"--data.labels {shlex.quote('{' + ', '.join(pairs) + '}')}"


def _quote(word: str) -> str:
    """A word, quoted where YAML would not read it as text."""
    return word if re.fullmatch(r"\w+( \w+)*", word) else json.dumps(word, ensure_ascii=False)


def list_in_order(classes: Iterable[str]) -> tuple[str, ...]:
    """Classes in the order of the common set, then by name."""
    found = set(classes)
    return (*(name for name in COMMON if name in found), *sorted(found - set(COMMON)))


def list_classes(data: DataConfig, words: Iterable[str]) -> tuple[str, ...]:
    """The classes of a corpus with these words, in the order of the common set, then by name.

    Raises:
      UserError: fewer than two are left.
    """
    table = make_label_table(data.labels)
    found = {find_class(table, word, f"data.corpus={data.corpus}") for word in words} - {None}
    classes = list_in_order(name for name in found if name is not None)
    check(
        len(classes) > 1,
        f"data.labels={data.labels}: leaves {len(classes)} of the classes of {data.title}; "
        "a network needs two",
    )
    return classes
