"""What the market did, as far as one can tell: alarms of the detector into shocks, with size, severity and verdict.

Pure. ``anomalies`` judges one observation after the other and knows nothing of minerals; which series are watched, what
else moved along, whether it was the market or an error, and what became of earlier shocks is said here.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pricing.config import Watching
from pricing.figures import Figures, MarketPrices
from pricing.watching import Judged, day_of
from pricing.watchlist import PREMIUM, Subject

Document = dict[str, Any]
STILL = ("stale", "replay", "duplicate")  # checks that no movement raises: a doubt, never a shock
DOUBTFUL = ("error", "diverging sources")  # verdicts that are no news of the market
HINDSIGHT = {"daily": 10, "ten-day": 31, "monthly": 62}  # days after which a shock that is told is no news
# docs/detection.md has the whole table. Raised false alarms and recall at the budgets of the method.
MEASURED: dict[str, Any] = {
    "of": "960 labelled anomalies: 860 injected into made series, 52 in panels of several sources, 48 real events",
    "measured": "2026-11-24",
    "false_alarms": {"daily_simulated": 0.84, "daily_quiet_real": 0.40, "per": "series and year"},
    "recall": {
        "injected": {"value": 0.801, "error": 0.016},
        "real": {"value": 0.771, "error": 0.06},
        "panels": {"value": 0.923, "error": 0.036},
    },
    "recall_at_one_false_alarm": {"injected": 0.837, "real": 0.917},
    "kind_right": 0.968,
}
USUAL = 60  # latest changes that say how large a usual one is


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
    of_price = {s.name: s for s in reversed(watched) if s.kind == "price"}  # the most frequent one of each
    old: dict[tuple[str, str], list[Document]] = {}
    for one in before:
        old.setdefault((one["series"], one["frequency"]), []).append(one)
    out = []
    doubtful: dict[str, list[Document]] = {}
    for subject in sorted(watched, key=lambda s: s.kind != "price"):  # what rests on prices after them
        if subject.kind == "contributors":
            continue
        own = flagged.get(subject.key, {})
        seen = [t for t, p in enumerate(subject.periods) if p in own and (own[p].verdict or {})["check"] not in STILL]
        known = old.pop(subject.key, [])
        used: set[str] = set()
        for run in _runs(seen, rules.over[subject.frequency]):
            first, last = subject.periods[run[0]], subject.periods[run[-1]]
            within = [o for o in known if o["id"] not in used and o["flagged"] <= last and o["last"] >= first]
            within.sort(key=lambda o: "merged_into" in o)
            made = _shock(subject, run, flagged[subject.key], figures, of_price, rules, forecasts, vintage)
            if subject.kind == "price" and made["verdict"] in DOUBTFUL:
                doubtful.setdefault(subject.name, []).append(made)
            elif subject.kind != "price":
                made |= _resting(made, subject, doubtful)
            made = _with_history(made, within[0] if within else None, number, vintage)
            out += [made, *(_merged(one, made["id"], number, vintage) for one in within[1:])]
            used |= {one["id"] for one in within}
        out += [_gone(one, subject, number, vintage) for one in known if one["id"] not in used]
    shown = {*figures.prices, *figures.baskets, *(f"{PREMIUM}{product}" for product in figures.gaps)}
    # What is watched no more is over; what this audience is shown no more is not told of.
    out += [_ended(one, number, vintage) for rest in old.values() for one in rest if one["series"] in shown]
    out.sort(key=lambda one: (one["flagged"], one["id"]))
    _common(out, rules)
    return Told(out, list(_doubts(watched, flagged, rules)))


def _runs(seen: Iterable[int], over: int) -> list[list[int]]:
    """Positions of alarms, those together that are at most so many observations apart."""
    runs: list[list[int]] = []
    for t in seen:
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
    recent = is_news(subject.frequency, periods[-1], dt.date.fromisoformat(vintage[:10]))
    open_ = recent and len(periods) - 1 - run[-1] < rules.over[subject.frequency]
    along = _corroboration(subject, periods[base], periods[peak], change, figures, of_price, rules.along)
    checks: dict[str, Document] = {}
    for t, verdict in zip(run, verdicts, strict=True):
        checks.setdefault(
            verdict["check"],
            {"check": verdict["check"], "period": periods[t], "score": verdict["score"], "p_value": verdict["p_value"]},
        )
    stood = len(periods) - start >= rules.persisted and _stands(values, base, start, change, rules.along)
    kind, judged_as, certainty = _verdict(first["kind"], along, stood)
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
        "verdict": judged_as,
        "certainty": certainty,
        "corroboration": along,
        "grade": subject.grades.get(periods[run[0]]),
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

    The standard deviation is 1.2533 times the mean absolute change, as of normal ones, so one wild price says little.
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
    if kind == "data" and not along["markets_along"] and len(along["origins_along"]) < 2:
        return "data", "error", "likely"
    if along["origins_still"] and not along["origins_along"]:
        return "divergence", "diverging sources", "possible"  # who quotes has changed, not what they quote
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
    with_: list[str] = []
    against: list[str] = []
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
    ends = [int(np.searchsorted(periods, f"{p}-99", side="right")) - 1 for p in (base, peak)]  # days of a month too
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
        if one["origin"] < period and one.get("unit") == subject.unit:
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
        day = dt.date.fromisoformat(vintage[:10])
        age, late = (day - _end(made["flagged"])).days, not is_news(made["frequency"], made["flagged"], day)
        made |= {"told_in": number, "age_days": None if late else age, "hindsight": late}
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
    if made["corroboration"].get("in_doubt"):
        parts.append(f"it rests on {', '.join(made['corroboration']['in_doubt'])}, which is in doubt")
    if made["corroboration"]["markets_against"]:
        parts.append(f"{', '.join(made['corroboration']['markets_against'])} moved the other way")
    return "; ".join(parts) or "nothing beside it tells"


def _resting(made: Document, subject: Subject, doubtful: Mapping[str, Sequence[Document]]) -> Document:
    """Doubt a move of a premium or an index that rests on doubtful prices alone."""
    under = {
        name
        for name in subject.markets
        if any(s["onset"] <= made["last"] and made["onset"] <= s["last"] for s in doubtful.get(name, ()))
    }
    along = made["corroboration"]["markets_along"]
    sound = [name for name in along if name not in under]
    if not under or (subject.kind == "index" and sound):
        return {"corroboration": made["corroboration"] | {"markets_along": sound}} if under else {}
    told = {"kind": "data", "verdict": "error", "certainty": "possible"}
    return told | {"corroboration": made["corroboration"] | {"markets_along": sound, "in_doubt": sorted(under)}}


def _merged(one: Document, into: str, number: int, vintage: str) -> Document:
    """A shock that has grown together with an earlier one of its series."""
    if one["state"] == "withdrawn" or one.get("merged_into") == into:
        return one
    return _ended(one, number, vintage, f"is one with {into}") | {"merged_into": into}


def _ended(one: Document, number: int, vintage: str, why: str = "its series is not watched any more") -> Document:
    """A shock that is over for another reason than that it became quiet."""
    if one["state"] != "open":
        return one
    told = {"state": "over", **{k: one[k] for k in ("verdict", "certainty", "severity")}}
    line = {"release": number, "vintage": vintage, **told, "why": why}
    return one | {"state": "over", "now": None, "event": None, "history": [*one["history"], line]}


def _gone(one: Document, subject: Subject, number: int, vintage: str) -> Document:
    """A shock whose alarm is no more: its figure was revised, voided or corrected."""
    if one["state"] == "withdrawn":
        return one
    now = dict(zip(subject.periods, subject.values.tolist(), strict=True)).get(one["flagged"])
    what = f"is {now:g} {subject.unit} now" if now is not None else "has no observed value any more"
    told = {"state": "withdrawn", "verdict": "error", "certainty": "observed", "severity": one["severity"]}
    why = f"{one['flagged']} {what}; it was flagged at {one['to']['value']:g}"
    line = {"release": number, "vintage": vintage, **told, "why": why}
    return one | told | {"kind": "data", "now": None, "event": None, "history": [*one["history"], line]}


def _common(shocks: Sequence[Document], rules: Watching) -> None:
    """Name an event where several minerals were shocked within few days: by the first of its members."""
    at = [s for s in shocks if s["of"] == "price" and s["frequency"] == "daily" and s["verdict"] != "error"]
    at = [s for s in at if s["state"] != "withdrawn"]
    start = 0
    while start < len(at):
        end = start + 1
        while end < len(at) and _days(at[start]["flagged"], at[end]["flagged"]) <= rules.common_days:
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
    """Weekdays from one day to another."""
    return int(np.busday_count(first, second))


def _doubts(
    watched: Sequence[Subject], flagged: Mapping[tuple[str, str], Mapping[str, Judged]], rules: Watching
) -> Iterator[Document]:
    """Runs of alarms of one kind, of single contributors and of prices that stand still."""
    for subject in watched:
        units = subject.units
        for name in subject.names:
            rows = flagged.get((name, subject.frequency), {})
            own = [p for p, values in subject.rows if name in values] if rows else []
            checks = {one.verdict["check"] for one in rows.values() if one.verdict is not None}
            for check in sorted(c for c in checks if subject.kind == "contributors" or c in STILL):
                seen = [t for t, p in enumerate(own) if p in rows and (rows[p].verdict or {})["check"] == check]
                for run in _runs(seen, rules.over[subject.frequency]):
                    first = rows[own[run[0]]]
                    verdict = first.verdict or {}
                    if verdict["kind"] != "market":
                        yield {
                            "series": name,
                            "market": subject.markets[0],
                            "frequency": subject.frequency,
                            "check": check,
                            "kind": verdict["kind"],
                            "first": own[run[0]],
                            "last": own[run[-1]],
                            "observations": len(run),
                            "value": first.value,
                            "unit": units.get(name, subject.unit),
                            "score": max((rows[own[t]].verdict or {})["score"] for t in run),
                            "expected": verdict["expected"],
                            "undone": verdict["undone"],
                        }


def _six(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def is_news(frequency: str, period: str, today: dt.date) -> bool:
    """Whether a period is so recent that what is said of it is news."""
    return (today - _end(period)).days <= HINDSIGHT[frequency]


def in_words(doubt: Mapping[str, Any]) -> str:
    """What is doubtful about the figures of a contributor."""
    if doubt["check"] in STILL:
        return f"{doubt['value']:g} {doubt['unit']} again and again ({doubt['check']})"
    undone = f"; without the slip it would be {doubt['undone']:g}" if doubt["undone"] is not None else ""
    what = "looks wrong" if doubt["kind"] == "data" else "stands apart from the other contributors"
    return f"{doubt['value']:g} {doubt['unit']} {what} ({doubt['check']}), {doubt['expected']:g} expected{undone}"


def record(shocks: Iterable[Document]) -> Document:
    """The detector's live record: what became of the shocks that were told when they were new."""
    live = [s for s in shocks if not s["hindsight"]]
    counts = {name: sum(s["verdict"] == verdict and s["state"] != "withdrawn" for s in live)
              for name, verdict in (("market", "market"), ("unsettled", "unsettled"),
                                    ("diverging", "diverging sources"), ("error", "error"))}  # fmt: skip
    return {"told": len(live), **counts, "withdrawn": sum(s["state"] == "withdrawn" for s in live)}
