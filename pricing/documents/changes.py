"""What a release changed against the one before: revised and withdrawn in full, new ones in full where they are few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from pricing.documents.edition import Edition
from pricing.published import Change
from pricing.releases import canonical

FEW = 1000  # new figures that are listed one by one


def changes_file(edition: Edition, since: int | None, changes: Iterable[Change]) -> bytes:
    """Write ``changes.json``.

    Parameters
    ----------
    edition : Edition
    since : int or None
        The release before, None for the first.
    changes : iterable of Change
        All changes since. A correction notice for revisions beyond a threshold would be made of the same.
    """
    counts: Counter[str] = Counter()
    listed: list[Change] = []
    new: list[Change] = []
    whole: dict[tuple[str, ...], list[Any]] = {}  # count, first and last period
    for one in changes:
        counts[one.what] += 1
        if one.what == "new" and len(new) <= FEW:
            new.append(one)
        if one.what == "new" or one.series_ended:
            span = whole.setdefault((one.what, *one[:4]), [0, one.period, one.period])
            span[:] = [span[0] + 1, min(span[1], one.period), max(span[2], one.period)]
        else:
            listed.append(one)
    few = counts["new"] <= FEW
    used = {edition.source_of[s] for s in edition.eligible.series} | edition.eligible.customs
    return canonical(
        {
            "meta": edition.meta("changes", used),
            "since": since,
            "counts": {what: counts[what] for what in ("new", "revised", "status", "withdrawn")},
            "changes": [one.document() for one in sorted([*listed, *(new if few else ())], key=lambda one: one[:5])],
            "counted": [
                {
                    "change": key[0], "kind": key[1], "id": key[2], "frequency": key[3], "unit": key[4],
                    "count": count, "first": first, "last": last,
                }
                for key, (count, first, last) in sorted(whole.items())
                if key[0] == "withdrawn" or not few
            ],
        }
    )  # fmt: skip
