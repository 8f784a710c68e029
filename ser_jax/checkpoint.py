"""Checkpoints of a run by orbax: the latest epoch and the best one, each complete or not there."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax

from ser_jax.errors import UserError
from ser_jax.files import saving

_IMPROVED_AT = "improved_at"


class Checkpoints:
    """The checkpoints of one run, numbered by epoch.

    orbax writes each beside its place and renames it, so a kill leaves the one before. Only the
    latest and the best on validation are kept.
    """

    def __init__(self, folder: str | Path, *, read_only: bool = False):
        """
        Args:
          folder: made if it does not exist.
        """
        import orbax.checkpoint as ocp

        self.folder = Path(folder).absolute()
        policies = ocp.checkpoint_managers
        options = ocp.CheckpointManagerOptions(
            create=not read_only,
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(n=1),
                    # Epochs that did not improve carry -1, so the greatest is the best epoch.
                    policies.BestN(get_metric_fn=lambda metrics: metrics[_IMPROVED_AT], n=1),
                ]
            ),
            enable_async_checkpointing=False,
        )
        with saving(self.folder):
            if not read_only:
                self.folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, epoch: int, state: Any, facts: dict[str, Any], *, improved: bool) -> None:
        """Save the state after `epoch` with JSON-able `facts` about the run so far.

        Raises:
          UserError: the disk is full or read-only; what was saved before is still there.
        """
        import orbax.checkpoint as ocp

        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(state), facts=ocp.args.JsonSave(facts)
        )
        metrics = {_IMPROVED_AT: epoch if improved else -1}
        with saving(self.folder):
            try:
                self._manager.save(epoch, args=arguments, metrics=metrics, force=True)
                self._manager.wait_until_finished()
            except OSError:
                raise
            except Exception as error:  # tensorstore reports a full disk as a ValueError
                reason = str(error).splitlines()[0][:200]
                raise UserError(
                    f"{self.folder}: cannot write the checkpoint of epoch {epoch}: {reason}; "
                    "free some space and run the same command again to go on"
                ) from error

    def latest_epoch(self) -> int | None:
        """The last epoch saved; None before the first."""
        return self._manager.latest_step()

    def load_facts(self, epoch: int) -> dict[str, Any]:
        """The facts saved with `epoch`."""
        import orbax.checkpoint as ocp

        return self._restore(epoch, facts=ocp.args.JsonRestore())["facts"]

    def load_state(self, epoch: int, like: Any) -> Any:
        """The state saved with `epoch`, in the shapes and types of `like`.

        Raises:
          UserError: the checkpoint is damaged, or of another network.
        """
        import orbax.checkpoint as ocp

        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._restore(epoch, state=ocp.args.StandardRestore(abstract))["state"]

    def _restore(self, epoch: int, **items: Any) -> Any:
        import orbax.checkpoint as ocp

        try:
            if "state" in items:
                _read_through(self.folder / str(epoch) / "state")
            return self._manager.restore(epoch, args=ocp.args.Composite(**items))
        except Exception as error:  # orbax raises many kinds for one fact: it cannot be read
            raise UserError(
                f"{self.folder / str(epoch)}: damaged checkpoint, or one of another network; "
                "train again into a new run_dir"
            ) from error

    def close(self) -> None:
        """Let go of orbax' threads."""
        self._manager.close()


def _read_through(folder: Path) -> None:
    """Raise where a file of a saved state is missing or cut short.

    orbax would raise as well, but its many reads at once go on failing after it has, and print
    tracebacks for as long as the program lives.
    """
    import tensorstore

    store = tensorstore.KvStore.open(f"file://{quote(str(folder))}/|ocdbt:").result()
    keys = store.list().result()
    if not keys:
        raise FileNotFoundError(folder)
    for key in keys:
        store.read(key).result()
