"""Files that hold several recordings in a row, of which decoders would read only the first."""

import io
import struct
from pathlib import Path
from typing import BinaryIO

from ser_jax.audio.kinds import find_frame
from ser_jax.errors import UserError

_FLAC = b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22"  # with the header of the first block
_BLOCK = 2**20


def check_joined(file: BinaryIO, path: Path) -> None:
    """Raise `UserError` if another wav, aiff or mp4 follows the first, as after `cat`."""
    file.seek(0)
    head = file.read(12).ljust(12, b"\0")
    place = None
    if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
        place = _find_second_form(file, "<", (b"RIFF", b"RF64"), (b"WAVE",))
    elif head[:4] == b"FORM":
        place = _find_second_form(file, ">", (b"FORM",), (b"AIFF", b"AIFC"))
    elif head[4:8] == b"ftyp":
        place = _find_second_box(file)
    if place:
        raise _make_error(path, place)


def check_single_flac(file: BinaryIO, path: Path) -> None:
    """Raise `UserError` if a flac file holds another; reads the whole file."""
    place, held = file.seek(find_frame(file) + 4), b""  # a tag may come first
    while block := file.read(_BLOCK):
        held += block
        for head in _FLAC:
            if (at := held.find(head)) >= 0:
                raise _make_error(path, place + at)
        place, held = place + len(held) - 7, held[-7:]


def _make_error(path: Path, place: int) -> UserError:
    return UserError(
        f"{path}: holds another recording from byte {place} on, like files joined by cat, and only "
        "the first would be read; give the files one by one, or join them with sox or ffmpeg"
    )


def _find_second_form(
    file: BinaryIO, order: str, names: tuple[bytes, ...], kinds: tuple[bytes, ...]
) -> int | None:
    file.seek(4)
    (n_bytes,) = struct.unpack(f"{order}I", file.read(4))
    place = 8 + n_bytes + n_bytes % 2
    file.seek(place)
    head = file.read(12)
    return place if head[:4] in names and head[8:] in kinds else None


def _find_second_box(file: BinaryIO) -> int | None:
    """Where a second file starts among an mp4's boxes; fragmented files may repeat the header."""
    place, found, size = 0, [], file.seek(0, io.SEEK_END)
    while place + 8 <= size:
        file.seek(place)
        n_bytes, name, wide = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        n_bytes = wide if n_bytes == 1 else n_bytes
        if name == b"moof":
            return None
        if name == b"ftyp":
            found.append(place)
        if n_bytes < 8:  # 0: to the end of the file
            break
        place += n_bytes
    return found[1] if len(found) > 1 else None


def is_chained(file: BinaryIO) -> bool:
    """Whether an ogg file starts another stream after the audio of the first."""
    place = 0
    begun = False
    while True:
        file.seek(place)
        head = file.read(27 + 255)
        if len(head) < 27 or head[:4] != b"OggS":
            return False
        is_first = bool(head[5] & 2)
        if is_first and begun:
            return True
        begun = begun or not is_first
        place += 27 + head[26] + sum(head[27 : 27 + head[26]])
