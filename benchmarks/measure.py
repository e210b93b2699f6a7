"""What every benchmark needs: CPU seconds of processes, pairs measured side by side, and their table."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"


@dataclass(frozen=True)
class Line:
    """One measurement. ``kept`` tells whether the aim was reached, None where there is no aim."""

    what: str
    measured: str
    beside: str = ""
    ratio: str = ""
    aim: str = ""
    kept: bool | None = None


@dataclass
class Result:
    """What one benchmark found, and in ``notes`` what exactly was compared. ``columns`` head the four of each line."""

    title: str
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    columns: Sequence[str] = ("measured", "beside", "ratio (min-max)", "aim")

    def show(self, console: Console) -> None:
        table = Table(title=self.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        table.add_column("")
        for name in self.columns:
            table.add_column(name, justify="right")
        table.add_column("")
        for line in self.lines:
            verdict = "" if line.kept is None else "met" if line.kept else "MISSED"
            table.add_row(line.what, line.measured, line.beside, line.ratio, line.aim, verdict)
        console.print(table)
        for note in self.notes:
            console.print(f"  {note}", style="dim", highlight=False)
        console.print()


@dataclass(frozen=True)
class Pairs:
    """CPU seconds of two things, measured in turn: A B A B …"""

    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs, pair by pair: what disturbs the machine for a while disturbs both."""
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def spread(self, *, inverse: bool = False) -> str:
        ratios = sorted(1 / r for r in self.ratios) if inverse else sorted(self.ratios)
        return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"


def in_turn(ours: Callable[[], float], theirs: Callable[[], float], times: int) -> Pairs:
    """Measure two things in turn, after one unmeasured round of each."""
    ours(), theirs()
    seen = [(ours(), theirs()) for _ in range(times)]
    return Pairs([a for a, _ in seen], [b for _, b in seen])


def cpu_of(work: Callable[[], object]) -> float:
    """CPU seconds that a call takes in this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def environment(**more: str) -> dict[str, str]:
    """Environment of a measured process: as an operator's, with bytecode kept."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")}
    return {**env, "PYTHONPATH": str(ROOT), **more}


# ------------------------------------------------------------------------------------ commands

# A process counts the memory of whoever forked it as its own peak: so a small one does the forking.
_ACCOUNT = """
import json, os, sys
out, command = sys.argv[1], sys.argv[2:]
pid = os.spawnv(os.P_NOWAIT, command[0], command)
_, status, used = os.wait4(pid, 0)
json.dump([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss], open(out, "w"))
"""


@dataclass(frozen=True)
class Account:
    """What a command used."""

    cpu: float  # seconds, user and system, children included
    wall: float  # seconds
    peak_mb: float  # largest resident size


def account(command: Sequence[str | Path], **env: str) -> Account:
    """Run a command to its end and return what it used. Raises RuntimeError with its words when it fails."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "used.json"
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-S", "-c", _ACCOUNT, str(out), *map(str, command)],
            env=environment(**env), cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        wall = time.monotonic() - began
        code, cpu, peak_kb = json.loads(out.read_text()) if done.returncode == 0 else (done.returncode, 0.0, 0)
    if code != 0:
        words = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {code}: {words}")
    return Account(cpu, wall, peak_kb * 1024 / 1e6)


# ------------------------------------------------------------------------------------- servers


@dataclass(frozen=True)
class Server:
    """A running server process, with its children."""

    process: psutil.Process
    port: int

    def _all(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def cpu(self) -> float:
        """CPU seconds of the whole tree so far, user and system."""
        return float(sum(t.user + t.system for t in (p.cpu_times() for p in self._all())))

    def memory_mb(self) -> float:
        """Resident size of the largest process of the tree."""
        return float(max(p.memory_info().rss for p in self._all())) / 1e6


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@contextmanager
def serving(command: Callable[[int], Sequence[str | Path]], **env: str) -> Iterator[Server]:
    """Run a server on a free port until the block ends. ``command`` is given the port."""
    port = free_port()
    with tempfile.TemporaryFile() as log:
        process = psutil.Popen(
            [str(c) for c in command(port)], env=environment(**env), cwd=ROOT, stdout=log, stderr=log
        )
        try:
            _until_open(process, port, log)
            yield Server(process, port)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait()


def _until_open(process: psutil.Popen, port: int, log: object) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    log.seek(0)  # type: ignore[attr-defined]
    raise RuntimeError(f"a server did not start: {log.read()[-2000:].decode(errors='replace')}")  # type: ignore[attr-defined]
