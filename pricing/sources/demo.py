"""Simulated prices: five fictional houses quote a market that does not exist.

The documents are made here (``documents`` for a day, ``history`` for the years before 2026), and
``parse`` reads them as it would a publisher's. Every document says that it is simulated; one that
does not is refused.
"""

from __future__ import annotations

import calendar
import datetime as dt
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import pandas as pd

from pricing.config import Rights, Series, Source
from pricing.errors import ParseError
from pricing.sources import Parsed, frame, without_duplicates
from pricing.sources.demo_houses import CONTRIBUTORS, HOUSES, House, quotation, told
from pricing.sources.demo_market import EVENTS, FIRST_DAY, LAST_DAY, MARKETS, MINERALS, DemoMarket, fx, truth

__all__ = ["EVENTS", "HOUSES", "MARKETS", "DemoDocument", "documents", "fx", "history", "parse", "sources", "truth"]

NOTICE = "Simulated by Lodemark; no real prices."
TERMS: dict[str, Any] = {
    "terms": "Simulated data: free for any use but as the price of anything",
    "terms_read": dt.date(2026, 1, 1),
    "licence": "Simulated data",
    "attribution": "Simulated by Lodemark; no real prices",
}
STATUSES = ("normal", "provisional", "voided", "suspended", "limit")
_PERIOD = {"annual": r"\d{4}", "monthly": r"\d{4}-\d{2}"}


@dataclass(frozen=True)
class DemoDocument:
    """What one contributor published on one day, as bytes, with the source it belongs to."""

    name: str
    source: str
    published: dt.date
    raw: bytes


# -------------------------------------------------------------------------------------- making


def documents(day: dt.date) -> list[DemoDocument]:
    """Return the documents published on a day, one per contributor that has something to say.

    Empty on Saturdays and Sundays. The same day gives the same bytes, in whatever order days are
    asked for. Raises ValueError outside FIRST_DAY to LAST_DAY.
    """
    if not FIRST_DAY <= day <= LAST_DAY:
        raise ValueError(f"the simulation runs from {FIRST_DAY} to {LAST_DAY}; {day} lies outside")
    made = []
    for contributor in CONTRIBUTORS:
        years = (day.year - 1, day.year) if day.year > FIRST_DAY.year else (day.year,)
        parts = [part for y in years if (part := _by_day(contributor, y).get(day)) is not None]
        if parts:
            made.append(_document(contributor, day, pd.concat(parts)))
    return made


def history(until: dt.date = dt.date(2025, 12, 31)) -> Iterator[DemoDocument]:
    """Yield everything published up to a day in monthly documents, oldest first.

    A document bears the last trading day of its month. A second word on a period (revision, voiding)
    comes with the document of a later month than the first, so that both stay known; only in the last
    month, which has no successor here, the last word replaces the first.
    """
    batches = [b for contributor in CONTRIBUTORS for b in _months(contributor, until)]
    for published, contributor, rows in sorted(batches, key=lambda b: (b[0], CONTRIBUTORS.index(b[1]))):
        yield _document(contributor, published, rows)


@lru_cache(maxsize=28)
def _by_day(contributor: str, year: int) -> dict[dt.date, pd.DataFrame]:
    return {pd.Timestamp(str(day)).date(): rows for day, rows in told(contributor, year).groupby("published")}


def _months(contributor: str, until: dt.date) -> list[tuple[dt.date, str, pd.DataFrame]]:
    rows = pd.concat([told(contributor, y) for y in range(FIRST_DAY.year, until.year + 1)], ignore_index=True)
    rows = rows[rows["published"] <= pd.Timestamp(until)]
    month = rows["published"].dt.year * 12 + rows["published"].dt.month - 1
    first = month.groupby([rows["series"], rows["period"]]).transform("min")
    last = until.year * 12 + until.month - 1
    month = month.where(~rows["later"], np.minimum(np.maximum(month, first + 1), last))
    rows = rows.assign(month=month).sort_values(["published", "later"], kind="stable")
    rows = rows.drop_duplicates(["month", "series", "period"], keep="last")
    return [(min(_last_trading_day(int(str(m))), until), contributor, part) for m, part in rows.groupby("month")]


def _last_trading_day(month: int) -> dt.date:
    year, m = divmod(month, 12)
    day = dt.date(year, m + 1, calendar.monthrange(year, m + 1)[1])
    return day - dt.timedelta(days=max(0, day.weekday() - 4))


def _document(contributor: str, published: dt.date, rows: pd.DataFrame) -> DemoDocument:
    keep = ["series", "period", "value", "unit", "status"]
    body = {
        "simulated": True,
        "notice": NOTICE,
        "contributor": contributor,
        "published": published.isoformat(),
        "quotes": rows.sort_values(["series", "period"])[keep].to_dict("records"),
    }
    source = source_of(contributor)
    return DemoDocument(f"{source}-{published}.json", source, published, orjson.dumps(body))


# ------------------------------------------------------------------------------------- reading


def parse(raw: bytes, series: Mapping[str, Series], source: Source) -> Parsed:
    """Read one simulated document.

    Raises
    ------
    ParseError
        When it does not say ``"simulated": true``, when a unit, status, period or value is not what
        the series promises, or when none of its quotes belongs to this source.
    """
    body, published = opened(raw)
    quotes = body.get("quotes")
    if not isinstance(quotes, list):
        raise ParseError("quotes: must be a list")
    rows = [row for i, quote in enumerate(quotes) if (row := _row(quote, f"quotes[{i}]", series)) is not None]
    if quotes and not rows:
        raise ParseError(
            f"quotes: none of {len(quotes)} belongs to {source.title!r}; is it another contributor's document?"
        )
    observations, findings = without_duplicates(frame(rows))
    absent = tuple(sorted(set(series) - {row[0] for row in rows}))
    return Parsed(observations, published, tuple(findings), absent)


def opened(raw: bytes) -> tuple[dict[str, Any], dt.date]:
    """Return what a simulated document says, and its day. Raises ParseError when it does not say that it is one."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ParseError(f"not JSON: {error}") from error
    if not isinstance(body, dict) or body.get("simulated") is not True:
        raise ParseError('simulated: must be true; the demo source reads nothing that does not say "simulated": true')
    return body, _published(body.get("published"))


def _published(text: Any) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise ParseError(f"published: must be a day such as 2026-01-05, not {text!r}") from error


def _row(quote: Any, place: str, series: Mapping[str, Series]) -> tuple[str, str, float, str] | None:
    if not isinstance(quote, dict) or not isinstance(quote.get("series"), str):
        raise ParseError(f"{place}.series: must be the id of a series")
    told_of = series.get(quote["series"])
    if told_of is None:
        return None
    place = f"{place} ({told_of.id})"
    if quote.get("unit") != told_of.unit:
        raise ParseError(f"{place}.unit: {quote.get('unit')!r} where {told_of.unit!r} is configured")
    if quote.get("status") not in STATUSES:
        raise ParseError(f"{place}.status: {quote.get('status')!r} is none of {', '.join(STATUSES)}")
    value = quote.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise ParseError(f"{place}.value: must be a number above 0, not {value!r}")
    return told_of.id, _period(quote.get("period"), told_of, place), float(value), quote["status"]


def _period(text: Any, series: Series, place: str) -> str:
    pattern = _PERIOD.get(series.frequency, r"\d{4}-\d{2}-\d{2}")
    if isinstance(text, str) and re.fullmatch(pattern, text):
        try:
            dt.date.fromisoformat((text + "-01-01")[:10])
        except ValueError:
            pass
        else:
            return text
    raise ParseError(f"{place}.period: {text!r} is not the period of a {series.frequency} series")


# -------------------------------------------------------------------------------- configuration


def source_of(contributor: str) -> str:
    """Return the name of a contributor's source: ``demo-northgate``, ``demo-fx``."""
    return f"demo-{contributor.removeprefix('demo-')}"


def sources(closed: frozenset[str] = frozenset()) -> dict[str, Source]:
    """Return the configuration of all simulated sources, by name.

    Parameters
    ----------
    closed : frozenset of str
        Contributors (``"kestrel"``) whose own values may not be shown; what is derived from them may.

    Raises ValueError when ``closed`` names nobody.
    """
    unknown = sorted(closed - set(HOUSES))
    if unknown:
        raise ValueError(f"closed: no contributor {', '.join(unknown)}; there are {', '.join(HOUSES)}")
    rates = tuple(
        Series(id=f"demo-fx-{c.lower()}", title=f"{c} per EUR (simulated)", kind="fx", unit=f"{c}/EUR",
               frequency="daily", origin="demo-fx", currency_of=c)
        for c in ("USD", "CNY")
    )  # fmt: skip
    output = tuple(
        Series(id=f"demo-production-{m}", title=f"World output of {m} (simulated)", kind="production", mineral=m,
               unit="t", quoted_on="contained", frequency="annual", origin="demo-production")
        for m in MINERALS
    )  # fmt: skip
    made = {h.name: (h.title, _series(h)) for h in HOUSES.values()}
    made |= {"demo-fx": ("Demo exchange rates", rates), "demo-production": ("Demo production statistics", output)}
    return {source_of(c): _source(title, c in closed, series, c) for c, (title, series) in made.items()}


def _source(title: str, closed: bool, series: tuple[Series, ...], contributor: str) -> Source:
    rights = Rights.preset("open")
    return Source(
        parser="demo",
        title=f"{title} (simulated)",
        publisher=f"{title} (fictional)",
        **TERMS,
        rights=rights.model_copy(update={"publish_value": False}) if closed else rights,
        complete=False,
        min_age_ok_days=400 if contributor == "demo-production" else 45,
        series=series,
    )


def _series(house: House) -> tuple[Series, ...]:
    return tuple(_one(house, MARKETS[i]) for i in house.columns)


def _one(house: House, market: DemoMarket) -> Series:
    unit, quoted_on, tax = quotation(house.name, market)
    return Series(
        id=f"{house.name}-{market.key.replace('/', '-').lower()}",
        title=f"{market.title}, {house.title} (simulated)",
        mineral=market.mineral,
        stage=market.stage,
        zone=market.zone,
        unit=unit,
        quoted_on=quoted_on,
        content=market.content,
        tax=tax,
        frequency="weekly" if house.thursdays else "daily",
        origin=house.name,
        tier=house.tier,
    )
