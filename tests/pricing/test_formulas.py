"""Index numbers: the axioms of each formula, what is refused, contributions, and comparisons of all with all."""

from __future__ import annotations

import itertools
import math
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing import formulas, multilateral
from pricing.chaining import chain
from pricing.errors import MethodError
from pricing.formulas import contributions, fixed_base, logarithmic_mean, period_on_period
from pricing.panels import ChainableIndex, FixedBaseIndex, Panel

ALL = typing.get_args(formulas.Formula)
WEIGHTED_BY_BASKET = ("lowe", "young")
PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "scoring" / "index" / "README.md"
GEKS = typing.get_args(multilateral.Superlative)


def table(rows, products=None):
    rows = np.atleast_2d(np.asarray(rows, dtype=float))
    products = products or [f"g{i}" for i in range(rows.shape[1])]
    return pd.DataFrame(rows, index=[f"t{i}" for i in range(len(rows))], columns=products)


def index(formula, p_0, p_t, q_0, q_t, basket=None):
    panel = Panel(table([p_0, p_t]), table([q_0, q_t]))
    weights = None
    if formula in WEIGHTED_BY_BASKET:
        weights = pd.Series(q_0 if basket is None else basket, index=panel.prices.columns)
    return fixed_base(panel, formula, "t0", weights).values["t1"]


def made_panel(seed, periods=8, products=6, missing=0.15):
    rng = np.random.default_rng(seed)
    prices = np.exp(rng.normal(0, 1.5, products) + np.cumsum(rng.normal(0, 0.2, (periods, products)), axis=0))
    prices[rng.random(prices.shape) < missing] = np.nan
    prices[:, 0] = np.exp(rng.normal(0, 0.3, periods))  # one good is always there, so that every pair matches
    return Panel(table(prices), table(np.exp(rng.normal(0, 1, prices.shape))))


def part(panel, first, end):
    return Panel(panel.prices.iloc[first:end], panel.quantities.iloc[first:end])


# --------------------------------------------------------------------------------------- axioms


class Draw:
    """Three periods of four goods, a basket of a fourth period, and a few factors."""

    def __init__(self, logs):
        grid = np.exp(np.array(logs, dtype=float)).reshape(9, 4)
        self.p = grid[:3]
        self.q = grid[3:6]
        self.p_b, self.q_b = grid[6], grid[7]
        self.units = grid[8]
        self.factor = grid[8, 0]

    def basket(self, formula):
        return self.q_b if formula == "lowe" else self.p_b * self.q_b


def price(d, f, p_0=None, p_t=None, q_0=None, q_t=None, basket=None):
    given = ((p_0, d.p[0]), (p_t, d.p[1]), (q_0, d.q[0]), (q_t, d.q[1]))
    pick = [default if one is None else one for one, default in given]
    return index(f, *pick, d.basket(f) if basket is None else basket)


def gap(one, two):
    return one / two - 1


def identity(d, f):
    return gap(price(d, f, p_t=d.p[0]), 1)


def fixed_basket(d, f):
    basket = d.q[0] if f == "lowe" else d.p[0] * d.q[0]
    return gap(price(d, f, q_t=d.q[0], basket=basket), (d.p[1] @ d.q[0]) / (d.p[0] @ d.q[0]))


def proportionality(d, f):
    return gap(price(d, f, p_t=d.p[1] * d.factor), price(d, f) * d.factor)


def inverse_proportionality(d, f):
    return gap(price(d, f, p_0=d.p[0] * d.factor), price(d, f) / d.factor)


def commensurability(d, f):
    basket = d.basket(f) / d.units if f == "lowe" else d.basket(f)
    args = d.p[0] * d.units, d.p[1] * d.units, d.q[0] / d.units, d.q[1] / d.units
    return gap(price(d, f, *args, basket), price(d, f))


def time_reversal(d, f):
    return gap(price(d, f) * price(d, f, d.p[1], d.p[0], d.q[1], d.q[0]), 1)


def circularity(d, f):
    onward = price(d, f, d.p[1], d.p[2], d.q[1], d.q[2])
    return gap(price(d, f) * onward, price(d, f, d.p[0], d.p[2], d.q[0], d.q[2]))


def raised(prices, d):
    return prices * np.array([1 + d.factor / 10, 1, 1, 1])


def monotone_later(d, f):
    return max(0.0, -gap(price(d, f, p_t=raised(d.p[1], d)), price(d, f)))


def monotone_earlier(d, f):
    return max(0.0, gap(price(d, f, p_0=raised(d.p[0], d)), price(d, f)))


def mean_value(d, f):
    relatives, value = d.p[1] / d.p[0], price(d, f)
    return max(0.0, gap(value, relatives.max()), -gap(value, relatives.min()))


def quantity_scale(d, f):
    one = gap(price(d, f, q_0=d.q[0] * d.factor, basket=d.basket(f) * d.factor), price(d, f))
    return max(abs(one), abs(gap(price(d, f, q_t=d.q[1] * d.factor), price(d, f))))


def factor_reversal(d, f):
    quantity = index(f, d.q[0], d.q[1], d.p[0], d.p[1], d.basket(f))
    return gap(price(d, f) * quantity, (d.p[1] @ d.q[1]) / (d.p[0] @ d.q[0]))


def between_paasche_and_laspeyres(d, f):
    low, high = sorted([price(d, "laspeyres"), price(d, "paasche")])
    return max(0.0, gap(price(d, f), high), -gap(price(d, f), low))


def price_bouncing(d, f):
    return gap(price(d, f, d.p[0][[1, 2, 3, 0]], d.p[1][[2, 0, 3, 1]]), price(d, f))


EVERY = set(ALL)
AXIOMS = {
    identity: EVERY,
    fixed_basket: {"laspeyres", "paasche", "fisher", "walsh", "lowe", "young"},
    proportionality: EVERY,
    inverse_proportionality: EVERY,
    commensurability: EVERY,
    time_reversal: {"fisher", "tornqvist", "walsh", "jevons", "lowe"},
    circularity: {"jevons", "lowe"},
    monotone_later: EVERY - {"tornqvist"},
    monotone_earlier: EVERY - {"tornqvist", "geometric_laspeyres"},
    mean_value: EVERY,
    quantity_scale: EVERY,
    factor_reversal: {"fisher"},
    between_paasche_and_laspeyres: {"laspeyres", "paasche", "fisher"},
    price_bouncing: {"jevons"},
}
HELD = [(axiom, formula) for axiom, held in AXIOMS.items() for formula in sorted(held)]
BROKEN = [(axiom, formula) for axiom, held in AXIOMS.items() for formula in sorted(EVERY - held)]


def named(pair):
    return pair.__name__ if callable(pair) else pair


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="needs ../shared/scoring/index")
def test_the_axioms_are_claimed_for_the_formulas_of_the_published_table():
    rows = [line.strip("|\n ").split("|") for line in PUBLISHED.read_text("utf-8").splitlines() if line.startswith("|")]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    published = {f: {axiom for axiom, cell in zip(AXIOMS, cells[f], strict=True) if cell == "Y"} for f in ALL}
    assert published == {f: {axiom for axiom, held in AXIOMS.items() if f in held} for f in ALL}


@pytest.mark.parametrize(("axiom", "formula"), HELD, ids=named)
@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-2.5, 2.5, allow_subnormal=False), min_size=36, max_size=36))
def test_an_axiom_holds_where_it_should(axiom, formula, logs):
    assert abs(axiom(Draw(logs), formula)) <= 1e-11


@pytest.mark.parametrize(("axiom", "formula"), BROKEN, ids=named)
def test_an_axiom_that_is_not_claimed_has_a_counter_example(axiom, formula):
    rng = np.random.default_rng(1)
    assert any(abs(axiom(Draw(rng.normal(0, 1.5, 36)), formula)) > 1e-4 for _ in range(1000))


# ------------------------------------------------------------------------------- matched samples


@pytest.mark.parametrize("formula", ALL)
def test_a_product_that_is_missing_in_one_period_is_as_if_it_were_not_there(formula):
    whole = made_panel(1, periods=2, products=6, missing=0)
    prices = whole.prices.copy()
    prices.iloc[0, 2] = prices.iloc[1, 4] = np.nan
    kept = [c for c in prices if c not in ("g2", "g4")]
    basket = pd.Series(range(1, 7), index=prices.columns, dtype=float) if formula in WEIGHTED_BY_BASKET else None
    with_gaps = fixed_base(Panel(prices, whole.quantities), formula, "t0", basket).values["t1"]
    without = Panel(prices[kept], whole.quantities[kept])
    assert with_gaps == pytest.approx(
        fixed_base(without, formula, "t0", None if basket is None else basket[kept]).values["t1"], rel=1e-14
    )


@pytest.mark.parametrize("formula", WEIGHTED_BY_BASKET)
def test_a_product_outside_the_basket_does_not_count(formula):
    panel = Panel(table([[1, 1], [2, 50]]))
    assert fixed_base(panel, formula, "t0", {"g0": 3.0}).values["t1"] == 2


def test_what_has_no_match_is_null_and_never_one_or_zero():
    panel = Panel(table([[1, np.nan], [np.nan, 5], [2, 6]]))
    assert fixed_base(panel, "jevons", "t0").values.tolist() == pytest.approx([1, np.nan, 2], nan_ok=True)


def test_products_without_any_quantity_make_no_weighted_index_but_an_unweighted_one():
    panel = Panel(table([[1, 2], [2, 2]]), table([[1, 1], [0, 0]]))
    assert math.isnan(fixed_base(panel, "paasche", "t0").values["t1"])
    assert fixed_base(panel, "laspeyres", "t0").values["t1"] == pytest.approx(4 / 3)
    assert fixed_base(panel, "jevons", "t0").values["t1"] == pytest.approx(math.sqrt(2))


def test_a_quantity_of_zero_beside_a_price_is_an_observation():
    assert index("laspeyres", [10, 4], [12, 4], [0, 1], [1, 1]) == 1
    assert index("geometric_laspeyres", [10, 4], [12, 4], [0, 1], [1, 1]) == 1
    assert index("jevons", [10, 4], [12, 4], [0, 1], [1, 1]) == pytest.approx(math.sqrt(1.2))


def test_the_worked_example_of_two_goods():
    prices, quantities = ([1, 2], [2, 3]), ([10, 5], [6, 6])  # values: 20, and 30
    worked = {
        "laspeyres": 35 / 20,
        "paasche": 30 / 18,
        "fisher": math.sqrt(35 / 20 * 30 / 18),
        "tornqvist": 2 ** ((0.5 + 0.4) / 2) * 1.5 ** ((0.5 + 0.6) / 2),
        "walsh": (2 * math.sqrt(60) + 3 * math.sqrt(30)) / (math.sqrt(60) + 2 * math.sqrt(30)),
        "jevons": math.sqrt(3),
        "geometric_laspeyres": math.sqrt(3),
    }
    for formula, value in worked.items():
        assert index(formula, *prices, *quantities) == pytest.approx(value, rel=1e-14), formula
    assert index("lowe", *prices, *quantities, [1, 4]) == pytest.approx(14 / 9)
    assert index("young", *prices, *quantities, [1, 4]) == pytest.approx((2 + 4 * 1.5) / 5)


def test_values_serve_where_quantities_are_not_known():
    panel = made_panel(4)
    by_value = Panel.of_values(panel.prices, panel.prices * panel.quantities * 1000)
    for formula in ("laspeyres", "fisher", "tornqvist", "walsh"):
        one, two = (fixed_base(p, formula, "t3").values for p in (panel, by_value))
        assert np.allclose(one, two, rtol=1e-13, atol=0)


# ----------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("prices", "quantities", "message"),
    [
        ([[1, 2], [0, 3]], None, "price of g0 in t1: 0 is not above zero"),
        ([[1, -2], [1, 3]], None, "price of g1 in t0: -2 is not above zero"),
        ([[1, np.inf], [1, 3]], None, "price of g1 in t0: inf is not finite"),
        ([[1, 2], [1, 3]], [[1, 1], [-1, 1]], "quantity of g0 in t1: -1 is below zero"),
        ([[1, 2], [1, 3]], [[1, 1], [np.inf, 1]], "quantity of g0 in t1: inf is not finite"),
    ],
)
def test_an_impossible_value_is_refused_with_its_period_and_product(prices, quantities, message):
    with pytest.raises(MethodError, match=message.replace("(", r"\(")):
        Panel(table(prices), None if quantities is None else table(quantities))


def test_labels_that_repeat_and_panels_that_do_not_fit_are_refused():
    twice = table([[1, 2], [1, 3]]).set_axis(["t0", "t0"])
    with pytest.raises(MethodError, match="period t0 appears twice"):
        Panel(twice)
    with pytest.raises(MethodError, match="product g appears twice"):
        Panel(table([[1, 2]], ["g", "g"]))
    with pytest.raises(MethodError, match="different periods or products"):
        Panel(table([[1, 2]]), table([[1, 2], [1, 2]]))
    with pytest.raises(MethodError, match="empty"):
        Panel(table([[1]]).iloc[:0])
    with pytest.raises(MethodError, match="no number"):
        Panel(table([[1]]).astype(object).replace(1.0, "one"))


def test_quantities_are_found_by_label_and_not_by_place():
    panel = made_panel(2)
    turned = Panel(panel.prices, panel.quantities.iloc[::-1, ::-1])
    assert fixed_base(turned, "fisher", "t0").values.equals(fixed_base(panel, "fisher", "t0").values)


def test_a_price_without_a_quantity_is_refused_by_the_formulas_that_need_it():
    panel = Panel(table([[1, 2], [1, 3]]), table([[1, 1], [np.nan, 1]]))
    with pytest.raises(MethodError, match="g0 in t1 has a price but no quantity"):
        fixed_base(panel, "fisher", "t0")
    assert fixed_base(panel, "laspeyres", "t0").values["t1"] == pytest.approx(4 / 3)
    with pytest.raises(MethodError, match="walsh needs quantities, and the panel has none"):
        period_on_period(Panel(panel.prices), "walsh")


def test_a_base_outside_the_panel_or_without_a_price_is_refused():
    panel = Panel(table([[1, 2], [np.nan, np.nan]]))
    with pytest.raises(MethodError, match="t9 is outside the panel or index, which holds t0 to t1"):
        fixed_base(panel, "jevons", "t9")
    with pytest.raises(MethodError, match="base period t1: no product"):
        fixed_base(panel, "jevons", "t1")
    with pytest.raises(MethodError, match="jevons t0 to t1: no product"):
        contributions(panel, "jevons", "t0", "t1")


def test_baskets_are_given_to_the_formulas_that_take_them_and_only_these():
    panel = made_panel(3)
    with pytest.raises(MethodError, match="lowe needs the quantities or values"):
        fixed_base(panel, "lowe", "t0")
    with pytest.raises(MethodError, match="fisher takes its weights from the periods compared"):
        fixed_base(panel, "fisher", "t0", {"g0": 1.0})
    with pytest.raises(MethodError, match="weight of g9: the panel has no such product"):
        fixed_base(panel, "lowe", "t0", {"g9": 1.0})
    with pytest.raises(MethodError, match="weight of g1: -1 is below zero"):
        fixed_base(panel, "young", "t0", {"g0": 1.0, "g1": -1.0})
    with pytest.raises(MethodError, match="no formula is called 'drobisch'"):
        fixed_base(panel, "drobisch", "t0")


# ---------------------------------------------------------------------------- chained, but once


@pytest.mark.parametrize("formula", [f for f in ALL if f not in WEIGHTED_BY_BASKET])
def test_a_chained_index_is_the_product_of_its_links_forwards_and_backwards(formula):
    panel = made_panel(5)
    links = [fixed_base(part(panel, t - 1, t + 1), formula, f"t{t - 1}").values[f"t{t}"] for t in range(1, 8)]
    levels = chain(period_on_period(panel, formula), "t3").values
    assert levels["t3"] == 1
    assert levels["t7"] == pytest.approx(math.prod(links[3:]), rel=1e-13)
    assert levels["t0"] == pytest.approx(1 / math.prod(links[:3]), rel=1e-13)


@pytest.mark.parametrize("formula", ["jevons", "lowe"])
def test_a_circular_formula_does_not_drift_on_a_complete_panel(formula):
    panel = made_panel(6, missing=0)
    basket = panel.quantities.iloc[2] if formula == "lowe" else None
    chained = chain(period_on_period(panel, formula, basket)).values
    assert np.allclose(chained, fixed_base(panel, formula, "t0", basket).values, rtol=1e-13, atol=0)


def test_no_chain_crosses_a_gap():
    panel = Panel(table([[1.0], [2.0], [np.nan], [4.0], [5.0]]))
    assert chain(period_on_period(panel, "jevons")).values.tolist() == pytest.approx([1, 2] + [np.nan] * 3, nan_ok=True)
    later = chain(period_on_period(panel, "jevons"), "t3").values.tolist()
    assert later == pytest.approx([np.nan] * 3 + [1, 1.25], nan_ok=True)


def test_an_index_cannot_be_chained_twice():
    index_once = chain(period_on_period(made_panel(7), "tornqvist"))
    with pytest.raises(MethodError, match="chaining it again is wrong"):
        chain(index_once)
    with pytest.raises(MethodError, match="chaining it again is wrong"):
        chain(fixed_base(made_panel(7), "tornqvist", "t0"))
    assert typing.get_type_hints(chain)["index"] is ChainableIndex
    assert not issubclass(FixedBaseIndex, ChainableIndex) and not issubclass(ChainableIndex, FixedBaseIndex)


def test_a_level_of_zero_is_no_index():
    with pytest.raises(MethodError, match="index of b: 0 is not above zero"):
        FixedBaseIndex(pd.Series([1.0, 0.0], index=["a", "b"]), "a")
    with pytest.raises(MethodError, match="period a appears twice"):
        FixedBaseIndex(pd.Series([1.0, 1.0], index=["a", "a"]), "a")
    with pytest.raises(MethodError, match="a month 1 to 12"):
        ChainableIndex(pd.Series([1.0], index=["a"]), 13)


# -------------------------------------------------------------------------------- contributions


@pytest.mark.parametrize("decomposition", ["van_ijzeren", "nested_logmean"])
@pytest.mark.parametrize("formula", ALL)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_contributions_sum_to_the_change_of_the_index(formula, decomposition, seed):
    panel = made_panel(seed, periods=3, products=7)
    basket = panel.quantities.loc["t1"] if formula in WEIGHTED_BY_BASKET else None
    parts = contributions(panel, formula, "t0", "t2", basket, decomposition)
    change = fixed_base(panel, formula, "t0", basket).values["t2"] - 1
    assert math.fsum(parts.dropna()) == pytest.approx(change, abs=1e-12 * max(1, abs(change)))
    matched = panel.prices.loc[["t0", "t2"]].notna().all() & (basket is None or basket.notna())
    assert parts.notna().equals(matched)
    assert (np.sign(parts[matched]) == np.sign((panel.prices.loc["t2"] - panel.prices.loc["t0"])[matched])).all()


def test_van_ijzeren_prices_one_basket_of_both_periods():
    panel = made_panel(9, periods=2, missing=0)
    (p_0, p_t), (q_0, q_t) = panel.prices.to_numpy(), panel.quantities.to_numpy()
    fisher = fixed_base(panel, "fisher", "t0").values["t1"]
    basket = q_0 + q_t / ((p_t @ q_t) / (p_0 @ q_0) / fisher)
    assert (p_t @ basket) / (p_0 @ basket) == pytest.approx(fisher, rel=1e-14)
    assert np.allclose(contributions(panel, "fisher", "t0", "t1"), (p_t - p_0) * basket / (p_0 @ basket), rtol=1e-12)


def test_the_two_decompositions_of_fisher_differ_and_no_third_exists():
    panel = made_panel(9, periods=2, missing=0)
    one = contributions(panel, "fisher", "t0", "t1")
    assert not np.allclose(one, contributions(panel, "fisher", "t0", "t1", None, "nested_logmean"), rtol=1e-4)
    with pytest.raises(MethodError, match="no decomposition of Fisher is called 'shapley'"):
        contributions(panel, "fisher", "t0", "t1", None, "shapley")


@pytest.mark.parametrize("formula", [f for f in ALL if f not in WEIGHTED_BY_BASKET])
def test_a_change_of_unit_or_currency_moves_no_contribution(formula):
    panel = made_panel(10, periods=2, missing=0)
    units = pd.Series([2204.6226, 1000, 1, 0.01, 32.1507, 7.2], index=panel.prices.columns)
    other = Panel(panel.prices * units, panel.quantities / units)
    one, two = (contributions(p, formula, "t0", "t1", None, "nested_logmean") for p in (panel, other))
    assert np.allclose(one, two, rtol=1e-11, atol=1e-14)


def test_the_logarithmic_mean_is_exact_near_equality_and_at_the_limits():
    near = 1 + np.array([1e-15, 1e-9, 1e-4])
    x = near * 7 / 7 - 1
    assert np.allclose(logarithmic_mean(7 * near, 7.0) / 7, 1 + x / 2 - x**2 / 12 + x**3 / 24, rtol=1e-15, atol=0)
    assert logarithmic_mean([3.0, 0.0, 2.0, 0.0], [3.0, 2.0, 0.0, 0.0]).tolist() == [3, 0, 0, 0]
    assert logarithmic_mean(math.e, 1.0) == pytest.approx(math.e - 1, rel=1e-15)
    assert logarithmic_mean(1e-12, 1.0) == pytest.approx((1 - 1e-12) / (12 * math.log(10)), rel=1e-14)


# --------------------------------------------------------------------------------- multilateral


@pytest.mark.parametrize("formula", GEKS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_geks_is_the_mean_of_all_paths_and_so_transitive_on_incomplete_panels(formula, seed):
    panel = made_panel(seed, periods=6)
    pairs = np.log([fixed_base(panel, formula, period).values for period in panel.prices.index])
    levels = {base: multilateral.geks(panel, formula, base).values for base in panel.prices.index}
    for (s, one), (t, two) in itertools.product(enumerate(levels), repeat=2):
        assert math.log(levels[one][two]) == pytest.approx((pairs[s] + pairs[:, t]).mean(), abs=1e-12)
        assert levels[one][two] * levels[two]["t0"] == pytest.approx(levels[one]["t0"], rel=1e-12)


@pytest.mark.parametrize("formula", GEKS)
def test_geks_ignores_units_and_passes_a_period_scaled_on_to_its_own_level(formula):
    panel = made_panel(11)
    units = pd.Series([2204.6226, 1000, 1, 0.01, 32.1507, 7.2], index=panel.prices.columns)
    levels = multilateral.geks(panel, formula).values
    in_other_units = multilateral.geks(Panel(panel.prices * units, panel.quantities / units), formula).values
    assert np.allclose(levels, in_other_units, rtol=1e-12, atol=0)
    scaled = panel.prices.copy()
    scaled.loc["t4"] *= 3
    expected = levels * np.where(levels.index == "t4", 3, 1)
    assert np.allclose(multilateral.geks(Panel(scaled, panel.quantities), formula).values, expected, rtol=1e-12)


@pytest.mark.parametrize("formula", ["fisher", "tornqvist", "walsh"])
def test_geks_returns_when_prices_and_quantities_return_but_not_when_only_prices_do(formula):
    panel = made_panel(12, missing=0)
    prices, quantities = panel.prices.copy(), panel.quantities.copy()
    prices.loc["t7"] = prices.loc["t0"]
    assert abs(multilateral.geks(Panel(prices, quantities), formula).values["t7"] - 1) > 1e-6
    quantities.loc["t7"] = quantities.loc["t0"]
    assert multilateral.geks(Panel(prices, quantities), formula).values["t7"] == pytest.approx(1, abs=1e-13)
    drifted = chain(period_on_period(Panel(prices, quantities), formula)).values["t7"]
    assert abs(drifted - 1) > 1e-4


def test_geks_over_jevons_is_jevons_on_a_complete_panel():
    panel = made_panel(13, missing=0)
    assert np.allclose(multilateral.geks(panel, "jevons").values, fixed_base(panel, "jevons", "t0").values, rtol=1e-13)


def test_a_period_without_prices_takes_no_part_in_geks():
    panel = made_panel(14)
    prices = panel.prices.copy()
    prices.loc["t3"] = np.nan
    levels = multilateral.geks(Panel(prices, panel.quantities), "fisher").values
    rest = Panel(prices.drop("t3"), panel.quantities.drop("t3"))
    assert math.isnan(levels["t3"])
    assert np.allclose(levels.drop("t3"), multilateral.geks(rest, "fisher").values, rtol=1e-13)
    with pytest.raises(MethodError, match="base period t3"):
        multilateral.geks(Panel(prices, panel.quantities), "fisher", "t3")


@pytest.mark.parametrize("formula", ["laspeyres", "young", "nothing"])
def test_geks_takes_only_its_own_formulas(formula):
    with pytest.raises(MethodError, match="reverse in time"):
        multilateral.geks(made_panel(15), formula)


@pytest.mark.parametrize("method", ["movement", "window", "half", "mean"])
@pytest.mark.parametrize("history", ["recalculated", "published"])
def test_a_splice_joins_the_new_window_where_it_says(method, history):
    panel, width = made_panel(16, periods=9), 5
    windows = multilateral.geks_windows(panel, "tornqvist", width)
    levels = [list(multilateral.geks(part(panel, k, k + width), "tornqvist").values) for k in range(5)]
    points = {"movement": [4], "window": [1], "half": [3], "mean": [1, 2, 3, 4]}[method]
    out = list(levels[0])
    for k in range(1, 5):
        new, old = levels[k], levels[k - 1] if history == "recalculated" else out[k - 1 :]
        steps = [(new[-1] / new[point - 1]) / (old[4] / old[point]) for point in points]
        out.append(out[-1] * math.prod(steps) ** (1 / len(steps)))
    assert np.allclose(multilateral.splice(windows, method, history).values, out, rtol=1e-12, atol=0)


def test_a_movement_splice_is_the_same_on_either_history_and_no_splice_is_transitive():
    panel = made_panel(17, periods=9)
    windows = multilateral.geks_windows(panel, "fisher", 5)
    one, two = (multilateral.splice(windows, "movement", history).values for history in ("recalculated", "published"))
    assert np.allclose(one, two, rtol=1e-13, atol=0)
    assert not np.allclose(one, multilateral.geks(panel, "fisher").values, rtol=1e-4)
    whole = multilateral.splice(multilateral.geks_windows(panel, "fisher", 9), "mean")
    assert np.allclose(whole.values, multilateral.geks(panel, "fisher").values, rtol=1e-13)


def test_published_values_are_not_revised_by_later_periods():
    panel = made_panel(18, periods=9)
    before = Panel(panel.prices.iloc[:8], panel.quantities.iloc[:8])
    for method in ("movement", "window", "half", "mean"):
        one = multilateral.splice(multilateral.geks_windows(before, "tornqvist", 5), method).values
        two = multilateral.splice(multilateral.geks_windows(panel, "tornqvist", 5), method).values
        assert np.allclose(one, two.iloc[:8], rtol=1e-14, atol=0)


def test_windows_and_splices_that_cannot_be_are_refused():
    panel = made_panel(19)
    for window in (1, 9):
        with pytest.raises(MethodError, match=f"2 to 8 periods, not {window}"):
            multilateral.geks_windows(panel, "fisher", window)
    windows = multilateral.geks_windows(panel, "fisher", 4)
    with pytest.raises(MethodError, match="4 is even"):
        multilateral.splice(windows, "half")
    with pytest.raises(MethodError, match="no splice is called 'full'"):
        multilateral.splice(windows, "full")


def test_an_empty_month_breaks_a_movement_splice_and_not_a_mean_splice_on_published_history():
    panel = made_panel(20, periods=12)
    prices = panel.prices.copy()
    prices.loc["t7"] = np.nan
    windows = multilateral.geks_windows(Panel(prices, panel.quantities), "tornqvist", 5)
    assert multilateral.splice(windows, "movement").values.isna().tolist() == [False] * 7 + [True] * 5
    mean = multilateral.splice(windows, "mean", "published").values
    assert mean.index[mean.isna()].tolist() == ["t7"]
