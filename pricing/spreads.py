"""Prices set against one another: China against the world, and one stage of a mineral over another.

Pure. A figure is formed only of prices that were observed: one that is carried, interpolated or taken
from a linked market says nothing about the distance to another. Where none is formed, ``why`` says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from pricing import units
from pricing.config import Market, Methodology, Rebate, Tier
from pricing.reference import OBSERVED, Prices

FREQUENCIES = ("monthly", "ten-day", "daily")
UNTAXED = "the leading contributor in China quotes without tax"
MIXED = "contributors with and without tax led on different days"

Texts = npt.NDArray[np.object_]


class Leg(Protocol):
    """What is asked of a market's prices: ``pricing.figures.MarketPrices`` has it."""

    @property
    def market(self) -> Market:
        """The market and its unit."""

    def made(self, frequency: str) -> Prices | None:
        """Determinations of one frequency from its own contributors."""

    def frame(self, frequency: str) -> pd.DataFrame:
        """Prices of one frequency, by period in order."""


@dataclass(frozen=True)
class Gap:
    """China's price over the one outside, of one product.

    Attributes
    ----------
    china, other : str
        The two markets.
    frames : mapping of frequency to DataFrame, by period
        ``net``, ``gross``, ``export_parity`` [% of the price outside]: China's price without tax, with the
        tax that its leading contributor quotes, and with the tax that is not refunded on export, each over
        the price outside, less one. NaN where not formed; ``why``, ``why_gross``, ``why_export_parity`` tell
        the reason. ``china``, ``other``, ``china_gross``, ``china_export_parity`` are the prices [the
        markets' unit], ``china_period`` and ``other_period`` their own periods, ``vat`` and ``rebate`` the
        rates, ``status`` and ``grade`` the worse of both sides. From the first period on in which both had begun.
    withheld : str
        Why there is no figure at all.
    """

    china: str
    other: str
    frames: dict[str, pd.DataFrame]
    withheld: str = ""


@dataclass(frozen=True)
class Spread:
    """The price of one stage less that of a lower one, per tonne of the same element.

    ``frame``, by month: ``spread``, ``upper``, ``lower`` [``unit``], ``status``, ``grade``, ``why``.
    """

    upper: str
    lower: str
    unit: str
    frame: pd.DataFrame
    withheld: str = ""


# --------------------------------------------------------------------------------------- sides


def _observed(frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    return np.asarray(frame["unrounded"].notna() & frame["type"].isin(OBSERVED), dtype=np.bool_)


def _standing(frame: pd.DataFrame, zone: str, periods: Texts, days: int) -> pd.DataFrame:
    """What one side says of each period: its own price or, where it has no record, the last one within some days.

    A record without a price (suspended, voided, dispersed …) or with one that was carried ends the life
    of the price before it. A price that stands where no later record has come yet is provisional.

    Returns
    -------
    DataFrame, by period: ``unrounded``, ``value``, ``status``, ``grade``, ``own`` (the period of the price),
    ``why`` (empty where there is a price).
    """
    known = frame.index.to_numpy(dtype=object)
    at = np.searchsorted(known, periods, side="right") - 1
    shown = frame.iloc[np.maximum(at, 0)]
    own = known[np.maximum(at, 0)]
    same, near = own == periods, (at >= 0) & (own == periods)
    if days:
        age = (periods.astype("datetime64[D]") - own.astype("datetime64[D]")).astype(np.int64)
        near = (at >= 0) & (age <= days)
    usable = near & _observed(shown)
    priced = shown["unrounded"].notna().to_numpy()
    state = np.where(priced, shown["type"].to_numpy(dtype=object), shown["status"].to_numpy(dtype=object))
    absent = "no price of the period" + (f", nor within {days} days before" if days else "")
    why = np.where(near, f"{zone}: " + state, f"{zone}: {absent}")
    status = shown["status"].to_numpy(dtype=object)
    status = np.where(~same & (at == len(known) - 1) & (status == "normal"), "provisional", status)
    return pd.DataFrame(
        {
            "unrounded": np.where(usable, shown["unrounded"].to_numpy(dtype="float64"), np.nan),
            "value": np.where(usable, shown["value"].to_numpy(dtype="float64"), np.nan),
            "status": status,
            "grade": shown["grade"].to_numpy(dtype=object),
            "own": own,
            "why": np.where(usable, "", why),
        },
        index=pd.Index(periods, dtype=object),
    )


def _beside(legs: Sequence[Leg], frequency: str, days: int) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Both sides over the periods of either, from the first on in which both had begun; None if they never met."""
    frames = [leg.frame(frequency) for leg in legs]
    seen = [frame.index[_observed(frame)] for frame in frames]
    if any(s.empty for s in seen):
        return None
    start = max(s[0] for s in seen)
    periods = np.array(sorted(p for p in set(frames[0].index) | set(frames[1].index) if p >= start), dtype=object)
    first, second = (_standing(frame, leg.market.zone, periods, days) for frame, leg in zip(frames, legs, strict=True))
    return None if (first["unrounded"] * second["unrounded"]).isna().all() else (first, second)


def _common(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, Texts]:
    """Status and grade, the worse of both sides, and why there is no figure."""
    whys, statuses, grades = (
        [side[c].fillna("").to_numpy(dtype=object) for side in (first, second)] for c in ("why", "status", "grade")
    )
    both = (whys[0] != "") & (whys[1] != "")
    why = np.where(both, whys[0] + "; " + whys[1], whys[0] + whys[1])
    formed = why == ""
    status = np.where(statuses[0] != "normal", statuses[0], statuses[1])
    graded = formed & (grades[0] != "") & (grades[1] != "")
    grade = np.where(grades[0] > grades[1], grades[0], grades[1])
    grade[~graded] = None
    return {"status": np.where(formed, status, "missing"), "grade": grade, "why": why}


# ---------------------------------------------------------------------------------------- gaps


def gaps(priced: Mapping[str, Leg], methodology: Methodology) -> dict[str, Gap]:
    """Set China's price beside the one outside, for every product (``mineral/stage``) that has both.

    Outside is ``XCN``, or ``WLD`` where there is no market outside China of its own. Months and ten-day
    periods are compared with themselves; days with the last day of the other side, at most
    ``methodology.gap_days`` before.
    """
    out = {}
    for key, china in priced.items():
        mineral, stage, zone = key.split("/")
        outside = next((k for z in ("XCN", "WLD") if (k := f"{mineral}/{stage}/{z}") in priced), None)
        if zone != "CN" or outside is None:
            continue
        other = priced[outside]
        if china.market.unit != other.market.unit:
            reason = f"the sides are in different units: {china.market.unit} and {other.market.unit}"
            out[f"{mineral}/{stage}"] = Gap(key, outside, {}, reason)
            continue
        rebates = [r for r in methodology.rebates if (r.mineral, r.stage) == (mineral, stage)]
        frames = {}
        for frequency in FREQUENCIES:
            sides = _beside((china, other), frequency, methodology.gap_days if frequency == "daily" else 0)
            if sides is not None:
                frames[frequency] = _gap(sides, vat_inside(china, frequency), rebates, frequency)
        reason = "" if frames else "there is no period of which the prices of both sides were observed"
        out[f"{mineral}/{stage}"] = Gap(key, outside, frames, reason)
    return out


def _gap(
    sides: tuple[pd.DataFrame, pd.DataFrame], vat: pd.Series, rebates: Sequence[Rebate], frequency: str
) -> pd.DataFrame:
    china, other = sides
    price, outside = (side["unrounded"].to_numpy() for side in (china, other))
    facts = _common(china, other)
    formed = facts["why"] == ""
    inside = vat.reindex(china["own"]).to_numpy(dtype="float64")
    gross = np.where(formed & (inside > 0), price * (1 + inside), np.nan)
    standard, refund, why_parity = not_refunded(china["own"].to_numpy(dtype=object), rebates, frequency)
    parity = np.where(formed, export_parity(price, standard, refund), np.nan)
    return pd.DataFrame(
        {
            "net": (price / outside - 1) * 100,
            "gross": (gross / outside - 1) * 100,
            "export_parity": (parity / outside - 1) * 100,
            "china": china["value"],
            "other": other["value"],
            "china_gross": gross,
            "china_export_parity": parity,
            "vat": standard,
            "vat_inside": inside,
            "rebate": refund,
            "china_period": china["own"],
            "other_period": other["own"],
            **facts,
            "why_gross": np.where(formed & np.isnan(gross), np.where(inside == 0, UNTAXED, MIXED), ""),
            "why_export_parity": np.where(formed, why_parity, ""),
        },
        index=china.index,
    )


def export_parity(
    net: npt.NDArray[np.float64], vat: npt.NDArray[np.float64], rebate: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Domestic price at which an export leaves the seller as much: ``net × (1 + VAT - rebate)``.

    The tax that is not refunded is part of the exporter's cost (Caishui [2012] 39, article 5), and where the
    refund was cancelled the export is taxed like a domestic sale (article 7). Export duty, licence, freight and
    insurance are not in it. The formula is ours, on that rule.

    Parameters
    ----------
    net : USD/t without tax
    vat, rebate : shares of the price without tax
    """
    return net * (1 + vat - rebate)


def not_refunded(
    periods: Texts, rebates: Sequence[Rebate], frequency: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], Texts]:
    """Lay the standard tax and the rebate of one product out by period.

    Returns
    -------
    vat, rebate : float array
        NaN where the rebate is not known: never an assumed rate.
    why : object array
        Why it is not known.
    """
    shape = len(periods)
    vat, refund = np.full(shape, np.nan), np.full(shape, np.nan)
    dated = sorted(rebates, key=lambda r: r.since)
    if not dated:
        return vat, refund, np.full(shape, "no export rebate of this product is recorded", dtype=object)
    since = np.array([r.since.isoformat() for r in dated], dtype=object)
    rate = np.array([r.rate for r in dated])
    first, last = np.array([_days(p, frequency) for p in periods], dtype=object).reshape(-1, 2).T
    at, until = (np.searchsorted(since, day, side="right") - 1 for day in (first, last))
    known = (at >= 0) & (rate[np.maximum(at, 0)] == rate[np.maximum(until, 0)])
    vat[known] = units.vat_rates(pd.Index(periods[known]))
    refund[known] = rate[at[known]]
    above = known & (refund > vat)
    vat[above] = refund[above] = np.nan
    before = f"no export rebate of this product is recorded before {since[0]}"
    why = np.select(
        [above, known, at < 0],
        ["the recorded rebate is above the tax", "", before],
        default="the export rebate changed within the period",
    )
    return vat, refund, why.astype(object)


def _days(period: str, frequency: str) -> tuple[str, str]:
    """First and last day of a period, as texts that compare with days."""
    if frequency == "monthly":
        return f"{period}-01", f"{period}-31"
    if frequency == "ten-day":  # named by its last day
        return period[:8] + {"10": "01", "20": "11"}.get(period[8:], "21"), period
    return period, period


def vat_inside(market: Leg, frequency: str) -> pd.Series:
    """Tax inside what the leading contributor quoted, by period: 0.13 means 13 %, 0 that it quotes without.

    The leading contributor is that of the origin with the most weight, of equals the one of the best tier. A
    month of days has the tax that all its days share; NaN where they do not.
    """
    made = market.made(frequency)
    own = _leading_vat(made) if made is not None else pd.Series(dtype="float64")
    days = market.made("daily") or market.made("ten-day")
    if frequency != "monthly" or days is None:
        return own
    months = market.frame("monthly")
    by_day = _leading_vat(days)
    grouped = by_day.groupby([str(day)[:7] for day in by_day.index])
    low, high = grouped.min(), grouped.max()
    from_days = months.index[months["type"].isin(("mean-of-days", "mean-of-ten-days"))]
    rest = own.drop(index=from_days, errors="ignore")
    shared = low.where(low == high).reindex(from_days)
    told: pd.Series[float] = pd.concat([part for part in (rest, shared) if len(part)] or [own])
    return told.sort_index()


def _leading_vat(made: Prices) -> pd.Series:
    """Tax of the contributor that spoke for the heaviest origin (of equals, the best tier), of each period priced."""
    quoted = made.quotes.usd_per_t.notna()
    vat = made.quotes.vat.where(quoted).ffill().to_numpy(dtype="float64")  # an older quotation has its own day's tax
    rows = np.arange(len(made.frame))
    rank = np.array([get_args(Tier).index(s.tier) for s in made.quotes.series] + [0])
    lead = np.where(made.weight > 0, made.weight - 1e-9 * rank[made.chosen], -np.inf).argmax(axis=1)
    position = made.chosen[rows, lead]
    priced = made.frame["unrounded"].notna().to_numpy() & (made.weight > 0).any(axis=1)  # a judged price has no leader
    return pd.Series(vat[rows, position][priced], index=made.frame.index[priced])


# ------------------------------------------------------------------------------------- stages


def stage_spreads(priced: Mapping[str, Leg], methodology: Methodology) -> dict[str, tuple[Spread, ...]]:
    """Form the stage spreads that the methodology names, by ``mineral/zone``."""
    markets = {m.key: m for m in methodology.markets}
    out: dict[str, list[Spread]] = {}
    for pair in methodology.spreads:
        keys = pair.keys
        unit = f"USD/t {markets[keys[0]].counted} contained"
        out.setdefault(f"{pair.mineral}/{pair.zone}", []).append(_spread(priced, keys, unit))
    return {name: tuple(members) for name, members in out.items()}


def _spread(priced: Mapping[str, Leg], keys: tuple[str, str], unit: str) -> Spread:
    lacking = [key for key in keys if key not in priced]
    if lacking:
        return Spread(*keys, unit, pd.DataFrame(), f"no price of {' and of '.join(lacking)}")
    sides = _beside([priced[key] for key in keys], "monthly", 0)
    if sides is None:
        return Spread(*keys, unit, pd.DataFrame(), "there is no month of which both prices were observed")
    upper, lower = sides
    difference = upper["unrounded"] - lower["unrounded"]
    values = {"spread": difference, "upper": upper["value"], "lower": lower["value"]}
    return Spread(*keys, unit, pd.DataFrame({**values, **_common(upper, lower)}, index=upper.index))
