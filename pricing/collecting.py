"""From a publisher to the store: visits, documents, what is read from them and how it is judged.

A source that fails delays no other and loses nothing.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import orjson
import pandas as pd
import structlog

from pricing import (
    checks,
    customs,
    decisions,
    figures,
    habits,
    quality,
    sources,
)
from pricing.config import (
    Series,
    Source,
)
from pricing.declarations import Declared
from pricing.duty import alert_operator
from pricing.errors import FetchError, ParseError, PricingError, StoreError
from pricing.fetch import Answer, Client
from pricing.quality import Finding
from pricing.store import Changes, micros
from pricing.workspace import Track, Workspace, untracked, writing

log = structlog.get_logger()

PAUSE_SECONDS = 1.0  # between two documents of one publisher
MOST_LISTS = 40  # pages of a publisher's list that one visit reads
EMPTY_LISTS = 2  # number of the page at which a list that links no document is given up


@dataclass(frozen=True)
class Outcome:
    """How the collection of one source, or the loading of one file, ended."""

    source: str
    outcome: str  # new, unchanged, skipped, refused, failed
    message: str = ""
    file: str = ""
    vintage: dt.datetime | None = None
    changes: Changes = field(default_factory=Changes)

    @property
    def ok(self) -> bool:
        """Whether nothing needs looking at."""
        return self.outcome in ("new", "unchanged", "skipped")


def collect(ws: Workspace, client: Client, names: Iterable[str], track: Track = untracked) -> list[Outcome]:
    """Visit sources one after the other; one that fails delays no other and loses nothing."""
    out = []
    for name in track(list(names), "collecting"):
        try:
            source = ws.operation.sources[name]
            outcome = _way(name, source)(ws, client, name, source)
        except PricingError as error:
            outcome = _missed(ws, name, str(error))
        except Exception as error:  # a fault of ours in one source must not keep the others from being collected
            log.exception("collecting ended by an error that is not ours", source=name)
            outcome = _missed(ws, name, f"ended by {error!r}; see the log")
        _note_overdue(ws, name)
        log.info("collected", source=name, outcome=outcome.outcome, message=outcome.message, **_counts(outcome.changes))
        out.append(outcome)
    alert_operator(ws)
    return out


def _way(name: str, source: Source) -> Callable[[Workspace, Client, str, Source], Outcome]:
    if source.customs:
        return _visit_office
    return _collect_listed if hasattr(sources.load(name, source), "find_links") else _collect


def _visit_office(ws: Workspace, client: Client, name: str, source: Source) -> Outcome:
    codes = ws.codes(source)
    if not codes:
        return Outcome(name, "skipped", "the methodology names no tariff code of this system")
    office = customs.Office(
        name, source, codes, ws.store, client, ws.environ, ws.now, ws.sleep, lambda: writing(ws.data), ws.stopping
    )
    visit = customs.collect(office)
    trouble = visit.failed or visit.left
    moved = visit.new or visit.revised or visit.withdrawn
    outcome = "failed" if trouble else "refused" if visit.refused else "new" if moved else "unchanged"
    with writing(ws.data):
        ws.store.record_visit(name, source.url, ws.now(), outcome, str(visit))
        if trouble:
            ws.store.add_findings(ws.now(), name, [Finding("fetch", "warning", str(visit))])
    return Outcome(name, outcome, str(visit), vintage=ws.now(), changes=visit.changes)


def _missed(ws: Workspace, name: str, message: str) -> Outcome:
    at = ws.now()
    try:
        with writing(ws.data):
            ws.store.record_visit(name, ws.operation.sources[name].url, at, "failed", message)
            ws.store.add_findings(at, name, [Finding("fetch", "warning", message)])
    except StoreError as error:  # another process writes for long: the sources after this one are visited all the same
        log.error("the failure could not be noted", source=name, why=str(error))
    return Outcome(name, "failed", message)


def _note_overdue(ws: Workspace, name: str) -> None:
    """Make a finding, once, of each series of a source whose next period should have been there."""
    series = {s.id: s for s in ws.operation.sources[name].series}
    learnt = ws.store.first_learnt(series, max(habits.REMEMBERED.values()))
    found = list(habits.overdue(learnt, series, ws.now().date()))
    if not found:
        return
    told = {(f["series"], f["period"]) for f in ws.store.findings() if f["check"] == "overdue"}
    new = [f for f in found if (f.series, f.period) not in told]
    if new:
        with suppress(StoreError), writing(ws.data):  # where another process writes for long, the next visit tells it
            ws.store.add_findings(ws.now(), name, new)


def _collect_listed(ws: Workspace, client: Client, name: str, source: Source) -> Outcome:
    """Collect every document that the publisher's lists link and whose period is not known, the newest first."""
    links, known = _listed(ws, client, name, source)
    if not links:
        return _collect(ws, client, name, source)  # the list itself, which is refused, and kept as evidence
    out, silent = [], 0
    for period, address in sorted(links.items(), reverse=True):
        before = ws.store.visit(name, address)
        if period in known and not (period == max(links) and before["sha256"]):
            continue
        try:
            if period in known:  # the series read from it may have changed
                with writing(ws.data):
                    out.append(_read(ws, name, source, before["sha256"], None, ws.now(), address))
            else:
                ws.sleep(PAUSE_SECONDS)
                out.append(_collect(ws, client, name, source.model_copy(update={"url": address, "landing": ""})))
            silent = 0
        except FetchError as error:
            silent += not error.permanent
            out.append(Outcome(name, "failed", str(error)))
            with writing(ws.data):
                ws.store.record_visit(name, address, ws.now(), "failed", str(error))
            if silent == customs.SILENT:
                break
    return _summed(ws, name, source, out)


def _listed(ws: Workspace, client: Client, name: str, source: Source) -> tuple[dict[str, str], set[str]]:
    """Walk the lists as far back as periods lack; return addresses by period, and the periods that are known.

    Periods lack between the first that is known, or that a series is configured to begin with, and the newest.
    """
    module = sources.load(name, source)
    known = {period for _, period in ws.store.periods(s.id for s in source.series)}
    first = {f"{s.since}-01"[:7] + "-10" for s in source.series if s.since}
    links: dict[str, str] = {}
    for number in range(MOST_LISTS):
        if number:
            ws.sleep(PAUSE_SECONDS)
        try:
            page = client.get(module.list_page(source.landing, number), max_bytes=source.max_bytes)
            links = module.find_links((page.raw or b"").decode("utf-8", "replace"), source) | links
        except (FetchError, ParseError):
            if not number:
                raise
            break  # the end of the lists, or the next visit goes on
        if number == EMPTY_LISTS and not links:
            break
        if links and not any(p < min(links) for p in module.missing_periods(known | first | links.keys())):
            break
    return links, known


def _summed(ws: Workspace, name: str, source: Source, parts: list[Outcome]) -> Outcome:
    """Make one outcome of those of several documents, and note it as the visit to the source."""
    at = ws.now()
    told = [o.outcome for o in parts]
    outcome = next((o for o in ("failed", "refused", "new") if o in told), "unchanged")
    message = "; ".join(o.message for o in parts if o.message)
    changes = [o.changes for o in parts]
    with writing(ws.data):
        ws.store.record_visit(name, source.url, at, outcome, message)
        if outcome == "failed":
            ws.store.add_findings(at, name, [Finding("fetch", "warning", message)])
    new, revised, withdrawn, same = (
        sum(getattr(c, what) for c in changes) for what in ("new", "revised", "withdrawn", "unchanged")
    )
    return Outcome(name, outcome, message, vintage=at, changes=Changes(new, revised, withdrawn, same))


def _collect(ws: Workspace, client: Client, name: str, source: Source) -> Outcome:
    address = _address(client, name, source)
    before = ws.store.visit(name, source.url)
    known = ws.store.document(name, before["sha256"]) if before["sha256"] else None
    conditional = known is not None and known["url"] == address  # validators belong to one address
    answer = client.get(
        address,
        etag=before["etag"] if conditional else "",
        last_modified=before["last_modified"] if conditional else "",
        max_bytes=source.max_bytes,
    )
    with writing(ws.data):
        return _keep(ws, name, source, before, address, answer)


def _keep(ws: Workspace, name: str, source: Source, before: Mapping[str, str], address: str, answer: Answer) -> Outcome:
    """Store what a visit brought; the archive has the bytes already."""
    at = ws.now()
    if answer.not_modified or answer.document is None or answer.raw is None:
        # the same bytes may be due for another reading: the register of series may have changed
        sha256, raw, seen = before["sha256"], None, {}
    else:
        made = answer.document
        sha256, raw = made.sha256, answer.raw
        seen = {"etag": made.etag, "last_modified": made.last_modified, "sha256": sha256}
        ws.store.add_document(name, sha256, url=made.url, **made.received())
    outcome = _read(ws, name, source, sha256, raw, at, address)
    # Validators are kept only now: a kill before this line means the document is asked for again.
    kept = seen if outcome.ok else {}
    ws.store.record_visit(name, source.url, at, outcome.outcome, outcome.message, **kept)
    return outcome


def _address(client: Client, name: str, source: Source) -> str:
    """Find the document's address on the landing page; the configured one stands in when there is none."""
    if not (source.landing and source.link):
        return source.url
    find = getattr(sources.load(name, source), "find_link", None)
    with suppress(FetchError, ParseError):
        page = client.get(source.landing, max_bytes=source.max_bytes)
        if find is not None and page.raw is not None:
            found: str | None = find(page.raw.decode("utf-8", "replace"), source)
            if found:
                return found
    return source.url


def _read(
    ws: Workspace, name: str, source: Source, sha256: str, raw: bytes | None, at: dt.datetime, where: str
) -> Outcome:
    """Parse one archived document and store what it says; ``raw`` comes from the archive when not at hand."""
    document = ws.store.document(name, sha256)
    if document is None:
        raise StoreError(f"document {sha256} of {name} is not registered")
    if source.customs:
        return _read_cells(ws, name, source, document["id"], ws.archive.get(sha256) if raw is None else raw, at, where)
    register = _register(name, source)
    if ws.store.is_current(document["id"], register, at):
        return Outcome(name, "unchanged", vintage=at)
    series = series_of(source, where)
    try:
        parsed = sources.parse(name, source, ws.archive.get(sha256) if raw is None else raw, series)
    except ParseError as error:
        message = f"{where}: {error}"
        if not any(f["document"] == document["id"] for f in ws.store.findings()):
            ws.store.add_findings(at, name, [Finding("layout", "error", message)], document["id"])
        return Outcome(name, "refused", message)
    decided = decisions.standing(decisions.read(ws.store.decisions()))
    kept, held = quality.hold_back(parsed.observations, series, at.date(), decided.accepted)
    kept = quality.with_statuses(kept, series)
    published = parsed.published
    if published is not None and published > (at + dt.timedelta(days=1)).date():
        held.append(Finding("stamp-to-come", "warning", f"is stamped {published}, which has not come: not believed"))
        published = None
    kept, older = _without_older(ws, name, kept, published)
    kept, out, judged = _judged(ws, kept, series, decided.accepted)
    if hasattr(sources.load(name, source), "find_links"):  # read newest first; the list tells which periods lack
        judged = [f for f in judged if f.check != "missing-period"]
    # what was known of a figure that is held back, or that the document contradicts itself about, is not withdrawn
    out |= {(f.series or "", f.period or "") for f in (*held, *parsed.findings) if f.severity == "error"}
    told = [f for f in (*held, *judged) if not _rejected(f, register, decided)]
    with ws.store.writing():
        changes = ws.store.append(
            document["id"],
            name,
            at,
            kept,
            register=register,
            published=published,
            findings=[*parsed.findings, *told, *older],
            absent=parsed.absent,
            complete=source.complete and not older,
            to_the_end=published is not None,
            held=out,
        )
        if changes.revised:
            told_so_far = ws.store.revisions(s.id for s in source.series)
            now = (told_so_far["document"] == document["id"]) & (told_so_far["vintage"] >= micros(at))
            ws.store.add_findings(at, name, habits.revisions(told_so_far, now.to_numpy(dtype=bool)), document["id"])
    return Outcome(name, "new", "; ".join(f.message for f in older), vintage=at, changes=changes)


def _judged(
    ws: Workspace, kept: pd.DataFrame, series: Mapping[str, Series], accepted: Collection[tuple[str, str, float]]
) -> tuple[pd.DataFrame, set[tuple[str, str]], list[Finding]]:
    """Judge a document's figures by what is known; return those to store, the places of the others, and findings."""
    every = ws.operation.series()
    fixings = [name for name, s in every.items() if s.kind == "fx"]
    rates = cache(lambda: figures.euro_rates(ws.store.observations(fixings), every))
    firsts = {str(name): str(period) for name, period in kept.groupby("series")["period"].min().items()}
    lines = checks.lined_up(kept, ws.store.known_around(firsts, checks.BEFORE), series, accepted)
    found = [*checks.judge(lines, rates), *habits.ancient(lines), *habits.gaps(lines), *habits.left_behind(lines)]
    out = {(f.series or "", f.period or "") for f in found if f.severity == "error"}
    for line in lines:
        beside = {n: s for n, s in every.items() if checks.comparable(line.series, s)} if line.is_new else {}
        level = checks.level(beside, ws.store.observations(beside), rates) if beside else None
        doubt = checks.magnitude(line, level, rates) if level else None
        if doubt:
            found.append(doubt)
            out |= {(line.series.id, p) for p in line.periods if doubt.severity == "error"}
    if not out:
        return kept, out, found
    stays = [pair not in out for pair in zip(kept["series"], kept["period"], strict=True)]
    return kept[np.array(stays, dtype=bool)], out, found


def _rejected(finding: Finding, register: str, decided: decisions.Standing) -> bool:
    """Whether somebody has rejected the figure that a finding is about: it is not told again."""
    value = finding.evidence.get("value")
    return (finding.series, finding.period, value, register) in decided.rejected


def _read_cells(
    ws: Workspace, name: str, source: Source, document: int, raw: bytes, at: dt.datetime, where: str
) -> Outcome:
    """Parse one kept file of customs cells and store what it says."""
    try:
        declared = declared_in(ws, name, source, raw)
    except ParseError as error:
        message = f"{where}: {error}"
        ws.store.add_findings(at, name, [Finding("layout", "error", message)], document)
        return Outcome(name, "refused", message)
    changes = customs.keep(ws.store, name, source, ws.codes(source), document, at, declared, where)
    left_out = ", ".join(f"{n} {rule}" for rule, n in sorted(declared.left_out.items()))
    same = not (changes.new or changes.revised or changes.withdrawn)
    message = f"left out: {left_out}" if left_out else ""
    return Outcome(name, "unchanged" if same else "new", message, vintage=at, changes=changes)


def declared_in(ws: Workspace, name: str, source: Source, raw: bytes) -> Declared:
    """Read a kept file of customs cells. Raises ParseError."""
    return customs.read(name, source, ws.codes(source), raw)


def _without_older(
    ws: Workspace, name: str, observations: pd.DataFrame, published: dt.date | None
) -> tuple[pd.DataFrame, list[Finding]]:
    """Leave out what a newer document has already spoken of: an older one may only add periods."""
    if published is None:
        return observations, []
    newer = {s for s, stamp in ws.store.last_published(name).items() if stamp > published}
    newer &= set(observations["series"].unique())
    seen = ws.store.periods(sorted(newer))
    pairs = zip(observations["series"], observations["period"], strict=True)
    old = np.array([pair in seen for pair in pairs], dtype=bool)
    if not old.any():
        return observations, []
    message = f"stamped {published}, older than what was read before: {int(old.sum())} known figures stay as they are"
    return observations[~old], [Finding("older-document", "warning", message)]


def series_of(source: Source, where: str) -> dict[str, Any]:
    """Series that a file of this name may hold. A fetched document holds them all."""
    base = where.rsplit("/", 1)[-1]
    if "://" in where:
        return {s.id: s for s in source.series}
    return {s.id: s for s in source.series if s.reads(base)}


def _register(name: str, source: Source) -> str:
    """Hash of everything that the reading of a source's documents depends on."""
    module = sources.load(name, source)
    facts = {
        "parser": module.__name__,
        "version": getattr(module, "VERSION", 1),
        "table": source.table.model_dump(mode="json") if source.table else None,
        "complete": source.complete,
        "series": [s.model_dump(mode="json") for s in source.series],
    }
    return hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def take(ws: Workspace, name: str, raw: bytes, at: dt.datetime, where: str) -> Outcome:
    """Archive and store one document that did not come over HTTP, as learnt at ``at``."""
    sha256 = ws.archive.put(raw)
    ws.store.add_document(name, sha256, url=where, retrieved_at=at, size=len(raw))
    return _read(ws, name, ws.operation.sources[name], sha256, raw, at, where)


def _counts(changes: Changes) -> dict[str, int]:
    return {"new": changes.new, "revised": changes.revised, "withdrawn": changes.withdrawn}
