"""From settings to network, optimiser and compiled programs."""

import dataclasses
import functools
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import flax.linen as nn
import optax

from ser_jax.augment.waveform import make_take_augmented
from ser_jax.config import AugmentConfig, Config, FeaturesConfig, ModelConfig, TrainConfig
from ser_jax.config.traced import list_switches, list_traced
from ser_jax.errors import check
from ser_jax.features.batching import TakeTrain, take_plain
from ser_jax.features.frontend import make_front_end
from ser_jax.machine.accelerator import has_cuda, on_accelerator
from ser_jax.models.forms import Forms
from ser_jax.systems.networks import make_model
from ser_jax.training.layouts import Layout
from ser_jax.training.optimizer import make_optimizer, needs_steps
from ser_jax.training.programs import Programs, make_programs
from ser_jax.wav2vec2.architecture import BackboneSpec

_DEADLOCKED = ("0.11.1", "0.11.2")
"""Versions whose FFTs on CPU share out their work among threads that all wait for it; `pip` keeps
to others, but a system's own packages may not."""

Built = tuple[nn.Module, optax.GradientTransformation, Programs]
"""Network, optimiser and programs."""


@functools.lru_cache(maxsize=32)
def _build_cached(
    model_config: ModelConfig,
    train: TrainConfig,
    n_classes: int,
    layout: Layout,
    take_train: TakeTrain,
    spec: BackboneSpec | None,
    n_steps: int | None,
    forms: Forms,
    make: Callable[..., Any],
) -> Built:
    model = make_model(
        model_config, n_classes, dtype=train.dtype, axis_name=layout.axis_name, forms=forms,
        spec=spec,
    )  # fmt: skip
    tx = make_optimizer(train, n_steps)
    programs = make(
        model, tx, n_classes=n_classes, take_train=take_train, layout=layout,
        accumulate=train.accumulate,
    )  # fmt: skip
    return model, tx, programs


def build(
    model: ModelConfig,
    train: TrainConfig,
    n_classes: int,
    layout: Layout = Layout(),  # noqa: B008 - immutable
    take_train: TakeTrain = take_plain,
    spec: BackboneSpec | None = None,
    n_steps: int | None = None,
    forms: Forms | None = None,
    make: Callable[..., Any] = make_programs,
) -> Built:
    """Network, optimiser and programs; runs that differ only in traced numbers share programs.

    Args:
      model, train, n_classes, take_train, spec: see `make_model` and `make_programs`.
      layout: where the programs run.
      n_steps: of the whole run, by which its learning rate is scheduled.
      forms: of the network; `None`: those that are fastest here.
      make: makes the programs, as `make_programs` does; for a grid those of many runs.
    """
    # These change no program: the length of the run, and numbers that live in the state.
    model = dataclasses.replace(model, **hold_traced(model))
    train = dataclasses.replace(
        train, epochs=1, early_stop_epochs=0, profile=0, best_by="accuracy", batch_size=1,
        buckets=1, **hold_numbers(train),
    )  # fmt: skip
    if spec is not None:  # nor does where its weights are from, or whether outputs are kept
        settings = dataclasses.replace(spec.settings, path=None, pretrained=True, cache=True)
        spec = spec._replace(settings=settings)
    n_steps = n_steps if needs_steps(train) else None
    forms = forms or choose_forms()
    return _build_cached(model, train, n_classes, layout, take_train, spec, n_steps, forms, make)


def hold_numbers(train: TrainConfig) -> dict[str, Any]:
    """The settings that a network's programs depend on: of the learning rates, only their ratio."""
    below = train.backbone_learning_rate
    ratio = None if below is None else below / train.learning_rate
    return hold_traced(train) | {"learning_rate": 1.0, "backbone_learning_rate": ratio}


def hold_traced(section: Any) -> dict[str, Any]:
    """The same value for every traced number and its switch, since the state says what they are."""
    return dict.fromkeys([*list_traced(section), *list_switches(section)], 0)


def build_for(
    config: Config,
    n_classes: int,
    layout: Layout,
    spec: BackboneSpec | None,
    n_steps: int,
    forms: Forms | None = None,
    make: Callable[..., Any] = make_programs,
) -> Built:
    """Network, optimiser and programs of a run of `n_steps`; see `build`."""
    take_train = choose_take(
        config.augment, config.features, config.data.rate_hz, config.model.mask_padding
    )
    return build(
        config.model, config.train, n_classes, layout, take_train, spec, n_steps, forms, make
    )


def choose_forms() -> Forms:
    """The forms that are fastest here, compilation included, as benchmarks/README.md has them."""
    return Forms(conv="rows", lstm="unrolled") if has_cuda() else Forms()


def choose_take(
    augment: AugmentConfig, features: FeaturesConfig, rate_hz: int, masked: bool = False
) -> TakeTrain:
    """How training batches are taken: plain, or augmented on the device.

    Raises:
      UserError: this jaxlib would hang while it augments.
    """
    if not augment.on_device:
        return take_plain
    jaxlib = version("jaxlib")
    check(
        on_accelerator() or jaxlib not in _DEADLOCKED,
        f"augment.enabled=true: jaxlib {jaxlib} waits for ever in several FFTs at once "
        "on a CPU; pip install -U jax jaxlib, or choose augment.backend=host",
    )
    augment = dataclasses.replace(augment, workers=None, **hold_traced(augment))
    return _make_take_cached(augment, features, rate_hz, masked and features.is_own)


@functools.lru_cache(maxsize=8)
def _make_take_cached(
    augment: AugmentConfig, features: FeaturesConfig, rate_hz: int, masked: bool
) -> TakeTrain:
    own = features.normalise if features.is_own else None
    front_end = make_front_end(features, rate_hz)
    return make_take_augmented(augment, rate_hz, front_end, own=own, masked=masked)
