"""What a market day costs: determining prices and indices, and one further release of the demonstration."""

from __future__ import annotations

import datetime as dt
import os
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import demo
from benchmarks.measure import Line, Result, cpu_of
from pricing import cells, demonstration, figures, pipeline

DAYS = 4
ROUNDS = 3


def run() -> Result:
    made = demo.played()
    result = Result("Demonstration: five years of 29 minerals")
    result.lines = [
        Line("history loaded", f"{made.history:.2f} s", f"{made.documents} documents"),
        Line("first day collected and released", f"{made.first_release:.2f} s"),
    ]
    with demo.copied() as (ws, clock):
        clock.at = dt.datetime.combine(demonstration.FIRST_LIVE_DAY, demonstration.CLOSE)
        stage = [cpu_of(lambda: _determine(ws, clock.at)) for _ in range(ROUNDS)]
        seconds, disk = _further_days(ws, clock)
        result.lines += [
            Line("determination of all prices and indices", f"{median(stage):.2f} s", _range(stage)),
            Line("one further day collected and released", f"{median(seconds):.2f} s", _range(seconds)),
            *(Line(f"disk per further release, {name}", f"{median(sizes):,.0f} kB", _whole(sizes))
              for name, sizes in disk.items()),
            Line("disk after the first release", f"{_kilobytes(made.data):,.0f} kB"),
        ]  # fmt: skip
    result.notes = [
        f"Further days: the {DAYS} after the first. Disk counts blocks once per file, however many names it has "
        "(releases share what did not change).",
    ]
    return result


def _determine(ws: pipeline.Workspace, at: dt.datetime) -> None:
    """Read the store as of an instant and make every figure, as a release does; nothing is written."""
    eligible = figures.eligible(ws.operation, "public")
    observed = ws.store.observations(as_of=at)
    declared = {name: cells.known(ws.store, name, at) for name in sorted(eligible.customs)}
    # The stage has no public name of its own; its bases are set already, so it only computes.
    known = observed[observed["series"].isin(list(eligible.series))]
    pipeline._figures(ws, eligible, known, declared, ws.store.bases("public"), at)


def _further_days(ws: pipeline.Workspace, clock: demonstration.Clock) -> tuple[list[float], dict[str, list[float]]]:
    seconds: list[float] = []
    folders = {"all": ws.data, "of it the release's own files": ws.root("public") / "releases"}
    disk: dict[str, list[float]] = {name: [] for name in folders}
    for day in demonstration.market_days(demonstration.FIRST_LIVE_DAY, DAYS + 1)[1:]:
        before = {name: _kilobytes(folder) for name, folder in folders.items()}
        seconds.append(cpu_of(partial(demo.one_day, ws, clock, day)))
        for name, folder in folders.items():
            disk[name].append(_kilobytes(folder) - before[name])
    return seconds, disk


def _kilobytes(folder: Path) -> float:
    """Space that a folder takes, each file counted once."""
    seen = {}
    for root, _, names in os.walk(folder):
        for entry in (root, *(os.path.join(root, n) for n in names)):
            found = os.lstat(entry)
            seen[found.st_ino] = found.st_blocks * 512
    return sum(seen.values()) / 1000


def _range(values: list[float]) -> str:
    return f"{min(values):.2f}-{max(values):.2f}"


def _whole(values: list[float]) -> str:
    return f"{min(values):,.0f}-{max(values):,.0f}"
