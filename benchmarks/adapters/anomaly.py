"""For the scoring harness of anomalies: its signature, on ``pricing.anomalies``."""

import pandas as pd

from pricing import anomalies

FREQUENCIES = {"D": "daily", "W": "weekly", "M": "monthly"}


def detect(frame):
    """One row per row of the frame: score, flag and kind."""
    days = frame["ds"].map(pd.Timestamp.toordinal)
    found = pd.DataFrame({"score": 0.0, "flag": False, "kind": ""}, index=frame.index)
    rows, verdicts = [], []
    for _, one in frame.assign(day=days).groupby(["series_id", "source"], sort=False):
        frequency = FREQUENCIES[one["freq"].iloc[0]]
        verdicts += anomalies.judge(one["day"].tolist(), one["value"].tolist(), frequency)
        rows += one.index.tolist()
    found.loc[rows] = [(v.score, v.flagged, v.kind) for v in verdicts]
    return frame[["series_id", "source", "ds"]].join(found)
