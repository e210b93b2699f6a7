"""Three statistical services on loopback over one made world: Eurostat Comext, US Census and China's NBS.

They answer in their publishers' forms, and are as moody: the world says what they hold, so it is the truth that a
collection is compared with. Run as a program, ``customs_offices.py ADDRESS FOLDER SOURCE …`` collects the
sources once, at the instant of ``NOW``, and prints how that ended and what it cost.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import resource
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from pricing import pipeline  # noqa: E402
from pricing.config import Code, Methodology, Operation, Series, Source, load_methodology  # noqa: E402
from pricing.declarations import COLUMNS  # noqa: E402
from pricing.fetch import Client  # noqa: E402
from pricing.sources.nbs import NEVER_ISSUED, missing_periods  # noqa: E402

NOW = dt.datetime(2026, 10, 20, 12, tzinfo=dt.UTC)
KEY = "3b7e5f0a9c1d24e68f13a5b7c9d0e2f415263748"
SPLIT, SPLITS_INTO = 7, (38, 39)  # places among the codes: one ends with 2024, two begin with 2025

# fmt: off
EU_REPORTERS = ("BE", "DE", "FR", "IT", "NL")
EU_PARTNERS = (
    "AR", "AU", "BO", "BR", "CA", "CD", "CL", "CN", "GB", "HK", "ID", "IN", "JP", "KG", "KR",
    "KZ", "MA", "MM", "MX", "MY", "NA", "NO", "PE", "RU", "TH", "TR", "US", "VN", "XK", "ZA",
)
US_PARTNERS = tuple(str(n) for n in (
    1220, 2010, 3330, 3350, 3370, 3510, 4000, 4010, 4099, 4210, 4231, 4280, 4621, 4634, 4635,
    4890, 5330, 5460, 5490, 5520, 5570, 5600, 5700, 5800, 5820, 5880, 6021, 7140, 7660, 7910,
))
# fmt: on


Cell = tuple[str, str, str, str, float, float, str]
"""A row of ``pricing.declarations.COLUMNS``."""


def months(first: str, last: str) -> list[str]:
    return pd.period_range(first, last, freq="M").strftime("%Y-%m").tolist()


# ------------------------------------------------------------------------------------- the world


@dataclass(frozen=True)
class World:
    """What one customs office knows: ``rounds[0]`` at the first visits, ``rounds[1]`` later on.

    Later, 4 % of the cells of the current year are revised, 1 % withdrawn, and a month has come. Cells are as
    ``pricing.declarations`` lays them out, sorted as ``pricing.cells.known`` sorts.
    """

    codes: tuple[Code, ...]
    rounds: tuple[pd.DataFrame, pd.DataFrame]
    moved: Counter[str]  # what the second round changed: new, revised, withdrawn

    def cells(self, round_: int, count: int = 40, since: str = "2022") -> pd.DataFrame:
        """The cells of the first so many codes."""
        some = self.rounds[round_]
        asked = {c.code for c in self.codes[:count]}
        return some[some["code"].isin(asked) & (some["period"] >= since)].reset_index(drop=True)


def codes_of(system: str) -> tuple[Code, ...]:
    out = []
    for i in range(40):
        first, last = ("", "2024-12") if i == SPLIT else ("2025-01", "") if i in SPLITS_INTO else ("", "")
        stem = "split" if i in (SPLIT, *SPLITS_INTO) else ""
        digits = f"{2805_1000 + 37 * i}" + ("00" if system == "HTS10" else "")
        contained = system == "HTS10" and i % 5 == 1
        out.append(
            Code(system=system, code=digits, mineral="made", stage="metal", title=f"number {i}", valid_from=first,
                 valid_to=last, units=("KG", "CKG") if contained else ("KG",), element="Sb" if contained else "",
                 stem=stem, certainty="confirmed", source="made")  # type: ignore[arg-type]
        )  # fmt: skip
    return tuple(out)


@cache
def world(name: str) -> World:
    """The world of ``comext`` or ``census``, always the same."""
    eu = name == "comext"
    rng = np.random.default_rng(5 if eu else 6)
    every, late = (months("2022-01", "2026-08"), "2026-08") if eu else (months("2022-01", "2026-09"), "2026-09")
    codes, parts = codes_of("CN8" if eu else "HTS10"), []
    for i, code in enumerate(codes):
        fill = 1.0 if i == 2 else 0.5 if i % 13 == 4 else 0.05 if eu else 0.15
        if not eu and i % 13 == 4:
            fill = 0.05
        pairs = [(r, p) for r in (EU_REPORTERS if eu else ("US",)) for p in (EU_PARTNERS if eu else US_PARTNERS)]
        month, pair = np.nonzero(rng.random((len(every), len(pairs))) < fill)
        rows = [(code.code, *pairs[q], every[m]) for m, q in zip(month, pair, strict=True) if code.valid(every[m])]
        parts.append(pd.DataFrame(rows, columns=list(COLUMNS[:4])))
    cells = pd.concat(parts, ignore_index=True)
    n = len(cells)
    kg = np.round(np.exp(rng.normal(7, 2, n)))
    cells["value"] = np.round((kg + 1) * np.exp(rng.normal(3, 0.4, n))) + 1
    cells["kg"] = np.where(rng.random(n) < 0.03, np.nan, kg)
    cells["status"] = np.where(cells["kg"].isna(), "no-quantity", "normal")
    if eu:
        secret = rng.random(n) < 0.01
        cells.loc[secret, ["value", "kg"]] = np.nan
        cells.loc[secret, "status"] = "confidential"
    cells = cells.sort_values(list(COLUMNS[:4])).reset_index(drop=True)
    current = (cells["period"] >= "2026") & (cells["period"] < late)
    revised = current & (rng.random(n) < 0.04) & (cells["status"] != "confidential")
    gone = current & ~revised & (rng.random(n) < 0.01)
    later = cells.assign(value=cells["value"].where(~revised, cells["value"] + 1 + np.round(cells["value"] / 9)))
    counts = Counter(new=int((cells["period"] == late).sum()), revised=int(revised.sum()), withdrawn=int(gone.sum()))
    first = cells[cells["period"] < late].reset_index(drop=True)
    return World(codes, (first, later[~gone].reset_index(drop=True)), counts)


# ------------------------------------------------------------------------------------- documents

HEAD = "DATAFLOW,LAST UPDATE,freq,reporter,partner,product,flow,indicators,TIME_PERIOD,OBS_VALUE,OBS_FLAG"
FAULT = (
    '<?xml version="1.0"?><S:Fault xmlns:S="http://schemas.xmlsoap.org/soap/envelope/">'
    "<faultcode>{}</faultcode><faultstring>{}</faultstring></S:Fault>"
)
QUEUED = (
    '<?xml version="1.0"?><env:Envelope xmlns:env="http://schemas.xmlsoap.org/soap/envelope/"><env:Body>'
    "<queued><id>{}</id>{}</queued></env:Body></env:Envelope>"
)
PAGE = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0}</h1><p>{1}</p></body></html>"


def sdmx(cells: list[Cell]) -> bytes:
    """Cells as Comext writes them, among rows that are none: totals, members as partners, secret partners."""
    lines, start = [HEAD], "ESTAT:DS-045409(1.0),15/10/26 11:00:00,M"
    for code, reporter, partner, period, value, kg, status in cells:
        place, secret = f"{start},{reporter},{partner},{code},1", status == "confidential"
        lines.append(f"{place},VALUE_IN_EUROS,{period},{'' if secret else f'{value:.0f}'},{'c' if secret else ''}")
        if kg == kg:
            lines.append(f"{place},QUANTITY_IN_100KG,{period},{int(kg) // 100}.{int(kg) % 100:02d},")
        if partner == "CN":
            for other in ("WORLD", "EXT_EU27_2020", "SE", "XU", "QP"):
                lines.append(f"{start},{reporter},{other},{code},1,VALUE_IN_EUROS,{period},12345,")
    return ("\n".join(lines) + "\n").encode()


CENSUS_HEAD = (
    "I_COMMODITY_LDESC", "CTY_NAME", "CTY_CODE", "GEN_VAL_MO", "GEN_QY1_MO", "GEN_QY1_MO_FLAG", "UNIT_QY1",
    "GEN_QY2_MO", "GEN_QY2_MO_FLAG", "UNIT_QY2", "SUMMARY_LVL", "COMM_LVL", "I_COMMODITY", "time",
)  # fmt: skip


def census_json(cells: list[Cell], code: Code) -> bytes:
    """Cells as the Census writes them, among totals, groupings, and months without trade after a first one."""
    contained = "CKG" in code.units
    rows: list[list[str | None]] = [list(CENSUS_HEAD)]

    def add(partner: str, period: str, value: float, kg: float, level: str = "DET") -> None:
        flag = "M" if kg != kg else None
        mass = "0" if flag else f"{kg:.0f}"
        gross = ["0" if flag else f"{2 * kg:.0f}", None, "KG", mass, flag, "CKG"]
        one = [mass, flag, "KG", "0", None, "-"]
        facts = ["METAL", f"COUNTRY {partner}", partner, f"{value:.0f}"]
        rows.append([*facts, *(gross if contained else one), level, "HS10", code.code, period])

    for period, group in groupby(sorted(cells, key=itemgetter(3)), key=itemgetter(3)):
        of_month = list(group)
        total = sum(cell[4] for cell in of_month)
        for partner, level in (("-", "DET"), ("0003", "CGP"), ("5XXX", "CGP")):
            add(partner, period, total if partner == "-" else total // 2, 1000, level)
        for _, _, partner, _, value, kg, _ in of_month:
            add(partner, period, value, kg)
        idle = next(p for p in (*US_PARTNERS, "9999") if p not in {cell[2] for cell in of_month})
        add(idle, period, 0, 0)
    return json.dumps(rows).encode()


# ------------------------------------------------------------------------------------ bulletins

METALS = {
    "copper": ("电解铜（1#）", "Electrolytic Copper (1#)", 80_000.0),
    "zinc": ("锌锭（0#）", "Zinc Ingot (0#)", 23_000.0),
}
BULLETINS = [
    p for p in ("2024-11-10", *missing_periods(["2024-11-10", "2026-10-10"]), "2026-10-10") if p not in NEVER_ISSUED
]
PER_LIST = 6


def price(metal: str, period: str) -> float:
    return METALS[metal][2] + 10 * (int(hashlib.sha256((metal + period).encode()).hexdigest(), 16) % 500) + 0.5


def titled(period: str) -> str:
    """The title of a bulletin; every fourth is in English."""
    day = dt.date.fromisoformat(period)
    part = min((day.day - 1) // 10, 2)
    if BULLETINS.index(period) % 4 == 3:
        return (
            "Market Prices of Important Means of Production in Circulation, "
            f"{day:%B} {10 * part + 1}-{day.day}, {day.year}"
        )
    return f"{day.year}年{day.month}月{'上中下'[part]}旬流通领域重要生产资料市场价格变动情况"


def path_of(period: str) -> str:
    day = dt.date.fromisoformat(period) + dt.timedelta(days=4)
    return f"./{day:%Y%m}/t{day:%Y%m%d}_19{BULLETINS.index(period):05d}.html"


def bulletin(period: str) -> bytes:
    english = titled(period).isascii()
    heads = (
        ("Product Name", "Unit", "Price of This Period (RMB)", "Change over Last Period (RMB)", "Percentage Change (%)")
        if english
        else ("产品名称", "单位", "本期价格（元）", "比上期价格涨跌（元）", "涨跌幅（%）")
    )
    rows = [heads, ("II. Nonferrous Metals" if english else "二、有色金属", "", "", "", "")]
    for metal, names in METALS.items():
        now = price(metal, period)
        rows.append((names[english], "ton" if english else "吨", f"{now:.1f}", "0.0", "0.0"))
    table = "".join("<tr>" + "".join(f"<td><p>{cell}</p></td>" for cell in row) + "</tr>" for row in rows)
    stamp = dt.date.fromisoformat(period) + dt.timedelta(days=4)
    text = f"<html><body><h1>{titled(period)}</h1><p>{stamp} 09:30</p><table>{table}</table></body></html>"
    return text.encode("utf-8" if english or period >= "2025-06" else "gb18030")


def listed(number: int, known: list[str]) -> bytes:
    """One page of the list, newest first, among other news; a title may be cut short in the text."""
    here = known[::-1][PER_LIST * number : PER_LIST * (number + 1)]
    links = [f'<li><a href="./202610/t20261019_19990{number}.html" title="居民消费价格">居民消费价格</a></li>']
    links += [f'<li><a href="{path_of(p)}" title="{titled(p)}">{titled(p)[:9]}…</a></li>' for p in here]
    return f"<html><body><ul>{''.join(links)}</ul></body></html>".encode()


# ------------------------------------------------------------------------------------- the server

DIRECT, QUEUE = 1000, 2400  # rows answered at once, and rows answered at all
ROTA = ("error-in-200", "403", "500", "cut")
EVERY = 6


@dataclass(frozen=True)
class Entry:
    """One request as it came, without its key, and what it was answered."""

    office: str
    path: str
    said: str


class Offices:
    """The services, their log, and the switches of their moods."""

    def __init__(self) -> None:
        self.log: list[Entry] = []
        self.active = self.most_active = 0
        self.started: Callable[[], None] = lambda: None
        self.reset()
        offices = self

        class Handler(_Handler):
            of = offices

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._serving = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._serving.start()
        self.base = f"http://127.0.0.1:{self._server.server_port}"

    def reset(self) -> None:
        """Kind, at the first round, with an empty log."""
        self.round = 0
        self.moody = self.down = False
        self.partial: set[str] = set()  # codes of which an answer shows half
        self.unknown: set[str] = set()  # codes that make Comext refuse a question
        self.saying: tuple[int, bytes] | None = None  # what every question is answered with
        self.key = KEY
        self.bulletins = list(BULLETINS)
        self.lost: set[str] = set()  # periods whose page is not there
        self.log.clear()
        self._jobs: dict[str, tuple[bytes, int]] = {}
        self.most_active = 0

    def stop(self) -> None:
        self._server.shutdown()
        self._serving.join()
        self._server.server_close()

    def asked(self, office: str = "") -> list[str]:
        """Paths of the log, in their order."""
        return [e.path for e in self.log if e.office == office or not office]

    def said(self) -> Counter[str]:
        return Counter(e.said for e in self.log)

    def answer(self, path: str, query: str) -> tuple[str, str, int, bytes, str]:
        """Return office, what is said, status, body, and where a redirect leads."""
        office = "comext" if "/comext/" in path else "census" if "/data/" in path else "nbs"
        if self.down:
            return office, "500", 500, b"", ""
        mood = ROTA[len(self.log) // EVERY % len(ROTA)] if self.moody and len(self.log) % EVERY == 2 else ""
        if mood in ("403", "500"):
            return office, mood, int(mood), PAGE.format(mood, "Try later.").encode(), ""
        if mood == "error-in-200":
            text = (
                FAULT.format("500", "INTERNAL_ERROR: please try again") if office == "comext" else '{"error": "busy"}'
            )
            return office, mood, 200, text.encode(), ""
        if self.saying is not None:
            return office, "told", *self.saying, ""
        said, status, body, where = {"comext": self._comext, "census": self._census, "nbs": self._nbs}[office](
            path, query
        )
        return office, mood or said, status, body, where

    # ------------------------------------------------------------------ Comext

    def _comext(self, path: str, query: str) -> tuple[str, int, bytes, str]:
        if job := re.fullmatch(r"/eurostat/api/comext/dissemination/1\.0/async/(status|data)/([\w-]+)", path):
            return self._job(job[1], job[2])
        fault = re.search(r"/sdmx/2\.1/data/DS-045409/([^/]+)$", path)
        parts = fault[1].split(".") if fault else []
        given = {k: v[0] for k, v in parse_qs(query).items()}
        if not self._in_order(parts) or given.get("format") != "SDMX-CSV":
            return "wrong-order", 400, FAULT.format("140", "Semantic Error - Invalid key").encode(), ""
        wanted = parts[3].split("+")
        if self.unknown.intersection(wanted):
            return "unknown-code", 400, FAULT.format("150", "Semantic Error - no such code").encode(), ""
        cells = self._shown("comext", wanted, given["startPeriod"], given["endPeriod"])
        rows = len(cells) + sum(cell[5] == cell[5] for cell in cells)
        if rows > QUEUE:
            status = 413 if len(self.log) % 2 else 200
            text = f"EXTRACTION_TOO_BIG: estimated {rows} rows, max authorised is {QUEUE}"
            return f"too-big-{status}", status, FAULT.format("413", text).encode(), ""
        if not rows:
            return "nothing", 404, FAULT.format("100", "No results found").encode(), ""
        if rows > DIRECT:
            name = f"job-{len(self._jobs)}-{rows}"
            self._jobs[name] = sdmx(cells), 0
            return "queued", 202 if len(self.log) % 2 else 200, QUEUED.format(name, "").encode(), ""
        return "data", 200, sdmx(cells), ""

    @staticmethod
    def _in_order(parts: list[str]) -> bool:
        forms = ("M", r"[A-Z]{2}(\+[A-Z]{2})*", r"", r"\d{8}(\+\d{8})*", "1", r"[A-Z_0-9]+(\+[A-Z_0-9]+)*")
        return len(parts) == len(forms) and all(re.fullmatch(f, p) for f, p in zip(forms, parts, strict=True))

    def _job(self, what: str, name: str) -> tuple[str, int, bytes, str]:
        if name not in self._jobs:
            return "expired", 404, QUEUED.format(name, "<status>UNKNOWN_REQUEST</status>").encode(), ""
        body, polls = self._jobs[name]
        if what == "data":
            return ("data", 200, body, "") if polls > 2 else ("fault", 404, FAULT.format("404", "not yet").encode(), "")
        self._jobs[name] = body, polls + 1
        state = "AVAILABLE" if polls > 1 else "PROCESSING"
        return state.lower(), 200, QUEUED.format(name, f"<status>{state}</status>").encode(), ""

    def _shown(self, office: str, wanted: list[str], first: str, last: str) -> list[Cell]:
        by_code = _by_code(office, self.round)
        parts = ((code, by_code.get(code, [])) for code in wanted)
        cells = [cell for code, part in parts for cell in (part[::2] if code in self.partial else part)]
        return [cell for cell in cells if first <= cell[3] <= last]

    # ------------------------------------------------------------------ Census

    def _census(self, path: str, query: str) -> tuple[str, int, bytes, str]:
        if not path.endswith("/timeseries/intltrade/imports/hs"):
            return "page", 200, PAGE.format("Missing Key", "A valid key must be included").encode(), ""
        given = {k: v[0] for k, v in parse_qs(query).items()}
        if "key" not in given:
            return "redirect", 302, b"", f"{self.base}/data/missing_key.html"
        if given["key"] != self.key:
            return "invalid-key", 200, PAGE.format("Invalid Key", "The key is not valid.").encode(), ""
        first, last = given["time"].removeprefix("from ").split(" to ")
        code = next(c for c in world("census").codes if c.code == given["I_COMMODITY"])
        cells = self._shown("census", [code.code], first, last)
        if not cells:
            return "nothing", 204, b"", ""
        return "data", 200, census_json(cells, code), ""

    # --------------------------------------------------------------------- NBS

    def _nbs(self, path: str, query: str) -> tuple[str, int, bytes, str]:
        page = re.fullmatch(r"/sj/zxfb/(?:index(?:_(\d+))?\.html)?", path)
        if page:
            number = int(page[1] or 0)
            last = (len(self.bulletins) - 1) // PER_LIST
            return ("list", 200, listed(number, self.bulletins), "") if number <= last else ("no-list", 404, b"", "")
        there = {path_of(p).removeprefix("."): p for p in self.bulletins if p not in self.lost}
        period = there.get(path.removeprefix("/sj/zxfb"))
        return ("bulletin", 200, bulletin(period), "") if period else ("no-page", 404, b"", "")


@cache
def _by_code(office: str, round_: int) -> dict[str, list[Cell]]:
    cells = world(office).rounds[round_].itertuples(index=False, name=None)
    return {code: list(part) for code, part in groupby(cells, key=itemgetter(0))}


class _Handler(BaseHTTPRequestHandler):
    of: ClassVar[Offices]

    def do_GET(self) -> None:
        self.of.active += 1
        self.of.most_active = max(self.of.most_active, self.of.active)
        with suppress(ConnectionError):
            self._answer()

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        office, said, status, body, where = self.of.answer(parts.path, parts.query)
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"' if said == "data" and office == "comext" else ""
        if etag and self.headers.get("If-None-Match") == etag and "/async/" not in parts.path:
            said, status, body = "not-modified", 304, b""
        self.of.log.append(Entry(office, self.path.partition("&key=")[0], said))
        self.of.started()
        self.of.active -= 1  # before the answer: whoever has it may ask again at once
        self.send_response(status)
        if etag:
            self.send_header("ETag", etag)
        if where:
            self.send_header("Location", where)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body) + (1000 if said == "cut" else 0)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if said == "cut" else body)

    def log_message(self, *_: Any) -> None:
        pass


# ------------------------------------------------------------------------------- who collects it


def sources(base: str, since: str = "2022") -> dict[str, Source]:
    """The three sources as the settings know them, at addresses of this server."""
    facts = {
        "publisher": "made", "terms": "made", "terms_read": "2026-01-01", "licence": "made", "attribution": "made",
        "rights": "open",
    }  # fmt: skip
    comext = {"system": "CN8", "origin": "eu", "title": "EU", "currency": "EUR", "valuation": "cif", "china": "CN",
              "since": since, "codes_per_request": 4, "pause_seconds": 2.0}  # fmt: skip
    census = {"system": "HTS10", "origin": "us", "title": "US", "currency": "USD", "valuation": "customs value",
              "china": "5700", "since": since, "key_environment": "MADE_KEY", "pause_seconds": 0.5}  # fmt: skip
    series = [
        Series(id=f"nbs-{metal}", kind="other", unit="CNY/t", frequency="ten-day", origin="nbs", column=names[0],
               aliases=names[1:2])
        for metal, names in METALS.items()
    ]  # fmt: skip
    given: dict[str, dict[str, Any]] = {
        "comext": {"url": f"{base}/eurostat/api/comext/dissemination/", "customs": comext},
        "census": {"url": f"{base}/data/timeseries/intltrade/imports/hs", "customs": census},
        "nbs": {
            "url": f"{base}/sj/zxfb/", "landing": f"{base}/sj/zxfb/", "complete": False, "series": series,
            "link": re.escape(f"{base}/sj/zxfb/") + r"20\d{4}/t20\d{6}_\d+\.html$",
        },
    }  # fmt: skip
    return {name: Source.model_validate({"title": name, **facts, **more}) for name, more in given.items()}


class Clock:
    """An instant that sleeping moves on; ``slept`` are the seconds, in their order."""

    def __init__(self, now: dt.datetime = NOW) -> None:
        self.now, self.slept = now, list[float]()

    def __call__(self) -> dt.datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += dt.timedelta(seconds=seconds)


@cache
def _methodology(count: int) -> Methodology:
    codes = tuple(c for name in ("comext", "census") for c in world(name).codes[:count])
    return load_methodology(ROOT / "methodology").model_copy(update={"codes": codes})


@contextmanager
def workspace(
    folder: Path, base: str, clock: Clock, *, count: int = 40, since: str = "2022", key: str = KEY
) -> Iterator[pipeline.Workspace]:
    """A data folder that collects the first so many codes of each tariff from this server."""
    fetch = {"allow_private": True, "attempts": 1, "read_seconds": 10}
    operation = Operation.model_validate({"fetch": fetch, "sources": sources(base, since)})
    with pipeline.opened(folder, operation, _methodology(count), clock, environ={"MADE_KEY": key}) as ws:
        yield replace(ws, sleep=clock.sleep)


def client(ws: pipeline.Workspace) -> Client:
    return Client(ws.operation.fetch, ws.archive, ws.now, first_wait=0.001)


def main(base: str, folder: str, count: str, *names: str) -> None:
    clock = Clock()
    with workspace(Path(folder), base, clock, count=int(count)) as ws:
        began = resource.getrusage(resource.RUSAGE_SELF)
        outcomes = pipeline.collect(ws, client(ws), names)
        ended = resource.getrusage(resource.RUSAGE_SELF)
    seconds = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    print(json.dumps({"cpu": round(seconds, 2), "outcomes": [(o.source, o.outcome, o.message) for o in outcomes]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
