"""What is forecast, for whom, by which model, and what is said of it afterwards."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import made_world
import numpy as np
import pandas as pd
import pytest
from defusedxml import ElementTree
from hypothesis import given, settings
from hypothesis import strategies as st
from made_world import World

import forecasting
from benchmarks.small_world import NOW
from forecasting.candidates import BENCHMARK
from forecasting.forecaster import DAILY_CLOSES
from pricing import forecasts, pipeline
from pricing.charts import coverage_chart
from pricing.config import Forecasting, Rights
from pricing.forecasts import Subject, ahead, backtest, history, outlook, past, scored

RULES = Forecasting(
    horizons={"daily": 5, "monthly": 3}, levels=(80, 95), enter=0.05, leave=0.2, least_origins=10,
    review_months=(1,), first={"daily": 40, "monthly": 36}, step={"daily": 5, "monthly": 1}, most_origins=30,
)  # fmt: skip


def walk(count: int, seed: int = 1, sigma: float = 0.02) -> np.ndarray:
    return 1e4 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, sigma, count)))


def daily(count: int = 120, seed: int = 1) -> Subject:
    days = [str(d.date()) for d in pd.bdate_range("2025-01-06", periods=count)]
    return Subject("tin/metal/XCN", "daily", "close", pd.Series(walk(count, seed), days), None, "USD/t", "the price")


def monthly(count: int = 60, closes: bool = False) -> Subject:
    days = pd.bdate_range("2020-01-01", periods=21 * count + 40)
    close = pd.Series(walk(len(days)), [str(d.date()) for d in days])
    y = close.groupby([p[:7] for p in close.index]).mean().iloc[:count]
    shown = close[close.index <= f"{y.index[-1]}-31"] if closes else None
    return Subject("tin/metal/XCN", "monthly", "average", y, shown, "USD/t", "the average")


def what_is_tested(one: Subject) -> dict:
    model = {"close": "random-walk-weighted", "average": "averaged-walk-weighted"}[one.kind]
    told = {"method": one.method, "unit": one.unit, "model": DAILY_CLOSES if one.closes is not None else model}
    return {**told, "horizon": RULES.horizons[one.frequency], "levels": [80, 95]}


# ---------------------------------------------------------------------------------------- an outlook


def test_without_a_test_the_benchmark_is_published_and_a_model_only_once_it_was_adopted():
    one = daily()
    plain = outlook(one, RULES, None, ()).current
    assert plain is not None and plain["model"] == plain["benchmark"] == BENCHMARK["close"]
    kept = {
        "tests": what_is_tested(one),
        "decision": {"published": "benchmark", "since": "", "reviewed": "", "why": ""},
    }
    assert outlook(one, RULES, kept, ()).current == plain
    adopted = {**kept, "decision": {**kept["decision"], "published": "model"}}
    made = outlook(one, RULES, adopted, ()).current
    assert made is not None and made["model"] != BENCHMARK["close"] and made["content"] != plain["content"]
    for other in ({"horizon": 6}, {"method": "another"}, {"unit": "USD/kg"}, {"model": "another"}):
        stale = {**adopted, "tests": {**adopted["tests"], **other}}
        assert outlook(one, RULES, stale, ()).current == plain, "a decision on something else decides nothing"


def test_figures_are_those_of_the_forecaster_to_six_digits_for_the_periods_that_follow():
    one = daily()
    made = outlook(one, RULES, None, ()).current
    expected = forecasting.forecast(one.y, 5, (80, 95), kind="close", model="random-walk")
    assert [r["period"] for r in made["horizons"]] == ahead(one.y.index[-1], 5, "daily")
    for row in made["horizons"]:
        h = row["horizon"]
        assert row["median"] == pytest.approx(expected.median[h], rel=5e-6)
        assert row["lo-95"] == pytest.approx(expected.bounds.at[h, "lo-95"], rel=5e-6)
        assert row["lo-95"] <= row["lo-80"] <= row["median"] <= row["hi-80"] <= row["hi-95"]
    table = np.array(made["quantiles"])
    assert (np.diff(table, axis=1) >= 0).all() and table.shape == (5, len(made["probabilities"]))


def test_an_average_with_daily_closes_is_forecast_from_the_last_of_them_tested_or_not():
    with_closes, alone = monthly(closes=True), monthly()
    made = outlook(with_closes, RULES, None, ()).current
    assert made["model"] == made["benchmark"] == DAILY_CLOSES
    assert outlook(alone, RULES, None, ()).current["model"] == BENCHMARK["average"]
    ends_early = dataclasses.replace(with_closes, closes=with_closes.closes.iloc[:-30])
    short = outlook(ends_early, RULES, None, ()).current
    assert short["model"] == BENCHMARK["average"] and "closes do not serve" in short["why"]


def test_an_unchanged_series_takes_its_forecast_over_and_any_change_does_not(monkeypatch):
    one = daily()
    old = {**outlook(one, RULES, None, ()).current, "release": 7}
    monkeypatch.setattr(forecasting, "forecast", lambda *_, **__: pytest.fail("computed again"))
    again = outlook(one, RULES, None, [old]).current
    assert again == {k: v for k, v in old.items() if k != "release"}
    monkeypatch.undo()
    moved = one.y.copy()
    moved.iloc[3] *= 1 + 1e-12
    for other in (dataclasses.replace(one, y=moved), dataclasses.replace(one, y=one.y.iloc[:-1])):
        assert outlook(other, RULES, None, [old]).current["content"] != old["content"]


def test_a_fit_that_fails_gives_the_random_walk_and_a_finding_and_too_short_a_series_none(monkeypatch):
    def broken(y, h, levels, *, kind, model=None, closes=None):
        if model != "random-walk":
            raise np.linalg.LinAlgError("singular")
        return real(y, h, levels, kind=kind, model=model)

    real = forecasting.forecast
    monkeypatch.setattr(forecasting, "forecast", broken)
    adopted = {"tests": what_is_tested(daily()), "decision": {"published": "model"}}
    made = outlook(daily(), RULES, adopted, ())
    assert made.current["model"] == "random-walk" and "singular" in made.finding
    monkeypatch.undo()
    again = outlook(daily(), RULES, adopted, [{**made.current, "release": 1}])
    assert again.current["model"] != "random-walk" and not again.finding, "what failed is tried again"
    none = outlook(daily(3), RULES, None, ())
    assert none.current is None and "at least" in none.finding


@settings(max_examples=60, deadline=None)
@given(st.dates(), st.integers(1, 40))
def test_the_days_ahead_are_the_next_weekdays(origin, count):
    days = [pd.Timestamp(d) for d in ahead(str(origin), count, "daily")]
    assert all(d.weekday() < 5 for d in days) and days == sorted(set(days)) and str(days[0].date()) > str(origin)
    between = pd.bdate_range(pd.Timestamp(origin) + pd.Timedelta(days=1), days[-1])
    assert list(between) == days


# ---------------------------------------------------------------------------------------- a backtest


def test_a_backtest_sees_nothing_that_was_learnt_later():
    """The last ten days are revised tenfold by a release after all origins: every figure of the record stays."""
    one = daily(140)
    shown = [(p, "2025-12-01T00:00:00+00:00", float(v)) for p, v in one.y.items()]
    before = backtest(one, RULES, shown, None, "2026-01-05")
    late = [(p, "2025-12-02T00:00:00+00:00", float(v) * 10) for p, v in one.y.iloc[-60:].items()]
    after = backtest(one, RULES, shown + late, None, "2026-01-05")
    assert before is not None and before == after

    table, known = history(one, shown + late)
    assert known[one.y.index[0]] == pd.Timestamp(one.y.index[0], tz="UTC") + pd.Timedelta("1D") - pd.Timedelta("1us")
    assert (table.groupby("period").size() == 2).sum() == 60


def test_the_record_is_that_of_forecasts_made_one_by_one():
    one = daily(90)
    made = backtest(one, RULES, [], None, "2026-01-05")
    origins = list(range(40, 90))[::-1][::5][::-1]  # from the last day but one back
    assert made["origins"] == len(origins) and made["as_known"] == 0
    inside = []
    for n in origins:
        told = forecasting.forecast(one.y.iloc[:n], 5, (80, 95), kind="close")
        happened = one.y.iloc[n]
        inside.append(told.bounds.at[1, "lo-80"] <= happened <= told.bounds.at[1, "hi-80"])
    assert made["record"][0]["coverage-80"] == pytest.approx(np.mean(inside), rel=1e-5)
    assert made["record"][0]["origins"] == len(origins)
    assert backtest(daily(40), RULES, [], None, "2026-01-05") is None


def test_between_reviews_nothing_changes_whatever_the_figures_say():
    first = backtest(daily(), RULES, [], None, "2026-01-05")
    flipped = {**first, "decision": {**first["decision"], "published": "model", "reviewed": "2026-01-05"}}
    assert backtest(daily(), RULES, [], flipped, "2026-11-05")["decision"] == flipped["decision"]
    assert backtest(daily(), RULES, [], flipped, "2027-01-04")["decision"]["reviewed"] == "2027-01-04"


def test_closes_that_are_revised_later_change_no_origin_before():
    one = monthly(closes=True)
    shown = [(p, "2026-02-01T00:00:00+00:00", float(v)) for p, v in one.closes.items()]
    late = [(p, "2026-02-02T00:00:00+00:00", float(v) * 3) for p, v in one.closes.items()]
    revised = dataclasses.replace(one, closes=one.closes * 3)
    before = backtest(one, RULES, [], None, "2026-03-02", shown)
    after = backtest(revised, RULES, [], None, "2026-03-02", shown + late)
    assert before == after


def test_a_record_of_closes_counts_what_closes_forecast_and_without_any_the_averages_are_tested():
    made = backtest(monthly(60, closes=True), RULES, [], None, "2026-03-02")
    assert made["origins"] == 60 - 1 - 47 and made["model"] == DAILY_CLOSES  # 48 months of closes are needed
    short = backtest(monthly(45, closes=True), RULES, [], None, "2026-03-02")
    assert short["skill_is"] == "skill" and short["model"] != DAILY_CLOSES


def test_what_one_release_showed_first_is_one_origin():
    one = daily(100)
    at = [f"2026-01-{1 + i // 30:02d}T00:00:00+00:00" for i in range(100)]  # four releases, thirty days each
    shown = list(zip(one.y.index, at, one.y.tolist(), strict=True))
    made = backtest(one, RULES, shown, None, "2026-02-02")
    assert made["origins"] <= 5 and made["as_known"] <= made["origins"]


def test_a_market_quoted_by_the_week_is_not_forecast_by_the_day():
    weeks = pd.Series(walk(30), [str(d.date()) for d in pd.date_range("2025-01-01", periods=30, freq="7D")])
    assert forecasts._is_daily(daily().y) and not forecasts._is_daily(weeks)


def test_one_series_that_fails_loses_no_other_test(monkeypatch):
    monkeypatch.setattr(forecasts, "backtest", lambda *_: 1 / 0)
    (task,) = forecasts.backtests([daily()], RULES, lambda *_: [], {}, "2026-01-05")
    assert "ZeroDivisionError" in task()["failed"]


def test_what_closes_gain_is_called_information_and_never_adopted_as_skill():
    made = backtest(monthly(closes=True), RULES, [], None, "2026-01-05")
    assert made["skill_is"] == "information" and made["decision"]["published"] == "benchmark"
    assert made["record"][0]["skill"] > 5, "one month ahead a random walk's last close says much more"


# ----------------------------------------------------------------------------------------- afterwards


def test_earlier_forecasts_are_set_beside_what_happened_the_first_of_each_origin():
    row = {"median": 100.0, "lo-80": 90.0, "hi-80": 110.0, "lo-95": 80.0, "hi-95": 120.0}

    def told(origin: str, release: int, *periods: str, **other: float) -> dict:
        rows = [{"horizon": h, "period": p, **row, **other} for h, p in enumerate(periods, 1)]
        place = {"unit": "USD/t", "method": ""}
        return {"origin": origin, "release": release, "model": "m", **place, "horizons": rows}

    one = dataclasses.replace(daily(), y=pd.Series([100.0, 115.0, np.nan, 130.0], ["d1", "d2", "d3", "d4"]))
    before = [told("d1", 1, "d2", "d3", "d4"), told("d1", 2, "d2", median=999.0), told("d3", 3, "d4", "d5")]
    found = past(one, before, (80, 95))
    assert [(f["origin"], f["release"]) for f in found] == [("d3", 3), ("d1", 1)]
    assert [(r["period"], r["happened"], r["inside-80"], r["inside-95"]) for r in found[1]["horizons"]] == [
        ("d2", 115.0, False, True), ("d4", 130.0, False, False),
    ]  # fmt: skip
    by = {line["horizon"]: line for line in scored(found, (80, 95))}
    assert (by[1]["forecasts"], by[1]["covered-80"], by[1]["covered-95"]) == (2, 0.0, 0.5)
    assert by[1]["error"] == pytest.approx((15 / 115 + 30 / 130) / 2, rel=1e-5)
    assert by[3]["forecasts"] == 1 and 2 not in by
    for other in ({"unit": "USD/kg"}, {"method": "another"}):
        assert past(dataclasses.replace(one, **other), before, (80, 95)) == []


def test_a_chart_shows_every_horizon_of_every_level_and_is_drawn_without_a_browser():
    drawn = coverage_chart("tin, daily", backtest(daily(), RULES, [], None, "2026-01-05"))
    root = ElementTree.fromstring(drawn)
    texts = {"".join(t.itertext()) for t in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"80 %", "95 %", "skill", "coverage, %", "periods ahead"} <= texts
    assert any(text.startswith("tin, daily: ") for text in texts)
    marks = [e for e in root.iter() if (e.get("aria-roledescription") or "").endswith("point")]
    assert len(marks) == 5 * 3


# ----------------------------------------------------------------------------------------- the service


@pytest.fixture
def world(tmp_path: Path):
    with made_world.serving(tmp_path) as made:
        rules = RULES.model_copy(update={"first": {"daily": 40, "monthly": 20}, "least_origins": 10})
        made.methodology = made.methodology.model_copy(update={"forecasts": rules})
        made.set_source("beta", rights=Rights.preset("open").model_copy(update={"forecast": False}))
        yield made


def document(made, name: str) -> dict:
    return json.loads((made.folder / f"{name}.json").read_bytes())


def test_forecasts_are_published_kept_and_scored_and_only_what_the_rights_allow(world: World):
    world.collect("alpha", "days", "euro", "output", "rates", "moody")
    first = world.release()
    listed = {line["id"] for line in document(first, "forecasts")["forecasts"]}
    assert listed == {"nickel/metal/XCN", "cobalt/metal/XCN", "two-metals"}
    day = document(first, "forecasts/nickel/metal/XCN")["frequencies"]["daily"]
    assert day["published"] == "benchmark" and "not tested yet" in day["decision"]["why"] and day["past"] == []

    world.now += pd.Timedelta(hours=1).to_pytimedelta()
    with world.opened() as ws:
        rows = pipeline.backtest(ws, "public")
    assert {(n, f) for n, f, _ in rows} >= {("nickel/metal/XCN", "daily"), ("cobalt/metal/XCN", "monthly")}

    world.second_round()
    world.collect("days", "euro")
    second = world.release()
    part = document(second, "forecasts/nickel/metal/XCN")["frequencies"]["daily"]
    assert part["backtest"]["origins"] > 0 and part["decision"]["reviewed"] == NOW[1].date().isoformat()
    assert part["past"][0]["origin"] == day["current"]["origin"] and part["record"][0]["forecasts"] == 1
    (row,) = part["past"][0]["horizons"]
    price = document(second, "prices/nickel/metal/XCN")["latest"]["daily"]
    assert row["period"] == price["period"] and row["happened"] == pytest.approx(price["unrounded"], rel=5e-6)

    world.now += pd.Timedelta(days=1).to_pytimedelta()
    world.collect("beta")  # its terms allow no forecasts
    third = world.release()
    assert document(third, "forecasts")["forecasts"] == []
    assert not list((third.folder / "forecasts").glob("**/*.json")) if (third.folder / "forecasts").exists() else True
    assert {line["id"] for line in document(world.release("internal"), "forecasts")["forecasts"]} == listed


def test_what_a_release_forecast_is_kept_once_however_often_it_is_adopted(world: World):
    world.collect("alpha", "days", "output", "moody")
    made = world.release()
    with world.opened() as ws:
        kept = ws.store.forecasts("public")
        ws.store._conn.execute("DELETE FROM release")  # as after a kill between the release and its record
        pipeline.recover(ws, "public")
        assert ws.store.forecasts("public") == kept and ws.store.last_release("public")["number"] == made.number
        assert all(len(rows) == 1 for rows in kept.values())
    assert forecasts.VERSION == 1
