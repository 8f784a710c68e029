"""The sections of `benchmarks/gpu.py`: what they decide without a device."""

import json
import math
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from jax.profiler import ProfileData

from benchmarks import results
from benchmarks.sections import ceilings, device_tests, grid, options, racing, real_grid, trace
from benchmarks.sections import step as step_section
from benchmarks.sections.context import Context, load_rows
from benchmarks.sections.grid_steps import time_steps
from benchmarks.sections.right import augmentation, checks, features, networks, programs
from benchmarks.sections.right.checks import Check, compute_error, run_checks
from benchmarks.sections.wav2vec2 import copy_without_dropout
from benchmarks.worker import Contestant
from ser_jax.config import DataConfig
from ser_jax.data import store


def make_context(folder: Path, *, dry: bool) -> Context:
    return Context("step", 1.0, str(folder), str(folder), dry, time.monotonic() + 60)


def make_contestant(side: str, words: str, **arguments: Any) -> Contestant:
    return Contestant(side, words, "tests.contestants:make_sleeper", arguments, alone=True)


# Races


def test_on_a_gpu_every_contestant_runs_as_it_is(tmp_path):
    contestants = [make_contestant("ser_jax", "a"), make_contestant("pytorch", "b", graph=True)]
    assert racing.adapt(make_context(tmp_path, dry=False), contestants) == (contestants, [])


def test_a_dry_run_takes_the_first_of_each_side_that_runs_on_a_cpu(tmp_path):
    contestants = [
        make_contestant("ser_jax", "scan"), make_contestant("ser_jax", "jit"),
        make_contestant("pytorch", "CUDA graph", graph=True, kind="gpu", processes=4),
        make_contestant("librosa", "one core"),
    ]  # fmt: skip
    running, left = racing.adapt(make_context(tmp_path, dry=True), contestants)
    assert [c.configuration for c in running] == ["scan", "eager", "one core"]
    assert running[1].arguments == {"kind": "cpu", "processes": 1}
    assert not any(c.alone for c in running)
    reasons = {c.configuration: reason for c, reason in left}
    assert reasons["CUDA graph"] == racing.NEEDS_GPU
    assert set(reasons) == {"jit", "CUDA graph"}


def test_contestants_left_out_have_rows_like_those_that_run(tmp_path):
    context = make_context(tmp_path, dry=True)
    log = str(tmp_path / "log")
    contestants = [
        make_contestant("ser_jax", "a", log=log, name="a"),
        make_contestant("ser_jax", "b", log=log, name="b"),
    ]
    found = SimpleNamespace(device={"kind": "cpu", "name": "x", "peaks": {}}, versions={})
    settings = racing.make_options(context, device=found.device)
    settings.versions = {}
    place = {"benchmark": "step", "case": "c", "shape": "1"}
    racing.race(context, settings, place, contestants, turns=1)
    rows = {row["configuration"]: row for row in load_rows(tmp_path)}
    assert rows["a"]["status"] == "ok"
    assert rows["b"]["status"] == "skipped"
    assert Path(log).read_text() == "aa"


def test_a_grid_is_extrapolated_by_the_mean_time_of_its_runs():
    row = {
        "configuration": "4 processes", "median_s": 5.0, "steps_per_turn": 4,
        "runs_s": [1, 2, 3, 2], "temperature": "warm", "ratio_keys": [],
    }  # fmt: skip
    found = grid.extrapolate(row, n_runs=32, processes=4)
    assert found["median_s"] * 32 == pytest.approx(4 * 5 + 28 / 4 * 2)
    assert found["ratio_keys"] == ["grid_warm"]
    assert "extrapolated from 4 runs" in found["configuration"]


def test_steps_of_several_runs_are_timed_in_every_form():
    rows = time_steps(sizes=(2,), hows=("im2col", "map"), dry=True, measure_s=0.01)
    assert [(row["runs"], row["configuration"]) for row in rows] == [(2, "im2col"), (2, "map")]
    assert all(0 < row["median_s"] <= row["p95_s"] for row in rows)


def test_settings_differ_in_flags_and_keep_those_of_the_user(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_user=1")
    found = options.vary(make_contestant("ser_jax", "scan"))
    flags = [c.environment["XLA_FLAGS"] for c in found]
    assert all(flag.startswith("--xla_user=1") for flag in flags)
    assert "--xla_gpu_autotune_level=0" in flags[-1]
    assert len({(c.environment["XLA_FLAGS"], c.tuned) for c in found}) == len(found)


def test_other_forms_of_convolution_are_timed_beside_the_packages_own():
    found = options.change_forms(make_contestant("ser_jax", "scan"))
    assert [c.arguments["forms"]["conv"] for c in found] == ["fast", "im2col"]
    assert not any(c.ratio_keys for c in found)


def test_no_configuration_of_a_step_is_prepared_alone():
    made = [make_contestant("ser_jax", "scan")]
    assert made[0].alone
    assert not any(c.alone for c in step_section.choose(made))


@pytest.mark.parametrize("case", ceilings.list_cases(dry=True), ids=lambda case: case["case"])
def test_ceilings_count_the_work_of_both_libraries(case):
    assert case["work"] > 0
    for measure in (ceilings.measure_jax, ceilings.measure_torch):
        assert 0 < measure(case) < 60


def test_only_attention_dropout_is_switched_off(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text('{"attention_dropout": 0.1, "hidden_dropout": 0.1}')
    (folder / "model.safetensors").write_text("weights")
    copy = copy_without_dropout(folder)
    settings = json.loads((copy / "config.json").read_text())
    assert settings == {"attention_dropout": 0.0, "hidden_dropout": 0.1}
    assert (copy / "model.safetensors").read_text() == "weights"


# The second call


def test_outcomes_of_tests_are_read_from_what_pytest_prints():
    lines = [
        "tests/test_a.py::test_x PASSED     [ 10%]", "tests/test_a.py::test_y[a b] FAILED [ 20%]",
        "tests/test_a.py::test_z SKIPPED (no) [ 30%]", "tests/test_a.py::test_w ERROR   [ 40%]",
        "PASSED is no outcome here", "FAILED tests/test_a.py::test_y[a b] - assert 0",
    ]  # fmt: skip
    counts, failed = device_tests.count_outcomes(lines)
    assert counts == {"passed": 1, "failed": 1, "skipped": 1, "error": 1}
    assert failed == ["tests/test_a.py::test_y[a b]", "tests/test_a.py::test_w"]


def test_types_are_compared_seed_by_seed():
    note = real_grid.compare_paired([0.5, 0.6], [0.4, 0.5])
    assert note["difference"] == pytest.approx(-0.1)
    assert note["standard_error"] == pytest.approx(0, abs=1e-9)
    assert real_grid.compare_paired([0.5], [0.5])["standard_error"] is None


def test_a_store_of_ravdess_is_found_without_the_recordings(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no store of RAVDESS"):
        real_grid.link_store(tmp_path, tmp_path / "linked")
    version = store._STORE_VERSION
    folder = tmp_path / f"ravdess-16000hz-v{version}-0123abcd"
    folder.mkdir()
    report = {"clips": 3, "checksum": "a", "bad": [], "copies": [], "skipped": {}, "counts": []}
    (folder / store._REPORT).write_text(json.dumps(report))
    linked = real_grid.link_store(tmp_path, tmp_path / "linked")
    assert store.prepare(DataConfig(corpus="ravdess", store_dir=str(linked))).clips == 3


def test_a_trace_too_large_is_packed_without_its_largest_file(tmp_path, monkeypatch):
    monkeypatch.setattr(trace, "MOST_BYTES", 4000)
    folder = tmp_path / "trace"
    (folder / "plugins").mkdir(parents=True)
    rng = np.random.default_rng(0)
    (folder / "large").write_bytes(rng.bytes(8000))
    (folder / "plugins" / "small").write_bytes(rng.bytes(1000))
    note = trace.pack(folder, tmp_path / "trace.zip")
    assert note["files"] == 1
    assert note["bytes"] < 4000
    with zipfile.ZipFile(tmp_path / "trace.zip") as archive:
        assert archive.namelist() == ["plugins/small"]


def test_kernels_are_added_up_by_name_over_gpu_streams_only():
    def make_line(name: str, *events: tuple[int, int]) -> str:
        each = (
            f"events {{ metadata_id: {number} duration_ps: {us}000000 }}" for number, us in events
        )
        return f'lines {{ name: "{name}" {" ".join(each)} }}'

    names = " ".join(
        f'event_metadata {{ key: {n} value {{ id: {n} name: "{name}" }} }}'
        for n, name in enumerate(("add", "gemm"), start=1)
    )
    gpu = make_line("Stream #1", (1, 2), (2, 7), (1, 4)) + make_line("XLA Ops", (2, 99))
    host = make_line("Stream #1", (2, 99))
    planes = (("/device:GPU:0", gpu), ("/host", host))
    text = " ".join(f'planes {{ name: "{name}" {line} {names} }}' for name, line in planes)
    binary = ProfileData.text_proto_to_serialized_xspace(text)
    found = trace.list_kernels(ProfileData.from_serialized_xspace(binary))
    assert [name for name, *_ in found["kernels"]] == ["gemm", "add"]
    assert found["kernels"][1][1:] == [2, pytest.approx(6e-6)]
    assert (found["names"], found["count"]) == (2, 3)
    assert found["busy_s"] == pytest.approx(13e-6)
    lines = results.list_kernels("trace: step", found | {"turn_s": 26e-6})
    assert "### trace: step: 0.026 ms, 0.013 in 3 calls of 2 kernels" in lines
    assert lines[-1] == "| add | 2 | 3 | 46.2% |"


# Checks


def test_an_error_is_the_greatest_relative_norm_of_the_parts():
    ones = np.ones(4)
    assert compute_error(ones * 1.1, ones) == pytest.approx(0.1)
    assert compute_error((ones, {"a": ones * 2}), (ones, {"a": ones})) == pytest.approx(1)
    assert compute_error(np.zeros(2), np.zeros(2)) == 0
    assert math.isnan(compute_error(np.array([np.nan]), np.ones(1)))


def test_a_check_that_fails_or_finds_no_number_is_marked_and_stops_no_other():
    def fail():
        raise ValueError("no kernel\nand more")

    one, nan = np.ones(1), np.array([np.nan])
    rows = []
    cases = {"fine": lambda: (one, one), "fails": fail, "off": lambda: (one * 2, one),
             "no number": lambda: (nan, one)}  # fmt: skip
    found = [Check(case, 1e-3, compare) for case, compare in cases.items()]
    run_checks([*found, Check("elsewhere", 1e-3, fail, runs=False)], rows.append)
    assert {row["case"]: row["status"] for row in rows} == {
        "fine": "ok", "fails": "failed", "off": "wrong", "no number": "wrong",
        "elsewhere": "noted",
    }  # fmt: skip
    assert rows[1]["reason"] == "ValueError: no kernel"
    json.dumps(rows, allow_nan=False)


def test_what_is_listed_covers_features_augmentations_networks_and_programs():
    places = checks.find_places(dry=True)
    names = [
        check.case
        for module in (features, augmentation, networks, programs)
        for group in module.list_checks(places)
        for check in group
    ]
    assert len(names) == len(set(names))
    for words in (
        "mfcc",
        "all four",
        "cnn_lstm, tf32",
        "lstm, unrolled",
        "scanned",
        "side by side",
    ):
        assert any(words in name for name in names), words


def test_a_wrong_gradient_is_found(monkeypatch):
    """The check sees a form that scales a gradient by a thousandth."""
    from ser_jax.models import recurrent

    places, way = checks.find_places(dry=True), networks.WAYS["lstm"][0]
    variables = networks._init(places, "lstm")
    plain = networks.compute_gradients(
        places, places.cpu, "lstm", way._replace(forms=networks.Forms("plain", "plain")), variables
    )
    found = networks.compute_gradients(places, places.cpu, "lstm", way, variables)
    assert compute_error(found, plain) < way.bound
    right = recurrent.run_lstm
    monkeypatch.setattr(
        recurrent, "run_lstm", lambda x, kernel, bias, *rest: right(x, kernel * 1.001, bias, *rest)
    )
    wrong = networks.compute_gradients(places, places.cpu, "lstm", way, variables)
    assert compute_error(wrong, plain) > way.bound
