"""What is held back before it is stored, and what the settings know not to be a price."""

import datetime as dt

import pandas as pd
import pytest

from pricing.config import Series
from pricing.quality import hold_back, with_statuses
from pricing.sources import frame

TODAY = dt.date(2026, 11, 23)


def series(name="tin", **changes):
    facts = {"id": name, "mineral": "tin", "stage": "metal", "zone": "XCN", "unit": "USD/t", "frequency": "daily"}
    return {name: Series(**{**facts, "origin": "house", **changes})}


@pytest.mark.parametrize(("value", "undone"), [(0.0, None), (-101.0, 101.0)])
def test_a_price_that_is_not_above_zero_is_held_back_with_a_finding(value, undone):
    kept, findings = hold_back(frame([("tin", "2026-11-20", value), ("tin", "2026-11-19", 5.0)]), series(), TODAY)
    assert kept["period"].tolist() == ["2026-11-19"]
    (found,) = findings
    assert (found.check, found.severity, found.period) == ("not-positive", "error", "2026-11-20")
    assert found.evidence == {"value": value, "undone": undone} and f": {value!r} is not above zero" in found.message


def test_another_kind_of_figure_may_be_zero():
    kept, findings = hold_back(frame([("tin", "2026-11", 0.0)]), series(kind="other"), TODAY)
    assert len(kept) == 1 and not findings


@pytest.mark.parametrize(
    ("period", "held"),
    [
        ("2062-11-20", True),
        ("2026-11-25", True),
        ("2026-11-24", False),  # it is tomorrow already east of here
        ("2026-11", False),
        ("2026-12", True),
        ("2026", False),
        ("2027", True),
    ],
)
def test_a_figure_of_a_period_to_come_is_held_back(period, held):
    kept, findings = hold_back(frame([("tin", period, 5.0)]), series(), TODAY)
    assert [f.check for f in findings] == ["period-to-come"] * held and len(kept) == 1 - held


def test_nothing_is_held_back_of_nothing():
    kept, findings = hold_back(frame([]), series(), TODAY)
    assert kept.empty and findings == []


def test_what_is_known_to_be_void_or_suspended_is_marked_by_period_and_span():
    statuses = {"2022-03-08": "voided", "2022-03-09/2022-03-22": "suspended"}
    days = [str(d.date()) for d in pd.date_range("2022-03-07", "2022-03-23")]
    rows = frame([(name, day, 30800.0) for name in ("tin", "lead") for day in days])
    marked = with_statuses(rows, series(statuses=statuses) | series("lead"))
    of_tin = marked[marked["series"] == "tin"].set_index("period")["status"]
    assert of_tin["2022-03-07"] == of_tin["2022-03-23"] == "normal"
    assert of_tin["2022-03-08"] == "voided"
    assert (of_tin["2022-03-09":"2022-03-22"] == "suspended").all()
    assert (marked.loc[marked["series"] == "lead", "status"] == "normal").all()


@pytest.mark.parametrize(
    "span", ["2022-3-9/2022-3-22", "2022-03-22/2022-03-09", "2022-13", "8 March", "2022-03/2022-03-09"]
)
def test_a_span_that_could_never_match_is_a_mistake_in_the_settings(span):
    with pytest.raises(ValueError, match="period"):
        series(statuses={span: "voided"})
