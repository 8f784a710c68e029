"""The figures of one run, drawn from its metrics.json, events.jsonl and config.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_jax.data.splits import name_fold
from ser_jax.errors import UserError, one_line
from ser_jax.files.json_files import blaming, load_json
from ser_jax.machine.environment import import_matplotlib
from ser_jax.report import figures
from ser_jax.run.events import drop_validation, load_events
from ser_jax.run.file_names import CONFIG_FILE, EVENTS_FILE, METRICS_FILE, SPECTROGRAM_FILE
from ser_jax.statistics import Mark

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_REMEDY = "ser-jax train writes it: run it again with this run_dir"


def write_run_report(run_dir: str | Path) -> list[Path]:
    """Draw a run's figures/*.png; the spectrogram only if the run saved one.

    Raises:
      UserError: a file is missing or broken, or a figure cannot be written.
    """
    import_matplotlib()
    run_dir = Path(run_dir)
    metrics_path = run_dir / METRICS_FILE
    metrics = load_json(metrics_path, _REMEDY)
    events = load_events(run_dir)
    with blaming(metrics_path, _REMEDY):
        title, test, best_epoch = name_run(metrics), metrics["test"], metrics["best_epoch"]
        if "val" in metrics:
            known = f"n = {metrics['val']['n']} validation clips"
        else:  # by data.train_on_validation
            known, events = "trained on its validation clips too", drop_validation(events)
        epochs = f"{title}, {known}"
        clips = f"{title}, n = {test['n']} test clips"
        drawn = {
            "confusion": figures.draw_confusion(test["confusion"], test["labels"], clips),
            "groups": draw_groups(test, clips),
        }
    with blaming(run_dir / EVENTS_FILE, _REMEDY):
        if any(event.get("event") == "epoch" for event in events):  # SVM and HMM runs have none
            panels = [figures.Panel(name, [events], name) for name in ("accuracy", "loss")]
            drawn["curves"] = figures.draw_curves(panels, epochs, best_epoch)
    if (run_dir / SPECTROGRAM_FILE).exists():
        drawn["spectrogram"] = draw_kept_spectrogram(run_dir)
    return [
        path
        for name, figure in drawn.items()
        for path in figures.save_figure(figure, run_dir / "figures" / name, ("png",))
    ]


def draw_groups(report: Mapping[str, Any], title: str) -> Figure:
    """Accuracy by emotion, gender, intensity and statement, with each group's number of clips.

    Args:
      report: as returned by `metrics.compute_report`.
    """
    rows = {
        f"{kind}: {value} ({found['n']})": Mark(found["accuracy"], None)
        for kind, groups in report["by"].items()
        for value, found in groups.items()
    }
    names = {name: name for name in rows}
    return figures.draw_forest(names, {"accuracy": rows}, title, 1 / len(report["labels"]))


def name_run(metrics: Mapping[str, Any]) -> str:
    """`cnn_lstm on ravdess, emobox6 split, fold 2, seed 0`."""
    split, corpus = name_split(metrics), metrics.get("corpus", "ravdess")
    return f"{metrics['model']} on {corpus}, {split}, seed {metrics['seed']}"


def name_split(metrics: Mapping[str, Any]) -> str:
    """`emobox6 split, fold 2`; `loso split, speaker EB0 left out`; `cross_corpus split, ravdess ->
    nemo`."""
    if metrics["protocol"] == "loso" and (speakers := metrics.get("test_speakers")):
        return f"loso split, speaker {speakers[0]} left out"
    return name_fold(metrics["protocol"], metrics["fold"], metrics.get("fold_name", ""))


def draw_kept_spectrogram(run_dir: Path) -> Figure:
    """Draw the spectrogram that a run saved; the run's config gives the frequencies of its bands.

    Raises:
      UserError: the spectrogram or the config is missing or broken.
    """
    import zipfile

    path = run_dir / SPECTROGRAM_FILE
    try:
        with path.open("rb") as file, np.load(file) as kept:
            db_TF, title = kept["db_TF"], f"Mel spectrogram of {kept['file_name']}"
            rate_hz, hop_length = int(kept["rate_hz"]), int(kept["hop_length"])
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot read the clip's spectrogram; {_REMEDY}") from error
    band_hz_F = _compute_band_hz(run_dir / CONFIG_FILE, db_TF.shape[-1], rate_hz)
    return figures.draw_spectrogram(db_TF, rate_hz, hop_length, title, band_hz_F)


def _compute_band_hz(config_path: Path, n_bands: int, rate_hz: int) -> np.ndarray:
    """The centre of each Slaney mel band in Hz, [F]."""
    import yaml
    from librosa import mel_frequencies

    try:
        config = yaml.safe_load(config_path.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{config_path}: cannot read: {one_line(error)}; {_REMEDY}") from error
    with blaming(config_path, _REMEDY):
        features = config["features"]
        fmin_hz, fmax_hz = float(features["fmin_hz"]), features["fmax_hz"]
        return mel_frequencies(n_bands + 2, fmin=fmin_hz, fmax=float(fmax_hz or rate_hz / 2))[1:-1]
