"""One series in, one density forecast out, with the guards that keep a model from what it cannot do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pandas as pd

from forecasting import closes as daily
from forecasting.candidates import BENCHMARK, CANDIDATES, DEFAULT, Kind
from forecasting.errors import ForecastError
from forecasting.intervals import GRID, Array, mean_of

SHORTEST = 5  # observations; fewer say nothing of a spread
SHORT = 36  # observations; below it only the random walk is used
DAILY_CLOSES = "daily-closes"  # the model's name where an average is forecast from closes
STICKY = 0.25  # share of changes that are zero, among …
RECENT = 120  # … the latest: nickel was a producer's list price once, and is none now


@dataclass(frozen=True)
class Forecast:
    """What is expected of the periods after the last observed one.

    Attributes
    ----------
    origin : str
        The last observed period.
    mean, median : Series, by horizon from 1
        In the unit of the observations; the mean between the .005 and .995 quantiles.
    bounds : DataFrame, by horizon
        ``lo-80 hi-80 lo-95 hi-95`` …
    quantiles : DataFrame, by horizon
        Columns are the probabilities of ``intervals.GRID``.
    model, why : str
        The candidate and, in words, why it.
    benchmark : str
        The candidate that a model of this kind of series is measured against.
    """

    origin: str
    mean: pd.Series
    median: pd.Series
    bounds: pd.DataFrame
    quantiles: pd.DataFrame
    model: str
    why: str
    benchmark: str


def forecast(
    y: pd.Series,
    horizon: int,
    levels: Sequence[float] = (80, 95),
    *,
    kind: Kind = "close",
    model: str | None = None,
    closes: pd.Series | None = None,
) -> Forecast:
    """Forecast a series from its own past.

    Parameters
    ----------
    y : Series, by period
        Oldest first; text labels, PeriodIndex or DatetimeIndex. NaN where missing or voided. Months and quarters that
        are left out are missing too.
    horizon : int
        How many periods; horizon 1 is the first unobserved period.
    levels : sequence of float
        Of the bounds, in percent.
    kind : ``close``, ``average`` or ``general``
        A price at an instant, a mean over each period, or a series that may trend and have a season.
    model : str
        A name in ``candidates.CANDIDATES``; without it the published default of the kind, or what a guard puts in its
        place.
    closes : Series, by day
        Daily closes of what ``y`` is the monthly or quarterly average of: where they serve, the average is forecast
        from the last close before the end of the origin. Only with ``kind="average"`` and no ``model``.

    Raises
    ------
    ForecastError
        Where the input cannot be forecast; the message says why.
    """
    if kind not in get_args(Kind):
        raise ForecastError(f"kind is {kind!r}; it is one of {', '.join(get_args(Kind))}")
    if model is not None and model not in CANDIDATES:
        raise ForecastError(f"model is {model!r}; it is one of {', '.join(CANDIDATES)}")
    if horizon < 1:
        raise ForecastError(f"horizon is {horizon}; the first unobserved period is 1")
    if not levels or not all(0 < level < 100 for level in levels):
        raise ForecastError(f"levels are {list(levels)}; they are per cent, between 0 and 100")
    observed = observations(y)
    values = observed.to_numpy(dtype=float)
    origin = str(observed.index[-1])
    known = values[~np.isnan(values)]
    name, why = chosen(known, kind) if model is None else (model, f"asked for: {CANDIDATES[model].words}")
    if closes is not None and (kind != "average" or model is not None or season_of(observed.index) == 1):
        raise ForecastError(
            "closes serve monthly or quarterly averages only: kind='average', no model, and such periods"
        )

    tails = [(50 - level / 2) / 100 for level in levels]
    probabilities = np.unique(np.round([*GRID, *tails, *(1 - t for t in tails)], 12))
    predicted = None
    if closes is not None and name == DEFAULT["average"]:
        try:
            predicted = daily.predict(observed, closes, horizon, probabilities)
            name, why = (
                DAILY_CLOSES,
                "the daily closes before the end of the origin are known, and say more than averages",
            )
        except ForecastError as error:
            why = f"{why}; its daily closes do not serve: {error}"
    if predicted is None:
        predicted = CANDIDATES[name].fit(values, season_of(observed.index)).predict(horizon, probabilities)

    steps = pd.RangeIndex(1, horizon + 1, name="horizon")
    frame = pd.DataFrame(predicted, index=steps, columns=probabilities)
    bounds = pd.DataFrame(index=steps)
    for level, tail in zip(levels, tails, strict=True):
        bounds[f"lo-{level:g}"] = frame[round(tail, 12)]
        bounds[f"hi-{level:g}"] = frame[round(1 - tail, 12)]
    quantiles = frame[list(GRID)]
    mean = pd.Series(mean_of(quantiles.to_numpy(), GRID), index=steps)
    return Forecast(origin, mean, quantiles[0.5], bounds, quantiles, name, why, BENCHMARK[kind])


def observations(y: pd.Series) -> pd.Series:
    """The series from its first to its last observed period, checked, with a row for every month or quarter between."""
    try:
        values = y.astype(float)
    except (TypeError, ValueError) as error:
        raise ForecastError(f"observations are not numbers: {error}") from error
    if np.isinf(values).any():
        raise ForecastError(f"{values.index[np.isinf(values)][0]}: infinite; a missing observation is NaN")
    values = _regular(values)
    known = np.flatnonzero(values.notna())
    if len(known) < SHORTEST:
        raise ForecastError(f"{len(known)} observations; at least {SHORTEST} are needed to say how far prices move")
    return values.iloc[known[0] : known[-1] + 1]


def chosen(known: Array, kind: Kind) -> tuple[str, str]:
    """The model of a series without its missing observations, and why."""
    still = float((np.diff(known) == 0).mean())
    if still == 1:
        return "random-walk", "never changed: the bounds lie on the price and say nothing of what a change would be"
    if len(known) < SHORT:
        return "random-walk", f"only {len(known)} observations: below {SHORT} nothing but the random walk is used"
    lately = float((np.diff(known[-RECENT - 1 :]) == 0).mean())
    if lately > STICKY:
        return "random-walk", f"sticky: {lately:.0%} of its latest changes are zero, so they say little of the next"
    name = DEFAULT[kind]
    return name, f"the default for this kind of series: {CANDIDATES[name].words}"


def season_of(index: pd.Index) -> int:
    """Periods in a year where the index says months or quarters, else 1."""
    label = index.freqstr if isinstance(index, pd.PeriodIndex) else ""
    return {"M": 12, "Q": 4}.get(label[:1], 1)


_LABELS = {"M": re.compile(r"\d{4}-\d\d"), "Q": re.compile(r"\d{4}-?Q[1-4]")}


def _regular(y: pd.Series) -> pd.Series:
    """Months and quarters as a PeriodIndex without holes, other indices as they are; sorted and unique, or refused.

    Raises ForecastError where a period is out of order or appears twice, or text labels mix frequencies.
    """
    index = y.index
    if isinstance(index, pd.DatetimeIndex) and len(index) > 2:
        days = float(np.median(np.diff(index.to_numpy()) / np.timedelta64(1, "D")))
        frequency = "M" if 27 < days < 32 else "Q" if 88 < days < 93 else ""
        index = index.tz_localize(None).to_period(frequency) if frequency else index
    elif len(index) and all(isinstance(label, str) for label in index):
        if len({len(label) for label in index}) > 1:
            raise ForecastError(f"periods mix frequencies: {min(index, key=len)} and {max(index, key=len)}")
        frequency = next((f for f, form in _LABELS.items() if all(form.fullmatch(label) for label in index)), "")
        index = pd.PeriodIndex([label.replace("-Q", "Q") for label in index], freq=frequency) if frequency else index
    if not index.is_unique or not index.is_monotonic_increasing:
        order = pd.Series(index)
        at = order.index[order.duplicated() | (order < order.cummax() if not order.empty else False)][0]
        raise ForecastError(f"{index[at]}: appears twice or out of order; periods go from the oldest to the newest")
    regular = y.set_axis(index)
    if isinstance(index, pd.PeriodIndex) and len(index) and season_of(index) > 1:
        regular = regular.reindex(pd.period_range(index[0], index[-1], freq=index.freq))
    return regular
