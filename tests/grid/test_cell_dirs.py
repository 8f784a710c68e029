"""Cells that were trained together are written some at a time, in order, and stop at an error."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from ser_jax.errors import UserError
from ser_jax.grid import cell_dirs
from ser_jax.grid.cell_dirs import write_cells

pytestmark = pytest.mark.cpu_only("files, written by threads")

PLANS: Any = [SimpleNamespace(cell=number) for number in range(20)]
NOTHING: Any = [None] * len(PLANS)
PREPARED: Any = None


class Writer:
    """Stands in for `write_cell`; cells from `held_from` on are written once `open` is set.

    Attributes:
      begun, ended: numbers of cells.
      most: the greatest number that were being written at the same time.
    """

    def __init__(self, held_from: int, full_at: int | None = None):
        self.held_from, self.full_at = held_from, full_at
        self.open, self.lock = threading.Event(), threading.Lock()
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.most = 0

    def __call__(self, plan: Any, prepared: Any, trained: Any) -> None:
        with self.lock:
            self.begun.append(plan.cell)
            self.most = max(self.most, len(self.begun) - len(self.ended))
            if len(self.begun) == self.held_from + cell_dirs._WRITERS and self.full_at is None:
                self.open.set()
        if plan.cell >= self.held_from:
            assert self.open.wait(60)
        with self.lock:
            self.ended.append(plan.cell)
        if plan.cell == self.full_at:
            raise UserError(f"cell {plan.cell}: cannot write")


@pytest.fixture
def begin(monkeypatch):
    """Begins to write all cells by a `Writer`, which opens when its pool takes no more."""

    def begin(writer: Writer) -> Any:
        class Pool(ThreadPoolExecutor):
            def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
                super().shutdown(wait=False, cancel_futures=cancel_futures)
                writer.open.set()
                super().shutdown(wait=wait)

        monkeypatch.setattr(cell_dirs, "ThreadPoolExecutor", Pool)
        monkeypatch.setattr(cell_dirs, "write_cell", writer)
        return write_cells(PLANS, PREPARED, NOTHING)

    return begin


def test_several_cells_are_written_at_a_time_and_given_in_order(begin):
    writer = Writer(held_from=1)  # no later one ends before as many have begun as may
    assert list(begin(writer)) == list(range(20))
    assert sorted(writer.ended) == list(range(20))
    assert writer.most == cell_dirs._WRITERS > 1


def test_the_first_cell_is_written_alone(begin):
    writer = Writer(held_from=1)
    cells = begin(writer)
    assert next(cells) == 0
    assert writer.begun == [0]
    assert len(list(cells)) == 19


def test_cell_that_cannot_be_written_stops_the_others_and_those_before_it_are_given(begin):
    writer = Writer(held_from=4, full_at=3)
    cells = begin(writer)
    assert [next(cells) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="cell 3: cannot write"):
        next(cells)
    assert sorted(writer.begun) == sorted(writer.ended)  # nothing is half-written
    assert max(writer.begun) <= 3 + cell_dirs._WRITERS


def test_caller_that_stops_waits_for_no_cell_but_those_that_are_begun(begin):
    writer = Writer(held_from=2, full_at=100)
    cells = begin(writer)
    assert [next(cells), next(cells)] == [0, 1]
    cells.close()
    assert sorted(writer.begun) == sorted(writer.ended)
    assert max(writer.begun) <= 1 + cell_dirs._WRITERS
