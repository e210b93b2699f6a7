"""``lodemark detect``: the shocks of the last release, and why an observation was flagged or was not."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click

from pricing.commands.review import Opener, Table

if TYPE_CHECKING:
    from pricing.config import Audience

_MEANING = {
    "spike": "a large change since the period before",
    "volatility": "changes over a window larger than they used to be",
    "trend": "changes over a window that add up one way",
    "stale": "the same value again and again, against the habit of the series",
    "replay": "a block of values that was there before",
    "divergence": "apart from the other contributors, in this period and the one before",
    "unit-slip": "a jump that fits a mistaken unit",
    "decimal": "a jump that fits a shifted decimal",
    "gross": "a jump that no market makes and no unit explains",
    "level-shift": "a large change that stayed",
    "sign": "not above zero",
    "duplicate": "a period that was there before",
    "swap": "a jump to where another series of the source stood",
}


def detect_command(workspace: Opener, table: Table) -> click.Command:
    """Return the command, given how the command line opens the data folder and prints rows."""

    @click.command("detect")
    @click.option("--explain", nargs=2, metavar="SERIES PERIOD", help="Why this observation was flagged, or was not.")
    @click.option("--internal", is_flag=True, help="What the auditors' releases see.")
    @click.option("--json", "as_json", is_flag=True, help="Machine-readable answer.")
    @click.pass_context
    def command(ctx: click.Context, explain: tuple[str, str] | None, internal: bool, as_json: bool) -> None:
        """Show the shocks of the last release; with --explain, how one observation is judged from those before it.

        SERIES is a series, a market (mineral/stage/zone), premium/mineral/stage or an index.
        """
        from pricing import pipeline

        audience: Audience = "internal" if internal else "public"
        with workspace(ctx, looking=True) as ws:
            told: Any = pipeline.explain(ws, audience, *explain) if explain else pipeline.shocks_told(ws, audience)
        if as_json:
            click.echo(json.dumps(_finite(told), indent=2))
        elif explain:
            click.echo("\n".join(_words(told)))
        else:
            table([_line(one) for one in told])

    return command


def _finite(value: Any) -> Any:
    """Plain data without numbers that JSON does not know."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "flagged": one["flagged"],
        "series": one["series"],
        "what": ", ".join(check["check"] for check in one["checks"]),
        "change %": f"{one['change_percent']:+.1f}",
        "severity": one["severity"],
        "state": one["state"],
        "verdict": f"{one['verdict']} ({one['certainty']})",
        "why": one["history"][-1]["why"],
    }


def _words(told: dict[str, Any]) -> list[str]:
    """The verdict in words and figures."""
    head = f"{told['series']} {told['period']}: {told['value']:g} {told['unit']}"
    out = [head]
    if not math.isnan(told["change"]):
        sigmas = "" if math.isnan(told["sigmas"]) else f", {told['sigmas']:+.2f} standard deviations of the day"
        out.append(f"  expected {told['expected']:g}, the last sound value; change {_percent(told['change'])}{sigmas}")
    before = ", ".join(f"{one['period']} {one['value']:g}" for one in told["before"])
    out.append(f"  before it: {before or 'nothing'}")
    if told["flagged"]:
        meaning = _MEANING[told["check"]]
        out.append(f"flagged: {told['check']} ({meaning}), {told['kind']}; it began on {told['onset']}")
        if told["p_value"] is not None:
            out.append(f"  such a score comes once in {1 / told['p_value']:,.0f} observations of a quiet series")
        if told["undone"] is not None:
            out.append(f"  without the slip it would be {told['undone']:g} {told['unit']}")
        if told["evidence"]:
            out.append("  evidence: " + ", ".join(f"{k} {v:g}" for k, v in told["evidence"].items()))
    else:
        out.append("not flagged: no score is above 1, the limit that the false alarms wanted set")
    for name, score in told["scores"].items():
        kind = name.partition("-")[0]
        wanted = told["false_alarms"].get("spike" if name == "level-shift" else kind)
        budget = f"{wanted:g} false alarms a year wanted" if wanted else "no false alarm is wanted"
        out.append(f"  {name:<16} {score:6.2f}   {budget}")
    if not told["scores"]:
        out.append(f"  too few observations before it ({told['observations']}) to judge by")
    return out


def _percent(change: float) -> str:
    return f"{100 * math.expm1(min(change, 700)):+.4g} %"
