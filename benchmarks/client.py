"""The smallest HTTP client that keeps a server busy: raw sockets, one request at a time on each."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

CONNECTIONS = 4
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


def request_bytes(path: str, headers: Mapping[str, str] | None = None) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{k}: {v}" for k, v in (headers or {}).items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def get(port: int, path: str, headers: Mapping[str, str] | None = None) -> Reply:
    """One request, whole reply."""
    with socket.create_connection(("127.0.0.1", port), 30) as s:
        raw = _read(s, request_bytes(path, headers))
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    named = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in rest)}
    return Reply(int(first.split()[1]), named, _joined(body) if "transfer-encoding" in named else body)


def storm(port: int, path: str, headers: Mapping[str, str], count: int, expect: int) -> None:
    """Send ``count`` requests over four kept connections. Raises RuntimeError at any other status."""
    sent = request_bytes(path, headers)
    wanted = str(expect).encode()

    def work() -> None:
        with socket.create_connection(("127.0.0.1", port), 60) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(count // CONNECTIONS):
                reply = _read(s, sent)
                if reply[9:12] != wanted:
                    raise RuntimeError(f"{path} should answer {expect}, said {reply[:200]!r}")

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for done in [pool.submit(work) for _ in range(CONNECTIONS)]:
            done.result()


def _read(s: socket.socket, sent: bytes) -> bytes:
    s.sendall(sent)
    raw = s.recv(262_144)
    while b"\r\n\r\n" not in raw:
        raw += _more(s)
    head_end = raw.index(b"\r\n\r\n") + 4
    found = _LENGTH.search(raw[:head_end])
    if found is None and _CHUNKED.search(raw[:head_end]):
        while not raw.endswith(b"\r\n0\r\n\r\n"):  # JSON has no line breaks of its own that could look like this
            raw += _more(s)
        return raw
    missing = int(found[1]) - (len(raw) - head_end) if found else 0
    parts = [raw]
    while missing > 0:
        parts.append(_more(s))
        missing -= len(parts[-1])
    return b"".join(parts)


def _joined(chunks: bytes) -> bytes:
    body = b""
    while True:
        size, _, chunks = chunks.partition(b"\r\n")
        if not int(size, 16):
            return body
        body, chunks = body + chunks[: int(size, 16)], chunks[int(size, 16) + 2 :]


def _more(s: socket.socket) -> bytes:
    part = s.recv(262_144)
    if not part:
        raise RuntimeError("the server closed a connection in the middle of an answer")
    return part
