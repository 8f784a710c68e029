"""Save wav2vec 2.0 in the format that transformers loads."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ser_jax.errors import check
from ser_jax.files.atomic import expand, saving, write_atomic
from ser_jax.wav2vec2.architecture import Architecture
from ser_jax.wav2vec2.parameter_names import to_torch


def save_pretrained(
    folder: str | Path,
    architecture: Architecture,
    params: Mapping[str, Any],
    extra: Mapping[str, Any],
    preprocessor: Mapping[str, Any] | None = None,
) -> Path:
    """Write config.json, model.safetensors and preprocessor_config.json, all or nothing.

    Args:
      folder: a new or empty folder.
      architecture: the backbone's sizes.
      params: nested as in Flax, with the backbone under 'backbone' and heads beside it.
      extra: further keys of config.json, such as 'architectures'.
      preprocessor: further keys of preprocessor_config.json.

    Raises:
      UserError: the folder is not empty, or a write failed.
    """
    from safetensors.numpy import save

    folder = expand(folder)
    check(
        not folder.exists() or (folder.is_dir() and not any(folder.iterdir())),
        f"{folder}: exists and is not empty; name a new folder",
    )
    tree = {"wav2vec2" if name == "backbone" else name: leaf for name, leaf in params.items()}
    config = architecture.to_dict() | dict(extra)
    normalised = config.pop("do_normalize")  # transformers keeps it in the preprocessor's file
    usual = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1,
        "do_normalize": normalised, "padding_side": "right", "padding_value": 0.0,
        "sampling_rate": 16000, "return_attention_mask": False,
    }  # fmt: skip
    with saving(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(".unfinished", f".{folder.name}.", folder.parent))
        try:
            write_atomic(beside / "config.json", json.dumps(config, indent=1))
            usual |= dict(preprocessor or {})
            write_atomic(beside / "preprocessor_config.json", json.dumps(usual, indent=1))
            write_atomic(beside / "model.safetensors", save(to_torch(tree), {"format": "pt"}))
            beside.chmod(0o755)
            beside.replace(folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    return folder
