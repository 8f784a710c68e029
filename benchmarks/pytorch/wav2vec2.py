"""The baseline's wav2vec 2.0: transformers' own in PyTorch, forward and training step."""

from typing import Any

import numpy as np
import torch

from benchmarks.pytorch.training import pick_device, set_precision, synchronize
from benchmarks.worker import Job

N_CLASSES = 8


def save_weights(folder: str, sizes: dict[str, Any]) -> int:
    """Random weights that both sides start from; the number of parameters."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

    torch.manual_seed(0)
    config = Wav2Vec2Config(num_labels=N_CLASSES, classifier_proj_size=256, **sizes)
    model = Wav2Vec2ForSequenceClassification(config)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def make_job(
    *,
    folder: str,
    x_BN: np.ndarray,
    label_B: np.ndarray,
    train: bool,
    steps: int,
    kind: str = "cpu",
    precision: str = "float32",
    attention: str = "sdpa",
    compile_mode: str | None = None,
) -> Job:
    """Forward passes, or training steps with the convolutions frozen, of one batch.

    Args:
      folder: weights.
      x_BN: samples, normalised already.
      label_B: classes.
      train: training steps, with the dropouts of the configuration and Adam.
      steps: of a turn.
      kind: cpu or gpu.
      precision: float32, tf32 or bfloat16 (autocast).
      attention: transformers' attn_implementation.
      compile_mode: of torch.compile; None: eager.
    """
    from transformers import AutoModelForAudioClassification

    device = pick_device(kind)
    set_precision(precision)
    model: Any = AutoModelForAudioClassification.from_pretrained(
        folder, attn_implementation=attention
    )
    model.freeze_feature_encoder()
    model = model.to(device).train(train)
    call = model if compile_mode is None else torch.compile(model, mode=compile_mode)
    x = torch.from_numpy(x_BN).to(device)
    label = torch.from_numpy(label_B).long().to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-5, eps=1e-7, fused=device.type == "cuda")
    last: dict[str, torch.Tensor] = {}

    def step() -> None:
        with (
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"),
            torch.set_grad_enabled(train),
        ):
            logits = call(x).logits
            if not train:
                last["logits"] = logits
                return
            loss = torch.nn.functional.cross_entropy(logits.float(), label)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def turn() -> None:
        for _ in range(steps):
            step()
        synchronize(device)

    def tell() -> dict[str, Any]:
        return {} if train else {"output": float(last["logits"].float().abs().sum())}

    return Job(turn, tell)
