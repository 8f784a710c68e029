"""Which row of a grid is which system of the study: by settings; the name breaks ties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_MODELS = ("cnn", "lstm", "cnn_lstm")
VARIANTS = tuple((n, w) for n in ("none", "peak") for w in ("epoch", "once"))
"""Settings of augmentation that the study leaves open: (augment.normalise, augment.when)."""
_DEFAULTS = {"augment.enabled": False, "augment.normalise": "none", "augment.when": "epoch",
             "model.mask_padding": False, "backbone.pretrained": True}  # fmt: skip


class Roles(NamedTuple):
    """Rows by their part in the study.

    Attributes:
      plain: of cnn, lstm, cnn_lstm and wav2vec2, those that were run: role to row.
      augmented: the CNN-LSTM on augmented data: (normalise, when) to row.
      longer: rows that differ from one of `plain` only in more train.epochs: role to row.
    """

    plain: dict[str, str]
    augmented: dict[tuple[str, str], str]
    longer: dict[str, str]

    @property
    def named(self) -> dict[str, str]:
        """Rows of the study's Table 1, under the study's names."""
        first = self.augmented.get(("none", "epoch")) or next(iter(self.augmented.values()), None)
        return self.plain | ({"cnn_lstm_augmented": first} if first else {})


def find_roles(settings: Mapping[str, Mapping[str, Any]]) -> Roles:
    """The rows of the study's systems.

    Args:
      settings: dotted keys of each row; a key that is absent has its default.
    """

    def get(row: str, key: str) -> Any:
        return settings[row].get(key, _DEFAULTS.get(key))

    def find(model: str, *, augmented: bool) -> list[str]:
        wanted = {"model.name": model, "augment.enabled": augmented, "model.mask_padding": False}
        return [row for row in settings if all(get(row, key) == v for key, v in wanted.items())]

    plain: dict[str, str] = {}
    for model in _MODELS:
        if rows := find(model, augmented=False):
            plain[model] = min(rows, key=lambda r: (r != model, get(r, "train.epochs") or 0))
    tuned = [row for row in settings if get(row, "model.name") == "wav2vec2"]
    if tuned := [row for row in tuned if get(row, "backbone.pretrained")]:
        plain["wav2vec2"] = min(tuned, key=lambda r: (r != "wav2vec2", r != "wav2vec2_small"))
    augmented: dict[tuple[str, str], str] = {}
    base = plain.get("cnn_lstm")
    for row in find("cnn_lstm", augmented=True):
        if base is None or get(row, "train.epochs") == get(base, "train.epochs"):
            key = (get(row, "augment.normalise"), get(row, "augment.when"))
            augmented.setdefault(key, row)
    longer = {}
    for role, row in plain.items():
        twins = [other for other in settings if _is_longer(settings[row], settings[other])]
        named = [f"{row}_{get(r, 'train.epochs')}" for r in settings]
        if found := twins or [r for r, name in zip(settings, named, strict=True) if r == name]:
            longer[role] = found[0]
    return Roles(plain, augmented, longer)


def _is_longer(settings: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether `other` differs in train.epochs alone, and has more of them."""
    key = "train.epochs"
    rest, other_rest = ({k: v for k, v in s.items() if k != key} for s in (settings, other))
    return rest == other_rest and (other.get(key) or 0) > (settings.get(key) or 0)


def get_settings(results: Mapping[str, Any], row: str) -> dict[str, Any]:
    """Dotted keys of a system: the grid's own, the system's, and those that a sweep sets."""
    from ser_jax.config import flatten

    config = results.get("config") or {}
    systems = config.get("systems") or {}
    shared = {
        key: value
        for key, value in config.items()
        if isinstance(value, dict) and key not in ("systems", "sweep")
    }
    bases = [name for name in systems if row == name or row.startswith(f"{name} ")]
    own = (systems[max(bases, key=len)] or {}) if bases else {}
    sweep = next((c["sweep"] for c in results["cells"] if c["system"] == row and "sweep" in c), {})
    return {"model.name": row} | flatten(shared) | own | sweep
