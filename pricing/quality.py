"""Findings: what is doubtful, as data. Checks return them and never change a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["note", "warning", "error"]


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
