"""Settings of the classifiers that are no networks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from ser_jax.config.fields import Bound, at_least, check_bounds, positive

CLASSICAL = ("svm", "hmm")
"""Names under model.name that are no networks."""
Statistic = Literal["mean", "std", "min", "max"]


def _list_of(what: str, allows: Callable[[Any], bool]) -> Bound:
    def holds(values: Any) -> bool:
        return isinstance(values, tuple) and len(values) > 0 and all(map(allows, values))

    return Bound(f"must be a list of one or more {what}", holds)


_WORDS = _list_of(f"of {', '.join(get_args(Statistic))}", lambda word: word in get_args(Statistic))
_POSITIVE = _list_of("positive numbers", lambda c: isinstance(c, int | float) and c > 0)


@dataclass(frozen=True)
class ClassicalConfig:
    """model.name=svm, on statistics of a clip's frames, and hmm, on the frames themselves; both
    read real frames alone. The papers leave all of it open."""

    deltas: Annotated[int, Bound("must be 0, 1 or 2", lambda value: value in (0, 1, 2))] = 1
    """Orders of regression deltas that are appended to the features of a frame: 0, 1 or 2."""
    delta_width: Annotated[int, at_least(3), Bound("must be odd", lambda value: value % 2 == 1)] = 9
    """Frames over which a delta is taken, odd."""
    trim_db: Annotated[float | None, positive(", or null")] = None
    """Leave out frames before the first and after the last whose mean over the mel bands lies
    within this many dB of the clip's loudest; none: keep the silence at both ends."""
    statistics: Annotated[tuple[Statistic, ...], _WORDS] = get_args(Statistic)
    """What an svm knows of a feature over the frames of a clip; scaled to mean 0 and deviation 1 by
    training clips."""
    kernel: Literal["rbf", "linear", "poly"] = "rbf"
    """Kernel of the svm; poly is of degree 3."""
    penalty: Annotated[tuple[float, ...], _POSITIVE] = (10.0,)
    """C of the svm, the price of a training clip on the wrong side; of several the one best on
    validation."""
    gamma: Annotated[float | None, positive(", or null")] = None
    """Width of the kernels rbf and poly; none: 1 / number of statistics."""
    balanced: bool = False
    """Weigh the penalty of a class by the inverse of its share of the training clips."""
    topology: Literal["ergodic", "left_to_right"] = "ergodic"
    """Transitions of an hmm: between all states, or to the same and the next one alone, from the
    first."""
    states: Annotated[int, at_least(1)] = 5
    """States of each emotion's hmm."""
    mixtures: Annotated[int, at_least(1)] = 1
    """Gaussians per state."""
    covariance: Literal["diag", "full"] = "diag"
    """Covariance of each Gaussian."""
    variance_floor: Annotated[float, at_least(0)] = 0.03
    """Variance that frames of digital silence leave to a Gaussian, as a share of that of all frames
    of the emotion."""
    iterations: Annotated[int, at_least(1)] = 20
    """Most iterations of expectation maximisation."""
    tolerance: Annotated[float, at_least(0)] = 1e-3
    """Gain in log-likelihood per frame below which an iteration is the last."""

    def __post_init__(self) -> None:
        check_bounds(self, "classical")
