"""What was held back, and the decisions of persons on it: read from the store, checked, and stored with their effect.

The only way in for a person's judgement. Each function records one decision, or raises and records nothing.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Any, Literal

import orjson
import pandas as pd

from pricing import decisions, quality, releases
from pricing.decisions import Confirm, Decision, Frequency, OnFinding, Override, Revoke, Standing
from pricing.errors import DecisionError
from pricing.judgement import OverrideKind
from pricing.pipeline import AUDIENCES, Workspace, writing
from pricing.store import instant, iso


def standing(ws: Workspace) -> Standing:
    """Return what the log of decisions amounts to now."""
    return decisions.standing(decisions.read(ws.store.decisions()))


def listed(ws: Workspace) -> dict[str, Any]:
    """Return what waits for a person: figures held back with their evidence, proposals, and overrides in force.

    A figure that several documents repeat is listed once, as the last of them says it, with how often it was seen. One
    that the publisher has replaced since is listed no longer.
    """
    now = standing(ws)
    asked = {one.figure for one in now.proposed.values() if isinstance(one, OnFinding)}
    hashes = {d["id"]: d["sha256"] for d in ws.store.documents()}
    held: dict[tuple[str, str, float], dict[str, Any]] = {}
    seen: Counter[tuple[str, str, float]] = Counter()
    for finding in ws.store.findings():
        if not decisions.is_held_figure(finding):
            continue
        series, period, value = finding["series"], finding["period"], float(finding["evidence"]["value"])
        register = ws.store.register_of(finding["document"], finding["vintage"])
        if now.decides(series, period, value, register):
            held.pop((series, period, value), None)
            continue
        known = _known(ws, series, period)
        if known is not None and known["since"] > iso(instant(finding["vintage"])):
            held.pop((series, period, value), None)
            continue
        seen[series, period, value] += 1
        held[series, period, value] = {
            "finding": finding["id"],
            "source": finding["source"],
            "series": series,
            "period": period,
            "value": value,
            "check": finding["check"],
            "why": finding["message"],
            "known": known,
            "document": hashes.get(finding["document"]),
            "since": iso(instant(finding["vintage"])),
            "age_days": round((ws.now() - instant(finding["vintage"])).total_seconds() / 86400, 2),
            "proposed": (series, period, value) in asked,
        }
    return {
        "held": [{**row, "seen": seen[key]} for key, row in held.items()],
        "slips": _slips(ws, now),
        "proposed": [_shown(ws, one) for one in now.proposed.values()],
        "overrides": [
            {**_shown(ws, one), "since": since, "actors": list(actors)}
            for one, since, actors in now.taken.values()
            if isinstance(one, Override)
        ],
    }


def _slips(ws: Workspace, now: Standing) -> list[dict[str, Any]]:
    """Quotations that a determination holds back, that stand as they were, and that no override settles."""
    out = []
    for finding in ws.store.findings():
        facts = finding["evidence"]
        if finding["check"] != "unit-slip" or "market" not in facts:
            continue
        period, known = finding["period"], _known(ws, finding["series"], finding["period"])
        if known is None or known["value"] != facts["value"]:
            continue  # the publisher has corrected it
        place = (facts["market"], facts["frequency"])
        if any(
            (j.market, j.frequency) == place and j.first <= period <= j.last and j.origin in ("", facts["origin"])
            for j in now.judgements
        ):
            continue
        row = {"series": finding["series"], "period": period, "value": facts["value"], "why": finding["message"]}
        out.append({**row, "market": place[0], "frequency": place[1], "origin": facts["origin"]})
    return out


def _known(ws: Workspace, series: str, period: str) -> dict[str, Any] | None:
    """What is known of a period, while a figure of it is held back."""
    rows = ws.store.history(series, period)
    if rows.empty:
        return None
    last = rows.iloc[-1]
    value = None if pd.isna(last["value"]) else float(last["value"])
    return {"value": value, "status": last["status"], "since": iso(instant(int(last["vintage"])))}


def _shown(ws: Workspace, one: Decision) -> dict[str, Any]:
    facts = one.model_dump(mode="json")
    if isinstance(one, Override) and one.kind == "price":
        facts["beside"] = beside(ws, one)
    return facts


def beside(ws: Workspace, one: Override) -> dict[str, Any] | None:
    """Return the last released price of a market before a judged one, and how far that lies from it.

    Returns
    -------
    dict or None
        ``release, period, value, distance`` (share of the released price); None where there is none.
    """
    for audience in reversed(AUDIENCES):
        last = releases.latest(ws.root(audience))
        path = last.folder / "prices" / f"{one.market}.json" if last is not None else None
        if last is None or path is None or not path.exists():
            continue
        values = orjson.loads(path.read_bytes())["values"].get(one.frequency, [])
        before = [v for v in values if v["unrounded"] and v["period"] <= one.first and v["type"] != "judged"]
        if before and one.price is not None:
            value = before[-1]["unrounded"]
            distance = round(one.price / value - 1, 4)
            return {"release": last.number, "period": before[-1]["period"], "value": value, "distance": distance}
    return None


# -------------------------------------------------------------------------------------- deciding


def on_finding(
    ws: Workspace, kind: Literal["accept", "reject"], number: int, reason: str, actor: str, comment: str = ""
) -> OnFinding:
    """Accept a figure that was held back, or reject it; every other finding of the same figure is settled with it.

    Raises DecisionError.
    """
    with writing(ws.data):
        facts = _head(ws, kind, reason, actor, comment)
        found = decisions.held_figure(ws.store.findings(), number)
        series, period, value = found["series"], found["period"], float(found["evidence"]["value"])
        register, now = ws.store.register_of(found["document"], found["vintage"]), standing(ws)
        if now.decides(series, period, value, register):
            raise DecisionError(f"finding {number} is decided already: see 'lodemark review log'")
        for waiting in now.proposed.values():
            if isinstance(waiting, OnFinding) and waiting.figure == (series, period, value):
                raise DecisionError(f"finding {number} has a proposal: confirm or revoke decision {waiting.number}")
        if kind == "accept":
            _check_acceptable(ws, found)
        one = OnFinding(
            **facts,
            persons=ws.operation.review.persons.accept if kind == "accept" else 1,
            finding=number,
            check=found["check"],
            source=found["source"],
            series=series,
            period=period,
            value=value,
            document=next(d["sha256"] for d in ws.store.documents() if d["id"] == found["document"]),
            read_by=register,
        )
        _record(ws, one)
    return one


def override(
    ws: Workspace,
    kind: OverrideKind,
    market: str,
    frequency: Frequency,
    span: str,
    reason: str,
    actor: str,
    *,
    origin: str = "",
    price: float | None = None,
    comment: str = "",
) -> Override:
    """Override determinations: ``span`` is a period, or the first and the last joined by ``/``.

    Raises DecisionError.
    """
    with writing(ws.data):
        facts = _head(ws, kind, reason, actor, comment)
        decisions.check_price(kind, price)  # before the record, which holds no number that is none
        first, _, last = span.partition("/")
        one = Override(
            **facts,
            persons=ws.operation.review.persons.override,
            market=market,
            frequency=frequency,
            first=first,
            last=last or first,
            origin=origin,
            price=price,
            unit="" if price is None else next((m.unit for m in ws.methodology.markets if m.key == market), ""),
        )
        decisions.check_override(one, standing(ws), ws.operation, ws.methodology)
        _record(ws, one)
    return one


def confirm(ws: Workspace, number: int, actor: str, comment: str = "") -> Confirm:
    """Agree to a proposed decision as the second person; it takes effect. Raises DecisionError."""
    with writing(ws.data):
        decisions.check_actor(ws.operation.review, actor)
        now = standing(ws)
        proposed = decisions.check_confirm(now, number, actor)
        if isinstance(proposed, Override):  # the settings, or what is in force, may have changed since
            decisions.check_override(proposed, Standing({}, now.taken), ws.operation, ws.methodology)
        one = Confirm(**_next(ws), kind="confirm", decision=number, actor=actor, comment=comment)
        _record(ws, one, proposed)
    return one


def revoke(ws: Workspace, number: int, reason: str, actor: str, comment: str = "") -> Revoke:
    """End an override, a rejection or a proposal, from now on. Raises DecisionError."""
    with writing(ws.data):
        facts = _head(ws, "revoke", reason, actor, comment)
        persons = decisions.check_revoke(standing(ws), number)
        one = Revoke(**facts, persons=persons, decision=number)
        _record(ws, one)
    return one


def _head(ws: Workspace, kind: str, reason: str, actor: str, comment: str) -> dict[str, Any]:
    decisions.check_actor(ws.operation.review, actor)
    return {**_next(ws), "actor": actor, **decisions.reasoned(kind, reason, comment)}


def _next(ws: Workspace) -> dict[str, Any]:
    return {"number": len(ws.store.decisions()) + 1, "at": iso(ws.now())}


def _record(ws: Workspace, one: Decision, proposed: Decision | None = None) -> None:
    """Store a decision, and the figure that it lets in, in one transaction."""
    effective = proposed or (None if getattr(one, "persons", 1) > 1 else one)
    at = dt.datetime.fromisoformat(one.at)
    with ws.store.writing():
        ws.store.add_decision(one.number, at, decisions.line(one))
        if isinstance(effective, OnFinding) and effective.kind == "accept":
            found = decisions.held_figure(ws.store.findings(), effective.finding)
            _check_acceptable(ws, found)
            series = {s.id: s for s in ws.operation.sources[effective.source].series}
            row = pd.DataFrame([{"series": effective.series, "period": effective.period, "status": "normal"}])
            status = quality.with_statuses(row, series)["status"].iloc[0]
            where = (found["document"], effective.source, at)
            ws.store.add_observation(*where, effective.series, effective.period, effective.value, status)


def _check_acceptable(ws: Workspace, found: dict[str, Any]) -> None:
    """Check that a held figure may enter figures, and is still news. Raises DecisionError."""
    name, period, value = found["series"], found["period"], float(found["evidence"]["value"])
    one = ws.operation.series().get(name)
    if one is None:
        raise DecisionError(f"finding {found['id']}: config.toml has no series {name!r} any more")
    if value < 0 or (value == 0 and one.kind in ("price", "fx")):
        raise DecisionError(
            f"finding {found['id']}: {value!r} is no {one.kind} that a figure could rest on: reject it, or override "
            "the determination ('lodemark review override … --suspend' or '--price')"
        )
    later = ws.store.history(name, period)
    later = later[later["vintage"] > found["vintage"]]
    if len(later):
        last = later.iloc[-1]
        told = f"{float(last['value'])!r} ({last['status']}, {iso(instant(int(last['vintage'])))})"
        raise DecisionError(
            f"finding {found['id']}: since then {name} {period} became known as {told}: "
            "the held figure is no news; reject it"
        )
