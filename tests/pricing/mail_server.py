"""A real mail server on loopback, with its own certificate, that misbehaves as a test asks; and plain settings."""

from __future__ import annotations

import datetime as dt
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from pricing import mail
from pricing.mail import Mail
from pricing.parcel import message_id
from pricing.store import Store, micros

logging.getLogger("mail.log").setLevel(logging.ERROR)  # aiosmtpd warns of itself at each login

USER, PASSWORD = "alerts", "correct horse battery staple"
NOW = dt.datetime(2026, 1, 5, 16, 0, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Smtp:
    host: str
    port: int
    security: Any = "starttls"
    user: str = USER
    ca_file: str = ""


@dataclass(frozen=True)
class Alerts:
    sender: str = "Lodemark <alerts@example.org>"
    base_url: str = "https://prices.example.org"
    max_per_hour: int = 1000
    max_per_minute: int = 100_000
    domain: str = "example.org"


@dataclass(frozen=True)
class Subscriber:
    name: str
    address: str = "metals@example.net"
    language: str = "en"
    quiet_hours: Any = None


def shock(series: str = "cobalt/metal/XCN", **other: Any) -> dict[str, Any]:
    """A shock as ``pricing.shocks`` and its documents tell it."""
    return {
        "id": f"{series}:daily:2026-01-05",
        "series": series,
        "of": "price",
        "minerals": [series.split("/")[0]],
        "markets": [series],
        "frequency": "daily",
        "product": "shock",
        "kind": "market",
        "direction": "up",
        "onset": "2026-01-05",
        "flagged": "2026-01-05",
        "last": "2026-01-05",
        "unit": "USD/t",
        "from": {"period": "2026-01-02", "value": 33622.81208981968},
        "to": {"period": "2026-01-05", "value": 41234.5},
        "now": None,
        "change_percent": 22.6385,
        "sigmas": 8.4,
        "expected": {"by": "detector", "median": 33700.0},
        "severity": 3,
        "state": "open",
        "verdict": "market",
        "certainty": "observed",
        "corroboration": {
            "origins_along": ["kestrel", "lantern"],
            "origins_still": ["northgate"],
            "markets_along": ["cobalt/chemical/CN"],
            "markets_against": [],
        },
        "grade": "A",
        "event": None,
        "learnt_at": "2026-01-05T15:58:00.000000Z",
        "age_days": 0,
        "hindsight": False,
        "href": f"/v1/prices/{series}",
        "indices": [{"id": "battery-minerals", "weight": 0.31, "percent": 7.018}],
        **other,
    }


def alert(
    number: int = 1, *, version: int = 1, shocks: list[dict[str, Any]] | None = None, **other: Any
) -> dict[str, Any]:
    """An alert as ``pricing.alerts`` makes it."""
    return {
        "identifier": f"lodemark.{number}.{version}",
        "sent": (NOW + dt.timedelta(minutes=version - 1)).isoformat(),
        "status": "Actual",
        "msgType": "Alert" if version == 1 else "Update",
        "references": [],
        "product": "shock",
        "event": "Cobalt metal, outside China",
        "urgency": "Immediate",
        "severity": "Severe",
        "certainty": "Observed",
        "onset": "2026-01-05",
        "expires": None,
        "thread": f"lodemark.{number}.1",
        "headline": f"Cobalt metal, outside China: +22.6 % ({number})",
        "release": 3,
        "released_at": "2026-01-05T16:00:00.000000Z",
        "simulated": False,
        "shocks": [shock()] if shocks is None else shocks,
        "indices": [],
        "links": {},
        "why": "",
        "list": "partners",
        **other,
    }


def post(
    store: Store,
    made: dict[str, Any],
    *subscribers: Subscriber,
    rank: int = 3,
    due: dt.datetime | None = None,
    channel: str = "email",
    state: str = "waiting",
    digest: str = "",
    address: str = "",
) -> None:
    """Put an alert and its rows into the outbox, as a release does, in one transaction."""
    import orjson

    version, sent = int(made["identifier"].rpartition(".")[2]), dt.datetime.fromisoformat(made["sent"])
    with store.writing():
        store.db.execute(
            "INSERT OR IGNORE INTO alert VALUES (?, 'public', ?, ?, ?, ?)",
            (made["identifier"], made["thread"], version, micros(sent), orjson.dumps(made).decode()),
        )
        for one in subscribers:
            number = message_id(made["identifier"], one.name, "example.org", "salt")
            store.db.execute(
                "INSERT INTO outbox (alert, subscriber, channel, address, digest, rank, due, state, message_id)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    made["identifier"],
                    one.name,
                    channel,
                    address or one.address,
                    digest,
                    rank,
                    micros(due or sent),
                    state,
                    number,
                ),
            )


def rows(store: Store, what: str = "state") -> list[Any]:
    return [row[0] if "," not in what else row for row in store.db.execute(f"SELECT {what} FROM outbox ORDER BY id")]


# --------------------------------------------------------------------------------------- servers


Fault = Callable[[str, "MailServer"], str | None]
"""(phase, server) to the answer, None for the usual one. Phases: EHLO, MAIL, RCPT, DATA, after (message was kept)."""


@dataclass
class MailServer:
    """What came in, and how it is to misbehave."""

    port: int = 0
    raw: list[bytes] = field(default_factory=list)
    envelopes: list[tuple[str, list[str]]] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    connections: int = 0
    fault: Fault | None = None
    transport: Any = None

    @property
    def messages(self) -> list[EmailMessage]:
        return [message_from_bytes(one, policy=policy.default) for one in self.raw]  # type: ignore[misc]

    def cut(self) -> str:
        self.transport.abort()
        return "250 never arrives"

    def _asked(self, phase: str, server: SMTP) -> str | None:
        self.transport = server.transport
        return self.fault(phase, self) if self.fault else None

    # hooks of aiosmtpd

    async def handle_EHLO(self, server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]) -> Any:
        session.host_name = hostname
        answer = self._asked("EHLO", server)
        return [answer] if answer else responses

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        self.connections += 0
        if answer := self._asked("MAIL", server):
            return answer
        envelope.mail_from = address
        return "250 2.1.0 ok"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if answer := self._asked(f"RCPT {address}", server):
            return answer
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if answer := self._asked("DATA", server):
            return answer
        self.raw.append(envelope.original_content)
        self.envelopes.append((envelope.mail_from, list(envelope.rcpt_tos)))
        return self._asked("after", server) or f"250 2.0.0 queued as {len(self.raw)}"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        good = isinstance(data, LoginPassword) and data == LoginPassword(USER.encode(), PASSWORD.encode())
        self.logins.append(mechanism)
        return AuthResult(success=good, handled=False)


@contextmanager
def serving(context: ssl.SSLContext | None, *, implicit: bool = False) -> Iterator[MailServer]:
    """A server with STARTTLS and a login behind it; with TLS from the first byte where ``implicit``; else open."""
    made = MailServer()
    secured: dict[str, Any] = {}
    if context is not None and not implicit:
        secured = {"tls_context": context, "require_starttls": True, "auth_required": True}
    if context is not None:
        secured |= {"authenticator": made.authenticate, "auth_require_tls": not implicit}
    controller = Controller(
        made, hostname="127.0.0.1", port=free_port(), ssl_context=context if implicit else None, **secured
    )
    controller.start()
    made.port = controller.port
    try:
        yield made
    finally:
        controller.stop()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


@contextmanager
def speaking(speak: Callable[[socket.socket], None]) -> Iterator[int]:
    """A listener that says what it is told to and knows no SMTP; its port."""
    stopping = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)

        def accept() -> None:
            while not stopping.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with connection, suppress(OSError):
                    speak(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopping.set()
            thread.join()


def mailer(port: int, certificate: Path | None, **other: Any) -> Mail:
    """The channel to a server; ``localhost`` is what the test's certificate is for."""
    security = other.pop("security", "starttls" if certificate else "none")
    user = other.pop("user", USER if certificate else "")
    password = other.pop("password", PASSWORD)
    smtp = Smtp("localhost" if certificate else "127.0.0.1", port, security, user, str(certificate or ""))
    return Mail(
        Alerts(), smtp, {mail.PASSWORD: password} | other.pop("environ", {}), seconds=other.pop("seconds", 5.0), **other
    )
