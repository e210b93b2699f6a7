"""United States Census Bureau: imports by month, ten-digit tariff code (HTS10) and country of origin.

https://www.census.gov/data/developers/data-sets/international-trade.html and its Guide to International
Trade Datasets. A question is one code and one calendar year: users report that several codes answer with
nothing (HTTP 204), and long questions with a fault. The value is the customs value of general imports.

The answer is an array of arrays of text, names first; filters come back as further columns, under a name
that may stand there already. Among the countries stand their total (``-``, of level ``DET`` like them),
groupings (``0003`` European Union) and continents (``5XXX``): about threefold double counting. A quantity
``0`` is a zero or, with the flag ``M``, missing. Where two quantities are counted, their order and units
are the code's own (gross kilograms, then kilograms of metal; pieces, then kilograms), so the units of
every row are compared with those that the code must have. A country stays in the answer with zeros from
its first shipment of a year on; such rows are no trade.

Whoever sends the questions adds the key, does not follow redirects (a missing key is one, to a page of
HTML) and takes no answer but status 200 or 204 for one: a redirect has an empty body too.
"""

from __future__ import annotations

import codecs
import datetime as dt
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import orjson

from pricing.config import Code, Customs, Source
from pricing.declarations import Declared, Reply, Request, Scope, frame
from pricing.errors import ConfigError, ParseError
from pricing.quality import Finding

REPORTER = "US"
ASKED = (
    "I_COMMODITY_LDESC,CTY_NAME,CTY_CODE,GEN_VAL_MO,GEN_QY1_MO,GEN_QY1_MO_FLAG,UNIT_QY1,"
    "GEN_QY2_MO,GEN_QY2_MO_FLAG,UNIT_QY2,SUMMARY_LVL"
)
READ = ("I_COMMODITY", "time", *ASKED.split(",")[1:])
BREAKDOWNS = ("CTY_SUBCODE", "DISTRICT", "RP")
"""Dimensions that are totals unless asked for; a part of a cell must not be taken for the cell."""

_GRAMS = {"KG": 1000, "T": 1_000_000, "CKG": 1000, "PTG": 1, "PDG": 1}
_CONTAINED = ("CKG", "PTG", "PDG")
_GROSS = ("KG", "T")
_MONTH = re.compile(r"[12]\d{3}-(0[1-9]|1[0-2])", re.ASCII)
_COUNTRY = re.compile(r"(?!00)\d{4}", re.ASCII)
_GROUPING = re.compile(r"00\d\d|\dXXX", re.ASCII)
_KEY_PAGE = re.compile(r"(invalid|missing)[\s_-]+key", re.IGNORECASE)
_SECRET = re.compile(r"(?<=key=)[^&\s\"'<>]+|\b[0-9a-f]{40}\b", re.IGNORECASE)
_DIGITS = 15  # the width that the publisher states

Columns = dict[str, tuple[str | None, ...]]
Quantity = tuple[int, bool, str]
"""As counted, whether a flag stands beside it, and the unit."""


class _Row(NamedTuple):
    """One country's row; ``number`` is its place in the answer, the head being row 1."""

    code: str
    partner: str
    period: str
    value: int
    first: Quantity
    second: Quantity
    number: int

    @property
    def traded(self) -> bool:
        return bool(self.value or self.first[0] or self.second[0])

    @property
    def units(self) -> tuple[str, str]:
        return self.first[2], self.second[2]

    @property
    def name(self) -> str:
        return f"{self.code} from {self.partner} in {self.period}"


# --------------------------------------------------------------------------------- what to ask


def requests(source: Source, codes: Iterable[Code], done: Mapping[str, dt.datetime], now: dt.datetime) -> list[Request]:
    """Return the questions that are due: one per code and calendar year, the newest year first.

    A year is due when it was never had; while it is open (until 1 April of the next) and older than
    ``again_after_hours``; and once after each of its milestones: 1 April of the next year, and 1 July of
    the three years after it, since three prior years are revised every June.

    Parameters
    ----------
    source : Source
        With a table ``customs``.
    codes : iterable of Code
        Those of system HTS10 are asked for, the unconfirmed too, in the years of their validity.
    done : mapping of url to aware datetime
        When each question was last answered, an empty answer included.
    now : aware datetime
    """
    customs = _customs(source)
    known = _by_code(codes)
    out = []
    for year in range(now.year, int(customs.since) - 1, -1):
        first, last = f"{year}-01", f"{year}-12"
        for code, lives in known.items():
            if any(one.valid_from <= last and (not one.valid_to or one.valid_to >= first) for one in lives):
                request = _request(source.url, code, first, last)
                if _due(year, done.get(request.url), now, dt.timedelta(hours=customs.again_after_hours)):
                    out.append(request)
    return out


def halves(request: Request, source: Source) -> tuple[Request, Request] | None:
    """Split a question into two of half the months each; one month cannot be split."""
    first, last = (int(m[:4]) * 12 + int(m[5:]) - 1 for m in (request.scope.first, request.scope.last))
    if first >= last:
        return None
    middle = (first + last) // 2
    spans = ((first, middle), (middle + 1, last))
    code = request.scope.codes[0]
    early, late = (_request(source.url, code, *(f"{n // 12}-{n % 12 + 1:02d}" for n in span)) for span in spans)
    return early, late


def _request(url: str, code: str, first: str, last: str) -> Request:
    question = f"get={ASKED}&COMM_LVL=HS10&I_COMMODITY={code}&time=from+{first}+to+{last}"
    return Request(f"{url}?{question}", Scope((code,), first, last))


def _due(year: int, last: dt.datetime | None, now: dt.datetime, again_after: dt.timedelta) -> bool:
    if last is None:
        return True
    closes, *revised = (
        dt.datetime(year + later, month, 1, tzinfo=dt.UTC) for later, month in ((1, 4), (1, 7), (2, 7), (3, 7))
    )
    if now < closes and now - last > again_after:
        return True
    return any(last < milestone <= now for milestone in (closes, *revised))


def _customs(source: Source) -> Customs:
    if source.customs is None:
        raise ConfigError(f"source {source.title!r}: a table customs says what is asked for; there is none")
    return source.customs


def _by_code(codes: Iterable[Code]) -> dict[str, list[Code]]:
    """Return the lives of each HTS10 code: one code may have several, with other units."""
    out: dict[str, list[Code]] = {}
    for one in codes:
        if one.system == "HTS10":
            out.setdefault(one.code, []).append(one)
    return out


# ------------------------------------------------------------------------------ what was answered


def understood(raw: bytes) -> Reply:
    """Tell data from the pages and messages that this service sends with status 200.

    No message repeats a key, even where the answer does.
    """
    body = _body(raw)
    if not body:
        return Reply("empty", "no trade in the months asked for, or months that are not published yet")
    if body.startswith(b"["):
        try:
            _columns(raw)
        except ParseError as error:
            return Reply("fault", str(error))
        return Reply("data")
    text = body.decode("utf-8", "replace")
    page = _KEY_PAGE.search(text) if text.startswith("<") else None
    if page:
        return Reply(
            "wrong-key",
            f"the publisher says {page[0]!r}: the environment variable that customs.key_environment names "
            "must hold a valid key of the Census Data API",
        )
    return Reply("fault", _shown(text, 200))


def _body(raw: bytes) -> bytes:
    return raw.strip().removeprefix(codecs.BOM_UTF8).strip()


def _shown(text: str, most: int) -> str:
    return _SECRET.sub("…", " ".join(text.split()))[:most]


# -------------------------------------------------------------------------------------- reading


def declarations(raw: bytes, codes: Iterable[Code], source: Source) -> Declared:
    """Read one answer into cells, per country and month.

    Parameters
    ----------
    raw : bytes
        The JSON answer. Rows and columns may come in any order.
    codes : iterable of Code
        Rows of other codes are left out. ``units`` is what the rows must show, in their order.
    source : Source
        Not used.

    Returns
    -------
    Declared
        ``value`` in USD. ``kg`` on the code's ``basis``: contained metal where it is counted, else the
        product; NaN with ``no-quantity`` where the quantity read bears a flag, where no mass is counted
        and where more metal is contained than the product weighs. ``scope`` has no code whose units
        changed: nothing can be said of its cells. ``left_out`` by rule: ``other-code, total, grouping,
        duplicate, no-trade, unit-changed, outside-validity``.

        Findings: ``unit-changed`` (error; a code's rows are left out whole when one of them shows other
        units than the code's; only rows without any trade may leave their units blank),
        ``code-outside-validity`` (error), ``duplicate-cell`` (note; error where the rows differ and none
        is taken), ``content-ratio`` and ``total-differs`` (warning).

    Raises
    ------
    ParseError
        Not that layout; a column missing, or twice with other content; a figure that is not a plain
        whole number; a month, country or level of an unknown form; an answer broken down by district.
    """
    known = _by_code(codes)
    rows, totals, names, left = _rows(_columns(raw), known)
    rows, findings = _once(rows, left)
    findings += _against_totals(rows, totals)
    lives = {
        (code, period): next((one for one in known[code] if one.valid(period)), None)
        for code, period in {(row.code, row.period) for row in rows}
    }
    changed = _changed_units(rows, lives)
    findings += changed.values()
    outside: dict[str, list[_Row]] = {}
    cells = []
    for row in rows:
        life = lives[row.code, row.period]
        if not row.traded:
            left["no-trade"] += 1
        elif row.code in changed:
            left["unit-changed"] += 1
        elif life is None:
            left["outside-validity"] += 1
            outside.setdefault(row.code, []).append(row)
        else:
            kg, doubts = _kilograms(row)
            findings += doubts
            status = "no-quantity" if math.isnan(kg) else "normal"
            cells.append((row.code, REPORTER, row.partner, row.period, row.value, kg, status))
    findings += [_outside(code, those, known[code]) for code, those in outside.items()]
    seen = [key for key in {*lives, *totals} if key[0] not in changed]
    periods = [period for _, period in seen] or [""]
    scope = Scope(tuple(sorted({code for code, _ in seen})), min(periods), max(periods))
    # a doubted row is no news that its cell is gone
    held = frozenset({*changed, *outside, *(str(f.evidence["code"]) for f in findings if f.check == "duplicate-cell")})
    return Declared(frame(cells), scope, None, tuple(findings), names, dict(left), held)


def _columns(raw: bytes) -> Columns:
    """Return the columns of the answer by name; a repeated one must repeat its content too."""
    try:
        table = orjson.loads(_body(raw))
    except orjson.JSONDecodeError as error:
        raise ParseError(f"not JSON: {error}") from error
    if not (isinstance(table, list) and table and all(isinstance(row, list) for row in table)):
        raise ParseError("not an array of arrays with a head")
    head = table[0]
    for number, row in enumerate(table, start=1):
        if len(row) != len(head):
            raise ParseError(f"row {number}: {len(row)} cells under a head of {len(head)}")
    if not all(isinstance(name, str) for name in head):
        raise ParseError("row 1: the head holds other things than names")
    out: Columns = {}
    for name, cells in zip(head, list(zip(*table[1:], strict=True)) or [()] * len(head), strict=True):
        strange = set(map(type, cells)) - {str, type(None)}
        if strange:
            kinds = ", ".join(sorted(kind.__name__ for kind in strange))
            raise ParseError(f"column {_shown(name, 40)}: {kinds} where every cell is text or null")
        if out.setdefault(name, cells) != cells:
            raise ParseError(f"column {_shown(name, 40)} stands twice in the head, with different content")
    return out


def _rows(
    columns: Columns, known: Mapping[str, list[Code]]
) -> tuple[list[_Row], dict[tuple[str, str], set[int]], dict[str, str], Counter[str]]:
    """Read countries' rows, totals by code and month, countries' names, and count what is neither."""
    lacking = [name for name in READ if name not in columns]
    if lacking:
        raise ParseError(f"no column {', '.join(lacking)}: the layout has changed, or another question was asked")
    for name in BREAKDOWNS:
        if any(_plain(text) for text in columns.get(name, ())):
            raise ParseError(f"column {name} is broken down: its rows are parts of a country's imports")
    rows: list[_Row] = []
    totals: dict[tuple[str, str], set[int]] = {}
    names: dict[str, tuple[str, str]] = {}
    left: Counter[str] = Counter()
    for number, texts in enumerate(zip(*(columns[name] for name in READ), strict=True), start=2):
        code, period, name, partner, value, text_1, flag_1, unit_1, text_2, flag_2, unit_2, level = texts
        if code is None or code not in known:
            left["other-code"] += 1
            continue
        try:
            kind = _kind(partner, level)
            if kind == "grouping":
                left[kind] += 1
                continue
            month, amount = _month(period), _whole(value, "GEN_VAL_MO")
            if kind == "total" or partner is None:
                left["total"] += 1
                totals.setdefault((code, month), set()).add(amount)
                continue
            first = _quantity(text_1, flag_1, unit_1, "GEN_QY1_MO")
            second = _quantity(text_2, flag_2, unit_2, "GEN_QY2_MO")
        except ParseError as error:
            raise ParseError(f"row {number} ({code}, {partner}, {period}): {error}") from error
        rows.append(_Row(code, partner, month, amount, first, second, number))
        if name:
            names[partner] = max((month, name), names.get(partner, ("", "")))
    return rows, totals, {partner: name for partner, (_, name) in sorted(names.items())}, left


@lru_cache(maxsize=4096)
def _kind(partner: str | None, level: str | None) -> str:
    if level not in ("DET", "CGP"):
        raise ParseError(f"SUMMARY_LVL {level!r} is neither DET nor CGP")
    if partner == "-":
        return "total"
    if level == "CGP" or _GROUPING.fullmatch(partner or ""):
        return "grouping"
    if not _COUNTRY.fullmatch(partner or ""):
        raise ParseError(f"CTY_CODE {partner!r} is no country, grouping or total")
    return "country"


@lru_cache(maxsize=4096)
def _month(text: str | None) -> str:
    if text is None or not _MONTH.fullmatch(text):
        raise ParseError(f"time {text!r} is not a month, YYYY-MM")
    return text


def _quantity(text: str | None, flag: str | None, unit: str | None, column: str) -> Quantity:
    """Read one quantity; where no unit is shown, none need be given."""
    counted = _plain(unit)
    return _whole(text if counted or _plain(text) else "0", column), _plain(flag) != "", counted


def _whole(text: str | None, column: str) -> int:
    if text is not None and len(text) <= _DIGITS and text.isascii() and text.isdigit():
        return int(text)
    raise ParseError(f"{column} {text!r} is not a plain whole number of at most {_DIGITS} digits")


@lru_cache(maxsize=4096)
def _plain(text: str | None) -> str:
    """Return a text, empty where it says nothing: the publisher writes null, blanks or a dash."""
    stripped = (text or "").strip()
    return "" if stripped == "-" else stripped


# --------------------------------------------------------------------------------------- judging


def _once(rows: list[_Row], left: Counter[str]) -> tuple[list[_Row], list[Finding]]:
    """Keep one of rows that repeat each other, and none of those that contradict each other."""
    out, findings = [], []
    for _, group in groupby(sorted(rows), key=lambda row: row[:3]):
        one, *others = group
        if others:
            same = all(other[3:-1] == one[3:-1] for other in others)
            values = [row.value for row in (one, *others)]
            message = f"{one.name}: {len(values)} rows, " + ("all the same, one kept" if same else "none accepted")
            evidence = {"code": one.code, "partner": one.partner, "values": values}
            findings.append(Finding("duplicate-cell", "note" if same else "error", message, None, one.period, evidence))
            left["duplicate"] += len(others) if same else len(values)
            if not same:
                continue
        out.append(one)
    return out, findings


def _against_totals(rows: Iterable[_Row], totals: Mapping[tuple[str, str], set[int]]) -> list[Finding]:
    """Say where the countries do not add up to the publisher's own total: a country is lacking, or twice."""
    sums: Counter[tuple[str, str]] = Counter()
    for row in rows:
        sums[row.code, row.period] += row.value
    findings = []
    for (code, period), said in sorted(totals.items()):
        if said != {sums[code, period]}:
            stated = " and ".join(str(value) for value in sorted(said))
            message = f"{code} in {period}: the countries sum to {sums[code, period]} USD, the total says {stated}"
            evidence = {"code": code, "sum": sums[code, period], "total": sorted(said)}
            findings.append(Finding("total-differs", "warning", message, None, period, evidence))
    return findings


def _changed_units(rows: Iterable[_Row], lives: Mapping[tuple[str, str], Code | None]) -> dict[str, Finding]:
    """Find the codes of which a row shows other units than it must; nothing of them is read."""
    wrong: dict[str, list[_Row]] = {}
    for row in rows:
        life = lives[row.code, row.period]
        if life is None:
            continue
        shown = zip(row.units, (*life.units, "", "")[:2], strict=True)
        if any(unit != due and (unit or row.traded) for unit, due in shown):
            wrong.setdefault(row.code, []).append(row)
    findings = {}
    for code, those in wrong.items():
        life = lives[code, those[0].period]
        expected = " ".join(life.units if life else ())
        found = sorted({" ".join(row.units).strip() or "none" for row in those})
        periods = sorted({row.period for row in those})
        message = (
            f"{code}: units {' / '.join(found)} where {expected or 'none'} must stand, in {len(those)} rows of "
            f"{periods[0]} to {periods[-1]}; no row of the code is read: enter the new units with their first month"
        )
        evidence = {"code": code, "expected": expected, "found": found, "periods": periods, "rows": len(those)}
        findings[code] = Finding("unit-changed", "error", message, None, periods[0], evidence)
    return findings


def _kilograms(row: _Row) -> tuple[float, list[Finding]]:
    """Return the mass on the code's basis, NaN where there is none that can be used."""
    contained, gross = _grams(row, _CONTAINED), _grams(row, _GROSS)
    if contained is None:
        return (math.nan if gross is None else gross / 1000), []
    if gross is None or math.isnan(contained + gross) or contained == gross == 0 or 0 < contained <= gross:
        return contained / 1000, []
    ratio = contained / gross if gross else math.inf
    message = f"{row.name}: {contained / 1000:g} kg contained in {gross / 1000:g} kg, a share of {ratio:.3g}"
    evidence = {"code": row.code, "partner": row.partner, "contained_kg": contained / 1000, "kg": gross / 1000}
    return math.nan, [Finding("content-ratio", "warning", message, None, row.period, evidence)]


def _grams(row: _Row, units: tuple[str, ...]) -> float | None:
    """Return the quantity that stands in one of the units, NaN where it bears a flag; None without such a unit."""
    for quantity, flagged, unit in (row.first, row.second):
        if unit in units:
            return math.nan if flagged else float(quantity * _GRAMS[unit])
    return None


def _outside(code: str, rows: list[_Row], lives: list[Code]) -> Finding:
    periods = sorted({row.period for row in rows})
    valid = ", ".join(f"{one.valid_from or '…'} to {one.valid_to or '…'}" for one in lives)
    message = (
        f"{code}: {sum(row.value for row in rows)} USD in {periods[0]} to {periods[-1]}, but the code is entered "
        f"as valid {valid}; not read: mend its validity"
    )
    evidence = {"code": code, "periods": periods, "rows": len(rows)}
    return Finding("code-outside-validity", "error", message, None, periods[0], evidence)
