"""What changed between releases: the file in each, the answers of the endpoint, and the causes that they name."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import made_world
import pandas as pd
import pytest
from made_world import World

from pricing import causes, documents, review
from pricing.documents import changes as written
from pricing.judgement import Judgement
from pricing.published import Change, Value
from pricing.web.app import create_app

MARKETS = ("nickel/metal/XCN", "cobalt/metal/XCN")
DAY = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Four releases: the first round, the second with a revision, a price suspended, and that revoked."""
    with made_world.serving(tmp_path_factory.mktemp("world")) as made:
        made.collect()
        made.release()
        made.second_round()
        made.collect()
        made.release()
        made.now += DAY
        with made.opened() as ws:
            review.override(ws, "suspend", MARKETS[0], "monthly", "2025-03", "market-closed", "ann")
        made.release()
        made.now += DAY
        with made.opened() as ws:
            review.revoke(ws, 1, "ended", "ann")
        made.release()
        yield made


@pytest.fixture(scope="module")
def client(world: World) -> Any:
    return create_app(world.data / "public", world.data / "status.json").test_client()


def shown(client: Any, release: int) -> dict[tuple[str, ...], list[Any]]:
    """Every figure of a release by the filtered answers, which know nothing of changes."""
    found: dict[tuple[str, ...], list[Any]] = {}
    addresses = [f"prices/{m}" for m in MARKETS] + ["indices/two-metals"]
    for address in addresses:
        for frequency in ("monthly", "daily", "ten-day"):
            answer = client.get(f"/v1/{address}?asOf=release:{release}&frequency={frequency}")
            if answer.status_code == 404:
                continue
            meta = answer.json["meta"]
            for row in answer.json["values"]:
                key = meta["kind"], meta["id"], frequency, meta["unit"], row["period"]
                found[key] = [row["value"], row["unrounded"], row["status"], row.get("grade")]
    assert found
    return found


def listed(client: Any, query: str) -> list[dict[str, Any]]:
    """All pages of an answer."""
    rows: list[dict[str, Any]] = []
    address = f"/v1/changes?{query}"
    while address:
        answer = client.get(address)
        assert answer.status_code == 200, answer.text
        rows += answer.json["changes"]
        address = answer.json["next"]
    return rows


def key_of(row: dict[str, Any]) -> tuple[str, ...]:
    return row["kind"], row["id"], row["frequency"], row["unit"], row["period"]


def content(one: dict[str, Any] | None) -> list[Any] | None:
    return one and [one["value"], one["unrounded"], one["status"], one.get("grade")]


@pytest.mark.parametrize(("since", "until"), [(a, b) for b in range(1, 5) for a in range(b + 1)])
@pytest.mark.parametrize("limit", [7, 1000])
def test_applied_to_one_release_the_answer_gives_the_other(client: Any, since: int, until: int, limit: int) -> None:
    if limit == 7 and since == 0:
        limit = 150  # the whole first release, in fewer pages
    state = shown(client, since) if since else {}
    rows = listed(client, f"since={since}&asOf=release:{until}&limit={limit}")
    for row in rows:
        assert state.pop(key_of(row), None) == content(row["before"]), row
        assert row["change"] != "new" or row["before"] is None
        if row["after"] is not None:
            state[key_of(row)] = content(row["after"])
    assert state == shown(client, until)


def test_a_revision_and_a_withdrawal_are_told_with_their_reason(client: Any) -> None:
    rows = {key_of(row): row for row in listed(client, "since=1&asOf=release:2")}
    june = rows["price", MARKETS[0], "monthly", "USD/t", "2026-06"]
    assert june["change"] == "revised" and june["release"] == 2
    assert june["reasons"] == [{"release": 2, "reason": "quotations"}]
    assert june["before"]["since_release"] == 1 and june["after"]["since_release"] == 2
    assert june["before"]["unrounded"] != june["after"]["unrounded"]
    added = [row for row in rows.values() if {"release": 2, "reason": "new-period"} in row["reasons"]]
    assert added and all(row["change"] == "new" and row["before"] is None for row in added)
    derived = [row for row in rows.values() if row["kind"] == "index" and row["change"] == "revised"]
    assert derived and all(row["reasons"] == [{"release": 2, "reason": "inputs"}] for row in derived)

    first, *_ = suspended = listed(client, "since=2&asOf=release:3")
    march = [row for row in suspended if row["kind"] == "price"]
    assert [(row["period"], row["change"], row["after"], row["reasons"]) for row in march] == [
        ("2025-03", "withdrawn", None, [{"release": 3, "reason": "decision", "decision": 1}])
    ]
    assert march[0]["before"] is not None and first["release"] == 3
    ended = [row for row in listed(client, "since=3") if row["kind"] == "price"]
    reasons = [{"release": 4, "reason": "decision", "decision": 1}, {"release": 4, "reason": "late-period"}]
    assert [(row["period"], row["change"], row["reasons"]) for row in ended] == [("2025-03", "new", reasons)]
    assert listed(client, "since=2") == [], "what was changed and changed back is no change"


def test_the_file_of_a_release_says_what_the_answer_says(world: World, client: Any) -> None:
    for release in (2, 3, 4):
        raw = (world.data / f"public/releases/{release:06d}/changes.json").read_bytes()
        file = json.loads(raw)
        rows = sorted(listed(client, f"since={release - 1}&asOf=release:{release}"), key=key_of)
        assert file["since"] == release - 1 and file["changes"] == rows and file["counted"] == []
        assert sum(file["counts"].values()) == len(rows)
        assert client.get(f"/v1/changes?asOf=release:{release}").data == raw
    first = json.loads((world.data / "public/releases/000001/changes.json").read_bytes())
    assert first["since"] is None and first["counts"]["new"] == len(shown(client, 1))
    assert client.get("/v1/changes").json == file


def test_since_is_a_release_or_an_instant_and_nothing_else_is_passed_over(client: Any) -> None:
    whole = client.get("/v1/changes?since=1&limit=1000").json["changes"]
    assert whole
    for same in ("release:1", "2026-11-20T14:00:00Z", "2026-11-22", "2026-11-20T15:00:00%2B01:00"):
        assert client.get(f"/v1/changes?since={same}&limit=1000").json["changes"] == whole
    every = client.get("/v1/changes?since=2020-01-01&limit=1000").json
    assert every["meta"]["since"] is None and every["changes"][0]["before"] is None
    for query, status, says in (
        ("since=9", 404, "no release 9"),
        ("since=release:x", 404, "not the number of a release"),
        ("since=yesterday", 400, "since='yesterday' is not an instant"),
        ("since=3&asOf=release:1", 400, "since is release 3, after asOf, release 1"),
        ("limit=3", 400, "need since"),
        ("since=1&limit=1001", 400, "from 1 to 1000"),
        ("since=1&after=x", 400, "no place in the list"),
        ("since=1&after=2.1.x", 400, "is not a period"),
        ("since=1&after=2.1.", 400, "is not a period"),
        ("updatedAfter=1", 400, "meant: since?"),
    ):
        answer = client.get(f"/v1/changes?{query}")
        assert (answer.status_code, says in answer.json["detail"]) == (status, True), (query, answer.json)


def test_who_has_the_answer_gets_304_and_another_page_is_another_answer(client: Any) -> None:
    first = client.get("/v1/changes?since=1&limit=3")
    assert (
        client.get("/v1/changes?since=1&limit=3", headers={"If-None-Match": first.headers["ETag"]}).status_code == 304
    )
    second = client.get(first.json["next"], headers={"If-None-Match": first.headers["ETag"]})
    assert second.status_code == 200 and second.headers["ETag"] != first.headers["ETag"]


# -------------------------------------------------------------------------------------- the file


def test_many_new_figures_and_series_that_ended_are_counted_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "FEW", 2)
    eligible = SimpleNamespace(series={}, customs=frozenset())
    edition: Any = SimpleNamespace(source_of={}, eligible=eligible, meta=lambda name, used: {"id": name})
    value = Value("2026-01", 1.0, 1.0, "normal", None, 1)

    def change(name: str, period: str, what: Any, reason: str) -> Change:
        before, after = (None, value) if what == "new" else (value, None)
        return Change("price", name, "monthly", "USD/t", period, what, before, after, ((2, reason),), (2, 1, period))

    new = [change("tin", f"2026-0{m}", "new", "new-period") for m in (3, 1, 2)]
    ended = [change("lead", f"2025-0{m}", "withdrawn", "no-longer-published") for m in (1, 2)]
    gone = change("zinc", "2025-01", "withdrawn", "quotations")
    few = json.loads(documents.changes_file(edition, 1, [*new[:2], *ended, gone]))
    assert [(one["id"], one["period"]) for one in few["changes"]] == [
        ("tin", "2026-01"), ("tin", "2026-03"), ("zinc", "2025-01"),
    ]  # fmt: skip
    assert [(one["id"], one["change"], one["count"]) for one in few["counted"]] == [("lead", "withdrawn", 2)]
    many = json.loads(documents.changes_file(edition, 1, [*new, *ended, gone]))
    assert [one["id"] for one in many["changes"]] == ["zinc"] and many["counts"]["new"] == 3
    (tin,) = [one for one in many["counted"] if one["id"] == "tin"]
    assert (tin["count"], tin["first"], tin["last"]) == (3, "2026-01", "2026-03")


# ---------------------------------------------------------------------------------------- causes


def observed(*rows: tuple[str, str, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["series", "period", "vintage"])


def test_a_price_is_traced_to_the_quotations_of_its_market_and_period() -> None:
    def series(kind: str, mineral: str) -> Any:
        return SimpleNamespace(kind=kind, mineral=mineral, stage="metal", zone="XCN")

    register = {"a": series("price", "tin"), "b": series("price", "zinc"), "usd": series("fx", "tin")}
    same = [("a", "2026-03", 1), ("b", "2026-03", 1)]
    before = observed(*same, ("a", "2026-01-05", 1), ("a", "2025-12", 1), ("usd", "2026-02", 1))
    now = observed(*same, ("a", "2026-01-05", 2), ("b", "2026-04", 2), ("usd", "2026-02", 2))
    found = causes.between(before, now, register, [], [], method=False)
    traced = {("tin/metal/XCN", p) for p in ("2026-01-05", "2026-01", "2025-12")} | {("zinc/metal/XCN", "2026-04")}
    assert found.quotations == traced
    assert list(found("price", "tin/metal/XCN", "monthly", "2026-01")) == ["quotations"]
    assert list(found("gap", "tin/metal/XCN", "monthly", "2026-01")) == []
    assert list(found("price", "zinc/metal/XCN", "monthly", "2026-01")) == []


def test_a_decision_is_named_when_it_begins_and_when_it_ends_and_nowhere_else() -> None:
    def override(number: int, first: str, last: str, frequency: str) -> Judgement:
        return Judgement(number, "suspend", "tin", frequency, first, last, "market-closed", "2026-01-01")

    stays, ends = override(1, "2026-01", "2026-01", "monthly"), override(2, "2026-01-20", "2026-02-03", "daily")
    begins = override(3, "2026-02", "2026-03", "monthly")
    nothing = observed()
    found = causes.between(nothing, nothing, {}, [stays, ends], [stays, begins], method=True)
    named = {
        (frequency, period): list(found("price", "tin", frequency, period))
        for frequency, period in (
            ("monthly", "2026-01"), ("monthly", "2026-02"), ("monthly", "2026-04"),
            ("daily", "2026-01-20"), ("daily", "2026-01-19"), ("daily", "2026-02-04"),
        )
    }  # fmt: skip
    assert named == {
        ("monthly", "2026-01"): ["decision:2", "method"],
        ("monthly", "2026-02"): ["decision:2", "decision:3", "method"],
        ("monthly", "2026-04"): ["method"],
        ("daily", "2026-01-20"): ["decision:2", "method"],
        ("daily", "2026-01-19"): ["method"],
        ("daily", "2026-02-04"): ["method"],
    }
    assert list(found("price", "zinc", "monthly", "2026-01")) == ["method"]
    assert list(found("index", "tin", "monthly", "2026-01")) == ["method"]
