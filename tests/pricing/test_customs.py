"""Collections from three services on loopback that answer as the real ones do; what they serve is the truth."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import customs_offices
import pandas as pd
import pytest
from customs_offices import (
    BULLETINS,
    KEY,
    METALS,
    NOW,
    PER_LIST,
    Clock,
    Offices,
    path_of,
    price,
    workspace,
    world,
)
from structlog.testing import capture_logs

from pricing import cells, customs, pipeline
from pricing.sources import comext
from pricing.store import Store

OFFICES = ("comext", "census")
DAY, HOUR = dt.timedelta(days=1), dt.timedelta(hours=1)
SMALL = {"count": 8, "since": "2025"}


@pytest.fixture(scope="module")
def running() -> Iterator[Offices]:
    made = Offices()
    yield made
    made.stop()


@pytest.fixture
def offices(running: Offices, monkeypatch: pytest.MonkeyPatch) -> Offices:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    running.reset()
    return running


@pytest.fixture(scope="module")
def collected(running: Offices, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """All five years, collected while every mood was on; and what was seen of it."""
    folder, clock = tmp_path_factory.mktemp("whole"), Clock()
    running.reset()
    running.moody = True
    outcomes = visit(running, folder, *OFFICES, clock=clock)
    return SimpleNamespace(
        folder=folder, outcomes=outcomes, log=list(running.log), clock=clock, most_active=running.most_active
    )


@pytest.fixture
def whole(collected: SimpleNamespace, offices: Offices, tmp_path: Path) -> Path:
    """A copy of the folder with the five years."""
    return Path(shutil.copytree(collected.folder, tmp_path / "data"))


def visit(offices: Offices, folder: Path, *names: str, clock: Clock | None = None, **more: Any) -> dict[str, Any]:
    with workspace(folder, offices.base, clock or Clock(), **more) as ws:
        return {o.source: o for o in pipeline.collect(ws, customs_offices.client(ws), names)}


def office(ws: pipeline.Workspace, name: str) -> customs.Office:
    source = ws.operation.sources[name]
    writing = lambda: pipeline.writing(ws.data)  # noqa: E731
    client = customs_offices.client(ws)
    return customs.Office(name, source, ws.codes(source), ws.store, client, ws.environ, ws.now, ws.sleep, writing)


def known(folder: Path, name: str, as_of: dt.datetime | None = None) -> pd.DataFrame:
    with Store(folder / "store.db", None) as store:
        return cells.known(store, name, as_of).drop(columns="vintage")


def asked_well(folder: Path, name: str) -> set[str]:
    """Questions that are noted as answered, without the source's own visit."""
    with Store(folder / "store.db", None) as store:
        done = [v for v in store.visits() if v["source"] == name and v["outcome"] in ("new", "unchanged")]
    return {v["url"] for v in done if "?" in v["url"]}


def findings(folder: Path) -> list[str]:
    with Store(folder / "store.db", None) as store:
        return [f["check"] for f in store.findings()]


def same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(left, right.reset_index(drop=True), check_dtype=False)


def declared(folder: Path, name: str) -> int:
    with closing(sqlite3.connect(folder / "store.db")) as db:
        sql = "SELECT count(*) FROM declaration d JOIN cell c ON c.id = d.cell WHERE c.source = ?"
        return int(db.execute(sql, (name,)).fetchone()[0])


# --------------------------------------------------------------------------------- five years


@pytest.mark.parametrize("name", OFFICES)
def test_five_years_of_forty_codes_and_thirty_partners_survive_every_mood_of_the_services(
    collected: SimpleNamespace, name: str
) -> None:
    truth = world(name).rounds[0]
    assert truth["code"].nunique() == 40 and truth["partner"].nunique() == 30 and truth["period"].nunique() >= 55
    assert collected.outcomes[name].outcome == "new"
    same(known(collected.folder, name), truth)
    assert declared(collected.folder, name) == len(truth) == collected.outcomes[name].changes.new
    said = Counter(e.said for e in collected.log if e.office == name)
    met = {"error-in-200", "403", "500", "cut"}
    met |= {"too-big-413", "too-big-200", "queued", "processing", "available"} if name == "comext" else set()
    assert min(said[mood] for mood in met) >= 5
    assert not [check for check in findings(collected.folder) if check not in ("no-cells", "fetch")]


def test_what_was_answered_was_asked_once_in_the_whole_collection(collected: SimpleNamespace) -> None:
    answered = Counter(e.path for e in collected.log if e.said in ("data", "nothing"))
    assert len(answered) > 250 and set(answered.values()) == {1}


def test_requests_follow_each_other_with_a_pause_before_each_but_the_first(collected: SimpleNamespace) -> None:
    assert collected.most_active == 1
    sent = Counter(e.office for e in collected.log)
    slept = Counter(collected.clock.slept)
    polls = sum(slept[seconds] for seconds in (4.0, 8.0, 16.0, 30.0))
    assert slept[0.5] == sent["census"] - 1
    first_polls = sum(e.said == "queued" for e in collected.log)
    assert slept[2.0] == sent["comext"] - 1 + first_polls
    assert polls > first_polls


def test_a_code_that_splits_is_asked_for_in_its_years_only_and_no_month_is_lost(collected: SimpleNamespace) -> None:
    codes = world("census").codes
    old, new = codes[customs_offices.SPLIT].code, codes[customs_offices.SPLITS_INTO[0]].code
    years = {c: {p.split("from+")[1][:4] for p in (e.path for e in collected.log) if f"={c}&" in p} for c in (old, new)}
    assert years == {old: {"2022", "2023", "2024"}, new: {"2025", "2026"}}
    have = known(collected.folder, "census")
    assert (
        have[have["code"] == old]["period"].max() == "2024-12"
        and have[have["code"] == new]["period"].min() == "2025-01"
    )


# ------------------------------------------------------------------------------- later visits


def test_a_second_visit_asks_open_years_only_and_brings_exactly_what_moved(whole: Path, offices: Offices) -> None:
    clock = Clock(NOW + 4 * HOUR)
    visit(offices, whole, *OFFICES, clock=clock)
    assert not offices.log, "nothing is asked again before again_after_hours"
    offices.round, clock.now = 1, NOW + 2 * DAY
    before = clock.now - HOUR
    outcomes = visit(offices, whole, *OFFICES, clock=clock)
    for name, years in (("comext", {"2025", "2026"}), ("census", {"2026"})):
        now = world(name)
        same(known(whole, name), now.rounds[1])
        same(known(whole, name, before), now.rounds[0])
        changes = outcomes[name].changes
        assert now.moved == {"new": changes.new, "revised": changes.revised, "withdrawn": changes.withdrawn}
        assert min(now.moved.values()) > 10
        questions = [p for p in offices.asked(name) if "time=" in p or "startPeriod" in p]
        assert {p.split("from+" if name == "census" else "startPeriod=")[1][:4] for p in questions} == years
    assert offices.said()["not-modified"] > 5, "what did not move is not sent again where the publisher can tell"
    gone = now.rounds[0].merge(now.rounds[1], on=["code", "reporter", "partner", "period"], how="left", indicator=True)
    key = gone[gone["_merge"] == "left_only"].iloc[0]
    with Store(whole / "store.db", None) as store:
        told = cells.history(store, "census", [key["code"], key["reporter"], key["partner"]], key["period"])
    assert told["status"].tolist() == [key["status_x"], "withdrawn"]


def test_a_year_that_has_become_final_is_asked_once_more_and_then_no_more(whole: Path, offices: Offices) -> None:
    counts = []
    for days in (14, 15, 16):  # 2025 is final on 1 November
        offices.log.clear()
        visit(offices, whole, "comext", clock=Clock(NOW + days * DAY))
        counts.append(Counter(p.split("startPeriod=")[1][:4] for p in offices.asked() if "startPeriod" in p))
    assert counts[0]["2025"] and counts[0].keys() == {"2025", "2026"}
    assert counts[1].keys() == counts[2].keys() == {"2026"}
    same(known(whole, "comext"), world("comext").rounds[0])


@pytest.mark.parametrize("name", OFFICES)
def test_an_answer_that_shows_half_withdraws_at_its_second_saying_only_and_is_a_finding(
    offices: Offices, tmp_path: Path, name: str
) -> None:
    visit(offices, tmp_path, name, **SMALL)
    offices.partial = {world(name).codes[2].code}
    outcome = visit(offices, tmp_path, name, clock=Clock(NOW + 2 * DAY), **SMALL)[name]
    assert outcome.changes.withdrawn == 0 and findings(tmp_path).count("mass-withdrawal") >= 1
    same(known(tmp_path, name), world(name).cells(0, **SMALL))
    second = visit(offices, tmp_path, name, clock=Clock(NOW + 4 * DAY), **SMALL)[name]
    assert second.changes.withdrawn > 20 and "withdrawal" in findings(tmp_path)
    same(known(tmp_path, name, NOW + 3 * DAY), world(name).cells(0, **SMALL))
    offices.partial = set()
    offices.round = 1
    visit(offices, tmp_path, name, clock=Clock(NOW + 6 * DAY), **SMALL)
    same(known(tmp_path, name), world(name).cells(1, **SMALL))


def test_a_new_unit_or_validity_of_a_code_has_the_documents_sent_and_read_again(
    offices: Offices, tmp_path: Path
) -> None:
    visit(offices, tmp_path, "comext", **SMALL)
    offices.log.clear()
    visit(offices, tmp_path, "comext", clock=Clock(NOW + 2 * DAY), **SMALL)
    assert offices.said()["not-modified"] >= 2
    offices.log.clear()
    with workspace(tmp_path, offices.base, Clock(NOW + 4 * DAY), **SMALL) as ws:
        made = office(ws, "comext")
        shorter = [c if i else c.model_copy(update={"valid_to": "2026-03"}) for i, c in enumerate(made.codes)]
        customs.collect(replace(made, codes=shorter))
    # its questions are sent anew, closed years too; those about other codes are not
    assert offices.said()["data"] >= 2 and offices.said()["not-modified"] >= 1
    have = known(tmp_path, "comext")
    assert have[have["code"] == shorter[0].code]["period"].max() == "2026-03"


# ------------------------------------------------------------------------------ stopped and resumed


WHERE = ("before a request", "within the cells", "after the cells")


class Stop(BaseException):
    """The power is gone."""


def stopping(made: customs.Office, patch: pytest.MonkeyPatch, after: int, where: str) -> None:
    """End the collection before a request, inside a transaction, or at its end, after so many of them."""
    left = iter(range(after, -1, -1))
    get, append, note = made.client.get, cells.append, made.store.record_visit

    def stop_before(*args: Any, **options: Any) -> Any:
        if not next(left):
            raise Stop
        return get(*args, **options)

    def stop_within(store: Store, *args: Any, **options: Any) -> Any:
        if not next(left):
            steps = iter([0] * random.Random(after).choice((1, 5, 25, 125)))
            store.db.conn.set_progress_handler(lambda: next(steps, 1), 20)
            try:
                append(store, *args, **options)
            finally:
                store.db.conn.set_progress_handler(None, 0)
                raise Stop
        return append(store, *args, **options)

    def stop_after(*args: Any, **options: Any) -> None:
        if not next(left):
            raise Stop
        note(*args, **options)

    if where == "before a request":
        patch.setattr(made.client, "get", stop_before)
    elif where == "within the cells":
        patch.setattr(cells, "append", stop_within)
    else:
        patch.setattr(made.store, "record_visit", stop_after)


@pytest.mark.parametrize(("name", "seed"), [("comext", 1), ("comext", 2), ("census", 3)])
def test_a_collection_stopped_at_random_moments_goes_on_and_never_asks_for_what_it_has(
    offices: Offices, tmp_path: Path, name: str, seed: int
) -> None:
    chance, stops, clock = random.Random(seed), 0, Clock()
    offices.moody = True
    for turn in range(60):
        had = asked_well(tmp_path, name) if (tmp_path / "store.db").exists() else set()
        offices.log.clear()
        with workspace(tmp_path, offices.base, clock, **SMALL) as ws, pytest.MonkeyPatch.context() as patch:
            made = office(ws, name)
            stopping(made, patch, chance.randint(0, 5), WHERE[turn % 3])
            try:
                done = customs.collect(made)
            except Stop:
                stops, done = stops + 1, None
            read = {d["url"] for d in ws.store.documents()}
        assert not had & {offices.base + p for p in offices.asked()}
        assert read <= asked_well(tmp_path, name), "what is stored counts as asked, at whatever moment it ends"
        if done is not None and not done.failed and not done.left:
            break
    assert stops >= 4 and done is not None and not done.failed
    truth = world(name).cells(0, **SMALL)
    same(known(tmp_path, name), truth)
    assert declared(tmp_path, name) == len(truth)


def test_a_killed_process_leaves_whole_answers_only_and_another_one_goes_on(offices: Offices, tmp_path: Path) -> None:
    program = [sys.executable, str(Path(customs_offices.__file__)), offices.base, str(tmp_path), "8", "census"]
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(program, env=environ, stdout=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 60
        while len(offices.log) < 13 and time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.001)
        os.kill(child.pid, signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL and len(offices.log) >= 13
    had, sent = asked_well(tmp_path, "census"), len(offices.log)
    truth = world("census").cells(0, 8)
    stored = known(tmp_path, "census")
    whole_answers = {(u.split("I_COMMODITY=")[1][:10], u.split("from+")[1][:4]) for u in had}
    kept = pd.MultiIndex.from_arrays([truth["code"], truth["period"].str[:4]]).isin(whole_answers)
    same(stored, truth[kept])
    assert 0 < len(had) < 40 and sent - len(had) <= 1, "at most the answer that was being stored is asked for again"
    offices.log.clear()
    assert visit(offices, tmp_path, "census", clock=Clock(NOW + HOUR), count=8)["census"].outcome == "new"
    assert not had & {offices.base + p for p in offices.asked()}
    same(known(tmp_path, "census"), truth)


# ---------------------------------------------------------------------------- refusals and silence


@pytest.mark.parametrize("case", ["missing", "wrong", "unknown-to-the-publisher"])
def test_a_missing_or_wrong_key_is_one_failure_that_names_the_variable_and_never_the_key(
    offices: Offices, tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    key = "" if case == "missing" else "f00d" + KEY[4:]
    if case == "unknown-to-the-publisher":
        offices.saying = None
        census = offices._census
        offices._census = lambda path, query: census(path, "get=NAME")  # type: ignore[method-assign]
    try:
        with caplog.at_level(logging.INFO), capture_logs() as logs:
            outcome = visit(offices, tmp_path, "census", key=key)["census"]
    finally:
        offices.__dict__.pop("_census", None)
    assert outcome.outcome == "failed" and "MADE_KEY" in outcome.message
    assert (
        offices.said()
        == {"missing": {}, "wrong": {"invalid-key": 1}, "unknown-to-the-publisher": {"redirect": 1}}[case]
    )
    assert findings(tmp_path) == ["fetch"] and known(tmp_path, "census").empty
    told = json.dumps(logs) + caplog.text + "".join(capfd.readouterr()) + outcome.message
    told += "".join(str(path) for path in tmp_path.rglob("*"))
    with closing(sqlite3.connect(tmp_path / "store.db")) as db:
        told += "\n".join(db.iterdump())
    assert "census" in told and not key or key not in told


def test_no_key_is_left_behind_by_a_collection_that_goes_well(collected: SimpleNamespace) -> None:
    stored = (collected.folder / "store.db").read_bytes()
    assert b"GEN_VAL_MO" in stored and KEY.encode() not in stored
    assert KEY not in "".join(o.message for o in collected.outcomes.values())


@pytest.mark.parametrize("name", OFFICES)
def test_a_silent_publisher_is_left_alone_after_a_few_requests_and_the_next_visit_goes_on(
    offices: Offices, tmp_path: Path, name: str
) -> None:
    offices.started = lambda: setattr(offices, "down", len(offices.log) >= 10)
    try:
        outcome = visit(offices, tmp_path, name, **SMALL)[name]
    finally:
        offices.started = lambda: None
    assert len(offices.log) == 10 + customs.SILENT and offices.said()["500"] == customs.SILENT
    assert (
        outcome.outcome == "failed" and "left for the next visit" in outcome.message and "HTTP 500" in outcome.message
    )
    had = asked_well(tmp_path, name)
    offices.down = False
    offices.log.clear()
    assert visit(offices, tmp_path, name, clock=Clock(NOW + HOUR), **SMALL)[name].outcome == "new"
    assert not had & {offices.base + p for p in offices.asked()}
    same(known(tmp_path, name), world(name).cells(0, **SMALL))


def test_questions_that_never_succeed_do_not_keep_the_others_from_being_asked(offices: Offices, tmp_path: Path) -> None:
    """Six codes that the publisher does not know, each asked alone, stand first: after one visit they stand last."""
    codes = [
        c.model_copy(update={"certainty": "unconfirmed"}) if i < 6 else c
        for i, c in enumerate(world("comext").codes[:12])
    ]
    offices.unknown = {c.code for c in codes[:6]}
    clock = Clock()
    for _ in range(2):
        with workspace(tmp_path, offices.base, clock, since="2026") as ws:
            customs.collect(replace(office(ws, "comext"), codes=codes))
    truth = world("comext").cells(0, 12, "2026")
    same(known(tmp_path, "comext"), truth[~truth["code"].isin(offices.unknown)])


def test_a_failure_after_a_success_does_not_break_up_what_is_asked_together(offices: Offices, tmp_path: Path) -> None:
    visit(offices, tmp_path, "comext", count=6, since="2025")
    before = {offices.base + p for p in offices.asked() if "startPeriod" in p}
    offices.down = True
    assert (
        visit(offices, tmp_path, "comext", clock=Clock(NOW + 15 * DAY), count=6, since="2025")["comext"].outcome
        == "failed"
    )
    offices.down = False
    offices.log.clear()
    visit(offices, tmp_path, "comext", clock=Clock(NOW + 15 * DAY + HOUR), count=8, since="2025")
    old, added = (world("comext").codes[n].code for n in (5, 6))
    questions = {offices.base + p for p in offices.asked() if "startPeriod" in p}
    assert {q for q in questions if added not in q} <= before and any(added in q for q in questions)
    assert not any(old in q and added in q for q in questions)
    offices.log.clear()
    visit(offices, tmp_path, "comext", clock=Clock(NOW + 17 * DAY), count=8, since="2025")
    assert offices.asked() and not [p for p in offices.asked() if "startPeriod=2025" in p], "2025 is final, and was had"


def test_an_answer_that_was_refused_is_asked_for_again_whatever_came_after_it(offices: Offices, tmp_path: Path) -> None:
    offices.saying = 200, customs_offices.HEAD.replace("partner", "country").encode() + b"\n"
    for days, outcome in ((15, "refused"), (15, "failed"), (17, "new")):  # 2025 is final by then
        got = visit(offices, tmp_path, "comext", clock=Clock(NOW + days * DAY), count=1, since="2025")["comext"]
        assert got.outcome == outcome
        offices.down, offices.saying = not offices.down, None
    same(known(tmp_path, "comext"), world("comext").cells(0, 1, "2025"))
    assert findings(tmp_path) == ["layout", "layout", "fetch"]


@pytest.mark.parametrize("status", [200, 400, 404, 413])
@pytest.mark.parametrize("name", OFFICES)
def test_an_empty_body_is_no_word_that_there_is_nothing(
    offices: Offices, tmp_path: Path, name: str, status: int
) -> None:
    visit(offices, tmp_path, name, count=1, since="2026")
    before = known(tmp_path, name)
    assert 0 < len(before) <= 400
    offices.saying = status, b""
    outcome = visit(offices, tmp_path, name, clock=Clock(NOW + 2 * DAY), count=1, since="2026")[name]
    assert outcome.outcome == "failed" and f"HTTP {status}" in outcome.message
    same(known(tmp_path, name), before)


def test_a_question_in_the_wrong_order_is_a_failure_and_not_an_empty_answer(
    offices: Offices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = comext._request
    monkeypatch.setattr(
        comext,
        "_request",
        lambda *a: (r := right(*a)).__class__(r.url.replace("/M.", "/1.").replace(".1.V", ".M.V"), r.scope),
    )
    outcome = visit(offices, tmp_path, "comext", count=1, since="2026")["comext"]
    assert outcome.outcome == "failed" and "Invalid key" in outcome.message
    assert offices.said() == {"wrong-order": customs.TRIES} and known(tmp_path, "comext").empty


def test_a_queued_answer_that_never_comes_is_given_up(offices: Offices, tmp_path: Path) -> None:
    text = customs_offices.QUEUED.format("job-0", "<status>PROCESSING</status>").encode()
    offices.saying = 200, text
    clock = Clock()
    outcome = visit(offices, tmp_path, "comext", clock=clock, count=1, since="2026")["comext"]
    assert outcome.outcome == "failed" and "still queued" in outcome.message
    assert len(offices.log) == customs.TRIES * (customs.POLLS + 1)
    assert max(clock.slept) == customs.LONGEST_POLL


def test_the_state_of_a_source_is_that_of_its_last_visit_and_not_of_one_question(
    offices: Offices, tmp_path: Path
) -> None:
    for days, key, reachable in ((0, KEY, True), (2, "", False), (4, KEY, True)):
        clock = Clock(NOW + days * DAY)
        visit(offices, tmp_path, "census", clock=clock, count=1, since="2026", key=key)
        with workspace(tmp_path, offices.base, clock) as ws:
            state = pipeline.status(ws)["sources"]["census"]
        assert state["reachable"] is reachable and state["visited_at"].startswith(f"{clock.now:%Y-%m-%d}")


def test_another_process_that_writes_keeps_a_collection_from_storing_and_loses_nothing(
    offices: Offices, tmp_path: Path
) -> None:
    with workspace(tmp_path, offices.base, Clock(), count=1, since="2026") as ws:
        made = office(ws, "census")
        refusing = replace(made, writing=lambda: pipeline.writing(ws.data, 0.0))
        with pipeline.writing(ws.data), pytest.raises(Exception, match="another lodemark process"):
            customs.collect(refusing)
        assert cells.known(ws.store, "census").empty
        customs.collect(refusing)
    same(known(tmp_path, "census"), world("census").cells(0, 1, "2026"))


# ----------------------------------------------------------------------------- ten-day bulletins


def bulletins(folder: Path) -> dict[tuple[str, str], float]:
    with Store(folder / "store.db", None) as store:
        rows = store.observations()
    return dict(zip(zip(rows["series"], rows["period"], strict=True), rows["value"], strict=True))


def prices(periods: list[str]) -> dict[tuple[str, str], float]:
    return {(f"nbs-{metal}", period): price(metal, period) for period in periods for metal in METALS}


def seed(offices: Offices, folder: Path, period: str) -> None:
    """Let one old bulletin be known from a kept file."""
    with workspace(folder, offices.base, Clock(NOW - DAY)) as ws:
        pipeline.take(ws, "nbs", customs_offices.bulletin(period), NOW - DAY, "old.html")


def pages(offices: Offices) -> list[str]:
    return [p for p in offices.asked("nbs") if "/index" in p or p.endswith("/zxfb/")]


def test_a_first_visit_reads_every_bulletin_of_the_newest_list_and_no_older_list(
    offices: Offices, tmp_path: Path
) -> None:
    outcome = visit(offices, tmp_path, "nbs")["nbs"]
    assert outcome.outcome == "new" and outcome.changes.new == len(METALS) * PER_LIST
    assert bulletins(tmp_path) == prices(BULLETINS[-PER_LIST:])
    assert pages(offices) == ["/sj/zxfb/"]
    assert [p.rpartition("/")[2] for p in offices.asked()[1:]] == [
        path_of(p).rpartition("/")[2] for p in BULLETINS[:-7:-1]
    ]


def test_a_history_that_begins_earlier_is_filled_from_older_lists_in_chinese_and_english(
    offices: Offices, tmp_path: Path
) -> None:
    seed(offices, tmp_path, BULLETINS[0])
    clock = Clock()
    outcome = visit(offices, tmp_path, "nbs", clock=clock)["nbs"]
    assert outcome.outcome == "new" and not findings(tmp_path)
    assert bulletins(tmp_path) == prices(BULLETINS)
    lists = -(-(len(BULLETINS) - 1) // PER_LIST)
    assert len(pages(offices)) == lists
    assert offices.said() == {"list": lists, "bulletin": len(BULLETINS) - 1}
    assert clock.slept == [pipeline.PAUSE_SECONDS] * (len(offices.log) - 1) and offices.most_active == 1
    with Store(tmp_path / "store.db", None) as store:
        urls = {d["url"] for d in store.documents()}
    assert len(urls) == len(BULLETINS) and len({customs_offices.titled(p).isascii() for p in BULLETINS}) == 2
    offices.log.clear()
    again = visit(offices, tmp_path, "nbs", clock=Clock(NOW + DAY))["nbs"]
    assert again.outcome == "unchanged" and offices.asked() == ["/sj/zxfb/"], (
        "bulletins that were had are not asked again"
    )


def test_a_configured_beginning_is_walked_back_to_and_not_beyond(offices: Offices, tmp_path: Path) -> None:
    with workspace(tmp_path, offices.base, Clock()) as ws:
        source = ws.operation.sources["nbs"]
        since = tuple(s.model_copy(update={"since": "2026-07"}) for s in source.series)
        sources = {"nbs": source.model_copy(update={"series": since})}
        operation = ws.operation.model_copy(update={"sources": sources})
        pipeline.collect(replace(ws, operation=operation), customs_offices.client(ws), ["nbs"])
    assert len(pages(offices)) == 2
    assert bulletins(tmp_path) == prices([p for p in BULLETINS if p >= "2026-07"])


def test_a_new_bulletin_is_one_page_of_the_list_and_one_document(offices: Offices, tmp_path: Path) -> None:
    offices.bulletins = BULLETINS[:-1]
    visit(offices, tmp_path, "nbs")
    offices.bulletins = list(BULLETINS)
    offices.log.clear()
    outcome = visit(offices, tmp_path, "nbs", clock=Clock(NOW + DAY))["nbs"]
    assert outcome.changes.new == len(METALS) and offices.said() == {"list": 1, "bulletin": 1}


def test_a_page_that_is_gone_keeps_no_other_from_being_read_and_is_tried_again(
    offices: Offices, tmp_path: Path
) -> None:
    offices.lost = {BULLETINS[-2], *BULLETINS[-12:-6]}
    seed(offices, tmp_path, BULLETINS[-14])
    outcome = visit(offices, tmp_path, "nbs")["nbs"]
    assert outcome.outcome == "failed" and "404" in outcome.message and findings(tmp_path) == ["fetch"]
    assert bulletins(tmp_path) == prices([p for p in BULLETINS[-18:] if p not in offices.lost])
    offices.lost = set()
    offices.log.clear()
    assert visit(offices, tmp_path, "nbs", clock=Clock(NOW + DAY))["nbs"].outcome == "new"
    assert bulletins(tmp_path) == prices(BULLETINS[-18:]) and offices.said()["bulletin"] == 7


def test_a_service_that_falls_silent_among_the_bulletins_is_left_alone(offices: Offices, tmp_path: Path) -> None:
    offices.started = lambda: setattr(offices, "down", len(offices.log) >= 12)
    seed(offices, tmp_path, BULLETINS[-40])
    try:
        outcome = visit(offices, tmp_path, "nbs")["nbs"]
    finally:
        offices.started = lambda: None
    assert outcome.outcome == "failed" and offices.said()["500"] == customs.SILENT
    offices.down = False
    assert visit(offices, tmp_path, "nbs", clock=Clock(NOW + DAY))["nbs"].outcome == "new"
    assert bulletins(tmp_path) == prices(BULLETINS[-42:])


def test_lists_that_fail_or_link_nothing_are_no_news(offices: Offices, tmp_path: Path) -> None:
    offices.down = True
    assert visit(offices, tmp_path, "nbs")["nbs"].outcome == "failed"
    offices.down, offices.saying = False, (200, b"<html><body><p>moved</p></body></html>")
    offices.log.clear()
    outcome = visit(offices, tmp_path, "nbs")["nbs"]
    assert outcome.outcome == "refused" and len(offices.log) <= 5
    assert findings(tmp_path) == ["fetch", "layout"]


def test_a_period_that_no_list_links_ends_the_walk_at_its_place(offices: Offices, tmp_path: Path) -> None:
    seed(offices, tmp_path, BULLETINS[0])
    offices.bulletins = [p for p in BULLETINS if p != BULLETINS[-9]]
    visit(offices, tmp_path, "nbs")
    offices.log.clear()
    assert visit(offices, tmp_path, "nbs", clock=Clock(NOW + DAY))["nbs"].outcome == "unchanged"
    assert len(pages(offices)) == 2 and offices.said() == {"list": 2}


def test_the_newest_bulletin_is_read_again_from_the_archive_when_the_series_change(
    offices: Offices, tmp_path: Path
) -> None:
    with workspace(tmp_path, offices.base, Clock()) as ws:
        source = ws.operation.sources["nbs"]
        one = {"nbs": source.model_copy(update={"series": source.series[:1]})}
        fewer = ws.operation.model_copy(update={"sources": one})
        pipeline.collect(replace(ws, operation=fewer), customs_offices.client(ws), ["nbs"])
    offices.log.clear()
    outcome = visit(offices, tmp_path, "nbs", clock=Clock(NOW + DAY))["nbs"]
    assert outcome.changes.new == 1 and offices.said() == {"list": 1}
    assert bulletins(tmp_path)["nbs-zinc", BULLETINS[-1]] == price("zinc", BULLETINS[-1])


def test_a_visit_ends_between_two_questions_when_it_is_told_to(offices: Offices, tmp_path: Path) -> None:
    """A first visit may take hours: the service must not have to wait for its end."""
    with workspace(tmp_path, offices.base, Clock(), **SMALL) as ws:
        asked: list[float] = []
        made = replace(office(ws, "census"), sleep=asked.append, stopping=lambda: len(asked) >= 3)
        first = customs.collect(made)
        rest = customs.collect(replace(made, stopping=lambda: False))
    assert first.left > 0 and first.why == "stopped" and first.asked >= 3
    assert rest.left == 0 and rest.asked == first.left
