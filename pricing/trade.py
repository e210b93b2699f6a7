"""Customs cells into unit values: judged, summed over three months, with an interval.

A unit value is a value over a mass, not a price: it moves with the mix of what is imported (Export and
Import Price Index Manual 2009, 2.1 and 6.1 ff.). It is computed as a ratio of sums inside tariff code
and partner, never as a mean of ratios (IMTS Compilers Manual, 28.17), and an implausible ratio is
blamed on the mass first (15.19). No manual prescribes the least mass, the window of three months or how
a move is confirmed: those rules are ours, and stand in the methodology's table ``trade``.

Pure. China (CN) and elsewhere (XCN) are judged apart: nothing of one enters the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t as student

from pricing.config import Code, Customs, Leg, Trade
from pricing.reference import weighted_median

LEGS: tuple[Leg, ...] = ("CN", "XCN", "WLD")
KEY = ["origin", "mineral", "stage", "line", "leg", "reporter", "partner"]
GROUP = ["origin", "mineral", "stage"]

SLIPS = {10.0: "a decimal place", 100.0: "100", 1000.0: "kg and t", 2204.6: "lb and t", 31.1: "troy ounce"}
SLIP_TOLERANCE = 1.3  # a factor: unit values scatter, so a slip is recognised by its size only

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Indicator:
    """Unit values of one product as one origin imports it.

    Attributes
    ----------
    origin, mineral, stage : str
    per : {"contained", "product"}
        What a tonne counts.
    frames : mapping of leg to DataFrame, by month
        ``value``, ``low``, ``high`` [USD/t], ``month_value`` (of the month alone), ``rule`` (why there
        is no value; empty where there is one), ``months``, ``cells``, ``partners`` and ``tonnes`` in
        the window, ``traded`` (USD in all months of the window, nothing excluded), ``kept_value`` and
        ``kept_tonnes`` (shares that the exclusions left), ``largest`` (largest cell's share of the
        tonnes), ``hhi`` (concentration of partners, 0 to 10,000), ``china_share``, ``reported`` (share
        of last year's value whose reporters are in), ``break``.
    gap : DataFrame, by month
        ``gap`` (CN over XCN less one), ``low``, ``high``: where both legs have a value.
    cells : DataFrame
        Every cell as judged: ``period, code, reporter, partner, leg, value, kg, usd, tonnes, rule``.
    """

    origin: str
    mineral: str
    stage: str
    per: str
    frames: Mapping[str, pd.DataFrame]
    gap: pd.DataFrame
    cells: pd.DataFrame


# ------------------------------------------------------------------------------------- preparing


def usable(codes: Sequence[Code], month: str) -> dict[str, str]:
    """Return the codes whose line is wholly confirmed in a month, with their lines.

    A line of which one code is unconfirmed would be a part that looks like the whole.
    """
    valid = [c for c in codes if c.valid(month)]
    doubtful = {c.line for c in valid if c.certainty != "confirmed" or c.basis == "none"}
    return {c.code: c.line for c in valid if c.line not in doubtful}


def prepared(cells: pd.DataFrame, codes: Sequence[Code], customs: Customs, usd: pd.Series) -> pd.DataFrame:
    """Bring one origin's cells into USD and tonnes, and name what cannot be used.

    Parameters
    ----------
    cells : DataFrame
        As ``declarations`` says.
    codes : sequence of Code
        Those of the origin's tariff.
    usd : Series by month
        USD per unit of the origin's currency; NaN or absent where there is none.

    Returns
    -------
    DataFrame
        ``KEY`` and ``code, period, value, kg, usd, tonnes, rule``; codes whose line is not wholly
        confirmed are left out.
    """
    months = cells["period"].unique()
    lines = {(m, code): line for m in months for code, line in usable(codes, m).items()}
    by_code = {c.code: c for c in codes}
    whole = cells.groupby(["code", "reporter", "partner", "period", "status"], as_index=False, sort=True)[
        ["value", "kg"]
    ].sum(min_count=1)
    line = [lines.get(pair, "") for pair in zip(whole["period"], whole["code"], strict=True)]
    out = whole.assign(line=line)
    out = out[out["line"] != ""].reset_index(drop=True)
    facts = [by_code[c] for c in out["code"]]
    content = np.array([1.0 if f.basis == "contained" else f.content or 1.0 for f in facts])
    rate = out["period"].map(usd).to_numpy(dtype="float64") if customs.currency != "USD" else 1.0
    kg, value = out["kg"].to_numpy(), out["value"].to_numpy()
    rule = np.select(
        [
            out["status"] == "confidential",
            (out["status"] == "no-quantity") | np.isnan(kg),
            kg == 0,
            ~(value > 0),
            ~np.isfinite(value * rate),
        ],
        ["confidential", "no-quantity", "zero-quantity", "zero-value", "no-rate"],
        "",
    )
    return out.assign(
        origin=customs.origin,
        mineral=[f.mineral for f in facts],
        stage=[f.stage for f in facts],
        leg=np.where(out["partner"] == customs.china, "CN", "XCN"),
        usd=value * rate,
        tonnes=kg * content / 1000,
        rule=rule.astype(object),
    ).drop(columns="status")


# --------------------------------------------------------------------------------------- judging


@dataclass(frozen=True)
class _Grid:
    """Cells laid out: month × cell, and what each cell belongs to."""

    months: pd.Index
    keys: pd.DataFrame  # one row per cell, KEY
    usd: Floats
    tonnes: Floats
    good: Flags  # has a value and a mass
    line: npt.NDArray[np.int64]  # (origin, mineral, stage, line, leg) of each cell
    lines: pd.DataFrame


def _grid(cells: pd.DataFrame) -> _Grid:
    months = pd.period_range(cells["period"].min(), cells["period"].max(), freq="M").strftime("%Y-%m")
    grouped = cells.groupby(KEY, sort=True)
    keys = grouped.size().reset_index()[KEY]
    column = grouped.ngroup().to_numpy()
    row = months.get_indexer(pd.Index(cells["period"]))
    good = np.zeros((len(months), len(keys)), dtype=bool)
    usd, tonnes = np.zeros(good.shape), np.zeros(good.shape)
    fine = (cells["rule"] == "").to_numpy()
    np.add.at(usd, (row[fine], column[fine]), cells["usd"].to_numpy()[fine])
    np.add.at(tonnes, (row[fine], column[fine]), cells["tonnes"].to_numpy()[fine])
    good[row[fine], column[fine]] = True
    by_line = keys.groupby([*GROUP, "line", "leg"], sort=True)
    lines = by_line.size().reset_index()[[*GROUP, "line", "leg"]]
    line = by_line.ngroup().to_numpy().astype(np.int64)
    return _Grid(pd.Index(months), keys, usd, tonnes, good, line, lines)


def _below_floor(grid: _Grid, rules: Trade) -> Flags:
    """Month × line: the leg of its product carries less than the least mass."""
    legs = grid.lines.groupby([*GROUP, "leg"], sort=True)
    leg = legs.ngroup().to_numpy()
    facts = legs.size().reset_index()
    floors = np.array([rules.floor(m, s) for m, s in zip(facts["mineral"], facts["stage"], strict=True)]) / 1000
    mass = np.zeros((len(grid.months), len(facts)))
    np.add.at(mass.T, leg[grid.line], (grid.tonnes * grid.good).T)
    return (mass < floors)[:, leg]


def judged(cells: pd.DataFrame, rules: Trade) -> pd.DataFrame:
    """Name every cell whose unit value cannot be believed; change none.

    A cell is doubted when it lies further than ``outlier_factor`` from the median of its code's and
    leg's accepted months among the ``reference_months`` before (in the first year of a history, of that
    year; where there are too few, from the other origin's reference). A doubted cell stands when others
    moved with it: the other origin's leg, two other cells of its own leg, or its own leg for
    ``persistence_months``. Else its rule says ``implausible-mass``, and which slip that looks like.

    Parameters
    ----------
    cells : DataFrame
        Those of all origins, as ``prepared`` returns them.

    Returns
    -------
    DataFrame
        The same rows in order of ``KEY`` and month, with ``rule`` filled in.
    """
    cells = cells.sort_values([*KEY, "period", "code"], kind="stable").reset_index(drop=True)
    if cells.empty:
        return cells
    grid = _grid(cells)
    excluded = _excluded(grid, rules)
    column = cells.groupby(KEY, sort=True).ngroup().to_numpy()
    row = grid.months.get_indexer(pd.Index(cells["period"]))
    verdict = pd.Series(excluded[row, column], index=cells.index, dtype=object)
    return cells.assign(rule=cells["rule"].where(cells["rule"] != "", verdict))


def _excluded(grid: _Grid, rules: Trade) -> npt.NDArray[np.object_]:
    """Month × cell: the rule that excludes it, or nothing."""
    n_lines = len(grid.lines)
    below = _below_floor(grid, rules)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit_value = np.where(grid.good, grid.usd / grid.tonnes, np.nan)
    raw = _ratios(grid.usd * grid.good, grid.tonnes * grid.good, grid.line, n_lines)
    raw[below] = np.nan
    accepted = np.full(raw.shape, np.nan)
    excluded = np.full(grid.good.shape, "", dtype=object)
    twins = _twins(grid.lines)
    first = np.array([np.flatnonzero(column)[0] if column.any() else 0 for column in np.isfinite(raw).T])
    for t in range(len(grid.months)):
        own = _references(raw, accepted, first, t, rules)
        reference = np.where(np.isfinite(own), own, _of_twins(own, twins))
        move = np.log(unit_value[t] / reference[grid.line])
        for c in np.flatnonzero(np.abs(move) > np.log(rules.outlier_factor)).tolist():
            if not _confirmed(grid, t, c, move, raw, reference, twins, rules):
                excluded[t, c] = _blamed(move[c])
        kept = grid.good[t] & (excluded[t] == "")
        now = _ratios(grid.usd[t : t + 1] * kept, grid.tonnes[t : t + 1] * kept, grid.line, n_lines)[0]
        accepted[t] = np.where(below[t], np.nan, now)
    return excluded


def _ratios(usd: Floats, tonnes: Floats, group: npt.NDArray[np.int64], n: int) -> Floats:
    """Ratio of sums by group; NaN where nothing was traded."""
    value, mass = np.zeros((len(usd), n)), np.zeros((len(usd), n))
    np.add.at(value.T, group, usd.T)
    np.add.at(mass.T, group, tonnes.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mass > 0, value / mass, np.nan)


def _references(raw: Floats, accepted: Floats, first: npt.NDArray[np.int64], t: int, rules: Trade) -> Floats:
    """What each line's unit value is judged against in a month; NaN where its history says too little."""
    span = rules.reference_months
    before = accepted[max(0, t - span) : t]
    out = _median(before, rules.min_reference_months)
    for j in np.flatnonzero(np.isnan(out) & (t < first + span)):
        year = np.delete(raw[first[j] : first[j] + span, j], [t - first[j]] if t >= first[j] else [])
        out[j] = _median(year[:, None], rules.min_reference_months)[0]
    return out


def _median(values: Floats, least: int) -> Floats:
    enough = np.isfinite(values).sum(axis=0) >= least
    out = np.full(values.shape[1], np.nan)
    if enough.any():
        out[enough] = np.nanmedian(values[:, enough], axis=0)
    return out


def _twins(lines: pd.DataFrame) -> list[npt.NDArray[np.int64]]:
    """For each line, those of the other origins that count the same product from the same leg."""
    out = []
    for one in lines.itertuples():
        same = (lines["mineral"] == one.mineral) & (lines["stage"] == one.stage) & (lines["leg"] == one.leg)
        out.append(np.flatnonzero(same & (lines["origin"] != one.origin)))
    return out


def _of_twins(own: Floats, twins: Sequence[npt.NDArray[np.int64]]) -> Floats:
    found = [own[twin][np.isfinite(own[twin])] for twin in twins]
    return np.array([np.median(values) if len(values) else np.nan for values in found])


def _confirmed(
    grid: _Grid,
    t: int,
    c: int,
    move: Floats,
    raw: Floats,
    reference: Floats,
    twins: Sequence[npt.NDArray[np.int64]],
    rules: Trade,
) -> bool:
    """Tell whether others moved as a doubted cell did: by part of its move, in its direction."""
    j = grid.line[c]
    needed = rules.corroboration * abs(move[c])

    def confirms(moved: float) -> bool:
        return bool(np.sign(moved) == np.sign(move[c]) and abs(moved) >= needed)

    known = grid.good[t] & np.isfinite(move)
    others = known & (grid.line == j)
    others[c] = False
    if others.sum() >= 2 and confirms(_middle(move, grid.usd[t], others)):
        return True
    elsewhere = known & np.isin(grid.line, twins[j])
    if elsewhere.any() and confirms(_middle(move, grid.usd[t], elsewhere)):
        return True
    if _slip(move[c]):
        return False  # a wrong unit may well stand for months
    stood = raw[: t + 1, j]
    stood = stood[np.isfinite(stood)][-rules.persistence_months :]
    return len(stood) == rules.persistence_months and all(confirms(m) for m in np.log(stood / reference[j]))


def _slip(move: float) -> str:
    """Name the slip of a mass that a move of this size looks like."""
    for factor, what in SLIPS.items():
        if abs(abs(move) - np.log(factor)) <= np.log(SLIP_TOLERANCE):
            return what
    return ""


def _blamed(move: float) -> str:
    slip = _slip(move)
    return f"implausible-mass ({slip})" if slip else "implausible-mass"


def _middle(move: Floats, usd: Floats, which: Flags) -> float:
    """Median move by value: a mass may be wrong, a value seldom is."""
    return float(weighted_median(move[which][None, :], usd[which][None, :])[0])


# ------------------------------------------------------------------------------------ indicators


def indicators(cells: pd.DataFrame, codes: Sequence[Code], systems: Mapping[str, str], rules: Trade) -> list[Indicator]:
    """Form the unit values of every product and origin.

    Parameters
    ----------
    cells : DataFrame
        As ``judged`` returns them.
    codes : sequence of Code
        All tariffs.
    systems : mapping of origin to its tariff

    Returns
    -------
    list of Indicator, in order of mineral, stage and origin.
    """
    out: list[Indicator] = []
    if cells.empty:
        return out
    ends: dict[Any, str] = cells.groupby("origin")["period"].max().to_dict()
    reporting: dict[str, dict[Any, frozenset[str]]] = {
        str(origin): rows.groupby("period")["reporter"].agg(frozenset).to_dict()
        for origin, rows in cells.groupby("origin")
    }
    for (mineral, stage, origin), rows in cells.groupby(["mineral", "stage", "origin"], sort=True):
        mine = [c for c in codes if (c.system, c.mineral, c.stage) == (systems[str(origin)], mineral, stage)]
        months = pd.period_range(rows["period"].min(), ends[origin], freq="M").strftime("%Y-%m")
        breaks = _breaks(mine, months)
        reported = _reported(rows, months, reporting[str(origin)])
        frames: dict[str, pd.DataFrame] = {
            leg: _leg(rows, rows if leg == "WLD" else rows[rows["leg"] == leg], months, breaks, reported, rules)
            for leg in LEGS
        }
        out.append(
            Indicator(
                str(origin),
                str(mineral),
                str(stage),
                "contained" if any(c.content or c.basis == "contained" for c in mine if c.element) else "product",
                frames,
                _gap(frames["CN"], frames["XCN"]),
                rows[["period", "code", "reporter", "partner", "leg", "value", "kg", "usd", "tonnes", "rule"]]
                .sort_values(["period", "code", "reporter", "partner"], kind="stable")
                .reset_index(drop=True),
            )
        )
    return out


def _breaks(codes: Sequence[Code], months: pd.Index) -> Flags:
    """Months in which what the codes of a product count is no longer what it was the month before."""
    lines = [frozenset(usable(codes, month).values()) for month in months]
    return np.array([False] + [new != old for old, new in zip(lines, lines[1:], strict=False)])


def _reported(rows: pd.DataFrame, months: pd.Index, reporting: Mapping[Any, frozenset[str]]) -> Floats:
    """Share of the last twelve months' value whose reporters have said anything of a month."""
    reporters = sorted(rows["reporter"].unique())
    values = _by(rows, months, ["reporter"], "usd")
    until = np.cumsum(values, axis=0)
    before = np.vstack([np.zeros((1, len(reporters))), until[:-1]])
    before[12:] -= until[: max(0, len(until) - 12)][: len(before) - 12]
    weights = np.where(before.sum(axis=1, keepdims=True) > 0, before, values.sum(axis=0))
    there = np.array([[r in reporting.get(m, frozenset()) for r in reporters] for m in months])
    return np.nan_to_num(_over((weights * there).sum(axis=1), weights.sum(axis=1)))


def _leg(
    every: pd.DataFrame, rows: pd.DataFrame, months: pd.Index, breaks: Flags, reported: Floats, rules: Trade
) -> pd.DataFrame:
    """Unit values of one leg; ``every`` holds the product's cells of both."""
    mineral, stage = every["mineral"].iloc[0], every["stage"].iloc[0]
    fine = rows[rows["rule"] == ""]
    usd, tonnes = (_by(fine, months, ["line", "partner"], c) for c in ("usd", "tonnes"))
    mass = tonnes.sum(axis=1)
    counts = (mass > 0) & (mass >= rules.floor(mineral, stage) / 1000)
    lags = _lags(breaks, rules.window_months) & _shifted(counts, rules.window_months)
    value, low, high, se = _ratio(usd, tonnes, lags, rules.interval)
    cell_mass = _by(fine, months, ["line", "reporter", "partner"], "tonnes")
    cells, largest = _cells(cell_mass, lags)
    partner_mass = _windowed(_by(fine, months, ["partner"], "tonnes"), lags)
    in_window = partner_mass.sum(axis=1)
    china = _windowed(_by(fine[fine["leg"] == "CN"], months, ["leg"], "tonnes"), lags).sum(axis=1)
    frame = pd.DataFrame(
        {
            "value": value,
            "low": low,
            "high": high,
            "se": se,
            "month_value": _over(usd.sum(axis=1), mass),
            "months": lags.sum(axis=1),
            "cells": cells,
            "partners": (partner_mass > 0).sum(axis=1),
            "tonnes": in_window,
            "traded": _windowed(_by(rows, months, ["leg"], "usd"), np.ones_like(lags)).sum(axis=1),
            "kept_value": _kept(rows, fine, months, "usd", lags),
            "kept_tonnes": _kept(rows, fine, months, "tonnes", lags),
            "largest": largest,
            "hhi": _over((partner_mass**2).sum(axis=1), in_window**2) * 10_000,
            "china_share": _over(china, in_window),
            "reported": reported,
            "break": breaks,
        },
        index=months,
    )
    seen = _by(rows.assign(one=1.0), months, ["leg"], "one").sum(axis=1) > 0
    frame["rule"] = np.select(
        [
            reported < rules.min_reported,
            ~seen,
            mass == 0,
            ~counts,
            (frame["months"] < rules.min_months) & (cells < rules.min_cells),
            np.isnan(se) | (high / low > rules.widest),
        ],
        ["incomplete", "no-trade", "excluded", "minimum", "too-few", "dispersed"],
        "",
    )
    shown = ["value", "low", "high", "se", "month_value"]
    frame[shown] = frame[shown].where(frame["rule"] == "", np.nan)
    return frame


def _by(rows: pd.DataFrame, months: pd.Index, by: list[str], column: str) -> Floats:
    """Sums, month × group."""
    if rows.empty:
        return np.zeros((len(months), 1))
    grouped = rows.groupby(by, sort=True)
    out = np.zeros((len(months), grouped.ngroups))
    np.add.at(out, (months.get_indexer(pd.Index(rows["period"])), grouped.ngroup().to_numpy()), rows[column].fillna(0))
    return out


def _shifted(flags: Flags, window: int) -> Flags:
    """Month × lag: the flag of the month that lies so many months before."""
    out = np.zeros((len(flags), window), dtype=bool)
    for lag in range(window):
        out[lag:, lag] = flags[: len(flags) - lag]
    return out


def _lags(breaks: Flags, window: int) -> Flags:
    """Month × lag: no break lies between."""
    out = np.zeros((len(breaks), window), dtype=bool)
    since = np.cumsum(breaks)
    for lag in range(window):
        out[lag:, lag] = since[lag:] == since[: len(since) - lag]
    return out


def _windowed(values: Floats, lags: Flags) -> Floats:
    """Sum each column over the lags that count."""
    out = np.zeros_like(values)
    for lag in range(lags.shape[1]):
        out[lag:] += values[: len(values) - lag] * lags[lag:, lag, None]
    return out


def _over(part: Floats, whole: Floats) -> Floats:
    out: Floats = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return out


def _cells(mass: Floats, lags: Flags) -> tuple[npt.NDArray[np.int64], Floats]:
    """Cells of single months in each window, and the share of the largest."""
    count = np.zeros(len(mass), dtype=np.int64)
    largest, total = np.zeros(len(mass)), _windowed(mass, lags).sum(axis=1)
    for lag in range(lags.shape[1]):
        there = mass[: len(mass) - lag] * lags[lag:, lag, None]
        count[lag:] += (there > 0).sum(axis=1)
        largest[lag:] = np.maximum(largest[lag:], there.max(axis=1))
    return count, _over(largest, total)


def _kept(rows: pd.DataFrame, fine: pd.DataFrame, months: pd.Index, column: str, lags: Flags) -> Floats:
    """Share that the exclusions of cells left, over all months of the window."""
    whole = np.ones_like(lags)
    return _over(
        _windowed(_by(fine, months, ["leg"], column), whole).sum(axis=1),
        _windowed(_by(rows, months, ["leg"], column), whole).sum(axis=1),
    )


def _ratio(usd: Floats, tonnes: Floats, lags: Flags, interval: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Ratio of sums over the window, its interval, and the standard error of its logarithm.

    Linearised variance of a ratio (Cochran 1977, 6.4), with partners as units and with months as units;
    the larger counts, with the degrees of freedom of as many units of equal mass as weigh as much.
    """
    value, mass = _windowed(usd, lags), _windowed(tonnes, lags)
    ratio = _over(value.sum(axis=1), mass.sum(axis=1))
    partners = _relative_variance(value, mass, ratio)
    by_month = [np.zeros((len(usd), lags.shape[1])) for _ in range(2)]
    for lag in range(lags.shape[1]):
        for out, table in zip(by_month, (usd, tonnes), strict=True):
            out[lag:, lag] = table[: len(table) - lag].sum(axis=1) * lags[lag:, lag]
    spread = _relative_variance(by_month[0], by_month[1], ratio)
    from_partners = np.nan_to_num(partners[0], nan=-1) >= np.nan_to_num(spread[0], nan=-1)
    variance = np.where(from_partners, partners[0], spread[0])
    freedom = np.where(from_partners, partners[1], spread[1])
    se = np.sqrt(variance)
    reach = student.ppf(0.5 + interval / 200, np.maximum(freedom, 1.0)) * se
    return ratio, ratio * np.exp(-reach), ratio * np.exp(reach), se


def _relative_variance(value: Floats, mass: Floats, ratio: Floats) -> tuple[Floats, Floats]:
    """Relative variance of a ratio of sums over units in rows, and its degrees of freedom; NaN below two units."""
    n, total = (mass > 0).sum(axis=1), mass.sum(axis=1)
    residual = ((value - ratio[:, None] * mass) ** 2).sum(axis=1)
    several = n > 1
    variance = np.full(len(n), np.nan)
    variance[several] = n[several] / (n[several] - 1) * residual[several] / (ratio[several] * total[several]) ** 2
    return variance, _over(total**2, (mass**2).sum(axis=1)) - 1


def _gap(china: pd.DataFrame, elsewhere: pd.DataFrame) -> pd.DataFrame:
    """China's leg over the other, less one, with the interval of both; normal quantiles of the wider level."""
    both = china.index[(china["rule"] == "") & (elsewhere["rule"] == "")]
    cn, xcn = china.loc[both], elsewhere.loc[both]
    ratio = cn["value"] / xcn["value"]
    # each leg's half width as logarithm, joined as independent errors are
    reach = np.hypot(np.log(cn["high"] / cn["value"]), np.log(xcn["high"] / xcn["value"]))
    return pd.DataFrame({"gap": ratio - 1, "low": ratio * np.exp(-reach) - 1, "high": ratio * np.exp(reach) - 1})


# ---------------------------------------------------------------------------------------- supply


def supply(cells: pd.DataFrame, last: pd.Period, months: int = 12) -> pd.DataFrame:
    """Tonnes by partner over some months of an indicator's cells.

    Masses of cells that were excluded do not count: the mass is what is doubted.

    Returns
    -------
    DataFrame by partner, largest first: ``leg``, ``tonnes``, ``share``; ``attrs`` has the ``first`` and
    the ``last`` month.
    """
    first = str(last - (months - 1))
    rows = cells[(cells["period"] >= first) & (cells["period"] <= str(last)) & (cells["rule"] == "")]
    out = rows.groupby("partner").agg(leg=("leg", "first"), tonnes=("tonnes", "sum"))
    out = out.sort_values("tonnes", ascending=False, kind="stable")
    out["share"] = out["tonnes"] / out["tonnes"].sum()
    out.attrs = {"first": first, "last": str(last)}
    return out


# ------------------------------------------------------------------------------------ track record

LAGS = 6
LEAST_PAIRS = 8


@dataclass(frozen=True)
class Record:
    """How one measure has run beside another over the months that both have.

    Changes are over a whole window, so that neither side of a pair shares a month with the other.

    Attributes
    ----------
    months : int
        Months that both have.
    level : float or None
        Median ratio of this to the other.
    correlation : float or None
        Of the logarithmic changes over a window, at no lag; None below `LEAST_PAIRS`.
    lag : int or None
        Months by which this follows the other (negative: leads) where the correlation is highest.
    at_lag : float or None
        The correlation there.
    """

    months: int
    level: float | None
    correlation: float | None
    lag: int | None
    at_lag: float | None


def record(this: pd.Series, other: pd.Series, window: int) -> Record:
    """Compare two monthly series of windowed values, NaN or absent where there is none."""
    first, last = min(this.index.min(), other.index.min()), max(this.index.max(), other.index.max())
    months = pd.period_range(first, last, freq="M").strftime("%Y-%m")
    here, there = (s.reindex(months).astype("float64") for s in (this, other))
    ratio = (here / there).dropna()
    changes = [pd.Series(np.log(s.to_numpy(dtype="float64"))).diff(window) for s in (here, there)]
    found = {lag: _correlation(changes[0], changes[1].shift(lag)) for lag in range(-LAGS, LAGS + 1)}
    known = {lag: r for lag, r in found.items() if r is not None}
    best = max(known, key=lambda lag: (known[lag], -abs(lag))) if known else None
    return Record(
        months=len(ratio),
        level=float(ratio.median()) if len(ratio) else None,
        correlation=found[0],
        lag=best,
        at_lag=known[best] if best is not None else None,
    )


def _correlation(a: pd.Series, b: pd.Series) -> float | None:
    both = a.notna() & b.notna()
    if both.sum() < LEAST_PAIRS or a[both].nunique() < 2 or b[both].nunique() < 2:
        return None
    return float(np.corrcoef(a[both], b[both])[0, 1])
