"""Settings of the pre-trained network: its source, which parts are trained, and how."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ser_jax.config.fields import Bound, at_least, check_bounds, each, positive, within
from ser_jax.errors import check

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
_TARGET = Bound(f"must be of {', '.join(LORA_TARGETS)}", lambda name: name in LORA_TARGETS)


@dataclass(frozen=True)
class BackboneConfig:
    """The pre-trained network of model.name=wav2vec2; other networks ignore this section."""

    path: str | None = None
    """Folder with config.json and weights as saved by transformers, or a model id of the Hugging
    Face Hub, such as facebook/wav2vec2-base-960h; wav2vec2 requires it."""
    pretrained: bool = True
    """Start from the pre-trained weights; false: use only the sizes and start from random
    weights."""
    freeze: Literal["encoder", "all", "none"] = "encoder"
    """Which part stays frozen: encoder (the convolutions), all (the whole network below the head),
    or none. Outputs of frozen layers are computed only once if clips are not augmented."""
    freeze_layers: Annotated[int, at_least(0)] = 0
    """Number of transformer layers, counted from the bottom, that are frozen as well."""
    weighted_layers: bool = False
    """Feed the head a learned weighted sum of all layers instead of the last layer."""
    projector: Annotated[int, at_least(1)] = 256
    """Units of the projection between the mean over frames and the classifier."""
    normalise_before_padding: bool = False
    """Normalise each clip to zero mean and unit variance over its own samples; false: over its
    padding as well, as in the study."""
    lora_rank: Annotated[int, at_least(0)] = 0
    """Rank of the LoRA adapters in the attention layers, which are trained instead of the layers
    themselves; 0 disables LoRA."""
    lora_alpha: Annotated[float, positive()] = 16.0
    """Scale of the LoRA adapters, which are multiplied by lora_alpha / lora_rank."""
    lora_targets: Annotated[tuple[str, ...], each(_TARGET)] = ("q_proj", "v_proj")
    """Attention projections that get LoRA adapters: any of q_proj, k_proj, v_proj and out_proj."""
    hidden_dropout: Annotated[float | None, within("[0, 1)")] = None
    """Dropout after attention and feed-forward layers; null: as in its config.json."""
    attention_dropout: Annotated[float | None, within("[0, 1)")] = None
    """Dropout of attention weights; 0 lets training on NVIDIA GPUs use the fused kernel; null: as
    in its config.json."""
    activation_dropout: Annotated[float | None, within("[0, 1)")] = None
    """Dropout inside feed-forward layers; null: as in its config.json."""
    feature_dropout: Annotated[float | None, within("[0, 1)")] = None
    """Dropout between the convolutions and the transformer; null: as in its config.json."""
    layer_drop: Annotated[float | None, within("[0, 1)")] = None
    """Probability that a training step skips a transformer layer; null: as in its config.json."""
    mask_time_prob: Annotated[float | None, within("[0, 1)")] = None
    """SpecAugment: fraction of frames to mask, not counting overlaps; 0 disables it; null: as in
    its config.json."""
    mask_time_length: Annotated[int | None, at_least(1)] = None
    """Width of a time mask, in frames; null: as in its config.json."""
    mask_feature_prob: Annotated[float | None, within("[0, 1)")] = None
    """SpecAugment: fraction of hidden features to mask; 0 disables it; null: as in its
    config.json."""
    mask_feature_length: Annotated[int | None, at_least(1)] = None
    """Width of a feature mask, in features; null: as in its config.json."""
    attention: Literal["auto", "plain", "fused"] = "auto"
    """How attention is computed: auto (cuDNN's fused kernel on NVIDIA GPUs from Ampere on in
    bfloat16, except in training with attention_dropout; plain elsewhere), fused (as auto, but an
    error where training could not use the kernel) or plain."""
    remat: bool = False
    """Recompute layers in the backward pass instead of storing their activations, which saves
    memory and costs time."""
    cache: bool = True
    """Cache the outputs of frozen layers if clips are not augmented; false: recompute them every
    epoch."""

    def __post_init__(self) -> None:
        check_bounds(self, "backbone")
        trains_layers = self.freeze != "all"
        for name in ("lora_rank", "freeze_layers"):
            value = getattr(self, name)
            check(
                value == 0 or trains_layers,
                f"backbone.{name}={value}: has no effect with backbone.freeze=all; "
                "use backbone.freeze=encoder",
            )
        check(
            self.freeze_layers == 0 or self.freeze == "encoder",
            f"backbone.freeze_layers={self.freeze_layers}: requires backbone.freeze=encoder",
        )
