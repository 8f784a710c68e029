"""What a section knows: where its rows go, how long it may take.

Imports only the standard library.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
ROWS_FILE = "rows.jsonl"


@dataclass(frozen=True)
class Context:
    """What the orchestrator hands to a section.

    Attributes:
      section: its name, which goes into its rows.
      call: when this call of the orchestrator began; if a section runs twice, its later rows count.
      out: folder of the results.
      work: scratch folder, gone at the end of the call.
      dry: tiny shapes on a CPU.
      deadline_s: when it is stopped, by the monotonic clock.
      ours_path: folder that ser_jax's processes import from first; `None`: installed packages.
      data_root: folder of the RAVDESS recordings; `None`: synthetic clips of the same shapes.
      store_dir: folder of decoded corpora; `None`: one in `work`.
    """

    section: str
    call: float
    out: str
    work: str
    dry: bool
    deadline_s: float
    ours_path: str | None = None
    data_root: str | None = None
    store_dir: str | None = None

    @classmethod
    def loads(cls, text: str) -> "Context":
        """The context that `dumps` wrote."""
        return cls(**json.loads(text))

    def dumps(self) -> str:
        """As JSON, for a command line."""
        return json.dumps(asdict(self))

    def left_s(self) -> float:
        """Seconds until the section is stopped."""
        return self.deadline_s - time.monotonic()

    def put(self, row: Row) -> None:
        """Append a row to the results; it survives whatever comes after."""
        line = json.dumps({"section": self.section, "call": self.call, **row}) + "\n"
        file = os.open(Path(self.out) / ROWS_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, line.encode())  # in one piece: others append too
            os.fsync(file)
        finally:
            os.close(file)

    def put_rows(self, rows: list[Row]) -> None:
        """`put` of several."""
        for row in rows:
            self.put(row)


def load_rows(out: str | Path) -> list[Row]:
    """Load all rows in `out`; of a repeated section only the last call's, and no torn lines."""
    rows = list(_iterate_rows(Path(out) / ROWS_FILE))
    last: dict[str, float] = {}
    for row in rows:
        last[row["section"]] = max(row["call"], last.get(row["section"], 0.0))
    return [row for row in rows if row["call"] == last[row["section"]]]


def _iterate_rows(path: Path) -> Iterator[Row]:
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # its writer was killed
            continue
        if isinstance(row, dict) and {"section", "call"} <= row.keys():
            yield row
