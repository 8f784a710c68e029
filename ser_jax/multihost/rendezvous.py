"""How processes that train together find each other, and how JAX' own connection is led."""

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ser_jax.errors import UserError, check
from ser_jax.multihost.watch import Link, Peer

NOTICE_S = 5.0
"""After this long process 0 says for whom it waits."""


def admit(
    listener: socket.socket,
    me: Peer,
    welcome: dict[str, Any],
    *,
    start_s: float,
    counted_by: str,
    remedy: str,
) -> tuple[dict[int, Link], dict[int, Peer]]:
    """On process 0: wait until all others have presented themselves, and welcome them.

    Args:
      listener, me, welcome: where they come, who this is, and what they are told.
      start_s: how long to wait.
      counted_by: what says how many there are, and its value, for messages.
      remedy: what to do where they do not come.

    Raises:
      UserError: one did not come within `start_s`, or two do not agree on who they are.
    """
    links: dict[int, Link] = {}
    peers = {0: me}
    try:
        _gather(listener, links, peers, start_s, counted_by, remedy)
    except UserError as error:
        for link in links.values():
            link.send({"refused": str(error)})
        raise
    for link in links.values():
        link.send(welcome | {"peers": [asdict(peer) for peer in peers.values()]})
    return links, peers


def _gather(
    listener: socket.socket,
    links: dict[int, Link],
    peers: dict[int, Peer],
    start_s: float,
    counted_by: str,
    remedy: str,
) -> None:
    count = peers[0].count
    now_s = time.monotonic()
    notice_s, until_s = now_s + NOTICE_S, now_s + start_s
    while len(peers) < count:
        listener.settimeout(max(0.01, min(notice_s, until_s) - time.monotonic()))
        try:
            link = Link(listener.accept()[0])
        except TimeoutError as error:
            missing = " ".join(str(process) for process in range(count) if process not in peers)
            if time.monotonic() >= until_s:
                raise UserError(
                    f"{counted_by}: no process {missing} within {start_s:g} s; {remedy}"
                ) from error
            waiting = f"{counted_by}: waiting up to {start_s:g} s for process {missing}"
            print(f"{waiting}; if none is to come, {remedy}", file=sys.stderr, flush=True)
            notice_s = until_s
            continue
        try:
            peer = Peer(**(link.read(10.0) or {}))
        except (TimeoutError, TypeError, ValueError):
            link.close()  # a stranger
            continue
        if complaint := _find_conflict(peer, peers):
            link.send({"refused": complaint})
            raise UserError(complaint)
        links[peer.process], peers[peer.process] = link, peer


def _find_conflict(peer: Peer, peers: dict[int, Peer]) -> str | None:
    count = peers[0].count
    if peer.count != count:
        return (
            f"parallel.num_processes={count} on process 0, but {peer.count} on {peer}; give the "
            "same number to all"
        )
    if peer.process in peers:
        return (
            f"parallel.process_id={peer.process}: given twice, to pid {peer.pid} on {peer.host} "
            f"and pid {peers[peer.process].pid} on {peers[peer.process].host}; number the "
            f"processes from 0 to {count - 1}"
        )
    return None


def present_oneself(
    address: tuple[str, int], me: Peer, *, start_s: float
) -> tuple[Link, dict[str, Any], dict[int, Peer]]:
    """On the others: present oneself to process 0, which may start later.

    Returns:
      The connection, the welcome of process 0, all processes.

    Raises:
      UserError: nobody there within `start_s`, or process 0 refuses.
    """
    where = f"parallel.coordinator={address[0]}:{address[1]}"
    until_s = time.monotonic() + start_s
    while True:
        try:
            link = Link(socket.create_connection(address, timeout=10))
            break
        except OSError as error:
            check(
                time.monotonic() < until_s,
                f"{where}: no answer from process 0 within {start_s:g} s "
                f"({error.strerror or error}); start process 0 there, with the same address, "
                "and open the port between the hosts",
            )
            time.sleep(0.2)
    link.send(asdict(me))
    try:
        welcome = link.read(max(1.0, until_s - time.monotonic() + 5))
    except TimeoutError:
        welcome = {}
    if welcome is None or "peers" not in welcome:
        link.close()
        default = f"{where}: process 0 has ended, or another program answers; see what it says"
        raise UserError((welcome or {}).get("refused", default))
    peers = {peer["process"]: Peer(**peer) for peer in welcome["peers"]}
    return link, welcome, peers


def start_relay(address: tuple[str, int]) -> int:
    """Pass connections on to `address`, but never tell this side that the far one has closed.

    JAX' client aborts the program in the moment in which its connection to a dead coordinator
    closes, before the watch can say who died. Behind this relay it notices by its heartbeats.

    Returns:
      The port on 127.0.0.1.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            near = listener.accept()[0]
            try:
                far = socket.create_connection(address, timeout=10)
            except OSError:
                near.close()  # JAX tries again
                continue
            far.settimeout(None)
            for side in (near, far):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _start(_pump, far, near, lambda: None)
            _start(_pump, near, far, far.close)

    _start(serve)
    return listener.getsockname()[1]


def _start(function: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, at_end: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    at_end()
