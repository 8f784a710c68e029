"""A check: what the device found, what is expected, and how far they may be apart."""

import math
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.sections.context import Row


class Places(NamedTuple):
    """Where checks are computed.

    Attributes:
      device: what is checked.
      cpu: where references come from.
      dry: tiny shapes, the device being the CPU.
    """

    device: Any
    cpu: Any
    dry: bool


class Check(NamedTuple):
    """One comparison.

    Attributes:
      case: what is compared, in words.
      bound: greatest error that is right; see `compute_error`.
      compare: gives (found, expected): arrays, or trees of them.
      runs: whether this device can do it.
    """

    case: str
    bound: float
    compare: Callable[[], tuple[Any, Any]]
    runs: bool = True


def find_places(dry: bool) -> Places:
    """The device and the CPU; in a dry run the CPU twice."""
    cpu = jax.devices("cpu")[0]
    return Places(cpu if dry else jax.devices()[0], cpu, dry)


def run_on(
    device: Any, function: Callable[..., Any], *arguments: Any, precision: str = "highest"
) -> Any:
    """`function(*arguments)` compiled for and run on a device, its result as NumPy arrays.

    Args:
      device: where.
      function: pure.
      *arguments: trees of arrays.
      precision: of products and convolutions of float32: 'highest', or 'default', which is TF32
        on NVIDIA.
    """
    with jax.default_device(device), jax.default_matmul_precision(precision):
        return jax.device_get(jax.jit(function)(*jax.device_put(arguments, device)))


def compute_error(found: Any, expected: Any) -> float:
    """Relative norm ||found - expected|| / ||expected||; of a tuple the greatest of its parts."""
    if isinstance(found, tuple):
        return max(compute_error(*pair) for pair in zip(found, expected, strict=True))
    found, expected = _flatten(found), _flatten(expected)
    distance, size = np.linalg.norm(found - expected), np.linalg.norm(expected)
    return float(distance / size) if size else float(distance)


def _flatten(tree: Any) -> np.ndarray:
    leaves = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)]
    return np.concatenate(leaves)


def run_checks(checks: Sequence[Check], put: Callable[[Row], None]) -> None:
    """Checks one after another, each a row; one that fails stops no other."""
    for check in checks:
        row: Row = {"case": check.case, "bound": check.bound}
        if not check.runs:
            put(row | {"status": "noted", "reason": "needs a GPU"})
            continue
        try:
            error = compute_error(*check.compare())
        except Exception as failure:
            traceback.print_exc()  # for the log; the row has room for a line
            words = (str(failure).strip().splitlines() or [""])[0][:200]
            put(row | {"status": "failed", "reason": f"{type(failure).__name__}: {words}"})
            continue
        right = error <= check.bound  # not where it is no number
        put(row | {"status": "ok" if right else "wrong",
                   "error": error if math.isfinite(error) else None})  # fmt: skip
