"""Who is told of alerts, and how: the tables ``[alerts]`` and ``[[subscribers]]`` of the settings.

Every text that reaches the header of a message is checked here: a line end in it would add headers of its own.
"""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator

from pricing.settings import OneLine, Settings, Slug, Stage, TimeZoneName, Zone, one_line

Channel = Literal["email", "webhook"]
List = Literal["partners", "operator"]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
TEMPLATES = Path(__file__).parent / "templates" / "mail"  # a folder for each language

_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")
_SENDER = re.compile(r"(?P<name>[^<>\"@,;:\\]*)<(?P<address>[^<>\s]+)>|(?P<bare>[^<>\s]+)")


def _address(given: str) -> str:
    if not _ADDRESS.fullmatch(one_line(given)):
        raise ValueError("an e-mail address in ASCII, such as metals@example.org (an international domain as xn--…)")
    return given


def _sender(given: str) -> str:
    found = _SENDER.fullmatch(one_line(given).strip())
    if not found:
        raise ValueError("an address with or without a name, such as 'Lodemark <alerts@example.org>'")
    _address(found["address"] or found["bare"])
    return given


def _minute(given: str) -> str:
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", given):
        raise ValueError("a time of day between '00:00' and '23:59'")
    return given


def _web_address(given: str) -> str:
    """Check an address that is called or linked: no credentials in it, nothing after a #."""
    try:
        parts = urlsplit(one_line(given))
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError as error:
        raise ValueError(f"a web address, such as https://example.org/alerts: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or " " in given or not given.isascii():
        raise ValueError("a web address in ASCII, such as https://example.org/alerts")
    if parts.username or parts.password or parts.fragment:
        raise ValueError("a web address without user, password or #fragment: a secret comes from the environment")
    return given


Address = Annotated[str, AfterValidator(_address)]
Minute = Annotated[str, AfterValidator(_minute)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
Environment = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]


class Smtp(Settings):
    """The server that takes the mail. The password comes from ``LODEMARK_SMTP_PASSWORD``."""

    host: OneLine = Field(min_length=1)
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: OneLine = ""
    ca_file: str = Field(default="", description="certificates that are trusted instead of the system's")

    @model_validator(mode="after")
    def _secured(self) -> Smtp:
        if self.security == "none" and self.host not in LOOPBACK:
            raise ValueError(f"security 'none' is for this machine only ({', '.join(LOOPBACK)}): starttls or tls")
        if self.security == "none" and self.user:
            raise ValueError("a password is never sent without starttls or tls: leave user out")
        return self


class Dkim(Settings):
    """Which key signs mail: from ``LODEMARK_DKIM_KEY``, or a file that nobody else may read."""

    domain: OneLine = Field(pattern=r"^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$")
    selector: OneLine = Field(pattern=r"^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$")
    key_file: str = ""


class Webhook(Settings):
    """Where a program is told. Each call is signed with the secret that an environment variable holds."""

    url: WebAddress
    secret_environment: Environment = Field(description="environment variable that holds the secret")
    allow_private: bool = Field(default=False, description="allow addresses of this machine and its network")

    @model_validator(mode="after")
    def _secured(self) -> Webhook:
        if self.url.startswith("http:") and not self.allow_private:
            raise ValueError("url: https; http only together with allow_private = true")
        return self


class QuietHours(Settings):
    """When a subscriber is left alone, and the severity that breaks it."""

    model_config = ConfigDict(populate_by_name=True)

    start: Minute = Field(alias="from")
    end: Minute = Field(alias="to")
    zone: TimeZoneName
    break_at: int = Field(default=4, ge=1, le=5, description="least severity that is told all the same; 5: none")

    @model_validator(mode="after")
    def _a_span(self) -> QuietHours:
        if self.start == self.end:
            raise ValueError("from and to are the same: leave quiet_hours out, or choose digest = 'daily'")
        return self

    def ends(self, at: dt.datetime) -> dt.datetime:
        """Return when the quiet hours that an instant lies in end (UTC); the instant itself outside them."""
        local = at.astimezone(ZoneInfo(self.zone))
        clock = local.strftime("%H:%M")
        past_midnight = self.start > self.end
        inside = clock >= self.start or clock < self.end if past_midnight else self.start <= clock < self.end
        if not inside:
            return at
        day = local.date() + dt.timedelta(days=past_midnight and clock >= self.start)
        return dt.datetime.combine(day, dt.time.fromisoformat(self.end), ZoneInfo(self.zone)).astimezone(dt.UTC)


class Alerts(Settings):
    """When alerts open, when they are let be, and how they are sent. Without ``from`` no mail is sent."""

    model_config = ConfigDict(populate_by_name=True)

    sender: Annotated[str, AfterValidator(_sender)] | None = Field(default=None, alias="from")
    base_url: WebAddress | None = Field(default=None, description="where the endpoint is reached, for links")
    least_severity: int = Field(default=2, ge=1, le=4, description="of a shock that opens an alert")
    reopen_hours: float = Field(default=72, ge=0, description="an alert ends when its shocks have been over so long")
    suppress_hours: float = Field(
        default=20, ge=0, description="between two messages of an alert that is not worse, over or an error"
    )
    max_per_hour: int = Field(
        default=10, ge=1, description="messages to one subscriber over one channel; the rest goes into a digest"
    )
    max_per_minute: int = Field(default=60, ge=1, description="messages to all")
    digest_at: Minute = "07:30"
    time_zone: TimeZoneName = Field(default="UTC", description="of digest_at, where quiet hours name no other")
    late_minutes: int = Field(default=60, ge=1, description="after which a release or a message in the outbox is late")
    failing_hours: float = Field(default=24, gt=0, description="after which a source that cannot be read is told of")
    subscribers: str = Field(default="", description="file with the [[subscribers]], beside the settings")
    smtp: Smtp | None = None
    dkim: Dkim | None = None
    mailbox: str = Field(default="", description="Maildir in which returned mail arrives; or 'lodemark alerts bounce'")

    @model_validator(mode="after")
    def _sendable(self) -> Alerts:
        if self.sender and not self.smtp:
            raise ValueError("from is given, but no [alerts.smtp] that takes the mail")
        return self

    @property
    def domain(self) -> str:
        """Domain of the sender; it stands in the identifiers of messages."""
        return (self.sender or "alerts@lodemark.invalid").rpartition("@")[2].rstrip("> ")


class Subscriber(Settings):
    """Somebody who is told, and of what: a shock that fits all that is given; nothing given: all shocks."""

    name: OneLine = Field(min_length=1, max_length=80)
    list: List = "partners"
    address: Address | None = None
    language: str = Field(default="en", pattern="^[a-z]{2}$")
    minerals: tuple[Slug, ...] = ()
    stages: tuple[Stage, ...] = ()
    zones: tuple[Zone, ...] = ()
    indices: tuple[Slug, ...] = ()
    least_severity: int = Field(default=1, ge=1, le=4)
    channels: tuple[Channel, ...] = Field(default=("email",), min_length=1)
    webhook: Webhook | None = None
    quiet_hours: QuietHours | None = None
    digest: Literal["immediate", "daily", "weekly"] = "immediate"
    corrections: bool = Field(default=True, description="told when the figures of an alert are revised")

    @field_validator("language")
    @classmethod
    def _spoken(cls, given: str) -> str:
        known = sorted(p.name for p in TEMPLATES.iterdir() if p.is_dir()) if TEMPLATES.is_dir() else [given]
        if given not in known:
            raise ValueError(f"no texts in this language; there are {', '.join(known)}")
        return given

    @model_validator(mode="after")
    def _reachable(self) -> Subscriber:
        if "email" in self.channels and not self.address:
            raise ValueError("address: missing, for the channel email")
        if ("webhook" in self.channels) != (self.webhook is not None):
            raise ValueError("the channel webhook and a webhook table go together")
        if self.list == "operator" and (self.minerals or self.stages or self.zones or self.indices):
            raise ValueError("the operator is told of everything: minerals, stages, zones and indices are for partners")
        return self

    def wants(self, shock: dict[str, Any]) -> bool:
        """Tell whether a shock is one that this subscriber is to hear of."""
        if shock["severity"] < self.least_severity:
            return False
        if not (self.minerals or self.stages or self.zones or self.indices):
            return True
        if shock["of"] == "index":
            return shock["series"] in self.indices
        fits = (self.minerals, self.stages, self.zones)
        return any(fits) and any(
            all(not wanted or part in wanted for wanted, part in zip(fits, market.split("/"), strict=True))
            for market in shock["markets"]
        )


def named_twice(subscribers: tuple[Subscriber, ...]) -> list[str]:
    """Return names that several subscribers bear, whatever the case of their letters."""
    names = [s.name.casefold() for s in subscribers]
    return sorted({name for name in names if names.count(name) > 1})
