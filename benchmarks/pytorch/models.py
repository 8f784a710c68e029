"""Eager PyTorch twins of CNN, LSTM and CNN-LSTM, with Keras's defaults where the study uses them.

Modules carry the names of their Flax counterparts, so weights are copied by path. The twins read
padding as data (`mask_padding: false`), and have one bias per gate, as Keras and Flax do.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ser_jax.config import ModelConfig

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "linear": nn.Identity,
}


class ConvBlock(nn.Module):
    """Convolution 3 x 3, batch norm, ELU, max-pool 2 x 2, dropout, in the study's order."""

    def __init__(self, n_in: int, n_out: int, config: ModelConfig):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, padding="same", bias=False)
        # Keras's momentum is the share kept, PyTorch's the share taken.
        momentum = 1 - config.norm_momentum
        self.norm = nn.BatchNorm2d(n_out, eps=config.norm_epsilon, momentum=momentum)
        self.elu = nn.ELU()
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(config.dropout)
        # ELU rises everywhere: pooling first gives the same numbers, as ser_jax does it.
        self.pool_first = False

    def forward(self, x_BCTF: torch.Tensor) -> torch.Tensor:
        """[B, C, T, F] to [B, channels, T/2, F/2]."""
        if self.pool_first:
            return self.dropout(self.elu(self.pool(self.norm(self.conv(x_BCTF)))))
        return self.dropout(self.pool(self.elu(self.norm(self.conv(x_BCTF)))))


class ConvStack(nn.Module):
    """Convolution blocks, one after another."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        n_in = (1, *config.channels[:-1])
        for index, (i, o) in enumerate(zip(n_in, config.channels, strict=True)):
            self.add_module(f"block_{index}", ConvBlock(i, o, config))

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        """[B, T, F] to [B, T', F' * C], one vector per remaining time step."""
        h_BCTF = x_BTF[:, None]
        for block in self.children():
            h_BCTF = block(h_BCTF)
        return h_BCTF.permute(0, 2, 3, 1).flatten(2)


class Head(nn.Module):
    """Fully connected layers, then one logit per class."""

    def __init__(self, n_in: int, n_classes: int, config: ModelConfig):
        super().__init__()
        for index, units in enumerate(config.dense):
            self.add_module(f"dense_{index}", nn.Linear(n_in, units))
            self.add_module(f"activation_{index}", ACTIVATIONS[config.activation]())
            n_in = units
        self.logits = nn.Linear(n_in, n_classes)

    def forward(self, h_BH: torch.Tensor) -> torch.Tensor:
        """[B, H] to logits [B, C]."""
        for layer in self.children():
            h_BH = layer(h_BH)
        return h_BH


def make_lstm(n_in: int, hidden: int) -> nn.LSTM:
    """An LSTM with one bias, as Keras and Flax have it: PyTorch's second is zero and frozen."""
    lstm = nn.LSTM(n_in, hidden, batch_first=True)
    nn.init.zeros_(lstm.get_parameter("bias_hh_l0")).requires_grad_(False)
    return lstm


class CNN(nn.Module):
    """Convolution blocks, flattened (or averaged over time), then the head."""

    def __init__(self, config: ModelConfig, n_classes: int, n_frames: int, n_features: int):
        super().__init__()
        self.stack = ConvStack(config)
        self.pool = config.cnn_pool
        n_frames, width = _compute_shape(config, n_frames, n_features)
        n_in = width * n_frames if self.pool == "flatten" else width
        self.head = Head(n_in, n_classes, config)

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        """Features [B, T, F] to logits [B, C]."""
        h_BTH = self.stack(x_BTF)
        return self.head(h_BTH.flatten(1) if self.pool == "flatten" else h_BTH.mean(dim=1))


class LSTMNetwork(nn.Module):
    """LSTM over the frames, its last state into the head."""

    def __init__(self, config: ModelConfig, n_classes: int, n_frames: int, n_features: int):
        super().__init__()
        del n_frames
        self.lstm = make_lstm(n_features, config.hidden)
        self.head = Head(config.hidden, n_classes, config)

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        """Features [B, T, F] to logits [B, C]."""
        return self.head(self.lstm(x_BTF)[0][:, -1])


class CNNLSTM(nn.Module):
    """The convolution blocks, then an LSTM over what is left of time, then the head."""

    def __init__(self, config: ModelConfig, n_classes: int, n_frames: int, n_features: int):
        super().__init__()
        self.stack = ConvStack(config)
        _, width = _compute_shape(config, n_frames, n_features)
        self.lstm = make_lstm(width, config.hidden)
        self.head = Head(config.hidden, n_classes, config)

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        """Features [B, T, F] to logits [B, C]."""
        return self.head(self.lstm(self.stack(x_BTF))[0][:, -1])


def _compute_shape(config: ModelConfig, n_frames: int, n_features: int) -> tuple[int, int]:
    """Frames and units per frame after the convolution blocks."""
    shrink = 2 ** len(config.channels)
    return n_frames // shrink, n_features // shrink * config.channels[-1]


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "cnn": CNN,
    "lstm": LSTMNetwork,
    "cnn_lstm": CNNLSTM,
}


def make_network(
    config: ModelConfig, n_classes: int, *, n_frames: int, n_features: int
) -> nn.Module:
    """The twin of the network that `config.name` names, for inputs [B, n_frames, n_features]."""
    return NETWORKS[config.name](config, n_classes, n_frames, n_features)


def count_parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def list_parameters(
    network: nn.Module,
) -> dict[tuple[str, ...], tuple[torch.Tensor, tuple[int, ...]]]:
    """Every trainable tensor by its path in the Flax tree, with the axes that transpose Flax's."""
    found: dict[tuple[str, ...], tuple[torch.Tensor, tuple[int, ...]]] = {}
    for name, module in network.named_modules():
        path = tuple(name.split("."))
        if isinstance(module, nn.Conv2d):
            found[(*path, "kernel")] = module.weight, (3, 2, 0, 1)
        elif isinstance(module, nn.BatchNorm2d):
            found[(*path, "scale")] = module.weight, (0,)
            found[(*path, "bias")] = module.bias, (0,)
        elif isinstance(module, nn.Linear):
            found[(*path, "kernel")] = module.weight, (1, 0)
            found[(*path, "bias")] = module.bias, (0,)
        elif isinstance(module, nn.LSTM):  # both order the gates input, forget, cell, output
            found[(*path, "input", "kernel")] = module.get_parameter("weight_ih_l0"), (1, 0)
            found[(*path, "input", "bias")] = module.get_parameter("bias_ih_l0"), (0,)
            found[(*path, "cell", "recurrent", "kernel")] = (
                module.get_parameter("weight_hh_l0"),
                (1, 0),
            )
    return found


def list_statistics(network: nn.Module) -> dict[tuple[str, ...], torch.Tensor]:
    """Running means and variances of batch norm, by their path in Flax's `batch_stats`."""
    found: dict[tuple[str, ...], torch.Tensor] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            path = tuple(name.split("."))
            found[(*path, "mean")] = module.running_mean
            found[(*path, "var")] = module.running_var
    return found


def _look_up(tree: Mapping[str, Any], path: tuple[str, ...]) -> np.ndarray:
    for name in path:
        tree = tree[name]
    return np.array(tree, np.float32)


@torch.no_grad()
def copy_variables(network: nn.Module, variables: Mapping[str, Any]) -> None:
    """Copy Flax `variables` ('params', and 'batch_stats' where there are any) into the twin."""
    for path, (tensor, axes) in list_parameters(network).items():
        value = _look_up(variables["params"], path).transpose(axes)
        assert value.shape == tuple(tensor.shape), f"{path}: {value.shape}, {tuple(tensor.shape)}"
        tensor.copy_(torch.from_numpy(value.copy()))
    for path, tensor in list_statistics(network).items():
        tensor.copy_(torch.from_numpy(_look_up(variables["batch_stats"], path)))
