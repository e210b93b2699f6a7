"""For the scoring harness of forecasts: its signature, on ``forecasting.forecast``."""

import forecasting

KINDS = {"D": "close", "M": "average", "M3": "general"}


def forecast(y, horizon, levels=(80, 95), model=None):
    """Bounds and point by horizon. The point is the median: sMAPE and MASE, which judge it, are least there."""
    made = forecasting.forecast(y, horizon, levels, kind=KINDS[y.attrs["freq"]], model=model)
    return made.bounds.assign(mean=made.median, median=made.median)


def named(model):
    """The same for one candidate."""
    return lambda y, horizon, levels=(80, 95): forecast(y, horizon, levels, model)


def __getattr__(name):
    """``benchmarks.adapters.forecast:random_walk_garch`` and so on, one per candidate."""
    return named(name.replace("_", "-"))
