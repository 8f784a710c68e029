"""Settings of the classifiers that are no networks."""

from dataclasses import dataclass
from typing import Literal

from ser_jax.config.fields import check_min
from ser_jax.errors import check

CLASSICAL = ("svm", "hmm")
"""Names under model.name that are no networks."""


@dataclass(frozen=True)
class ClassicalConfig:
    """model.name=svm, on statistics of a clip's frames, and hmm, on the frames themselves; both
    read real frames alone. The papers leave all of it open."""

    deltas: int = 1
    """Orders of regression deltas that are appended to the features of a frame: 0, 1 or 2."""
    delta_width: int = 9
    """Frames over which a delta is taken, odd."""
    trim_db: float | None = None
    """Leave out frames before the first and after the last whose mean over the mel bands lies
    within this many dB of the clip's loudest; none: keep the silence at both ends."""
    statistics: tuple[Literal["mean", "std", "min", "max"], ...] = ("mean", "std", "min", "max")
    """What an svm knows of a feature over the frames of a clip; scaled to mean 0 and deviation 1 by
    training clips."""
    kernel: Literal["rbf", "linear", "poly"] = "rbf"
    """Kernel of the svm; poly is of degree 3."""
    penalty: tuple[float, ...] = (10.0,)
    """C of the svm, the price of a training clip on the wrong side; of several the one best on
    validation."""
    gamma: float | None = None
    """Width of the kernels rbf and poly; none: 1 / number of statistics."""
    balanced: bool = False
    """Weigh the penalty of a class by the inverse of its share of the training clips."""
    topology: Literal["ergodic", "left_to_right"] = "ergodic"
    """Transitions of an hmm: between all states, or to the same and the next one alone, from the
    first."""
    states: int = 5
    """States of each emotion's hmm."""
    mixtures: int = 1
    """Gaussians per state."""
    covariance: Literal["diag", "full"] = "diag"
    """Covariance of each Gaussian."""
    variance_floor: float = 0.03
    """Variance that frames of digital silence leave to a Gaussian, as a share of that of all frames
    of the emotion."""
    iterations: int = 20
    """Most iterations of expectation maximisation."""
    tolerance: float = 1e-3
    """Gain in log-likelihood per frame below which an iteration is the last."""

    def __post_init__(self) -> None:
        check(0 <= self.deltas <= 2, f"classical.deltas={self.deltas}: must be 0, 1 or 2")
        check_min("classical", self, 3, "delta_width")
        check(self.delta_width % 2 == 1, f"classical.delta_width={self.delta_width}: must be odd")
        check_min("classical", self, 1, "states", "mixtures", "iterations")
        check_min("classical", self, 0, "tolerance", "variance_floor")
        for name in ("trim_db", "gamma"):
            value = getattr(self, name)
            check(
                value is None or value > 0, f"classical.{name}={value}: must be positive, or null"
            )
        known = ("mean", "std", "min", "max")
        for name, allowed in (
            ("statistics", lambda value: value in known),
            ("penalty", lambda value: isinstance(value, int | float) and value > 0),
        ):
            values = getattr(self, name)
            check(
                isinstance(values, tuple) and len(values) > 0 and all(map(allowed, values)),
                f"classical.{name}={list(values) if isinstance(values, tuple) else values}: must "
                "be a list of one or more "
                + (f"of {', '.join(known)}" if name == "statistics" else "positive numbers"),
            )
