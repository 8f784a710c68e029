"""The names of JAX that are not public, each behind one function.

| name | purpose | where it is missing |
|---|---|---|
| `jax._src.xla_bridge.backends_are_initialized` | to refuse a late start before processes connect | JAX refuses after they have |
| `jax._src.clusters.ClusterEnv` | which processes take part, by SLURM or a TPU pod | a `UserError` names the keys to give |
| `jax.experimental.compilation_cache` | to use a new cache folder | programs are cached only if none was compiled before |

No public name does the same in JAX 0.10.2 to 0.12. No other module may use `jax._src` or
`jax.experimental`.
"""  # noqa: E501

import importlib
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from ser_jax.errors import UserError


class Detected(NamedTuple):
    """What a cluster says about this process; `None`: unknown, or all devices of the host."""

    coordinator: str | None
    count: int | None
    process: int | None
    local_device_ids: Sequence[int] | None


def has_started() -> bool:
    """Whether JAX has initialised its devices, after which `jax.distributed` cannot start; False if
    unknown."""
    backends_are_initialized = _find("jax._src.xla_bridge", "backends_are_initialized")
    return backends_are_initialized is not None and backends_are_initialized()


def detect_processes(
    coordinator: str | None, count: int | None, process: int | None, *, timeout_s: int
) -> Detected:
    """Fill in what is `None` from SLURM, a TPU pod, Kubernetes or Open MPI, as JAX detects them.

    Raises:
      UserError: this JAX detects in another way, and something is `None`.
    """
    given = coordinator, count, process
    cluster = _find("jax._src.clusters", "ClusterEnv")
    try:
        return Detected(
            *cluster.auto_detect_unset_distributed_params(*given, None, None, timeout_s)
        )
    except (AttributeError, TypeError) as error:  # removed, renamed, or with other arguments
        if None in given:
            raise UserError(
                f"parallel.coordinator={coordinator}: JAX {jax.__version__} does not say which "
                "processes take part; give parallel.coordinator, parallel.num_processes and "
                "parallel.process_id"
            ) from error
    local = os.environ.get("SLURM_LOCALID")  # srun: one device for each process of a host
    return Detected(*given, None if local is None else [int(local)])


def reset_compile_cache() -> None:
    """Let JAX read the settings of its compilation cache again; by default it does so once."""
    module = "jax.experimental.compilation_cache.compilation_cache"
    if (reset_cache := _find(module, "reset_cache")) is not None:
        reset_cache()


def _find(module: str, name: str | None = None) -> Any:
    """A module or a name in it; `None` where this JAX lacks it."""
    try:
        found = importlib.import_module(module)
    except ImportError:
        return None
    return found if name is None else getattr(found, name, None)
