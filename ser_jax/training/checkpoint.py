"""Checkpoints of a run by orbax: the latest epoch and the best one, each complete or not there."""

import errno
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from ser_jax.errors import UserError, check
from ser_jax.files.atomic import MOVED, saving
from ser_jax.files.failures import explain_failure, find_reason
from ser_jax.machine.muted import mute_threads
from ser_jax.training.checkpoint_folder import CheckpointFolder
from ser_jax.training.saved_state import copy_to_host, list_saved, restore
from ser_jax.training.state import TrainState


class Checkpoints:
    """The checkpoints of one run, numbered by epoch.

    orbax writes each beside its place and renames it, so a kill leaves the one before. Only the
    latest and the best on validation are kept. What is read is what was saved last: reading waits
    for a save that is under way.
    """

    def __init__(self, folder: str | Path, *, read_only: bool = False):
        """
        Args:
          folder: made if it does not exist, unless `read_only`.
          read_only: for a run that is only used, and that may be in training elsewhere.
        """
        import orbax.checkpoint as ocp

        mute_threads()
        self.folder = Path(folder).absolute()
        # Not orbax' asynchronous save, which keeps its caller for 28 of 109 ms: this takes 3.
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._saving: Future[None] | None = None
        several = jax.process_count() > 1  # orbax would have all of them write and wait
        alone = ocp.options.MultiprocessingOptions(
            active_processes={jax.process_index()}, primary_host=jax.process_index()
        )
        options = ocp.CheckpointManagerOptions(
            create=not read_only and not several,
            enable_async_checkpointing=False,
            multiprocessing_options=alone if several else ocp.options.MultiprocessingOptions(),
        )
        with saving(self.folder):
            self._place = CheckpointFolder(self.folder, read_only=read_only)
            self._manager = ocp.CheckpointManager(self._place.plain, options=options)

    def save(self, epoch: int, state: Any, facts: dict[str, Any], *, best_epoch: int) -> None:
        """Save the state after `epoch` with JSON-able `facts`; only `best_epoch` is kept beside it.

        Returns once the state is copied, so that the next step may take its buffers; a thread
        writes it. The save before is waited for first: no more than one is under way.

        Raises:
          UserError: the save before failed, as `wait` says.
        """
        self.wait()
        copied = copy_to_host(state)
        self._saving = self._thread.submit(self._save, epoch, copied, facts, best_epoch)

    def wait(self) -> None:
        """Wait until what was saved lies on the disk.

        Raises:
          UserError: it does not, as the disk is full or read-only; what lay there still does.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def _save(self, epoch: int, state: Any, facts: dict[str, Any], best_epoch: int) -> None:
        import orbax.checkpoint as ocp

        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(state), facts=ocp.args.JsonSave(facts)
        )
        try:
            self._write(epoch, arguments)
            if self._place.is_elsewhere():  # since a moment ago: orbax has made it again
                shutil.rmtree(self.folder / str(epoch), ignore_errors=True)
                raise self._place.make_error()
            # By what lies there, not by what this process saved: a killed one may have left more.
            for old in self._manager.all_steps():
                if old not in (epoch, best_epoch):
                    self._manager.delete(old)
        except Exception as error:  # tensorstore reports a full disk as a ValueError
            if self._place.is_elsewhere():
                raise UserError(f"{self.folder.parent}: {MOVED}") from error
            raise UserError(
                f"{self.folder}: cannot write the checkpoint of epoch {epoch}: "
                f"{find_reason(error)}; make room, or the folder writable, and run the same "
                "command again to resume"
            ) from error

    def _write(self, epoch: int, arguments: Any) -> None:
        """Write one checkpoint, or leave nothing of it.

        What an earlier save of this process has failed to write may come back for a moment, since
        its threads outlive it: it is cleared away first, and once more if it was too late.
        """
        if self._place.is_elsewhere():  # perhaps another run has begun here
            raise self._place.make_error()
        for attempt in (1, 2):
            self._place.clear_unfinished()
            try:
                self._manager.save(epoch, args=arguments, force=True)
                self._manager.wait_until_finished()
                return
            except Exception as error:
                self._place.clear_unfinished()  # give back the space
                if attempt == 2 or not isinstance(error, FileExistsError):
                    raise

    def latest_epoch(self) -> int | None:
        """The last epoch saved; None before the first."""
        self.wait()
        return self._manager.latest_step()

    def load_facts(self, epoch: int) -> dict[str, Any]:
        """The facts saved with `epoch`."""
        import orbax.checkpoint as ocp

        return self._restore(epoch, facts=ocp.args.JsonRestore())["facts"]

    def load_state(self, epoch: int, like: Any) -> Any:
        """The state saved with `epoch`, in the shapes and types of `like`.

        What of a `TrainState` is frozen is not saved; it is that of `like`.

        Raises:
          UserError: the checkpoint is damaged, cannot be read, or is of another network or version.
        """
        import orbax.checkpoint as ocp

        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, list_saved(like))
        state = self._restore(epoch, state=ocp.args.StandardRestore(abstract))["state"]
        return restore(state, like)

    def load_variables(self, epoch: int, like: TrainState) -> dict[str, Any]:
        """What of the state saved with `epoch` evaluates, as `TrainState.variables` but the frozen.

        Nothing else is read, so that a run outlives changes of the optimiser and of its state.

        Raises:
          UserError: as `load_state`.
        """
        import orbax.checkpoint as ocp

        names = ("average",) if like.average else ("params", "batch_stats")
        wanted = {name: getattr(like, name) for name in names}
        wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, wanted)
        arguments = ocp.args.PyTreeRestore(
            item=wanted,
            restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
            partial_restore=True,
        )
        found = self._restore(epoch, state=arguments)["state"]
        for (path, leaf), here in zip(
            jax.tree.leaves_with_path(wanted), jax.tree.leaves(found), strict=True
        ):
            check(
                leaf.shape == here.shape,
                f"{self.folder / str(epoch)}: holds {jax.tree_util.keystr(path)} of shape "
                f"{here.shape}, the settings of config.yaml give {leaf.shape}; undo the change",
            )
        return found["average"] if like.average else found

    def _restore(self, epoch: int, **items: Any) -> Any:
        import orbax.checkpoint as ocp

        self.wait()
        folder = self.folder / str(epoch)
        try:
            if "state" in items:
                _read_through(self._place.plain / str(epoch) / "state")
            return self._manager.restore(epoch, args=ocp.args.Composite(**items))
        except Exception as error:  # orbax and tensorstore raise many kinds
            others = [step for step in self._manager.all_steps() if step != epoch]
            raise explain_failure(folder, error, others) from error

    def close(self) -> None:
        """End the save that is under way and all threads. Raises: UserError, as `wait`."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._manager.close()
            self._place.close()


def _read_through(folder: Path) -> None:
    """Raise where a file of a saved state is missing or cut short.

    orbax would raise as well, but its many reads at once go on failing after it has, and print
    tracebacks for as long as the program lives.
    """
    import tensorstore

    base = {"driver": "file", "path": f"{folder}/"}
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    keys = store.list().result()
    if not keys:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    for key in keys:
        store.read(key).result()
