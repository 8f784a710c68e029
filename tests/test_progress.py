"""How far a job is: a bar on a terminal, lines elsewhere, with steps and the time left."""

import io
import sys

import pytest

from ser_jax import progress as progress_module
from ser_jax.progress import progress


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now_s = 0.0
        monkeypatch.setattr(progress_module.time, "monotonic", lambda: self.now_s)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


def test_a_line_names_epoch_step_and_time_left(clock, capsys):
    with progress("training lstm", 10, "epochs") as advance:
        for number in range(1, 31):
            clock.now_s += 60
            advance(0.1, f"step {number % 10}/10")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training lstm: 0/10 epochs, step 1/10, about 1.6 h left"
    assert lines[19] == "training lstm: 2/10 epochs, step 0/10, about 80 min left"


def test_a_short_job_says_nothing(clock, capsys):
    with progress("features", 100, "clips") as advance:
        for _ in range(100):
            clock.now_s += 0.05
            advance()
    assert capsys.readouterr().err == ""


def test_what_was_done_before_does_not_count_as_speed(clock, capsys):
    with progress("training lstm", 10, "epochs") as advance:
        advance(8, earlier=True)
        clock.now_s += 30
        advance(1)
    assert capsys.readouterr().err == "training lstm: 9/10 epochs, about 30 s left\n"


def test_a_terminal_shows_a_bar_with_steps_and_time_left(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress("training lstm", 10, "epochs") as advance:
        advance(0.5, "step 5/10")
    shown = terminal.getvalue()
    for text in ("training lstm", "epochs", "step 5/10", "left:"):
        assert text in shown
