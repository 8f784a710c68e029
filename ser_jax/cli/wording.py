"""Words of people and for people: null and text as typed, names of types, errors."""

import contextlib
import difflib
import json
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from ser_jax.config.yaml_text import guess_types, load_text
from ser_jax.errors import one_line

OPEN = dict[str, Any]
"""The type of a mapping whose values have no types."""
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


def respell(text: str, kind: Any) -> str:
    """A value of the command line with `none` as null, and with quotes around text in lists and
    mappings."""
    if means_null(text, kind):
        return "null"
    kinds = [typing.get_origin(each) for each in (kind, *typing.get_args(kind))]
    if dict not in kinds and tuple not in kinds:
        return text
    with contextlib.suppress(yaml.YAMLError, RecursionError):
        if isinstance(tree := load_text(text), dict | list):
            return json.dumps(guess_types(tree) if kind == OPEN else tree)
    return text


def explain(message: str, kinds: Mapping[str, Any]) -> str:
    """An error of argparse or jsonargparse in this program's words.

    Args:
      message: as raised.
      kinds: types of the parser's keys.
    """
    message = one_line(message)
    found = re.search(r'Parser key "([\w.]+)": .*(?:Got|Given) value: ?(.*)', message)
    if found and (kind := kinds.get(found[1])):
        return f"{found[1]}={found[2]}: must be {describe_type(kind)}"
    if found := re.fullmatch("the following arguments are required: (.*)", message):
        return f"{found[1].replace('files', 'file').upper()}: missing"
    if found := re.fullmatch("unrecognized arguments: (.*)", message):
        is_file = found[1].startswith("-") and os.path.exists(found[1])
        return explain_dash(found[1]) if is_file else f"{found[1]}: not expected here"
    if found := re.fullmatch("argument (.*): expected one argument", message):
        return f"{found[1]}: its value is missing"
    return message


def explain_dash(file: str) -> str:
    return f"{file}: a file whose name begins with a dash is given as ./{file}"
