import csv
import datetime as dt
import io
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
import xlwt

from pricing.config import Series, Source
from pricing.errors import ParseError
from pricing.sources import imf, worldbank

SHARED = Path(__file__).resolve().parents[4] / "shared"
SAMPLES = Path(__file__).resolve().parents[2] / "samples" / "imf"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")

HEADERS = {
    "Commodity": ["PNICK", "POILAPSP", "POILAPSP", "PURAN", ""],
    "Commodity.Description": [
        "Nickel, melting grade, US$ per metric ton",
        "Crude oil, 2016 = 100",
        "Crude oil, average",
        "Uranium, US$ per pound",
        "Silicon Lumps (US$/MT)",
    ],
    "Data Type": ["USD", "Index", "USD", "USD", "USD"],
    "Frequency": ["Monthly"] * 5,
}
NEW = ("Commodity", "Commodity.Description", "Data Type", "Frequency")
OLD = ("Data Type", "Commodity", "Commodity.Description", "Frequency")
ROWS = [["2025M9", 15000.5, 150.1, 66.25, "", ""], ["2025M10", 15100.25, 149.9, 65.5, 79.5, 2700]]


def quotation(key: str, column: str, *expect: str, **more: object) -> Series:
    facts = {"id": key, "kind": "other", "unit": "USD/t", "frequency": "monthly", "origin": "x", "column": column}
    return Series.model_validate({**facts, "expect": expect, **more})


SERIES = {
    s.id: s
    for s in (
        quotation("nickel", "PNICK|USD", "US$ per metric ton"),
        quotation("oil", "POILAPSP|USD"),
        quotation("uranium", "PURAN", "US$ per pound"),
        quotation("silicon", "Silicon Lumps (US$/MT)|USD"),
    )
}
SOURCE = Source.model_validate(
    {
        "title": "t",
        "publisher": "p",
        "terms": "t",
        "terms_read": "2026-11-23",
        "licence": "l",
        "attribution": "a",
        "rights": "internal",
        "editions": {"2025-10": "2025-11-12"},
        "series": list(SERIES.values()),
    }
)
EXPECTED = {
    ("nickel", "2025-09"): 15000.5,
    ("nickel", "2025-10"): 15100.25,
    ("oil", "2025-09"): 66.25,
    ("oil", "2025-10"): 65.5,
    ("uranium", "2025-10"): 79.5,
    ("silicon", "2025-10"): 2700.0,
}


def table(*rows: list, order=NEW, **headers: list) -> list[list]:
    facts = {**HEADERS, **{key.replace("_", " "): value for key, value in headers.items()}}
    return [[name, *facts[name]] for name in order] + [list(row) for row in rows]


def xlsx(grid: list[list], sheet="External") -> bytes:
    book = openpyxl.Workbook()
    book.active.title = sheet
    for row in grid:
        book.active.append(row)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def xls(grid: list[list], sheet="External") -> bytes:
    book = xlwt.Workbook()
    page = book.add_sheet(sheet)
    for i, row in enumerate(grid):
        for j, value in enumerate(row):
            page.write(i, j, value)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def read(raw: bytes, series=SERIES):
    return imf.parse(raw, series, SOURCE)


def as_dict(parsed) -> dict[tuple[str, str], float]:
    frame = parsed.observations
    return dict(zip(zip(frame["series"], frame["period"], strict=True), frame["value"], strict=True))


@pytest.mark.parametrize("write", [xls, xlsx])
@pytest.mark.parametrize(("order", "sheet"), [(NEW, "Values"), (OLD, "External")])
def test_header_rows_are_read_in_either_order_from_either_form(write, order, sheet):
    parsed = read(write(table(*ROWS, order=order), sheet))
    assert as_dict(parsed) == EXPECTED
    assert parsed.findings == () and parsed.absent == ()
    assert parsed.published == dt.date(2025, 11, 12)


@pytest.mark.parametrize("name", ["external-data.xls", "sdmx.csv", "sdmx.xml"])
def test_the_samples_read_as_expected(name):
    with (SAMPLES / f"{name.partition('.')[0]}.expected.csv").open(newline="") as file:
        expected = {(row["series"], row["period"]): float(row["value"]) for row in csv.DictReader(file)}
    assert as_dict(read((SAMPLES / name).read_bytes())) == expected


def test_a_code_that_stands_twice_needs_its_data_type():
    with pytest.raises(ParseError, match=r"External!C1 \(POILAPSP\|Index\) and External!D1 .*as in POILAPSP\|Index"):
        read(xlsx(table(*ROWS)), {"oil": quotation("oil", "POILAPSP")})


def test_an_index_of_another_base_is_refused_with_its_cell():
    series = {"oil": quotation("oil-index", "POILAPSP|Index", "2005 = 100")}
    with pytest.raises(ParseError, match=r"External!C1: .*2016 = 100.* expects '2005 = 100'"):
        read(xlsx(table(*ROWS)), series)


def test_another_unit_is_refused_with_its_cell():
    series = {"uranium": quotation("uranium", "PURAN", "US$ per kilogram")}
    with pytest.raises(ParseError, match=r"External!E1: 'Uranium, US\$ per pound' \(USD\)"):
        read(xlsx(table(*ROWS)), series)


def test_a_quarterly_column_is_not_a_monthly_series():
    parsed = read(xlsx(table(*ROWS, Frequency=["Quarterly", *["Monthly"] * 4])))
    assert parsed.absent == ("nickel",)


def test_series_that_a_document_lacks_are_absent_and_none_at_all_is_refused():
    lead = quotation("lead", "PLEAD|USD")
    assert read(xlsx(table(*ROWS)), {**SERIES, "lead": lead}).absent == ("lead",)
    with pytest.raises(ParseError, match="none of the 1 configured series is here; the document has PNICK, POILAPSP"):
        read(xlsx(table(*ROWS)), {"lead": lead})


def test_a_blank_inside_a_history_is_a_finding():
    parsed = read(
        xlsx(table(["2025M8", 14900, 1, 1, 1, 1], ["2025M9", "", 1, 1, 1, 1], ["2025M10", 15100, 1, 1, 1, 1]))
    )
    (finding,) = parsed.findings
    assert (finding.check, finding.series, finding.period) == ("hole", "nickel", "2025-09")
    assert "External!B6" in finding.message


@pytest.mark.parametrize(
    ("value", "check"), [(0, "implausible-value"), (-1, "implausible-value"), ("1.234,5", "unknown-marker")]
)
def test_a_doubtful_figure_is_an_error_and_no_row(value, check):
    parsed = read(xlsx(table(ROWS[0], ["2025M10", value, *ROWS[1][2:]])))
    assert ("nickel", "2025-10") not in as_dict(parsed)
    assert [(f.check, f.severity, f.period) for f in parsed.findings] == [(check, "error", "2025-10")]


@pytest.mark.parametrize(
    ("grid", "sheet", "message"),
    [
        (table(*ROWS), "Sheet1", "no sheet External or Values; it has Sheet1"),
        (table(), "External", "External!A: no month"),
        (table(*ROWS, order=NEW[:3]), "External", r"A1:A3: no header row Frequency"),
        (table(*ROWS, ["2025M13", 1, 2, 3, 4, 5]), "External", "External!A7: '2025M13' is no month"),
    ],
)
def test_another_layout_is_refused(grid, sheet, message):
    with pytest.raises(ParseError, match=message):
        read(xlsx(grid, sheet))


# --------------------------------------------------------------------------------------------- SDMX

HEADER = "STRUCTURE,STRUCTURE_ID,ACTION,COUNTRY,INDICATOR,DATA_TRANSFORMATION,FREQUENCY,TIME_PERIOD,OBS_VALUE,SCALE"


def reply(*rows: str, header: str = HEADER) -> bytes:
    return "\r\n".join([header, *(f"dataflow,IMF.RES:PCPS(9.0.0),{row}" for row in rows), ""]).encode()


def test_the_new_key_is_read_and_other_types_areas_and_frequencies_are_not():
    raw = reply(
        "I,G001,PNICK,USD,M,2026-M07,15234.5,0",
        "I,G001,PNICK,INDEX,M,2026-M07,160.5,0",
        "I,U110,PNICK,USD,M,2026-M07,1.5,0",
        "I,G001,PNICK,USD,A,2026,15000.5,0",
        "I,G001,PURAN,USD,M,2026-M07,NaN,0",
    )
    parsed = read(raw)
    assert as_dict(parsed) == {("nickel", "2026-07"): 15234.5}
    assert parsed.findings == () and parsed.absent == ("oil", "silicon")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("I,G001,PNICK,USD,M,2026-M07,15234.5", "line 3: 9 values under 10 names"),
        ("I,G001,PNICK,USD,M,2026-M07,15,234.5,0", "line 3: 11 values under 10 names"),
        ("D,G001,PNICK,USD,M,2026-M07,15234.5,0", "line 3: the message deletes"),
        ("I,G001,PNICK,USD,M,2026-M07,15234.5,3", "figures scaled by '3'"),
        ("I,G001,PNICK,USD,M,2026-M13,15234.5,0", "line 3: '2026-M13' is no month"),
        ("I,G001,PNICK,USD,M,2026,15234.5,0", "line 3: '2026' is no month"),
    ],
)
def test_a_reply_that_does_not_fit_is_refused_with_its_line(row, message):
    with pytest.raises(ParseError, match=message):
        read(reply("I,G001,POILAPSP,USD,M,2026-M07,70.5,0", row))


def test_a_period_given_twice_has_no_row():
    parsed = read(reply("I,G001,PNICK,USD,M,2026-M07,1.5,0", "I,G001,PNICK,USD,M,2026-07,2.5,0"))
    assert as_dict(parsed) == {}
    assert [(f.check, f.severity) for f in parsed.findings] == [("duplicate-period", "error")]


@pytest.mark.parametrize("value", ["1e999", "-1", "15,5", "about 3", "0x10"])
def test_text_that_is_no_price_is_an_error(value):
    parsed = read(reply(f'I,G001,PNICK,USD,M,2026-M07,"{value}",0'))
    assert as_dict(parsed) == {}
    assert [f.severity for f in parsed.findings] == ["error"]


def xml(body: str, head: str = "", root: str = "StructureSpecificData") -> bytes:
    space = "http://www.sdmx.org/resources/sdmxml/schemas/v2_1/message"
    return f'{head}<m:{root} xmlns:m="{space}">{body}</m:{root}>'.encode()


def test_observations_without_a_series_element_are_read_too():
    obs = '<Obs FREQ="M" REF_AREA="W00" COMMODITY="PNICK" UNIT_MEASURE="USD" TIME_PERIOD="2021-01" OBS_VALUE="17.5"/>'
    assert as_dict(read(xml(f"<m:DataSet>{obs}</m:DataSet>"))) == {("nickel", "2021-01"): 17.5}
    with pytest.raises(ParseError, match="Obs 1: the message deletes"):
        read(xml(f'<m:DataSet action="Delete">{obs}</m:DataSet>'))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"<!DOCTYPE html><html></html>", "line 1: a web page"),
        (b'{"data": 1}', "line 1: JSON"),
        (b"", "the document has no series"),
        (b"\xff\xfe\x00", "byte 0: neither a workbook nor UTF-8"),
        (b'TIME_PERIOD,OBS_VALUE\n"2021,3', "line 2: not CSV"),
        (xml("<m:Error><t>no results found</t></m:Error>", root="Error"), "element Error: .*no results found"),
        (xml("<m:DataSet/>"), "the document has no series"),
        (xml("&a;", head='<!DOCTYPE x [<!ENTITY a "b">]>'), "not acceptable XML"),
        (b"<m:cut", "not acceptable XML"),
        (xml("<m:Header><m:Prepared>today</m:Prepared></m:Header>"), "element Prepared: 'today'"),
    ],
)
def test_another_document_is_refused(raw, message):
    with pytest.raises(ParseError, match=message):
        read(raw)


# ------------------------------------------------------------------------------------- the real files


def real_series() -> dict[str, Series]:
    codes = dict.fromkeys(("PALUM", "PCOPP", "PLEAD", "PNICK", "PTIN", "PZINC"), "US$ per metric ton")
    codes |= {"PGOLD": "US$ per troy ounce", "PPLAT": "USD/troy ounce"}
    rows = {code: quotation(code.lower(), f"{code}|USD", unit) for code, unit in codes.items()}
    return {s.id: s for s in (*rows.values(), quotation("pcoba", "PCOBA|USD"), quotation("poilapsp", "POILAPSP|USD"))}


@real
@pytest.mark.parametrize(
    ("name", "first", "last", "absent"),
    [
        ("imf_external-data_thru2017M6_base2005.xls", "1980-01", "2017-06", ("pgold", "pplat", "pcoba")),
        ("imf_external-data_thru2020M2_base2016.xlsx", "1980-01", "2020-02", ()),
        ("imf_external-data_thru2025M7_base2016.xls", "1992-01", "2025-07", ()),
    ],
)
def test_one_configuration_reads_every_workbook(name, first, last, absent):
    parsed = read((SHARED / "data/imf" / name).read_bytes(), real_series())
    assert parsed.findings == () and parsed.absent == absent
    copper = parsed.observations.query("series == 'pcopp'")["period"]
    assert list(copper) == [str(p) for p in pd.period_range(first, last, freq="M")]


@real
def test_the_two_institutions_report_the_same_exchange():
    imf_raw = (SHARED / "data/imf/imf_external-data_thru2025M7_base2016.xls").read_bytes()
    bank_raw = (SHARED / "data/worldbank/pinksheet_2025-11-04.xlsx").read_bytes()
    names = {"pcopp": "Copper", "pnick": "Nickel", "ptin": "Tin", "pzinc": "Zinc", "plead": "Lead", "pgold": "Gold"}
    bank = {key: quotation(key, name) for key, name in names.items()}
    both = [
        parsed.observations.set_index(["series", "period"])["value"]
        for parsed in (read(imf_raw, real_series()), worldbank.parse(bank_raw, bank, SOURCE))
    ]
    ratio = (both[0] / both[1] - 1).abs().dropna().groupby("series")
    assert set(ratio.size()) == {403}
    medians = {key: round(100 * value, 3) for key, value in ratio.median().items()}
    assert medians == {"pcopp": 0.053, "pnick": 0.070, "ptin": 0.082, "pzinc": 0.071, "plead": 0.104, "pgold": 0.024}


@real
def test_the_reply_of_the_old_service_is_read():
    parsed = read((SHARED / "data/sdmx/imf_PCPS_structurespecific_2.1.xml").read_bytes(), real_series())
    assert as_dict(parsed) == {("pzinc", "2021-01"): 2705.345}
    assert parsed.published == dt.date(2025, 1, 9)


@real
def test_the_misaligned_copy_is_refused():
    raw = (SHARED / "data/imf/KNOWN-BAD_datasets_commodity-prices_v2_misaligned.csv").read_bytes()
    with pytest.raises(ParseError, match="line 2: 95 values under 64 names"):
        read(raw, real_series())
