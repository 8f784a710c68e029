"""Settings of the training of a network."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ser_jax.config.fields import at_least, between, check_bounds, positive, within
from ser_jax.config.traced import Traced
from ser_jax.errors import check

_FREEZE = "; to train nothing of the backbone, set backbone.freeze=all"


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation, and what is kept of it."""

    epochs: Annotated[int, at_least(1)] = 10
    """Passes over the training clips."""
    batch_size: Annotated[int, at_least(1)] = 32
    """Clips per step (not stated in the study)."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimiser: adam, or plain sgd."""
    learning_rate: Annotated[float, positive(), Traced()] = 1e-3
    """Step size of the optimiser."""
    backbone_learning_rate: Annotated[float | None, positive(_FREEZE)] = None
    """Step size below the head of a pre-trained network; none: the same."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After the warm-up the learning rate stays (constant, the study's), or falls to 0 in a
    straight line (linear) or half a wave (cosine)."""
    warmup: Annotated[float, within("[0, 1)")] = 0.0
    """Share of all steps over which the learning rate rises from 0."""
    weight_decay: Annotated[float, at_least(0)] = 0.0
    """Decoupled weight decay of adam."""
    clip_norm: Annotated[float, at_least(0)] = 0.0
    """Greatest norm of the gradient, which is scaled down to it; 0: any."""
    accumulate: Annotated[int, at_least(1)] = 1
    """Parts in which a step goes through its batch, one after another, to save memory."""
    buckets: Annotated[int, at_least(1)] = 1
    """Batches of clips of like length, by this many lengths, each cut to its longest; 1: all are
    padded to the longest of all, as in the study. Takes model.mask_padding=true."""
    label_smoothing: Annotated[float, within("[0, 1)"), Traced(off_at_0=True)] = 0.0
    """Share of each label that is spread evenly over all classes; 0: none."""
    mixup: Annotated[float, between(0, 100), Traced(off_at_0=True)] = 0.0
    """Mix each clip of a batch with another, features and labels, in shares of Beta(this, this); 0:
    no. Training's loss is then that of mixed labels, its accuracy counts the larger share's."""
    focal_gamma: Annotated[float, between(0, 100), Traced(off_at_0=True)] = 0.0
    """Focal loss: cross-entropy times (1 - probability) to this power; 0: plain cross-entropy."""
    balanced: Annotated[bool, Traced()] = False
    """Draw as many clips as there are for each epoch, but every class equally often, some clips
    twice and some not at all."""
    average_decay: Annotated[float, within("[0, 1)"), Traced(off_at_0=True)] = 0.0
    """Keep a moving average of the parameters, and evaluate and use that; the share kept in each
    step, less in the first ones: at most (1 + n) / (10 + n) in step n. 0: no average."""
    adam_epsilon: Annotated[float, positive()] = 1e-7
    """Added to the root of the second moment (not stated in the study; Keras' default)."""
    best_by: Literal["accuracy", "loss"] = "accuracy"
    """Validation figure that picks the epoch to keep; equal accuracies are parted by the loss."""
    early_stop_epochs: Annotated[int, at_least(0)] = 0
    """Stop after this many epochs without a better validation figure; 0: never, as in the study."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and statistics stay float32."""
    profile: Annotated[int, at_least(0)] = 0
    """Write a profiler trace of this many steps of the first epoch; 0: none."""

    def __post_init__(self) -> None:
        check_bounds(self, "train")
        check(
            self.optimizer == "adam" or not self.weight_decay,
            f"train.weight_decay={self.weight_decay}: takes train.optimizer=adam",
        )
