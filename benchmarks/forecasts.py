"""What forecasts cost: one series beside statsforecast, one more observation, and ten thousand series end to end."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import psutil  # type: ignore[import-untyped]

import forecasting
from benchmarks.measure import ROOT, Line, Pairs, Result, environment, in_turn
from forecasting import runs
from forecasting.candidates import CANDIDATES, DEFAULT

SEED = 17
ROUNDS = 5
SERIES = 4  # to a round
SIZES = ((240, 12, "average"), (1000, 20, "close"))
MANY = (100, 1000, 10_000)
WORKERS = 2
# statsforecast asks for an older pandas than ours, so it lives in an environment of its own: see the Makefile.
BESIDE = Path(os.environ.get("STATSFORECAST_PYTHON", ROOT / ".venv" / "beside" / "bin" / "python"))
# As docs/operating.md advises: a short log of messages, and workers without MALLOC_TRIM_THRESHOLD_, which Dask sets.
CLUSTER = {
    runs.LOG: 10,
    "distributed.nanny.pre-spawn-environ": dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), 1),
}
AIM_ARIMA, AIM_ETS, AIM_UPDATE_MS, AIM_CLUSTER, AIM_FLAT = 0.2, 1.0, 2.0, 0.15, 0.15


def run() -> Result:
    """One series, one observation, many series."""
    result = Result("Forecasts: CPU of one thread, and end to end on two processes")
    for length, horizon, kind in SIZES:
        result.lines += _beside(length, horizon, kind)
        result.lines.append(_update(length, kind))
    result.lines += _many()
    result.notes = [
        f"One series: median of {ROUNDS} rounds of {SERIES} simulated walks, fit and 80/95 % bounds, in turn with "
        "statsforecast (season of 12) in a process of its own.",
        "Many: daily walks of 1000 observations, 20 days ahead, made as the run goes on, to a journal on disk; memory "
        "of all processes together, shared pages counted once.",
        f"Per series: CPU of all processes between two sizes over the series between them, beside {MANY[0]} to "
        f"{MANY[1]:,}; so the start of the workers stands in the line of {MANY[0]} series only.",
    ]
    return result


def walks(count: int, length: int, kind: str = "close") -> Iterator[tuple[str, pd.Series]]:
    """Simulated prices: daily closes, or the mean of 21 of them for each month."""
    frequency, days = ("D", 1) if kind == "close" else ("M", 21)
    periods = pd.period_range("2000-01-01", periods=length, freq=frequency).astype(str)
    for i in range(count):
        rng = np.random.default_rng((SEED, i))
        prices = 100 * np.exp(0.015 * rng.standard_t(5, days * length).cumsum())
        yield f"{i}", pd.Series(prices.reshape(length, -1).mean(axis=1), periods)


# --------------------------------------------------------------------------------- one series

_THEIRS = """
import sys, json, time, warnings
import numpy as np
from statsforecast.models import AutoARIMA, AutoETS
warnings.simplefilter("ignore")
for line in sys.stdin:
    name, horizon, rows = json.loads(line)
    began = time.process_time()
    for row in rows:
        model = {"AutoARIMA": AutoARIMA, "AutoETS": AutoETS}[name](season_length=12)
        model.forecast(np.array(row), horizon, level=[80, 95])
    print(time.process_time() - began, flush=True)
"""


def _beside(length: int, horizon: int, kind: str) -> list[Line]:
    series = [y for _, y in walks(SERIES, length, kind)]

    def ours() -> float:
        began = time.process_time()
        for y in series:
            forecasting.forecast(y, horizon, kind=kind)
        return time.process_time() - began

    what = f"{length} observations, {kind}"
    if not BESIDE.exists():
        ours()
        return [Line(what, f"{1e3 * median(ours() for _ in range(ROUNDS)) / SERIES:.1f} ms", f"no {BESIDE}")]
    with subprocess.Popen(
        [BESIDE, "-c", _THEIRS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment(OMP_NUM_THREADS="1", PYTHONPATH=""),
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout

        def theirs(name: str) -> Callable[[], float]:
            def measure() -> float:
                process.stdin.write(json.dumps([name, horizon, [y.tolist() for y in series]]) + "\n")
                process.stdin.flush()
                return float(process.stdout.readline())

            return measure

        lines = []
        for name, aim in (("AutoARIMA", AIM_ARIMA), ("AutoETS", AIM_ETS)):
            pairs = in_turn(ours, theirs(name), ROUNDS)
            lines.append(_line(f"{what}, beside {name}", pairs, aim))
        process.stdin.close()
    return lines


def _line(what: str, pairs: Pairs, aim: float) -> Line:
    ours, theirs = (f"{1e3 * median(seconds) / SERIES:.1f} ms" for seconds in (pairs.ours, pairs.theirs))
    return Line(what, ours, theirs, pairs.spread(), f"≤ {aim:g}", pairs.ratio <= aim)


def _update(length: int, kind: str) -> Line:
    y = next(walks(1, length, kind))[1]
    fitted = CANDIDATES[DEFAULT[kind]].fit(y.to_numpy(float))
    times = []
    for _ in range(200):
        began = time.process_time()
        fitted.extend(float(y.iloc[-1])).predict(SIZES[0][1], [0.025, 0.1, 0.5, 0.9, 0.975])
        times.append(1e3 * (time.process_time() - began))
    took = median(times)
    what = f"{length} observations, {kind}, one more and its forecast"
    return Line(what, f"{took:.2f} ms", "", "", f"≤ {AIM_UPDATE_MS:g} ms", took <= AIM_UPDATE_MS)


# -------------------------------------------------------------------------------- many series


@dataclass(frozen=True)
class Used:
    """What a run used, workers included: seconds on the clock and of CPU, and the most memory at once."""

    wall: float
    cpu: float
    peak_mb: float


def _many() -> list[Line]:
    lines: list[Line] = []
    whole: dict[str, Used] = {}
    for backend in ("loky", "dask"):
        used = [_measured(backend, count) for count in MANY]
        few, many = ((b.cpu - a.cpu) / (n - m) for (m, a), (n, b) in pairwise(zip(MANY, used, strict=True)))
        whole[backend] = used[-1]
        lines += [
            Line(f"{MANY[-1]:,} series, {backend}", f"{used[-1].wall / 60:.2f} min", f"{used[-1].peak_mb:.0f} MB"),
            Line(f"{MANY[0]} series, {backend}", f"{used[0].wall:.1f} s", f"{used[0].peak_mb:.0f} MB"),
            Line(f"per series, {MANY[1]:,} to {MANY[2]:,}, {backend}", f"{1e3 * many:.2f} ms", f"{1e3 * few:.2f} ms",
                 f"{many / few:.2f}", f"within {AIM_FLAT:.0%}", abs(many / few - 1) <= AIM_FLAT),
        ]  # fmt: skip
    for what, ratio in (
        ("time", whole["dask"].wall / whole["loky"].wall),
        ("CPU", whole["dask"].cpu / whole["loky"].cpu),
    ):
        kept = abs(ratio - 1) <= AIM_CLUSTER
        aim = f"within {AIM_CLUSTER:.0%}"
        lines.append(Line(f"a local Dask cluster over loky, {what}", "", "", f"{ratio:.2f}", aim, kept))
    return lines


def _measured(backend: str, count: int) -> Used:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.forecasts", backend, str(count), folder]
        process = psutil.Popen(command, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, _memory(process))
            time.sleep(1)  # reading it costs the kernel some milliseconds
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
        wall, cpu = json.loads(process.stdout.read())
        return Used(wall, cpu, peak)


def _memory(process: psutil.Process) -> float:
    """Of a process and its children, what two of them share counted once."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_full_info().pss
        except psutil.Error:
            continue  # it has just ended
    return total / 1e6


def _one_run(backend: str, count: int, folder: str) -> tuple[float, float]:
    """Wall and CPU seconds of a run, workers and their start included."""
    began = time.perf_counter()
    if backend == "dask":
        import dask
        from distributed import LocalCluster

        kept = {"dashboard_address": ":0", "local_directory": folder}
        dask.config.set(CLUSTER)
        with LocalCluster(n_workers=WORKERS, threads_per_worker=1, **kept) as cluster:
            _consume(count, folder, backend="dask", address=cluster.scheduler_address)
    else:
        _consume(count, folder, backend="loky", workers=WORKERS)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter() - began, sum(each.ru_utime + each.ru_stime for each in used)


def _consume(count: int, folder: str, **how: object) -> None:
    found = 0
    for result in runs.forecast_many(walks(count, 1000), 20, done=Path(folder) / "journal", **how):
        found += result.finding is None
    if found != count:
        raise RuntimeError(f"{count - found} of {count} series were not forecast: this is not the work that is meant")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_one_run(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
