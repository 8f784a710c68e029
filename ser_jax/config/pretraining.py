"""Settings of self-supervised pre-training."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ser_jax.config.data import Protocol, choose_protocol
from ser_jax.config.fields import (
    SEED,
    at_least,
    between,
    check_bounds,
    check_finite,
    positive,
    within,
)
from ser_jax.config.parallel import ParallelConfig
from ser_jax.config.paths import default_store_dir, expand_paths
from ser_jax.errors import check


@dataclass(frozen=True)
class UnlabelledConfig:
    """Recordings without labels."""

    root: str | None = None
    """Folder of sound files, searched at any depth: wav, flac, ogg, mp3, with ffmpeg others too."""
    rate_hz: Annotated[int, between(4000, 192000)] = 16000
    """Sample rate in Hz to which every file is resampled."""
    crop_s: Annotated[float, within("(0, 600]", " seconds")] = 5.0
    """Seconds of the random part of a file that a step sees; shorter files are padded."""
    part: Literal["all", "train"] = "all"
    """All files, or, of files with RAVDESS names, the training clips of a split alone."""
    protocol: Protocol = "study"
    """The split whose training clips are taken."""
    fold: Annotated[int, at_least(1)] = 1
    """Its fold, counted from 1."""
    split_seed: Annotated[int | None, SEED] = None
    """Seed of the study split; none: the run's seed, as for train."""
    store_dir: str = field(default_factory=default_store_dir)
    """Folder of decoded corpora, as for train; used where part is train."""
    memory_mb: Annotated[int, at_least(1)] = 2000
    """Files that take less than this, decoded, are decoded once; more are read as they come."""

    def __post_init__(self) -> None:
        expand_paths(self, "data.", "root", "store_dir")
        object.__setattr__(self, "protocol", choose_protocol(self.protocol, "ravdess"))
        check_bounds(self, "data")


@dataclass(frozen=True)
class ArchitectureConfig:
    """Sizes of a network that starts from random values; the defaults are base's."""

    layout: Literal["base", "large"] = "base"
    """base: group norm in the first convolution, norms after the blocks; large: layer norms in all
    convolutions and before the blocks."""
    hidden: Annotated[int, at_least(1)] = 768
    """Units of the transformer."""
    layers: Annotated[int, at_least(1)] = 12
    """Transformer layers."""
    heads: Annotated[int, at_least(1)] = 12
    """Attention heads."""
    feed_forward: Annotated[int, at_least(1)] = 3072
    """Units inside the feed-forward."""
    channels: Annotated[int, at_least(1)] = 512
    """Channels of the seven convolutions."""
    position_kernel: Annotated[int, at_least(1)] = 128
    """Frames that the positional convolution sees."""
    position_groups: Annotated[int, at_least(1)] = 16
    """Its groups."""
    codes: Annotated[int, at_least(1)] = 320
    """Code vectors of each group of the quantiser."""
    code_groups: Annotated[int, at_least(1)] = 2
    """Groups of the quantiser."""
    code_dim: Annotated[int, at_least(1)] = 256
    """Numbers of the code vectors of all groups together."""
    target_dim: Annotated[int, at_least(1)] = 256
    """Numbers in which context and target are compared."""

    def __post_init__(self) -> None:
        check_bounds(self, "architecture")
        check(
            self.code_dim % self.code_groups == 0,
            f"architecture.code_dim={self.code_dim}: must be a multiple of "
            f"architecture.code_groups={self.code_groups}",
        )


@dataclass(frozen=True)
class PretrainTrainConfig:
    """The task and its optimisation."""

    epochs: Annotated[int, at_least(1)] = 30
    """Passes over the files."""
    batch_size: Annotated[int, at_least(1)] = 32
    """Crops per step."""
    learning_rate: Annotated[float, positive()] = 5e-4
    """Greatest step size of adam."""
    warmup: Annotated[float, within("[0, 1)")] = 0.1
    """Share of all steps over which it rises from 0; then it falls to 0."""
    weight_decay: Annotated[float, at_least(0)] = 0.01
    """Decoupled weight decay."""
    clip_norm: Annotated[float, at_least(0)] = 10.0
    """Greatest norm of the gradient; 0: any."""
    mask_prob: Annotated[float, within("(0, 1]")] = 0.65
    """Share of frames that masked spans would cover if none overlapped."""
    mask_length: Annotated[int, at_least(1)] = 10
    """Frames of a masked span."""
    negatives: Annotated[int, at_least(1)] = 100
    """Distractors of each masked frame."""
    similarity_temperature: Annotated[float, positive()] = 0.1
    """Similarities are divided by it."""
    diversity_weight: Annotated[float, at_least(0)] = 0.1
    """Weight of the diversity loss beside the contrastive one."""
    gumbel_start: Annotated[float, positive()] = 2.0
    """Temperature of the quantiser's choice at the first step."""
    gumbel_end: Annotated[float, positive()] = 0.5
    """Its least temperature."""
    gumbel_decay: Annotated[float, within("(0, 1]")] = 0.999995
    """What it is multiplied with after each step."""
    encoder_gradient: Annotated[float, within("[0, 1]")] = 0.1
    """What the gradient of the convolutions is multiplied with."""
    dropout: Annotated[float, within("[0, 1)")] = 0.1
    """Every dropout of the network."""
    layer_drop: Annotated[float, within("[0, 1)")] = 0.05
    """Probability with which a step skips a layer."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and statistics stay float32."""
    remat: bool = False
    """Compute layers again for the gradient: less memory, more time."""

    def __post_init__(self) -> None:
        check_bounds(self, "train")


@dataclass(frozen=True)
class PretrainConfig:
    """One pre-training."""

    data: UnlabelledConfig = field(default_factory=UnlabelledConfig)
    architecture: ArchitectureConfig = field(default_factory=ArchitectureConfig)
    train: PretrainTrainConfig = field(default_factory=PretrainTrainConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    init: str | None = None
    """Folder or hub id of a checkpoint to go on from, whose sizes hold; none: random values."""
    seed: Annotated[int, SEED] = 0
    """Sets the initial values, the crops, the masks and dropout."""
    run_dir: str = "runs/pretrained"
    """Folder of the run; its folder backbone is the result. A run of the same settings found there
    is resumed."""

    def __post_init__(self) -> None:
        expand_paths(self, "", "run_dir")
        check_finite(self)
        check_bounds(self)
        check(
            self.data.root is not None,
            "data.root: missing; name a folder of recordings",
        )
