"""Judge each observation of a series from its past alone: a market shock, a data error, or neither.

Pure. A stream keeps a bounded state, so one more observation costs the same whatever the history, and a batch is the
same kernel in a loop. Nothing is changed or dropped: a verdict says what an observation looks like, and what it would
be if the slip were undone.

Each channel is one statistic, with one curve that says how often a clean series reaches it (``CURVES``). It raises an
alarm where its statistic is rarer than its own budget of false alarms per series and year (``Alarms``). Scores share
one scale: 1 is the budget. What looks like an error never becomes the past that later observations are judged by.
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
    **dict.fromkeys(("unit-slip", "decimal", "gross", "sign", "duplicate", "replay", "stale", "swap"), "data"),
    "divergence": "divergence",
}

# A clean series raises exp(-a) x**-b alarms per observation at level x of a statistic, a Pareto tail (Pickands 1975):
# (a, b). The first three are fitted to simulated GARCH(1,1) series with Student t innovations of five degrees of
# freedom, alpha .08, beta .9; divergence to panels of one benchmark. Alarms within five observations are one.
CURVES = {
    "spike": (-0.28, 4.11),
    "volatility": (4.31, 5.9),
    "trend": (-0.55, 7.45),
    "divergence": (0.3, 5.7),
}
TRUSTED = 1e-3  # tail probabilities below this one are not to be relied on: at 1e-4 they were 13 times off
CERTAIN = 10.0  # score of an error that no market produces

FAST = 0.06  # weight of the newest square in the fast scale: RiskMetrics' .94 (J.P. Morgan/Reuters 1996)
LONG = 400  # moves in the slow scale and in the drift
FIRST = 12  # moves before there is a scale
VOLATILITY_WINDOW, TREND_WINDOW = 20, 22  # observations
# Sigmas at which a move is cut: before it enters the fast and the slow scale, and the windows of the two channels.
CUT_FAST, CUT_SLOW, CUT_VOLATILITY, CUT_TREND = 4.0, 3.0, 4.0, 2.0
HUGE = 1e150
FLOOR = 1e-6  # least sigma of a log return: prices are quoted to six digits at best

SUSPECT = 6.0  # sigmas below which nothing is called a slip
CONFIRMED = {"daily": 20, "weekly": 12, "ten-day": 10, "monthly": 6, "annual": 3}  # periods that make a level its own
FORGOTTEN = 60  # observations after which a suspected level that did not come back is forgotten
SETTLED = 2  # observations after which a spike that has not been undone is a level shift
CYCLE = 20  # replayed values from which a series goes round in circles, and no block is replayed
REMEMBERED = 64  # values within which the first of a replayed block is looked for
_SLIPS = [
    (sign * math.log(factor), factor**sign)
    for factor in (*(factor for factor in slips.SLIPS if factor > 2), 1e4, 1e5, 1e6)
    for sign in (1, -1)
]


@dataclass(frozen=True)
class Alarms:
    """False alarms wanted per series and year, by channel: a setting of the methodology.

    Patterns that are near-certain errors (slip of a unit, sign, duplicate, swap) have no budget.
    """

    spike: float = 0.5
    volatility: float = 0.25
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
        The period, as the ordinal of its first day (``date.toordinal``).
    score : float
        Largest score of all channels; above 1 is an alarm.
    check : str
        The channel or pattern that raised the alarm, a key of ``KINDS``; empty where none did.
    p_value : float or None
        How often a clean series reaches the statistic of that channel, per observation; None below ``TRUSTED``, and
        for patterns without a tail.
    expected : float
        The last good value, which is all that a stream alone expects.
    change : float
        Log return against ``expected`` (difference on a linear scale); NaN where there is none.
    sigmas : float
        The same in standard deviations of the day.
    onset : int
        Day on which it began: the first one of a run, a window or a suspected level.
    scores : dict
        Score of every channel that could be computed: why, or why not.
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

    A two-state Markov chain with Beta priors, given as the four counts they are worth.
    """

    def __init__(self, started: float, chances: float, continued: float, steps: float) -> None:
        self.started, self.chances, self.continued, self.steps = started, chances, continued, steps

    def log_probability(self, length: int) -> float:
        """Log probability that a run starts here and lasts ``length`` observations."""
        return math.log(self.started / self.chances) + (length - 1) * math.log(self.continued / self.steps)

    def learn(self, length: int, goes_on: bool) -> None:
        """Count one more observation, that came after a run of ``length``."""
        if length:
            self.steps += 1
            self.continued += goes_on
        else:
            self.chances += 1
            self.started += goes_on


class Stream:
    """The detector's memory of one series.

    Parameters
    ----------
    frequency : str
        A key of ``PERIODS_A_YEAR``.
    alarms : Alarms, optional
    linear : bool
        Judge differences instead of log returns: for premiums and spreads, which may be zero or negative. Slips of a
        unit and signs cannot be told there.

    Raises
    ------
    ValueError
        The frequency has no number of periods a year.
    """

    def __init__(self, frequency: str, alarms: Alarms | None = None, *, linear: bool = False) -> None:
        self.frequency, self.alarms, self.linear = frequency, alarms or Alarms(), linear
        self._budget = {name: log_budget(wanted, frequency) for name, wanted in vars(self.alarms).items()}
        self.day = 0  # of the last observation that was not a duplicate
        self.raw = math.nan  # its value
        self.reference = math.nan  # level of the last good value: its log, or the value itself
        self.fast = self.slow = 0.0  # variance of the moves, over recent and over many ones
        self.moves = 0
        self.first_moves: list[float] = []  # until there are enough of them
        self.before: list[float] = []  # reference, both scales and moves before the last observation
        # The windows, newest last.
        self.sizes: list[float] = []  # absolute moves, cut
        self.scales: list[float] = []  # the larger scale of the day
        self.signed: list[float] = []  # moves in fast sigmas, cut
        self.days: list[int] = []
        self.drift = 0.0  # mean of the signed moves before the window
        self.repeats, self.repeated_since = 0, 0
        self.stale = Habit(1.0, 40.0, 1.0, 10.0)
        self.values: list[float] = []
        self.lag = self.replayed = 0
        self.replay = Habit(1.0, 20.0, 1.0, 10.0)
        # A suspected level: its newest level, the factor it fits, observations on it and off it, and its first day.
        self.pending, self.pending_factor = 0.0, 0.0
        self.pending_count = self.pending_returns = self.pending_since = 0
        # The last spike: level before it, move, score, observations since; 0 for none.
        self.spike_from = self.spike_move = self.spike_score = 0.0
        self.spike_day = self.spike_age = 0

    def update(self, day: int, value: float) -> Verdict:
        """Judge one more observation, and remember it.

        Parameters
        ----------
        day : int
            Ordinal of the period's first day. A period that does not follow the last one is a duplicate.
        value : float
            As published. NaN and infinities are missing: nothing is said or remembered. So are premiums beyond 1e150,
            whose squares are infinite.
        """
        self.before = []
        if not math.isfinite(value) or (self.linear and abs(value) > HUGE):
            return self._verdict(day, value, {})
        if day <= self.day:
            return self._error(day, value, "duplicate", {"days_back": float(self.day - day)})
        self.day = day
        if value <= 0 and not self.linear:
            return self._error(day, value, "sign", {}, -value or None)
        runs = {"stale": self._stale(day, value), "replay": self._replay(value)}
        scores = runs if self.moves >= FIRST else {}  # of a series that hardly moved, nobody knows the habits
        level = value if self.linear else math.log(value)
        if math.isnan(self.reference):
            self.reference = level
            return self._verdict(day, value, scores)
        change = level - self.reference
        sigma = self.sigma()
        if sigma and not self.linear and (error := self._suspect(day, value, level, change, sigma)):
            return error
        if sigma:
            scores |= self._market(day, change, sigma)
        verdict = self._verdict(day, value, scores, change, sigma)
        verdict = self._level_shift(verdict, level)
        self._remember(level, change)
        return verdict

    def reject(self) -> None:
        """Take the last observation out of the past again: others showed that it was an error."""
        if self.before:
            self.reference, self.fast, self.slow, moves = self.before
            self.moves = int(moves)
            for ring in (self.sizes, self.scales, self.signed, self.days):
                ring.pop()
        else:
            self.pending_count = 0
        self.before, self.spike_age = [], 0

    def sigma(self) -> float:
        """Sigma of the day: the geometric mean of the fast and the slow scale, 0 before there are enough moves.

        Scaled by the fast one alone, moves within a crisis look small. Both are winsorised: one error would poison
        them for months.
        """
        return max((self.fast * self.slow) ** 0.25, self._floor()) if self.moves >= FIRST else 0.0

    def _floor(self) -> float:
        return 1 / HUGE if self.linear else FLOOR

    # ------------------------------------------------------------------ errors

    def _stale(self, day: int, value: float) -> float:
        """Score of a run of equal values, against the series' own habit of repeating."""
        same = value == self.raw
        self.stale.learn(self.repeats, same)
        self.repeats = self.repeats + 1 if same else 0
        if self.repeats == 1:
            self.repeated_since = day
        self.raw = value
        return self.stale.log_probability(self.repeats) / self._budget["stale"] if same else 0.0

    def _replay(self, value: float) -> float:
        """Score of a block that repeats an earlier one value for value, against the habit of meeting old values."""
        values = self.values
        moved = not values or value != values[-1]
        goes_on = bool(self.lag) and values[-self.lag] == value
        if moved and not goes_on:
            self.replay.learn(self.replayed, goes_on=False)
            self.lag = next((k for k in range(2, len(values) + 1) if values[-k] == value), 0)
            self.replayed, goes_on = 0, bool(self.lag)
        elif not goes_on:
            self.lag = self.replayed = 0
        if moved:
            self.replay.learn(self.replayed, goes_on)
            self.replayed = self.replayed + 1 if goes_on else 0
        values.append(value)
        if len(values) > REMEMBERED:
            del values[0]
        if not (moved and goes_on):
            return 0.0
        return self.replay.log_probability(min(self.replayed, CYCLE)) / self._budget["replay"]

    def _suspect(self, day: int, value: float, level: float, change: float, sigma: float) -> Verdict | None:
        """Hold a jump that fits a slip of the unit, or that no market makes, apart from the past.

        A level that lasts becomes the series' own: a publisher may change its unit for good.
        """
        if not (self.pending_count and abs(level - self.pending) < min(SUSPECT * sigma, abs(change))):
            factor = looks_like(change)
            if abs(change) <= SUSPECT * sigma or not (factor or abs(change) > math.log(slips.LEAST)):
                self.pending_returns += 1
                if self.pending_returns > FORGOTTEN:
                    self.pending_count = 0
                return None
            if not self.pending_count:
                self.pending_since, self.pending_returns = day, 0
            self.pending_factor = factor
        self.pending = level
        self.pending_count += 1
        if self.pending_count > CONFIRMED[self.frequency]:
            self.pending_count = 0
            if self.pending_returns:  # going to and fro is how this series moves
                self.fast = max(self.fast, change * change)
            self.reference = level
            return self._verdict(day, value, {})
        factor = self.pending_factor
        evidence = {"factor": factor, "change": change}
        undone = value / factor if factor else None
        return self._error(day, value, named(factor), evidence, undone, self.pending_since)

    def _error(
        self,
        day: int,
        value: float,
        check: str,
        evidence: dict[str, float],
        undone: float | None = None,
        onset: int = 0,
    ) -> Verdict:
        change, sigma = math.nan, self.sigma()
        if value > 0 and not self.linear:
            change = math.log(value) - self.reference
        verdict = self._verdict(day, value, {}, change, sigma)
        return verdict._replace(
            score=CERTAIN,
            flagged=True,
            kind="data",
            check=check,
            onset=onset or day,
            scores={check: CERTAIN},
            evidence=evidence,
            undone=undone,
        )

    # ------------------------------------------------------------------ shocks

    def _market(self, day: int, change: float, sigma: float) -> dict[str, float]:
        """Scores of the channels of the market.

        spike : the move of the day over its sigma.
        volatility : mean absolute move of a window over the larger scale before the window, as a burst must not be
            judged by itself.
        trend : sum of the winsorised moves of a window, in fast sigmas and beyond the drift before the window, over the
            root of its length.
        """
        floor = self._floor()
        size, slow, fast = abs(change), max(math.sqrt(self.slow), floor), max(math.sqrt(self.fast), floor)
        self.sizes.append(min(size, CUT_VOLATILITY * slow))
        self.scales.append(max(slow, fast))
        self.signed.append(max(-CUT_TREND, min(CUT_TREND, change / fast)))
        self.days.append(day)
        if len(self.sizes) > VOLATILITY_WINDOW:
            del self.sizes[0], self.scales[0]
        if len(self.days) > TREND_WINDOW:
            self.drift += (self.signed[0] - self.drift) / LONG
            del self.signed[0], self.days[0]
        if not change:  # a price that stands still is no shock, whatever the days before were
            return {}
        statistics = {"spike": size / sigma}
        if len(self.sizes) == VOLATILITY_WINDOW:
            statistics["volatility"] = sum(self.sizes) / VOLATILITY_WINDOW / self.scales[0]
        if len(self.signed) == TREND_WINDOW:
            statistics["trend"] = abs(sum(self.signed) - TREND_WINDOW * self.drift) / math.sqrt(TREND_WINDOW)
        return {name: max(0.0, log_rate(name, x) / self._budget[name]) for name, x in statistics.items()}

    def _level_shift(self, verdict: Verdict, level: float) -> Verdict:
        """Name a spike that most of is still there after ``SETTLED`` observations: the same alarm, named better."""
        if verdict.check == "spike":
            self.spike_from, self.spike_move, self.spike_score = self.reference, verdict.change, verdict.score
            self.spike_day, self.spike_age = verdict.day, 1
            return verdict
        if not self.spike_age:
            return verdict
        self.spike_age += 1
        if self.spike_age <= SETTLED:
            return verdict
        self.spike_age = 0
        kept = (level - self.spike_from) / self.spike_move
        if verdict.flagged or not verdict.change or kept < 0.5:
            return verdict
        score, scores = self.spike_score, verdict.scores | {"level-shift": self.spike_score}
        return verdict._replace(
            score=score,
            flagged=True,
            kind="market",
            check="level-shift",
            onset=self.spike_day,
            scores=scores,
            evidence={"kept": kept},
        )

    def _remember(self, level: float, change: float) -> None:
        """Let a good observation into the past. Assessed prices often stand still: only moves have a scale."""
        if self.moves >= FIRST:
            self.before = [self.reference, self.fast, self.slow, float(self.moves)]
        self.reference = level
        square = change * change
        if not square:
            return
        self.moves += 1
        if self.moves <= FIRST:
            self.first_moves.append(abs(change))
            if self.moves == FIRST:  # 1.4826 medians are sigma of normal moves, and an error among them does no harm
                middle = 1.4826 * sorted(self.first_moves)[FIRST // 2]
                self.fast = self.slow = middle * middle
                self.first_moves = []
            return
        self.slow += (min(square, CUT_SLOW**2 * max(self.slow, self.fast / 4)) - self.slow) / min(self.moves, LONG)
        self.fast += FAST * (min(square, CUT_FAST**2 * max(self.fast, self.slow)) - self.fast)

    # ------------------------------------------------------------------ verdict and memory

    def _verdict(
        self, day: int, value: float, scores: dict[str, float], change: float = math.nan, sigma: float = 0.0
    ) -> Verdict:
        """Say which channel is the farthest beyond its budget, if one is."""
        check = max(scores, key=scores.__getitem__, default="")
        score = scores[check] if check else 0.0
        onset, p_value, evidence = day, None, {}
        if score > 1:
            p = math.exp(score * self._budget[check])
            p_value = p if p >= TRUSTED else None
            if check == "trend":
                onset = self.days[0]
            elif check == "volatility":
                onset = self.days[-VOLATILITY_WINDOW]
            elif check == "stale":
                onset, evidence = self.repeated_since, {"repeats": float(self.repeats)}
            elif check == "replay":
                evidence = {"values": float(self.replayed), "lag": float(self.lag)}
        else:
            check = ""
        expected = self.reference if self.linear else math.exp(self.reference)
        sigmas = change / sigma if sigma else math.nan
        kind = KINDS[check] if check else ""
        return Verdict(
            day,
            value,
            score,
            bool(check),
            kind,
            check,
            p_value,
            expected,
            change,
            sigmas,
            onset,
            scores,
            evidence,
            None,
        )

    def state(self) -> dict[str, Any]:
        """All that the stream remembers, as plain JSON values; what is not known yet is None."""
        held = {name: part for name, part in vars(self).items() if not name.startswith("_")}
        for name, part in held.items():
            if isinstance(part, (Habit, Alarms)):
                held[name] = vars(part).copy()
            elif isinstance(part, list):
                held[name] = part.copy()
            elif isinstance(part, float) and math.isnan(part):
                held[name] = None
        return held

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Stream:
        """Rebuild a stream; its later verdicts are the same to the last bit."""
        stream = cls(state["frequency"], Alarms(**state["alarms"]), linear=state["linear"])
        for name, held in state.items():
            if name in ("stale", "replay"):
                setattr(stream, name, Habit(**held))
            elif name != "alarms":
                setattr(stream, name, list(held) if isinstance(held, list) else math.nan if held is None else held)
        return stream


def log_rate(curve: str, statistic: float) -> float:
    """Log of the alarms per observation that a clean series raises at this level of a statistic; 0 for none."""
    a, b = CURVES[curve]
    return -(a + b * math.log(statistic)) if statistic > 0 else 0.0


def log_budget(alarms_a_year: float, frequency: str) -> float:
    """Log of the false alarms wanted per observation, at most one in two.

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

    The market may have moved as well, but below ``slips.LEAST`` it may have moved so far itself: less room is left.
    """
    distance, factor = min((abs(change - log), factor) for log, factor in _SLIPS)
    return factor if distance <= (0.1 if abs(change) < math.log(slips.LEAST) else 0.3) else 0.0


def named(factor: float) -> str:
    """Name the check of a slip: a power of ten is a decimal place, but a thousand is kg and t."""
    if not factor:
        return "gross"
    digits = round(math.log10(factor))
    return "decimal" if abs(math.log10(factor) - digits) < 1e-9 and abs(digits) != 3 else "unit-slip"


def judge(
    days: Iterable[int], values: Iterable[float], frequency: str, alarms: Alarms | None = None, *, linear: bool = False
) -> list[Verdict]:
    """Judge a whole history: the same kernel, one observation after the other."""
    stream = Stream(frequency, alarms, linear=linear)
    return [stream.update(day, value) for day, value in zip(days, values, strict=True)]
