"""The models: what centre each gives, and how each is fitted.

Every centre is a linear model in innovations form (Hyndman, Koehler, Ord & Snyder 2008, ch. 3), on logs of prices where
logs are safe: ``x[t] = Z T s[t-1] + e[t]``, ``s[t] = T s[t-1] + K e[t]``. Forecasts from every period, the growth of
their spread and the update by one observation then follow from (T, Z, K) by one code for all models. A candidate joins
such a centre to a volatility (variance.py) and a shape (intervals.py).

    fitted = CANDIDATES["random-walk-weighted"].fit(y)
    fitted.predict(20, probabilities)      array (20, len(probabilities))
    fitted.extend(y_next)                  no refit

Horizon 1 is the first period after the last one given.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import optimize, signal

from forecasting.errors import ForecastError
from forecasting.intervals import PRIOR_ERRORS, Array, calibrated, student
from forecasting.variance import BURN_IN, Constant, Garch, Volatility, Weighted

Kind = Literal["close", "average", "general"]

# The mean over each period of a random walk is an IMA(1,1) with this theta (Working 1960).
AVERAGING = 2 - 3**0.5
MEMORY = 2000  # older observations are not used: eight years of closes
NEAR_ZERO = 0.01  # of the median; below it a log price is mostly noise


# ---------------------------------------------------------------------------------------------- scale and season


@dataclass(frozen=True)
class Scale:
    """How observations become what a model sees, and back: logs or levels, without the season.

    Attributes
    ----------
    logs : bool
        Whether models see logs.
    unit : float
        Observations are divided by it first, so that forecasts scale with what is forecast.
    season : array (m,)
        By position in the cycle; added to what models see, or its factor where ``ratio``. Period 0 is the first.
    ratio : bool
        Whether the season is a factor: levels only.
    """

    logs: bool
    unit: float
    season: Array
    ratio: bool = False

    def seen(self, y: Array, first: int = 0) -> Array:
        """What the model sees of observations that begin at the period numbered ``first``."""
        x = np.log(y / self.unit) if self.logs else y / self.unit
        season = self.season[(first + np.arange(len(y))) % len(self.season)]
        return np.asarray(x / season if self.ratio else x - season)

    def prices(self, x: Array, first: int) -> Array:
        """Back to the unit of the observations: x (h, p) for the periods from ``first`` on."""
        season = self.season[(first + np.arange(len(x))) % len(self.season)][:, None]
        x = x * season if self.ratio else x + season
        with np.errstate(over="ignore"):
            y = np.asarray((np.exp(x) if self.logs else x) * self.unit)
        if not np.isfinite(y).all():
            raise ForecastError("the past moves are so large that the bounds exceed every number; are units mixed?")
        return y


def logs_are_safe(y: Array) -> bool:
    """Whether every observation is positive and none comes near zero, where logs explode."""
    known = y[~np.isnan(y)]
    return bool(known.min() > NEAR_ZERO * np.median(known))


def scale_for(y: Array, season: int, levels: bool) -> Scale:
    """Logs where they are safe and not declined; a season where ``is_seasonal`` finds one.

    The season is additive on what the model sees, except on positive levels, where it is a factor (Naive2 of the M
    competitions: Makridakis & Hibon 2000).
    """
    known = y[~np.isnan(y)]
    logs = logs_are_safe(y) and not levels
    unit = float(known[-1] if logs else np.abs(known).max() or 1.0)
    plain = Scale(logs, unit, np.zeros(1))
    if season < 2:
        return plain
    x = plain.seen(y)
    at = np.arange(len(x))
    x = np.interp(at, at[~np.isnan(x)], x[~np.isnan(x)])
    if not is_seasonal(x, season):
        return plain
    ratio = not logs and bool((known > 0).all())
    return replace(plain, season=seasonal_means(x, season, ratio), ratio=ratio)


def is_seasonal(x: Array, season: int) -> bool:
    """Whether the autocorrelation at one cycle passes Bartlett's 90 % bound, as in the M4 competition's Naive2."""
    if len(x) < 3 * season or np.ptp(x) == 0:
        return False
    d = x - x.mean()
    r = np.array([d[lag:] @ d[:-lag] for lag in range(1, season + 1)]) / (d @ d)
    return bool(r[-1] > 1.645 * np.sqrt((1 + 2 * (r[:-1] ** 2).sum()) / len(x)))


def seasonal_means(x: Array, season: int, ratio: bool) -> Array:
    """Classical decomposition: means by position of what a centred moving average of one cycle leaves."""
    kernel = np.ones(season + 1 - season % 2)
    if season % 2 == 0:
        kernel[[0, -1]] = 0.5
    half = len(kernel) // 2
    trend = np.convolve(x, kernel / season, "valid")
    rest = x[half : len(x) - half]
    rest = rest / trend if ratio else rest - trend
    position = (half + np.arange(len(rest))) % season
    means = np.array([rest[position == p].mean() for p in range(season)])
    return np.asarray(means / means.mean() if ratio else means - means.mean())


# -------------------------------------------------------------------------------------------------------- centres


@dataclass(frozen=True)
class Linear:
    """A linear model in innovations form.

    Attributes
    ----------
    transition : array (m, m)
        T above.
    loading : array (m,)
        Z: what of the state after a step is observed.
    gain : array (m,)
        K: what an error moves.
    start : array (m,)
        The state before the first observation.
    parameters : int
        How many were estimated; errors of a fit look that much smaller than they are.
    """

    transition: Array
    loading: Array
    gain: Array
    start: Array
    parameters: int = 0

    def loadings(self, horizon: int) -> Array:
        """Z T^k for k = 1 … horizon, (horizon, m)."""
        rows = [self.loading @ self.transition]
        for _ in range(1, horizon):
            rows.append(rows[-1] @ self.transition)
        return np.array(rows)

    def responses(self, horizon: int) -> Array:
        """What an error of one has moved 0 … horizon - 1 periods later: 1, Z T K, Z T² K and so on."""
        return np.concatenate(([1.0], self.loadings(horizon)[:-1] @ self.gain))

    def filter(self, x: Array) -> tuple[Array, Array]:
        """One pass with fixed parameters: states (n, m) after each observation and one-step errors (n,).

        Where an observation is missing the state only moves on and the error is NaN; the error that follows a gap is
        divided by how much wider the gap made it.
        """
        if len(self.gain) == 1 and not np.isnan(x).any():
            gain, first = self.gain[0], self.start[0]
            states = signal.lfilter([gain], [1.0, gain - 1.0], x, zi=[(1 - gain) * first])[0]
            return states[:, None], x - np.concatenate(([first], states[:-1]))
        missing = np.isnan(x)
        widths = np.sqrt(np.cumsum(self.responses(max(len(x), 1)) ** 2)) if missing.any() else np.ones(1)
        one_step = self.loading @ self.transition
        states, errors = np.empty((len(x), len(self.gain))), np.full(len(x), np.nan)
        state, gap = self.start, 0
        for t, value in enumerate(x):
            expected = one_step @ state
            state = self.transition @ state
            if missing[t]:
                gap += 1
            else:
                error = value - expected
                state = state + self.gain * error
                errors[t], gap = error / widths[gap], 0
            states[t] = state
        return states, errors


def level(gain: float, start: float, parameters: int = 0) -> Linear:
    """A local level: flat forecasts from an exponentially weighted mean; a random walk where gain is 1."""
    one = np.ones(1)
    return Linear(np.ones((1, 1)), one, gain * one, start * one, parameters)


def random_walk(x: Array) -> Linear:
    """The last observation."""
    return level(1.0, x[0])


def averaged_walk(x: Array) -> Linear:
    """IMA(1,1) of a random walk averaged over each period: Working (1960). Nothing is estimated."""
    return level(1 + AVERAGING, x[0])


def shrunk_walk(x: Array) -> Linear:
    """IMA(1,1): theta by least squares, drawn towards ``AVERAGING`` as if by a prior of standard deviation .1."""
    changes = np.diff(x[~np.isnan(x)])
    count = len(changes)

    def penalised(theta: float) -> float:
        errors = signal.lfilter([1.0], [1.0, theta], changes)
        return float(count * np.log(np.mean(errors**2)) + ((theta - AVERAGING) / 0.1) ** 2)

    theta = optimize.minimize_scalar(penalised, bounds=(-0.5, 0.9), method="bounded").x
    return level(1 + theta, x[0], 1)


def theta_model(x: Array) -> Linear:
    """Theta (Assimakopoulos & Nikolopoulos 2000): smoothing with half the slope of the least-squares line as drift.

    In the form of Hyndman & Billah (2003); alpha as for simple exponential smoothing.
    """
    at = np.arange(len(x))
    known = ~np.isnan(x)
    slope = float(np.polyfit(at[known], x[known], 1)[0])

    def squares(alpha: float) -> float:
        return float(np.nansum(level(alpha, x[0]).filter(x)[1] ** 2))

    alpha = optimize.minimize_scalar(squares, bounds=(0.01, 0.99), method="bounded").x
    drift = np.array([[1.0, 1.0], [0.0, 1.0]])
    return Linear(drift, np.array([1.0, 0.0]), np.array([alpha, 0.0]), np.array([x[0] - slope / 2, slope / 2]), 3)


def smoothing(x: Array) -> Linear:
    """Automatic exponential smoothing: level, or level with damped trend, by AICc (statsmodels)."""
    import pandas as pd
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    series = pd.Series(bridged(x))
    options: list[dict[str, Any]] = [{}, {"trend": "add", "damped_trend": True}]
    fits = [
        ETSModel(series, error="add", initialization_method="heuristic", **o).fit(disp=False, maxiter=200)
        for o in options
    ]
    best = min(fits, key=lambda fit: float(fit.aicc))
    found = dict(zip(best.model.param_names, np.asarray(best.params), strict=True))
    alpha, first = found["smoothing_level"], float(best.initial_level)
    if best is fits[0]:
        return level(alpha, first, 2)
    phi = found["damping_trend"]
    return Linear(
        np.array([[1.0, phi], [0.0, phi]]),
        np.array([1.0, 0.0]),
        np.array([alpha, found["smoothing_trend"]]),
        np.array([first, float(best.initial_trend)]),
        5,
    )


ORDERS = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0))


def arima(x: Array) -> Linear:
    """ARIMA(p,1,q) with p + q at most 2, by AICc (statsmodels), no constant: commodity prices have no known drift."""
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    best = None
    for p, q in ORDERS:
        model = SARIMAX(x, order=(p, 1, q), trend="n", simple_differencing=True, concentrate_scale=True)
        fit = model.fit(disp=False, maxiter=50, cov_type="none") if p + q else model.filter(np.empty(0))
        if best is None or fit.aicc < best.aicc:
            best = fit
    assert best is not None
    space = best.model.ssm
    # with no measurement error the steady gain of an invertible ARMA is the selection vector
    moves, picks, gain = space["transition"], space["design"][0], space["selection"][:, 0]
    size = len(gain)
    transition = np.zeros((size + 1, size + 1))
    transition[0, 0], transition[0, 1:], transition[1:, 1:] = 1.0, picks @ moves, moves
    loading = np.zeros(size + 1)
    loading[0] = 1.0
    start = np.concatenate(([x[0]], np.zeros(size)))
    return Linear(transition, loading, np.concatenate(([1.0], gain)), start, len(best.params))


def local_level(x: Array) -> Linear:
    """A random walk seen with noise, by maximum likelihood (statsmodels' UnobservedComponents), in its steady state."""
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    unit = np.nanstd(np.diff(x)) or 1.0
    fit = UnobservedComponents(x / unit, "llevel").fit(disp=False, cov_type="none")
    noise, walk = np.asarray(fit.params)
    ratio = walk / max(noise, 1e-12)
    predicted = (ratio + np.sqrt(ratio**2 + 4 * ratio)) / 2
    return level(float(predicted / (predicted + 1)), x[0], 2)


def autoregression(x: Array) -> Linear:
    """AR(p) with constant on levels or logs, p at most 4 by AIC (statsmodels' AutoReg); for what returns to a mean."""
    from statsmodels.tsa.ar_model import AutoReg

    series = bridged(x)
    fits = [AutoReg(series, p, trend="c", hold_back=4).fit() for p in range(1, 5)]
    best = min(fits, key=lambda fit: float(fit.aic))
    constant, *weights = np.asarray(best.params)
    size = len(weights) + 1
    # state: the last p observations, newest first, and a one that carries the constant
    transition = np.zeros((size, size))
    transition[0] = [*weights, constant]
    transition[1:-1, :-2] = np.eye(size - 2)
    transition[-1, -1] = 1.0
    first = np.zeros(size)
    first[0] = 1.0
    return Linear(transition, first, first, np.concatenate((np.full(size - 1, series[0]), [1.0])), size)


def bridged(x: Array) -> Array:
    """Missing values joined by straight lines, for estimating parameters only."""
    at, known = np.arange(len(x)), ~np.isnan(x)
    return x if known.all() else np.interp(at, at[known], x[known])


# ----------------------------------------------------------------------------------------------------- candidates


@dataclass(frozen=True)
class Fitted:
    """A fitted model and all that its next forecast needs; nothing in it is ever changed in place.

    Attributes
    ----------
    scale, centre, volatility
        What was fitted.
    x : array (n,)
        What the model saw; NaN where missing.
    states : array (n, m)
        Of the centre, after each observation.
    spreads : array (n,)
        Standard deviation of the next error, known at each period.
    prior_errors : float
        What the assumed shape is worth, in errors; infinite where the model's own errors never move it.
    """

    scale: Scale
    centre: Linear
    volatility: Volatility
    x: Array
    states: Array
    spreads: Array
    prior_errors: float

    def spread(self, horizon: int) -> Array:
        """Standard deviation of the error at 1 … horizon, forecast at each period: (n, horizon)."""
        squares = self.centre.responses(horizon) ** 2
        flat = np.cumsum(squares)
        decayed = np.convolve(squares, self.volatility.persistence ** np.arange(horizon))[:horizon]
        variance = self.spreads[:, None] ** 2 * decayed
        if self.volatility.persistence != 1:
            variance = variance + self.volatility.level * (flat - decayed)
        lost = self.centre.parameters
        known = int((~np.isnan(self.x)).sum())
        return np.sqrt(variance * known / max(known - lost, 1))

    def scores(self, horizon: int, spread: Array) -> Array:
        """Errors of forecasts 1 … horizon from every period of the one pass over their spread; NaN if unknown."""
        paths = self.states @ self.centre.loadings(horizon).T
        n = len(self.x)
        scores = np.full((n, horizon), np.nan)
        for step in range(1, min(horizon, n - 1) + 1):
            scores[: n - step, step - 1] = (self.x[step:] - paths[:-step, step - 1]) / spread[:-step, step - 1]
        return scores[BURN_IN:]

    def predict(self, horizon: int, probabilities: Sequence[float] | Array) -> Array:
        """Quantiles (horizon, p), in the unit of the observations."""
        p = np.asarray(probabilities, dtype=float)
        shape = student(p, self.volatility.freedom)
        centre = self.centre.loadings(horizon) @ self.states[-1]
        spread = self.spread(horizon)
        quantiles = np.tile(shape, (horizon, 1))
        if np.isfinite(self.prior_errors) and self.spreads.min() > 0:
            quantiles = calibrated(shape, self.scores(horizon, spread), p, self.prior_errors)
        return self.scale.prices(centre[:, None] + spread[-1][:, None] * quantiles, len(self.x))

    def extend(self, new: float) -> Fitted:
        """With one more observation (NaN where missing) and the parameters as they are.

        Raises ForecastError where the model works on logs and the observation is not positive.
        """
        if np.isinf(new) or (self.scale.logs and new <= 0):
            raise ForecastError(f"{new} cannot extend a model of logs; fit it again")
        value = float(self.scale.seen(np.array([new]), len(self.x))[0])
        # the state holds at the last period; only the error of the new one is needed
        state = self.centre.transition @ self.states[-1]
        error = value - float(self.centre.loading @ state)
        if not np.isnan(value):
            state = state + self.centre.gain * error
        gap = len(self.x) - 1 - int(np.flatnonzero(~np.isnan(self.x))[-1])
        if gap:
            error /= float(np.sqrt((self.centre.responses(gap + 1) ** 2).sum()))
        return replace(
            self,
            x=np.append(self.x, value),
            states=np.vstack((self.states, state)),
            spreads=np.append(self.spreads, self.volatility.after(self.spreads[-1], error)),
        )


@dataclass(frozen=True)
class Candidate:
    """A model that can be fitted: its centre, its volatility, and on what scale.

    Attributes
    ----------
    words : str
        What it is, to a reader of forecasts.
    centre : callable
        From what the model sees to a ``Linear``.
    volatility : callable
        From one-step errors to a ``Volatility``.
    prior_errors : float
        What the assumed shape is worth against the model's own errors.
    levels, seasonal : bool
        Whether it declines logs; whether it takes the season out.
    """

    words: str
    centre: Callable[[Array], Linear]
    volatility: Callable[[Array], Volatility] = Weighted.fit
    prior_errors: float = PRIOR_ERRORS
    levels: bool = False
    seasonal: bool = False

    def fit(self, y: Array, season: int = 1) -> Fitted:
        """To observations, oldest first, NaN where missing, of ``season`` periods per cycle.

        The last must not be missing and five must be there; ``forecaster.forecast`` sees to it. Raises ForecastError
        where the model cannot be fitted to them.
        """
        y = np.asarray(y, dtype=float)[-MEMORY:]
        y = y[np.flatnonzero(~np.isnan(y))[0] :]
        scale = scale_for(y, season if self.seasonal else 1, self.levels)
        x = scale.seen(y)
        centre = self._centre(x)
        if len(scale.season) > 1:
            centre = replace(centre, parameters=centre.parameters + len(scale.season) - 1)
        states, errors = centre.filter(x)
        errors[0] = np.nan  # of a start that was chosen, not forecast
        volatility = self.volatility(errors)
        return Fitted(scale, centre, volatility, x, states, volatility.spreads(errors), self.prior_errors)

    def _centre(self, x: Array) -> Linear:
        try:
            with (
                warnings.catch_warnings()
            ):  # of the optimisers: a fit that ran out of steps is still judged by its errors
                warnings.simplefilter("ignore")
                return self.centre(x)
        except (ValueError, np.linalg.LinAlgError) as error:
            raise ForecastError(f"{self.words}: cannot be fitted to {len(x)} observations: {error}") from error


@dataclass(frozen=True)
class Average:
    """Several fitted models whose quantiles are averaged with equal weights (Vincent 1912)."""

    parts: tuple[Fitted | Average, ...]

    def predict(self, horizon: int, probabilities: Sequence[float] | Array) -> Array:
        """Quantiles (horizon, p), in the unit of the observations."""
        return np.asarray(np.mean([part.predict(horizon, probabilities) for part in self.parts], axis=0))

    def extend(self, new: float) -> Average:
        """With one more observation."""
        return Average(tuple(part.extend(new) for part in self.parts))


@dataclass(frozen=True)
class AverageOf:
    """The equal-weight quantile average of named candidates."""

    words: str
    names: tuple[str, ...]

    def fit(self, y: Array, season: int = 1) -> Average:
        """Each of them, to the same observations."""
        return Average(tuple(CANDIDATES[name].fit(y, season) for name in self.names))


CANDIDATES: Mapping[str, Candidate | AverageOf] = {
    "random-walk": Candidate("the last price, with errors of constant spread", random_walk, Constant.fit, np.inf),
    "averaged-random-walk": Candidate(
        "a random walk as it looks after averaging, with errors of constant spread",
        averaged_walk,
        Constant.fit,
        np.inf,
    ),
    "seasonal-random-walk": Candidate(
        "the last observation of the same season, with errors of constant spread",
        random_walk,
        Constant.fit,
        np.inf,
        levels=True,
        seasonal=True,
    ),
    "random-walk-weighted": Candidate("the last price, with a spread that follows the latest errors", random_walk),
    "random-walk-garch": Candidate("the last price, with a GARCH(1,1) spread", random_walk, Garch.fit),
    "averaged-walk-weighted": Candidate(
        "a random walk as it looks after averaging, with a spread that follows the latest errors", averaged_walk
    ),
    "ima": Candidate("an IMA(1,1) close to an averaged random walk", shrunk_walk),
    "arima": Candidate("a low-order ARIMA chosen by AICc", arima),
    "smoothing": Candidate("exponential smoothing chosen by AICc", smoothing, seasonal=True),
    "theta": Candidate("the Theta method", theta_model, seasonal=True),
    "local-level": Candidate("a random walk seen with noise", local_level),
    "autoregression": Candidate("an autoregression that returns to its mean", autoregression),
    "theta-and-smoothing": AverageOf("the average of Theta and exponential smoothing", ("theta", "smoothing")),
    "averages-combined": AverageOf(
        "the average of an averaged random walk, a low-order ARIMA and a random walk seen with noise",
        ("averaged-walk-weighted", "arima", "local-level"),
    ),
    "closes-combined": AverageOf(
        "the average of two random walks, one with a weighted and one with a GARCH spread",
        ("random-walk-weighted", "random-walk-garch"),
    ),
}

BENCHMARK: Mapping[Kind, str] = {
    "close": "random-walk",
    "average": "averaged-random-walk",
    "general": "seasonal-random-walk",
}
DEFAULT: Mapping[Kind, str] = {
    "close": "random-walk-weighted",
    "average": "averaged-walk-weighted",
    "general": "theta-and-smoothing",
}
