"""What a publisher usually does, learnt from what it did: periods, delays and revisions."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from pricing import habits
from pricing.checks import lined_up
from pricing.config import Series
from pricing.sources import frame
from pricing.store import micros

NOTHING = frame([])
MONTHS = [str(p) for p in pd.period_range("2020-01", "2025-12", freq="M")]
WEEKDAYS = [str(d.date()) for d in pd.bdate_range("2024-01-01", "2025-06-30")]


def series(name="tin", frequency="monthly", **changes):
    facts = {"id": name, "mineral": "tin", "stage": "metal", "zone": "XCN", "unit": "USD/t", "origin": "house"}
    return Series(**{**facts, "frequency": frequency, **changes})


def document(**periods):
    return frame([(name, p, 100.0 + k) for name, listed in periods.items() for k, p in enumerate(listed)])


def lines(now, known=NOTHING, accepted=(), frequency="monthly"):
    named = {str(n): series(str(n), frequency) for n in now["series"].unique()}
    return lined_up(now, known, named, accepted)


# ------------------------------------------------------------------------------------------ periods


@pytest.mark.parametrize("typed", ["1926-11", "0206-11", "1720-01"])
def test_a_mistyped_year_is_held_back(typed):
    (found,) = habits.ancient(lines(document(tin=[typed, *MONTHS])))
    assert (found.check, found.severity, found.period) == ("ancient-period", "error", typed)
    assert found.evidence["value"] == 100.0
    known = document(tin=MONTHS)
    assert len([*habits.ancient(lines(document(tin=[typed, *MONTHS]), known))]) == 1


def test_a_longer_history_is_not_ancient_and_neither_is_what_somebody_accepted():
    longer = [str(p) for p in pd.period_range("1833-01", "1833-12", freq="M")]
    assert [*habits.ancient(lines(document(tin=[*longer, *MONTHS])))] == []
    assert [*habits.ancient(lines(document(tin=["1926-11", *MONTHS]), accepted=[("tin", "1926-11", 100.0)]))] == []
    assert [*habits.ancient(lines(document(tin=["2020-01", "2020-02"])))] == []


def test_a_month_left_out_is_a_note_in_a_first_reading_and_a_warning_after_it():
    holed = [p for p in MONTHS if p != "2023-05"]
    (found,) = habits.gaps(lines(document(tin=holed)))
    assert (found.check, found.severity, found.period) == ("missing-period", "note", "2023-06")
    assert found.evidence["gaps"] == ["2023-04..2023-06"]
    (found,) = habits.gaps(lines(document(tin=holed), document(tin=holed[:30])))
    assert found.severity == "warning"
    assert [*habits.gaps(lines(document(tin=holed), document(tin=holed)))] == []
    assert [*habits.gaps(lines(document(tin=MONTHS)))] == []


def test_a_document_that_fills_in_leaves_nothing_out():
    known = document(tin=[MONTHS[0], *MONTHS[40:]])
    assert [*habits.gaps(lines(document(tin=MONTHS[30:]), known))] == []


def test_series_that_are_silent_together_share_a_finding():
    holed = [p for p in MONTHS if p != "2023-05"]
    (found,) = habits.gaps(lines(document(tin=holed, zinc=holed, lead=MONTHS)))
    assert (found.series, found.evidence["series"]) == (None, ["tin", "zinc"])


def test_a_suspended_period_is_not_left_out():
    now = document(tin=MONTHS)
    now.loc[now["period"] == "2023-05", "status"] = "suspended"
    assert [*habits.gaps(lines(now))] == []


def test_weekends_and_a_holiday_of_every_year_are_no_gaps_and_a_lost_week_is():
    kept = [d for d in WEEKDAYS if not "2024-02-10" <= d <= "2024-02-18" and not "2025-01-28" <= d <= "2025-02-04"]
    found = [*habits.gaps(lines(document(tin=[d for d in kept if d < "2025"]), frequency="daily"))]
    assert [f.evidence["gaps"] for f in found] == [["2024-02-09..2024-02-19"]]
    assert [*habits.gaps(lines(document(tin=kept), document(tin=kept[:250]), frequency="daily"))] == []


def test_a_series_that_the_newest_period_leaves_out_is_told_once():
    known = document(tin=MONTHS[:-1], zinc=MONTHS[:-1], lead=MONTHS[:-1], old=MONTHS[:20])
    now = document(tin=MONTHS, zinc=MONTHS, lead=MONTHS[:-1], old=MONTHS[:20])
    (found,) = habits.left_behind(lines(now, known))
    assert (found.check, found.severity, found.series, found.period) == ("missing-period", "warning", "lead", "2025-12")
    assert found.evidence["others"] == 2
    assert [*habits.left_behind(lines(now, now))] == [] and [*habits.left_behind(lines(now))] == []
    later = document(tin=[*MONTHS, "2026-01"], zinc=[*MONTHS, "2026-01"], lead=MONTHS[:-1], old=MONTHS[:20])
    assert [*habits.left_behind(lines(later, now))] == []


def learnt(delays):
    """Months that became known so many days after they began."""
    days = [dt.date.fromisoformat(f"{p}-01") + dt.timedelta(days=d) for p, d in zip(MONTHS, delays, strict=False)]
    return pd.DataFrame({"series": "tin", "period": MONTHS[: len(days)], "day": days})


def test_a_month_is_overdue_when_it_is_later_than_any_before_it():
    known = learnt([33, 35, 32, 34, 38, 33, 33, 34])  # to 2020-08, at most 38 days after the month began
    due = dt.date(2020, 8, 1) + dt.timedelta(days=31 + 38 + 1)
    assert [*habits.overdue(known, {"tin": series()}, due)] == []
    (found,) = habits.overdue(known, {"tin": series()}, due + dt.timedelta(days=3))
    assert (found.check, found.severity, found.series, found.period) == ("overdue", "warning", "tin", "2020-08")
    assert (found.evidence["due"], found.evidence["days_late"]) == (due.isoformat(), 3)


def test_nothing_is_overdue_of_a_series_whose_delays_were_never_seen():
    backlog = learnt([0] * 40).assign(day=dt.date(2023, 6, 1))
    assert [*habits.overdue(backlog, {"tin": series()}, dt.date(2030, 1, 1))] == []
    assert [*habits.overdue(learnt([33] * 5), {"tin": series()}, dt.date(2030, 1, 1))] == []


# ---------------------------------------------------------------------------------------- revisions


def revised(*rows, name="tin", day="2025-12-05"):
    at = micros(dt.datetime.fromisoformat(day + "T12:00:00+00:00"))
    told = pd.DataFrame(rows, columns=["period", "old", "new"]).astype({"old": "float64", "new": "float64"})
    return told.assign(series=name, vintage=np.int64(at))


def judged(before, now):
    told = pd.concat([before, now], ignore_index=True)
    return habits.revisions(told, np.arange(len(told)) >= len(before))


def small(name="tin", n=12):
    return pd.concat([revised((m, 100.0, 100.4), name=name, day=f"{m}-28") for m in MONTHS[:n]])


def test_a_revision_as_large_and_as_old_as_those_before_it_is_none_to_tell():
    assert judged(small(), revised(("2025-11", 100.0, 100.6))) == []


def test_a_revision_beyond_the_habit_of_its_series_is_told_with_the_limit():
    (found,) = judged(small(), revised(("2025-11", 100.0, 103.0), ("2025-10", 100.0, 100.1)))
    assert (found.check, found.severity, found.series, found.period) == ("revision", "warning", "tin", "2025-11")
    facts = found.evidence
    assert (facts["count"], facts["large"], facts["deep"], facts["undone"]) == (2, 1, 0, 100.0)
    assert facts["largest"] == pytest.approx(0.03) and facts["limit"] == pytest.approx(1.004**2 - 1)


def test_a_series_without_a_habit_is_judged_by_that_of_its_source_and_a_source_without_one_by_five_per_cent():
    assert len(judged(small("zinc"), revised(("2025-11", 100.0, 103.0)))) == 1
    assert judged(revised(), revised(("2025-11", 100.0, 104.9))) == []
    assert len(judged(revised(), revised(("2025-11", 100.0, 105.1)))) == 1


def test_a_revision_of_figures_that_were_never_touched_for_years_is_told():
    (found,) = judged(small(), revised(("2020-05", 100.0, 100.1), ("2025-11", 100.0, 100.1)))
    assert (found.evidence["deep"], found.evidence["large"], found.period) == (1, 0, "2020-05")


def test_one_mistake_among_many_revisions_does_not_widen_the_habit():
    before = pd.concat([small(n=40), revised(("2024-01", 100.0, 1000.0)), revised(("2024-01", 1000.0, 100.0))])
    assert len(judged(before, revised(("2025-11", 100.0, 103.0)))) == 1
