"""Documents of reference prices: the current one of each market, and its records by year."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import orjson
import pandas as pd

from pricing import units
from pricing.config import Market
from pricing.documents import form
from pricing.documents.edition import RECENT, Edition, Kept
from pricing.fallback import COLUMNS as LINKED
from pricing.figures import FREQUENCIES, Late, MarketPrices
from pricing.judgement import Judgement
from pricing.published import Row
from pricing.reference import Prices, influence
from pricing.releases import canonical
from pricing.shocks import Told, of_series


def market_files(
    edition: Edition,
    key: str,
    market: MarketPrices,
    kept: Kept,
    files: dict[str, bytes],
    prints: dict[str, str],
    late: Iterable[Late] = (),
    told: Told | None = None,
) -> dict[str, Any]:
    """Write the documents of one market; return its line in the list of prices.

    ``late``: what came after the cut-off of its series, ``told``: shocks; of all markets.
    """
    told = told or Told()
    sources = sorted(market_sources(edition, market))
    history: dict[str, list[dict[str, str]]] = {}
    recent: dict[str, list[dict[str, Any]]] = {}
    for frequency in FREQUENCIES:
        frame = market.frame(frequency)
        if frame.empty:
            continue
        records = _Records(edition, market, frequency, told)
        for year, positions in form.years(frame.index):
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
        history[frequency] = form.history(f"/v1/prices/{key}", frequency, frame.index)
        recent[frequency] = [records.value(t) for t in range(max(0, len(frame) - RECENT[frequency]), len(frame))]
    latest = {f: form.aged(edition, form.latest(market.frame(f)), [market]) for f in recent}
    files[f"prices/{key}.json"] = canonical(
        {
            "meta": edition.meta(key, sources),
            "market": _market_facts(market.market),
            "contributors": _contributors(edition, market),
            "late": [asdict(one) for one in late if one.series in _quoting(market)],
            "latest": latest,
            "shocks": of_series(told, key, edition.released_at),
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


def _quoting(market: MarketPrices) -> set[str]:
    return {s.id for made in map(market.made, FREQUENCIES) if made is not None for s in made.quotes.series}


_INTERVAL = ("interval_low", "interval_high")
FORMAT = 3  # raised when a record says the same figures in other words


class _Records:
    """Values and determination records of one market at one frequency, by position in its frame."""

    def __init__(self, edition: Edition, market: MarketPrices, frequency: str, told: Told) -> None:
        self._edition, self._market, self._frequency = edition, market, frequency
        self._frame = market.frame(frequency)
        self._made = market.made(frequency)
        self._periods: list[str] = self._frame.index.tolist()
        made_at = self._made.frame.index if self._made is not None else self._frame.index[:0]
        self._at: list[int] = made_at.get_indexer(self._frame.index).tolist()
        columns = ("unrounded", "value", "low", "high", "mean", "spread", "largest_weight", *_INTERVAL)
        self._numbers = {c: form.numbers(self._frame[c]) for c in columns}
        self._words = {c: self._frame[c].tolist() for c in ("status", "type", "grade", "origins")}
        self._extra = {c: form.numbers(self._frame[c]) for c in ("days", "weekdays", "estimated") if c in self._frame}
        self._links = {c: form.numbers(self._frame[c]) for c in LINKED if c in self._frame}
        self._carried = _carried_of(self._frame)
        self._priced: dict[str, int] = {}
        if frequency == "monthly" and market.daily is not None:
            days = market.daily.frame.index[market.daily.frame["unrounded"].notna()]
            self._priced = dict(Counter(str(day)[:7] for day in days))
        self._shocks = told.by_period(market.market.key, frequency, self._periods)
        self._judged = _judged(market, frequency)
        self._days_judged: dict[str, int] = {}
        if frequency == "monthly":
            of_days = _judged(market, "daily" if market.daily is not None else "ten-day")
            self._days_judged = dict(Counter(str(day)[:7] for day in of_days))
        self._head = self._heads(edition, self._made) if self._made is not None else []
        self._sources = sorted(market_sources(edition, market))
        if self._made is not None:
            q = self._made.quotes
            self._value, self._usd, self._fx, self._vat = (
                t.to_numpy(dtype="float64") for t in (q.value, q.usd_per_t, q.fx, q.vat)
            )
            self._fx_period, self._status = q.fx_period.to_numpy(), q.status.to_numpy()
            is_closed = np.array([s.id in q.closed for s in q.series] + [False])
            largest, origin = influence(self._made)
            self._influence = list(zip(form.numbers(pd.Series(largest)), origin.tolist(), strict=True))
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
            "grade": form.text(self._words["grade"][t]),
            "type": self._words["type"][t],
            "interval": self._interval(t),
        }

    def _interval(self, t: int) -> dict[str, Any] | None:
        low, high = self._numbers["interval_low"][t], self._numbers["interval_high"][t]
        if low is None or high is None:
            return None
        places = self._market.market.rounding
        level = self._edition.methodology.determination.interval
        return {"low": round(low, places), "high": round(high, places), "level": level}

    def record(self, t: int) -> dict[str, Any]:
        """The determination record of one period."""
        out = self.value(t)
        out["origins"] = int(self._words["origins"][t])
        if ids := self._shocks.get(self._periods[t]):
            out["shocks"] = ids
        kind = self._words["type"][t]
        if kind.startswith("mean-of-"):
            ten_day = kind.endswith("ten-days")
            parts = ("ten_day_periods", "of") if ten_day else ("days", "weekdays")
            from_records = f"{'ten-day' if ten_day else 'daily'}/{self._periods[t][:4]}"
            out |= {
                parts[0]: int(self._extra["days"][t] or 0),
                parts[1]: int(self._extra["weekdays"][t] or 0),
                "records": f"/v1/prices/{self._market.market.key}/{from_records}",
            }
            if estimated := int(self._extra["estimated"][t] or 0):
                out["estimated_ten_day_periods" if ten_day else "estimated_days"] = estimated
            if judged := self._days_judged.get(self._periods[t]):
                out["judged_ten_day_periods" if ten_day else "judged_days"] = judged
            return out
        out |= {
            "range": {
                "low": self._numbers["low"][t],
                "high": self._numbers["high"][t],
                "mean": self._numbers["mean"][t],
            },
            "spread": self._numbers["spread"][t],
            "largest_weight": self._numbers["largest_weight"][t],
            "influence": self._of_one(self._at[t]),
            "carried": self._carried[t],
            "judgement": self._judgement(self._periods[t]),
            **self._inputs(self._at[t]),
        }
        if self._priced:
            out["not_from_days"] = self._days_priced(self._periods[t])
        out["tiers"] = tiers = _tiers(out["contributors"])
        out["determination_type"] = determination_type(tiers, len(out["contributors"]), out["unrounded"] is not None)
        if out["type"] == "spread":
            out["determination_type"], out["linked"] = "spread-based", self._linked_to(t)
        elif out["type"] == "judged" and out["unrounded"] is not None:
            out["determination_type"] = "judged"
        elif out["carried"] is not None:
            out["determination_type"] = "carried"
        if self._at[t] >= 0 and self._closed[self._at[t]]:
            out["influence"] = out["carried"] = None
            # With the open values and the price, a closed one could be solved for.
            out["range"] = out["spread"] = None
        return out

    def _linked_to(self, t: int) -> dict[str, Any]:
        """The linked market's price and the ratio that made an estimate."""
        price, ratio, common = (self._links[c][t] for c in ("linked_price", "linked_ratio", "linked_common"))
        market = self._market.market.linked
        return {"market": market, "price": price, "ratio": ratio, "common": int(common or 0)}

    def _days_priced(self, month: str) -> dict[str, Any] | None:
        """How many days of a month have a price, where they are too few or others' to make its mean."""
        priced = self._priced.get(month, 0)
        if not priced:
            return None
        first = np.datetime64(month, "M")
        return {
            "priced": priced,
            "weekdays": int(np.busday_count(first, first + 1)),
            "needed": self._edition.methodology.determination.month_share,
        }

    def _judgement(self, period: str) -> str | list[dict[str, Any]]:
        """The overrides that bear on a period; who decided, and in which words, for auditors only."""
        rows = []
        for one in self._judged.get(period, ()):
            row: dict[str, Any] = {"decision": one.decision, "kind": one.kind, "reason": one.reason, "at": one.since}
            if one.origin:
                row["origin"] = one.origin
            if self._edition.audience == "internal":
                row |= {"actors": list(one.actors), "comment": one.comment}
            rows.append(row)
        return rows or "none"

    def _of_one(self, at: int) -> dict[str, Any] | None:
        """The origin without which the price would be furthest away, and how far."""
        if at < 0:
            return None
        share, origin = self._influence[at]
        made = self._made
        return None if share is None or made is None else {"origin": made.origins[origin], "moves": share}

    def _inputs(self, at: int) -> dict[str, Any]:
        """Contributors of one period, those that made the price and those that did not, with the rule."""
        made = self._made
        if made is None or at < 0:  # a month that is overridden, without contributors of its own
            return {"contributors": [], "excluded": []}
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
        out = {
            "quoted": form.number(self._value[quoted, position]),
            "usd_per_t": form.number(self._usd[quoted, position]),
        }
        days, vat = self._fx_period[quoted, position], self._vat[quoted, position]
        if days:
            out |= {"usd_per_currency": form.number(self._fx[quoted, position]), "rate_of": days}
        if vat:
            out["vat"] = form.number(vat)
        return out | {"basis": form.number(made.ratio[at, m]), "adjusted": form.number(made.adjusted[at, m])}

    def fingerprint(self, positions: range) -> str:
        """Hash of everything that the records of some periods are made from."""
        rows = slice(positions.start, positions.stop)
        parts: list[Any] = [FORMAT, self._edition.part_meta(self._sources), self._head, self._periods[rows]]
        parts += [self._carried[rows]]
        if self._shocks:
            parts += [[self._shocks.get(p) for p in self._periods[rows]]]
        if self._priced:
            parts += [[self._days_priced(p) for p in self._periods[rows]]]
        if self._judged or self._days_judged:
            parts += [[self._judgement(p), self._days_judged.get(p)] for p in self._periods[rows]]
        parts += [words[rows] for words in self._words.values()]
        parts += [numbers[rows] for numbers in (*self._numbers.values(), *self._extra.values(), *self._links.values())]
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


def _judged(market: MarketPrices, frequency: str) -> dict[str, list[Judgement]]:
    """Overrides that bear on each period: that are about it, or set aside a quotation that would stand in it."""
    made, frame = market.made(frequency), market.frame(frequency)
    out: dict[str, list[Judgement]] = {}
    for one in market.judgements if len(frame) else ():
        if one.frequency != frequency:
            continue
        about = set(frame.index[one.covers(frame.index)]) if not one.origin else set()
        if made is not None:
            about |= set(made.frame.index[(made.excluded == one.rule).any(axis=1)])
            if one.kind == "include":
                spoke = made.chosen[:, made.origins.index(one.origin)] >= 0
                about |= set(made.frame.index[one.covers(made.frame.index) & spoke])
        for period in about:
            out.setdefault(period, []).append(one)
    return out


def _carried_of(frame: pd.DataFrame) -> list[dict[str, Any] | None]:
    if "carried" not in frame:
        return [None] * len(frame)
    pairs = zip(form.numbers(frame["carried"]), frame["carried_from"].tolist(), strict=True)
    return [None if value is None else {"value": value, "from": since} for value, since in pairs]


def _tiers(contributors: list[dict[str, Any]]) -> dict[str, float]:
    """Share of each kind of input in the weight (Regulation (EU) 2016/1011, Annex II, 7(a))."""
    out: dict[str, float] = {}
    for row in contributors:
        out[row["tier"]] = out.get(row["tier"], 0.0) + row["weight"]
    return dict(sorted(out.items()))


def determination_type(tiers: Mapping[str, float], contributors: int, priced: bool) -> str:
    """Say in the words of Annex II, 7(a) what a price rests on: by the kind of input that weighs half or more."""
    if not priced:
        return "none"
    if contributors == 1 and tiers.get("official", 0.0) > 0:
        return "official"
    if tiers.get("transaction", 0.0) >= 0.5:
        return "transaction-based"
    return "interpolated or extrapolated" if tiers.get("model", 0.0) >= 0.5 else "assessed"


def market_sources(edition: Edition, market: MarketPrices) -> set[str]:
    """Return the sources that a market's prices rest on, those of exchange rates among them."""
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


def price_rows(key: str, market: MarketPrices) -> Iterator[Row]:
    """Yield the rows of a market that may be queried."""
    for frequency in FREQUENCIES:
        frame = market.frame(frequency)
        given = frame[frame["unrounded"].notna()]
        columns = (given.index.tolist(), *(given[c].tolist() for c in ("value", "unrounded", "status", "grade")))
        for period, value, unrounded, status, grade in zip(*columns, strict=True):
            yield Row("price", key, frequency, market.market.unit, period, value, unrounded, status, form.text(grade))
