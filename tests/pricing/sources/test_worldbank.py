import csv
import datetime as dt
import io
import zipfile
from decimal import Decimal
from pathlib import Path

import openpyxl
import pandas as pd
import pytest

from pricing.config import Series, Source
from pricing.errors import ParseError
from pricing.sources import worldbank

INDICES = worldbank.INDICES
SHARED = Path(__file__).resolve().parents[4] / "shared"
SAMPLES = Path(__file__).resolve().parents[2] / "samples" / "worldbank"
VINTAGES = sorted((SHARED / "data/worldbank").glob("*.xlsx"))
real = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")

HEAD = [["World Bank Commodity Price Data"], ["monthly prices"], ["1960 to present"], ["Updated on March 03, 2026"]]
NAMES = ["", "DAP", "Nickel **", "Tin ", "Gold", "Iron ore, cfr spot"]
UNITS = ["", "($/mt)", "($/mt)", "($/mt)", "($/troy oz)", "($/dmtu)"]
CODES = ["", "DAP", "NICKEL", "Tin", "GOLD", "IRON_ORE"]
ROWS = [
    ["2026M01", 1e-10, 17000.5, 40000, 4700.25, 105.5],
    ["2026M02", "…", 17100.25, "...", 5000, 99.75],
]


def quotation(key: str, column: str, *expect: str, **more: object) -> Series:
    facts = {"id": key, "kind": "other", "unit": "USD/t", "frequency": "monthly", "origin": "x", "column": column}
    return Series.model_validate({**facts, "expect": expect, **more})


SERIES = {
    s.id: s
    for s in (
        quotation("dap", "DAP", "$/mt"),
        quotation("nickel", "NICKEL", "$/mt"),
        quotation("tin", "Tin", "$/mt"),
        quotation("gold", "Gold", "$/troy oz"),
        quotation("iron-ore", "Iron ore, spot", "$/dmtu", aliases=["Iron ore, cfr spot"]),
    )
}
SOURCE = Source.model_validate(
    {
        "title": "t",
        "publisher": "p",
        "landing": "https://bank.example/en/markets",
        "link": r"/CMO-Historical-Data-Monthly\.xlsx$",
        "terms": "t",
        "terms_read": "2026-11-23",
        "licence": "l",
        "attribution": "a",
        "rights": "open",
        "series": list(SERIES.values()),
    }
)


def workbook(*rows: list, head=HEAD, names=NAMES, units=UNITS, codes=CODES, sheet="Monthly Prices") -> bytes:
    book = openpyxl.Workbook()
    book.active.title = "AFOSHEET"
    page = book.create_sheet(sheet)
    for row in (*head, names, units, *([codes] if codes else []), *rows):
        page.append(row)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def read(raw: bytes, series=SERIES):
    return worldbank.parse(raw, series, SOURCE)


def as_dict(parsed) -> dict[tuple[str, str], float]:
    frame = parsed.observations
    return dict(zip(zip(frame["series"], frame["period"], strict=True), frame["value"], strict=True))


EXPECTED = {
    ("nickel", "2026-01"): 17000.5,
    ("nickel", "2026-02"): 17100.25,
    ("tin", "2026-01"): 40000.0,
    ("gold", "2026-01"): 4700.25,
    ("gold", "2026-02"): 5000.0,
    ("iron-ore", "2026-01"): 105.5,
    ("iron-ore", "2026-02"): 99.75,
}


@pytest.mark.parametrize("codes", [CODES, None])
def test_the_first_month_is_read_with_and_without_the_row_of_codes(codes):
    parsed = read(workbook(*ROWS, codes=codes))
    assert as_dict(parsed) == EXPECTED
    assert parsed.published == dt.date(2026, 3, 3)
    assert parsed.findings == () and parsed.absent == ()
    assert set(parsed.observations["status"]) == {"normal"}


def test_columns_may_move_and_empty_rows_and_columns_may_follow():
    order = [0, 5, 3, 1, 4, 2]
    rows = [[row[j] for j in order] + ["", None] for row in ROWS]
    turned = [[header[j] for j in order] + ["", ""] for header in (NAMES, UNITS, CODES)]
    raw = workbook(*rows, [""] * 8, ["", None], names=turned[0], units=turned[1], codes=turned[2])
    assert as_dict(read(raw)) == EXPECTED


def test_the_sample_reads_as_expected():
    raw = (SAMPLES / "pinksheet.xlsx").read_bytes()
    with (SAMPLES / "expected.csv").open(newline="") as file:
        expected = {(row["series"], row["period"]): float(row["value"]) for row in csv.DictReader(file)}
    assert as_dict(read(raw)) == expected
    assert worldbank.columns(raw) == ["DAP", "Nickel **", "Tin", "Gold", "Iron ore, cfr spot"]


def test_a_column_that_a_vintage_lacks_is_absent():
    series = {**SERIES, "copra": quotation("copra", "Copra")}
    assert read(workbook(*ROWS), series).absent == ("copra",)


def test_figures_before_the_definition_began_are_not_read():
    series = {"iron-ore": quotation("iron-ore", "Iron ore, cfr spot", since="2026-02")}
    assert as_dict(read(workbook(*ROWS), series)) == {("iron-ore", "2026-02"): 99.75}


def test_fewer_than_half_of_the_columns_mean_another_layout():
    few = {"tin": SERIES["tin"], **{f"x{i}": quotation(f"x{i}", f"X {i}") for i in range(2)}}
    with pytest.raises(ParseError, match=r"Monthly Prices!B5: only 1 of 3 configured columns.*'X 0', 'X 1'"):
        read(workbook(*ROWS), few)


@pytest.mark.parametrize("unit", ["($/mtu)", "($/lb)", "(A$/mt)", "(cents/mt)"])
def test_another_unit_is_refused_with_its_cell(unit):
    units = [*UNITS[:2], unit, *UNITS[3:]]
    with pytest.raises(ParseError, match=r"Monthly Prices!C6: unit '.*' where series nickel expects '\$/mt'"):
        read(workbook(*ROWS, units=units))


def test_two_columns_for_one_series_are_refused_with_both_cells():
    names = [*NAMES[:3], "nickel", *NAMES[4:]]
    with pytest.raises(ParseError, match=r"C5 'Nickel \*\*' and Monthly Prices!D5 'nickel'.*series nickel"):
        read(workbook(*ROWS, names=names))


@pytest.mark.parametrize("value", [0, -3.5, 2e12])
def test_an_implausible_figure_is_an_error_and_no_row(value):
    parsed = read(workbook(ROWS[0], ["2026M02", "…", value, *ROWS[1][3:]]))
    assert ("nickel", "2026-02") not in as_dict(parsed)
    (finding,) = parsed.findings
    assert (finding.check, finding.severity) == ("implausible-value", "error")
    assert (finding.series, finding.period) == ("nickel", "2026-02")
    assert "Monthly Prices!C9" in finding.message


@pytest.mark.parametrize(
    ("marker", "severity"), [("n.a.", "warning"), (None, "warning"), ("17 100,25", "error"), (True, "warning")]
)
def test_an_unknown_sign_is_a_finding_and_a_figure_in_text_an_error(marker, severity):
    parsed = read(workbook(ROWS[0], ["2026M02", "…", marker, *ROWS[1][3:]]))
    assert ("nickel", "2026-02") not in as_dict(parsed)
    (finding,) = parsed.findings
    assert (finding.check, finding.severity, finding.period) == ("unknown-marker", severity, "2026-02")
    assert "Monthly Prices!C9" in finding.message


def test_a_spreadsheet_error_is_not_silently_missing():
    book = openpyxl.load_workbook(io.BytesIO(workbook(*ROWS)))
    book["Monthly Prices"]["C9"].value = "#N/A"
    stream = io.BytesIO()
    book.save(stream)
    assert [f.check for f in read(stream.getvalue()).findings] == ["unknown-marker"]


def test_a_month_given_twice_has_no_row():
    parsed = read(workbook(*ROWS, ["2026M02", "…", 1.0, "…", 5000, 99.75]))
    values = as_dict(parsed)
    assert ("nickel", "2026-02") not in values and values["gold", "2026-02"] == 5000
    assert {(f.series, f.severity) for f in parsed.findings} == {
        ("nickel", "error"),
        ("gold", "note"),
        ("iron-ore", "note"),
    }


@pytest.mark.parametrize("label", ["2026M13", "2026-03", "", "March"])
def test_figures_in_a_row_without_a_month_are_refused(label):
    with pytest.raises(ParseError, match=r"Monthly Prices!A10: .* yet its row has figures"):
        read(workbook(*ROWS, [label, 1, 2.5, 3, 4, 5]))


def test_a_damaged_first_month_is_not_skipped():
    with pytest.raises(ParseError, match="no row of units"):
        read(workbook(["1960 M01", *ROWS[0][1:]], *ROWS))


@pytest.mark.parametrize("stamp", ["Updated recently", "Updated on Foo 31, 2026", "Updated on March 41, 2026"])
def test_a_stamp_that_is_no_date_is_a_finding(stamp):
    parsed = read(workbook(*ROWS, head=[*HEAD[:3], [stamp]]))
    assert parsed.published is None
    assert [f.check for f in parsed.findings] == ["no-stamp"]


def test_a_stamp_older_than_the_data_is_a_finding():
    parsed = read(workbook(*ROWS, head=[*HEAD[:3], ["Updated on January 05, 2026"]]))
    assert [f.check for f in parsed.findings] == ["stamp-before-data"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"<html>moved</html>", "not a readable workbook"),
        (b"PK\x03\x04 cut", "not a readable workbook"),
        (b"", "not a readable workbook"),
        (workbook(*ROWS, sheet="Annual Prices"), "no sheet Monthly Prices; it has AFOSHEET, Annual Prices"),
        (workbook(), "no month such as 1960M01"),
        (workbook(*ROWS, units=["", "a", "b", "c", "d", "e"]), "Monthly Prices!A8: no row of units"),
    ],
)
def test_another_document_is_refused(raw, message):
    with pytest.raises(ParseError, match=message):
        read(raw)


def test_a_stray_cell_in_the_last_corner_is_refused_without_ending_this_process():
    stream = io.BytesIO()
    corner = b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData>'
    with zipfile.ZipFile(io.BytesIO(workbook(*ROWS))) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content.replace(b"</sheetData>", corner) if "sheet2" in name else content)
    with pytest.raises(ParseError, match="not a readable workbook.*memory"):
        read(stream.getvalue())


def test_a_workbook_that_takes_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(worldbank, "SECONDS", 0.001)
    with pytest.raises(ParseError, match="not read within"):
        read(workbook(*ROWS))


def test_the_landing_page_gives_the_one_link():
    page = '<a href="/x/a&amp;b/CMO-Historical-Data-Monthly.xlsx">M</a><a href="/x/Annual.xlsx">A</a><a>none</a>'
    link = "https://bank.example/x/a&b/CMO-Historical-Data-Monthly.xlsx"
    assert worldbank.find_link(page + page, SOURCE) == link
    assert worldbank.find_link("<a href='/x/Annual.xlsx'>A</a>", SOURCE) is None
    assert worldbank.find_link(page, SOURCE.model_copy(update={"link": ""})) is None


def test_two_different_links_are_not_guessed_between():
    page = "".join(f'<a href="/{year}/CMO-Historical-Data-Monthly.xlsx">M</a>' for year in (2025, 2026))
    with pytest.raises(ParseError, match="2025/.* and .*2026/.*both match"):
        worldbank.find_link(page, SOURCE)


# ------------------------------------------------------------------------------------- whole columns, and indices

GROUPS = [["", "Total", "", "Food **"], ["", "", " ", ""], ["", "", "Base Metals  (ex. iron ore)", ""]]
LEVELS = [["2026M01", 100.5, 90.25, 1e-10], ["2026M02", 101, 91, "…"]]


def indices(*rows: list, heads=GROUPS, codes=None) -> bytes:
    """A sheet of indices: stacked names of groups, perhaps a row of codes, and the months."""
    return workbook(*rows, head=[*HEAD, *heads[:-2]], names=heads[-2], units=heads[-1], codes=codes, sheet=INDICES)


@pytest.mark.parametrize("codes", [None, ["", "iOVERALL", "iBASEMET", "iFOOD"]])
def test_an_index_is_found_by_its_name_in_any_of_the_stacked_rows(codes):
    found = worldbank.published_indices(indices(*LEVELS, codes=codes), ["base metals (ex. iron ore)", "Food"])
    assert found.published == dt.date(2026, 3, 3)
    assert found.values["base metals (ex. iron ore)"].to_dict() == {"2026-01": 90.25, "2026-02": 91}
    assert found.values["Food"].isna().all(), "the sign for a missing figure is no figure"


@pytest.mark.parametrize(
    ("rows", "heads", "message"),
    [
        (
            LEVELS,
            [["", "Total", "Food", "Food"], ["", "", "", ""]],
            "Monthly Indices!C5 and .*D5: two columns .*'Food'",
        ),
        (LEVELS, [["", "Total", "", ""], ["", "", "", ""]], "Monthly Indices: no column 'Food'"),
        ([], GROUPS, "Monthly Indices!A: no month"),
        ([["2026M01", 1, 2, -3]], GROUPS, "Monthly Indices!D8: -3.* is not a price"),
        ([["2026M01", 1, 2, "3,5"]], GROUPS, "Monthly Indices!D8: '3,5' is neither a figure nor"),
        ([*LEVELS, ["2026-03", 1, 2, 3]], GROUPS, "Monthly Indices!A10: '2026-03' is no month"),
        ([LEVELS[0], ["2026M01", 1, 2, 3], ["2026M01", 1, 2, 4]], GROUPS, "rows for one period"),
    ],
)
def test_a_sheet_of_indices_that_is_not_understood_is_refused(rows, heads, message):
    with pytest.raises(ParseError, match=message):
        worldbank.published_indices(indices(*rows, heads=heads), ["Food"])


def test_a_workbook_without_indices_is_refused():
    with pytest.raises(ParseError, match="no sheet Monthly Indices"):
        worldbank.published_indices(workbook(*ROWS), ["Food"])


def test_price_columns_are_read_whole_under_the_names_that_were_asked_for():
    found = worldbank.monthly_prices(workbook(*ROWS), [("nickel",), ("Iron ore, spot", "Iron ore, cfr spot"), ("Tin",)])
    assert list(found.values) == ["nickel", "Iron ore, spot", "Tin"] and found.published == dt.date(2026, 3, 3)
    assert found.values["nickel"].tolist() == [17000.5, 17100.25]
    assert found.values["Iron ore, spot"].tolist() == [105.5, 99.75]
    assert found.values["Tin"].iloc[0] == 40000 and found.values["Tin"].isna().tolist() == [False, True]


def test_a_price_column_that_is_lacking_or_damaged_is_refused():
    with pytest.raises(ParseError, match="Monthly Prices: no column 'Zinc'"):
        worldbank.monthly_prices(workbook(*ROWS), [("Nickel",), ("Zinc",)])
    with pytest.raises(ParseError, match="Monthly Prices!C9: -1.* is not a price"):
        worldbank.monthly_prices(workbook(ROWS[0], ["2026M02", 1, -1, 1, 1, 1]), [("Nickel",)])


# ------------------------------------------------------------------------------------- the real files


def metals() -> dict[str, Series]:
    rows = [(name, "$/mt") for name in ("Aluminum", "Copper", "Lead", "Tin", "Nickel", "Zinc")]
    rows += [(name, "$/troy oz") for name in ("Gold", "Platinum", "Silver")]
    found = [quotation(name.lower(), name, unit) for name, unit in rows]
    found.append(quotation("iron-ore", "Iron ore, cfr spot", "$/dmtu"))
    found.append(quotation("potash", "Potassium chloride", "$/mt", aliases=["Potarsium chloride"]))
    return {s.id: s for s in found}


@real
@pytest.mark.parametrize("path", VINTAGES, ids=lambda path: path.stem)
def test_one_configuration_reads_every_vintage(path):
    parsed = worldbank.parse(path.read_bytes(), metals(), SOURCE)
    assert parsed.published == dt.date.fromisoformat(path.stem.partition("_")[2])
    assert parsed.absent == () and parsed.findings == ()
    frame = parsed.observations
    last = pd.Period(parsed.published, freq="M") - 1
    months = len(pd.period_range("1960-01", last, freq="M"))
    assert (frame.groupby("series")["period"].max() == str(last)).all()
    assert (frame["series"].value_counts() == months).all()


@real
def test_known_revisions_of_iron_ore_are_read():
    got = []
    for day in ("2021-03-02", "2021-04-02"):
        raw = (SHARED / f"data/worldbank/pinksheet_{day}.xlsx").read_bytes()
        got.append(as_dict(worldbank.parse(raw, metals(), SOURCE))["iron-ore", "2021-02"])
    assert got == [164.77, 163.80]


def all_columns(day: str) -> pd.DataFrame:
    raw = (SHARED / f"data/worldbank/pinksheet_{day}.xlsx").read_bytes()
    series = {f"c{i}": quotation(f"c{i}", name) for i, name in enumerate(worldbank.columns(raw))}
    parsed = worldbank.parse(raw, series, SOURCE)
    assert parsed.findings == () and parsed.absent == ()
    wide = parsed.observations.pivot(index="period", columns="series", values="value")
    return wide.rename(columns={key: worldbank.normal(s.column) for key, s in series.items()})


def decimals(values: pd.Series) -> int:
    return max(0, *(-int(Decimal(repr(value)).normalize().as_tuple().exponent) for value in values))


@real
@pytest.mark.parametrize(
    ("old", "new", "revised"),
    [("2022-04-04", "2022-10-04", 12), ("2020-08-04", "2020-12-02", 204), ("2021-03-02", "2021-04-02", 32)],
)
def test_pairs_of_vintages_differ_in_the_known_number_of_revisions(old, new, revised):
    """All columns of Monthly Prices; cells with figures in both; half a unit of the coarser decimals."""
    before, after = all_columns(old), all_columns(new)
    count = 0
    for name in before.columns.intersection(after.columns):
        pair = pd.concat([before[name], after[name]], axis=1, keys=["old", "new"]).dropna()
        coarser = min(decimals(before[name].dropna()), decimals(after[name].dropna()))
        change = (pair["new"] - pair["old"]).abs()
        count += int(((change > 0.5 * 10.0**-coarser) & (change > 1e-9 * pair["new"].abs())).sum())
    assert count == revised
