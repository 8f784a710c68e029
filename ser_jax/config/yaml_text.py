"""YAML whose scalars stay text, and in which no key may be repeated.

The type of a key decides what its text means, so that a folder may be called 2024 and `off` may be
a choice. YAML 1.1's own types (010 is 8, 3:30 is 210, `no` is false) never apply.
"""

import contextlib
import json
import os
from typing import Any, ClassVar

import yaml

from ser_jax.errors import UserError, check

_KEPT = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")


class _Loader(yaml.SafeLoader):
    """Text, null, lists and mappings; PyYAML's own loader silently drops a repeated key."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, regexp) for tag, regexp in resolvers if tag in _KEPT]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        names = []
        for key, _ in node.value:
            problem = None
            if not isinstance(key, yaml.ScalarNode):
                problem = "a key is not a scalar"
            elif key.value in names:
                problem = f"key {key.value!r} is repeated"
            if problem:
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            if key.tag == _KEPT[0]:  # a corpus may have the word 'null'
                key.tag = "tag:yaml.org,2002:str"
            names.append(key.value)
        return super().construct_mapping(node, deep)


def load_text(text: str) -> Any:
    """A YAML document whose scalars are text or null.

    Raises:
      yaml.YAMLError, RecursionError: it is not YAML.
    """
    return yaml.load(text, Loader=_Loader)


def guess_types(tree: Any) -> Any:
    """`tree` with numbers and booleans for texts that look like them, where no key has a type."""
    if isinstance(tree, dict):
        return {key: guess_types(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [guess_types(value) for value in tree]
    if not isinstance(tree, str):
        return tree
    if tree.lower() in ("true", "false"):
        return tree.lower() == "true"
    for kind in (int, float) if any(map(str.isdigit, tree)) else ():
        with contextlib.suppress(ValueError):
            return kind(tree)
    return tree


def read_yaml(path: str) -> dict:
    """The mapping in a YAML file; its scalars are text or null.

    Raises:
      UserError: the file is missing, or is not a mapping in UTF-8.
    """
    try:
        with open(os.path.expanduser(path), encoding="utf-8-sig") as file:
            tree = load_text(file.read())
        json.dumps(tree, default=str)  # refuses a mapping within itself
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}; give a YAML file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not text in UTF-8; give a YAML file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or getattr(error, "reason", "cannot be parsed")
        raise UserError(f"{path}: is not YAML{where}: {what}") from error
    except (RecursionError, ValueError) as error:
        raise UserError(f"{path}: is not YAML: is nested without end") from error
    check(tree is not None, f"{path}: is empty; write keys such as 'seed: 0'")
    check(isinstance(tree, dict), f"{path}: is not a mapping; write keys such as 'seed: 0'")
    return tree
