"""Alarms into shocks: their size, severity and verdict, what becomes of them, and how a release tells them."""

from __future__ import annotations

import datetime as dt
import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import service
from benchmarks import small_world
from pricing import config, pipeline, shocks
from pricing.config import Watching
from pricing.shocks import Told, tell
from pricing.watching import Judged
from pricing.watchlist import Subject

RULES = Watching(
    false_alarms={"spike": 0.5, "volatility": 0.2, "trend": 0.1, "stale": 0.1, "replay": 0.02, "divergence": 0.2},
    over={"daily": 5, "ten-day": 2, "monthly": 2},
    severity=[{"percent": 0, "sigmas": 0}, {"percent": 5, "sigmas": 3}, {"percent": 10, "sigmas": 5},
              {"percent": 20, "sigmas": 8}],
    along=0.5, persisted=3, common_minerals=3, common_days=2,
)  # fmt: skip
NOBODY = SimpleNamespace(prices={}, baskets={})


def price(name: str, values, frequency: str = "daily") -> Subject:
    if frequency == "daily":
        periods = [str(d.date()) for d in pd.bdate_range("2026-01-05", periods=len(values))]
    else:
        periods = [str(p) for p in pd.period_range("2020-01", periods=len(values), freq="M")]
    rows = [(p, {name: (float(v),)}) for p, v in zip(periods, values, strict=True)]
    return Subject(name, "price", frequency, rows, "USD/t", (name,), dict.fromkeys(periods, "A"))


def alarm(subject: Subject, *positions: int, check: str = "spike", kind: str = "market") -> dict:
    def verdict(t: int) -> dict:
        onset = dt.date.fromisoformat(
            subject.periods[t] if subject.frequency == "daily" else f"{subject.periods[t]}-01"
        )
        return {"score": 2.0, "kind": kind, "check": check, "p_value": None, "expected": float(subject.values[t - 1]),
                "change": 0.2, "sigmas": 9.0, "onset": onset.toordinal(), "evidence": {}, "undone": None}  # fmt: skip

    rows = {subject.periods[t]: Judged(float(subject.values[t]), verdict(t)) for t in positions}
    return {subject.key: rows}


def alternating(count: int, size: float = 0.01) -> np.ndarray:
    """Prices whose every change is of one size, to and fro: a usual change is known exactly."""
    return 100 * np.exp(size * (np.arange(count) % 2))


def told(watched, flagged, before=(), number=1, vintage="2026-04-01T14:00:00.000000Z", figures=NOBODY, forecasts=None):
    prices = {s.name: SimpleNamespace(made=lambda _: None) for s in watched}
    figures = SimpleNamespace(prices=prices, baskets={}, gaps={})
    return tell(watched, flagged, before, figures, RULES, forecasts or {}, number, vintage)


def test_the_size_of_a_shock_is_counted_from_the_last_value_before_it():
    values = alternating(60)
    values[50:] *= 1.21
    one = price("nickel/metal/XCN", values)
    (shock,) = told([one], alarm(one, 50)).shocks
    assert shock["from"] == {"period": one.periods[49], "value": pytest.approx(values[49])}
    assert shock["to"]["period"] in one.periods[50:51] and shock["direction"] == "up"
    assert shock["change_percent"] == pytest.approx(100 * (values[50] / values[49] - 1), rel=1e-5)
    change = math.log(values[50] / values[49])
    # every usual change is .01; the square root of pi/2 turns a mean absolute normal one into a standard deviation
    assert shock["sigmas"] == pytest.approx(change / (math.sqrt(math.pi / 2) * 0.01), rel=1e-3)
    assert shock["severity"] == 3  # +19.8 %: above 10 and 5 sigmas, below 20 %
    assert (shock["onset"], shock["flagged"], shock["observations"]) == (one.periods[50], one.periods[50], 1)
    assert shock["product"] == "shock" and shock["unit"] == "USD/t" and shock["grade"] == "A"


@pytest.mark.parametrize(
    ("factor", "severity"),
    [(1.03, 1), (1.07, 2), (1.13, 3), (1.25, 4), (0.97, 1), (0.75, 4)],
)
def test_severity_asks_for_both_sizes(factor, severity):
    values = alternating(60, 0.004)
    values[50:] *= factor
    one = price("nickel/metal/XCN", values)
    (shock,) = told([one], alarm(one, 50)).shocks
    assert shock["severity"] == severity
    wide = alternating(60, 0.08)  # the same change in a market that moves 8 % a day is no severe one
    wide[50:] *= factor
    (usual,) = told([wide_one := price("nickel/metal/XCN", wide)], alarm(wide_one, 50)).shocks
    assert usual["severity"] <= 2


def test_alarms_close_to_each_other_are_one_shock_which_ends_when_it_is_quiet():
    one = price("tin/metal/XCN", alternating(60))
    first, second = told([one], alarm(one, 20, 24, 29, 40)).shocks
    assert (first["flagged"], first["last"]) == (one.periods[20], one.periods[29])
    assert first["state"] == second["state"] == "over" and second["flagged"] == one.periods[40]
    (open_,) = told([one], alarm(one, 57)).shocks
    assert open_["state"] == "open" and open_["now"]["period"] == one.periods[-1]


def test_months_make_a_monthly_movement_and_old_alarms_are_told_as_hindsight():
    one = price("tin/metal/WLD", alternating(75), "monthly")
    old, new = told([one], alarm(one, 40, 74), vintage="2026-04-05T00:00:00.000000Z").shocks
    assert old["product"] == new["product"] == "monthly movement"
    assert old["hindsight"] and old["age_days"] is None and not new["hindsight"] and new["age_days"] == 5
    assert shocks.record([old, new])["told"] == 1


def test_a_shock_keeps_its_id_and_a_verdict_that_changes_is_added_not_overwritten():
    values = alternating(53)
    values[50:] *= 1.3
    early = price("tin/metal/XCN", values[:51])
    first = told([early], alarm(early, 50)).shocks
    assert first[0]["verdict"] == "unsettled" and first[0]["certainty"] == "possible"
    later = price("tin/metal/XCN", values)
    (second,) = told([later], alarm(later, 50), first, 2, "2026-04-02T14:00:00.000000Z").shocks
    assert second["id"] == first[0]["id"] and second["told_in"] == 1
    assert (second["verdict"], second["certainty"]) == ("market", "likely")  # it stands after three observations
    assert [h["release"] for h in second["history"]] == [1, 2]
    assert second["history"][0] == first[0]["history"][0]
    (third,) = told([later], alarm(later, 50), [second], 3, "2026-04-03T14:00:00.000000Z").shocks
    assert third["history"] == second["history"]  # nothing changed, so nothing is added


def test_a_shock_whose_figure_is_revised_away_is_withdrawn_with_the_reason_and_stays_on_the_list():
    values = alternating(52)
    values[51] *= 10
    wrong = price("tin/metal/XCN", values)
    before = told([wrong], alarm(wrong, 51, check="decimal", kind="data"), vintage="2026-03-18T00:00:00Z").shocks
    assert before[0]["verdict"] == "error" and before[0]["kind"] == "data"
    right = price("tin/metal/XCN", alternating(54))
    (gone,) = told([right], {}, before, 2).shocks
    assert gone["state"] == "withdrawn" and gone["verdict"] == "error" and gone["now"] is None
    assert f"{right.values[51]:g}" in gone["history"][-1]["why"] and len(gone["history"]) == 2
    (still,) = told([right], {}, [gone], 3).shocks
    assert still == gone
    assert shocks.record([gone])["withdrawn"] == 1


def test_what_moved_along_tells_market_from_error():
    values = alternating(60)
    values[58:] *= 0.7
    one, with_, against = (price(f"gallium/metal/{z}", v) for z, v in
                           (("XCN", values), ("CN", values), ("WLD", 1 / values)))  # fmt: skip
    (shock,) = told([one, with_, against], alarm(one, 58)).shocks
    assert shock["corroboration"]["markets_along"] == ["gallium/metal/CN"]
    assert shock["corroboration"]["markets_against"] == ["gallium/metal/WLD"]
    assert (shock["verdict"], shock["certainty"]) == ("market", "likely")
    (alone,) = told([one], alarm(one, 58)).shocks
    assert alone["verdict"] == "unsettled"


def test_several_minerals_at_once_are_one_event_and_two_are_not():
    values = alternating(60)
    values[50:] *= 1.2
    names = ["nickel/metal/XCN", "tin/metal/XCN", "copper/metal/XCN"]
    many = [price(n, values) for n in names]
    flagged = alarm(many[0], 50) | alarm(many[1], 51) | alarm(many[2], 52)
    found = told(many, flagged).shocks
    assert len({s["event"] for s in found}) == 1 and found[0]["event"] == f"event:{found[0]['id']}"
    assert {s["event"] for s in told(many[:2], alarm(many[0], 50) | alarm(many[1], 50)).shocks} == {None}
    zones = [price(n, values) for n in ("tin/metal/CN", "tin/metal/XCN", "copper/metal/CN")]
    assert {s["event"] for s in told(zones, {k: v for z in zones for k, v in alarm(z, 50).items()}).shocks} == {None}


def test_what_was_expected_is_what_the_last_forecast_before_it_said():
    values = alternating(60)
    values[50:] *= 1.3
    one = price("tin/metal/XCN", values)
    row = {"horizon": 2, "period": one.periods[50], "median": 101.0, "lo-95": 97.0, "hi-95": 105.0}
    early = {"origin": one.periods[48], "release": 7, "unit": "USD/t", "horizons": [row]}
    late = {"origin": one.periods[50], "release": 9, "unit": "USD/t", "horizons": [row | {"median": 130.0}]}
    made = [early, late]
    (shock,) = told([one], alarm(one, 50), forecasts={one.key: made}).shocks
    assert shock["expected"] == {"by": "forecast", "release": 7, "median": 101.0, "lo-95": 97.0, "hi-95": 105.0}


def test_a_price_that_stands_still_is_a_doubt_and_no_shock():
    one = price("tin/metal/XCN", np.full(30, 5.0))
    made = told([one], alarm(one, 20, 21, 22, check="stale", kind="data"))
    assert made.shocks == []
    (doubt,) = made.doubts
    assert (doubt["first"], doubt["last"], doubt["observations"]) == (one.periods[20], one.periods[22], 3)
    assert "again and again" in shocks.in_words(doubt)


def test_the_periods_of_a_shock_know_it():
    one = price("tin/metal/XCN", alternating(30))
    made = Told(told([one], alarm(one, 20, 22)).shocks)
    found = made.by_period("tin/metal/XCN", "daily", one.periods)
    assert sorted(found) == one.periods[20:23] and made.by_period("tin/metal/XCN", "monthly", ["2026-01"]) == {}


# ----------------------------------------------------------------------------------------- the service

METHOD = small_world.METHODOLOGY.replace(
    "[twins]",
    """
[shocks]
over = { daily = 5, ten-day = 2, monthly = 2 }
severity = [{ percent = 0, sigmas = 0 }, { percent = 5, sigmas = 3 }, { percent = 10, sigmas = 5 },
            { percent = 20, sigmas = 8 }]
along = 0.5
persisted = 3
common_minerals = 3
common_days = 2
false_alarms = { spike = 0.5, volatility = 0.2, trend = 0.1, stale = 0.1, replay = 0.02, divergence = 0.2 }

[twins]""",
)


class House:
    """A data folder with one source, whose document of each day is given by hand."""

    def __init__(self, folder) -> None:
        self.folder = folder
        (folder / "methodology").mkdir()
        (folder / "methodology" / "2026-11.toml").write_text(METHOD)
        (folder / "config.toml").write_text(small_world.config_text("http://127.0.0.1:9", names=("days",)))
        self.operation = config.load_operation(folder / "config.toml")
        self.methodology = config.load_methodology(folder / "methodology")
        rng = np.random.default_rng(11)
        self.days = pd.bdate_range("2026-01-05", periods=160)
        self.nickel = (15_000 * np.exp(np.cumsum(rng.normal(0, 0.01, 160)))).round(2)
        self.cobalt = (36_000 * np.exp(np.cumsum(rng.normal(0, 0.01, 160)))).round(2)

    def release(self, count: int):
        at = self.days[count - 1].to_pydatetime().replace(hour=14, tzinfo=dt.UTC)
        rows = zip(self.days[:count], self.nickel, self.cobalt, strict=False)
        raw = "date,nickel,cobalt\n" + "".join(f"{d.date()},{n},{c}\n" for d, n, c in rows)
        with pipeline.opened(self.folder / "data", self.operation, self.methodology, lambda: at) as ws:
            with pipeline.writing(ws.data):
                assert pipeline.take(ws, "days", raw.encode(), at, "days.csv").ok
            made = pipeline.release(ws, "public", at, {})
            return made, json.loads((made.folder / "shocks.json").read_bytes())


def test_a_jump_is_told_kept_corroborated_and_withdrawn_release_by_release(tmp_path):
    house = House(tmp_path)
    house.nickel[150:] = (house.nickel[150:] * 1.35).round(2)
    _, before = house.release(150)
    assert not [s for s in before["shocks"] if not s["hindsight"]]
    made, told_ = house.release(151)
    (shock,) = [s for s in told_["shocks"] if not s["hindsight"]]
    day = str(house.days[150].date())
    assert shock["series"] == "nickel/metal/XCN" and shock["flagged"] == day and shock["state"] == "open"
    assert shock["change_percent"] == pytest.approx(100 * (house.nickel[150] / house.nickel[149] - 1), rel=1e-5)
    assert shock["told_in"] == made.number and shock["age_days"] == 0 and shock["href"] == "/v1/prices/nickel/metal/XCN"

    listed = json.loads((made.folder / "prices/nickel/metal/XCN.json").read_bytes())["shocks"]
    assert [s["id"] for s in listed if s["onset"] == day] == [shock["id"]]
    year = json.loads((made.folder / "prices/nickel/metal/XCN/daily/2026.json").read_bytes())
    assert [r["period"] for r in year["determinations"] if shock["id"] in r.get("shocks", [])] == [day]
    assert shock["id"] in [s["id"] for s in json.loads((made.folder / "shocks/2026.json").read_bytes())["shocks"]]

    house.nickel[150] = (house.nickel[150] / 1.35).round(2)  # the publisher corrects itself, and the rest never comes
    house.nickel[151:] = (house.nickel[151:] / 1.35).round(2)
    _, after = house.release(152)
    (gone,) = [s for s in after["shocks"] if s["id"] == shock["id"]]
    assert gone["state"] == "withdrawn" and gone["history"][-1]["verdict"] == "error"
    assert after["record"]["live"]["withdrawn"] == 1 and after["open"] == 0
    assert json.loads((made.folder / "shocks.json").read_bytes()) == told_  # what was said stays said


def test_the_detector_can_be_rebuilt_from_the_store_and_is_then_the_same(tmp_path):
    house = House(tmp_path)
    house.nickel[140:] = (house.nickel[140:] * 1.2).round(2)
    for count in (120, 130, 141, 150):
        house.release(count)
    with pipeline.opened(tmp_path / "data", house.operation, house.methodology, lambda: NOW) as ws:
        before = ws.store.watches("public"), ws.store.flagged("public")
        ws.store._conn.execute("DELETE FROM watch")
        ws.store._conn.execute("DELETE FROM judged")
    house.release(151)
    with pipeline.opened(tmp_path / "data", house.operation, house.methodology, lambda: NOW) as ws:
        rebuilt = ws.store.watches("public"), ws.store.flagged("public")
    assert before[1] == rebuilt[1]
    other = House((tmp_path / "other").resolve()) if (tmp_path / "other").mkdir() is None else None
    other.nickel[140:] = (other.nickel[140:] * 1.2).round(2)
    for count in (120, 130, 141, 150, 151):
        other.release(count)
    with pipeline.opened(tmp_path / "other" / "data", other.operation, other.methodology, lambda: NOW) as ws:
        assert (ws.store.watches("public"), ws.store.flagged("public")) == rebuilt


NOW = dt.datetime(2026, 11, 20, 14, tzinfo=dt.UTC)


def test_one_series_that_is_stuck_is_a_finding_and_two_markets_stay_quiet(tmp_path):
    house = House(tmp_path)
    house.cobalt[150:] = house.cobalt[149]
    _, told_ = house.release(156)
    doubts = {(d["series"], d["check"]) for d in told_["doubts"]}
    assert ("days-cobalt", "stale") in doubts
    assert not [s for s in told_["shocks"] if s["series"] == "cobalt/metal/XCN" and not s["hindsight"]]
    with pipeline.opened(tmp_path / "data", house.operation, house.methodology, lambda: NOW) as ws:
        (finding,) = [f for f in ws.store.findings() if f["check"] == "stale"]
    assert finding["series"] == "days-cobalt" and finding["severity"] == "warning"


def test_the_command_explains_in_words_why_and_why_not(tmp_path):
    house = House(tmp_path)
    house.nickel[150:] = (house.nickel[150:] * 1.35).round(2)
    house.release(152)

    def run(*words):
        options = ["--config", str(tmp_path / "config.toml"), "--data", str(tmp_path / "data")]
        return CliRunner().invoke(service.main, [*options, "detect", *words])

    day, calm = str(house.days[150].date()), str(house.days[148].date())
    answer = run("--explain", "nickel/metal/XCN", day)
    assert answer.exit_code == 0, answer.output
    assert "flagged: " in answer.output and "spike" in answer.output and "expected" in answer.output
    quiet = run("--explain", "nickel/metal/XCN", calm)
    assert "not flagged" in quiet.output and "spike" in quiet.output
    data = json.loads(run("--json", "--explain", "nickel/metal/XCN", day).output)
    assert data["flagged"] and data["change"] == pytest.approx(math.log(house.nickel[150] / house.nickel[149]))
    assert "35" in run().output or "nickel" in run().output
    wrong = run("--explain", "nickel/metal/XCN", "2026-01-04")
    assert wrong.exit_code == 1 and "nothing was observed" in wrong.output and "2026-01-05" in wrong.output
    assert "there are: " in run("--explain", "unobtainium", day).output


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("spike = 0.5", "spike = 0", "above 0"),
        ("spike = 0.5, ", "", "one for each of spike"),
        ("daily = 5, ten-day = 2, monthly = 2 }\nseverity", "daily = 5 }\nseverity", "daily, ten-day, monthly"),
        ("{ percent = 5, sigmas = 3 }", "{ percent = 50, sigmas = 3 }", "at least as large"),
    ],
)
def test_mistaken_settings_are_named(tmp_path, old, new, words):
    assert old in METHOD
    (tmp_path / "2026-11.toml").write_text(METHOD.replace(old, new))
    with pytest.raises(config.ConfigError, match=words):
        config.load_methodology(tmp_path)


# ------------------------------------------------------------------------------------- what reviews found


def test_an_error_that_stays_for_days_is_an_error_all_the_same():
    values = alternating(60)
    values[52:] *= 60
    one = price("nickel/metal/XCN", values)
    (shock,) = told([one], alarm(one, 52, check="gross", kind="data")).shocks
    assert (shock["verdict"], shock["certainty"]) == ("error", "likely")


def test_shocks_that_grow_together_are_no_error():
    one = price("tin/metal/XCN", alternating(60))
    two = told([one], alarm(one, 20, 27)).shocks
    assert len(two) == 2
    whole, absorbed = told([one], alarm(one, 20, 24, 27), two, 2).shocks
    assert whole["id"] == two[0]["id"] and whole["last"] == one.periods[27]
    assert absorbed["id"] == two[1]["id"] and absorbed["merged_into"] == whole["id"]
    assert absorbed["state"] == "over" and absorbed["verdict"] == two[1]["verdict"]
    assert told([one], alarm(one, 20, 24, 27), [whole, absorbed], 3).shocks == [whole, absorbed]


def test_a_series_that_ends_does_not_keep_its_shock_open_and_one_that_is_shown_no_more_is_not_told_of():
    one = price("tin/metal/XCN", alternating(60))
    (early,) = told([one], alarm(one, 58), vintage=f"{one.periods[-1]}T14:00:00Z").shocks
    assert early["state"] == "open"
    (late,) = told([one], alarm(one, 58), [early], 9, "2029-01-01T14:00:00Z").shocks
    assert late["state"] == "over" and late["now"] is None
    figures = SimpleNamespace(prices={one.name: None}, baskets={}, gaps={})
    (left,) = tell([], {}, [early], figures, RULES, {}, 2, "2026-04-01T14:00:00Z").shocks
    assert left["state"] == "over" and "not watched" in left["history"][-1]["why"]
    assert (
        tell([], {}, [early], SimpleNamespace(prices={}, baskets={}, gaps={}), RULES, {}, 2, "2026-04-01").shocks == []
    )


def test_what_was_expected_in_another_unit_is_not_set_beside_a_price():
    values = alternating(60)
    values[50:] *= 1.3
    one = price("tin/metal/XCN", values)
    row = {"horizon": 2, "period": one.periods[50], "median": 101.0}
    made = [{"origin": one.periods[48], "release": 7, "unit": "EUR/t", "horizons": [row]}]
    (shock,) = told([one], alarm(one, 50), forecasts={one.key: made}).shocks
    assert shock["expected"]["by"] == "detector"


def test_other_budgets_of_false_alarms_hold_from_the_next_release_on(tmp_path):
    house = House(tmp_path)
    house.nickel[150:] = (house.nickel[150:] * 1.09).round(2)
    house.release(150)
    rules = house.methodology.shocks
    strict = rules.model_copy(update={"false_alarms": dict.fromkeys(rules.false_alarms, 1e-9)})
    house.methodology = house.methodology.model_copy(update={"shocks": strict})
    _, told_ = house.release(151)
    assert not [s for s in told_["shocks"] if not s["hindsight"]]


def test_a_figure_that_no_price_can_be_is_held_back(tmp_path):
    house = House(tmp_path)
    for position, value in ((151, 1e308), (152, 1e-310), (153, 1e-320)):
        house.nickel[position] = value
    _, told_ = house.release(156)
    with pipeline.opened(tmp_path / "data", house.operation, house.methodology, lambda: NOW) as ws:
        held = {f["period"] for f in ws.store.findings() if f["severity"] == "error"}
    assert held == {str(house.days[p].date()) for p in (151, 152, 153)}


def test_an_index_that_a_doubtful_price_moved_is_in_doubt_too_and_one_that_sound_ones_moved_is_not():
    values = alternating(60)
    values[50:] *= 60
    wrong = price("tungsten/chemical/XCN", values)
    level = alternating(60)
    level[50:] *= 1.4
    sound = price("cobalt/metal/XCN", level)
    markets = (wrong.name, sound.name)
    rows = [(p, {"basket": (float(v),)}) for p, v in zip(wrong.periods, level, strict=True)]
    index = Subject("basket", "index", "daily", rows, "index, 2025 = 100", markets)
    gross = alarm(wrong, 50, check="gross", kind="data")
    flat = price(sound.name, alternating(60))
    by = {s["series"]: s for s in told([index, wrong, flat], gross | alarm(index, 50)).shocks}
    assert (by["basket"]["verdict"], by["basket"]["certainty"]) == ("error", "possible")
    assert "in doubt" in by["basket"]["history"][-1]["why"]
    by = {s["series"]: s for s in told([index, wrong, sound], gross | alarm(index, 50)).shocks}
    assert by["basket"]["verdict"] == "market" and by["basket"]["corroboration"]["markets_along"] == [sound.name]
