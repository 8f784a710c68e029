"""Checkpoints are read from every format, and what cannot be used is said in one line."""

import argparse
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch
from flax.serialization import msgpack_serialize
from safetensors.numpy import load_file, save_file
from tiny_wav2vec2 import LAYOUTS, get_params, make_architecture, make_torch, make_waves
from transformers import Wav2Vec2ForPreTraining, Wav2Vec2Model

from ser_jax.errors import UserError
from ser_jax.wav2vec2.parameter_names import to_flax, to_torch
from ser_jax.wav2vec2.published import load_architecture, load_backbone, load_heads, load_params
from tests.tolerance import assert_near


@pytest.fixture
def folder(tmp_path):
    make_torch(make_architecture("base"), Wav2Vec2ForPreTraining).save_pretrained(tmp_path / "it")
    return tmp_path / "it"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_checkpoint_gives_pytorchs_hidden_states(tmp_path, layout):
    model = make_torch(make_architecture(layout))
    model.save_pretrained(tmp_path)
    module, params = load_backbone(tmp_path)
    x_BN, mask_BN = make_waves([8000, 3000])
    ours = jax.jit(module.apply)({"params": params}, x_BN, mask_BN)
    with torch.no_grad():
        theirs = model(torch.tensor(x_BN), attention_mask=torch.tensor(mask_BN).long())
    assert_near(ours, theirs.last_hidden_state.numpy(), atol=1e-4, why="cudnn")


def check_same(params, expected):
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_all_formats_and_spellings_give_the_same_parameters(folder):
    expected = load_params(folder)
    check_same(expected, get_params(make_torch(make_architecture("base"),
                                               Wav2Vec2ForPreTraining))["backbone"])  # fmt: skip
    file = folder / "model.safetensors"
    tensors = load_file(file)
    file.unlink()
    old = {name.replace("parametrizations.weight.original0", "weight_g")
           .replace("parametrizations.weight.original1", "weight_v"): t
           for name, t in tensors.items()}  # fmt: skip
    assert set(old) != set(tensors)
    save_file(old, file)
    check_same(load_params(folder), expected)
    without = {name.removeprefix("wav2vec2."): tensor for name, tensor in old.items()}
    save_file(without, file)
    check_same(load_params(folder), expected)
    file.unlink()
    torch.save({name: torch.tensor(t) for name, t in tensors.items()}, folder / "pytorch_model.bin")
    check_same(load_params(folder), expected)
    (folder / "pytorch_model.bin").unlink()
    (folder / "flax_model.msgpack").write_bytes(msgpack_serialize(to_flax(tensors)))
    check_same(load_params(folder), expected)


def test_half_precision_is_read_as_float32(folder):
    file = folder / "model.safetensors"
    expected = load_params(folder)
    from safetensors.torch import save_file as save_torch

    tensors = {name: torch.tensor(t).bfloat16() for name, t in load_file(file).items()}
    save_torch(tensors, file)
    for a, b in zip(jax.tree.leaves(load_params(folder)), jax.tree.leaves(expected), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=1e-2)


def test_names_convert_to_pytorch_and_back(folder):
    tensors = load_file(folder / "model.safetensors")
    again = to_torch(to_flax(tensors))
    renamed = {name.replace("weight_g", "parametrizations.weight.original0")
               .replace("weight_v", "parametrizations.weight.original1"): t
               for name, t in again.items()}  # fmt: skip
    assert set(renamed) == set(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(renamed[name], tensor)


def test_pretraining_heads_are_read_if_present(folder, tmp_path):
    assert set(load_heads(folder)) == {"quantizer", "project_q", "project_hid"}
    make_torch(make_architecture("base"), Wav2Vec2Model).save_pretrained(tmp_path / "bare")
    assert load_heads(tmp_path / "bare") == {}


def test_safetensors_need_no_torch(folder):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from ser_jax.wav2vec2.published import load_params\n"
        f"print(sorted(load_params({str(folder)!r})))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True,
                          text=True)  # fmt: skip
    assert "'feature_extractor'" in done.stdout, done.stderr


def change_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def break_tensor(folder, name, tensor):
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(name, None)
    save_file(tensors if tensor is None else tensors | {name: tensor}, folder / "model.safetensors")


NAME = "wav2vec2.feature_projection.projection.weight"
SPOILS = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no weights; it needs one"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json: no such file"),
    "no json": (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "is not a JSON object"),
    "cut short": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:-9]
        ),
        "model.safetensors: damaged or cut short",
    ),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "damaged or cut short"),
    "missing": (
        lambda f: break_tensor(f, NAME, None),
        "lacks the tensor feature_projection.projection.kernel [16, 32]",
    ),
    "misshapen": (
        lambda f: break_tensor(f, NAME, np.zeros((32, 15), np.float32)),
        "feature_projection.projection.kernel has the shape [15, 32], its config.json says [16, 32",
    ),
    "quantised": (
        lambda f: break_tensor(f, NAME, np.zeros((32, 16), np.int8)),
        f"model.safetensors: {NAME} is of type I8, and quantised weights are not supported",
    ),
    "another size": (lambda f: change_config(f, intermediate_size=65), "config.json says [65]"),
    "another kind": (lambda f: change_config(f, model_type="bert"), "model_type=bert: not a wav2"),
    "adapter": (lambda f: change_config(f, add_adapter=True), "adapters are not supported"),
}


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_do_normalize_is_read_from_either_file_that_transformers_writes(folder, name):
    assert load_architecture(folder).do_normalize
    said = {"do_normalize": False, "sampling_rate": 16000}
    nested = said if name.startswith("pre") else {"feature_extractor": said}
    (folder / name).write_text(json.dumps(nested))
    assert not load_architecture(folder).do_normalize


PREPROCESSORS = {
    '{"do_normalize": "no"}': "do_normalize=no: must be bool",
    '{"feature_size": 80}': "feature_size=80: the network takes the samples alone",
    '{"sampling_rate": "16k"}': "sampling_rate=16k: must be int",
    "{": "cannot be read as JSON",
}


@pytest.mark.parametrize("text", PREPROCESSORS)
def test_an_unusable_preprocessor_says_why(folder, text):
    (folder / "preprocessor_config.json").write_text(text)
    with pytest.raises(UserError) as caught:
        load_architecture(folder)
    assert PREPROCESSORS[text] in str(caught.value)


@pytest.mark.parametrize("spoil", SPOILS)
def test_an_unusable_checkpoint_says_why(folder, spoil):
    change, message = SPOILS[spoil]
    change(folder)
    with pytest.raises(UserError) as caught:
        load_backbone(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "pytorch_model.bin", "flax_model.msgpack"]
)
def test_a_git_lfs_pointer_is_recognised(folder, name):
    if name != "config.json":
        (folder / "model.safetensors").unlink()
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 377607901\n"
    (folder / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name}: is a Git LFS pointer, .*; run git lfs pull"):
        load_backbone(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "flax_model.msgpack"])
def test_other_formats_cut_short_say_so(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UserError, match="damaged or cut short"):
        load_params(folder)


TORCH_FILES = {
    "a trainer's": (
        {"model": {NAME: torch.zeros(1)}, "epoch": 3},
        "model is dict, not a tensor; save only model.state_dict()",
    ),
    "of objects": ({"args": argparse.Namespace(lr=1)}, "objects other than tensors"),
    "one tensor": (torch.zeros(3), "is not a dictionary of tensors"),
}


@pytest.mark.parametrize("kind", TORCH_FILES)
def test_pytorch_files_that_are_no_state_dict_are_not_called_damaged(folder, kind):
    content, message = TORCH_FILES[kind]
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(UserError) as caught:
        load_params(folder)
    assert message in str(caught.value)
    assert "damaged" not in str(caught.value)


def test_boolean_tensors_beside_the_weights_are_read(folder):
    expected = load_params(folder)
    break_tensor(folder, "flags", np.array([True]))
    jax.tree.map(np.testing.assert_array_equal, load_params(folder), expected)


def test_an_id_that_cannot_be_downloaded_asks_for_a_folder(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="cannot be downloaded from the Hugging Face Hub") as caught:
        load_architecture("nobody/nothing-at-all")
    assert "name their folder" in str(caught.value)


@pytest.mark.parametrize("path", ["/no/such", "./no/such", "nosuch", "~/no"])
def test_a_path_that_does_not_exist_is_never_looked_up_on_the_hub(path):
    with pytest.raises(UserError, match="no such folder"):
        load_architecture(path)


def test_a_missing_mask_embedding_is_drawn(folder):
    break_tensor(folder, "wav2vec2.masked_spec_embed", None)
    drawn = load_params(folder)["masked_spec_embed"]
    assert drawn.shape == (32,)
    assert np.ptp(drawn) > 0
    shutil.rmtree(folder)
