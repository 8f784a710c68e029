"""The format of a sound file by its first bytes, whatever its name says."""

import io
from typing import BinaryIO

# libsndfile reads their common codecs, ffmpeg all.
_NATIVE = (b"RIFF", b"RF64", b"BW64", b"riff", b"FORM", b"caff", b"OggS", b"fLaC", b".snd", b"NIST")
_FOREIGN = (
    (4, b"ftyp", "an MP4, M4A or 3GP file"),
    (0, b"\x1aE\xdf\xa3", "a WebM or Matroska file"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "a WMA (ASF) file"),
    (0, b"#!AMR", "an AMR file"),
    (0, b"wvpk", "a WavPack file"),
    (0, b"MAC ", "a Monkey's Audio file"),
    (0, b"TTA1", "a True Audio file"),
    (0, b"MPCK", "a Musepack file"),
    (0, b"\x0b\x77", "an AC-3 file"),
    (0, b"FLV\x01", "a Flash video"),
    (8, b"AVI ", "an AVI file"),
    (0, b"\x00\x00\x01\xba", "an MPEG file"),
)
SUFFIXES = (
    ".wav", ".wave", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff",
    ".aifc", ".au", ".snd", ".caf", ".sph", ".nist", ".voc",
    ".m4a", ".mp4", ".m4b", ".mov", ".3gp", ".3g2", ".aac", ".webm", ".mka", ".mkv", ".wma", ".asf",
    ".amr", ".awb", ".ac3", ".wv", ".ape", ".tta", ".avi", ".flv",
)  # fmt: skip
"""Suffixes of sound files; from .m4a on they need ffmpeg."""


def name_foreign(file: BinaryIO) -> str | None:
    """The format of a file that only ffmpeg reads; `None` for all others."""
    head = _read(file, 0, 16)
    for offset, magic, name in _FOREIGN:
        if head[offset:].startswith(magic):
            return name
    first, second = _read(file, find_frame(file), 2).ljust(2, b"\0")
    return "an AAC file" if first == 0xFF and second & 0xF6 == 0xF0 else None


def is_container(file: BinaryIO) -> bool:
    """Whether a file has a format of which libsndfile reads only some codecs."""
    return _read(file, find_frame(file), 4).startswith(_NATIVE) or is_mp3(file)


def is_mp3(file: BinaryIO) -> bool:
    """Whether the file, after any ID3 tag, starts with a frame of MPEG audio, layer I to III."""
    first, second = _read(file, find_frame(file), 2).ljust(2, b"\0")
    return first == 0xFF and second & 0xE0 == 0xE0 and second & 0x06 != 0


def find_frame(file: BinaryIO) -> int:
    """Offset of an mp3's first frame: after its ID3 tags."""
    start = 0
    while (head := _read(file, start, 10))[:3] == b"ID3" and len(head) == 10:
        n_bytes = 0
        for byte in head[6:]:
            n_bytes = n_bytes << 7 | byte & 0x7F
        start += 10 + n_bytes + 10 * bool(head[5] & 0x10)  # a footer
    return start


def _read(file: BinaryIO, start: int, n_bytes: int) -> bytes:
    file.seek(start, io.SEEK_SET)
    return file.read(n_bytes)
