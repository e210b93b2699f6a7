"""The table of tariff codes: what it counts, against stoichiometry and the publishers' own lists."""

from __future__ import annotations

import csv
import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from pricing.chemistry import mass_fraction
from pricing.config import Code, Operation, load_codes, load_methodology, load_operation
from pricing.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "methodology" / "codes.csv"
TEXT = PATH.read_text(encoding="utf-8")
CODES = load_codes(PATH, TEXT)
CONFIRMED = [c for c in CODES if c.certainty == "confirmed"]
SHARED = Path(__file__).resolve().parents[3] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")

# Minerals of a basket that have neither an open quotation nor a confirmed code, with the reason.
UNCOVERED: dict[str, str] = {}

QUOTED = {"74031100", "7403110000", "80011000", "8001100000"}  # metals with a quotation; their lines were not looked up
UNCONFIRMED = {"2822000000", "3801105000", "81060010", "81060090", "81110011"}


def _groups(codes: list[Code] | tuple[Code, ...] = CODES) -> dict[tuple[str, str], list[Code]]:
    groups = defaultdict(list)
    for code in codes:
        groups[code.mineral, code.stage].append(code)
    return dict(groups)


def _rows(*parts: str) -> list[dict[str, str]]:
    with SHARED.joinpath(*parts).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------------------------- the table itself


def test_the_columns_are_the_fields_of_a_code_in_their_order_and_the_lines_are_sorted() -> None:
    rows = list(csv.reader(TEXT.splitlines()))
    assert rows[0] == list(Code.model_fields)
    assert len(rows) - 1 == len(CODES)
    keys = [(c.mineral, c.stage, c.system, c.code) for c in CODES]
    assert keys == sorted(set(keys))


def test_the_unconfirmed_codes_are_the_ones_listed_here() -> None:
    assert {c.code for c in CODES if c.certainty == "unconfirmed"} == UNCONFIRMED | QUOTED
    assert all("not looked up" in c.note for c in CODES if c.certainty == "unconfirmed")


def test_every_basket_mineral_without_an_open_quotation_has_a_confirmed_code_or_a_reason() -> None:
    open_sources = [s for s in load_operation(ROOT / "config.toml").sources.values() if s.rights.publish_value]
    quoted = {
        (s.mineral, s.stage, s.zone)
        for source in open_sources
        for s in source.series
        if s.kind == "price" and not s.quarantined
    }
    baskets = load_methodology(ROOT / "methodology" / "2026-11.toml").baskets.values()
    wanted = {c.mineral for b in baskets for c in b.constituents if (c.mineral, c.stage, c.zone) not in quoted}
    assert {"gallium", "lithium", "tungsten", "palladium"} <= wanted  # the question is not empty
    assert wanted - {c.mineral for c in CONFIRMED} == set(UNCOVERED)


def test_contents_are_stoichiometric_or_those_of_a_pure_metal() -> None:
    checked = 0
    for code in CODES:
        if code.content is None:
            assert not code.content_source, code.code
        elif code.content_source == "metal, taken as pure":
            assert code.content == 1, code.code
        else:
            compound, _, how = code.content_source.partition(", ")
            assert how == "stoichiometric", code.code
            assert code.content == pytest.approx(mass_fraction(code.element, compound), abs=5e-6), code.code
            checked += 1
    assert checked >= 10


def test_an_element_stands_exactly_where_contained_tonnes_are_counted() -> None:
    for code in CODES:
        assert bool(code.element) == (code.content is not None or code.basis == "contained"), code.code
        # the office's content is not multiplied by a share once more
        assert not (code.content is not None and code.basis == "contained"), code.code


def test_a_group_counts_one_element_and_a_stage_on_content_has_no_gross_line() -> None:
    for key, codes in _groups().items():
        assert len({c.element for c in codes}) == 1, key
        if key[1].endswith("-contained"):
            assert {c.basis for c in codes} == {"contained"}, key


def test_every_code_counts_a_mass_and_scrap_is_no_metal() -> None:
    for code in CODES:
        assert code.basis != "none", code.code
        if "scrap" in code.title.lower() and not code.stage.startswith("scrap"):
            assert code.mineral in {"bismuth", "hafnium"} and "scrap" in code.note + code.title, code.code


def test_a_stem_is_the_old_code_and_its_successors_begin_the_month_after_it_ends() -> None:
    stems = defaultdict(list)
    for code in CODES:
        if code.stem:
            stems[code.stem].append(code)
    assert set(stems) == {"2822000000", "3801105000", "38011000", "81060010", "81060090"}
    for stem, codes in stems.items():
        (old,) = (c for c in codes if c.code == stem)
        new = [c for c in codes if c is not old]
        year, month = old.valid_to.split("-")
        assert month == "12" and {c.valid_from for c in new} == {f"{int(year) + 1}-01"}, stem
        assert len(new) == 2 and len({(c.system, c.mineral, c.stage) for c in codes}) == 1, stem
        assert not any(old.valid(c.valid_from) for c in new), stem


def test_both_origins_count_the_products_that_partners_ask_for() -> None:
    both = {key for key, codes in _groups(CONFIRMED).items() if {c.system for c in codes} == {"CN8", "HTS10"}}
    assert both >= {
        ("lithium", "carbonate"),
        ("gallium", "metal"),
        ("germanium", "metal"),
        ("indium", "metal"),
        ("antimony", "metal"),
        ("tungsten", "apt"),
        ("tungsten", "carbide"),
        ("graphite", "natural"),
        ("graphite", "artificial"),
        ("magnets", "rare-earth-magnets"),
        ("neodymium-praseodymium", "metal"),
        ("niobium", "ferro-alloy"),
        ("titanium", "metal"),
        ("magnesium", "metal"),
        ("bismuth", "metal"),
        ("nickel", "metal"),
    }


def test_pieces_come_before_kilograms_in_the_magnets_lines() -> None:
    units = {c.code: c.units for c in CODES if c.mineral == "magnets" and c.system == "HTS10"}
    assert units == {"8505110050": ("NO", "KG"), "8505110070": ("NO", "KG")}


def test_no_place_but_publishers_is_named_as_a_source() -> None:
    assert all(
        re.match(r"(Eurostat CN concordance|CBP tariff extract 2026-02-21)", c.source)
        for c in CODES
        if c.code not in QUOTED
    )
    assert not re.search(r"github|@[0-9a-f]{7}|/|https?:", "".join(c.source for c in CODES))


# --------------------------------------------------------------------------- against the publishers' lists


@needs_shared
def test_every_line_agrees_with_the_gathered_table_of_codes() -> None:
    known = {(r["system"], r["code"]): r for r in _rows("reference", "trade_codes.csv")}
    compared = 0
    for code in CODES:
        row = known.get((code.system, code.code))
        if row is None:
            continue
        compared += 1
        since = row["valid_from"]
        if code.system == "CN8":
            assert code.valid_from == ("" if since.startswith("1988") else since), code.code
        elif code.valid_from:
            assert code.valid_from == since[:7] and "current CBP record" not in row["note"], code.code
        else:
            assert since < "2020" or "current CBP record" in row["note"], code.code
        assert code.valid_to == row["valid_to"], code.code
        shown = re.findall(r"QY\d=([A-Z]+)", row["quantity_unit"]) or ["KG"]
        assert code.units == tuple(shown), code.code
        if row["certainty"] == "memory":
            assert code.certainty == "unconfirmed", code.code
        if "memory (description)" in row["certainty"] and code.certainty == "confirmed":
            assert "wording" in code.source, code.code
    assert compared == 166


@needs_shared
def test_codes_that_the_gathered_table_lacks_stand_in_a_publishers_list_or_are_predecessors() -> None:
    known = {r["code"] for r in _rows("reference", "trade_codes.csv")}
    cn8 = {r["cn8"] for r in _rows("data", "trade", "cn8_validity_minerals.csv")}
    cbp = {r["code"] for r in _rows("data", "trade", "us_hts10_cbp_units_dates_minerals.csv")}
    predecessors = {c.stem for c in CODES if c.stem}
    assert {c.code for c in CODES} - known - cn8 - cbp == (predecessors - known) | QUOTED


@needs_shared
def test_eu_validity_agrees_with_the_concordance() -> None:
    listed = {r["cn8"]: r for r in _rows("data", "trade", "cn8_validity_minerals.csv")}
    compared = 0
    for code in (c for c in CODES if c.system == "CN8" and c.code in listed):
        row = listed[code.code]
        compared += 1
        assert code.valid_from == ("" if row["in_force_from"].startswith("<=") else f"{row['in_force_from']}-01")
        assert code.valid_to == ("" if row["last_year_in_list_2024_2026"] == "2026" else "2025-12"), code.code
        if code.stem and code.code != code.stem and row["predecessors"]:
            assert row["predecessors"] == code.stem, code.code
    assert compared == 76


@needs_shared
def test_units_and_dates_agree_with_the_customs_extract() -> None:
    listed = {r["code"]: r for r in _rows("data", "trade", "us_hts10_cbp_units_dates_minerals.csv")}
    compared = 0
    for code in (c for c in CODES if c.system == "HTS10" and c.code in listed):
        row = listed[code.code]
        compared += 1
        assert code.units == tuple(u for u in (row[f"census_qty{i}"] for i in (1, 2, 3)) if u), code.code
        month, _, year = row["record_effective"].split("/")
        assert code.valid_from in ("", f"{year}-{int(month):02}"), code.code
        if int(year) >= 2025:
            assert code.valid_from, code.code
    assert compared == 102


@needs_shared
def test_lines_taken_as_a_whole_subheading_leave_none_of_it_out() -> None:
    listed = [r["cn8"] for r in _rows("data", "trade", "cn8_validity_minerals.csv")]
    whole = [c for c in CODES if c.system == "CN8" and "own wording not" in c.note]
    assert {c.code[:6] for c in whole} == {"380110", "720211", "720241", "810610", "810690"}
    by_code = {c.code: c for c in CODES if c.system == "CN8"}
    for code in whole:
        for sibling in (s for s in listed if s[:6] == code.code[:6]):
            assert (by_code[sibling].mineral, by_code[sibling].stage) == (code.mineral, code.stage)


@needs_shared
def test_codes_that_are_no_evidence_of_one_mineral_are_left_out() -> None:
    usable = {r["code"] for r in _rows("reference", "trade_codes.csv") if r["system"] in ("CN8", "HTS10")}
    assert usable - {c.code for c in CODES} == {
        "28256000",  # germanium oxides with zirconium dioxide
        "2825600020",  # probably zirconium dioxide
        "28332980",  # manganese sulphate among other sulphates
        "8112920700",  # scrap of five metals together
        "8505193000",  # ferrite magnets in pieces only; no critical mineral
        "85051910",  # ferrite magnets; no critical mineral
        "85051190",  # metal magnets without rare earths
        "8505110010",  # alnico
    }


# -------------------------------------------------------------------------------------- broken tables

HEAD = ",".join(Code.model_fields)
GOOD = 'CN8,28369100,lithium,carbonate,Li,Lithium carbonates,,,KG,0.18785,"Li2CO3, stoichiometric",,confirmed,,a list'


def _mistakes(*lines: str, head: str = HEAD) -> str:
    with pytest.raises(ConfigError) as caught:
        load_codes(Path("codes.csv"), "\n".join((head, *lines)))
    return str(caught.value)


def test_a_small_table_loads() -> None:
    (code,) = load_codes(Path("codes.csv"), f"{HEAD}\n{GOOD}\n")
    assert (code.code, code.units, code.content, code.line) == ("28369100", ("KG",), 0.18785, "28369100")


def test_every_broken_line_is_named_at_once() -> None:
    text = _mistakes(
        GOOD,
        GOOD.replace("28369100", "283691"),  # line 3: neither 8 nor 10 digits
        GOOD.replace("28369100", "2836910050"),  # line 4: ten digits in the CN
        GOOD.replace("28369100", "28369200").replace("confirmed", "perhaps"),  # line 5
        GOOD.replace("28369100", "28369300").replace("0.18785", "18.785"),  # line 6: a percentage
        GOOD.replace("28369100", "28369400").replace(",Li,", ",,"),  # line 7: content of no element
        GOOD.replace("28369100", "28369500").replace("CN8", "NCM8"),  # line 8
        GOOD.replace("28369100", "28369600").replace("carbonates,,", "carbonates,2020,"),  # line 9: no month
    )
    assert text.startswith("codes.csv: 7 mistakes")
    for number, part in (
        (3, "code"),
        (4, "CN8 codes have 8 digits"),
        (5, "certainty"),
        (6, "content"),
        (7, "name the element"),
        (8, "system"),
        (9, "valid_from"),
    ):
        assert re.search(rf"^  line {number}:.*{re.escape(part)}", text, re.MULTILINE), (number, text)
    assert "line 2:" not in text


def test_a_code_that_stands_twice_is_named_with_the_line_of_its_twin() -> None:
    assert "line 3: CN8 28369100 stands in line 2 already" in _mistakes(GOOD, GOOD)


def test_a_group_that_counts_content_and_product_is_named_with_both_lines() -> None:
    gross = GOOD.replace("28369100", "28369200").replace(",Li,", ",,").replace("0.18785", "")
    text = _mistakes(GOOD, gross)
    assert "line 3: lithium/carbonate is counted per tonne of product here, otherwise in line 2" in text


def test_a_column_that_no_code_has_is_named_on_every_line() -> None:
    text = _mistakes(GOOD + ",x", GOOD.replace("28369100", "28369200") + ",y", head=HEAD + ",colour")
    assert text.count("colour: unknown key") == 2
    assert "line 2:" in text and "line 3:" in text


def test_a_column_that_is_missing_is_named() -> None:
    assert "source: missing" in _mistakes(GOOD.rpartition(",")[0], head=HEAD.rpartition(",")[0])


def test_two_lives_of_a_code_in_the_same_months_are_refused(tmp_path: Path) -> None:
    head = (
        "system,code,mineral,stage,element,title,valid_from,valid_to,units,content,content_source,stem,certainty,"
        "note,source"
    )
    first = "CN8,81129289,gallium,metal,Ga,t,,,KG,1,pure,,confirmed,,s"
    second = "CN8,81129289,gallium,metal,Ga,t,2023-01,,KG,0.5,half,,confirmed,,s"
    with pytest.raises(ConfigError, match="line 3: CN8 81129289 has another life in the same months"):
        load_codes(tmp_path / "codes.csv", "\n".join((head, first, second)))
    closed = first.replace("Ga,t,,,", "Ga,t,,2022-12,")
    assert len(load_codes(tmp_path / "codes.csv", "\n".join((head, closed, second)))) == 2


def test_two_sources_of_one_origin_are_refused() -> None:
    raw = tomllib.loads((ROOT / "config.toml").read_text("utf-8"))
    raw["sources"]["comext-bulk"] = raw["sources"]["comext"]
    with pytest.raises(ValueError, match="count the imports of one origin"):
        Operation.model_validate(raw)
