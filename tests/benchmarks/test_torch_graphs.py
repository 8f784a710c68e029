"""The baseline's CUDA graphs, as far as they show without a GPU: flags, undoing, equal numbers."""

import contextlib
import types
from unittest import mock

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.pytorch import grid
from benchmarks.pytorch.augment import HOP, N_FFT, apply, invert
from benchmarks.pytorch.features import FrontEnd
from benchmarks.pytorch.graphs import WARM_UPS, Graphed
from benchmarks.pytorch.models import make_network
from benchmarks.pytorch.run import Clips, Run
from benchmarks.pytorch.training import Trainer, make_adam, make_context
from ser_jax.config import AugmentConfig, Config, FeaturesConfig, ModelConfig, override

pytestmark = pytest.mark.cpu_only("CUDA graphs are faked")

CPU = torch.device("cpu")
SMALL = {"name": "cnn_lstm", "channels": (4, 6), "hidden": 8, "dense": (5,), "dropout": 0.0}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Recorder:
    """Stands in for CUDA: records calls while a graph is open, and replays them later."""

    def __init__(self, monkeypatch):
        self.open, self.graphs, self.warm_ups, self.settings = None, [], 0, []
        init = Graphed.__init__

        def watch(graphed, function, *rest):
            def call(*inputs):
                if self.open is None:
                    self.warm_ups += 1
                    function(*inputs)
                else:
                    self.open.replay = lambda: function(*inputs)

            init(graphed, call, *rest)

        monkeypatch.setattr(Graphed, "__init__", watch)
        stream = mock.Mock()
        monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "CUDAGraph", types.SimpleNamespace)
        monkeypatch.setattr(torch.cuda, "graph", self.capture)

    @contextlib.contextmanager
    def capture(self, graph, **settings):
        self.graphs.append(graph)
        self.settings.append(settings)
        self.open = graph
        yield
        self.open = None


@pytest.fixture
def recorder(monkeypatch):
    return Recorder(monkeypatch)


def make_trainer(**ways):
    torch.manual_seed(0)
    network = make_network(override(ModelConfig(), SMALL), 8, n_frames=12, n_features=8)
    return Trainer(network, CPU, **ways)


def make_batches(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(size, 12, 8, generator=generator),
             torch.randint(8, (size,), generator=generator)) for size in sizes]  # fmt: skip


@pytest.mark.parametrize("variant", ["default", "foreach", "fused"])
def test_every_captured_adam_is_capturable(variant):
    network = torch.nn.Linear(2, 2)
    for capturable in (True, False):
        (group,) = make_adam(network, variant, capturable).param_groups
        assert group["capturable"] is capturable
        assert bool(group.get("fused")) == (variant == "fused")
        assert bool(group.get("foreach")) == (variant == "foreach")


def test_captured_autocast_keeps_no_casts():
    for graph in (True, False):
        with make_context(CPU, "bfloat16", graph=graph)():
            assert torch.is_autocast_enabled("cpu")
            assert torch.is_autocast_cache_enabled() is not graph


def test_graphs_train_like_the_step_with_one_graph_per_batch_size(recorder):
    batches = make_batches(4, 4, 3, 4, 3)
    eager, graphed = make_trainer(), make_trainer(graph=True)
    for batch in batches:
        eager.step(*batch)
        graphed.step(*batch)
    assert len(recorder.graphs) == 2
    assert recorder.warm_ups == 2 * WARM_UPS
    for kept, own in zip(
        eager.network.state_dict().values(), graphed.network.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(own, kept, rtol=0, atol=0)
    assert graphed.loss_sum == eager.loss_sum
    assert graphed.correct == eager.correct
    steps = {int(state["step"]) for state in graphed.optimizer.state.values()}
    assert steps == {len(batches)}


def test_gradients_are_none_when_capture_begins(recorder, monkeypatch):
    trainer = make_trainer(graph=True)
    found = []

    @contextlib.contextmanager
    def capture(graph, **settings):
        found.extend(parameter.grad for parameter in trainer.network.parameters())
        with recorder.capture(graph, **settings):
            yield

    monkeypatch.setattr(torch.cuda, "graph", capture)
    trainer.step(*make_batches(4)[0])
    assert len(found) > 10
    assert all(gradient is None for gradient in found)
    # A loader's thread pins memory meanwhile.
    assert recorder.settings[0]["capture_error_mode"] == "thread_local"


class Watch(TorchDispatchMode):
    """Names of the operations that run."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        del types
        self.seen.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


WAITING = {"_local_scalar_dense", "equal", "nonzero", "is_nonzero", "item", "masked_select"}


def test_nothing_captured_waits_for_the_device():
    trainer = make_trainer(graph=True)
    (batch,) = make_batches(4)
    trainer.take_step(*batch)  # makes Adam's state
    wave_BN, length_B = torch.randn(3, 9000), torch.tensor([9000, 8000, 7000])
    front_end = FrontEnd(FeaturesConfig(), 16000)
    with Watch() as watch:
        trainer.take_step(*batch)
        front_end(apply(wave_BN, length_B, AugmentConfig(), 16000, alone=False))
    assert {"_fused_adam_", "_fft_r2c", "convolution_backward"} <= watch.seen
    assert not watch.seen & WAITING
    with Watch() as watch:  # it does see what waits
        apply(wave_BN, length_B, AugmentConfig(), 16000, alone=True)
    assert watch.seen & WAITING


def test_inverse_of_spectra_equals_pytorchs():
    window = torch.hann_window(N_FFT)
    spectrum_BKT = torch.stft(torch.randn(2, 3000), N_FFT, HOP, window=window, return_complex=True)
    length = (spectrum_BKT.shape[2] - 1) * HOP
    expected = torch.istft(spectrum_BKT, N_FFT, HOP, window=window, length=length)
    torch.testing.assert_close(invert(spectrum_BKT, window), expected, rtol=0, atol=1e-5)


def test_every_turn_of_a_grid_reads_the_corpus_once(monkeypatch):
    read, ran = [], []
    monkeypatch.setattr(grid, "Clips", lambda config, device: read.append(config) or len(read))

    def run(config, clips, **ways):
        ran.append((config.seed, clips, ways))
        return types.SimpleNamespace(execute=lambda: {"test_accuracy": 0.5})

    monkeypatch.setattr(grid, "Run", run)
    job = grid.make_grid(runs=[{"seed": 3}, {"seed": 4}], kind="cpu", processes=1, graph=True)
    for _ in range(2):
        job.turn()
        facts = job.facts()
        assert facts.keys() == {"test_accuracies", "runs_s"}
        assert facts["test_accuracies"] == [0.5, 0.5]
        assert len(facts["runs_s"]) == 2
        assert min(facts["runs_s"]) > 0
    assert [(seed, clips) for seed, clips, _ in ran] == [(3, 1), (4, 1), (3, 2), (4, 2)]
    assert ran[0][2] == {"precision": "float32", "workers": 0, "graph": True}


KEYS = {
    **{f"model.{key}": value for key, value in SMALL.items()}, "train.epochs": 2,
    "train.batch_size": 5, "features.n_fft": 256, "features.n_mels": 20, "features.n_mfcc": 8,
}  # fmt: skip


def execute(**ways):
    rng = np.random.default_rng(0)
    emotion_B = np.arange(64) % 8
    corpus = types.SimpleNamespace(
        wave_BN=rng.integers(-9999, 9999, (64, 6000)).astype(np.int16),
        length_B=np.full(64, 6000, np.int32), emotion_B=emotion_B.astype(np.int32),
        actor_B=np.arange(64) % 4 + 1, rate_hz=8000, labels=tuple("abcdefgh"),
    )  # fmt: skip
    config = override(Config(), KEYS)
    np.random.seed(0)
    run = Run(config, Clips(config, CPU, corpus), augment_in="device", **ways)  # pyright: ignore
    return run, run.execute()


def test_a_whole_run_with_graphs_equals_one_without(recorder):
    eager, expected = execute()
    graphed, found = execute(graph=True)
    assert found == expected
    # Training with full batches and a ragged one, scoring with one size.
    assert len(recorder.graphs) == 3
    for kept, own in zip(
        eager.trainer.network.state_dict().values(),
        graphed.trainer.network.state_dict().values(), strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(own, kept, rtol=0, atol=0)
