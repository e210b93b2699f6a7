"""The log of decisions: who may decide what, with which reason, and what stands."""

from __future__ import annotations

import datetime as dt
import sqlite3
from contextlib import closing

import pytest
from test_figures import method, operation, source

from pricing import decisions
from pricing.config import Operation, Review
from pricing.decisions import REASONS, Confirm, OnFinding, Override, Revoke, standing
from pricing.errors import DecisionError, StoreError
from pricing.store import Store, iso

NOW = dt.datetime(2026, 11, 23, 14, tzinfo=dt.UTC)
MARKET = "tin/metal/XCN"


def head(number, kind, reason, actor="ann", persons=1):
    at = iso(NOW + dt.timedelta(minutes=number))
    return {
        "number": number,
        "at": at,
        "actor": actor,
        "persons": persons,
        "kind": kind,
        "reason": reason,
        "reason_text": REASONS[reason][0],
    }


def override(number=1, kind="suspend", reason="unrepresentative", actor="ann", persons=1, **facts) -> Override:
    about = {"market": MARKET, "frequency": "monthly", "first": "2026-10", "last": "2026-10"}
    return Override(**head(number, kind, reason, actor, persons), **about | facts)


def confirmed(number, decision, actor="ben"):
    return Confirm(
        number=number, at=iso(NOW + dt.timedelta(minutes=number)), actor=actor, kind="confirm", decision=decision
    )


def revoked(number, decision, persons=1):
    return Revoke(**head(number, "revoke", "mistaken", persons=persons), decision=decision)


def accepted(number=1, kind="accept", reason="confirmed-by-publisher", persons=1) -> OnFinding:
    facts = {"finding": 7, "check": "period-to-come", "source": "free", "series": "free-tin", "period": "2026-12"}
    facts |= {"value": 5.0, "document": "ab" * 32, "read_by": "cd" * 32}
    return OnFinding(**head(number, kind, reason, persons=persons), **facts)


def refused(one, now=(), made=None) -> str:
    with pytest.raises(DecisionError) as caught:
        decisions.check_override(one, standing(now), made or operation(), method())
    return str(caught.value)


# --------------------------------------------------------------------------------------- records


def test_every_record_reads_back_from_its_line_and_every_reason_fits_some_kind():
    log = (override(1), override(2, "price", "no-usable-input", price=5.0, comment="x"), accepted(3), revoked(4, 1))
    log += (confirmed(5, 2),)
    lines = [decisions.line(one) for one in log]
    assert decisions.read(lines) == log and all("\n" not in line for line in lines)
    kinds = {"accept", "reject", "exclude", "include", "suspend", "price", "revoke"}
    assert set().union(*(fits for _, fits in REASONS.values())) == kinds
    assert set(REASONS) == set(decisions.Reason.__args__)
    for kind in kinds:
        with pytest.raises(DecisionError, match="is no reason to"):
            decisions.reasoned(kind, "because", "x")
    with pytest.raises(DecisionError, match="--comment"):
        decisions.reasoned("price", "no-usable-input", " ")


# ----------------------------------------------------------------------------------- two persons


def test_a_decision_of_two_persons_takes_effect_with_the_second_and_not_with_the_same_one():
    log = (override(1, persons=2),)
    assert standing(log).judgements == () and set(standing(log).proposed) == {1}
    with pytest.raises(DecisionError, match="proposed by ann: another person"):
        decisions.check_confirm(standing(log), 1, "ann")
    with pytest.raises(DecisionError, match="decision 3 waits for no second person; those that do: 1"):
        decisions.check_confirm(standing(log), 3, "ben")
    assert decisions.check_confirm(standing(log), 1, "ben") == log[0]
    (one,) = standing((*log, confirmed(2, 1))).judgements
    assert (one.decision, one.actors, one.since) == (1, ("ann", "ben"), iso(NOW + dt.timedelta(minutes=2)))
    assert one.kind == "suspend" and one.reason == "unrepresentative"


def test_the_end_of_an_override_takes_as_many_persons_and_a_proposal_is_withdrawn_by_one():
    log = (override(1, persons=2), confirmed(2, 1))
    assert decisions.check_revoke(standing(log), 1) == 2
    asked = (*log, revoked(3, 1, persons=2))
    assert [j.decision for j in standing(asked).judgements] == [1], "still in force"
    with pytest.raises(DecisionError, match="proposed already, as decision 3"):
        decisions.check_revoke(standing(asked), 1)
    assert standing((*asked, confirmed(4, 3))).judgements == ()
    assert decisions.check_revoke(standing(log[:1]), 1) == 1
    withdrawn = standing((log[0], revoked(2, 1)))
    assert withdrawn.judgements == () and not withdrawn.proposed
    with pytest.raises(DecisionError, match="no decision 1 in force"):
        decisions.check_revoke(withdrawn, 1)


def test_what_was_accepted_is_history_and_what_was_rejected_can_be_asked_again():
    now = standing((accepted(1), accepted(2, "reject", "publisher-error")))
    assert now.accepted == {("free-tin", "2026-12", 5.0)}
    assert now.rejected == {("free-tin", "2026-12", 5.0, "cd" * 32)}
    with pytest.raises(DecisionError, match="which is history"):
        decisions.check_revoke(now, 1)
    assert decisions.check_revoke(now, 2) == 1
    assert not standing((accepted(1, persons=2),)).accepted


def test_only_the_actors_of_the_settings_may_decide_where_there_are_any():
    decisions.check_actor(Review(), "anybody")
    decisions.check_actor(Review(actors=("ann", "ben")), "ben")
    with pytest.raises(DecisionError, match="carl may not decide: review.actors in config.toml names ann, ben"):
        decisions.check_actor(Review(actors=("ann", "ben")), "carl")
    with pytest.raises(DecisionError, match="it is empty"):
        decisions.check_actor(Review(), " ")
    with pytest.raises(ValueError, match="two persons, and review.actors names one"):
        Review.model_validate({"persons": {"override": 2}, "actors": ["ann"]})


# ------------------------------------------------------------------------------------- overrides

SATURDAY = {"first": "2026-11-21", "last": "2026-11-21"}
DAILY = Operation(sources={"free": source("free", "open", {"frequency": "daily"})})


@pytest.mark.parametrize(
    ("facts", "made", "why"),
    [
        ({"market": "tin/metal/EU"}, None, "the methodology has no market 'tin/metal/EU'; there are copper/metal/XCN"),
        ({"first": "2026-13", "last": "2026-13"}, None, "'2026-13' is no monthly period such as 2026-11"),
        ({"first": "2026-10-01", "last": "2026-10-01"}, None, "is no monthly period"),
        ({"frequency": "ten-day", "first": "2026-10-30", "last": "2026-10-31"}, None, "'2026-10-30' is no ten-day"),
        ({"first": "2026-10", "last": "2026-09"}, None, "the span ends in 2026-09, before it begins"),
        ({"frequency": "daily", **SATURDAY}, None, "no daily determinations; it has monthly"),
        ({"kind": "exclude", "reason": "publisher-error", "origin": "fred"}, None, "'fred' is no origin of"),
        ({"kind": "exclude", "reason": "publisher-error"}, None, "is no origin of"),
        ({"origin": "free"}, None, "is about the whole market"),
        ({"kind": "price", "price": -1.0}, None, "a price is a number above zero; got -1.0"),
        ({"kind": "price"}, None, "above zero; got None"),
        ({"price": 5.0}, None, "to suspend names no price"),
        ({"kind": "price", "price": 5.0, "first": "2026-09"}, None, "one period at a time"),
        ({"kind": "price", "price": 5.0, "first": "2026-12", "last": "2026-12"}, None, "2026-12 is not over"),
        ({"kind": "price", "price": 5.0, "first": "2026-11", "last": "2026-11"}, None, "2026-11 is not over"),
        ({"kind": "price", "price": 5.0, "frequency": "daily", **SATURDAY}, DAILY, "2026-11-21 is no weekday"),
    ],
)  # fmt: skip
def test_an_override_that_cannot_take_effect_is_refused_with_the_reason(facts, made, why):
    assert why in refused(Override(**override().model_dump() | facts), made=made)


@pytest.mark.parametrize("price", [float("nan"), float("inf"), 0.0])
def test_what_is_no_number_is_no_price(price):
    with pytest.raises(DecisionError, match="above zero"):
        decisions.check_price("price", price)


def test_two_overrides_of_the_same_thing_are_refused_since_their_order_would_decide():
    standing_one = (override(1, first="2026-08", last="2026-10"),)
    assert "decision 1 (suspend, 2026-08 to 2026-10) is about the same" in refused(override(2), now=standing_one)
    priced = override(2, "price", price=5.0)
    assert "revoke it first" in refused(priced, now=standing_one)
    assert "revoke it first" in refused(priced, now=(override(1, persons=2),))
    exclude = override(2, "exclude", "publisher-error", origin="free")
    for now in ((), standing_one, (override(1, "exclude", "publisher-error", origin="derived"),)):
        decisions.check_override(exclude, standing(now), operation(), method())
    decisions.check_override(
        override(2, first="2026-11", last="2026-11"), standing(standing_one), operation(), method()
    )
    decisions.check_override(override(3), standing((*standing_one, revoked(2, 1))), operation(), method())


def test_a_month_of_days_may_be_suspended_as_a_whole_and_no_origin_of_it_excluded():
    decisions.check_override(override(), standing(()), DAILY, method())
    exclude = override(kind="exclude", reason="publisher-error", origin="free")
    assert "has no monthly determinations; it has daily" in refused(exclude, made=DAILY)


# ----------------------------------------------------------------------------------------- store


def test_the_log_grows_without_a_gap_in_order_of_time_and_is_read_as_of_any_instant():
    with closing(Store(":memory:")) as store:
        for n in (1, 2, 3):
            store.add_decision(n, NOW + dt.timedelta(hours=n), f"line {n}")
        assert store.decisions() == ["line 1", "line 2", "line 3"]
        assert store.decisions(NOW) == [] and store.decisions(NOW + dt.timedelta(hours=2)) == ["line 1", "line 2"]
        for number in (3, 5):
            with pytest.raises(StoreError, match="the log ends with 3"):
                store.add_decision(number, NOW + dt.timedelta(hours=4), "x")
        with pytest.raises(StoreError, match="the clock says"):
            store.add_decision(4, NOW, "x")
        store.record_release("public", 1, NOW + dt.timedelta(hours=9), NOW, "m")
        with pytest.raises(StoreError, match="a decision or a release of 2026-11-23T23"):
            store.add_decision(4, NOW + dt.timedelta(hours=9), "x")
        assert len(store.decisions()) == 3


@pytest.mark.parametrize(
    "hand",
    [
        "UPDATE decision SET record = 'x'",
        "DELETE FROM decision",
        "INSERT OR REPLACE INTO decision VALUES (1, 1, 'x')",
        "INSERT INTO decision VALUES (9, 1, 'x')",
        "UPDATE observation SET value = 1",
        "DELETE FROM observation WHERE value = 2",
    ],
)
def test_the_database_itself_refuses_to_change_what_was_decided_or_observed(hand):
    with closing(Store(":memory:")) as store:
        store.add_decision(1, NOW, "line 1")
        document = store.add_document("free", "ab" * 32, url="u", retrieved_at=NOW, size=1)
        store.add_observation(document, "free", NOW, "free-tin", "2026-10", 2.0, "normal")
        with pytest.raises(sqlite3.IntegrityError, match="append-only|without a gap"):
            store.db.execute(hand)
        assert store.decisions() == ["line 1"] and store.observations()["value"].tolist() == [2.0]
