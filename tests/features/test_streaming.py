"""A streamed corpus gives the batches, and so the training, of one that lives on the device."""

import dataclasses
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from ser_jax.config import AugmentConfig, ModelConfig, ParallelConfig
from ser_jax.errors import UserError
from ser_jax.features.batching import PADDING, Dataset, cut_batches, shuffle, take
from ser_jax.features.normaliser import Normaliser
from ser_jax.features.streaming import StreamedCorpus, choose_placement, measure_free_memory
from ser_jax.systems.networks import make_model
from ser_jax.training.programs import make_programs
from ser_jax.training.state import init_state
from tests.counted_work import count_work
from tests.tolerance import assert_near

CLIPS, T, F, N = 20, 8, 4, 8192


def make_host(with_waves: bool = False) -> Dataset:
    """A corpus whose rows are NumPy's."""
    rng = np.random.default_rng(0)
    wave_BN = rng.integers(-9000, 9000, (CLIPS, N)).astype(np.int16)
    return Dataset(
        x_BTF=rng.normal(size=(CLIPS, T, F)).astype(np.float32),  # pyright: ignore
        frames_B=jnp.asarray(rng.integers(2, T + 1, CLIPS), jnp.int32),
        label_B=jnp.asarray(rng.integers(0, 8, CLIPS), jnp.int32),
        normaliser=Normaliser(jnp.arange(F) / 7.0, jnp.arange(F) + 0.3),
        draw=jnp.asarray(1, jnp.int32),
        wave_BN=wave_BN if with_waves else None,  # pyright: ignore
        length_B=jnp.full(CLIPS, N, jnp.int32) if with_waves else None,
    )


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@jax.jit
def jit_take(dataset, index_B):
    return take(dataset, index_B)


def collect(corpus, index_SB, take=jit_take):
    return [take(dataset, index_B) for dataset, index_B in corpus.stream(index_SB)]


@pytest.mark.device
def test_streamed_batches_equal_those_taken_on_the_device():
    host = make_host()
    index_SB = cut_batches(shuffle(np.arange(CLIPS), 0, 1), 8)
    assert PADDING in index_SB
    batches = collect(StreamedCorpus(host), index_SB)
    assert len(batches) == len(index_SB)
    device = jax.device_put(host)
    for index_B, batch in zip(index_SB, batches, strict=True):
        assert_equal(batch, jit_take(device, index_B))


def test_another_epoch_traces_and_compiles_nothing():
    host, index_SB = make_host(), cut_batches(np.arange(CLIPS), 8)
    collect(StreamedCorpus(host), index_SB)
    with count_work() as work:
        second = host.replace(draw=jnp.asarray(2, jnp.int32))  # pyright: ignore
        collect(StreamedCorpus(second), index_SB)
    assert (work.traces, work.compilations) == (0, 0)


def test_rows_are_read_from_a_file(tmp_path):
    host = make_host()
    rows = np.lib.format.open_memmap(
        tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=host.x_BTF.shape
    )
    rows[:] = host.x_BTF
    rows.flush()
    on_disk = host.replace(x_BTF=np.load(tmp_path / "x.npy", mmap_mode="r"))  # pyright: ignore
    index_SB = cut_batches(np.arange(CLIPS)[::-1], 8)
    in_memory = collect(StreamedCorpus(host), index_SB)
    assert_equal(in_memory, collect(StreamedCorpus(on_disk), index_SB))


def train(corpus, epochs: int = 2):
    model = make_model(ModelConfig(name="cnn", channels=(4,), dense=(8,)), 8)
    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.05)
    programs = make_programs(model, tx, n_classes=8)
    state = init_state(model, tx, seed=0, n_frames=T, n_features=F, dropout=0.2)
    for epoch in range(epochs):
        index_SB = cut_batches(shuffle(np.arange(CLIPS), 0, epoch), 8)
        state, _ = programs.train_epoch(state, corpus, index_SB)
    sums = programs.evaluate(state.variables, corpus, cut_batches(np.arange(CLIPS), 8))
    return state.params, state.batch_stats, sums


@pytest.mark.device
def test_training_by_stream_equals_training_on_the_device():
    host = make_host()
    streamed, resident = train(StreamedCorpus(host)), train(jax.device_put(host))
    assert_near(streamed, resident, atol=1e-6, why="cudnn")


def test_clips_are_augmented_as_on_the_device():
    from ser_jax.augment.waveform import make_take_augmented

    def front_end(wave_BN):
        return jnp.stack([wave_BN.reshape(-1, T, N // T).std(2)] * F, axis=2)

    augment = AugmentConfig(enabled=True, p=1.0, stretch_min=1, stretch_max=1, pitch_min=0,
                            pitch_max=0, shift_min_s=0, shift_max_s=0)  # fmt: skip
    take_augmented = make_take_augmented(augment, 16000, front_end)
    key, p = jax.random.key(3), jnp.asarray(1.0)

    @jax.jit
    def take_draw(dataset, index_B):
        return take_augmented(dataset, index_B, key, dataset.draw, p)

    host = make_host(with_waves=True)
    device = jax.device_put(host)
    index_SB = cut_batches(np.arange(5), 3)
    batches = collect(StreamedCorpus(host), index_SB, take_draw)
    for index_B, batch in zip(index_SB, batches, strict=True):
        assert_equal(batch, take_draw(device, index_B))


def test_batches_lie_on_the_mesh_by_rows():
    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    host = make_host()
    index_SB = cut_batches(np.arange(CLIPS), 8, len(jax.devices()))
    (first, *_) = StreamedCorpus(host, mesh=mesh).stream(index_SB)
    assert first[0].x_BTF.rows.sharding.is_equivalent_to(  # pyright: ignore
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")), 3
    )
    assert_equal(jit_take(*first), jit_take(jax.device_put(host), index_SB[0]))


class SlowRows:
    """Rows that tell when they are read."""

    def __init__(self, rows: np.ndarray):
        self.rows, self.reads, self.shape = rows, 0, rows.shape

    def __getitem__(self, index_B: np.ndarray) -> np.ndarray:
        self.reads += 1
        return self.rows[index_B]


def test_batches_are_read_ahead_but_not_all_at_once():
    host = make_host()
    rows = SlowRows(np.asarray(host.x_BTF))
    index_SB = np.tile(np.arange(4, dtype=np.int32), (100, 1))
    stream = StreamedCorpus(host.replace(x_BTF=rows)).stream(index_SB)  # pyright: ignore
    next(stream)
    until_s = time.monotonic() + 10
    while rows.reads < 3 and time.monotonic() < until_s:
        time.sleep(0.01)
    time.sleep(0.1)
    assert 3 <= rows.reads < 30


def test_an_abandoned_stream_leaves_no_thread():
    before = threading.active_count()
    stream = StreamedCorpus(make_host()).stream(np.tile(np.arange(4, dtype=np.int32), (100, 1)))
    next(stream)
    stream.close()  # pyright: ignore
    until_s = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until_s:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_placement_follows_from_size():
    parallel = ParallelConfig()
    assert choose_placement(parallel, 50, free_bytes=100) == "device"
    assert choose_placement(parallel, 51, free_bytes=100) == "stream"
    for asked in ("device", "stream"):
        fixed = dataclasses.replace(parallel, placement=asked)
        assert choose_placement(fixed, 51, free_bytes=100) == asked
    assert choose_placement(parallel, 1 << 10) == "device"
    assert 1 << 20 < measure_free_memory() < 1 << 50


def test_zero_prefetch_is_refused():
    with pytest.raises(UserError, match="prefetch=0"):
        StreamedCorpus(make_host(), prefetch=0)


def test_grain_is_imported_without_tensorflow():
    import grain

    assert grain.MapDataset
    assert "tensorflow" not in sys.modules
