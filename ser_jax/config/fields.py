"""Annotations of fields: the bounds of their values, and the function that checks them."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from ser_jax.errors import check

_Mark = TypeVar("_Mark")


class Bound(NamedTuple):
    """A condition on a value, in the words of the error message."""

    words: str
    holds: Callable[[Any], bool]
    by_entry: bool = False
    """Whether each entry of a list is checked on its own."""


def at_least(least: float) -> Bound:
    return Bound(f"must be at least {least}", lambda value: value >= least)


def between(low: float, high: float, unit: str = "") -> Bound:
    """An interval that includes both ends."""
    return Bound(f"must lie between {low} and {high}{unit}", lambda value: low <= value <= high)


def within(interval: str, unit: str = "") -> Bound:
    """An interval such as '[0, 1)', which excludes an end with a round bracket."""
    low, high = map(float, interval[1:-1].split(","))
    open_ends = {end for end, bracket in ((low, "("), (high, ")")) if bracket in interval}

    def holds(value: float) -> bool:
        return low <= value <= high and value not in open_ends

    return Bound(f"must lie in {interval}{unit}", holds)


def positive(remedy: str = "") -> Bound:
    return Bound(f"must be positive{remedy}", lambda value: value > 0)


def not_empty(words: str) -> Bound:
    """A list with at least one entry."""
    return Bound(words, lambda values: len(values) > 0)


def entries_at_least(least: int) -> Bound:
    words = f"every entry must be at least {least}"
    return Bound(words, lambda values: all(value >= least for value in values))


def each(bound: Bound) -> Bound:
    """A bound on each entry of a list."""
    return bound._replace(by_entry=True)


OWN = r"[^\W\d][\w.]*:[^\W\d]\w*"
"""MODULE:CLASS."""


def one_of_or_own(names: tuple[str, ...]) -> Bound:
    """One of `names`, or MODULE:CLASS."""
    words = f"must be one of {', '.join(names)} or MODULE:CLASS of your own"
    return Bound(words, lambda name: name in names or re.fullmatch(OWN, name) is not None)


SEED = between(0, 2**32 - 1)
"""Seeds have 32 bits, as NumPy's generators and scikit-learn's splits require."""


def check_bounds(config: Any, section: str = "") -> None:
    """Check the bounds of a config's fields; None is within any bound.

    Raises:
      UserError: a value out of bounds.
    """
    prefix = section and f"{section}."
    for name, bound in list_marks(config, Bound):
        value = getattr(config, name)
        for one in value if bound.by_entry else [value]:
            shown = list(one) if isinstance(one, tuple) else one
            check(one is None or bound.holds(one), f"{prefix}{name}={shown}: {bound.words}")


def list_marks(section: Any, kind: type[_Mark]) -> list[tuple[str, _Mark]]:
    """(field name, annotation) of one kind of annotation; empty if `section` is not a config."""
    fields = dataclasses.fields(section) if dataclasses.is_dataclass(section) else ()
    marks = ((f.name, mark) for f in fields for mark in getattr(f.type, "__metadata__", ()))
    return [(name, mark) for name, mark in marks if isinstance(mark, kind)]


def check_order(section: str, config: Any, low: str, high: str) -> None:
    """Check that the field `low` does not exceed the field `high`."""
    a, b = getattr(config, low), getattr(config, high)
    check(a <= b, f"{section}.{low}={a}: must not exceed {section}.{high}={b}")


def check_finite(config: Any, prefix: str = "") -> None:
    """Check that no field of any section is NaN or infinite."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            check_finite(value, f"{prefix}{field.name}.")
        elif isinstance(value, float):
            check(math.isfinite(value), f"{prefix}{field.name}={value}: must be a finite number")
