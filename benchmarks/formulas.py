"""What the multilateral index costs: GEKS-Törnqvist of a large panel with gaps."""

from __future__ import annotations

from statistics import median

import numpy as np
import pandas as pd

from benchmarks.measure import Line, Result, cpu_of
from pricing import multilateral
from pricing.panels import Panel

PRODUCTS, MONTHS, WINDOW, MISSING = 200, 60, 13, 0.05
ROUNDS = 7
AIM_SECONDS = 0.1
SEED = 20


def run() -> Result:
    """Window by window and spliced, from checked panel to index; beside it all months compared with all."""
    panel = made_panel()
    result = Result(f"GEKS-Törnqvist: {PRODUCTS} products × {MONTHS} months, {MISSING:.0%} missing")
    rolling = [cpu_of(lambda: spliced(panel)) for _ in range(ROUNDS + 1)][1:]
    whole = [cpu_of(lambda: multilateral.geks(panel, "tornqvist")) for _ in range(ROUNDS + 1)][1:]
    seconds = median(rolling)
    result.lines = [
        Line(f"windows of {WINDOW} months, mean splice", f"{seconds:.3f} s", _range(rolling), "",
             f"< {AIM_SECONDS} s", seconds < AIM_SECONDS),
        Line("one window of all months", f"{median(whole):.3f} s", _range(whole)),
    ]  # fmt: skip
    result.notes = [f"CPU, median of {ROUNDS}; the splice is the geometric mean over all months of a window."]
    return result


def made_panel() -> Panel:
    rng = np.random.default_rng(SEED)
    shape = (MONTHS, PRODUCTS)
    labels = pd.period_range("2020-01", periods=MONTHS, freq="M").strftime("%Y-%m")
    prices = np.exp(rng.normal(0, 1.5, PRODUCTS) + np.cumsum(rng.normal(0, 0.05, shape), axis=0))
    prices[rng.random(shape) < MISSING] = np.nan
    quantities = np.exp(rng.normal(0, 1, shape))
    names = [f"product-{i}" for i in range(PRODUCTS)]
    return Panel(pd.DataFrame(prices, labels, names), pd.DataFrame(quantities, labels, names))


def spliced(panel: Panel) -> None:
    index = multilateral.splice(multilateral.geks_windows(panel, "tornqvist", WINDOW), "mean")
    if index.values.isna().any():
        raise RuntimeError("the index has gaps: this is not the work that is meant")


def _range(seconds: list[float]) -> str:
    return f"{min(seconds):.3f}-{max(seconds):.3f}"
