"""Simulated customs statistics: two offices count what is imported at the simulated market's prices.

Some forty days after a month its document comes out; it holds the month before once more, in which a few
cells moved. ``documents`` and ``history`` make the documents from what ``demo_shipments`` knows;
``declarations`` reads them as it would an office's.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pandas as pd

from pricing.config import Code, Customs, Rights, Source
from pricing.declarations import COLUMNS, Declared, Scope, frame
from pricing.errors import ParseError
from pricing.sources.demo import NOTICE, TERMS, DemoDocument, opened
from pricing.sources.demo_market import FIRST_DAY, LAST_DAY
from pricing.sources.demo_shipments import CHINA, FIRST_MONTH, OFFICES, PARTNERS, PRODUCTS, Office, cells, published

STATUSES = ("normal", "no-quantity", "confidential")

FIRST_SINGLE = pd.Period("2024-12", "M")  # what is older comes in one file a year: nobody watched it being revised

# ---------------------------------------------------------------------------------------- making


def _document(office: Office, last: pd.Period) -> DemoDocument:
    """Write a document: the first word on its last month, and the last word on the month before it, or the year."""
    first = last - 1 if last > FIRST_SINGLE else max(FIRST_MONTH, last - 11)
    finals = pd.period_range(first, last - 1, freq="M")
    rows = [row for product in PRODUCTS for month in finals for row in cells(office, product, month, first=False)]
    rows += [row for product in PRODUCTS for row in cells(office, product, last, first=True)]
    day = published(office, last)
    body = {
        "simulated": True,
        "notice": NOTICE,
        "office": office.origin,
        "published": day.isoformat(),
        "first": str(first),
        "last": str(last),
        "currency": office.currency,
        "units": dict(product.codes[office.system] for product in PRODUCTS),
        "partners": PARTNERS,
        "columns": COLUMNS,
        "rows": sorted(rows, key=lambda row: row[:4]),
    }
    return DemoDocument(f"{office.source}-{last}.json", office.source, day, orjson.dumps(body))


def documents(day: dt.date) -> list[DemoDocument]:
    """Return the customs documents published on a day; none on most.

    The same day gives the same bytes, in whatever order days are asked for. Raises ValueError outside
    the simulation.
    """
    if not FIRST_DAY <= day <= LAST_DAY:
        raise ValueError(f"the simulation runs from {FIRST_DAY} to {LAST_DAY}; {day} lies outside")
    last = pd.Period(day, "M") - 2  # five to six weeks after its end is always the month after the next
    return [_document(office, last) for office in OFFICES if _is_due(last) and published(office, last) == day]


def _is_due(last: pd.Period) -> bool:
    return last >= FIRST_SINGLE or (last.month == 12 and last >= FIRST_MONTH)


def history(until: dt.date = dt.date(2025, 12, 31)) -> Iterator[DemoDocument]:
    """Yield everything published up to a day, oldest first: a file a year at first, then one a month."""
    lasts = [last for last in pd.period_range(FIRST_MONTH, pd.Period(until, "M"), freq="M") if _is_due(last)]
    made = [_document(office, last) for office in OFFICES for last in lasts if published(office, last) <= until]
    yield from sorted(made, key=lambda document: (document.published, document.source))


# --------------------------------------------------------------------------------------- reading


def declarations(raw: bytes, codes: Sequence[Code], source: Source) -> Declared:
    """Read one simulated customs document.

    Raises
    ------
    ParseError
        When it does not say ``"simulated": true``, when it is another office's or in another currency,
        when a code is counted in another unit than the methodology says, or when a row is not what the
        columns promise, or says again what another said.
    """
    body, day = opened(raw)
    customs = source.customs
    if customs is None:
        raise ParseError("office: the source has no table customs")
    for name, due in (("office", customs.origin), ("currency", customs.currency), ("columns", list(COLUMNS))):
        if body.get(name) != due:
            raise ParseError(f"{name}: {body.get(name)!r} where {due!r} is configured")
    first, last = (_month(body.get(name), name) for name in ("first", "last"))
    rows, known = body.get("rows"), {c.code for c in codes}
    if not isinstance(rows, list):
        raise ParseError("rows: must be a list")
    _check_units(body.get("units"), codes)
    left_out: Counter[str] = Counter()
    cells: dict[tuple[str, ...], tuple[Any, ...]] = {}
    for i, row in enumerate(rows):
        cell = _cell(row, f"rows[{i}]", first, last)
        if cell[0] not in known:
            left_out["other-code"] += 1
        elif cells.setdefault(cell[:4], cell) is not cell:
            raise ParseError(f"rows[{i}]: says again what another row said of {' '.join(cell[:4])}")
    names = body.get("partners")
    scope = Scope(tuple(sorted(known)), first, last)
    return Declared(
        frame(cells.values()), scope, day, names=names if isinstance(names, dict) else {}, left_out=left_out
    )


def _check_units(units: Any, codes: Sequence[Code]) -> None:
    if not isinstance(units, dict):
        raise ParseError("units: must name the unit of each code")
    for code in codes:
        if units.get(code.code) != " ".join(code.units):
            raise ParseError(f"units.{code.code}: {units.get(code.code)!r} where {' '.join(code.units)!r} must stand")


def _month(text: Any, place: str) -> str:
    try:
        if isinstance(text, str) and dt.date.fromisoformat(f"{text}-01").strftime("%Y-%m") == text:
            return text
    except ValueError:
        pass
    raise ParseError(f"{place}: {text!r} is not a month such as 2026-01")


def _cell(row: Any, place: str, first: str, last: str) -> tuple[Any, ...]:
    if not isinstance(row, list) or len(row) != len(COLUMNS) or not all(isinstance(x, str) and x for x in row[:3]):
        raise ParseError(f"{place}: must be a list of {', '.join(COLUMNS)}")
    code, reporter, partner, period, value, kg, status = row
    place = f"{place} ({code} {reporter} from {partner})"
    if not first <= _month(period, f"{place}.period") <= last:
        raise ParseError(f"{place}.period: {period} lies outside {first} to {last}")
    if status not in STATUSES:
        raise ParseError(f"{place}.status: {status!r} is none of {', '.join(STATUSES)}")
    due = {"value": status == "confidential", "kg": status != "normal"}
    numbers = [_number(x, f"{place}.{name}", none=due[name]) for name, x in (("value", value), ("kg", kg))]
    return code, reporter, partner, period, *numbers, status


def _number(given: Any, place: str, *, none: bool) -> float:
    if none and given is None:
        return math.nan
    if isinstance(given, bool) or not isinstance(given, int | float) or not (math.isfinite(given) and given >= 0):
        raise ParseError(f"{place}: must be a number of at least 0, not {given!r}")
    return float(given)


# --------------------------------------------------------------------------------- configuration


def sources() -> dict[str, Source]:
    """Return the configuration of both simulated offices, by name."""
    return {office.source: _source(office) for office in OFFICES}


def _source(office: Office) -> Source:
    return Source(
        parser="demo_customs",
        title=f"Imports of the {office.title} (simulated)",
        publisher=f"Demo customs office, {office.title} (fictional)",
        **TERMS,
        rights=Rights.preset("open"),
        min_age_ok_days=80,  # forty days after a month, and a month until the next
        customs=Customs(
            system=office.system,
            origin=office.origin,
            title=f"{office.title} (simulated)",
            currency=office.currency,
            valuation=office.valuation,
            china=CHINA,
            since=str(FIRST_MONTH.year),
        ),
    )
