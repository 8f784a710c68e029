"""A typed argument parser whose every complaint is one line: key, value, remedy.

jsonargparse does the typing, the help and the completion. `Parser` mends what it does otherwise:
usage lines with an error, errors in Python's words, a later --config that overwrites earlier keys,
abbreviated keys.
"""

import ast
import dataclasses
import difflib
import inspect
import json
import os
import re
import types
import typing
from collections.abc import Iterable
from typing import Any

import jsonargparse

from ser_jax.errors import UserError, check

_NULLS = ("null", "Null", "NULL", "~", "")
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


class _Formatter(jsonargparse.DefaultHelpFormatter):
    """Help without Python's names of types and values: the metavar says the type."""

    def _get_help_string(self, action: Any) -> str:
        return action.help or ""


class Parser(jsonargparse.ArgumentParser):
    """An ArgumentParser that raises `UserError`, and lets the command line win over --config."""

    def __init__(self, **kwargs: Any) -> None:
        self.types: dict[str, Any] = {}
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **kwargs)

    def add_key(self, key: str, kind: Any, default: Any, help: str, group: Any = None) -> None:
        """Add the option --`key` of type `kind`."""
        self.types[key] = kind
        if "(default" not in help:
            help += f" (default: {default if isinstance(default, str) else json.dumps(default)})"
        where = self if group is None else group
        where.add_argument(
            f"--{key}", type=kind, default=default, help=help, metavar=_metavar(kind)
        )

    def add_keys(self, kind: type, prefix: str = "") -> None:
        """Add every field of the config class `kind`, those of its sections as section.name."""
        helps = read_helps(kind)
        group = self.add_argument_group((kind.__doc__ or "").splitlines()[0].removesuffix("."))
        sections = []
        for field in dataclasses.fields(kind):
            if dataclasses.is_dataclass(field.type):
                sections.append(field)
                continue
            default = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            self.add_key(f"{prefix}{field.name}", field.type, default, helps[field.name], group)
        for field in sections:
            self.add_keys(field.type, f"{prefix}{field.name}.")

    def parse_args(
        self, args: list[str] | None = None, namespace: Any = None, **kwargs: Any
    ) -> Any:
        """Parse a command line; files come first, so that what stands on the line wins."""
        args = list(args or [])
        if "--config" in self._option_string_actions:
            files, args = split_files(args)
            for file in files:
                namespace = self.parse_tree(read_yaml(file), file, namespace)
        if self.types:  # not the program's own parser, which learns its options late
            self._check_options(args)
            args = self._complete_flags(args)
            args = self._quote_words(args)
        return super().parse_args(args, namespace=namespace, **kwargs)

    def parse_tree(self, tree: dict, source: str, namespace: Any = None) -> Any:
        """Values of this parser's keys from nested or dotted dictionaries, over `namespace`.

        Raises:
          UserError: an unknown key or a wrong type; the message begins with `source`.
        """
        try:
            flat = jsonargparse.Namespace(self._flatten(tree))
            return self.parse_object(flat, namespace=namespace, defaults=False)
        except UserError as error:
            raise UserError(f"{source}: {error}") from error

    def error(self, message: str, ex: Exception | None = None) -> typing.NoReturn:
        """Raise `message`, in this program's words where jsonargparse's are Python's."""
        message = " ".join(message.split())
        if (
            found := re.search(r'Parser key "([\w.]+)": .*(?:Got|Given) value: (.*)', message)
        ) and (kind := self.types.get(found[1])):
            message = f"{found[1]}={found[2]}: must be {describe(kind)}"
        elif found := re.fullmatch("the following arguments are required: (.*)", message):
            message = f"{found[1].replace('files', 'file').upper()}: missing"
        elif found := re.fullmatch("unrecognized arguments: (.*)", message):
            message = f"{found[1]}: not expected here"
        elif found := re.fullmatch("argument (.*): expected one argument", message):
            message = f"{found[1]}: its value is missing"
        raise UserError(f"{message}; see {self.prog} --help") from ex

    def _check_options(self, args: list[str]) -> None:
        known = self._option_string_actions
        for token in args:
            name = token.partition("=")[0]
            if token == "--":
                return
            if token.startswith("--") and name not in known:
                raise UserError(f"{name}: unknown key; {suggest(name, known, self.prog)}")

    def _complete_flags(self, args: list[str]) -> list[str]:
        """--data.strict alone means --data.strict=true."""
        return [
            f"{token}=true" if self.types.get(token[2:]) is bool and after[:2] == "--" else token
            for token, after in zip(args, [*args[1:], "--"], strict=False)
        ]

    def _quote_words(self, args: list[str]) -> list[str]:
        """The words of a mapping from texts to texts as they are written: YAML would read numbers
        out of 3, and false out of no."""
        args = list(args)
        for place, token in enumerate(args):
            name, equals, value = token.partition("=")
            if self.types.get(name.removeprefix("--")) != dict[str, str | None]:
                continue
            if equals:
                args[place] = f"{name}={quote_words(value)}"
            elif place + 1 < len(args):
                args[place + 1] = quote_words(args[place + 1])
        return args

    def _flatten(self, tree: dict, prefix: str = "") -> dict[str, Any]:
        flat = {}
        for name, value in tree.items():
            key = f"{prefix}{name}"
            section = any(known.startswith(f"{key}.") for known in self.types)
            if section and value is None:  # a section under which nothing is written
                continue
            check(not section or isinstance(value, dict), f"{key}={value}: write its keys below it")
            if section or (isinstance(value, dict) and value and key not in self.types):
                flat |= self._flatten(value, f"{key}.")
            elif key in self.types:
                flat[key] = value
            else:
                raise UserError(f"{key}: unknown key; {suggest(key, self.types, self.prog)}")
        return flat


def quote_words(text: str) -> str:
    """A YAML mapping with every word in quotes, but for null; other texts as they are."""
    import yaml

    try:
        tree = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError:
        return text
    if not isinstance(tree, dict):
        return text
    texts = {word: None if name in _NULLS else name for word, name in tree.items()}
    return json.dumps(texts)


def split_files(args: list[str]) -> tuple[list[str], list[str]]:
    """The values of --config in `args`, and the rest."""
    files, rest = [], []
    tokens = iter(args)
    for token in tokens:
        name, _, value = token.partition("=")
        if name != "--config":
            rest.append(token)
        elif value := value or next(tokens, ""):
            files.append(value)
        else:
            rest.append(token)  # without a value: left for the parser to complain
    return files, rest


def read_yaml(path: str) -> dict:
    """A YAML file's mapping.

    Raises:
      UserError: no such file, no text, no YAML, no mapping.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Of two equal keys YAML's own loader keeps the last without a word."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            names = [key.value for key, _ in node.value]
            for key, _ in node.value:
                if names.count(key.value) > 1:
                    raise yaml.MarkedYAMLError(
                        problem=f"key {key.value!r} stands twice", problem_mark=key.start_mark
                    )
            for key, value in node.value:
                if key.value.rpartition(".")[2] == "labels" and isinstance(value, yaml.MappingNode):
                    _read_as_text(value)
            return super().construct_mapping(node, deep)

    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            tree = yaml.load(file, Loader=Loader)
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}; give a YAML file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not text; give a YAML file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or "cannot be parsed"
        raise UserError(f"{path}: is not YAML{where}: {what}") from error
    check(tree is not None, f"{path}: is empty; write keys such as 'seed: 0'")
    check(isinstance(tree, dict), f"{path}: is no mapping; write keys such as 'seed: 0'")
    return tree


def _read_as_text(mapping: Any) -> None:
    """Let a YAML mapping's words be text as written, though they look like numbers or truths."""
    for node in (node for pair in mapping.value for node in pair):
        if node.tag in (
            "tag:yaml.org,2002:int",
            "tag:yaml.org,2002:float",
            "tag:yaml.org,2002:bool",
        ):
            node.tag = "tag:yaml.org,2002:str"


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


def describe(kind: Any) -> str:
    """A type in words."""
    args = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(args)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return " or ".join("null" if arg is types.NoneType else describe(arg) for arg in args)
    if typing.get_origin(kind) is tuple:
        return f"a list, each entry {describe(args[0])}"
    if typing.get_origin(kind) is dict and typing.get_origin(args[1]) is list:
        return "a mapping to lists"
    return _WORDS.get(kind, "a mapping")


def _metavar(kind: Any) -> str:
    args = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(args)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return "|".join("null" if arg is types.NoneType else _metavar(arg) for arg in args)
    if typing.get_origin(kind) is tuple:
        return f"[{_metavar(args[0])},...]"
    return {int: "INT", float: "NUMBER", str: "TEXT", bool: "true|false"}.get(kind, "MAPPING")
