"""Recordings without labels: any folder of sound files, in random crops."""

import collections
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ser_jax.audio import FULL_SCALE, import_decoders, load_audio, load_int16, measure_audio
from ser_jax.config import UnlabelledConfig
from ser_jax.cores import count_cores
from ser_jax.corpora.names import EMOTIONS, GRAMMAR, parse_name
from ser_jax.errors import UserError, check
from ser_jax.progress import progress
from ser_jax.splits import make_split

_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
_AHEAD = 3  # batches that are read while one is trained on


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
          seed: of the split, where only its training clips are wanted.
          least_samples: shorter files are left out, with a warning.

        Raises:
          UserError: no folder, no sound files in it, none that can be read and is long enough;
            `data.part=train` with files that have no RAVDESS names.
        """
        root = Path(data.root or "").expanduser()
        check(root.is_dir(), f"data.root={data.root}: no such folder; name one of recordings")
        paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
        check(
            len(paths) > 0,
            f"data.root={data.root}: holds no {', '.join(_SUFFIXES)} files; name another folder",
        )
        if data.part == "train":
            paths = _choose_training(paths, data, seed)
        self._data = data
        self.paths, self.seconds_B = _measure(paths, least_samples / data.rate_hz)
        n_bytes = 2 * data.rate_hz * float(self.seconds_B.sum())
        self._decoded: list[np.ndarray] | None = None
        if n_bytes <= data.memory_mb * 1e6:
            self._decoded = self._decode_all()

    def __len__(self) -> int:
        return len(self.paths)

    def iterate(
        self, index_SB: np.ndarray, seed: int, epoch: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of crops, float32 [B, N], and how many samples of each are real, int32 [B].

        Threads read ahead. A crop is a function of seed, epoch and clip alone; a row of `PADDING`
        is silent and has none.
        """
        with ThreadPoolExecutor(max(1, count_cores())) as pool:
            pending: collections.deque[list[Future]] = collections.deque()
            rest = iter(index_SB)
            while True:
                while len(pending) <= _AHEAD and (index_B := next(rest, None)) is not None:
                    pending.append(
                        [pool.submit(self._crop, int(clip), seed, epoch) for clip in index_B]
                    )
                if not pending:
                    return
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
            wave_N = self._decoded[clip][start : start + len(crop_N)].astype(np.float32)
            wave_N /= FULL_SCALE
        else:
            wave_N = load_audio(self.paths[clip], rate_hz, start / rate_hz, crop_s)[: len(crop_N)]
        crop_N[: len(wave_N)] = wave_N
        return crop_N, len(wave_N)

    def _decode_all(self) -> list[np.ndarray]:
        import_decoders()
        with (
            progress("decoding", len(self.paths), "files") as advance,
            ThreadPoolExecutor(count_cores()) as pool,
        ):
            decoded = []
            for wave_N in pool.map(lambda p: load_int16(p, self._data.rate_hz), self.paths):
                decoded.append(wave_N)
                advance(1)
        return decoded


def _measure(paths: Sequence[Path], least_s: float) -> tuple[list[Path], np.ndarray]:
    kept: list[Path] = []
    seconds: list[float] = []
    left_out: list[str] = []
    for path in paths:
        try:
            length_s = measure_audio(path)
        except UserError:
            left_out.append(f"{path} cannot be read")
            continue
        if length_s < least_s:
            left_out.append(f"{path} has {length_s:.3f} s, less than {least_s:.3f}")
            continue
        kept.append(path)
        seconds.append(length_s)
    check(
        len(kept) > 0,
        f"data.root: none of its {len(paths)} files can be used ({left_out[:1]}); "
        "give recordings of at least a second",
    )
    if left_out:
        print(f"warning: {len(left_out)} files left out; first: {left_out[0]}", file=sys.stderr)
    return kept, np.array(seconds)


def _choose_training(paths: Sequence[Path], data: UnlabelledConfig, seed: int) -> list[Path]:
    """The files that are training clips of a split, as `train` would make it of the same folder."""
    named = {path.stem: path for path in reversed(paths)}
    clips = [(path, parse_name(path.name)) for path in sorted(named.values(), key=lambda p: p.name)]
    clips = [(path, name) for path, name in clips if name is not None and name.kind == "speech"]
    check(
        len(clips) > 0,
        f"data.part=train: no file of data.root={data.root} has a RAVDESS name; {GRAMMAR}, or take "
        "data.part=all",
    )
    emotion_B = np.array([EMOTIONS.index(name.emotion) for _, name in clips])
    actor_B = np.array([name.actor for _, name in clips])
    split_seed = seed if data.split_seed is None else data.split_seed
    split = make_split(data.protocol, data.fold, split_seed, emotion_B, actor_B)
    return [clips[number][0] for number in split.train]
