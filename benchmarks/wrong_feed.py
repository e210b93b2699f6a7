"""What one wrong feed out of three does to a reference price and to an index: made markets, whose truth is known.

One contributor of each market is replaced for a month by a wrong version of itself. Everything then goes its usual way:
what the store would hold back, quotations, bases, prices, indices and the detector of the contributors.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.measure import ROOT
from pricing import figures, quality, watchlist
from pricing.config import Methodology, Series
from pricing.index import Index
from pricing.watching import day_of

Floats = npt.NDArray[np.float64]

FIRST, LAST = "2023-11-01", "2026-04-30"
ORIGINS = 3
BESIDE = 3  # sound markets in each basket, beside the one with the wrong feed
SIGMA = 0.01  # of the true price's daily log return
NOISE = 0.003  # of an origin's daily error, log
WALK = 0.02  # daily log return of a feed that walks away
RULES = ("id", "title", "status", "proposed", "effective", "notice_days", "determination", "fallback", "basis",
         "twins", "shocks")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Who goes wrong, and when.

    Attributes
    ----------
    wrong : int
        Position of the origin; the first one is the anchor.
    first, last : str
        ISO days.
    tiers : tuple of str
        Of the three origins; they weigh it.
    absent : int or None
        A sound origin that is silent on one day of ten.
    """

    name: str
    wrong: int
    first: str
    last: str
    tiers: tuple[str, ...] = ("assessment",) * ORIGINS
    absent: int | None = None


CASES = (
    Case("one of three", 1, "2025-06-02", "2025-06-30"),
    Case("the anchor", 0, "2025-06-02", "2025-06-30"),
    Case("one of three, over the review of bases", 1, "2025-12-15", "2026-01-14"),
    Case("the anchor, over the review of bases", 0, "2025-12-15", "2026-01-14"),
    Case("one of three, in the month of the link", 1, "2025-03-03", "2025-03-31"),
    Case("the heaviest of three tiers", 1, "2025-06-02", "2025-06-30", ("assessment", "transaction", "committed")),
    Case("one that has half of the weight", 1, "2025-06-02", "2025-06-30", ("model", "transaction", "model")),
    Case("one of three, another often silent", 1, "2025-06-02", "2025-06-30", absent=2),
)

Version = Callable[[Floats, Floats, Floats, np.random.Generator], Floats]
"""What is sent, from what would be sent, what was sent before, and what the feed sends of another market."""


def _walk(own: Floats, before: Floats, other: Floats, rng: np.random.Generator) -> Floats:
    return np.asarray(before[-1] * np.exp(np.cumsum(rng.normal(0, WALK, len(own)))))


VERSIONS: Mapping[str, Version] = {
    "sound": lambda own, before, other, rng: own,
    "×1000": lambda own, before, other, rng: own * 1000,
    "stale": lambda own, before, other, rng: np.full(len(own), before[-1]),
    "swapped": lambda own, before, other, rng: other,
    "sign-flipped": lambda own, before, other, rng: -own,
    "random walk": _walk,
}


@dataclass(frozen=True)
class Made:
    """What is published with one version of the wrong feeds.

    Attributes
    ----------
    held : tuple of Finding
        Of figures that never came into the store.
    """

    prices: dict[str, figures.MarketPrices]
    baskets: dict[str, figures.BasketFigures]
    held: tuple[quality.Finding, ...]


@dataclass(frozen=True)
class Effect:
    """What one version did in one market.

    Attributes
    ----------
    days : int
        Of the wrong month.
    outside : int
        Of these the price lies outside the range of the two sound origins, after their bases.
    excursion : float
        Largest distance from that range. [1]
    silent : int
        Days of the month without a price.
    moved : float
        Largest change of the price that the wrong feed made in the month. [1]
    after : float
        The same of all later days: what is left in the bases. [1]
    index_days : int
        Days from the first wrong one to the end.
    index_outside : int
        Of these the index without the fault lies outside the interval that the published intervals of its members
        give the published one.
    index_moved : float
        Largest change of the index. [1]
    index_share : float
        Largest change as share of the half-width of the interval that the index would have without the fault.
    """

    days: int
    outside: int
    excursion: float
    silent: int
    moved: float
    after: float
    index_days: int
    index_outside: int
    index_moved: float
    index_share: float


@dataclass(frozen=True)
class Flag:
    """First alarm about the wrong contributor: days since the first wrong one, and the check."""

    delay: int
    check: str


class World:
    """Made markets with the wrong feeds of one case: ``count`` of them, and those that are beside them in the index."""

    def __init__(self, case: Case, count: int, seed: int = 6) -> None:
        self.case, self.count, self.seed = case, count, seed
        rng = np.random.default_rng([seed, 1])
        markets = count + BESIDE
        self.days = pd.bdate_range(FIRST, LAST).strftime("%Y-%m-%d").to_numpy(dtype=object)
        shape = (len(self.days), markets)
        level = 10 ** rng.uniform(3, 5, markets)
        truth = level * np.exp(np.cumsum(SIGMA * rng.standard_t(5, shape) * np.sqrt(3 / 5), axis=0))
        basis = np.exp(rng.uniform(-0.05, 0.05, (markets, ORIGINS)))
        noise = rng.normal(0, NOISE, (*shape, ORIGINS))
        self.sound = truth[:, :, None] * basis * np.exp(noise)  # day × market × origin
        self.silent = rng.random((len(self.days), markets)) < 0.1
        self.wrong_days = np.flatnonzero((self.days >= case.first) & (self.days <= case.last))
        self.method = _methodology(markets, count)
        assert self.method.shocks is not None
        self.alarms = self.method.shocks.false_alarms
        self.series = {
            _id(m, o): Series.model_validate(
                {"id": _id(m, o), "mineral": f"m{m:02}", "stage": "metal", "zone": "XCN", "unit": "USD/t",
                 "origin": f"o{o}", "tier": case.tiers[o], "frequency": "daily"}
            )
            for m in range(markets) for o in range(ORIGINS)
        }  # fmt: skip
        self.production = _production(markets)

    def sent(self, version: Version) -> Floats:
        """Day × market × origin with the wrong version in the wrong month."""
        out, rng = self.sound.copy(), np.random.default_rng([self.seed, 2])
        rows, o = self.wrong_days, self.case.wrong
        for m in range(self.count):
            other = self.sound[rows, (m + 1) % self.count, o]
            out[rows, m, o] = version(self.sound[rows, m, o], self.sound[: rows[0], m, o], other, rng)
        if self.case.absent is not None:
            out[self.silent, self.case.absent] = np.nan
        return out

    def published(self, version: Version, *, store: bool = True) -> Made:
        """Prices and indices; ``store`` holds back what the store does."""
        table = self.sent(version)
        days, markets, origins = table.shape
        observed = pd.DataFrame(
            {
                "series": np.repeat([_id(m, o) for m in range(markets) for o in range(origins)], days),
                "period": np.tile(self.days, markets * origins),
                "value": table.transpose(1, 2, 0).reshape(-1),
                "status": "normal",
            }
        )
        observed, findings = observed.dropna(), []
        if store:
            observed, findings = quality.hold_back(observed, self.series, pd.Timestamp(LAST).date())
        audience = figures.Eligible(self.series, frozenset())
        quoted, _ = figures.all_quotes(self.method, audience, observed)
        bases = figures.bases_due(quoted, self.method, [], LAST)
        prices = figures.prices(quoted, self.method, bases, LAST)
        return Made(prices, figures.baskets(self.method, prices, self.production, LAST), tuple(findings))

    @cached_property
    def usual(self) -> Made:
        """What is published where no feed is wrong."""
        return self.published(VERSIONS["sound"])

    def effects(self, made: Made) -> list[Effect]:
        """Compare with what is published where no feed is wrong, market by market."""
        return [self._effect(made, m) for m in range(self.count)]

    def _effect(self, made: Made, m: int) -> Effect:
        start, key = self.case.first, f"m{m:02}/metal/XCN"
        now, usual = made.prices[key].daily, self.usual.prices[key].daily
        assert now is not None
        assert usual is not None
        rows = self.wrong_days
        price = now.frame["unrounded"].to_numpy(dtype="float64")
        changed = np.abs(price / usual.frame["unrounded"].to_numpy(dtype="float64") - 1)
        two = np.delete(self.sound[rows, m] / now.ratio[rows], self.case.wrong, axis=1)
        away = np.maximum(two.min(axis=1) / price[rows] - 1, price[rows] / two.max(axis=1) - 1)
        away = np.where(np.isnan(away), 0.0, np.maximum(away, 0.0))
        index, plain = (one.baskets[f"b{m:02}"].indices["daily"] for one in (made, self.usual))
        level, sound = (one.frame["unrounded"].to_numpy(dtype="float64") for one in (index, plain))
        later = np.asarray(plain.frame.index >= start)
        moved = (level / sound - 1)[later]
        own, without = (self._reach(one, i)[later] for one, i in ((made, index), (self.usual, plain)))
        share = np.abs(moved) / np.where(moved < 0, without[:, 0], without[:, 1])
        back = (sound / level - 1)[later]
        out = np.abs(back) > np.where(back < 0, own[:, 0], own[:, 1])
        return Effect(
            days=len(rows),
            outside=int((away > 1e-12).sum()),
            excursion=float(away.max()),
            silent=int(np.isnan(price[rows]).sum()),
            moved=float(np.nanmax(changed[rows])),
            after=float(np.nanmax(changed[rows[-1] + 1 :])),
            index_days=len(out),
            index_outside=int(out.sum()),
            index_moved=float(np.abs(moved).max()),
            index_share=float(share.max()),
        )

    @staticmethod
    def _reach(made: Made, index: Index) -> Floats:
        """How far below and above itself an index lies with every member at a bound of its interval. [1]"""
        days = index.frame.index
        out = np.zeros((len(days), 2))
        for market in index.weights.columns:
            frame = made.prices[market].frame("daily").reindex(days)
            for side, bound in enumerate(("interval_low", "interval_high")):
                # a member without a price of its own is filled in, and adds nothing
                relative = np.abs(frame[bound].to_numpy("float64") / frame["unrounded"].to_numpy("float64") - 1)
                out[:, side] += index.weights[market].to_numpy("float64") * np.nan_to_num(relative)
        return out

    # ---------------------------------------------------------------------------- the detector

    def flags(self, made: Made) -> Iterator[tuple[Flag | None, int]]:
        """For each market the first alarm about its wrong contributor, and alarms about the sound ones in the month."""
        first, last = self.case.first, self.case.last
        held = {finding.series: finding.check for finding in reversed(made.held)}
        for m, subject in enumerate(self._panels(made)):
            detector = subject.detector(self.alarms)(self._before[m])
            wrong = _id(m, self.case.wrong)
            found = Flag(0, f"{held[wrong]}, held back") if wrong in held else None
            others, day = 0, -1
            for period, values in subject.rows:
                if not first <= period <= last:
                    continue
                day += 1
                for name, verdict in detector.update(day_of(period), values).items():
                    if not verdict.flagged or verdict.kind == "market":
                        continue
                    if name != wrong:
                        others += 1
                    elif found is None:
                        found = Flag(day, verdict.check)
            yield found, others

    @cached_property
    def _before(self) -> list[dict[str, Any]]:
        """State of the detector of each market before the first wrong day."""
        out = []
        for subject in self._panels(self.usual):
            detector = subject.detector(self.alarms)(None)
            for period, values in subject.rows:
                if period < self.case.first:
                    detector.update(day_of(period), values)
            out.append(detector.state())
        return out

    def _panels(self, made: Made) -> list[watchlist.Subject]:
        wrong = {k: p for k, p in made.prices.items() if int(k[1:3]) < self.count}
        listed = watchlist.subjects(figures.Figures(wrong), self.method)
        return [one for one in listed if one.kind == "contributors"]


def _id(market: int, origin: int) -> str:
    return f"m{market:02}-o{origin}"


def _methodology(markets: int, count: int) -> Methodology:
    """The rules of the published method, with made markets and a basket for each wrong one."""
    text = tomllib.loads((ROOT / "methodology" / "2026-11.toml").read_text())
    rules = {name: text[name] for name in RULES}
    keys = [{"mineral": f"m{m:02}", "stage": "metal", "zone": "XCN"} for m in range(markets)]
    baskets = {
        f"b{m:02}": {
            "title": "made", "base_period": "2024", "review": 1, "cap": 0.4, "min_weight": 0.6,
            "constituents": [{**keys[k], "production": f"m{k:02}"} for k in (m, *range(count, markets))],
        }
        for m in range(count)
    }  # fmt: skip
    listed = [{**k, "per": "product", "anchor": "o0"} for k in keys]
    return Methodology.model_validate({**rules, "markets": listed, "baskets": baskets})


def _production(markets: int) -> figures.Production:
    rows = [
        {"series": f"m{m:02}", "period": str(year), "vintage": figures.end_of_day(pd.Timestamp(f"{year + 1}-01-31")),
         "value": 1.0, "status": "final"}
        for m in range(markets) for year in (2023, 2024, 2025)
    ]  # fmt: skip
    return figures.Production(pd.DataFrame(rows), {f"m{m:02}": "t" for m in range(markets)})
