"""The baseline's inference: int16 waves on the host to probabilities on the host."""

from typing import Any

import numpy as np
import torch

from benchmarks.pytorch.features import FrontEnd
from benchmarks.pytorch.models import copy_variables, make_network
from benchmarks.pytorch.training import make_context, pick_device, set_precision
from benchmarks.worker import Job
from ser_jax.config import FeaturesConfig, ModelConfig, override


def make_inference(
    *, wave_BN: np.ndarray, length_B: np.ndarray, rate_hz: int, model: dict[str, Any],
    features: dict[str, Any], variables: dict[str, Any], kind: str, precision: str = "float32",
    channels_last: bool = False, compile_mode: str | None = None,
) -> Job:  # fmt: skip
    """One turn is one batch; arguments as in `ours.make_inference`, ways as in `Trainer`."""
    del length_B
    device = pick_device(kind)
    set_precision(precision)
    feature_config = override(FeaturesConfig(), features)
    front_end = FrontEnd(feature_config, rate_hz).to(device)
    n_frames = 1 + wave_BN.shape[1] // feature_config.hop_length
    network = make_network(
        override(ModelConfig(), model), 8, n_frames=n_frames, n_features=feature_config.n_mfcc
    )
    copy_variables(network, variables)
    network = network.to(device).eval()
    if channels_last:
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore
    context = make_context(device, precision)

    def compute(wave_BN: torch.Tensor) -> torch.Tensor:
        with context():
            # Scaled to the size of normalised MFCC.
            logits_BC = network(front_end(wave_BN.float() / 32768) / 100)
        return logits_BC.float().softmax(1)

    run = compute if compile_mode is None else torch.compile(compute, mode=compile_mode)
    facts: dict[str, Any] = {}
    host_BN = torch.from_numpy(wave_BN)
    if device.type == "cuda":
        host_BN = host_BN.pin_memory()

    @torch.inference_mode()
    def turn() -> None:
        probability_BC = run(host_BN.to(device, non_blocking=True)).cpu().numpy()
        facts["confidence"] = float(probability_BC.max(axis=1).mean())

    return Job(turn, lambda: facts)
