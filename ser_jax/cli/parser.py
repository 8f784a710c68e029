"""A typed argument parser whose every error is one line: key, value, remedy.

jsonargparse parses types, prints help and makes shell completions. `Parser` changes four things: an
error prints no usage and speaks of keys, not of Python's types; the command line always wins over
--config; keys cannot be abbreviated; text stays text, in files and on the command line.
"""

import argparse
import dataclasses
import json
import os
import re
import typing
from typing import Any

import docstring_parser
import jsonargparse
from jsonargparse.typing import restricted_string_type

from ser_jax.cli.wording import (
    OPEN,
    describe_type,
    explain,
    explain_dash,
    make_metavar,
    means_null,
    respell,
    suggest,
    takes_null,
)
from ser_jax.config import is_gone
from ser_jax.config.fields import OWN
from ser_jax.config.yaml_text import guess_types, read_yaml
from ser_jax.errors import UserError, check

_OWN: Any = restricted_string_type("MODULE_CLASS", OWN)


class _Formatter(jsonargparse.DefaultHelpFormatter):
    """Help without Python's names of types and values, since the metavar shows the type."""

    def _get_help_string(self, action: Any) -> str:
        return action.help or ""


class Parser(jsonargparse.ArgumentParser):
    """An ArgumentParser that raises `UserError`, and whose command line wins over --config."""

    def __init__(self, **kwargs: Any) -> None:
        self.types: dict[str, Any] = {}
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **kwargs)
        self._negative_number_matcher = re.compile(r"-[\d.]")  # argparse takes -1e-3 for an option

    def add_key(self, key: str, kind: Any, default: Any, help: str, group: Any = None) -> None:
        """Add the option --`key` of type `kind`; a boolean may omit its value, true."""
        names, *others = typing.get_args(kind) or [None]
        if typing.get_origin(names) is typing.Literal and str in others:
            kind = names | _OWN  # so that a wrong name is refused with its file
        self.types[key] = kind
        if kind in (OPEN, dict[str, dict[str, Any]], dict[str, list[Any]]):
            kind = dict  # whose values jsonargparse would guess; see `guess_types`, `arguments`
        if "(default" not in help:
            help += f" (default: {default if isinstance(default, str) else json.dumps(default)})"
        flag: dict[str, Any] = {"nargs": "?", "const": True} if kind is bool else {}
        (group or self).add_argument(
            f"--{key}", type=kind, default=default, help=help, metavar=make_metavar(kind), **flag
        )

    def add_keys(self, kind: type, prefix: str = "") -> None:
        """Add every field of the config class `kind`, and those of its sections as section.name."""
        types = typing.get_type_hints(kind)  # without bounds
        texts = {p.arg_name: p.description for p in docstring_parser.parse_from_object(kind).params}
        group = self.add_argument_group((kind.__doc__ or "").splitlines()[0].removesuffix("."))
        fields = dataclasses.fields(kind)
        for field in fields:
            if dataclasses.is_dataclass(field.type):
                continue
            factory = field.default_factory
            default = field.default if factory is dataclasses.MISSING else factory()
            help = " ".join((texts[field.name] or "").split())
            self.add_key(f"{prefix}{field.name}", types[field.name], default, help, group)
        for field in fields:
            if dataclasses.is_dataclass(field.type):
                self.add_keys(typing.cast(type, field.type), f"{prefix}{field.name}.")

    def parse_args(
        self, args: list[str] | None = None, namespace: Any = None, **kwargs: Any
    ) -> Any:
        """Parse a command line; files come first, so that the command line wins."""
        args = list(args or [])
        if "--config" in self._option_string_actions:
            files, args = self.split_files(args)
            for file in files:
                namespace = self.parse_tree(read_yaml(file), file, namespace)
        known = self._option_string_actions
        for token in args if self.types else ():  # the program's own parser adds options late
            name = token.partition("=")[0]
            if token.startswith("--") and token != "--" and name not in known:
                check(not os.path.exists(token), explain_dash(token))
                is_gone(name.removeprefix("--"))
                raise UserError(f"{name}: unknown key; {suggest(name, known, self.prog)}")
        return super().parse_args(args, namespace=namespace, **kwargs)

    def split_files(self, args: list[str]) -> tuple[list[str], list[str]]:
        """The values of --config in `args`, and the other arguments."""
        only = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        only.error = self.error
        only.add_argument("--config", action="append", default=[])
        known, rest = only.parse_known_args(args)
        return known.config, rest

    def parse_tree(self, tree: dict, source: str, namespace: Any = None) -> Any:
        """Typed values of nested or dotted dictionaries, on top of `namespace`.

        Raises:
          UserError: an unknown key or a wrong type; the message begins with `source`.
        """
        try:
            flat = jsonargparse.Namespace(self._flatten(tree))
            return self.parse_object(flat, namespace=namespace, defaults=False)
        except UserError as error:
            raise UserError(f"{source}: {error}") from error

    def error(self, message: str, ex: Exception | None = None) -> typing.NoReturn:
        """Raise `message` in this program's words."""
        raise UserError(f"{explain(message, self.types)}; see {self.prog} --help") from ex

    def _get_values(self, action: Any, arg_strings: list[str]) -> Any:
        """Values as strings, in which null and text are spelled as in a file."""
        kind = self.types.get(action.dest)
        texts = [respell(text, kind) for text in arg_strings]
        return super()._get_values(action, texts)  # pyright: ignore[reportAttributeAccessIssue]

    def _flatten(self, tree: dict, prefix: str = "") -> dict[str, Any]:
        """The tree's keys, dotted; `null` and unknown keys are refused in this program's words."""
        flat: dict[str, Any] = {}
        for name, value in tree.items():
            key, found = f"{prefix}{name}", {}
            is_section = any(known.startswith(f"{key}.") for known in self.types)
            if is_section or (key not in self.types and isinstance(value, dict) and value):
                check(isinstance(value, dict | None), f"{key}={value}: write its keys below it")
                found = self._flatten(value or {}, f"{key}.")
            elif kind := self.types.get(key):
                value = guess_types(value) if kind == OPEN else value
                found[key] = None if means_null(value, kind) else value
                check(
                    found[key] is not None or takes_null(kind),
                    f"{key}=null: must be {describe_type(kind)}; give one, or leave the key out",
                )
            elif not is_gone(key, value):
                raise UserError(f"{key}: unknown key; {suggest(key, self.types, self.prog)}")
            for twice in found.keys() & flat.keys():
                raise UserError(f"{twice}: is repeated, dotted and below its section; keep one")
            flat |= found
        return flat
