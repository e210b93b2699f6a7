"""What a person's override does to a determination: quotations set aside or kept, a price suspended or judged.

Pure, and blind to who decided and how: ``pricing.decisions`` says which overrides are in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

OverrideKind = Literal["exclude", "include", "suspend", "price"]
_NUMBERS = ("unrounded", "value", "low", "high", "mean", "spread", "interval_low", "interval_high", "days", "weekdays")


@dataclass(frozen=True)
class Judgement:
    """One override in force.

    Attributes
    ----------
    decision : int
        Its number in the log.
    kind : {"exclude", "include", "suspend", "price"}
        An origin is set aside, or kept though the cross-section excludes it; the market has no price, or this one.
    market, frequency, first, last : str
        The determinations that it is about, by period, both ends included.
    reason : str
        Code of ``pricing.decisions.REASONS``.
    since : str
        Instant at which it took effect, ISO, UTC.
    origin : str
        For ``exclude`` and ``include``.
    price : float or None
        For ``price`` [``unit``].
    actors, comment
        Who decided, and in which words: for auditors only.
    withheld : bool
        The price may not be shown to the audience: it could repeat a closed value.
    """

    decision: int
    kind: OverrideKind
    market: str
    frequency: str
    first: str
    last: str
    reason: str
    since: str
    origin: str = ""
    price: float | None = None
    unit: str = ""
    actors: tuple[str, ...] = ()
    comment: str = ""
    withheld: bool = False

    @property
    def rule(self) -> str:
        """The rule that a record gives for a quotation that it sets aside."""
        return f"judged (decision {self.decision})"

    def covers(self, periods: pd.Index) -> npt.NDArray[np.bool_]:
        """Tell which periods it is about."""
        return np.array([self.first <= period <= self.last for period in periods.tolist()], dtype=np.bool_)


def set_aside(
    judgements: Iterable[Judgement], periods: pd.Index, origins: Sequence[str], ages: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.bool_]]:
    """Lay overrides out by period and origin.

    A quotation that was made in the periods of an exclusion or suspension stands on no later day either;
    a judged price sets all quotations of its own period aside.

    Parameters
    ----------
    ages : int array, period × origin
        Days since the quotation that would be used.

    Returns
    -------
    rule : object array, period × origin
        The rule that sets the origin aside, or empty text.
    kept : bool array, period × origin
        The cross-section may not exclude the origin.
    """
    rule, kept = np.full(ages.shape, "", dtype=object), np.zeros(ages.shape, dtype=np.bool_)
    for one in judgements:
        rows = one.covers(periods)
        for column in [origins.index(one.origin)] if one.origin else range(len(origins)):
            if one.kind == "include":
                kept[rows, column] = True
                continue
            out = rows.copy()
            old = np.flatnonzero(ages[:, column] > 0)  # daily markets only
            if one.kind != "price" and len(old):
                made = periods.to_numpy()[old].astype("datetime64[D]") - ages[old, column]
                out[old] |= (made >= np.datetime64(one.first)) & (made <= np.datetime64(one.last))
            rule[out, column] = one.rule
    return rule, kept


def applied(frame: pd.DataFrame, judgements: Iterable[Judgement], rounding: int) -> pd.DataFrame:
    """Suspend or replace the prices that overrides suspend or name.

    Parameters
    ----------
    frame : DataFrame, by period
        The columns of ``pricing.reference.Prices.frame``.
    rounding : int
        Decimals of the market.

    Returns
    -------
    DataFrame
        A judged price has type ``judged``, grade C and no interval; it rests on no origin.
    """
    out = frame
    for one in judgements:
        rows = one.covers(out.index) if one.kind in ("suspend", "price") else np.zeros(0, dtype=np.bool_)
        if not rows.any():
            continue
        numbers = [name for name in _NUMBERS if name in out]
        out = out.astype(dict.fromkeys(numbers, "float64"))
        shown = one.price if one.price is not None and not one.withheld else None
        facts: dict[str, Any] = dict.fromkeys(numbers, np.nan) | {"origins": 0, "largest_weight": 0.0, "grade": None}
        facts |= {"status": "confidential" if one.withheld else "suspended", "type": "none"}
        if shown is not None:
            facts |= {"unrounded": shown, "value": round(shown, rounding), "status": "normal", "grade": "C"}
        if one.kind == "price":
            facts["type"] = "judged"
        for name, value in facts.items():
            out.loc[rows, name] = value
    return out


def priced_periods(judgements: Iterable[Judgement], known: pd.Index) -> list[str]:
    """Return the periods that have a judged price and no row yet."""
    return sorted({one.first for one in judgements if one.kind == "price"} - set(known.tolist()))
