"""What the determination and index stage costs: 500 markets over ten years of market days, and one day more.

From quotations in the market's unit (what ``figures.all_quotes`` returns) to bases, prices, months, indices and their
twins. Reading the store and making documents are not in it.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.measure import Line, Result, cpu_of
from pricing import figures
from pricing.config import Methodology, Series
from pricing.reference import Quotes

MARKETS, YEARS, ORIGINS, MISSING = 500, 10, 4, 0.1
FIRST = "2015-11-30"
DOUBTFUL = 0.001  # share of quotations that were voided or suspended
SEED = 21
EVE, DAY, MONTH_OVER = "2025-11-27", "2025-11-28", "2025-12-01"
ROUNDS, DAY_ROUNDS = 3, 7
AIM_WHOLE, AIM_DAY = 10.0, 0.2
BASKETS = {"all": MARKETS, "fifty": 50, "ten": 10}


def run() -> Result:
    methodology = made_methodology()
    production = made_production(methodology)
    shorter, quoted = made_quotes(methodology, 1), made_quotes(methodology, 0)
    given = _peak()

    def stage(quotes: Quoted, known_on: str, before: Made | None = None) -> Made:
        bases = list(before.bases) if before is not None else []
        bases += figures.bases_due(quotes, methodology, bases, known_on)
        old = (before.prices, before.baskets) if before is not None else (None, None)
        prices = figures.prices(quotes, methodology, bases, known_on, old[0])
        return Made(bases, prices, figures.baskets(methodology, prices, production, known_on, old[1]))

    whole = [cpu_of(lambda: stage(shorter, EVE)) for _ in range(ROUNDS)]
    before = stage(shorter, EVE)
    day = [cpu_of(lambda: stage(quoted, DAY, before)) for _ in range(DAY_ROUNDS)]
    _check(stage(quoted, DAY, before), before)
    month = [cpu_of(lambda: stage(quoted, MONTH_OVER, before)) for _ in range(ROUNDS)]
    result = Result(f"Determination and indices: {MARKETS} markets of {ORIGINS} origins, ten years of market days")
    result.lines = [
        Line("the whole history", f"{median(whole):.1f} s", _range(whole), "",
             f"< {AIM_WHOLE:.0f} s", median(whole) < AIM_WHOLE),
        Line("one day more", f"{median(day):.3f} s", _range(day), "", f"< {AIM_DAY} s", median(day) < AIM_DAY),
        Line("one day more, on which a month is over", f"{median(month):.1f} s", _range(month)),
        Line("peak memory", f"{_peak():,.0f} MB", f"{given:,.0f} MB of it quotations, twice"),
    ]  # fmt: skip
    result.notes = [
        f"CPU, median of {ROUNDS} and {DAY_ROUNDS}. One origin is weekly, {MISSING:.0%} is missing, "
        f"{DOUBTFUL:.1%} suspended; baskets of {', '.join(map(str, BASKETS.values()))} markets, linked yearly.",
        "From quotations in the market's unit to bases, prices, months, indices, twins; tables are joined on demand.",
    ]
    return result


Quoted = dict[tuple[str, str], Quotes]


@dataclass(frozen=True)
class Made:
    bases: list[dict[str, Any]]
    prices: dict[str, figures.MarketPrices]
    baskets: dict[str, figures.BasketFigures]


def _check(made: Made, before: Made) -> None:
    """Refuse to measure less than is meant: every market and basket has a figure of the new day."""
    for key, one in made.prices.items():
        old = before.prices[key].daily
        if one.daily is None or old is None or len(one.daily.quotes.at) != len(old.quotes.at) + 1:
            raise RuntimeError(f"{key} has no new day")
    for name, basket in made.baskets.items():
        if basket.indices["daily"].frame["unrounded"].isna().iloc[-1] or len(basket.indices["daily"].links) < YEARS - 1:
            raise RuntimeError(f"basket {name} is not linked each year up to the new day")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _range(seconds: list[float]) -> str:
    return f"{min(seconds):.2f}-{max(seconds):.2f}"


def made_methodology() -> Methodology:
    keys = [{"mineral": f"m{i:03}", "stage": "metal", "zone": "XCN"} for i in range(MARKETS)]
    determination = {
        "max_spread": 0.15, "widest": 0.30, "max_weight": 0.49, "carry_days": 3, "interval": 80,
        "interval_periods": 250,
        "stale_days": {"daily": 0, "weekly": 6, "ten-day": 0, "monthly": 0, "annual": 0},
        "relaxed_days": {"daily": 0, "weekly": 13, "ten-day": 0, "monthly": 0, "annual": 0},
        "tier_weights": {"transaction": 1.0, "committed": 0.9, "official": 0.8, "assessment": 0.7, "model": 0.3},
        "grades": {"A": 3, "B": 2, "C": 1}, "month_share": 0.6,
    }  # fmt: skip
    baskets = {
        name: {
            "title": name, "base_period": "2020", "review": 1, "cap": 0.25, "min_weight": 0.6,
            "constituents": [{**k, "production": k["mineral"]} for k in keys[:count]],
        }
        for name, count in BASKETS.items()
    }  # fmt: skip
    return Methodology.model_validate(
        {
            "id": "2016-01", "title": "benchmark", "status": "initial", "proposed": "2015-11-01",
            "effective": "2015-12-01", "notice_days": 28, "determination": determination,
            "fallback": {"window": {"daily": 60, "ten-day": 18, "monthly": 12},
                         "limit": {"daily": 10, "ten-day": 3, "monthly": 2}},
            "twins": {"risk_months": 36, "min_changes": 24, "geks_window": 25},
            "basis": {"review_month": 1, "window_months": 12,
                      "min_common": {"daily": 20, "weekly": 10, "ten-day": 5, "monthly": 3}},
            "markets": [{**k, "per": "product", "anchor": "o0"} for k in keys], "baskets": baskets,
        }
    )  # fmt: skip


def made_quotes(methodology: Methodology, days: int) -> dict[tuple[str, str], Quotes]:
    """Random walks quoted by four origins, one of them weekly; the last ``days`` of them are left out."""
    rng = np.random.default_rng(SEED)
    labels = pd.bdate_range(FIRST, DAY).strftime("%Y-%m-%d").to_numpy(dtype=object)
    weekly = np.array([i % 5 != 2 for i in range(len(labels))])
    out = {}
    for market in methodology.markets:
        walk = 1e4 * np.exp(np.cumsum(rng.normal(0, 0.01, len(labels))))
        table = walk[:, None] * rng.uniform(0.9, 1.1, ORIGINS) * np.exp(rng.normal(0, 0.01, (len(labels), ORIGINS)))
        table[rng.random(table.shape) < MISSING] = np.nan
        table[weekly, -1] = np.nan
        status = np.where(np.isnan(table), "", "normal").astype(object)
        status[rng.random(table.shape) < DOUBTFUL] = "suspended"
        facts = {"mineral": market.mineral, "stage": "metal", "zone": "XCN", "unit": "USD/t"}
        series = tuple(
            Series.model_validate(
                {**facts, "id": f"{market.mineral}-o{j}", "origin": f"o{j}", "tier": "assessment",
                 "frequency": "weekly" if j == ORIGINS - 1 else "daily"}
            )
            for j in range(ORIGINS)
        )  # fmt: skip
        rows = slice(0, len(labels) - days)
        index, ids = pd.Index(labels[rows], dtype=object), [s.id for s in series]
        numbers, text = (pd.DataFrame(a[rows], index=index, columns=ids) for a in (table, status))
        blank = pd.DataFrame(np.full(table.shape, np.nan)[rows], index=index, columns=ids)
        out[market.key, "daily"] = Quotes(market, "daily", series, numbers, numbers, text, blank, blank, blank)
    return out


def made_production(methodology: Methodology) -> figures.Production:
    rng = np.random.default_rng(SEED)
    names = [m.mineral for m in methodology.markets]
    rows = [
        {"series": name, "period": str(year), "vintage": int(pd.Timestamp(f"{year + 1}-01-31", tz="UTC").value // 1000),
         "value": value, "status": "final"}
        for name, value in zip(names, rng.lognormal(10, 1.5, len(names)), strict=True) for year in range(2014, 2025)
    ]  # fmt: skip
    return figures.Production(pd.DataFrame(rows), dict.fromkeys(names, "t"))
