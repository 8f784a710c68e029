"""Event logs survive kills; tables pool folds; reports are drawn anew or say what is amiss."""

import csv
import errno
import io
import json
import os
import struct
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    precision_recall_fscore_support,
)

from ser_jax.errors import UserError
from ser_jax.files.names import make_slug
from ser_jax.grid.cells import make_cell_name
from ser_jax.metrics import compute_confusion, compute_metrics, compute_report
from ser_jax.report import figures, tables
from ser_jax.report.rebuild import rebuild
from ser_jax.run.events import EventLog, load_events
from ser_jax.run.tensorboard import frame_event, frame_header

LABELS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


def make_event(epoch):
    figures = {"train_loss": 2 / epoch, "train_accuracy": 0.1 * epoch, "val_loss": 2 / epoch}
    return {"event": "epoch", "epoch": epoch, "step": 32 * epoch, **figures,
            "val_accuracy": 0.07 * epoch, "seconds": 1.5}  # fmt: skip


def write_log(run_dir, epochs):
    log = EventLog(run_dir)
    log({"event": "start", "model": "cnn"})
    for epoch in range(1, epochs + 1):
        log(make_event(epoch))
    log({"event": "end"})


def load_scalars(run_dir):
    """(step, tag, value) of every scalar in the only TensorBoard file, framing checked."""
    import tensorboardX.proto.event_pb2 as messages

    Event: Any = vars(messages)["Event"]
    (path,) = (run_dir / "tensorboard").iterdir()
    raw, scalars = path.read_bytes(), []
    while raw:
        (size,) = struct.unpack("<Q", raw[:8])
        event = Event.FromString(raw[12 : 12 + size])
        scalars += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
        raw = raw[16 + size :]
    return scalars


def test_every_event_is_a_line_of_json_and_its_numbers_are_scalars(tmp_path):
    write_log(tmp_path, 2)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["event"] for line in lines]
    assert kinds == ["start", "epoch", "epoch", "end"]
    scalars = load_scalars(tmp_path)
    assert {tag for _, tag, _ in scalars} == {
        "loss/train", "accuracy/train", "loss/val", "accuracy/val", "seconds"
    }  # fmt: skip
    assert (64, "loss/train", 1.0) in scalars


def test_tensorboard_records_are_framed_like_tensorboardx_frames_them(tmp_path):
    from tensorboardX.record_writer import RecordWriter

    write_log(tmp_path, 3)
    (path,) = (tmp_path / "tensorboard").iterdir()
    raw = path.read_bytes()
    reference = RecordWriter(str(tmp_path / "reference"))
    rest = raw
    while rest:
        (size,) = struct.unpack("<Q", rest[:8])
        reference.write(rest[12 : 12 + size])
        rest = rest[16 + size :]
    reference.close()
    assert (tmp_path / "reference").read_bytes() == raw


@given(
    step=st.integers(0, 2**40),
    scalars=st.dictionaries(st.text(max_size=9), st.floats(allow_nan=False), max_size=5),
)
def test_a_record_holds_what_tensorboardx_would_write(step, scalars):
    from tensorboardX.proto import event_pb2, summary_pb2

    Summary: Any = vars(summary_pb2)["Summary"]
    found = vars(event_pb2)["Event"].FromString(frame_event(step, scalars)[12:-4])
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
    assert (found.step, found.summary) == (step, Summary(value=values))
    assert abs(found.wall_time - time.time()) < 60


def test_a_header_names_the_format():
    from tensorboardX.proto import event_pb2

    found = vars(event_pb2)["Event"].FromString(frame_header()[12:-4])
    assert found.file_version == "brain.Event:2"


def test_not_a_number_is_written_as_null(tmp_path):
    EventLog(tmp_path)({"event": "epoch", "step": 1, "val_loss": float("nan"), "n": np.int64(3)})
    assert load_events(tmp_path) == [{"event": "epoch", "step": 1, "val_loss": None, "n": 3}]
    assert load_scalars(tmp_path) == [(1, "n", 3.0)]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    reached=st.integers(1, 5), restored=st.integers(0, 5), torn=st.integers(0, 30), data=st.data()
)
def test_a_killed_and_resumed_log_equals_an_uninterrupted_one(
    tmp_path_factory, reached, restored, torn, data
):
    restored = min(restored, reached)
    whole, resumed = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("resumed")
    write_log(whole, 5)
    log = EventLog(resumed)
    log({"event": "start", "model": "cnn"})
    for epoch in range(1, reached + 1):
        log(make_event(epoch))
    with (resumed / "events.jsonl").open("ab") as file:  # killed in the midst of a line
        file.write(json.dumps(make_event(reached + 1)).encode()[:torn])
    with next((resumed / "tensorboard").iterdir()).open("ab") as file:
        file.write(b"\x05\x00")

    log = EventLog(resumed)
    log.cut_back(32 * restored)
    log({"event": "start", "model": "cnn"})
    for epoch in range(restored + 1, 6):
        log(make_event(epoch))
    log({"event": "end"})
    assert (resumed / "events.jsonl").read_bytes() == (whole / "events.jsonl").read_bytes()
    assert load_scalars(resumed) == load_scalars(whole)


def test_cutting_back_keeps_other_files_and_tolerates_an_empty_folder(tmp_path):
    EventLog(tmp_path).cut_back(0)
    assert list(tmp_path.iterdir()) == []
    write_log(tmp_path, 3)
    (tmp_path / "tensorboard" / "notes.txt").write_text("mine")
    EventLog(tmp_path).cut_back(32)
    assert [event.get("epoch") for event in load_events(tmp_path)] == [None, 1]
    names = sorted(path.name for path in (tmp_path / "tensorboard").iterdir())
    assert len(names) == 2
    assert names[1] == "notes.txt"


def test_a_finished_log_loses_its_end_when_training_goes_on(tmp_path):
    write_log(tmp_path, 2)
    EventLog(tmp_path).cut_back(64)
    assert [event["event"] for event in load_events(tmp_path)] == ["start", "epoch", "epoch"]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    write_log(tmp_path, 1)
    path = tmp_path / "events.jsonl"
    path.write_text("{oops\n" + path.read_text())
    with pytest.raises(UserError, match=r"events\.jsonl: line 1 is no JSON"):
        load_events(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EFBIG])
def test_a_disk_that_takes_no_event_is_a_user_error(tmp_path, monkeypatch, code):
    log = EventLog(tmp_path)
    log(make_event(1))

    def refuse(handle, data):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr("os.write", refuse)
        with pytest.raises(UserError, match=r"events\.jsonl: cannot write"):
            log(make_event(2))
    log(make_event(2))
    assert load_events(tmp_path) == [make_event(1), make_event(2)]


def test_a_write_taken_in_parts_is_completed(tmp_path, monkeypatch):
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr("os.write", lambda handle, data: write(handle, data[:7]))
        write_log(tmp_path, 2)
    assert load_events(tmp_path)[1:3] == [make_event(1), make_event(2)]


def make_cell(system, seed, fold, rng, protocol="emobox6", n=40, skill=0.5, **changes):
    true_B = rng.integers(0, 8, n)
    pred_B = np.where(rng.random(n) < skill, true_B, rng.integers(0, 8, n))
    confusion_CC = compute_confusion(8, true_B, pred_B)
    cell = {"system": system, "protocol": protocol, "seed": seed, "fold": fold, "status": "done",
            "best_epoch": 3, "seconds": 1.0, "confusion": confusion_CC.tolist(),
            **compute_metrics(confusion_CC)}  # fmt: skip
    return cell | changes, true_B, pred_B


def test_folds_are_pooled_before_seeds_are_averaged():
    rng = np.random.default_rng(0)
    made = {s: [make_cell("cnn", s, k, rng, n=20 + 9 * k) for k in (1, 2, 3)] for s in (0, 1, 2)}
    (row,) = tables.summarise([cell for folds in made.values() for cell, _, _ in folds])
    pooled = [
        [np.concatenate(part) for part in list(zip(*f, strict=True))[1:]] for f in made.values()
    ]
    for name, function in {
        "accuracy": accuracy_score,
        "weighted_f1": lambda t, p: f1_score(t, p, average="weighted"),
        "uar": balanced_accuracy_score,
    }.items():
        values = [function(*pair) for pair in pooled]
        assert row[f"{name}_mean"] == pytest.approx(np.mean(values), abs=1e-12)
        assert row[f"{name}_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert (row["seeds"], row["n"], row["status"]) == ([0, 1, 2], 29 + 38 + 47, "done")


def test_the_worst_seed_is_named_and_of_equals_the_first():
    rng = np.random.default_rng(0)
    skills = {3: 0.9, 5: 0.2, 8: 0.6}
    cells = [make_cell("cnn", seed, 1, rng, skill=skill)[0] for seed, skill in skills.items()]
    (row,) = tables.summarise([*cells, cells[1] | {"seed": 9}])
    assert (row["accuracy_worst"], row["worst_seed"]) == (cells[1]["accuracy"], 5)
    assert f" | {cells[1]['accuracy']:.4f} (seed 5) | " in tables.rows_to_markdown([row])
    (line,) = csv.DictReader(io.StringIO(tables.rows_to_csv([row])))
    assert (float(line["accuracy_worst"]), line["worst_seed"]) == (row["accuracy_worst"], "5")


def test_a_seed_with_a_missing_or_diverged_fold_does_not_count_and_is_said():
    rng = np.random.default_rng(0)
    cells = [make_cell("cnn", seed, fold, rng)[0] for seed in (0, 1) for fold in (1, 2)]
    (alone,) = tables.summarise(cells[:2])
    for status in ("missing", "diverged"):
        lost = {key: cells[3][key] for key in ("system", "protocol", "seed", "fold")}
        (row,) = tables.summarise([*cells[:3], lost | {"status": status}])
        assert row["seeds"] == [0]
        assert row["accuracy_mean"] == alone["accuracy_mean"]
        assert row["accuracy_std"] is None
        assert row["status"] == f"incomplete: 3 of 4 runs done, 1 {status}; 1 of 2 seeds count"


def test_a_row_without_a_full_seed_shows_dashes():
    rows = tables.summarise(
        [{"system": "cnn", "protocol": "study", "seed": 0, "fold": 1, "status": "missing"}]
    )
    assert rows[0]["accuracy_mean"] is None
    assert "| cnn | study | - | - | - | 0 | - | - | incomplete" in tables.rows_to_markdown(rows)
    (line,) = csv.DictReader(io.StringIO(tables.rows_to_csv(rows)))
    assert line["accuracy_mean"] == ""


def print_table(table, width=80):
    from rich.console import Console

    text = io.StringIO()
    Console(width=width, file=text).print(table)
    return text.getvalue()


def test_tables_fit_a_terminal_and_carry_the_figures():
    rng = np.random.default_rng(0)
    cells = [make_cell("cnn [masked]", seed, 1, rng)[0] for seed in range(5)]
    cells.append(cells[0] | {"seed": 5, "status": "missing"})
    rows = tables.summarise(cells)
    text = print_table(tables.make_table(rows))
    figure = f"{rows[0]['accuracy_mean']:.3f} ± {rows[0]['accuracy_std']:.3f}"
    assert "cnn [masked] *" in text
    assert figure in text
    assert "5 of 6 runs done, 1 missing" in text
    (line,) = csv.DictReader(io.StringIO(tables.rows_to_csv(rows)))
    assert float(line["uar_std"]) == rows[0]["uar_std"]
    assert line["seeds"] == "0 1 2 3 4"


def test_markdown_rows_have_the_columns_of_the_head_whatever_the_names():
    rng = np.random.default_rng(0)
    rows = tables.summarise([make_cell("a|b", 0, 1, rng)[0], make_cell("c", 0, 1, rng)[0]])
    lines = tables.rows_to_markdown(rows).replace("\\|", "").splitlines()
    assert {line.count("|") for line in lines} == {10}


def make_report(rng, n=60):
    _, true_B, pred_B = make_cell("", 0, 1, rng, n=n)
    attributes = {"gender": ("female", "male"), "intensity": ("normal", "strong"),
                  "statement": ("dogs", "kids")}  # fmt: skip
    drawn = {name: rng.choice(values, n) for name, values in attributes.items()}
    return compute_report(LABELS, true_B, pred_B, drawn)


def test_the_group_table_names_every_group():
    text = print_table(tables.make_group_table(make_report(np.random.default_rng(0))))
    for name in ("female", "male", "strong", "kids"):
        assert name in text


def test_the_table_of_emotions_is_scikit_learns_even_of_a_run_that_recorded_other_figures():
    report = make_report(np.random.default_rng(0))
    report["by"]["emotion"] = {name: {"weighted_f1": 1.0} for name in LABELS}
    confusion_CC = np.array(report["confusion"])
    true_B, pred_B = (
        np.repeat(places.ravel(), confusion_CC.ravel()) for places in np.indices(confusion_CC.shape)
    )
    found: Any = precision_recall_fscore_support(true_B, pred_B)
    rows = zip(*found, strict=True)
    text = print_table(tables.make_class_table(report))
    for name, (precision, recall, f1, n) in zip(LABELS, rows, strict=True):
        line = next(line.split() for line in text.splitlines() if line.split()[:1] == [name])
        heard = int((pred_B == LABELS.index(name)).sum())
        expected = [f"{recall:.3f}", f"{precision:.3f}", f"{f1:.3f}", str(n), str(heard)]
        assert line[1:6] == expected


@pytest.fixture
def run_dir(tmp_path):
    """A finished run."""
    rng = np.random.default_rng(0)
    write_log(tmp_path, 4)
    metrics = {"protocol": "emobox6", "fold": 2, "seed": 0, "best_epoch": 3, "model": "cnn",
               "val": make_report(rng), "test": make_report(rng)}  # fmt: skip
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "config.yaml").write_text("features:\n  fmin_hz: 0.0\n  fmax_hz: null\n")
    (tmp_path / "figures").mkdir()
    np.savez(
        tmp_path / "figures" / "spectrogram.npz", db_TF=rng.normal(-40, 9, (70, 64)),
        rate_hz=16000, hop_length=512, file_name="03-01-01-01-01-01-01.wav",
    )  # fmt: skip
    return tmp_path


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG\r\n")


def test_a_runs_figures_are_drawn_anew_and_alike(run_dir):
    written = rebuild(run_dir)
    names = {"confusion.png", "groups.png", "curves.png", "spectrogram.png"}
    assert {path.name for path in written} == names
    before = {path: path.read_bytes() for path in written}
    assert all(map(is_png, written))
    for path in written:
        path.unlink()
    rebuild(run_dir)
    assert {path: path.read_bytes() for path in written} == before


def test_a_run_without_validation_metrics_has_no_validation_curve(run_dir, monkeypatch):
    shown = []

    def draw_curves(*args: Any) -> Any:
        figure = drawn(*args)
        labels = {line.get_label() for axes in figure.axes for line in axes.lines}
        shown.append((labels & {"training", "validation"}, args[1]))
        return figure

    drawn = figures.draw_curves
    monkeypatch.setattr(figures, "draw_curves", draw_curves)
    rebuild(run_dir)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    del metrics["val"]  # as by data.train_on_validation
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    rebuild(run_dir)
    (both, _), (alone, title) = shown
    assert both == {"training", "validation"}
    assert alone == {"training"}
    assert title.endswith("trained on its validation clips too")


def test_a_run_of_a_single_diverged_epoch_is_still_drawn(run_dir):
    (run_dir / "events.jsonl").write_text(
        '{"event": "epoch", "epoch": 1, "step": 1, "train_loss": null, "val_accuracy": 0.1}\n'
    )
    assert len(rebuild(run_dir)) == 4


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metrics.json", None, r"metrics\.json: cannot read: No such file.*ser-jax train"),
        ("metrics.json", "{", r"metrics\.json: is no JSON.*ser-jax train"),
        ("metrics.json", "{}", r"metrics\.json: lacks 'protocol'.*ser-jax train"),
        ("metrics.json", "[]", r"metrics\.json: has unexpected content.*ser-jax train"),
        ("events.jsonl", None, r"events\.jsonl: cannot read.*ser-jax train"),
        ("events.jsonl", '{"event": "epoch", "val_loss": "x"}\n', r"events\.jsonl: has unexpected"),
        ("config.yaml", None, r"config\.yaml: cannot read.*ser-jax train"),
        ("config.yaml", "features: [", r"config\.yaml: cannot read.*ser-jax train"),
        ("config.yaml", "{}", r"config\.yaml: lacks 'features'"),
        ("figures/spectrogram.npz", "text", r"spectrogram\.npz: cannot read.*ser-jax train"),
    ],
)
def test_a_missing_or_broken_file_of_a_run_is_named_in_one_line(run_dir, name, content, said):
    path = run_dir / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=said) as caught:
        rebuild(run_dir)
    assert "\n" not in str(caught.value)


def test_a_folder_of_something_else_or_none_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"holds neither metrics\.json"):
        rebuild(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        rebuild(tmp_path / "none")


def test_a_full_disk_leaves_the_old_figure(run_dir, monkeypatch):
    first = rebuild(run_dir)[0]
    before = first.read_bytes()

    def refuse(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", refuse)
        with pytest.raises(UserError, match="No space left"):
            rebuild(run_dir)
    assert first.read_bytes() == before
    assert not [path for path in (run_dir / "figures").iterdir() if path.name.startswith(".")]


@pytest.fixture
def ablation_dir(tmp_path):
    """A finished ablation but for one fold, with the run folder of one cell."""
    rng = np.random.default_rng(0)
    cells = [make_cell(s, seed, 1, rng, "study")[0] for s in ("cnn", "lstm") for seed in (0, 1)]
    cells += [make_cell("cnn", 0, fold, rng)[0] for fold in range(1, 7)]
    cells += [make_cell("lstm", 0, fold, rng)[0] for fold in range(1, 6)]
    cells.append(
        {"system": "lstm", "protocol": "emobox6", "seed": 0, "fold": 6, "status": "missing"}
    )
    for seed in (0, 1):
        cell_dir = tmp_path / "cells" / make_cell_name("cnn", "study", 1, seed)
        cell_dir.mkdir(parents=True)
        (cell_dir / "metrics.json").write_text("{}")
        write_log(cell_dir, 3 + seed)
    study = {"cnn": {"accuracy": 0.35, "weighted_f1": 0.3}}
    results = {"cells": cells, "labels": LABELS, "study": study}
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tmp_path


def test_an_ablations_tables_and_figures_are_made_from_its_results(ablation_dir):
    written = {str(path.relative_to(ablation_dir)) for path in rebuild(ablation_dir)}
    drawn = {
        "systems", "comparison-study", "comparison-emobox6", "confusion-cnn-study",
        "confusion-lstm-study", "confusion-cnn-emobox6", "confusion-lstm-emobox6", "loss-study",
        "accuracy-study", "curves-cnn-study",
    }  # fmt: skip
    tables = {"table_1", "claims", "augmentation", "leakage", "cost", "groups"}
    assert written == {
        "results.md", "results.csv", "report.md", "report.html",
        *(f"tables/{name}.csv" for name in tables),
        *(f"figures/{name}.{form}" for name in drawn for form in ("png", "svg")),
    }  # fmt: skip
    assert all(is_png(path) for path in (ablation_dir / "figures").glob("*.png"))
    text = (ablation_dir / "results.md").read_text()
    assert "incomplete: 5 of 6 runs done, 1 missing; 0 of 1 seeds count" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no JSON"),
        ("{}", "lacks 'cells'"),
        ('{"cells": []}', "holds no cells"),
        ('{"cells": [{"system": "cnn"}]}', "lacks 'protocol'"),
        ('{"cells": 3}', "has unexpected content"),
    ],
)
def test_broken_results_are_named_with_what_makes_them(ablation_dir, content, said):
    (ablation_dir / "results.json").write_text(content)
    with pytest.raises(UserError, match=rf"results\.json: {said}.*ser-jax ablate") as caught:
        rebuild(ablation_dir)
    assert "\n" not in str(caught.value)
    assert not (ablation_dir / "results.md").exists()


@pytest.mark.parametrize("name", ["CNN-LSTM (augmented)", "../../etc", "a/b", ".hidden", "é"])
def test_a_systems_name_stays_inside_its_folder(tmp_path, name):
    slug = make_slug(name)
    assert (tmp_path / slug).resolve().parent == tmp_path.resolve()
    assert not slug.startswith(".")
