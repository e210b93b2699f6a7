"""The web application: serves the releases below one folder, and nothing else."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path

from flask import Flask, Response

from pricing.web import api, pages, problems, unsubscribe
from pricing.web.releases import Tree


class _Endpoint(Flask):
    """Flask whose answer to OPTIONS lets a browser of any origin ask conditionally."""

    def make_default_options_response(self) -> Response:
        """Return the allowed methods, and the headers that a page elsewhere may send."""
        response = super().make_default_options_response()
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Access-Control-Allow-Methods"] = response.headers["Allow"]
        response.headers["Access-Control-Allow-Headers"] = "If-None-Match, If-Modified-Since"
        response.headers["Access-Control-Max-Age"] = "86400"
        return response


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def create_app(
    root: Path,
    status_file: Path,
    *,
    max_age: int = 60,
    release_max_age_days: float | None = None,
    now: Callable[[], dt.datetime] = _utc_now,
) -> Flask:
    """Make the application.

    No session, no ``after_request``: answers are made once and shared between requests.

    Parameters
    ----------
    root : Path
        The tree of public releases: ``current``, ``releases/``, ``jwks.json``, ``published.db``. It
        need not exist yet: until it does, ``/v1/`` answers 503 and says what is missing.
    status_file : Path
        ``status.json`` of the scheduler; may be absent. Wishes to unsubscribe are left in the folder ``unsubscribe``
        beside it.
    max_age : int
        Seconds that an answer about the current release may be kept. 0: ask each time.
    release_max_age_days : float or None
        How old the current release may be before ``/readyz`` says so; None: any age.
    now : callable
        The clock, aware UTC.
    """
    app = _Endpoint(__name__, static_folder=None)
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    tree = Tree(root, max_age)
    app.register_blueprint(
        api.blueprint(tree, status_file, max_age=max_age, release_max_age_days=release_max_age_days, now=now)
    )
    app.register_blueprint(pages.blueprint(tree, max_age=max_age, release_max_age_days=release_max_age_days, now=now))
    app.register_blueprint(unsubscribe.blueprint(status_file.parent / "unsubscribe"))
    problems.register(app)
    return app


def from_environment() -> Flask:
    """Make the application for a WSGI server that is given a name only.

    Reads ``LODEMARK_DATA`` (the data folder, ``data`` when absent), ``LODEMARK_MAX_AGE`` (seconds) and
    ``LODEMARK_RELEASE_MAX_AGE_DAYS``.
    """
    data = Path(os.environ.get("LODEMARK_DATA", "data"))
    days = os.environ.get("LODEMARK_RELEASE_MAX_AGE_DAYS")
    return create_app(
        data / "public",
        data / "status.json",
        max_age=int(os.environ.get("LODEMARK_MAX_AGE", "60")),
        release_max_age_days=float(days) if days else None,
    )
