"""Accepted observations of one market into one reference price, with what made it.

Pure: frames in, frames out. The order is fixed by the methodology: collapse copies by origin, take
out each origin's basis, exclude on the cross-section, combine by weighted median, grade.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pricing.config import Basis, Determination, Market, Series
from pricing.judgement import Judgement, applied, set_aside

Floats = npt.NDArray[np.float64]

OBSERVED = frozenset(
    ("determined", "official", "single-source", "transaction-based", "assessed", "mean-of-days", "mean-of-ten-days")
)  # types of a price that rests on quotations of the period itself
OUT_STATUSES = ("voided", "suspended", "limit")  # statuses of a quotation that stay out of determinations
SLIP_TOLERANCE = 0.04
LEAST_FREEDOM = 10  # degrees of freedom below which the dispersion of origins is not known
# Ratios that a wrong unit leaves behind; the factors are those of pricing.units.
SLIPS = {
    10.0: "a decimal place",
    100.0: "per cent or cents",
    1000.0: "kg and t",
    2204.6226: "lb and t",
    2.2046226: "lb and kg",
    31.1034768: "troy ounce and gram",
    32150.7466: "troy ounce and t",
    1.1023113: "short ton and t",
}


@dataclass(frozen=True)
class Quotes:
    """Normalised quotations of one market at one frequency.

    Attributes
    ----------
    market : Market
    frequency : {"daily", "ten-day", "monthly"}
    series : tuple of Series, length n
        The columns, in order.
    value : DataFrame, period × series
        As quoted, in each series' own unit. NaN where nothing was quoted.
    usd_per_t : DataFrame, period × series
        In the market's unit. NaN where nothing was quoted or no exchange rate was known.
    status : DataFrame, period × series
        Status text; empty where nothing was quoted.
    fx, fx_period, vat : DataFrame, period × series
        The exchange rate (USD per unit of currency), its date, and the tax rate that was taken out.
    closed : frozenset of str
        Series whose own values may not be shown to this audience.
    """

    market: Market
    frequency: str
    series: tuple[Series, ...]
    value: pd.DataFrame
    usd_per_t: pd.DataFrame
    status: pd.DataFrame
    fx: pd.DataFrame
    fx_period: pd.DataFrame
    vat: pd.DataFrame
    closed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Prices:
    """Reference prices of one market at one frequency, with everything that made them.

    Attributes
    ----------
    frame : DataFrame, by period
        ``unrounded`` (USD/t; NaN: no price), ``interval_low`` and ``interval_high`` (NaN: not known),
        ``value`` (rounded), ``status``, ``type``, ``grade``,
        ``origins`` (that made it), ``carried`` and ``carried_from`` (daily only: the last price, where
        there is none), ``low``, ``high``, ``mean``, ``spread``, ``largest_weight``.
    origins : tuple of str, length m
        Columns of the arrays below.
    chosen : int array, period × origin
        Position in ``quotes.series`` of the contributor that spoke for the origin; -1 for none.
    age : int array, period × origin
        Days since the quotation that was used.
    adjusted : float array, period × origin
        USD/t after the basis was taken out. NaN where the origin is absent.
    ratio : float array, period × origin
        The basis in force. NaN: none yet.
    weight : float array, period × origin
        Share in the median; 0 for an excluded origin.
    excluded : object array, period × origin
        The rule that excluded the origin, or empty text.
    """

    quotes: Quotes
    frame: pd.DataFrame
    origins: tuple[str, ...]
    chosen: npt.NDArray[np.int64]
    age: npt.NDArray[np.int64]
    adjusted: Floats
    ratio: Floats
    weight: Floats
    excluded: npt.NDArray[np.object_]


# ------------------------------------------------------------------------------------- origins


def usable(quotes: Quotes, rules: Determination) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what each series says for each period, and how many days old that is.

    A quotation that is made less often than the market's frequency (a weekly one in a daily market)
    stays usable for ``stale_days`` of its own frequency. A voided, suspended or limit-locked price
    is no quotation, and ends the life of the one before it.

    Returns
    -------
    usd_per_t, age_days : DataFrame, period × series
        NaN where the series says nothing usable.
    """
    out = quotes.status.isin(OUT_STATUSES)
    fresh = quotes.usd_per_t.mask(out)
    age = fresh.where(fresh.isna(), 0.0)
    days = pd.Series(_ordinal_days(quotes.usd_per_t.index), index=quotes.usd_per_t.index, dtype="float64")
    for series in quotes.series:
        limit = rules.stale_days.get(series.frequency, 0)
        if not limit or quotes.frequency != "daily":
            continue
        column = fresh[series.id]
        # a status row counts as "spoken", so that nothing is carried across it
        spoken = column.notna() | out[series.id]
        last = days.where(spoken).ffill()
        carried = column.where(spoken).mask(spoken & column.isna(), np.inf).ffill().replace(np.inf, np.nan)
        lived = days - last
        fresh[series.id] = carried.where(lived <= limit)
        age[series.id] = lived.where(fresh[series.id].notna())
    return fresh, age


def by_origin(
    quotes: Quotes, usd_per_t: pd.DataFrame, age: pd.DataFrame
) -> tuple[tuple[str, ...], Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Collapse copies: inside one origin the freshest contributor speaks, then the lowest precedence.

    Returns
    -------
    origins : tuple of str, length m
    values : float array, period × origin [USD/t]
    chosen : int array, period × origin
        Position in ``quotes.series``, -1 for none.
    ages : int array, period × origin [days]
    """
    origins = tuple(sorted({s.origin for s in quotes.series}))
    shape = (len(usd_per_t), len(origins))
    values, chosen, ages = np.full(shape, np.nan), np.full(shape, -1), np.zeros(shape, dtype=np.int64)
    order = sorted(range(len(quotes.series)), key=lambda i: (quotes.series[i].precedence, quotes.series[i].id))
    table, old = usd_per_t.to_numpy(), age.to_numpy()
    out = quotes.status.isin(OUT_STATUSES).to_numpy()
    silenced = np.zeros(shape, dtype=bool)
    for position in order:
        column = origins.index(quotes.series[position].origin)
        candidate, days = table[:, position], np.nan_to_num(old[:, position]).astype(np.int64)
        better = ~np.isnan(candidate) & (np.isnan(values[:, column]) | (days < ages[:, column]))
        better &= ~silenced[:, column]
        values[better, column] = candidate[better]
        chosen[better, column] = position
        ages[better, column] = days[better]
        # what an origin's first voice calls voided, a copy of it cannot bring back
        silenced[:, column] |= out[:, position] & np.isnan(values[:, column])
    return origins, values, chosen, ages


# --------------------------------------------------------------------------------------- basis


@dataclass(frozen=True)
class Ratio:
    """One origin's lasting ratio to the anchor, and what it was estimated on."""

    origin: str
    ratio: float
    common: int
    via: str


def estimate_bases(
    values: pd.DataFrame,
    anchor: str,
    least_common: int | Mapping[str, int],
    previous: Mapping[str, float] | None = None,
) -> list[Ratio]:
    """Ratio of each origin to the anchor over one window.

    The ratio is the median of the ratios of common periods: to the anchor where there are enough,
    else through the origin with a known ratio that shares most periods. An origin that cannot be
    reached keeps the ratio it had, and others may be reached through it; without one it gets none,
    and stays out.

    Parameters
    ----------
    values : DataFrame, period × origin [USD/t]
        The window only.
    anchor : str
        Its ratio is 1, always.
    least_common : int, or mapping of origin to int
        Fewest common periods for an estimate; of two origins the smaller number holds.
    previous : mapping of origin to ratio
        The ratios in force before.
    """
    previous = previous or {}
    least = least_common if isinstance(least_common, Mapping) else dict.fromkeys(values.columns, least_common)
    present = values.notna()
    found = {anchor: Ratio(anchor, 1.0, int(present[anchor].sum()) if anchor in values else 0, "anchor")}
    _link_origins(values, present, anchor, least, found)
    # An origin that nobody reaches in this window keeps its ratio, and others may be reached through it.
    for origin, ratio in sorted(previous.items()):
        count = int(present[origin].sum()) if origin in values else 0
        found.setdefault(origin, Ratio(origin, ratio, count, "held"))
    _link_origins(values, present, anchor, least, found)
    return [found[o] for o in sorted(found)]


def _link_origins(
    values: pd.DataFrame, present: pd.DataFrame, anchor: str, least: Mapping[str, int], found: dict[str, Ratio]
) -> None:
    """Add the ratio of each origin that can be reached from those found, in place."""
    while True:
        links = []
        for new in values.columns:
            for known in found if new not in found else ():
                common = int((present[new] & present[known]).sum()) if known in values else 0
                if common and common >= min(least[new], least.get(known, least[new])):
                    links.append((known != anchor, -common, known, new))
        if not links:
            return
        _, count, known, new = min(links)
        ratio = float((values[new] / values[known]).median()) * found[known].ratio
        found[new] = Ratio(new, ratio, -count, known)


def reviews(start_month: str, rules: Basis, known_on: str) -> list[tuple[str, str, str]]:
    """Return the reviews that were due by a day: (effective, first, after), as period texts.

    The first one, effective from the beginning (empty text), is estimated on the window that opens
    with the anchor's first month; the others on the window that ends where they become effective.
    """
    start = pd.Period(start_month, "M")
    due = [("", start_month, str(start + rules.window_months))]
    for year in range(start.year + 1, int(known_on[:4]) + 1):
        effective = pd.Period(f"{year}-{rules.review_month:02d}", "M")
        if str(effective) <= known_on and effective - rules.window_months >= start:
            due.append((str(effective), str(effective - rules.window_months), str(effective)))
    return due


def ratios_in_force(
    periods: Sequence[str], origins: Sequence[str], bases: Sequence[Mapping[str, Any]]
) -> tuple[Floats, npt.NDArray[np.object_]]:
    """Lay dated bases out by period.

    Returns
    -------
    ratio : float array, period × origin
        NaN where an origin has no basis yet.
    effective : object array, period
        From when the basis in force applies.
    """
    ratio = np.full((len(periods), len(origins)), np.nan)
    in_force = np.full(len(periods), "", dtype=object)
    index = np.array(periods, dtype=object)
    for effective in sorted({b["effective"] for b in bases}):
        rows = index >= effective
        in_force[rows] = effective
        for base in bases:
            if base["effective"] == effective and base["origin"] in origins:
                ratio[rows, origins.index(base["origin"])] = base["ratio"]
    return ratio, in_force


# --------------------------------------------------------------------------------- determination


def weighted_median(values: Floats, weights: Floats) -> Floats:
    """Weighted median of each row; NaN values and zero weights do not count.

    Where the cumulated weight meets one half exactly, the mean of the two values beside it: with
    equal weights this is the ordinary median.

    Parameters
    ----------
    values, weights : float array, (t, m)

    Returns
    -------
    float array, (t,)
        NaN for a row without values.
    """
    weights = np.where(np.isnan(values), 0.0, weights)
    filled = np.where(weights > 0, values, np.inf)
    order = np.argsort(filled, axis=1, kind="stable")
    ordered = np.take_along_axis(filled, order, axis=1)
    cumulated = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    total = cumulated[:, -1:]
    half = total / 2
    tolerance = 1e-12 * np.where(total > 0, total, 1.0)
    first = np.argmax(cumulated >= half - tolerance, axis=1)[:, None]
    lower = np.take_along_axis(ordered, first, axis=1)[:, 0]
    meets = np.abs(np.take_along_axis(cumulated, first, axis=1)[:, 0] - half[:, 0]) <= tolerance[:, 0]
    after = np.minimum(first + 1, values.shape[1] - 1)
    upper = np.take_along_axis(ordered, after, axis=1)[:, 0]
    with np.errstate(invalid="ignore"):
        middle = np.where(meets & np.isfinite(upper), (lower + upper) / 2, lower)
    return np.where(np.isfinite(middle) & (total[:, 0] > 0), middle, np.nan)


def determine(
    quotes: Quotes,
    bases: Sequence[Mapping[str, Any]],
    rules: Determination,
    judgements: Sequence[Judgement] = (),
) -> Prices:
    """Form the reference price of each period from the quotations of one market.

    Parameters
    ----------
    quotes : Quotes
    bases : sequence of mappings with ``effective, origin, ratio``
        The dated bases of this market and frequency.
    rules : Determination
        Thresholds of the methodology.
    judgements : sequence of Judgement
        Overrides in force of this market and frequency, whose origins quote here.

    Returns
    -------
    Prices
        A period without a price has status ``missing`` (nobody usable), ``dispersed`` (those who
        speak are too far apart) or ``suspended`` (what was quoted was voided, suspended or
        limit-locked); never a guess.
    """
    usd_per_t, age = usable(quotes, rules)
    origins, raw, chosen, ages = by_origin(quotes, usd_per_t, age)
    ratio, _ = ratios_in_force(list(usd_per_t.index), origins, bases)
    if len(origins) == 1:
        ratio[:] = np.where(np.isnan(ratio), 1.0, ratio)
    adjusted = raw / ratio
    excluded = np.full(raw.shape, "", dtype=object)
    excluded[~np.isnan(raw) & np.isnan(ratio)] = "no-basis"
    kept = None
    if judgements:
        judged, kept = set_aside(judgements, usd_per_t.index, origins, ages)
        excluded = np.where((judged != "") & ~np.isnan(raw), judged, excluded)
    weight, _ = combine(adjusted, _tier_weights(quotes.series, chosen, rules), excluded, rules, kept)
    used = ~np.isnan(adjusted) & (excluded == "")
    frame = _grade(quotes, adjusted, used, ages, chosen, weight, rules)
    frame = applied(frame, judgements, quotes.market.rounding)
    if quotes.frequency == "daily":
        frame = _carried(frame, rules.carry_days)
    return Prices(quotes, frame, origins, chosen, ages, adjusted, ratio, weight, excluded)


def combine(
    adjusted: Floats,
    tier_weight: Floats,
    excluded: npt.NDArray[np.object_],
    rules: Determination,
    kept: npt.NDArray[np.bool_] | None = None,
) -> tuple[Floats, Floats]:
    """Exclude on the cross-section, weigh and cap, and take the weighted median of each row.

    Parameters
    ----------
    adjusted : float array, (t, m) [USD/t]
        After the basis was taken out. NaN where an origin is absent.
    tier_weight : float array, (t, m)
    excluded : object array, (t, m)
        Rules that exclude already, empty text elsewhere; those of the cross-section are written into it.
    kept : bool array, (t, m), optional
        Origins that the cross-section may not exclude.

    Returns
    -------
    weight : float array, (t, m)
        Share in the median; 0 for an excluded origin.
    price : float array, (t,) [USD/t]
        NaN where nobody is left, or those who are left lie further apart than ``rules.widest``.
    """
    free = None if kept is None else kept & (excluded == "")
    _exclude_on_cross_section(adjusted, excluded, rules.max_spread)
    if free is not None:
        excluded[free] = ""
    used = ~np.isnan(adjusted) & (excluded == "")
    weight = np.where(used, tier_weight, 0.0)
    total = weight.sum(axis=1, keepdims=True)
    weight = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    weight = capped_rows(weight, rules.max_weight)
    values = np.where(used, adjusted, np.nan)
    low, high = np.where(used, adjusted, np.inf).min(axis=1), np.where(used, adjusted, -np.inf).max(axis=1)
    with np.errstate(invalid="ignore"):
        dispersed = high / low - 1 > rules.widest
    return weight, np.where(dispersed, np.nan, weighted_median(values, weight))


def _carried(frame: pd.DataFrame, days: int) -> pd.DataFrame:
    """Show the last price of a day that has none: ``carried`` and ``carried_from``. It is no price of that day.

    Nothing is carried beyond ``days``, nor across a day whose quotations were voided, suspended or
    limit-locked, nor to it: then the market had no price, and an old one would say otherwise.
    """
    at = _ordinal_days(frame.index)
    given = frame["unrounded"].notna().to_numpy()
    stopped = (frame["status"] == "suspended").to_numpy()
    place = np.arange(len(frame))
    last = np.maximum.accumulate(np.where(given | stopped, place, -1)) if len(frame) else place
    alive = ~given & (last >= 0) & given[last] & (at - at[last] <= days)
    carried = pd.Series(np.nan, index=frame.index)
    since = pd.Series("", index=frame.index, dtype=object)
    carried[alive] = frame["value"].to_numpy()[last[alive]]
    since[alive] = frame.index.to_numpy()[last[alive]]
    return frame.assign(carried=carried, carried_from=since)


def capped_rows(weight: Floats, cap: float) -> Floats:
    """Cap the weights of each row at ``cap``, or at 1/n of its n members where that is more.

    What is cut goes to the others in proportion, until none is above. Rows sum to what they summed to.

    Parameters
    ----------
    weight : float array, (t, m)
        Rows sum to 1, or are all zero.
    """
    n = (weight > 0).sum(axis=1, keepdims=True)
    limit = np.maximum(cap, np.divide(1.0, n, out=np.ones(n.shape), where=n > 0))
    out, at_cap = weight, np.zeros(weight.shape, dtype=bool)
    for _ in range(weight.shape[1]):
        above = out > limit * (1 + 1e-12)
        if not above.any():
            break
        at_cap |= above
        free = np.where(at_cap, 0.0, weight)
        left = 1 - (at_cap * limit).sum(axis=1, keepdims=True)
        total = free.sum(axis=1, keepdims=True)
        spread = np.divide(free * left, total, out=np.zeros_like(free), where=total > 0)
        out = np.where(at_cap.any(axis=1, keepdims=True), np.where(at_cap, limit, spread), out)
    return out


def influence(made: Prices) -> tuple[Floats, npt.NDArray[np.int64]]:
    """How far the price of each period would move without one of its origins (leave-one-out).

    Returns
    -------
    largest : float array, by period
        Largest |price without it / price - 1|; NaN where fewer than two origins made the price.
    origin : int array, by period
        Position of that origin in ``made.origins``; -1 where there is none.
    """
    used = np.where(made.weight > 0, made.adjusted, np.nan)
    price = made.frame["unrounded"].to_numpy(dtype="float64")
    moves = np.full(made.weight.shape, np.nan)
    several = np.flatnonzero((made.weight > 0).sum(axis=1) > 1)
    for m in range(made.weight.shape[1]):
        rows = several[made.weight[several, m] > 0]
        without = made.weight[rows].copy()
        without[:, m] = 0.0
        moves[rows, m] = np.abs(weighted_median(used[rows], without) / price[rows] - 1)
    known = np.isfinite(moves).any(axis=1)
    largest, origin = np.full(len(moves), np.nan), np.full(len(moves), -1, dtype=np.int64)
    largest[known], origin[known] = np.nanmax(moves[known], axis=1), np.nanargmax(moves[known], axis=1)
    return largest, origin


def _exclude_on_cross_section(adjusted: Floats, excluded: npt.NDArray[np.object_], limit: float) -> None:
    """Mark origins that disagree with the median of their period; a move over time never excludes."""
    candidates = np.where(excluded == "", adjusted, np.nan)
    several = (~np.isnan(candidates)).sum(axis=1) >= 3
    middle = weighted_median(candidates, np.ones_like(candidates))[:, None]
    with np.errstate(invalid="ignore"):
        far = (np.abs(candidates / middle - 1) > limit) & several[:, None]
    for t, m in zip(*np.nonzero(far), strict=True):
        excluded[t, m] = _slip(candidates[t, m] / middle[t, 0]) or "cross-section"


def _slip(ratio: float) -> str:
    size = ratio if ratio >= 1 else 1 / ratio
    for factor, what in SLIPS.items():
        if abs(size / factor - 1) <= SLIP_TOLERANCE:
            return f"unit-slip ({what})"
    return ""


def _tier_weights(series: Sequence[Series], chosen: npt.NDArray[np.int64], rules: Determination) -> Floats:
    by_series = np.array([rules.tier_weights.get(s.tier, 0.0) for s in series] + [0.0])
    return by_series[chosen]


def _grade(
    quotes: Quotes,
    adjusted: Floats,
    used: npt.NDArray[np.bool_],
    ages: npt.NDArray[np.int64],
    chosen: npt.NDArray[np.int64],
    weight: Floats,
    rules: Determination,
) -> pd.DataFrame:
    """Price, spread, status, type and grade of each period."""
    values = np.where(used, adjusted, np.nan)
    n = used.sum(axis=1)
    some = n > 0
    low, high, mean = (np.full(len(n), np.nan) for _ in range(3))
    low[some], high[some], mean[some] = (f(values[some], axis=1) for f in (np.nanmin, np.nanmax, np.nanmean))
    spread = high / low - 1
    dispersed = some & (spread > rules.widest)
    fresh = (used & (ages == 0)).sum(axis=1)
    middle = weighted_median(values, weight)
    price = np.where(dispersed | (fresh == 0), np.nan, middle)
    locked = quotes.status.isin(OUT_STATUSES).to_numpy().any(axis=1)
    status = np.select(
        [~np.isnan(price), dispersed, locked], ["normal", "dispersed", "suspended"], default="missing"
    ).astype(object)
    official = _all_official(quotes.series, chosen, used)
    kind = np.select([n == 0, (n == 1) & official, n == 1], ["none", "official", "single-source"], default="determined")
    # Aged quotations do not earn a grade, and origins far apart lose one.
    earned = np.where(spread > rules.max_spread / 2, fresh - 1, fresh)
    grade = np.select([earned >= rules.grades["A"], earned >= rules.grades["B"]], ["A", "B"], default="C").astype(
        object
    )
    grade[np.isnan(price)] = None
    reach = _reach(values, weight, ages, middle, rules)
    return pd.DataFrame(
        {
            "unrounded": price,
            "interval_low": price * np.exp(-reach),
            "interval_high": price * np.exp(reach),
            "value": np.round(price, quotes.market.rounding),
            "status": status,
            "type": kind,
            "grade": grade,
            "origins": n,
            "low": low,
            "high": high,
            "mean": mean,
            "spread": spread,
            "largest_weight": weight.max(axis=1) if weight.size else np.zeros(len(n)),
        },
        index=quotes.usd_per_t.index,
    )


def _reach(values: Floats, weight: Floats, ages: npt.NDArray[np.int64], middle: Floats, rules: Determination) -> Floats:
    """Half width of the interval of each price, as logarithm; NaN where origins were too seldom seen side by side.

    The variance of one origin is pooled over the periods up to this one (nothing later), by degrees of
    freedom; a weighted mean of n of them has it times the sum of squared weights, a median of three or
    more pi/2 times as much (the asymptotic efficiency of a median). A quotation that is some periods
    old adds as many times the variance of one step of the price. Ours: no manual prescribes it.
    """
    n = np.isfinite(values).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = np.log(values / middle[:, None])
        steps = pd.Series(np.log(middle)).ffill().diff().to_numpy()
    squares = np.where(n > 1, np.nansum(deviation**2, axis=1), 0.0)
    freedom = np.maximum(n - 1, 0).astype("float64")
    window = rules.interval_periods
    pooled = pd.DataFrame({"squares": squares, "freedom": freedom}).rolling(window, min_periods=1).sum()
    enough = pooled["freedom"].to_numpy() >= LEAST_FREEDOM
    own = np.divide(pooled["squares"], pooled["freedom"], out=np.full(len(n), np.nan), where=enough)
    step = pd.Series(steps**2).rolling(window, min_periods=LEAST_FREEDOM).mean().shift(1).to_numpy()
    old = (weight * ages).sum(axis=1)
    variance = own * (weight**2).sum(axis=1) * np.where(n > 2, np.pi / 2, 1.0)
    variance = variance + np.where(old > 0, old * step, 0.0)
    return NormalDist().inv_cdf(0.5 + rules.interval / 200) * np.sqrt(np.where(n > 0, variance, np.nan))


def _all_official(
    series: Sequence[Series], chosen: npt.NDArray[np.int64], used: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    official = np.array([s.tier == "official" for s in series] + [True])
    return np.asarray((official[chosen] | ~used).all(axis=1), dtype=np.bool_)


# ------------------------------------------------------------------------------------- months


def monthly_from_daily(daily: Prices, rules: Determination, known_on: str) -> pd.DataFrame:
    """Return monthly reference prices as the mean of the month's daily (or ten-day) determinations.

    A month counts once it is over (by ``known_on``, an ISO day), when at least ``month_share`` of its
    weekdays (of its three ten-day periods) have a price, and when its last week has one: a feed that
    ended must not stand for the month. The grade is that which at least half of the days reach.

    Returns
    -------
    DataFrame, by month
        The columns of ``Prices.frame`` and ``days`` (that entered the mean) and ``weekdays`` (that the
        month has; ten-day periods where the market is quoted so). ``low``
        and ``high`` span the month, ``origins`` is the fewest of any day, ``spread`` the widest.
    """
    frame = daily.frame[daily.frame["unrounded"].notna()]
    months = np.array([str(p)[:7] for p in frame.index], dtype=object)
    starts = np.flatnonzero(np.r_[True, months[1:] != months[:-1]]) if len(months) else np.array([], dtype=np.int64)
    first = months[starts].astype("datetime64[M]")
    days = np.diff(np.r_[starts, len(months)])
    ten_day = daily.quotes.frequency == "ten-day"
    # the lowest grade that at least half of the days reach
    letters = frame["grade"].to_numpy(dtype=object)
    reached = [_by_month(np.add, (letters <= g).astype(np.int64), starts) for g in ("A", "B")]
    numbers = ("unrounded", "mean", "low", "high", "spread", "interval_low", "interval_high")
    number = {c: frame[c].to_numpy(dtype="float64") for c in numbers}
    unrounded = _by_month(np.add, number["unrounded"], starts) / days
    out = pd.DataFrame(
        {
            "unrounded": unrounded,
            # the errors of one month's days go together: the mean of their bounds, not less
            "interval_low": _by_month(np.add, number["interval_low"], starts) / days,
            "interval_high": _by_month(np.add, number["interval_high"], starts) / days,
            "value": np.round(unrounded, daily.quotes.market.rounding),
            "status": "normal",
            "type": "mean-of-ten-days" if ten_day else "mean-of-days",
            "grade": np.select([2 * r >= days for r in reached], ["A", "B"], default="C").astype(object),
            "origins": _by_month(np.minimum, frame["origins"].to_numpy(), starts),
            "low": _by_month(np.minimum, number["low"], starts),
            "high": _by_month(np.maximum, number["high"], starts),
            "mean": _by_month(np.add, number["mean"], starts) / days,
            "spread": _by_month(np.maximum, number["spread"], starts),
            "largest_weight": _by_month(np.maximum, frame["largest_weight"].to_numpy(), starts),
            "days": days,
            "weekdays": np.full(len(starts), 3) if ten_day else np.busday_count(first, first + 1),
        },
        index=pd.Index(months[starts], dtype=daily.frame.index.dtype),
    )
    after = (first + 1).astype("datetime64[D]")
    over = after.astype(str) <= known_on
    ends = np.r_[starts[1:], len(months)][: len(starts)] - 1
    last = np.array([str(p) for p in frame.index], dtype="datetime64[D]")[ends]
    over &= last >= after - np.timedelta64(7, "D")
    return out[over & (out["days"].to_numpy() >= rules.month_share * out["weekdays"].to_numpy())]


def _by_month(reduce: np.ufunc, values: npt.NDArray[Any], starts: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Reduce daily values over the runs of days that begin at ``starts``."""
    return reduce.reduceat(values, starts) if len(starts) else values[:0]


def _ordinal_days(periods: pd.Index) -> npt.NDArray[np.int64]:
    if len(periods) and len(periods[0]) == 10:
        return periods.to_numpy().astype("datetime64[D]").astype(np.int64)
    return np.arange(len(periods), dtype=np.int64)
