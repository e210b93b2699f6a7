"""Missing prices filled in by a named rule, each result with the mask of what was filled.

For an index: the movement of the other products, of all or of the same class (CPI Manual 2020, ch. 6,
self-correcting imputation). For display only: the last price carried forward, never longer than a limit; carried
prices pull an index towards no change and make it jump when the price returns. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from pricing.errors import MethodError
from pricing.panels import Floats, Panel


@dataclass(frozen=True, eq=False)
class Imputed:
    """Prices with gaps filled in, and where.

    Attributes
    ----------
    prices : DataFrame, period × product
        NaN where the rule does not reach.
    mask : DataFrame, period × product, bool
        True where the price was filled in, false where it was observed or is still missing.
    rule : str
    display_only : bool
        Carried prices are shown, and never enter an index.
    """

    prices: pd.DataFrame
    mask: pd.DataFrame
    rule: str
    display_only: bool

    def panel(self, quantities: pd.DataFrame | None = None) -> Panel:
        """Panel for an index; MethodError when the prices are for display only.

        Parameters
        ----------
        quantities : DataFrame, period × product, optional
            Every filled price needs one as well, for formulas with weights.

        Returns
        -------
        Panel
        """
        if self.display_only:
            raise MethodError(f"prices filled by {self.rule} are for display; an index takes a mean imputation")
        return Panel(self.prices, quantities)


def overall_mean(
    prices: pd.DataFrame,
    weights: Mapping[str, float] | pd.Series[float] | None = None,
    mean: Literal["geometric", "arithmetic"] = "geometric",
) -> Imputed:
    """Move a missing price with the mean relative of all products that are priced.

    Parameters
    ----------
    prices : DataFrame, period × product
    weights : mapping of product to weight, optional
        By default all count alike.
    mean : {"geometric", "arithmetic"}

    Returns
    -------
    Imputed
        The price before times the mean relative, again and again until the product returns; its own price is then
        compared with the imputed one, which corrects the index. Nothing is filled before a first price, nor where
        no product is priced in both periods.
    """
    return class_mean(prices, dict.fromkeys(map(str, prices.columns), ""), weights, mean)


def class_mean(
    prices: pd.DataFrame,
    classes: Mapping[str, str],
    weights: Mapping[str, float] | pd.Series[float] | None = None,
    mean: Literal["geometric", "arithmetic"] = "geometric",
    minimum: int = 1,
) -> Imputed:
    """Move a missing price with the mean relative of the products of its class that are priced.

    Parameters
    ----------
    prices : DataFrame, period × product
    classes : mapping of product to class
        Every product has one.
    weights : mapping of product to weight, optional
    mean : {"geometric", "arithmetic"}
    minimum : int
        Fewest matched products for a class to move a price; with 1 a single quote may drive the class. Below it
        the price stays missing, until it is observed.

    Returns
    -------
    Imputed
    """
    observed = Panel(prices).prices
    names = [str(column) for column in observed.columns]
    if lost := [name for name in names if name not in classes]:
        raise MethodError(f"{lost[0]} belongs to no class")
    if mean not in ("geometric", "arithmetic") or minimum < 1:
        raise MethodError(f"a mean is geometric or arithmetic over at least 1 product, not {mean!r} over {minimum}")
    groups = [np.array([classes[name] == group for name in names]) for group in sorted(set(classes.values()))]
    shares = np.ones(len(names)) if weights is None else np.array([float(weights.get(name, 0.0)) for name in names])
    if not (shares >= 0).all():
        raise MethodError("weights are zero or above")
    table, seen = observed.to_numpy(copy=True), observed.notna().to_numpy()
    for row in range(1, len(table)):
        for group in groups:
            both = group & seen[row] & ~np.isnan(table[row - 1]) & (shares > 0)
            gap = group & ~seen[row] & ~np.isnan(table[row - 1])
            if gap.any() and both.sum() >= minimum:
                relatives = table[row, both] / table[row - 1, both]
                table[row, gap] = table[row - 1, gap] * _mean(relatives, shares[both], mean)
    kind = "overall mean" if len(groups) == 1 else "class mean"
    return _imputed(observed, table, seen, f"{mean} {kind}", False)


def carried(prices: pd.DataFrame, limit: int, backward: bool = False) -> Imputed:
    """Repeat the last price over a gap, for display.

    Parameters
    ----------
    prices : DataFrame, period × product
    limit : int
        Most periods for which one price is repeated.
    backward : bool
        Repeat the next price instead, which also fills before a first price.

    Returns
    -------
    Imputed
        Marked for display only.
    """
    if limit < 1:
        raise MethodError(f"a price is carried for one period or more, not {limit}")
    observed = Panel(prices).prices
    filled = observed.bfill(limit=limit) if backward else observed.ffill(limit=limit)
    rule = f"carrying {'backward' if backward else 'forward'} up to {limit}"
    return _imputed(observed, filled.to_numpy(), observed.notna().to_numpy(), rule, True)


def _mean(relatives: Floats, weights: Floats, mean: str) -> float:
    if mean == "geometric":
        return float(np.exp(np.average(np.log(relatives), weights=weights)))
    return float(np.average(relatives, weights=weights))


def _imputed(
    observed: pd.DataFrame, table: Floats, seen: npt.NDArray[np.bool_], rule: str, display_only: bool
) -> Imputed:
    filled = pd.DataFrame(table, index=observed.index, columns=observed.columns)
    return Imputed(filled, filled.notna() & ~seen, rule, display_only)
