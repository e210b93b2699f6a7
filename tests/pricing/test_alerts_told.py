"""From a release to the outbox: with the release or not at all, once, whatever ends the process in between."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from pathlib import Path

import feedparser
import made_world
import mail_server
import pytest
from click.testing import CliRunner
from made_shocks import later, shock, subscriber

import service
from pricing import config, pipeline, releases, shocks
from pricing.demonstration import market_days
from pricing.errors import StoreError
from pricing.quality import Finding
from pricing.store import Store
from pricing.subscribers import Alerts, Smtp
from pricing.web.app import create_app

DEMO = config.load_methodology(Path(__file__).resolve().parents[2] / "methodology" / "demo")
RULES = Alerts(
    sender="Lodemark <alerts@example.org>", smtp=Smtp(host="mail.example.org"), base_url="https://example.org"
)
MARKET = "nickel/metal/XCN"


@pytest.fixture
def world(tmp_path, monkeypatch):
    """The small world with two subscribers; ``world.shocks`` are what the next release tells."""
    with made_world.serving(tmp_path) as made:
        made.methodology = made.methodology.model_copy(update={"shocks": DEMO.shocks})
        who = (subscriber(), subscriber("Cobalt", minerals=["cobalt"]), subscriber("Duty", list="operator"))
        made.operation = made.operation.model_copy(update={"alerts": RULES, "subscribers": who})
        made.shocks = []
        monkeypatch.setattr(shocks, "tell", lambda *_: shocks.Told(list(made.shocks)))
        made.collect()
        yield made


def told(world, number=1, series=MARKET, **changes):
    """A shock that the release of this number is the first to tell."""
    one = shock(series, **{"told_in": number, **changes})
    one = {k: v for k, v in one.items() if k not in ("indices", "href")}  # a release adds them
    return one | {"learnt_at": world.now.strftime("%Y-%m-%dT%H:%M:%S.000000Z")}


def outbox(world, audience="public"):
    with world.opened() as ws:
        names = {a["identifier"]: a for a in ws.store.alerts(audience)}
        return [(r["subscriber"], names[r["alert"]]["msgType"]) for r in ws.store.outbox() if r["alert"] in names]


def test_a_shock_reaches_each_subscriber_that_it_fits_once_and_nobody_else(world):
    world.shocks = [told(world)]
    world.release()
    assert outbox(world) == [("Ministry", "Alert")]
    world.now += dt.timedelta(days=1)
    world.release()
    assert outbox(world) == [("Ministry", "Alert")]
    world.now += dt.timedelta(days=1)
    world.shocks = [later(told(world), 0, state="withdrawn", verdict="error", why="corrected at the source")]
    world.release()
    assert outbox(world) == [("Ministry", "Alert"), ("Ministry", "Cancel")]


def test_an_alert_rests_on_what_the_sources_allow(world):
    """The market's sources are asked, and an index's are those of all its members."""
    rights = world.operation.sources["alpha"].rights.model_copy(update={"alert": False})
    world.set_source("alpha", rights=rights)
    world.shocks = [told(world), told(world, series="two-metals")]
    made = world.release()
    assert {name for name, _ in outbox(world)} == {"Duty"}
    listed = json.loads((made.folder / "alerts.json").read_bytes())
    assert listed["alerts"] == [] and b"<entry>" not in (made.folder / "feed.atom").read_bytes()


@pytest.mark.parametrize("where", ["freeze", "announce"])
def test_a_release_that_is_killed_tells_its_alerts_when_it_is_finished_and_once(world, monkeypatch, where):
    class Killed(BaseException):
        pass

    def dies(*_, **__):
        raise Killed

    world.shocks = [told(world)]
    with monkeypatch.context() as patch:
        if where == "freeze":
            patch.setattr(releases, "freeze", dies)
        else:
            patch.setattr(Store, "announce_draft", dies)
        with pytest.raises(Killed):
            world.release()
    assert outbox(world) == []
    world.now += dt.timedelta(minutes=1)
    with world.opened() as ws, pipeline.writing(world.data):
        pipeline.recover(ws, "public")
        assert (ws.store.last_release("public") is not None) == (where == "announce")
    assert outbox(world) == ([("Ministry", "Alert")] if where == "announce" else [])
    if where == "freeze":
        world.release()
    with world.opened() as ws, pipeline.writing(world.data):
        pipeline.recover(ws, "public")
        assert not ws.store.announce_draft("public", 1), "the draft is gone"
    assert outbox(world) == [("Ministry", "Alert")]


def test_alerts_and_their_messages_are_stored_together_or_not_at_all(world):
    with world.opened() as ws:
        good = ("a", "s", "email", "x", "", 1, "2026-11-20T14:00:00Z", "waiting", "<m>")
        alert = {"identifier": "a", "audience": "public", "thread": "a", "version": 1, "sent": "2026-11-20T14:00:00Z"}
        with pytest.raises(ValueError, match="isoformat"):
            ws.store.announce([alert], [good, (*good[:6], "no instant", *good[7:])])
        assert ws.store.alerts() == [] and ws.store.outbox() == []
        ws.store.announce([alert], [good])
        ws.store.announce([alert], [good])
        assert len(ws.store.alerts()) == len(ws.store.outbox()) == 1


def test_a_release_deemed_made_long_ago_tells_nobody(world):
    world.shocks = [told(world)]
    with world.opened() as ws:
        ws = dataclasses.replace(ws, now=lambda: world.now + dt.timedelta(days=30))
        pipeline.release(ws, "public", world.now, {})
        assert [a["list"] for a in ws.store.alerts("public")] == ["partners"]
    assert outbox(world) == []


def test_the_list_and_the_feed_tell_what_was_told_and_a_hostile_name_is_text(world):
    hostile = '<script>alert("1")</script> & \x07 ]]>'
    world.shocks = [told(world, severity=4, unit=hostile)]
    world.release()
    world.now += dt.timedelta(days=1)
    world.shocks = [later(world.shocks[0], 0, state="withdrawn", verdict="error", why=hostile)]
    made = world.release()
    client = create_app(world.data / "public", world.data / "status.json").test_client()
    answer = client.get("/feed.atom")
    assert answer.status_code == 200 and answer.content_type == "application/atom+xml"
    assert client.get("/feed.atom", headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    feed = feedparser.parse(answer.data)
    assert not feed.bozo and len(feed.entries) == 2 and feed.feed.title == "Two metals: alerts"
    newest = feed.entries[0]
    assert newest.title.startswith("Cancelled: nickel metal outside China") and newest.link.startswith(
        "https://example.org"
    )
    assert "<script>" not in answer.text and "\x07" not in answer.text
    assert len({e.id for e in feed.entries}) == 2 and feed.entries[0].updated > feed.entries[1].updated
    listed = client.get("/v1/alerts").json
    assert [a["msgType"] for a in listed["alerts"]] == ["Cancel", "Alert"] and listed["open"] == []
    whole = client.get(listed["alerts"][0]["href"]).json["alerts"]
    assert [a["identifier"] for a in whole] == [a["identifier"] for a in reversed(listed["alerts"])]
    assert whole[1]["references"] == [whole[0]["identifier"]] and listed["feed"] == "/feed.atom"
    assert "alerts/2026.json" in made.manifest["files"] and "example.net" not in json.dumps(listed)


def test_addresses_of_subscribers_are_in_no_release_nor_kept_with_it(world):
    world.shocks = [told(world)]
    made = world.release()
    with world.opened() as ws:
        kept = ws.archive.get(made.manifest["operation"]["sha256"])
    assert b"ministry@example.net" not in kept and b"sources" in kept
    assert not [f for f in made.folder.rglob("*") if f.is_file() and b"ministry@example.net" in f.read_bytes()]


# ---------------------------------------------------------------------------------------- the operator


def operator(world):
    with world.opened() as ws:
        return [(a["key"], a["state"]) for a in ws.store.alerts("operator")]


def test_a_slip_that_was_found_reaches_the_operator_and_no_partner(world):
    world.release()
    with world.opened() as ws:
        slip = Finding(
            "decimal", "warning", "alpha-nickel from 2026-10 on: 12 USD/t looks wrong", evidence={"score": 1.4}
        )
        feed = Finding("feed-stale", "warning", "from 2026-11-20 on 9 series of beta look wrong at once (stale)")
        ws.store.add_findings(world.now, "alpha", [slip, Finding("fetch", "warning", "timed out")])
        ws.store.add_findings(world.now, "beta", [feed])
        pipeline.alert_operator(ws)
        pipeline.alert_operator(ws)
        rows = [(r["subscriber"], r["channel"]) for r in ws.store.outbox()]
    keys = [key for key, _ in operator(world) if key in ("finding:alpha:decimal", "finding:beta:feed-stale")]
    assert len(keys) == 2 and {name for name, _ in rows} == {"Duty"}


def test_a_source_that_cannot_be_read_or_brings_nothing_new_is_told_and_when_it_is_back(world):
    world.release()
    with world.opened() as ws:
        for name in world.operation.sources:
            url = world.operation.sources[name].url
            ws.store.record_visit(
                name, url, world.now, "failed" if name == "alpha" else "unchanged", "HTTP 503\r\nX: y"
            )
    world.now += dt.timedelta(hours=30)
    with world.opened() as ws:
        pipeline.alert_operator(ws)
    assert ("failing:alpha", "open") in operator(world)
    with world.opened() as ws:
        ws.store.record_visit("alpha", world.operation.sources["alpha"].url, world.now, "unchanged")
        pipeline.alert_operator(ws)
    assert ("failing:alpha", "closed") in operator(world)
    world.now += dt.timedelta(days=60)
    with world.opened() as ws:
        pipeline.alert_operator(ws)
    assert ("stale:alpha", "open") in operator(world)


def test_a_release_that_is_late_and_an_outbox_that_ages_are_told(world):
    world.shocks = [told(world)]
    world.release()
    friday = market_days(world.now.date(), 2)
    assert ("late:public", "open") not in operator(world)
    world.now = dt.datetime.combine(friday[1], world.now.timetz()) + dt.timedelta(minutes=30)
    with world.opened() as ws:
        pipeline.alert_operator(ws)
    assert ("late:public", "open") not in operator(world), "within its minutes"
    world.now += dt.timedelta(minutes=45)
    with world.opened() as ws:
        pipeline.alert_operator(ws)
        state = pipeline.status(ws, public=True)["alerts"]
    assert {("late:public", "open"), ("outbox:aged", "open")} <= set(operator(world))
    assert state["open"]["partners"] == 1 and state["outbox"]["waiting"] >= 2 and state["oldest_minutes"] > 60
    assert "@" not in json.dumps(state)
    world.release()
    assert ("late:public", "closed") in operator(world)


# ---------------------------------------------------------------------------------------- by hand


@pytest.fixture
def command(world, monkeypatch):
    """The command line over the world's data folder and its clock."""
    monkeypatch.setattr(
        service, "_settings", lambda _: (world.data, world.operation, config.Methodologies((world.methodology,)))
    )
    monkeypatch.setattr(service, "_now", lambda: world.now)

    def run(*given, fails=False):
        result = CliRunner().invoke(service.main, ["--quiet", "alerts", *given], catch_exceptions=False)
        assert (result.exit_code != 0) == fails, result.output
        return result.output

    return run


def test_alerts_are_listed_shown_acknowledged_and_cancelled_by_hand(world, command):
    world.shocks = [told(world)]
    world.release()
    (row,) = (r for r in json.loads(command("list", "--json"))["alerts"] if r["list"] == "partners")
    name = row["identifier"]
    assert name in command() and "Ministry" in command("show", name)
    command("ack", name, "--actor", "M. Curie", "--comment", "seen to")
    assert "acknowledged by M. Curie" in command("show", name)
    world.now += dt.timedelta(hours=1)
    assert "1 in the outbox" in command("cancel", name, "--reason", "wrong unit", "--actor", "M. Curie")
    assert outbox(world) == [("Ministry", "Alert"), ("Ministry", "Cancel")]
    assert "cancelled already" in command("cancel", name, "--reason", "x", "--actor", "y", fails=True)
    assert "no alert nothing" in command("show", "nothing", fails=True)
    assert name in command("list", "--all") and f"{name}.2" not in command("list")
    whole = json.loads(command("show", name, "--json"))
    assert [a["msgType"] for a in whole["alerts"]] == ["Alert", "Cancel"] and len(whole["outbox"]) == 2


def test_a_message_is_sent_again_under_its_id_and_only_when_it_has_gone(world, command):
    world.shocks = [told(world)]
    world.release()
    with world.opened() as ws:
        (row,) = [r for r in ws.store.outbox() if r["subscriber"] == "Ministry"]
        assert "nothing that was sent" in command("resend", row["alert"], fails=True)
        ws.store.db.execute(
            "UPDATE outbox SET state = 'failed', attempts = 9, outcome = '550' WHERE id = ?", (row["id"],)
        )
        assert "nothing that was sent" in command("resend", row["alert"], "--to", "Cobalt", fails=True)
        command("resend", row["alert"])
        again = next(r for r in ws.store.outbox() if r["id"] == row["id"])
    assert again["message_id"] == row["message_id"] and (again["state"], again["attempts"]) == ("waiting", 0)


def test_a_test_sends_a_marked_exercise_to_one_subscriber_at_once(world, command):
    nobody = RULES.model_copy(update={"smtp": Smtp(host="127.0.0.1", port=mail_server.free_port(), security="none")})
    world.operation = world.operation.model_copy(update={"alerts": nobody})
    assert "did not arrive" in command(
        "test", "ministry", fails=True
    )  # the server is down: it goes out when that is back
    with world.opened() as ws:
        ws.store.set_note("pause email", "")
    with mail_server.serving(None) as server:
        there = nobody.model_copy(update={"smtp": Smtp(host="127.0.0.1", port=server.port, security="none")})
        world.operation = world.operation.model_copy(update={"alerts": there})
        world.now += dt.timedelta(minutes=1)
        assert "2 sent" in command("test", "ministry")
    first, _ = server.messages
    assert first["Subject"].startswith("EXERCISE") and "ministry@example.net" in first["To"]
    with world.opened() as ws:
        made, _ = [a for a in ws.store.alerts("operator") if a["status"] == "Exercise"]
        (row,) = ws.store.outbox(made["identifier"])
    assert (row["subscriber"], row["state"], row["digest"]) == ("Ministry", "sent", "")
    assert made["identifier"] not in command("list") and made["identifier"] in command("list", "--all")
    assert "there are: Ministry, Cobalt, Duty" in command("test", "Nobody", fails=True)


def test_an_address_that_was_refused_is_allowed_again(world, command):
    with world.opened() as ws:
        ws.store.suppress("ministry@example.net", world.now, "550 no such user")
        ws.store.suppress("ministry@example.net", world.now, "another reason")
    assert "550 no such user" in command("list")
    command("allow", "ministry@example.net")
    assert "is not suppressed" in command("allow", "ministry@example.net", fails=True)


def test_an_exercise_without_a_channel_says_what_is_missing(world):
    world.operation = world.operation.model_copy(update={"alerts": Alerts()})
    with world.opened() as ws, pytest.raises(StoreError, match=r"alerts\.from"):
        pipeline.exercise(ws, "Ministry")


# ---------------------------------------------------------------------------------------- the way out


def test_a_wish_to_unsubscribe_is_left_for_the_outbox_and_a_look_at_the_page_is_no_wish(tmp_path):
    client = create_app(tmp_path / "public", tmp_path / "status.json").test_client()
    token = "0a" * 20
    assert client.get(f"/unsubscribe/{token}").status_code == 200 and not (tmp_path / "unsubscribe").exists()
    assert client.post(f"/unsubscribe/{token}", data={"List-Unsubscribe": "One-Click"}).status_code == 200
    assert [p.name for p in (tmp_path / "unsubscribe").iterdir()] == [token]
    for wrong in ("../../etc/passwd", "0A" * 20, "0a" * 19, f"{token}0", f"{token}%0a"):
        assert client.post(f"/unsubscribe/{wrong}").status_code in (404, 405)
    assert len(list(tmp_path.rglob("*"))) == 2
