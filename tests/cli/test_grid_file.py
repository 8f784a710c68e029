"""Rows of a grid that name a configuration of their own."""

from pathlib import Path

import pytest

from ser_jax.cli.arguments import load_config, parse
from ser_jax.config import AblationConfig, Config, compute_identity
from ser_jax.errors import UserError
from ser_jax.grid.cells import list_cells

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def list_runs(*argv: str) -> dict[str, Config]:
    return {cell.system: cell.config for cell in list_cells(parse(["ablate", *argv]).config)}


@pytest.mark.parametrize(
    "name", ["tcn", "blstm", "vit", "cvt", "msdc_lstm", "best", "wav2vec2", "cnn_lstm"]
)
def test_a_row_of_the_study_is_what_its_own_configuration_trains(name):
    grid = load_config(str(CONFIGS / "study.yaml"), AblationConfig)
    rows = {(c.system, c.protocol, c.seed): c.config for c in list_cells(grid)}
    own = load_config(str(CONFIGS / f"{name}.yaml"))
    assert compute_identity(rows[name, "study", 0]) == compute_identity(own)


def test_a_rows_file_stands_alone_but_for_data_and_the_rows_own_keys(write):
    write("row.yaml", "model: {name: tcn, kernel: 5}\ndata: {clip_s: 2}\ntrain: {epochs: 7}")
    grid = write("grid.yaml", "\n".join([
        "model: {hidden: 9, dropout: 0.5}", "data: {rate_hz: 8000, clip_s: 1}",
        "train: {learning_rate: 0.5}", "systems:", "  plain: {model.name: lstm}",
        "  row: {config: row.yaml, train.batch_size: 4, model: {kernel: 3}}",
    ]))  # fmt: skip
    runs = list_runs("--config", grid)
    assert (runs["plain"].model.hidden, runs["plain"].train.learning_rate) == (9, 0.5)
    row = runs["row"]
    assert (row.model.name, row.model.hidden, row.model.dropout) == ("tcn", 256, 0.2)
    assert (row.model.kernel, row.train.epochs, row.train.batch_size) == (3, 7, 4)
    assert (row.data.rate_hz, row.data.clip_s, row.train.learning_rate) == (8000, 2.0, 0.001)


def test_the_command_line_wins_over_a_rows_file(write):
    write("row.yaml", "train: {epochs: 7, batch_size: 4}")
    grid = write("grid.yaml", "systems: {row: {config: row.yaml}}")
    row = list_runs("--config", grid, "--train.epochs", "2")["row"]
    assert (row.train.epochs, row.train.batch_size) == (2, 4)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{config: none.yaml}", "systems.row.config=none.yaml: no such file; name one that lies"),
        ("{config: [3]}", "systems.row.config=['3']: must be the name of a YAML file"),
        ("{config: bad.yaml}", "bad.yaml: train.epoch: unknown key; did you mean train.epochs?"),
        ("{config: run.yaml}", "run.yaml: seed: unknown key"),
    ],
)
def test_a_bad_file_of_a_row_is_reported_in_one_line(write, row, said):
    write("bad.yaml", "train: {epoch: 7}")
    write("run.yaml", "seed: 7")
    with pytest.raises(UserError) as caught:
        list_runs("--config", write("grid.yaml", f"systems: {{row: {row}}}"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
