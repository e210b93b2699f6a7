"""The stages in order: what is known becomes figures, and figures a release.

collect → store → reference price → index → forecast → shocks → release → alerts. Every stage reads what the one
before it stored. The clock, the HTTP client and the folder come in from outside. ``collecting``, ``detection`` and
``duty`` are its other parts: what they offer is offered here too.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import structlog

from pricing import (
    __version__,
    causes,
    cells,
    decisions,
    detection,
    documents,
    figures,
    forecasts,
    keys,
    notice,
    published,
    releases,
    sources,
    watchlist,
)
from pricing.collecting import PAUSE_SECONDS, Outcome, collect, declared_in, series_of, take
from pricing.config import (
    Audience,
    Compute,
    Operation,
    canonical,
    methodology_bytes,
)
from pricing.detection import documents_of
from pricing.duty import alert_operator, alerts_of, cancel_alert, drafted, exercise, next_release, status, write_status
from pricing.errors import ParseError, PricingError, ReleaseError, StoreError
from pricing.judgement import Judgement
from pricing.quality import Finding
from pricing.spreads import gaps, stage_spreads
from pricing.store import Store, instant, iso, micros
from pricing.workspace import AUDIENCES, Track, Workspace, opened, untracked, writing

log = structlog.get_logger()

ALGORITHMS = {
    "units": 1,
    "reference": 2,
    "index": 2,
    "trade": 2,
    "documents": 2,
}  # raised when the figures they give change

Tested = tuple[str, str, dict[str, Any]]
"""Name, frequency and plain data of a forecast or a backtest."""
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
                learnt = declared_in(ws, name, source, raw).published or stamp
                if replay and learnt is None:
                    raise ParseError(
                        "bears no stamp, and customs months are known only weeks later: name the day it appeared "
                        "with --published"
                    )
            else:
                series = series_of(source, path.name)
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
        next_release=next_release(ws.operation, at),
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
    watched = detection.watch_all(ws, made, audience)
    shocked = detection.told(ws, watched, made, last, before, edition)
    messages, earlier = alerts_of(ws, edition, made, shocked, at)
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
    ws.store.draft_alerts(audience, number, drafted(ws, messages, at))
    done = releases.freeze(root, files, _manifest(ws, edition, eligible, register, at), key, number=number)
    listed = done.manifest["files"]
    ws.store.set_parts(audience, {n: (p, listed[n]["sha256"]) for n, p in told.fingerprints.items()})
    ws.store.add_bases(audience, bases)  # those of closed origins stand in no register
    ws.store.keep_watch(audience, watched.watches, watched.judged)
    detection.note_doubts(ws, shocked.doubts, at)
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
    for document in documents_of(made, "forecasts/"):
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


def _figures_at(ws: Workspace, audience: Audience, at: dt.datetime) -> figures.Figures:
    """Prices and indices as a release at an instant would have them, without customs."""
    eligible = figures.eligible(ws.operation, audience)
    observed, _ = _observed(ws, eligible, at)
    made, _ = _figures(ws, eligible, observed, {}, ws.store.bases(audience, at), at)
    return made


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
    made = _figures_at(ws, audience, at)
    listed = watchlist.subjects(made, ws.methodology)
    named = [one for one in listed if name in one.names]
    subject = next((one for one in named if len(one.periods[0]) == len(period)), named[0] if named else None)
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


def backtest(ws: Workspace, audience: Audience, names: Sequence[str] = (), track: Track = untracked) -> list[Tested]:
    """Test the default models of all series (or of those named) against their benchmarks, and store what follows.

    Each origin sees what releases showed then. Raises ReleaseError where nothing can be forecast.
    """
    rules, at = ws.methodology.forecasts, ws.now()
    if rules is None:
        raise ReleaseError(f"methodology {ws.methodology.id} has no table [forecasts]: nothing is forecast")
    made = _figures_at(ws, audience, at)
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


__all__ = [
    "AUDIENCES",
    "PAUSE_SECONDS",
    "Outcome",
    "PricingError",
    "Track",
    "Workspace",
    "alert_operator",
    "cancel_alert",
    "collect",
    "exercise",
    "load_files",
    "opened",
    "recover",
    "release",
    "status",
    "take",
    "untracked",
    "write_status",
    "writing",
]
