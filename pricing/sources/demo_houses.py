"""Who quotes the simulated market, in which unit, and with which habits and mishaps.

A house sees the true price through its own lasting basis and a little noise, turns it into its own
unit by the exact inverse of ``pricing.units``, and tells it by its habit: each day, a day late, on
Thursdays, or only when the market has moved far enough. The script then adds its faults.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pricing.sources.demo_market import (
    EVENTS,
    FIRST_DAY,
    KEYS,
    MARKETS,
    MINERALS,
    DemoMarket,
    Event,
    Floats,
    days_of,
    fx_of,
    generator,
    output_of,
    truth_of,
)

POUND_KG = 0.45359237  # international yard and pound agreement, 1959
TROY_OUNCE_KG = 0.0311034768
CHINESE_VAT = 0.13  # since 1 April 2019, so throughout the simulation

TOLD = ("published", "period", "series", "unit", "value", "status", "later")


@dataclass(frozen=True)
class House:
    """A fictional contributor: an origin of its own.

    Attributes
    ----------
    noise : float
        Standard deviation of its daily error. [log]
    digits : int
        Significant digits of its quotations.
    lag : int
        Trading days between a period and the document that carries it.
    thursdays : bool
        It quotes once a week.
    reluctance : float
        An assessment stays until the market is further away than this. [log]
    revised : float
        Share of its values that it corrects three trading days later.
    """

    name: str
    title: str
    tier: Literal["transaction", "committed", "assessment"]
    quotes: Callable[[DemoMarket], bool]
    noise: float
    digits: int = 6
    lag: int = 0
    thursdays: bool = False
    reluctance: float = 0.0
    revised: float = 0.0

    @property
    def columns(self) -> NDArray[np.intp]:
        """Positions in MARKETS of what it quotes."""
        return np.array([i for i, m in enumerate(MARKETS) if self.quotes(m)])


_RARE_EARTHS = ("neodymium-praseodymium", "dysprosium", "terbium")
_BASE_METALS = ("copper", "nickel", "tin")

HOUSES: dict[str, House] = {
    h.name: h
    for h in (
        House("northgate", "Northgate Exchange", "transaction", lambda m: True, noise=0.0015),
        House(
            "kestrel", "Kestrel Brokers", "committed",
            lambda m: not (m.zone == "CN" and m.mineral in _RARE_EARTHS), noise=0.003, lag=1,
        ),
        House(
            "meridian", "Meridian Assessments", "assessment",
            lambda m: m.zone != "CN", noise=0.001, digits=4, reluctance=0.025,
        ),
        House(
            "lantern", "Lantern Metals Desk", "committed",
            lambda m: m.zone == "CN" or (m.stage == "metal" and m.mineral in _BASE_METALS), noise=0.003, revised=0.02,
        ),
        House(
            "harbour", "Harbour Weekly", "assessment",
            lambda m: m.mineral != "gold", noise=0.004, digits=5, thursdays=True,
        ),
    )
}  # fmt: skip


def quotation(house: str, market: DemoMarket) -> tuple[str, str, Literal["none", "cn-vat"]]:
    """Return unit, what its mass counts, and tax, of a house's quotation of a market."""
    if house == "northgate":
        return ("USD/dmtu", "contained", "none") if market.mineral == "manganese" else ("USD/kg", "product", "none")
    if house == "kestrel":
        return ("USD/ozt" if market.mineral == "gold" else "USD/lb", "product", "none")
    if house == "meridian":
        return "EUR/t", "product", "none"
    if house == "lantern" and market.zone == "CN":
        return "CNY/t", "product", "cn-vat"
    return "USD/t", "product", "none"


def basis(house: str, market: DemoMarket) -> float:
    """Return the lasting ratio of a house's level to the true price; northgate, the anchor, has none."""
    if house == "northgate":
        return 1.0
    return float(np.exp(generator("basis", house, market.key).uniform(-0.025, 0.025)))


def per_usd(house: str, market: DemoMarket, year: int) -> Floats:
    """Return own units per USD/t of the market, by trading day: the inverse of what ``units`` does."""
    unit, quoted_on, tax = quotation(house, market)
    currency, mass = unit.split("/")
    kilograms = {"t": 1000.0, "kg": 1.0, "lb": POUND_KG, "ozt": TROY_OUNCE_KG, "dmtu": 10.0}[mass]
    content = market.content if market.per == "contained" and quoted_on == "product" else 1.0
    rates = fx_of(year)
    usd, cny = rates[:, 0], rates[:, 1]
    money = {"USD": np.ones(len(usd)), "EUR": 1 / usd, "CNY": cny / usd}[currency]
    return np.asarray(money * (kilograms / 1000) * content * (1 + CHINESE_VAT if tax == "cn-vat" else 1.0))


def significant(values: Floats, digits: int) -> Floats:
    """Round to a number of significant digits, so that the shortest text is as long as a quotation."""
    power = digits - 1 - np.floor(np.log10(values))
    up, down = 10.0 ** np.maximum(power, 0), 10.0 ** np.maximum(-power, 0)
    return np.asarray(np.rint(values * up / down) * down / up)


@lru_cache(maxsize=32)
def _habitual(house: House, year: int) -> Floats:
    """Return what the house would quote on each day of a year without any fault, (day, column)."""
    days, columns = days_of(year), house.columns
    markets = [MARKETS[i] for i in columns]
    noise = np.column_stack([generator("noise", house.name, m.key, year).standard_normal(len(days)) for m in markets])
    lasting = np.array([basis(house.name, m) for m in markets])
    units = np.column_stack([per_usd(house.name, m, year) for m in markets])
    seen = truth_of(year)[:, columns] * lasting * np.exp(house.noise * noise) * units
    quoted = significant(seen, house.digits)
    if house.reluctance:
        held = _habitual(house, year - 1)[-1] if year > FIRST_DAY.year else quoted[0]
        for day in quoted:
            held = day[:] = np.where(np.abs(np.log(day / held)) > house.reluctance, day, held)
    return quoted


@dataclass
class _Book:
    """One house's year while the script works on it; all arrays (day of the period, column)."""

    house: House
    days: NDArray[np.datetime64]
    value: Floats  # NaN where nothing is told
    status: NDArray[np.object_]
    later: list[tuple[np.datetime64, int, int, float, str]]  # published, day, column, value, status

    def days_in(self, event: Event) -> NDArray[np.intp]:
        inside = (self.days >= np.datetime64(event.start)) & (self.days <= np.datetime64(event.end))
        return np.flatnonzero(inside)

    def columns_of(self, event: Event) -> list[int]:
        own = self.house.columns.tolist()
        return [own.index(KEYS.index(k)) for k in event.markets if KEYS.index(k) in own]


def _squeeze(book: _Book, event: Event) -> None:
    # The second day is the peak, cancelled afterwards; from the third nobody trades, and only the
    # exchange still sends a line: the stale price, marked.
    span, settled = book.days_in(event), np.datetime64(event.settled or event.end)
    for c in book.columns_of(event):
        peak, halted = int(span[1]), span[2:]
        stale = book.value[peak, c]
        if np.isfinite(stale):
            book.later.append((settled, peak, c, float(stale), "voided"))
        book.value[halted, c] = np.nan
        if book.house.tier == "transaction":
            book.value[halted, c], book.status[halted, c] = stale, "suspended"


def _slip(book: _Book, event: Event) -> None:
    for c in book.columns_of(event):
        for day in book.days_in(event):
            right = float(book.value[day, c])
            book.value[day, c] = significant(np.array(right * event.magnitude[0]), book.house.digits)
            book.later.append((np.datetime64(event.settled or event.end), int(day), c, right, "normal"))


def _revision(book: _Book, event: Event) -> None:
    for c in book.columns_of(event):
        for day in book.days_in(event):
            mended = significant(np.array(book.value[day, c] * (1 + event.magnitude[0])), book.house.digits)
            book.later.append((np.datetime64(event.settled or event.end), int(day), c, float(mended), "normal"))


def _stale(book: _Book, event: Event) -> None:
    span = book.days_in(event)
    book.value[span] = book.value[span[0] - 1]


def _drop_out(book: _Book, event: Event) -> None:
    silent = np.datetime64(event.start), np.datetime64(event.end)
    published = np.busday_offset(book.days, book.house.lag)
    book.value[(published >= silent[0]) & (published <= silent[1])] = np.nan
    book.later = [row for row in book.later if not silent[0] <= row[0] <= silent[1]]


_FAULTS = {"squeeze": _squeeze, "slip": _slip, "revision": _revision, "stale": _stale, "drop-out": _drop_out}


def _small_revisions(book: _Book) -> None:
    """Correct a few values by about half a per cent three trading days later."""
    rng = generator("revised", book.house.name, int(book.days[0].astype("datetime64[Y]").astype(int) + 1970))
    chosen, size = rng.random(book.value.shape) < book.house.revised, rng.normal(0, 0.005, book.value.shape)
    chosen[1:] &= book.value[1:] != book.value[:-1]  # who does not look at the market corrects nothing
    touched = {(day, c) for _, day, c, _, _ in book.later}
    for day, c in np.argwhere(chosen):
        if (day, c) not in touched:
            mended = significant(np.array(book.value[day, c] * np.exp(size[day, c])), book.house.digits)
            published = np.busday_offset(book.days[day], book.house.lag + 3)
            book.later.append((published, int(day), int(c), float(mended), "normal"))


def _book(house: House, year: int) -> _Book:
    """Return a year of a house with the habits and faults applied."""
    days, value = days_of(year), _habitual(house, year).copy()
    if house.thursdays:
        value[np.arange(len(days))[(days.astype("datetime64[D]").astype(int) + 3) % 7 != 3]] = np.nan
    book = _Book(house, days, value, np.full(value.shape, "normal", dtype=object), [])
    happened = [e for e in EVENTS if e.start.year == year and e.contributor in (None, house.name)]
    for event in happened:
        if event.kind != "drop-out" and event.kind in _FAULTS:
            _FAULTS[event.kind](book, event)
    if house.revised:
        _small_revisions(book)
    for event in happened:  # last: who sends nothing corrects nothing
        if event.kind == "drop-out":
            _drop_out(book, event)
    return book


def _quotes(house: House, year: int) -> pd.DataFrame:
    book = _book(house, year)
    day, column = np.nonzero(np.isfinite(book.value))
    later = [row for row in book.later if np.isfinite(book.value[row[1], row[2]])]
    at = np.concatenate([day, np.array([row[1] for row in later], dtype=int)])
    of = np.concatenate([column, np.array([row[2] for row in later], dtype=int)])
    first = np.busday_offset(book.days[day], house.lag)
    markets = [MARKETS[i] for i in house.columns]
    names = np.array([f"{house.name}-{m.key.replace('/', '-').lower()}" for m in markets], dtype=object)
    units = np.array([quotation(house.name, m)[0] for m in markets], dtype=object)
    return pd.DataFrame(
        {
            "published": np.concatenate([first, np.array([row[0] for row in later], dtype="datetime64[D]")]),
            "period": book.days.astype(str)[at],
            "series": names[of],
            "unit": units[of],
            "value": np.concatenate([book.value[day, column], [row[3] for row in later]]),
            "status": np.concatenate([book.status[day, column], np.array([row[4] for row in later], dtype=object)]),
            "later": np.arange(len(at)) >= len(day),
        }
    )


def _rates(year: int) -> pd.DataFrame:
    days, rates = days_of(year), fx_of(year)
    parts = [
        pd.DataFrame({"published": days, "period": days.astype(str), "series": f"demo-fx-{c.lower()}",
                      "unit": f"{c}/EUR", "value": rates[:, i], "status": "normal", "later": False})
        for i, c in enumerate(("USD", "CNY"))
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _output(year: int) -> pd.DataFrame:
    """Return what the statistics of January say: last year's estimate, and the year before, final."""
    published = np.busday_offset(np.datetime64(f"{year}-02-01"), -1, roll="forward")
    rows = []
    for mineral in MINERALS:
        for past, status in ((year - 2, "normal"), (year - 1, "provisional")):
            # an estimate errs by about two per cent; the final figure a year later replaces it
            error = generator("estimate", mineral, past).normal(0, 0.02) if status == "provisional" else 0.0
            value = float(f"{output_of(mineral, past) * np.exp(error):.3g}")
            rows.append((published, str(past), f"demo-production-{mineral}", "t", value, status, False))
    return pd.DataFrame(rows, columns=list(TOLD))


CONTRIBUTORS = (*HOUSES, "demo-fx", "demo-production")


@lru_cache(maxsize=32)
def told(contributor: str, year: int) -> pd.DataFrame:
    """Return all that a contributor ever says about the periods of a year (production: says in a year).

    Returns
    -------
    DataFrame, columns TOLD: ``published`` (day), ``period`` (ISO text), ``series``, ``unit``, ``value`` in
    the contributor's own unit, ``status``, and ``later`` (true for a second word on the same period).
    """
    if contributor == "demo-fx":
        return _rates(year)
    return _output(year) if contributor == "demo-production" else _quotes(HOUSES[contributor], year)


def next_day(day: dt.date, n: int = 1) -> dt.date:
    """Return the n-th trading day after a day."""
    return np.busday_offset(np.datetime64(day), n, roll="backward").astype(dt.date)  # type: ignore[no-any-return]
