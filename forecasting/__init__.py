"""Density forecasts of prices and indices. Knows nothing of minerals, storage or the web."""

from forecasting.errors import ForecastError
from forecasting.forecaster import Forecast, forecast

__all__ = ["Forecast", "ForecastError", "forecast"]
