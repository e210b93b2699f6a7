"""Messages as they are read, and as a real server takes them."""

from __future__ import annotations

import base64
import datetime as dt
import re
import ssl
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes, policy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import dkim
import mail_server
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from mail_server import NOW, Alerts, MailServer, Subscriber, alert, mailer, serving, shock, speaking
from misbehaving import certified

from pricing import mail
from pricing.errors import AddressRefused, ChannelDown, DeliveryError
from pricing.parcel import Parcel, message_id, token

MINISTRY = Subscriber("Ministry of Mines")
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    return certified("localhost", tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def server(certificate: tuple[ssl.SSLContext, Path]) -> Iterator[MailServer]:
    with serving(certificate[0]) as made:
        yield made


def parcel(*alerts: dict[str, Any], to: Subscriber = MINISTRY, earlier: tuple[str, ...] = ()) -> Parcel:
    made = alerts or (alert(),)
    number = message_id(made[0]["identifier"], to.name, "example.org", "salt")
    return Parcel(to, to.address, number, made, len(made) > 1, earlier, NOW)


def text_of(message: Any) -> str:
    return str(message.get_body(("plain",)).get_content())


def html_of(message: Any) -> str:
    return str(message.get_body(("html",)).get_content())


class Tags(HTMLParser):
    """Elements, attributes and text, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.given: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += " " if tag in ("td", "p", "h1", "h2") else ""
        self.given += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


# -------------------------------------------------------------------------------------- what is said


def test_the_first_lines_say_where_when_learnt_how_old_public_and_how_sure():
    for read in (text_of, lambda m: Tags(html_of(m)).text):
        said = re.sub(r"\s+", " ", read(mail.compose(alert(), MINISTRY, Alerts())))
        for part in (
            "cobalt metal, outside China",
            "5 January 2026 (prices by day)",
            "5 January 2026, 15:58 UTC, on the day the period ended",
            "Public before yes",
            "How sure observed: several independent sources or markets agree; the market moved",
            "33 622.8 USD/t (2 January 2026)",
            "41 234.5 USD/t (5 January 2026)",
            "+22.6 %, 8.4 times its usual move",
            "33 700 USD/t, by how it moved before",
            "2 moved along: kestrel, lantern; 1 did not: northgate",
            "battery minerals: +7.02 % of its value (weight 31.0 %)",
        ):
            assert part in said, part
        assert said.index("How sure") < said.index("From")


def test_links_lead_to_the_release_and_to_the_record_as_released():
    for said in (
        text_of(mail.compose(alert(), MINISTRY, Alerts())),
        html_of(mail.compose(alert(), MINISTRY, Alerts())),
    ):
        assert "https://prices.example.org/v1/releases/3" in said
        assert "https://prices.example.org/v1/releases/3/prices/cobalt/metal/XCN/daily/2026.json" in said


def test_a_monthly_movement_and_hindsight_are_called_so():
    monthly = shock(product="monthly movement", frequency="monthly", flagged="2025-11", onset="2025-11", age_days=36)
    said = text_of(mail.compose(alert(shocks=[monthly]), MINISTRY, Alerts()))
    assert "November 2025" in said and "36 days after the period ended" in said
    assert "weeks old when its month was published" in said
    assert "this is history, no news" in text_of(
        mail.compose(alert(shocks=[shock(hindsight=True)]), MINISTRY, Alerts())
    )


@pytest.mark.parametrize(
    ("status", "simulated"),
    [("Actual", True), ("Exercise", False), ("Exercise", True), ("Test", True), ("Test", False)],
)
def test_simulations_and_exercises_say_so_in_subject_and_first_line(status, simulated):
    message = mail.compose(alert(status=status, simulated=simulated), MINISTRY, Alerts())
    drill = status == "Exercise" or (status == "Test" and not simulated)  # "Test" is what all simulated prices are
    marks = ["SIMULATED"] * simulated + ["EXERCISE"] * drill
    assert str(message["Subject"]).startswith("".join(f"{m}: " for m in marks))
    assert text_of(message).startswith(marks[0])
    assert all(mark in html_of(message) and mark in text_of(message) for mark in marks)


def test_an_update_and_a_cancellation_say_what_changed():
    update = mail.compose(
        alert(version=2, why="severe now, it was moderate"), MINISTRY, Alerts(), earlier=["<first@example.org>"]
    )
    assert str(update["Subject"]).startswith("Update: ") and "UPDATE of an earlier message: severe now" in text_of(
        update
    )
    joined = mail.compose(alert(version=2, msgType="Update", why="severe now"), MINISTRY, Alerts())
    assert "an alert that others were told of before: severe now" in text_of(joined)
    over = mail.compose(alert(version=3, state="closed", why="nothing unexpected for three days"), MINISTRY, Alerts())
    assert str(over["Subject"]).startswith("Over: ") and "OVER. What we told you before is at an end" in text_of(over)
    cancel = mail.compose(alert(msgType="Cancel", why="a wrong unit"), MINISTRY, Alerts())
    assert "What we told you before was wrong: a wrong unit" in text_of(cancel)
    assert str(cancel["Subject"]).startswith("Cancelled: ")


def test_publishers_are_named_and_what_several_shocks_do_together():
    together = alert(
        shocks=[shock(published_by=["Kestrel Prices"]), shock("nickel/metal/XCN", public_elsewhere=False)],
        indices=[{"id": "battery-minerals", "percent": -8.5}],
    )
    message = mail.compose(together, MINISTRY, Alerts())
    for said in (text_of(message), Tags(html_of(message)).text):
        assert "yes, by Kestrel Prices" in said and "no, as far as we know" in said
        assert "battery minerals" in said and "\u22128.50\u00a0%" in said.partition("Together")[2]


def test_an_alert_of_operation_needs_no_shock():
    message = mail.compose(
        alert(shocks=[], headline="demo-ecb is stale", why="nothing new for 3 days"), MINISTRY, Alerts()
    )
    assert "demo-ecb is stale" in text_of(message) and "nothing new for 3 days" in html_of(message)


def test_a_digest_tells_all_and_counts_what_is_too_much():
    many = [alert(n) for n in range(mail.LISTED + 7)]
    message = mail.Mail(Alerts(), mail_server.Smtp("localhost", 1), {}).message(parcel(*many))
    assert str(message["Subject"]).startswith(f"{mail.LISTED + 7} alerts, the worst severe")
    assert "And 7 more" in text_of(message) and "And 7 more" in html_of(message)
    assert f"({mail.LISTED - 1})" in text_of(message)


@pytest.mark.parametrize(
    ("value", "said"),
    [(33622.81, "33 622.8"), (1234567.0, "1 234 567"), (0.295292, "0.295292"), (999.5, "999.5"), (1e-9, "1e-09")],
)
def test_numbers_read_alike_in_every_country(value, said):
    assert mail.number(value).replace("\u00a0", " ") == said


@pytest.mark.parametrize(
    ("value", "said"), [(5.96276, "+5.96"), (-32.9, "\u221232.9"), (1250.4, "+1\u00a0250"), (9.999, "+10.0")]
)
def test_changes_bear_a_sign_and_three_digits(value, said):
    assert mail.percent(value) == f"{said}\u00a0%"


def test_a_text_reader_sees_no_markup_and_lines_of_moderate_length():
    said = text_of(mail.compose(alert(), MINISTRY, Alerts()))
    assert "<" not in said and "&" not in said
    assert max(len(line) for line in said.splitlines() if "https://" not in line) <= 110


# ------------------------------------------------------------------------------------------- headers


def test_headers_thread_updates_and_offer_one_click():
    first = mail.compose(alert(), MINISTRY, Alerts())
    update = mail.compose(alert(version=2), MINISTRY, Alerts(), None, [first["Message-ID"]])
    assert update["Message-ID"] != first["Message-ID"]
    assert update["References"] == update["In-Reply-To"] == first["Message-ID"]
    assert mail.compose(alert(), MINISTRY, Alerts())["Message-ID"] == first["Message-ID"]
    assert mail.compose(alert(), Subscriber("Another"), Alerts())["Message-ID"] != first["Message-ID"]
    name = token(str(first["Message-ID"]))
    assert f"<https://prices.example.org/unsubscribe/{name}>" in first["List-Unsubscribe"]
    assert f"<mailto:alerts@example.org?subject=unsubscribe%20{name}>" in first["List-Unsubscribe"]
    assert first["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert first["Auto-Submitted"] == "auto-generated"
    assert first["Date"].datetime == NOW
    raw = first.as_bytes()
    assert (
        all(len(line) < 998 for line in raw.split(b"\r\n"))
        and raw.isascii()
        and b"=?" not in raw.partition(b"\r\n\r\n")[0]
    )


def test_without_https_there_is_no_one_click():
    message = mail.compose(alert(), MINISTRY, replace(Alerts(), base_url="http://prices.example.org"))
    assert "List-Unsubscribe-Post" not in message and message["List-Unsubscribe"].startswith("<mailto:")
    bare = mail.compose(alert(), MINISTRY, replace(Alerts(), base_url=None))  # type: ignore[arg-type]
    assert "http" not in text_of(bare)


def test_every_attempt_makes_the_same_bytes():
    assert (
        mail.compose(alert(), MINISTRY, Alerts(), PIXEL).as_bytes()
        == mail.compose(alert(), MINISTRY, Alerts(), PIXEL).as_bytes()
    )


def test_the_chart_is_inline_with_words_for_those_who_do_not_see_it():
    message = message_from_bytes(mail.compose(alert(), MINISTRY, Alerts(), PIXEL).as_bytes(), policy=policy.default)
    (image,) = [p for p in message.walk() if p.get_content_type() == "image/png"]
    assert image.get_content() == PIXEL and image.get_content_disposition() == "inline"
    html = Tags(html_of(message))
    assert ("src", f"cid:{image['Content-ID'].strip('<>')}") in html.given
    alt = next(v for k, v in html.given if k == "alt")
    assert alt and "41\u00a0234.5 USD/t" in alt


@pytest.mark.parametrize("bad", ["\r\nBcc: all@example.com", "\n", "\r", "\0", "\x0b", "\u2028", "\x85", "\u202e"])
def test_what_could_end_a_header_is_refused_by_the_name_of_its_field(bad):
    head, text = Alerts(), f"x{bad}y"
    cases: dict[str, Any] = {
        "subject": lambda: mail.compose(alert(headline=text), MINISTRY, head),
        "address": lambda: mail.compose(alert(), replace(MINISTRY, name=text), head),
        "from": lambda: mail.compose(alert(), MINISTRY, replace(head, sender=f'"{text}" <alerts@example.org>')),
        "message id": lambda: mail.compose(alert(), MINISTRY, head, number=f"<{text}@example.org>"),
        "earlier message id": lambda: mail.compose(alert(), MINISTRY, head, None, [f"<{text}@example.org>"]),
        "base_url": lambda: mail.compose(alert(), MINISTRY, replace(head, base_url=f"https://{text}")),
    }
    for field, make in cases.items():
        with pytest.raises(DeliveryError, match=field) as caught:
            make()
        assert caught.value.permanent
    with pytest.raises(DeliveryError, match="address"):
        mail.compose(alert(), replace(MINISTRY, address=f"a{bad}@example.org"), head)
    with pytest.raises(DeliveryError, match="language"):
        mail.compose(alert(), replace(MINISTRY, language=f"en{bad}"), head)
    with pytest.raises(DeliveryError, match="subject"):
        mail.Mail(head, mail_server.Smtp("localhost", 1), {}).message(parcel(alert(headline=text), alert(2)))


@pytest.mark.parametrize("address", ["", "nobody", "a@b@c", "a b@example.org", "<a@example.org>", "ä@example.org"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(DeliveryError, match="address"):
        mail.compose(alert(), replace(MINISTRY, address=address), Alerts())


def test_a_hostile_name_shows_as_text():
    evil = "<script>alert(1)<script>\"'><img src=x onerror=alert(2)>/metal/<b>\x1b[31m"
    named = shock(evil, unit="USD/<i>t</i>", href="javascript:alert(3)", grade='"><a href="http://evil.example">')
    named["indices"] = [{"id": "<svg onload=x>", "weight": 0.1, "percent": 1.0}]
    hostile = alert(shocks=[named], headline="<h1>x</h1>", why="</td><script>", identifier="<iframe>")
    for message in (
        mail.compose(hostile, replace(MINISTRY, name="<em>x</em>"), Alerts()),
        mail.Mail(Alerts(), mail_server.Smtp("localhost", 1), {}).message(parcel(hostile, alert(2))),
    ):
        html = Tags(html_of(message))
        assert not {"script", "img", "b", "i", "iframe", "svg", "em"} & set(html.tags)
        assert not [k for k, _ in html.given if k.startswith("on")]
        assert all(
            not (v or "").startswith("javascript") and "evil.example" not in (v or "")
            for k, v in html.given
            if k == "href"
        )
        assert "<script>alert(1)<script>" in html.text
        assert "\x1b" not in html.text + text_of(message)
        assert "<script>alert(1)<script>" in text_of(message)


# ------------------------------------------------------------------------------------------- signing


@pytest.fixture(scope="module")
def rsa_key() -> tuple[str, bytes]:
    """A private key in PEM, and the DNS record of its public half."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem, b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


@pytest.fixture
def signature(rsa_key: tuple[str, bytes]) -> mail.Dkim:
    from types import SimpleNamespace

    return SimpleNamespace(domain="example.org", selector="s1", key_file="")  # type: ignore[return-value]


def test_a_message_is_signed_and_every_change_is_seen(server, certificate, rsa_key, signature):
    channel = mailer(server.port, certificate[1], dkim=signature, environ={mail.DKIM_KEY: rsa_key[0]})
    channel.send(parcel(earlier=("<first@example.org>",)), NOW)
    channel.close()
    (raw,) = server.raw

    def verified(message: bytes) -> bool:
        return bool(
            dkim.verify(
                message, dnsfunc=lambda name, timeout=5: rsa_key[1] if name == b"s1._domainkey.example.org." else None
            )
        )

    assert verified(raw)
    assert not verified(raw.replace(b"outside China", b"inside China ", 1))
    assert not verified(raw.replace(b"From: Lodemark", b"From: Somebody"))
    assert not verified(b"List-Unsubscribe-Post: x\r\n" + raw)
    assert not verified(b"Subject: another\r\n" + raw)


def test_a_key_that_others_can_read_or_that_is_none_sends_nothing(tmp_path, rsa_key, signature):
    file = tmp_path / "dkim.pem"
    file.write_text(rsa_key[0])
    file.chmod(0o644)
    signature.key_file = str(file)  # type: ignore[misc]
    with pytest.raises(ChannelDown, match="others can reach"):
        mail.signer(signature, {})
    file.chmod(0o600)
    assert b"d=example.org" in mail.signer(signature, {})(b"From: a@example.org\r\n\r\nx\r\n")
    file.write_text("no key: s3cret")
    with pytest.raises(ChannelDown, match="no private RSA key") as caught:
        mail.signer(signature, {})
    assert "s3cret" not in str(caught.value)


# --------------------------------------------------------------------------------- with a real server


@pytest.mark.parametrize("implicit", [False, True])
def test_mail_goes_out_secured_and_logged_in_over_one_connection(certificate, implicit):
    with serving(certificate[0], implicit=implicit) as server:
        channel = mailer(server.port, certificate[1], security="tls" if implicit else "starttls")
        said = [channel.send(parcel(alert(n)), NOW) for n in range(3)]
        channel.close()
    assert said == [f"250 2.0.0 queued as {n}" for n in (1, 2, 3)]
    assert len(server.logins) == 1
    assert server.envelopes == [("alerts@example.org", ["metals@example.net"])] * 3
    assert [m["Subject"] for m in server.messages] == [
        f"Cobalt metal, outside China: +22.6 % ({n}) (severe)" for n in range(3)
    ]
    assert "41\u00a0234.5" in text_of(server.messages[0])


def test_a_server_that_cannot_be_trusted_gets_no_password(server, certificate, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    _, stranger = certified("localhost", other)
    with pytest.raises(ChannelDown, match="certificate is not trusted"):
        mailer(server.port, stranger).send(parcel(), NOW)
    smtp = mail_server.Smtp("127.0.0.1", server.port, ca_file=str(certificate[1]))  # not the name of the certificate
    with pytest.raises(ChannelDown, match="certificate is not trusted"):
        mail.Mail(Alerts(), smtp, {mail.PASSWORD: "x"}).send(parcel(), NOW)
    assert server.logins == []


def test_a_server_without_starttls_gets_nothing(certificate):
    with serving(None) as server, pytest.raises(ChannelDown, match="STARTTLS"):
        mailer(server.port, certificate[1]).send(parcel(), NOW)
    assert server.raw == []


def test_a_wrong_password_is_nobodys_message_and_is_not_told(server, certificate):
    with pytest.raises(ChannelDown, match="refuses user or password") as caught:
        mailer(server.port, certificate[1], password="s3cret").send(parcel(), NOW)
    assert "s3cret" not in str(caught.value)


REFUSALS: list[tuple[str, str, type[DeliveryError], bool]] = [
    ("RCPT", "550 5.1.1 no such user", AddressRefused, True),
    ("RCPT", "550 no such user", AddressRefused, True),
    ("RCPT", "552 5.2.2 mailbox full", DeliveryError, True),
    ("RCPT", "550 5.7.1 blocked", DeliveryError, True),
    ("RCPT", "451 4.7.1 greylisted, come back", DeliveryError, False),
    ("RCPT", "452 too many", DeliveryError, False),
    ("RCPT", "421 4.3.2 closing", ChannelDown, False),
    ("MAIL", "550 5.7.1 sender not allowed", ChannelDown, False),
    ("MAIL", "451 try later", DeliveryError, False),
    ("DATA", "554 5.6.0 looks like spam", DeliveryError, True),
    ("DATA", "451 4.3.0 disk full", DeliveryError, False),
    ("DATA", "421 closing", ChannelDown, False),
]


@pytest.mark.parametrize(
    ("phase", "answer", "kind", "permanent"), REFUSALS, ids=[f"{r[0]} {r[1][:9]}" for r in REFUSALS]
)
def test_refusals_are_told_apart_and_the_next_message_goes(server, certificate, phase, answer, kind, permanent):
    channel = mailer(server.port, certificate[1])
    server.fault = lambda at, _: answer if at.startswith(phase) else None
    with pytest.raises(DeliveryError) as caught:
        channel.send(parcel(), NOW)
    assert type(caught.value) is kind and caught.value.permanent == permanent
    assert answer in str(caught.value)
    server.fault = None
    channel.send(parcel(alert(2)), NOW)
    channel.close()
    assert len(server.raw) == 1


@pytest.mark.parametrize("phase", ["EHLO", "MAIL", "RCPT", "DATA", "after"])
def test_a_connection_cut_in_any_phase_is_a_failure_that_is_tried_again(server, certificate, phase):
    channel = mailer(server.port, certificate[1])
    server.fault = lambda at, it: it.cut() if at.startswith(phase) else None
    with pytest.raises(DeliveryError) as caught:
        channel.send(parcel(), NOW)
    assert not caught.value.permanent and isinstance(caught.value, ChannelDown) == (phase == "EHLO")
    assert len(server.raw) == (phase == "after")
    server.fault = None
    channel.send(parcel(alert(2)), NOW)
    channel.close()


@pytest.mark.parametrize("words", [b"", b"220 mail\r\n", b"220-", b"554 go away\r\n", b"\xff\x00\r\n" * 3])
def test_a_server_that_hangs_or_speaks_nonsense_holds_nobody_for_long(words):
    def patient(connection: Any) -> None:
        import time

        connection.sendall(words)
        for _ in range(40):
            time.sleep(0.02)
            connection.sendall(b"x")

    with speaking(patient) as port, pytest.raises(ChannelDown):
        mailer(port, None, seconds=0.3).send(parcel(), NOW)
    with speaking(lambda c: c.close()) as port, pytest.raises(ChannelDown):
        mailer(port, None, seconds=0.3).send(parcel(), NOW)


def test_what_a_server_says_is_told_on_one_line_without_its_control_characters(server, certificate):
    server.fault = lambda at, _: "550 5.7.1 \x1b[31mred\x07 alert" if at == "DATA" else None
    channel = mailer(server.port, certificate[1])
    with pytest.raises(DeliveryError) as caught:
        channel.send(parcel(), NOW)
    channel.close()
    assert str(caught.value).isprintable() and "red" in str(caught.value)


def test_the_date_is_when_it_could_first_go_out():
    at = NOW + dt.timedelta(hours=9)
    assert mail.compose(alert(), MINISTRY, Alerts(), date=at)["Date"].datetime == at
