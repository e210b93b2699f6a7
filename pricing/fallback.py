"""What stands in for a price that nobody quoted: a linked market's, at the usual ratio between the two.

Pure. Third in the declared order (Regulation (EU) 2016/1011, Annex II, 1(e); IOSCO PRA principle 3.1): quotations
of the period, then older ones (``pricing.reference.determine``), then this, then a last price that is shown as
carried and enters nothing, then no price. What it gives is an estimate: status ``estimated``, type ``spread``,
grade C.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pandas as pd

from pricing.config import Control, Market, Methodology
from pricing.reference import OBSERVED, Prices, Quotes

COLUMNS = ("linked_price", "linked_ratio", "linked_common")


def from_linked(made: Prices, other: pd.DataFrame, method: Methodology) -> Prices:
    """Fill periods that nobody quoted from the market that ``made``'s market is linked to.

    The ratio is the median of own over linked price over the periods of the window before in which both
    were observed and no trade control was open; a window with fewer common periods than
    ``basis.min_common`` gives none. A period with a status of its own (dispersed, suspended, voided,
    held, confidential) is not filled: there the market, or a rule, said that there is no price.

    Parameters
    ----------
    made : Prices
    other : DataFrame, by period
        Prices of the linked market at the same frequency, in the same unit; only observed ones are used.
    method : Methodology
        Its ``fallback``, ``controls`` and ``basis.min_common``.

    Returns
    -------
    Prices
        With columns ``linked_price`` [the market's unit], ``linked_ratio`` [1] and ``linked_common``
        (periods that made it) in its frame; NaN where nothing was filled.
    """
    rules, frequency = method.fallback, made.quotes.frequency
    frame = made.frame.assign(**dict.fromkeys(COLUMNS, np.nan))
    periods = frame.index
    beside = _observed(other).reindex(periods).to_numpy(dtype="float64")
    own = _observed(frame).to_numpy(dtype="float64")
    free = ~barred(made.quotes.market, periods, method.controls, ten_day=frequency == "ten-day")
    with np.errstate(invalid="ignore"):
        ratio = np.where(free, np.log(own / beside), np.nan)
    least = method.basis.min_common[frequency]  # type: ignore[index]
    silent = (frame["status"] == "missing").to_numpy() & ~np.isnan(beside) & free
    seen = np.flatnonzero(~np.isnan(own))
    last = np.full(len(periods), -1)
    last[seen] = seen
    last = np.maximum.accumulate(last) if len(last) else last
    for t in np.flatnonzero(silent).tolist():
        row = int(t - last[t])
        window = ratio[max(0, t - rules.window[frequency]) : t]  # type: ignore[index]
        window = window[~np.isnan(window)]
        if row > rules.limit[frequency] or len(window) < least:  # type: ignore[index]
            continue
        middle = float(np.median(window))
        price = float(beside[t] * np.exp(middle))
        reach = _reach(window, middle, row, method.determination.interval)
        frame.loc[periods[t], ["unrounded", "value"]] = price, round(price, made.quotes.market.rounding)
        frame.loc[periods[t], ["interval_low", "interval_high"]] = price * np.exp(-reach), price * np.exp(reach)
        frame.loc[periods[t], ["status", "type", "grade"]] = "estimated", "spread", "C"
        frame.loc[periods[t], list(COLUMNS)] = beside[t], np.exp(middle), len(window)
        if "carried" in frame:
            frame.loc[periods[t], ["carried", "carried_from"]] = np.nan, ""
    return replace(made, frame=frame)


def _reach(window: npt.NDArray[np.float64], middle: float, row: int, coverage: int) -> float:
    """Half width of the interval, as logarithm: how far the ratio lay from its median, and how far it steps.

    The later of several filled periods in a row are that many steps away from the last known ratio.
    """
    steps = np.diff(window)
    variance = float(np.mean((window - middle) ** 2)) + (row * float(np.mean(steps**2)) if len(steps) else 0.0)
    return NormalDist().inv_cdf(0.5 + coverage / 200) * float(np.sqrt(variance))


def _observed(frame: pd.DataFrame) -> pd.Series:
    return frame["unrounded"].where(frame["type"].isin(OBSERVED))


def barred(
    market: Market, periods: Iterable[str], controls: Iterable[Control], *, ten_day: bool = False
) -> npt.NDArray[np.bool_]:
    """Tell in which periods a trade control on either side bars the link of a market.

    A control on the trade of a mineral parts China's market from the one outside, whichever of the two restricts.
    """
    relevant = [c for c in controls if c.mineral == market.mineral]
    if not relevant:
        return np.zeros(len(list(periods)), dtype=bool)
    return np.array([any(c.open_in(*_span(p, ten_day)) for c in relevant) for p in periods], dtype=bool)


def _span(period: str, ten_day: bool) -> tuple[dt.date, dt.date]:
    """First and last day of a month, a ten-day period (named by its last day) or a day."""
    if len(period) == 7:
        first = pd.Period(period, "M")
        return first.start_time.date(), first.end_time.date()
    day = dt.date.fromisoformat(period)
    return (day.replace(day=min((day.day - 1) // 10 * 10 + 1, 21)) if ten_day else day), day


def market_periods(quoted: Iterable[pd.DataFrame]) -> pd.Index:
    """Periods in which most of the markets that live in them were quoted: a zone's calendar, read off its quotations.

    Parameters
    ----------
    quoted : iterable of DataFrame, period × series
        Normalised quotations, NaN where none. A market lives from its first to its last quoted period.

    Returns
    -------
    Index of periods, in order
    """
    seen = [table.index[table.notna().any(axis=1)] for table in quoted]
    seen = [periods for periods in seen if len(periods)]
    if not seen:
        return pd.Index([], dtype=object)
    periods, counts = np.unique(np.concatenate([p.to_numpy(dtype=str) for p in seen]), return_counts=True)
    first, last = np.sort([str(p[0]) for p in seen]), np.sort([str(p[-1]) for p in seen])
    alive = np.searchsorted(first, periods, side="right") - np.searchsorted(last, periods, side="left")
    most: list[str] = periods[2 * counts > alive].tolist()
    return pd.Index(most, dtype=object)


def with_silent_periods(quotes: Quotes, calendar: pd.Index, limit: int) -> Quotes:
    """Add the periods of a calendar in which nobody quoted this market, so that each has a record that says so.

    From the market's first quotation to ``limit`` periods after its last: later it is not missed but over.
    """
    own = quotes.usd_per_t.index
    quoted = own[quotes.usd_per_t.notna().any(axis=1)]
    if quoted.empty:
        return quotes
    after = calendar[calendar > quoted[-1]][:limit]
    added = calendar[(calendar > quoted[0]) & (calendar < quoted[-1])].union(after).difference(own)
    return quotes.with_periods(added)
