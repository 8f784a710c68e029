"""RAVDESS' file-name grammar: what a name says about its clip."""

import re
from dataclasses import dataclass

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
INTENSITIES = ("normal", "strong")
STATEMENTS = ("kids", "dogs")  # "Kids are talking by the door", "Dogs are sitting by the door"
GRAMMAR = (
    "expected names such as 03-01-06-02-01-01-12.wav "
    "(modality-channel-emotion-intensity-statement-repetition-actor)"
)

PUBLISHED_COPIES = {"03-01-03-01-02-02-07": "03-01-03-01-02-01-07"}
"""Clips that RAVDESS itself has twice: the study's 1,440 clips count them, so they are kept."""

_NAME = re.compile(
    r"(0[1-3])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])", re.ASCII
)


@dataclass(frozen=True)
class ClipName:
    """What a RAVDESS file name says."""

    kind: str
    """speech, song or video; only audio-only speech is used."""
    emotion: str
    actor: int
    gender: str
    """female (even actors) or male (odd ones)."""
    intensity: str
    statement: str
    repetition: str
    """1 or 2."""


def parse_name(file_name: str) -> ClipName | None:
    """Read a file name without folder; None where it does not follow RAVDESS' grammar.

    >>> parse_name("03-01-06-02-01-01-12.wav").emotion
    'fearful'
    """
    match = _NAME.fullmatch(file_name.rpartition(".")[0] or file_name)
    if match is None:
        return None
    modality, channel, emotion, intensity, statement, repetition, actor = map(int, match.groups())
    kind = "video" if modality != 3 else "song" if channel == 2 else "speech"
    return ClipName(
        kind=kind,
        emotion=EMOTIONS[emotion - 1],
        actor=actor,
        gender="male" if actor % 2 else "female",
        intensity=INTENSITIES[intensity - 1],
        statement=STATEMENTS[statement - 1],
        repetition=str(repetition),
    )
