"""A capped fixed-basket index, linked each year, from reference prices.

Lowe type (CPI Manual 2020, ch. 8; PPI Manual 2004, ch. 15): at each link the capped value shares
fix notional quantities q = share / price; the level moves with the cost of that basket until the
next link. Before the first link the first basket is held, and the values are marked a back-cast.

Pure: frames in, frames out. Sums are exact (``math.fsum``) and in a fixed order, so that an auditor
gets the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pricing.errors import MethodError

LINK_STEP = "(link)"


@dataclass(frozen=True)
class Link:
    """Capped weights that take effect after a link month.

    Attributes
    ----------
    month : str
        The link month, ``2024-03``: its average prices are the link prices.
    shares : mapping of market key to share
        Capped value shares; they sum to 1.
    uncapped : mapping of market key to share
        The value shares before the cap.
    """

    month: str
    shares: Mapping[str, float]
    uncapped: Mapping[str, float]


@dataclass(frozen=True)
class Index:
    """An index and what moved it.

    Attributes
    ----------
    frame : DataFrame, by period
        ``unrounded`` (base period = 100), ``status`` (``normal``, ``imputed``, ``back-cast``,
        ``insufficient``), ``covered`` (share of the weight with an own price in that period),
        ``link`` (the link month in force).
    contributions : DataFrame, period × (market + ``(link)``)
        Index points by which each market moved the index since the period before; each row sums to
        the change of the level. ``(link)`` is the step of a link on an average: zero in a monthly
        index, and on all days of a daily one but the first after a link month.
    weights : DataFrame, period × market
        Share of each market in the basket's cost at the period before: the weight of its movement.
    imputed : DataFrame, period × market, bool
        Prices of markets in the basket that were not observed.
    quantities : DataFrame, period × market
        Notional quantities in force, 0 outside the basket. From the first link month on a monthly index is
        the sum of price × quantity [index points per USD/t].
    links : tuple of Link
    """

    frame: pd.DataFrame
    contributions: pd.DataFrame
    weights: pd.DataFrame
    imputed: pd.DataFrame
    quantities: pd.DataFrame
    links: tuple[Link, ...]


def capped(shares: Mapping[str, float], cap: float) -> dict[str, float]:
    """Cap shares, and spread what was cut over the others in proportion, until none is above.

    Parameters
    ----------
    shares : mapping of market to share
        Positive; need not sum to 1.
    cap : float
        Largest share allowed.

    Returns
    -------
    dict
        Shares that sum to 1, none above the cap.

    Raises
    ------
    MethodError
        When the cap is below 1/n: no weights satisfy it.
    """
    if not shares:
        raise MethodError("no weights: no constituent has both a production figure and a price")
    if cap < 1 / len(shares) - 1e-12:
        raise MethodError(f"a cap of {cap:g} is below 1/{len(shares)}: no weights satisfy it")
    total = math.fsum(shares.values())
    out = {k: shares[k] / total for k in sorted(shares)}
    held: set[str] = set()
    while over := {k for k, s in out.items() if s > cap + 1e-15 and k not in held}:
        held |= over
        free = math.fsum(shares[k] for k in out if k not in held)
        room = 1 - cap * len(held)
        out = {k: cap if k in held else shares[k] / free * room for k in out}
    return out


def value_shares(tonnes: Mapping[str, float], prices: Mapping[str, float]) -> dict[str, float]:
    """Shares of production value.

    Parameters
    ----------
    tonnes : mapping of market to world production [t/year]
    prices : mapping of market to mean price of that year [USD/t]

    Returns
    -------
    dict
        Over the markets that have both, summing to 1.
    """
    values = {k: tonnes[k] * prices[k] for k in sorted(tonnes) if k in prices and tonnes[k] * prices[k] > 0}
    total = math.fsum(values.values())
    return {k: v / total for k, v in values.items()}


def impute(
    prices: pd.DataFrame, value_weights: Mapping[str, float] | pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fill gaps by the movement of the rest of the basket (overall mean), and say which.

    A gap takes the price before it, moved by the weighted mean relative of the markets priced in
    both periods (PPI Manual 2004, 9.53 ff.: temporarily missing prices). When the price returns,
    the imputed one is dropped, so the imputation corrects itself. Where no market is priced in both
    periods the price stands still. Nothing is filled before a market's first price.

    Parameters
    ----------
    prices : DataFrame, period × market [USD/t]
    value_weights : mapping of market to value share, or DataFrame, period × market

    Returns
    -------
    filled, mask : DataFrame, period × market
        ``mask`` is true where the price was imputed.
    """
    table = prices.to_numpy(dtype="float64").copy()
    mask = np.zeros(table.shape, dtype=bool)
    if isinstance(value_weights, pd.DataFrame):
        by_period = value_weights.to_numpy(dtype="float64")
    else:
        by_period = np.broadcast_to([value_weights.get(str(c), 0.0) for c in prices.columns], table.shape)
    observed = ~np.isnan(table)
    for t in range(1, len(table)):
        gap = ~observed[t] & ~np.isnan(table[t - 1])
        if not gap.any():
            continue
        weights = by_period[t]
        both = observed[t] & observed[t - 1] & (weights > 0)
        relatives = weights[both] * (table[t, both] / table[t - 1, both])
        movement = math.fsum(relatives) / math.fsum(weights[both]) if both.any() else 1.0
        table[t, gap] = table[t - 1, gap] * movement
        mask[t] = gap
    filled = pd.DataFrame(table, index=prices.index, columns=prices.columns)
    return filled, pd.DataFrame(mask, index=prices.index, columns=prices.columns)


def fixed_basket(prices: pd.DataFrame, links: Sequence[Link], base_period: str, min_weight: float) -> Index:
    """Compile a capped fixed basket over its links.

    Parameters
    ----------
    prices : DataFrame, period × market [USD/t]
        Unrounded reference prices; periods are months or days, as text, in order. NaN is missing.
    links : sequence of Link
        In order of month. A link applies after its month; the first also before.
    base_period : str
        A month or a year; its mean level is 100.
    min_weight : float
        Least share of the weight with an own price for a value to be given.

    Returns
    -------
    Index

    Raises
    ------
    MethodError
        When there is no link, when a link month has no price, or the base period none.

    Notes
    -----
    After link l: ``I(t) = mean(I, link month) * cost(t) / mean(cost, link month)`` with
    ``cost(t) = sum_i q_i p_i(t)`` and ``q_i = share_i / mean(p_i, link month)``. A market without a
    price in the link month enters at the next link. Backwards from the first link the level is
    chained over the markets priced in both periods, so that a market whose history starts later
    than the others' joins without a step.
    """
    if not links:
        raise MethodError("an index starts with its weights, and there are none")
    months = prices.index.str.slice(0, 7).to_numpy()
    filled, mask = impute(prices, _shares_by_period(prices, months, links))
    table = filled.to_numpy()
    held = np.zeros(table.shape)
    level = np.full(len(table), np.nan)
    points, weights = np.zeros((len(table), table.shape[1] + 1)), np.zeros(table.shape)
    in_force = np.full(len(table), links[0].month, dtype=object)
    for position, link in enumerate(links):
        linked = months == link.month
        q = _quantities(table[linked], link, prices.columns)
        own, at_link = q > 0, np.flatnonzero(linked)
        if position == 0:
            level[at_link[-1]] = 1.0
            held[:] = q / math.fsum(q[own] * table[at_link[-1], own])
            _chain_back(table, q, level, points, weights, at_link[-1])
        rows = np.flatnonzero(months > link.month)
        in_force[rows] = link.month
        cost = np.array([math.fsum(q[own] * table[t, own]) for t in (*at_link, *rows)])
        factor = _mean(level[at_link]) / _mean(cost[: len(at_link)])
        level[rows] = cost[len(at_link) :] * factor
        held[rows] = q * factor
        for t in rows:
            before = q[own] * table[t - 1, own]
            points[t] = 0.0
            points[t, :-1][own] = (q[own] * table[t, own] - before) * factor
            points[t, -1] = math.fsum(before) * factor - level[t - 1]
            weights[t] = 0.0
            weights[t, own] = before / math.fsum(before)
    covered = _covered(prices, held > 0, in_force, links)
    mask &= held > 0  # a market that has not joined, or has ceased, is not imputed: it is not there
    return _index(prices, mask, links, level, points, weights, held, in_force, covered, base_period, min_weight)


def _shares_by_period(prices: pd.DataFrame, months: npt.NDArray[np.object_], links: Sequence[Link]) -> pd.DataFrame:
    """Shares of the link in force, period × market."""
    table = np.zeros(prices.shape)
    for position, link in enumerate(links):
        rows = months > link.month if position else np.ones(len(table), dtype=bool)
        table[rows] = [link.shares.get(str(m), 0.0) for m in prices.columns]
    return pd.DataFrame(table, index=prices.index, columns=prices.columns)


def _mean(values: npt.NDArray[np.float64]) -> float:
    return math.fsum(values) / len(values)


def _quantities(
    at_link: npt.NDArray[np.float64], link: Link, markets: Sequence[str] | pd.Index
) -> npt.NDArray[np.float64]:
    """Notional quantities per unit of index: share over mean price of the link month."""
    if not len(at_link):
        raise MethodError(f"the link month {link.month} has no prices")
    shares = np.array([link.shares.get(str(m), 0.0) for m in markets])
    complete = ~np.isnan(at_link).any(axis=0)
    if not (complete & (shares > 0)).any():
        raise MethodError(f"no constituent has a price in the link month {link.month}")
    q = np.zeros(len(shares))
    for i in np.flatnonzero(complete & (shares > 0)):
        q[i] = shares[i] / _mean(at_link[:, i])
    return q


def _chain_back(
    table: npt.NDArray[np.float64],
    q: npt.NDArray[np.float64],
    level: npt.NDArray[np.float64],
    points: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    last: int,
) -> None:
    """Chain the first basket backwards from period ``last``, in place."""
    for t in range(last, 0, -1):
        both = ~np.isnan(table[t]) & ~np.isnan(table[t - 1]) & (q > 0)
        if not both.any():
            break
        before, after = q[both] * table[t - 1, both], q[both] * table[t, both]
        cost = math.fsum(before)
        level[t - 1] = level[t] * (cost / math.fsum(after))
        points[t, :-1][both] = (after - before) / cost * level[t - 1]
        weights[t, both] = before / cost


def _index(
    prices: pd.DataFrame,
    mask: pd.DataFrame,
    links: Sequence[Link],
    level: npt.NDArray[np.float64],
    points: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    held: npt.NDArray[np.float64],
    in_force: npt.NDArray[np.object_],
    covered: npt.NDArray[np.float64],
    base_period: str,
    min_weight: float,
) -> Index:
    """Rebase to the base period and say what each value rests on."""
    months = prices.index.str.slice(0, 7).to_numpy()
    in_base = np.asarray(prices.index.str.startswith(base_period)) & ~np.isnan(level)
    # the mean of months, in a daily index too, so that a month's mean of days is the month's value
    base = np.array([_mean(level[in_base & (months == m)]) for m in sorted(set(months[in_base]))])
    if not len(base):
        raise MethodError(
            f"base period {base_period} has no price; there are prices in {prices.index[0]} to {prices.index[-1]}"
        )
    scale = 100 / _mean(base)
    unrounded = np.where(covered >= min_weight - 1e-12, level * scale, np.nan)
    back_cast = prices.index.str.slice(0, 7) <= links[0].month
    imputed_used = (mask.to_numpy() & (weights > 0)).any(axis=1)
    status = np.select(
        [np.isnan(unrounded), back_cast, imputed_used], ["insufficient", "back-cast", "imputed"], default="normal"
    )
    frame = pd.DataFrame(
        {"unrounded": unrounded, "status": status, "covered": covered, "link": in_force}, index=prices.index
    )
    contributions = pd.DataFrame(points * scale, index=prices.index, columns=[*prices.columns, LINK_STEP])
    weights_before, quantities = (
        pd.DataFrame(t, index=prices.index, columns=prices.columns) for t in (weights, held * scale)
    )
    return Index(frame, contributions, weights_before, mask, quantities, tuple(links))


def _covered(
    prices: pd.DataFrame,
    in_basket: npt.NDArray[np.bool_],
    in_force: npt.NDArray[np.object_],
    links: Sequence[Link],
) -> npt.NDArray[np.float64]:
    """Share of the listed weight whose market is in the basket and has an own, observed price, by period."""
    counted = prices.notna().to_numpy() & in_basket
    out = np.zeros(len(prices))
    for link in links:
        share = np.array([link.shares.get(str(c), 0.0) for c in prices.columns])
        rows = in_force == link.month
        out[rows] = counted[rows] @ share
    return np.minimum(out, 1.0)
