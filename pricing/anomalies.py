"""Judge each observation of a series from its past alone: a market shock, a data error, or neither.

Pure. A stream keeps a bounded state, so one more observation costs the same whatever the history, and a batch is the
same kernel in a loop. Nothing is changed or dropped: a verdict says what an observation looks like, and what it would
be if the slip were undone.

Each channel is one statistic and one curve that says how often clean series reach it (``CURVES``). A channel raises an
alarm where its statistic is rarer than the channel's own budget of false alarms per series and year, so the number of
false alarms is a setting. Scores share one scale: 1 is the budget. What looks like an error never becomes the past
that later observations are judged by.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pricing import slips

Kind = Literal["market", "data", "divergence", ""]

PERIODS_A_YEAR = {"daily": 252, "weekly": 52, "ten-day": 36, "monthly": 12, "annual": 1}
KINDS: dict[str, Kind] = {
    **dict.fromkeys(("spike", "level-shift", "volatility", "trend"), "market"),
    **dict.fromkeys(("unit-slip", "decimal", "sign", "duplicate", "replay", "stale", "swap"), "data"),
    "divergence": "divergence",
}

# Alarms per observation at level x of a statistic are exp(-a) x**-b on clean series: (a, b), a Pareto tail (Pickands
# 1975). Fitted to the simulated controls and quiet stretches of one half of the benchmark; docs/detection.md says how.
CURVES = {
    "spike": (-0.42, 4.24),  # moves of one period: close to the inverse cubic law (Gopikrishnan et al. 1998)
    "volatility": (4.28, 6.04),
    "trend": (-0.5, 7.54),
    "divergence": (0.3, 5.7),
}
VOLATILITY_WINDOW = 20  # observations
TREND_WINDOW = 22
CERTAIN = 10.0  # score of an error that no market produces
TRUSTED = 1e-3  # tail probabilities below this one are not to be relied on: at 1e-4 they are 13 times off
FAST = 0.06  # weight of the newest square in the fast scale: RiskMetrics' .94 (J.P. Morgan/Reuters 1996)
LONG = 400  # moves in the slow scale
WINSOR_FAST, WINSOR_SLOW, WINSOR_WINDOW, WINSOR_TREND = 4.0, 3.0, 4.0, 2.0  # sigmas at which a move is cut
FLOOR = 1e-6  # least sigma: prices are quoted to six digits at best
ENOUGH_MOVES = 12
REMEMBERED = 64  # values within which a replayed block is looked for
FORGOTTEN = 60  # observations after which a suspected level that did not come back is forgotten
SUSPECT = 6.0  # sigmas below which nothing is called a slip
CONFIRMED = {"daily": 20, "weekly": 12, "ten-day": 10, "monthly": 6, "annual": 3}  # periods after which a level is one
_SLIPS = sorted(
    (sign * math.log(factor), factor**sign)
    for factor in (*(f for f in slips.SLIPS if f > 2), 1e4, 1e5, 1e6)
    for sign in (1, -1)
)


@dataclass(frozen=True)
class Alarms:
    """False alarms wanted per series and year, by channel: a setting of the methodology.

    Patterns that are near-certain errors (slip of a unit, sign, duplicate) have no budget.
    """

    spike: float = 0.5
    volatility: float = 0.2
    trend: float = 0.1
    stale: float = 0.1
    replay: float = 0.02
    divergence: float = 0.2

    def __post_init__(self) -> None:
        """Refuse budgets that are no rates."""
        for name, wanted in vars(self).items():
            if not 0 < wanted <= 12:
                raise ValueError(f"alarms.{name} = {wanted}: false alarms per series and year, above 0, at most 12")


class Verdict(NamedTuple):
    """What one observation looks like.

    Attributes
    ----------
    day : int
        The period, as a proleptic ordinal of its first day (``date.toordinal``).
    score : float
        Largest score of all channels; above 1 is an alarm.
    check : str
        The channel that raised the alarm; empty where none did.
    p_value : float or None
        How often a clean series reaches the statistic of that channel, per observation; None below ``TRUSTED``,
        where the tail is not to be relied on, and for patterns without a tail.
    expected : float
        The last good value: the best forecast of a price that a stream alone can give.
    change : float
        Log return against ``expected``; NaN where there is none.
    sigmas : float
        The same in standard deviations of the day.
    onset : int
        Day on which it began: the first day of a run or window.
    scores : dict
        Score of every channel that could be computed.
    evidence : dict
        Numbers behind the check.
    undone : float or None
        What the value would be if the slip were undone.
    """

    day: int
    value: float
    score: float
    flagged: bool
    kind: Kind
    check: str
    p_value: float | None
    expected: float
    change: float
    sigmas: float
    onset: int
    scores: dict[str, float]
    evidence: dict[str, float]
    undone: float | None


class Habit:
    """How readily a series starts a run of something and goes on with it, learnt from the series itself.

    A two-state Markov chain with Beta priors; ``probability(n)`` is that of a run as long as ``n``.
    """

    def __init__(self, counts: Iterable[float]) -> None:
        self.started, self.chances, self.continued, self.steps = counts

    def probability(self, length: int) -> float:
        return (self.started / self.chances) * (self.continued / self.steps) ** (length - 1)

    def learn(self, length: int, goes_on: bool) -> None:
        """One more observation, in or after a run of ``length``."""
        if length == 0:
            self.chances += 1
            self.started += goes_on
        else:
            self.steps += 1
            self.continued += goes_on


class Stream:
    """The detector's memory of one series."""

    def __init__(self, frequency: str, alarms: Alarms | None = None) -> None:
        self.frequency, self.alarms = frequency, alarms or Alarms()
        self.day = 0  # of the last observation that was not a duplicate
        self.raw = math.nan  # its value
        self.reference = math.nan  # log of the last good value
        self.fast = self.slow = 0.0  # variance of log returns, over recent and over many moves
        self.first_moves: list[float] = []  # until there are enough to start the two
        self.moves = 0
        self.sizes: list[float] = []  # |log return|, winsorised, newest last
        self.scales: list[float] = []  # sigma of the day
        self.signed: list[float] = []  # log return in fast sigmas, winsorised
        self.days: list[int] = []
        self.repeats, self.repeated_since = 0, 0
        self.stale = Habit((1.0, 40.0, 1.0, 10.0))
        self.values: list[float] = []
        self.lag = self.replayed = 0
        self.replay = Habit((1.0, 20.0, 1.0, 10.0))
        self.before: list[float] = []  # reference, scales and moves before the last observation
        self.pending = math.nan  # log of the newest value on a suspected level
        self.pending_check, self.pending_factor = "", 0.0
        self.pending_count = self.pending_returns = self.pending_since = 0
        self._set_budgets()

    def _set_budgets(self) -> None:
        """Log of the false alarms wanted per observation, by channel."""
        self._budget = {name: log_budget(wanted, self.frequency) for name, wanted in vars(self.alarms).items()}

    # ------------------------------------------------------------------ one observation

    def update(self, day: int, value: float) -> Verdict:
        """Judge one more observation, and remember it.

        Parameters
        ----------
        day : int
            Ordinal of the period's first day. Periods come in order; one that does not is a duplicate.
        value : float
            As published. NaN and infinities are missing: no verdict, nothing remembered.
        """
        self.before = []
        if not math.isfinite(value):
            return self._verdict(day, value, {}, "")
        if day <= self.day:
            return self._certain(day, value, "duplicate", {"days_back": float(self.day - day)})
        self.day = day
        if value <= 0:
            return self._certain(day, value, "sign", {}, -value or None)
        scores = {"stale": self._stale(day, value), "replay": self._replay(value)}
        level = math.log(value)
        if math.isnan(self.reference):
            self.reference = level
            return self._verdict(day, value, scores, "")
        change = level - self.reference
        sigma = self._sigma()
        if sigma and (slip := self._slip(day, level, change, sigma)):
            return slip
        scores |= self._market(day, change, sigma)
        verdict = self._strongest(day, value, scores, change, sigma)
        self._remember(day, level, change)
        return verdict

    def _sigma(self) -> float:
        """Sigma of the day: geometric mean of the fast and the slow scale, 0 before there are enough moves.

        Scaling by the fast one alone misses crises; both are winsorised, as one data error would poison them.
        """
        return max((self.fast * self.slow) ** 0.25, FLOOR) if self.moves >= ENOUGH_MOVES else 0.0

    # ------------------------------------------------------------------ errors

    def _stale(self, day: int, value: float) -> float:
        """Score of a run of equal values against the series' own habit of repeating."""
        same = value == self.raw
        self.stale.learn(self.repeats, same)
        self.repeats = self.repeats + 1 if same else 0
        if self.repeats == 1:
            self.repeated_since = day
        self.raw = value
        return math.log(self.stale.probability(self.repeats)) / self._budget["stale"] if same else 0.0

    def _replay(self, value: float) -> float:
        """Score of a block that repeats an earlier one value for value, against the habit of doing so by chance."""
        moved = not self.values or value != self.values[-1]
        goes_on = bool(self.lag) and self.values[-self.lag] == value
        if moved:
            if not goes_on:
                self.replay.learn(self.replayed, False)
                before = next((k for k in range(2, len(self.values) + 1) if self.values[-k] == value), 0)
                self.lag, self.replayed = before, 0
                goes_on = bool(before)
            self.replay.learn(self.replayed, goes_on)
            self.replayed = self.replayed + 1 if goes_on else 0
        elif not goes_on:
            self.lag = self.replayed = 0
        self.values.append(value)
        if len(self.values) > REMEMBERED:
            del self.values[0]
        return math.log(self.replay.probability(self.replayed)) / self._budget["replay"] if moved and goes_on else 0.0

    def _slip(self, day: int, level: float, change: float, sigma: float) -> Verdict | None:
        """Hold a jump that fits a slip of the unit, or that no market makes, apart from the past.

        A level that lasts is the series' own in the end: a publisher may change its unit for good.
        """
        on_pending = self.pending_count and abs(level - self.pending) < min(SUSPECT * sigma, abs(change))
        size = abs(change)
        if not on_pending:
            factor = looks_like(change)
            if size <= SUSPECT * sigma or not factor and size <= math.log(slips.LEAST):
                self.pending_returns += 1
                if self.pending_returns > FORGOTTEN:
                    self.pending_count = 0
                return None
            if not self.pending_count:
                self.pending_since = day
                self.pending_returns = 0
            self.pending_factor = factor
        self.pending = level
        self.pending_count += 1
        if self.pending_count > CONFIRMED[self.frequency]:
            self.pending_count = 0
            if self.pending_returns:  # to and fro is how this series moves
                self.fast = max(self.fast, change * change)
            self.reference = level
            return self._verdict(day, math.exp(level), {}, "")
        factor = self.pending_factor
        check = named(factor)
        undone = math.exp(level) / factor if factor else None
        found = {"ratio": math.exp(min(change, 700.0)), "factor": factor, "sigmas": change / sigma}
        return self._certain(day, math.exp(level), check, found, undone, self.pending_since)

    # ------------------------------------------------------------------ shocks

    def _market(self, day: int, change: float, sigma: float) -> dict[str, float]:
        """Scores of the channels of the market, each from one statistic of winsorised log returns."""
        if not sigma:
            return {}
        size, slow, fast = abs(change), max(math.sqrt(self.slow), FLOOR), max(math.sqrt(self.fast), FLOOR)
        for ring, new, length in (
            (self.sizes, min(size, WINSOR_WINDOW * slow), VOLATILITY_WINDOW),
            (self.scales, max(slow, fast), VOLATILITY_WINDOW),
            (self.signed, max(-WINSOR_TREND, min(WINSOR_TREND, change / fast)), TREND_WINDOW),
            (self.days, day, TREND_WINDOW),
        ):
            ring.append(new)
            if len(ring) > length:
                del ring[0]
        if not change:  # a price that stands still is no shock, whatever the days before were
            return {}
        scores = {"spike": self._score("spike", size / sigma)}
        if len(self.sizes) == VOLATILITY_WINDOW:  # against the scale before the window: a burst must not judge itself
            scores["volatility"] = self._score("volatility", sum(self.sizes) / VOLATILITY_WINDOW / self.scales[0])
        if len(self.signed) == TREND_WINDOW:
            scores["trend"] = self._score("trend", abs(sum(self.signed)) / math.sqrt(TREND_WINDOW))
        return scores

    def _score(self, curve: str, statistic: float) -> float:
        """Log of how rare the statistic is, over the log of how rare the budget asks for."""
        return max(0.0, log_rate(curve, statistic) / self._budget[curve])

    def _remember(self, day: int, level: float, change: float) -> None:
        """Let a good observation into the past. Assessed prices often stand still: only moves have a scale."""
        if self.moves > ENOUGH_MOVES:
            self.before = [self.reference, self.fast, self.slow, float(self.moves)]
        self.reference = level
        square = change * change
        if square == 0:
            return
        self.moves += 1
        if self.moves <= ENOUGH_MOVES:
            self.first_moves.append(abs(change))
            if self.moves == ENOUGH_MOVES:
                # 1.4826 x the median is sigma of normal moves, and one error among the first does no harm
                middle = 1.4826 * sorted(self.first_moves)[ENOUGH_MOVES // 2]
                self.fast = self.slow = middle * middle
                self.first_moves = []
            return
        largest = max(self.fast, self.slow)
        self.fast += FAST * (min(square, WINSOR_FAST**2 * largest) - self.fast)
        cut = WINSOR_SLOW**2 * max(self.slow, self.fast / 4)
        self.slow += (min(square, cut) - self.slow) / min(self.moves, LONG)

    def reject(self) -> None:
        """Take the last observation out of the past again: others showed that it was an error."""
        if self.before:
            self.reference, self.fast, self.slow, moves = self.before
            self.moves = int(moves)
            for ring in (self.sizes, self.scales, self.signed, self.days):
                ring.pop()
        else:
            self.pending_count = 0
        self.before = []

    # ------------------------------------------------------------------ verdicts

    def _strongest(self, day: int, value: float, scores: dict[str, float], change: float, sigma: float) -> Verdict:
        check = max(scores, key=scores.__getitem__)
        return self._verdict(day, value, scores, check if scores[check] > 1 else "", change, sigma)

    def _verdict(
        self, day: int, value: float, scores: dict[str, float], check: str, change: float = math.nan, sigma: float = 0.0
    ) -> Verdict:
        onset, p_value, evidence = day, None, {}
        if check:
            p = math.exp(scores[check] * self._budget[check])
            p_value = p if p >= TRUSTED else None
            if check in ("volatility", "trend"):
                onset = self.days[-VOLATILITY_WINDOW if check == "volatility" else 0]
            elif check == "stale":
                onset, evidence = self.repeated_since, {"repeats": float(self.repeats)}
            elif check == "replay":
                evidence = {"values": float(self.replayed), "lag": float(self.lag)}
        return Verdict(
            day,
            value,
            max(scores.values(), default=0.0),
            bool(check),
            KINDS[check] if check else "",
            check,
            p_value,
            math.exp(self.reference),
            change,
            change / sigma if sigma else math.nan,
            onset,
            scores,
            evidence,
            None,
        )

    def _certain(
        self, day: int, value: float, check: str, evidence: dict[str, float], undone: float | None = None, onset: int = 0
    ) -> Verdict:
        expected = math.exp(self.reference)
        change = math.log(value) - self.reference if value > 0 else math.nan
        scores = {check: CERTAIN}
        sigma = self._sigma()
        return Verdict(
            day,
            value,
            CERTAIN,
            True,
            "data",
            check,
            None,
            expected,
            change,
            change / sigma if sigma else math.nan,
            onset or day,
            scores,
            evidence,
            undone,
        )

    # ------------------------------------------------------------------ memory

    def state(self) -> dict[str, Any]:
        """All that the stream remembers, as plain JSON values; NaN as None."""
        plain: dict[str, Any] = {}
        for name, held in vars(self).items():
            if name.startswith("_"):
                continue
            plain[name] = (
                vars(held).copy()
                if isinstance(held, (Habit, Alarms))
                else list(held)
                if isinstance(held, list)
                else None
                if isinstance(held, float) and math.isnan(held)
                else held
            )
        return plain

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Stream:
        """Rebuild a stream; later verdicts are the same to the last bit."""
        stream = cls(state["frequency"], Alarms(**state["alarms"]))
        for name, held in state.items():
            old = getattr(stream, name)
            if isinstance(old, Habit):
                setattr(stream, name, Habit(held.values()))
            elif name != "alarms":
                setattr(stream, name, list(held) if isinstance(held, list) else math.nan if held is None else held)
        return stream


def log_rate(curve: str, statistic: float) -> float:
    """Log of how many alarms per observation a clean series would raise at this level of a statistic."""
    a, b = CURVES[curve]
    return -(a + b * math.log(statistic)) if statistic > 0 else 0.0


def log_budget(alarms_a_year: float, frequency: str) -> float:
    """Log of the false alarms wanted per observation.

    Raises
    ------
    ValueError
        The frequency has no number of periods a year.
    """
    if frequency not in PERIODS_A_YEAR:
        raise ValueError(f"no frequency {frequency!r}: use one of {', '.join(PERIODS_A_YEAR)}")
    return math.log(min(alarms_a_year / PERIODS_A_YEAR[frequency], 0.5))


def looks_like(change: float) -> float:
    """Factor of the slip that a log return looks like, 0 for none.

    Below eightfold a market may have moved so itself, and the slip must be met more closely.
    """
    distance, factor = min((abs(change - log), factor) for log, factor in _SLIPS)
    return factor if distance <= (0.1 if abs(change) < math.log(slips.LEAST) else 0.3) else 0.0


def named(factor: float) -> str:
    if not factor:
        return "swap"
    return "decimal" if math.log10(factor).is_integer() and abs(math.log10(factor)) != 3 else "unit-slip"


def judge(
    days: Iterable[int], values: Iterable[float], frequency: str, alarms: Alarms | None = None
) -> list[Verdict]:
    """Judge a whole history: the same kernel, one observation after the other."""
    stream = Stream(frequency, alarms)
    return [stream.update(day, value) for day, value in zip(days, values, strict=True)]
