"""A detector goes on from where it stood, and an observation that was judged stays judged."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.anomalies import Alarms, Stream
from pricing.watching import BACK, Judged, Watch, watch
from pricing.watchlist import Subject

ALARMS = {"spike": 0.5, "volatility": 0.2, "trend": 0.1, "stale": 0.1, "replay": 0.02, "divergence": 0.2}


def subject(values: np.ndarray, start: str = "2024-01-02") -> Subject:
    days = [str(d.date()) for d in pd.bdate_range(start, periods=len(values))]
    rows = [(day, {"tin/metal/XCN": (float(v),)}) for day, v in zip(days, values, strict=True)]
    return Subject("tin/metal/XCN", "price", "daily", rows, "USD/t", ("tin/metal/XCN",))


def wild(count: int, seed: int) -> np.ndarray:
    """A random walk with jumps, slips and standstills."""
    rng = np.random.default_rng(seed)
    moves = rng.normal(0, 0.01, count) + np.where(rng.random(count) < 0.03, rng.normal(0, 0.1, count), 0)
    moves[rng.random(count) < 0.05] = 0
    values = 3e4 * np.exp(np.cumsum(moves))
    values[rng.random(count) < 0.01] *= 1000
    return values.round(2)


class Kept:
    """What a store keeps of one series."""

    def __init__(self) -> None:
        self.watch: Watch | None = None
        self.judged: dict[str, dict[str, Judged]] = {}

    def look(self, one: Subject) -> None:
        known = lambda after: {  # noqa: E731
            name: {p: j for p, j in rows.items() if p > after} for name, rows in self.judged.items()
        }
        self.watch, found = watch(one.rows, one.detector(ALARMS), self.watch, known)
        self.watch = Watch(self.watch.content, self.watch.count, json.loads(json.dumps(self.watch.state)))
        for name, rows in found.items():
            for period, judged in rows.items():
                if judged is None:
                    del self.judged[name][period]
                else:
                    self.judged.setdefault(name, {})[period] = judged


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(1, 240), max_size=6))
def test_release_by_release_is_the_same_as_all_at_once(seed, cuts):
    values = wild(240, seed)
    bits, whole = Kept(), Kept()
    for cut in [*sorted(set(cuts)), 240]:
        bits.look(subject(values[:cut]))
    whole.look(subject(values))
    assert bits.judged == whole.judged and bits.watch == whole.watch
    stream = Stream("daily", Alarms(**ALARMS))
    truth = [stream.update(pd.Timestamp(d).toordinal(), v[subject(values).name][0]) for d, v in subject(values).rows]
    seen = whole.judged["tin/metal/XCN"]
    assert [j.verdict is not None for _, j in sorted(seen.items())] == [v.flagged for v in truth]


def quiet(count: int = 300, seed: int = 4) -> np.ndarray:
    return 3e4 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.01, count)))


def flags(kept: Kept) -> list[str]:
    return sorted(p for p, j in kept.judged["tin/metal/XCN"].items() if j.verdict is not None)


def test_an_observation_that_is_revised_is_judged_again_and_the_others_stay_judged():
    values = quiet()
    values[200:] *= 1.2
    kept = Kept()
    kept.look(subject(values))
    day = subject(values).periods[200]
    assert day in flags(kept)
    before = {p: j for p, j in kept.judged["tin/metal/XCN"].items() if p != day}
    smaller = values.copy()
    smaller[200] /= 1.2  # the jump comes one day later
    kept.look(subject(smaller))
    assert day not in flags(kept)
    assert {p: j for p, j in kept.judged["tin/metal/XCN"].items() if p != day} == before


def test_an_alarm_that_a_revision_weakens_a_little_does_not_flutter():
    values = quiet()
    position = len(values) - 3

    def score(size: float) -> float:
        probe = values.copy()
        probe[position] *= 1 + size
        stream, one = Stream("daily", Alarms(**ALARMS)), subject(probe)
        judged = [stream.update(pd.Timestamp(d).toordinal(), v[one.name][0]) for d, v in one.rows]
        return judged[position].score

    sizes = np.linspace(0.01, 0.15, 60)
    high = next(s for s in sizes if score(s) > 1)
    low = next(s for s in sizes if 0.75 < score(s) < 1)
    small = next(s for s in sizes if 0.3 < score(s) < 0.6)
    kept = Kept()
    for size, told in ((high, True), (low, True), (small, False), (low, False)):
        moved = values.copy()
        moved[position] *= 1 + size
        kept.look(subject(moved))
        assert (subject(moved).periods[position] in flags(kept)) is told, size


def test_an_observation_that_is_withdrawn_is_forgotten_and_one_that_comes_late_is_judged():
    values = quiet(120)
    kept = Kept()
    kept.look(subject(values))
    shorter = subject(values)
    late = shorter.rows[-2]
    short = Subject(shorter.name, "price", "daily", [r for r in shorter.rows if r != late], "USD/t", shorter.markets)
    kept.look(short)
    assert late[0] not in kept.judged["tin/metal/XCN"] and len(kept.judged["tin/metal/XCN"]) == 119
    kept.look(shorter)
    assert len(kept.judged["tin/metal/XCN"]) == 120


def test_a_release_costs_the_latest_observations_only():
    values = quiet(300)
    kept = Kept()
    kept.look(subject(values[:299]))
    asked = []
    one = subject(values)
    begin = one.detector(ALARMS)

    def counting(state):
        detector = begin(state)
        update = detector.update
        detector.update = lambda day, v: asked.append(day) or update(day, v)
        return detector

    watch(one.rows, counting, kept.watch, lambda _: {})
    assert len(asked) == BACK + 1


def test_contributors_are_judged_as_they_quote_and_beside_each_other_in_one_unit():
    rng = np.random.default_rng(3)
    true = quiet(200, 8)
    rate = 7.1 * np.exp(np.cumsum(rng.normal(0, 0.002, 200)))
    dollars = {name: true * np.exp(rng.normal(0, 0.001, 200)) for name in ("a", "b", "c")}
    yuan = (true * rate).round(0)
    yuan[190:] = yuan[190]  # stands still in yuan, and so moves in dollars
    days = [str(d.date()) for d in pd.bdate_range("2025-01-06", periods=200)]
    rows = [
        (d, {**{n: (float(v[i]), float(v[i])) for n, v in dollars.items()}, "cn": (float(yuan[i]), yuan[i] / rate[i])})
        for i, d in enumerate(days)
    ]
    units = {"a": "USD/t", "b": "USD/t", "c": "USD/t", "cn": "CNY/t"}
    one = Subject("contributors/tin/metal/XCN", "contributors", "daily", rows, "USD/t", ("tin/metal/XCN",), units=units)
    kept = Kept()
    kept.look(one)
    stale = [p for p, j in kept.judged["cn"].items() if j.verdict and j.verdict["check"] == "stale"]
    assert stale and set(stale) <= set(days[191:])
    assert kept.judged["cn"][days[50]].value == pytest.approx(yuan[50])
