"""A typed argument parser whose every complaint is one line: key, value, remedy.

jsonargparse does the typing, the help and the completion. `Parser` mends what it does otherwise:
usage lines with an error, errors in Python's words, a later --config that overwrites earlier keys,
abbreviated keys.
"""

import dataclasses
import json
import os
import re
import typing
from typing import Any, Literal

import jsonargparse
from jsonargparse.typing import restricted_string_type

from ser_jax.cli.wording import describe_type, make_metavar, read_helps, suggest
from ser_jax.config import is_gone
from ser_jax.config.fields import OWN, Bound, list_marks
from ser_jax.config.yaml_text import find_word, means_null, quote_words, read_yaml, takes_null
from ser_jax.errors import UserError, check

_OWN: Any = restricted_string_type("MODULE_CLASS", OWN)


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
            f"--{key}", type=kind, default=default, help=help, metavar=make_metavar(kind)
        )

    def add_keys(self, kind: type, prefix: str = "") -> None:
        """Add every field of the config class `kind`, those of its sections as section.name."""
        helps, types = read_helps(kind), typing.get_type_hints(kind)  # without bounds
        group = self.add_argument_group((kind.__doc__ or "").splitlines()[0].removesuffix("."))
        marks = {name: bound.choices for name, bound in list_marks(kind, Bound)}
        sections = []
        for field in dataclasses.fields(kind):
            if dataclasses.is_dataclass(field.type):
                sections.append(field)
                continue
            default = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            key, type_ = f"{prefix}{field.name}", types[field.name]
            if choices := marks.get(field.name):  # in the type, so that shells complete them
                type_ = Literal[choices] | _OWN
            self.add_key(key, type_, default, helps[field.name], group)
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
                namespace = self.parse_tree(read_yaml(file, self.types), file, namespace)
        if self.types:  # not the program's own parser, which learns its options late
            self._check_options(args)
            args = self._complete_flags(args)
            args = self._join_values(args)
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
            found := re.search(r'Parser key "([\w.]+)": .*(?:Got|Given) value: ?(.*)', message)
        ) and (kind := self.types.get(found[1])):
            message = f"{found[1]}={found[2]}: must be {describe_type(kind)}"
        elif found := re.fullmatch("the following arguments are required: (.*)", message):
            message = f"{found[1].replace('files', 'file').upper()}: missing"
        elif found := re.fullmatch("unrecognized arguments: (.*)", message):
            message = f"{found[1]}: not expected here"
            if found[1].startswith("-") and os.path.exists(found[1]):
                message = _explain_dash(found[1])
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
                if os.path.exists(token):
                    raise UserError(_explain_dash(token))
                is_gone(name.removeprefix("--"))
                raise UserError(f"{name}: unknown key; {suggest(name, known, self.prog)}")

    def _complete_flags(self, args: list[str]) -> list[str]:
        """--data.strict alone means --data.strict=true."""
        return [
            f"{token}=true" if self.types.get(token[2:]) is bool and after[:2] == "--" else token
            for token, after in zip(args, [*args[1:], "--"], strict=False)
        ]

    def _join_values(self, args: list[str]) -> list[str]:
        """Each key with its value in one token, as --key=value.

        argparse takes -1e-3 for an option.
        """
        joined, tokens = [], iter(args)
        for token in tokens:
            if token == "--":
                return [*joined, token, *tokens]
            name, equals, value = token.partition("=")
            kind = self.types.get(name.removeprefix("--")) if name.startswith("--") else None
            if kind is not None and not equals:
                value = next(tokens, None)
                if value is None or value.startswith("--"):
                    return args  # a value is missing: left for the parser to complain
            joined.append(token if kind is None else f"{name}={self._read_word(value, kind)}")
        return joined

    @staticmethod
    def _read_word(word: str, kind: Any) -> str:
        """A value of the command line as the parser takes it.

        The words of a mapping from texts to texts stay as they are written: YAML would read numbers
        out of 3, and false out of no.
        """
        if kind == dict[str, str | None]:
            return quote_words(word)
        return "null" if means_null(word, kind) else word

    def _flatten(self, tree: dict, prefix: str = "") -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for name, value in tree.items():
            key = f"{prefix}{name}"
            section = any(known.startswith(f"{key}.") for known in self.types)
            if section and value is None:  # a section under which nothing is written
                continue
            check(not section or isinstance(value, dict), f"{key}={value}: write its keys below it")
            if section or (isinstance(value, dict) and value and key not in self.types):
                found = self._flatten(value, f"{key}.")
            elif key in self.types:
                found = {key: self._read_value(key, value)}
            elif is_gone(key, value):
                continue
            else:
                raise UserError(f"{key}: unknown key; {suggest(key, self.types, self.prog)}")
            for twice in found.keys() & flat.keys():
                raise UserError(f"{twice}: stands twice, dotted and below its section; keep one")
            flat |= found
        return flat

    def _read_value(self, key: str, value: Any) -> Any:
        """`value` of a tree as the parser takes it, which itself takes null for any key."""
        kind = self.types[key]
        value = None if means_null(value, kind) else find_word(value, kind)
        if kind == dict[str, dict[str, Any]] and isinstance(value, dict):
            value = {name: {} if below is None else below for name, below in value.items()}
        check(
            value is not None or takes_null(kind),
            f"{key}=null: must be {describe_type(kind)}; give one, or leave the key out",
        )
        return value


def _explain_dash(file: str) -> str:
    return f"{file}: a file whose name begins with a dash is given as ./{file}"


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
