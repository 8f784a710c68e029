"""How a report writes figures, differences, counts and protocols."""

from __future__ import annotations

from collections.abc import Sequence

from ser_jax.errors import count_noun
from ser_jax.report.contrasts import Contrast
from ser_jax.report.scores import Score
from ser_jax.statistics import Interval, Mark

_PROTOCOLS = {
    "study": "the study's split (same speakers in training)",
    "emobox6": "EmoBox, six folds (unseen speakers)",
    "luna5": "Luna-Jiménez, five folds (unseen speakers)",
    "luna5_val2": "Luna-Jiménez, five folds, two validation actors (unseen speakers)",
    "loso": "leave one speaker out",
    "speakers": "speakers drawn 70:15:15 (unseen speakers)",
    "speakers5": "five folds of speakers (unseen speakers)",
    "cross_corpus": "trained on one corpus, tested on each (unseen speakers)",
}


def label(protocol: str) -> str:
    """A protocol's name and what it is."""
    return f"{protocol}: {_PROTOCOLS[protocol]}" if protocol in _PROTOCOLS else protocol


def format_mark(mark: Mark | None) -> str:
    """`0.463`, and `[0.421, 0.505]` on a second line."""
    if mark is None:
        return "-"
    if mark.interval is None:
        return f"{mark.mean:.3f}"
    low, high = (min(max(x, 0.0), 1.0) for x in mark.interval)  # a share lies between 0 and 1
    return f"{mark.mean:.3f}\n[{low:.3f}, {high:.3f}]"


def format_worst(score: Score) -> str:
    """`0.412`, and `(seed 7)` on a second line."""
    return f"{score.worst.accuracy:.3f}\n(seed {score.worst.seed})"


def format_count(score: Score) -> str:
    """`3 seeds`, `216 clips` on a second line, and the folds if not all count."""
    starred = "*" if score.over == "speakers" else ""
    folds = f",\n{score.folds}" if score.folds else ""
    return f"{count_noun(len(score.seeds), 'seed')}{starred}\n{score.n:,} clips{folds}"


def format_points(value: float, *, is_share: bool = True) -> str:
    """A difference of shares in percentage points; anything else as it is."""
    text = f"{100 * value:+.1f}" if is_share else f"{value:+.3f}"
    return text.replace("-", "\u2212")


def format_range(interval: Interval | None, *, is_share: bool = True) -> str:
    """`[+1.0, +11.2]`, in the same units."""
    if interval is None:
        return ""
    low, high = (format_points(end, is_share=is_share) for end in interval)
    return f"[{low}, {high}]"


def format_detectable(contrast: Contrast) -> str:
    """`3.2 points with 20 seeds`, detected with power 0.8; "" where that is unknown.

    Shares cannot differ by more than 100 points, so beyond them stands `> 100`.
    """
    size = contrast.detectable
    if size is None:
        return ""
    text = f"{size:.3f}"
    if contrast.is_share:
        text = "> 100 points" if size > 1 else f"{100 * size:.1f} points"
    return f"{text} with {count_noun(len(contrast.seeds), 'seed')}"


def format_p(p: float | None) -> str:
    """`0.034`, `< 0.001`."""
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def describe_seeds(seeds: Sequence[int]) -> str:
    """`seed 0`, `seeds 0 to 4`, `seeds 0, 2`."""
    seeds = sorted(seeds)
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def list_columns(contrast: Contrast) -> dict[str, object]:
    """A contrast as columns of a CSV file, shares in full precision."""
    seeds_low, seeds_high = contrast.over_seeds or (None, None)
    speakers_low, speakers_high = contrast.over_speakers or (None, None)
    return {
        "effect": None if contrast.lack else contrast.effect,
        "seeds_low": seeds_low, "seeds_high": seeds_high,
        "speakers_low": speakers_low, "speakers_high": speakers_high,
        "p_t": contrast.p_t, "p_sign_flip": contrast.p_flip, "p_speakers": contrast.p_speakers,
        "cohens_dz": contrast.size, "detectable": contrast.detectable,
        "seeds": " ".join(map(str, contrast.seeds)),
        "clips": contrast.n or None, "folds": contrast.folds, "lacks": contrast.lack,
    }  # fmt: skip
