"""Charts, drawn by Vega-Lite without a browser or a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def coverage_chart(title: str, tested: Mapping[str, Any]) -> str:
    """Draw a backtest by horizon, as SVG: coverage beside its nominal level, and skill, each with two standard errors.

    Parameters
    ----------
    tested : mapping
        As ``pricing.forecasts.backtest`` returns it.
    """
    import altair as alt
    import pandas as pd
    import vl_convert

    rows, nominal = [], []
    for line in tested["record"]:
        for key in (k for k in line if k.startswith("coverage-") and not k.endswith("-error")):
            level = key.removeprefix("coverage-")
            rows.append(_bar("coverage, %", f"{level} %", line, key, 100))
            nominal.append({"panel": "coverage, %", "level": float(level)})
        rows.append(_bar("skill, % of the benchmark's CRPS", "skill", line, "skill", 1))
    nominal.append({"panel": "skill, % of the benchmark's CRPS", "level": 0.0})
    frame = pd.DataFrame(rows).dropna(subset=["value"])
    panels = []
    for panel, part in frame.groupby("panel", sort=False):
        of = [n for n in nominal if n["panel"] == panel]
        base = alt.Chart(part).encode(x=alt.X("horizon:Q", title="periods ahead"), color=alt.Color("of:N", title=None))
        axis = alt.Y("low:Q", title=str(panel), scale=alt.Scale(zero=False))
        low_high = base.mark_rule(opacity=0.5).encode(y=axis, y2="high:Q")
        points = base.mark_point(filled=True, size=40).encode(y="value:Q")
        lines = alt.Chart(pd.DataFrame(of)).mark_rule(strokeDash=[4, 3], color="#777").encode(y="level:Q")
        panels.append((low_high + points + lines).properties(width=420, height=180))
    head = f"{title}: {tested['origins']} origins, {tested['first_origin']} to {tested['last_origin']}"
    chart = alt.vconcat(*panels).properties(title=head)
    return str(vl_convert.vegalite_to_svg(chart.to_json()))


def _bar(panel: str, of: str, line: Mapping[str, Any], key: str, factor: float) -> dict[str, Any]:
    value, error = line.get(key), line.get(f"{key}-error") or 0.0
    if value is None:
        return {"panel": panel, "of": of, "horizon": line["horizon"], "value": None}
    low, high = (factor * (value + side * 2 * error) for side in (-1, 1))
    return {"panel": panel, "of": of, "horizon": line["horizon"], "value": factor * value, "low": low, "high": high}
