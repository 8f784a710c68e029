"""A process group under a limit, with everything that it prints.

Imports the standard library alone.
"""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

GRACE_S = 3.0
"""Between SIGTERM, on which a section may still put what it knows, and SIGKILL."""


class Stopped(BaseException):
    """The call is to end; `signum` is the signal that said so."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum


class Group:
    """A command in a process group of its own, which ends with its last process.

    It is no session of its own, so that what ends this process' session ends the group too.

    Args:
      command: program and arguments.
      environment: all of it.
      folder: where it runs.
      tell: given every line that it prints.

    Attributes:
      last_line: the last line that was not blank; of a traceback the one that says what is wrong.
    """

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        folder: Path,
        tell: Callable[[str], None],
    ):
        self.last_line = ""
        self._tell = tell
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", process_group=0,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self, seconds: float) -> int | None:
        """The exit status; None if it still runs after `seconds`."""
        try:
            return self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> "Group":
        """No process of the group is left: SIGTERM, then SIGKILL to all of it."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            self.wait(GRACE_S)
        self._signal(signal.SIGKILL)  # including what its first process left behind
        self._process.wait()
        self._reader.join(GRACE_S)
        return self

    def _signal(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signum)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.last_line = line.strip() or self.last_line
            self._tell(line)
