"""Check a GPU in ten minutes: correct results, speed against PyTorch, and its reasons.

Commands (docs/gpu.md):
  python benchmarks/gpu.py --out DIR                    the first call, 520 s
  python benchmarks/gpu.py --second --out DIR           the second, 370 s
  python benchmarks/gpu.py --dry-run                    both, tiny, on a CPU
  python benchmarks/gpu.py --render DIR                 results/DEVICE.* from what a call left

Each section runs in its own process group under its own time limit, and writes each row to
DIR/rows.jsonl as soon as it is known: a section that fails, hangs or is killed loses only itself.
Imports only the standard library.
"""

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

if not __package__:  # run as a script: find modules from the root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.sections.context import ROWS_FILE, Context
from benchmarks.sections.group import Group, Stopped
from benchmarks.summary import has_failed, write_summary

ROOT = Path(__file__).resolve().parents[1]


class Section(NamedTuple):
    """A part of a call.

    Attributes:
      name: also that of its module in `benchmarks.sections`, unless `module` names another.
      limit_s: seconds after which it is stopped.
      estimate_s: it is skipped if fewer seconds are left.
      ours: it only runs ser_jax, so `--ours-path` applies to the section's own process.
      module: 'package.module' with a function `measure(context)`.
    """

    name: str
    limit_s: float
    estimate_s: float
    ours: bool = False
    module: str = ""


FIRST = (
    Section("facts", 40, 15),
    Section("right", 75, 25, ours=True),
    Section("run", 110, 40),
    Section("grid", 125, 60),
    Section("step", 100, 50),
    Section("wav2vec2", 120, 60),
    Section("rest", 120, 30),
)
SECOND = (
    Section("options", 160, 60),
    Section("resume", 80, 50, ours=True),
    Section("trace", 40, 25, ours=True),
    Section("real_grid", 80, 50),
    Section("device_tests", 60, 20, ours=True),
)
BUDGET_S, SECOND_BUDGET_S = 520, 370
DRY_BUDGET_S = 1200  # three minutes on two idle cores; a busy machine may need more
NEEDS_CORPUS = {"grid", "run", "rest", "options", "real_grid"}
BESIDE_CORPUS = ("facts", "right")
_LAST_S = 8  # kept for the summary
_LOG_BYTES = 8 << 20
_DRY_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",  # what runs once should compile quickly
    # Threads that spin at barriers while others have the cores would take minutes.
    "OMP_WAIT_POLICY": "passive",
}
_CORPUS_S = 45  # longest wait for the corpus, prepared beside earlier sections


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="default runs/gpu")
    parser.add_argument("--budget", type=float, help="seconds for all; default 520, second 370")
    parser.add_argument("--second", action="store_true", help="the sections of the second call")
    parser.add_argument("--dry-run", action="store_true", help="all sections, tiny, on a CPU")
    parser.add_argument("--only", help="some sections, separated by commas")
    parser.add_argument("--render", type=Path, metavar="DIR", help="results from a call's DIR")
    parser.add_argument("--ours-path", help="folder of packages for ser_jax's processes only")
    parser.add_argument("--data.root", dest="data_root", help="folder of the RAVDESS recordings")
    parser.add_argument("--data.store_dir", dest="store_dir", help="folder of decoded corpora")
    options = parser.parse_args(arguments)
    options.sections = FIRST + SECOND if options.dry_run else SECOND if options.second else FIRST
    if options.only:
        named = options.only.split(",")
        known = {section.name: section for section in FIRST + SECOND}
        if unknown := [name for name in named if name not in known]:
            parser.error(f"--only {','.join(unknown)}: known are {', '.join(known)}")
        options.sections = tuple(known[name] for name in named)
    default_s = DRY_BUDGET_S if options.dry_run else SECOND_BUDGET_S if options.second else BUDGET_S
    options.budget = options.budget or default_s
    return options


class Orchestrator:
    """Runs sections one after another within the budget.

    Args:
      options: see `parse`.
      sections: what to run, in this order.
    """

    def __init__(self, options: argparse.Namespace, sections: Sequence[Section]):
        self.options, self.sections = options, sections
        self.start_s = time.monotonic()
        self.end_s = self.start_s + options.budget
        self.call = time.time()
        options.out.mkdir(parents=True, exist_ok=True)
        self.log = (options.out / "log.txt").open("ab")

    def run(self) -> int:
        """Run all sections, then write the summary, whatever happened; the exit status."""
        status = 0
        work = tempfile.mkdtemp(prefix="ser_jax-gpu-")
        try:
            with stopping(), self._preparing(work) as corpus:
                for section in self.sections:
                    if corpus is not None and section.name not in BESIDE_CORPUS:
                        corpus.wait(min(_CORPUS_S, self._left_s()))
                        corpus.end()
                        corpus = None  # nothing runs beside what is timed
                    self._run_section(section, work)
        except Stopped as stopped:
            status = 128 + stopped.signum
        finally:
            with ignoring():
                shutil.rmtree(work, ignore_errors=True)
                text = write_summary(self.options.out, time.monotonic() - self.start_s)
                self.log.write(text.encode())
                self.log.close()
                print(text, flush=True)
        return status or int(has_failed(self.options.out))

    def _left_s(self) -> float:
        return self.end_s - _LAST_S - time.monotonic()

    @contextlib.contextmanager
    def _preparing(self, work: str) -> Iterator[Group | None]:
        """Prepare the corpus on the CPU, beside the sections that do not need it."""
        needing = {section.name for section in self.sections} & NEEDS_CORPUS
        if self.options.store_dir and not self.options.data_root:
            needing -= {"real_grid"}  # uses the store of RAVDESS
        if not needing:
            yield None
            return
        section = Section("corpus", 600, 0, ours=True)
        group = self._start(section, work, self.end_s, JAX_PLATFORMS="cpu")
        try:
            yield group
        finally:
            group.end()

    def _run_section(self, section: Section, work: str) -> None:
        """Run one section, and write a row of how it went."""
        left_s = self._left_s()
        context = self._make_context(section, work, 0.0)
        row = {"benchmark": "section", "case": section.name}
        if left_s < section.estimate_s:
            words = f"takes {section.estimate_s:g} s or more, {max(0, left_s):.0f} s are left"
            context.put(row | {"status": "skipped", "seconds": 0.0, "reason": words})
            return
        # Only the budget limits a dry run: the machine may be slow.
        limit_s = left_s if self.options.dry_run else min(section.limit_s, left_s)
        self._print(f"\n== {section.name}: {limit_s:.0f} s at most\n")
        start_s, status, reason = time.monotonic(), "stopped", "the call was stopped"
        try:
            group = self._start(section, work, start_s + limit_s)
            try:
                ended = group.wait(limit_s)
            finally:
                last = group.end().last_line
            status, reason = "ok", None
            if ended is None:
                status, reason = "stopped", f"not done after {limit_s:.0f} s"
            elif ended != 0:
                status, reason = "failed", last or f"exit status {ended}"
        finally:
            seconds = round(time.monotonic() - start_s, 2)
            context.put(row | {"status": status, "seconds": seconds, "reason": reason})

    def _start(self, section: Section, work: str, end_s: float, **environment: str) -> Group:
        own = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONUNBUFFERED": "1"}
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        if section.ours and self.options.ours_path:
            paths.insert(0, self.options.ours_path)
        own["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        if self.options.dry_run:
            own |= _DRY_ENVIRONMENT
        module = section.module or f"benchmarks.sections.{section.name}"
        context = self._make_context(section, work, end_s)
        command = [sys.executable, "-m", "benchmarks.sections", module, context.dumps()]
        return Group(command, os.environ | own | environment, ROOT, self._print)

    def _make_context(self, section: Section, work: str, end_s: float) -> Context:
        options = self.options
        return Context(
            section.name, self.call, str(options.out.resolve()), work, options.dry_run, end_s,
            options.ours_path, options.data_root, options.store_dir,
        )  # fmt: skip

    def _print(self, text: str) -> None:
        """Print to the terminal and to the log, which stays small enough to be sent."""
        print(text, end="", flush=True)
        if self.log.tell() < _LOG_BYTES:
            self.log.write(text.encode())
            self.log.flush()


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Make SIGTERM and SIGINT raise `Stopped` inside, once."""

    def stop(signum: int, frame: object) -> None:
        del frame
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)
    yield


@contextlib.contextmanager
def ignoring() -> Iterator[None]:
    """Ignore SIGTERM and SIGINT, so that the summary is written."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, signal.SIG_IGN)
    yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    options = parse(arguments)
    if options.render is not None:
        if not (options.render / ROWS_FILE).is_file():
            words = f"--render {options.render}: has no {ROWS_FILE}; name the --out of a call"
            print(f"gpu.py: {words}", file=sys.stderr)
            return 2
        from benchmarks.summary import render

        render(options.render)
        return 0
    return Orchestrator(options, options.sections).run()


if __name__ == "__main__":
    sys.exit(main())
