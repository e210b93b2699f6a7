"""The way out of a subscription: the link in a mail, and the one click of a mail program (RFC 8058).

A wish is an empty file, named by the token of the message, that the outbox reads: nothing else is written by the web.
Whether a token is one of ours is not known here, so any token is answered alike.
"""

from __future__ import annotations

import re
from pathlib import Path

from flask import Blueprint, Response

from pricing.web.answers import COMMON, Finished
from pricing.web.problems import Problem, unavailable

MOST = 10_000  # wishes that wait at once: somebody who makes tokens up must not fill the disk
_TOKEN = re.compile(r"[0-9a-f]{40}")
_PAGE = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "<title>Lodemark alerts</title></head><body><main><h1>Lodemark alerts</h1>{}</main></body></html>\n"
)
_ASK = '<p>Send no more alerts to this address?</p><form method="post"><button>Unsubscribe</button></form>'
_DONE = "<p>Noted. Within minutes no more alerts are sent to this address. The operator can undo it.</p>"
_POLICY = "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


def blueprint(folder: Path) -> Blueprint:
    """Return the routes.

    Parameters
    ----------
    folder : Path
        Where wishes are left.
    """
    wishes = Blueprint("unsubscribe", __name__)

    @wishes.get("/unsubscribe/<token>")
    def ask(token: str) -> Response:
        _checked(token)
        return _page(_ASK)

    @wishes.post("/unsubscribe/<token>")
    def leave(token: str) -> Response:
        name = _checked(token)
        try:
            folder.mkdir(exist_ok=True)
            if sum(1 for _ in folder.iterdir()) < MOST:
                (folder / name).touch(0o644)
                return _page(_DONE)
        except OSError as error:
            raise unavailable([f"unsubscribe: {error.strerror}"]) from error
        raise unavailable(["unsubscribe: too many wait; answer to the mail instead"])

    return wishes


def _checked(token: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise Problem(404, "unknown-document", "Not a link of ours", "the address ends with 40 letters and digits")
    return token


def _page(content: str) -> Response:
    body = _PAGE.format(content).encode()
    fixed = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))]
    headers = [("Cache-Control", "no-store"), ("Content-Security-Policy", _POLICY), ("Referrer-Policy", "no-referrer")]
    return Finished(body, 200, [*fixed, *headers, *COMMON])
