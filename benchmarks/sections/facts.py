"""Facts: the card, versions, the environment that matters; ceilings measured by both libraries."""

import contextlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks import harness
from benchmarks.sections.context import Context, Row
from benchmarks.sections.racing import make_options, start_worker
from benchmarks.worker import Failed

NAME = "facts"
_QUERY = (
    "name", "driver_version", "memory.total", "clocks.current.sm", "clocks.max.sm",
    "clocks.current.memory", "power.limit", "temperature.gpu",
)  # fmt: skip
_MATTERS = ("XLA_", "JAX_", "LD_PRELOAD", "MALLOC_", "GLIBC_TUNABLES", "CUDA_", "NVIDIA_TF32",
            "TORCH_", "OMP_", "MKL_")  # fmt: skip


def ask_card() -> dict[str, str]:
    """What nvidia-smi says; nothing where there is none."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10,
            check=True,
        )  # fmt: skip
        return dict(zip(_QUERY, answer.stdout.splitlines()[0].split(", "), strict=False))
    return {}


def list_environment() -> dict[str, str]:
    """Variables that move results or speed."""
    return {key: value for key, value in os.environ.items() if key.startswith(_MATTERS)}


def measure(context: Context) -> None:
    """A row of the device, then one for each ceiling and library."""
    context.put({"benchmark": NAME, "case": "card", "note": ask_card()})
    context.put({"benchmark": NAME, "case": "environment", "note": list_environment()})
    options = make_options(context, device={"kind": "", "name": "", "peaks": {}})
    sides = {"ser_jax": "jax", "pytorch": "torch"}
    workers = {side: start_worker(side, options) for side in sides}
    try:
        with ThreadPoolExecutor(2) as pool:  # imports take seconds each
            device = pool.submit(workers["ser_jax"].call, "benchmarks.device:describe")
            ready = pool.submit(workers["pytorch"].call, "benchmarks.sections.ceilings:load_torch")
            row: Row = {"benchmark": "device", "device": device.result()}
            options.device = row["device"]
            context.put(row | {"versions": harness.list_versions(options)})
            ready.result()
        for side, library in sides.items():
            _measure_side(context, row["device"]["name"], workers[side], side, library)
    finally:
        for worker in workers.values():
            worker.close()


def _measure_side(context: Context, device: str, worker: Any, side: str, library: str) -> None:
    function = f"benchmarks.sections.ceilings:measure_{library}"
    for case in worker.call("benchmarks.sections.ceilings:list_cases", dry=context.dry):
        row = {
            "benchmark": NAME, "case": case["case"], "shape": case["shape"], "side": side,
            "configuration": library, "precision": case["precision"], "device": device,
            "threads": worker.threads, "ratio_keys": [],
        }  # fmt: skip
        try:
            seconds = worker.call(function, case=case)
        except Failed as error:
            context.put(row | {"status": "failed", "reason": str(error)})
            continue
        rate = case["work"] / seconds
        words = f"{rate / 1e12:.3g} {'TB/s' if case['case'] == 'copy' else 'TFLOP/s'}"
        print(f"{side} {case['case']} {case['precision']}: {seconds * 1e3:.4g} ms, {words}")
        context.put(row | {"status": "ok", "median_s": seconds, "p95_s": seconds, "rate": rate})
