"""What is missing from a grid, and how its results were made, as the runs recorded it."""

from __future__ import annotations

from collections import Counter

from ser_jax.report.analysis import Analysis
from ser_jax.report.formats import describe_seeds, label
from ser_jax.report.page import Section, Table


def make_missing(analysis: Analysis) -> Section:
    """Every cell that is missing, failed or foreign, and every file that cannot be read."""
    evidence = analysis.evidence
    said = f"{evidence.n_done:,} of {evidence.n_cells:,} runs count."
    if not evidence.problems:
        said = f"Nothing: {said}"
    elif evidence.n_done < evidence.n_cells:
        said += (
            " Where runs are missing, `ser-jax ablate` with the same configuration completes them, "
            "and the report with them."
        )
    return Section("missing", "What is missing", [said], items=evidence.problems)


def make_provenance(analysis: Analysis) -> Section:
    """Command, revision, versions, data, seeds, devices and configuration."""
    import yaml

    evidence = analysis.evidence
    results, cells = evidence.results, evidence.results["cells"]
    done = [cell for cell in cells if cell["status"] == "done"]
    versions = results.get("versions") or {}
    facts = {
        "command": f"`{results['command']}`" if results.get("command") else "",
        "git revision": _count(done, "revision") or results.get("git"),
        "recordings": f"{evidence.corpus}, classes {', '.join(evidence.labels) or 'not recorded'}",
        "checksum of the recordings": _count(done, "checksum"),
        "device": _count(done, "device"),
    }
    for protocol in evidence.protocols:
        seeds = {cell["seed"] for cell in done if cell["protocol"] == protocol}
        facts[f"seeds, {label(protocol)}"] = describe_seeds(sorted(seeds)) if seeds else "none done"
    facts["versions"] = ", ".join(f"{k} {v}" for k, v in versions.items() if k != "revision")
    rows = [[name, said or "not recorded"] for name, said in facts.items()]
    text = (
        "The command reproduces all results; `ser-jax report DIR` redraws the report from the "
        "files of its runs."
    )
    config, code = results.get("config"), ""
    if config:
        code = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=96)
    table = Table(["Fact", "As recorded"], rows, words=(0, 1))
    return Section("reproduce", "How to reproduce it", [text], tables=[table], code=code)


def _count(cells: list, key: str) -> str:
    """Values of the runs, each with how many have it, where they are not all the same."""
    counts = Counter(str(cell[key]) for cell in cells if cell.get(key) is not None)
    if len(counts) == 1 and sum(counts.values()) == len(cells):
        return next(iter(counts))
    return "; ".join(f"{value} ({n} of {len(cells)} runs)" for value, n in counts.items())
