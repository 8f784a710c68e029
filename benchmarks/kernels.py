"""Kernels, launches and bytes of a program that XLA compiled for a GPU, read from its dumps."""

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
_INSTRUCTION = re.compile(r"\s+(ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([a-z][a-z0-9\-]*)\((.*)$")
_CALLED = re.compile(r"(?:calls|to_apply)=%([\w.\-]+)")
_BRANCHES = re.compile(r"(?:branch_computations=\{|(?:true|false)_computation=)([^},]*)")
_WORKSPACE = re.compile(r"\bs8\[\d+\]")
"""Scratch memory of a library's product or convolution, of which little is touched."""
_FREE = {
    "parameter", "get-tuple-element", "tuple", "bitcast", "constant", "while", "fusion-done",
    "copy-done", "async-done", "after-all",
}  # fmt: skip
_THUNK = re.compile(r"^( *)\d+: k(\w+)")
_NO_KERNEL = {"While", "CommandBuffer", "AsyncStart", "AsyncDone", "DynamicSliceFusion"}


class Count(NamedTuple):
    """What one call of a program does.

    Attributes:
      kernels: kernels and copies that run, in every iteration of a loop.
      launches: work that the host submits to the device; a command buffer counts once.
      n_bytes: read and written by all kernels; of an operand only what a kernel's slices and
        gathers take of it, and of a conditional only its largest branch.
    """

    kernels: int
    launches: int
    n_bytes: int


def count_kernels(text: str, dump: Path) -> Count:
    """Count one program.

    Args:
      text: the optimised program, `compiled.as_text()`.
      dump: folder of `--xla_dump_to`, holding only this program.

    Raises:
      FileNotFoundError: XLA dumped no thunk sequence; this version names it differently.
    """
    path = next(dump.glob("*thunk_sequence_after_thunk_passes*"), None)
    if path is None:
        raise FileNotFoundError(f"{dump}: no thunk_sequence_after_thunk_passes in it")
    loops, n_bytes = _walk(text)
    kernels, launches = _count_thunks(path.read_text().splitlines(), loops)
    return Count(kernels, launches, n_bytes)


class _Instruction(NamedTuple):
    """One line of a computation; `kind` is the type of its result, `line` its whole text."""

    is_root: bool
    name: str
    kind: str
    operation: str
    operands: list[str]
    line: str


def _parse(text: str) -> tuple[str, dict[str, list[_Instruction]]]:
    """Parse the name of the entry computation, and all computations."""
    entry, computations = "", {}
    for part in _COMPUTATION.split(text):
        if not (head := re.match(r"(ENTRY )?%([\w.\-]+) \(", part)):
            continue
        entry = head[2] if head[1] else entry
        rows = computations[head[2]] = []
        for line in part.split("\n")[1:]:
            if found := _INSTRUCTION.match(line):
                root, name, kind, operation, rest = found.groups()
                operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
                rows.append(_Instruction(bool(root), name, kind, operation, operands, line))
    return entry, computations


def _walk(text: str) -> tuple[list[int], int]:
    """Find the iterations of all loops in program order (1 where unknown), and bytes moved."""
    entry, computations = _parse(text)
    loops: list[int] = []

    def count(name: str) -> int:
        total = 0
        sizes: dict[str, int] = {}
        for row in computations[name]:
            kind = row.kind if row.operation != "custom-call" else _WORKSPACE.sub("", row.kind)
            sizes[row.name] = _count_bytes(kind)
            if row.operation == "while":
                turns = re.search(r'known_trip_count":\{"n":"(\d+)"', row.line)
                n = int(turns[1]) if turns else 1
                loops.append(n)
                body = re.search(r"body=%([\w.\-]+)", row.line)
                total += n * count(body[1]) if body else 0
            elif row.operation == "conditional":
                branches = re.findall(r"%([\w.\-]+)", " ".join(_BRANCHES.findall(row.line)))
                total += max((count(branch) for branch in branches), default=0)
            elif row.operation not in _FREE:
                called = _CALLED.search(row.line)
                inner = computations.get(called[1], []) if called else []
                read, written = _find_traffic(inner)
                total += min(sizes[row.name], written) if inner else sizes[row.name]
                for number, operand in enumerate(row.operands):
                    size = sizes.get(operand, 0)
                    total += min(size, read.get(number, size))
        return total

    return loops, count(entry)


def _find_traffic(fused: list[_Instruction]) -> tuple[dict[int, int], int]:
    """Find the bytes that a fusion reads of each operand, by number, and those it writes.

    Walks back from its results, and records what each instruction's users need: a slice or gather
    needs only the part it returns, and an in-place update writes only its part.
    """
    sizes = {row.name: _count_bytes(row.kind) for row in fused}
    updated = {
        row.name: sizes.get(row.operands[1], 0)
        for row in fused if row.operation == "dynamic-update-slice"
    }  # fmt: skip
    needed: dict[str, float] = dict.fromkeys(sizes, 0.0)
    read, written = {}, 0
    for row in reversed(fused):
        size = sizes[row.name]
        if row.is_root:
            needed[row.name] = size
            parts = row.operands if row.operation == "tuple" else [row.name]
            written = sum(updated.get(part, sizes.get(part, 0)) for part in parts)
        wanted = min(needed[row.name], size)
        if row.operation == "parameter":
            number = re.search(r"parameter\((\d+)\)", row.line)
            read[int(number[1]) if number else 0] = round(wanted)
        elif size:
            for place, operand in enumerate(row.operands):
                if operand not in sizes:
                    continue
                if place == 0 and row.operation == "dynamic-update-slice":
                    continue  # stays where it is
                sliced = place == 0 and row.operation in ("slice", "dynamic-slice", "gather")
                needed[operand] += wanted if sliced else sizes[operand] * wanted / size
    return read, written


def _count_bytes(kind: str) -> int:
    total = 0
    for name, dims in _SHAPE.findall(kind):
        size = _BYTES[name]
        for dim in filter(None, dims.split(",")):
            size *= int(dim)
        total += size
    return total


class _Frame(NamedTuple):
    """An open loop or command buffer: its indentation, its iterations, who launches in it."""

    indent: int
    turns: int
    recorded: bool


def _count_thunks(lines: list[str], loops: list[int]) -> tuple[int, int]:
    """Count kernels and launches in a listing of thunks, where indentation shows nesting."""
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
