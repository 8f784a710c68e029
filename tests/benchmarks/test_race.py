"""The race: turns, time limits, differing contestants, and the rows it keeps."""

import argparse
import dataclasses
import json
import os

import pytest

from benchmarks import all as everything
from benchmarks import harness, results
from benchmarks.figures import mark_differing
from benchmarks.race import start_worker
from benchmarks.step import list_our_ways, list_ratio_keys, list_torch_ways
from benchmarks.worker import Contestant, Failed, Worker

pytestmark = pytest.mark.cpu_only("contestants that compute nothing")

PEAKS = {"float32": 1e9, "tf32": 1e9, "bfloat16": 2e9, "memory": 1e9}


def make_options(tmp_path, **more):
    device = {"name": "a device", "kind": "cpu", "peaks": PEAKS, "peaks_from": "a test"}
    return argparse.Namespace(
        threads=1, quick=True, device=device, versions={"jax": "1"}, out=tmp_path / "out.json",
        **more,
    )  # fmt: skip


def make_sleepers(log, **settings):
    builder = "tests.contestants:make_sleeper"
    return [
        Contestant("ser_jax" if name == "a" else "librosa", name, builder,
                   {"log": str(log), "name": name, **settings.get(name, {})},
                   ratio_keys=("cnn",), steps=2, clips=10)
        for name in "abc"
    ]  # fmt: skip


PLACE = {"benchmark": "step", "case": "cnn", "shape": "2 x 3"}


def test_contestants_take_turns_in_processes_of_their_own(tmp_path):
    contestants = make_sleepers(tmp_path / "log")
    options = make_options(tmp_path)
    rows = harness.race(PLACE, contestants, options, turns=3, warm=1, equal={"loss": 1e-6})
    # First calls, then a warm round, then three rounds, each with another first contestant.
    assert (tmp_path / "log").read_text() == "abc" + "cab" + "abc" + "bca" + "cab"
    assert len({row["process"] for row in rows} | {os.getpid()}) == 4
    for row in rows:
        assert row["status"] == "ok"
        assert row["turns"] == 3
        assert row["clips_per_s"] == pytest.approx(10 / row["median_s"])
        assert 0 < row["median_s"] <= row["p95_s"]
        assert row["peak_memory_mib"] > 1
        for key in ("compile_s", "first_step_s", "versions", "device", "threads", "precision"):
            assert key in row


def test_contestant_that_fails_keeps_its_row_and_says_why(tmp_path):
    contestants = make_sleepers(tmp_path / "log", b={"fails_at": 2})
    rows = harness.race(PLACE, contestants, make_options(tmp_path), turns=2)
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert rows[1]["reason"] == "RuntimeError: no compiler"
    assert "no compiler" in results.make_markdown({
        "device": "x", "versions": {}, "ratios": {}, "rows": [row | {"best": False} for row in rows]
    })  # fmt: skip


def test_process_that_dies_is_a_failure_with_its_status():
    worker = Worker(Contestant("ser_jax", "dying", ""), threads=1)
    with pytest.raises(Failed, match="died with status 3"):
        worker.call("os:_exit", status=3)
    worker.close()


def test_environment_and_threads_are_those_of_the_contestant(monkeypatch):
    monkeypatch.delenv("MALLOC_TOP_PAD_", raising=False)
    worker = Worker(Contestant("ser_jax", "", "", environment={"MALLOC_TOP_PAD_": "1"}), threads=1)
    assert worker.call("os:getenv", key="MALLOC_TOP_PAD_") == "1"
    assert worker.call("os:getenv", key="OMP_NUM_THREADS") == "1"
    assert worker.call("benchmarks.device:count_cores") == 1
    worker.close()
    assert "MALLOC_TOP_PAD_" not in os.environ


def test_contestants_are_prepared_side_by_side_where_asked(tmp_path):
    folder = tmp_path / "begun"
    folder.mkdir()
    contestants = [
        Contestant("ser_jax", name, "tests.contestants:make_waiter",
                   {"folder": folder, "name": name, "others": others})
        for name, others in (("a", "b"), ("b", "a"))
    ]  # fmt: skip
    options = make_options(tmp_path, parallel=2)
    rows = harness.race(PLACE, contestants, options, turns=1, prepare_s=60)
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert [row["compiled_beside"] for row in rows] == [2, 2]
    assert "(2 at once)" in results.list_cells(rows[0])[7]


def test_contestant_to_be_prepared_alone_is_prepared_first(tmp_path):
    contestants = make_sleepers(tmp_path / "log", b={"sleep_s": 0.2})
    contestants[1] = dataclasses.replace(contestants[1], alone=True)
    options = make_options(tmp_path, parallel=2)
    rows = harness.race(PLACE, contestants, options, turns=1, warm=0)
    assert (tmp_path / "log").read_text()[0] == "b"
    assert ["compiled_beside" in row for row in rows] == [True, False, True]


def test_turns_are_serial_whatever_is_prepared_at_once(tmp_path):
    options = make_options(tmp_path, parallel=3)
    harness.race(PLACE, make_sleepers(tmp_path / "log"), options, turns=2, warm=1)
    log = (tmp_path / "log").read_text()
    assert sorted(log[:3]) == ["a", "b", "c"]
    assert log[3:] == "cab" + "abc" + "bca"


def test_contestant_that_is_late_is_killed_and_the_others_continue(tmp_path):
    contestants = make_sleepers(tmp_path / "log", b={"sleep_s": 600})
    options = make_options(tmp_path, parallel=3)
    rows = harness.race(PLACE, contestants, options, turns=1, warm=0, prepare_s=4)
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert rows[1]["reason"] == "not ready after 4 s"
    assert sorted((tmp_path / "log").read_text()) == ["a", "a", "c", "c"]


def test_rounds_end_when_the_time_is_up_but_one_is_measured(tmp_path):
    options = make_options(tmp_path)
    rows = harness.race(PLACE, make_sleepers(tmp_path / "log"), options, turns=9, measure_s=0)
    assert [row["turns"] for row in rows] == [1, 1, 1]
    assert (tmp_path / "log").read_text() == "abc" + "abc"


def test_contestant_that_computes_something_else_is_marked_and_counts_for_nothing(tmp_path):
    contestants = make_sleepers(tmp_path / "log", a={"loss": 2.1})
    told = []
    rows = harness.race(
        PLACE, contestants, make_options(tmp_path), turns=1, equal={"loss": 1e-4},
        on_rows=told.extend,
    )  # fmt: skip
    assert [row["status"] for row in rows] == ["differs", "ok", "ok"]
    assert told == rows
    assert rows[0]["differs"] == {"loss": [2.1, 2.0]}
    assert results.compute_ratios(rows) == {}
    results.mark_best(rows)
    assert [row["best"] for row in rows].count(True) == 1
    assert not rows[0]["best"]
    assert "differs: loss 2.1, not 2 as librosa: b" in results.list_cells(rows[0])[2]
    assert "ms" in results.list_cells(rows[0])[5]


def mark(*losses):
    """Which of ser_jax bfloat16, PyTorch bfloat16, TF32, float32 and ser_jax float32 differ."""
    entries = [("ser_jax", "bfloat16"), ("pytorch", "bfloat16"), ("pytorch", "tf32"),
               ("pytorch", "float32"), ("ser_jax", "float32")]  # fmt: skip
    contestants = [Contestant(side, "", "", precision=precision) for side, precision in entries]
    records = [{"facts": {"loss": loss}} for loss in losses]
    mark_differing(contestants, records, {"loss": 1e-4})
    return ["differs" in record for record in records]


def test_losses_may_differ_by_as_much_as_their_precision_allows():
    assert mark(2.0 * 1.009, 2.0 * 0.991, 2.0 * 1.0019, 2.0, 2.0 * 1.00009) == [False] * 5
    assert mark(2.0 * 1.011, 2.0, 2.0, 2.0, 2.0) == [True] + [False] * 4
    assert mark(2.0, 2.0, 2.0 * 1.003, 2.0, 2.0) == [False, False, True, False, False]
    # The float32 of the baseline is the reference, even on its own.
    assert mark(1.0, 1.0, 1.0, 2.0, 1.0) == [True, True, True, False, True]
    assert mark(2.0, float("nan"), 2.0, 2.0, 2.0) == [False, True, False, False, False]


def test_cold_race_runs_every_process_twice(tmp_path):
    contestants = make_sleepers(tmp_path / "log", a={"sleep_s": 0.2})[:2]
    told = []
    rows = harness.race_cold(
        PLACE, contestants, make_options(tmp_path), turns=2, on_rows=lambda rows: told.append(rows)
    )
    assert (tmp_path / "log").read_text() == "aabb" + "bbaa"
    assert [row["temperature"] for row in rows] == ["cold", "warm"] * 2
    assert told == [rows[:2], rows[2:]]
    assert [row["side"] for row in rows] == ["librosa", "librosa", "ser_jax", "ser_jax"]
    cold, warm = rows[2:]
    assert cold["compile_s"] >= 0.2
    assert cold["median_s"] >= 0.1  # of the two steps of a turn
    assert warm["compile_s"] is None
    assert warm["median_s"] < cold["median_s"]
    assert results.compute_ratios(rows).keys() == {"cnn", "cnn_warm"}


def test_cold_run_that_fails_or_hangs_leaves_one_row(tmp_path):
    contestants = make_sleepers(tmp_path / "log", a={"fails_at": 1}, b={"sleep_s": 600})
    rows = harness.race_cold(PLACE, contestants[:2], make_options(tmp_path), turns=1, turn_s=3)
    assert [row["reason"] for row in rows] == ["RuntimeError: no compiler", "not ready after 3 s"]


def test_nothing_starts_when_the_time_is_up(tmp_path, capsys):
    options = make_options(tmp_path, end_s=0.0)
    contestants = make_sleepers(tmp_path / "log")
    assert harness.race(PLACE, contestants, options, turns=1) == []
    assert harness.race_cold(PLACE, contestants, options, turns=1) == []
    assert not (tmp_path / "log").exists()
    assert "step, cnn, 2 x 3: skipped, the time is up" in capsys.readouterr().out


def test_all_ends_in_time_and_names_what_it_left_out(tmp_path, monkeypatch, capsys):
    everything.main(["--seconds", "0", "--only", "step,grid", "--out", str(tmp_path / "out.json")])
    out = capsys.readouterr().out
    assert "step: skipped, the time is up" in out
    assert "grid: skipped, the time is up" in out


def test_a_benchmark_whose_helper_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    def fail(measure, options, benchmark):
        raise Failed(f"no {benchmark}")

    monkeypatch.setattr(harness, "run", fail)
    everything.main(["--only", "step,grid", "--out", str(tmp_path / "out.json")])
    assert capsys.readouterr().out == "step: no step\ngrid: no grid\n"


def test_rows_are_saved_after_every_race(tmp_path):
    options = make_options(tmp_path)
    results.save(options, "step", [make_row("ser_jax", 9.0)], 1.0)
    results.save(options, "grid", [make_row("ser_jax", 9.0, benchmark="grid")], 1.0)
    found = []

    def measure(options):
        for case in ("cnn", "lstm"):
            contestants = make_sleepers(tmp_path / "log")[:1]
            harness.race(PLACE | {"case": case}, contestants, options, turns=1)
            rows = json.loads(options.out.read_text())["rows"]
            found.append([row["case"] for row in rows if row["benchmark"] == "step"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harness.run(measure, options, "step")
    assert found == [["cnn"], ["cnn", "lstm"]]
    assert len(json.loads(options.out.read_text())["rows"]) == 3


def test_only_our_side_imports_from_its_own_folder(tmp_path):
    for folder in ("own", "installed"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "some_library.py").touch()
    options = make_options(tmp_path, ours_path=str(tmp_path / "own"))
    installed = {"PYTHONPATH": str(tmp_path / "installed")}
    found = {}
    for side in ("ser_jax", "pytorch"):
        worker = start_worker(Contestant(side, "", "", environment=installed), options)
        worker.call("site:addsitedir", sitedir=str(tmp_path / "installed"))
        found[side] = worker.call("tests.contestants:find_package", name="some_library")
        worker.close()
    assert [os.path.dirname(path) for path in found["ser_jax"]] == [str(tmp_path / "own")] * 2
    assert [os.path.dirname(p) for p in found["pytorch"]] == [str(tmp_path / "installed")] * 2


def test_helpers_leave_the_device_alone(tmp_path):
    options = make_options(tmp_path)
    assert harness.call(options, "os:getenv", key="JAX_PLATFORMS") == "cpu"


# Results


def make_row(side, median_s, keys=("cnn",), **more):
    return {
        **PLACE, "side": side, "configuration": "c", "precision": "float32", "threads": 1,
        "status": "ok", "median_s": median_s, "p95_s": median_s, "first_step_s": 1.0,
        "compile_s": 0.5, "clips_per_s": 1 / median_s, "mfu": 0.1, "floor_s": 0.01,
        "peak_memory_mib": 10.0, "ratio_keys": list(keys), **more,
    }  # fmt: skip


def test_ratio_is_the_others_best_median_over_ours():
    rows = [
        make_row("ser_jax", 0.2), make_row("ser_jax", 0.1), make_row("pytorch", 0.3),
        make_row("pytorch", 0.25), make_row("pytorch", 0.01, keys=()),
        make_row("pytorch", 0.01, status="failed"), make_row("pytorch", 0.5, keys=["lstm"]),
    ]  # fmt: skip
    assert results.compute_ratios(rows) == {"cnn": 2.5}


def test_cpu_headline_is_float32_only():
    assert list_ratio_keys("cnn", "cpu", "float32", True) == ("cnn", "cnn_any_precision")
    assert list_ratio_keys("cnn", "cpu", "bfloat16", True) == ("cnn_any_precision",)
    assert list_ratio_keys("cnn", "gpu", "bfloat16", True) == ("cnn", "cnn_bfloat16")
    assert list_ratio_keys("cnn", "cpu", "float32", False) == ()


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", ["cnn", "lstm", "cnn_lstm"])
def test_gpu_configurations_are_distinct_programs_with_a_float32_reference(name, quick):
    ours, theirs = list_our_ways(name, "gpu", 1, quick), list_torch_ways(name, "gpu", quick)
    for ways in (ours, theirs):
        programs = [(precision, repr(sorted(own.items()))) for _, precision, own, _ in ways]
        assert len(set(programs)) == len(programs)
        assert len({way[:2] for way in ways}) == len(ways)
    assert any(precision == "float32" for _, precision, _, _ in theirs)
    assert ("lstm" in repr([own for *_, own, _ in ours])) == (name != "cnn")
    assert ("channels_last" in repr(theirs)) == (name != "lstm")
    assert any(own.get("graph") for *_, own, _ in theirs)
    assert any("max-autotune" in words for words, *_ in theirs) != quick


def test_results_are_merged_and_drawn(tmp_path):
    options = make_options(tmp_path)
    rows = [make_row("ser_jax", 0.1), make_row("pytorch", 0.2), make_row("pytorch", 0.3)]
    results.save(options, "step", rows, 1.0)
    other = [make_row("ser_jax", 0.1, keys=("grid",), benchmark="grid"),
             make_row("librosa", 0.3, keys=("grid",), benchmark="grid")]  # fmt: skip
    results.save(options, "grid", other, 2.0)
    results.save(options, "step", rows[:2], 1.0)
    document = json.loads(options.out.read_text())
    assert document["ratios"] == {"grid": 3.0, "cnn": 2.0}
    assert {"device", "versions", "rows"} <= document.keys()
    assert [row["best"] for row in document["rows"]] == [True, True, True, True]
    results.render(options.out)
    text = options.out.with_suffix(".md").read_text()
    assert text.count("librosa: c") == 1
    assert "| cnn | 2.00 |" in text
    assert options.out.with_suffix(".png").stat().st_size > 1000
