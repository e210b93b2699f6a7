"""Bilateral price indices over a panel, and what each product contributed.

Every formula here but Fisher's is a weighted mean of price relatives r = p_t / p_0, arithmetic or geometric
(Balk 2008, ch. 3; PPI Manual 2004, ch. 15), so one table of weights is the whole of them:

=====================  ==========  ===========================================  ============================
formula                mean        weight of a product                          source
=====================  ==========  ===========================================  ============================
laspeyres              arithmetic  p_0 q_0                                      PPI Manual 2004, ch. 15
paasche                arithmetic  p_0 q_t                                      PPI Manual 2004, ch. 15
walsh                  arithmetic  p_0 sqrt(q_0 q_t)                            PPI Manual 2004, ch. 15
lowe                   arithmetic  p_0 q_b                                      CPI Manual 2020, ch. 8
young                  arithmetic  v_b                                          CPI Manual 2020, ch. 8
jevons                 geometric   1                                            PPI Manual 2004, ch. 20
geometric_laspeyres    geometric   s_0                                          Balk 2008, ch. 3
tornqvist              geometric   (s_0 + s_t) / 2                              PPI Manual 2004, ch. 15
fisher                 --          sqrt(Laspeyres x Paasche)                    PPI Manual 2004, ch. 15
=====================  ==========  ===========================================  ============================

s are value shares, b the period of the basket. **Samples are matched**: a comparison
rests on the products priced in both of its periods (and in the basket), and shares are taken anew over these.
A quantity of zero beside a price is an observation; a missing price is missing. What cannot be computed is
null, never 0 or 1.

Pure: frames in, frames out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from pricing.errors import MethodError
from pricing.panels import ChainableIndex, FixedBaseIndex, Floats, Panel, quotient

Formula = Literal[
    "laspeyres",
    "paasche",
    "fisher",
    "tornqvist",
    "walsh",
    "jevons",
    "lowe",
    "young",
    "geometric_laspeyres",
]
Decomposition = Literal["van_ijzeren", "nested_logmean"]
GEOMETRIC = frozenset({"jevons", "geometric_laspeyres", "tornqvist"})
BASKET = frozenset({"lowe", "young"})
# formulas that read the quantities of the earlier, or of the later period
_EARLIER = frozenset({"laspeyres", "fisher", "walsh", "geometric_laspeyres", "tornqvist"})
_LATER = frozenset({"paasche", "fisher", "walsh", "tornqvist"})


def fixed_base(
    panel: Panel, formula: Formula, base: str, basket: Mapping[str, float] | pd.Series[float] | None = None
) -> FixedBaseIndex:
    """Compare each period with one base period, over the products priced in both.

    Parameters
    ----------
    panel : Panel
    formula : Formula
    base : str
        A period of the panel; the periods before it are compared with it as well.
    basket : mapping of product to weight, optional
        For Lowe the quantities, for Young the values of the weight period; products without one stay out.

    Returns
    -------
    FixedBaseIndex
        1 in the base period; null where no product is matched or none of the matched has weight.

    Raises
    ------
    MethodError
        When the base is outside the panel or has nothing to compare, or a quantity that is needed is missing.
    """
    at = panel.row(base)
    values = compare(panel, formula, np.array([at]), np.arange(len(panel.prices)), basket)
    if np.isnan(values[at]):
        raise MethodError(f"base period {base}: no product has both a price and a weight for {formula}")
    return FixedBaseIndex(pd.Series(values, index=panel.prices.index), base, formula)


def period_on_period(
    panel: Panel, formula: Formula, basket: Mapping[str, float] | pd.Series[float] | None = None
) -> ChainableIndex:
    """Compare each period with the one before it; ``chaining.chain`` makes levels of the movements.

    Parameters
    ----------
    panel : Panel
    formula : Formula
    basket : mapping of product to weight, optional
        As for ``fixed_base``.

    Returns
    -------
    ChainableIndex
        NaN in the first period, and where no product is priced in both periods.

    Notes
    -----
    Chained monthly, weighted formulas drift when prices bounce (PPI Manual 2004, ch. 15): compare GEKS.
    """
    rows = np.arange(len(panel.prices))
    values = np.concatenate([[np.nan], compare(panel, formula, rows[:-1], rows[1:], basket)])
    return ChainableIndex(pd.Series(values, index=panel.prices.index), "period", formula)


def contributions(
    panel: Panel,
    formula: Formula,
    base: str,
    period: str,
    basket: Mapping[str, float] | pd.Series[float] | None = None,
    decomposition: Decomposition = "van_ijzeren",
) -> pd.Series[float]:
    """Split the change of an index between two periods over the products, exactly.

    Parameters
    ----------
    panel : Panel
    formula : Formula
    base, period : str
        The earlier and the later period.
    basket : mapping of product to weight, optional
        As for ``fixed_base``.
    decomposition : {"van_ijzeren", "nested_logmean"}
        For Fisher only: the weights (s_0 F + h L) / (F + L) of Van IJzeren (Balk 2008, section 4.2.2), h being the
        hybrid shares p_0 q_t, or the mean of the two geometric weights that Laspeyres and Paasche have.

    Returns
    -------
    Series, by product
        Sums to the index less 1; NaN for products that are not in the match.

    Raises
    ------
    MethodError
        When no product is matched, or none of the matched has weight.

    Notes
    -----
    A geometric mean with weights v is also the arithmetic one with weights v / L(r, P), L the logarithmic mean
    (Balk 2008, ch. 4).
    """
    pair = _pair(panel, formula, np.array([panel.row(base)]), np.array([panel.row(period)]), basket)
    index = _index(pair, formula)
    if np.isnan(index).any():
        raise MethodError(f"{formula} {base} to {period}: no product with a weight is priced in both periods")
    if formula == "fisher":
        weights = _fisher_weights(pair, index, decomposition)
    elif formula in GEOMETRIC:
        weights = _arithmetic(_share(WEIGHTS[formula](pair)), pair, index)
    else:
        weights = _share(WEIGHTS[formula](pair))
    parts = np.where(pair.matched, weights * (pair.relative - 1), np.nan)[0]
    return pd.Series(parts, index=panel.prices.columns)


# ------------------------------------------------------------------------------- one comparison


@dataclass(frozen=True, eq=False)
class _Pair:
    """Comparisons × products; prices and quantities are 0, and relatives 1, outside the match."""

    matched: npt.NDArray[np.bool_]
    relative: Floats
    p_0: Floats
    p_t: Floats
    q_0: Floats
    q_t: Floats
    basket: Floats


def _walsh(pair: _Pair) -> Floats:
    return pair.p_0 * np.sqrt(pair.q_0) * np.sqrt(pair.q_t)


def _tornqvist(pair: _Pair) -> Floats:
    return _share(pair.p_0 * pair.q_0) + _share(pair.p_t * pair.q_t)


WEIGHTS: Mapping[str, Callable[[_Pair], Floats]] = {
    "laspeyres": lambda pair: pair.p_0 * pair.q_0,
    "paasche": lambda pair: pair.p_0 * pair.q_t,
    "walsh": _walsh,
    "lowe": lambda pair: pair.p_0 * pair.basket,
    "young": lambda pair: pair.basket,
    "jevons": lambda pair: pair.matched.astype(np.float64),
    "geometric_laspeyres": lambda pair: pair.p_0 * pair.q_0,
    "tornqvist": _tornqvist,
}


def logarithmic_mean(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Logarithmic mean (a - b) / (ln a - ln b): a where both are equal, 0 where one is 0.

    Parameters
    ----------
    a, b : array
        Zero or above; broadcast against each other.

    Returns
    -------
    array
        Between the geometric and the arithmetic mean of each pair.
    """
    one, two = np.broadcast_arrays(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
    both = (one > 0) & (two > 0)
    one, two = np.where(both, one, 1.0), np.where(both, two, 1.0)
    apart = (one - two) / two
    # the difference of logarithms loses its digits where a is near b, and log1p where a is far below b
    near = np.abs(apart) < 0.5
    logs = np.where(near, np.log1p(np.where(near, apart, 0.0)), np.log(one) - np.log(two))
    mean = np.divide(one - two, logs, out=one.copy(), where=logs != 0)
    return np.where(both, mean, 0.0)


def compare(
    panel: Panel,
    formula: Formula,
    earlier: npt.NDArray[np.int_],
    later: npt.NDArray[np.int_],
    basket: Mapping[str, float] | pd.Series[float] | None = None,
) -> Floats:
    """Index of each pair of rows, NaN where not computable; one earlier row serves all later ones."""
    return _index(_pair(panel, formula, earlier, later, basket), formula)


def _pair(
    panel: Panel,
    formula: Formula,
    earlier: npt.NDArray[np.int_],
    later: npt.NDArray[np.int_],
    basket: Mapping[str, float] | pd.Series[float] | None,
) -> _Pair:
    """Match each pair of rows, and see that the quantities that the formula needs are there."""
    if formula not in get_args(Formula):
        raise MethodError(f"no formula is called {formula!r}; there are {', '.join(get_args(Formula))}")
    prices = panel.prices.to_numpy()
    quantities = None if panel.quantities is None else panel.quantities.to_numpy()
    weights = _basket(panel, formula, basket)
    p_0, p_t = prices[earlier], prices[later]
    matched = ~np.isnan(p_0) & ~np.isnan(p_t) & ~np.isnan(weights)
    return _Pair(
        matched,
        np.divide(p_t, p_0, out=np.ones(matched.shape), where=matched),
        np.where(matched, p_0, 0.0),
        np.where(matched, p_t, 0.0),
        _needed(panel, quantities, earlier, matched, formula if formula in _EARLIER else None),
        _needed(panel, quantities, later, matched, formula if formula in _LATER else None),
        np.where(matched, weights, 0.0),
    )


def _basket(panel: Panel, formula: Formula, basket: Mapping[str, float] | pd.Series[float] | None) -> Floats:
    """Weights of Lowe and Young by product; zeros for the formulas that have none."""
    if formula not in BASKET:
        if basket is not None:
            raise MethodError(f"{formula} takes its weights from the periods compared, not from a basket")
        return np.zeros(panel.prices.shape[1])
    if basket is None:
        raise MethodError(f"{formula} needs the quantities or values of its weight period")
    weights = pd.Series(basket, dtype="float64")
    for product in weights.index.difference(panel.prices.columns):
        raise MethodError(f"weight of {product}: the panel has no such product")
    weights = weights.reindex(panel.prices.columns)
    for product in weights.index[(weights < 0) | np.isinf(weights)]:
        raise MethodError(f"weight of {product}: {weights[product]:g} is below zero or not finite")
    return np.asarray(weights, dtype=np.float64)


def _needed(
    panel: Panel,
    quantities: Floats | None,
    rows: npt.NDArray[np.int_],
    matched: npt.NDArray[np.bool_],
    formula: str | None,
) -> Floats:
    """Quantities of some rows, 0 outside the match; zeros when no formula reads them."""
    if formula is None:
        return np.zeros(matched.shape)
    if quantities is None:
        raise MethodError(f"{formula} needs quantities, and the panel has none")
    taken = np.broadcast_to(quantities[rows], matched.shape)
    lacking = np.argwhere(matched & np.isnan(taken))
    if len(lacking):
        at, product = lacking[0]
        period = panel.prices.index[rows[at if len(rows) > 1 else 0]]
        name = panel.prices.columns[product]
        raise MethodError(f"{name} in {period} has a price but no quantity; give 0 if none was traded")
    return np.where(matched, taken, 0.0)


def _share(values: Floats) -> Floats:
    """Shares over the last axis; NaN where there is nothing to share."""
    return quotient(values, values.sum(axis=-1, keepdims=True))


def _index(pair: _Pair, formula: str) -> Floats:
    if formula == "fisher":
        laspeyres, paasche = _laspeyres_paasche(pair)
        return np.asarray(np.sqrt(laspeyres) * np.sqrt(paasche), dtype=np.float64)
    weights = WEIGHTS[formula](pair)
    with_logs = formula in GEOMETRIC
    # numerator and denominator are the same sum where nothing changed: exactly 1
    sums = (weights * (np.log(pair.relative) if with_logs else pair.relative)).sum(axis=-1)
    mean = quotient(sums, weights.sum(axis=-1))
    return np.asarray(np.exp(mean) if with_logs else mean, dtype=np.float64)


def _laspeyres_paasche(pair: _Pair) -> tuple[Floats, Floats]:
    return _index(pair, "laspeyres"), _index(pair, "paasche")


def _arithmetic(weights: Floats, pair: _Pair, index: Floats) -> Floats:
    """Turn the weights of a geometric mean into those of the arithmetic mean of the same value."""
    return _share(weights / logarithmic_mean(pair.relative, index[..., None]))


def _fisher_weights(pair: _Pair, index: Floats, decomposition: str) -> Floats:
    """Arithmetic weights of the Fisher index."""
    laspeyres, paasche, outer = (values[..., None] for values in (*_laspeyres_paasche(pair), index))
    base, hybrid = _share(WEIGHTS["laspeyres"](pair)), _share(WEIGHTS["paasche"](pair))
    if decomposition == "van_ijzeren":
        return np.asarray((base * outer + hybrid * laspeyres) / (outer + laspeyres), dtype=np.float64)
    if decomposition != "nested_logmean":
        raise MethodError(f"no decomposition of Fisher is called {decomposition!r}")
    geometric = [
        _share(weights * logarithmic_mean(pair.relative, inner))
        for weights, inner in ((base, laspeyres), (hybrid, paasche))
    ]
    return _arithmetic((geometric[0] + geometric[1]) / 2, pair, index)
