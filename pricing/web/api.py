"""The addresses below ``/v1/``, the key set, and the two health checks."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from flask import Blueprint, Response, request

from pricing import published
from pricing.web import query
from pricing.web.answers import COMMON, JSON, LOCKED, Document, Finished, cached_for, digest, made, unchanged
from pricing.web.problems import Problem, unavailable
from pricing.web.releases import Snapshot, Tree

_ANSWER_FORMAT = "1"  # part of the ETag of filtered answers: raise it when their bytes change
_PAGE, _LARGEST_PAGE = 50, 200
_CHANGES, _MOST_CHANGES = 200, 1000  # of one page
_PAIRED: dict[str, tuple[published.Kind, tuple[str, ...]]] = {
    "indicators": ("indicator", ("from", "to", "origin", "leg", "asOf")),
    "gaps": ("gap", ("from", "to", "frequency", "basis", "asOf")),
    "spreads": ("spread", ("from", "to", "upper", "lower", "asOf")),
    "imports": ("imports", ("from", "to", "asOf")),
}
_MEMBERS = {"indicator": ("origin", "leg"), "spread": ("upper", "lower")}  # what tells the series of one name apart
_OF_BASIS: dict[str | None, published.Kind] = {"gross": "gap-gross", "export-parity": "gap-export-parity"}
_T = TypeVar("_T")
Clock = Callable[[], dt.datetime]


def blueprint(
    tree: Tree, status_file: Path, *, max_age: int, release_max_age_days: float | None, now: Clock
) -> Blueprint:
    """Return the routes of the API over one tree of releases.

    Parameters
    ----------
    tree : Tree
        What is served.
    status_file : Path
        The scheduler's ``status.json``; may be absent.
    max_age : int
        Seconds that an answer about the current release may be kept. 0: ask each time.
    release_max_age_days : float or None
        How old the current release may be before ``/readyz`` says so.
    now : callable
        The clock, aware UTC; asked by ``/v1/status`` and ``/readyz`` only.
    """
    api = Blueprint("api", __name__)

    @api.get("/v1/", defaults={"path": ""}, strict_slashes=False)
    @api.get("/v1/<path:path>")
    def document(path: str) -> Response:
        environ = request.environ
        snapshot = tree.current()
        if not environ.get("QUERY_STRING"):
            return (snapshot.documents.get(path) or snapshot.document(path)).answer(environ)
        return _queried(tree, path)

    @api.get("/v1/releases", strict_slashes=False)
    def releases() -> Response:
        given = query.parameters(request, ("limit", "before"))
        return _release_list(tree, given, max_age).answer(request.environ)

    @api.get("/v1/releases/<number>", defaults={"name": "manifest.json"}, strict_slashes=False)
    @api.get("/v1/releases/<number>/<path:name>")
    def release_file(number: str, name: str) -> Response:
        query.parameters(request, ())
        return tree.snapshot(query.release_number(number)).file(name).answer(request.environ)

    @api.get("/feed.atom")
    def feed() -> Response:
        return tree.current().text("feed.atom").answer(request.environ)

    @api.get("/v1/status", strict_slashes=False)
    def status() -> Response:
        query.parameters(request, ())
        body = {**_freshness(tree, now(), release_max_age_days), "operation": _status(status_file)}
        headers = [("Content-Type", JSON), ("Cache-Control", "no-cache"), LOCKED]
        return made(_bytes(body), headers, int(now().timestamp())).answer(request.environ)

    @api.get("/.well-known/jwks.json")
    def key_set() -> Response:
        path = tree.root / "jwks.json"
        try:
            body, changed = path.read_bytes(), int(path.stat().st_mtime)
        except OSError as error:
            raise unavailable([f"jwks.json: {error.strerror}; lodemark keys new makes the first key"]) from error
        headers = [("Content-Type", "application/jwk-set+json"), cached_for(max_age), LOCKED]
        return made(body, headers, changed).answer(request.environ)

    @api.get("/healthz", strict_slashes=False)
    def healthz() -> Response:
        return _health({"alive": True}, 200)

    @api.get("/readyz", strict_slashes=False)
    def readyz() -> Response:
        fresh = _freshness(tree, now(), release_max_age_days)
        unreachable = [f"source {s} cannot be reached" for s in _unreachable(_status(status_file))]
        missing = fresh["missing"]
        number = fresh["release"] and fresh["release"]["number"]
        body = {
            "ready": not missing,
            "release": number,
            "missing": missing + unreachable if missing else [],
            "unreachable": unreachable,
        }
        return _health(body, 503 if missing else 200)

    return api


# ------------------------------------------------------------------- documents with parameters


def _queried(tree: Tree, path: str) -> Response:
    """Answer an address below /v1/ that came with a query."""
    parts = path.removesuffix("/").split("/")
    if parts == ["changes"]:
        return _changed(tree)
    kind: published.Kind | None = None
    allowed: tuple[str, ...] = ("asOf",)
    if parts[0] == "indices" and len(parts) == 2:
        kind, allowed = "index", ("from", "to", "frequency", "asOf")
    elif parts[0] == "prices" and len(parts) == 4:
        kind, allowed = "price", ("from", "to", "frequency", "asOf")
    elif parts[0] in _PAIRED and len(parts) == 3:
        kind, allowed = _PAIRED[parts[0]]
    elif path.removesuffix("/") == "methodology":
        allowed = ("format", "asOf")
    given = query.parameters(request, allowed)
    start, end = query.span(given)
    frequency = query.one_of(given, "frequency", query.FREQUENCIES)
    basis = query.one_of(given, "basis", query.BASES)
    query.one_of(given, "leg", query.LEGS)
    form = query.one_of(given, "format", ("json", "text"))
    snapshot = query.as_of(tree, given.get("asOf"))
    if form == "text":
        return snapshot.text(f"{parts[0]}.txt").answer(request.environ)
    whole = snapshot.document(path)
    if kind is None or not given.keys() - {"asOf"}:
        return whole.answer(request.environ)
    if kind in _MEMBERS:
        wanted = {name: given.get(name) for name in _MEMBERS[kind]}
        return _several(tree, snapshot, kind, "/".join(parts[1:]), wanted, start, end)
    return _filtered(tree, snapshot, _OF_BASIS.get(basis, kind), "/".join(parts[1:]), frequency, start, end)


def _filtered(
    tree: Tree,
    snapshot: Snapshot,
    kind: published.Kind,
    name: str,
    frequency: str | None,
    start: str | None,
    end: str | None,
) -> Response:
    """Answer from the rows of ``published.db`` as the release showed them; a 304 costs no query."""
    facts = snapshot.facts
    seed = json.dumps([_ANSWER_FORMAT, facts.manifest_sha256, kind, name, frequency, start, end])
    etag = digest(seed.encode())
    known = unchanged(request.environ, etag, snapshot.headers, snapshot.modified)
    if known is not None:
        return known

    def ask(db: sqlite3.Connection) -> tuple[int, dict[str, str], str, list[published.Value]]:
        units = published.datasets(db, kind, name, release=facts.number)
        chosen = frequency or next((f for f in ("monthly", *units) if f in units), "")
        values = published.read(db, kind, name, chosen, release=facts.number, start=start, end=end)
        return published.newest(db), units, chosen, values

    newest, units, chosen, values = _asked(tree, ask)
    _check_newest(newest, snapshot)
    if chosen not in units:
        has = f"it has {', '.join(units)}" if units else "leave out from, to and frequency to get its document"
        wanted = f"{frequency} figures" if frequency else "figures"
        raise Problem(404, "no-figures", "No figures of that kind", f"{kind} {name} has no {wanted}; {has}")
    meta = {
        "id": name, "kind": kind, "frequency": chosen, "unit": units[chosen], "from": start, "to": end,
        "release": facts.number, "vintage": facts.vintage, "released_at": facts.released_at,
        "realtime_start": facts.released_at, "simulated": facts.simulated,
        "withdrawn": [{"period": v.period, "since_release": v.since_release} for v in values if v.value is None],
    }  # fmt: skip
    rows = [_value(v) for v in values if v.value is not None]
    body = _bytes({"meta": meta, "values": rows})
    return made(body, snapshot.headers, snapshot.modified, etag=etag).answer(request.environ)


def _several(
    tree: Tree,
    snapshot: Snapshot,
    kind: published.Kind,
    product: str,
    wanted: dict[str, str | None],
    start: str | None,
    end: str | None,
) -> Response:
    """Answer the monthly series of one name: an indicator's by origin and leg, a spread's by its two stages."""
    facts = snapshot.facts
    seed = json.dumps([_ANSWER_FORMAT, facts.manifest_sha256, kind, product, *wanted.values(), start, end])
    etag = digest(seed.encode())
    known = unchanged(request.environ, etag, snapshot.headers, snapshot.modified)
    if known is not None:
        return known

    def ask(db: sqlite3.Connection) -> tuple[int, list[str], list[dict[str, Any]]]:
        names = published.names_below(db, kind, f"{product}/", release=facts.number)
        found = []
        for name in names:
            own = dict(zip(wanted, name.split("/")[-len(wanted) :], strict=True))
            if all(wanted[key] in (None, own[key]) for key in wanted):
                values = published.read(db, kind, name, "monthly", release=facts.number, start=start, end=end)
                unit = published.datasets(db, kind, name, release=facts.number)["monthly"]
                rows = [_value(v) for v in values if v.value is not None]
                gone = [{"period": v.period, "since_release": v.since_release} for v in values if v.value is None]
                found.append({**own, "unit": unit, "values": rows, "withdrawn": gone})
        return published.newest(db), names, found

    newest, names, found = _asked(tree, ask)
    _check_newest(newest, snapshot)
    if not found:
        has = ", ".join(n.removeprefix(f"{product}/") for n in names) or "none"
        raise Problem(404, "no-figures", "No figures of that kind", f"{kind} {product} has the series {has}")
    meta = {
        "id": product, "kind": kind, "frequency": "monthly", "from": start, "to": end,
        "release": facts.number, "vintage": facts.vintage, "released_at": facts.released_at,
        "realtime_start": facts.released_at, "simulated": facts.simulated,
    }  # fmt: skip
    body = _bytes({"meta": meta, "series": found})
    return made(body, snapshot.headers, snapshot.modified, etag=etag).answer(request.environ)


def _changed(tree: Tree) -> Response:
    """Answer what changed between two releases, page by page; a page names both, so that no release comes between."""
    given = query.parameters(request, ("since", "asOf", "limit", "after"))
    snapshot = query.as_of(tree, given.get("asOf"))
    if "since" not in given:
        if given.keys() - {"asOf"}:
            raise query.bad("since", "limit and after need since, the release or instant after which changes count")
        return snapshot.document("changes").answer(request.environ)
    facts, since = snapshot.facts, query.since(tree, given["since"])
    if since > facts.number:
        raise query.bad("since", f"since is release {since}, after asOf, release {facts.number}")
    limit, place = query.whole(given, "limit", _CHANGES, 1, _MOST_CHANGES), query.place(given.get("after"))
    seed = json.dumps([_ANSWER_FORMAT, facts.manifest_sha256, "changes", since, limit, place])
    etag = digest(seed.encode())
    known = unchanged(request.environ, etag, snapshot.headers, snapshot.modified)
    if known is not None:
        return known

    def ask(db: sqlite3.Connection) -> tuple[int, list[published.Change]]:
        found = published.changes(db, since, facts.number, place=place)
        return published.newest(db), list(islice(found, limit + 1))

    newest, found = _asked(tree, ask)
    _check_newest(newest, snapshot)
    more = None
    if len(found) > limit:
        after = ".".join(map(str, found[limit - 1].place))
        more = f"/v1/changes?since=release:{since}&asOf=release:{facts.number}&limit={limit}&after={after}"
    meta = {
        "id": "changes", "since": since or None, "release": facts.number, "vintage": facts.vintage,
        "released_at": facts.released_at, "simulated": facts.simulated, "limit": limit,
    }  # fmt: skip
    body = _bytes({"meta": meta, "changes": [one.document() for one in found[:limit]], "next": more})
    return made(body, snapshot.headers, snapshot.modified, etag=etag).answer(request.environ)


def _asked(tree: Tree, ask: Callable[[sqlite3.Connection], _T]) -> _T:
    try:
        return published.query(tree.root / "published.db", ask)
    except sqlite3.Error as error:
        raise unavailable([f"published.db: {error}"]) from error


def _check_newest(newest: int, snapshot: Snapshot) -> None:
    if newest < snapshot.facts.number:
        raise unavailable([f"published.db ends at release {newest}, before release {snapshot.facts.number}"])


def _value(v: published.Value) -> dict[str, Any]:
    row = {
        "period": v.period,
        "value": v.value,
        "unrounded": v.unrounded,
        "status": v.status,
        "since_release": v.since_release,
    }
    return row if v.grade is None else {**row, "grade": v.grade}


def _release_list(tree: Tree, given: dict[str, str], max_age: int) -> Document:
    current = tree.current()
    limit = query.whole(given, "limit", _PAGE, 1, _LARGEST_PAGE)
    before = query.whole(given, "before", current.number + 1, 1, 999_999_999)
    older = [n for n in tree.numbers() if n < before]
    page = [tree.facts(n) for n in reversed(older[-limit:])]
    more = f"/v1/releases?limit={limit}&before={page[-1].number}" if len(older) > limit else None
    body = {
        "meta": {"latest": current.number, "limit": limit, "before": before},
        "releases": [
            {
                "number": f.number, "vintage": f.vintage, "released_at": f.released_at,
                "manifest_sha256": f.manifest_sha256, "simulated": f.simulated, "href": f"/v1/releases/{f.number}",
            }
            for f in page
        ],
        "next": more,
    }  # fmt: skip
    return made(_bytes(body), [("Content-Type", JSON), cached_for(max_age), LOCKED], current.modified)


# ------------------------------------------------------------------------------- how it stands


def is_stale(snapshot: Snapshot, now: dt.datetime, release_max_age_days: float | None) -> bool:
    """Tell whether a release is older than the operator promised; a simulated clock is not judged."""
    if release_max_age_days is None or snapshot.facts.simulated:
        return False
    return now - snapshot.facts.instant > dt.timedelta(days=release_max_age_days)


def _freshness(tree: Tree, now: dt.datetime, release_max_age_days: float | None) -> dict[str, Any]:
    """Return the current release and what keeps it from being good; no ages, so that the ETag holds."""
    try:
        snapshot = tree.current()
        snapshot.document("")
    except Problem as problem:
        return {"release": None, "fresh": False, "missing": problem.more.get("missing", [problem.detail])}
    stale = is_stale(snapshot, now, release_max_age_days)
    facts = snapshot.facts
    missing = (
        [f"a release of the last {release_max_age_days:g} days; the current one is of {facts.released_at}"]
        if stale
        else []
    )
    if not (snapshot.folder / "manifest.jws").is_file():
        missing.append(f"the signature of release {facts.number} (manifest.jws)")
    release = {
        "number": facts.number,
        "vintage": facts.vintage,
        "released_at": facts.released_at,
        "simulated": facts.simulated,
    }
    return {"release": release, "fresh": not stale, "missing": missing + tree.lacking()}


def _status(status_file: Path) -> Any:
    """Return what the scheduler wrote, None when it wrote nothing or is half way."""
    try:
        return json.loads(status_file.read_bytes())
    except (OSError, ValueError):
        return None


def _unreachable(status: Any) -> list[str]:
    """Name the sources whose last collection failed: ``{"sources": {name: {"reachable": false}}}``."""
    sources = status.get("sources") if isinstance(status, dict) else None
    if not isinstance(sources, dict):
        return []
    return sorted(
        name for name, source in sources.items() if isinstance(source, dict) and source.get("reachable") is False
    )


def _health(document: dict[str, Any], status: int) -> Response:
    body = _bytes(document)
    fixed = [("Content-Type", JSON), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"), LOCKED]
    return Finished(body, status, [*fixed, *COMMON])


def _bytes(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
