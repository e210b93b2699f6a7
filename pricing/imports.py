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
        of the year before), ``items`` (that this month and the last share), ``covered`` (share of the
        window's traded value whose unit values are published).
    moved_by, year_by : DataFrame, month × item
        Points of the index since the last month with a value, and percentage points on the year before; each row
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
    logs, shared, known = _movements(panel, covered >= rule.min_covered, rule.min_items, window)
    level = np.exp(logs.sum(axis=1).cumsum())
    of_base = level[known & level.index.str.startswith(rule.base_period)]
    if len(of_base) < LEAST_BASE_MONTHS:
        reason = f"{len(of_base)} months of {rule.base_period} have a value; the base needs {LEAST_BASE_MONTHS}"
        return ImportIndex(origin, pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), reason)
    value = level * 100 / float(of_base.mean())
    moved = logs.mul(logarithmic_mean(value.to_numpy(), value.shift(1).fillna(value.iloc[0]).to_numpy()), axis=0)
    year, year_by = _on_the_year(panel, rule.min_items)
    frame = pd.DataFrame({"value": value.where(known), "year": year, "items": shared, "covered": covered})
    return ImportIndex(origin, frame, moved, year_by)


def _movements(
    panel: Panel, covered: pd.Series, least: int, window: int
) -> tuple[pd.DataFrame, npt.NDArray[np.int64], pd.Series]:
    """Logarithmic movement of GEKS-Törnqvist since the last month that has a value, month × item.

    Each row adds up to the movement of the newest window that holds its month. Also the items shared with
    that last month, and the months that have a value.
    """
    months = panel.prices.index
    window = min(window, len(months))
    out, shared = np.zeros(panel.prices.shape), np.zeros(len(months), dtype=np.int64)
    known = np.zeros(len(months), dtype=bool)
    there = panel.prices.notna().to_numpy()
    before: int | None = None
    for t in np.flatnonzero(covered.to_numpy() & (there.sum(axis=1) >= least)).tolist():
        first = max(t, window - 1) - window + 1
        if before is not None:
            shared[t] = (there[t] & there[before]).sum()
            if shared[t] < least or before < first:
                continue
            links = [_tornqvist(panel, row, t) - _tornqvist(panel, row, before) for row in range(first, first + window)]
            out[t] = np.mean([link for link in links if np.isfinite(link).all()], axis=0)
        known[t], before = True, t
    return pd.DataFrame(out, index=months, columns=panel.prices.columns), shared, pd.Series(known, index=months)


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
