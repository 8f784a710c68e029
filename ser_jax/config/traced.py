"""Settings that are numbers in a run's state: a program takes them, so their values share one."""

from typing import Any, NamedTuple

from ser_jax.config.fields import list_marks


class Traced(NamedTuple):
    """A mark on a field: its value, or what follows from it, is an argument of the programs.

    From it follow the numbers that the state holds (`training.state.list_numbers`), and that
    neither the programs' cache (`systems.build`) nor a grid's grouping of runs (`grid.schedule`)
    tells values apart.
    """

    off_at_0: bool = False
    """Whether 0 leaves it out of the program; by default it is always there."""
    times: str = ""
    """The field that says how many copies of the number there are, none at 0."""


def list_traced(section: Any) -> dict[str, Traced]:
    """The traced fields of a config or its class, in their order."""
    return dict(list_marks(section, Traced))


def list_switches(section: Any) -> list[str]:
    """The fields each of which leaves a traced number out of the program at 0."""
    marks = list_marks(section, Traced)
    return [mark.times or name for name, mark in marks if mark.times or mark.off_at_0]
