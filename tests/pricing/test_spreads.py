"""China against the world and stage over stage: only what was observed, on three bases of tax."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pricing import demonstration, figures, keys, published, releases, spreads
from pricing.config import Market, Methodology, Operation, Source, load_methodology, load_operation
from pricing.documents.edition import Edition
from pricing.documents.spreads import gap_files, gap_rows, spread_files, spread_rows
from pricing.sources import ecb, nbs, worldbank
from pricing.sources.demo_houses import CONTRIBUTORS, told
from pricing.store import iso
from pricing.web.app import create_app

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
KEYS = ("copper/metal/CN", "copper/metal/XCN")
COLUMNS = ["series", "period", "value", "status"]


def market(zone: str, mineral: str = "copper", stage: str = "metal", **more: Any) -> dict[str, Any]:
    return {"mineral": mineral, "stage": stage, "zone": zone, "element": "Cu", "per": "product", **more}


def method(**parts: Any) -> Methodology:
    rules = load_methodology(ROOT / "methodology" / "2026-11.toml").model_dump()
    kept = {k: v for k, v in rules.items() if k not in ("sha256", "trade", "imports", "rebates", "spreads", "gap_days")}
    defaults = {"markets": [market("CN"), market("XCN")], "baskets": {}}
    return Methodology.model_validate({**kept, **defaults, **parts})


def rebate(since: str, rate: float, mineral: str = "copper", stage: str = "metal") -> dict[str, Any]:
    return {"mineral": mineral, "stage": stage, "since": since, "rate": rate, "source": "made"}


# ------------------------------------------------------------- from quotations, computed by hand


def quoting(frequency: str, *more: dict[str, Any], unit: str = "CNY/t", tax: str = "cn-vat") -> Operation:
    facts = {"publisher": "p", "terms": "t", "terms_read": "2026-11-23", "licence": "l", "attribution": "a"}
    common = {"mineral": "copper", "stage": "metal", "frequency": frequency}
    price = [
        {"id": "inside", "zone": "CN", "origin": "house", "unit": unit, "tax": tax, **common},
        {"id": "outside", "zone": "XCN", "origin": "exchange", "unit": "USD/t", **common},
        *({"zone": "CN", "origin": one["id"], **common, **one} for one in more),
    ]
    fx = [
        {"id": c.lower(), "kind": "fx", "currency_of": c, "unit": f"{c}/EUR", "frequency": "daily", "origin": "bank"}
        for c in ("USD", "CNY")
    ]
    listed = {"quotes": price, "rates": fx}
    return Operation(
        sources={
            n: Source.model_validate({**facts, "title": n, "rights": "open", "series": s}) for n, s in listed.items()
        }
    )


def priced(
    rows: list[tuple[Any, ...]], frequency: str, rules: Methodology, *more: dict[str, Any], **quoted: str
) -> dict[str, figures.MarketPrices]:
    """Prices at 1.1 dollars and 7.7 yuan per euro, so 7 yuan per dollar, on every weekday; no origin has a basis."""
    days = [str(d.date()) for d in pd.bdate_range("2018-01-01", "2025-03-31")]
    rates = [(name, day, value, "normal") for day in days for name, value in (("usd", 1.1), ("cny", 7.7))]
    observed = pd.DataFrame([*rates, *((*row, "normal")[:4] for row in rows)], columns=COLUMNS)
    eligible = figures.eligible(quoting(frequency, *more, **quoted), "public")
    found, left_out = figures.all_quotes(rules, eligible, observed)
    assert not left_out
    level = {"market": KEYS[0], "frequency": frequency, "effective": "", "ratio": 1.0}
    return figures.prices(
        found, rules, [{**level, "origin": o} for o in ("house", *(m["id"] for m in more))], "2025-04-01"
    )


def pairs(frequency: str, told_of: dict[str, tuple[float, float]], rules: Methodology, **quoted: str) -> spreads.Gap:
    rows = [(name, p, v) for p, both in told_of.items() for name, v in zip(("inside", "outside"), both, strict=True)]
    return spreads.gaps(priced(rows, frequency, rules, **quoted), rules)["copper/metal"]


def test_the_three_bases_are_those_computed_by_hand() -> None:
    """79,100 CNY with 13 % are 70,000 without, 10,000 dollars; 11,300 with the tax, 10,400 with 4 % not refunded."""
    gap = pairs("monthly", {"2024-06": (79_100, 8_000)}, method(rebates=[rebate("2019-04-01", 0.09)]))
    row = gap.frames["monthly"].loc["2024-06"]
    assert (gap.china, gap.other) == KEYS and list(gap.frames) == ["monthly"]
    assert row[["net", "gross", "export_parity"]].tolist() == pytest.approx([25, 41.25, 30])
    assert row[["china", "china_gross", "china_export_parity"]].tolist() == pytest.approx([10_000, 11_300, 10_400])
    assert (row["vat"], row["rebate"], row["status"], row["grade"]) == (0.13, 0.09, "normal", "C")


def test_the_tax_is_that_of_its_day() -> None:
    quoted = {"2018-04": 81_900, "2018-05": 81_200, "2019-03": 81_200, "2019-04": 79_100}  # 17, 16, 16, 13 % on 70,000
    gap = pairs("monthly", {m: (v, 8_000) for m, v in quoted.items()}, method(rebates=[rebate("2018-01-01", 0)]))
    frame = gap.frames["monthly"]
    assert frame["net"].tolist() == pytest.approx([25] * 4)
    expected = [(1.17 / 0.8 - 1) * 100, 45, 45, 41.25]
    assert frame["gross"].tolist() == pytest.approx(expected)
    assert frame["export_parity"].tolist() == pytest.approx(expected)  # nothing is refunded: exported as sold at home
    days = {"2018-04-30": (81_900, 8_000), "2018-05-01": (81_200, 8_000)}
    by_day = pairs("daily", days, method()).frames["daily"]
    assert by_day["vat_inside"].tolist() == [0.17, 0.16] and by_day["net"].tolist() == pytest.approx([25, 25])


def test_a_refund_ends_on_its_day_and_is_not_assumed_before_its_first_line() -> None:
    rules = method(rebates=[rebate("2024-12-01", 0.0), rebate("2024-11-11", 0.13)])
    day = dict.fromkeys(("2024-11-08", "2024-11-11", "2024-11-29", "2024-12-01"), (79100, 8000))
    frame = pairs("daily", day, rules).frames["daily"]
    assert np.isnan(frame["export_parity"].iloc[0]) and frame["export_parity"].iloc[1:].tolist() == pytest.approx(
        [25, 25, 41.25]
    )
    assert frame["why_export_parity"].tolist() == [
        "no export rebate of this product is recorded before 2024-11-11", "", "", ""
    ]  # fmt: skip
    month = dict.fromkeys(("2024-10", "2024-11", "2024-12"), (79100, 8000))
    by_month = pairs("monthly", month, rules).frames["monthly"]
    assert by_month["export_parity"].isna().tolist() == [True, True, False]
    assert by_month["net"].notna().all()


def test_a_refund_that_changes_within_a_period_gives_no_parity_there() -> None:
    rules = method(rebates=[rebate("2024-01-01", 0.13), rebate("2024-12-15", 0.0)])
    month = pairs("monthly", dict.fromkeys(("2024-11", "2024-12", "2025-01"), (79100, 8000)), rules).frames["monthly"]
    assert month["export_parity"].fillna(-1).tolist() == pytest.approx([25, -1, 41.25])
    assert month["why_export_parity"].iloc[1] == "the export rebate changed within the period"
    ten = dict.fromkeys(("2024-12-10", "2024-12-20", "2024-12-31"), (79100, 8000))
    by_ten = pairs("ten-day", ten, rules).frames["ten-day"]
    assert by_ten["export_parity"].fillna(-1).tolist() == pytest.approx([25, -1, 41.25])


def test_a_product_without_a_line_has_no_export_parity_and_says_so() -> None:
    frame = pairs("monthly", {"2024-06": (79_100, 8_000)}, method()).frames["monthly"]
    assert frame["export_parity"].isna().all() and frame["net"].notna().all()
    assert frame["why_export_parity"].tolist() == ["no export rebate of this product is recorded"]


def test_a_rebate_above_the_tax_is_not_used() -> None:
    frame = pairs("monthly", {"2024-06": (79_100, 8_000)}, method(rebates=[rebate("2019-01-01", 0.16)])).frames[
        "monthly"
    ]
    assert frame["export_parity"].isna().all()
    assert frame["why_export_parity"].tolist() == ["the recorded rebate is above the tax"]


def test_where_china_is_quoted_without_tax_there_is_no_gross_gap() -> None:
    gap = pairs("monthly", {"2024-06": (10_000, 8_000)}, method(), unit="USD/t", tax="none")
    frame = gap.frames["monthly"]
    assert frame["net"].tolist() == pytest.approx([25]) and frame["gross"].isna().all()
    assert frame["why_gross"].tolist() == [spreads.UNTAXED]


@pytest.mark.parametrize("frequency", ["daily", "ten-day"])
def test_a_month_of_days_has_the_tax_that_its_days_share(frequency: str) -> None:
    days = [str(d.date()) for d in pd.bdate_range("2019-03-01", "2019-04-30")]
    if frequency == "ten-day":
        days = ["2019-03-10", "2019-03-20", "2019-03-31", "2019-04-10", "2019-04-20", "2019-04-30"]
    told_of = {d: (81_200 if d < "2019-04" else 79_100, 8_000.0) for d in days}
    gap = pairs(frequency, told_of, method())
    assert gap.frames["monthly"]["vat_inside"].tolist() == [0.16, 0.13]
    assert gap.frames["monthly"]["gross"].tolist() == pytest.approx([45, 41.25])
    assert gap.frames[frequency].index.tolist() == days


FREE = {"id": "free", "unit": "USD/t", "tier": "transaction"}  # quotes without tax, and leads where it quotes


def test_where_contributors_with_and_without_tax_lead_in_turn_the_month_has_no_gross_gap() -> None:
    """Both weigh the same under the cap; the transaction is of the better tier."""
    days = [str(d.date()) for d in pd.bdate_range("2024-05-01", "2024-06-28")]
    rows = [(name, d, v) for d in days for name, v in (("inside", 79_100), ("outside", 8_000))]
    rows += [("free", d, 10_000) for d in days if d >= "2024-06-14"]
    frames = spreads.gaps(priced(rows, "daily", method(), FREE), method())["copper/metal"].frames
    assert frames["daily"]["vat_inside"].tolist() == [0.13 if d < "2024-06-14" else 0.0 for d in days]
    assert frames["monthly"]["gross"].round(9).fillna(-1).tolist() == [41.25, -1]
    assert frames["monthly"]["why_gross"].tolist() == ["", spreads.MIXED]
    assert frames["monthly"]["net"].tolist() == pytest.approx([25, 25])


def test_a_quotation_that_stands_has_the_tax_of_its_own_day() -> None:
    """A weekly quotation of 26 April 2018 holds 17 %; on 1 May, when the rate is 16 %, it still stands and leads."""
    weekly = {"id": "weekly", "unit": "CNY/t", "tax": "cn-vat", "tier": "transaction", "frequency": "weekly"}
    rows = [(n, d, v) for d in ("2018-04-26", "2018-05-01") for n, v in (("inside", 10_000), ("outside", 8_000))]
    prices = priced([*rows, ("weekly", "2018-04-26", 81_900)], "daily", method(), weekly, unit="USD/t", tax="none")
    frame = spreads.gaps(prices, method())["copper/metal"].frames["daily"]
    assert frame["net"].tolist() == pytest.approx([25, 25]) and frame["vat_inside"].tolist() == [0.17, 0.17]


def test_a_price_of_the_day_before_has_the_tax_and_the_refund_of_that_day() -> None:
    """China's market is closed on 1 May 2018, the day of the change from 17 to 16 %."""
    rows = [("inside", "2018-04-30", 81_900), ("outside", "2018-04-30", 8_000), ("outside", "2018-05-01", 8_000)]
    rows += [("inside", "2018-05-02", 81_200), ("outside", "2018-05-02", 8_000)]
    rules = method(gap_days=1, rebates=[rebate("2018-01-01", 0.13), rebate("2018-05-01", 0.0)])
    frame = spreads.gaps(priced(rows, "daily", rules), rules)["copper/metal"].frames["daily"]
    assert frame["vat_inside"].tolist() == frame["vat"].tolist() == [0.17, 0.17, 0.16]
    assert frame["rebate"].tolist() == [0.13, 0.13, 0.0]
    assert frame["gross"].tolist() == pytest.approx([(1.17 / 0.8 - 1) * 100] * 2 + [45])


@given(st.floats(0.01, 100), st.floats(1e3, 1e6), st.floats(1e3, 1e6))
def test_a_factor_of_the_currency_on_both_sides_changes_no_gap(factor: float, china: float, other: float) -> None:
    rules = method(rebates=[rebate("2019-04-01", 0.05)])
    both = [bases(china * f, other * f, rules) for f in (1.0, factor)]
    assert both[1] == pytest.approx(both[0], rel=1e-9, abs=1e-9)


@given(st.floats(1e3, 1e6), st.floats(1e3, 1e6), st.floats(0, 0.13))
def test_export_parity_lies_between_the_gap_without_tax_and_the_gap_with_it(
    china: float, other: float, rate: float
) -> None:
    net, parity = bases(china, other, method(rebates=[rebate("2019-04-01", rate)]))
    gross = (china * 1.13 / other - 1) * 100
    assert net - 1e-9 <= parity <= gross + 1e-9
    full, none = (bases(china, other, method(rebates=[rebate("2019-04-01", r)]))[1] for r in (0.13, 0.0))
    assert (full, none) == pytest.approx((net, gross))


@given(st.floats(1e3, 1e6), st.floats(1e3, 1e6))
def test_the_gap_of_the_swapped_sides_undoes_the_gap(china: float, other: float) -> None:
    there, back = (bases(*pair, method())[0] for pair in ((china, other), (other, china)))
    assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1)


# ------------------------------------------------------------------------- which prices may enter


@dataclass(frozen=True)
class Side:
    """A market whose prices are as the test says."""

    market: Market
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)

    def made(self, frequency: str) -> None:
        return None

    def frame(self, frequency: str) -> pd.DataFrame:
        return self.frames.get(frequency, table({}))


def table(rows: dict[str, Any]) -> pd.DataFrame:
    """Prices by period: a number, or (number or NaN, status, type, grade)."""
    told_of = [r if isinstance(r, tuple) else (float(r), "normal", "determined", "B") for r in rows.values()]
    frame = pd.DataFrame(told_of, columns=["unrounded", "status", "type", "grade"], index=pd.Index(rows, dtype=object))
    return frame.assign(value=frame["unrounded"].astype(float).round(2))


def sides(frequency: str, china: dict[str, Any], other: dict[str, Any], **units: Any) -> dict[str, Side]:
    made = zip(("CN", "XCN"), (china, other), strict=True)
    return {
        f"copper/metal/{z}": Side(Market.model_validate({**market(z), **units.get(z, {})}), {frequency: table(rows)})
        for z, rows in made
    }


def bases(china: float, other: float, rules: Methodology) -> list[float]:
    """Gap without tax and at export parity of one month."""
    gap = spreads.gaps(sides("monthly", {"2024-06": china}, {"2024-06": other}), rules)["copper/metal"]
    return gap.frames["monthly"].loc["2024-06", ["net", "export_parity"]].tolist()


NONE = float("nan")


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ((NONE, "missing", "none", None), "XCN: missing"),
        ((NONE, "suspended", "none", None), "XCN: suspended"),
        ((NONE, "dispersed", "determined", None), "XCN: dispersed"),
        ((NONE, "confidential", "determined", None), "XCN: confidential"),
        ((90.0, "normal", "carried", "C"), "XCN: carried"),
        ((90.0, "normal", "spread-based", "C"), "XCN: spread-based"),
        ((90.0, "normal", "interpolated", "C"), "XCN: interpolated"),
        (None, "XCN: no price of the period"),
    ],
)
def test_no_gap_of_a_month_in_which_a_side_was_not_observed(record: Any, why: str) -> None:
    other = {"2024-05": 80.0, "2024-06": record, "2024-07": 80.0}
    other = {k: v for k, v in other.items() if v is not None}
    china = {"2024-04": 100.0, "2024-05": 100.0, "2024-06": 100.0, "2024-07": 120.0}
    frame = spreads.gaps(sides("monthly", china, other), method())["copper/metal"].frames["monthly"]
    assert frame.index.tolist() == ["2024-05", "2024-06", "2024-07"]  # from where both had begun
    assert frame["net"].fillna(-1).tolist() == pytest.approx([25, -1, 50])
    row = frame.loc["2024-06"]
    assert row[["gross", "export_parity", "china_gross", "china_export_parity"]].isna().all()
    assert (row["why"], row["status"], row["china"]) == (why, "missing", 100) and pd.isna(row["grade"])


def test_a_voided_quotation_leaves_no_gap_and_ends_the_life_of_the_day_before() -> None:
    days = ["2024-06-03", "2024-06-04", "2024-06-05"]
    rows = [("inside", d, 79_100) for d in days] + [("outside", d, 8_000) for d in days]
    rows[4] = ("outside", "2024-06-04", 8_000, "voided")
    rules = method(gap_days=3)
    frame = spreads.gaps(priced(rows, "daily", rules), rules)["copper/metal"].frames["daily"]
    assert frame["net"].notna().tolist() == [True, False, True]
    assert frame["why"].iloc[1] == "XCN: suspended"


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (0, {"2024-06-03": 25, "2024-06-04": None, "2024-06-05": None, "2024-06-06": 50}),
        (1, {"2024-06-03": 25, "2024-06-04": 37.5, "2024-06-05": None, "2024-06-06": 50}),
        (2, {"2024-06-03": 25, "2024-06-04": 37.5, "2024-06-05": 50, "2024-06-06": 50}),
    ],
)
def test_days_are_at_most_as_far_apart_as_the_method_allows(days: int, expected: dict[str, float | None]) -> None:
    china = {"2024-06-03": 100.0, "2024-06-04": 110.0, "2024-06-05": 120.0, "2024-06-06": 120.0}
    other = {"2024-06-03": 80.0, "2024-06-06": 80.0}
    gap = spreads.gaps(sides("daily", china, other), method(gap_days=days))["copper/metal"]
    frame = gap.frames["daily"]
    assert {p: None if v != v else pytest.approx(v) for p, v in frame["net"].items()} == expected
    assert set(frame["status"]) <= {"normal", "missing"}
    if days == 2:
        assert frame["other_period"].tolist() == ["2024-06-03"] * 3 + ["2024-06-06"]
        assert frame["china_period"].tolist() == frame.index.tolist()


def test_a_day_whose_other_side_may_still_come_is_provisional() -> None:
    china = {"2024-06-03": 100.0, "2024-06-04": 110.0}
    frame = spreads.gaps(sides("daily", china, {"2024-06-03": 80.0}), method(gap_days=1))["copper/metal"].frames[
        "daily"
    ]
    assert frame["status"].tolist() == ["normal", "provisional"] and frame["net"].tolist() == pytest.approx([25, 37.5])


def test_months_never_stand_for_one_another_however_many_days_are_allowed() -> None:
    given_sides = sides("monthly", {"2024-06": 100.0, "2024-07": 100.0}, {"2024-06": 80.0})
    frame = spreads.gaps(given_sides, method(gap_days=7))["copper/metal"].frames["monthly"]
    assert frame["net"].notna().tolist() == [True, False]


def test_status_and_grade_are_the_worse_of_both() -> None:
    china = {"2024-06": (100.0, "provisional", "determined", "A")}
    frame = spreads.gaps(sides("monthly", china, {"2024-06": 80.0}), method())["copper/metal"].frames["monthly"]
    assert frame.loc["2024-06", ["status", "grade"]].tolist() == ["provisional", "B"]


def test_sides_in_different_units_or_without_a_common_period_are_withheld_with_the_reason() -> None:
    one = {"2024-06": 100.0}
    apart = spreads.gaps(sides("monthly", one, one, CN={"per": "contained"}), method())["copper/metal"]
    assert apart.frames == {}
    assert apart.withheld == "the sides are in different units: USD/t Cu contained and USD/t"
    never = spreads.gaps(sides("monthly", one, {"2024-07": 1.0}), method())["copper/metal"]
    assert never.frames == {} and never.withheld.startswith("there is no period")


def test_the_world_stands_for_outside_only_where_there_is_no_outside() -> None:
    both = sides("monthly", {"2024-06": 100.0}, {"2024-06": 80.0})
    world = Side(Market.model_validate(market("WLD")), {"monthly": table({"2024-06": 50.0})})
    everything = {**both, "copper/metal/WLD": world}
    assert spreads.gaps(everything, method())["copper/metal"].other == KEYS[1]
    alone = {KEYS[0]: both[KEYS[0]], "copper/metal/WLD": world}
    gap = spreads.gaps(alone, method())["copper/metal"]
    assert gap.other == "copper/metal/WLD" and gap.frames["monthly"]["net"].tolist() == pytest.approx([100])
    assert spreads.gaps({KEYS[1]: both[KEYS[1]]}, method()) == {}


# ---------------------------------------------------------------------------------------- stages

PAIR = {"mineral": "copper", "upper": "metal", "lower": "ore", "zone": "XCN"}
CONTAINED = {"per": "contained"}


def staged(metal: dict[str, Any], ore: dict[str, Any] | None, zone: str = "XCN", **pair: Any) -> spreads.Spread:
    markets = [market("XCN", **CONTAINED), market(zone, stage="ore", **CONTAINED)]
    rules = method(markets=markets, spreads=[{**PAIR, **pair}])
    given_sides = {KEYS[1]: Side(rules.markets[0], {"monthly": table(metal)})}
    if ore is not None:
        given_sides[f"copper/ore/{zone}"] = Side(rules.markets[1], {"monthly": table(ore)})
    (spread,) = spreads.stage_spreads(given_sides, rules)["copper/XCN"]
    return spread


def test_a_stage_spread_is_the_upper_price_less_the_lower_one() -> None:
    metal = {"2024-05": 9_000.0, "2024-06": (9_500.0, "normal", "carried", "C"), "2024-07": 10_000.0}
    spread = staged(metal, {"2024-04": 1.0, "2024-05": 8_400.0, "2024-06": 8_400.0, "2024-07": 8_500.0})
    assert (spread.upper, spread.lower, spread.unit) == (KEYS[1], "copper/ore/XCN", "USD/t Cu contained")
    assert spread.frame["spread"].fillna(-1).tolist() == [600, -1, 1_500]
    assert spread.frame["why"].tolist() == ["", "XCN: carried", ""]
    assert spread.frame["grade"].fillna("").tolist() == ["B", "", "B"]


def test_a_stage_that_is_priced_for_the_world_only_may_stand_below() -> None:
    spread = staged({"2024-05": 9_000.0}, {"2024-05": 8_400.0}, zone="WLD", lower_zone="WLD")
    assert spread.lower == "copper/ore/WLD" and spread.frame["spread"].tolist() == [600]


def test_a_stage_spread_without_one_of_its_sides_is_withheld_with_the_reason() -> None:
    assert staged({"2024-05": 9_000.0}, None).withheld == "no price of copper/ore/XCN"
    assert staged({"2024-05": 9_000.0}, {"2024-06": 8_400.0}).withheld.startswith("there is no month")


def test_a_metal_per_product_counts_as_contained_only_where_its_market_says_so() -> None:
    ore = market("XCN", stage="ore", **CONTAINED)
    with pytest.raises(ValidationError, match=r"copper/metal/XCN and copper/ore/XCN are not priced per tonne of one"):
        method(markets=[market("XCN"), ore], spreads=[PAIR])
    rules = method(markets=[market("XCN", pure=True), ore], spreads=[PAIR])
    values = zip(rules.markets, (9_000.0, 8_400.0), strict=True)
    given_sides = {m.key: Side(m, {"monthly": table({"2024-05": v})}) for m, v in values}
    (spread,) = spreads.stage_spreads(given_sides, rules)["copper/XCN"]
    assert spread.unit == "USD/t Cu contained" and spread.frame["spread"].tolist() == [600]
    with pytest.raises(ValidationError, match="pure is said of a metal"):
        Market.model_validate({**ore, "pure": True})


def test_all_mistakes_of_the_tables_are_told_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        method(
            markets=[
                market("CN"),
                market("CN", stage="ore"),
                market("XCN", mineral="tin", element="Sn", per="contained"),
            ],
            rebates=[
                rebate("2024-12-01", 0.0, mineral="zinc"),
                rebate("2006-01-01", 0.0, stage="ore"),
                rebate("2024-12-01", 0.0),
                rebate("2024-12-01", 0.13),
            ],
            spreads=[PAIR, {**PAIR, "zone": "CN"}, {**PAIR, "mineral": "tin", "lower": "metal"}],
        )
    text = str(caught.value)
    for mistake in (
        "rebates.0: no market zinc/metal in any zone",
        "rebates.1.since: ores and concentrates bore another tax before 2009-01-01",
        "rebates.3: a second rate of copper/metal from 2024-12-01",
        "spreads.0: no market copper/metal/XCN",
        "spreads.0: no market copper/ore/XCN",
        "spreads.1: copper/metal/CN and copper/ore/CN are not priced per tonne of one element",
        "spreads.2: metal over itself",
    ):
        assert mistake in text


# ------------------------------------------------------------------------ demonstration, documents


@dataclass(frozen=True)
class Demo:
    """The demonstration's figures on 24 February 2026, from what the houses told in two years."""

    edition: Edition
    figures: figures.Figures
    rows: list[published.Row]
    files: dict[str, bytes]
    prints: dict[str, str]


@cache
def demo() -> Demo:
    operation, rules = demonstration.operation(Path("data")), load_methodology(ROOT / "methodology" / "demo")
    parts = [told(name, year) for name in CONTRIBUTORS for year in (2024, 2025, 2026)]
    known = pd.concat(parts).query("published <= '2026-02-24'").sort_values("published", kind="stable")
    eligible = figures.eligible(operation, "public")
    quoted, _ = figures.all_quotes(rules, eligible, known.drop_duplicates(["series", "period"], keep="last")[COLUMNS])
    prices = figures.prices(quoted, rules, figures.bases_due(quoted, rules, [], "2026-02-24"), "2026-02-24")
    made = figures.Figures(prices, gaps=spreads.gaps(prices, rules), spreads=spreads.stage_spreads(prices, rules))
    at = iso(dt.datetime(2026, 2, 24, 16, tzinfo=dt.UTC))
    edition = Edition("public", 1, at, at, None, True, False, operation, rules, eligible)
    files: dict[str, bytes] = {}
    prints: dict[str, str] = {}
    lists = {
        "gaps": gap_files(edition, made, lambda *_: None, files, prints),
        "spreads": spread_files(edition, made, files),
    }
    files |= {f"{name}.json": json.dumps({name: lines}).encode() for name, lines in lists.items()}
    return Demo(edition, made, [*gap_rows(made), *spread_rows(made)], files, prints)


def read(name: str) -> Any:
    return json.loads(demo().files[name])


def test_the_scripted_export_control_opens_the_gallium_gap_by_the_day() -> None:
    """From 29 January +35 % outside, -9 % inside, in eight days: the ratio falls to 0.91/1.35 of what it was."""
    daily = demo().figures.gaps["gallium/metal"].frames["daily"]["net"]
    before, after = (1 + daily[d] / 100 for d in ("2026-01-28", "2026-02-09"))
    assert after / before == pytest.approx(0.91 / 1.35, rel=0.02)
    in_january = 1 + daily["2026-01-30"] / 100
    assert in_january / before == pytest.approx((0.91 / 1.35) ** (2 / 8), rel=0.02)
    quiet = demo().figures.gaps["germanium/metal"].frames["daily"]["net"]
    assert (1 + quiet["2026-02-09"] / 100) / (1 + quiet["2026-01-28"] / 100) == pytest.approx(1, rel=0.03)


def test_every_product_with_two_zones_has_a_gap_by_the_month_and_by_the_day() -> None:
    zones: dict[str, set[str]] = {}
    for m in demo().edition.methodology.markets:
        zones.setdefault(f"{m.mineral}/{m.stage}", set()).add(m.zone)
    expected = {key for key, found in zones.items() if "CN" in found and found & {"XCN", "WLD"}}
    assert set(demo().figures.gaps) == expected and len(expected) == 13
    assert all(list(gap.frames) == ["monthly", "daily"] for gap in demo().figures.gaps.values())


def test_the_document_of_a_gap_shows_the_zones_side_by_side_its_rates_and_why_a_basis_is_missing() -> None:
    document = read("gaps/copper/metal.json")
    assert document["meta"]["simulated"] and document["meta"]["sources"]
    assert document["exchange_rate"]["rates"] == "simulated euro reference rates"
    assert document["exchange_rate"]["sources"] == ["demo-fx"] and "CNY" in document["exchange_rate"]["currencies"]
    assert document["days_apart"] == 1 and document["gap"]["unit"] == "% of the price outside China"
    assert [r["from"] for r in document["export_parity"]["rebates"]] == ["2024-12-01"]
    values = {v["period"]: v for v in document["values"]["monthly"]}
    assert values["2024-11"]["export_parity"]["reason"].endswith("before 2024-12-01")
    first = values["2024-12"]
    assert first["gross"] == {"value": None, "reason": spreads.UNTAXED}
    assert first["export_parity"]["unrounded"] == pytest.approx(((1 + first["unrounded"] / 100) * 1.13 - 1) * 100)
    for row in document["side_by_side"]["monthly"]:
        found = values.get(row["period"])
        assert found is not None and (row["CN"]["value"], row["XCN"]["value"]) == (found["china"], found["other"])
    assert read("gaps/gallium/metal.json")["export_parity"]["reason"] == "no export rebate of it is recorded"


def test_the_lists_and_yearly_parts_agree_with_the_documents() -> None:
    lines = {line["id"]: line for line in read("gaps.json")["gaps"]}
    assert lines["gallium/metal"]["latest"]["period"] == "2026-01" and not lines["gallium/metal"]["latest"]["stale"]
    for key in lines:
        document = read(f"gaps/{key}.json")
        assert document["gap"]["price_unit"] == lines[key]["price_unit"]
        assert lines[key]["price_unit"].startswith("USD/t"), "no price without its unit"
        assert document["latest"] == lines[key]["latest"]
        for frequency, recent in document["values"].items():
            parts = [read(f"{h['href'].removeprefix('/v1/')}.json") for h in document["history"][frequency]]
            rows = [row for part in parts for row in part["values"]]
            assert rows[-len(recent) :] == recent and rows == sorted(rows, key=lambda r: r["period"])


def test_a_yearly_part_is_kept_exactly_while_nothing_of_it_changed() -> None:
    made = demo()
    gap = made.figures.gaps["copper/metal"]
    days = gap.frames["daily"].copy()
    days.loc["2025-06-02", "net"] += 1e-9
    changed = figures.Figures(
        made.figures.prices, gaps={"copper/metal": spreads.Gap(*KEYS, {**gap.frames, "daily": days})}
    )
    prints: dict[str, str] = {}
    gap_files(made.edition, changed, lambda *_: None, {}, prints)
    assert {n for n in prints if prints[n] != made.prints[n]} == {"gaps/copper/metal/daily/2025.json"}
    kept: dict[str, bytes] = {}
    gap_files(made.edition, made.figures, lambda name, mark: b"kept" if mark == made.prints[name] else None, kept, {})
    assert {raw for name, raw in kept.items() if name in made.prints} == {b"kept"}


def test_the_stage_spreads_of_the_demonstration_are_the_difference_of_the_published_months() -> None:
    (pair,) = read("spreads/lithium/XCN.json")["spreads"]
    upper, lower = (demo().figures.prices[k].months["unrounded"] for k in ("lithium/chemical/XCN", "lithium/ore/WLD"))
    assert pair["unit"] == "USD/t Li contained" and len(pair["values"]) == 25
    for row in pair["values"]:
        assert row["unrounded"] == pytest.approx(upper[row["period"]] - lower[row["period"]])
    (line,) = [line for line in read("spreads.json")["spreads"] if line["id"] == "lithium/XCN"]
    assert line["pairs"][0]["latest"]["value"] == pair["values"][-1]["value"]


def test_gaps_and_spreads_can_be_asked_for_by_period_frequency_and_basis(tmp_path: Path) -> None:
    made = demo()
    root, at = tmp_path / "public", made.edition.vintage
    files = {"root.json": b"{}", "indices.json": b'{"indices":[]}', "prices.json": b'{"prices":[]}', **made.files}
    key = keys.new_key(tmp_path, dt.datetime(2026, 2, 24, 14, tzinfo=dt.UTC))
    releases.freeze(root, files, {"vintage": at, "released_at": at, "simulated": True}, key)
    published.append(root / "published.db", 1, at, at, made.rows)
    client = create_app(root, tmp_path / "status.json").test_client()

    def asked(address: str) -> Any:
        answer = client.get(address)
        assert answer.status_code == 200, answer.text
        return answer.json

    of_copper = {v["period"]: v for v in read("gaps/copper/metal.json")["values"]["monthly"]}
    net = asked("/v1/gaps/copper/metal?from=2024-11&to=2025-01")
    assert net["meta"]["unit"] == "%" and [v["period"] for v in net["values"]] == ["2024-11", "2024-12", "2025-01"]
    assert [v["unrounded"] for v in net["values"]] == [of_copper[v["period"]]["unrounded"] for v in net["values"]]
    parity = asked("/v1/gaps/copper/metal?basis=export-parity&to=2025-01")["values"]
    assert [v["unrounded"] for v in parity] == [
        of_copper[m]["export_parity"]["unrounded"] for m in ("2024-12", "2025-01")
    ]
    days = asked("/v1/gaps/gallium/metal?frequency=daily&from=2026-02-02&to=2026-02-03")["values"]
    assert [v["period"] for v in days] == ["2026-02-02", "2026-02-03"]
    assert client.get("/v1/gaps/copper/metal?basis=gross").status_code == 404
    assert client.get("/v1/gaps/copper/metal?basis=grosss").status_code == 400
    (series,) = asked("/v1/spreads/lithium/CN?from=2025-12")["series"]
    assert (series["upper"], series["lower"], len(series["values"])) == ("chemical", "ore", 2)
    assert client.get("/v1/spreads/lithium/CN?upper=metal").status_code == 404
    page = client.get("/").text
    last = of_copper["2026-01"]["value"]
    assert "copper/metal" in page and f"{last:+.2f} %".replace("-", "−") in page


# ----------------------------------------------------------------------------------- real figures


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared")
def test_the_copper_gap_of_february_2026_from_the_bureaus_and_the_banks_own_files() -> None:
    operation = load_operation(ROOT / "config.toml")
    rules = load_methodology(ROOT / "methodology" / "2026-11.toml")
    parts = []
    for name, module, file in (
        ("nbs", nbs, "nbs/nbs_tenday_nonferrous_2020-2026.csv"),
        ("worldbank", worldbank, "worldbank/pinksheet_2026-03-03.xlsx"),
        ("ecb", ecb, "ecb/eurofxref-hist_2026-04.zip"),
    ):
        source = operation.sources[name]
        parts.append(module.parse((DATA / file).read_bytes(), {s.id: s for s in source.series}, source).observations)
    observed = pd.concat(parts)
    quoted, _ = figures.all_quotes(rules, figures.eligible(operation, "public"), observed)
    prices = figures.prices(quoted, rules, [], "2026-03-04")
    gap = spreads.gaps(prices, rules)["copper/metal"]
    row = gap.frames["monthly"].loc["2026-02"]
    assert list(gap.frames) == ["monthly"] and gap.other == "copper/metal/XCN"
    assert round(row["net"], 2) == 0.71
    assert row["gross"] == pytest.approx(((1 + row["net"] / 100) * 1.13 - 1) * 100)
    assert row["export_parity"] == pytest.approx(row["gross"])  # nothing is refunded since December 2024
    # by hand: the bureau was silent in the middle of the month (New Year); yuan without 13 %, at the mean cross of days
    seen = observed.set_index(["series", "period"])["value"]
    spans = {"2026-02-10": "2026-02-01", "2026-02-28": "2026-02-21"}
    assert ("nbs-copper", "2026-02-20") not in seen.index
    fixed = {s.currency_of: seen.loc[s.id] for s in operation.sources["ecb"].series if s.currency_of in ("USD", "CNY")}
    cross = (fixed["USD"] / fixed["CNY"]).dropna()
    china = [seen["nbs-copper", last] / 1.13 * cross[first:last].mean() for last, first in spans.items()]
    assert row["net"] == pytest.approx((np.mean(china) / seen["wb-copper", "2026-02"] - 1) * 100, abs=1e-9)
