"""The outbox: what is to be told becomes messages, each claimed, sent and recorded, by one worker at a time.

Before a message goes its rows are ``sending``, and its outcome is recorded after. What a killed worker left
``sending`` may have arrived or not: it is sent again under the same Message-ID. Nothing else is sent twice, and
nothing is let go of but with an outcome that says why.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import orjson
import structlog

from pricing import bounces, charts
from pricing.errors import AddressRefused, ChannelDown, DeliveryError
from pricing.mail import Chart, Dkim, Letterhead, Mail, Smtp, titled
from pricing.parcel import Channel, Parcel, message_id
from pricing.parcel import Subscriber as Addressee
from pricing.quality import Finding
from pricing.store import Store, instant, micros
from pricing.webhook import Caller, Webhook

log = structlog.get_logger()

SECOND = 1_000_000  # microseconds, as all instants here
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
FIRST_WAIT = 30 * SECOND  # after a first failure; it doubles
LONGEST_WAIT = 4 * HOUR  # between two attempts at one message
LONGEST_PAUSE = 5 * MINUTE  # of a channel that is down: what it holds up goes out soon after it is back
GIVEN_UP = 4 * DAY  # age of an alert after which a failure is no longer met with another attempt
HESITATION = 3  # deaths of the worker over one message after which that message waits like a failed one
PATIENCE = (0.1, 1.0, 5.0, 20.0)  # seconds between attempts to record an outcome: a full disk may be emptied
MOST = 2_000  # alerts that a digest names; the rest are counted
_TOKEN = re.compile(r"[0-9a-f]{40}")


class Limits(Protocol):
    """How many messages may go out, and from where."""

    @property
    def max_per_hour(self) -> int:
        """To one subscriber over one channel; the rest goes into a digest."""

    @property
    def max_per_minute(self) -> int:
        """To all."""

    @property
    def domain(self) -> str:
        """Domain of the sender."""


class Alerts(Limits, Letterhead, Protocol):
    """The table ``[alerts]``."""

    @property
    def smtp(self) -> Smtp | None:
        """The mail server."""

    @property
    def dkim(self) -> Dkim | None:
        """The key that signs."""

    @property
    def mailbox(self) -> str:
        """Maildir in which returned mail arrives; empty where there is none."""


class Subscriber(Addressee, Protocol):
    """A table ``[[subscribers]]``."""

    @property
    def webhook(self) -> Webhook | None:
        """Where a program is told."""


@dataclass
class Delivered:
    """What became of the messages of one round.

    Attributes
    ----------
    sent, again, failed, suppressed : int
        Messages that were taken, that will be tried again, that never will be, and that nobody wants.
    held : int
        Alerts put into a digest, since their subscriber has had enough for this hour.
    down : dict
        Why a channel takes nothing now, by channel.
    busy, limited : bool
        Another worker is at it; the limit of all messages in a minute is reached.
    """

    sent: int = 0
    again: int = 0
    failed: int = 0
    suppressed: int = 0
    held: int = 0
    down: dict[str, str] = field(default_factory=dict)
    busy: bool = False
    limited: bool = False


@dataclass(frozen=True)
class _Message:
    """Rows of the outbox that go out together."""

    message_id: str
    subscriber: str
    channel: str
    address: str
    rank: int
    attempts: int  # before this one
    due: int
    sent: int  # when the newest of its alerts was made
    rows: tuple[int, ...]
    digest: bool
    exercise: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        return self.message_id, self.subscriber, self.channel


def turn(
    store: Store,
    alerts: Alerts,
    subscribers: Sequence[Subscriber],
    environ: Mapping[str, str],
    data: Path,
    now: Callable[[], dt.datetime],
    stop: Callable[[], bool] = lambda: False,
) -> str:
    """Heed who wants no more, then send what is due; returns in words what was done, nothing where nothing was.

    Parameters
    ----------
    environ
        Where password, keys and secrets stand.
    data : Path
        The data folder: wishes to unsubscribe and the releases that charts are drawn from.
    """
    heeded = read_wishes(store, data / "unsubscribe", now())
    if alerts.mailbox:
        heeded += read_mailbox(store, Path(alerts.mailbox), now())
    title = titled("en")
    ways = channels(alerts, subscribers, environ, lambda alert: charts.of_alert(alert, data / "public", title))
    done = deliver(store, alerts, subscribers, ways, now, stop)
    counts = [f"{getattr(done, name)} {name}" for name in ("sent", "again", "failed", "suppressed", "held")]
    told = [*heeded, *(text for text in counts if not text.startswith("0 "))]
    return "; ".join([*told, *(f"failed: {name}: {why}" for name, why in done.down.items() if told)])


def channels(
    alerts: Alerts, subscribers: Sequence[Subscriber], environ: Mapping[str, str], chart: Chart | None = None
) -> dict[str, Channel]:
    """Return the ways out that the settings have, by name."""
    made: dict[str, Channel] = {}
    if alerts.sender and alerts.smtp is not None:
        made["email"] = Mail(alerts, alerts.smtp, environ, alerts.dkim, chart)
    targets = {s.name: s.webhook for s in subscribers if s.webhook is not None}
    if targets:
        made["webhook"] = Caller(targets, environ)
    return made


def deliver(
    store: Store,
    limits: Limits,
    subscribers: Sequence[Addressee],
    channels: Mapping[str, Channel],
    now: Callable[[], dt.datetime],
    stop: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], object] = time.sleep,
) -> Delivered:
    """Send what is due, the worst first, until nothing is, or a limit is reached.

    Parameters
    ----------
    channels : mapping of name to Channel
        They are closed at the end.
    now : callable
        The clock, aware UTC.
    stop : callable
        Asked between two messages.
    """
    done = Delivered()
    with _only_worker(store) as alone:
        if not alone:
            done.busy = True
            return done
        worker = _Worker(store, limits, {s.name: s for s in subscribers}, channels, now, sleep, done)
        try:
            worker.take_up()
            while not stop() and worker.next():
                pass
        finally:
            for channel in channels.values():
                channel.close()
    return done


@contextmanager
def _only_worker(store: Store) -> Iterator[bool]:
    """Hold the lock of the worker, if nobody does; the system lets go of it when the process ends."""
    if str(store.path) == ":memory:":
        yield True
        return
    handle = os.open(Path(store.path).parent / "outbox.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


class _Worker:
    def __init__(
        self,
        store: Store,
        limits: Limits,
        subscribers: Mapping[str, Addressee],
        channels: Mapping[str, Channel],
        now: Callable[[], dt.datetime],
        sleep: Callable[[float], object],
        done: Delivered,
    ) -> None:
        self._store, self._limits, self._subscribers, self._channels = store, limits, subscribers, channels
        self._now, self._sleep, self._done = now, sleep, done
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._up: set[str] = set()

    # ---------------------------------------------------------------- before

    def take_up(self) -> None:
        """Take up what an earlier worker left, and put digests together that are due."""
        now = micros(self._now())
        with self._store.writing():
            # The lock says that no other worker lives, whatever the clock says.
            self._store.db.execute(
                "UPDATE outbox SET state = 'waiting', claimed_by = NULL, due ="
                " CASE WHEN attempts >= ? THEN max(due, ?) ELSE due END WHERE state = 'sending'",
                (HESITATION, now + _backoff(HESITATION)),
            )
        for channel in self._channels:
            if why := self._paused(channel, now):
                self._done.down[channel] = why
        groups = self._store.db.execute(
            "SELECT DISTINCT subscriber, channel, address, digest FROM outbox WHERE state = 'digest' AND due <= ?",
            (now,),
        ).fetchall()
        for group in groups:
            with self._store.writing():
                found = self._store.db.execute(
                    "SELECT id, alert FROM outbox WHERE subscriber = ? AND channel = ? AND address = ? AND digest = ?"
                    " AND state = 'digest' AND due <= ? ORDER BY rank DESC, id",
                    (*group, now),
                ).fetchall()
                # From here on they are one message, and stay so whatever happens; one alone keeps its own.
                made = message_id(
                    "\n".join(alert for _, alert in found), group[0], self._limits.domain, self._store.salt
                )
                self._store.db.execute(
                    "UPDATE outbox SET state = 'waiting', message_id = CASE WHEN ? THEN ? ELSE message_id END"
                    " WHERE subscriber = ? AND channel = ? AND address = ? AND digest = ? AND state = 'digest'"
                    " AND due <= ?",
                    (len(found) > 1, made, *group, now),
                )

    def _paused(self, channel: str, now: int) -> str:
        """Why a channel is let be for now; empty where it is not."""
        pause = self._pause_of(channel)
        # Longer than a pause can last: the clock was set back since.
        return str(pause["why"]) if 0 < pause.get("until", 0) - now <= LONGEST_PAUSE else ""

    def _pause_of(self, channel: str) -> dict[str, Any]:
        pause: dict[str, Any] = orjson.loads(self._store.note(f"pause {channel}", "{}"))
        return pause

    # ------------------------------------------------------------- a message

    def next(self) -> bool:
        """Claim and send one message; tells whether there may be another one."""
        now = micros(self._now())
        with self._store.writing():
            if self._recent("outbox_last", "", (), now, MINUTE) >= self._limits.max_per_minute:
                self._done.limited = self._first(now) is not None
                return False
            message = self._first(now)
            if message is None:
                return False
            message = self._readdressed(message)
            subscriber = self._admitted(message, now)
            if subscriber is None:
                return True
            claimed = self._store.db.execute(
                "UPDATE outbox INDEXED BY outbox_message SET state = 'sending', claimed_by = ?, claimed_at = ?,"
                " attempts = attempts + 1"
                " WHERE message_id = ? AND subscriber = ? AND channel = ? AND state = 'waiting'",
                (self._name, now, *message.key),
            )
            if claimed.rowcount != len(message.rows):
                raise DeliveryError(f"{message.message_id}: claimed {claimed.rowcount} of {len(message.rows)} rows")
            parcel = self._parcel(message, subscriber)
        self._send(message, parcel)
        return True

    def _first(self, now: int) -> _Message | None:
        """The message that is to go next: the worst, and among these the oldest; none before its own thread's first."""
        channels = [c for c in self._channels if c not in self._done.down]
        marks = ", ".join("?" * len(channels))
        # A due later than any wait can be was set by a clock that was set back since, as was an alert of the future.
        row = self._store.db.execute(
            "SELECT o.message_id, o.subscriber, o.channel FROM outbox o JOIN alert a ON a.identifier = o.alert"
            f" WHERE o.state = 'waiting' AND o.channel IN ({marks})"
            " AND (o.due <= max(?, a.sent) OR o.attempts > 0 AND o.due > ?) AND NOT EXISTS"
            " (SELECT 1 FROM alert e JOIN outbox p ON p.alert = e.identifier WHERE e.thread = a.thread"
            " AND e.version < a.version AND p.subscriber = o.subscriber AND p.channel = o.channel"
            " AND p.message_id <> o.message_id AND p.state = 'waiting' AND (p.due <= ? OR p.attempts BETWEEN 1 AND 4))"
            " ORDER BY o.rank DESC, o.id LIMIT 1",
            (*channels, now, now + LONGEST_WAIT, now),
        ).fetchone()
        if row is None:
            return None
        rows = self._store.db.execute(
            "SELECT o.id, o.address, o.rank, o.attempts, o.due, a.sent,"
            " json_extract(a.document, '$.status') = 'Exercise' FROM outbox o INDEXED BY outbox_message"
            " JOIN alert a ON a.identifier = o.alert WHERE o.message_id = ? AND o.subscriber = ? AND o.channel = ?"
            " AND o.state = 'waiting' ORDER BY o.rank DESC, o.id",
            row,
        ).fetchall()
        ids, addresses, ranks, attempts, dues, sent, exercises = zip(*rows, strict=True)
        return _Message(
            message_id=row[0],
            subscriber=row[1],
            channel=row[2],
            address=addresses[0],
            rank=ranks[0],
            attempts=max(attempts),
            due=max(dues),
            sent=max(sent),
            rows=ids,
            digest=len(ids) > 1,
            exercise=all(exercises),
        )

    def _readdressed(self, message: _Message) -> _Message:
        """Send to where a subscriber is reached now: the settings may have changed since the alert."""
        subscriber = self._subscribers.get(message.subscriber)
        address = _address(subscriber, message.channel) if subscriber is not None else ""
        if not address or address == message.address:
            return message
        self._store.db.execute(
            "UPDATE outbox SET address = ? WHERE message_id = ? AND subscriber = ? AND channel = ?",
            (address, *message.key),
        )
        return replace(message, address=address)

    def _admitted(self, message: _Message, now: int) -> Addressee | None:
        """Return who is written to; None where the message is not to go now: what became of it is recorded."""
        subscriber = self._subscribers.get(message.subscriber)
        if subscriber is None:
            self._note(now, f"{message.subscriber} is in the settings no more: what waited for that name is not sent")
        found = self._store.db.execute("SELECT reason FROM suppressed WHERE address = ?", (message.address,)).fetchone()
        if subscriber is None or found:
            why = found[0] if found else "is no subscriber any more"
            self._set(message, "suppressed", why, now)
            self._done.suppressed += 1
            return None
        if message.exercise:
            return subscriber  # somebody waits for it
        quiet: Any = getattr(subscriber, "quiet_hours", None)
        if quiet is not None and message.rank < quiet.break_at:
            until = micros(quiet.ends(instant(now)))
            if until > now:
                self._set(message, "waiting", "", None, due=until)
                return None
        whose = (message.subscriber, message.channel)
        if (
            self._recent("outbox_of", "subscriber = ? AND channel = ? AND", whose, now, HOUR)
            < self._limits.max_per_hour
        ):
            return subscriber
        self._hold(message, now)
        return None

    def _recent(self, index: str, of: str, values: tuple[str, ...], now: int, span: int) -> int:
        """Messages that went out within a span before now; and after it, where the clock was set back."""
        count: int = self._store.db.execute(
            f"SELECT count(DISTINCT message_id) FROM outbox INDEXED BY {index} WHERE {of} state = 'sent'"
            " AND ended_at > ? AND ended_at <= ?",
            (*values, now - span, now + span),
        ).fetchone()[0]
        return count

    def _hold(self, message: _Message, now: int) -> None:
        """Put all that its subscriber would get now into one digest, due when the hour allows it."""
        (oldest,) = self._store.db.execute(
            "SELECT min(at) FROM (SELECT max(ended_at) AS at FROM outbox WHERE subscriber = ? AND channel = ?"
            " AND state = 'sent' AND ended_at IS NOT NULL AND ended_at > ? GROUP BY message_id"
            " ORDER BY at DESC LIMIT ?)",
            (message.subscriber, message.channel, now - HOUR, self._limits.max_per_hour),
        ).fetchone()
        free = min(oldest + HOUR, now + HOUR) + 1
        # One that was tried may have arrived: it keeps its own message id.
        held = self._store.db.execute(
            "UPDATE outbox INDEXED BY outbox_of SET state = 'digest', digest = 'held back', due = ?"
            " WHERE subscriber = ? AND channel = ? AND state = 'waiting' AND attempts = 0 AND due <= ?",
            (free, message.subscriber, message.channel, max(now, message.due)),
        )
        self._done.held += held.rowcount
        if message.attempts:
            self._set(message, "waiting", "", None, due=free)

    def _parcel(self, message: _Message, subscriber: Addressee) -> Parcel:
        marks = ", ".join("?" * len(message.rows[:MOST]))
        rows = self._store.db.execute(
            f"SELECT a.thread, a.version, a.document FROM outbox o JOIN alert a ON a.identifier = o.alert"
            f" WHERE o.id IN ({marks}) ORDER BY o.rank DESC, o.id",
            message.rows[:MOST],
        ).fetchall()
        # Of one thread a digest tells the last state only.
        last = {thread: version for thread, version, _ in sorted((t, v, "") for t, v, _ in rows)}
        alerts = [orjson.loads(document) for thread, version, document in rows if last[thread] == version]
        earlier = self._store.db.execute(
            "SELECT p.message_id FROM outbox o JOIN alert a ON a.identifier = o.alert"
            " JOIN alert e ON e.thread = a.thread AND e.version < a.version"
            " JOIN outbox p ON p.alert = e.identifier AND p.subscriber = o.subscriber AND p.channel = o.channel"
            " WHERE o.id = ? AND p.state = 'sent' AND p.message_id <> o.message_id ORDER BY e.version",
            (message.rows[0],),
        ).fetchall()
        return Parcel(
            subscriber,
            message.address,
            message.message_id,
            alerts,
            message.digest and len(alerts) > 1,
            () if message.digest else tuple(dict.fromkeys(row[0] for row in earlier)),
            instant(max(message.due if not message.attempts else 0, message.sent)),
        )

    def _send(self, message: _Message, parcel: Parcel) -> None:
        try:
            told = self._channels[message.channel].send(parcel, self._now())
        except ChannelDown as error:
            self._lasting(partial(self._pause, message, str(error)))
        except DeliveryError as error:
            self._lasting(partial(self._failed, message, parcel, error))
        except Exception as error:  # an error of ours is no reason to lose a message, or to hold up the others
            log.exception("a message was not sent, by an error that is not ours", to=message.subscriber)
            unexpected = DeliveryError(f"ended by {error!r}; see the log")
            self._lasting(partial(self._failed, message, parcel, unexpected))
        else:
            self._lasting(partial(self._sent, message, told))

    def _lasting(self, record: Callable[[], None]) -> None:
        """Record an outcome even if that fails at first: forgotten, the message would go out once more."""
        for wait in (*PATIENCE, None):
            try:
                with self._store.writing():
                    record()
                return
            except Exception as error:  # a full disk, a locked file
                if wait is None:
                    raise
                log.error("an outcome could not be recorded; it is tried again", why=str(error))
                self._sleep(wait)

    # -------------------------------------------------------------- outcomes

    def _sent(self, message: _Message, told: str) -> None:
        now = micros(self._now())
        self._set(message, "sent", told, now)
        # What an earlier version would have said is told, or overtaken: sent after this one it would be false.
        self._store.db.execute(
            "UPDATE outbox SET state = 'suppressed', outcome = 'a later message has told it', ended_at = ?"
            " WHERE subscriber = ? AND channel = ? AND state IN ('waiting', 'digest') AND alert IN"
            " (SELECT e.identifier FROM alert e JOIN alert a ON a.thread = e.thread AND e.version < a.version"
            " JOIN outbox o ON o.alert = a.identifier WHERE o.message_id = ? AND o.subscriber = ? AND o.channel = ?)",
            (now, message.subscriber, message.channel, *message.key),
        )
        if message.channel not in self._up:
            self._store.set_note(f"pause {message.channel}", "")
        self._up.add(message.channel)
        self._done.sent += 1

    def _failed(self, message: _Message, parcel: Parcel, error: DeliveryError) -> None:
        now = micros(self._now())
        if not error.permanent and now - message.sent < GIVEN_UP:
            wait = max(_backoff(message.attempts), min(int(error.wait * SECOND), LONGEST_WAIT))
            self._set(message, "waiting", str(error), None, due=now + wait)
            self._done.again += 1
            return
        self._set(message, "failed", str(error), now)
        self._done.failed += 1
        if isinstance(error, AddressRefused):
            self._store.db.execute(
                "INSERT OR IGNORE INTO suppressed VALUES (?, ?, ?)", (message.address, now, str(error))
            )
        if all(alert.get("list") == "operator" for alert in parcel.alerts):
            # Of this the operator cannot be told by the same way: each finding would make another such message.
            log.error("a message to the operator failed", to=message.subscriber, why=str(error))
        else:
            self._note(now, f"{message.subscriber} ({message.address}) was not told: {error}")

    def _pause(self, message: _Message, why: str) -> None:
        now, before = micros(self._now()), self._pause_of(message.channel)
        count = int(before.get("count", 0)) + 1
        pause = {
            "until": now + min(FIRST_WAIT << min(count - 1, 10), LONGEST_PAUSE),
            "count": count,
            "since": before.get("since", now),
            "why": why,
        }
        self._set(message, "waiting", why, None)
        self._store.set_note(f"pause {message.channel}", orjson.dumps(pause).decode())
        if count == 1:
            self._note(now, f"no message goes out by {message.channel}: {why}")
        self._done.down[message.channel] = why

    def _set(self, message: _Message, state: str, outcome: str, ended: int | None, due: int | None = None) -> None:
        marks = ", ".join("?" * len(message.rows)) if len(message.rows) <= MOST else ""
        rows = f"id IN ({marks})" if marks else "message_id = ? AND subscriber = ? AND channel = ?"
        self._store.db.execute(
            "UPDATE outbox SET state = ?, outcome = ?, ended_at = ?, due = coalesce(?, due), claimed_by = NULL"
            f" WHERE {rows} AND state IN ('waiting', 'sending')",
            (state, outcome[:500], ended, due, *(message.rows if marks else message.key)),
        )

    def _note(self, now: int, text: str) -> None:
        finding = Finding("delivery", "error", text)
        self._store.note_findings(now, "alerts", None, [finding])


def _address(subscriber: Any, channel: str) -> str:
    """Address or web address of a subscriber in the settings."""
    if channel == "webhook":
        return str(getattr(getattr(subscriber, "webhook", None), "url", ""))
    return str(getattr(subscriber, "address", None) or "")


def _backoff(attempts: int) -> int:
    return min(FIRST_WAIT << min(attempts, 12), LONGEST_WAIT)


# ---------------------------------------------------------------------------- what comes back


def returned(store: Store, bounce: bounces.Bounce, now: dt.datetime) -> str:
    """Heed a report of failed delivery, or a wish to unsubscribe; returns in words what was done.

    Raises DeliveryError where it names no message of ours: anybody could write one.
    """
    at, whole = micros(now), bounce.message_id.strip("<>")
    prefix = whole.partition("@")[0]
    rows = store.db.execute(
        "SELECT DISTINCT subscriber, address, message_id FROM outbox WHERE message_id > ? AND message_id < ?"
        " AND channel = 'email'",
        (f"<{prefix}@", f"<{prefix}A"),
    ).fetchall()
    rows = [row for row in rows if bounce.unsubscribe or row[2] == f"<{whole}>"]
    if not rows:
        raise DeliveryError(f"no message of ours bears the id {bounce.message_id}", permanent=True)
    subscriber, address, number = rows[0]
    if not bounce.permanent:
        return f"{subscriber}: {address} is delayed: {bounce.text}"
    reason = bounce.text if bounce.unsubscribe else f"bounced: {bounce.text}"
    with store.writing():
        store.db.execute("INSERT OR IGNORE INTO suppressed VALUES (?, ?, ?)", (address, at, reason))
        if not bounce.unsubscribe:
            store.db.execute(
                "UPDATE outbox SET state = 'failed', outcome = ? WHERE message_id = ? AND channel = 'email'"
                " AND state = 'sent'",
                (reason, number),
            )
        severity: Any = "warning" if bounce.unsubscribe else "error"
        text = f"{subscriber} ({address}) is sent no mail any more: {reason}"
        store.note_findings(at, "alerts", None, [Finding("delivery", severity, text)])
    return text


def read_mailbox(store: Store, maildir: Path, now: dt.datetime) -> list[str]:
    """Heed all new messages of a Maildir; each is seen once. Returns in words what was done."""
    done = []
    for path in bounces.unseen(maildir):
        with bounces.taken(path) as raw:
            try:
                done.append(returned(store, bounces.read(raw), now))
            except DeliveryError as error:
                log.info("left unread by the outbox", file=path.name, why=str(error))
    return done


def read_wishes(store: Store, folder: Path, now: dt.datetime) -> list[str]:
    """Heed the wishes to unsubscribe that the web process left in a folder, as empty files named by their token."""
    done = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if _TOKEN.fullmatch(path.name):
            try:
                done.append(returned(store, bounces.Bounce("", True, path.name, "unsubscribed by its link", True), now))
            except DeliveryError as error:
                log.info("nobody to unsubscribe", why=str(error))
        path.unlink()
    return done
