"""One run from its configuration to its directory."""

import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from ser_jax.augment.epochs import open_epochs
from ser_jax.config import CLASSICAL, Config, ParallelConfig
from ser_jax.data.corpus import Corpus
from ser_jax.data.protocols import check_protocols
from ser_jax.data.speakers import DRAWN
from ser_jax.data.splits import Split, draw_split
from ser_jax.errors import check
from ser_jax.features.batching import Dataset, count_steps
from ser_jax.features.corpus_features import (
    Inputs,
    fit_to_training,
    load_clips,
    load_inputs,
    make_dataset,
)
from ser_jax.features.streaming import StreamedCorpus, choose_placement
from ser_jax.files.atomic import held, write_atomic
from ser_jax.machine.cores import count_cores
from ser_jax.machine.jax_defaults import with_jax_defaults
from ser_jax.machine.runtime import settle
from ser_jax.multihost.processes import is_writer
from ser_jax.multihost.sharing import SharedCheckpoints, share
from ser_jax.run.events import EventLog
from ser_jax.run.file_names import LAST_FIGURE, METRICS_FILE
from ser_jax.run.known_clips import write_known
from ser_jax.run.monitor import profiled, watch
from ser_jax.run.precompile import compiling, cut_to_predict, describe_corpus, list_compilations
from ser_jax.run.results import (
    check_frames,
    compute_scores,
    count_parameters,
    describe_run,
    make_metrics,
    save_spectrogram,
    write_predictions,
)
from ser_jax.run.run_dir import check_run_dir, default_run_dir, open_run_dir, read_finished
from ser_jax.systems.build import build_for
from ser_jax.systems.fitted import fit_classical, make_fitted_programs, save_fitted
from ser_jax.training.checkpoint import Checkpoints
from ser_jax.training.layouts import Layout, choose_layout, place, replicated, share_out_clips
from ser_jax.training.loop import FitSettings, OnEvent, fit
from ser_jax.training.programs import Programs, Stream
from ser_jax.training.state import init_state, list_numbers
from ser_jax.wav2vec2.finetune import Prepared, prepare_backbone, save_frozen

Memo = dict[int, dict[int, np.ndarray]]
"""Augmented features [T, F] by epoch and clip."""


@with_jax_defaults
def train_run(
    config: Config,
    *,
    memo: Memo | None = None,
    observe: OnEvent | None = None,
    report: Callable[[Path], object] | None = None,
) -> dict[str, Any]:
    """Train one network, or fit an svm or hmm, score its best epoch, and write the run directory.

    A directory that holds the same run is resumed, or read if the run is complete.

    Args:
      config: all settings.
      memo: augmented features to share between the runs of a grid; see `epochs.AugmentedEpochs`.
      observe: told of every event; None: a progress bar and a line per epoch.
      report: called with the run's directory once it is complete, and while it is held; of a run
        that was complete before, only where its figures are missing.

    Returns:
      What metrics.json holds.

    Raises:
      UserError: bad input, a directory of another run, a write that failed, a loss that is no
        number.
    """
    _check_processes(config.parallel)
    settle(config.parallel)
    run_dir = Path(config.run_dir or default_run_dir(config))
    config = dataclasses.replace(config, run_dir=str(run_dir))
    if finished := share(lambda: _read_if_finished(run_dir, config, report)):
        return finished
    with _hold(run_dir):
        metrics = _train(config, run_dir, memo, observe)
        if report and is_writer():
            report(run_dir)
        return metrics


def _hold(run_dir: Path) -> contextlib.AbstractContextManager[None]:
    """The run's directory for this process, or for the one that writes of several."""
    remedy = "wait until it ends, or choose another --run_dir"
    return held(run_dir, remedy) if is_writer() else contextlib.nullcontext()


def _train(
    config: Config, run_dir: Path, memo: Memo | None, observe: OnEvent | None
) -> dict[str, Any]:
    """`train_run` of a run that is not complete."""
    check_protocols([(config.data, config.seed)])
    if config.model.name in CLASSICAL:
        return _train_classical(config, run_dir, observe)
    layout = choose_layout(
        config.parallel, batch_size=config.train.batch_size,
        convolves=config.model.name not in ("lstm", "blstm"), by_step=config.train.profile > 0,
    )  # fmt: skip
    clips = share_out_clips(layout)
    corpus = load_clips(config.data, clips)
    split = split_corpus(config, corpus)
    prepare_inputs = functools.partial(_prepare_inputs, config, clips)
    # What a backbone makes of the clips is known once it is there.
    prepared = prepare_inputs() if config.model.name == "wav2vec2" else None
    on_device = config.augment.enabled and config.augment.backend == "device"
    shapes = describe_corpus(config, corpus, prepared, with_waves=on_device)
    streamed = _is_streamed(config, layout, shapes)
    hand_over = functools.partial(_hand_over, layout=layout, streamed=streamed)
    _, T, F = shapes.x_BTF.shape
    check_frames(config, T, F)
    rates, spec = config.train, prepared.spec if prepared else None
    n_steps = rates.epochs * count_steps(len(split.train), rates.batch_size, rates.buckets)
    built = build_for(config, len(corpus.labels), layout, spec, n_steps)
    # On one core programs compiled at the same time would only be in each other's way.
    ahead = count_cores() > 1 and clips is None and rates.buckets == 1 and not streamed
    tasks = list_compilations(config, built, shapes, split, prepared) if ahead else []
    with compiling(tasks):
        prepared = prepared or prepare_inputs()
        inputs = prepared.inputs
        masked = config.model.mask_padding
        normaliser = fit_to_training(inputs, split.train, config.features, masked)
        dataset = make_dataset(inputs, normaliser, with_waves=on_device, on_host=streamed)
        dataset = dataset if streamed else place(dataset, layout)  # once, and not in every epoch
        model, tx, programs = built
        state = init_state(
            model, tx, seed=config.seed, n_frames=T, n_features=F, dropout=config.model.dropout,
            augment_p=config.augment.p, learning_rate=rates.learning_rate,
            variables=prepared.variables, frozen=prepared.frozen,
            numbers=list_numbers(rates, config.augment),
        )  # fmt: skip
    facts = describe_run(corpus, split, normaliser, config)
    log = EventLog(run_dir)
    start_s = time.perf_counter()
    with (
        open_epochs(
            inputs, dataset, split.train, config.augment,
            seed=config.seed, epochs=config.train.epochs, memo=memo,
        ) as load_epoch,
        _open(run_dir, config, facts, layout) as checkpoints,
        _tell(log, run_dir, config, observe) as on_event,
    ):  # fmt: skip
        if checkpoints.latest_epoch() is None and is_writer():
            log.cut_back(-1)
            save_frozen(run_dir, prepared)
        on_event({"event": "start", "identity": facts["identity"], "checksum": corpus.checksum})
        fitted = fit(
            state, programs, load_epoch=lambda epoch: hand_over(load_epoch(epoch)),
            train_index=split.train, val_index=split.val,
            settings=_fit_settings(config), checkpoints=checkpoints, on_event=on_event, facts=facts,
            label_B=corpus.emotion_B if config.train.balanced else None,
        )  # fmt: skip
        predicted = {
            part: classify(programs, fitted.state.variables, hand_over(dataset), index)
            for part, index in (("val", split.val), ("test", split.test))
        }
        scores = {
            part: compute_scores(corpus, getattr(split, part), predicted_B)
            for part, predicted_B in predicted.items()
        }
        n_trained = count_parameters(fitted.state.params)
        metrics = make_metrics(
            config, corpus, split, epochs=fitted.epochs, best_epoch=fitted.best_epoch,
            seconds=time.perf_counter() - start_s, scores=scores,
            parameters=n_trained + count_parameters(prepared.kept), trained_parameters=n_trained,
        )  # fmt: skip
        _end(config, inputs, split, metrics, on_event, step=fitted.step)
    _write(run_dir, corpus, split, predicted["test"], metrics)
    return metrics


def _train_classical(config: Config, run_dir: Path, observe: OnEvent | None) -> dict[str, Any]:
    """`train_run` of what is fitted at once, and anew where it was killed."""
    inputs = load_inputs(config.data, config.features, masked=True)
    corpus = inputs.corpus
    split = split_corpus(config, corpus)
    normaliser = fit_to_training(inputs, split.train, config.features, masked=True)
    dataset = make_dataset(inputs, normaliser, on_host=True)
    facts = describe_run(corpus, split, normaliser, config)
    programs = make_fitted_programs(config)
    log = EventLog(run_dir)
    open_run_dir(run_dir, config)
    log.cut_back(-1)
    start_s = time.perf_counter()
    with watch(log, config, observe) as on_event:
        on_event({"event": "start", "identity": facts["identity"], "checksum": corpus.checksum})
        variables = fit_classical(config, dataset, split, corpus.labels, on_event)
        predicted = {
            part: classify(programs, variables, dataset, index)
            for part, index in (("val", split.val), ("test", split.test))
        }
        scores = {
            part: compute_scores(corpus, getattr(split, part), predicted_B)
            for part, predicted_B in predicted.items()
        }
        metrics = make_metrics(
            config, corpus, split, epochs=0, best_epoch=0,
            seconds=time.perf_counter() - start_s, scores=scores,
            parameters=count_parameters(variables),
        )  # fmt: skip
        save_fitted(run_dir, config, variables, facts)
        _end(config, inputs, split, metrics, on_event, step=0)
    _write(run_dir, corpus, split, predicted["test"], metrics)
    return metrics


def _end(
    config: Config,
    inputs: Inputs,
    split: Split,
    metrics: dict[str, Any],
    on_event: OnEvent,
    *,
    step: int,
) -> None:
    """The last event of a run, and a clip for its report."""
    on_event({"event": "end", "step": step, "test_accuracy": metrics["test"]["accuracy"]})
    if is_writer():
        run_dir = Path(config.run_dir or "")
        held = split.test[np.isin(split.test, inputs.rows)]  # all, where one process trains
        save_spectrogram(run_dir, config.features, inputs.corpus, int([*held, split.test[0]][0]))


def _write(
    run_dir: Path,
    corpus: Corpus,
    split: Split,
    predicted_B: np.ndarray,
    metrics: dict[str, Any],
) -> None:
    """What each test clip was taken for, and metrics.json, with which a run is complete."""
    if is_writer():
        write_known(run_dir, corpus, split)
        write_predictions(run_dir, corpus, split.test, predicted_B)
        write_atomic(run_dir / METRICS_FILE, json.dumps(metrics, indent=1))


def _prepare_inputs(config: Config, clips: NamedSharding | None) -> Prepared:
    masked = config.model.mask_padding
    return prepare_backbone(config, load_inputs(config.data, config.features, clips, masked=masked))


def _is_streamed(config: Config, layout: Layout, shapes: Dataset) -> bool:
    """Whether the corpus stays on the host."""
    parallel = config.parallel
    arrays = [x for x in (shapes.x_BTF, shapes.wave_BN) if x is not None]
    n_bytes = sum(x.size * x.dtype.itemsize for x in arrays)
    shared_out = share_out_clips(layout) is not None
    streamed = choose_placement(parallel, 0 if shared_out else n_bytes) == "stream"
    check(
        not (streamed and (shared_out or layout.mode == "pmap")),
        f"parallel.placement={parallel.placement}: takes one process, and not parallel.mode=pmap; "
        "leave the key out",
    )
    check(
        config.train.buckets == 1 or not streamed,
        f"train.buckets={config.train.buckets}: takes a corpus on the device; leave the key out",
    )
    return streamed


def _hand_over(dataset: Dataset, *, layout: Layout, streamed: bool) -> Dataset | Stream:
    """The corpus as programs take it."""
    if not streamed:
        return dataset
    mesh: Any = replicated(layout).mesh if layout.mode == "mesh" else None
    return StreamedCorpus(dataset, mesh)


def classify(
    programs: Programs, variables: Any, dataset: Dataset | Stream, index: np.ndarray
) -> np.ndarray:
    """Class of each of the clips numbered `index`, [B]."""
    logits_BC = programs.predict(variables, dataset, cut_to_predict(programs, index))[: len(index)]
    return logits_BC.argmax(axis=-1)


def split_corpus(config: Config, corpus: Corpus) -> Split:
    """The parts of `corpus` by the protocol, fold and seed of a run."""
    return draw_split(config.data, config.seed, corpus)


def _fit_settings(config: Config) -> FitSettings:
    train = config.train
    return FitSettings(
        config.seed,
        train.epochs,
        train.batch_size,
        train.best_by,
        train.early_stop_epochs,
        train.buckets,
    )


def _check_processes(parallel: ParallelConfig) -> None:
    count = parallel.num_processes or 1
    check(
        count == 1 or jax.process_count() == count,
        f"parallel.num_processes={count}: they have not met; several processes train one run by "
        "ser-jax train, or inside ser_jax.taking_part; a grid is shared out by shard",
    )


def _read_if_finished(
    run_dir: Path, config: Config, report: Callable[[Path], object] | None
) -> dict[str, Any] | None:
    if not check_run_dir(run_dir, config):
        return None
    metrics = read_finished(run_dir)
    if report and not (run_dir / LAST_FIGURE).exists():  # a full disk or a grid left them out
        report(run_dir)
    return metrics


@contextlib.contextmanager
def _tell(
    log: EventLog, run_dir: Path, config: Config, observe: OnEvent | None
) -> Iterator[OnEvent]:
    """Log, terminal and profiler; nothing on the processes that do not write."""
    if not is_writer():
        yield lambda event: None
        return
    with (
        watch(log, config, observe) as on_event,
        profiled(on_event, config.train.profile, run_dir) as on_event,
    ):
        yield on_event


@contextlib.contextmanager
def _open(
    run_dir: Path, config: Config, facts: dict[str, Any], layout: Layout
) -> Iterator[Checkpoints | SharedCheckpoints]:
    """The run's directory, now that nothing is left that could be wrong with its settings."""
    own = _open_own(run_dir, config, facts) if is_writer() else contextlib.nullcontext()
    with own as checkpoints:
        if share_out_clips(layout) is not None:
            yield SharedCheckpoints(checkpoints, replicated(layout))
        else:
            assert checkpoints is not None
            yield checkpoints


@contextlib.contextmanager
def _open_own(run_dir: Path, config: Config, facts: dict[str, Any]) -> Iterator[Checkpoints]:
    open_run_dir(run_dir, config)
    with contextlib.closing(Checkpoints(run_dir / "checkpoints")) as checkpoints:
        if (latest := checkpoints.latest_epoch()) is not None:
            found = checkpoints.load_facts(latest)
            check(
                found["checksum"] == facts["checksum"],
                f"{checkpoints.folder}: trained on other recordings (checksum {found['checksum']}, "
                f"now {facts['checksum']}); give the same data.root, or another --run_dir",
            )
            # Versions that kept no checksum of it drew speakers by another rule.
            drawn = config.data.protocol in DRAWN
            check(
                found.get("split", None if drawn else facts["split"]) == facts["split"],
                f"{checkpoints.folder}: was trained on another split than data.protocol="
                f"{config.data.protocol} makes now, as an earlier version may have; choose another "
                "--run_dir",
            )
        yield checkpoints
