"""Documents of alerts: the list of the last year's messages, all of them by year, and the feed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from pricing.alerts import percent, place
from pricing.documents.edition import Edition
from pricing.releases import canonical
from pricing.shocks import a_year_before

FEED = "feed.atom"
ENTRIES = 50  # latest messages in the feed
READING = (
    "Messages as they were sent, in the terms of the Common Alerting Protocol 1.2. A message that follows another of "
    "the same thread takes its place; a Cancel says that what was told was an error. What rests on figures whose terms "
    "do not allow alerts is not told here."
)
_SUMMARY = ("identifier", "thread", "version", "sent", "status", "msgType", "references", "state", "product",
            "event", "urgency", "severity", "certainty", "onset", "expires", "headline", "why", "release",
            "simulated")  # fmt: skip


def is_shown(message: Mapping[str, Any]) -> bool:
    """Tell whether a message is for everybody."""
    return bool(message["list"] == "partners" and message["alert_allowed"] and message["audience"] == "public")


def alert_files(edition: Edition, messages: Sequence[Mapping[str, Any]], files: dict[str, bytes]) -> None:
    """Write the list of messages, every year's, and the feed.

    Parameters
    ----------
    messages : sequence of dict
        All that were told, those of this release included, oldest first; of a public release only what is for everybody
        is shown.
    """
    shown = [one for one in messages if is_shown(one) or edition.audience != "public"]
    since = a_year_before(edition.released_at)
    recent = [one for one in reversed(shown) if one["sent"] >= since]
    latest = {one["thread"]: one for one in shown}
    years: dict[str, list[Mapping[str, Any]]] = {}
    for one in shown:
        years.setdefault(one["sent"][:4], []).append(one)
    for year, rows in years.items():
        files[f"alerts/{year}.json"] = canonical(
            {"meta": {"id": f"alerts/{year}", **edition.part_meta()}, "year": year, "alerts": rows}
        )
    rules = edition.operation.alerts
    files["alerts.json"] = canonical(
        {
            "meta": edition.meta("alerts"),
            "notes": [READING],
            "open": sorted(thread for thread, one in latest.items() if one["state"] == "open"),
            "alerts": [_summary(one) for one in recent],
            "rules": {k: getattr(rules, k) for k in ("least_severity", "reopen_hours", "suppress_hours")},
            "feed": f"/{FEED}",
            "history": [{"year": year, "href": f"/v1/alerts/{year}"} for year in sorted(years)],
        }
    )
    files[FEED] = feed(edition, list(reversed(shown))[:ENTRIES])


def _summary(one: Mapping[str, Any]) -> dict[str, Any]:
    return {k: one[k] for k in _SUMMARY} | {
        "shocks": [s["id"] for s in one["shocks"]],
        "series": [s["series"] for s in one["shocks"]],
        "href": f"/v1/alerts/{one['sent'][:4]}",
    }


def feed(edition: Edition, messages: Sequence[Mapping[str, Any]]) -> bytes:
    """Return messages as an Atom feed (RFC 4287), an entry each, the newest first."""
    base = (edition.operation.alerts.base_url or "").rstrip("/")
    title = edition.operation.publish.title
    warning = "SIMULATED: " if edition.simulated else ""
    root = ET.Element("feed", xmlns="http://www.w3.org/2005/Atom")
    _text(root, "id", f"{base}/{FEED}" if base else "urn:lodemark:alerts")
    _text(root, "title", f"{warning}{title}: alerts")
    _text(root, "updated", messages[0]["sent"] if messages else edition.released_at)
    _text(ET.SubElement(root, "author"), "name", title)
    ET.SubElement(root, "link", rel="self", href=f"{base}/{FEED}", type="application/atom+xml")
    ET.SubElement(root, "link", rel="alternate", href=f"{base}/v1/alerts")
    for one in messages:
        entry = ET.SubElement(root, "entry")
        marked = "SIMULATED: " if one["simulated"] else ""
        kind = {"Alert": "", "Update": "Update: ", "Cancel": "Cancelled: "}[one["msgType"]]
        kind = "Over: " if one["state"] == "closed" else kind
        _text(entry, "id", f"urn:lodemark:alert:{one['identifier']}")
        _text(entry, "title", f"{marked}{kind}{one['headline']}")
        _text(entry, "updated", one["sent"])
        _text(entry, "published", one["sent"])
        path = f"/v1/alerts/{one['sent'][:4]}"
        ET.SubElement(entry, "link", rel="alternate", href=f"{base}{path}")
        for term in dict.fromkeys((one["severity"], *(m for s in one["shocks"] for m in s["minerals"]))):
            ET.SubElement(entry, "category", term=term)
        _text(entry, "summary", "\n".join(_lines(one)))
    text = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()


def _text(parent: ET.Element, name: str, text: str) -> None:
    """Add an element with text, without the control characters that no XML may hold."""
    made = ET.SubElement(parent, name)
    made.text = "".join(c for c in text if c in "\t\n" or (c >= " " and c not in "\x7f\ufffe\uffff"))


def _lines(one: Mapping[str, Any]) -> list[str]:
    """Say what a message says, a line each."""
    out = [f"Simulated prices: no real market. Release {one['release']}."] if one["simulated"] else []
    out += [f"{one['why']}."] if one["why"] else []
    for s in one["shocks"]:
        out.append(
            f"{place(s)}: {percent(s)}, from {s['from']['value']:,.6g} ({s['from']['period']}) "
            f"to {s['to']['value']:,.6g} "
            f"{s['unit']} ({s['to']['period']}), known since {s['learnt_at'][:16].replace('T', ' ')} UTC; "
            f"{s['verdict']}, {s['certainty']}; {s['state']}."
        )
    out += [f"Index {i['id']}: {percent({'change_percent': i['percent']})} by this." for i in one["indices"]]
    return out
