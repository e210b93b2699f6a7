"""World Bank Commodity Price Data, the "Pink Sheet": one workbook a month, from 1960.

The sheet ``Monthly Prices`` drifts: a row of series codes comes and goes, columns move, names take
on ``**`` and blanks, the sign for a missing figure changes. So everything is found by what it says,
never by its position: the first month in column A, the row of ``($/mt)`` units above it, the names
above the units. https://www.worldbank.org/en/research/commodity-markets
"""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import orjson
import pandas as pd

from pricing.config import Series, Source
from pricing.errors import ParseError
from pricing.quality import Finding, Severity
from pricing.sources import Parsed, frame, without_duplicates

SHEET = "Monthly Prices"
INDICES = "Monthly Indices"
MISSING = frozenset({"..", "...", "…"})
PLACEHOLDER = 1e-9
"""Until March 2022 the Bank wrote 1e-10 for "none"; no commodity costs so little in any unit."""
LARGEST = 1e12
MEMORY = 2_000_000_000
SECONDS = 60

_MONTH = re.compile(r"(\d{4})M(0[1-9]|1[0-2])")
_STAMP = re.compile(r"Updated on\s+([A-Z][a-z]+ \d{1,2}, \d{4})")
_UNIT = re.compile(r"\(.*\)")

_READER = """
import io, resource, sys
import orjson
from python_calamine import CalamineWorkbook
memory, *names = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
book = CalamineWorkbook.from_filelike(io.BytesIO(sys.stdin.buffer.read()))
name = next((name for name in names if name in book.sheet_names), None)
grid = book.get_sheet_by_name(name).to_python(skip_empty_area=False) if name else []
sys.stdout.buffer.write(orjson.dumps([book.sheet_names, name, grid], default=str))
"""

Grid = list[list[Any]]
Cells = Iterable[tuple[str, str, Any]]
Rows = list[tuple[str, str, float]]


def parse(raw: bytes, series: Mapping[str, Series], source: Source) -> Parsed:
    """Read the monthly workbook, in the publisher's own units.

    Parameters
    ----------
    raw : bytes
        The xlsx file.
    series : mapping of id to Series
        ``column`` and ``aliases`` name the column; case, blanks and ``**`` do not matter. ``expect``
        must stand in its unit cell, ``since`` is the first month that is read.
    source : Source
        Not used: the workbook says all that is needed.

    Returns
    -------
    Parsed
        ``published`` is the "Updated on" date. A configured column that this vintage does not have
        is ``absent``.

    Raises
    ------
    ParseError
        No such sheet, no months, no row of units, another unit than expected, two columns for one
        series, or fewer than half of the configured columns: the layout has changed.
    """
    grid = open_sheet(raw, (SHEET,))[1]
    first = _first_month(SHEET, grid)
    units = _units_row(grid, first)
    return _read(SHEET, grid, first, series, _locate(grid, units, series))


@dataclass(frozen=True)
class Table:
    """Figures of one sheet.

    Attributes
    ----------
    published : date or None
        The "Updated on" date.
    values : DataFrame, month × name
        NaN where the sheet has no figure.
    """

    published: dt.date | None
    values: pd.DataFrame


def monthly_prices(raw: bytes, columns: Sequence[Sequence[str]]) -> Table:
    """Read some price columns, whole, each in the unit that the sheet gives it.

    Parameters
    ----------
    raw : bytes
        The xlsx file.
    columns : sequence of names
        For each column its name, which the answer uses, and the names that it bore in other vintages.

    Raises
    ------
    ParseError
        As ``parse`` does, and for a column that is not there or holds what cannot be read.
    """
    wanted = _wanted(columns)
    grid = open_sheet(raw, (SHEET,))[1]
    first = _first_month(SHEET, grid)
    return _whole(SHEET, _read(SHEET, grid, first, wanted, _locate(grid, _units_row(grid, first), wanted)), wanted)


def published_indices(raw: bytes, names: Sequence[str]) -> Table:
    """Read the World Bank's own indices (2010 = 100).

    The names of the groups stand in up to five stacked rows, one above each column, with or without a row of
    codes below: so a column is the one that has the name anywhere above its first month.

    Parameters
    ----------
    raw : bytes
        The xlsx file.
    names : sequence of str
        Groups, such as ``Base Metals (ex. iron ore)``; case, blanks and ``**`` do not matter.

    Raises
    ------
    ParseError
        No such sheet, no months, no column or two of a name, or figures that cannot be read.
    """
    wanted = _wanted([(name,) for name in names])
    grid = open_sheet(raw, (INDICES,))[1]
    first = _first_month(INDICES, grid)
    heads = [(i, j) for i in range(first) for j in range(1, len(grid[i]))]
    where: dict[str, int] = {}
    for key, one in wanted.items():
        found = [(i, j) for i, j in heads if normal(grid[i][j]) == normal(one.column)]
        if len(found) > 1:
            places = " and ".join(cell(INDICES, i, j) for i, j in found)
            raise ParseError(f"{places}: two columns are called {one.column!r}: the layout has changed")
        if found:
            where[key] = found[0][1]
    return _whole(INDICES, _read(INDICES, grid, first, wanted, where), wanted)


def columns(raw: bytes) -> list[str]:
    """Return the names of all price columns, in the order of the sheet.

    Raises
    ------
    ParseError
        As ``parse`` does, where the sheet, its months or its units are not found.
    """
    grid = open_sheet(raw, (SHEET,))[1]
    names = grid[_units_row(grid, _first_month(SHEET, grid)) - 1]
    return [str(name).strip() for name in names[1:] if str(name).strip()]


def find_link(html: str, source: Source) -> str | None:
    """Return the absolute address of the workbook that the landing page links, if it links one.

    ``source.link`` is searched in each address, relative ones being taken from ``source.landing``.

    Raises
    ------
    ParseError
        When different addresses match: an old year's address goes on answering with an old file,
        so a guess would be silently stale.
    """
    page = _Links()
    page.feed(html)
    links = [urljoin(source.landing, href.strip()) for href in page.hrefs]
    found = sorted({link for link in links if source.link and re.search(source.link, link)})
    if len(found) > 1:
        raise ParseError(f"{source.landing}: {' and '.join(found)} both match; narrow the setting 'link'")
    return found[0] if found else None


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.hrefs += [value for name, value in attrs if name == "href" and value]


# ------------------------------------------------------- shared with other workbooks of monthly prices


def open_sheet(raw: bytes, names: tuple[str, ...]) -> tuple[str, Grid]:
    """Return the first sheet that bears one of the names, and its cells from A1 on.

    The file is opened in a child process of limited memory and time: one stray cell in the last
    corner of a sheet, or one damaged byte of an old xls, makes the reader ask for hundreds of
    gigabytes and abort its process, which may not be the one that serves all other sources.

    Returns
    -------
    name : str
    grid : list of rows
        Numbers as float, dates as ISO text; blanks and spreadsheet errors (#N/A) as "".

    Raises
    ------
    ParseError
        Not a workbook, a damaged one or one beyond the limits, or no such sheet.
    """
    command = [sys.executable, "-P", "-c", _READER, str(MEMORY), *names]
    try:
        child = subprocess.run(command, input=raw, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ParseError(f"workbook: not read within {SECONDS} s") from error
    if child.returncode:
        said = child.stderr.decode(errors="replace").strip().splitlines() or [f"code {child.returncode}"]
        why = said[-1] if child.returncode == 1 else next((x for x in said if "memory" in x), said[0])
        raise ParseError(f"not a readable workbook (starts with {raw[:12]!r}): {why}")
    sheets, name, grid = orjson.loads(child.stdout)
    if name is None:
        raise ParseError(f"workbook: no sheet {' or '.join(names)}; it has {', '.join(sheets)}")
    return name, grid


def cell(sheet: str, row: int, column: int) -> str:
    """Name a cell as a spreadsheet does; row and column count from 0."""
    letters, rest = "", column + 1
    while rest:
        rest, letter = divmod(rest - 1, 26)
        letters = chr(65 + letter) + letters
    return f"{sheet}!{letters}{row + 1}"


def shows(text: str, expected: str) -> bool:
    """Whether a unit is in the text as a whole: ``$/mt`` is not in ``$/mtu`` nor in ``A$/mt``."""
    return re.search(rf"(?<![\w/$]){re.escape(expected)}(?![\w/])", text, re.IGNORECASE) is not None


def normal(name: object) -> str:
    """Return a name without its drift: case, blanks, and the stars that point to a footnote."""
    return " ".join(str(name).replace("*", " ").split()).casefold()


def figures(series: Series, cells: Cells, missing: Container[str]) -> tuple[Rows, list[Finding]]:
    """Take the figures of one column, and say what is doubtful about the rest.

    Parameters
    ----------
    series : Series
        Whose figures these are; periods before ``since`` are left out.
    cells : iterable of (period, place, content)
        ISO period, the place for messages, what stands there.
    missing : container of str
        The publisher's signs for "no figure".

    Returns
    -------
    rows : list of (series, period, value)
    findings : list of Finding
        ``implausible-value`` (error) for each figure not in (0, 1e12]; ``unknown-marker`` once per
        marker: an error when it has digits, for then a figure is there that cannot be read.
    """
    rows: Rows = []
    findings: list[Finding] = []
    markers: dict[str, list[tuple[str, str]]] = {}
    for period, place, content in cells:
        if series.since and period < series.since:
            continue
        if isinstance(content, bool) or not isinstance(content, int | float):
            text = str(content).strip()
            if text not in missing:
                markers.setdefault(text, []).append((period, place))
        elif 0 < content <= PLACEHOLDER:
            continue
        elif 0 < content <= LARGEST:
            rows.append((series.id, period, float(content)))
        else:
            message = f"{place}: {content!r} is not a price (more than 0, at most {LARGEST:g}); not accepted"
            findings.append(Finding("implausible-value", "error", message, series.id, period))
    findings += [_unknown(series.id, text, places) for text, places in markers.items()]
    return rows, findings


def _unknown(series: str, text: str, places: list[tuple[str, str]]) -> Finding:
    period, place = places[-1]
    shown = repr(text) if text else "an empty cell"
    message = f"{place}: {shown} is neither a figure nor a known sign for a missing one ({len(places)} cells)"
    severity: Severity = "error" if any(c.isdigit() for c in text) else "warning"
    evidence = {"marker": text, "first": places[0][1], "cells": len(places)}
    return Finding("unknown-marker", severity, message, series, period, evidence)


# ------------------------------------------------------------------------------------- this layout


def _read(sheet: str, grid: Grid, first: int, series: Mapping[str, Series], where: Mapping[str, int]) -> Parsed:
    """Take the figures of the columns that were found, from the first month on."""
    months = _months(sheet, grid, first, list(where.values()))
    rows: Rows = []
    findings: list[Finding] = []
    for key, column in where.items():
        cells = ((period, cell(sheet, i, column), grid[i][column]) for i, period in months)
        more_rows, more_findings = figures(series[key], cells, MISSING)
        rows += more_rows
        findings += more_findings
    observations, twins = without_duplicates(frame(rows))
    published, doubts = _stamp(sheet, grid[:first], max(period for _, period in months))
    absent = tuple(key for key in series if key not in where)
    return Parsed(observations, published, (*findings, *twins, *doubts), absent)


def _wanted(columns: Sequence[Sequence[str]]) -> dict[str, Series]:
    """Series for columns that no setting describes, by place: a name of theirs need not be an id."""
    return {
        f"column-{i}": Series(
            id=f"column-{i}",
            kind="other",
            unit="as published",
            frequency="monthly",
            origin="world-bank",
            column=column,
            aliases=tuple(aliases),
        )
        for i, (column, *aliases) in enumerate(columns)
    }


def _whole(sheet: str, parsed: Parsed, wanted: Mapping[str, Series]) -> Table:
    """Columns by name; refused where one is absent or a figure was not accepted."""
    if parsed.absent:
        lacking = ", ".join(repr(wanted[key].column) for key in parsed.absent)
        raise ParseError(f"{sheet}: no column {lacking}: the layout has changed, or an alias is lacking")
    if wrong := [f for f in parsed.findings if f.severity == "error"]:
        raise ParseError(wrong[0].message)
    values = parsed.observations.pivot(index="period", columns="series", values="value").reindex(columns=list(wanted))
    return Table(parsed.published, values.set_axis([s.column for s in wanted.values()], axis="columns"))


def _first_month(sheet: str, grid: Grid) -> int:
    for i, row in enumerate(grid):
        if row and _MONTH.fullmatch(str(row[0]).strip()):
            return i
    raise ParseError(f"{sheet}!A: no month such as 1960M01 in the column: the layout has changed")


def _units_row(grid: Grid, first: int) -> int:
    """Find the row in which every filled cell is a bracketed unit; a row of codes may follow it."""
    for i in range(first - 1, max(first - 3, 0), -1):
        filled = [str(x).strip() for x in grid[i][1:] if str(x).strip()]
        if filled and all(_UNIT.fullmatch(text) for text in filled):
            return i
        if any(isinstance(x, float) for x in grid[i]):
            break
    place = cell(SHEET, first, 0)
    raise ParseError(f"{place}: no row of units such as ($/mt) one or two rows above: the layout has changed")


def _locate(grid: Grid, units: int, series: Mapping[str, Series]) -> dict[str, int]:
    names: dict[str, list[int]] = {}
    for j, name in enumerate(grid[units - 1]):
        if j and normal(name):
            names.setdefault(normal(name), []).append(j)
    where: dict[str, int] = {}
    for key, one in series.items():
        wanted = dict.fromkeys(normal(name) for name in (one.column, *one.aliases))
        found = [j for name in wanted for j in names.get(name, [])]
        if len(found) > 1:
            places = " and ".join(f"{cell(SHEET, units - 1, j)} {grid[units - 1][j]!r}" for j in found)
            raise ParseError(f"{places}: two columns for series {key}; change its column or aliases")
        if found:
            where[key] = found[0]
            _check_unit(grid, units, found[0], one)
    if not where or 2 * len(where) < len(series):
        lacking = ", ".join(repr(s.column) for key, s in series.items() if key not in where)
        row = cell(SHEET, units - 1, 1)
        raise ParseError(
            f"{row}: only {len(where)} of {len(series)} configured columns, without {lacking}: the layout has changed"
        )
    return where


def _check_unit(grid: Grid, units: int, column: int, series: Series) -> None:
    unit = str(grid[units][column])
    for text in series.expect:
        if not shows(unit, text):
            raise ParseError(f"{cell(SHEET, units, column)}: unit {unit!r} where series {series.id} expects {text!r}")


def _months(sheet: str, grid: Grid, first: int, located: list[int]) -> list[tuple[int, str]]:
    """Return (row, ISO month) of the data rows; remarks below the data are left out."""
    months = []
    for i in range(first, len(grid)):
        label = str(grid[i][0]).strip()
        match = _MONTH.fullmatch(label)
        if match:
            months.append((i, f"{match[1]}-{match[2]}"))
        elif any(isinstance(grid[i][j], float) for j in located):
            raise ParseError(f"{cell(sheet, i, 0)}: {label!r} is no month such as 1960M01, yet its row has figures")
    return months


def _stamp(sheet: str, head: Grid, last: str) -> tuple[dt.date | None, list[Finding]]:
    text = "\n".join(str(x) for row in head for x in row if x)
    match = _STAMP.search(text)
    try:
        if match is None:
            raise ValueError("no such text above the names")
        stamp = dt.datetime.strptime(match[1], "%B %d, %Y").replace(tzinfo=dt.UTC).date()
    except ValueError as error:
        return None, [Finding("no-stamp", "warning", f"{sheet}: no date 'Updated on <Month DD, YYYY>': {error}")]
    if f"{stamp:%Y-%m}" < last:
        message = f"{sheet}: updated on {stamp}, yet the last row is {last}"
        return stamp, [Finding("stamp-before-data", "warning", message, None, last)]
    return stamp, []
