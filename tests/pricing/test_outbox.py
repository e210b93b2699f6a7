"""The outbox against a real mail server: once, the worst first, nothing lost, whatever fails."""

from __future__ import annotations

import datetime as dt
import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mail_server import NOW, PASSWORD, Alerts, MailServer, Smtp, Subscriber, alert, mailer, post, rows, serving
from misbehaving import certified

from pricing import outbox
from pricing.bounces import Bounce
from pricing.errors import AddressRefused, ChannelDown, DeliveryError
from pricing.outbox import SECOND, Delivered
from pricing.parcel import Parcel, token
from pricing.store import Store, instant, micros

A, B, C = (Subscriber(name, f"{name.lower()}@example.net") for name in ("Alpha", "Beta", "Gamma"))


class Clock:
    def __init__(self, at: dt.datetime = NOW + dt.timedelta(seconds=5)) -> None:
        self.at = at

    def __call__(self) -> dt.datetime:
        self.at += dt.timedelta(milliseconds=1)
        return self.at

    def later(self, **span: float) -> None:
        self.at += dt.timedelta(**span)


class Taken:
    """A channel that keeps parcels; ``answer`` may raise."""

    def __init__(self, answer: Callable[[Parcel], None] | None = None) -> None:
        self.parcels: list[Parcel] = []
        self.answer = answer

    def send(self, parcel: Parcel, now: dt.datetime) -> str:
        if self.answer:
            self.answer(parcel)
        self.parcels.append(parcel)
        return "taken"

    def close(self) -> None:
        pass

    @property
    def told(self) -> list[tuple[str, list[str]]]:
        return [(p.subscriber.name, [a["identifier"] for a in p.alerts]) for p in self.parcels]


@pytest.fixture
def store() -> Iterator[Store]:
    with Store(":memory:") as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    return certified("localhost", tmp_path_factory.mktemp("certificate"))


def deliver(
    store: Store, clock: Clock, channel: Any, settings: Any = None, to: tuple[Subscriber, ...] = (A, B, C)
) -> Delivered:
    return outbox.deliver(store, settings or Alerts(), to, {"email": channel}, clock, sleep=lambda _: None)


def findings(store: Store) -> list[str]:
    return [f["message"] for f in store.findings()]


# ----------------------------------------------------------------------------------- once, in order


def test_each_message_goes_once_the_worst_first(store, clock):
    for n, rank in enumerate((2, 4, 3), start=1):
        post(store, alert(n), A, B, rank=rank)
    channel = Taken()
    assert deliver(store, clock, channel).sent == 6
    assert [told[0][9] for _, told in channel.told] == ["2", "2", "3", "3", "1", "1"]
    assert rows(store) == ["sent"] * 6 and rows(store, "outcome") == ["taken"] * 6
    assert deliver(store, clock, channel).sent == 0


def test_sending_is_recorded_before_it_is_done(store, clock):
    post(store, alert(), A)
    seen: list[Any] = []
    deliver(store, clock, Taken(lambda p: seen.extend(rows(store, "state, attempts, claimed_by"))))
    assert seen[0][:2] == ("sending", 1) and seen[0][2]


def test_what_is_not_due_waits(store, clock):
    post(store, alert(), A, due=NOW + dt.timedelta(hours=1))
    channel = Taken()
    assert deliver(store, clock, channel).sent == 0
    clock.later(hours=1)
    assert deliver(store, clock, channel).sent == 1
    assert channel.parcels[0].date == NOW + dt.timedelta(hours=1)


def test_an_update_threads_under_what_went_before_even_where_it_is_worse(store, clock):
    post(store, alert(), A, rank=2)
    post(store, alert(version=2), A, rank=4)
    clock.later(minutes=5)
    channel = Taken()
    deliver(store, clock, channel)
    first, second = channel.parcels
    assert first.earlier == () and second.earlier == (first.message_id,)
    post(store, alert(version=3), A, B)
    deliver(store, clock, channel)
    assert channel.parcels[2].earlier == (first.message_id, second.message_id)
    assert channel.parcels[3].earlier == ()  # Beta was never told of it


def test_an_update_does_not_wait_for_a_first_message_that_nobody_may_send_yet(store, clock):
    post(store, alert(), A, rank=2, due=NOW + dt.timedelta(hours=8))
    post(store, alert(version=2), A, rank=4)
    clock.later(minutes=5)
    channel = Taken()
    deliver(store, clock, channel)
    assert channel.told == [("Alpha", ["lodemark.1.2"])]


def test_quiet_hours_hold_what_may_not_break_them(store, clock):
    until = NOW + dt.timedelta(hours=9)
    quiet = SimpleNamespace(break_at=4, ends=lambda at: max(at, until))
    sleeper = Subscriber("Alpha", quiet_hours=quiet)
    post(store, alert(1), sleeper, rank=3)
    post(store, alert(2), sleeper, rank=4)
    channel = Taken()
    assert deliver(store, clock, channel, to=(sleeper,)).sent == 1
    assert channel.told == [("Alpha", ["lodemark.2.1"])] and rows(store) == ["waiting", "sent"]
    clock.later(hours=9)
    assert deliver(store, clock, channel, to=(sleeper,)).sent == 1


def test_who_is_no_subscriber_any_more_is_sent_nothing(store, clock):
    post(store, alert(), A, B)
    channel = Taken()
    assert deliver(store, clock, channel, to=(B,)) == Delivered(sent=1, suppressed=1)
    assert rows(store, "state, outcome")[0] == ("suppressed", "is no subscriber any more")


def test_stop_is_heeded_between_two_messages(store, clock):
    post(store, alert(), A, B, C)
    channel = Taken()
    done = outbox.deliver(store, Alerts(), (A, B, C), {"email": channel}, clock, stop=lambda: len(channel.parcels) >= 2)
    assert done.sent == 2 and rows(store) == ["sent", "sent", "waiting"]


# ---------------------------------------------------------------------------------------- digests


def test_a_digest_is_one_message_of_the_last_state_of_each_thread_the_worst_first(store, clock):
    for n, rank in ((1, 2), (2, 4)):
        post(store, alert(n), A, B, rank=rank, state="digest", digest="daily")
    post(store, alert(1, version=2), A, rank=3, state="digest", digest="daily")
    clock.later(minutes=5)
    channel = Taken()
    assert deliver(store, clock, channel).sent == 2
    assert sorted(channel.told) == [
        ("Alpha", ["lodemark.2.1", "lodemark.1.2"]),
        ("Beta", ["lodemark.2.1", "lodemark.1.1"]),
    ]
    assert all(p.digest for p in channel.parcels) and rows(store) == ["sent"] * 5
    assert len(set(rows(store, "message_id"))) == 2


def test_a_digest_of_one_is_the_message_itself(store, clock):
    post(store, alert(), A, state="digest", digest="daily")
    before = rows(store, "message_id")
    channel = Taken()
    deliver(store, clock, channel)
    assert not channel.parcels[0].digest and rows(store, "message_id") == before


def test_a_digest_that_may_have_arrived_is_repeated_as_it_was(store, clock):
    post(store, alert(1), A, state="digest", digest="daily")
    post(store, alert(2), A, state="digest", digest="daily")

    def lost(_: Parcel) -> None:
        raise DeliveryError("the connection was lost")

    broken, channel = Taken(lost), Taken()
    deliver(store, clock, broken)
    number = rows(store, "message_id")[0]
    post(store, alert(3), A, state="digest", digest="daily")  # comes late: another message
    clock.later(minutes=2)
    deliver(store, clock, channel)
    assert sorted(channel.told) == [("Alpha", ["lodemark.1.1", "lodemark.2.1"]), ("Alpha", ["lodemark.3.1"])]
    assert next(p for p in channel.parcels if p.digest).message_id == number


# ----------------------------------------------------------------------------------------- limits


def test_what_is_more_than_an_hour_allows_becomes_one_digest_when_it_allows_it(store, clock):
    for n in range(1, 8):
        post(store, alert(n), A, rank=1 + n % 4)
    post(store, alert(9), B)
    channel = Taken()
    done = deliver(store, clock, channel, Alerts(max_per_hour=3))
    assert (done.sent, done.held) == (4, 4)
    assert [told for name, told in channel.told if name == "Alpha"] == [
        ["lodemark.3.1"],
        ["lodemark.7.1"],
        ["lodemark.2.1"],
    ]
    clock.later(minutes=59)
    assert deliver(store, clock, channel, Alerts(max_per_hour=3)).sent == 0
    clock.later(minutes=2)
    assert deliver(store, clock, channel, Alerts(max_per_hour=3)).sent == 1
    assert channel.told[-1] == ("Alpha", ["lodemark.6.1", "lodemark.1.1", "lodemark.5.1", "lodemark.4.1"])
    assert set(rows(store)) == {"sent"}


def test_no_more_than_the_limit_of_all_go_out_in_a_minute(store, clock):
    for n in range(1, 5):
        post(store, alert(n), A, B)
    channel = Taken()
    done = deliver(store, clock, channel, Alerts(max_per_minute=5))
    assert done.sent == 5 and done.limited
    assert deliver(store, clock, channel, Alerts(max_per_minute=5)).sent == 0
    clock.later(seconds=61)
    done = deliver(store, clock, channel, Alerts(max_per_minute=5))
    assert done.sent == 3 and not done.limited


def test_a_storm_reaches_nobody_more_often_than_allowed_and_loses_nothing(store, clock):
    """Hundreds of alerts over tens of subscribers, in six rounds of ten minutes."""
    crowd = tuple(Subscriber(f"S{n}", f"s{n}@example.net") for n in range(20))
    limits, channel, rng = Alerts(max_per_hour=4), Taken(), random.Random(1)
    count = 0
    for _ in range(6):
        for _ in range(20):
            count += 1
            post(store, alert(count, shocks=[]), *crowd, rank=rng.randint(1, 4))
        deliver(store, clock, channel, limits, crowd)
        clock.later(minutes=10)
    first_hour = Counter(p.subscriber.name for p in channel.parcels)
    assert set(first_hour.values()) == {4}
    clock.later(minutes=10)
    deliver(store, clock, channel, limits, crowd)
    told: dict[str, Counter[str]] = {s.name: Counter() for s in crowd}
    for name, identifiers in channel.told:
        told[name].update(identifiers)
    assert all(set(c.values()) == {1} and len(c) == count for c in told.values())
    ranks = dict(store.db.execute("SELECT alert, rank FROM outbox"))
    singles = [ranks[ids[0]] for name, ids in channel.told if name == "S0" and len(ids) == 1]
    assert singles[:4] == [4, 4, 4, 4]


# ----------------------------------------------------------------------------------------- faults


def test_a_server_that_is_down_for_an_hour_delays_and_loses_nothing(store, clock, certificate):
    post(store, alert(1), A, B, C)
    with serving(certificate[0]) as server:
        port = server.port
    for _ in range(240):  # every quarter of a minute: nobody listens
        assert deliver(store, clock, mailer(port, certificate[1])).sent == 0
        clock.later(seconds=15)
    assert rows(store) == ["waiting"] * 3
    assert len(findings(store)) == 1 and "no message goes out by email" in findings(store)[0]
    assert max(rows(store, "attempts")) < 20  # it was asked now and then, not all the time
    with serving(certificate[0]) as server:
        for _ in range(21):
            deliver(store, clock, mailer(server.port, certificate[1]))
            clock.later(seconds=15)
        assert Counter(to for _, (to,) in server.envelopes) == {s.address: 1 for s in (A, B, C)}


def test_a_wrong_password_costs_no_message_and_few_attempts(store, clock, certificate):
    post(store, alert(1), A, B)
    with serving(certificate[0]) as server:
        for _ in range(40):
            deliver(store, clock, mailer(server.port, certificate[1], password="wrong"))
            clock.later(seconds=15)
        assert rows(store) == ["waiting"] * 2 and len(server.logins) < 16  # a login may be tried in two ways
        clock.later(minutes=5)
        assert deliver(store, clock, mailer(server.port, certificate[1])).sent == 2


@pytest.mark.parametrize("phase", ["EHLO", "MAIL", "RCPT", "DATA", "after"])
@pytest.mark.parametrize("how", ["cut", "421 4.3.2 closing", "451 4.3.0 later"])
def test_a_fault_in_any_phase_loses_nothing_and_doubles_only_what_may_have_arrived(
    store, clock, certificate, phase, how
):
    for n in (1, 2):
        post(store, alert(n), A, B)
    faults = iter([True] * 3)

    def fault(at: str, it: MailServer) -> str | None:
        if at.startswith(phase) and next(faults, False):
            return it.cut() if how == "cut" else how
        return None

    with serving(certificate[0]) as server:
        server.fault = fault
        for _ in range(30):
            deliver(store, clock, mailer(server.port, certificate[1]))
            clock.later(minutes=2)
        assert rows(store) == ["sent"] * 4
        arrived = Counter(str(m["Message-ID"]) for m in server.messages)
    assert set(arrived) == set(rows(store, "message_id"))
    doubled = sum(arrived.values()) - len(arrived)
    assert doubled == (3 if phase == "after" else 0)  # a server that kept it and then said it did not


def test_an_unknown_address_is_sent_nothing_further_and_the_operator_is_told(store, clock, certificate):
    post(store, alert(1), A, B)
    post(store, alert(2), A, B)
    with serving(certificate[0]) as server:
        server.fault = lambda at, _: "550 5.1.1 no such user" if at == "RCPT alpha@example.net" else None
        done = deliver(store, clock, mailer(server.port, certificate[1]))
    assert (done.sent, done.failed, done.suppressed) == (2, 1, 1)
    assert rows(store) == ["failed", "sent", "suppressed", "sent"]
    (told,) = findings(store)
    assert "Alpha (alpha@example.net) was not told" in told and "550 5.1.1 no such user" in told
    assert store.findings()[0]["severity"] == "error"


def test_a_refused_message_blames_no_address(store, clock):
    post(store, alert(1), A)
    post(store, alert(2), A)

    def refuse(parcel: Parcel) -> None:
        if parcel.alerts[0]["identifier"] == "lodemark.1.1":
            raise DeliveryError("message refused: 554 5.6.0", permanent=True)

    done = deliver(store, clock, Taken(refuse))
    assert (done.sent, done.failed) == (1, 1) and len(findings(store)) == 1


def test_what_cannot_reach_the_operator_makes_no_further_alert(store, clock):
    post(store, alert(1, list="operator", shocks=[]), A)

    def refuse(_: Parcel) -> None:
        raise AddressRefused("550 5.1.1")

    assert deliver(store, clock, Taken(refuse)).failed == 1
    assert findings(store) == []


def test_retries_come_ever_later_and_end_after_days(store, clock):
    post(store, alert(), A)

    def refuse(_: Parcel) -> None:
        raise DeliveryError("451 greylisted")

    began, waits = clock.at, []
    while rows(store) == ["waiting"]:
        due = instant(rows(store, "due")[0])
        waits.append((due - clock.at).total_seconds())
        clock.at = max(clock.at, due)
        deliver(store, clock, Taken(refuse))
    assert waits[1:6] == pytest.approx([30, 60, 120, 240, 480], abs=0.1) and max(waits) <= 4 * 3600
    assert rows(store) == ["failed"] and dt.timedelta(days=4) <= clock.at - began <= dt.timedelta(days=4.2)
    assert "was not told: 451 greylisted" in findings(store)[0]


def test_a_wait_that_the_other_side_asks_for_is_kept(store, clock):
    post(store, alert(), A)

    def busy(_: Parcel) -> None:
        raise DeliveryError("HTTP 429", wait=900)

    deliver(store, clock, Taken(busy))
    assert rows(store, "due")[0] - micros(clock.at) == pytest.approx(900 * SECOND, abs=SECOND)


def test_an_error_of_ours_holds_up_no_other_message(store, clock):
    post(store, alert(1), A, rank=4)
    post(store, alert(2), A)

    def broken(parcel: Parcel) -> None:
        if parcel.alerts[0]["identifier"] == "lodemark.1.1":
            raise ZeroDivisionError("ours")

    done = deliver(store, clock, Taken(broken))
    assert (done.sent, done.again) == (1, 1) and "ZeroDivisionError" in rows(store, "outcome")[0]


@pytest.mark.parametrize("back", [dt.timedelta(hours=1), dt.timedelta(days=400)])
def test_a_clock_that_is_set_back_delays_little_and_doubles_nothing(store, clock, back):
    def refuse(_: Parcel) -> None:
        raise DeliveryError("451")

    def down(_: Parcel) -> None:
        raise ChannelDown("away")

    post(store, alert(1), A)
    for answer in (None, refuse, refuse, down):
        deliver(store, clock, Taken(answer))
        clock.later(minutes=1)
        if answer is None:
            post(store, alert(2), A)
    post(store, alert(3), A)
    clock.at -= back
    channel = Taken()
    for _ in range(12):
        deliver(store, clock, channel, Alerts(max_per_minute=2, max_per_hour=3))
        clock.later(minutes=30)
    assert sorted(ids for _, ids in channel.told) == [["lodemark.2.1"], ["lodemark.3.1"]]


def test_two_workers_send_nothing_twice(tmp_path, certificate):
    crowd = tuple(Subscriber(f"S{n}", f"s{n}@example.net") for n in range(10))
    with Store(tmp_path / "store.db") as store:
        for n in range(1, 4):
            post(store, alert(n, shocks=[]), *crowd)
    busy = []

    def work() -> None:
        with Store(tmp_path / "store.db") as own:
            for _ in range(20):
                done = outbox.deliver(own, Alerts(), crowd, {"email": mailer(server.port, certificate[1])}, Clock())
                busy.append(done.busy)

    with serving(certificate[0]) as server:
        server.fault = lambda at, _: time.sleep(0.002)  # type: ignore[func-returns-value]
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        arrived = Counter(str(m["Message-ID"]) for m in server.messages)
    assert len(arrived) == 30 and set(arrived.values()) == {1}
    assert any(busy)


def test_an_outcome_that_cannot_be_recorded_at_first_is_recorded_later(store, clock, monkeypatch):
    post(store, alert(), A)
    fails = iter([True] * 3)
    set_ = outbox._Worker._set

    def full(self: Any, message: Any, state: str, *args: Any, **other: Any) -> None:
        if next(fails, False):
            raise OSError("database or disk is full")
        set_(self, message, state, *args, **other)

    monkeypatch.setattr(outbox._Worker, "_set", full)
    channel = Taken()
    assert deliver(store, clock, channel).sent == 1
    assert rows(store) == ["sent"] and len(channel.parcels) == 1


def test_a_full_disk_sends_nothing_and_loses_nothing(tmp_path, clock):
    with Store(tmp_path / "store.db") as store:
        post(store, alert(), A, B)
        pages = store.db.execute("PRAGMA page_count").fetchone()[0]
        store.db.execute("CREATE TRIGGER full BEFORE UPDATE ON outbox BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
        channel = Taken()
        for _ in range(3):
            with pytest.raises(Exception, match="disk is full"):
                deliver(store, clock, channel)
        assert channel.parcels == [] and pages
        store.db.execute("DROP TRIGGER full")
        assert deliver(store, clock, channel).sent == 2


def test_a_killed_worker_loses_nothing_and_doubles_one_message_at_most(tmp_path, certificate):
    """Eight kills at random moments; ``benchmarks.outbox_campaign`` makes a hundred."""
    from benchmarks.outbox_campaign import campaign

    counts = campaign(8, seed=3)
    assert counts.lost == 0 and counts.doubled_otherwise == 0 and counts.doubled <= 8


# ------------------------------------------------------------------------------------ what comes back


def test_a_bounce_ends_deliveries_to_its_address_and_is_told(store, clock):
    post(store, alert(1), A, B)
    deliver(store, clock, Taken())
    number = rows(store, "message_id")[0]
    said = outbox.returned(store, Bounce(A.address, True, number, "550 5.1.1 gone"), clock())
    assert "Alpha (alpha@example.net) is sent no mail any more: bounced: 550 5.1.1 gone" == said == findings(store)[0]
    assert rows(store) == ["failed", "sent"]
    post(store, alert(2), A, B)
    assert deliver(store, clock, Taken()) == Delivered(sent=1, suppressed=1)


def test_a_delay_changes_nothing(store, clock):
    post(store, alert(1), A)
    deliver(store, clock, Taken())
    outbox.returned(store, Bounce(A.address, False, rows(store, "message_id")[0], "451"), clock())
    assert rows(store) == ["sent"] and findings(store) == []


@pytest.mark.parametrize("number", ["<unknown@example.org>", "", "%", "<" + "a" * 40 + "@example.org>"])
def test_a_forged_report_ends_nothing(store, clock, number):
    post(store, alert(1), A)
    deliver(store, clock, Taken())
    with pytest.raises(DeliveryError, match="no message of ours"):
        outbox.returned(store, Bounce(A.address, True, number, "550"), clock())
    assert store.db.execute("SELECT count(*) FROM suppressed").fetchone() == (0,)


def test_a_wish_to_unsubscribe_left_by_the_web_is_heeded_once(store, clock, tmp_path):
    post(store, alert(1), A, B)
    deliver(store, clock, Taken())
    wish = token(rows(store, "message_id")[0])
    for name in (wish, "0" * 40, "no-token"):
        (tmp_path / name).touch()
    (said,) = outbox.read_wishes(store, tmp_path, clock())
    assert "Alpha" in said and "unsubscribed by its link" in said and list(tmp_path.iterdir()) == []
    post(store, alert(2), A, B)
    assert deliver(store, clock, Taken()) == Delivered(sent=1, suppressed=1)


def test_a_turn_heeds_wishes_and_sends_by_the_ways_that_the_settings_have(tmp_path, clock, certificate):
    to = SimpleNamespace(**vars(A), webhook=None)
    with Store(tmp_path / "store.db") as store, serving(certificate[0]) as server:
        smtp = Smtp("localhost", server.port, ca_file=str(certificate[1]))
        settings = SimpleNamespace(**vars(Alerts()), smtp=smtp, dkim=None, mailbox="")
        environ = {"LODEMARK_SMTP_PASSWORD": PASSWORD}
        go = lambda: outbox.turn(store, settings, (to,), environ, tmp_path, clock)  # noqa: E731
        post(store, alert(1), A)
        assert go() == "1 sent"
        assert go() == ""
        (tmp_path / "unsubscribe").mkdir()
        (tmp_path / "unsubscribe" / token(rows(store, "message_id")[0])).touch()
        post(store, alert(2), A)
        assert go().endswith("unsubscribed by its link; 1 suppressed")
    assert len(server.raw) == 1
    assert outbox.channels(SimpleNamespace(sender=None, smtp=None, dkim=None), (to,), {}) == {}


def test_what_a_later_message_has_told_is_not_sent_after_it():
    with Store(":memory:") as store:
        channel = Taken()
        post(store, alert(1, version=1), A, rank=2, due=NOW + dt.timedelta(hours=2))
        post(store, alert(1, version=2, msgType="Cancel"), A, rank=4, due=NOW)
        outbox.deliver(store, Alerts(), (A,), {"email": channel}, lambda: NOW)
        assert rows(store) == ["suppressed", "sent"]
        outbox.deliver(store, Alerts(), (A,), {"email": channel}, lambda: NOW + dt.timedelta(hours=3))
        assert len(channel.parcels) == 1 and "later message" in rows(store, "outcome")[0]


def test_mail_goes_to_the_address_of_today_and_an_exercise_at_any_hour():
    with Store(":memory:") as store:
        channel = Taken()
        post(store, alert(1), A, address="old@example.net")
        quiet = SimpleNamespace(break_at=5, ends=lambda at: at + dt.timedelta(hours=1))
        asleep = Subscriber(A.name, "new@example.net", quiet_hours=quiet)
        post(store, alert(2, status="Exercise"), A, address="old@example.net")
        outbox.deliver(store, Alerts(), (asleep,), {"email": channel}, lambda: NOW)
        assert [p.address for p in channel.parcels] == ["new@example.net"] and rows(store) == ["waiting", "sent"]
