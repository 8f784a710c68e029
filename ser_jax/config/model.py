"""Settings of the network."""

from dataclasses import dataclass
from typing import Literal

from ser_jax.config.fields import check_min
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
