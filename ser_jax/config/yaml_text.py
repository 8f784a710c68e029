"""YAML as people write settings: text stays as it is written, numbers are decimal, no key twice."""

import json
import os
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

import yaml

from ser_jax.errors import UserError, check

_TAG = "tag:yaml.org,2002:"
_NULLS = ("null", "Null", "NULL", "~", "")
_NONES = ("none", "None", "NONE")
"""How Python, and the help of many a program, write what YAML calls null."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers, and no key twice: YAML's own loader keeps the last without a word."""

    yaml_implicit_resolvers: typing.ClassVar = {
        first: [(tag, regexp) for tag, regexp in resolvers
                if tag not in (f"{_TAG}int", f"{_TAG}float")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }  # fmt: skip

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        names = []
        for key, _ in node.value:
            problem = None
            if not isinstance(key, yaml.ScalarNode):
                problem = "a key is no word"
            elif key.value in names:
                problem = f"key {key.value!r} stands twice"
            if problem:
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            names.append(key.value)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 010 as eight, 3:30 as 210, and 1e-3 as text.
_Loader.add_implicit_resolver(
    f"{_TAG}int", re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(
        r"([-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)?"
        r"|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def read_yaml(path: str, types: Mapping[str, Any]) -> dict:
    """A YAML file's mapping.

    Args:
      path: of the file.
      types: of the dotted keys that may stand in it; what is text by its type stays as written.

    Raises:
      UserError: no such file, no text, no YAML, no mapping.
    """
    try:
        with open(os.path.expanduser(path), encoding="utf-8-sig") as file:
            tree = _load(file.read(), types)
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}; give a YAML file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not text in UTF-8; give a YAML file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or getattr(error, "reason", "cannot be parsed")
        raise UserError(f"{path}: is not YAML{where}: {what}") from error
    except RecursionError as error:
        raise UserError(f"{path}: is not YAML: is nested without an end") from error
    check(tree is not None, f"{path}: is empty; write keys such as 'seed: 0'")
    check(isinstance(tree, dict), f"{path}: is no mapping; write keys such as 'seed: 0'")
    return tree


def _load(text: str, types: Mapping[str, Any]) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _keep_text(node, types)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _keep_text(node: Any, types: Mapping[str, Any], path: str = "") -> None:
    """Let keys, and the words of what takes text, stay text, though they look like other things.

    `off` is a value of some keys, and 2024 may be a folder.
    """
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):  # refused when it is made a mapping
            continue
        if key.tag != f"{_TAG}merge":
            key.tag = f"{_TAG}str"
        below = f"{path}.{key.value}" if path else key.value
        if _takes_text(_find_kind(below, types), value):
            _read_as_text(value)
        else:
            _keep_text(value, types, below)


def _takes_text(kind: Any, node: Any) -> bool:
    """Whether all words of a node are text, by the type of its key."""
    if isinstance(node, yaml.MappingNode):
        return typing.get_origin(kind) is dict and is_text(typing.get_args(kind)[1])
    return is_text(kind)


def _find_kind(path: str, types: Mapping[str, Any]) -> Any:
    """The type of a key by its dotted path, below which it may stand: systems.NAME.model.name."""
    names = path.split(".")
    ends = (".".join(names[start:]) for start in range(len(names)))
    return next((types[end] for end in ends if end in types), None)


def is_text(kind: Any) -> bool:
    """Whether a type is text, one of several words, or a list of texts; null may be one of them."""
    if kind is str or kind is types.NoneType:
        return True
    if typing.get_origin(kind) is typing.Literal:
        return all(isinstance(word, str) for word in typing.get_args(kind))
    if typing.get_origin(kind) in (tuple, types.UnionType, typing.Union):
        return all(is_text(one) for one in typing.get_args(kind) if one is not Ellipsis)
    return False


def takes_null(kind: Any) -> bool:
    """Whether null is a value of a type."""
    return kind is types.NoneType or kind is Any or types.NoneType in typing.get_args(kind)


def means_null(value: Any, kind: Any) -> bool:
    """Whether `value` is another spelling of null, where a key takes null and no such word."""
    return isinstance(value, str) and value in _NONES and takes_null(kind)


def find_word(value: Any, kind: Any) -> Any:
    """The word of a `Literal` that was read as true or false; other values as they are."""
    words = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
    is_truth = isinstance(value, bool)
    return next((w for w in words if is_truth and yaml.safe_load(w) is value), value)


def _read_as_text(node: Any) -> None:
    """Make the words of a YAML node, and of those below it, text as written; null stays null."""
    if isinstance(node, yaml.ScalarNode):
        if node.tag != f"{_TAG}null":
            node.tag = f"{_TAG}str"
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            for below in pair:
                _read_as_text(below)
    else:
        for below in node.value:
            _read_as_text(below)


def quote_words(text: str) -> str:
    """A YAML mapping with every word in quotes, but for null; other texts as they are."""
    try:
        tree = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError:
        return text
    if not isinstance(tree, dict):
        return text
    texts = {word: None if name in _NULLS else name for word, name in tree.items()}
    return json.dumps(texts)
