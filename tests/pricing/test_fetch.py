import dataclasses
import datetime as dt
import email.utils
import gzip
import hashlib
import socket
import threading
import time
import traceback
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from misbehaving import Server, Speak, bomb, certified, drips, endless, hangs, raw, says, serving
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from pricing import connections
from pricing.archive import Archive
from pricing.config import Fetching
from pricing.errors import FetchError, StoreError
from pricing.fetch import Answer, Client, shown

NOW = dt.datetime(2026, 11, 23, 12, 0, 0, 600_000, tzinfo=dt.UTC)
BODY = b"date,price\n2026-11-20,15230.5\n"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
CAP = 2**20


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "documents")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def client(archive: Archive, first_wait: float = 0.01, **settings: Any) -> Client:
    limits = {"allow_private": True, "attempts": 3, "read_seconds": 5, "total_seconds": 20, **settings}
    return Client(Fetching.model_validate(limits), archive, lambda: NOW, first_wait=first_wait)


def fails(archive: Archive, url: str, *, max_bytes: int = CAP, **settings: Any) -> FetchError:
    with pytest.raises(FetchError) as caught:
        client(archive, **settings).get(url, max_bytes=max_bytes)
    assert not list(archive.root.rglob("*.gz")), "a failed answer must not be archived"
    return caught.value


def documents(archive: Archive) -> list[Path]:
    return sorted(p for p in archive.root.rglob("*") if p.is_file())


# ------------------------------------------------------------------------------------- answers


def test_an_answer_is_archived_as_it_was_received_with_its_facts(archive: Archive, httpserver: HTTPServer) -> None:
    stamps = {"ETag": '"v1"', "Last-Modified": "Fri, 20 Nov 2026 10:00:00 GMT", "Content-Type": "text/csv"}
    httpserver.expect_request("/prices.csv").respond_with_data(BODY, headers=stamps)
    answer = client(archive).get(httpserver.url_for("/prices.csv"), max_bytes=CAP)
    sha256 = hashlib.sha256(BODY).hexdigest()
    assert answer.raw == BODY and answer.document is not None and not answer.not_modified
    assert dataclasses.asdict(answer.document) == {
        "sha256": sha256,
        "url": httpserver.url_for("/prices.csv"),
        "retrieved_at": NOW,
        "http_status": 200,
        "content_type": "text/csv",
        "etag": '"v1"',
        "last_modified": "Fri, 20 Nov 2026 10:00:00 GMT",
        "size": len(BODY),
    }
    assert documents(archive) == [archive.root / sha256[:2] / f"{sha256[2:]}.gz"]
    assert archive.get(sha256) == BODY


def test_the_request_says_who_asks(archive: Archive) -> None:
    with serving(says("200 OK", BODY)) as server:
        client(archive, user_agent="Lodemark test (desk@example.org)").get(
            server.url(), max_bytes=CAP, headers={"Accept": "text/csv"}
        )
    assert "User-Agent: Lodemark test (desk@example.org)\r\n" in server.heads[0]
    assert "Accept: text/csv\r\n" in server.heads[0]
    assert f"Host: 127.0.0.1:{server.port}\r\n" in server.heads[0]


def test_a_page_of_html_is_handed_on_with_its_type(archive: Archive, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/prices.csv").respond_with_data("<!doctype html>sorry", content_type="text/html")
    answer = client(archive).get(httpserver.url_for("/prices.csv"), max_bytes=CAP)
    assert answer.document is not None and answer.document.content_type == "text/html"


@pytest.mark.parametrize(
    ("validators", "header"),
    [
        ({"etag": 'W/"v1"'}, ("If-None-Match", 'W/"v1"')),
        (
            {"last_modified": "Fri, 20 Nov 2026 10:00:00 GMT"},
            ("If-Modified-Since", "Fri, 20 Nov 2026 10:00:00 GMT"),
        ),
    ],
)
def test_a_document_that_still_stands_is_not_sent_again(
    archive: Archive, httpserver: HTTPServer, validators: dict[str, Any], header: tuple[str, str]
) -> None:
    def answer(request: Request) -> Response:
        return Response(status=304) if request.headers.get(header[0]) == header[1] else Response(BODY)

    httpserver.expect_request("/prices.csv").respond_with_handler(answer)
    url = httpserver.url_for("/prices.csv")
    assert client(archive).get(url, max_bytes=CAP).raw == BODY
    assert client(archive).get(url, max_bytes=CAP, **validators) == Answer(None, None, not_modified=True)


def test_an_unchanged_document_is_stored_once(archive: Archive) -> None:
    with serving(says("200 OK", BODY)) as server:
        first, second = (client(archive).get(server.url(), max_bytes=CAP) for _ in range(2))
    assert first.document == second.document
    assert len(documents(archive)) == 1


def test_a_304_that_was_not_asked_for_is_an_error(archive: Archive) -> None:
    with serving(says("304 Not Modified")) as server:
        error = fails(archive, server.url())
    assert "304 Not Modified, though we named no version" in str(error)


def test_a_packed_answer_is_archived_unpacked(archive: Archive) -> None:
    two_members = gzip.compress(BODY) + gzip.compress(BODY)
    with serving(says("200 OK", two_members, "Content-Encoding: gzip")) as server:
        answer = client(archive).get(server.url(), max_bytes=CAP)
    assert answer.raw == BODY + BODY
    assert "Accept-Encoding: gzip\r\n" in server.heads[0]


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 65536 * 3, 1_000_000])
def test_packed_answers_of_any_size_come_whole(archive: Archive, size: int) -> None:
    body = (hashlib.sha256(b"x").digest() * 40_000)[: size // 2] + bytes(size - size // 2)
    with serving(says("200 OK", gzip.compress(body), "Content-Encoding: gzip")) as server:
        assert client(archive).get(server.url(), max_bytes=CAP).raw == body


# ------------------------------------------------------------------------------------- retries


def test_a_server_that_stumbles_once_is_asked_again(archive: Archive) -> None:
    with serving(says("500 Internal Server Error"), says("200 OK", BODY)) as server:
        assert client(archive).get(server.url(), max_bytes=CAP).raw == BODY
    assert len(server.heads) == 2


def test_a_server_that_always_fails_is_given_up_for_now(archive: Archive) -> None:
    with serving(says("500 Internal Server Error")) as server:
        error = fails(archive, server.url())
    assert not error.permanent
    assert (
        str(error)
        == f"{server.url()}: HTTP 500 Internal Server Error (3 attempts; temporary, the next run tries again)"
    )
    assert len(server.heads) == 3


@pytest.mark.parametrize("status", ["404 Not Found", "403 Forbidden", "206 Partial Content", "204 No Content"])
def test_a_refusal_is_not_repeated(archive: Archive, status: str) -> None:
    with serving(says(status)) as server:
        error = fails(archive, server.url())
    assert error.permanent
    assert str(error) == f"{server.url()}: HTTP {status} (1 attempt; will not mend itself)"
    assert len(server.heads) == 1


def _slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    naps: list[float] = []
    monkeypatch.setattr(time, "sleep", naps.append)
    return naps


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable", "408 Request Timeout"])
def test_retry_after_in_seconds_is_honoured(archive: Archive, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    naps = _slept(monkeypatch)
    with serving(says(status, b"", "Retry-After: 7"), says("200 OK", BODY)) as server:
        assert client(archive).get(server.url(), max_bytes=CAP).raw == BODY
    assert naps == [7.0]


def test_retry_after_as_a_date_is_honoured(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    naps = _slept(monkeypatch)
    date = email.utils.format_datetime(NOW.replace(microsecond=0) + dt.timedelta(seconds=5), usegmt=True)
    with serving(says("429 Too Many Requests", b"", f"Retry-After: {date}"), says("200 OK", BODY)) as server:
        assert client(archive).get(server.url(), max_bytes=CAP).raw == BODY
    assert naps == pytest.approx([4.4])


@pytest.mark.parametrize("value", ["soon", "-3", "0", "9" * 5000])
def test_a_retry_after_that_says_nothing_leaves_the_usual_wait(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    naps = _slept(monkeypatch)
    with serving(says("429 Too Many Requests", b"", f"Retry-After: {value}"), says("200 OK", BODY)) as server:
        assert client(archive).get(server.url(), max_bytes=CAP).raw == BODY
    assert len(naps) == 1 and 0.01 <= naps[0] <= 0.02


def test_waits_double_and_jitter(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    naps = _slept(monkeypatch)
    with serving(says("502 Bad Gateway")) as server:
        fails(archive, server.url(), first_wait=1.0, attempts=4)
    assert [low <= nap <= low + 1 for low, nap in zip([1, 2, 4], naps, strict=True)] == [True] * 3
    assert len({nap % 1 for nap in naps}) == 3


def test_a_retry_after_beyond_the_time_limit_is_not_waited_for(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps = _slept(monkeypatch)
    with serving(says("429 Too Many Requests", b"", "Retry-After: 3600")) as server:
        error = fails(archive, server.url())
    assert "asks for 3600 s, which is beyond the limit of 20 s in all (1 attempt; temporary" in str(error)
    assert naps == [] and not error.permanent


def test_nobody_listening_is_temporary(archive: Archive) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    error = fails(archive, f"http://127.0.0.1:{port}/prices.csv")
    assert "the connection failed (Connection refused) (3 attempts; temporary" in str(error)


def test_a_host_without_address_is_temporary(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = fails(archive, "http://prices.example/x.csv")
    assert "the host name prices.example does not resolve (3 attempts; temporary" in str(error)


def test_the_next_address_of_a_host_is_tried_when_the_first_is_dead(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    _resolving(monkeypatch, {"prices.example": ["127.0.0.9", "127.0.0.1"]})  # the server listens on the second only
    with serving(says("200 OK", BODY)) as server:
        url = server.url(host="prices.example")
        assert client(archive).get(url, max_bytes=CAP).raw == BODY
    assert f"Host: prices.example:{server.port}\r\n" in server.heads[0]


# ---------------------------------------------------------------------------------- broken HTTP


def test_a_server_that_never_answers_is_left(archive: Archive) -> None:
    stop = threading.Event()
    with serving(hangs(stop)) as server:
        error = fails(archive, server.url(), read_seconds=0.1, attempts=2)
        stop.set()
    assert "nothing came for 0.1 s (2 attempts; temporary" in str(error)


def test_silence_is_not_waited_out_beyond_the_total_limit(archive: Archive) -> None:
    stop, outlasted = threading.Event(), threading.Event()

    def halts(connection: socket.socket, head: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Halt: ")
        if not stop.wait(10):
            outlasted.set()

    with serving(halts) as server:
        error = fails(archive, server.url(), read_seconds=60, total_seconds=0.3)
        stop.set()
    assert "not finished within 0.3 s in all" in str(error)
    assert not outlasted.is_set()


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n",
        b"HTTP/1.1 200 OK\r\nX-Drip: ",
        b"HTTP/1.1 ",
    ],
    ids=["body", "body without length", "chunk", "headers", "status line"],
)
def test_a_server_that_drips_is_cut_at_the_total_limit(archive: Archive, first: bytes) -> None:
    stop = threading.Event()
    with serving(drips(first, stop)) as server:
        error = fails(archive, server.url(), total_seconds=0.5)
        stop.set()
    assert "not finished within 0.5 s in all (1 attempt; temporary" in str(error)


@pytest.mark.parametrize(
    "broken",
    [
        says("200 OK", BODY, length=len(BODY) + 1),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1e\r\n" + BODY + b"\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1e\r\n" + BODY[:9]),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        says("200 OK", gzip.compress(BODY)[:-9], "Content-Encoding: gzip"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(BODY)[:-1]),
    ],
    ids=["length", "last chunk missing", "within a chunk", "before the first chunk", "gzip", "gzip without length"],
)
def test_a_truncated_answer_is_an_error_and_asked_for_again(archive: Archive, broken: Speak) -> None:
    with serving(broken) as server:
        error = fails(archive, server.url())
        assert "cut short" in str(error) and not error.permanent
        assert len(server.heads) == 3
    with serving(broken, says("200 OK", BODY)) as server:
        assert client(archive).get(server.url(), max_bytes=CAP).raw == BODY


def test_a_connection_cut_in_the_body_is_an_error(archive: Archive) -> None:
    def cut(connection: socket.socket, head: str) -> None:
        connection.sendall(PLAIN % (1000, BODY))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset, not end

    with serving(cut) as server:
        error = fails(archive, server.url())
    assert "(3 attempts; temporary" in str(error)
    assert "cut short" in str(error) or "Connection reset by peer" in str(error)


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        (raw(b""), "closed without an answer"),
        (raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "not proper HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "not proper HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"), "cannot be sent"),
        (says("200 OK", b"not gzip at all", "Content-Encoding: gzip"), "gzip is damaged"),
        (says("200 OK", gzip.compress(BODY) + b"tail", "Content-Encoding: gzip"), "gzip is damaged"),
        (says("200 OK", BODY, "Content-Encoding: br"), "packed as 'br', which was not asked for"),
        (says("200 OK", BODY, "Content-Encoding: gzip, gzip"), "packed as 'gzip, gzip'"),
    ],
)
def test_what_is_not_proper_http_is_an_error(archive: Archive, broken: Speak, what: str) -> None:
    with serving(broken) as server:
        assert what in str(fails(archive, server.url()))


# ----------------------------------------------------------------------------------- redirects


def test_a_redirect_is_followed_and_the_asked_address_kept(archive: Archive) -> None:
    with serving(says("302 Found", b"", "Location: /new/prices.csv?v=2#top"), says("200 OK", BODY)) as server:
        answer = client(archive).get(server.url(), max_bytes=CAP, etag='"v1"')
    assert answer.raw == BODY and answer.document is not None and answer.document.url == server.url()
    assert server.heads[1].startswith("GET /new/prices.csv?v=2 HTTP/1.1\r\n")
    assert 'If-None-Match: "v1"\r\n' in server.heads[1]


def test_headers_meant_for_one_host_are_not_shown_to_another(archive: Archive) -> None:
    key = {"Ocp-Apim-Subscription-Key": "s3cret"}
    with serving(says("200 OK", BODY)) as other:
        with serving(says("302 Found", b"", f"Location: {other.url()}")) as server:
            client(archive).get(server.url(), max_bytes=CAP, headers=key)
        assert "s3cret" in server.heads[0] and "s3cret" not in other.heads[0]
    with serving(says("302 Found", b"", "Location: /b"), says("200 OK", BODY)) as server:
        client(archive).get(server.url(), max_bytes=CAP, headers=key)
        assert "s3cret" in server.heads[1]


@pytest.mark.parametrize(
    ("location", "what"),
    [
        ("Location: /prices.csv", "a redirect loop"),
        ("Location: /prices.csv#again", "a redirect loop"),
        ("Location: file://elsewhere/secrets", "only http and https"),
        ("Location: ftp://127.0.0.1/prices.csv", "only http and https"),
        ("Location: https:///nowhere", "only http and https addresses with a host"),
        ("Location: http://[::1", "an address that cannot be read"),
        ("Location: http://127.0.0.1:notaport/", "an address that cannot be read"),
        ("X-None: 1", "without saying where to"),
    ],
)
def test_bad_redirects_are_refused(archive: Archive, location: str, what: str) -> None:
    with serving(says("302 Found", b"", location)) as server:
        error = fails(archive, server.url())
    assert what in str(error) and error.permanent
    assert len(server.heads) == 1


def test_a_loop_over_two_addresses_is_refused(archive: Archive) -> None:
    with serving(says("301 Moved", b"", "Location: /b"), says("301 Moved", b"", "Location: /prices.csv")) as server:
        assert "redirect loop" in str(fails(archive, server.url()))
    assert len(server.heads) == 2


def test_redirects_are_counted(archive: Archive) -> None:
    hops = [says("307 Temporary Redirect", b"", f"Location: /{i}") for i in range(9)]
    with serving(*hops) as server:
        assert "more than 2 redirects" in str(fails(archive, server.url(), max_redirects=2))
    assert len(server.heads) == 3
    with serving(*hops[:2], says("200 OK", BODY)) as server:
        assert client(archive, max_redirects=2).get(server.url(), max_bytes=CAP).raw == BODY


def test_an_address_in_unicode_is_followed(archive: Archive) -> None:
    hop = raw("HTTP/1.1 302 Found\r\nLocation: /preise-märz.csv\r\nContent-Length: 0\r\n\r\n".encode())
    with serving(hop, says("200 OK", BODY)) as server:
        client(archive).get(server.url(), max_bytes=CAP)
    assert server.heads[1].startswith("GET /preise-m%C3%A4rz.csv HTTP/1.1\r\n")


def test_the_body_of_a_redirect_is_not_read(archive: Archive) -> None:
    head = b"HTTP/1.1 302 Found\r\nLocation: /new\r\n\r\n"
    with serving(endless(head, bytes(2**16), 2**34), says("200 OK", BODY)) as server:
        tracemalloc.start()
        assert client(archive).get(server.url(), max_bytes=CAP).raw == BODY
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2 * CAP


# ----------------------------------------------------------------------------------------- TLS


def test_a_certificate_is_checked_against_the_name_though_the_address_is_connected_to(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _resolving(monkeypatch, {"prices.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]})
    context, trusted = certified("prices.example", tmp_path)
    with serving(says("200 OK", BODY), context=context) as server:
        untrusted = fails(archive, server.url(host="prices.example"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
        misnamed = fails(archive, server.url(host="other.example"))
        assert client(archive).get(server.url(host="prices.example"), max_bytes=CAP).raw == BODY
        assert f"Host: prices.example:{server.port}\r\n" in server.heads[-1]
    assert "certificate is not trusted (self-signed certificate) (1 attempt" in str(untrusted) and untrusted.permanent
    assert "certificate is not trusted (Hostname mismatch" in str(misnamed) and misnamed.permanent


def test_a_redirect_from_https_to_http_is_refused(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _resolving(monkeypatch, {"prices.example": ["127.0.0.1"]})
    context, trusted = certified("prices.example", tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    with serving(says("200 OK", BODY)) as plain:
        with serving(says("302 Found", b"", f"Location: {plain.url()}"), context=context) as server:
            error = fails(archive, server.url(host="prices.example"))
        assert plain.heads == []
    assert "a redirect from https down to http is refused" in str(error) and error.permanent


def test_a_server_that_drips_under_tls_is_cut_at_the_total_limit(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _resolving(monkeypatch, {"prices.example": ["127.0.0.1"]})
    context, trusted = certified("prices.example", tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    stop = threading.Event()
    with serving(drips(b"HTTP/1.1 200 OK\r\nX-Drip: ", stop), context=context) as server:
        error = fails(archive, server.url(host="prices.example"), total_seconds=0.5)
        stop.set()
    assert "not finished within 0.5 s in all" in str(error)


# ---------------------------------------------------------------------------- private addresses


def _resolving(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> list[str]:
    """Let these names resolve to these addresses; returns the log of names looked up."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def lookup(host: str, port: int, *args: int, **kwargs: int) -> list[object]:
        if host not in names:
            return list(real(host, port, *args, **kwargs))
        asked.append(host)
        return [info for address in names[host] for info in real(address, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return asked


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "localhost.", "[::1]", "2130706433", "0x7f.1", "0.0.0.0", "169.254.169.254"]
)
def test_private_addresses_are_refused(archive: Archive, host: str) -> None:
    with serving(says("200 OK", BODY)) as server:
        error = fails(archive, server.url(host=host), allow_private=False)
    assert "is not on the open internet" in str(error) and error.permanent
    assert server.heads == []


@pytest.mark.parametrize("host", ["127.0.0.2", "localtest.example"])
def test_a_redirect_to_a_private_address_is_refused(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    _resolving(monkeypatch, {"localtest.example": ["127.0.0.2"]})
    monkeypatch.setattr(connections, "is_public", lambda address: address == "127.0.0.1")
    with (
        serving(says("200 OK", BODY)) as inner,
        serving(says("302 Found", b"", f"Location: {inner.url(host=host)}")) as server,
    ):
        error = fails(archive, server.url(), allow_private=False)
        assert inner.heads == []
    assert f"{server.url()}, redirected to {inner.url(host=host)}: " in str(error)
    assert "127.0.0.2 is not on the open internet" in str(error)


def test_a_host_with_one_private_address_is_refused(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    _resolving(monkeypatch, {"prices.example": ["8.8.8.8", "10.0.0.1"]})
    error = fails(archive, "http://prices.example/x.csv", allow_private=False)
    assert "prices.example at 10.0.0.1 is not on the open internet" in str(error)


def test_the_address_that_was_judged_is_the_one_connected_to(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _resolving(monkeypatch, {"prices.example": ["127.0.0.1"]})
    with serving(says("200 OK", BODY)) as server:
        client(archive).get(server.url(host="prices.example"), max_bytes=CAP)
    assert asked == ["prices.example"], "a second look-up could answer differently"


def test_a_proxy_resolves_names_but_numbers_are_judged_here(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    asked = _resolving(monkeypatch, {"prices.example": []})
    with serving(says("200 OK", BODY)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url(""))
        answer = client(archive, allow_private=False).get("http://prices.example/x.csv", max_bytes=CAP)
        assert answer.raw == BODY and asked == []
        assert proxy.heads[0].startswith("GET http://prices.example/x.csv HTTP/1.1\r\n")
        with pytest.raises(FetchError, match="169.254.169.254 is not on the open internet"):
            client(archive, allow_private=False).get("http://169.254.169.254/latest", max_bytes=CAP)
        assert len(proxy.heads) == 1


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("64:ff9b::808:808", True),  # NAT64 of 8.8.8.8
        ("::ffff:8.8.8.8", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),  # carrier's NAT
        ("127.8.8.8", False),
        ("0.0.0.0", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff0e::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),  # 6to4 of 127.0.0.1
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert connections.is_public(address) is public


# ---------------------------------------------------------------------------------------- size


def _refused_with_peak(archive: Archive, server: Server) -> tuple[FetchError, int]:
    tracemalloc.start()
    try:
        error = fails(archive, server.url())
        return error, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_answer_announced_too_long_is_not_read(archive: Archive) -> None:
    with serving(endless(b"HTTP/1.1 200 OK\r\nContent-Length: 2147483648\r\n\r\n", bytes(2**16), 2**31)) as server:
        error, peak = _refused_with_peak(archive, server)
    assert "announces 2147483648 bytes, more than max_bytes = 1048576" in str(error) and error.permanent
    assert peak < CAP


@pytest.mark.parametrize("chunked", [False, True])
def test_an_endless_answer_is_cut_at_the_cap(archive: Archive, chunked: bool) -> None:
    head, piece = b"HTTP/1.1 200 OK\r\n\r\n", bytes(2**16)
    if chunked:
        head, piece = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + piece + b"\r\n"
    with serving(endless(head, piece, 2**31)) as server:
        error, peak = _refused_with_peak(archive, server)
    assert "sends more than max_bytes = 1048576" in str(error) and error.permanent
    assert peak < 3 * CAP


def test_a_gzip_bomb_is_refused_before_it_unfolds(archive: Archive) -> None:
    pieces = bomb(1024)
    start = zlib.decompressobj(31).decompress(b"".join(pieces[:3]))
    assert start == bytes(3 * 2**20) and sum(map(len, pieces)) < 2 * CAP, "the bomb is one"
    with serving(raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", *pieces)) as server:
        error, peak = _refused_with_peak(archive, server)
    assert "unpacks to more than max_bytes = 1048576" in str(error) and error.permanent
    assert peak < 3 * CAP


@pytest.mark.parametrize("packed", [False, True])
def test_a_document_of_exactly_the_cap_is_taken_and_one_byte_more_is_not(archive: Archive, packed: bool) -> None:
    body = b"7" * 100_000
    sent = (
        says("200 OK", gzip.compress(body), "Content-Encoding: gzip")
        if packed
        else raw(b"HTTP/1.1 200 OK\r\n\r\n", body)
    )
    with serving(sent) as server:
        assert "more than max_bytes = 99999" in str(fails(archive, server.url(), max_bytes=99_999))
        assert client(archive).get(server.url(), max_bytes=100_000).raw == body


# ------------------------------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://me:pw@x.org/a?b=1#frag", "https://x.org/a?b=1"),
        ("https://x.org/a?series=P%20Q&api_key=s3&file_type=json", "https://x.org/a?series=P+Q&file_type=json"),
        ("https://x.org/a?key=s3", "https://x.org/a"),
        ("https://x.org/a?Token=s3&apikey=s3&SECRET=s3&password=s3&subscription-key=s3", "https://x.org/a"),
        ("https://x.org/a?q=a%2Fb&monkeys=2", "https://x.org/a?q=a%2Fb&monkeys=2"),
        ("http://[::1/?key=s3", "(an address that cannot be read)"),
    ],
)
def test_shown_addresses_hold_no_secret(url: str, public: str) -> None:
    assert shown(url) == public


@pytest.mark.parametrize(
    "speak",
    [
        says("503 Service Unavailable"),
        says("404 Not Found"),
        raw(b""),
        says("200 OK", BODY, length=999),
        says("302 Found", b"", "Location: http://u:s3cret@127.0.0.1:1/?token=s3cret"),
        says("302 Found", b"", "Location: ftp://u:s3cret@127.0.0.1:1/?token=s3cret"),
    ],
)
def test_secrets_are_in_no_message_and_no_traceback(
    archive: Archive, speak: Speak, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(speak) as server:
        url = server.url("/prices.csv?api_key=s3cret&b=1").replace("http://", "http://me:s3cret@")
        error = fails(archive, url)
        assert "s3cret" in server.heads[0]
    told = "".join(traceback.format_exception(error)) + "".join(capfd.readouterr())
    assert "/prices.csv?b=1" in told and "s3cret" not in told


def test_the_archived_facts_hold_no_secret(archive: Archive) -> None:
    with serving(says("200 OK", BODY)) as server:
        answer = client(archive).get(server.url("/prices.csv?api_key=s3cret"), max_bytes=CAP)
    assert answer.document is not None and answer.document.url == server.url()


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("file://elsewhere/secrets", "only http and https"),
        ("prices.csv", "only http and https"),
        ("", "only http and https"),
        ("http://[::1", "cannot be read"),
        (f"http://{'a' * 70}.example/", "is not a host name"),
    ],
)
def test_what_is_no_address_is_refused(archive: Archive, url: str, what: str) -> None:
    error = fails(archive, url)
    assert what in str(error) and error.permanent


def test_a_validator_that_would_smuggle_a_header_is_refused(archive: Archive) -> None:
    with serving(says("200 OK", BODY)) as server, pytest.raises(FetchError, match="cannot be sent") as caught:
        client(archive).get(server.url(), max_bytes=CAP, etag='"v1"\r\nX-Evil: 1')
    assert caught.value.permanent and server.heads == []


def test_a_disk_that_is_full_is_no_fault_of_the_source(archive: Archive) -> None:
    archive.root.write_bytes(b"a file where the folder should be")
    with serving(says("200 OK", BODY)) as server, pytest.raises(StoreError, match="cannot be written"):
        client(archive).get(server.url(), max_bytes=CAP)
    assert len(server.heads) == 1


# ------------------------------------------------------------------------------------- archive


def test_the_same_bytes_give_the_same_file(tmp_path: Path) -> None:
    first, second = Archive(tmp_path / "a"), Archive(tmp_path / "b")
    sha256 = first.put(BODY)
    assert sha256 == second.put(BODY) == hashlib.sha256(BODY).hexdigest()
    assert documents(first)[0].read_bytes() == documents(second)[0].read_bytes()
    assert sha256 in first and sha256 not in Archive(tmp_path / "c")


def test_a_write_that_was_killed_leaves_no_broken_document(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        """The process ends here: nothing after this line is run, nor any cleaning up."""

    def kill(*_: object, **__: object) -> None:
        raise Killed

    sha256 = hashlib.sha256(BODY).hexdigest()
    for step in ("os.fsync", "pathlib.Path.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(step, kill)
            patch.setattr(Path, "unlink", kill)
            with pytest.raises(Killed):
                archive.put(BODY)
        assert sha256 not in archive
        with pytest.raises(StoreError, match="no such document"):
            archive.get(sha256)
    assert {p.suffix for p in documents(archive)} == {".part"} and len(documents(archive)) == 2
    assert archive.put(BODY) == sha256
    assert archive.get(sha256) == BODY


def test_damage_anywhere_in_a_file_is_found_and_named(archive: Archive) -> None:
    sha256 = archive.put(BODY)
    path = documents(archive)[0]
    whole = path.read_bytes()
    broken = [whole[:n] for n in range(len(whole))] + [whole + b"x", gzip.compress(b"something else")]
    broken += [whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :] for i in range(len(whole))]
    noticed = 0
    for damaged in broken:
        path.write_bytes(damaged)
        try:
            assert archive.get(sha256) == BODY, "bytes were handed out that are not the document's"
        except StoreError as error:
            assert str(path) in str(error) and "damaged" in str(error)
            noticed += 1
    # Six bytes of a gzip header (time, compression level, system) say nothing about its content.
    assert len(broken) - noticed <= 6


def test_a_damaged_document_is_mended_when_it_comes_again(archive: Archive) -> None:
    sha256 = archive.put(BODY)
    documents(archive)[0].write_bytes(b"junk")
    assert archive.put(BODY) == sha256 and archive.get(sha256) == BODY


@pytest.mark.parametrize("name", ["", "../../secret", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_a_digest_names_a_document(archive: Archive, name: str) -> None:
    assert name not in archive
    with pytest.raises(StoreError, match="does not name a document"):
        archive.get(name)


def test_an_absent_document_is_named(archive: Archive) -> None:
    with pytest.raises(StoreError, match="no such document") as caught:
        archive.get("ab" + "0" * 62)
    assert str(archive.root / "ab" / ("0" * 62 + ".gz")) in str(caught.value)
