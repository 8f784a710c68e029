"""Settings of the training of a network."""

from dataclasses import dataclass
from typing import Literal

from ser_jax.config.fields import check_min
from ser_jax.errors import check


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation, and what is kept of it."""

    epochs: int = 10
    """Passes over the training clips."""
    batch_size: int = 32
    """Clips per step (not stated in the study)."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimiser: adam, or plain sgd."""
    learning_rate: float = 1e-3
    """Step size of the optimiser."""
    backbone_learning_rate: float | None = None
    """Step size below the head of a pre-trained network; none: the same."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After the warm-up the learning rate stays (constant, the study's), or falls to 0 in a
    straight line (linear) or half a wave (cosine)."""
    warmup: float = 0.0
    """Share of all steps over which the learning rate rises from 0."""
    weight_decay: float = 0.0
    """Decoupled weight decay of adam."""
    clip_norm: float = 0.0
    """Greatest norm of the gradient, which is scaled down to it; 0: any."""
    accumulate: int = 1
    """Parts in which a step goes through its batch, one after another, to save memory."""
    buckets: int = 1
    """Batches of clips of like length, by this many lengths, each cut to its longest; 1: all are
    padded to the longest of all, as in the study. Takes model.mask_padding=true."""
    label_smoothing: float = 0.0
    """Share of each label that is spread evenly over all classes; 0: none."""
    mixup: float = 0.0
    """Mix each clip of a batch with another, features and labels, in shares of Beta(this, this); 0:
    no. Training's loss is then that of mixed labels, its accuracy counts the larger share's."""
    focal_gamma: float = 0.0
    """Focal loss: cross-entropy times (1 - probability) to this power; 0: plain cross-entropy."""
    balanced: bool = False
    """Draw as many clips as there are for each epoch, but every class equally often, some clips
    twice and some not at all."""
    average_decay: float = 0.0
    """Keep a moving average of the parameters, and evaluate and use that; the share kept in each
    step, less in the first ones: at most (1 + n) / (10 + n) in step n. 0: no average."""
    adam_epsilon: float = 1e-7
    """Added to the root of the second moment (not stated in the study; Keras' default)."""
    best_by: Literal["accuracy", "loss"] = "accuracy"
    """Validation figure that picks the epoch to keep; equal accuracies are parted by the loss."""
    early_stop_epochs: int = 0
    """Stop after this many epochs without a better validation figure; 0: never, as in the study."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and statistics stay float32."""
    profile: int = 0
    """Write a profiler trace of this many steps of the first epoch; 0: none."""

    def __post_init__(self) -> None:
        check_min("train", self, 1, "epochs", "batch_size", "accumulate", "buckets")
        check_min("train", self, 0, "early_stop_epochs", "profile", "weight_decay", "clip_norm")
        for name in ("warmup", "label_smoothing", "average_decay"):
            value = getattr(self, name)
            check(0 <= value < 1, f"train.{name}={value}: must lie in [0, 1)")
        for name in ("mixup", "focal_gamma"):
            value = getattr(self, name)
            check(0 <= value <= 100, f"train.{name}={value}: must lie between 0 and 100")
        check(
            self.backbone_learning_rate is None or self.backbone_learning_rate > 0,
            f"train.backbone_learning_rate={self.backbone_learning_rate}: must be positive; to "
            "train nothing of the backbone, set backbone.freeze=all",
        )
        check(
            self.optimizer == "adam" or not self.weight_decay,
            f"train.weight_decay={self.weight_decay}: takes train.optimizer=adam",
        )
        for name in ("learning_rate", "adam_epsilon"):
            value = getattr(self, name)
            check(value > 0, f"train.{name}={value}: must be positive")
