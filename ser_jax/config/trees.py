"""Configurations as dictionaries and dotted keys, and the hash of those that decide a result."""

import dataclasses
import hashlib
import json
from pathlib import PurePath
from typing import Any

from ser_jax.errors import check


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain dictionaries, lists and scalars, as written to YAML and JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


# Settings of where and how a run works, not of what it computes; data.source is of older runs.
_WHEREABOUTS = (
    "run_dir", "out", "workers", "data.root", "data.store_dir", "data.workers", "data.strict",
    "data.source", "augment.workers", "train.profile", "batching", "runs_at_a_time", "only",
    "shard", "parallel",
)  # fmt: skip


def compute_identity(config: Any) -> str:
    """Hash of the settings that decide a run's result, 12 hexadecimal digits; paths do not.

    Args:
      config: a configuration, or the dictionary that `to_dict` made of one.
    """
    flat = list_settings(config)
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()[:12]


def list_settings(config: Any) -> dict[str, Any]:
    """The settings that decide a result, by dotted key; see `compute_identity`."""
    flat = flatten(config if isinstance(config, dict) else to_dict(config))
    settings = {
        key: value
        for key, value in flat.items()
        if key not in _WHEREABOUTS and key.partition(".")[0] not in _WHEREABOUTS
    }
    # The joined corpora decide a result, but not their folders; a manifest's file name is its name.
    for key in (key for key in settings if key.startswith("data.roots.")):
        settings[key] = _name_manifest(settings[key]) if key.endswith(".manifest") else None
    if settings.get("data.corpus") == "manifest":
        settings["data.root"] = _name_manifest(flat["data.root"])
    return settings


def find_differences(there: Any, here: Any) -> dict[str, tuple[Any, Any]]:
    """The settings that make two configurations different runs: (value there, value here)."""
    old, new = list_settings(there), list_settings(here)
    keys = sorted(old.keys() | new.keys())
    return {k: (old.get(k), new.get(k)) for k in keys if old.get(k) != new.get(k)}


def name_differences(differences: dict[str, tuple[Any, Any]], most: int = 3) -> str:
    """`train.epochs=2, not 4; seed=0, not 1; and 3 more`."""
    texts = [f"{key}={old}, not {new}" for key, (old, new) in differences.items()]
    more = f"; and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more


def _name_manifest(path: str | None) -> str:
    return PurePath(path or "").stem


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as a single one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


_GONE = {
    "data.source": "this key has been removed; recordings are read from folders: name theirs "
    "as data.root (docs/corpora.md), and leave this key out"
}


def is_gone(key: str, value: Any = None) -> bool:
    """Whether an older version wrote `key`, with the one value that changes nothing today.

    Raises:
      UserError: the key has been removed, and the value asks for what it did.
    """
    if key not in _GONE:
        return False
    check(value == "folder", f"{key}: {_GONE[key]}")
    return True


def override(config: Any, changes: dict[str, Any]) -> Any:
    """A copy of `config` with the values of dotted keys replaced and checked.

    Raises:
      UserError: a key that does not exist; a value out of its range.
    """
    names = {f.name for f in dataclasses.fields(config)}
    values: dict[str, Any] = {}
    below: dict[str, dict[str, Any]] = {}
    for dotted, value in changes.items():
        if is_gone(dotted, value):
            continue
        head, _, rest = dotted.partition(".")
        check(head in names, f"{dotted}: no such key here; known are {', '.join(sorted(names))}")
        if rest:
            if isinstance(getattr(config, head), dict):  # its keys are data, such as emotions
                values[head] = {**values.get(head, getattr(config, head)), rest: value}
                continue
            check(
                dataclasses.is_dataclass(getattr(config, head)),
                f"{dotted}: {head} has no keys below it",
            )
            below.setdefault(head, {})[rest] = value
            continue
        check(
            not dataclasses.is_dataclass(getattr(config, head)),
            f"{head}={value}: {head} is a section; set {head}.KEY",
        )
        is_tuple = isinstance(getattr(config, head), tuple)
        values[head] = tuple(value) if is_tuple and isinstance(value, list) else value
    for head, inner in below.items():
        values[head] = override(getattr(config, head), inner)
    return dataclasses.replace(config, **values)
