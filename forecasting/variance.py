"""How wide the next error will be: constant, exponentially weighted, or GARCH(1,1) with Student-t errors.

Each volatility turns one-step errors into the spread (standard deviation) of the error to come, known at the period of
the last error, and says how it returns to its long-run level, for the error j steps ahead:
``variance(j) = level + persistence**(j-1) * (variance(1) - level)``. Missing errors leave the spread as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import optimize, signal, special

from forecasting.errors import ForecastError
from forecasting.intervals import DEGREES_OF_FREEDOM, Array, mean_absolute

DECAY = 0.95  # one value for days and months; .94 to .985 score alike
ANCHOR = 0.1  # weight of the long run, so that a calm stretch cannot shrink the spread without end
BURN_IN = 24  # errors that set the start; none of them is used for calibration


class Volatility(Protocol):
    """What a fitted model asks of its spread."""

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the errors once divided by their spread."""

    @property
    def persistence(self) -> float:
        """How much of a deviation of the variance from its level is left one period later."""

    @property
    def level(self) -> float:
        """The variance that forecasts return to; unused where persistence is 1."""

    def spreads(self, errors: Array) -> Array:
        """Standard deviation of the next error at each period, from the errors up to it."""

    def after(self, spread: float, error: float) -> float:
        """The spread one period later."""


@dataclass(frozen=True)
class Constant:
    """One spread for ever: the benchmark's view.

    Of n normal errors with mean zero and unknown variance the next one is Student-t with n degrees of freedom and their
    root mean square as its scale, so that a short history widens the bounds by itself.
    """

    spread: float
    freedom: float
    persistence: float = 1.0
    level: float = 0.0

    @classmethod
    def fit(cls, errors: Array) -> Constant:
        """From more than two one-step errors; NaN are passed over."""
        count = int((~np.isnan(errors)).sum())
        return cls(float(np.sqrt(np.nansum(errors**2) / (count - 2))), count)

    def spreads(self, errors: Array) -> Array:
        """The same at every period."""
        return np.full(len(errors), self.spread)

    def after(self, spread: float, error: float) -> float:
        """The same one period later."""
        return spread


@dataclass(frozen=True)
class Weighted:
    """Exponentially weighted mean of absolute errors, divided by that of a t with unit variance.

    Absolute errors (Taylor 1986; Davidian & Carroll 1987) tell the scale of heavy-tailed errors better than squares do,
    and one wild price moves them far less. A tenth of the weight stays on the mean of all errors of the fit.

    Attributes
    ----------
    start, long_run : float
        Mean absolute error of the first ``BURN_IN`` and of all errors of the fit.
    """

    start: float
    long_run: float
    freedom: float = DEGREES_OF_FREEDOM
    persistence: float = 1.0
    level: float = 0.0

    @classmethod
    def fit(cls, errors: Array) -> Weighted:
        """From one-step errors; NaN are passed over."""
        known = np.abs(errors[~np.isnan(errors)])
        return cls(float(known[:BURN_IN].mean()), float(known.mean()))

    def spreads(self, errors: Array) -> Array:
        """At each period, from the errors up to it."""
        known = ~np.isnan(errors)
        inputs = (1 - ANCHOR) * np.abs(errors[known]) + ANCHOR * self.long_run
        means = signal.lfilter([1 - DECAY], [1, -DECAY], inputs, zi=[DECAY * self.start])[0]
        latest = np.cumsum(known)  # how many errors are known by each period
        spreads: Array = np.concatenate(([self.start], means))[latest] / mean_absolute(self.freedom)
        return spreads

    def after(self, spread: float, error: float) -> float:
        """The spread one period later."""
        if np.isnan(error):
            return spread
        news = ((1 - ANCHOR) * abs(error) + ANCHOR * self.long_run) / mean_absolute(self.freedom)
        return DECAY * spread + (1 - DECAY) * news


@dataclass(frozen=True)
class Garch:
    """GARCH(1,1) with Student-t errors (Bollerslev 1987), zero mean, by maximum likelihood."""

    omega: float
    alpha: float
    beta: float
    freedom: float
    start: float

    @property
    def persistence(self) -> float:
        """Alpha plus beta."""
        return self.alpha + self.beta

    @property
    def level(self) -> float:
        """Unconditional variance."""
        return self.omega / (1 - self.persistence)

    @classmethod
    def fit(cls, errors: Array) -> Garch:
        """From one-step errors; NaN are passed over.

        Fitted on errors divided by their standard deviation, from one fixed start, within alpha + beta <= .999 and 2.1
        to 200 degrees of freedom.
        """
        known = errors[~np.isnan(errors)]
        unit = float(np.sqrt(np.mean(known**2)))
        if unit == 0:
            raise ForecastError("no error but zero: a GARCH spread cannot be fitted")
        scaled = known / unit
        start = backcast(scaled)

        def objective(free: Array) -> float:
            omega, alpha, beta, freedom = _constrained(free)
            return -log_likelihood(scaled, omega, alpha, beta, freedom, start) / len(scaled)

        # omega relative to the long-run variance, persistence, alpha's share of it, degrees of freedom
        first = np.array([np.log(1.0), special.logit(0.97), special.logit(0.07), np.log(4.0)])
        limits = [(-4.0, 4.0), (-4.0, special.logit(0.999)), (-9.0, 6.0), (np.log(0.1), np.log(198.0))]
        found = optimize.minimize(objective, first, method="L-BFGS-B", bounds=limits)
        omega, alpha, beta, freedom = _constrained(found.x)
        return cls(omega * unit**2, alpha, beta, freedom, start * unit**2)

    def spreads(self, errors: Array) -> Array:
        """At each period, from the errors up to it."""
        known = ~np.isnan(errors)
        variances = garch_variances(errors[known], self.omega, self.alpha, self.beta, self.start)
        return np.asarray(np.sqrt(variances[np.cumsum(known)]))

    def after(self, spread: float, error: float) -> float:
        """The spread one period later."""
        if np.isnan(error):
            return spread
        return float(np.sqrt(self.omega + self.alpha * error**2 + self.beta * spread**2))


def _constrained(free: Array) -> tuple[float, float, float, float]:
    persistence, share = special.expit(free[1]), special.expit(free[2])
    omega = np.exp(free[0]) * (1 - persistence)
    return float(omega), float(persistence * share), float(persistence * (1 - share)), float(2 + np.exp(free[3]))


def backcast(errors: Array) -> float:
    """Variance before the first error: squares of the first 75, weighted by powers of .94, as RiskMetrics does."""
    first = errors[:75]
    weights = 0.94 ** np.arange(len(first))
    return float(weights @ first**2 / weights.sum())


def garch_variances(errors: Array, omega: float, alpha: float, beta: float, start: float) -> Array:
    """Variances of the errors and of the one to come, (n + 1,); ``start`` stands for the square and variance before."""
    first = omega + (alpha + beta) * start
    rest = signal.lfilter([1.0], [1.0, -beta], omega + alpha * errors**2, zi=[beta * first])[0]
    return np.concatenate(([first], rest))


def log_likelihood(errors: Array, omega: float, alpha: float, beta: float, freedom: float, start: float) -> float:
    """Of errors that are Student-t with unit variance once divided by their GARCH spread (Bollerslev 1987, eq. 1)."""
    variances = garch_variances(errors, omega, alpha, beta, start)[:-1]
    constant = special.gammaln((freedom + 1) / 2) - special.gammaln(freedom / 2) - np.log(np.pi * (freedom - 2)) / 2
    tails = np.log1p(errors**2 / (variances * (freedom - 2)))
    return float(len(errors) * constant - (np.log(variances).sum() + (freedom + 1) * tails.sum()) / 2)
