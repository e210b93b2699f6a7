"""Ratios that a wrong unit leaves behind, and quotations that look like one beside their own past.

Pure. A move over time never excludes a quotation. One that fits a slip of the unit, and that nobody confirms, is held
back until somebody has looked at it: no price of these minerals is known to have moved eightfold from one quotation to
the next.
"""

from __future__ import annotations

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


def slip(ratio: float, tolerance: float = TOLERANCE, least: float = 1.0) -> str:
    """Name the slip of units that a ratio looks like; empty text where it looks like none."""
    size = ratio if ratio >= 1 else 1 / ratio
    near = [(abs(size / factor - 1), what) for factor, what in SLIPS.items() if factor >= least]
    distance, what = min(near)
    return what if distance <= tolerance else ""


def beside_own_past(adjusted: Floats, settled: npt.NDArray[np.bool_] | None = None) -> dict[tuple[int, int], str]:
    """Find quotations that lie a slip of the unit away from what their origin quoted before, unconfirmed.

    Confirmed is what another origin of the period agrees with, within ``LOOSE``, and is no candidate itself beside a
    past of its own. Candidates do not become past, so a slip that stays is held as long as it stays.

    Parameters
    ----------
    adjusted : float array, period × origin [USD/t]
        NaN where an origin is absent.
    settled : bool array, period × origin, optional
        Quotations that somebody has accepted: not held, and past for those after.

    Returns
    -------
    mapping of (row, column) to the slip it looks like
    """
    found: dict[tuple[int, int], str] = {}
    for m in range(adjusted.shape[1]):
        rows = np.flatnonzero(~np.isnan(adjusted[:, m]))
        values = adjusted[rows, m]
        with np.errstate(divide="ignore", invalid="ignore"):
            jumps = np.abs(np.diff(np.log(values))) > np.log(LEAST)
        if not jumps.any():
            continue
        first = int(jumps.argmax()) + 1  # nothing before it moved so far
        last, count = values[first - 1], first
        for row, value in zip(rows[first:].tolist(), values[first:].tolist(), strict=True):
            what = slip(value / last, LOOSE, LEAST) if count >= ENOUGH else ""
            if what and not (settled is not None and settled[row, m]):
                found[row, m] = what
            else:
                count = 1 if abs(np.log(value / last)) > np.log(LEAST) else count + 1
                last = value
    return {at: what for at, what in found.items() if not _confirmed(adjusted, found, *at)}


def _confirmed(adjusted: Floats, found: dict[tuple[int, int], str], row: int, column: int) -> bool:
    others = [m for m in range(adjusted.shape[1]) if m != column and (row, m) not in found]
    with np.errstate(invalid="ignore"):
        return bool((np.abs(adjusted[row, others] / adjusted[row, column] - 1) <= LOOSE).any())
