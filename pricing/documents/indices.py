"""Documents of indices: the current one of each, and its history by year."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson

from pricing.config import Basket
from pricing.documents import form
from pricing.documents.edition import RECENT, Edition, Kept
from pricing.documents.prices import market_sources
from pricing.figures import BasketFigures, Figures, Weight, end_of_day
from pricing.index import Index
from pricing.published import Row
from pricing.releases import canonical
from pricing.sensitivity import Answer, Line, Sensitivity, Voices, of_index
from pricing.shocks import Told, of_series
from pricing.trade import Indicator
from pricing.twins import Twin, Twins


def index_files(
    edition: Edition,
    name: str,
    rule: Basket,
    basket: BasketFigures,
    figures: Figures,
    voices: Voices,
    kept: Kept,
    files: dict[str, bytes],
    prints: dict[str, str],
    told: Told,
) -> dict[str, Any]:
    """Write the documents of one index; return its line in the list of indices."""
    sources = _basket_sources(edition, rule, basket, figures)
    members = [figures.prices[part.key] for part in rule.constituents if part.key in figures.prices]
    recent, history, latest = {}, {}, {}
    for frequency, index in basket.indices.items():
        values = _index_values(index, rule.rounding)
        for year, positions in form.years(index.frame.index):
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
        history[frequency] = form.history(f"/v1/indices/{name}", frequency, index.frame.index)
        latest[frequency] = form.aged(edition, _latest_index(index, rule.rounding), members)
    beside = _indicators_beside(rule, basket, figures)
    statement = _statement(rule, basket, beside)
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
        "review": {"month": rule.review, "next": _next_review(rule, edition.released_at[:7])},
        "coverage": basket.coverage | {"statement": statement, "indicators": beside},
        "weights": _weights(edition, basket),
        "latest": latest,
        "shocks": of_series(told, name, edition.released_at)
        + [one for m in members for one in of_series(told, m.market.key, edition.released_at)],
        "contributions": {f: _moved(i, range(len(i.frame) - 1, len(i.frame)))[0] for f, i in basket.indices.items()},
        "values": recent,
        "history": history,
        **_twins(rule, basket.twins),
        "sensitivity": _sensitivity(edition, rule, basket, voices),
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
        "change": form.change(given["unrounded"]),
    }


def _index_unit(rule: Basket) -> str:
    return f"index, {rule.base_period} = 100"


def _index_values(index: Index, rounding: int) -> list[dict[str, Any]]:
    frame = index.frame
    numbers = form.numbers(frame["unrounded"])
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
            form.numbers(frame["covered"]),
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


def _next_review(rule: Basket, month: str) -> str:
    """Return the first month of review after a month: one that is under way is not the next."""
    year = int(month[:4]) + (int(month[5:]) >= rule.review)
    return f"{year:04d}-{rule.review:02d}"


ANALYTICAL = (
    "Analytical: compiled beside the monthly index to judge it, from the same prices; no index of its own, "
    "not to be used as one, and not queried as one."
)


def _twins(rule: Basket, made: Twins | None) -> dict[str, Any]:
    """Say the analytical twins of an index, and its drift; null where no index is published."""
    if made is None:
        return {"twins": None, "drift": None}
    twins = {name: _twin(rule, getattr(made, name)) for name in ("unweighted", "equal_risk", "superlative")}
    given = made.drift.dropna()
    drift = {
        "unit": "%",
        "of": f"level of the index over that of its superlative twin since the base, {rule.base_period}, less one",
        "latest": None if given.empty else {"period": given.index[-1], "value": round(float(given.iloc[-1]), 4)},
    }
    return {"twins": {"note": ANALYTICAL, **twins}, "drift": {"note": ANALYTICAL, **drift}}


def _twin(rule: Basket, twin: Twin) -> dict[str, Any]:
    rows = [
        {"period": period, "value": None if u is None else round(u, rule.rounding), "unrounded": u, "status": status}
        for period, u, status in zip(
            twin.frame.index.tolist(),
            form.numbers(twin.frame["unrounded"]),
            twin.frame["status"].tolist(),
            strict=True,
        )
    ]
    given = [row for row in rows if row["value"] is not None]
    weights = [
        {
            "link": link.month,
            "markets": [
                {"market": m, "share": s, "uncapped": link.uncapped[m], "volatility": twin.volatility[link.month][m]}
                for m, s in link.shares.items()
            ],
        }
        for link in twin.links
    ]
    return {
        "analytical": True,
        "formula": twin.formula,
        "withheld": twin.withheld or None,
        "latest": given[-1] if given else None,
        "values": rows[-RECENT["monthly"] :],
        **({"weights": weights} if weights else {}),
    }


SENSITIVITY = (
    "What one source alone, all else as it is, would have to quote for the last value of the index, and for the "
    "reference price, to move by so much. The determination is made anew for each quotation tried."
)


def _sensitivity(edition: Edition, rule: Basket, basket: BasketFigures, voices: Voices) -> dict[str, Any] | None:
    """Say what each quotation would have to be to move the index; None where no index is published."""
    if not basket.indices:
        return None
    found = of_index(basket.indices, voices, rule.base_period, rule.min_weight)
    return {
        "note": SENSITIVITY,
        "by": round(found.share * 100, 4),
        "unit": "%",
        "frequency": found.frequency,
        "period": found.period or None,
        "withheld": found.withheld or None,
        "quotations": [_quotation(edition, found, line) for line in found.lines],
        "left_out": [{"market": m, "reason": reason} for m, reason in found.left_out.items()],
    }


def _quotation(edition: Edition, found: Sensitivity, line: Line) -> dict[str, Any]:
    series, (period, quoted) = line.voice.series, line.voice.quotation
    return {
        "market": line.market,
        "series": series.id,
        "origin": series.origin,
        "source": edition.source_of[series.id],
        "unit": series.unit,
        "quoted": quoted,
        **({"quoted_for": period} if period != found.period else {}),
        "index": {way: _needed(answer, quoted) for way, answer in line.index.items()},
        "price": {way: _needed(answer, quoted) for way, answer in line.price.items()},
    }


def _needed(answer: Answer, quoted: float) -> dict[str, Any]:
    """The quotation that does it, its change and the figure's, in per cent; or why none does, and the most there is."""
    moves = round(answer.moves * 100, 6)
    if answer.cannot:
        return {"quotation": None, "cannot": answer.cannot, "most": moves}
    return {"quotation": answer.factor * quoted, "change": round((answer.factor - 1) * 100, 6), "moves": moves}


def _index_fingerprint(index: Index, values: list[dict[str, Any]], meta: dict[str, Any], positions: range) -> str:
    """Hash of everything that the values of some periods are made from."""
    rows = slice(positions.start, positions.stop)
    digest = hashlib.sha256(orjson.dumps([meta, values[rows], list(index.contributions.columns)]))
    for table in (index.contributions, index.weights, index.imputed):
        digest.update(np.ascontiguousarray(table.to_numpy()[rows]).tobytes())
    return digest.hexdigest()


def _weights(edition: Edition, basket: BasketFigures) -> list[dict[str, Any]]:
    links = next(iter(basket.indices.values())).links if basket.indices else ()
    out = []
    for link in links:
        out.append(
            {
                "link": link.month,
                "known_before_link": max(w.production_vintage for w in basket.weights[link.month])
                <= form.month_end(link.month),
                "markets": [
                    {
                        "market": w.market,
                        "share": link.shares[w.market],
                        "uncapped": link.uncapped[w.market],
                        "tonnes": w.tonnes,
                        "production": _production(edition, w),
                        "price_usd_per_t": w.price,
                        "price_year": w.price_year,
                    }
                    for w in basket.weights[link.month]
                ],
            }
        )
    return out


def _production(edition: Edition, weight: Weight) -> dict[str, Any]:
    """Where a tonnage comes from: a collected series, or a figure that the methodology cites."""
    name, period, vintage = weight.production_series, weight.production_period, weight.production_vintage
    said = {"period": period, "vintage": form.instant_text(vintage)}
    for one in edition.methodology.tonnages:
        if (one.id, one.period, end_of_day(one.published)) == (name, period, vintage):
            cited = {"cited": one.source, "published": one.published.isoformat(), "counts": one.element}
            return {"tonnage": name, **cited, "note": one.note or None, **said}
    return {"series": name, "source": edition.source_of[name], **said}


def _basket_sources(edition: Edition, rule: Basket, basket: BasketFigures, figures: Figures) -> set[str]:
    if basket.withheld:
        return set()
    sources: set[str] = set()
    for part in rule.constituents:
        if part.key in figures.prices:
            sources |= market_sources(edition, figures.prices[part.key])
    known = edition.source_of
    return sources | {known[p.production] for p in rule.constituents if p.production in known}


def _indicators_beside(rule: Basket, basket: BasketFigures, figures: Figures) -> dict[str, list[str]]:
    """Return the indicators of minerals that have no own price in the basket: evidence, but not in the index."""
    missing = {p.mineral for p in rule.constituents if p.key in basket.coverage["missing"]}
    products = sorted({f"{i.mineral}/{i.stage}" for i in figures.indicators if _has_value(i)})
    found = {m: [f"/v1/indicators/{p}" for p in products if p.split("/")[0] == m] for m in sorted(missing)}
    return {mineral: hrefs for mineral, hrefs in found.items() if hrefs}


def _has_value(indicator: Indicator) -> bool:
    return any((frame["rule"] == "").any() for frame in indicator.frames.values())


def _statement(rule: Basket, basket: BasketFigures, beside: Mapping[str, list[str]]) -> str:
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
    if beside:
        text += f" Of these, customs give unit values, which are not in the index, for: {', '.join(beside)}."
    if basket.withheld:
        text += f" Not published: {basket.withheld}."
    return text


def index_rows(name: str, rule: Basket, basket: BasketFigures) -> Iterator[Row]:
    """Yield the rows of an index that may be queried."""
    for frequency, index in basket.indices.items():
        given = index.frame[index.frame["unrounded"].notna()]
        columns = (given.index.tolist(), given["unrounded"].tolist(), given["status"].tolist())
        for period, unrounded, status in zip(*columns, strict=True):
            value = round(unrounded, rule.rounding)
            yield Row("index", name, frequency, _index_unit(rule), period, value, unrounded, status, None)
