"""Tables on terminals of any width."""

import io
import sys
from types import SimpleNamespace

import pytest

from ser_jax.cli.printing import print_predictions


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("term", ["xterm", "dumb"])
@pytest.mark.parametrize("columns", ["1", "20", "60", "300"])
def test_no_figure_is_cut_on_a_narrow_terminal(monkeypatch, columns, term):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stdout", Terminal())
    shares = {"surprised": 0.62, "neutral": 0.21, "fearful": 0.17}
    row = SimpleNamespace(
        file="a.wav", start_s=0.0, end_s=12.34, label="surprised", probabilities=shares
    )
    print_predictions([row], "table", "cnn_lstm")
    shown = sys.stdout.getvalue()  # pyright: ignore
    for word in ("a.wav", "0.00-12.34", "surprised", "0.62", "neutral 0.21, fearful 0.17"):
        assert word in shown
