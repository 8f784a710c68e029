"""Checkpoints of a run by orbax: the latest epoch and the best one, each complete or not there."""

import contextlib
import dataclasses
import json
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ser_jax.errors import UserError
from ser_jax.files.atomic import MOVED, plainly_named, saving
from ser_jax.files.failures import explain_failure, find_reason
from ser_jax.training.saved_state import copy_to_host, list_saved, name_leaves, restore
from ser_jax.training.state import TrainState


class Checkpoints:
    """The checkpoints of one run, numbered by epoch.

    orbax writes each beside its place and renames it, so a kill leaves the one before. Only the
    latest and the best on validation are kept. Reading waits for a save that is under way.
    """

    def __init__(self, folder: str | Path, *, read_only: bool = False):
        """
        Args:
          folder: made if it does not exist, unless `read_only`.
          read_only: for a run that is only used, and that may be in training elsewhere.
        """
        self.folder = Path(os.path.realpath(folder))
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._saving: Future[None] | None = None
        self._place: int | None = None  # open, so that no other folder gets its number
        if not read_only:
            with saving(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._clear_unfinished()
                self._place = os.open(self.folder, os.O_RDONLY)

    def save(self, epoch: int, state: Any, facts: dict[str, Any], *, best_epoch: int) -> None:
        """Save the state after `epoch` with JSON-able `facts`; only `best_epoch` is kept beside it.

        Returns once the state is copied, so that the next step may take its buffers; a thread
        writes it. The previous save is waited for first: only one is under way.

        Raises:
          UserError: the previous save failed, as `wait` says.
        """
        self.wait()
        arrays = name_leaves(copy_to_host(state))
        self._saving = self._thread.submit(self._save, epoch, arrays, facts, best_epoch)

    def wait(self) -> None:
        """Wait until what was saved lies on the disk.

        Raises:
          UserError: it does not, as the disk is full or read-only; what lay there still does.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def _save(
        self, epoch: int, arrays: dict[str, np.ndarray], facts: dict[str, Any], best_epoch: int
    ) -> None:
        try:
            self._check_place(epoch)
            self._write(epoch, arrays, facts)
            self._check_place(epoch)
            # By what lies there, not by what this process saved: a killed one may have left more.
            for old in self._list_epochs():
                if old not in (epoch, best_epoch):
                    shutil.rmtree(self.folder / str(old))
        except OSError as error:
            self._clear_unfinished()  # give back the space
            self._check_place(epoch)
            raise UserError(
                f"{self.folder}: cannot write the checkpoint of epoch {epoch}: "
                f"{find_reason(error)}; make room, or the folder writable, and run the same "
                "command again to resume"
            ) from error

    def _write(self, epoch: int, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        from ser_jax.training.state_handler import SaveState

        with plainly_named(self.folder) as folder, _open_checkpointer() as checkpointer:
            checkpointer.save(folder / str(epoch), args=SaveState(arrays, facts), force=True)

    def _check_place(self, epoch: int) -> None:
        """Raise `UserError` where the folder was moved or deleted since it was opened."""
        assert self._place is not None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(self.folder.stat(), os.fstat(self._place)):
                return
        # orbax makes the folder again where it went after a look here: the run may come back.
        shutil.rmtree(self.folder / str(epoch), ignore_errors=True)
        with contextlib.suppress(OSError):  # missing, or not empty: another's
            self.folder.rmdir()
            self.folder.parent.rmdir()
        raise UserError(f"{self.folder.parent}: {MOVED}")

    def _clear_unfinished(self) -> None:
        """Delete what a save that was killed or that failed has left beside its place."""
        for left in self.folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(left, ignore_errors=True)

    def _list_epochs(self) -> list[int]:
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdigit())

    def latest_epoch(self) -> int | None:
        """The last epoch saved; None before the first."""
        self.wait()
        return max(self._list_epochs(), default=None)

    def load_facts(self, epoch: int) -> dict[str, Any]:
        """The facts saved with `epoch`.

        Raises:
          UserError: the checkpoint is damaged or cannot be read.
        """
        return self._load(epoch, None, lambda facts: facts)

    def load_state(self, epoch: int, like: Any) -> Any:
        """The state saved with `epoch`, in the shapes and types of `like`.

        What of a `TrainState` is frozen is not saved; it is that of `like`.

        Raises:
          UserError: the checkpoint is damaged, cannot be read, or is of another network or version.
        """
        wanted = list_saved(like)

        def make(arrays: dict[str, np.ndarray]) -> Any:
            if unknown := arrays.keys() - name_leaves(wanted).keys():
                raise KeyError(min(unknown))
            state = restore(arrays, wanted)
            return dataclasses.replace(like, **state) if isinstance(like, TrainState) else state

        return self._load(epoch, ("",), make)

    def load_variables(self, epoch: int, like: TrainState) -> dict[str, Any]:
        """What of the state saved with `epoch` evaluates, as `TrainState.variables` but the frozen.

        Nothing else is read, so that a run outlives changes of the optimiser and of its state.

        Raises:
          UserError: as `load_state`.
        """
        names = ("average",) if like.average else ("params", "batch_stats")
        wanted = {name: getattr(like, name) for name in names}
        prefixes = tuple(f"{name}/" for name in names)
        found = self._load(epoch, prefixes, lambda arrays: restore(arrays, wanted))
        return found["average"] if like.average else found

    def _load(self, epoch: int, prefixes: tuple[str, ...] | None, make: Any) -> Any:
        """What `make` makes of the facts, or of the arrays with these prefixes."""
        from ser_jax.training.state_handler import RestoreState

        self.wait()
        folder = self.folder / str(epoch)
        try:
            if (folder / "state").is_dir():
                return make(_load_older(folder, prefixes))
            with _open_checkpointer() as checkpointer:
                return make(checkpointer.restore(folder, args=RestoreState(prefixes)))
        except Exception as error:  # NumPy, JSON, orbax and tensorstore raise many kinds
            others = [other for other in self._list_epochs() if other != epoch]
            raise explain_failure(folder, error, others) from error

    def close(self) -> None:
        """End the save that is under way and its thread. Raises: UserError, as `wait`."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            if self._place is not None:
                os.close(self._place)
                self._place = None


def _open_checkpointer() -> Any:
    """orbax's synchronous checkpointer; of several processes only this one takes part."""
    import orbax.checkpoint as ocp

    from ser_jax.training.state_handler import StateHandler

    process = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(active_processes={process}, primary_host=process)
    several = jax.process_count() > 1  # by default orbax has all of them write and wait
    options = alone if several else ocp.options.MultiprocessingOptions()
    return ocp.Checkpointer(StateHandler(), multiprocessing_options=options)


def _load_older(folder: Path, prefixes: tuple[str, ...] | None) -> dict[str, Any]:
    """The same from a checkpoint in orbax's own format, in which states were saved before."""
    import orbax.checkpoint as ocp

    if prefixes is None:
        return json.loads((folder / "facts" / "metadata").read_text())
    with ocp.PyTreeCheckpointer() as checkpointer:
        arrays = name_leaves(copy_to_host(checkpointer.restore(folder / "state")))
    return {name: array for name, array in arrays.items() if name.startswith(prefixes)}
