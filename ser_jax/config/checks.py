"""What several sections of the configuration check and default to."""

import dataclasses
import math
import os
from typing import Any

from ser_jax.errors import check


def default_store_dir() -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return os.path.join(cache, "ser_jax")


def default_compile_cache() -> str:
    return os.path.join(default_store_dir(), "compiled")


def check_min(section: str, config: Any, least: float, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        check(value >= least, f"{section}.{name}={value}: must be at least {least}")


def check_finite(config: Any, prefix: str = "") -> None:
    """Refuse NaN and infinity in any section."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            check_finite(value, f"{prefix}{field.name}.")
        elif isinstance(value, float):
            check(math.isfinite(value), f"{prefix}{field.name}={value}: must be a finite number")


def check_seed(key: str, seed: int | None) -> None:
    """What NumPy's generators and scikit-learn's splits take: 32 bits."""
    check(
        seed is None or 0 <= seed < 2**32,
        f"{key}={seed}: must lie between 0 and {2**32 - 1}",
    )


def check_range(section: str, config: Any, low: str, high: str) -> None:
    a, b = getattr(config, low), getattr(config, high)
    check(a <= b, f"{section}.{low}={a}: must not exceed {section}.{high}={b}")
