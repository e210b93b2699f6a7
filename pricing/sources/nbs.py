"""National Bureau of Statistics of China: ten-day market prices of important means of production.

Sellers' wholesale prices from some 300 markets in 31 provinces, with the costs and profit of
circulation and with taxes. A bulletin speaks of days 1-10, 11-20 or 21 to the end of a month and
appears about the 4th, 14th or 24th; the period of a figure is its last day. The list of bulletins:
https://www.stats.gov.cn/sj/zxfb/

A page holds one period and may repeat its table for another size of screen. The day in its address
is that of the file, up to years from the day of publication, and is not read. The basket was renewed
with 2026-01-10: polysilicon and lithium iron phosphate came in, and the changes of that bulletin
compare like with like, so they are not the differences of the levels. Some periods were never issued.
"""

from __future__ import annotations

import calendar
import csv
import datetime as dt
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import urljoin

from pricing.config import Series, Source
from pricing.errors import ConfigError, ParseError
from pricing.quality import Finding
from pricing.sources import Parsed, frame, without_duplicates

NEVER_ISSUED = frozenset(
    {"2021-02-20", "2022-02-10", "2023-01-31", "2024-02-20", "2025-01-31", "2025-10-10", "2026-02-20"}
)
"""Around the Spring Festival, and once the National Day, no bulletin was issued."""
UNITS = {
    "CNY/t": frozenset({"吨", "ton", "tons", "tonne", "tonnes", "t", "metricton"}),
    "CNY/kg": frozenset({"千克", "公斤", "kg", "kilogram", "kilograms"}),
}
MOST = 1e9
ROUNDING = 0.15
"""Percentage points by which change and percentage may differ; more where the price has few digits."""
LATEST_DAYS = 31
"""A bulletin is out a few days after its period; pages that moved to another site bear later days."""

_MONTHS = "janfebmaraprmayjunjulaugsepoctnovdec"
_BULLETIN = "流通领域重要生产资料市场价格变动情况"
_TITLES = (
    re.compile(rf"(?<!\d)(?P<y>\d{{4}})年(?P<m>\d{{1,2}})月(?P<part>[上中下])旬{_BULLETIN}"),
    re.compile(rf"{_BULLETIN}\((?P<y>\d{{4}})年(?P<m>\d{{1,2}})月(?P<a>\d{{1,2}})日?[-–—~至](?P<b>\d{{1,2}})日\)"),
    re.compile(
        r"importantmeansofproduction[^\d\n]{0,60}?(?P<name>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|"
        r"aug(?:ust)?|sep(?:t|tember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
        r"(?P<a>\d{1,2})(?:[-–—~]|to)(?P<b>\d{1,2}),?(?P<y>\d{4})"
    ),
)
_DECADES = {"上": (1, 10), "中": (11, 20), "下": (21, 31)}
_YUAN = r"\((?:rmb|cny|yuan|rmbyuan|yuanrmb)\)"
_HEADS = {
    "name": re.compile(r"产品名称|(?:nameof(?:the)?)?products?(?:names?)?"),
    "unit": re.compile(r"(?:计量)?单位|units?"),
    "price": re.compile(rf"本期价格\(元\)|(?!.*change)(?=.*price)(?=.*(?:this|current)).*{_YUAN}"),
    "change": re.compile(rf"比上期价格涨跌\(元\)|(?=.*(?:change|increase)).*{_YUAN}"),
    "percent": re.compile(r"涨跌幅\(%\)|(?=.*(?:change|increase|rate|percent)).*\(%\)"),
}
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d+)?|\d{1,3}(?:,\d{3})+\.\d+)", re.ASCII)
_DAY = r"(20\d\d)[-/年](\d{1,2})[-/月](\d{1,2}?)日?(?=\d\d:\d\d|\D|$)"
_LABELLED = re.compile(rf"(?:发布时间|发布日期|releasetime|releasedate|published|pubdate)[:：]?{_DAY}")
_BARE = re.compile(rf"{_DAY}(?:\d\d:\d\d(?::\d\d)?)?")
_INLINE = frozenset({"a", "b", "em", "font", "i", "o:p", "span", "strong", "sub", "sup", "u"})
_CSV = ("year", "month", "xun", "good_name", "unit", "current_price")

Grid = list[list[str]]


class _Row(NamedTuple):
    period: str
    name: str
    unit: str
    price: str
    change: str
    percent: str
    place: str


def parse(raw: bytes, series: Mapping[str, Series], source: Source) -> Parsed:
    """Read one bulletin, or a kept history of bulletins as CSV, in CNY per the unit of the product.

    Parameters
    ----------
    raw : bytes
        A page (Chinese or English; UTF-8 or gb18030 with its subsets), or a CSV with the columns
        ``year, month, xun, good_name, unit, current_price`` where ``xun`` is 1, 2 or 3.
    series : mapping of id to Series
        ``column`` and ``aliases`` name the product; blanks, case and the width of brackets do not
        matter. Periods before ``since`` are not read.
    source : Source
        Not used.

    Returns
    -------
    Parsed
        ``period`` is the last of the ten days; ``published`` the day that the page shows, None for a
        CSV. Findings: ``implausible-value`` (error), ``no-figure``, ``inconsistent-change``, for a
        CSV ``missing-period``, and ``implausible-stamp``.

    Raises
    ------
    ParseError
        Neither form; a page of something else, of two periods, cut off, or with other columns; a
        product in another unit; a number that can be read in two ways; none of the products.
    ConfigError
        A series that is not ten-day, or not in CNY/t or CNY/kg.
    """
    wanted = _wanted(series)
    text = _decoded(raw)
    history = not text.startswith("<")
    doubts: list[Finding] = []
    published = None
    if history:
        lines = _csv(text)
    else:
        page = _Page(text)
        period = _period_of(page)
        lines = _table(page, period)
        published, doubts = _stamp(page, dt.date.fromisoformat(period))
    rows: list[tuple[str, str, float]] = []
    carried: set[str] = set()
    for line in lines:
        for one in wanted.get(normal(line.name), ()):
            carried.add(one.id)
            if line.period >= one.since:
                value, more = _figure(line, one)
                rows += [(one.id, line.period, value)] if value is not None else []
                doubts += more
    last = max(line.period for line in lines)
    due = [key for key, one in series.items() if last >= one.since]
    if due and not carried:
        names = ", ".join(repr(series[key].column) for key in due)
        raise ParseError(f"none of the products {names} among {len(lines)} rows: another bulletin, or other names")
    observations, twins = without_duplicates(frame(rows))
    if history:
        doubts += _holes(rows, last)
    return Parsed(observations, published, (*doubts, *twins), tuple(key for key in due if key not in carried))


def find_link(html: str, source: Source) -> str | None:
    """Return the address of the newest bulletin on a list page. None where no bulletin is linked."""
    links = find_links(html, source)
    return links[max(links)] if links else None


def find_links(html: str, source: Source) -> dict[str, str]:
    """Return the address of each bulletin on a list page by the period in its title.

    A list links each bulletin several times, once with its title cut short; ``source.link`` is the
    expression that the whole address matches in part.
    """
    found = []
    for href, names in _Page(html).links:
        address = urljoin(source.landing, href)
        periods = {p for name in names for p in _periods(normal(name))}
        if len(periods) == 1 and source.link and re.search(source.link, address):
            found.append((periods.pop(), address))
    return dict(sorted(found))


def list_page(landing: str, number: int) -> str:
    """Return the address of a page of the list; 0 is the newest."""
    return urljoin(landing, f"index_{number}.html") if number else landing


def missing_periods(periods: Iterable[str]) -> list[str]:
    """Return the ten-day periods between the first and the last that are not there, apart from `NEVER_ISSUED`.

    Raises
    ------
    ValueError
        A period that is not the last day of ten days.
    """
    have = set(periods)
    if not have:
        return []
    expected = _ten_days(min(have), max(have))
    strange = have.difference(expected)
    if strange:
        raise ValueError(f"not the 10th, the 20th or the last day of a month: {', '.join(sorted(strange))}")
    return [p for p in expected if p not in have and p not in NEVER_ISSUED]


def normal(name: str) -> str:
    """Return a name without its drift: width of characters, blanks, case, stars that point to a footnote."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[\s\u200b\ufeff]+", "", folded).rstrip("*")


def _wanted(series: Mapping[str, Series]) -> dict[str, list[Series]]:
    wanted: dict[str, list[Series]] = {}
    for key, one in series.items():
        if one.frequency != "ten-day" or one.unit not in UNITS:
            raise ConfigError(f"series {key}: these bulletins hold ten-day prices in {' or '.join(UNITS)}")
        for name in dict.fromkeys(normal(n) for n in (one.column, *one.aliases)):
            wanted.setdefault(name, []).append(one)
    return wanted


def _decoded(raw: bytes) -> str:
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return raw.decode(encoding).lstrip()
        except UnicodeDecodeError:
            continue
    raise ParseError(f"neither UTF-8 nor gb18030 text: begins with {raw[:40]!r}")


# ------------------------------------------------------------------------------------- periods


def _last_day(year: int, month: int, part: int) -> str:
    """Return the last day of the first, second or third ten days of a month."""
    try:
        return dt.date(year, month, (10, 20, calendar.monthrange(year, month)[1])[part]).isoformat()
    except (ValueError, IndexError) as error:
        raise ParseError(f"no ten-day period: year {year}, month {month}, part {part + 1}") from error


def _ten_days(first: str, last: str) -> list[str]:
    months = range(int(first[:4]) * 12 + int(first[5:7]) - 1, int(last[:4]) * 12 + int(last[5:7]))
    every = [_last_day(n // 12, n % 12 + 1, part) for n in months for part in range(3)]
    return [p for p in every if first <= p <= last]


def _periods(text: str) -> set[str]:
    """Return the periods of all titles in a text without blanks."""
    out = set()
    for match in (m for pattern in _TITLES for m in pattern.finditer(text)):
        parts = match.groupdict()
        month = _MONTHS.index(parts["name"][:3]) // 3 + 1 if "name" in parts else int(parts["m"])
        first, last = _DECADES[parts["part"]] if "part" in parts else (int(parts["a"]), int(parts["b"]))
        if (first, min(last, 28)) not in ((1, 10), (11, 20), (21, 28)) or last > 31:
            raise ParseError(f"title {match[0]!r}: days {first} to {last} are no ten-day period")
        out.add(_last_day(int(parts["y"]), month, first // 10))
    return out


def _period_of(page: _Page) -> str:
    periods = _periods("\n".join(page.lines))
    if len(periods) != 1:
        said = f"bulletins of {', '.join(sorted(periods))}" if periods else "no title of a ten-day bulletin"
        raise ParseError(f"page {page.lines[0][:60] if page.lines else ''!r}: {said}; expected one {_BULLETIN}")
    return periods.pop()


# ----------------------------------------------------------------------------------- documents


class _Page(HTMLParser):
    """Tables, links, and the lines of text outside links, without blanks; what scripts write is not seen."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: list[Grid] = []
        self.open: list[Grid] = []
        self.links: list[tuple[str, list[str]]] = []
        self.meta: dict[str, str] = {}
        self._text: list[str] = []
        self._silent = self._linked = False
        try:
            self.feed(html)
            self.close()
        except AssertionError as error:  # so it says that a declaration is malformed
            raise ParseError(f"HTML: {error}") from error
        self._text += ["\n", self.meta.get("articletitle", "")]
        self.lines = [normal(line) for line in "".join(self._text).split("\n") if line.strip()]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self._break(tag)
        if tag in ("script", "style"):
            self._silent = True
        elif tag == "meta":
            self.meta.setdefault(given.get("name", "").casefold(), given.get("content", ""))
        elif tag == "a":
            self._linked = "href" in given
            if self._linked:
                self.links.append((given["href"], [given.get("title", ""), ""]))
        elif tag == "table":
            self.open.append([])
        elif tag == "tr" and self.open:
            self.open[-1].append([])
        elif tag in ("td", "th") and self.open and self.open[-1]:
            self.open[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._break(tag)
        if tag in ("script", "style"):
            self._silent = False
        elif tag == "a":
            self._linked = False
        elif tag == "table" and self.open:
            self.tables.append(self.open.pop())

    def handle_data(self, data: str) -> None:
        if self._silent:
            return
        if self._linked:
            self.links[-1][1][1] += data
        else:
            self._text.append(re.sub(r"\s+", " ", data))
        self._cell(data)

    def _break(self, tag: str) -> None:
        if tag not in _INLINE:
            self._text.append("\n")
            self._cell(" ")  # two numbers in one cell must not become one

    def _cell(self, text: str) -> None:
        if self.open and self.open[-1] and self.open[-1][-1]:
            self.open[-1][-1][-1] += text


def _table(page: _Page, period: str) -> list[_Row]:
    if any(_head(grid) is not None for grid in page.open):
        raise ParseError("the page ends within its table of prices: it was cut off")
    copies = [grid for grid in page.tables if _head(grid) is not None]
    if not copies:
        raise ParseError(f"no column 本期价格(元) in any of {len(page.tables)} tables: the layout has changed")
    grid, *others = ([_line(cells) for cells in copy] for copy in copies)
    if any(other != grid for other in others):
        raise ParseError(f"{len(copies)} tables of prices on the page, and they differ")
    head = _head(grid) or 0
    names = [normal(text) for text in grid[head]]
    where = {role: [j for j, text in enumerate(names) if form.fullmatch(text)] for role, form in _HEADS.items()}
    wrong = [role for role, columns in where.items() if len(columns) != 1]
    if wrong:
        raise ParseError(f"head of the table {' | '.join(names)}: cannot tell the column of {', '.join(wrong)}")
    rows = []
    for i, texts in enumerate(grid[head + 1 :], start=head + 2):
        if len(texts) == len(names):
            given = {role: texts[columns[0]] for role, columns in where.items()}
            rows.append(_Row(period, **given, place=f"row {i} {given['name']!r}"))
        elif len([text for text in texts if text]) > 1:
            raise ParseError(f"row {i} {' | '.join(texts)}: {len(texts)} cells under a head of {len(names)}")
    if not rows:
        raise ParseError("no row under the head of the table")
    return rows


def _head(grid: Grid) -> int | None:
    """Return the row that heads a column of prices."""
    return next((i for i, row in enumerate(grid) if any(_HEADS["price"].fullmatch(normal(c)) for c in row)), None)


def _line(cells: list[str]) -> list[str]:
    return [" ".join(cell.split()) for cell in cells]


def _csv(text: str) -> list[_Row]:
    try:
        lines = list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise ParseError(f"CSV: {error}") from error
    head = [cell.strip() for cell in lines[0]] if lines else []
    lacking = [name for name in _CSV if head.count(name) != 1]
    if lacking:
        raise ParseError(f"neither a page nor a CSV with the columns {', '.join(lacking)}: begins with {text[:40]!r}")
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(head):
            raise ParseError(f"line {number}: {len(cells)} cells under a head of {len(head)}")
        one = dict(zip(head, (cell.strip() for cell in cells), strict=True))
        when = [one[key] for key in ("year", "month", "xun")]
        place = f"line {number} {one['good_name']!r}"
        if not all(re.fullmatch(r"\d{1,4}", part, re.ASCII) for part in when) or when[2] not in ("1", "2", "3"):
            raise ParseError(f"{place}: {'-'.join(when)} is not year, month and ten days (1 to 3)")
        period = _last_day(int(when[0]), int(when[1]), int(when[2]) - 1)
        changes = one.get("price_change", ""), one.get("price_change_pct", "")
        rows.append(_Row(period, one["good_name"], one["unit"], one["current_price"], *changes, place))
    if not rows:
        raise ParseError("CSV: no line under the head")
    return rows


def _stamp(page: _Page, end: dt.date) -> tuple[dt.date | None, list[Finding]]:
    """Find the day of publication: in the page's own facts, behind its label, or the one day that stands alone."""
    written = _BARE.fullmatch(normal(page.meta.get("pubdate", "")))
    labelled = written or next((m for line in page.lines if (m := _LABELLED.search(line))), None)
    alone = {m.groups() for line in page.lines if (m := _BARE.fullmatch(line))}
    parts = labelled.groups() if labelled else alone.pop() if len(alone) == 1 else None
    if parts is None:
        return None, []
    try:
        day = dt.date(*(int(part) for part in parts))
    except ValueError:
        day = dt.date.min
    if end < day <= end + dt.timedelta(days=LATEST_DAYS):
        return day, []
    message = f"stamped {'-'.join(parts)}, which is not within {LATEST_DAYS} days after {end}; the stamp is not used"
    return None, [Finding("implausible-stamp", "note", message, None, end.isoformat())]


# ------------------------------------------------------------------------------------- figures


def _figure(row: _Row, one: Series) -> tuple[float | None, list[Finding]]:
    if normal(row.unit) not in UNITS[one.unit]:
        raise ParseError(f"{row.place}: unit {row.unit!r} where series {one.id} expects {one.unit}")
    value = _number(row.price, row.place)
    if value is None:
        message = f"{row.place}: {row.price!r} in place of a price"
        return None, [Finding("no-figure", "warning", message, one.id, row.period)]
    if not 0 < value <= MOST:
        message = f"{row.place}: {row.price!r} is not a price (more than 0, at most {MOST:g}); not accepted"
        return None, [Finding("implausible-value", "error", message, one.id, row.period)]
    change, percent = _number(row.change, row.place), _number(row.percent, row.place)
    if change is None or percent is None:
        return value, []
    before = value - change
    implied = 100 * change / before if before > 0 else float("nan")
    half_a_unit = 0.5 * 10.0 ** -len(row.change.partition(".")[2])
    allowed = max(ROUNDING, 100 * half_a_unit / before + 0.05) if before > 0 else 0.0
    if abs(implied - percent) <= allowed:
        return value, []
    message = f"{row.place}: {row.price} after a change of {row.change} is {implied:+.2f} %, not {row.percent} %"
    evidence = {"value": value, "change": change, "percent": percent}
    return value, [Finding("inconsistent-change", "warning", message, one.id, row.period, evidence)]


def _number(text: str, place: str) -> float | None:
    """Return the number, or None for a text without digits; never guess which mark is the decimal one."""
    plain = unicodedata.normalize("NFKC", text).strip().replace("−", "-")
    if _NUMBER.fullmatch(plain):
        return float(plain.replace(",", ""))
    if any(c.isdigit() for c in plain):
        raise ParseError(f"{place}: {text!r} is not one number with a decimal point")
    return None


def _holes(rows: list[tuple[str, str, float]], last: str) -> list[Finding]:
    """Say of each series which periods of a history it lacks, up to the history's last."""
    have: dict[str, set[str]] = {}
    for name, period, _ in rows:
        have.setdefault(name, set()).add(period)
    out = []
    for name, known in have.items():
        lacking = [p for p in _ten_days(min(known), last) if p not in known and p not in NEVER_ISSUED]
        if lacking:
            message = f"{name}: no figure for {len(lacking)} periods: {', '.join(lacking)}"
            out.append(Finding("missing-period", "warning", message, name, lacking[-1], {"periods": lacking}))
    return out
