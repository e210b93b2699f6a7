import calendar
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.config import Market, Series
from pricing.errors import UnitError
from pricing.units import MASSES, VAT, conversion, explain, to_usd_per_t, usd_rates, vat_rate, vat_rates

SHARED = Path(__file__).resolve().parents[2].parent / "shared"

# Made rates: two TARGET holidays (Good Friday 2025-04-18, Easter Monday 2025-04-21) and a currency that ends.
RATES = pd.DataFrame(
    {
        "USD": [1.10, 1.12, 1.14, 1.15, 1.16, 1.13],
        "CNY": [8.00, 8.10, 8.20, 8.30, 8.40, 8.15],
        "RUB": [90.0, np.nan, np.nan, np.nan, np.nan, np.nan],
        "XAU": [np.nan] * 6,
    },
    index=pd.Index(["2025-04-01", "2025-04-16", "2025-04-17", "2025-04-22", "2025-04-23", "2025-05-02"]),
)


def series(unit, quoted_on="product", content=None, tax="none", stage="metal"):
    return Series(
        id="a-quote",
        unit=unit,
        quoted_on=quoted_on,
        content=content,
        tax=tax,
        stage=stage,
        frequency="daily",
        origin="x",
    )


def market(element="", per="product"):
    return Market(mineral="a-mineral", stage="metal", zone="XCN", element=element, per=per)


def factor(unit, quoted_on="product", content=None, element="", per="contained"):
    return conversion(series(unit, quoted_on, content), market(element, per)).factor


# ---------------------------------------------------------------------------- published factors


@pytest.mark.parametrize(
    ("unit", "published"),
    [
        ("USD/lb", 2204.6226),  # NIST Handbook 44, appendix C
        ("USD/ozt", 32150.7466),
        ("USD/kg", 1000),
        ("USD/g", 1_000_000),
        ("USD/t", 1),
        ("USD/dmt", 1),
        ("USD/st", 1.1023113),
        ("USD/lt", 0.98420653),
        ("USc/lb", 22.046226),
    ],
)
def test_a_unit_of_mass_has_its_published_factor(unit, published):
    assert factor(unit, per="product") == pytest.approx(published, rel=5e-8)


def test_a_metric_ton_unit_of_tungsten_oxide_holds_7_93_kg_and_a_short_ton_unit_7_19_kg():
    assert 1000 / factor("USD/mtu", "WO3", element="W") == pytest.approx(7.93, abs=0.005)
    assert 1000 / factor("USD/stu", "WO3", element="W") == pytest.approx(7.19, abs=0.005)
    assert factor("USD/mtu", "WO3", element="W") == pytest.approx(126.108, abs=5e-4)


@pytest.mark.parametrize("unit", ["mtu", "stu", "ltu"])
def test_a_ton_unit_is_a_hundredth_of_its_ton(unit):
    ton = {"mtu": "t", "stu": "st", "ltu": "lt"}[unit]
    assert MASSES[unit].kg * 100 == pytest.approx(MASSES[ton].kg, rel=1e-15)


def test_vanadium_pentoxide_by_the_pound_becomes_vanadium_by_the_tonne():
    # 2204.62262 / (2 * 50.9415 / 181.878); 3935.63 is seen where 0.56017 was rounded first
    assert factor("USD/lb", "V2O5", element="V") == pytest.approx(3935.62, abs=0.005)


def test_lithium_is_5_323_times_its_carbonate():
    assert factor("USD/t", "Li2CO3", element="Li") == pytest.approx(5.323, abs=5e-4)


def test_molybdenum_oxide_quoted_on_contained_metal_is_never_divided_again():
    assert factor("USD/lb", "contained", 0.57, "Mo") == pytest.approx(2204.6226, rel=1e-7)


def test_manganese_ore_by_the_dry_metric_ton_unit():
    assert factor("USD/dmtu", "contained", 0.44, "Mn") == 100
    assert factor("USD/dmtu", "contained", 0.44, "Mn", "product") == pytest.approx(44)  # USD per dry tonne of ore


def test_market_specification_and_theory_are_two_factors():
    by_market = factor("USD/t", "product", 0.205, "Co")
    by_theory = factor("USD/t", "CoSO4.7H2O", None, "Co")
    assert by_market == pytest.approx(4.878049, abs=5e-7)
    assert by_theory == pytest.approx(4.7697, abs=5e-5)


def test_a_price_on_the_compound_reaches_the_product_through_both_factors():
    # 98 % V2O5 flake: the price of the flake is 98 % of the price of its V2O5
    content = 0.98 * 0.560172
    assert factor("USD/t", "V2O5", content, "V", "product") == pytest.approx(0.98, rel=1e-5)


def test_a_price_on_the_element_itself_needs_no_content():
    assert factor("USD/kg", "Nb", element="Nb") == 1000


# What quotation each row of the reference table is. Content as its market_spec says.
REFERENCE = {
    "li_carbonate": ("USD/kg", "Li2CO3", None),
    "li_hydroxide": ("USD/kg", "LiOH.H2O", None),
    "spodumene": ("USD/t", "product", 0.06 * 0.46454),
    "co_metal": ("USD/lb", "contained", None),
    "co_sulfate": ("USD/t", "product", 0.205),
    "ni_lme": ("USD/t", "contained", None),
    "ni_sulfate": ("USD/t", "product", 0.22),
    "cu_lme": ("USD/t", "contained", None),
    "sn_lme": ("USD/t", "contained", None),
    "au_lbma": ("USD/ozt", "contained", None),
    "ndpr_oxide": ("USD/kg", "75% Nd2O3 + 25% Pr6O11", None),
    "dy_oxide": ("USD/kg", "Dy2O3", None),
    "tb_oxide": ("USD/kg", "Tb4O7", None),
    "y_oxide": ("USD/kg", "Y2O3", None),
    "graphite_flake": ("USD/t", "product", 0.945),
    "graphite_spherical": ("USD/t", "product", 0.9995),
    "mn_ore44": ("USD/dmtu", "contained", None),
    "w_apt": ("USD/mtu", "WO3", None),
    "w_ferro": ("USD/kg", "contained", 0.75),
    "sb_metal": ("USD/t", "product", 0.9965),
    "ga_metal": ("USD/kg", "contained", None),
    "ge_metal": ("USD/kg", "contained", None),
    "in_metal": ("USD/kg", "contained", None),
    "bi_metal": ("USD/lb", "contained", None),
    "te_metal": ("USD/kg", "contained", None),
    "mo_oxide": ("USD/lb", "contained", 0.57),
    "v_v2o5": ("USD/lb", "V2O5", None),
    "ti_sponge": ("USD/kg", "contained", None),
    "mg_metal": ("USD/t", "product", 0.999),
    "nb_feNb": ("USD/kg", "contained", 0.65),
    "ta_tantalite": ("USD/kg", "Ta2O5", None),
    "cr_ore": ("USD/t", "product", 0.42 * 0.68421),
    "pt": ("USD/ozt", "contained", None),
    "pd": ("USD/ozt", "contained", None),
    "ag": ("USD/ozt", "contained", None),
    "si_metal": ("EUR/t", "product", 0.985),
    "fluorspar_acid": ("USD/t", "product", 0.97),
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_every_price_quotation_of_the_reference_table_has_its_factor():
    table = pd.read_csv(SHARED / "reference" / "minerals.csv").set_index("id")
    assert set(table.index) - set(REFERENCE) == {"co_hydroxide"}  # a payable percentage, tested below
    for name, quotation in REFERENCE.items():
        row = table.loc[name]
        made = factor(*quotation, element=row["contained_basis"])
        # 2e-5: the table rests on weights rounded to three decimals and contents to five digits
        assert made == pytest.approx(row["usd_per_contained_t_per_unit"], rel=2e-5), name


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "unit", ["USD/mtu WO3", "USD/pound", "$/t", "usd/t", "USD", "/t", "USD/", "USD/wmt", "t", "% payable"]
)
def test_an_unknown_unit_names_the_series_and_the_known_units(unit):
    with pytest.raises(UnitError, match=r"series a-quote: unknown unit .*percent-payable.*t, dmt, kg.*dmtu"):
        factor(unit, per="product")


@pytest.mark.parametrize(
    ("quotation", "element", "per", "says"),
    [
        (("USD/t", "product"), "Co", "contained", "a-quote: quoted on product.*give content"),
        (("USD/t", "contained"), "Co", "product", "a-quote: quoted on contained.*give content"),
        (("USD/lb", "V2O5"), "V", "product", "a-quote: quoted on V2O5.*give content"),
        (("USD/lb", "V2O5"), "Co", "contained", "a-quote.*holds no 'Co'"),
        (("USD/lb", "V2O5"), "", "contained", "a-quote.*names no element"),
        (("USD/lb", "V2O5", 0.98), "V", "product", "share of the element, not of the compound"),
        (("USD/mtu", "product", 0.7), "W", "contained", "mtu counts contained material only"),
        (("USD/t", "vanadium"), "V", "contained", "a-quote, quoted_on.*not understood"),
    ],
)
def test_a_quotation_without_a_published_way_to_the_market_is_refused_with_the_mend(quotation, element, per, says):
    with pytest.raises(UnitError, match=says):
        factor(*quotation, element=element, per=per)


# ------------------------------------------------------------------------------------------ VAT


@pytest.mark.parametrize(
    ("period", "rate"),
    [
        ("1994-01-01", 0.17),
        ("2018-04-30", 0.17),
        ("2018-04", 0.17),
        ("2018-05-01", 0.16),
        ("2018-05", 0.16),
        ("2019-03-31", 0.16),
        ("2019-03", 0.16),
        ("2019-04-01", 0.13),
        ("2019-04", 0.13),
        ("2017", 0.17),
        ("2026-11-23", 0.13),
    ],
)
def test_the_chinese_tax_changes_on_its_day(period, rate):
    assert vat_rate(period) == rate


@pytest.mark.parametrize("period", ["1993-12-31", "1993-12", "1993"])
def test_there_is_no_chinese_tax_before_1994(period):
    with pytest.raises(UnitError, match="before 1994-01-01"):
        vat_rate(period)


@pytest.mark.parametrize("period", ["2018", "2019"])
def test_a_year_in_which_the_tax_changed_is_refused(period):
    with pytest.raises(UnitError, match=f"changed within period {period}"):
        vat_rates(pd.Index(["2017", period]))


def test_no_month_ever_had_two_tax_rates():
    assert all(day.endswith("-01") for day, _, _ in VAT)
    months = pd.Index([f"{y}-{m:02}" for y in range(1994, 2027) for m in range(1, 13)])
    last_days = pd.Index([f"{m}-{calendar.monthrange(int(m[:4]), int(m[5:]))[1]}" for m in months])
    assert (vat_rates(months) == vat_rates(last_days)).all()


@pytest.mark.parametrize(
    "period", ["2019-13", "2019-02-30", "19-04-01", "April", "NaT", "2019-04-01T00:00", "2019-W14"]
)
def test_a_period_that_is_none_is_refused(period):
    with pytest.raises(UnitError, match="ISO"):
        vat_rate(period)


def test_the_tax_is_taken_out_of_a_chinese_quotation_day_by_day():
    rates = pd.DataFrame({"USD": 1.2, "CNY": 7.8}, index=pd.Index(["2019-03-29", "2019-04-01"]))
    values = pd.Series([116_000.0, 113_000.0], index=rates.index)
    made = to_usd_per_t(values, series("CNY/t", tax="cn-vat"), market(), rates)
    assert made["vat"].tolist() == [0.16, 0.13]
    assert made["usd_per_t"].tolist() == pytest.approx([100_000 * 1.2 / 7.8] * 2)


def test_an_ore_under_the_reduced_tax_before_2009_is_refused():
    rates = pd.DataFrame({"USD": 1.4, "CNY": 9.7}, index=pd.Index(["2008-12-31", "2009-01-05"]))
    values = pd.Series([100.0, 100.0], index=rates.index)
    with pytest.raises(UnitError, match="a-quote: ores and concentrates.*2008-12-31"):
        to_usd_per_t(values, series("CNY/t", tax="cn-vat", stage="ore"), market(), rates)
    assert (
        to_usd_per_t(values.iloc[1:], series("CNY/t", tax="cn-vat", stage="ore"), market(), rates)["vat"].item() == 0.17
    )
    assert to_usd_per_t(values, series("CNY/t", tax="cn-vat"), market(), rates)["vat"].tolist() == [0.17, 0.17]


# ------------------------------------------------------------------------------------- currency


def test_a_holiday_takes_the_rate_of_the_last_fixing_and_says_so():
    made = usd_rates(RATES, "CNY", pd.Index(["2025-04-17", "2025-04-18", "2025-04-21", "2025-04-22"]))
    assert made["rate_period"].tolist() == ["2025-04-17", "2025-04-17", "2025-04-17", "2025-04-22"]
    assert made["usd_per_unit"].tolist() == pytest.approx([1.14 / 8.2] * 3 + [1.15 / 8.3], rel=1e-15)
    assert made["n"].tolist() == [1, 1, 1, 1]


def test_a_rate_older_than_seven_days_is_not_used():
    made = usd_rates(RATES, "EUR", pd.Index(["2025-04-08", "2025-04-09", "2025-03-31"]))
    assert made["usd_per_unit"].iloc[0] == 1.10
    assert made["usd_per_unit"].iloc[1:].isna().all()
    assert made["rate_period"].tolist() == ["2025-04-01", "", ""]
    assert made["n"].tolist() == [1, 0, 0]
    assert usd_rates(RATES, "EUR", pd.Index(["2025-04-09"]), max_age_days=8)["usd_per_unit"].item() == 1.10


def test_a_month_and_a_year_are_the_mean_of_their_daily_crosses():
    made = usd_rates(RATES, "CNY", pd.Index(["2025-05", "2025-04", "2025", "2025-03", "2024", "2025-06"]))
    crosses = (RATES["USD"] / RATES["CNY"]).tolist()
    expected = [crosses[5], math.fsum(crosses[:5]) / 5, math.fsum(crosses) / 6]
    assert made["usd_per_unit"].iloc[:3].tolist() == pytest.approx(expected, rel=1e-15)
    assert made["usd_per_unit"].iloc[3:].isna().all()
    assert made["n"].tolist() == [1, 5, 6, 0, 0, 0]
    assert made["rate_period"].tolist()[:2] == ["2025-05-02..2025-05-02", "2025-04-01..2025-04-23"]
    assert made["rate_period"].tolist()[3:] == ["", "", ""]


def test_days_and_months_may_stand_in_one_index_in_any_order():
    periods = ["2025-05", "2025-04-18", "2025", "2025-04-02", "2025-04"]
    together = usd_rates(RATES, "CNY", pd.Index(periods))
    alone = pd.concat([usd_rates(RATES, "CNY", pd.Index([p])) for p in periods])
    pd.testing.assert_frame_equal(together, alone)


def test_a_currency_that_ends_has_no_rate_afterwards_and_none_is_guessed():
    made = usd_rates(RATES, "RUB", pd.Index(["2025-04-01", "2025-04-08", "2025-04-16", "2025-05", "2025-04"]))
    assert made["usd_per_unit"].notna().tolist() == [True, True, False, False, True]
    assert made["n"].tolist() == [1, 1, 0, 0, 1]


def test_a_currency_without_any_rate_gives_missing_prices():
    values = pd.Series([1.0, 2.0], index=["2025-04-17", "2025-04"])
    made = to_usd_per_t(values, series("XAU/t"), market(), RATES)
    assert made[["usd_per_t", "fx"]].isna().all(axis=None)
    assert made["fx_period"].tolist() == ["", ""]


@pytest.mark.parametrize("rates", [RATES, RATES.drop(columns="USD")])
def test_a_currency_without_a_column_is_refused_by_name(rates):
    absent = "GBP" if "USD" in rates else "USD"
    with pytest.raises(UnitError, match=f"series a-quote: no exchange rates of {absent}.*currency_of = '{absent}'"):
        to_usd_per_t(
            pd.Series([1.0], index=["2025-04-17"]), series("GBP/t" if "USD" in rates else "EUR/t"), market(), rates
        )


def test_rates_out_of_order_or_twice_a_day_are_refused():
    for wrong in (RATES.iloc[::-1], pd.concat([RATES, RATES.tail(1)])):
        with pytest.raises(UnitError, match="each day once, in order"):
            usd_rates(wrong, "CNY", pd.Index(["2025-04-17"]))


def test_dollars_need_no_rates():
    made = usd_rates(pd.DataFrame(), "USD", pd.Index(["2025-04-18", "1960-01"]))
    assert made["usd_per_unit"].tolist() == [1, 1]
    assert made["n"].tolist() == [0, 0]


def test_an_empty_series_stays_empty():
    made = to_usd_per_t(
        pd.Series([], index=pd.Index([], dtype=str), dtype=float), series("CNY/t", tax="cn-vat"), market(), RATES
    )
    assert len(made) == 0
    assert list(made.columns) == ["usd_per_t", "fx", "fx_period", "vat"]


def test_a_missing_value_stays_missing():
    made = to_usd_per_t(pd.Series([np.nan, 5.0], index=["2025-04-16", "2025-04-17"]), series("USD/kg"), market(), RATES)
    assert math.isnan(made["usd_per_t"].iloc[0])
    assert made["usd_per_t"].iloc[1] == 5000


def test_history_before_a_month_does_not_change_its_mean_by_a_bit():
    days = pd.Index(pd.bdate_range("2010-01-01", "2025-12-31").strftime("%Y-%m-%d"))
    random = np.random.default_rng(7)
    rates = pd.DataFrame({"USD": random.uniform(1, 1.3, len(days)), "CNY": random.uniform(7, 9, len(days))}, index=days)
    month = pd.Index(["2025-12"])
    assert (
        usd_rates(rates, "CNY", month)["usd_per_unit"].item()
        == usd_rates(rates.loc["2025-11-20":], "CNY", month)["usd_per_unit"].item()
    )


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_monthly_means_of_the_dollar_agree_with_those_of_the_ecb():
    daily = pd.read_csv(SHARED / "data/ecb/eurofxref-hist.csv", usecols=["Date", "USD"], index_col="Date").sort_index()
    official = pd.read_csv(SHARED / "data/ecb/atlas_fx_usd_eur.csv").set_index("TIME_PERIOD")["OBS_VALUE"]
    common = official.loc["2000-01":"2026-03"]
    made = usd_rates(daily, "EUR", common.index)
    assert len(common) > 300
    assert made["usd_per_unit"].to_numpy() == pytest.approx(common.to_numpy(), rel=1e-9)


# -------------------------------------------------------------------------------------- payable


def test_a_payable_percentage_needs_the_metal_price():
    hydroxide = series("percent-payable", "contained", 0.3)
    values = pd.Series([60.0, 61.0], index=["2025-04-16", "2025-04-17"])
    for attempt in (
        lambda: conversion(hydroxide, market("Co", "contained")),
        lambda: to_usd_per_t(values, hydroxide, market("Co", "contained"), RATES),
        lambda: explain(60.0, "2025-04-16", hydroxide, market("Co", "contained"), RATES),
    ):
        with pytest.raises(UnitError, match="a-quote: percent-payable is a share of the metal price"):
            attempt()


def test_a_payable_percentage_is_taken_of_the_metal_price_of_its_period():
    hydroxide = series("percent-payable", "contained", 0.3)
    metal = pd.Series([10 * 2204.622622, 30_000.0], index=["2025-04-16", "2025-04-22"])
    values = pd.Series([60.0, 61.0, 50.0], index=["2025-04-16", "2025-04-17", "2025-04-22"])
    made = to_usd_per_t(values, hydroxide, market("Co", "contained"), RATES, payable_of=metal)["usd_per_t"]
    assert made.iloc[[0, 2]].tolist() == pytest.approx([6 * 2204.622622, 15_000])  # 60 % of 10 USD/lb
    assert math.isnan(made.iloc[1])
    product = to_usd_per_t(values, hydroxide, market("Co", "product"), RATES, payable_of=metal)["usd_per_t"]
    assert product.iloc[2] == pytest.approx(4_500)
    with pytest.raises(UnitError, match="no metal price for 2025-04-17"):
        explain(61.0, "2025-04-17", hydroxide, market("Co", "contained"), RATES, payable_of=metal)


def test_a_payable_percentage_of_a_product_is_refused():
    values = pd.Series([60.0], index=["2025-04-16"])
    with pytest.raises(UnitError, match="set quoted_on = 'contained'"):
        to_usd_per_t(values, series("percent-payable"), market("Co"), RATES, payable_of=values)


# ----------------------------------------------------------------------------------- properties

prices = st.floats(1e-3, 1e7)
quotations = st.sampled_from(
    [
        (series("USD/lb", "contained"), market("Co", "contained")),
        (series("USD/mtu", "WO3"), market("W", "contained")),
        (series("CNY/t", content=0.205, tax="cn-vat"), market("Co", "contained")),
        (series("EUR/kg", "contained", 0.9), market("Co", "product")),
        (series("USc/lb", tax="cn-vat"), market("Cu")),
        (series("CNY/kg", "75% Nd2O3 + 25% Pr6O11", tax="cn-vat"), market("Nd+Pr", "contained")),
        (series("CNY/kg", "V2O5", 0.5), market("V", "product")),
        (series("percent-payable", "contained", 0.3), market("Co", "product")),
    ]
)
periods = st.sampled_from(["2025-04-16", "2025-04-18", "2025-04", "2025-05", "2025"])
METAL = pd.Series(31_234.5, index=["2025-04-16", "2025-04-18", "2025-04", "2025-05", "2025"])


@settings(deadline=None)
@given(prices, periods, quotations)
def test_the_explained_factors_multiply_to_the_converted_price(value, period, quotation):
    made = to_usd_per_t(pd.Series([value], index=[period]), *quotation, RATES, METAL)["usd_per_t"].item()
    steps = explain(value, period, *quotation, RATES, METAL)
    assert value * math.prod(step.factor for step in steps) == pytest.approx(made, rel=1e-12)
    assert all(step.name and step.source for step in steps)


@settings(deadline=None)
@given(st.lists(prices, min_size=5, max_size=5), st.floats(1e-3, 1e3), quotations)
def test_a_price_scaled_before_is_a_price_scaled_after(values, scale, quotation):
    before = pd.Series(values, index=METAL.index)
    scaled = to_usd_per_t(before * scale, *quotation, RATES, METAL)["usd_per_t"]
    after = to_usd_per_t(before, *quotation, RATES, METAL)["usd_per_t"] * scale
    np.testing.assert_allclose(scaled, after, rtol=1e-12)


@settings(deadline=None)
@given(prices, st.sampled_from(sorted(MASSES)), st.sampled_from(sorted(MASSES)))
def test_one_price_in_two_units_of_mass_gives_one_result(usd_per_kg, one, other):
    made = [usd_per_kg * MASSES[unit].kg * factor(f"USD/{unit}", "contained", element="Co") for unit in (one, other)]
    assert made[0] == pytest.approx(made[1], rel=1e-12)
    assert made[0] == pytest.approx(usd_per_kg * 1000, rel=1e-12)


@settings(deadline=None)
@given(st.floats(0.01, 1), prices)
def test_content_out_and_in_again_is_the_same_price(content, value):
    out = factor("USD/t", "product", content, "Co", "contained")
    back = factor("USD/t", "contained", content, "Co", "product")
    assert value * out * back == pytest.approx(value, rel=1e-12)


def test_the_steps_name_both_legs_of_the_exchange_rate_and_the_tax_announcement():
    quote = series("CNY/t", content=0.205, tax="cn-vat")
    steps = explain(50_000, "2025-04-18", quote, market("Co", "contained"), RATES)
    assert [step.name for step in steps] == ["0.205 of the product is Co", "without 13% Chinese VAT", "USD per CNY"]
    assert "39 of 2019" in steps[1].source
    assert steps[2].detail == "1.14 USD/EUR / 8.2 CNY/EUR on 2025-04-17"


def test_a_price_without_a_rate_cannot_be_explained():
    with pytest.raises(UnitError, match="a-quote: no RUB rate for 2025-05-02"):
        explain(1.0, "2025-05-02", series("RUB/t"), market(), RATES)


def test_the_documentation_lists_every_unit_and_every_tax_rate():
    text = (Path(__file__).resolve().parents[2] / "docs" / "units.md").read_text(encoding="utf-8")
    assert [unit for unit in MASSES if f"| `{unit}` |" not in text] == []
    assert [day for day, rate, _ in VAT if f"| {day} | {rate:.0%} |".replace("%", " %") not in text] == []


def test_a_ten_day_period_takes_the_mean_rate_of_its_days():
    days = pd.bdate_range("2025-01-01", "2025-02-28").strftime("%Y-%m-%d")
    rates = pd.DataFrame({"USD": 1.0, "CNY": [7 + i / 100 for i in range(len(days))]}, index=days)
    periods = pd.Index(["2025-01-10", "2025-01-20", "2025-01-31", "2025-02-28"])
    made = usd_rates(rates, "CNY", periods, ten_day=True)
    spans = [("2025-01-01", "2025-01-10"), ("2025-01-11", "2025-01-20"), ("2025-01-21", "2025-01-31")]
    spans.append(("2025-02-21", "2025-02-28"))
    expected = [float((1 / rates.loc[first:last, "CNY"]).mean()) for first, last in spans]
    assert made["usd_per_unit"].tolist() == pytest.approx(expected, rel=1e-12)
    assert made["rate_period"].iloc[1] == "2025-01-13..2025-01-20"
