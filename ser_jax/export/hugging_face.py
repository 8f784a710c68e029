"""A trained run as a folder in the format of Hugging Face transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.errors import check, warn
from ser_jax.inference.load import LoadedRun, load_run
from ser_jax.machine.jax_defaults import with_jax_defaults
from ser_jax.wav2vec2.saving import save_pretrained


@with_jax_defaults
def export(run_dir: str | Path, folder: str | Path, format: str = "transformers") -> Path:
    """Write a fine-tuned wav2vec 2.0 as PyTorch's AutoModelForAudioClassification loads it.

    Low-rank adapters are merged into the kernels. A warning says where transformers pads or
    normalises clips otherwise than the run, so that its pipeline gives other logits.

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
    params = dict(_merge_lora(run.variables["params"], settings.lora_alpha))
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
    """How to prepare clips to get the run's logits, where transformers' pipeline does otherwise."""
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


def _merge_lora(params: Mapping[str, Any], alpha: float) -> dict[str, Any]:
    """The tree with low-rank adapters lora_a [in, r], lora_b [r, out] merged into its kernels."""
    merged = {}
    for name, below in params.items():
        if not isinstance(below, Mapping):
            merged[name] = below
        elif "lora_a" in below:
            a, b = np.asarray(below["lora_a"]), np.asarray(below["lora_b"])
            rest = {k: v for k, v in below.items() if not k.startswith("lora_")}
            kernel = np.asarray(rest["kernel"]) + a @ b * (alpha / a.shape[1])
            merged[name] = rest | {"kernel": kernel}
        else:
            merged[name] = _merge_lora(below, alpha)
    return merged
