"""The bulk file of one month of Comext: all reporters, partners, products and procedures, 18 columns.

https://ec.europa.eu/eurostat/api/dissemination/files?file=comext%2FCOMEXT_DATA%2FPRODUCTS%2Ffull_v2_YYYYMM.7z

About 45 MB packed and 400 MB unpacked. Month 52 is the whole year. ``full_partxixu_v2_YYYYMM`` beside
it holds the United Kingdom and its parts only.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import py7zr
from py7zr.io import Py7zIO, WriterFactory

from pricing.config import Code
from pricing.declarations import Declared, Scope
from pricing.errors import ParseError
from pricing.sources.comext_cells import (
    COUNTRIES,
    KEY,
    MONTH,
    Test,
    assembled,
    held,
    nothing,
    numbers,
    refuse,
    sifted,
    valid_in,
)

COLUMNS = (
    "REPORTER,PARTNER,TRADE_TYPE,PRODUCT_NC,PRODUCT_SITC,PRODUCT_CPA21,PRODUCT_CPA22,PRODUCT_BEC,PRODUCT_BEC5,"
    "PRODUCT_SECTION,FLOW,STAT_PROCEDURE,SUPPL_UNIT,PERIOD,VALUE_EUR,VALUE_NAC,QUANTITY_KG,QUANTITY_SUPPL_UNIT"
)
SEVEN_ZIP = b"7z\xbc\xaf\x27\x1c"
MOST_BYTES = 2_000_000_000
"""Five times the largest month, unpacked."""
LEGACY = "columns DECLARANT …: the legacy layout (v1) of the files before 2025; take full_v2_YYYYMM"


def read(raw: bytes, by_code: Mapping[str, list[Code]]) -> Declared:
    """Read one month: extra-EU imports under normal procedure (1) or none (9), summed over procedures and units.

    Parameters
    ----------
    raw : bytes
        The 7z file or the .dat file in it.
    by_code : mapping of tariff code to its entries

    Raises
    ------
    ParseError
        Not the 18 columns, not one month, the United Kingdom only, a damaged archive, a bad number.
    """
    sieve = _Sieve(by_code)
    if raw.startswith(SEVEN_ZIP):
        _unpack(raw, sieve)
    else:
        sieve.write(raw)
    month = sieve.finish()
    table = pd.DataFrame(sieve.kept, columns=["line", *COLUMNS.split(",")], dtype=object)
    table = table.rename(columns={"REPORTER": "reporter", "PARTNER": "partner"})
    tests: list[Test] = [
        ("other-flow", "FLOW", lambda flow: flow != "1"),
        ("intra-eu", "TRADE_TYPE", lambda kind: kind != "E"),
        *COUNTRIES,
        ("other-procedure", "STAT_PROCEDURE", lambda procedure: procedure not in ("1", "9")),
    ]
    for column in ("reporter", "partner", "FLOW", "TRADE_TYPE", "STAT_PROCEDURE"):
        table[column] = table[column].astype("category")
    kept, left_out = sifted(table, tests)
    refuse(kept, "PERIOD", lambda text: f"{text[:4]}-{text[4:]}" == month, f"a row of {month}")
    part = kept["STAT_PROCEDURE"].astype("str") + " " + kept["SUPPL_UNIT"].astype("str")
    rows = kept[["reporter", "partner", "line"]].assign(
        code=kept["PRODUCT_NC"], period=pd.Categorical([month] * len(kept)), part=part, confidential=False
    )
    both = [
        rows.assign(what=what, number=numbers(kept, column))
        for what, column in (("value", "VALUE_EUR"), ("kg", "QUANTITY_KG"))
    ]
    # Sums must not depend on the order of rows.
    cells, findings, outside = assembled(pd.concat(both).sort_values([*KEY, "what", "part", "number"]), by_code)
    left_out += sieve.left_out
    valid = valid_in((code for known in by_code.values() for code in known), month, month)
    findings += nothing(cells, left_out)
    scope = Scope(tuple(valid), month, month)
    return Declared(cells, scope, None, tuple(findings), {}, dict(left_out + outside), held(findings))


class _Sieve(Py7zIO):
    """Lets through the lines of the wanted codes, so that 400 MB never stand in memory."""

    def __init__(self, wanted: Iterable[str]) -> None:
        self.kept: list[list[Any]] = []
        self.left_out: Counter[str] = Counter()
        self._rest = b""
        self._lines, self._bytes = 1, 0
        self._headed = self._abroad = self._part = False
        self._month = ""
        chapters: dict[str, list[str]] = {}
        for code in sorted(wanted):
            chapters.setdefault(code[:4], []).append(code[4:])
        tree = "|".join(f"{head}(?:{'|'.join(tails)})" for head, tails in chapters.items()) or "(?!)"
        self._wanted = re.compile(rf"\n[^,\n]*,[^,\n]*,[^,\n]*,(?:[0-9]*(X)|(?:{tree}),[^\n]*)".encode())

    def write(self, s: bytes | bytearray) -> int:
        """Take the next bytes."""
        self._bytes += len(s)
        self._rest += s
        if not self._headed:
            head, newline, rest = self._rest.partition(b"\n")
            if not newline:
                return len(s)
            if head.lstrip(b"\xef\xbb\xbf").startswith(b"DECLARANT,"):
                raise ParseError(LEGACY)
            if head.removeprefix(b"\xef\xbb\xbf").strip() != COLUMNS.encode():
                raise ParseError(f"head {head[:200].decode('utf-8', 'replace')!r}, expected {COLUMNS}")
            self._headed, self._rest = True, b"\n" + rest
        if (cut := self._rest.rfind(b"\n")) > 0:
            block, self._rest = self._rest[:cut], self._rest[cut:]
            self._sift(block)
        return len(s)

    def finish(self) -> str:
        """Take the last line and return the month that the file is of."""
        if self._headed and self._rest.strip():
            self._sift(self._rest.rstrip())
        if not self._month:
            raise ParseError("no row under the head of the bulk file")
        if self._part and not self._abroad:
            raise ParseError("partners are GB, XI and XU only: full_partxixu, not all of trade; take full_v2_YYYYMM")
        return self._month

    def _sift(self, block: bytes) -> None:
        if not self._month:
            self._month = self._month_of(block[1:].partition(b"\n")[0].decode("ascii", "replace").strip().split(","))
        if not self._abroad:
            self._abroad = bool(re.search(rb"\n[^,\n]*,(?!GB,|XI,|XU,)", block))
            self._part = self._part or bool(re.search(rb"\n[^,\n]*,X[IU],", block))
        at = hidden = kept = 0
        line = self._lines
        for match in self._wanted.finditer(block):
            if match[1]:
                hidden += 1
                continue
            line += block.count(b"\n", at, match.start()) + 1
            at, kept = match.start() + 1, kept + 1
            fields = match[0].decode("ascii", "replace").strip().split(",")
            if len(fields) != COLUMNS.count(",") + 1:
                raise ParseError(f"line {line}: {len(fields)} fields where the head has {COLUMNS.count(',') + 1}")
            self.kept.append([line, *fields])
        rows = block.count(b"\n")
        self._lines += rows
        self.left_out.update({"confidential-code": hidden, "other-code": rows - kept - hidden})

    def _month_of(self, fields: list[str]) -> str:
        period = fields[13] if len(fields) == COLUMNS.count(",") + 1 else ""
        month = f"{period[:4]}-{period[4:]}"
        if period.endswith("52") and len(period) == 6:
            raise ParseError(f"line 2: PERIOD {period} is the whole year {period[:4]}; take the files of its months")
        if not MONTH.fullmatch(month):
            raise ParseError(f"line 2: PERIOD {period!r} is not YYYYMM")
        return month

    def read(self, size: int | None = None) -> bytes:
        """Nothing is read back."""
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Stay."""
        return 0

    def flush(self) -> None:
        """Hold nothing back."""

    def size(self) -> int:
        """Return the number of bytes taken."""
        return self._bytes


class _Into(WriterFactory):
    def __init__(self, sieve: _Sieve) -> None:
        self.sieve = sieve

    def create(self, filename: str) -> Py7zIO:
        return self.sieve


def _unpack(raw: bytes, sieve: _Sieve) -> None:
    try:
        with py7zr.SevenZipFile(io.BytesIO(raw)) as archive:
            tables = [file for file in archive.list() if file.filename.lower().endswith((".dat", ".csv"))]
            if len(tables) != 1:
                raise ParseError(f"7z: {', '.join(archive.getnames()) or 'no file'}; expected one .dat")
            if tables[0].uncompressed > MOST_BYTES:
                raise ParseError(f"7z: {tables[0].uncompressed:,} bytes unpacked: no month is so large")
            archive.extract(targets=[tables[0].filename], factory=_Into(sieve))
    except ParseError:
        raise
    except Exception as error:  # a damaged archive makes the decoder fail in a dozen ways
        raise ParseError(f"7z: {type(error).__name__} {error}".rstrip()) from error
