"""The file-name grammar of each corpus: what a name says about its clip."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import NamedTuple

from ser_jax.data.sources.ravdess import EMOTIONS, INTENSITIES, STATEMENTS

ATTRIBUTES = ("gender", "intensity", "statement", "repetition", "corpus", "split")
"""What may be known of a clip besides its emotion and speaker."""


@dataclass(frozen=True)
class Facts:
    """What is known of a clip; an empty string for what is not."""

    emotion: str
    """In the corpus's own word; see `labels`."""
    speaker: str
    gender: str = ""
    """female or male."""
    intensity: str = ""
    statement: str = ""
    repetition: str = ""
    corpus: str = ""
    """If several are joined."""
    split: str = ""
    """train, val or test, if a manifest says so."""


class NamedClip(NamedTuple):
    """A file whose name says what it is.

    Attributes:
      name: unique in the corpus, wherever the file is; without suffix.
      facts: what the name says.
      kind: speech, song or video; only audio-only speech is used.
    """

    name: str
    facts: Facts
    kind: str = "speech"


@dataclass(frozen=True)
class Grammar:
    """How a corpus names its files."""

    title: str
    expected: str
    """An example of a name and its parts, for messages."""
    words: tuple[str, ...]
    """Its emotions, in its own words."""
    parse: Callable[[PurePath], NamedClip | None]
    """`None` for a name that does not follow the grammar."""


_RAVDESS = re.compile(
    r"(0[1-3])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])", re.ASCII
)


def _parse_ravdess(path: PurePath) -> NamedClip | None:
    match = _RAVDESS.fullmatch(path.stem)
    if match is None:
        return None
    modality, channel, emotion, intensity, statement, repetition, actor = map(int, match.groups())
    is_video = modality != 3 or path.suffix.lower() == ".mp4"
    facts = Facts(
        emotion=EMOTIONS[emotion - 1],
        speaker=f"{actor:02d}",
        gender="male" if actor % 2 else "female",
        intensity=INTENSITIES[intensity - 1],
        statement=STATEMENTS[statement - 1],
        repetition=str(repetition),
    )
    return NamedClip(
        path.stem, facts, "video" if is_video else "song" if channel == 2 else "speech"
    )


# From the corpus's VideoDemographics.csv: its file names do not say.
CREMA_D_WOMEN = frozenset(map(str, (
    1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1018, 1020, 1021, 1024, 1025, 1028,
    1029, 1030, 1037, 1043, 1046, 1047, 1049, 1052, 1053, 1054, 1055, 1056, 1058, 1060, 1061, 1063,
    1072, 1073, 1074, 1075, 1076, 1078, 1079, 1082, 1084, 1089, 1091,
)))  # fmt: skip
CREMA_D_EMOTIONS = {
    "ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad",
}  # fmt: skip
_CREMA_D_LEVELS = {"LO": "low", "MD": "medium", "HI": "high"}  # XX: not specified
_CREMA_D = re.compile(
    rf"(10[0-8]\d|109[01])_([A-Z]{{3}})_({'|'.join(CREMA_D_EMOTIONS)})_(LO|MD|HI|XX?)", re.ASCII
)  # one published file ends in a single X


def _parse_crema_d(path: PurePath) -> NamedClip | None:
    stem = path.stem.upper()
    match = _CREMA_D.fullmatch(stem)
    if match is None or match[1] == "1000":
        return None
    speaker, sentence, emotion, level = match.groups()
    facts = Facts(
        emotion=CREMA_D_EMOTIONS[emotion],
        speaker=speaker,
        gender="female" if speaker in CREMA_D_WOMEN else "male",
        intensity=_CREMA_D_LEVELS.get(level, ""),
        statement=sentence,
    )
    return NamedClip(stem, facts)


_SAVEE_EMOTIONS = {
    "a": "anger", "d": "disgust", "f": "fear", "h": "happiness", "n": "neutral", "sa": "sadness",
    "su": "surprise",
}  # fmt: skip
_SAVEE = re.compile(r"(?:(dc|je|jk|kl)_)?(a|d|f|h|n|sa|su)(\d\d)", re.ASCII)


def _parse_savee(path: PurePath) -> NamedClip | None:
    """The speaker is a prefix of the name, or its folder."""
    match = _SAVEE.fullmatch(path.stem.lower())
    if match is None:
        return None
    speaker = (match[1] or path.parent.name).upper()
    if speaker not in ("DC", "JE", "JK", "KL"):
        return None
    # The number counts the sentences of one emotion, so it does not name a statement.
    facts = Facts(_SAVEE_EMOTIONS[match[2]], speaker, gender="male")
    return NamedClip(f"{speaker}_{match[2]}{match[3]}", facts)


_TESS_EMOTIONS = {
    "angry": "angry", "disgust": "disgust", "fear": "fear", "happy": "happy", "neutral": "neutral",
    "ps": "pleasant surprise", "sad": "sad",
}  # fmt: skip
_TESS = re.compile(rf"(oaf?|yaf)_([a-z]+)_({'|'.join(_TESS_EMOTIONS)})", re.ASCII)


def _parse_tess(path: PurePath) -> NamedClip | None:
    match = _TESS.fullmatch(path.stem.lower())
    if match is None:
        return None
    speaker = "YAF" if match[1] == "yaf" else "OAF"  # one published file begins with OA
    facts = Facts(
        emotion=_TESS_EMOTIONS[match[3]], speaker=speaker, gender="female", statement=match[2]
    )
    return NamedClip(f"{speaker}_{match[2]}_{match[3]}".lower(), facts)


_EMODB_MEN, _EMODB_WOMEN = ("03", "10", "11", "12", "15"), ("08", "09", "13", "14", "16")
_EMODB_EMOTIONS = {
    "W": "anger", "L": "boredom", "E": "disgust", "A": "fear", "F": "happiness", "T": "sadness",
    "N": "neutral",
}  # fmt: skip
_EMODB = re.compile(
    rf"({'|'.join(_EMODB_MEN + _EMODB_WOMEN)})([ab]\d\d)([{''.join(_EMODB_EMOTIONS)}])([a-z]?)",
    re.ASCII | re.IGNORECASE,
)


def _parse_emodb(path: PurePath) -> NamedClip | None:
    match = _EMODB.fullmatch(path.stem)
    if match is None:
        return None
    speaker, text, emotion, version = match.groups()
    text, emotion, version = text.lower(), emotion.upper(), version.lower()
    facts = Facts(
        emotion=_EMODB_EMOTIONS[emotion],
        speaker=speaker,
        gender="male" if speaker in _EMODB_MEN else "female",
        statement=text,
        repetition=version,
    )
    return NamedClip(f"{speaker}{text}{emotion}{version}", facts)


GRAMMARS = {
    "ravdess": Grammar(
        "RAVDESS",
        "expected names such as 03-01-06-02-01-01-12.wav "
        "(modality-channel-emotion-intensity-statement-repetition-actor)",
        EMOTIONS,
        _parse_ravdess,
    ),
    "crema_d": Grammar(
        "CREMA-D",
        "expected names such as 1001_DFA_ANG_XX.wav (actor_sentence_emotion_level)",
        tuple(CREMA_D_EMOTIONS.values()),
        _parse_crema_d,
    ),
    "savee": Grammar(
        "SAVEE",
        "expected names such as DC_a01.wav, or a01.wav in a folder DC (speaker, emotion, number)",
        tuple(_SAVEE_EMOTIONS.values()),
        _parse_savee,
    ),
    "tess": Grammar(
        "TESS",
        "expected names such as OAF_back_angry.wav (speaker_word_emotion)",
        tuple(_TESS_EMOTIONS.values()),
        _parse_tess,
    ),
    "emodb": Grammar(
        "EmoDB",
        "expected names such as 03a01Fa.wav (speaker, text, emotion, version)",
        tuple(_EMODB_EMOTIONS.values()),
        _parse_emodb,
    ),
}
