"""Accepted observations of one market into one reference price, with what made it.

Pure: frames in, frames out. The order is fixed by the methodology: collapse copies by origin, take
out each origin's basis, exclude on the cross-section, combine by weighted median, grade.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from pricing import slips
from pricing.config import Basis, Determination, Frequency, Market, Series
from pricing.judgement import Judgement, applied, set_aside

Floats = npt.NDArray[np.float64]

OBSERVED = frozenset(
    ("determined", "official", "single-source", "transaction-based", "assessed", "mean-of-days", "mean-of-ten-days")
)  # types of a price that rests on quotations of the period itself
OUT_STATUSES = ("voided", "suspended", "limit")  # statuses of a quotation that stay out of determinations
BLOCK_ROWS = 8192  # of periods × markets that are computed at once: they stay in the cache
MOST_PARTS = 32  # of a history that are kept apart; then all but the first are joined
LEAST_FREEDOM = 10  # degrees of freedom below which the dispersion of origins is not known


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
    numbers : float array, period × series
        ``usd_per_t``.
    out : bool array, period × series
        Where ``status`` keeps the quotation out.
    at : int array, by period
        Days, or months, since 1970.
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
    numbers: Floats = field(init=False, repr=False, compare=False)
    out: npt.NDArray[np.bool_] = field(init=False, repr=False, compare=False)
    at: npt.NDArray[np.int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", self.usd_per_t.to_numpy(dtype="float64"))
        object.__setattr__(self, "out", self.status.isin(OUT_STATUSES).to_numpy())
        object.__setattr__(self, "at", _ordinals(self.usd_per_t.index))

    def with_periods(self, added: Iterable[str]) -> Quotes:
        """Add periods in which nobody quoted."""
        periods = self.usd_per_t.index.union(pd.Index(list(added), dtype=object))
        if len(periods) == len(self.usd_per_t.index):
            return self
        tables = {name: getattr(self, name).reindex(periods) for name in ("value", "usd_per_t", "fx", "vat")}
        tables |= {name: getattr(self, name).reindex(periods, fill_value="") for name in ("status", "fx_period")}
        return replace(self, **tables)


_ARRAYS = ("chosen", "age", "adjusted", "ratio", "weight", "excluded")
Part = Mapping[str, npt.NDArray[Any]]
"""Numbers of consecutive periods of one market, by name."""


class Given(NamedTuple):
    """What prices follow from, beside the quotations."""

    rules: Determination
    bases: Sequence[Mapping[str, Any]]
    judgements: Sequence[Judgement] = ()


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
    made_by : Given, optional
    parts : tuple of Part
        The numbers as they were computed, run of periods by run of periods: those of earlier releases and
        those that are new. ``frame`` and the arrays are joined from them when they are first asked for.
    kept : int
        Periods, from the first, whose numbers were taken over from the determination before.
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
    made_by: Given | None = field(default=None, repr=False, compare=False)
    parts: tuple[Part, ...] = field(default=(), repr=False, compare=False)
    kept: int = field(default=0, repr=False, compare=False)

    @classmethod
    def joined(
        cls,
        quotes: Quotes,
        origins: tuple[str, ...],
        made_by: Given,
        parts: tuple[Part, ...],
        kept: int,
    ) -> Prices:
        """Prices whose tables are joined from their parts on demand."""
        made = object.__new__(cls)
        made.__dict__.update(quotes=quotes, origins=origins, made_by=made_by, parts=parts, kept=kept)
        return made

    def __getattr__(self, name: str) -> Any:
        """Join a table from the parts; called only for what is not there yet."""
        parts = self.__dict__.get("parts", ())
        if not parts or name not in ("frame", *_ARRAYS):
            raise AttributeError(name)
        found = self.__dict__[name] = _frame(self) if name == "frame" else self.column(name)
        return found

    def column(self, name: str) -> npt.NDArray[Any]:
        """One column of ``frame``, or an array; the frame is not made for it, unless a person has changed it."""
        known = self.__dict__
        if name in _ARRAYS:
            return np.asarray(known[name]) if name in known else self.computed(name)
        judged = known.get("made_by") is not None and known["made_by"].judgements
        if judged or name in known.get("frame", ()):
            return np.asarray(self.frame[name].to_numpy())
        return self.computed(name)

    def computed(self, name: str) -> npt.NDArray[Any]:
        """The same as it was computed, before any person changed a price."""
        if name == "spread":
            return np.asarray(last_rows(self.parts, "high") / last_rows(self.parts, "low") - 1)
        if name == "largest_weight":
            weight = last_rows(self.parts, "weight")
            return np.asarray(weight.max(axis=1) if weight.size else np.zeros(len(weight)))
        return last_rows(self.parts, name)


def last_rows(parts: Sequence[Part], name: str, count: int | None = None) -> npt.NDArray[Any]:
    """Return the last ``count`` rows of one name over all parts; None: all."""
    found: list[npt.NDArray[Any]] = []
    for part in reversed(parts):
        if count is not None and sum(map(len, found)) >= count:
            break
        found.append(part[name])
    whole = found[0] if len(found) == 1 else np.concatenate(found[::-1])
    return whole if count is None else whole[max(0, len(whole) - count) :]


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
    limits = _limits(quotes, rules.stale_days)
    fresh, age = _usable(quotes.numbers[None], quotes.out[None], quotes.at[None], limits[None])
    periods, columns = quotes.usd_per_t.index, quotes.usd_per_t.columns
    return pd.DataFrame(fresh[0], periods, columns), pd.DataFrame(age[0], periods, columns)


def _limits(quotes: Quotes, days: Mapping[Frequency, int]) -> npt.NDArray[np.int64]:
    """Days that a quotation of each series stays usable."""
    if quotes.frequency != "daily":
        return np.zeros(len(quotes.series), dtype=np.int64)
    return np.array([days.get(s.frequency, 0) for s in quotes.series], dtype=np.int64)


def _usable(
    usd_per_t: Floats, out: npt.NDArray[np.bool_], at: npt.NDArray[np.int64], limits: npt.NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """``usable`` over markets × periods × series; ``at`` is market × period, ``limits`` market × series."""
    fresh = np.where(out, np.nan, usd_per_t)
    # what was voided has spoken too, so that nothing stands across it
    spoken = out | ~np.isnan(fresh)
    last = np.maximum.accumulate(np.where(spoken, np.arange(out.shape[1])[:, None], -1), axis=1)
    told = np.take_along_axis(fresh, np.maximum(last, 0), axis=1)
    lived = at[:, :, None] - np.take_along_axis(at[:, :, None], np.maximum(last, 0), axis=1)
    stands = (last >= 0) & ~np.isnan(told) & (lived <= limits[:, None, :])
    return np.where(stands, told, np.nan), np.where(stands, lived, np.nan)


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
    voices = _voices(quotes)
    table, old = usd_per_t.to_numpy(dtype="float64"), age.to_numpy(dtype="float64")
    order, column = np.array([voices.order]), np.array([voices.column])
    values, chosen, ages = _by_origin(table[None], old[None], quotes.out[None], order, column, len(voices.origins))
    return voices.origins, values[0], chosen[0], ages[0]


@dataclass(frozen=True)
class _Voices:
    """Series of one market in the order in which they may speak, and the column of the origin of each."""

    origins: tuple[str, ...]
    order: list[int]
    column: list[int]


def _voices(quotes: Quotes) -> _Voices:
    origins = tuple(sorted({s.origin for s in quotes.series}))
    order = sorted(range(len(quotes.series)), key=lambda i: (quotes.series[i].precedence, quotes.series[i].id))
    return _Voices(origins, order, [origins.index(quotes.series[i].origin) for i in order])


def _by_origin(
    usd_per_t: Floats,
    age: Floats,
    out: npt.NDArray[np.bool_],
    order: npt.NDArray[np.int64],
    column: npt.NDArray[np.int64],
    count: int,
) -> tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """``by_origin`` over markets × periods × series; ``order`` and ``column`` are market × series."""
    shape = (*usd_per_t.shape[:2], count)
    values, chosen, ages = np.full(shape, np.nan), np.full(shape, -1), np.zeros(shape, dtype=np.int64)
    silenced = np.zeros(shape, dtype=bool)
    every = np.arange(len(usd_per_t))
    for position, origin in zip(order.T, column.T, strict=True):
        spoke = (every, slice(None), origin)  # market × period, of the origin that each market's series speaks for
        candidate = usd_per_t[every, :, position]
        days = np.nan_to_num(age[every, :, position]).astype(np.int64)
        better = ~np.isnan(candidate) & (np.isnan(values[spoke]) | (days < ages[spoke])) & ~silenced[spoke]
        values[spoke] = np.where(better, candidate, values[spoke])
        chosen[spoke] = np.where(better, position[:, None], chosen[spoke])
        ages[spoke] = np.where(better, days, ages[spoke])
        # what an origin's first voice calls voided, a copy of it cannot bring back
        silenced[spoke] |= out[every, :, position] & np.isnan(values[spoke])
    return values, chosen, ages


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
    columns = {str(o): column for o, column in zip(values.columns, values.to_numpy(dtype="float64").T, strict=True)}
    present = {o: int((~np.isnan(column)).sum()) for o, column in columns.items()}
    found = {anchor: Ratio(anchor, 1.0, present.get(anchor, 0), "anchor")}
    _link_origins(columns, anchor, least, found)
    # An origin that nobody reaches in this window keeps its ratio, and others may be reached through it.
    for origin, ratio in sorted(previous.items()):
        found.setdefault(origin, Ratio(origin, ratio, present.get(origin, 0), "held"))
    _link_origins(columns, anchor, least, found)
    return [found[o] for o in sorted(found)]


def _link_origins(
    columns: Mapping[str, Floats], anchor: str, least: Mapping[str, int], found: dict[str, Ratio]
) -> None:
    """Add the ratio of each origin that can be reached from those found, in place."""
    while True:
        links = []
        for new in columns.keys() - found.keys():
            for known in found.keys() & columns.keys():
                common = int((~np.isnan(columns[new]) & ~np.isnan(columns[known])).sum())
                if common and common >= min(least[new], least.get(known, least[new])):
                    links.append((known != anchor, -common, known, new))
        if not links:
            return
        _, count, known, new = min(links)
        ratio = float(np.nanmedian(columns[new] / columns[known])) * found[known].ratio
        found[new] = Ratio(new, ratio, -count, known)


def reviews(start_month: str, rules: Basis, known_on: str) -> list[tuple[str, str, str]]:
    """Return the reviews that were due by a day: (effective, first, after), as period texts.

    The first one, effective from the beginning (empty text), is estimated on the window that opens
    with the anchor's first month; the others on the window that ends where they become effective.
    """
    start = _month_number(start_month)
    due = [("", start_month, _month_text(start + rules.window_months))]
    for year in range(start // 12 + 1, int(known_on[:4]) + 1):
        effective = year * 12 + rules.review_month - 1
        text = _month_text(effective)
        if text <= known_on and effective - rules.window_months >= start:
            due.append((text, _month_text(effective - rules.window_months), text))
    return due


def _month_number(month: str) -> int:
    return int(month[:4]) * 12 + int(month[5:7]) - 1


def _month_text(number: int) -> str:
    return f"{number // 12:04d}-{number % 12 + 1:02d}"


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
    by_day: dict[str, list[Mapping[str, Any]]] = {"": []}
    for base in bases:
        by_day.setdefault(base["effective"], []).append(base)
    effective = sorted(by_day)
    column = {origin: position for position, origin in enumerate(origins)}
    held, table = [np.nan] * len(origins), []
    for day in effective:
        for base in by_day[day]:
            if base["origin"] in column:
                held[column[base["origin"]]] = base["ratio"]
        table.append(list(held))
    at = [bisect_right(effective, period) - 1 for period in periods]
    return np.array(table, dtype="float64")[at], np.array(effective, dtype=object)[at]


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
    return determine_all([(quotes, bases)], rules, judgements=[judgements])[0]


def determine_all(
    markets: Sequence[tuple[Quotes, Sequence[Mapping[str, Any]]]],
    rules: Determination,
    before: Sequence[Prices | None] | None = None,
    judgements: Sequence[Sequence[Judgement]] | None = None,
) -> list[Prices]:
    """``determine`` for many markets; what follows from the same inputs as before is taken over.

    Parameters
    ----------
    markets : sequence of (Quotes, bases)
    rules : Determination
    before : sequence of Prices or None, optional
        What was determined of each market for an earlier release.
    judgements : sequence of list of Judgement, optional
        Overrides in force of each market, whose origins quote here.

    Returns
    -------
    list of Prices
        To the last bit what ``determine`` gives of each alone: a period's numbers rest on it and on a span
        before it, which is read again, so that it does not matter where a computation begins.
    """
    due: dict[tuple[int, ...], list[_Due]] = {}
    out: list[Prices | None] = [None] * len(markets)
    for place, (quotes, bases) in enumerate(markets):
        prior = before[place] if before is not None else None
        given = Given(rules, bases, judgements[place] if judgements is not None else ())
        one = _due(place, quotes, given, prior)
        if one.kept and one.kept == len(quotes.at):
            out[place] = Prices.joined(quotes, one.voices.origins, given, one.parts, one.kept)
            continue
        group = (len(one.voices.origins), len(quotes.series), len(quotes.at) - one.kept, one.kept - one.first, one.past)
        due.setdefault(group, []).append(one)
    for alike in due.values():
        size = max(1, BLOCK_ROWS // max(1, len(alike[0].quotes.at) - alike[0].first))
        for start in range(0, len(alike), size):
            some = alike[start : start + size]
            for one, new in zip(some, _numbers(some, rules), strict=True):
                parts = (*one.parts, new)
                if len(parts) > MOST_PARTS:  # the first is the long one
                    parts = (parts[0], {name: last_rows(parts[1:], name) for name in new})
                out[one.place] = Prices.joined(one.quotes, one.voices.origins, one.given, parts, one.kept)
    return [made for made in out if made is not None]


@dataclass(frozen=True)
class _Due:
    """One market whose periods from ``kept`` on are computed, with what these look back upon."""

    place: int
    quotes: Quotes
    given: Given
    voices: _Voices
    kept: int
    first: int  # row from which quotations may still stand at ``kept``
    past: int  # rows before ``kept`` that the interval looks at
    parts: tuple[Part, ...]


def _due(place: int, quotes: Quotes, given: Given, prior: Prices | None) -> _Due:
    kept = 0
    if prior is not None and prior.parts and prior.made_by is not None:
        alike = prior.quotes.market == quotes.market and prior.quotes.series == quotes.series
        alike &= prior.quotes.frequency == quotes.frequency and prior.made_by.rules == given.rules
        if alike and list(prior.made_by.judgements) == list(given.judgements):
            kept = min(_common(prior.quotes, quotes), _rows_before(quotes, prior.made_by.bases, given.bases))
    look_back = max(int(_limits(quotes, days).max()) for days in (given.rules.stale_days, given.rules.relaxed_days))
    parts = _first_rows(prior.parts, kept) if prior is not None and kept else ()
    past = min(kept, given.rules.interval_periods)
    return _Due(place, quotes, given, _voices(quotes), kept, max(0, kept - look_back), past, parts)


def _common(old: Quotes, new: Quotes) -> int:
    """Count the periods, from the first, that two sets of quotations of the same series have in common."""
    n = min(len(old.at), len(new.at))
    differs = old.at[:n] != new.at[:n]
    differs |= (old.out[:n] != new.out[:n]).any(axis=1)
    # bit by bit, so that NaN is NaN
    differs |= (old.numbers.view(np.int64)[:n] != new.numbers.view(np.int64)[:n]).any(axis=1)
    return int(differs.argmax()) if differs.any() else n


def _rows_before(quotes: Quotes, old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> int:
    """Count the periods, from the first, in which two lists of dated bases, in any order, are the same."""
    old, new = (sorted(bases, key=lambda b: (b["effective"], b["origin"])) for bases in (old, new))
    if old == new:
        return len(quotes.at)
    sides = ((old, new), (new, old))
    first = min((b["effective"] for some, others in sides for b in some if b not in others), default="")
    later = quotes.usd_per_t.index >= first
    return int(later.argmax()) if later.any() else len(later)


def _first_rows(parts: Sequence[Part], count: int) -> tuple[Part, ...]:
    found: list[Part] = []
    for part in parts:
        rows = len(part["unrounded"])
        if rows > count:
            part = {name: array[:count] for name, array in part.items()}
        if count > 0:
            found.append(part)
        count -= rows
    return tuple(found)


def _numbers(due: Sequence[_Due], rules: Determination) -> list[Part]:
    """Compute the numbers of markets that have as many origins, series, periods and past as each other."""
    head = due[0].kept - due[0].first
    table, out, at = (
        np.stack([getattr(one.quotes, name)[one.first :] for one in due]) for name in ("numbers", "out", "at")
    )
    order, column = (np.array([getattr(one.voices, name) for one in due]) for name in ("order", "column"))
    count = len(due[0].voices.origins)

    def spoken(days: Mapping[Frequency, int]) -> tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        limits = np.stack([_limits(one.quotes, days) for one in due])
        usd_per_t, age = _usable(table, out, at, limits)
        return _by_origin(usd_per_t[:, head:], age[:, head:], out[:, head:], order, column, count)

    raw, chosen, ages = spoken(rules.stale_days)
    ratio = np.stack(
        [
            ratios_in_force(one.quotes.usd_per_t.index[one.kept :].tolist(), one.voices.origins, one.given.bases)[0]
            for one in due
        ]
    )
    if count == 1:
        ratio = np.where(np.isnan(ratio), 1.0, ratio)
    # suspended by its quotations or by a person: then there was no price, and none stands from before
    stopped = np.logical_or.reduce(out, axis=2)
    aside = np.zeros(raw.shape, dtype=bool)
    for g, one in enumerate(due):
        if one.given.judgements:
            periods = one.quotes.usd_per_t.index
            for j in one.given.judgements:
                if j.kind == "suspend":
                    stopped[g] |= j.covers(periods[one.first :])
            aside[g] = set_aside(one.given.judgements, periods[one.kept :], one.voices.origins, ages[g])[0] != ""
    locked = stopped[:, head:]
    # where nobody's quotation of the period itself can be used older ones make an estimate
    relaxed = ~(~np.isnan(raw) & (ages == 0) & ~np.isnan(ratio) & ~aside).any(axis=2) & ~locked
    if due[0].quotes.frequency == "daily" and relaxed.any():
        older, voice, old = spoken(rules.relaxed_days)
        last = np.maximum.accumulate(np.where(stopped, at, -(2**40)), axis=1)[:, head:]
        older = np.where(at[:, head:, None] - old <= last[:, :, None], np.nan, older)
        wide = relaxed[:, :, None]
        raw, ages = np.where(wide, older, raw), np.where(wide, old, ages)
        chosen = np.where(wide, np.where(np.isnan(older), -1, voice), chosen)
    return _determined(due, raw, chosen, ages, ratio, locked, relaxed, rules)


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
    _exclude_on_cross_section(adjusted, excluded, rules.max_spread, kept)
    used = ~np.isnan(adjusted) & (excluded == "")
    weight = _weighed(used, tier_weight, rules)
    values = np.where(used, adjusted, np.nan)
    low, high = np.where(used, adjusted, np.inf).min(axis=1), np.where(used, adjusted, -np.inf).max(axis=1)
    with np.errstate(invalid="ignore"):
        dispersed = high / low - 1 > rules.widest
    return weight, np.where(dispersed, np.nan, weighted_median(values, weight))


def _weighed(used: npt.NDArray[np.bool_], tier_weight: Floats, rules: Determination) -> Floats:
    """Shares of the origins of each row, capped; 0 for those that are not used."""
    weight = np.where(used, tier_weight, 0.0)
    total = weight.sum(axis=1, keepdims=True)
    weight = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    return capped_rows(weight, rules.max_weight)


def _carried(frame: pd.DataFrame, at: npt.NDArray[np.int64], days: int) -> pd.DataFrame:
    """Show the last price of a day that has none: ``carried`` and ``carried_from``. It is no price of that day.

    Nothing is carried beyond ``days``, nor across a day whose quotations were voided, suspended or
    limit-locked, nor to it: then the market had no price, and an old one would say otherwise.
    """
    given, observed = frame["unrounded"].notna().to_numpy(), frame["type"].isin([*OBSERVED, "judged"]).to_numpy()
    stopped = (frame["status"] == "suspended").to_numpy()
    place = np.arange(len(frame))
    last = np.maximum.accumulate(np.where((given & observed) | stopped, place, -1)) if len(frame) else place
    silent = (frame["status"] == "missing").to_numpy()
    alive = silent & (last >= 0) & given[last] & (at - at[last] <= days)
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


def _exclude_on_cross_section(
    adjusted: Floats, excluded: npt.NDArray[np.object_], limit: float, kept: npt.NDArray[np.bool_] | None = None
) -> None:
    """Mark origins that disagree with the median of their period, but for those that somebody wants kept."""
    candidates = np.where(excluded == "", adjusted, np.nan)
    several = (~np.isnan(candidates)).sum(axis=1) >= 3
    middle = weighted_median(candidates, np.ones_like(candidates))[:, None]
    with np.errstate(invalid="ignore"):
        far = (np.abs(candidates / middle - 1) > limit) & several[:, None]
    if kept is not None:
        far &= ~kept
    rows, columns = np.nonzero(far)
    looks_like = slips.named(candidates[rows, columns] / middle[rows, 0])
    excluded[rows, columns] = [f"unit-slip ({what})" if what else "cross-section" for what in looks_like]


def _determined(
    due: Sequence[_Due],
    raw: Floats,
    chosen: npt.NDArray[np.int64],
    ages: npt.NDArray[np.int64],
    ratio: Floats,
    locked: npt.NDArray[np.bool_],
    relaxed: npt.NDArray[np.bool_],
    rules: Determination,
) -> list[Part]:
    """Price, spread, status, type, grade and interval; arrays are market × period (× origin)."""
    shape = raw.shape
    adjusted = raw / ratio
    excluded = np.full(shape, "", dtype=object)
    excluded[~np.isnan(raw) & np.isnan(ratio)] = "no-basis"
    kept = np.zeros(shape, dtype=bool)
    for g, one in enumerate(due):
        if one.given.judgements:
            periods = one.quotes.usd_per_t.index[one.kept :]
            judged, kept[g] = set_aside(one.given.judgements, periods, one.voices.origins, ages[g])
            excluded[g] = np.where((judged != "") & ~np.isnan(raw[g]), judged, excluded[g])
    which = np.arange(shape[0])[:, None, None]
    # the last column stands for nobody: chosen is -1 there
    by_series = np.array([[*(rules.tier_weights.get(s.tier, 0.0) for s in one.quotes.series), 0.0] for one in due])
    official = np.array([[*(s.tier == "official" for s in one.quotes.series), True] for one in due])
    # what looks at one period only: markets and periods are rows alike
    rows = (shape[0] * shape[1], shape[2])
    _exclude_on_cross_section(adjusted.reshape(rows), excluded.reshape(rows), rules.max_spread, kept.reshape(rows))
    held, past = _hold_slips(due, adjusted, excluded, kept, ages)
    used = (~np.isnan(adjusted) & (excluded == "")).reshape(rows)
    weight = _weighed(used, by_series[which, chosen].reshape(rows), rules)
    values = np.where(used, adjusted.reshape(rows), np.nan)
    middle = weighted_median(values, weight)
    n, some = used.sum(axis=1), used.any(axis=1)
    low, high, mean = (np.full(len(n), np.nan) for _ in range(3))
    low[some], high[some], mean[some] = (f(values[some], axis=1) for f in (np.nanmin, np.nanmax, np.nanmean))
    spread = high / low - 1
    dispersed = some & (spread > rules.widest)
    fresh = (used & (ages.reshape(rows) == 0)).sum(axis=1)
    estimated = relaxed.reshape(-1) & some
    price = np.where(dispersed | ((fresh == 0) & ~estimated), np.nan, middle)
    given = ~np.isnan(price)
    estimated &= given
    alone = (official[which, chosen].reshape(rows) | ~used).all(axis=1) & (n == 1)
    # Aged quotations do not earn a grade, and origins far apart lose one.
    earned = np.where(spread > rules.max_spread / 2, fresh - 1, fresh)
    grades = [~given, earned >= rules.grades["A"], earned >= rules.grades["B"]]
    block = (shape[0], shape[1])
    reach = _reach(due, values.reshape(shape), weight.reshape(shape), ages, middle.reshape(block), rules)
    bounds = price * np.exp(np.array([[-1.0], [1.0]]) * reach["reach"].reshape(-1))
    numbers = {
        "unrounded": price,
        "interval_low": bounds[0],
        "interval_high": bounds[1],
        "status": _texts(
            [estimated, given, dispersed, locked.reshape(-1), held.any(axis=2).reshape(-1)],
            ("estimated", "normal", "dispersed", "suspended", "held", "missing"),
        ),
        "type": _texts(
            [estimated, n == 0, alone, n == 1], ("relaxed-window", "none", "official", "single-source", "determined")
        ),
        "grade": _texts(grades, (None, "A", "B", "C")),
        "origins": n,
        "low": low,
        "high": high,
        "mean": mean,
        "squares": reach["squares"],
        "steps": reach["steps"],
        "level": reach["level"],
    }
    table = {
        "held": held,
        "last": past.last,
        "standing": past.standing,
        "chosen": chosen,
        "age": ages,
        "adjusted": adjusted,
        "ratio": ratio,
        "excluded": excluded,
    }
    table |= {"weight": weight.reshape(shape)} | {name: array.reshape(block) for name, array in numbers.items()}
    return [{name: array[g] for name, array in table.items()} for g in range(shape[0])]


def _hold_slips(
    due: Sequence[_Due],
    adjusted: Floats,
    excluded: npt.NDArray[np.object_],
    kept: npt.NDArray[np.bool_],
    ages: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.bool_], slips.Past]:
    """Hold back what looks like another unit than the origin quoted in before, where no other origin tells.

    Arrays are market × period × origin; the rule is written into ``excluded``. Returns what is held, and the past
    after each period.
    """
    before = None
    if due[0].kept:
        last, standing = (np.stack([last_rows(one.parts, name, 1)[0] for one in due]) for name in ("last", "standing"))
        before = slips.Past(last, standing)
    ratio, past = slips.beside_own_past(np.where(excluded == "", adjusted, np.nan), before, kept, ages == 0)
    for at in zip(*np.nonzero(~np.isnan(ratio)), strict=True):
        (what,) = slips.named(ratio[at], slips.LOOSE, slips.LEAST)
        excluded[at] = f"held: unit-slip ({what})"
    return ~np.isnan(ratio), past


def _texts(conditions: Sequence[npt.NDArray[np.bool_]], texts: Sequence[str | None]) -> npt.NDArray[np.object_]:
    """The text of the first condition that holds, else the last text."""
    which = np.select(conditions, range(len(conditions)), default=len(conditions))
    return np.array(texts, dtype=object)[which]  # type: ignore[no-any-return]


def _reach(
    due: Sequence[_Due],
    values: Floats,
    weight: Floats,
    ages: npt.NDArray[np.int64],
    middle: Floats,
    rules: Determination,
) -> dict[str, Floats]:
    """Half width of the interval of each price, as logarithm; NaN where origins were too seldom seen side by side.

    The variance of one origin is pooled over the periods up to this one (nothing later), by degrees of
    freedom; a weighted mean of n of them has it times the sum of squared weights, a median of three or
    more pi/2 times as much (the asymptotic efficiency of a median). A quotation that is some periods
    old adds as many times the variance of one step of the price. Ours: no manual prescribes it.

    Returns
    -------
    dict of array, market × period
        ``reach``, and what later periods look back upon: ``squares`` of deviations from the price, the
        last known ``level`` (logarithm of the price), the squares of its ``steps``.
    """
    past, window = due[0].past, rules.interval_periods
    before = {
        name: np.array([last_rows(one.parts, name, past) if past else () for one in due], dtype="float64")
        for name in ("squares", "origins", "steps", "level")
    }
    n = np.isfinite(values).sum(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = np.log(values / middle[:, :, None])
        level = np.log(middle)
    squares = np.where(n > 1, np.nansum(deviation**2, axis=2), 0.0)
    # the last level that is known stands where there is none
    start = before["level"][:, -1:] if past else np.full((len(due), 1), np.nan)
    level = np.concatenate([start, level], axis=1)
    known = np.maximum.accumulate(np.where(np.isnan(level), 0, np.arange(level.shape[1])), axis=1)
    level = np.take_along_axis(level, known, axis=1)
    steps = np.diff(level, axis=1) ** 2
    pooled = window_sums(np.concatenate([before["squares"], squares], axis=1), window)[:, past:]
    freedom = window_sums(np.maximum(np.concatenate([before["origins"], n], axis=1) - 1, 0.0), window)[:, past:]
    own = np.divide(pooled, freedom, out=np.full(n.shape, np.nan), where=freedom >= LEAST_FREEDOM)
    # the step of the price as it was known before this period
    seen = np.concatenate([np.full((len(due), 1), np.nan), before["steps"], steps[:, :-1]], axis=1)
    count = window_sums((~np.isnan(seen)).astype("float64"), window)[:, past:]
    total = window_sums(np.nan_to_num(seen), window)[:, past:]
    step = np.divide(total, count, out=np.full(n.shape, np.nan), where=count >= LEAST_FREEDOM)
    old = (weight * ages).sum(axis=2)
    variance = own * (weight**2).sum(axis=2) * np.where(n > 2, np.pi / 2, 1.0)
    variance = variance + np.where(old > 0, old * step, 0.0)
    reach = NormalDist().inv_cdf(0.5 + rules.interval / 200) * np.sqrt(np.where(n > 0, variance, np.nan))
    return {"reach": reach, "squares": squares, "steps": steps, "level": level[:, 1:]}


def window_sums(values: Floats, window: int) -> Floats:
    """Sum of each value and the ``window - 1`` before it, along the last axis; fewer at the beginning.

    Sums of 1, 2, 4, ... neighbours are added up, always in the same order: a sum rests on its own window to
    the last bit, which a running sum does not, and nothing is ever subtracted.
    """
    total, block, size, taken = np.zeros_like(values), values, 1, 0
    while size <= window:
        if window & size:
            total = total + _later(block, taken)
            taken += size
        block = block + _later(block, size)
        size *= 2
    return total


def _later(values: Floats, by: int) -> Floats:
    """Values moved so many places on, zeros before them."""
    out = np.zeros_like(values)
    out[..., by:] = values[..., : max(0, values.shape[-1] - by)]
    return out


def _frame(made: Prices) -> pd.DataFrame:
    """Join the table of prices from the parts."""
    quotes = made.quotes
    first = ("unrounded", "interval_low", "interval_high")
    rest = ("status", "type", "grade", "origins", "low", "high", "mean", "spread", "largest_weight")
    columns = {name: made.computed(name) for name in first}
    columns["value"] = np.round(columns["unrounded"], quotes.market.rounding)
    frame = pd.DataFrame(columns | {name: made.computed(name) for name in rest}, index=quotes.usd_per_t.index)
    if made.made_by is None:
        return frame
    frame = applied(frame, made.made_by.judgements, quotes.market.rounding)
    return _carried(frame, quotes.at, made.made_by.rules.carry_days) if quotes.frequency == "daily" else frame


# ------------------------------------------------------------------------------------- months


_MEANT = ("unrounded", "mean", "low", "high", "spread", "interval_low", "interval_high")


def monthly_from_daily(daily: Prices, rules: Determination, known_on: str) -> pd.DataFrame:
    """Return monthly reference prices as the mean of the month's daily (or ten-day) determinations.

    A month counts once it is over (by ``known_on``, an ISO day), when at least ``month_share`` of its
    weekdays (of its three ten-day periods) have a price, and when its last week has one: a feed that
    ended must not stand for the month. The grade is that which at least half of the days reach. Where so many days
    were not observed but estimated or judged that the rest would not make a month, it is an estimate.

    Returns
    -------
    DataFrame, by month
        The columns of ``Prices.frame``, ``days`` (that entered the mean), ``estimated`` (of these: not observed) and
        ``weekdays`` (that the month has; ten-day periods where the market is quoted so). ``low``
        and ``high`` span the month, ``origins`` is the fewest of any day, ``spread`` the widest.
    """
    given = ~np.isnan(daily.column("unrounded"))
    at = daily.quotes.at[given].astype("datetime64[D]")
    frame = {name: daily.column(name)[given] for name in (*_MEANT, "grade", "origins", "largest_weight")}
    months = at.astype("datetime64[M]")
    starts = np.flatnonzero(np.r_[True, months[1:] != months[:-1]]) if len(months) else np.array([], dtype=np.int64)
    first = months[starts]
    days = np.diff(np.r_[starts, len(months)])
    ten_day = daily.quotes.frequency == "ten-day"
    # the lowest grade that at least half of the days reach
    letters = frame["grade"]
    reached = [_by_month(np.add, (letters <= g).astype(np.int64), starts) for g in ("A", "B")]
    kinds = daily.column("type")[given]
    observed = _by_month(np.add, np.isin(kinds.astype(str), [*OBSERVED]).astype(np.int64), starts)
    weekdays = np.full(len(starts), 3) if ten_day else np.busday_count(first, first + 1)
    enough, what = observed >= rules.month_share * weekdays, "ten-days" if ten_day else "days"
    number = {c: frame[c] for c in _MEANT}
    unrounded = _by_month(np.add, number["unrounded"], starts) / days
    out = pd.DataFrame(
        {
            "unrounded": unrounded,
            # the errors of one month's days go together: the mean of their bounds, not less
            "interval_low": _by_month(np.add, number["interval_low"], starts) / days,
            "interval_high": _by_month(np.add, number["interval_high"], starts) / days,
            "value": np.round(unrounded, daily.quotes.market.rounding),
            "status": np.where(enough, "normal", "estimated").astype(object),
            "type": np.where(enough, f"mean-of-{what}", f"mean-of-estimated-{what}").astype(object),
            "estimated": days - observed,
            "grade": np.select([2 * r >= days for r in reached], ["A", "B"], default="C").astype(object),
            "origins": _by_month(np.minimum, frame["origins"], starts),
            "low": _by_month(np.minimum, number["low"], starts),
            "high": _by_month(np.maximum, number["high"], starts),
            "mean": _by_month(np.add, number["mean"], starts) / days,
            "spread": _by_month(np.maximum, number["spread"], starts),
            "largest_weight": _by_month(np.maximum, frame["largest_weight"], starts),
            "days": days,
            "weekdays": weekdays,
        },
        index=pd.Index(first.astype(str).astype(object), dtype=daily.quotes.usd_per_t.index.dtype),
    )
    after = (first + 1).astype("datetime64[D]")
    over = after.astype(str) <= known_on
    ends = np.r_[starts[1:], len(months)][: len(starts)] - 1
    over &= at[ends] >= after - np.timedelta64(7, "D")
    over &= out["days"].to_numpy() >= rules.month_share * out["weekdays"].to_numpy()
    return out.loc[np.asarray(over, dtype=np.bool_)]


def _by_month(reduce: np.ufunc, values: npt.NDArray[Any], starts: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Reduce daily values over the runs of days that begin at ``starts``."""
    return reduce.reduceat(values, starts) if len(starts) else values[:0]


def ordinal(day: str) -> int:
    """Days from 1970 to an ISO day, as ``Quotes.at`` counts them."""
    return int(np.datetime64(day, "D").astype(np.int64))


def _ordinals(periods: pd.Index) -> npt.NDArray[np.int64]:
    """Days or months since 1970."""
    unit = "M" if len(periods) and len(periods[0]) == 7 else "D"
    return periods.to_numpy(dtype=object).astype("U").astype(f"datetime64[{unit}]").astype(np.int64)
