"""The start page: what this is, which release is current, and where its documents are."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, render_template, request

from pricing.web.answers import COMMON, Document, Finished, cached_for, made
from pricing.web.api import is_stale
from pricing.web.problems import Problem
from pricing.web.query import LEGS
from pricing.web.releases import Snapshot, Tree

_TEMPLATES = Path(__file__).parent / "templates"


def blueprint(
    tree: Tree, *, max_age: int, release_max_age_days: float | None, now: Callable[[], dt.datetime]
) -> Blueprint:
    """Return the routes of the pages, each rendered once per release."""
    pages = Blueprint("pages", __name__)
    style = (_TEMPLATES / "style.css").read_text("utf-8")
    headers = [("Content-Type", "text/html; charset=utf-8"), *_protection(style)]
    rendered: dict[str, tuple[tuple[str, bool], Document]] = {}

    def shown(template: str, content: Callable[[Snapshot], dict[str, Any]]) -> Response:
        try:
            snapshot = tree.current()
        except Problem as problem:
            page = render_template(template, style=style, facts=None, missing=problem.more["missing"]).encode()
            fixed = [("Retry-After", "30"), ("Cache-Control", "no-store"), ("Content-Length", str(len(page)))]
            return Finished(page, 503, [*headers, *COMMON, *fixed])
        key = (snapshot.facts.manifest_sha256, is_stale(snapshot, now(), release_max_age_days))
        if rendered.get(template, ("",))[0] != key:
            page = render_template(template, style=style, stale=key[1], **content(snapshot)).encode()
            rendered[template] = (key, made(page, [*headers, cached_for(max_age)], snapshot.modified))
        return rendered[template][1].answer(request.environ)

    @pages.get("/")
    def start() -> Response:
        return shown("start.html", _content)

    @pages.get("/methodology", strict_slashes=False)
    def methodology() -> Response:
        return shown("methodology.html", _method)

    return pages


def _protection(style: str) -> list[tuple[str, str]]:
    """Allow the one inline style sheet by its hash, and nothing else."""
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return [("Content-Security-Policy", policy), ("Referrer-Policy", "no-referrer")]


def _content(snapshot: Snapshot) -> dict[str, Any]:
    indices, prices = (_listed(snapshot, name) for name in ("indices", "prices"))
    pending = _of_method(snapshot).get("pending", [])
    tables = {"pending": pending, "indicators": _indicators(snapshot), "gaps": _gaps(snapshot)}
    tables["shocks"] = _open_shocks(snapshot)
    kinds = ("indicators", "imports", "gaps", "spreads", "alerts")
    lists = [name for name in kinds if f"{name}.json" in snapshot.files]
    shown = {"facts": snapshot.facts, "indices": indices, "prices": prices, "lists": lists}
    return {"minute": minute, **shown, **tables}


def _method(snapshot: Snapshot) -> dict[str, Any]:
    """Return the method in words, as the release has it: nothing is worded here."""
    method = _of_method(snapshot)
    return {"minute": minute, "facts": snapshot.facts} | {
        name: method.get(name, []) for name in ("text", "pending", "earlier")
    }


def _of_method(snapshot: Snapshot) -> dict[str, Any]:
    document = snapshot.json("methodology.json")
    return document if isinstance(document, dict) else {}


def _entries(snapshot: Snapshot, name: str) -> list[dict[str, Any]]:
    """Return the entries of a list document; none where the release has no such list."""
    document = snapshot.json(f"{name}.json")
    entries = document.get(name, []) if isinstance(document, dict) else []
    return [entry for entry in entries if isinstance(entry, dict) and entry.get("id")]


def _indicators(snapshot: Snapshot) -> list[dict[str, str]]:
    """One row per product and origin: the legs of the newest month that any of them has."""
    rows = []
    for entry in _entries(snapshot, "indicators"):
        for origin, legs in (entry.get("latest") or {}).items():
            period = max((figure["period"] for figure in legs.values() if figure), default="")
            if period:
                shown = {leg: legs.get(leg) or {} for leg in LEGS}
                rows.append(
                    {
                        "title": str(entry["id"]),
                        "href": f"/v1/indicators/{entry['id']}",
                        "origin": str(origin).upper(),
                        "unit": str(entry.get("unit") or ""),
                        "period": period + (", stale" if all(f.get("stale") for f in shown.values() if f) else ""),
                        **{leg: _of_month(figure, period) for leg, figure in shown.items()},
                    }
                )
    return rows


def _of_month(figure: Mapping[str, Any], month: str) -> str:
    """Return a unit value in whole dollars; one of another month says which."""
    value = figure.get("value")
    text = number(value, 0 if isinstance(value, float) and value >= 1000 else None)
    return text if figure.get("period") in (None, month) else f"{text} ({figure['period']})"


def _open_shocks(snapshot: Snapshot) -> list[dict[str, str]] | None:
    """One row per open shock, as the release orders them; None where nothing is watched."""
    if "shocks.json" not in snapshot.files:
        return None
    return [
        {
            "series": str(entry["series"]),
            "href": str(entry["href"]),
            "change": change(entry["change_percent"]),
            "onset": str(entry["onset"]),
            "severity": str(entry["severity"]),
            "verdict": f"{entry['verdict']} ({entry['certainty']})",
            "why": str(entry["history"][-1]["why"]),
        }
        for entry in _entries(snapshot, "shocks")
        if entry["state"] == "open"
    ]


def _gaps(snapshot: Snapshot) -> list[dict[str, str]]:
    return [
        {
            "title": str(entry["id"]),
            "href": f"/v1/gaps/{entry['id']}",
            "gap": change((entry.get("latest") or {}).get("value")),
            "china": number((entry.get("latest") or {}).get("china"), 2),
            "other": number((entry.get("latest") or {}).get("other"), 2),
            "unit": str(entry.get("price_unit") or ""),
            "period": str((entry.get("latest") or {}).get("period") or "")
            + (", stale" if (entry.get("latest") or {}).get("stale") else ""),
        }
        for entry in _entries(snapshot, "gaps")
    ]


def _listed(snapshot: Snapshot, name: str) -> list[dict[str, str]]:
    """Return the rows of one table as text; what a list document does not say leaves its cell empty."""
    return [row for entry in _entries(snapshot, name) for row in _rows(name, entry)]


def _rows(name: str, entry: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """One row per frequency that has a figure; one empty row where none has."""
    latest = entry.get("latest") or {}
    given: dict[str, dict[str, Any]] = {frequency: figure for frequency, figure in latest.items() if figure}
    for frequency, figure in (given or {"": {}}).items():
        yield {
            "title": str(entry.get("title") or entry["id"]),
            "href": f"/v1/{name}/{entry['id']}",
            "value": number(figure.get("value"), entry.get("decimals")),
            "unit": str(entry.get("unit") or ""),
            "period": str(figure.get("period") or ""),
            "frequency": frequency + (f", stale: {figure['age_days']} days old" if figure.get("stale") else ""),
            "change": change((figure.get("change") or {}).get("before")),
            "note": note(figure),
            "coverage": str((entry.get("coverage") or {}).get("statement") or entry.get("withheld") or ""),
        }


def number(value: Any, decimals: Any = None) -> str:
    """Return a figure with the digits that it was published with; a dash where there is none."""
    if not isinstance(value, int | float):
        return "–"
    return f"{value:,.{decimals}f}" if isinstance(decimals, int) else f"{value:,}"


def minute(instant: str) -> str:
    """Return an instant to the minute, as a reader says it."""
    return f"{instant[:10]} {instant[11:16]} UTC"


def change(percent: Any) -> str:
    """Return a change with its sign, in per cent."""
    return f"{percent:+.2f} %".replace("-", "−") if isinstance(percent, int | float) else "–"


def note(figure: Mapping[str, Any]) -> str:
    """Return how much a price may be trusted: grade, type, and the status when it is not normal."""
    status = figure.get("status")
    return ", ".join(
        str(v) for v in (figure.get("grade"), figure.get("type"), None if status == "normal" else status) if v
    )
