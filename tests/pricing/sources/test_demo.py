"""The simulated market: deterministic, scripted, and honest about being simulated."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections import Counter

import numpy as np
import orjson
import pandas as pd
import pytest

from pricing import units
from pricing.config import Market, Operation
from pricing.errors import ParseError
from pricing.sources import demo, demo_market
from pricing.sources import parse as parse_by_name
from pricing.sources.demo_houses import CONTRIBUTORS, basis

SOURCES = demo.sources()
MARKET = {m.key: m for m in demo.MARKETS}
EVENT = {e.name: e for e in demo.EVENTS}
LIVE = [d.date() for d in pd.bdate_range("2026-01-01", periods=62)]


def read(document: demo.DemoDocument) -> pd.DataFrame:
    source = SOURCES[document.source]
    parsed = demo.parse(document.raw, {s.id: s for s in source.series}, source)
    assert parsed.findings == ()
    assert parsed.published == document.published
    return parsed.observations.assign(published=document.published, source=document.source)


@pytest.fixture(scope="module")
def past() -> pd.DataFrame:
    """All observations of the five years, with the day on which their document was published."""
    return pd.concat([read(d) for d in demo.history()], ignore_index=True)


@pytest.fixture(scope="module")
def live() -> pd.DataFrame:
    """All observations of the first three live months, day by day."""
    return pd.concat([read(d) for day in LIVE for d in demo.documents(day)], ignore_index=True)


def only(rows: pd.DataFrame, series: str) -> pd.DataFrame:
    return rows[rows["series"] == series]


def firsts(rows: pd.DataFrame, series: str) -> pd.Series:
    """The first word of a series on each period, by day."""
    mine = only(rows, series).sort_values("published", kind="stable").drop_duplicates("period")
    return pd.Series(mine["value"].to_numpy(), index=pd.to_datetime(mine["period"])).sort_index()


def ratio(key: str, until: dt.date = dt.date(2026, 12, 31)) -> pd.Series:
    return demo.truth(key, until) / demo.truth(key, until, scripted=False)


def usd_by_hand(values: pd.Series, series_id: str, key: str) -> pd.Series:
    """Own units into USD/t, written out once more with nothing but published factors."""
    series = {s.id: s for source in SOURCES.values() for s in source.series}[series_id]
    rates = demo.fx(dt.date(2026, 12, 31)).reindex(values.index)
    money = {"USD": 1.0, "EUR": rates["USD"], "CNY": rates["USD"] / rates["CNY"] / 1.13}[series.unit[:3]]
    tonnes = {"t": 1.0, "kg": 1000.0, "lb": 2204.622622, "ozt": 32150.746569, "dmtu": 100.0}[series.unit[4:]]
    contained = MARKET[key].per == "contained" and series.quoted_on == "product"
    return values * money * tonnes / (MARKET[key].content if contained else 1.0)


# ------------------------------------------------------------------------------- determinism


def test_the_same_day_gives_the_same_bytes_in_another_process_and_in_another_order() -> None:
    days = [dt.date(2026, 1, 15), dt.date(2031, 6, 3), dt.date(2024, 2, 29)]
    script = (
        "import datetime as dt, hashlib, sys\n"
        "from pricing.sources import demo\n"
        "for text in sys.argv[1:]:\n"
        "    raw = b''.join(d.raw for d in demo.documents(dt.date.fromisoformat(text)))\n"
        "    print(text, hashlib.sha256(raw).hexdigest())\n"
    )
    out = [
        subprocess.run(
            [sys.executable, "-c", script, *map(str, order)], capture_output=True, text=True, check=True
        ).stdout
        for order in (days, days[::-1])
    ]
    assert sorted(out[0].split("\n")) == sorted(out[1].split("\n"))
    assert out[0] != out[1]


def test_a_day_does_not_depend_on_how_far_anyone_has_looked() -> None:
    near = demo.truth("copper/metal/XCN", dt.date(2022, 6, 30))
    far = demo.truth("copper/metal/XCN", dt.date(2036, 12, 31))
    assert far.index[-1].date() == dt.date(2036, 12, 31)
    pd.testing.assert_series_equal(near, far.loc[near.index])


def test_a_longer_history_begins_with_the_documents_of_a_shorter_one() -> None:
    long = {d.name: d.raw for d in demo.history(dt.date(2022, 12, 31))}
    short = {d.name: d.raw for d in demo.history(dt.date(2021, 12, 31))}
    until = [n for n in short if "2021-12" not in n]  # only the last month has to take later words in
    assert len(until) == 11 * 6 + 1
    assert all(long[n] == short[n] for n in until)


def test_ten_years_on_prices_are_still_prices() -> None:
    for key in MARKET:
        path = demo.truth(key, demo_market.LAST_DAY, scripted=False)
        assert path.min() > path.median() / 5
        assert path.max() < path.median() * 5


@pytest.mark.parametrize("day", [dt.date(2021, 1, 1), dt.date(2037, 1, 1)])
def test_a_day_outside_the_simulation_is_refused_by_name(day: dt.date) -> None:
    with pytest.raises(ValueError, match=str(day)):
        demo.documents(day)


# ---------------------------------------------------------------------------------- statistics


def test_volatility_clusters_where_shuffled_returns_do_not() -> None:
    def clustering(returns: np.ndarray) -> float:
        q = (returns - returns.mean()) ** 2
        q = q - q.mean()
        return float(sum((q[lag:] * q[:-lag]).sum() for lag in range(1, 11)) / (q * q).sum())

    rng = np.random.default_rng(7)
    for mineral in demo_market.MINERALS:
        key = next(k for k in MARKET if k.startswith(mineral + "/"))
        returns = np.diff(np.log(demo.truth(key, dt.date(2030, 12, 31), scripted=False).to_numpy()))
        shuffled = [clustering(rng.permutation(returns)) for _ in range(100)]
        assert clustering(returns) > np.quantile(shuffled, 0.99), mineral


def test_china_and_outside_move_together_and_their_gap_returns() -> None:
    for mineral in ("tin", "germanium", "vanadium"):
        own = [m.key for m in demo.MARKETS if m.mineral == mineral]
        inside, outside = (np.log(demo.truth(k, dt.date(2036, 12, 31), scripted=False)) for k in own)
        assert inside.diff().corr(outside.diff()) > 0.6
        gap = outside - inside
        assert gap.std() < 0.04 < inside.std()


# ------------------------------------------------------------------------ markets, contributors


def test_there_are_enough_minerals_and_three_to_five_origins_on_each_market() -> None:
    assert len({m.mineral for m in demo.MARKETS}) >= 14
    assert len(MARKET) == len(demo.MARKETS) >= 28
    assert all(Market(mineral=m.mineral, stage=m.stage, zone=m.zone, per=m.per).key == m.key for m in demo.MARKETS)
    series = [s for source in SOURCES.values() for s in source.series if s.kind == "price"]
    for key in MARKET:
        origins = [s.origin for s in series if f"{s.mineral}/{s.stage}/{s.zone}" == key]
        assert 3 <= len(origins) == len(set(origins)) <= 5
        assert "northgate" in origins


def test_the_sources_form_a_valid_configuration() -> None:
    operation = Operation(sources=SOURCES)
    assert len(operation.series()) == sum(len(s.series) for s in SOURCES.values())
    assert all(not s.url and s.parser == "demo" and not s.complete for s in SOURCES.values())
    assert all(
        "imulated" in s.title and "imulated" in s.licence and "imulated" in s.attribution for s in SOURCES.values()
    )
    assert all("simulated" in s.title for source in SOURCES.values() for s in source.series)


def test_a_closed_house_keeps_its_values_but_not_what_follows_from_them() -> None:
    rights = {name: s.rights for name, s in demo.sources(frozenset({"kestrel"})).items()}
    assert (rights["demo-kestrel"].publish_value, rights["demo-kestrel"].publish_derived) == (False, True)
    assert all(r.publish_value for name, r in rights.items() if name != "demo-kestrel")
    with pytest.raises(ValueError, match="kestrl"):
        demo.sources(frozenset({"kestrl"}))


@pytest.mark.parametrize("house", list(demo.HOUSES))
def test_a_house_tells_truth_times_basis_within_its_habit(house: str, past: pd.DataFrame) -> None:
    assert house == "northgate" or len({basis(house, m) for m in demo.MARKETS}) == len(demo.MARKETS)
    habit = demo.HOUSES[house]
    for s in SOURCES[f"demo-{house}"].series:
        key = f"{s.mineral}/{s.stage}/{s.zone}"
        told = firsts(past, s.id)
        error = np.log(usd_by_hand(told, s.id, key) / (demo.truth(key).reindex(told.index) * basis(house, MARKET[key])))
        struck = pd.Series(False, index=error.index)
        for e in demo.EVENTS:
            if e.contributor in (None, house) and (not e.markets or key in e.markets):
                struck |= (error.index >= pd.Timestamp(e.start)) & (error.index <= pd.Timestamp(e.end))
        calm = error[~struck]
        assert len(calm) > (240 if habit.thursdays else 1270)
        if habit.reluctance:  # an assessment lags, in its own currency, by no more than its reluctance
            assert calm.abs().max() < habit.reluctance + 5 * habit.noise
        else:
            assert calm.std() == pytest.approx(habit.noise, rel=0.25)
            assert abs(calm.mean()) < 5 * habit.noise / np.sqrt(len(calm))


def test_units_brings_every_contributor_back_to_the_true_price(past: pd.DataFrame) -> None:
    rates = demo.fx().set_axis(demo.fx().index.strftime("%Y-%m-%d"))
    seen = set()
    for source in SOURCES.values():
        for s in (s for s in source.series if s.kind == "price"):
            m = MARKET[f"{s.mineral}/{s.stage}/{s.zone}"]
            if (s.unit, m.per, m.stage) in seen:
                continue
            seen.add((s.unit, m.per, m.stage))
            market = Market(mineral=m.mineral, stage=m.stage, zone=m.zone, element=m.element, per=m.per)
            mine = firsts(past[past["period"] < "2022"], s.id)
            mine.index = mine.index.strftime("%Y-%m-%d")
            usd = units.to_usd_per_t(mine, s, market, rates)["usd_per_t"]
            true = demo.truth(m.key).set_axis(demo.truth(m.key).index.strftime("%Y-%m-%d")).reindex(usd.index)
            assert np.log(usd / true / basis(s.origin, m)).abs().max() < 0.03, s.id
    assert {unit for unit, _, _ in seen} == {"USD/kg", "USD/dmtu", "USD/lb", "USD/ozt", "EUR/t", "CNY/t", "USD/t"}


# --------------------------------------------------------------------------------------- habits


def test_the_weekly_house_speaks_on_thursdays_only(past: pd.DataFrame, live: pd.DataFrame) -> None:
    for rows in (past, live):
        mine = pd.to_datetime(rows.loc[rows["source"] == "demo-harbour", "period"])
        assert set(mine.dt.day_name()) == {"Thursday"}
    days = {d for d in LIVE if "demo-harbour" in {x.source for x in demo.documents(d)}}
    assert days == {d for d in LIVE if d.weekday() == 3}


def test_the_late_house_carries_the_trading_day_before(live: pd.DataFrame) -> None:
    mine = only(live, "kestrel-copper-metal-xcn")
    periods = [pd.Timestamp(p) + pd.offsets.BDay(1) for p in mine["period"]]
    assert [p.date() for p in periods] == list(mine["published"])
    assert mine["period"].iloc[0] == "2025-12-31"  # nothing is lost between history and live days


def test_the_assessed_house_rarely_moves_and_then_by_more_than_its_threshold(past: pd.DataFrame) -> None:
    for s in SOURCES["demo-meridian"].series:
        told = firsts(past, s.id)
        moves = np.log(told).diff().dropna().abs()
        assert 0 < (moves > 0).mean() < 0.35
        assert moves[moves > 0].min() > 0.0249  # 2.5 %, but for the fourth digit


def test_one_daily_house_revises_about_two_per_cent_of_its_values_and_no_other_does(
    past: pd.DataFrame, live: pd.DataFrame
) -> None:
    prices = pd.concat([past, live])
    prices = prices[~prices["source"].isin(["demo-fx", "demo-production"]) & (prices["status"] == "normal")]
    span = prices.groupby(["source", "series", "period"])["value"].agg(["min", "max"])
    changed = (span["max"] > span["min"]).groupby("source").agg(["sum", "mean"])
    assert changed.loc["demo-lantern", "mean"] == pytest.approx(0.02, abs=0.004)
    # what the others revise is the script's: a slip of two days each, and two weeks of tungsten
    scripted = {"demo-harbour": 0, "demo-kestrel": 2, "demo-meridian": 10, "demo-northgate": 2}
    assert changed["sum"].drop("demo-lantern").to_dict() == scripted


# ------------------------------------------------------------------------------------- the script


def test_every_kind_of_event_happens_before_2026_and_again_in_the_first_forty_live_days() -> None:
    forty = LIVE[39]
    kinds = {e.kind for e in demo.EVENTS}
    assert kinds == {"squeeze", "control", "slip", "stale", "revision", "drop-out"}
    assert {e.kind for e in demo.EVENTS if e.end < demo_market.FIRST_LIVE_DAY} == kinds
    lively = {e.kind for e in demo.EVENTS if e.start >= demo_market.FIRST_LIVE_DAY and (e.settled or e.end) < forty}
    assert lively == kinds


def test_the_true_price_is_pushed_on_the_scripted_markets_and_nowhere_else() -> None:
    pushed = {k for e in demo.EVENTS if e.kind in ("squeeze", "control") for k in e.markets}
    for key in MARKET:
        assert (bool((ratio(key) != 1).any())) == (key in pushed), key
    named = {k.split("/")[0] for e in demo.EVENTS for k in e.markets}
    assert len(set(demo_market.MINERALS) - named) >= 6


@pytest.mark.parametrize(("start", "before"), [("2022-10-10", "2022-10-07"), ("2026-01-12", "2026-01-09")])
def test_the_squeeze_lifts_nickel_by_sixty_per_cent_in_two_days(start: str, before: str) -> None:
    r = ratio("nickel/metal/XCN")
    peak = r.index.get_loc(start) + 1
    assert r.loc[before] == 1
    assert r.iloc[peak] == pytest.approx(1.60)
    assert r.iloc[peak + 1] < 1.60
    assert r.iloc[peak + 47] == 1


@pytest.mark.parametrize("name", ["squeeze-2022", "squeeze-2026"])
def test_the_squeeze_is_suspended_then_its_peak_is_voided(name: str, past: pd.DataFrame, live: pd.DataFrame) -> None:
    event, rows = EVENT[name], past if name.endswith("2022") else live
    nickel = rows[rows["series"].str.contains("-nickel-metal-xcn")]
    days = [str(d.date()) for d in pd.bdate_range(event.start, event.end)]
    peak, halted = days[1], days[2:]
    assert len(halted) == 5
    quiet = nickel[nickel["period"].isin(halted)]
    assert set(quiet["series"]) == {"northgate-nickel-metal-xcn"}
    assert list(quiet["status"]) == ["suspended"] * 5
    at_peak = nickel[nickel["period"] == peak]
    first, voided = (at_peak[at_peak["status"] == s].set_index("series").sort_index() for s in ("normal", "voided"))
    assert set(voided.index) == set(first.index) == {f"{h}-nickel-metal-xcn" for h in demo.HOUSES if h != "harbour"}
    assert (voided["value"] == first["value"]).all()
    assert (voided["published"] > first["published"]).all()
    assert set(quiet["value"]) == {first.loc["northgate-nickel-metal-xcn", "value"]}


def test_voided_and_suspended_values_stand_nowhere_else(past: pd.DataFrame, live: pd.DataFrame) -> None:
    both = pd.concat([past, live])
    marked = both[both["status"].isin(["voided", "suspended"])]
    assert all("nickel-metal-xcn" in s for s in marked["series"])
    assert len(marked) == 2 * (4 + 5)


@pytest.mark.parametrize(("name", "mineral"), [("control-2023", "antimony"), ("control-2026", "gallium")])
def test_an_export_control_lifts_outside_and_lowers_china(name: str, mineral: str, live: pd.DataFrame) -> None:
    end = pd.Timestamp(EVENT[name].end)
    before = pd.Timestamp(EVENT[name].start) - pd.offsets.BDay(1)
    for zone, size in (("XCN", 1.35), ("CN", 0.91)):
        r = ratio(f"{mineral}/metal/{zone}")
        assert r.loc[before] == 1
        assert r.loc[end] == pytest.approx(size)
        assert EVENT[name].end - EVENT[name].start < dt.timedelta(days=14)


@pytest.mark.parametrize(
    ("name", "series", "factor"),
    [("slip-2024", "northgate-tungsten-chemical-xcn", 1000), ("slip-2026", "kestrel-bismuth-metal-xcn", 2.20462)],
)
def test_a_unit_slip_lasts_two_days_and_is_put_right(
    name: str, series: str, factor: float, past: pd.DataFrame, live: pd.DataFrame
) -> None:
    event, rows = EVENT[name], only(past if name.endswith("2024") else live, series)
    slipped = rows[rows["period"].between(str(event.start), str(event.end))].sort_values("published", kind="stable")
    wrong, right = slipped.drop_duplicates("period"), slipped.drop_duplicates("period", keep="last")
    assert len(wrong) == len(right) == 2
    assert wrong["value"].to_numpy() / right["value"].to_numpy() == pytest.approx(factor, rel=1e-4)
    assert (right["published"].to_numpy() > wrong["published"].to_numpy()).all()
    jumps = np.log(firsts(rows, series)).diff().abs()
    assert (jumps > 0.5).sum() == 2  # into the slip and out of it


def test_the_live_slip_is_told_a_day_late_and_corrected_three_trading_days_after_its_last(live: pd.DataFrame) -> None:
    mine = only(live, "kestrel-bismuth-metal-xcn")
    told = mine[mine["period"] == "2026-01-21"]["published"]
    assert list(told) == [dt.date(2026, 1, 22), dt.date(2026, 1, 27)]


@pytest.mark.parametrize(("name", "house"), [("stale-2023", "kestrel"), ("stale-2026", "lantern")])
def test_a_stale_feed_repeats_itself_for_eight_days_and_only_then(
    name: str, house: str, past: pd.DataFrame, live: pd.DataFrame
) -> None:
    event, rows = EVENT[name], past if name.endswith("2023") else live
    for s in SOURCES[f"demo-{house}"].series:
        still = firsts(rows, s.id).diff() == 0
        inside = still.loc[str(event.start) : str(event.end)]
        assert len(inside) == 8
        assert inside.all()
        assert not (still & still.shift(1, fill_value=False))[: str(event.start - dt.timedelta(1))].any()
        assert not (still & still.shift(1, fill_value=False))[str(event.end + dt.timedelta(1)) :].any()


@pytest.mark.parametrize("name", ["revision-2025", "revision-2026"])
def test_a_week_of_tungsten_is_revised_by_three_per_cent(name: str, past: pd.DataFrame, live: pd.DataFrame) -> None:
    event = EVENT[name]
    both = only(pd.concat([past, live]), "meridian-tungsten-chemical-xcn").sort_values("published", kind="stable")
    twice = both[both.duplicated("period", keep=False)]
    week = twice[twice["period"].between(str(event.start), str(event.end))]
    old, new = week.drop_duplicates("period"), week.drop_duplicates("period", keep="last")
    assert len(old) == len(new) == 5
    assert new["value"].to_numpy() / old["value"].to_numpy() == pytest.approx(0.97, abs=2e-4)
    assert len(twice) == 20  # both scripted weeks, and nothing else


def test_an_origin_that_drops_out_sends_nothing_for_ten_days_and_returns(
    past: pd.DataFrame, live: pd.DataFrame
) -> None:
    silent = [d for d in LIVE if "demo-kestrel" not in {x.source for x in demo.documents(d)}]
    assert silent == [d.date() for d in pd.bdate_range("2026-02-09", "2026-02-20")]
    assert len(silent) == 10
    lantern = set(past.loc[past["source"] == "demo-lantern", "period"])
    northgate = set(past.loc[past["source"] == "demo-northgate", "period"])
    assert northgate - lantern == {str(d.date()) for d in pd.bdate_range("2024-11-04", "2024-11-15")}
    back = firsts(live, "kestrel-copper-metal-xcn").loc["2026-02-20":]
    assert back.index[0] == pd.Timestamp("2026-02-20")


# ------------------------------------------------------------------------------ documents, parser


def test_every_document_says_that_it_is_simulated_and_carries_its_own_day(past: pd.DataFrame) -> None:
    documents = [*demo.history(), *(d for day in LIVE for d in demo.documents(day))]
    assert len({d.name for d in documents}) == len(documents)
    for d in documents:
        body = orjson.loads(d.raw)
        assert body["simulated"] is True
        assert "no real prices" in body["notice"]
        assert body["published"] == str(d.published)
        assert all(q["period"] <= body["published"] for q in body["quotes"])
    # five years of six monthly contributors, and five of the yearly statistics
    assert Counter(d.source for d in demo.history()) == {
        **{demo.source_of(c): 60 for c in CONTRIBUTORS if c != "demo-production"},
        "demo-production": 5,
    }


def test_the_history_tells_each_period_once_per_document_and_leaves_no_day_out(past: pd.DataFrame) -> None:
    assert not past.duplicated(["series", "period", "published"]).any()
    days = {str(d.date()) for d in pd.bdate_range("2021-01-04", "2025-12-31")}
    assert set(only(past, "northgate-copper-metal-xcn")["period"]) == days
    assert set(only(past, "demo-fx-cny")["period"]) == days


def test_the_history_ends_with_the_values_that_the_daily_documents_end_with(past: pd.DataFrame) -> None:
    daily = pd.concat([read(d) for x in pd.bdate_range("2024-03-01", "2024-05-15") for d in demo.documents(x.date())])
    keys = ["series", "period"]
    last = [rows.sort_values("published", kind="stable").drop_duplicates(keys, keep="last") for rows in (daily, past)]
    a, b = (x[x["period"].between("2024-03-01", "2024-04-30")].set_index(keys)["value"].sort_index() for x in last)
    pd.testing.assert_series_equal(a, b)


def test_nobody_publishes_at_the_weekend_and_the_yearly_statistics_come_in_january() -> None:
    assert demo.documents(dt.date(2026, 1, 31)) == []
    (statistics,) = [d for d in demo.documents(dt.date(2026, 1, 30)) if d.source == "demo-production"]
    rows = read(statistics)
    assert set(rows["period"]) == {"2024", "2025"}
    assert set(rows.loc[rows["period"] == "2025", "status"]) == {"provisional"}
    assert len(rows) == 2 * len(demo_market.MINERALS)


def test_the_loader_finds_the_parser_by_the_source_alone() -> None:
    (document,) = [d for d in demo.documents(dt.date(2026, 1, 5)) if d.source == "demo-fx"]
    parsed = parse_by_name("demo-fx", SOURCES["demo-fx"], document.raw)
    assert list(parsed.observations["series"]) == ["demo-fx-cny", "demo-fx-usd"]
    assert parsed.absent == ()


GOOD = {"series": "harbour-tin-metal-cn", "period": "2026-01-08", "value": 32000.5, "unit": "USD/t", "status": "normal"}
BODY = {"simulated": True, "contributor": "harbour", "published": "2026-01-08", "quotes": [GOOD]}


def parse_body(body: object) -> pd.DataFrame:
    source = SOURCES["demo-harbour"]
    return demo.parse(orjson.dumps(body), {s.id: s for s in source.series}, source).observations


@pytest.mark.parametrize("status", ["normal", "provisional", "voided", "suspended", "limit"])
def test_a_status_is_passed_through(status: str) -> None:
    rows = parse_body({**BODY, "quotes": [{**GOOD, "status": status}]})
    assert rows.to_dict("records") == [
        {"series": "harbour-tin-metal-cn", "period": "2026-01-08", "value": 32000.5, "status": status}
    ]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({k: v for k, v in BODY.items() if k != "simulated"}, "simulated"),
        ({**BODY, "simulated": "true"}, "simulated"),
        ({**BODY, "published": "8.1.2026"}, "published"),
        ({**BODY, "quotes": {}}, "quotes"),
        (
            {**BODY, "quotes": [GOOD, {**GOOD, "unit": "USD/kg"}]},
            r"quotes\[1\] \(harbour-tin-metal-cn\)\.unit: 'USD/kg'",
        ),
        ({**BODY, "quotes": [{**GOOD, "status": "fine"}]}, r"quotes\[0\].*status"),
        ({**BODY, "quotes": [{**GOOD, "value": 0}]}, r"quotes\[0\].*value"),
        ({**BODY, "quotes": [{**GOOD, "value": "1"}]}, r"quotes\[0\].*value"),
        ({**BODY, "quotes": [{**GOOD, "value": True}]}, r"quotes\[0\].*value"),
        ({**BODY, "quotes": [{**GOOD, "period": "2026-02-30"}]}, r"quotes\[0\].*period"),
        ({**BODY, "quotes": [{**GOOD, "period": "2026-01"}]}, r"quotes\[0\].*period"),
        ({**BODY, "quotes": [{**GOOD, "series": None}]}, r"quotes\[0\].*series"),
        ({**BODY, "quotes": [{**GOOD, "series": "kestrel-tin-metal-cn"}]}, "another contributor"),
        ([BODY], "simulated"),
    ],
)
def test_a_document_that_is_not_as_promised_is_refused_and_the_place_named(body: object, named: str) -> None:
    with pytest.raises(ParseError, match=named):
        parse_body(body)


def test_a_document_that_is_not_json_is_refused() -> None:
    with pytest.raises(ParseError, match="not JSON"):
        demo.parse(b'{"simulated": true, "quotes": [NaN]}', {}, SOURCES["demo-harbour"])


def test_a_period_told_twice_in_one_document_is_a_finding_and_no_value() -> None:
    source = SOURCES["demo-harbour"]
    raw = orjson.dumps({**BODY, "quotes": [GOOD, {**GOOD, "value": 3.0}]})
    parsed = demo.parse(raw, {s.id: s for s in source.series}, source)
    assert parsed.observations.empty
    assert [f.check for f in parsed.findings] == ["duplicate-period"]
    assert len(parsed.absent) == len(source.series) - 1
