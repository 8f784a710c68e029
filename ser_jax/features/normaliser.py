"""Mean and standard deviation of the training features, which normalise all features."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from flax import struct

from ser_jax.errors import check


@struct.dataclass
class Normaliser:
    """Mean and standard deviation of each feature, float32 [F]."""

    mean_F: jax.Array
    std_F: jax.Array


def fit_normaliser(
    x_BTF: Any,
    mask_BT: Any | None = None,
    kind: Literal["coefficient", "global", "none"] = "coefficient",
    *,
    total: Callable[[np.ndarray], np.ndarray] = lambda part: part,
) -> Normaliser:
    """Mean and standard deviation of the training clips' features, on the host in float64.

    Args:
      x_BTF: features of the training clips, and of no others.
      mask_BT: True for frames that count; None counts all.
      kind: 'coefficient' (per feature), 'global' (one pair for all), 'none' (0 and 1: no change).
      total: adds up a sum over all processes, if each has some of the clips.

    Returns:
      A `Normaliser`; a constant feature gets deviation 1, so that it becomes 0, not NaN.
    """
    n_features = x_BTF.shape[-1]
    mean, std = np.zeros(1), np.ones(1)
    if kind != "none":
        row_RF = np.asarray(x_BTF).reshape(-1, n_features)
        if mask_BT is not None:
            row_RF = row_RF[np.asarray(mask_BT, bool).reshape(-1)]
        axis = 0 if kind == "coefficient" else None
        count = total(np.array(float(len(row_RF) if axis == 0 else row_RF.size)))
        check(bool(count > 0), "normalisation: there is no frame to take statistics from")
        mean = total(row_RF.sum(axis=axis, dtype=np.float64, keepdims=True)) / count
        std = np.sqrt(total(np.square(row_RF - mean).sum(axis=axis, keepdims=True)) / count)
        mean, std = mean[0], np.where(std > 1e-5, std, 1.0)[0]
    whole = (np.broadcast_to(x, n_features).astype(np.float32) for x in (mean, std))
    return Normaliser(*map(jax.device_put, whole))


def normalise(x_BTF: jax.Array, normaliser: Normaliser) -> jax.Array:
    """Features [..., F] minus the mean, divided by the standard deviation."""
    last = (*(1,) * (x_BTF.ndim - 1), -1)
    return (x_BTF - normaliser.mean_F.reshape(last)) / normaliser.std_F.reshape(last)
