"""``lodemark backtest``: how forecasts would have done, and what is published from now on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pricing.commands.review import Opener, Table

if TYPE_CHECKING:
    from pricing.config import Audience
    from pricing.pipeline import Track


def backtest_command(workspace: Opener, table: Table, track: Callable[[], Track]) -> click.Command:
    """Return the command, given how the command line opens the data folder, prints rows and shows progress."""

    @click.command("backtest")
    @click.argument("names", nargs=-1, metavar="[ID…]")
    @click.option("--internal", is_flag=True, help="For the auditors' releases, which may rest on closed sources.")
    @click.option("--charts", type=click.Path(path_type=Path, file_okay=False), help="Folder for one chart each (SVG).")
    @click.option("--json", "as_json", is_flag=True, help="Machine-readable answer.")
    @click.pass_context
    def command(ctx: click.Context, names: tuple[str, ...], internal: bool, charts: Path | None, as_json: bool) -> None:
        """Test the forecasts of all series, or of those with ID, on rolling origins, and store what follows.

        At a review (methodology, [forecasts]) the result decides whether the model or its benchmark is published.
        """
        from pricing import pipeline

        audience: Audience = "internal" if internal else "public"
        with workspace(ctx) as ws:
            rows = pipeline.backtest(ws, audience, names, track())
        if charts is not None:
            from pricing.charts import coverage_chart

            charts.mkdir(parents=True, exist_ok=True)
            for name, frequency, made in rows:
                file = charts / f"{name.replace('/', '-')}-{frequency}.svg"
                file.write_text(coverage_chart(f"{name}, {frequency}", made), "utf-8")
        if as_json:
            told = [{"id": name, "frequency": frequency, **made} for name, frequency, made in rows]
            click.echo(json.dumps(told, indent=2))
            return
        table([_line(*row) for row in rows])
        if charts is not None:
            click.echo(f"{len(rows)} charts in {charts}")

    return command


def _line(name: str, frequency: str, made: dict[str, Any]) -> dict[str, Any]:
    first, last = made["record"][0], made["record"][-1]
    skill = made["skill"]
    line: dict[str, Any] = {
        "id": name,
        "frequency": frequency,
        "origins": made["origins"],
        "as known": made["as_known"],
        "skill %": _shown(skill["value"], 1),
        "error": _shown(skill["error"], 1),
        "p": _shown(made["p_value"], 3),
    }
    for h, row in ((1, first), (last["horizon"], last)):
        for level in (80, 95):
            if f"coverage-{level}" in row:
                line[f"{level} % at {h}"] = _shown(row[f"coverage-{level}"], 2)
    return line | {"published": made["decision"]["published"], "why": made["decision"]["why"]}


def _shown(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"
