"""The names of JAX that are not public, each behind one function.

| name | purpose | where it is missing |
|---|---|---|
| `jax._src.xla_bridge.backends_are_initialized` | to refuse a fork of a program that used JAX | the fork hangs |
| `jax.experimental.compilation_cache` | to use a new cache folder | programs are cached only if none was compiled before |

No public name does the same in JAX 0.10.2 to 0.12. No other module may use `jax._src` or
`jax.experimental`, except `multihost.sharing`, which uses `multihost_utils`.
"""  # noqa: E501

import importlib
from typing import Any


def has_started() -> bool:
    """Whether JAX has initialised its devices; False where that is unknown."""
    backends_are_initialized = _find("jax._src.xla_bridge", "backends_are_initialized")
    return backends_are_initialized is not None and backends_are_initialized()


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
