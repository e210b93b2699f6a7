"""Documents of gaps between China and the world, and of spreads between stages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import orjson
import pandas as pd

from pricing import units
from pricing.documents import form
from pricing.documents.edition import RECENT, Edition, Kept
from pricing.documents.prices import market_sources
from pricing.figures import FREQUENCIES, Figures, MarketPrices
from pricing.published import Kind, Row
from pricing.releases import canonical
from pricing.spreads import Gap, Spread

UNIT = "% of the price outside China"
READING = (
    "China's price over the price outside, less one: without value-added tax, as quoted (gross), and with the tax that "
    "is not refunded on export (export parity). The two prices differ in grade, delivery and what the sellers' margin "
    "holds, so the level is to be read with care; its change says more."
)
SPREAD_READING = (
    "The price of the upper stage less that of the lower one, per tonne of the element that both contain, without tax. "
    "It is no processing margin: recovery, by-products and charges are not in it."
)
PARITY = {
    "formula": "China's price without tax × (1 + VAT − rebate)",
    "source": "ours, on the rule that tax which is not refunded is part of the cost of an export (Caishui [2012] 39)",
    "not_in_it": "export duty, licence, freight, insurance",
}
BASES: dict[str, Kind] = {"net": "gap", "gross": "gap-gross", "export_parity": "gap-export-parity"}


def gap_files(
    edition: Edition, figures: Figures, kept: Kept, files: dict[str, bytes], prints: dict[str, str]
) -> list[dict[str, Any]]:
    """Write the documents of each product that has a market on both sides; return the lines of their list."""
    return [_gap_files(edition, figures, key, gap, kept, files, prints) for key, gap in figures.gaps.items()]


def _gap_files(
    edition: Edition,
    figures: Figures,
    key: str,
    gap: Gap,
    kept: Kept,
    files: dict[str, bytes],
    prints: dict[str, str],
) -> dict[str, Any]:
    zones = {z: figures.prices[m] for z in ("CN", "XCN", "WLD") if (m := f"{key}/{z}") in figures.prices}
    pair = [figures.prices[gap.china], figures.prices[gap.other]]
    sources = sorted(set().union(*(market_sources(edition, market) for market in zones.values())))
    price_unit = pair[0].market.unit  # of both sides: else there is no gap
    history = {}
    for frequency, frame in gap.frames.items():
        history[frequency] = form.history(f"/v1/gaps/{key}", frequency, frame.index)
        for year, positions in form.years(frame.index):
            meta = {"id": f"{key}/{frequency}/{year}", **edition.part_meta(sources)}
            name, part = f"gaps/{key}/{frequency}/{year}.json", frame.iloc[positions.start : positions.stop]
            prints[name] = _fingerprint([meta, gap.china, gap.other, price_unit], part)
            files[name] = kept(name, prints[name]) or canonical(
                {
                    "meta": meta,
                    **_sides(gap, price_unit),
                    "frequency": frequency,
                    "year": year,
                    "values": _gap_values(part),
                }
            )
    latest = form.aged(edition, _latest(gap), pair)
    values = {f: _gap_values(frame.iloc[-RECENT[f] :]) for f, frame in gap.frames.items()}
    files[f"gaps/{key}.json"] = canonical(
        {
            "meta": edition.meta(f"gaps/{key}", sources),
            **_sides(gap, price_unit),
            "reading": READING,
            "withheld": gap.withheld or None,
            "exchange_rate": _exchange_rate(edition, zones.values()),
            "export_parity": PARITY | _tax_tables(edition, key),
            "days_apart": edition.methodology.gap_days if "daily" in gap.frames else None,
            "latest": latest,
            "values": values,
            "side_by_side": _side_by_side(zones),
            "history": history,
        }
    )
    line = {"id": key, "china": gap.china, "other": gap.other, "unit": UNIT, "frequencies": list(gap.frames)}
    return line | {
        "price_unit": price_unit,
        "latest": latest,
        "withheld": gap.withheld or None,
        "sources": sources,
        "href": f"/v1/gaps/{key}",
    }


def _sides(gap: Gap, price_unit: str) -> dict[str, Any]:
    return {"gap": {"china": gap.china, "other": gap.other, "unit": UNIT, "price_unit": price_unit}}


def _latest(gap: Gap) -> dict[str, Any] | None:
    """The last figure at the first frequency that has one: by month where there are months."""
    for frequency, frame in gap.frames.items():
        given = frame[frame["net"].notna()]
        if len(given):
            return {"frequency": frequency, **_gap_values(given.iloc[-1:])[0]}
    return None


def _gap_values(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One row for each period of either side: the gap on three bases, or why there is none."""
    columns = {str(c): form.numbers(frame[c]) for c in frame.select_dtypes("number")}
    words = {str(c): frame[c].tolist() for c in frame.columns if c not in columns}
    out = []
    for t, period in enumerate(frame.index.tolist()):
        net = columns["net"][t]
        row: dict[str, Any] = {
            "period": period,
            "value": None if net is None else round(net, 2),
            "unrounded": net,
            "unit": "%",
            "status": words["status"][t],
            "grade": form.text(words["grade"][t]),
            "china": columns["china"][t],
            "other": columns["other"][t],
        }
        if net is None:
            out.append(row | {"reason": words["why"][t]})
            continue
        gross, parity = (_basis(columns, basis, t) for basis in ("gross", "export_parity"))
        row["gross"] = {"value": None, "reason": words["why_gross"][t]} if gross is None else gross
        row["export_parity"] = {"value": None, "reason": words["why_export_parity"][t]} if parity is None else parity
        for side in ("china_period", "other_period"):
            if words[side][t] != period:
                row[side] = words[side][t]
        out.append(row)
    return out


def _basis(columns: Mapping[str, list[float | None]], basis: str, t: int) -> dict[str, Any] | None:
    value, china = columns[basis][t], columns[f"china_{basis}"][t]
    if value is None or china is None:
        return None
    rates = {"vat": columns["vat_inside"][t]}
    if basis == "export_parity":
        rates = {"vat": columns["vat"][t], "rebate": columns["rebate"][t]}
    return {"value": round(value, 2), "unrounded": value, "china": round(china, 2), **rates}


def _fingerprint(heads: list[Any], frame: pd.DataFrame) -> str:
    """Hash of everything that a year's part is made from."""
    numbers = frame.select_dtypes("number")
    words = frame.drop(columns=numbers.columns).astype(object).to_numpy().tolist()
    digest = hashlib.sha256(orjson.dumps([*heads, frame.index.tolist(), words]))
    digest.update(np.ascontiguousarray(numbers.to_numpy(dtype="float64")).tobytes())
    return digest.hexdigest()


def _exchange_rate(edition: Edition, markets: Iterable[MarketPrices]) -> dict[str, Any] | None:
    """Which rates brought the prices to dollars; None where all were quoted in dollars."""
    made = [p for m in markets for f in FREQUENCIES if (p := m.made(f)) is not None]
    currencies = {s.unit.partition("/")[0] for p in made for s in p.quotes.series if "/" in s.unit} - {"USD", "USc"}
    if not currencies:
        return None
    return {
        "currencies": sorted(currencies),
        "rates": "simulated euro reference rates" if edition.simulated else units.ECB,
        "rule": "dollars per unit of a currency are the cross of two rates of the same day; a month or ten-day period "
        "takes the mean of its daily crosses",
        "sources": sorted(edition.fx_sources),
    }


def _tax_tables(edition: Edition, key: str) -> dict[str, Any]:
    recorded = [r for r in edition.methodology.rebates if f"{r.mineral}/{r.stage}" == key]
    rebates = [
        {"from": r.since.isoformat(), "rate": r.rate, "source": r.source, "note": r.note or None}
        for r in sorted(recorded, key=lambda r: r.since)
    ]
    vat = [{"from": day, "rate": rate, "source": source} for day, rate, source in units.VAT]
    return {"vat": vat, "rebates": rebates, "reason": None if rebates else "no export rebate of it is recorded"}


def _side_by_side(zones: Mapping[str, MarketPrices]) -> dict[str, list[dict[str, Any]]]:
    """The reference prices of all zones, by period, at each frequency that two of them have."""
    out = {}
    for frequency in FREQUENCIES:
        frames = {z: f for z, m in zones.items() if len(f := m.frame(frequency))}
        if len(frames) > 1:
            periods = sorted(set().union(*(f.index[-RECENT[frequency] :] for f in frames.values())))
            told = {z: _told(f.reindex(periods[-RECENT[frequency] :])) for z, f in frames.items()}
            rows = zip(periods[-RECENT[frequency] :], *told.values(), strict=True)
            out[frequency] = [{"period": p, **dict(zip(told, prices, strict=True))} for p, *prices in rows]
    return out


def _told(frame: pd.DataFrame) -> list[dict[str, Any] | None]:
    values = form.numbers(frame["value"])
    words = zip(*(frame[c].tolist() for c in ("status", "grade", "type")), strict=True)
    return [
        {"value": v, "status": status, "grade": form.text(grade), "type": kind} if isinstance(status, str) else None
        for v, (status, grade, kind) in zip(values, words, strict=True)
    ]


def gap_rows(figures: Figures) -> Iterator[Row]:
    """Yield the rows of all gaps that may be queried, a kind for each basis."""
    for key, gap in figures.gaps.items():
        for frequency, frame in gap.frames.items():
            for basis, kind in BASES.items():
                given = frame[frame[basis].notna()]
                columns = (given.index.tolist(), *(given[c].tolist() for c in (basis, "status", "grade")))
                for period, value, status, grade in zip(*columns, strict=True):
                    yield Row(kind, key, frequency, "%", period, round(value, 2), value, status, form.text(grade))


# -------------------------------------------------------------------------------------- stages


def spread_files(edition: Edition, figures: Figures, files: dict[str, bytes]) -> list[dict[str, Any]]:
    """Write the stage spreads of each mineral and zone; return the lines of their list."""
    return [_spread_files(edition, figures, name, members, files) for name, members in figures.spreads.items()]


def _spread_files(
    edition: Edition, figures: Figures, name: str, members: Iterable[Spread], files: dict[str, bytes]
) -> dict[str, Any]:
    used, told, lines = [], [], []
    for one in members:
        pair = [figures.prices[k] for k in (one.upper, one.lower) if k in figures.prices]
        used += pair
        values = _spread_values(one)
        given = [v for v in values if v["value"] is not None]
        facts: dict[str, Any] = {
            "upper": one.upper,
            "lower": one.lower,
            "unit": one.unit,
            "withheld": one.withheld or None,
        }
        facts["latest"] = form.aged(edition, given[-1] if given else None, pair)
        lines.append(facts)
        told.append({**facts, "values": values})
    sources = sorted(set().union(*(market_sources(edition, market) for market in used)))
    files[f"spreads/{name}.json"] = canonical(
        {
            "meta": edition.meta(f"spreads/{name}", sources),
            "reading": SPREAD_READING,
            "exchange_rate": _exchange_rate(edition, used),
            "spreads": told,
        }
    )
    return {"id": name, "pairs": lines, "sources": sources, "href": f"/v1/spreads/{name}"}


def _spread_values(one: Spread) -> list[dict[str, Any]]:
    if one.frame.empty:
        return []
    columns = {c: form.numbers(one.frame[c]) for c in ("spread", "upper", "lower")}
    words = {c: one.frame[c].tolist() for c in ("status", "grade", "why")}
    return [
        {
            "period": period,
            "value": None if value is None else round(value, 2),
            "unrounded": value,
            "status": words["status"][t],
            "grade": form.text(words["grade"][t]),
            "upper": columns["upper"][t],
            "lower": columns["lower"][t],
            **({"reason": words["why"][t]} if value is None else {}),
        }
        for t, (period, value) in enumerate(zip(one.frame.index.tolist(), columns["spread"], strict=True))
    ]


def spread_rows(figures: Figures) -> Iterator[Row]:
    """Yield the rows of all stage spreads that may be queried, as ``mineral/zone/upper/lower``."""
    for name, members in figures.spreads.items():
        for one in members:
            upper, lower = (key.split("/")[1] for key in (one.upper, one.lower))
            for v in _spread_values(one):
                if v["value"] is not None:
                    figure = (v["period"], v["value"], v["unrounded"], v["status"], v["grade"])
                    yield Row("spread", f"{name}/{upper}/{lower}", "monthly", one.unit, *figure)
