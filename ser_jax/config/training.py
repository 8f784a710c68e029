"""Settings of the network, its training and the devices."""

from dataclasses import dataclass, field
from typing import Literal

from ser_jax.config.checks import check_min, default_compile_cache, expand_paths
from ser_jax.errors import check


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    name: Literal[
        "cnn", "lstm", "cnn_lstm", "resnet", "tcn", "blstm", "vit", "cvt", "msdc_lstm",
        "wav2vec2", "svm", "hmm",
    ] = "cnn_lstm"  # fmt: skip
    """Network: the study's cnn, lstm, cnn_lstm, or wav2vec2 (with features.kind=wave and
    backbone.path); resnet (residual, with attentive pooling); of those that the study cites tcn,
    blstm, vit, cvt, msdc_lstm; or, by the section classical, svm or hmm."""
    mask_padding: bool = False
    """Keep zero padding out of normalisation, pooling and recurrence (false: the study's way)."""
    channels: tuple[int, ...] = (64, 64, 128, 128)
    """Channels of the convolution blocks; of the stages of resnet, tcn, cvt and msdc_lstm."""
    dropout: float = 0.2
    """Dropout rate after each convolution block."""
    hidden: int = 256
    """Units of the LSTM (blstm: each way); width of vit."""
    dense: tuple[int, ...] = (128,)
    """Units of the fully connected layers (their number is not stated in the study)."""
    activation: Literal["relu", "elu", "tanh", "linear"] = "relu"
    """Activation of the fully connected layers (not stated in the study)."""
    cnn_pool: Literal["flatten", "mean"] = "flatten"
    """How the CNN alone makes one vector: flatten, or mean over time (not stated in the study)."""
    kernel_init: Literal["glorot_uniform", "he_uniform", "lecun_normal"] = "glorot_uniform"
    """Initial kernels (not stated in the study; Keras' default)."""
    recurrent_init: Literal["orthogonal", "glorot_uniform"] = "orthogonal"
    """Initial recurrent kernel of the LSTM (not stated in the study; Keras' default)."""
    forget_bias: float = 1.0
    """Initial bias of the LSTM's forget gate (not stated in the study; Keras' default)."""
    norm_momentum: float = 0.99
    """Share of the old running statistics kept by batch norm (Keras' default)."""
    norm_epsilon: float = 1e-3
    """Added to the variance in batch norm (Keras' default)."""
    layers: int = 4
    """Blocks: Transformer ones of vit and of each stage of cvt, residual ones of each stage of
    resnet."""
    kernel: int = 3
    """Width in frames of the convolutions of tcn."""
    scales: tuple[int, ...] = (16, 32, 64)
    """Lengths in frames of the segments that msdc_lstm reads, one part of the network for each."""
    head_width: int = 32
    """Width of each attention head of vit, cvt and blstm."""
    patch: tuple[int, int] = (16, 16)
    """Frames and bands of a patch of vit."""

    def __post_init__(self) -> None:
        check(0 <= self.dropout < 1, f"model.dropout={self.dropout}: must lie in [0, 1)")
        check_min("model", self, 1, "hidden", "layers", "kernel", "head_width")
        check(len(self.scales) >= 1, "model.scales=[]: needs at least one length")
        for name in ("channels", "dense", "scales", "patch"):
            value = getattr(self, name)
            check(
                all(units >= 1 for units in value),
                f"model.{name}={list(value)}: every entry must be at least 1",
            )
        check(len(self.channels) >= 1, "model.channels=[]: needs at least one block")
        check(
            0 <= self.norm_momentum < 1,
            f"model.norm_momentum={self.norm_momentum}: must lie in [0, 1)",
        )
        check(self.norm_epsilon > 0, f"model.norm_epsilon={self.norm_epsilon}: must be positive")


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


@dataclass(frozen=True)
class ParallelConfig:
    """How the work is laid on devices and processes; decides the speed of a run, not its result."""

    mode: Literal["auto", "jit", "mesh", "pmap"] = "auto"
    """jit (one device), mesh (the batch shared out to all devices), pmap (the same by jax.pmap), or
    auto: jit on one device, mesh on several."""
    scan: Literal["auto", "on", "off"] = "auto"
    """An epoch as one program (on) or step by step (off); auto: on, except on CPU for networks that
    convolve, since XLA runs a convolution inside a loop slowly there."""
    placement: Literal["auto", "device", "stream"] = "auto"
    """Where the corpus lives: on the device, or on the host with batches streamed from there; auto:
    on the device if it fits."""
    cache_dir: str | None = field(default_factory=default_compile_cache)
    """Folder that keeps compiled programs between processes; none: nothing is kept."""
    coordinator: str | None = None
    """HOST:PORT of process 0 when several processes train together; none: found by itself on SLURM
    and TPU pods (with num_processes above 1), otherwise one process."""
    num_processes: int | None = None
    """Number of processes that train together; none: one, or what SLURM or the TPU pod says."""
    process_id: int | None = None
    """Number of this process, from 0."""
    heartbeat_s: int = 12
    """Seconds of silence after which a process counts as dead, 5 to 14; one whose connection
    closes does at once."""

    def __post_init__(self) -> None:
        expand_paths(self, "parallel.", "cache_dir")
        check(
            5 <= self.heartbeat_s <= 14,  # JAX' own watch aborts after 15, in a page of C++
            f"parallel.heartbeat_s={self.heartbeat_s}: must lie between 5 and 14 seconds",
        )
        if self.num_processes is not None:
            check_min("parallel", self, 1, "num_processes")
        if self.process_id is not None:
            check(
                0 <= self.process_id < (self.num_processes or 2**31),
                f"parallel.process_id={self.process_id}: must lie between 0 and "
                "parallel.num_processes - 1",
            )
        if self.coordinator is not None:
            host, _, port = self.coordinator.rpartition(":")
            check(
                bool(host) and port.isdecimal(),
                f"parallel.coordinator={self.coordinator}: must be HOST:PORT",
            )
