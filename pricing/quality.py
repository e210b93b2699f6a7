"""Findings: what is doubtful, as data. Checks return them and never change a value."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from pricing.config import Series

Severity = Literal["note", "warning", "error"]
LEAST, MOST = 1e-9, 1e15  # of any price, in any unit


@dataclass(frozen=True)
class Finding:
    """One doubtful observation, document or run.

    ``note`` is for the record, ``warning`` flows on but is shown, ``error`` holds the value back
    until somebody decides.
    """

    check: str
    severity: Severity
    message: str
    series: str | None = None
    period: str | None = None
    evidence: dict[str, Any] = field(default_factory=dict)


def hold_back(
    observations: pd.DataFrame,
    series: Mapping[str, Series],
    known_on: dt.date,
    accepted: Collection[tuple[str, str, float]] = (),
) -> tuple[pd.DataFrame, list[Finding]]:
    """Hold back figures that cannot be what they say: not above zero, or of a period to come.

    Parameters
    ----------
    observations : DataFrame
        Columns ``series, period, value, status``.
    series : mapping of id to Series
    known_on : date
        The day on which the figures were learnt. A period that begins later is to come; one day of
        grace covers time zones east of ours.
    accepted : collection of (series, period, value)
        Figures that somebody accepted: they are not held back.

    Returns
    -------
    observations, findings
        Those that may be stored; one ``error`` for each that was held back.
    """
    latest = (known_on + dt.timedelta(days=1)).isoformat()
    strict = {name for name, s in series.items() if s.kind != "other"}
    values, periods = observations["value"].to_numpy(), observations["period"].tolist()
    # no price of anything is outside these: arithmetic on such a figure could end a release
    possible = (values > LEAST) & (values < MOST)
    not_positive = observations["series"].isin(strict).to_numpy(dtype=bool) & ~possible
    to_come = np.array([period > latest[: len(period)] for period in periods], dtype=bool)
    findings = []
    held = not_positive | to_come
    for position in held.nonzero()[0].tolist():
        row = observations.iloc[position]
        if (row["series"], row["period"], float(row["value"])) in accepted:
            held[position] = False
            continue
        check = "period-to-come" if to_come[position] else "not-positive"
        message = f"{row['series']} {row['period']}: {float(row['value'])!r} " + (
            f"is of a period that had not begun on {known_on}"
            if to_come[position]
            else _impossible(float(row["value"]))
        )
        value = float(row["value"])
        evidence = {"value": value, "undone": -value if check == "not-positive" and value < 0 else None}
        findings.append(Finding(check, "error", message, row["series"], row["period"], evidence))
    return observations[~held], findings


def _impossible(value: float) -> str:
    return "is not above zero" if not value > 0 else f"is no price: none is outside {LEAST:g} to {MOST:g}"


def with_statuses(observations: pd.DataFrame, series: Mapping[str, Series]) -> pd.DataFrame:
    """Mark the periods that the settings know to be voided, suspended or limit-locked."""
    out = observations
    for name, one in series.items():
        for span, status in one.statuses.items():
            first, _, last = span.partition("/")
            rows = (out["series"] == name) & out["period"].between(first, last or first)
            out = out.assign(status=out["status"].mask(rows, status))
    return out
