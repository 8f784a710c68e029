"""Audio that libsndfile cannot read, decoded by ffmpeg if it is on PATH."""

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from os import fsencode
from pathlib import Path

import numpy as np

from ser_jax.errors import UserError, check

_CUT = ("partial file", "ended prematurely")  # how ffmpeg describes a truncated file


def find_ffmpeg() -> str | None:
    """Path of the program; `None` if it is not on PATH."""
    return shutil.which("ffmpeg")


class Pipe:
    """A sound file decoded by ffmpeg, one block at a time.

    Attributes:
      rate_hz: of the file, in Hz.
    """

    def __init__(self, path: Path):
        """
        Raises:
          UserError: ffmpeg cannot read it, or it holds no audio.
        """
        program = find_ffmpeg()
        assert program is not None
        self._path = path
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        # A Sun au file starts with rate and channels, and needs no length.
        line = [
            program, "-nostdin", "-v", "error", "-i", b"file:" + fsencode(path), "-map", "0:a:0",
            "-c:a", "pcm_f32be", "-f", "au", "pipe:1",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._said
        )
        assert self._process.stdout is not None
        self._out = self._process.stdout
        try:
            head = self._out.read(24)
            if len(head) < 24:
                self._raise_failed()
            offset, _, _, self.rate_hz, self._channels = struct.unpack(">4x5I", head)
            self._out.read(offset - 24)
        except BaseException:
            self.close()
            raise

    def iterate(self, n_frames: int) -> Iterator[np.ndarray]:
        """Blocks of `n_frames`, float32 [n, channels]; the last one may be shorter.

        Raises:
          UserError: the file is damaged or truncated.
        """
        width = 4 * self._channels
        while block := self._out.read(n_frames * width):
            whole = len(block) // width * width
            yield np.frombuffer(block[:whole], ">f4").astype("f4").reshape(-1, self._channels)
        said = self._read_said()
        if self._process.wait():
            self._raise_failed()
        check(
            not any(words in said for words in _CUT),
            f"{self._path}: truncated, according to ffmpeg; copy or download it again",
        )

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        self._out.close()
        self._process.wait()
        self._said.close()

    def _read_said(self) -> str:
        self._process.wait()
        self._said.seek(0)
        return self._said.read().decode(errors="replace")

    def _raise_failed(self) -> None:
        said = self._read_said()
        check("matches no streams" not in said, f"{self._path}: holds no audio; give another file")
        lines = [re.sub(r"^(\[[^\]]*\] ?)+", "", line) for line in said.splitlines()]
        reason = next(filter(None, lines), f"exit status {self._process.returncode}")
        raise UserError(
            f"{self._path}: cannot be decoded by ffmpeg: {reason.strip().rstrip('.')}; copy or "
            "download it again"
        )
