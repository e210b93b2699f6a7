"""Documents of shocks: the current ones and those of the last year, all of them by year, and the detector's record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pricing.documents.edition import Edition
from pricing.figures import Figures
from pricing.releases import canonical
from pricing.shocks import MEASURED, Told, a_year_before, record
from pricing.watchlist import PREMIUM

READING = (
    "A shock is a movement that past movements of the same series did not lead one to expect. It is judged from what "
    "was known when its figure was released; a verdict that changes is added to its history. On monthly and ten-day "
    "figures it is called a monthly movement: it was weeks old when it was learnt."
)


def shock_files(edition: Edition, told: Told, figures: Figures, files: dict[str, bytes]) -> None:
    """Write the list of current shocks, and every year's."""
    rules = edition.methodology.shocks
    if rules is None:
        return
    shown = shown_shocks(told, figures)
    since = a_year_before(edition.released_at)
    recent = [one for one in shown if one["state"] == "open" or one["last"] >= since[: len(one["last"])]]
    recent.sort(key=lambda one: (one["state"] != "open", -one["severity"], one["flagged"], one["id"]))
    years: dict[str, list[dict[str, Any]]] = {}
    for one in shown:
        years.setdefault(one["flagged"][:4], []).append(one)
    for year, rows in years.items():
        files[f"shocks/{year}.json"] = canonical(
            {"meta": {"id": f"shocks/{year}", **edition.part_meta()}, "year": year, "shocks": rows}
        )
    files["shocks.json"] = canonical(
        {
            "meta": edition.meta("shocks"),
            "notes": [READING],
            "open": sum(one["state"] == "open" for one in shown),
            "shocks": recent,
            "doubts": _doubts(edition, told.doubts, since),
            "rules": rules.model_dump(mode="json"),
            "record": {"live": record(shown), "benchmark": MEASURED},
            "history": [{"year": year, "href": f"/v1/shocks/{year}"} for year in sorted(years)],
        }
    )


def shown_shocks(told: Told, figures: Figures) -> list[dict[str, Any]]:
    """Return all shocks as they are shown: with the address of their series, and what they do to indices."""
    return [one | {"href": _href(one), "indices": _indices(one, figures)} for one in told.shocks]


def _href(one: Mapping[str, Any]) -> str:
    if one["of"] == "premium":
        return f"/v1/gaps/{one['series'].removeprefix(PREMIUM)}"
    return f"/v1/{'indices' if one['of'] == 'index' else 'prices'}/{one['series']}"


def _indices(one: Mapping[str, Any], figures: Figures) -> list[dict[str, Any]]:
    """What a shock of one market is to the indices that it is in: its weight times its move, in per cent."""
    if one["of"] != "price" or one["state"] == "withdrawn":
        return []
    out = []
    for name, basket in figures.baskets.items():
        index = basket.indices.get("monthly") or basket.indices.get("daily")
        if index is None or one["series"] not in index.weights.columns:
            continue
        weights = index.weights[one["series"]]
        weight = float(weights[weights.index <= one["flagged"]].iloc[-1]) if one["flagged"] >= weights.index[0] else 0.0
        out.append({"id": name, "weight": weight, "percent": float(f"{weight * one['change_percent']:.4g}")})
    return out


def _doubts(edition: Edition, doubts: Sequence[Mapping[str, Any]], since: str) -> list[dict[str, Any]]:
    """Contributors in doubt during the last year, the latest first; the figures of closed ones are not told."""
    closed, out = edition.eligible.closed, []
    for one in doubts:
        if one["last"] >= since[: len(one["last"])]:
            hidden = ("value", "expected", "undone") if one["series"] in closed else ()
            row = {k: v for k, v in one.items() if k not in hidden}
            out.append(row | {"source": edition.source_of.get(one["series"])})
    return sorted(out, key=lambda one: (one["last"], one["series"]), reverse=True)
