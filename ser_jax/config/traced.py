"""Settings that are numbers in a run's state, so that one program serves all their values."""

from typing import Any, NamedTuple

from ser_jax.config.fields import list_marks


class Traced(NamedTuple):
    """Annotation of a field whose value is an argument of the compiled programs.

    It decides which numbers the state holds (`training.state.list_numbers`), and that neither the
    cache of programs (`systems.build`) nor the grouping of a grid's runs (`grid.schedule`)
    distinguishes values.
    """

    off_at_0: bool = False
    """Whether 0 leaves the number out of the program; by default it is always part of it."""
    times: str = ""
    """The field that holds the number of copies; 0 leaves the number out."""


def list_traced(section: Any) -> dict[str, Traced]:
    """The traced fields of a config or its class, in order."""
    return dict(list_marks(section, Traced))


def list_switches(section: Any) -> list[str]:
    """The fields that leave a traced number out of the program if they are 0."""
    marks = list_marks(section, Traced)
    return [mark.times or name for name, mark in marks if mark.times or mark.off_at_0]
