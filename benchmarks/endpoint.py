"""CPU per request of one index, against a bare Flask view and against Datasette."""

from __future__ import annotations

import base64
import json
import sqlite3
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import client, demo
from benchmarks.measure import ROOT, Line, Pairs, Result, Server, in_turn, serving

INDEX = "critical-minerals"
PATH = f"/v1/indices/{INDEX}"
REQUESTS, PAIRS = 4_000, 7
DATASETTE_REQUESTS = 400
AIM_BARE, AIM_DATASETTE = 1.15, 15.0


def run() -> Result:
    """Measure; the three servers run side by side, one asked at a time."""
    made = demo.played()
    result = Result("Endpoint: CPU per request, server process tree")
    with tempfile.TemporaryDirectory() as folder, serving(lambda port: _ours(made.data, port)) as ours:
        scratch = Path(folder)
        kept = capture(ours.port, scratch / "bare.json")
        rows = _table(json.loads(base64.b64decode(kept["identity"]["body"])), scratch / "index.db")
        table = f"/index/points.json?_shape=array&_size={rows}"
        with (
            serving(_bare, BARE=str(scratch / "bare.json")) as bare,
            serving(lambda port: _datasette(scratch / "index.db", port)) as datasette,
        ):
            result.lines += _against_bare(ours, bare, kept)
            result.lines.append(_against_datasette(ours, datasette, table, rows))
        result.lines.append(Line("memory of the worker afterwards", f"{ours.memory_mb():.0f} MB"))
    sizes = {k: len(base64.b64decode(kept[k]["body"])) for k in ("identity", "gzip")}
    result.notes = [
        f"{PATH} of the demonstration, {sizes['identity']:,} bytes, gzip {sizes['gzip']:,}; granian, 1 worker each; "
        f"{client.CONNECTIONS} kept connections, {REQUESTS:,} requests a batch, {PAIRS} pairs.",
        "Bare: a Flask view with both bodies in memory that compares the ETag; bytes, headers and status were "
        "checked to be the same (but for Last-Modified, which Flask takes off a 304).",
        f"Datasette: the {rows} values of the same document, {table}, {DATASETTE_REQUESTS} requests a batch; it has "
        "no 304 and sends fewer bytes (no weights, no coverage).",
    ]
    return result


# ------------------------------------------------------------------------------------- servers


def _ours(data: Path, port: int) -> list[str | Path]:
    return [sys.executable, ROOT / "service.py", "--data", data, "serve",
            "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]  # fmt: skip


def _bare(port: int) -> list[str]:
    code = (
        "from granian import Granian\nfrom granian.constants import Interfaces\n"
        f"Granian('benchmarks.bare:from_environment', factory=True, address='127.0.0.1', port={port},"
        " interface=Interfaces.WSGI, workers=1, websockets=False, log_enabled=False).serve()"
    )
    return [sys.executable, "-c", code]


def _datasette(database: Path, port: int) -> list[str | Path]:
    return [sys.executable, "-m", "datasette", "serve", "--immutable", database, "--host", "127.0.0.1",
            "--port", str(port), "--setting", "max_returned_rows", "10000"]  # fmt: skip


def capture(port: int, into: Path) -> dict[str, Any]:
    """Write down what the endpoint answers, for the bare view to repeat."""
    kept: dict[str, Any] = {"path": PATH}
    for name, headers in _VARIANTS.items():
        full = client.get(port, PATH, headers)
        unchanged = client.get(port, PATH, headers | {"If-None-Match": full.headers["etag"]})
        if (full.status, unchanged.status) != (200, 304):
            raise RuntimeError(f"{PATH} answered {full.status} and {unchanged.status} instead of 200 and 304")
        kept[name] = {
            "body": base64.b64encode(full.body).decode(),
            "full": _own(full.headers),
            "unchanged": _own(unchanged.headers),
        }
    into.write_text(json.dumps(kept))
    return kept


_VARIANTS: dict[str, dict[str, str]] = {"identity": {}, "gzip": {"Accept-Encoding": "gzip"}}


def _own(headers: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in headers.items() if k not in ("server", "date")}  # granian's own


def _comparable(reply: client.Reply) -> tuple[int, dict[str, str], bytes]:
    """All that must be the same. Flask itself takes Last-Modified off a 304; the endpoint leaves it on."""
    dropped = "last-modified" if reply.status == 304 else ""
    return reply.status, {k: v for k, v in _own(reply.headers).items() if k != dropped}, reply.body


def _table(document: dict[str, Any], database: Path) -> int:
    """Put the values of the document into a SQLite file; returns how many there are."""
    rows = [
        (frequency, v["period"], v["value"], v["unrounded"], v["status"])
        for frequency, values in document["values"].items()
        for v in values
    ]
    with sqlite3.connect(database) as db:
        db.execute("CREATE TABLE points (frequency TEXT, period TEXT, value REAL, unrounded REAL, status TEXT)")
        db.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?)", rows)
    db.close()
    return len(rows)


# -------------------------------------------------------------------------------- measurements


def _per_request(server: Server, path: str, headers: Mapping[str, str], count: int, status: int) -> float:
    before = server.cpu()
    client.storm(server.port, path, headers, count, status)
    return (server.cpu() - before) / count


def _against_bare(ours: Server, bare: Server, kept: dict[str, Any]) -> list[Line]:
    lines = []
    for name, headers in _VARIANTS.items():
        known = headers | {"If-None-Match": kept[name]["full"]["etag"]}
        for status, sent in ((200, headers), (304, known)):
            same(ours.port, bare.port, sent)
            seen = in_turn(
                partial(_per_request, ours, PATH, sent, REQUESTS, status),
                partial(_per_request, bare, PATH, sent, REQUESTS, status),
                PAIRS,
            )
            lines.append(_line(f"{status} {name}, bare Flask", seen, seen.spread(), f"≤ {AIM_BARE}", AIM_BARE))
    return lines


def _line(what: str, seen: Pairs, ratio: str, aim: str, at_most: float) -> Line:
    ours, theirs = (f"{sorted(s)[len(s) // 2] * 1e6:,.0f} µs" for s in (seen.ours, seen.theirs))
    return Line(what, ours, theirs, ratio, aim, seen.ratio <= at_most)


def same(ours: int, bare: int, headers: Mapping[str, str]) -> None:
    """Raise RuntimeError unless both answer the same status, headers and bytes."""
    a, b = client.get(ours, PATH, headers), client.get(bare, PATH, headers)
    if _comparable(a) != _comparable(b):
        raise RuntimeError(f"not the same answer: {a.status} {a.headers} against {b.status} {b.headers}")


def _against_datasette(ours: Server, datasette: Server, table: str, rows: int) -> Line:
    reply = client.get(datasette.port, table)
    if reply.status != 200 or len(json.loads(reply.body)) != rows:
        raise RuntimeError(f"Datasette answered {reply.status}: {reply.body[:200]!r}")
    seen = in_turn(
        partial(_per_request, ours, PATH, {}, REQUESTS, 200),
        partial(_per_request, datasette, table, {}, DATASETTE_REQUESTS, 200),
        PAIRS,
    )
    times_cheaper = seen.spread(inverse=True) + " ×"
    return _line("200 identity, Datasette", seen, times_cheaper, f"≥ {AIM_DATASETTE:.0f} ×", 1 / AIM_DATASETTE)
