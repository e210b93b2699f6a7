"""Collects customs statistics: many small questions, each kept, none asked twice.

What has been had stands in the store's visits, one per question, so a collection that is cut short goes
on where it stopped. The clock, the pauses and the key come in from outside.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from types import ModuleType
from urllib.parse import quote, urljoin

import orjson
import pandas as pd

from pricing import cells
from pricing.config import Code, Customs, Source
from pricing.declarations import Declared, Reply, Request, Scope, frame, once
from pricing.errors import FetchError, ParseError
from pricing.fetch import REDIRECTS, Answer, Client
from pricing.quality import Finding
from pricing.sources import load
from pricing.store import Changes, Store

READ = frozenset({200, 202, 204, 400, 404, 413})  # these publishers explain themselves in the body
TRIES = 4  # of one question in one visit that bring nothing
SILENT = 5  # requests in a row without an answer, after which the publisher is left alone until the next visit
POLLS = 60
FIRST_POLL, LONGEST_POLL = 2.0, 30.0  # seconds


@dataclass(frozen=True)
class Office:
    """One customs source with all that its collection needs.

    Attributes
    ----------
    codes : sequence of Code
        Those of the source's tariff.
    writing : callable
        Holds the data folder for one writer.
    sleep : callable
        Waits so many seconds.
    stopping : callable
        Tells that the visit shall end; what is left is asked at the next one.
    """

    name: str
    source: Source
    codes: Sequence[Code]
    store: Store
    client: Client
    environ: Mapping[str, str]
    now: Callable[[], dt.datetime]
    sleep: Callable[[float], object]
    writing: Callable[[], AbstractContextManager[None]]
    stopping: Callable[[], bool] = lambda: False

    @property
    def module(self) -> ModuleType:
        """The parser and planner of this publisher."""
        return load(self.name, self.source)


@dataclass
class Visit:
    """What one visit brought, in numbers."""

    sent: int = 0
    silent: int = 0  # requests in a row without an answer
    asked: int = 0
    unchanged: int = 0
    refused: int = 0
    failed: int = 0
    new: int = 0
    revised: int = 0
    withdrawn: int = 0
    left: int = 0
    why: str = ""

    @property
    def changes(self) -> Changes:
        """Cells, as counted by the store."""
        return Changes(self.new, self.revised, self.withdrawn)

    def __str__(self) -> str:
        """Say it in words."""
        text = f"{self.asked} answers, {self.unchanged} of them as before"
        for n, what in ((self.refused, "refused"), (self.failed, "failed"), (self.left, "left for the next visit")):
            text += f", {n} {what}" if n else ""
        return text + (f": {self.why}" if self.why and (self.refused or self.failed) else "")


class WrongKeyError(FetchError):
    """The publisher does not know our key: no question will be answered."""


def collect(office: Office) -> Visit:
    """Ask everything that is due; what fails is tried again later, and then left for the next visit.

    Raises
    ------
    FetchError
        When the key is missing or refused.
    """
    _key(office)
    visit = Visit()
    wanted = office.module.requests(*_planning(office))
    # What failed the last time comes last: questions that never succeed must not keep the others from being asked.
    wanted.sort(key=lambda request: office.store.visit(office.name, request.url)["outcome"] == "failed")
    due = deque((request, 1) for request in wanted)
    while due:
        if office.stopping():
            visit.left, visit.why = len(due), "stopped"
            break
        request, attempt = due.popleft()
        had = visit.asked
        try:
            _ask(office, request, visit)
        except WrongKeyError:
            raise
        except FetchError as error:
            visit.why = str(error)
            with office.writing():
                office.store.record_visit(office.name, request.url, office.now(), "failed", str(error))
            if visit.silent < SILENT and attempt < TRIES:
                due.append((request, attempt + (visit.asked == had)))  # halves that were had are a step ahead
                continue
            visit.failed += 1
            if visit.silent >= SILENT:
                visit.left = len(due)
                break
    return visit


def _customs(office: Office) -> Customs:
    assert office.source.customs is not None
    return office.source.customs


def _planning(office: Office) -> tuple[Source, Sequence[Code], dict[str, dt.datetime], dt.datetime]:
    read = cells.read_under(office.store, office.name)
    current = {url for url, (codes, under) in read.items() if under == _register_of(office, codes)}
    done = {
        v["url"]: dt.datetime.fromisoformat(v["succeeded_at"])
        for v in office.store.visits()
        # a later visit that failed undoes no success, and does not break up what was asked together; what was read
        # under other units or lives of its codes is asked for again, be its year open or not
        if v["source"] == office.name and v["succeeded_at"] and (v["url"] in current or v["url"] not in read)
    }
    return office.source, office.codes, done, office.now()


def _register_of(office: Office, codes: Collection[str]) -> str:
    return register(office.name, office.source, [c for c in office.codes if c.code in codes])


def _key(office: Office) -> str:
    variable = _customs(office).key_environment
    key = office.environ.get(variable, "").strip() if variable else ""
    if variable and not key:
        raise WrongKeyError(
            f"needs a key: set the environment variable {variable} (the publisher gives keys free of charge)",
            permanent=True,
        )
    return key


def _ask(office: Office, request: Request, visit: Visit) -> None:
    """Ask one question, in halves where the answer would be too big, and store what it brings."""
    reply, answer = _answer(office, request, visit)
    if reply.kind == "too-big":
        halves = office.module.halves(request, office.source)
        if halves is None:
            raise FetchError(f"{request.url}: too big, and cannot be halved: {reply.message}", permanent=True)
        _ask_halves(office, halves, visit)
        with office.writing():
            office.store.record_visit(office.name, request.url, office.now(), "unchanged", "had in halves")
        return
    visit.asked += 1
    with office.writing(), office.store.writing():  # the cells and that they were asked for: both or neither
        _keep(office, request, reply, answer, visit)


def _ask_halves(office: Office, halves: Sequence[Request], visit: Visit) -> None:
    """Ask each half that was not had just now; one that fails does not keep the other from being asked."""
    _, _, done, now = _planning(office)
    fresh = now - dt.timedelta(hours=_customs(office).again_after_hours)
    failure: FetchError | None = None
    for half in halves:
        if done.get(half.url, fresh) <= fresh:
            try:
                _ask(office, half, visit)
            except FetchError as error:
                if isinstance(error, WrongKeyError) or visit.silent >= SILENT:
                    raise
                failure = error
    if failure is not None:
        raise failure


def _answer(office: Office, request: Request, visit: Visit) -> tuple[Reply, Answer]:
    """Send a question and wait until a queued answer is there. Raises FetchError for a fault."""
    reply, answer = _exchange(office, visit, request.url, _read_before(office, request.url))
    wait, failed = FIRST_POLL, 0
    for _ in range(POLLS):
        if reply.kind not in ("queued", "ready"):
            return reply, answer
        if reply.kind == "queued":
            office.sleep(wait)
            wait = min(2 * wait, LONGEST_POLL)
        try:
            reply, answer = _exchange(office, visit, urljoin(office.source.url.rstrip("/") + "/", reply.poll))
            failed = 0
        except FetchError:  # does not lose what is queued, unless it stays so
            failed += 1
            if failed == TRIES or visit.silent >= SILENT:
                raise
    raise FetchError(f"{request.url}: still queued", permanent=False)


def _exchange(office: Office, visit: Visit, url: str, before: Mapping[str, str] | None = None) -> tuple[Reply, Answer]:
    """Send one request. Raises FetchError for an answer that is none, which counts as the publisher's silence."""
    visit.silent += 1
    answer = _get(office, visit, url, before)
    reply = Reply("data") if answer.not_modified else _understood(office, answer)
    if reply.kind == "wrong-key":
        variable = _customs(office).key_environment
        raise WrongKeyError(f"{url}: {reply.message} (environment variable {variable})", permanent=True)
    if reply.kind == "fault":
        raise FetchError(f"{url}: {reply.message}", permanent=False)
    visit.silent = 0
    return reply, answer


def _read_before(office: Office, url: str) -> Mapping[str, str] | None:
    """Return the last visit if its document was read as it would be read now: else it is wanted whole again."""
    before = office.store.visit(office.name, url)
    known = office.store.document(office.name, before["sha256"])
    codes, under = cells.read_under(office.store, office.name, url).get(url, (frozenset(), ""))
    return before if known and under == _register_of(office, codes) else None


def _get(office: Office, visit: Visit, url: str, before: Mapping[str, str] | None = None) -> Answer:
    key = _key(office)
    if visit.sent:
        office.sleep(_customs(office).pause_seconds)
    visit.sent += 1
    separator = "&" if "?" in url else "?"
    return office.client.get(
        f"{url}{separator}key={quote(key)}" if key else url,
        etag=before["etag"] if before else "",
        last_modified=before["last_modified"] if before else "",
        max_bytes=office.source.max_bytes,
        # a key travels to one host only, and one that is missing is answered by a redirect to a page
        statuses=READ.union(REDIRECTS) if key else READ,
        redirects=not key,
    )


def _understood(office: Office, answer: Answer) -> Reply:
    assert answer.raw is not None and answer.document is not None
    status = answer.document.http_status
    if status in REDIRECTS:
        return Reply("wrong-key", "redirects, which it does where it knows no key")
    if not answer.raw.strip():
        # Only the status that says so means that there is nothing: a cut answer is as empty.
        return Reply("empty") if status == 204 else Reply("fault", f"HTTP {status} and no word")
    try:
        reply: Reply = office.module.understood(answer.raw)
    except ParseError as error:
        return Reply("fault", str(error))
    return Reply("fault", f"data with HTTP {status}") if reply.kind == "data" and status != 200 else reply


def _keep(office: Office, request: Request, reply: Reply, answer: Answer, visit: Visit) -> None:
    """Store one answer; the archive has its bytes already."""
    at = office.now()
    if answer.not_modified or answer.document is None or answer.raw is None:
        visit.unchanged += 1
        cells.read_again(office.store, office.name, request.url, at)
        office.store.record_visit(office.name, request.url, at, "unchanged")
        return
    made = answer.document
    document = office.store.add_document(office.name, made.sha256, url=request.url, **made.received())
    try:
        if reply.kind == "empty":
            declared = Declared(frame([]), request.scope)
        else:
            declared = office.module.declarations(answer.raw, office.codes, office.source)
        changes = keep(
            office.store, office.name, office.source, office.codes, document, at, declared, request.url, request.scope
        )
    except ParseError as error:
        visit.refused += 1
        visit.why = f"{request.url}: {error}"
        office.store.add_findings(at, office.name, [Finding("layout", "error", visit.why)], document)
        office.store.record_visit(office.name, request.url, at, "refused", visit.why)
        return
    visit.new += changes.new
    visit.revised += changes.revised
    visit.withdrawn += changes.withdrawn
    same = not (changes.new or changes.revised or changes.withdrawn)
    visit.unchanged += same
    seen = {"etag": made.etag, "last_modified": made.last_modified, "sha256": made.sha256}
    office.store.record_visit(office.name, request.url, at, "unchanged" if same else "new", **seen)


def keep(
    store: Store,
    name: str,
    source: Source,
    codes: Sequence[Code],
    document: int,
    at: dt.datetime,
    declared: Declared,
    url: str,
    scope: Scope | None = None,
) -> Changes:
    """Store what a document declares, apart from months that have not come.

    Parameters
    ----------
    scope : Scope or None
        What the question asked for; None: what the document says of itself.
    """
    asked = scope or declared.scope
    shown, doubts = once(declared.cells)
    held = declared.held.union(*(f.evidence.get("codes", ()) for f in doubts))
    later = shown["period"] > at.strftime("%Y-%m")
    outside = ~(shown["code"].isin(asked.codes) & shown["period"].between(asked.first, asked.last))
    findings = doubts + [
        Finding(check, "error", f"{int(which.sum())} cells {what}, the first {_named(shown[which])}: held back")
        for check, which, what in (
            ("period-to-come", later, "of months that have not come"),
            ("outside-question", outside & ~later, "that were not asked for"),
        )
        if which.any()
    ]
    if findings:
        declared = replace(
            declared, cells=shown[~later & ~outside], findings=(*declared.findings, *findings), held=held
        )
    return cells.append(
        store,
        document,
        name,
        at,
        declared,
        url=url,
        register=register(name, source, [c for c in codes if c.code in asked.codes]),
        scope=asked,
    )


def _named(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return f"{first['code']} {first['reporter']}-{first['partner']} {first['period']}"


def register(name: str, source: Source, codes: Sequence[Code]) -> str:
    """Hash of everything that the reading of a source's documents depends on."""
    module = load(name, source)
    facts = {
        "parser": module.__name__,
        "version": getattr(module, "VERSION", 1),
        "codes": [(c.code, c.units, c.valid_from, c.valid_to) for c in codes],
    }
    return hashlib.sha256(orjson.dumps(facts)).hexdigest()


def first_answer(
    name: str, source: Source, codes: Sequence[Code], client: Client, environ: Mapping[str, str], now: dt.datetime
) -> Declared:
    """Ask the newest question once and read the answer, storing nothing. Raises FetchError and ParseError."""
    with Store(":memory:") as store:
        office = Office(name, source, codes, store, client, environ, lambda: now, time.sleep, nullcontext)
        request = office.module.requests(*_planning(office))[0]
        visit = Visit()
        reply, answer = _answer(office, request, visit)
        while reply.kind == "too-big":
            halves = office.module.halves(request, source)
            if halves is None:
                raise FetchError(f"{request.url}: too big, and cannot be halved", permanent=True)
            request = halves[0]
            reply, answer = _answer(office, request, visit)
        if reply.kind == "empty" or answer.raw is None:
            return Declared(frame([]), request.scope)
        found: Declared = office.module.declarations(answer.raw, codes, source)
        return found


def read(name: str, source: Source, codes: Sequence[Code], raw: bytes) -> Declared:
    """Read a kept document. Raises ParseError, in the publisher's words where it is no data."""
    module = load(name, source)
    reply: Reply = module.understood(raw) if hasattr(module, "understood") else Reply("data")
    if reply.kind == "empty":
        return Declared(frame([]), Scope((), "", ""))
    if reply.kind != "data":
        raise ParseError(f"no data ({reply.kind}): {reply.message}")
    declared: Declared = module.declarations(raw, codes, source)
    return declared
