"""Messages delivered per second and per CPU second to a mail server on loopback, with STARTTLS and a login."""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from benchmarks.measure import ROOT, Line, Result, serving
from pricing import charts, mail, outbox
from pricing.store import Store

sys.path.insert(0, str(ROOT / "tests" / "pricing"))

MESSAGES, SUBSCRIBERS, ROUNDS = 200, 100, 2
STORM = 500


def run() -> Result:
    import mail_server
    from misbehaving import certified

    result = Result(f"Mail: {MESSAGES} messages to {SUBSCRIBERS} subscribers")
    with tempfile.TemporaryDirectory() as folder:
        certified("localhost", Path(folder))
        png = charts.movement_chart(
            "a metal", "USD/t", [("2026-01-01", 1.0), ("2026-01-02", 2.0)], ("2026-01-01", "2026-01-02")
        )
        signed = {
            "dkim": SimpleNamespace(domain="example.org", selector="s", key_file=""),
            "environ": {mail.DKIM_KEY: _key()},
        }
        command = lambda port: [sys.executable, "-m", "benchmarks.mail", str(port), folder]  # noqa: E731
        with serving(command) as server:
            for what, other in (
                ("text and HTML", {}),
                (f"with a chart of {len(png) // 1000} kB", {"chart": lambda _: png}),
                ("with a chart, signed (DKIM, RSA 2048)", {"chart": lambda _: png, **signed}),
            ):
                seen = [_delivered(server.port, Path(folder), other) for _ in range(ROUNDS + 1)][1:]
                result.lines.append(
                    Line(
                        what,
                        f"{MESSAGES / median(w for w, _ in seen):,.0f}/s",
                        f"{MESSAGES / median(c for _, c in seen):,.0f} per CPU s",
                    )
                )
    wall, cpu, sent, rows = _storm(mail_server)
    result.lines.append(Line(f"a storm: {STORM:,} alerts × {SUBSCRIBERS}", f"{wall:.0f} s", f"{cpu:.0f} CPU s"))
    result.notes = [
        "Measured: wall clock, with the recording of each message on disk before and after it, over one connection, "
        f"median of {ROUNDS}. Beside: per CPU second of this process; the server runs in its own.",
        f"Storm: {rows:,} rows at once, ten messages an hour for each; {sent:,} messages, the rest put into digests; "
        "no server, the cost of the outbox alone.",
    ]
    return result


def _delivered(port: int, folder: Path, other: dict[str, Any]) -> tuple[float, float]:
    import mail_server

    crowd = tuple(mail_server.Subscriber(f"S{n}", f"s{n}@example.net") for n in range(SUBSCRIBERS))
    with tempfile.TemporaryDirectory() as scratch, Store(Path(scratch) / "store.db") as store:
        for n in range(MESSAGES // SUBSCRIBERS):
            mail_server.post(store, mail_server.alert(n + 1), *crowd)
        channel = mail_server.mailer(port, folder / "certificate.pem", **other)
        wall, cpu = time.monotonic(), time.process_time()
        done = outbox.deliver(store, mail_server.Alerts(), crowd, {"email": channel}, lambda: mail_server.NOW)
        assert done.sent == MESSAGES, done
        return time.monotonic() - wall, time.process_time() - cpu


class _Nowhere:
    def send(self, parcel: Any, now: Any) -> str:
        return "taken"

    def close(self) -> None:
        pass


def _storm(mail_server: Any) -> tuple[float, float, int, int]:
    """Seconds, CPU seconds and messages of one round over very many alerts, and the number of rows."""
    crowd = tuple(mail_server.Subscriber(f"S{n}", f"s{n}@example.net") for n in range(SUBSCRIBERS))
    with tempfile.TemporaryDirectory() as scratch, Store(Path(scratch) / "store.db") as store:
        with store.writing():
            for n in range(STORM):
                mail_server.post(store, mail_server.alert(n + 1, shocks=[]), *crowd, rank=1 + n % 4)
        limits = mail_server.Alerts(max_per_hour=10)
        wall, cpu = time.monotonic(), time.process_time()
        done = outbox.deliver(store, limits, crowd, {"email": _Nowhere()}, lambda: mail_server.NOW)
        assert done.sent == 10 * SUBSCRIBERS and done.held == (STORM - 10) * SUBSCRIBERS, done
        return time.monotonic() - wall, time.process_time() - cpu, done.sent, STORM * SUBSCRIBERS


def _key() -> str:
    key = rsa.generate_private_key(65537, 2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()


def _serve(port: int, folder: Path) -> None:
    """Take messages and forget them."""
    import ssl

    import mail_server

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")

    class Forgetful(list[Any]):
        def append(self, one: Any) -> None:
            pass

    mail_server.free_port = lambda: port
    with mail_server.serving(context) as server:
        server.raw = Forgetful()
        threading.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    _serve(given.port, given.folder)
