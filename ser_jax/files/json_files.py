"""Reading JSON that runs and grids leave, with errors that name the file and the remedy."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ser_jax.errors import UserError


@contextlib.contextmanager
def blaming(path: Path, remedy: str) -> Iterator[None]:
    """Turn what unexpected content of `path` causes inside into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        what = (
            f"lacks {error}" if isinstance(error, KeyError) else f"has unexpected content: {error}"
        )
        raise UserError(f"{path}: {' '.join(what.split())}; {remedy}") from error


def load_json(path: Path, remedy: str) -> Any:
    """The content of a JSON file.

    Raises:
      UserError: the file is missing, unreadable or no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot read: {reason}; {remedy}") from error
    except ValueError as error:
        raise UserError(f"{path}: is no JSON: {error}; {remedy}") from error
