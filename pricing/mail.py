"""Mail: an alert into a message, and a message to the server. The only module that sends mail.

A message is made from the alert alone, so every attempt makes the same one. Texts stand in
``templates/mail/LANGUAGE``: a language is added by a folder.
"""

from __future__ import annotations

import datetime as dt
import io
import platform
import smtplib
import ssl
import time
import tomllib
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import quote

import jinja2

from pricing.errors import AddressRefused, ChannelDown, DeliveryError, ReleaseError
from pricing.keys import read_secret
from pricing.parcel import Alert, Parcel, Subscriber, message_id, token

TEMPLATES = Path(__file__).parent / "templates" / "mail"
PASSWORD = "LODEMARK_SMTP_PASSWORD"
DKIM_KEY = "LODEMARK_DKIM_KEY"
LISTED = 40  # alerts that a digest tells; the rest are counted
LOST = 3  # connections that die one after the other: it is the server, not a message
SECONDS = 60.0  # longest time for greeting and login, and for one message
_NARROW = "\N{NO-BREAK SPACE}"  # between thousands: neither a point nor a comma, which countries read differently
_SIGNED = ("From", "To", "Subject", "Date", "Message-ID", "References", "In-Reply-To", "MIME-Version", "Content-Type",
           "List-Id", "List-Unsubscribe", "List-Unsubscribe-Post", "Auto-Submitted")  # fmt: skip
_WIDE = SMTP.clone(max_line_length=998)  # of headers: folded, the addresses of List-Unsubscribe would be encoded
_BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

Chart = Callable[[Alert], bytes | None]


class Smtp(Protocol):
    """The server that takes our mail. Its password stands in ``LODEMARK_SMTP_PASSWORD``."""

    @property
    def host(self) -> str: ...  # noqa: D102
    @property
    def port(self) -> int: ...  # noqa: D102
    @property
    def security(self) -> Literal["starttls", "tls", "none"]: ...  # noqa: D102
    @property
    def user(self) -> str: ...  # noqa: D102
    @property
    def ca_file(self) -> str: ...  # noqa: D102


class Dkim(Protocol):
    """The key that signs mail: in ``LODEMARK_DKIM_KEY``, else in a file that only its owner may read."""

    @property
    def domain(self) -> str: ...  # noqa: D102
    @property
    def selector(self) -> str: ...  # noqa: D102
    @property
    def key_file(self) -> str: ...  # noqa: D102


class Letterhead(Protocol):
    """What every message says of its sender."""

    @property
    def sender(self) -> str | None:
        """``Name <address>``."""

    @property
    def base_url(self) -> str | None:
        """Where the endpoint is to be found: links begin with it."""


# ------------------------------------------------------------------------------- composing


def compose(
    alert: Alert,
    subscriber: Subscriber,
    settings: Letterhead,
    chart_png: bytes | None = None,
    earlier: Sequence[str] = (),
    *,
    address: str = "",
    number: str = "",
    date: dt.datetime | None = None,
) -> EmailMessage:
    """Make the message of one alert, plain text and HTML.

    Parameters
    ----------
    earlier : sequence of str
        Message ids of earlier versions of the alert, oldest first.
    address : str
        Where it goes; the subscriber's when empty.
    number : str
        Its own message id; one that rests on the alert and the subscriber alone when empty.
    date : datetime
        Aware; when the alert was sent when None.

    Raises
    ------
    DeliveryError
        Permanent: what would stand in a header holds a control character, the address is none, or the alert lacks
        what a message needs. It names the field.
    """
    return _composed("alert", [alert], subscriber, settings, chart_png, earlier, address, number, date)


def compose_digest(
    alerts: Sequence[Alert],
    subscriber: Subscriber,
    settings: Letterhead,
    *,
    address: str,
    number: str,
    date: dt.datetime,
) -> EmailMessage:
    """Make one message of several alerts, the worst first. Raises as ``compose`` does."""
    return _composed("digest", alerts, subscriber, settings, None, (), address, number, date)


def _composed(
    template: str,
    alerts: Sequence[Alert],
    subscriber: Subscriber,
    settings: Letterhead,
    chart_png: bytes | None,
    earlier: Sequence[str],
    address: str,
    number: str,
    date: dt.datetime | None,
) -> EmailMessage:
    name, sender = parseaddr(_header("from", settings.sender or ""))
    first = alerts[0]
    words = _words(subscriber.language)
    number = number or message_id(first["identifier"], subscriber.name, sender.rpartition("@")[2], "")
    to = address or str(getattr(subscriber, "address", ""))
    links = _Links(settings.base_url or "")
    facts = {
        "alerts": [_clean(one) for one in alerts[:LISTED]],
        "count": len(alerts),
        "told_before": bool(earlier),
        "words": words,
        "name": subscriber.name,
        "sender": sender,
        "unsubscribe": f"{sender}?subject=unsubscribe%20{token(number)}",
        "one_click": links.one_click(number),
        "links": links,
        "chart": f"chart-{token(number)}@{sender.rpartition('@')[2]}" if chart_png else "",
        "highest": max(words["severities"].index(str(one["severity"]).lower()) for one in alerts),
    }
    environment = _environment(subscriber.language)
    try:
        # The subject is made from the alert as it is: what must not stand in a header is refused, not mended.
        subject = environment.get_template(f"{template}_subject.txt").render(facts | {"alerts": list(alerts[:LISTED])})
        text = environment.get_template(f"{template}.txt").render(facts)
        html = environment.get_template(f"{template}.html").render(facts)
    except (jinja2.TemplateError, LookupError, TypeError, ValueError) as error:
        raise DeliveryError(
            f"alert {first['identifier']}: no message can be made of it: {error!r}", permanent=True
        ) from error
    message = EmailMessage(policy=SMTP)
    message["From"] = _mailbox("from", name, sender)
    message["To"] = _mailbox("address", subscriber.name, to)
    message["Subject"] = _header("subject", subject.strip())
    message["Date"] = format_datetime((date or dt.datetime.fromisoformat(first["sent"])).astimezone(dt.UTC))
    message["Message-ID"] = _header("message id", number)
    if earlier:
        message["In-Reply-To"] = _header("earlier message id", earlier[-1])
        message["References"] = " ".join(_header("earlier message id", one) for one in earlier)
    message["List-Id"] = _header("from", f"<alerts.{sender.rpartition('@')[2]}>")
    ways = [f"<mailto:{facts['unsubscribe']}>"]
    if facts["one_click"]:
        ways.insert(0, f"<{_header('base_url', str(facts['one_click']))}>")
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message["List-Unsubscribe"] = ", ".join(ways)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text, cte="quoted-printable")
    message["Content-Language"] = _header("language", subscriber.language)
    message.add_alternative(html, subtype="html", cte="quoted-printable")
    if chart_png:
        parts: Any = message.get_payload()
        parts[1].add_related(
            chart_png, "image", "png", cid=f"<{facts['chart']}>", filename="chart.png", disposition="inline"
        )
    for n, part in enumerate(p for p in message.walk() if p.is_multipart()):
        part.set_boundary(f"={token(number)[:24]}={n}")  # not drawn, so that every attempt makes the same bytes
    message.policy = _WIDE
    return message


def _mailbox(field: str, name: str, address: str) -> Address:
    _header(field, name)
    try:
        return Address(_header("name", name), addr_spec=_header(field, address))
    except (MessageError, ValueError, LookupError, AttributeError) as error:
        raise DeliveryError(f"{field}: {address!r} is no mail address: {error}", permanent=True) from error


def _header(field: str, text: str) -> str:
    bad = next((c for c in text if _is_control(c)), None)
    if bad is not None:
        what = f"the control character U+{ord(bad):04X}"
        raise DeliveryError(f"{field}: {text[:80]!r} holds {what}, which no header may hold; mend it", permanent=True)
    return text


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs") or char in _BIDIRECTIONAL


def _clean(value: Any) -> Any:
    """Replace control characters of all texts: a terminal or a browser would heed them."""
    if isinstance(value, str):
        return "".join("\N{REPLACEMENT CHARACTER}" if _is_control(c) else c for c in value)
    if isinstance(value, Mapping):
        return {_clean(k): _clean(v) for k, v in value.items()}
    return [_clean(v) for v in value] if isinstance(value, list | tuple) else value


class _Links:
    """Addresses in a message: our own below the base address, others only on the web."""

    def __init__(self, base_url: str) -> None:
        self._base = base_url.rstrip("/")

    def __call__(self, href: str) -> str:
        """Whole address of a link; empty where it is none that a message may hold."""
        if href.startswith("/"):
            return f"{self._base}{quote(href, safe='/:?&=%#@,;+')}" if self._base else ""
        return href if href.startswith(("https://", "http://")) else ""

    def record(self, one: Mapping[str, Any], release: int | None) -> str:
        """Determination record of a shock's price as released: the year's, which never changes."""
        if one["of"] != "price" or not release:
            return ""
        year = str(one["to"]["period"])[:4]
        return self(f"/v1/releases/{release}/prices/{one['series']}/{one['frequency']}/{year}.json")

    def one_click(self, number: str) -> str:
        """Address that ends a subscription when it is posted to (RFC 8058); only where nobody can listen in."""
        return f"{self._base}/unsubscribe/{token(number)}" if self._base.startswith("https://") else ""


# ------------------------------------------------------------------------------------ words


@cache
def _words(language: str) -> dict[str, Any]:
    folder = TEMPLATES / language
    if not language.isalnum() or not (folder / "words.toml").exists():
        known = ", ".join(sorted(f.name for f in TEMPLATES.iterdir() if f.is_dir()))
        raise DeliveryError(f"language: {language!r} has no texts; there are {known}", permanent=True)
    return tomllib.loads((folder / "words.toml").read_text("utf-8"))


@cache
def _environment(language: str) -> jinja2.Environment:
    words = _words(language)
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES / language),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "number": number,
        "percent": percent,
        "period": partial(_period, words=words),
        "moment": partial(_moment, words=words),
        "market": partial(_market, words=words),
        "spaced": lambda text: str(text).replace("-", " "),
    }
    return made


def titled(language: str) -> Callable[[str], str]:
    """Return what says the name of a series in words."""
    return partial(_market, words=_words(language))


def number(value: float) -> str:
    """Six significant digits at most, thousands apart by a space, a point before decimals."""
    text = f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:,.6g}"
    return text.replace(",", _NARROW) if "e" not in text else f"{value:.6g}"


def percent(value: float) -> str:
    """A change in per cent, with its sign and three digits."""
    places = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:+,.{places}f}".replace(",", _NARROW).replace("-", "\N{MINUS SIGN}") + f"{_NARROW}%"


def _period(period: str, words: Mapping[str, Any]) -> str:
    if len(period) not in (7, 10):
        return period
    month = words["months"][int(period[5:7]) - 1]
    return f"{int(period[8:])} {month} {period[:4]}" if len(period) == 10 else f"{month} {period[:4]}"


def _moment(instant: str, words: Mapping[str, Any]) -> str:
    at = dt.datetime.fromisoformat(instant).astimezone(dt.UTC)
    return f"{_period(at.date().isoformat(), words)}, {at:%H:%M} UTC"


def _market(series: str, words: Mapping[str, Any]) -> str:
    """``gallium/metal/XCN`` in words; a premium and an index as they are called."""
    kind, _, rest = series.partition("/")
    parts = (rest if kind == "premium" else series).split("/")
    spoken = " ".join(p.replace("-", " ") for p in parts[:2])
    if kind == "premium":
        return str(words["premium"]).format(product=spoken)
    return f"{spoken}, {words['zones'].get(parts[2], parts[2])}" if len(parts) == 3 else f"{spoken} ({words['index']})"


# ----------------------------------------------------------------------------------- sending


class Mail:
    """The channel ``email``: composes, signs and hands messages to the server, all over one connection.

    Parameters
    ----------
    letterhead
        Sender and base address.
    smtp, dkim
        The server, and the key of signatures where there is one.
    environ
        Where password and key stand.
    chart : callable
        (alert) to a PNG, or None where nothing can be drawn.
    seconds : float
        Longest time for greeting and login, and for each message.
    """

    def __init__(
        self,
        letterhead: Letterhead,
        smtp: Smtp,
        environ: Mapping[str, str],
        dkim: Dkim | None = None,
        chart: Chart | None = None,
        seconds: float = SECONDS,
    ) -> None:
        self._seconds = seconds
        self._letterhead, self._smtp, self._chart = letterhead, smtp, chart
        self._password = environ.get(PASSWORD, "")
        self._dkim, self._environ = dkim, environ
        self._sign: Callable[[bytes], bytes] | None = None
        self._charts: dict[str, bytes | None] = {}
        self._session: Session | None = None
        self._lost = 0  # connections, one after the other

    def send(self, parcel: Parcel, now: dt.datetime) -> str:
        """Compose, sign and send; returns the server's words. Raises DeliveryError."""
        sender = parseaddr(self._letterhead.sender or "")[1]
        raw = self.message(parcel).as_bytes()
        if self._sign is None:
            self._sign = signer(self._dkim, self._environ) if self._dkim else lambda _: b""
        signed = self._sign(raw) + raw
        if self._session is None:
            self._session = Session(self._smtp, self._password, self._seconds)
        try:
            told = self._session.send(sender, parcel.address, signed)
        except DeliveryError as error:
            if not self._session.usable:
                self.close()
                self._lost += 1
                if self._lost >= LOST:
                    raise ChannelDown(str(error)) from None
            raise
        self._lost = 0
        return told

    def message(self, parcel: Parcel) -> EmailMessage:
        """Compose what a parcel says."""
        to, head = parcel.subscriber, self._letterhead
        if parcel.digest:
            return compose_digest(
                parcel.alerts, to, head, address=parcel.address, number=parcel.message_id, date=parcel.date
            )
        alert = parcel.alerts[0]
        if self._chart is not None and alert["identifier"] not in self._charts:
            self._charts = {alert["identifier"]: self._chart(alert)}  # the next subscribers' messages are of the same
        chart = self._charts.get(alert["identifier"])
        return compose(
            alert, to, head, chart, parcel.earlier, address=parcel.address, number=parcel.message_id, date=parcel.date
        )

    def close(self) -> None:
        """End the connection."""
        if self._session is not None:
            self._session.close()
        self._session = None


def signer(dkim: Dkim, environ: Mapping[str, str]) -> Callable[[bytes], bytes]:
    """Return what makes the DKIM-Signature header of a message (RFC 6376; RSA).

    Raises
    ------
    ChannelDown
        There is no key, others can read it, or it is none: unsigned mail would look like a forgery.
    """
    import dkim as library

    where = DKIM_KEY if environ.get(DKIM_KEY) else str(dkim.key_file)
    try:
        key = (
            environ[DKIM_KEY].encode()
            if environ.get(DKIM_KEY)
            else read_secret(Path(dkim.key_file))
            if dkim.key_file
            else b""
        )
    except ReleaseError as error:
        raise ChannelDown(f"alerts.dkim: {error}") from error

    def sign(raw: bytes) -> bytes:
        # Each is named once more than it is there, and so signed as absent beyond: nobody can add another one.
        names = (dkim.selector.encode(), dkim.domain.encode(), key)
        made: bytes = library.sign(raw, *names, canonicalize=(b"relaxed", b"relaxed"), include_headers=_SIGNED * 2)
        return made

    try:
        sign(b"From: a@example.org\r\n\r\n\r\n")
    except Exception as error:  # dkimpy raises what its ASN.1 reader raises; a text of theirs might quote the key
        raise ChannelDown(f"alerts.dkim: {where}: no private RSA key in PEM ({type(error).__name__})") from None
    return sign


class Session:
    """One connection to the mail server, greeted, secured and logged in.

    ``usable`` tells whether another message may be tried over it.

    Raises
    ------
    ChannelDown
        No message can be sent at all: no connection, no trust in its certificate, no login.
    """

    def __init__(self, settings: Smtp, password: str, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        with _explained(f"{settings.host}:{settings.port}"):
            self._connection = _connected(settings, password, seconds)
        self.usable = True

    def send(self, sender: str, recipient: str, raw: bytes) -> str:
        """Send one message to one address; returns what the server said when it took it.

        Raises
        ------
        DeliveryError
            It did not go out, or nobody knows: the connection died before the last answer came.
        AddressRefused
            The server says that there is no such address.
        ChannelDown
            The server is closing, or takes nothing from this sender.
        """
        self._connection.begin(self._seconds)
        try:
            self._expect(
                "sender",
                self._connection.mail(sender, [f"size={len(raw)}"] if self._connection.has_extn("size") else ()),
            )
            self._expect("recipient", self._connection.rcpt(recipient))
            return self._expect("message", self._connection.data(raw))
        except smtplib.SMTPResponseException as error:
            raise self._refused("message", error.smtp_code, error.smtp_error) from None
        except (OSError, smtplib.SMTPException) as error:
            self.usable = False
            raise DeliveryError(f"the connection was lost: {_plain(str(error) or type(error).__name__)}") from None

    def _expect(self, what: str, answer: tuple[int, bytes]) -> str:
        if answer[0] // 100 != 2:
            raise self._refused(what, *answer)
        return _said(*answer)

    def _refused(self, what: str, code: int, text: bytes | str) -> DeliveryError:
        said = f"{what} refused: {_said(code, text)}"
        if code == 421 or code // 100 not in (4, 5):  # the server is closing, or is none
            self.usable = False
            return ChannelDown(said)
        try:
            self._connection.rset()
        except (OSError, smtplib.SMTPException):
            self.usable = False
        if code // 100 == 4:
            return DeliveryError(said)
        if what == "sender" or code == 530:
            self.usable = False
            return ChannelDown(said)  # nothing that the recipient could be blamed for
        enhanced = _said(code, text).split()[1:2]
        ours = enhanced and enhanced[0].startswith(("5.2.2", "5.3", "5.4", "5.5", "5.6", "5.7"))
        return AddressRefused(said) if what == "recipient" and not ours else DeliveryError(said, permanent=True)

    def close(self) -> None:
        """Say goodbye, if the server still listens."""
        with suppress(OSError, smtplib.SMTPException):
            if self.usable:
                self._connection.begin(5)
                self._connection.quit()
        self._connection.close()


@contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise ChannelDown(f"{where}: its certificate is not trusted ({error.verify_message})") from None
    except smtplib.SMTPAuthenticationError as error:
        raise ChannelDown(f"{where}: refuses user or password: {_said(error.smtp_code, error.smtp_error)}") from None
    except smtplib.SMTPResponseException as error:
        raise ChannelDown(f"{where}: {_said(error.smtp_code, error.smtp_error)}") from None
    except (OSError, smtplib.SMTPException) as error:
        raise ChannelDown(f"{where}: {_plain(str(error) or type(error).__name__)}") from None


def _connected(settings: Smtp, password: str, seconds: float) -> _Connection:
    if settings.security == "none":
        connection = _Connection(settings.host, settings.port, timeout=seconds)
    else:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.security == "tls":
            connection = _Secure(settings.host, settings.port, timeout=seconds, context=context)
        else:
            connection = _Connection(settings.host, settings.port, timeout=seconds)
    try:
        if settings.security == "starttls":
            connection.starttls(context=context)
        connection.ehlo_or_helo_if_needed()
        if settings.user:
            connection.login(settings.user, password)
    except BaseException:
        connection.close()
        raise
    return connection


class _Connection(smtplib.SMTP):
    """smtplib with one limit of time for all it does: a server that says a letter a minute would hold it for ever."""

    def __init__(self, host: str, port: int, *, timeout: float, **kwargs: Any) -> None:
        self.begin(timeout)
        # smtplib would look the machine's name up, however long that takes.
        super().__init__(host, port, platform.node() or "localhost", timeout=timeout, **kwargs)

    def begin(self, seconds: float) -> None:
        """Start the clock anew."""
        self._deadline = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until the limit. Raises TimeoutError after it."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("not finished within its time")
        return left

    def send(self, s: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(self.left())
        super().send(s)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = io.BufferedReader(_Timed(self.sock, self.left))
        return super().getreply()


class _Secure(_Connection, smtplib.SMTP_SSL):
    """The same with TLS from the first byte."""


class _Timed(io.RawIOBase):
    def __init__(self, sock: Any, left: Callable[[], float]) -> None:
        self._sock, self._left = sock, left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._left())
        received: int = self._sock.recv_into(buffer)
        return received


def _said(code: int, text: bytes | str) -> str:
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    return f"{code} {_plain(words)}"


def _plain(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]
