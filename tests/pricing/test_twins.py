"""Analytical twins beside an index: computed again here from their definitions, month by month."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.config import TwinRules
from pricing.errors import MethodError
from pricing.index import Link, fixed_basket
from pricing.twins import risk_link, twins, volatility

NAN = math.nan
RULES = TwinRules(risk_months=36, min_changes=24, geks_window=25)
NAMES = ("unweighted", "equal_risk", "superlative")


def months(count: int, first: str = "2020-01") -> list[str]:
    return [str(p) for p in pd.period_range(first, periods=count, freq="M")]


def walk(rng: np.random.Generator, count: int = 80, markets: int = 4, gaps: float = 0.0) -> pd.DataFrame:
    sigma = rng.uniform(0.01, 0.2, markets)
    values = rng.uniform(1, 1e5, markets) * np.exp(np.cumsum(rng.normal(0, sigma, (count, markets)), axis=0))
    values[:, 1:][rng.random(values[:, 1:].shape) < gaps] = np.nan  # a always trades, so any two months compare
    prices = pd.DataFrame(values, index=months(count), columns=list("abcdef"[:markets]))
    return prices.where(prices.notna() | ~prices.index.str.endswith("-03")[:, None], 50.0)  # a link needs a price


def link(month: str, **shares: float) -> Link:
    return Link(month, shares, shares)


def links(rng: np.random.Generator, prices: pd.DataFrame) -> list[Link]:
    out = []
    for month in ("2023-03", "2024-03", "2025-03", "2026-03"):
        raw = rng.uniform(0.1, 1, prices.shape[1])
        out.append(link(month, **dict(zip(prices.columns, (raw / raw.sum()).tolist(), strict=True))))
    return out


def made(prices: pd.DataFrame, at: list[Link], base: str = "2023", cap: float = 0.6, least: float = 0.0):
    index = fixed_basket(prices, at, base, least)
    return index, twins(prices, index, base, cap, least, RULES)


def level(twin) -> pd.Series:
    assert not twin.withheld
    return twin.frame["unrounded"]


rngs = st.integers(0, 2**32 - 1).map(np.random.default_rng)


# ------------------------------------------------------------------------------------- identities


@settings(max_examples=25, deadline=None)
@given(rngs)
def test_where_all_prices_move_alike_all_twins_are_the_index_and_nothing_drifts(rng):
    common = np.exp(np.cumsum(rng.normal(0, 0.1, 80)))
    prices = pd.DataFrame({m: common * rng.uniform(1, 1e4) for m in "abc"}, index=months(80))
    index, beside = made(prices, links(rng, prices))
    for name in NAMES:
        twin = level(getattr(beside, name)).dropna()
        assert len(twin) >= 44
        assert np.allclose(twin, index.frame["unrounded"][twin.index], rtol=1e-11, atol=0)
    assert beside.drift.abs().max() < 1e-9


@settings(max_examples=25, deadline=None)
@given(rngs, st.floats(1e-6, 1e6))
def test_the_unit_of_one_input_does_not_matter(rng, factor):
    prices = walk(rng, gaps=0.1)
    at = links(rng, prices)
    (_, plain), (_, other) = (made(p, at) for p in (prices, prices.assign(b=prices["b"] * factor)))
    for name in NAMES:
        assert np.allclose(level(getattr(plain, name)), level(getattr(other, name)), rtol=1e-9, atol=0, equal_nan=True)
    # a drift is a ratio of two levels less one: its error is that of the ratio, which may be of any size
    ratios = (100 + plain.drift, 100 + other.drift)
    assert np.allclose(*ratios, rtol=1e-9, atol=0, equal_nan=True)


@settings(max_examples=25, deadline=None)
@given(rngs)
def test_the_mean_of_the_base_period_is_a_hundred_in_every_twin(rng):
    prices = walk(rng)
    _, beside = made(prices, links(rng, prices))
    for name in NAMES:
        of_base = level(getattr(beside, name)).loc["2023-01":"2023-12"]
        assert len(of_base) == 12 and of_base.mean() == pytest.approx(100, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(rngs)
def test_the_quantities_of_an_index_cost_its_level_in_every_month_from_the_first_link(rng):
    prices = walk(rng)
    index, _ = made(prices, links(rng, prices))
    cost = (index.quantities * prices).sum(axis=1)
    assert np.allclose(cost["2023-03":], index.frame["unrounded"]["2023-03":], rtol=1e-12, atol=0)


# ------------------------------------------------------------------------------------- unweighted


@settings(max_examples=25, deadline=None)
@given(rngs)
def test_on_complete_prices_the_unweighted_twin_is_the_geometric_mean_of_the_markets_in_the_basket(rng):
    prices = walk(rng)
    first, second = links(rng, prices)[:2]
    second = link(second.month, **dict.fromkeys("abc", 1 / 3))  # d leaves in March 2024
    _, beside = made(prices, [first, second])
    logs = np.log(prices)
    expected = logs.mean(axis=1)
    expected[expected.index > "2024-03"] = (
        logs[list("abc")].mean(axis=1) + logs.loc["2024-03"].mean() - logs.loc["2024-03", list("abc")].mean()
    )
    expected = np.exp(expected)
    expected *= 100 / expected["2023-01":"2023-12"].mean()
    assert np.allclose(level(beside.unweighted), expected, rtol=1e-11, atol=0)


def test_a_gap_leaves_the_month_to_the_own_prices_and_is_caught_up_when_the_price_returns():
    prices = pd.DataFrame({"a": [10.0, 20, 20, 20], "b": [10.0, NAN, NAN, 40], "c": [1.0, 2, 2, 2]}, months(4))
    _, beside = made(prices, [link("2020-01", a=0.5, b=0.25, c=0.25)], "2020-01")
    assert level(beside.unweighted).tolist() == pytest.approx([100, 200, 200, 100 * (2 * 4 * 2) ** (1 / 3)], rel=1e-12)


def test_a_link_in_the_last_month_moves_nothing_yet():
    prices = pd.DataFrame({"a": [10.0, 20, 30], "b": [10.0, 10, 30]}, months(3))
    _, beside = made(prices, [link("2020-01", a=0.5, b=0.5), link("2020-03", a=0.9, b=0.1)], "2020-01")
    assert level(beside.unweighted).tolist() == pytest.approx([100, 100 * math.sqrt(2), 300], rel=1e-12)


# ------------------------------------------------------------------------------------- equal risk


def test_the_share_is_inverse_to_the_standard_deviation_of_the_36_changes_before_the_link():
    prices = walk(np.random.default_rng(1))
    changes = np.diff(np.log(prices.loc["2020-02":"2023-02"].to_numpy()), axis=0)
    assert changes.shape == (RULES.risk_months, 4)
    sigma = np.sqrt(((changes - changes.mean(axis=0)) ** 2).sum(axis=0) / (RULES.risk_months - 1))
    known = volatility(prices, "2023-03", RULES)
    assert known == pytest.approx(dict(zip("abcd", sigma, strict=True)), rel=1e-9)
    got = risk_link(known, "2023-03", prices.columns, 1.0)
    assert got.shares == pytest.approx(dict(zip("abcd", 1 / sigma / (1 / sigma).sum(), strict=True)), rel=1e-9)
    calmest = max(got.shares, key=got.shares.__getitem__)
    capped = risk_link(known, "2023-03", prices.columns, 0.3)
    assert got.shares[calmest] > 0.3 and capped.shares[calmest] == 0.3 and capped.uncapped == got.shares


@settings(max_examples=25, deadline=None)
@given(rngs)
def test_no_price_of_the_link_month_or_after_it_enters_its_weights(rng):
    prices = walk(rng, gaps=0.1)
    later = prices.copy()
    later.loc["2023-03":] *= rng.uniform(0.5, 2, later.loc["2023-03":].shape)
    assert volatility(prices, "2023-03", RULES) == volatility(later, "2023-03", RULES)
    assert volatility(prices, "2023-04", RULES) != volatility(later, "2023-04", RULES)


def test_it_is_linked_where_the_index_is_and_only_on_what_is_known_there():
    rng = np.random.default_rng(2)
    prices = walk(rng)
    at = links(rng, prices)
    _, beside = made(prices, at)
    assert [one.month for one in beside.equal_risk.links] == [one.month for one in at]
    for one in beside.equal_risk.links:
        assert one.shares == risk_link(volatility(prices, one.month, RULES), one.month, "abcd", 0.6).shares
    assert np.allclose(
        level(beside.equal_risk), fixed_basket(prices, beside.equal_risk.links, "2023", 0.0).frame["unrounded"]
    )


def test_a_price_that_never_moved_or_is_too_young_has_no_volatility_and_no_weight():
    prices = walk(np.random.default_rng(3)).assign(c=70.0)
    prices.loc[:"2021-04", "d"] = NAN  # 21 changes before March 2023
    assert set(volatility(prices, "2023-03", RULES)) == {"a", "b"}
    assert set(volatility(prices, "2023-06", RULES)) == {"a", "b", "d"}
    assert set(risk_link(volatility(prices, "2023-03", RULES), "2023-03", "abcd", 0.6).shares) == {"a", "b"}
    with pytest.raises(MethodError, match=r"a cap of 0\.4 is below 1/2"):
        risk_link(volatility(prices, "2023-03", RULES), "2023-03", "abcd", 0.4)


def test_where_risk_is_not_known_only_the_equal_risk_twin_is_withheld_with_its_reason():
    prices = pd.DataFrame({"a": [10.0, 20, 30], "b": [10.0, 10, 30]}, months(3))
    _, beside = made(prices, [link("2020-01", a=0.5, b=0.5)], "2020-01")
    assert "no market of the index has a volatility in the months before 2020-01" in beside.equal_risk.withheld
    assert beside.equal_risk.frame.empty and not beside.unweighted.withheld and not beside.superlative.withheld


# --------------------------------------------------------------------------- superlative and drift


def tornqvist(p: np.ndarray, q: np.ndarray, s: int, t: int) -> float:
    both = ~np.isnan(p[s]) & ~np.isnan(p[t]) & (q[s] > 0) & (q[t] > 0)
    v = [p[k][both] * q[k][both] for k in (s, t)]
    shares = (v[0] / v[0].sum() + v[1] / v[1].sum()) / 2
    return float((shares * np.log(p[t][both] / p[s][both])).sum())


def geks_by_definition(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Each month over the one before: the mean, over its 25 months, of the detour through each of them."""
    logs = [0.0]
    for t in range(1, len(p)):
        window = range(max(0, t - RULES.geks_window + 1), max(t + 1, min(RULES.geks_window, len(p))))
        detours = [tornqvist(p, q, through, t) - tornqvist(p, q, through, t - 1) for through in window]
        logs.append(logs[-1] + math.fsum(detours) / len(detours))
    return np.exp(logs)


@settings(max_examples=6, deadline=None)
@given(rngs, st.sampled_from([0.0, 0.05]))
def test_the_superlative_twin_is_geks_of_every_month_with_the_25_around_it(rng, gaps):
    prices = walk(rng, gaps=gaps)
    index, beside = made(prices, links(rng, prices), least=0.5)
    since = index.frame.index[(index.frame.index >= "2023") & index.frame["unrounded"].notna()]
    assert len(since) > RULES.geks_window + 10
    expected = pd.Series(
        geks_by_definition(prices.loc[since].to_numpy(), index.quantities.loc[since].to_numpy()), index=since
    )
    expected *= 100 / expected[expected.index < "2024"].mean()
    got = level(beside.superlative)
    assert np.allclose(got[since], expected, rtol=1e-10, atol=0) and got.drop(since).isna().all()
    drift = (index.frame["unrounded"][since] / expected - 1) * 100
    assert np.allclose(beside.drift[since], drift, rtol=0, atol=1e-7)


def test_links_on_bouncing_prices_drift_and_the_drift_figure_says_by_how_much():
    """a is dear and b cheap at every link and the other way round between: equal shares at a link buy the cheap one.

    One price doubles and the other halves between any two links, so equal shares gain (2 + 1/2) / 2 = 1.25 each time,
    while every second month has the same prices as the first.
    """
    index = ["2020-01", "2020-02", "2020-03", "2020-04"]
    prices = pd.DataFrame({"a": [10.0, 20, 10, 20], "b": [20.0, 10, 20, 10]}, index)
    at = [link("2020-01", a=0.5, b=0.5), link("2020-02", a=0.5, b=0.5), link("2020-03", a=0.5, b=0.5)]
    chained, beside = made(prices, at, "2020-01")
    assert chained.frame["unrounded"].tolist() == pytest.approx([100, 125, 156.25, 195.3125], rel=1e-12)
    q = chained.quantities.to_numpy()
    expected = geks_by_definition(prices.to_numpy(), q) * 100
    assert level(beside.superlative).tolist() == pytest.approx(expected.tolist(), rel=1e-12)
    assert beside.drift.iloc[-1] == pytest.approx((195.3125 / expected[-1] - 1) * 100, rel=1e-10)
    assert beside.drift.iloc[-1] > 30 and beside.drift.is_monotonic_increasing


def test_the_twins_have_no_value_where_the_index_has_none():
    prices = walk(np.random.default_rng(5))
    prices.loc["2024-07":"2024-08", list("abc")] = NAN
    index, beside = made(prices, [link("2023-03", a=0.3, b=0.3, c=0.3, d=0.1)], least=0.5)
    assert index.frame["unrounded"].isna().sum() == 2
    for name in NAMES:
        frame = getattr(beside, name).frame.loc["2023-01":]
        blank = frame.index[frame["unrounded"].isna()]
        assert set(blank) >= {"2024-07", "2024-08"} and (frame.loc[blank, "status"] == "insufficient").all()
    for twin in (beside.unweighted, beside.superlative):
        assert twin.frame.loc["2023-01":, "unrounded"].isna().sum() == 2
    assert not math.isnan(beside.drift.iloc[-1])
