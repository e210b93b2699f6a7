"""The index of unit values of imports: against GEKS and Fisher computed elsewhere, and its identities."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.config import ImportBasket
from pricing.imports import import_index
from pricing.multilateral import geks
from pricing.panels import Panel
from pricing.trade import Indicator

PRODUCTS = ("antimony", "cobalt", "gallium", "lithium", "tungsten")
RULE = ImportBasket(title="t", base_period="2022", min_items=3, min_covered=0.3)
MONTHS = pd.period_range("2021-01", periods=40, freq="M").strftime("%Y-%m")
SEEDS = st.integers(0, 10_000)
some = settings(max_examples=8, deadline=None)


def unit_values(seed, missing=0.0):
    """Unit values and tonnes, month × item, of which some are not published."""
    rng = np.random.default_rng(seed)
    items = [f"{p}/metal/{leg}" for p in PRODUCTS for leg in ("CN", "XCN")]
    shape = (len(MONTHS), len(items))
    prices = np.exp(rng.normal(9, 2, len(items)) + np.cumsum(rng.normal(0, 0.1, shape), axis=0))
    tonnes = np.exp(rng.normal(4, 1, len(items)) + rng.normal(0, 0.5, shape))
    prices[rng.random(shape) < missing] = np.nan
    return (pd.DataFrame(table, index=MONTHS, columns=items) for table in (prices, tonnes))


def indicators(prices, tonnes, origin="eu", traded=1.0):
    out = []
    for product in PRODUCTS:
        frames = {}
        for leg in ("CN", "XCN"):
            value, mass = prices[f"{product}/metal/{leg}"], tonnes[f"{product}/metal/{leg}"]
            worth = traded * mass * value.fillna(value.median())
            frames[leg] = pd.DataFrame({"value": value, "tonnes": mass, "traded": worth})
        frames["WLD"] = frames["CN"]
        out.append(Indicator(origin, product, "metal", "product", frames, pd.DataFrame(), pd.DataFrame()))
    return out


def index(prices, tonnes, rule=RULE, window=25, **more):
    return import_index(indicators(prices, tonnes, **more), "eu", rule, window)


@some
@given(seed=SEEDS)
def test_over_one_window_it_is_geks_tornqvist(seed):
    prices, tonnes = unit_values(seed)
    found = index(prices, tonnes, window=len(MONTHS)).frame["value"]
    expected = geks(Panel(prices, tonnes), "tornqvist").values
    expected = expected * 100 / expected[MONTHS.str.startswith("2022")].mean()
    assert found.to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-12)


@some
@given(seed=SEEDS)
def test_a_later_month_continues_by_the_movement_of_the_window_that_ends_with_it(seed):
    prices, tonnes = unit_values(seed)
    found = index(prices, tonnes, window=25).frame["value"]
    for last in (25, 30, 39):
        part = slice(last - 24, last + 1)
        window = geks(Panel(prices.iloc[part], tonnes.iloc[part]), "tornqvist").values
        assert found.iloc[last] / found.iloc[last - 1] == pytest.approx(window.iloc[-1] / window.iloc[-2], rel=1e-12)


@some
@given(seed=SEEDS, missing=st.floats(0, 0.6))
def test_contributions_sum_to_the_change(seed, missing):
    made = index(*unit_values(seed, missing))
    if made.withheld:
        return
    value = made.frame["value"].dropna()
    since = made.frame.loc[value.index, "since"].iloc[1:]
    change = value.iloc[1:].to_numpy() - value[since].to_numpy()
    assert made.moved_by.loc[since.index].sum(axis=1).to_numpy() == pytest.approx(change, abs=1e-11)
    year = made.frame["year"].dropna()
    assert made.year_by.loc[year.index].sum(axis=1).to_numpy() == pytest.approx(year.to_numpy(), rel=1e-12, abs=1e-11)
    unknown = made.frame.index.difference(value.index)
    assert (made.moved_by.loc[unknown] == 0).all(axis=None)


@some
@given(seed=SEEDS, missing=st.floats(0, 0.3))
def test_the_change_on_the_year_is_fisher_of_what_both_months_have(seed, missing):
    prices, tonnes = unit_values(seed, missing)
    made = index(prices, tonnes)
    if made.withheld:
        return
    year = made.frame["year"].dropna()
    assert len(year) > 10
    for month in year.index[[0, -1]]:
        then = str(pd.Period(month, "M") - 12)
        both = prices.loc[[then, month]].notna().all()
        p0, p1 = (prices.loc[m][both] for m in (then, month))
        q0, q1 = (tonnes.loc[m][both] for m in (then, month))
        fisher = np.sqrt((p1 * q0).sum() / (p0 * q0).sum() * (p1 * q1).sum() / (p0 * q1).sum())
        assert year[month] == pytest.approx((fisher - 1) * 100, rel=1e-10, abs=1e-10)


@some
@given(seed=SEEDS, missing=st.floats(0, 0.4), factor=st.floats(1e-3, 1e3))
def test_neither_currency_nor_unit_of_mass_moves_it(seed, missing, factor):
    prices, tonnes = unit_values(seed, missing)
    made = index(prices, tonnes)
    for other in (index(prices * factor, tonnes), index(prices, tonnes * factor)):
        assert other.withheld == made.withheld
        pd.testing.assert_frame_equal(other.frame, made.frame, rtol=1e-10, atol=1e-9)
        pd.testing.assert_frame_equal(other.moved_by, made.moved_by, rtol=1e-8, atol=1e-9)


@some
@given(seed=SEEDS, missing=st.floats(0, 0.4))
def test_where_all_unit_values_move_alike_the_index_moves_so(seed, missing):
    prices, tonnes = unit_values(seed, missing)
    path = np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.1, len(MONTHS))))
    alike = pd.DataFrame(np.outer(path, prices.iloc[:1].fillna(1.0).to_numpy()[0]), MONTHS, prices.columns)
    made = index(alike.where(prices.notna()), tonnes)
    if made.withheld:
        return
    value = made.frame["value"].dropna()
    known = [MONTHS.get_loc(month) for month in value.index]
    assert (value / path[known]).to_numpy() == pytest.approx((value / path[known]).iloc[0], rel=1e-10)


def test_the_base_year_is_a_hundred_and_other_origins_stay_out():
    prices, tonnes = unit_values(1)
    foreign = indicators(prices * 7, tonnes * 3, origin="us")
    own = indicators(prices, tonnes)
    alone, beside = (import_index(made, "eu", RULE, 25) for made in (own, [*foreign, *own]))
    assert alone.frame["value"][MONTHS.str.startswith("2022")].mean() == pytest.approx(100, rel=1e-12)
    pd.testing.assert_frame_equal(beside.frame, alone.frame, check_exact=True)


def test_a_month_of_which_too_little_is_published_has_no_value_and_the_next_links_across_it():
    prices, tonnes = unit_values(2)
    prices.loc["2022-06", prices.columns[2:]] = np.nan
    made = index(prices, tonnes)
    assert np.isnan(made.frame.loc["2022-06", "value"])
    assert made.frame["value"].isna().sum() == 1
    assert made.frame.loc["2022-07", "items"] == 10
    moved = made.frame.loc["2022-07", "value"] - made.frame.loc["2022-05", "value"]
    assert made.moved_by.loc["2022-07"].sum() == pytest.approx(moved, abs=1e-11)


def test_a_month_whose_published_part_is_a_small_share_of_trade_has_no_value():
    prices, tonnes = unit_values(3)
    made = import_index(indicators(prices, tonnes, traded=4.0), "eu", RULE, 25)
    assert made.withheld
    assert made.frame.empty
    enough = import_index(indicators(prices, tonnes, traded=3.0), "eu", RULE, 25)
    assert enough.frame["covered"].to_numpy() == pytest.approx(1 / 3)


def test_only_the_products_of_the_basket_enter():
    prices, tonnes = unit_values(4)
    rule = RULE.model_copy(update={"products": ("cobalt/metal", "gallium/metal")})
    made = index(prices, tonnes, rule)
    assert list(made.moved_by) == ["cobalt/metal/CN", "cobalt/metal/XCN", "gallium/metal/CN", "gallium/metal/XCN"]
    assert index(prices, tonnes, RULE.model_copy(update={"products": ("cobalt/metal",)})) is None


def test_the_index_goes_on_after_a_gap_longer_than_its_window():
    prices, tonnes = unit_values(3, 0.0)
    prices.iloc[24:34] = np.nan
    made = index(prices, tonnes, window=5)
    assert made.frame["value"].iloc[34:].notna().all() and (made.frame["rule"].iloc[24:34] != "").all()
    first = made.frame.index[34]
    assert made.frame.at[first, "since"] == made.frame.index[23]
    # directly linked: Törnqvist of the two months alone
    p0, p1 = prices.iloc[23], prices.iloc[34]
    v0, v1 = p0 * tonnes.iloc[23], p1 * tonnes.iloc[34]
    direct = np.exp((((v0 / v0.sum() + v1 / v1.sum()) / 2) * np.log(p1 / p0)).sum())
    assert made.frame["value"].iloc[34] / made.frame["value"].iloc[23] == pytest.approx(direct, rel=1e-12)
