"""Answers with validators: which representation a client accepts, and whether it has it already.

An answer is made once and sent many times. The gzip twin is a representation of its own, with its own
strong ETag (RFC 9110, 8.8.3), which is the SHA-256 of the bytes that are sent.
"""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from flask import Response
from werkzeug.datastructures import Headers
from werkzeug.http import http_date, parse_date

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

JSON = "application/json"
RELEASE_HEADER = "Lodemark-Release"
COMMON = (
    ("Vary", "Accept-Encoding"),
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Expose-Headers", f"ETag, {RELEASE_HEADER}"),
    ("X-Content-Type-Options", "nosniff"),
)
LOCKED = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")

_ETAG = re.compile(r'(?:W/)?("[^"]*")')
_WORTH_ZIPPING = 1000  # bytes; below, the answer fits one packet anyhow


class Finished(Response):
    """A response that is sent unchanged, any number of times, by any thread.

    Status, headers and body are settled when it is made, so sending it is one call; it goes out as a
    list, which the server writes in one piece. Never change one after it is made.
    """

    def __init__(self, body: bytes, status: int, headers: Iterable[tuple[str, str]]) -> None:
        super().__init__(body, status)
        self.headers = Headers(headers)
        self._body = body
        self._settled = (self.status, self.headers.to_wsgi_list())

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Send it; a HEAD request gets the headers alone."""
        status, headers = self._settled
        start_response(status, headers.copy())  # a copy: some servers add to the list they are given
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [self._body]


class Variant:
    """One representation: the full answer, and the 304 for who has it."""

    __slots__ = ("etag", "full", "unchanged")

    def __init__(self, body: bytes, etag: str, headers: list[tuple[str, str]], encoding: str = "") -> None:
        self.etag = f'"{etag}"'
        kept = [*headers, ("ETag", self.etag)]
        entity = [("Content-Encoding", encoding)] if encoding else []
        self.full = Finished(body, 200, [*kept, *entity, ("Content-Length", str(len(body)))])
        self.unchanged = Finished(b"", 304, [h for h in kept if h[0] != "Content-Type"])


class Document:
    """A finished answer in one or two representations.

    Parameters
    ----------
    body, etag : bytes, str
        The plain bytes and their ETag without quotes, by rule their SHA-256.
    zipped : (bytes, str) or None
        The gzip twin and its ETag.
    headers : sequence of pairs
        Content-Type, Cache-Control and what else both representations carry.
    modified : int
        Seconds since 1970, for Last-Modified.
    """

    __slots__ = ("modified", "plain", "size", "zipped")

    def __init__(
        self,
        body: bytes,
        etag: str,
        zipped: tuple[bytes, str] | None,
        headers: Iterable[tuple[str, str]],
        modified: int,
    ) -> None:
        every = [*headers, *COMMON, ("Last-Modified", http_date(modified))]
        self.modified = modified
        self.plain = Variant(body, etag, every)
        self.zipped = Variant(*zipped, every, "gzip") if zipped else self.plain
        self.size = len(body) + (len(zipped[0]) if zipped else 0)

    def answer(self, environ: WSGIEnvironment) -> Response:
        """Return what this request is to get: the bytes it accepts, or 304."""
        accepted = environ.get("HTTP_ACCEPT_ENCODING")
        variant = self.zipped if accepted and takes_gzip(accepted) else self.plain
        return variant.unchanged if is_known(environ, variant.etag, self.modified) else variant.full


def made(body: bytes, headers: Iterable[tuple[str, str]], modified: int, *, etag: str | None = None) -> Document:
    """Make a document of bytes that no release holds, and zip it where that pays."""
    packed = gzip.compress(body, 5, mtime=0) if len(body) > _WORTH_ZIPPING else None
    if etag is None:
        zipped = (packed, digest(packed)) if packed else None
        return Document(body, digest(body), zipped, headers, modified)
    return Document(body, etag, (packed, etag + "-gzip") if packed else None, headers, modified)


def unchanged(environ: dict[str, Any], etag: str, headers: Iterable[tuple[str, str]], modified: int) -> Response | None:
    """Return the 304 for who has a document that ``made`` would make under this ETag, before it is made."""
    tags = [etag, etag + "-gzip"] if takes_gzip(environ.get("HTTP_ACCEPT_ENCODING", "")) else [etag]
    tag = next((t for t in tags if is_known(environ, f'"{t}"', modified)), None)
    return None if tag is None else Document(b"", tag, None, headers, modified).plain.unchanged


def digest(body: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(body).hexdigest()


def cached_for(seconds: int) -> tuple[str, str]:
    """Return the Cache-Control of an answer that may change after so many seconds."""
    return ("Cache-Control", f"public, max-age={seconds}" if seconds > 0 else "no-cache")


@lru_cache(maxsize=512)
def takes_gzip(accepted: str) -> bool:
    """Tell whether an Accept-Encoding header takes gzip (RFC 9110, 12.5.3): by name, else by ``*``."""
    weights: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, _, parameters = part.partition(";")
        key, _, weight = parameters.partition("=")
        try:
            weights[name.strip()] = float(weight) if key.strip() == "q" else 1.0
        except ValueError:
            weights[name.strip()] = 0.0
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0


def is_known(environ: dict[str, Any], etag: str, modified: int) -> bool:
    """Tell whether the client has this representation (RFC 9110, 13.2.2).

    Parameters
    ----------
    etag : str
        With its quotes. Compared weakly: a proxy may have put ``W/`` before it.
    modified : int
        Seconds since 1970; asked only where there is no If-None-Match.
    """
    known = environ.get("HTTP_IF_NONE_MATCH")
    if known is not None:
        return known == etag or known.strip() == "*" or etag in _ETAG.findall(known)
    since = environ.get("HTTP_IF_MODIFIED_SINCE")
    if since is None:
        return False
    try:
        date = parse_date(since)
    except (ValueError, OverflowError):
        return False
    return date is not None and modified <= date.timestamp()


def seconds(instant: dt.datetime) -> int:
    """Whole seconds since 1970, as an HTTP date counts."""
    return int(instant.timestamp())
