"""Documents of forecasts: what is expected, by which model, and how that one and its predecessors have done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pricing.documents.edition import Edition
from pricing.forecasts import AT, FREQUENCIES, PAST, Outlook, past, scored
from pricing.releases import canonical

SKILL_NOTE = (
    "Skill is the share of the benchmark's CRPS that the model saves, in per cent, with its standard error; coverage "
    "is the share of outcomes inside the bounds. A backtest is pseudo real time before the first release, which is the "
    "first to tell what was known when. The record sets what releases forecast beside the values as they stand now."
)


def forecast_files(
    edition: Edition,
    outlooks: Sequence[Outlook],
    before: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
    files: dict[str, bytes],
) -> list[dict[str, Any]]:
    """Write a document for each series with a forecast; return their lines in the list.

    Parameters
    ----------
    before : mapping of (name, frequency) to the forecasts published earlier
    """
    rules = edition.methodology.forecasts
    if rules is None:
        return []
    by_name: dict[str, dict[str, Outlook]] = {}
    for one in outlooks:
        by_name.setdefault(one.subject.name, {})[one.subject.frequency] = one
    lines = []
    for name, found in by_name.items():
        told = {f: _told(found[f], before.get((name, f), ()), rules.levels) for f in FREQUENCIES if f in found}
        shown = {f: part for f, part in told.items() if part["current"]}
        subject = next(iter(found.values())).subject
        files[f"forecasts/{name}.json"] = canonical(
            {
                "meta": edition.meta(f"forecasts/{name}"),
                "of": f"/v1/{'prices' if '/' in name else 'indices'}/{name}",
                "unit": subject.unit,
                "levels": list(rules.levels),
                "notes": [SKILL_NOTE],
                "frequencies": told,
            }
        )
        lines.append(
            {
                "id": name,
                "unit": subject.unit,
                "frequencies": sorted(shown),
                "models": {f: part["current"]["model"] for f, part in shown.items()},
                "href": f"/v1/forecasts/{name}",
            }
        )
    return lines


def _told(one: Outlook, before: Sequence[Mapping[str, Any]], levels: Sequence[int]) -> dict[str, Any]:
    gone = past(one.subject, [f for f in before if f["origin"] != (one.current or {}).get("origin")], levels)
    tested = one.tested
    published = tested["decision"]["published"] if tested else "benchmark"
    return {
        "of": one.subject.of,
        "current": one.current,
        "withheld": None if one.current else one.finding,
        "finding": one.finding or None if one.current else None,
        "published": published,
        "decision": dict(tested["decision"]) if tested else {"why": "not tested yet: the benchmark is published"},
        "backtest": {k: v for k, v in tested.items() if k != "decision"} if tested else None,
        "record": scored(gone, levels),
        "past": [
            {**told, "horizons": [row for row in told["horizons"] if row["horizon"] in AT[one.subject.frequency]]}
            for told in gone[: PAST[one.subject.frequency]]
        ],
    }
