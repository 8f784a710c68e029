"""Words for people: of a field its help, of a type its name, of a wrong word the right one."""

import ast
import difflib
import inspect
import types
import typing
from collections.abc import Iterable
from typing import Any

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


_OWN = "MODULE:CLASS of your own"


def _is_text(kind: Any) -> bool:
    """Whether a type is a kind of text, of which there is one."""
    return isinstance(kind, type) and issubclass(kind, str)


def read_helps(kind: type) -> dict[str, str]:
    """The text under each field of a config class, its bases' included."""
    helps: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        (body,) = ast.parse(inspect.getsource(base)).body
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(words))),
                ):
                    helps[name] = " ".join(words.split())
    return helps


def suggest(given: str, known: Iterable[str], prog: str) -> str:
    """The remedy for a word that is not known: the nearest that is, or where all of them stand."""
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
    return _WORDS.get(kind, _OWN if _is_text(kind) else "a mapping")


def make_metavar(kind: Any) -> str:
    """What stands for a value of a type in help."""
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
