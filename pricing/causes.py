"""Why figures of one release differ from those of the release before, as far as the inputs tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from pricing.config import Series
from pricing.judgement import Judgement

_KEY = ["series", "period", "vintage"]


@dataclass(frozen=True)
class Causes:
    """What is different between two releases; called with a figure, it names what bears on it.

    Attributes
    ----------
    method : bool
        They were made under different methodologies.
    decisions : tuple of Judgement
        Overrides that are in force at one of the two only.
    quotations : frozenset of (market, period)
        Markets and periods of which a quotation was added, revised or withdrawn; a day's month is among them.
    """

    method: bool
    decisions: tuple[Judgement, ...]
    quotations: frozenset[tuple[str, str]]

    def __call__(self, kind: str, name: str, frequency: str, period: str) -> Iterator[str]:
        """Yield ``decision:NUMBER``, ``method`` and ``quotations``, those that bear on a figure, in this order.

        Only prices are traced to decisions and quotations. What rests on prices (an index, a gap) is not: it
        changes because they do.
        """
        if kind == "price":
            for one in self.decisions:
                if one.market == name and _covers(one, frequency, period):
                    yield f"decision:{one.decision}"
        if self.method:
            yield "method"
        if kind == "price" and (name, period) in self.quotations:
            yield "quotations"


def between(
    before: pd.DataFrame,
    now: pd.DataFrame,
    series: Mapping[str, Series],
    overrides_before: Iterable[Judgement],
    overrides: Iterable[Judgement],
    *,
    method: bool,
) -> Causes:
    """Compare the inputs of two releases.

    Parameters
    ----------
    before, now : DataFrame
        Observations that each used: ``series``, ``period``, ``vintage``.
    series : mapping of id to Series
    overrides_before, overrides : iterable of Judgement
        In force at each.
    method : bool
        The methodologies differ.
    """
    both = pd.concat([before[_KEY], now[_KEY]], ignore_index=True)
    touched = set()
    for name, period in both.drop_duplicates(keep=False)[["series", "period"]].itertuples(index=False):
        if name in series and series[name].kind == "price":
            one = series[name]
            market = f"{one.mineral}/{one.stage}/{one.zone}"
            touched |= {(market, period), (market, period[:7])}
    then, since = {j.decision: j for j in overrides_before}, {j.decision: j for j in overrides}
    decisions = {**then, **since}
    changed = tuple(decisions[number] for number in sorted(then.keys() ^ since.keys()))
    return Causes(method, changed, frozenset(touched))


def _covers(one: Judgement, frequency: str, period: str) -> bool:
    """Tell whether an override bears on a period: a month is the mean of its days."""
    if frequency == "monthly":
        return one.first[:7] <= period <= one.last[:7]
    return frequency == one.frequency and one.first <= period <= one.last
