"""The watch that processes keep on each other while they train together; knows nothing of JAX.

JAX notices a dead process as well, but aborts with a page of C++, and for a dead coordinator in the
very moment. So every process keeps one connection of its own to process 0, beats on it, and ends
with one line as soon as a connection closes or falls silent.
"""

import contextlib
import json
import os
import shlex
import socket
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

DIED = 75
"""Exit status when another process has died: EX_TEMPFAIL, the same command goes on."""
BEAT_S = 1.0
GRACE_S = 2.0
"""How long an error waits for news of a death, which may be its cause."""


@dataclass(frozen=True)
class Peer:
    """A process as it presents itself: its number, of how many, on which host, its system's id."""

    process: int
    count: int
    host: str
    pid: int

    def __str__(self) -> str:
        role = "coordinator" if self.process == 0 else "worker"
        return f"process {self.process} ({role}, pid {self.pid} on {self.host})"


class Link:
    """One connection that carries messages, one JSON object a line; an empty line is a beat."""

    def __init__(self, connection: socket.socket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._lock = threading.Lock()
        self._rest = b""

    def send(self, message: dict[str, Any] | None = None) -> None:
        """Send a message, or a beat. A connection that is gone is the reader's news to tell."""
        line = json.dumps(message).encode() if message else b""
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(line + b"\n")

    def read(self, silence_s: float) -> dict[str, Any] | None:
        """The next message; None at the end of the connection.

        Raises:
          TimeoutError: nothing came for `silence_s`, not even a beat.
        """
        while True:
            line, found, rest = self._rest.partition(b"\n")
            if found:
                self._rest = rest
                if line:
                    return json.loads(line)
                continue
            self._socket.settimeout(silence_s)
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                raise
            except OSError:
                data = b""
            if not data:
                return None
            self._rest += data

    def close(self) -> None:
        """End the connection, also for a thread that is reading it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Watch:
    """Threads that beat to the other processes, listen to them, and end this one if one dies."""

    def __init__(self, me: Peer, links: dict[int, Link], peers: dict[int, Peer], silence_s: float):
        """
        Args:
          me: this process.
          links: on process 0 one to each other process, elsewhere the one to process 0.
          peers: all processes.
          silence_s: how long a process may say nothing.

        Attributes:
          ending: another process has ended with an error, so this one will as well.
        """
        self.me, self.peers = me, peers
        self._links, self._silence_s = links, silence_s
        self._leaving = False  # this process ends by itself
        self.ending = False
        self._turn = threading.Lock()
        for process in links:
            threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def leave(self, status: int, reason: str) -> None:
        """Tell the others that this process ends by itself, with which status, and why."""
        with self._turn:  # never returns where a verdict was first
            self._leaving = True
        self._send({"end": self.me.process, "status": status, "reason": reason})

    def _send(self, message: dict[str, Any] | None, but: int | None = None) -> None:
        for process, link in self._links.items():
            if process != but:
                link.send(message)

    def _beat(self) -> None:
        while True:
            self._send(None)
            time.sleep(BEAT_S)

    def _listen(self, process: int) -> None:
        ended = False
        while True:
            try:
                message = self._links[process].read(self._silence_s)
            except TimeoutError:
                return self._bury(process, f"was silent for {self._silence_s:g} s")
            if message is None:
                return None if ended else self._bury(process, "died")
            if message.get("end") == process:
                ended = True
            self._hear(process, message)

    def _hear(self, process: int, message: dict[str, Any]) -> None:
        if self.me.process == 0:
            self._send(message, but=process)
        if "dead" in message:
            self._stop(self._mourn(message["dead"], message["how"]), DIED)
        elif message["status"] != 0:
            self.ending = True
            peer, reason = self.peers[message["end"]], message["reason"]
            end = (f"{peer} {reason}", message["status"])
            # A little later, since this process may be about to say the same of itself.
            threading.Timer(2 * GRACE_S, self._stop, end).start()

    def _bury(self, process: int, how: str) -> None:
        if self.ending:
            return
        if self.me.process == 0:
            self._send({"dead": process, "how": how}, but=process)
        self._stop(self._mourn(process, how), DIED)

    def _mourn(self, process: int, how: str) -> str:
        if process == self.me.process:
            return f"the others have given this process up, since it {how}; {_say_how_to_resume()}"
        return f"{self.peers[process]} {how}; {_say_how_to_resume()}"

    def _stop(self, reason: str, status: int) -> None:
        """End this process at once, whatever its main thread does: a collective never returns."""
        self._turn.acquire()
        if self._leaving:
            self._turn.release()
            return
        is_terminal = sys.stderr.isatty()
        before, after = ("\r\n", "\x1b[?25h") if is_terminal else ("", "")  # a bar hid the cursor
        os.write(2, f"{before}ser-jax: error: {' '.join(reason.split())}\n{after}".encode())
        os._exit(status)


def _say_how_to_resume() -> str:
    command = shlex.join(getattr(sys, "orig_argv", sys.argv))
    return (
        f"to go on from the last finished epoch, start all processes again, this one by: {command}"
    )
