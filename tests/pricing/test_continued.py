"""Figures that rest on those of an earlier release are, to the last bit, those computed from nothing."""

import datetime as dt
import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pricing import figures, reference
from pricing.config import Market, Methodology, Series
from pricing.judgement import Judgement
from pricing.reference import Quotes, window_sums

FIRST = dt.date(2023, 6, 1)
KINDS = ["normal"] * 30 + ["voided", "suspended", "limit"]


def method(**determination) -> Methodology:
    markets = [{"mineral": m, "stage": "metal", "zone": "XCN"} for m in ("copper", "tin", "zinc")]
    return Methodology.model_validate(
        {
            "id": "2023-11", "title": "t", "status": "initial", "proposed": "2023-01-02", "effective": "2023-02-23",
            "notice_days": 28,
            "determination": {
                "max_spread": 0.15, "widest": 0.30, "max_weight": 0.49, "carry_days": 3, "interval": 80,
                "interval_periods": 20,
                "stale_days": {"daily": 0, "weekly": 6, "ten-day": 0, "monthly": 0, "annual": 0},
                "relaxed_days": {"daily": 0, "weekly": 13, "ten-day": 0, "monthly": 0, "annual": 0},
                "tier_weights": {"transaction": 1, "committed": 0.9, "official": 0.8, "assessment": 0.7, "model": 0.3},
                "grades": {"A": 3, "B": 2, "C": 1}, "month_share": 0.2, **determination,
            },
            "fallback": {"window": {"daily": 60, "ten-day": 18, "monthly": 12},
                         "limit": {"daily": 10, "ten-day": 3, "monthly": 2}},
            "twins": {"risk_months": 36, "min_changes": 24, "geks_window": 25},
            "basis": {"review_month": 1, "window_months": 3,
                      "min_common": {"daily": 5, "weekly": 2, "ten-day": 5, "monthly": 3}},
            "markets": [{**m, "per": "product", "anchor": "o0"} for m in markets],
            "baskets": {"metals": {
                "title": "m", "base_period": "2024-03", "review": 1, "cap": 0.5, "min_weight": 0.4,
                "constituents": [{**m, "production": m["mineral"]} for m in markets],
            }},
        }
    )  # fmt: skip


METHOD = method()
PRODUCTION = pd.DataFrame(
    [
        {"series": name, "period": str(year), "vintage": int(pd.Timestamp(f"{year + 1}-01-31", tz="UTC").value // 1000),
         "value": value * (1 + year % 3), "status": "final"}
        for name, value in (("copper", 300.0), ("tin", 20.0), ("zinc", 90.0)) for year in (2022, 2023, 2024)
    ]
)  # fmt: skip


def series_of(market: Market, frequencies: list[str]) -> tuple[Series, ...]:
    """Series of which each but the last, a copy of the first, has an origin of its own."""
    facts = {"mineral": market.mineral, "stage": "metal", "zone": "XCN", "unit": "USD/t", "tier": "assessment"}
    origins = [*(f"o{i}" for i in range(len(frequencies) - 1)), "o0"]
    return tuple(
        Series.model_validate({**facts, "id": f"{market.mineral}-{i}", "origin": o, "frequency": f, "precedence": i})
        for i, (o, f) in enumerate(zip(origins, frequencies, strict=True))
    )


@dataclass
class Table:
    """What was quoted of one market at one frequency."""

    market: Market
    frequency: str
    series: tuple[Series, ...]
    numbers: pd.DataFrame
    status: pd.DataFrame

    def drop(self, periods) -> None:
        gone = self.numbers.index.intersection(periods)
        self.numbers, self.status = self.numbers.drop(gone), self.status.drop(gone)


@dataclass
class World:
    """Quotations that grow and are revised."""

    rng: np.random.Generator
    last: dt.date
    closed: frozenset[str] = frozenset()
    tables: list[Table] = field(default_factory=list)

    def quotes(self) -> dict[tuple[str, str], Quotes]:
        out = {}
        for t in self.tables:
            blank = t.numbers * np.nan
            closed = self.closed & set(t.numbers.columns)
            tables = (t.numbers, t.numbers, t.status, blank, blank, blank)
            out[t.market.key, t.frequency] = Quotes(t.market, t.frequency, t.series, *tables, closed)
        return out

    def begin(self, market: Market, frequency: str, frequencies: list[str], since: dt.date) -> None:
        series = series_of(market, frequencies)
        empty = pd.DataFrame(columns=[s.id for s in series], index=pd.Index([], dtype=object))
        table = Table(market, frequency, series, empty.astype("float64"), empty.astype(object))
        self.tables.append(table)
        days = [since + dt.timedelta(i) for i in range((self.last - since).days)]
        chosen = {
            "daily": [str(d) for d in days if d.isoweekday() < 6 and d.toordinal() % 5 < 2],
            "ten-day": [str(d) for d in days if d.day in (10, 20, 28)],
            "monthly": sorted({str(d)[:7] for d in days}),
        }[frequency]
        self.tell(table, chosen)

    def tell(self, table: Table, periods: list[str]) -> None:
        """Draw what is quoted of some periods, in place of what was."""
        levels = 1e4 * (1 + np.arange(len(table.series)) / 20)
        drawn = levels * np.exp(self.rng.normal(0, 0.05, (len(periods), len(levels))))
        drawn[self.rng.random(drawn.shape) < 0.02] *= 2204.6226
        said = self.rng.choice(np.array(KINDS, dtype=object), drawn.shape)
        absent = self.rng.random(drawn.shape) < 0.3
        for column, s in enumerate(table.series):
            if s.frequency == "weekly":
                absent[:, column] |= np.array([dt.date.fromisoformat(p).isoweekday() != 5 for p in periods], dtype=bool)
        drawn[absent], said[absent] = np.nan, ""
        table.drop(periods)
        index = pd.Index(periods, dtype=object)
        table.numbers = pd.concat([table.numbers, pd.DataFrame(drawn, index, table.numbers.columns)]).sort_index()
        table.status = pd.concat([table.status, pd.DataFrame(said, index, table.status.columns)]).sort_index()

    def edit(self, what: str) -> None:
        table = self.tables[self.rng.integers(len(self.tables))]
        row = table.numbers.index[self.rng.integers(len(table.numbers))]
        if what == "days":
            before = self.last
            self.last += dt.timedelta(int(self.rng.integers(1, 40)))
            days = [before + dt.timedelta(i) for i in range((self.last - before).days)]
            for one in self.tables:
                if one.frequency == "daily" and self.rng.random() < 0.8:
                    self.tell(one, [str(d) for d in days if d.isoweekday() < 6])
                if one.frequency == "monthly" and str(self.last)[:7] not in one.numbers.index:
                    self.tell(one, [str(self.last)[:7]])
        elif what == "revised":
            self.tell(table, [row])
        elif what == "withdrawn":
            table.drop([row])
        elif what == "ends":
            table.drop(table.numbers.index[-3:])


EDITS = ["days"] * 5 + ["nothing", "revised", "revised", "withdrawn", "ends", "bases", "rules", "closed", "production"]
EDITS += ["override", "override", "linked"]


def overrides(rng: np.random.Generator, last: dt.date) -> list[Judgement]:
    """A person's decisions about one market, some of them in force for long."""
    facts = {"market": "copper/metal/XCN", "frequency": "daily", "reason": "stale-quotation", "since": "2025-01-01"}
    first, second = sorted(str(last - dt.timedelta(int(n))) for n in rng.integers(0, 300, 2))
    kinds = [{"kind": "exclude", "origin": "o1"}, {"kind": "include", "origin": "o0"}, {"kind": "suspend"}]
    drawn = [kinds[i] for i in rng.integers(0, 3, 2)]
    return [Judgement(decision=n, first=first, last=second, **facts, **kind) for n, kind in enumerate(drawn, 1)]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(EDITS), min_size=1, max_size=5))
def test_release_after_release_gives_what_the_whole_history_gives(monkeypatch, seed, edits):
    world = World(np.random.default_rng(seed), dt.date(2025, 4, 20))
    copper, tin, zinc = METHOD.markets
    world.begin(copper, "daily", ["daily", "daily", "weekly", "daily"], FIRST)
    world.begin(tin, "daily", ["weekly", "weekly"] if seed % 3 else ["daily"] * 10, FIRST + dt.timedelta(20))
    world.begin(tin, "monthly", ["monthly", "monthly", "monthly"], FIRST)
    world.begin(zinc, "ten-day" if seed % 2 else "daily", ["daily", "daily"], FIRST)
    rules, bases, told = METHOD, [], PRODUCTION
    priced = made = None
    judged: list[Judgement] = []
    monkeypatch.setattr(reference, "MOST_PARTS", 2 + seed % 3)
    for edit in ["nothing", *edits]:
        world.edit(edit)
        if edit == "bases":
            day = max(b["effective"] for b in bases) if seed % 2 else ""
            bases = [{**b, "ratio": b["ratio"] * (1 + 0.01 * (b["effective"] == day))} for b in bases]
        if edit == "rules":
            rules = method(max_spread=0.05, interval_periods=23)
        if edit == "override":
            judged = overrides(world.rng, world.last)
        if edit == "linked":
            markets = [m.model_copy(update={"linked": "tin/metal/XCN" * (m is zinc)}) for m in METHOD.markets]
            rules = rules.model_copy(update={"markets": tuple(markets)})
        if edit == "closed":
            world.closed = frozenset({"copper-1", "tin-0"})
        if edit == "production":
            told = PRODUCTION.assign(value=PRODUCTION["value"] * ([1, 1, 2] * 3))
        quotes, day = world.quotes(), str(world.last)
        world.rng.shuffle(bases)
        bases = [*bases, *figures.bases_due(quotes, rules, bases, day)]
        production = figures.Production(told, dict.fromkeys(("copper", "tin", "zinc"), "t"))
        priced = figures.prices(quotes, rules, bases, day, priced, judged)
        made = figures.baskets(rules, priced, production, day, made)
        alone = figures.prices(quotes, rules, bases, day, overrides=judged)
        whole = figures.baskets(rules, alone, production, day)
        for key in alone:
            same_prices(priced[key], alone[key])
        same_basket(made["metals"], whole["metals"])


def same_prices(got: figures.MarketPrices, expected: figures.MarketPrices) -> None:
    pd.testing.assert_frame_equal(got.months, expected.months, check_exact=True)
    for frequency in figures.FREQUENCIES:
        one, other = got.made(frequency), expected.made(frequency)
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            pd.testing.assert_frame_equal(one.frame, other.frame, check_exact=True)
            for name in ("chosen", "age", "adjusted", "ratio", "weight", "excluded"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def same_basket(got: figures.BasketFigures, expected: figures.BasketFigures) -> None:
    assert got.withheld == expected.withheld and got.indices.keys() == expected.indices.keys()
    assert got.weights == expected.weights and got.coverage == expected.coverage
    for frequency, index in expected.indices.items():
        for name in ("frame", "contributions", "weights", "imputed", "quantities"):
            one, other = getattr(got.indices[frequency], name), getattr(index, name)
            pd.testing.assert_frame_equal(one, other, check_exact=True)
    if expected.twins is not None and got.twins is not None:
        for name in ("unweighted", "superlative"):
            pd.testing.assert_frame_equal(getattr(got.twins, name).frame, getattr(expected.twins, name).frame)


def test_a_day_more_takes_over_all_days_before_it():
    world = World(np.random.default_rng(3), dt.date(2025, 4, 20))
    for market in METHOD.markets:
        world.begin(market, "daily", ["daily", "daily", "weekly", "daily"], FIRST)
    production = figures.Production(PRODUCTION, dict.fromkeys(("copper", "tin", "zinc"), "t"))
    quotes = world.quotes()
    bases = figures.bases_due(quotes, METHOD, [], "2025-04-20")
    priced = figures.prices(quotes, METHOD, bases, "2025-04-20")
    made = figures.baskets(METHOD, priced, production, "2025-04-20")
    for table in world.tables:
        world.tell(table, ["2025-04-21"])
    after = figures.prices(world.quotes(), METHOD, bases, "2025-04-21", priced)
    assert [p.daily.kept for p in after.values()] == [len(p.daily.quotes.at) for p in priced.values()]
    assert all(after[key].months is priced[key].months for key in priced)
    again = figures.baskets(METHOD, after, production, "2025-04-21", made)
    assert again["metals"].monthly is made["metals"].monthly
    assert len(again["metals"].indices["daily"].frame) == len(made["metals"].indices["daily"].frame) + 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.integers(1, 40), st.integers(0, 59))
def test_a_window_sum_rests_on_its_window_alone(values, window, start):
    table = np.array([values])
    got = window_sums(table, window)[0]
    for t, total in enumerate(got):
        assert total == pytest.approx(math.fsum(values[max(0, t - window + 1) : t + 1]), rel=1e-14)
    first = min(start, len(values) - 1)
    later = window_sums(table[:, max(0, first - window + 1) :], window)[0]
    assert later[first - max(0, first - window + 1) :].tolist() == got[first:].tolist()
