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
    "cnn", "lstm", "cnn_lstm", "resnet", "resnet1d", "tcn", "blstm", "vit", "cvt", "msdc_lstm",
    "reslstm", "wav2vec2", "svm", "hmm",
]  # fmt: skip
NAMES = get_args(_Name)
"""What `systems.registry` has a system for."""


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    name: Annotated[_Name | str, one_of_or_own(NAMES)] = "cnn_lstm"
    """Network: the study's cnn, lstm, cnn_lstm, or wav2vec2 (with features.kind=wave and
    backbone.path); resnet (residual, with attentive pooling) or resnet1d (the same, convolved along
    time alone); reslstm (two LSTMs, one of them residual, with soft attention); tcn, blstm, vit,
    cvt, msdc_lstm, which the study cites; svm or hmm (see the section classical); or your own, as
    MODULE:CLASS (see docs/networks.md)."""
    kwargs: dict[str, Any] = field(default_factory=dict, hash=False)
    """Arguments of your own network's constructor, besides n_classes."""
    ensemble: Annotated[int, at_least(1)] = 1
    """Number of networks that are trained side by side from different initial values and used as
    one, by their mean probabilities; 1: a single network."""
    mask_padding: bool = False
    """Exclude zero padding from normalisation, pooling and recurrence; false: as in the study."""
    channels: Annotated[
        tuple[int, ...], not_empty("needs at least one block"), entries_at_least(1)
    ] = (64, 64, 128, 128)
    """Channels of each convolution block, or of each stage of resnet, resnet1d, tcn, cvt and
    msdc_lstm."""
    dropout: Annotated[float, within("[0, 1)"), Traced()] = 0.2
    """Dropout rate after each convolution block."""
    hidden: Annotated[int, at_least(1)] = 256
    """Units of the LSTM (blstm: of each direction; reslstm: of the second); width of vit."""
    dense: Annotated[tuple[int, ...], entries_at_least(1)] = (128,)
    """Units of each fully connected layer (the study does not state their number)."""
    activation: Literal["relu", "elu", "tanh", "linear"] = "relu"
    """Activation of the fully connected layers (not stated in the study)."""
    cnn_pool: Literal["flatten", "mean"] = "flatten"
    """How cnn reduces its output to one vector: flatten, or mean over time (not stated in the
    study)."""
    kernel_init: Literal["glorot_uniform", "glorot_normal", "he_uniform", "lecun_normal"] = (
        "glorot_uniform"
    )
    """Initialiser of kernels (not stated in the study; Keras's default); those of reslstm's head
    are always glorot_uniform."""
    recurrent_init: Literal["orthogonal", "glorot_uniform"] = "orthogonal"
    """Initialiser of the LSTM's recurrent kernel (not stated in the study; Keras's default)."""
    forget_bias: float = 1.0
    """Initial bias of the LSTM's forget gate (not stated in the study; Keras's default); 2 is that
    of two biases of 1, as PyTorch's LSTM has."""
    norm_momentum: Annotated[float, within("[0, 1)")] = 0.9
    """Momentum of batch norm's running statistics; Keras's default, 0.99, lags behind in a run of
    320 steps."""
    norm_epsilon: Annotated[float, positive()] = 1e-3
    """Epsilon added to the variance in batch norm (Keras's default)."""
    layers: Annotated[int, at_least(1)] = 4
    """Number of transformer blocks of vit and of each stage of cvt, or of residual blocks of each
    stage of resnet and resnet1d."""
    kernel: Annotated[int, at_least(1)] = 3
    """Kernel width of tcn and resnet1d, in frames."""
    scales: Annotated[
        tuple[int, ...], not_empty("needs at least one length"), entries_at_least(1)
    ] = (16, 32, 64)
    """Segment lengths of msdc_lstm, in frames, with one branch of the network for each."""
    head_width: Annotated[int, at_least(1)] = 32
    """Units of each attention head of vit, cvt and blstm."""
    patch: Annotated[tuple[int, int], entries_at_least(1)] = (16, 16)
    """Size of a patch of vit, in frames and bands."""

    def __post_init__(self) -> None:
        # The parser has a str subclass of its own for these, which other processes cannot unpickle.
        object.__setattr__(self, "name", str(self.name))
        check_bounds(self, "model")
        check(
            not self.kwargs or self.is_own,
            f"model.kwargs={self.kwargs}: requires a network of your own, model.name=MODULE:CLASS; "
            "leave the key out",
        )

        check(
            self.ensemble == 1 or self.name != "wav2vec2",
            f"model.ensemble={self.ensemble}: requires a network trained from scratch, not "
            "model.name=wav2vec2; leave the key out",
        )

    @property
    def is_own(self) -> bool:
        """Whether the network is defined outside the package."""
        return ":" in self.name
