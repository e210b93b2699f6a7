"""Customs cells in the working store: appended by document, read as they were known at any instant."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pricing.declarations import COLUMNS, Declared, Scope
from pricing.errors import StoreError
from pricing.quality import Finding
from pricing.store import RELATIVE_TOLERANCE, SAME_INSTANT, Changes, Store, instant, iso, micros

CELL = ["code", "reporter", "partner"]
MASS_WITHDRAWAL = 0.2  # a document that takes back more than this share of what was known is not believed
FEW = 20  # … nor judged, below so many cells


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
    would take back more than a fifth of what was known, which is a finding and withdraws nothing.

    Raises
    ------
    StoreError
        When the vintage is not after the last release, or than a document of this source.
    """
    at = micros(vintage)
    if is_read(store, source, url, document, register):
        return Changes()
    with store.writing():
        at = _ordered(store, source, at)
        ids = _ids(store, source, declared.cells)
        incoming = declared.cells.assign(cell=[ids[key] for key in declared.cells[CELL].itertuples(index=False)])
        known_before = _known(store, source, scope)
        both = incoming.merge(
            known_before, on=["cell", "code", "period"], how="outer", suffixes=("", "_old"), indicator=True
        )
        here, there = both["_merge"] != "right_only", both["_merge"] != "left_only"
        was_out = there & (both["status_old"] == "withdrawn")
        moved = _differ(both["value"], both["value_old"]) | _differ(both["kg"], both["kg_old"])
        new = here & ~there
        revised = here & there & (moved | (both["status"] != both["status_old"]))
        withdrawn = ~here & ~was_out & ~both["code"].isin(declared.held)
        findings = list(declared.findings)
        standing = int((there & ~was_out).sum())
        if withdrawn.sum() > max(FEW, MASS_WITHDRAWAL * standing):
            message = (
                f"shows {standing - int(withdrawn.sum())} of {standing} cells known in {scope.first} to {scope.last}: "
                "taken for incomplete, nothing is withdrawn"
            )
            findings.append(Finding("mass-withdrawal", "error", message, evidence={"known": standing}))
            withdrawn = withdrawn & False
        rows = both[new | revised | withdrawn]
        gone = withdrawn[rows.index]
        rows = rows.assign(
            value=rows["value"].where(~gone),
            kg=rows["kg"].where(~gone),
            status=rows["status"].where(~gone, "withdrawn"),
        )
        store.db.conn.executemany(
            "INSERT INTO declaration VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (int(cell), period, at, _null(value), _null(kg), status, document)
                for cell, period, value, kg, status in rows[["cell", "period", "value", "kg", "status"]].itertuples(
                    index=False
                )
            ),
        )
        store.db.conn.executemany(
            "INSERT INTO partner VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET name = excluded.name",
            ((source, code, name) for code, name in declared.names.items()),
        )
        store.note_findings(at, source, document, findings)
        counts = (int(new.sum()), int(revised.sum()), int(withdrawn.sum()))
        published = str(declared.published) if declared.published else None
        store.db.execute(
            "INSERT INTO parsed VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (document, register, at, url, published, *counts)
        )
    return Changes(*counts, unchanged=int((here & there & ~revised).sum()))


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


def _ids(store: Store, source: str, cells: pd.DataFrame) -> Mapping[tuple[str, ...], int]:
    wanted = cells[CELL].drop_duplicates()
    store.db.conn.executemany(
        "INSERT OR IGNORE INTO cell (source, code, reporter, partner) VALUES (?, ?, ?, ?)",
        ((source, *key) for key in wanted.itertuples(index=False, name=None)),
    )
    rows = store.db.execute("SELECT code, reporter, partner, id FROM cell WHERE source = ?", (source,)).fetchall()
    return {(code, reporter, partner): key for code, reporter, partner, key in rows}


def _known(store: Store, source: str, scope: Scope) -> pd.DataFrame:
    """Return the last vintage of every cell and month inside a scope, withdrawn ones too."""
    rows: list[tuple[object, ...]] = []
    for code in scope.codes:
        rows += store.db.execute(
            "SELECT c.id, c.code, d.period, max(d.vintage), d.value, d.kg, d.status FROM cell c"
            " JOIN declaration d ON d.cell = c.id WHERE c.source = ? AND c.code = ? AND d.period BETWEEN ? AND ?"
            " GROUP BY c.id, d.period",
            (source, code, scope.first, scope.last),
        ).fetchall()
    frame = pd.DataFrame(rows, columns=["cell", "code", "period", "vintage", "value", "kg", "status"])
    return frame.astype({"value": "float64", "kg": "float64", "cell": "int64"}).drop(columns="vintage")


def _differ(new: pd.Series, old: pd.Series) -> pd.Series:
    """Beyond arithmetic; missing against a number differs too."""
    return ~(((new - old).abs() <= RELATIVE_TOLERANCE * old.abs()) | (new.isna() & old.isna()))


def _null(number: float) -> float | None:
    return None if np.isnan(number) else float(number)


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
