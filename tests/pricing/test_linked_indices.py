"""Annual links, rebasing, contributions across links, and missing prices filled by rule."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.aggregation import chain_linked, chained_contributions, price_updated, weighted_mean
from pricing.chaining import chain, link, rebase, unchain
from pricing.errors import MethodError
from pricing.formulas import fixed_base, period_on_period
from pricing.imputation import carried, class_mean, overall_mean
from pricing.index import Link, fixed_basket
from pricing.panels import ChainableIndex, FixedBaseIndex, Panel

STEPS = [*range(1, 13), "year"]


def months(first, count):
    start = int(first[:4]) * 12 + int(first[5:]) - 1
    return [f"{at // 12:04d}-{at % 12 + 1:02d}" for at in range(start, start + count)]


def walk(seed, first="2019-11", count=50, products=4):
    rng = np.random.default_rng(seed)
    levels = np.exp(rng.normal(0, 2, products) + np.cumsum(rng.normal(0, 0.06, (count, products)), axis=0))
    return pd.DataFrame(levels, index=months(first, count), columns=[f"m{i}" for i in range(products)])


def yearly(seed, products=4, years=range(2018, 2026)):
    shape = (len(years), products)
    return pd.DataFrame(
        np.random.default_rng(seed).uniform(1, 9, shape),
        index=[str(year) for year in years],
        columns=[f"m{i}" for i in range(products)],
    )


def level(series, base=None):
    return FixedBaseIndex(series, base or str(series.index[0]))


# ----------------------------------------------------------------------------- chain and unchain


@pytest.mark.parametrize("step", STEPS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), first=st.sampled_from(["2019-01", "2019-07", "2019-12"]))
def test_unchaining_undoes_chaining_and_the_other_way_round(step, seed, first):
    series = walk(seed, "2019-01" if step == "year" else first)["m0"]
    movements = unchain(level(series), step)
    again = unchain(chain(movements), step)
    assert np.allclose(again.values, movements.values, rtol=1e-12, atol=0, equal_nan=True)
    ratios = (chain(movements).values / series).dropna()
    assert len(ratios) >= 38 and np.allclose(ratios, ratios.iloc[0], rtol=1e-12, atol=0)


def test_a_month_is_compared_with_the_last_link_and_the_link_with_the_one_before():
    series = pd.Series(np.arange(1.0, 31.0), index=months("2020-01", 30))
    movements = unchain(level(series), 3).values
    assert movements[:"2020-03"].isna().all()
    assert movements["2020-04"] == 4 / 3 and movements["2021-03"] == 15 / 3 and movements["2021-04"] == 16 / 15
    by_year = unchain(level(series), "year").values
    assert by_year[:"2020-12"].isna().all()
    assert by_year["2021-01"] == 13 / 6.5 and by_year["2022-06"] == 30 / 18.5


def test_a_chain_may_start_at_any_month_or_year():
    movements = unchain(level(walk(1)["m0"]), 3)
    assert chain(movements, "2022-05").values["2022-05"] == pytest.approx(1)
    assert chain(movements, "2021").values["2021-01":"2021-12"].mean() == pytest.approx(1)
    with pytest.raises(MethodError, match="2020-01 needs a value"):
        chain(movements, "2020-01")
    with pytest.raises(MethodError, match="2020 needs a value in each of its twelve months"):
        chain(movements, "2020")


def test_a_link_month_without_a_value_ends_the_chain_and_is_never_zero():
    series = walk(2)["m0"].copy()
    series["2022-03"] = np.nan
    movements = unchain(level(series), 3)
    assert movements.values["2022-04":"2023-03"].isna().all() and movements.values["2022-01":"2022-02"].notna().all()
    values = chain(movements).values
    assert values["2022-03":].isna().all() and values["2020-03":"2022-02"].notna().all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["2020-01", "2020-02", "2020-13"], "period '2020-13' is not a month"),
        (["2020-01", "2020-03", "2020-02"], "in order, each once"),
        (["2020-02", "2020-04"], "2020-04 is linked to 2020-03, which is not among the periods"),
        (["2020-04", "2020-05"], "holds no period after a link"),
    ],
)
def test_months_that_no_link_can_be_found_for_are_refused(labels, message):
    series = pd.Series(1.0, index=labels)
    with pytest.raises(MethodError, match=message):
        unchain(level(series), 3)
    with pytest.raises(MethodError, match=message):
        chain(ChainableIndex(series, 3))


# ------------------------------------------------------------------------------- rebase and link


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3))
def test_rebasing_and_linking_do_not_see_the_scale(seed, scale):
    series, other = walk(seed)["m0"], walk(seed + 1)["m0"]
    one, two = rebase(level(series), "2021"), rebase(level(series * scale), "2021")
    assert one.values["2021-01":"2021-12"].mean() == pytest.approx(100) and one.base == "2021"
    assert np.allclose(one.values, two.values, rtol=1e-13)
    assert np.allclose(one.values / series, one.values.iloc[0] / series.iloc[0], rtol=1e-13)
    linked = [link(level(series[:"2022-03"]), level(other["2020-06":] * s), "2021").values for s in (1, scale)]
    assert np.allclose(*linked, rtol=1e-13)


@pytest.mark.parametrize("overlap", ["2021-12", "2021"])
def test_a_linked_index_keeps_the_old_one_and_takes_the_movements_of_the_new(overlap):
    old, new = walk(3)["m0"][:"2022-02"], walk(4)["m0"]["2021-01":]
    linked = link(level(old), level(new), overlap).values
    assert linked[: old.index[-1]].equals(old)
    factor = old[old.index.str.startswith(overlap)].mean() / new[new.index.str.startswith(overlap)].mean()
    assert np.allclose(linked["2022-03":], new["2022-03":] * factor, rtol=1e-14)


def test_a_base_or_overlap_without_values_is_refused():
    series = walk(5)["m0"]
    with pytest.raises(MethodError, match="2019 needs a value in each of its twelve months"):
        rebase(level(series), "2019")
    with pytest.raises(MethodError, match="2018-01 needs a value"):
        rebase(level(series), "2018-01")
    with pytest.raises(MethodError, match="the new index: 2021 needs"):
        link(level(series), level(series["2021-02":]), "2021")
    with pytest.raises(MethodError, match="the old index: 2023-01 needs"):
        link(level(series[:"2022-12"]), level(series), "2023-01")


def test_an_annual_index_is_rebased_to_its_own_year():
    assert rebase(level(pd.Series([2.0, 4.0], index=["2020", "2021"])), "2021").values.tolist() == [50, 100]


# ------------------------------------------------------------------------------------ aggregation


def test_the_link_in_march_gives_the_index_of_our_baskets():
    prices, weights = walk(6, "2020-03", 44), yearly(6)
    shares = weights.div(weights.sum(axis=1), axis=0)
    links = [Link(f"{year}-03", dict(shares.loc[str(year)]), dict(shares.loc[str(year)])) for year in range(2020, 2024)]
    ours = fixed_basket(prices, links, "2020-03", 0.0).frame["unrounded"]
    assert np.allclose(rebase(chain_linked(prices, weights, 3), "2020-03").values, ours, rtol=1e-13)


@pytest.mark.parametrize("step", [3, 12, "year"])
def test_price_updated_weights_at_every_link_are_one_fixed_basket(step):
    prices, quantities = walk(7, "2019-01"), pd.Series([3.0, 1.0, 0.2, 7.0], index=["m0", "m1", "m2", "m3"])
    at_link = {
        "year": {str(year + 1): prices[f"{year}-01" : f"{year}-12"].mean() for year in range(2019, 2023)},
        12: {str(year + 1): prices.loc[f"{year}-12"] for year in range(2019, 2023)},
        3: {str(year): prices.loc[f"{year}-03"] for year in range(2019, 2023)},
    }
    weights = pd.DataFrame(at_link[step]).T * quantities
    linked = chain_linked(prices, weights, step).values.dropna()
    cost = (prices * quantities).sum(axis=1)
    assert len(linked) >= 38 and np.allclose(linked / cost[linked.index], linked.iloc[0] / cost[linked.index[0]])


def test_a_component_enters_at_the_first_link_that_it_has_a_value_for():
    components, weights = walk(8), yearly(8)
    components.loc[:"2021-01", "m3"] = np.nan
    linked = chain_linked(components, weights, 3).values
    without = chain_linked(components.drop(columns="m3"), weights.drop(columns="m3"), 3).values
    assert np.allclose(linked[:"2021-03"], without[:"2021-03"], rtol=1e-14, equal_nan=True)
    assert not np.allclose(linked["2021-04":], without["2021-04":], rtol=1e-4)


def test_weights_that_are_missing_or_of_nobody_are_refused():
    components, weights = walk(9), yearly(9)
    with pytest.raises(MethodError, match="no weights for 2022, which 2022-01 needs"):
        chain_linked(components, weights.drop("2022"), 12)
    with pytest.raises(MethodError, match="no weights for 2022, which 2022-04 needs"):
        chain_linked(components, weights.drop("2022"), 3)
    with pytest.raises(MethodError, match="weight of m9"):
        chain_linked(components, weights.rename(columns={"m0": "m9"}), 12)
    with pytest.raises(MethodError, match="zero or above"):
        chain_linked(components, -weights, 12)
    with pytest.raises(MethodError, match="weight of m9"):
        weighted_mean(components, pd.Series({"m9": 1.0}))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_weighted_mean_takes_its_weights_over_what_is_there(seed):
    values, weights = walk(seed, count=6), yearly(seed).iloc[0]
    values.iloc[2, 1] = np.nan
    values.iloc[4] = np.nan
    mean, geometric = weighted_mean(values, weights), weighted_mean(values, weights, "geometric")
    assert mean.isna().tolist() == geometric.isna().tolist() == [False] * 4 + [True, False]
    row, kept = values.iloc[2].drop("m1"), weights.drop("m1")
    assert mean.iloc[2] == pytest.approx(np.average(row, weights=kept), rel=1e-13)
    assert geometric.iloc[2] == pytest.approx(math.exp(np.average(np.log(row), weights=kept)), rel=1e-13)
    table = pd.DataFrame([weights] * 6, index=values.index)
    assert weighted_mean(values, table).equals(mean)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_young_on_price_updated_weights_is_lowe(seed):
    prices, quantities = walk(seed, count=4), yearly(seed).iloc[0]
    old, base = prices.iloc[0], prices.iloc[2]
    weights = price_updated(quantities * old, old, base)
    assert weights.sum() == pytest.approx(1)
    panel = Panel(prices)
    lowe = fixed_base(panel, "lowe", prices.index[2], quantities).values
    assert np.allclose(fixed_base(panel, "young", prices.index[2], weights).values, lowe, rtol=1e-13)


def test_a_weight_without_a_price_is_not_updated():
    one = pd.Series({"a": 1.0, "b": 2.0})
    with pytest.raises(MethodError, match="weight of b cannot be price-updated"):
        price_updated(one, one, one.drop("b"))
    assert price_updated(pd.Series({"a": 1.0, "b": 0.0}), one, one.drop("b")).to_dict() == {"a": 1, "b": 0}
    with pytest.raises(MethodError, match="one of them is above"):
        price_updated(one * 0, one, one)


# ---------------------------------------------------------------- contributions across the links


@pytest.mark.parametrize("step", [3, 12, "year"])
@pytest.mark.parametrize("lag", [1, 12, 30])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_contributions_across_links_sum_to_the_change(step, lag, seed):
    components, weights = walk(seed, "2019-01"), yearly(seed)
    components.loc[:"2020-05", "m1"] = np.nan
    components.loc["2021-08":"2021-11", "m2"] = np.nan
    levels = chain_linked(components, weights, step).values
    change = levels / levels.shift(lag) - 1
    parts = chained_contributions(components, weights, step, lag)
    assert parts.isna().any(axis=1).equals(change.isna()) and change.notna().sum() >= 38 - lag - 11
    assert np.allclose(parts.sum(axis=1)[change.notna()], change.dropna(), rtol=0, atol=1e-12)


def test_ribe_over_one_december_is_the_formula_of_the_manual():
    x, weights = walk(10), yearly(10)
    share = weights.div(weights.sum(axis=1), axis=0)
    levels = chain_linked(x, weights, 12).values
    parts = chained_contributions(x, weights, 12, 12)
    now, then, dec, dec_before = "2022-05", "2021-05", "2021-12", "2020-12"
    this_year = levels[dec] / levels[then] * share.loc["2022"] * (x.loc[now] / x.loc[dec] - 1)
    last_year = levels[dec_before] / levels[then] * share.loc["2021"] * (x.loc[dec] - x.loc[then]) / x.loc[dec_before]
    assert np.allclose(parts.loc[now], this_year + last_year, rtol=1e-11)


def test_a_component_outside_the_basket_contributes_nothing_and_the_first_months_are_null():
    components, weights = walk(11), yearly(11)
    weights.loc["2021", "m2"] = np.nan
    parts = chained_contributions(components, weights, 12, 1)
    assert (parts.loc["2021-01":"2021-12", "m2"] == 0).all() and (parts.loc["2022-01":, "m2"] != 0).all()
    assert parts[:"2019-12"].isna().all().all() and parts["2020-01":].notna().all().all()
    with pytest.raises(MethodError, match="one month or more, not 0"):
        chained_contributions(components, weights, 12, 0)


# ------------------------------------------------------------------------------------ imputation


def gappy(seed):
    prices = walk(seed, count=12, products=6)
    prices.iloc[4:7, 2] = np.nan
    prices.iloc[9:, 4] = np.nan
    prices.iloc[:3, 5] = np.nan
    return prices


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_overall_mean_leaves_the_chained_jevons_alone_until_the_product_returns(seed):
    prices = gappy(seed)
    filled = overall_mean(prices)
    with_gaps, without = (chain(period_on_period(p, "jevons")).values for p in (Panel(prices), filled.panel()))
    assert np.allclose(with_gaps.iloc[:7], without.iloc[:7], rtol=1e-13)
    corrected = math.log(prices.iloc[7, 2] / filled.prices.iloc[6, 2]) / 6
    others = [0, 1, 3, 4, 5]
    rest = np.log(prices.iloc[7, others] / prices.iloc[6, others]).sum() / 6
    assert math.log(without.iloc[7] / without.iloc[6]) == pytest.approx(corrected + rest, abs=1e-12)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_mask_tells_every_price_that_was_not_observed(seed):
    prices = gappy(seed)
    classes = {"m0": "a", "m1": "a", "m2": "a", "m3": "b", "m4": "b", "m5": "b"}
    for filled in (overall_mean(prices), class_mean(prices, classes), carried(prices, 2), carried(prices, 2, True)):
        assert filled.mask.equals(prices.isna() & filled.prices.notna()) and filled.mask.any().any()
        assert filled.prices.where(~filled.mask).equals(prices)
    assert overall_mean(prices).prices.iloc[:3, 5].isna().all(), "nothing is filled before a first price"
    assert overall_mean(prices).mask.to_numpy().sum() == 6


def test_an_imputed_price_follows_its_class_and_not_the_rest():
    prices = pd.DataFrame({"a": [1, 2], "b": [4, np.nan], "c": [1, 1], "d": [5, np.nan]}, index=["t0", "t1"])
    classes = {"a": "x", "b": "x", "c": "y", "d": "y"}
    assert class_mean(prices, classes).prices.loc["t1"].tolist() == [2, 8, 1, 5]
    assert overall_mean(prices).prices.loc["t1", "b"] == pytest.approx(4 * math.sqrt(2))
    assert overall_mean(prices, {"a": 3.0, "c": 1.0}, "arithmetic").prices.loc["t1", "b"] == pytest.approx(4 * 7 / 4)
    few = class_mean(prices, classes, minimum=2)
    assert few.prices.loc["t1", ["b", "d"]].isna().all() and not few.mask.any().any()


def test_a_product_that_returns_corrects_what_is_imputed_from_it():
    prices = pd.DataFrame({"a": [1, 1, 1], "b": [2, np.nan, 8], "c": [3, 3, np.nan]}, index=["t0", "t1", "t2"])
    filled = overall_mean(prices).prices  # b was kept at 2 and returns at 8: its relative is 4
    assert filled.loc["t1", "b"] == 2 and filled.loc["t2", "c"] == pytest.approx(3 * math.sqrt(1 * 4))


def test_a_class_without_a_price_leaves_the_gap_open():
    prices = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [4.0, np.nan, np.nan]}, index=["t0", "t1", "t2"])
    filled = class_mean(prices, {"a": "x", "b": "y"})
    assert filled.prices["b"].isna().tolist() == [False, True, True]


def test_an_imputed_price_keeps_the_unit_of_its_product():
    prices = gappy(3)
    units = pd.Series([2204.6226, 1, 1000, 0.01, 32.1507, 7.2], index=prices.columns)
    assert np.allclose(
        overall_mean(prices * units).prices, overall_mean(prices).prices * units, rtol=1e-12, equal_nan=True
    )


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_price_is_carried_no_longer_than_the_limit_and_never_before_the_first(limit):
    prices = gappy(4)
    filled = carried(prices, limit)
    assert filled.mask.iloc[4:7, 2].tolist() == [True] * min(limit, 3) + [False] * max(0, 3 - limit)
    assert filled.prices.iloc[4, 2] == prices.iloc[3, 2] and filled.prices.iloc[:3, 5].isna().all()
    backward = carried(prices, limit, backward=True).mask.iloc[:3, 5].tolist()
    assert backward == [False] * max(0, 3 - limit) + [True] * min(limit, 3)


def test_a_carried_price_enters_no_index():
    prices = gappy(5)
    with pytest.raises(MethodError, match="carrying forward up to 3 are for display"):
        carried(prices, 3).panel()
    assert overall_mean(prices).panel(prices.notna() * 1.0).quantities is not None
    with pytest.raises(MethodError, match="one period or more, not 0"):
        carried(prices, 0)


def test_imputation_refuses_what_it_cannot_judge():
    prices = gappy(6)
    with pytest.raises(MethodError, match="m5 belongs to no class"):
        class_mean(prices, {f"m{i}": "a" for i in range(5)})
    with pytest.raises(MethodError, match="not 'harmonic'"):
        overall_mean(prices, mean="harmonic")
    with pytest.raises(MethodError, match="weights are zero or above"):
        overall_mean(prices, {"m0": -1.0})
    with pytest.raises(MethodError, match="price of m0 in 2019-11: 0 is not above zero"):
        overall_mean(pd.concat([prices.iloc[:1] * 0, prices.iloc[1:]]))
