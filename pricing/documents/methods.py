"""Documents of the method: the one in force, those before it, and the changes that are proposed.

Each pending change comes with a parallel run: what it would have made of the same observations, beside
what the method in force makes of them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pricing import notice
from pricing.config import Methodologies, Methodology, methodology_bytes
from pricing.documents import form, method_text
from pricing.documents.edition import Edition
from pricing.published import Row
from pricing.releases import canonical

MONTHS = 24  # of a parallel run
_HAIR = 1e-9  # relative: a difference below it is of the arithmetic, not of the method
_FACTS = {
    "id", "title", "status", "proposed", "comments_until", "effective", "notice_days", "rationale", "changes",
    "comments", "text", "sha256",
}  # fmt: skip
_ADDRESSES = {"index": "indices", "price": "prices", "indicator": "indicators", "gap": "gaps"}


@dataclass(frozen=True)
class Draft:
    """A method, and the monthly figures that it gives in this release."""

    method: Methodology
    rows: Sequence[Row]
    withheld: Mapping[str, str]


def method_files(
    edition: Edition,
    methods: Methodologies,
    drafts: Sequence[Draft],
    before: Mapping[str, Any] | None,
) -> dict[str, bytes]:
    """Write the documents of the method.

    Parameters
    ----------
    drafts : sequence of Draft
        The method in force with the figures of this release, then the pending changes with theirs.
    before : mapping or None
        ``methodology.json`` of the last public release: since when a change has been announced.
    """
    made, *changes = drafts
    day = dt.date.fromisoformat(edition.released_at[:10])
    said = method_text.blocks(made.method)
    pending = [_pending(edition, made.method, draft.method, before) for draft in changes]
    files = {
        "methodology.json": canonical(
            {
                "meta": edition.meta("methodology"),
                "in_force": facts(made.method),
                "earlier": [
                    {"id": m.id, "effective": m.effective.isoformat(), "sha256": m.sha256} for m in methods.earlier(day)
                ],
                "pending": pending,
                "text": said,
                "methodology": made.method.model_dump(mode="json"),
            }
        ),
        "methodology.txt": _plain(said, pending).encode(),
        "methodology.toml": methodology_bytes(made.method),
    }
    if made.method.codes_raw:
        files["codes.csv"] = made.method.codes_raw.encode()
    for told, draft in zip(pending, changes, strict=True):
        name = f"methodology/pending/{draft.method.id}"
        files[f"{name}.toml"] = methodology_bytes(draft.method)
        files[f"{name}.json"] = canonical(
            {
                "meta": edition.meta(name),
                **told,
                "methodology": draft.method.model_dump(mode="json"),
                "parallel_run": parallel_run(made, draft, day),
            }
        )
    return files


def facts(method: Methodology) -> dict[str, Any]:
    """Say what a document is, without its rules."""
    return method.model_dump(mode="json", include=_FACTS) | {"rules_sha256": method.rules_sha256}


def _pending(
    edition: Edition, in_force: Methodology, change: Methodology, before: Mapping[str, Any] | None
) -> dict[str, Any]:
    told = notice.announced(before, change)
    if told is None and edition.audience == "public":
        told = {"release": edition.number, "released_at": edition.released_at}
    return facts(change) | {
        "announced": told,
        "earliest": notice.earliest(told, change, in_force.notice_days).isoformat() if told else None,
        "differences": method_text.differences(in_force, change),
        "text": method_text.blocks(change),
        "href": f"/v1/methodology/pending/{change.id}",
    }


def _plain(said: list[method_text.Block], pending: Sequence[Mapping[str, Any]]) -> str:
    """Write the method as plain text, the changes that are proposed at its end."""
    return method_text.plain([*said, *(_proposal(change) for change in pending)])


def _proposal(change: Mapping[str, Any]) -> method_text.Block:
    sentences = [
        f"Proposed on {change['proposed']}, to be in force from {change['effective']}; "
        f"comments until {change['comments_until']}.",
        f"Why: {change['rationale']}",
        *(f"Change: {sentence}" for sentence in change["changes"]),
        *(f"Now: {line}" for line in change["differences"]["before"]),
        *(f"Then: {line}" for line in change["differences"]["after"]),
    ]
    return {"heading": f"Proposed change {change['id']}", "level": 2, "sentences": sentences, "tables": []}


# ----------------------------------------------------------------------------------- parallel run


def parallel_run(old: Draft, new: Draft, day: dt.date) -> dict[str, Any]:
    """Set the monthly figures of the last two years under both methods side by side.

    Returns
    -------
    dict
        ``figures``: those of which any month differs, by more than rounding (``moved_months``) or in its status or
        grade, each with all its months; ``counts`` by kind.
    """
    since = str(pd.Period(day.isoformat()[:7], "M") - MONTHS)
    sides = (_by_name(old.rows, since), _by_name(new.rows, since))
    names = sorted({**sides[0], **sides[1]})
    compared = {name: _side_by_side(*(side.get(name, {}) for side in sides)) for name in names}
    figures, counts = [], dict[str, dict[str, int]]()
    for (kind, name), found in compared.items():
        count = counts.setdefault(kind, dict.fromkeys(("compared", "different", "only_before", "only_after"), 0))
        count["compared"] += 1
        count["different"] += bool(found["different_months"])
        count["only_before"] += found["unit"]["after"] is None
        count["only_after"] += found["unit"]["before"] is None
        if found["different_months"]:
            href = {"href": f"/v1/{_ADDRESSES[kind]}/{name}"} if kind in _ADDRESSES and kind != "indicator" else {}
            figures.append({"kind": kind, "id": name, **href, **found})
    reasons = [
        {"id": name, "before": old.withheld.get(name) or None, "after": new.withheld.get(name) or None}
        for name in sorted({*old.withheld, *new.withheld})
        if old.withheld.get(name) != new.withheld.get(name)
    ]
    return {
        "note": "Both methods on the observations of this release; bases that are set stay, others are estimated.",
        "before": old.method.id,
        "after": new.method.id,
        "since": since,
        "counts": counts,
        "withheld": reasons,
        "figures": figures,
    }


_Name = tuple[str, str]


def _by_name(rows: Iterable[Row], since: str) -> dict[_Name, dict[str, Row]]:
    out: dict[_Name, dict[str, Row]] = {}
    for row in rows:
        if row.frequency == "monthly" and row.period >= since:
            out.setdefault((row.kind, row.name), {})[row.period] = row
    return out


def _side_by_side(old: Mapping[str, Row], new: Mapping[str, Row]) -> dict[str, Any]:
    """Lay out one figure's months under both methods."""
    units = [next((row.unit for row in side.values()), None) for side in (old, new)]
    values, moves, different, moved = [], list[float](), 0, 0
    for period in sorted({**old, **new}):
        before, after = old.get(period), new.get(period)
        move = _difference(before, after)
        differs = _moved(before, after)
        moved += differs
        different += differs or _standing(before) != _standing(after)
        if move is not None:
            moves.append(move)
        values.append({"period": period, "before": _shown(before), "after": _shown(after), "difference": move})
    return {
        "unit": {"before": units[0], "after": units[1]},
        "difference_unit": "points" if units[0] == "%" else "%",
        "different_months": different,
        "moved_months": moved,
        "largest_difference": max(moves, key=abs, default=None),
        "values": values,
    }


def _shown(row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {"value": row.value, "unrounded": row.unrounded, "status": row.status, "grade": row.grade}


def _standing(row: Row | None) -> tuple[str, str | None] | None:
    return (row.status, row.grade) if row else None


def _moved(before: Row | None, after: Row | None) -> bool:
    """Tell whether a month's figure differs by more than rounding."""
    if before is None or after is None or before.unit != after.unit:
        return True
    near = abs(after.unrounded - before.unrounded) <= _HAIR * max(abs(before.unrounded), abs(after.unrounded))
    return not near and after.value != before.value


def _difference(before: Row | None, after: Row | None) -> float | None:
    """What the change makes of a figure: per cent, points of a figure in per cent, None where units differ."""
    if before is None or after is None or before.unit != after.unit:
        return None
    if before.unit == "%":
        return round(after.unrounded - before.unrounded, 4)
    return form.per_cent(after.unrounded, before.unrounded) if before.unrounded else None
