"""Options of NVIDIA's command buffers: asked for where they are known to work, and nowhere else."""

import jax
import numpy as np
import pytest

from ser_jax import command_buffers
from ser_jax.command_buffers import OPTIONS, choose_options, try_options

KNOWN_ON_CPU = (("xla_cpu_enable_fast_math", "False"),)


@pytest.mark.cpu_only("states what a CPU takes")
def test_on_cpu_programs_are_compiled_as_ever():
    assert choose_options("auto") == ()


@pytest.fixture
def on_cuda(monkeypatch):
    monkeypatch.setattr(command_buffers, "has_cuda", lambda: True)


def test_on_a_gpu_they_can_be_switched_off(on_cuda, monkeypatch):
    monkeypatch.setattr(command_buffers, "try_options", lambda options: True)
    assert choose_options("auto") == OPTIONS
    assert choose_options("off") == ()


def test_options_that_this_xla_does_not_know_are_not_asked_for(on_cuda, monkeypatch):
    assert not try_options((("xla_no_such_option", "1"),))
    monkeypatch.setattr(command_buffers, "OPTIONS", (("xla_no_such_option", "1"),))
    assert choose_options("auto") == ()


@pytest.mark.cpu_only("names an option of XLA for CPUs")
def test_options_are_asked_for_where_the_trial_comes_out_right():
    assert try_options(())
    assert try_options(KNOWN_ON_CPU)


def test_options_with_which_the_trial_comes_out_wrong_are_not_asked_for(monkeypatch):
    def jit(function, **settings):
        del function, settings
        return lambda x: np.zeros_like(x)

    monkeypatch.setattr(jax, "jit", jit)
    try_options.cache_clear()
    assert not try_options(KNOWN_ON_CPU)
    try_options.cache_clear()
