"""Settings of a pre-trained network: where it comes from, what of it is trained, and how."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ser_jax.config.fields import Bound, at_least, check_bounds, each, positive, within
from ser_jax.errors import check

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
_TARGET = Bound(f"must be of {', '.join(LORA_TARGETS)}", lambda name: name in LORA_TARGETS)


@dataclass(frozen=True)
class BackboneConfig:
    """wav2vec 2.0 under model.name=wav2vec2; other networks have none."""

    path: str | None = None
    """Folder with config.json and weights as transformers saves them, or an id of the Hugging Face
    hub, such as facebook/wav2vec2-base-960h."""
    pretrained: bool = True
    """Start from its weights; false: from random ones, and only the sizes are its own."""
    freeze: Literal["encoder", "all", "none"] = "encoder"
    """What is not trained: the convolutions (encoder), the whole network below the head (all), or
    nothing. What is frozen and not augmented is computed once."""
    freeze_layers: Annotated[int, at_least(0)] = 0
    """Lowest transformer layers that are not trained either, with all below them."""
    weighted_layers: bool = False
    """Feed the head a learned weighted sum of all layers instead of the last one."""
    projector: Annotated[int, at_least(1)] = 256
    """Units between the mean over frames and the classifier."""
    normalise_before_padding: bool = False
    """Zero mean and unit variance over a clip's own samples; false: over its padding as well, as in
    the study."""
    lora_rank: Annotated[int, at_least(0)] = 0
    """Rank of low-rank additions to the attention, which are trained in place of the layers; 0:
    none."""
    lora_alpha: Annotated[float, positive()] = 16.0
    """The additions are multiplied by lora_alpha / lora_rank."""
    lora_targets: Annotated[tuple[str, ...], each(_TARGET)] = ("q_proj", "v_proj")
    """Which of q_proj, k_proj, v_proj and out_proj have additions."""
    hidden_dropout: Annotated[float | None, within("[0, 1)")] = None
    """Dropout after attention and feed-forward; none, here and below: as the network's own
    config.json says."""
    attention_dropout: Annotated[float | None, within("[0, 1)")] = None
    """Dropout of attention weights; 0 lets training on NVIDIA use the fused kernel."""
    activation_dropout: Annotated[float | None, within("[0, 1)")] = None
    """Dropout inside the feed-forward."""
    feature_dropout: Annotated[float | None, within("[0, 1)")] = None
    """Dropout of what the convolutions hand to the transformer."""
    layer_drop: Annotated[float | None, within("[0, 1)")] = None
    """Probability with which a training step skips a layer."""
    mask_time_prob: Annotated[float | None, within("[0, 1)")] = None
    """SpecAugment: share of frames that masked spans would cover if none overlapped; 0: none."""
    mask_time_length: Annotated[int | None, at_least(1)] = None
    """Frames of a masked span."""
    mask_feature_prob: Annotated[float | None, within("[0, 1)")] = None
    """SpecAugment: share of hidden features that masked spans would cover; 0: none."""
    mask_feature_length: Annotated[int | None, at_least(1)] = None
    """Features of a masked span."""
    attention: Literal["auto", "plain", "fused"] = "auto"
    """How attention is computed. auto: by cuDNN's fused kernel on NVIDIA (Ampere or later) in
    bfloat16, except in training with attention_dropout; plain elsewhere. fused: as auto, but
    training stops with an error where it would be plain. plain: always."""
    remat: bool = False
    """Compute layers again for the gradient instead of keeping what they made: less memory, more
    time."""
    cache: bool = True
    """Compute what is frozen once and keep it, where clips are not augmented; false: each epoch."""

    def __post_init__(self) -> None:
        check_bounds(self, "backbone")
        trains_layers = self.freeze != "all"
        for name in ("lora_rank", "freeze_layers"):
            value = getattr(self, name)
            check(
                value == 0 or trains_layers,
                f"backbone.{name}={value}: has no meaning with backbone.freeze=all; "
                "take backbone.freeze=encoder",
            )
        check(
            self.freeze_layers == 0 or self.freeze == "encoder",
            f"backbone.freeze_layers={self.freeze_layers}: takes backbone.freeze=encoder",
        )
