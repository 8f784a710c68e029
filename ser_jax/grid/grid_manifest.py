"""manifest.json: what a grid was started with, and how its groups run best."""

import json
from pathlib import Path
from typing import Any

import jax

from ser_jax.config import AblationConfig, compute_identity, list_settings, to_dict
from ser_jax.errors import check, warn
from ser_jax.files.atomic import write_atomic
from ser_jax.files.json_files import blaming, load_json
from ser_jax.run.results import collect_versions

MANIFEST_FILE = "manifest.json"
_REMEDY = "delete it, and the same command writes it anew"
_CHOICES = ("systems", "protocols", "folds", "seeds", "sweep")
"""Keys that define the cells. A grid may grow, so these may change."""


class Manifest:
    """The manifest of the grid in one folder; shards on other machines may write it too."""

    def __init__(self, config: AblationConfig, checksum: str):
        """Read the existing manifest, check that it is of the same grid, and update it.

        Args:
          config: of the grid.
          checksum: of the recordings.

        Raises:
          UserError: the folder's grid was started with other settings or recordings.
        """
        self._path = Path(config.out) / MANIFEST_FILE
        now: dict[str, Any] = {
            "identity": compute_identity(config),
            "checksum": checksum,
            "settings": {
                key: value
                for key, value in list_settings(config).items()
                if key.partition(".")[0] not in _CHOICES
            },
            "systems": to_dict(config)["systems"],
            "versions": collect_versions(),
            "devices": sorted({device.device_kind for device in jax.devices()}),
            "decisions": {},
        }
        found = self._read()
        if found:
            with blaming(self._path, _REMEDY):
                _check_same(config.out, found, now)
                _warn_of_versions(config.out, found["versions"], now["versions"])
                now["systems"] = found["systems"] | now["systems"]
                now["devices"] = sorted({*found["devices"], *now["devices"]})
                now |= {key: found[key] for key in ("versions", "decisions")}
        self._write(now, found)

    def _read(self) -> dict[str, Any]:
        return load_json(self._path, _REMEDY) if self._path.exists() else {}

    def _write(self, tree: dict[str, Any], before: dict[str, Any]) -> None:
        if tree != before:
            write_atomic(self._path, json.dumps(tree, indent=1))

    def find_decision(self, key: str) -> dict[str, Any] | None:
        """How the group `key` runs best on this kind of device; `None` if never measured."""
        return self._read().get("decisions", {}).get(_name_decision(key))

    def keep_decision(self, key: str, decision: dict[str, Any]) -> None:
        """Record how the group `key` runs best on this kind of device."""
        # Read again, since another shard may have written. Of two simultaneous writes one is lost,
        # which costs a probe.
        tree = self._read()
        decisions = tree["decisions"] | {_name_decision(key): decision}
        self._write(tree | {"decisions": decisions}, tree)


def _name_decision(key: str) -> str:
    return f"{key} on {jax.local_device_count()} x {jax.devices()[0].device_kind}"


def _check_same(out: str, found: dict[str, Any], now: dict[str, Any]) -> None:
    remedy = "choose another --out, or delete it"
    check(
        found["checksum"] == now["checksum"],
        f"out={out}: was begun on other recordings (checksum {found['checksum']}, now "
        f"{now['checksum']}); give the same data.root, {remedy}",
    )
    before, after = found["settings"], now["settings"]
    for key in before.keys() & after.keys():
        check(
            before[key] == after[key],
            f"out={out}: was begun with {key}={before[key]}, not {after[key]}; {remedy}",
        )
    for name in found["systems"].keys() & now["systems"].keys():
        old, new = found["systems"][name], now["systems"][name]
        check(old == new, f"out={out}: was begun with systems.{name}={old}, not {new}; {remedy}")


def _warn_of_versions(out: str, before: dict[str, str], now: dict[str, str]) -> None:
    changed = [
        f"{name} {before[name]} (now {now.get(name)})"
        for name in before
        if before[name] != now.get(name)
    ]
    if changed:
        warn(f"{out}: was begun with {', '.join(changed)}")
