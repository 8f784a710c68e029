"""The benchmarks count, compare and report right; how fast anything is, no test asks."""

import argparse
import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import all as everything
from benchmarks import harness, results
from benchmarks.clips import compute_librosa
from benchmarks.figures import mark_differing
from benchmarks.flops import compute_floor_s, count_forward, count_step, list_layers
from benchmarks.ours import make_step as make_our_step
from benchmarks.ours import make_variables
from benchmarks.pytorch.augment import apply as augment
from benchmarks.pytorch.augment import roll, shift_pitch, stretch, vocode
from benchmarks.pytorch.features import FrontEnd
from benchmarks.pytorch.models import make_network
from benchmarks.pytorch.training import make_step as make_torch_step
from benchmarks.race import start_worker
from benchmarks.step import list_ratio_keys
from benchmarks.worker import Contestant, Failed, Worker
from ser_jax.config import AugmentConfig, FeaturesConfig, ModelConfig
from ser_jax.features import make_front_end

SMALL = {"channels": (4, 6), "hidden": 8, "dense": (5,)}
NETWORKS = ["cnn", "lstm", "cnn_lstm"]
PEAKS = {"float32": 1e9, "tf32": 1e9, "bfloat16": 2e9, "memory": 1e9}


@pytest.fixture(scope="module", autouse=True)
def _quickly():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # tests elsewhere compile anew, with optimisations
    torch.set_num_threads(before)


# Counted work


def test_work_of_the_cnn_is_that_counted_by_hand():
    layers = list_layers(ModelConfig(name="cnn", channels=(2,), dense=(3,)), 4, 6, 4)
    conv, dense, logits = 2 * 9 * 2 * 24, 2 * (3 * 2 * 2) * 3, 2 * 3 * 4
    assert count_forward(layers, 5).flop == 5 * (conv + dense + logits)
    # The first convolution has no gradient to its input.
    assert count_step(layers, 5).flop == 5 * (2 * conv + 3 * (dense + logits))
    parameters = 9 * 2 + 2 * 2 + 13 * 3 + 4 * 4
    outputs = 24 * 2 + 6 * 2 + 3 + 4
    assert count_step(layers, 5).n_bytes == 2 * 4 * (parameters + 5 * outputs)
    assert count_step(layers, 5, bytes_each=2).n_bytes == 2 * (4 * parameters + 2 * 5 * outputs)


def test_work_of_the_lstm_is_that_counted_by_hand():
    layers = list_layers(ModelConfig(name="lstm", hidden=3, dense=()), 4, 6, 5)
    projection, recurrence, logits = 2 * 5 * 12 * 6, 2 * 3 * 12 * 6, 2 * 3 * 4
    assert count_forward(layers, 2).flop == 2 * (projection + recurrence + logits)
    assert count_step(layers, 2).flop == 2 * (2 * projection + 3 * (recurrence + logits))


@pytest.mark.parametrize("name", NETWORKS)
def test_counted_work_and_parameters_are_those_of_the_twin(name):
    config = ModelConfig(name=name, **SMALL)
    network = make_network(config, 8, n_frames=20, n_features=12)
    layers = list_layers(config, 8, 20, 12)
    assert sum(layer.n_parameters for layer in layers) == sum(
        p.numel() for p in network.parameters() if p.requires_grad
    )
    x_BTF = torch.randn(2, 20, 12)
    if name != "cnn":  # PyTorch counts no recurrence: its products are written out here
        network.lstm = WrittenOut(network.lstm)  # pyright: ignore
    with FlopCounterMode(display=False) as counter:
        network(x_BTF)
        forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        network(x_BTF).sum().backward()
        step = counter.get_total_flops()
    assert count_forward(layers, 2).flop == forward
    assert count_step(layers, 2).flop == step


class WrittenOut(torch.nn.Module):
    """An LSTM as products."""

    def __init__(self, lstm):
        super().__init__()
        self.lstm = lstm

    def forward(self, x_BTF):
        w = dict(self.lstm.named_parameters())
        z = x_BTF.flatten(0, 1) @ w["weight_ih_l0"].T
        z_TB4H = z.unflatten(0, x_BTF.shape[:2]).transpose(0, 1)
        # A leaf, so that the first product has a gradient to its input too.
        h = c = torch.zeros(len(x_BTF), self.lstm.hidden_size, requires_grad=True)
        states = []
        for z_B4H in z_TB4H:
            i, f, g, o = (z_B4H + h @ w["weight_hh_l0"].T).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            states.append(h)
        return torch.stack(states, dim=1), None


def test_counted_work_of_a_dense_layer_is_what_xla_counts():
    layers = [x for x in list_layers(ModelConfig(**SMALL), 8, 20, 12) if x.name == "dense_0"]
    program = jax.jit(lambda x, w: x @ w).lower(jnp.ones((3, 8)), jnp.ones((8, 5))).compile()
    assert count_forward(layers, 3).flop == (program.cost_analysis() or {})["flops"]


def test_floor_is_the_slower_of_arithmetic_and_memory():
    work = count_step(list_layers(ModelConfig(), 8, 165, 40), 32)
    assert compute_floor_s(work, 1e12, 1e18) == pytest.approx(work.flop / 1e12)
    assert compute_floor_s(work, 1e18, 1e9) == pytest.approx(work.n_bytes / 1e9)


# The race


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
    # First calls, then a warm round, then three rounds that begin with another each.
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


def test_contestant_that_wants_to_be_alone_is_prepared_first(tmp_path):
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


def test_contestant_that_is_late_is_killed_and_the_others_go_on(tmp_path):
    contestants = make_sleepers(tmp_path / "log", b={"sleep_s": 600})
    options = make_options(tmp_path, parallel=3)
    rows = harness.race(PLACE, contestants, options, turns=1, warm=0, prepare_s=8)
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert rows[1]["reason"] == "not ready after 8 s"
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
    # The baseline's float32 is right, even where it is alone.
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


def test_nothing_begins_when_the_time_is_up(tmp_path, capsys):
    options = make_options(tmp_path, end_s=0.0)
    contestants = make_sleepers(tmp_path / "log")
    assert harness.race(PLACE, contestants, options, turns=1) == []
    assert harness.race_cold(PLACE, contestants, options, turns=1) == []
    assert not (tmp_path / "log").exists()
    assert "step, cnn, 2 x 3: skipped, the time is up" in capsys.readouterr().out


def test_all_ends_in_time_and_names_what_it_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "describe_device", lambda options: None)
    everything.main(["--seconds", "0", "--only", "step,grid", "--out", str(tmp_path / "out.json")])
    out = capsys.readouterr().out
    assert "step: skipped, the time is up" in out
    assert "grid: skipped, the time is up" in out


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


def test_only_our_side_looks_into_the_folder_of_its_own(tmp_path):
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


def test_cpu_headline_is_float32_alone():
    assert list_ratio_keys("cnn", "cpu", "float32", True) == ("cnn", "cnn_any_precision")
    assert list_ratio_keys("cnn", "cpu", "bfloat16", True) == ("cnn_any_precision",)
    assert list_ratio_keys("cnn", "gpu", "bfloat16", True) == ("cnn", "cnn_bfloat16")
    assert list_ratio_keys("cnn", "cpu", "float32", False) == ()


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


# Both sides do the same work


@pytest.mark.parametrize("name", NETWORKS)
def test_both_sides_steps_have_equal_losses_and_go_on_learning(name):
    rng = np.random.default_rng(0)
    arguments = {
        "model": {"name": name, **SMALL},
        "x_BTF": rng.standard_normal((6, 12, 8), np.float32),
        "label_B": rng.integers(0, 8, 6).astype(np.int32),
        "index_SB": rng.integers(0, 6, (2, 4)).astype(np.int32),
    }
    arguments["variables"] = make_variables(arguments["model"], 12, 8)
    jobs = [make_our_step(**arguments), make_torch_step(**arguments)]
    jobs.append(make_torch_step(**arguments, channels_last=True, pool_first=True))
    for job in jobs:
        job.turn()
    facts = [job.facts() for job in jobs]
    assert facts[0]["parameters"] == facts[1]["parameters"]
    assert facts[0]["loss"] == pytest.approx(facts[1]["loss"], abs=1e-5)
    assert facts[1]["loss"] == pytest.approx(facts[2]["loss"], abs=1e-5)
    for job in jobs:
        job.turn()


@pytest.mark.parametrize("kind", ["mfcc", "logmel"])
def test_features_of_both_sides_are_librosas(kind):
    config = FeaturesConfig(kind=kind, n_fft=256, hop_length=100, n_mels=20, n_mfcc=13)
    rng = np.random.default_rng(0)
    wave_BN = (rng.standard_normal((2, 3000)) * [[0.1], [0.01]]).astype(np.float32)
    wave_BN[0, 2000:] = 0
    ours = np.asarray(make_front_end(config, 8000)(wave_BN))
    twin = FrontEnd(config, 8000)(torch.from_numpy(wave_BN)).numpy()
    reference = np.stack([compute_librosa(wave_N, config, 8000) for wave_N in wave_BN])
    np.testing.assert_allclose(ours, twin, rtol=0, atol=2e-2)
    np.testing.assert_allclose(twin, reference, rtol=0, atol=2e-2)


RATE_HZ, N = 8000, 8000


def make_tone(hz):
    return torch.sin(torch.arange(N) * (2 * np.pi * hz / RATE_HZ))[None] * 0.5


def find_hz(wave_BN):
    middle = wave_BN[0, N // 4 : N // 2].numpy() * np.hanning(N // 4)
    size = np.abs(np.fft.rfft(middle, 2**17))
    return np.argmax(size) * RATE_HZ / 2**17


@pytest.mark.parametrize("rate", [0.8, 1.0, 1.2])
def test_stretching_by_torch_keeps_the_pitch_and_changes_the_duration(rate):
    out = stretch(make_tone(440), torch.tensor([rate]))
    assert find_hz(out) == pytest.approx(440, rel=2e-3)
    loud = (out[0].abs() > 0.1).nonzero()[:, 0]
    assert int(loud[-1]) == pytest.approx(min(N, N / rate), abs=300)


def test_phase_vocoder_of_a_batch_is_librosas_clip_by_clip():
    wave_BN = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3000)))
    window = torch.hann_window(512, dtype=torch.float64)
    spectrum_BKT = torch.stft(wave_BN, 512, 128, window=window, return_complex=True)
    rates = (0.83, 1.17)
    out = vocode(spectrum_BKT, torch.tensor(rates, dtype=torch.float64), 40).numpy()
    for row, rate in enumerate(rates):
        expected = librosa.phase_vocoder(spectrum_BKT[row].numpy(), rate=rate, hop_length=128)
        n = min(40, expected.shape[1])
        np.testing.assert_allclose(out[row, :, :n], expected[:, :n], rtol=0, atol=1e-3)
        assert not out[row, :, n + 1 :].any()


@pytest.mark.parametrize("semitones", [-4.0, 0.0, 3.0])
def test_pitch_shifting_by_torch_changes_the_pitch_and_keeps_the_duration(semitones):
    out = shift_pitch(make_tone(440), torch.tensor([semitones]))
    assert out.shape == (1, N)
    assert find_hz(out) == pytest.approx(440 * 2 ** (semitones / 12), rel=2e-3)
    assert float(out[0, -800:-300].abs().max()) > 0.3


def test_torch_augments_some_clips_within_their_length():
    wave_BN = make_tone(300).repeat(16, 1)
    length_B = torch.full((16,), 6000)
    wave_BN[:, 6000:] = 0
    for alone in (True, False):
        torch.manual_seed(0)
        out = augment(wave_BN, length_B, AugmentConfig(), RATE_HZ, alone=alone)
        assert torch.isfinite(out).all()
        assert not out[:, 6000:].any()
        changed = (out != wave_BN).any(1)
        assert 8 < int(changed.sum()) < 17
        kept = augment(wave_BN, length_B, AugmentConfig(p=0.0), RATE_HZ, alone=alone)
        assert torch.equal(kept, wave_BN)


def test_roll_wraps_round_within_the_clip():
    wave = torch.tensor([[1.0, 2, 3, 0], [1, 2, 3, 4]])
    out = roll(wave, torch.tensor([1, -1]), torch.tensor([3, 4]))
    assert out[:, :3].tolist() == [[3, 1, 2], [2, 3, 4]]


def test_librosa_reads_its_own_defaults():
    wave_N = np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.1
    with np.errstate(all="ignore"):
        expected = librosa.feature.mfcc(y=wave_N, sr=8000, n_mfcc=20).T
    found = compute_librosa(wave_N, FeaturesConfig(), 8000)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
