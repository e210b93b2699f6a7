"""When things happen: what is due, what was missed, what is tried again."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import made_world
import pytest
from made_world import World, told

from benchmarks.small_world import SOURCES
from pricing import pipeline
from pricing.errors import StoreError
from pricing.fetch import Client
from pricing.schedule import RETRY_MINUTES, Scheduler, only_scheduler, previous_fire
from pricing.store import iso

ROOT = Path(__file__).resolve().parents[2]
REFUSED = "http://127.0.0.1:9/alpha.csv"


# The scheduler's jobs run by the real clock, so their turns are half an hour away from it; what was
# missed is counted on the test's clock, which stands in the future, ten minutes after a turn.
REAL = dt.datetime.now(dt.UTC)
TURN = f"{(REAL.minute + 30) % 60} * * * *"
LATER = (REAL + dt.timedelta(days=400, minutes=40)).replace(second=0, microsecond=0)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with made_world.serving(tmp_path) as made:
        made.now = LATER
        for name in SOURCES:
            made.set_source(name, schedule=TURN)
        publish = made.operation.publish.model_copy(update={"schedule": TURN})
        made.operation = made.operation.model_copy(update={"publish": publish})
        made.status()  # makes the database, which two cannot do at once
        yield made


def client(ws: pipeline.Workspace) -> Client:
    return Client(ws.operation.fetch, ws.archive, ws.now, first_wait=0.01)


def scheduler(world: World) -> Scheduler:
    ticks = itertools.count()

    def clock() -> dt.datetime:
        return world.now + next(ticks) * dt.timedelta(milliseconds=1)

    return Scheduler(world.data, world.operation, world.methodology, clock, {}, client)


def until(claim: Callable[[], Any]) -> Any:
    """Wait until a claim holds; jobs run in threads of their own."""
    deadline = time.monotonic() + 60
    while not (found := claim()):
        assert time.monotonic() < deadline, "did not happen within a minute"
        time.sleep(0.05)
    return found


def runs(world: World) -> list[dict[str, Any]]:
    with world.opened() as ws:
        return list(ws.store.db.query("SELECT * FROM job_run ORDER BY id"))


def state(world: World) -> Any:
    return json.loads((world.data / "status.json").read_bytes())


def caught_up(world: World, *jobs: str) -> dict[str, str]:
    """Start the scheduler, wait until the jobs have ended, stop it; outcome by job."""
    made = scheduler(world)
    with world.opened() as ws:
        before = len(list(ws.store.db.query("SELECT 1 FROM job_run")))
    made.start()
    try:
        until(lambda: set(jobs) <= {r["job"] for r in runs(world)[before:] if r["outcome"]})
    finally:
        made.stop()
    return {r["job"]: r["outcome"] for r in runs(world)[before:]}


COLLECTIONS = [f"collect {n}" for n in SOURCES]


# ------------------------------------------------------------------------------------- due times


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("expression", "zone", "now", "due"),
    [
        # 16:20 in Frankfurt is 14:20 UTC in summer and 15:20 in winter
        ("20 16 * * mon-fri", "Europe/Berlin", "2026-07-01T14:20:00+00:00", "2026-07-01T14:20:00+00:00"),
        ("20 16 * * mon-fri", "Europe/Berlin", "2026-07-01T14:19:59+00:00", "2026-06-30T14:20:00+00:00"),
        ("20 16 * * mon-fri", "Europe/Berlin", "2026-12-01T15:00:00+00:00", "2026-11-30T15:20:00+00:00"),
        ("20 16 * * mon-fri", "Europe/Berlin", "2026-11-22T12:00:00+00:00", "2026-11-20T15:20:00+00:00"),
        # the hour that summer time skips: the turn falls on the first minute that exists
        ("30 10 1-12 * *", "America/New_York", "2026-11-23T12:00:00+00:00", "2026-11-12T15:30:00+00:00"),
    ],
)
def test_the_last_turn_is_counted_on_the_publishers_clock(expression: str, zone: str, now: str, due: str) -> None:
    found = previous_fire(expression, zone, at(now))
    assert found is not None and found.astimezone(dt.UTC) == at(due)


def test_every_past_turn_of_a_year_is_found_from_any_minute_after_it() -> None:
    """Independent count: local weekdays at 14:05, through both changes of the clock."""
    zone = ZoneInfo("America/Chicago")
    days = [dt.date(2026, 1, 1) + dt.timedelta(days=i) for i in range(365)]
    turns = [dt.datetime.combine(d, dt.time(14, 5), zone) for d in days if d.weekday() < 5]
    for turn, after in zip(turns, turns[1:], strict=False):
        for now in (turn, turn + (after - turn) / 2, after - dt.timedelta(seconds=1)):
            found = previous_fire("5 14 * * mon-fri", "America/Chicago", now.astimezone(dt.UTC))
            assert found is not None and found.astimezone(dt.UTC) == turn.astimezone(dt.UTC)


def test_a_job_that_was_never_due_in_the_last_weeks_has_no_last_turn() -> None:
    assert previous_fire("0 0 29 2 *", "UTC", at("2026-11-23T12:00:00+00:00")) is None


# --------------------------------------------------------------------------------------- catch up


def test_an_empty_folder_is_filled_and_released_at_start(world: World) -> None:
    done = caught_up(world, *COLLECTIONS, "release")
    assert done == dict.fromkeys([*COLLECTIONS, "release"], "done")
    assert world.known() == {k: v for n in SOURCES for k, v in told(n, 1).items()}
    assert [(world.data / a / "current").read_text() for a in ("public", "internal")] == ["1\n", "1\n"]
    told_of = state(world)
    assert told_of["releases"]["public"]["number"] == 1
    assert set(told_of["jobs"]) >= {*COLLECTIONS, "release"}
    assert told_of["sources"]["alpha"]["next_visit"] > iso(REAL)
    manifest = json.loads((world.data / "public/releases/000001/manifest.json").read_bytes())
    assert {d["source"] for d in manifest["documents"]} == {*SOURCES} - {"closed"}, "collections first, then a release"


def test_what_was_done_in_time_is_not_done_again_at_start(world: World) -> None:
    caught_up(world, *COLLECTIONS, "release")
    world.now += dt.timedelta(minutes=5)
    made = scheduler(world)
    made.start()
    try:
        until(lambda: state(world)["at"] >= iso(world.now))
    finally:
        made.stop()
    assert len(runs(world)) == len(SOURCES) + 1, [(r["job"], r["message"]) for r in runs(world)]
    assert (world.data / "public/current").read_text() == "1\n"


def test_a_day_that_was_missed_is_caught_up_collections_first(world: World) -> None:
    caught_up(world, *COLLECTIONS, "release")
    world.round, world.now = 2, world.now + dt.timedelta(hours=1)
    done = caught_up(world, *COLLECTIONS, "release")
    assert done.pop("collect moody") == "done", "a refused layout is a finding; the job did its work"
    assert set(done.values()) == {"done"}
    order = [r["job"] for r in runs(world)[len(SOURCES) + 1 :]]
    assert order[-1] == "release" and sorted(order[:-1]) == sorted(COLLECTIONS)
    part = json.loads((world.data / "public/releases/000002/prices/nickel/metal/XCN/monthly/2026.json").read_bytes())
    (june,) = [d for d in part["determinations"] if d["period"] == "2026-06"]
    assert told("alpha", 2)["alpha-nickel", "2026-06"] in [c["quoted"] for c in june["contributors"]]


def test_a_source_that_fails_is_tried_again_and_keeps_neither_others_nor_the_release(world: World) -> None:
    world.set_source("alpha", url=REFUSED)
    made = scheduler(world)
    made.start()
    try:
        until(lambda: {*COLLECTIONS, "release"} <= {r["job"] for r in runs(world) if r["outcome"]})
        due, told_of = made.due(), state(world)
    finally:
        made.stop()
    outcomes = {r["job"]: r["outcome"] for r in runs(world)}
    assert outcomes.pop("collect alpha") == "failed"
    assert set(outcomes.values()) == {"done"}
    again = dt.datetime.fromisoformat(due["retry collect alpha"])
    assert abs(again - world.now - dt.timedelta(minutes=RETRY_MINUTES)) < dt.timedelta(minutes=1)
    assert told_of["jobs"]["retry collect alpha"] == due["retry collect alpha"], "status says when it is tried again"
    assert told_of["sources"]["alpha"]["reachable"] is False
    (failed,) = [r for r in runs(world) if r["job"] == "collect alpha"]
    assert "127.0.0.1:9" in failed["message"]


def test_a_failed_collection_is_missed_and_so_caught_up_at_the_next_start(world: World) -> None:
    whole = world.operation
    world.set_source("alpha", url=REFUSED)
    caught_up(world, *COLLECTIONS, "release")
    world.operation = whole
    world.now += dt.timedelta(minutes=5)
    assert caught_up(world, "collect alpha") == {"collect alpha": "done"}
    assert {k: v for k, v in world.known().items() if k[0].startswith("alpha")} == told("alpha", 1)


def test_without_any_network_nothing_is_released_and_every_source_is_tried_again(world: World) -> None:
    for name in SOURCES:
        world.set_source(name, url=REFUSED)
    made = scheduler(world)
    made.start()
    try:
        until(lambda: {r["job"] for r in runs(world) if r["outcome"] == "failed"} == set(COLLECTIONS))
        retries = {j for j in made.due() if j.startswith("retry ")}
    finally:
        made.stop()
    assert retries == {f"retry {n}" for n in COLLECTIONS}
    assert "release" not in {r["job"] for r in runs(world)}
    assert not (world.data / "public/current").exists()


def test_a_release_that_was_killed_is_finished_at_start(world: World) -> None:
    world.collect()
    world.release()
    (world.data / "public/current").unlink()  # killed between the rename and the pointer
    world.operation = world.operation.model_copy(update={"sources": {}})
    made = scheduler(world)
    made.start()
    try:
        until(lambda: (world.data / "status.json").exists() and state(world)["releases"])
    finally:
        made.stop()
    assert (world.data / "public/current").read_text() == "1\n"


def test_two_releases_of_one_turn_are_for_the_two_audiences(world: World) -> None:
    caught_up(world, *COLLECTIONS, "release")
    with world.opened() as ws:
        made = {a: ws.store.last_release(a)["number"] for a in ("public", "internal")}
        (run,) = [r for r in runs(world) if r["job"] == "release"]
    assert made == {"public": 1, "internal": 1} and run["message"] == "public 1; internal 1"
    assert run["started_at"] >= iso(world.now)


# ------------------------------------------------------------------------------------------ stop


def test_stopping_lets_a_running_job_end_and_then_ends_itself(tmp_path: Path) -> None:
    """In a process of its own, for a scheduler that never stops would keep this one from ending too."""
    code = """
import sys, time, threading, pathlib
from benchmarks import small_world as w
from pricing import config
from pricing.fetch import Client
from pricing.schedule import Scheduler
asked = threading.Event()
server = w.publisher(lambda: asked.set() or time.sleep(0.5) or 1)
threading.Thread(target=server.serve_forever, daemon=True).start()
folder = pathlib.Path(sys.argv[1])
operation = config.load_operation(w.write(folder, f"http://127.0.0.1:{server.server_port}"))
method = config.load_methodology(folder / "methodology")
made = Scheduler(folder / "data", operation, method, lambda: w.NOW[1], {},
                 lambda ws: Client(ws.operation.fetch, ws.archive, ws.now))
made.start()
assert asked.wait(20)
made.stop()
print("stopped")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=40
    )
    assert done.stdout.splitlines()[-1:] == ["stopped"], done.stderr


# ------------------------------------------------------------------------------------------ lock


def test_a_second_scheduler_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with only_scheduler(tmp_path), pytest.raises(StoreError, match="already runs"), only_scheduler(tmp_path):
        pytest.fail("two schedulers")
    with only_scheduler(tmp_path):
        pass


def test_the_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from pricing.schedule import only_scheduler\n"
        "with only_scheduler(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        with pytest.raises(StoreError), only_scheduler(tmp_path):
            pytest.fail("two schedulers")
        process.kill()
        process.wait()
    with only_scheduler(tmp_path):
        pass


# --------------------------------------------------------------------------------------- deliveries


def test_the_outbox_is_emptied_in_turns_of_its_own_and_an_error_ends_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pricing.schedule.DELIVERY_SECONDS", 0.05)
    said = iter(["", "sent 2", OSError("disk full")])
    turns: list[bool] = []

    def deliver(ws: pipeline.Workspace, stop: Callable[[], bool]) -> str:
        turns.append(stop())
        told_ = next(said, "")
        if isinstance(told_, OSError):
            raise told_
        return told_

    made = Scheduler(world.data, world.operation, world.methodology, lambda: world.now, {}, client, deliver)
    made.start()
    try:
        until(lambda: len(turns) >= 5)
    finally:
        made.stop()
    seen = [(r["outcome"], r["message"]) for r in runs(world) if r["job"] == "deliver"]
    assert seen == [("done", "sent 2"), ("failed", "failed: disk full")]
