"""A monthly or quarterly average forecast from the daily closes that it will be the mean of.

The last close knows more of the next average than the last average does: of a random walk with D closes in a period and
variance v per close, the mean of the k-th period ahead lies about the last close with variance v ((k - 1) D + (D + 1)
(2 D + 1) / (6 D)), while the last average alone leaves .62 v D at k = 1. That is better information, not skill.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from forecasting.candidates import MEMORY, logs_are_safe
from forecasting.errors import ForecastError
from forecasting.intervals import Array, calibrated, student
from forecasting.variance import BURN_IN, Weighted

FULL = 0.75  # of its usual closes; with fewer the last close may be weeks before the end of the origin
MONTHS_OF_BASIS = 24  # over which an average is compared with the mean of the closes


def widths(horizon: int, days: float) -> Array:
    """Variance of the means of the next periods about the last close, in variances of one close: (horizon,)."""
    k = np.arange(1, horizon + 1)
    return np.asarray((k - 1) * days + (days + 1) * (2 * days + 1) / (6 * days))


def predict(averages: pd.Series, closes: pd.Series, horizon: int, probabilities: Sequence[float] | Array) -> Array:
    """Quantiles of the next averages.

    Parameters
    ----------
    averages : Series, by PeriodIndex
        The last one is the origin; NaN where missing.
    closes : Series, by day
        Text dates or DatetimeIndex, oldest first; NaN where missing. Closes after the origin are not looked at. They
        may differ from the averages by a steady factor (another delivery, another unit).
    horizon : int
        How many periods.
    probabilities : sequence of float
        Of the quantiles.

    Returns
    -------
    array (horizon, p), in the unit of the averages.

    Raises
    ------
    ForecastError
        Where prices come too near zero for logs, or the origin or most of the history lacks closes.
    """
    index = averages.index
    if not isinstance(index, pd.PeriodIndex):
        raise ForecastError("averages go by months or quarters: a PeriodIndex")
    stamps = pd.DatetimeIndex(closes.index).tz_localize(None)
    if not stamps.is_monotonic_increasing or np.isinf(closes.to_numpy(dtype=float)).any():
        raise ForecastError("closes are out of order, or one is infinite")
    days = stamps.to_period(index.freqstr)
    used = closes.notna().to_numpy() & (days <= index[-1])
    prices = closes.to_numpy(dtype=float)[used][-2 * MEMORY :]
    known = averages.dropna()
    if len(prices) < 2 or not (logs_are_safe(prices) and logs_are_safe(known.to_numpy(dtype=float))):
        raise ForecastError("closes or averages come too near zero, or there are none: forecast the averages alone")
    daily = pd.DataFrame({"close": np.log(prices), "price": prices}).groupby(days[used][-2 * MEMORY :])
    table = pd.DataFrame(
        {"last": daily["close"].last(), "mean": np.log(daily["price"].mean()), "closes": daily["close"].size()}
    ).reindex(index)
    table["average"] = np.log(averages.astype(float))
    both = table.dropna()
    if len(both) < 2 * BURN_IN or both.index[-1] != index[-1]:
        last = both.index[-1] if len(both) else "none"
        raise ForecastError(f"{len(both)} periods with closes, {2 * BURN_IN} needed; the last {last}, not {index[-1]}")
    usual = float(both["closes"].median())
    if both["closes"].iloc[-1] < FULL * usual:
        raise ForecastError(
            f"{both['closes'].iloc[-1]:.0f} closes in {index[-1]}, of {usual:.0f} usual: it is not whole"
        )
    table = table.loc[both.index[0] :]
    gap = (table["average"] - table["mean"]).rolling(MONTHS_OF_BASIS, min_periods=1).median()
    centre = (table["last"] + gap).to_numpy()
    average = table["average"].to_numpy()

    growth = widths(horizon, usual)
    errors = np.concatenate(([np.nan], average[1:] - centre[:-1]))
    spread = Weighted.fit(errors).spreads(errors)[:, None] * np.sqrt(growth / growth[0])
    scores = np.full((len(average), horizon), np.nan)
    for step in range(1, min(horizon, len(average) - 1) + 1):
        scores[:-step, step - 1] = (average[step:] - centre[:-step]) / spread[:-step, step - 1]
    p = np.asarray(probabilities, dtype=float)
    quantiles = calibrated(student(p), scores[BURN_IN:], p)
    return np.asarray(np.exp(centre[-1] + spread[-1][:, None] * quantiles))
