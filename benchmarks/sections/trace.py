"""Trace: one epoch of the CNN-LSTM under the profiler, packed into one file."""

import shutil
import zipfile
from pathlib import Path

import numpy as np

from benchmarks.sections.context import Context

NAME, FILE, MOST_BYTES = "facts", "trace.zip", 15 << 20


def measure(context: Context) -> None:
    """An epoch of 32 scanned steps, compiled before; opens in TensorBoard, XProf or Perfetto."""
    import jax

    from benchmarks.ours import make_step, make_variables

    (T, F, B), n_steps = ((16, 16, 4), 2) if context.dry else ((83, 20, 32), 32)
    model = {"name": "cnn_lstm"} | ({"channels": (4, 4, 4, 4), "hidden": 8} if context.dry else {})
    rng = np.random.default_rng(0)
    job = make_step(
        model=model, x_BTF=rng.standard_normal((128, T, F), np.float32),
        label_B=rng.integers(0, 8, 128).astype(np.int32), scan=not context.dry,
        index_SB=rng.integers(0, 128, (n_steps, B)).astype(np.int32),
        variables=make_variables(model, T, F), precision="bfloat16",
    )  # fmt: skip
    for _ in range(3):
        job.turn()
    folder = Path(context.work) / "trace"
    with jax.profiler.trace(str(folder)):
        job.turn()
    note = pack(folder, Path(context.out) / FILE)
    context.put({"benchmark": NAME, "case": "trace", "note": note})


def pack(folder: Path, path: Path) -> dict[str, int]:
    """All files of a trace in one archive, the largest left out if it would be too large; sizes."""
    files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    while True:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for file in files:
                archive.write(file, file.relative_to(folder))
        if path.stat().st_size <= MOST_BYTES or not files:
            break
        files.pop()
    shutil.rmtree(folder)
    return {"bytes": path.stat().st_size, "files": len(files)}
