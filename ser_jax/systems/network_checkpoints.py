"""The checkpoints of a network's run, opened for training or for reading."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from ser_jax.config import Config
from ser_jax.data.speakers import DRAWN
from ser_jax.errors import UserError, check
from ser_jax.multihost.processes import is_writer
from ser_jax.multihost.sharing import SharedCheckpoints
from ser_jax.training.checkpoint import Checkpoints
from ser_jax.training.layouts import Layout, replicated, share_out_clips
from ser_jax.training.state import TrainState

CHECKPOINTS = "checkpoints"
"""In a run directory: the folder of its states."""


@contextlib.contextmanager
def open_to_train(
    run_dir: Path, config: Config, layout: Layout, facts: dict[str, Any]
) -> Iterator[Checkpoints | SharedCheckpoints]:
    """The checkpoints of a run, for this process or for all that train it together.

    Raises:
      UserError: they are of other recordings, or of another split, than `facts` say.
    """
    own = _open_own(run_dir, config, facts) if is_writer() else contextlib.nullcontext()
    with own as checkpoints:
        if share_out_clips(layout) is not None:
            yield SharedCheckpoints(checkpoints, replicated(layout))
        else:
            assert checkpoints is not None
            yield checkpoints


@contextlib.contextmanager
def _open_own(run_dir: Path, config: Config, facts: dict[str, Any]) -> Iterator[Checkpoints]:
    with contextlib.closing(Checkpoints(run_dir / CHECKPOINTS)) as checkpoints:
        if (latest := checkpoints.latest_epoch()) is not None:
            found = checkpoints.load_facts(latest)
            check(
                found["checksum"] == facts["checksum"],
                f"{checkpoints.folder}: trained on other recordings (checksum {found['checksum']}, "
                f"now {facts['checksum']}); give the same data.root, or another --run_dir",
            )
            # Versions that saved no checksum of the split drew speakers by another rule.
            drawn = config.data.protocol in DRAWN
            check(
                found.get("split", None if drawn else facts["split"]) == facts["split"],
                f"{checkpoints.folder}: was trained on another split than data.protocol="
                f"{config.data.protocol} makes now, as an earlier version may have; choose another "
                "--run_dir",
            )
        yield checkpoints


@contextlib.contextmanager
def open_to_read(run_dir: Path) -> Iterator[tuple[Checkpoints, int]]:
    """The checkpoints of a run, which may be in training elsewhere, and the latest epoch there.

    Raises:
      UserError: there is none yet, or they are damaged.
    """
    folder = run_dir / CHECKPOINTS
    unfinished = f"{run_dir}: holds no checkpoint yet; train it with the same ser-jax train command"
    check(folder.is_dir(), unfinished)
    with contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
        latest = checkpoints.latest_epoch()
        if latest is None:
            raise UserError(unfinished)
        yield checkpoints, latest


def bind_shapes(shapes: TrainState) -> TrainState:
    """Shapes and types of a state on JAX's default device."""
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), shapes
    )
