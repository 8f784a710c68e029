"""A file over HTTP, however unwilling the server: tried again, resumed, verified, renamed."""

import contextlib
import hashlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from ser_jax.errors import UserError
from ser_jax.files.atomic import saving
from ser_jax.progress import progress

# Plain urllib: pooch verifies, but starts a cut download of 208 MB anew and drops what came.


@dataclass(frozen=True)
class Patience:
    """How long a download goes on against an unwilling server."""

    tries: int = 8
    """In a row, each ending with less than 1 % more of the file."""
    unreached_tries: int = 3
    """The same, while no server has answered yet: there is likely no network."""
    wait_s: float = 1.0
    """Before the second try; doubled for each further one."""
    most_wait_s: float = 120.0
    """Between two tries. A server that asks for more ends the download."""
    timeout_s: float = 30.0
    """Without a byte, or, over a whole connection, below 1 kB/s."""


_CHUNK = 1 << 18
_MB = 10**6


class _TryAgainError(Exception):
    def __init__(self, reason: object, reached: bool = True, after_s: float | None = None) -> None:
        super().__init__(one_line(reason))
        self.reached, self.after_s = reached, after_s


class _WrongBytesError(Exception):
    """What the server sends is not the file."""


def fetch(
    url: str,
    target: Path,
    size: int,
    md5: str,
    *,
    remedy: str = "or try again later",
    patience: Patience | None = None,
) -> Path:
    """Download `url` to `target`, which appears only when its size and MD5 are right.

    Args:
      size: bytes of the file.
      remedy: what else the user can do, for error messages; 'or ...'.

    What has come so far stays in `target`.part, also after Ctrl-C, and the next call goes on there.

    Raises:
      UserError: no answer, a refusal, wrong bytes twice, or a failed write.
    """
    part = target.with_name(f"{target.name}.part")
    # Errors of the network become the two exceptions above, so an OSError here is the disk's.
    with saving(part, "free some space or choose another data.store_dir, and run this again"):
        if _is_right(target, size, md5):
            return target
        part.parent.mkdir(parents=True, exist_ok=True)
        with progress(f"downloading {target.name}", size // _MB, "MB") as advance:
            download = _Download(url, part, size, patience or Patience(), remedy, advance)
            # The first pass may have gone on from an old and wrong part; the second has none.
            for _ in range(2):
                if download.run() and _is_right(part, size, md5):
                    os.replace(part, target)
                    return target
                part.unlink(missing_ok=True)
    raise UserError(
        f"{url}: what comes is not the {size} bytes with MD5 {md5}, twice; check for a proxy that "
        f"changes downloads, {remedy}"
    )


def _is_right(path: Path, size: int, md5: str) -> bool:
    if not path.is_file() or path.stat().st_size != size:
        return False
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest() == md5


@dataclass
class _Download:
    """One file on its way into its .part."""

    url: str
    part: Path
    size: int
    patience: Patience
    remedy: str
    advance: Callable[[int], None]
    shown_mb: int = 0

    def run(self) -> bool:
        """Fill the part to its full size; False: the server sends something else."""
        try:
            self._run()
        except _WrongBytesError:
            return False
        except KeyboardInterrupt:
            print(f"{self.part}: kept; run this again to go on from there", file=sys.stderr)
            raise
        return True

    def _run(self) -> None:
        fails, most, reached = 0, self._measure(), False
        while (have := self._measure()) < self.size:
            try:
                self._connect(have)
            except _TryAgainError as error:
                reached = reached or error.reached
                have = self._measure()
                # Only a new record earns new tries; there can be no more than a hundred records.
                fails = 0 if have >= most + self.size / 100 else fails + 1
                most = max(most, have)
                self._wait(error, fails, reached)

    def _measure(self) -> int:
        have = self.part.stat().st_size if self.part.exists() else 0
        if have > self.size:
            self.part.unlink()
            have = 0
        self._show(have)
        return have

    def _show(self, n_bytes: int) -> None:
        self.advance(n_bytes // _MB - self.shown_mb)
        self.shown_mb = n_bytes // _MB

    def _wait(self, error: _TryAgainError, fails: int, reached: bool) -> None:
        asked_s = error.after_s or 0.0
        tries = self.patience.tries if reached else self.patience.unreached_tries
        if fails >= tries or asked_s > self.patience.most_wait_s:
            wish = f" (the server asks to wait {asked_s:.0f} s)" if asked_s else ""
            raise UserError(
                f"{self.url}: cannot download: {error}{wish}; check the network and run this again "
                f"(it goes on where it stopped), {self.remedy}"
            ) from error
        wait_s = min(self.patience.wait_s * 2 ** max(fails - 1, 0), self.patience.most_wait_s)
        wait_s = max(wait_s, asked_s)
        if wait_s >= 1:
            print(f"download: {error}; again in {wait_s:.0f} s", file=sys.stderr)
        time.sleep(wait_s)

    def _connect(self, have: int) -> None:
        with self._open(have) as response:
            goes_on = response.status == http.client.PARTIAL_CONTENT
            if goes_on:
                found = response.headers.get("Content-Range", "").strip()
                if not re.fullmatch(rf"bytes {have}-\d+/({self.size}|\*)", found):
                    raise _WrongBytesError
            else:
                offered = response.headers.get("Content-Length", str(self.size))
                if offered != str(self.size):  # nothing is lost yet: the part stays
                    raise UserError(
                        f"{self.url}: the server offers {one_line(offered)} bytes instead of "
                        f"{self.size}; check for a login page or proxy in between, {self.remedy}"
                    )
            with self.part.open("ab" if goes_on else "wb") as file:
                self._receive(response, file, have if goes_on else 0)

    def _open(self, have: int) -> http.client.HTTPResponse:
        from ser_jax import __version__

        headers = {"User-Agent": f"ser_jax/{__version__}"}  # Zenodo turns away who has no name
        if have:
            headers["Range"] = f"bytes={have}-"
        request = urllib.request.Request(self.url, headers=headers)
        try:
            return urllib.request.urlopen(request, timeout=self.patience.timeout_s)
        except urllib.error.HTTPError as error:
            error.close()
            answer = f"the server answers {error.code} {one_line(error.reason)}"
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                self.part.unlink(missing_ok=True)
            elif error.code not in (408, 425, 429) and error.code < 500:
                raise UserError(f"{self.url}: {answer}; try later, {self.remedy}") from error
            after_s = _parse_retry_after(error.headers.get("Retry-After"))
            raise _TryAgainError(answer, after_s=after_s) from error
        except urllib.error.URLError as error:  # before the request was out: name, route, TLS
            reason = getattr(error.reason, "strerror", None) or error.reason
            raise _TryAgainError(reason, reached=False) from error
        except (OSError, http.client.HTTPException) as error:
            raise _TryAgainError(f"no answer: {error}") from error

    def _receive(self, response: http.client.HTTPResponse, file, have: int) -> None:
        started_s, received = time.monotonic(), 0
        while chunk := _read(response):
            received += len(chunk)
            if have + received > self.size:
                raise _WrongBytesError
            file.write(chunk)
            self._show(have + received)
            elapsed_s = time.monotonic() - started_s
            if elapsed_s > self.patience.timeout_s and received < 1000 * elapsed_s:
                raise _TryAgainError("the server sends less than 1 kB/s")
        if have + received < self.size:
            raise _TryAgainError(f"the connection ended at {have + received} of {self.size} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK)  # what is there; read() would wait for the whole chunk
    except (OSError, http.client.HTTPException) as error:
        raise _TryAgainError(f"the connection was cut: {error}") from error


def _parse_retry_after(value: str | None) -> float | None:
    """Seconds to wait, from a number or an HTTP date; None where it is neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    with contextlib.suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def one_line(text: object) -> str:
    """For an error message: no line breaks, 200 characters at the most."""
    return " ".join(str(text).split())[:200]
