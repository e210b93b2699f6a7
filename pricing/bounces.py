"""What comes back to the sender's mailbox: reports of failed delivery (RFC 3464), and wishes to unsubscribe."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import Message
from email.utils import parseaddr
from pathlib import Path
from typing import Any

from pricing.errors import DeliveryError

LONGEST = 1 << 20  # bytes of a report that are read: it may carry the whole message, after what matters
_STATUS = re.compile(r"\b([245])\.\d{1,3}\.\d{1,3}\b")
_REPLY = re.compile(r"\b([245])\d\d[ -]")
_MESSAGE_ID = re.compile(r"^\s*message-id:\s*(<[^<>\s]{1,250}>)", re.IGNORECASE | re.MULTILINE)
_UNSUBSCRIBE = re.compile(r"\bunsubscribe\s+([0-9a-f]{40})\b", re.IGNORECASE)


@dataclass(frozen=True)
class Bounce:
    """One report.

    Attributes
    ----------
    address : str
        Whom the message did not reach; of a wish to unsubscribe, whoever wrote.
    permanent : bool
        Nothing sent there will arrive.
    message_id : str
        Of our message, with its angle brackets; of a wish to unsubscribe, its part before the ``@``.
    text : str
        What the server said.
    unsubscribe : bool
    """

    address: str
    permanent: bool
    message_id: str
    text: str
    unsubscribe: bool = False


def read(raw: bytes) -> Bounce:
    """Read one message of the sender's mailbox.

    Raises
    ------
    DeliveryError
        It reports no failed delivery of a message of ours: an answer of a person or of a machine, or a report without
        address, status or message id.
    """
    message = message_from_bytes(raw[:LONGEST], policy=policy.compat32)
    subject = _plain(str(message.get("Subject", "")))
    if found := _UNSUBSCRIBE.search(subject):
        return Bounce(parseaddr(str(message.get("From", "")))[1], True, found[1].lower(), "unsubscribed by mail", True)
    status = next((p for p in message.walk() if p.get_content_type() == "message/delivery-status"), None)
    fields = _recipient(status) if status is not None else _improvised(message)
    action, code = fields.get("action", "failed").lower(), fields.get("status", "")
    if action not in ("failed", "delayed") or not code:
        raise DeliveryError(
            f"no report of a failed delivery: {subject or 'a message without subject'!r}", permanent=True
        )
    returned = _returned(message)
    if not fields.get("address") or not returned:
        lacks = "message id of ours" if fields.get("address") else "address"
        raise DeliveryError(f"a report of failed delivery without {lacks}: {subject!r}", permanent=True)
    return Bounce(fields["address"], code.startswith("5") and action == "failed", returned, fields.get("text", code))


def _recipient(status: Message) -> dict[str, str]:
    """The block of a delivery status that names a recipient."""
    parts: Any = status.get_payload()
    for block in parts if isinstance(parts, list) else []:
        named = block.get("Original-Recipient") or block.get("Final-Recipient")
        if named:
            text = _plain(str(block.get("Diagnostic-Code", "")).partition(";")[2] or str(block.get("Status", "")))
            return {
                "address": _plain(str(named).partition(";")[2] or str(named)),
                "action": _plain(str(block.get("Action", "failed"))),
                "status": _plain(str(block.get("Status", ""))),
                "text": text,
            }
    return {}


def _improvised(message: Message) -> dict[str, str]:
    """A report in words, as some servers write it: with ``X-Failed-Recipients`` and a reply code in the text."""
    named = _plain(str(message.get("X-Failed-Recipients", ""))).partition(",")[0].strip()
    if not named:
        return {}
    text = "\n".join(_text(p) for p in message.walk() if p.get_content_type() == "text/plain")
    found = _STATUS.search(text) or _REPLY.search(text)
    line = next((one.strip() for one in text.splitlines() if found and found[0] in one), "")
    return {"address": named, "status": f"{found[1]}.0.0" if found else "", "text": _plain(line)}


def _returned(message: Message) -> str:
    """Message id of the message that came back, whole or its headers only, or quoted in the text."""
    for part in message.walk():
        if part is not message and part.get_content_type() in ("message/rfc822", "text/rfc822-headers"):
            inner: Any = part.get_payload()
            given = str(inner[0].get("Message-ID", "")) if isinstance(inner, list) and inner else ""
            found = _MESSAGE_ID.search(f"message-id: {given}" if given else _text(part))
            if found:
                return found[1]
    quoted = (_MESSAGE_ID.search(_text(p)) for p in message.walk() if p.get_content_type() == "text/plain")
    return next((hit[1] for hit in quoted if hit), "")


def _text(part: Message) -> str:
    payload = part.get_payload(decode=True)
    return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""


def _plain(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]


# --------------------------------------------------------------------------------- the mailbox


@contextmanager
def taken(path: Path) -> Iterator[bytes]:
    """Read one message of a Maildir; it counts as seen only when the block ends well."""
    with open(path, "rb") as file:
        raw = file.read(LONGEST)
    yield raw
    seen = path.parent.parent / "cur"
    seen.mkdir(exist_ok=True)
    os.replace(path, seen / f"{path.name.partition(':')[0]}:2,S")


def unseen(maildir: Path) -> list[Path]:
    """Messages of a Maildir that nobody has read, oldest first."""
    new = maildir / "new"
    return (
        sorted((p for p in new.iterdir() if p.is_file()), key=lambda p: (p.stat().st_mtime, p.name))
        if new.is_dir()
        else []
    )
