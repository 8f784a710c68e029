"""The frozen part of a backbone, saved in the run directory."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ser_jax.config import Config
from ser_jax.files.atomic import write_atomic
from ser_jax.wav2vec2.architecture import BackboneSpec
from ser_jax.wav2vec2.finetune import Prepared

FOLDER = "backbone"
"""Folder of a run directory with config.json and the frozen parameters."""
_FROZEN_FILE = "frozen.safetensors"


def save_frozen(run_dir: Path, prepared: Prepared) -> None:
    """Write the parameters that a run's checkpoints omit, so that the run is self-contained."""
    if prepared.spec is None:
        return
    from safetensors.numpy import save

    folder = run_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    tree = prepared.spec.architecture.to_dict()
    write_atomic(folder / "config.json", json.dumps(tree, indent=1))
    flat = {"/".join(path): np.asarray(leaf) for path, leaf in flatten_dict(prepared.kept).items()}
    write_atomic(folder / _FROZEN_FILE, save(flat))


def load_frozen(run_dir: Path, config: Config) -> tuple[BackboneSpec, dict[str, Any]]:
    """Read what `save_frozen` wrote: the backbone and its frozen parameters.

    Raises:
      UserError: a file is missing or damaged.
    """
    from ser_jax.wav2vec2.published import load_architecture
    from ser_jax.wav2vec2.weight_files import read_safetensors

    folder = run_dir / FOLDER
    spec = BackboneSpec(load_architecture(str(folder)), config.backbone, "wave")
    flat = read_safetensors(folder / _FROZEN_FILE)
    return spec, unflatten_dict({tuple(name.split("/")): leaf for name, leaf in flat.items()})
