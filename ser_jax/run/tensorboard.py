"""Scalars as TensorBoard reads them: an `Event` message of protocol buffers, framed as a TFRecord.

Written by hand, since the packages that have these messages import PyTorch or TensorFlow where they
are installed, which takes seconds and memory.
"""

import ctypes
import struct
import time
from collections.abc import Mapping

_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5  # how a field's value is written


def frame_header() -> bytes:
    """The record that a file begins with."""
    return _frame(_make_event(_field(3, _BYTES, b"brain.Event:2")))


def frame_event(step: int, scalars: Mapping[str, float]) -> bytes:
    """The record of `scalars`, by tag, at a step, from 0."""
    values = b"".join(
        _field(1, _BYTES, _field(1, _BYTES, tag.encode()) + _field(2, _FLOAT, _pack_float(value)))
        for tag, value in scalars.items()
    )
    return _frame(_make_event(_field(2, _VARINT, _pack_varint(step)) + _field(5, _BYTES, values)))


def _make_event(fields: bytes) -> bytes:
    return _field(1, _DOUBLE, struct.pack("<d", time.time())) + fields


def _field(number: int, kind: int, value: bytes) -> bytes:
    size = _pack_varint(len(value)) if kind == _BYTES else b""
    return _pack_varint(number << 3 | kind) + size + value


def _pack_varint(value: int) -> bytes:
    """Seven bits per byte, lowest first; the eighth says that more follow."""
    packed = bytearray()
    while value > 127:
        packed.append(value & 127 | 128)
        value >>= 7
    return bytes([*packed, value])


def _pack_float(value: float) -> bytes:
    return struct.pack("<f", ctypes.c_float(value).value)  # infinite where it is too large


def _frame(data: bytes) -> bytes:
    """Length, its checksum, data, their checksum."""
    length = struct.pack("<Q", len(data))
    return length + _pack_checksum(length) + data + _pack_checksum(data)


def _pack_checksum(data: bytes) -> bytes:
    """TFRecord's masked CRC-32C (Castagnoli)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _make_table() -> list[int]:
    table = []
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (0x82F63B78 if entry & 1 else 0)
        table.append(entry)
    return table


_TABLE = _make_table()
