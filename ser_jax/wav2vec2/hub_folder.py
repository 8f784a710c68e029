"""The folder of a published checkpoint, at hand or from the Hugging Face hub, and its files."""

import functools
import json
import os
from pathlib import Path
from typing import Any

from ser_jax.errors import UserError, check
from ser_jax.files.atomic import expand
from ser_jax.files.stand_ins import check_not_pointer

WEIGHTS = ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack")
"""Files of weights, in the order in which they are looked for."""
INDEX = "model.safetensors.index.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")


@functools.cache
def find_folder(path: str | Path) -> Path:
    """The folder of a checkpoint, downloaded from the hub if `path` is no folder but an id.

    Raises:
      UserError: neither; or the hub cannot be reached and does not have it in its cache.
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
        if not constants.HF_HUB_OFFLINE:  # one file of weights is enough
            there = HfApi().list_repo_files(hub_id)
            weights = [name for name in WEIGHTS if name in there][:1]
            weights = weights or [INDEX, "model-*.safetensors"]
        patterns = ["config.json", *PROCESSORS, *weights]
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except Exception as error:  # the hub's, its HTTP library's and the system's own
        raise UserError(
            f"backbone.path={hub_id}: cannot be had from the Hugging Face hub "
            f"({type(error).__name__}); download config.json and model.safetensors elsewhere and "
            "name their folder"
        ) from error


def read_object(file: Path) -> dict[str, Any]:
    """What a JSON file of the folder holds; a `UserError` where it is missing or damaged."""
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
    check(isinstance(tree, dict), f"{file}: must hold an object; download it again")
    return tree
