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
    """Unlabelled recordings."""

    root: str | None = None
    """Folder of audio files, searched recursively: wav, flac, ogg, mp3, and more with ffmpeg; it is
    required."""
    rate_hz: Annotated[int, between(4000, 192000)] = 16000
    """Sample rate to which every file is resampled, in Hz."""
    crop_s: Annotated[float, within("(0, 600]", " seconds")] = 5.0
    """Length of the random crop of a file that a step sees, in seconds; shorter files are
    padded."""
    part: Literal["all", "train"] = "all"
    """Files to use: all, or train (only the training clips of a split, for files with RAVDESS
    names)."""
    protocol: Protocol = "study"
    """Split whose training clips data.part=train uses."""
    fold: Annotated[int, at_least(1)] = 1
    """Fold of that split, counted from 1."""
    split_seed: Annotated[int | None, SEED] = None
    """Seed of a random split; null: the run's seed, as for train."""
    store_dir: str = field(default_factory=default_store_dir)
    """Folder of decoded corpora, as for train; used with data.part=train."""
    memory_mb: Annotated[int, at_least(1)] = 2000
    """Memory for decoded files, in MB: if all fit they are decoded once, otherwise as needed."""

    def __post_init__(self) -> None:
        expand_paths(self, "data.", "root", "store_dir")
        object.__setattr__(self, "protocol", choose_protocol(self.protocol, "ravdess"))
        check_bounds(self, "data")


@dataclass(frozen=True)
class ArchitectureConfig:
    """Sizes of a network that starts from random weights, by default those of wav2vec 2.0 base."""

    layout: Literal["base", "large"] = "base"
    """Placement of norms: base (group norm in the first convolution, layer norms after the blocks)
    or large (layer norms in all convolutions and before the blocks)."""
    hidden: Annotated[int, at_least(1)] = 768
    """Width of the transformer."""
    layers: Annotated[int, at_least(1)] = 12
    """Number of transformer layers."""
    heads: Annotated[int, at_least(1)] = 12
    """Number of attention heads."""
    feed_forward: Annotated[int, at_least(1)] = 3072
    """Units inside feed-forward layers."""
    channels: Annotated[int, at_least(1)] = 512
    """Channels of each of the seven convolutions."""
    position_kernel: Annotated[int, at_least(1)] = 128
    """Kernel width of the positional convolution, in frames."""
    position_groups: Annotated[int, at_least(1)] = 16
    """Number of groups of the positional convolution."""
    codes: Annotated[int, at_least(1)] = 320
    """Number of code vectors in each group of the quantiser."""
    code_groups: Annotated[int, at_least(1)] = 2
    """Number of groups (codebooks) of the quantiser."""
    code_dim: Annotated[int, at_least(1)] = 256
    """Dimension of a quantised vector, all groups together."""
    target_dim: Annotated[int, at_least(1)] = 256
    """Dimension in which context and target are compared."""

    def __post_init__(self) -> None:
        check_bounds(self, "architecture")
        check(
            self.code_dim % self.code_groups == 0,
            f"architecture.code_dim={self.code_dim}: must be a multiple of "
            f"architecture.code_groups={self.code_groups}",
        )


@dataclass(frozen=True)
class PretrainTrainConfig:
    """Contrastive task and optimisation."""

    epochs: Annotated[int, at_least(1)] = 30
    """Number of passes over the files."""
    batch_size: Annotated[int, at_least(1)] = 32
    """Number of crops per step."""
    learning_rate: Annotated[float, positive()] = 5e-4
    """Peak learning rate of adam."""
    warmup: Annotated[float, within("[0, 1)")] = 0.1
    """Fraction of all steps over which the learning rate rises from 0, before it decays to 0."""
    weight_decay: Annotated[float, at_least(0)] = 0.01
    """Decoupled weight decay."""
    clip_norm: Annotated[float, at_least(0)] = 10.0
    """Global norm to which a larger gradient is clipped; 0 disables clipping."""
    mask_prob: Annotated[float, within("(0, 1]")] = 0.65
    """Fraction of frames to mask, not counting overlaps."""
    mask_length: Annotated[int, at_least(1)] = 10
    """Width of a masked span, in frames."""
    negatives: Annotated[int, at_least(1)] = 100
    """Number of distractors per masked frame."""
    similarity_temperature: Annotated[float, positive()] = 0.1
    """Temperature by which similarities are divided."""
    diversity_weight: Annotated[float, at_least(0)] = 0.1
    """Weight of the diversity loss relative to the contrastive loss."""
    gumbel_start: Annotated[float, positive()] = 2.0
    """Gumbel-softmax temperature of the quantiser at the first step."""
    gumbel_end: Annotated[float, positive()] = 0.5
    """Minimum of that temperature."""
    gumbel_decay: Annotated[float, within("(0, 1]")] = 0.999995
    """Factor by which that temperature is multiplied after each step."""
    encoder_gradient: Annotated[float, within("[0, 1]")] = 0.1
    """Factor by which the gradient of the convolutions is multiplied."""
    dropout: Annotated[float, within("[0, 1)")] = 0.1
    """Rate of every dropout of the network."""
    layer_drop: Annotated[float, within("[0, 1)")] = 0.05
    """Probability that a step skips a transformer layer."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters and statistics stay in float32."""
    remat: bool = False
    """Recompute layers in the backward pass, which saves memory and costs time."""

    def __post_init__(self) -> None:
        check_bounds(self, "train")


@dataclass(frozen=True)
class PretrainConfig:
    """One pre-training run."""

    data: UnlabelledConfig = field(default_factory=UnlabelledConfig)
    architecture: ArchitectureConfig = field(default_factory=ArchitectureConfig)
    train: PretrainTrainConfig = field(default_factory=PretrainTrainConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    init: str | None = None
    """Folder or Hugging Face Hub id of a checkpoint to continue from, which sets the sizes; null:
    start from random weights."""
    seed: Annotated[int, SEED] = 0
    """Seed of the initial values, the crops, the masks and dropout."""
    run_dir: str = "runs/pretrained"
    """Folder of the run, whose folder backbone holds the result; a run with the same settings found
    there is resumed."""

    def __post_init__(self) -> None:
        expand_paths(self, "", "run_dir")
        check_finite(self)
        check_bounds(self)
        check(
            self.data.root is not None,
            "data.root: missing; name a folder of recordings",
        )
