"""Charts, drawn by Vega-Lite without a browser or a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson


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


def movement_chart(title: str, unit: str, rows: Sequence[tuple[str, float]], marked: Sequence[str]) -> bytes:
    """Draw a series with the span of a shock marked, as PNG.

    Parameters
    ----------
    rows : sequence of (period, value)
        Periods ``YYYY-MM`` or ``YYYY-MM-DD``, in order.
    marked : sequence of two periods
        Before the movement, and after it.
    """
    import altair as alt
    import pandas as pd
    import vl_convert

    frame = pd.DataFrame(rows, columns=["period", "value"])
    frame["period"] = pd.to_datetime(frame["period"])
    marks = frame[frame["period"].isin(pd.to_datetime(list(marked)))]
    day = alt.X("period:T", title=None, axis=alt.Axis(labelFlush=False, format="%d %b %Y", labelAngle=0, tickCount=3))
    # Thousands apart by a space: a comma is a decimal point to half of the readers.
    spaced = alt.Axis(labelExpr="replace(datum.label, /,/g, '\u00a0')")
    value = alt.Y("value:Q", title=unit, scale=alt.Scale(zero=False), axis=spaced)
    line = alt.Chart(frame).mark_line(color="#1f5a4c").encode(x=day, y=value)
    ends = alt.Chart(marks).mark_point(filled=True, size=90, color="#b3261e").encode(x=day, y=value)
    chart = (line + ends).properties(width=520, height=280, title=title, background="white")
    chart = chart.configure_axis(labelFontSize=17, titleFontSize=15).configure_title(fontSize=19)  # halved on a phone
    made: bytes = vl_convert.vegalite_to_png(chart.to_json(), scale=1.5)
    return made


def of_alert(alert: Mapping[str, Any], public: Path, title: Callable[[str], str] = str) -> bytes | None:
    """Draw the first shock of an alert from the documents of its release; None where these show no such series.

    Parameters
    ----------
    public : Path
        Folder of the audience's releases.
    title : callable
        (name of a series) to what stands above the chart.
    """
    shocks, release = alert.get("shocks") or [], alert.get("release")
    href = str(shocks[0].get("href", "")) if shocks else ""
    if not href.startswith("/v1/") or not release:
        return None
    try:
        document = orjson.loads((public / "releases" / f"{release:06d}" / f"{href[4:]}.json").read_bytes())
    except (OSError, ValueError):
        return None
    one = shocks[0]
    values = [(row["period"], _level(row)) for row in document.get("values", {}).get(one["frequency"], [])]
    rows = [(period, value) for period, value in values if value is not None]
    return (
        movement_chart(title(one["series"]), one["unit"], rows, (one["from"]["period"], one["to"]["period"]))
        if rows
        else None
    )


def _level(row: Mapping[str, Any]) -> float | None:
    """Value of a price or an index; of a gap China's price over the one outside."""
    if "china" in row:
        return row["china"] / row["other"] if row["china"] and row["other"] else None
    return row.get("value")
