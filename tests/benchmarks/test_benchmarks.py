"""The benchmarks count, compare and report correctly; no test depends on speed."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.clips import compute_librosa
from benchmarks.flops import compute_floor_s, count_forward, count_step, list_layers
from benchmarks.ours import make_step as make_our_step
from benchmarks.ours import make_variables
from benchmarks.pytorch.augment import apply as augment
from benchmarks.pytorch.augment import roll, shift_pitch, stretch, vocode
from benchmarks.pytorch.features import FrontEnd
from benchmarks.pytorch.models import make_network
from benchmarks.pytorch.training import make_step as make_torch_step
from ser_jax.config import AugmentConfig, FeaturesConfig, ModelConfig
from ser_jax.features.frontend import make_front_end

pytestmark = pytest.mark.cpu_only("benchmarks choose their own device")

SMALL = {"channels": (4, 6), "hidden": 8, "dense": (5,)}
NETWORKS = ["cnn", "lstm", "cnn_lstm"]


@pytest.fixture(scope="module", autouse=True)
def _on_one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Counted work


def test_work_of_the_cnn_is_that_counted_by_hand():
    layers = list_layers(ModelConfig(name="cnn", channels=(2,), dense=(3,)), 4, 6, 4)
    conv, dense, logits = 2 * 9 * 2 * 24, 2 * (3 * 2 * 2) * 3, 2 * 3 * 4
    assert count_forward(layers, 5).flop == 5 * (conv + dense + logits)
    # The first convolution has no gradient to its input.
    assert count_step(layers, 5).flop == 5 * (2 * conv + 3 * (dense + logits))
    parameters = 9 * 2 + 2 * 2 + 13 * 3 + 4 * 4
    outputs = 24 * 2 + 6 * 2 + 3 + 4
    assert count_step(layers, 5).n_bytes == 2 * 4 * (parameters + 5 * outputs)
    assert count_step(layers, 5, bytes_each=2).n_bytes == 2 * (4 * parameters + 2 * 5 * outputs)


def test_work_of_the_lstm_is_that_counted_by_hand():
    layers = list_layers(ModelConfig(name="lstm", hidden=3, dense=()), 4, 6, 5)
    projection, recurrence, logits = 2 * 5 * 12 * 6, 2 * 3 * 12 * 6, 2 * 3 * 4
    assert count_forward(layers, 2).flop == 2 * (projection + recurrence + logits)
    assert count_step(layers, 2).flop == 2 * (2 * projection + 3 * (recurrence + logits))


@pytest.mark.parametrize("name", NETWORKS)
def test_counted_work_and_parameters_are_those_of_the_twin(name):
    config = ModelConfig(name=name, **SMALL)
    network = make_network(config, 8, n_frames=20, n_features=12)
    layers = list_layers(config, 8, 20, 12)
    assert sum(layer.n_parameters for layer in layers) == sum(
        p.numel() for p in network.parameters() if p.requires_grad
    )
    x_BTF = torch.randn(2, 20, 12)
    if name != "cnn":  # PyTorch counts no recurrence: its products are written out here
        network.lstm = WrittenOut(network.lstm)  # pyright: ignore
    with FlopCounterMode(display=False) as counter:
        network(x_BTF)
        forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        network(x_BTF).sum().backward()
        step = counter.get_total_flops()
    assert count_forward(layers, 2).flop == forward
    assert count_step(layers, 2).flop == step


class WrittenOut(torch.nn.Module):
    """An LSTM as products."""

    def __init__(self, lstm):
        super().__init__()
        self.lstm = lstm

    def forward(self, x_BTF):
        w = dict(self.lstm.named_parameters())
        z = x_BTF.flatten(0, 1) @ w["weight_ih_l0"].T
        z_TB4H = z.unflatten(0, x_BTF.shape[:2]).transpose(0, 1)
        # A leaf, so that the first product has a gradient to its input too.
        h = c = torch.zeros(len(x_BTF), self.lstm.hidden_size, requires_grad=True)
        states = []
        for z_B4H in z_TB4H:
            i, f, g, o = (z_B4H + h @ w["weight_hh_l0"].T).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            states.append(h)
        return torch.stack(states, dim=1), None


def test_counted_work_of_a_dense_layer_is_what_xla_counts():
    layers = [x for x in list_layers(ModelConfig(**SMALL), 8, 20, 12) if x.name == "dense_0"]
    program = jax.jit(lambda x, w: x @ w).lower(jnp.ones((3, 8)), jnp.ones((8, 5))).compile()
    assert count_forward(layers, 3).flop == (program.cost_analysis() or {})["flops"]


def test_floor_is_the_slower_of_arithmetic_and_memory():
    work = count_step(list_layers(ModelConfig(), 8, 165, 40), 32)
    assert compute_floor_s(work, 1e12, 1e18) == pytest.approx(work.flop / 1e12)
    assert compute_floor_s(work, 1e18, 1e9) == pytest.approx(work.n_bytes / 1e9)


# Both sides do the same work


@pytest.mark.parametrize("name", NETWORKS)
def test_both_sides_steps_have_equal_losses_and_keep_learning(name):
    rng = np.random.default_rng(0)
    arguments = {
        "model": {"name": name, **SMALL},
        "x_BTF": rng.standard_normal((6, 12, 8), np.float32),
        "label_B": rng.integers(0, 8, 6).astype(np.int32),
        "index_SB": rng.integers(0, 6, (2, 4)).astype(np.int32),
    }
    arguments["variables"] = make_variables(arguments["model"], 12, 8)
    jobs = [make_our_step(**arguments), make_torch_step(**arguments)]
    jobs.append(make_torch_step(**arguments, channels_last=True, pool_first=True))
    for job in jobs:
        job.turn()
    facts = [job.facts() for job in jobs]
    assert facts[0]["parameters"] == facts[1]["parameters"]
    assert facts[0]["loss"] == pytest.approx(facts[1]["loss"], abs=1e-5)
    assert facts[1]["loss"] == pytest.approx(facts[2]["loss"], abs=1e-5)
    for job in jobs:
        job.turn()


@pytest.mark.parametrize("kind", ["mfcc", "logmel"])
def test_features_of_both_sides_are_librosas(kind):
    config = FeaturesConfig(kind=kind, n_fft=256, hop_length=100, n_mels=20, n_mfcc=13)
    rng = np.random.default_rng(0)
    wave_BN = (rng.standard_normal((2, 3000)) * [[0.1], [0.01]]).astype(np.float32)
    wave_BN[0, 2000:] = 0
    ours = np.asarray(make_front_end(config, 8000)(wave_BN))
    twin = FrontEnd(config, 8000)(torch.from_numpy(wave_BN)).numpy()
    reference = np.stack([compute_librosa(wave_N, config, 8000) for wave_N in wave_BN])
    np.testing.assert_allclose(ours, twin, rtol=0, atol=2e-2)
    np.testing.assert_allclose(twin, reference, rtol=0, atol=2e-2)


RATE_HZ, N = 8000, 8000


def make_tone(hz):
    return torch.sin(torch.arange(N) * (2 * np.pi * hz / RATE_HZ))[None] * 0.5


def find_hz(wave_BN):
    middle = wave_BN[0, N // 4 : N // 2].numpy() * np.hanning(N // 4)
    size = np.abs(np.fft.rfft(middle, 2**17))
    return np.argmax(size) * RATE_HZ / 2**17


@pytest.mark.parametrize("rate", [0.8, 1.0, 1.2])
def test_stretching_by_torch_keeps_the_pitch_and_changes_the_duration(rate):
    out = stretch(make_tone(440), torch.tensor([rate]))
    assert find_hz(out) == pytest.approx(440, rel=2e-3)
    loud = (out[0].abs() > 0.1).nonzero()[:, 0]
    assert int(loud[-1]) == pytest.approx(min(N, N / rate), abs=300)


def test_phase_vocoder_of_a_batch_is_librosas_clip_by_clip():
    wave_BN = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3000)))
    window = torch.hann_window(512, dtype=torch.float64)
    spectrum_BKT = torch.stft(wave_BN, 512, 128, window=window, return_complex=True)
    rates = (0.83, 1.17)
    out = vocode(spectrum_BKT, torch.tensor(rates, dtype=torch.float64), 40).numpy()
    for row, rate in enumerate(rates):
        expected = librosa.phase_vocoder(spectrum_BKT[row].numpy(), rate=rate, hop_length=128)
        n = min(40, expected.shape[1])
        np.testing.assert_allclose(out[row, :, :n], expected[:, :n], rtol=0, atol=1e-3)
        assert not out[row, :, n + 1 :].any()


@pytest.mark.parametrize("semitones", [-4.0, 0.0, 3.0])
def test_pitch_shifting_by_torch_changes_the_pitch_and_keeps_the_duration(semitones):
    out = shift_pitch(make_tone(440), torch.tensor([semitones]))
    assert out.shape == (1, N)
    assert find_hz(out) == pytest.approx(440 * 2 ** (semitones / 12), rel=2e-3)
    assert float(out[0, -800:-300].abs().max()) > 0.3


def test_torch_augments_some_clips_within_their_length():
    wave_BN = make_tone(300).repeat(16, 1)
    length_B = torch.full((16,), 6000)
    wave_BN[:, 6000:] = 0
    for alone in (True, False):
        torch.manual_seed(0)
        out = augment(wave_BN, length_B, AugmentConfig(), RATE_HZ, alone=alone)
        assert torch.isfinite(out).all()
        assert not out[:, 6000:].any()
        changed = (out != wave_BN).any(1)
        assert 8 < int(changed.sum()) < 17
        kept = augment(wave_BN, length_B, AugmentConfig(p=0.0), RATE_HZ, alone=alone)
        assert torch.equal(kept, wave_BN)


def test_roll_wraps_around_within_the_clip():
    wave = torch.tensor([[1.0, 2, 3, 0], [1, 2, 3, 4]])
    out = roll(wave, torch.tensor([1, -1]), torch.tensor([3, 4]))
    assert out[:, :3].tolist() == [[3, 1, 2], [2, 3, 4]]


def test_librosa_reads_its_own_defaults():
    wave_N = np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.1
    with np.errstate(all="ignore"):
        expected = librosa.feature.mfcc(y=wave_N, sr=8000, n_mfcc=20).T
    found = compute_librosa(wave_N, FeaturesConfig(hop_length=512), 8000)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
