"""What the outbox hands to a channel: one message to one subscriber."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Alert = Mapping[str, Any]


class Subscriber(Protocol):
    """Who is written to, and in which language: the folder of templates."""

    @property
    def name(self) -> str:
        """Name in the settings."""

    @property
    def language(self) -> str:
        """Folder of ``templates/mail``."""


@dataclass(frozen=True)
class Parcel:
    """One message.

    Attributes
    ----------
    message_id : str
        ``<…@domain>``. An attempt that may have arrived is repeated under the same one.
    alerts : sequence of dict
        One, or those of a digest, the worst first.
    digest : bool
    earlier : sequence of str
        Message ids under which earlier versions of the alert went to this subscriber, oldest first.
    date : datetime
        From when on it could go out; the same at each attempt.
    """

    subscriber: Subscriber
    address: str
    message_id: str
    alerts: Sequence[Alert]
    digest: bool
    earlier: Sequence[str]
    date: dt.datetime


class Channel(Protocol):
    """A way to a subscriber."""

    def send(self, parcel: Parcel, now: dt.datetime) -> str:
        """Send one message; returns the other side's words. Raises DeliveryError."""

    def close(self) -> None:
        """Let go of what was held for the messages of one round."""


def message_id(identifier: str, subscriber: str, domain: str, salt: str) -> str:
    """Message id of one alert to one subscriber: always the same, and not to be guessed without the store's salt.

    Whoever answers with it, in a bounce or to unsubscribe, has had the message.
    """
    text = "\n".join((salt, identifier, subscriber))
    return f"<{hashlib.sha256(text.encode()).hexdigest()[:40]}@{domain}>"


def token(message_id: str) -> str:
    """Part of a message id before the ``@``: what an address to unsubscribe ends with."""
    return message_id.strip("<>").partition("@")[0]
