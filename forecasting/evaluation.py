"""How good forecasts were: scores, a test of equal accuracy, and the record that is published beside each forecast.

Arrays are origin × horizon (quantiles: × node); horizon 1 is the first unobserved period. What was not observed is NaN
and enters nothing. Losses are the lower the better; a test or a standard error of losses takes origins in order of
time, evenly spaced. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtr

from forecasting.errors import ForecastError

Floats = npt.NDArray[np.float64]
Alternative = Literal["two-sided", "less", "greater"]
Variance = Literal["autocovariances", "cosines"]
Outcome = Literal["first", "latest"]
Published = Literal["model", "benchmark"]

# ------------------------------------------------------------------------------------ scores


def node_weights(probabilities: npt.ArrayLike) -> Floats:
    """Share of (0, 1) that each node of a quantile grid stands for: the cell between the midpoints to its neighbours.

    The weights sum to 1. For the nodes .025 .1 .5 .9 .975 they are .0625 .2375 .4 .2375 .0625.

    Raises
    ------
    ForecastError
        When the probabilities do not increase strictly inside (0, 1).
    """
    nodes = np.asarray(probabilities, dtype=np.float64)
    if nodes.ndim != 1 or not len(nodes) or not (np.diff(np.r_[0.0, nodes, 1.0]) > 0).all():
        raise ForecastError(f"probabilities of a quantile grid increase strictly between 0 and 1, not {nodes.tolist()}")
    return np.diff(np.r_[0.0, (nodes[1:] + nodes[:-1]) / 2, 1.0])


def pinball(actual: npt.ArrayLike, quantiles: npt.ArrayLike, probabilities: npt.ArrayLike) -> Floats:
    """Quantile loss of each node (Koenker and Bassett 1978), in the unit of the price.

    Parameters
    ----------
    actual : array (…)
    quantiles : array (…, node)
    probabilities : array (node,)

    Returns
    -------
    array (…, node)
    """
    error = np.asarray(actual, dtype=np.float64)[..., None] - np.asarray(quantiles, dtype=np.float64)
    nodes = np.asarray(probabilities, dtype=np.float64)
    return np.asarray(np.maximum(nodes * error, (nodes - 1) * error), dtype=np.float64)


def crps_from_quantiles(actual: npt.ArrayLike, quantiles: npt.ArrayLike, probabilities: npt.ArrayLike) -> Floats:
    """Continuous ranked probability score, in the unit of the price: 2 Σ w pinball over a quantile grid.

    The score is twice the integral of the quantile loss over all probabilities (Gneiting and Raftery 2007, section
    4.2; Laio and Tamea 2007); `node_weights` says what each node stands for. The same grid must serve all forecasts
    that are compared: a coarse one scores somewhat off the integral, for all of them alike.

    Parameters
    ----------
    actual : array (…)
    quantiles : array (…, node)
    probabilities : array (node,)

    Returns
    -------
    array (…)
    """
    losses = pinball(actual, quantiles, probabilities)
    return np.asarray(2 * (losses * node_weights(probabilities)).sum(axis=-1), dtype=np.float64)


def covered(actual: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike) -> Floats:
    """1 where the outcome lies in the interval, bounds included, 0 where not, NaN where either is unknown."""
    y, lo, hi = (np.asarray(part, dtype=np.float64) for part in (actual, lower, upper))
    inside = ((y >= lo) & (y <= hi)).astype(np.float64)
    return np.where(np.isnan(y + lo + hi), np.nan, inside)


def width(lower: npt.ArrayLike, upper: npt.ArrayLike, scale: npt.ArrayLike = 1.0) -> Floats:
    """Width of the interval over a scale, such as the price at the origin."""
    span = np.asarray(upper, dtype=np.float64) - np.asarray(lower, dtype=np.float64)
    return np.asarray(span / np.asarray(scale), dtype=np.float64)


def winkler(actual: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike, level: float) -> Floats:
    """Interval score (Winkler 1972; Gneiting and Raftery 2007, eq. 43): width, and 2/α times what lies outside.

    ``level`` is the nominal coverage in per cent; α = 1 - level / 100.
    """
    y, lo, hi = (np.asarray(part, dtype=np.float64) for part in (actual, lower, upper))
    alpha = 1 - level / 100
    return (hi - lo) + 2 / alpha * (np.maximum(lo - y, 0) + np.maximum(y - hi, 0))


def smape(actual: npt.ArrayLike, point: npt.ArrayLike) -> float:
    """Mean of 200 |y - f| / (|y| + |f|), in per cent, as the M4 competition has it; 0 where both are 0."""
    y, f = np.asarray(actual, dtype=np.float64), np.asarray(point, dtype=np.float64)
    size = np.abs(y) + np.abs(f)
    return _mean(np.where(size == 0, 0.0, 200 * np.abs(y - f) / np.where(size == 0, 1.0, size)))


def mase(actual: npt.ArrayLike, point: npt.ArrayLike, history: npt.ArrayLike, season: int = 1) -> float:
    """Mean absolute error over that of the seasonal naive forecast inside the history (Hyndman and Koehler 2006).

    NaN where the history is no longer than a season or never changed over one: there is nothing to scale with.
    """
    past = np.asarray(history, dtype=np.float64)
    scale = _mean(np.abs(past[season:] - past[:-season]))
    error = _mean(np.abs(np.asarray(actual, dtype=np.float64) - np.asarray(point, dtype=np.float64)))
    return error / scale if scale > 0 else math.nan


def owa(
    smapes: npt.ArrayLike, mases: npt.ArrayLike, benchmark_smapes: npt.ArrayLike, benchmark_mases: npt.ArrayLike
) -> float:
    """Overall weighted average of the M4 competition (Makridakis et al. 2020): 1 is as good as its benchmark, Naive2.

    Arrays by series. Both measures are averaged over all series first, then divided by the benchmark's average.
    """
    means = [_mean(np.asarray(each, dtype=np.float64)) for each in (smapes, benchmark_smapes, mases, benchmark_mases)]
    return (means[0] / means[1] + means[2] / means[3]) / 2


# --------------------------------------------------------------------------- over all origins


@dataclass(frozen=True)
class Estimate:
    """A mean over origins with its standard error. ``origins`` counts those that were observed."""

    value: float
    error: float
    origins: int


def bias(actual: npt.ArrayLike, point: npt.ArrayLike, scale: npt.ArrayLike = 1.0, *, overlap: int = 0) -> Estimate:
    """Mean of (forecast - outcome) / scale over origins: above 0 the forecasts were too high."""
    error = np.asarray(point, dtype=np.float64) - np.asarray(actual, dtype=np.float64)
    error = error / np.asarray(scale)
    return Estimate(_mean(error), _cosines(error, overlap)[0], int((~np.isnan(error)).sum()))


def coverage(
    actual: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike, level: float, *, overlap: int = 0
) -> Estimate:
    """Share of outcomes inside the interval, over origins, as a fraction.

    The standard error is the binomial one at the nominal level, √(p (1 - p) / n), or, where intervals of neighbouring
    origins overlap and so hit and miss together, that of their dependence (by cosines) if it is larger.

    Parameters
    ----------
    actual, lower, upper : array (origin,)
    level : float
        Nominal coverage, per cent.
    overlap : int
        As in `overlapping`.
    """
    hits = covered(actual, lower, upper)
    seen, nominal = int((~np.isnan(hits)).sum()), level / 100
    if not seen:
        return Estimate(math.nan, math.nan, 0)
    binomial = math.sqrt(nominal * (1 - nominal) / seen)
    dependent = _cosines(hits, overlap)[0] if overlap else 0.0
    return Estimate(_mean(hits), max(binomial, dependent), seen)  # NaN with too few spans: max(b, NaN) is b


def overlapping(horizon: int, step: int = 1) -> int:
    """How many later origins have a forecast that overlaps that of one origin, with origins ``step`` periods apart."""
    return (horizon - 1) // step


def _autocovariances(values: Floats, overlap: int) -> tuple[float, float]:
    """Standard error of the mean as optimal h-step forecasts ask for, and its degrees of freedom.

    Autocovariances up to the overlap with equal weights (Diebold and Mariano 1995), where their sum is not above zero
    with Bartlett's, which never are below it (Newey and West 1987); corrected as Harvey, Leybourne and Newbold have it.
    """
    (n, centred), h = _centred(values), overlap + 1
    if n <= h:
        return math.nan, math.nan
    gamma = np.array([float(centred[k:] @ centred[: len(centred) - k]) / n for k in range(h)])
    variance = gamma[0] + 2 * gamma[1:].sum()
    if variance <= 1e-9 * gamma[0]:
        variance = max(gamma[0] + 2 * (gamma[1:] * (1 - np.arange(1, h) / h)).sum(), 0.0)
    return math.sqrt(variance / n * n / (n + 1 - 2 * h + h * (h - 1) / n)), n - 1


def _cosines(values: Floats, overlap: int) -> tuple[float, float]:
    """Standard error of the mean from its B slowest cosines, and its degrees of freedom, which are B.

    Lazarus, Lewis, Stock and Watson (2018), with their B = .4 n^(2/3), but no more than spans that do not overlap; and
    never under 4, which `enough` grants. Dependence may reach beyond the overlap: losses come in calm and wild years.
    """
    n, centred = _centred(values)
    if n < enough(overlap):
        return math.nan, math.nan
    terms = min(n // (overlap + 1), max(4, round(0.4 * n ** (2 / 3))))
    waves = np.cos(np.pi * np.outer(np.arange(1, terms + 1), (np.arange(len(centred)) + 0.5) / len(centred)))
    return math.sqrt(2 * float(((waves @ centred) ** 2).mean())) / n, terms


def _centred(values: Floats) -> tuple[int, Floats]:
    """How many values there are, and their distance from the mean, from the first to the last.

    An origin between them that was not observed keeps its place in time, with nothing in it.
    """
    seen = np.flatnonzero(~np.isnan(values))
    if not len(seen):
        return 0, np.array([])
    inner = values[seen[0] : seen[-1] + 1]
    return len(seen), np.where(np.isnan(inner), 0.0, inner - values[seen].mean())


@dataclass(frozen=True)
class EqualAccuracy:
    """A Diebold-Mariano test. A ``statistic`` below 0 speaks for the first of the two."""

    statistic: float
    p_value: float
    origins: int


def diebold_mariano(
    loss: npt.ArrayLike,
    benchmark_loss: npt.ArrayLike,
    *,
    overlap: int = 0,
    alternative: Alternative = "two-sided",
    variance: Variance = "autocovariances",
) -> EqualAccuracy:
    """Test whether two forecasts are equally accurate (Diebold and Mariano 1995).

    By default with the small-sample correction of Harvey, Leybourne and Newbold (1997): the statistic is multiplied by
    √((n + 1 - 2h + h (h - 1) / n) / n), h = overlap + 1, and compared with Student's t of n - 1 degrees.

    Parameters
    ----------
    loss, benchmark_loss : array (origin,)
        In order of time, evenly spaced; an origin that lacks either enters nothing.
    overlap : int
        Lags up to which losses are correlated because forecasts overlap: `overlapping`.
    alternative : {"two-sided", "less", "greater"}
        "less": the first has the smaller loss.
    variance : {"autocovariances", "cosines"}
        How the variance of the mean difference is had. Autocovariances reject too often where spans are few (at 5 %,
        simulated: 9 % with 120 origins that overlap 11 others, 13 % with 48); cosines, with Student's t of as many
        degrees, keep their size (5 % and 4 %; Coroneo and Iacone 2020). Records and decisions use them.

    Raises
    ------
    ForecastError
        With fewer than 8 origins, or fewer than 4 spans that do not overlap: no such test has its size there.

    Notes
    -----
    Where the model contains the benchmark and the benchmark is true, the test rejects less often than it says.
    """
    if alternative not in get_args(Alternative):
        raise ForecastError(f"alternative is one of {', '.join(get_args(Alternative))}, not {alternative!r}")
    if variance not in get_args(Variance):
        raise ForecastError(f"variance is one of {', '.join(get_args(Variance))}, not {variance!r}")
    difference = _pair(loss, benchmark_loss)
    n = int((~np.isnan(difference)).sum())
    if n < enough(overlap):
        raise ForecastError(f"a test with {overlap} overlapping origins needs {enough(overlap)} of them, not {n}")
    mean = _mean(difference)
    error, freedom = (_cosines if variance == "cosines" else _autocovariances)(difference, overlap)
    statistic = mean / error if error > 1e-12 * abs(mean) else math.inf * mean if mean else 0.0
    below, above = float(stdtr(freedom, statistic)), float(stdtr(freedom, -statistic))
    p = {"less": below, "greater": above, "two-sided": min(1.0, 2 * min(below, above))}[alternative]
    return EqualAccuracy(statistic, p, n)


def enough(overlap: int) -> int:
    """Fewest origins that a test or a standard error is given for: 8, and 4 spans that do not overlap."""
    return max(8, 4 * (overlap + 1))


def skill(loss: npt.ArrayLike, benchmark_loss: npt.ArrayLike, *, overlap: int = 0) -> Estimate:
    """How much smaller the loss is than the benchmark's, in per cent of it: 100 (1 - Σ loss / Σ benchmark loss).

    The standard error is that of a ratio of means (delta method), over origins that depend on each other, by cosines as
    in `diebold_mariano`: the two agree where skill is near 0. NaN below `enough` origins.

    Parameters
    ----------
    loss, benchmark_loss : array (origin,)
        In order of time, evenly spaced; an origin that lacks either enters nothing.
    overlap : int
        As in `overlapping`.
    """
    difference = _pair(loss, benchmark_loss)
    known = ~np.isnan(difference)
    a, b = np.asarray(loss, dtype=np.float64), np.asarray(benchmark_loss, dtype=np.float64)
    n = int(known.sum())
    if not n or not b[known].sum() > 0:
        return Estimate(math.nan, math.nan, n)
    ratio = float(a[known].sum() / b[known].sum())
    error = _cosines(a - ratio * b, overlap)[0] / float(b[known].mean())
    return Estimate(100 * (1 - ratio), 100 * error, n)


def _pair(loss: npt.ArrayLike, benchmark_loss: npt.ArrayLike) -> Floats:
    a, b = np.asarray(loss, dtype=np.float64), np.asarray(benchmark_loss, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ForecastError(f"losses of two forecasts are two rows of the same origins, not {a.shape} and {b.shape}")
    return a - b


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


# ------------------------------------------------------------------------------------ origins


@dataclass(frozen=True, eq=False)
class Origin:
    """What was known at one instant, and what came of it.

    Attributes
    ----------
    vintage : Timestamp
        The instant, UTC.
    series : Series, by period
        As known then, from the first to the last observed period; NaN where missing.
    outcome : Series, by horizon
        Of the horizons asked for; NaN where nothing has been observed yet.
    periods : Index
        The period of each horizon; shorter where the calendar ends.
    """

    vintage: pd.Timestamp
    series: pd.Series
    outcome: pd.Series
    periods: pd.Index


def rolling_origins(
    history: pd.DataFrame,
    origins: Iterable[Any],
    horizon: int,
    *,
    periods: pd.Index | None = None,
    outcome: Outcome = "first",
) -> Iterator[Origin]:
    """A series as it was known at each of some instants, with what was observed afterwards.

    Parameters
    ----------
    history : DataFrame, columns period, vintage, value
        Every value ever known, one row per period and vintage (the instant at which it became known; ISO text or
        time, naive times are UTC). NaN is a withdrawal.
    origins : iterable of instants
        Whatever was known at that instant, itself included, may be used; nothing later.
    horizon : int
    periods : Index, optional
        All periods in order, missing ones too, since a horizon counts periods; by default those of the history.
    outcome : {"first", "latest"}
        What a horizon is scored against: the value first published after the origin, or the latest.

    Yields
    ------
    Origin
        In order of time. Instants at which nothing was known are passed over.

    Raises
    ------
    ForecastError
        When a period has two values of one vintage, lies outside ``periods``, or these do not increase.
    """
    if outcome not in get_args(Outcome):
        raise ForecastError(f"the outcome is the first or the latest value, not {outcome!r}")
    calendar = pd.Index(history["period"].unique()).sort_values() if periods is None else pd.Index(periods)
    if not (calendar.is_monotonic_increasing and calendar.is_unique):
        raise ForecastError("the periods of a calendar increase, each once")
    rows = _rows(history, calendar)
    instants = _instants(origins).unique().sort_values()
    ends = np.searchsorted(rows.vintages, instants.asi8, side="right")
    latest, known, begun = rows.upto(len(rows.values)), np.full(len(calendar), np.nan), 0
    for instant, end in zip(instants, ends.tolist(), strict=True):
        known[rows.positions[begun:end]] = rows.values[begun:end]  # the rows are in order of time: the last one stays
        begun = end
        seen = np.flatnonzero(~np.isnan(known))
        if not len(seen):
            continue
        first, last = int(seen[0]), int(seen[-1])
        ahead = np.arange(last + 1, min(last + 1 + horizon, len(calendar)))
        result = np.full(horizon, np.nan)
        result[: len(ahead)] = (
            latest[ahead] if outcome == "latest" else [rows.first_after(p, end) for p in ahead.tolist()]
        )
        yield Origin(
            instant,
            pd.Series(known[first : last + 1].copy(), calendar[first : last + 1]),
            pd.Series(result, pd.RangeIndex(1, horizon + 1, name="horizon")),
            calendar[ahead],
        )


@dataclass(frozen=True, eq=False)
class _Rows:
    """The history in order of time; periods by their position in the calendar."""

    positions: npt.NDArray[np.int64]
    vintages: npt.NDArray[np.int64]
    values: Floats
    of_period: Mapping[int, npt.NDArray[np.int64]]
    size: int

    def upto(self, end: int) -> Floats:
        known = np.full(self.size, np.nan)
        known[self.positions[:end]] = self.values[:end]
        return known

    def first_after(self, position: int, end: int) -> float:
        """The first value of a period among the rows from ``end`` on."""
        later = self.of_period.get(position, np.array([], dtype=np.int64))
        values = self.values[later[later >= end]]
        values = values[~np.isnan(values)]
        return float(values[0]) if len(values) else math.nan


def _rows(history: pd.DataFrame, calendar: pd.Index) -> _Rows:
    positions = calendar.get_indexer(pd.Index(history["period"]))
    if (positions < 0).any():
        raise ForecastError(f"period {history['period'].iloc[int(np.argmin(positions))]!r} is not in the calendar")
    vintages = _instants(history["vintage"]).asi8
    order = np.lexsort((positions, vintages))
    positions, vintages = positions[order].astype(np.int64), vintages[order]
    twice = np.flatnonzero((np.diff(positions) == 0) & (np.diff(vintages) == 0))
    if len(twice):
        raise ForecastError(f"period {calendar[positions[twice[0]]]!r} has two values of one vintage")
    values = history["value"].to_numpy(np.float64)[order]
    by_period = np.argsort(positions, kind="stable")
    starts = np.flatnonzero(np.diff(positions[by_period], prepend=-1))
    groups = np.split(by_period, starts[1:]) if len(by_period) else []
    return _Rows(positions, vintages, values, {int(positions[g[0]]): g for g in groups}, len(calendar))


def _instants(values: Iterable[Any]) -> pd.DatetimeIndex:
    given = pd.Index(list(values))
    if len(given) and (pd.api.types.is_numeric_dtype(given) or given.hasnans):
        raise ForecastError("a vintage or origin is an instant, as ISO text or time; a number or a gap says nothing")
    try:
        return pd.DatetimeIndex(pd.to_datetime(given, utc=True, format="ISO8601")).as_unit("ns")
    except (ValueError, TypeError) as error:
        raise ForecastError(f"a vintage or origin is an instant, as ISO text or time: {error}") from error


# ------------------------------------------------------------------------------------- record


@dataclass(frozen=True, eq=False)
class Record:
    """How a model did against its benchmark over past origins.

    Attributes
    ----------
    by_horizon : DataFrame, horizon × figure
        ``origins``; ``skill`` and ``skill_error`` [per cent of the benchmark's CRPS]; ``p_value`` (Diebold-Mariano,
        one-sided: the model has the smaller CRPS); ``bias``, ``bias_error`` [of the scale], of the median; and for
        each level ``coverage-80``, ``coverage-80-error`` [fraction], ``width-80`` [of the scale]. NaN where there are
        too few origins.
    skill, test
        The same of the mean over all horizons, over origins of which all horizons were observed: what `decide` asks.
        ``test`` is None where there are too few.
    """

    by_horizon: pd.DataFrame
    skill: Estimate
    test: EqualAccuracy | None


def record(
    actual: npt.ArrayLike,
    model: npt.ArrayLike,
    benchmark: npt.ArrayLike,
    probabilities: Sequence[float],
    *,
    scale: npt.ArrayLike = 1.0,
    step: int = 1,
    levels: Sequence[float] = (80, 95),
) -> Record:
    """Measure a model against its benchmark by horizon.

    Parameters
    ----------
    actual : array, origin × horizon
        NaN where not observed. Origins in order of time, ``step`` periods apart; one without a forecast is a row of
        NaN, so that the others keep their distance.
    model, benchmark : array, origin × horizon × node
    probabilities : sequence (node,)
        Of the quantile grid. It contains the median and the bounds of each level.
    scale : array (origin,)
        What losses are divided by, such as the price at the origin: else the years of high prices decide alone.
    step : int
    levels : sequence
        Nominal coverage, per cent.

    Raises
    ------
    ForecastError
        When the shapes do not fit or the grid lacks a level.
    """
    y, q, q0 = (np.asarray(part, dtype=np.float64) for part in (actual, model, benchmark))
    if y.ndim != 2 or q.shape != q0.shape or q.shape != (*y.shape, len(probabilities)):
        raise ForecastError(f"outcomes {y.shape} (origin × horizon) and quantiles {q.shape}, {q0.shape} do not fit")
    unit = np.broadcast_to(np.asarray(scale, dtype=np.float64), len(y))
    if not (unit[~np.isnan(y).all(axis=1)] > 0).all():
        raise ForecastError("the scale of losses is above zero at every origin")
    nodes = {round(p, 6): k for k, p in enumerate(probabilities)}
    middle, bounds = _node(nodes, 0.5), {level: _bounds(nodes, level) for level in levels}
    loss, loss0 = (crps_from_quantiles(y, each, probabilities) / unit[:, None] for each in (q, q0))
    figures = []
    for h in range(y.shape[1]):
        lags = overlapping(h + 1, step)
        gain, test = skill(loss[:, h], loss0[:, h], overlap=lags), _better(loss[:, h], loss0[:, h], lags)
        off = bias(y[:, h], q[:, h, middle], unit, overlap=lags)
        row = {
            "origins": gain.origins, "skill": gain.value, "skill_error": gain.error,
            "p_value": test.p_value if test else math.nan, "bias": off.value, "bias_error": off.error,
        }  # fmt: skip
        for level, (low, high) in bounds.items():
            share = coverage(y[:, h], q[:, h, low], q[:, h, high], level, overlap=lags)
            wide = np.where(np.isnan(y[:, h]), np.nan, width(q[:, h, low], q[:, h, high], unit))
            row |= {f"coverage-{level}": share.value, f"coverage-{level}-error": share.error}
            row |= {f"width-{level}": _mean(wide)}
        figures.append(row)
    lags, mean, mean0 = overlapping(y.shape[1], step), loss.mean(axis=1), loss0.mean(axis=1)
    by_horizon = pd.DataFrame(figures, pd.RangeIndex(1, y.shape[1] + 1, name="horizon"))
    return Record(by_horizon, skill(mean, mean0, overlap=lags), _better(mean, mean0, lags))


def _better(loss: Floats, benchmark_loss: Floats, overlap: int) -> EqualAccuracy | None:
    if (~np.isnan(loss - benchmark_loss)).sum() < enough(overlap):
        return None
    return diebold_mariano(loss, benchmark_loss, overlap=overlap, alternative="less", variance="cosines")


def _node(nodes: Mapping[float, int], probability: float) -> int:
    try:
        return nodes[round(probability, 6)]
    except KeyError:
        raise ForecastError(f"the quantile grid has no node at {probability:g}") from None


def _bounds(nodes: Mapping[float, int], level: float) -> tuple[int, int]:
    return _node(nodes, (1 - level / 100) / 2), _node(nodes, (1 + level / 100) / 2)


# ----------------------------------------------------------------------------------- decision


@dataclass(frozen=True)
class Rules:
    """When a model replaces its benchmark. Fixed in the methodology before anything is measured.

    Attributes
    ----------
    enter, leave : float
        The model is published from a review with p < enter on, and withdrawn at a review with p > leave.
    origins : int
        Fewest origins, with all horizons observed, that a model may enter on.
    months : tuple of int
        Calendar months that begin with a review; in between nothing changes, whatever the figures say.
    """

    enter: float = 0.05
    leave: float = 0.2
    origins: int = 60
    months: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        if not 0 < self.enter <= self.leave < 1:
            raise ForecastError(f"0 < enter ≤ leave < 1, not enter {self.enter:g} and leave {self.leave:g}")
        if not self.months or not set(self.months) <= set(range(1, 13)):
            raise ForecastError(f"review months are calendar months 1 to 12, not {self.months}")


@dataclass(frozen=True)
class Decision:
    """What is published, since which review, and why. ``reviewed`` is the day of the last review, ISO."""

    published: Published
    since: str
    reviewed: str
    why: str


def decide(before: Decision | None, now: Record, rules: Rules, today: str) -> Decision:
    """Say whether the model or its benchmark is published from today on.

    A one-sided Diebold-Mariano test of the mean CRPS over all horizons, at levels fixed beforehand, at scheduled
    reviews only: "skill above zero" would pass half of all models that have none.

    Parameters
    ----------
    before : Decision, optional
        The last one. Without it the benchmark is published, and a review is held at once.
    now : Record
    rules : Rules
    today : str
        ISO date.
    """
    if before is not None and before.reviewed >= _review(today, rules.months):
        return before
    was: Published = before.published if before else "benchmark"
    test = now.test
    published: Published
    if test is None:
        published, why = "benchmark", f"too few origins for a test ({now.skill.origins})"
    else:
        p = f"p = {test.p_value:.3f} over {test.origins} origins"
        if was == "model":
            published = "benchmark" if test.p_value > rules.leave else "model"
            why = f"{p}; published until above {rules.leave:g}"
        elif test.origins < rules.origins:
            published, why = "benchmark", f"{test.origins} origins, fewer than {rules.origins}"
        else:
            published = "model" if test.p_value < rules.enter else "benchmark"
            why = f"{p}; published from below {rules.enter:g}"
    kept = before is not None and published == was
    return Decision(published, before.since if kept and before else today, today, why)


def _review(today: str, months: Sequence[int]) -> str:
    """First day of the latest month of review that has begun."""
    year, month = int(today[:4]), int(today[5:7])
    begun = [m for m in months if m <= month]
    return f"{year:04}-{max(begun):02}-01" if begun else f"{year - 1:04}-{max(months):02}-01"
