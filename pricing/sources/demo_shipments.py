"""What is imported in the simulated market, and how two simulated customs offices write it down.

A cell is paid at the price of the month before (goods travel), times the lasting quality of what a partner
sends, times a mix that changes from cell to cell. Now and then a parcel of a few kilograms of another grade
comes at several times the price, a declaration is secret, and a mass is written in a wrong unit. A month
later a few cells have moved.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pandas as pd

from pricing.config import System
from pricing.sources.demo_market import EVENTS, KEYS, Floats, days_of, fx_of, generator, truth_of

CHINA = "CN"
PARTNERS = {
    "CN": "China",
    "CA": "Canada",
    "CL": "Chile",
    "JP": "Japan",
    "KR": "Korea",
    "TJ": "Tajikistan",
    "VN": "Viet Nam",
}

FIRST_MONTH = pd.Period("2021-02", "M")  # the first that has a month of prices before it


@dataclass(frozen=True)
class Product:
    """One simulated product.

    Attributes
    ----------
    market : str
        ``mineral/stage`` of the market whose prices are paid.
    content : float
        Element's mass share of a gross kilogram, where the market is priced per contained tonne; else 1.
    tonnes : float
        What the European Union imports in a month, gross.
    shares : mapping of partner to its share of that
    codes : mapping of tariff to (code, unit)
        The codes are of chapter 99, which classifies no goods of trade.
    """

    market: str
    content: float
    tonnes: float
    shares: dict[str, float]
    codes: dict[System, tuple[str, Literal["KG", "CKG"]]]


PRODUCTS = (
    Product(
        "gallium/metal", 1, 4, {"CN": 0.60, "JP": 0.16, "KR": 0.14, "CA": 0.10},
        {"CN8": ("99000011", "KG"), "HTS10": ("9900001100", "KG")},
    ),
    Product(
        "antimony/metal", 1, 1500, {"CN": 0.45, "TJ": 0.27, "VN": 0.20, "KR": 0.08},
        {"CN8": ("99000021", "KG"), "HTS10": ("9900002100", "KG")},
    ),
    Product(
        "tungsten/chemical", 0.702, 300, {"CN": 0.55, "VN": 0.25, "KR": 0.12, "CA": 0.08},
        {"CN8": ("99000031", "KG"), "HTS10": ("9900003100", "CKG")},
    ),
    Product(
        "lithium/chemical", 0.187, 1200, {"CN": 0.20, "CL": 0.62, "CA": 0.10, "KR": 0.08},
        {"CN8": ("99000041", "KG"), "HTS10": ("9900004100", "KG")},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Office:
    """One simulated customs office.

    Attributes
    ----------
    reporters : mapping of reporter to its share
    size : float
        Imports beside those of the European Union.
    freight : float
        What the value holds beyond the price.
    days : int
        From the end of a month to its document.
    secret : float
        Share of cells that are confidential.
    """

    origin: Literal["eu", "us"]
    title: str
    system: System
    currency: Literal["EUR", "USD"]
    valuation: str
    reporters: dict[str, float]
    size: float
    freight: float
    days: int
    secret: float

    @property
    def source(self) -> str:
        """Name of the source."""
        return f"demo-customs-{self.origin}"


OFFICES = (
    Office("eu", "European Union", "CN8", "EUR", "cif at the border, simulated",
           {"NL": 0.5, "DE": 0.3, "BE": 0.2}, 1.0, 0.03, 40, 0.01),
    Office("us", "United States", "HTS10", "USD", "customs value, without freight, simulated",
           {"US": 1.0}, 0.6, 0.0, 35, 0.0),
)  # fmt: skip


@dataclass(frozen=True)
class Mishap:
    """One line of the script: a mass in a wrong unit, or a reporter that is late.

    ``mended``: the document of the next month brings the right figures.
    """

    origin: str
    month: str
    market: str = ""
    reporter: str = ""
    partner: str = ""
    factor: float = 1.0
    mended: bool = False


MISHAPS = (
    Mishap("eu", "2023-06", "antimony/metal", "NL", "TJ", 1 / 1000),  # tonnes for kilograms
    Mishap("us", "2024-08", "tungsten/chemical", "US", "CN", 10),  # a decimal place
    Mishap("eu", "2025-10", "gallium/metal", "NL", "CN", 1000, mended=True),  # grams for kilograms
    Mishap("eu", "2025-11", reporter="NL", mended=True),  # late: half the imports come a month later
)

_PRESENT = 0.4  # chance that a small stream has a shipment in a month; a large one always has
_MASS, _MIX, _QUALITY = 0.35, 0.05, 0.08  # scatter of a cell's mass, of its unit value, of a partner's quality [log]
_BETTER, _BETTER_SHARE = 1.25, 0.12  # now and then a whole cell is of a better grade
_PARCEL_SHARE = 0.12  # chance of a parcel, by product and month
_MOVED_SHARE, _MOVED = 0.04, 0.05  # cells that the next document corrects, and by how much [log]
_CONTROLLED, _CONTROLLED_MONTHS = 0.3, 12  # what an export control leaves of China's exports, and for how long


# ------------------------------------------------------------------------------------- the truth


@lru_cache(maxsize=32)
def _prices(year: int) -> Floats:
    """Return the mean true price by month, (12, market), USD/t; NaN before the simulation begins."""
    months = days_of(year).astype("datetime64[M]").astype(int) % 12
    true = truth_of(year)
    return np.array([true[months == m].mean(axis=0) for m in range(12)])


@lru_cache(maxsize=32)
def _usd_per_eur(year: int) -> Floats:
    months = days_of(year).astype("datetime64[M]").astype(int) % 12
    rates = fx_of(year)[:, 0]
    return np.array([rates[months == m].mean() for m in range(12)])


def price(market: str, leg: str, month: pd.Period) -> float:
    """Return what a month's imports were bought at, USD/t of the market's kind: the price of the month before."""
    paid = month - 1
    zone = "CN" if leg == CHINA else "XCN"
    return float(_prices(paid.year)[paid.month - 1, KEYS.index(f"{market}/{zone}")])


def quality(market: str, partner: str) -> float:
    """Return the lasting ratio of what a partner sends to the market's price."""
    return float(np.exp(generator("customs-quality", market, partner).normal(0, _QUALITY)))


def _controlled(market: str, month: pd.Period) -> bool:
    """Tell whether China's exports of a product lie low after an export control."""
    for event in EVENTS:
        if event.kind == "control" and f"{market}/CN" in event.markets:
            since = (month - pd.Period(event.start, "M")).n
            if 0 < since <= _CONTROLLED_MONTHS:
                return True
    return False


# ---------------------------------------------------------------------------------------- making


def cells(office: Office, product: Product, month: pd.Period, *, first: bool) -> list[list[Any]]:
    """Return a product's cells of a month: as first told, or as told a month later and ever after."""
    rng = generator("customs", office.origin, product.market, month.ordinal)
    streams = [(r, p, a * b) for r, a in office.reporters.items() for p, b in product.shares.items()]
    share = np.array([s for _, _, s in streams])
    draws = rng.random((3, len(streams)))
    scatter = rng.standard_normal((2, len(streams)))
    chance = np.minimum(1, _PRESENT + 2 * share)
    low = _controlled(product.market, month)
    controlled = np.array([_CONTROLLED if low and p == CHINA else 1.0 for _, p, _ in streams])
    kg = 1000 * product.tonnes * office.size * share / chance * controlled * np.exp(_MASS * scatter[0])
    level = np.array([price(product.market, p, month) * quality(product.market, p) for _, p, _ in streams])
    usd = kg / 1000 * product.content * level * np.exp(_MIX * scatter[1])
    usd *= np.where(draws[1] < _BETTER_SHARE, _BETTER, 1.0) * (1 + office.freight)
    rows = [
        (r, p, usd[i], kg[i], draws[2, i] < office.secret)
        for i, (r, p, _) in enumerate(streams)
        if draws[0, i] < chance[i]
    ]
    rows += _parcel(office, product, month, rng)
    return _told(office, product, month, rows, first=first)


def _parcel(
    office: Office, product: Product, month: pd.Period, rng: np.random.Generator
) -> list[tuple[str, str, float, float, bool]]:
    """Return a parcel of another grade from a partner that sends nothing else, or none."""
    chance, which, size, grade = rng.random(), rng.random(2), rng.standard_normal(), rng.uniform(3.5, 9)
    if chance >= _PARCEL_SHARE:
        return []
    others = [p for p in PARTNERS if p not in product.shares]
    partner, reporter = (
        others[int(which[0] * len(others))],
        list(office.reporters)[int(which[1] * len(office.reporters))],
    )
    kg = 8 * math.exp(1.2 * size)
    return [(reporter, partner, kg / 1000 * product.content * price(product.market, partner, month) * grade, kg, False)]


def _told(
    office: Office,
    product: Product,
    month: pd.Period,
    rows: Sequence[tuple[str, str, float, float, bool]],
    *,
    first: bool,
) -> list[list[Any]]:
    """Write cells as the office does: whole units of its currency, whole kilograms; and with its mishaps."""
    code, unit = product.codes[office.system]
    per_usd = 1 / _usd_per_eur(month.year)[month.month - 1] if office.currency == "EUR" else 1.0
    rng = generator("customs-first", office.origin, product.market, month.ordinal)
    out: list[list[Any]] = []
    for reporter, partner, usd, kg, secret in rows:
        moved, value_by, mass_by = rng.random(), rng.normal(0, _MOVED), rng.normal(0, _MOVED)
        if first and moved < _MOVED_SHARE:
            usd, kg = usd * math.exp(value_by), kg * math.exp(mass_by)
        mishap = _mishap(office, product, month, reporter, partner)
        if mishap and (first or not mishap.mended):
            if mishap.factor == 1:
                continue
            kg *= mishap.factor
        mass = round(kg * (product.content if unit == "CKG" else 1))
        figures = [None, None, "confidential"] if secret else [round(usd * per_usd), mass, "normal"]
        out.append([code, reporter, partner, str(month), *figures])
    return out


def _mishap(office: Office, product: Product, month: pd.Period, reporter: str, partner: str) -> Mishap | None:
    found = (
        m
        for m in MISHAPS
        if (m.origin, m.month, m.reporter) == (office.origin, str(month), reporter)
        and m.market in ("", product.market)
        and m.partner in ("", partner)
    )
    return next(found, None)


def published(office: Office, month: pd.Period) -> dt.date:
    """Return the weekday on which an office's document of a month comes out."""
    day: dt.date = month.end_time.date() + dt.timedelta(days=office.days)
    return day + dt.timedelta(days=max(0, 7 - day.weekday()) if day.weekday() > 4 else 0)
