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
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from pricing.errors import MethodError

LINK_STEP = "(link)"
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


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
class _Span:
    """Periods that one basket holds: after its link month, through the next one; the first also before."""

    rows: slice
    q: Floats
    """Notional quantities by market, 0 outside the basket: share over mean price of the link month."""
    factor: float
    """Level per cost of these quantities."""
    cost: Floats
    """Of the basket at the period before the first of ``rows``, and in each of them."""


@dataclass(frozen=True)
class _Back:
    """The first basket from its link month back to the beginning."""

    q: Floats
    """Notional quantities that cost 1 at the end of the link month."""
    points: Floats
    weights: Floats
    level: Floats


@dataclass(frozen=True)
class _Compiled:
    """What the tables of an index follow from; levels are those before rebasing."""

    filled: Floats
    filled_in: Bools
    level: Floats
    covered: Floats
    uses_imputed: Bools
    back: _Back
    spans: tuple[_Span, ...]
    scale: float


@dataclass(frozen=True)
class Index:
    """An index and what moved it.

    Attributes
    ----------
    frame : DataFrame, by period
        ``unrounded`` (base period = 100), ``status`` (``normal``, ``imputed``, ``back-cast``,
        ``insufficient``), ``covered`` (share of the weight with an own price in that period),
        ``link`` (the link month in force).
    links : tuple of Link
    prices : DataFrame, period × market
        What it was compiled from.

    Notes
    -----
    The tables below are made when they are first asked for.
    """

    frame: pd.DataFrame
    links: tuple[Link, ...]
    prices: pd.DataFrame
    compiled: _Compiled = field(repr=False)

    @cached_property
    def contributions(self) -> pd.DataFrame:
        """Index points by which each market moved the index since the period before: period × (market + ``(link)``).

        Each row sums to the change of the level. ``(link)`` is the step of a link on an average: zero in a
        monthly index, and on all days of a daily one but the first after a link month.
        """
        made = self.compiled
        points = np.zeros((len(self.prices), self.prices.shape[1] + 1))
        points[: len(made.back.points), :-1] = made.back.points
        for span in made.spans:
            own, first = span.q > 0, span.rows.start
            if first < span.rows.stop:
                costs = span.q[own] * made.filled[first - 1 : span.rows.stop, own]
                points[span.rows, np.append(own, False)] = np.diff(costs, axis=0) * span.factor
                points[span.rows, -1] = span.cost[:-1] * span.factor - made.level[first - 1 : span.rows.stop - 1]
        return pd.DataFrame(points * made.scale, index=self.prices.index, columns=[*self.prices.columns, LINK_STEP])

    @cached_property
    def weights(self) -> pd.DataFrame:
        """Share of each market in the basket's cost at the period before: the weight of its movement."""
        made = self.compiled
        weights = np.zeros(self.prices.shape)
        weights[: len(made.back.weights)] = made.back.weights
        for span in made.spans:
            own, first = span.q > 0, span.rows.start
            if first < span.rows.stop:
                before = span.q[own] * made.filled[first - 1 : span.rows.stop - 1, own]
                weights[span.rows, own] = before / span.cost[:-1, None]
        return self._table(weights)

    @cached_property
    def imputed(self) -> pd.DataFrame:
        """Prices of markets in the basket that were not observed: period × market, bool."""
        # a market that has not joined, or has ceased, is not imputed: it is not there
        return self._table(self.compiled.filled_in & (self.quantities.to_numpy() > 0))

    @cached_property
    def quantities(self) -> pd.DataFrame:
        """Notional quantities in force, period × market, 0 outside the basket.

        From the first link month on a monthly index is the sum of price × quantity [index points per USD/t].
        """
        made = self.compiled
        held = np.zeros(self.prices.shape)
        held[: len(made.back.level)] = made.back.q
        for span in made.spans:
            held[span.rows] = span.q * span.factor
        return self._table(held * made.scale)

    def _table(self, values: Floats | Bools) -> pd.DataFrame:
        return pd.DataFrame(values, index=self.prices.index, columns=self.prices.columns)


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
    _fill(table, mask, ~np.isnan(table), by_period, 0)
    filled = pd.DataFrame(table, index=prices.index, columns=prices.columns)
    return filled, pd.DataFrame(mask, index=prices.index, columns=prices.columns)


def _fill(table: Floats, mask: Bools, observed: Bools, by_period: Floats, start: int) -> None:
    """Fill the gaps of a table from row ``start`` on, in place; ``by_period`` are the weights of those rows."""
    for t in range(max(start, 1), len(table)):
        gap = ~observed[t] & ~np.isnan(table[t - 1])
        if not gap.any():
            continue
        weights = by_period[t - start]
        both = observed[t] & observed[t - 1] & (weights > 0)
        relatives = weights[both] * (table[t, both] / table[t - 1, both])
        movement = math.fsum(relatives) / math.fsum(weights[both]) if both.any() else 1.0
        table[t, gap] = table[t - 1, gap] * movement
        mask[t] = gap


def fixed_basket(
    prices: pd.DataFrame, links: Sequence[Link], base_period: str, min_weight: float, before: Index | None = None
) -> Index:
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
    before : Index, optional
        The index of an earlier release: what follows from the same prices and links is taken over, to the
        last bit what it would be.

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
    months = prices.index.str.slice(0, 7).to_numpy(dtype=object)
    table = prices.to_numpy(dtype="float64")
    shares = np.array([[link.shares.get(str(c), 0.0) for c in prices.columns] for link in links])
    of_link = np.searchsorted(np.array([link.month for link in links[1:]], dtype=object), months)
    kept = _common_rows(before, prices, table, links)
    known = before.compiled if before is not None and kept and months[kept - 1] > links[0].month else None
    kept = kept if known is not None else 0

    filled, filled_in, observed = table.copy(), np.zeros(table.shape, dtype=bool), ~np.isnan(table)
    if known is not None:
        filled[:kept], filled_in[:kept] = known.filled[:kept], known.filled_in[:kept]
    _fill(filled, filled_in, observed, shares[of_link[kept:]], kept)
    back = known.back if known is not None else _chain_back(filled, months, links[0], prices.columns)
    level = np.full(len(table), np.nan)
    level[: len(back.level)] = back.level
    starts = [int(np.searchsorted(months, link.month, side="right")) for link in links]
    spans = list[_Span]()
    for position, (link, start, stop) in enumerate(zip(links, starts, [*starts[1:], len(table)], strict=True)):
        old = known.spans[position] if known is not None and start <= kept else None
        spans.append(_span(filled, level, months, link, slice(start, stop), prices.columns, old, kept))
        level[start:stop] = spans[-1].cost[1:] * spans[-1].factor

    held = np.array([span.q > 0 for span in spans])
    covered, uses_imputed = np.empty(len(table)), np.empty(len(table), dtype=bool)
    if known is not None:
        covered[:kept], uses_imputed[:kept] = known.covered[:kept], known.uses_imputed[:kept]
    for t in range(kept, len(table)):
        of = of_link[t]
        # share of the listed weight whose market is in the basket and has an own price
        covered[t] = min(math.fsum(shares[of, observed[t] & held[of]]), 1.0)
        uses_imputed[t] = (filled_in[t] & held[of]).any()
    scale = _scale(prices.index, months, level, base_period)
    compiled = _Compiled(filled, filled_in, level, covered, uses_imputed, back, tuple(spans), scale)
    in_force = np.array([link.month for link in links], dtype=object)[of_link]
    frame = _frame(prices.index, compiled, in_force, months <= links[0].month, min_weight)
    return Index(frame, tuple(links), prices, compiled)


def _common_rows(before: Index | None, prices: pd.DataFrame, table: Floats, links: Sequence[Link]) -> int:
    """Count the periods, from the first, whose prices are those that an index was compiled from."""
    if before is None or before.links != tuple(links) or not before.prices.columns.equals(prices.columns):
        return 0
    n = min(len(before.prices), len(prices))
    differs = np.asarray(before.prices.index[:n] != prices.index[:n])
    # bit by bit, so that NaN is NaN
    bits = (before.prices.to_numpy(dtype="float64")[:n].view(np.int64), table[:n].view(np.int64))
    differs |= (bits[0] != bits[1]).any(axis=1)
    return int(differs.argmax()) if differs.any() else n


def _span(
    filled: Floats,
    level: Floats,
    months: npt.NDArray[np.object_],
    link: Link,
    rows: slice,
    markets: pd.Index,
    old: _Span | None,
    kept: int,
) -> _Span:
    """Cost of the basket of one link in its periods; of the old span of the same link what was kept holds."""
    if old is None:
        at_link = months == link.month
        q = _quantities(filled[at_link], link, markets)
        factor = _mean(level[at_link]) / _mean(_costs(q, filled[at_link]))
        return _Span(rows, q, factor, _costs(q, filled[rows.start - 1 : rows.stop]))
    first = min(kept, rows.stop)
    cost = np.concatenate([old.cost[: first - rows.start + 1], _costs(old.q, filled[first : rows.stop])])
    return _Span(rows, old.q, old.factor, cost)


def _costs(q: Floats, prices: Floats) -> Floats:
    own = q > 0
    return np.array([math.fsum(row) for row in (q[own] * prices[:, own]).tolist()], dtype="float64")


def _mean(values: Floats) -> float:
    return math.fsum(values) / len(values)


def _quantities(at_link: Floats, link: Link, markets: Sequence[str] | pd.Index) -> Floats:
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


def _chain_back(filled: Floats, months: npt.NDArray[np.object_], link: Link, markets: pd.Index) -> _Back:
    """Chain the first basket backwards from the end of its link month, where its level is 1."""
    at_link = np.flatnonzero(months == link.month)
    q = _quantities(filled[at_link], link, markets)
    last = int(at_link[-1])
    level = np.full(last + 1, np.nan)
    points, weights = np.zeros((last + 1, len(q))), np.zeros((last + 1, len(q)))
    level[last] = 1.0
    for t in range(last, 0, -1):
        both = ~np.isnan(filled[t]) & ~np.isnan(filled[t - 1]) & (q > 0)
        if not both.any():
            break
        before, after = q[both] * filled[t - 1, both], q[both] * filled[t, both]
        cost = math.fsum(before)
        level[t - 1] = level[t] * (cost / math.fsum(after))
        points[t, both] = (after - before) / cost * level[t - 1]
        weights[t, both] = before / cost
    return _Back(q / _costs(q, filled[last : last + 1])[0], points, weights, level)


def _scale(periods: pd.Index, months: npt.NDArray[np.object_], level: Floats, base_period: str) -> float:
    """What brings the mean level of the base period to 100."""
    in_base = np.asarray(periods.str.startswith(base_period)) & ~np.isnan(level)
    # the mean of months, in a daily index too, so that a month's mean of days is the month's value
    base = np.array([_mean(level[in_base & (months == m)]) for m in sorted(set(months[in_base]))])
    if not len(base):
        raise MethodError(f"base period {base_period} has no price; there are prices in {periods[0]} to {periods[-1]}")
    return 100 / _mean(base)


def _frame(
    periods: pd.Index, made: _Compiled, in_force: npt.NDArray[np.object_], back_cast: Bools, min_weight: float
) -> pd.DataFrame:
    """Rebase to the base period and say what each value rests on."""
    unrounded = np.where(made.covered >= min_weight - 1e-12, made.level * made.scale, np.nan)
    status = np.select(
        [np.isnan(unrounded), back_cast, made.uses_imputed], ["insufficient", "back-cast", "imputed"], default="normal"
    )
    return pd.DataFrame(
        {"unrounded": unrounded, "status": status, "covered": made.covered, "link": in_force}, index=periods
    )
