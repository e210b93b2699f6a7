import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecasting import ForecastError, forecast
from forecasting.candidates import BENCHMARK, CANDIDATES, DEFAULT
from forecasting.intervals import GRID


def series(n=120, seed=1, index=None):
    y = 100 * np.exp(np.cumsum(0.02 * np.random.default_rng(seed).standard_t(5, size=n)))
    return pd.Series(y, index=pd.period_range("2010-01", periods=n, freq="M") if index is None else index)


def numbers(f):
    return np.column_stack([f.mean, f.median, f.bounds, f.quantiles])


# moves of up to a factor of 20, and some of none
moves = st.lists(st.one_of(st.just(0.0), st.floats(-3, 3)), min_size=40, max_size=80)


@given(moves, st.floats(1e-6, 1e6), st.sampled_from(["close", "average"]))
@settings(max_examples=40, deadline=None)
def test_scaling_the_series_scales_the_forecast(moves, factor, kind):
    y = pd.Series(np.exp(np.clip(np.cumsum(moves), -20, 20)))
    one, other = forecast(y, 5, kind=kind), forecast(y * factor, 5, kind=kind)
    assert one.model == other.model
    np.testing.assert_allclose(numbers(other), numbers(one) * factor, rtol=1e-7, atol=1e-9 * factor * y.max())


@pytest.mark.parametrize("name", CANDIDATES)
def test_every_candidate_scales_and_is_ordered_nested_and_repeatable(name):
    y = series(80)
    f = forecast(y, 6, (50, 80, 95), model=name)
    np.testing.assert_allclose(numbers(forecast(y * 1024, 6, (50, 80, 95), model=name)), numbers(f) * 1024, rtol=1e-9)
    b = f.bounds
    ordered = pd.concat([b["lo-95"], b["lo-80"], b["lo-50"], f.median, b["hi-50"], b["hi-80"], b["hi-95"]], axis=1)
    assert (np.diff(ordered, axis=1) > 0).all() and np.isfinite(numbers(f)).all()
    assert (np.diff(f.quantiles, axis=1) > 0).all() and list(f.quantiles) == list(GRID)
    assert numbers(forecast(y, 6, (50, 80, 95), model=name)).tobytes() == numbers(f).tobytes()
    assert list(f.median.index) == [1, 2, 3, 4, 5, 6]


@given(
    st.lists(st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.floats(-10, 10), st.just(0.0)), max_size=60),
    st.sampled_from(["close", "average"]),
)
@settings(max_examples=80, deadline=None)
def test_any_input_gives_a_forecast_or_a_clear_error(values, kind):
    try:
        f = forecast(pd.Series(values, dtype=float), 4, kind=kind)
    except ForecastError as error:
        assert len(str(error)) > 20
        return
    assert np.isfinite(numbers(f)).all()
    assert (np.diff(f.quantiles, axis=1) >= 0).all()
    assert (f.bounds["lo-95"] <= f.bounds["lo-80"]).all() and (f.bounds["hi-80"] <= f.bounds["hi-95"]).all()


@pytest.mark.parametrize("kind", DEFAULT)
@pytest.mark.parametrize(
    "y",
    [
        np.r_[np.linspace(-3, 3, 59), 0],
        np.r_[np.full(30, 5.0), np.full(30, 6.0)],
        np.where(np.arange(60) % 3, 1.0 + np.arange(60), np.nan)[:59],
        np.r_[np.full(59, 1e-12), 1e12],
        1e300 * (1 + np.arange(60.0)),
        np.r_[np.linspace(90, 110, 50), np.zeros(10)],
    ],
    ids=["through zero", "one step", "every third missing", "a slip of units", "huge", "ends at zero"],
)
def test_odd_series_have_finite_forecasts(y, kind):
    f = forecast(pd.Series(y), 6, kind=kind)
    assert np.isfinite(numbers(f)).all()


def test_a_long_series_is_forecast_from_its_last_years():
    long = series(100_000, index=pd.RangeIndex(100_000))
    for kind in DEFAULT:
        f = forecast(long, 3, kind=kind)
        assert numbers(f).tobytes() == numbers(forecast(long[-2000:], 3, kind=kind)).tobytes()


# ------------------------------------------------------------------------------------------------------------ guards


def test_each_kind_has_its_benchmark_and_says_why_its_model():
    for kind, name in DEFAULT.items():
        f = forecast(series(), 2, kind=kind)
        assert (f.model, f.benchmark) == (name, BENCHMARK[kind]) and CANDIDATES[name].words in f.why
    assert forecast(series(), 2, model="theta").why.startswith("asked for")


def test_short_sticky_and_constant_series_get_the_random_walk():
    assert "only 30 observations" in forecast(series(30), 2, kind="general").why
    sticky = series().where(np.arange(120) % 3 == 0).ffill()
    f = forecast(sticky, 2, kind="average")
    assert f.model == "random-walk" and "sticky" in f.why
    still = forecast(pd.Series(np.full(50, 7.0)), 3)
    assert still.model == "random-walk" and "never changed" in still.why
    np.testing.assert_allclose(numbers(still), 7.0, rtol=1e-15)


def test_a_short_history_is_wider_than_a_long_one_of_the_same_moves():
    moves = np.where(np.arange(200) % 2, 0.02, -0.02)
    few, many = (forecast(pd.Series(np.exp(np.cumsum(moves[:n]))), 1, model="random-walk") for n in (6, 200))
    assert few.bounds["hi-95"][1] / few.median[1] > many.bounds["hi-95"][1] / many.median[1]


def test_prices_near_zero_are_not_logged():
    y = series()
    y.iloc[50] = 0.01
    assert forecast(y, 12).bounds["hi-95"].max() < 1000
    assert not CANDIDATES["random-walk"].fit(y.to_numpy()).scale.logs


def test_the_origin_is_the_last_observed_period_and_holes_in_months_are_missing_months():
    y = series()
    trailing = pd.concat([y, pd.Series(np.nan, index=pd.period_range("2020-01", periods=3, freq="M"))])
    assert forecast(trailing, 3).origin == forecast(y, 3).origin == "2019-12"
    assert numbers(forecast(trailing, 3)).tobytes() == numbers(forecast(y, 3)).tobytes()
    voided = y.where(np.arange(120) % 10 != 5)
    stamps = y.set_axis(y.index.to_timestamp())
    for holed in (voided.dropna(), voided.set_axis(y.index.astype(str)).dropna(), stamps[voided.notna().to_numpy()]):
        assert numbers(forecast(holed, 3)).tobytes() == numbers(forecast(voided, 3)).tobytes()


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([], "0 observations"),
        ([5.0], "1 observations"),
        ([1, 2, np.inf, 3, 4, 5], "2: infinite"),
        (["a"] * 9, "not numbers"),
        (pd.Series(range(6), index=list("abcdde")), "d: appears twice"),
        (pd.Series(range(6), index=["2024", "2025", "2026-01", "2026-02", "2026-03", "2026-04"]), "mix frequencies"),
        (pd.Series(range(6), index=[f"2024-0{m}" for m in (1, 2, 4, 3, 5, 6)]), "2024-03: appears twice or out of"),
    ],
)
def test_what_cannot_be_forecast_is_refused_with_the_reason(y, message):
    with pytest.raises(ForecastError, match=message):
        forecast(pd.Series(y), 3)


@pytest.mark.parametrize(
    "wrong", [{"horizon": 0}, {"levels": (80, 100)}, {"levels": ()}, {"kind": "weekly"}, {"model": "oracle"}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ForecastError):
        forecast(series(), **{"horizon": 3, **wrong})


@pytest.mark.parametrize("name", ["smoothing", "autoregression", "random-walk-garch", "closes-combined"])
def test_a_model_that_cannot_be_fitted_says_so(name):
    with pytest.raises(ForecastError, match="cannot be fitted"):
        forecast(pd.Series(np.full(6, 3.0)), 3, model=name)
