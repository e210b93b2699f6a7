"""Documents of indicators: unit values of imports by product, and their cells by year."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import orjson
import pandas as pd

from pricing import trade
from pricing.config import Code, Customs, ImportBasket, Trade
from pricing.documents import form
from pricing.documents.edition import RECENT, Edition, Kept
from pricing.figures import Beside, Figures
from pricing.imports import ImportIndex
from pricing.published import Row
from pricing.releases import canonical
from pricing.trade import Indicator

FORMAT = 1  # raised when a part says the same figures in other words or digits
SIGNIFICANT = 4  # figures of a rounded unit value: it is no more precise than that
NOT_A_PRICE = (
    "A unit value is the value of imports over their mass. It is not a price: it moves with the mix of qualities, "
    "contracts and partners. Three-month values overlap: they measure neither volatility nor forecast skill."
)
_MASSES = ("low", "high", "month_value", "tonnes")
_COUNTS = ("months", "cells", "partners")
_SHARES = ("kept_value", "largest", "china_share", "reported")
_CELLS = ["period", "code", "reporter", "partner", "value", "kg", "usd", "tonnes", "rule"]


def indicator_files(
    edition: Edition, figures: Figures, kept: Kept, files: dict[str, bytes], prints: dict[str, str]
) -> list[dict[str, Any]]:
    """Write the documents of all indicators; return the lines of their list."""
    products: dict[tuple[str, str], list[Indicator]] = {}
    for one in figures.indicators:
        products.setdefault((one.mineral, one.stage), []).append(one)
    return [
        _product_files(edition, figures, mineral, stage, members, kept, files, prints)
        for (mineral, stage), members in products.items()
    ]


def _product_files(
    edition: Edition,
    figures: Figures,
    mineral: str,
    stage: str,
    members: list[Indicator],
    kept: Kept,
    files: dict[str, bytes],
    prints: dict[str, str],
) -> dict[str, Any]:
    key = f"{mineral}/{stage}"
    rules = _rules(edition)
    origins, latest, sources = {}, {}, set()
    for one in members:
        name, customs = edition.customs_of[one.origin]
        own = {name} | (edition.fx_sources if customs.currency != "USD" else set())
        sources |= own
        months = next(iter(one.frames.values())).index
        for year, positions in form.years(months):
            file = f"indicators/{key}/{one.origin}/{year}.json"
            meta = {"id": f"{key}/{one.origin}/{year}", **edition.part_meta(own, codes=True)}
            prints[file] = _fingerprint(one, meta, positions)
            files[file] = kept(file, prints[file]) or canonical(_part(one, edition, meta, year, positions))
        latest[one.origin] = {leg: _latest(edition, frame, name) for leg, frame in one.frames.items()}
        origins[one.origin] = {
            "title": customs.title,
            "source": name,
            "valuation": customs.valuation,
            "currency": customs.currency,
            "codes": [_code_facts(c) for c in edition.methodology.codes if _counts(c, customs, one)],
            "latest": latest[one.origin],
            "values": {leg: _values(frame.iloc[-RECENT["monthly"] :]) for leg, frame in one.frames.items()},
            "gap": _gap_values(one.gap.iloc[-RECENT["monthly"] :]),
            "exclusions": _counted(one),
            "supply": _supply(one, figures.partners.get(one.origin, {})),
            "history": form.history(f"/v1/indicators/{key}", one.origin, months),
        }
    facts = {
        "mineral": mineral,
        "stage": stage,
        "unit": unit(members[0], edition),
        "per": members[0].per,
        "window_months": rules.window_months,
        "interval_per_cent": rules.interval,
        "grade": "C at best",
        "reading": NOT_A_PRICE,
    }
    files[f"indicators/{key}.json"] = canonical(
        {
            "meta": edition.meta(f"indicators/{key}", sources, codes=True),
            "indicator": facts,
            "origins": origins,
            "record": [_record(r) for r in figures.records.get(key, ())],
        }
    )
    return {
        "id": key,
        "unit": facts["unit"],
        "latest": latest,
        "sources": sorted(sources),
        "href": f"/v1/indicators/{key}",
    }


def _record(row: Beside) -> dict[str, Any]:
    found = {k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(row.record).items()}
    return {"of": row.of, "beside": row.beside, **found}


def unit(one: Indicator, edition: Edition) -> str:
    """Unit of an indicator, in words that a partner reads."""
    if one.per == "product":
        return "USD/t of product"
    element = next(
        c.element for c in edition.methodology.codes if (c.mineral, c.stage) == (one.mineral, one.stage) and c.element
    )
    return f"USD/t {element} contained"


def _rules(edition: Edition) -> Trade:
    assert edition.methodology.trade is not None
    return edition.methodology.trade


def _counts(code: Code, customs: Customs, one: Indicator) -> bool:
    return (code.system, code.mineral, code.stage) == (customs.system, one.mineral, one.stage)


def _code_facts(code: Code) -> dict[str, Any]:
    """A tariff code as a reader needs it; one that is not confirmed says that it is in no figure."""
    return {
        "system": code.system,
        "code": code.code,
        "title": code.title,
        "valid_from": code.valid_from or None,
        "valid_to": code.valid_to or None,
        "units": list(code.units),
        "mass": "contained" if code.basis == "contained" else "gross",
        "content": code.content,
        "content_source": code.content_source or None,
        "stem": code.stem or None,
        "used": code.certainty == "confirmed",
        "note": code.note or None,
        "source": code.source,
    }


# -------------------------------------------------------------------------------------- values


def significant(value: float | None) -> float | None:
    """Round to the figures that a unit value can bear."""
    if value is None or value == 0:
        return value
    return round(value, SIGNIFICANT - 1 - math.floor(math.log10(abs(value))))


def _values(frame: pd.DataFrame) -> list[dict[str, Any]]:
    columns = {c: form.numbers(frame[c]) for c in ("value", "hhi", *_MASSES, *_SHARES)}
    words: dict[str, list[Any]] = {c: frame[c].tolist() for c in ("rule", "break", "counted", *_COUNTS)}
    out = []
    for t, period in enumerate(frame.index.tolist()):
        value, hhi = columns["value"][t], columns["hhi"][t]
        out.append(
            {
                "period": period,
                "value": significant(value),
                "unrounded": value,
                "status": "normal" if value is not None else "withheld",
                "rule": words["rule"][t] or None,
                "grade": "C" if value is not None else None,
                **{c: significant(columns[c][t]) for c in _MASSES},
                **{c: int(words[c][t]) for c in _COUNTS},
                **{c: None if (x := columns[c][t]) is None else round(x, 4) for c in _SHARES},
                "hhi": None if hhi is None else round(hhi),
                "break": bool(words["break"][t]),
                "counted": words["counted"][t].split(),
            }
        )
    return out


def _gap_values(gap: pd.DataFrame) -> list[dict[str, Any]]:
    """In per cent, to a tenth."""
    columns = (gap.index.tolist(), *(form.numbers(gap[c] * 100) for c in ("gap", "low", "high")))
    return [
        {"period": p, "value": round(g or 0.0, 1), "low": round(a or 0.0, 1), "high": round(b or 0.0, 1), "unit": "%"}
        for p, g, a, b in zip(*columns, strict=True)
    ]


def _latest(edition: Edition, frame: pd.DataFrame, source: str) -> dict[str, Any] | None:
    """The last month with a value; how old it is, and why none is newer."""
    given = frame.index[frame["rule"] == ""]
    if given.empty:
        return None
    row = _values(frame.loc[[given[-1]]])[0]
    values = frame.loc[given, "value"]
    allowed = edition.operation.sources[source].min_age_ok_days
    age = form.age_days(edition, row["period"])
    return {
        **{k: row[k] for k in ("period", "value", "unrounded", "low", "high", "status", "grade")},
        "change": _changes(values, _rules(edition).window_months),
        "age_days": age,
        "stale": age > allowed,
        "withheld_since": [{"period": p, "rule": frame.at[p, "rule"]} for p in frame.index[frame.index > given[-1]]],
    }


def _changes(values: pd.Series, window: int) -> dict[str, Any]:
    """Per cent against the last window that shares no month with this one, and against the year before."""
    last = str(values.index[-1])
    out: dict[str, Any] = {}
    for name, months in (("window", window), ("year", 12)):
        before = str(pd.Period(last, "M") - months)
        out[name] = form.per_cent(values[last], values[before]) if before in values.index else None
    return out | {"unit": "%"}


def _counted(one: Indicator) -> dict[str, int]:
    """Cells by the rule that excluded them, over the whole history."""
    counts = one.cells.loc[one.cells["rule"] != "", "rule"].value_counts()
    return {str(rule): int(n) for rule, n in sorted(counts.items(), key=lambda pair: str(pair[0]))}


def _supply(one: Indicator, names: Mapping[str, str]) -> dict[str, Any]:
    """Imported tonnes by partner over twelve months, beside the twelve before."""
    last = pd.Period(one.frames["WLD"].index[-1], "M")
    now, before = trade.supply(one.cells, last), trade.supply(one.cells, last - 12)
    return _supplied(now) | {
        "unit": "t" if one.per == "product" else "t contained",
        "before": _supplied(before),
        "partners": [
            {
                "partner": partner,
                "name": names.get(str(partner)),
                "tonnes": significant(tonnes),
                "share": round(share, 4),
            }
            for partner, tonnes, share in zip(now.index, now["tonnes"].tolist(), now["share"].tolist(), strict=True)
        ],
    }


def _supplied(table: pd.DataFrame) -> dict[str, Any]:
    china = float(table.loc[table["leg"] == "CN", "share"].sum())
    return {
        "first": table.attrs["first"],
        "last": table.attrs["last"],
        "tonnes": significant(float(table["tonnes"].sum())),
        "hhi": round(float((table["share"] ** 2).sum()) * 10_000) if len(table) else None,
        "china_share": round(china, 4) if len(table) else None,
    }


# --------------------------------------------------------------------------------------- parts


def _part(one: Indicator, edition: Edition, meta: dict[str, Any], year: str, positions: range) -> dict[str, Any]:
    """One year: every figure, and every cell with the rule that excluded it."""
    months = next(iter(one.frames.values())).index[positions.start : positions.stop]
    cells = one.cells[one.cells["period"].isin(months)]
    rows = cells[_CELLS].astype(object).where(cells[_CELLS].notna(), None)
    gap = one.gap[one.gap.index.isin(months)]
    return {
        "meta": meta,
        "unit": unit(one, edition),
        "origin": one.origin,
        "year": year,
        "values": {leg: _values(frame.loc[months]) for leg, frame in one.frames.items()},
        "gap": _gap_values(gap),
        "cells": {"columns": _CELLS, "rows": rows.to_numpy().tolist()},
    }


def _fingerprint(one: Indicator, meta: dict[str, Any], positions: range) -> str:
    """Hash of everything that a year's part is made from."""
    months = next(iter(one.frames.values())).index[positions.start : positions.stop]
    cells = one.cells[one.cells["period"].isin(months)]
    digest = hashlib.sha256(orjson.dumps([FORMAT, meta, one.per, months.tolist()]))
    tables = [frame.loc[months] for frame in one.frames.values()]
    for table in (*tables, one.gap[one.gap.index.isin(months)], cells):
        numbers = table.select_dtypes("number")
        digest.update(np.ascontiguousarray(numbers.to_numpy(dtype="float64")).tobytes())
        digest.update(orjson.dumps(table.drop(columns=numbers.columns).astype(object).to_numpy().tolist()))
    return digest.hexdigest()


def indicator_rows(edition: Edition, figures: Figures) -> Iterator[Row]:
    """Yield the rows of all indicators that may be queried."""
    for one in figures.indicators:
        for leg, frame in one.frames.items():
            name = f"{one.mineral}/{one.stage}/{one.origin}/{leg}"
            for period, value in frame.loc[frame["rule"] == "", "value"].items():
                rounded = significant(float(value))
                assert rounded is not None
                yield Row("indicator", name, "monthly", unit(one, edition), str(period), rounded, value, "normal", "C")


# ------------------------------------------------------------------------------- index of imports


def import_files(
    edition: Edition, figures: Figures, kept: Kept, files: dict[str, bytes], prints: dict[str, str]
) -> list[dict[str, Any]]:
    """Write the index of imports of each origin; return the lines of their list."""
    lines = []
    for name, members in figures.imports.items():
        rule = edition.methodology.imports[name]
        for index in members:
            lines.append(_import_index(edition, name, rule, index, kept, files, prints))
    return lines


def _import_index(
    edition: Edition,
    name: str,
    rule: ImportBasket,
    index: ImportIndex,
    kept: Kept,
    files: dict[str, bytes],
    prints: dict[str, str],
) -> dict[str, Any]:
    key = f"{name}/{index.origin}"
    source, customs = edition.customs_of[index.origin]
    sources = {source} | (edition.fx_sources if customs.currency != "USD" else set())
    values = [] if index.withheld else _import_values(index, rule.rounding)
    facts: dict[str, Any] = {
        "title": rule.title,
        "origin": customs.title,
        "unit": f"indicator, {rule.base_period} = 100",
    }
    line = {"id": key, **facts, "published": not index.withheld, "withheld": index.withheld or None}
    if index.withheld:
        return line | {"latest": None, "sources": [], "href": None}
    for year, positions in form.years(index.frame.index):
        file = f"imports/{key}/{year}.json"
        content = {
            "meta": {"id": f"{key}/{year}", **edition.part_meta(sources, codes=True)},
            **facts,
            "year": year,
            "values": values[positions.start : positions.stop],
        }
        prints[file] = hashlib.sha256(orjson.dumps(content)).hexdigest()
        files[file] = kept(file, prints[file]) or canonical(content)
    given = [v for v in values if v["value"] is not None]
    files[f"imports/{key}.json"] = canonical(
        {
            "meta": edition.meta(f"imports/{key}", sources, codes=True),
            **facts,
            "formula": "GEKS-Törnqvist over a rolling window, movement splice; on the year: Fisher",
            "reading": NOT_A_PRICE,
            "latest": _import_latest(edition, given, source),
            "values": [{k: v[k] for k in _SHORT} for v in values[-RECENT["monthly"] :]],
            "history": [{"year": y, "href": f"/v1/imports/{key}/{y}"} for y, _ in form.years(index.frame.index)],
        }
    )
    latest = _import_latest(edition, [{k: v[k] for k in _SHORT} for v in given[-1:]], source)
    return line | {"latest": latest, "sources": sorted(sources), "href": f"/v1/imports/{key}"}


def _import_latest(edition: Edition, given: list[dict[str, Any]], source: str) -> dict[str, Any] | None:
    if not given:
        return None
    age = form.age_days(edition, given[-1]["period"])
    return given[-1] | {"age_days": age, "stale": age > edition.operation.sources[source].min_age_ok_days}


_SHORT = ("period", "value", "unrounded", "year", "items", "covered")


def _import_values(index: ImportIndex, rounding: int) -> list[dict[str, Any]]:
    frame = index.frame
    columns = {c: form.numbers(frame[c]) for c in ("value", "year", "covered")}
    out = []
    for t, period in enumerate(frame.index):
        value, year = columns["value"][t], columns["year"][t]
        out.append(
            {
                "period": period,
                "value": None if value is None else round(value, rounding),
                "unrounded": value,
                "moved_by": {str(k): v for k, v in index.moved_by.iloc[t].items() if v} if value is not None else {},
                "year": None if year is None else {"value": round(year, 1), "unrounded": year, "unit": "%"},
                "year_by": {str(k): v for k, v in index.year_by.iloc[t].items() if v == v and v},
                "since": frame["since"].iloc[t] or None,
                "rule": frame["rule"].iloc[t] or None,
                "items": int(frame["items"].iloc[t]),
                "covered": round(columns["covered"][t] or 0.0, 4),
            }
        )
    return out


def import_rows(edition: Edition, figures: Figures) -> Iterator[Row]:
    """Yield the rows of all indices of imports that may be queried."""
    for name, members in figures.imports.items():
        rule = edition.methodology.imports[name]
        for index in (i for i in members if not i.withheld):
            unit_of = f"indicator, {rule.base_period} = 100"
            for v in _import_values(index, rule.rounding):
                if v["value"] is not None:
                    key = f"{name}/{index.origin}"
                    yield Row(
                        "imports", key, "monthly", unit_of, v["period"], v["value"], v["unrounded"], "normal", "C"
                    )
