"""Signed calls to an address of the subscriber's own, against servers that misbehave."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mail_server import NOW, Alerts, Subscriber, alert, post, rows
from misbehaving import hangs, says, serving

from pricing import outbox, webhook
from pricing.errors import AddressRefused, DeliveryError
from pricing.parcel import Parcel, message_id, token
from pricing.store import Store

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "delivery.md"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
DESK = Subscriber("Trading desk")


@dataclass(frozen=True)
class Target:
    url: str
    secret_environment: str = "DESK_SECRET"
    allow_private: bool = True


def caller(url: str, secret: str = SECRET, **other: Any) -> webhook.Caller:
    target = Target(url, **other)
    return webhook.Caller({DESK.name: target}, {"DESK_SECRET": secret}, seconds=1.0)


def parcel(url: str, *alerts: Any) -> Parcel:
    made = alerts or (alert(),)
    number = message_id("one", DESK.name, "example.org", "salt")
    return Parcel(DESK, url, number, made, len(made) > 1, (), NOW)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def received(connection: Any, head: str) -> bytes:
    length = int(re.search(r"content-length: (\d+)", head, re.I)[1])  # type: ignore[index]
    body = head.partition("\r\n\r\n")[2].encode("latin-1")
    while len(body) < length:
        body += connection.recv(65536)
    return body


def test_the_documented_lines_verify_what_arrives_and_nothing_else():
    bodies: list[bytes] = []

    def take(connection: Any, head: str) -> None:
        bodies.append(received(connection, head))
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with serving(take) as server:
        url = server.url("/alerts")
        assert caller(url).send(parcel(url), NOW) == "HTTP 204"
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in server.heads[0].split("\r\n")[1:] if line)}
    (documented,) = re.findall(r"```python\n(def verified.*?)```", DOCUMENT.read_text("utf-8"), re.S)
    names: dict[str, Any] = {"base64": base64, "hmac": hmac, "hashlib": hashlib, "time": time}
    exec(documented, names)
    assert len(documented.strip().splitlines()) <= 6

    def verified(**other: Any) -> bool:
        given = {"secret": SECRET, "headers": headers, "body": bodies[0], "now": NOW.timestamp()}
        return bool(names["verified"](**(given | other)))

    assert verified()
    assert not verified(body=bodies[0].replace(b"Cobalt", b"Copper"))
    assert not verified(headers=headers | {"webhook-id": "0" * 40})
    assert not verified(now=NOW.timestamp() + 3600)  # an old call, sent again by somebody else
    assert not verified(secret="whsec_" + base64.b64encode(bytes(32)).decode())
    told = json.loads(bodies[0])
    assert told["type"] == "alert" and told["alerts"] == [alert()] and told["id"] == headers["webhook-id"]


def test_a_digest_is_one_call():
    body = json.loads(webhook.payload(parcel("https://example.org", alert(1), alert(2))))
    assert body["type"] == "digest" and body["count"] == 2
    assert [a["identifier"] for a in body["alerts"]] == ["lodemark.1.1", "lodemark.2.1"]


@pytest.mark.parametrize("status", ["500 No", "503 Busy", "429 Slow", "404 Not here", "401 Who", "302 Elsewhere"])
def test_what_is_no_success_is_tried_again(status):
    answer = says(status, b"", "Retry-After: 120", "Location: http://127.0.0.1:1/")
    with serving(answer) as server, pytest.raises(DeliveryError, match=f"HTTP {status[:3]}") as caught:
        caller(server.url()).send(parcel(server.url()), NOW)
    assert not caught.value.permanent and caught.value.wait == 120 and len(server.heads) == 1


def test_gone_ends_it():
    with serving(says("410 Gone")) as server, pytest.raises(AddressRefused):
        caller(server.url()).send(parcel(server.url()), NOW)


def test_a_receiver_that_hangs_or_is_away_is_tried_again():
    with serving(lambda c, h: hangs(server.stopping)(c, h)) as server:
        with pytest.raises(DeliveryError) as caught:
            caller(server.url()).send(parcel(server.url()), NOW)
        assert not caught.value.permanent
        url = server.url()
    with pytest.raises(DeliveryError) as caught:
        caller(url).send(parcel(url), NOW)
    assert not caught.value.permanent


PRIVATE = ("127.0.0.1", "169.254.169.254", "10.0.0.8", "192.168.1.1", "[::1]", "[fe80::1]", "localhost", "2130706433",
           "0x7f.1", "[::ffff:127.0.0.1]")  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
def test_addresses_of_this_machine_and_its_network_are_refused_unless_allowed(host):
    with serving(says("200 OK")) as server:
        url = f"http://{host}:{server.port}/"
        with pytest.raises(DeliveryError) as caught:
            caller(url, allow_private=False).send(parcel(url), NOW)
        assert caught.value.permanent and "open internet" in str(caught.value)
    assert server.heads == []


@pytest.mark.parametrize("secret", ["", "whsec_", "short", "whsec_" + "A" * 12, "not base64 " * 5])
def test_without_a_secret_that_holds_nothing_is_sent(secret):
    with serving(says("200 OK")) as server, pytest.raises(DeliveryError, match="DESK_SECRET") as caught:
        caller(server.url(), secret).send(parcel(server.url()), NOW)
    assert server.heads == [] and (not secret or secret not in str(caught.value))


def test_it_goes_through_the_outbox_beside_mail():
    with Store(":memory:") as store, serving(says("503 Busy"), says("200 OK")) as server:
        url = server.url()
        post(store, alert(), DESK, channel="webhook", address=url)
        at = [NOW]
        go = lambda: outbox.deliver(store, Alerts(), (DESK,), {"webhook": caller(url)}, lambda: at[0])  # noqa: E731
        assert go().again == 1
        at[0] += dt.timedelta(minutes=2)
        assert go().sent == 1
        assert rows(store, "outcome") == ["HTTP 200"]
        ids = [re.search(r"webhook-id: (\w+)", h)[1] for h in server.heads]  # type: ignore[index]
        assert ids[0] == ids[1] == token(rows(store, "message_id")[0])


def test_a_moved_address_gets_nothing():
    with pytest.raises(DeliveryError, match="no address of"):
        caller("https://new.example/").send(parcel("https://old.example/"), NOW)
