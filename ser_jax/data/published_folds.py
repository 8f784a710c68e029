"""The published folds of RAVDESS's actors: who tests, and who validates."""

from ser_jax.data.cross_corpus import CROSS_CORPUS
from ser_jax.data.speakers import DRAWN
from ser_jax.errors import check

_N_ACTORS = 24
_LUNA_ACTORS = (
    (2, 5, 14, 15, 16), (3, 6, 7, 13, 18), (10, 11, 12, 19, 20), (8, 17, 21, 23, 24), (1, 4, 9, 22),
)  # fmt: skip
# Test actors of each fold. Sources: EmoBox (Ma et al. 2024), Luna-Jimenez et al. (2021).
_TEST_ACTORS = {
    "emobox6": (
        (1, 11, 20, 21), (4, 10, 12, 14), (8, 9, 19, 23),
        (3, 5, 7, 24), (2, 15, 16, 18), (6, 13, 17, 22),
    ),
    "luna5": _LUNA_ACTORS,
    "luna5_val2": _LUNA_ACTORS,
    "loso": tuple((actor,) for actor in range(1, _N_ACTORS + 1)),
}  # fmt: skip
# Validation actors of each fold, where the next fold's test actors are not they. Source:
# Krasnoproshin and Vashkevich (2026).
_VAL_ACTORS = {"luna5_val2": ((3, 6), (10, 11), (8, 17), (1, 14), (2, 5))}


def get_test_actors(protocol: str) -> tuple[tuple[int, ...], ...]:
    """The test actors of each fold.

    Raises:
      UserError: no such protocol.
    """
    check(
        protocol in _TEST_ACTORS,
        f"data.protocol={protocol}: no such protocol; known are "
        f"{', '.join(['study', *_TEST_ACTORS, *DRAWN, 'given', CROSS_CORPUS])}",
    )
    return _TEST_ACTORS[protocol]


def get_val_actors(protocol: str, fold: int) -> tuple[int, ...]:
    """The published ones, or else the next fold's test actors; for loso the next two odd and two
    even actors, cyclically."""
    if protocol in _VAL_ACTORS:
        return _VAL_ACTORS[protocol][fold - 1]
    if protocol == "loso":  # odd and even alternate, so these are the next four
        return tuple((fold + step) % _N_ACTORS + 1 for step in range(4))
    folds = get_test_actors(protocol)
    return folds[fold % len(folds)]
