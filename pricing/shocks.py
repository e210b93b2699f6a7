"""What the market did, as far as one can tell: alarms of the detector into shocks, with size, severity and verdict.

Pure. ``anomalies`` judges one observation after the other and knows nothing of minerals; which series are watched, what
else moved along, whether it was the market or an error, and what became of earlier shocks is said here.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pricing.anomalies import Alarms, Stream
from pricing.config import Methodology, Watching
from pricing.corroboration import Panel
from pricing.figures import Figures, MarketPrices
from pricing.index import Index
from pricing.reference import OBSERVED
from pricing.watching import Detector, Judged, Row, day_of

Kind = Literal["price", "premium", "index", "contributors"]
Document = dict[str, Any]
PREMIUM = "premium/"  # before the product, in the name of the series of China's price over the one outside
PANEL = "contributors/"
STILL = ("stale", "replay", "duplicate")  # checks that no movement raises: a doubt, never a shock
HINDSIGHT = {"daily": 10, "ten-day": 31, "monthly": 62}  # days after which a shock that is told is no news
MEASURED: dict[str, Any] = {}
USUAL = 60  # latest changes that say how large a usual one is


@dataclass(frozen=True)
class Subject:
    """A series that is watched.

    Attributes
    ----------
    name : str
        ``mineral/stage/zone``, ``premium/mineral/stage``, the id of an index, or ``contributors/mineral/stage/zone``.
    rows : sequence of Row
        Observed values by period; what was estimated, voided or suspended is not among them. Of a premium China's
        price over the one outside, as a ratio.
    unit : str
    markets : tuple of str
        What it is of; of an index its members.
    """

    name: str
    kind: Kind
    frequency: str
    rows: Sequence[Row]
    unit: str
    markets: tuple[str, ...]
    grade: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Name and frequency."""
        return self.name, self.frequency

    @cached_property
    def names(self) -> list[str]:
        """Names of the series that are judged: of contributors one for each."""
        return [self.name] if self.kind != "contributors" else sorted({n for _, values in self.rows for n in values})

    @cached_property
    def periods(self) -> list[str]:
        """Periods with a value, in order."""
        return [period for period, _ in self.rows]

    @cached_property
    def values(self) -> npt.NDArray[np.float64]:
        """Values of a single series, by position in ``periods``."""
        return np.array([values[self.name] for _, values in self.rows])

    def detector(self, alarms: Mapping[str, float]) -> Callable[[dict[str, Any] | None], Detector]:
        """How a detector of this series is made, from a state where there is one."""
        wanted = Alarms(**alarms)
        if self.kind == "contributors":
            return lambda state: Panel(self.frequency, wanted) if state is None else Panel.from_state(state)
        return lambda state: _Single(
            self.name, Stream(self.frequency, wanted) if state is None else Stream.from_state(state)
        )


@dataclass
class _Single:
    """A detector of one series, asked as one of several is."""

    name: str
    stream: Stream

    def update(self, day: int, values: Mapping[str, float]) -> Mapping[str, Any]:
        return {self.name: self.stream.update(day, values[self.name])}

    def state(self) -> dict[str, Any]:
        return self.stream.state()


# ------------------------------------------------------------------------------ what is watched


def subjects(figures: Figures, methodology: Methodology) -> list[Subject]:
    """List what is watched: reference prices, their contributors, premiums and indices, at each frequency.

    A price is watched at the rhythm at which it is determined: months that are means of days are not watched once more.
    """
    out: list[Subject] = []
    for key, market in figures.prices.items():
        out += _of_market(key, market)
    for product, gap in figures.gaps.items():
        frequency = next((f for f in ("daily", "ten-day", "monthly") if f in gap.frames), None)
        if frequency is not None:
            frame = gap.frames[frequency]
            ratio = (frame["china"] / frame["other"]).where(frame["net"].notna())
            rows = _rows(f"{PREMIUM}{product}", ratio.index.tolist(), ratio.to_numpy(dtype="float64"))
            unit = "ratio of China's price to the one outside"
            out.append(Subject(f"{PREMIUM}{product}", "premium", frequency, rows, unit, (gap.china, gap.other)))
    for name, basket in figures.baskets.items():
        frequency = next((f for f in ("daily", "monthly") if f in basket.indices), None)
        if frequency is not None:
            index = basket.indices[frequency]
            series = index.frame["unrounded"].where(index.frame["status"] != "estimated")
            rows = _rows(name, series.index.tolist(), series.to_numpy(dtype="float64"))
            unit = f"index, {methodology.baskets[name].base_period} = 100"
            out.append(Subject(name, "index", frequency, rows, unit, _members(index)))
    return [one for one in out if one.rows]


def _members(index: Index) -> tuple[str, ...]:
    return tuple(str(m) for m in index.weights.columns)


def _of_market(key: str, market: MarketPrices) -> Iterator[Subject]:
    watched = False
    for frequency in ("daily", "ten-day", "monthly"):
        frame = market.frame(frequency)
        if frame.empty or watched:
            continue
        observed = frame["unrounded"].where(frame["type"].isin(OBSERVED)).to_numpy(dtype="float64")
        rows = _rows(key, frame.index.tolist(), observed)
        if not rows:
            continue
        grade = str(frame["grade"].iloc[-1] or "")
        yield Subject(key, "price", frequency, rows, market.market.unit, (key,), grade)
        watched = True
        made = market.made(frequency)
        if made is not None:
            q = made.quotes
            numbers = np.where(q.out, np.nan, q.numbers)
            names, periods = [s.id for s in q.series], q.usd_per_t.index.tolist()
            several = [
                (p, {n: v for n, v in zip(names, row, strict=True) if math.isfinite(v)})
                for p, row in zip(periods, numbers.tolist(), strict=True)
            ]
            panel = [row for row in several if row[1]]
            yield Subject(f"{PANEL}{key}", "contributors", frequency, panel, market.market.unit, (key,))


def _rows(name: str, periods: Sequence[str], values: npt.NDArray[np.float64]) -> list[Row]:
    pairs = zip(periods, values.tolist(), strict=True)
    return [(period, {name: value}) for period, value in pairs if math.isfinite(value)]


# -------------------------------------------------------------------------------------- shocks


@dataclass(frozen=True)
class Told:
    """What a release says of shocks, and what its operator should see.

    Attributes
    ----------
    shocks : list of dict
        Every shock, open, over or withdrawn, oldest alarm first.
    doubts : list of dict
        Single contributors whose figures look wrong or stand apart: ``series, period, check, kind …``.
    """

    shocks: list[Document] = field(default_factory=list)
    doubts: list[Document] = field(default_factory=list)

    def of(self, name: str) -> list[Document]:
        """Shocks of one series, oldest first."""
        return self._by_series.get(name, [])

    def by_period(self, name: str, frequency: str, periods: Iterable[str]) -> dict[str, list[str]]:
        """Ids of the shocks of one series by the periods from their onset to their last alarm."""
        out: dict[str, list[str]] = {}
        spans = [s for s in self.of(name) if s["frequency"] == frequency]
        for period in periods if spans else ():
            if ids := [s["id"] for s in spans if s["onset"] <= period <= s["last"]]:
                out[period] = ids
        return out

    @cached_property
    def _by_series(self) -> dict[str, list[Document]]:
        out: dict[str, list[Document]] = {}
        for one in self.shocks:
            out.setdefault(one["series"], []).append(one)
        return out


SUMMARY = ("id", "state", "verdict", "certainty", "severity", "direction", "change_percent", "onset", "flagged", "last")


def of_series(told: Told, name: str, released_at: str) -> list[Document]:
    """Name the shocks of one series for its own document: those that are open or had an alarm during the last year."""
    since = a_year_before(released_at)
    recent = [s for s in told.of(name) if s["state"] == "open" or s["last"] >= since[: len(s["last"])]]
    return [{k: one[k] for k in SUMMARY} for one in recent]


def a_year_before(released_at: str) -> str:
    """ISO day 366 days before an instant."""
    return (dt.date.fromisoformat(released_at[:10]) - dt.timedelta(days=366)).isoformat()


def tell(
    watched: Sequence[Subject],
    flagged: Mapping[tuple[str, str], Mapping[str, Judged]],
    before: Iterable[Document],
    figures: Figures,
    rules: Watching,
    forecasts: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
    number: int,
    vintage: str,
) -> Told:
    """Put alarms together into shocks, and say of each how large it is, what moved along, and what it may be.

    A shock that an earlier release told keeps its id. One whose alarm is gone, since the figure that raised it was
    revised, voided or corrected, is withdrawn and stays on the list. A verdict that changes is added to its history.

    Parameters
    ----------
    flagged : mapping of (series, frequency) to the observations that raised an alarm, by period
    before : iterable of dict
        Shocks as the last release told them.
    forecasts : mapping of (name, frequency) to the forecasts published earlier
    number, vintage
        Of the release that is made.
    """
    of_price = {s.name: s for s in watched if s.kind == "price"}
    old: dict[tuple[str, str], list[Document]] = {}
    for one in before:
        old.setdefault((one["series"], one["frequency"]), []).append(one)
    out = []
    for subject in watched:
        if subject.kind == "contributors":
            continue
        own = flagged.get(subject.key, {})
        seen = [p for p in subject.periods if p in own and (own[p].verdict or {})["check"] not in STILL]
        known = [one for one in old.pop(subject.key, []) if one["state"] != "withdrawn" or _same(one, subject)]
        used: set[str] = set()
        for run in _episodes(subject, seen, rules.over[subject.frequency]):
            first, last = subject.periods[run[0]], subject.periods[run[-1]]
            same = next((o for o in known if o["id"] not in used and o["flagged"] <= last and o["last"] >= first), None)
            made = _shock(subject, run, flagged[subject.key], figures, of_price, rules, forecasts, vintage)
            used.add(same["id"] if same else "")
            out.append(_with_history(made, same, number, vintage))
        out += [_gone(one, subject, number) for one in known if one["id"] not in used]
    out += [one for rest in old.values() for one in rest]  # no longer watched: as they were told last
    out.sort(key=lambda one: (one["flagged"], one["id"]))
    _common(out, rules)
    return Told(out, list(_doubts(watched, flagged)))


def _same(one: Document, subject: Subject) -> bool:
    return one["series"] == subject.name


def _episodes(subject: Subject, seen: Sequence[str], over: int) -> list[list[int]]:
    """Positions of alarms, those together that are at most so many observations apart."""
    position = {p: t for t, p in enumerate(subject.periods)}
    runs: list[list[int]] = []
    for t in (position[p] for p in seen):
        if runs and t - runs[-1][-1] <= over:
            runs[-1].append(t)
        else:
            runs.append([t])
    return runs


def _shock(
    subject: Subject,
    run: Sequence[int],
    flagged: Mapping[str, Judged],
    figures: Figures,
    of_price: Mapping[str, Subject],
    rules: Watching,
    forecasts: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
    vintage: str,
) -> Document:
    periods, values = subject.periods, subject.values
    verdicts = [flagged[periods[t]].verdict or {} for t in run]
    first = verdicts[0]
    start = min(_position(periods, first.get("onset"), run[0]), run[0])
    base = max(start - 1, 0)
    span = np.abs(np.log(values[start : run[-1] + 1] / values[base])) if values[base] > 0 else np.zeros(1)
    peak = start + int(np.argmax(span))
    change = math.log(values[peak] / values[base]) if min(values[peak], values[base]) > 0 else 0.0
    sigmas = _sigmas(values, base, change, peak - base)
    percent = 100 * math.expm1(change)
    open_ = len(periods) - 1 - run[-1] < rules.over[subject.frequency]
    along = _corroboration(subject, periods[base], periods[peak], change, figures, of_price, rules.along)
    checks: dict[str, Document] = {}
    for t, verdict in zip(run, verdicts, strict=True):
        checks.setdefault(
            verdict["check"],
            {"check": verdict["check"], "period": periods[t], "score": verdict["score"], "p_value": verdict["p_value"]},
        )
    stood = len(periods) - start >= rules.persisted and _stands(values, base, start, change, rules.along)
    kind, verdict, certainty = _verdict(first["kind"], along, stood)
    return {
        "id": f"{subject.name}:{subject.frequency}:{periods[run[0]]}",
        "series": subject.name,
        "of": subject.kind,
        "minerals": sorted({m.split("/")[0] for m in subject.markets}) if subject.kind != "index" else [],
        "markets": list(subject.markets) if subject.kind != "index" else [],
        "frequency": subject.frequency,
        "product": "shock" if subject.frequency == "daily" else "monthly movement",
        "kind": kind,
        "checks": list(checks.values()),
        "direction": "up" if change > 0 else "down",
        "onset": periods[start],
        "flagged": periods[run[0]],
        "last": periods[run[-1]],
        "observations": run[-1] - start + 1,
        "unit": subject.unit,
        "from": {"period": periods[base], "value": float(values[base])},
        "to": {"period": periods[peak], "value": float(values[peak])},
        "now": {"period": periods[-1], "value": float(values[-1])} if open_ else None,
        "change_percent": _six(percent),
        "sigmas": _six(sigmas),
        "expected": _expected(subject, periods[run[0]], forecasts, first),
        "severity": _severity(abs(percent), abs(sigmas), rules),
        "state": "open" if open_ else "over",
        "verdict": verdict,
        "certainty": certainty,
        "corroboration": along,
        "grade": subject.grade or None,
        "event": None,
        "learnt_at": vintage,
    }


def _position(periods: Sequence[str], onset: Any, default: int) -> int:
    """Position of an onset, given as ordinal of a day."""
    if onset is None:
        return default
    return next((t for t in range(default, -1, -1) if day_of(periods[t]) <= int(onset)), default)


def _sigmas(values: npt.NDArray[np.float64], base: int, change: float, steps: int) -> float:
    """Size of a move in standard deviations of one over as many periods, by the latest changes before it.

    The standard deviation is 1.2533 times the mean absolute change (normal changes), so that one wild price says little.
    """
    before = values[max(0, base - USUAL) : base + 1]
    changes = np.abs(np.diff(np.log(before[before > 0])))
    usual = 1.2533 * float(changes.mean()) if len(changes) >= 10 else math.nan
    return change / (usual * math.sqrt(max(steps, 1))) if usual > 0 else math.nan


def _severity(percent: float, sigmas: float, rules: Watching) -> int:
    """The highest level whose both sizes are reached; 1 at least. A size that is not known counts as reached."""
    reached = [percent >= s.percent and not sigmas < s.sigmas for s in rules.severity]
    return max((n for n, hit in enumerate(reached, start=1) if hit), default=1)


def _stands(values: npt.NDArray[np.float64], base: int, start: int, change: float, share: float) -> bool:
    """Whether most observations since the onset keep to a share of the move."""
    moved = np.log(np.maximum(values[start:], 1e-300) / values[base]) * math.copysign(1, change)
    return bool(np.mean(moved >= share * abs(change)) > 0.5)


def _verdict(kind: str, along: Document, stood: bool) -> tuple[str, str, str]:
    """Kind, verdict and how sure it is (possible, likely, observed; of an error likely)."""
    if kind == "data" and not along["markets_along"] and len(along["origins_along"]) < 2 and not stood:
        return "data", "error", "likely"
    if len(along["origins_still"]) > len(along["origins_along"]) > 0 and not along["markets_along"]:
        return "divergence", "diverging sources", "possible"
    if len(along["origins_along"]) >= 2 or (along["markets_along"] and (along["origins_along"] or stood)):
        return "market", "market", "observed"
    if along["markets_along"] or stood:
        return "market", "market", "likely"
    return "market", "unsettled", "possible"


def _corroboration(
    subject: Subject,
    base: str,
    peak: str,
    change: float,
    figures: Figures,
    of_price: Mapping[str, Subject],
    share: float,
) -> Document:
    """Which independent origins and which related markets moved along by a share of the move, and which did not.

    Related are other zones and stages of the mineral; of an index, its members.
    """
    along: list[str] = []
    still: list[str] = []
    if subject.kind == "price":
        moved = _origins(figures.prices[subject.name], subject.frequency, base, peak)
        along = sorted(o for o, m in moved.items() if m * math.copysign(1, change) >= share * abs(change))
        still = sorted(o for o in moved if o not in along)
    minerals = {m.split("/")[0] for m in subject.markets}
    related = subject.markets if subject.kind == "index" else [
        m for m in of_price if m.split("/")[0] in minerals and m not in subject.markets
    ]  # fmt: skip
    with_, against = [], []
    for name in related:
        other = of_price.get(name)
        move = _move(other, base, peak) if other is not None else None
        if move is not None and abs(move) >= share * abs(change):
            (with_ if move * change > 0 else against).append(name)
    return {
        "origins_along": along,
        "origins_still": still,
        "markets_along": sorted(with_),
        "markets_against": sorted(against),
    }


def _move(subject: Subject, base: str, peak: str) -> float | None:
    """Log change of a series from its last value up to one period to its last up to another; None where unknown."""
    periods, values = subject.periods, subject.values
    ends = [int(np.searchsorted(periods, p, side="right")) - 1 for p in (base, peak)]
    if ends[0] < 0 or ends[1] <= ends[0] or min(values[ends[0]], values[ends[1]]) <= 0:
        return None
    return math.log(values[ends[1]] / values[ends[0]])


def _origins(market: MarketPrices, frequency: str, base: str, peak: str) -> dict[str, float]:
    """Log change of each origin that quoted after one period and up to another, against its last quotation before."""
    made = market.made(frequency)
    if made is None:
        return {}
    q = made.quotes
    periods = q.usd_per_t.index
    first, last = (int(periods.searchsorted(p, side="right")) for p in (base, peak))
    out: dict[str, float] = {}
    for column, series in enumerate(q.series):
        numbers = np.where(q.out[:, column] | ~(q.numbers[:, column] > 0), np.nan, q.numbers[:, column])
        earlier, later = numbers[:first], numbers[first:last]
        earlier, later = earlier[~np.isnan(earlier)], later[~np.isnan(later)]
        if len(earlier) and len(later):
            out[series.origin] = math.log(later[-1] / earlier[-1])
    return out


def _expected(
    subject: Subject,
    period: str,
    forecasts: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
    verdict: Mapping[str, Any],
) -> Document:
    """What was expected of a period: by the last forecast published before it, else by the detector."""
    for one in reversed(forecasts.get(subject.key, ())):
        if one["origin"] < period:
            row = next((r for r in one["horizons"] if r["period"] == period), None)
            if row is not None:
                bounds = {k: v for k, v in row.items() if k.startswith(("lo-", "hi-"))}
                return {"by": "forecast", "release": one["release"], "median": row["median"], **bounds}
    return {"by": "detector", "median": verdict.get("expected")}


# --------------------------------------------------------------------------- what was told before


def _with_history(made: Document, old: Document | None, number: int, vintage: str) -> Document:
    """Keep id, event and first telling of a shock that was told before; add what changed to its history."""
    history = list(old["history"]) if old else []
    if old:
        made |= {k: old[k] for k in ("id", "learnt_at", "told_in", "age_days", "hindsight")}
        made["severity_most"] = max(old["severity_most"], made["severity"])
    else:
        age = (dt.date.fromisoformat(vintage[:10]) - _end(made["flagged"])).days
        made |= {"told_in": number, "age_days": age, "hindsight": age > HINDSIGHT[made["frequency"]]}
        made["severity_most"] = made["severity"]
    told = {k: made[k] for k in ("state", "verdict", "certainty", "severity")}
    if not history or {k: history[-1][k] for k in told} != told:
        history.append({"release": number, "vintage": vintage, **told, "why": _why(made)})
    return made | {"history": history}


def _why(made: Document) -> str:
    """The reasons of a verdict, in words."""
    along, still = made["corroboration"]["origins_along"], made["corroboration"]["origins_still"]
    parts = []
    if along or still:
        parts.append(f"{len(along)} of {len(along) + len(still)} origins moved along")
    if made["corroboration"]["markets_along"]:
        parts.append(f"so did {', '.join(made['corroboration']['markets_along'])}")
    if made["corroboration"]["markets_against"]:
        parts.append(f"{', '.join(made['corroboration']['markets_against'])} moved the other way")
    return "; ".join(parts) or "nothing beside it tells"


def _gone(one: Document, subject: Subject, number: int) -> Document:
    """A shock whose alarm is no more: its figure was revised, voided or corrected."""
    if one["state"] == "withdrawn":
        return one
    now = dict(zip(subject.periods, subject.values.tolist(), strict=True)).get(one["flagged"])
    what = f"is {now:g} {subject.unit} now" if now is not None else "has no observed value any more"
    told = {"state": "withdrawn", "verdict": "error", "certainty": "observed", "severity": one["severity"]}
    why = f"{one['flagged']} {what}; it was flagged at {one['to']['value']:g}"
    line = {"release": number, "vintage": None, **told, "why": why}
    return one | told | {"kind": "data", "now": None, "event": None, "history": [*one["history"], line]}


def _common(shocks: Sequence[Document], rules: Watching) -> None:
    """Name an event where several minerals were shocked within few days: by the first of its members."""
    at = [s for s in shocks if s["of"] == "price" and s["frequency"] == "daily" and s["verdict"] != "error"]
    at = [s for s in at if s["state"] != "withdrawn"]
    start = 0
    while start < len(at):
        end = start + 1
        while end < len(at) and _days(at[end - 1]["flagged"], at[end]["flagged"]) <= rules.common_days:
            end += 1
        members = at[start:end]
        if len({m for s in members for m in s["minerals"]}) >= rules.common_minerals:
            for member in members:
                member["event"] = f"event:{members[0]['id']}"
        start = end


def _end(period: str) -> dt.date:
    """Last day of a day or a month."""
    if len(period) > 7:
        return dt.date.fromisoformat(period)
    year, month = int(period[:4]), int(period[5:7])
    return dt.date(year + month // 12, month % 12 + 1, 1) - dt.timedelta(days=1)


def _days(first: str, second: str) -> int:
    return (dt.date.fromisoformat(second) - dt.date.fromisoformat(first)).days


def _doubts(watched: Sequence[Subject], flagged: Mapping[tuple[str, str], Mapping[str, Judged]]) -> Iterator[Document]:
    """Alarms of single contributors."""
    for subject in watched:
        if subject.kind != "contributors":
            continue
        for name in subject.names:
            for period, one in sorted(flagged.get((name, subject.frequency), {}).items()):
                if one.verdict is not None and one.verdict["kind"] in ("data", "divergence"):
                    yield {"series": name, "market": subject.markets[0], "period": period, "value": one.value,
                           "unit": subject.unit, **one.verdict}  # fmt: skip


def _six(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def in_words(doubt: Mapping[str, Any]) -> str:
    """What is doubtful about a contributor's figure."""
    expected = f", {doubt['expected']:g} expected" if doubt["expected"] is not None else ""
    undone = f"; without the slip it would be {doubt['undone']:g}" if doubt["undone"] is not None else ""
    what = "looks wrong" if doubt["kind"] == "data" else "stands apart from the other contributors"
    return f"{doubt['value']:g} {doubt['unit']} {what} ({doubt['check']}){expected}{undone}"


def record(shocks: Iterable[Document]) -> Document:
    """The detector's live record: what became of the shocks that were told when they were new."""
    live = [s for s in shocks if not s["hindsight"]]
    counts = {name: sum(s["verdict"] == verdict and s["state"] != "withdrawn" for s in live)
              for name, verdict in (("market", "market"), ("unsettled", "unsettled"),
                                    ("diverging", "diverging sources"), ("error", "error"))}  # fmt: skip
    return {"told": len(live), **counts, "withdrawn": sum(s["state"] == "withdrawn" for s in live)}
