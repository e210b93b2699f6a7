"""One data folder and the settings it is used with; who writes holds its lock."""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pricing.archive import Archive
from pricing.config import (
    Audience,
    Code,
    Methodologies,
    Methodology,
    Operation,
    Source,
)
from pricing.errors import StoreError
from pricing.store import Store

AUDIENCES: tuple[Audience, ...] = ("public", "internal")
LOCK_SECONDS = 60.0

Track = Callable[[list[Any], str], Iterable[Any]]


def untracked(items: list[Any], what: str) -> Iterable[Any]:
    """Walk through items without showing progress."""
    return items


@dataclass(frozen=True)
class Workspace:
    """One data folder, with everything that the stages are given.

    Attributes
    ----------
    data : Path
        ``store.db``, ``documents/``, ``public/``, ``internal/``, ``keys/``, ``status.json``.
    methods : Methodologies
        All documents of the method.
    methodology : Methodology
        The one in force: by the clock when the folder was opened; within a release, at its instant.
    now : callable
        The clock. Aware UTC.
    """

    data: Path
    operation: Operation
    methods: Methodologies
    methodology: Methodology
    store: Store
    archive: Archive
    now: Callable[[], dt.datetime]
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    sleep: Callable[[float], object] = time.sleep
    stopping: Callable[[], bool] = lambda: False

    @property
    def simulated(self) -> bool:
        """Whether this folder holds simulated prices."""
        return self.store.kind == "simulated"

    def codes(self, source: Source) -> tuple[Code, ...]:
        """Tariff codes that a customs source counts by."""
        assert source.customs is not None
        return tuple(c for c in self.methodology.codes if c.system == source.customs.system)

    def root(self, audience: Audience) -> Path:
        """Folder of one audience's releases."""
        return self.data / audience


@contextmanager
def opened(
    data: Path,
    operation: Operation,
    methods: Methodologies | Methodology,
    now: Callable[[], dt.datetime],
    *,
    simulated: bool | None = False,
    environ: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Workspace]:
    """Open (or make) a data folder; ``simulated=None`` opens either kind, for looking only.

    ``methods`` are all documents of the method, or the one that governs all days.

    Raises StoreError when it holds prices of the other kind.
    """
    data.mkdir(parents=True, exist_ok=True)
    kind: Literal["live", "simulated"] | None = None if simulated is None else "simulated" if simulated else "live"
    known = Methodologies((methods,)) if isinstance(methods, Methodology) else methods
    method = known.in_force(now().astimezone(dt.UTC).date())
    with Store(data / "store.db", kind) as store:
        archive = Archive(data / "documents")
        ws = Workspace(data, operation, known, method, store, archive, now, environ or {})
        yield ws if stop is None else replace(ws, sleep=stop.wait, stopping=stop.is_set)


@contextmanager
def writing(data: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the data folder for one writer, waiting a while for another to finish.

    Raises
    ------
    StoreError
        When the other one does not finish in time.
    """
    handle = os.open(data / "writer.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"{data}: another lodemark process is writing; try again when it is done"
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)
