"""The commands that the documents show are commands that ser-jax accepts."""

import re
import shlex
from pathlib import Path

import pytest

from ser_jax.cli.arguments import parse
from ser_jax.cli.command_keys import make_parsers

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def list_blocks(page: Path, language: str = "") -> list[str]:
    """The fenced blocks of a page in one language."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S)
    return [text for name, text in blocks if name == language]


def list_commands(page: Path) -> list[list[str]]:
    """Arguments of every ser-jax command in the blocks of a page, without comments."""
    lines = "\n".join(list_blocks(page)).replace("\\\n", " ").splitlines()
    found = [line.removesuffix(" ...") for line in lines if re.match("ser-jax [a-z]", line)]
    return [shlex.split(line, comments=True)[1:] for line in found]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the files that the commands name."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "mine.csv").write_text("path,emotion,speaker\n1.wav,joy,adam\n")
    grid, *_ = list_blocks(ROOT / "docs" / "tutorial" / "grid.md", "yaml")
    (tmp_path / "grid.yaml").write_text(grid)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("page", [*filter(list_commands, PAGES)], ids=lambda page: page.stem)
def test_commands_of_the_documents_are_accepted(page):
    for arguments in list_commands(page):
        assert parse(arguments).name == arguments[0]


def test_the_reference_shows_every_command():
    page = (ROOT / "docs" / "reference" / "commands.md").read_text()
    assert set(re.findall(r"\{\{ help (\w+) \}\}", page)) == set(make_parsers()[1])
