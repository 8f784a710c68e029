"""Which parameters of a backbone are trained, and which are frozen."""

from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from ser_jax.wav2vec2.architecture import BackboneSpec


def split_params(params: Any, spec: BackboneSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split nested parameters into the trained and the frozen ones."""
    parts: tuple[dict, dict] = {}, {}
    for path, leaf in flatten_dict(params).items():
        parts[is_frozen(path, spec)][path] = leaf
    trained, frozen = (unflatten_dict(part) for part in parts)
    return trained, frozen


def is_frozen(path: tuple[str, ...], spec: BackboneSpec) -> bool:
    """Whether the parameter at `path` in the network's tree is frozen."""
    settings = spec.settings
    if path[0] != "backbone" or path[-1].startswith("lora_"):
        return False
    if settings.freeze == "all" or settings.lora_rank:
        return True
    if settings.freeze == "none":
        return False
    if path[1] == "feature_extractor":
        return True
    if path[1:3] == ("encoder", "layers"):
        return int(path[3]) < settings.freeze_layers
    # In the stable layout the norm comes after all layers.
    above = spec.architecture.do_stable_layer_norm and path[1:3] == ("encoder", "layer_norm")
    return settings.freeze_layers > 0 and not above
