"""A change of method must have been announced: releases themselves are the record of it.

Dates in a document are what its author wrote. What counts is what readers could see: a change takes effect
only after releases have shown it as pending for the days of notice that the method in force sets. Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from pricing.config import Methodology
from pricing.errors import MethodError


def announced(before: Mapping[str, Any] | None, change: Methodology) -> dict[str, Any] | None:
    """Return the release that first showed this very change, None when none has yet.

    Parameters
    ----------
    before : mapping or None
        ``methodology.json`` of the last public release.
    change : Methodology
        Other rules than those shown, or an earlier day of effect, make another change.
    """
    for entry in (before or {}).get("pending", []):
        same = (entry["id"], entry["rules_sha256"]) == (change.id, change.rules_sha256)
        if same and entry["effective"] <= change.effective.isoformat() and entry["announced"]:
            return dict(entry["announced"])
    return None


def earliest(told: Mapping[str, Any], change: Methodology, notice_days: int) -> dt.date:
    """Return the first day on which an announced change may take effect."""
    shown = dt.date.fromisoformat(told["released_at"][:10])
    return max(shown, change.proposed) + dt.timedelta(days=notice_days)


def check(before: Mapping[str, Any] | None, method: Methodology, day: dt.date) -> None:
    """Refuse a method that the last public release did not use, unless its notice has run.

    Parameters
    ----------
    before : mapping or None
        ``methodology.json`` of that release.
    method : Methodology
        What is to govern the next one.
    day : date
        The day of the next one.

    Raises
    ------
    MethodError
        When the document in force was edited, or a change was not announced for the days of notice.
    """
    last = (before or {}).get("in_force")
    if last is None:
        return
    if last["id"] == method.id:
        if last["rules_sha256"] != method.rules_sha256:
            raise MethodError(
                f"methodology {method.id}: its rules are not those of the last release; a method in force is not "
                "edited: put it back as it was, and propose a change in a document of its own"
            )
        return
    told = announced(before, method)
    if told is None:
        raise MethodError(
            f"methodology {method.id}: effective: {method.effective} has come, but no release has announced this "
            f"change; put back what governed the last release ({last['id']}), and let it take effect on "
            f"{day + dt.timedelta(days=last['notice_days'])} at the earliest, {last['notice_days']} days after the "
            "next release"
        )
    first = earliest(told, method, last["notice_days"])
    if method.effective < first:
        raise MethodError(
            f"methodology {method.id}: effective: {method.effective} comes before the notice has run: release "
            f"{told['release']} of {told['released_at'][:10]} was the first to announce it: the earliest day is {first}"
        )
