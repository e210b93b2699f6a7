"""The demonstration's data folder, made once for the benchmarks that need a market."""

from __future__ import annotations

import atexit
import datetime as dt
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import structlog

from benchmarks.measure import ROOT, cpu_of
from pricing import config, demonstration, pipeline


@dataclass(frozen=True)
class Played:
    """What building the demonstration took. Times in CPU seconds."""

    data: Path
    documents: int
    history: float
    first_release: float


def _clock() -> demonstration.Clock:
    return demonstration.Clock(dt.datetime.combine(demonstration.FIRST_LIVE_DAY, demonstration.CLOSE))


@contextmanager
def workspace(data: Path, clock: demonstration.Clock) -> Iterator[pipeline.Workspace]:
    method = config.load_methodology(ROOT / "methodology" / "demo")
    with pipeline.opened(data, demonstration.operation(data), method, clock, simulated=True) as ws:
        yield ws


def one_day(ws: pipeline.Workspace, clock: demonstration.Clock, day: dt.date) -> None:
    """Collect and release one market day."""
    demonstration.collect_day(ws, clock, day)
    demonstration.release_day(ws, clock, day, os.environ)


@cache
def played() -> Played:
    """Build the five years and the first release. The folder goes when the process ends."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    data = Path(tempfile.mkdtemp(prefix="lodemark-bench-"))
    atexit.register(shutil.rmtree, data, ignore_errors=True)
    clock, loaded = _clock(), []
    with workspace(data, clock) as ws:
        history = cpu_of(lambda: loaded.append(demonstration.build_history(ws)))
        release = cpu_of(lambda: one_day(ws, clock, demonstration.FIRST_LIVE_DAY))
    return Played(data, loaded[0], history, release)


@contextmanager
def copied() -> Iterator[tuple[pipeline.Workspace, demonstration.Clock]]:
    """A copy of it that may be written to; hard links between its releases are kept as such."""
    with tempfile.TemporaryDirectory(prefix="lodemark-bench-") as scratch:
        data = Path(scratch) / "data"
        _copy(played().data, data)
        clock = _clock()
        with workspace(data, clock) as ws:
            yield ws, clock


def _copy(source: Path, target: Path) -> None:
    seen: dict[int, Path] = {}

    def copy(a: str, b: str) -> str:
        inode = os.stat(a).st_ino
        if inode in seen:
            os.link(seen[inode], b)
        else:
            shutil.copy2(a, b)
            seen[inode] = Path(b)
        return b

    shutil.copytree(source, target, copy_function=copy)
