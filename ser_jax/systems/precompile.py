"""What a run will compile, compiled in parallel before it is needed."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import jax
import numpy as np

from ser_jax.config import Config
from ser_jax.data.corpus import Corpus
from ser_jax.data.splits import Split
from ser_jax.features.batching import Dataset, cut_batches
from ser_jax.features.corpus_features import describe_dataset
from ser_jax.features.frontend import count_feature_frames, count_features
from ser_jax.machine.jax_defaults import with_jax_defaults
from ser_jax.systems.build import Built
from ser_jax.training.programs import Programs
from ser_jax.training.state import describe_state, list_numbers
from ser_jax.wav2vec2.finetune import Prepared


@contextlib.contextmanager
def compiling(tasks: Sequence[Callable[[], None]]) -> Iterator[None]:
    """Run `tasks` in threads while the block runs; they have ended when it does.

    XLA compiles without holding Python's lock, and mostly on one core per program. A task that
    fails is ignored: whoever needs its program compiles it again, and meets the error.
    """
    pool = ThreadPoolExecutor(max(1, len(tasks)))
    futures = [pool.submit(with_jax_defaults(task)) for task in tasks]
    try:
        yield
        wait(futures)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def describe_corpus(
    config: Config, corpus: Corpus, prepared: Prepared | None, *, with_waves: bool
) -> Dataset:
    """Shapes of the corpus as programs will see it, before its features are computed."""
    n_clips, n_samples = corpus.wave_BN.shape
    if prepared is not None:
        x = jax.ShapeDtypeStruct(prepared.inputs.x_BTF.shape, prepared.inputs.x_BTF.dtype)
    else:
        n_frames = count_feature_frames(config.features, n_samples)
        x = jax.ShapeDtypeStruct((n_clips, n_frames, count_features(config.features)), np.float32)
    n_samples = n_samples if with_waves else None
    features = config.features
    return describe_dataset(
        x, n_samples, has_own=features.is_own, are_waves=features.kind == "wave"
    )


def list_compilations(
    config: Config, built: Built, shapes: Dataset, split: Split, prepared: Prepared | None
) -> list[Callable[[], None]]:
    """What must be compiled for a run on a corpus on the device."""
    model, tx, programs = built
    _, T, F = shapes.x_BTF.shape
    state = describe_state(
        model, tx, n_frames=T, n_features=F, numbers=list_numbers(config.train, config.augment),
        variables=prepared.variables if prepared else None,
        frozen=prepared.frozen if prepared else None,
    )  # fmt: skip
    size = config.train.batch_size
    batches = [cut_batches(part, size, programs.multiple) for part in (split.train, split.val)]
    return programs.list_compilations(state, shapes, *batches, cut_to_predict(programs, split.test))


def cut_to_predict(programs: Programs, index: np.ndarray) -> np.ndarray:
    """Batches [S, B] of clips to be classified."""
    return cut_batches(index, 32 + -32 % programs.layout.n_shards)
