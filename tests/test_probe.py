"""The race takes the fastest form, passes over what the device refuses, and is not run on CPU."""

import itertools
from typing import Any

import jax
import pytest

from ser_jax import probe
from ser_jax.config import ModelConfig
from ser_jax.models import Forms
from ser_jax.probe import choose_forms, choose_plain_forms, pick_fastest

FAST, CUDNN = Forms(lstm="fast"), Forms(lstm="cudnn")


class Clock:
    """Time that steps take from a list; the clock itself costs nothing."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s

    def make_step(self, *seconds):
        passing = itertools.chain(seconds, itertools.repeat(seconds[-1]))

        def step():
            self.now_s += next(passing)
            return 0

        return step


def refuse():
    raise jax.errors.JaxRuntimeError("no cuDNN here")


def test_fastest_form_wins_and_compilation_does_not_count():
    clock = Clock()
    steps = {FAST: clock.make_step(1.0, 0.3), CUDNN: clock.make_step(60.0, 0.2)}
    assert pick_fastest(steps, clock) == CUDNN


def test_one_slow_moment_does_not_decide():
    clock = Clock()
    steps = {FAST: clock.make_step(1.0, 9.0, 0.1), CUDNN: clock.make_step(1.0, 0.2)}
    assert pick_fastest(steps, clock) == FAST


def test_form_that_the_device_refuses_is_passed_over():
    assert pick_fastest({FAST: Clock().make_step(1.0), CUDNN: refuse}) == FAST
    with pytest.raises(jax.errors.JaxRuntimeError):
        pick_fastest({FAST: refuse})


@pytest.mark.cpu_only("states what a CPU takes")
def test_on_cpu_nothing_is_raced(monkeypatch):
    monkeypatch.setattr(probe, "pick_fastest", refuse)
    sizes: Any = {"batch_size": 4, "n_frames": 16, "n_features": 8, "n_steps": 10**9}
    assert choose_forms(ModelConfig(name="lstm"), "float32", **sizes) == Forms()


def test_a_step_of_the_race_is_a_training_step(monkeypatch):
    raced = []
    monkeypatch.setattr(probe, "has_cuda", lambda: True)
    monkeypatch.setattr(
        probe, "pick_fastest", lambda steps: raced.append(steps) or next(iter(steps))
    )
    sizes: Any = {"batch_size": 2, "n_frames": 17, "n_features": 3, "n_steps": 10**9}
    assert choose_forms(ModelConfig(name="lstm", hidden=4), "float32", **sizes) == FAST
    (steps,) = raced
    assert list(steps) == [FAST, CUDNN]
    state, sums = steps[FAST]()
    assert state.step == 1
    assert sums.count == 2
    raced.clear()
    choose_forms(ModelConfig(name="cnn"), "float32", **sizes)  # has no LSTM
    choose_forms(ModelConfig(name="lstm"), "float32", **sizes, shared_out=True)
    assert not raced


@pytest.mark.cpu_only("states what a CPU takes too")
def test_an_lstm_of_few_turns_is_unrolled_on_a_gpu_alone(monkeypatch):
    short, long = ModelConfig(name="cnn_lstm"), ModelConfig(name="lstm")
    assert choose_plain_forms(short, 83) == Forms()
    monkeypatch.setattr(probe, "has_cuda", lambda: True)
    assert choose_plain_forms(short, 83) == Forms(lstm="unrolled")  # 5 turns
    assert choose_plain_forms(short, 660) == Forms()
    assert choose_plain_forms(long, 83) == Forms()
    assert choose_plain_forms(ModelConfig(name="cnn"), 83) == Forms()


def test_a_short_run_is_not_worth_a_race(monkeypatch):
    monkeypatch.setattr(probe, "has_cuda", lambda: True)
    monkeypatch.setattr(probe, "pick_fastest", refuse)
    sizes: Any = {"batch_size": 32, "n_frames": 165, "n_features": 40, "n_steps": 320}
    assert choose_forms(ModelConfig(name="lstm"), "float32", **sizes) == Forms()
