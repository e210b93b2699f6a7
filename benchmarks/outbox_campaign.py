"""Kill the worker of the outbox at random moments, and count what was lost and what was sent twice.

``python -m benchmarks.outbox_campaign --moments 100 --seed 1``

Each moment has a folder of its own with thirty messages to ten subscribers. A process delivers them to a mail server on
loopback, with STARTTLS and a login, and is ended by SIGKILL; the next one finishes. A message may arrive twice only
where the server had taken it and the worker was killed before it could write that down: then with the same Message-ID
and the same bytes, and at most one for each kill.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pricing import outbox
from pricing.store import Store

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "pricing"))

SUBSCRIBERS, ALERTS = 10, 3


@dataclass(frozen=True)
class Counts:
    """Kills, messages, and among these: ``lost``, ``doubled`` (in doubt when the kill came), ``doubled_otherwise``."""

    kills: int
    messages: int
    lost: int
    doubled: int
    doubled_otherwise: int


def campaign(moments: int, seed: int) -> Counts:
    """Kill that many workers, each at a random moment of its work."""
    import mail_server
    from misbehaving import certified

    rng = random.Random(seed)
    crowd = tuple(mail_server.Subscriber(f"S{n}", f"s{n}@example.net") for n in range(SUBSCRIBERS))
    kills = messages = lost = doubled = otherwise = 0
    with tempfile.TemporaryDirectory() as scratch:
        context, certificate = certified("localhost", Path(scratch))
        with mail_server.serving(context) as server:

            def work(folder: Path) -> None:
                with Store(folder / "store.db") as store:
                    channel = mail_server.mailer(server.port, certificate)
                    clock = lambda: mail_server.NOW + mail_server.dt.timedelta(hours=1)  # noqa: E731
                    outbox.deliver(store, mail_server.Alerts(), crowd, {"email": channel}, clock)

            whole = 0.0
            for n in range(moments + 1):
                folder = Path(scratch) / str(n)
                folder.mkdir()
                with Store(folder / "store.db") as store:
                    for number in range(ALERTS):
                        mail_server.post(store, mail_server.alert(number + 1), *crowd)
                    expected = set(mail_server.rows(store, "message_id"))
                server.raw.clear()
                if n == 0:  # undisturbed: how long it takes, and how many go
                    began = time.monotonic()
                    _killed(lambda folder=folder: work(folder), None)
                    whole = time.monotonic() - began
                else:
                    kills += _killed(lambda folder=folder: work(folder), rng.uniform(0, whole))
                    work(folder)
                arrived = Counter(server.raw)
                ids = Counter(str(m["Message-ID"]) for m in server.messages)
                messages += len(expected)
                lost += len(expected - set(ids))
                twice = [i for i, count in ids.items() if count > 1]
                harmless = len(twice) <= (n > 0) and max(ids.values()) <= 2 and len(arrived) == len(ids)
                doubled += len(twice)
                otherwise += 0 if harmless and set(ids) == expected else 1
    return Counts(kills, messages, lost, doubled, otherwise)


def _killed(work: object, seconds: float | None) -> bool:
    """Do the work in a process of its own, and kill it after some seconds; tells whether that came in time."""
    child = os.fork()
    if not child:
        code = 70
        try:
            work()  # type: ignore[operator]
            code = 0
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # it is a zombie at worst until the next line
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began = time.monotonic()
    counts = campaign(given.moments, given.seed)
    print(f"{counts} in {time.monotonic() - began:.0f} s")
    sys.exit(bool(counts.lost or counts.doubled_otherwise))


if __name__ == "__main__":
    main()
