"""Any CSV, XLSX or JSON table of prices, mapped by ``[sources.<name>.table]`` alone.

Wide: one column per series (``Series.column`` or an alias is its head). Long: one row per figure,
with a column that names the series. Numbers are read with the configured marks and nothing else;
what is neither a number nor a configured missing marker is a finding that names its place.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import math
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from python_calamine import CalamineError, CalamineWorkbook

from pricing.config import Series, Source, Table
from pricing.errors import ConfigError, ParseError
from pricing.quality import Finding
from pricing.sources import Parsed, frame, without_duplicates

HEAD_WITHIN = 30  # rows searched for the head, so that titles may stand above it
MOST_BAD = 0.2  # a column with more unreadable cells than this is not the column it is taken for
PERIOD_LENGTH = {"daily": 10, "weekly": 10, "monthly": 7, "annual": 4}  # of an ISO day

Row = tuple[str, dict[str, Any]]  # its place in the document, its cells by column
Reading = tuple[str, str, dt.date, Any]  # series, place, day, cell


def parse(raw: bytes, series: Mapping[str, Series], source: Source) -> Parsed:
    """Read a table into observations, in the units of its series.

    The period is a day, a month or a year by the series' frequency; ``published`` is None, for such
    tables bear no stamp. A cell that is not a number is an ``error`` finding and has no row.

    Raises
    ------
    ParseError
        A configured column is absent or ambiguous, a date does not parse, a unit cell differs, or
        more than a fifth of a series' cells are unreadable.
    ConfigError
        The source has no ``table`` settings, or its two number marks are the same.
    """
    table = source.table
    if table is None:
        raise ConfigError("the table parser needs a [sources.<name>.table] in config.toml")
    if table.thousands == table.decimal:
        raise ConfigError(f"table: decimal and thousands are both {table.decimal!r}")
    columns, rows = _READERS[table.format](raw, table, source.max_bytes)
    if not rows:
        raise ParseError("the table has a head and no rows")
    readings, absent = (_wide if table.layout == "wide" else _long)(columns, rows, series, table)
    found, findings = _values(readings, series, table)
    observations, twins = without_duplicates(frame(found))
    return Parsed(observations, None, (*findings, *twins), absent)


def number(text: str, decimal: str = ".", thousands: str = "") -> float | None:
    """Return the one number that a text plainly is, else None.

    A thousands mark must part groups of exactly three digits, so that ``1,1476`` is no number.
    """
    match = _pattern(decimal, thousands).fullmatch(text)
    if not match:
        return None
    value = float(text.replace(thousands, "").replace(decimal, ".") if thousands else text.replace(decimal, "."))
    return value if math.isfinite(value) else None


@lru_cache
def _pattern(decimal: str, thousands: str) -> re.Pattern[str]:
    grouped = rf"[1-9]\d{{0,2}}(?:{re.escape(thousands)}\d{{3}})+|" if thousands else ""
    return re.compile(rf"[-+]?(?:{grouped}\d+)(?:{re.escape(decimal)}\d+)?(?:[eE][-+]?\d+)?", re.ASCII)


# ------------------------------------------------------------------------------------ layouts


def _wide(
    columns: list[str], rows: list[Row], series: Mapping[str, Series], table: Table
) -> tuple[list[Reading], tuple[str, ...]]:
    heads = {name: _only(columns, s) for name, s in series.items()}
    readings = []
    for place, cells in rows:
        day = _day(cells.get(table.date), place, table)
        readings += [(name, f"{place}, column {head!r}", day, cells.get(head)) for name, head in heads.items()]
    return readings, ()


def _only(columns: list[str], series: Series) -> str:
    names = [n for n in dict.fromkeys((series.column, *series.aliases)) if n and n in columns]
    if not names:
        raise ParseError(f"no column {series.column!r} for series {series.id}; the columns are {', '.join(columns)}")
    if len(names) > 1 or columns.count(names[0]) > 1:
        raise ParseError(f"series {series.id}: more than one column fits: {[c for c in columns if c in names]}")
    return names[0]


def _long(
    columns: list[str], rows: list[Row], series: Mapping[str, Series], table: Table
) -> tuple[list[Reading], tuple[str, ...]]:
    needed = [c for c in (table.date, table.key, table.value, table.unit) if c]
    for column in needed:
        if columns.count(column) != 1:
            raise ParseError(f"expected one column {column!r}; the columns are {', '.join(columns)}")
    owners: dict[str, list[Series]] = {}
    for s in series.values():
        for name in dict.fromkeys((s.column, *s.aliases)):
            if name:
                owners.setdefault(name, []).append(s)
    readings, keys = [], set()
    for place, cells in rows:
        key = str(cells.get(table.key, "")).strip()
        keys.add(key)
        for s in owners.get(key, ()):
            if table.unit:
                _check_unit(cells.get(table.unit), s, place)
            day = _day(cells.get(table.date), place, table)
            readings.append((s.id, f"{place}, column {table.value!r}", day, cells.get(table.value)))
    if series and not readings:
        raise ParseError(f"column {table.key!r} names none of the series; it holds {', '.join(sorted(keys)[:40])}")
    seen = {name for name, *_ in readings}
    return readings, tuple(name for name in series if name not in seen)


def _check_unit(cell: object, series: Series, place: str) -> None:
    shown = " ".join(str(cell if cell is not None else "").split())
    known = series.expect or (series.unit,)
    if shown not in known:
        raise ParseError(f"{place}: unit {shown!r}, but series {series.id} is in {' or '.join(known)}")


# -------------------------------------------------------------------------------------- cells


def _values(
    readings: list[Reading], series: Mapping[str, Series], table: Table
) -> tuple[list[tuple[str, str, float]], list[Finding]]:
    found: list[tuple[str, str, float]] = []
    findings: list[Finding] = []
    bad: dict[str, int] = {}
    for name, place, day, cell in readings:
        if cell is None or (isinstance(cell, str) and cell.strip() in table.missing):
            continue
        period = day.isoformat()[: PERIOD_LENGTH[series[name].frequency]]
        if period < series[name].since:
            continue
        value = _number(cell, table)
        if value is None:
            bad[name] = bad.get(name, 0) + 1
            message = f"{place}: {cell!r} is neither a number nor a missing marker"
            findings.append(Finding("unreadable-number", "error", message, name, period))
        else:
            found.append((name, period, value))
    good = dict.fromkeys(series, 0)
    for name, *_ in found:
        good[name] += 1
    for name, count in bad.items():
        if count > MOST_BAD * (count + good[name]):
            first = next(f.message for f in findings if f.series == name)
            raise ParseError(f"series {name}: {count} of {count + good[name]} cells are no numbers; {first}")
    return found, findings


def _number(cell: object, table: Table) -> float | None:
    if isinstance(cell, str):
        return number(cell.strip(), table.decimal, table.thousands)
    if isinstance(cell, bool) or not isinstance(cell, (int, float)):
        return None
    try:
        value = float(cell)
    except OverflowError:  # JSON knows no largest integer
        return None
    return value if math.isfinite(value) else None


def _day(cell: object, place: str, table: Table) -> dt.date:
    if isinstance(cell, dt.datetime):
        return cell.date()
    if isinstance(cell, dt.date):
        return cell
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)  # a spreadsheet holds the year 2026 as 2026.0
    text = "" if cell is None else str(cell).strip()
    try:
        return dt.datetime.strptime(text, table.date_format).date()  # noqa: DTZ007 - a day, not an instant
    except ValueError as error:
        raise ParseError(f"{place}, column {table.date!r}: {text!r} is not a date like {table.date_format}") from error


# ------------------------------------------------------------------------------------ formats


def _csv(raw: bytes, table: Table, _max_bytes: int) -> tuple[list[str], list[Row]]:
    try:
        reader = csv.reader(io.StringIO(raw.decode(table.encoding), newline=""), delimiter=table.delimiter, strict=True)
        grid = [(f"line {reader.line_num}", cells) for cells in reader]
    except (UnicodeDecodeError, LookupError, csv.Error) as error:
        raise ParseError(f"CSV ({table.encoding}): {error}") from error
    return _headed(grid, table)


def _xlsx(raw: bytes, table: Table, max_bytes: int) -> tuple[list[str], list[Row]]:
    try:
        if raw.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                if sum(m.file_size for m in archive.infolist()) > max_bytes:
                    raise ParseError(f"workbook: unpacks to more than max_bytes = {max_bytes}")
        workbook = CalamineWorkbook.from_filelike(io.BytesIO(raw))
        name = table.sheet
        if name is None and len(workbook.sheet_names) == 1:
            name = workbook.sheet_names[0]
        if name not in workbook.sheet_names:
            raise ParseError(
                f"no sheet {name!r}; the sheets are {', '.join(workbook.sheet_names)}: name one in table.sheet"
            )
        cells = workbook.get_sheet_by_name(name).to_python(skip_empty_area=False)
    except (CalamineError, zipfile.BadZipFile, struct.error, RuntimeError, OSError, ValueError) as error:
        raise ParseError(f"workbook: {error}") from error
    return _headed([(f"row {i}", list(row)) for i, row in enumerate(cells, start=1)], table)


def _headed(grid: list[tuple[str, list[Any]]], table: Table) -> tuple[list[str], list[Row]]:
    """Part the head (the first row with the date column's name) from the rows below it."""
    filled = [(place, cells) for place, cells in grid if any(str(c).strip() for c in cells)]
    for i, (_, cells) in enumerate(filled[:HEAD_WITHIN]):
        head = [str(c).strip() for c in cells]
        if table.date in head:
            if head.count(table.date) > 1:
                raise ParseError(f"column {table.date!r} stands twice in the head: {', '.join(head)}")
            return head, [_record(head, place, row) for place, row in filled[i + 1 :]]
    first = ", ".join(str(c) for c in filled[0][1]) if filled else "nothing"
    raise ParseError(f"no column {table.date!r} in the first {HEAD_WITHIN} rows; the first row holds {first}")


def _record(head: list[str], place: str, cells: list[Any]) -> Row:
    if len(cells) < len(head) or any(str(c).strip() for c in cells[len(head) :]):
        raise ParseError(f"{place}: {len(cells)} cells under a head of {len(head)}")
    return place, dict(zip(head, cells, strict=False))


def _json(raw: bytes, table: Table, _max_bytes: int) -> tuple[list[str], list[Row]]:
    try:
        data = json.loads(raw, parse_constant=_no_constant, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise ParseError(f"JSON: {error}") from error
    records = list(_records(data, [p for p in table.records.split(".") if p], {}, table.records or "(top)"))
    rows = [(f"record {i}", r) for i, r in enumerate(records, start=1)]
    columns = list(dict.fromkeys(column for _, r in rows for column in r))
    if rows and table.date not in columns:
        raise ParseError(f"no field {table.date!r}; the records hold {', '.join(columns)}")
    return columns, rows


def _records(node: Any, path: list[str], above: dict[str, Any], place: str) -> Iterator[dict[str, Any]]:
    """Yield the records at a path; a ``*`` walks a list and passes its members' fields down."""
    if not path or path[0] == "*":
        if not isinstance(node, list) or not all(isinstance(n, dict) for n in node):
            raise ParseError(f"{place}: expected a list of objects")
        for member in node:
            fields = {**above, **_flat(member)}
            if path:
                yield from _records(member, path[1:], fields, place)
            else:
                yield fields
    elif isinstance(node, dict) and path[0] in node:
        yield from _records(node[path[0]], path[1:], above, place)
    else:
        there = ", ".join(node) if isinstance(node, dict) else type(node).__name__
        raise ParseError(f"{place}: no {path[0]!r}; there is {there}")


def _flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            flat[prefix + key] = value
    return flat


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a field stands twice in one object: {', '.join(key for key, _ in pairs)}")
    return found


_READERS = {"csv": _csv, "xlsx": _xlsx, "json": _json}
