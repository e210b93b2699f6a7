"""For the scoring harness of anomalies: its signature, on ``pricing.corroboration``."""

from itertools import groupby
from operator import itemgetter

import pandas as pd

from pricing.corroboration import Detector

FREQUENCIES = {"D": "daily", "W": "weekly", "M": "monthly"}


def detect(frame):
    """Score, flag and kind of each row of the frame, each from the rows at or before its date."""
    found = pd.DataFrame([(v.score, v.flagged, v.kind) for v in verdicts(frame)], columns=["score", "flag", "kind"])
    return frame[["series_id", "source", "ds"]].join(found)


def verdicts(frame):
    """One verdict for each row of the frame, in its order."""
    found = [None] * len(frame)
    days = [stamp.toordinal() for stamp in frame["ds"].dt.date]
    columns = zip(
        days, range(len(frame)), frame["series_id"], frame["source"], frame["value"], frame["freq"], strict=False
    )
    detectors = {freq: Detector(name) for freq, name in FREQUENCIES.items()}
    for (freq, day), rows in groupby(sorted(columns, key=itemgetter(5, 0, 1)), key=itemgetter(5, 0)):
        rows = list(rows)
        for row, verdict in zip(rows, detectors[freq].update(day, [row[2:5] for row in rows]), strict=True):
            found[row[1]] = verdict
    return found
