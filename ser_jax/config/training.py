"""Settings of training."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ser_jax.config.fields import at_least, between, check_bounds, positive, within
from ser_jax.config.traced import Traced
from ser_jax.errors import check

_FREEZE = "; to train nothing of the backbone, set backbone.freeze=all"


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation, and which epoch is kept."""

    epochs: Annotated[int, at_least(1)] = 10
    """Number of passes over the training clips."""
    batch_size: Annotated[int, at_least(1)] = 32
    """Number of clips per step (not stated in the study)."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimiser: adam, or sgd without momentum."""
    learning_rate: Annotated[float, positive(), Traced()] = 1e-3
    """Learning rate."""
    backbone_learning_rate: Annotated[float | None, positive(_FREEZE)] = None
    """Learning rate of a pre-trained network below its head; null: learning_rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after the warm-up: constant (as in the study), or decaying to 0 linearly
    (linear) or along half a cosine (cosine)."""
    warmup: Annotated[float, within("[0, 1)")] = 0.0
    """Fraction of all steps over which the learning rate rises linearly from 0."""
    weight_decay: Annotated[float, at_least(0)] = 0.0
    """Decoupled weight decay, for adam."""
    clip_norm: Annotated[float, at_least(0)] = 0.0
    """Global norm to which a larger gradient is clipped; 0 disables clipping."""
    accumulate: Annotated[int, at_least(1)] = 1
    """Number of micro-batches into which a batch is split to save memory, with accumulated
    gradients."""
    buckets: Annotated[int, at_least(1)] = 1
    """Number of buckets of clips of similar length, each padded to its longest clip only; 1: all
    are padded to the longest clip, as in the study. More require model.mask_padding=true."""
    label_smoothing: Annotated[float, within("[0, 1)"), Traced(off_at_0=True)] = 0.0
    """Fraction of each label that is spread evenly over all classes; 0 disables it."""
    mixup: Annotated[float, between(0, 100), Traced(off_at_0=True)] = 0.0
    """Mix the features and labels of each clip with another's, with weights from Beta(this, this);
    0 disables it. Training loss is then that of mixed labels; accuracy counts the larger
    weight's."""
    focal_gamma: Annotated[float, between(0, 100), Traced(off_at_0=True)] = 0.0
    """Focal loss, cross-entropy times (1 - probability) ** this; 0: plain cross-entropy."""
    balanced: Annotated[bool, Traced()] = False
    """Draw every class equally often in each epoch, which keeps its length, so that some clips are
    repeated and some left out."""
    average_decay: Annotated[float, within("[0, 1)"), Traced(off_at_0=True)] = 0.0
    """Decay per step of an exponential moving average of the parameters, which is evaluated and
    kept in their place; at most (1 + n) / (10 + n) in step n. 0 disables it."""
    adam_epsilon: Annotated[float, positive()] = 1e-7
    """Epsilon of adam (not stated in the study; Keras's default)."""
    best_by: Literal["accuracy", "loss", "last"] = "accuracy"
    """Validation metric that selects the epoch to keep; with accuracy the loss breaks ties. last:
    keep the last epoch, whatever its metrics."""
    early_stop_epochs: Annotated[int, at_least(0)] = 0
    """Stop after this many epochs without improvement of that metric; 0: never, as in the study."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and statistics stay in float32."""
    profile: Annotated[int, at_least(0)] = 0
    """Write a profiler trace of this many steps of the first epoch; 0 disables it."""

    def __post_init__(self) -> None:
        check_bounds(self, "train")
        check(
            self.optimizer == "adam" or not self.weight_decay,
            f"train.weight_decay={self.weight_decay}: requires train.optimizer=adam",
        )
        check(
            self.best_by != "last" or not self.early_stop_epochs,
            f"train.early_stop_epochs={self.early_stop_epochs}: requires train.best_by=accuracy or "
            "loss, since the last epoch is always the best by train.best_by=last",
        )
