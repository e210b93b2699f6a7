"""The evidence of quality of a span of months: figures first, then clause by clause what they show.

``gather`` reads the working store and the releases, and writes nothing; ``assemble`` and ``markdown`` are
pure. Both forms of the report are made from the same tables, so they cannot differ.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from apscheduler.triggers.cron import CronTrigger

from pricing import clauses, decisions, published, releases
from pricing.config import Audience
from pricing.pipeline import Workspace
from pricing.releases import Release
from pricing.store import iso, micros

TITLE = "Self-assessment, not assured"
_PART = re.compile(r"(prices|indices|indicators)/(.+)/([^/]+)/(\d{4})\.json")
_RECORD = (
    *("status", "type", "determination_type", "judgement", "origins", "range", "spread", "largest_weight"),
    *("influence", "tiers", "contributors", "excluded"),
)
_PUBLISHED = """SELECT kind, sum(before IS NULL AND value IS NOT NULL), sum(before <> value),
    sum(before IS NOT NULL AND value IS NULL) FROM (
        SELECT d.kind, v.value, (SELECT p.value FROM value p WHERE p.dataset = v.dataset AND p.period = v.period
            AND p.release < v.release ORDER BY p.release DESC LIMIT 1) AS before
        FROM value v JOIN dataset d ON d.id = v.dataset WHERE v.release BETWEEN ? AND ?)
    GROUP BY kind ORDER BY kind"""


@dataclass(frozen=True)
class Span:
    """Whole months, first and last as ``2026-01``; instants are UTC."""

    first: str
    last: str

    def __post_init__(self) -> None:
        for month in (self.first, self.last):
            if not re.fullmatch(r"(19|20|21)\d\d-(0[1-9]|1[0-2])", month, re.ASCII):
                raise ValueError(f"{month!r} is not a month such as 2026-01")
        if self.last < self.first:
            raise ValueError(f"the span ends in {self.last}, before it begins in {self.first}")

    def months(self) -> list[str]:
        """Return every month of the span."""
        years = range(int(self.first[:4]), int(self.last[:4]) + 1)
        every = [f"{year}-{month:02d}" for year in years for month in range(1, 13)]
        return [month for month in every if self.first <= month <= self.last]

    def begin(self) -> dt.datetime:
        """Return the instant at which it begins."""
        return dt.datetime.fromisoformat(f"{self.first}-01T00:00:00Z")

    def end(self) -> dt.datetime:
        """Return the first instant after it."""
        return month_end(self.last)

    def holds(self, period: str) -> bool:
        """Tell whether a day or a month lies in it."""
        return self.first <= period[:7] <= self.last


def month_end(month: str) -> dt.datetime:
    """Return the first instant after a month."""
    inside = dt.datetime.fromisoformat(f"{month}-28T00:00:00Z") + dt.timedelta(days=4)
    return inside.replace(day=1)


@dataclass(frozen=True)
class Evidence:
    """Plain values that a report is assembled from; all figures are those of the last release in the span."""

    span: Span
    audience: str
    kind: str
    made: list[str] = field(default_factory=list)
    """Instants of all releases of the audience, in the span or not."""
    due: list[str] = field(default_factory=list)
    """Instants in the span at which the schedule wanted a release, from the first release on."""
    releases: list[dict[str, Any]] = field(default_factory=list)
    methodology: dict[str, Any] = field(default_factory=dict)
    determinations: list[dict[str, Any]] = field(default_factory=list)
    indices: list[dict[str, Any]] = field(default_factory=list)
    index_values: list[dict[str, Any]] = field(default_factory=list)
    indicators: list[dict[str, Any]] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    """The whole log up to the last release: what a decision of before the span still does is judgement in it."""
    published: list[tuple[str, int, int, int]] = field(default_factory=list)
    proof: dict[str, Any] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    forecasts: list[dict[str, Any]] = field(default_factory=list)


# ------------------------------------------------------------------------------------- reading


def gather(ws: Workspace, span: Span, audience: Audience = "public") -> Evidence:
    """Read what the store and the releases of one audience tell of a span.

    Documents and findings count from the release before the span to the last one in it, so that reports of
    spans that follow each other count everything once.

    Raises
    ------
    ReleaseError
        A release cannot be read.
    """
    root = ws.root(audience)
    every = [releases.load(root, number) for number in releases.list_releases(root)]
    begin, end = iso(span.begin()), iso(span.end())
    chosen = [r for r in every if begin <= r.manifest["released_at"] < end]
    instants, wanted = [r.manifest["released_at"] for r in every], list[str]()
    if every:
        start, publish = max(span.begin(), dt.datetime.fromisoformat(instants[0])), ws.operation.publish
        wanted = due(publish.schedule, publish.time_zone, start, min(span.end(), ws.now()))
    if not chosen:
        return Evidence(span, audience, ws.store.kind, made=instants, due=wanted)
    before = max((r.manifest["vintage"] for r in every if r.number < chosen[0].number), default="")
    after = micros(dt.datetime.fromisoformat(before)) if before else -1
    last = chosen[-1]
    known = dt.datetime.fromisoformat(last.manifest["vintage"])
    return Evidence(
        span,
        audience,
        ws.store.kind,
        made=instants,
        due=wanted,
        releases=[_release_facts(ws, r, every) for r in chosen],
        methodology=_document(last, "methodology.json"),
        indices=_document(last, "indices.json")["indices"],
        documents=[d for d in ws.store.documents(known) if d["vintage"] > after],
        findings=[f for f in ws.store.findings(known) if f["vintage"] > after],
        decisions=[one.model_dump(mode="json") for one in decisions.read(ws.store.decisions(known))],
        published=published.query(
            root / "published.db", lambda db: db.execute(_PUBLISHED, (chosen[0].number, last.number)).fetchall()
        ),
        proof=_proof(ws, last),
        others={
            what: sum(name.startswith(f"{what}/") and name.endswith(".json") for name in last.manifest["files"])
            for what in ("forecasts", "alerts")
        },
        forecasts=list(_forecasts(last)),
        **_figures(last, span),
    )


def _forecasts(last: Release) -> Iterator[dict[str, Any]]:
    """Each forecast of a release with its record: published bounds beside what happened, and the backtest."""
    names = (n for n in sorted(last.manifest["files"]) if n.startswith("forecasts/") and n.endswith(".json"))
    for name in names:
        for frequency, part in _document(last, name)["frequencies"].items():
            if part["current"]:
                told: dict[str, Any] = next((line for line in part["record"] if line["horizon"] == 1), {})
                tested = part["backtest"] or {}
                yield {
                    "id": name.removeprefix("forecasts/").removesuffix(".json"),
                    "frequency": frequency,
                    "published": part["published"],
                    "scored": told.get("forecasts", 0),
                    "covered_80": told.get("covered-80"),
                    "covered_95": told.get("covered-95"),
                    "tested_origins": tested.get("origins"),
                    "skill": (tested.get("skill") or {}).get("value"),
                    "skill_error": (tested.get("skill") or {}).get("error"),
                }


def due(expression: str, zone: str, first: dt.datetime, end: dt.datetime) -> list[str]:
    """Return every instant from ``first`` to before ``end`` at which a cron expression is due."""
    trigger, at, out, told = CronTrigger.from_crontab(expression, timezone=ZoneInfo(zone)), first, list[str](), ""
    while (found := trigger.get_next_fire_time(None, at)) is not None and found < end:
        utc, clock = found.astimezone(dt.UTC), found.strftime("%Y-%m-%d %H:%M")
        if utc < at or clock == told:  # the hour that comes twice in autumn is due once
            at += dt.timedelta(hours=1)
            continue
        out.append(iso(utc))
        at, told = utc + dt.timedelta(seconds=1), clock
    return out


def _document(made: Release, name: str) -> dict[str, Any]:
    return dict(orjson.loads((made.folder / name).read_bytes()))


def _release_facts(ws: Workspace, made: Release, every: Sequence[Release]) -> dict[str, Any]:
    manifest = made.manifest
    sources = [s for s in _document(made, "sources.json")["sources"] if s.get("data")]
    method = manifest["files"].get("methodology.toml", {}).get("sha256")
    previous = next((r for r in every if r.number == made.number - 1), None)
    chained = manifest["previous"] is None or (
        previous is not None and manifest["previous"]["sha256"] == previous.manifest_sha256
    )
    log = ws.store.decisions(dt.datetime.fromisoformat(manifest["vintage"]))
    digest = hashlib.sha256("".join(f"{line}\n" for line in log).encode()).hexdigest()
    return {
        "release": made.number,
        "released_at": manifest["released_at"],
        "decisions_match": manifest["decisions"] == {"number": len(log), "sha256": digest},
        "method": manifest["methodology"]["id"],
        "method_matches": method == manifest["methodology"]["sha256"],
        "decisions": manifest["decisions"]["number"],
        "chained": chained,
        "ages": {s["id"]: s["data"]["age_days"] for s in sources},
        "stale": sorted(s["id"] for s in sources if s["data"]["stale"]),
    }


def _proof(ws: Workspace, last: Release) -> dict[str, Any]:
    """Verify the last release, and look for the documents that it names."""
    checked = releases.verify(last.folder, ws.data / "public" / "jwks.json")
    named = {d["sha256"] for d in last.manifest["documents"] if "sha256" in d}
    return {
        "release": last.number,
        "files": checked.checked_files,
        "problems": len(checked.problems),
        "chain": len(checked.chain),
        "documents": len(named),
        "absent": sum(sha256 not in ws.archive for sha256 in named),
    }


def _figures(last: Release, span: Span) -> dict[str, list[dict[str, Any]]]:
    """Determinations, values of indices and of indicators whose periods lie in the span."""
    out: dict[str, list[dict[str, Any]]] = {"determinations": [], "index_values": [], "indicators": []}
    for name in sorted(last.manifest["files"]):
        found = _PART.fullmatch(name)
        if found is None or not span.first[:4] <= found[4] <= span.last[:4]:
            continue
        what, key, part = found[1], found[2], _document(last, name)
        head = {"of": key, "frequency": found[3]}
        if what == "prices":
            rows = [{**head, "zone": part["market"]["zone"], **d} for d in part["determinations"]]
            out["determinations"] += [r for r in rows if span.holds(r["period"])]
        elif what == "indices":
            out["index_values"] += [{**head, **v} for v in part["values"] if span.holds(v["period"])]
        else:
            every = [(leg, v) for leg, values in part["values"].items() for v in values]
            out["indicators"] += [
                {"of": key, "origin": found[3], "leg": leg, **v} for leg, v in every if span.holds(v["period"])
            ]
    return out


# ---------------------------------------------------------------------------------- assembling


def assemble(found: Evidence) -> dict[str, Any]:
    """Make the report: facts, sections of figures and tables, and the clauses; as JSON may hold it."""
    last = found.releases[-1] if found.releases else None
    sections = {
        "coverage": _coverage(found),
        "timeliness": _timeliness(found),
        "changes": _changes(found),
        "dispersion": _dispersion(found),
        "determinations": _determinations(found),
        "findings": _findings(found),
        "indicators": _indicators(found),
        "judgement": _judgement(found),
    }
    return {
        "title": TITLE,
        "from": found.span.first,
        "to": found.span.last,
        "audience": found.audience,
        "database": found.kind,
        "releases": len(found.releases),
        "as_of": {k: last[k] for k in ("release", "released_at", "method")} if last else None,
        "sections": sections,
        "clauses": clauses.judged(found.releases, found.methodology, found.proof, sections),
    }


def _section(title: str, says: str, figures: dict[str, Any], **tables: list[dict[str, Any]]) -> dict[str, Any]:
    return {"title": title, "says": says, "figures": figures, "tables": tables}


def share(part: float, whole: float) -> float | None:
    """Return a share to four places; None of nothing."""
    return round(part / whole, 4) if whole else None


def _coverage(found: Evidence) -> dict[str, Any]:
    rules = found.methodology.get("methodology", {})
    markets = {f"{m['mineral']}/{m['stage']}/{m['zone']}": m["zone"] for m in rules.get("markets", ())}
    priced: dict[str, set[tuple[str, str]]] = {"monthly": set(), "any": set()}
    for one in found.determinations:
        if one["value"] is not None:
            at = (one["of"], one["period"][:7])
            priced["any"].add(at)
            if one["frequency"] == "monthly":
                priced["monthly"].add(at)
    known = found.releases[-1]["released_at"] if found.releases else ""
    rows: list[dict[str, Any]] = []
    for month in found.span.months() if markets else ():
        for zone in sorted(set(markets.values())):
            listed = [key for key, own in markets.items() if own == zone]
            rows.append(
                {
                    "month": month,
                    "over": iso(month_end(month)) <= known,
                    "zone": zone,
                    "listed": len(listed),
                    "monthly_price": sum((key, month) in priced["monthly"] for key in listed),
                    "any_price": sum((key, month) in priced["any"] for key in listed),
                }
            )
    over = [r for r in rows if r["over"]]
    listed_over, priced_over = (sum(r[c] for r in over) for c in ("listed", "monthly_price"))
    figures = {
        "market_months_over": listed_over,
        "market_months_priced": priced_over,
        "share": share(priced_over, listed_over),
    }
    says = "Markets of the method with a price, by month and zone. A month that was not over at the release is not due."
    return _section("Coverage", says, figures, markets=rows, indices=[_index_row(i, found) for i in found.indices])


def _index_row(index: dict[str, Any], found: Evidence) -> dict[str, Any]:
    values = [v for v in found.index_values if v["of"] == index["id"] and v["value"] is not None]
    coverage = index.get("coverage") or {}
    baskets = found.methodology["methodology"]["baskets"]
    return {
        "index": index["id"],
        "published": index["published"],
        "withheld": index["withheld"],
        "own_price_markets": coverage.get("markets"),
        "own_price_weight": coverage.get("weight"),
        "needed": baskets.get(index["id"], {}).get("min_coverage"),
        "values": len(values),
        "values_with_imputed": sum(bool(v.get("imputed")) for v in values),
        "least_covered": min((v["covered"] for v in values if v.get("covered") is not None), default=None),
    }


def _timeliness(found: Evidence) -> dict[str, Any]:
    deemed = found.kind == "replayed"
    delays = [] if deemed else _delays(found.due, found.made)
    kept = [d for d in delays if d is not None]
    figures = {
        "due": None if deemed else len(delays),
        "kept": None if deemed else len(kept),
        "missed": None if deemed else len(delays) - len(kept),
        "median_delay_minutes": round(median(kept), 2) if kept else None,
        "largest_delay_minutes": max(kept, default=None),
        "stale_sources": sum(len(r["stale"]) for r in found.releases),
    }
    says = (
        "Instants of release are deemed in a replayed database; they prove nothing of timeliness."
        if deemed
        else "A due release is kept when one was made before the next was due, by the schedule of today's settings, "
        "from the first release on. Ages are in days since anything new was learnt."
    )
    names = sorted({name for r in found.releases for name in r["ages"]})
    ages = [{"release": r["release"], **{n: r["ages"].get(n) for n in names}} for r in found.releases]
    rows = [
        {
            "release": r["release"],
            "released_at": r["released_at"],
            "method": r["method"],
            "stale": ", ".join(r["stale"]),
        }
        for r in found.releases
    ]
    return _section("Timeliness", says, figures, releases=rows, ages=ages)


def _delays(due_at: Sequence[str], made: Sequence[str]) -> list[float | None]:
    """Minutes from each due instant to the release that kept it; None where none did before the next was due."""
    out: list[float | None] = []
    for at, following in zip(due_at, [*due_at, "9999"][1:], strict=True):
        first = min((m for m in made if at <= m < following), default=None)
        waited = None if first is None else dt.datetime.fromisoformat(first) - dt.datetime.fromisoformat(at)
        out.append(None if waited is None else round(waited.total_seconds() / 60, 2))
    return out


def _changes(found: Evidence) -> dict[str, Any]:
    by_source: dict[str, Counter[str]] = {}
    for document in found.documents:
        counts = by_source.setdefault(document["source"], Counter())
        counts.update({"documents": 1, **{k: document[k] for k in ("new", "revised", "withdrawn")}})
    columns = ("documents", "new", "revised", "withdrawn")
    sources: list[dict[str, Any]] = [
        {"source": n, **{c: counts[c] for c in columns}} for n, counts in sorted(by_source.items())
    ]
    names = ("kind", "new", "changed", "withdrawn")
    shown: list[dict[str, Any]] = [{n: v or 0 for n, v in zip(names, row, strict=True)} for row in found.published]
    figures = {
        "revised_by_sources": sum(r["revised"] for r in sources),
        "withdrawn_by_sources": sum(r["withdrawn"] for r in sources),
        "published_changed": sum(r["changed"] for r in shown),
        "published_withdrawn": sum(r["withdrawn"] for r in shown),
    }
    says = "What sources revised and withdrew, and how many published figures (as rounded) changed or went."
    return _section("Revisions and withdrawals", says, figures, sources=sources, published=shown)


def _dispersion(found: Evidence) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in found.determinations:
        if "contributors" in one:
            groups.setdefault((one["frequency"], one["zone"]), []).append(one)
    for (frequency, zone), members in sorted(groups.items()):
        spreads = sorted(m["spread"] for m in members if m["origins"] > 1 and m["spread"] is not None)
        dispersed = sum(m["status"] == "dispersed" for m in members)
        rows.append(
            {
                "frequency": frequency,
                "zone": zone,
                "determinations": len(members),
                "of_several_origins": len(spreads),
                "median_spread": round(median(spreads), 4) if spreads else None,
                "ninth_decile": round(quantiles(spreads, n=10, method="inclusive")[8], 4) if len(spreads) > 1 else None,
                "widest_spread": round(spreads[-1], 4) if spreads else None,
                "dispersed": dispersed,
                "share_dispersed": share(dispersed, len(members)),
            }
        )
    several, dispersed = (sum(r[c] for r in rows) for c in ("of_several_origins", "dispersed"))
    figures = {"of_several_origins": several, "dispersed": dispersed}
    says = "Spread: highest over lowest adjusted quotation, less 1. Means of days are not counted again."
    return _section("Dispersion of origins", says, figures, spreads=rows)


def _determinations(found: Evidence) -> dict[str, Any]:
    every = found.determinations
    own = [d for d in every if "contributors" in d]
    priced = [d for d in own if d["value"] is not None]
    tiers: Counter[str] = Counter()
    for one in priced:
        for row in one["contributors"]:
            tiers[row["tier"]] += row["weight"]
    excluded = Counter(row["rule"] for d in own for row in d["excluded"])
    cap = found.methodology.get("methodology", {}).get("determination", {}).get("max_weight")
    figures = {
        "determinations": len(every),
        "with_price": sum(d["value"] is not None for d in every),
        "of_own_contributors": len(own),
        "priced_of_own_contributors": len(priced),
        "records_lacking_a_field": sum(any(f not in d for f in _RECORD) for d in own),
        "means_without_records": sum("contributors" not in d and "records" not in d for d in every),
        "weights_not_summing_to_1": sum(
            abs(sum(r["weight"] for r in d["contributors"]) - 1) > 1e-9 for d in priced if d["type"] != "judged"
        ),
        "normal_without_price": sum(d["status"] == "normal" and d["value"] is None for d in every),
        "price_without_normal_status": sum(d["status"] != "normal" and d["value"] is not None for d in every),
        "judged_by_hand": sum(d.get("judgement", "none") != "none" for d in own),
        "carried": sum(d.get("carried") is not None for d in every),
        "of_one_origin": sum(d["origins"] == 1 for d in priced),
        "cap": cap,
        "above_cap": sum(d["largest_weight"] > max(cap or 1.0, 1 / (d["origins"] or 1)) + 1e-9 for d in priced),
        "largest_weight_of_several": max((d["largest_weight"] for d in priced if d["origins"] > 1), default=None),
    }
    return _section(
        "Determinations",
        "Shares are of the determinations of each frequency. Carried: days without a price that show the last one. "
        "Tiers: share of the weight in priced determinations of own contributors.",
        figures,
        types=_counted(every, "type"),
        determination_types=_counted(own, "determination_type"),
        grades=_counted([d for d in every if d["value"] is not None], "grade"),
        statuses=_counted(every, "status"),
        tiers=[{"tier": t, "share": share(w, len(priced))} for t, w in sorted(tiers.items())],
        excluded=[{"rule": rule, "n": n} for rule, n in sorted(excluded.items())],
    )


def _counted(rows: Iterable[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    counts = Counter((r["frequency"], r.get(column) or "none") for r in rows)
    of = Counter[str]()
    for (frequency, _), n in counts.items():
        of[frequency] += n
    return [{"frequency": f, column: c, "n": n, "share": share(n, of[f])} for (f, c), n in sorted(counts.items())]


def _findings(found: Evidence) -> dict[str, Any]:
    counts = Counter((f["check"], f["severity"]) for f in found.findings)
    rows = [{"check": c, "severity": s, "n": n} for (c, s), n in sorted(counts.items())]
    severities = Counter(f["severity"] for f in found.findings)
    figures = {s: severities[s] for s in ("note", "warning", "error")}
    says = "An error held its figure back; a warning flowed on and is shown; a note is for the record."
    return _section("Findings", says, figures, findings=rows)


def _indicators(found: Evidence) -> dict[str, Any]:
    counts = Counter((i["status"], i["rule"] or "none") for i in found.indicators)
    rows = [{"status": s, "rule": r, "n": n} for (s, r), n in sorted(counts.items())]
    given = sum(i["value"] is not None for i in found.indicators)
    figures = {"published": given, "withheld": len(found.indicators) - given}
    return _section("Indicators of imports", "Months of each product, origin and leg.", figures, rules=rows)


def _judgement(found: Evidence) -> dict[str, Any]:
    counts = Counter((d["kind"], d.get("reason", "none")) for d in found.decisions)
    of_span = Counter((d["kind"], d.get("reason", "none")) for d in found.decisions if found.span.holds(d["at"]))
    known = {d["number"] for d in found.decisions}
    named = {
        j["decision"] for d in found.determinations if isinstance(d.get("judgement"), list) for j in d["judgement"]
    }
    figures = {
        "decisions": found.releases[-1]["decisions"] if found.releases else None,
        "decisions_named_and_not_in_the_log": len(named - known),
        "forecast_files": found.others.get("forecasts"),
        "forecasts_of_a_model": sum(f["published"] == "model" for f in found.forecasts),
        "forecasts_scored_one_ahead": sum(f["scored"] for f in found.forecasts),
        "covered_80_one_ahead": _pooled(found.forecasts, "covered_80"),
        "covered_95_one_ahead": _pooled(found.forecasts, "covered_95"),
        "detector_files": found.others.get("alerts"),
    }
    told = [
        f"{what} is in the releases of the span."
        for what, n in (("No forecast", "forecast_files"), ("No record of a detector", "detector_files"))
        if not figures[n]
    ]
    says = " ".join([*told, "Decisions by hand are those of the log, whose hash is in the manifest."])
    rows = [{"kind": k, "reason": r, "ever": n, "in_span": of_span[k, r]} for (k, r), n in sorted(counts.items())]
    return _section("Judgement, forecasts, detectors", says, figures, decisions=rows, forecasts=found.forecasts)


def _pooled(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Share of all scored forecasts of all series."""
    scored = [(f["scored"], f[key]) for f in rows if f["scored"] and f[key] is not None]
    count = sum(n for n, _ in scored)
    return round(sum(n * share for n, share in scored) / count, 4) if count else None


# ------------------------------------------------------------------------------------ readable


def markdown(report: dict[str, Any]) -> str:
    """Write a report for readers: the content of ``assemble``, number for number."""
    as_of = report["as_of"]
    out = [
        f"# Quality report {report['from']} to {report['to']}",
        f"**{report['title']}**",
        f"{report['audience']} releases of a {report['database']} database; {report['releases']} in the span."
        + (
            f" Figures are those of release {as_of['release']} of {as_of['released_at']}, method {as_of['method']}."
            if as_of
            else " Nothing was released, so nothing is shown."
        ),
    ]
    for section in report["sections"].values():
        out += [f"## {section['title']}", section["says"]]
        out.append("\n".join(f"- {_words(k)}: {_cell(v)}" for k, v in section["figures"].items()))
        for name, rows in section["tables"].items():
            out += [f"### {_words(name).capitalize()}", _table(rows) if rows else "None."]
    out.append("## Clause by clause")
    for clause in report["clauses"]:
        lines = [f"### {clause['clause']}: {clause['verdict']}", f"{clause['asks']} ({clause['wording']})"]
        lines.append("\n".join(f"- {line}" for line in [*clause["evidence"], f"Where: {clause['where']}"]))
        out += lines
    return "\n\n".join(out) + "\n"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [list(map(_words, rows[0])), ["---"] * len(rows[0]), *([_cell(v) for v in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
