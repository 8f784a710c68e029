"""Settings of the classical classifiers: support vector machine and hidden Markov model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from ser_jax.config.fields import Bound, at_least, check_bounds, positive

CLASSICAL = ("svm", "hmm")
"""Values of model.name that are not networks."""
Statistic = Literal["mean", "std", "min", "max"]


def _list_of(what: str, allows: Callable[[Any], bool]) -> Bound:
    def holds(values: Any) -> bool:
        return isinstance(values, tuple) and len(values) > 0 and all(map(allows, values))

    return Bound(f"must be a list of one or more {what}", holds)


_WORDS = _list_of(f"of {', '.join(get_args(Statistic))}", lambda word: word in get_args(Statistic))
_POSITIVE = _list_of("positive numbers", lambda c: isinstance(c, int | float) and c > 0)


@dataclass(frozen=True)
class ClassicalConfig:
    """The classical classifiers, model.name=svm and hmm.

    An svm is fitted to statistics over a clip's frames, an hmm to the frames themselves; both
    ignore padding. The papers specify none of these settings.
    """

    deltas: Annotated[int, Bound("must be 0, 1 or 2", lambda value: value in (0, 1, 2))] = 1
    """Highest order of the regression deltas appended to each frame's features: 0, 1 or 2."""
    delta_width: Annotated[int, at_least(3), Bound("must be odd", lambda value: value % 2 == 1)] = 9
    """Width of the window of a delta, in frames; odd."""
    trim_db: Annotated[float | None, positive(", or null")] = None
    """Trim leading and trailing frames whose mean over the mel bands is more than this many dB
    below the clip's loudest frame; null: keep the silence at both ends."""
    statistics: Annotated[tuple[Statistic, ...], _WORDS] = get_args(Statistic)
    """Statistics of each feature over a clip's frames that the svm is given, standardised by the
    training clips."""
    kernel: Literal["rbf", "linear", "poly"] = "rbf"
    """Kernel of the svm; poly has degree 3."""
    penalty: Annotated[tuple[float, ...], _POSITIVE] = (10.0,)
    """Candidates for C, the svm's penalty of a misclassified training clip; the best on validation
    is used."""
    gamma: Annotated[float | None, positive(", or null")] = None
    """Coefficient gamma of the rbf and poly kernels; null: 1 / number of statistics."""
    balanced: bool = False
    """Weight the penalty of each class inversely to its frequency in the training clips."""
    topology: Literal["ergodic", "left_to_right"] = "ergodic"
    """Transitions of an hmm: ergodic (between all states) or left_to_right (from the first state,
    to the same or the next one)."""
    states: Annotated[int, at_least(1)] = 5
    """Number of states of each emotion's hmm."""
    mixtures: Annotated[int, at_least(1)] = 1
    """Number of Gaussians per state."""
    covariance: Literal["diag", "full"] = "diag"
    """Covariance matrix of each Gaussian: diag or full."""
    variance_floor: Annotated[float, at_least(0)] = 0.03
    """Floor of a Gaussian's variance, which digital silence would shrink to 0, as a fraction of the
    variance over all frames of the emotion."""
    iterations: Annotated[int, at_least(1)] = 20
    """Maximum number of iterations of expectation maximisation."""
    tolerance: Annotated[float, at_least(0)] = 1e-3
    """Stop once an iteration gains less than this log-likelihood per frame."""

    def __post_init__(self) -> None:
        check_bounds(self, "classical")
