"""Eurostat Comext: what the members of the European Union import, by CN8, partner and month.

Data set DS-045409, keyless: https://ec.europa.eu/eurostat/web/user-guides/data-browser/api-data-access
Values are cif at the border, in euros, before duty; quantities are net mass. Two ways lead to them:

- **api**: SDMX-CSV in questions of some codes and one calendar year. A large question is queued, a
  larger one refused; faults are XML in any status. Values and quantities count all procedures.
- **bulk**: one 7z file per month with everything, 18 columns, kilograms as whole numbers. It tells
  the procedures apart: only normal trade and what passes no customs procedure is read.

A month may be revised until October of the next year; then it is final. The codes of a batch of the
first way never change once an answer was had: what was asked is read back from ``done``, and only
codes that no standing batch holds are put into new ones. So a code that is added changes no address.
"""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
import re
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element
from xml.etree.ElementTree import ParseError as XMLError

import numpy as np
import pandas as pd
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from pricing.config import Code, Customs, Source
from pricing.declarations import Declared, Reply, Request, Scope
from pricing.errors import ConfigError, ParseError
from pricing.quality import Finding
from pricing.sources import comext_bulk
from pricing.sources.comext_cells import (
    COUNTRIES,
    EU27,
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

DATASET = "DS-045409"
INDICATORS = {"VALUE_IN_EUROS": "value", "QUANTITY_IN_100KG": "kg"}
COLUMNS = frozenset({"freq", "reporter", "partner", "product", "flow", "indicators", "TIME_PERIOD", "OBS_VALUE"})
MAY = frozenset({"DATAFLOW", "LAST UPDATE", "STRUCTURE", "STRUCTURE_ID", "OBS_FLAG", "CONF_STATUS"})
GZIP = b"\x1f\x8b"
MOST_BYTES = 1_000_000_000
"""An answer has five million rows at most, of some 100 bytes."""
MOST_BYTES_OF_A_MESSAGE = 1_000_000
BULK_LAGMONTHS = 2
"""A month comes out some ten weeks after its end: nothing younger is asked for."""

_LABELS = "labels in place of codes; download it again with codes only"
_NO_RESULTS = re.compile(r"\bno[ _](results|records)|did not return any result", re.IGNORECASE)


# ------------------------------------------------------------------------------------ what to ask


def requests(source: Source, codes: Sequence[Code], done: Mapping[str, dt.datetime], now: dt.datetime) -> list[Request]:
    """Return what is due, the newest first.

    A question is due when it was never answered; while its year is open, when the last answer is
    ``again_after_hours`` old; and once after the year has become final (1 November of the next).

    Parameters
    ----------
    source : Source
        ``url`` is the base, such as ``https://…/api/comext/dissemination/``.
    codes : sequence of Code
        Those of ``customs.system``, unconfirmed ones too: they are collected and judged later.
    done : mapping of address to the instant of its last success
        Aware. Also what keeps batches as they are: a batch stands while all its codes are wanted.
    now : datetime
        Aware.
    """
    customs = _customs(source)
    wanted = [code for code in codes if code.system == customs.system]
    again = dt.timedelta(hours=customs.again_after_hours)
    if customs.way == "bulk":
        plan = _files(source, wanted, now)
    else:
        standing = _standing(source, done)
        # A code that the publisher does not know makes it refuse the whole question.
        alone = {code.code for code in wanted if code.certainty == "unconfirmed"}
        plan = []
        for year in range(now.year, int(customs.since) - 1, -1):
            valid = valid_in(wanted, f"{year}-01", f"{year}-12")
            for batch in _batches(valid, standing.get(year, []), customs.codes_per_request, alone):
                plan.append(_request(source, batch, f"{year}-01", f"{year}-12"))
    return [r for r in plan if _is_due(done.get(r.url), int(r.scope.first[:4]), now, again)]


def halves(request: Request, source: Source) -> tuple[Request, Request] | None:
    """Split a question: its codes, or with one code its months. None where nothing is left to split."""
    codes, first, last = request.scope.codes, request.scope.first, request.scope.last
    if not request.url.startswith(_base(source) + "sdmx/"):
        return None
    if len(codes) > 1:
        middle = len(codes) // 2
        return _request(source, codes[:middle], first, last), _request(source, codes[middle:], first, last)
    months = [str(p) for p in pd.period_range(first, last, freq="M")]
    if len(months) < 2:
        return None
    middle = len(months) // 2
    return _request(source, codes, first, months[middle - 1]), _request(source, codes, months[middle], last)


def _customs(source: Source) -> Customs:
    if source.customs is None:
        raise ConfigError("sources: comext needs a table customs")
    return source.customs


def _base(source: Source) -> str:
    return source.url.rstrip("/") + "/"


def _request(source: Source, codes: Sequence[str], first: str, last: str) -> Request:
    # An empty place in the key stands for all values: SDMX REST 1.5, and so used with this data set.
    key = f"M.{'+'.join(EU27)}..{'+'.join(codes)}.1.{'+'.join(INDICATORS)}"
    query = f"startPeriod={first}&endPeriod={last}&format=SDMX-CSV&compressed=false"
    return Request(f"{_base(source)}sdmx/2.1/data/{DATASET}/{key}?{query}", Scope(tuple(codes), first, last))


def _standing(source: Source, done: Mapping[str, dt.datetime]) -> dict[int, list[tuple[str, ...]]]:
    """Return the batches of whole years that were answered: halves before the whole, the newest first."""
    address, _, query = re.escape(_request(source, ["@"], "#-01", "#-12").url).partition("@")
    months = query.replace(re.escape("#"), r"(\d{4})", 1).replace(re.escape("#"), r"\2", 1)
    form = re.compile(rf"{address}((?:\d{{8}}\+)*\d{{8}}){months}")
    out: dict[int, list[tuple[str, ...]]] = {}
    for url in sorted(done, key=lambda url: (-done[url].timestamp(), url)):
        if match := form.fullmatch(url):
            out.setdefault(int(match[2]), []).append(tuple(match[1].split("+")))
    return {year: sorted(batches, key=len) for year, batches in out.items()}


def _batches(
    wanted: Sequence[str], standing: Iterable[tuple[str, ...]], size: int, alone: set[str]
) -> list[tuple[str, ...]]:
    """Put each wanted code into one batch: a standing one if it can be, a new one of ``size`` if not."""
    free = set(wanted)
    out = []
    for batch in standing:
        if free.issuperset(batch):
            out.append(batch)
            free.difference_update(batch)
    left = sorted(free - alone)
    out += [(code,) for code in free & alone]
    return sorted(out + [tuple(left[i : i + size]) for i in range(0, len(left), size)])


def _files(source: Source, wanted: Sequence[Code], now: dt.datetime) -> list[Request]:
    host = "{0.scheme}://{0.netloc}".format(urlsplit(source.url))
    latest = pd.Period(f"{now:%Y-%m}", freq="M") - BULK_LAGMONTHS
    plan = []
    for period in pd.period_range(f"{_customs(source).since}-01", latest, freq="M")[::-1]:
        month = str(period)
        valid = tuple(valid_in(wanted, month, month))
        if valid:
            name = f"full_v2_{month.replace('-', '')}.7z"
            path = f"/eurostat/api/dissemination/files?file=comext%2FCOMEXT_DATA%2FPRODUCTS%2F{name}"
            plan.append(Request(host + path, Scope(valid, month, month)))
    return plan


def _is_due(last: dt.datetime | None, year: int, now: dt.datetime, again: dt.timedelta) -> bool:
    final = dt.datetime(year + 1, 11, 1, tzinfo=dt.UTC)
    if last is None:
        return True
    return now - last >= again if now < final else last < final


# ------------------------------------------------------------------------------ what an answer is


def understood(raw: bytes) -> Reply:
    """Tell what an answer is, from its content: the status of the service says little.

    ``poll`` is an address relative to the source's ``url``.
    """
    try:
        start = _unpacked(raw[:65536], partly=True).removeprefix(b"\xef\xbb\xbf").lstrip()
    except ParseError as error:
        return Reply("fault", str(error))
    bulk = (comext_bulk.COLUMNS.encode(), comext_bulk.SEVEN_ZIP)
    if start.startswith((b"DATAFLOW,LAST UPDATE,", b"STRUCTURE,STRUCTURE_ID,", *bulk)):
        return Reply("data")
    if not start:
        return Reply("fault", "the answer is empty")
    if start.startswith(b"DECLARANT,"):
        return Reply("fault", comext_bulk.LEGACY)
    if re.match(rb"<!doctype html|<html", start, re.IGNORECASE):
        return Reply("fault", f"a page in HTML: {_shown(start)}")
    if start.startswith((b"<", b"{", b"[")):
        if len(raw) > MOST_BYTES_OF_A_MESSAGE:
            return Reply("fault", f"{len(raw):,} bytes of XML or JSON in place of CSV: {_shown(start)}")
        return _xml(_unpacked(raw)) if start.startswith(b"<") else _json(_unpacked(raw))
    return Reply("fault", f"neither SDMX-CSV nor a bulk file, begins with {_shown(start)}")


def _shown(raw: bytes) -> str:
    return repr(" ".join(raw[:200].decode("utf-8", "replace").split())[:120])


def _unpacked(raw: bytes, *, partly: bool = False) -> bytes:
    """Undo gzip, which the service uses where ``compressed=false`` got lost on the way."""
    if not raw.startswith(GZIP):
        return raw
    try:
        if partly:
            return zlib.decompressobj(31).decompress(raw, 65536)
        with gzip.open(io.BytesIO(raw)) as file:
            plain = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ParseError(f"gzip: {error}") from error
    if len(plain) > MOST_BYTES:
        raise ParseError(f"gzip: more than {MOST_BYTES:,} bytes unpacked")
    return plain


def _xml(raw: bytes) -> Reply:
    try:
        root = fromstring(raw.removeprefix(b"\xef\xbb\xbf").strip(), forbid_dtd=True)
    except (XMLError, DefusedXmlException, ValueError) as error:
        return Reply("fault", f"XML that cannot be read ({error}): {_shown(raw)}")
    message = " ".join(_leaves(root, "faultstring", "Text"))
    code = " ".join([*_leaves(root, "faultcode"), *(e.get("code", "") for e in root.iter() if _is(e, "ErrorMessage"))])
    if message or code:
        return _refusal(code.strip(), message)
    keys, states = set(_leaves(root, "id", "key")), [s.upper() for s in _leaves(root, "status")]
    if len(keys) != 1 or len(states) > 1 or not re.fullmatch(r"[\w-]{1,80}", key := keys.pop(), re.ASCII):
        return Reply("fault", f"XML that is neither data nor a fault nor one queued request: {_shown(raw)}")
    state = states[0] if states else "SUBMITTED"
    if state in ("SUBMITTED", "PROCESSING"):
        return Reply("queued", state, f"1.0/async/status/{key}")
    if state == "AVAILABLE":
        return Reply("ready", state, f"1.0/async/data/{key}")
    return Reply("fault", f"queued request {key}: {state}; ask again")


def _is(element: Element, *names: str) -> bool:
    return isinstance(element.tag, str) and element.tag.rpartition("}")[2] in names


def _leaves(root: Element, *names: str) -> list[str]:
    return [text for e in root.iter() if _is(e, *names) and not len(e) and (text := (e.text or "").strip())]


def _json(raw: bytes) -> Reply:
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError) as error:
        return Reply("fault", f"JSON that cannot be read ({error}): {_shown(raw)}")
    given: Any = answer.get("error", answer.get("warning")) if isinstance(answer, dict) else None
    for one in given if isinstance(given, list) else [given]:
        if isinstance(one, dict):
            return _refusal(str(one.get("status", "")), str(one.get("label", "")))
    return Reply("fault", f"JSON in place of SDMX-CSV: {_shown(raw)}")


def _refusal(code: str, message: str) -> Reply:
    said = f"{code} {message}".strip()
    if "ASYNCHRONOUS_RESPONSE" in message:
        return Reply("fault", f"{said}: no key was given to ask with")
    if code == "413" or "EXTRACTION_TOO_BIG" in message:
        return Reply("too-big", said)
    # Fault 100 also says that the data set does not exist: only plain words mean an empty result.
    return Reply("empty" if _NO_RESULTS.search(message) else "fault", said)


# ------------------------------------------------------------------------------------- the cells


def declarations(raw: bytes, codes: Sequence[Code], source: Source) -> Declared:
    """Read SDMX-CSV 1.0 or 2.0 with codes, or the bulk file of one month, packed or not.

    Parameters
    ----------
    raw : bytes
    codes : sequence of Code
        The cells of other codes are left out, and so are months in which a code was not in force.
    source : Source
        ``customs.system`` names the tariff.

    Returns
    -------
    Declared
        Values in euros, mass in kilograms: hundreds of kilograms by shifting the decimal point, so
        the number is the one that is written. Findings: ``duplicate-cell`` (note where the twins
        agree, error where not: none is taken), ``code-outside-validity``, ``no-value``,
        ``no-quantities``, ``no-line-end``, ``implausible-stamp`` (warnings) and ``no-cells``.
        ``left_out`` counts rows; for ``code-outside-validity`` cells.

    Raises
    ------
    ParseError
        Another layout or data set, labels, a whole year as a month, the file of United Kingdom
        parts, or a number that is not a plain decimal: with its line.
    """
    reply = understood(raw)
    if reply.kind != "data":
        raise ParseError(reply.message)
    system = _customs(source).system
    by_code: dict[str, list[Code]] = {}
    for code in codes:
        if code.system == system:
            by_code.setdefault(code.code, []).append(code)
    plain = _unpacked(raw).removeprefix(b"\xef\xbb\xbf")
    if plain.lstrip().startswith((b"DATAFLOW", b"STRUCTURE")):
        return _from_sdmx(plain.lstrip(), by_code)
    return comext_bulk.read(plain, by_code)


def _from_sdmx(raw: bytes, by_code: Mapping[str, list[Code]]) -> Declared:
    table = _table(raw)
    _refuse_others(table)
    period = table["TIME_PERIOD"]
    tests: list[Test] = [
        ("annual", "freq", lambda freq: freq == "A"),
        ("annual", "TIME_PERIOD", lambda period: period.isdecimal() and len(period) == 4),
        ("other-flow", "flow", lambda flow: flow != "1"),
        *COUNTRIES,
        ("confidential-code", "product", lambda code: "X" in code),
        ("other-code", "product", lambda code: code not in by_code),
        ("other-indicator", "indicators", lambda name: name not in INDICATORS),
    ]
    kept, left_out = sifted(table, tests)
    for column, form in (("freq", re.compile("M")), ("TIME_PERIOD", MONTH)):
        refuse(kept, column, form.fullmatch, "a month")
    if (unsaid := (kept["OBS_VALUE"] == "") & (kept["OBS_FLAG"] == "")).any():
        raise ParseError(f"line {kept['line'][unsaid].iloc[0]}: neither a value nor a flag; was the answer cut off?")
    secret = kept["OBS_FLAG"].isin([flag for flag in kept["OBS_FLAG"].cat.categories if "c" in flag.lower()])
    kilograms = (kept["indicators"] == "QUANTITY_IN_100KG").to_numpy(dtype=bool)
    number = np.empty(len(kept))
    for rows, shift in ((kilograms, "e2"), (~kilograms, "")):
        number[rows] = numbers(kept[rows], "OBS_VALUE", shift)
    readings = kept[["reporter", "partner", "line"]].assign(
        code=kept["product"],
        period=period.loc[kept.index],
        what=np.where(kilograms, "kg", "value"),
        part="",
        number=number,
        confidential=secret,
    )
    cells, findings, outside = assembled(readings, by_code)
    findings += nothing(cells, left_out)
    if not raw.endswith(b"\n"):
        findings.append(Finding("no-line-end", "warning", "the last line does not end: was the answer cut off?"))
    stamp, doubts = _stamp(table, cells)
    scope = Scope((), "", "")
    if len(cells):
        scope = Scope(tuple(sorted(set(cells["code"]))), cells["period"].min(), cells["period"].max())
    return Declared(cells, scope, stamp, (*findings, *doubts), {}, dict(left_out + outside), held(findings))


# ------------------------------------------------------------------------------------ SDMX tables


def _table(raw: bytes) -> pd.DataFrame:
    """Read the table as text, all but the values as categories: a large answer has half a million rows."""
    head, _, body = raw.partition(b"\n")
    names = head.decode("utf-8", "replace").strip().split(",")
    wrong = [name for name in names if name not in COLUMNS | MAY]
    missing = sorted(COLUMNS.difference(names))
    if wrong or missing or len(set(names)) != len(names):
        said = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(wrong) or 'a name twice'}"
        raise ParseError(f"head {','.join(names)}: {said}; another layout, or {_LABELS}")
    # Some answers leave the name of the flag out of the head, and end each row with its comma.
    if "OBS_FLAG" not in names:
        names.append("OBS_FLAG")
    table = pd.DataFrame(columns=names, dtype=object)
    if body.strip():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)
                table = pd.read_csv(
                    io.BytesIO(body), names=names, header=None, dtype=object, index_col=False,
                    na_filter=False, skip_blank_lines=False, low_memory=False, encoding="utf-8",
                )  # fmt: skip
        except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeDecodeError) as error:
            raise ParseError(f"SDMX-CSV: {error}") from error
    table["line"] = np.arange(2, len(table) + 2)
    for name in (*sorted(MAY), *COLUMNS - {"OBS_VALUE"}):
        if name in table:  # the dtype "category" of read_csv would make numbers of codes and drop their zeros
            table[name] = pd.Categorical(table[name])
    if len(short := table["line"][table["TIME_PERIOD"] == ""]):
        raise ParseError(f"line {short.iloc[0]}: fewer fields than the head; was the answer cut off?")
    if "CONF_STATUS" in table:  # newer answers keep the flag of confidentiality apart
        table["OBS_FLAG"] = pd.Categorical(table["OBS_FLAG"].astype(object) + table["CONF_STATUS"].astype(object))
    return table


def _refuse_others(table: pd.DataFrame) -> None:
    """Raise ParseError for labels in place of codes and for another data set."""
    name = "DATAFLOW" if "DATAFLOW" in table else "STRUCTURE_ID"
    refuse(table, name, lambda flow: re.search(rf"(^|:){DATASET}(\(|$)", flow, re.IGNORECASE), DATASET)
    forms = {"freq": "[A-Z]", "flow": r"\d+", "product": "[A-Z0-9_]+", "indicators": "[A-Z0-9_]+"}
    for column, form in {**forms, "reporter": "[A-Z0-9_]+", "partner": "[A-Z0-9_]*"}.items():
        refuse(table, column, re.compile(form, re.ASCII).fullmatch, f"a code: {_LABELS}")


def _stamp(table: pd.DataFrame, cells: pd.DataFrame) -> tuple[dt.date | None, list[Finding]]:
    """Return the newest day of the column LAST UPDATE, unless it cannot be."""
    days = []
    for text in table["LAST UPDATE"].unique() if "LAST UPDATE" in table else ():
        try:
            days.append(dt.datetime.strptime(text[:8], "%d/%m/%y").date())  # noqa: DTZ007
        except ValueError:
            message = f"LAST UPDATE {text!r} is not a day DD/MM/YY"
            return None, [Finding("implausible-stamp", "warning", message)]
    newest = max(days, default=None)
    if newest and len(cells) and newest.isoformat()[:7] <= cells["period"].max():
        message = f"LAST UPDATE {newest}, and yet there are figures of {cells['period'].max()}"
        return None, [Finding("implausible-stamp", "warning", message)]
    return newest, []
