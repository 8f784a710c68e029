"""A number is named as traced on its field alone: state, cache and grouping follow from there."""

import dataclasses
from dataclasses import dataclass, replace
from typing import Annotated, Any

import pytest

from ser_jax.config import AugmentConfig, Config, TrainConfig, override
from ser_jax.config.fields import between
from ser_jax.config.traced import Traced, list_switches, list_traced
from ser_jax.grid.schedule import compute_program_key
from ser_jax.systems.build import choose_take, hold_numbers, hold_traced
from ser_jax.training.state import list_numbers

TRACED = {
    f"{section}.{name}": mark
    for section, settings in vars(Config()).items()
    for name, mark in list_traced(settings).items()
}
# Held by every state under a name of its own, or by the optimiser's, or no number but a choice.
ALWAYS = {"model.dropout", "augment.p", "train.learning_rate", "train.balanced"}


@dataclass(frozen=True)
class MoreTraining(TrainConfig):
    wobble: Annotated[float, between(0, 1), Traced(off_at_0=True)] = 0.0
    tilt: Annotated[float, between(0, 1), Traced()] = 0.0


@dataclass(frozen=True)
class MoreAugmentation(AugmentConfig):
    holes: Annotated[int, between(0, 9)] = 0
    hole_frames: Annotated[int, between(0, 9), Traced(times="holes")] = 4


def make_run(train: dict[str, Any], augment: dict[str, Any]) -> Config:
    return replace(Config(), train=MoreTraining(**train), augment=MoreAugmentation(**augment))


def test_the_traced_settings_are_these():
    assert TRACED.keys() == ALWAYS | {
        "train.label_smoothing", "train.mixup", "train.focal_gamma", "train.average_decay",
        "augment.time_mask_frames", "augment.band_mask_bands", "augment.feature_shift_frames",
        "augment.time_warp", "augment.band_warp",
    }  # fmt: skip
    assert list_switches(AugmentConfig) == [
        "time_masks", "band_masks", "feature_shift_frames", "time_warp", "band_warp",
    ]  # fmt: skip


@pytest.mark.parametrize("key", TRACED)
def test_a_traced_setting_is_in_the_state_and_in_no_key(key):
    section, _, name = key.partition(".")
    mark = TRACED[key]
    switched = {f"{section}.{mark.times}": 1} if mark.times else {}
    switched |= {"augment.enabled": True}
    one, other = (override(Config(), switched | {key: value}) for value in (0.25, 0.5))
    if name == "balanced":
        other = override(Config(), switched | {key: False})
    found, changed = (list_numbers(run.train, run.augment).get(name) for run in (one, other))
    assert (found is None) == (key in ALWAYS)
    assert found is None or (found != changed).all()  # type: ignore[union-attr]
    assert compute_program_key(one) == compute_program_key(other)
    takes = [choose_take(run.augment, run.features, run.data.rate_hz) for run in (one, other)]
    assert takes[0] is takes[1]
    assert hold_numbers(one.train) == hold_numbers(other.train)
    held = [replace(run.model, **hold_traced(run.model)) for run in (one, other)]
    assert held[0] == held[1]


def test_a_new_traced_field_needs_no_other_line():
    runs = [make_run({"wobble": x, "tilt": x}, {"holes": 2, "hole_frames": 5}) for x in (0.2, 0.4)]
    found = {name: x.tolist() for name, x in list_numbers(runs[0].train, runs[0].augment).items()}
    assert found == {"wobble": pytest.approx(0.2), "hole_frames": [5, 5]}
    assert compute_program_key(runs[0]) == compute_program_key(runs[1])
    assert hold_numbers(runs[0].train).keys() >= {"wobble", "tilt"}
    held = [dataclasses.replace(run.train, **hold_numbers(run.train)) for run in runs]
    assert held[0] == held[1]
    assert runs[0].augment.list_on_features() == ["holes"]


def test_what_switches_a_traced_number_on_makes_another_program():
    off = make_run({"wobble": 0.0}, {})
    assert list_numbers(off.train, off.augment) == {}
    others = make_run({"wobble": 0.2}, {}), make_run({}, {"holes": 1}), make_run({}, {"holes": 2})
    assert len({compute_program_key(run) for run in (off, *others)}) == 4
