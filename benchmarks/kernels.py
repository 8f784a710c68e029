"""Kernels, launches and bytes of a program that XLA has compiled for a GPU, read from its texts."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4,
    "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8,
}  # fmt: skip
_SHAPE = re.compile(r"\b(" + "|".join(_BYTES) + r")\[([\d,]*)\]")
_COMPUTATION = re.compile(r"\n(?=(?:ENTRY )?%[\w.\-]+ \()")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([a-z][a-z0-9\-]*)\((.*)$")
_FREE = {
    "parameter", "get-tuple-element", "tuple", "bitcast", "constant", "while", "fusion-done",
    "copy-done", "async-done", "after-all",
}  # fmt: skip
_THUNK = re.compile(r"^( *)\d+: k(\w+)")
_NO_KERNEL = {"While", "CommandBuffer", "AsyncStart", "AsyncDone", "DynamicSliceFusion"}


class Count(NamedTuple):
    """What one call of a program does.

    Attributes:
      kernels: kernels and copies that run, each turn of a loop counted.
      launches: times that the host gives the device something to do; a command buffer is one.
      n_bytes: operands and results of all instructions: a bound, since a fusion may read a part of
        an operand only.
    """

    kernels: int
    launches: int
    n_bytes: int


def count_kernels(text: str, dump: Path) -> Count:
    """Count one program.

    Args:
      text: the optimised program, `compiled.as_text()`.
      dump: folder of `--xla_dump_to` with nothing but this program in it.

    Raises:
      FileNotFoundError: XLA has dumped no sequence of thunks; this version names it otherwise.
    """
    (path,) = dump.glob("*thunk_sequence_after_thunk_passes*") or [None]
    if path is None:
        raise FileNotFoundError(f"{dump}: no thunk_sequence_after_thunk_passes in it")
    loops, n_bytes = _walk(text)
    kernels, launches = _count_thunks(path.read_text().splitlines(), loops)
    return Count(kernels, launches, n_bytes)


def _walk(text: str) -> tuple[list[int], int]:
    """Turns of all loops in the order of the program (1 where unknown), and bytes moved."""
    parts: dict[str, str] = {}
    entry = ""
    for part in _COMPUTATION.split(text):
        if found := re.match(r"(ENTRY )?%([\w.\-]+) \(", part):
            parts[found[2]] = part
            entry = found[2] if found[1] else entry
    loops: list[int] = []

    def count(name: str) -> int:
        total, types = 0, {}
        for line in parts[name].split("\n")[1:]:
            if not (found := _INSTRUCTION.match(line)):
                continue
            result, kind, operation, rest = found.groups()
            types[result] = kind
            if operation == "while":
                turns = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
                n = int(turns[1]) if turns else 1
                loops.append(n)
                body = re.search(r"body=%([\w.\-]+)", line)
                total += n * count(body[1]) if body else 0
            elif operation not in _FREE:
                operands = (types.get(name, "") for name in re.findall(r"%([\w.\-]+)", rest))
                total += _count_bytes(kind) + sum(map(_count_bytes, operands))
        return total

    return loops, count(entry)


def _count_bytes(kind: str) -> int:
    total = 0
    for name, dims in _SHAPE.findall(kind):
        size = _BYTES[name]
        for dim in filter(None, dims.split(",")):
            size *= int(dim)
        total += size
    return total


class _Frame(NamedTuple):
    """A loop or a command buffer that is open: its indentation, its turns, who launches in it."""

    indent: int
    turns: int
    recorded: bool


def _count_thunks(lines: list[str], loops: list[int]) -> tuple[int, int]:
    """Kernels and launches of a listing of thunks, in which what belongs to one is indented."""
    kernels = launches = 0
    turns_of: Iterator[int] = iter(loops)
    frames = [_Frame(-1, 1, False)]
    for line in lines:
        if not (found := _THUNK.match(line)):
            continue
        indent, kind = len(found[1]), found[2]
        while frames[-1].indent >= indent:
            frames.pop()
        _, turns, recorded = frames[-1]
        kernels += turns * (kind not in _NO_KERNEL)
        if not recorded and kind not in ("While", "AsyncStart", "AsyncDone"):
            launches += turns
        if kind == "While":
            frames.append(_Frame(indent, turns * next(turns_of, 1), recorded))
        elif kind == "CommandBuffer":
            frames.append(_Frame(indent, turns, True))
        elif kind == "DynamicSliceFusion":  # launched as the copy in it
            launches -= turns * (not recorded)
    return kernels, launches
