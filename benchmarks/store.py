"""Rows stored per CPU second against plain executemany, and reading as known at an instant."""

from __future__ import annotations

import datetime as dt
import sqlite3
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from benchmarks.measure import Line, Result, cpu_of, in_turn
from pricing.store import Changes, Store

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SEED = 20_261_123
PAIRS = 5
AIM = 0.4
SERIES_OF_MILLION, PERIODS_OF_MILLION, READS = 1_000, 1_000, 200


@dataclass(frozen=True)
class Document:
    """What one publisher's file says."""

    source: str
    observations: pd.DataFrame

    @cached_property
    def rows(self) -> list[tuple[int, str, int, float, str, int]]:
        """The same as rows of the table, in its key's order: what plain executemany is given."""
        o = self.observations
        ids = pd.factorize(o["series"])[0].tolist()
        columns = zip(ids, o["period"].tolist(), o["value"].tolist(), o["status"].tolist(), strict=True)
        return [(series, period, 1, value, status, 1) for series, period, value, status in columns]


def document(source: str, series: int, periods: Iterable[str], rng: np.random.Generator) -> Document:
    """Prices to the cent that walk at random: ``series`` columns over all ``periods``."""
    labels = list(periods)
    walk = np.cumsum(rng.normal(0, 0.02, (series, len(labels))), axis=1)
    return Document(
        source,
        pd.DataFrame(
            {
                "series": np.repeat([f"{source}-{i:04d}" for i in range(series)], len(labels)),
                "period": np.tile(labels, series),
                "value": np.round(1000 * np.exp(walk), 2).ravel(),
                "status": "normal",
            }
        ),
    )


def months(count: int) -> list[str]:
    return [str(p) for p in pd.period_range("1960-01", periods=count, freq="M")]


def weekdays(count: int) -> list[str]:
    return [f"{d:%Y-%m-%d}" for d in pd.bdate_range("2006-01-02", periods=count)]


def revised(one: Document, share: float, rng: np.random.Generator) -> Document:
    """The same document with a share of its values moved by 1."""
    o = one.observations
    return Document(one.source, o.assign(value=o["value"] + (rng.random(len(o)) < share)))


def append(store: Store, one: Document, day: int) -> Changes:
    at = START + dt.timedelta(days=day)
    known = store.add_document(one.source, f"{one.source}-{day}", url="", retrieved_at=at, size=0)
    return store.append(known, one.source, at, one.observations, register="bench")


def run() -> Result:
    rng = np.random.default_rng(SEED)
    first = [document("monthly", 70, months(720), rng), document("daily", 30, weekdays(5_000), rng)]
    second = [revised(one, 0.01, rng) for one in first]
    days = [document("today", 100, [day], rng) for day in weekdays(100)]
    result = Result("Store: rows per CPU second")
    result.lines = [
        _loads("first load, 70 × 720 months and 30 × 5,000 days", [], first, aim=True),
        _loads("loaded again, 1 % of it revised", first, second),
        _loads("100 small documents of 100 rows, one a day", [], days),
        *_reads(rng),
    ]
    result.notes = [
        "Beside: sqlite3 executemany of ready tuples into the same table with the same settings, in one transaction. "
        "It checks nothing, compares nothing with what is known, and of the second load stores every row again.",
        "Read: CPU, median of 200; beside: a plain select of all rows of the series, not as-of, no frame.",
    ]
    return result


def _loads(what: str, before: list[Document], documents: list[Document], *, aim: bool = False) -> Line:
    rows = sum(len(d.rows) for d in documents)
    seen = in_turn(lambda: _ours(before, documents), lambda: _plain(documents), PAIRS)
    ratio = 1 / seen.ratio
    ours, theirs = (f"{rows / median(s):,.0f}/s" for s in (seen.ours, seen.theirs))
    wanted = (f"≥ {AIM}", ratio >= AIM) if aim else ("", None)
    return Line(what, ours, theirs, seen.spread(inverse=True), *wanted)


def _ours(before: list[Document], documents: list[Document]) -> float:
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store.db") as store:
        for one in before:
            append(store, one, 0)

        def load() -> None:
            for day, one in enumerate(documents, 1):
                append(store, one, day)

        return cpu_of(load)


def _plain(documents: list[Document]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        Store(path).close()  # the same table
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA synchronous=FULL")

        def load() -> None:
            db.execute("BEGIN IMMEDIATE")
            for i, one in enumerate(documents):
                rows = one.rows if i == 0 else ((s + 10_000 * i, *rest) for s, *rest in one.rows)
                db.executemany("INSERT INTO observation VALUES (?, ?, ?, ?, ?, ?)", rows)
            db.execute("COMMIT")

        try:
            return cpu_of(load)
        finally:
            db.close()


def _reads(rng: np.random.Generator) -> list[Line]:
    whole = document("million", SERIES_OF_MILLION, weekdays(PERIODS_OF_MILLION), rng)
    names = rng.choice(whole.observations["series"].unique(), READS, replace=False).tolist()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        with Store(path) as store:
            append(store, whole, 0)
            append(store, revised(whole, 0.05, rng), 1)
            lines = []
            for what, day in (("before", 0.5), ("after", 2.0)):
                at = START + dt.timedelta(days=day)
                taken = median(cpu_of(partial(_read, store, name, at)) for name in names)
                bare = median(cpu_of(partial(_bare_read, store, name)) for name in names)
                label = f"as-of read of 1 of 1,000 series × 1,000 days, {what} 5 % were revised"
                lines.append(Line(label, f"{taken * 1e6:,.0f} µs", f"{bare * 1e6:,.0f} µs"))
        size = path.stat().st_size
    return [*lines, Line("size on disk of those 1.05 million", f"{size / 1e6:.0f} MB")]


def _read(store: Store, name: str, at: dt.datetime) -> None:
    read = store.observations([name], at)
    if len(read) != PERIODS_OF_MILLION:
        raise RuntimeError(f"{name} has {len(read)} rows, not {PERIODS_OF_MILLION}")


def _bare_read(store: Store, name: str) -> None:
    """Every stored row of the series as it lies there, whatever its vintage."""
    store.db.execute(
        "SELECT o.* FROM series n JOIN observation o ON o.series = n.id WHERE n.name = ?", (name,)
    ).fetchall()
