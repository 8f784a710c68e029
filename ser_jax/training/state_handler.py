"""The format of a checkpoint: one file of NumPy arrays and one of JSON, as a handler for orbax.

orbax's own handlers write each array in a task of its own. When one fails, the others go on: they
write into a folder that is being deleted, and print tracebacks from threads. A state here lies on
one host, and one thread writes it.
"""

import json
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

_ARRAYS, _FACTS = "state.npz", "facts.json"


class StateHandler(ocp.CheckpointHandler):
    """Saves and restores named arrays with JSON-able facts."""

    def save(self, directory: Any, args: "SaveState") -> None:
        with open(directory / _ARRAYS, "wb") as file:
            np.savez(file, allow_pickle=False, **args.arrays)
            _flush(file)
        with open(directory / _FACTS, "w") as file:
            json.dump(args.facts, file)
            _flush(file)

    def restore(self, directory: Any, args: "RestoreState") -> Any:
        """The facts, or the arrays whose names begin with one of `args.prefixes`."""
        if args.prefixes is None:
            return json.loads((directory / _FACTS).read_text())
        with open(directory / _ARRAYS, "rb") as file, np.load(file) as arrays:
            return {name: arrays[name] for name in arrays if name.startswith(args.prefixes)}


@ocp.args.register_with_handler(StateHandler, for_save=True)
@dataclass
class SaveState(ocp.args.CheckpointArgs):
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


@ocp.args.register_with_handler(StateHandler, for_restore=True)
@dataclass
class RestoreState(ocp.args.CheckpointArgs):
    prefixes: tuple[str, ...] | None
    """None: the facts."""


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
