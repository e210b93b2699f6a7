"""Kill ``collect`` and ``release`` at many moments, and check that nothing is lost, doubled or half done.

``python -m benchmarks.kill_campaign --moments 60 --seed 1``

Each moment begins either with an empty data folder, or with one that holds a first round of releases.
A process collects eight sources from a real server on loopback and makes two releases; it is ended by
SIGKILL, every other time at a measured step (a write, rename, link, sync or SQL statement), else at a
random time. Then the folder is inspected as it lies, and a second process finishes the work: at the same
instant of the clock, and what it leaves must be what an undisturbed run leaves, byte for byte; or a minute
later, and then the observations and figures must be the same. (A killed process is not a power cut: what it
had written reaches the disk.)
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import mmap
import os
import random
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from benchmarks import small_world
from pricing import config, pipeline, published, releases
from pricing.archive import Archive
from pricing.errors import PricingError
from pricing.fetch import Client
from pricing.store import iso
from pricing.web.app import create_app

AUDIENCES: tuple[config.Audience, ...] = ("public", "internal")
EVENTS = {"open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}
_LABEL = 200


# ------------------------------------------------------------------------------------- the work


def work(folder: Path, round_: int, minutes: int = 0) -> None:
    """Do what the scheduler does of a day: visit every source, then release to both audiences."""
    now = small_world.NOW[round_] + dt.timedelta(minutes=minutes)
    operation = config.load_operation(folder / "config.toml")
    methodology = config.load_methodology(folder / "methodology")
    with pipeline.opened(folder / "data", operation, methodology, lambda: now) as ws:
        pipeline.collect(ws, Client(operation.fetch, ws.archive, ws.now), list(operation.sources))
        pipeline.write_status(ws)
        for audience in AUDIENCES:
            pipeline.recover(ws, audience)
            last = releases.latest(ws.root(audience))
            if last is None or last.manifest["vintage"] < iso(now):
                pipeline.release(ws, audience, now, {})
        pipeline.write_status(ws)


class Steps:
    """Counts the steps of this process that change anything; ends it before a given one."""

    def __init__(self, shared: mmap.mmap, kill_at: int | None) -> None:
        self._shared, self._kill_at = shared, kill_at
        self._count, self._last = 0, ""

    def watch(self) -> None:
        """Heed writes, links, renames, syncs and SQL statements from now on, for the life of the process."""
        sync, connect = os.fsync, sqlite3.connect

        def synced(handle: int) -> None:
            self._step("fsync")
            sync(handle)

        def connected(*args: Any, **options: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **options)
            connection.set_trace_callback(self._statement)
            return connection

        os.fsync, sqlite3.connect = synced, connected  # type: ignore[assignment]
        sys.addaudithook(self._heed)

    def _heed(self, event: str, args: tuple[Any, ...]) -> None:
        if event in EVENTS and (event != "open" or _writes(args)):
            named = [a for a in args if isinstance(a, str | bytes | Path)]
            self._step(f"{event} {_told(named[-1]) if event == 'os.rename' else _told(named[0]) if named else ''}")

    def _statement(self, sql: str) -> None:
        words = " ".join(sql.split()[:3])
        if not words.startswith(("SELECT", "PRAGMA")) and words != self._last:  # a batch is one step
            self._last = words
            self._step(f"sql {words}")

    def _step(self, label: str) -> None:
        self._count += 1
        text = f"{self._count}\n{label}".encode()[:_LABEL]
        self._shared[:_LABEL] = text.ljust(_LABEL, b"\0")
        if self._count == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def _writes(args: tuple[Any, ...]) -> bool:
    mode, flags = args[1], args[2]
    if isinstance(mode, str):
        return any(c in mode for c in "wax+")
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _told(path: str | bytes | Path) -> str:
    parts = os.fsdecode(path).rpartition("/data/")[2].split("/")
    return "/".join(parts[:2] + ["…"] if len(parts) > 3 else parts)


@dataclass(frozen=True)
class Ended:
    """How a child process ended: exit code (negative: the signal), steps taken, the last one, seconds."""

    code: int
    steps: int
    last: str
    seconds: float


def run(
    folder: Path, round_: int, *, minutes: int = 0, kill_at: int | None = None, seconds: float | None = None
) -> Ended:
    """Do the work in a forked process; kill it before a step, or after some seconds, where told to.

    ``minutes`` is how late the clock stands.
    """
    shared = mmap.mmap(-1, _LABEL)
    began = time.monotonic()
    child = os.fork()
    if not child:
        code = 70
        try:
            Steps(shared, kill_at).watch()
            work(folder, round_, minutes)
            code = 0
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            code = 1 if isinstance(error, PricingError) else 70
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)  # it is a zombie at worst until the next line
    _, status = os.waitpid(child, 0)
    count, _, label = shared[:_LABEL].rstrip(b"\0").decode().partition("\n")
    return Ended(os.waitstatus_to_exitcode(status), int(count or 0), label, time.monotonic() - began)


# ----------------------------------------------------------------------------------- invariants


def half_done(folder: Path) -> list[str]:
    """Inspect a data folder as a killed process left it; return every broken promise, in words."""
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"  # a copy: looking at a database folds its log back
        shutil.copytree(folder / "data", data)
        found = _broken_store(data) if (data / "store.db").exists() else []
        for audience in AUDIENCES:
            root = data / audience
            if (root / "releases").is_dir():
                found += [f"{audience}: {line}" for line in _broken_tree(data, root)]
        if (data / "status.json").exists():
            json.loads((data / "status.json").read_bytes())
    return found


def _broken_store(data: Path) -> list[str]:
    archive = Archive(data / "documents")
    with closing(sqlite3.connect(data / "store.db")) as db:
        found = [f"store.db: {line}" for (line,) in db.execute("PRAGMA integrity_check") if line != "ok"]
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'observation'").fetchone():
            return found
        counts = db.execute(
            "SELECT d.source, d.sha256, p.new + p.revised + p.withdrawn, count(o.document) FROM document d"
            " LEFT JOIN parsed p ON p.document = d.id LEFT JOIN observation o ON o.document = d.id GROUP BY d.id"
        )
        for source, sha256, promised, stored in counts.fetchall():
            if (promised or 0) != stored:
                found.append(f"{source}: {stored} observations of a document that changed {promised}")
            if sha256 not in archive or hashlib.sha256(archive.get(sha256)).hexdigest() != sha256:
                found.append(f"{source}: document {sha256[:12]} is not in the archive")
        unread = db.execute(
            "SELECT source FROM visit WHERE etag != '' AND NOT EXISTS (SELECT 1 FROM document d JOIN parsed p"
            " ON p.document = d.id WHERE d.source = visit.source AND d.sha256 = visit.sha256)"
        )
        found += [f"{source}: has the validators of a document that was not stored" for (source,) in unread]
        return found


def _broken_tree(data: Path, root: Path) -> list[str]:
    """Check what is served: the current release verifies and answers; nothing beyond it can be seen."""
    try:
        newest = releases.latest(root)
    except PricingError as error:
        return [str(error)]
    number = newest.number if newest else 0
    found = []
    for n in releases.list_releases(root):
        report = releases.verify(root / "releases" / f"{n:06d}", data / "public" / "jwks.json")
        found += [f"release {n}: {line}" for line in report.problems]
    client = create_app(root, data / "status.json").test_client()
    if client.get("/v1/").status_code != (200 if number else 503):
        found.append(f"/v1/ answers {client.get('/v1/').status_code} at release {number}")
    if client.get(f"/v1/releases/{number + 1}").status_code not in (404, 503):
        found.append(f"release {number + 1} is served before it is pointed to")
    if newest is not None:
        listed = client.get("/v1/releases").get_json()["releases"]
        if [r["number"] for r in listed] != list(range(number, 0, -1)):
            found.append(f"listed are the releases {[r['number'] for r in listed]}, current is {number}")
        if client.get("/v1/indices/two-metals").get_json()["meta"]["release"] != number:
            found.append("an index document is of another release than the current one")
        found += _unlike_documents(root, newest)
    return found


def _unlike_documents(root: Path, release: releases.Release) -> list[str]:
    """Compare every row that may be queried with the documents of the release."""
    shown: dict[tuple[str, str, str], dict[str, float]] = {}
    for name in release.manifest["files"]:
        parts = name.removesuffix(".json").split("/")
        if not name.endswith(".json") or not parts[-1].isdecimal():
            continue
        part = json.loads((release.folder / name).read_bytes())
        kind, key = ("price", "determinations") if parts[0] == "prices" else ("index", "values")
        values = {v["period"]: v["unrounded"] for v in part[key] if v["unrounded"] is not None}
        shown.setdefault((kind, "/".join(parts[1:-2]), parts[-2]), {}).update(values)

    def rows(db: sqlite3.Connection) -> dict[tuple[str, str, str], dict[str, float]]:
        keys = db.execute("SELECT kind, name, frequency FROM dataset").fetchall()
        read = {k: published.read(db, *k, release=release.number) for k in keys}
        return {k: {v.period: v.unrounded for v in r if v.unrounded is not None} for k, r in read.items()}

    queried = {k: v for k, v in published.query(root / "published.db", rows).items() if v}
    return [f"{'/'.join(k)}: published.db and documents differ" for k in shown.keys() | queried.keys()
            if shown.get(k) != queried.get(k)]  # fmt: skip


# ------------------------------------------------------------------------------ the whole of it


def contents(folder: Path, *, signatures: bool) -> dict[str, str]:
    """Everything that a finished folder says, by name, as hashes: store, releases, queryable rows, archive.

    Numbers that SQLite gave are replaced by what they stand for. Signatures are left out where each
    run makes a key of its own; so is the table of parts, which only saves work: a part that it does not
    vouch for is written anew.
    """
    data, out = folder / "data", {}
    with closing(sqlite3.connect(data / "store.db")) as db:
        for table, sql in _CONTENTS.items():
            out[f"store {table}"] = repr(sorted(map(repr, db.execute(sql).fetchall())))
    for audience in AUDIENCES:
        root = data / audience
        out[f"{audience}/current"] = (root / "current").read_text()
        for path in sorted((root / "releases").rglob("*")):
            if path.is_file() and (signatures or path.suffix != ".jws"):
                out[f"{audience}/{path.relative_to(root)}"] = path.read_bytes().hex()
        with closing(sqlite3.connect(root / "published.db")) as db:
            out[f"{audience}/published"] = "\n".join(sorted(db.iterdump()))
    for path in sorted((data / "documents").rglob("*.gz")):
        out[f"documents/{path.relative_to(data / 'documents')}"] = path.read_bytes().hex()
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in out.items()}


def figures(folder: Path) -> dict[str, str]:
    """What a folder says but not since when: known observations, and every figure of the current releases."""
    with closing(sqlite3.connect(folder / "data" / "store.db")) as db:
        out = {"observations": repr(sorted(db.execute(_KNOWN)))}
    for audience in AUDIENCES:
        current = releases.latest(folder / "data" / audience)
        assert current is not None
        for name in current.manifest["files"]:
            if name.endswith(".json") and name.startswith(("prices", "indices")):
                document = json.loads((current.folder / name).read_bytes())
                del document["meta"]
                out[f"{audience}/{name}"] = _without_instants(json.dumps(document, sort_keys=True))
    return out


def _without_instants(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "an instant", text)


_KNOWN = """SELECT n.name, o.period, max(o.vintage) > 0, o.value, o.status FROM observation o
    JOIN series n ON n.id = o.series GROUP BY n.name, o.period"""

_CONTENTS = {
    "observation": "SELECT n.name, o.period, o.vintage, o.value, o.status, d.sha256, d.source FROM observation o"
    " JOIN series n ON n.id = o.series JOIN document d ON d.id = o.document",
    "series": "SELECT name, source, last_vintage, discontinued FROM series",
    "document": "SELECT sha256, source, url, retrieved_at, etag, size FROM document",
    "parsed": "SELECT d.sha256, d.source, register, vintage, published, new, revised, withdrawn FROM parsed p"
    " JOIN document d ON d.id = p.document",
    "precision": "SELECT d.sha256, n.name, p.decimals FROM precision p JOIN document d ON d.id = p.document"
    " JOIN series n ON n.id = p.series",
    "finding": 'SELECT vintage, source, "check", severity, series, period, message FROM finding',
    "basis": "SELECT * FROM basis",
    "release": "SELECT audience, number, vintage, released_at FROM release",
    "visit": "SELECT source, url, at, etag, sha256 FROM visit",
    "meta": "SELECT * FROM meta",
}


@dataclass(frozen=True)
class Moment:
    """One kill: where it began, what was being done, and what was wrong afterwards."""

    start: str
    round: int
    killed: str
    steps: int
    violations: list[str]


class Campaign:
    """Undisturbed runs of both rounds, and kills beside them.

    Parameters
    ----------
    folder : Path
        Empty.
    set_round : callable
        Tells the publisher what to publish.
    """

    def __init__(self, folder: Path, base: str, set_round: Callable[[int], None]) -> None:
        self._folder, self._set_round = folder, set_round
        small_world.write(folder / "empty", base)
        self._starts = {1: folder / "empty", 2: folder / "done-1"}
        self.undisturbed: dict[int, Ended] = {}
        self._expected: dict[int, tuple[dict[str, str], dict[str, str]]] = {}
        for round_, start in self._starts.items():
            done = folder / f"done-{round_}"
            shutil.copytree(start, done)
            set_round(round_)
            self.undisturbed[round_] = ended = run(done, round_)
            wrong = half_done(done)
            if ended.code or wrong:
                raise RuntimeError(f"the undisturbed run of round {round_} ended with {ended}: {wrong}")
            self._expected[round_] = contents(done, signatures=round_ > 1), figures(done)

    def moment(self, round_: int, *, minutes: int, **when: float) -> Moment:
        """Kill one run, inspect what it left, let another finish it, and compare.

        With ``minutes`` the other one comes later by the clock too: then figures are compared, else bytes.
        """
        spot = self._folder / "spot"
        shutil.rmtree(spot, ignore_errors=True)
        shutil.copytree(self._starts[round_], spot)
        self._set_round(round_)
        killed = run(spot, round_, **when)  # type: ignore[arg-type]
        wrong = half_done(spot) if (spot / "data").exists() else []
        finished = run(spot, round_, minutes=minutes)
        if finished.code:
            wrong.append(f"the next run ended with {finished.code} after {finished.last}")
        else:
            wrong += [f"afterwards: {line}" for line in half_done(spot)]
            due = self._expected[round_][bool(minutes)]
            got = figures(spot) if minutes else contents(spot, signatures=round_ > 1)
            unlike = [n for n in sorted(got.keys() | due.keys()) if got.get(n) != due.get(n)]
            wrong += [f"differs from the undisturbed run: {n}" for n in unlike]
        told = killed.last if killed.code == -signal.SIGKILL else f"not killed (exit {killed.code})"
        return Moment("empty" if round_ == 1 else "second round", round_, told, killed.steps, wrong)

    def moments(self, count: int, seed: int) -> Iterator[Moment]:
        """Kill at ``count`` moments, spread evenly over the work with a random place in each part."""
        chance = random.Random(seed)
        for i in range(count):
            round_, minutes = 1 + i % 2, chance.choice((0, 1))
            whole, share = self.undisturbed[round_], (i // 2 + chance.random()) / ((count + 1) // 2)
            if i // 2 % 2:
                yield self.moment(round_, minutes=minutes, seconds=share * whole.seconds)
            else:
                yield self.moment(round_, minutes=minutes, kill_at=1 + int(share * whole.steps))


@contextmanager
def campaign() -> Iterator[Campaign]:
    """Set up a publisher in a process of its own and the undisturbed runs in a folder that goes away."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    round_now = mmap.mmap(-1, 1)
    server = small_world.publisher(lambda: round_now[0])
    process = os.fork()  # before any thread: the children that are killed are forked from a process without
    if not process:
        try:
            server.serve_forever()
        finally:
            os._exit(0)
    base = f"http://127.0.0.1:{server.server_port}"
    server.socket.close()

    def set_round(n: int) -> None:
        round_now[0] = n

    try:
        with tempfile.TemporaryDirectory(prefix="lodemark-kill-") as scratch:
            yield Campaign(Path(scratch), base, set_round)
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def main() -> int:
    """Run the campaign, print what was killed and what was broken; 1 when anything was."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--moments", type=int, default=60)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    began, moments = time.monotonic(), []
    with campaign() as made:
        for n, moment in enumerate(made.moments(given.moments, given.seed), start=1):
            moments.append(moment)
            if not given.json:
                state = "ok" if not moment.violations else "; ".join(moment.violations)
                print(f"{n:>4}  {moment.start:<13} {moment.steps:>4} steps  {moment.killed:<58} {state}")
        whole = made.undisturbed
    if given.json:
        print(json.dumps([asdict(m) for m in moments]))
    else:
        stages = Counter(_stage(m.killed) for m in moments)
        print(f"\n{len(moments)} moments in {time.monotonic() - began:.0f} s; an undisturbed run takes "
              + ", ".join(f"{e.steps} steps and {e.seconds:.2f} s" for e in whole.values()))  # fmt: skip
        print("killed during: " + ", ".join(f"{stage} {n}" for stage, n in stages.most_common()))
        print(f"violations: {sum(bool(m.violations) for m in moments)}")
    return int(any(m.violations for m in moments))


def _stage(killed: str) -> str:
    for text, stage in (("not killed", "nothing (it was done)"), ("sql", "a transaction"), ("documents/", "archiving"),
                        ("releases", "writing a release"), ("objects", "writing a release")):  # fmt: skip
        if text in killed:
            return stage
    return "other writes" if killed else "opening"


if __name__ == "__main__":
    assert threading.active_count() == 1
    sys.exit(main())
