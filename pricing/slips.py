"""Ratios that a wrong unit leaves behind, and quotations that look like one beside their own past.

Pure. A move over time never excludes a quotation. One that fits a slip of the unit, and that nobody confirms, is held
back until somebody has looked at it: no price of these minerals is known to have moved eightfold from one quotation to
the next.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

TOLERANCE = 0.04
# The factors are those of pricing.units.
SLIPS = {
    10.0: "a decimal place",
    100.0: "per cent or cents",
    1000.0: "kg and t",
    2204.6226: "lb and t",
    2.2046226: "lb and kg",
    31.1034768: "troy ounce and gram",
    32150.7466: "troy ounce and t",
    1.1023113: "short ton and t",
}
LEAST = 8.0  # factor below which a move of a market's own is a market's
ENOUGH = 3  # quotations on one level, without which nothing is said: the first may be the wrong one
LOOSE = 0.25  # the market may have moved as well, from one quotation to the next
_LARGE = np.array([factor for factor in SLIPS if factor > LEAST])


def named(ratio: npt.ArrayLike, tolerance: float = TOLERANCE, least: float = 1.0) -> list[str]:
    """Name the slip of units that each of some ratios looks like; empty text where it looks like none."""
    given = np.atleast_1d(np.asarray(ratio, dtype="float64"))
    factors = np.array([factor for factor in SLIPS if factor >= least])
    words = [what for factor, what in SLIPS.items() if factor >= least]
    distance = np.abs(np.maximum(given, 1 / given)[:, None] / factors - 1)
    best = distance.argmin(axis=1)
    near = distance[np.arange(len(best)), best] <= tolerance
    return [words[i] if known else "" for i, known in zip(best.tolist(), near.tolist(), strict=True)]


class Past(NamedTuple):
    """What each origin quoted last that was not held back, and how many quotations stood on that level before.

    Arrays of one shape, such as market × origin, or market × period × origin: the past after each period.
    """

    last: Floats
    standing: npt.NDArray[np.int64]


def beside_own_past(
    adjusted: Floats,
    before: Past | None = None,
    settled: npt.NDArray[np.bool_] | None = None,
    fresh: npt.NDArray[np.bool_] | None = None,
) -> tuple[Floats, Past]:
    """Find quotations that lie a slip of the unit away from what their origin quoted before, unconfirmed.

    Confirmed is what another origin of the period agrees with, within ``LOOSE``, unless that one is a candidate too.
    What is held does not become past, so a slip that stays is held for as long as it stays.

    Parameters
    ----------
    adjusted : float array, market × period × origin [USD/t]
        NaN where an origin is absent.
    before : Past, market × origin, optional
        The past at the first period.
    settled : bool array, market × period × origin, optional
        Quotations that somebody has accepted: not held, and past for those after.

    Returns
    -------
    ratio : float array, market × period × origin
        Quotation over the last one before, where it is held; NaN elsewhere. ``named(ratio, LOOSE, LEAST)`` names it.
    past : Past, market × period × origin
        After each period.
    """
    markets, periods, origins = adjusted.shape
    if before is None:
        before = Past(np.full((markets, origins), np.nan), np.zeros((markets, origins), dtype=np.int64))
    quoted = ~np.isnan(adjusted)
    counted = quoted if fresh is None else quoted & fresh
    place = np.maximum.accumulate(np.where(quoted, np.arange(periods)[:, None], -1), axis=1)
    last = np.take_along_axis(adjusted, np.maximum(place, 0), axis=1)
    last = np.where(place >= 0, last, before.last[:, None])
    count = before.standing[:, None] + np.cumsum(counted, axis=1)
    held = np.full(adjusted.shape, np.nan)
    previous = np.concatenate([before.last[:, None], last[:, :-1]], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        jumps = (np.abs(np.log(adjusted / previous)) > np.log(LEAST)).any(axis=(1, 2))
    for k in np.flatnonzero(jumps).tolist():
        accepted = None if settled is None else settled[k]
        held[k], (last[k], count[k]) = _walk(
            adjusted[k], Past(before.last[k], before.standing[k]), accepted, counted[k]
        )
    return held, Past(last, count)


def _walk(
    adjusted: Floats, past: Past, settled: npt.NDArray[np.bool_] | None, counted: npt.NDArray[np.bool_]
) -> tuple[Floats, Past]:
    """Go through one market, period × origin, in which something moved so far."""
    held, lasts = np.full(adjusted.shape, np.nan), np.empty(adjusted.shape)
    counts = np.empty(adjusted.shape, dtype=np.int64)
    last, count = past.last.copy(), past.standing.copy()
    for t, row in enumerate(adjusted):
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = row / last
            size = np.maximum(ratio, 1 / ratio)
            near = (size > LEAST) & (np.abs(size[:, None] / _LARGE - 1) <= LOOSE).any(axis=1)
            candidate = near & (count >= ENOUGH)
            if settled is not None:
                candidate &= ~settled[t]
            agree = np.abs(row[None] / row[:, None] - 1) <= LOOSE
        out = candidate & ~(agree & ~candidate[None]).any(axis=1)
        held[t, out] = ratio[out]
        taken = ~np.isnan(row) & ~out
        count = np.where(taken, np.where(size > LEAST, 1, count + counted[t]), count)
        last = np.where(taken, row, last)
        lasts[t], counts[t] = last, count
    return held, Past(lasts, counts)
