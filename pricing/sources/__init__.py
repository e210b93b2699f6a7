"""One module per publisher. Each has a pure ``parse``; most need nothing else.

::

    def parse(raw: bytes, series: Mapping[str, Series], source: Source) -> Parsed

A source mirrors its publisher: no change of unit, no filling, no averaging. Judgement is downstream,
where it is visible. The module's name is the table's name in ``config.toml``, or the table's
``parser``; there is no list to forget.

A module may define ``fetch(client, source)`` where a plain GET of ``source.url`` is not enough.
"""

from __future__ import annotations

import datetime as dt
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType

import pandas as pd

from pricing.config import Series, Source
from pricing.errors import ConfigError
from pricing.quality import Finding

COLUMNS = ("series", "period", "value", "status")


@dataclass(frozen=True)
class Parsed:
    """What one document says.

    Attributes
    ----------
    observations : DataFrame
        Columns ``series`` (id), ``period`` (ISO text: ``2026``, ``2026-11``, ``2026-11-20``),
        ``value`` (float, finite, in the publisher's own unit), ``status`` (``normal``,
        ``provisional``, ``voided``, ``suspended``, ``limit``). One row per published figure; a
        missing figure has no row. A period that the document gives twice for one series has no row
        either: it is a finding with both values.
    published : date or None
        The publisher's own stamp on the document.
    findings : tuple of Finding
        What is doubtful about the document, as data.
    absent : tuple of str
        Series that were asked for and that this document does not carry.
    """

    observations: pd.DataFrame
    published: dt.date | None
    findings: tuple[Finding, ...] = field(default=())
    absent: tuple[str, ...] = field(default=())


def frame(rows: list[tuple[str, str, float]] | list[tuple[str, str, float, str]]) -> pd.DataFrame:
    """Make the observations frame from (series, period, value[, status]) rows."""
    full = [(*row, "normal")[:4] for row in rows]
    return pd.DataFrame(full, columns=list(COLUMNS)).astype({"value": "float64"})


def without_duplicates(
    observations: pd.DataFrame, *, check: str = "duplicate-period"
) -> tuple[pd.DataFrame, list[Finding]]:
    """Take out periods that one document gives twice, and say so.

    Identical twins (same value) keep one row with a mild finding; differing ones lose both.
    """
    twin = observations.duplicated(["series", "period"], keep=False)
    if not twin.any():
        return observations, []
    findings = []
    drop: list[int] = []
    for (series, period), group in observations[twin].groupby(["series", "period"], sort=True):
        values = sorted(set(group["value"]))
        same = len(values) == 1
        findings.append(
            Finding(
                check=check,
                severity="note" if same else "error",
                series=str(series),
                period=str(period),
                message=f"{len(group)} rows for one period: "
                + (f"all {values[0]!r}, one kept" if same else f"{', '.join(map(repr, values))}; none accepted"),
                evidence={"values": values},
            )
        )
        drop.extend(group.index[1:] if same else group.index)
    return observations.drop(index=drop).reset_index(drop=True), findings


def load(name: str, source: Source) -> ModuleType:
    """Import the module that reads a source. Raises ConfigError when there is none."""
    module = source.parser or name
    try:
        return importlib.import_module(f"pricing.sources.{module.replace('-', '_')}")
    except ModuleNotFoundError as error:
        raise ConfigError(f"sources.{name}: no parser pricing/sources/{module}.py") from error


def parse(name: str, source: Source, raw: bytes, series: Mapping[str, Series] | None = None) -> Parsed:
    """Read one document of a source. Raises ParseError when it is not in the known layout."""
    wanted = series if series is not None else {s.id: s for s in source.series}
    parsed: Parsed = load(name, source).parse(raw, wanted, source)
    return parsed
