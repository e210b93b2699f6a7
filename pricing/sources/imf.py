"""IMF Primary Commodity Prices: the external-data workbooks, and SDMX replies as CSV or XML.

``Series.column`` is the IMF's commodity code with the data type, ``PNICK|USD``. The type may be left
out where the code is unique; it is not for oil, whose index and price share a code. Columns without
a code (lithium, silicon … at the right edge of the newer workbooks) are named by their description.

Three forms, told apart by their bytes:

- workbooks, xls or xlsx, whose four header rows come in any order;
- SDMX-ML 2.1 structure-specific, as dataservices.imf.org sent it until 2025;
- SDMX-CSV and SDMX-ML of api.imf.org, key COUNTRY.INDICATOR.DATA_TRANSFORMATION.FREQUENCY, periods
  ``2026-M07``. **No real reply of that service has been seen**; its form is known from a public
  connector only, so whatever does not fit is refused rather than guessed.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element
from xml.etree.ElementTree import ParseError as XmlError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from pricing.config import Series, Source
from pricing.errors import ParseError
from pricing.quality import Finding
from pricing.sources import Parsed, frame, without_duplicates
from pricing.sources.worldbank import Grid, Rows, cell, figures, normal, open_sheet, shows

SHEETS = ("External", "Values")
HEADERS = ("Commodity", "Commodity.Description", "Data Type", "Frequency")
WORLD = frozenset({"", "W00", "G001"})
"""The area of a world price: before and after the change of service, and none in a workbook."""
UNSCALED = frozenset({"", "0"})
FREQUENCIES = {"D": "daily", "W": "weekly", "M": "monthly", "A": "annual"}

_DIMENSIONS = {
    "code": ("INDICATOR", "COMMODITY"),
    "kind": ("DATA_TRANSFORMATION", "UNIT_MEASURE"),
    "frequency": ("FREQUENCY", "FREQ"),
    "area": ("COUNTRY", "REF_AREA"),
    "scale": ("SCALE", "UNIT_MULT"),
}
_PERIOD = re.compile(r"(\d{4})-?M(0?[1-9]|1[0-2])|(\d{4})-(0[1-9]|1[0-2])")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class _Column:
    """One series of a document, in whichever form it came."""

    place: str
    code: str
    kind: str
    frequency: str
    description: str = ""
    area: str = ""
    scale: str = ""
    cells: list[tuple[str, str, Any]] = field(default_factory=list)


def parse(raw: bytes, series: Mapping[str, Series], source: Source) -> Parsed:
    """Read a workbook or an SDMX reply, in the publisher's own units.

    Parameters
    ----------
    raw : bytes
        xls, xlsx, SDMX-ML 2.1 (structure-specific) or SDMX-CSV.
    series : mapping of id to Series
        ``column`` and ``aliases`` as the module describes. Each text of ``expect`` must stand in the
        description or the data type, in the forms that carry a description (SDMX does not).
    source : Source
        ``editions`` maps the last month of a workbook to its day of publication, for no workbook
        bears one.

    Returns
    -------
    Parsed
        ``published`` is the day an XML reply was prepared, or the workbook's day from ``editions``.

    Raises
    ------
    ParseError
        Another layout, another unit or scale than expected, two columns for one series, or none of
        the configured series: the message names the cell, line or element.
    """
    found, published = _read(raw)
    where = {key: column for key, one in series.items() if (column := _match(one, found)) is not None}
    if not where:
        names = ", ".join(dict.fromkeys(column.code or column.description for column in found[:20]))
        raise ParseError(
            f"none of the {len(series)} configured series is here; the document has {names or 'no series'}"
        )
    rows: Rows = []
    findings: list[Finding] = []
    for key, column in where.items():
        cells = [(_period(text, place), place, content) for text, place, content in column.cells]
        more_rows, more_findings = figures(series[key], cells, ("", "NaN"))
        rows += more_rows
        findings += more_findings + _holes(series[key], more_rows, cells)
    observations, twins = without_duplicates(frame(rows))
    if published is None and not observations.empty:
        published = source.editions.get(str(observations["period"].max()))
    absent = tuple(key for key in series if key not in where)
    return Parsed(observations, published, (*findings, *twins), absent)


def _read(raw: bytes) -> tuple[list[_Column], dt.date | None]:
    if raw.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        return _workbook(raw), None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ParseError(f"byte {error.start}: neither a workbook nor UTF-8 text") from error
    start = text.lstrip()[:15].lower()
    if start.startswith(("<!doctype html", "<html")):
        raise ParseError("line 1: a web page where data was expected")
    if start.startswith(("{", "[")):
        raise ParseError("line 1: JSON where a workbook, SDMX-CSV or SDMX-ML was expected")
    if start.startswith("<"):
        return _xml(raw)
    return _grouped(_csv(text)), None


def _match(series: Series, found: list[_Column]) -> _Column | None:
    wanted = [name.rpartition("|")[::2] if "|" in name else (name, "") for name in (series.column, *series.aliases)]
    hits = [
        column
        for column in found
        if column.area in WORLD
        and FREQUENCIES.get(column.frequency[:1].upper()) == series.frequency
        and any(
            normal(name) == normal(column.code or column.description) and normal(kind) in ("", normal(column.kind))
            for name, kind in wanted
        )
    ]
    if len(hits) > 1:
        places = " and ".join(f"{c.place} ({c.code}|{c.kind})" for c in hits)
        raise ParseError(f"{places}: two columns for series {series.id}; name one, as in {hits[0].code}|{hits[0].kind}")
    if not hits:
        return None
    _check_unit(series, hits[0])
    return hits[0]


def _check_unit(series: Series, column: _Column) -> None:
    if column.scale not in UNSCALED:
        raise ParseError(
            f"{column.place}: figures scaled by {column.scale!r} for series {series.id}; expected unscaled ones"
        )
    for text in series.expect if column.description else ():
        if not (shows(column.description, text) or shows(column.kind, text)):
            raise ParseError(
                f"{column.place}: {column.description!r} ({column.kind}) where series {series.id} expects {text!r}"
            )


def _period(text: str, place: str) -> str:
    match = _PERIOD.fullmatch(text)
    if match is None:
        raise ParseError(f"{place}: {text!r} is no month such as 1980M1, 2021-01 or 2026-M07")
    return f"{match[1] or match[3]}-{int(match[2] or match[4]):02d}"


def _holes(series: Series, rows: Rows, cells: list[tuple[str, str, Any]]) -> list[Finding]:
    """Report blanks inside a history: a spreadsheet error such as #N/A also reads as a blank."""
    have = {period for _, period, _ in rows}
    if not have:
        return []
    blank = [
        (p, place)
        for p, place, x in cells
        if p not in have and min(have) < p < max(have) and str(x).strip() in ("", "NaN")
    ]
    if not blank:
        return []
    message = f"{blank[-1][1]}: no figure inside the history ({len(blank)} months)"
    return [Finding("hole", "warning", message, series.id, blank[-1][0], {"periods": [p for p, _ in blank]})]


# ------------------------------------------------------------------------------------- workbooks


def _workbook(raw: bytes) -> list[_Column]:
    sheet, grid = open_sheet(raw, SHEETS)
    first = next((i for i, row in enumerate(grid) if _PERIOD.fullmatch(str(row[0]).strip())), None)
    if first is None:
        raise ParseError(f"{sheet}!A: no month such as 1980M1 in the column: the layout has changed")
    at = {str(grid[i][0]).strip(): i for i in range(first)}
    lacking = [name for name in HEADERS if name not in at]
    if lacking:
        raise ParseError(f"{sheet}!A1:A{first}: no header row {', '.join(lacking)}: the layout has changed")
    months = list(_months(sheet, grid, first))
    found = []
    for j in range(1, len(grid[0])):
        code, description, kind, frequency = (str(grid[at[name]][j]).strip() for name in HEADERS)
        if code or description:
            cells = [(text, cell(sheet, i, j), grid[i][j]) for i, text in months]
            found.append(_Column(cell(sheet, at["Commodity"], j), code, kind, frequency, description, cells=cells))
    return found


def _months(sheet: str, grid: Grid, first: int) -> Iterator[tuple[int, str]]:
    for i in range(first, len(grid)):
        label = str(grid[i][0]).strip()
        if _PERIOD.fullmatch(label):
            yield i, label
        elif any(isinstance(x, float) for x in grid[i]):
            raise ParseError(f"{cell(sheet, i, 0)}: {label!r} is no month such as 1980M1, yet its row has figures")


# ------------------------------------------------------------------------------------------ SDMX


def _csv(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (place, record); a row that does not fit its header is refused, for names would shift."""
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        for values in reader:
            place = f"line {reader.line_num}"
            if not values:
                continue
            if len(values) != len(header):
                raise ParseError(
                    f"{place}: {len(values)} values under {len(header)} names: every name may show another series"
                )
            yield place, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise ParseError(f"line {reader.line_num}: not CSV: {error}") from error


def _xml(raw: bytes) -> tuple[list[_Column], dt.date | None]:
    try:
        root = fromstring(raw, forbid_dtd=True)
    except (XmlError, DefusedXmlException) as error:
        raise ParseError(f"not acceptable XML: {error}") from error
    if _local(root) not in ("StructureSpecificTimeSeriesData", "StructureSpecificData"):
        said = " ".join("".join(root.itertext()).split())[:200]
        raise ParseError(f"element {_local(root)}: expected structure-specific SDMX data; it says {said!r}")
    prepared = next((e.text or "" for e in root.iter() if _local(e) == "Prepared"), "")
    try:
        published = dt.date.fromisoformat(prepared.strip()[:10]) if prepared else None
    except ValueError as error:
        raise ParseError(f"element Prepared: {prepared!r} is not a date") from error
    return _grouped(_observations(root)), published


def _observations(root: Element) -> Iterator[tuple[str, dict[str, str]]]:
    for dataset in (e for e in root if _local(e) == "DataSet"):
        action = next((value for key, value in dataset.attrib.items() if key.rpartition("}")[2] == "action"), "")
        series = [e for e in dataset if _local(e) == "Series"]
        for number, parent in enumerate([*series, dataset]):
            facts = parent.attrib if parent is not dataset else {}
            for n, obs in enumerate((e for e in parent if _local(e) == "Obs"), start=1):
                place = f"Series {number + 1}, Obs {n}" if parent is not dataset else f"Obs {n}"
                yield place, {"ACTION": action, **facts, **obs.attrib}


def _local(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _grouped(records: Iterator[tuple[str, dict[str, str]]]) -> list[_Column]:
    """Gather records with one key into one column."""
    found: dict[tuple[str, ...], _Column] = {}
    for place, record in records:
        if "TIME_PERIOD" not in record or not record.keys() & set(_DIMENSIONS["code"]):
            raise ParseError(f"{place}: no TIME_PERIOD or no INDICATOR (COMMODITY); it has {', '.join(record)[:200]}")
        if record.get("ACTION", "")[:1].upper() == "D":
            raise ParseError(f"{place}: the message deletes observations; only messages that state them are read")
        facts = {key: next((record[n].strip() for n in names if n in record), "") for key, names in _DIMENSIONS.items()}
        column = found.setdefault(tuple(facts.values()), _Column(place, cells=[], **facts))
        text = record.get("OBS_VALUE", "").strip()
        column.cells.append((record["TIME_PERIOD"].strip(), place, float(text) if _NUMBER.fullmatch(text) else text))
    return list(found.values())
