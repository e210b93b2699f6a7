"""Shocks as releases tell them, made up, and subscribers to hear of them."""

from __future__ import annotations

import datetime as dt
from typing import Any

from pricing.alerts import Ground, Occasion
from pricing.subscribers import Alerts, Smtp, Subscriber

START = dt.datetime(2026, 3, 2, 16, tzinfo=dt.UTC)
RULES = Alerts(
    sender="Lodemark <alerts@example.org>", smtp=Smtp(host="mail.example.org"), base_url="https://example.org"
)
OPEN = Ground(True, ("A house",))


def day(n: float) -> dt.datetime:
    """Instant of the release so many days after the first."""
    return START + dt.timedelta(days=n)


def iso(at: dt.datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def shock(series: str = "gallium/metal/XCN", n: int = 0, **changes: Any) -> dict[str, Any]:
    """A shock first flagged on day ``n``, as the release of that day tells it."""
    flagged = day(n).date().isoformat()
    kind = "premium" if series.startswith("premium/") else "price" if series.count("/") == 2 else "index"
    parts = series.removeprefix("premium/").split("/")
    markets = {"price": [series], "index": []}.get(kind, [f"{'/'.join(parts[:2])}/{z}" for z in ("CN", "XCN")])
    made = {
        "id": f"{series}:daily:{flagged}", "series": series, "of": kind, "product": "shock", "frequency": "daily",
        "minerals": [] if kind == "index" else [parts[0]], "markets": markets, "kind": "market", "direction": "up",
        "onset": flagged, "flagged": flagged, "last": flagged, "unit": "USD/t", "checks": [], "observations": 1,
        "from": {"period": day(n - 1).date().isoformat(), "value": 100.0}, "to": {"period": flagged, "value": 112.0},
        "now": {"period": flagged, "value": 112.0}, "change_percent": 12.0, "sigmas": 7.0, "grade": "A",
        "expected": {"by": "detector", "median": 100.5}, "severity": 3, "severity_most": 3, "state": "open",
        "verdict": "market", "certainty": "likely", "event": None, "learnt_at": iso(day(n)), "told_in": n + 1,
        "age_days": 0, "hindsight": False, "indices": [], "href": f"/v1/prices/{series}",
        "corroboration": {"origins_along": [], "origins_still": [], "markets_along": [], "markets_against": []},
    }  # fmt: skip
    made |= changes
    line = {k: made[k] for k in ("state", "verdict", "certainty", "severity")}
    history = [{"release": n + 1, "vintage": iso(day(n)), **line, "why": "two origins moved along"}]
    return {"history": history} | made


def later(one: dict[str, Any], n: float, why: str = "as known later", **changes: Any) -> dict[str, Any]:
    """The same shock as the release of day ``n`` tells it."""
    made = one | changes
    line = {k: made[k] for k in ("state", "verdict", "certainty", "severity")}
    return made | {"history": [*one["history"], {"release": int(n) + 1, "vintage": iso(day(n)), **line, "why": why}]}


def occasion(n: float, shocks: list[dict[str, Any]] = (), **changes: Any) -> Occasion:
    """The release of day ``n``; all sources of the shocks allow alerts unless other grounds are given."""
    given = {
        "audience": "public", "at": day(n), "rules": RULES, "release": int(n) + 1,
        "grounds": {s["series"]: OPEN for s in shocks},
    }  # fmt: skip
    return Occasion(**given | changes)


def subscriber(name: str = "Ministry", **given: Any) -> Subscriber:
    return Subscriber(**{"name": name, "address": f"{name.lower().replace(' ', '-')}@example.net", **given})
