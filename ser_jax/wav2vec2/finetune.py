"""Prepare a pre-trained network for training: load weights, freeze parts, compute its input.

Frozen parts are computed once. If the convolutions are frozen, the network's input becomes their
features; if the whole backbone is, the mean state of every layer. Augmented clips differ from epoch
to epoch, so they stay samples. Each of the three is an `entry` of one network with one parameter
tree.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ser_jax.audio.samples import to_float
from ser_jax.config import BackboneConfig, Config, ModelConfig
from ser_jax.errors import UserError, check, warn
from ser_jax.features.batching import cut_batches
from ser_jax.features.corpus_features import Inputs
from ser_jax.machine.accelerator import has_fused_attention, jit
from ser_jax.progress import progress
from ser_jax.wav2vec2.architecture import Architecture, BackboneSpec
from ser_jax.wav2vec2.frozen_parts import split_params

_CHUNK = 8  # clips per batch while frozen parts are computed
_RATES = {  # our setting to the architecture's name
    "hidden_dropout": "hidden_dropout", "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout", "feature_dropout": "feat_proj_dropout",
    "layer_drop": "layerdrop", "mask_time_prob": "mask_time_prob",
    "mask_time_length": "mask_time_length", "mask_feature_prob": "mask_feature_prob",
    "mask_feature_length": "mask_feature_length",
}  # fmt: skip


class Prepared(NamedTuple):
    """What a run trains on.

    Attributes:
      inputs: as loaded, or with the frozen part's output in place of the samples.
      spec: the backbone; `None` for networks without one.
      variables: parameters to train, as {'params': ...}; `None` for newly initialised ones.
      frozen: frozen parameters that a step needs.
      kept: all frozen parameters.
    """

    inputs: Inputs
    spec: BackboneSpec | None = None
    variables: Any = None
    frozen: Any = None
    kept: Any = None


def prepare_backbone(config: Config, inputs: Inputs) -> Prepared:
    """Load a run's backbone and compute the input of its trained part.

    Raises:
      UserError: backbone.path is missing or unusable, or the sample rate is not the backbone's.
    """
    settings = config.backbone
    start = _load_start(
        check_path(settings), settings.pretrained, config.data.rate_hz, config.model.mask_padding
    )
    architecture = apply_rates(start.architecture, settings)
    check_attention(architecture, settings, config.train.dtype)
    check(
        settings.freeze_layers <= architecture.num_hidden_layers,
        f"backbone.freeze_layers={settings.freeze_layers}: the network has "
        f"{architecture.num_hidden_layers} layers",
    )
    spec = BackboneSpec(architecture, settings, "wave")
    n_classes = len(inputs.corpus.labels)
    params = init_params(config.model, spec, n_classes, config.seed, start.params)
    trained, kept = split_params(params, spec)
    entry = choose_entry(config) if inputs.clips is None else "wave"
    if entry != "wave":
        inputs = _compute_entry(config, spec, entry, start, params, inputs)
    frozen = {} if entry == "pooled" else kept
    if entry == "features":
        frozen = {"backbone": {k: v for k, v in kept["backbone"].items()
                               if k != "feature_extractor"}}  # fmt: skip
    spec = spec._replace(entry=entry)
    return Prepared(inputs, spec, {"params": trained}, frozen, kept)


def check_path(settings: BackboneConfig) -> str:
    """The path or hub id of the backbone; raises `UserError` if it is not set."""
    if settings.path is None:
        raise UserError(
            "backbone.path: missing; name a folder with config.json and weights, or a hub id such "
            "as facebook/wav2vec2-base-960h"
        )
    return settings.path


class _Start(NamedTuple):
    """Where training starts: the network and, unless it is trained from scratch, its weights."""

    architecture: Architecture
    params: Any


@functools.lru_cache(maxsize=1)
def _load_start(path: str, pretrained: bool, rate_hz: int, masked: bool) -> _Start:
    from ser_jax.wav2vec2.published import load_architecture, load_params, load_preprocessor

    preprocessor = load_preprocessor(path)
    wanted = preprocessor.get("sampling_rate", 16000)
    check(
        rate_hz == wanted,
        f"data.rate_hz={rate_hz}: {path} needs {wanted}; clips of any rate are resampled to it",
    )
    if preprocessor.get("return_attention_mask", masked) != masked:
        said = f"{path}: return_attention_mask={str(not masked).lower()}: pre-trained so, and "
        said += f"fine-tuned with model.mask_padding={str(masked).lower()}, which decides"
        warn(said)
    return _Start(load_architecture(path), load_params(path) if pretrained else None)


def apply_rates(architecture: Architecture, settings: BackboneConfig) -> Architecture:
    """The network with the dropout and masking rates that the settings override."""
    wanted = {theirs: getattr(settings, ours) for ours, theirs in _RATES.items()}
    changes = {name: value for name, value in wanted.items() if value is not None}
    return dataclasses.replace(architecture, **changes)


def check_attention(architecture: Architecture, settings: BackboneConfig, dtype: str) -> None:
    """Raise `UserError` if `backbone.attention` demands a kernel that cannot run."""
    from ser_jax.wav2vec2.self_attention import find_obstacle

    if settings.attention != "fused":
        return
    obstacle = find_obstacle(
        cudnn=has_fused_attention(),
        dtype=dtype,
        width=architecture.head_width,
        dropout=0.0 if settings.freeze == "all" else architecture.attention_dropout,
    )
    check(not obstacle, f"backbone.attention=fused: {obstacle}; or take backbone.attention=auto")


def init_params(
    model_config: ModelConfig, spec: BackboneSpec, n_classes: int, seed: int, loaded: Any
) -> dict[str, Any]:
    """All parameters: the backbone loaded or initialised; head and LoRA from the seed."""
    from ser_jax.wav2vec2.classifier import make_classifier

    model = make_classifier(
        model_config, n_classes, jnp.dtype("float32"), spec._replace(entry="wave")
    )
    have = {} if loaded is None else flatten_dict({"backbone": loaded})

    @jax.jit
    def init(key: jax.Array) -> dict[tuple[str, ...], jax.Array]:
        n_least = spec.architecture.receptive_field
        x_BTF, mask_BT = jnp.zeros((1, n_least, 1)), jnp.ones((1, n_least), bool)
        made: dict[Any, Any] = flatten_dict(model.init(key, x_BTF, mask_BT, train=False)["params"])
        return {path: leaf for path, leaf in made.items() if path not in have}

    key = jax.random.split(jax.random.key(seed))[0]  # as in state.init_state
    leaves = {path: jnp.asarray(leaf) for path, leaf in have.items()} | init(key)
    return unflatten_dict(leaves)


def init_trained(model_config: ModelConfig, spec: BackboneSpec, n_classes: int) -> dict[str, Any]:
    """Initial values of the trained parameters, as {'params': ...}; trace it for their shapes."""
    params = init_params(model_config, spec, n_classes, 0, None)
    return {"params": split_params(params, spec)[0]}


def choose_entry(config: Config) -> str:
    """The input of the trained part: 'wave', 'features' or 'pooled'."""
    settings = config.backbone
    if config.augment.enabled or not settings.cache or settings.freeze == "none":
        return "wave"
    return "pooled" if settings.freeze == "all" else "features"


_memo: list[Any] = []
"""Input, weights and output of the last frozen part, which cells of a grid share."""


def _compute_entry(
    config: Config, spec: BackboneSpec, entry: str, start: _Start, params: Any, inputs: Inputs
) -> Inputs:
    seed = None if spec.settings.pretrained else config.seed
    key = (entry, spec, config.model.mask_padding, config.train.dtype, seed)
    if _memo and _memo[0] == key and _memo[1] is inputs.x_BTF and _memo[2] is start:
        return _memo[3]
    made = compute_entry(config, spec, entry, params, inputs)
    _memo[:] = [key, inputs.x_BTF, start, made]
    return made


def compute_entry(
    config: Config, spec: BackboneSpec, entry: str, params: Any, inputs: Inputs
) -> Inputs:
    """Replace the samples of a corpus by the frozen part's output, showing a progress bar.

    Args:
      config: the run's configuration.
      spec: the backbone.
      entry: 'features' [clips, T, C] or 'pooled' [clips, L + 1, H].
      params: all parameters.
      inputs: samples of every clip.
    """
    from ser_jax.wav2vec2.classifier import make_classifier

    model: Any = make_classifier(
        config.model, len(inputs.corpus.labels), jnp.dtype(config.train.dtype),
        spec._replace(entry="wave"),
    )  # fmt: skip

    @jit
    def run(params: Any, wave_BN: jax.Array, length_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        x_BN1 = to_float(wave_BN)[:, :, None]
        mask_BN = jnp.arange(wave_BN.shape[1])[None, :] < length_B[:, None]
        encoded = functools.partial(model.apply, {"params": params}, method="encode")
        z_BTC, mask_BT = encoded(x_BN1, mask_BN)
        if entry == "pooled":
            z_BTC = model.apply({"params": params}, z_BTC, mask_BT, method="pool")
        return z_BTC, mask_BT.sum(axis=1)

    corpus = inputs.corpus
    parts = []
    with progress("frozen layers", len(corpus.wave_BN), "clips") as advance:
        for index_B in cut_batches(np.arange(len(corpus.wave_BN)), _CHUNK):
            rows = np.maximum(index_B, 0)
            x_BTF, frames_B = run(params, corpus.wave_BN[rows], corpus.length_B[rows])
            real = int((index_B >= 0).sum())
            parts.append((np.asarray(x_BTF)[:real], np.asarray(frames_B)[:real]))
            advance(real)
    x_BTF, frames_B = (np.concatenate(part) for part in zip(*parts, strict=True))
    if entry == "pooled":  # the layers take the place of the frames
        frames_B = np.full(len(x_BTF), x_BTF.shape[1])
    return inputs._replace(x_BTF=x_BTF, frames_B=frames_B.astype(np.int32))
