"""The smallest HTTP client that keeps a server busy: raw sockets, one request at a time on each."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass

CONNECTIONS = 4
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


def request_bytes(path: str, headers: Mapping[str, str] | None = None) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{k}: {v}" for k, v in (headers or {}).items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def get(port: int, path: str, headers: Mapping[str, str] | None = None) -> Reply:
    """One request, whole reply; answers with Content-Length or without a body only."""
    with socket.create_connection(("127.0.0.1", port), 30) as s:
        raw = _read(s, request_bytes(path, headers))
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in rest)
    return Reply(int(first.split()[1]), {k.lower(): v.strip() for k, _, v in pairs}, body)


def storm(port: int, path: str, headers: Mapping[str, str], count: int, expect: int) -> None:
    """Send ``count`` requests over four kept connections. Raises RuntimeError at any other status."""
    sent = request_bytes(path, headers)
    wanted = f"HTTP/1.1 {expect} ".encode()
    wrong: list[bytes] = []

    def work() -> None:
        with socket.create_connection(("127.0.0.1", port), 60) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(count // CONNECTIONS):
                reply = _read(s, sent)
                if not reply.startswith(wanted):
                    wrong.append(reply[:200])
                    return

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise RuntimeError(f"{path} should answer {expect}, said {wrong[0]!r}")


def _read(s: socket.socket, sent: bytes) -> bytes:
    s.sendall(sent)
    raw = s.recv(262_144)
    while b"\r\n\r\n" not in raw:
        raw += _more(s)
    head_end = raw.index(b"\r\n\r\n") + 4
    found = _LENGTH.search(raw[:head_end])
    missing = int(found[1]) - (len(raw) - head_end) if found else 0
    parts = [raw]
    while missing > 0:
        parts.append(_more(s))
        missing -= len(parts[-1])
    return b"".join(parts)


def _more(s: socket.socket) -> bytes:
    part = s.recv(262_144)
    if not part:
        raise RuntimeError("the server closed a connection in the middle of an answer")
    return part
