"""What a publisher usually does: which periods come, how late, and how its figures are revised.

Pure. Findings are for the record or shown; none but an ancient period holds a figure back. A habit is what was seen
before, never what comes after; where too little was seen, a stated limit stands in.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pricing.checks import Line
from pricing.config import Frequency, Series
from pricing.quality import Finding, Severity

Days = npt.NDArray[np.int64]

SANE = "1800"  # no series of these minerals begins earlier
LONELY = 2  # figures that stand alone …
FAR = 20 * 365  # … so many days before all others of their series are a mistyped year
USUAL_GAP: dict[Frequency, int] = {"daily": 5, "weekly": 8, "ten-day": 11, "monthly": 31, "annual": 366}
"""Longest days from one period to the next where nothing is missing; five are Easter and Christmas."""
REMEMBERED: dict[Frequency, int] = {"daily": 250, "weekly": 52, "ten-day": 36, "monthly": 24, "annual": 10}
"""Gaps before, the longest of which is a habit."""
SHOWN = 10  # gaps that a finding lists
BACKLOG = 3  # a document with more new periods of a series says nothing of how late they came
PUNCTUAL = 6  # periods whose delay was seen, for a habit
OWN, OFFICES = 5, 10  # earlier revisions of the series, else of the source, for a habit
MOST = 0.95  # of them lie within the habit: one that was itself mistaken must not widen it
BEYOND = 2.0  # factor beyond that
LARGE, LEAST_LARGE = np.log1p(0.05), np.log1p(0.005)  # beyond habit where there is none; and never below
OLD = 3.0 * 366  # days of age that are beyond habit where there is none, and never fewer


def days(periods: Sequence[str]) -> Days:
    """First day of each ISO period (``2026``, ``2026-11``, ``2026-11-20``), counted from 1970."""
    return np.array([(p + "-01-01")[:10] for p in periods], dtype="datetime64[D]").astype(np.int64)


# ------------------------------------------------------------------------------------------ periods


def ancient(lines: Sequence[Line]) -> Iterator[Finding]:
    """Find figures of a period before any sane one, or that stand alone long before all others of their series."""
    for line in lines:
        if not line.fresh[: LONELY + 1].any():
            continue
        n = len(line.periods)
        gaps = np.diff(days(line.periods[: LONELY + 1]))
        alone = max((k + 1 for k in range(len(gaps)) if gaps[k] > FAR and n - k > LONELY + 1), default=0)
        for t, period in enumerate(line.periods):
            if t >= alone and period >= SANE:
                break
            if line.fresh[t] and not line.settled[t]:
                value = float(line.values[t])
                beside = line.periods[alone] if t < alone else SANE
                message = f"{line.series.id} {period}: {value:g} is of a period long before {beside}"
                evidence = {"value": value, "first": beside, "undone": None}
                yield Finding("ancient-period", "error", message, line.series.id, period, evidence)


def gaps(lines: Sequence[Line]) -> Iterator[Finding]:
    """Find periods that are left out before ones that a document brings, beyond what the series left out before.

    Series that leave the same ones out share a finding: it is the publisher who was silent. What fills in before known
    periods leaves nothing out.
    """
    silent: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        apart = np.diff(days(line.periods))
        later = np.array(line.periods) > _last(line, ~np.isnan(line.old))
        wide = (line.fresh & later)[1:] & (apart > USUAL_GAP[line.series.frequency])
        if wide.any():
            width = REMEMBERED[line.series.frequency]
            before = pd.Series(apart).rolling(width, min_periods=1).max().shift(1).fillna(0).to_numpy()
            spans = [
                f"{line.periods[k]}..{line.periods[k + 1]}" for k in np.flatnonzero(wide & (apart > before)).tolist()
            ]
            if spans:
                silent.setdefault(tuple(spans), []).append(line)
    for left_out, group in silent.items():
        spans = list(left_out)
        names = [line.series.id for line in group]
        more = f" and {len(spans) - 3} times before" if len(spans) > 3 else ""
        message = f"{', '.join(names)}: nothing between {', '.join(spans[-3:])}{more}, longer than ever before"
        evidence = {"series": names, "gaps": spans[-SHOWN:], "count": len(spans), "undone": None}
        severity: Severity = "note" if all(line.is_new for line in group) else "warning"
        one = names[0] if len(names) == 1 else None
        yield Finding("missing-period", severity, message, one, spans[-1].partition("..")[2], evidence)


def left_behind(lines: Sequence[Line]) -> Iterator[Finding]:
    """Find series that ended with the others of their document until now, and that its newest period leaves out."""
    by_frequency: dict[str, list[Line]] = {}
    for line in lines:
        by_frequency.setdefault(line.series.frequency, []).append(line)
    for frequency, group in by_frequency.items():
        had = {line.series.id: _last(line, ~np.isnan(line.old)) for line in group}
        has = {line.series.id: line.periods[-1] for line in group if line.periods}
        before, now = max(had.values(), default=""), max(has.values(), default="")
        together = [name for name, last in had.items() if last and last == before]
        present = [name for name in together if has[name] == now]
        if now <= before or len(present) <= len(together) / 2:
            continue
        for name in together:
            if has[name] < now:
                message = (
                    f"{name}: no figure for {now}, which {len(present)} other {frequency} series of the document have"
                )
                evidence = {"last": has[name], "others": len(present), "undone": None}
                yield Finding("missing-period", "warning", message, name, now, evidence)


def _last(line: Line, where: npt.NDArray[np.bool_]) -> str:
    at = np.flatnonzero(where)
    return line.periods[int(at[-1])] if len(at) else ""


def overdue(learnt: pd.DataFrame, series: dict[str, Series], today: dt.date) -> Iterator[Finding]:
    """Find series whose next period should be here, by how late those before it came.

    Due is a period when the longest gap between two periods and the longest delay, of those remembered, have passed
    since the last one. Periods that came in one document with many others say nothing of delays.

    Parameters
    ----------
    learnt : DataFrame
        Columns ``series, period, day`` (the date on which the period was first known).
    """
    for name, rows in learnt.groupby("series", sort=True):
        one = series[str(name)]
        rows = rows.sort_values("period").tail(REMEMBERED[one.frequency])
        begins = days(rows["period"].tolist())
        came = np.array(rows["day"].tolist(), dtype="datetime64[D]").astype(np.int64)
        together = pd.Series(came).groupby(came).transform("size").to_numpy()
        delays = (came - begins)[together <= BACKLOG]
        if len(delays) < PUNCTUAL or len(begins) < 2:
            continue
        gap = max(int(np.diff(begins).max()), USUAL_GAP[one.frequency])
        due = int(begins[-1]) + gap + int(delays.max()) + 1
        late = (today - dt.date(1970, 1, 1)).days - due
        if late > 0:
            last, day = str(rows["period"].iloc[-1]), dt.date(1970, 1, 1) + dt.timedelta(days=due)
            message = f"{name}: nothing after {last}; the next one was due by {day}, as {len(delays)} before it came"
            evidence = {"last": last, "due": day.isoformat(), "days_late": late, "undone": None}
            yield Finding("overdue", "warning", message, str(name), last, evidence)


# ---------------------------------------------------------------------------------------- revisions


def revisions(told: pd.DataFrame, fresh: npt.NDArray[np.bool_]) -> list[Finding]:
    """Judge the revisions of one document against the earlier ones of its series and of its source.

    Parameters
    ----------
    told : DataFrame
        Every revision of the source's series: ``series, period, old, new, vintage`` (microseconds since 1970).
    fresh : bool array
        Those that the document made; the others are the habit.

    Returns
    -------
    list of Finding
        At most one for each series, with the number of its revisions, the largest and the oldest.
    """
    rows = told.assign(
        size=np.abs(np.log(told["new"] / told["old"])),
        age=(told["vintage"] // 86_400_000_000) - days(told["period"].tolist()),
    )
    before, now = rows[~fresh], rows[fresh]
    out = []
    for name, mine in now.groupby("series", sort=True):
        own = before[before["series"] == name]
        habit = own if len(own) >= OWN else before if len(before) >= OFFICES else None
        most, oldest, words = LARGE, OLD, "where no habit is known"
        if habit is not None:
            most = max(BEYOND * float(habit["size"].quantile(MOST)), LEAST_LARGE)
            oldest = max(BEYOND * float(habit["age"].quantile(MOST)), OLD)
            words = f"beyond {len(habit)} before of the {'series' if habit is own else 'source'}"
        large, deep = int((mine["size"] > most).sum()), int((mine["age"] > oldest).sum())
        if large or deep:
            out.append(_revised(str(name), mine, (large, most), (deep, int(oldest)), words))
    return out


def _revised(name: str, mine: pd.DataFrame, large: tuple[int, float], deep: tuple[int, int], words: str) -> Finding:
    worst = mine.iloc[int(mine["size"].to_numpy().argmax())]
    eldest = mine.iloc[int(mine["age"].to_numpy().argmax())]
    shown = worst if large[0] else eldest
    parts = []
    if large[0]:
        change = f"{worst['period']} from {worst['old']:g} to {worst['new']:g}"
        parts.append(f"{large[0]} by more than {np.expm1(large[1]):.2%} ({change})")
    if deep[0]:
        parts.append(f"{deep[0]} of figures older than {deep[1]} days (back to {eldest['period']})")
    evidence: dict[str, Any] = {
        "old": float(shown["old"]), "new": float(shown["new"]), "undone": float(shown["old"]), "count": len(mine),
        "large": large[0], "largest": float(np.expm1(worst["size"])), "limit": float(np.expm1(large[1])),
        "deep": deep[0], "oldest_days": int(eldest["age"]), "limit_days": deep[1],
    }  # fmt: skip
    message = f"{name}: of {len(mine)} revisions {' and '.join(parts)}, {words}"
    return Finding("revision", "warning", message, name, str(shown["period"]), evidence)
