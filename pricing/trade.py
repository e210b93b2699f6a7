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
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t as student

from pricing.config import Code, Customs, Leg, Trade
from pricing.reference import weighted_median

LEGS: tuple[Leg, ...] = ("CN", "XCN", "WLD")
KEY = ["origin", "mineral", "stage", "line", "leg", "reporter", "partner"]
GROUP = ["origin", "mineral", "stage"]
SHOWN = ["period", "code", "reporter", "partner", "leg", "value", "kg", "usd", "tonnes", "rule"]

YEAR = 12
SLIPS = {10.0: "a decimal place", 100.0: "100", 1000.0: "kg and t", 2204.6: "lb and t", 31.1: "troy ounce"}
WIDEST = 50.0  # half width of an interval, as logarithm: wider is never published, and would overflow
SLIP_TOLERANCE = 1.3  # a factor: unit values scatter, so a slip is recognised by its size only

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


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
        the window, ``traded`` (USD in all months of the window, nothing excluded), ``kept_value`` (share
        of it that the exclusions left), ``largest`` (largest cell's share of the tonnes), ``hhi``
        (concentration of partners, 0 to 10,000), ``china_share``, ``reported`` (share of last year's
        value whose reporters are in), ``break``, ``counted`` (the months that the figure sums).
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
    at, keys = _distinct(cells, ["code", "period"])
    valid = {m: usable(codes, m) for m in keys["period"].unique()}
    lines = np.array([valid[m].get(c, "") for c, m in zip(keys["code"], keys["period"], strict=True)], dtype=object)
    out = _summed(cells.assign(line=lines[at])[lines[at] != ""])
    at, keys = _distinct(out, ["code", "period"])
    by_code = {(c.code, m): c for m in valid for c in codes if c.valid(m)}
    facts = [by_code[pair] for pair in zip(keys["code"], keys["period"], strict=True)]
    content = np.array([1.0 if f.basis == "contained" else f.content or 1.0 for f in facts])
    rate = out["period"].map(usd).to_numpy(dtype="float64") if customs.currency != "USD" else 1.0
    kg, value = out["kg"].to_numpy(), out["value"].to_numpy()
    rule = np.select(
        [
            (out["status"] == "confidential").to_numpy(),
            (out["status"] == "no-quantity").to_numpy() | np.isnan(kg),
            kg == 0,
            ~(value > 0),
            ~np.isfinite(value * rate),
        ],
        [np.array(r, dtype=object) for r in ("confidential", "no-quantity", "zero-quantity", "zero-value", "no-rate")],
        np.array("", dtype=object),
    )
    return out.assign(
        origin=customs.origin,
        mineral=np.array([f.mineral for f in facts], dtype=object)[at],
        stage=np.array([f.stage for f in facts], dtype=object)[at],
        leg=np.where(out["partner"] == customs.china, "CN", "XCN"),
        usd=value * rate,
        tonnes=kg * content[at] / 1000,
        rule=rule,
    ).drop(columns="status")


def _summed(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per code, reporter, partner, month and status, in that order."""
    number = _numbered(cells, ["code", "reporter", "partner", "period", "status"])
    first, row = np.unique(number, return_index=True, return_inverse=True)[1:]
    whole = cells.iloc[first].reset_index(drop=True)
    if len(first) == len(cells):
        return whole
    sums = cells[["value", "kg"]].groupby(row).sum(min_count=1)
    return whole.assign(value=sums["value"].to_numpy(), kg=sums["kg"].to_numpy())


def _numbered(rows: pd.DataFrame, columns: Sequence[str]) -> Ints:
    """Number rows by what some columns say, so that numbers sort as the columns do."""
    out = np.zeros(len(rows), dtype=np.int64)
    for name in columns:
        code, found = pd.factorize(rows[name], sort=True)
        out = out * max(len(found), 1) + code
    return out


def _distinct(rows: pd.DataFrame, columns: list[str]) -> tuple[Ints, pd.DataFrame]:
    """Give each row the number of its combination, and the combinations in order."""
    _, first, row = np.unique(_numbered(rows, columns), return_index=True, return_inverse=True)
    return row.astype(np.int64), rows[columns].iloc[first].reset_index(drop=True)


# --------------------------------------------------------------------------------------- judging


@dataclass(frozen=True)
class _Grid:
    """Cells laid out: month × cell, in order of ``KEY``, and what each cell belongs to."""

    months: pd.Index
    usd: Floats
    tonnes: Floats
    good: Flags  # has a value and a mass
    lines: pd.DataFrame  # (origin, mineral, stage, line, leg)
    line: Ints  # of each cell
    start: Ints  # first cell of each line: the cells of a line lie together
    reporter: Ints  # of each cell


def _in_months(periods: pd.Series) -> tuple[Ints, pd.Index]:
    """Give each row the position of its month, and all months from the first to the last."""
    code, found = pd.factorize(periods)
    months = pd.period_range(found.min(), found.max(), freq="M").strftime("%Y-%m")
    return months.get_indexer(found).astype(np.int64)[code], months


def _grid(cells: pd.DataFrame, column: npt.NDArray[np.intp], keys: pd.DataFrame, row: Ints, months: pd.Index) -> _Grid:
    shape = (len(months), len(keys))
    good, usd, tonnes = np.zeros(shape, dtype=bool), np.zeros(shape), np.zeros(shape)
    fine = (cells["rule"] == "").to_numpy()
    np.add.at(usd, (row[fine], column[fine]), cells["usd"].to_numpy()[fine])
    np.add.at(tonnes, (row[fine], column[fine]), cells["tonnes"].to_numpy()[fine])
    good[row[fine], column[fine]] = True
    line, lines = _distinct(keys, [*GROUP, "line", "leg"])
    reporter = _numbered(keys, ["origin", "reporter"])
    return _Grid(months, usd, tonnes, good, lines, line, np.searchsorted(line, np.arange(len(lines))), reporter)


def _below_floor(grid: _Grid, rules: Trade) -> Flags:
    """Month × line: the leg of its product carries less than the least mass."""
    leg, legs = _distinct(grid.lines, [*GROUP, "leg"])
    floors = np.array([rules.floor(m, s) for m, s in zip(legs["mineral"], legs["stage"], strict=True)]) / 1000
    mass = np.zeros((len(grid.months), len(legs)))
    np.add.at(mass.T, leg, np.add.reduceat(grid.tonnes, grid.start, axis=1).T)
    return (mass < floors)[:, leg]


def judged(cells: pd.DataFrame, rules: Trade) -> pd.DataFrame:
    """Name every cell whose unit value cannot be believed; change none.

    A cell is doubted when it lies further than ``outlier_factor`` from the median of its code's and
    leg's accepted months among the ``reference_months`` before (in the first year of a history, of that
    year; where there are too few, from the other origin's reference). A doubted cell stands when others
    moved with it: the other origin's leg, two other cells of its own leg, or its own leg for
    ``persistence_months``; and when it always lay there: itself, for as many months of the reference
    months. Else its rule says ``implausible-mass``, and which slip that looks like.

    Parameters
    ----------
    cells : DataFrame
        Those of all origins, as ``prepared`` returns them.

    Returns
    -------
    DataFrame
        The same rows in order of ``KEY`` and month, with ``rule`` filled in.
    """
    if cells.empty:
        return cells
    key, (row, months) = _numbered(cells, KEY), _in_months(cells["period"])
    order = np.lexsort((_numbered(cells, ["code"]), row, key))
    cells, row = cells.iloc[order].reset_index(drop=True), row[order]
    _, first, column = np.unique(key[order], return_index=True, return_inverse=True)
    excluded = _excluded(_grid(cells, column, cells[KEY].iloc[first], row, months), rules)
    rule = cells["rule"].to_numpy(dtype=object)
    return cells.assign(rule=np.where(rule == "", excluded[row, column], rule))


def _excluded(grid: _Grid, rules: Trade) -> npt.NDArray[np.object_]:
    """Month × cell: the rule that excludes it, or nothing."""
    below = _below_floor(grid, rules)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit_value = np.where(grid.good, grid.usd / grid.tonnes, np.nan)
    raw = _ratios(grid, slice(None), grid.good)
    raw[below] = np.nan
    accepted = np.full(raw.shape, np.nan)
    excluded = np.full(grid.good.shape, "", dtype=object)
    twins = _twins(grid.lines)
    first = np.array([np.flatnonzero(column)[0] if column.any() else 0 for column in np.isfinite(raw).T])
    for t in range(len(grid.months)):
        own = _references(raw, accepted, first, t, rules)
        reference = np.where(np.isfinite(own), own, _of_twins(own, twins))
        move = np.log(unit_value[t] / reference[grid.line])
        doubted = np.flatnonzero(np.abs(move) > np.log(rules.outlier_factor))
        stands = _confirmed_by_others(grid, t, doubted, move, twins, rules)
        for c in doubted[~stands].tolist():
            if not _has_stood(grid.line[c], t, c, move[c], raw, unit_value, reference, rules):
                excluded[t, c] = _blamed(move[c])
        accepted[t] = _ratios(grid, slice(t, t + 1), grid.good[t : t + 1] & (excluded[t : t + 1] == ""))[0]
        accepted[t, below[t]] = np.nan
    return excluded


def _ratios(grid: _Grid, months: slice, kept: Flags) -> Floats:
    """Ratio of sums by line; NaN where nothing was traded."""
    value, mass = (np.add.reduceat(table[months] * kept, grid.start, axis=1) for table in (grid.usd, grid.tonnes))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mass > 0, value / mass, np.nan)


def _references(raw: Floats, accepted: Floats, first: Ints, t: int, rules: Trade) -> Floats:
    """What each line's unit value is judged against in a month; NaN where its history says too little."""
    span = rules.reference_months
    before = accepted[max(0, t - span) : t]
    out = _median(before, rules.min_reference_months)
    for j in np.flatnonzero(np.isnan(out) & (t < first + span)):
        year = np.delete(raw[first[j] : first[j] + span, j], [t - first[j]] if t >= first[j] else [])
        out[j] = _median(year[:, None], rules.min_reference_months)[0]
    return out


def _median(values: Floats, least: int) -> Floats:
    """Median of each column's numbers; NaN where there are fewer than the least."""
    n = np.isfinite(values).sum(axis=0)
    if not len(values):
        return np.full(values.shape[1], np.nan)
    ordered, column = np.sort(values, axis=0), np.arange(values.shape[1])  # NaN last
    middle = (ordered[np.maximum(n - 1, 0) // 2, column] + ordered[np.minimum(n // 2, len(values) - 1), column]) / 2
    return np.where(n >= least, middle, np.nan)


def _twins(lines: pd.DataFrame) -> list[Ints]:
    """For each line, those of the other origins that count the same product from the same leg."""
    origins = lines["origin"].to_numpy()
    same = lines.groupby(["mineral", "stage", "leg"]).indices
    every = (same[key] for key in lines[["mineral", "stage", "leg"]].itertuples(index=False, name=None))
    return [found[origins[found] != origin] for origin, found in zip(origins, every, strict=True)]


def _of_twins(own: Floats, twins: Sequence[Ints]) -> Floats:
    found = [own[twin][np.isfinite(own[twin])] for twin in twins]
    return np.array([np.median(values) if len(values) else np.nan for values in found])


def _confirms(moved: Floats, move: Floats | float, rules: Trade) -> Flags:
    """Tell whether what others did is part enough of a move, in its direction."""
    out: Flags = (np.sign(moved) == np.sign(move)) & (np.abs(moved) >= rules.corroboration * np.abs(move))
    return out


def _confirmed_by_others(
    grid: _Grid, t: int, doubted: npt.NDArray[np.intp], move: Floats, twins: Sequence[Ints], rules: Trade
) -> Flags:
    """Tell of each doubted cell whether two others of its line, or its line at the other origin, moved as it did.

    The others' move is the median by value: a mass may be wrong, a value seldom is.
    """
    ends = np.append(grid.start[1:], len(grid.line))
    out = np.zeros(len(doubted), dtype=bool)

    def cells_of(lines: Ints) -> Ints:
        cells = np.concatenate([np.arange(grid.start[j], ends[j]) for j in lines])
        found: Ints = cells[grid.good[t, cells] & np.isfinite(move[cells])]
        return found

    for j in np.unique(grid.line[doubted]):
        which = grid.line[doubted] == j
        mine, near = move[doubted[which]], cells_of(np.array([j]))
        # One reporter's cells share its mistakes, so others are those of other reporters. Where one reporter
        # is all there is, its other partners count, but not for a move that looks like a wrong unit.
        single = len(np.unique(grid.reporter[grid.start[j] : ends[j]])) == 1
        apart = grid.reporter[near][None, :] != grid.reporter[doubted[which]][:, None]
        if single:
            apart = near[None, :] != doubted[which][:, None]
            apart &= ~np.array([bool(_slip(m)) for m in mine])[:, None]
        enough = apart.sum(axis=1) >= 2
        if enough.any():
            middle = weighted_median(np.tile(move[near], (len(mine), 1)), np.where(apart, grid.usd[t, near], 0.0))
            out[which] = enough & _confirms(middle, mine, rules)
        if len(twins[j]) and not out[which].all():
            far = cells_of(twins[j])
            if len(far):
                middle = weighted_median(move[far][None, :], grid.usd[t, far][None, :])
                out[which] |= _confirms(middle, mine, rules)
    return out


def _has_stood(
    j: int, t: int, c: int, move: float, raw: Floats, unit_value: Floats, reference: Floats, rules: Trade
) -> bool:
    """Tell whether a doubted cell's line, or the cell itself, has stood there for long enough."""
    if _slip(move):
        return False  # a wrong unit may well stand for months
    recent = unit_value[max(0, t - rules.reference_months) : t + 1, c]
    for levels in (raw[: t + 1, j], recent):
        stood = levels[np.isfinite(levels)][-rules.persistence_months :]
        if len(stood) == rules.persistence_months and _confirms(np.log(stood / reference[j]), move, rules).all():
            return True
    return False


def _slip(move: float) -> str:
    """Name the slip of a mass that a move of this size looks like."""
    for factor, what in SLIPS.items():
        if abs(abs(move) - np.log(factor)) <= np.log(SLIP_TOLERANCE):
            return what
    return ""


def _blamed(move: float) -> str:
    slip = _slip(move)
    return f"implausible-mass ({slip})" if slip else "implausible-mass"


# ------------------------------------------------------------------------------------ indicators


def indicators(
    cells: pd.DataFrame,
    codes: Sequence[Code],
    systems: Mapping[str, str],
    rules: Trade,
    read: Mapping[str, Mapping[str, frozenset[str]]] | None = None,
) -> list[Indicator]:
    """Form the unit values of every product and origin.

    Parameters
    ----------
    cells : DataFrame
        As ``judged`` returns them.
    codes : sequence of Code
        All tariffs.
    systems : mapping of origin to its tariff
    read : mapping of origin to code to months, optional
        Months for which the office has answered about a code since they appeared. A month of a product of
        which a code is not among them is incomplete. None: all were read.

    Returns
    -------
    list of Indicator, in order of mineral, stage and origin.
    """
    out: list[Indicator] = []
    if cells.empty:
        return out
    every = _laid_out(cells)
    origin_of, origins = _distinct(cells, ["origin"])
    ends = [int(every.month[origin_of == n].max()) for n in range(len(origins))]
    spoke = np.zeros((len(origins), len(every.months), int(every.reporter.max()) + 1), dtype=bool)
    spoke[origin_of, every.month, every.reporter] = True
    product, products = _distinct(cells, ["mineral", "stage", "origin"])
    in_order = np.lexsort((every.partner, every.reporter, _numbered(cells, ["code"]), every.month, product))
    bounds = np.searchsorted(product[in_order], np.arange(len(products) + 1))
    for n, (mineral, stage, origin) in enumerate(products.itertuples(index=False, name=None)):
        mine = [c for c in codes if (c.system, c.mineral, c.stage) == (systems[origin], mineral, stage)]
        which = in_order[bounds[n] : bounds[n + 1]]
        number = int(origin_of[which[0]])
        rows = every.of(which).between(int(every.month[which].min()), ends[number])
        breaks = _breaks(mine, rows.months)
        heard = spoke[number, every.months.get_indexer(rows.months)]
        floor = rules.floor(mineral, stage) / 1000
        whole = _read(mine, rows.months, None if read is None else read.get(origin, {}))
        frames: dict[str, pd.DataFrame] = {
            leg: _leg(rows.leg(leg), leg, breaks, heard, whole, floor, rules) for leg in LEGS
        }
        out.append(
            Indicator(
                origin,
                mineral,
                stage,
                "contained" if any(c.content or c.basis == "contained" for c in mine if c.element) else "product",
                frames,
                _gap(frames["CN"], frames["XCN"]),
                cells[SHOWN].iloc[which].reset_index(drop=True),
            )
        )
    return out


@dataclass(frozen=True)
class _Rows:
    """Cells as numbers: row by row the month, what it belongs to, and how much it is."""

    months: pd.Index
    month: Ints
    line: Ints
    reporter: Ints
    partner: Ints
    china: Flags
    fine: Flags  # no rule excludes it
    unrated: Flags  # no exchange rate is known
    usd: Floats
    tonnes: Floats

    def of(self, which: npt.NDArray[np.intp] | Flags) -> _Rows:
        """Return some of the rows."""
        rows = {f.name: getattr(self, f.name)[which] for f in fields(self) if f.name != "months"}
        return replace(self, **rows)

    def between(self, first: int, last: int) -> _Rows:
        """Return the same rows over fewer months."""
        return replace(self, months=self.months[first : last + 1], month=self.month - first)

    def leg(self, leg: str) -> _Rows:
        """Return the rows of one leg."""
        return self if leg == "WLD" else self.of(self.china == (leg == "CN"))

    def by(self, column: Floats, *keys: Ints) -> Floats:
        """Sums, month × combination of keys; without keys one column."""
        group = np.zeros(len(self.month), dtype=np.int64)
        for key in keys:
            group = group * (int(key.max(initial=0)) + 1) + key
        found, group = np.unique(group, return_inverse=True)
        n = max(len(found), 1)
        sums = np.bincount(self.month * n + group, weights=column, minlength=len(self.months) * n)
        return sums.reshape(len(self.months), n).astype(np.float64)


def _laid_out(cells: pd.DataFrame) -> _Rows:
    month, months = _in_months(cells["period"])
    return _Rows(
        months,
        month,
        line=_numbered(cells, ["line"]),
        reporter=_numbered(cells, ["reporter"]),
        partner=_numbered(cells, ["partner"]),
        china=(cells["leg"] == "CN").to_numpy(),
        fine=(cells["rule"] == "").to_numpy(),
        unrated=(cells["rule"] == "no-rate").to_numpy(),
        usd=np.nan_to_num(cells["usd"].to_numpy(dtype="float64")),
        tonnes=np.nan_to_num(cells["tonnes"].to_numpy(dtype="float64")),
    )


def _breaks(codes: Sequence[Code], months: pd.Index) -> Flags:
    """Months in which what the codes of a product count is no longer what it was the month before."""
    lines = [frozenset(usable(codes, month).values()) for month in months]
    return np.array([False] + [new != old for old, new in zip(lines, lines[1:], strict=False)])


def _read(codes: Sequence[Code], months: pd.Index, read: Mapping[str, frozenset[str]] | None) -> Flags:
    """Months for which all codes of a product that may be used have been read."""
    if read is None:
        return np.ones(len(months), dtype=bool)
    return np.array([all(m in read.get(c, ()) for c in usable(codes, m)) for m in months], dtype=bool)


def _reported(rows: _Rows, spoke: Flags) -> Floats:
    """Share of the last twelve months' value whose reporters have said anything of a month.

    With no trade before it, of the value of the first twelve months with trade, so that later ones change nothing.

    ``spoke``, month × reporter: of any product. Where nothing was traded nobody is missing.
    """
    reporters, column = np.unique(rows.reporter, return_inverse=True)
    values = np.zeros((len(rows.months), len(reporters)))
    np.add.at(values, (rows.month, column), rows.usd * rows.fine)
    until = np.cumsum(values, axis=0)
    before = np.vstack([np.zeros((1, len(reporters))), until[:-1]])
    before[YEAR + 1 :] -= until[: -YEAR - 1]
    began = int(values.any(axis=1).argmax())
    weights = np.where(before.sum(axis=1, keepdims=True) > 0, before, values[began : began + YEAR].sum(axis=0))
    share = _over((weights * spoke[:, reporters]).sum(axis=1), weights.sum(axis=1))
    return np.where(np.isnan(share), 1.0, share)


def _leg(rows: _Rows, leg: str, breaks: Flags, spoke: Flags, read: Flags, floor: float, rules: Trade) -> pd.DataFrame:
    """Unit values of one leg over its months; the floor in tonnes; ``read``: all of the product's codes were read."""
    fine, reported = rows.of(rows.fine), _reported(rows, spoke)
    # what differs lastingly: partners, or, where there is one only, those who declare
    unit = fine.reporter if leg == "CN" else fine.partner
    usd, tonnes = (fine.by(c, fine.line, unit) for c in (fine.usd, fine.tonnes))
    mass = tonnes.sum(axis=1)
    whole_month = (reported >= rules.min_reported) & read
    counts = (mass > 0) & (mass >= floor) & whole_month
    span = rules.window_months + rules.reference_months
    before = _lags(breaks, span) & _shifted(counts, span)
    lags = before[:, : rules.window_months].copy()
    before[:, : rules.window_months] = False
    value, low, high, se = _ratio(usd, tonnes, lags, before, rules.interval)
    cells, largest = _cells(fine.by(fine.tonnes, fine.line, fine.reporter, fine.partner), lags)
    partner_mass = _windowed(fine.by(fine.tonnes, fine.partner), lags)
    in_window = partner_mass.sum(axis=1)
    china = _windowed(fine.by(fine.tonnes * fine.china), lags).sum(axis=1)
    whole = np.ones_like(lags)
    traded, kept = (_windowed(of.by(of.usd), whole)[:, 0] for of in (rows, fine))
    seen = rows.by(np.ones(len(rows.month)))[:, 0] > 0
    unrated = seen & (rows.by((~rows.unrated).astype("float64"))[:, 0] == 0)
    name = rows.months.tolist()
    back = range(lags.shape[1] - 1, -1, -1)
    counted = [" ".join(name[t - lag] for lag in back if lags[t, lag]) for t in range(len(name))]
    months = lags.sum(axis=1)
    rule = np.select(
        [
            ~whole_month,
            ~seen,
            unrated,
            mass == 0,
            ~counts,
            (months < rules.min_months) & (cells < rules.min_cells),
            np.isnan(se) | (high / low > rules.widest),
        ],
        ["incomplete", "no-trade", "no-rate", "excluded", "minimum", "too-few", "dispersed"],
        "",
    )
    figures = {"value": value, "low": low, "high": high, "se": se, "month_value": _over(usd.sum(axis=1), mass)}
    return pd.DataFrame(
        {name: np.where(rule == "", figure, np.nan) for name, figure in figures.items()}
        | {
            "months": months,
            "cells": cells,
            "partners": (partner_mass > 0).sum(axis=1),
            "tonnes": in_window,
            "traded": traded,
            "kept_value": _over(kept, traded),
            "largest": largest,
            "hhi": _over((partner_mass**2).sum(axis=1), in_window**2) * 10_000,
            "china_share": _over(china, in_window),
            "reported": reported,
            "break": breaks,
            "counted": counted,
            "rule": rule.astype(object),
        },
        index=rows.months,
    )


def _shifted(flags: Flags, window: int) -> Flags:
    """Month × lag: the flag of the month that lies so many months before."""
    out = np.zeros((len(flags), window), dtype=bool)
    for lag in range(min(window, len(flags))):
        out[lag:, lag] = flags[: len(flags) - lag]
    return out


def _lags(breaks: Flags, window: int) -> Flags:
    """Month × lag: no break lies between."""
    out = np.zeros((len(breaks), window), dtype=bool)
    since = np.cumsum(breaks)
    for lag in range(min(window, len(breaks))):
        out[lag:, lag] = since[lag:] == since[: len(since) - lag]
    return out


def _windowed(values: Floats, lags: Flags) -> Floats:
    """Sum each column over the lags that count."""
    out = np.zeros_like(values)
    for lag in range(min(lags.shape[1], len(values))):
        out[lag:] += values[: len(values) - lag] * lags[lag:, lag, None]
    return out


def _over(part: Floats, whole: Floats) -> Floats:
    out: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=np.broadcast_to(whole > 0, part.shape))
    return out


def _cells(mass: Floats, lags: Flags) -> tuple[Ints, Floats]:
    """Cells of single months in each window, and the share of the largest."""
    count = np.zeros(len(mass), dtype=np.int64)
    largest, total = np.zeros(len(mass)), np.zeros(len(mass))
    in_month, most, whole = (mass > 0).sum(axis=1), mass.max(axis=1), mass.sum(axis=1)
    for lag in range(min(lags.shape[1], len(mass))):
        counts = lags[lag:, lag]
        count[lag:] += in_month[: len(mass) - lag] * counts
        largest[lag:] = np.maximum(largest[lag:], most[: len(mass) - lag] * counts)
        total[lag:] += whole[: len(mass) - lag] * counts
    return count, _over(largest, total)


def _ratio(
    usd: Floats, tonnes: Floats, lags: Flags, before: Flags, interval: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """Ratio of sums over the window, its interval, and the standard error of its logarithm.

    Linearised variance of a ratio of sums (Cochran 1977, 6.4), units in columns, for the difference of the
    window from the months ``before``: a unit that is always dear makes the figure no less certain, only
    a change of its share does. Where no month is before, nothing is known to be lasting, and it is the
    variance of the ratio itself. Where less than two units of equal mass would weigh as much, months stand for
    units if they scatter more. Degrees of freedom
    are those of as many units of equal mass as weigh as much.
    """
    value, mass = _windowed(usd, lags), _windowed(tonnes, lags)
    total = mass.sum(axis=1)
    ratio = _over(value.sum(axis=1), total)
    share, dearer = _lasting(usd, tonnes, before)
    # the price of the lasting mix, of which each unit's value differs by its dearness and by accident
    mixed = ratio / (1 + _over((mass * dearer).sum(axis=1), total))
    residual = _over(value / np.where(total > 0, mixed, 1.0)[:, None] - mass, total[:, None]) - share * dearer
    n, here = ((mass > 0) | (share > 0)).sum(axis=1), (mass > 0).sum(axis=1)
    variance = _over(n * (residual**2).sum(axis=1), np.where(here > 1, n - 1.0, 0.0))
    freedom = _over(total**2, (mass**2).sum(axis=1)) - 1
    # Units of very unequal mass are hardly more than one: then the months' scatter counts too, where it is wider.
    by_month = _of_months(usd.sum(axis=1), tonnes.sum(axis=1), ratio, lags)
    alone = (here < 2) | ((freedom < 1) & ~(variance >= by_month[0]))
    variance[alone], freedom[alone] = (of[alone] for of in by_month)
    se = np.sqrt(variance)
    reach = np.minimum(student.ppf(0.5 + interval / 200, np.maximum(freedom, 1.0)) * se, WIDEST)
    return ratio, ratio * np.exp(-reach), ratio * np.exp(reach), se


def _lasting(usd: Floats, tonnes: Floats, before: Flags) -> tuple[Floats, Floats]:
    """Each unit's share of the mass in the months before, and by how much it was dearer than all; 0 where unknown.

    Each month at its own ratio: prices moved between them, and that is not what is asked.
    """
    month = _over(usd.sum(axis=1), tonnes.sum(axis=1))
    more = _windowed(np.where(np.isnan(month), 0.0, usd.T / month - tonnes.T).T, before)
    mass = _windowed(tonnes, before)
    return np.nan_to_num(_over(mass, mass.sum(axis=1, keepdims=True))), np.nan_to_num(_over(more, mass))


def _of_months(usd: Floats, tonnes: Floats, ratio: Floats, lags: Flags) -> tuple[Floats, Floats]:
    """Relative variance of the ratio with the window's months as units, and its degrees of freedom."""
    value, mass = (
        np.stack(
            [np.concatenate([np.zeros(min(lag, len(c))), c[: max(len(c) - lag, 0)]]) for lag in range(lags.shape[1])],
            axis=1,
        )
        * lags
        for c in (usd, tonnes)
    )
    n, total = (mass > 0).sum(axis=1), mass.sum(axis=1)
    squares = ((value - np.nan_to_num(ratio)[:, None] * mass) ** 2).sum(axis=1)
    variance = _over(n * squares, np.where(n > 1, (n - 1) * (np.nan_to_num(ratio) * total) ** 2, 0.0))
    return variance, _over(total**2, (mass**2).sum(axis=1)) - 1


def _gap(china: pd.DataFrame, elsewhere: pd.DataFrame) -> pd.DataFrame:
    """China's leg over the other, less one, with the interval of both; normal quantiles of the wider level."""
    # of the same months: prices move inside a window
    same = (china["counted"] == elsewhere["counted"]) & (china["rule"] == "") & (elsewhere["rule"] == "")
    both = china.index[same]
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
