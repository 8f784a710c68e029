"""The folder of a run's checkpoints: whether it is still there, and what a failed save has left."""

import contextlib
import errno
import os
import shutil
import time
from pathlib import Path

from ser_jax.files.atomic import plainly_named

_CLEAR_TRIES = 10
"""How often what a failed save has left is deleted, a tenth of a second apart, until it is gone."""


class CheckpointFolder:
    """A folder that is held open while checkpoints are saved in it.

    Attributes:
      path: as it is called.
      plain: the same by a name that orbax can read.
    """

    def __init__(self, path: Path, *, read_only: bool):
        """
        Args:
          path: made if it does not exist, unless `read_only`.
          read_only: nothing is saved in it.
        """
        self.path = path
        self._links = contextlib.ExitStack()
        self._place: int | None = None  # open, so that no other folder gets its number
        if not read_only:
            path.mkdir(parents=True, exist_ok=True)
            self.clear_unfinished()
            self._place = os.open(path, os.O_RDONLY)
        self.plain = self._links.enter_context(plainly_named(path))

    def is_elsewhere(self) -> bool:
        """Whether the folder was moved or deleted since it was opened."""
        if self._place is None:
            return False
        try:
            return not os.path.samestat(self.path.stat(), os.fstat(self._place))
        except FileNotFoundError:
            return True

    def make_error(self) -> FileNotFoundError:
        """What to raise where it is elsewhere."""
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))

    def clear_unfinished(self) -> None:
        """Delete what a save that was killed or that failed has left beside its place.

        Threads of a save that failed may go on writing for a moment, so that a folder is not empty
        any more when it is to be removed: it is tried again.
        """
        for _ in range(_CLEAR_TRIES):
            lefts = list(self.path.glob("*.orbax-checkpoint-tmp*"))
            for left in lefts:
                shutil.rmtree(left, ignore_errors=True)
            if not any(left.exists() for left in lefts):
                return
            time.sleep(0.1)

    def close(self) -> None:
        """Let go of it; where it is no more, delete what a save has made there."""
        self._links.close()
        if self.is_elsewhere():
            self._clear_place()
        if self._place is not None:
            os.close(self._place)
            self._place = None

    def _clear_place(self) -> None:
        """Delete what a save has made where the folder is no more, that it may come back."""
        for _ in range(_CLEAR_TRIES):  # its threads may go on for a moment
            self.clear_unfinished()
            with contextlib.suppress(OSError):  # not empty: another's
                self.path.rmdir()
                self.path.parent.rmdir()
                return
            time.sleep(0.1)
