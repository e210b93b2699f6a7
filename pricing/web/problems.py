"""Errors as RFC 9457 problem documents: what is wrong, where, and what would be right."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from pricing.web.answers import COMMON, LOCKED, Finished

MEDIA_TYPE = "application/problem+json"
_SHOWN = 200  # characters of what a client sent that are repeated to it


class Problem(Exception):
    """A request that cannot be answered.

    ``kind`` is the last part of the problem's type (``urn:lodemark:problem:…``, listed in
    ``docs/api.md``); ``more`` becomes members of the document.
    """

    def __init__(self, status: int, kind: str, title: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status, self.kind, self.title, self.detail, self.more = status, kind, title, detail, more

    def response(self) -> Response:
        """Return the document; a 503 says when to try again."""
        wait = [("Retry-After", str(self.more.get("retry_after", 30)))] if self.status == 503 else []
        return _response(
            self.status,
            {
                "type": f"urn:lodemark:problem:{self.kind}",
                "title": self.title,
                "status": self.status,
                "detail": self.detail,
                **self.more,
            },
            wait,
        )


def unavailable(missing: Iterable[str]) -> Problem:
    """503: the endpoint runs, but has nothing it could answer from."""
    lacking = list(missing)
    return Problem(503, "unavailable", "No release to answer from", "; ".join(lacking), missing=lacking)


def shown(text: str) -> str:
    """Return what a client sent, short enough to be repeated."""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def nearest(word: str, known: Iterable[str], n: int = 3) -> list[str]:
    """Return the known words most like a mistyped one, without regard to case."""
    by_lower = {k.lower(): k for k in known}
    return [by_lower[k] for k in difflib.get_close_matches(word[:_SHOWN].lower(), by_lower, n, 0.5)]


def register(app: Flask) -> None:
    """Let every error of the application leave as a problem document."""

    def ours(problem: Problem) -> Response:
        return problem.response()

    def http(error: HTTPException) -> Response:
        status = error.code or 500
        allow = [h for h in error.get_headers() if h[0] == "Allow"]
        detail = {
            404: "there is nothing under this address; what there is stands in /v1/",
            405: "this address is only read: GET, HEAD or OPTIONS",
            500: "the server failed; the operator's log says why",
        }.get(status, error.description or error.name)
        return _response(
            status, {"type": "about:blank", "title": error.name, "status": status, "detail": detail}, allow
        )

    app.register_error_handler(Problem, ours)
    app.register_error_handler(HTTPException, http)


def _response(status: int, document: dict[str, Any], headers: list[tuple[str, str]]) -> Response:
    # ASCII escapes: what the client sent may hold lone surrogates, which UTF-8 cannot carry
    body = json.dumps(document, ensure_ascii=True).encode()
    fixed = [("Content-Type", MEDIA_TYPE), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"), LOCKED]
    return Finished(body, status, [*fixed, *COMMON, *headers])
