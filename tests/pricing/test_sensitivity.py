"""What a source would have to quote: found answers against the whole computation, done again with that quotation."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import pytest
from made_method import METHOD

from pricing import figures
from pricing.config import Methodology, Operation, Source
from pricing.index import Index, Link, fixed_basket
from pricing.reference import determine
from pricing.sensitivity import BOUNDED, EXCLUDED, NO_PRICE, TOO_LIGHT, Line, Sensitivity, Voices, of_index

# market: (unit, tax, tier, frequency) of each origin; "" is the market's own frequency
WORLD = {
    "copper": [("USD/t", "none", "official", "")],
    "tin": [("USD/lb", "none", "assessment", ""), ("EUR/t", "none", "transaction", "")],
    "zinc": [("USD/t", "none", "official", ""), ("CNY/kg", "cn-vat", "model", ""), ("USD/kg", "none", "model", "")],
    "nickel": [("USD/t", "none", "official", ""), *[("USD/t", "none", "model", f) for f in ("", "", "w")]],
}  # fmt: skip
SHARES = {"copper": 0.3, "tin": 0.25, "zinc": 0.25, "nickel": 0.2}
BASE, LEAST = "2024-02", 0.5


@dataclass
class World:
    """A made market, how it is computed, and the period looked at."""

    frequency: str
    operation: Operation
    method: Methodology
    observed: pd.DataFrame
    bases: list
    period: str
    links: list[Link]

    @cached_property
    def usual(self) -> dict[str, figures.MarketPrices]:
        return self.prices(self.observed)

    def prices(self, observed: pd.DataFrame) -> dict[str, figures.MarketPrices]:
        eligible = figures.eligible(self.operation, "public")
        quoted, _ = figures.all_quotes(self.method, eligible, observed)
        return figures.prices(quoted, self.method, self.bases, "2024-12-31")

    def index(self, prices: dict[str, figures.MarketPrices]) -> Index:
        frames = {key: made.frame(self.frequency)["unrounded"].dropna() for key, made in prices.items()}
        return fixed_basket(pd.DataFrame(frames).sort_index(), self.links, BASE, LEAST)

    def level(self, prices: dict[str, figures.MarketPrices]) -> float:
        return float(self.index(prices).frame["unrounded"].get(self.period, math.nan))

    def quoting(self, series: str, value: float) -> dict[str, figures.MarketPrices]:
        """All prices, determined with another quotation of one series for the period."""
        own = self.observed["series"].str.startswith((series[:-1], "usd", "cny"))  # the other markets do not change
        observed = self.observed[own]
        at = (observed["series"] == series) & (observed["period"] == self.period)
        row = pd.DataFrame([(series, self.period, value, "normal")], columns=observed.columns)
        return self.usual | self.prices(pd.concat([observed[~at], row], ignore_index=True))

    def found(self) -> tuple[Index, Sensitivity]:
        index = self.index(self.usual)
        return index, of_index({self.frequency: index}, Voices(self.usual, self.method.determination), BASE, LEAST)


def world(seed: int, frequency: str, *, gaps: dict[str, list[int]] | None = None) -> World:
    """Quotations near each other, moving; ``gaps`` leaves places from the end out of all quotations of a market."""
    rng = np.random.default_rng(seed)
    if frequency == "daily":
        periods = [str(d.date()) for d in pd.bdate_range("2024-02-01", "2024-05-16")]
    else:
        periods = [str(p) for p in pd.period_range("2023-09", "2024-11", freq="M")]
    fx = {"USD": 1.08, "CNY": 7.8}
    days = pd.bdate_range("2023-08-25", "2024-12-05")
    rates = {c: level * np.exp(np.cumsum(rng.normal(0, 0.003, len(days)))) for c, level in fx.items()}
    rows = [
        (f"{c.lower()}", str(d.date()), float(v), "normal") for c in fx for d, v in zip(days, rates[c], strict=True)
    ]
    listed, markets = [], []
    for mineral, origins in WORLD.items():
        truth = rng.uniform(2e3, 3e4) * np.exp(np.cumsum(rng.normal(0, 0.01, len(periods))))
        markets.append(
            {"mineral": mineral, "stage": "metal", "zone": "XCN", "per": "product", "anchor": f"{mineral}-0"}
        )
        for n, (unit, tax, tier, weekly) in enumerate(origins):
            name = f"{mineral}-{n}"
            often = "weekly" if weekly and frequency == "daily" else frequency
            listed.append(
                {"id": name, "origin": name, "mineral": mineral, "stage": "metal", "zone": "XCN", "unit": unit}
                | {"tax": tax, "tier": tier, "frequency": often}
            )
            lasting = rng.uniform(0.97, 1.03) * {"/t": 1, "/kg": 1e-3, "/lb": 1 / 2204.6}[unit[3:]]
            lasting *= {"USD": 1, "EUR": 1 / 1.08, "CNY": 7.8 / 1.08}[unit[:3]] * (1.13 if tax == "cn-vat" else 1)
            said = truth * lasting * np.exp(rng.normal(0, 0.015, len(periods)))
            out = {len(periods) - 1 - back for back in (gaps or {}).get(mineral, [])}
            rows += [
                (name, p, float(v), "normal")
                for i, (p, v) in enumerate(zip(periods, said, strict=True))
                if i not in out and (often != "weekly" or pd.Timestamp(p).weekday() == 1)
            ]
    facts = {"title": "s", "publisher": "s", "terms": "t", "terms_read": "2026-11-23", "licence": "l"}
    facts |= {"attribution": "s", "rights": "open"}
    listed += [
        {"id": c.lower(), "kind": "fx", "currency_of": c, "frequency": "daily", "origin": "bank", "unit": f"{c}/EUR"}
        for c in fx
    ]
    operation = Operation(sources={"made": Source.model_validate({**facts, "series": listed})})
    method = Methodology.model_validate({**METHOD, "markets": markets, "baskets": {}})
    observed = pd.DataFrame(rows, columns=["series", "period", "value", "status"])
    quoted, left_out = figures.all_quotes(method, figures.eligible(operation, "public"), observed)
    assert not left_out
    bases = figures.bases_due(quoted, method, [], "2024-12-31")
    first, second = (
        {f"{m}/metal/XCN": s for m, s in shares.items()} for shares in (SHARES, dict(sorted(SHARES.items())))
    )
    links = [Link("2024-03", first, first)] + ([Link("2024-09", second, second)] if frequency == "monthly" else [])
    return World(frequency, operation, method, observed, bases, periods[-1], links)


def wide(made: World, line: Line, factors: np.ndarray) -> list[float]:
    """Index levels that a market's prices at many quotations give: lowest, highest, and that without a price.

    The determinations are rows of one table, a fortnight apart so that none stands for another.
    """
    prices, key, frequency = made.usual, line.market, made.frequency
    quotes = prices[key].made(frequency).quotes
    at = list(quotes.usd_per_t.index).index(made.period)
    rows = range(max(0, at - 5), at + 1) if frequency == "daily" else [at]
    periods, parts = [], {name: [] for name in ("value", "usd_per_t", "status", "fx", "fx_period", "vat")}
    starts = pd.date_range("2030-01-01", periods=len(factors), freq="14D" if frequency == "daily" else "MS")
    first = pd.Timestamp(quotes.usd_per_t.index[rows[0]])
    of = line.voice.series.id
    for factor, start in zip(factors, starts, strict=True):
        shift = start - first
        named = [str((pd.Timestamp(quotes.usd_per_t.index[r]) + shift).date()) for r in rows]
        periods += named if frequency == "daily" else [named[0][:7]]
        for name in parts:
            block = getattr(quotes, name).iloc[rows].copy()
            if name == "usd_per_t":
                last = block[of].dropna().iloc[-1]
                block.iloc[-1, block.columns.get_loc(of)] = last * factor
            parts[name].append(block)
    tables = {name: pd.concat(blocks).set_axis(periods) for name, blocks in parts.items()}
    stacked = replace(quotes, **tables)
    bases = [b for b in made.bases if b["market"] == key and b["frequency"] == frequency]
    got = determine(stacked, bases, made.method.determination).frame["unrounded"].to_numpy()[len(rows) - 1 :: len(rows)]
    assert got.shape == factors.shape
    tried = [np.nanmin(got), np.nanmax(got)] + ([math.nan] if np.isnan(got).any() else [])
    out = []
    for price in tried:
        frame = prices[key].frame(frequency).copy()
        frame.loc[made.period, "unrounded"] = price
        months = frame if frequency == "monthly" else prices[key].months
        daily = replace(prices[key].daily, frame=frame) if frequency == "daily" else None
        out.append(made.level(prices | {key: replace(prices[key], months=months, daily=daily)}))
    return out


CASES = [
    (3, "daily", {"copper": [0, 1], "zinc": [1]}),  # one is imputed, another has just come back
    (4, "monthly", {}),
    (5, "monthly", {"tin": [0]}),
]


@pytest.mark.parametrize(("seed", "frequency", "gaps"), CASES)
def test_at_the_quotation_found_the_index_moves_by_one_per_cent_and_slightly_below_it_does_not(seed, frequency, gaps):
    made = world(seed, frequency, gaps=gaps)
    index, found = made.found()
    level = index.frame["unrounded"][made.period]
    assert (found.frequency, found.period, found.withheld) == (frequency, made.period, "")
    assert set(found.left_out) == {f"{m}/metal/XCN" for m, back in gaps.items() if 0 in back}
    done = impossible = 0
    for line in found.lines:
        _, quoted = line.voice.quotation
        price = line.voice.price
        for way, sign in (("up", 1), ("down", -1)):
            answer, of_price = line.index[way], line.price[way]
            if not answer.cannot:
                assert (answer.factor - 1) * sign > 0
                at, below = (
                    made.level(made.quoting(line.voice.series.id, quoted * f)) / level - 1
                    for f in (answer.factor, 1 + (answer.factor - 1) * (1 - 1e-6))
                )
                assert abs(at) >= 0.01 - 1e-6 and abs(below) < 0.01
                assert at == pytest.approx(answer.moves, abs=1e-9)
                inside = np.linspace(1, 1 + (answer.factor - 1) * (1 - 1e-6), 25)
                done += 1
            else:
                inside = np.geomspace(1, 40.0**sign, 150)
                impossible += 1
            levels = [v for v in wide(made, line, inside) if not math.isnan(v)]
            reached = max(abs(v / level - 1) for v in levels)
            assert reached < 0.01 and (not answer.cannot or reached <= abs(answer.moves) * (1 + 1e-6) + 1e-9)
            if not of_price.cannot:
                again = made.quoting(line.voice.series.id, quoted * of_price.factor)[line.market]
                moved = again.frame(frequency)["unrounded"].get(made.period, math.nan) / price - 1
                assert moved == pytest.approx(of_price.moves, abs=1e-9) and abs(moved) >= 0.01 - 1e-6
    assert done >= 4 and impossible >= 4
    needed = [line.least for line in found.lines]
    assert needed == sorted(needed)


# ------------------------------------------------------------------------------------------ closed forms


def lines(made: World) -> dict[str, Line]:
    return {line.voice.series.id: line for line in made.found()[1].lines}


def test_an_origin_alone_moves_the_index_by_its_weight():
    made = world(6, "daily")
    index, _ = made.found()
    line = lines(made)["copper-0"]
    price = made.usual[line.market].daily.frame["unrounded"][made.period]
    weight = index.quantities[line.market][made.period] * price / index.frame["unrounded"][made.period]
    assert line.index["up"].factor == pytest.approx(1 + 0.01 / weight, rel=1e-8)
    assert line.index["down"].factor == pytest.approx(1 - 0.01 / weight, rel=1e-8)
    assert [line.price[way].factor for way in ("up", "down")] == pytest.approx([1.01, 0.99], rel=1e-8)
    assert line.voice.quotation == (made.period, price)


def test_of_two_origins_each_has_half_a_voice_and_none_beyond_the_widest():
    made = world(6, "daily")
    line = lines(made)["tin-0"]
    adjusted = line.voice.made.adjusted[-1]
    share = adjusted[0] / adjusted.sum()
    assert line.price["up"].factor == pytest.approx(1 + 0.01 / share, rel=1e-8)
    made.links = [Link("2024-03", light := {"tin/metal/XCN": 0.01, "copper/metal/XCN": 0.99}, light)]
    answer = lines(made)["tin-0"].index["up"]
    assert answer.cannot == NO_PRICE and math.isnan(answer.factor)
    highest = (1.3 * adjusted[1] + adjusted[1]) / 2 / adjusted.mean() - 1
    assert answer.moves == pytest.approx(0.01 * highest, rel=0.1)  # the weight has drifted since the link


def test_a_market_that_weighs_less_than_the_share_cannot_lower_the_index_but_can_raise_it():
    made = world(6, "daily")
    made.links = [Link("2024-03", light := {"copper/metal/XCN": 0.005, "tin/metal/XCN": 0.995}, light)]
    copper = lines(made)["copper-0"].index
    assert copper["down"].cannot == TOO_LIGHT and copper["down"].moves == pytest.approx(-0.005, rel=0.2)
    assert copper["up"].factor == pytest.approx(3, rel=0.2)


def test_among_many_the_others_bound_the_price_and_far_away_one_is_excluded():
    made = world(6, "daily")
    reasons = {a.cannot for name, line in lines(made).items() if name[0] in "zn" for a in line.index.values()}
    assert {BOUNDED, EXCLUDED} <= reasons


def test_where_a_price_is_lost_the_index_falls_back_on_the_others():
    """Tin rose by a third in one day: whoever takes its price away takes the rise away."""
    made = world(6, "daily")
    risen = made.observed["series"].str.startswith("tin") & (made.observed["period"] == made.period)
    made.observed.loc[risen, "value"] *= 1.35
    made.links = [Link("2024-03", shares := {"tin/metal/XCN": 0.035, "copper/metal/XCN": 0.965}, shares)]
    index, found = made.found()
    answer = next(line for line in found.lines if line.voice.series.id == "tin-0").index["up"]
    level = index.frame["unrounded"][made.period]
    assert answer.moves < -0.0101
    again = made.level(made.quoting("tin-0", answer.factor * lines(made)["tin-0"].voice.quotation[1]))
    assert again / level - 1 == pytest.approx(answer.moves, abs=1e-9)


def test_what_cannot_be_said_is_said_so():
    made = world(6, "daily")
    index, _ = made.found()
    voices = Voices(made.usual, made.method.determination)
    assert "base period is not over" in of_index({"daily": index}, voices, "2024-05", LEAST).withheld
    late = replace(index, links=(replace(index.links[0], month="2024-05"),))
    assert "back-cast" in of_index({"daily": late}, voices, BASE, LEAST).withheld
    none = replace(index, frame=index.frame.assign(unrounded=math.nan))
    assert of_index({"daily": none}, voices, BASE, LEAST).withheld == "the index has no value"
    tin = made.usual["tin/metal/XCN"]
    shut = replace(tin.daily, quotes=replace(tin.daily.quotes, closed=frozenset({"tin-1"})))
    shut_off = Voices(made.usual | {"tin/metal/XCN": replace(tin, daily=shut)}, made.method.determination)
    found = of_index({"daily": index}, shut_off, BASE, LEAST)
    assert found.left_out == {"tin/metal/XCN": "it rests on quotations that may not be shown"}
    assert not any(line.market == "tin/metal/XCN" for line in found.lines)


def test_a_month_of_daily_prices_is_left_out_of_a_monthly_index():
    made, daily = world(4, "monthly"), world(6, "daily")
    index, _ = made.found()
    moved = replace(
        daily.usual["tin/metal/XCN"].daily,
        frame=daily.usual["tin/metal/XCN"].daily.frame.rename(lambda day: f"2024-11{day[7:]}").tail(12),
    )
    both = made.usual | {"tin/metal/XCN": replace(made.usual["tin/metal/XCN"], daily=moved)}
    found = of_index({"monthly": index}, Voices(both, made.method.determination), BASE, LEAST)
    told = "it has 12 determinations inside 2024-11: one quotation does not make its month"
    assert found.left_out == {"tin/metal/XCN": told}
