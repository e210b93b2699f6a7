"""Forecasts of very many series: on every core of one machine or on a Dask cluster, streamed, and resumable.

A journal keeps one line per series. A series whose content, settings and code are those of its line is not computed
again; a run that was cut short goes on where it stopped, and its journal ends up with the same bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import itertools
import json
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import pandas as pd

from forecasting.errors import ForecastError

Backend = Literal["loky", "dask", "serial"]
Method = Callable[..., Any]  # (y, horizon, levels, *, kind, model) -> Forecast
Document = dict[str, Any]

FIRST, MOST = 4, 128  # series to a task, doubled from task to task: few series use every core, many cost few messages
IDLE = 60.0  # seconds until a worker without work leaves: those of a run that was killed are gone soon after
AHEAD = 4  # tasks sent or waiting, per worker: all of a run that is in memory


@dataclass(frozen=True)
class Result:
    """One series of a run.

    Attributes
    ----------
    key : str
    forecast : dict or None
        The forecast as plain data: origin, horizon, mean and median (lists by horizon), bounds and quantiles (lists by
        horizon under each name or probability), model, why, benchmark. None where there is no random walk either.
    finding : str or None
        What went wrong, in words.
    reused : bool
        Taken from the journal, not computed.
    """

    key: str
    forecast: Document | None
    finding: str | None
    reused: bool


def forecast_many(
    series: Iterable[tuple[str, pd.Series]],
    horizon: int,
    levels: Sequence[float] = (80, 95),
    *,
    kind: str = "close",
    model: str | None = None,
    backend: Backend = "loky",
    workers: int | None = None,
    address: str | None = None,
    done: str | Path | None = None,
    method: Method | None = None,
) -> Iterator[Result]:
    """Forecast each of many series; results come in the order of the series.

    Only some series per worker are held in memory at any time, however many there are and however slowly results are
    taken; of the journal only keys and positions are. The last digit does not depend on backend or workers.

    Parameters
    ----------
    series : iterable of (key, Series by period)
        Read as the run goes on, in the calling thread. Each key once.
    horizon, levels, kind, model
        As of `forecasting.forecast`.
    backend : {"loky", "dask", "serial"}
        Processes of this machine with one thread each, an existing Dask cluster, or this process.
    workers : int, optional
        Processes; by default one per core that this process may use. Of a cluster, all.
    address : str, optional
        Of the Dask scheduler, such as ``tcp://10.0.0.5:8786``. Its workers have this very version installed.
    done : path, optional
        The journal. It is locked during a run.
    method : callable, optional
        In place of `forecasting.forecast`, with the same arguments; a function that a worker can import.

    Yields
    ------
    Result
        A fit that fails gives the random walk and a finding, and no more.

    Raises
    ------
    ForecastError
        When a key comes twice, the journal is in use, or the workers or the cluster are lost: what the journal holds
        is kept, and the same call goes on from there.
    """
    if backend not in get_args(Backend):
        raise ForecastError(f"backend is {backend!r}; it is one of {', '.join(get_args(Backend))}")
    if (backend == "dask") != (address is not None):
        raise ForecastError("a Dask cluster has an address, tcp://HOST:PORT, and no other backend has one")
    if workers is not None and workers < 1:
        raise ForecastError(f"workers is {workers}; at least one does the work")
    settings = {"horizon": horizon, "levels": [float(level) for level in levels], "kind": kind, "model": model}
    with _journal(done) as journal, _pool(backend, workers, address) as (submit, count):
        tasks = _tasks(series, f"{code_version()} {_name(method)} {json.dumps(settings)}")
        waiting: deque[tuple[list[_Task], Any]] = deque()
        sizes = itertools.chain((FIRST * 2**k for k in range((MOST // FIRST).bit_length() - 1)), itertools.repeat(MOST))
        while batch := list(itertools.islice(tasks, next(sizes))):
            new = [task for task in batch if not journal.has(task)]
            waiting.append((batch, submit(_work, method, settings, pickle.dumps(new)) if new else None))
            if len(waiting) > AHEAD * count:
                yield from _finished(*waiting.popleft(), journal)
        while waiting:
            yield from _finished(*waiting.popleft(), journal)


def _finished(batch: list[_Task], future: Any, journal: _Journal) -> Iterator[Result]:
    """Results of a batch, in order, once they are in the journal."""
    lines: dict[str, bytes] = {}
    if future is not None:
        try:
            lines = dict(future.result())
        except Exception as error:  # a fit that fails is a finding: what arrives here is the loss of a worker
            keys = f"{batch[0].key} to {batch[-1].key}"
            raise ForecastError(f"the workers were lost at series {keys}, run again to go on: {error!r}") from error
    journal.write([(task, lines[task.key]) for task in batch if task.key in lines])
    for task in batch:
        reused = task.key not in lines
        document = json.loads(journal.read(task) if reused else lines[task.key])
        yield Result(task.key, document["forecast"], document["finding"], reused)


# -------------------------------------------------------------------------------------- tasks


@dataclass(frozen=True, eq=False)
class _Task:
    """A series to forecast. ``content`` names it, its settings and the code: equal content, equal forecast."""

    key: str
    y: pd.Series
    content: str


def _tasks(series: Iterable[tuple[str, pd.Series]], settings: str) -> Iterator[_Task]:
    seen: set[str] = set()
    for key, y in series:
        if key in seen:
            raise ForecastError(f"series {key!r} comes twice in one run")
        if not isinstance(y, pd.Series):
            raise ForecastError(f"series {key!r} is a {type(y).__name__}; a pandas Series by period is wanted")
        seen.add(key)
        yield _Task(key, y, _content(y, settings))


def _content(y: pd.Series, settings: str) -> str:
    made = hashlib.blake2b(settings.encode(), digest_size=16)
    try:
        made.update(y.to_numpy(dtype=np.float64).tobytes())
    except (TypeError, ValueError):  # no numbers: the fit will say so
        made.update(repr(y.tolist()).encode())
    if isinstance(y.index, (pd.DatetimeIndex, pd.PeriodIndex)):
        made.update(f"{y.index.dtype}".encode() + y.index.asi8.tobytes())
    else:
        made.update("\n".join(map(str, y.index)).encode())
    return made.hexdigest()


@cache
def code_version() -> str:
    """Hash of this package and of the versions of what it computes with."""
    made = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        made.update(path.read_bytes())
    for library in ("numpy", "pandas", "scipy", "statsmodels"):
        made.update(importlib.metadata.version(library).encode())
    return made.hexdigest()


def _name(method: Method | None) -> str:
    return f"{method.__module__}.{method.__qualname__}" if method else "forecast"


def _work(method: Method | None, settings: Mapping[str, Any], batch: bytes) -> list[tuple[str, bytes]]:
    """What a worker does: key and line of each series. The batch comes pickled: a scheduler need not look into it."""
    tasks: list[_Task] = pickle.loads(batch)
    if method is None:
        from forecasting.forecaster import forecast

        method = forecast
    return [(task.key, _line(method, settings, task.y)) for task in tasks]


def _line(method: Method, settings: Mapping[str, Any], y: pd.Series) -> bytes:
    document = finding = None
    try:
        document = _document(method(y, **settings))
    except Exception as error:  # whatever a library raises: one series must not end the run
        finding = _words(error)
        try:
            document = _document(method(y, **{**settings, "model": "random-walk"}))
        except Exception as second:
            finding += "" if _words(second) == finding else f"; nor a random walk: {_words(second)}"
    return json.dumps({"finding": finding, "forecast": document}, allow_nan=False, ensure_ascii=False).encode()


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, ForecastError) else f"{type(error).__name__}: {error}"


def _document(forecast: Any) -> Document:
    figures = [forecast.mean, forecast.median, forecast.bounds, forecast.quantiles]
    if not all(np.isfinite(part.to_numpy()).all() for part in figures):
        raise ForecastError(f"{forecast.model} gave a forecast that is not finite")
    return {
        "origin": forecast.origin,
        "mean": forecast.mean.tolist(),
        "median": forecast.median.tolist(),
        "bounds": {str(name): column.tolist() for name, column in forecast.bounds.items()},
        "quantiles": {f"{node:g}": column.tolist() for node, column in forecast.quantiles.items()},
        "model": forecast.model,
        "why": forecast.why,
        "benchmark": forecast.benchmark,
    }


# ------------------------------------------------------------------------------------ workers

# Dask keeps the last 1000 messages of each connection, and ours hold series.
LOG = "distributed.admin.low-level-log-length"

# Two libraries that each start a thread per core on every process are slower than one thread, and not repeatable.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


@contextmanager
def _pool(backend: Backend, workers: int | None, address: str | None) -> Iterator[tuple[Callable[..., Any], int]]:
    """How to hand out work, and how many take it. What is handed out has ``result()``."""
    if backend == "serial":
        yield _at_once, 1
    elif backend == "loky":
        import joblib
        from joblib.externals.loky import ProcessPoolExecutor

        count = workers or joblib.cpu_count()
        pool = ProcessPoolExecutor(count, timeout=IDLE, env=ONE_THREAD)
        try:
            yield pool.submit, count
        except BaseException:
            pool.shutdown(kill_workers=True)
            raise
        pool.shutdown()
    else:
        with _client(address) as client:
            count = sum(client.ncores().values())
            if not count:
                raise ForecastError(f"the Dask cluster at {address} has no workers")
            yield partial(client.submit, pure=False), count


def _at_once(work: Callable[..., Any], *arguments: Any) -> Future[Any]:
    done: Future[Any] = Future()
    done.set_result(work(*arguments))
    return done


def _client(address: str | None) -> Any:
    try:
        import dask
        import distributed
    except ImportError as error:
        raise ForecastError("a Dask cluster needs the optional part: pip install 'lodemark[cluster]'") from error
    client: Any = distributed.Client  # which has no types
    try:
        with dask.config.set({LOG: 10}):
            return client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:  # nobody there in time, or no address at all
        raise ForecastError(f"no Dask scheduler answers at {address}: {error}") from error


# ------------------------------------------------------------------------------------ journal


@contextmanager
def _journal(path: str | Path | None) -> Iterator[_Journal]:
    """The journal at a path, locked; without a path, one that keeps nothing."""
    if path is None:
        yield _Journal()
        return
    with open(path, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ForecastError(f"{path} is in use by another run") from None
        journal = _Journal(file)
        yield journal
        journal.compact(Path(path))


class _Journal:
    """A file of lines ``key <tab> content <tab> document``; of two lines with one key the later holds."""

    def __init__(self, file: BinaryIO | None = None) -> None:
        self.file = file
        self.places: dict[str, tuple[str, int, int]] = {}  # by key: content, first byte, length
        self.size = self.used = 0
        if file is None:
            return
        file.seek(0)
        for line in file:
            if not line.endswith(b"\n"):
                file.truncate(self.size)  # torn by a kill
                break
            self._place(line)

    def has(self, task: _Task) -> bool:
        place = self.places.get(task.key)
        return place is not None and place[0] == task.content

    def read(self, task: _Task) -> bytes:
        assert self.file is not None
        _, first, length = self.places[task.key]
        self.file.seek(first)
        return self.file.read(length).split(b"\t", 2)[2]

    def write(self, lines: Iterable[tuple[_Task, bytes]]) -> None:
        """Append; whoever is killed after this has lost nothing before it."""
        if self.file is None:
            return
        for task, document in lines:
            line = b"\t".join((json.dumps(task.key).encode(), task.content.encode(), document + b"\n"))
            self.file.write(line)
            self._place(line)
        self.file.flush()

    def compact(self, path: Path) -> None:
        """Leave out lines that no longer hold, once they are more than half of the file."""
        assert self.file is not None
        if self.size > 2 * self.used:
            beside = path.with_name(path.name + ".new")
            with open(beside, "wb") as new:
                for _, first, length in self.places.values():
                    self.file.seek(first)
                    new.write(self.file.read(length))
                new.flush()
                os.fsync(new.fileno())
            beside.replace(path)

    def _place(self, line: bytes) -> None:
        fields = line.split(b"\t", 2)
        if len(fields) == 3:  # else the disk has lost it, and it is computed again
            key = json.loads(fields[0])
            self.used += len(line) - (self.places[key][2] if key in self.places else 0)
            self.places[key] = (fields[1].decode(), self.size, len(line))
        self.size += len(line)
