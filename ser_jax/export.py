"""A trained run as a folder that other programs read: the formats of Hugging Face transformers."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ser_jax.errors import check, warn
from ser_jax.files import expand, saving, write_atomic
from ser_jax.inference.loading import LoadedRun, load_run
from ser_jax.jax_defaults import with_jax_defaults
from ser_jax.models.wav2vec2.architecture import Architecture
from ser_jax.weights import merge_lora, to_torch


@with_jax_defaults
def export(run_dir: str | Path, folder: str | Path, format: str = "transformers") -> Path:
    """Write a fine-tuned wav2vec 2.0 as PyTorch's AutoModelForAudioClassification loads it.

    Low-rank additions are put into the kernels. A warning says where transformers' own way of
    padding and normalising clips is not the run's, so that its pipeline gives other logits.

    Args:
      run_dir: a run directory of model.name=wav2vec2.
      folder: new, or empty.
      format: transformers, the only one.

    Returns:
      The folder.

    Raises:
      UserError: as `load_run`; another network; a folder that holds something; a failed write.
    """
    check(format == "transformers", f"format={format}: must be transformers")
    run = load_run(run_dir)
    name = run.config.model.name
    check(
        name == "wav2vec2",
        f"{run_dir}: a run of {name}, which transformers does not have; give one of wav2vec2",
    )
    return export_loaded(run, folder)


def export_loaded(run: LoadedRun, folder: str | Path) -> Path:
    """`export` of a run in memory."""
    assert run.spec is not None
    settings, masked = run.spec.settings, run.config.model.mask_padding
    params = dict(merge_lora(run.variables["params"], settings.lora_alpha))
    labels = dict(enumerate(run.labels))
    extra = {
        "architectures": ["Wav2Vec2ForSequenceClassification"],
        "classifier_proj_size": settings.projector,
        "use_weighted_layer_sum": settings.weighted_layers,
        "id2label": {str(number): label for number, label in labels.items()},
        "label2id": {label: number for number, label in labels.items()},
    }
    preprocessor = {
        "sampling_rate": run.config.data.rate_hz,
        # transformers normalises over the samples that its mask keeps.
        "return_attention_mask": masked,
        "max_length": run.n_samples,
    }
    path = save_pretrained(folder, run.spec.architecture, params, extra, preprocessor)
    if said := _explain_padding(run):
        warn(f"{path}: {said}")
    return path


def _explain_padding(run: LoadedRun) -> str | None:
    """How clips are to be prepared for the run's logits, where transformers' pipeline does not."""
    assert run.spec is not None
    masked, before = run.config.model.mask_padding, run.spec.settings.normalise_before_padding
    architecture = run.spec.architecture
    to = f"to {run.n_samples} samples"
    if architecture.do_normalize and masked != before:
        order = "before" if before else "after"
        return (
            f"the run normalises clips {order} padding them {to}, its feature extractor the other "
            "way round, so that logits differ; normalise by hand, with do_normalize=False"
        )
    if masked and architecture.feat_extract_norm != "group":  # then padding changes nothing
        return None
    return (
        f"the run pads clips {to}, transformers' pipeline does not, so that its logits differ; "
        f"call the feature extractor with padding='max_length', max_length={run.n_samples}, "
        "truncation=True"
    )


def save_pretrained(
    folder: str | Path,
    architecture: Architecture,
    params: Mapping[str, Any],
    extra: Mapping[str, Any],
    preprocessor: Mapping[str, Any] | None = None,
) -> Path:
    """Write config.json, model.safetensors and preprocessor_config.json, all or nothing.

    Args:
      folder: new, or empty.
      architecture: of the backbone.
      params: nested as in Flax, the backbone below 'backbone', heads beside it.
      extra: what config.json says beside the architecture, 'architectures' among it.
      preprocessor: what preprocessor_config.json says beside the usual.

    Raises:
      UserError: the folder holds something; a write failed.
    """
    from safetensors.numpy import save

    folder = expand(folder)
    check(
        not folder.exists() or (folder.is_dir() and not any(folder.iterdir())),
        f"{folder}: exists and is not empty; name a new folder",
    )
    tree = {"wav2vec2" if name == "backbone" else name: leaf for name, leaf in params.items()}
    config = architecture.to_dict() | dict(extra)
    normalised = config.pop("do_normalize")  # which transformers keeps in the other file
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
