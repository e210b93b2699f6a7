"""What index numbers are made of and what they are: a checked panel, movements to be chained, and levels.

Movements and levels are two types, so that an index cannot be chained twice: for mypy it is an error of types,
for a program that runs a ``MethodError``. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from pricing.errors import MethodError

Floats = npt.NDArray[np.float64]
Step = int | Literal["period", "year"]


@dataclass(frozen=True, eq=False)
class Panel:
    """Prices, and quantities where known, of products over periods.

    Attributes
    ----------
    prices : DataFrame, period × product
        One price concept, one currency and one unit in each column, above zero. NaN is missing.
    quantities : DataFrame, period × product, optional
        In the units that the prices are for, zero or above. Ignored where the price is missing.

    Raises
    ------
    MethodError
        For a price that is not above zero, a quantity below zero, a value that is not finite, labels that
        repeat, or quantities of other periods or products; the message names period and product.
    """

    prices: pd.DataFrame
    quantities: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        prices = _numbers(self.prices, "price")
        object.__setattr__(self, "prices", prices)
        _refuse(prices, ~(prices > 0) & prices.notna(), "price", "is not above zero")
        if self.quantities is None:
            return
        quantities = _numbers(self.quantities, "quantity")
        same = set(quantities.index) == set(prices.index) and set(quantities.columns) == set(prices.columns)
        if not same:
            raise MethodError("quantities and prices are of different periods or products")
        quantities = quantities.loc[prices.index, prices.columns]
        _refuse(quantities, quantities < 0, "quantity", "is below zero")
        object.__setattr__(self, "quantities", quantities.where(prices.notna()))

    @classmethod
    def of_values(cls, prices: pd.DataFrame, values: pd.DataFrame) -> Panel:
        """Make a panel from values (turnover, production value, weights) instead of quantities.

        Parameters
        ----------
        prices : DataFrame, period × product
        values : DataFrame, period × product
            Price times quantity, on any scale: shares are all that counts.

        Returns
        -------
        Panel
            With the notional quantities value / price.
        """
        return cls(prices, values.astype("float64") / cls(prices).prices)

    def row(self, period: str) -> int:
        """Position of a period; MethodError when the panel does not have it."""
        return position(self.prices.index, period)


@dataclass(frozen=True, eq=False)
class ChainableIndex:
    """Movements to be chained: each value compares its period with the one that it is linked to.

    Attributes
    ----------
    values : Series, by period
        1 means no change; NaN where there is nothing to compare.
    step : "period", a month 1-12, or "year"
        What a value is linked to: the period before, the last such month before, or the mean of the year before.
    formula : str
    """

    values: pd.Series[float]
    step: Step = "period"
    formula: str = ""

    def __post_init__(self) -> None:
        if self.step not in ("period", "year", *range(1, 13)):
            raise MethodError(f"a link is the period before, a month 1 to 12 or the year, not {self.step!r}")
        object.__setattr__(self, "values", _levels(self.values))


@dataclass(frozen=True, eq=False)
class FixedBaseIndex:
    """Levels: every value compares its period with one base. A chained index is one of these too.

    It is another type than ``ChainableIndex``, so that nothing can be chained twice.

    Attributes
    ----------
    values : Series, by period
        NaN where not computable.
    base : str
        The period or year that the values are relative to.
    formula : str
    level : float
        Level of the base: 1, or what it was rebased to.
    """

    values: pd.Series[float]
    base: str
    formula: str = ""
    level: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _levels(self.values))


def quotient(part: Floats, whole: Floats) -> Floats:
    """Parts over wholes above zero; NaN where there is no such whole."""
    nothing = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    return np.asarray(np.divide(part, whole, out=nothing, where=whole > 0), dtype=np.float64)


def position(periods: pd.Index, period: str) -> int:
    """Position of a period among the labels; MethodError when it is not there."""
    if period not in periods:
        raise MethodError(f"period {period} is outside the panel or index, which holds {periods[0]} to {periods[-1]}")
    return int(np.flatnonzero(periods == period)[0])


def _numbers(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    for labels, name in ((frame.index, "period"), (frame.columns, "product")):
        if not labels.is_unique:
            raise MethodError(f"{what}: {name} {labels[labels.duplicated()][0]} appears twice")
    if frame.empty:
        raise MethodError(f"{what}: the panel is empty")
    try:
        numbers = frame.astype("float64")
    except (TypeError, ValueError) as error:
        raise MethodError(f"{what}: the panel holds something that is no number: {error}") from error
    _refuse(numbers, numbers.abs() == np.inf, what, "is not finite")
    return numbers


def _refuse(frame: pd.DataFrame, wrong: pd.DataFrame, what: str, fault: str) -> None:
    places = np.argwhere(wrong.to_numpy())
    if len(places):
        row, column = places[0]
        value = float(frame.to_numpy()[row, column])
        more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
        raise MethodError(f"{what} of {frame.columns[column]} in {frame.index[row]}: {value:g} {fault}{more}")


def _levels(values: pd.Series[float]) -> pd.Series[float]:
    """Index values by period: unique labels, above zero or missing."""
    levels = values.astype("float64")
    if not levels.index.is_unique:
        raise MethodError(f"index: period {levels.index[levels.index.duplicated()][0]} appears twice")
    table = levels.to_numpy()
    wrong = np.flatnonzero((table <= 0) | np.isinf(table))
    if len(wrong):
        raise MethodError(f"index of {levels.index[wrong[0]]}: {table[wrong[0]]:g} is not above zero and finite")
    return levels
