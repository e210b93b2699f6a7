"""Somebody else's published index rebuilt from their own prices and weights, and set beside what they published.

It shows that our formulas, given another's basket, give another's figures. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pricing.chaining import level_at, rebase
from pricing.config import Replica
from pricing.errors import MethodError
from pricing.formulas import fixed_base
from pricing.panels import FixedBaseIndex, Panel

LEVEL = 100.0


@dataclass(frozen=True)
class Comparison:
    """A published index and the rebuilt one.

    Attributes
    ----------
    frame : DataFrame, by month
        ``published``, ``rebuilt``, ``absolute`` and ``relative`` (difference, without sign), for every month from
        the first to the last that has one of the two.
    unmatched : tuple of str
        Months of these that lack a value on either side: there is nothing to compare, and so no agreement.
    """

    frame: pd.DataFrame
    unmatched: tuple[str, ...]

    @property
    def months(self) -> int:
        """How many months were compared."""
        return len(self.frame) - len(self.unmatched)

    def largest(self, difference: str) -> float:
        """Largest difference, ``absolute`` or ``relative``; NaN where nothing was compared."""
        return float(self.frame[difference].max())

    def agrees(self, tolerance: float) -> bool:
        """Whether every month has both values, and they differ by no more than this, absolutely and relatively."""
        within = all(self.largest(difference) <= tolerance for difference in ("absolute", "relative"))
        return self.months > 0 and not self.unmatched and within


def rebuilt(prices: pd.DataFrame, basket: Replica) -> FixedBaseIndex:
    """Compile an index as its publisher does: value shares over the relatives to the mean price of the base year.

    Parameters
    ----------
    prices : DataFrame, month × column
        The publisher's prices, of the members at least, in any units.
    basket : Replica

    Returns
    -------
    FixedBaseIndex
        100 in the base year. Null in a month in which a member has no price: a publisher's rule for gaps is not
        ours to guess.

    Raises
    ------
    MethodError
        When a member has no column, or no price in each month of the base year.

    Notes
    -----
    I_t = 100 sum_i w_i (p_i,t / mean of p_i over the base year) / sum_i w_i: a Young index (CPI Manual 2020, ch. 8)
    whose price reference period is a year.
    """
    weights = {member.column: member.weight for member in basket.members}
    if lacking := [column for column in weights if column not in prices]:
        raise MethodError(f"{basket.title}: no prices of {', '.join(lacking)}")
    own = Panel(prices[list(weights)]).prices
    base = level_at(own.to_numpy(), [str(month) for month in own.index], basket.base_period)
    if without := [str(column) for column, level in zip(own, base, strict=True) if np.isnan(level)]:
        raise MethodError(f"{basket.title}: {', '.join(without)} lacks a price in a month of {basket.base_period}")
    of_base = pd.DataFrame([base], index=[basket.base_period], columns=own.columns)
    index = fixed_base(Panel(pd.concat([of_base, own])), basket.formula, basket.base_period, weights)
    values = rebase(index, basket.base_period, LEVEL).values.loc[own.index].where(own.notna().all(axis=1))
    return FixedBaseIndex(values, basket.base_period, basket.formula, LEVEL)


def compared(prices: pd.DataFrame, published: pd.Series[float], basket: Replica) -> Comparison:
    """Rebuild an index and compare each of its months with what was published.

    Parameters
    ----------
    prices : DataFrame, month × column
    published : Series, by month
    basket : Replica

    Returns
    -------
    Comparison

    Raises
    ------
    MethodError
        As ``rebuilt`` does, and when nothing was published.
    """
    ours, theirs = rebuilt(prices, basket).values.dropna(), published.dropna()
    if theirs.empty:
        raise MethodError(f"{basket.title}: there are no published values to compare with")
    labels = ours.index.union(theirs.index)
    months = pd.period_range(labels[0], labels[-1], freq="M").strftime("%Y-%m")
    frame = pd.DataFrame({"published": theirs, "rebuilt": ours}).reindex(months)
    frame["absolute"] = (frame["rebuilt"] - frame["published"]).abs()
    frame["relative"] = frame["absolute"] / frame["published"].abs()
    return Comparison(frame, tuple(frame.index[frame["absolute"].isna()]))
