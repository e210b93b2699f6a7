"""What is learnt after the cut-off of its series enters the next determination, and is listed as late."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from zoneinfo import ZoneInfo

import made_world
import orjson
import pytest
from pydantic import ValidationError

from benchmarks.small_world import NOW
from pricing.config import Series

LONDON = ZoneInfo("Europe/London")


def series(cut_off: str, **facts) -> Series:
    told = {"id": "x", "unit": "USD/t", "frequency": "daily", "origin": "o", "cut_off": cut_off, **facts}
    return Series.model_validate(told)


def test_the_last_cut_off_is_that_of_the_clock_of_its_zone_in_summer_and_in_winter():
    one = series("16:00 Europe/London")
    for release in (dt.datetime(2026, 7, 1, 15, 0, tzinfo=dt.UTC), dt.datetime(2026, 1, 15, 16, 0, tzinfo=dt.UTC)):
        assert one.last_cut_off(release) == release, "at the cut-off itself it has just been reached"
        before = one.last_cut_off(release - dt.timedelta(seconds=1)).astimezone(LONDON)
        assert (before.date(), before.hour) == (release.date() - dt.timedelta(days=1), 16)
    over_the_change = one.last_cut_off(dt.datetime(2026, 3, 29, 14, 59, tzinfo=dt.UTC))  # clocks went forward at 1:00
    assert over_the_change == dt.datetime(2026, 3, 28, 16, 0, tzinfo=dt.UTC)
    assert series("").last_cut_off(NOW[1]) == NOW[1]


@pytest.mark.parametrize("wrong", ["16:00", "16:00 London", "four Europe/London", "16:00+01:00 Europe/London", "16"])
def test_a_cut_off_is_a_time_and_a_zone(wrong):
    with pytest.raises(ValidationError, match="such as"):
        series(wrong)


def test_only_prices_and_rates_have_one():
    with pytest.raises(ValidationError, match="has no cut-off"):
        series("16:00 Europe/London", kind="production")


def document(made, name: str) -> dict:
    return orjson.loads((made.folder / name).read_bytes())


def nickel(made, period: str) -> dict:
    rows = document(made, f"prices/nickel/metal/XCN/monthly/{period[:4]}.json")["determinations"]
    return next(r for r in rows if r["period"] == period)


def test_a_figure_at_the_cut_off_enters_and_one_a_second_later_waits_for_the_next_release(tmp_path: Path):
    """Beta says the same in both rounds; alpha revises June and adds October in the second, a second too late."""
    cut = NOW[2] - dt.timedelta(hours=2)  # 12:00 in London
    with made_world.serving(tmp_path) as world:
        alpha = world.operation.sources["alpha"]
        named = [s.model_copy(update={"cut_off": "12:00 Europe/London"}) for s in alpha.series]
        world.set_source("alpha", series=tuple(named))
        world.now = NOW[1] - dt.timedelta(hours=2)
        world.collect("alpha", "beta", "output")  # at the cut-off of that day, to the second
        world.now = NOW[1]
        first = world.release()
        assert document(first, "prices.json")["late"] == []
        assert {"alpha", "beta"} <= {c["origin"] for c in nickel(first, "2026-09")["contributors"]}

        world.second_round()
        world.now = cut + dt.timedelta(seconds=1)
        world.collect("alpha")
        world.now = NOW[2]
        second = world.release()
        late = document(second, "prices.json")["late"]
        assert {(row["series"], row["period"]) for row in late} == {
            ("alpha-nickel", "2026-06"), ("alpha-nickel", "2026-10"), ("alpha-cobalt", "2026-10"),
        }  # fmt: skip
        assert {dt.datetime.fromisoformat(row["cut_off"]) for row in late} == {cut}
        assert all(dt.datetime.fromisoformat(row["learnt_at"]) > cut for row in late)
        assert {r["series"] for r in document(second, "prices/nickel/metal/XCN.json")["late"]} == {"alpha-nickel"}
        assert nickel(second, "2026-06") == nickel(first, "2026-06")
        assert "alpha" not in {c["origin"] for c in nickel(second, "2026-10")["contributors"]}

        world.now += dt.timedelta(days=1)
        third = world.release()
        assert document(third, "prices.json")["late"] == []
        assert nickel(third, "2026-06") != nickel(first, "2026-06")
        assert "alpha" in {c["origin"] for c in nickel(third, "2026-10")["contributors"]}
