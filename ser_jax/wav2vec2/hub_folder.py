"""The folder of a published checkpoint, local or from the Hugging Face Hub, and its files."""

import functools
import json
import os
from pathlib import Path
from typing import Any

from ser_jax.errors import UserError, check
from ser_jax.files.atomic import expand
from ser_jax.files.stand_ins import check_not_pointer

WEIGHTS = ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack")
"""Weight files, in order of preference."""
INDEX = "model.safetensors.index.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")


@functools.cache
def find_folder(path: str | Path) -> Path:
    """The folder of a checkpoint; if `path` is a hub id, it is downloaded first.

    Raises:
      UserError: `path` is neither a folder nor an id, or the checkpoint is neither in the local
        cache nor available from the hub.
    """
    folder = expand(path)
    if folder.is_dir():
        return folder
    text = str(path)
    is_id = text.count("/") == 1 and not text.startswith((".", "/", "~")) and os.sep == "/"
    check(
        is_id and not folder.exists(),
        f"backbone.path={text}: no such folder; name one with config.json and weights, or a hub id "
        "such as facebook/wav2vec2-base-960h",
    )
    return _download(text)


def _download(hub_id: str) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download

    try:
        weights = list(WEIGHTS)
        if not constants.HF_HUB_OFFLINE:  # one weight file is enough
            there = HfApi().list_repo_files(hub_id)
            weights = [name for name in WEIGHTS if name in there][:1]
            weights = weights or [INDEX, "model-*.safetensors"]
        patterns = ["config.json", *PROCESSORS, *weights]
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except Exception as error:  # raised by the hub, its HTTP library or the system
        raise UserError(
            f"backbone.path={hub_id}: cannot be downloaded from the Hugging Face Hub "
            f"({type(error).__name__}); download config.json and model.safetensors by other "
            "means and name their folder"
        ) from error


def read_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file; raises `UserError` if the file is missing or damaged."""
    try:
        tree = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise UserError(
            f"{file}: no such file; name a folder with config.json and weights"
        ) from error
    except OSError as error:
        raise UserError(f"{file}: cannot read: {error.strerror}; check its permissions") from error
    except ValueError as error:
        check_not_pointer(file)
        raise UserError(f"{file}: cannot be read as JSON; download it again") from error
    check(isinstance(tree, dict), f"{file}: is not a JSON object; download it again")
    return tree
