"""Unit values of many products into one index of imports per origin, and what moved it.

Two measures over the same items (product × leg, each with its windowed unit value and tonnes): the level
by GEKS-Törnqvist over a rolling window with movement splice, which does not drift as a chain of
overlapping windows would (CPI Manual 2020, ch. 10), and the change on the year before by Fisher, whose
windows do not overlap. Contributions add up exactly. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pricing.config import ImportBasket
from pricing.formulas import compare, contributions, logarithmic_mean
from pricing.panels import Panel
from pricing.trade import Indicator

ITEM_LEGS = ("CN", "XCN")
YEAR = 12
LEAST_BASE_MONTHS = 6

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ImportIndex:
    """One origin's index of unit values.

    Attributes
    ----------
    frame : DataFrame, by month
        ``value`` (base period = 100; NaN where too little is known), ``year`` (per cent on the same month
        of the year before), ``items`` (that this month and the one it is linked to share), ``covered``
        (share of the window's traded value whose unit values are published), ``since`` (the month it is
        linked to), ``rule`` (why there is no value).
    moved_by, year_by : DataFrame, month × item
        Points of the index since the month it is linked to, and percentage points on the year before; each row
        sums to the change.
    withheld : str
        Why there is no index; the frames are empty then.
    """

    origin: str
    frame: pd.DataFrame
    moved_by: pd.DataFrame
    year_by: pd.DataFrame
    withheld: str = ""


def import_index(made: Sequence[Indicator], origin: str, rule: ImportBasket, window: int) -> ImportIndex | None:
    """Compile the index of one origin; None where too few items have ever a unit value."""
    frames = {
        f"{one.mineral}/{one.stage}/{leg}": one.frames[leg]
        for one in made
        for leg in ITEM_LEGS
        if one.origin == origin and (not rule.products or f"{one.mineral}/{one.stage}" in rule.products)
    }
    prices = pd.DataFrame({item: f["value"] for item, f in frames.items()}).sort_index()
    prices = prices.loc[:, prices.notna().any()].dropna(how="all")
    if prices.shape[1] < rule.min_items or len(prices) < 2:
        return None
    months = pd.period_range(prices.index[0], prices.index[-1], freq="M").strftime("%Y-%m")
    prices = prices.reindex(months)
    tonnes = pd.DataFrame({str(item): frames[str(item)]["tonnes"] for item in prices}).reindex(prices.index)
    traded = pd.DataFrame({item: f["traded"] for item, f in frames.items()}).reindex(prices.index).sum(axis=1)
    panel = Panel(prices, tonnes.where(prices.notna()))
    covered = ((prices * tonnes).sum(axis=1) / traded).where(traded > 0, 0.0)
    logs, since = _movements(panel, covered >= rule.min_covered, rule.min_items, window)
    known = pd.Series([s is not None for s in since], index=panel.prices.index)
    level = np.full(len(known), np.nan)
    for t, s in enumerate(since):
        if s is not None:
            level[t] = (1.0 if s == t else level[s]) * np.exp(logs[t].sum())
    of_base = level[known & known.index.str.startswith(rule.base_period)]
    if len(of_base) < LEAST_BASE_MONTHS:
        reason = f"{len(of_base)} months of {rule.base_period} have a value; the base needs {LEAST_BASE_MONTHS}"
        return ImportIndex(origin, pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), reason)
    value = level * 100 / float(of_base.mean())
    linked = [t if s is None else s for t, s in enumerate(since)]
    # the logarithmic mean of two equal numbers is that number, so a month linked to itself moves by nothing
    moved = logs * logarithmic_mean(np.nan_to_num(value, nan=1.0), np.nan_to_num(value[linked], nan=1.0))[:, None]
    year, year_by = _on_the_year(panel, rule.min_items)
    there = panel.prices.notna().to_numpy()
    frame = pd.DataFrame(
        {
            "value": value,
            "year": year,
            "items": [int((there[t] & there[s]).sum()) for t, s in enumerate(linked)],
            "covered": covered,
            "since": [known.index[s] if known.iloc[t] and s != t else "" for t, s in enumerate(linked)],
            "rule": _rules(known, covered >= rule.min_covered, there.sum(axis=1) >= rule.min_items),
        },
        index=known.index,
    )
    return ImportIndex(origin, frame, pd.DataFrame(moved, index=known.index, columns=prices.columns), year_by)


def _rules(known: pd.Series, covered: pd.Series, several: npt.NDArray[np.bool_]) -> npt.NDArray[np.object_]:
    """Why a month has no value; nothing where it has one."""
    return np.select(
        [known.to_numpy(), ~covered.to_numpy(), ~several], ["", "covered", "too-few"], default="no-link"
    ).astype(object)


def _movements(panel: Panel, covered: pd.Series, least: int, window: int) -> tuple[Floats, list[int | None]]:
    """Logarithmic movement of GEKS-Törnqvist since the month that each month is linked to, month × item.

    That is the last month with a value that shares enough items. Within the newest window that holds both,
    each row adds up to the movement of GEKS; a month further away is linked directly, so that the index
    goes on after a gap. Also the position of that month: its own for the first, None where there is none.
    """
    window = min(window, len(panel.prices))
    out = np.zeros(panel.prices.shape)
    since: list[int | None] = [None] * len(out)
    there = panel.prices.notna().to_numpy()
    done: list[int] = []
    for t in np.flatnonzero(covered.to_numpy() & (there.sum(axis=1) >= least)).tolist():
        before = next((s for s in reversed(done) if (there[t] & there[s]).sum() >= least), None)
        if before is None and done:
            continue
        if before is not None:
            first = max(t, window - 1) - window + 1
            rows = range(first, first + window) if before >= first else (before,)
            links = [_tornqvist(panel, row, t) - _tornqvist(panel, row, before) for row in rows]
            out[t] = np.mean([link for link in links if np.isfinite(link).all()], axis=0)
        since[t] = t if before is None else before
        done.append(t)
    return out, since


def _tornqvist(panel: Panel, base: int, period: int) -> Floats:
    """Parts of the logarithm of a matched Törnqvist index by item; all NaN where nothing is matched."""
    assert panel.quantities is not None
    prices, quantities = panel.prices.to_numpy(), panel.quantities.to_numpy()
    p0, p1 = prices[base], prices[period]
    matched = np.isfinite(p0) & np.isfinite(p1)
    if not matched.any():
        return np.full(len(p0), np.nan)
    shares = [np.where(matched, p * q, 0.0) for p, q in ((p0, quantities[base]), (p1, quantities[period]))]
    weights = sum(s / s.sum() for s in shares) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(matched, weights * np.log(np.where(matched, p1 / p0, 1.0)), 0.0)


def _on_the_year(panel: Panel, least: int) -> tuple[pd.Series, pd.DataFrame]:
    """Fisher on the same month of the year before, in per cent, and its parts (Van IJzeren; Balk 2008, 4.2.2)."""
    months = panel.prices.index
    change = pd.Series(np.nan, index=months)
    parts = pd.DataFrame(np.nan, index=months, columns=panel.prices.columns)
    there = panel.prices.notna().to_numpy()
    for t, month in enumerate(months):
        before = str(pd.Period(month, "M") - YEAR)
        if before not in months or (there[t] & there[panel.row(before)]).sum() < least:
            continue
        pair = np.array([panel.row(before)]), np.array([t])
        change[month] = (float(compare(panel, "fisher", *pair)[0]) - 1) * 100
        parts.loc[month] = contributions(panel, "fisher", before, month) * 100
    return change, parts
