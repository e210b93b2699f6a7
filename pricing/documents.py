"""What a release says: figures into finished JSON documents, for one audience.

Pure: the same figures give the same bytes. No wall clock, host name or state of a fetch enters.
Current documents name their release; the yearly parts of a history name none, so that a year in
which nothing changed is the same file in every release.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import orjson
import pandas as pd

from pricing import units
from pricing.config import Audience, Basket, Market, Methodology, Operation, Series
from pricing.errors import ReleaseError
from pricing.figures import FREQUENCIES, BasketFigures, Eligible, Figures, MarketPrices
from pricing.index import Index
from pricing.published import Row
from pricing.reference import Prices
from pricing.releases import canonical

RECENT = {"monthly": 36, "ten-day": 36, "daily": 66}  # values inside a current document; the history has the rest
NOTE = "Indicators for information: self-assessment, not assured; not for use in contracts."


@dataclass(frozen=True)
class Edition:
    """What every document of one release has in common."""

    audience: Audience
    number: int
    vintage: str
    released_at: str
    next_release: str | None
    simulated: bool
    replayed: bool
    operation: Operation
    methodology: Methodology
    eligible: Eligible

    def meta(self, name: str, sources: Iterable[str] = ()) -> dict[str, Any]:
        """Head of a current document."""
        return {
            "id": name,
            "release": self.number,
            "vintage": self.vintage,
            "released_at": self.released_at,
            "next_release": self.next_release,
            **self.part_meta(sources),
        }

    def part_meta(self, sources: Iterable[str] = ()) -> dict[str, Any]:
        """Head of a yearly part: nothing in it changes from release to release."""
        names = sorted(set(sources))
        return {
            "audience": self.audience,
            "simulated": self.simulated,
            **({"warning": "Simulated prices: no real market."} if self.simulated else {}),
            "replayed": self.replayed,
            "methodology": {"id": self.methodology.id, "sha256": self.methodology.sha256},
            "sources": [
                {
                    "id": n,
                    "publisher": self.operation.sources[n].publisher,
                    "attribution": self.operation.sources[n].attribution,
                    "licence": self.operation.sources[n].licence,
                }
                for n in names
            ],
            "note": NOTE,
        }

    @cached_property
    def source_of(self) -> dict[str, str]:
        """Source of each series."""
        return self.operation.source_of()

    @cached_property
    def fx_sources(self) -> set[str]:
        """Sources of exchange rates."""
        return {self.source_of[s.id] for s in self.eligible.series.values() if s.kind == "fx"}


Kept = Callable[[str, str], bytes | None]
"""(file name, fingerprint of what it is made from) to the bytes of the release before, if those stand."""


@dataclass(frozen=True)
class Documents:
    """The files of a release, the fingerprints of its yearly parts, and the rows that may be queried."""

    files: dict[str, bytes]
    fingerprints: dict[str, str]
    rows: list[Row]


def build(edition: Edition, figures: Figures, kept: Kept, sources: Mapping[str, Any]) -> Documents:
    """Write every document of a release.

    Parameters
    ----------
    edition : Edition
    figures : Figures
    kept : callable
        Offers the bytes of an unchanged yearly part, so that only what changed is written anew.
    sources : mapping of source to facts from the store
        ``series, observations, first_period, last_period, last_vintage`` of each source.
    """
    files: dict[str, bytes] = {}
    prints: dict[str, str] = {}
    rows: list[Row] = []
    price_list, index_list = [], []
    for key, market in figures.prices.items():
        price_list.append(_market_files(edition, key, market, kept, files, prints))
        rows += _price_rows(key, market)
    for name, basket in figures.baskets.items():
        rule = edition.methodology.baskets[name]
        index_list.append(_index_files(edition, name, rule, basket, figures, kept, files, prints))
        rows += _index_rows(name, rule, basket)
    files["prices.json"] = canonical(
        {
            "meta": edition.meta("prices", _all_sources(price_list)),
            "prices": price_list,
            "unpriced": [m.key for m in edition.methodology.markets if m.key not in figures.prices],
        }
    )
    files["indices.json"] = canonical(
        {"meta": edition.meta("indices", _all_sources(index_list)), "indices": index_list}
    )
    files["sources.json"] = canonical(_sources(edition, sources, figures.left_out))
    files["methodology.json"] = canonical(
        {"meta": edition.meta("methodology"), "methodology": edition.methodology.model_dump(mode="json")}
    )
    files["root.json"] = canonical(_root(edition, price_list, index_list))
    return Documents(files, prints, rows)


# -------------------------------------------------------------------------------------- prices


def _market_files(
    edition: Edition, key: str, market: MarketPrices, kept: Kept, files: dict[str, bytes], prints: dict[str, str]
) -> dict[str, Any]:
    """Write the documents of one market; return its line in the list of prices."""
    sources = sorted(_market_sources(edition, market))
    history: dict[str, list[dict[str, str]]] = {}
    recent: dict[str, list[dict[str, Any]]] = {}
    for frequency in FREQUENCIES:
        frame = market.frame(frequency)
        if frame.empty:
            continue
        records = _Records(edition, market, frequency)
        for year, positions in _years(frame.index):
            name = f"prices/{key}/{frequency}/{year}.json"
            prints[name] = records.fingerprint(positions)
            files[name] = kept(name, prints[name]) or canonical(
                {
                    "meta": {"id": f"{key}/{frequency}/{year}", **edition.part_meta(sources)},
                    "market": _market_facts(market.market),
                    "frequency": frequency,
                    "year": year,
                    "determinations": [records.record(t) for t in positions],
                }
            )
        history[frequency] = _history(f"/v1/prices/{key}", frequency, frame.index)
        recent[frequency] = [records.value(t) for t in range(max(0, len(frame) - RECENT[frequency]), len(frame))]
    latest = {f: _aged(edition, _latest(market.frame(f)), [market]) for f in recent}
    files[f"prices/{key}.json"] = canonical(
        {
            "meta": edition.meta(key, sources),
            "market": _market_facts(market.market),
            "contributors": _contributors(edition, market),
            "latest": latest,
            "values": recent,
            "history": history,
        }
    )
    return {
        "id": key,
        "title": market.market.title or key,
        "unit": market.market.unit,
        "decimals": market.market.rounding,
        "latest": latest,
        "sources": sources,
        "href": f"/v1/prices/{key}",
    }


class _Records:
    """Values and determination records of one market at one frequency, by position in its frame."""

    def __init__(self, edition: Edition, market: MarketPrices, frequency: str) -> None:
        self._edition, self._market, self._frequency = edition, market, frequency
        self._frame = market.frame(frequency)
        self._made = market.made(frequency)
        self._periods: list[str] = self._frame.index.tolist()
        made_at = self._made.frame.index if self._made is not None else self._frame.index[:0]
        self._at: list[int] = made_at.get_indexer(self._frame.index).tolist()
        columns = ("unrounded", "value", "low", "high", "mean", "spread", "largest_weight")
        self._numbers = {c: _numbers(self._frame[c]) for c in columns}
        self._words = {c: self._frame[c].tolist() for c in ("status", "type", "grade", "origins")}
        self._extra = {c: _numbers(self._frame[c]) for c in ("days", "weekdays") if c in self._frame}
        self._head = self._heads(edition, self._made) if self._made is not None else []
        self._sources = sorted(_market_sources(edition, market))
        if self._made is not None:
            q = self._made.quotes
            self._value, self._usd, self._fx, self._vat = (
                t.to_numpy(dtype="float64") for t in (q.value, q.usd_per_t, q.fx, q.vat)
            )
            self._fx_period, self._status = q.fx_period.to_numpy(), q.status.to_numpy()
            is_closed = np.array([s.id in q.closed for s in q.series] + [False])
            self._closed: list[bool] = np.logical_or.reduce(is_closed[self._made.chosen], axis=1).tolist()

    def _heads(self, edition: Edition, made: Prices) -> list[dict[str, Any]]:
        source_of = edition.source_of
        return [
            {"series": s.id, "origin": s.origin, "source": source_of[s.id], "tier": s.tier, "unit": s.unit}
            for s in made.quotes.series
        ]

    def value(self, t: int) -> dict[str, Any]:
        """The figure of one period, without what made it."""
        return {
            "period": self._periods[t],
            "value": self._numbers["value"][t],
            "unrounded": self._numbers["unrounded"][t],
            "status": self._words["status"][t],
            "grade": _text(self._words["grade"][t]),
            "type": self._words["type"][t],
        }

    def record(self, t: int) -> dict[str, Any]:
        """The determination record of one period."""
        out = self.value(t)
        out["origins"] = int(self._words["origins"][t])
        if self._words["type"][t] in ("mean-of-days", "mean-of-ten-days"):
            ten_day = self._words["type"][t] == "mean-of-ten-days"
            parts = ("ten_day_periods", "of") if ten_day else ("days", "weekdays")
            from_records = f"{'ten-day' if ten_day else 'daily'}/{self._periods[t][:4]}"
            out |= {
                parts[0]: int(self._extra["days"][t] or 0),
                parts[1]: int(self._extra["weekdays"][t] or 0),
                "records": f"/v1/prices/{self._market.market.key}/{from_records}",
            }
            return out
        out |= {
            "range": {
                "low": self._numbers["low"][t],
                "high": self._numbers["high"][t],
                "mean": self._numbers["mean"][t],
            },
            "spread": self._numbers["spread"][t],
            "largest_weight": self._numbers["largest_weight"][t],
            **self._inputs(self._at[t]),
        }
        if self._closed[self._at[t]]:
            # With the open values and the price, a closed one could be solved for.
            out["range"] = out["spread"] = None
        return out

    def _inputs(self, at: int) -> dict[str, Any]:
        """Contributors of one period, those that made the price and those that did not, with the rule."""
        made = self._made
        assert made is not None
        hidden = self._closed[at]
        rows, out_of = [], []
        for m in range(len(made.origins)):
            position = int(made.chosen[at, m])
            if position < 0:
                continue
            rule = made.excluded[at, m]
            head = self._head[position]
            row = {**head, "age_days": int(made.age[at, m]), "weight": float(made.weight[at, m])}
            if not hidden:
                row |= self._traced(at, m, position)
            (out_of.append({**row, "rule": rule}) if rule else rows.append(row))
        for position, text in enumerate(self._status[at]):
            if text in ("voided", "suspended", "limit"):
                out_of.append({**self._head[position], "rule": f"status {text}"})
        return {"contributors": rows, "excluded": out_of}

    def _traced(self, at: int, m: int, position: int) -> dict[str, Any]:
        """From the quotation to the adjusted price, factor by factor."""
        made = self._made
        assert made is not None
        quoted = at
        if made.age[at, m]:  # an older quotation stands: the last one before
            quoted = int(np.flatnonzero(~np.isnan(self._usd[:at, position]))[-1])
        out = {"quoted": _number(self._value[quoted, position]), "usd_per_t": _number(self._usd[quoted, position])}
        days, vat = self._fx_period[quoted, position], self._vat[quoted, position]
        if days:
            out |= {"usd_per_currency": _number(self._fx[quoted, position]), "rate_of": days}
        if vat:
            out["vat"] = _number(vat)
        return out | {"basis": _number(made.ratio[at, m]), "adjusted": _number(made.adjusted[at, m])}

    def fingerprint(self, positions: range) -> str:
        """Hash of everything that the records of some periods are made from."""
        rows = slice(positions.start, positions.stop)
        parts: list[Any] = [self._edition.part_meta(self._sources), self._head, self._periods[rows]]
        parts += [words[rows] for words in self._words.values()]
        parts += [numbers[rows] for numbers in (*self._numbers.values(), *self._extra.values())]
        digest = hashlib.sha256(orjson.dumps(parts))
        at = [a for a in self._at[rows] if a >= 0]
        if self._made is not None and at:
            span = slice(max(0, at[0] - 8), at[-1] + 1)  # a weekly quotation may stand from a week before
            made = self._made
            digest.update(orjson.dumps(sorted(made.quotes.closed)))
            for array in (made.chosen, made.age, made.adjusted, made.ratio, made.weight):
                digest.update(np.ascontiguousarray(array[span]).tobytes())
            for array in (self._value, self._usd, self._fx, self._vat):
                digest.update(np.ascontiguousarray(array[span]).tobytes())
            for words in (made.excluded, self._fx_period, self._status):
                digest.update(orjson.dumps(words[span].tolist()))
        return digest.hexdigest()


def _market_sources(edition: Edition, market: MarketPrices) -> set[str]:
    source_of = edition.source_of
    made = [p for p in map(market.made, FREQUENCIES) if p is not None]
    used = [s for p in made for s in p.quotes.series]
    sources = {source_of[s.id] for s in used}
    if any(not s.unit.startswith(("USD", "USc")) for s in used):
        sources |= edition.fx_sources
    return sources


def _market_facts(market: Market) -> dict[str, Any]:
    return {
        "mineral": market.mineral,
        "stage": market.stage,
        "zone": market.zone,
        "title": market.title or market.key,
        "element": market.element,
        "unit": market.unit,
        "per": market.per,
    }


def _contributors(edition: Edition, market: MarketPrices) -> list[dict[str, Any]]:
    source_of = edition.source_of
    out = []
    for made in map(market.made, FREQUENCIES):
        for s in made.quotes.series if made is not None else ():
            out.append(
                {
                    "series": s.id,
                    "title": s.title,
                    "origin": s.origin,
                    "source": source_of[s.id],
                    "tier": s.tier,
                    "frequency": s.frequency,
                    "specification": s.specification,
                    "unit": s.unit,
                    "quoted_on": s.quoted_on,
                    "content": s.content,
                    "tax": s.tax,
                    "conversion": [
                        {"step": step.name, "factor": step.factor, "source": step.source, "detail": step.detail}
                        for step in units.conversion(s, market.market).steps
                    ],
                    "shown": s.id not in edition.eligible.closed,
                }
            )
    return out


def _price_rows(key: str, market: MarketPrices) -> Iterator[Row]:
    for frequency in FREQUENCIES:
        frame = market.frame(frequency)
        given = frame[frame["unrounded"].notna()]
        columns = (given.index.tolist(), *(given[c].tolist() for c in ("value", "unrounded", "status", "grade")))
        for period, value, unrounded, status, grade in zip(*columns, strict=True):
            yield Row("price", key, frequency, market.market.unit, period, value, unrounded, status, _text(grade))


# ------------------------------------------------------------------------------------- indices


def _index_files(
    edition: Edition,
    name: str,
    rule: Basket,
    basket: BasketFigures,
    figures: Figures,
    kept: Kept,
    files: dict[str, bytes],
    prints: dict[str, str],
) -> dict[str, Any]:
    """Write the documents of one index; return its line in the list of indices."""
    sources = _basket_sources(edition, rule, basket, figures)
    members = [figures.prices[part.key] for part in rule.constituents if part.key in figures.prices]
    recent, history, latest = {}, {}, {}
    for frequency, index in basket.indices.items():
        values = _index_values(index, rule.rounding)
        for year, positions in _years(index.frame.index):
            file = f"indices/{name}/{frequency}/{year}.json"
            meta = {"id": f"{name}/{frequency}/{year}", **edition.part_meta(sources)}
            prints[file] = _index_fingerprint(index, values, meta, positions)
            files[file] = kept(file, prints[file]) or canonical(
                {
                    "meta": meta,
                    "unit": _index_unit(rule),
                    "frequency": frequency,
                    "year": year,
                    "values": [values[t] | moved for t, moved in zip(positions, _moved(index, positions), strict=True)],
                }
            )
        recent[frequency] = values[-RECENT[frequency] :]
        history[frequency] = _history(f"/v1/indices/{name}", frequency, index.frame.index)
        latest[frequency] = _aged(edition, _latest_index(index, rule.rounding), members)
    statement = _statement(rule, basket)
    document = {
        "meta": edition.meta(name, sources),
        "title": rule.title,
        "published": not basket.withheld,
        "withheld": basket.withheld or None,
        "unit": _index_unit(rule),
        "base_period": rule.base_period,
        "formula": "capped fixed basket (Lowe type), linked each year on the mean of the link month",
        "cap": rule.cap,
        "link_month": rule.link_month,
        "coverage": basket.coverage | {"statement": statement},
        "weights": _weights(edition, basket),
        "latest": latest,
        "contributions": {f: _moved(i, range(len(i.frame) - 1, len(i.frame)))[0] for f, i in basket.indices.items()},
        "values": recent,
        "history": history,
    }
    files[f"indices/{name}.json"] = canonical(document)
    return {
        "id": name,
        "title": rule.title,
        "unit": document["unit"],
        "decimals": rule.rounding,
        "published": document["published"],
        "withheld": document["withheld"],
        "latest": latest,
        "coverage": document["coverage"],
        "sources": sorted(sources),
        "href": f"/v1/indices/{name}",
    }


def _index_unit(rule: Basket) -> str:
    return f"index, {rule.base_period} = 100"


def _index_values(index: Index, rounding: int) -> list[dict[str, Any]]:
    frame = index.frame
    numbers = _numbers(frame["unrounded"])
    return [
        {
            "period": period,
            "value": None if u is None else round(u, rounding),
            "unrounded": u,
            "status": status,
            "covered": covered,
            "link": link,
        }
        for period, u, status, covered, link in zip(
            frame.index.tolist(),
            numbers,
            frame["status"].tolist(),
            _numbers(frame["covered"]),
            frame["link"].tolist(),
            strict=True,
        )
    ]


def _moved(index: Index, positions: range) -> list[dict[str, Any]]:
    """What moved the index in each period: points and weight of each market; imputed markets by name."""
    names = [str(c) for c in index.contributions.columns]
    rows = slice(positions.start, positions.stop)
    points = index.contributions.to_numpy()[rows].tolist()
    weights = index.weights.to_numpy()[rows].tolist()
    imputed = index.imputed.to_numpy()[rows].tolist()
    return [
        {
            "moved_by": {
                name: {"points": p, "weight": w} for name, p, w in zip(names, ps, [*ws, 0.0], strict=True) if p or w
            },
            "imputed": [name for name, mark in zip(names, marks, strict=False) if mark],
        }
        for ps, ws, marks in zip(points, weights, imputed, strict=True)
    ]


def _index_fingerprint(index: Index, values: list[dict[str, Any]], meta: dict[str, Any], positions: range) -> str:
    """Hash of everything that the values of some periods are made from."""
    rows = slice(positions.start, positions.stop)
    digest = hashlib.sha256(orjson.dumps([meta, values[rows], list(index.contributions.columns)]))
    for table in (index.contributions, index.weights, index.imputed):
        digest.update(np.ascontiguousarray(table.to_numpy()[rows]).tobytes())
    return digest.hexdigest()


def _weights(edition: Edition, basket: BasketFigures) -> list[dict[str, Any]]:
    links = next(iter(basket.indices.values())).links if basket.indices else ()
    source_of = edition.source_of
    out = []
    for link in links:
        out.append(
            {
                "link": link.month,
                "known_before_link": max(w.production_vintage for w in basket.weights[link.month])
                <= _month_end(link.month),
                "markets": [
                    {
                        "market": w.market,
                        "share": link.shares[w.market],
                        "uncapped": link.uncapped[w.market],
                        "tonnes": w.tonnes,
                        "production": {
                            "series": w.production_series,
                            "source": source_of[w.production_series],
                            "period": w.production_period,
                            "vintage": _instant(w.production_vintage),
                        },
                        "price_usd_per_t": w.price,
                        "price_year": w.price_year,
                    }
                    for w in basket.weights[link.month]
                ],
            }
        )
    return out


def _basket_sources(edition: Edition, rule: Basket, basket: BasketFigures, figures: Figures) -> set[str]:
    if basket.withheld:
        return set()
    sources: set[str] = set()
    for part in rule.constituents:
        if part.key in figures.prices:
            sources |= _market_sources(edition, figures.prices[part.key])
    known = edition.source_of
    return sources | {known[p.production] for p in rule.constituents if p.production in known}


def _statement(rule: Basket, basket: BasketFigures) -> str:
    """Say in plain words what an index covers and what it does not."""
    c = basket.coverage
    if c["priced"] == c["listed"]:
        text = f"All {c['listed']} listed markets have an own price."
    else:
        text = f"{c['priced']} of {c['listed']} listed markets have an own price"
        if c["weight"] is not None:
            known = "" if c["weighed"] == c["listed"] else f" of those {c['weighed']} that can be weighed"
            text += f", with {c['weight']:.0%} of the weight{known}"
        text += "."
    if c["missing"]:
        text += f" Without a price: {', '.join(c['missing'])}."
    if basket.withheld:
        text += f" Not published: {basket.withheld}."
    return text


def _index_rows(name: str, rule: Basket, basket: BasketFigures) -> Iterator[Row]:
    for frequency, index in basket.indices.items():
        given = index.frame[index.frame["unrounded"].notna()]
        columns = (given.index.tolist(), given["unrounded"].tolist(), given["status"].tolist())
        for period, unrounded, status in zip(*columns, strict=True):
            value = round(unrounded, rule.rounding)
            yield Row("index", name, frequency, _index_unit(rule), period, value, unrounded, status, None)


# ---------------------------------------------------------------------------------- whole release


def _root(edition: Edition, prices: list[dict[str, Any]], indices: list[dict[str, Any]]) -> dict[str, Any]:
    publish = edition.operation.publish
    return {
        "meta": edition.meta("root"),
        "title": publish.title,
        "contact": publish.contact,
        "links": {
            "indices": "/v1/indices",
            "prices": "/v1/prices",
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
            "used_in_this_release": bool(used),
        }
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


# --------------------------------------------------------------------------------------- small


def _all_sources(lines: Iterable[Mapping[str, Any]]) -> set[str]:
    return {s for line in lines for s in line["sources"]}


def _years(periods: pd.Index) -> Iterator[tuple[str, range]]:
    """Yield each year with the positions of its periods, which are in order."""
    years = np.array([p[:4] for p in periods.tolist()], dtype=object)
    starts = [0, *(np.flatnonzero(years[1:] != years[:-1]) + 1).tolist(), len(years)]
    for first, after in zip(starts, starts[1:], strict=False):
        yield str(years[first]), range(first, after)


def _history(base: str, frequency: str, periods: pd.Index) -> list[dict[str, str]]:
    return [{"year": year, "href": f"{base}/{frequency}/{year}"} for year, _ in _years(periods)]


def _latest(frame: pd.DataFrame) -> dict[str, Any] | None:
    given = frame[frame["unrounded"].notna()]
    if given.empty:
        return None
    last = given.iloc[-1]
    return {
        "period": given.index[-1],
        "value": _number(last["value"]),
        "unrounded": _number(last["unrounded"]),
        "status": last["status"],
        "grade": _text(last["grade"]),
        "type": last["type"],
        "change": _change(given["unrounded"]),
    }


def _latest_index(index: Index, rounding: int) -> dict[str, Any] | None:
    given = index.frame[index.frame["unrounded"].notna()]
    if given.empty:
        return None
    last = given.iloc[-1]
    return {
        "period": given.index[-1],
        "value": round(float(last["unrounded"]), rounding),
        "unrounded": float(last["unrounded"]),
        "status": last["status"],
        "change": _change(given["unrounded"]),
    }


def _aged(edition: Edition, latest: dict[str, Any] | None, markets: Iterable[MarketPrices]) -> dict[str, Any] | None:
    """Add how old a figure is at its release, and whether that is more than its sources' rhythm explains."""
    if latest is None:
        return None
    period = latest["period"]
    end = pd.Period(period, "M" if len(period) == 7 else "D").end_time.date()
    age = (dt.date.fromisoformat(edition.released_at[:10]) - end).days
    made = [p for m in markets for p in map(m.made, FREQUENCIES) if p is not None]
    quoting = {edition.source_of[s.id] for p in made for s in p.quotes.series}
    allowed = max((edition.operation.sources[s].min_age_ok_days for s in quoting), default=0)
    return latest | {"age_days": age, "stale": age > allowed}


def _change(values: pd.Series) -> dict[str, Any]:
    """Per cent against the value before and the same period (or the last day up to it) of the year before."""
    last, period = float(values.iloc[-1]), str(values.index[-1])
    out: dict[str, Any] = {"before": None, "year": None, "unit": "%"}
    if len(values) > 1:
        out["before"] = _per_cent(last, float(values.iloc[-2]))
    year_ago = f"{int(period[:4]) - 1}{period[4:]}"
    earlier = values[values.index <= year_ago]
    if len(earlier) and earlier.index[-1] >= _near(year_ago):
        out["year"] = _per_cent(last, float(earlier.iloc[-1]))
    return out


def _near(period: str) -> str:
    """The same month, or ten days before a day: the nearest that a year's change may reach back to."""
    if len(period) == 7:
        return period
    day = pd.Timestamp(period[:8] + "28") if period.endswith("02-29") else pd.Timestamp(period)
    return str((day - pd.Timedelta(days=10)).date())


def _per_cent(new: float, old: float) -> float:
    return round((new / old - 1) * 100, 4)


def _month_end(month: str) -> int:
    return int(pd.Period(month, "M").end_time.tz_localize("UTC").value // 1000)


def _instant(microseconds: int) -> str:
    return pd.Timestamp(microseconds, unit="us", tz="UTC").strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _numbers(column: pd.Series) -> list[float | None]:
    return [None if v != v else v for v in column.astype("float64").tolist()]


def _number(value: Any) -> float | None:
    number = float(value)
    if math.isinf(number):
        raise ReleaseError(f"a figure is infinite: {value!r}")
    return None if math.isnan(number) else number


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
