"""Shocks and errors on made series, whose truth is known."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing import anomalies
from pricing.anomalies import Alarms, Habit, Stream, judge

START = 730_000


def garch(rng, series, n, alpha=0.08, beta=0.9, freedom=5, sigma=0.015):
    """Log returns, n × series: GARCH(1,1) with Student t innovations."""
    shocks = rng.standard_t(freedom, (n, series)) * math.sqrt((freedom - 2) / freedom)
    variance, out = np.full(series, sigma**2), np.empty((n, series))
    for t in range(n):
        out[t] = np.sqrt(variance) * shocks[t]
        variance = sigma**2 * (1 - alpha - beta) + alpha * out[t] ** 2 + beta * variance
    return out


def calm(seed=1, n=400, sigma=0.01):
    """A price whose log returns are Gaussian: none of it is an event."""
    return 2000 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, sigma, n)))


def of(prices, frequency="daily", **settings):
    return judge(range(START, START + len(prices)), [float(p) for p in prices], frequency, **settings)


def first(verdicts, since=0):
    return next((v for v in verdicts[since:] if v.flagged), None)


def rows(verdicts):
    """Verdicts as text, so that NaN equals NaN."""
    return [repr(v) for v in verdicts]


# ------------------------------------------------------------------------------- known events


def test_a_calm_series_raises_nothing():
    assert not [v for v in of(calm()) if v.flagged]


@pytest.mark.parametrize(
    ("factor", "check"),
    [
        (10, "decimal"), (0.1, "decimal"), (100, "decimal"), (1e6, "decimal"), (1000, "unit-slip"), (1e-3, "unit-slip"),
        (2204.6226, "unit-slip"), (1 / 2204.6226, "unit-slip"), (2.2046226, "unit-slip"), (31.1034768, "unit-slip"),
        (1 / 31.1034768, "unit-slip"), (32150.7466, "unit-slip"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("length", [1, 3, 15])
def test_a_slip_of_the_unit_is_named_undone_and_never_becomes_the_past(factor, check, length):
    prices = calm()
    prices[300 : 300 + length] *= factor
    verdicts = of(prices)
    slipped = verdicts[300 : 300 + length]
    assert {(v.kind, v.check) for v in slipped} == {("data", check)}
    assert {v.onset for v in slipped} == {START + 300}
    assert all(v.undone == pytest.approx(v.value / factor) for v in slipped)
    assert not [v for v in verdicts[300 + length :] if v.flagged]
    assert rows(verdicts[300 + length :])[0] == rows(of(np.delete(prices, range(300, 300 + length))))[300].replace(
        f"day={START + 300}", f"day={START + 300 + length}"
    ).replace(f"onset={START + 300}", f"onset={START + 300 + length}")


def test_a_unit_changed_for_good_is_accepted_in_the_end():
    prices = calm()
    prices[300:] *= 1000
    verdicts = of(prices)
    confirmed = 300 + anomalies.CONFIRMED["daily"]
    assert all(v.check == "unit-slip" for v in verdicts[300:confirmed])
    assert not [v for v in verdicts[confirmed:] if v.flagged]


def test_a_price_never_above_zero_is_a_sign_and_nothing_else():
    prices = calm()
    prices[300] *= -1
    prices[310] = 0
    verdicts = of(prices)
    assert (verdicts[300].check, verdicts[300].undone) == ("sign", -prices[300])
    assert (verdicts[310].check, verdicts[310].undone) == ("sign", None)
    assert sum(v.flagged for v in verdicts) == 2


def test_a_second_value_of_one_period_is_a_duplicate_and_changes_nothing():
    prices, days = calm().tolist(), list(range(START, START + 400))
    twice = judge([*days[:301], days[300], *days[301:]], [*prices[:301], prices[300] * 1.01, *prices[301:]], "daily")
    assert twice[301].check == "duplicate"
    del twice[301]
    assert rows(twice) == rows(of(prices))


@pytest.mark.parametrize(("frequency", "block"), [("daily", 8), ("weekly", 6), ("monthly", 4)])
def test_a_replayed_block_is_found_before_it_ends(frequency, block):
    prices = calm(3, 200).round(1)
    prices[150 : 150 + block] = prices[140 : 140 + block]
    found = [v for v in of(prices, frequency)[150 : 150 + block] if v.check == "replay"]
    assert found and found[0].kind == "data" and found[0].evidence["lag"] == 10


def test_a_stale_run_is_judged_by_the_habit_of_the_series():
    prices = calm(4)
    prices[300:306] = prices[299]
    found = first(of(prices))
    assert (found.check, found.kind, found.onset) == ("stale", "data", START + 300)
    assert found.evidence["repeats"] <= 5

    rng = np.random.default_rng(4)  # a price assessed weekly or so stands still for as long as that
    assessed = calm(4)[np.maximum.accumulate(np.where(rng.random(400) < 0.2, np.arange(400), 0))]
    assessed[300:306] = assessed[299]
    assert not [v for v in of(assessed)[100:] if v.check == "stale"]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("frequency", ["daily", "weekly", "monthly"])
def test_a_jump_is_a_spike_and_a_level_shift_once_it_stayed(sign, frequency):
    prices = calm()
    prices[300:] *= math.exp(sign * 0.08)
    verdicts = of(prices, frequency)
    jump, later = verdicts[300], verdicts[302]
    assert (jump.kind, jump.check, jump.p_value) == ("market", "spike", None)
    assert jump.sigmas == pytest.approx(sign * 8, rel=0.3) and jump.expected == pytest.approx(prices[299])
    assert (later.check, later.onset) == ("level-shift", START + 300) and later.evidence["kept"] > 0.5

    prices[301:] *= math.exp(-sign * 0.08)
    assert not [v for v in of(prices, frequency) if v.check == "level-shift" and v.onset == START + 300]


def test_a_burst_of_volatility_is_found_where_no_day_of_it_is_a_spike():
    returns = np.random.default_rng(6).normal(0, 0.01, 400)
    returns[300:320] = 0.025 * np.where(np.arange(20) % 3 == 0, 1, -1)
    found = first(of(2000 * np.exp(np.cumsum(returns))), 300)
    assert (found.kind, found.check) == ("market", "volatility")
    assert 300 <= found.day - START < 320 and found.day - found.onset == anomalies.VOLATILITY_WINDOW - 1


@pytest.mark.parametrize("sign", [1, -1])
def test_a_trend_break_is_found_though_no_day_of_it_is_rare(sign):
    rng = np.random.default_rng(7)
    returns = rng.normal(0, 0.01, 400)
    returns[300:] += sign * 0.01
    found = first(of(2000 * np.exp(np.cumsum(returns))), 300)
    assert (found.kind, found.check) == ("market", "trend") and found.day - START < 340


def test_a_market_that_moves_by_half_in_a_day_is_no_error():
    """London nickel rose by two thirds on one day of March 2022."""
    prices = calm(8, 400, 0.02)
    prices[300:] *= 1.66
    assert of(prices)[300].kind == "market"


def test_premiums_below_zero_are_judged_by_differences():
    premium = np.cumsum(np.random.default_rng(9).normal(0, 1.0, 400))
    premium[300:] += 12
    verdicts = of(premium, linear=True)
    assert [v.day - START for v in verdicts if v.flagged] == [300, 302]
    assert verdicts[300].change == pytest.approx(premium[300] - premium[299])
    assert verdicts[300].expected == premium[299]


# --------------------------------------------------------------------------- against other truth


def test_the_scales_are_the_moving_averages_of_squares_that_pandas_computes():
    returns = np.random.default_rng(10).uniform(-0.01, 0.01, 300)  # bounded: nothing is cut
    stream = Stream("daily")
    for t, price in enumerate(100 * np.exp(np.cumsum(np.concatenate([[0.0], returns])))):
        stream.update(START + t, float(price))
    first_moves = np.abs(returns[: anomalies.FIRST])
    seed = (1.4826 * np.sort(first_moves)[anomalies.FIRST // 2]) ** 2
    squares = pd.Series([seed, *returns[anomalies.FIRST :] ** 2])
    fast = squares.ewm(alpha=anomalies.FAST, adjust=False).mean().iloc[-1]
    assert stream.fast == pytest.approx(fast, rel=1e-9)
    # A mean with weights 1/n is the mean: the seed counts as the moves it was made from.
    slow = (anomalies.FIRST * seed + (returns[anomalies.FIRST :] ** 2).sum()) / len(returns)
    assert stream.slow == pytest.approx(slow, rel=1e-9)
    assert stream.sigma() == pytest.approx((fast * slow) ** 0.25)


def test_scores_are_the_statistics_on_their_curves():
    prices = calm(11)
    stream = Stream("daily")
    for t in range(300):
        stream.update(START + t, float(prices[t]))
    verdict = stream.update(START + 300, float(prices[300]))
    windows = {"volatility": np.mean(stream.sizes) / stream.scales[0], "trend": abs(np.sum(stream.signed)) / 22**0.5}
    windows["spike"] = abs(verdict.sigmas)
    for name, statistic in windows.items():
        a, b = anomalies.CURVES[name]
        rate = math.exp(-a) * statistic**-b
        expected = math.log(rate) / math.log(getattr(Alarms(), name) / 252)
        assert verdict.scores[name] == pytest.approx(max(0.0, expected))


def test_false_alarms_on_simulated_markets_are_those_asked_for():
    """Volatility clusters and tails are thick. Monte Carlo: 250 alarms or so, so a sixth either way is chance."""
    returns = garch(np.random.default_rng(12), 60, 1150)
    wanted = Alarms(spike=1.0, volatility=1.0, trend=1.0)
    counts, years = dict.fromkeys(("spike", "volatility", "trend"), 0), 0.0
    for column in returns.T:
        verdicts = of(1000 * np.exp(np.cumsum(column)), alarms=wanted)[150:]
        years += len(verdicts) / 252
        for name in counts:
            days = np.array([v.day for v in verdicts if v.scores.get(name, 0) > 1])
            counts[name] += int((np.diff(days, prepend=-99) > 5).sum())
    for name, count in counts.items():
        assert 0.7 < count / years < 1.3, name


def test_more_alarms_are_raised_where_more_are_asked_for():
    prices = 1000 * np.exp(np.cumsum(garch(np.random.default_rng(13), 1, 1500)[:, 0]))
    few, many = (sum(v.flagged for v in of(prices, alarms=Alarms(spike=wanted))) for wanted in (0.1, 6.0))
    assert few < many


def test_a_habit_is_the_frequency_of_starting_and_going_on():
    habit, runs = Habit(1, 2, 1, 2), [0, 1, 1, 0, 0, 1, 0]
    length = 0
    for same in runs:
        habit.learn(length, bool(same))
        length = length + 1 if same else 0
    # four chances to start, two taken; three steps within runs, one gone on
    assert habit.log_probability(3) == pytest.approx(math.log(3 / 6 * (2 / 5) ** 2))


@pytest.mark.parametrize("wanted", [0.0, -1.0, 13.0, math.nan])
def test_a_budget_that_is_no_rate_is_refused(wanted):
    with pytest.raises(ValueError, match="alarms.trend"):
        Alarms(trend=wanted)


def test_a_frequency_without_periods_a_year_is_refused():
    with pytest.raises(ValueError, match="use one of daily, weekly"):
        Stream("D")


# ------------------------------------------------------------------------------------ properties

eventful = st.builds(
    lambda seed, at, factor, still: _with_events(seed, at, factor, still),
    st.integers(0, 10_000),
    st.integers(60, 200),
    st.sampled_from([1.0, 1000.0, 0.1, 1.12, 0.9, -1.0, math.nan, math.inf, 0.0]),
    st.integers(0, 12),
)


def _with_events(seed, at, factor, still):
    rng = np.random.default_rng(seed)
    prices = (50 * np.exp(np.cumsum(garch(rng, 1, 240, sigma=0.02)[:, 0]))).round(int(rng.integers(0, 5)))
    prices[at : at + int(rng.integers(1, 30))] *= factor
    prices[at + 5 : at + 5 + still] = prices[at + 4]
    return prices


@settings(max_examples=25)
@given(eventful, st.integers(-30, 30))
def test_the_unit_does_not_matter(prices, power):
    plain, scaled = of(prices), of(prices * 2.0**power)
    assert [(v.check, v.flagged) for v in plain] == [(v.check, v.flagged) for v in scaled]
    assert [v.score for v in plain] == pytest.approx([v.score for v in scaled], abs=1e-6)


@settings(max_examples=25)
@given(eventful, st.lists(st.integers(0, 240), max_size=4))
def test_a_stream_restored_from_its_state_goes_on_to_the_last_bit(prices, cuts):
    stream, found = Stream("daily"), []
    for t, price in enumerate(prices.tolist()):
        if t in cuts:
            stream = Stream.from_state(json.loads(json.dumps(stream.state(), allow_nan=False)))
        found.append(stream.update(START + t, price))
    assert rows(found) == rows(of(prices))


@settings(max_examples=25)
@given(eventful, st.integers(1, 239))
def test_what_comes_later_changes_no_verdict(prices, cut):
    assert rows(of(prices)[:cut]) == rows(of(prices[:cut]))


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from([1.0, 1e300, 1e-300, -1e300, 0.0, 5e-324, math.nan, math.inf, 2.0, 1e3]), max_size=300),
    st.booleans(),
    st.sampled_from(list(anomalies.PERIODS_A_YEAR)),
)
def test_any_input_gets_a_verdict(values, linear, frequency):
    stream = Stream(frequency, linear=linear)
    for t, value in enumerate(values):
        verdict = stream.update(START + t, value)
        assert math.isfinite(verdict.score) and (not verdict.flagged or verdict.kind)
    json.dumps(stream.state(), allow_nan=False)


@pytest.mark.parametrize(
    "values",
    [
        [5.0] * 1000,
        [5.0, 6.0] * 500,
        [1.0, 1000.0] * 500,
        [1e-300, 1e300] * 500,
        [1.0, 2.0, 3.0] * 333,
        [math.nan] * 1000,
        [math.inf, 5.0] * 500,
        np.geomspace(1e-5, 1e5, 1000).tolist(),
        ([5.0] * 99 + [5.1]) * 10,
    ],
    ids=["constant", "alternating", "kg and t", "extreme", "cycle", "missing", "infinite", "growth", "rarely moving"],
)
def test_strange_series_do_not_flood(values):
    assert sum(v.flagged for v in of(values)[500:]) <= 10


def test_the_memory_is_bounded():
    stream = Stream("daily")
    sizes = []
    for t, price in enumerate(calm(14, 3000).tolist()):
        stream.update(START + t, price)
        sizes.append(len(json.dumps(stream.state())))
    assert max(sizes[2000:]) < 1.05 * max(sizes[500:1000])
