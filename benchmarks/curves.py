"""Fits ``pricing.anomalies.CURVES`` to simulated markets: how often each statistic is reached where nothing happened.

``python -m benchmarks.curves``. Daily GARCH(1,1) returns with Student t innovations; alarms within five observations
are one. The rates of three channels are fitted between one in a hundred observations and one in seven thousand.
"""

import math

import numpy as np

from pricing import anomalies

ALPHA, BETA, FREEDOM, SIGMA = 0.08, 0.9, 5, 0.015
SERIES, LENGTH, BURN, SEED = 400, 1650, 150, 11
RATES = (1.5e-4, 1.2e-2)


def simulated(rng):
    shocks = rng.standard_t(FREEDOM, (LENGTH, SERIES)) * math.sqrt((FREEDOM - 2) / FREEDOM)
    returns, variance = np.empty_like(shocks), np.full(SERIES, SIGMA**2)
    for t in range(LENGTH):
        returns[t] = np.sqrt(variance) * shocks[t]
        variance = SIGMA**2 * (1 - ALPHA - BETA) + ALPHA * returns[t] ** 2 + BETA * variance
    return 1000 * np.exp(np.cumsum(returns, axis=0)).T


def statistic(verdict, channel, budget):
    """What the score was made of: the curve, backwards."""
    a, b = anomalies.CURVES[channel]
    score = verdict.scores.get(channel, 0.0)
    return math.exp(-(score * budget + a) / b) if score > 0 else 0.0


def fitted(reached):
    """(a, b) of rate = exp(-a) x**-b, from statistics by series × day."""
    levels = np.unique(np.quantile(reached, 1 - np.geomspace(2e-4, 3e-2, 16)))
    alarms = [sum(int((np.diff(np.flatnonzero(row > x), prepend=-99) > 5).sum()) for row in reached) for x in levels]
    rates = np.array(alarms) / reached.size
    inside = (rates > RATES[0]) & (rates < RATES[1])
    slope, intercept = np.polyfit(np.log(levels[inside]), np.log(rates[inside]), 1)
    return round(-float(intercept), 2), round(-float(slope), 2)


def main():
    channels = ("spike", "volatility", "trend")
    budgets = {c: anomalies.log_budget(getattr(anomalies.Alarms(), c), "daily") for c in channels}
    reached = {channel: [] for channel in channels}
    for prices in simulated(np.random.default_rng(SEED)):
        verdicts = anomalies.judge(range(1, LENGTH + 1), prices.tolist(), "daily")[BURN:]
        for channel, rows in reached.items():
            rows.append([statistic(v, channel, budgets[channel]) for v in verdicts])
    for channel, rows in reached.items():
        print(f"{channel}: {fitted(np.array(rows))}, in use {anomalies.CURVES[channel]}")


if __name__ == "__main__":
    main()
