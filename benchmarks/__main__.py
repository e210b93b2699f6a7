"""``python -m benchmarks [NAME …]``: run the benchmarks, all of them or those that are named."""

from __future__ import annotations

import importlib
import platform
import sys
import time

import click
from rich.console import Console

NAMES = (
    "endpoint", "store", "imports", "formulas", "stage", "figures", "customs", "forecasts", "shocks", "mail", "real",
)  # fmt: skip


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
def main(names: tuple[str, ...]) -> None:
    """Measure, and print each result beside its aim. A missed aim is printed, not an error."""
    console = Console() if sys.stdout.isatty() else Console(width=180)
    began = time.monotonic()
    console.print(f"Lodemark benchmarks, Python {platform.python_version()}, CPU seconds unless said\n")
    for name in names or NAMES:
        started = time.monotonic()
        with console.status(name):
            found = importlib.import_module(f"benchmarks.{name}").run()
        results = found if isinstance(found, list) else [found]
        results[-1].notes.append(f"measured in {time.monotonic() - started:.0f} s")
        for result in results:
            result.show(console)
    console.print(f"all in {(time.monotonic() - began) / 60:.1f} min")


if __name__ == "__main__":
    main()
