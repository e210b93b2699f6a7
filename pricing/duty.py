"""Who is told what: alerts of a release, what the operator should know, and the state of the service."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import structlog
from apscheduler.triggers.cron import CronTrigger

from pricing import (
    alerts,
    cells,
    documents,
    figures,
    keys,
    shocks,
)
from pricing.config import (
    Operation,
)
from pricing.errors import StoreError
from pricing.store import instant, iso
from pricing.workspace import Workspace, writing

log = structlog.get_logger()


NEWS = dt.timedelta(days=1)  # of a release that is deemed to have been made longer ago nobody is told


def status(ws: Workspace, schedule: Mapping[str, str] | None = None, *, public: bool = False) -> dict[str, Any]:
    """State of operation: sources with their age, last releases. Stands outside releases.

    Parameters
    ----------
    schedule : mapping of job to the instant when it runs next
    public : bool
        Of sources whose values are closed, tell no more than whether they are reached.
    """
    now = ws.now()
    visits = {n: v for n, s in ws.operation.sources.items() if (v := ws.store.visit(n, s.url))["at"]}
    stored = {row["source"]: row for row in ws.store.summary()}
    out: dict[str, Any] = {
        "at": iso(now),
        "kind": ws.store.kind,
        "sources": {},
        "releases": {},
        "jobs": dict(schedule or {}),
    }
    for name, source in ws.operation.sources.items():
        visit = visits.get(name)
        row = cells.summary(ws.store, name) if source.customs else stored.get(name)
        last = instant(row["last_vintage"]) if row else None
        age = (now - last).total_seconds() / 86400 if last else None
        out["sources"][name] = {
            "title": source.title,
            "reachable": visit["outcome"] != "failed" if visit else None,
            "outcome": visit["outcome"] if visit else None,
            "message": visit["message"] if visit and visit["outcome"] in ("failed", "refused") else None,
            "visited_at": visit["at"] if visit else None,
            "next_visit": min(
                (due for job, due in (schedule or {}).items() if job in (f"collect {name}", f"retry collect {name}")),
                default=None,
            ),
            "observations": row["observations"] if row else 0,
            "revised": row["revised"] if row else 0,
            "withdrawn": row["withdrawn"] if row else 0,
            "last_period": row["last_period"] if row else None,
            "last_vintage": iso(last) if last else None,
            "age_days": round(age, 2) if age is not None else None,
            "stale": age is not None and age > source.min_age_ok_days,
            "open": source.rights.publish_value,
        }
        if public and not source.rights.publish_value:
            told = out["sources"][name]
            out["sources"][name] = {k: told[k] for k in ("title", "reachable", "visited_at", "next_visit", "open")}
    out["alerts"] = _alert_state(ws, now)
    for audience in ("public", "internal"):
        row = ws.store.last_release(audience)
        if row:
            out["releases"][audience] = {"number": row["number"], "released_at": row["released_at"]}
    return out


def _alert_state(ws: Workspace, now: dt.datetime) -> dict[str, Any]:
    """How many alerts are open, and how delivery is doing; nobody is named."""
    latest = {one["thread"]: one for one in ws.store.alerts()}
    standing = [one["list"] for one in latest.values() if one["state"] == "open"]
    due = ws.store.outbox_due()
    return {
        "open": {name: standing.count(name) for name in ("partners", "operator")},
        "outbox": ws.store.outbox_counts(),
        "oldest_minutes": round(max((now - due).total_seconds() / 60, 0.0), 1) if due else 0.0,
        "suppressed": len(ws.store.suppressed()),
    }


def write_status(ws: Workspace, schedule: Mapping[str, str] | None = None) -> None:
    """Write ``status.json`` for the web process, in one step."""
    keys.write_durably(
        ws.data / "status.json", orjson.dumps(status(ws, schedule, public=True), option=orjson.OPT_INDENT_2)
    )


def next_release(operation: Operation, at: dt.datetime) -> str | None:
    """When the release after an instant is due."""
    publish = operation.publish
    zone = ZoneInfo(publish.time_zone)
    trigger = CronTrigger.from_crontab(publish.schedule, timezone=zone)
    due = trigger.get_next_fire_time(None, at.astimezone(zone) + dt.timedelta(seconds=1))
    return iso(due) if due else None


def alerts_of(
    ws: Workspace, edition: documents.Edition, made: figures.Figures, shocked: shocks.Told, at: dt.datetime
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Decide what the shocks of a release are to be told of; return it with what was told before."""
    rules = ws.operation.alerts
    earlier = ws.store.alerts(edition.audience)
    if not shocked.shocks:
        return [], earlier
    shown = documents.shown_shocks(shocked, made)
    grounds = alerts.grounds(made, ws.operation, shown)
    occasion = alerts.Occasion(edition.audience, at, rules, edition.number, edition.simulated, grounds)
    elsewhere: set[str] = set()
    if edition.audience != "public":
        elsewhere = {s["id"] for one in ws.store.alerts("public") for s in one["shocks"]}
    return alerts.of_shocks(shown, earlier, occasion, elsewhere), earlier


def drafted(ws: Workspace, messages: list[dict[str, Any]], at: dt.datetime) -> dict[str, Any]:
    """Messages with those who are told. Of a release that is deemed to have been made long ago nobody is told."""
    now = ws.now()
    news = abs(now - at) <= NEWS
    return {"alerts": messages, "deliveries": _addressed(ws, messages, now) if news else []}


def _addressed(ws: Workspace, messages: list[dict[str, Any]], now: dt.datetime) -> list[tuple[str | int, ...]]:
    rules = ws.operation.alerts
    if not (messages and ws.operation.subscribers):
        return []  # a salt is drawn where somebody is told
    to = alerts.deliveries(messages, ws.operation.subscribers, ws.store.told(), rules, ws.store.salt, now)
    return [one.row() for one in to]


def alert_operator(ws: Workspace) -> list[dict[str, Any]]:
    """Tell the operator what is wrong with the service now, and what is over; return the messages.

    Stands outside releases: each message and what is sent of it are stored in one transaction.
    """
    now = ws.now()
    with writing(ws.data):
        seen = ws.store.acknowledged()
        occasion = alerts.Occasion("operator", now, ws.operation.alerts, simulated=ws.simulated)
        found = alerts.of_operation(_conditions(ws, now), ws.store.alerts("operator"), occasion, seen)
        if found:
            ws.store.announce(found, _addressed(ws, found, now))
    for one in found:
        log.warning("operator alerted", what=one["headline"], state=one["state"])
    return found


def cancel_alert(ws: Workspace, thread: str, reason: str, actor: str) -> dict[str, Any]:
    """Cancel an alert by hand and tell all who were told of it; returns the message.

    Raises StoreError where it is cancelled already.
    """
    now = ws.now()
    with writing(ws.data):
        try:
            message = alerts.cancelled(ws.store.alerts(thread=thread), reason, actor, now)
        except ValueError as error:
            raise StoreError(f"{thread}: {error}") from error
        ws.store.announce([message], _addressed(ws, [message], now))
    return message


def exercise(ws: Workspace, name: str) -> tuple[dict[str, Any], int]:
    """Put a marked exercise to one subscriber into the outbox; returns it and over how many channels it goes."""
    who = next((s for s in ws.operation.subscribers if s.name.casefold() == name.casefold()), None)
    if who is None:
        known = ", ".join(s.name for s in ws.operation.subscribers)
        raise StoreError(f"no subscriber {name!r} in the settings; there are: {known or 'none'}")
    now = ws.now()
    occasion = alerts.Occasion("operator", now, ws.operation.alerts, simulated=ws.simulated)
    message = alerts.exercise(who.name, occasion)
    to = alerts.to_one(who, message, ws.operation.alerts, ws.store.salt, now)
    if not to:
        raise StoreError(f"{who.name}: no channel sends; mail needs alerts.from and [alerts.smtp]")
    with writing(ws.data):
        ws.store.announce([message], [one.row() for one in to])
    return message, len(to)


def _conditions(ws: Workspace, now: dt.datetime) -> Iterator[alerts.Condition]:
    """Say what is wrong: sources, releases, what is sent, and errors found in figures."""
    rules, state = ws.operation.alerts, status(ws)
    for name, source in state["sources"].items():
        if source["stale"]:
            text = f"{name}: no new figures since {source['last_vintage'][:10]}"
            yield alerts.Condition(f"stale:{name}", "Source is stale", text, 2, (source["message"] or "",))
        url = ws.operation.sources[name].url
        since = ws.store.visit(name, url)["succeeded_at"] if url else ""
        failing = source["outcome"] in ("failed", "refused") and since < iso(
            now - dt.timedelta(hours=rules.failing_hours)
        )
        if failing:
            text = f"{name}: {source['outcome']} since {since[:16] or 'the first visit'}"
            yield alerts.Condition(f"failing:{name}", "Source cannot be read", text, 2, (source["message"] or "",))
    for audience, made in state["releases"].items():
        due = next_release(ws.operation, dt.datetime.fromisoformat(made["released_at"]))
        late = audience in ws.operation.publish.audiences and due is not None
        if late and iso(now - dt.timedelta(minutes=rules.late_minutes)) > str(due):
            text = f"the {audience} release of {str(due)[:16]} has not been made; the last is {made['number']}"
            yield alerts.Condition(f"late:{audience}", "Release is late", text, 3)
    oldest = ws.store.outbox_due()
    if oldest is not None and now - oldest > dt.timedelta(minutes=rules.late_minutes):
        text = f"messages wait in the outbox since {iso(oldest)[:16]}"
        yield alerts.Condition("outbox:aged", "Messages are not sent", text, 3)
    window = now - dt.timedelta(hours=rules.reopen_hours)
    errors: dict[tuple[str, str], list[str]] = {}
    for one in ws.store.findings_since(window):
        # the detector's doubts about figures of a contributor bear a score; of a whole feed they are named so
        if one["severity"] == "error" or "score" in one["evidence"] or one["check"].startswith("feed-"):
            errors.setdefault((one["source"], one["check"]), []).append(one["message"])
    for (name, check), texts in errors.items():
        more = f", and {len(texts) - 1} more" if len(texts) > 1 else ""
        text = f"{name}, {check}: {texts[0][:100]}{more}"
        yield alerts.Condition(f"finding:{name}:{check}", "Error found", text, 2, (), tuple(dict.fromkeys(texts)))
