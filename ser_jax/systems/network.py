"""A network as a system: trained epoch by epoch on the devices, from checkpoint to checkpoint."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.augment.epochs import Memo, open_epochs
from ser_jax.config import Config
from ser_jax.data.splits import draw_split
from ser_jax.features.batching import Dataset, count_steps
from ser_jax.features.corpus_features import (
    Inputs,
    fit_to_training,
    load_clips,
    load_inputs,
    make_dataset,
)
from ser_jax.features.frontend import count_feature_frames
from ser_jax.machine.cores import count_cores
from ser_jax.multihost.processes import is_writer
from ser_jax.systems.build import build, build_for, choose_take
from ser_jax.systems.network_checkpoints import bind_shapes, open_to_read, open_to_train
from ser_jax.systems.networks import find_network, make_model
from ser_jax.systems.own_network import check_logits
from ser_jax.systems.placement import is_streamed, stream
from ser_jax.systems.precompile import (
    compiling,
    cut_to_predict,
    describe_corpus,
    list_compilations,
)
from ser_jax.systems.system import Fitted, Loaded, Ready, RunFacts, classify_parts, read_facts
from ser_jax.training.layouts import Layout, choose_layout, place, share_out_clips
from ser_jax.training.loop import FitSettings, OnEvent, fit
from ser_jax.training.programs import Programs, Stream
from ser_jax.training.state import (
    TrainState,
    count_parameters,
    describe_state,
    init_state,
    list_numbers,
    merge_params,
)
from ser_jax.wav2vec2.architecture import BackboneSpec
from ser_jax.wav2vec2.finetune import Prepared
from ser_jax.wav2vec2.frozen_files import save_frozen


@dataclass(frozen=True)
class ReadyNetwork(Ready):
    """A network, its programs and its corpus, laid out on the devices.

    Attributes:
      layout: on which devices, and how.
      prepared: the inputs, and what of the network was trained before.
      programs: compiled, or as they are needed.
      state: before the first step.
      dataset: the corpus as programs take it.
      load_epoch: the corpus as an epoch, from 1, sees it.
    """

    layout: Layout
    prepared: Prepared
    programs: Programs
    state: TrainState
    dataset: Dataset | Stream
    load_epoch: Callable[[int], Dataset | Stream]


class NetworkSystem:
    """The networks of `systems.networks`, trained from scratch."""

    is_network = True
    shares_frozen = False

    def can_share(self, config: Config) -> bool:
        """See `System.can_share`."""
        del config
        return True

    def check(self, config: Config) -> None:
        """See `System.check`."""
        if config.model.is_own:
            make_model(config.model, n_classes=2)
        augment, masked = config.augment, config.model.mask_padding
        choose_take(augment, config.features, config.data.rate_hz, masked)

    def convolves(self, config: Config) -> bool:
        """Whether the network has convolutions."""
        return find_network(config.model.name).convolves

    def check_shapes(self, config: Config, n_classes: int, n_frames: int, n_features: int) -> None:
        """Raise a UserError where the network cannot take such features, or gives no logits."""
        find_network(config.model.name).check(config.model, n_frames, n_features)
        if config.model.is_own:
            network = make_model(dataclasses.replace(config.model, ensemble=1), n_classes)
            check_logits(config.model.name, network, n_classes, n_frames, n_features)

    def prepare_inputs(self, config: Config, inputs: Inputs) -> Prepared:
        """What the network trains on, made of the features of the corpus."""
        del config
        return Prepared(inputs)

    def load_frozen(self, run_dir: Path, config: Config) -> tuple[BackboneSpec | None, Any]:
        """The backbone, and what training left alone, nested; of a network without none."""
        del run_dir, config
        return None, {}

    def describe_trained(self, config: Config, spec: Any, n_classes: int) -> Any:
        """Shapes of what is trained, as {'params': ...}; `None`: the network's own."""
        del config, spec, n_classes

    def _prepare_early(self, prepare: Callable[[], Prepared]) -> Prepared | None:
        """The inputs, where their shapes are not known without."""
        del prepare

    @contextlib.contextmanager
    def prepare(self, config: Config, memo: Memo | None) -> Iterator[ReadyNetwork]:
        """See `System.prepare`; programs are compiled while the features are computed."""
        train = config.train
        layout = choose_layout(
            config.parallel, batch_size=train.batch_size,
            convolves=self.convolves(config), by_step=train.profile > 0,
        )  # fmt: skip
        clips = share_out_clips(layout)
        corpus = load_clips(config.data, clips)
        split = draw_split(config.data, config.seed, corpus)

        def prepare() -> Prepared:
            masked = config.model.mask_padding
            inputs = load_inputs(config.data, config.features, clips, masked=masked)
            return self.prepare_inputs(config, inputs)

        prepared = self._prepare_early(prepare)
        augmented = config.augment.on_device
        shapes = describe_corpus(config, corpus, prepared, with_waves=augmented)
        streamed = is_streamed(config, layout, shapes)
        _, T, F = shapes.x_BTF.shape
        self.check_shapes(config, len(corpus.labels), T, F)
        n_steps = train.epochs * count_steps(len(split.train), train.batch_size, train.buckets)
        built = build_for(
            config, len(corpus.labels), layout, prepared.spec if prepared else None, n_steps
        )
        # On one core programs compiled at the same time would only be in each other's way.
        ahead = count_cores() > 1 and clips is None and train.buckets == 1 and not streamed
        tasks = list_compilations(config, built, shapes, split, prepared) if ahead else []
        with compiling(tasks):
            prepared = prepared or prepare()
            inputs, masked = prepared.inputs, config.model.mask_padding
            normaliser = fit_to_training(inputs, split.train, config.features, masked)
            dataset = make_dataset(inputs, normaliser, with_waves=augmented, on_host=streamed)
            dataset = dataset if streamed else place(dataset, layout)  # once, not in every epoch
            state = _init_state(config, built, prepared, T, F)

        def hand_over(dataset: Dataset) -> Dataset | Stream:
            return stream(dataset, layout) if streamed else dataset

        with open_epochs(
            inputs, dataset, split.train, config.augment,
            seed=config.seed, epochs=train.epochs, memo=memo,
        ) as load_epoch:  # fmt: skip
            yield ReadyNetwork(
                corpus, split, normaliser, inputs.rows, layout, prepared, built[2], state,
                hand_over(dataset), lambda epoch: hand_over(load_epoch(epoch)),
            )  # fmt: skip

    def fit(
        self, config: Config, ready: ReadyNetwork, run_dir: Path, facts: RunFacts, on_event: OnEvent
    ) -> Fitted:
        """See `System.fit`."""
        corpus, split, train = ready.corpus, ready.split, config.train
        with open_to_train(run_dir, config, ready.layout, facts) as checkpoints:
            anew = checkpoints.latest_epoch() is None
            if anew and is_writer():
                save_frozen(run_dir, ready.prepared)
            on_event({"event": "start", "anew": anew})
            done = fit(
                ready.state, ready.programs, load_epoch=ready.load_epoch,
                train_index=split.train, val_index=split.val,
                settings=FitSettings(
                    config.seed, train.epochs, train.batch_size, train.best_by,
                    train.early_stop_epochs, train.buckets,
                ),
                checkpoints=checkpoints, on_event=on_event, facts=facts,
                label_B=corpus.emotion_B if train.balanced else None,
            )  # fmt: skip
            predict = _make_predict(ready.programs, done.state.variables)
            predicted = classify_parts(predict, ready.dataset, split)
        n_trained = count_parameters(done.state.params)
        n_all = n_trained + count_parameters(ready.prepared.kept)
        return Fitted(predicted, done.step, done.epochs, done.best_epoch, n_all, n_trained)

    def load(self, run_dir: Path, config: Config, check: Callable[[RunFacts], None]) -> Loaded:
        """See `System.load`."""
        with open_to_read(run_dir) as (checkpoints, latest):
            facts = checkpoints.load_facts(latest)
            check(facts)
            known = read_facts(checkpoints.folder, facts)
            n_classes = len(known.labels)
            spec, kept = self.load_frozen(run_dir, config)
            model, tx, programs = build(config.model, config.train, n_classes, spec=spec, n_steps=1)
            like = bind_shapes(describe_state(
                model, tx, n_frames=count_feature_frames(config.features, known.n_samples),
                n_features=len(known.mean_F),
                variables=self.describe_trained(config, spec, n_classes),
                numbers=list_numbers(config.train, config.augment),
            ))  # fmt: skip
            variables = checkpoints.load_variables(known.best_epoch, like)
        variables = variables | {"params": merge_params(variables["params"], kept)}
        return Loaded(known, _make_predict(programs, variables), variables, spec)


def _init_state(config: Config, built: Any, prepared: Prepared, T: int, F: int) -> TrainState:
    model, tx, _ = built
    return init_state(
        model, tx, seed=config.seed, n_frames=T, n_features=F, dropout=config.model.dropout,
        augment_p=config.augment.p, learning_rate=config.train.learning_rate,
        variables=prepared.variables, frozen=prepared.frozen,
        numbers=list_numbers(config.train, config.augment),
    )  # fmt: skip


def _make_predict(
    programs: Programs, variables: Any
) -> Callable[[Dataset | Stream, np.ndarray], np.ndarray]:
    def predict(dataset: Dataset | Stream, index_B: np.ndarray) -> np.ndarray:
        index_SB = cut_to_predict(programs, index_B)
        return programs.predict(variables, dataset, index_SB)[: len(index_B)]

    return predict
