"""The files to predict, and what is wrong with them."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ser_jax.audio.decoding import check_file
from ser_jax.config.paths import is_url
from ser_jax.errors import UserError, check, warn


def list_names(files: Any) -> list[str]:
    """Names of files; a single one may be given by itself.

    Raises:
      UserError: samples, an open file or something else in place of a name.
    """
    kinds = (str, bytes, os.PathLike)
    if isinstance(files, kinds) or hasattr(files, "read") or not isinstance(files, Iterable):
        files = [files]  # iterating over an open file would give its lines
    names = []
    for file in files:
        check(
            isinstance(file, kinds),
            f"files: holds {type(file).__name__}, needs names of files; write samples to one by "
            "soundfile.write, and give its name",
        )
        names.append(os.path.expanduser(os.fsdecode(file)))
    return names


class Files:
    """Files by number, and what is wrong with those that are bad."""

    def __init__(self, names: Sequence[str], on_error: Callable[[UserError], None] | None):
        self.names, self._on_error = names, on_error
        self.errors: dict[int, UserError] = {}
        self.warnings: dict[int, str] = {}
        # Cheap checks first, before any work.
        for number, name in enumerate(names):
            with self.expecting_errors(number):
                check(name != "", "'': no file is named; check what should name it")
                check(
                    not is_url(name) or os.path.exists(name),
                    f"{name}: is an address, not a file; download it, and give the file",
                )
                check_file(name)

    @contextlib.contextmanager
    def expecting_errors(self, number: int) -> Iterator[None]:
        """Keep a `UserError` about a file; raise it if there is no `on_error`."""
        try:
            yield
        except UserError as error:
            if self._on_error is None:
                raise
            self.errors[number] = error

    def tell(self) -> None:
        """Warn of what is odd, and call `on_error` for the bad files, in order."""
        for number, warning in sorted(self.warnings.items()):
            if number not in self.errors:
                warn(warning)
        for _, error in sorted(self.errors.items()):
            assert self._on_error is not None
            self._on_error(error)
