import numpy as np
import pandas as pd
import pytest

from forecasting import ForecastError, closes, forecast
from forecasting.forecaster import DAILY_CLOSES

P = (0.025, 0.1, 0.5, 0.9, 0.975)
DAYS = pd.bdate_range("2010-01-01", "2019-12-31")


def market(seed=1, sd=0.01, factor=1.0):
    """Daily closes of a random walk, and their monthly averages in a unit of their own."""
    close = pd.Series(100 * np.exp(np.cumsum(sd * np.random.default_rng(seed).normal(size=len(DAYS)))), index=DAYS)
    return close, factor * close.groupby(DAYS.to_period("M")).mean()


def test_the_width_of_an_average_is_that_of_a_simulated_walk():
    moves = np.random.default_rng(2).normal(size=(20_000, 3 * 21)).cumsum(axis=1)
    simulated = moves.reshape(-1, 3, 21).mean(axis=2).var(axis=0)
    np.testing.assert_allclose(closes.widths(3, 21), simulated, rtol=0.04)  # four standard errors of a variance


def test_the_centre_is_the_last_close_in_the_unit_of_the_averages():
    close, average = market(factor=2.2046)
    quantiles = closes.predict(average, close, 3, P)
    np.testing.assert_allclose(quantiles[:, 2], 2.2046 * close.iloc[-1], rtol=1e-9)
    np.testing.assert_allclose(closes.predict(average, close * 7, 3, P), quantiles, rtol=1e-9)


def test_nothing_after_the_origin_is_looked_at():
    close, average = market()
    early = closes.predict(average[:90], close, 3, P)
    np.testing.assert_array_equal(early, closes.predict(average[:90], close[: average.index[89].end_time], 3, P))


def test_closes_cover_what_they_promise_and_beat_the_averages_alone():
    inside, ratio = [], []
    for seed in range(60):
        close, average = market(seed)
        for n in (80, 100, 117):
            q, actual = closes.predict(average[:n], close, 3, P), average.to_numpy()[n : n + 3]
            inside.append([((actual >= q[:, i]) & (actual <= q[:, -1 - i])).mean() for i in (1, 0)])
        alone = forecast(average[:n], 1, kind="average").bounds
        ratio.append((q[0, 3] - q[0, 1]) / (alone["hi-80"][1] - alone["lo-80"][1]))
    error = np.std(inside, axis=0) / np.sqrt(len(inside))
    assert (np.abs(np.mean(inside, axis=0) - [0.8, 0.95]) <= 3 * error + 0.02).all()
    # closed form: sqrt of (D+1)(2D+1)/(6D) over the innovation variance D(2/3)/(1 + theta^2) of the averages
    assert np.mean(ratio) == pytest.approx(
        np.sqrt(22 * 43 / (6 * 21) / (21 * 2 / 3 / (1 + (2 - 3**0.5) ** 2))), rel=0.03
    )


def test_where_closes_do_not_serve_the_averages_are_forecast_alone_and_it_says_so():
    close, average = market()
    assert forecast(average, 3, kind="average", closes=close).model == DAILY_CLOSES
    ended = forecast(average, 3, kind="average", closes=close[:"2019-11"])
    assert ended.model == "averaged-walk-weighted" and "the last 2019-11" in ended.why
    pd.testing.assert_frame_equal(ended.bounds, forecast(average, 3, kind="average").bounds)
    begun = forecast(average, 3, kind="average", closes=close[:"2019-12-10"])
    assert begun.model == "averaged-walk-weighted" and "not whole" in begun.why
    assert "out of order" in forecast(average, 3, kind="average", closes=close[::-1]).why
    assert "zero" in forecast(average, 3, kind="average", closes=close - close.mean()).why
    for wrong in ({"kind": "close"}, {"kind": "average", "model": "arima"}):
        with pytest.raises(ForecastError, match="averages only"):
            forecast(average, 3, closes=close, **wrong)
