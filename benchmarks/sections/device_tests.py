"""Device tests: the tests of the suite that matter on a device, run on it."""

import os
import re
import subprocess
import sys

from benchmarks.sections.context import Context

NAME = "right"
_LINE = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL)\b")
DRY_TESTS = ("tests/features/test_frontend.py",)  # all of them take minutes on a CPU


def count_outcomes(lines: list[str]) -> tuple[dict[str, int], list[str]]:
    """How many tests ended how, by pytest's verbose lines, and the names of those that failed."""
    counts: dict[str, int] = {}
    failed = []
    for line in lines:
        if match := _LINE.match(line):
            name, outcome = match.groups()
            counts[outcome.lower()] = counts.get(outcome.lower(), 0) + 1
            failed += [name] * (outcome in ("FAILED", "ERROR"))
    return counts, failed


def measure(context: Context) -> None:
    """A row of how many passed, and one for each that failed; also where time ran out."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "-m", "device", "-v", "--tb=short"]
    command += DRY_TESTS if context.dry else []
    platform = {"SER_JAX_TEST_PLATFORM": "cpu" if context.dry else "cuda"}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env=os.environ | platform,
    )  # fmt: skip
    lines = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
        ended = process.wait() in (0, 1)
    except SystemExit:
        ended = False
    counts, failed = count_outcomes(lines)
    words = ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items())) or "none was run"
    status = "ok" if ended and counts.get("passed") and not failed else "wrong"
    words += "" if ended else "; not all were run"
    context.put({"benchmark": NAME, "case": "device tests", "status": status, "reason": words})
    for name in failed:
        context.put({"benchmark": NAME, "case": name, "status": "failed", "reason": "see log.txt"})
