import datetime as dt
import io
import json
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.config import Series, Source
from pricing.errors import ConfigError, ParseError
from pricing.sources.table import number, parse

SAMPLES = Path(__file__).resolve().parents[2] / "samples" / "table"
SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "daily"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")

INVESTING = {"date": "Date", "date_format": "%m/%d/%Y", "thousands": ","}
NESTED = {
    "format": "json",
    "records": "metals.*.history",
    "layout": "long",
    "date_format": "%Y.%m.%d",
    "key": "name",
    "unit": "today.unit",
}


def source(table, **more):
    return Source(
        parser="table",
        title="a table",
        publisher="somebody",
        terms="https://example.org",
        terms_read="2026-11-23",
        licence="proprietary",
        attribution="somebody",
        rights="internal",
        table=table,
        series=(),
        **more,
    )


def quote(name="x", column="price", unit="USD/t", frequency="daily", **more):
    return Series(id=name, kind="other", column=column, unit=unit, frequency=frequency, origin="o", **more)


def read(raw, table, *series, **more):
    raw = raw.encode() if isinstance(raw, str) else raw
    return parse(raw, {s.id: s for s in series or (quote(),)}, source(table, **more))


def values(parsed):
    return dict(zip(parsed.observations["period"], parsed.observations["value"], strict=True))


MN = quote("manganese", "망간 (Mn)", expect=("USD/mt",))
ND = quote("neodymium", "네오디뮴 (Nd)", unit="USD/kg")


# ---------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("text", "marks", "value"),
    [
        ("51,569.00", (".", ","), 51569.0),
        ("51569.00", (".", ","), 51569.0),
        ("1,234,567", (".", ","), 1234567.0),
        ("-31.5", (".", ""), -31.5),
        ("1.234,5", (",", "."), 1234.5),
        ("1 234,5", (",", " "), 1234.5),
        ("1e-05", (".", ""), 1e-05),
    ],
)
def test_a_number_is_read_with_its_marks(text, marks, value):
    assert number(text, *marks) == value


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("1,1476", (".", ",")),
        ("1476,000.00", (".", ",")),
        ("0,123", (".", ",")),
        ("1,,234", (".", ",")),
        ("1,234", (".", "")),
        ("1.234.567", (".", "")),
        ("1.5,000", (".", ",")),
        ("12%", (".", "")),
        ("4.12K", (".", "")),
        ("nan", (".", "")),
        ("inf", (".", "")),
        ("1e999", (".", "")),
        ("", (".", "")),
        ("=1+1", (".", "")),
        ("0x10", (".", "")),
        ("1_000", (".", "")),
        ("١٢", (".", "")),
        ("(5)", (".", "")),
    ],
)
def test_a_text_that_is_not_plainly_one_number_is_none(text, marks):
    assert number(text, *marks) is None


@given(st.floats(min_value=-1e12, max_value=1e12).map(lambda x: round(x, 4)), st.sampled_from([(".", ","), (",", ".")]))
def test_a_number_written_with_marks_is_read_back(x, marks):
    decimal, thousands = marks
    written = f"{x:,.4f}".translate(str.maketrans(".,", decimal + thousands))
    assert number(written, decimal, thousands) == float(f"{x:.4f}")


# ----------------------------------------------------------------------------------- layouts


def test_the_samples_parse_to_exactly_what_is_expected():
    expected = pd.read_csv(SAMPLES / "expected.csv")
    for name, table, series in (
        ("export.csv", INVESTING, (quote("cobalt", "Price"),)),
        ("nested.json", NESTED, (ND, MN)),
    ):
        parsed = read((SAMPLES / name).read_bytes(), table, *series)
        wanted = expected[expected.document == name].drop(columns="document").reset_index(drop=True)
        pd.testing.assert_frame_equal(parsed.observations, wanted, check_dtype=False)
        assert parsed.findings == ()


def test_an_alias_finds_a_column_that_was_renamed():
    assert values(read("date,Close\n2024-01-02,5\n", {}, quote(aliases=("Close",)))) == {"2024-01-02": 5.0}


def test_a_series_without_a_column_is_not_paired_with_a_column_without_a_name():
    with pytest.raises(ParseError, match="no column ''"):
        read("date,price,\n2024-01-02,5,7\n", {}, quote(column=""))


def test_titles_above_the_head_are_passed_over_and_empty_lines_too():
    assert values(read("Prices 2024\n\ndate,price\n2024-01-02,5\n\n", {})) == {"2024-01-02": 5.0}


@pytest.mark.parametrize(
    ("frequency", "written", "form", "period"),
    [
        ("monthly", "1833-01", "%Y-%m", "1833-01"),
        ("annual", "2024", "%Y", "2024"),
        ("daily", "02-01-1985", "%d-%m-%Y", "1985-01-02"),
        ("weekly", "Mar 31, 2020", "%b %d, %Y", "2020-03-31"),
    ],
)
def test_the_period_follows_the_frequency(frequency, written, form, period):
    raw = f'date,price\n"{written}",18.93\n'
    assert values(read(raw, {"date_format": form}, quote(frequency=frequency))) == {period: 18.93}


def test_a_semicolon_table_with_decimal_commas_in_another_encoding_is_read():
    table = {
        "delimiter": ";",
        "decimal": ",",
        "thousands": ".",
        "encoding": "cp1252",
        "missing": ["", "–"],
        "date": "Tag",
    }
    raw = "Tag;Preis €\n2024-01-02;1.234,50\n2024-01-03;–\n".encode("cp1252")
    parsed = read(raw, table, quote(column="Preis €"))
    assert values(parsed) == {"2024-01-02": 1234.5}
    assert parsed.findings == ()


def test_a_cell_that_is_no_number_is_an_error_with_its_place_and_the_others_stand():
    raw = "date,price\n" + "".join(f"2024-01-0{d},{d}\n" for d in range(1, 10)).replace(",3\n", ",n.a.\n")
    parsed = read(raw, {})
    assert len(parsed.observations) == 8
    (finding,) = parsed.findings
    assert (finding.severity, finding.series, finding.period) == ("error", "x", "2024-01-03")
    assert "line 4, column 'price': 'n.a.'" in finding.message


def test_formula_looking_text_is_only_text():
    raw = "date,price\n2024-01-01,=1+1\n" + "".join(f"2024-01-0{d},{d}\n" for d in range(2, 8))
    assert [f.check for f in read(raw, {}).findings] == ["unreadable-number"]


def test_a_column_with_more_than_a_fifth_of_bad_cells_is_refused():
    with pytest.raises(ParseError, match="3 of 9 cells are no numbers; line 2, column 'price': 'a'"):
        read("date,price\n" + "".join(f"2024-01-0{d},{'a' if d < 4 else d}\n" for d in range(1, 10)), {})


def test_a_wrong_thousands_mark_does_not_pass_in_silence():
    with pytest.raises(ParseError, match="1,1476"):
        read('date,price\n2024-01-02,"1,1476"\n', {"thousands": ","})


@pytest.mark.parametrize(
    ("raw", "table", "message"),
    [
        ("date,cost\n2024-01-02,5\n", {}, "no column 'price' for series x; the columns are date, cost"),
        ("day,price\n2024-01-02,5\n", {}, "no column 'date'"),
        ("date,price,price\n2024-01-02,5,6\n", {}, "more than one column"),
        ("date,date,price\n2024-01-02,5,6\n", {}, "stands twice"),
        ("date,price\n", {}, "no rows"),
        ("", {}, "holds nothing"),
        ("date,price\n2024-01-02,5\n2024-13-02,5\n", {}, "line 3, column 'date': '2024-13-02' is not a date"),
        ("date,price\n,5\n", {}, "line 2, column 'date': ''"),
        ("date,price,volume\n2024-01-02,5\n", {}, "line 2: 2 cells under a head of 3"),
        ("date,price\n2024-01-02,5,6\n", {}, "line 2: 3 cells under a head of 2"),
        ('date,price\n2024-01-02,"5\n', {}, "CSV"),
        (b"date,price\n2024-01-02,\xff\n", {}, "CSV"),
        ('[{"date": "2024-01-02", "price": NaN}]', {"format": "json"}, "NaN is no JSON number"),
        ('[{"date": "2024-01-02", "price": -Infinity}]', {"format": "json"}, "Infinity"),
        ('[{"date": "2024-01-02", "price": 1, "price": 2}]', {"format": "json"}, "stands twice"),
        ('[{"date": "2024-01-02", "price": 1', {"format": "json"}, "JSON"),
        ('[{"date": "2024-01-02", "price": true}]', {"format": "json"}, "True is neither a number"),
        ('[{"date": "2024-01-02", "price": 1e999}]', {"format": "json"}, "inf is neither a number"),
        ('[{"date": "2024-01-02", "price": 1' + "0" * 400 + "}]", {"format": "json"}, "neither a number"),
        ('[{"day": "2024-01-02", "price": 1}]', {"format": "json"}, "no field 'date'"),
        ('{"data": {"rows": 5}}', {"format": "json", "records": "data.rows"}, "data.rows: expected a list of objects"),
        ('{"data": {"rows": []}}', {"format": "json", "records": "data.lines"}, "no 'lines'; there is rows"),
        ("[" * 100_000, {"format": "json"}, "JSON"),
        (b"not a workbook", {"format": "xlsx"}, "workbook"),
        (b"PK\x03\x04 torn", {"format": "xlsx"}, "workbook"),
    ],
    ids=lambda x: x[:40] if isinstance(x, str) else "",
)
def test_a_document_out_of_layout_is_refused(raw, table, message):
    with pytest.raises(ParseError, match=message):
        read(raw, table)


def test_a_period_twice_with_two_values_is_accepted_in_neither():
    parsed = read("date,price\n2024-01-02,5\n2024-01-02,6\n2024-01-03,7\n", {})
    assert values(parsed) == {"2024-01-03": 7.0}
    assert parsed.findings[0].check == "duplicate-period"


def test_a_source_without_table_settings_or_with_one_mark_for_two_is_an_operators_mistake():
    with pytest.raises(ConfigError, match="sources"):
        read("date,price\n", None)
    with pytest.raises(ConfigError, match="both ','"):
        read("date,price\n", {"decimal": ",", "thousands": ","})


# --------------------------------------------------------------------------------- long tables


LONG = "date,series,value,unit\n2024-01-02,tin,5,USD/t\n2024-01-02,lead,6,USD/kg\n"


def test_a_long_table_is_parted_by_its_key_and_absent_series_are_named():
    parsed = read(LONG, {"layout": "long", "unit": "unit"}, quote("a", "tin"), quote("b", "zinc"))
    assert parsed.observations["series"].tolist() == ["a"]
    assert parsed.absent == ("b",)


@pytest.mark.parametrize(
    ("table", "series", "message"),
    [
        ({"layout": "long", "unit": "unit"}, quote("b", "lead"), "line 3: unit 'USD/kg', but series b is in USD/t"),
        ({"layout": "long", "key": "metal"}, quote("b", "lead"), "expected one column 'metal'"),
        ({"layout": "long"}, quote("b", "zinc"), "names none of the series; it holds lead, tin"),
    ],
)
def test_a_long_table_that_does_not_fit_is_refused(table, series, message):
    with pytest.raises(ParseError, match=message):
        read(LONG, table, series)


def test_nested_json_is_parted_by_name_and_not_by_position():
    data = json.loads((SAMPLES / "nested.json").read_text(encoding="utf-8"))
    data["metals"].reverse()
    assert values(read(json.dumps(data), NESTED, ND)) == {"2024-01-02": 63.5, "2024-01-03": 64.0}


def test_a_unit_passed_down_from_the_parent_is_checked():
    with pytest.raises(ParseError, match="unit 'USD/mt', but series manganese is in USD/t"):
        read((SAMPLES / "nested.json").read_bytes(), NESTED, MN.model_copy(update={"expect": ()}))


# --------------------------------------------------------------------------------- workbooks


def workbook(rows, *more_sheets):
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Prices"
    for row in rows:
        sheet.append(row)
    for name in more_sheets:
        book.create_sheet(name)
    packed = io.BytesIO()
    book.save(packed)
    return packed.getvalue()


def test_a_workbook_holds_dates_numbers_and_texts():
    raw = workbook(
        [
            ["Title"],
            [],
            ["date", "price"],
            [dt.date(2024, 1, 2), 5.5],
            ["2024-01-03", "1,234.5"],
            [dt.date(2024, 1, 4), None],
        ]
    )
    assert values(read(raw, {"format": "xlsx", "thousands": ","})) == {"2024-01-02": 5.5, "2024-01-03": 1234.5}


def test_a_year_kept_as_a_number_is_a_year():
    raw = workbook([["date", "price"], [2024, 5]])
    table = {"format": "xlsx", "date_format": "%Y"}
    assert values(read(raw, table, quote(frequency="annual"))) == {"2024": 5.0}


def test_a_workbook_of_several_sheets_needs_the_name_of_one():
    raw = workbook([["date", "price"], [dt.date(2024, 1, 2), 5]], "Notes")
    with pytest.raises(ParseError, match="the sheets are Prices, Notes"):
        read(raw, {"format": "xlsx"})
    assert len(read(raw, {"format": "xlsx", "sheet": "Prices"}).observations) == 1


def test_a_workbook_that_unpacks_to_more_than_the_limit_is_refused():
    raw = workbook([["date", "price"], *([dt.date(2024, 1, 2), 5] for _ in range(5000))])
    with pytest.raises(ParseError, match="max_bytes = 50000"):
        read(raw, {"format": "xlsx"}, max_bytes=50_000)


# --------------------------------------------------------------------------------- real files


@real
@pytest.mark.parametrize(
    ("name", "table", "series", "rows", "first", "last"),
    [
        ("lme_westmetall_nickel.csv", {}, quote(column="cash_settlement"), 4712, 26505.0, 16860.0),
        ("lme_westmetall_nickel.csv", {}, quote(column="three_month"), 4712 - 94, 26725.0, 17025.0),
        ("lme_westmetall_copper.csv", {}, quote(column="cash_settlement"), 4711, 6666.0, 14291.0),
        ("investing_cobalt_futures_2022-12.csv", INVESTING, quote(column="Price"), 1625, 51569.0, 23660.0),
        ("investing_lithium_carbonate_china_spot.csv", INVESTING, quote(column="Price"), 1793, 72500.0, 136000.0),
        ("investing_nickel_futures_2022-12.csv", INVESTING, quote(column="Price"), 1706, 22588.0, 8505.0),
        ("investing_palladium_futures_2022-12.csv", INVESTING, quote(column="Price"), 1997, 2255.9, 544.55),
        ("komis_gallium_99.99_exw_china_usdkg_subset.csv", {}, quote(column="price_usd_per_kg"), 217, 283.74, 260.04),
        (
            "gold_spot_daily_priyanka.csv",
            {"date": "DATE", "date_format": "%d-%m-%Y"},
            quote(column="GOLD_PRICE"),
            10571,
            3630.9,
            305.5,
        ),
        (
            "gold_monthly_datahub.csv",
            {"date": "Date", "date_format": "%Y-%m"},
            quote(column="Price", frequency="monthly"),
            2322,
            18.93,
            4228.0,
        ),
        ("komis_rare_earths_2024-2026.json", NESTED, ND, 520, 63.51, 120.42),
        ("komis_rare_earths_2024-2026.json", NESTED, MN, 517, 1102.17, 1132.58),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_the_real_daily_files_are_read_by_settings_alone(name, table, series, rows, first, last):
    parsed = read((SHARED / name).read_bytes(), table, series)
    found = parsed.observations["value"]
    assert (len(found), found.iloc[0], found.iloc[-1], parsed.findings) == (rows, first, last, ())


@real
def test_the_one_twice_quoted_day_of_the_real_export_is_found():
    parsed = read((SHARED / "investing_nickel_futures_circec.csv").read_bytes(), INVESTING, quote(column="Price"))
    assert len(parsed.observations) == 1190 - 2
    assert [(f.check, f.period) for f in parsed.findings] == [("duplicate-period", "2025-02-11")]


@real
def test_real_exports_agree_with_a_plain_reading_by_pandas():
    path = SHARED / "investing_lithium_carbonate_china_spot.csv"
    plain = pd.read_csv(path, thousands=",", encoding="utf-8-sig")
    mine = values(read(path.read_bytes(), INVESTING, quote(column="Price")))
    theirs = zip(pd.to_datetime(plain["Date"], format="%m/%d/%Y").dt.strftime("%Y-%m-%d"), plain["Price"], strict=True)
    assert mine == dict(theirs)
    assert mine["2022-11-11"] == 597_500.0
