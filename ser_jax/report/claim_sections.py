"""What a report says of the study's claims, and of augmentation setting by setting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ser_jax.errors import count_noun
from ser_jax.report.analysis import Analysis, format_p, format_points, format_range, list_columns
from ser_jax.report.claims import CLAIMS, judge_variants
from ser_jax.report.contrasts import Contrast
from ser_jax.report.document import Content, Drawn, Prose, Records, Section, Table
from ser_jax.report.markup import make_difference, make_pill
from ser_jax.report.rendering import to_inline
from ser_jax.report.verdicts import RULES, Finding


def make_claims(analysis: Analysis) -> tuple[list[Section], Records]:
    """The chapters on the study's claims; none for other recordings or systems than the study's."""
    if not analysis.findings:
        return [], {}
    verdicts, claims = _make_verdicts(analysis)
    augmentation, variants = make_augmentation(analysis)
    return [verdicts, augmentation], claims | variants


def _make_verdicts(analysis: Analysis) -> tuple[Section, Records]:
    """Every claim and its verdicts."""
    findings = {(f.key, f.protocol): f for f in analysis.findings}
    protocols = analysis.evidence.protocols
    reach = _find_reach(
        [f.weakest.contrast for f in analysis.findings if f.weakest and f.weakest.contrast.is_share]
    )
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
                 **(list_columns(part.contrast) if part else {}), "note": finding.reason}
                for part in (finding.parts or [None])
            ]  # fmt: skip
        inner = f'<div class="verdicts">{"".join(cells)}</div>'
        cards.append(f"<li><h3>{to_inline(text)}</h3>{inner}</li>")
    head = ["Claim", "Protocol", "Verdict", "Weakest difference", "Effect (points)",
            "95 % over seeds",
            "95 % over speakers", "p", "p (Holm)", "d_z", "n", "Note"]  # fmt: skip
    table = Table(head, lines, text_columns=(0, 1, 2, 3, 11))
    how = (
        "The line under a verdict is its weakest difference about zero: a dot, a thick bar for the "
        f"95 % interval over speakers, a thin one over seeds; the ends stand for "
        f"±{100 * reach:.0f} points."
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
        finding.weakest.name, format_points(c.effect, is_share=c.is_share),
        format_range(c.over_seeds, is_share=c.is_share),
        format_range(c.over_speakers, is_share=c.is_share), format_p(finding.p),
        format_p(finding.p_holm), size,
        _count(c), finding.reason,
    ]  # fmt: skip


def _count(contrast: Contrast) -> str:
    seeds = len(contrast.seeds)
    clips = f", {contrast.n:,} clips" if contrast.n else ""
    folds = f", {contrast.folds}" if contrast.folds else ""
    return f"{count_noun(seeds, 'seed')}{clips}{folds}"


def _make_card(finding: Finding, protocol: str, reach: float) -> str:
    weak = finding.verdict != "not decided" and not finding.survives
    head = (
        f"<h4><span>{to_inline(f'`{protocol}`')}</span>{make_pill(finding.verdict, weak=weak)}</h4>"
    )
    note = f"<p>{to_inline(finding.reason)}</p>" if finding.reason else ""
    if finding.weakest is None:
        return f'<div class="verdict">{head}{note}</div>'
    name, c = finding.weakest
    unit = " points" if c.is_share else ""
    said = f"{name}: {format_points(c.effect, is_share=c.is_share)}{unit}"
    ranges = [
        f"{format_range(interval, is_share=c.is_share)} over {what}"
        for interval, what in ((c.over_seeds, "seeds"), (c.over_speakers, "speakers"))
        if interval
    ]
    mark = ""
    if c.is_share:
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


def make_augmentation(analysis: Analysis) -> tuple[Section, Records]:
    """The claims about augmentation under what the study leaves open."""
    blocks: list[Content] = [
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
    for protocol in analysis.evidence.protocols:
        lines = []
        for normalise, when, row, findings in judge_variants(analysis.evidence, protocol):
            line = [normalise, when, f"`{row}`" if row else "not run"]
            for key, finding in findings.items():
                part = finding.weakest
                c = part.contrast if part else None
                effect = f"{format_points(c.effect)} {_choose_range(c)}" if c else ""
                line += [effect, finding.verdict]
                records.append(
                    {"normalise": normalise, "when": when, "row": row, "protocol": protocol,
                     "claim": key, "verdict": finding.verdict, "p": finding.p,
                     **(list_columns(c) if c else {"lacks": finding.reason})}
                )  # fmt: skip
            lines.append(line)
        caption = f"`{protocol}`: against CNN-LSTM without augmentation [95 % over speakers]"
        blocks.append(Table(head, lines, caption, text_columns=(0, 1, 2, 4, 6, 8)))
    return Section("augmentation", "Augmentation, setting by setting", blocks), {
        "augmentation": records
    }


def _choose_range(contrast: Contrast) -> str:
    return format_range(contrast.over_speakers or contrast.over_seeds)
