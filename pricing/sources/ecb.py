"""European Central Bank: euro foreign exchange reference rates, units of a currency per one euro.

The Bank sends the same rates in four forms, told apart by their first bytes: the whole history as a
zip with one CSV, that CSV, XML of one day or of ninety, and a CSV of one day. Published on TARGET
days about 16:00 Frankfurt time; there is no rate for a holiday, and none is filled in.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from xml.etree.ElementTree import Element
from xml.etree.ElementTree import ParseError as XMLSyntaxError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from pricing.config import Series, Source
from pricing.errors import ConfigError, ParseError
from pricing.quality import Finding
from pricing.sources import Parsed, frame, without_duplicates

CUBE = "{http://www.ecb.int/vocabulary/2002-08-01/eurofxref}Cube"
MISSING = frozenset({"", "N/A"})
LEAST, MOST = 1e-4, 1e7  # no currency ever quoted (TRL 1,900,000 per euro) lies outside
_RATE = re.compile(r"\d+(\.\d+)?", re.ASCII)

Quote = tuple[dt.date, str, str, str]  # day, currency, rate as written, the place in the document


def parse(raw: bytes, series: Mapping[str, Series], source: Source) -> Parsed:
    """Read reference rates, in units of ``currency_of`` per 1 EUR, period an ISO day.

    ``published`` is the newest day in the document. Raises ParseError when a rate is not a plain
    positive decimal within [1e-4, 1e7], when a day is a Saturday or Sunday, or when the document is
    none of the known forms; ConfigError when a series is not a daily exchange rate.
    """
    wanted = _currencies(series)
    days, quotes, carried = _read(raw, source.max_bytes)
    rows: list[tuple[str, str, float]] = []
    findings: list[Finding] = []
    for day, currency, text, place in quotes:
        for name in wanted.get(currency, ()):
            value = _rate(text, place)
            if value is not None:
                rows.append((name, day.isoformat(), value))
            elif text not in MISSING:
                findings.append(
                    Finding(
                        "unknown-missing-marker",
                        "warning",
                        f"{place}: {text!r} taken as missing",
                        name,
                        day.isoformat(),
                    )
                )
    observations, twins = without_duplicates(frame(sorted(rows)))
    absent = tuple(name for currency, names in wanted.items() if currency not in carried for name in names)
    return Parsed(observations, max(days), (*findings, *twins), absent)


def _currencies(series: Mapping[str, Series]) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    for name, s in series.items():
        if s.kind != "fx" or s.currency_of is None or s.frequency != "daily":
            raise ConfigError(
                f"series {name}: the ECB parser reads daily exchange rates: kind = 'fx', frequency = 'daily'"
            )
        wanted.setdefault(s.currency_of, []).append(name)
    return wanted


def _read(raw: bytes, max_bytes: int) -> tuple[set[dt.date], list[Quote], set[str]]:
    """Return the days, the quotes and the currencies of a document of any form."""
    body = _unzipped(raw, max_bytes) if raw.startswith(b"PK") else raw
    body = body.removeprefix(b"\xef\xbb\xbf").lstrip()
    if body.startswith(b"<"):
        quotes = list(_xml(body))
        days, carried = {day for day, *_ in quotes}, {currency for _, currency, *_ in quotes}
    elif body.startswith(b"Date,"):
        quotes, carried = _csv(body)
        days = {day for day, *_ in quotes}
    else:
        raise ParseError(f"neither zip, XML nor a CSV whose head begins with 'Date,': begins with {body[:40]!r}")
    if not days:
        raise ParseError("no dated rate in the document")
    return days, quotes, carried


def _unzipped(raw: bytes, max_bytes: int) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            if len(members) != 1 or not members[0].filename.lower().endswith(".csv"):
                raise ParseError(f"zip: expected one CSV, found {[m.filename for m in members]}")
            with archive.open(members[0]) as stream:  # the size that the directory states may be a lie
                body = stream.read(max_bytes + 1)
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, OSError, ValueError) as error:
        raise ParseError(f"zip: {error}") from error
    if len(body) > max_bytes:
        raise ParseError(f"zip: {members[0].filename} unpacks to more than max_bytes = {max_bytes}")
    return body


def _xml(body: bytes) -> Iterator[Quote]:
    try:
        root: Element = fromstring(body, forbid_dtd=True)
    except (XMLSyntaxError, DefusedXmlException, ValueError, LookupError) as error:
        raise ParseError(f"XML: {error}") from error
    for cube in root.iter(CUBE):
        written = cube.get("time")
        if written is None:
            continue
        day = _day(written, f"Cube time={written!r}")
        for entry in cube.iter(CUBE):
            if entry is cube:
                continue
            currency, rate = entry.get("currency"), entry.get("rate")
            place = f"Cube time={written!r} currency={currency!r}"
            if currency is None or rate is None:
                raise ParseError(f"{place}: a rate needs both attributes, currency and rate")
            yield day, currency, rate.strip(), place


def _csv(body: bytes) -> tuple[list[Quote], set[str]]:
    try:
        lines = list(csv.reader(io.StringIO(body.decode("ascii")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ParseError(f"CSV: {error}") from error
    head = [cell.strip() for cell in lines[0]]
    named = [c for c in head[1:] if c]  # the trailing comma makes a last column without a name
    if len(set(named)) < len(named):
        raise ParseError(f"line 1: a currency stands twice in the head: {', '.join(named)}")
    quotes: list[Quote] = []
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(head):
            raise ParseError(f"line {number}: {len(cells)} cells under a head of {len(head)}")
        day = _day(cells[0].strip(), f"line {number}")
        quotes += [
            (day, currency, cell.strip(), f"line {number} ({day}), column {currency}")
            for currency, cell in zip(head[1:], cells[1:], strict=True)
            if currency
        ]
    return quotes, set(named)


def _day(text: str, place: str) -> dt.date:
    for form in ("%Y-%m-%d", "%d %B %Y"):
        try:
            day = dt.datetime.strptime(text, form).date()  # noqa: DTZ007 - a day, not an instant
        except ValueError:
            continue
        if day.weekday() >= 5:
            raise ParseError(f"{place}: {day} is a {day:%A}; reference rates are set on working days only")
        return day
    raise ParseError(f"{place}: {text!r} is not a day like 2026-04-13 or 13 April 2026")


def _rate(text: str, place: str) -> float | None:
    """Return the rate, or None for a text that holds no number; never guess at another decimal mark."""
    if _RATE.fullmatch(text):
        value = float(text)
        if LEAST <= value <= MOST:
            return value
        raise ParseError(f"{place}: rate {text} lies outside [{LEAST:g}, {MOST:g}] per euro")
    if any(c.isdigit() for c in text) or text.strip("+-").lower() in {"nan", "inf", "infinity"}:
        raise ParseError(f"{place}: rate {text!r} is not a positive decimal written with a point")
    return None
