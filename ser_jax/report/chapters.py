"""What a report says: summary, Table 1, claims, what leakage is worth, cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ser_jax.report.claims import ALPHA, CLAIMS, RULES, Finding, judge_variants
from ser_jax.report.contrasts import Contrast, Term, compute_contrast
from ser_jax.report.document import Block, Drawn, Items, Picture, Prose, Section, Table, to_inline
from ser_jax.report.marks import (
    Tile,
    make_difference,
    make_forest,
    make_pill,
    make_tiles,
)
from ser_jax.report.material import (
    SHARED,
    Material,
    format_count,
    format_mark,
    format_p,
    format_points,
    format_range,
    label,
    make_record,
)
from ser_jax.report.tables import FIGURES

Records = dict[str, list[dict[str, Any]]]
_VERDICTS = ("holds", "does not hold", "not decided")
_SIZES = {"units": ("", "K", "M", "G")}


def make_summary(material: Material, leakage: dict[str, list[tuple[str, Contrast]]]) -> list[Block]:
    """What a reader wants first."""
    tiles, evidence = [], material.evidence
    for protocol in evidence.protocols:
        if best := _find_best(material, protocol):
            score = material.scores[best, protocol]
            folds = f", {score.folds}" if score.folds else ""
            note = f"{best}, {len(score.seeds)} seed{'s'[: len(score.seeds) != 1]}{folds}"
            accuracy = 100 * score.marks["accuracy"].mean
            tiles.append(Tile(f"{accuracy:.1f} %", f"best accuracy, `{protocol}`", note))
    for protocol, found in leakage.items():
        if found:
            effects = [contrast.effect for _, contrast in found]
            note = f"points, mean of {len(found)} systems over `{protocol}`"
            tiles.append(Tile(format_points(float(np.mean(effects))), "known speakers add", note))
    for protocol in evidence.protocols:
        verdicts = [f.verdict for f in material.findings if f.protocol == protocol]
        counts = [str(verdicts.count(v)) for v in _VERDICTS]
        tiles.append(Tile(" / ".join(counts), f"claims, `{protocol}`", "hold / do not / open"))
    absent = evidence.n_cells - evidence.n_done
    note = f"{absent} missing or failed" if absent else "all that the grid asks for"
    tiles.append(Tile(f"{evidence.n_done:,} of {evidence.n_cells:,}", "runs done", note))
    lines = []
    for protocol in evidence.protocols:
        for verdict in _VERDICTS:
            claims = [
                CLAIMS[f.key].rstrip(".") + ("" if f.survives or verdict == "not decided" else " †")
                for f in material.findings
                if f.protocol == protocol and f.verdict == verdict
            ]
            if claims and verdict == "not decided":
                lines.append(f"`{protocol}`, not decided: the other {len(claims)} claims.")
            elif claims:
                what = f"`{protocol}`, {verdict.replace('holds', 'hold')}"
                lines.append(f"{what.replace('does not', 'do not')}: {'; '.join(claims)}.")
    missing = [Prose(f"Missing: {evidence.problems[0]}.")] if len(evidence.problems) == 1 else []
    if len(evidence.problems) > 1:
        missing = [Prose(f"{len(evidence.problems)} things are missing or amiss; see the list.")]
    instead = Table(
        ("", "", ""), [(t.label, t.value, t.note) for t in tiles], text_columns=(0, 1, 2)
    )
    return [Drawn(make_tiles(tiles), [instead]), Items(lines), *missing]


def _find_best(material: Material, protocol: str) -> str | None:
    """The system of greatest accuracy; those of all folds before those of some."""
    scores = {s: score for (s, p), score in material.scores.items() if p == protocol}
    return max(
        scores,
        key=lambda s: (not scores[s].folds, scores[s].marks["accuracy"].mean),
        default=None,
    )


def make_overview(material: Material) -> Section:
    """Every system on one line."""
    protocols = material.evidence.protocols
    rows = []
    for system in material.ranking:
        scores = {
            p: material.scores[system, p] for p in protocols if (system, p) in material.scores
        }
        marks = {p: score.marks["accuracy"] for p, score in scores.items()}
        notes = [f"{p}: {score.folds}" for p, score in scores.items() if score.folds]
        rows.append((system, marks, ", ".join(notes) or ("" if scores else "no result")))
    study = {name: figures["accuracy"] for name, figures in material.study.items()}
    markup = make_forest(rows, material.protocols, study, material.chance)
    alt = "Accuracy of every system under every protocol; Table 1 has the figures"
    over = (
        "Dots are means over seeds, bars 95 % intervals: over seeds (Student's t) or, of a single "
        "seed, over speakers (bootstrap). Diamonds are what the study published."
    )
    blocks = [Drawn(markup, [Picture("systems", alt)]), Prose(over, "note")]
    return Section("systems", "All systems at a glance", blocks)


def make_table_1(material: Material) -> tuple[Section, Records]:
    """The study's figures beside ours."""
    protocols = material.evidence.protocols
    head = ["System", "accuracy\npublished", "weighted F1\npublished"]
    for protocol in protocols:
        head += [f"accuracy\n`{protocol}`", f"weighted F1\n`{protocol}`", f"n\n`{protocol}`"]
    lines, records = [], []
    for system in material.ranking:
        published = material.study.get(system, {})
        line = [f"`{system}`"]
        line += [f"{published[f]:.4f}" if f in published else "" for f in FIGURES[:2]]
        for protocol in protocols:
            score = material.scores.get((system, protocol))
            line += [format_mark(score.marks[f] if score else None) for f in FIGURES[:2]]
            line.append(format_count(score) if score else "no result")
            records.append(_make_score_record(material, system, protocol))
        lines.append(line)
    starred = any(score.over == "speakers" for score in material.scores.values())
    note = "Mean over seeds [95 % interval over seeds]; n: seeds, test clips of one. "
    note += "`tables/table_1.csv` has unweighted average recall (UAR) too."
    note += " *: one seed; its interval is over speakers, by bootstrap." * starred
    blocks: list[Block] = [
        Prose(
            "The study's Table 1 beside what its systems, those that it cites and our own reach "
            "here. The study gives one seed, one split and no interval."
        ),
        Table(head, lines, note),
    ]
    roles = material.roles.plain
    if "wav2vec2" in roles and roles["wav2vec2"] != "wav2vec2" and material.study:
        blocks.append(
            Prose(
                f"`{roles['wav2vec2']}` stands in the study's wav2vec 2.0 row, but is a much "
                "smaller network; the study fine-tuned facebook/wav2vec2-base-960h.", "note",
            )
        )  # fmt: skip
    return Section("table-1", "Table 1", blocks), {"table_1": records}


def _make_score_record(material: Material, system: str, protocol: str) -> dict[str, Any]:
    score = material.scores.get((system, protocol))
    record: dict[str, Any] = {"system": system, "protocol": protocol}
    for figure in FIGURES:
        mark = score.marks[figure] if score else None
        low, high = (mark.interval if mark else None) or (None, None)
        record |= {figure: mark and mark.mean, f"{figure}_low": low, f"{figure}_high": high}
    published = material.study.get(system, {})
    return record | {
        "interval_over": score.over if score else None,
        "seeds": " ".join(map(str, score.seeds)) if score else "",
        "clips": score.n if score else None,
        "folds": score.folds if score else "",
        **{f"study_{figure}": published.get(figure) for figure in FIGURES[:2]},
    }


def make_claims(material: Material) -> tuple[Section, Records]:
    """Every claim and its verdicts."""
    findings = {(f.key, f.protocol): f for f in material.findings}
    protocols = material.evidence.protocols
    reach = _find_reach([f.weakest.contrast for f in material.findings if f.weakest])
    cards, lines, records = [], [], []
    for key, text in CLAIMS.items():
        cells = []
        for protocol in protocols:
            finding = findings[key, protocol]
            cells.append(_make_card(finding, protocol, reach))
            lines.append([text, protocol, _name_verdict(finding), *_make_cells(finding)])
            records += [
                {"claim": key, "text": text, "protocol": protocol, "verdict": finding.verdict,
                 "p": finding.p, "p_holm": finding.p_holm, "survives_holm": finding.survives,
                 "part": part and part.name, "shown": part is finding.weakest,
                 **(make_record(part.contrast) if part else {}), "note": finding.reason}
                for part in (finding.parts or [None])
            ]  # fmt: skip
        inner = f'<div class="verdicts">{"".join(cells)}</div>'
        cards.append(f"<li><h3>{to_inline(text)}</h3>{inner}</li>")
    head = ["Claim", "Protocol", "Verdict", "Weakest difference", "Points", "95 % over seeds",
            "95 % over speakers", "p", "p (Holm)", "d_z", "n", "Note"]  # fmt: skip
    table = Table(head, lines, text_columns=(0, 1, 2, 3, 11))
    how = (
        "The line under a verdict is its weakest difference about zero: a dot, a thick bar for the "
        f"95 % interval over speakers, a thin one over seeds; the ends stand for ±{100 * reach:.0f} "
        "points."
    )
    blocks = [
        Drawn(f'<ol class="claims">{"".join(cards)}</ol>', [table]),
        Prose(how, "note"),
        Prose(RULES, "note"),
    ]
    return Section("claims", "The study's claims", blocks), {"claims": records}


def _find_reach(contrasts: Sequence[Contrast]) -> float:
    """What the ends of the lines stand for: a multiple of ten points that holds nearly all."""
    ends = [abs(x) for c in contrasts for i in (c.over_seeds, c.over_speakers) if i for x in i]
    most = max(float(np.percentile(ends, 90)), *(abs(c.effect) for c in contrasts)) if ends else 0.1
    return min(1.0, max(0.1, np.ceil(10 * most) / 10))


def _name_verdict(finding: Finding) -> str:
    weak = finding.verdict != "not decided" and not finding.survives
    return finding.verdict + (" †" if weak else "")


def _make_cells(finding: Finding) -> list[str]:
    if finding.weakest is None:
        return ["", "", "", "", "", "", "", "", finding.reason]
    c = finding.weakest.contrast
    size = "" if c.size is None else f"{c.size:.2f}"
    return [
        finding.weakest.name, format_points(c.effect), format_range(c.over_seeds),
        format_range(c.over_speakers), format_p(finding.p), format_p(finding.p_holm), size,
        _count(c), finding.reason,
    ]  # fmt: skip


def _count(contrast: Contrast) -> str:
    seeds = len(contrast.seeds)
    clips = f", {contrast.n:,} clips" if contrast.n else ""
    folds = f", {contrast.folds}" if contrast.folds else ""
    return f"{seeds} seed{'s' if seeds != 1 else ''}{clips}{folds}"


def _make_card(finding: Finding, protocol: str, reach: float) -> str:
    weak = finding.verdict != "not decided" and not finding.survives
    head = (
        f"<h4><span>{to_inline(f'`{protocol}`')}</span>{make_pill(finding.verdict, weak=weak)}</h4>"
    )
    note = f"<p>{to_inline(_capitalise(finding.reason))}</p>" if finding.reason else ""
    if finding.weakest is None:
        return f'<div class="verdict">{head}{note}</div>'
    name, c = finding.weakest
    said = f"{name}: {format_points(c.effect)} points"
    ranges = [
        f"{format_range(interval)} over {what}"
        for interval, what in ((c.over_seeds, "seeds"), (c.over_speakers, "speakers"))
        if interval
    ]
    mark = make_difference(c.effect, c.over_seeds, c.over_speakers, reach, said)
    facts = [f"p {_with_sign(finding.p)}", f"Holm {_with_sign(finding.p_holm)}"]
    facts += [f"sign flip {_with_sign(c.p_flip)}"] if c.p_flip is not None else []
    facts += [f"d_z {c.size:.2f}".replace("-", "\u2212")] if c.size is not None else []
    kind = {"holds": "holds", "does not hold": "fails"}.get(finding.verdict, "open")
    return (
        f'<div class="verdict">{head}<div class="{kind}">{mark}</div>'
        f'<p class="effect">{to_inline(said)} {"; ".join(ranges)}</p>'
        f"<p>{', '.join(map(to_inline, facts))}; n = {_count(c)}</p>{note}</div>"
    )


def _with_sign(p: float | None) -> str:
    text = format_p(p)
    return text if text.startswith("<") else f"= {text}"


def _capitalise(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def make_augmentation(material: Material) -> tuple[Section, Records]:
    """The claims about augmentation under what the study leaves open."""
    blocks: list[Block] = [
        Prose(
            "The study does not say whether a clip is scaled to peak 1 before noise is added "
            "(`augment.normalise`), nor whether clips are changed once or anew in each epoch "
            "(`augment.when`). The noise is as loud as the quieter clips, so both may decide its "
            "claims."
        )
    ]
    records = []
    head = ["normalise", "when", "Row", "worse by (points)", "", "calm more often by", "",
            "women over men", ""]  # fmt: skip
    for protocol in material.evidence.protocols:
        lines = []
        for normalise, when, row, findings in judge_variants(material.evidence, protocol):
            line = [normalise, when, f"`{row}`" if row else "not run"]
            for key, finding in findings.items():
                part = finding.weakest
                c = part.contrast if part else None
                effect = f"{format_points(c.effect)} {_choose_range(c)}" if c else ""
                line += [effect, finding.verdict]
                records.append(
                    {"normalise": normalise, "when": when, "row": row, "protocol": protocol,
                     "claim": key, "verdict": finding.verdict, "p": finding.p,
                     **(make_record(c) if c else {"lacks": finding.reason})}
                )  # fmt: skip
            lines.append(line)
        caption = f"`{protocol}`: against CNN-LSTM without augmentation [95 % over speakers]"
        blocks.append(Table(head, lines, caption, text_columns=(0, 1, 2, 4, 6, 8)))
    return Section("augmentation", "Augmentation, setting by setting", blocks), {
        "augmentation": records
    }


def _choose_range(contrast: Contrast) -> str:
    return format_range(contrast.over_speakers or contrast.over_seeds)


def compute_leakage(material: Material) -> dict[str, list[tuple[str, Contrast]]]:
    """For each speaker-independent protocol, what each system gains by the study's split."""
    protocols = material.evidence.protocols
    if SHARED not in protocols:
        return {}
    found = {}
    for protocol in protocols:
        if protocol == SHARED:
            continue
        contrasts = [
            (
                system,
                compute_contrast(
                    material.evidence, [Term(1, system, SHARED), Term(-1, system, protocol)]
                ),
            )
            for system in material.ranking
        ]
        found[protocol] = [(system, c) for system, c in contrasts if not c.lack]
    return found


def make_leakage(
    material: Material, leakage: dict[str, list[tuple[str, Contrast]]]
) -> tuple[Section, Records]:
    """The same system with known and with unseen speakers."""
    blocks: list[Block] = [
        Prose(
            "In the study's split the same people speak in training and test. What that is worth "
            "is the accuracy of a system under it less that of the same system on unseen speakers."
        )
    ]
    records = []
    for protocol, found in leakage.items():
        lines = []
        for system, c in found:
            pair = [material.scores[system, p].marks["accuracy"] for p in (SHARED, protocol)]
            lines.append([
                f"`{system}`", *(f"{mark.mean:.3f}" for mark in pair), format_points(c.effect),
                format_range(c.over_speakers), format_range(c.over_seeds), format_p(c.p),
                f"{_join_seeds(material, system, protocol)}{c.folds and f', {c.folds}'}",
            ])  # fmt: skip
            record = {"system": system, "protocol": protocol, "known": pair[0].mean}
            records.append(record | {"unseen": pair[1].mean, **make_record(c)})
        head = ["System", SHARED, protocol, "Difference (points)", "95 % over speakers",
                "95 % over seeds", "p", "n (seeds)"]  # fmt: skip
        blocks.append(Table(head, lines, f"`{SHARED}` against {label(protocol)}"))
    if not leakage:
        blocks = [Prose("Needs the study's split and a speaker-independent protocol in one grid.")]
    return Section("leakage", "What leakage is worth", blocks), {"leakage": records}


def _join_seeds(material: Material, system: str, protocol: str) -> str:
    return " and ".join(str(len(material.scores[system, p].seeds)) for p in (SHARED, protocol))


def make_cost(material: Material) -> tuple[Section, Records]:
    """Wall time, parameters and device of every row."""
    lines, records = [], []
    for system in material.ranking:
        for protocol in material.evidence.protocols:
            row = material.evidence.get(system, protocol)
            if row is None:
                continue
            cells = [cell for cell in row.cells if (cell["seed"], cell["fold"]) in row.clips]
            seconds = [cell["seconds"] for cell in cells if cell.get("seconds") is not None]
            facts = {
                key: sorted({str(cell[key]) for cell in cells if cell.get(key) is not None})
                for key in ("parameters", "trained_parameters", "device", "epochs", "revision")
            }
            run_s, all_s = (f(seconds) if seconds else None for f in (np.mean, np.sum))
            same = facts["trained_parameters"] in ([], facts["parameters"])
            trained = "" if same else f" ({_join_numbers(facts['trained_parameters'])} trained)"
            lines.append([
                f"`{system}`", protocol, _join_numbers(facts["parameters"]) + trained,
                _format_seconds(run_s), _format_seconds(all_s), str(len(cells)),
                ", ".join(facts["epochs"]) or "-", "; ".join(facts["device"]) or "not recorded",
            ])  # fmt: skip
            records.append({
                "system": system, "protocol": protocol, "seconds_per_run": run_s,
                "seconds": all_s, "runs": len(cells),
                **{key: "; ".join(values) for key, values in facts.items()},
            })  # fmt: skip
    head = ["System", "Protocol", "Parameters", "Wall time of a run", "of all runs", "Runs",
            "Epochs", "Device"]  # fmt: skip
    note = "As each run recorded it. Runs trained together share the wall time equally."
    return Section("cost", "What each row costs", [Table(head, lines, note, (0, 1, 7))]), {
        "cost": records
    }


def _join_numbers(numbers: Sequence[str]) -> str:
    return ", ".join(f"{int(n):,}" for n in numbers) or "-"


def _format_seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
