"""The simulated market behind the ``demo`` source: what is quoted, the true prices, the script of events.

Nothing here is a real price. Levels are round figures of the order seen around 2025; every movement is
drawn from a fixed seed. The path is drawn year by year, each year from its own seeds and from the
state in which the year before ended, so a day's value never depends on how far anyone has looked.

The simulated market trades every Monday to Friday; it knows no holidays.
"""

from __future__ import annotations

import datetime as dt
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pricing.settings import Stage, Zone

SEED = 51
FIRST_DAY = dt.date(2021, 1, 4)
FIRST_LIVE_DAY = dt.date(2026, 1, 1)
LAST_DAY = dt.date(2036, 12, 31)

Floats = NDArray[np.float64]
Days = NDArray[np.datetime64]


@dataclass(frozen=True)
class DemoMarket:
    """One simulated market.

    ``content`` is the element's mass share of the product by market specification; ``level`` is in USD
    per tonne of product, without tax.
    """

    mineral: str
    stage: Stage
    zone: Zone
    title: str
    element: str
    content: float
    level: float

    @property
    def key(self) -> str:
        """``mineral/stage/zone``."""
        return f"{self.mineral}/{self.stage}/{self.zone}"

    @property
    def per(self) -> Literal["contained", "product"]:
        """Metals are priced per tonne of product, everything else per tonne of contained element."""
        return "product" if self.stage == "metal" else "contained"


MARKETS: tuple[DemoMarket, ...] = (
    DemoMarket("lithium", "ore", "WLD", "Spodumene concentrate, 6 % Li2O", "Li", 0.0279, 860),
    DemoMarket("lithium", "chemical", "CN", "Lithium carbonate, battery grade, China", "Li", 0.187, 9_600),
    DemoMarket("lithium", "chemical", "XCN", "Lithium carbonate, outside China", "Li", 0.187, 10_300),
    DemoMarket("cobalt", "metal", "XCN", "Cobalt metal, outside China", "Co", 0.998, 36_000),
    DemoMarket("cobalt", "chemical", "CN", "Cobalt sulphate, 20.5 % Co, China", "Co", 0.205, 6_900),
    DemoMarket("nickel", "metal", "XCN", "Nickel metal, outside China", "Ni", 0.998, 15_300),
    DemoMarket("nickel", "chemical", "CN", "Nickel sulphate, 22 % Ni, China", "Ni", 0.22, 3_800),
    DemoMarket("copper", "metal", "CN", "Copper cathode, China", "Cu", 0.9999, 9_600),
    DemoMarket("copper", "metal", "XCN", "Copper cathode, outside China", "Cu", 0.9999, 9_700),
    DemoMarket("tin", "metal", "CN", "Tin ingot, China", "Sn", 0.9985, 32_000),
    DemoMarket("tin", "metal", "XCN", "Tin ingot, outside China", "Sn", 0.9985, 33_000),
    DemoMarket("gold", "metal", "WLD", "Gold", "Au", 0.995, 106_000_000),
    DemoMarket("neodymium-praseodymium", "oxide", "CN", "NdPr oxide, China", "NdPr", 0.85, 66_000),
    DemoMarket("neodymium-praseodymium", "oxide", "XCN", "NdPr oxide, outside China", "NdPr", 0.85, 76_000),
    DemoMarket("dysprosium", "oxide", "CN", "Dysprosium oxide, China", "Dy", 0.867, 220_000),
    DemoMarket("dysprosium", "oxide", "XCN", "Dysprosium oxide, outside China", "Dy", 0.867, 290_000),
    DemoMarket("terbium", "oxide", "CN", "Terbium oxide, China", "Tb", 0.85, 950_000),
    DemoMarket("terbium", "oxide", "XCN", "Terbium oxide, outside China", "Tb", 0.85, 1_200_000),
    DemoMarket("graphite", "intermediate", "CN", "Flake graphite, 94 % C, China", "C", 0.94, 880),
    DemoMarket("graphite", "intermediate", "XCN", "Flake graphite, 94 % C, outside China", "C", 0.94, 1_100),
    DemoMarket("gallium", "metal", "CN", "Gallium, China", "Ga", 0.9999, 230_000),
    DemoMarket("gallium", "metal", "XCN", "Gallium, outside China", "Ga", 0.9999, 520_000),
    DemoMarket("germanium", "metal", "CN", "Germanium, China", "Ge", 0.9999, 1_900_000),
    DemoMarket("germanium", "metal", "XCN", "Germanium, outside China", "Ge", 0.9999, 3_300_000),
    DemoMarket("antimony", "metal", "CN", "Antimony metal, China", "Sb", 0.9965, 26_000),
    DemoMarket("antimony", "metal", "XCN", "Antimony metal, outside China", "Sb", 0.9965, 45_000),
    DemoMarket("tungsten", "chemical", "CN", "Ammonium paratungstate, China", "W", 0.702, 30_000),
    DemoMarket("tungsten", "chemical", "XCN", "Ammonium paratungstate, outside China", "W", 0.702, 34_000),
    DemoMarket("manganese", "ore", "WLD", "Manganese ore, 44 % Mn", "Mn", 0.44, 198),
    DemoMarket("vanadium", "oxide", "CN", "Vanadium pentoxide, China", "V", 0.549, 9_700),
    DemoMarket("vanadium", "oxide", "XCN", "Vanadium pentoxide, outside China", "V", 0.549, 11_200),
    DemoMarket("bismuth", "metal", "CN", "Bismuth metal, China", "Bi", 0.9999, 19_000),
    DemoMarket("bismuth", "metal", "XCN", "Bismuth metal, outside China", "Bi", 0.9999, 33_000),
)
KEYS = tuple(m.key for m in MARKETS)
MINERALS = tuple(dict.fromkeys(m.mineral for m in MARKETS))

# Mineral: daily volatility [1], share of the common movement [1], world output [t of element a year].
_CHARACTER: dict[str, tuple[float, float, float]] = {
    "lithium": (0.014, 0.4, 260_000),
    "cobalt": (0.010, 0.4, 280_000),
    "nickel": (0.012, 0.8, 3_600_000),
    "copper": (0.009, 0.9, 22_500_000),
    "tin": (0.011, 0.7, 300_000),
    "gold": (0.007, 0.2, 3_300),
    "neodymium-praseodymium": (0.010, 0.2, 75_000),
    "dysprosium": (0.009, 0.1, 2_400),
    "terbium": (0.010, 0.1, 450),
    "graphite": (0.005, 0.1, 1_600_000),
    "gallium": (0.008, 0.1, 800),
    "germanium": (0.008, 0.1, 220),
    "antimony": (0.010, 0.1, 100_000),
    "tungsten": (0.008, 0.2, 82_000),
    "manganese": (0.009, 0.3, 20_000_000),
    "vanadium": (0.009, 0.3, 105_000),
    "bismuth": (0.008, 0.1, 16_000),
}
# Processes with volatility of their own: the common movement, each mineral, and two exchange rates.
_PROCESSES = ("common", *MINERALS, "eur-usd", "usd-cny")
_SIGMA = np.array([0.006, *(_CHARACTER[m][0] for m in MINERALS), 0.0045, 0.0016])
_EUR_USD, _USD_CNY = 1.12, 7.15

# Log volatility: h = _PERSISTENCE * h' + _RESTLESSNESS * N(0, 1); returns are exp(h / 2) * sigma * t(_TAIL).
_PERSISTENCE, _RESTLESSNESS, _TAIL = 0.97, 0.16, 8
_LEVEL_PULL = 0.997  # a level returns half-way in about a year: ten years on, prices are still prices
_GAP_PULL, _GAP_SIGMA = 0.985, 0.004  # China against outside: cointegrated, apart by a few per cent for months
_STAGE_PULL, _STAGE_SIGMA = 0.97, 0.002


@dataclass(frozen=True)
class Event:
    """One line of the script.

    Attributes
    ----------
    kind : str
        ``squeeze`` and ``control`` move the true price; the others are faults of one contributor.
    markets : tuple of str
        Market keys; empty means all markets of the contributor.
    start, end : date
        First and last day: of periods, but for ``drop-out`` of publication.
    magnitude : tuple of float
        Per market: relative move at the peak, factor of the slip, or relative size of the revision.
    settled : date or None
        When the contributors send the voided or corrected values.
    """

    name: str
    kind: Literal["squeeze", "control", "slip", "stale", "revision", "drop-out"]
    markets: tuple[str, ...]
    contributor: str | None
    start: dt.date
    end: dt.date
    what: str
    magnitude: tuple[float, ...] = ()
    settled: dt.date | None = None


_NICKEL, _TUNGSTEN, _BISMUTH = ("nickel/metal/XCN",), ("tungsten/chemical/XCN",), ("bismuth/metal/XCN",)
_ANTIMONY, _GALLIUM = ("antimony/metal/XCN", "antimony/metal/CN"), ("gallium/metal/XCN", "gallium/metal/CN")
_SQUEEZE = "+60 % in two days; then five days suspended; the second day is voided"
_CONTROL = "export control: outside China +35 % in eight days, inside -9 %"
_SLIP_T = "sends USD/t in place of USD/kg for two days"
_SLIP_KG = "sends USD/kg in place of USD/lb for two days"
_STALE = "repeats the last value on all its markets for eight days"
_REVISION = "a week is revised by -3 %"
_ABSENT = "sends nothing for ten days, then returns"
_KG_FOR_LB = 1 / 0.45359237
_day = dt.date.fromisoformat

# fmt: off
EVENTS: tuple[Event, ...] = (
    Event("squeeze-2022", "squeeze", _NICKEL, None,
          _day("2022-10-10"), _day("2022-10-18"), _SQUEEZE, (0.60,), _day("2022-10-13")),
    Event("stale-2023", "stale", (), "kestrel", _day("2023-02-06"), _day("2023-02-15"), _STALE),
    Event("control-2023", "control", _ANTIMONY, None,
          _day("2023-09-04"), _day("2023-09-13"), _CONTROL, (0.35, -0.09)),
    Event("slip-2024", "slip", _TUNGSTEN, "northgate",
          _day("2024-03-12"), _day("2024-03-13"), _SLIP_T, (1000.0,), _day("2024-03-18")),
    Event("drop-out-2024", "drop-out", (), "lantern", _day("2024-11-04"), _day("2024-11-15"), _ABSENT),
    Event("revision-2025", "revision", _TUNGSTEN, "meridian",
          _day("2025-06-09"), _day("2025-06-13"), _REVISION, (-0.03,), _day("2025-06-17")),
    Event("squeeze-2026", "squeeze", _NICKEL, None,
          _day("2026-01-12"), _day("2026-01-20"), _SQUEEZE, (0.60,), _day("2026-01-15")),
    Event("slip-2026", "slip", _BISMUTH, "kestrel",
          _day("2026-01-20"), _day("2026-01-21"), _SLIP_KG, (_KG_FOR_LB,), _day("2026-01-27")),
    Event("stale-2026", "stale", (), "lantern", _day("2026-01-26"), _day("2026-02-04"), _STALE),
    Event("control-2026", "control", _GALLIUM, None,
          _day("2026-01-29"), _day("2026-02-09"), _CONTROL, (0.35, -0.09)),
    Event("revision-2026", "revision", _TUNGSTEN, "meridian",
          _day("2026-02-02"), _day("2026-02-06"), _REVISION, (-0.03,), _day("2026-02-10")),
    Event("drop-out-2026", "drop-out", (), "kestrel", _day("2026-02-09"), _day("2026-02-20"), _ABSENT),
)
# fmt: on


def days_of(year: int) -> Days:
    """Return the trading days of a year, from FIRST_DAY on. Raises ValueError outside the simulation."""
    if not FIRST_DAY.year <= year <= LAST_DAY.year:
        raise ValueError(f"the simulation runs from {FIRST_DAY} to {LAST_DAY}, not in {year}")
    days = np.arange(np.datetime64(f"{year}-01-01"), np.datetime64(f"{year + 1}-01-01"))
    return days[np.is_busday(days) & (days >= np.datetime64(FIRST_DAY))]


def generator(*names: str | int) -> np.random.Generator:
    """Return the generator that belongs to these names, whoever asks and whenever."""
    return np.random.default_rng([SEED, *(n if isinstance(n, int) else zlib.crc32(n.encode()) for n in names)])


@dataclass(frozen=True)
class _Year:
    """The latent state of each day of a year: (day, process) and (day, market) arrays."""

    spirit: Floats  # log volatility, by process
    level: Floats  # log deviation from the level, by process
    gap: Floats  # log distance of XCN over CN, by mineral
    stage: Floats  # log deviation of the market from its mineral


def _autoregressive(shocks: Floats, pull: float, start: Floats) -> Floats:
    """Return y[t] = pull * y[t-1] + shocks[t]."""
    out = np.empty_like(shocks)
    for t, shock in enumerate(shocks):
        start = out[t] = pull * start + shock
    return out


@lru_cache(maxsize=32)
def _latent(year: int) -> _Year:
    days = days_of(year)
    before = _latent(year - 1) if year > FIRST_DAY.year else None

    def last(name: str, n: int) -> Floats:
        return np.zeros(n) if before is None else np.asarray(getattr(before, name))[-1]

    n = len(_PROCESSES)
    normal = _draws(_PROCESSES, year, len(days), "spirit")
    spirit = _autoregressive(_RESTLESSNESS * normal, _PERSISTENCE, last("spirit", n))
    # exp(h) has mean 1 after this shift, and t(nu) variance 1 after this scale
    shift = _RESTLESSNESS**2 / (1 - _PERSISTENCE**2) / 2
    tail = np.column_stack([generator("tail", p, year).standard_t(_TAIL, len(days)) for p in _PROCESSES])
    returns = _SIGMA * np.exp((spirit - shift) / 2) * tail * np.sqrt((_TAIL - 2) / _TAIL)
    return _Year(
        spirit=spirit,
        level=_autoregressive(returns, _LEVEL_PULL, last("level", n)),
        gap=_autoregressive(
            _GAP_SIGMA * _draws(MINERALS, year, len(days), "gap"), _GAP_PULL, last("gap", len(MINERALS))
        ),
        stage=_autoregressive(
            _STAGE_SIGMA * _draws(KEYS, year, len(days), "stage"), _STAGE_PULL, last("stage", len(KEYS))
        ),
    )


def _draws(names: tuple[str, ...], year: int, n: int, purpose: str) -> Floats:
    return np.column_stack([generator(purpose, name, year).standard_normal(n) for name in names])


def truth_of(year: int, *, scripted: bool = True) -> Floats:
    """Return the true prices of a year, (day, market), in USD/t of each market's own kind."""
    latent = _latent(year)
    column = [MINERALS.index(m.mineral) for m in MARKETS]
    beta = np.array([_CHARACTER[m.mineral][1] for m in MARKETS])
    side = np.array([{"CN": -0.5, "XCN": 0.5, "WLD": 0.0}[m.zone] for m in MARKETS])
    level = np.log([m.level / (m.content if m.per == "contained" else 1) for m in MARKETS])
    common, own = latent.level[:, :1], latent.level[:, 1 : 1 + len(MINERALS)]
    log = level + beta * common + own[:, column] + side * latent.gap[:, column] + latent.stage
    if scripted:
        for event in EVENTS:
            for key, size in zip(event.markets, event.magnitude, strict=True):
                log[:, KEYS.index(key)] += _push(event, size, days_of(year))
    return np.asarray(np.exp(log))


def _push(event: Event, size: float, days: Days) -> Floats:
    """Return what an event adds to the log of the true price: straight lines, exactly 0 before and after."""
    peak = float(np.log1p(size))
    after = np.busday_count(event.start, days).astype(float)  # trading days since the start
    if event.kind == "squeeze":  # two days up, five suspended, reopens a fifth as high, fades in 40 days
        return np.asarray(np.interp(after, [-1, 0, 1, 7, 47], [0, peak / 2, peak, peak / 5, 0]))
    if event.kind == "control":  # eight days up or down, 40 days there, back over 200
        return np.asarray(np.interp(after, [-1, 7, 47, 247], [0, peak, peak, 0]))
    return np.zeros(len(days))


def fx_of(year: int) -> Floats:
    """Return the simulated USD and CNY per EUR of a year, (day, 2), four decimals as published."""
    level = _latent(year).level
    usd = _EUR_USD * np.exp(level[:, -2])
    rates = np.column_stack([usd, usd * _USD_CNY * np.exp(level[:, -1])])
    return np.asarray(np.round(rates, 4), dtype=np.float64)


def output_of(mineral: str, year: int) -> float:
    """Return the simulated world output of a mineral in a year, in tonnes of element, three digits."""
    trend = _CHARACTER[mineral][2] * 1.02 ** (year - 2025)
    value = trend * np.exp(generator("output", mineral, year).normal(0, 0.03))
    return float(f"{value:.3g}")


def truth(key: str, until: dt.date = dt.date(2026, 12, 31), *, scripted: bool = True) -> pd.Series[float]:
    """Return the true price of a market by trading day: what the contributors see through their habits.

    Parameters
    ----------
    key : str
        ``mineral/stage/zone`` of MARKETS.
    until : date
        Last day.
    scripted : bool
        False leaves the events out: the same path as if nothing had happened.

    Returns
    -------
    Series, by trading day. [USD per tonne, of product for metals, else of contained element]
    """
    years = range(FIRST_DAY.year, until.year + 1)
    column = KEYS.index(key)
    values = np.concatenate([truth_of(y, scripted=scripted)[:, column] for y in years])
    days = pd.DatetimeIndex(np.concatenate([days_of(y) for y in years]), name="period")
    return pd.Series(values, index=days, name=key).loc[: pd.Timestamp(until)]


def fx(until: dt.date = dt.date(2026, 12, 31)) -> pd.DataFrame:
    """Return the simulated exchange rates by trading day, columns USD and CNY, in units per EUR."""
    years = range(FIRST_DAY.year, until.year + 1)
    days = pd.DatetimeIndex(np.concatenate([days_of(y) for y in years]), name="period")
    rates = pd.DataFrame(np.concatenate([fx_of(y) for y in years]), index=days, columns=["USD", "CNY"])
    return rates.loc[: pd.Timestamp(until)]
