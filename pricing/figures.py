"""All figures of one release, from what was known at its vintage.

Pure: observations, settings and dated bases in; reference prices and indices out. What it reads from
the store, and what becomes of the figures, is the pipeline's affair.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from pricing import fallback, reference, slips, trade, units
from pricing.config import Audience, Basket, Market, Methodology, Operation, Series, Tonnage, TwinRules
from pricing.errors import ConfigError, MethodError, UnitError
from pricing.imports import ImportIndex, import_index
from pricing.index import Index, Link, capped, fixed_basket, value_shares
from pricing.judgement import Judgement, applied, priced_periods, set_aside
from pricing.spreads import Gap, Spread
from pricing.twins import Twins, twins

TONNES = {"t": 1.0, "kg": 1e-3, "kt": 1e3, "Mt": 1e6}
FREQUENCIES = ("daily", "ten-day", "monthly")  # of determinations; a weekly quotation enters the daily one
LEAST_MONTHS = 6  # of a year, for its mean price to weigh a market


@dataclass(frozen=True)
class Eligible:
    """The series that may enter figures for one audience, and those whose values stay closed to it."""

    series: dict[str, Series]
    closed: frozenset[str]
    customs: frozenset[str] = frozenset()  # sources of customs cells


@dataclass(frozen=True)
class MarketPrices:
    """Reference prices of one market.

    ``months`` holds the monthly prices: the mean of daily determinations where the month was quoted
    daily, else the determination from monthly contributors (``type`` says which).
    """

    market: Market
    daily: reference.Prices | None
    monthly: reference.Prices | None
    months: pd.DataFrame
    ten_day: reference.Prices | None = None
    known_on: str = ""
    """ISO day of the release."""
    judgements: tuple[Judgement, ...] = ()
    """Overrides in force that bear on these prices."""

    def made(self, frequency: str) -> reference.Prices | None:
        """Return the determinations of one frequency from its own contributors."""
        return {"daily": self.daily, "ten-day": self.ten_day, "monthly": self.monthly}[frequency]

    def frame(self, frequency: str) -> pd.DataFrame:
        """Return the prices of one frequency; an empty frame where there are none."""
        if frequency == "monthly":
            return self.months
        made = self.made(frequency)
        return made.frame if made is not None else self.months.iloc[:0]


@dataclass(frozen=True)
class Weight:
    """What one market weighs in one link, and where the tonnage came from."""

    market: str
    tonnes: float
    price: float
    price_year: str
    production_period: str
    production_series: str
    production_vintage: int
    own_price: bool


@dataclass(frozen=True)
class BasketFigures:
    """An index at its frequencies, or the reason why it is not compiled."""

    indices: dict[str, Index]
    weights: dict[str, tuple[Weight, ...]]
    coverage: dict[str, Any]
    withheld: str = ""
    twins: Twins | None = None
    """Analytical twins of the monthly index."""
    monthly: _Monthly | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class _Monthly:
    """The monthly figures of a basket, or why there are none, and what they follow from."""

    basket: Basket
    rules: TwinRules
    months: list[pd.DataFrame]
    production: Production
    known_in: str
    coverage: dict[str, Any]
    withheld: str = ""
    links: tuple[Link, ...] = ()
    weights: dict[str, tuple[Weight, ...]] = field(default_factory=dict)
    index: Index | None = None
    twins: Twins | None = None


@dataclass(frozen=True)
class Beside:
    """An indicator's track record beside another measure of the same thing."""

    of: str
    beside: str
    record: trade.Record


@dataclass(frozen=True)
class Late:
    """What was learnt (or learnt to be withdrawn) after the cut-off of its series: it enters the next determination."""

    series: str
    period: str
    learnt_at: str
    cut_off: str


@dataclass(frozen=True)
class Figures:
    """Everything that one release says in numbers."""

    prices: dict[str, MarketPrices]
    baskets: dict[str, BasketFigures] = field(default_factory=dict)
    gaps: dict[str, Gap] = field(default_factory=dict)
    spreads: dict[str, tuple[Spread, ...]] = field(default_factory=dict)
    indicators: list[trade.Indicator] = field(default_factory=list)
    records: dict[str, tuple[Beside, ...]] = field(default_factory=dict)
    imports: dict[str, list[ImportIndex]] = field(default_factory=dict)
    partners: dict[str, dict[str, str]] = field(default_factory=dict)
    """Names of partners, by origin."""
    late: tuple[Late, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    """Series that could not be converted, with the reason: said in the release, never silent."""


def eligible(operation: Operation, audience: Audience) -> Eligible:
    """Apply the ledger of rights: what may enter figures for this audience.

    Public figures rest on series whose terms allow derived figures to be published; an auditor's
    figures on all that may be computed with. A quarantined series enters neither.
    """
    series: dict[str, Series] = {}
    closed, customs = set(), set()
    for name, source in operation.sources.items():
        rights = source.rights
        allowed = rights.publish_derived if audience == "public" else rights.show_auditor
        if not (rights.compute and allowed):
            continue
        if source.customs and (audience != "public" or rights.publish_value):
            customs.add(name)
        for one in source.series:
            if one.quarantined:
                continue
            series[one.id] = one
            if audience == "public" and not rights.publish_value:
                closed.add(one.id)
    return Eligible(series, frozenset(closed), frozenset(customs))


def euro_rates(observations: pd.DataFrame, series: Mapping[str, Series]) -> pd.DataFrame:
    """Lay the exchange rates out: ISO day × currency, units of currency per euro, in order of day."""
    names = {s.id: s.currency_of for s in series.values() if s.kind == "fx"}
    rows = observations[observations["series"].isin(list(names))]
    table = rows.pivot(index="period", columns="series", values="value").rename(columns=names)
    return table.sort_index()


def quotes(
    market: Market,
    frequency: str,
    series: Sequence[Series],
    observations: Mapping[str, pd.DataFrame],
    rates: pd.DataFrame,
    closed: frozenset[str],
    left_out: dict[str, str],
) -> reference.Quotes | None:
    """Normalise what was observed of one market; None where nothing was.

    A series that has no way to the market's unit is left out and noted in ``left_out``: it must not
    keep the others from being published.

    Parameters
    ----------
    observations : mapping of series id to DataFrame
        Columns ``period, value, status``.
    rates : DataFrame
        As ``euro_rates`` returns it.
    """
    converted = {}
    for one in series:
        if one.id in observations:
            values = observations[one.id].set_index("period")["value"]
            try:
                converted[one.id] = units.to_usd_per_t(values, one, market, rates)
            except UnitError as error:
                left_out[one.id] = str(error)
    if not converted:
        return None
    # series that have not spoken yet stay in: whether an anchor is eligible must not depend on it
    present = [s for s in series if s.id not in left_out]
    seen_in = [observations[name]["period"].to_numpy(dtype=object) for name in converted]
    periods = pd.Index(sorted(set().union(*seen_in)), dtype=object)
    shape = (len(periods), len(present))
    numbers = {name: np.full(shape, np.nan) for name in ("value", "usd_per_t", "fx", "vat")}
    words = {name: np.full(shape, "", dtype=object) for name in ("status", "fx_period")}
    for column, one in enumerate(present):
        if one.id not in converted:
            continue
        seen = observations[one.id]
        rows = periods.get_indexer(seen["period"])
        numbers["value"][rows, column] = seen["value"]
        words["status"][rows, column] = seen["status"]
        words["fx_period"][rows, column] = converted[one.id]["fx_period"]
        for name in ("usd_per_t", "fx", "vat"):
            numbers[name][rows, column] = converted[one.id][name]
    ids = [s.id for s in present]
    tables = {name: pd.DataFrame(table, index=periods, columns=ids) for name, table in (numbers | words).items()}
    return reference.Quotes(market, frequency, tuple(present), closed=closed & set(ids), **tables)


def check_units(operation: Operation, methodology: Methodology) -> None:
    """Check at start that every price series has a way to its market's unit.

    Raises ConfigError that lists every series without one.
    """
    markets = {m.key: m for m in methodology.markets}
    mistakes = []
    for one in operation.series().values():
        market = markets.get(f"{one.mineral}/{one.stage}/{one.zone}")
        if one.kind == "price" and market is not None and not one.quarantined:
            try:
                units.conversion(one, market)
            except UnitError as error:
                mistakes.append(f"  {error}")
        if one.kind == "production" and one.unit not in TONNES:
            mistakes.append(f"  series {one.id}: production is counted in {', '.join(TONNES)}; got {one.unit!r}")
    if mistakes:
        raise ConfigError(
            "config.toml: series that cannot be brought to the unit of their market\n" + "\n".join(mistakes)
        )


def all_quotes(
    methodology: Methodology, audience: Eligible, observations: pd.DataFrame
) -> tuple[dict[tuple[str, str], reference.Quotes], dict[str, str]]:
    """Normalise all markets.

    Returns
    -------
    quotes : mapping of (market key, one of FREQUENCIES) to Quotes
    left_out : mapping of series to the reason why it could not be converted
    """
    rates = euro_rates(observations, audience.series)
    columns = ["period", "value", "status"]
    by_series = {str(name): group[columns] for name, group in observations.groupby("series", sort=False)}
    members: dict[tuple[str, str], list[Series]] = {}
    for one in audience.series.values():
        if one.kind == "price" and one.mineral and one.frequency != "annual":
            own: str = "daily" if one.frequency == "weekly" else one.frequency
            members.setdefault((f"{one.mineral}/{one.stage}/{one.zone}", own), []).append(one)
    out: dict[tuple[str, str], reference.Quotes] = {}
    left_out: dict[str, str] = {}
    for market in methodology.markets:
        for frequency in FREQUENCIES:
            series = sorted(members.get((market.key, frequency), []), key=lambda s: s.id)
            found = quotes(market, frequency, series, by_series, rates, audience.closed, left_out)
            if found is not None:
                out[market.key, frequency] = found
    for zone in {m.zone for m in methodology.markets}:
        for frequency in FREQUENCIES:
            beside = {k: q for k, q in out.items() if k[1] == frequency and q.market.zone == zone}
            calendar = fallback.market_periods(q.usd_per_t for q in beside.values())
            limit = methodology.fallback.limit[frequency]  # type: ignore[index]
            out |= {k: fallback.with_silent_periods(q, calendar, limit) for k, q in beside.items()}
    return out, left_out


# -------------------------------------------------------------------------------------- bases


def bases_due(
    quoted: Mapping[tuple[str, str], reference.Quotes],
    methodology: Methodology,
    bases: Iterable[Mapping[str, Any]],
    known_on: str,
    overrides: Iterable[Judgement] = (),
) -> list[dict[str, Any]]:
    """Estimate the bases whose review has come and that nobody set yet.

    What is held back, or set aside by an override, enters no estimate.

    Parameters
    ----------
    bases : iterable of mappings
        Those set before: ``market, frequency, effective, origin, ratio, via``.
    known_on : str
        ISO day of the release.

    Returns
    -------
    list of dict
        ``market, frequency, effective, origin, ratio, common, via, first, last``.
    """
    judged = list(overrides)
    done: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for base in bases:
        done.setdefault((base["market"], base["frequency"]), []).append(base)
    out = []
    for (key, frequency), quote in quoted.items():
        if len({s.origin for s in quote.series}) < 2:
            continue
        own = [j for j in judged if (j.market, j.frequency) == (key, frequency)]
        out += _market_bases(key, frequency, quote, methodology, done.get((key, frequency), []), known_on, own)
    return out


def _market_bases(
    key: str,
    frequency: str,
    quote: reference.Quotes,
    methodology: Methodology,
    done: Sequence[Mapping[str, Any]],
    known_on: str,
    judged: Sequence[Judgement],
) -> list[dict[str, Any]]:
    effective_done = {b["effective"] for b in done}
    in_force = {b["origin"]: b["ratio"] for b in sorted(done, key=lambda b: b["effective"])}
    given = ~np.isnan(quote.numbers)
    quoted = {o: given[:, [s.origin == o for s in quote.series]].any(axis=1) for o in _origins(quote)}
    anchor = next((b["origin"] for b in done if b["via"] == "anchor"), quote.market.anchor)
    if anchor not in quoted:
        # None is configured, or it is closed to this audience: the origin that is quoted most stands in.
        anchor = min(quoted, key=lambda o: (-int(quoted[o].sum()), o))
    if not quoted[anchor].any():
        return []  # levels cannot be told apart before the anchor has spoken
    start = str(quote.usd_per_t.index[int(quoted[anchor].argmax())])[:7]
    due = [
        review
        for review in reference.reviews(start, methodology.basis, known_on)
        if review[0] not in effective_done and review[0] >= max(effective_done, default="")
    ]
    if not due and all(o in in_force for o in quoted if quoted[o].any()):
        return []
    usd_per_t, age = reference.usable(quote, methodology.determination)
    origins, values, _, _ = reference.by_origin(quote, usd_per_t.where(age == 0), age)
    known = [j for j in judged if not j.origin or j.origin in origins]
    rule, settled = set_aside(known, usd_per_t.index, origins, np.zeros(values.shape, dtype=np.int64))
    values = np.where(rule == "", values, np.nan)
    held, _ = slips.beside_own_past(values[None], settled=settled[None])
    table = pd.DataFrame(np.where(np.isnan(held[0]), values, np.nan), index=usd_per_t.index, columns=list(origins))
    least = {o: min(methodology.basis.min_common[f] for f in _frequencies(quote, o)) for o in origins}
    out = []

    def estimate(effective: str, first: str, after: str, wanted: Iterable[str] | None = None) -> None:
        window = table[(table.index >= first) & (table.index < after)]
        for r in reference.estimate_bases(window, anchor, least, in_force):
            if wanted is None or r.origin in wanted:
                in_force[r.origin] = r.ratio
                row = {"market": key, "frequency": frequency, "effective": effective, "origin": r.origin}
                out.append(row | {"ratio": r.ratio, "common": r.common, "via": r.via, "first": first, "last": after})

    for effective, first, after in due:
        estimate(effective, first, after)
    newcomers = [o for o in origins if o not in in_force]
    if newcomers:
        # An origin without any basis is admitted as soon as it shares enough periods, from that day on.
        year_ago = str(pd.Period(known_on[:7], "M") - methodology.basis.window_months)
        estimate(known_on, year_ago, known_on, newcomers)
    return out


def _origins(quote: reference.Quotes) -> list[str]:
    return sorted({s.origin for s in quote.series})


def _frequencies(quote: reference.Quotes, origin: str) -> set[Literal["daily", "weekly", "ten-day", "monthly"]]:
    return {s.frequency for s in quote.series if s.origin == origin and s.frequency != "annual"}


# ------------------------------------------------------------------------------------- prices


def prices(
    quoted: Mapping[tuple[str, str], reference.Quotes],
    methodology: Methodology,
    bases: Iterable[Mapping[str, Any]],
    known_on: str,
    before: Mapping[str, MarketPrices] | None = None,
    overrides: Iterable[Judgement] = (),
) -> dict[str, MarketPrices]:
    """Determine the reference prices of all markets, in the order of the methodology.

    Parameters
    ----------
    before : mapping of market key to MarketPrices, optional
        The prices of an earlier release: what follows from the same quotations, bases, rules and overrides is
        taken over from them, to the last bit what it would be.
    overrides : iterable of Judgement
        Those in force. One about an origin that this audience's prices do not rest on has no effect.
    """
    judged = list(overrides)
    by_market: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for base in bases:
        by_market.setdefault((base["market"], base["frequency"]), []).append(base)
    before = before or {}
    own = {m.key: _bearing(m, quoted, judged) for m in methodology.markets}
    asked = [(m.key, f) for m in methodology.markets for f in FREQUENCIES if (m.key, f) in quoted]
    here = [[j for j in own[key] if j.frequency == frequency] for key, frequency in asked]
    made = reference.determine_all(
        [(_with_judged(quoted[one], some), by_market.get(one, [])) for one, some in zip(asked, here, strict=True)],
        methodology.determination,
        [before[key].made(frequency) if key in before else None for key, frequency in asked],
        here,
    )
    found = _linked(dict(zip(asked, map(disclosed, made), strict=True)), methodology)
    out = {}
    for market in methodology.markets:
        daily, ten_day, monthly = (found.get((market.key, f)) for f in FREQUENCIES)
        leading = daily if daily is not None else ten_day
        if leading is None and monthly is None:
            continue
        prior = before.get(market.key)
        plain = not market.linked and not own[market.key] and (daily is None or ten_day is None)
        if plain and prior is not None and not prior.judgements and _months_stand(prior, leading, monthly, known_on):
            months = prior.months
        else:
            months = _months(leading, monthly, methodology, known_on)
            if daily is not None and ten_day is not None:  # days come first, where they make a month
                of_ten_days = _months(ten_day, None, methodology, known_on)
                lacking = of_ten_days.index.difference(months.index[months["unrounded"].notna()])
                silent = months.index.intersection(lacking)
                months = pd.concat([months.drop(index=silent), of_ten_days.loc[lacking]]).sort_index()
            of_months = [j for j in own[market.key] if j.frequency == "monthly"]
            if absent := priced_periods(of_months, months.index):
                months = months.reindex(sorted([*months.index, *absent]))
            months = applied(months, of_months, market.rounding)  # a month of days is overridden as a whole
        out[market.key] = MarketPrices(market, daily, monthly, months, ten_day, known_on, own[market.key])
    return _with_linked_months(out, methodology)


def _linked(
    found: dict[tuple[str, str], reference.Prices], methodology: Methodology
) -> dict[tuple[str, str], reference.Prices]:
    """Fill days and ten-day periods that nobody quoted from linked markets."""
    out = dict(found)
    for market in methodology.markets:
        for frequency in ("daily", "ten-day"):
            own, other = found.get((market.key, frequency)), found.get((market.linked, frequency))
            if own is not None and other is not None:
                out[market.key, frequency] = fallback.from_linked(own, other.frame, methodology)
    return out


def _without_price(market: MarketPrices) -> list[str]:
    """Months in which a day or ten days had no price because the market, or a rule, said so."""
    said = ("suspended", "held", "dispersed", "confidential")
    frames = [p.frame for p in (market.daily, market.ten_day) if p is not None]
    return sorted({str(p)[:7] for frame in frames for p in frame.index[frame["status"].isin(said)]})


def _with_linked_months(priced: dict[str, MarketPrices], methodology: Methodology) -> dict[str, MarketPrices]:
    """Fill months that nobody quoted from linked markets, where a market has monthly contributors."""
    out = dict(priced)
    for market in methodology.markets:
        own, other = priced.get(market.key), priced.get(market.linked)
        if own is None or other is None or own.monthly is None:
            continue
        filled = fallback.from_linked(own.monthly, other.months, methodology)
        estimates = filled.frame[filled.frame["type"] == "spread"]
        silent = estimates.index.difference(own.months.index[own.months["unrounded"].notna()])
        silent = silent.difference(_without_price(own))
        rest = own.months.drop(index=own.months.index.intersection(silent))
        months = pd.concat([rest, estimates.loc[silent]]).sort_index() if len(silent) else own.months
        out[market.key] = replace(own, monthly=filled, months=months)
    return out


def _bearing(
    market: Market, quoted: Mapping[tuple[str, str], reference.Quotes], judged: Sequence[Judgement]
) -> tuple[Judgement, ...]:
    """Overrides of one market that bear on what is quoted for this audience.

    A judged price of a market with closed quotations is withheld: it could repeat one of them. One in another
    unit than the market's (the method has changed since) is no price of this market: the period has none.
    """
    here = {f: quoted[market.key, f] for f in FREQUENCIES if (market.key, f) in quoted}
    closed = any(q.closed for q in here.values())

    def fitting(one: Judgement) -> Judgement:
        if one.kind != "price":
            return one
        return (
            replace(one, withheld=one.withheld or closed)
            if one.unit == market.unit
            else replace(one, kind="suspend", price=None)
        )

    return tuple(
        fitting(j)
        for j in judged
        if j.market == market.key
        if not j.origin or (j.frequency in here and j.origin in _origins(here[j.frequency]))
    )


def _with_judged(quote: reference.Quotes, judgements: Sequence[Judgement]) -> reference.Quotes:
    """Add a row, in which nobody quoted, for each period that has a judged price only."""
    return quote.with_periods(priced_periods(judgements, quote.usd_per_t.index))


def _months_stand(
    prior: MarketPrices, leading: reference.Prices | None, monthly: reference.Prices | None, known_on: str
) -> bool:
    """Whether nothing changed since an earlier release but prices of a month that is not over in either."""
    old = prior.daily if prior.daily is not None else prior.ten_day
    if leading is None or old is None or prior.known_on[:7] != known_on[:7]:
        return False
    same_side = old.quotes.frequency == leading.quotes.frequency and old.quotes.closed == leading.quotes.closed
    open_since = reference.ordinal(f"{known_on[:7]}-01")
    only_new = all((one.quotes.at[leading.kept :] >= open_since).all() for one in (old, leading))
    if monthly is None or prior.monthly is None:
        return same_side and leading.kept > 0 and only_new and monthly is prior.monthly
    same_closed = monthly.quotes.closed == prior.monthly.quotes.closed
    unchanged = monthly.kept == len(monthly.quotes.at) == len(prior.monthly.quotes.at)
    return same_side and leading.kept > 0 and only_new and same_closed and unchanged


def _months(
    daily: reference.Prices | None, monthly: reference.Prices | None, methodology: Methodology, known_on: str
) -> pd.DataFrame:
    """Months from days, and from monthly contributors where the days cannot stand for them."""
    rules = methodology.determination
    if daily is None:
        assert monthly is not None
        return monthly.frame.sort_index()
    from_days = reference.monthly_from_daily(daily, rules, known_on)
    if monthly is None:
        return from_days
    own = monthly.frame
    both = from_days.index.intersection(own.index[own["unrounded"].notna()])
    # Days of other origins must not displace a month that its own origin has quoted whole.
    leading = {p: monthly.origins[int(monthly.weight[t].argmax())] for t, p in enumerate(own.index) if p in both}
    spoke = {o: daily.weight[:, m] > 0 for m, o in enumerate(daily.origins)}
    month_of = np.array([str(p)[:7] for p in daily.frame.index], dtype=object)
    weekdays = dict(zip(from_days.index, from_days["weekdays"].tolist(), strict=True))
    lost = [
        p
        for p, origin in leading.items()
        if origin not in spoke or spoke[origin][month_of == p].sum() < rules.month_share * weekdays[p]
    ]
    from_days = from_days.drop(index=lost)
    rest = own[~own.index.isin(from_days.index)]
    return pd.concat([part for part in (from_days, rest) if len(part)] or [from_days]).sort_index()


def disclosed(made: reference.Prices) -> reference.Prices:
    """Withhold prices that rest on closed values, or on a basis against one: status ``confidential``, no number.

    A weighted median is one contributor's own number, so with the basis and the open values beside it
    a closed one could be solved for. Nothing closed is published until a rule stands the test.
    """
    if not made.quotes.closed:
        return made
    is_closed = np.array([s.id in made.quotes.closed for s in made.quotes.series] + [False])
    used = made.weight > 0
    hide = np.logical_or.reduce(is_closed[made.chosen] & used, axis=1) | used[:, _against_closed(made)].any(axis=1)
    if not hide.any():
        return made
    frame = made.frame.copy()
    frame.loc[hide, ["unrounded", "value", "low", "high", "mean", "spread"]] = np.nan
    frame.loc[hide, "status"], frame.loc[hide, "grade"] = "confidential", None
    frame[["interval_low", "interval_high"]] = np.nan  # they rest on the closed origins of other periods too
    if "carried" in frame:
        from_closed = frame["carried_from"].isin(frame.index[hide]) | hide
        frame.loc[from_closed, "carried"], frame.loc[from_closed, "carried_from"] = np.nan, ""
    return replace(made, frame=frame)


def _against_closed(made: reference.Prices) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Origins whose basis was estimated against a closed one: with their price it gives that one away."""
    bases = made.made_by.bases if made.made_by is not None else ()
    open_ = {s.origin for s in made.quotes.series} - {
        s.origin for s in made.quotes.series if s.id in made.quotes.closed
    }
    anchors = {b["origin"] for b in bases if b.get("via") == "anchor"}
    tainted = {o for o in made.origins if o not in open_}
    while True:
        more = {
            b["origin"] for b in bases if b.get("via") in tainted or (b.get("via") == "held" and anchors & tainted)
        } - tainted
        if not more:
            break
        tainted |= more
    return np.array([m for m, origin in enumerate(made.origins) if origin in tainted], dtype=np.int64)


# ------------------------------------------------------------------------------------ indicators

LEAST_RATE_DAYS = 10  # of a month, for its mean exchange rate


def indicators(
    operation: Operation,
    methodology: Methodology,
    cells: Mapping[str, pd.DataFrame],
    rates: pd.DataFrame,
    read: Mapping[str, Mapping[str, frozenset[str]]] | None = None,
) -> list[trade.Indicator]:
    """Form the unit values of all products from the cells of each customs source.

    Parameters
    ----------
    cells : mapping of source to DataFrame
        As ``pricing.declarations`` lays them out.
    rates : DataFrame
        As ``euro_rates`` returns it.
    read : mapping of source to code to months, optional
        As ``pricing.cells.read_months`` returns it; None: all was read.
    """
    rules = methodology.trade
    if rules is None:
        return []
    parts, systems, answered = [], {}, {}
    for name, known in cells.items():
        customs = operation.sources[name].customs
        if customs is None or known.empty:
            continue
        codes = [c for c in methodology.codes if c.system == customs.system]
        months = pd.Index(sorted(known["period"].unique()))
        parts.append(trade.prepared(known, codes, customs, _monthly_rate(rates, customs.currency, months)))
        systems[customs.origin] = customs.system
        answered[customs.origin] = (read or {}).get(name, {})
    if not parts:
        return []
    judged = trade.judged(pd.concat(parts), rules)
    return trade.indicators(judged, methodology.codes, systems, rules, None if read is None else answered)


def _monthly_rate(rates: pd.DataFrame, currency: str, months: pd.Index) -> pd.Series:
    """USD per unit of a currency; NaN in a month of which too few days are known."""
    try:
        found = units.usd_rates(rates, currency, months)
    except UnitError:
        return pd.Series(np.nan, index=months)
    enough = (found["n"] >= LEAST_RATE_DAYS) | (currency == "USD")
    return found["usd_per_unit"].where(enough)


def import_indices(made: Sequence[trade.Indicator], methodology: Methodology) -> dict[str, list[ImportIndex]]:
    """Compile every basket of imports for each origin."""
    rules = methodology.trade
    if rules is None:
        return {}
    out = {}
    for name, rule in methodology.imports.items():
        found = [import_index(made, origin, rule, rules.geks_window) for origin in sorted({i.origin for i in made})]
        out[name] = [one for one in found if one is not None]
    return out


def records(
    made: Sequence[trade.Indicator], priced: Mapping[str, MarketPrices], methodology: Methodology
) -> dict[str, tuple[Beside, ...]]:
    """Set each indicator beside the other origin's, and beside a quotation where the methodology names one."""
    rules = methodology.trade
    out: dict[str, list[Beside]] = {}
    if rules is None:
        return {}
    values = {(i.mineral, i.stage, i.origin, leg): f["value"].dropna() for i in made for leg, f in i.frames.items()}
    for (mineral, stage, origin, leg), own in values.items():
        key = f"{mineral}/{stage}"
        others = {
            f"{o}/{leg}": v for (m, s, o, z), v in values.items() if (m, s, z) == (mineral, stage, leg) and o > origin
        }
        quotation = rules.quotations.get(key, "")
        if quotation in priced and quotation.endswith(f"/{leg}"):
            months = priced[quotation].months["unrounded"]
            others[f"prices/{quotation}"] = _windowed(months, rules.window_months)
        for name, other in others.items():
            if len(own) and len(other):
                found = trade.record(own, other, rules.window_months)
                out.setdefault(key, []).append(Beside(f"{origin}/{leg}", name, found))
    return {key: tuple(rows) for key, rows in out.items()}


def _windowed(months: pd.Series, window: int) -> pd.Series:
    """Mean of each month and those before it, where all are there."""
    known = months.dropna().astype("float64")
    if known.empty:
        return known
    whole = pd.period_range(known.index.min(), known.index.max(), freq="M").strftime("%Y-%m")
    return known.reindex(whole).rolling(window, min_periods=window).mean().dropna()


# ------------------------------------------------------------------------------------ indices


def end_of_day(day: dt.date) -> int:
    """Last instant of a day, in microseconds since 1970."""
    return int(pd.Period(day.isoformat(), "D").end_time.tz_localize("UTC").value // 1000)


class Production:
    """World production as it was known at any instant.

    Parameters
    ----------
    vintages : DataFrame
        Every vintage: ``series, period, vintage, value, status``.
    units_of : mapping of series id to its mass unit
    tonnages : sequence of Tonnage
        Cited figures of the methodology, each known from the end of the day on which it was published.
    until : int
        Instant after which nothing is known [microseconds since 1970].
    """

    def __init__(
        self,
        vintages: pd.DataFrame,
        units_of: Mapping[str, str],
        tonnages: Sequence[Tonnage] = (),
        until: int = 2**62,
    ) -> None:
        self._told: dict[str, list[tuple[int, str, float | None]]] = {}
        columns = (vintages[c].tolist() for c in ("series", "period", "vintage", "value", "status"))
        for series, period, vintage, value, status in sorted(zip(*columns, strict=True), key=lambda row: row[2]):
            tonnes = None if status == "withdrawn" else float(value) * TONNES[units_of[series]]
            self._told.setdefault(series, []).append((int(vintage), str(period), tonnes))
        for one in sorted(tonnages, key=lambda t: t.published):
            if end_of_day(one.published) <= until:
                self._told.setdefault(one.id, []).append((end_of_day(one.published), one.period, one.tonnes))

    def __eq__(self, other: object) -> bool:
        """Whether the same was told at the same instants."""
        return isinstance(other, Production) and self._told == other._told

    __hash__ = None  # type: ignore[assignment]

    def vintages(self) -> list[int]:
        """Return the instants at which anything became known, in order."""
        return sorted({vintage for rows in self._told.values() for vintage, _, _ in rows})

    def latest(self, series: str, year: str = "9999", known_at: int = 2**62) -> tuple[str, float, int] | None:
        """Return the last figure up to a year as known at an instant: (period, tonnes, vintage)."""
        found: dict[str, tuple[float | None, int]] = {}
        for vintage, period, tonnes in self._told.get(series, []):
            if vintage <= known_at and period <= year:
                found[period] = (tonnes, vintage)
        given = [(period, tonnes, vintage) for period, (tonnes, vintage) in found.items() if tonnes is not None]
        return max(given) if given else None


def baskets(
    methodology: Methodology,
    priced: Mapping[str, MarketPrices],
    production: Production,
    known_on: str,
    before: Mapping[str, BasketFigures] | None = None,
) -> dict[str, BasketFigures]:
    """Compile every basket of the methodology, or say why one is not compiled.

    ``known_on`` is the ISO day of the release: coverage looks at the twelve months before it. ``before`` are
    the baskets of an earlier release: what follows from the same prices and weights is taken over from them.
    """
    return {
        name: _basket(basket, methodology.twins, priced, production, known_on, (before or {}).get(name))
        for name, basket in methodology.baskets.items()
    }


def _basket(
    basket: Basket,
    rules: TwinRules,
    priced: Mapping[str, MarketPrices],
    production: Production,
    known_on: str,
    before: BasketFigures | None,
) -> BasketFigures:
    months = [priced[part.key].months for part in basket.constituents if part.key in priced]
    made = before.monthly if before is not None else None
    if made is None or not _stands(made, basket, rules, months, production, known_on):
        made = _monthly(basket, rules, months, priced, production, known_on)
    if made.index is None:
        return BasketFigures({}, {}, made.coverage, made.withheld, monthly=made)
    indices = {"monthly": made.index}
    days = _days(basket, priced)
    in_all_links = {link.month for link in made.links} <= set(days.index.str.slice(0, 7)) if len(days) else False
    if in_all_links and days.index.str.startswith(basket.base_period).any():
        old = before.indices.get("daily") if before is not None else None
        try:
            daily = fixed_basket(days, made.links, basket.base_period, basket.min_weight, old)
        except MethodError as error:
            return BasketFigures({}, {}, made.coverage, str(error))
        if daily.frame["unrounded"].notna().any():
            indices["daily"] = daily
    return BasketFigures(indices, made.weights, made.coverage, twins=made.twins, monthly=made)


def _stands(
    made: _Monthly,
    basket: Basket,
    rules: TwinRules,
    months: Sequence[pd.DataFrame],
    production: Production,
    known_on: str,
) -> bool:
    """Whether the monthly figures of an earlier release follow from the same basket, prices and weights."""
    return (
        (made.basket, made.rules) == (basket, rules)
        and made.known_in == known_on[:7]
        and len(made.months) == len(months)
        and all(old is new for old, new in zip(made.months, months, strict=True))
        and made.production == production
    )


def _monthly(
    basket: Basket,
    rules: TwinRules,
    months_of: list[pd.DataFrame],
    priced: Mapping[str, MarketPrices],
    production: Production,
    known_on: str,
) -> _Monthly:
    months = _months_table(basket, priced)
    coverage = _coverage(basket, months, production, known_on)
    given = (basket, rules, months_of, production, known_on[:7], coverage)
    if months.empty:
        return _Monthly(*given, "no constituent has a price")
    if min(coverage["markets"], coverage["weight"] or 0.0) < basket.min_coverage:
        # A few heavy metals can carry most of the weight: both shares must reach the limit.
        reason = (
            f"own prices cover {coverage['markets']:.0%} of the listed markets and {coverage['weight'] or 0:.0%} "
            f"of the weight; this name needs {basket.min_coverage:.0%} of both"
        )
        return _Monthly(*given, reason)
    try:
        links, weights = _links(basket, months, production)
        index = fixed_basket(months, links, basket.base_period, basket.min_weight)
    except MethodError as error:
        return _Monthly(*given, str(error))
    beside = twins(months, index, basket.base_period, basket.cap, basket.min_weight, rules)
    return _Monthly(*given, "", tuple(links), weights, index, beside)


def _months_table(basket: Basket, priced: Mapping[str, MarketPrices]) -> pd.DataFrame:
    """Unrounded prices, month × market, of those constituents that have any."""
    columns = {}
    for part in basket.constituents:
        if part.key in priced:
            column = priced[part.key].months["unrounded"].dropna()
            if len(column):
                columns[part.key] = column
    return pd.DataFrame(columns).sort_index() if columns else pd.DataFrame(index=pd.Index([], dtype="str"))


def _days(basket: Basket, priced: Mapping[str, MarketPrices]) -> pd.DataFrame:
    """Unrounded prices, day × market, of those constituents that have any; days on which one has."""
    columns = {}
    for part in basket.constituents:
        daily = priced[part.key].daily if part.key in priced else None
        if daily is not None:
            price = daily.column("unrounded")
            if not np.isnan(price).all():
                columns[part.key] = (daily.quotes.at, price)
    if not columns:
        return pd.DataFrame(index=pd.Index([], dtype="str"))
    first = min(int(at[0]) for at, _ in columns.values())
    last = max(int(at[-1]) for at, _ in columns.values())
    table = np.full((last - first + 1, len(columns)), np.nan)
    for column, (at, price) in enumerate(columns.values()):
        table[at - first, column] = price
    given = ~np.isnan(table).all(axis=1)
    labels = np.arange(first, last + 1)[given].astype("datetime64[D]").astype(str).astype(object)
    return pd.DataFrame(table[given], index=pd.Index(labels, dtype=object), columns=list(columns), copy=False)


def _links(
    basket: Basket, months: pd.DataFrame, production: Production
) -> tuple[list[Link], dict[str, tuple[Weight, ...]]]:
    """Every link from the first whose weights are known; that one may have learnt them late.

    Each link uses what was known by the end of its month. The first one may use the first weights that
    came before the next link month, and keeps them for good: what was published on them must not change
    when a later table comes. All before the first link is a back-cast.
    """
    due = [m for m in months.index if int(m[5:]) == basket.link_month]
    ends = [int(pd.Period(m, "M").end_time.tz_localize("UTC").value // 1000) for m in due]
    links: list[Link] = []
    weights: dict[str, tuple[Weight, ...]] = {}
    for month, end in zip(due, ends, strict=True):
        # by the calendar, not by the prices at hand: the window must not change when the next March comes
        next_end = int((pd.Period(month, "M") + 12).end_time.tz_localize("UTC").value // 1000)
        # what came in one month is taken together: files of one edition are learnt one after the other
        by_month = {_month_of(v): v for v in production.vintages() if end < v <= next_end}
        late = [] if links else list(by_month.values())
        for known_at in (end, *late):
            found = _weights(basket, months, production, month, known_at)
            if _enough(basket, month, found):
                links.append(_link(month, found, basket.cap))
                weights[month] = found
                break
    if not links:
        raise MethodError("no weights: too few of the constituents have a production figure and a price")
    return links, weights


def _month_of(microseconds: int) -> str:
    return str(np.datetime64(microseconds, "us").astype("datetime64[M]"))


def _enough(basket: Basket, month: str, weights: Sequence[Weight]) -> bool:
    """Whether a link may be set: enough of its constituents weighed, and the cap can be met."""
    n = len(weights)
    return n > 0 and n >= basket.min_coverage * len(basket.alive(month)) and basket.cap >= 1 / n


def _link(month: str, weights: Sequence[Weight], cap: float) -> Link:
    uncapped = value_shares({w.market: w.tonnes for w in weights}, {w.market: w.price for w in weights})
    return Link(month, capped(uncapped, cap), uncapped)


def _weights(
    basket: Basket, months: pd.DataFrame, production: Production, month: str, known_at: int = 2**62
) -> tuple[Weight, ...]:
    year = str(int(month[:4]) - 1)
    of_year = months[months.index.str.startswith(year)]
    out = []
    for part in basket.alive(month):
        if part.key not in months or months[part.key].isna()[month] or of_year[part.key].count() < LEAST_MONTHS:
            continue
        tonnage = production.latest(part.production, year, known_at)
        if tonnage is None:
            continue
        period, tonnes, vintage = tonnage
        price = math.fsum(of_year[part.key].dropna()) / int(of_year[part.key].count())
        out.append(Weight(part.key, tonnes * part.share, price, year, period, part.production, vintage, True))
    return tuple(out)


def _coverage(basket: Basket, months: pd.DataFrame, production: Production, known_on: str) -> dict[str, Any]:
    """Share of the listed markets and of their weight that has an own price in the last twelve months.

    Listed are those of the basket in force: what has ceased is not missed, and what will join not yet.
    """
    listed = basket.alive(_link_before(basket, known_on[:7]))
    recent = months[months.index >= str(pd.Period(known_on[:7], "M") - 12)]
    own, values = [], {}
    for part in listed:
        price = recent[part.key].dropna() if part.key in recent else pd.Series(dtype="float64")
        tonnage = production.latest(part.production)
        level = float(price.mean()) if len(price) else part.value_price
        if tonnage is not None and level is not None:
            values[part.key] = tonnage[1] * part.share * level
        if len(price):
            own.append(part.key)
    total = math.fsum(values.values())
    zones = sorted({p.zone for p in listed})
    return {
        "listed": len(listed),
        "priced": len(own),
        "markets": len(own) / len(listed),
        "weight": math.fsum(v for k, v in values.items() if k in own) / total if total else None,
        "weighed": len(values),
        "missing": sorted(p.key for p in listed if p.key not in own),
        "unweighed": sorted(p.key for p in listed if p.key not in values),
        "zones": {
            zone: {
                "listed": sum(p.zone == zone for p in listed),
                "priced": sum(p.zone == zone and p.key in own for p in listed),
            }
            for zone in zones
        },
    }


def _link_before(basket: Basket, month: str) -> str:
    """The link month whose basket is in force in a month."""
    year = int(month[:4]) - (int(month[5:]) <= basket.link_month)
    return f"{year:04d}-{basket.link_month:02d}"
