"""What a report says of the study's claims, and of augmentation setting by setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ser_jax.errors import count_noun
from ser_jax.report.analysis import Analysis
from ser_jax.report.claims import CLAIMS, judge_variants
from ser_jax.report.contrasts import Contrast
from ser_jax.report.formats import (
    format_detectable,
    format_p,
    format_points,
    format_range,
    list_columns,
)
from ser_jax.report.page import Records, Section, Table
from ser_jax.report.verdicts import DETECTABLE, RULES, Finding

_HEAD = ("Claim", "Protocol", "Verdict", "Weakest difference", "Effect (points)",
         "95 % over seeds", "95 % over speakers", "p", "p (Holm)", "d_z",
         "Detectable at power 0.8", "n", "Note")  # fmt: skip


def make_claims(analysis: Analysis) -> Section | None:
    """Every claim and its verdicts: as cards on the page, as a table in Markdown.

    None for other recordings or systems than the study's.
    """
    if not analysis.findings:
        return None
    findings = {(f.key, f.protocol): f for f in analysis.findings}
    cards: list[dict[str, Any]] = []
    records: Records = []
    for key, text in CLAIMS.items():
        here = [findings[key, protocol] for protocol in analysis.evidence.protocols]
        cards.append({"text": text, "verdicts": [_make_card(finding) for finding in here]})
        records += [record for finding in here for record in _list_records(finding)]
    rows = [list(card["cells"].values()) for claim in cards for card in claim["verdicts"]]
    reach = _find_reach([f.weakest.contrast for f in analysis.findings if f.weakest])
    how = (
        "The line under a verdict is its weakest difference about zero: a dot, a thick bar for the "
        "95 % interval over speakers, a thin one over seeds; the ends of the line stand for "
        f"±{100 * reach:.0f} points."
    )
    table = Table(_HEAD, rows, words=(0, 1, 2, 3, 12))
    claims = {"cards": cards, "reach": reach, "table": table}
    return Section(
        "claims", "The study's claims", claims=claims, notes=[how, RULES, DETECTABLE],
        records={"claims": records},
    )  # fmt: skip


def _find_reach(contrasts: Sequence[Contrast]) -> float:
    """What the ends of the lines stand for: a multiple of ten points that holds nearly all."""
    shares = [c for c in contrasts if c.is_share]
    ends = [abs(x) for c in shares for i in (c.over_seeds, c.over_speakers) if i for x in i]
    most = max(float(np.percentile(ends, 90)), *(abs(c.effect) for c in shares)) if ends else 0.1
    return min(1.0, max(0.1, np.ceil(10 * most) / 10))


def _make_card(finding: Finding) -> dict[str, Any]:
    """One claim under one protocol: `cells` of its row, and what the page's card adds."""
    cells = dict.fromkeys(_HEAD, "")
    verdict = finding.verdict + " †" * finding.is_weak
    cells |= {"Claim": CLAIMS[finding.key], "Protocol": finding.protocol, "Verdict": verdict}
    card = {
        "cells": cells, "protocol": finding.protocol, "verdict": finding.verdict,
        "weak": finding.is_weak, "contrast": None,
    }  # fmt: skip
    cells["Note"] = finding.reason
    if finding.weakest is None:
        return card
    name, c = finding.weakest
    seeds, speakers = (
        format_range(interval, is_share=c.is_share) for interval in (c.over_seeds, c.over_speakers)
    )
    size = "" if c.size is None else f"{c.size:.2f}".replace("-", "\u2212")
    cells |= {
        "Weakest difference": name, "Effect (points)": format_points(c.effect, is_share=c.is_share),
        "95 % over seeds": seeds, "95 % over speakers": speakers, "p": format_p(finding.p),
        "p (Holm)": format_p(finding.p_holm), "d_z": size,
        "Detectable at power 0.8": format_detectable(c), "n": _count(c),
    }  # fmt: skip
    values = {"p": finding.p, "Holm": finding.p_holm, "sign flip": c.p_flip}
    facts = [f"{name} {_equate(p)}" for name, p in values.items() if p is not None]
    ranges = [f"{seeds} over seeds"] * bool(seeds) + [f"{speakers} over speakers"] * bool(speakers)
    facts += [f"d_z {size}"] * bool(size)
    return card | {"contrast": c, "facts": ", ".join(facts), "ranges": "; ".join(ranges)}


def _equate(p: float) -> str:
    text = format_p(p)
    return text if text.startswith("<") else f"= {text}"


def _count(contrast: Contrast) -> str:
    clips = f", {contrast.n:,} clips" if contrast.n else ""
    folds = f", {contrast.folds}" if contrast.folds else ""
    return f"{count_noun(len(contrast.seeds), 'seed')}{clips}{folds}"


def _list_records(finding: Finding) -> Records:
    """A row for each difference of a claim; one that has none has one row."""
    return [
        {"claim": finding.key, "text": CLAIMS[finding.key], "protocol": finding.protocol,
         "verdict": finding.verdict, "p": finding.p, "p_holm": finding.p_holm,
         "survives_holm": finding.survives, "part": part and part.name,
         "shown": part is finding.weakest, **(list_columns(part.contrast) if part else {}),
         "note": finding.reason}
        for part in (finding.parts or [None])
    ]  # fmt: skip


def make_augmentation(analysis: Analysis) -> Section | None:
    """The claims about augmentation under what the study leaves open."""
    if not analysis.findings:
        return None
    text = (
        "The study does not say whether a clip is scaled to peak 1 before noise is added "
        "(`augment.normalise`), nor whether clips are augmented once or anew in each epoch "
        "(`augment.when`). The noise is as loud as the quieter clips, so both may decide its "
        "claims."
    )
    head = ["normalise", "when", "System", "worse by (points)", "verdict", "calm more often by",
            "verdict", "women over men", "verdict"]  # fmt: skip
    tables, records = [], []
    for protocol in analysis.evidence.protocols:
        rows = []
        for normalise, when, system, findings in judge_variants(analysis.evidence, protocol):
            row = [normalise, when, f"`{system}`" if system else "not run"]
            for key, finding in findings.items():
                c = finding.weakest.contrast if finding.weakest else None
                over = format_range((c.over_speakers or c.over_seeds) if c else None)
                row += [f"{format_points(c.effect)}\n{over}" if c else "", finding.verdict]
                records.append(
                    {"normalise": normalise, "when": when, "row": system, "protocol": protocol,
                     "claim": key, "verdict": finding.verdict, "p": finding.p,
                     **(list_columns(c) if c else {"lacks": finding.reason})}
                )  # fmt: skip
            rows.append(row)
        caption = f"`{protocol}`: against CNN-LSTM without augmentation [95 % over speakers]"
        tables.append(Table(head, rows, caption, (0, 1, 2, 4, 6, 8)))
    title = "Augmentation, setting by setting"
    return Section("augmentation", title, [text], tables=tables, records={"augmentation": records})
