"""Downloads against a local server that refuses, cuts, ignores ranges and sends wrong bytes."""

import contextlib
import email.utils
import errno
import hashlib
import http.server
import os
import random
import resource
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from urllib3.util import Retry

from ser_jax.data.sources.fetch import RETRY, fetch
from ser_jax.errors import UserError

BODY = random.Random(0).randbytes(300_000)
MD5 = hashlib.md5(BODY).hexdigest()
HASTY = RETRY.new(backoff_factor=0.001, backoff_max=2.0)
TRIES = 1 + 7

Handler = http.server.BaseHTTPRequestHandler
Answer = Callable[[Handler], None]


def send(handler: Handler, body: bytes, status: int = 200, length: int | None = None, **headers):
    handler.send_response(status)
    if length != -1:
        handler.send_header("Content-Length", str(len(body) if length is None else length))
    for key, value in headers.items():
        handler.send_header(key.replace("_", "-"), value)
    handler.end_headers()
    with contextlib.suppress(OSError):  # the client may have hung up
        handler.wfile.write(body)


def asked_from(handler: Handler) -> int:
    span = handler.headers.get("Range")
    return int(span.removeprefix("bytes=").removesuffix("-")) if span else 0


def obey(handler: Handler, body: bytes = BODY, cut: int | None = None) -> None:
    """Serve from where the client asks; `cut`: send only so many bytes of those announced."""
    start = asked_from(handler)
    rest = body[start:]
    sent = rest if cut is None else rest[:cut]
    if start:
        span = f"bytes {start}-{len(body) - 1}/{len(body)}"
        send(handler, sent, 206, len(rest), Content_Range=span)
    else:
        send(handler, sent, 200, len(rest))


def cut_connection(handler: Handler) -> None:
    obey(handler, cut=70_000)


def ignore_range(handler: Handler) -> None:
    send(handler, BODY)


def ignore_range_and_cut(handler: Handler) -> None:
    send(handler, BODY[:100_000], length=len(BODY))


def send_wrong_bytes(handler: Handler) -> None:
    obey(handler, BODY[:-1] + bytes([BODY[-1] ^ 1]))


def send_too_many(handler: Handler) -> None:
    send(handler, BODY + b"x", length=-1)


def send_too_few(handler: Handler) -> None:
    send(handler, BODY[:1000], length=-1)


def offer_another_size(handler: Handler) -> None:
    send(handler, b"<html>please log in</html>")


def send_another_range(handler: Handler) -> None:
    send(handler, BODY[:5], 206, Content_Range=f"bytes 0-4/{len(BODY)}")


def refuse(status: int, **headers: str) -> Answer:
    return lambda handler: send(handler, b"no", status, None, **headers)


def hang_up(handler: Handler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def stall(handler: Handler) -> None:
    send(handler, BODY[:50_000], length=len(BODY))
    time.sleep(1.5)


class Server(http.server.ThreadingHTTPServer):
    """Gives the scripted answers one by one, then obeys; remembers what it was asked."""

    daemon_threads = True
    answers: list[Answer]
    always: Answer
    requests: list[dict[str, str]]

    def start(self, *answers: Answer, always: Answer = obey) -> str:
        self.answers, self.always, self.requests = list(answers), always, []
        return f"http://127.0.0.1:{self.server_port}/a.zip"


class ScriptedHandler(Handler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self.server.requests.append(dict(self.headers))
        answers = self.server.answers
        (answers.pop(0) if answers else self.server.always)(self)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with (
        pytest.MonkeyPatch.context() as patch,
        Server(("127.0.0.1", 0), ScriptedHandler) as made,
    ):
        patch.setenv("no_proxy", "*")
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """The waits between tries, in seconds; none really passes."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


def get(url: str, target: Path, retry: Retry = HASTY, timeout_s: float = 0.5) -> Path:
    return fetch(url, target, len(BODY), MD5, retry=retry, timeout_s=timeout_s)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_file_arrives_and_nothing_else(server, tmp_path):
    url = server.start()
    assert get(url, tmp_path / "new" / "a.zip").read_bytes() == BODY
    assert files(tmp_path / "new") == {"a.zip"}
    assert len(server.requests) == 1
    assert server.requests[0]["User-Agent"].startswith("ser_jax/")


def test_file_already_there_is_not_downloaded_again(server, tmp_path):
    url = server.start()
    (tmp_path / "a.zip").write_bytes(BODY)
    get(url, tmp_path / "a.zip")
    assert server.requests == []


def test_wrong_file_already_there_is_replaced(server, tmp_path):
    url = server.start()
    (tmp_path / "a.zip").write_bytes(b"old")
    assert get(url, tmp_path / "a.zip").read_bytes() == BODY


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_temporary_refusals_are_retried(server, tmp_path, status):
    url = server.start(refuse(status), refuse(status))
    assert get(url, tmp_path / "a.zip").read_bytes() == BODY
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_final_refusals_are_not_retried(server, tmp_path, status):
    url = server.start(always=refuse(status))
    with pytest.raises(UserError, match=f"answers {status}"):
        get(url, tmp_path / "a.zip")
    assert len(server.requests) == 1
    assert files(tmp_path) == set()


def test_waits_double_from_try_to_try(server, tmp_path, waits):
    url = server.start(always=refuse(503))
    with pytest.raises(UserError, match="503"):
        get(url, tmp_path / "a.zip", RETRY)
    assert waits == [0, 2, 4, 8, 16, 32, 64]
    assert len(server.requests) == TRIES


def test_retry_after_in_seconds_is_respected(server, tmp_path, waits, capsys):
    url = server.start(refuse(429, Retry_After="1"))
    get(url, tmp_path / "a.zip")
    assert waits == [1]
    assert "the server answers 429 Too Many Requests; retrying in 1 s" in capsys.readouterr().err


def test_retry_after_as_a_date_is_respected(server, tmp_path, waits):
    url = server.start(
        refuse(503, Retry_After=email.utils.formatdate(time.time() + 60, usegmt=True))
    )
    get(url, tmp_path / "a.zip", RETRY)
    assert waits == [pytest.approx(60, abs=10)]


def test_retry_after_that_makes_no_sense_is_ignored(server, tmp_path):
    url = server.start(refuse(429, Retry_After="soon"))
    assert get(url, tmp_path / "a.zip").read_bytes() == BODY


def test_server_that_asks_for_too_long_a_wait_ends_the_download(server, tmp_path):
    url = server.start(always=refuse(429, Retry_After="3600"))
    with pytest.raises(UserError, match="asks to wait 3600 s"):
        get(url, tmp_path / "a.zip")
    assert len(server.requests) == 1


def test_cut_connection_is_resumed_where_it_stopped(server, tmp_path):
    url = server.start(cut_connection, cut_connection)
    assert get(url, tmp_path / "a.zip").read_bytes() == BODY
    asked = [request.get("Range") for request in server.requests]
    assert asked == [None, "bytes=70000-", "bytes=140000-"]


def test_any_number_of_cuts_is_survived_while_bytes_arrive(server, tmp_path):
    url = server.start(*[lambda handler: obey(handler, cut=10_000)] * 20)
    assert get(url, tmp_path / "a.zip").read_bytes() == BODY


def test_cuts_that_bring_almost_nothing_end_the_download(server, tmp_path):
    url = server.start(always=lambda handler: obey(handler, cut=10))
    with pytest.raises(UserError, match="connection ended at 80 of 300000 bytes"):
        get(url, tmp_path / "a.zip")
    assert len(server.requests) == TRIES
    assert (tmp_path / "a.zip.part").read_bytes() == BODY[:80]


def test_server_that_ignores_ranges_and_always_cuts_ends_the_download(server, tmp_path):
    url = server.start(always=ignore_range_and_cut)
    with pytest.raises(UserError, match="connection ended"):
        get(url, tmp_path / "a.zip")
    assert len(server.requests) <= TRIES + 1


def test_part_of_an_earlier_call_is_completed(server, tmp_path):
    url = server.start()
    (tmp_path / "a.zip.part").write_bytes(BODY[:123_456])
    assert get(url, tmp_path / "a.zip").read_bytes() == BODY
    assert [request["Range"] for request in server.requests] == ["bytes=123456-"]
    assert files(tmp_path) == {"a.zip"}


def test_complete_part_needs_no_server(server, tmp_path):
    url = server.start()
    (tmp_path / "a.zip.part").write_bytes(BODY)
    assert get(url, tmp_path / "a.zip").read_bytes() == BODY
    assert server.requests == []


@pytest.mark.parametrize("part", [b"x" * 1000, b"x" * len(BODY), b"x" * (len(BODY) + 1)])
def test_wrong_part_is_discarded(server, tmp_path, part):
    url = server.start()
    (tmp_path / "a.zip.part").write_bytes(part)
    assert get(url, tmp_path / "a.zip").read_bytes() == BODY
    assert "Range" not in server.requests[-1]


def test_server_that_ignores_ranges_sends_the_whole_file_again(server, tmp_path):
    url = server.start(always=ignore_range)
    (tmp_path / "a.zip.part").write_bytes(BODY[:1000])
    assert get(url, tmp_path / "a.zip").read_bytes() == BODY
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [send_another_range, refuse(416), send_too_many])
def test_unusable_answer_to_a_range_starts_over(server, tmp_path, answer):
    url = server.start(answer)
    (tmp_path / "a.zip.part").write_bytes(BODY[:1000])
    assert get(url, tmp_path / "a.zip").read_bytes() == BODY
    assert [request.get("Range") for request in server.requests] == ["bytes=1000-", None]


@pytest.mark.parametrize("answer", [send_wrong_bytes, send_too_many])
def test_wrong_bytes_are_downloaded_once_more_from_the_start(server, tmp_path, answer):
    url = server.start(answer)
    assert get(url, tmp_path / "a.zip").read_bytes() == BODY
    assert len(server.requests) == 2


@pytest.mark.parametrize("answer", [send_wrong_bytes, send_too_many])
def test_wrong_bytes_twice_are_an_error_and_leave_nothing(server, tmp_path, answer):
    url = server.start(always=answer)
    with pytest.raises(UserError, match=f"not the 300000 bytes with MD5 {MD5}"):
        get(url, tmp_path / "a.zip")
    assert len(server.requests) == 2
    assert files(tmp_path) == set()


def test_too_few_bytes_are_completed(server, tmp_path):
    url = server.start(send_too_few)
    assert get(url, tmp_path / "a.zip").read_bytes() == BODY
    assert server.requests[1]["Range"] == "bytes=1000-"


def test_login_page_is_refused_and_the_part_kept(server, tmp_path):
    url = server.start(always=offer_another_size)
    (tmp_path / "a.zip.part").write_bytes(BODY[:1000])
    with pytest.raises(UserError, match="offers 26 bytes instead of 300000"):
        get(url, tmp_path / "a.zip")
    assert (tmp_path / "a.zip.part").read_bytes() == BODY[:1000]


def test_stalled_and_closed_connections_are_retried(server, tmp_path):
    url = server.start(stall, hang_up)
    assert get(url, tmp_path / "a.zip").read_bytes() == BODY
    assert server.requests[1]["Range"] == "bytes=50000-"


def test_trickling_server_is_dropped(server, tmp_path):
    def trickle(handler: Handler) -> None:
        send(handler, BODY[:1], length=len(BODY))
        with contextlib.suppress(OSError):
            for k in range(1, 40):
                time.sleep(0.05)
                handler.wfile.write(BODY[k : k + 1])

    url = server.start(trickle)
    started_s = time.monotonic()
    get(url, tmp_path / "a.zip", timeout_s=0.3)
    assert time.monotonic() - started_s < 1.5
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "answer", [cut_connection, ignore_range, send_another_range, refuse(503), refuse(416)]
)
def test_progress_ends_at_the_size_of_the_file(server, tmp_path, monkeypatch, answer):
    shown_mb: list[float] = []

    @contextlib.contextmanager
    def record(*description: object):
        yield lambda n, **more: shown_mb.append(n)

    monkeypatch.setattr("ser_jax.data.sources.fetch.progress", record)
    (tmp_path / "a.zip.part").write_bytes(BODY[:1000])
    get(server.start(cut_connection, answer), tmp_path / "a.zip")
    assert sum(shown_mb) == pytest.approx(len(BODY) / 1e6)


@pytest.mark.usefixtures("server")
def test_no_network_is_one_line_with_the_alternative(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.zip"
        with pytest.raises(UserError) as caught:
            fetch(url, tmp_path / "a.zip", 1, MD5, remedy="or walk", retry=HASTY)
    assert str(caught.value).startswith(f"{url}: cannot download: Connection refused;")
    assert str(caught.value).endswith("or walk")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("server")
def test_unknown_host_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.invalid/a\.zip: cannot download"):
        get("http://nowhere.invalid/a.zip", tmp_path / "a.zip")


def test_ctrl_c_keeps_what_arrived(server, tmp_path, capsys):
    def interrupt(signum, frame):
        raise KeyboardInterrupt

    def half_then_interrupt(handler: Handler) -> None:
        send(handler, BODY[:150_000], length=len(BODY))
        time.sleep(0.2)
        signal.pthread_kill(main, signal.SIGUSR1)
        time.sleep(0.2)

    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        url = server.start(half_then_interrupt)
        with pytest.raises(KeyboardInterrupt):
            get(url, tmp_path / "a.zip", timeout_s=5)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (tmp_path / "a.zip.part").read_bytes() == BODY[:150_000]
    assert "run this again" in capsys.readouterr().err
    assert get(url, tmp_path / "a.zip").read_bytes() == BODY
    assert server.requests[-1]["Range"] == "bytes=150000-"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_full_disk_is_one_line(server, tmp_path):
    url = server.start()
    (tmp_path / "a.zip.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match="No space left on device; free some space"):
        get(url, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
    assert len(server.requests) == 1


def test_file_size_limit_is_one_line_and_the_rest_comes_later(server, tmp_path):
    url = server.start()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"a\.zip\.part: cannot write: File too large"):
            get(url, tmp_path / "a.zip")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    part = (tmp_path / "a.zip.part").read_bytes()
    assert 0 < len(part) <= 200_000
    assert part == BODY[: len(part)]
    assert get(url, tmp_path / "a.zip").read_bytes() == BODY
    assert server.requests[-1]["Range"] == f"bytes={len(part)}-"


@pytest.mark.parametrize("where", ["pathlib.Path.open", "pathlib.Path.mkdir", "os.replace"])
def test_read_only_file_system_is_one_line(server, tmp_path, monkeypatch, where):
    def fail(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "x.zip")

    url = server.start()
    monkeypatch.setattr(where, fail)
    with pytest.raises(UserError, match=r"x\.zip: cannot write: Read-only file system"):
        get(url, tmp_path / "a.zip")


PASSING = [
    cut_connection, ignore_range, ignore_range_and_cut, send_too_few, send_another_range, hang_up,
    refuse(429), refuse(503), refuse(416), refuse(429, Retry_After="0"),
]  # fmt: skip


@settings(max_examples=40, deadline=None)
@example([hang_up] * 5, 0)
@example([send_another_range] * 5, 1000)
@given(st.lists(st.sampled_from(PASSING), max_size=5), st.integers(0, len(BODY) + 10))
def test_any_mixture_of_temporary_faults_ends_with_the_right_file(server, answers, n_part):
    url = server.start(*answers)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "a.zip")
        target.with_name("a.zip.part").write_bytes((BODY + bytes(10))[:n_part])
        assert get(url, target, timeout_s=5).read_bytes() == BODY
        assert files(Path(folder)) == {"a.zip"}
