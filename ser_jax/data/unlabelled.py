"""Recordings without labels: any folder of sound files, in random crops."""

import collections
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.audio.kinds import SUFFIXES
from ser_jax.audio.reading import import_decoders, load_audio, load_int16, measure_audio
from ser_jax.audio.samples import to_float
from ser_jax.config import DataConfig, UnlabelledConfig
from ser_jax.data.sources.filenames import GRAMMARS
from ser_jax.data.sources.find import find_source
from ser_jax.data.sources.folders import list_files
from ser_jax.data.splits import draw_split
from ser_jax.data.store import load_facts
from ser_jax.errors import FewWarnings, UserError, check, count_noun, warn
from ser_jax.files.atomic import expand
from ser_jax.machine.cores import count_cores
from ser_jax.progress import progress

_AHEAD = 3  # batches read ahead of training


class UnlabelledClips:
    """The sound files below a folder.

    Attributes:
      paths: of the files, sorted.
      seconds_B: their lengths.
    """

    def __init__(self, data: UnlabelledConfig, seed: int, least_samples: int):
        """
        Args:
          data: settings.
          seed: of the split, if only its training clips are used.
          least_samples: shorter files are left out with a warning, as are unreadable ones.

        Raises:
          UserError: no folder, no sound files in it, none that can be read and is long enough;
            `data.part=train` with files that have no RAVDESS names.
        """
        root = expand(data.root or "")
        check(root.is_dir(), f"data.root={data.root}: no such folder; name a folder of recordings")
        paths = sorted(list_files(root, SUFFIXES))
        check(
            len(paths) > 0,
            f"data.root={data.root}: holds no sound files, such as wav, flac, ogg or mp3; name "
            "another folder",
        )
        if data.part == "train":
            paths = _choose_training(paths, data, seed)
        import_decoders()
        self._data = data
        self._bad = FewWarnings("file left out: ")
        self._n_files = len(paths)
        self.paths, seconds = self._measure(paths, least_samples / data.rate_hz)
        self.seconds_B = np.array(seconds)
        n_bytes = 2 * data.rate_hz * float(self.seconds_B.sum())
        self._decoded: list[np.ndarray] | None = None
        if n_bytes <= data.memory_mb * 1e6:
            self._decoded = self._decode_all()
        if more := self._bad.n_unsaid:
            warn(f"{count_noun(more, 'more file')} left out")

    def __len__(self) -> int:
        return len(self.paths)

    def iterate(
        self, index_SB: np.ndarray, seed: int, epoch: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of crops, float32 [B, N], and how many samples of each are real, int32 [B].

        Threads read ahead. A crop depends on seed, epoch and clip only; a row of `PADDING`
        is silence without real samples.
        """
        with ThreadPoolExecutor(max(1, count_cores())) as pool:
            batches = (
                [pool.submit(self._crop, int(clip), seed, epoch) for clip in index_B]
                for index_B in index_SB
            )
            pending = collections.deque(itertools.islice(batches, _AHEAD))
            while pending:
                pending.extend(itertools.islice(batches, 1))
                rows = [future.result() for future in pending.popleft()]
                wave_BN, length_B = zip(*rows, strict=True)
                yield np.stack(wave_BN), np.array(length_B, np.int32)

    def _crop(self, clip: int, seed: int, epoch: int) -> tuple[np.ndarray, int]:
        rate_hz, crop_s = self._data.rate_hz, self._data.crop_s
        crop_N = np.zeros(round(crop_s * rate_hz), np.float32)
        if clip < 0:
            return crop_N, 0
        spare_s = max(float(self.seconds_B[clip]) - crop_s, 0.0)
        start = int(np.random.default_rng((seed, epoch, clip)).uniform(0, spare_s) * rate_hz)
        if self._decoded is not None:
            wave_N = to_float(self._decoded[clip][start : start + len(crop_N)])
        else:
            try:
                wave_N = load_audio(self.paths[clip], rate_hz, start / rate_hz, crop_s)
            except UserError as error:  # the header looked fine; the row stays silent
                self._bad.add(str(error))
                return crop_N, 0
        crop_N[: len(wave_N)] = wave_N
        return crop_N, len(wave_N)

    def _measure(self, paths: Sequence[Path], least_s: float) -> tuple[list[Path], list[float]]:
        """The files that can be opened and are long enough, and their lengths in seconds."""

        def measure(path: Path) -> float:
            length_s = measure_audio(path)
            check(length_s >= least_s, f"{path}: has {length_s:.3f} s, less than {least_s:.3f} s")
            return length_s

        return self._keep_good(paths, measure, "measuring")

    def _decode_all(self) -> list[np.ndarray]:
        self.paths, decoded = self._keep_good(
            self.paths, lambda path: load_int16(path, self._data.rate_hz), "decoding"
        )
        self.seconds_B = np.array([len(wave_N) for wave_N in decoded]) / self._data.rate_hz
        return decoded

    def _keep_good(
        self, paths: Sequence[Path], read: Callable[[Path], Any], doing: str
    ) -> tuple[list[Path], Any]:
        """The files that `read` can read, and its results; others are left out with a warning."""

        def attempt(path: Path) -> Any:
            try:
                return read(path)
            except UserError as error:
                return error

        kept: list[Path] = []
        found: list[Any] = []
        with (
            progress(doing, len(paths), "files") as advance,
            ThreadPoolExecutor(max(1, count_cores())) as pool,
        ):
            for path, got in zip(paths, pool.map(attempt, paths), strict=True):
                advance(1)
                if isinstance(got, UserError):
                    self._bad.add(str(got))
                else:
                    kept.append(path)
                    found.append(got)
        check(
            len(kept) > 0,
            f"data.root: none of its files can be used ({self._n_files} tried); the first: "
            f"{self._bad.first}",
        )
        return kept, found


def _choose_training(paths: Sequence[Path], data: UnlabelledConfig, seed: int) -> list[Path]:
    """The files that are training clips of a split, drawn just as `train` draws it for that folder:
    from the clips that can be read and are not copies, since the draw depends on their number."""
    grammar = GRAMMARS["ravdess"]
    check(
        any((named := grammar.parse(path)) and named.kind == "speech" for path in paths),
        f"data.part=train: no file of data.root={data.root} has a RAVDESS name; "
        f"{grammar.expected}, or use data.part=all",
    )
    labelled = DataConfig(
        root=data.root, rate_hz=data.rate_hz, store_dir=data.store_dir, protocol=data.protocol,
        fold=data.fold, split_seed=data.split_seed,
    )  # fmt: skip
    corpus = load_facts(labelled)
    files = {clip.file_name: clip.path for clip in find_source(labelled).list_clips().clips}
    chosen = [files[corpus.file_names[n]] for n in draw_split(labelled, seed, corpus).train]
    return [path for path in chosen if path is not None]
