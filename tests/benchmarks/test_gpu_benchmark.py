"""The orchestrator of `benchmarks/gpu.py`, with sections that only sleep, print or fail."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu, results, summary
from benchmarks.sections.context import ROWS_FILE, Context, load_rows
from tests.tiny import list_group, wait_until

ROOT = Path(__file__).parents[2]
SECTIONS = {
    "good": """
        def measure(context):
            print("good has run")
            context.put({"benchmark": "right", "case": "good", "status": "ok"})
    """,
    "bad": """
        def measure(context):
            context.put({"benchmark": "facts", "case": "before the failure"})
            raise ValueError("no such card")
    """,
    "slow": """
        import os, subprocess, sys, time
        def measure(context):
            child = subprocess.Popen([sys.executable, "-c", "import signal, time;"
                "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"])
            context.put({"benchmark": "facts", "case": "group", "note": os.getpgid(0),
                         "child": child.pid})
            time.sleep(600)
    """,
    "kind": """
        import time
        def measure(context):
            context.put({"benchmark": "facts", "case": "kind"})
            try:
                time.sleep(600)
            finally:
                context.put({"benchmark": "facts", "case": "last words"})
    """,
    "killed": """
        import os, signal
        def measure(context):
            context.put({"benchmark": "facts", "case": "before the kill"})
            os.kill(os.getpid(), signal.SIGKILL)
    """,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A package of sections, which the sections' processes find too."""
    (tmp_path / "fake").mkdir()
    for name, text in SECTIONS.items():
        (tmp_path / "fake" / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def make_section(name: str, limit_s: float = 20, estimate_s: float = 0) -> gpu.Section:
    return gpu.Section(name, limit_s, estimate_s, module=f"fake.{name}")


PROGRAM = """
import sys
from benchmarks import gpu
options = gpu.parse(["--out", sys.argv[1], "--budget", sys.argv[2]])
sections = [gpu.Section(n, float(l), float(e), module=f"fake.{n}")
            for n, l, e in (x.split(":") for x in sys.argv[3:])]
sys.exit(gpu.Orchestrator(options, sections).run())
"""


def start(folder: Path, *sections: str, budget: float = 60) -> subprocess.Popen:
    """The orchestrator with sections 'name:limit:estimate'."""
    paths = os.pathsep.join((str(ROOT), str(folder)))
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder / "out"), str(budget), *sections],
        env=os.environ | {"PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True, cwd=folder,
    )  # fmt: skip


def find(rows, case: str) -> Any:
    return next((row for row in rows if row["case"] == case), None)


def wait_for_row(folder: Path, case: str):
    wait_until(lambda: find(load_rows(folder / "out"), case), f"no row {case}")
    return find(load_rows(folder / "out"), case)


def test_a_section_that_fails_stops_no_other_and_says_why(folder):
    process = start(folder, "bad:20:0", "killed:20:0", "good:20:0")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    rows = load_rows(folder / "out")
    assert find(rows, "bad")["status"] == "failed"
    assert find(rows, "bad")["reason"] == "ValueError: no such card"
    assert find(rows, "killed")["status"] == "failed"
    assert find(rows, "before the failure")
    assert find(rows, "before the kill")
    sections = summary.list_sections(rows)
    assert [row["status"] for row in sections] == ["failed", "failed", "ok"]
    assert "good has run" in output
    assert "good has run" in (folder / "out" / "log.txt").read_text()
    assert output.endswith((folder / "out" / "summary.md").read_text() + "\n")


def test_the_exit_status_is_zero_when_all_sections_pass(folder):
    process = start(folder, "good:20:0")
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_limit_ends_the_whole_group_after_its_last_rows(folder):
    process = start(folder, "kind:1.5:0", "slow:1.5:0", "good:20:0")
    process.communicate(timeout=60)
    rows = load_rows(folder / "out")
    assert find(rows, "last words")
    for name in ("kind", "slow"):
        assert find(rows, name) is not None
    assert [row["status"] for row in summary.list_sections(rows)] == ["stopped", "stopped", "ok"]
    # The child that ignores SIGTERM is gone as well.
    assert list_group(find(rows, "group")["note"]) == []


def test_a_section_that_does_not_fit_is_skipped_and_reported(folder):
    process = start(folder, "slow:20:30", "good:20:0", budget=gpu._LAST_S + 20)
    output, _ = process.communicate(timeout=60)
    rows = load_rows(folder / "out")
    assert find(rows, "slow")["status"] == "skipped"
    assert "takes 30 s or more" in find(rows, "slow")["reason"]
    assert find(rows, "group") is None
    assert summary.list_sections(rows)[1]["status"] == "ok"
    assert "takes 30 s or more" in output


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_section_and_the_summary_is_written(folder, signum):
    process = start(folder, "slow:50:0", "good:20:0")
    group = wait_for_row(folder, "group")["note"]
    process.send_signal(signum)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + signum
    assert list_group(group) == []
    rows = load_rows(folder / "out")
    assert find(rows, "slow")["reason"] == "the call was stopped"
    assert find(rows, "good") is None
    assert "| slow | stopped |" in (folder / "out" / "summary.md").read_text()
    assert "| slow | stopped |" in output


def test_nothing_is_left_of_a_section_whose_orchestrator_was_killed(folder):
    process = start(folder, "slow:50:0")
    group = wait_for_row(folder, "group")["note"]
    process.kill()
    process.communicate(timeout=30)
    wait_until(lambda: not list_group(group), "the section lives on", timeout_s=20)
    assert find(load_rows(folder / "out"), "group")


def make_context(out: Path, section: str = "facts", call: float = 1.0) -> Context:
    return Context(section, call, str(out), "work", True, time.monotonic() + 10)


def test_only_the_last_whole_rows_of_a_repeated_section_count(tmp_path):
    for call in (1.0, 2.0):
        make_context(tmp_path, call=call).put({"benchmark": "facts", "case": f"of {call}"})
    make_context(tmp_path, "right").put({"benchmark": "right", "case": "x", "status": "ok"})
    with (tmp_path / ROWS_FILE).open("a") as file:
        file.write('{"section": "facts", "ca')
    assert [row["case"] for row in load_rows(tmp_path)] == ["of 2.0", "x"]


def test_a_context_survives_the_command_line():
    context = make_context(Path("out"))
    assert Context.loads(context.dumps()) == context
    assert 0 < context.left_s() <= 10


def test_the_orchestrator_imports_only_the_standard_library():
    heavy = "numpy", "jax", "torch", "yaml", "flax"
    code = f"import sys; import benchmarks.gpu; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "[]\n"


def test_unknown_sections_are_refused(capsys):
    with pytest.raises(SystemExit):
        gpu.parse(["--only", "facts,nonsense"])
    assert "--only nonsense: known are facts, right" in capsys.readouterr().err


def test_budgets_and_sections_are_those_of_the_call():
    first, second, dry = (gpu.parse(a) for a in ([], ["--second"], ["--dry-run"]))
    assert (first.budget, second.budget) == (520, 370)
    assert dry.sections == first.sections + second.sections
    for options in (first, second):
        timed = [s for s in options.sections if s.name != "rest"]
        assert sum(section.limit_s for section in timed) <= options.budget - gpu._LAST_S + 60
        assert all(section.estimate_s < section.limit_s for section in options.sections)


def make_race_row(side: str, median_s: float, **more) -> dict:
    return {
        "benchmark": "step", "case": "lstm", "shape": "1 x 2 x 3", "side": side,
        "configuration": "way", "precision": "tf32", "threads": 2, "status": "ok",
        "median_s": median_s, "p95_s": median_s, "ratio_keys": ["lstm"], **more,
    }  # fmt: skip


def test_summary_and_results_have_ratios_wrong_checks_and_losing_rows(tmp_path):
    context = make_context(tmp_path)
    device = {"name": "a card", "peaks": {}, "peaks_from": "a test"}
    rows = [
        {"benchmark": "device", "device": device, "versions": {"jax": "1"}},
        {"benchmark": "right", "case": "mfcc", "status": "ok", "error": 1e-6, "bound": 1e-4},
        {"benchmark": "right", "case": "lstm", "status": "wrong", "error": 0.5, "bound": 1e-4},
        {"benchmark": "right", "case": "cnn", "status": "failed", "reason": "ValueError: x | y"},
        {"benchmark": "section", "case": "facts", "status": "ok", "seconds": 3.0, "reason": None},
        make_race_row("ser_jax", 0.1), make_race_row("pytorch", 0.05),
        make_race_row("pytorch", 0.3),
        make_race_row("pytorch", 0.0, status="skipped", reason="needs a GPU"),
    ]  # fmt: skip
    context.put_rows(rows)
    text = summary.write_summary(tmp_path, 12.0)
    assert "# a card" in text
    assert "right: 1 ok, 0 noted, 1 wrong, 1 failed" in text
    assert "| lstm | wrong | 0.5 | 0.0001 |" in text
    assert "| cnn | failed |  |  | ValueError: x / y |" in text
    assert "| lstm | 0.50 |" in text
    assert summary.has_failed(tmp_path)
    summary.render(tmp_path, tmp_path / "results")
    document = json.loads((tmp_path / "results" / "a-card.json").read_text())
    assert len(document["rows"]) == 4
    assert len(document["checks"]) == 3
    markdown = (tmp_path / "results" / "a-card.md").read_text()
    for words in ("| lstm | wrong | 0.5 |", "skipped: needs a GPU", "100 ms", "300 ms"):
        assert words in markdown
    assert (tmp_path / "results" / "a-card.png").stat().st_size > 1000


def test_a_folder_without_rows_is_not_rendered(tmp_path, capsys):
    before = sorted(results.FOLDER.iterdir())
    assert gpu.main(["--render", str(tmp_path / "none")]) == 2
    assert re.fullmatch(
        r"gpu\.py: --render .*none: has no rows\.jsonl; .*\n", capsys.readouterr().err
    )
    assert sorted(results.FOLDER.iterdir()) == before
