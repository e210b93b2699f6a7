"""The stages together, against real HTTP servers on loopback, well-behaved and not."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import made_world
import pytest
from made_world import World, numbers, told
from misbehaving import Speak, bomb, endless, hangs, raw, says, serving
from pytest_httpserver import HTTPServer

from benchmarks import small_world
from benchmarks.small_world import NOW
from pricing import config, pipeline, published
from pricing.errors import ReleaseError, StoreError
from pricing.sources import table
from pricing.store import Store, instant
from pricing.web.app import create_app

ROOT = Path(__file__).resolve().parents[2]
DAY = dt.timedelta(days=1)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with made_world.serving(tmp_path) as made:
        yield made


# ------------------------------------------------------------------------------------- collect


def test_a_first_visit_brings_exactly_what_the_publishers_say(world: World) -> None:
    outcomes = world.collect()
    assert {o.outcome for o in outcomes.values()} == {"new"}
    said = {k: v for name in small_world.SOURCES for k, v in told(name, 1).items()}
    assert world.known() == said
    assert sum(o.changes.new for o in outcomes.values()) == len(said)


def test_an_unchanged_document_is_neither_sent_nor_stored_nor_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.collect()
    before, archived = world.known(), sorted(world.data.rglob("documents/*/*"))
    world.now += DAY
    monkeypatch.setattr(table, "parse", lambda *_: pytest.fail("parsed again"))
    outcomes = world.collect()
    assert {o.outcome for o in outcomes.values()} == {"unchanged"}
    assert world.known() == before and sorted(world.data.rglob("documents/*/*")) == archived
    assert world.status()["sources"]["alpha"]["visited_at"] == "2026-11-21T14:00:00.000000Z"


def test_a_document_without_validators_is_sent_again_but_not_read_again(
    world: World, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    httpserver.expect_request("/alpha.csv").respond_with_data(small_world.document("alpha", 1))
    world.set_source("alpha", url=httpserver.url_for("/alpha.csv"))
    assert world.collect("alpha")["alpha"].outcome == "new"
    monkeypatch.setattr(table, "parse", lambda *_: pytest.fail("parsed again"))
    assert world.collect("alpha")["alpha"].outcome == "unchanged"
    assert [answer.status_code for _, answer in httpserver.log] == [200, 200]


def test_a_second_round_brings_revisions_withdrawals_and_news_and_keeps_what_was_known(world: World) -> None:
    world.collect()
    world.second_round()
    outcomes = world.collect()
    changes = {n: (o.outcome, o.changes.new, o.changes.revised, o.changes.withdrawn) for n, o in outcomes.items()}
    assert changes["alpha"] == ("new", 2, 1, 0)  # a month more, one figure one per cent higher
    assert changes["days"] == ("new", 2, 0, 0)
    assert changes["euro"] == ("new", 2, 0, 2)
    assert {n for n, c in changes.items() if c[0] == "unchanged"} == {"beta", "output", "rates", "closed"}
    good = [n for n in small_world.SOURCES if n != "moody"]
    assert world.known() == {k: v for n in good for k, v in told(n, 2).items()} | told("moody", 1)
    with world.opened() as ws:
        history = ws.store.history("alpha-nickel", "2026-06")
    first, second = told("alpha", 1)["alpha-nickel", "2026-06"], told("alpha", 2)["alpha-nickel", "2026-06"]
    assert history["value"].tolist() == [first, second] and first != second
    assert [instant(v) for v in history["vintage"]] == [NOW[1], NOW[2]]


def test_a_change_of_the_register_reads_the_archived_document_again_on_a_304(world: World) -> None:
    whole = world.operation.sources["alpha"]
    world.set_source("alpha", series=whole.series[:1])
    assert world.collect("alpha")["alpha"].changes.new == 33
    world.set_source("alpha", series=whole.series)
    world.now += DAY
    outcome = world.collect("alpha")["alpha"]
    assert (outcome.outcome, outcome.changes.new, outcome.changes.unchanged) == ("new", 33, 33)
    assert world.known() == told("alpha", 1)
    assert len(list((world.data / "documents").rglob("*.gz"))) == 1


def test_validators_are_kept_only_once_the_document_is_stored(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Store.append

    def broken(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "append", broken)
    with pytest.raises(KeyboardInterrupt):
        world.collect("alpha")
    with world.opened() as ws:
        assert ws.store.visit("alpha", world.operation.sources["alpha"].url)["etag"] == ""
        assert not ws.store.documents() and ws.store.observations().empty
    monkeypatch.setattr(Store, "append", whole)
    assert world.collect("alpha")["alpha"].outcome == "new"
    assert world.known() == told("alpha", 1)


def test_a_publisher_that_is_later_than_ever_is_told_once(world: World) -> None:
    lines = small_world.document("days", 1).splitlines(keepends=True)
    for shown in range(len(lines) - 9, len(lines) + 1):
        day = dt.date.fromisoformat(lines[shown - 1][:10].decode())
        world.now = dt.datetime.combine(day, dt.time(20), tzinfo=dt.UTC)
        with world.opened() as ws:
            pipeline.take(ws, "days", b"".join(lines[:shown]), world.now, "days.csv")
    late = []
    for days in (1, 5, 8, 9):
        world.now = dt.datetime.combine(day, dt.time(20), tzinfo=dt.UTC) + days * DAY
        assert world.collect("days")["days"].outcome == "unchanged"
        late.append([f["series"] for f in world.findings("days") if f["check"] == "overdue"])
    assert late[0] == late[1] == [] and late[2] == late[3] == ["days-cobalt", "days-nickel"]


# --------------------------------------------------------------------------- changed layouts


def test_a_page_in_place_of_the_file_is_refused_with_a_finding_and_nothing_is_lost(world: World) -> None:
    world.collect()
    first = world.release()
    world.second_round()
    outcome = world.collect("moody")["moody"]
    assert outcome.outcome == "refused" and not outcome.ok
    assert "moody.csv: no column 'date'" in outcome.message and "We have moved" in outcome.message
    (finding,) = world.findings("moody")
    assert (finding["check"], finding["severity"]) == ("layout", "error") and finding["message"] == outcome.message
    assert {k: v for k, v in world.known().items() if k[0].startswith("moody")} == told("moody", 1)
    name = "prices/nickel/metal/XCN/monthly/2025.json"
    assert (world.release().folder / name).read_bytes() == (first.folder / name).read_bytes()
    # the page is a document of its own, kept as evidence, and told of once however often it comes
    world.now += DAY
    assert world.collect("moody")["moody"].outcome == "refused"
    assert len(world.findings("moody")) == 1
    world.round, world.now = 1, world.now + DAY
    assert world.collect("moody")["moody"].outcome == "unchanged"
    assert world.status()["sources"]["moody"]["message"] is None


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_a_truncated_workbook_is_refused_and_the_old_figures_stay(
    world: World, httpserver: HTTPServer, share: float
) -> None:
    whole = (ROOT / "tests/samples/worldbank/pinksheet.xlsx").read_bytes()
    bank = config.load_operation(ROOT / "config.toml").sources["worldbank"]
    held = tuple(s for s in bank.series if s.mineral in ("nickel", "tin", "gold"))
    changes = {"url": httpserver.url_for("/CMO.xlsx"), "landing": "", "link": "", "series": held}
    world.operation = world.operation.model_copy(update={"sources": {"worldbank": bank.model_copy(update=changes)}})
    httpserver.expect_oneshot_request("/CMO.xlsx").respond_with_data(whole, headers={"ETag": '"a"'})
    assert world.collect("worldbank")["worldbank"].outcome == "new"
    before = world.known()
    assert len(before) == 7
    httpserver.expect_request("/CMO.xlsx").respond_with_data(whole[: int(len(whole) * share)], headers={"ETag": '"b"'})
    world.now += DAY
    outcome = world.collect("worldbank")["worldbank"]
    assert outcome.outcome == "refused" and "/CMO.xlsx" in outcome.message
    assert world.known() == before
    assert [f["check"] for f in world.findings("worldbank")][-1] == "layout"
    assert httpserver.log[-1][0].headers["If-None-Match"] == '"a"'
    world.collect("worldbank")
    assert httpserver.log[-1][0].headers["If-None-Match"] == '"a"', "the validators of a refused document are not kept"


# --------------------------------------------------------------------- publishers that misbehave

HUGE = 2_000_000_000
ANSWERS: dict[str, tuple[Callable[[threading.Event], Speak], str]] = {
    "500": (lambda _: says("500 Internal Server Error"), "HTTP 500"),
    "404": (lambda _: says("404 Not Found"), "HTTP 404"),
    "hang": (hangs, "0.5 s"),
    "redirect-loop": (lambda _: says("302 Found", b"", "Location: /alpha.csv"), "redirect loop"),
    "2-GB-announced": (lambda _: raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nx" % HUGE), "announces 2000000000"),
    "2-GB-unannounced": (
        lambda _: endless(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"x" * 2**16, HUGE), "max_bytes"
    ),
    "gzip-bomb": (
        lambda _: raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n", *bomb(8)), "unpacks to"
    ),
    "cut": (lambda _: says("200 OK", small_world.document("alpha", 2)[:300], length=900), "alpha.csv"),
    "nothing": (lambda _: raw(), "alpha.csv"),
}  # fmt: skip


@pytest.mark.parametrize("fault", ANSWERS)
def test_a_publisher_that_fails_is_survived_with_a_finding_and_delays_no_other(world: World, fault: str) -> None:
    world.collect()
    world.release()
    before = world.known()
    world.second_round()
    stopping = threading.Event()
    make, hint = ANSWERS[fault]
    with serving(make(stopping)) as server:
        settings = world.operation.fetch.model_copy(update={"read_seconds": 0.5, "total_seconds": 2.0})
        world.operation = world.operation.model_copy(update={"fetch": settings})
        world.set_source("alpha", url=server.url("/alpha.csv"), max_bytes=2**20)
        outcomes = world.collect()
        stopping.set()
    assert outcomes["alpha"].outcome == "failed" and hint in outcomes["alpha"].message
    (finding,) = world.findings("alpha")
    assert finding["check"] == "fetch" and finding["message"] == outcomes["alpha"].message
    assert {n: o.outcome for n, o in outcomes.items() if n in ("beta", "days", "euro", "output")} == {
        "beta": "unchanged", "days": "new", "euro": "new", "output": "unchanged"
    }  # fmt: skip
    after = world.known()
    assert {k: v for k, v in after.items() if k[0].startswith("alpha")} == told("alpha", 1)
    assert before.keys() - after.keys() == told("euro", 1).keys() - told("euro", 2).keys()
    made = world.release()
    assert made.number == 2 and (made.folder / "prices/nickel/metal/XCN.json").exists()
    # and when the publisher is back, the next visit brings what was missed
    world.set_source("alpha", url=f"{world.base}/alpha.csv")
    world.now += DAY
    assert world.collect("alpha")["alpha"].changes.revised == 1


def test_a_source_that_fails_is_called_stale_with_its_age_and_its_figures_stand(world: World) -> None:
    world.collect()
    world.now += 20 * DAY
    world.set_source("alpha", url="http://127.0.0.1:9/alpha.csv")
    assert world.collect("alpha")["alpha"].outcome == "failed"
    state = world.status()["sources"]["alpha"]
    assert state["reachable"] is False and state["outcome"] == "failed" and "127.0.0.1:9" in state["message"]
    assert state["age_days"] == 20.0 and state["stale"] is True
    assert state["last_period"] == "2026-09" and state["observations"] == 66
    contributors = json.loads((world.release().folder / "prices/nickel/metal/XCN.json").read_bytes())["contributors"]
    assert "alpha-nickel" in [c["series"] for c in contributors]


def test_the_private_network_is_not_asked_unless_the_settings_allow_it(world: World) -> None:
    closed = world.operation.fetch.model_copy(update={"allow_private": False})
    world.operation = world.operation.model_copy(update={"fetch": closed})
    outcomes = world.collect()
    assert {o.outcome for o in outcomes.values()} == {"failed"} and world.known() == {}


# ------------------------------------------------------------------------------------- release


def test_nothing_known_is_no_release_but_an_error_that_says_what_to_do(world: World) -> None:
    with pytest.raises(ReleaseError, match="collect or backfill first"):
        world.release()
    assert not (world.data / "public/releases").exists()


def test_a_release_is_never_made_at_or_before_the_last_one(world: World) -> None:
    world.collect()
    world.release()
    with pytest.raises(ReleaseError, match="not after release 1"):
        world.release()
    world.now -= dt.timedelta(seconds=1)
    with pytest.raises(ReleaseError, match="not after release 1"):
        world.release()


def test_a_file_that_would_have_been_learnt_before_the_last_release_is_refused(world: World, tmp_path: Path) -> None:
    world.collect()
    world.release()
    late = tmp_path / "alpha.csv"
    late.write_bytes(small_world.document("alpha", 2))  # ends in October: stamped 2026-10-31
    with world.opened() as ws:
        (outcome,) = pipeline.load_files(ws, "alpha", [late], replay=True)
    assert outcome.outcome == "refused" and "is not after release 1" in outcome.message
    assert world.known() == {k: v for n in small_world.SOURCES for k, v in told(n, 1).items()}


def test_a_release_rests_on_what_was_known_at_its_instant(world: World) -> None:
    world.collect()
    world.release()
    name = "prices/nickel/metal/XCN/monthly/2026.json"
    first = json.loads((world.data / "public/releases/000001" / name).read_bytes())
    world.second_round()
    world.collect()
    second = json.loads((world.release().folder / name).read_bytes())
    quoted = [
        {
            c["series"]: c["quoted"]
            for d in made["determinations"]
            if d["period"] == "2026-06"
            for c in d["contributors"]
        }
        for made in (first, second)
    ]
    assert quoted[0]["alpha-nickel"] == told("alpha", 1)["alpha-nickel", "2026-06"]
    assert quoted[1]["alpha-nickel"] == told("alpha", 2)["alpha-nickel", "2026-06"]


def test_two_releases_later_the_queryable_rows_are_those_of_the_documents(world: World) -> None:
    world.collect()
    made = [world.release()]
    world.second_round()
    world.collect()
    made.append(world.release())
    for release in made:
        shown = {}
        for path in (release.folder / "prices/cobalt/metal/XCN/daily").glob("*.json"):
            rows = json.loads(path.read_bytes())["determinations"]
            shown |= {d["period"]: d["unrounded"] for d in rows if d["unrounded"] is not None}
        with closing(sqlite3.connect(world.data / "public/published.db")) as db:
            rows = published.read(db, "price", "cobalt/metal/XCN", "daily", release=release.number)
        assert {v.period: v.unrounded for v in rows if v.value is not None} == shown and len(shown) > 70


def test_only_one_writer_at_a_time(world: World) -> None:
    with (
        world.opened() as ws,
        pipeline.writing(ws.data),
        pytest.raises(StoreError, match="another lodemark process is writing"),
        pipeline.writing(ws.data, seconds=0.05),
    ):
        pytest.fail("two writers")


# -------------------------------------------------------------------------------------- rights


@pytest.fixture
def released(world: World) -> World:
    world.collect()
    world.release()
    world.release("internal")
    world.second_round()
    world.collect()
    world.release()
    world.release("internal")
    return world


def test_no_figure_of_a_closed_source_can_be_read_from_anything_public(released: World) -> None:
    public = released.data / "public"
    open_ = {
        v for n in small_world.OPEN + ("moody",) for r in (1, 2) if (n, r) != ("moody", 2) for v in told(n, r).values()
    }
    secret = set(told("closed", 1).values()) - open_
    assert len(secret) > 60
    shown = set()
    for path in public.rglob("*.json"):
        raw_bytes = path.read_bytes()
        assert b"closed-nickel" not in raw_bytes and b"closed-cobalt" not in raw_bytes, path
        shown |= set(numbers(json.loads(raw_bytes)))
    with closing(sqlite3.connect(public / "published.db")) as db:
        dump = "\n".join(db.iterdump())
        shown |= {v for row in db.execute("SELECT value, unrounded FROM value") for v in row if v is not None}
    assert "closed" not in dump and len(shown) > 500
    factors = [0.001, 1.0, 1000.0, 1 / 2204.6226218487757]
    hits = {(s, f) for s in secret for f in factors for v in (s * f,) if any(abs(v - x) <= 1e-9 * v for x in shown)}
    assert hits == set()


def test_the_same_search_finds_the_closed_figures_in_the_auditors_release(released: World) -> None:
    """The search above would see a leak: it sees these."""
    shown = {
        n for p in (released.data / "internal/releases").rglob("*.json") for n in numbers(json.loads(p.read_bytes()))
    }
    assert len(set(told("closed", 1).values()) & shown) > 55  # the last months are means of days
    manifest = json.loads((released.data / "internal/releases/000002/manifest.json").read_bytes())
    assert manifest["audience"] == "internal"


def test_the_register_of_sources_says_that_a_closed_source_exists_and_nothing_of_its_data(released: World) -> None:
    rows = json.loads((released.data / "public/releases/000002/sources.json").read_bytes())["sources"]
    by_id = {row["id"]: row for row in rows}
    assert by_id["closed"]["used_in_this_release"] is False
    assert not by_id["closed"].keys() & {"data", "series", "url"}
    assert by_id["alpha"]["data"]["observations"] == 68
    manifest = json.loads((released.data / "public/releases/000002/manifest.json").read_bytes())
    assert "closed" not in {d["source"] for d in manifest["documents"]}
    assert {d["source"] for d in manifest["documents"]} == {*small_world.OPEN, "moody"}


def test_without_the_closed_source_all_price_and_index_documents_are_the_same_bytes(
    released: World, tmp_path: Path
) -> None:
    with made_world.serving(tmp_path / "without") as other:
        sources = {n: s for n, s in other.operation.sources.items() if n != "closed"}
        other.operation = other.operation.model_copy(update={"sources": sources})
        other.collect()
        other.release()
        other.second_round()
        other.collect()
        other.release()
    folders = [w.data / "public/releases/000002" for w in (released, other)]
    files = [{str(p.relative_to(f)): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in folders]
    assert files[0].keys() == files[1].keys()
    unlike = {n for n in files[0] if files[0][n] != files[1][n]}
    assert unlike == {"sources.json", "sources.json.gz", "manifest.json", "manifest.jws"}


def test_the_endpoint_gives_no_closed_figure_either(released: World) -> None:
    client = create_app(released.data / "public", released.data / "status.json").test_client()
    secret = {f"{v!r}" for v in told("closed", 1).values()}
    root = client.get("/v1/").get_json()
    paths = ["/v1/", *root["links"].values(), *(i["href"] for i in root["indices"] + root["prices"])]
    for path in list(paths):
        document = client.get(path).get_json()
        for entries in (document.get("history") or {}).values():
            paths += [entry["href"] for entry in entries]
    paths += [f"{p['href']}?frequency={f}&from=2024" for p in root["prices"] for f in ("daily", "monthly")]
    manifest = client.get("/v1/releases/2").get_json()
    paths += [f"/v1/releases/2/{name}" for name in manifest["files"] if not name.endswith(".gz")]
    seen = set()
    for path in paths:
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert b"closed-" not in answer.data, path
        if "json" in answer.content_type:
            seen |= {repr(n) for n in numbers(json.loads(answer.data))}
    assert len(seen) > 500 and not seen & secret
    assert client.get("/v1/releases/../../internal/releases/000002/register.json").status_code == 404


# ------------------------------------------------------------------------- one fails, others go on


def test_a_damaged_archive_of_one_source_keeps_no_other_from_being_collected(world: World) -> None:
    world.collect()
    with world.opened() as ws:
        sha256 = ws.store.visit("beta", world.operation.sources["beta"].url)["sha256"]
    os.truncate(world.data / "documents" / sha256[:2] / f"{sha256[2:]}.gz", 40)
    world.second_round()
    outcomes = world.collect("beta", "days")  # beta answers 304, so its archived copy is looked at
    assert outcomes["days"].outcome == "new"
    assert outcomes["beta"].ok or "damaged" in outcomes["beta"].message


def test_a_clock_that_went_back_keeps_no_source_from_being_visited(world: World) -> None:
    world.collect("alpha")
    world.release()
    world.round, world.now = 2, NOW[1] - dt.timedelta(minutes=5)
    outcomes = world.collect("alpha", "days")
    assert [(n, o.ok) for n, o in outcomes.items()] == [("alpha", False), ("days", False)]
    assert "is not after release 1" in outcomes["days"].message
    assert world.known() == told("alpha", 1)


def test_a_release_that_a_kill_left_unrecorded_still_closes_the_past(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.collect("alpha")

    def killed(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Store, "record_release", killed)
        with pytest.raises(KeyboardInterrupt):
            world.release()
    assert (world.data / "public/current").read_text() == "1\n", "it is released"
    late = tmp_path / "beta.csv"
    late.write_bytes(small_world.document("beta", 1))
    with world.opened() as ws:
        (outcome,) = pipeline.load_files(ws, "beta", [late], replay=True)
    assert outcome.outcome == "refused", "learnt in October, though the release of November did not know it"


def test_the_hash_of_a_closed_document_is_salted_in_public_and_an_auditor_can_tell_which_it_is(world: World) -> None:
    world.set_source("beta", rights=config.Rights(publish_derived=True))
    world.collect()
    public, internal = world.release().manifest, world.release("internal").manifest
    (plain,) = [d["sha256"] for d in internal["documents"] if d["source"] == "beta"]
    (salted,) = [d for d in public["documents"] if d["source"] == "beta"]
    assert salted["salted_sha256"] == hashlib.sha256(f"{internal['salt']}{plain}".encode()).hexdigest()
    assert "sha256" not in salted and "salt" not in public and plain not in json.dumps(public)
    assert {d["source"] for d in public["documents"] if "sha256" in d} == {*small_world.OPEN, "moody"} - {"beta"}
