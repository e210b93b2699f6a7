"""Who hears of what, once: the life of an alert, who is told, and what the operator hears."""

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_shocks import OPEN, RULES, day, later, occasion, shock, subscriber

from pricing.alerts import SEVERITY, Condition, Ground, cancelled, deliveries, exercise, hears, of_operation, of_shocks
from pricing.alerts import rank as rank_of


class Story:
    """Releases day by day; what is told is kept, as the store keeps it."""

    def __init__(self, **changes):
        self.told, self.changes = [], changes

    def release(self, n, *shocks):
        found = of_shocks(list(shocks), self.told, occasion(n, list(shocks), **self.changes))
        self.told += found
        return found


def kinds(messages):
    return [(m["msgType"], m["state"]) for m in messages]


# ------------------------------------------------------------------------------------------ its life


def test_an_alert_opens_once_and_says_what_the_protocol_asks():
    story = Story()
    (message,) = story.release(0, shock())
    assert story.release(1, shock()) == []
    assert message["msgType"] == "Alert" and message["references"] == [] and message["thread"] == message["identifier"]
    assert (message["severity"], message["certainty"], message["urgency"]) == ("Severe", "Likely", "Immediate")
    assert message["status"] == "Actual" and message["list"] == "partners" and message["alert_allowed"]
    assert message["onset"] == "2026-03-02" and message["expires"] > message["sent"]
    assert "gallium metal outside China +12 %" in message["headline"]
    assert message["links"]["release"] == "https://example.org/v1/releases/1"
    assert message["links"]["records"] == ["https://example.org/v1/prices/gallium/metal/XCN/daily/2026"]
    assert message["shocks"][0]["public_elsewhere"] and message["published_by"] == ["A house"]
    assert not any(c in message["identifier"] for c in " ,<&"), "what the protocol forbids in an identifier"


def test_it_is_updated_when_worse_ends_when_over_for_long_and_its_messages_refer_to_each_other():
    story, one = Story(), shock()
    story.release(0, one)
    worse = later(one, 1, severity=4, severity_most=4, change_percent=25.0)
    (update,) = story.release(1, worse)
    assert update["msgType"] == "Update" and "more severe" in update["why"] and update["severity"] == "Extreme"
    over = later(worse, 8, state="over")
    assert story.release(8, over) == [], "it may come back within the hours of reopening"
    assert story.release(10, over) == []
    (end,) = story.release(11, over)
    assert end["state"] == "closed" and end["response"] == "AllClear" and end["references"] == [
        m["identifier"] for m in story.told[:2]
    ]  # fmt: skip
    assert story.release(12, over) == [] and {m["thread"] for m in story.told} == {end["thread"]}
    assert [m["version"] for m in story.told] == [1, 2, 3]


def test_it_is_cancelled_with_the_reason_when_it_was_an_error():
    story, one = Story(), shock()
    story.release(0, one)
    gone = later(one, 0.5, why="2026-03-02 is 100 USD/t now; it was flagged at 112", state="withdrawn", verdict="error")
    (cancel,) = story.release(0.5, gone)
    assert kinds([cancel]) == [("Cancel", "cancelled")], "an error does not wait"
    assert cancel["why"].startswith("gallium metal outside China: withdrawn, 2026-03-02 is 100 USD/t now")
    assert cancel["certainty"] == "Unlikely"
    assert story.release(1, gone) == []


def test_a_verdict_of_error_cancels_for_partners_and_is_told_to_the_operator():
    story, one = Story(), shock()
    story.release(0, one)
    slip = later(one, 1, kind="data", verdict="error", why="nothing moved along")
    found = story.release(1, slip)
    assert sorted((m["list"], m["msgType"]) for m in found) == [("operator", "Alert"), ("partners", "Cancel")]
    back = later(slip, 2, verdict="market", certainty="observed", why="3 of 3 origins moved along")
    assert story.release(2, back) and story.told[-1]["list"] == "operator", "for partners it waits for certainty"
    (again,) = (m for m in story.release(5, back) if m["list"] == "partners")
    assert kinds([again]) == [("Update", "open")] and "stands after all" in again["why"]


@pytest.mark.parametrize("verdict", ["error", "diverging sources"])
def test_doubtful_prices_are_the_operators_and_open_for_partners_when_the_market_did_it(verdict):
    story, one = Story(), shock(verdict=verdict, certainty="possible")
    (message,) = story.release(0, one)
    assert message["list"] == "operator" and message["event"] == "Doubtful price" and not message["why"]
    market = later(one, 1, verdict="market", certainty="observed")
    found = story.release(1, market)
    assert sorted((m["list"], m["state"]) for m in found) == [("operator", "closed"), ("partners", "open")]


def test_what_is_small_old_or_withdrawn_at_first_sight_is_not_told():
    story = Story()
    assert story.release(0, shock(severity=1)) == []
    assert story.release(0, shock(hindsight=True)) == []
    assert story.release(0, shock(state="withdrawn")) == []
    assert story.release(3, shock(n=0, state="over")) == [], "over since an earlier release that did not tell it"
    assert len(story.release(0, shock(state="over"))) == 1, "over before anybody knew: still news"


def test_it_opens_when_a_shock_grows_to_the_severity_that_is_told():
    story, one = Story(), shock(severity=1, severity_most=1)
    assert story.release(0, one) == []
    assert kinds(story.release(2, later(one, 2, severity=2))) == [("Alert", "open")]


def test_a_price_that_flaps_for_two_months_sends_two_messages():
    """On and off every few days, each time a shock of its own: it opens once and ends once."""
    story, shocks = Story(), []
    for n in range(60):
        if n % 7 == 0 and n < 50:
            shocks.append(shock(n=n, direction="up" if n % 2 else "down"))
        shocks = [
            later(s, n, state="over") if s["state"] == "open" and n - k * 7 >= 5 else s for k, s in enumerate(shocks)
        ]
        story.release(n, *shocks)
    assert kinds(story.told) == [("Alert", "open"), ("Update", "closed")]


def test_verdicts_and_severities_that_go_up_and_down_are_not_told_again_and_again():
    story, one = Story(), shock(certainty="possible", severity=2)
    story.release(0, one)
    for n in range(1, 40):
        up = n % 2
        one = later(one, n, certainty="likely" if up else "possible", severity=3 if up else 2)
        story.release(n, one)
    assert len(story.told) == 2, "opened, and once more when it was worse and surer"


def test_news_that_can_wait_waits_for_the_hours_of_suppression_and_is_told_then():
    story, one = Story(), shock(certainty="possible")
    story.release(0, one)
    sure = later(one, 0.25, certainty="observed", why="3 of 3 origins moved along")
    assert story.release(0.25, sure) == []
    (update,) = story.release(1, sure)
    assert "observed now, 3 of 3 origins moved along" in update["why"]
    assert story.release(2, sure) == []


def test_a_revised_change_is_a_correction():
    story, one = Story(), shock(change_percent=12.0)
    story.release(0, one)
    assert story.release(1, later(one, 1, change_percent=12.5)) == []
    grown = later(one, 1, change_percent=15.0, to={"period": "2026-03-03", "value": 115.0})
    assert story.release(1, grown) == [], "it goes on, by less than half again"
    (update,) = story.release(1, later(one, 1, change_percent=9.0, to={"period": "2026-03-01", "value": 109.0}))
    assert update["correction"] and "revised to +9 %, told was +12 %" in update["why"]
    who, calm = subscriber(), subscriber("Calm", corrections=False)
    assert hears(who, update, {"Ministry"}) and not hears(calm, update, {"Calm"})


def test_how_sure_an_index_is_is_no_news_beside_the_price_that_moved_it():
    price, index = shock(indices=[{"id": "critical", "weight": 0.1, "percent": 1.2}]), shock("critical")
    story = Story()
    story.release(0, price, index)
    assert story.release(1, price, later(index, 1, certainty="observed")) == []
    alone = Story()
    alone.release(0, index)
    assert len(alone.release(1, later(index, 1, certainty="observed"))) == 1


def test_what_was_cancelled_by_hand_is_told_of_no_more():
    story, one = Story(), shock()
    story.release(0, one)
    story.told.append(cancelled(story.told, "wrong unit at the source", "M. Curie", day(0.2)))
    last = story.told[-1]
    assert (last["msgType"], last["version"]) == ("Cancel", 2) and "wrong unit at the source" in last["why"]
    assert story.release(1, later(one, 1, severity=4, change_percent=50.0)) == []
    with pytest.raises(ValueError, match="cancelled already"):
        cancelled(story.told, "again", "M. Curie", day(1))
    with pytest.raises(ValueError, match="one line"):
        cancelled(story.told[:1], "two\r\nBcc: all@example.net", "M. Curie", day(1))


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["open", "over", "withdrawn"]),
            st.sampled_from(["market", "unsettled", "error", "diverging sources"]),
            st.sampled_from(["possible", "likely", "observed"]),
            st.integers(1, 4),
            st.floats(1, 80),
        ),
        min_size=1,
        max_size=25,
    )
)
def test_whatever_becomes_of_a_shock_versions_follow_each_other_and_the_last_word_is_right(life):
    story, one = Story(), shock(n=0)
    for n, (state, verdict, certainty, severity, change) in enumerate(life):
        one = later(one, n, state=state, verdict=verdict, certainty=certainty, severity=severity, change_percent=change)
        story.release(n, one)
        assert story.release(n, one) == [], "the same release told twice adds nothing"
    for thread in {m["thread"] for m in story.told}:
        docs = [m for m in story.told if m["thread"] == thread]
        assert [d["version"] for d in docs] == list(range(1, len(docs) + 1))
        assert [d["references"] for d in docs] == [[d["identifier"] for d in docs[:k]] for k in range(len(docs))]
        assert docs[0]["msgType"] == "Alert" and all(d["msgType"] != "Alert" for d in docs[1:])
    partners = [m for m in story.told if m["list"] == "partners"]
    if partners and (one["state"] == "withdrawn" or one["verdict"] in ("error", "diverging sources")):
        assert partners[-1]["state"] == "cancelled", "an error is never left standing"
    assert len({m["identifier"] for m in story.told}) == len(story.told)
    n = len(life) + 10
    story.release(n, later(one, n, state="open", verdict="market", certainty="likely", severity=4))
    assert next(m for m in reversed(story.told) if m["list"] == "partners")["state"] == "open", "nor a shock untold"


# ------------------------------------------------------------------------------------------ grouping

SIX = ["gallium", "germanium", "antimony", "indium", "tungsten", "bismuth"]


def test_one_event_over_six_minerals_is_one_message_and_a_latecomer_joins_it():
    story = Story()
    first = [shock(f"{m}/metal/XCN", event="event:x", change_percent=12.0 + k) for k, m in enumerate(SIX)]
    (message,) = story.release(0, *first)
    assert len(message["shocks"]) == 6 and "and 4 more" in message["headline"]
    late = shock("tellurium/metal/XCN", n=1, event="event:x")
    (update,) = story.release(1, *first, late)
    assert update["thread"] == message["thread"] and "tellurium metal outside China moved too" in update["why"]


def test_zones_of_a_mineral_its_premium_and_the_indices_that_it_moves_are_one_message():
    own = shock(indices=[{"id": "critical", "weight": 0.02, "percent": 0.24}])
    china = shock("gallium/metal/CN", direction="down", change_percent=-9.0,
                  indices=[{"id": "critical", "weight": 0.01, "percent": -0.09}])  # fmt: skip
    others = [shock("premium/gallium/metal"), shock("critical"), shock("nickel/metal/XCN")]
    found = Story().release(0, own, china, *others)
    assert sorted(len(m["shocks"]) for m in found) == [1, 4]
    whole = next(m for m in found if len(m["shocks"]) == 4)
    assert whole["indices"] == [{"id": "critical", "weight": 0.03, "percent": pytest.approx(0.15)}]
    assert "gallium metal in China \N{MINUS SIGN}9 %" in whole["headline"]


def test_an_index_does_not_draw_other_minerals_together():
    of = [{"id": "critical", "weight": 0.1, "percent": 1.0}]
    story = Story()
    story.release(0, shock(indices=of), shock("critical"))
    (second,) = story.release(1, shock(indices=of), shock("critical"), shock("nickel/metal/XCN", n=1, indices=of))
    assert second["msgType"] == "Alert" and [s["series"] for s in second["shocks"]] == ["nickel/metal/XCN"]


def test_a_monthly_movement_is_no_shock_and_an_alert_of_its_own():
    monthly = shock(product="monthly movement", frequency="monthly", id="gallium/metal/XCN:monthly:2026-02")
    found = Story().release(0, shock(), monthly)
    assert sorted((m["product"], m["urgency"]) for m in found) == [("monthly movement", "Past"), ("shock", "Immediate")]


# ------------------------------------------------------------------------------------------ rights


def test_what_rests_on_closed_figures_goes_to_the_operator_alone():
    one = shock()
    grounds = {one["series"]: Ground(False, ())}
    (message,) = of_shocks([one], [], occasion(0, [one], grounds=grounds))
    assert message["list"] == "operator" and not message["alert_allowed"]
    assert not hears(subscriber(), message) and hears(subscriber("Op", list="operator"), message)
    (unknown,) = of_shocks([one], [], occasion(0, [one], grounds={}))
    assert unknown["list"] == "operator", "where the rights are not known nobody is told"


def test_an_internal_release_tells_the_operator_alone_and_only_what_the_public_one_did_not():
    one, closed = shock(), shock("cobalt/metal/XCN")
    found = of_shocks([one, closed], [], occasion(0, [one, closed], audience="internal"), {one["id"]})
    assert [(m["list"], m["shocks"][0]["series"], m["links"]) for m in found] == [("operator", "cobalt/metal/XCN", {})]


def test_a_closed_market_never_joins_an_alert_to_partners():
    one, closed = shock(), shock("gallium/metal/CN")
    grounds = {one["series"]: OPEN, closed["series"]: Ground(False, ())}
    found = of_shocks([one, closed], [], occasion(0, grounds=grounds))
    assert sorted((m["list"], [s["series"] for s in m["shocks"]]) for m in found) == [
        ("operator", ["gallium/metal/CN"]), ("partners", ["gallium/metal/XCN"]),
    ]  # fmt: skip


def test_simulated_alerts_are_no_actual_ones():
    one = shock()
    (message,) = of_shocks([one], [], occasion(0, [one], simulated=True))
    assert message["simulated"] and message["status"] != "Actual"


# ------------------------------------------------------------------------------------------ who is told


def told_names(message, *who, before=()):
    found = deliveries([message], who, {message["thread"]: set(before)}, RULES, "salt", day(0))
    return [d.subscriber for d in found]


@pytest.mark.parametrize(
    ("wishes", "hear"),
    [
        ({}, True),
        ({"minerals": ["gallium"]}, True),
        ({"minerals": ["nickel"]}, False),
        ({"zones": ["XCN"], "stages": ["metal"]}, True),
        ({"minerals": ["gallium"], "zones": ["CN"]}, False),
        ({"stages": ["oxide"]}, False),
        ({"indices": ["critical"]}, False),
        ({"least_severity": 4}, False),
        ({"least_severity": 3}, True),
        ({"list": "operator"}, False),
    ],
)
def test_a_subscriber_hears_of_what_fits_all_that_is_wished(wishes, hear):
    (message,) = Story().release(0, shock())
    assert bool(told_names(message, subscriber(**wishes))) == hear


def test_severity_counts_of_the_shock_that_fits_not_of_the_worst_one():
    (message,) = Story().release(
        0, shock("nickel/metal/XCN", event="e", severity=2), shock("cobalt/metal/XCN", event="e", severity=4)
    )
    assert not told_names(message, subscriber(minerals=["nickel"], least_severity=3))
    assert told_names(message, subscriber(minerals=["cobalt"], least_severity=3))


def test_an_index_and_a_premium_are_wished_for_by_name_and_by_either_zone():
    (index,) = Story().release(0, shock("critical"))
    assert told_names(index, subscriber(indices=["critical"])) and not told_names(
        index, subscriber(minerals=["gallium"])
    )
    (premium,) = Story().release(0, shock("premium/gallium/metal"))
    assert told_names(premium, subscriber(zones=["CN"])) and told_names(premium, subscriber(zones=["XCN"]))
    assert not told_names(premium, subscriber(indices=["critical"]))


def test_who_was_told_hears_how_it_ends_and_nobody_else_does():
    story, one = Story(), shock()
    story.release(0, one)
    (cancel,) = story.release(1, later(one, 1, state="withdrawn", verdict="error"))
    assert told_names(cancel, subscriber("Told", minerals=["gallium"]), subscriber("New"), before=["Told"]) == ["Told"]


def test_message_ids_are_stable_differ_by_version_and_subscriber_and_cannot_be_guessed():
    story = Story()
    (first,) = story.release(0, shock())
    (second,) = story.release(1, later(shock(), 1, severity=4))

    def ids(message, salt="salt"):
        who = (subscriber("A"), subscriber("B"))
        return [d.message_id for d in deliveries([message], who, {}, RULES, salt, day(0))]

    assert ids(first) == ids(first) and len({*ids(first), *ids(second)}) == 4
    assert not set(ids(first)) & set(ids(first, "other salt"))
    assert all(i.startswith("<") and i.endswith("@example.org>") for i in ids(first))


QUIET = {"from": "20:00", "to": "06:30", "zone": "Europe/Berlin", "break_at": 4}


@pytest.mark.parametrize(
    ("hour", "severity", "due"),
    [
        ("2026-03-02T16:00", 3, "2026-03-02T16:00"),
        ("2026-03-02T19:00", 3, "2026-03-03T05:30"),  # 20:00 in Berlin; 06:30 there is 05:30 UTC
        ("2026-03-02T19:00", 4, "2026-03-02T19:00"),
        ("2026-03-02T02:00", 3, "2026-03-02T05:30"),
        ("2026-03-28T23:00", 3, "2026-03-29T04:30"),  # the clocks go forward in that night
    ],
)
def test_quiet_hours_put_off_what_may_not_break_them(hour, severity, due):
    (message,) = Story().release(0, shock(severity=severity))
    at = dt.datetime.fromisoformat(f"{hour}+00:00")
    (found,) = deliveries([message], [subscriber(quiet_hours=QUIET)], {}, RULES, "salt", at)
    assert found.due == dt.datetime.fromisoformat(f"{due}+00:00") and found.state == "waiting"


@pytest.mark.parametrize(
    ("digest", "hour", "due"),
    [
        ("daily", "2026-03-02T16:00", "2026-03-03T07:30"),
        ("daily", "2026-03-02T07:00", "2026-03-02T07:30"),
        ("weekly", "2026-03-04T16:00", "2026-03-09T07:30"),  # a Wednesday; the next Monday
        ("weekly", "2026-03-02T07:30", "2026-03-09T07:30"),
    ],
)
def test_digests_collect_what_came_until_their_hour(digest, hour, due):
    (message,) = Story().release(0, shock())
    at = dt.datetime.fromisoformat(f"{hour}+00:00")
    (found,) = deliveries([message], [subscriber(digest=digest)], {}, RULES, "salt", at)
    assert (found.state, found.due) == ("digest", dt.datetime.fromisoformat(f"{due}+00:00"))
    assert found.digest == f"{digest} {due[:10]}"


def test_monthly_movements_of_a_release_come_as_one_message_and_to_programs_singly():
    shocks = [shock(f"{m}/metal/XCN", product="monthly movement") for m in SIX[:3]]
    hook = {"url": "https://example.net/hook", "secret_environment": "HOOK_SECRET"}
    found = deliveries(
        Story().release(0, *shocks), [subscriber(channels=["email", "webhook"], webhook=hook)], {}, RULES, "s", day(0)
    )
    mail = [d for d in found if d.channel == "email"]
    assert {(d.state, d.digest, d.due) for d in mail} == {("digest", "release 1", day(0))} and len(mail) == 3
    assert [d.state for d in found if d.channel == "webhook"] == ["waiting"] * 3


def test_without_a_sender_no_mail_is_put_into_the_outbox():
    (message,) = Story().release(0, shock())
    assert not deliveries([message], [subscriber()], {}, RULES.model_copy(update={"sender": None}), "s", day(0))


def test_an_exercise_is_marked_and_no_part_of_the_services_state():
    message = exercise("Ministry", occasion(0, audience="operator"))
    assert message["status"] == "Exercise" and message["shocks"] == []
    assert of_operation([], [message], occasion(1)) == [], "it is not ended as a trouble that is over"


def test_a_storm_over_many_subscribers_is_ranked_for_the_worst_to_go_first():
    shocks = [shock(f"mineral-{k}/metal/XCN", severity=2 + k % 3) for k in range(500)]
    found = Story().release(0, *shocks)
    assert len(found) == 500 and [rank_of(m) for m in found] == sorted((s["severity"] for s in shocks), reverse=True)
    rows = deliveries(found, [subscriber(f"S{k}") for k in range(20)], {}, RULES, "salt", day(0))
    assert len({(d.alert, d.subscriber) for d in rows}) == len(rows) == 500 * 20


# ------------------------------------------------------------------------------------------ the operator


def condition(items=(), severity=2, key="finding:alpha:slip"):
    return Condition(key, "Error found", "alpha: slip", severity, (), tuple(items))


class Watch:
    def __init__(self):
        self.told, self.seen = [], set()

    def __call__(self, n, *conditions):
        found = of_operation(conditions, self.told, occasion(n, audience="operator", release=None), self.seen)
        self.told += found
        return found


def test_a_trouble_is_told_once_again_when_there_is_more_and_when_it_is_over():
    watch = Watch()
    (first,) = watch(0, condition(["a"]))
    assert first["list"] == "operator" and first["description"] == "a" and first["severity"] == SEVERITY[1]
    assert watch(0.1, condition(["a"])) == [] and watch(0.2, condition(["a", "b"])) == []
    (more,) = watch(1, condition(["a", "b", "c"]))
    assert more["why"] == "2 more" and more["description"] == "b\nc" and more["references"] == [first["identifier"]]
    assert watch(1.1, condition(["c", "a", "b"])) == []
    (over,) = watch(2)
    assert over["state"] == "closed" and watch(3) == []
    (new,) = watch(4, condition(["d"]))
    assert new["msgType"] == "Alert" and new["thread"] != first["thread"]


def test_what_somebody_sees_to_is_told_again_only_when_it_is_worse_or_over():
    watch = Watch()
    watch(0, condition(["a"]))
    watch.seen = {watch.told[0]["thread"]}
    assert watch(2, condition(["a", "b"])) == []
    (worse,) = watch(2.1, condition(["a", "b"], severity=3))
    assert worse["why"] == "more severe" and kinds(watch(3)) == [("Update", "closed")]


def test_a_publishers_text_cannot_break_a_line_nor_fill_a_message():
    watch = Watch()
    hostile = Condition(
        "failing:x", "Source cannot be read", "x: failed\r\nBcc: all@example.net", 2, ("\x1b[2J" * 300,)
    )
    (message,) = watch(0, hostile)
    assert "\n" not in message["headline"] and "\x1b" not in message["description"]
    assert len(message["description"]) <= 500
    (many,) = watch(1, hostile, condition([f"finding {k}" for k in range(100)]))
    assert many["description"].count("\n") == 20 and "80 more" in many["description"]
