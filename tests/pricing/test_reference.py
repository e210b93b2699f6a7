import datetime as dt
from fractions import Fraction

import made_method
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing import figures
from pricing.config import Basis, Determination, Market, Methodology, Series
from pricing.judgement import Judgement
from pricing.reference import (
    OUT_STATUSES,
    Quotes,
    by_origin,
    capped_rows,
    determine,
    estimate_bases,
    influence,
    monthly_from_daily,
    ratios_in_force,
    reviews,
    usable,
    weighted_median,
)

RULES = Determination.model_validate(made_method.RULES)
TIERS = RULES.tier_weights
MARKET = Market(mineral="tin", stage="metal", zone="XCN", per="product", anchor="a")
METHOD = Methodology.model_validate(
    {
        **made_method.METHOD,
        "basis": {
            "review_month": 1,
            "window_months": 3,
            "min_common": {"daily": 5, "weekly": 5, "ten-day": 5, "monthly": 3},
        },
        "markets": [MARKET.model_dump()],
        "baskets": {},
    }
)


def days(count: int, first: str = "2025-01-01", step: int = 1) -> list[str]:
    start = dt.date.fromisoformat(first)
    return [str(start + dt.timedelta(days=step * i)) for i in range(count)]


def house(name: str, **facts) -> Series:
    defaults = {"origin": name, "unit": "USD/t", "frequency": "daily", "tier": "assessment"}
    return Series.model_validate({"id": name, "mineral": "tin", "stage": "metal", "zone": "XCN", **defaults, **facts})


def quoted(table: pd.DataFrame, series=None, status=None, frequency="daily", closed=frozenset()) -> Quotes:
    """Quotations in USD/t, as a period × series table."""
    series = tuple(series or (house(str(c)) for c in table.columns))
    said = table.notna().replace({True: "normal", False: ""}).astype(object)
    for (period, name), text in (status or {}).items():
        said.loc[period, name] = text
    blank = table * np.nan
    return Quotes(MARKET, frequency, series, table, table, said, blank, blank.astype(object), blank, closed)


def bases(**ratios: float) -> list[dict]:
    return [{"effective": "", "origin": origin, "ratio": ratio} for origin, ratio in ratios.items()]


def prices(rows: dict[str, list], series=None, status=None, **ratios: float):
    """Determine from one list per series; every origin has basis 1 unless it is given another."""
    table = pd.DataFrame(rows, index=days(len(next(iter(rows.values())))), dtype="float64")
    made = quoted(table, series, status)
    known = {s.origin: 1.0 for s in made.series} | ratios
    return determine(made, bases(**known), RULES)


# ------------------------------------------------------------------------------- weighted median


def brute_median(values, weights) -> Fraction | None:
    """Middle of all values that have at most half of the weight on either side, in exact arithmetic."""
    kept = [(Fraction(v), Fraction(w)) for v, w in zip(values, weights, strict=True) if v is not None and w]
    half = sum((w for _, w in kept), Fraction(0)) / 2
    middle = [
        x
        for x, _ in kept
        if sum((w for v, w in kept if v < x), Fraction(0)) <= half
        and sum((w for v, w in kept if v > x), Fraction(0)) <= half
    ]
    return (min(middle) + max(middle)) / 2 if middle else None


cells = st.tuples(st.one_of(st.none(), st.integers(1, 6)), st.integers(0, 10))


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 6).flatmap(lambda m: st.lists(st.lists(cells, min_size=m, max_size=m), min_size=1, max_size=4)))
def test_the_weighted_median_is_the_middle_of_the_weight(rows):
    values = np.array([[np.nan if v is None else v for v, _ in row] for row in rows], dtype=float)
    got = weighted_median(values, np.array([[w / 10 for _, w in row] for row in rows]))
    for row, median in zip(rows, got, strict=True):
        expected = brute_median([v for v, _ in row], [w for _, w in row])
        assert np.isnan(median) if expected is None else median == pytest.approx(float(expected), rel=1e-14)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=9), st.sampled_from([0.3, 0.7, 1.0]))
def test_with_equal_weights_it_is_the_ordinary_median(values, weight):
    got = weighted_median(np.array([values]), np.full((1, len(values)), weight))
    assert got[0] == pytest.approx(np.median(values), rel=1e-14)


# ------------------------------------------- an origin that drops out and returns changes nothing

tiers = st.sampled_from(sorted(TIERS))


@st.composite
def panels(draw, count, moving: bool, weekly: bool):
    """True prices, lasting ratios, series and who reports when, drawn by a seeded generator."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    m = draw(st.integers(2, 5))
    periods = days(count, "2024-01-01", 3 if not weekly else 2)
    truth = 1e4 * np.exp(np.cumsum(rng.normal(0, 0.05 if moving else 0.0, count)))
    ratios = {o: float(r) for o, r in zip("abcde"[:m], rng.uniform(0.75, 1.3, m), strict=True)}
    habits = st.sampled_from(["daily", "weekly"] if weekly else ["daily"])
    series = [house(o, tier=draw(tiers), frequency=draw(habits)) for o in ratios]
    reports = rng.random((count, m)) < rng.uniform(0.05, 1.0, m)
    start, length = draw(st.integers(0, count - 1)), draw(st.integers(0, count))
    reports[start : start + length, draw(st.integers(0, m - 1))] = False  # one long absence
    for column, s in enumerate(series):
        if s.frequency == "weekly":
            reports[:, column] &= [dt.date.fromisoformat(p).isocalendar().week % 2 == 0 for p in periods]
    full = pd.DataFrame(truth[:, None] * np.array(list(ratios.values())), index=periods, columns=list(ratios))
    return full, full.where(reports), ratios, series


def at_level(made, level: pd.Series) -> pd.Series:
    """Where a price is given it is the true one; return where that is."""
    given = made.frame["unrounded"].dropna()
    pd.testing.assert_series_equal(given, level[given.index], rtol=1e-12, check_names=False)
    assert not (made.excluded == "cross-section").any()
    return made.frame["unrounded"].notna()


@settings(max_examples=150, deadline=None)
@given(panels(40, moving=True, weekly=False))
def test_with_given_bases_an_origin_that_drops_out_and_returns_changes_no_price(panel):
    full, partial, ratios, series = panel
    level = full["a"] / ratios["a"]
    assert at_level(determine(quoted(full, series), bases(**ratios), RULES), level).all()
    given = at_level(determine(quoted(partial, series), bases(**ratios), RULES), level)
    assert (given == partial.notna().any(axis=1)).all()


def estimated(table: pd.DataFrame, series, known_on: list[str]) -> list[dict]:
    """Bases as successive releases set them, each from what was known on its day."""
    done: list[dict] = []
    for day in known_on:
        seen = table[table.index <= day]
        if len(seen):
            done += figures.bases_due({(MARKET.key, "daily"): quoted(seen, series)}, METHOD, done, day)
    return done


def has_basis(table: pd.DataFrame, set_bases: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(
        {o: [any(b["origin"] == o and b["effective"] <= p for b in set_bases) for p in table.index] for o in table}
    ).set_axis(table.index)


releases = st.lists(st.dates(dt.date(2024, 1, 5), dt.date(2026, 6, 1)), max_size=3).map(
    lambda d: [*sorted(map(str, d)), "2026-07-01"]
)


@settings(max_examples=120, deadline=None)
@given(panels(280, moving=True, weekly=False), releases)
def test_with_estimated_bases_an_origin_that_drops_out_and_returns_changes_no_price(panel, known_on):
    full, partial, _, series = panel
    at_level(determine(quoted(full, series), estimated(full, series, known_on), RULES), full["a"])
    found = estimated(partial, series, known_on)
    given = at_level(determine(quoted(partial, series), found, RULES), full["a"])
    assert (given == (partial.notna() & has_basis(partial, found)).any(axis=1)).all()


@settings(max_examples=80, deadline=None)
@given(panels(300, moving=False, weekly=True), releases)
def test_weekly_origins_that_drop_out_and_return_change_no_price_that_stands_still(panel, known_on):
    full, partial, _, series = panel
    found = estimated(partial, series, known_on)
    made = determine(quoted(partial, series), found, RULES)
    given = at_level(made, full["a"]) & (made.frame["status"] != "estimated")
    assert (given == (partial.notna() & has_basis(partial, found)).any(axis=1)).all()


def test_three_origins_with_bases_that_report_by_turns_do_not_move_the_price():
    rng = np.random.default_rng(1)
    periods = days(600, "2024-01-01")
    level = pd.DataFrame({"a": 1.0, "b": 1.02, "c": 1.05}, index=periods) * 30_000
    seen = level.where(rng.random(level.shape) < [0.9, 0.8, 0.6])
    assert seen.median(axis=1).std() > 100  # what a plain median of levels would do
    made = determine(quoted(seen), estimated(seen, None, ["2024-04-15", "2025-09-01"]), RULES)
    got = made.frame["unrounded"].dropna()
    assert len(got) == seen.notna().any(axis=1).sum() > 590
    assert np.allclose(got, 30_000, rtol=1e-12, atol=0)


@settings(max_examples=40, deadline=None)
@given(panels(30, moving=True, weekly=True), st.randoms(use_true_random=False), st.floats(1e-4, 1e4))
def test_neither_the_order_of_series_nor_the_unit_matters(panel, random, factor):
    _, partial, ratios, series = panel
    partial = partial * np.exp(np.random.default_rng(3).normal(0, 0.1, partial.shape))
    order = list(range(len(series)))
    random.shuffle(order)
    known = bases(**ratios)
    plain = determine(quoted(partial, series), known, RULES).frame
    turned = determine(quoted(partial.iloc[:, order] * factor, [series[i] for i in order]), known, RULES).frame
    for column in ("status", "type", "grade", "origins"):
        assert plain[column].fillna("").tolist() == turned[column].fillna("").tolist()
    assert np.allclose(plain["unrounded"] * factor, turned["unrounded"], rtol=1e-12, atol=0, equal_nan=True)


# --------------------------------------------------------------- exclusion on the cross-section only


def test_a_jump_of_all_origins_excludes_nobody():
    before, after = [28_000.0, 28_100.0, 27_900.0], [46_500.0, 46_600.0, 46_400.0]
    made = prices({o: [b, a] for o, b, a in zip("abc", before, after, strict=True)})
    assert (made.excluded == "").all()
    assert made.frame["unrounded"].tolist() == [28_000.0, 46_500.0]
    assert made.frame["unrounded"].pct_change().iloc[1] > 0.66


@pytest.mark.parametrize(
    ("factor", "rule"),
    [
        (1000.0, "unit-slip (kg and t)"),
        (0.001, "unit-slip (kg and t)"),
        (10.0, "unit-slip (a decimal place)"),
        (0.01, "unit-slip (per cent or cents)"),
        (2.2046, "unit-slip (lb and kg)"),
        (1 / 2204.6, "unit-slip (lb and t)"),
        (31.1, "unit-slip (troy ounce and gram)"),
        (1.5, "cross-section"),
        (0.8, "cross-section"),
    ],
)
def test_one_origin_in_another_unit_is_excluded_with_its_rule_and_moves_nothing(factor, rule):
    good = prices({"a": [100.0], "b": [102.0]})
    made = prices({"a": [100.0], "b": [102.0], "c": [101.0 * factor]})
    assert made.excluded.tolist() == [["", "", rule]]
    assert made.weight[0, 2] == 0
    assert made.frame["unrounded"].tolist() == good.frame["unrounded"].tolist() == [101.0]
    assert made.frame["grade"].tolist() == ["B"] and made.frame["origins"].tolist() == [2]


def test_a_contributor_at_the_limit_stays():
    made = prices({"a": [100.0, 100.0], "b": [100.0, 100.0], "c": [115.0, 115.1]})
    assert made.excluded[:, 2].tolist() == ["", "cross-section"]


def test_two_origins_far_apart_give_no_price():
    made = prices({"a": [100.0, 100.0], "b": [129.9, 130.2]})
    assert made.frame["status"].tolist() == ["normal", "dispersed"]
    assert made.frame["unrounded"].notna().tolist() == [True, False]
    assert (made.excluded == "").all()
    assert made.frame["grade"].isna().tolist() == [False, True]


def test_two_of_four_in_another_unit_give_no_price():
    made = prices({"a": [100.0], "b": [101.0], "c": [100_000.0], "d": [101_000.0]})
    assert made.frame["unrounded"].isna().all()


def test_an_origin_without_a_basis_stays_out_and_says_so():
    table = pd.DataFrame({"a": [100.0], "b": [150.0]}, index=days(1))
    made = determine(quoted(table), bases(a=1.0), RULES)
    assert made.excluded.tolist() == [["", "no-basis"]]
    assert made.frame["unrounded"].tolist() == [100.0]
    assert determine(quoted(table), [], RULES).frame["unrounded"].isna().all()


@pytest.mark.parametrize("status", OUT_STATUSES)
def test_what_was_voided_suspended_or_locked_is_no_price(status):
    made = prices({"a": [100.0, 80_000.0, 101.0]}, status={("2025-01-02", "a"): status})
    assert made.frame["unrounded"].isna().tolist() == [False, True, False]
    assert made.frame["status"].tolist() == ["normal", "suspended", "normal"]
    assert made.frame["type"].tolist()[1] == "none" and made.frame["grade"].isna().tolist()[1]
    # others that trade on still make a price
    both = prices({"a": [80_000.0], "b": [100.0]}, status={("2025-01-01", "a"): status})
    assert both.frame[["unrounded", "status"]].values.tolist() == [[100.0, "normal"]]


def test_provisional_and_missing_are_not_suspended():
    made = prices({"a": [100.0, np.nan]}, status={("2025-01-01", "a"): "provisional"})
    assert made.frame["status"].tolist() == ["normal", "missing"]


# --------------------------------------------------------------------------------- age and grade

WEEKLY = [house("a"), house("b"), house("w", frequency="weekly")]


def test_a_weekly_quotation_lives_for_six_days():
    rows = {"a": [100.0] * 9, "b": [100.0] * 9, "w": [103.0] + [np.nan] * 8}
    made = prices(rows, WEEKLY)
    assert (made.chosen[:, 2] >= 0).tolist() == [True] * 7 + [False] * 2
    assert made.age[:7, 2].tolist() == list(range(7))
    assert made.frame["origins"].tolist() == [3] * 7 + [2] * 2
    assert made.frame["grade"].tolist() == ["A"] + ["B"] * 8  # aged quotations earn no grade


@pytest.mark.parametrize("value", [np.nan, 50.0])
def test_a_weekly_quotation_does_not_live_on_across_a_voided_one(value):
    rows = {"a": [100.0] * 6, "b": [100.0] * 6, "w": [103.0, np.nan, value, np.nan, 104.0, np.nan]}
    made = prices(rows, WEEKLY, {("2025-01-03", "w"): "voided"})
    assert (made.chosen[:, 2] >= 0).tolist() == [True, True, False, False, True, True]
    assert made.adjusted[[0, 1, 4, 5], 2].tolist() == [103.0, 103.0, 104.0, 104.0]


def test_a_daily_quotation_is_for_its_own_day_only():
    made = prices({"a": [100.0, np.nan], "b": [np.nan, 102.0]})
    assert made.frame["unrounded"].tolist() == [100.0, 102.0]
    assert (made.chosen >= 0).tolist() == [[True, False], [False, True]]


def test_aged_quotations_alone_make_an_estimate_for_as_long_as_the_relaxed_window_says():
    """Thirteen days after a weekly quotation at most, of grade C, never called a price of the day."""
    made = prices({"w": [103.0, *[np.nan] * 15]}, [house("w", frequency="weekly")])
    frame = made.frame
    assert frame["status"].tolist() == ["normal", *["estimated"] * 13, "missing", "missing"]
    assert frame["type"].tolist()[1:15] == [*["relaxed-window"] * 13, "none"]
    assert frame["unrounded"].tolist()[:14] == [103.0] * 14 and set(frame["grade"][1:14]) == {"C"}
    assert made.age[1:14, 0].tolist() == list(range(1, 14))
    assert frame["carried"].dropna().empty, "what is carried was observed, within three days"


def test_an_older_quotation_is_not_used_where_anybody_quoted_the_day_or_was_suspended_in_it():
    series = [house("w", frequency="weekly"), house("a")]
    table = {"w": [103.0, *[np.nan] * 9], "a": [np.nan] * 8 + [100.0, 101.0]}
    made = prices(table, series, {(days(10)[9], "a"): "suspended"})
    assert made.frame["status"].tolist() == ["normal", *["estimated"] * 7, "normal", "suspended"]
    assert made.frame["unrounded"].tolist()[8] == 100.0 and made.chosen[8].tolist() == [1, -1]


@pytest.mark.parametrize(("factor", "what"), [(1000.0, "kg and t"), (0.1, "a decimal place")])
def test_what_looks_like_another_unit_beside_its_own_past_is_held_back_where_nobody_can_tell(factor, what):
    quoted_, rule = [100.0, 101.0, 102.0, 103.0 * factor, 104.0 * factor, 105.0], f"held: unit-slip ({what})"
    alone = prices({"a": quoted_})
    assert alone.frame["status"].tolist() == ["normal"] * 3 + ["held"] * 2 + ["normal"]
    assert alone.frame["unrounded"][3:5].isna().all() and alone.excluded[:, 0].tolist()[3:5] == [rule] * 2
    beside = prices({"a": quoted_, "b": [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]})
    assert beside.frame["unrounded"].tolist() == [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]
    assert beside.excluded[:, 0].tolist() == ["", "", "", rule, rule, ""]


def test_where_three_quote_the_cross_section_tells_a_slip_and_a_market_that_moves_tenfold_is_not_held():
    others = {"b": [100.0] * 4, "c": [101.0] * 4}
    made = prices({"a": [99.0, 99.0, 99.0, 990.0], **others})
    assert made.excluded[3].tolist() == ["unit-slip (a decimal place)", "", ""]
    together = prices({"a": [99.0] * 3 + [1000.0], "b": [100.0] * 3 + [1010.0], "c": [101.0] * 3 + [990.0]})
    assert together.frame["status"].tolist()[3] == "held", "nobody who is no candidate himself confirms it"


def test_a_squeeze_that_fits_no_unit_is_a_price():
    assert prices({"a": [100.0, 101.0, 102.0, 700.0]}).frame["unrounded"].tolist()[3] == 700.0


def test_in_a_monthly_market_nothing_is_carried():
    table = pd.DataFrame({"w": [1.0, np.nan]}, index=["2025-01", "2025-02"])
    fresh, age = usable(quoted(table, [house("w", frequency="weekly")], frequency="monthly"), RULES)
    assert fresh["w"].isna().tolist() == age["w"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("row", "grade", "kind"),
    [
        ([100.0, 101.0, 102.0], "A", "determined"),
        ([100.0, 101.0, np.nan], "B", "determined"),
        ([100.0, np.nan, np.nan], "C", "single-source"),
        ([100.0, 105.0, 110.0], "B", "determined"),  # wider than half of the limit: one grade less
        ([100.0, 110.0, np.nan], "C", "determined"),
    ],
)
def test_grades_count_independent_origins_and_fall_with_their_spread(row, grade, kind):
    made = prices({o: [v] for o, v in zip("abc", row, strict=True)})
    assert (made.frame["grade"].iloc[0], made.frame["type"].iloc[0]) == (grade, kind)
    given = [v for v in row if not np.isnan(v)]
    assert made.frame[["low", "high"]].values.tolist() == [[min(given), max(given)]]
    assert made.frame["mean"].iloc[0] == pytest.approx(np.mean(given), rel=1e-15)
    assert made.frame["spread"].iloc[0] == max(given) / min(given) - 1
    assert made.frame["largest_weight"].iloc[0] == pytest.approx(1 / len(given), rel=1e-15)


def test_a_single_official_origin_is_republished_as_such():
    made = determine(quoted(pd.DataFrame({"a": [9000.125]}, index=days(1)), [house("a", tier="official")]), [], RULES)
    row = made.frame.iloc[0]
    assert (row["type"], row["grade"], row["unrounded"], row["origins"]) == ("official", "C", 9000.125, 1)


def test_copies_of_one_origin_are_one_voice_and_the_first_in_precedence_speaks():
    series = [
        house("copy", origin="lme", tier="official", precedence=50),
        house("first", origin="lme", tier="official", precedence=10),
        house("other", origin="zz"),
    ]
    rows = {"copy": [200.0, 201.0], "first": [100.0, np.nan], "other": [101.0, 201.0]}
    made = prices(rows, series)
    assert made.origins == ("lme", "zz")
    assert made.chosen[:, 0].tolist() == [1, 0]
    assert made.frame["origins"].tolist() == [2, 2]


def test_inside_an_origin_the_freshest_contributor_speaks():
    series = [house("w", origin="x", frequency="weekly", precedence=1), house("d", origin="x", precedence=9)]
    table = pd.DataFrame({"w": [1.0, np.nan], "d": [2.0, 3.0]}, index=days(2))
    fresh, age = usable(quoted(table, series), RULES)
    _, values, chosen, _ = by_origin(quoted(table, series), fresh, age)
    assert values[:, 0].tolist() == [1.0, 3.0] and chosen[:, 0].tolist() == [0, 1]


def test_the_tier_weighs_in_the_median():
    series = [house("a", tier="transaction"), house("b", tier="model"), house("c", tier="model")]
    table = pd.DataFrame({"a": [100.0], "b": [105.0], "c": [110.0]}, index=days(1))
    free = RULES.model_copy(update={"max_weight": 1.0})
    made = determine(quoted(table, series), bases(a=1.0, b=1.0, c=1.0), free)
    assert made.frame["unrounded"].tolist() == [100.0]
    assert np.allclose(made.weight, [[1.0 / 1.6, 0.3 / 1.6, 0.3 / 1.6]])


def test_no_origin_decides_alone_where_others_share_the_rest():
    series = [house("a", tier="transaction"), house("b", tier="model"), house("c", tier="model")]
    made = prices({"a": [100.0], "b": [105.0], "c": [110.0]}, series)
    assert np.allclose(made.weight, [[0.49, 0.255, 0.255]])
    assert made.frame["unrounded"].tolist() == [105.0]  # below one half: the one in the middle


@given(
    st.lists(st.lists(st.floats(0.05, 1.0) | st.just(0.0), min_size=1, max_size=6), min_size=1, max_size=6),
    st.floats(0.05, 1.0),
)
def test_capped_weights_sum_to_one_and_keep_their_order(rows, cap):
    width = max(map(len, rows))
    given_weights = np.array([row + [0.0] * (width - len(row)) for row in rows])
    total = given_weights.sum(axis=1, keepdims=True)
    shares = np.divide(given_weights, total, out=np.zeros_like(given_weights), where=total > 0)
    out = capped_rows(shares, cap)
    some = total[:, 0] > 0
    assert np.allclose(out.sum(axis=1)[some], 1.0) and (out[~some] == 0).all()
    limit = np.maximum(cap, 1 / np.maximum((shares > 0).sum(axis=1, keepdims=True), 1))
    assert (out <= limit + 1e-9).all() and ((out > 0) == (shares > 0)).all()
    for before, after in zip(shares, out, strict=True):
        assert (np.diff(after[np.argsort(before, kind="stable")]) >= -1e-9).all()
    assert np.allclose(out[(shares <= limit).all(axis=1)], shares[(shares <= limit).all(axis=1)])


def test_the_influence_of_an_origin_is_what_its_absence_would_change():
    made = prices({"a": [100.0, 100.0, np.nan], "b": [104.0, np.nan, np.nan], "c": [106.0, np.nan, 106.0]})
    largest, origin = influence(made)
    # without a: 105 for 104; without b: 103; without c: 102, the largest
    assert largest[0] == pytest.approx(2 / 104) and made.origins[origin[0]] == "c"
    assert np.isnan(largest[1:]).all() and (origin[1:] == -1).all()


def test_the_interval_covers_the_true_price_as_often_as_it_says():
    rng = np.random.default_rng(5)
    n, covered, told = 600, [], []
    for _ in range(20):
        true = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, n)))
        rows = {name: true * np.exp(rng.normal(0, 0.02, n)) for name in "abcd"}
        made = prices({name: list(np.where(rng.random(n) < 0.3, np.nan, v)) for name, v in rows.items()})
        frame = made.frame[made.frame["interval_low"].notna()]
        truth = pd.Series(true, index=made.frame.index)[frame.index]
        covered.append(((frame["interval_low"] <= truth) & (truth <= frame["interval_high"])).mean())
        told.append(len(frame) / n)
    assert 0.72 <= np.mean(covered) <= 0.88  # nominal 0.80; one draw stands for one market
    assert np.mean(told) > 0.9


def test_the_interval_looks_at_nothing_later_and_is_unknown_without_a_second_origin():
    rng = np.random.default_rng(6)
    table = {name: list(100 + rng.normal(0, 1, 60)) for name in "abc"}
    whole = prices(table).frame
    first = prices({name: rows[:40] for name, rows in table.items()}).frame
    columns = ["interval_low", "interval_high"]
    assert np.array_equal(whole[columns].to_numpy()[:40], first[columns].to_numpy(), equal_nan=True)
    assert prices({"a": table["a"]}).frame[columns].isna().all().all()


def test_the_published_value_is_the_unrounded_one_rounded():
    made = prices({"a": [100.126], "b": [100.127]})
    assert made.frame["unrounded"].iloc[0] == pytest.approx(100.1265, rel=1e-15)
    assert made.frame["value"].iloc[0] == 100.13


# ------------------------------------------------------------------------------------------ bases


def ratios(found) -> dict[str, tuple]:
    return {r.origin: (pytest.approx(r.ratio, rel=1e-12), r.common, r.via) for r in found}


def test_a_basis_is_the_median_ratio_of_common_periods():
    table = pd.DataFrame({"a": [100.0, 100, 100, 100], "b": [102.0, 101, np.nan, 150]}, index=days(4))
    assert ratios(estimate_bases(table, "a", 3)) == {"a": (1.0, 4, "anchor"), "b": (1.02, 3, "a")}
    assert [r.origin for r in estimate_bases(table, "a", 4)] == ["a"]


def test_an_origin_that_never_meets_the_anchor_is_linked_through_one_that_does():
    nan = np.nan
    table = pd.DataFrame(
        {"a": [100.0, 100, nan, nan], "b": [110.0, 110, 110, 110], "c": [nan, nan, 121, 121]}, index=days(4)
    )
    found = ratios(estimate_bases(table, "a", 2))
    assert found == {"a": (1.0, 2, "anchor"), "b": (1.1, 2, "a"), "c": (1.21, 2, "b")}


def test_an_origin_that_cannot_be_reached_keeps_its_ratio_or_gets_none():
    table = pd.DataFrame({"a": [100.0, np.nan], "b": [np.nan, 130.0], "c": [np.nan, 140.0]}, index=days(2))
    found = ratios(estimate_bases(table, "a", 1, {"b": 1.25}))
    assert found["b"] == (1.25, 1, "held")


def test_while_the_anchor_is_silent_an_origin_of_known_ratio_stands_in():
    table = pd.DataFrame({"a": [np.nan] * 3, "b": [120.0] * 3, "c": [132.0] * 3}, index=days(3))
    found = ratios(estimate_bases(table, "a", 2, {"a": 1.0, "b": 1.2}))
    assert found == {"a": (1.0, 0, "anchor"), "b": (1.2, 3, "held"), "c": (1.32, 3, "b")}


def test_reviews_come_each_january_and_look_back_over_one_window():
    rules = Basis(review_month=1, window_months=12, min_common={"daily": 20, "weekly": 8, "ten-day": 9, "monthly": 6})
    assert reviews("2024-03", rules, "2026-07-01") == [
        ("", "2024-03", "2025-03"),
        ("2026-01", "2025-01", "2026-01"),
    ]
    assert reviews("2024-01", rules, "2025-01-01")[1:] == [("2025-01", "2024-01", "2025-01")]
    assert reviews("2024-01", rules, "2024-12-31")[1:] == []


def test_a_basis_applies_from_its_day_and_until_the_next():
    dated = [
        {"effective": "", "origin": "a", "ratio": 1.0},
        {"effective": "2025-01", "origin": "b", "ratio": 1.1},
        {"effective": "2026-01", "origin": "b", "ratio": 1.2},
    ]
    ratio, since = ratios_in_force(["2024-12-31", "2025-01-01", "2025-12-31", "2026-01-01"], ["a", "b"], dated)
    assert np.array_equal(ratio, [[1, np.nan], [1, 1.1], [1, 1.1], [1, 1.2]], equal_nan=True)
    assert since.tolist() == ["", "2025-01", "2025-01", "2026-01"]


def test_a_basis_that_was_set_stays_whatever_is_learnt_later():
    table = pd.DataFrame({"a": [100.0] * 200, "b": [110.0] * 200}, index=days(200))
    first = estimated(table[:100], None, ["2025-05-01"])
    assert estimated(table[:100], None, ["2025-05-01", "2025-06-01"]) == first
    again = figures.bases_due({(MARKET.key, "daily"): quoted(table * [1, 2])}, METHOD, first, "2025-08-01")
    assert again == []
    later = figures.bases_due({(MARKET.key, "daily"): quoted(table * [1, 2])}, METHOD, first, "2026-01-02")
    assert {b["effective"] for b in later} == {"2026-01"}


# ----------------------------------------------------------------------------------------- months


def month_prices(values: dict[str, float]):
    table = pd.DataFrame({"a": list(values.values())}, index=list(values), dtype="float64")
    return determine(quoted(table), [], RULES)


def test_a_month_is_the_mean_of_its_determined_days():
    weekdays = [str(d.date()) for d in pd.bdate_range("2025-01-01", "2025-02-28")]
    daily = month_prices({d: 100.0 + i for i, d in enumerate(weekdays)})
    months = monthly_from_daily(daily, RULES, "2025-03-01")
    assert months.index.tolist() == ["2025-01", "2025-02"]
    assert months["days"].tolist() == months["weekdays"].tolist() == [23, 20]
    assert months["unrounded"].tolist() == [100 + sum(range(23)) / 23, 100 + sum(range(23, 43)) / 20]
    assert set(months["type"]) == {"mean-of-days"} and set(months["grade"]) == {"C"}
    assert months[["low", "high"]].values.tolist() == [[100, 122], [123, 142]]


@pytest.mark.parametrize(("known_on", "shown"), [("2025-01-31", []), ("2025-02-01", ["2025-01"])])
def test_a_month_that_is_not_over_is_absent(known_on, shown):
    daily = month_prices({str(d.date()): 100.0 for d in pd.bdate_range("2025-01-01", "2025-02-10")})
    assert monthly_from_daily(daily, RULES, known_on).index.tolist() == shown


@pytest.mark.parametrize(("count", "shown"), [(11, False), (12, True)])
def test_a_month_needs_prices_on_half_of_its_weekdays(count, shown):
    weekdays = [str(d.date()) for d in pd.bdate_range("2025-01-01", "2025-01-31")]
    assert len(weekdays) == 23
    daily = month_prices({d: 100.0 if i >= 23 - count else np.nan for i, d in enumerate(weekdays)})
    assert (len(monthly_from_daily(daily, RULES, "2025-06-01")) == 1) is shown


@pytest.mark.parametrize(("last", "shown"), [("2025-01-24", False), ("2025-01-27", True)])
def test_a_feed_that_ended_before_the_last_week_does_not_stand_for_the_month(last, shown):
    daily = month_prices({str(d.date()): 100.0 for d in pd.bdate_range("2025-01-01", last)})
    assert (len(monthly_from_daily(daily, RULES, "2025-06-01")) == 1) is shown


def test_the_grade_of_a_month_is_reached_on_half_of_its_days():
    weekdays = [str(d.date()) for d in pd.bdate_range("2025-01-01", "2025-01-31")]
    table = pd.DataFrame(dict.fromkeys("abc", 100.0), index=weekdays)
    table.iloc[12:, 2] = np.nan  # grade A on 12 days of 23, B on the others
    made = determine(quoted(table), bases(a=1, b=1, c=1), RULES)
    assert monthly_from_daily(made, RULES, "2025-06-01")["grade"].tolist() == ["A"]
    table.iloc[11:, 2] = np.nan
    made = determine(quoted(table), bases(a=1, b=1, c=1), RULES)
    assert monthly_from_daily(made, RULES, "2025-06-01")["grade"].tolist() == ["B"]


def test_no_daily_price_gives_no_month():
    assert monthly_from_daily(month_prices({"2025-01-01": np.nan}), RULES, "2026-01-01").empty


# -------------------------------------------------------------------------------------- disclosure

SHOWN = ["unrounded", "value", "low", "high", "mean", "spread"]


@pytest.mark.parametrize(
    ("row", "closed", "hidden"),
    [
        ([100.0, 101.0, 102.0], "", False),
        ([100.0, 101.0, 102.0], "c", True),
        ([100.0, 101.0, 102.0], "abc", True),
        ([100.0, np.nan, np.nan], "a", True),
        ([100.0, np.nan, np.nan], "b", False),  # nothing closed is in it
        ([100.0, 101.0, 102_000.0], "c", False),  # the closed one is excluded
        ([100.0, 150.0, np.nan], "a", True),  # a range would tell it too
    ],
)
def test_a_public_price_does_not_rest_on_closed_input(row, closed, hidden):
    table = pd.DataFrame([row], columns=list("abc"), index=days(1))
    made = determine(quoted(table, closed=frozenset(closed)), bases(a=1, b=1, c=1), RULES)
    shown = figures.disclosed(made).frame
    if hidden:
        assert shown[SHOWN].isna().all().all() and shown["status"].tolist() == ["confidential"]
        assert shown["grade"].isna().all()
    else:
        pd.testing.assert_frame_equal(shown, made.frame)


def test_a_price_whose_basis_was_estimated_against_a_closed_anchor_is_hidden_too():
    """With it and the price beside, the anchor's own level could be told: the ratio has not changed since."""
    table = pd.DataFrame({"a": [100.0, np.nan], "b": [104.0, 105.0], "c": [np.nan, 99.0]}, index=days(2))
    known = [{"effective": "", "origin": o, "ratio": r, "via": v} for o, r, v in
             (("a", 1.0, "anchor"), ("b", 1.04, "a"), ("c", 0.99, "b"))]  # fmt: skip
    shown = figures.disclosed(determine(quoted(table, closed=frozenset("a")), known, RULES)).frame
    assert shown["status"].tolist() == ["confidential"] * 2
    open_anchor = [{**one, "via": {"a": "b", "b": "anchor", "c": "b"}[one["origin"]]} for one in known]
    shown = figures.disclosed(determine(quoted(table, closed=frozenset("a")), open_anchor, RULES)).frame
    assert shown["status"].tolist() == ["confidential", "normal"]


def test_no_older_quotation_stands_across_a_suspension_by_a_person():
    weekly = [house("w", frequency="weekly")]
    table = pd.DataFrame({"w": [101.0, *[np.nan] * 7]}, index=days(8))
    suspend = Judgement(1, "suspend", MARKET.key, "daily", days(8)[3], days(8)[4], "market-closed", "2026-01-01")
    made = determine(quoted(table, weekly), [], RULES, [suspend])
    assert made.frame["status"].tolist() == ["normal", *["estimated"] * 2, *["suspended"] * 2, *["missing"] * 3]


def test_an_origin_that_is_set_aside_does_not_keep_an_older_quotation_of_another_out():
    series = [house("w", frequency="weekly"), house("a")]
    table = pd.DataFrame({"w": [101.0, *[np.nan] * 9], "a": [np.nan] * 8 + [100.0, 150.0]}, index=days(10))
    aside = Judgement(1, "exclude", MARKET.key, "daily", days(10)[9], days(10)[9], "stale-quotation", "2026-01-01", "a")
    made = determine(quoted(table, series), bases(w=1, a=1), RULES, [aside])
    assert made.frame["unrounded"].tolist()[8:] == [100.0, 101.0]
    assert made.frame["status"].tolist()[8:] == ["normal", "estimated"] and made.excluded[9, 0].startswith("judged")


def test_weekly_quotations_that_stand_for_days_do_not_make_a_past():
    """The first of them was ten times too high; what comes after it is not held for that."""
    said = [1000.0, *[np.nan] * 6, 100.0, *[np.nan] * 6, 101.0]
    made = determine(quoted(pd.DataFrame({"w": said}, index=days(15)), [house("w", frequency="weekly")]), [], RULES)
    assert made.frame["unrounded"].tolist()[7] == 100.0 and made.frame["unrounded"].tolist()[14] == 101.0


def test_a_month_of_estimates_is_an_estimate_and_counts_them():
    periods = [str(d.date()) for d in pd.bdate_range("2025-01-01", "2025-02-28")]
    told = pd.Series(np.nan, periods)
    told[[p for p in periods if p < "2025-01-29"]] = 100.0
    told[[p for p in periods if pd.Timestamp(p).weekday() == 2]] = 100.0
    made = determine(quoted(pd.DataFrame({"w": told}), [house("w", frequency="weekly")]), [], RULES)
    months = monthly_from_daily(made, RULES, "2025-03-01")
    assert months["status"].to_dict() == {"2025-01": "normal", "2025-02": "estimated"}
    assert months["type"].to_dict() == {"2025-01": "mean-of-days", "2025-02": "mean-of-estimated-days"}
    assert months["estimated"].to_dict() == {"2025-01": (made.frame["status"][:23] == "estimated").sum(), "2025-02": 16}


def test_an_auditor_sees_all_and_hiding_leaves_the_original_untouched():
    table = pd.DataFrame({"a": [100.0]}, index=days(1))
    made = determine(quoted(table, closed=frozenset("a")), [], RULES)
    assert figures.disclosed(made).frame["unrounded"].isna().all()
    assert made.frame["unrounded"].tolist() == [100.0]
    open_one = determine(quoted(table), [], RULES)
    assert figures.disclosed(open_one) is open_one


# ------------------------------------------------------------------------- found wrong: to be mended


def test_an_origin_whose_ratio_is_held_links_a_new_one_though_the_anchor_said_a_little():
    """Were the anchor silent altogether, c would be linked through b; one single day of it takes that away."""
    table = pd.DataFrame({"a": [100.0, np.nan, np.nan], "b": [120.0] * 3, "c": [132.0] * 3}, index=days(3))
    found = ratios(estimate_bases(table, "a", 2, {"a": 1.0, "b": 1.2}))
    assert found["c"] == (1.32, 3, "b")


def test_origins_have_bases_though_the_configured_anchor_is_not_among_those_that_may_be_used():
    """The anchor is closed to the public: its market must not fall silent, another origin is the anchor."""
    table = pd.DataFrame({"b": [100.0] * 50, "c": [102.0] * 50}, index=days(50))
    found = estimated(table, None, ["2025-03-01"])
    made = determine(quoted(table), found, RULES)
    assert made.frame["unrounded"].notna().all()


def test_a_weekly_origin_needs_as_many_common_periods_as_the_method_says_for_weekly_ones():
    """The method's own words: weekly = 8; the number for daily markets is taken instead."""
    basis = {
        "review_month": 1,
        "window_months": 12,
        "min_common": {"daily": 20, "weekly": 8, "ten-day": 9, "monthly": 6},
    }
    method = METHOD.model_copy(update={"basis": Basis.model_validate(basis)})
    table = pd.DataFrame({"a": 100.0, "w": 102.0}, index=days(70))
    table.loc[[i % 7 > 0 for i in range(70)], "w"] = np.nan  # ten Wednesdays
    made = quoted(table, [house("a"), house("w", frequency="weekly")])
    found = figures.bases_due({(MARKET.key, "daily"): made}, method, [], "2025-04-01")
    assert {b["origin"]: round(b["ratio"], 6) for b in found} == {"a": 1.0, "w": 1.02}


def test_a_last_price_is_shown_carried_for_a_few_days_and_is_no_price():
    """Three days in the settings; nothing is carried across a suspension, nor to the day of one."""
    nan = np.nan
    rows = {"a": [100.0, nan, nan, 110.0, nan, nan, nan, nan, nan, nan], "b": [nan] * 10}
    table = pd.DataFrame(rows, index=days(10), dtype="float64")
    status = {(days(10)[1], "a"): "suspended"}
    frame = determine(quoted(table, status=status), bases(a=1.0, b=1.0), RULES).frame
    assert frame["carried"].isna().tolist() == [True, True, True, True, False, False, False, True, True, True]
    assert frame["carried"].iloc[4] == 110.0 and set(frame["carried_from"].iloc[4:7]) == {days(10)[3]}
    assert frame["unrounded"].notna().sum() == 2 and (frame["unrounded"].isna() | frame["carried"].isna()).all()
