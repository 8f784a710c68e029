"""The study's four augmentations of training clips: audiomentations, on the host.

Worker processes import this module anew, so nothing here may import jax at the top.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import random
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from ser_jax.audio.samples import to_float
from ser_jax.config import AugmentConfig
from ser_jax.errors import UserError, check
from ser_jax.machine.cores import count_cores
from ser_jax.machine.spawning import exit_with_parent, starting_workers

_CHUNK_CLIPS = 8
"""Clips per task: about 0.1 s of work, so that sending is cheap and stopping is quick."""

_REMEDY = "set augment.backend=device"


def _make_transforms(augment: AugmentConfig, rate_hz: int, n_samples: int) -> list[Any]:
    """The four transforms in the protocol's order, for a clip of `n_samples`."""
    from audiomentations import AddGaussianNoise, PitchShift, Shift, TimeStretch

    # audiomentations requires an amplitude above 0, and fails on shifts of a whole clip or more.
    tiny, longest_s = float(np.finfo(np.float32).tiny), (n_samples - 1) / rate_hz
    shift_s = [
        min(max(s, -longest_s), longest_s) for s in (augment.shift_min_s, augment.shift_max_s)
    ]
    p, method = augment.p, augment.method
    return [
        AddGaussianNoise(max(augment.noise_min, tiny), max(augment.noise_max, tiny), p=p),
        TimeStretch(augment.stretch_min, augment.stretch_max, method=method, p=p),
        PitchShift(augment.pitch_min, augment.pitch_max, method=method, p=p),
        Shift(*shift_s, shift_unit="seconds", rollover=augment.rollover, p=p),
    ]


def _seed_globals(*numbers: int) -> None:
    """Seed the two global generators that audiomentations uses."""
    words = np.random.SeedSequence(numbers).generate_state(8)
    np.random.seed(words[:4])
    random.seed("-".join(map(str, words[4:])))


def _augment_clip(
    wave_N: np.ndarray, clip_id: int, epoch: int, augment: AugmentConfig, rate_hz: int, seed: int
) -> np.ndarray:
    """One clip, int16 [N] -> float32 [N], full scale 1; depends only on its arguments."""
    x_N = to_float(wave_N)
    if len(x_N) == 0:
        return x_N
    peak = np.abs(x_N).max()
    if augment.normalise == "peak" and peak > 0:
        x_N = x_N / peak
    for i, transform in enumerate(_make_transforms(augment, rate_hz, len(x_N))):
        # Seed for each: a transform's first use in a process imports modules that draw as well.
        _seed_globals(seed, epoch, clip_id, i)
        x_N = transform(x_N, rate_hz)
    return x_N


def _augment_chunk(
    waves: list[np.ndarray], clip_ids: list[int], *settings: Any
) -> list[np.ndarray]:
    return [_augment_clip(wave, i, *settings) for wave, i in zip(waves, clip_ids, strict=True)]


def _start_worker() -> None:
    """Make a worker quiet, let it ignore Ctrl-C (its parent closes it) and exit with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    threading.Thread(target=exit_with_parent, daemon=True).start()
    import audiomentations  # noqa: F401  (takes a second, before the first clip)


@dataclasses.dataclass
class Pending:
    """Clips in progress: what `HostAugmenter.submit` returns and `result` takes, once."""

    shape: tuple[int, int]
    chunks: list[Future]


class HostAugmenter:
    """Worker processes that augment training clips while the device trains.

    A clip's result depends only on (seed, epoch, clip id), the settings and its samples, not on the
    number of workers or the other clips. Use it as a context manager, or call `close`.
    """

    def __init__(self, augment: AugmentConfig, rate_hz: int, seed: int):
        """Start the workers, without waiting for them.

        Args:
          augment: settings; with `workers` None it starts one process per core.
          rate_hz: sample rate of the clips.
          seed: the run's seed, at least 0.

        Raises:
          UserError: a stretch that no seed makes reproducible; no worker can be started.
        """
        # Beyond twice the length, Signalsmith's stretch draws phases from the machine's entropy.
        check(
            augment.stretch_min >= 0.5 or augment.method != "signalsmith_stretch",
            f"augment.stretch_min={augment.stretch_min}: below 0.5 signalsmith_stretch differs "
            "from run to run; set augment.method=librosa_phase_vocoder",
        )
        self._augment, self._rate_hz, self._seed = augment, rate_hz, seed
        n_workers = augment.workers or count_cores()
        # spawn: forking a process in which JAX runs threads can hang.
        with starting_workers(_REMEDY):
            self._pool = ProcessPoolExecutor(
                n_workers, multiprocessing.get_context("spawn"), initializer=_start_worker
            )
        for _ in range(n_workers):
            self._submit(os.getpid)

    def submit(
        self, epoch: int, clip_ids: Sequence[int] | np.ndarray, wave_BN: np.ndarray, length_B: Any
    ) -> Pending:
        """Send training clips to the workers and return at once.

        Args:
          epoch: number of the draw; ignored with `augment.when=once`.
          clip_ids: number of each clip in the corpus, [B].
          wave_BN: int16 samples, zero-padded; do not change them before `result`.
          length_B: samples of each clip without its padding.

        Raises:
          UserError: a worker has died.
        """
        draw = 0 if self._augment.when == "once" else epoch
        ids = [int(i) for i in clip_ids]
        whole = not self._augment.before_padding
        waves = [w if whole else w[:n] for w, n in zip(wave_BN, length_B, strict=True)]
        settings = (draw, self._augment, self._rate_hz, self._seed)
        starts = range(0, len(ids), _CHUNK_CLIPS)
        chunks = [slice(start, start + _CHUNK_CLIPS) for start in starts]
        futures = [self._submit(_augment_chunk, waves[c], ids[c], *settings) for c in chunks]
        return Pending((len(ids), wave_BN.shape[1]), futures)

    def result(self, pending: Pending, advance: Callable[[int], None] | None = None) -> np.ndarray:
        """Wait for the clips of `submit`.

        Args:
          pending: what `submit` returned; it is used up.
          advance: called with the number of clips as they arrive, for a progress bar.

        Returns:
          float32 [B, N], full scale 1 (noise may exceed it); zeros past a clip's length if
          `augment.before_padding`.

        Raises:
          UserError: a worker has died.
        """
        out_BN = np.zeros(pending.shape, np.float32)
        row = 0
        while pending.chunks:
            with self._naming_dead_workers():
                waves = pending.chunks.pop(0).result()
            for wave_N in waves:
                out_BN[row, : len(wave_N)] = wave_N
                row += 1
            if advance is not None:
                advance(len(waves))
        return out_BN

    def close(self) -> None:
        """Cancel what has not started, and end the workers."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "HostAugmenter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(self, function: Callable, *arguments: Any) -> Future:
        with self._naming_dead_workers(), starting_workers(_REMEDY):
            return self._pool.submit(function, *arguments)

    @contextlib.contextmanager
    def _naming_dead_workers(self) -> Iterator[None]:
        try:
            yield
        except BrokenProcessPool as error:
            raise UserError(
                f"augment.workers={self._augment.workers}: a worker process died, perhaps out "
                "of memory; set fewer workers"
            ) from error
