"""The sizes in a wav's header, checked against the file: corrects placeholders, finds truncation.

Programs that write to a pipe, or are killed, leave a meaningless size. sox and ffmpeg read to the
end of the file if it is their own placeholder, and play a truncated file silently; libsndfile
trusts a size of zero. Here a size counts as a placeholder only if it cannot be a real one.
"""

import io
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ser_jax.errors import UserError

_NEAR = 2**16  # placeholders are 2 or 4 GiB less a header, or rounded to pages
_GREATEST = 0xFFFFFFFF
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICS")


class _Data(NamedTuple):
    """A data chunk: offset of its first sample, its stated size, and the offset of that size."""

    start: int
    promised: int
    field: int
    wide: bool
    """The size has 64 bits and is in RF64's own chunk."""
    align: int
    """Bytes of one sample of all channels."""
    outer: int
    """End of the file according to its outer size."""


def find_corrections(file: BinaryIO, path: Path) -> dict[int, bytes]:
    """Corrected bytes of a wav's header, by their offset in the file.

    Args:
      file: any open file; one that is not a wav has no corrections.
      path: its name, for messages.

    Raises:
      UserError: the file is truncated: its header states more than there is, and no placeholder.
    """
    size = file.seek(0, io.SEEK_END)
    data = _find_data(file)
    if data is None:
        return {}
    left = size - data.start
    if (
        not data.wide
        and left > _GREATEST
        and (data.promised + _NEAR > _GREATEST or (left - data.promised) % 2**32 < 2)
    ):
        raise UserError(
            f"{path}: holds {left} bytes of samples, more than the 4 GiB of a wav; save it as flac"
        )
    if data.promised > left:
        if not _is_placeholder(data, size):
            raise UserError(
                f"{path}: truncated: holds {left} of {data.promised} bytes; copy or download it "
                "again"
            )
        if not data.wide:  # libsndfile reads to the end
            return {}
    elif not _has_more(file, data, size):
        return {}
    if data.wide:
        sizes = struct.pack("<QQQ", size - 8, left, left // data.align)
        return {data.field - 8: sizes}
    return {4: struct.pack("<I", size - 8), data.field: struct.pack("<I", left)}


def check_total(file: BinaryIO, path: Path) -> None:
    """Raise `UserError` if an aiff, au or w64 states a size larger than the file's.

    libsndfile returns what is there without an error.
    """
    file.seek(0)
    head = file.read(24).ljust(24, b"\0")
    size = file.seek(0, io.SEEK_END)
    total = 0
    if head[:4] == b"FORM":
        total = 8 + struct.unpack(">4xI", head[:8])[0]
    elif head[:4] == b".snd":
        total = sum(struct.unpack(">4x2I", head[:12]))
    elif head[:4] == b"riff":
        total = struct.unpack("<16xQ", head)[0]
    # A placeholder is the largest number of its type, less a header and, for sox, 16 MiB.
    unknown = any(-(2**25) <= total - n < _NEAR for n in (2**31, 2**32, 2**63, 2**64))
    if total > size + 1 and not unknown:  # some programs omit the last padding byte
        raise UserError(
            f"{path}: truncated: holds {size} of {total} bytes; copy or download it again"
        )


def _find_data(file: BinaryIO) -> _Data | None:
    file.seek(0)
    riff, outer, wave = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
    if riff not in (b"RIFF", b"RF64", b"BW64") or wave != b"WAVE":
        return None
    wide, align = None, 1
    while len(header := file.read(8)) == 8:
        name, n_bytes = struct.unpack("<4sI", header)
        here = file.tell()
        if name == b"data" and wide is not None and n_bytes == _GREATEST:
            return _Data(here, wide[1], wide[0], True, align, 0)
        if name == b"data":
            return _Data(here, n_bytes, here - 4, False, align, outer + 8)
        if name == b"ds64" and riff != b"RIFF":
            sizes = file.read(16).ljust(16, b"\0")
            wide = here + 8, struct.unpack("<Q", sizes[8:])[0]
        if name == b"fmt ":
            align = max(1, *struct.unpack("<12xH", file.read(14).ljust(14, b"\0")))
        file.seek(here + n_bytes + n_bytes % 2)
    return None


def _is_placeholder(data: _Data, size: int) -> bool:
    """Whether a size larger than the data cannot be a real one.

    It is near 2 GiB, 4 GiB or 2**63, the largest numbers of their types; a multiple of 10**9 bytes
    or samples; the size of the whole file, which some programs write there; or the outer size says
    that the file is complete.
    """
    n_bytes, left = data.promised, size - data.start
    near = n_bytes > 2**63 - _NEAR or any(-_NEAR <= n_bytes - n < _NEAR for n in (2**31, 2**32))
    # Beyond 4 GiB only the lower 32 bits are left.
    counts = n_bytes, n_bytes / data.align, (n_bytes + 2**32) / data.align
    rounded = any(count >= 10**9 and count % 10**9 == 0 for count in counts)
    whole = n_bytes in (size, size - 8) or n_bytes - left < data.align or data.outer == size
    return near or rounded or whole


def _has_more(file: BinaryIO, data: _Data, size: int) -> bool:
    """Whether more samples follow those that the header states.

    The rest counts as samples if the header states none, or if it is longer than the stated part,
    unless it is chunks, a tag or padding.
    """
    end = data.start + data.promised
    rest = size - end
    if rest < data.align or (data.promised and rest <= data.promised):
        return False
    if any(_is_chunks(file, start, size) for start in (end, end + end % 2)):
        return False
    file.seek(end)
    return data.promised == 0 or not (file.read(8).startswith(_TAGS) or _is_blank(file, end))


def _is_chunks(file: BinaryIO, start: int, size: int) -> bool:
    """Whether the rest of the file, from `start`, is a sequence of chunks."""
    while size - start >= 8:
        file.seek(start)
        name, n_bytes = struct.unpack("<4sI", file.read(8))
        start += 8 + n_bytes
        if not all(32 <= letter < 127 for letter in name) or start > size:
            return False
        start += start % 2
    return True


def _is_blank(file: BinaryIO, start: int) -> bool:
    file.seek(start)
    return not any(any(block) for block in iter(lambda: file.read(2**20), b""))


class Corrected(io.RawIOBase):
    """A file with some of its bytes replaced as it is read."""

    def __init__(self, file: BinaryIO, corrections: dict[int, bytes]):
        """
        Args:
          file: open for reading; not closed.
          corrections: see `find_corrections`.
        """
        self._file, self._corrections = file, corrections
        file.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer) -> int:
        start = self._file.tell()
        found = bytearray(self._file.read(len(buffer)))
        for place, right in self._corrections.items():
            for offset, byte in enumerate(right, place - start):
                if 0 <= offset < len(found):
                    found[offset] = byte
        buffer[: len(found)] = found
        return len(found)
