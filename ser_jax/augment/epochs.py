"""The corpus in each epoch, with the features of augmented training clips."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ser_jax.augment.host import HostAugmenter, Pending
from ser_jax.config import AugmentConfig
from ser_jax.errors import check
from ser_jax.features.batching import Dataset, compute_features, scale_samples
from ser_jax.features.cmvn import normalise_clips
from ser_jax.features.corpus_features import Inputs
from ser_jax.progress import progress

Memo = dict[int, dict[int, np.ndarray]]
"""Augmented features [T, F] by epoch and clip."""


class AugmentedEpochs:
    """The corpus in each epoch: training clips augmented on the host, all others unchanged.

    Worker processes make the next epoch while the device trains on this one. An augmented clip is a
    function of (seed, epoch, clip), so the folds of a grid can share the work through `memo`.
    """

    def __init__(
        self,
        inputs: Inputs,
        dataset: Dataset,
        train_index: np.ndarray,
        augmenter: HostAugmenter,
        *,
        epochs: int,
        once: bool,
        memo: Memo | None = None,
    ):
        """
        Args:
          inputs, dataset: the corpus on the host and on the device.
          train_index: the clips to augment.
          augmenter: the workers.
          epochs: number of the last epoch.
          once: use the first epoch's draw in every epoch.
          memo: features [T, F] by draw and clip, read and filled; None disables it.
        """
        self._inputs, self._dataset = inputs, dataset
        self._train_index, self._augmenter = train_index, augmenter
        self._epochs, self._once, self._memo = epochs, once, memo
        self._pending: dict[int, tuple[np.ndarray, Pending]] = {}
        self._made: tuple[int, Dataset] | None = None

    def __call__(self, epoch: int) -> Dataset:
        """The corpus of `epoch`, counted from 1."""
        draw = 1 if self._once else epoch
        if self._made is None or self._made[0] != draw:
            x_BTF = self._replace_rows(self._compute_rows(draw))
            self._made = draw, dataclasses.replace(self._dataset, x_BTF=x_BTF)
        if epoch < self._epochs and not self._once:
            self._submit(epoch + 1)
        return self._made[1]

    def _replace_rows(self, rows: np.ndarray) -> Any:
        # Floats: augmented samples are not integers, and may exceed full scale.
        x_BTF = scale_samples(self._dataset.x_BTF)
        if isinstance(x_BTF, np.ndarray):  # streamed
            x_BTF = x_BTF.copy()
            x_BTF[self._train_index] = rows
            return x_BTF
        return x_BTF.at[self._train_index].set(rows)

    def _submit(self, draw: int) -> None:
        if draw in self._pending:
            return
        known = self._memo.get(draw, {}) if self._memo is not None else {}
        clips = np.array([clip for clip in self._train_index if int(clip) not in known], np.int64)
        corpus = self._inputs.corpus
        pending = self._augmenter.submit(draw, clips, corpus.wave_BN[clips], corpus.length_B[clips])
        self._pending[draw] = clips, pending

    def _compute_rows(self, draw: int) -> np.ndarray:
        self._submit(draw)
        clips, pending = self._pending.pop(draw)
        with progress(f"augmenting for epoch {draw}", len(clips), "clips") as advance:
            wave_BN = self._augmenter.result(pending, advance)
        made = self._memo.setdefault(draw, {}) if self._memo is not None else {}
        if len(clips):
            x_BTF = compute_features(self._inputs.front_end, wave_BN)
            if self._inputs.own is not None:
                x_BTF = _normalise_augmented(self._inputs, x_BTF, clips)
            made |= dict(zip(clips.tolist(), x_BTF, strict=True))
        return np.stack([made[int(clip)] for clip in self._train_index])


def _normalise_augmented(inputs: Inputs, x_BTF: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Normalise augmented clips, each by itself or by its speaker's or corpus's clips."""
    assert inputs.own is not None
    if inputs.kind == "clip":
        T = x_BTF.shape[1]
        frames_B = inputs.frames_B[clips] if inputs.masked else np.full(len(clips), T)
        return np.asarray(normalise_clips(x_BTF, frames_B))
    return (x_BTF - inputs.own.mean_BF[clips, None]) / inputs.own.std_BF[clips, None]


@contextlib.contextmanager
def open_epochs(
    inputs: Inputs,
    dataset: Dataset,
    train_index: np.ndarray,
    augment: AugmentConfig,
    *,
    seed: int,
    epochs: int,
    memo: Memo | None = None,
) -> Iterator[Callable[[int], Dataset]]:
    """A function from the number of an epoch to its corpus."""
    if not augment.enabled:
        yield lambda epoch: dataset
        return
    if augment.backend == "device":
        once = augment.when == "once"
        yield lambda epoch: dataclasses.replace(
            dataset, draw=np.asarray(1 if once else epoch, np.int32)
        )
        return
    check(
        inputs.clips is None,
        "augment.backend=host: several processes augment only on the device; omit this key",
    )
    with HostAugmenter(augment, inputs.corpus.rate_hz, seed) as augmenter:
        yield AugmentedEpochs(
            inputs, dataset, train_index, augmenter,
            epochs=epochs, once=augment.when == "once", memo=memo,
        )  # fmt: skip
