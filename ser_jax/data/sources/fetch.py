"""A file over HTTP from a server that may fail: retried, resumed, verified, then renamed."""

import contextlib
import hashlib
import os
import re
import sys
import time
from pathlib import Path

import requests
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError, ProtocolError
from urllib3.util import Retry

from ser_jax import __version__
from ser_jax.errors import UserError, one_line
from ser_jax.files.atomic import saving
from ser_jax.progress import Advance, progress

RETRY = Retry(7, backoff_factor=1, status_forcelist=(408, 416, 425, 429, *range(500, 600)))
_MB = 1e6
# Zenodo refuses clients without a name; ranges and sizes count the bytes of the file itself.
_HEADERS = {"User-Agent": f"ser_jax/{__version__}", "Accept-Encoding": "identity"}


def fetch(
    url: str, target: Path, size: int, md5: str, *, remedy: str = "or try again later",
    retry: Retry = RETRY, timeout_s: float = 30,
) -> Path:  # fmt: skip
    """Download `url` to `target`, which appears only when its size and MD5 are right.

    What has arrived stays in `target`.part, also after Ctrl-C, and the next call resumes there.

    Args:
      size: bytes of the file.
      remedy: what else the user can do, for error messages; 'or ...'.
      retry: retries in a row that each bring less than 1 % of the file, at most two of them while
        no server is reached; a server that asks for a wait beyond `backoff_max` ends them.
      timeout_s: without a byte, or with less than 1 kB/s.

    Raises:
      UserError: no answer, a refusal, wrong bytes twice, or a failed write.
    """
    part = target.with_name(f"{target.name}.part")
    with saving(part, "free some space or choose another data.store_dir, and run this again"):
        if _is_right(target, size, md5):
            return target
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            for _ in range(2):  # the first pass may have resumed a wrong part
                _fill(part, url, size, retry, timeout_s)
                if _is_right(part, size, md5):
                    os.replace(part, target)
                    return target
                part.unlink(missing_ok=True)
        except requests.RequestException as error:
            raise UserError(f"{url}: {one_line(error, 200)}, {remedy}") from error
        except KeyboardInterrupt:
            print(f"{part}: kept; run this again to resume", file=sys.stderr)
            raise
    raise UserError(
        f"{url}: what arrives is not the {size} bytes with MD5 {md5}, twice; check for a proxy "
        f"that changes downloads, {remedy}"
    )


def _is_right(path: Path, size: int, md5: str) -> bool:
    if _measure(path) != size:
        return False
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest() == md5


def _measure(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fill(part: Path, url: str, size: int, retry: Retry, timeout_s: float) -> None:
    """Download until the part has `size` bytes or more.

    Raises:
      requests.RequestException: there is no use in further retries.
    """
    left, best = retry.new(total=2), -size  # so reaching the server earns all retries
    name = f"downloading {part.stem}"
    with requests.Session() as session, progress(name, int(size / _MB), "MB") as advance:
        session.headers.update(_HEADERS)
        advance(_measure(part) / _MB, earlier=True)
        while (have := _measure(part)) < size:
            span, answer = {"Range": f"bytes={have}-"} if have else {}, None
            try:
                with session.get(url, headers=span, stream=True, timeout=timeout_s) as answer:
                    _receive(answer, part, have, size, timeout_s, advance)
            except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
                # No server was reached if not even the request could be sent. Only a new record
                # earns new retries: there can be no more than a hundred.
                reached = MaxRetryError not in map(type, error.args)
                if reached and (have := _measure(part)) >= best + size / 100:
                    left, best = retry, have
                left = _wait(left, answer, error)


def _receive(
    answer: requests.Response, part: Path, have: int, size: int, timeout_s: float, advance: Advance
) -> None:
    status, said = answer.status_code, f"the server answers {answer.status_code} {answer.reason}"
    span, offered = (answer.headers.get(f"Content-{name}") for name in ("Range", "Length"))
    resumes = status == 206 and re.fullmatch(rf"bytes {have}-\d+/({size}|\*)\s*", span or "")
    if status == 200 and offered not in (None, str(size)):  # nothing is lost yet: the part stays
        said = f"the server offers {offered} bytes instead of {size}; check for a login page or"
        raise requests.RequestException(f"{said} proxy in between")
    if status >= 400 and status not in RETRY.status_forcelist:
        raise requests.RequestException(f"{said}; try later")
    if have and not resumes and status in (200, 206, 416):  # all, another range, no such range
        part.unlink()
        advance(-have / _MB)
    if status != 200 and not resumes:
        raise HTTPError(said)
    begun, begun_s = _measure(part), time.monotonic()
    with part.open("ab") as file, contextlib.suppress(ProtocolError):
        while file.tell() <= size and (chunk := answer.raw.read1(1 << 18)):
            file.write(chunk)
            advance(len(chunk) / _MB)
            seconds = time.monotonic() - begun_s
            if seconds > timeout_s and file.tell() - begun < 1000 * seconds:
                raise HTTPError("the server sends less than 1 kB/s")
    if (have := _measure(part)) < size:
        raise HTTPError(f"the connection ended at {have} of {size} bytes")


def _wait(left: Retry, answer: requests.Response | None, error: Exception) -> Retry:
    """Use up one retry, after the wait before it."""
    asked_s, cause = 0.0, error
    while isinstance(cause.__context__, Exception):  # down to the operating system's own words
        cause = cause.__context__
    said = f"{getattr(cause, 'strerror', None) or cause}"
    with contextlib.suppress(InvalidHeader, ValueError, OverflowError):  # no sensible time
        asked_s = (left.get_retry_after(answer.raw) if answer is not None else None) or 0.0
    if not left.total or asked_s > left.backoff_max:
        said += f" (the server asks to wait {asked_s:.0f} s)" if asked_s else ""
        raise requests.RequestException(
            f"cannot download: {said}; check the network and run this again (it resumes)"
        ) from error
    left = left.increment("GET", error=error)
    wait_s = max(left.get_backoff_time(), asked_s)
    if wait_s >= 1:
        print(f"download: {one_line(said, 200)}; retrying in {wait_s:.0f} s", file=sys.stderr)
    time.sleep(wait_s)
    return left
