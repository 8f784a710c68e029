"""The four augmentations, with equal keys: all clips at once on the device, one by one on CPU."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.sections.right.checks import Check, Places, run_on
from benchmarks.sections.right.features import RATE_HZ, draw_clips
from ser_jax.augment import waveform
from ser_jax.config import AugmentConfig

Clip = Callable[[Any, Any, Any, Any], Any]
"""(key, wave_N, length, amount) -> wave_N"""


def _make_clip(kind: str, sequential: bool) -> Clip:
    """One augmentation, by an amount between -1 and 1 of its range, or all four."""
    rates: dict[str, Any] = {"rate_hz": RATE_HZ, "sequential": sequential}
    if kind == "all four":
        augmenter = waveform.make_augmenter(AugmentConfig(), RATE_HZ, sequential=sequential)
        return lambda key, x, length, amount: augmenter(key, x, length, jnp.float32(1))
    if kind == "noise":
        return lambda key, x, length, amount: waveform.add_noise(key, x, 0.01)
    if kind == "stretch":
        return lambda key, x, length, amount: waveform.stretch(x, length, 1 + 0.2 * amount, **rates)
    if kind == "pitch":
        return lambda key, x, length, amount: waveform.shift_pitch(
            x, length, 4 * amount, max_semitones=4.0, **rates
        )
    return lambda key, x, length, amount: waveform.shift_time(
        x, length, (amount * 0.4 * RATE_HZ).astype(int), True, rate_hz=RATE_HZ
    )


def _compare(places: Places, kind: str) -> tuple[Any, Any]:
    wave_BN, length_B = draw_clips(2 if places.dry else 8, 8000 if places.dry else 5 * RATE_HZ)
    amount_B = np.linspace(-0.9, 0.8, len(wave_BN), dtype=np.float32)
    arguments = np.arange(len(wave_BN)), wave_BN, length_B, amount_B

    def augment(sequential: bool, *arguments: Any) -> Any:
        one = _make_clip(kind, sequential)

        def of_number(number: Any, *rest: Any) -> Any:
            return one(jax.random.fold_in(jax.random.key(0), number), *rest)

        if sequential:
            return jax.lax.map(lambda clip: of_number(*clip), arguments)
        return jax.vmap(of_number)(*arguments)

    found = run_on(places.device, partial(augment, False), *arguments)
    return found, run_on(places.cpu, partial(augment, True), *arguments)


def list_checks(places: Places) -> list[list[Check]]:
    """Each of the four, then all.

    Both forms are equal in exact arithmetic. A vocoder adds up phases, whose rounding grows from
    frame to frame, so what goes through it has the wider bound.
    """
    bounds = {"noise": 1e-5, "time shift": 1e-5, "stretch": 1e-2, "pitch": 1e-2, "all four": 1e-2}
    return [
        [Check(f"augmentation: {kind}", bound, partial(_compare, places, kind))]
        for kind, bound in bounds.items()
    ]
