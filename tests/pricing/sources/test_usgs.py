from pathlib import Path

import pandas as pd
import pytest

from pricing.config import Series, Source
from pricing.errors import ParseError
from pricing.sources.usgs import parse

SAMPLES = Path(__file__).resolve().parents[2] / "samples" / "usgs"
SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "usgs"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")

SOURCE = Source(
    title="MCS",
    publisher="USGS",
    terms="https://example.org",
    terms_read="2026-11-23",
    licence="public domain",
    attribution="USGS",
    rights="open",
    editions={"2022": "2022-01-31", "2023": "2023-01-31", "2024": "2024-01-31", "2026": "2026-02-06"},
    series=(),
)


def production(name="nickel", column="NICKEL|Mine production: rounded", aliases=(), unit="t", **more):
    given = {"kind": "production", "frequency": "annual", "origin": "usgs"}
    return Series(id=name, column=column, aliases=aliases, unit=unit, **(given | more))


NICKEL = production(
    aliases=("Mine production", "Mine production - nickel, metric tons contained"),
    file="*nicke_world.csv|mcs20??_*data*.csv",
)
PRICE = production(
    "nickel-price",
    "NICKEL|Price, average annual, LME cash",
    aliases=("Price_LME_dt",),
    unit="USD/t",
    kind="other",
    file="*nicke_salient.csv|mcs20??_*data*.csv",
)
WORLD = (SAMPLES / "mcs2024-nicke_world.csv").read_bytes()
SALIENT = (SAMPLES / "mcs2024-nicke_salient.csv").read_bytes()
LONG = (SAMPLES / "mcs2026_data.csv").read_bytes()


def read(raw, *series):
    return parse(raw, {s.id: s for s in series}, SOURCE)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("mcs2024-nicke_world.csv", "2024-01-31"),
        ("mcs2024-nicke_salient.csv", "2024-01-31"),
        ("mcs2026_data.csv", "2026-02-06"),
    ],
)
def test_one_series_is_read_from_each_form_that_its_file_glob_admits(name, published):
    wanted = [s for s in (NICKEL, PRICE) if s.reads(name)]
    parsed = read((SAMPLES / name).read_bytes(), *wanted)
    expected = pd.read_csv(SAMPLES / "expected.csv", dtype={"period": str}).query("document == @name")
    pd.testing.assert_frame_equal(
        parsed.observations.sort_values(["series", "period"], ignore_index=True),
        expected.drop(columns="document").reset_index(drop=True),
        check_dtype=False,
    )
    assert str(parsed.published) == published


def test_the_file_glob_takes_several_patterns_in_any_case():
    assert NICKEL.reads("MCS2024-Nicke_World.csv")
    assert NICKEL.reads("MCS2026_Commodities_Data.csv")
    assert not NICKEL.reads("mcs2024-lead_world.csv")


@pytest.mark.parametrize(
    "cell",
    [
        "W",
        "NA",
        "XX",
        ">50",
        "<1,000",
        "Less than ½ unit",
        "50–300",
        "10 - 15",
        "e150",
        "1,1476",
        "—",
        "",
        "Large",
        "1/2",
    ],
)
def test_what_is_not_plainly_one_number_has_no_row_and_a_note(cell):
    raw = WORLD.replace(b'"2,000 "', f'"{cell}"'.encode())
    parsed = read(raw, NICKEL)
    assert parsed.observations["period"].tolist() == ["2023"]
    (finding,) = [f for f in parsed.findings if f.check == "withheld"]
    assert (finding.severity, finding.period) == ("note", "2022")
    assert "line 4, column Prod_t_2022" in finding.message


def test_a_total_that_leaves_a_country_out_says_so():
    notes = [f for f in read(WORLD, NICKEL).findings if f.check == "partial-total"]
    assert [f.period for f in notes] == ["2022", "2023"]
    assert "Excludes U.S. production" in notes[0].message


def test_the_name_of_a_world_total_may_lead_with_world():
    raw = WORLD.replace(b'8,"Mine production - nickel', b'8," World mine production - nickel')
    assert len(read(raw, NICKEL).observations) == 2


@pytest.mark.parametrize(
    ("raw", "series", "message"),
    [
        (WORLD.replace(b"Prod_t_", b"Prod_kt_"), NICKEL, "column Prod_kt_2022: unit 'kt', but series nickel is in t"),
        (
            SALIENT.replace(b"_LME_dt", b"_LME_dlb"),
            PRICE.model_copy(update={"aliases": ("Price_LME_dlb",)}),
            "column Price_LME_dlb: unit 'dlb', but series nickel-price is in USD/t",
        ),
        (SALIENT.replace(b",Nickel,", b",Barite,"), PRICE, "column Commodity: Barite is the chapter of none"),
        (LONG.replace(b"rounded,metric tons", b"rounded,kilograms"), NICKEL, "unit 'kilograms'"),
        (
            WORLD.replace(b"2022", b"2021").replace(b"est_2023", b"est_2022"),
            NICKEL,
            "MCS 2024 gives production of 2022",
        ),
        (SALIENT.replace(b",2021,", b",2012,"), PRICE, "column Year"),
        (WORLD.replace(b"MCS2024,Utopia", b"MCS2023,Utopia"), NICKEL, "no single edition"),
        (WORLD.replace(b" - nickel", b" - nikkel"), NICKEL, "no world total that a series names"),
        (SALIENT.replace(b"Price_LME_dt", b"Price_dt"), PRICE, "no column that a series names"),
        (LONG.replace(b"NICKEL", b"NICKLE"), NICKEL, "none of the series is in the file"),
        (LONG.replace(b"MCS chapter", b"Chapter"), NICKEL, "not a head of the MCS data release"),
        (b"PK\x03\x04", NICKEL, "no head and rows"),
        (b"", NICKEL, "no head and rows"),
        (WORLD + b'MCS2024,World total,"Mine production - nickel, metric tons contained",1,2,,,,,\n', NICKEL, "second"),
    ],
)
def test_a_document_out_of_layout_is_refused(raw, series, message):
    with pytest.raises(ParseError, match=message):
        read(raw, series)


def test_two_series_that_read_one_row_are_refused_for_the_file_bears_no_commodity():
    lead = production("lead", "LEAD|Mine production: rounded", NICKEL.aliases)
    with pytest.raises(ParseError, match="lead and nickel both read the world total"):
        read(WORLD, NICKEL, lead)


def test_a_unit_in_the_rows_own_note_outranks_the_head_and_is_reported():
    note = b"Units are thousand metric tons, gross weight."
    raw = WORLD.replace(b"Excludes U.S. production.", b'"' + note + b'"')
    with pytest.raises(ParseError, match="unit 'thousand metric tons', but series nickel is in t"):
        read(raw, NICKEL)
    parsed = read(raw, NICKEL.model_copy(update={"unit": "kt"}))
    assert parsed.observations["value"].tolist() == [2000.0, 2100.0]
    assert [f.check for f in parsed.findings] == ["unit-contradiction"] * 2


def test_expect_admits_a_unit_cell_that_the_publisher_misnames():
    misnamed = PRICE.model_copy(update={"unit": "USD/mtu", "expect": ("dt",)})
    assert len(read(SALIENT, misnamed).observations) == 4


def test_an_edition_without_a_day_is_reported_and_has_no_stamp():
    source = SOURCE.model_copy(update={"editions": {}})
    parsed = parse(WORLD, {NICKEL.id: NICKEL}, source)
    assert parsed.published is None
    assert "unknown-edition" in [f.check for f in parsed.findings]


def test_figures_before_since_are_not_read():
    late = NICKEL.model_copy(update={"since": "2023"})
    assert read(WORLD, late).observations["period"].tolist() == ["2023"]


def test_a_series_that_the_long_file_lacks_is_absent():
    germanium = production("germanium", "GERMANIUM|Refinery production: rounded")
    assert read(LONG, NICKEL, germanium).absent == ("germanium",)


def test_a_figure_given_twice_with_two_values_is_accepted_in_neither():
    line = next(x for x in LONG.splitlines() if b'"2,300"' in x)
    parsed = read(LONG + line.replace(b"2,300", b"2,301") + b"\n", NICKEL)
    assert parsed.observations["period"].tolist() == ["2025"]


@real
@pytest.mark.parametrize(
    ("file", "series", "values"),
    [
        ("mcs2022/nickel_mcs2022-nicke_world.csv", NICKEL, {"2020": 2_510_000, "2021": 2_700_000}),
        ("mcs2023/world/mcs2023-nicke_world.csv", NICKEL, {"2021": 2_730_000, "2022": 3_300_000}),
        ("mcs2024/world/mcs2024-nicke_world.csv", NICKEL, {"2022": 3_270_000, "2023": 3_600_000}),
        ("mcs2026_data_release.csv", NICKEL, {"2024": 3_710_000, "2025": 3_900_000}),
        (
            "mcs2024/world/mcs2024-antim_world.csv",
            production("antimony", aliases=("Mine production, contained antimony",)),
            {"2022": 83_100, "2023": 83_000},
        ),
        (
            "mcs2024/world/mcs2024-plati_world.csv",
            production("palladium", aliases=("Mine production: Palladium",), unit="kg"),
            {"2022": 203_000, "2023": 210_000},
        ),
        (
            "mcs2024/world/mcs2024-fluor_world.csv",
            production("fluorspar", aliases=("Mine production, fluorspar",), unit="kt"),
            {"2022": 8_320, "2023": 8_800},
        ),
        (
            "mcs2023/world/mcs2023-germa_world.csv",
            production("germanium", aliases=("Primary and secondary refinery production",), unit="kg"),
            {},
        ),
        (
            "mcs2026_data_release.csv",
            production("rare-earths", "RARE EARTHS|Mine production: rounded"),
            {"2024": 380_000, "2025": 390_000},
        ),
        (
            "mcs2026_data_release.csv",
            production(
                "yttrium", "YTTRIUM|mine production of Y2O3 equivalent contained in rare-earth mineral concentrates"
            ),
            {},
        ),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_real_world_totals_are_those_printed_in_the_edition(file, series, values):
    observations = read((SHARED / file).read_bytes(), series).observations
    assert dict(zip(observations["period"], observations["value"], strict=True)) == values


@real
def test_the_real_chromium_file_of_2023_is_in_thousand_tonnes_whatever_its_head_says():
    raw = (SHARED / "mcs2023/world/mcs2023-chrom_world.csv").read_bytes()
    chromium = production("chromium", aliases=("Mine production, marketable chromite ore",))
    with pytest.raises(ParseError, match="thousand metric tons"):
        read(raw, chromium)
    parsed = read(raw, chromium.model_copy(update={"unit": "kt"}))
    assert parsed.observations["value"].tolist() == [42_200.0, 41_000.0]


@real
def test_the_real_cobalt_file_that_holds_the_world_table_under_wrong_years_is_refused():
    raw = (SHARED / "mcs2024/salient/mcs2024-cobal_salient.csv").read_bytes()
    with pytest.raises(ParseError, match=r"production of 2022 and 2023, not of \[2021, 2022\]"):
        read(raw, production("cobalt", aliases=("Mine production, metric tons of contained cobalt",)))


@real
@pytest.mark.parametrize("file", ["mcs2023/world/mcs2023-nicke_world.csv", "mcs2024/world/mcs2024-cobal_world.csv"])
def test_a_real_world_total_agrees_with_the_sum_of_its_countries(file):
    table = pd.read_csv(SHARED / file, dtype=str)
    parsed = read((SHARED / file).read_bytes(), production(aliases=(table["Type"].iloc[0],)))
    countries = table[~table["Country"].str.startswith("World")]
    last = parsed.observations.iloc[-1]
    summed = pd.to_numeric(countries[f"Prod_t_est_{last['period']}"], errors="coerce").sum()
    assert last["value"] == pytest.approx(summed, rel=0.03)
