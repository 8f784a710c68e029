"""A network from outside the package: trained, resumed, in a grid, put to use, and refused."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ser_jax.api import ablate, train
from ser_jax.cli.arguments import parse
from ser_jax.config import AblationConfig, Config, override
from ser_jax.config.model import NAMES
from ser_jax.data.store import load_corpus
from ser_jax.errors import UserError
from ser_jax.inference.evaluate import evaluate
from ser_jax.inference.load import load_run
from ser_jax.inference.predict import predict
from ser_jax.run.run_dir import default_run_dir
from ser_jax.systems import network
from ser_jax.systems.networks import NETWORKS
from ser_jax.systems.registry import SYSTEMS
from tests.tiny import make_config, make_keys, make_options, run_command

OWN = {"model.name": "tests.systems.my_networks:Averages", "model.kwargs": {"units": [6, 5]}}


def make(run_dir: Path, **changes: Any) -> Config:
    return make_config(run_dir, OWN | changes)


def quietly(event: dict[str, Any]) -> None:
    del event


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("own") / "run"
    train(make(run_dir, **{"train.epochs": 3}), observe=quietly)
    return run_dir


def test_each_name_of_the_settings_has_a_system():
    assert set(NAMES) == set(SYSTEMS)
    assert set(NETWORKS) < set(NAMES)


def test_it_trains_by_its_own_keyword_arguments(whole):
    run = load_run(whole)
    shapes = {name: leaf["kernel"].shape for name, leaf in run.variables["params"].items()}
    assert [shape[1] for shape in shapes.values()] == [6, 5, len(run.labels)]
    assert json.loads((whole / "metrics.json").read_text())["epochs"] == 3


def test_resumed_it_ends_as_uninterrupted(whole, tmp_path, monkeypatch):
    fit, config = network.fit, make(tmp_path / "run", **{"train.epochs": 3})

    def fit_two_epochs(*args: Any, **kwargs: Any) -> Any:
        fit(*args, **kwargs | {"settings": kwargs["settings"].__class__(
            **vars(kwargs["settings"]) | {"epochs": 2})})  # fmt: skip
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(network, "fit", fit_two_epochs)
        with pytest.raises(KeyboardInterrupt):
            train(config, observe=quietly)
    metrics = train(config, observe=quietly)
    before = json.loads((whole / "metrics.json").read_text())
    assert {k: metrics[k] for k in ("val", "test", "best_epoch")} == {
        k: before[k] for k in ("val", "test", "best_epoch")
    }


def test_it_is_measured_and_asked(whole, tmp_path):
    import soundfile

    metrics = json.loads((whole / "metrics.json").read_text())
    assert evaluate(whole) == metrics["test"]
    run = load_run(whole)
    corpus = load_corpus(run.config.data)
    path = tmp_path / "one.wav"
    soundfile.write(path, corpus.wave_BN[0], corpus.rate_hz)
    (prediction,) = predict(whole, path)
    assert sum(prediction.probabilities.values()) == pytest.approx(1)


@pytest.mark.parametrize("batching", ["one", "vmap"])
def test_a_grid_trains_it_alone_and_together(tmp_path, batching):
    keys = {k: v for k, v in make_keys(OWN).items() if k not in ("seed", "run_dir")}
    grid = {"out": str(tmp_path / "grid"), "seeds": (0, 1), "batching": batching, "workers": 1}
    results = ablate(override(AblationConfig(), keys | grid | {"systems": {"mine": {}}}))
    assert [cell["status"] for cell in results["cells"]] == ["done", "done"]
    accuracies = np.array([cell["accuracy"] for cell in results["cells"]])
    assert ((accuracies >= 0) & (accuracies <= 1)).all()


def test_the_folder_of_a_run_has_a_name_without_a_colon(tmp_path):
    assert ":" not in str(default_run_dir(make(tmp_path)))


HERE = "tests.systems.my_networks"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.name": f"{HERE}:Frames", "model.kwargs": {}}, r"gives \(2, \d+, 8\) for 2 clips"),
        ({"model.kwargs": {"width": 3}}, r"cannot be made with model.kwargs=.*unexpected keyword"),
        ({"model.kwargs": {"units": ["a"]}}, "cannot be called: "),
        ({"model.name": f"{HERE}:Absent"}, "has no class or function Absent"),
        ({"model.name": f"{HERE}:NUMBER"}, "has no class or function NUMBER"),
        ({"model.name": "nowhere.at_all:Net"}, "nowhere.at_all cannot be imported: ModuleNotFound"),
        ({"model.name": "builtins:dict", "model.kwargs": {}}, "gives dict, no flax.linen.Module"),
    ],
)
def test_what_is_no_network_is_refused_in_one_line(tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        train(make(tmp_path / "run", **changes), observe=quietly)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("model.name=")
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.name": "frob"}, "model.name=frob: must be one of cnn, lstm, .* or MODULE:CLASS"),
        ({"model.name": "a b:C"}, "model.name=a b:C: must be one of"),
        ({"model.name": "cnn", "model.kwargs": {"a": 1}}, r"model.kwargs=\{'a': 1\}: requires a"),
    ],
)
def test_names_and_arguments_that_cannot_be_are_refused_at_once(changes, message):
    with pytest.raises(UserError, match=message):
        override(Config(), changes)


def test_the_command_line_finds_it_in_the_current_folder(tmp_path, monkeypatch):
    text = (Path(__file__).parent / "my_networks.py").read_text()
    (tmp_path / "mine_alone.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    changes = {"train.epochs": 1, "model.name": "mine_alone:Averages"}
    options = make_options(changes | {"model.kwargs": {"units": [4]}})
    status = run_command("train", *options, "--run_dir=run")
    assert status == 0
    assert re.search("mine_alone:Averages", (tmp_path / "run" / "config.yaml").read_text())


def test_a_name_from_the_command_line_is_plain_text_that_workers_can_unpickle():
    settings = parse(["train", "--model.name", OWN["model.name"]]).config
    assert type(settings.model.name) is str
    assert b"jsonargparse" not in pickle.dumps(settings)
