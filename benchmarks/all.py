"""Run every benchmark and write one results file, with its table and plot.

Commands:
  python benchmarks/all.py --quick [--seconds 540]      starts nothing after nine minutes
  python benchmarks/all.py [--data.root DIR] [--only step,features]
  python benchmarks/all.py --render benchmarks/results/DEVICE.json
"""

import importlib
import sys
import time
from pathlib import Path

if not __package__:  # run as a script: find modules from the root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import harness, results, scaling
from benchmarks.worker import Failed

BENCHMARKS = ("step", "features", "augment", "inference", "epoch", "grid", "wav2vec2", "scaling")
SLOW = ("wav2vec2", "scaling")  # left out by --quick, unless named


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = harness.make_parser(__doc__)
    parser.add_argument("--only", help=f"some of {', '.join(BENCHMARKS)}, separated by commas")
    parser.add_argument(
        "--render", type=Path, help="draw the table and plot of a file without measuring"
    )
    parser.add_argument(
        "--seconds", type=float, help="start no race after this time; names what is left out"
    )
    options = parser.parse_args(arguments)
    if options.render is not None:
        results.render(options.render)
        scaling.draw(results.load(options.render), scaling.plot_path(options.render))
        return
    default = [name for name in BENCHMARKS if not (options.quick and name in SLOW)]
    chosen = options.only.split(",") if options.only else default
    if unknown := set(chosen) - set(BENCHMARKS):
        parser.error(f"--only {','.join(unknown)}: known are {', '.join(BENCHMARKS)}")
    if options.seconds is not None:
        options.end_s = time.monotonic() + options.seconds
    for name in chosen:
        if harness.is_over(options):
            print(f"{name}: skipped, the time is up", flush=True)
            continue
        module = importlib.import_module(f"benchmarks.{name}")
        try:
            harness.run(module.measure, options, module.NAME)
        except Failed as error:  # in a helper process: the other benchmarks continue
            print(f"{name}: {error}", flush=True)
    if not options.out.exists():  # time ran out before the first race
        return
    results.render(options.out)
    if "scaling" in chosen:
        scaling.draw(results.load(options.out), scaling.plot_path(options.out))


if __name__ == "__main__":
    main()
