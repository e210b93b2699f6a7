"""``published.db``: the publishable rows of each release, and all that the web may query.

Each release appends only what is new or changed; a row that a release no longer shows is recorded as
withdrawn (value NULL). So every release can be read as it was, and a daily release costs what changed.

Standard library only: the web process reads this file and must start without pandas or sqlite-utils.
"""

from __future__ import annotations

import math
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pricing.errors import ReleaseError

Kind = Literal["index", "price", "indicator", "gap", "gap-gross", "gap-export-parity", "spread", "imports"]
What = Literal["new", "revised", "status", "withdrawn"]
Causes = Callable[[str, str, str, str], Iterable[str]]
"""(kind, name, frequency, period) of a figure that changed, to what changed it: ``pricing.causes``."""
T = TypeVar("T")

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_PERIOD = re.compile(r"\d{4}(-\d\d(-\d\d)?)?")
_BEYOND = "~"  # sorts after every character of a period: '2026-11~' follows '2026-11-30'

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS release (
        number INTEGER PRIMARY KEY, vintage TEXT NOT NULL, released_at TEXT NOT NULL) STRICT""",
    """CREATE TABLE IF NOT EXISTS dataset (
        id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, frequency TEXT NOT NULL,
        unit TEXT NOT NULL, UNIQUE (kind, name, frequency, unit)) STRICT""",
    """CREATE TABLE IF NOT EXISTS value (
        dataset INTEGER NOT NULL REFERENCES dataset (id), period TEXT NOT NULL,
        release INTEGER NOT NULL REFERENCES release (number),
        value REAL, unrounded REAL, status TEXT NOT NULL, grade TEXT, reasons TEXT,
        PRIMARY KEY (dataset, period, release)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS value_by_release ON value (release, dataset, period)",
)

# SQLite promises that the other columns stand in the row that max() took.
_STATE = """SELECT period, value, unrounded, status, grade, max(release) FROM value
    WHERE dataset = ? AND period >= ? AND period <= ? AND release <= ? GROUP BY period ORDER BY period"""


class Row(NamedTuple):
    """One publishable figure, as the release stage hands it over.

    ``name`` is the index's id or ``mineral/stage/zone``; ``value`` is rounded by the methodology's
    rule, ``unrounded`` is the double behind it, both in ``unit``.
    """

    kind: Kind
    name: str
    frequency: str
    unit: str
    period: str
    value: float
    unrounded: float
    status: str
    grade: str | None = None


class Value(NamedTuple):
    """One figure as a release shows it; ``value`` is None when the release withdrew it."""

    period: str
    value: float | None
    unrounded: float | None
    status: str
    grade: str | None
    since_release: int

    def document(self) -> dict[str, Any]:
        """Return it without its period, as a change shows it."""
        row = {"value": self.value, "unrounded": self.unrounded, "status": self.status}
        return {**row, "since_release": self.since_release, **({} if self.grade is None else {"grade": self.grade})}


_Dataset = tuple[str, str, str, str]  # kind, name, frequency, unit: figures in another unit are another dataset
_Content = tuple[float, float, str, str | None]
_Wanted = dict[_Dataset, dict[str, _Content]]
_Written = tuple[_Dataset, str, _Content | None, str]  # the last: reasons, with commas
ENDED = "no-longer-published"


class Change(NamedTuple):
    """One figure that two releases show differently; ``before`` or ``after`` is None where the release has none.

    ``what`` is ``status`` where the figure stands and only its status or grade is another. ``reasons`` are pairs
    of release and word, oldest first, one release or several: docs/api.md says what the words mean.
    ``place`` is where to go on from.
    """

    kind: str
    name: str
    frequency: str
    unit: str
    period: str
    what: What
    before: Value | None
    after: Value | None
    reasons: tuple[tuple[int, str], ...]
    place: tuple[int, int, str]

    @property
    def series_ended(self) -> bool:
        """The whole series is no longer published, so its old figures are not repeated: rights may have ended."""
        return self.after is None and self.reasons[-1:] == ((self.place[0], ENDED),)

    def document(self) -> dict[str, Any]:
        """Return it as documents and answers show it."""
        reasons = []
        for release, word in self.reasons:
            reason, _, number = word.partition(":")
            reasons.append({"release": release, "reason": reason, **({"decision": int(number)} if number else {})})
        return {
            "kind": self.kind,
            "id": self.name,
            "frequency": self.frequency,
            "unit": self.unit,
            "period": self.period,
            "change": self.what,
            "release": self.place[0],
            "before": None if self.before is None or self.series_ended else self.before.document(),
            "after": self.after and self.after.document(),
            "reasons": reasons,
        }


# ------------------------------------------------------------------------------------- writing


def append(
    path: Path,
    number: int,
    vintage: str,
    released_at: str,
    rows: Iterable[Row],
    *,
    complete: bool = True,
    units_may_change: bool = False,
    causes: Causes | None = None,
) -> int:
    """Record what a release shows, in one transaction.

    Parameters
    ----------
    path : Path
        ``published.db``; made when absent.
    number : int
        The release. Must be above the last one recorded.
    vintage, released_at : str
        Instants as ``2026-11-23T14:00:00.000000Z``; neither may lie before the last release's.
    rows : iterable of Row
        All figures of every dataset that is named at all; what is missing from it is withdrawn.
    complete : bool
        The rows are the whole release, so a dataset that they do not name is withdrawn as well: a
        market whose rights have ended must not stay readable. False leaves other datasets as they are.
    units_may_change : bool
        The method has changed, and figures may be in another unit from this release on. What is there in
        the unit before is withdrawn, and stays readable in the releases that showed it.
    causes : Causes, optional
        What changed a figure, where it is not simply that of a new period; kept as its reasons.

    Returns
    -------
    int
        Rows written: those new, changed or withdrawn. 0 when this release is recorded already.

    Raises
    ------
    ReleaseError
        The number or an instant goes backwards, a row is unusable, a unit changed while it may not, or the
        release is recorded already with other content.
    """
    wanted = _by_dataset(rows)
    with _writing(path) as db:
        present = _check_release(db, path, number, vintage, released_at)
        units = _units(db, number)
        for dataset in wanted:
            unit, before = dataset[3], units.get(dataset[:3], dataset[3])
            if unit != before and not units_may_change:
                raise ReleaseError(
                    f"{'/'.join(dataset[:3])}: unit {unit!r}, but {before!r} before; another unit needs another method "
                    "or another name"
                )
        changes = list(_changes(db, wanted, number, complete, causes))
        if present:
            if changes:
                dataset, period, *_ = changes[0]
                raise ReleaseError(
                    f"{path}: release {number} is recorded with other content: {len(changes)} rows differ, first "
                    f"{'/'.join(dataset)} {period}; discard_after({number - 1}) lets it be recorded anew"
                )
            return 0
        db.execute("INSERT INTO release VALUES (?, ?, ?)", (number, vintage, released_at))
        _insert(db, number, changes)
        return len(changes)


def discard_after(path: Path, number: int) -> int:
    """Forget the releases above ``number``: those that a killed process recorded and never finished.

    Returns
    -------
    int
        Releases forgotten. 0 also when there is no such file.
    """
    if not path.exists():
        return 0
    with _writing(path) as db:
        db.execute("DELETE FROM value WHERE release > ?", (number,))
        db.execute("DELETE FROM dataset WHERE id NOT IN (SELECT dataset FROM value)")
        return db.execute("DELETE FROM release WHERE number > ?", (number,)).rowcount


@contextmanager
def _writing(path: Path) -> Iterator[sqlite3.Connection]:
    """One immediate transaction of the one writer, on disk when the block is left."""
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in _SCHEMA:
                db.execute(statement)
            if not any(column[1] == "reasons" for column in db.execute("PRAGMA table_info (value)")):
                db.execute("ALTER TABLE value ADD COLUMN reasons TEXT")  # written by a version without them
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")


def _by_dataset(rows: Iterable[Row]) -> _Wanted:
    wanted: _Wanted = {}
    units: dict[tuple[str, str, str], str] = {}
    for row in rows:
        where = f"{row.kind} {row.name} {row.frequency} {row.period}"
        if not _PERIOD.fullmatch(row.period):
            raise ReleaseError(f"{where}: a period is YYYY, YYYY-MM or YYYY-MM-DD")
        for field, number in (("value", row.value), ("unrounded", row.unrounded)):
            if number is None or not math.isfinite(number):
                raise ReleaseError(f"{where}: {field} is {number!r}; leave out what has no value")
        unit = units.setdefault((row.kind, row.name, row.frequency), row.unit)
        if row.unit != unit:
            raise ReleaseError(f"{where}: unit {row.unit!r}, but {unit!r} in other rows of the same dataset")
        content = wanted.setdefault((row.kind, row.name, row.frequency, unit), {})
        if row.period in content:
            raise ReleaseError(f"{where}: given twice")
        content[row.period] = (float(row.value), float(row.unrounded), row.status, row.grade)
    return wanted


def _check_release(db: sqlite3.Connection, path: Path, number: int, vintage: str, released_at: str) -> bool:
    """Return whether the release is recorded already; raise ReleaseError when it cannot follow."""
    for field, instant in (("vintage", vintage), ("released_at", released_at)):
        if not _INSTANT.fullmatch(instant):
            raise ReleaseError(f"release {number}: {field} {instant!r} is not as 2026-11-23T14:00:00.000000Z")
    same = db.execute("SELECT vintage, released_at FROM release WHERE number = ?", (number,)).fetchone()
    if same is not None:
        if same != (vintage, released_at):
            raise ReleaseError(
                f"{path}: release {number} is recorded with the instants {same}, not {(vintage, released_at)}"
            )
        return True
    last = db.execute("SELECT number, vintage, released_at FROM release ORDER BY number DESC LIMIT 1").fetchone()
    if last is not None and number <= last[0]:
        raise ReleaseError(f"{path}: release {number} comes after release {last[0]}: numbers only grow")
    if number < 1:
        raise ReleaseError(f"release {number}: numbers start at 1")
    if last is not None and (vintage < last[1] or released_at < last[2]):
        raise ReleaseError(
            f"{path}: release {number} ({vintage}, {released_at}) lies before release {last[0]} ({last[1]}, {last[2]})"
        )
    return False


def _changes(
    db: sqlite3.Connection, wanted: _Wanted, number: int, complete: bool, causes: Causes | None
) -> Iterator[_Written]:
    known: dict[_Dataset, int] = {tuple(dataset): id_ for id_, *dataset in db.execute("SELECT * FROM dataset")}
    named = {dataset[:3] for dataset in wanted}
    for dataset in sorted(known.keys() | wanted.keys()):
        if not complete and dataset[:3] not in named:
            continue
        new = wanted.get(dataset, {})
        rows = db.execute(_STATE, (known[dataset], "", _BEYOND, number)) if dataset in known else ()
        old = {period: content for period, *content, _ in rows if content[0] is not None}
        newest = max(old, default="")
        for period in sorted(old.keys() | new.keys()):
            if tuple(old.get(period, ())) == new.get(period, ()):
                continue
            reasons = list(causes(*dataset[:3], period)) if causes is not None and period <= newest else []
            if period not in old:
                reasons.append("new-series" if not old else "late-period" if period < newest else "new-period")
            elif dataset[:3] not in named:
                reasons = [ENDED]
            yield dataset, period, new.get(period), ",".join(reasons or ["inputs"])


def _units(db: sqlite3.Connection, number: int) -> dict[tuple[str, ...], str]:
    """Return the unit of each dataset in which a release or the last one before it shows figures."""
    rows = db.execute("SELECT id, kind, name, frequency, unit FROM dataset").fetchall()
    by_name: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    for id_, kind, name, frequency, unit in rows:
        by_name.setdefault((kind, name, frequency), []).append((id_, unit))
    return {name: _in_force(db, found, number)[1] for name, found in by_name.items()}


def _in_force(db: sqlite3.Connection, found: list[tuple[int, str]], number: int) -> tuple[int, str]:
    """Choose, of datasets (id, unit) that differ in unit only, the one a release shows: the last to get a value."""
    if len(found) == 1:
        return found[0]
    last = "SELECT max(release) FROM value WHERE dataset = ? AND release <= ? AND value IS NOT NULL"
    return max(found, key=lambda one: db.execute(last, (one[0], number)).fetchone()[0] or 0)


def _insert(db: sqlite3.Connection, number: int, changes: list[_Written]) -> None:
    ids: dict[_Dataset, int] = {}
    for dataset, *_ in changes:
        if dataset not in ids:
            db.execute("INSERT OR IGNORE INTO dataset (kind, name, frequency, unit) VALUES (?, ?, ?, ?)", dataset)
            (ids[dataset],) = db.execute(
                "SELECT id FROM dataset WHERE (kind, name, frequency, unit) = (?, ?, ?, ?)", dataset
            ).fetchone()
    withdrawn = (None, None, "withdrawn", None)
    db.executemany(
        "INSERT INTO value (dataset, period, release, value, unrounded, status, grade, reasons)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        ((ids[dataset], period, number, *(content or withdrawn), why) for dataset, period, content, why in changes),
    )


# ------------------------------------------------------------------------------------- reading


def query(path: Path, ask: Callable[[sqlite3.Connection], T]) -> T:
    """Ask one question on a read-only connection that is closed again, and return its answer.

    Where the folder cannot be written, SQLite cannot open a resting WAL database (it would have to make
    the ``-wal`` and ``-shm`` files). Without those files nobody is writing, so the file is then read as
    it lies, and read again if anybody touched it meanwhile.

    Raises
    ------
    sqlite3.Error
        The file is absent, or is not such a database.
    """
    uri = path.resolve().as_uri() + "?mode=ro"
    for attempt in range(20):
        before = _touched(path)
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=5)) as connection:
                return ask(connection)
        except sqlite3.OperationalError as error:
            if (
                error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
                or not path.exists()
            ):
                raise
        if before is not None:
            with closing(sqlite3.connect(uri + "&immutable=1", uri=True)) as connection:
                answer = ask(connection)
            if _touched(path) == before:
                return answer
        time.sleep(0.01 * attempt)
    raise sqlite3.OperationalError(f"{path}: written to all the time; its folder is read-only for this process")


def _touched(path: Path) -> tuple[int, int, int] | None:
    """Return the file's identity while nobody has it open for writing, else None."""
    if path.with_name(path.name + "-wal").exists():
        return None
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def read(
    connection: sqlite3.Connection,
    kind: Kind,
    name: str,
    frequency: str,
    *,
    release: int,
    start: str | None = None,
    end: str | None = None,
) -> list[Value]:
    """Return the figures of one dataset as a release showed them, by period.

    Parameters
    ----------
    release : int
        What later releases changed is not seen, nor figures in a unit that the release no longer used.
    start, end : str or None
        ``YYYY``, ``YYYY-MM`` or ``YYYY-MM-DD``. A period is in when its first day lies between the
        first day of ``start`` and the last day of ``end``, whatever the frequency.

    Returns
    -------
    list of Value
        Withdrawn periods are in it with ``value`` None, from the release that withdrew them.
    """
    named = "SELECT id, unit FROM dataset WHERE (kind, name, frequency) = (?, ?, ?)"
    found = connection.execute(named, (kind, name, frequency)).fetchall()
    if not found:
        return []
    bounds = (lower_bound(start) if start else "", (end or "") + _BEYOND)
    id_, _ = _in_force(connection, found, release)
    return [Value(*row) for row in connection.execute(_STATE, (id_, *bounds, release))]


def vintages(
    connection: sqlite3.Connection, kind: Kind, name: str, frequency: str
) -> list[tuple[str, str, float | None]]:
    """Return every value of a dataset as (period, instant of the release that showed it first, unrounded).

    In the unit of the newest release; a withdrawal has no value, and neither has an estimate: neither was observed.
    """
    named = "SELECT id, unit FROM dataset WHERE (kind, name, frequency) = (?, ?, ?)"
    found = connection.execute(named, (kind, name, frequency)).fetchall()
    if not found:
        return []
    id_, _ = _in_force(connection, found, newest(connection))
    rows = connection.execute(
        "SELECT v.period, r.released_at, CASE WHEN v.status <> 'estimated' THEN v.unrounded END"
        " FROM value v JOIN release r ON r.number = v.release"
        " WHERE v.dataset = ? ORDER BY v.period, v.release",
        (id_,),
    )
    return [(period, at, unrounded) for period, at, unrounded in rows]


def changes(
    connection: sqlite3.Connection, since: int, until: int, *, place: tuple[int, int, str] | None = None
) -> Iterator[Change]:
    """Yield every figure that release ``until`` shows otherwise than release ``since``, as it came to be so.

    Applied to the figures of the one they give those of the other. What was changed and changed back is no change.

    Parameters
    ----------
    since, until : int
        Releases; ``since`` 0 is before the first.
    place : tuple, optional
        ``Change.place`` after which to go on; by rule from the beginning.
    """
    known: dict[int, _Dataset] = {id_: tuple(dataset) for id_, *dataset in connection.execute("SELECT * FROM dataset")}
    touched = connection.execute(
        "SELECT release, dataset, period FROM value INDEXED BY value_by_release"
        " WHERE (release, dataset, period) > (?, ?, ?) AND release <= ? ORDER BY release, dataset, period",
        (*(place or (since + 1, 0, "")), until),
    )
    for release, id_, period in touched:
        steps = connection.execute(
            "SELECT period, value, unrounded, status, grade, release, reasons FROM value"
            " WHERE dataset = ? AND period = ? AND release <= ? ORDER BY release DESC",
            (id_, period, until),
        )
        reasons: list[tuple[int, str]] = []
        found = []
        for *content, why in steps:
            found.append(Value(*content))
            if found[-1].since_release <= since:
                break
            reasons = [*((found[-1].since_release, word) for word in (why or "").split(",") if word), *reasons]
        if found[0].since_release != release:  # it changed again, and comes with its last change
            continue
        after = found[0] if found[0].value is not None else None
        before = found[-1] if found[-1].since_release <= since and found[-1].value is not None else None
        if (before and before[1:5]) == (after and after[1:5]):
            continue
        what: What = "status"
        if before is None or after is None:
            what = "new" if before is None else "withdrawn"
        elif before[1:3] != after[1:3]:
            what = "revised"
        yield Change(*known[id_], period, what, before, after, tuple(reasons), (release, id_, period))


def lower_bound(start: str) -> str:
    """Return the shortest period with the same first day: ``2026-01-01`` and ``2026-01`` are ``2026``.

    As text, it sorts at or before every period that starts on that day or later.
    """
    while start.endswith("-01"):
        start = start[:-3]
    return start


def datasets(connection: sqlite3.Connection, kind: Kind, name: str, *, release: int) -> dict[str, str]:
    """Return the unit, at a release, of each frequency in which it or an earlier one shows the named dataset."""
    rows = connection.execute(
        """SELECT frequency, id, unit FROM dataset WHERE (kind, name) = (?, ?)
        AND EXISTS (SELECT 1 FROM value WHERE dataset = dataset.id AND release <= ?) ORDER BY frequency""",
        (kind, name, release),
    )
    found: dict[str, list[tuple[int, str]]] = {}
    for frequency, id_, unit in rows:
        found.setdefault(frequency, []).append((id_, unit))
    return {frequency: _in_force(connection, same, release)[1] for frequency, same in found.items()}


def names_below(connection: sqlite3.Connection, kind: Kind, prefix: str, *, release: int) -> list[str]:
    """Return the names that begin with a prefix and of which a release or an earlier one shows a value."""
    rows = connection.execute(
        """SELECT DISTINCT name FROM dataset WHERE kind = ? AND substr(name, 1, length(?)) = ?
        AND EXISTS (SELECT 1 FROM value WHERE dataset = dataset.id AND release <= ?) ORDER BY name""",
        (kind, prefix, prefix, release),
    )
    return [name for (name,) in rows]


def newest(connection: sqlite3.Connection) -> int:
    """Return the last release that is recorded, 0 when there is none."""
    (number,) = connection.execute("SELECT max(number) FROM release").fetchone()
    return int(number or 0)


def release_at(connection: sqlite3.Connection, instant: str) -> int | None:
    """Return the last release made at or before an instant (``2026-11-23T14:00:00.000000Z``), or None.

    Raises
    ------
    ValueError
        The instant is in another form; texts of other forms would not compare.
    """
    if not _INSTANT.fullmatch(instant):
        raise ValueError(f"an instant is as 2026-11-23T14:00:00.000000Z: {instant!r}")
    (number,) = connection.execute("SELECT max(number) FROM release WHERE released_at <= ?", (instant,)).fetchone()
    return None if number is None else int(number)
