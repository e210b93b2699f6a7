"""Chaining, unchaining, linking and rebasing of indices.

Movements are chained period on period, or annually on a link: a month (ours is March), or the mean of a calendar
year (HICP Methodological Manual, Eurostat 2024, ch. 8; CPI Manual 2020, ch. 9). The link month itself still belongs
to what stands before it.

Calendar functions read periods as months, ``2024-03``, in order. A year's mean needs all of its twelve months.
Pure.
"""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
import pandas as pd

from pricing.errors import MethodError
from pricing.panels import ChainableIndex, FixedBaseIndex, Floats, Step, position

_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


def chain(index: ChainableIndex, base: str | None = None) -> FixedBaseIndex:
    """Multiply movements into levels.

    Parameters
    ----------
    index : ChainableIndex
    base : str, optional
        Period, or for annual links also a year, whose level is 1. By default the first period, or the first link.

    Returns
    -------
    FixedBaseIndex
        Null from the first movement on that is missing: no chain crosses a gap. With annual links null before
        the first link as well.

    Raises
    ------
    MethodError
        For an index that has fixed-base levels already, and a base that has no value.
    """
    if not isinstance(index, ChainableIndex):
        raise MethodError("only movements are chained; this index has levels already, and chaining it again is wrong")
    if index.step != "period":
        refs = references(index.values.index, index.step)
        levels, first = chained(_column(index.values), refs, index.values.index)
        out = FixedBaseIndex(pd.Series(levels[:, 0], index=index.values.index), first, index.formula)
        return out if base is None else rebase(out, base, 1.0)
    periods, links = index.values.index, index.values.to_numpy()
    base = str(periods[0]) if base is None else base
    at = position(periods, base)
    forward, backward = np.cumprod(links[at + 1 :]), np.cumprod(1 / links[1 : at + 1][::-1])[::-1]
    return FixedBaseIndex(pd.Series([*backward, 1.0, *forward], index=periods), base, index.formula)


def unchain(index: FixedBaseIndex, step: int | Literal["year"]) -> ChainableIndex:
    """Undo annual chaining: each level over the level of its link. ``unchain(chain(x), x.step)`` is x.

    Parameters
    ----------
    index : FixedBaseIndex
    step : month 1-12, or "year"
        The link: the last such month before a period, or the mean of the year before.

    Returns
    -------
    ChainableIndex
        Null until the first link has passed: nothing stands before it to compare with. A year that is the base
        and has no months, as ``chain`` leaves it, has the level of the base.
    """
    values = index.values
    refs = references(values.index, step)
    movements = unchained(_column(values), refs, values.index)
    of_base = [row for row, period in enumerate(values.index) if str(period)[:4] == index.base]
    if step == "year" and values.iloc[of_base].isna().all():
        # chained from a year's mean, whose months are not known
        rows = [ref == index.base for ref in refs]
        movements[rows] = _column(values)[rows] / index.level
    return ChainableIndex(pd.Series(movements[:, 0], index=values.index), step, index.formula)


def rebase(index: FixedBaseIndex, base: str, level: float = 100.0) -> FixedBaseIndex:
    """Set the mean of a period or of a calendar year to a level.

    Parameters
    ----------
    index : FixedBaseIndex
    base : str
        A period, or a year such as ``2020``.
    level : float

    Returns
    -------
    FixedBaseIndex
        All ratios between periods are as they were.

    Raises
    ------
    MethodError
        When the base has no value, or the year is not complete.
    """
    return FixedBaseIndex(index.values / _demanded(index.values, base) * level, base, index.formula, level)


def link(old: FixedBaseIndex, new: FixedBaseIndex, overlap: str) -> FixedBaseIndex:
    """Continue an index by another one, at the level of the first.

    Parameters
    ----------
    old, new : FixedBaseIndex
    overlap : str
        A period or year that both have.

    Returns
    -------
    FixedBaseIndex
        The old index through its last value, then the new one times the ratio of the two in the overlap.

    Raises
    ------
    MethodError
        When one of them has no value in the overlap, or a year of it is not complete.
    """
    factor = _demanded(old.values, overlap, "the old index: ") / _demanded(new.values, overlap, "the new index: ")
    periods = old.values.index.union(new.values.index)
    _months(periods)
    kept, continued = old.values.reindex(periods), new.values.reindex(periods) * factor
    after = periods > kept.last_valid_index()
    return FixedBaseIndex(kept.where(~after, continued), old.base, old.formula, old.level)


# ----------------------------------------------------------------------------------------- links


def references(periods: pd.Index, step: Step) -> list[str | None]:
    """What each month is linked to: a month, or a year; None before the first link.

    Parameters
    ----------
    periods : Index
        Months such as ``2024-03``, in order.
    step : month 1-12, or "year"

    Returns
    -------
    list of str or None, one for each period

    Raises
    ------
    MethodError
        For labels that are no months in order, and for a link month that is not among them.
    """
    labels = _months(periods)
    known, found = set(labels), []
    for label in labels:
        year, month = int(label[:4]), int(label[5:])
        if step == "year":
            found.append(f"{year - 1:04d}" if f"{year - 1:04d}" >= labels[0][:4] else None)
            continue
        if not isinstance(step, int) or not 1 <= step <= 12:
            raise MethodError(f"a link is a month 1 to 12 or the year, not {step!r}")
        ref = f"{year if month > step else year - 1:04d}-{step:02d}"
        if ref >= labels[0] and ref not in known:
            raise MethodError(f"{label} is linked to {ref}, which is not among the periods")
        found.append(ref if ref >= labels[0] else None)
    if not any(found):
        raise MethodError(f"{labels[0]} to {labels[-1]} holds no period after a link")
    return found


def _months(periods: pd.Index) -> list[str]:
    labels = [str(period) for period in periods]
    for label in labels:
        if not _MONTH.fullmatch(label):
            raise MethodError(f"period {label!r} is not a month such as 2024-03")
    if labels != sorted(set(labels)):
        raise MethodError("the months of a linked index are in order, each once")
    return labels


def level_at(values: Floats, labels: list[str], ref: str) -> Floats:
    """Row of a period, or the mean of a year's months, NaN unless there are all twelve; period × column in."""
    if ref in labels:
        return np.asarray(values[labels.index(ref)], dtype=np.float64)
    rows = [row for row, label in enumerate(labels) if label[:4] == ref]
    if len(rows) != 12:
        return np.full(values.shape[1], np.nan)
    return np.asarray(values[rows].mean(axis=0), dtype=np.float64)


def _demanded(values: pd.Series[float], ref: str, whose: str = "") -> float:
    labels = [str(period) for period in values.index]
    level = float(level_at(_column(values), labels, ref)[0])
    if np.isnan(level):
        need = "a value in each of its twelve months" if len(ref) == 4 else "a value"
        raise MethodError(f"{whose}{ref} needs {need}; there are values in {labels[0]} to {labels[-1]}")
    return level


def _column(values: pd.Series[float]) -> Floats:
    return np.asarray(values, dtype=np.float64)[:, None]


def unchained(table: Floats, refs: list[str | None], periods: pd.Index) -> Floats:
    """Levels, period × column, over those of their links; NaN before the first."""
    labels = [str(period) for period in periods]
    at = {ref: level_at(table, labels, ref) for ref in set(refs) if ref is not None}
    nothing = np.full(table.shape[1], np.nan)
    divisors = np.array([nothing if ref is None else at[ref] for ref in refs])
    return np.asarray(table / divisors, dtype=np.float64)


def chained(movements: Floats, refs: list[str | None], periods: pd.Index) -> tuple[Floats, str]:
    """Levels of movements, period × column, 1 at the first link, which is returned too."""
    labels = [str(period) for period in periods]
    levels = np.full(movements.shape, np.nan)
    first = next(ref for ref in refs if ref is not None)
    if first in labels:
        levels[labels.index(first)] = 1.0
    for ref in dict.fromkeys(ref for ref in refs if ref is not None):
        rows = [row for row, other in enumerate(refs) if other == ref]
        levels[rows] = movements[rows] * (1.0 if ref == first else level_at(levels, labels, ref))
    return levels, first
