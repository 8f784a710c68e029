"""Pre-training has PyTorch's losses, hears no test clip, resumes, and feeds fine-tuning."""

# Linen's apply may return a pair, which none of these calls asks for.
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOperatorIssue=false, reportAssignmentType=false

import json
import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
import torch
from flax.traverse_util import flatten_dict
from tiny import make_folder
from tiny_wav2vec2 import LAYOUTS, get_params, make_architecture, make_torch, make_waves
from transformers import Wav2Vec2ForPreTraining

from ser_jax.cli.arguments import parse
from ser_jax.cli.commands import main
from ser_jax.config import DataConfig, PretrainConfig, UnlabelledConfig, override
from ser_jax.data.splits import draw_split
from ser_jax.data.store import load_corpus
from ser_jax.data.unlabelled import UnlabelledClips
from ser_jax.errors import UserError
from ser_jax.run.pretrain import pretrain
from ser_jax.systems.pretrain_step import Crops, Figures, init_pretraining, make_pretrain_step
from ser_jax.systems.pretrain_step import make_architecture as make_network
from ser_jax.training.compiled_step import compile_step
from ser_jax.training.layouts import Layout
from ser_jax.training.optimizer import make_optimizer
from ser_jax.wav2vec2.contrastive import PretrainNetwork, compute_pretraining_losses, draw_negatives
from ser_jax.wav2vec2.masks import make_frame_mask
from ser_jax.wav2vec2.parameter_names import to_flax
from ser_jax.wav2vec2.published import load_params
from tests.tolerance import assert_near

LENGTHS = [16000, 9000]


draw_jitted = jax.jit(draw_negatives, static_argnums=2)


def make_case(layout):
    """Weights, waves, masks, negatives and Gumbel noise, for both sides."""
    off = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0,
           "layerdrop": 0.0, "mask_time_prob": 0.1}  # fmt: skip
    architecture = make_architecture(layout, num_negatives=7, **off)
    model = make_torch(architecture, Wav2Vec2ForPreTraining)
    x_BN, mask_BN = make_waves(LENGTHS)
    T = architecture.count_frames(LENGTHS[0])
    real_BT = make_frame_mask(architecture, mask_BN, T)
    rng = np.random.default_rng(0)
    masked_BT = (rng.random((2, T)) < 0.5) & np.array(real_BT)
    negative_BTK = np.array(draw_jitted(jax.random.key(1), masked_BT, 7))
    noise_BTGV = rng.gumbel(size=(2, T, 2, 64)).astype(np.float32)
    return SimpleNamespace(
        architecture=architecture, model=model, x_BN=x_BN, mask_BN=mask_BN, real_BT=real_BT,
        masked_BT=masked_BT, negative_BTK=negative_BTK, noise_BTGV=noise_BTGV, T=T,
    )  # fmt: skip


def run_torch(case, *, train):
    flat = case.negative_BTK + case.T * np.arange(2)[:, None, None]
    return case.model.train(train)(
        torch.tensor(case.x_BN), attention_mask=torch.tensor(case.mask_BN).long(),
        mask_time_indices=torch.tensor(case.masked_BT),
        sampled_negative_indices=torch.tensor(flat),
    )  # fmt: skip


def run_ours(params, case, noise):
    network = PretrainNetwork(case.architecture)
    context, target, quantised = network.apply(
        {"params": params}, case.x_BN, case.real_BT, case.masked_BT, train=False,
        temperature=2.0, noise_BTGV=noise,
    )  # fmt: skip
    return compute_pretraining_losses(
        context, target, quantised, case.masked_BT, case.negative_BTK, 0.1
    )


@pytest.mark.parametrize("soft", [False, True], ids=["hard choice", "Gumbel noise"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_and_gradients_are_pytorchs(layout, soft, monkeypatch):
    case = make_case(layout)
    if soft:  # the same noise on both sides
        noise = torch.tensor(case.noise_BTGV).reshape(-1, 64)

        def choose(logits, tau, hard):
            y = torch.softmax((logits + noise) / tau, -1)
            one = torch.zeros_like(y).scatter_(-1, y.argmax(-1, keepdim=True), 1.0)
            return one - y.detach() + y

        monkeypatch.setattr(torch.nn.functional, "gumbel_softmax", choose)
        case.model.quantizer.temperature = 2.0
    case.model.zero_grad()
    theirs = run_torch(case, train=soft)
    theirs.loss.backward()
    noise_BTGV = case.noise_BTGV if soft else None

    def compute(params):
        losses = run_ours(params, case, noise_BTGV)
        return losses.contrastive + 0.1 * losses.diversity, losses

    params = get_params(case.model)
    gradients, ours = jax.jit(jax.grad(compute, has_aux=True))(params)
    assert_near(ours.contrastive, theirs.contrastive_loss.item(), rtol=1e-5, why="cudnn")
    assert_near(ours.diversity, theirs.diversity_loss.item(), rtol=1e-5, why="cudnn")
    assert_near(ours.perplexity, theirs.codevector_perplexity.item(), rtol=1e-5, why="cudnn")
    found = {n: p.grad.numpy() for n, p in case.model.named_parameters() if p.grad is not None}
    expected = flatten_dict(to_flax(found))
    greatest = max(np.linalg.norm(g) for g in expected.values())
    for path, g in expected.items():
        path = ("backbone", *path[1:]) if path[0] == "wav2vec2" else path
        bound = 1e-3 * np.linalg.norm(g) + 1e-6 * greatest
        assert np.linalg.norm(flatten_dict(gradients)[path] - g) <= bound, path


def test_distractors_are_other_masked_frames_of_the_clip():
    masked_BT = np.random.default_rng(0).random((3, 40)) < [[0.5], [0.1], [0.9]]
    negative_BTK = np.array(draw_jitted(jax.random.key(0), masked_BT, 200))
    for clip, masked_T in enumerate(masked_BT):
        for frame in np.flatnonzero(masked_T):
            found = set(negative_BTK[clip, frame].tolist())
            assert found <= set(np.flatnonzero(masked_T)) - {frame}
            assert len(found) >= 0.8 * (masked_T.sum() - 1)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    for number, (length, rate) in enumerate([(20000, 16000)] * 5 + [(48000, 48000), (9000, 8000)]):
        below = folder / f"{number % 2}"
        below.mkdir(exist_ok=True)
        wave = 0.1 * rng.normal(size=length)
        soundfile.write(below / f"{number}.{'wav' if number % 2 else 'flac'}", wave, rate)
    return folder


def make_config(folder, run_dir, **changes):
    keys = {
        "data.root": str(folder), "data.crop_s": 0.5, "architecture.hidden": 16,
        "architecture.layers": 1, "architecture.heads": 2, "architecture.feed_forward": 32,
        "architecture.channels": 8, "architecture.position_kernel": 8,
        "architecture.position_groups": 2, "architecture.codes": 8, "architecture.code_dim": 8,
        "architecture.target_dim": 8, "train.epochs": 3, "train.batch_size": 4,
        "train.negatives": 5, "parallel.mode": "jit",
        "parallel.cache_dir": make_folder("compiled"),
    }  # fmt: skip
    config = PretrainConfig(data=UnlabelledConfig(root="given below"))
    return override(config, keys | {"run_dir": str(run_dir)} | changes)


def read_events(run_dir):
    lines = (run_dir / "events.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def pretrained(recordings, tmp_path_factory):
    """The folder of a whole run, and what it returned."""
    run_dir = tmp_path_factory.mktemp("pretrained") / "run"
    return run_dir, pretrain(make_config(recordings, run_dir))


def test_result_loads_in_pytorch_and_starts_the_next_run(recordings, pretrained, tmp_path):
    run_dir, figures = pretrained
    assert {"loss", "contrastive_loss", "diversity_loss", "perplexity", "accuracy",
            "gradient_norm", "learning_rate", "temperature"} <= set(figures)  # fmt: skip
    model = Wav2Vec2ForPreTraining.from_pretrained(run_dir / "backbone")
    again = load_params(run_dir / "backbone")
    kernel = model.wav2vec2.feature_projection.projection.weight.detach().numpy().T
    np.testing.assert_array_equal(again["feature_projection"]["projection"]["kernel"], kernel)
    config = make_config(recordings, tmp_path / "next", init=str(run_dir / "backbone"))
    tx = make_optimizer(_train_config())
    state = init_pretraining(config, make_network(config), tx)
    np.testing.assert_array_equal(
        state.params["quantizer"]["codevectors"], model.quantizer.codevectors.detach().numpy()
    )
    np.testing.assert_array_equal(
        state.params["backbone"]["feature_projection"]["projection"]["kernel"], kernel
    )


def _train_config():
    from ser_jax.config import TrainConfig

    return TrainConfig(optimizer="sgd", learning_rate=0.1)


def test_run_that_was_killed_ends_like_one_that_was_not(
    recordings, pretrained, tmp_path, monkeypatch
):
    run_dir, _ = pretrained
    config = make_config(recordings, tmp_path / "killed")
    from ser_jax.run import pretrain as module

    real, calls = module._run_epoch, []

    def stop(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, "_run_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain(config)
    monkeypatch.setattr(module, "_run_epoch", real)
    pretrain(config)
    names = ("model.safetensors", "config.json")
    for name in names:
        whole, killed = (folder / "backbone" / name for folder in (run_dir, tmp_path / "killed"))
        assert whole.read_bytes() == killed.read_bytes()
    assert read_events(run_dir)[1:] == read_events(tmp_path / "killed")[1:]


def test_mesh_steps_as_one_device(recordings):
    config = make_config(recordings, "unused", **{"train.dropout": 0.0, "train.layer_drop": 0.0})
    architecture, tx = make_network(config), make_optimizer(_train_config())
    wave_BN, length_B = make_waves([8000, 6000, 8000, 7000, 8000, 8000, 0, 0])[0], None
    length_B = np.array([8000, 6000, 8000, 7000, 8000, 8000, 0, 0], np.int32)
    results = []
    for layout in (Layout(), Layout("mesh", devices=tuple(jax.devices()))):
        program = compile_step(make_pretrain_step(config, architecture, tx), layout)
        carry = init_pretraining(config, architecture, tx), Figures.zeros()
        crops = Crops(jnp.asarray(wave_BN), jnp.asarray(length_B))
        for _ in range(2):
            carry = program(carry, crops, np.arange(8, dtype=np.int32))
        results.append((carry[0].params, carry[1]))
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        assert_near(a, b, atol=2e-4, rtol=1e-4, why="cudnn")


def test_crops_are_a_function_of_seed_epoch_and_clip(recordings):
    index_SB = np.array([[0, 3], [6, -1]])
    made = []
    for memory_mb in (2000, 1):
        data = UnlabelledConfig(root=str(recordings), crop_s=0.5, memory_mb=memory_mb)
        clips = UnlabelledClips(data, 0, 400)
        if memory_mb == 1:
            clips._decoded = None  # as for a folder that does not fit
        made.append(list(clips.iterate(index_SB, 0, 1)))
    for (a_BN, a_B), (b_BN, b_B) in zip(*made, strict=True):
        np.testing.assert_array_equal(a_B, b_B)
        assert np.corrcoef(a_BN[0], b_BN[0])[0, 1] > 0.9
    assert made[0][1][1][1] == 0
    assert not made[0][1][0][1].any()
    other = next(clips.iterate(index_SB, 0, 2))[0]
    assert np.abs(other[0] - made[1][0][0][0]).max() > 0


def write_actors(folder) -> list[str]:
    """Noises of ten actors, each unlike all others; their names."""
    rng = np.random.default_rng(0)
    names = [f"03-01-{e:02}-01-01-{r:02}-{a:02}.wav"
             for a in range(1, 11) for e in range(1, 9) for r in (1, 2)]  # fmt: skip
    for name in names:
        soundfile.write(folder / name, rng.uniform(-0.1, 0.1, 500), 16000)
    return sorted(names)


def test_only_training_clips_of_the_split_are_heard(tmp_path):
    from ser_jax.data.splits import make_split

    names = write_actors(tmp_path)
    data = UnlabelledConfig(
        root=str(tmp_path), part="train", split_seed=3, store_dir=str(tmp_path / "store")
    )
    clips = UnlabelledClips(data, 0, 400)
    emotion_B = np.array([int(name[6:8]) - 1 for name in names])
    actor_B = np.array([int(name[18:20]) for name in names])
    train = make_split("study", 1, 3, emotion_B, actor_B).train
    assert [path.name for path in clips.paths] == [names[number] for number in train]


@pytest.mark.parametrize("protocol", ["study", "speakers", "speakers5", "loso"])
def test_training_clips_are_those_of_train_where_files_are_broken_or_copied(protocol, tmp_path):
    names = write_actors(tmp_path)
    (tmp_path / names[0]).write_bytes(b"RIFF no more")
    (tmp_path / names[9]).write_bytes((tmp_path / names[8]).read_bytes())
    soundfile.write(tmp_path / names[20].replace(".wav", ".mp3"), np.full(9000, 0.1), 16000)
    for name in names[30:36]:
        (tmp_path / name).unlink()
    kept = {"root": str(tmp_path), "protocol": protocol, "store_dir": str(tmp_path / "store")}
    clips = UnlabelledClips(UnlabelledConfig(part="train", **kept), 5, 400)
    corpus = load_corpus(DataConfig(**kept))
    split = draw_split(DataConfig(**kept), 5, corpus)
    assert [path.name for path in clips.paths] == [corpus.file_names[n] for n in split.train]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "data.root: missing; name a folder of recordings"),
        (["--data.root=/no/such"], "data.root=/no/such: no such folder"),
        (["--data.root={empty}"], "holds no sound files"),
        (["--data.root={root}", "--data.part=train"], "no file of data.root="),
        (["--data.root={root}", "--init=/no/such"], "no such folder"),
        (["--data.root={root}", "--train.mask_prob=2"], "train.mask_prob=2.0: must lie in (0, 1]"),
        (["--data.root={root}", "--architecture.code_dim=3"], "must be a multiple of"),
    ],
)
def test_bad_input_is_one_line_and_status_2(options, message, recordings, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    words = {"empty": str(tmp_path / "empty"), "root": str(recordings)}
    options = [option.format(**words) for option in options]
    assert main(["pretrain", *options, f"--run_dir={tmp_path / 'run'}"]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x]
    assert message in line


@pytest.mark.parametrize("memory_mb", [2000, 1], ids=["decoded at once", "read as they come"])
def test_files_that_cannot_be_read_are_left_out_and_named(tmp_path, capsys, memory_mb):
    (tmp_path / "bad.wav").write_bytes(b"RIFF no more")
    (tmp_path / "._good.wav").write_bytes(b"what macOS leaves beside a file")
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16000)
    soundfile.write(tmp_path / "cut.wav", np.full(8000, 0.1), 16000)
    os.truncate(tmp_path / "cut.wav", 9000)
    for number in range(5):
        soundfile.write(tmp_path / f"good{number}.aiff", np.full(160000, 0.1), 16000)
    data = UnlabelledConfig(root=str(tmp_path), memory_mb=memory_mb)
    clips = UnlabelledClips(data, 0, 400)
    assert [path.name for path in clips.paths] == [f"good{number}.aiff" for number in range(5)]
    said = capsys.readouterr().err.splitlines()
    reasons = {"bad": "cannot be decoded", "cut": "truncated", "short": "has 0.006 s"}
    for line, (name, reason) in zip(said, reasons.items(), strict=True):
        assert line.startswith(f"warning: file left out: {tmp_path / name}.wav: {reason}")


def test_folders_and_files_that_are_links_are_read(tmp_path):
    for folder in ("disk", "clips"):
        (tmp_path / folder).mkdir()
    for name in ("disk/a.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.full(8000, 0.1), 16000)
    (tmp_path / "clips/there").symlink_to(tmp_path / "disk")
    (tmp_path / "clips/back").symlink_to(tmp_path / "clips")  # a circle
    (tmp_path / "clips/B.WAV").symlink_to(tmp_path / "b.wav")
    clips = UnlabelledClips(UnlabelledConfig(root=str(tmp_path / "clips")), 0, 400)
    assert [path.name for path in clips.paths] == ["B.WAV", "a.wav"]


def test_many_bad_files_are_ten_lines_and_a_count(tmp_path, capsys):
    for number in range(13):
        (tmp_path / f"{number:02}.wav").write_text("no sound")
    with pytest.raises(UserError, match=r"none of its files .*13 tried.*00\.wav: cannot be"):
        UnlabelledClips(UnlabelledConfig(root=str(tmp_path)), 0, 400)
    soundfile.write(tmp_path / "good.wav", np.full(8000, 0.1), 16000)
    capsys.readouterr()
    UnlabelledClips(UnlabelledConfig(root=str(tmp_path)), 0, 400)
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[2] for line in said[:10]] == [
        f"{tmp_path / f'{number:02}.wav'}" for number in range(10)
    ]
    assert said[10:] == ["warning: 3 more files left out"]


def test_a_file_that_ends_badly_is_silent_where_it_cannot_be_heard(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("a.flac", "b.flac"):
        soundfile.write(tmp_path / name, rng.uniform(-0.5, 0.5, 480000), 16000)
    os.truncate(tmp_path / "b.flac", 300000)
    data = UnlabelledConfig(root=str(tmp_path), memory_mb=1, crop_s=1.0)
    clips = UnlabelledClips(data, 0, 400)
    rows = [next(clips.iterate(np.array([[0, 1]]), 0, epoch)) for epoch in range(1, 9)]
    heard = np.array([length_B for _, length_B in rows])
    assert (heard[:, 0] == 16000).all()
    assert 0 in heard[:, 1]
    assert set(heard[:, 1]) <= {0, 16000}
    assert f"warning: file left out: {tmp_path / 'b.flac'}: " in capsys.readouterr().err


def test_commands_example_is_a_configuration():
    command = parse(["pretrain", "--config", "configs/pretrain.yaml", "--data.root=x"])
    assert command.config.data.part == "train"
