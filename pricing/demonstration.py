"""The demonstration: a simulated market, its history and two live months, through the real pipeline."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from pricing import pipeline, releases
from pricing.config import Compute, Operation, Publish
from pricing.sources import demo, demo_customs

log = structlog.get_logger()

FIRST_LIVE_DAY = dt.date(2026, 1, 1)
CLOSE = dt.time(16, 0, tzinfo=dt.UTC)  # when the simulated market's day is collected and released


class Clock:
    """The simulated clock. It stands still between market days."""

    def __init__(self, start: dt.datetime) -> None:
        self.at = start

    def __call__(self) -> dt.datetime:
        """Return the simulated instant."""
        return self.at


def operation(data: Path, closed: frozenset[str] = frozenset()) -> Operation:
    """Settings of the demonstration: simulated sources only."""
    publish = Publish(
        title="Lodemark demonstration", schedule="0 16 * * mon-fri", contact="nobody: these prices are simulated"
    )
    sources = demo.sources(closed) | demo_customs.sources()
    return Operation(data=data, publish=publish, compute=Compute(workers=2), sources=sources)


def history() -> list[demo.DemoDocument]:
    """All documents of the years before the first live day, oldest first."""
    until = FIRST_LIVE_DAY - dt.timedelta(days=1)
    return sorted([*demo.history(until), *demo_customs.history(until)], key=lambda document: document.published)


def market_days(first: dt.date, count: int) -> list[dt.date]:
    """The next weekdays from a day on."""
    days: list[dt.date] = []
    day = first
    while len(days) < count:
        if day.weekday() < 5:
            days.append(day)
        day += dt.timedelta(days=1)
    return days


def build_history(ws: pipeline.Workspace, track: pipeline.Track = pipeline.untracked) -> int:
    """Load the simulated years before the first live day, as they were learnt. Returns documents loaded."""
    loaded = 0
    with pipeline.writing(ws.data):
        for document in track(history(), "simulated history"):
            loaded += _take(ws, document).outcome == "new"
    return loaded


def collect_day(ws: pipeline.Workspace, clock: Clock, day: dt.date) -> list[pipeline.Outcome]:
    """Collect what the simulated contributors and customs offices published on a market day."""
    clock.at = dt.datetime.combine(day, CLOSE) - dt.timedelta(minutes=30)
    with pipeline.writing(ws.data):
        out = [_take(ws, document, clock.at) for document in (*demo.documents(day), *demo_customs.documents(day))]
    pipeline.write_status(ws)
    return out


def release_day(ws: pipeline.Workspace, clock: Clock, day: dt.date, environ: Mapping[str, str]) -> releases.Release:
    """Make the release of a market day, at its close."""
    clock.at = dt.datetime.combine(day, CLOSE)
    made = pipeline.release(ws, "public", clock.at, environ)
    pipeline.write_status(ws)
    return made


def backtest_evening(ws: pipeline.Workspace, clock: Clock, track: pipeline.Track = pipeline.untracked) -> list[Any]:
    """Backtest all forecasts in the evening of a market day; returns what was tested."""
    clock.at += dt.timedelta(hours=1)
    return pipeline.backtest(ws, "public", (), track)


def _take(ws: pipeline.Workspace, document: demo.DemoDocument, at: dt.datetime | None = None) -> pipeline.Outcome:
    when = at or dt.datetime.combine(document.published, dt.time.max, tzinfo=dt.UTC)
    return pipeline.take(ws, document.source, document.raw, when, document.name)
