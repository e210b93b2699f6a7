"""A detector that goes on from where it stood, and judges each observation once.

Pure. An observation that is revised is judged again, from the past as it stands then; one that is not keeps its
verdict, whatever becomes of its past. So an alarm that was told stands until its own figure changes.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pricing.anomalies import Verdict

BACK = 20  # latest observations that are judged anew each time: most revisions come while they are among these
KEPT = 0.7  # score from which a revised observation keeps the alarm that it raised: no alarm flutters about its limit

Row = tuple[str, Mapping[str, tuple[float, ...]]]
"""A period and, by the name of the series, its value as it is judged and what else a detector asks for."""


class Detector(Protocol):
    """What judges the observations of one period from those before."""

    def update(self, day: int, values: Mapping[str, tuple[float, ...]]) -> Mapping[str, Verdict]:
        """Judge the values of one day (proleptic ordinal) by name."""

    def state(self) -> dict[str, Any]:
        """Everything that later verdicts depend on, as plain data."""


@dataclass(frozen=True)
class Watch:
    """Where a detector stands: its state after ``count`` periods, whose content has this hash."""

    content: str
    count: int
    state: dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """One observation and, where it raised an alarm, the verdict as plain data."""

    value: float
    verdict: dict[str, Any] | None = None


def day_of(period: str) -> int:
    """Ordinal of a day, or of the first day of a month."""
    return dt.date.fromisoformat(period if len(period) > 7 else f"{period}-01").toordinal()


def watch(
    rows: Sequence[Row],
    begin: Callable[[dict[str, Any] | None], Detector],
    before: Watch | None,
    known: Callable[[str], Mapping[str, Mapping[str, Judged]]],
    settings: str = "",
) -> tuple[Watch, dict[str, dict[str, Judged | None]]]:
    """Judge what is new or was revised.

    Parameters
    ----------
    rows : sequence of Row
        All periods with a value, in order.
    begin : callable
        Makes a detector, from a state where it is given one.
    before : Watch or None
        What was returned the last time.
    known : callable
        Judgements by series and period, of the periods after one.
    settings : str
        All else that verdicts follow from: where it changes, the detector is made anew.

    Returns
    -------
    watch, judged
        Where the detector stands ``BACK`` periods before the end, and what is to be stored: by series and period; None
        for an observation that is no more.
    """
    start = 0
    if before is not None and before.count <= len(rows) and content(rows[: before.count], settings) == before.content:
        start = before.count
    detector = begin(before.state if before is not None and start else None)
    last = max(start, len(rows) - BACK)
    after = rows[start - 1][0] if start else ""
    told = known(after)
    found: dict[str, dict[str, Judged | None]] = {name: dict.fromkeys(periods) for name, periods in told.items()}
    state = detector.state() if start == last else None
    for position in range(start, len(rows)):
        period, values = rows[position]
        for name, verdict in detector.update(day_of(period), values).items():
            old = told.get(name, {}).get(period)
            of_series = found.setdefault(name, {})
            if old is not None and old.value == values[name][0]:
                del of_series[period]  # it stands
            else:
                of_series[period] = _judged(values[name][0], verdict, old)
        if position + 1 == last:
            state = detector.state()
    assert state is not None
    return Watch(content(rows[:last], settings), last, state), {name: one for name, one in found.items() if one}


def _judged(value: float, verdict: Verdict, old: Judged | None) -> Judged:
    if verdict.flagged:
        return Judged(value, plain(verdict))
    if old is not None and old.verdict is not None and verdict.score >= KEPT:
        return Judged(value, plain(verdict) | {name: old.verdict[name] for name in ("check", "kind", "onset")})
    return Judged(value)


def plain(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain data, without its value; numbers to six digits."""
    return {k: _six(v) for k, v in verdict._asdict().items() if k not in ("value", "day", "flagged", "scores")}


def _six(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _six(v) for k, v in value.items()}
    return value


def content(rows: Sequence[Row], settings: str) -> str:
    """Hash of settings, periods and values."""
    text = settings + json.dumps([(period, *sorted(values.items())) for period, values in rows])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
