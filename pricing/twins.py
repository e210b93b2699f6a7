"""Analytical twins of a published index: the same markets and months, weighed or chained in other ways.

They say how much of an index is its weights (unweighted, equal-risk) and how much its links (superlative):
the level of the index over the superlative one is its *drift*. They are no indices of their own. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pricing.chaining import chain
from pricing.config import TwinRules
from pricing.errors import MethodError
from pricing.formulas import period_on_period
from pricing.imputation import overall_mean
from pricing.index import Index, Link, capped, fixed_basket
from pricing.multilateral import geks_windows, splice
from pricing.panels import ChainableIndex, Panel

UNWEIGHTED = "Jevons over own prices, chained"
EQUAL_RISK = "as the index, weighed by the inverse of volatility in the {risk_months} months before each link, capped"
SUPERLATIVE = "GEKS-Törnqvist over the notional quantities, {geks_window} months, movement splice"


@dataclass(frozen=True)
class Twin:
    """One analytical twin.

    Attributes
    ----------
    formula : str
    frame : DataFrame, by month
        ``unrounded`` (base period = 100; NaN where the index has no value) and ``status`` (as for the index).
    links : tuple of Link
        Where it has weights of its own.
    volatility : mapping of link month to (mapping of market to volatility) [1/month]
        What those weights rest on.
    withheld : str
        Why it is not compiled; the frame is empty then.
    """

    formula: str
    frame: pd.DataFrame
    links: tuple[Link, ...] = ()
    volatility: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    withheld: str = ""


@dataclass(frozen=True)
class Twins:
    """The twins of one index, and its drift: per cent by month since the base, NaN where one side has no value."""

    unweighted: Twin
    equal_risk: Twin
    superlative: Twin
    drift: pd.Series[float]


def twins(
    prices: pd.DataFrame, index: Index, base_period: str, cap: float, min_weight: float, rules: TwinRules
) -> Twins:
    """Compile the twins of a monthly index.

    Parameters
    ----------
    prices : DataFrame, month × market [USD/t]
        Those that the index was compiled from.
    index : Index
    base_period : str
        A month or a year = 100, as for the index.
    cap, min_weight : float
        As for the index; the equal-risk twin keeps to them too.
    rules : TwinRules

    Returns
    -------
    Twins
        Each compiled or withheld with its reason; none keeps another out.
    """
    unweighted = _twin(UNWEIGHTED, index, base_period, lambda: _jevons(prices, index))
    formula = SUPERLATIVE.format(geks_window=rules.geks_window)
    superlative = _twin(formula, index, base_period, lambda: _geks(prices, index, base_period, rules.geks_window))
    equal_risk = _equal_risk(prices, index, base_period, cap, min_weight, rules)
    beside = superlative.frame["unrounded"].reindex(index.frame.index)
    return Twins(unweighted, equal_risk, superlative, (index.frame["unrounded"] / beside - 1) * 100)


def risk_link(volatilities: Mapping[str, float], month: str, markets: Iterable[str], cap: float) -> Link:
    """Weigh markets at a link by the inverse of their volatility, capped.

    Parameters
    ----------
    volatilities : mapping of market to volatility [1/month]
    month : str
        The link month.
    markets : iterable of str
        Those of the index at that link.
    cap : float

    Returns
    -------
    Link
        Over the markets whose volatility is known.

    Raises
    ------
    MethodError
        When no volatility is known, or the cap cannot be kept.

    Notes
    -----
    Shares proportional to 1/sigma give each market the same risk of its own; correlations are not looked at
    (naive risk parity: Maillard, Roncalli and Teiletche 2010, for equal correlations).
    """
    raw = {m: 1 / volatilities[m] for m in sorted(markets) if m in volatilities}
    if not raw:
        raise MethodError(f"no market of the index has a volatility in the months before {month}")
    total = math.fsum(raw.values())
    return Link(month, capped(raw, cap), {m: share / total for m, share in raw.items()})


def volatility(prices: pd.DataFrame, month: str, rules: TwinRules) -> dict[str, float]:
    """Standard deviation of monthly logarithmic changes in the months before a link.

    Parameters
    ----------
    prices : DataFrame, month × market [USD/t]
    month : str
        The link month. Nothing of it, or after it, is looked at: its mean is not known before it ends.
    rules : TwinRules

    Returns
    -------
    dict of market to volatility [1/month]
        Of markets with enough changes between neighbouring months. A price that never moved is a list price
        or a stale one: it measures no risk, and would weigh without bound, so it is not among them.
    """
    last = pd.Period(month, "M") - 1
    window = pd.period_range(last - rules.risk_months, last, freq="M").strftime("%Y-%m")
    of_window = prices.reindex(window).astype("float64")
    changes = pd.DataFrame(np.log(of_window / of_window.shift()))
    spread = changes.std(ddof=1)[changes.count() >= rules.min_changes]
    # what rounding leaves of a constant is no movement
    return {str(market): float(sigma) for market, sigma in spread.items() if sigma > 1e-12}


# ------------------------------------------------------------------------------------------ the three


def _twin(formula: str, index: Index, base_period: str, levels: Callable[[], pd.Series[float]]) -> Twin:
    """Rebase levels, by month of the index, as the index is; or say why there are none."""
    try:
        frame = pd.DataFrame({"unrounded": _on_base(levels(), base_period)})
    except MethodError as error:
        return _withheld(formula, error)
    return Twin(formula, frame.assign(status=index.frame["status"].where(frame["unrounded"].notna(), "insufficient")))


def _jevons(prices: pd.DataFrame, index: Index) -> pd.Series[float]:
    """Jevons over the markets of the basket in force, each month over the one before.

    A price missing between others moves with the geometric mean of the rest, which leaves the month to the
    own prices, and is dropped when it returns.
    """
    after, movements = [*(link.month for link in index.links[1:]), "9999-12"], []
    for position, (link, until) in enumerate(zip(index.links, after, strict=True)):
        held = index.quantities.columns[index.quantities[index.frame["link"] == link.month].gt(0).any()]
        rows = (prices.index <= until) & ((prices.index >= link.month) | (position == 0))
        own = prices.loc[rows, held].dropna(how="all")
        if own.empty:
            continue  # the last month is a link: nothing has moved since
        moved = period_on_period(overall_mean(own).panel(), "jevons").values
        movements.append(moved if position == 0 else moved.iloc[1:])
    chained = chain(ChainableIndex(pd.concat(movements), "period", "jevons"), index.links[0].month).values
    return chained.reindex(prices.index).where(index.frame["unrounded"].notna())


def _geks(prices: pd.DataFrame, index: Index, base_period: str, window: int) -> pd.Series[float]:
    """GEKS-Törnqvist since the base over own prices and the notional quantities in force.

    Comparisons rest on what is in the basket in both months: one that joined or ceased between them is in neither.
    """
    given = index.frame["unrounded"].notna() & (index.frame.index >= base_period)
    held = index.quantities[given]
    own = prices[given].where(held > 0)
    if len(own) < 2:
        raise MethodError(f"one month since {base_period} has a value: there is nothing to compare")
    windows = geks_windows(Panel(own, held.where(own.notna())), "tornqvist", min(window, len(own)))
    return splice(windows, "movement").values.reindex(prices.index)


def _equal_risk(
    prices: pd.DataFrame, index: Index, base_period: str, cap: float, min_weight: float, rules: TwinRules
) -> Twin:
    """Compile the index on other weights; a link that has none yet keeps those of the link before."""
    formula = EQUAL_RISK.format(risk_months=rules.risk_months)
    volatilities = {link.month: volatility(prices, link.month, rules) for link in index.links}
    links, reasons = [], list[MethodError]()
    for link in index.links:
        try:
            links.append(risk_link(volatilities[link.month], link.month, link.shares, cap))
        except MethodError as error:
            reasons.append(error)
    if not links:
        return _withheld(formula, reasons[-1])
    try:
        frame = fixed_basket(prices, links, base_period, min_weight).frame
    except MethodError as error:
        return _withheld(formula, error)
    return Twin(formula, frame[["unrounded", "status"]], tuple(links), volatilities)


def _withheld(formula: str, error: MethodError) -> Twin:
    empty = pd.DataFrame({"unrounded": np.array([], dtype="float64"), "status": np.array([], dtype=object)})
    return Twin(formula, empty.set_index(pd.Index([], dtype="str")), withheld=str(error))


def _on_base(levels: pd.Series[float], base_period: str) -> pd.Series[float]:
    base = levels[levels.index.str.startswith(base_period)].dropna()
    if base.empty:
        raise MethodError(f"base period {base_period} has no value")
    return levels * (100 / (math.fsum(base) / len(base)))
