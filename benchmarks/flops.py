"""Work of a training step counted from shapes: FLOP, bytes, and a lower bound on its time.

Conventions: a multiply-add is two FLOP. Matrix products, convolutions and recurrences count; norms,
activations, dropout, pooling and the optimiser, together below one per cent, do not. Backward is
one product for the weights and one for the input, which the first layer does not need. Bytes:
parameters and activations (each layer's output), once in each direction; a cache may save some of
it, a real program moves more.
"""

from typing import NamedTuple

from ser_jax.config import ModelConfig

BYTES = {"float32": 4, "tf32": 4, "bfloat16": 2}
"""Of an activation; a parameter has four."""


class Layer(NamedTuple):
    """The work of one layer on one clip.

    Attributes:
      name: as in the parameter tree.
      flop: of the forward pass.
      first: whether its input is the network's own input, so that it needs no gradient.
      n_parameters: trainable numbers.
      n_out: numbers in its output.
    """

    name: str
    flop: int
    first: bool
    n_parameters: int
    n_out: int


class Work(NamedTuple):
    """The work of one pass over a batch."""

    flop: int
    n_bytes: int


def list_layers(config: ModelConfig, n_classes: int, n_frames: int, n_features: int) -> list[Layer]:
    """List the layers of the network `config.name`, for one clip [n_frames, n_features]."""
    layers: list[Layer] = []
    T, F, width = n_frames, n_features, n_features
    if config.name != "lstm":
        n_in = 1
        for index, n_out in enumerate(config.channels):
            cells, taps = T * F, 9 * n_in * n_out
            conv = Layer(f"block_{index}/conv", 2 * taps * cells, index == 0, taps, cells * n_out)
            T, F = T // 2, F // 2
            layers += [conv, Layer(f"block_{index}/norm", 0, False, 2 * n_out, T * F * n_out)]
            n_in = n_out
        width = F * n_in
    if config.name == "cnn":
        width *= T if config.cnn_pool == "flatten" else 1
    else:
        H = config.hidden
        # Input product and recurrence separately: only the former can do without a gradient.
        layers.append(
            Layer("lstm/input", 8 * width * H * T, not layers, 4 * H * (width + 1), 4 * H * T)
        )
        layers.append(Layer("lstm/cell", 8 * H * H * T, False, 4 * H * H, H * T))
        width = H
    for index, units in enumerate((*config.dense, n_classes)):
        name = "logits" if index == len(config.dense) else f"dense_{index}"
        layers.append(Layer(name, 2 * width * units, False, (width + 1) * units, units))
        width = units
    return layers


def count_step(layers: list[Layer], batch_size: int, bytes_each: int = 4) -> Work:
    """Count a training step: forward, and backward to weights and inputs.

    Args:
      layers: see `list_layers`.
      batch_size: clips.
      bytes_each: see `BYTES`.
    """
    flop = batch_size * sum(layer.flop * (2 if layer.first else 3) for layer in layers)
    activations = batch_size * sum(layer.n_out for layer in layers) * bytes_each
    return Work(flop, 2 * (activations + 4 * sum(layer.n_parameters for layer in layers)))


def count_forward(layers: list[Layer], batch_size: int, bytes_each: int = 4) -> Work:
    """Count a prediction: only forward."""
    flop = batch_size * sum(layer.flop for layer in layers)
    activations = batch_size * sum(layer.n_out for layer in layers) * bytes_each
    return Work(flop, activations + 4 * sum(layer.n_parameters for layer in layers))


def compute_floor_s(work: Work, flop_per_s: float, bytes_per_s: float) -> float:
    """Compute the roofline: seconds that no program on the device can beat."""
    return max(work.flop / flop_per_s, work.n_bytes / bytes_per_s)
