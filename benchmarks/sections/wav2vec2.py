"""wav2vec2: a training step of wav2vec 2.0 of base size, from waves and from cached features."""

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks import harness, wav2vec2
from benchmarks.sections.context import Context
from benchmarks.sections.racing import CLIP_S, make_options, race
from benchmarks.worker import Contestant

NO_DROPOUT = {"attention_dropout": 0.0}
Way = tuple[str, str, dict[str, Any], str]  # side, words, arguments, ratio key
WAYS: tuple[Way, ...] = (
    ("ser_jax", "jit", {}, "wav2vec2_step"),
    ("pytorch", "autocast, SDPA", {}, "wav2vec2_step"),
    ("ser_jax", "jit, features computed once", {"cached": True}, ""),
    ("ser_jax", "jit, no attention dropout", NO_DROPOUT, "wav2vec2_step_no_attention_dropout"),
    ("pytorch", "autocast, SDPA, compile", {"compile_mode": "default"}, "wav2vec2_step"),
    ("pytorch", "autocast, SDPA, no attention dropout", NO_DROPOUT,
     "wav2vec2_step_no_attention_dropout"),
)  # fmt: skip


def copy_without_dropout(folder: Path) -> Path:
    """Copy the weights, with attention dropout switched off in their configuration."""
    copy = folder.with_name(f"{folder.name}-no-dropout")
    copy.mkdir()
    for path in folder.iterdir():
        if path.name == "config.json":
            settings = json.loads(path.read_text()) | NO_DROPOUT
            (copy / path.name).write_text(json.dumps(settings))
        else:
            (copy / path.name).symlink_to(path)
    return copy


def measure(context: Context) -> None:
    """Run one race; every contestant has the same weights and clips."""
    import numpy as np

    from ser_jax.wav2vec2.architecture import Architecture

    options = make_options(context)
    batch, seconds = (2, 0.5) if context.dry else (32, CLIP_S)
    sizes: dict[str, Any] = {"num_hidden_layers": 12, "layerdrop": 0.0}
    if context.dry:
        sizes |= {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 32,
                  "num_attention_heads": 2, "conv_dim": [16] * 7}  # fmt: skip
    folder = Path(context.work) / "wav2vec2"
    harness.call(options, "benchmarks.pytorch.wav2vec2:save_weights", folder=str(folder),
                 sizes=sizes)  # fmt: skip
    folders = {False: str(folder), True: str(copy_without_dropout(folder))}
    rng, n_samples = np.random.default_rng(0), round(seconds * 16000)
    x_BN = rng.standard_normal((batch, n_samples), np.float32)
    common = {"x_BN": x_BN, "train": True, "steps": 1 if context.dry else 10,
              "label_B": rng.integers(0, 8, batch).astype(np.int32),
              "precision": "bfloat16"}  # fmt: skip
    sizes = {key: tuple(value) if isinstance(value, list) else value
             for key, value in sizes.items()}  # fmt: skip
    work = wav2vec2.count_work(Architecture(**sizes), batch, n_samples, True)
    contestants = []
    for side, words, own, key in WAYS:
        builder = "ours_wav2vec2" if side == "ser_jax" else "pytorch.wav2vec2"
        own, kind = dict(own), {} if side == "ser_jax" else {"kind": "gpu"}
        chosen = folders[own.pop("attention_dropout", None) is not None]
        contestants.append(Contestant(
            side, words, f"benchmarks.{builder}:make_job", common | kind | own | {"folder": chosen},
            "bfloat16", steps=common["steps"], clips=batch, work=work,
            ratio_keys=(key,) if key else (),
        ))  # fmt: skip
    place = {"benchmark": wav2vec2.NAME, "case": "step",
             "shape": f"{batch} x {seconds} s, {sizes['num_hidden_layers']} layers"}  # fmt: skip
    try:
        race(context, options, place, contestants, warm=0 if context.dry else 1, share=0.9)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
