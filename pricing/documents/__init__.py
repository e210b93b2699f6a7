"""What a release says: figures into finished JSON documents, for one audience.

Pure: the same figures give the same bytes. No wall clock, host name or state of a fetch enters.
Current documents name their release; the yearly parts of a history name none, so that a year in
which nothing changed is the same file in every release.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pricing.config import Series
from pricing.documents import form
from pricing.documents.alerts import alert_files
from pricing.documents.changes import changes_file
from pricing.documents.edition import NOTE, RECENT, Edition, Kept
from pricing.documents.forecasts import forecast_files
from pricing.documents.indicators import (
    import_files,
    import_rows,
    indicator_files,
    indicator_rows,
)
from pricing.documents.indices import index_files, index_rows
from pricing.documents.methods import Draft, method_files
from pricing.documents.prices import market_files, price_rows
from pricing.documents.record import schema
from pricing.documents.shocks import shock_files, shown_shocks
from pricing.documents.spreads import gap_files, gap_rows, spread_files, spread_rows
from pricing.figures import Figures
from pricing.forecasts import Outlook
from pricing.published import Row
from pricing.releases import canonical
from pricing.sensitivity import Voices
from pricing.shocks import Told

_OFFICE = {"system", "origin", "title", "currency", "valuation", "china", "since"}
__all__ = [
    "NOTE",
    "RECENT",
    "Documents",
    "Draft",
    "Edition",
    "Kept",
    "build",
    "changes_file",
    "draft",
    "method_files",
    "rows",
    "shown_shocks",
]


@dataclass(frozen=True)
class Documents:
    """The files of a release, the fingerprints of its yearly parts, and the rows that may be queried."""

    files: dict[str, bytes]
    fingerprints: dict[str, str]
    rows: list[Row]


def build(
    edition: Edition,
    figures: Figures,
    kept: Kept,
    sources: Mapping[str, Any],
    outlooks: Sequence[Outlook] = (),
    forecast_before: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]] | None = None,
    told: Told | None = None,
    messages: Sequence[Mapping[str, Any]] = (),
) -> Documents:
    """Write every document of a release.

    Parameters
    ----------
    edition : Edition
    figures : Figures
    kept : callable
        Offers the bytes of an unchanged yearly part, so that only what changed is written anew.
    sources : mapping of source to facts from the store
        ``series, observations, first_period, last_period, last_vintage`` of each source.
    outlooks : sequence of Outlook
    forecast_before : mapping of (name, frequency) to the forecasts published earlier
    told : Told, optional
        Shocks.
    messages : sequence of dict
        Alerts that were told, those of this release included, oldest first.
    """
    told = told or Told()
    files: dict[str, bytes] = {}
    prints: dict[str, str] = {}
    price_list, index_list = [], []
    for key, market in figures.prices.items():
        price_list.append(market_files(edition, key, market, kept, files, prints, figures.late, told))
    voices = Voices(figures.prices, edition.methodology.determination)
    for name, basket in figures.baskets.items():
        rule = edition.methodology.baskets[name]
        index_list.append(index_files(edition, name, rule, basket, figures, voices, kept, files, prints, told))
    indicator_list = indicator_files(edition, figures, kept, files, prints)
    import_list = import_files(edition, figures, kept, files, prints)
    lists = {
        "indicators": indicator_list,
        "imports": import_list,
        "gaps": gap_files(edition, figures, kept, files, prints),
        "spreads": spread_files(edition, figures, files),
    }
    forecast_list = forecast_files(edition, outlooks, forecast_before or {}, files)
    files["forecasts.json"] = canonical({"meta": edition.meta("forecasts"), "forecasts": forecast_list})
    shock_files(edition, told, figures, files)
    if edition.methodology.shocks:
        alert_files(edition, messages, files)
    for name, lines in lists.items():
        files[f"{name}.json"] = canonical({"meta": edition.meta(name, form.all_sources(lines)), name: lines})
    files["prices.json"] = canonical(
        {
            "meta": edition.meta("prices", form.all_sources(price_list)),
            "prices": price_list,
            "late": [asdict(one) for one in figures.late],
            "unpriced": [m.key for m in edition.methodology.markets if m.key not in figures.prices],
        }
    )
    files["indices.json"] = canonical(
        {"meta": edition.meta("indices", form.all_sources(index_list)), "indices": index_list}
    )
    files["sources.json"] = canonical(_sources(edition, sources, figures.left_out))
    files["schemas/determination.json"] = canonical({"meta": edition.meta("schemas/determination"), **schema()})
    files["root.json"] = canonical(_root(edition, price_list, index_list))
    return Documents(files, prints, list(rows(edition, figures)))


def rows(edition: Edition, figures: Figures) -> Iterator[Row]:
    """Yield every figure of a release that may be queried."""
    for key, market in figures.prices.items():
        yield from price_rows(key, market)
    for name, basket in figures.baskets.items():
        yield from index_rows(name, edition.methodology.baskets[name], basket)
    yield from indicator_rows(edition, figures)
    yield from import_rows(edition, figures)
    yield from gap_rows(figures)
    yield from spread_rows(figures)


def draft(edition: Edition, figures: Figures, shown: Iterable[Row] | None = None) -> Draft:
    """Return what a method makes of the observations in ``rows``, to be set beside what another makes of them."""
    withheld = {name: basket.withheld for name, basket in figures.baskets.items() if basket.withheld}
    of_all = rows(edition, figures) if shown is None else shown
    return Draft(edition.methodology, [row for row in of_all if row.frequency == "monthly"], withheld)


def _root(edition: Edition, prices: list[dict[str, Any]], indices: list[dict[str, Any]]) -> dict[str, Any]:
    publish = edition.operation.publish
    return {
        "meta": edition.meta("root"),
        "title": publish.title,
        "contact": publish.contact,
        "links": {
            "indices": "/v1/indices",
            "prices": "/v1/prices",
            "indicators": "/v1/indicators",
            "imports": "/v1/imports",
            "gaps": "/v1/gaps",
            "spreads": "/v1/spreads",
            "forecasts": "/v1/forecasts",
            **({"shocks": "/v1/shocks", "alerts": "/v1/alerts"} if edition.methodology.shocks else {}),
            "changes": "/v1/changes",
            "releases": "/v1/releases",
            "methodology": "/v1/methodology",
            "sources": "/v1/sources",
            "status": "/v1/status",
            "keys": "/.well-known/jwks.json",
        },
        "indices": [
            {"id": i["id"], "title": i["title"], "published": i["published"], "href": i["href"]} for i in indices
        ],
        "prices": [{"id": p["id"], "unit": p["unit"], "href": p["href"]} for p in prices],
    }


def _sources(edition: Edition, facts: Mapping[str, Any], left_out: Mapping[str, str]) -> dict[str, Any]:
    """The register of sources: terms of all; figures about the data only of those this audience may see."""
    out = []
    for name, source in edition.operation.sources.items():
        used = [s for s in source.series if s.id in edition.eligible.series]
        customs = name in edition.eligible.customs and name in facts
        row: dict[str, Any] = {
            "id": name,
            "title": source.title,
            "publisher": source.publisher,
            "terms": source.terms,
            "terms_read": source.terms_read.isoformat(),
            "licence": source.licence,
            "letter": source.letter or None,
            "attribution": source.attribution,
            "rights": source.rights.model_dump(),
            "untested": source.untested or None,
            "used_in_this_release": bool(used) or customs,
        }
        if customs and source.customs is not None:
            row |= {"url": source.url or None, "data": facts.get(name)}
            row["customs"] = source.customs.model_dump(mode="json", include=_OFFICE)
        if used:
            row["url"] = source.url or None
            row["data"] = facts.get(name)
            row["series"] = [_series_facts(s, edition) for s in used]
        row["left_out"] = [{"series": s.id, "reason": left_out[s.id]} for s in used if s.id in left_out]
        row["quarantined"] = [{"series": s.id, "reason": s.quarantined} for s in source.series if s.quarantined]
        out.append(row)
    return {"meta": edition.meta("sources"), "sources": out}


def _series_facts(series: Series, edition: Edition) -> dict[str, Any]:
    return series.model_dump(mode="json", exclude_defaults=True) | {"shown": series.id not in edition.eligible.closed}
