"""From centre and spread to quantiles: Student's t, moved towards the model's own errors as they add up.

Before its errors speak, a model is taken to have Student-t errors with 5 degrees of freedom, the usual shape of price
changes. The errors of one filter pass with fixed parameters, each divided by the spread forecast for it, then replace
that shape by what was seen (split conformal prediction with symmetric scores: Vovk, Gammerman & Shafer 2005; Lei et al.
2018), with the weight n / (n + 250) for n errors that do not overlap. At 20 steps 1000 closes hold 47 of those, so
the weight falls with the horizon by itself. In-sample errors that overlap are not exchangeable: coverage is measured on
rolling origins, not promised.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

Array = npt.NDArray[np.float64]

DEGREES_OF_FREEDOM = 5.0  # of daily and monthly price changes: Praetz 1972; Bollerslev 1987 finds 5 to 8 before mixing
PRIOR_ERRORS = 250.0  # what the prior shape is worth, in errors that do not overlap: a year of closes

# Common quantile grid of every forecast; the nine that the contract names are among them.
GRID = (.005, .01, .025, .05, .1, .15, .2, .25, .3, .35, .4, .45, .5,
        .55, .6, .65, .7, .75, .8, .85, .9, .95, .975, .99, .995)  # fmt: skip


def student(probabilities: Array, freedom: float = DEGREES_OF_FREEDOM) -> Array:
    """Quantiles of Student's t scaled to variance one."""
    return np.asarray(special.stdtrit(freedom, probabilities) * np.sqrt((freedom - 2) / freedom), dtype=float)


def mean_absolute(freedom: float = DEGREES_OF_FREEDOM) -> float:
    """Mean absolute value of Student's t scaled to variance one (Johnson, Kotz & Balakrishnan 1995, ch. 28)."""
    half = special.gammaln((freedom + 1) / 2) - special.gammaln(freedom / 2)
    return float(2 * np.sqrt(freedom - 2) * np.exp(half) / ((freedom - 1) * np.sqrt(np.pi)))


def calibrated(prior: Array, scores: Array, probabilities: Array, prior_errors: float = PRIOR_ERRORS) -> Array:
    """Standardised quantiles by horizon, between a prior shape and the errors that were seen.

    Parameters
    ----------
    prior : array (p,)
        Quantiles of the prior shape, in units of the forecast spread, symmetric about zero.
    scores : array (origins, h)
        Errors of one filter pass divided by the spread forecast for them; NaN where none is known.
    probabilities : array (p,)
        Their probabilities, between 0 and 1.
    prior_errors : float
        What the prior is worth, in errors that do not overlap.

    Returns
    -------
    array (h, p). Each row is a mean of two quantile functions, so it rises with the probability.
    """
    ranked = np.sort(np.abs(scores), axis=0)  # NaN last
    counts = (~np.isnan(ranked)).sum(axis=0)
    central = np.abs(2 * probabilities - 1)
    side = np.sign(probabilities - 0.5)
    quantiles = np.tile(prior, (scores.shape[1], 1))
    for step, count in enumerate(counts):
        if count == 0:
            continue
        # conformal rank: the (n + 1) in place of n covers at least as often as promised
        at = np.clip(central * (count + 1) - 1, 0, count - 1)
        seen = np.interp(at, np.arange(count), ranked[:count, step])
        apart = count / (step + 1)
        weight = apart / (apart + prior_errors)
        quantiles[step] = weight * side * seen + (1 - weight) * prior
    return quantiles


def mean_of(quantiles: Array, probabilities: Sequence[float] | Array) -> Array:
    """Mean by horizon of the distribution whose quantile function joins these points, flat beyond the last ones.

    Flat tails keep the mean of a log-t price finite; quantiles (h, p) in any unit, probabilities rising.
    """
    p = np.asarray(probabilities, dtype=float)
    edges = np.concatenate(([0.0], (p[1:] + p[:-1]) / 2, [1.0]))
    return np.asarray(quantiles @ np.diff(edges), dtype=float)
