"""Trace: the main programs under the profiler: kernel times, and a trace to inspect."""

import shutil
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sections.context import Context
from benchmarks.worker import Job

NAME, FILE, MOST_BYTES = "facts", "trace.zip", 15 << 20
_MOST_KERNELS = 40  # of a program that a row names
Program = tuple[str, int, Callable[[], Job]]  # words, steps of a turn, builder


def measure(context: Context) -> None:
    """Write a row of kernels per program; all compile, side by side, before the first trace."""
    programs = list_programs(context.dry)

    def prepare(program: Program) -> Job | Exception:
        try:
            job = program[2]()
            for _ in range(3):
                job.turn()
        except Exception as error:
            return error
        return job

    with ThreadPoolExecutor(len(programs)) as pool:
        jobs = list(pool.map(prepare, programs))
    for number, (program, job) in enumerate(zip(programs, jobs, strict=True)):
        row = {"benchmark": NAME, "case": f"trace: {program[0]}"}
        if isinstance(job, Exception):
            context.put(row | {"note": {"failed": f"{type(job).__name__}: {job}"[:300]}})
            continue
        context.put(row | {"note": _trace(context, number, program[1], job)})


def list_programs(dry: bool) -> list[Program]:
    """List steps of LSTM and CNN-LSTM, of 32 runs side by side, and augmentation."""
    from benchmarks.ours import make_augment, make_runs_step, make_step, make_variables

    rng = np.random.default_rng(0)

    def draw(n_frames: int, n_features: int, n_steps: int) -> dict[str, Any]:
        batch, clips = (4, 8) if dry else (32, 128)
        shape = (clips, *((16, 8) if dry else (n_frames, n_features)))
        return {
            "x_BTF": rng.standard_normal(shape, np.float32), "precision": "bfloat16",
            "label_B": rng.integers(0, 8, clips).astype(np.int32),
            "index_SB": rng.integers(0, clips, (n_steps, batch)).astype(np.int32),
        }  # fmt: skip

    def make_scan(name: str, n_frames: int, n_features: int) -> Job:
        arguments = draw(n_frames, n_features, 20)
        model = {"name": name} | ({"hidden": 8} if dry else {})
        variables = make_variables(model, *arguments["x_BTF"].shape[1:])
        return make_step(model=model, variables=variables, scan=True, **arguments)

    def make_runs() -> Job:
        arguments = draw(83, 20, 1) | {"runs": 2 if dry else 32, "how": "im2col", "variables": {}}
        return make_runs_step(model={"name": "cnn_lstm"}, **arguments)

    def augment() -> Job:
        wave_BN = rng.integers(-9999, 9999, (2, 4000) if dry else (32, 84352)).astype(np.int16)
        return make_augment(
            wave_BN=wave_BN, length_B=np.full(len(wave_BN), wave_BN.shape[1]), rate_hz=16000,
            augment={}, way="vmap",
        )  # fmt: skip

    programs: list[Program] = [
        ("lstm, 20 steps", 20, lambda: make_scan("lstm", 165, 40)),
        ("cnn_lstm, 20 steps", 20, lambda: make_scan("cnn_lstm", 165, 40)),
        ("32 runs of cnn_lstm, one step", 1, make_runs),
        ("augmentation of 32 clips", 1, augment),
    ]  # fmt: skip
    # On CPU a convolution inside a loop, or of many runs, is slow.
    return programs[:1] + programs[-1:] if dry else programs


def _trace(context: Context, number: int, n_steps: int, job: Job) -> dict[str, Any]:
    import jax

    start_s = time.perf_counter()
    job.turn()
    turn_s = time.perf_counter() - start_s
    folder = Path(context.work) / f"trace-{number}"
    with jax.profiler.trace(str(folder)):
        job.turn()
    note: dict[str, Any] = {"turn_s": turn_s, "steps": n_steps}
    for path in folder.rglob("*.xplane.pb"):
        note |= list_kernels(jax.profiler.ProfileData.from_file(str(path)))
    if number == 0:
        note |= pack(folder, Path(context.out) / FILE)
    shutil.rmtree(folder, ignore_errors=True)
    return note


def list_kernels(profile: Any) -> dict[str, Any]:
    """List what ran on GPUs: 'kernels', [name, count, seconds], longest first, and 'busy_s', their
    sum.

    Args:
      profile: `jax.profiler.ProfileData`.
    """
    found: dict[str, tuple[int, float]] = {}
    for plane in profile.planes:
        for line in plane.lines if plane.name.startswith("/device:GPU") else ():
            for event in line.events if line.name.startswith("Stream") else ():
                count, seconds = found.get(event.name, (0, 0.0))
                found[event.name] = count + 1, seconds + event.duration_ns * 1e-9
    kernels = sorted(found.items(), key=lambda item: -item[1][1])
    return {
        "busy_s": sum(seconds for _, (_, seconds) in kernels), "names": len(kernels),
        "count": sum(count for _, (count, _) in kernels),
        "kernels": [[name, *entry] for name, entry in kernels[:_MOST_KERNELS]],
    }  # fmt: skip


def pack(folder: Path, path: Path) -> dict[str, int]:
    """Pack a trace's files into one archive, without the largest if too large; return sizes."""
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
