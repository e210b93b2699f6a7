"""Simulated customs offices: deterministic, true to the simulated market, scripted, and refused when not simulated."""

from __future__ import annotations

import datetime as dt
import hashlib
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest

from pricing import config
from pricing.declarations import Declared
from pricing.errors import ParseError
from pricing.sources import demo, demo_customs
from pricing.sources.demo_shipments import MISHAPS, OFFICES, PARTNERS, PRODUCTS

METHOD = config.load_methodology(Path(__file__).resolve().parents[3] / "methodology" / "demo")
SOURCES = demo_customs.sources()
CODES = {(c.system, c.code): c for c in METHOD.codes}
OFFICE = {office.origin: office for office in OFFICES}
LIVE = [dt.date(2026, 1, 1) + dt.timedelta(days=i) for i in range(730)]
MARKET = {code: (p.market, p.content if unit == "KG" else 1.0) for p in PRODUCTS for code, unit in p.codes.values()}


def read(document: demo.DemoDocument) -> Declared:
    source = SOURCES[document.source]
    assert source.customs is not None
    mine = [c for c in METHOD.codes if c.system == source.customs.system]
    told = demo_customs.declarations(document.raw, mine, source)
    assert told.published == document.published and not told.left_out and not told.findings
    return told


@cache
def told() -> pd.DataFrame:
    """Every word on every cell from 2021 to 2027, with the day of its document, oldest first."""
    documents = [*demo_customs.history(), *(d for day in LIVE for d in demo_customs.documents(day))]
    parts = [
        (t := read(d)).cells.assign(published=d.published, origin=d.source[-2:], first=t.scope.first, last=t.scope.last)
        for d in documents
    ]
    return pd.concat(parts, ignore_index=True)


CELL = ["origin", "code", "reporter", "partner", "period"]


def final() -> pd.DataFrame:
    """The last word on each cell with a mass, as value per tonne over the price of the month before."""
    rows = told().drop_duplicates(CELL, keep="last")
    rows = rows[(rows["status"] == "normal") & (rows["kg"] > 0)]
    facts = [MARKET[code] for code in rows["code"]]
    rate = by_month(demo.fx(dt.date(2027, 12, 31))["USD"])
    true = {
        (p.market, zone): by_month(demo.truth(f"{p.market}/{zone}", dt.date(2027, 12, 31)))
        for p in PRODUCTS
        for zone in ("CN", "XCN")
    }
    paid = [
        true[market, "CN" if partner == "CN" else "XCN"][str(pd.Period(period, "M") - 1)]
        for (market, _), partner, period in zip(facts, rows["partner"], rows["period"], strict=True)
    ]
    usd = rows["value"] * np.where(rows["origin"] == "eu", rows["period"].map(rate) / 1.03, 1.0)
    return rows.assign(
        market=[m for m, _ in facts],
        tonnes=rows["kg"] * [content for _, content in facts] / 1000,
        relative=usd / (rows["kg"] * [content for _, content in facts] / 1000) / paid,
    )


def by_month(days: pd.Series) -> pd.Series:
    out = days.groupby(days.index.strftime("%Y-%m")).mean()
    return pd.Series(out.to_numpy(), index=out.index.astype(str))


def scripted(rows: pd.DataFrame) -> pd.Series:
    out = pd.Series(False, index=rows.index)
    for m in MISHAPS:
        code = {c for p in PRODUCTS if m.market in ("", p.market) for c, _ in p.codes.values()}
        out |= (
            (rows["origin"] == m.origin)
            & (rows["period"] == m.month)
            & rows["code"].isin(code)
            & (rows["reporter"] == m.reporter)
            & (rows["partner"].eq(m.partner) | (m.partner == ""))
        )
    return out


def streams(rows: pd.DataFrame) -> pd.Series:
    """Whether a partner sends a product by the tonne, or a parcel now and then."""
    shares = {p.market: p.shares for p in PRODUCTS}
    return pd.Series(
        [partner in shares[MARKET[code][0]] for code, partner in zip(rows["code"], rows["partner"], strict=True)],
        index=rows.index,
    )


# ------------------------------------------------------------------------------------- documents


def test_the_same_day_gives_the_same_bytes_in_another_process_and_in_another_order() -> None:
    days = [dt.date(2031, 2, 10), dt.date(2026, 2, 9), dt.date(2022, 2, 4)]
    here = {d: hashlib.sha256(b"".join(x.raw for x in demo_customs.documents(d))).hexdigest() for d in days}
    assert len(set(here.values())) == 3 and all(demo_customs.documents(d) for d in days)
    script = (
        "import datetime as dt, hashlib, sys\n"
        "from pricing.sources import demo_customs as d\n"
        "for text in sys.argv[1:]:\n"
        "    raw = b''.join(x.raw for x in d.documents(dt.date.fromisoformat(text)))\n"
        "    print(text, hashlib.sha256(raw).hexdigest())\n"
    )
    command = [sys.executable, "-c", script, *map(str, days[::-1])]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    assert sorted(filter(None, there)) == sorted(f"{d} {h}" for d, h in here.items())


def test_the_history_is_what_was_published_day_by_day_and_a_longer_one_begins_as_a_shorter_one() -> None:
    whole = list(demo_customs.history(dt.date(2026, 3, 31)))
    assert list(demo_customs.history()) == [d for d in whole if d.published <= dt.date(2025, 12, 31)]
    days = [dt.date(2022, 1, 1) + dt.timedelta(days=i) for i in range(365 * 4 + 91)]
    assert [d for day in days for d in demo_customs.documents(day)] == sorted(
        whole, key=lambda d: (d.published, d.source)
    )
    assert [d.published for d in whole] == sorted(d.published for d in whole)


@pytest.mark.parametrize("origin", ["eu", "us"])
def test_each_office_speaks_once_a_month_on_a_weekday_some_forty_days_later(origin: str) -> None:
    days = told()[told()["origin"] == origin].drop_duplicates("published")
    live = days[days["published"] >= dt.date(2025, 2, 15)]
    lasts = pd.PeriodIndex(live["last"], freq="M")
    assert list(lasts) == list(pd.period_range("2025-01", periods=len(live), freq="M")) and len(live) == 34
    assert (pd.PeriodIndex(live["first"], freq="M") == lasts - 1).all(), "the month before is told once more"
    waited = [(day - last.end_time.date()).days for day, last in zip(live["published"], lasts, strict=True)]
    assert min(waited) >= OFFICE[origin].days and max(waited) <= OFFICE[origin].days + 2 <= 42  # type: ignore[index]
    assert all(day.weekday() < 5 for day in days["published"])


def test_about_four_per_cent_of_the_cells_move_in_the_month_after_and_none_again() -> None:
    rows = told()[(told()["published"] >= dt.date(2025, 1, 1)) & (told()["status"] == "normal")]
    rows = rows[~scripted(rows) & (rows["period"] >= "2024-12") & (rows["period"] <= "2027-09")]
    words = rows.groupby(CELL)
    assert (words.size() == 2).all()
    moved = (words[["value", "kg"]].nunique() > 1).any(axis=1)
    assert len(moved) > 1000 and 0.025 < moved.mean() < 0.055
    size = np.log(words["value"].last() / words["value"].first())[moved]
    assert 0.03 < size.std() < 0.07


def test_history_stays_small() -> None:
    rows = told()[told()["published"] < dt.date(2026, 1, 1)].drop_duplicates(CELL)
    assert 1800 < len(rows) < 2500
    assert rows.groupby("origin")["period"].agg(["min", "max"]).to_numpy().tolist() == [["2021-02", "2025-10"]] * 2


# ----------------------------------------------------------------------------------- the figures


def test_imports_are_worth_the_price_of_the_month_before_times_a_lasting_quality() -> None:
    """Independent truth: the market's own prices and rates by day, averaged here."""
    rows = final()
    bulk = rows[streams(rows) & ~scripted(rows) & (rows["kg"] > 50)]
    medians = bulk.groupby(["market", "partner"])["relative"].median()
    assert len(medians) == 16 and medians.between(0.8, 1.25).all() and medians.std() > 0.03
    scatter = np.log(bulk["relative"] / bulk.groupby(["market", "partner"])["relative"].transform("median"))
    assert 0.05 < scatter.std() < 0.13 and scatter.abs().max() < 0.5
    both = bulk.groupby(["market", "partner", "origin"])["relative"].median().unstack()
    assert np.log(both["us"] / both["eu"]).abs().max() < 0.06, "the two offices see the same qualities"


def test_one_office_counts_contained_tungsten_and_the_other_gross_mass() -> None:
    assert CODES["HTS10", "9900003100"].basis == "contained" and CODES["CN8", "99000031"].basis == "product"
    rows = final()
    rows = rows[(rows["market"] == "tungsten/chemical") & streams(rows) & ~scripted(rows)]
    assert rows.groupby("origin")["relative"].median().between(0.93, 1.1).all()


def test_every_wrong_unit_of_the_script_is_told_and_mended_only_where_it_says() -> None:
    rows = told()
    for m in (m for m in MISHAPS if m.factor != 1):
        (codes,) = [{c for c, _ in p.codes.values()} for p in PRODUCTS if p.market == m.market]
        mine = rows[
            (rows["origin"] == m.origin) & (rows["period"] == m.month) & rows["code"].isin(codes)
            & (rows["reporter"] == m.reporter) & (rows["partner"] == m.partner)
        ]  # fmt: skip
        usual = rows[
            (rows["origin"] == m.origin) & rows["code"].isin(codes) & (rows["partner"] == m.partner)
            & (rows["period"] != m.month)
        ]  # fmt: skip
        usual_ratio = (usual["value"] / usual["kg"]).median()
        wrong = (mine["value"] / mine["kg"] / usual_ratio * m.factor).tolist()
        assert wrong[0] == pytest.approx(1, rel=0.7), m
        if m.mended:
            assert wrong[-1] / m.factor == pytest.approx(1, rel=0.7) and len(wrong) == 2


def test_a_reporter_that_is_late_is_absent_first_and_there_a_month_later() -> None:
    (late,) = [m for m in MISHAPS if m.factor == 1]
    rows = told()[(told()["origin"] == late.origin) & (told()["period"] == late.month)]
    first, second = (rows[rows["published"] == day] for day in sorted(rows["published"].unique()))
    assert late.reporter not in set(first["reporter"]) and (second["reporter"] == late.reporter).sum() > 5
    assert set(first["reporter"]) == {"BE", "DE"}


def test_china_sends_less_for_a_year_after_an_export_control_and_nobody_else_does() -> None:
    (control,) = [e for e in demo.EVENTS if e.kind == "control" and e.start.year == 2023]
    mineral = "antimony/metal"
    assert f"{mineral}/CN" in control.markets
    rows = final()
    mine = rows[(rows["market"] == mineral) & streams(rows) & ~scripted(rows)]
    tonnes = mine.groupby(["period", mine["partner"] == "CN"])["tonnes"].sum().unstack(fill_value=0.0)
    after = tonnes.loc["2023-10":"2024-09"].mean()  # type: ignore[misc]
    before, later = (tonnes.loc[span].mean() for span in (slice("2022-10", "2023-09"), slice("2024-10", "2025-09")))
    for usual in (before, later):
        assert 0.2 < after[True] / usual[True] < 0.4
        assert 0.8 < after[False] / usual[False] < 1.25


def test_parcels_are_of_a_few_kilograms_at_several_times_the_price_and_some_round_to_nothing() -> None:
    rows = told().drop_duplicates(CELL, keep="last")
    parcels = rows[~streams(rows)]
    assert 0.015 < len(parcels) / len(rows) < 0.035 and parcels["kg"].quantile(0.9) < 100
    assert (parcels["kg"] == 0).any()
    dear = final()
    dear = dear[~streams(dear) & (dear["kg"] > 5)]
    assert dear["relative"].between(3, 10.5).all()


def test_secret_cells_show_no_figure_and_only_one_office_has_any() -> None:
    rows = told().drop_duplicates(CELL, keep="last")
    secret = rows[rows["status"] == "confidential"]
    assert set(secret["origin"]) == {"eu"} and secret[["value", "kg"]].isna().all(axis=None)
    assert 0.003 < len(secret) / (rows["origin"] == "eu").sum() < 0.02
    open_cells = rows[rows["status"] != "confidential"]
    assert set(open_cells["status"]) == {"normal"}
    assert (open_cells[["value", "kg"]] % 1 == 0).all(axis=None), "whole units of money, whole kilograms"


# -------------------------------------------------------------------------------- what it is read by


def test_the_settings_fit_the_method_and_the_documents() -> None:
    operation = config.Operation(sources=demo.sources() | SOURCES)
    config.check_references(operation, METHOD)
    assert {(s, c): (u,) for p in PRODUCTS for s, (c, u) in p.codes.items()} == {k: c.units for k, c in CODES.items()}
    markets = {m.key: m for m in METHOD.markets}
    for p in PRODUCTS:
        (gross,) = [c for c in METHOD.codes if c.code == p.codes["CN8"][0]]
        assert gross.content == p.content and gross.element == markets[f"{p.market}/XCN"].element
    assert METHOD.trade is not None and set(METHOD.trade.quotations.values()) <= set(markets)
    for name, source in SOURCES.items():
        assert "simulated" in source.title and "Simulated" in source.attribution and source.customs is not None, name
        assert "simulated" in source.customs.title and "simulated" in source.customs.valuation
    assert all(c.code.startswith("99") and "simulated" in c.title for c in METHOD.codes)


def test_partners_are_named_and_the_scope_is_the_month_and_the_one_before() -> None:
    (document,) = demo_customs.documents(dt.date(2026, 2, 4))
    declared = read(document)
    assert declared.names == PARTNERS
    assert (declared.scope.first, declared.scope.last) == ("2025-11", "2025-12")
    assert set(declared.scope.codes) == {c.code for c in METHOD.codes if c.system == "HTS10"}


def body() -> dict[str, Any]:
    (document,) = demo_customs.documents(dt.date(2026, 2, 4))
    return dict(orjson.loads(document.raw))


def refused(changed: dict[str, Any], match: str) -> None:
    source = SOURCES["demo-customs-us"]
    mine = [c for c in METHOD.codes if c.system == "HTS10"]
    with pytest.raises(ParseError, match=match):
        demo_customs.declarations(orjson.dumps(changed), mine, source)


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("simulated", "yes", "simulated: must be true"),
        ("office", "eu", "office: 'eu' where 'us'"),
        ("currency", "EUR", "currency: 'EUR' where 'USD'"),
        ("columns", ["code", "kg"], "columns: "),
        ("published", "soon", "published: must be a day"),
        ("first", "2025-13", "first: '2025-13' is not a month"),
        ("last", None, "last: None is not a month"),
        ("units", [], "units: must name"),
        ("units", {"9900001100": "KG"}, r"units\.9900002100: None where 'KG'"),
        ("rows", {}, "rows: must be a list"),
    ],
)
def test_a_document_that_is_not_what_it_should_be_is_refused_by_its_place(key: str, value: object, match: str) -> None:
    refused({**body(), key: value}, match)


@pytest.mark.parametrize(
    ("place", "value", "match"),
    [
        (0, 9900001100, r"rows\[0\]: must be a list of code"),
        (3, "2025-10", r"rows\[0\] \(.*\)\.period: 2025-10 lies outside 2025-11 to 2025-12"),
        (3, "2025-1", "is not a month"),
        (4, None, r"\.value: must be a number of at least 0"),
        (4, "12", r"\.value: must be"),
        (5, None, r"\.kg: must be a number"),
        (5, -1, r"\.kg: must be"),
        (5, True, r"\.kg: must be"),
        (6, "fine", r"\.status: 'fine' is none of normal"),
    ],
)
def test_a_row_that_is_not_a_cell_is_refused_by_its_place(place: int, value: object, match: str) -> None:
    given = body()
    given["rows"][0][place] = value
    refused(given, match)


def test_a_cell_told_twice_and_a_row_that_is_too_short_are_refused() -> None:
    given = body()
    refused({**given, "rows": [*given["rows"], given["rows"][3]]}, "says again what another row said of 9900001100 US")
    refused({**given, "rows": [given["rows"][0][:6]]}, r"rows\[0\]: must be a list of code, reporter")


def test_a_missing_mass_stays_missing_and_other_codes_are_counted_and_left_out() -> None:
    given = body()
    given["rows"][0][5:] = [None, "no-quantity"]
    source = SOURCES["demo-customs-us"]
    mine = [c for c in METHOD.codes if c.code == "9900001100"]
    declared = demo_customs.declarations(orjson.dumps(given), mine, source)
    assert declared.cells["kg"].isna().tolist() == [True] + [False] * (len(declared.cells) - 1)
    assert set(declared.cells["code"]) == {"9900001100"}
    assert declared.left_out == {"other-code": sum(row[0] != "9900001100" for row in given["rows"])}
    assert declared.scope.codes == ("9900001100",)


def test_a_day_outside_the_simulation_is_refused() -> None:
    with pytest.raises(ValueError, match="2040-01-02 lies outside"):
        demo_customs.documents(dt.date(2040, 1, 2))
