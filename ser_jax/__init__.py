"""Speech emotion recognition in JAX and Flax: train, evaluate, predict, compare.

Names are loaded on first use, so that `import ser_jax` and `ser-jax --help` stay fast. A call
leaves its caller's process as it was: JAX's settings, environment, signal handlers, logging,
warnings and random numbers. The command line also tunes the memory allocator on CPU, which a
program does by `ser_jax.tune_for_cpu()`.
"""

import importlib
from typing import Any

from ser_jax.machine.environment import give_caches_a_place, give_numba_a_cache

give_numba_a_cache()  # first, since it avoids folders that others may write to
give_caches_a_place()

__version__ = "0.1.0"

_HOMES = {
    "prepare": "data.store",
    "load_corpus": "data.store",
    "train": "api",
    "evaluate": "inference.evaluate",
    "predict": "inference.predict",
    "ablate": "api",
    "load_config": "cli.arguments",
    "taking_part": "multihost.processes",
    "is_writer": "multihost.processes",
    "tune_for_cpu": "machine.allocator",
    "UserError": "errors",
    "Config": "config",
    "AblationConfig": "config",
    "DataConfig": "config",
    "FeaturesConfig": "config",
    "AugmentConfig": "config",
    "ModelConfig": "config",
    "TrainConfig": "config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"ser_jax.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
