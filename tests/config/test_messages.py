"""What a configuration says of a value that it refuses, word for word, and what it just takes."""

import json
from pathlib import Path
from typing import Any

import pytest

from ser_jax import config
from ser_jax.config import override
from ser_jax.config.pretraining import ArchitectureConfig, PretrainTrainConfig, UnlabelledConfig
from ser_jax.errors import UserError

# A class, the settings that are changed, and the message; the values lie next to what is taken.
ROWS = json.loads((Path(__file__).parent / "messages.json").read_text())
OTHERS = {kind.__name__: kind for kind in (ArchitectureConfig, PretrainTrainConfig)}


def make(name: str, changes: dict[str, Any]) -> Any:
    kind: Any = OTHERS.get(name) or getattr(config, name)
    changes = {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}
    base = {"data": UnlabelledConfig(root="/")} if name == "PretrainConfig" else {}
    if any("." in key for key in changes):
        return override(kind(**base), changes)
    return kind(**base, **changes)


def name_row(value: Any) -> str:
    return value if isinstance(value, str) and value.endswith("Config") else "-"


@pytest.mark.parametrize(("name", "changes", "message"), ROWS["refused"], ids=name_row)
def test_a_refused_value_has_its_message_word_for_word(name, changes, message):
    with pytest.raises(UserError) as caught:
        make(name, changes)
    assert str(caught.value) == message


@pytest.mark.parametrize(("name", "changes"), ROWS["accepted"], ids=name_row)
def test_a_value_at_its_bound_is_taken(name, changes):
    make(name, changes)
