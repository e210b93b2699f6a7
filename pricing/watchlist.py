"""What is watched: reference prices, their contributors, premiums and indices, each with a detector of its own.

Pure.
"""

from __future__ import annotations

import datetime as dt
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from pricing.anomalies import Alarms, Stream, Verdict
from pricing.config import Methodology
from pricing.corroboration import Panel
from pricing.errors import ReleaseError
from pricing.figures import Figures, MarketPrices
from pricing.index import Index
from pricing.reference import OBSERVED, Quotes
from pricing.watching import Detector, Row, day_of

Kind = Literal["price", "premium", "index", "contributors"]
VERSION = 1  # raised when the detector judges the same values otherwise
GONE_MONTHS = 3  # without a daily price after which a market's months are watched
PREMIUM = "premium/"  # before the product, in the name of the series of China's price over the one outside
PANEL = "contributors/"  # before the market, in the name of what judges its contributors


@dataclass(frozen=True)
class Subject:
    """A series that is watched.

    Attributes
    ----------
    name : str
        ``mineral/stage/zone``, ``premium/mineral/stage``, the id of an index, or ``contributors/mineral/stage/zone``.
    rows : sequence of Row
        Observed values by period; what was estimated, voided or suspended is not among them. Of a premium China's
        price over the one outside, as a ratio; of contributors the figure as quoted, and in the unit of the market.
    unit : str
    markets : tuple of str
        What it is of; of an index its members.
    grades : mapping of period to grade
        Of a price.
    units : mapping of series to unit
        Of contributors, as they are quoted.
    """

    name: str
    kind: Kind
    frequency: str
    rows: Sequence[Row]
    unit: str
    markets: tuple[str, ...]
    grades: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Name and frequency."""
        return self.name, self.frequency

    @cached_property
    def names(self) -> list[str]:
        """Names of the series that are judged: of contributors one for each."""
        return [self.name] if self.kind != "contributors" else sorted({n for _, values in self.rows for n in values})

    @cached_property
    def periods(self) -> list[str]:
        """Periods with a value, in order."""
        return [period for period, _ in self.rows]

    @cached_property
    def values(self) -> npt.NDArray[np.float64]:
        """Values of a single series, by position in ``periods``."""
        return np.array([values[self.name][0] for _, values in self.rows])

    def settings(self, alarms: Mapping[str, float]) -> str:
        """All that verdicts follow from but the values."""
        return repr((VERSION, sorted(alarms.items()), self.frequency, self.unit))

    def detector(self, alarms: Mapping[str, float]) -> Callable[[dict[str, Any] | None], Detector]:
        """How a detector of this series is made, from a state where there is one."""
        wanted = Alarms(**alarms)

        def begin(state: dict[str, Any] | None) -> Detector:
            several = self.kind == "contributors"
            streams = {n: Stream.from_state(one) for n, one in (state or {"streams": {}})["streams"].items()}
            panel = Panel.from_state(state["panel"]) if several and state else Panel(self.frequency, wanted)
            return _Streams(self.frequency, wanted, streams, panel if several else None)

        return begin


@dataclass
class _Streams:
    """A stream for each series as it is quoted, in its own unit; a panel of them in the common unit."""

    frequency: str
    alarms: Alarms
    streams: dict[str, Stream]
    panel: Panel | None

    def update(self, day: int, values: Mapping[str, tuple[float, ...]]) -> Mapping[str, Verdict]:
        found = {}
        for name, (quoted, *_) in values.items():
            if name not in self.streams:
                self.streams[name] = Stream(self.frequency, self.alarms)
            found[name] = self.streams[name].update(day, quoted)
        if self.panel is None:
            return found
        common = {name: verdict._replace(value=values[name][1]) for name, verdict in found.items()}
        return {
            n: v._replace(value=values[n][0], undone=_undone(v, values[n]))
            for n, v in self.panel.update(common).items()
        }

    def state(self) -> dict[str, Any]:
        streams = {name: stream.state() for name, stream in self.streams.items()}
        return {"streams": streams} | ({"panel": self.panel.state()} if self.panel is not None else {})


def _undone(verdict: Verdict, value: tuple[float, ...]) -> float | None:
    """What a figure would be without its slip, as it is quoted; a panel tells it in the common unit."""
    if verdict.undone is None or "deviation" not in verdict.evidence:
        return verdict.undone
    return verdict.undone * value[0] / value[1]


# ------------------------------------------------------------------------------ what is watched


def subjects(figures: Figures, methodology: Methodology) -> list[Subject]:
    """List what is watched: reference prices, their contributors, premiums and indices, at each frequency.

    A price is watched at the rhythm at which it is determined: months that are means of days are not watched once more.
    """
    out: list[Subject] = []
    for key, market in figures.prices.items():
        out += _of_market(key, market)
    for product, gap in figures.gaps.items():
        frequency = next((f for f in ("daily", "ten-day", "monthly") if f in gap.frames), None)
        if frequency is not None:
            frame = gap.frames[frequency]
            ratio = (frame["china"] / frame["other"]).where(frame["net"].notna())
            rows = _rows(f"{PREMIUM}{product}", ratio.index.tolist(), ratio.to_numpy(dtype="float64"))
            unit = "ratio of China's price to the one outside"
            out.append(Subject(f"{PREMIUM}{product}", "premium", frequency, rows, unit, (gap.china, gap.other)))
    for name, basket in figures.baskets.items():
        frequency = next((f for f in ("daily", "monthly") if f in basket.indices), None)
        if frequency is not None:
            index = basket.indices[frequency]
            series = index.frame["unrounded"].where(index.frame["status"] != "estimated")
            rows = _rows(name, series.index.tolist(), series.to_numpy(dtype="float64"))
            unit = f"index, {methodology.baskets[name].base_period} = 100"
            out.append(Subject(name, "index", frequency, rows, unit, _members(index)))
    return [one for one in out if one.rows]


def _members(index: Index) -> tuple[str, ...]:
    return tuple(str(m) for m in index.weights.columns)


def _of_market(key: str, market: MarketPrices) -> Iterator[Subject]:
    watched = ""
    for frequency in ("daily", "ten-day", "monthly"):
        frame, made = market.frame(frequency), market.made(frequency)
        if frame.empty or (watched and _months(watched, frame.index[-1]) < GONE_MONTHS):
            continue  # months that are means of days are not watched once more
        observed = frame["unrounded"].where(frame["type"].isin(OBSERVED)).to_numpy(dtype="float64")
        values, unit = (observed, market.market.unit) if made is None else _as_quoted(observed, frame, made.quotes)
        rows = _rows(key, frame.index.tolist(), values)
        if not rows:
            continue
        grades = {p: g for p, g in zip(frame.index, frame["grade"], strict=True) if isinstance(g, str)}
        yield Subject(key, "price", frequency, rows, unit, (key,), grades)
        watched = rows[-1][0]
        if made is not None:
            yield _contributors(key, frequency, made.quotes)


def _months(first: str, second: str) -> int:
    """Months from one period to another."""
    return 12 * (int(second[:4]) - int(first[:4])) + int(second[5:7]) - int(first[5:7])


def _as_quoted(
    values: npt.NDArray[np.float64], frame: pd.DataFrame, quotes: Quotes
) -> tuple[npt.NDArray[np.float64], str]:
    """Prices in the currency in which everybody quotes: in another one a price that stands still would move."""
    unit = quotes.market.unit
    currencies = {s.unit.partition("/")[0] for s in quotes.series}
    if len(currencies) != 1 or currencies == {"USD"} or len(frame) != len(quotes.fx):
        return values, unit
    return values / quotes.fx.max(axis=1).to_numpy(dtype="float64"), unit.replace("USD", currencies.pop(), 1)


def _contributors(key: str, frequency: str, quotes: Quotes) -> Subject:
    names, periods = [s.id for s in quotes.series], quotes.usd_per_t.index.tolist()
    quoted, usd = quotes.value.to_numpy(dtype="float64"), np.where(quotes.out, np.nan, quotes.numbers)
    rows = [
        (period, {n: (v, u) for n, v, u in zip(names, own, common, strict=True) if math.isfinite(u)})
        for period, own, common in zip(periods, quoted.tolist(), usd.tolist(), strict=True)
    ]
    units = {s.id: s.unit for s in quotes.series}
    spoken = [row for row in rows if row[1]]
    return Subject(f"{PANEL}{key}", "contributors", frequency, spoken, quotes.market.unit, (key,), units=units)


def _rows(name: str, periods: Sequence[str], values: npt.NDArray[np.float64]) -> list[Row]:
    pairs = zip(periods, values.tolist(), strict=True)
    return [(period, {name: (value,)}) for period, value in pairs if math.isfinite(value)]


def explain(subject: Subject, alarms: Mapping[str, float], name: str, period: str) -> dict[str, Any]:
    """Judge one observation from those before it, and return the verdict with the score of every check.

    Raises ReleaseError where nothing was observed of that period.
    """
    detector = subject.detector(alarms)(None)
    before: list[tuple[str, float]] = []
    for at, values in subject.rows:
        found = detector.update(day_of(at), values)
        if at == period and name in values:
            v = found[name]
            return {
                "series": name,
                "frequency": subject.frequency,
                "period": period,
                "value": v.value,
                "unit": subject.units.get(name, subject.unit),
                **{k: getattr(v, k) for k in ("flagged", "kind", "check", "score", "p_value", "expected", "change")},
                "sigmas": v.sigmas,
                "onset": dt.date.fromordinal(v.onset).isoformat(),
                "undone": v.undone,
                "evidence": v.evidence,
                "scores": dict(sorted(v.scores.items(), key=lambda pair: -pair[1])),
                "false_alarms": dict(alarms),
                "observations": len(before),
                "before": [{"period": p, "value": x} for p, x in before[-5:]],
            }
        if name in values:
            before.append((at, values[name][0]))
    spoken = [p for p, values in subject.rows if name in values]
    near = spoken[max(0, bisect_left(spoken, period) - 1) :][:2]
    raise ReleaseError(f"nothing was observed of {name} in {period}; near it there are {', '.join(near) or 'none'}")
