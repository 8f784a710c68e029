"""Folders of generated tones with the names that corpora give their files; tiny, but complete."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ = 8000
TINY = {
    "data.rate_hz": RATE_HZ, "features.n_fft": 256, "features.hop_length": 128,
    "features.n_mels": 20, "features.n_mfcc": 8, "model.name": "lstm", "model.hidden": 4,
    "model.dense": [4], "train.epochs": 1, "parallel.cache_dir": None,
}  # fmt: skip
"""Settings of a run that takes a second."""


def list_crema_d() -> Iterator[tuple[str, str]]:
    for actor in (1001, 1002, 1003, 1005, 1011, 1091):
        for n, emotion in enumerate(("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")):
            yield (
                f"{actor}_{('IEO', 'DFA')[n % 2]}_{emotion}_{('XX', 'HI', 'LO')[n % 3]}.wav",
                emotion,
            )


def list_savee() -> Iterator[tuple[str, str]]:
    for speaker in ("DC", "JE", "JK", "KL"):
        for emotion in ("a", "d", "f", "h", "n", "sa", "su"):
            separator = "_" if speaker in ("DC", "JE") else "/"
            yield f"{speaker}{separator}{emotion}01.wav", emotion


def list_tess() -> Iterator[tuple[str, str]]:
    for speaker in ("OAF", "YAF"):
        for word in ("back", "bar", "base", "bath", "bean"):
            for emotion in ("angry", "disgust", "fear", "happy", "neutral", "ps", "sad"):
                yield f"{speaker}_{emotion}/{speaker}_{word}_{emotion}.wav", emotion


def list_emodb() -> Iterator[tuple[str, str]]:
    for speaker in ("03", "08", "09", "10", "11", "13"):
        for emotion in "WLEAFTN":
            yield f"wav/{speaker}a01{emotion}{'a' if emotion == 'F' else ''}.wav", emotion


def list_ravdess() -> Iterator[tuple[str, str]]:
    for actor in range(1, 7):
        for emotion in range(1, 9):
            yield f"03-01-{emotion:02}-01-01-01-{actor:02}.wav", str(emotion)


NAMES = {
    "crema_d": list_crema_d, "savee": list_savee, "tess": list_tess, "emodb": list_emodb,
    "ravdess": list_ravdess,
}  # fmt: skip


def write_corpus(root: Path, name: str) -> Path:
    """A folder of the corpus `name`: a tone per emotion, a little noise per clip."""
    clips = list(NAMES[name]())
    emotions = sorted({emotion for _, emotion in clips})
    for number, (file_name, emotion) in enumerate(clips):
        seed = 1000 * list(NAMES).index(name) + number  # no two corpora share a recording
        write_tone(root / file_name, 200 * 2 ** (emotions.index(emotion) / 2), seed)
    return root


def write_tone(path: Path, pitch_hz: float, seed: int = 0, clip_s: float = 0.2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    time_N = np.arange(round(clip_s * RATE_HZ)) / RATE_HZ
    noise_N = np.random.default_rng(seed).standard_normal(len(time_N))
    wave_N = 0.3 * np.sin(2 * np.pi * pitch_hz * time_N) + 0.01 * noise_N
    soundfile.write(path, wave_N, RATE_HZ)
    return path
