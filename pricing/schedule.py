"""When things happen: APScheduler jobs in one process per data folder.

Each source is collected on its publisher's clock, releases are made at the announced minute. What
was missed while nothing ran is caught up at start, in order: collections, then a release. A source
that could not be reached is tried again before its next turn.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import os
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

from pricing import pipeline
from pricing.config import Methodology, Operation
from pricing.errors import PricingError, StoreError
from pricing.fetch import Client
from pricing.store import iso

log = structlog.get_logger()

GRACE_SECONDS = 12 * 3600  # a job this late still runs; later ones wait for their next turn
RETRY_MINUTES = 30
LOOK_BACK = dt.timedelta(days=40)


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
    due, last = trigger.get_next_fire_time(None, now - LOOK_BACK), None
    while due is not None and due <= now:
        last = due
        due = trigger.get_next_fire_time(due, due + dt.timedelta(seconds=1))
    return last


class Scheduler:
    """The jobs of one data folder.

    Parameters
    ----------
    data, operation, methodology
        As for ``pipeline.opened``.
    now : callable
        The clock, aware UTC.
    environ : mapping
        Where the signing key may come from.
    make_client : callable
        (workspace) to the HTTP client.
    """

    def __init__(
        self,
        data: Path,
        operation: Operation,
        methodology: Methodology,
        now: Callable[[], dt.datetime],
        environ: Mapping[str, str],
        make_client: Callable[[pipeline.Workspace], Client],
    ) -> None:
        self._data, self._operation, self._methodology = data, operation, methodology
        self._now, self._environ, self._make_client = now, environ, make_client
        self._jobs = BackgroundScheduler(
            timezone=dt.UTC,
            executors={"default": ThreadPoolExecutor(4)},
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
        self._jobs.add_job(self._catch_up, id="catch up", name="catch up")
        self._jobs.start()

    def stop(self) -> None:
        """Let running jobs end, and start no more."""
        self._jobs.shutdown(wait=True)

    def due(self) -> dict[str, str]:
        """When each job runs next, by job."""
        return {j.id: iso(j.next_run_time) for j in self._jobs.get_jobs() if getattr(j, "next_run_time", None)}

    def _add(self, name: str, trigger: CronTrigger, call: Callable[..., None], *args: Any) -> None:
        self._jobs.add_job(call, trigger, args=args, id=name, name=name, replace_existing=True)

    def _opened(self) -> Any:
        return pipeline.opened(self._data, self._operation, self._methodology, self._now)

    def _collect(self, name: str) -> None:
        with self._opened() as ws, _recorded(ws, f"collect {name}", self._now) as told:
            (outcome,) = pipeline.collect(ws, self._make_client(ws), [name])
            if outcome.outcome == "failed":
                again = self._now() + dt.timedelta(minutes=RETRY_MINUTES)
                self._jobs.add_job(
                    self._collect, "date", run_date=again, args=(name,), id=f"retry {name}", replace_existing=True
                )
                log.warning("source could not be reached", source=name, why=outcome.message, tried_again=iso(again))
            told.append(outcome.outcome if outcome.outcome != "failed" else f"failed: {outcome.message}")
            pipeline.write_status(ws, self.due())

    def _release(self) -> None:
        with self._opened() as ws, _recorded(ws, "release", self._now) as told:
            for audience in self._operation.publish.audiences:
                made = pipeline.release(ws, audience, self._now(), self._environ)
                told.append(f"{audience} {made.number}")
            pipeline.write_status(ws, self.due())

    def _catch_up(self) -> None:
        """Run what was due while nothing ran: collections first, then a release."""
        with self._opened() as ws:
            for audience in self._operation.publish.audiences:
                pipeline.recover(ws, audience)
            pipeline.write_status(ws, self.due())
            missed = [
                n for n, s in self._operation.sources.items() if s.schedule and self._missed(ws, f"collect {n}", s)
            ]
            publish = self._operation.publish
            late = self._missed(ws, "release", publish) or ws.store.last_release() is None
        for name in missed:
            self._collect(name)
        with self._opened() as ws:
            known = ws.store.last_vintage() is not None
        if late and known:
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
    except BaseException:
        ws.store.end_job(run, now(), "failed", "ended by an error that is not ours; see the log")
        raise
    else:
        failed = [line for line in told if line.startswith("failed")]
        ws.store.end_job(run, now(), "failed" if failed else "done", "; ".join(told))


def _heed(event: JobExecutionEvent) -> None:
    if event.exception:
        log.error("job ended by an error", job=event.job_id, error=repr(event.exception))
    else:
        log.error("job missed its turn", job=event.job_id, due=str(event.scheduled_run_time))
