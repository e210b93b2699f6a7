import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pricing.errors import MethodError
from pricing.index import LINK_STEP, Link, capped, fixed_basket, impute, value_shares

NAN = math.nan


def months(count: int, first: str = "2024-01") -> list[str]:
    return [str(p) for p in pd.period_range(first, periods=count, freq="M")]


def table(index: list[str], **columns: list) -> pd.DataFrame:
    return pd.DataFrame(columns, index=index, dtype="float64")


def link(month: str, **shares: float) -> Link:
    return Link(month, shares, shares)


def level(index) -> pd.Series:
    return index.frame["unrounded"]


# ------------------------------------------------------------------------------------------- shares


def exactly_capped(shares: dict[str, int], cap: Fraction) -> dict[str, Fraction]:
    """The k largest at the cap, the rest in proportion, for the smallest k that keeps the rest below it."""
    order = sorted(shares, key=lambda key: -shares[key])
    for k in range(len(order)):
        rest = sum(shares[key] for key in order[k:])
        out = {key: cap if i < k else (1 - k * cap) * Fraction(shares[key], rest) for i, key in enumerate(order)}
        if all(out[key] <= cap for key in order[k:]):
            return out
    return dict.fromkeys(order, cap)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=9), st.integers(0, 40))
def test_capped_shares_are_the_ones_that_keep_every_promise(raw, above):
    shares = {f"m{i}": value for i, value in enumerate(raw)}
    cap = Fraction(1, len(raw)) * (1 + Fraction(above, 10))
    assume(cap <= 1)
    got = capped(shares, float(cap))
    assert math.fsum(got.values()) == pytest.approx(1, abs=1e-12)
    assert max(got.values()) <= float(cap) + 1e-12
    for a in shares:
        assert all(got[a] >= got[b] - 1e-12 for b in shares if shares[a] >= shares[b])
    expected = exactly_capped(shares, cap)
    assert got == pytest.approx({key: float(value) for key, value in expected.items()}, abs=1e-12)


def test_a_cap_below_one_nth_is_refused_and_one_nth_is_equal_weight():
    with pytest.raises(MethodError, match=r"a cap of 0\.3 is below 1/3"):
        capped({"a": 1.0, "b": 2.0, "c": 3.0}, 0.3)
    assert capped({"a": 1.0, "b": 2.0, "c": 3.0}, 1 / 3) == pytest.approx(dict.fromkeys("abc", 1 / 3))
    with pytest.raises(MethodError, match="no weights"):
        capped({}, 0.3)


def test_shares_of_value_are_tonnage_times_price_where_both_are_known():
    got = value_shares({"a": 3.0, "b": 1.0, "c": 5.0, "d": 0.0}, {"a": 10.0, "b": 70.0, "d": 4.0, "e": 1.0})
    assert got == {"a": 0.3, "b": 0.7}


# ---------------------------------------------------------------------------------------- imputation


def test_a_gap_moves_with_the_rest_of_the_basket_and_corrects_itself():
    prices = table(months(4), a=[100, 110, 121, 121], b=[10, 10, 20, 20], c=[1, NAN, NAN, 7])
    filled, mask = impute(prices, {"a": 0.5, "b": 0.3, "c": 0.2})
    first = (0.5 * 1.1 + 0.3 * 1.0) / 0.8
    second = (0.5 * 1.1 + 0.3 * 2.0) / 0.8
    assert filled["c"].tolist() == pytest.approx([1, first, first * second, 7], rel=1e-15)
    assert mask["c"].tolist() == [False, True, True, False]
    assert not mask[["a", "b"]].any().any()


panels = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def panel(rng, count=30, gaps=0.0, first="2024-01") -> pd.DataFrame:
    m = int(rng.integers(2, 6))
    values = rng.uniform(1, 1e5, m) * np.exp(np.cumsum(rng.normal(0, 0.1, (count, m)), axis=0))
    values[rng.random(values.shape) < gaps] = np.nan
    values[:, 0] = np.where(np.isnan(values[:, 0]), 123.0, values[:, 0])  # somebody always trades
    return pd.DataFrame(values, index=months(count, first), columns=list("abcdef"[:m]))


def shares_of(rng, columns) -> dict[str, float]:
    raw = rng.uniform(0.1, 1, len(columns))
    return dict(zip(columns, (raw / raw.sum()).tolist(), strict=True))


@settings(max_examples=120, deadline=None)
@given(panels)
def test_what_is_filled_is_marked_what_is_observed_stays_and_nothing_precedes_the_first_price(rng):
    prices = panel(rng, gaps=rng.uniform(0, 0.6))
    filled, mask = impute(prices, shares_of(rng, prices.columns))
    assert (mask == (prices.isna() & filled.notna())).all().all()
    pd.testing.assert_frame_equal(filled.where(prices.notna()), prices)
    started = prices.ffill().notna()
    assert (filled.notna() == started).all().all()
    assert (filled.fillna(1.0) > 0).all().all()


# ------------------------------------------------------------------------------------- fixed basket


def test_a_basket_over_two_links_by_hand():
    index = ["2024-02", "2024-03", "2024-04", "2025-03", "2025-04"]
    prices = table(index, a=[100, 200, 300, 400, 500], b=[10, 10, 5, 20, 10])
    links = [link("2024-03", a=0.5, b=0.5), link("2025-03", a=0.75, b=0.25)]
    made = fixed_basket(prices, links, "2024-03", 1.0)
    # q_a = .5/200 and .75/400, q_b = .5/10 and .25/20, each for one unit of the index at its link
    assert level(made).tolist() == pytest.approx([75, 100, 100, 200, 200 * (0.75 * 1.25 + 0.25 * 0.5)], rel=1e-14)
    assert made.frame["status"].tolist() == ["back-cast", "back-cast", "normal", "normal", "normal"]
    assert made.frame["link"].tolist() == ["2024-03"] * 4 + ["2025-03"]
    assert made.frame["covered"].tolist() == [1.0] * 5
    assert made.contributions["a"].tolist() == pytest.approx([0, 25, 25, 25, 37.5], rel=1e-14)
    assert made.contributions["b"].tolist() == pytest.approx([0, 0, -25, 75, -25], rel=1e-14)
    assert made.weights.loc["2025-04"].tolist() == pytest.approx([0.75, 0.25], rel=1e-14)
    assert made.weights.loc["2024-04"].tolist() == pytest.approx([0.5, 0.5], rel=1e-14)


def lowe(prices: pd.DataFrame, links: list[Link], base: str) -> np.ndarray:
    """Chained Lowe index from its definition, one link after the other; days or months."""
    month = np.array([p[:7] for p in prices.index])

    def relative(of: Link) -> np.ndarray:
        at = prices[month == of.month].mean()
        return sum(of.shares[c] * (prices[c] / at[c]).to_numpy() for c in of.shares)

    out = relative(links[0])
    for one in links[1:]:
        after = month > one.month
        out[after] = relative(one)[after] * out[month == one.month].mean()
    chosen = sorted({m for m in month if m.startswith(base)})
    return out / np.mean([out[month == m].mean() for m in chosen]) * 100


def drawn_links(rng, prices) -> list[Link]:
    spots = sorted(rng.choice(sorted({p[:7] for p in prices.index})[:-1], int(rng.integers(1, 4)), replace=False))
    return [link(str(m), **shares_of(rng, prices.columns)) for m in spots]


@settings(max_examples=120, deadline=None)
@given(panels, st.sampled_from(["2024", "2025", "2024-07", "2026-01"]))
def test_on_complete_prices_it_is_the_lowe_index_of_the_manual(rng, base):
    prices = panel(rng)
    links = drawn_links(rng, prices)
    made = fixed_basket(prices, links, base, 1.0)
    assert np.allclose(level(made), lowe(prices, links, base), rtol=1e-12, atol=0)
    assert level(made)[prices.index.str.startswith(base)].mean() == pytest.approx(100, rel=1e-13)
    back = prices.index <= links[0].month
    assert made.frame["status"].tolist() == np.where(back, "back-cast", "normal").tolist()


def daily(rng, gaps: float = 0.0) -> pd.DataFrame:
    prices = panel(rng, count=14)
    days = [str(d.date()) for d in pd.bdate_range(f"{prices.index[0]}-01", f"{prices.index[-1]}-28")]
    days = [d for d in days if rng.random() < 0.4] or days
    values = prices.to_numpy()[0] * np.exp(np.cumsum(rng.normal(0, 0.05, (len(days), prices.shape[1])), axis=0))
    values[rng.random(values.shape) < gaps] = np.nan
    values[:, 0] = np.where(np.isnan(values[:, 0]), 99.0, values[:, 0])
    return pd.DataFrame(values, index=days, columns=prices.columns)


@settings(max_examples=100, deadline=None)
@given(panels)
def test_the_mean_of_a_months_days_is_the_months_index(rng):
    days = daily(rng)
    by_month = days.groupby(days.index.str[:7]).mean()
    links = drawn_links(rng, by_month)
    base = by_month.index[int(rng.integers(len(by_month)))]
    of_days, of_months = fixed_basket(days, links, base, 1.0), fixed_basket(by_month, links, base, 1.0)
    means = level(of_days).groupby(days.index.str[:7]).mean()
    assert np.allclose(means, level(of_months), rtol=1e-12, atol=0)
    assert np.allclose(level(of_days), lowe(days, links, base), rtol=1e-12, atol=0)


@settings(max_examples=120, deadline=None)
@given(panels, st.booleans())
def test_contributions_add_up_to_the_change_with_the_step_of_a_link(rng, of_days):
    prices = daily(rng, 0.2) if of_days else panel(rng, gaps=0.2)
    links = drawn_links(rng, prices)
    made = fixed_basket(prices, links, links[0].month, 0.0)
    change, given = level(made).diff(), level(made).notna()
    told = pd.Series([math.fsum(row) for row in made.contributions.to_numpy()], index=prices.index)
    both = given & given.shift(fill_value=False)
    assert both.any()
    assert (told - change)[both].abs().max() <= 1e-12 * level(made).max()
    steps = made.contributions.index[made.contributions[LINK_STEP].abs() > 1e-9]
    first_after = {prices.index[prices.index.str[:7] > one.month][0] for one in links}
    assert set(steps) <= (first_after if of_days else set())


@settings(max_examples=100, deadline=None)
@given(panels, st.floats(1e-6, 1e6))
def test_the_unit_of_one_input_does_not_matter(rng, factor):
    prices = panel(rng, gaps=0.15)
    links = drawn_links(rng, prices)
    scaled = prices.assign(b=prices["b"] * factor)
    plain, other = (fixed_basket(p, links, links[0].month, 0.3) for p in (prices, scaled))
    assert np.allclose(level(plain), level(other), rtol=1e-12, atol=0, equal_nan=True)
    assert np.allclose(plain.contributions, other.contributions, rtol=1e-9, atol=1e-9, equal_nan=True)
    assert plain.frame["status"].tolist() == other.frame["status"].tolist()


# -------------------------------------------------------------------------------------- missing prices


def test_a_missing_price_is_imputed_and_flagged_and_counts_as_not_covered():
    prices = table(months(5), a=[100, 100, 110, 121, 121], b=[50, 50, NAN, NAN, 60])
    made = fixed_basket(prices, [link("2024-02", a=0.7, b=0.3)], "2024-02", 0.7)
    assert level(made).tolist() == pytest.approx([100, 100, 110, 121, 70 * 1.21 + 36], rel=1e-14)
    assert made.frame["status"].tolist() == ["back-cast", "back-cast", "imputed", "imputed", "normal"]
    assert made.frame["covered"].tolist() == pytest.approx([1, 1, 0.7, 0.7, 1])
    assert made.imputed["b"].tolist() == [False, False, True, True, False]


def test_below_the_least_weight_there_is_no_value_and_afterwards_it_goes_on():
    prices = table(months(5), a=[100, 100, NAN, NAN, 121], b=[50, 50, 55, 55, 60])
    made = fixed_basket(prices, [link("2024-02", a=0.7, b=0.3)], "2024-02", 0.5)
    assert level(made).isna().tolist() == [False, False, True, True, False]
    assert made.frame["status"].tolist() == ["back-cast", "back-cast", "insufficient", "insufficient", "normal"]
    assert level(made).iloc[-1] == pytest.approx(70 * 1.21 + 36, rel=1e-14)


@settings(max_examples=120, deadline=None)
@given(panels, st.floats(0.1, 1.0))
def test_a_value_never_rests_unmarked_on_a_price_that_nobody_saw(rng, least):
    prices = panel(rng, gaps=0.4)
    links = [link("2024-06", **shares_of(rng, prices.columns))]
    assume(prices[:"2024-06"].notna().any().all())  # one that enters later: see the end of this file
    own = prices.notna().mul(pd.Series(links[0].shares)).sum(axis=1)
    try:
        made = fixed_basket(prices, links, "2024-06", least)
    except MethodError:
        assume(False)
    status = made.frame["status"]
    assert np.allclose(made.frame["covered"], own, rtol=1e-12)
    assert (level(made).isna() == (status == "insufficient")).all()
    assert (own[level(made).notna()] >= least - 1e-9).all()
    weighed = made.weights > 0
    rests = status[(prices.isna() & weighed).any(axis=1) & level(made).notna()]
    assert rests[rests.index > "2024-06"].eq("imputed").all() and rests.isin(["imputed", "back-cast"]).all()
    assert not (status[prices.notna().all(axis=1)] == "imputed").any()


def test_a_market_whose_history_starts_later_joins_the_back_cast_without_a_step():
    prices = table(months(4), a=[50, 100, 200, 200], b=[NAN, NAN, 10, 11])
    made = fixed_basket(prices, [link("2024-04", a=0.5, b=0.5)], "2024-04", 0.5)
    before_last = 0.5 + 0.5 * 10 / 11
    assert level(made).tolist() == pytest.approx([25 * before_last, 50 * before_last, 100 * before_last, 100])


def test_a_market_without_a_price_in_the_link_month_enters_at_the_next_link():
    prices = table(months(6), a=[100, 100, 110, 110, 110, 121], b=[NAN, NAN, 10, 20, 40, 40])
    links = [link("2024-02", a=0.5, b=0.5), link("2024-05", a=0.5, b=0.5)]
    made = fixed_basket(prices, links, "2024-02", 0.0)
    assert level(made).tolist() == pytest.approx([100, 100, 110, 110, 110, 115.5])
    assert made.weights["b"].tolist() == pytest.approx([0, 0, 0, 0, 0, 0.5])


@settings(max_examples=60, deadline=None)
@given(panels)
def test_a_market_that_joins_or_leaves_at_unchanged_prices_moves_nothing(rng):
    """Until the link the index is the old basket's, then it moves as the new one's; the change itself is no move."""
    prices = panel(rng, count=8)
    few = list(prices.columns[:-1])
    small, large = shares_of(rng, few), shares_of(rng, prices.columns)
    for first, second in ((small, large), (large, small)):
        before = Link("2024-02", first, first)
        still = prices.copy()
        still.loc["2024-05":] = prices.loc["2024-05"].to_numpy()
        changed = fixed_basket(still, [before, Link("2024-05", second, second)], "2024-02", 0.0)
        kept = fixed_basket(still, [before], "2024-02", 0.0)
        assert np.allclose(level(changed), level(kept), rtol=1e-13, atol=0)
        assert changed.contributions.loc["2024-06":].abs().to_numpy().max() < 1e-9
        moving = fixed_basket(prices, [before, Link("2024-05", second, second)], "2024-02", 0.0)
        alone = fixed_basket(prices, [Link("2024-05", second, second)], "2024-05", 0.0)
        joined = level(moving)["2024-05":] / level(moving)["2024-05"] * 100
        assert np.allclose(joined, level(alone)["2024-05":], rtol=1e-13, atol=0)


def test_a_market_that_has_left_is_neither_imputed_nor_missed():
    prices = table(months(5), a=[100, 100, 110, 121, 121], b=[50, 50, 60, NAN, NAN])
    made = fixed_basket(prices, [link("2024-02", a=0.7, b=0.3), link("2024-03", a=1.0)], "2024-02", 1.0)
    assert made.frame["status"].tolist()[2:] == ["normal"] * 3 and made.frame["covered"].tolist()[3:] == [1, 1]
    assert not made.imputed.any().any() and made.quantities["b"].tolist()[3:] == [0, 0]


@pytest.mark.parametrize(
    ("links", "base", "message"),
    [
        ([], "2024-01", "starts with its weights"),
        ([link("2023-03", a=1.0)], "2024-01", "the link month 2023-03 has no prices"),
        ([link("2024-01", b=1.0)], "2024-01", "no constituent has a price in the link month 2024-01"),
        ([link("2024-01", a=1.0)], "2020", "base period 2020 has no price; there are prices in 2024-01 to 2024-03"),
    ],
)
def test_what_cannot_be_compiled_is_refused_with_its_reason(links, base, message):
    prices = table(months(3), a=[1, 2, 3], b=[NAN, 1, 1])
    with pytest.raises(MethodError, match=message):
        fixed_basket(prices, links, base, 0.5)


# ------------------------------------------------------------------------- found wrong: to be mended


def test_a_period_in_which_only_an_unweighted_market_trades_does_not_end_the_others():
    """On such a day nothing moves the gaps, so nothing is filled, and the next gap has no price before it."""
    prices = table(months(5), a=[100, 100, 110, NAN, NAN], b=[50, 50, 50, NAN, 55], c=[7, 7, 7, 7, 7])
    made = fixed_basket(prices, [link("2024-02", a=0.5, b=0.5)], "2024-02", 0.5)
    assert made.frame["covered"].tolist() == [1, 1, 1, 0, 0.5]
    assert made.frame["status"].tolist()[3:] == ["insufficient", "imputed"]
    assert made.contributions.notna().all().all()


def test_a_market_that_stays_out_until_the_next_link_is_not_counted_as_covered():
    """Daily prices of b begin after the link month: the daily index is one of a alone, and must not say it has all."""
    prices = table(months(4), a=[100, 100, 110, 121], b=[NAN, NAN, 10, 20])
    made = fixed_basket(prices, [link("2024-02", a=0.4, b=0.6)], "2024-02", 0.8)
    assert made.frame["covered"].tolist()[2:] == [0.4, 0.4]
    assert level(made).isna().all()


def test_an_imputed_back_cast_is_still_called_a_back_cast():
    prices = table(months(4), a=[100, 100, 100, 100], b=[50, NAN, 50, 50])
    made = fixed_basket(prices, [link("2024-03", a=0.5, b=0.5)], "2024-03", 0.5)
    assert all("back-cast" in status for status in made.frame["status"][:3])
