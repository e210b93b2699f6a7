"""Evidence on shocks: what a wrong feed does, what is found on the real daily files, and in the demonstration."""

from __future__ import annotations

import csv
import datetime as dt
import json
import math
import statistics
import tempfile
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import structlog

from benchmarks import demo, real
from benchmarks.measure import ROOT, SHARED, Line, Result
from benchmarks.wrong_feed import CASES, VERSIONS, Case, World
from pricing import anomalies, config, demonstration, pipeline
from pricing.releases import Release
from pricing.sources import demo_market
from pricing.watching import Judged, day_of

WRONG_MARKETS = 20  # simulated for each case of a wrong feed
MARKET_DAYS = 45  # of the demonstration, after its first release
AFTER = 10  # observations after an event within which an alarm is about it
DAILY = {name: real.FILES[name] for name in ("ecb", "lme", "investing", "komis", "komis-rare-earths")} | {
    "nbs": ("nbs/nbs_tenday_nonferrous_2020-2026.csv",)
}
CALENDAR = SHARED.parent / "reference" / "shock_events.csv"
OF_CALENDAR = {
    "ni_lme": "nickel/metal/XCN", "co_metal": "cobalt/metal/XCN", "li_carbonate": "lithium/chemical/CN",
    "ga_metal": "gallium/metal/CN", "ndpr_oxide": "neodymium/oxide/CN", "rare_earths": "neodymium/oxide/CN",
    "cu_lme": "copper/metal/XCN", "bi_metal": "komis-json-bismuth", "w_apt": "tungsten/chemical/XCN",
}  # fmt: skip
"""What of ours is looked at for a mineral of the calendar."""
SUBSETS = ("gallium/metal/CN", "neodymium/oxide/CN")  # KOMIS: some days only, so a delay says nothing
COLUMNS = ("found", "size", "severity", "")
RIGHT = {
    "slip": ("unit-slip", "decimal"), "stale": ("stale",), "revision": ("revis",), "drop-out": ("missing", "silent"),
}  # fmt: skip
"""Parts of the names of checks that name a fault of a contributor rightly."""
KINDS = ("price", "premium", "index", "contributor", "as quoted")
MOVES = ("announce", "trigger", "close", "shock", "session", "effective", "announce=effective", "reopen")
ELSEWHERE = ("GAGE2023A", "GA2023C", "CO2025B")  # of another place than our series


def run() -> list[Result]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    return [_wrong_feed(), *_real(), *_demo()]


# --------------------------------------------------------------------------------- a wrong feed


def _wrong_feed() -> Result:
    result = Result(
        f"One wrong feed of three for a month, {WRONG_MARKETS} made markets each",
        columns=("days outside, of", "furthest out", "index outside, furthest", "told, after days, named"),
    )
    for case in CASES:
        world = World(case, WRONG_MARKETS)
        result.lines.append(Line(f"{case.name}, {case.first} to {case.last}", ""))
        result.lines += [_of_version(world, case, name) for name in VERSIONS]
    result.notes = [
        "Outside: the price beyond the range of the two sound origins of the day, after their bases; later: what is",
        "left in the bases. Index: days to the end on which the index without the fault lies outside the interval that",
        "the published intervals of its members give the published one; largest change, and in brackets as share of",
        "the half-width that it would have without the fault: an 80 % interval. Told: wrong contributors flagged,",
        "median and most days until then; false: alarms about sound ones in the month.",
        "Half of the weight, and an origin silent on one day of ten, are shown, not aimed at.",
    ]
    return result


def _of_version(world: World, case: Case, name: str) -> Line:
    made = world.published(VERSIONS[name])
    effects, flags = world.effects(made), list(world.flags(made))

    def total(what: str) -> int:
        return sum(getattr(e, what) for e in effects)

    def largest(what: str) -> float:
        return max(float(getattr(e, what)) for e in effects)

    delays = [flag.delay for flag, _ in flags if flag is not None]
    checks = Counter(flag.check for flag, _ in flags if flag is not None)
    told = f"{len(delays)} of {len(flags)}"
    if delays:
        names = ", ".join(check for check, _ in checks.most_common())
        told += f", {statistics.median(delays):.0f} (most {max(delays)}): {names}"
    aimed = case.absent is None and "model" not in case.tiers
    return Line(
        f"  {name}",
        f"{total('outside')} of {total('days')}" + (f", {total('silent')} without" if total("silent") else ""),
        f"{largest('excursion'):.2%}; moved {largest('moved'):.2%}, later {largest('after'):.2%}",
        f"{total('index_outside')} of {total('index_days')}; {largest('index_moved'):.2%} "
        f"({largest('index_share'):.2f})",
        f"{told}; false {sum(n for _, n in flags)}",
        (total("outside") + total("silent") + total("index_outside") == 0) if aimed else None,
    )


# ------------------------------------------------------------------------------- the real files


@dataclass(frozen=True)
class Flag:
    """A run of alarms of one series.

    Attributes
    ----------
    of : str
        One of KINDS.
    change : float
        Per cent: of the move, or of the first flagged figure against the one expected.
    began : mapping of check to period
        First alarm of each check.
    """

    series: str
    of: str
    frequency: str
    flagged: str
    last: str
    checks: tuple[str, ...]
    change: float
    sigmas: float
    severity: int | None
    verdict: str
    began: tuple[tuple[str, str], ...] = ()

    def line(self, about: str = "") -> Line:
        span = self.flagged if self.flagged == self.last else f"{self.flagged} to {self.last}"
        size = f"{self.change:+.1f} %" + (f", {self.sigmas:+.1f} sigmas" if math.isfinite(self.sigmas) else "")
        level = str(self.severity) if self.severity else ""
        return Line(f"  {span}", f"{', '.join(self.checks)} ({self.verdict})", size, level, about)


@dataclass
class Told:
    """What a data folder says: flags, and the periods that each series was observed in."""

    flags: list[Flag] = field(default_factory=list)
    periods: dict[str, list[str]] = field(default_factory=dict)


def _real() -> list[Result]:
    if not SHARED.is_dir() or not CALENDAR.is_file():
        return [
            Result("Shocks on the real daily files", notes=["skipped: needs ../shared/data and ../shared/reference"])
        ]
    with tempfile.TemporaryDirectory(prefix="lodemark-bench-") as folder:
        now = lambda: dt.datetime.now(dt.UTC)  # noqa: E731
        operation = config.load_operation(ROOT / "config.toml")
        method = config.load_methodology(ROOT / "methodology")
        with pipeline.opened(Path(folder), operation, method, now) as ws:
            for name, patterns in DAILY.items():
                files = sorted(path for pattern in patterns for path in SHARED.glob(pattern))
                if wrong := [o for o in pipeline.load_files(ws, name, files, replay=True) if not o.ok]:
                    raise RuntimeError(f"{name}: {wrong[0].file}: {wrong[0].message}")
            made = pipeline.release(ws, "internal", now(), {})
            told = _told(ws, "internal", made)
            quoted = _as_quoted(ws)
    told.flags += [flag for flag in quoted.flags if flag.series == "komis-json-bismuth"]
    told.periods |= quoted.periods
    events = _events()
    about = {flag: [e for e in events if _is_about(flag, e, told)] for flag in told.flags}
    return [_calendar(events, about, told), _flags(about), _nickel(told, quoted)]


def _told(ws: pipeline.Workspace, audience: config.Audience, made: Release) -> Told:
    """Shocks of the release, and runs of alarms of contributors: from the store, as documents tell a year of them."""
    out = Told()
    folder = made.folder / "shocks"
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        for one in json.loads(path.read_bytes())["shocks"]:
            sigmas = one["sigmas"] if one["sigmas"] is not None else math.nan
            checks = tuple(c["check"] for c in one["checks"])
            out.flags.append(
                Flag(one["series"], one["of"], one["frequency"], one["flagged"], one["last"], checks,
                     one["change_percent"], sigmas, one["severity"], one["verdict"],
                     tuple((c["check"], c["period"]) for c in one["checks"]))
            )  # fmt: skip
    owner = ws.operation.source_of()
    over = ws.methodology.shocks.over if ws.methodology.shocks is not None else {}
    for (name, frequency), rows in ws.store.flagged(audience).items():
        still = {p: j for p, j in rows.items() if (j.verdict or {})["kind"] != "market"}
        judged = list(ws.store.judged(audience, name, frequency))
        out.periods[name] = sorted(judged)
        of = "contributor" if name in owner else "price"
        out.flags += list(_runs(name, of, frequency, still, out.periods[name], over[frequency]))
    for name in (one for source in ws.operation.sources.values() for one in (s.id for s in source.series)):
        out.periods.setdefault(name, [])
    for market in ws.methodology.markets:
        if market.key not in out.periods:
            found = [ws.store.judged(audience, market.key, f) for f in ("daily", "ten-day", "monthly")]
            out.periods[market.key] = sorted(next((rows for rows in found if rows), {}))
    return out


def _runs(
    name: str, of: str, frequency: str, flagged: Mapping[str, Judged], periods: Sequence[str], over: int
) -> Iterator[Flag]:
    """Alarms of one check that are at most so many observations apart, together."""
    by_check = sorted(flagged, key=lambda p: ((flagged[p].verdict or {})["check"], p))
    for check, some in groupby(by_check, key=lambda p: (flagged[p].verdict or {})["check"]):
        run: list[str] = []
        for period in [*some, ""]:
            if run and (not period or bisect_left(periods, period) - bisect_left(periods, run[-1]) > over):
                first = flagged[run[0]]
                v = first.verdict or {}
                change = 100 * math.expm1(v["change"]) if v["change"] is not None else math.nan
                sigmas = v["sigmas"] if v["sigmas"] is not None else math.nan
                yield Flag(
                    name, of, frequency, run[0], run[-1], (check,), change, sigmas, None, v["kind"], ((check, run[0]),)
                )
                run = []
            run.append(period)


def _as_quoted(ws: pipeline.Workspace) -> Told:
    """Daily series as their publisher quotes them: those that enter no figure too, and without any known status."""
    out = Told()
    rules = ws.methodology.shocks
    assert rules is not None
    for name in ("lme-nickel", "investing-nickel-futures", "investing-nickel-futures-circec", "komis-json-bismuth"):
        rows = ws.store.observations([name]).sort_values("period")
        periods, values = rows["period"].tolist(), rows["value"].tolist()
        verdicts = anomalies.judge(map(day_of, periods), values, "daily", anomalies.Alarms(**rules.false_alarms))
        flagged = {
            p: Judged(v.value, v._asdict() | {"change": v.change, "sigmas": v.sigmas})
            for p, v in zip(periods, verdicts, strict=True)
            if v.flagged
        }
        out.periods[name] = periods
        out.flags += list(_runs(name, "as quoted", "daily", flagged, periods, rules.over["daily"]))
    return out


@dataclass(frozen=True)
class Event:
    """One line of the calendar of real events, for one series of ours."""

    id: str
    series: str
    first: str
    last: str
    to_the_day: bool
    market: str
    direction: str
    aimed: bool  # a move of our series, that an alarm is due for


def _events() -> list[Event]:
    out = []
    with CALENDAR.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            for mineral in (m.partition("(")[0].strip() for m in row["mineral"].split(";")):
                if mineral in OF_CALENDAR:
                    day = row["date"] if len(row["date"]) > 7 else f"{row['date']}-01"
                    month = dt.date.fromisoformat(day[:7] + "-01") + dt.timedelta(days=32)
                    end = day if len(row["date"]) > 7 else str(month.replace(day=1) - dt.timedelta(days=1))
                    out.append(
                        Event(row["event_id"], OF_CALENDAR[mineral], day, end, row["date_precision"] == "day",
                              row["market"], row["direction"],
                              row["date_kind"] in MOVES and row["event_id"] not in ELSEWHERE)
                    )  # fmt: skip
    return sorted(out, key=lambda e: (e.series, e.first))


def _span(event: Event, periods: Sequence[str]) -> tuple[int, int]:
    """Positions of the observations that an event may be seen in, from its day on."""
    start, end = bisect_left(periods, event.first), bisect_left(periods, event.last)
    return start, min(end + AFTER, len(periods) - 1)


def _quoted_then(event: Event, periods: Sequence[str]) -> bool:
    """Whether there are observations of the event: one at most a month before it, and one at most a month after."""
    start = bisect_left(periods, event.first)
    if not 0 < start < len(periods):
        return False
    return day_of(periods[start]) - day_of(event.last) <= 31 and day_of(event.first) - day_of(periods[start - 1]) <= 31


def _is_about(flag: Flag, event: Event, told: Told) -> bool:
    periods = told.periods.get(event.series, [])
    if flag.series != event.series or flag.frequency == "monthly" or not _quoted_then(event, periods):
        return False
    first, last = _span(event, periods)
    return flag.flagged <= periods[last] and flag.last >= periods[first]


def _calendar(events: Sequence[Event], about: Mapping[Flag, Sequence[Event]], told: Told) -> Result:
    result = Result(
        f"Events of the calendar on the real daily files: an alarm within {AFTER} observations",
        columns=("found", "as", "size", "delay, observations"),
    )
    seen: list[str] = []
    for event in events:
        periods = told.periods.get(event.series, [])
        found = sorted((f for f, those in about.items() if event in those), key=lambda f: f.flagged)
        day = event.first if event.to_the_day else event.first[:7]
        what = f"{event.id} {day} {event.market} {event.direction}: {event.series}"
        if not _quoted_then(event, periods):
            result.lines.append(Line(what, "no quotation then"))
        elif not found:
            result.lines.append(Line(what, "not found", kept=False if event.aimed else None))
        else:
            since, until = (periods[at] for at in _span(event, periods))
            inside = [(p, check, f) for f in found for check, p in f.began if since <= p <= until]
            at, check, one = min(
                inside, default=(found[-1].flagged, found[-1].checks[0], found[-1]), key=lambda x: x[0]
            )
            delay = bisect_left(periods, at) - bisect_left(periods, event.first)
            said = "subset" if event.series in SUBSETS else f"{delay}" if event.to_the_day and inside else ""
            size = f"{one.change:+.1f} %" + (f", severity {one.severity}" if one.severity else "")
            how, kept = ("found", True) if inside else ("on already", None)
            seen += [how] * event.aimed
            result.lines.append(Line(what, how, f"{at} {check}", size, said, kept if event.aimed else None))
    known = [e for e in events if e.aimed and _quoted_then(e, told.periods.get(e.series, []))]
    result.notes = [
        f"Of {len(known)} moves that were quoted {seen.count('found')} are found, {seen.count('on already')} within "
        "a shock told before. Peaks, troughs, levels, moves within a day",
        "and those of another place than our series are shown without an aim. Of a subset the delay says nothing.",
        "The other minerals of the calendar have no daily series here.",
    ]
    return result


def _flags(about: Mapping[Flag, Sequence[Event]]) -> Result:
    result = Result(
        "Every flag on the real files, judged from the past only, and its event of the calendar", columns=COLUMNS
    )
    order = sorted(about, key=lambda f: (KINDS.index(f.of), f.series, f.flagged))
    for (of, series, frequency), some in groupby(order, key=lambda f: (f.of, f.series, f.frequency)):
        rows = list(some)
        result.lines.append(Line(f"{of} {series}, {frequency}: {len(rows)}", ""))
        result.lines += [flag.line(", ".join(e.id for e in about[flag])) for flag in rows]
    alone = sum(not those for those in about.values())
    result.notes = [
        f"{alone} of {len(about)} flags have no event in the calendar, which lists few. Movements of a contributor are",
        "its market's to tell: of contributors only what looks wrong or diverges is listed.",
    ]
    return result


def _nickel(told: Told, quoted: Told) -> Result:
    """The squeeze of March 2022: as released, with the statuses known, and as the files have it."""
    result = Result("Nickel, March and April 2022", columns=COLUMNS)
    for title, some in (
        ("released, voided and suspended days known", [f for f in told.flags if f.series == "nickel/metal/XCN"]),
        *((f"{name}, as in the file", [f for f in quoted.flags if f.series == name]) for name in quoted.periods
          if "nickel" in name),
    ):  # fmt: skip
        rows = [f for f in some if f.last >= "2022-03-01" and f.flagged <= "2022-04-30"]
        result.lines.append(Line(title, "" if rows else "nothing"))
        result.lines += [flag.line() for flag in sorted(rows, key=lambda f: f.flagged)]
    return result


# ------------------------------------------------------------------------------------- the demo


@dataclass(frozen=True)
class Seen:
    """A shock or a doubt of the demonstration: when it was first told, and what it is now."""

    series: str
    of: str
    market: tuple[str, ...]
    told: str
    first: str
    last: str
    what: str
    state: str
    change: float | None
    severity: int | None
    began: str


def _demo() -> list[Result]:
    days = demonstration.market_days(demonstration.FIRST_LIVE_DAY, MARKET_DAYS + 1)
    seen: dict[str, Seen] = {}
    with demo.copied() as (ws, clock):
        for number, day in enumerate(days):
            if number:
                demo.one_day(ws, clock, day)
            for one in _seen_now(ws):
                known = seen.get(one[0])
                seen[one[0]] = _first_told(one[1], known, str(day))
        findings = ws.store.findings()
        series = [m.key for m in ws.methodology.markets]
    return [_script(list(seen.values()), findings, days), _quiet(list(seen.values()), series, days)]


def _first_told(now: Seen, known: Seen | None, day: str) -> Seen:
    return replace(now, told=known.told if known else day, began=known.began if known else now.what)


def _seen_now(ws: pipeline.Workspace) -> Iterator[tuple[str, Seen]]:
    """Shocks and doubts of the last release, by what names them over releases."""
    folder = sorted((ws.root("public") / "releases").iterdir())[-1]
    for path in sorted((folder / "shocks").glob("*.json")):
        for one in json.loads(path.read_bytes())["shocks"]:
            checks = ", ".join(c["check"] for c in one["checks"])
            what = f"{checks}: {one['verdict']}, {one['certainty']}"
            yield one["id"], Seen(one["series"], one["of"], tuple(one["markets"]), "", one["flagged"], one["last"],
                                  what, one["state"], one["change_percent"], one["severity"], "")  # fmt: skip
    for one in json.loads((folder / "shocks.json").read_bytes())["doubts"]:
        name = f"{one['series']}:{one['check']}:{one['first']}"
        yield name, Seen(one["series"], "doubt", (one["market"],), "", one["first"], one["last"],
                         f"{one['check']}: {one['kind']}", "", None, None, "")  # fmt: skip


def _of_event(seen: Seen, event: demo_market.Event) -> bool:
    """Whether the script explains something that was told: a movement of the market, or the fault of a contributor."""
    begins, ends = str(event.start - dt.timedelta(days=3)), str(event.end + dt.timedelta(days=4))
    if event.contributor is not None:
        ours = seen.of == "doubt" and seen.series.startswith(f"{event.contributor}-")
        return ours and begins <= seen.last and seen.first <= ends
    # the reopening and the way back, over 40 or 200 days, are of the event too
    ends = str(event.end + dt.timedelta(days={"squeeze": 60, "control": 300}[event.kind]))
    minerals = {m.split("/")[0] for m in event.markets}
    here = seen.of == "index" or any(m.split("/")[0] in minerals for m in seen.market)
    return seen.of != "doubt" and here and begins <= seen.last and seen.first <= ends


def _script(seen: Sequence[Seen], findings: Iterable[Mapping[str, Any]], days: Sequence[dt.date]) -> Result:
    result = Result("The script of the demonstration, and what was told", columns=("told on", "as", "now", ""))
    findings = list(findings)
    for event in demo_market.EVENTS:
        if not days[0] <= event.start <= days[-1]:
            continue
        rows = [one for one in seen if _of_event(one, event) and one.last >= str(event.start)]
        of_source = [
            f for f in findings
            if event.contributor and f["source"].endswith(event.contributor)
            and f["period"] and str(event.start) <= f["period"][:10] <= str(event.end)
        ]  # fmt: skip
        if event.contributor is None:
            named = {one.market for one in rows if one.of == "price" and ": market" in one.began + one.what}
            right = named >= {(market,) for market in event.markets}
        else:
            checks = {one.what.split(":")[0] for one in rows} | {f["check"] for f in of_source}
            right = any(name in check for name in RIGHT[event.kind] for check in checks)
        who, where = event.contributor or "market", ", ".join(event.markets) or "all its markets"
        what = f"{event.name}: {who}, {where}, {event.start} to {event.end}"
        result.lines.append(Line(what, "" if rows or of_source else "nothing", kept=right))
        for (began, told, now), some in groupby(
            sorted(rows, key=lambda one: (one.began, one.told, one.state, one.what)),
            key=lambda one: (one.began, one.told, f"{one.state} {one.what}" if one.what != one.began else one.state),
        ):
            alike = list(some)
            one = alike[0]
            change = f"{one.change:+.0f} %, severity {one.severity}" if one.change is not None else ""
            many = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
            result.lines.append(Line(f"  {one.of} {one.series} {one.first}{many}", told, began, now, change))
        for (check, day), messages in _grouped(of_source).items():
            line = Line(f"  finding {check} of {event.contributor}, {len(messages)}", day, messages[0][:60])
            result.lines.append(line)
    return result


def _grouped(findings: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[str]]:
    out: dict[tuple[str, str], list[str]] = {}
    for f in findings:
        day = str(dt.datetime.fromtimestamp(f["vintage"] / 1e6, dt.UTC).date())
        out.setdefault((f["check"], day), []).append(f["message"])
    return out


def _quiet(seen: Sequence[Seen], markets: Sequence[str], days: Sequence[dt.date]) -> Result:
    """What nothing in the script explains: all of the live days, and how many a series and year over the history."""
    result = Result(
        "The demonstration, told though nothing in the script explains it", columns=("told on", "as", "now", "")
    )
    stray = [one for one in seen if not any(_of_event(one, event) for event in demo_market.EVENTS)]
    years = (days[-1] - demo_market.FIRST_DAY).days / 365.25
    live = str(days[0])
    for of in ("price", "premium", "index", "doubt"):
        some = [one for one in stray if one.of == of]
        of_price = f"{len(some) / len(markets) / years:.2f} a series and year" if of == "price" else ""
        result.lines.append(Line(f"{of}: {len(some)} in {years:.1f} years", of_price))
        for one in sorted((one for one in some if one.first >= live), key=lambda one: (one.first, one.series)):
            change = f"{one.change:+.1f} %, severity {one.severity}" if one.change is not None else ""
            result.lines.append(Line(f"  {one.series} {one.first}", one.told, one.began, one.state, change))
    counts = Counter(one.series for one in stray if one.of == "price")
    noisy = ", ".join(f"{name} {n}" for name, n in counts.most_common(5))
    silent = sum(market not in counts for market in markets)
    result.notes = [
        f"Most: {noisy}; {silent} of {len(markets)} prices never. Doubts are told of one year. The simulated prices",
        "have fat tails, and volatility that comes and goes: a shock that no script explains is not always false.",
    ]
    return result
