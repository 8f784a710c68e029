"""Write rows to files: JSON with ratios, a Markdown table, a plot."""

import argparse
import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ser_jax.files.atomic import write_atomic

FOLDER = Path(__file__).parent / "results"
OURS = "ser_jax"


def default_path(device_name: str) -> Path:
    """benchmarks/results/DEVICE.json."""
    slug = re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-")
    return FOLDER / f"{slug}.json"


def compute_ratios(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Divide the other side's best median by ser_jax's best, for every key of both sides."""
    best: dict[str, dict[bool, float]] = {}
    for row in rows:
        for key in row["ratio_keys"] if row["status"] == "ok" else ():
            medians, ours = best.setdefault(key, {}), row["side"] == OURS
            medians[ours] = min(row["median_s"], medians.get(ours, float("inf")))
    return {
        key: round(medians[False] / medians[True], 3)
        for key, medians in best.items()
        if len(medians) == 2
    }


def load(path: Path) -> dict[str, Any]:
    """A file of results."""
    return json.loads(path.read_text())


def save(
    options: argparse.Namespace, benchmark: str, rows: list[dict[str, Any]], seconds: float
) -> None:
    """Save a benchmark's rows in `options.out`, replacing its earlier ones.

    Called after every race, each time with all rows so far.
    """
    path: Path = options.out
    found = load(path) if path.exists() else {}
    if found.get("device") != options.device["name"]:
        found = {}
    kept = [row for row in found.get("rows", []) if row["benchmark"] != benchmark]
    rows = kept + rows
    mark_best(rows)
    document = {
        "device": options.device["name"],
        "versions": options.versions,
        "peaks": options.device["peaks"],
        "peaks_from": options.device["peaks_from"],
        "seconds": found.get("seconds", {}) | {benchmark: round(seconds, 1)},
        "quick": found.get("quick", {}) | {benchmark: options.quick},
        "ratios": compute_ratios(rows),
        "rows": rows,
    }
    write_atomic(path, json.dumps(document, indent=1))


def print_ratios(path: Path) -> None:
    """Print the ratios of a results file, if there is one."""
    if path.exists():
        ratios = ", ".join(f"{key} {ratio:.2f}" for key, ratio in load(path)["ratios"].items())
        print(f"ratios: {ratios}\n{path}", flush=True)


_PLACE = ("benchmark", "case", "shape", "temperature")


def mark_best(rows: Iterable[dict[str, Any]]) -> None:
    """Set 'best' in each side's fastest row of each case."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        row["best"] = False
        if row["status"] == "ok":
            place = (*(row.get(key) for key in _PLACE), row["side"], row["precision"])
            groups.setdefault(place, []).append(row)
    for group in groups.values():
        min(group, key=lambda row: row["median_s"])["best"] = True


_COLUMNS = [
    ("median", "median_s", "{:.4g} ms", 1e3),
    ("p95", "p95_s", "{:.4g} ms", 1e3),
    ("first", "first_step_s", "{:.3g} s", 1),
    ("compile", "compile_s", "{:.3g} s", 1),
    ("clips/s", "clips_per_s", "{:,.0f}", 1),
    ("MFU", "mfu", "{:.1%}", 1),
    ("floor", "floor_s", "{:.4g} ms", 1e3),
    ("memory", "peak_memory_mib", "{:,.0f} MiB", 1),
]


def name_row(row: dict[str, Any]) -> str:
    """Name a row: side, configuration, and whether the run was the first of its process."""
    words = (row["configuration"], row.get("temperature"))
    return f"{row['side']}: {', '.join(filter(None, words))}"


def list_cells(row: dict[str, Any]) -> list[str]:
    """A row of the table."""
    who = name_row(row)
    if row["status"] == "differs":
        who += f" (differs: {row['reason']})"
    place = [row["case"], row["shape"], who, row["precision"], str(row["threads"])]
    if row["status"] in ("failed", "skipped"):
        return [*place, f"{row['status']}: {row['reason']}"] + [""] * (len(_COLUMNS) - 1)
    figures = [
        form.format(row[key] * scale) if row.get(key) is not None else ""
        for _, key, form, scale in _COLUMNS
    ]
    if beside := row.get("compiled_beside"):
        for index in (2, 3):  # first, compile: these shared the cores
            figures[index] += f" ({beside} at once)"
    return place + figures


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as they come, losing ones too."""
    for row in rows:
        cells = list_cells(row)
        names = ["", "", "", "", "threads", *(name for name, *_ in _COLUMNS)]
        parts = [f"{n} {c}".strip() for n, c in zip(names, cells, strict=True) if c]
        print("  ".join(parts), flush=True)


def make_markdown(document: dict[str, Any]) -> str:
    """Make Markdown of the whole file: ratios, then a table per benchmark, best rows in bold."""
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    lines = [f"## {document['device']}", "", versions, ""]
    lines += ["| ratio to the best of the other side | |", "|---|---|"]
    lines += [f"| {key} | {ratio:.2f} |" for key, ratio in document["ratios"].items()]
    head = ["case", "shape", "configuration", "precision", "threads", *(c[0] for c in _COLUMNS)]
    for benchmark in dict.fromkeys(row["benchmark"] for row in document["rows"]):
        lines += ["", f"### {benchmark}", "", f"| {' | '.join(head)} |"]
        lines.append("|" + "---|" * len(head))
        for row in document["rows"]:
            if row["benchmark"] == benchmark:
                cells = list_cells(row)
                if row["best"]:
                    cells[2], cells[5] = f"**{cells[2]}**", f"**{cells[5]}**"
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines + list_evidence(document)) + "\n"


def list_evidence(document: dict[str, Any]) -> list[str]:
    """List what `gpu.py` found besides times, as Markdown: sections, checks, notes."""
    lines: list[str] = []
    if sections := document.get("sections"):
        lines += ["", "### sections", "", "| | | s | |", "|---|---|---|---|"]
        lines += [f"| {s['case']} | {s['status']} | {s['seconds']:.0f} | {s['reason'] or ''} |"
                  for s in sections]  # fmt: skip
    if checks := document.get("checks"):
        lines += ["", "### right", "", "| check | | error | bound | |", "|---|---|---|---|---|"]
        lines += [format_check(row) for row in checks]
    for row in document.get("notes", []):
        note = row["note"]
        if "kernels" in note:
            lines += list_kernels(row["case"], note)
        else:
            lines += ["", f"{row['benchmark']}, {row['case']}: `{json.dumps(note)}`"]
    return lines


def list_kernels(case: str, note: dict[str, Any], most: int = 8) -> list[str]:
    """List the slowest kernels of a profiled turn, as a table."""
    calls = f"{note['count']:,} calls of {note['names']} kernels"
    head = f"### {case}: {note['turn_s'] * 1e3:.3g} ms, {note['busy_s'] * 1e3:.3g} in {calls}"
    lines = ["", head, "", "| kernel | calls | us each | share |", "|---|---|---|---|"]
    for name, count, seconds in note["kernels"][:most]:
        words = name.replace("|", "/")[:90]
        share = seconds / note["busy_s"]
        lines.append(f"| {words} | {count:,} | {seconds / count * 1e6:.3g} | {share:.1%} |")
    return lines


def format_check(row: dict[str, Any]) -> str:
    """A line of the table of checks."""
    figures = [f"{row[key]:.2g}" if row.get(key) is not None else "" for key in ("error", "bound")]
    words = str(row.get("reason") or "").replace("|", "/")
    return f"| {row['case']} | {row['status']} | {' | '.join(figures)} | {words} |"


def draw(document: dict[str, Any], path: Path) -> None:
    """Draw a panel of bars per case: every row's median time, ser_jax's in colour."""
    from matplotlib.figure import Figure

    panels: dict[tuple, list[dict[str, Any]]] = {}
    for row in document["rows"]:
        if row["status"] == "ok" and row["benchmark"] != "scaling":
            panels.setdefault((row["benchmark"], row["case"], row["shape"]), []).append(row)
    heights = [1.4 * len(rows) + 1.8 for rows in panels.values()]
    figure = Figure(figsize=(9, 0.22 * sum(heights) + 1), layout="constrained")
    axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for ax, ((benchmark, case, shape), rows) in zip(axes, panels.items(), strict=True):
        rows = sorted(rows, key=lambda row: -row["median_s"])
        names = [textwrap.fill(f"{name_row(row)}, {row['precision']}", 60) for row in rows]
        colours = ["tab:blue" if row["side"] == OURS else "0.7" for row in rows]
        unit, scale = ("s", 1.0) if rows[0]["median_s"] >= 1 else ("ms", 1e3)
        bars = ax.barh(range(len(rows)), [row["median_s"] * scale for row in rows], color=colours)
        ax.bar_label(bars, fmt="%.3g", padding=2, fontsize=7)
        ax.margins(x=0.14)  # room for the numbers
        ax.set_yticks(range(len(rows)), names, fontsize=7)
        title = textwrap.fill(f"{benchmark}, {case}, {shape} ({unit})", 75)
        ax.set_title(title, fontsize=8, loc="left")
        ax.tick_params(axis="x", labelsize=7)
    figure.suptitle(document["device"], fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def render(path: Path) -> None:
    """Write FILE.md and FILE.png beside FILE.json."""
    document = load(path)
    write_atomic(path.with_suffix(".md"), make_markdown(document))
    draw(document, path.with_suffix(".png"))
    print(f"{path.with_suffix('.md')}\n{path.with_suffix('.png')}")
