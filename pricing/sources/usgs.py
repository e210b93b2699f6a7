"""U.S. Geological Survey: Mineral Commodity Summaries (MCS), world production and annual prices.

Three forms of the data release, told apart by the head:

* *world*, 2022 to 2024, one file per commodity: a row per country and kind of production, columns
  ``Prod_kt_2022`` and ``Prod_kt_est_2023``. The unit stands in the column's name.
* *salient*, 2022 to 2024, one file per commodity: five years of United States figures and prices.
* *long*, 2026: one file of all commodities, a row per figure, with a unit cell.

A series names its figure once per form. A name with a bar, ``COBALT|Mine production: rounded``, is
chapter and ``Statistics_detail`` of the long form (world total for production, United States for
anything else). A name without one is the ``Type`` of a world-total row, or a column of the salient
form. World files say nowhere which commodity they hold: ``Series.file`` has to. Salient files do, and it must
be the chapter.

Figures of the edition's last year are estimates, hence ``provisional``. Withheld (W), not available
(NA) and everything else that is not plainly one number has no row, and a note. Reserves are not
read: footnote digits are glued to their numbers.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pricing.config import Series, Source
from pricing.errors import ParseError
from pricing.quality import Finding
from pricing.sources import Parsed, frame, without_duplicates
from pricing.sources.table import number

# The publisher's spellings of the units in which a series may be declared.
UNITS = {
    "t": ("t", "metric tons"),
    "kt": ("kt", "thousand metric tons"),
    "Mt": ("Mt", "mmt", "million metric tons"),
    "kg": ("kg", "kilograms"),
    "USD/t": ("dt", "dollars per metric ton"),
    "USD/kg": ("dkg", "dollars per kilogram"),
    "USD/lb": ("dlb", "dollars per pound"),
    "USc/lb": ("ctslb", "cents per pound"),
    "USD/ozt": ("dto", "dtoz", "dollars per troy ounce"),
    "USD/mtu": ("dollars per dry metric ton unit",),
}
LONG_HEAD = ("MCS chapter", "Country", "Statistics_detail", "Unit", "Year", "Value", "Notes")
_EDITION = re.compile(r"MCS ?(20\d\d)")
_PRODUCTION = re.compile(r"Prod_(?:Sponge_)?(?P<unit>[A-Za-z]+?)(?P<est>_est)?_(?P<year>20\d\d)", re.IGNORECASE)
_PRICE = re.compile(r"Price_.*?_?(?P<unit>ctslb|dtoz|dto|dkg|dlb|dt)")
_WORLD = re.compile(r"world total\b(?: ?\([^)]*\))?(?:\d{1,2}|, excluding .*)?", re.IGNORECASE)  # 8: a footnote
_NOTE_UNIT = re.compile(r"units are ((?:thousand |million )?metric tons|kilograms)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Figure:
    """One cell that a series asked for, with what the document says about it."""

    series: str
    year: int
    text: str
    unit: str
    place: str
    estimated: bool
    note: str


def parse(raw: bytes, series: Mapping[str, Series], source: Source) -> Parsed:
    """Read one file of the MCS data release, values in the unit declared by the series, period a year.

    ``published`` is the edition's day in ``source.editions``. A unit is never converted: all editions
    so far give a commodity in one unit, and a file that states another one is refused.

    Raises
    ------
    ParseError
        The form or its years are not those of the edition, a unit differs from the series', two
        series read the same cells, or a per-commodity file holds none of the series asked for.
    """
    head, rows = _table(raw)
    if set(LONG_HEAD) <= set(head):
        edition, figures = _long(head, rows, series)
    elif head[:2] == ["Source", "Country"]:
        edition, figures = _world(head, rows, series)
    elif head[:3] == ["DataSource", "Commodity", "Year"]:
        edition, figures = _salient(head, rows, series)
    else:
        raise ParseError(f"line 1: not a head of the MCS data release: {', '.join(head[:8])}")
    found, findings = _values(figures, series, edition)
    observations, twins = without_duplicates(frame(found))
    published = source.editions.get(str(edition))
    if published is None:
        findings.append(Finding("unknown-edition", "warning", f"MCS {edition} has no publication day in editions"))
    seen = {f.series for f in figures}
    absent = tuple(name for name in series if name not in seen)
    return Parsed(observations, published, (*findings, *twins), absent)


def _table(raw: bytes) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the head and the rows that are not empty, each with its place and cells to the head's width."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")  # the 2026 file; its five undefined bytes are in no number
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(f"line {reader.line_num}", [" ".join(cell.split()) for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise ParseError(f"CSV: {error}") from error
    filled = [(place, cells) for place, cells in lines if any(cells)]
    if len(filled) < 2:
        raise ParseError("no head and rows in the file")
    head = filled[0][1]
    for place, cells in filled[1:]:
        if len(cells) < len(head) and any(head[len(cells) :]):
            raise ParseError(f"{place}: {len(cells)} cells under a head of {len(head)}")
    return head, filled[1:]


# --------------------------------------------------------------------------------------- forms


def _world(
    head: list[str], rows: list[tuple[str, list[str]]], series: Mapping[str, Series]
) -> tuple[int, list[Figure]]:
    edition = _edition(rows)
    columns = [(i, m) for i, h in enumerate(head) if (m := _PRODUCTION.fullmatch(h))]
    years = sorted(int(m["year"]) for _, m in columns)
    if years != [edition - 2, edition - 1]:
        raise ParseError(f"line 1: MCS {edition} gives production of {edition - 2} and {edition - 1}, not of {years}")
    totals: dict[str, tuple[str, list[str]]] = {}
    for place, cells in rows:
        if _WORLD.fullmatch(cells[1]):
            if _plain(cells[2]) in totals:
                raise ParseError(f"{place}: a second world total of {cells[2]!r}")
            totals[_plain(cells[2])] = place, cells
    notes = next((i for i, h in enumerate(head) if h.lower() in ("prod_notes", "prod_note")), None)
    figures = []
    for name, kind in _claims(series, list(totals), "world total"):
        place, cells = totals[kind]
        note = f"{cells[1]}. {cells[notes] if notes is not None else ''}"
        for i, m in columns:
            estimated = bool(m["est"]) or int(m["year"]) == edition - 1
            where = f"{place}, column {head[i]}"
            figures.append(Figure(name, int(m["year"]), cells[i], m["unit"], where, estimated, note))
    return edition, figures


def _salient(
    head: list[str], rows: list[tuple[str, list[str]]], series: Mapping[str, Series]
) -> tuple[int, list[Figure]]:
    edition = _edition(rows)
    rows = [(place, cells) for place, cells in rows if cells[0]]
    years = [cells[2] for _, cells in rows]
    if years != [str(edition - n) for n in (5, 4, 3, 2, 1)]:
        raise ParseError(f"column Year: MCS {edition} gives the five years to {edition - 1}, not {', '.join(years)}")
    commodities = {cells[1] for _, cells in rows}
    chapters = {_plain(text) for text in commodities}
    series = {n: s for n, s in series.items() if {_plain(x.split("|")[0]) for x in _names(s) if "|" in x} == chapters}
    if not series:
        raise ParseError(f"column Commodity: {', '.join(sorted(commodities))} is the chapter of none of the series")
    names = [h for h in head[3:] if h]
    figures = []
    for name, kind in _claims(series, [_plain(h) for h in names if names.count(h) == 1], "column"):
        i = next(i for i, h in enumerate(head) if _plain(h) == kind)
        match = _PRICE.fullmatch(head[i])
        unit = match["unit"] if match else ""
        for place, cells in rows:
            year = int(cells[2])
            where = f"{place}, column {head[i]}"
            figures.append(Figure(name, year, cells[i], unit, where, year == edition - 1, ""))
    return edition, figures


def _long(head: list[str], rows: list[tuple[str, list[str]]], series: Mapping[str, Series]) -> tuple[int, list[Figure]]:
    at = {h: i for i, h in enumerate(head)}
    owners: dict[tuple[str, str, str], str] = {}
    for name, s in series.items():
        for spelled in (n for n in _names(s) if "|" in n):
            chapter, _, detail = spelled.partition("|")
            country = "world total" if s.kind == "production" else "united states"
            other = owners.setdefault((_plain(chapter), _plain(detail), country), name)
            if other != name:
                raise ParseError(f"series {name} and {other} both read {spelled!r}")
    edition = 1 + max((int(c[at["Year"]]) for _, c in rows if re.fullmatch(r"20\d\d", c[at["Year"]])), default=0)
    figures = []
    for place, cells in rows:
        key = _plain(cells[at["MCS chapter"]]), _plain(cells[at["Statistics_detail"]]), cells[at["Country"]].lower()
        owner = owners.get(key)
        if owner is None:
            continue
        if not re.fullmatch(r"20\d\d", cells[at["Year"]]):
            raise ParseError(f"{place}, column Year: {cells[at['Year']]!r} is not a year")
        year, note = int(cells[at["Year"]]), cells[at["Notes"]]
        estimated = year == edition - 1 or note.startswith("Estimated")
        figures.append(Figure(owner, year, cells[at["Value"]], cells[at["Unit"]], place, estimated, note))
    if series and not figures:
        raise ParseError(
            f"none of the series is in the file; its chapters are {', '.join(sorted({c[0] for _, c in rows}))}"
        )
    return edition, figures


def _claims(series: Mapping[str, Series], there: list[str], what: str) -> Iterable[tuple[str, str]]:
    """Pair each series with the one name that it goes by in this file."""
    owners: dict[str, str] = {}
    for name, s in series.items():
        hits = [n for n in dict.fromkeys(map(_plain, _names(s))) if n in there]
        if len(hits) > 1:
            raise ParseError(f"series {name}: more than one {what} fits: {hits}")
        for hit in hits:
            if hit in owners:
                raise ParseError(f"series {name} and {owners[hit]} both read the {what} {hit!r}: part them by file")
            owners[hit] = name
    if series and not owners:
        raise ParseError(f"no {what} that a series names; there: {'; '.join(there)}")
    return [(name, hit) for hit, name in owners.items()]


def _edition(rows: list[tuple[str, list[str]]]) -> int:
    seen = {cells[0] for _, cells in rows if cells[0]}
    editions = {m[1] for text in seen if (m := _EDITION.fullmatch(text))}
    if len(editions) != 1 or any(not _EDITION.fullmatch(text) for text in seen):
        raise ParseError(f"the first column names no single edition such as MCS2024: {', '.join(sorted(seen)[:5])}")
    return int(editions.pop())


def _names(series: Series) -> list[str]:
    return [name for name in dict.fromkeys((series.column, *series.aliases)) if name]


def _plain(name: str) -> str:
    """Return a name without what drifts between files: case, outer blanks, a leading 'World (total)'."""
    return re.sub(r"^world (total )?", "", " ".join(name.lower().split()))


# -------------------------------------------------------------------------------------- figures


def _values(
    figures: list[Figure], series: Mapping[str, Series], edition: int
) -> tuple[list[tuple[str, str, float, str]], list[Finding]]:
    found: list[tuple[str, str, float, str]] = []
    findings: list[Finding] = []
    for f in figures:
        if str(f.year) < series[f.series].since:
            continue
        findings += _check_unit(f, series[f.series])
        value = number(f.text, thousands=",")
        if value is None:
            message = f"MCS {edition}, {f.place}: {f.text!r} is not one number; no figure taken"
            findings.append(Finding("withheld", "note", message, f.series, str(f.year)))
            continue
        if "exclud" in f.note.lower():
            message = f"MCS {edition}, {f.place}: {f.note}"
            findings.append(Finding("partial-total", "note", message, f.series, str(f.year)))
        found.append((f.series, str(f.year), value, "provisional" if f.estimated else "normal"))
    return found, findings


def _check_unit(figure: Figure, series: Series) -> list[Finding]:
    """Refuse a figure whose unit is not the series'; a unit stated in the row's own note outranks the head."""
    stated = _NOTE_UNIT.search(figure.note)
    unit = stated[1].lower() if stated else figure.unit
    known = series.expect or UNITS.get(series.unit, ())
    if unit not in known:
        raise ParseError(
            f"{figure.place}: unit {unit or '(none)'!r}, but series {figure.series} is in {series.unit}"
            f" (spelled {' or '.join(map(repr, known)) or 'in no known way: set expect'})"
        )
    if stated and figure.unit not in UNITS.get(series.unit, ()):
        message = f"{figure.place}: the head says {figure.unit!r}, the row's note {stated[1]!r}; the note is believed"
        return [Finding("unit-contradiction", "warning", message, figure.series, str(figure.year))]
    return []
