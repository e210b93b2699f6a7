"""The stages in order: the one place that both computes and stores.

collect → store → reference price → index → release. Every stage reads what the one before it
stored. The clock, the HTTP client and the folder come in from outside.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import importlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
import orjson
import pandas as pd
import structlog
from apscheduler.triggers.cron import CronTrigger

from pricing import (
    __version__,
    alerts,
    causes,
    cells,
    checks,
    customs,
    decisions,
    documents,
    figures,
    forecasts,
    habits,
    keys,
    notice,
    published,
    quality,
    releases,
    shocks,
    sources,
    watchlist,
)
from pricing.archive import Archive
from pricing.config import (
    Audience,
    Code,
    Compute,
    Methodologies,
    Methodology,
    Operation,
    Series,
    Source,
    canonical,
    methodology_bytes,
)
from pricing.declarations import Declared
from pricing.errors import FetchError, ParseError, PricingError, ReleaseError, StoreError
from pricing.fetch import Answer, Client
from pricing.judgement import Judgement
from pricing.quality import Finding
from pricing.spreads import gaps, stage_spreads
from pricing.store import Changes, Store, instant, iso, micros
from pricing.watching import Judged, Watch, watch

log = structlog.get_logger()

ALGORITHMS = {
    "units": 1,
    "reference": 2,
    "index": 2,
    "trade": 2,
    "documents": 2,
}  # raised when the figures they give change
AUDIENCES: tuple[Audience, ...] = ("public", "internal")
LOCK_SECONDS = 60.0
NEWS = dt.timedelta(days=1)  # of a release that is deemed to have been made longer ago nobody is told
PAUSE_SECONDS = 1.0  # between two documents of one publisher
MOST_LISTS = 40  # pages of a publisher's list that one visit reads
SEVERAL = 3  # series of one source in doubt at once that make one finding
EMPTY_LISTS = 2  # number of the page at which a list that links no document is given up

Tested = tuple[str, str, dict[str, Any]]
"""Name, frequency and plain data of a forecast or a backtest."""
Track = Callable[[list[Any], str], Iterable[Any]]


def untracked(items: list[Any], what: str) -> Iterable[Any]:
    """Walk through items without showing progress."""
    return items


@dataclass(frozen=True)
class Workspace:
    """One data folder, with everything that the stages are given.

    Attributes
    ----------
    data : Path
        ``store.db``, ``documents/``, ``public/``, ``internal/``, ``keys/``, ``status.json``.
    methods : Methodologies
        All documents of the method.
    methodology : Methodology
        The one in force: by the clock when the folder was opened; within a release, at its instant.
    now : callable
        The clock. Aware UTC.
    """

    data: Path
    operation: Operation
    methods: Methodologies
    methodology: Methodology
    store: Store
    archive: Archive
    now: Callable[[], dt.datetime]
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    sleep: Callable[[float], object] = time.sleep
    stopping: Callable[[], bool] = lambda: False

    @property
    def simulated(self) -> bool:
        """Whether this folder holds simulated prices."""
        return self.store.kind == "simulated"

    def codes(self, source: Source) -> tuple[Code, ...]:
        """Tariff codes that a customs source counts by."""
        assert source.customs is not None
        return tuple(c for c in self.methodology.codes if c.system == source.customs.system)

    def root(self, audience: Audience) -> Path:
        """Folder of one audience's releases."""
        return self.data / audience


@contextmanager
def opened(
    data: Path,
    operation: Operation,
    methods: Methodologies | Methodology,
    now: Callable[[], dt.datetime],
    *,
    simulated: bool | None = False,
    environ: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Workspace]:
    """Open (or make) a data folder; ``simulated=None`` opens either kind, for looking only.

    ``methods`` are all documents of the method, or the one that governs all days.

    Raises StoreError when it holds prices of the other kind.
    """
    data.mkdir(parents=True, exist_ok=True)
    kind: Literal["live", "simulated"] | None = None if simulated is None else "simulated" if simulated else "live"
    known = Methodologies((methods,)) if isinstance(methods, Methodology) else methods
    method = known.in_force(now().astimezone(dt.UTC).date())
    with Store(data / "store.db", kind) as store:
        archive = Archive(data / "documents")
        ws = Workspace(data, operation, known, method, store, archive, now, environ or {})
        yield ws if stop is None else replace(ws, sleep=stop.wait, stopping=stop.is_set)


@contextmanager
def writing(data: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the data folder for one writer, waiting a while for another to finish.

    Raises
    ------
    StoreError
        When the other one does not finish in time.
    """
    handle = os.open(data / "writer.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"{data}: another lodemark process is writing; try again when it is done"
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)


# ------------------------------------------------------------------------------------- collect


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
    series = _series_of(source, where)
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
        declared = _declared(ws, name, source, raw)
    except ParseError as error:
        message = f"{where}: {error}"
        ws.store.add_findings(at, name, [Finding("layout", "error", message)], document)
        return Outcome(name, "refused", message)
    changes = customs.keep(ws.store, name, source, ws.codes(source), document, at, declared, where)
    left_out = ", ".join(f"{n} {rule}" for rule, n in sorted(declared.left_out.items()))
    same = not (changes.new or changes.revised or changes.withdrawn)
    message = f"left out: {left_out}" if left_out else ""
    return Outcome(name, "unchanged" if same else "new", message, vintage=at, changes=changes)


def _declared(ws: Workspace, name: str, source: Source, raw: bytes) -> Declared:
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


def _series_of(source: Source, where: str) -> dict[str, Any]:
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


# ---------------------------------------------------------------------------------------- files


def load_files(
    ws: Workspace,
    name: str,
    files: Iterable[Path],
    *,
    replay: bool,
    stamp: dt.date | None = None,
    track: Track = untracked,
) -> list[Outcome]:
    """Load kept files of a source.

    Parameters
    ----------
    replay : bool
        True: each file is learnt at the end of the day that its publisher stamped on it (or of its
        last period, where it bears no stamp), in the order of the stamps, and the database is marked
        ``replayed``. False: all are learnt now.
    stamp : date
        Stands in for the stamp of files that bear none.

    Returns
    -------
    list of Outcome
        One per file; a file that is refused keeps no other from being loaded.
    """
    source = ws.operation.sources[name]
    with writing(ws.data):
        # a release that a kill left unrecorded closes the past all the same
        for audience in AUDIENCES:
            recover(ws, audience)
    out, due = [], []
    for path in track(list(files), "reading"):
        try:
            raw = path.read_bytes()
            if source.customs:
                learnt = _declared(ws, name, source, raw).published or stamp
                if replay and learnt is None:
                    raise ParseError(
                        "bears no stamp, and customs months are known only weeks later: name the day it appeared "
                        "with --published"
                    )
            else:
                series = _series_of(source, path.name)
                if not series:
                    out.append(Outcome(name, "skipped", "no series is read from a file of this name", path.name))
                    continue
                parsed = sources.parse(name, source, raw, series)
                learnt = parsed.published or stamp or _last_day(parsed.observations)
            when = _end_of(learnt) if replay and learnt else ws.now()
            if when > ws.now():
                raise ParseError(
                    f"its day, {when.date()}, is not over: `lodemark collect {name} {path.name}` loads it as learnt now"
                )
        except (ParseError, OSError) as error:
            with writing(ws.data):
                out.append(_refused(ws, name, path, error))
            continue
        due.append((when, path, raw))
    for when, path, raw in track(sorted(due, key=lambda d: (d[0], d[1].name)), "storing"):
        try:
            with writing(ws.data):
                outcome = take(ws, name, raw, when, path.name)
        except StoreError as error:
            outcome = Outcome(name, "refused", str(error))
        if replay and outcome.outcome in ("new", "unchanged"):
            ws.store.mark_replayed()
        out.append(Outcome(name, outcome.outcome, outcome.message, path.name, when, outcome.changes))
    return out


def take(ws: Workspace, name: str, raw: bytes, at: dt.datetime, where: str) -> Outcome:
    """Archive and store one document that did not come over HTTP, as learnt at ``at``."""
    sha256 = ws.archive.put(raw)
    ws.store.add_document(name, sha256, url=where, retrieved_at=at, size=len(raw))
    return _read(ws, name, ws.operation.sources[name], sha256, raw, at, where)


def _refused(ws: Workspace, name: str, path: Path, error: Exception) -> Outcome:
    message = f"{path.name}: {error}"
    at = ws.now()
    if isinstance(error, ParseError):
        raw = path.read_bytes()
        sha256 = ws.archive.put(raw)
        document = ws.store.add_document(name, sha256, url=path.name, retrieved_at=at, size=len(raw))
        ws.store.add_findings(at, name, [Finding("layout", "error", message)], document)
    return Outcome(name, "refused", message, path.name)


def _end_of(day: dt.date) -> dt.datetime:
    """The end of a day, with room for documents of one stamp to follow each other within it."""
    return dt.datetime.combine(day, dt.time(23, 59, 59), tzinfo=dt.UTC)


def _last_day(observations: pd.DataFrame) -> dt.date:
    """Last day of the last period of a document without a stamp."""
    if observations.empty:
        raise ParseError("holds no figure and bears no stamp")
    return dt.date.fromisoformat(str(pd.Period(observations["period"].max()).end_time.date()))


# -------------------------------------------------------------------------------------- release


def release(ws: Workspace, audience: Audience, at: dt.datetime, environ: Mapping[str, str]) -> releases.Release:
    """Determine, compile, write, sign and point to the next release of one audience.

    Parameters
    ----------
    at : datetime
        The vintage: everything is as it was known then. In a live database it is now.

    Raises
    ------
    ReleaseError
        When ``at`` is not after the last release, or nothing can be released.
    """
    with writing(ws.data):
        ws.root(audience).mkdir(parents=True, exist_ok=True)
        recover(ws, audience)
        made = _release(ws, audience, at, environ)
    alert_operator(ws)
    return made


def _release(ws: Workspace, audience: Audience, at: dt.datetime, environ: Mapping[str, str]) -> releases.Release:
    root = ws.root(audience)
    last = releases.latest(root)
    if last is not None and iso(at) <= last.manifest["vintage"]:
        raise ReleaseError(f"{iso(at)} is not after release {last.number} ({last.manifest['vintage']})")
    number = last.number + 1 if last else 1
    day = at.astimezone(dt.UTC).date()
    ws, announced = replace(ws, methodology=ws.methods.in_force(day)), methods_told(ws.data)
    if ws.store.kind != "replayed":  # what was released when is deemed there, and proves no notice
        notice.check(announced, ws.methodology, day)
    eligible = figures.eligible(ws.operation, audience)
    observed, late = _observed(ws, eligible, at)
    declared = {name: cells.known(ws.store, name, at) for name in sorted(eligible.customs)}
    if observed.empty and all(known.empty for known in declared.values()):
        raise ReleaseError(
            f"nothing is known at {iso(at)} that a {audience} release may use: collect or backfill first"
        )
    made, bases = _figures(ws, eligible, observed, declared, ws.store.bases(audience, at), at)
    made = replace(made, late=late)
    _note_left_out(ws, made.left_out, at)
    _note_records(ws, made.records, at)
    _note_held(ws, made.prices, at)
    edition = documents.Edition(
        audience=audience,
        number=number,
        vintage=iso(at),
        released_at=iso(at),
        next_release=_next_release(ws.operation, at),
        simulated=ws.simulated,
        replayed=ws.store.kind == "replayed",
        operation=ws.operation,
        methodology=ws.methodology,
        eligible=eligible,
    )
    parts = ws.store.parts(audience)
    before = ws.store.forecasts(audience)
    outlooks = _outlooks(ws, made, audience, before, at)
    facts = _facts_by_source(ws, observed, declared, at)
    watched = _watch(ws, made, audience)
    shocked = _shocks(ws, watched, made, last, before, edition)
    messages, earlier = _alerts(ws, edition, made, shocked, at)
    told_and_new = [*earlier, *reversed(messages)]  # the most severe of this release is the newest
    told = documents.build(edition, made, _kept(last, parts), facts, outlooks, before, shocked, told_and_new)
    register = _series_register(ws, audience, eligible, bases)
    drafts = [documents.draft(edition, made, told.rows)]
    for change in ws.methods.pending(day):
        other, _ = _figures(replace(ws, methodology=change), eligible, observed, declared, bases, at)
        drafts.append(documents.draft(replace(edition, methodology=change), other))
    of_method = documents.method_files(edition, ws.methods, drafts, announced)
    _note_notice(ws, of_method, at)
    files = {**told.files, **of_method, "register.json": register}
    other_method = last is not None and last.manifest["methodology"]["sha256"] != ws.methodology.sha256
    why = _causes(ws, eligible, observed, last, other_method, at)
    rows_file, since = root / "published.db", last.number if last else 0
    published.append(rows_file, number, iso(at), iso(at), told.rows, units_may_change=other_method, causes=why)
    files["changes.json"] = published.query(
        rows_file,
        lambda db: documents.changes_file(edition, since or None, published.changes(db, since, number)),
    )
    key = _signing_key(ws, environ, at)
    # Announced when the release stands: a kill in between leaves the draft to the recovery.
    ws.store.draft_alerts(audience, number, _drafted(ws, messages, at))
    done = releases.freeze(root, files, _manifest(ws, edition, eligible, register, at), key, number=number)
    listed = done.manifest["files"]
    ws.store.set_parts(audience, {n: (p, listed[n]["sha256"]) for n, p in told.fingerprints.items()})
    ws.store.add_bases(audience, bases)  # those of closed origins stand in no register
    ws.store.keep_watch(audience, watched.watches, watched.judged)
    _note_doubts(ws, shocked.doubts, at)
    _adopt(ws, audience, done)
    log.info("released", audience=audience, number=done.number, vintage=iso(at), files=len(files))
    return done


def methods_told(data: Path) -> dict[str, Any] | None:
    """Return what the last public release says of the method and of the changes to come."""
    last = releases.latest(data / "public")
    return dict(orjson.loads((last.folder / "methodology.json").read_bytes())) if last else None


def _note_notice(ws: Workspace, of_method: Mapping[str, bytes], at: dt.datetime) -> None:
    """Make a finding, once, of each change that was announced too late for its day of effect."""
    told = {f["message"] for f in ws.store.findings() if f["check"] == "notice"}
    for change in orjson.loads(of_method["methodology.json"])["pending"]:
        if change["earliest"] and change["earliest"] > change["effective"]:
            message = (
                f"methodology {change['id']}: effective: {change['effective']}, but it was first announced on "
                f"{change['announced']['released_at'][:10]}: the earliest day is {change['earliest']}"
            )
            if message not in told:
                log.warning("announced too late", methodology=change["id"], earliest=change["earliest"])
                ws.store.add_findings(at, "lodemark", [Finding("notice", "warning", message)])


def recover(ws: Workspace, audience: Audience) -> list[str]:
    """Finish or clear away what an interrupted release left; return what was done, in words."""
    root = ws.root(audience)
    if not root.is_dir():
        return []
    done = releases.recover(root, ws.data / "public" / "jwks.json") if (root / "releases").is_dir() else []
    last = releases.latest(root)
    dropped = published.discard_after(root / "published.db", last.number if last else 0)
    if dropped:
        done.append(f"dropped the queryable rows of {dropped} release that was never finished")
    if last is not None:
        _adopt(ws, audience, last)
    for line in done:
        log.warning("recovered", audience=audience, what=line)
    return done


def _adopt(ws: Workspace, audience: Audience, made: releases.Release) -> None:
    """Note a release that stands in the store, and set the bases that it was made with."""
    recorded = ws.store.last_release(audience)
    if recorded is not None and recorded["number"] > made.number:
        raise ReleaseError(
            f"{made.folder.parent}: ends at release {made.number}, but release {recorded['number']} was made; "
            "bring the missing releases back from a mirror or a backup before the next one"
        )
    if recorded is not None and (recorded["number"], recorded["manifest"]) == (made.number, made.manifest_sha256):
        return
    register = orjson.loads((made.folder / "register.json").read_bytes())
    ws.store.add_bases(
        audience, [{**b, "vintage": micros(dt.datetime.fromisoformat(b["vintage"]))} for b in register["bases"]]
    )
    ws.store.add_forecasts(audience, made.number, _forecasts_of(made))
    vintage = dt.datetime.fromisoformat(made.manifest["vintage"])
    with ws.store.writing():
        ws.store.record_release(audience, made.number, vintage, vintage, made.manifest_sha256)
        told = ws.store.announce_draft(audience, made.number)
    if told:
        log.info("alerts told", audience=audience, release=made.number, messages=told)


def _observed(
    ws: Workspace, eligible: figures.Eligible, at: dt.datetime
) -> tuple[pd.DataFrame, tuple[figures.Late, ...]]:
    """Return what a release at an instant may use, and what was learnt after the cut-off of its series."""
    known = ws.store.observations(eligible.series, as_of=at)
    cuts: dict[dt.datetime, list[str]] = {}
    for name, one in eligible.series.items():
        if one.cut_off:
            cuts.setdefault(one.last_cut_off(at), []).append(name)
    late: list[figures.Late] = []
    for cut, names in sorted(cuts.items()):
        of_cut = known["series"].isin(names)
        now, then = known[of_cut], ws.store.observations(names, as_of=cut)
        known = pd.concat([known[~of_cut], then], ignore_index=True)
        told = {*zip(now["series"], now["period"], now["vintage"].tolist(), strict=True)}
        at_cut = {*zip(then["series"], then["period"], then["vintage"].tolist(), strict=True)}
        for name, period in sorted({pair[:2] for pair in told ^ at_cut}):  # what was withdrawn since is late too
            history = ws.store.history(name, period)
            learnt = history[(history["vintage"] > micros(cut)) & (history["vintage"] <= micros(at))]["vintage"].max()
            late.append(figures.Late(name, period, iso(instant(int(learnt))), iso(cut)))
    return (known.sort_values(["series", "period"], ignore_index=True) if cuts else known), tuple(late)


def _forecasts_of(made: releases.Release) -> Iterator[Tested]:
    """Forecasts that stand in a release, as they are kept to be scored later."""
    for document in _documents_of(made, "forecasts/"):
        for frequency, part in document["frequencies"].items():
            if part["current"]:
                yield document["meta"]["id"].removeprefix("forecasts/"), frequency, part["current"]


def _figures(
    ws: Workspace,
    eligible: figures.Eligible,
    observed: pd.DataFrame,
    declared: Mapping[str, pd.DataFrame],
    known_bases: Sequence[Mapping[str, Any]],
    at: dt.datetime,
) -> tuple[figures.Figures, list[dict[str, Any]]]:
    """Compute all figures by the workspace's method, storing nothing; return them with the bases used."""
    known_on = at.astimezone(dt.UTC).date().isoformat()
    quoted, left_out = figures.all_quotes(ws.methodology, eligible, observed)
    overrides = _overrides(ws, eligible, at)
    due = figures.bases_due(quoted, ws.methodology, known_bases, known_on, overrides)
    # stored once the release stands
    bases = [*map(dict, known_bases), *({**base, "vintage": micros(at)} for base in due)]
    priced = figures.prices(quoted, ws.methodology, bases, known_on, overrides=overrides)
    units_of = {s.id: s.unit for s in eligible.series.values() if s.kind == "production"}
    production = figures.Production(_production(ws.store, units_of, at), units_of, ws.methodology.tonnages, micros(at))
    read = {name: cells.read_months(ws.store, name, at) for name in declared}
    indicators = figures.indicators(
        ws.operation, ws.methodology, declared, figures.euro_rates(observed, eligible.series), read
    )
    made = figures.Figures(
        prices=priced,
        baskets=figures.baskets(ws.methodology, priced, production, known_on),
        gaps=gaps(priced, ws.methodology),
        spreads=stage_spreads(priced, ws.methodology),
        indicators=indicators,
        records=figures.records(indicators, priced, ws.methodology),
        imports=figures.import_indices(indicators, ws.methodology),
        partners={c.origin: cells.partners(ws.store, n) for n in declared if (c := ws.operation.sources[n].customs)},
        left_out=left_out,
    )
    return made, bases


def _overrides(ws: Workspace, eligible: figures.Eligible, at: dt.datetime) -> list[Judgement]:
    """Overrides in force at an instant.

    Where any series of a market may not be shown to the audience its judged prices are withheld: one could repeat it.
    """
    shown = {s for s in eligible.series if s not in eligible.closed}
    hidden = {
        f"{s.mineral}/{s.stage}/{s.zone}"
        for source in ws.operation.sources.values()
        for s in source.series
        if s.kind == "price" and s.id not in shown and not s.quarantined
    }
    found = decisions.standing(decisions.read(ws.store.decisions(at))).judgements
    return [replace(j, withheld=True) if j.kind == "price" and j.market in hidden else j for j in found]


def _causes(
    ws: Workspace,
    eligible: figures.Eligible,
    observed: pd.DataFrame,
    last: releases.Release | None,
    method: bool,
    at: dt.datetime,
) -> causes.Causes | None:
    """Compare what a release rests on with what the last one rested on, None for the first."""
    if last is None:
        return None
    then = dt.datetime.fromisoformat(last.manifest["vintage"])
    before, _ = _observed(ws, eligible, then)
    overrides = _overrides(ws, eligible, then), _overrides(ws, eligible, at)
    return causes.between(before, observed, eligible.series, *overrides, method=method)


def _outlooks(
    ws: Workspace,
    made: figures.Figures,
    audience: Audience,
    before: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
    at: dt.datetime,
) -> list[forecasts.Outlook]:
    """Forecast what the rights allow, by what the last backtests decided; a fit that fails is a finding."""
    rules = ws.methodology.forecasts
    if rules is None:
        return []
    tested = ws.store.backtests(audience, at)
    out = [
        forecasts.outlook(one, rules, tested.get(one.key), before.get(one.key, ()))
        for one in forecasts.subjects(made, ws.operation, audience, ws.methodology)
    ]
    told = {f["message"] for f in ws.store.findings() if f["check"] == "forecast"}
    failed = [one.finding for one in out if one.finding and one.current and one.finding not in told]
    for message in failed:
        log.warning("a forecast failed", why=message)
    if failed:
        ws.store.add_findings(at, "lodemark", [Finding("forecast", "warning", message) for message in failed])
    return out


@dataclass(frozen=True)
class _Watched:
    """What the detector looked at for a release, where it stands now, and what it judged anew."""

    subjects: list[watchlist.Subject]
    watches: dict[tuple[str, str], Watch]
    judged: dict[tuple[str, str], dict[str, Judged | None]]


def _watch(ws: Workspace, made: figures.Figures, audience: Audience) -> _Watched:
    """Judge every observation that is new or was revised."""
    rules = ws.methodology.shocks
    out = _Watched([], {}, {})
    if rules is None:
        return out
    before = ws.store.watches(audience)
    for subject in watchlist.subjects(made, ws.methodology):

        def known(after: str, subject: watchlist.Subject = subject) -> dict[str, dict[str, Judged]]:
            found = {name: ws.store.judged(audience, name, subject.frequency, after) for name in subject.names}
            return {name: rows for name, rows in found.items() if rows}

        now, judged = watch(subject.rows, subject.detector(rules.false_alarms), before.get(subject.key), known)
        out.subjects.append(subject)
        if now != before.get(subject.key):
            out.watches[subject.key] = now
        out.judged.update({(name, subject.frequency): rows for name, rows in judged.items()})
    return out


def explain(ws: Workspace, audience: Audience, name: str, period: str) -> dict[str, Any]:
    """Judge one observation as a release of now would, and return everything that the verdict follows from.

    Parameters
    ----------
    name : str
        A series, a market, ``premium/mineral/stage``, or an index.

    Raises
    ------
    ReleaseError
        Where nothing of that name is watched, or nothing was observed of that period.
    """
    rules, at = ws.methodology.shocks, ws.now()
    if rules is None:
        raise ReleaseError(f"methodology {ws.methodology.id} has no table [shocks]: nothing is watched")
    eligible = figures.eligible(ws.operation, audience)
    observed, _ = _observed(ws, eligible, at)
    made, _ = _figures(ws, eligible, observed, {}, ws.store.bases(audience, at), at)
    listed = watchlist.subjects(made, ws.methodology)
    subject = next((one for one in listed if name in one.names), None)
    if subject is None:
        known = ", ".join(sorted({one for each in listed for one in each.names}))
        raise ReleaseError(f"nothing of that name is watched: {name}; there are: {known or 'none'}")
    return watchlist.explain(subject, rules.false_alarms, name, period)


def shocks_told(ws: Workspace, audience: Audience) -> list[dict[str, Any]]:
    """Return the shocks that the last release tells, open ones and those of its last year."""
    last = releases.latest(ws.root(audience))
    if last is None or "shocks.json" not in last.manifest["files"]:
        return []
    return list(orjson.loads((last.folder / "shocks.json").read_bytes())["shocks"])


def _shocks(
    ws: Workspace,
    watched: _Watched,
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
    before = [one for document in _documents_of(last, "shocks/") for one in document["shocks"]]
    return shocks.tell(watched.subjects, flagged, before, made, rules, forecast_before, edition.number, edition.vintage)


def _documents_of(made: releases.Release | None, folder: str) -> Iterator[dict[str, Any]]:
    """Documents of a release below a folder."""
    if made is None:
        return
    for file in sorted(made.manifest["files"]):
        if file.startswith(folder) and file.endswith(".json"):
            yield orjson.loads((made.folder / file).read_bytes())


def _note_doubts(ws: Workspace, doubts: Sequence[Mapping[str, Any]], at: dt.datetime) -> None:
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


def backtest(ws: Workspace, audience: Audience, names: Sequence[str] = (), track: Track = untracked) -> list[Tested]:
    """Test the default models of all series (or of those named) against their benchmarks, and store what follows.

    Each origin sees what releases showed then. Raises ReleaseError where nothing can be forecast.
    """
    rules, at = ws.methodology.forecasts, ws.now()
    if rules is None:
        raise ReleaseError(f"methodology {ws.methodology.id} has no table [forecasts]: nothing is forecast")
    eligible = figures.eligible(ws.operation, audience)
    observed, _ = _observed(ws, eligible, at)
    made, _ = _figures(ws, eligible, observed, {}, ws.store.bases(audience, at), at)
    every = forecasts.subjects(made, ws.operation, audience, ws.methodology)
    listed = [one for one in every if not names or one.name in names]
    if not listed:
        known = ", ".join(sorted({one.name for one in every}))
        raise ReleaseError(f"nothing of that name is forecast; there are: {known or 'none'}")
    path, before = ws.root(audience) / "published.db", ws.store.backtests(audience, at)

    def shown(name: str, frequency: str) -> list[tuple[str, str, float | None]]:
        if not path.exists():
            return []
        kind: published.Kind = "price" if "/" in name else "index"
        return published.query(path, lambda db: published.vintages(db, kind, name, frequency))

    today = at.astimezone(dt.UTC).date().isoformat()
    tasks = list(forecasts.backtests(listed, rules, shown, before, today))
    found = [
        result for result, _ in zip(_computed(tasks, ws.operation.compute), track(listed, "backtests"), strict=True)
    ]
    rows: list[Tested] = [(o.name, o.frequency, made) for o, made in zip(listed, found, strict=True) if made]
    failed = [made["failed"] for _, _, made in rows if "failed" in made]
    rows = [row for row in rows if "failed" not in row[2]]
    with writing(ws.data):
        # a release may have been made meanwhile: what was tested is learnt now
        learnt = max(ws.now(), at)
        ws.store.add_backtests(audience, learnt, rows)
        if failed:
            ws.store.add_findings(learnt, "lodemark", [Finding("backtest", "warning", message) for message in failed])
    return rows


def _computed(tasks: Iterable[Callable[[], Any]], compute: Compute) -> Iterator[Any]:
    """Make each call, in order: in this process, in several, or on a cluster that exists, with one thread each."""
    import joblib  # with its processes: only where something is computed

    if not compute.dask:
        yield from joblib.Parallel(n_jobs=compute.workers, return_as="generator")(joblib.delayed(t)() for t in tasks)
        return
    try:
        cluster: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise ReleaseError("config.toml: compute.dask needs 'lodemark[cluster]' installed") from error
    try:
        client = cluster.Client(compute.dask, timeout=10, set_as_default=True)
    except (OSError, ValueError) as error:
        raise ReleaseError(f"config.toml: compute.dask: no scheduler answers at {compute.dask}: {error}") from error
    with client, joblib.parallel_config("dask"):
        yield from joblib.Parallel(return_as="generator")(joblib.delayed(t)() for t in tasks)


def _note_records(ws: Workspace, records: Mapping[str, tuple[figures.Beside, ...]], at: dt.datetime) -> None:
    """Make a finding, once, of each indicator that does not run beside what it should."""
    rules = ws.methodology.trade
    if rules is None or not records:
        return
    told = {f["message"] for f in ws.store.findings() if f["check"] == "cross-check"}
    for key, rows in records.items():
        for row in rows:
            r = row.record
            far = r.level is not None and not 1 / rules.outlier_factor <= r.level <= rules.outlier_factor
            apart = r.correlation is not None and r.correlation < rules.least_correlation
            what = "is at another level than" if far else "does not move with" if apart else ""
            message = f"{key}: {row.of} {what} {row.beside}"
            if what and message not in told:
                ws.store.add_findings(at, "lodemark", [Finding("cross-check", "warning", message, evidence=asdict(r))])


def _note_held(ws: Workspace, priced: Mapping[str, figures.MarketPrices], at: dt.datetime) -> None:
    """Make a finding, once, of each quotation that a determination holds back until somebody has looked at it."""
    owner = ws.operation.source_of()
    told: set[str] | None = None
    for key, one in priced.items():
        for frequency in figures.FREQUENCIES:
            made = one.made(frequency)
            if made is None:
                continue
            for t, m in np.argwhere(made.computed("held")).tolist():
                series, period = made.quotes.series[int(made.chosen[t, m])], str(made.quotes.usd_per_t.index[t])
                if made.age[t, m]:
                    continue  # an older one that still stands: noted on its own day
                value, rule = float(made.quotes.value[series.id].iloc[t]), str(made.excluded[t, m])
                message = f"{series.id} {period}: {value:g} {series.unit} is {rule}"
                if told is None:
                    told = {f["message"] for f in ws.store.findings() if f["check"] == "unit-slip"}
                if message not in told:
                    log.warning("held back", series=series.id, period=period, why=rule)
                    evidence = {"value": value, "market": key, "frequency": frequency, "origin": series.origin}
                    slip = Finding("unit-slip", "error", message, series.id, period, evidence)
                    ws.store.add_findings(at, owner[series.id], [slip])
                    told.add(message)


def _note_left_out(ws: Workspace, left_out: Mapping[str, str], at: dt.datetime) -> None:
    """Make a finding, once, of each series that could not be converted."""
    owner = ws.operation.source_of()
    told = {f["message"] for f in ws.store.findings() if f["check"] == "conversion"} if left_out else set()
    for series, reason in left_out.items():
        if reason not in told:
            log.warning("series left out", series=series, why=reason)
            ws.store.add_findings(at, owner[series], [Finding("conversion", "error", reason, series=series)])


def _production(store: Store, series: Iterable[str], at: dt.datetime) -> pd.DataFrame:
    """Every vintage of the production series up to an instant."""
    parts = [store.history(name).assign(series=name) for name in series]
    columns = ["series", "period", "vintage", "value", "status"]
    known = pd.concat(parts)[columns] if parts else pd.DataFrame(columns=columns)
    return known[known["vintage"] <= micros(at)].reset_index(drop=True)


def _kept(last: releases.Release | None, parts: Mapping[str, tuple[str, str]]) -> documents.Kept:
    """Offer yearly parts of the last release whose inputs did not change, and whose bytes are sound."""

    def kept(name: str, fingerprint: str) -> bytes | None:
        before = parts.get(name)
        if last is None or before is None or before[0] != fingerprint:
            return None
        if last.manifest["files"].get(name, {}).get("sha256") != before[1]:
            return None
        raw = (last.folder / name).read_bytes()
        return raw if hashlib.sha256(raw).hexdigest() == before[1] else None

    return kept


def _facts_by_source(
    ws: Workspace, observed: pd.DataFrame, declared: Mapping[str, pd.DataFrame], at: dt.datetime
) -> dict[str, Any]:
    """Say what is known of each source at a release, and whether its last figures are stale by then."""
    owner = ws.operation.source_of()
    out = {}
    parts = {str(name): rows for name, rows in observed.groupby(observed["series"].map(owner))}
    parts |= {name: rows.assign(series=rows["code"]) for name, rows in declared.items() if len(rows)}
    for name, rows in parts.items():
        age = (at - instant(int(rows["vintage"].max()))).total_seconds() / 86400
        out[name] = {
            "age_days": round(age, 2),
            "stale": age > ws.operation.sources[name].min_age_ok_days,
            "series": int(rows["series"].nunique()),
            "observations": len(rows),
            "first_period": rows["period"].min(),
            "last_period": rows["period"].max(),
            "last_vintage": iso(instant(int(rows["vintage"].max()))),
        }
    return out


def _series_register(
    ws: Workspace, audience: Audience, eligible: figures.Eligible, bases: list[dict[str, Any]]
) -> bytes:
    """Every fact of a series that computation reads, and the bases in force; archived by its hash."""
    owner = ws.operation.source_of()
    register = {
        "audience": audience,
        "simulated": ws.simulated,
        "series": [
            {"source": owner[s.id], **s.model_dump(mode="json"), "closed": s.id in eligible.closed}
            for s in sorted(eligible.series.values(), key=lambda s: s.id)
        ],
        "bases": [{**b, "vintage": iso(instant(b["vintage"]))} for b in _open_bases(eligible, bases)],
    }
    raw = releases.canonical(register)
    ws.archive.put(raw)
    return raw


def _open_bases(eligible: figures.Eligible, bases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the ratios of closed origins: with an open quotation beside it, a ratio is the closed one."""
    hidden = {
        (f"{s.mineral}/{s.stage}/{s.zone}", s.origin) for s in eligible.series.values() if s.id in eligible.closed
    }
    return [b for b in bases if not {(b["market"], b["origin"]), (b["market"], b["via"])} & hidden]


def _manifest(
    ws: Workspace, edition: documents.Edition, eligible: figures.Eligible, register: bytes, at: dt.datetime
) -> dict[str, Any]:
    used = {
        name for name, source in ws.operation.sources.items() if any(s.id in eligible.series for s in source.series)
    } | eligible.customs
    method = methodology_bytes(ws.methodology)
    ws.archive.put(method)
    log_of_decisions = ws.store.decisions(at)
    return {
        "audience": edition.audience,
        "vintage": edition.vintage,
        "released_at": edition.released_at,
        "simulated": edition.simulated,
        "replayed": edition.replayed,
        "methodology": {"id": ws.methodology.id, "sha256": ws.methodology.sha256},
        "codes": {"sha256": ws.archive.put(ws.methodology.codes_raw.encode())} if ws.methodology.codes_raw else None,
        "register": {"sha256": hashlib.sha256(register).hexdigest()},
        # who is told of alerts makes no figure, and their addresses are nobody else's business
        "operation": {"sha256": ws.archive.put(canonical(ws.operation, without={"alerts", "subscribers"}))},
        "decisions": {
            "number": len(log_of_decisions),
            "sha256": ws.archive.put("".join(f"{line}\n" for line in log_of_decisions).encode()),
        },
        "documents": _documents(ws, edition.audience, used, at),
        **({"salt": ws.store.salt} if edition.audience == "internal" and _salts(ws.operation) else {}),
        "algorithms": ALGORITHMS,
        "software": f"lodemark {__version__}",
    }


def _documents(ws: Workspace, audience: Audience, used: set[str], at: dt.datetime) -> list[dict[str, str]]:
    """Documents that a release rests on.

    The public hash of a closed one is salted: a page with one figure on it could be guessed from its bare hash.
    The salt stands in the auditors' manifests, so they can tell which document was meant.
    """
    out = []
    for d in ws.store.documents(as_of=at):
        if d["source"] in used:
            digest = {"sha256": d["sha256"]}
            if audience == "public" and not ws.operation.sources[d["source"]].rights.publish_value:
                digest = {"salted_sha256": hashlib.sha256(f"{ws.store.salt}{d['sha256']}".encode()).hexdigest()}
            out.append({"source": d["source"], **digest, "vintage": iso(instant(d["vintage"]))})
    return out


def _salts(operation: Operation) -> bool:
    """Whether any document of a public release is closed."""
    rights = [source.rights for source in operation.sources.values()]
    return any(r.compute and r.publish_derived and not r.publish_value for r in rights)


def _signing_key(ws: Workspace, environ: Mapping[str, str], at: dt.datetime) -> keys.SigningKey:
    """Return the key that signs; the first release of a folder makes one when nobody did."""
    if not keys.list_keys(ws.data) and not environ.get(keys.ENVIRONMENT):
        return keys.new_key(ws.data, ws.now())
    return keys.signing_key(ws.data, environ, ws.now())


def _next_release(operation: Operation, at: dt.datetime) -> str | None:
    publish = operation.publish
    zone = ZoneInfo(publish.time_zone)
    trigger = CronTrigger.from_crontab(publish.schedule, timezone=zone)
    due = trigger.get_next_fire_time(None, at.astimezone(zone) + dt.timedelta(seconds=1))
    return iso(due) if due else None


def _counts(changes: Changes) -> dict[str, int]:
    return {"new": changes.new, "revised": changes.revised, "withdrawn": changes.withdrawn}


# --------------------------------------------------------------------------------------- alerts


def _alerts(
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


def _drafted(ws: Workspace, messages: list[dict[str, Any]], at: dt.datetime) -> dict[str, Any]:
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
        failing = source["outcome"] in ("failed", "refused") and since < iso(now - _hours(rules.failing_hours))
        if failing:
            text = f"{name}: {source['outcome']} since {since[:16] or 'the first visit'}"
            yield alerts.Condition(f"failing:{name}", "Source cannot be read", text, 2, (source["message"] or "",))
    for audience, made in state["releases"].items():
        due = _next_release(ws.operation, dt.datetime.fromisoformat(made["released_at"]))
        late = audience in ws.operation.publish.audiences and due is not None
        if late and iso(now - dt.timedelta(minutes=rules.late_minutes)) > str(due):
            text = f"the {audience} release of {str(due)[:16]} has not been made; the last is {made['number']}"
            yield alerts.Condition(f"late:{audience}", "Release is late", text, 3)
    oldest = ws.store.outbox_due()
    if oldest is not None and now - oldest > dt.timedelta(minutes=rules.late_minutes):
        text = f"messages wait in the outbox since {iso(oldest)[:16]}"
        yield alerts.Condition("outbox:aged", "Messages are not sent", text, 3)
    window = now - _hours(rules.reopen_hours)
    errors: dict[tuple[str, str], list[str]] = {}
    for one in ws.store.findings_since(window):
        # the detector's doubts about figures of a contributor bear a score; of a whole feed they are named so
        if one["severity"] == "error" or "score" in one["evidence"] or one["check"].startswith("feed-"):
            errors.setdefault((one["source"], one["check"]), []).append(one["message"])
    for (name, check), texts in errors.items():
        more = f", and {len(texts) - 1} more" if len(texts) > 1 else ""
        text = f"{name}, {check}: {texts[0][:100]}{more}"
        yield alerts.Condition(f"finding:{name}:{check}", "Error found", text, 2, (), tuple(dict.fromkeys(texts)))


def _hours(hours: float) -> dt.timedelta:
    return dt.timedelta(hours=hours)


# --------------------------------------------------------------------------------------- status


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


__all__ = [
    "Outcome",
    "PricingError",
    "Workspace",
    "alert_operator",
    "collect",
    "load_files",
    "opened",
    "recover",
    "release",
    "status",
    "writing",
]
