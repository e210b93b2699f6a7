"""Customs cells in the working store: appended by document, read as they were known at any instant."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson
import pandas as pd

from pricing.declarations import COLUMNS, Declared, Scope
from pricing.errors import StoreError
from pricing.quality import Finding
from pricing.store import RELATIVE_TOLERANCE, SAME_INSTANT, Changes, Store, instant, iso, micros

Place = tuple[int, str]
"""Number of a cell, and a month."""
Told = tuple[float | None, float | None, str]
"""Value, mass and status."""

MASS_WITHDRAWAL = 0.2  # a document that takes back more than this share of what was known is not believed at once
FEW = 20  # … nor judged, below so many cells, unless it takes back all
CONFIRMED_AFTER = 20 * 3_600_000_000  # microseconds until the same answer counts as a second one
SAME_VISIT = 24 * 3_600_000_000  # microseconds within which answers are of one state of the publisher's data


def is_read(store: Store, source: str, url: str, document: int, register: str) -> bool:
    """Tell whether a document, read under this register, is the last one read from an address."""
    last = next(
        store.db.query(
            "SELECT p.document, p.register FROM parsed p JOIN document d ON d.id = p.document"
            " WHERE p.url = ? AND d.source = ? ORDER BY p.vintage DESC LIMIT 1",
            (url, source),
        ),
        None,
    )
    return last is not None and (last["document"], last["register"]) == (document, register)


def append(
    store: Store,
    document: int,
    source: str,
    vintage: dt.datetime,
    declared: Declared,
    *,
    url: str,
    register: str,
    scope: Scope,
) -> Changes:
    """Store what one document declares, as learnt at ``vintage``, in one transaction.

    A cell that was known inside the scope and that the document does not show is withdrawn; unless it
    would take back all or more than a fifth of what was known, which is a finding, and withdraws when a
    second answer, most of a day later, says the same. The
    document that was the last one read from its address is no news, unless another address has said
    otherwise since.

    Raises
    ------
    StoreError
        When the vintage is not after the last release, or than a document of this source.
    """
    at = micros(vintage)
    with store.writing():
        shown = _shown(store, source, declared.cells)
        known = _known(store, source, scope)
        new = shown.keys() - known.keys()
        revised = {place for place in shown.keys() & known.keys() if _differs(shown[place], known[place][1])}
        gone = _withdrawn(shown, known, declared.held)
        doubts = []
        standing = sum(told[2] != "withdrawn" for _, told in known.values())
        if len(gone) > max(FEW, MASS_WITHDRAWAL * standing) or 1 < len(gone) == standing:
            evidence = {"known": standing, "gone": len(gone), "url": url}
            said = f"shows {standing - len(gone)} of {standing} cells known in {scope.first} to {scope.last}"
            if _said_before(store, source, evidence, at):
                doubts.append(Finding("withdrawal", "warning", f"{said}, for the second time: withdrawn", None, None))
            else:
                what = "taken for incomplete, nothing is withdrawn before a second answer says the same"
                doubts.append(Finding("mass-withdrawal", "error", f"{said}: {what}", evidence=evidence))
                gone = set()
        changes = Changes(len(new), len(revised), len(gone), len(shown) - len(new) - len(revised))
        if not (new or revised or gone) and is_read(store, source, url, document, register):
            _note_reading(store, source, url, scope, declared.held, at, register)
            return changes
        at = _ordered(store, source, at)
        _note_reading(store, source, url, scope, declared.held, at, register)
        store.db.conn.executemany(
            "INSERT INTO declaration VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (*place, at, *shown.get(place, (None, None, "withdrawn")), document)
                for place in sorted(new | revised | gone)
            ),
        )
        store.db.conn.executemany(
            "INSERT INTO partner VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET name = excluded.name",
            ((source, code, name) for code, name in declared.names.items()),
        )
        store.note_findings(at, source, document, [*declared.findings, *doubts])
        published = str(declared.published) if declared.published else None
        store.db.execute(
            "INSERT INTO parsed VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (document, register, at, url, published, changes.new, changes.revised, changes.withdrawn),
        )
    return changes


def _said_before(store: Store, source: str, evidence: Mapping[str, Any], at: int) -> bool:
    """Tell whether an earlier answer from the same address took the same back."""
    rows = store.db.execute(
        "SELECT evidence FROM finding WHERE source = ? AND \"check\" = 'mass-withdrawal' AND vintage <= ?",
        (source, at - CONFIRMED_AFTER),
    )
    return any(orjson.loads(told) == evidence for (told,) in rows)


def _note_reading(
    store: Store, source: str, url: str, scope: Scope, held: Collection[str], at: int, register: str
) -> None:
    store.db.conn.executemany(
        "INSERT OR REPLACE INTO reading VALUES (?, ?, ?, ?, ?, ?, ?)",
        ((source, url, code, scope.first, scope.last, at, register) for code in scope.codes if code not in held),
    )


def read_again(store: Store, source: str, url: str, at: dt.datetime) -> None:
    """Note that what was last read from an address still stands."""
    store.db.execute(
        "INSERT OR IGNORE INTO reading SELECT source, url, code, first, last, ?, register FROM reading"
        " WHERE (source, url) = (?, ?) AND vintage = (SELECT max(vintage) FROM reading WHERE (source, url) = (?, ?))",
        (micros(at), source, url, source, url),
    )


def read_months(store: Store, source: str, as_of: dt.datetime | None = None) -> dict[str, frozenset[str]]:
    """Return for each code the months about which the office has answered since anything of them appeared.

    A code that was asked before a month was out, whose question failed or whose rows were held back has
    not been read for it: then a sum over it would be a part that looks like the whole.
    """
    limit = micros(as_of) if as_of is not None else 2**62
    appeared = dict(
        store.db.execute(
            "SELECT d.period, min(d.vintage) FROM cell c JOIN declaration d ON d.cell = c.id"
            " WHERE c.source = ? AND d.vintage <= ? GROUP BY d.period",
            (source, limit),
        ).fetchall()
    )
    out: dict[str, set[str]] = {}
    for code, first, last, at in store.db.execute(
        "SELECT code, first, last, max(vintage) FROM reading WHERE source = ? AND vintage <= ?"
        " GROUP BY code, first, last",
        (source, limit),
    ):
        months = (m for m, since in appeared.items() if first <= m <= last and at >= since - SAME_VISIT)
        out.setdefault(code, set()).update(months)
    return {code: frozenset(months) for code, months in out.items()}


def read_under(store: Store, source: str, url: str | None = None) -> dict[str, tuple[frozenset[str], str]]:
    """Return the codes and the register with which each address (or one of them) was last read."""
    out: dict[str, tuple[frozenset[str], str]] = {}
    rows = store.db.execute(
        "SELECT r.url, r.code, r.register FROM reading r JOIN (SELECT url, max(vintage) AS at FROM reading"
        " WHERE source = ? AND (? IS NULL OR url = ?) GROUP BY url) last"
        " ON r.url = last.url AND r.vintage = last.at WHERE r.source = ?",
        (source, url, url, source),
    )
    for url, code, register in rows:
        out[url] = (out.get(url, (frozenset(), ""))[0] | {code}, register)
    return out


def _withdrawn(
    shown: Mapping[Place, Told], known: Mapping[Place, tuple[str, Told]], held: Collection[str]
) -> set[Place]:
    """Return what was known and is not shown any more, apart from codes of which a row is held back."""
    return {
        place
        for place, (code, told) in known.items()
        if place not in shown and told[2] != "withdrawn" and code not in held
    }


def _ordered(store: Store, source: str, at: int) -> int:
    store.check_open(at)
    newest = next(
        store.db.query(
            "SELECT max(p.vintage) AS at FROM parsed p JOIN document d ON d.id = p.document WHERE d.source = ?",
            (source,),
        )
    )["at"]
    if newest is not None and at < newest - SAME_INSTANT:
        raise StoreError(
            f"{source}: a document of {iso(instant(newest))} is already stored; one of {iso(instant(at))} comes "
            "too late (load kept files in the order of their stamps, all in one backfill)"
        )
    return max(at, (newest or 0) + 1)


def _shown(store: Store, source: str, cells: pd.DataFrame) -> dict[Place, Told]:
    """Return what a document says by cell and month; a cell that is met for the first time gets its number."""
    rows = list(cells[list(COLUMNS)].itertuples(index=False, name=None))
    store.db.conn.executemany(
        "INSERT OR IGNORE INTO cell (source, code, reporter, partner) VALUES (?, ?, ?, ?)",
        ((source, *key) for key in dict.fromkeys(row[:3] for row in rows)),
    )
    ids: dict[tuple[str, ...], int] = {}
    for code in {row[0] for row in rows}:
        sql = "SELECT reporter, partner, id FROM cell WHERE source = ? AND code = ?"
        ids |= {(code, reporter, partner): key for reporter, partner, key in store.db.execute(sql, (source, code))}
    shown = {(ids[row[:3]], row[3]): (_null(row[4]), _null(row[5]), row[6]) for row in rows}
    if len(shown) < len(rows):
        raise StoreError(f"{source}: a cell stands twice in one document; nothing of it is stored")
    return shown


def _known(store: Store, source: str, scope: Scope) -> dict[Place, tuple[str, Told]]:
    """Return the code and the last vintage of every cell and month inside a scope, withdrawn ones too."""
    out: dict[Place, tuple[str, Told]] = {}
    for code in scope.codes:
        rows = store.db.execute(
            "SELECT c.id, d.period, d.value, d.kg, d.status, max(d.vintage) FROM cell c"
            " JOIN declaration d ON d.cell = c.id WHERE c.source = ? AND c.code = ? AND d.period BETWEEN ? AND ?"
            " GROUP BY c.id, d.period",
            (source, code, scope.first, scope.last),
        )
        out |= {(cell, period): (code, (value, kg, status)) for cell, period, value, kg, status, _ in rows}
    return out


def _differs(new: Told, old: Told) -> bool:
    return new[2] != old[2] or _moved(new[0], old[0]) or _moved(new[1], old[1])


def _moved(new: float | None, old: float | None) -> bool:
    """Beyond arithmetic; missing against a number differs too."""
    if new is None or old is None:
        return new is not old
    return abs(new - old) > RELATIVE_TOLERANCE * abs(old)


def _null(number: float) -> float | None:
    return None if math.isnan(number) else float(number)


def known(store: Store, source: str, as_of: dt.datetime | None = None) -> pd.DataFrame:
    """Cells of a source exactly as they were known at ``as_of`` (now when None).

    Returns
    -------
    DataFrame
        The columns of ``declarations.COLUMNS`` and ``vintage`` (microseconds); sorted by code, reporter,
        partner and period; withdrawn cells are absent.
    """
    rows = store.db.execute(
        "SELECT c.code, c.reporter, c.partner, d.period, d.value, d.kg, d.status, max(d.vintage)"
        " FROM cell c JOIN declaration d ON d.cell = c.id WHERE c.source = ? AND d.vintage <= ?"
        " GROUP BY c.id, d.period ORDER BY c.code, c.reporter, c.partner, d.period",
        (source, micros(as_of) if as_of is not None else 2**62),
    ).fetchall()
    frame = pd.DataFrame(rows, columns=[*COLUMNS, "vintage"]).astype({"value": "float64", "kg": "float64"})
    return frame[frame["status"] != "withdrawn"].reset_index(drop=True)


def history(store: Store, source: str, key: Sequence[str], period: str) -> pd.DataFrame:
    """Every vintage of one cell (code, reporter, partner) and month: ``vintage, value, kg, status, document``."""
    rows = store.db.execute(
        "SELECT d.vintage, d.value, d.kg, d.status, d.document FROM cell c JOIN declaration d ON d.cell = c.id"
        " WHERE (c.source, c.code, c.reporter, c.partner) = (?, ?, ?, ?) AND d.period = ? ORDER BY d.vintage",
        (source, *key, period),
    ).fetchall()
    return pd.DataFrame(rows, columns=["vintage", "value", "kg", "status", "document"])


def partners(store: Store, source: str) -> dict[str, str]:
    """Return the publisher's names of partners."""
    return dict(store.db.execute("SELECT code, name FROM partner WHERE source = ?", (source,)).fetchall())


def summary(store: Store, source: str) -> dict[str, Any] | None:
    """Count the cells of a source by month, its revisions and withdrawals; None where nothing is known."""
    row = next(
        store.db.query(
            "SELECT count(DISTINCT d.cell || ' ' || d.period) AS observations, max(d.period) AS last_period,"
            " max(d.vintage) AS last_vintage FROM cell c JOIN declaration d ON d.cell = c.id WHERE c.source = ?",
            (source,),
        )
    )
    told = next(
        store.db.query(
            "SELECT sum(p.revised) AS revised, sum(p.withdrawn) AS withdrawn FROM parsed p"
            " JOIN document d ON d.id = p.document WHERE d.source = ?",
            (source,),
        )
    )
    return row | told if row["observations"] else None
