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
PREMIUM = 0.01  # weight of the newest deviation in a source's premium: slow, so that a drift is seen
SPREAD = 0.02  # weight of the newest square in the variance of its deviations
CUT = 3.0  # sigmas at which a deviation is cut before it is remembered
ENOUGH = 20  # deviations that give a premium; as many again give the scale, and the source is judged
FLOOR = 2e-4  # least sigma of a deviation: sources round differently
SETTLED = 60  # periods after which a premium that stays is the source's own
EXCHANGED = 6.0  # sigmas within which two series must meet each other's price


class Panel:
    """Several sources that quote one price.

    Each source has a premium, which is no error and is taken out before sources are compared. A source diverges where
    its deviation from the median of the others is rare in this period and in the one before. Its deviation is the least
    one against the others of this period or of the one before: some learn of a move one period late. One source is the
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
        found = dict(verdicts)
        sound = {s: math.log(v.value) for s, v in verdicts.items() if v.kind != "data" and 0 < v.value < math.inf}
        if len(sound) < FEWEST:
            return found
        for source in sound:
            verdict = verdicts[source]
            if verdict.kind == "market" and verdict.change:
                alike = [s for s in sound if s != source and verdicts[s].change / verdict.change >= 0.5]
                counted = {"others": len(sound) - 1.0, "confirming": float(len(alike))}
                found[source] = verdict._replace(evidence=verdict.evidence | counted)
        deviations = {source: self._deviation(source, sound) for source in sound}
        ratios = {source: self._ratio(source, deviation) for source, deviation in deviations.items()}
        culprit = max(ratios, key=ratios.__getitem__)
        score = anomalies.log_rate("divergence", ratios[culprit]) / self._budget
        if score > 1:
            premium = self.sources[culprit]["premium"]
            found[culprit] = _diverging(found[culprit], score, deviations[culprit], premium)
        for source, deviation in deviations.items():
            self._remember(source, deviation, diverges=source == culprit and score > 1)
        self.levels |= sound
        return found

    def _deviation(self, source: str, sound: Mapping[str, float]) -> float:
        """Log distance of a source from the others, premiums taken out, this period or the one before."""
        start = {"premium": 0.0, "variance": 0.0, "count": 0.0, "last": 0.0, "away": 0.0}
        past = self.sources.setdefault(source, start)
        others = [s for s in sound if s != source and self.sources.get(s, start)["count"] >= ENOUGH]
        if past["count"] < ENOUGH and len(others) < FEWEST - 1:  # at the start all are compared with the common median
            return sound[source] - median(sound.values()) - past["premium"]
        if not others:
            return 0.0
        own = sound[source] - past["premium"]
        now = own - median(sound[s] - self.sources[s]["premium"] for s in others)
        before = own - median(self.levels[s] - self.sources[s]["premium"] for s in others)
        return min(max(0.0, min(now, before)), max(now, before))

    def _ratio(self, source: str, deviation: float) -> float:
        """Sigmas by which a source deviates in this period and deviated, the same way, in the one before."""
        past = self.sources[source]
        if past["count"] < 2 * ENOUGH or deviation * past["last"] <= 0:
            return 0.0
        return min(abs(deviation), abs(past["last"])) / max(math.sqrt(past["variance"]), FLOOR)

    def _remember(self, source: str, deviation: float, *, diverges: bool) -> None:
        """Learn premium and scale of a source from what is no divergence; one that lasts is a premium in the end."""
        past = self.sources[source]
        past["last"] = deviation
        past["away"] = past["away"] + 1 if diverges else 0.0
        if past["away"] > SETTLED:
            past |= {"premium": past["premium"] + deviation, "last": 0.0, "away": 0.0}
        elif past["count"] < 2 * ENOUGH:  # first the premium, then with it the scale
            past["count"] += 1
            past["premium"] += deviation / past["count"]
            if past["count"] > ENOUGH:
                past["variance"] += (deviation * deviation - past["variance"]) / (past["count"] - ENOUGH)
        elif not diverges:
            sigma = max(math.sqrt(past["variance"]), FLOOR)
            cut = max(-CUT * sigma, min(CUT * sigma, deviation))
            past["premium"] += PREMIUM * cut
            past["variance"] += SPREAD * (cut * cut - past["variance"])

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


def _diverging(verdict: Verdict, score: float, deviation: float, premium: float) -> Verdict:
    """Say of a culprit that it diverges; that it stands still, or slipped, where that is why."""
    undone, check = None, "divergence"
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
        evidence={"deviation": deviation, "premium": premium},
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
