"""Sizes and rates of a wav2vec 2.0 network, under the names of Hugging Face's config.json."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ser_jax.config import BackboneConfig
from ser_jax.errors import check

_ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu", "swish")


@dataclass(frozen=True)
class Architecture:
    """A wav2vec 2.0 network (Baevski et al. 2020), of either layout.

    The base layout has `feat_extract_norm='group'` and `do_stable_layer_norm=False`; large-lv60,
    robust and XLS-R have 'layer' and True. transformers' modules accept it in place of their
    `Wav2Vec2Config`, whose names and defaults it shares; unlike that class it is hashable.
    """

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    feat_extract_norm: str = "group"
    feat_extract_activation: str = "gelu"
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_bias: bool = False
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    do_stable_layer_norm: bool = False
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    # From preprocessor_config.json: whether clips are scaled to zero mean and unit variance.
    do_normalize: bool = True
    # Dropout and masking in training; see `config.BackboneConfig`.
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1
    feat_proj_dropout: float = 0.0
    feat_quantizer_dropout: float = 0.0
    layerdrop: float = 0.1
    apply_spec_augment: bool = True
    mask_time_prob: float = 0.05
    mask_time_length: int = 10
    mask_feature_prob: float = 0.0
    mask_feature_length: int = 10
    # Pre-training.
    num_codevectors_per_group: int = 320
    num_codevector_groups: int = 2
    codevector_dim: int = 256
    proj_codevector_dim: int = 256
    contrastive_logits_temperature: float = 0.1
    num_negatives: int = 100
    diversity_loss_weight: float = 0.1

    def __post_init__(self) -> None:
        layers = len(self.conv_dim)
        check(
            layers > 0 and len(self.conv_stride) == len(self.conv_kernel) == layers,
            f"conv_dim={list(self.conv_dim)}: conv_stride and conv_kernel need as many entries",
        )
        check(
            self.hidden_size % self.num_attention_heads == 0,
            f"hidden_size={self.hidden_size}: must be a multiple of num_attention_heads="
            f"{self.num_attention_heads}",
        )
        check(
            self.hidden_size % self.num_conv_pos_embedding_groups == 0,
            f"hidden_size={self.hidden_size}: must be a multiple of num_conv_pos_embedding_groups="
            f"{self.num_conv_pos_embedding_groups}",
        )
        check(
            self.feat_extract_norm in ("group", "layer"),
            f"feat_extract_norm={self.feat_extract_norm}: must be group or layer",
        )
        for name in ("hidden_act", "feat_extract_activation"):
            value = getattr(self, name)
            check(
                value in _ACTIVATIONS,
                f"{name}={value}: must be one of {', '.join(_ACTIVATIONS)}",
            )

    @property
    def num_feat_extract_layers(self) -> int:
        """Number of convolutions."""
        return len(self.conv_dim)

    @property
    def head_width(self) -> int:
        """Number of features of an attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def stride(self) -> int:
        """Samples from one frame to the next: 320 in all published checkpoints, 20 ms at 16 kHz."""
        return math.prod(self.conv_stride)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees, hence the shortest possible input: 400 by default."""
        n = 1
        for kernel, stride in zip(self.conv_kernel[::-1], self.conv_stride[::-1], strict=True):
            n = (n - 1) * stride + kernel
        return n

    def count_frames(self, n_samples: Any) -> Any:
        """Frames in `n_samples`, an integer or any library's array; 0 or less if too short."""
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            n_samples = (n_samples - kernel) // stride + 1
        return n_samples

    def to_dict(self) -> dict[str, Any]:
        """The contents of config.json."""
        tree = {key: list(value) if isinstance(value, tuple) else value
                for key, value in dataclasses.asdict(self).items()}  # fmt: skip
        tree["num_feat_extract_layers"] = self.num_feat_extract_layers
        return {"model_type": "wav2vec2"} | tree


def read_architecture(tree: Mapping[str, Any], where: str) -> Architecture:
    """The network that a config.json describes.

    Args:
      tree: contents of the file.
      where: its path, for error messages.

    Raises:
      UserError: the network is not wav2vec 2.0 or has an adapter, or a value has the wrong type or
        contradicts another.
    """
    kind = tree.get("model_type")
    check(
        kind == "wav2vec2",
        f"{where}: model_type={kind}: not a wav2vec 2.0 network; give one with model_type wav2vec2",
    )
    for key in ("add_adapter", "adapter_attn_dim"):
        check(not tree.get(key), f"{where}: {key}={tree.get(key)}: adapters are not supported")
    values = {}
    for field in dataclasses.fields(Architecture):
        if field.name in tree:
            values[field.name] = _read_value(tree[field.name], field.default, field.name, where)
    try:
        return Architecture(**values)
    except ValueError as error:
        raise type(error)(f"{where}: {error}") from error


def _read_value(value: Any, like: Any, name: str, where: str) -> Any:
    if isinstance(like, tuple):
        good = isinstance(value, list) and all(type(one) is int for one in value)
        value = tuple(value) if good else value
    elif isinstance(like, float):
        good = type(value) in (int, float)
    else:
        good = type(value) is type(like)
    check(good, f"{where}: {name}={value}: must be like {like}")
    return value


class BackboneSpec(NamedTuple):
    """The pre-trained network below a classification head.

    Attributes:
      architecture: its sizes, dropout rates and masking rates.
      settings: which parts are trained, and how the network is computed.
      entry: the input from which a program starts; see `wav2vec2.classifier`.
    """

    architecture: Architecture
    settings: BackboneConfig
    entry: str = "wave"
