"""What an override does to a determination, and that it does nothing else."""

from __future__ import annotations

import datetime as dt
import math
from statistics import median

import numpy as np
import pandas as pd
import pytest
from test_figures import key, method, monthly_rows, operation, source
from test_reference import RULES, bases, days, house, prices, quoted

from pricing import figures
from pricing.config import Operation
from pricing.judgement import Judgement
from pricing.reference import determine

ORIGINS = ("a", "b", "c", "d")


def judged(kind, first="2025-01-02", last="", **facts) -> Judgement:
    about = {"market": "tin/metal/XCN", "frequency": "daily", "reason": "publisher-error", "since": "2025-02-01T00:00Z"}
    about["unit"] = "USD/t"
    return Judgement(**{"decision": 1, "kind": kind, "first": first, "last": last or first, **about, **facts})


def market(seed: int, count: int = 60) -> pd.DataFrame:
    """Four houses around a walk, with gaps, and now and then one that disagrees."""
    rng = np.random.default_rng(seed)
    level = 30_000 * np.exp(np.cumsum(rng.normal(0, 0.01, count)))
    table = level[:, None] * np.exp(rng.normal(0, 0.02, (count, 4)))
    table[rng.random(table.shape) < 0.15] = np.nan
    table[rng.random(table.shape) < 0.05] *= 1.4
    return pd.DataFrame(table, index=days(count), columns=list(ORIGINS))


def same(left, right) -> None:
    pd.testing.assert_frame_equal(left, right, check_dtype=False, rtol=0, atol=0)


KNOWN = bases(a=1.0, b=1.02, c=0.97, d=1.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("origin", ["a", "c"])
def test_an_excluded_origin_leaves_the_prices_as_if_it_had_never_quoted(seed, origin):
    table = market(seed)
    first, last = "2025-01-10", "2025-01-20"
    silent = table.copy()
    silent.loc[first:last, origin] = np.nan
    given = determine(quoted(table), KNOWN, RULES, [judged("exclude", first, last, origin=origin)])
    same(given.frame, determine(quoted(silent), KNOWN, RULES).frame)
    where = given.origins.index(origin)
    spoke = table[origin].notna().to_numpy() & np.array([first <= p <= last for p in table.index])
    assert ((given.excluded[:, where] == "judged (decision 1)") == spoke).all() and spoke.any()
    assert np.isfinite(given.adjusted[spoke, where]).all(), "the record still shows what was quoted"


def test_without_judgement_nothing_differs():
    table = market(9)
    same(determine(quoted(table), KNOWN, RULES).frame, determine(quoted(table), KNOWN, RULES, ()).frame)
    elsewhere = [judged("exclude", "2031-01-01", origin="a"), judged("suspend", "2031-01-01")]
    same(determine(quoted(table), KNOWN, RULES).frame, determine(quoted(table), KNOWN, RULES, elsewhere).frame)


def test_a_weekly_quotation_that_is_excluded_stands_on_no_later_day_nor_an_older_one_in_between():
    n = math.nan
    table = pd.DataFrame({"a": [10.0] * 9, "w": [10.4, n, n, n, n, n, n, 10.8, n]}, index=days(9))
    series = [house("a"), house("w", frequency="weekly")]

    def voices(*judgements):
        return determine(quoted(table, series), bases(a=1, w=1), RULES, judgements).frame["origins"].tolist()

    assert voices() == [2] * 9  # the first stands for six days, the second from the eighth on
    assert voices(judged("exclude", "2025-01-01", origin="w")) == [1] * 7 + [2, 2]
    assert voices(judged("exclude", "2025-01-03", "2025-01-04", origin="w")) == [2, 2, 1, 1, 2, 2, 2, 2, 2]


def test_an_included_origin_counts_though_the_cross_section_excludes_it():
    rows = {"a": [100.0], "b": [101.0], "c": [104.0], "d": [125.0]}
    assert prices(rows).frame["unrounded"].tolist() == [median([100, 101, 104])]
    table = pd.DataFrame(rows, index=days(1))
    known = bases(a=1, b=1, c=1, d=1)
    got = determine(quoted(table), known, RULES, [judged("include", "2025-01-01", origin="d")])
    assert got.frame["unrounded"].tolist() == [median([100, 101, 104, 125])] and (got.excluded == "").all()
    assert determine(quoted(table), known, RULES, [judged("include", "2025-01-01", origin="a")]).excluded[0, 3]
    # those who remain lie too far apart all the same, and an origin without a basis has nothing to enter with
    wide = determine(quoted(table * [1, 1, 1, 1.2]), known, RULES, [judged("include", "2025-01-01", origin="d")])
    assert wide.frame["status"].tolist() == ["dispersed"]
    none = determine(quoted(table), bases(a=1, b=1, c=1), RULES, [judged("include", "2025-01-01", origin="d")])
    assert none.excluded[0, 3] == "no-basis" and none.frame["origins"].tolist() == [3]


def test_a_suspension_is_no_price_and_nothing_is_carried_to_it_or_across():
    rows = pd.DataFrame({"a": [10.0, 11.0, math.nan, 12.0]}, index=days(4))
    frame = determine(quoted(rows), [], RULES, [judged("suspend", "2025-01-02")]).frame
    assert frame["status"].tolist() == ["normal", "suspended", "missing", "normal"]
    assert frame["unrounded"].isna().tolist() == [False, True, True, False]
    assert frame["carried"].isna().all()
    assert frame["grade"].isna().tolist() == [False, True, True, False]


def test_a_judged_price_stands_for_one_period_with_grade_c_and_no_interval_and_moves_no_other():
    table = market(3)
    table.loc["2025-01-12"] = np.nan
    plain = determine(quoted(table), KNOWN, RULES)
    for day in ("2025-01-11", "2025-01-12"):
        got = determine(quoted(table), KNOWN, RULES, [judged("price", day, price=31_234.567)])
        row = got.frame.loc[day]
        facts = (row["unrounded"], row["value"], row["status"], row["type"], row["grade"], row["origins"])
        assert facts == (31_234.567, 31_234.57, "normal", "judged", "C", 0)
        assert row[["interval_low", "interval_high", "low", "spread"]].isna().all()
        others = got.frame.index != day
        assert (got.frame["unrounded"][others].dropna() == plain.frame["unrounded"][others].dropna()).all()
        assert (got.weight[~others] == 0).all()


# ------------------------------------------------------------------------------- whole markets

BEFORE = "2025-03-03"


def daily(**levels) -> tuple[Operation, pd.DataFrame]:
    made = Operation(sources={n: source(n, "open", {"frequency": "daily", "tier": "assessment"}) for n in levels})
    dates = [str(d.date()) for d in pd.bdate_range("2025-01-01", "2025-02-28") if str(d.date()) != "2025-02-05"]
    rows = [(f"{n}-tin", d, v, "normal") for n, v in levels.items() for d in dates]
    return made, pd.DataFrame(rows, columns=monthly_rows().columns)


def tin(made, observed, *overrides, audience="public", known_on=BEFORE):
    quotes, _ = figures.all_quotes(method(), figures.eligible(made, audience), observed)
    known = figures.bases_due(quotes, method(), [], known_on)
    return figures.prices(quotes, method(), known, known_on, overrides=overrides)[key("tin")]


def test_a_price_is_judged_for_a_day_on_which_nobody_quoted_and_enters_the_mean_of_its_month():
    made, observed = daily(free=100.0, other=100.0)
    got = tin(made, observed, judged("price", "2025-02-05", price=140.0))
    assert got.frame("daily").loc["2025-02-05", ["unrounded", "type"]].tolist() == [140.0, "judged"]
    weekdays = np.busday_count(dt.date(2025, 2, 1), dt.date(2025, 3, 1))
    february = got.months.loc["2025-02"]
    assert february["unrounded"] == pytest.approx((100.0 * (weekdays - 1) + 140.0) / weekdays, rel=1e-15)
    assert february["days"] == weekdays and tin(made, observed).months.loc["2025-02", "days"] == weekdays - 1


@pytest.mark.parametrize(("kind", "price"), [("suspend", None), ("price", 55.5)])
def test_a_month_that_is_the_mean_of_its_days_is_overridden_as_a_whole(kind, price):
    made, observed = daily(free=100.0)
    got = tin(made, observed, judged(kind, "2025-01", frequency="monthly", price=price)).months
    assert got.loc["2025-02"].equals(tin(made, observed).months.loc["2025-02"])
    row = got.loc["2025-01"]
    assert row["status"] == ("suspended" if price is None else "normal")
    assert math.isnan(row["unrounded"]) if price is None else row["unrounded"] == price
    march = tin(made, observed, judged("price", "2025-03", frequency="monthly", price=7.0)).months
    assert march.index.tolist() == ["2025-01", "2025-02", "2025-03"] and march.loc["2025-03", "type"] == "judged"


def test_an_override_of_another_market_frequency_or_unseen_origin_has_no_effect():
    made, observed = daily(free=100.0, other=102.0)
    plain = tin(made, observed)
    for other in (
        judged("suspend", "2025-01-02", market="copper/metal/XCN"),
        judged("suspend", "2025-01-02", frequency="ten-day"),
        judged("exclude", "2025-01-02", origin="closed-house"),
    ):
        got = tin(made, observed, other)
        same(got.frame("daily"), plain.frame("daily"))
        same(got.months, plain.months)
    assert got.judgements == ()


def test_a_judged_price_beside_closed_quotations_is_withheld_from_the_public_and_shown_to_an_auditor():
    observed = monthly_rows(free=100.0, derived=104.0)
    one = judged("price", "2025-03", frequency="monthly", price=104.0)
    public, internal = (
        tin(operation(), observed, one, audience=a, known_on="2026-01-02") for a in ("public", "internal")
    )
    row = public.months.loc["2025-03"]
    assert row["status"] == "confidential" and math.isnan(row["unrounded"]) and math.isnan(row["value"])
    assert internal.months.loc["2025-03", "unrounded"] == 104.0


def test_a_price_that_was_judged_in_another_unit_is_no_price_of_the_market():
    """A change of method may bring another unit: the old number would be wrong by the content of the product."""
    made, observed = daily(free=100.0, other=100.0)
    got = tin(made, observed, judged("price", "2025-01-02", price=140.0, unit="USD/t Sn contained"))
    assert got.frame("daily").loc["2025-01-02", "status"] == "suspended"
    assert got.frame("daily")["unrounded"].isna().sum() == 1
