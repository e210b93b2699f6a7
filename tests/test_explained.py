"""Every published value can be explained from its release alone; a closed quotation cannot be solved for.

The walk reads the files of one release, and the archived documents whose hashes its manifest names. Every formula
is written anew here, from docs/method.md; nothing of the product computes.
"""

from __future__ import annotations

import bisect
import datetime as dt
import gzip
import hashlib
import json
import math
import sqlite3
import statistics
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest

from pricing import config, demonstration, pipeline

ROOT = Path(__file__).resolve().parents[1]
DAYS = [dt.date(2026, *d) for d in ((1, 22), (2, 6), (2, 24))]  # on which something of the script can be seen
CLOSED = frozenset({"kestrel", "meridian"})  # of five houses; the third would only withhold more
CLOSED_DAYS = [dt.date(2026, 1, 21), dt.date(2026, 1, 22)]
EXACT = 1e-9


class Release:
    """The files of one release folder, and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = json.loads((folder / "manifest.json").read_bytes())
        self.methodology = tomllib.loads((folder / "methodology.toml").read_text())

    def read(self, name: str) -> Any:
        """A document, once its bytes are those that the manifest names."""
        raw = (self.folder / name).read_bytes()
        assert hashlib.sha256(raw).hexdigest() == self.manifest["files"][name]["sha256"], name
        return json.loads(raw)

    def years(self, kind: str, key: str, frequency: str, rows: str) -> list[dict[str, Any]]:
        """All rows of a history, in order, through the links of its document."""
        history = self.read(f"{kind}/{key}.json")["history"].get(frequency, [])
        out = [r for y in history for r in self.read(f"{y['href'].removeprefix('/v1/')}.json")[rows]]
        assert [r["period"] for r in out] == sorted({r["period"] for r in out})
        return out

    @cached_property
    def markets(self) -> list[str]:
        return [line["id"] for line in self.read("prices.json")["prices"]]

    @cached_property
    def indices(self) -> list[str]:
        return [line["id"] for line in self.read("indices.json")["indices"]]

    @cache  # noqa: B019  # lives as long as the module's fixture
    def determinations(self, market: str, frequency: str) -> dict[str, dict[str, Any]]:
        return {r["period"]: r for r in self.years("prices", market, frequency, "determinations")}

    def prices(self, market: str, frequency: str) -> dict[str, float]:
        rows = self.determinations(market, frequency)
        return {p: r["unrounded"] for p, r in rows.items() if r["unrounded"] is not None}

    def record(self, market: str, day: dt.date) -> dict[str, Any]:
        return self.determinations(market, "daily")[day.isoformat()]


@dataclass(frozen=True)
class Played:
    data: Path
    made: dict[dt.date, Release]

    @property
    def last(self) -> Release:
        return self.made[max(self.made)]


def play(data: Path, closed: frozenset[str], days: list[dt.date], since: int) -> Played:
    method = config.load_methodology(ROOT / "methodology" / "demo")
    clock = demonstration.Clock(dt.datetime.combine(demonstration.FIRST_LIVE_DAY, demonstration.CLOSE))
    made = {}
    with pipeline.opened(data, demonstration.operation(data, closed), method, clock, simulated=True) as ws:
        for document in (d for d in _history() if d.published.year >= since):
            end = dt.datetime.combine(document.published, dt.time.max, tzinfo=dt.UTC)
            pipeline.take(ws, document.source, document.raw, end, document.name)
        for day in demonstration.market_days(demonstration.FIRST_LIVE_DAY, 60):
            if day > max(days):
                break
            demonstration.collect_day(ws, clock, day)
            if day in days:
                made[day] = Release(demonstration.release_day(ws, clock, day, {}).folder)
    return Played(data, made)


@cache
def _history() -> list[Any]:
    return demonstration.history()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(tmp_path_factory.mktemp("open"), frozenset(), DAYS, 2024)  # the base period and its link


@pytest.fixture(scope="module")
def shut(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(tmp_path_factory.mktemp("closed"), CLOSED, CLOSED_DAYS, 2025)


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


# ------------------------------------------------------------------------ from an index to reference prices


def test_the_points_of_the_markets_sum_to_the_change_of_every_index_value(played: Played) -> None:
    release, judged = played.last, 0
    for name in release.indices:
        for frequency in ("monthly", "daily"):
            rows = release.years("indices", name, frequency, "values")
            assert rows, (name, frequency)
            for before, row in zip(rows, rows[1:], strict=False):
                if before["unrounded"] is not None and row["unrounded"] is not None:
                    points = math.fsum(part["points"] for part in row["moved_by"].values())
                    assert points == pytest.approx(row["unrounded"] - before["unrounded"], abs=EXACT), (name, row)
                    judged += 1
            document = release.read(f"indices/{name}.json")
            assert document["contributions"][frequency]["moved_by"] == rows[-1]["moved_by"]
            assert document["values"][frequency][-1]["unrounded"] == rows[-1]["unrounded"]
    assert judged > 3000


@dataclass
class Basket:
    """A fixed basket with one link, recomputed from prices and shares; docs/method.md, "An index"."""

    level: dict[str, float]
    points: dict[str, dict[str, float]]
    weights: dict[str, dict[str, float]]
    imputed: dict[str, list[str]]


def recomputed(prices: Mapping[str, Mapping[str, float]], link: str, shares: Mapping[str, float], base: str) -> Basket:
    """Level, points and weights from own prices; gaps move as the others do, by the shares of the link."""
    periods = sorted(set().union(*prices.values()))
    table: dict[str, dict[str, float]] = {}
    imputed: dict[str, list[str]] = {}
    for t, period in enumerate(periods):
        own = {m: prices[m][period] for m in prices if period in prices[m]}
        table[period], imputed[period] = dict(own), []
        gone = sorted(set(table[periods[t - 1]]) - set(own)) if t else []
        if gone:
            last = periods[t - 1]
            both = [m for m in own if last in prices[m]]
            moved = math.fsum(shares[m] * own[m] / prices[m][last] for m in both)
            factor = moved / math.fsum(shares[m] for m in both) if both else 1.0
            table[period] |= {m: table[last][m] * factor for m in gone}
            imputed[period] = gone
    linked = [p for p in periods if p[:7] == link]
    q = {m: shares[m] / mean([table[p][m] for p in linked]) for m in shares}
    level, out = {linked[-1]: 1.0}, Basket({}, {}, {}, imputed)
    for at in range(periods.index(linked[-1]), 0, -1):  # the first basket is held before the link
        now, before = table[periods[at]], table[periods[at - 1]]
        both = [m for m in q if m in now and m in before]
        old, new = (math.fsum(q[m] * p[m] for m in both) for p in (before, now))
        level[periods[at - 1]] = level[periods[at]] * old / new
        out.points[periods[at]] = {m: q[m] * (now[m] - before[m]) / old * level[periods[at - 1]] for m in both}
        out.weights[periods[at]] = {m: q[m] * before[m] / old for m in both}
    cost = {p: math.fsum(q[m] * table[p][m] for m in q) for p in periods if p >= linked[0]}
    factor = mean([level[p] for p in linked]) / mean([cost[p] for p in linked])
    for earlier, period in zip(periods, periods[1:], strict=False):
        if period[:7] <= link:
            continue
        level[period] = cost[period] * factor
        out.points[period] = {m: q[m] * (table[period][m] - table[earlier][m]) * factor for m in q}
        out.points[period]["(link)"] = cost[earlier] * factor - level[earlier]
        out.weights[period] = {m: q[m] * table[earlier][m] / cost[earlier] for m in q}
    months = sorted({p[:7] for p in level if p.startswith(base)})
    scale = 100 / mean([mean([level[p] for p in level if p[:7] == month]) for month in months])
    out.level = {p: v * scale for p, v in level.items()}
    out.points = {p: {m: v * scale for m, v in row.items()} for p, row in out.points.items()}
    return out


def test_every_index_value_follows_from_the_prices_and_the_weights_of_the_link(played: Played) -> None:
    release, judged, filled = played.last, 0, 0
    for name in release.indices:
        document = release.read(f"indices/{name}.json")
        (weights,) = document["weights"]  # 2024 is the first year with prices: one link, in March 2025
        shares = {m["market"]: m["share"] for m in weights["markets"]}
        assert math.fsum(shares.values()) == pytest.approx(1, rel=EXACT)
        for frequency, tail in (("monthly", 24), ("daily", 70)):
            prices = {m: release.prices(m, frequency) for m in shares}
            mine = recomputed(prices, weights["link"], shares, document["base_period"])
            rows = release.years("indices", name, frequency, "values")
            for row in rows:
                if row["unrounded"] is not None:
                    assert row["unrounded"] == pytest.approx(mine.level[row["period"]], rel=EXACT), (name, row)
                    judged += 1
            for row in rows[-tail:]:
                period, moved = row["period"], row["moved_by"]
                if period not in mine.points:
                    continue  # the first of all
                for part, points in mine.points[period].items():
                    found = moved.get(part, {"points": 0.0, "weight": 0.0})
                    assert found["points"] == pytest.approx(points, rel=EXACT, abs=1e-10), (name, period, part)
                    weight = mine.weights[period].get(part, 0.0)
                    assert found["weight"] == pytest.approx(weight, rel=EXACT, abs=1e-12), (name, period, part)
                assert set(moved) <= set(mine.points[period])
                assert row["imputed"] == mine.imputed[period], (name, period)
                filled += len(row["imputed"])
    assert judged > 3000 and filled > 0


def capped(shares: Mapping[str, Fraction], cap: Fraction) -> dict[str, Fraction]:
    """One by one: whoever is above the cap is set to it, the rest shares what is left in proportion."""
    held: set[str] = set()
    while True:
        free = sum(v for k, v in shares.items() if k not in held)
        out = {k: cap if k in held else v / free * (1 - cap * len(held)) for k, v in shares.items()}
        over = {k for k, v in out.items() if v > cap and k not in held}
        if not over:
            return out
        held |= over


def test_the_weights_follow_from_production_prices_and_cap_and_production_from_a_document(played: Played) -> None:
    release, archive = played.last, Archive(played)
    for name in release.indices:
        document = release.read(f"indices/{name}.json")
        (weights,) = document["weights"]
        values = {}
        for m in weights["markets"]:
            prices = release.prices(m["market"], "monthly")
            year = mean([v for p, v in prices.items() if p.startswith(m["price_year"])])
            assert m["price_usd_per_t"] == pytest.approx(year, rel=EXACT), (name, m)
            values[m["market"]] = Fraction(m["tonnes"]) * Fraction(m["price_usd_per_t"])
            told = m["production"]
            (output,) = (
                [
                    *(
                        s.value
                        for s in archive.said(told["source"])[told["series"], told["period"]]
                        if s.vintage == told["vintage"]
                    )
                ]
                if "series" in told
                else [
                    t["tonnes"]
                    for t in release.methodology["tonnages"]
                    if (t["id"], t["period"], t["published"].isoformat())
                    == (told["tonnage"], told["period"], told["published"])
                    and t["source"] == told["cited"]
                    and told["vintage"].startswith(told["published"] + "T23:59:59")
                ]
            )
            (part,) = [
                p
                for p in release.methodology["baskets"][name]["constituents"]
                if f"{p['mineral']}/{p['stage']}/{p['zone']}" == m["market"]
            ]
            assert m["tonnes"] == pytest.approx(output * part.get("share", 1), rel=EXACT), (name, m)
        shares = {k: v / sum(values.values()) for k, v in values.items()}
        cut = capped(shares, Fraction(str(document["cap"])))
        for m in weights["markets"]:
            assert m["uncapped"] == pytest.approx(float(shares[m["market"]]), rel=EXACT)
            assert m["share"] == pytest.approx(float(cut[m["market"]]), rel=EXACT)


# -------------------------------------------------------------- from a reference price to its determination


def weighted_median(parts: list[tuple[float, Fraction]]) -> float:
    """In exact fractions; where the weights meet one half, the mean of the two values beside it."""
    parts = sorted(parts)
    half, sum_ = sum(w for _, w in parts) / 2, Fraction(0)
    for i, (value, weight) in enumerate(parts):
        sum_ += weight
        if sum_ == half:
            return (value + parts[i + 1][0]) / 2
        if sum_ > half:
            return value
    raise AssertionError("no parts")


def exact_weights(release: Release, parts: list[dict[str, Any]]) -> list[Fraction]:
    rules = release.methodology["determination"]
    tiers = [Fraction(str(rules["tier_weights"][c["tier"]])) for c in parts]
    limit = max(Fraction(str(rules["max_weight"])), Fraction(1, len(parts)))
    named = {str(i): t / sum(tiers) for i, t in enumerate(tiers)}
    return list(capped(named, limit).values()) if len(parts) > 1 else [Fraction(1)]


def test_every_price_is_the_weighted_median_of_the_adjusted_values_that_were_not_excluded(played: Played) -> None:
    release, judged = played.last, 0
    limit = release.methodology["determination"]["max_spread"]
    widest = release.methodology["determination"]["widest"]
    for market in release.markets:
        for day, row in release.determinations(market, "daily").items():
            if day < "2025-06":
                continue
            used = row["contributors"]
            out = [c for c in row["excluded"] if c.get("adjusted") is not None]
            if used:
                weights = exact_weights(release, used)
                for one, weight in zip(used, weights, strict=True):
                    assert one["weight"] == pytest.approx(float(weight), rel=EXACT), (market, day)
                values = [c["adjusted"] for c in used]
                middle = weighted_median(list(zip(values, weights, strict=True)))
                spread = max(values) / min(values) - 1
            if row["unrounded"] is None:
                assert not any(c["age_days"] == 0 for c in used) or spread > widest, (market, day)
            else:
                assert row["unrounded"] == pytest.approx(middle, rel=EXACT), (market, day)
                assert row["spread"] == pytest.approx(spread, rel=EXACT, abs=1e-12)
                assert row["origins"] == len(used) and row["value"] == pytest.approx(middle, rel=1e-4)
                judged += 1
            if len(used) + len(out) >= 3:
                centre = statistics.median(c["adjusted"] for c in [*used, *out])
                assert all(abs(c["adjusted"] / centre - 1) <= limit for c in used), (market, day)
                assert all(abs(c["adjusted"] / centre - 1) > limit and c["rule"] for c in out), (market, day)
    assert judged > 4000


def requoted(release: Release, record: dict[str, Any], series: str, factor: float) -> float | None:
    """The price that a record gives with one contributor's quotation times a factor."""
    rules = release.methodology["determination"]
    parts = [c for c in [*record["contributors"], *record["excluded"]] if c.get("adjusted") is not None]
    parts = [{**c, "adjusted": c["adjusted"] * (factor if c["series"] == series else 1)} for c in parts]
    if len(parts) >= 3:
        centre = statistics.median(c["adjusted"] for c in parts)
        parts = [c for c in parts if abs(c["adjusted"] / centre - 1) <= rules["max_spread"]]
    values = [c["adjusted"] for c in parts]
    if max(values) / min(values) - 1 > rules["widest"]:
        return None
    return weighted_median(list(zip(values, exact_weights(release, parts), strict=True)))


def test_what_a_source_would_have_to_quote_follows_from_the_records(played: Played) -> None:
    release, judged = played.last, 0
    for name in release.indices:
        document = release.read(f"indices/{name}.json")
        said, last = document["sensitivity"], release.years("indices", name, "daily", "values")[-1]
        assert (said["by"], said["unit"], said["frequency"], said["withheld"]) == (1.0, "%", "daily", None)
        assert said["period"] == last["period"] == document["latest"]["daily"]["period"]
        points = math.fsum(p["points"] for m, p in last["moved_by"].items() if m != "(link)")
        for line in said["quotations"]:
            record = release.determinations(line["market"], "daily")[said["period"]]
            (own,) = [c for c in record["contributors"] if c["series"] == line["series"]]
            assert (own["quoted"], own["unit"], own["source"]) == (line["quoted"], line["unit"], line["source"])
            part = last["moved_by"][line["market"]]
            share = (part["weight"] * (last["unrounded"] - points) + part["points"]) / last["unrounded"]
            for figure, weight in (("index", share), ("price", 1.0)):
                for way, sign in (("up", 1), ("down", -1)):
                    answer = line[figure][way]
                    if answer["quotation"] is None:
                        assert answer["cannot"] and abs(answer["most"]) < 1
                        continue
                    factor = answer["quotation"] / own["quoted"]
                    assert answer["change"] * sign > 0
                    assert factor == pytest.approx(1 + answer["change"] / 100, rel=1e-7)
                    price = requoted(release, record, line["series"], factor)
                    if not last["imputed"] and price is not None:
                        moves = weight * (price / record["unrounded"] - 1) * 100
                        assert moves == pytest.approx(answer["moves"], abs=1e-6) and abs(moves) > 1 - 1e-6
                        judged += 1
        needed = [[abs(math.log1p(a["change"] / 100)) for a in q["index"].values() if a["quotation"]]
                  for q in said["quotations"]]  # fmt: skip
        assert [min(n) for n in needed if n] == sorted(min(n) for n in needed if n)
    assert judged > 30


def test_every_month_is_the_mean_of_its_daily_determinations(played: Played) -> None:
    release, judged = played.last, 0
    for market in release.markets:
        daily = release.prices(market, "daily")
        for month, row in release.determinations(market, "monthly").items():
            days = [v for p, v in daily.items() if p.startswith(month)]
            assert row["type"] == "mean-of-days" and row["days"] == len(days)
            assert row["records"] == f"/v1/prices/{market}/daily/{month[:4]}"
            assert row["unrounded"] == pytest.approx(mean(days), rel=EXACT), (market, month)
            judged += 1
    assert judged > 600


def test_an_adjusted_value_is_the_quotation_times_its_factors_and_rate_without_tax_over_the_basis(
    played: Played,
) -> None:
    release = played.last
    bases: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for b in release.read("register.json")["bases"]:
        if b["frequency"] == "daily":
            bases.setdefault((b["market"], b["origin"]), []).append((b["effective"], b["ratio"]))
    seen = dict.fromkeys(("currency", "tax", "factor", "excluded"), 0)
    for market in release.markets:
        told = {c["series"]: c for c in release.read(f"prices/{market}.json")["contributors"]}
        for day, row in release.determinations(market, "daily").items():
            if day < "2025-06" and not row["excluded"]:
                continue
            for one in (*row["contributors"], *(c for c in row["excluded"] if "quoted" in c)):
                factor = math.prod(step["factor"] for step in told[one["series"]]["conversion"])
                usd = one["quoted"] * factor * one.get("usd_per_currency", 1.0) / (1 + one.get("vat", 0.0))
                assert one["usd_per_t"] == pytest.approx(usd, rel=EXACT), (market, day, one)
                assert one["adjusted"] == pytest.approx(one["usd_per_t"] / one["basis"], rel=EXACT)
                known = sorted(bases[market, one["origin"]])
                at = bisect.bisect_right([e for e, _ in known], day) - 1
                assert one["basis"] == pytest.approx(known[at][1], rel=EXACT), (market, day, one)
                seen["currency"] += "usd_per_currency" in one
                seen["tax"] += "vat" in one
                seen["factor"] += factor != 1
                seen["excluded"] += "rule" in one
    assert all(seen.values()), seen


# --------------------------------------------------------------------- from a quotation to a document's bytes


@dataclass(frozen=True)
class Said:
    vintage: str
    sha256: str
    value: float
    status: str


class Archive:
    """What the archived documents say that a manifest names, each by its hash."""

    def __init__(self, played: Played) -> None:
        self._data = played.data
        with closing(sqlite3.connect(self._data / "store.db")) as db:  # as an auditor, who is told the salt
            salt = dict(db.execute("SELECT key, value FROM meta")).get("salt", "")
        kept = [f"{f.parent.name}{f.stem}" for f in (self._data / "documents").glob("??/*.gz")]
        salted = {hashlib.sha256(f"{salt}{sha256}".encode()).hexdigest(): sha256 for sha256 in kept}
        named = played.last.manifest["documents"]
        self._named = [{**d, "sha256": d.get("sha256") or salted[d["salted_sha256"]]} for d in named]

    def raw(self, sha256: str) -> bytes:
        raw = gzip.decompress((self._data / "documents" / sha256[:2] / f"{sha256[2:]}.gz").read_bytes())
        assert hashlib.sha256(raw).hexdigest() == sha256
        return raw

    @cache  # noqa: B019  # lives as long as one test
    def said(self, source: str) -> dict[tuple[str, str], list[Said]]:
        out: dict[tuple[str, str], list[Said]] = {}
        for d in sorted(self._named, key=lambda d: d["vintage"]):
            for q in json.loads(self.raw(d["sha256"]))["quotes"] if d["source"] == source else ():
                key = (q["series"], q["period"])
                out.setdefault(key, []).append(Said(d["vintage"], d["sha256"], q["value"], q["status"]))
        return out


def test_every_quotation_stands_in_the_last_document_about_it_that_the_manifest_names(played: Played) -> None:
    release, archive = played.last, Archive(played)
    found: dict[str, int] = {}
    rates = archive.said("demo-fx")
    for market in release.markets:
        for day, row in release.determinations(market, "daily").items():
            if day < "2025-12":
                continue
            for one in (*row["contributors"], *row["excluded"]):
                period = dt.date.fromisoformat(day) - dt.timedelta(days=one.get("age_days", 0))
                told = archive.said(one["source"])[one["series"], period.isoformat()][-1]
                assert told.value > 0 and told.sha256
                if "quoted" in one:
                    assert told.value == one["quoted"] and told.status == "normal", (market, day, one)
                    found[one["source"]] = found.get(one["source"], 0) + 1
                else:
                    assert one["rule"] == f"status {told.status}"
                if "usd_per_currency" in one:
                    spoken = {k[0]: v[-1].value for k, v in rates.items() if k[1] == one["rate_of"]}
                    usd = next(v for k, v in spoken.items() if "usd" in k)
                    per = (
                        usd if one["unit"].startswith("EUR") else usd / next(v for k, v in spoken.items() if "cny" in k)
                    )
                    assert one["usd_per_currency"] == pytest.approx(per, rel=EXACT)
    assert len(found) == 5 and min(found.values()) > 20, found


# ---------------------------------------------------------------------- the script, from the records alone


def rules(record: dict[str, Any]) -> dict[str, str]:
    return {one["origin"]: one["rule"] for one in record["excluded"]}


def quoted(record: dict[str, Any]) -> dict[str, float]:
    return {c["origin"]: c["quoted"] for c in (*record["contributors"], *record["excluded"]) if "quoted" in c}


def test_a_suspended_price_says_so(played: Played) -> None:
    rows = [played.last.record("nickel/metal/XCN", dt.date(2026, 1, d)) for d in (14, 15, 16, 19, 20)]
    told = [(r["status"], r["unrounded"], rules(r).get("northgate")) for r in rows]
    assert told == [("suspended", None, "status suspended")] * 5


def test_a_voided_price_says_so(played: Played) -> None:
    row = played.last.record("nickel/metal/XCN", dt.date(2026, 1, 13))
    assert row["unrounded"] is None and set(rules(row).values()) == {"status voided"}
    assert {c["origin"] for c in row["contributors"] if c["age_days"] == 0} == set(), "the weekly one is a week old"


def test_a_unit_slip_is_excluded_with_its_rule_until_it_is_mended(played: Played) -> None:
    day = dt.date(2026, 1, 20)
    before, after = (r.record("bismuth/metal/XCN", day) for r in (played.made[DAYS[0]], played.last))
    assert rules(before) == {"kestrel": "unit-slip (lb and kg)"} and rules(after) == {}
    assert quoted(before)["kestrel"] / quoted(after)["kestrel"] == pytest.approx(1 / 0.45359237, rel=1e-3)


def test_a_stale_feed_shows_one_number_for_days(played: Played) -> None:
    days = demonstration.market_days(dt.date(2026, 1, 26), 8)
    said = [quoted(played.last.record("gallium/metal/CN", d)) for d in days]
    assert len({s["lantern"] for s in said if "lantern" in s}) == 1 and len({s["northgate"] for s in said}) == 8


def test_an_export_control_moves_both_sides_apart_with_no_origin_excluded(played: Played) -> None:
    days = demonstration.market_days(dt.date(2026, 1, 28), 9)
    for zone, least, most in (("XCN", 1.2, 1.55), ("CN", 0.82, 0.97)):
        rows = [played.last.record(f"gallium/metal/{zone}", d) for d in days]
        assert least < rows[-1]["unrounded"] / rows[0]["unrounded"] < most
        assert all(r["status"] == "normal" for r in rows)


def test_a_revision_stands_since_the_release_that_first_showed_it(played: Played) -> None:
    day, market = dt.date(2026, 2, 3), "tungsten/chemical/XCN"
    before, after = (quoted(played.made[d].record(market, day))["meridian"] for d in DAYS[1:])
    assert after == pytest.approx(before * 0.97, rel=1e-3)
    told = Archive(played).said("demo-meridian")["meridian-tungsten-chemical-xcn", day.isoformat()]
    at = [played.made[d].manifest["released_at"] for d in DAYS]
    since = [bisect.bisect_left(at, s.vintage) + 1 for s in told]  # the first release after the word was heard
    assert [s.value for s in told] == [before, after] and since == [2, 3]


def test_a_drop_out_is_an_absence_from_contributors_and_its_return_a_presence(played: Played) -> None:
    days = demonstration.market_days(dt.date(2026, 2, 10), 10)
    spoke = ["kestrel" in quoted(played.last.record("cobalt/metal/XCN", d)) for d in days]
    assert not any(spoke[:8]) and any(spoke[8:])


def test_a_lasting_level_is_taken_out_as_a_published_basis_held_from_january(played: Played) -> None:
    for market in ("cobalt/metal/XCN", "tin/metal/CN"):
        rows = [r for p, r in played.last.determinations(market, "daily").items() if p.startswith("2026")]
        bases = {(c["origin"], c["basis"]) for r in rows for c in r["contributors"]}
        assert len(bases) == len({o for o, _ in bases}) >= 4 and any(abs(b - 1) > 0.002 for _, b in bases)


# -------------------------------------------------------------------------- what an adversary makes of it


@dataclass(frozen=True)
class Secret:
    market: str
    period: str
    origin: str
    own: float  # as quoted
    usd_per_t: float


@pytest.fixture(scope="module")
def secrets(shut: Played) -> list[Secret]:
    """The closed quotations of the last 60 days, which only this test reads."""
    release, archive = shut.last, Archive(shut)
    rates = {p: v[-1].value for (s, p), v in archive.said("demo-fx").items() if "usd" in s}
    since = (CLOSED_DAYS[-1] - dt.timedelta(days=60)).isoformat()
    out = []
    for market in release.markets:
        for c in release.read(f"prices/{market}.json")["contributors"]:
            if c["shown"]:
                continue
            factor = math.prod(s["factor"] for s in c["conversion"])
            for (series, period), said in archive.said(c["source"]).items():
                if series == c["series"] and period >= since and said[-1].status == "normal":
                    rate = rates[period] if c["unit"].startswith("EUR") else 1.0
                    out.append(Secret(market, period, c["origin"], said[-1].value, said[-1].value * factor * rate))
    assert len(out) > 1500 and {s.origin for s in out} == set(CLOSED)
    return out


NO_PRICES = {
    "age_days",
    "weight",
    "largest_weight",
    "origins",
    "level",
    "tiers",
    "days",
    "weekdays",
    "basis",
    "covered",
}


def numbers(node: Any) -> Iterator[float]:
    if isinstance(node, dict):
        for k, inner in node.items():
            yield from numbers(inner) if k not in NO_PRICES else ()
    elif isinstance(node, list):
        for inner in node:
            yield from numbers(inner)
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield float(node)


def dated(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of a document that is about a period."""
    if isinstance(node, dict):
        if isinstance(node.get("period"), str):
            yield node["period"], node
        node = list(node.values())
    for inner in node if isinstance(node, list) else ():
        yield from dated(inner)


def public_numbers(played: Played) -> dict[tuple[str, str], set[float]]:
    """All numbers that any release shows of a product and period: prices, gaps, spreads, indices, indicators."""
    out: dict[tuple[str, str], set[float]] = {}
    for release in played.made.values():
        for name in release.manifest["files"]:
            kind, *rest = name.removesuffix(".json").split("/")
            if name.endswith(".json") and rest and kind in ("prices", "gaps", "spreads", "indices", "indicators"):
                key = "/".join(rest[:3]) if kind == "prices" else "/".join(rest[:2]) if kind == "gaps" else rest[0]
                for period, row in dated(release.read(name)):
                    out.setdefault((key, period), set()).update(numbers(row))
    return out


def test_a_record_that_rests_on_closed_values_has_no_number_but_weights_and_ages(shut: Played) -> None:
    hidden = 0
    for release in shut.made.values():
        for market in release.markets:
            for day, row in release.determinations(market, "daily").items():
                closed = [c for c in row["contributors"] if c["origin"] in CLOSED]
                seen = closed or [c for c in row["excluded"] if c["origin"] in CLOSED and "age_days" in c]
                if seen:
                    allowed = {"unrounded", "value"} if not closed else set()
                    shown = {k: v for k, v in row.items() if k not in allowed}
                    assert list(numbers(shown)) == [], (market, day)
                    hidden += 1
    assert hidden > 10_000


def test_no_number_of_the_releases_is_within_1_percent_of_a_closed_quotation_of_its_product_and_day(
    shut: Played, secrets: list[Secret]
) -> None:
    """Beyond the open values themselves, of which the reader has those that no closed one stood beside."""
    shown = public_numbers(shut)
    assert sum(map(len, shown.values())) > 10_000
    hits: list[tuple[Secret, float, str]] = []
    naive = early = 0
    for s in secrets:
        mineral, stage, _ = s.market.split("/")
        around = [m for m in shut.last.markets if m.split("/")[0] == mineral]  # a neighbour is open to anybody
        open_ = {v for r in shut.made.values() for m in around for v in open_values(r, m, s.period)}
        early += any(open_values(r, s.market, s.period) for r in shut.made.values())
        naive += any(abs(v / s.usd_per_t - 1) < 0.01 for v in open_)
        for key in (s.market, f"{mineral}/{stage}", mineral):
            for n in shown.get((key, s.period), set()) - open_:
                if min(abs(n / s.own - 1), abs(n / s.usd_per_t - 1)) < 0.01:
                    hits.append((s, n, key))
    assert hits == []
    assert early < 0.03 * len(secrets), "only the last day, on which the late house has not spoken yet"
    assert naive < 0.2 * len(secrets)


def open_values(release: Release, market: str, period: str) -> set[float]:
    """What a release shows of the open houses for a day: quotations, in dollars, adjusted, and what comes of them."""
    row = release.determinations(market, "daily").get(period)
    if row is None or any(c["origin"] in CLOSED for c in (*row["contributors"], *row["excluded"])):
        return set()
    return set(numbers(row))


def test_months_and_indices_hold_no_closed_day_that_a_difference_would_bring_out(shut: Played) -> None:
    """A mean of n days less the days that are shown leaves nothing; no index moves with a withheld price."""
    months = 0
    for release in shut.made.values():
        for market in release.markets:
            daily = release.prices(market, "daily")
            for month, row in release.determinations(market, "monthly").items():
                days = [v for p, v in daily.items() if p.startswith(month)]
                assert row["days"] == len(days)
                assert row["unrounded"] == pytest.approx(mean(days), rel=EXACT), (market, month)
                assert row["interval"] is None or not {c["origin"] for c in contributors(release, market)} & CLOSED
                months += 1
        for name in release.indices:
            document = release.read(f"indices/{name}.json")
            parts = {m["market"] for w in document["weights"] for m in w["markets"]}
            moved = {m for f in document["contributions"].values() for m in f["moved_by"]}
            assert (moved | parts) - {"(link)"} <= {m for m in release.markets if release.prices(m, "monthly")}
            assert not document["published"] or parts
    assert months > 50


def contributors(release: Release, market: str) -> list[dict[str, Any]]:
    return list(release.read(f"prices/{market}.json")["contributors"])


def estimates(shut: Played, secrets: list[Secret], with_basis: bool) -> list[float]:
    """Error of the anchor's open quotation of the day, as an earlier release showed it, as a guess of the closed."""
    ratios: dict[tuple[str, str], float] = {}
    for b in sorted(shut.last.read("register.json")["bases"], key=lambda b: b["effective"]):
        if b["frequency"] == "daily" and with_basis:
            ratios[b["market"], b["origin"]] = b["ratio"]
    errors = []
    for s in secrets:
        for release in shut.made.values():
            row = release.determinations(s.market, "daily").get(s.period, {"contributors": ()})
            for c in row["contributors"]:
                if c["origin"] == "northgate" and "usd_per_t" in c:
                    errors.append(abs(c["usd_per_t"] * ratios.get((s.market, s.origin), 1.0) / s.usd_per_t - 1))
    return errors


def test_the_register_holds_no_ratio_of_a_closed_origin(shut: Played) -> None:
    assert {b["origin"] for b in shut.last.read("register.json")["bases"]} & CLOSED == set()


def test_nothing_public_brings_a_guess_nearer_to_a_closed_quotation_than_the_open_neighbour(
    shut: Played, secrets: list[Secret]
) -> None:
    naive, better = (estimates(shut, secrets, with_basis=w) for w in (False, True))
    assert len(naive) > 10
    near = [sum(e < 0.01 for e in errors) / len(errors) for errors in (naive, better)]
    assert near[1] <= near[0], f"{near[0]:.0%} of guesses are within 1 %, {near[1]:.0%} with the published ratio"
