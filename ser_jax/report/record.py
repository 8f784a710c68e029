"""What is missing, and how results were made, as the runs recorded it."""

from __future__ import annotations

from collections import Counter

from ser_jax.report.analysis import Analysis, describe_seeds, label
from ser_jax.report.document import Code, Content, Items, Prose, Section, Table


def make_missing(analysis: Analysis) -> Section:
    """Every cell that is missing, failed or foreign, and every file that cannot be read."""
    evidence = analysis.evidence
    absent = evidence.n_cells - evidence.n_done
    said = f"{evidence.n_done:,} of {evidence.n_cells:,} runs count"
    if not evidence.problems:
        return Section("missing", "What is missing", [Prose(f"Nothing: {said}.")])
    how = (
        f"{said}. Where runs are missing, `ser-jax ablate` with the same configuration completes "
        "them, and the report with them."
    )
    blocks: list[Content] = [Prose(how if absent else f"{said}."), Items(evidence.problems)]
    return Section("missing", "What is missing", blocks)


def make_provenance(analysis: Analysis) -> Section:
    """Command, revision, versions, data, seeds, devices and configuration."""
    results, cells = analysis.evidence.results, analysis.evidence.results["cells"]
    done = [cell for cell in cells if cell["status"] == "done"]
    seeds = {
        protocol: sorted({cell["seed"] for cell in done if cell["protocol"] == protocol})
        for protocol in analysis.evidence.protocols
    }
    lines = [
        ["command", f"`{results['command']}`" if results.get("command") else "not recorded"],
        ["git revision", _count(done, "revision") or results.get("git") or "not recorded"],
        [
            "recordings",
            f"{analysis.evidence.corpus}, classes "
            f"{', '.join(analysis.evidence.labels) or 'not recorded'}",
        ],
        ["checksum of the recordings", _count(done, "checksum") or "not recorded"],
        ["device", _count(done, "device") or "not recorded"],
    ]
    for protocol, found in seeds.items():
        said = describe_seeds(found) if found else "none done"
        lines.append([f"seeds, {label(protocol)}", said])
    versions = results.get("versions") or {}
    known = ", ".join(f"{name} {v}" for name, v in versions.items() if name != "revision")
    lines.append(["versions", known or "not recorded"])
    blocks: list[Content] = [
        Prose(
            "The command makes all of this again; `ser-jax report DIR` draws the report anew from "
            "what the runs have left."
        ),
        Table(["Fact", "As recorded"], lines, text_columns=(0, 1)),
    ]
    if results.get("config"):
        blocks.append(Code(_to_yaml(results["config"]), "The whole configuration (YAML)"))
    return Section("reproduce", "How to make it again", blocks)


def _count(cells: list, key: str) -> str:
    """Values of the runs, each with how many have it, where they are not all the same."""
    counts = Counter(str(cell[key]) for cell in cells if cell.get(key) is not None)
    if len(counts) == 1 and sum(counts.values()) == len(cells):
        return next(iter(counts))
    return "; ".join(f"{value} ({n} of {len(cells)} runs)" for value, n in counts.items())


def _to_yaml(config: object) -> str:
    import yaml

    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=96)
