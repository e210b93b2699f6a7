"""What starting the web process costs: CPU and memory of its imports in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median

from benchmarks.measure import Line, Result, environment

ROUNDS = 7
AIM_SECONDS, AIM_MB = 0.3, 60.0

_END = """
import json, resource, sys
used = resource.getrusage(resource.RUSAGE_SELF)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
heavy = sorted({"pandas", "numpy", "pydantic", "sqlite_utils", "requests"} & set(sys.modules))
print(json.dumps([used.ru_utime + used.ru_stime, int(peak.split()[1]) * 1024 / 1e6, len(sys.modules), heavy]))
"""
_WORK = {
    "web process": "import pathlib, pricing.web.app\n"
    "pricing.web.app.create_app(pathlib.Path('none'), pathlib.Path('none'))",
    "flask and an empty application": "import flask\nflask.Flask('bare')",
    "interpreter alone": "",
}


def run() -> Result:
    """Each in turn, bytecode cached; the whole life of the process is counted."""
    seen: dict[str, list[list[float]]] = {name: [] for name in _WORK}
    heavy: list[str] = []
    for turn in range(ROUNDS + 1):
        for name, code in _WORK.items():
            *numbers, found = _once(code)
            heavy += found
            if turn:  # the first writes the bytecode
                seen[name].append(numbers)
    flask = seen["flask and an empty application"]
    result = Result("Start of the web process")
    for name, rounds in seen.items():
        seconds, mb, modules = (median(column) for column in zip(*rounds, strict=True))
        ours = name == "web process"
        ratio = median(a[0] / b[0] for a, b in zip(rounds, flask, strict=True))
        result.lines += [
            Line(f"{name}: CPU", f"{seconds:.3f} s", "", f"{ratio:.2f} of flask" if ours else "",
                 f"≤ {AIM_SECONDS} s" if ours else "", seconds <= AIM_SECONDS if ours else None),
            Line(f"{name}: memory", f"{mb:.0f} MB", f"{modules:.0f} modules", "",
                 f"≤ {AIM_MB:.0f} MB" if ours else "", mb <= AIM_MB if ours else None),
        ]  # fmt: skip
    result.notes = [
        f"Median of {ROUNDS} fresh interpreters; from start to end of the process, VmHWM.",
        f"Heavy modules that the web process loads: {', '.join(sorted(set(heavy))) or 'none'}.",
    ]
    return result


def _once(code: str) -> list:  # type: ignore[type-arg]
    done = subprocess.run(
        [sys.executable, "-c", code + _END], env=environment(), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]
