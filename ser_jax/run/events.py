"""What happened in a run: events.jsonl, and the same as TensorBoard scalars."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ser_jax.errors import UserError
from ser_jax.files.atomic import MOVED, saving, write_atomic
from ser_jax.run.file_names import EVENTS_FILE
from ser_jax.run.tensorboard import frame_event, frame_header

_TB_PREFIX = "events.out.tfevents."
_NOT_SCALARS = ("event", "epoch", "step")


class EventLog:
    """Appends events to RUN_DIR/events.jsonl and their figures to RUN_DIR/tensorboard.

    An event is a flat dictionary with "event" (its kind) and, where it has a place in training,
    "step". Give it to `fit` as `on_event`. Each event is on disk when the call returns. Nothing is
    kept open, so there is nothing to close, and a full disk raises at the event that meets it.

    A resumed run calls `cut_back` first. It may send "start" again, which replaces the first:
    the log of a resumed run is that of an uninterrupted one.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self._path = Path(run_dir) / EVENTS_FILE
        self._tb_dir = Path(run_dir) / "tensorboard"
        self._tb_path: Path | None = None
        self._has_start = False

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Write one event.

        Raises:
          UserError: it cannot be written (full disk, read-only file system).
        """
        if self._tb_path is None:  # the first event: mend what a killed run may have left
            self._rewrite(load_events(self._path.parent) if self._path.exists() else [])
        plain = {key: _make_plain(value) for key, value in event.items()}
        if plain.get("event") == "start":
            if self._has_start:
                self._replace_start(plain)
                return
            self._has_start = True
        _append(self._path, _make_line(plain))
        record = _make_record(plain)
        if record and self._tb_path:
            _append(self._tb_path, record)

    def cut_back(self, step: int) -> None:
        """Drop every event after `step`, and an "end", from both logs; no log is no error.

        An event without a step stands at the step of the one before it.
        """
        if not self._path.exists():
            return
        kept, at = [], 0
        for event in load_events(self._path.parent):
            at = event.get("step", at)
            if at <= step and event.get("event") != "end":
                kept.append(event)
        self._rewrite(kept)

    def _replace_start(self, start: dict[str, Any]) -> None:
        """Record that the run has other settings now, such as more epochs."""
        events = load_events(self._path.parent)
        place = [event.get("event") for event in events].index("start")
        if events[place] != start:
            self._rewrite([*events[:place], start, *events[place + 1 :]])

    def _rewrite(self, events: list[dict[str, Any]]) -> None:
        """Replace both logs by `events`. A new file name makes an open TensorBoard reload."""
        write_atomic(self._path, b"".join(map(_make_line, events)))
        self._has_start = any(event.get("event") == "start" for event in events)
        self._tb_path = self._tb_dir / f"{_TB_PREFIX}{int(time.time()):010d}.ser_jax"
        write_atomic(self._tb_path, frame_header() + b"".join(map(_make_record, events)))
        with saving(self._tb_dir):
            for old in self._tb_dir.glob(f"{_TB_PREFIX}*"):
                if old != self._tb_path:
                    old.unlink()


def make_start(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The first event of a run: its identity and its recordings."""
    return {"event": "start", "identity": facts["identity"], "checksum": facts["checksum"]}


def load_events(run_dir: str | Path) -> list[dict[str, Any]]:
    """The events of a run, in order. A torn last line, from a kill, is left out.

    Raises:
      UserError: events.jsonl is missing, or a line other than the last is no JSON object.
    """
    path = Path(run_dir) / EVENTS_FILE
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot read: {reason}; ser-jax train writes it") from error
    events = []
    for number, line in enumerate(lines[:-1], 1):  # what follows the last line end is torn or empty
        try:
            event = json.loads(line)
            if not isinstance(event, dict):
                raise ValueError("no object")
        except ValueError as error:
            raise UserError(
                f"{path}: line {number} is no JSON object; delete that line, or train the run anew"
            ) from error
        events.append(event)
    return events


def drop_validation(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Events without figures of validation clips, which mean nothing where these are trained on."""
    return [
        {key: value for key, value in event.items() if not key.startswith("val_")}
        for event in events
    ]


def _make_plain(value: Any) -> Any:
    """A JSON value; NumPy and JAX scalars become Python's, NaN and infinity (not JSON) null."""
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _make_line(event: Mapping[str, Any]) -> bytes:
    return json.dumps(event, allow_nan=False).encode() + b"\n"


def _append(path: Path, data: bytes) -> None:
    """Append unbuffered. The loop: a full disk may take a part of a write without an error."""
    with saving(path):
        try:
            handle = os.open(path, os.O_WRONLY | os.O_APPEND)
        except FileNotFoundError as error:  # not made again: its run is elsewhere
            raise UserError(f"{path.parent}: {MOVED}") from error
        try:
            while data:
                data = data[os.write(handle, data) :]
        except OSError as error:
            error.filename = str(path)
            raise
        finally:
            os.close(handle)


def _make_tag(key: str) -> str:
    """`train_loss` to `loss/train`, so that TensorBoard shows train and val side by side."""
    part, _, figure = key.partition("_")
    return f"{figure}/{part}" if part in ("train", "val", "test") else key


def _make_record(event: Mapping[str, Any]) -> bytes:
    """The event's numbers as one TensorBoard record; nothing where it has no step or no numbers."""
    scalars = {
        _make_tag(key): value
        for key, value in event.items()
        if key not in _NOT_SCALARS
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    }
    if "step" not in event or not scalars:
        return b""
    return frame_event(event["step"], scalars)
