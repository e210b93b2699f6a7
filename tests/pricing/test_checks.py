"""Checks of a document's figures against what is known: each mistake is found, a market's move is none."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing import checks
from pricing.checks import judge, level, lined_up, magnitude
from pricing.config import Series
from pricing.sources import COLUMNS, frame

DAYS = [str(d.date()) for d in pd.bdate_range("2024-01-01", periods=300)]
NOTHING = frame([])


def series(name="tin", **changes):
    facts = {"id": name, "mineral": "tin", "stage": "metal", "zone": "XCN", "unit": "USD/t", "frequency": "daily"}
    return Series(**{**facts, "origin": "house", **changes})


def rates():
    """Exchange rates of every day: 1 EUR is 1.1 USD, 7.8 CNY and 160 JPY."""
    return pd.DataFrame({"USD": 1.1, "CNY": 7.8, "JPY": 160.0}, index=pd.Index(DAYS))


def walk(start, seed, n=300, move=0.01):
    """A price whose moves have the fat tails of metals."""
    draws = np.random.default_rng(seed).standard_t(4, n) * move / np.sqrt(2)
    return np.round(start * np.exp(np.cumsum(draws)), 2)


def table(**columns):
    """Observations of one document, a column for each series."""
    return frame(
        [(n, DAYS[t], float(v)) for n, values in columns.items() for t, v in enumerate(values) if not np.isnan(v)]
    )


def judged(document, known=NOTHING, accepted=(), **changes):
    """Judge a document whose series are told apart by name alone."""
    named = {str(n): series(str(n), **changes) for n in document["series"].unique()}
    return judge(lined_up(document, known, named, accepted), rates)


def told(findings):
    return [(f.check, f.severity, f.series, f.period) for f in findings]


def with_last(values, *last):
    return np.append(values, last)


# ------------------------------------------------------------------------------ one series by itself


@pytest.mark.parametrize("factor", [10, 0.1, 100, 1000, 0.001, 2204.6226, 1 / 2204.6226, 31.1034768, 1 / 32150.7466])
@pytest.mark.parametrize(("kind", "severity"), [("price", "warning"), ("production", "error")])
def test_a_slip_of_the_unit_is_found_and_undone(factor, kind, severity):
    values = walk(20_000, 1, 40)
    wrong = values[-1] * 1.05 * factor
    (found,) = judged(table(tin=with_last(values, wrong)), kind=kind)
    assert told([found]) == [("unit-slip", severity, "tin", DAYS[40])]
    assert found.evidence["undone"] == pytest.approx(values[-1] * 1.05) and found.evidence["last"] == values[-1]


def test_a_slip_that_stays_is_found_for_as_long_as_it_stays_and_what_follows_is_right():
    values = walk(20_000, 2, 60)
    wrong = values.copy()
    wrong[40:45] *= 1000
    found = judged(table(tin=wrong))
    assert told(found) == [("unit-slip", "warning", "tin", day) for day in DAYS[40:45]]
    assert [f.evidence["undone"] for f in found] == pytest.approx(values[40:45].tolist())


@pytest.mark.parametrize("move", [0.66, 0.36, 2.5, 5.0, -0.6, -0.8])
def test_a_move_of_the_market_is_no_finding_however_large(move):
    assert judged(table(tin=with_last(walk(20_000, 3, 40), 20_000 * (1 + move)))) == []


def test_nothing_is_said_of_a_level_before_it_stood_for_three_quotations():
    assert judged(table(tin=[20.0, 20_000.0, 20_100.0])) == []


def test_what_somebody_accepted_is_the_level_from_then_on():
    values = with_last(walk(20_000, 4, 40), 20_000_000.0, 20_100_000.0)
    assert len(judged(table(tin=values))) == 2
    assert judged(table(tin=values), accepted=[("tin", DAYS[40], 20_000_000.0)]) == []


def test_what_is_known_already_is_not_found_again():
    known = table(tin=with_last(walk(20_000, 5, 40), 20_000_000.0))
    assert judged(known, known) == []
    again = pd.concat([known, frame([("tin", DAYS[41], 20_000.0)])])
    assert judged(again, known) == [], "the way back to the level that stood is right"


@pytest.mark.parametrize(
    ("value", "severity"),
    [(99_999.0, "error"), (9_999_999.0, "error"), (999.0, "error"), (0.01, "error"), (1.0, "error")],
)
def test_a_placeholder_far_from_the_price_is_an_error(value, severity):
    (found,) = judged(table(tin=with_last(walk(20_000, 6, 40), value)))
    assert told([found]) == [("placeholder", severity, "tin", DAYS[40])] and found.evidence["undone"] is None


def test_a_placeholder_within_the_range_of_the_series_is_a_price():
    assert judged(table(tin=with_last(walk(12_000, 7, 40), 9_999.0))) == []
    (found,) = judged(table(tin=with_last(walk(20, 7, 40), 99.0)))
    assert found.severity == "warning", "a fivefold price of 99 may be one"


@pytest.mark.parametrize(("value", "check", "undone"), [(0.0, "placeholder", None), (-20_000.0, "sign", 20_000.0)])
def test_a_figure_that_may_be_zero_is_told_when_none_ever_was(value, check, undone):
    (found,) = judged(table(tin=with_last(walk(20_000, 8, 40), value)), kind="other")
    assert (found.check, found.severity, found.evidence["undone"]) == (check, "warning", undone)
    (first,) = judged(table(tin=with_last(walk(20_000, 8, 40), value, value)), kind="other")
    assert first.period == DAYS[40], "it is told once"


@pytest.mark.parametrize(("unit", "factor", "other"), [("USD/t", 7.8 / 1.1, "CNY"), ("CNY/t", 1.1 / 7.8, "USD")])
def test_a_price_in_another_currency_is_an_error_that_names_it(unit, factor, other):
    values = walk(20_000, 9, 40)
    (found,) = judged(table(tin=with_last(values, values[-1] * factor * 1.004)), unit=unit)
    assert (found.check, found.severity) == ("currency", "error") and f"in {other}" in found.message
    assert found.evidence["undone"] == pytest.approx(values[-1] * 1.004)


def test_yen_are_not_taken_for_a_slip_of_the_unit():
    values = walk(20_000, 10, 40)
    (found,) = judged(table(tin=with_last(values, values[-1] * 160 / 1.1)))
    assert found.check == "currency" and "JPY" in found.message


def test_a_revision_from_euros_to_dollars_is_told_and_a_new_price_that_moved_as_far_is_not():
    known = table(tin=walk(20_000, 11, 40))
    revised = known.assign(value=known["value"].where(known["period"] != DAYS[20], known["value"] / 1.1))
    (found,) = judged(revised, known)
    assert told([found]) == [("currency", "warning", "tin", DAYS[20])]
    assert found.evidence["undone"] == pytest.approx(known["value"][20]) and "in EUR" in found.message
    assert judged(table(tin=with_last(known["value"], known["value"].iloc[-1] / 1.1)), known) == []


@pytest.mark.parametrize("factor", [1.13, 1 / 1.13, 1.17, 1 / 1.16])
@pytest.mark.parametrize("is_revision", [True, False])
def test_a_price_with_the_tax_or_without_is_told_in_china_only(factor, is_revision):
    known = table(tin=walk(200_000, 12, 40))
    if is_revision:
        document = known.assign(value=known["value"].where(known["period"] != DAYS[39], known["value"] * factor))
    else:
        document = pd.concat([known, frame([("tin", DAYS[40], known["value"].iloc[-1] * factor)])])
    (found,) = judged(document, known, zone="CN", unit="CNY/t", tax="cn-vat")
    assert (found.check, found.severity) == ("tax", "warning")
    assert found.evidence["undone"] == pytest.approx(known["value"].iloc[-1])
    assert judged(document, known) == []


def test_a_figure_that_is_no_price_is_neither_judged_nor_past():
    values = with_last(walk(20_000, 13, 40), 20_000_000.0, 20_000.0)
    document = table(tin=values)
    document.loc[40, "status"] = "voided"
    assert judged(document) == []


# ---------------------------------------------------------------------------------- several series


def test_swapped_columns_are_found_for_as_long_as_they_are_swapped_and_undone():
    a, b = walk(20_000, 14, 100), walk(26_000, 15, 100)
    one, two = a.copy(), b.copy()
    one[70:73], two[70:73] = b[70:73], a[70:73]
    found = [f for f in judged(table(tin=one, zinc=two)) if f.check == "swapped"]
    assert {(f.series, f.period) for f in found} == {(s, d) for s in ("tin", "zinc") for d in DAYS[70:73]}
    right = {("tin", d): v for d, v in zip(DAYS, a, strict=False)} | {
        ("zinc", d): v for d, v in zip(DAYS, b, strict=False)
    }
    assert all(f.severity == "error" and f.evidence["undone"] == right[f.series, f.period] for f in found)


def test_a_swap_between_series_ten_apart_is_no_slip_of_the_unit():
    a, b = walk(2_000, 16, 100), walk(20_000, 17, 100)
    document = table(tin=with_last(a, b[-1]), zinc=with_last(b, a[-1]))
    assert {f.check for f in judged(document)} == {"swapped", "several-at-once"}


def test_two_series_that_fall_together_are_not_swapped():
    a, b = walk(20_000, 18, 100), walk(26_000, 19, 100)
    assert judged(table(tin=with_last(a, a[-1] * 0.7), zinc=with_last(b, b[-1] * 0.7))) == []


def test_a_column_that_begins_to_repeat_another_is_told_once():
    a, b = walk(20_000, 20, 100), walk(21_000, 21, 100)
    copied = b.copy()
    copied[60:70] = a[60:70]
    (found,) = judged(table(tin=a, zinc=copied))
    assert told([found]) == [("copied", "warning", "tin", DAYS[64])] and found.evidence["other"] == "zinc"
    assert judged(table(tin=a, zinc=a)) == [], "two series that always were one may be"


def test_several_doubtful_series_of_one_day_are_summed_up():
    a, b, c = walk(20_000, 22, 40), walk(3_000, 23, 40), walk(9_000, 24, 40)
    document = table(tin=with_last(a, a[-1] * 1000), zinc=with_last(b, b[-1] * 1000), lead=with_last(c, c[-1]))
    found = judged(document)
    assert [f.check for f in found] == ["unit-slip", "unit-slip", "several-at-once"]
    assert found[-1].evidence["series"] == ["tin", "zinc"] and found[-1].evidence["of"] == 3


# ----------------------------------------------------------------------------- against other series


def germanium(value, unit, **changes):
    one = series("bulletin", mineral="germanium", unit=unit, **changes)
    return lined_up(frame([("bulletin", DAYS[-1], value)]), NOTHING, {"bulletin": one})[0]


def yearly(**changes):
    facts = {
        "kind": "other",
        "mineral": "germanium",
        "stage": None,
        "zone": None,
        "unit": "USD/kg",
        "frequency": "annual",
    }
    return {"yearly": series("yearly", **{**facts, **changes})}


YEARS = frame([("yearly", str(y), v) for y, v in [(2020, 1000.0), (2021, 1200.0), (2022, 1300.0), (2023, 4100.0)]])


def test_a_bulletin_that_prints_dollars_per_kilogram_as_per_tonne_is_betrayed_by_its_magnitude():
    beside = level(yearly(), YEARS, rates)
    assert beside[:2] == (1_000_000.0, 4_100_000.0)
    found = magnitude(germanium(4253.0, "USD/t"), beside, rates)
    assert (found.check, found.severity, found.evidence["undone"]) == ("magnitude", "error", 4_253_000.0)
    assert magnitude(germanium(4253.0, "USD/kg"), beside, rates) is None
    assert magnitude(germanium(30_000.0, "CNY/kg", zone="CN"), beside, rates) is None
    assert magnitude(germanium(1930.0, "USD/lb"), beside, rates) is None


def test_a_magnitude_that_no_unit_explains_is_a_warning_and_one_within_the_band_is_none():
    beside = level(yearly(), YEARS, rates)
    assert magnitude(germanium(4_100_000 * 1e7, "USD/t"), beside, rates).severity == "warning"
    assert magnitude(germanium(4_100_000 * 15.0, "USD/t"), beside, rates) is None


def test_the_magnitude_of_a_series_with_a_past_or_an_accepted_figure_is_its_own_affair():
    beside = level(yearly(), YEARS, rates)
    one = series("bulletin", mineral="germanium")
    document = frame([("bulletin", DAYS[-1], 4253.0)])
    past = lined_up(document, frame([("bulletin", DAYS[-2], 4200.0)]), {"bulletin": one})[0]
    accepted = lined_up(document, NOTHING, {"bulletin": one}, [("bulletin", DAYS[-1], 4253.0)])[0]
    assert magnitude(past, beside, rates) is None and magnitude(accepted, beside, rates) is None


def test_only_a_series_of_the_same_mineral_and_stage_tells_a_magnitude():
    one = series("tin", mineral="tin")
    assert checks.comparable(one, series("zinc", mineral="tin", zone="CN"))
    assert checks.comparable(one, series("yearly", mineral="tin", stage=None, kind="other"))
    assert not checks.comparable(one, one)
    assert not checks.comparable(one, series("zinc", mineral="zinc"))
    assert not checks.comparable(one, series("zinc", mineral="tin", stage="ore"))
    assert not checks.comparable(one, series("zinc", mineral="tin", quarantined="its unit is not known"))
    assert not checks.comparable(
        series("ore", mineral="tin", stage="ore"), series("y", mineral="tin", stage=None, kind="other")
    )
    assert level({}, NOTHING, rates) is None


# --------------------------------------------------------------------------------------- properties


@pytest.mark.parametrize("move", [0.003, 0.02, 0.06])
def test_clean_histories_give_no_error(move):
    columns = {f"s{k}": walk(10.0 ** (k % 6), 100 + k, 300, move) for k in range(30)}
    columns["s0"][150:] *= 1.66
    columns["s1"][200:] *= 1.36
    found = judged(table(**columns))
    assert [f for f in found if f.severity == "error"] == [] and len(found) <= 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from(DAYS[:12]),
            st.floats(-1e300, 1e300, allow_nan=False) | st.sampled_from([1.0, 1000.0, 0.0, 1e-300, 99999.0]),
            st.sampled_from(["normal", "voided"]),
        ),
        unique_by=lambda row: row[:2],
    ),
    st.integers(0, 30),
)
def test_no_check_changes_a_figure_or_speaks_of_one_that_is_not_new(rows, cut):
    both = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"value": "float64"})
    known, document = both.iloc[:cut], both.iloc[cut:]
    before, then = known.copy(), document.copy()
    found = judged(document, known)
    pd.testing.assert_frame_equal(known, before)
    pd.testing.assert_frame_equal(document, then)
    figures = {(f.series, f.period): f.evidence["value"] for f in found if f.series}
    assert figures.items() <= {(s, p): v for s, p, v, _ in rows[cut:]}.items()


def test_documents_day_by_day_hold_back_what_one_document_of_all_days_does():
    production = {"kind": "production"}
    a, b = walk(20_000, 30, 80), walk(26_000, 31, 80)
    a[50:53] *= 1000
    b[60] /= 10
    a[70], b[70] = b[70], a[70]
    whole = table(tin=a, zinc=b)
    held = {(f.series, f.period) for f in judged(whole, **production) if f.severity == "error"}
    assert len(held) == 6
    known, daily = NOTHING, set()
    for day in DAYS[:80]:
        document = whole[whole["period"] <= day]
        out = {(f.series, f.period) for f in judged(document, known, **production) if f.severity == "error"}
        daily |= out
        known = document[[pair not in out for pair in zip(document["series"], document["period"], strict=True)]]
    assert daily == held


@pytest.mark.parametrize("scale", [1e-3, 37.0, 1e6])
def test_another_scale_or_order_of_series_changes_no_finding(scale):
    a, b = walk(20_000, 32, 80), walk(26_000, 33, 80)
    a[50:53] *= 1000
    a[70], b[70] = b[70], a[70]
    plain = told(judged(table(tin=a, zinc=b)))
    assert plain and told(judged(table(tin=a * scale, zinc=b * scale))) == plain
    assert told(judged(table(zinc=b, tin=a))) == plain
