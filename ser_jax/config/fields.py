"""What stands beside a field's type: the bounds of its values, which one checker holds."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from ser_jax.errors import check

_Mark = TypeVar("_Mark")


class Bound(NamedTuple):
    """What a value must be, in the words of the message that refuses it."""

    words: str
    holds: Callable[[Any], bool]
    by_entry: bool = False
    """Whether each entry of a list is held to it, and refused, by itself."""


def at_least(least: float) -> Bound:
    return Bound(f"must be at least {least}", lambda value: value >= least)


def between(low: float, high: float, unit: str = "") -> Bound:
    """Both ends included."""
    return Bound(f"must lie between {low} and {high}{unit}", lambda value: low <= value <= high)


def within(interval: str, unit: str = "") -> Bound:
    """An interval such as '[0, 1)', without the end at the round bracket."""
    low, high = map(float, interval[1:-1].split(","))
    open_ends = {end for end, bracket in ((low, "("), (high, ")")) if bracket in interval}

    def holds(value: float) -> bool:
        return low <= value <= high and value not in open_ends

    return Bound(f"must lie in {interval}{unit}", holds)


def positive(remedy: str = "") -> Bound:
    return Bound(f"must be positive{remedy}", lambda value: value > 0)


def not_empty(words: str) -> Bound:
    """A list with an entry at least."""
    return Bound(words, lambda values: len(values) > 0)


def entries_at_least(least: int) -> Bound:
    words = f"every entry must be at least {least}"
    return Bound(words, lambda values: all(value >= least for value in values))


def each(bound: Bound) -> Bound:
    """A bound of the entries of a list."""
    return bound._replace(by_entry=True)


OWN = r"[^\W\d][\w.]*:[^\W\d]\w*"
"""MODULE:CLASS."""


def one_of_or_own(names: tuple[str, ...]) -> Bound:
    """One of some names, or MODULE:CLASS."""
    words = f"must be one of {', '.join(names)} or MODULE:CLASS of your own"
    return Bound(words, lambda name: name in names or re.fullmatch(OWN, name) is not None)


SEED = between(0, 2**32 - 1)
"""What NumPy's generators and scikit-learn's splits take: 32 bits."""


def check_bounds(config: Any, section: str = "") -> None:
    """Hold a config that is being made to the bounds of its fields; null is held to none.

    Raises:
      UserError: a value out of its bounds.
    """
    prefix = section and f"{section}."
    for name, bound in list_marks(config, Bound):
        value = getattr(config, name)
        for one in value if bound.by_entry else [value]:
            shown = list(one) if isinstance(one, tuple) else one
            check(one is None or bound.holds(one), f"{prefix}{name}={shown}: {bound.words}")


def list_marks(section: Any, kind: type[_Mark]) -> list[tuple[str, _Mark]]:
    """Fields and their annotations of a kind, of a config or its class; none of what is neither."""
    fields = dataclasses.fields(section) if dataclasses.is_dataclass(section) else ()
    marks = ((f.name, mark) for f in fields for mark in getattr(f.type, "__metadata__", ()))
    return [(name, mark) for name, mark in marks if isinstance(mark, kind)]


def check_order(section: str, config: Any, low: str, high: str) -> None:
    """Refuse a field `low` above the field `high`."""
    a, b = getattr(config, low), getattr(config, high)
    check(a <= b, f"{section}.{low}={a}: must not exceed {section}.{high}={b}")


def check_finite(config: Any, prefix: str = "") -> None:
    """Refuse NaN and infinity in any section."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            check_finite(value, f"{prefix}{field.name}.")
        elif isinstance(value, float):
            check(math.isfinite(value), f"{prefix}{field.name}={value}: must be a finite number")
