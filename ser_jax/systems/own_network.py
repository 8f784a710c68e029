"""What a run must know of a network, and networks from outside the package."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from ser_jax.config import ModelConfig
from ser_jax.errors import UserError, check, one_line


def _take_any(config: ModelConfig, n_frames: int, n_features: int) -> None:
    """Every input is large enough."""


class Network(NamedTuple):
    """How a network is built, and what is known of it beforehand.

    Attributes:
      build: (config, n_classes, dtype, axis_name, forms) -> the module; see `make_model`.
      convolves: whether it has convolutions, which XLA on CPU runs slowly inside a loop.
      check: (config, frames, features): raises a UserError where the input is too small.
    """

    build: Callable[..., nn.Module]
    convolves: bool = True
    check: Callable[[ModelConfig, int, int], None] = _take_any


def import_network(name: str) -> Network:
    """A network from outside the package: a Flax module class, or a function that makes a module.

    It is called with `n_classes` and `model.kwargs`; see `systems.networks.make_model` for what the
    module maps. The current folder is searched too.

    Args:
      name: MODULE:CLASS.

    Raises:
      UserError: there is no such module, or nothing of that name in it.
    """
    module_name, _, attribute = name.partition(":")
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever its own code may raise
        raise _blame(f"model.name={name}: {module_name} cannot be imported", error) from error
    make: Any = getattr(module, attribute, None)
    check(
        callable(make),
        f"model.name={name}: {module_name} has no class or function {attribute}; name one",
    )

    def build(config: ModelConfig, n_classes: int, *_: Any) -> nn.Module:
        try:
            kwargs = {name: _freeze(value) for name, value in config.kwargs.items()}
            network = make(n_classes=n_classes, **kwargs)
        except Exception as error:
            where = f"model.name={name}: cannot be made with model.kwargs={config.kwargs}"
            raise _blame(where, error) from error
        check(
            isinstance(network, nn.Module),
            f"model.name={name}: gives {type(network).__name__}, no flax.linen.Module",
        )
        return network

    return Network(build)


def check_logits(
    name: str, network: nn.Module, n_classes: int, n_frames: int, n_features: int
) -> None:
    """Raise a UserError where a network does not give one logit for each class of each clip."""
    key = jax.random.key(0)

    def call() -> Any:
        x_BTF, mask_BT = jnp.zeros((2, n_frames, n_features)), jnp.ones((2, n_frames), bool)
        keys = {"params": key, "dropout": key}
        return network.init_with_output(keys, x_BTF, mask_BT, train=True, dropout=0.5)[0]

    try:
        logits_BC = jax.eval_shape(call)
    except Exception as error:
        raise _blame(f"model.name={name}: cannot be called", error) from error
    shape = getattr(logits_BC, "shape", type(logits_BC).__name__)
    check(
        shape == (2, n_classes),
        f"model.name={name}: gives {shape} for 2 clips of {n_frames} frames; must give logits "
        f"[clips, classes], here {(2, n_classes)}",
    )


def _blame(where: str, error: Exception) -> UserError:
    return UserError(f"{where}: {type(error).__name__}: {one_line(error, 300)}; mend it")


def _freeze(value: Any) -> Any:
    """Lists as tuples and dictionaries as frozen ones, since JAX looks modules up by their hash."""
    if isinstance(value, list | tuple):
        return tuple(map(_freeze, value))
    if isinstance(value, dict):
        return FrozenDict({name: _freeze(one) for name, one in value.items()})
    return value
