"""What one source alone would have to quote to move a reference price, or an index, by a given share.

One quotation of the last period is changed, all else stays: the determination is made anew for each value on a
fine grid around what was quoted, with the rule of ``pricing.reference`` itself, and what its price does to the
index is known in closed form. Where exclusion sets in, and where the share is reached, is narrowed down from there.
Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from pricing import slips
from pricing.config import Determination, Series
from pricing.figures import MarketPrices
from pricing.index import LINK_STEP, Index
from pricing.judgement import set_aside
from pricing.reference import OBSERVED, Prices, combine

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Moved = Callable[[Floats], Floats]
"""From prices of a market [USD/t], NaN for none, to the share by which a figure moves; NaN: there is none any more."""

STEPS = 150  # of the grid on each side
ALONE = 1e9  # factor up to which a quotation that is the price is followed
PARTS, ROUNDS = 100, 5  # 100 parts five times over: 1e-10 of a step of the grid
SLACK = 1e-12  # of a share, for rounding
MARGIN = 1e-9  # beyond an edge, so that rounding does not take a quotation back over it
DIRECTIONS = {"up": 1, "down": -1}

BOUNDED = "the quotations of the others bound the price"
EXCLUDED = "it would be excluded from the cross-section"
NO_PRICE = "there would be no price"
TOO_LIGHT = "the market weighs too little, even if its price fell to nothing"


@dataclass(frozen=True)
class Answer:
    """How far one quotation would have to go in one direction.

    Attributes
    ----------
    factor : float
        Smallest change that does it, over what was quoted; NaN where none does.
    moves : float
        By which share the figure moves there: more than asked where the price jumps, because the quotation is
        excluded or the price is lost. Where nothing does it, the most that any quotation achieves.
    cannot : str
        Why nothing does it; empty where something does.
    """

    factor: float
    moves: float
    cannot: str = ""


@dataclass(frozen=True)
class Voice:
    """One origin that made the price of a market in one period, and what its quotation could have done.

    Tax, exchange rate, content and basis are factors: a quotation and the adjusted price that it becomes move alike.
    One that stands from an earlier period is taken as if it were made anew, at the exchange rate it had.
    """

    made: Prices
    at: int
    origin: int
    rules: Determination

    @property
    def series(self) -> Series:
        """The series that spoke for the origin."""
        return self.made.quotes.series[int(self.made.chosen[self.at, self.origin])]

    @cached_property
    def quotation(self) -> tuple[str, float]:
        """Period and value of the quotation, in the unit of the series."""
        upto = slice(0, self.at + 1)
        quotes = self.made.quotes
        said = quotes.value[self.series.id].iloc[upto][quotes.usd_per_t[self.series.id].iloc[upto].notna()]
        return str(said.index[-1]), float(said.iloc[-1])

    @cached_property
    def _set_aside(self) -> npt.NDArray[np.object_]:
        """Rules that keep origins out whatever the cross-section says."""
        rules = self.made.excluded[self.at]
        return np.array(["" if r.startswith(("cross-section", "unit-slip")) else r for r in rules], dtype=object)

    @cached_property
    def _kept(self) -> Bools:
        """Origins that a person keeps though the cross-section excludes them."""
        given = self.made.made_by
        periods, shape = self.made.frame.index[[self.at]], (1, len(self.made.origins))
        judged = given.judgements if given is not None else ()
        _, kept = set_aside(judged, periods, self.made.origins, np.zeros(shape, dtype=np.int64))
        return np.asarray(kept[0], dtype=np.bool_)

    @cached_property
    def price(self) -> float:
        """The reference price of the period [USD/t]."""
        return float(self.made.frame["unrounded"].iloc[self.at])

    def priced(self, factors: Floats) -> tuple[Floats, Bools]:
        """Determine the price anew with the quotation times each factor.

        Returns
        -------
        price : float array, (n,) [USD/t]
            NaN where there would be none.
        excluded : bool array, (n,)
            Whether the origin would be excluded.
        """
        made, at = self.made, self.at
        rows = (len(factors), 1)
        adjusted = np.tile(made.adjusted[at], rows)
        adjusted[:, self.origin] *= factors
        excluded = np.tile(self._set_aside, rows)
        series = made.quotes.series
        tiers = [self.rules.tier_weights.get(series[c].tier, 0.0) if c >= 0 else 0.0 for c in made.chosen[at]]
        others = np.isfinite(np.delete(adjusted[0], self.origin)).sum()
        if others < 2:  # nobody could tell: what looks like another unit would be held back
            held = [bool(what) for what in slips.named(factors, slips.LOOSE, slips.LEAST)]
            adjusted[np.array(held), self.origin] = np.nan
        _, price = combine(adjusted, np.tile(tiers, rows), excluded, self.rules, np.tile(self._kept, rows))
        fresh = (made.age[at] == 0) | (np.arange(len(tiers)) == self.origin)
        spoke = ((excluded == "") & np.isfinite(adjusted) & fresh).any(axis=1)
        return np.where(spoke, price, np.nan), excluded[:, self.origin] != ""

    def to_move(self, share: float, moved: Moved, direction: int) -> Answer:
        """Find the smallest change of the quotation, up (1) or down (-1), that moves a figure by a share.

        Parameters
        ----------
        share : float
            0.01 is one per cent, in either direction.
        moved : callable
            That there is no figure any more is no movement.
        direction : {1, -1}
        """

        def reaches(prices: Floats) -> Bools:
            return np.abs(np.nan_to_num(moved(prices))) >= share * (1 - SLACK)

        factors, price, excluded = self._grids[direction]
        reached = reaches(price)
        if not reached.any():
            moves = np.nan_to_num(moved(price))
            most = int(np.abs(moves).argmax())
            beyond = min(most + 1, len(factors) - 1)
            reason = TOO_LIGHT if beyond == most else BOUNDED
            reason = EXCLUDED if excluded[beyond] else NO_PRICE if np.isnan(price[beyond]) else reason
            return Answer(math.nan, float(moves[most]), reason)
        first = int(reached.argmax())
        _, edge = _narrowed(factors[first - 1], factors[first], lambda f: ~reaches(self.priced(f)[0]))
        factor = edge * (1 + direction * MARGIN)
        return Answer(factor, float(moved(self.priced(np.array([factor]))[0])[0]))

    @cached_property
    def _grids(self) -> dict[int, tuple[Floats, Floats, Bools]]:
        """Factors upward (1) and downward (-1), and what they give. Beyond, nothing more changes."""
        others = np.delete(self.made.adjusted[self.at], self.origin)
        others = others[np.isfinite(others)] / self.made.adjusted[self.at, self.origin]
        if not len(others):  # its quotation is the price
            return {1: self._grid(ALONE), -1: self._grid(1 / ALONE)}
        room = 1.1 * (1 + self.rules.widest) * (1 + self.rules.max_spread)
        return {1: self._grid(room * max(others.max(), 1.0)), -1: self._grid(min(others.min(), 1.0) / room)}

    def _grid(self, end: float) -> tuple[Floats, Floats, Bools]:
        """Factors from 1 to an end, with both sides of each place where exclusion or loss of a price begins or ends."""
        factors = np.geomspace(1.0, end, STEPS)
        state = self._state(factors)
        edges = [
            _narrowed(factors[i], factors[i + 1], partial(self._is_in, state[i]))
            for i in np.flatnonzero(state[1:] != state[:-1])
        ]
        factors = np.concatenate([factors, *edges])
        factors = factors[np.argsort(factors if end > 1 else -factors, kind="stable")]
        return factors, *self.priced(factors)

    def _state(self, factors: Floats) -> npt.NDArray[np.int64]:
        price, excluded = self.priced(factors)
        return np.where(np.isnan(price), 2, 0) + excluded

    def _is_in(self, state: int, factors: Floats) -> Bools:
        return np.asarray(self._state(factors) == state, dtype=np.bool_)


def _narrowed(near: float, far: float, holds: Callable[[Floats], Bools]) -> tuple[float, float]:
    """Close in on the first place between two factors where what holds at the near one no longer does.

    Returns
    -------
    near, far : float
        The last factor at which it holds, and the next.
    """
    for _ in range(ROUNDS):
        parts = np.linspace(near, far, PARTS + 1)
        first = int(np.argmin(holds(parts[1:-1]))) + 1 if not holds(parts[1:-1]).all() else PARTS
        near, far = float(parts[first - 1]), float(parts[first])
    return near, far


class Voices:
    """The origins behind the prices of all markets, each looked at once.

    Parameters
    ----------
    markets : mapping of market key to MarketPrices
    rules : Determination
    """

    def __init__(self, markets: Mapping[str, MarketPrices], rules: Determination) -> None:
        self.markets = markets
        self._rules = rules
        self._known: dict[tuple[str, str, str], tuple[Voice, ...]] = {}

    def of(self, market: str, frequency: str, period: str) -> tuple[Voice, ...]:
        """Return the origins that made the price of a market in a period, by its own quotations of that frequency."""
        key = (market, frequency, period)
        if key not in self._known:
            self._known[key] = self._of(*key)
        return self._known[key]

    def _of(self, market: str, frequency: str, period: str) -> tuple[Voice, ...]:
        made = self.markets[market].made(frequency)
        if made is None or period not in made.frame.index:
            return ()
        at = made.frame.index.tolist().index(period)
        if np.isnan(made.frame["unrounded"].iloc[at]):
            return ()
        return tuple(Voice(made, at, int(m), self._rules) for m in np.flatnonzero(made.weight[at] > 0))


# ----------------------------------------------------------------------------------------- an index


@dataclass(frozen=True)
class Line:
    """One quotation, and how far it would have to go, up and down: for the index, and for the price of its market."""

    market: str
    voice: Voice
    index: Mapping[str, Answer]
    price: Mapping[str, Answer]

    @property
    def least(self) -> float:
        """Smallest change that moves the index, as the absolute logarithm of its factor; infinite where none does."""
        return min((abs(math.log(a.factor)) for a in self.index.values() if not a.cannot), default=math.inf)

    @property
    def most(self) -> float:
        """The most by which any quotation tried moves the index, as a share."""
        return max(abs(a.moves) for a in self.index.values())


@dataclass(frozen=True)
class Sensitivity:
    """What single quotations would have to be to move the last value of an index.

    Attributes
    ----------
    share : float
        By how much: 0.01 is one per cent.
    frequency, period : str
        Of the value: of the daily index where there is one, else of the monthly one.
    lines : tuple of Line
        Sorted by how little is needed; those that cannot move it last, by how much they come to.
    left_out : mapping of market to reason
        Markets of the basket of which nothing is said.
    withheld : str
        Why nothing is said at all.
    """

    share: float
    frequency: str
    period: str = ""
    lines: tuple[Line, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    withheld: str = ""


def of_index(
    indices: Mapping[str, Index], voices: Voices, base_period: str, min_weight: float, share: float = 0.01
) -> Sensitivity:
    """Say of each origin behind the last value of an index what it would have to quote to move that value.

    A market that rests on a closed quotation, one whose price is imputed, and one whose price stands for several
    determinations are left out, with the reason.

    Parameters
    ----------
    indices : mapping of frequency to Index
        Of one basket.
    voices : Voices
    base_period, min_weight
        Of the basket.
    share : float
        0.01 is one per cent.
    """
    frequency = "daily" if "daily" in indices else "monthly"
    index = indices[frequency]
    given = index.frame.index[index.frame["unrounded"].notna()]
    if given.empty:
        return Sensitivity(share, frequency, withheld="the index has no value")
    period = str(given[-1])
    if period[:7] <= index.links[0].month:
        return Sensitivity(share, frequency, period, withheld="the last value is a back-cast from a later link")
    if period.startswith(base_period):
        return Sensitivity(share, frequency, period, withheld="the base period is not over: its mean would move too")
    at = index.frame.index.tolist().index(period)
    own = _own(index, voices.markets, frequency, at)
    lines, left_out = list[Line](), dict[str, str]()
    for name in map(str, index.quantities.columns[index.quantities.iloc[at] > 0]):
        if reason := _left_out(voices.markets, name, frequency, period, bool(own[name].notna()[period])):
            left_out[name] = reason
            continue
        moved = _answering(index, at, own, name, min_weight)
        for voice in voices.of(name, frequency, period):
            of_index = {way: voice.to_move(share, moved, d) for way, d in DIRECTIONS.items()}
            of_price = {way: voice.to_move(share, _relative(voice.price), d) for way, d in DIRECTIONS.items()}
            lines.append(Line(name, voice, of_index, of_price))
    lines.sort(key=lambda one: (one.least, -one.most, one.market, one.voice.series.id))
    return Sensitivity(share, frequency, period, tuple(lines), left_out)


def _relative(level: float) -> Moved:
    return lambda prices: prices / level - 1


def _own(index: Index, markets: Mapping[str, MarketPrices], frequency: str, at: int) -> pd.DataFrame:
    """Own prices of the period and of the one before, period × market [USD/t]."""
    periods = index.frame.index[at - 1 : at + 1]
    columns = {str(m): markets[str(m)].frame(frequency)["unrounded"].reindex(periods) for m in index.weights.columns}
    return pd.DataFrame(columns, index=periods).astype("float64")


def _left_out(markets: Mapping[str, MarketPrices], name: str, frequency: str, period: str, priced: bool) -> str:
    """Say why nothing is said of a market; empty text where something can be."""
    market = markets[name]
    if priced and (kind := str(market.frame(frequency).at[period, "type"])) not in OBSERVED:
        return f"its price of {period} is no determination from quotations of the period ({kind})"
    for other in markets.values():
        frame = other.frame(frequency)
        if other.market.linked == name and period in frame.index and frame.at[period, "type"] == "spread":
            return f"the price of {other.market.key} is estimated from it: one quotation would move both"
    if not priced:
        return f"it has no price of its own in {period}: its movement is that of the others"
    if frequency == "monthly" and (found := _within(market, period)):
        return f"it has {found} determinations inside {period}: one quotation does not make its month"
    made = market.made(frequency)
    return "it rests on quotations that may not be shown" if made is not None and made.quotes.closed else ""


def _within(market: MarketPrices, month: str) -> int:
    """Count the daily and ten-day prices of a month: they make its mean, or would if the monthly one were lost."""
    finer = [market.frame(f)["unrounded"].dropna().index for f in ("daily", "ten-day")]
    return sum(str(p).startswith(month) for index in finer for p in index)


def _answering(index: Index, at: int, own: pd.DataFrame, market: str, min_weight: float) -> Moved:
    """Return how the value of an index answers to the price of one market in that period, all else as it is.

    After the first link the value is the cost of the basket, so it answers in proportion. A market whose price is
    imputed moves with the mean of those observed in both periods (``pricing.index.impute``): gaps of others follow
    this price, and this market follows the others where its price is lost.
    """
    value = float(index.frame["unrounded"].iloc[at])
    names = [str(m) for m in index.weights.columns]
    points = index.contributions.drop(columns=LINK_STEP).iloc[at].to_numpy()
    before = index.weights.iloc[at].to_numpy() * (value - math.fsum(points))  # cost at the prices of the period before
    link = next(one for one in index.links if one.month == index.frame["link"].iloc[at])
    weight = np.array([link.shares.get(name, 0.0) for name in names])
    m, (old, new) = names.index(market), own.to_numpy()
    other = np.arange(len(names)) != m
    both = np.isfinite(old) & np.isfinite(new) & (weight > 0)
    gaps = math.fsum(before[index.imputed.iloc[at].to_numpy()])  # of the markets that are imputed

    def movement(of: Bools) -> float:
        return math.fsum(weight[of] * (new[of] / old[of])) / math.fsum(weight[of]) if of.any() else 1.0

    follows = weight[m] / math.fsum(weight[both]) / old[m] if both[m] else 0.0  # movement per USD/t of this price
    rest = movement(both & other)
    lost = (before[m] * rest - (before[m] + points[m]) + gaps * (rest - movement(both))) / value
    if float(index.frame["covered"].iloc[at]) - weight[m] < min_weight - SLACK or not np.isfinite(new[other]).any():
        lost = math.nan  # what is left does not make a value

    def moved(prices: Floats) -> Floats:
        step = (before[m] + points[m]) * (prices / new[m] - 1) + gaps * follows * (prices - new[m])
        return np.asarray(np.where(np.isnan(prices), lost, step / value), dtype="float64")

    return moved
