"""A run killed by SIGKILL and resumed in a new process, against one never interrupted, to the bit.

A device's compiler times several algorithms and takes the fastest, perhaps another one in another
process. So the test runs in three ways: with compiled programs kept between processes, the default;
with nothing kept; and with nothing kept and only deterministic operations.
"""

import hashlib
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.sections.context import Context, Row
from ser_jax.config import Config, override
from ser_jax.data.store import prepare
from ser_jax.run.run_dir import load_run_config
from ser_jax.systems.build import build
from ser_jax.training.checkpoint import Checkpoints
from ser_jax.training.state import init_state, list_numbers

KEYS: dict[str, Any] = {
    "data.corpus": "synthetic", "data.synthetic_actors": 4, "data.synthetic_clips": 16,
    "data.clip_s": 1.0, "features.hop_length": 512, "features.n_mels": 32, "features.n_mfcc": 16,
    "train.batch_size": 16, "train.epochs": 30,
}  # fmt: skip
FULL: dict[str, Any] = {"model.name": "cnn_lstm", "augment.enabled": True}
DRY: dict[str, Any] = {"model.name": "lstm", "model.hidden": 8, "train.epochs": 12}
_KILL_EPOCH = 3


class Variant(NamedTuple):
    """The conditions of a trial.

    Attributes:
      words: for the row.
      kept: compiled programs are kept between the processes.
      flags: for XLA.
      must: bit equality is required, not only noted.
    """

    words: str
    kept: bool = False
    flags: str = ""
    must: bool = True


VARIANTS = (
    Variant("programs kept", kept=True),
    Variant("nothing kept, deterministic operations", flags="--xla_gpu_deterministic_ops=true"),
    Variant("nothing kept", must=False),
)


class Trial:
    """The runs of one variant.

    Args:
      context: of the section.
      number: of the variant.
    """

    def __init__(self, context: Context, number: int):
        self.variant = VARIANTS[number]
        self.folder = Path(context.work) / f"resume-{number}"
        self.folder.mkdir(parents=True)
        self.context = context
        cache = str(self.folder / "programs") if self.variant.kept else "null"
        self.keys = KEYS | (DRY if context.dry else FULL)
        self.keys |= {"data.store_dir": f"{context.work}/resume-store"}
        self.options = [
            f"--{k}={v}" for k, v in (self.keys | {"parallel.cache_dir": cache}).items()
        ]

    def start(self, name: str) -> subprocess.Popen:
        """Start a training run in its own process."""
        environment = os.environ | {
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {self.variant.flags}".strip()
        }
        if not self.context.dry:
            environment["JAX_PLATFORMS"] = "cuda"
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "ser_jax", "train", *self.options,
                 f"--run_dir={self.folder / name}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
            )  # fmt: skip

    def finish(self, name: str, process: subprocess.Popen) -> list[str]:
        """Wait for the run to complete; digests of what it left."""
        if process.wait() != 0:
            lines = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
            raise RuntimeError(f"training ended with status {process.returncode}: {lines[-1:]}")
        return digest(self.folder / name)

    def kill(self, name: str) -> None:
        """Train until a few checkpoints are there, then SIGKILL."""
        process, checkpoints = self.start(name), self.folder / name / "checkpoints"
        while process.poll() is None and not _has_epoch(checkpoints, _KILL_EPOCH):
            time.sleep(0.005)
        process.kill()
        process.wait()
        if (
            not _has_epoch(checkpoints, _KILL_EPOCH)
            or (self.folder / name / "metrics.json").exists()
        ):
            self.finish(name, process)  # reports why it ended
            raise RuntimeError("the run was over before it could be killed")

    def compare(self) -> list[Row]:
        """Write a row of the resumed run; with nothing kept, also one of two uninterrupted runs."""
        names = ["whole"] if self.variant.kept or self.context.dry else ["whole", "again"]
        whole: dict[str, Any] = {}
        if not self.variant.kept:
            whole = {name: self.start(name) for name in names}
        self.kill("resumed")
        # The others find what it kept.
        whole = whole or {name: self.start(name) for name in names}
        resumed = self.finish("resumed", self.start("resumed"))
        found = {name: self.finish(name, process) for name, process in whole.items()}
        rows = [self._make_row("killed and resumed is never interrupted", resumed, found["whole"])]
        if "again" in found:
            words = "two processes are equal"
            rows.append(self._make_row(words, found["again"], found["whole"]))
        return rows

    def _make_row(self, words: str, found: list[str], expected: list[str]) -> Row:
        row: Row = {"case": f"to the bit: {words}, {self.variant.words}"}
        if found == expected:
            return row | {"status": "ok", "error": 0.0, "bound": 0.0}
        parts = zip(("events", "predictions", "state"), found, expected, strict=True)
        reason = "other " + ", ".join(part for part, a, b in parts if a != b)
        return row | {"status": "wrong" if self.variant.must else "noted", "reason": reason}


def digest(run_dir: Path) -> list[str]:
    """Digest each epoch's figures, the predictions, and all arrays of the last checkpoint."""
    import json

    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    figures = [{k: v for k, v in e.items() if k != "seconds"} for e in events]
    parts = [
        json.dumps(figures).encode(),
        (run_dir / "predictions.csv").read_bytes(),
        b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(_load_state(run_dir))),
    ]
    return [hashlib.sha256(part).hexdigest() for part in parts]


def _load_state(run_dir: Path) -> Any:
    config = load_run_config(run_dir)
    model, tx, _ = build(config.model, config.train, 8, n_steps=1)
    n_frames = 1 + 16000 // config.features.hop_length

    def init() -> Any:
        return init_state(
            model, tx, seed=0, n_frames=n_frames, n_features=config.features.n_mfcc, dropout=0.0,
            numbers=list_numbers(config.train, config.augment),
        )  # fmt: skip

    checkpoints = Checkpoints(run_dir / "checkpoints", read_only=True)
    try:
        latest = checkpoints.latest_epoch()
        assert latest is not None
        state = checkpoints.load_state(latest, jax.eval_shape(init))
    finally:
        checkpoints.close()
    return state.replace(key=jax.random.key_data(state.key))


def _has_epoch(checkpoints: Path, epoch: int) -> bool:
    return checkpoints.is_dir() and any(
        path.name.isdecimal() and int(path.name) >= epoch for path in checkpoints.iterdir()
    )


def measure(context: Context) -> None:
    """Run the variants one after another, since each compiles; in a dry run only the first."""
    store = {"data.store_dir": f"{context.work}/resume-store"}
    prepare(override(Config(), KEYS | store).data)
    for number in range(1 if context.dry else len(VARIANTS)):
        try:
            rows = Trial(context, number).compare()
        except Exception as error:
            traceback.print_exc()  # for the log; the row has room for a line
            words = (str(error).strip().splitlines() or [""])[0][:300]
            rows = [{"case": f"to the bit: {VARIANTS[number].words}", "status": "failed",
                     "reason": f"{type(error).__name__}: {words}"}]  # fmt: skip
        for row in rows:
            print(f"{row['case']}: {row['status']} {row.get('reason') or ''}")
            context.put({"benchmark": "right", **row})
