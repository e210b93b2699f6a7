"""Quotations into US dollars per tonne: mass, contained element, tax, currency.

::

    USD/t = value × mass × content × [metal price] × 1/(1 + tax) × USD per unit of currency

Every factor is a published constant or a dated rate, and ``explain`` names each with its source.
Where no published factor leads to the market's unit there is a UnitError; where a day has no exchange
rate the price is missing. Nothing is guessed.

Two factors for content are kept apart. *Theoretical* content follows from a formula and atomic
weights, and serves quotations on a compound (``quoted_on = "WO3"``). Content by *market
specification* is what traders settle on (20.5 % Co in cobalt sulphate, where the formula says
20.97 %), and serves quotations on the product (``content = 0.205``).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pricing.chemistry import ATOMIC_WEIGHTS_SOURCE, mass_fraction
from pricing.config import Market, Series
from pricing.errors import UnitError

MAX_AGE_DAYS = 7  # the longest gap between two ECB fixings (Easter, Christmas) is five days
PAYABLE = "percent-payable"

_SI = "SI brochure, 9th edition (BIPM 2019)"
_POUND = "international yard and pound agreement, 1 July 1959: 1 lb = 0.45359237 kg"
_TONS = "NIST Handbook 44, appendix C: 2000 lb and 2240 lb"
_USGS = "USGS, Mineral Commodity Summaries, appendix A: 1 % of the ton"


@dataclass(frozen=True)
class Mass:
    """A unit of mass: its kilograms, its source, and whether it counts contained material only."""

    kg: float
    source: str
    contained: bool = False


MASSES = {
    "t": Mass(1000.0, _SI),
    "dmt": Mass(1000.0, _SI + "; dry tonne"),
    "kg": Mass(1.0, _SI),
    "g": Mass(0.001, _SI),
    "lb": Mass(0.45359237, _POUND),
    "st": Mass(2000 * 0.45359237, _TONS),
    "lt": Mass(2240 * 0.45359237, _TONS),
    "ozt": Mass(0.0311034768, "NIST Handbook 44, appendix C: 480 grains of 64.79891 mg"),
    "mtu": Mass(10.0, _USGS, contained=True),
    "dmtu": Mass(10.0, _USGS + ", dry", contained=True),
    "stu": Mass(20 * 0.45359237, _USGS, contained=True),
    "ltu": Mass(22.4 * 0.45359237, _USGS, contained=True),
}

# First day, rate, announcement. Standard rate on goods in China.
VAT = (
    ("1994-01-01", 0.17, "State Council decree 134 of 1993"),
    ("2018-05-01", 0.16, "Caishui [2018] 32"),
    ("2019-04-01", 0.13, "MOF, STA and GACC announcement 39 of 2019; kept by the VAT Law from 2026"),
)
_VAT_FROM = np.array([day for day, _, _ in VAT], dtype="datetime64[D]")
_VAT_RATE = np.array([rate for _, rate, _ in VAT])
# Ores and concentrates bore 13 % before (Caishui [2008] 171): no standard rate to take out.
_ORE_VAT_FROM = np.datetime64("2009-01-01")

ECB = "ECB euro foreign exchange reference rates"


@dataclass(frozen=True)
class Step:
    """One factor of a conversion, with its source."""

    name: str
    factor: float
    source: str
    detail: str = ""


@dataclass(frozen=True)
class Conversion:
    """The steps that do not depend on the day: mass and content."""

    steps: tuple[Step, ...]

    @property
    def factor(self) -> float:
        """Product of the steps in their order: currency per quoted unit to currency per tonne."""
        return math.prod(step.factor for step in self.steps)


# ------------------------------------------------------------------------------ mass and content


def _unit(series: Series) -> tuple[str, str]:
    """Split ``CNY/t`` into currency and mass; ``percent-payable`` has neither."""
    if series.unit == PAYABLE:
        return "USD", ""
    currency, _, mass = series.unit.partition("/")
    if mass not in MASSES or not re.fullmatch("USc|[A-Z]{3}", currency):
        raise UnitError(
            f"series {series.id}: unknown unit {series.unit!r}; known are {PAYABLE} and CURRENCY/MASS with an "
            f"ISO 4217 code or USc (US cents) and one of {', '.join(MASSES)}; a compound belongs into quoted_on"
        )
    return currency, mass


def _mass_steps(series: Series) -> list[Step]:
    currency, name = _unit(series)
    if not name:
        if series.quoted_on != "contained":
            raise UnitError(f"series {series.id}: {PAYABLE} is paid on contained metal; set quoted_on = 'contained'")
        return [Step("1 % = 0.01", 0.01, "definition")]
    mass = MASSES[name]
    if mass.contained and series.quoted_on == "product":
        raise UnitError(
            f"series {series.id}: {name} counts contained material only; "
            "set quoted_on = 'contained' or the compound that is counted, such as 'WO3'"
        )
    steps = [Step("1 USc = 0.01 USD", 0.01, "definition")] if currency == "USc" else []
    if mass.kg != 1000:
        steps.append(Step(f"1 t = {1000 / mass.kg:.10g} {name}", 1000 / mass.kg, mass.source))
    return steps


def _content_step(series: Series, market: Market) -> Step:
    """Bring a price per contained tonne to the product (factor < 1), or the other way round."""
    if series.content is None:
        raise UnitError(
            f"series {series.id}: quoted on {series.quoted_on}, while market {market.key} is priced per tonne of "
            f"{'contained ' + market.element if market.per == 'contained' else 'product'}; give content = the mass "
            f"share of {market.element or 'the element'} by market specification, or quoted_on = the compound"
        )
    name, source = (
        f"{series.content:.10g} of the product is {market.element or market.mineral}",
        "market specification",
    )
    if market.per == "product":
        return Step(name, series.content, source, f"content of series {series.id}")
    return Step(name, 1 / series.content, source, f"1/content of series {series.id}")


def _compound_step(series: Series, market: Market) -> Step:
    if not market.element:
        raise UnitError(f"series {series.id}: quoted on {series.quoted_on}, but market {market.key} names no element")
    try:
        fraction = mass_fraction(market.element, series.quoted_on)
    except UnitError as error:
        raise UnitError(f"series {series.id}, quoted_on, for market {market.key}: {error}") from error
    if series.content is not None and series.content > fraction * (1 + 1e-3):
        raise UnitError(
            f"series {series.id}: content {series.content} is more {market.element} than pure {series.quoted_on} "
            f"holds ({fraction:.5f}); content is the share of the element, not of the compound"
        )
    name = f"{fraction:.6f} of {series.quoted_on} is {market.element}"
    return Step(name, 1 / fraction, ATOMIC_WEIGHTS_SOURCE, "1/theoretical content")


def _static(series: Series, market: Market) -> Conversion:
    steps = _mass_steps(series)
    if series.quoted_on not in ("product", "contained"):
        steps.append(_compound_step(series, market))
    per = "product" if series.quoted_on == "product" else "contained"
    if per != market.per:
        steps.append(_content_step(series, market))
    return Conversion(tuple(steps))


def conversion(series: Series, market: Market) -> Conversion:
    """Make the static part of a conversion: from the quoted mass to a tonne of what the market prices.

    Raises
    ------
    UnitError when the unit is unknown, when content is needed and not given, when the compound does
    not hold the element, and for a payable percentage, which is no price without the metal's.
    """
    if series.unit == PAYABLE:
        raise _needs_metal(series)
    return _static(series, market)


def _needs_metal(series: Series) -> UnitError:
    return UnitError(
        f"series {series.id}: {PAYABLE} is a share of the metal price; give payable_of, the metal's USD/t by period"
    )


# ------------------------------------------------------------------------------- periods and tax


def _spans(periods: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """First and last day of ISO periods (``2026``, ``2026-11``, ``2026-11-20``), as datetime64[D]."""
    text = np.asarray(periods, dtype=str)
    length = np.char.str_len(text)
    first = np.full(len(text), "NaT", dtype="datetime64[D]")
    last = first.copy()
    for characters, unit in ((10, "D"), (7, "M"), (4, "Y")):
        rows = length == characters
        if rows.any():
            try:
                start = text[rows].astype(f"datetime64[{unit}]")
            except ValueError as error:
                raise UnitError(f"periods are ISO texts of a day, month or year: {error}") from error
            first[rows] = start
            last[rows] = (start + 1).astype("datetime64[D]") - 1
    if (wrong := np.isnat(first)).any():
        raise UnitError(f"period {text[wrong][0]!r}: not an ISO day, month or year")
    return first, last


def vat_rates(periods: pd.Index) -> np.ndarray:
    """Chinese value-added tax on goods, by period: shape (n,), 0.13 means 13 %.

    Raises
    ------
    UnitError for periods that begin before the tax (1994-01-01), and for periods over which the rate
    changed (the years 2018 and 2019): the tax inside such a mean is not known.
    """
    first, last = _spans(periods)
    at, until = (np.searchsorted(_VAT_FROM, day, side="right") - 1 for day in (first, last))
    if (early := at < 0).any():
        raise UnitError(f"no Chinese VAT before {VAT[0][0]}: period {periods[early][0]}; begin the series later")
    if (mixed := at != until).any():
        raise UnitError(f"the Chinese VAT rate changed within period {periods[mixed][0]}; use months or days")
    rates: np.ndarray = _VAT_RATE[at]
    return rates


def vat_rate(period: str) -> float:
    """Chinese value-added tax on goods in one period: 0.13 means 13 %. Raises UnitError as `vat_rates`."""
    return float(vat_rates(pd.Index([period]))[0])


def _tax(series: Series, periods: pd.Index) -> np.ndarray:
    if series.tax == "none":
        return np.zeros(len(periods))
    try:
        rates = vat_rates(periods)
    except UnitError as error:
        raise UnitError(f"series {series.id}: {error}") from error
    if series.stage in ("ore", "concentrate") and (early := _spans(periods)[0] < _ORE_VAT_FROM).any():
        raise UnitError(
            f"series {series.id}: ores and concentrates bore a reduced VAT before {_ORE_VAT_FROM}, "
            f"period {periods[early][0]}; begin the series later"
        )
    return rates


# -------------------------------------------------------------------------------------- currency


def _daily_crosses(eur_rates: pd.DataFrame, currency: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Days as text and as dates, and USD per unit of currency on them; the first entry is a NaN before all time."""
    absent = [code for code in ("USD", currency) if code not in eur_rates.columns and code != "EUR"]
    if absent:
        raise UnitError(
            f"no exchange rates of {' and '.join(absent)} per EUR; add an fx series with currency_of = {absent[0]!r}"
        )
    if not (eur_rates.index.is_monotonic_increasing and eur_rates.index.is_unique):
        raise UnitError("exchange rates: the index must hold each day once, in order")
    usd = eur_rates["USD"].to_numpy(dtype="float64")
    own = np.ones(len(usd)) if currency == "EUR" else eur_rates[currency].to_numpy(dtype="float64")
    known = np.isfinite(usd) & np.isfinite(own) & (usd > 0) & (own > 0)
    text = np.concatenate([[""], eur_rates.index.to_numpy(dtype=object)[known]])
    days = np.concatenate([[np.datetime64("0001-01-01")], text[1:].astype("datetime64[D]")])
    return text, days, np.concatenate([[np.nan], usd[known] / own[known]])


def usd_rates(
    eur_rates: pd.DataFrame,
    currency: str,
    periods: pd.Index,
    max_age_days: int = MAX_AGE_DAYS,
    *,
    ten_day: bool = False,
) -> pd.DataFrame:
    """US dollars per unit of a currency, crossed through the euro.

    Parameters
    ----------
    eur_rates : DataFrame, day × currency
        Units of the currency per 1 EUR; index ISO days, each once and in order; NaN where none.
    currency : ISO 4217 code
    periods : Index of ISO days, months or years, in any order
    max_age_days : how old the rate of a day without one may be
    ten_day : the days are the last ones of ten-day periods, and the mean of each period is wanted

    Returns
    -------
    DataFrame by period: ``usd_per_unit``, ``rate_period`` (the day or ``first..last`` day used, empty
    where none) and ``n`` (days used). A day without a rate takes the last one within `max_age_days`;
    a month or year the mean of its daily crosses. NaN where there is none. USD itself is 1, n = 0.

    Raises
    ------
    UnitError when the currency, or USD, has no column.
    """
    if currency == "USD":
        return pd.DataFrame({"usd_per_unit": 1.0, "rate_period": "", "n": 0}, index=periods)
    text, days, crosses = _daily_crosses(eur_rates, currency)
    first, last = _spans(periods)
    if ten_day:
        month = last.astype("datetime64[M]").astype("datetime64[D]")
        first = month + (np.minimum((last - month).astype(np.int64) // 10, 2) * 10)
    end = np.searchsorted(days, last, side="right")
    fresh = (last - days[end - 1]) <= np.timedelta64(max_age_days, "D")
    n = np.where(fresh, 1, 0)
    rate, rate_period = crosses[end - 1], text[end - 1]
    if (long := first != last).any():
        begin = np.searchsorted(days, first[long])
        n[long] = end[long] - begin
        # reduceat sums crosses[begin:end] at even places; the 0 lets an end lie behind the last day
        sums = np.add.reduceat(np.append(crosses, 0.0), np.column_stack([begin, end[long]]).ravel())[::2]
        rate[long] = sums / np.maximum(n[long], 1)
        rate_period[long] = text[np.minimum(begin, len(text) - 1)] + ".." + rate_period[long]
    rate[n == 0], rate_period[n == 0] = np.nan, ""
    return pd.DataFrame({"usd_per_unit": rate, "rate_period": rate_period, "n": n}, index=periods)


# ---------------------------------------------------------------------------------------- prices


def to_usd_per_t(
    values: pd.Series,
    series: Series,
    market: Market,
    eur_rates: pd.DataFrame,
    payable_of: pd.Series | None = None,
) -> pd.DataFrame:
    """Convert quotations of one series into the unit of its market.

    Parameters
    ----------
    values : Series by period, in the series' own unit
    eur_rates : DataFrame, day × currency, units per 1 EUR, as for `usd_rates`
    payable_of : Series by period, the metal's USD per contained tonne; needed for ``percent-payable``

    Returns
    -------
    DataFrame by period: ``usd_per_t`` [USD per tonne of contained element or of product, as the market
    says], ``fx`` [USD per unit of the quoted currency], ``fx_period`` (days of the rate; empty for USD),
    ``vat`` [0.13 means 13 %; 0 without tax]. ``usd_per_t`` is NaN where the value, the rate or the metal
    price is missing.

    Raises
    ------
    UnitError when no published factor leads to the market's unit; the message names the series.
    """
    if (payable_of is None) and series.unit == PAYABLE:
        raise _needs_metal(series)
    currency = _unit(series)[0].replace("USc", "USD")
    factor = _static(series, market).factor
    vat = _tax(series, values.index)
    try:
        rates = usd_rates(eur_rates, currency, values.index, ten_day=series.frequency == "ten-day")
    except UnitError as error:
        raise UnitError(f"series {series.id}: {error}") from error
    fx = rates["usd_per_unit"].to_numpy()
    usd_per_t = values.to_numpy(dtype="float64") * factor / (1 + vat) * fx
    if series.unit == PAYABLE and payable_of is not None:
        usd_per_t = usd_per_t * payable_of.reindex(values.index).to_numpy(dtype="float64")
    return pd.DataFrame(
        {"usd_per_t": usd_per_t, "fx": fx, "fx_period": rates["rate_period"].array, "vat": vat},
        index=values.index,
    )


def explain(
    value: float,
    period: str,
    series: Series,
    market: Market,
    eur_rates: pd.DataFrame,
    payable_of: pd.Series | None = None,
    fx_source: str = ECB,
) -> list[Step]:
    """Name every factor that turned one quotation into USD per tonne, in order.

    ``value`` times the product of the factors is ``usd_per_t`` of `to_usd_per_t`.

    Raises
    ------
    UnitError as `to_usd_per_t`, and when there is no rate or no metal price for the period.
    """
    row = to_usd_per_t(pd.Series([value], index=[period]), series, market, eur_rates, payable_of)
    fx, vat, days = float(row["fx"].iloc[0]), float(row["vat"].iloc[0]), str(row["fx_period"].iloc[0])
    steps = list(_static(series, market).steps)
    if payable_of is not None and series.unit == PAYABLE:
        metal = float(payable_of.get(period, math.nan))
        if math.isnan(metal):
            raise UnitError(f"series {series.id}: no metal price for {period}")
        steps.append(Step("metal price in USD/t", metal, "the metal's own price", period))
    if series.tax != "none":
        source = VAT[int(np.flatnonzero(vat == _VAT_RATE)[0])][2]
        steps.append(Step(f"without {vat:.0%} Chinese VAT", 1 / (1 + vat), source, period))
    currency = _unit(series)[0]
    if currency not in ("USD", "USc"):
        if math.isnan(fx):
            raise UnitError(f"series {series.id}: no {currency} rate for {period}, nor {MAX_AGE_DAYS} days before")
        steps.append(Step(f"USD per {currency}", fx, fx_source, _legs(days, currency, eur_rates)))
    return steps


def _legs(days: str, currency: str, eur_rates: pd.DataFrame) -> str:
    if ".." in days:
        return f"mean of the daily crosses, {days}"
    legs = [f"{eur_rates[code][days]:.10g} {code}/EUR" for code in ("USD", currency) if code != "EUR"]
    return f"{' / '.join(legs)} on {days}"
