"""Judge the verdicts of one period together: several sources of one price, several series of one feed.

Pure. Streams judge each series from its own past (``pricing.anomalies``). A panel sees that one source left the others,
a feed sees that two of its series changed places. Both go one period at a time, keep a bounded state and change no
value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import combinations
from statistics import median
from typing import Any

from pricing import anomalies
from pricing.anomalies import CERTAIN, Alarms, Stream, Verdict

FEWEST = 3  # sources: of two that differ nobody can say which one is wrong
BASELINE = 0.01  # weight of the newest deviation in a source's usual premium: slow, so that a drift is seen
SPREAD = 0.02  # weight of the newest square in the variance of its deviations
WINSOR = 3.0  # sigmas at which a deviation is cut before it is remembered
ENOUGH = 20  # deviations before a source is judged
FLOOR = 2e-4  # least sigma of a deviation: sources round differently
SETTLED = 60  # periods after which a premium that stays is the source's own
EXCHANGED = 6.0  # sigmas within which two series must meet each other's price


class Panel:
    """Several sources that quote one price.

    Each source has a slow baseline against the median of the others, so a premium is no error. A source diverges where
    its deviation from the baseline is rare in this period and in the one before. Its deviation is the least one against
    the others' median of this period or of the one before: some learn of a move one period late. One source is the
    culprit, the farthest one.
    """

    def __init__(self, frequency: str, alarms: Alarms | None = None) -> None:
        self.frequency, self.alarms = frequency, alarms or Alarms()
        self._budget = anomalies.log_budget(self.alarms.divergence, frequency)
        self.levels: dict[str, float] = {}  # log of each source's last sound value
        self.sources: dict[str, dict[str, float]] = {}

    def update(self, verdicts: Mapping[str, Verdict]) -> dict[str, Verdict]:
        """Judge one period.

        Parameters
        ----------
        verdicts : mapping of source to Verdict
            Of the sources that quoted in this period, each by its own stream. What those call an error takes no part.

        Returns
        -------
        dict of source to Verdict
            The culprit's replaced where it diverges; the market's alarms with how many of the ``others`` are
            ``confirming`` in their evidence: they moved the same way, half as far or farther.
        """
        sound = {s: math.log(v.value) for s, v in verdicts.items() if v.kind != "data" and 0 < v.value < math.inf}
        found = dict(verdicts)
        if len(sound) < FEWEST:
            return found
        for source in sound:
            verdict = verdicts[source]
            if verdict.kind == "market" and verdict.change:
                alike = [s for s in sound if s != source and verdicts[s].change / verdict.change >= 0.5]
                counted = {"others": len(sound) - 1.0, "confirming": float(len(alike))}
                found[source] = verdict._replace(evidence=verdict.evidence | counted)
        ratios = {source: self._deviate(source, sound) for source in sound}
        culprit = max(ratios, key=ratios.__getitem__)
        score = anomalies.log_rate("divergence", ratios[culprit]) / self._budget
        if score > 1:
            found[culprit] = _diverging(found[culprit], score, self.sources[culprit])
        self.levels |= sound
        return found

    def _deviate(self, source: str, sound: Mapping[str, float]) -> float:
        """Sigmas by which a source deviates, in this period and the one before; remembers the deviation."""
        others = [other for other in sound if other != source]
        now = sound[source] - median(sound[other] for other in others)
        before = sound[source] - median(self.levels.get(other, sound[other]) for other in others)
        past = self.sources.setdefault(source, {"baseline": 0.0, "variance": 0.0, "count": 0, "last": 0.0, "away": 0})
        nearest = min(max(past["baseline"], min(now, before)), max(now, before))
        deviation, last = nearest - past["baseline"], past["last"]
        past["last"], past["count"] = deviation, past["count"] + 1
        if past["count"] <= ENOUGH:
            past["baseline"] += deviation / past["count"]
            past["variance"] += (deviation * deviation * (past["count"] > 1) - past["variance"]) / past["count"]
            return 0.0
        sigma = max(math.sqrt(past["variance"]), FLOOR)
        ratio = min(abs(deviation), abs(last)) / sigma if deviation * last > 0 else 0.0
        past["away"] = past["away"] + 1 if ratio > WINSOR else 0
        if past["away"] > SETTLED:
            past |= {"baseline": past["baseline"] + deviation, "last": 0.0, "away": 0}
            return ratio
        cut = max(-WINSOR * sigma, min(WINSOR * sigma, deviation))
        past["baseline"] += BASELINE * cut
        past["variance"] += SPREAD * (cut * cut - past["variance"])
        return ratio

    def state(self) -> dict[str, Any]:
        """All that the panel remembers, as plain JSON values."""
        sources = {source: dict(past) for source, past in self.sources.items()}
        return {
            "frequency": self.frequency,
            "alarms": vars(self.alarms).copy(),
            "levels": dict(self.levels),
            "sources": sources,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Panel:
        """Rebuild a panel; later verdicts are the same to the last bit."""
        panel = cls(state["frequency"], Alarms(**state["alarms"]))
        panel.levels = dict(state["levels"])
        panel.sources = {source: dict(past) for source, past in state["sources"].items()}
        return panel


def _diverging(verdict: Verdict, score: float, past: Mapping[str, float]) -> Verdict:
    """Say of a culprit that it diverges; that it stands still, or slipped, where that is why."""
    deviation, undone, check = past["last"], None, "divergence"
    if verdict.change == 0:
        check = "stale"
    elif abs(verdict.sigmas) > anomalies.SUSPECT and (factor := anomalies.looks_like(deviation)):
        check, undone = anomalies.named(factor), verdict.value / factor
    scores = verdict.scores | {"divergence": score}
    if check == "divergence" and score < verdict.score:  # a shock of its own, first of all
        return verdict._replace(scores=scores)
    return verdict._replace(
        score=max(score, verdict.score),
        flagged=True,
        kind=anomalies.KINDS[check],
        check=check,
        p_value=None,
        scores=scores,
        evidence={"deviation": deviation, "premium": past["baseline"]},
        undone=undone,
    )


def exchanged(verdicts: Mapping[str, Verdict], streams: Mapping[str, Stream]) -> dict[str, Verdict]:
    """Find series of one feed that changed places in this period: each stands where the other one stood.

    Parameters
    ----------
    verdicts : mapping of series to Verdict
        Of one feed and one period.
    streams : mapping of series to Stream
        Those that gave the verdicts: what was exchanged is taken out of their past again.

    Returns
    -------
    dict of series to Verdict
        Replaced where two changed places.
    """
    found = dict(verdicts)
    moved = [s for s, v in verdicts.items() if abs(v.sigmas) > anomalies.SUSPECT]
    for one, other in combinations(moved, 2):
        a, b = verdicts[one], verdicts[other]
        if _meets(a, b) and _meets(b, a):
            for series, mine, its in ((one, a, b), (other, b, a)):
                streams[series].reject()
                found[series] = mine._replace(
                    score=CERTAIN,
                    flagged=True,
                    kind="data",
                    check="swap",
                    undone=its.value,
                    evidence={"ratio": mine.value / mine.expected},
                    p_value=None,
                    scores=mine.scores | {"swap": CERTAIN},
                )
    return found


def _meets(mine: Verdict, its: Verdict) -> bool:
    """Whether a value lies where the other series is expected, and nearer to it than to its own past."""
    if not (mine.value > 0 and its.expected > 0):
        return False
    distance = abs(math.log(mine.value / its.expected))
    return distance < EXCHANGED * abs(its.change / its.sigmas) and distance < abs(mine.change) / 3


class Detector:
    """All series of one frequency: a stream for each, a panel for each price, exchanges within each source.

    Series are named by the price they quote and the source that quotes it.
    """

    def __init__(self, frequency: str, alarms: Alarms | None = None) -> None:
        self.frequency, self.alarms = frequency, alarms or Alarms()
        self.streams: dict[tuple[str, str], Stream] = {}
        self.panels: dict[str, Panel] = {}

    def update(self, day: int, quotes: Iterable[tuple[str, str, float]]) -> list[Verdict]:
        """Judge all quotes of one period.

        Parameters
        ----------
        day : int
            Ordinal of the period's first day; later than the one of the last call.
        quotes : iterable of (price, source, value)
            A second quote of the same series is a duplicate.

        Returns
        -------
        list of Verdict
            One for each quote, in their order.
        """
        verdicts: list[Verdict] = []
        prices: dict[str, dict[str, int]] = {}
        feeds: dict[str, dict[str, int]] = {}
        for price, source, value in quotes:
            key = (price, source)
            if key not in self.streams:
                self.streams[key] = Stream(self.frequency, self.alarms)
            verdicts.append(self.streams[key].update(day, value))
            if verdicts[-1].check != "duplicate":
                prices.setdefault(price, {})[source] = feeds.setdefault(source, {})[price] = len(verdicts) - 1
        for source, rows in feeds.items():
            if len(rows) > 1:
                streams = {price: self.streams[price, source] for price in rows}
                seen = exchanged({price: verdicts[row] for price, row in rows.items()}, streams)
                for price, row in rows.items():
                    verdicts[row] = seen[price]
        for price, rows in prices.items():
            if len(rows) >= FEWEST:
                panel = self.panels.setdefault(price, Panel(self.frequency, self.alarms))
                seen = panel.update({source: verdicts[row] for source, row in rows.items()})
                for source, row in rows.items():
                    verdicts[row] = seen[source]
        return verdicts

    def state(self) -> dict[str, Any]:
        """All that the detector remembers, as plain JSON values."""
        return {
            "frequency": self.frequency,
            "alarms": vars(self.alarms).copy(),
            "streams": [[*key, stream.state()] for key, stream in self.streams.items()],
            "panels": {price: panel.state() for price, panel in self.panels.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Detector:
        """Rebuild a detector; later verdicts are the same to the last bit."""
        detector = cls(state["frequency"], Alarms(**state["alarms"]))
        detector.streams = {(p, s): Stream.from_state(held) for p, s, held in state["streams"]}
        detector.panels = {price: Panel.from_state(held) for price, held in state["panels"].items()}
        return detector
