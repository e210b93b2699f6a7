"""The working store: one SQLite file, append-only, read as it was known at any instant.

One process writes at a time (``pricing.pipeline`` holds the lock of the data folder). Everything one
document says is written in one transaction, so a kill at any moment leaves the document either
wholly stored or not at all.
"""

from __future__ import annotations

import datetime as dt
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import pandas as pd
import sqlite_utils
import stamina
from sqlite_utils import Migrations

from pricing.errors import StoreError
from pricing.quality import Finding
from pricing.watching import Judged, Watch

Kind = Literal["live", "replayed", "simulated"]

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
SAME_INSTANT = 1_000  # microseconds: documents with the same stamp follow each other within this
TELLING = 10  # figures of one series from which their decimals say how precise a document is
RELATIVE_TOLERANCE = 1e-9  # below this share of the value a difference is arithmetic, not a revision
_FEW_PLACES = 7  # decimals that are counted for a whole column at once; more are read off each value
_EXACT = 2.0**51  # below, a decimal scaled to a whole number is that number

migrations = Migrations("lodemark")


@migrations()
def m001_initial(db: sqlite_utils.Database) -> None:
    """First schema."""
    for statement in _SCHEMA.split(";"):
        if statement.strip():
            db.execute(statement)


@migrations()
def m002_customs(db: sqlite_utils.Database) -> None:
    """Cells of customs statistics: value and mass of one code, reporter and partner, by month and vintage."""
    for statement in _CUSTOMS.split(";"):
        db.execute(statement)


@migrations()
def m003_decisions(db: sqlite_utils.Database) -> None:
    """The log of decisions; it and the observations refuse to be edited, by whatever hand."""
    db.execute("CREATE TABLE decision (number INTEGER PRIMARY KEY, at INTEGER NOT NULL, record TEXT NOT NULL) STRICT")
    db.execute(
        "CREATE TRIGGER decision_gapless BEFORE INSERT ON decision WHEN NEW.number <>"
        " (SELECT coalesce(max(number), 0) + 1 FROM decision)"
        " BEGIN SELECT RAISE(ABORT, 'decisions are numbered without a gap'); END"
    )
    for table in ("decision", "observation"):
        for what in ("UPDATE", "DELETE"):
            db.execute(
                f"CREATE TRIGGER {table}_no_{what.lower()} BEFORE {what} ON {table}"
                f" BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )


@migrations()
def m004_forecasts(db: sqlite_utils.Database) -> None:
    """Forecasts as they were published, and backtests with the decision that followed."""
    db.execute(
        "CREATE TABLE forecast (audience TEXT NOT NULL, name TEXT NOT NULL, frequency TEXT NOT NULL,"
        " origin TEXT NOT NULL, release INTEGER NOT NULL, document TEXT NOT NULL,"
        " PRIMARY KEY (audience, name, frequency, origin, release)) STRICT, WITHOUT ROWID"
    )
    db.execute(
        "CREATE TABLE backtest (audience TEXT NOT NULL, name TEXT NOT NULL, frequency TEXT NOT NULL,"
        " vintage INTEGER NOT NULL, document TEXT NOT NULL,"
        " PRIMARY KEY (audience, name, frequency, vintage)) STRICT, WITHOUT ROWID"
    )


@migrations()
def m005_shocks(db: sqlite_utils.Database) -> None:
    """Where the detector stands with each series it watches, and how it judged each observation."""
    db.execute(
        "CREATE TABLE watch (audience TEXT NOT NULL, name TEXT NOT NULL, frequency TEXT NOT NULL,"
        " content TEXT NOT NULL, count INTEGER NOT NULL, state TEXT NOT NULL,"
        " PRIMARY KEY (audience, name, frequency)) STRICT, WITHOUT ROWID"
    )
    db.execute(
        "CREATE TABLE judged (audience TEXT NOT NULL, name TEXT NOT NULL, frequency TEXT NOT NULL,"
        " period TEXT NOT NULL, value REAL NOT NULL, verdict TEXT,"
        " PRIMARY KEY (audience, name, frequency, period)) STRICT, WITHOUT ROWID"
    )
    db.execute("CREATE INDEX judged_flagged ON judged (audience, name, frequency, period) WHERE verdict IS NOT NULL")


@migrations()
def m006_alerts(db: sqlite_utils.Database) -> None:
    """Alerts as they were told, and what is to be sent of them to whom."""
    for statement in _ALERTS.split(";"):
        db.execute(statement)


@migrations()
def m007_acknowledged(db: sqlite_utils.Database) -> None:
    """Alerts that somebody has seen to; and the order in which messages are due."""
    db.execute(
        "CREATE TABLE acknowledged (thread TEXT PRIMARY KEY, at INTEGER NOT NULL, actor TEXT NOT NULL,"
        " comment TEXT NOT NULL) STRICT, WITHOUT ROWID"
    )
    db.execute("CREATE INDEX outbox_due ON outbox (state, due)")


@migrations()
def m008_outbox(db: sqlite_utils.Database) -> None:
    """What the worker of the outbox looks for: the next message, a whole one, earlier ones of a thread, the latest."""
    for statement in _OUTBOX.split(";"):
        db.execute(statement)


_ALERTS = """
CREATE TABLE alert (identifier TEXT PRIMARY KEY, audience TEXT NOT NULL, thread TEXT NOT NULL, version INTEGER NOT NULL,
  sent INTEGER NOT NULL, document TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (id INTEGER PRIMARY KEY, alert TEXT NOT NULL, subscriber TEXT NOT NULL, channel TEXT NOT NULL,
  address TEXT NOT NULL, digest TEXT NOT NULL DEFAULT '', rank INTEGER NOT NULL, due INTEGER NOT NULL,
  state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, claimed_by TEXT, claimed_at INTEGER,
  message_id TEXT NOT NULL, outcome TEXT NOT NULL DEFAULT '', ended_at INTEGER,
  UNIQUE (alert, subscriber, channel)) STRICT;
CREATE TABLE suppressed (address TEXT PRIMARY KEY, since INTEGER NOT NULL, reason TEXT NOT NULL) STRICT, WITHOUT ROWID
"""

_OUTBOX = """
CREATE INDEX outbox_next ON outbox (state, rank DESC, id);
CREATE INDEX outbox_message ON outbox (message_id);
CREATE INDEX outbox_of ON outbox (subscriber, channel, state, ended_at);
CREATE INDEX outbox_last ON outbox (state, ended_at);
CREATE INDEX alert_thread ON alert (thread, version)
"""

_CUSTOMS = """
CREATE TABLE cell (
    id INTEGER PRIMARY KEY, source TEXT NOT NULL, code TEXT NOT NULL, reporter TEXT NOT NULL, partner TEXT NOT NULL,
    UNIQUE (source, code, reporter, partner)) STRICT;
CREATE TABLE declaration (
    cell INTEGER NOT NULL REFERENCES cell (id), period TEXT NOT NULL, vintage INTEGER NOT NULL, value REAL, kg REAL,
    status TEXT NOT NULL, document INTEGER NOT NULL, PRIMARY KEY (cell, period, vintage)) STRICT, WITHOUT ROWID;
CREATE TABLE reading (
    source TEXT NOT NULL, url TEXT NOT NULL, code TEXT NOT NULL, first TEXT NOT NULL, last TEXT NOT NULL,
    vintage INTEGER NOT NULL, register TEXT NOT NULL, PRIMARY KEY (source, code, first, last, url, vintage)
    ) STRICT, WITHOUT ROWID;
CREATE TABLE partner (
    source TEXT NOT NULL, code TEXT NOT NULL, name TEXT NOT NULL,
    PRIMARY KEY (source, code)) STRICT, WITHOUT ROWID
"""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE document (
    id INTEGER PRIMARY KEY, sha256 TEXT NOT NULL, source TEXT NOT NULL, url TEXT NOT NULL,
    retrieved_at TEXT NOT NULL, http_status INTEGER, content_type TEXT NOT NULL, etag TEXT NOT NULL,
    last_modified TEXT NOT NULL, size INTEGER NOT NULL, UNIQUE (sha256, source)) STRICT;
CREATE TABLE visit (
    source TEXT NOT NULL, url TEXT NOT NULL, at TEXT NOT NULL, outcome TEXT NOT NULL, message TEXT NOT NULL,
    etag TEXT NOT NULL, last_modified TEXT NOT NULL, sha256 TEXT NOT NULL, succeeded_at TEXT NOT NULL,
    PRIMARY KEY (source, url)) STRICT, WITHOUT ROWID;
CREATE TABLE parsed (
    document INTEGER NOT NULL REFERENCES document (id), register TEXT NOT NULL, vintage INTEGER NOT NULL,
    url TEXT NOT NULL, published TEXT, new INTEGER NOT NULL, revised INTEGER NOT NULL, withdrawn INTEGER NOT NULL,
    PRIMARY KEY (document, register, vintage)) STRICT, WITHOUT ROWID;
CREATE TABLE series (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, source TEXT NOT NULL, last_vintage INTEGER,
    decimals INTEGER NOT NULL DEFAULT 0, discontinued INTEGER) STRICT;
CREATE TABLE precision (
    document INTEGER NOT NULL, series INTEGER NOT NULL, decimals INTEGER NOT NULL,
    PRIMARY KEY (document, series)) STRICT, WITHOUT ROWID;
CREATE TABLE observation (
    series INTEGER NOT NULL, period TEXT NOT NULL, vintage INTEGER NOT NULL, value REAL,
    status TEXT NOT NULL, document INTEGER NOT NULL, PRIMARY KEY (series, period, vintage)) STRICT, WITHOUT ROWID;
CREATE TABLE finding (
    id INTEGER PRIMARY KEY, vintage INTEGER NOT NULL, source TEXT NOT NULL, document INTEGER,
    "check" TEXT NOT NULL, severity TEXT NOT NULL, series TEXT, period TEXT,
    message TEXT NOT NULL, evidence TEXT NOT NULL) STRICT;
CREATE TABLE basis (
    audience TEXT NOT NULL, market TEXT NOT NULL, frequency TEXT NOT NULL, effective TEXT NOT NULL,
    origin TEXT NOT NULL, ratio REAL NOT NULL, common INTEGER NOT NULL, via TEXT NOT NULL,
    first TEXT NOT NULL, last TEXT NOT NULL, vintage INTEGER NOT NULL,
    PRIMARY KEY (audience, market, frequency, effective, origin)) STRICT, WITHOUT ROWID;
CREATE TABLE release (
    audience TEXT NOT NULL, number INTEGER NOT NULL, vintage INTEGER NOT NULL, released_at TEXT NOT NULL,
    manifest TEXT NOT NULL, PRIMARY KEY (audience, number)) STRICT, WITHOUT ROWID;
CREATE TABLE part (
    audience TEXT NOT NULL, name TEXT NOT NULL, fingerprint TEXT NOT NULL, sha256 TEXT NOT NULL,
    PRIMARY KEY (audience, name)) STRICT, WITHOUT ROWID;
CREATE TABLE job_run (
    id INTEGER PRIMARY KEY, job TEXT NOT NULL, due TEXT NOT NULL, started_at TEXT NOT NULL,
    ended_at TEXT, outcome TEXT, message TEXT) STRICT
"""


def micros(instant: dt.datetime) -> int:
    """Microseconds since 1970, UTC: how vintages are stored. Raises StoreError for a naive time."""
    if instant.tzinfo is None:
        raise StoreError(f"an instant without a time zone: {instant.isoformat()}")
    return (instant - EPOCH) // dt.timedelta(microseconds=1)


def instant(microseconds: int) -> dt.datetime:
    """Inverse of ``micros``."""
    return EPOCH + dt.timedelta(microseconds=microseconds)


def iso(moment: dt.datetime) -> str:
    """UTC in one fixed-width form, so that text order is time order."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True)
class Changes:
    """What one document changed, counted in observations."""

    new: int = 0
    revised: int = 0
    withdrawn: int = 0
    unchanged: int = 0
    discontinued: tuple[str, ...] = ()


class Store:
    """The working store of one data folder.

    Parameters
    ----------
    path : Path or str
        The SQLite file, or ``":memory:"``. Made when missing.
    kind : {"live", "simulated"} or None
        What a new database is for. A database never changes from real to simulated or back. None
        takes an old one as it is, for looking only.

    Raises
    ------
    StoreError
        When the file is of the other kind, or is no database of ours.
    """

    def __init__(self, path: Path | str, kind: Literal["live", "simulated"] | None = "live") -> None:
        self.path = path
        self._conn = sqlite3.connect(path, isolation_level=None, timeout=30)
        self.db = sqlite_utils.Database(self._conn)
        try:
            # The switch to WAL does not wait for another process that opens a new file at the same moment.
            for attempt in stamina.retry_context(
                on=_is_locked, attempts=None, timeout=30, wait_initial=0.02, wait_max=0.5
            ):
                with attempt:
                    self._prepare()
        except sqlite3.DatabaseError as error:
            what = "is locked by another process" if _is_locked(error) else "is not a Lodemark database"
            raise StoreError(f"{path} {what}: {error}") from error
        self._conn.execute("INSERT OR IGNORE INTO meta VALUES ('kind', ?)", (kind or "live",))
        if kind is not None and (self.kind == "simulated") != (kind == "simulated"):
            raise StoreError(
                f"{path} holds {'simulated' if self.kind == 'simulated' else 'real'} prices; "
                f"simulated and real prices never meet: name another data folder with --data"
            )

    def _prepare(self) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
            self._conn.execute(f"PRAGMA {pragma}").fetchall()
        migrations.apply(self.db)

    # ---------------------------------------------------------------- state

    @property
    def kind(self) -> Kind:
        """``live``, ``replayed`` or ``simulated``."""
        kind: Kind = self._conn.execute("SELECT value FROM meta WHERE key = 'kind'").fetchone()[0]
        return kind

    @property
    def salt(self) -> str:
        """What the hashes of closed documents are salted with in public; drawn once for each database."""
        self._conn.execute("INSERT OR IGNORE INTO meta VALUES ('salt', ?)", (secrets.token_hex(32),))
        salt: str = self._conn.execute("SELECT value FROM meta WHERE key = 'salt'").fetchone()[0]
        return salt

    def mark_replayed(self) -> None:
        """Say for life that kept files were loaded with the vintages of their stamps."""
        self._conn.execute("UPDATE meta SET value = 'replayed' WHERE key = 'kind' AND value = 'live'")

    def note(self, key: str, default: str = "") -> str:
        """Return what ``set_note`` kept under a key."""
        row = self._conn.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else default

    def set_note(self, key: str, value: str) -> None:
        """Keep a short text of operation; an empty one is forgotten. Keys that the store itself uses are refused."""
        if key in ("kind", "salt"):
            raise StoreError(f"{key!r} is the store's own")
        self._conn.execute("DELETE FROM meta WHERE key = ?", (key,))
        if value:
            self._conn.execute("INSERT INTO meta VALUES (?, ?)", (key, value))

    def close(self) -> None:
        """Close the database; the write-ahead log is folded back."""
        self._conn.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One write transaction, durable when it ends, undone when it raises; within another it is a part of it."""
        if self._conn.in_transaction:
            yield
            return
        self._conn.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._conn.execute("COMMIT")
        except BaseException:
            self._conn.rollback()
            raise

    # ------------------------------------------------------------ documents

    def visit(self, source: str, url: str) -> Mapping[str, str]:
        """Return the last visit to an address: validators and hash, empty text where there was none."""
        row = next(self.db.query("SELECT * FROM visit WHERE source = ? AND url = ?", (source, url)), None)
        return row or {
            "etag": "",
            "last_modified": "",
            "sha256": "",
            "at": "",
            "outcome": "",
            "succeeded_at": "",
        }

    def visits(self) -> list[dict[str, Any]]:
        """Return the last visit to every address."""
        return list(self.db.query("SELECT * FROM visit ORDER BY source, url"))

    def record_visit(
        self, source: str, url: str, at: dt.datetime, outcome: str, message: str = "", **seen: str
    ) -> None:
        """Note how a visit ended; what is not given (etag, last_modified, sha256) stays as it was."""
        before = self.visit(source, url)
        row = {k: seen.get(k, before[k]) for k in ("etag", "last_modified", "sha256")}
        succeeded = before["succeeded_at"] if outcome in ("failed", "refused") else iso(at)
        self.db.table("visit").upsert(
            {
                "source": source,
                "url": url,
                "at": iso(at),
                "outcome": outcome,
                "message": message,
                "succeeded_at": succeeded,
                **row,
            },
            pk=("source", "url"),
        )

    def add_document(
        self,
        source: str,
        sha256: str,
        *,
        url: str,
        retrieved_at: dt.datetime,
        size: int,
        http_status: int | None = None,
        content_type: str = "",
        etag: str = "",
        last_modified: str = "",
    ) -> int:
        """Register archived bytes as a document of a source; returns its id. Idempotent."""
        self._conn.execute(
            "INSERT OR IGNORE INTO document"
            " (sha256, source, url, retrieved_at, http_status, content_type, etag, last_modified, size)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (sha256, source, url, iso(retrieved_at), http_status, content_type, etag, last_modified, size),
        )
        found = self._conn.execute("SELECT id FROM document WHERE sha256 = ? AND source = ?", (sha256, source))
        return int(found.fetchone()[0])

    def documents(self, as_of: dt.datetime | None = None) -> list[dict[str, Any]]:
        """Documents that were parsed by ``as_of``, oldest first, with their counts."""
        return list(
            self.db.query(
                "SELECT d.*, p.vintage, p.published, p.new, p.revised, p.withdrawn"
                " FROM parsed p JOIN document d ON d.id = p.document WHERE p.vintage <= ? ORDER BY p.vintage, d.id",
                (_limit(as_of),),
            )
        )

    def document(self, source: str, sha256: str) -> dict[str, Any] | None:
        """Return a registered document of a source, by hash."""
        return next(self.db.query("SELECT * FROM document WHERE source = ? AND sha256 = ?", (source, sha256)), None)

    def is_current(self, document: int, register: str, at: dt.datetime | None = None) -> bool:
        """Tell whether a document, read under this register, is the last one read from its address.

        Another document read in between makes it news again: a publisher may go back to an earlier file.
        A kept file that was already loaded with the vintage ``at`` is no news either.
        """
        if at is not None:
            same = self._conn.execute(
                "SELECT 1 FROM parsed WHERE document = ? AND register = ? AND vintage BETWEEN ? AND ?",
                (document, register, micros(at), micros(at) + SAME_INSTANT),
            )
            if same.fetchone():
                return True
        found = self._conn.execute(
            "SELECT p.document, p.register FROM parsed p JOIN document d ON d.id = p.document"
            " JOIN document this ON this.id = ? WHERE p.url = this.url AND d.source = this.source"
            " ORDER BY p.vintage DESC LIMIT 1",
            (document,),
        ).fetchone()
        return bool(found == (document, register))

    def last_published(self, source: str) -> dict[str, dt.date]:
        """Return the newest stamp among the documents that carried each series of a source."""
        rows = self._conn.execute(
            "SELECT n.name, max(p.published) FROM series n JOIN precision r ON r.series = n.id"
            " JOIN parsed p ON p.document = r.document WHERE n.source = ? AND p.published IS NOT NULL GROUP BY n.name",
            (source,),
        )
        return {name: dt.date.fromisoformat(stamp) for name, stamp in rows}

    def periods(self, series: Iterable[str]) -> set[tuple[str, str]]:
        """Return every (series, period) that was ever known, withdrawn ones too."""
        out: set[tuple[str, str]] = set()
        for name in series:
            out.update(
                self._conn.execute(
                    "SELECT DISTINCT n.name, o.period FROM series n JOIN observation o ON o.series = n.id"
                    " WHERE n.name = ?",
                    (name,),
                ).fetchall()
            )
        return out

    # --------------------------------------------------------- observations

    def append(
        self,
        document: int,
        source: str,
        vintage: dt.datetime,
        observations: pd.DataFrame,
        *,
        register: str,
        published: dt.date | None = None,
        findings: Sequence[Finding] = (),
        absent: Iterable[str] = (),
        complete: bool = True,
        to_the_end: bool = False,
        held: Iterable[tuple[str, str]] = (),
    ) -> Changes:
        """Store what one document says, as learnt at ``vintage``.

        Parameters
        ----------
        observations : DataFrame
            Columns ``series, period, value, status``, as a parser returns them.
        absent : iterable of str
            Series that were looked for and that the document does not carry.
        complete : bool
            The document holds every value of its span. Then a value that was known inside the span
            and is no longer there is withdrawn.
        to_the_end : bool
            It is also news of what comes after its last period: values known there are withdrawn too.
        held : iterable of (series, period)
            Figures of the document that were held back: what was known of them is not withdrawn.

        Returns
        -------
        Changes

        Raises
        ------
        StoreError
            When the vintage is not later than the last release, or than what is known of a series.
        """
        at = micros(vintage)
        with self.writing():
            if self.is_current(document, register, vintage):
                return Changes()
            if not np.isfinite(observations["value"].to_numpy(dtype="float64")).all():
                raise StoreError(f"{source}: an observation without a finite value; a missing figure has no row")
            ids = self._series_ids(source, observations["series"].unique())
            at = self._ordered(at, ids)
            incoming = observations.assign(series=observations["series"].map(ids))
            known = self._known(_spans(incoming, to_the_end=to_the_end and complete))
            decimals = self._shown(incoming)
            if doubtful := {(ids.get(name), period) for name, period in held}:
                pairs = zip(known["series"], known["period"], strict=True)
                known = known[[pair not in doubtful for pair in pairs]]
            rows, counts = _changes(incoming, known, decimals, self._precisions(known), complete=complete)
            self._conn.executemany(
                "INSERT OR REPLACE INTO precision VALUES (?, ?, ?)", [(document, s, d) for s, d in decimals.items()]
            )
            self._conn.executemany(
                "INSERT INTO observation VALUES (?, ?, ?, ?, ?, ?)",
                ((s, p, at, v, status, document) for s, p, v, status in rows),
            )
            self._conn.executemany(
                "UPDATE series SET last_vintage = ?, decimals = max(decimals, ?) WHERE id = ?",
                [(at, decimals[i], i) for i in ids.values()],
            )
            gone = self._discontinue(absent, at, ids)
            self.note_findings(at, source, document, [*findings, *gone])
            self._conn.execute(
                "INSERT INTO parsed SELECT id, ?, ?, url, ?, ?, ?, ? FROM document WHERE id = ?",
                (register, at, str(published) if published else None, *counts[:3], document),
            )
        return Changes(*counts, discontinued=tuple(f.series or "" for f in gone))

    def observations(self, series: Iterable[str] | None = None, as_of: dt.datetime | None = None) -> pd.DataFrame:
        """Observations exactly as they were known at ``as_of`` (now when None).

        Returns
        -------
        DataFrame
            Columns ``series, period, value, status, vintage, document``; sorted by series and
            period; withdrawn values are absent. ``vintage`` is in microseconds (see ``instant``),
            ``document`` the row id of the document.
        """
        ids = dict(self._conn.execute("SELECT name, id FROM series").fetchall())
        names = sorted(ids if series is None else set(series) & set(ids))
        rows: list[tuple[Any, ...]] = []
        for name in names:
            rows += self._conn.execute(
                "SELECT ?, period, value, status, vintage, document FROM observation"
                " WHERE series = ? AND vintage <= ? ORDER BY period, vintage",
                (name, ids[name], _limit(as_of)),
            ).fetchall()
        columns = ("series", "period", "value", "status", "vintage", "document")
        frame = pd.DataFrame(
            dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)) if rows else None, columns=columns
        )
        keys = [(row[0], row[1]) for row in rows]
        last = np.fromiter((a != b for a, b in zip(keys, [*keys[1:], None], strict=True)), dtype=bool, count=len(keys))
        frame = frame[last & (frame["status"] != "withdrawn").to_numpy(dtype=bool)]
        return frame.astype({"value": "float64", "vintage": "int64", "document": "int64"}).reset_index(drop=True)

    def add_observation(
        self, document: int, source: str, vintage: dt.datetime, series: str, period: str, value: float, status: str
    ) -> None:
        """Store one figure of a document that was held back when it was read, as learnt at ``vintage``.

        Raises StoreError when the vintage is not later than the last release, or than what is known of the series.
        """
        with self.writing():
            ids = self._series_ids(source, [series])
            at, row = self._ordered(micros(vintage), ids), ids[series]
            self._conn.execute("INSERT OR IGNORE INTO precision VALUES (?, ?, ?)", (document, row, _places(value)))
            self._conn.execute(
                "INSERT INTO observation VALUES (?, ?, ?, ?, ?, ?)", (row, period, at, value, status, document)
            )
            self._conn.execute("UPDATE series SET last_vintage = ? WHERE id = ?", (at, row))

    def history(self, series: str, period: str | None = None) -> pd.DataFrame:
        """Every vintage of a series (or of one period): ``period, vintage, value, status, document``."""
        rows = self._conn.execute(
            "SELECT o.period, o.vintage, o.value, o.status, o.document"
            " FROM series n JOIN observation o ON o.series = n.id"
            " WHERE n.name = ? AND (? IS NULL OR o.period = ?) ORDER BY o.period, o.vintage",
            (series, period, period),
        ).fetchall()
        return pd.DataFrame(rows, columns=["period", "vintage", "value", "status", "document"])

    def known_around(self, firsts: Mapping[str, str], before: int) -> pd.DataFrame:
        """What is known of each series from so many periods before one on: ``series, period, value, status``.

        Parameters
        ----------
        firsts : mapping of series to period
        before : int
        """
        ids = dict(self._conn.execute("SELECT name, id FROM series").fetchall())
        told: list[tuple[str, str, float, str]] = []
        for name, first in firsts.items():
            rows = self._conn.execute(
                "SELECT period, value, status FROM observation WHERE series = ?1 AND period >= coalesce("
                "(SELECT min(period) FROM (SELECT DISTINCT period FROM observation WHERE series = ?1 AND period < ?2"
                " ORDER BY period DESC LIMIT ?3)), ?2) ORDER BY period, vintage",
                (ids.get(name), first, before),
            )
            last = {row[0]: row for row in rows}
            told += [(name, *row) for row in last.values() if row[2] != "withdrawn"]
        return pd.DataFrame(told, columns=["series", "period", "value", "status"]).astype({"value": "float64"})

    def revisions(self, series: Iterable[str]) -> pd.DataFrame:
        """Every change from one value above zero to another: ``series, period, old, new, vintage, document``."""
        rows: list[tuple[Any, ...]] = []
        for name in series:
            rows += self._conn.execute(
                "SELECT * FROM (SELECT n.name, o.period, lag(o.value) OVER (PARTITION BY o.period ORDER BY o.vintage)"
                " AS old, o.value AS new, o.vintage, o.document FROM series n JOIN observation o ON o.series = n.id"
                " WHERE n.name = ?) WHERE old > 0 AND new > 0 AND old <> new",
                (name,),
            ).fetchall()
        told = pd.DataFrame(rows, columns=["series", "period", "old", "new", "vintage", "document"])
        return told.astype({"old": "float64", "new": "float64", "vintage": "int64"})

    def first_learnt(self, series: Iterable[str], latest: int) -> pd.DataFrame:
        """The date (UTC) on which each of the latest periods was first known: ``series, period, day``."""
        rows: list[tuple[str, str, int]] = []
        for name in series:
            rows += self._conn.execute(
                "SELECT n.name, o.period, min(o.vintage) FROM series n JOIN observation o ON o.series = n.id"
                " WHERE n.name = ? GROUP BY o.period ORDER BY o.period DESC LIMIT ?",
                (name, latest),
            ).fetchall()
        return pd.DataFrame(
            [(name, period, instant(vintage).date()) for name, period, vintage in rows],
            columns=["series", "period", "day"],
        )

    def summary(self) -> list[dict[str, Any]]:
        """Return per source: documents, series, observations, revisions, withdrawals, last period and vintage."""
        return list(
            self.db.query(
                "WITH known AS (SELECT series, period, max(vintage) AS vintage, status FROM observation"
                " GROUP BY series, period), told AS (SELECT d.source, count(*) AS documents, sum(p.revised) AS revised,"
                " sum(p.withdrawn) AS withdrawn FROM parsed p JOIN document d ON d.id = p.document GROUP BY d.source)"
                " SELECT n.source, told.documents, count(DISTINCT k.series) AS series,"
                " sum(k.status <> 'withdrawn') AS observations, told.revised, told.withdrawn,"
                " max(k.period) AS last_period, max(k.vintage) AS last_vintage FROM series n"
                " JOIN known k ON k.series = n.id JOIN told ON told.source = n.source"
                " GROUP BY n.source ORDER BY n.source"
            )
        )

    def last_vintage(self, source: str | None = None) -> dt.datetime | None:
        """Return the latest vintage of a source, or of all."""
        row = self._conn.execute(
            "SELECT max(p.vintage) FROM parsed p JOIN document d ON d.id = p.document WHERE ? IS NULL OR d.source = ?",
            (source, source),
        ).fetchone()
        return instant(row[0]) if row[0] is not None else None

    # -------------------------------------------------------------- findings

    def add_findings(
        self, vintage: dt.datetime, source: str, findings: Iterable[Finding], document: int | None = None
    ) -> None:
        """Store findings outside the reading of a document: a visit that failed, a layout refused."""
        with self.writing():
            self.note_findings(micros(vintage), source, document, findings)

    def findings(self, as_of: dt.datetime | None = None) -> list[dict[str, Any]]:
        """Findings known at ``as_of``, oldest first."""
        rows = self.db.query("SELECT * FROM finding WHERE vintage <= ? ORDER BY id", (_limit(as_of),))
        return [{**row, "evidence": orjson.loads(row["evidence"])} for row in rows]

    def findings_since(self, moment: dt.datetime) -> list[dict[str, Any]]:
        """Findings learnt after an instant, oldest first."""
        rows = self.db.query("SELECT * FROM finding WHERE vintage > ? ORDER BY id", (micros(moment),))
        return [{**row, "evidence": orjson.loads(row["evidence"])} for row in rows]

    # -------------------------------------------------------------- decisions

    def decisions(self, as_of: dt.datetime | None = None) -> list[str]:
        """Return the log of decisions up to ``as_of``, a line each, as ``pricing.decisions.line`` writes them."""
        rows = self._conn.execute("SELECT record FROM decision WHERE at <= ? ORDER BY number", (_limit(as_of),))
        return [record for (record,) in rows]

    def add_decision(self, number: int, at: dt.datetime, record: str) -> None:
        """Add the next line to the log of decisions, for good.

        Raises StoreError when it is not after the last release and the last decision, or not the next one.
        """
        with self.writing():
            last = self._conn.execute("SELECT coalesce(max(number), 0), coalesce(max(at), 0) FROM decision").fetchone()
            if number != last[0] + 1:
                raise StoreError(f"decision {number} is not the next one: the log ends with {last[0]}; decide again")
            released = self._conn.execute("SELECT coalesce(max(vintage), 0) FROM release").fetchone()[0]
            if micros(at) < last[1] or micros(at) <= released:
                latest = iso(instant(max(last[1], released)))
                raise StoreError(f"the clock says {iso(at)}, and a decision or a release of {latest} is recorded")
            self._conn.execute("INSERT INTO decision VALUES (?, ?, ?)", (number, micros(at), record))

    def register_of(self, document: int, vintage: int) -> str:
        """Return the hash of the rules by which a document was read at a vintage; empty where it was not."""
        row = self._conn.execute(
            "SELECT register FROM parsed WHERE document = ? AND vintage = ?", (document, vintage)
        ).fetchone()
        return str(row[0]) if row else ""

    # ----------------------------------------------------------------- bases

    def bases(self, audience: str, as_of: dt.datetime | None = None) -> list[dict[str, Any]]:
        """Every basis set by ``as_of``, in order of market, frequency, effective period and origin."""
        return list(
            self.db.query(
                "SELECT market, frequency, effective, origin, ratio, common, via, first, last, vintage FROM basis"
                " WHERE audience = ? AND vintage <= ? ORDER BY market, frequency, effective, origin",
                (audience, _limit(as_of)),
            )
        )

    def add_bases(self, audience: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Set bases for life, with the vintage that each bears; one that is already set stays as it is."""
        with self.writing():
            self._conn.executemany(
                "INSERT OR IGNORE INTO basis"
                " (audience, market, frequency, effective, origin, ratio, common, via, first, last, vintage)"
                " VALUES (:audience, :market, :frequency, :effective, :origin, :ratio, :common, :via, :first, :last,"
                " :vintage)",
                ({**row, "audience": audience} for row in rows),
            )

    # ------------------------------------------------------------- forecasts

    def forecasts(self, audience: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """Return the published forecasts of the latest 120 releases by (name, frequency), in order of origin."""
        rows = self._conn.execute(
            "SELECT name, frequency, release, document FROM forecast WHERE audience = ? AND release >"
            " (SELECT coalesce(max(release), 0) FROM forecast WHERE audience = ?) - 120"
            " ORDER BY name, frequency, origin, release",
            (audience, audience),
        )
        out: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for name, frequency, release, document in rows:
            out.setdefault((name, frequency), []).append({**orjson.loads(document), "release": release})
        return out

    def add_forecasts(self, audience: str, release: int, rows: Iterable[tuple[str, str, dict[str, Any]]]) -> None:
        """Keep what a release forecast: (name, frequency, document with ``origin``); the first of each origin.

        Idempotent.
        """
        with self.writing():
            self._conn.executemany(
                "INSERT OR IGNORE INTO forecast SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE NOT EXISTS (SELECT 1 FROM forecast"
                " WHERE (audience, name, frequency, origin) = (?1, ?2, ?3, ?4) AND document = ?6)",
                ((audience, n, f, d["origin"], release, orjson.dumps(d).decode()) for n, f, d in rows),
            )

    # ---------------------------------------------------------------- shocks

    def watches(self, audience: str) -> dict[tuple[str, str], Watch]:
        """Return where the detector stands with each series, by (name, frequency)."""
        rows = self._conn.execute(
            "SELECT name, frequency, content, count, state FROM watch WHERE audience = ?", (audience,)
        )
        return {
            (name, frequency): Watch(content, n, orjson.loads(state)) for name, frequency, content, n, state in rows
        }

    def judged(self, audience: str, name: str, frequency: str, after: str = "") -> dict[str, Judged]:
        """Return how the observations of a series after a period were judged."""
        rows = self._conn.execute(
            "SELECT period, value, verdict FROM judged"
            " WHERE audience = ? AND name = ? AND frequency = ? AND period > ?",
            (audience, name, frequency, after),
        )
        return {period: Judged(value, orjson.loads(verdict) if verdict else None) for period, value, verdict in rows}

    def flagged(self, audience: str) -> dict[tuple[str, str], dict[str, Judged]]:
        """Return every observation that raised an alarm, by (name, frequency) and period."""
        rows = self._conn.execute(
            "SELECT name, frequency, period, value, verdict FROM judged"
            " WHERE audience = ? AND verdict IS NOT NULL ORDER BY name, frequency, period",
            (audience,),
        )
        out: dict[tuple[str, str], dict[str, Judged]] = {}
        for name, frequency, period, value, verdict in rows:
            out.setdefault((name, frequency), {})[period] = Judged(value, orjson.loads(verdict))
        return out

    def keep_watch(
        self,
        audience: str,
        watches: Mapping[tuple[str, str], Watch],
        judged: Mapping[tuple[str, str], Mapping[str, Judged | None]],
    ) -> None:
        """Store where the detector stands, and what it judged anew; None forgets an observation that is no more."""
        with self.writing():
            self._conn.executemany(
                "INSERT OR REPLACE INTO watch VALUES (?, ?, ?, ?, ?, ?)",
                ((audience, *key, w.content, w.count, orjson.dumps(w.state).decode()) for key, w in watches.items()),
            )
            every = [(key, period, one) for key, rows in judged.items() for period, one in rows.items()]
            self._conn.executemany(
                "DELETE FROM judged WHERE audience = ? AND name = ? AND frequency = ? AND period = ?",
                ((audience, *key, period) for key, period, one in every if one is None),
            )
            self._conn.executemany(
                "INSERT OR REPLACE INTO judged VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (audience, *key, period, one.value, orjson.dumps(one.verdict).decode() if one.verdict else None)
                    for key, period, one in every
                    if one is not None
                ),
            )

    # ---------------------------------------------------------------- alerts

    def alerts(self, audience: str | None = None, thread: str | None = None) -> list[dict[str, Any]]:
        """Return alerts as they were told, oldest first: of an audience, of one thread, or all."""
        rows = self._conn.execute(
            "SELECT document FROM alert WHERE (?1 IS NULL OR audience = ?1) AND (?2 IS NULL OR thread = ?2)"
            " ORDER BY sent, version",
            (audience, thread),
        )
        return [orjson.loads(document) for (document,) in rows]

    def told(self) -> dict[str, set[str]]:
        """Return the names of those to whom each thread of alerts was addressed."""
        out: dict[str, set[str]] = {}
        for thread, name in self._conn.execute(
            "SELECT DISTINCT a.thread, o.subscriber FROM outbox o JOIN alert a ON a.identifier = o.alert"
        ):
            out.setdefault(thread, set()).add(name)
        return out

    def draft_alerts(self, audience: str, number: int, draft: Mapping[str, Any]) -> None:
        """Keep what a release is to announce, until it stands; an earlier draft for the same number is forgotten."""
        self._conn.execute(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"alerts {audience} {number}", orjson.dumps(draft).decode())
        )

    def announce_draft(self, audience: str, number: int) -> int:
        """Announce, inside a transaction that is open, what was drafted for a release. Returns the messages."""
        key = f"alerts {audience} {number}"
        found = self._conn.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        draft = orjson.loads(found[0]) if found else {"alerts": [], "deliveries": []}
        self.announce(draft["alerts"], draft["deliveries"])
        self._conn.execute("DELETE FROM meta WHERE key = ?", (key,))
        return len(draft["alerts"])

    def announce(self, alerts: Sequence[Mapping[str, Any]], deliveries: Iterable[Sequence[str | int]]) -> None:
        """Keep alerts and put their messages into the outbox, all or nothing. Idempotent.

        Parameters
        ----------
        deliveries : iterable of tuple
            Alert, subscriber, channel, address, digest, rank, due (ISO), state, message id.
        """
        with self.writing():
            self._conn.executemany(
                "INSERT OR IGNORE INTO alert VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (
                        a["identifier"],
                        a["audience"],
                        a["thread"],
                        a["version"],
                        micros(dt.datetime.fromisoformat(a["sent"])),
                        orjson.dumps(a).decode(),
                    )
                    for a in alerts
                ),
            )
            self._conn.executemany(
                "INSERT OR IGNORE INTO outbox"
                " (alert, subscriber, channel, address, digest, rank, due, state, message_id)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ((*d[:6], micros(dt.datetime.fromisoformat(str(d[6]))), *d[7:]) for d in deliveries),
            )

    def outbox(self, alert: str | None = None) -> list[dict[str, Any]]:
        """Return what is or was to be sent, of one alert or of all, oldest first."""
        return list(self.db.query("SELECT * FROM outbox WHERE ?1 IS NULL OR alert = ?1 ORDER BY id", (alert,)))

    def outbox_counts(self) -> dict[str, int]:
        """Count messages by state."""
        return dict(self._conn.execute("SELECT state, count(*) FROM outbox GROUP BY state ORDER BY state").fetchall())

    def outbox_due(self) -> dt.datetime | None:
        """Return since when the oldest message that was not sent has been due; None where none waits."""
        found = self._conn.execute(
            "SELECT min(CASE WHEN o.attempts > 0 THEN a.sent ELSE o.due END) FROM outbox o"
            " JOIN alert a ON a.identifier = o.alert WHERE o.state IN ('waiting', 'sending', 'digest')"
        ).fetchone()
        return instant(found[0]) if found[0] is not None else None

    def send_again(self, alert: str, at: dt.datetime, subscriber: str | None = None) -> int:
        """Put what was sent or given up of an alert into the outbox again; returns how many messages, ids unchanged."""
        with self.writing():
            changed = self._conn.execute(
                "UPDATE outbox SET state = 'waiting', digest = '', due = ?3, attempts = 0, outcome = '',"
                " ended_at = NULL WHERE alert = ?1 AND (?2 IS NULL OR subscriber = ?2)"
                " AND state IN ('sent', 'failed', 'suppressed')",
                (alert, subscriber, micros(at)),
            )
            return int(changed.rowcount)

    def suppressed(self) -> dict[str, str]:
        """Return the addresses that nothing is sent to any more, with the reason."""
        return dict(self._conn.execute("SELECT address, reason FROM suppressed ORDER BY address").fetchall())

    def suppress(self, address: str, at: dt.datetime, reason: str) -> None:
        """Send nothing to an address any more; the first reason stands."""
        self._conn.execute("INSERT OR IGNORE INTO suppressed VALUES (?, ?, ?)", (address, micros(at), reason))

    def allow(self, address: str) -> bool:
        """Send to an address again; tells whether it was suppressed."""
        return self._conn.execute("DELETE FROM suppressed WHERE address = ?", (address,)).rowcount > 0

    def acknowledge(self, thread: str, at: dt.datetime, actor: str, comment: str) -> None:
        """Note that somebody has seen to an alert; the last one who said so stands."""
        self._conn.execute(
            "INSERT OR REPLACE INTO acknowledged VALUES (?, ?, ?, ?)", (thread, micros(at), actor, comment)
        )

    def acknowledged(self) -> dict[str, dict[str, str]]:
        """Return who has seen to which alert."""
        rows = self._conn.execute("SELECT thread, at, actor, comment FROM acknowledged")
        return {t: {"at": iso(instant(at)), "actor": actor, "comment": comment} for t, at, actor, comment in rows}

    # ------------------------------------------------------------- backtests

    def backtests(self, audience: str, as_of: dt.datetime | None = None) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the last backtest of each (name, frequency) known at ``as_of``."""
        rows = self._conn.execute(
            "SELECT name, frequency, max(vintage), document FROM backtest WHERE audience = ? AND vintage <= ?"
            " GROUP BY name, frequency",
            (audience, _limit(as_of)),
        )
        return {(name, frequency): orjson.loads(document) for name, frequency, _, document in rows}

    def add_backtests(self, audience: str, at: dt.datetime, rows: Iterable[tuple[str, str, dict[str, Any]]]) -> None:
        """Store backtests as learnt at an instant. Raises StoreError where that is not after the last release."""
        self.check_open(micros(at))
        with self.writing():
            self._conn.executemany(
                "INSERT OR REPLACE INTO backtest VALUES (?, ?, ?, ?, ?)",
                ((audience, n, f, micros(at), orjson.dumps(d).decode()) for n, f, d in rows),
            )

    # -------------------------------------------------------------- releases

    def last_release(self, audience: str | None = None) -> dict[str, Any] | None:
        """Return the last release of an audience, or of any: number, vintage, released_at, manifest."""
        return next(
            self.db.query(
                "SELECT * FROM release WHERE ? IS NULL OR audience = ? ORDER BY vintage DESC, number DESC LIMIT 1",
                (audience, audience),
            ),
            None,
        )

    def record_release(
        self, audience: str, number: int, vintage: dt.datetime, released_at: dt.datetime, manifest: str
    ) -> None:
        """Note a finished release. Idempotent; a different manifest under a used number is refused."""
        with self.writing():
            found = self._conn.execute(
                "SELECT manifest FROM release WHERE audience = ? AND number = ?", (audience, number)
            ).fetchone()
            if found and found[0] != manifest:
                raise StoreError(f"release {number} ({audience}) is already recorded with another manifest")
            if not found:
                self._conn.execute(
                    "INSERT INTO release VALUES (?, ?, ?, ?, ?)",
                    (audience, number, micros(vintage), iso(released_at), manifest),
                )

    def parts(self, audience: str) -> dict[str, tuple[str, str]]:
        """Return the fingerprint and hash of each yearly part of the last release."""
        rows = self._conn.execute("SELECT name, fingerprint, sha256 FROM part WHERE audience = ?", (audience,))
        return {name: (fingerprint, sha256) for name, fingerprint, sha256 in rows}

    def set_parts(self, audience: str, parts: Mapping[str, tuple[str, str]]) -> None:
        """Replace what ``parts`` returns."""
        with self.writing():
            self._conn.execute("DELETE FROM part WHERE audience = ?", (audience,))
            self._conn.executemany(
                "INSERT INTO part VALUES (?, ?, ?, ?)", [(audience, name, *pair) for name, pair in parts.items()]
            )

    # ------------------------------------------------------------------ jobs

    def start_job(self, job: str, due: dt.datetime, now: dt.datetime) -> int:
        """Note that a job starts; returns the id to end it with."""
        cursor = self._conn.execute(
            "INSERT INTO job_run (job, due, started_at) VALUES (?, ?, ?)", (job, iso(due), iso(now))
        )
        return int(cursor.lastrowid or 0)

    def end_job(self, run: int, now: dt.datetime, outcome: str, message: str = "") -> None:
        """Note how a job ended."""
        self._conn.execute(
            "UPDATE job_run SET ended_at = ?, outcome = ?, message = ? WHERE id = ?",
            (iso(now), outcome, message, run),
        )

    def last_run(self, job: str) -> dict[str, Any] | None:
        """Return the last run of a job that ended well."""
        return next(
            self.db.query("SELECT * FROM job_run WHERE job = ? AND outcome = 'done' ORDER BY id DESC LIMIT 1", (job,)),
            None,
        )

    # --------------------------------------------------------------- private

    def _series_ids(self, source: str, names: Iterable[str]) -> dict[str, int]:
        wanted = list(names)
        self._conn.executemany(
            "INSERT OR IGNORE INTO series (name, source) VALUES (?, ?)", [(name, source) for name in wanted]
        )
        known = dict(self._conn.execute("SELECT name, id FROM series").fetchall())
        return {name: known[name] for name in wanted}

    def check_open(self, at: int) -> None:
        """Check that no release was made at or after a vintage. Raises StoreError."""
        last = self._conn.execute("SELECT max(vintage), max(number) FROM release").fetchone()
        if last[0] is not None and at <= last[0]:
            raise StoreError(
                f"vintage {iso(instant(at))} is not after release {last[1]} ({iso(instant(last[0]))}): what was not "
                "known then cannot be learnt then; load the file as learnt now with 'lodemark collect SOURCE FILE'"
            )

    def _ordered(self, at: int, ids: Mapping[str, int]) -> int:
        """Return the vintage itself, or the next free microsecond after a document of the same instant."""
        self.check_open(at)
        latest = dict(self._conn.execute("SELECT id, last_vintage FROM series").fetchall())
        for name, series in ids.items():
            newest = latest[series] or 0
            if at < newest - SAME_INSTANT:
                raise StoreError(
                    f"{name}: a document of {iso(instant(newest))} is already stored; one of {iso(instant(at))} comes "
                    "too late (load kept files in the order of their stamps, all in one backfill)"
                )
            at = max(at, newest + 1)
        return at

    def _known(self, spans: Iterable[tuple[int, str, str]]) -> pd.DataFrame:
        """Return what is known of each series from its first to its last period in a document."""
        rows: list[tuple[Any, ...]] = []
        for series, first, last in spans:
            rows += self._conn.execute(
                "SELECT series, period, max(vintage), value, status, document FROM observation"
                " WHERE series = ? AND period BETWEEN ? AND ? GROUP BY period",
                (series, first, last),
            ).fetchall()
        return pd.DataFrame(rows, columns=["series", "period", "vintage", "value", "status", "document"]).astype(
            {"value": "float64"}
        )

    def _shown(self, incoming: pd.DataFrame) -> dict[int, int]:
        """Return the decimals that a document shows of each series.

        A few figures can all happen to be round: then what the series has shown before counts too,
        so that a revision is rather told once too often than missed.
        """
        before = dict(self._conn.execute("SELECT id, decimals FROM series").fetchall())
        counts = incoming["series"].value_counts()
        return {s: n if counts[s] >= TELLING else max(n, before[s]) for s, n in _decimals(incoming).items()}

    def _precisions(self, known: pd.DataFrame) -> pd.Series:
        if known.empty:
            return pd.Series(dtype="float64")
        pairs = known[["document", "series"]].drop_duplicates()
        found = [
            self._conn.execute(
                "SELECT decimals FROM precision WHERE document = ? AND series = ?", (int(d), int(s))
            ).fetchone()[0]
            for d, s in pairs.itertuples(index=False)
        ]
        return pd.Series(found, index=pd.MultiIndex.from_frame(pairs), dtype="float64")

    def _discontinue(self, absent: Iterable[str], at: int, present: Mapping[str, int]) -> list[Finding]:
        self._conn.executemany(
            "UPDATE series SET discontinued = NULL WHERE id = ? AND discontinued IS NOT NULL",
            [(i,) for i in present.values()],
        )
        gone = []
        for name in sorted(set(absent)):
            changed = self._conn.execute(
                "UPDATE series SET discontinued = ? WHERE name = ? AND discontinued IS NULL", (at, name)
            )
            if changed.rowcount:
                gone.append(
                    Finding(
                        "discontinued",
                        "warning",
                        f"{name} is no longer in the publisher's document",
                        series=name,
                    )
                )
        return gone

    def note_findings(self, at: int, source: str, document: int | None, findings: Iterable[Finding]) -> None:
        """Add findings inside a transaction that is open."""
        self._conn.executemany(
            'INSERT INTO finding (vintage, source, document, "check", severity, series, period, message, evidence)'
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    at,
                    source,
                    document,
                    f.check,
                    f.severity,
                    f.series,
                    f.period,
                    f.message,
                    orjson.dumps(f.evidence).decode(),
                )
                for f in findings
            ],
        )


def _is_locked(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _limit(as_of: dt.datetime | None) -> int:
    return micros(as_of) if as_of is not None else 2**62


def _spans(incoming: pd.DataFrame, *, to_the_end: bool) -> list[tuple[int, str, str]]:
    """Return each series with the first and the last period that a document speaks of."""
    codes, labels = pd.factorize(incoming["period"], sort=True)  # numbers: pandas compares text one by one
    ends = pd.Series(codes).groupby(incoming["series"].to_numpy()).agg(["min", "max"])
    return [
        (int(series), str(labels[first]), "9999" if to_the_end else str(labels[last]))
        for series, first, last in ends.itertuples(name=None)
    ]


def _places(value: float) -> int:
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    places = len(mantissa.partition(".")[2]) if not mantissa.endswith(".0") else 0
    return max(0, places - int(exponent)) if exponent else places


def _decimals(incoming: pd.DataFrame) -> dict[int, int]:
    """Return the most decimals that any value of a series shows in this document."""
    values = incoming["value"].to_numpy(dtype="float64")
    places = np.zeros(len(values), dtype="int64")
    left = np.flatnonzero(np.isfinite(values))
    for n in range(_FEW_PLACES):
        with np.errstate(over="ignore"):
            scaled = values[left] * 10.0**n
        # Whole number over power of ten, both exact: the quotient is the double nearest to that decimal.
        shown = (np.rint(scaled) / 10.0**n == values[left]) & (np.abs(scaled) < _EXACT)
        places[left[shown]] = n
        left = left[~shown]
    places[left] = [_places(v) for v in values[left].tolist()]
    most = pd.Series(places).groupby(incoming["series"].to_numpy()).max()
    return {int(series): int(n) for series, n in most.items()}  # type: ignore[call-overload]


def _changes(
    incoming: pd.DataFrame,
    known: pd.DataFrame,  # within each series' span of the document
    decimals: Mapping[int, int],
    precisions: pd.Series,
    *,
    complete: bool,
) -> tuple[list[tuple[int, str, float | None, str]], tuple[int, int, int, int]]:
    """Rows to append, and counts (new, revised, withdrawn, unchanged).

    A revision is a difference beyond half a unit of the last decimal of the coarser of the two
    documents in that column, and beyond 1e-9 of the value: publishers re-round whole files. A change
    of status is a revision too.
    """
    if known.empty:
        rows = list(
            zip(
                incoming["series"].tolist(),
                incoming["period"].tolist(),
                incoming["value"].tolist(),
                incoming["status"].tolist(),
                strict=True,
            )
        )
        return rows, (len(rows), 0, 0, 0)
    old = known.assign(places=precisions.reindex(pd.MultiIndex.from_frame(known[["document", "series"]])).to_numpy())
    both = incoming.merge(old, on=["series", "period"], how="outer", suffixes=("", "_old"), indicator=True)
    here, there = both["_merge"] != "right_only", both["_merge"] != "left_only"
    coarser = np.fmin(both["series"].map(decimals).astype("float64"), both["places"])
    difference = (both["value"] - both["value_old"]).abs()
    size = both["value_old"].abs()
    half_a_unit = 0.5 * 10.0**-coarser + 4 * np.finfo(float).eps * size  # and the last bits of the doubles
    moved = difference > np.fmax(half_a_unit, RELATIVE_TOLERANCE * size)
    was_out = both["status_old"] == "withdrawn"
    revised = here & there & (moved | (both["status"] != both["status_old"]) | was_out)
    new = here & ~there
    withdrawn = ~here & ~was_out & complete
    out = both[new | revised | withdrawn]
    gone = withdrawn[new | revised | withdrawn]
    rows = [
        (s, p, None if w else v, "withdrawn" if w else status)
        for s, p, v, status, w in zip(
            out["series"].tolist(),
            out["period"].tolist(),
            out["value"].tolist(),
            out["status"].tolist(),
            gone.tolist(),
            strict=True,
        )
    ]
    counts = (int(new.sum()), int(revised.sum()), int(withdrawn.sum()), int((here & there & ~revised).sum()))
    return rows, counts
