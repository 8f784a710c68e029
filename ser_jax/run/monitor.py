"""What a run reports while it trains: its log, the terminal, the profiler."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from ser_jax.config import Config
from ser_jax.errors import UserError
from ser_jax.files.atomic import new_folder
from ser_jax.progress import progress
from ser_jax.run.events import EventLog, make_start
from ser_jax.systems.registry import find_system
from ser_jax.training.loop import OnEvent


@contextlib.contextmanager
def watch(
    log: EventLog, config: Config, observe: OnEvent | None, facts: dict[str, Any]
) -> Iterator[OnEvent]:
    """A callable that passes events to the log and to `observe`, or else to the terminal.

    The start event carries the run's identity and recordings, out of `facts`.
    """
    with contextlib.ExitStack() as stack:
        shown = _shown if find_system(config.model.name).is_network else _shown_fits
        tell = observe or stack.enter_context(shown(config))

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "start":
                if event["anew"]:
                    log.cut_back(-1)
                event = make_start(facts)
            if event["event"] == "restored":
                log.cut_back(event["step"])
            elif event["event"] != "step":
                log(event)
            tell(event)

        yield on_event


@contextlib.contextmanager
def _shown(config: Config) -> Iterator[OnEvent]:
    """A progress bar of epochs, and a line for each."""
    epochs = config.train.epochs
    with progress(f"training {config.model.name}", epochs, "epochs") as advance:
        reached = 0.0

        def tell(event: dict[str, Any]) -> None:
            nonlocal reached
            if event["event"] not in ("step", "epoch", "restored"):
                return
            within, note = 0.0, ""
            if event["event"] == "step":
                within = event["number"] / event["of"] - 1
                note = f"step {event['number']}/{event['of']}"
            restored = event["event"] == "restored"
            advance(event["epoch"] + within - reached, note, earlier=restored)
            reached = event["epoch"] + within
            if restored:
                print(f"resumed after epoch {event['epoch']}", flush=True)
            if event["event"] == "epoch":
                print(_format_epoch(event, epochs), flush=True)

        yield tell


@contextlib.contextmanager
def _shown_fits(config: Config) -> Iterator[OnEvent]:
    """A line for each fit: what was fitted, and how well."""
    with progress(f"fitting {config.model.name}", 1, "model") as advance:

        def tell(event: dict[str, Any]) -> None:
            if event["event"] != "fit":
                return
            advance(1 / event["of"])
            figures = {k: v for k, v in event.items() if k not in ("event", "number", "of")}
            texts = [
                f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}"
                for key, value in figures.items()
            ]
            print(f"fit {event['number']}/{event['of']}  {'  '.join(texts)}", flush=True)

        yield tell


def _format_epoch(event: dict[str, Any], epochs: int) -> str:
    star = " *" if event["best_epoch"] == event["epoch"] else ""
    return (
        f"epoch {event['epoch']:>{len(str(epochs))}}/{epochs}  "
        f"train loss {event['train_loss']:.3f} accuracy {event['train_accuracy']:.3f}  "
        f"val loss {event['val_loss']:.3f} accuracy {event['val_accuracy']:.3f}  "
        f"{event['seconds']:.1f} s{star}"
    )


@contextlib.contextmanager
def profiled(on_event: OnEvent, n_steps: int, run_dir: Path) -> Iterator[OnEvent]:
    """`on_event`, with a profiler trace of `n_steps` steps after the first (which compiles).

    Raises:
      UserError: the trace cannot be written.
    """
    if n_steps == 0:
        yield on_event
        return
    done = False
    with contextlib.ExitStack() as trace:

        def on_event_traced(event: dict[str, Any]) -> None:
            nonlocal done
            if event["event"] == "step" and event["number"] == 1 and not done:
                trace.enter_context(_tracing(run_dir / "profile"))
                done = True
            elif event["event"] == "epoch" or event.get("number", 0) > n_steps:
                trace.close()
            on_event(event)

        yield on_event_traced


@contextlib.contextmanager
def _tracing(folder: Path) -> Iterator[None]:
    """Trace what JAX does inside into `folder`."""
    with new_folder(folder) as beside:
        jax.profiler.start_trace(beside)
        try:
            yield
        finally:
            _stop_trace(folder)


def _stop_trace(folder: Path) -> None:
    try:
        jax.profiler.stop_trace()
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).rpartition("; ")[2]
        raise UserError(
            f"{folder}: cannot write the trace: {reason}; free some space, or leave out "
            "train.profile"
        ) from error
