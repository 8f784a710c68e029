"""Which speakers validate and test: drawn, or left out one by one, whatever the corpus."""

import numpy as np

from ser_jax.errors import check

DRAWN = {"speakers": 1, "speakers5": 5}
"""Protocols that draw speakers, and their folds."""
_PART = 0.15  # of all speakers, for validation and for test each


def choose_speakers(
    protocol: str, fold: int, seed: int, actor_B: np.ndarray, stratum_B: np.ndarray | None
) -> tuple[list[int], list[int]]:
    """The speakers of validation and of test; the others train. See `splits.make_split`.

    Raises:
      UserError: too few speakers.
    """
    order = _order_speakers(seed if protocol in DRAWN else None, actor_B, stratum_B)
    least = max(3, DRAWN.get(protocol, 0))
    check(
        len(order) >= least,
        f"data.protocol={protocol}: needs at least {least} speakers, and there "
        f"{'is' if len(order) == 1 else 'are'} {len(order)}; add speakers, join corpora "
        "(data.corpus=joined), or take data.protocol=study, where a speaker is in all parts",
    )
    n_part = max(1, round(_PART * len(order)))
    if protocol == "speakers":
        return order[n_part : 2 * n_part], order[:n_part]
    if protocol in DRAWN:
        blocks = np.array_split(order, DRAWN[protocol])
        return blocks[fold % len(blocks)].tolist(), blocks[fold - 1].tolist()
    place = order.index(sorted(order)[fold - 1])
    cycle = order[place + 1 :] + order[:place]
    return cycle[:n_part], [order[place]]


def _order_speakers(
    seed: int | None, actor_B: np.ndarray, stratum_B: np.ndarray | None
) -> list[int]:
    """Speakers in an order of which each stretch has its share of each stratum.

    Args:
      seed: of the draw; None: in the order of their numbers.
      actor_B, stratum_B: see `splits.make_split`.
    """
    actors, first = np.unique(actor_B, return_index=True)
    stratum = np.full(len(actors), "") if stratum_B is None else np.asarray(stratum_B)[first]
    if seed is not None:
        order = np.random.default_rng(seed).permutation(len(actors))
        actors, stratum = actors[order], stratum[order]
    place = np.zeros(len(actors))
    for value in np.unique(stratum):
        here = stratum == value
        place[here] = (np.arange(here.sum()) + 0.5) / here.sum()
    return actors[np.argsort(place, kind="stable")].tolist()
