"""Lengths in the headers of mp3 and ogg, checked against the file."""

import io
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ser_jax.audio.kinds import find_frame
from ser_jax.errors import check

_PAGE = 65307  # bytes of the largest ogg page


class Count(NamedTuple):
    """The length that an mp3 states in its first frame."""

    place: int
    """Offset of the tag's name in the file."""
    n_frames: int
    """Frames of audio; 0 if unknown."""
    n_bytes: int
    """Bytes of audio; 0 if unknown."""
    start: int
    """Offset of the first frame."""


def find_count(file: BinaryIO) -> Count | None:
    """The Xing, Info or VBRI tag of an mp3; `None` if it has none."""
    start = find_frame(file)
    file.seek(start)
    frame = file.read(256)
    for name in (b"Xing", b"Info"):
        if (place := frame.find(name)) >= 0:
            flags, first, second = struct.unpack(">3I", frame[place + 4 :].ljust(12, b"\0")[:12])
            n_bytes = (second if flags & 1 else first) if flags & 2 else 0
            return Count(start + place, first if flags & 1 else 0, n_bytes, start)
    if (place := frame.find(b"VBRI")) >= 0:
        n_bytes, n_frames = struct.unpack(">2I", frame[place + 10 :].ljust(8, b"\0")[:8])
        return Count(start + place, n_frames, n_bytes, start)
    return None


def is_counted(file: BinaryIO, count: Count) -> bool:
    """Whether an mp3 holds exactly what its tag counts.

    In concatenated files the first tag counts only the first recording.
    """
    if not count.n_frames:
        return False
    if not count.n_bytes:
        return True
    end = count.start + count.n_bytes
    file.seek(end)
    after = file.read(132).removeprefix(b"TAG")
    after = after[125:] if len(after) < 132 else after
    joined = after[:3] == b"ID3" or (after[:1] == b"\xff" and after[1:2] >= b"\xe0")
    return not (joined and file.seek(0, io.SEEK_END) - end > 4096)


def check_ogg(file: BinaryIO, path: Path) -> None:
    """Raise `UserError` if an ogg file ends within a page."""
    file.seek(0)
    if file.read(4) != b"OggS":
        return
    size = file.seek(0, io.SEEK_END)
    start = file.seek(max(size - _PAGE - 4, 0))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if page[:4] != b"OggS":  # something follows the audio
        return
    n_segments = page[26] if len(page) > 26 else 255
    n_bytes = 27 + n_segments + sum(page[27 : 27 + n_segments])
    check(
        len(page) >= n_bytes or start == size,
        f"{path}: truncated: its last page holds {len(page)} of {n_bytes} bytes; copy or download "
        "it again",
    )
