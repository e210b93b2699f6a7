"""Figures as they stand in documents: numbers, ages, changes, years."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from pricing.documents.edition import Edition
from pricing.errors import ReleaseError
from pricing.figures import FREQUENCIES, MarketPrices


def all_sources(lines: Iterable[Mapping[str, Any]]) -> set[str]:
    """Sources that any of the lines names."""
    return {s for line in lines for s in line["sources"]}


def years(periods: pd.Index) -> Iterator[tuple[str, range]]:
    """Yield each year with the positions of its periods, which are in order."""
    years = np.array([p[:4] for p in periods.tolist()], dtype=object)
    starts = [0, *(np.flatnonzero(years[1:] != years[:-1]) + 1).tolist(), len(years)]
    for first, after in zip(starts, starts[1:], strict=False):
        yield str(years[first]), range(first, after)


def history(base: str, frequency: str, periods: pd.Index) -> list[dict[str, str]]:
    """Addresses of the yearly parts."""
    return [{"year": year, "href": f"{base}/{frequency}/{year}"} for year, _ in years(periods)]


def latest(frame: pd.DataFrame) -> dict[str, Any] | None:
    """The last price of a market, None where there is none."""
    given = frame[frame["unrounded"].notna()]
    if given.empty:
        return None
    last = given.iloc[-1]
    return {
        "period": given.index[-1],
        "value": number(last["value"]),
        "unrounded": number(last["unrounded"]),
        "status": last["status"],
        "grade": text(last["grade"]),
        "type": last["type"],
        "change": change(given["unrounded"]),
    }


def aged(edition: Edition, latest: dict[str, Any] | None, markets: Iterable[MarketPrices]) -> dict[str, Any] | None:
    """Add how old a figure is at its release, and whether that is more than its sources' rhythm explains."""
    if latest is None:
        return None
    age = age_days(edition, latest["period"])
    made = [p for m in markets for p in map(m.made, FREQUENCIES) if p is not None]
    quoting = {edition.source_of[s.id] for p in made for s in p.quotes.series}
    allowed = max((edition.operation.sources[s].min_age_ok_days for s in quoting), default=0)
    return latest | {"age_days": age, "stale": age > allowed}


def age_days(edition: Edition, period: str) -> int:
    """Days from the end of a month or day to the release."""
    end = pd.Period(period, "M" if len(period) == 7 else "D").end_time.date()
    return (dt.date.fromisoformat(edition.released_at[:10]) - end).days


def change(values: pd.Series) -> dict[str, Any]:
    """Per cent against the value before and the same period (or the last day up to it) of the year before."""
    last, period = float(values.iloc[-1]), str(values.index[-1])
    out: dict[str, Any] = {"before": None, "year": None, "unit": "%"}
    if len(values) > 1:
        out["before"] = per_cent(last, float(values.iloc[-2]))
    year_ago = f"{int(period[:4]) - 1}{period[4:]}"
    earlier = values[values.index <= year_ago]
    if len(earlier) and earlier.index[-1] >= _near(year_ago):
        out["year"] = per_cent(last, float(earlier.iloc[-1]))
    return out


def _near(period: str) -> str:
    """The same month, or ten days before a day: the nearest that a year's change may reach back to."""
    if len(period) == 7:
        return period
    day = pd.Timestamp(period[:8] + "28") if period.endswith("02-29") else pd.Timestamp(period)
    return str((day - pd.Timedelta(days=10)).date())


def per_cent(new: float, old: float) -> float:
    """Change in per cent, to four decimals."""
    return round((new / old - 1) * 100, 4)


def month_end(month: str) -> int:
    """Last instant of a month, in microseconds since 1970."""
    return int(pd.Period(month, "M").end_time.tz_localize("UTC").value // 1000)


def instant_text(microseconds: int) -> str:
    """An instant of the store as text."""
    return pd.Timestamp(microseconds, unit="us", tz="UTC").strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def numbers(column: pd.Series) -> list[float | None]:
    """A column as JSON numbers: None where there is none."""
    return [None if v != v else v for v in column.astype("float64").tolist()]


def number(value: Any) -> float | None:
    """One JSON number, None where there is none. Raises ReleaseError for an infinite one."""
    found = float(value)
    if math.isinf(found):
        raise ReleaseError(f"a figure is infinite: {value!r}")
    return None if math.isnan(found) else found


def text(value: Any) -> str | None:
    """Text, or None for what is none."""
    return value if isinstance(value, str) else None
