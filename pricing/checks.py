"""Checks of a newly read document against what is known: figures that are most likely not what they say.

Pure. Every check returns findings and changes no value. An ``error`` is near certain, and the figure is held back
until somebody decides; a ``warning`` flows on and is shown. A move over time is never an error for its size: only where
a known mistake explains it. Figures are judged in order of their periods, each from those before it. What a publisher
usually does is judged in ``pricing.habits``.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from pricing.config import Market, Series
from pricing.errors import UnitError
from pricing.quality import Finding, Severity
from pricing.slips import ENOUGH, LEAST, LOOSE, SLIPS, named
from pricing.units import VAT, to_usd_per_t

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rates = Callable[[], pd.DataFrame]
"""Gives the exchange rates, ISO day × currency per euro: asked only where a ratio could be one."""

BEFORE = 260  # known periods before a document's first that its figures are judged from: a year of days
PRICES = ("normal", "provisional")
JUMP = 3.0  # factor between two figures that begins another level
ALMOST = 1e-9  # share of a value below which a difference is arithmetic
# What programs and clerks write where there is no figure; the long nines are no price of anything by accident.
NINES = (9999.0, 99999.0, 999999.0, 9999999.0, 9999.99, 99999.99, 999999.99)
PLACEHOLDERS = (*NINES, 99.0, 999.0, 99.9, 999.9, 99.99, 999.99, 1.0, 0.1, 0.01, 0.001, 0.0001, 1e-10)
FARTHEST = 700.0  # logarithm of a ratio that still is a number
OF_RATE = 0.02  # a currency mistaken lies this near the rate of the day
FOREIGN = 5.0  # an exchange rate below this factor could be a market's move
NEAREST = 1.03  # a revision by less is not asked for its currency
OF_REVISED = 0.005  # a revision from one currency to another lies this near the rate of the day
OF_TAX = 0.0002  # a tax mistaken lies this near 1 + the rate: the price is the one before
RUN = 5  # equal figures of two series in a row
SELDOM = 0.1  # share of earlier periods in which two series that are not one may have been equal
PAST = 12  # earlier periods without which nothing is said of two series
TAXES = tuple(rate for _, rate, _ in VAT)
APART = np.log(1.25)  # nearer than this, two series cannot be told apart by their level
UNUSUAL = 6.0  # a swap moves both series by so many of their usual moves
USUAL = 60  # moves before, whose median is the usual one
BAND = 20.0  # factor beyond everything that is known of a mineral, which no grade, stage or year explains
AGAINST = 24  # latest figures of another series that the band is made from


@dataclass(frozen=True)
class Line:
    """One series in order of its periods: what is known, and what a document says.

    Attributes
    ----------
    periods : list of ISO periods, shape (n,)
    values : float array, in the series' own unit
        The document's where it speaks, else what is known; NaN where it is no price (voided, suspended, limit).
    old : float array
        What was known before; NaN where nothing was.
    fresh : bool array
        The document brings or changes the figure.
    settled : bool array
        Somebody accepted the figure.
    """

    series: Series
    periods: list[str]
    values: Floats
    old: Floats
    fresh: Bools
    settled: Bools

    @property
    def is_new(self) -> bool:
        """Whether nothing was known of the series before."""
        return bool(np.isnan(self.old).all())


def lined_up(
    observations: pd.DataFrame,
    known: pd.DataFrame,
    series: Mapping[str, Series],
    accepted: Collection[tuple[str, str, float]] = (),
) -> list[Line]:
    """Lay a document's figures beside what is known of its series.

    Parameters
    ----------
    observations, known : DataFrame
        Columns ``series, period, value, status``, one row for each period of a series.
    """
    had, says = _by_series(known), _by_series(observations)
    settled_in: dict[str, set[tuple[str, float]]] = {}
    for name, period, value in accepted:
        settled_in.setdefault(name, set()).add((period, value))
    lines = []
    for name, told in sorted(says.items()):
        before = had.get(name, {})
        periods = sorted({**before, **told})
        old = np.array([before.get(p, np.nan) for p in periods], dtype="float64")
        new = np.array([told.get(p, np.nan) for p in periods], dtype="float64")
        values = np.where(np.isnan(new), old, new)
        fresh = ~np.isnan(new) & ~(np.abs(new - old) <= ALMOST * np.abs(old))
        wanted = settled_in.get(name, set())
        settled = np.array([pair in wanted for pair in zip(periods, values.tolist(), strict=True)], dtype=bool)
        lines.append(Line(series[name], periods, values, old, fresh, settled))
    return lines


def _by_series(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Values by series and period; NaN where a status says that it is no price."""
    out: dict[str, dict[str, float]] = {}
    columns = (rows[c].tolist() for c in ("series", "period", "value", "status"))
    for name, period, value, status in zip(*columns, strict=True):
        out.setdefault(name, {})[period] = value if status in PRICES else np.nan
    return out


def judge(lines: Sequence[Line], rates: Rates) -> list[Finding]:
    """Return what is doubtful about the fresh figures of a document, one finding for each doubtful figure."""
    found = [
        f
        for line in lines
        for f in (*_new_signs(line), *_levels(line, rates), *_taxes(line), *_other_currency(line, rates))
    ]
    exchanged = [*swaps(lines)]
    places = {(f.series, f.period) for f in exchanged}  # a swap explains what else looks like a slip
    found = [f for f in found if (f.series, f.period) not in places] + exchanged
    return [*found, *_at_once(found, lines), *copies(lines)]


# ------------------------------------------------------------------------------ one series by itself


def _new_signs(line: Line) -> Iterator[Finding]:
    """Find figures that are zero or below where the series never was (prices are held back for that already)."""
    if line.series.kind != "other":
        return
    below = line.values <= 0
    for t in np.flatnonzero(line.fresh & below).tolist():
        if t >= ENOUGH and not below[:t].any():
            value = float(line.values[t])
            check, what = ("sign", "is below zero") if value < 0 else ("placeholder", "is zero")
            evidence = {"value": value, "undone": -value if value < 0 else None, "earlier": t}
            message = f"{line.series.id} {line.periods[t]}: {value!r} {what}, and none of {t} figures before was"
            yield Finding(check, "warning", message, line.series.id, line.periods[t], evidence)


class _Explained(NamedTuple):
    check: str
    severity: Severity
    factor: float | None  # by which the figure is too high
    words: str


def _levels(line: Line, rates: Rates) -> Iterator[Finding]:
    """Find figures that lie a known mistake away from the last good level, for as long as they stay there.

    A level is a run of figures without a step of ``JUMP``. One that no mistake explains is a market's, and the next
    ones are judged against it.
    """
    rows = np.flatnonzero(line.values > 0)
    if not len(rows) or not line.fresh.any():
        return
    values = line.values[rows]
    steps = np.abs(np.diff(np.log(values))) > np.log(JUMP)
    if not steps.any():
        return
    last, standing = np.nan, 0
    for level in np.split(np.arange(len(rows)), np.flatnonzero(steps) + 1):
        first = float(values[level[0]])
        why = None
        if standing >= ENOUGH and not line.settled[rows[level]].any():
            why = _explained(first, last, line.periods[rows[level[0]]], line.series, rates)
        if why is None:
            near = abs(np.log(first) - np.log(last)) <= np.log(LEAST)
            standing = len(level) + (standing if near else 0)
            last = float(values[level[-1]])
            continue
        for t in rows[level][line.fresh[rows[level]]].tolist():
            value = float(line.values[t])
            undone = value / why.factor if why.factor else None
            evidence = {"value": value, "last": last, "ratio": value / last, "undone": undone}
            message = f"{line.series.id} {line.periods[t]}: {value:g} {line.series.unit} after {last:g} {why.words}"
            yield Finding(why.check, why.severity, message, line.series.id, line.periods[t], evidence)


def _explained(value: float, last: float, period: str, series: Series, rates: Rates) -> _Explained | None:
    """Say which known mistake explains a figure after the last good one."""
    size = float(np.exp(np.clip(abs(np.log(value) - np.log(last)), 0, FARTHEST)))
    ratio = size if value > last else 1 / size
    if size > JUMP and value in PLACEHOLDERS:
        certain = value in NINES or size > LEAST
        return _Explained("placeholder", "error" if certain else "warning", None, "is what stands for no figure")
    if size >= FOREIGN * (1 - OF_RATE):
        for other, rate in _rates_of(series, period, rates).items():
            if size >= FOREIGN and max(rate, 1 / rate) >= FOREIGN and abs(ratio / rate - 1) <= OF_RATE:
                return _Explained("currency", "error", rate, f"is that in {other}: the rate was {rate:.5g}")
    what = named(ratio, LOOSE, LEAST)[0] if size > LEAST else ""
    if not what:
        return None
    factor = next(f for f, words in SLIPS.items() if words == what)
    # a price is held in its determination, where another origin can confirm it
    severity: Severity = "error" if series.kind in ("fx", "production") else "warning"
    return _Explained("unit-slip", severity, factor if ratio > 1 else 1 / factor, f"looks like a slip: {what}")


def _rates_of(series: Series, period: str, rates: Rates) -> dict[str, float]:
    """Units of each other currency per unit of the series' own, as last fixed by the end of a period."""
    own = _currency(series)
    if not own:
        return {}
    table = rates()
    fixed = table.loc[: period + "-99"].tail(31).ffill().tail(1) if len(table) else table
    per_euro = {"EUR": 1.0, **{str(c): float(fixed[c].iloc[0]) for c in fixed.columns}} if len(fixed) else {}
    mine = per_euro.pop(own, np.nan)
    return {other: rate / mine for other, rate in per_euro.items() if np.isfinite(rate / mine)}


def _currency(series: Series) -> str:
    currency = series.unit.partition("/")[0].replace("USc", "USD")
    return currency if series.kind != "fx" and len(currency) == 3 and currency.isupper() else ""


def _taxes(line: Line) -> Iterator[Finding]:
    """Find steps by exactly the Chinese VAT, of a series quoted in China."""
    if line.series.zone != "CN" or not line.fresh.any():
        return
    reference = line.old.copy()
    reference[1:] = np.where(np.isnan(line.old[1:]), line.values[:-1], line.old[1:])
    with np.errstate(all="ignore"):
        ratio = line.values / reference
    steps = [(1 + tax, f"with {tax:.0%}") for tax in TAXES] + [(1 / (1 + tax), f"without {tax:.0%}") for tax in TAXES]
    for factor, words in steps:
        for t in np.flatnonzero(line.fresh & (np.abs(ratio / factor - 1) <= OF_TAX)).tolist():
            value = float(line.values[t])
            evidence = {
                "value": value, "last": float(reference[t]), "ratio": float(ratio[t]), "undone": value / factor,
            }  # fmt: skip
            message = f"{line.series.id} {line.periods[t]}: {value:g} is {reference[t]:g} {words} VAT"
            yield Finding("tax", "warning", message, line.series.id, line.periods[t], evidence)


def _other_currency(line: Line, rates: Rates) -> Iterator[Finding]:
    """Find revisions by an exchange rate that is too near one to be told from a market's move."""
    with np.errstate(all="ignore"):
        ratio = line.values / line.old
        size = np.abs(np.log(ratio))
    for t in np.flatnonzero(line.fresh & (size > np.log(NEAREST)) & (size < np.log(FOREIGN))).tolist():
        for other, rate in _rates_of(line.series, line.periods[t], rates).items():
            if abs(ratio[t] / rate - 1) <= OF_REVISED:
                value, old = float(line.values[t]), float(line.old[t])
                evidence = {"value": value, "last": old, "ratio": float(ratio[t]), "undone": value / rate}
                message = f"{line.series.id} {line.periods[t]}: {old:g} became {value:g}, which is that in {other}"
                yield Finding("currency", "warning", message, line.series.id, line.periods[t], evidence)


# ---------------------------------------------------------------------------------- several series


def swaps(lines: Sequence[Line]) -> Iterator[Finding]:
    """Find figures of two series of one document that fit each other's past and not their own.

    Both move by ``UNUSUAL`` usual moves at once and land within a quarter of their distance of where the other one was.
    """
    moved: dict[str, list[tuple[Line, int]]] = {}
    for line in lines:
        for t in _unusual(line):
            moved.setdefault(line.periods[t], []).append((line, t))
    told: set[tuple[str, str]] = set()
    for period in sorted(moved):
        for (one, t), (two, u) in itertools.combinations(moved[period], 2):
            if {(one.series.id, period), (two.series.id, period)} & told:
                continue
            n = _exchanged(one, t, two, u)
            if n:  # the way back, one period later, is no swap
                told |= {(line.series.id, p) for line in (one, two) for p in one.periods[t : t + n + 1]}
            for k in range(n):
                for line, at, other, beside in ((one, t + k, two, u + k), (two, u + k, one, t + k)):
                    if line.fresh[at] and not line.settled[at]:
                        yield _swapped(line, at, other, float(other.values[beside]))


def _swapped(line: Line, at: int, other: Line, undone: float) -> Finding:
    value, period = float(line.values[at]), line.periods[at]
    message = f"{line.series.id} {period}: {value:g} fits {other.series.id}, and {undone:g} of that fits it"
    evidence = {"value": value, "last": float(line.values[at - 1]), "other": other.series.id, "undone": undone}
    return Finding("swapped", "error", message, line.series.id, period, evidence)


def _unusual(line: Line) -> list[int]:
    """Positions of fresh figures that moved by many of the series' usual moves, and far."""
    if not line.fresh.any():
        return []
    with np.errstate(all="ignore"):
        moves = np.abs(np.diff(np.log(line.values)))
    out = []
    for t in np.flatnonzero(line.fresh[1:] & (moves > 0.75 * APART) & np.isfinite(moves)).tolist():
        before = moves[max(0, t - USUAL) : t]
        before = before[(before > 0) & np.isfinite(before)]
        if len(before) >= PAST and moves[t] > UNUSUAL * np.median(before):
            out.append(t + 1)
    return out


def _exchanged(one: Line, t: int, two: Line, u: int) -> int:
    """For how many periods, from one on, each of two series stays where the other one was before."""
    before, beside = np.log(one.values[t - 1]), np.log(two.values[u - 1])
    apart = abs(before - beside)
    n = min(len(one.periods) - t, len(two.periods) - u)
    same = np.array(one.periods[t : t + n]) == np.array(two.periods[u : u + n])
    with np.errstate(all="ignore"):
        off = np.fmax(np.abs(np.log(one.values[t : t + n]) - beside), np.abs(np.log(two.values[u : u + n]) - before))
    crossed = same & (off <= apart / 4) & (apart > APART)
    return int(np.argmin(np.append(crossed, False)))


def copies(lines: Sequence[Line]) -> Iterator[Finding]:
    """Find runs of figures that equal those of another series of the document, where they hardly ever were before."""
    where: dict[tuple[str, float], list[int]] = {}
    for i, line in enumerate(lines):
        for t in np.flatnonzero(line.fresh).tolist():
            where.setdefault((line.periods[t], float(line.values[t])), []).append(i)
    pairs = Counter(pair for same in where.values() if len(same) > 1 for pair in itertools.combinations(same, 2))
    for i, j in sorted(pairs):
        one, two = lines[i], lines[j]
        at = {p: u for u, p in enumerate(two.periods)}
        common = [(t, at[p]) for t, p in enumerate(one.periods) if p in at]
        equal = [bool(one.values[t] == two.values[u]) for t, u in common]
        run = 0
        for k, same in enumerate(equal):
            run = run + 1 if same else 0
            t, u = common[k]
            earlier = equal[: k + 1 - run]
            if run != RUN or not (one.fresh[t] or two.fresh[u]):
                continue
            values = {float(one.values[common[m][0]]) for m in range(k + 1 - run, k + 1)}
            if len(values) > 1 and len(earlier) >= PAST and sum(earlier) <= SELDOM * len(earlier):
                evidence = {"value": float(one.values[t]), "other": two.series.id, "run": run, "undone": None}
                message = (
                    f"{one.series.id} {one.periods[t]}: equals {two.series.id} for the {run}th time "
                    f"in a row, and did in {sum(earlier)} of {len(earlier)} periods before"
                )
                yield Finding("copied", "warning", message, one.series.id, one.periods[t], evidence)


def _at_once(found: Iterable[Finding], lines: Sequence[Line]) -> Iterator[Finding]:
    """Sum up periods in which several series of the document are doubtful: the feed is, not the market."""
    by_period: dict[str, set[str]] = {}
    for finding in found:
        if finding.series and finding.period and finding.severity != "note":
            by_period.setdefault(finding.period, set()).add(finding.series)
    for period, names in sorted(by_period.items()):
        if len(names) > 1:
            told = sum(period in line.periods for line in lines)
            message = (
                f"{period}: {len(names)} of {told} series of the document are doubtful: {', '.join(sorted(names))}"
            )
            evidence = {"series": sorted(names), "of": told, "undone": None}
            yield Finding("several-at-once", "warning", message, None, period, evidence)


# ----------------------------------------------------------------------------- against other series


class Level(NamedTuple):
    """Lowest and highest of what other series say of a mineral [USD per tonne of what is quoted], and which."""

    low: float
    high: float
    series: tuple[str, ...]


def comparable(one: Series, other: Series) -> bool:
    """Tell whether another series can say what magnitude one has: the same mineral, and stage where both name one."""
    if other.id == one.id or not one.mineral or one.mineral != other.mineral or other.quarantined:
        return False
    raw = one.stage in ("ore", "concentrate", "intermediate")
    return other.kind in ("price", "other") and (one.stage == other.stage or (not other.stage and not raw))


def level(others: Mapping[str, Series], known: pd.DataFrame, rates: Rates) -> Level | None:
    """Make the band of what comparable series say, from the latest figures of each; None where there are none."""
    low, high, used = np.inf, 0.0, []
    for name, rows in known.groupby("series", sort=True):
        usd = _usd_per_t(others[str(name)], rows.sort_values("period")[["period", "value"]].tail(AGAINST), rates)
        if len(usd):
            low, high = min(low, float(usd.min())), max(high, float(usd.max()))
            used.append(str(name))
    return Level(low, high, tuple(used)) if used else None


def magnitude(line: Line, beside: Level, rates: Rates) -> Finding | None:
    """Doubt a series that nothing is known of yet, and whose latest figure lies ``BAND`` times beyond all others.

    It is an error where the factor of a unit brings it back among them, else a warning. The error holds all figures
    of the series in the document back; one that is accepted is known from then on, and answers for the rest.
    """
    if not line.is_new or line.settled.any():
        return None
    at = int(np.flatnonzero(line.fresh)[-1]) if line.fresh.any() else -1
    latest = pd.DataFrame({"period": [line.periods[at]], "value": [line.values[at]]})
    usd = _usd_per_t(line.series, latest, rates)
    if not len(usd) or 1 / BAND * beside.low <= usd[0] <= BAND * beside.high:
        return None
    low, value = bool(usd[0] < beside.low), float(line.values[at])
    factors = [
        f for f in SLIPS if f > LEAST and JUMP * beside.high >= usd[0] * (f if low else 1 / f) >= beside.low / JUMP
    ]
    middle = np.sqrt(beside.low * beside.high)
    factor = min(factors, key=lambda f: abs(np.log(usd[0] * (f if low else 1 / f) / middle)), default=None)
    undone = None if factor is None else value * factor if low else value / factor
    evidence = {
        "value": value, "usd_per_t": float(usd[0]), "low": beside.low, "high": beside.high,
        "beside": list(beside.series), "figures": int(line.fresh.sum()), "undone": undone,
    }  # fmt: skip
    message = (
        f"{line.series.id} {line.periods[at]}: {value:g} {line.series.unit} would be {usd[0]:.4g} USD/t, where "
        f"{', '.join(beside.series)} lie between {beside.low:.4g} and {beside.high:.4g}"
    )
    if factor is not None:
        message += f"; {SLIPS[factor]} would explain it: is the unit what the publisher means?"
    severity: Severity = "warning" if factor is None else "error"
    return Finding("magnitude", severity, message, line.series.id, line.periods[at], evidence)


def _usd_per_t(series: Series, rows: pd.DataFrame, rates: Rates) -> Floats:
    """USD per tonne of what is quoted, content and tax aside: a magnitude. Empty where no unit leads there."""
    per: Literal["product", "contained"] = "product" if series.quoted_on == "product" else "contained"
    plain = series.model_copy(update={"quoted_on": per, "tax": "none"})
    market = Market(mineral=series.mineral or "any", stage="metal", zone="WLD", per=per)
    eur_rates = pd.DataFrame() if _currency(series) == "USD" else rates()
    last = str(eur_rates.index[-1]) if len(eur_rates) else "9999-12-31"  # a later figure takes the last rate there is
    periods = [min(str(p), last[: len(str(p))]) for p in rows["period"]]
    try:
        usd = to_usd_per_t(pd.Series(rows["value"].to_numpy(), index=periods), plain, market, eur_rates)["usd_per_t"]
    except UnitError:
        return np.empty(0)
    return usd[usd > 0].to_numpy()
