"""A made market of two metals and seven small sources: settings files, documents and their publisher.

Everything is a function of (source, round), so that an undisturbed run can be repeated exactly. Round 1
is what the sources say at first; in round 2 one revises and adds, one withdraws, one changes its layout,
and the rest say the same again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

OPEN = ("alpha", "beta", "days", "euro", "output", "rates")
SOURCES = (*OPEN, "closed", "moody")
NOW = {
    1: dt.datetime(2026, 11, 20, 14, 0, tzinfo=dt.UTC),
    2: dt.datetime(2026, 11, 23, 14, 0, tzinfo=dt.UTC),
}
MONTHS = [f"{y}-{m:02d}" for y in (2024, 2025, 2026) for m in range(1, 13)][:34]  # 2024-01 to 2026-10
DAYS = [d for i in range(110) if (d := dt.date(2026, 8, 3) + dt.timedelta(days=i)).weekday() < 5]
PAGE = b"<!doctype html><html><head><title>We have moved</title></head><body>Sign in</body></html>\n"

METHODOLOGY = """
id = "2026-11"
title = "A method for two metals"
status = "initial"
proposed = 2026-11-02
effective = 2026-11-02
notice_days = 28

[determination]
max_spread = 0.15
max_weight = 0.49
carry_days = 3
interval = 80
interval_periods = 250
widest = 0.3
grades = { A = 3, B = 2, C = 1 }
month_share = 0.5
stale_days = { daily = 0, weekly = 6, ten-day = 0, monthly = 0, annual = 0 }
relaxed_days = { daily = 0, weekly = 13, ten-day = 0, monthly = 0, annual = 0 }
tier_weights = { transaction = 1.0, committed = 0.9, official = 0.8, assessment = 0.7, model = 0.3 }

[fallback]
window = { daily = 60, ten-day = 18, monthly = 12 }
limit = { daily = 10, ten-day = 3, monthly = 2 }

[basis]
review_month = 1
window_months = 12
min_common = { daily = 20, weekly = 8, ten-day = 9, monthly = 6 }

[twins]
risk_months = 36
min_changes = 24
geks_window = 25

[[markets]]
mineral = "nickel"
stage = "metal"
zone = "XCN"
element = "Ni"
per = "product"

[[markets]]
mineral = "cobalt"
stage = "metal"
zone = "XCN"
element = "Co"
per = "product"

[baskets.two-metals]
title = "Two metals"
base_period = "2025"
review = 2
cap = 0.7
min_weight = 0.6
min_coverage = 0.8

[[baskets.two-metals.constituents]]
mineral = "nickel"
stage = "metal"
zone = "XCN"
production = "output-nickel"

[[baskets.two-metals.constituents]]
mineral = "cobalt"
stage = "metal"
zone = "XCN"
production = "output-cobalt"
"""

_HEAD = """
data = "data"
methodology = "methodology"

[publish]
schedule = "0 14 * * mon-fri"
title = "Two metals"
audiences = ["public", "internal"]

[web]
port = {port}

[fetch]
connect_seconds = 2
read_seconds = {seconds}
total_seconds = {seconds}
attempts = 1
max_redirects = 3
allow_private = true
"""

_SOURCE = """
[sources.{name}]
parser = "table"
title = "{name}"
publisher = "{name} and sons"
url = "{base}/{name}.csv"
terms = "https://example.org/{name}"
terms_read = 2026-11-01
licence = "made up"
attribution = "Made by {name}"
rights = "{rights}"
schedule = "0 13 * * mon-fri"
min_age_ok_days = 10
table = {{ date = "date", date_format = "{date_format}" }}
"""


def config_text(base: str, *, names: tuple[str, ...] = SOURCES, seconds: float = 5, port: int = 8080) -> str:
    """Return a ``config.toml`` whose sources answer below ``base``."""
    parts = [_HEAD.format(port=port, seconds=seconds)]
    for name in names:
        form = {"days": "%Y-%m-%d", "euro": "%Y-%m-%d", "rates": "%Y-%m-%d", "output": "%Y"}.get(name, "%Y-%m")
        rights = "internal" if name == "closed" else "open"
        parts.append(_SOURCE.format(name=name, base=base, rights=rights, date_format=form))
        parts += [_series(name, metal) for metal in ("nickel", "cobalt")] if name != "rates" else [_RATE]
    return "".join(parts)


_RATE = """
[[sources.rates.series]]
id = "rates-usd"
kind = "fx"
unit = "USD/EUR"
frequency = "daily"
origin = "rates"
currency_of = "USD"
column = "usd"
"""


def _series(name: str, metal: str) -> str:
    unit = {"beta": "USD/kg", "euro": "EUR/t", "output": "t"}.get(name, "USD/t")
    frequency = {"days": "daily", "euro": "daily", "output": "annual"}.get(name, "monthly")
    kind = "production" if name == "output" else "price"
    origin = "alpha" if name == "days" else name  # the same market, told by the day and by the month
    return (
        f'\n[[sources.{name}.series]]\nid = "{name}-{metal}"\nkind = "{kind}"\nmineral = "{metal}"\nstage = "metal"\n'
        f'zone = "XCN"\nunit = "{unit}"\nfrequency = "{frequency}"\norigin = "{origin}"\ncolumn = "{metal}"\n'
    )


def write(folder: Path, base: str, **options: object) -> Path:
    """Write ``config.toml`` and ``methodology/`` into a folder; return the former."""
    (folder / "methodology").mkdir(parents=True, exist_ok=True)
    (folder / "methodology" / "2026-11.toml").write_text(METHODOLOGY)
    path = folder / "config.toml"
    path.write_text(config_text(base, **options))  # type: ignore[arg-type]
    return path


# ---------------------------------------------------------------------------------- documents


def level(metal: str, at: float) -> float:
    """USD per tonne at a moment, counted in months."""
    start, swing = (15_000, 900) if metal == "nickel" else (36_000, 2_500)
    return start + swing * math.sin(at / 4) + 20 * at


def document(name: str, round_: int) -> bytes:
    """Return what a source publishes in a round."""
    if name == "moody" and round_ == 2:
        return PAGE
    return _csv(_rows(name, round_))


def _rows(name: str, round_: int) -> list[tuple[str, ...]]:
    if name == "rates":
        return [("date", "usd"), *((d.isoformat(), f"{1.08 + i / 2000:.4f}") for i, d in enumerate(DAYS))]
    head = ("date", "nickel", "cobalt")
    if name == "output":
        return [
            head,
            *((str(y), str(3_300_000 + 1000 * i), str(200_000 + 500 * i)) for i, y in enumerate(range(2022, 2026))),
        ]
    if name in ("days", "euro"):
        lasting = 1.0 if name == "days" else 1.02 / 1.1
        rows = [
            (d.isoformat(), *(f"{level(m, 31 + i / 21) * lasting:.2f}" for m in ("nickel", "cobalt")))
            for i, d in enumerate(DAYS)
        ]
        if round_ == 1:
            return [head, *rows[:-1]]  # the last day comes with round 2
        return [head, *(rows if name == "days" else rows[:40] + rows[41:])]  # and one day is withdrawn
    lasting = {"alpha": 1.0, "beta": 1.01 / 1000, "closed": 0.987, "moody": 1.005}[name]
    digits = 5 if name == "beta" else 2
    table = [[level(m, i) * lasting for m in ("nickel", "cobalt")] for i in range(len(MONTHS))]
    if name == "alpha" and round_ == 2:
        table[-5][0] *= 1.01  # a revision of June
    shown = len(MONTHS) - 1 if name == "alpha" and round_ == 1 else len(MONTHS)
    return [head, *((m, *(f"{v:.{digits}f}" for v in r)) for m, r in zip(MONTHS[:shown], table, strict=False))]


def _csv(rows: list[tuple[str, ...]]) -> bytes:
    return "".join(",".join(row) + "\n" for row in rows).encode()


# ---------------------------------------------------------------------------------- publisher


def publisher(round_now: Callable[[], int]) -> ThreadingHTTPServer:
    """Return a server on loopback, not yet running, that answers conditionally with the round's documents."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = document(self.path.strip("/").removesuffix(".csv"), round_now())
            tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            same = self.headers.get("If-None-Match") == tag
            self.send_response(304 if same else 200)
            self.send_header("ETag", tag)
            self.send_header("Content-Length", "0" if same else str(len(body)))
            self.end_headers()
            if not same:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Say nothing of an asker who was killed."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    return server
