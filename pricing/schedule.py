"""When things happen: APScheduler jobs in one process per data folder.

Each source is collected on its publisher's clock, releases are made at the announced minute. What
was missed while nothing ran is caught up at start, in order: collections, then a release. A source
that could not be reached is tried again before its next turn.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MISSED, JobExecutionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from pricing import pipeline
from pricing.config import Audience, Methodologies, Methodology, Operation
from pricing.errors import PricingError, StoreError
from pricing.fetch import Client
from pricing.store import iso

log = structlog.get_logger()

GRACE_SECONDS = 12 * 3600  # a job this late still runs; later ones wait for their next turn
RETRY_MINUTES = 30
DELIVERY_SECONDS = 15
BACKTESTS = "0 3 1 * *"  # UTC, on the first of each month
LOOK_BACK = dt.timedelta(days=40)
WATCH_MINUTES = 10  # between two looks at what is late


@contextmanager
def only_scheduler(data: Path) -> Iterator[None]:
    """Hold the data folder's scheduler lock; the system lets go of it when the process ends.

    Raises
    ------
    StoreError
        Another scheduler runs on this folder.
    """
    data.mkdir(parents=True, exist_ok=True)
    handle = os.open(data / "scheduler.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{data}: a scheduler already runs on this folder; stop it first") from None
        yield
    finally:
        os.close(handle)


def previous_fire(expression: str, zone: str, now: dt.datetime) -> dt.datetime | None:
    """Return the last instant at or before ``now`` at which a cron expression was due."""
    trigger = CronTrigger.from_crontab(expression, timezone=ZoneInfo(zone))
    last, at = None, now - LOOK_BACK
    while at <= now:
        # in UTC: an hour that comes twice in autumn must not be found again and again
        due = trigger.get_next_fire_time(None, at)
        if due is None or due.astimezone(dt.UTC) < at or due > now:
            break
        last = due.astimezone(dt.UTC)
        at = last + dt.timedelta(seconds=1)
    return last


class Scheduler:
    """The jobs of one data folder.

    Parameters
    ----------
    data, operation, methods
        As for ``pipeline.opened``.
    now : callable
        The clock, aware UTC.
    environ : mapping
        Where the signing key may come from.
    make_client : callable
        (workspace) to the HTTP client.
    deliver : callable
        (workspace, whether to stop) sends what the outbox holds and returns in words what it did, nothing where that is
        nothing worth a line in the record; None where nobody is told of anything.
    """

    def __init__(
        self,
        data: Path,
        operation: Operation,
        methods: Methodologies | Methodology,
        now: Callable[[], dt.datetime],
        environ: Mapping[str, str],
        make_client: Callable[[pipeline.Workspace], Client],
        deliver: Callable[[pipeline.Workspace, Callable[[], bool]], str] | None = None,
    ) -> None:
        self._send = deliver
        self._data, self._operation, self._methods = data, operation, methods
        self._now, self._environ, self._make_client = now, environ, make_client
        self._pool = ThreadPoolExecutor(4)
        self._stopping = threading.Event()
        self._jobs = BackgroundScheduler(
            timezone=dt.UTC,
            executors={"default": self._pool},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": GRACE_SECONDS},
        )
        self._jobs.add_listener(_heed, EVENT_JOB_MISSED | EVENT_JOB_ERROR)

    def start(self) -> None:
        """Set all jobs up, then catch up what was missed. Returns at once; the jobs run beside."""
        for name, source in self._operation.sources.items():
            if source.schedule:
                trigger = CronTrigger.from_crontab(source.schedule, timezone=ZoneInfo(source.time_zone))
                self._add(f"collect {name}", trigger, self._collect, name)
        publish = self._operation.publish
        trigger = CronTrigger.from_crontab(publish.schedule, timezone=ZoneInfo(publish.time_zone))
        self._add("release", trigger, self._release)
        if self._operation_forecasts():
            monthly = CronTrigger.from_crontab(BACKTESTS, timezone=dt.UTC)
            self._add("backtest", monthly, self._backtest)
        self._add("watch", IntervalTrigger(minutes=WATCH_MINUTES), self._watch)
        if self._send is not None:
            every = IntervalTrigger(seconds=DELIVERY_SECONDS, timezone=dt.UTC)
            self._jobs.add_job(self._deliver, every, id="deliver", name="deliver", replace_existing=True)
        self._jobs.add_job(self._catch_up, id="catch up", name="catch up")
        self._jobs.start()

    def stop(self) -> None:
        """Let running jobs end, and start no more."""
        self._stopping.set()
        # Waiting inside the scheduler would hold its lock, which a running job needs to plan a retry.
        self._jobs.shutdown(wait=False)
        self._pool.shutdown(wait=True)

    def due(self) -> dict[str, str]:
        """When each job runs next, by job."""
        return {j.id: iso(j.next_run_time) for j in self._jobs.get_jobs() if getattr(j, "next_run_time", None)}

    def _add(self, name: str, trigger: CronTrigger, call: Callable[..., None], *args: Any) -> None:
        self._jobs.add_job(call, trigger, args=args, id=name, name=name, replace_existing=True)

    def _opened(self) -> Any:
        return pipeline.opened(
            self._data, self._operation, self._methods, self._now, environ=self._environ, stop=self._stopping
        )

    def _collect(self, name: str, release_first: bool = True) -> None:
        """Collect one source; where nothing was ever released, make the first release of what it brought."""
        if self._stopping.is_set():
            return
        first = False
        with self._opened() as ws, _recorded(ws, f"collect {name}", self._now) as told:
            (outcome,) = pipeline.collect(ws, self._make_client(ws), [name])
            if outcome.outcome == "failed":
                self._again(f"collect {name}", self._collect, name, why=outcome.message)
                told.append(f"failed: {outcome.message}")
            else:
                told.append(outcome.outcome)
                first = ws.store.last_release() is None and ws.store.last_vintage() is not None
            self._write_status(ws)
        if release_first and first:
            self._release()

    def _release(self, *audiences: Audience) -> None:
        """Make the release of each audience; those that fail, and only those, are tried again."""
        if self._stopping.is_set():
            return
        failed: dict[Audience, str] = {}
        with self._opened() as ws, _recorded(ws, "release", self._now) as told:
            for audience in audiences or self._operation.publish.audiences:
                try:
                    made = pipeline.release(ws, audience, self._now(), self._environ)
                    told.append(f"{audience} {made.number}")
                except Exception as error:  # a full disk or a locked file too: it is tried again
                    log.error("no release", audience=audience, why=str(error))
                    failed[audience] = str(error)
                    told.append(f"failed: {audience}: {error}")
            if failed:
                self._again("release", self._release, *failed, why="; ".join(failed.values()))
            self._write_status(ws)

    def _operation_forecasts(self) -> bool:
        known = self._methods
        documents = (known,) if isinstance(known, Methodology) else known.documents
        return any(one.forecasts is not None for one in documents)

    def _backtest(self) -> None:
        """Test all forecasts; in a month of review this decides what is published."""
        if self._stopping.is_set():
            return
        with self._opened() as ws, _recorded(ws, "backtest", self._now) as told:
            if ws.methodology.forecasts is None:
                return
            for audience in self._operation.publish.audiences:
                try:
                    told.append(f"{audience} {len(pipeline.backtest(ws, audience))}")
                except PricingError as error:
                    told.append(f"failed: {audience}: {error}")
                    self._again("backtest", self._backtest, why=str(error))

    def _watch(self) -> None:
        """Tell the operator what is late or stands still, though no job has failed."""
        if self._stopping.is_set():
            return
        with self._opened() as ws:
            pipeline.alert_operator(ws)
            self._write_status(ws)

    def _deliver(self) -> None:
        """Send what the outbox holds. Releases and collections may run meanwhile: they hold another lock."""
        if self._stopping.is_set() or self._send is None:
            return
        with self._opened() as ws:
            due, told = self._now(), ""
            try:
                told = self._send(ws, self._stopping.is_set)
            except Exception as error:  # a full disk, a locked file: the next round tries again
                log.exception("delivery ended by an error")
                told = f"failed: {error}"
            if told:
                run = ws.store.start_job("deliver", due, due)
                ws.store.end_job(run, self._now(), "failed" if told.startswith("failed") else "done", told)

    def _again(self, job: str, call: Callable[..., None], *args: Any, why: str) -> None:
        """Plan another try before the job's next turn."""
        if self._stopping.is_set():
            return
        at = self._now() + dt.timedelta(minutes=RETRY_MINUTES)
        self._jobs.add_job(call, "date", run_date=at, args=args, id=f"retry {job}", replace_existing=True)
        log.warning("failed, will be tried again", job=job, why=why, at=iso(at))

    def _write_status(self, ws: pipeline.Workspace) -> None:
        with pipeline.writing(self._data):
            pipeline.write_status(ws, self.due())

    def _catch_up(self) -> None:
        """Run what was due while nothing ran: collections first, then a release."""
        with self._opened() as ws:
            with pipeline.writing(self._data):
                for audience in self._operation.publish.audiences:
                    pipeline.recover(ws, audience)
            self._write_status(ws)
            missed = [
                n for n, s in self._operation.sources.items() if s.schedule and self._missed(ws, f"collect {n}", s)
            ]
            late = self._missed(ws, "release", self._operation.publish)
        for name in missed:
            if self._stopping.is_set():
                return
            self._collect(name, release_first=False)
        with self._opened() as ws:
            due = late and ws.store.last_vintage() is not None and self._missed(ws, "release", self._operation.publish)
        if due and not self._stopping.is_set():
            self._release()

    def _missed(self, ws: pipeline.Workspace, job: str, settings: Any) -> bool:
        due = previous_fire(settings.schedule, settings.time_zone, self._now())
        last = ws.store.last_run(job)
        return due is not None and (last is None or last["started_at"] < iso(due))


@contextmanager
def _recorded(ws: pipeline.Workspace, job: str, now: Callable[[], dt.datetime]) -> Iterator[list[str]]:
    """Record how a job ran; an error of ours ends the job, not the scheduler."""
    run, told = ws.store.start_job(job, now(), now()), list[str]()
    try:
        yield told
    except PricingError as error:
        log.error("job failed", job=job, why=str(error))
        ws.store.end_job(run, now(), "failed", str(error))
    except Exception as error:
        log.exception("job ended by an error that is not ours", job=job)
        ws.store.end_job(run, now(), "failed", f"ended by {error!r}; see the log")
    else:
        failed = [line for line in told if line.startswith("failed")]
        ws.store.end_job(run, now(), "failed" if failed else "done", "; ".join(told))


def _heed(event: JobExecutionEvent) -> None:
    if event.exception:
        log.error("job ended by an error", job=event.job_id, error=repr(event.exception))
    else:
        log.error("job missed its turn", job=event.job_id, due=str(event.scheduled_run_time))
