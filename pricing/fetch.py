"""The one HTTP client of all sources: every answer is archived before anybody reads it.

A cut, damaged or oversized answer is an error and never a shorter document. HTTP itself leaves one
gap: an answer with neither a length, nor chunks, nor gzip ends where its connection ends, so a clean
cut cannot be told from its end.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import io
import ipaddress
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urldefrag, urlencode, urljoin, urlsplit, urlunsplit

import requests
import stamina

from pricing.archive import Archive
from pricing.config import Fetching
from pricing.connections import Failure, Limits, Session, explained, refuse_private
from pricing.errors import FetchError

__all__ = ["Answer", "Archive", "Client", "Document", "shown"]

PIECE = 64 * 1024  # bytes read or unpacked at a time
REDIRECTS = (301, 302, 303, 307, 308)
BUSY = (408, 429)  # refusals that mean "later"; so does every 5xx

_SECRET = re.compile(r"(key|token|secret|password|passwd|pwd|signature|sig|credential)$", re.IGNORECASE)


@dataclass(frozen=True)
class Document:
    """One answer as it was received: what the archive's bytes are and where they came from.

    ``url`` is the address that was asked for, without its secrets; ``size`` counts unpacked bytes.
    """

    sha256: str
    url: str
    retrieved_at: dt.datetime
    http_status: int
    content_type: str
    etag: str
    last_modified: str
    size: int

    def received(self) -> dict[str, Any]:
        """Return what the store keeps of the answer beside its hash and address."""
        return {
            "retrieved_at": self.retrieved_at,
            "size": self.size,
            "http_status": self.http_status,
            "content_type": self.content_type,
            "etag": self.etag,
            "last_modified": self.last_modified,
        }


@dataclass(frozen=True)
class Answer:
    """A document and its bytes, or (304) the news that the one we know still stands."""

    document: Document | None
    raw: bytes | None
    not_modified: bool


@dataclass(frozen=True)
class _Request:
    """What is asked of an address: ``validators`` follow redirects, ``headers`` stay with the host."""

    url: str
    validators: dict[str, str]
    headers: dict[str, str]
    max_bytes: int
    statuses: frozenset[int]
    redirects: bool


class Client:
    """Fetches documents politely and distrustfully; the limits are those of ``[fetch]``.

    Parameters
    ----------
    settings : Fetching
        User agent, time limits in seconds, attempts, redirects.
    archive : Archive
        Where each answer is kept before it is returned.
    now : callable
        The clock: an aware instant.
    first_wait, longest_wait : float
        Seconds before the second attempt (it doubles, with jitter) and the most that it grows to.
    """

    def __init__(
        self,
        settings: Fetching,
        archive: Archive,
        now: Callable[[], dt.datetime],
        *,
        first_wait: float = 1.0,
        longest_wait: float = 30.0,
    ) -> None:
        self._settings = settings
        self._archive = archive
        self._now = now
        self._first_wait = first_wait
        self._longest_wait = longest_wait

    def get(
        self,
        url: str,
        *,
        etag: str = "",
        last_modified: str = "",
        max_bytes: int,
        headers: Mapping[str, str] | None = None,
        statuses: frozenset[int] = frozenset({200}),
        redirects: bool = True,
    ) -> Answer:
        """Ask for a document, unless it is still the one with these validators.

        ``max_bytes`` limits both what travels and what it unpacks to. ``headers`` go to this
        address's host only, never on to where it redirects; ``redirects=False`` follows none.
        ``statuses`` are those whose body is an answer that somebody reads, a redirect that is not
        followed among them. Raises FetchError (``permanent`` where
        the next run would fail alike) and StoreError when the archive cannot take the answer.
        """
        limits = Limits(self._settings, time.monotonic() + self._settings.total_seconds)
        validators = {k: v for k, v in (("If-None-Match", etag), ("If-Modified-Since", last_modified)) if v}
        request = _Request(url, validators, dict(headers or {}), max_bytes, statuses, redirects)
        attempts = 0
        try:
            for attempt in self._attempts(limits):
                attempts = attempt.num
                with attempt:
                    return self._once(request, limits)
        except Failure as failure:
            tried = "1 attempt" if attempts == 1 else f"{attempts} attempts"
            outlook = "will not mend itself" if failure.permanent else "temporary, the next run tries again"
            # Not chained: the causes' own texts carry the whole address.
            raise FetchError(f"{failure} ({tried}; {outlook})", permanent=failure.permanent) from None
        raise AssertionError("the last attempt returns or raises")

    def _attempts(self, limits: Limits) -> Iterable[stamina.Attempt]:
        doublings = iter(range(self._settings.attempts))

        def again(error: Exception) -> bool | float:
            if not isinstance(error, Failure) or error.permanent:
                return False
            longest = min(self._longest_wait, self._first_wait * (2 ** next(doublings) + 1))
            if max(error.wait, longest) >= limits.left():
                return False  # there would be no time left to try
            return error.wait if error.wait > longest else True

        return stamina.retry_context(
            on=again,
            attempts=self._settings.attempts,
            timeout=None,
            wait_initial=self._first_wait,
            wait_max=self._longest_wait,
            wait_jitter=self._first_wait,
        )

    def _once(self, request: _Request, limits: Limits) -> Answer:
        trail: list[str] = []
        try:
            with Session(limits) as session, _open(session, request, trail, limits) as response:
                if response.status_code == 304 and request.validators:
                    return Answer(document=None, raw=None, not_modified=True)
                if response.status_code not in request.statuses:
                    raise _refusal(response, limits, self._now())
                with explained(limits):
                    raw = _body(response, request.max_bytes)
        except Failure as failure:
            route = ", redirected to ".join(shown(url) for url in trail[:1] + trail[1:][-1:])
            raise Failure(f"{route}: {failure}", again=not failure.permanent, wait=failure.wait) from None
        return Answer(self._document(request.url, response, raw), raw, not_modified=False)

    def _document(self, url: str, response: requests.Response, raw: bytes) -> Document:
        return Document(
            sha256=self._archive.put(raw),
            url=shown(url),
            retrieved_at=self._now().astimezone(dt.UTC),
            http_status=response.status_code,
            content_type=response.headers.get("Content-Type", ""),
            etag=response.headers.get("ETag", ""),
            last_modified=response.headers.get("Last-Modified", ""),
            size=len(raw),
        )


def shown(url: str) -> str:
    """Return an address fit to be shown: without user-info, fragment and secret query parameters."""
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return "(an address that cannot be read)"
    public = [(name, value) for name, value in query if not _SECRET.search(name)]
    kept = parts.query if len(public) == len(query) else urlencode(public)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, kept, ""))


@contextmanager
def _open(session: Session, request: _Request, trail: list[str], limits: Limits) -> Iterator[requests.Response]:
    """Follow redirects to the last answer and yield it, its body unread; ``trail`` grows by each address."""
    url, headers = request.url, request.headers
    while True:
        trail.append(url)
        _vet(trail, limits)
        with explained(limits):
            response = session.get(
                url,
                headers={**headers, **request.validators},
                stream=True,
                allow_redirects=False,
                timeout=(limits.settings.connect_seconds, limits.settings.read_seconds),
            )
        try:
            wanted = not request.redirects and response.status_code in request.statuses
            if wanted or response.status_code not in REDIRECTS:
                yield response
                return
            target = _target(url, response.headers.get("Location", ""))
            if not request.redirects:
                raise Failure(f"redirects to {shown(target)}, which is not followed", again=False)
        finally:
            response.close()
        if session.should_strip_auth(url, target):  # type: ignore[no-untyped-call]
            headers = {}
        url = target


def _target(url: str, location: str) -> str:
    if not location:
        raise Failure("redirects without saying where to", again=False)
    try:
        target = urljoin(url, location.encode("latin-1").decode())  # headers arrive as latin-1, addresses are UTF-8
        urlsplit(target).port  # noqa: B018  (reading it is what checks it)
    except ValueError:
        raise Failure("redirects to an address that cannot be read", again=False) from None
    return target


def _vet(trail: list[str], limits: Limits) -> None:
    """Refuse the last address of the trail before anything is sent to it."""
    url, earlier = trail[-1], trail[:-1]
    try:
        scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
    except ValueError:
        raise Failure("the address cannot be read", again=False) from None
    if scheme not in ("http", "https") or not host:
        raise Failure("only http and https addresses with a host are fetched", again=False)
    if scheme == "http" and earlier and urlsplit(earlier[-1]).scheme == "https":
        raise Failure("a redirect from https down to http is refused", again=False)
    if urldefrag(url)[0] in {urldefrag(address)[0] for address in earlier}:
        raise Failure("a redirect loop", again=False)
    if len(earlier) > limits.settings.max_redirects:
        raise Failure(f"more than {limits.settings.max_redirects} redirects", again=False)
    with suppress(ValueError):  # a name: judged when it is resolved
        refuse_private(host, [str(ipaddress.ip_address(host))], limits)


def _refusal(response: requests.Response, limits: Limits, now: dt.datetime) -> Failure:
    """Put an answer that is neither the document nor news of it into words."""
    status = response.status_code
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    what = f"HTTP {status} {phrase}".rstrip()
    if status == 304:
        return Failure(f"{what}, though we named no version that we know", again=True)
    if status not in BUSY and status < 500:
        return Failure(what, again=False)
    wait = _retry_after(response.headers.get("Retry-After", ""), now)
    if wait >= limits.left():
        what += f", asks for {wait:g} s, which is beyond the limit of {limits.settings.total_seconds:g} s in all"
    return Failure(what, again=True, wait=wait)


def _retry_after(text: str, now: dt.datetime) -> float:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3); 0 where it says nothing."""
    if re.fullmatch(r"\d{1,9}", text.strip(), re.ASCII):
        return float(text)
    try:
        then = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    aware = then if then.tzinfo else then.replace(tzinfo=dt.UTC)
    return max(0.0, (aware - now).total_seconds())


def _body(response: requests.Response, max_bytes: int) -> bytes:
    """Read and unpack a body without ever holding more than ``max_bytes`` and one piece of it."""
    too_long = f"more than max_bytes = {max_bytes}; raise max_bytes if the document has really grown"
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length[:20]) > max_bytes:
        raise Failure(f"announces {length[:20]} bytes, {too_long}", again=False)
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise Failure(f"is packed as {encoding[:40]!r}, which was not asked for", again=False)
    pieces = _within(response.raw.stream(PIECE, decode_content=False), max_bytes, f"sends {too_long}")
    if encoding.endswith("gzip"):
        pieces = _within(_gunzipped(pieces), max_bytes, f"unpacks to {too_long}")
    whole = io.BytesIO()  # hands its buffer over without a second copy
    for piece in pieces:
        whole.write(piece)
    return whole.getvalue()


def _within(pieces: Iterable[bytes], max_bytes: int, complaint: str) -> Iterator[bytes]:
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > max_bytes:
            raise Failure(complaint, again=False)
        yield piece


def _gunzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Unpack one or several gzip members, at most ``PIECE`` bytes at a time.

    Unlike the decoder of urllib3 it takes a stream that ends early, or goes on with something else,
    for what it is: damage. No output is left behind the last input, since a member ends with a
    checksum that is read after all of it.
    """
    member = zlib.decompressobj(wbits=31)
    try:
        for piece in pieces:
            data = piece
            while data:
                if member.eof:
                    member = zlib.decompressobj(wbits=31)
                yield member.decompress(data, PIECE)
                data = member.unused_data or member.unconsumed_tail
    except zlib.error:
        raise Failure("its gzip is damaged", again=True) from None
    if not member.eof:
        raise Failure("its gzip was cut short", again=True)
