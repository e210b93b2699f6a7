"""The whole way on real files: every ``lodemark backfill`` there is data for, then both releases."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import ROOT, SHARED, Account, Line, Result, account

# Folders and names below ../shared/data; what is KNOWN-BAD there stays out.
FILES = {
    "worldbank": ("worldbank/*.xlsx",),
    "imf": ("imf/imf_external-data_*",),
    "ecb": ("ecb/eurofxref-hist.csv",),
    "usgs": ("usgs/mcs2022", "usgs/mcs2023", "usgs/mcs2024", "usgs/mcs2026_data_release.csv"),
    "lme": ("daily/lme_*.csv",),
    "investing": ("daily/investing_*.csv",),
    "komis": ("daily/komis_*_subset.csv",),
    "komis-rare-earths": ("daily/komis_rare_earths_*.json",),
}


def run() -> Result:
    result = Result("Real data: backfill and release, one process each")
    if not SHARED.is_dir():
        result.notes = ["skipped: needs ../shared/data"]
        return result
    with tempfile.TemporaryDirectory(prefix="lodemark-bench-") as folder:
        data = Path(folder)
        loaded = {name: _backfill(data, name, patterns) for name, patterns in FILES.items()}
        released = {
            "release, public": _lodemark(data, "release"),
            "release, internal": _lodemark(data, "release", "--internal"),
        }
        stored = _stored(data)
    steps = [*loaded.values(), *released.values()]
    for name, used in loaded.items():
        s = stored[name]
        counts = ", ".join(f"{s[name]:,} {name}" for name in ("observations", "revised", "withdrawn"))
        result.lines.append(_line(f"backfill {name}", used, counts))
    result.lines += [_line(name, used) for name, used in released.items()]
    wall = sum(s.wall for s in steps)
    whole = Account(sum(s.cpu for s in steps), wall, max(s.peak_mb for s in steps))
    result.lines.append(_line("all of it", whole, f"{wall / 60:.1f} minutes by the clock"))
    return result


def _line(what: str, used: Account, beside: str = "") -> Line:
    return Line(what, f"{used.cpu:.1f} s, {used.peak_mb:.0f} MB", beside)


def _lodemark(data: Path, *arguments: str | Path) -> Account:
    return account([sys.executable, ROOT / "service.py", "--quiet", "--data", data, *arguments])


def _backfill(data: Path, source: str, patterns: tuple[str, ...]) -> Account:
    files = sorted(path for pattern in patterns for path in SHARED.glob(pattern))
    if not files:
        raise RuntimeError(f"{source}: nothing in {SHARED} is called {' or '.join(patterns)}")
    return _lodemark(data, "backfill", source, *files)


def _stored(data: Path) -> dict[str, dict[str, int]]:
    command = [sys.executable, str(ROOT / "service.py"), "--data", str(data), "status", "--json"]
    told = subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout
    state: dict[str, dict[str, int]] = json.loads(told)["sources"]
    return state
