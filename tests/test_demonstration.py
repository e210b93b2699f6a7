"""The demonstration: a simulated market whose script can be read off the published records."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import mail_server
import pandas as pd
import pytest
from click.testing import CliRunner
from misbehaving import certified
from pydantic import ValidationError

from benchmarks import small_world
from pricing import config, demonstration, outbox, pipeline, releases
from pricing.documents import record
from pricing.errors import StoreError
from pricing.mail import PASSWORD as LODEMARK_SMTP
from pricing.sources import demo
from pricing.subscribers import Alerts, Smtp, Subscriber
from service import main

ROOT = Path(__file__).resolve().parents[1]
EVENT = {e.name: e for e in demo.EVENTS}
# Days on which something of the script can be seen; every market day up to the last is collected.
DAYS = [dt.date(2026, *d) for d in ((1, 14), (1, 15), (1, 22), (2, 9), (2, 11), (2, 24))]
INDICES = {
    "critical-minerals", "battery-minerals", "magnet-rare-earths", "exchange-traded-metals",
    "critical-minerals-china", "critical-minerals-ex-china",
}  # fmt: skip


TOLD = [
    Subscriber(name="All", address="all@example.net"),
    Subscriber(name="Nickel", address="nickel@example.net", minerals=["nickel"]),
    Subscriber(name="Severe", address="severe@example.net", least_severity=4),
    Subscriber(name="China", address="china@example.net", zones=["CN"]),
    Subscriber(name="Gold", address="gold@example.net", minerals=["gold"]),
    Subscriber(name="Duty", address="duty@example.net", list="operator"),
]


@dataclass(frozen=True)
class Played:
    """A played demonstration: its folder, the release of each chosen day, and the mail that was received by then."""

    data: Path
    made: dict[dt.date, releases.Release]
    mail: dict[dt.date, list[EmailMessage]]

    def received(self, name: str) -> list[EmailMessage]:
        """What one subscriber received, in order."""
        return [m for day in DAYS for m in self.mail[day] if f"{name.lower()}@example.net" in m["To"]]

    def read(self, day: dt.date, name: str) -> Any:
        return json.loads((self.made[day].folder / name).read_bytes())

    def record(self, released: dt.date, market: str, day: dt.date) -> dict[str, Any]:
        """The determination record of a day, as a release shows it."""
        rows = self.read(released, f"prices/{market}/daily/{day.year}.json")["determinations"]
        (row,) = [r for r in rows if r["period"] == day.isoformat()]
        return dict(row)

    def cell(self, released: dt.date, product: str, origin: str, month: str, reporter: str, partner: str) -> list[Any]:
        """A customs cell as a release shows it, value and what follows; empty where it shows none."""
        cells = self.read(released, f"indicators/{product}/{origin}/{month[:4]}.json")["cells"]
        assert cells["columns"] == ["period", "code", "reporter", "partner", "value", "kg", "usd", "tonnes", "rule"]
        rows = [r[4:] for r in cells["rows"] if (r[0], r[2], r[3]) == (month, reporter, partner)]
        assert len(rows) <= 1
        return list(rows[0]) if rows else []

    def unit_value(self, released: dt.date, product: str, origin: str, leg: str, month: str) -> dict[str, Any]:
        rows = self.read(released, f"indicators/{product}/{origin}/{month[:4]}.json")["values"][leg]
        (row,) = [r for r in rows if r["period"] == month]
        return dict(row)

    def price(self, released: dt.date, market: str, day: dt.date) -> float:
        return float(self.record(released, market, day)["unrounded"])


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    data = tmp_path_factory.mktemp("demo")
    context, certificate = certified("localhost", data)
    mail: dict[dt.date, list[EmailMessage]] = {}
    with mail_server.serving(context) as server:
        smtp = Smtp(host="localhost", port=server.port, user=mail_server.USER, ca_file=str(certificate))
        rules = Alerts(sender="Lodemark <alerts@example.org>", smtp=smtp, base_url="https://prices.example.org")
        told = {"alerts": rules, "subscribers": tuple(TOLD)}
        made = _play(data, demonstration.operation(data).model_copy(update=told), server, mail)
    assert list(made) == DAYS
    yield Played(data, made, mail)


def _play(
    data: Path, operation: config.Operation, server: mail_server.MailServer, mail: dict[dt.date, list[EmailMessage]]
) -> dict[dt.date, releases.Release]:
    method = config.load_methodology(ROOT / "methodology" / "demo")
    clock = demonstration.Clock(dt.datetime.combine(demonstration.FIRST_LIVE_DAY, demonstration.CLOSE))
    made, environ = {}, {LODEMARK_SMTP: mail_server.PASSWORD}
    with pipeline.opened(data, operation, method, clock, simulated=True) as ws:
        for document in demonstration.history():
            if document.published.year >= 2023:  # enough for the base period and its link, and half the time
                end = dt.datetime.combine(document.published, dt.time.max, tzinfo=dt.UTC)
                pipeline.take(ws, document.source, document.raw, end, document.name)
        for day in demonstration.market_days(demonstration.FIRST_LIVE_DAY, 39):
            demonstration.collect_day(ws, clock, day)
            if day in DAYS:
                made[day] = demonstration.release_day(ws, clock, day, {})
                pipeline.alert_operator(ws)
                before = len(server.raw)
                done = outbox.turn(ws.store, operation.alerts, operation.subscribers, environ, data, clock)
                mail[day] = server.messages[before:]
                assert "failed" not in done and "again" not in done, done
    return made


def rules(record: dict[str, Any]) -> dict[str, str]:
    return {one["origin"]: one["rule"] for one in record["excluded"]}


def origins(record: dict[str, Any]) -> set[str]:
    return {one["origin"] for one in record["contributors"]}


# --------------------------------------------------------------------------------- shocks and mail


def open_shocks(played: Played, day: dt.date) -> dict[str, dict[str, Any]]:
    """Shocks of prices that the script began in these weeks, by series, as a release tells them."""
    rows = played.read(day, "shocks.json")["shocks"]
    return {s["series"]: s for s in rows if s["of"] == "price" and s["flagged"] >= "2026" and s["state"] != "withdrawn"}


def test_each_scripted_shock_is_found_and_named_and_quiet_minerals_stay_quiet(played: Played) -> None:
    nickel = open_shocks(played, dt.date(2026, 1, 14))["nickel/metal/XCN"]
    assert (nickel["flagged"], nickel["verdict"], nickel["certainty"]) == ("2026-01-12", "market", "observed")
    assert nickel["severity"] == 4 and nickel["direction"] == "up" and nickel["kind"] == "market"
    later = open_shocks(played, dt.date(2026, 2, 11))
    gallium = later["gallium/metal/XCN"]
    assert "2026-01-29" <= gallium["flagged"] <= "2026-02-02" and gallium["direction"] == "up"
    assert gallium["severity"] == 4 and gallium["verdict"] == "market"
    assert open_shocks(played, DAYS[-1])["gallium/metal/CN"]["direction"] == "down"  # slowly: a trend
    told = played.read(dt.date(2026, 2, 11), "shocks.json")["shocks"]
    gaps = [s for s in told if s["series"] == "premium/gallium/metal"]
    assert gaps and gaps[-1]["direction"] == "down"
    doubts = {(d["series"], d["check"]) for d in played.read(dt.date(2026, 1, 22), "shocks.json")["doubts"]}
    assert ("kestrel-bismuth-metal-xcn", "unit-slip") in doubts
    stale = [
        d
        for d in played.read(dt.date(2026, 2, 9), "shocks.json")["doubts"]
        if d["check"] == "stale" and d["first"] >= "2026"
    ]
    assert len({d["series"] for d in stale if d["source"] == "demo-lantern"}) >= 15
    # bismuth and tungsten suffer faults of a contributor only; chance shocks of the others: under one a year each
    unscripted = {s for s in later if s.split("/")[0] not in ("nickel", "gallium")}
    assert not {s for s in unscripted if s.split("/")[0] in ("bismuth", "tungsten")} and len(unscripted) <= 5


def test_each_shock_reaches_each_subscriber_that_it_fits_once_and_nobody_else(played: Played) -> None:
    for name, words in (
        ("All", ("nickel metal", "gallium metal")),
        ("Nickel", ("nickel metal",)),
        ("Severe", ("nickel metal", "gallium metal")),
    ):
        for word in words:
            opened = [m for m in played.received(name) if word in m["Subject"] and "References" not in m]
            assert len(opened) == 1, (name, word, [m["Subject"] for m in played.received(name)])
    assert all("ickel" in m["Subject"] for m in played.received("Nickel"))
    assert played.received("Gold") == []
    assert not any("nickel metal outside China" in m["Subject"] for m in played.received("China"))
    assert any("gallium metal in China" in m["Subject"] for m in played.received("China"))
    ids = [m["Message-ID"] for day in DAYS for m in played.mail[day]]
    assert len(ids) == len(set(ids))  # nothing twice


def test_updates_thread_under_the_first_message_and_say_that_prices_are_simulated(played: Played) -> None:
    first, *more = played.received("Nickel")
    assert more, "the second day was voided, and the squeeze ended"
    for message in more:
        assert first["Message-ID"] in message["References"]
    for message in (first, *more):
        assert message["Subject"].startswith("SIMULATED") and message["Auto-Submitted"] == "auto-generated"
        assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        text, html = (message.get_body((kind,)).get_content() for kind in ("plain", "html"))
        assert text.startswith("SIMULATED") and "SIMULATED" in html and "2026-01-12" in text
    images = [part for part in first.walk() if part.get_content_type() == "image/png"]
    assert len(images) == 1 and images[0].get_content().startswith(b"\x89PNG")


def test_the_unit_slip_and_the_stale_feed_reach_the_operator_and_no_partner(played: Played) -> None:
    def texts(name: str) -> str:
        return "\n".join(m.get_body(("plain",)).get_content() for m in played.received(name))

    assert "kestrel-bismuth-metal-xcn" in texts("Duty") and "lantern" in texts("Duty")
    for name in ("All", "Nickel", "Severe", "China"):
        assert "kestrel-bismuth" not in texts(name) and "stale" not in texts(name)


# ------------------------------------------------------------------------------- says what it is


def test_every_document_says_that_it_is_simulated(played: Played) -> None:
    release = played.made[DAYS[0]]
    names = [n for n in release.manifest["files"] if n.endswith(".json") and n != "register.json"]
    assert len(names) > 100 and release.manifest["simulated"] is True
    for name in names:
        meta = played.read(DAYS[0], name)["meta"]
        assert meta["simulated"] is True and "Simulated prices" in meta["warning"], name


def test_every_release_verifies_and_is_chained_to_the_first(played: Played) -> None:
    report = releases.verify(played.made[DAYS[-1]].folder, played.data / "public" / "jwks.json")
    assert report.problems == () and report.chain == tuple(range(len(DAYS), 0, -1))


def test_the_full_set_of_indices_is_published_by_the_day_and_by_the_month(played: Played) -> None:
    lines = {i["id"]: i for i in played.read(DAYS[-1], "indices.json")["indices"]}
    assert set(lines) == INDICES
    for name, line in lines.items():
        assert line["published"] is True and line["withheld"] is None, name
        assert line["latest"]["daily"]["period"] == DAYS[-1].isoformat(), name
        assert line["latest"]["monthly"]["period"] == "2026-01", name
        assert line["coverage"]["statement"]
    prices = played.read(DAYS[-1], "prices.json")["prices"]
    assert {p["id"] for p in prices} == {m.key for m in demo.MARKETS}
    assert len({m.mineral for m in demo.MARKETS}) >= 14


def test_a_determined_price_lies_near_the_true_one_which_it_never_sees(played: Played) -> None:
    """Independent truth: the simulated market itself, before any house quoted it."""
    day = dt.date(2026, 1, 22)
    worst = 0.0
    for market in demo.MARKETS:
        true = float(demo.truth(market.key)[pd.Timestamp(day)])
        worst = max(worst, abs(played.price(day, market.key, day) / true - 1))
    assert worst < 0.03


# ------------------------------------------------------------------------------------ the script


def test_the_squeeze_lifts_the_price_then_is_suspended_and_its_peak_voided(played: Played) -> None:
    market, days = "nickel/metal/XCN", demonstration.market_days(EVENT["squeeze-2026"].start, 7)
    before, peak, halted, voided = dt.date(2026, 1, 9), days[1], days[2], DAYS[1]
    assert played.price(DAYS[0], market, peak) > 1.4 * played.price(DAYS[0], market, before)
    record = played.record(voided, market, peak)
    assert record["unrounded"] is None and record["value"] is None and record["status"] in ("voided", "suspended")
    assert set(rules(record).values()) == {"status voided"}
    for released in (DAYS[0], DAYS[1]):
        record = played.record(released, market, halted)
        assert record["unrounded"] is None and rules(record)["northgate"] == "status suspended"
    assert played.record(DAYS[2], market, days[-1])["unrounded"] is None
    assert played.record(DAYS[2], market, dt.date(2026, 1, 21))["unrounded"] is not None, "trading has begun again"
    latest = played.read(DAYS[1], f"prices/{market}.json")["latest"]["daily"]
    assert latest["period"] < peak.isoformat(), "no suspended or voided price is the latest"


def test_the_unit_slip_is_excluded_by_its_rule_until_the_contributor_mends_it(played: Played) -> None:
    market, day = "bismuth/metal/XCN", EVENT["slip-2026"].start
    record = played.record(DAYS[2], market, day)
    assert "kestrel" not in origins(record) and "lb and kg" in rules(record)["kestrel"]
    mended = played.record(DAYS[3], market, day)
    assert "kestrel" in origins(mended) and "kestrel" not in rules(mended)
    assert mended["unrounded"] == pytest.approx(record["unrounded"], rel=0.01), "the price never followed the slip"


def test_the_export_control_lifts_the_price_outside_china_and_lowers_it_inside(played: Played) -> None:
    event = EVENT["control-2026"]
    before, after = dt.date(2026, 1, 28), DAYS[3]
    assert (event.start, event.end) == (dt.date(2026, 1, 29), after)
    outside, inside = (
        played.price(DAYS[3], f"gallium/metal/{z}", after) / played.price(DAYS[3], f"gallium/metal/{z}", before)
        for z in ("XCN", "CN")
    )
    assert 1.2 < outside < 1.55 and 0.82 < inside < 0.97


def test_a_stale_feed_shows_one_quotation_repeated_while_the_price_goes_with_the_others(played: Played) -> None:
    event, market = EVENT["stale-2026"], "gallium/metal/CN"
    days = [d for d in demonstration.market_days(event.start, 8) if d <= event.end]
    rows = [played.record(DAYS[3], market, d) for d in days]
    repeated = [
        one["quoted"] for r in rows for one in (*r["contributors"], *r["excluded"]) if one["origin"] == "lantern"
    ]
    assert len(repeated) >= 6 and len(set(repeated)) == 1
    assert len({r["unrounded"] for r in rows}) == len(rows)


def test_a_revision_shows_between_the_release_before_it_and_the_one_after(played: Played) -> None:
    event, market = EVENT["revision-2026"], "tungsten/chemical/XCN"
    assert DAYS[3] < event.settled <= DAYS[4]  # type: ignore[operator]
    (before,) = [c for c in played.record(DAYS[3], market, event.start)["contributors"] if c["origin"] == "meridian"]
    (after,) = [c for c in played.record(DAYS[4], market, event.start)["contributors"] if c["origin"] == "meridian"]
    assert after["quoted"] == pytest.approx(before["quoted"] * 0.97, rel=1e-3)
    name = f"prices/{market}/daily/2026.json"
    assert (played.made[DAYS[3]].folder / name).read_bytes() != (played.made[DAYS[4]].folder / name).read_bytes()


def test_an_origin_that_drops_out_is_missing_from_the_records_and_moves_no_price_by_that(played: Played) -> None:
    last, silent = DAYS[5], demonstration.market_days(EVENT["drop-out-2026"].start + dt.timedelta(days=1), 8)
    for market in ("cobalt/metal/XCN", "copper/metal/XCN", "vanadium/oxide/XCN"):
        assert all("kestrel" not in origins(played.record(last, market, day)) for day in silent)
        back = [
            d for d in demonstration.market_days(silent[-1], 4) if "kestrel" in origins(played.record(last, market, d))
        ]
        assert back, "it has returned"
        for day in demonstration.market_days(dt.date(2026, 2, 6), 12):  # around both, the price stays at the true one
            true = float(demo.truth(market)[pd.Timestamp(day)])
            assert played.price(last, market, day) == pytest.approx(true, rel=0.035), (
                day
            )  # the slowest assesses within 2.5 %


# ------------------------------------------------------------------------------- the customs offices

PRODUCTS = {
    "gallium/metal": "gallium/metal", "antimony/metal": "antimony/metal", "tungsten/apt": "tungsten/chemical",
    "lithium/carbonate": "lithium/chemical",
}  # fmt: skip


def test_unit_values_lie_near_what_the_true_market_asked_for_the_months_before(played: Played) -> None:
    """Independent truth: the simulated market, a month before each of the window's three."""
    judged = 0
    for product, market in PRODUCTS.items():
        for origin in ("eu", "us"):
            for leg in ("CN", "XCN"):
                true = demo.truth(f"{market}/{leg}").resample("MS").mean()
                for row in recent_values(played, product, origin, leg):
                    if row["value"] is not None:
                        month = pd.Period(row["period"], "M")
                        paid = true[(month - 3).to_timestamp() : (month - 1).to_timestamp()].mean()  # type: ignore[misc]
                        assert row["unrounded"] == pytest.approx(paid, rel=0.25), (product, origin, leg, row)
                        assert row["low"] < row["value"] < row["high"] and row["grade"] == "C"
                        judged += 1
    assert judged > 350, "of 16 legs and three years"


def recent_values(played: Played, product: str, origin: str, leg: str) -> list[dict[str, Any]]:
    return list(played.read(DAYS[-1], f"indicators/{product}.json")["origins"][origin]["values"][leg])


def test_a_month_without_its_main_reporter_is_withheld_until_that_has_spoken(played: Played) -> None:
    before, after = (
        [played.unit_value(day, p, "eu", leg, "2025-11") for p in PRODUCTS for leg in ("CN", "XCN", "WLD")]
        for day in (DAYS[0], DAYS[3])
    )
    assert {row["rule"] for row in before} == {"incomplete"} and all(row["reported"] < 0.7 for row in before)
    assert all(row["reported"] == 1 and row["rule"] != "incomplete" for row in after)
    assert sum(row["value"] is not None for row in after) >= 9
    line = played.read(DAYS[0], "indicators/gallium/metal.json")["origins"]["eu"]["latest"]["XCN"]
    assert line["period"] == "2025-10"
    assert line["withheld_since"] == [{"period": "2025-11", "rule": "incomplete"}]


def test_the_revision_of_a_month_shows_between_two_releases(played: Played) -> None:
    place = ("gallium/metal", "eu", "2025-11", "DE", "KR")
    before, after = (played.cell(day, *place) for day in (DAYS[0], DAYS[3]))
    assert before[0] != after[0] and after[0] == pytest.approx(before[0], rel=0.2)
    missing, there = (played.cell(day, "gallium/metal", "eu", "2025-11", "NL", "CN") for day in (DAYS[0], DAYS[3]))
    assert missing == [] and there[0] > 0


def test_a_wrong_unit_is_excluded_by_its_rule_and_a_mended_one_is_used(played: Played) -> None:
    value, kg, *_, rule = played.cell(DAYS[0], "antimony/metal", "eu", "2023-06", "NL", "TJ")
    assert kg < 1000 and value > 100_000 and rule == "implausible-mass (kg and t)"
    *_, rule = played.cell(DAYS[0], "tungsten/apt", "us", "2024-08", "US", "CN")
    assert rule == "implausible-mass (a decimal place)"
    *_, tonnes, rule = played.cell(DAYS[0], "gallium/metal", "eu", "2025-10", "NL", "CN")
    assert rule == "" and 0.1 < tonnes < 10, "told in grams in December, in kilograms in January"


def test_parcels_and_secret_cells_of_antimony_are_counted_and_in_no_figure(played: Played) -> None:
    document = played.read(DAYS[-1], "indicators/antimony/metal.json")
    counted = {origin: facts["exclusions"] for origin, facts in document["origins"].items()}
    assert counted["eu"]["confidential"] > 0 and "confidential" not in counted["us"]
    assert counted["eu"]["implausible-mass"] > 0
    partners = {p["partner"] for p in document["origins"]["eu"]["supply"]["partners"]}
    assert partners == {"CN", "TJ", "VN", "KR"}


def test_china_is_cheaper_where_the_market_says_so_and_the_gap_is_published(played: Played) -> None:
    day = dt.date(2025, 10, 31)
    true = [float(demo.truth(f"gallium/metal/{z}")[: pd.Timestamp(day)][-60:].mean()) for z in ("CN", "XCN")]
    for origin, facts in played.read(DAYS[-1], "indicators/gallium/metal.json")["origins"].items():
        (gap,) = [g for g in facts["gap"] if g["period"] == "2025-11"]
        assert gap["value"] == pytest.approx((true[0] / true[1] - 1) * 100, abs=8), origin
        assert gap["low"] < gap["value"] < gap["high"] < 0
    lines = {g["id"]: g for g in played.read(DAYS[-1], "gaps.json")["gaps"]}
    assert lines["gallium/metal"]["latest"]["period"] == "2026-01"


def test_an_index_of_imports_is_published_for_each_office_and_its_parts_add_up(played: Played) -> None:
    lines = played.read(DAYS[-1], "imports.json")["imports"]
    assert {line["id"] for line in lines} == {f"critical-minerals-imports/{o}" for o in ("eu", "us")}
    for line in lines:
        assert line["latest"]["period"] == "2025-12" and line["latest"]["covered"] > 0.8
        rows = played.read(DAYS[-1], f"imports/{line['id']}/2025.json")["values"]
        for before, row in zip(rows, rows[1:], strict=False):
            moved = row["unrounded"] - before["unrounded"]
            assert sum(row["moved_by"].values()) == pytest.approx(moved, abs=1e-9)


# ------------------------------------------------------------------------------ nothing but itself


def test_two_runs_give_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    """A year of history and two days, in two processes with other orders of sets: equal but for the key."""
    code = """
import sys, json, pathlib, datetime as dt
from pricing import config, demonstration as d, pipeline
data = pathlib.Path(sys.argv[1])
method = config.load_methodology(pathlib.Path("methodology/demo"))
clock = d.Clock(dt.datetime.combine(d.FIRST_LIVE_DAY, d.CLOSE))
operation = d.operation(pathlib.Path("data"))
with pipeline.opened(data, operation, method, clock, simulated=True) as ws:
    for x in (x for x in d.history() if x.published.year >= 2025):
        pipeline.take(ws, x.source, x.raw, dt.datetime.combine(x.published, dt.time.max, tzinfo=dt.UTC), x.name)
    for day in d.market_days(d.FIRST_LIVE_DAY, 2):
        d.collect_day(ws, clock, day)
        made = d.release_day(ws, clock, day, {})
print(json.dumps(made.manifest, sort_keys=True))
"""
    runs = []
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code, str(tmp_path / seed)]
        runs.append(subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    told = [run.communicate(timeout=200) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    manifests = [json.loads(out.splitlines()[-1]) for out, _ in told]
    assert manifests[0] == manifests[1]
    assert manifests[0]["number"] == 2 and len(manifests[0]["files"]) > 100


def test_a_simulated_folder_refuses_real_sources_and_a_real_one_the_simulation(played: Played, tmp_path: Path) -> None:
    small_world.write(tmp_path, "http://127.0.0.1:9")
    command = ["--quiet", "--config", str(tmp_path / "config.toml"), "--data", str(played.data)]
    result = CliRunner().invoke(main, [*command, "collect", "alpha"], catch_exceptions=False)
    assert result.exit_code == 1 and "simulated and real prices never meet" in " ".join(result.stderr.split())
    result = CliRunner().invoke(main, [*command, "release"], catch_exceptions=False)
    assert result.exit_code == 1
    method = config.load_methodology(ROOT / "methodology" / "demo")
    operation, clock = demonstration.operation(tmp_path), demonstration.Clock(small_world.NOW[1])
    with pipeline.opened(tmp_path / "data", operation, method, clock):
        pass
    with (
        pytest.raises(StoreError, match="holds real prices"),
        pipeline.opened(tmp_path / "data", operation, method, clock, simulated=True),
    ):
        pytest.fail("opened")


def test_every_determination_record_has_the_fields_that_the_schema_requires(played):
    release = played.made[max(played.made)]
    checked = {"Determination": 0, "MeanOfDays": 0}
    for path in sorted((release.folder / "prices").glob("*/*/*/*/*.json")):
        for row in json.loads(path.read_bytes())["determinations"]:
            record.check(row)
            checked["MeanOfDays" if "weekdays" in row else "Determination"] += 1
            if row.get("tiers"):
                assert sum(row["tiers"].values()) == pytest.approx(1, abs=1e-12)
    assert checked["Determination"] > 10_000 and checked["MeanOfDays"] > 100
    broken = {**row, "judgement": "trust me"}
    with pytest.raises(ValidationError):
        record.check(broken)
    said = json.loads((release.folder / "schemas" / "determination.json").read_bytes())
    assert said.pop("meta")["simulated"] and said == record.schema()
