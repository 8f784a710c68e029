"""Tolerances: what a test states on CPU, wider by its reason on a device, and no wider."""

from typing import Any

import numpy as np
import pytest

from tests import tolerance as here
from tests.tolerance import FACTORS, LEAST, assert_near, tolerance


@pytest.mark.parametrize("cpu", [0, 1e-6, 0.15])
@pytest.mark.parametrize("why", FACTORS)
def test_cpu_keeps_the_tolerance_that_a_test_states(cpu, why):
    assert tolerance(cpu, why, platform="cpu") == cpu


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("why", FACTORS)
def test_device_widens_by_the_factor_of_the_reason(platform, why):
    assert tolerance(1e-5, why, platform=platform) == 1e-5 * FACTORS[why]
    assert 1 < FACTORS[why] < 100


def test_exact_agreement_of_two_programs_becomes_some_units_in_the_last_place():
    assert tolerance(0, platform="cuda") == LEAST
    assert 2**-23 < LEAST < 100 * 2**-23


def test_a_reason_without_a_factor_is_an_error_on_cpu_too():
    with pytest.raises(KeyError, match="rounding"):
        tolerance(1e-5, "rounding", platform="cpu")


@pytest.mark.parametrize("limit", ["rtol", "atol"])
def test_trees_are_compared_leaf_by_leaf_within_the_limit(limit, monkeypatch):
    limits: Any = {"rtol": 0.0, "atol": 0.0} | {limit: 1e-3}
    expected = {"a": np.ones(2), "b": (np.ones(3), np.ones(()))}
    near = {"a": np.ones(2), "b": (np.ones(3) + 0.9e-3, np.ones(()))}
    far = {"a": np.ones(2), "b": (np.ones(3), np.ones(()) + 1.1e-3)}
    monkeypatch.setattr(here, "tolerance", lambda cpu, why: cpu)
    assert_near(near, expected, **limits)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_near(far, expected, **limits)
    monkeypatch.setattr(here, "tolerance", lambda cpu, why: 2 * cpu)
    assert_near(far, expected, **limits)
