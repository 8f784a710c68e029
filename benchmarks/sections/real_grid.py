"""Real grid: the accuracy that bfloat16 costs, seed by seed, on RAVDESS if available."""

import statistics
from pathlib import Path
from typing import Any

from benchmarks import grid
from benchmarks.sections.context import Context
from benchmarks.sections.racing import choose_corpus, make_options, start_worker
from ser_jax.config import DataConfig
from ser_jax.data.sources.find import find_source

NAME = "real_grid"
TYPES = ("float32", "bfloat16")
NETWORKS = ("cnn", "lstm", "cnn_lstm")


def measure(context: Context) -> None:
    """Run one grid of networks in both types over five seeds; a row for each network."""
    options = make_options(context)
    networks, seeds, epochs = (NETWORKS, 5, 10) if not context.dry else (("lstm",), 2, 1)
    keys = grid.KEYS | choose_corpus(context) | {"train.epochs": epochs}
    if context.store_dir is not None and context.data_root is None:
        store = link_store(Path(context.store_dir), Path(context.work) / "ravdess")
        keys |= {"data.corpus": "ravdess", "data.clip_s": None, "data.store_dir": str(store)}
    systems = {
        f"{name}, {dtype}": grid.SYSTEMS[name] | {"train.dtype": dtype}
        for name in networks for dtype in TYPES
    }  # fmt: skip
    arguments = {"keys": keys, "systems": systems, "seeds": tuple(range(seeds))}
    if context.dry:
        arguments["batching"] = "vmap"  # on CPU each run would have a process of its own
    worker = start_worker("ser_jax", options)
    try:
        worker.allow(context.left_s())
        # Products of float32 at the highest precision, which leaves bfloat16 as it is.
        facts = worker.call("benchmarks.sections.real_grid:run", arguments=arguments)
    finally:
        worker.close()
    accuracies = [facts[i : i + seeds] for i in range(0, len(facts), seeds)]
    for number, name in enumerate(networks):
        full, half = accuracies[2 * number : 2 * number + 2]
        note = compare_paired(full, half) | {"corpus": keys["data.corpus"], "epochs": epochs}
        print(f"{name}: {note}")
        context.put({"benchmark": NAME, "case": f"{name}, float32 against bfloat16", "note": note})


def link_store(store_dir: Path, folder: Path) -> Path:
    """`folder`, in which ser_jax finds the store of RAVDESS that is in `store_dir`.

    The name of a store ends in a fingerprint of its recordings. The link has that of the download,
    which ser_jax looks for if no recordings are named.

    Raises:
      FileNotFoundError: there is no such store.
    """
    found = sorted(path for path in store_dir.expanduser().glob("ravdess-*") if path.is_dir())
    if not found:
        raise FileNotFoundError(f"--data.store_dir {store_dir}: holds no store of RAVDESS")
    folder.mkdir()
    fingerprint = find_source(DataConfig(corpus="ravdess")).fingerprint
    name = f"{found[0].name.rpartition('-')[0]}-{fingerprint}"
    (folder / name).symlink_to(found[0].resolve())
    return folder


def run(arguments: dict[str, Any]) -> list[float]:
    """Run the grid; test accuracies by system."""
    from benchmarks.ours import make_grid

    job = make_grid(**arguments)
    job.turn()
    return job.facts()["test_accuracies"]


def compare_paired(full: list[float], half: list[float]) -> dict[str, Any]:
    """Compute mean accuracies, and the mean difference over seeds with its standard error."""
    differences = [b - a for a, b in zip(full, half, strict=True)]
    error = statistics.stdev(differences) / len(differences) ** 0.5 if len(full) > 1 else None
    return {
        "float32": statistics.mean(full), "bfloat16": statistics.mean(half),
        "difference": statistics.mean(differences), "standard_error": error,
        "seeds": len(differences), "accuracies": [full, half],
    }  # fmt: skip
