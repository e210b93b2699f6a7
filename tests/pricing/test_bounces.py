"""Reports of failed delivery as servers write them."""

from __future__ import annotations

import datetime as dt
from email.message import EmailMessage
from pathlib import Path

import pytest
from mail_server import NOW, Alerts, Subscriber, alert, post, rows
from test_outbox import Taken

from pricing import bounces, outbox
from pricing.errors import DeliveryError
from pricing.parcel import token
from pricing.store import Store

OURS = "<0123456789abcdef0123456789abcdef01234567@example.org>"

# After RFC 3464, appendix E.1, with the headers of a message of ours.
REPORT = """Date: Mon, 5 Jan 2026 16:00:10 +0000
From: Mail Delivery Subsystem <MAILER-DAEMON@mx.example.net>
Message-Id: <202601051600.AA12345@mx.example.net>
To: <alerts@example.org>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b1"
Subject: Returned mail: Cannot send message for 5 days

--b1

The original message was received at Mon, 5 Jan 2026 16:00:05 +0000

--b1
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net

Original-Recipient: rfc822;metals@example.net
Final-Recipient: rfc822;stone@inner.example.net
Action: {action}
Status: {status}
Diagnostic-Code: smtp; {said}

--b1
Content-Type: {returned}

From: Lodemark <alerts@example.org>
Message-ID: {number}
Subject: Cobalt metal

--b1--
"""


def report(
    action: str = "failed",
    status: str = "5.1.1",
    said: str = "550 5.1.1 no such user",
    returned: str = "message/rfc822",
    number: str = OURS,
) -> bytes:
    text = REPORT.format(action=action, status=status, said=said, returned=returned, number=number)
    return text.replace("\n", "\r\n").encode()


@pytest.mark.parametrize("returned", ["message/rfc822", "text/rfc822-headers"])
@pytest.mark.parametrize("ends", [b"\r\n", b"\n"])
def test_a_report_names_the_first_address_the_message_and_the_reason(returned, ends):
    read = bounces.read(report(returned=returned).replace(b"\r\n", ends))
    assert read == bounces.Bounce("metals@example.net", True, OURS, "550 5.1.1 no such user")


def test_a_delay_is_nothing_permanent():
    assert not bounces.read(report("delayed", "4.4.7", "451 later")).permanent
    assert not bounces.read(report("failed", "4.4.7", "451 gave up")).permanent


def test_a_report_in_words_is_read_where_it_names_whom():
    raw = (
        b"From: MAILER-DAEMON@mx.example.net\r\nX-Failed-Recipients: metals@example.net\r\nSubject: Mail failed\r\n"
        b"Auto-Submitted: auto-replied\r\n\r\nSMTP error from remote server: 550 5.1.1 unknown user\r\n\r\n"
        b"------ a copy of the message ------\r\nFrom: x\r\nMessage-ID: " + OURS.encode() + b"\r\n"
    )
    read = bounces.read(raw)
    assert (read.address, read.permanent, read.message_id) == ("metals@example.net", True, OURS)
    assert "550 5.1.1 unknown user" in read.text


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe\x00garbage",
        b"Subject: Out of office\r\nAuto-Submitted: auto-replied\r\n\r\nBack on Monday.\r\n",
        b"Subject: Re: Cobalt\r\n\r\nThanks! Message-ID: " + OURS.encode(),
        report("delivered", "2.0.0", "250 ok"),
        report("relayed", "2.0.0", "250 ok"),
        report(number=""),
        report().replace(b"Original-Recipient", b"X-One").replace(b"Final-Recipient", b"X-Two"),
        b"Content-Type: multipart/report; boundary=x\r\n\r\n--x\r\nContent-Type: message/delivery-status\r\n\r\n--x--",
        b"Content-Type: message/rfc822\r\n\r\n" * 200,
    ],
)  # fmt: skip
def test_whatever_is_no_report_of_a_failure_is_refused(raw):
    with pytest.raises(DeliveryError):
        bounces.read(raw)


def test_what_a_report_says_holds_no_control_characters():
    read = bounces.read(report(said="550 \x1b[31mred\x07"))
    assert read.text.isprintable()


def test_a_wish_to_unsubscribe_is_read_from_the_subject():
    wish = token(OURS)
    message = EmailMessage()
    message["From"], message["Subject"] = "Ann <ann@example.net>", f"Re: unsubscribe {wish}"
    assert bounces.read(message.as_bytes()) == bounces.Bounce(
        "ann@example.net", True, wish, "unsubscribed by mail", True
    )


def test_a_mailbox_is_read_once_and_heeded(tmp_path: Path):
    (tmp_path / "new").mkdir()
    one = Subscriber("Alpha", "metals@example.net")
    with Store(":memory:") as store:
        post(store, alert(), one)
        outbox.deliver(store, Alerts(), (one,), {"email": Taken()}, lambda: NOW)
        (number,) = rows(store, "message_id")
        (tmp_path / "new" / "1.bounce").write_bytes(report(number=number))
        (tmp_path / "new" / "2.forged").write_bytes(report())
        (tmp_path / "new" / "3.person").write_bytes(b"Subject: hello\r\n\r\nhello\r\n")
        (said,) = outbox.read_mailbox(store, tmp_path, NOW + dt.timedelta(hours=1))
        assert "Alpha" in said and rows(store) == ["failed"]
        assert outbox.read_mailbox(store, tmp_path, NOW) == []
    assert list((tmp_path / "new").iterdir()) == [] and len(list((tmp_path / "cur").iterdir())) == 3
