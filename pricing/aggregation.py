"""Aggregation of component indices by weights, with annual links, and contributions across the links.

The HICP Methodological Manual (Eurostat 2024, ch. 8) and the CPI Manual 2020, ch. 8-9: components are unchained on
the link, averaged with the weights of the year that follows it, and chained again. Pure.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from pricing.chaining import chained, level_at, references, unchained
from pricing.errors import MethodError
from pricing.panels import FixedBaseIndex, Floats, Panel, quotient


def weighted_mean(
    values: pd.DataFrame,
    weights: pd.Series[float] | pd.DataFrame,
    mean: Literal["arithmetic", "geometric"] = "arithmetic",
) -> pd.Series[float]:
    """Aggregate indices, the weights taken anew over those that have a value.

    Parameters
    ----------
    values : DataFrame, period × component
    weights : Series by component, or DataFrame, period × component
        Zero or above, on any scale. Missing means not in the basket.
    mean : {"arithmetic", "geometric"}

    Returns
    -------
    Series, by period
        Null where no component has both value and weight.

    Raises
    ------
    MethodError
        For an index that is not above zero, and weights below zero or of components that are not there.
    """
    numbers = Panel(values).prices.to_numpy()
    shares = _shares(numbers, _aligned(weights, values))
    if mean == "geometric":
        filled = np.log(np.where(shares > 0, numbers, 1.0))
        return pd.Series(np.exp((shares * filled).sum(axis=1)), index=values.index)
    return pd.Series((shares * np.where(shares > 0, numbers, 0.0)).sum(axis=1), index=values.index)


def price_updated(weights: pd.Series[float], earlier: pd.Series[float], later: pd.Series[float]) -> pd.Series[float]:
    """Carry value weights forward to the prices of a later period (CPI Manual 2020, ch. 9).

    Parameters
    ----------
    weights : Series, by product
        Value weights at the prices of the earlier period.
    earlier, later : Series, by product
        Prices of the two periods.

    Returns
    -------
    Series, by product
        Shares that sum to 1: w p_later / p_earlier. A Young index from these is the Lowe index.

    Raises
    ------
    MethodError
        When a product that has a weight has no price above zero in one of the periods.
    """
    relatives = later.reindex(weights.index) / earlier.reindex(weights.index)
    for product in weights.index[(weights > 0) & ~((relatives > 0) & np.isfinite(relatives))]:
        raise MethodError(f"weight of {product} cannot be price-updated: it needs a price above zero in both periods")
    if (weights < 0).any() or not weights.sum() > 0:
        raise MethodError("weights are zero or above, and one of them is above")
    updated = (weights * relatives).where(weights > 0, 0.0)
    return updated / updated.sum()


def chain_linked(components: pd.DataFrame, weights: pd.DataFrame, step: int | Literal["year"]) -> FixedBaseIndex:
    """Aggregate component indices to an annually linked Laspeyres-type index.

    Parameters
    ----------
    components : DataFrame, month × component
        Levels, on any base each. A component enters at the first link at which it has a value.
    weights : DataFrame, year × component
        Years as text. The weights of a year hold from the link before its first movement: ``2021`` from the link
        at December 2020 or at the mean of 2020, or from that in March 2021. Missing means not in the basket.
    step : month 1-12, or "year"

    Returns
    -------
    FixedBaseIndex
        1 at the first link.

    Raises
    ------
    MethodError
        When a year has no weights, or the periods are not months in order, the link months among them.
    """
    parts, levels, refs = _cumulated(components, weights, step)
    first = next(ref for ref in refs if ref is not None)
    return FixedBaseIndex(pd.Series(levels, index=parts.index), first, "annually linked weighted mean")


def chained_contributions(
    components: pd.DataFrame, weights: pd.DataFrame, step: int | Literal["year"], lag: int
) -> pd.DataFrame:
    """Split the change of a chain-linked index over its components, exactly, across any number of links.

    Parameters
    ----------
    components, weights, step
        As for ``chain_linked``.
    lag : int
        Months: 1 for the change on the month before, 12 for that on the year before.

    Returns
    -------
    DataFrame, month × component
        Share of the earlier level (0.01 is one percentage point); each row sums to I(t) / I(t - lag) - 1. Zero
        for a component outside the basket, null rows where the change is not computable.

    Notes
    -----
    Ribe's decomposition (HICP Methodological Manual 2024, ch. 8): within one basket a component contributes its
    weight times its movement on the link, times the level at the link; over a link the pieces are added. Cumulated
    from the first link these pieces add up to the level, so that a difference of two cumulated rows is the answer
    for any lag. With links on a year's mean the cumulated pieces are averaged as the level is.
    """
    if lag < 1:
        raise MethodError(f"a lag is one month or more, not {lag}")
    parts, levels, _ = _cumulated(components, weights, step)
    rows = {label: row for row, label in enumerate(parts.index)}
    earlier = np.array([rows.get(_months_before(label, lag), -1) for label in parts.index])
    table = parts.to_numpy()
    change = (table - table[earlier]) / levels[earlier][:, None]
    change[(earlier < 0) | np.isnan(levels)] = np.nan
    return pd.DataFrame(change, index=parts.index, columns=parts.columns)


def _cumulated(
    components: pd.DataFrame, weights: pd.DataFrame, step: int | Literal["year"]
) -> tuple[pd.DataFrame, Floats, list[str | None]]:
    """What each component added to the level since the first link (month × component), the level, the links."""
    numbers = Panel(components).prices
    refs = references(components.index, step)
    movements = unchained(numbers.to_numpy(), refs, components.index)
    shares = _shares(movements, _yearly(components, weights, refs))
    gains = np.where(shares > 0, shares * (movements - 1), shares)
    labels = [str(period) for period in components.index]
    movement = 1 + gains.sum(axis=1, keepdims=True)
    levels, first = chained(movement, refs, components.index)
    parts = np.full(numbers.shape, np.nan)
    if first in labels:
        parts[labels.index(first)] = 0.0
    for ref in dict.fromkeys(ref for ref in refs if ref is not None):
        rows = [row for row, other in enumerate(refs) if other == ref]
        start = np.zeros(parts.shape[1]) if ref == first else level_at(parts, labels, ref)
        parts[rows] = start + gains[rows] * (1.0 if ref == first else level_at(levels, labels, ref)[0])
    return pd.DataFrame(parts, index=components.index, columns=components.columns), levels[:, 0], refs


def _yearly(components: pd.DataFrame, weights: pd.DataFrame, refs: list[str | None]) -> Floats:
    """Weights in force in each period, period × component."""
    for component in weights.columns.difference(components.columns):
        raise MethodError(f"weight of {component}: there is no such component")
    table = weights.rename(index=str).reindex(columns=components.columns)
    out = np.full(components.shape, np.nan)
    for row, ref in enumerate(refs):
        if ref is None:
            continue
        year = ref if ref[4:] not in ("", "-12") else f"{int(ref[:4]) + 1:04d}"
        if year[:4] not in table.index:
            raise MethodError(f"there are no weights for {year[:4]}, which {components.index[row]} needs")
        out[row] = table.loc[year[:4]].to_numpy(dtype="float64")
    return out


def _aligned(weights: pd.Series[float] | pd.DataFrame, values: pd.DataFrame) -> Floats:
    names = weights.columns if isinstance(weights, pd.DataFrame) else weights.index
    for component in names.difference(values.columns):
        raise MethodError(f"weight of {component}: there is no such component")
    if isinstance(weights, pd.DataFrame):
        return weights.reindex(index=values.index, columns=values.columns).to_numpy(dtype="float64")
    return np.broadcast_to(weights.reindex(values.columns).to_numpy(dtype="float64"), values.shape)


def _shares(values: Floats, weights: Floats) -> Floats:
    """Weights over those that have a value: rows sum to 1, or are NaN where there is none."""
    if (weights < 0).any() or np.isinf(weights).any():
        raise MethodError("weights are zero or above, and finite")
    kept = np.where(np.isnan(values) | np.isnan(weights), 0.0, weights)
    return quotient(kept, kept.sum(axis=1, keepdims=True))


def _months_before(label: str, lag: int) -> str:
    months = int(label[:4]) * 12 + int(label[5:]) - 1 - lag
    return f"{months // 12:04d}-{months % 12 + 1:02d}"
