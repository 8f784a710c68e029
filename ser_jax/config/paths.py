"""Paths in settings: default folders, and the expansion of ~ and $NAME."""

import os
import re
import tempfile
from typing import Any

from ser_jax.errors import check


def default_store_dir() -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    if os.path.expanduser(cache).startswith(
        "~"
    ):  # a user without a home folder, as in some containers
        return os.path.join(tempfile.gettempdir(), f"ser_jax-{os.getuid()}")
    return os.path.join(cache, "ser_jax")


def default_compile_cache() -> str:
    return os.path.join(default_store_dir(), "compiled")


def expand_paths(config: Any, section: str, *names: str) -> None:
    """Expand ~ and $NAME in fields of a config that is being made."""
    for name in names:
        object.__setattr__(config, name, _expand(f"{section}{name}", getattr(config, name)))


def is_url(path: str) -> bool:
    """Whether a path is a URL, such as https://... or gs://..."""
    return re.match(r"\w+://", path) is not None


def _expand(key: str, path: Any) -> Any:
    if isinstance(path, dict):
        return {name: _expand(f"{key}.{name}", below) for name, below in path.items()}
    if isinstance(path, list | tuple):
        return type(path)(_expand(key, one) for one in path)
    if not isinstance(path, str) or os.path.lexists(path):
        return path
    check(
        not is_url(path),
        f"{key}={path}: is a URL; name a folder or file of this machine, such as a mounted bucket",
    )
    expanded = os.path.expanduser(os.path.expandvars(path))
    check(
        not expanded.startswith("~/") and expanded != "~",
        f"{key}={path}: no home folder is known; set HOME, or write the path out",
    )
    # A shell expands a command line, but not a file.
    unset = re.search(r"\$(\{\w+\}|[A-Za-z_]\w*)", expanded)
    check(
        unset is None,
        f"{key}={path}: the variable {unset[1].strip('{}') if unset else ''} is not set; set it, "
        "or write the path out",
    )
    return expanded
