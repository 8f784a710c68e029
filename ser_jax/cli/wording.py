"""Words for people: names of types, and suggestions for misspelt words."""

import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


_NONES = ("none", "None", "NONE")
"""Python's word for null, as people spell it."""


def _is_text(kind: Any) -> bool:
    """Whether a type is a subclass of str, of which there is one: the name of a class."""
    return isinstance(kind, type) and issubclass(kind, str)


def suggest(given: str, known: Iterable[str], prog: str) -> str:
    """The remedy for an unknown word: the nearest known one, or the help."""
    words = list(known)
    dashes = given[: len(given) - len(given.lstrip("-"))]
    given = dashes + given.lstrip("-").replace("-", "_")
    near = difflib.get_close_matches(given, words, n=1, cutoff=0.7)
    if not near:  # perhaps a key without its section: --epochs
        last = {word.lstrip("-").rsplit(".", 1)[-1]: word for word in words}
        near = [last[n] for n in difflib.get_close_matches(given.lstrip("-"), last, n=1)]
    return f"did you mean {near[0]}?" if near else f"see {prog} --help"


def describe_type(kind: Any) -> str:
    """A type in words."""
    args = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(args)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return " or ".join("null" if arg is types.NoneType else describe_type(arg) for arg in args)
    if typing.get_origin(kind) is tuple:
        return f"a list, each entry {describe_type(args[0])}"
    if typing.get_origin(kind) is dict and typing.get_origin(args[1]) is list:
        return "a mapping to lists"
    return _WORDS.get(kind, "MODULE:CLASS of your own" if _is_text(kind) else "a mapping")


def make_metavar(kind: Any) -> str:
    """The placeholder for a value of a type in help."""
    args = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(args)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return "|".join("null" if arg is types.NoneType else make_metavar(arg) for arg in args)
    if typing.get_origin(kind) is tuple:
        return f"[{make_metavar(args[0])},...]"
    return {int: "INT", float: "NUMBER", str: "TEXT", bool: "true|false"}.get(
        kind, "MODULE:CLASS" if _is_text(kind) else "MAPPING"
    )


def takes_null(kind: Any) -> bool:
    """Whether a type includes null."""
    return types.NoneType in typing.get_args(kind)


def means_null(value: Any, kind: Any) -> bool:
    """Whether `value` is a spelling of null that the type of its key accepts."""
    return isinstance(value, str) and value in _NONES and takes_null(kind)
