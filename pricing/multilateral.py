"""Multilateral price indices: every period is compared with every other, so the result does not drift.

Windows (which periods are compared) are kept apart from splicing (how a newer window continues the published
index): Diewert and Fox 2017; Chessa 2019; CPI Manual 2020, ch. 10. What is spliced is no longer transitive.
Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from pricing.errors import MethodError
from pricing.formulas import compare
from pricing.panels import FixedBaseIndex, Floats, Panel, position

Superlative = Literal["fisher", "tornqvist", "walsh", "jevons"]
Splice = Literal["movement", "window", "half", "mean"]
History = Literal["recalculated", "published"]


@dataclass(frozen=True, eq=False)
class Windows:
    """GEKS indices over each window of some periods.

    Attributes
    ----------
    periods : Index
        All periods; window k starts at position k.
    logs : array, window × width
        Logarithms of the level, each window on a scale of its own: only differences within a row mean anything.
    formula : str
    """

    periods: pd.Index
    logs: Floats
    formula: str


def geks(panel: Panel, formula: Superlative, base: str | None = None) -> FixedBaseIndex:
    """GEKS over all periods of the panel (Gini 1931; Eltetö and Köves, Szulc 1964; CPI Manual 2020, ch. 10).

    Parameters
    ----------
    panel : Panel
    formula : {"fisher", "tornqvist", "walsh", "jevons"}
        A bilateral formula that passes the time reversal test; with Törnqvist it is also called CCDI.
    base : str, optional
        The period whose level is 1; by default the first.

    Returns
    -------
    FixedBaseIndex
        Geometric mean over all periods l of P(base, l) P(l, t): transitive, on incomplete panels too. A period
        that nothing can be compared in takes no part and is null; another is null when one of its comparisons
        has no matched product.

    Raises
    ------
    MethodError
        When the formula is none of these, or the base is outside the panel or null.
    """
    logs = geks_windows(panel, formula, len(panel.prices)).logs[0]
    return _on_base(logs, panel.prices.index, base, f"GEKS {formula}")


def geks_windows(panel: Panel, formula: Superlative, window: int) -> Windows:
    """GEKS over every window of so many consecutive periods.

    Parameters
    ----------
    panel : Panel
    formula : {"fisher", "tornqvist", "walsh", "jevons"}
    window : int
        Periods in a window, 2 to all. With seasonal products 13 months or 25.

    Returns
    -------
    Windows

    Notes
    -----
    Each pair of periods is compared once, for all windows that hold it; a formula that passes time reversal needs
    one direction only.
    """
    if formula not in get_args(Superlative):
        raise MethodError(f"GEKS is over {', '.join(get_args(Superlative))}, which reverse in time; not {formula!r}")
    size = len(panel.prices)
    if not 2 <= window <= size:
        raise MethodError(f"a window holds 2 to {size} periods, not {window}")
    pairs = np.full((size, size), np.nan)
    for first in range(size):
        rows = np.arange(first, min(first + window, size))
        pairs[first, rows] = np.log(compare(panel, formula, np.array([first]), rows))
        pairs[rows, first] = -pairs[first, rows]
    logs = [_geks_logs(pairs[k : k + window, k : k + window]) for k in range(size - window + 1)]
    return Windows(panel.prices.index, np.array(logs), formula)


def _geks_logs(pairs: Floats) -> Floats:
    """Mean over the periods l of ln P(l, t); the scale of the window is left open."""
    with_prices = ~np.isnan(np.diagonal(pairs))
    if not with_prices.any():
        return np.full(len(pairs), np.nan)
    return np.asarray(pairs[with_prices].mean(axis=0), dtype=np.float64)


def splice(windows: Windows, method: Splice, history: History = "recalculated") -> FixedBaseIndex:
    """Continue the index of the first window by one period from each later one.

    Parameters
    ----------
    windows : Windows
    method : {"movement", "window", "half", "mean"}
        Where a new window is joined: at the period before its last, at its first, in its middle (odd windows
        only), or at all of these by their geometric mean.
    history : {"recalculated", "published"}
        What it is joined to: the window before, or the index as published (then "window" is called WISP, "half"
        HASP; for "movement" the two coincide).

    Returns
    -------
    FixedBaseIndex
        1 in the first period; published values are never revised. A period that cannot be joined is null.

    Raises
    ------
    MethodError
        For an unknown method, a half splice of an even window, or a first period without a value.

    Notes
    -----
    P_t = P_{t-1} prod_l [(new_w / new_l) / (old_w / old_{l+1})]^{1/n}, old being the window before, or the
    published series. "mean" leaves out the points at which one of the two is null.
    """
    if method not in get_args(Splice) or history not in get_args(History):
        raise MethodError(f"no splice is called {method!r} on {history!r} history")
    count, width = windows.logs.shape
    if method == "half" and width % 2 == 0:
        raise MethodError(f"a half splice needs a window with a middle; {width} is even")
    joints = {"movement": [width - 2], "window": [0], "half": [(width - 1) // 2], "mean": list(range(width - 1))}[
        method
    ]
    logs = np.concatenate([windows.logs[0], np.full(count - 1, np.nan)])
    for k in range(1, count):
        new, old, last = windows.logs[k], windows.logs[k - 1], k + width - 1
        if history == "published":
            levels = logs[k:last] + new[-1] - new[:-1]
        else:
            levels = logs[last - 1] + (new[-1] - new[:-1]) - (old[-1] - old[1:])
        known = [level for level in levels[joints].tolist() if not np.isnan(level)]
        logs[last] = sum(known) / len(known) if known else np.nan
    kind = f"GEKS {windows.formula}, {method} splice of {width} periods on {history} history"
    return _on_base(logs, windows.periods, None, kind)


def _on_base(logs: Floats, periods: pd.Index, base: str | None, formula: str) -> FixedBaseIndex:
    base = str(periods[0]) if base is None else base
    at = logs[position(periods, base)]
    if np.isnan(at):
        raise MethodError(f"base period {base} cannot be compared with all other periods by {formula}")
    return FixedBaseIndex(pd.Series(np.exp(logs - at), index=periods), base, formula)
