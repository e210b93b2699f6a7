"""What goes wrong in forecasting, as one class."""


class ForecastError(ValueError):
    """No forecast can be made from what was given; the message says why and what would mend it."""
