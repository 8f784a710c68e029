"""Summarise a call of `gpu.py`, and make results files from its rows."""

import json
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.sections.context import Row, load_rows
from ser_jax.files.atomic import write_atomic

SUMMARY_FILE = "summary.md"


def list_checks(rows: list[Row]) -> list[Row]:
    """List what was compared with a reference."""
    return [row for row in rows if row["benchmark"] == "right"]


def list_races(rows: list[Row]) -> list[Row]:
    """List what was timed, or could not be."""
    return [row for row in rows if "side" in row]


def list_sections(rows: list[Row]) -> list[Row]:
    """List how each section went."""
    return [row for row in rows if row["benchmark"] == "section"]


def has_failed(out: Path) -> bool:
    """Whether a section failed or a check found an error."""
    rows = load_rows(out)
    asked = list_sections(rows) + list_checks(rows)
    return any(row["status"] not in ("ok", "noted") for row in asked)


def find_device(rows: list[Row]) -> Row:
    """Find the row of the device; an unknown one if `facts` did not get that far."""
    unknown = {"device": {"name": "unknown device", "peaks": {}, "peaks_from": ""}, "versions": {}}
    return next((row for row in rows if row["benchmark"] == "device"), unknown)


def make_summary(rows: list[Row], seconds: float) -> str:
    """Make a page: how sections went, what is wrong, the ratios."""
    checks, ratios = list_checks(rows), results.compute_ratios(list_races(rows))
    lines = [f"# {find_device(rows)['device']['name']}", "", f"{seconds:.0f} s", ""]
    lines += ["| section | | s | |", "|---|---|---|---|"]
    for row in list_sections(rows):
        words = row["reason"] or ""
        lines.append(f"| {row['case']} | {row['status']} | {row['seconds']:.0f} | {words} |")
    counts = {status: 0 for status in ("ok", "noted", "wrong", "failed")}
    for row in checks:
        counts[row["status"]] += 1
    lines += ["", "right: " + ", ".join(f"{n} {status}" for status, n in counts.items())]
    if wrong := [row for row in checks if row["status"] in ("wrong", "failed")]:
        lines += ["", "| check | | error | bound | |", "|---|---|---|---|---|"]
        lines += [results.format_check(row) for row in wrong]
    lines += ["", "| ratio to the best of the other side | |", "|---|---|"]
    lines += [f"| {key} | {ratio:.2f} |" for key, ratio in ratios.items()]
    return "\n".join(lines) + "\n"


def write_summary(out: Path, seconds: float) -> str:
    """Write summary.md, and return its text."""
    text = make_summary(load_rows(out), seconds)
    (out / SUMMARY_FILE).write_text(text)
    return text


def make_document(rows: list[Row]) -> dict[str, Any]:
    """Make a results file like `results.save`, with checks and facts added."""
    device, races = find_device(rows), list_races(rows)
    results.mark_best(races)
    return {
        "device": device["device"]["name"],
        "versions": device["versions"],
        "peaks": device["device"]["peaks"],
        "peaks_from": device["device"]["peaks_from"],
        "seconds": {row["case"]: row["seconds"] for row in list_sections(rows)},
        "sections": list_sections(rows),
        "ratios": results.compute_ratios(races),
        "checks": list_checks(rows),
        "notes": [row for row in rows if "note" in row],
        "rows": races,
    }


def render(out: Path, folder: Path = results.FOLDER) -> None:
    """Write DEVICE.json, .md and .png to `folder` from the rows in `out`, losing ones too."""
    document = make_document(load_rows(out))
    path = folder / results.default_path(document["device"]).name
    write_atomic(path, json.dumps(document, indent=1))
    results.render(path)
