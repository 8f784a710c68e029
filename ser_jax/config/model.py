"""Settings of the network."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from ser_jax.config.fields import (
    at_least,
    check_bounds,
    entries_at_least,
    not_empty,
    one_of_or_own,
    positive,
    within,
)
from ser_jax.config.traced import Traced
from ser_jax.errors import check

_Name = Literal[
    "cnn", "lstm", "cnn_lstm", "resnet", "tcn", "blstm", "vit", "cvt", "msdc_lstm", "wav2vec2",
    "svm", "hmm",
]  # fmt: skip
NAMES = get_args(_Name)
"""What `systems.registry` has a system for."""


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    name: Annotated[_Name | str, one_of_or_own(NAMES)] = "cnn_lstm"
    """Network: the study's cnn, lstm, cnn_lstm, or wav2vec2 (with features.kind=wave and
    backbone.path); resnet (residual, with attentive pooling); of those that the study cites tcn,
    blstm, vit, cvt, msdc_lstm; or, by the section classical, svm or hmm; or one of your own, as
    MODULE:CLASS (see docs/networks.md)."""
    kwargs: dict[str, Any] = field(default_factory=dict, hash=False)
    """What a network of your own is made with, beside n_classes."""
    mask_padding: bool = False
    """Keep zero padding out of normalisation, pooling and recurrence (false: the study's way)."""
    channels: Annotated[
        tuple[int, ...], not_empty("needs at least one block"), entries_at_least(1)
    ] = (64, 64, 128, 128)
    """Channels of the convolution blocks; of the stages of resnet, tcn, cvt and msdc_lstm."""
    dropout: Annotated[float, within("[0, 1)"), Traced()] = 0.2
    """Dropout rate after each convolution block."""
    hidden: Annotated[int, at_least(1)] = 256
    """Units of the LSTM (blstm: each way); width of vit."""
    dense: Annotated[tuple[int, ...], entries_at_least(1)] = (128,)
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
    norm_momentum: Annotated[float, within("[0, 1)")] = 0.9
    """Share of the old running statistics kept by batch norm; Keras' default, 0.99, lags behind in
    a run of 320 steps."""
    norm_epsilon: Annotated[float, positive()] = 1e-3
    """Added to the variance in batch norm (Keras' default)."""
    layers: Annotated[int, at_least(1)] = 4
    """Blocks: Transformer ones of vit and of each stage of cvt, residual ones of each stage of
    resnet."""
    kernel: Annotated[int, at_least(1)] = 3
    """Width in frames of the convolutions of tcn."""
    scales: Annotated[
        tuple[int, ...], not_empty("needs at least one length"), entries_at_least(1)
    ] = (16, 32, 64)
    """Lengths in frames of the segments that msdc_lstm reads, one part of the network for each."""
    head_width: Annotated[int, at_least(1)] = 32
    """Width of each attention head of vit, cvt and blstm."""
    patch: Annotated[tuple[int, int], entries_at_least(1)] = (16, 16)
    """Frames and bands of a patch of vit."""

    def __post_init__(self) -> None:
        # The parser has a str subclass of its own for these, which other processes cannot unpickle.
        object.__setattr__(self, "name", str(self.name))
        check_bounds(self, "model")
        check(
            not self.kwargs or self.is_own,
            f"model.kwargs={self.kwargs}: takes a network of your own, model.name=MODULE:CLASS; "
            "leave the key out",
        )

    @property
    def is_own(self) -> bool:
        """Whether the network comes from outside the package."""
        return ":" in self.name
