"""The stage of shocks: judge what is new, put alarms together, and note whose figures are in doubt."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from pricing import (
    documents,
    figures,
    releases,
    shocks,
    watchlist,
)
from pricing.config import (
    Audience,
)
from pricing.quality import Finding
from pricing.watching import Judged, Watch, watch
from pricing.workspace import Workspace

log = structlog.get_logger()

SEVERAL = 3  # series of one source in doubt at once that make one finding


@dataclass(frozen=True)
class Watched:
    """What the detector looked at for a release, where it stands now, and what it judged anew."""

    subjects: list[watchlist.Subject]
    watches: dict[tuple[str, str], Watch]
    judged: dict[tuple[str, str], dict[str, Judged | None]]


def watch_all(ws: Workspace, made: figures.Figures, audience: Audience) -> Watched:
    """Judge every observation that is new or was revised."""
    rules = ws.methodology.shocks
    out = Watched([], {}, {})
    if rules is None:
        return out
    before = ws.store.watches(audience)
    for subject in watchlist.subjects(made, ws.methodology):

        def known(after: str, subject: watchlist.Subject = subject) -> dict[str, dict[str, Judged]]:
            found = {name: ws.store.judged(audience, name, subject.frequency, after) for name in subject.names}
            return {name: rows for name, rows in found.items() if rows}

        now, judged = watch(
            subject.rows,
            subject.detector(rules.false_alarms),
            before.get(subject.key),
            known,
            subject.settings(rules.false_alarms),
        )
        out.subjects.append(subject)
        if now != before.get(subject.key):
            out.watches[subject.key] = now
        out.judged.update({(name, subject.frequency): rows for name, rows in judged.items()})
    return out


def told(
    ws: Workspace,
    watched: Watched,
    made: figures.Figures,
    last: releases.Release | None,
    forecast_before: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
    edition: documents.Edition,
) -> shocks.Told:
    """Put alarms, earlier ones and those of this release, together into shocks."""
    rules = ws.methodology.shocks
    if rules is None:
        return shocks.Told()
    flagged = ws.store.flagged(edition.audience)
    for key, rows in watched.judged.items():
        of_series = {p: one for p, one in flagged.get(key, {}).items() if p not in rows}
        flagged[key] = of_series | {p: one for p, one in rows.items() if one is not None and one.verdict is not None}
    before = [one for document in documents_of(last, "shocks/") for one in document["shocks"]]
    return shocks.tell(watched.subjects, flagged, before, made, rules, forecast_before, edition.number, edition.vintage)


def documents_of(made: releases.Release | None, folder: str) -> Iterator[dict[str, Any]]:
    """Documents of a release below a folder."""
    if made is None:
        return
    for file in sorted(made.manifest["files"]):
        if file.startswith(folder) and file.endswith(".json"):
            yield orjson.loads((made.folder / file).read_bytes())


def note_doubts(ws: Workspace, doubts: Sequence[Mapping[str, Any]], at: dt.datetime) -> None:
    """Make a finding, once, of figures that look wrong or stand apart; one for a source where several do at once.

    Only of what is news: a first release judges the whole past.
    """
    owner = ws.operation.source_of()
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for one in doubts:
        if one["series"] in owner and shocks.is_news(one["frequency"], one["last"], at.date()):
            groups.setdefault((owner[one["series"]], one["check"], one["first"]), []).append(one)
    told = {f["message"] for f in ws.store.findings()} if groups else set()
    for (source, check, first), rows in sorted(groups.items()):
        names = [one["series"] for one in rows]
        if len(rows) < SEVERAL:
            found = [
                Finding(check, "warning", f"{n} from {first} on: {shocks.in_words(one)}", n, first, _evidence(one))
                for n, one in zip(names, rows, strict=True)
            ]
        else:
            message = f"from {first} on {len(rows)} series of {source} look wrong at once ({check}): {', '.join(names)}"
            found = [Finding(f"feed-{check}", "warning", message, None, first, {"series": names})]
        new = [f for f in found if f.message not in told]
        for finding in new:
            log.warning("in doubt", source=source, why=finding.message)
        ws.store.add_findings(at, source, new)


def _evidence(doubt: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("value", "unit", "score", "expected", "undone", "last")
    return {k: doubt[k] for k in keys if doubt[k] is not None}
