"""Settings of self-supervised pre-training."""

from dataclasses import dataclass, field
from typing import Literal

from ser_jax.config.data import Protocol, choose_protocol
from ser_jax.config.fields import (
    check_finite,
    check_min,
    check_seed,
    default_store_dir,
    expand_paths,
)
from ser_jax.config.parallel import ParallelConfig
from ser_jax.errors import check


@dataclass(frozen=True)
class UnlabelledConfig:
    """Recordings without labels."""

    root: str | None = None
    """Folder of sound files, searched at any depth: wav, flac, ogg, mp3, with ffmpeg others too."""
    rate_hz: int = 16000
    """Sample rate in Hz to which every file is resampled."""
    crop_s: float = 5.0
    """Seconds of the random part of a file that a step sees; shorter files are padded."""
    part: Literal["all", "train"] = "all"
    """All files, or, of files with RAVDESS names, the training clips of a split alone."""
    protocol: Protocol = "study"
    """The split whose training clips are taken."""
    fold: int = 1
    """Its fold, counted from 1."""
    split_seed: int | None = None
    """Seed of the study split; none: the run's seed, as for train."""
    store_dir: str = field(default_factory=default_store_dir)
    """Folder of decoded corpora, as for train; used where part is train."""
    memory_mb: int = 2000
    """Files that take less than this, decoded, are decoded once; more are read as they come."""

    def __post_init__(self) -> None:
        expand_paths(self, "data.", "root", "store_dir")
        object.__setattr__(self, "protocol", choose_protocol(self.protocol, "ravdess"))
        check_min("data", self, 1, "fold", "memory_mb")
        check(
            4000 <= self.rate_hz <= 192000,
            f"data.rate_hz={self.rate_hz}: must lie between 4000 and 192000",
        )
        check(0 < self.crop_s <= 600, f"data.crop_s={self.crop_s}: must lie in (0, 600] seconds")


@dataclass(frozen=True)
class ArchitectureConfig:
    """Sizes of a network that starts from random values; the defaults are base's."""

    layout: Literal["base", "large"] = "base"
    """base: group norm in the first convolution, norms after the blocks; large: layer norms in all
    convolutions and before the blocks."""
    hidden: int = 768
    """Units of the transformer."""
    layers: int = 12
    """Transformer layers."""
    heads: int = 12
    """Attention heads."""
    feed_forward: int = 3072
    """Units inside the feed-forward."""
    channels: int = 512
    """Channels of the seven convolutions."""
    position_kernel: int = 128
    """Frames that the positional convolution sees."""
    position_groups: int = 16
    """Its groups."""
    codes: int = 320
    """Code vectors of each group of the quantiser."""
    code_groups: int = 2
    """Groups of the quantiser."""
    code_dim: int = 256
    """Numbers of the code vectors of all groups together."""
    target_dim: int = 256
    """Numbers in which context and target are compared."""

    def __post_init__(self) -> None:
        names = [name for name in self.__dataclass_fields__ if name != "layout"]
        check_min("architecture", self, 1, *names)
        check(
            self.code_dim % self.code_groups == 0,
            f"architecture.code_dim={self.code_dim}: must be a multiple of "
            f"architecture.code_groups={self.code_groups}",
        )


@dataclass(frozen=True)
class PretrainTrainConfig:
    """The task and its optimisation."""

    epochs: int = 30
    """Passes over the files."""
    batch_size: int = 32
    """Crops per step."""
    learning_rate: float = 5e-4
    """Greatest step size of adam."""
    warmup: float = 0.1
    """Share of all steps over which it rises from 0; then it falls to 0."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    clip_norm: float = 10.0
    """Greatest norm of the gradient; 0: any."""
    mask_prob: float = 0.65
    """Share of frames that masked spans would cover if none overlapped."""
    mask_length: int = 10
    """Frames of a masked span."""
    negatives: int = 100
    """Distractors of each masked frame."""
    similarity_temperature: float = 0.1
    """Similarities are divided by it."""
    diversity_weight: float = 0.1
    """Weight of the diversity loss beside the contrastive one."""
    gumbel_start: float = 2.0
    """Temperature of the quantiser's choice at the first step."""
    gumbel_end: float = 0.5
    """Its least temperature."""
    gumbel_decay: float = 0.999995
    """What it is multiplied with after each step."""
    encoder_gradient: float = 0.1
    """What the gradient of the convolutions is multiplied with."""
    dropout: float = 0.1
    """Every dropout of the network."""
    layer_drop: float = 0.05
    """Probability with which a step skips a layer."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and statistics stay float32."""
    remat: bool = False
    """Compute layers again for the gradient: less memory, more time."""

    def __post_init__(self) -> None:
        check_min("train", self, 1, "epochs", "batch_size", "mask_length", "negatives")
        check_min("train", self, 0, "weight_decay", "clip_norm", "diversity_weight")
        for name in ("learning_rate", "similarity_temperature", "gumbel_start", "gumbel_end"):
            value = getattr(self, name)
            check(value > 0, f"train.{name}={value}: must be positive")
        for name in ("warmup", "dropout", "layer_drop"):
            value = getattr(self, name)
            check(0 <= value < 1, f"train.{name}={value}: must lie in [0, 1)")
        for name in ("mask_prob", "gumbel_decay"):
            value = getattr(self, name)
            check(0 < value <= 1, f"train.{name}={value}: must lie in (0, 1]")
        value = self.encoder_gradient
        check(0 <= value <= 1, f"train.encoder_gradient={value}: must lie in [0, 1]")


@dataclass(frozen=True)
class PretrainConfig:
    """One pre-training."""

    data: UnlabelledConfig = field(default_factory=UnlabelledConfig)
    architecture: ArchitectureConfig = field(default_factory=ArchitectureConfig)
    train: PretrainTrainConfig = field(default_factory=PretrainTrainConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    init: str | None = None
    """Folder or hub id of a checkpoint to go on from, whose sizes hold; none: random values."""
    seed: int = 0
    """Sets the initial values, the crops, the masks and dropout."""
    run_dir: str = "runs/pretrained"
    """Folder of the run; its folder backbone is the result. A run of the same settings found there
    is resumed."""

    def __post_init__(self) -> None:
        expand_paths(self, "", "run_dir")
        check_finite(self)
        check_seed("seed", self.seed)
        check_seed("data.split_seed", self.data.split_seed)
        check(
            self.data.root is not None,
            "data.root: missing; name a folder of recordings",
        )
