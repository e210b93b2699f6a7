"""Alerts to an address of the subscriber's own: a signed POST, by the rules of Standard Webhooks.

``webhook-signature`` is ``v1,`` and the base64 of HMAC-SHA256 over ``webhook-id.webhook-timestamp.body``, with the
subscriber's secret. ``webhook-id`` is that of the message: a repeated attempt bears the same one.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson

from pricing.config import Fetching
from pricing.connections import Failure, Limits, Session, explained, refuse_private
from pricing.errors import AddressRefused, DeliveryError
from pricing.parcel import Parcel, token

SECONDS = 20.0  # longest time for one attempt
LEAST_SECRET = 24  # bytes
LISTED = 1000  # alerts in one body; the rest are counted


class Webhook(Protocol):
    """Where a subscriber takes alerts."""

    @property
    def url(self) -> str: ...  # noqa: D102
    @property
    def secret_environment(self) -> str: ...  # noqa: D102
    @property
    def allow_private(self) -> bool: ...  # noqa: D102


class Caller:
    """The channel ``webhook``.

    Parameters
    ----------
    targets : mapping of subscriber's name to Webhook
    environ
        Where the secrets stand: base64 of 24 bytes at least, with or without ``whsec_`` before it.
    user_agent : str
    seconds : float
        Longest time for one attempt.
    """

    def __init__(
        self,
        targets: Mapping[str, Webhook],
        environ: Mapping[str, str],
        user_agent: str = "Lodemark",
        seconds: float = SECONDS,
    ) -> None:
        self._targets, self._environ, self._user_agent, self._seconds = targets, environ, user_agent, seconds

    def send(self, parcel: Parcel, now: dt.datetime) -> str:
        """Post one message. Raises DeliveryError; AddressRefused where the subscriber answers 410 (gone)."""
        target = self._targets.get(parcel.subscriber.name)
        if target is None or target.url != parcel.address:
            raise DeliveryError(
                f"webhook: {parcel.address} is no address of {parcel.subscriber.name} any more", permanent=True
            )
        body = payload(parcel)
        headers = signed(secret(target.secret_environment, self._environ), token(parcel.message_id), now, body)
        limits = Limits(
            Fetching(
                user_agent=self._user_agent,
                allow_private=target.allow_private,
                total_seconds=self._seconds,
                read_seconds=self._seconds,
            ),
            time.monotonic() + self._seconds,
        )
        try:
            with explained(limits), Session(limits) as session:
                session.trust_env = False  # a proxy would resolve the name, and so decide what is reachable
                _refuse_private_number(target.url, limits)
                options: dict[str, Any] = {"timeout": self._seconds, "allow_redirects": False, "stream": True}
                with session.post(target.url, data=body, headers=headers, **options) as answer:
                    status, told = answer.status_code, answer.headers.get("Retry-After", "")
        except Failure as error:
            # A certificate or a name is mended within days as a server is, so these are tried again too.
            raise DeliveryError(
                f"webhook: {error}", permanent=error.permanent and "open internet" in str(error)
            ) from None
        if status == 410:
            raise AddressRefused("webhook: HTTP 410: the address is gone")
        if status // 100 != 2:
            raise DeliveryError(f"webhook: HTTP {status}", wait=_wait(told, now))
        return f"HTTP {status}"

    def close(self) -> None:
        """Hold nothing."""


def payload(parcel: Parcel) -> bytes:
    """Body of a message: JSON with ``id``, ``type`` (alert or digest), ``count``, and ``alerts``, the worst first."""
    return orjson.dumps(
        {
            "id": token(parcel.message_id),
            "type": "digest" if parcel.digest else "alert",
            "count": len(parcel.alerts),
            "alerts": list(parcel.alerts[:LISTED]),
        },
        option=orjson.OPT_SORT_KEYS,
    )


def signed(key: bytes, number: str, now: dt.datetime, body: bytes) -> dict[str, str]:
    """Headers of a signed body."""
    at = str(int(now.timestamp()))
    mark = base64.b64encode(hmac.digest(key, b".".join((number.encode(), at.encode(), body)), hashlib.sha256))
    return {
        "Content-Type": "application/json",
        "webhook-id": number,
        "webhook-timestamp": at,
        "webhook-signature": f"v1,{mark.decode()}",
    }


def secret(variable: str, environ: Mapping[str, str]) -> bytes:
    """Return a subscriber's secret. Raises DeliveryError where there is none, or one that can be guessed."""
    try:
        key = base64.b64decode(environ.get(variable, "").removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if len(key) < LEAST_SECRET:
        raise DeliveryError(f"webhook: {variable} holds no base64 of {LEAST_SECRET} bytes or more: nothing was sent")
    return key


def _refuse_private_number(url: str, limits: Limits) -> None:
    """Judge an address written as a number, which is never resolved."""
    host = urlsplit(url).hostname or ""
    if host.replace(".", "").isdigit() or ":" in host:
        try:
            refuse_private(host, [host], limits)
        except ValueError:
            raise Failure(f"{host} is no address on the open internet", again=False) from None


def _wait(told: str, now: dt.datetime) -> float:
    """Seconds that a Retry-After asks for; none where it says nothing sensible."""
    if told.isdigit():
        return float(told[:6])
    try:
        return max(0.0, (parsedate_to_datetime(told) - now).total_seconds())
    except (ValueError, TypeError):
        return 0.0
