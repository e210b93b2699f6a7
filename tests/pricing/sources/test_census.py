import csv
import datetime as dt
import json
import math
from collections import Counter
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.config import Code, Source
from pricing.declarations import COLUMNS
from pricing.errors import ConfigError, ParseError
from pricing.sources import census
from pricing.sources.census import declarations, halves, requests, understood

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "trade"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")

URL = "https://api.census.gov/data/timeseries/intltrade/imports/hs"
KEY = "0123456789abcdef0123456789abcdef01234567"
NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
HEAD = [*census.ASKED.split(","), "COMM_LVL", "I_COMMODITY", "time"]


def source(**customs):
    facts = {"title": "t", "publisher": "p", "url": URL, "terms": "t", "terms_read": "2026-11-23", "licence": "l"}
    asked = {"system": "HTS10", "origin": "us", "title": "United States", "currency": "USD", "china": "5700"}
    asked |= {"valuation": "customs value", "since": "2023", "key_environment": "CENSUS_API_KEY"}
    return Source.model_validate({**facts, "attribution": "a", "rights": "open", "customs": {**asked, **customs}})


def tariff(code, *units, system="HTS10", certainty="confirmed", **more):
    facts = {"system": system, "mineral": "m", "stage": "s", "title": "t", "source": "s", "certainty": certainty}
    return Code.model_validate({**facts, "code": code, "units": units or ("KG",), **more})


GALLIUM = tariff("8112921000")
TUNGSTEN = tariff("8101100000", "KG", "CKG")
MAGNETS = tariff("8505110070", "NO", "KG")
FERRITE = tariff("8505193000", "NO")
CRYOLITE = tariff("2530901000", "T")
PLATINUM = tariff("7110110000", "PTG")
CODES = (GALLIUM, TUNGSTEN, MAGNETS, FERRITE, CRYOLITE, PLATINUM)


def row(code=GALLIUM, partner="5700", month="2026-04", value="441600", first="260", second="0", **more):
    """One row as documented: text or null, units of the code, no flags."""
    units = dict(zip(("UNIT_QY1", "UNIT_QY2"), (*code.units, "-", "-")[:2], strict=True))
    named = {"I_COMMODITY_LDESC": "TEXT", "COMM_LVL": "HS10", "SUMMARY_LVL": "DET", "CTY_NAME": f"NAME {partner}"}
    named |= {"I_COMMODITY": code.code, "CTY_CODE": partner, "time": month, "GEN_VAL_MO": value, **units}
    named |= {"GEN_QY1_MO": first, "GEN_QY2_MO": second, "GEN_QY1_MO_FLAG": None, "GEN_QY2_MO_FLAG": None, **more}
    return [named[name] for name in HEAD]


def answer(*rows, head=HEAD):
    return json.dumps([head, *rows]).encode()


def read(*rows, codes=CODES):
    return declarations(answer(*rows), codes, source())


def cells(declared):
    named = declared.cells.astype(object).where(declared.cells.notna(), None)
    return [tuple(one) for one in named.itertuples(index=False)]


def checks(declared):
    return [(one.check, one.severity) for one in declared.findings]


# --------------------------------------------------------------------------------- what to ask


def asked(requests):
    out = []
    for one in requests:
        question = parse_qs(urlsplit(one.url).query)
        (first, last) = question["time"][0].removeprefix("from ").split(" to ")
        assert one.scope == census.Scope((question["I_COMMODITY"][0],), first, last)
        out.append((question["I_COMMODITY"][0], first, last))
    return out


def year(code, number):
    return (code.code, f"{number}-01", f"{number}-12")


def test_a_question_reads_as_the_publisher_documents_it_and_holds_no_key():
    (one,) = requests(source(since="2026"), [GALLIUM], {}, NOW)
    assert one.url == (
        "https://api.census.gov/data/timeseries/intltrade/imports/hs?get=I_COMMODITY_LDESC,CTY_NAME,CTY_CODE,"
        "GEN_VAL_MO,GEN_QY1_MO,GEN_QY1_MO_FLAG,UNIT_QY1,GEN_QY2_MO,GEN_QY2_MO_FLAG,UNIT_QY2,SUMMARY_LVL"
        "&COMM_LVL=HS10&I_COMMODITY=8112921000&time=from+2026-01+to+2026-12"
    )


def test_every_code_is_asked_for_once_in_each_year_of_its_validity_the_newest_first():
    begun = tariff("2805199010", valid_from="2025-01", certainty="unconfirmed")
    ended = tariff("3801105000", valid_to="2024-12")
    twice = [tariff("2827399010", valid_to="2024-06"), tariff("2827399010", "T", valid_from="2025-07")]
    european = tariff("81129289", system="CN8")
    got = asked(requests(source(), [GALLIUM, begun, ended, *twice, european], {}, NOW))
    assert got == [
        *(year(GALLIUM, 2026), year(begun, 2026), year(twice[0], 2026)),
        *(year(GALLIUM, 2025), year(begun, 2025), year(twice[0], 2025)),
        *(year(GALLIUM, 2024), year(ended, 2024), year(twice[0], 2024)),
        *(year(GALLIUM, 2023), year(ended, 2023), year(twice[0], 2023)),
    ]


def test_a_collection_that_was_killed_goes_on_with_what_it_lacks():
    every = requests(source(), CODES, {}, NOW)
    had = {one.url: NOW for one in every[::2]}
    assert requests(source(), CODES, had, NOW) == every[1::2]
    assert requests(source(), CODES, {one.url: NOW for one in every}, NOW) == []


def test_an_open_year_is_asked_again_only_after_the_agreed_hours():
    had = {one.url: NOW for one in requests(source(again_after_hours=20), [GALLIUM], {}, NOW)}
    for hours, expected in ((1, []), (20, []), (20.01, [year(GALLIUM, 2026)])):
        later = NOW + dt.timedelta(hours=hours)
        assert asked(requests(source(again_after_hours=20), [GALLIUM], had, later)) == expected
    february = dt.datetime(2027, 2, 10, tzinfo=dt.UTC)
    assert asked(requests(source(since="2025"), [GALLIUM], dict.fromkeys(had, NOW), february)) == [
        year(GALLIUM, 2027),
        year(GALLIUM, 2026),
    ]


def test_a_year_is_asked_daily_while_open_then_after_its_close_and_three_june_revisions():
    done, days = {}, []
    code = tariff("8112921000", valid_from="2026-01", valid_to="2026-12")
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    while now.year < 2032:
        for one in requests(source(since="2026"), [code], done, now):
            done[one.url] = now
            days.append(now.date())
        now += dt.timedelta(days=1)
    closed = [day for day in days if day >= dt.date(2027, 4, 1)]
    assert closed == [dt.date(2027, 4, 1), dt.date(2027, 7, 1), dt.date(2028, 7, 1), dt.date(2029, 7, 1)]
    assert len(days) - len(closed) == 365 + 31 + 28 + 31


def test_a_long_pause_over_several_milestones_costs_one_question():
    had = {one.url: NOW for one in requests(source(since="2026"), [GALLIUM], {}, NOW)}
    code = tariff("8112921000", valid_to="2026-12")
    late = dt.datetime(2035, 1, 1, tzinfo=dt.UTC)
    assert asked(requests(source(since="2026"), [code], had, late)) == [year(GALLIUM, 2026)]
    assert requests(source(since="2026"), [code], dict.fromkeys(had, late), late) == []


def test_halving_down_to_single_months_covers_every_month_once():
    (whole,) = requests(source(since="2026"), [GALLIUM], {}, NOW)
    early, late = halves(whole, source())
    assert asked([early, late]) == [(GALLIUM.code, "2026-01", "2026-06"), (GALLIUM.code, "2026-07", "2026-12")]
    todo, months = [whole], []
    while todo:
        one = todo.pop()
        split = halves(one, source())
        todo += split or ()
        months += [] if split else asked([one])
    assert sorted(months) == [(GALLIUM.code, f"2026-{m:02d}", f"2026-{m:02d}") for m in range(1, 13)]


def test_a_source_without_a_table_customs_is_a_mistake_of_the_settings():
    with pytest.raises(ConfigError, match="table customs"):
        requests(source().model_copy(update={"customs": None}), [GALLIUM], {}, NOW)


# ------------------------------------------------------------------------------ what was answered


@pytest.mark.parametrize(
    ("raw", "kind", "said"),
    [
        (answer(row()), "data", ""),
        (b"\xef\xbb\xbf \r\n" + answer(row()), "data", ""),
        (answer(), "data", ""),
        (b"", "empty", "no trade"),
        (b" \n", "empty", "no trade"),
        (b"<html><title>Missing Key</title></html>", "wrong-key", "environment variable"),
        (b"<h1>\nInvalid  Key</h1>", "wrong-key", "environment variable"),
        (b"<html><h1>Service unavailable</h1></html>", "fault", "Service unavailable"),
        (b"error: unknown variable 'GEN_VAL'", "fault", "error: unknown variable 'GEN_VAL'"),
        (b'{"error": "There was an error"}', "fault", "There was an error"),
        (b'[["CTY_CODE"],["5700"]', "fault", "not JSON"),
        (b'[["CTY_CODE"],["5700","x"]]', "fault", "row 2: 2 cells"),
        (b'[["CTY_CODE"],[5700]]', "fault", "CTY_CODE: int"),
        (b"[]", "fault", "array of arrays"),
        (b'["CTY_CODE"]', "fault", "array of arrays"),
        (b"[[1]]", "fault", "names"),
        (b"[\xff]", "fault", "not JSON"),
    ],
)
def test_data_is_told_from_everything_else_that_comes_with_status_200(raw, kind, said):
    reply = understood(raw)
    assert reply.kind == kind
    assert said in reply.message


@real
def test_the_real_page_about_a_wrong_key_is_recognised():
    assert understood((SHARED / "census_key_error_200.html").read_bytes()).kind == "wrong-key"


@pytest.mark.parametrize(
    "raw",
    [
        f"error: unknown argument in /data/hs?get=A&key={KEY}&time=2026",
        f"<html>Invalid Key {KEY}</html>",
        f"<html>bad request ?key={KEY}</html>",
        f'{{"error": "no such key: {KEY}"}}',
        f'[["a","a"],["{KEY}","key={KEY}"]]',
    ],
)
def test_no_message_repeats_a_key(raw):
    reply = understood(raw.encode())
    assert reply.kind in ("fault", "wrong-key")
    assert reply.message
    assert KEY not in reply.message


# -------------------------------------------------------------------------------------- reading


def test_countries_become_cells_and_totals_groupings_and_other_codes_do_not():
    declared = read(
        row(partner="-", value="950", first="9"),
        row(partner="5700", value="600", first="5"),
        row(partner="4280", value="350", first="4"),
        row(partner="0003", value="350", first="4", SUMMARY_LVL="CGP"),
        row(partner="0022", value="350", first="4"),
        row(partner="5XXX", value="600", first="5", SUMMARY_LVL="CGP"),
        row(partner="4XXX", value="350", first="4"),
        row(partner="9999", value="350", first="4", SUMMARY_LVL="CGP"),
        row(tariff("2844300000"), value="1", first="1"),
    )
    assert tuple(declared.cells.columns) == COLUMNS
    assert cells(declared) == [
        ("8112921000", "US", "4280", "2026-04", 350.0, 4.0, "normal"),
        ("8112921000", "US", "5700", "2026-04", 600.0, 5.0, "normal"),
    ]
    assert declared.left_out == {"total": 1, "grouping": 5, "other-code": 1}
    assert declared.names == {"4280": "NAME 4280", "5700": "NAME 5700"}
    assert declared.scope == census.Scope(("8112921000",), "2026-04", "2026-04")
    assert declared.findings == ()
    assert declared.published is None


@pytest.mark.parametrize(
    ("code", "first", "second", "kg"),
    [
        (GALLIUM, "260", "0", 260.0),
        (TUNGSTEN, "1000", "998", 998.0),
        (MAGNETS, "40000", "310", 310.0),
        (CRYOLITE, "25", "0", 25_000.0),
        (PLATINUM, "12345", "0", 12.345),
        (FERRITE, "40000", "0", None),
    ],
)
def test_the_mass_is_read_from_the_quantity_whose_unit_is_a_mass(code, first, second, kg):
    declared = read(row(code, first=first, second=second))
    (cell,) = cells(declared)
    assert cell[5:] == (kg, "no-quantity" if kg is None else "normal")
    assert (kg is None) == (code.basis == "none")
    assert declared.findings == ()


@pytest.mark.parametrize(
    ("flags", "first", "second", "kg"),
    [
        ({"GEN_QY1_MO_FLAG": "M"}, "0", "50", 50.0),
        ({"GEN_QY2_MO_FLAG": "M"}, "60", "0", None),
        ({"GEN_QY2_MO_FLAG": "Z"}, "60", "50", None),
        ({"GEN_QY2_MO_FLAG": " "}, "60", "50", 50.0),
        ({"GEN_QY2_MO_FLAG": "-"}, "60", "50", 50.0),
        ({}, "0", "0", 0.0),
    ],
)
def test_a_flag_makes_the_quantity_it_stands_beside_missing_and_a_bare_zero_stays_zero(flags, first, second, kg):
    declared = read(row(TUNGSTEN, first=first, second=second, **flags))
    assert cells(declared)[0][5:] == (kg, "no-quantity" if kg is None else "normal")
    assert declared.findings == ()


@pytest.mark.parametrize(("gross", "contained"), [("100", "101"), ("0", "5"), ("100", "0")])
def test_more_metal_than_product_or_none_at_all_is_no_quantity_and_is_said(gross, contained):
    declared = read(row(TUNGSTEN, first=gross, second=contained))
    assert cells(declared)[0][5:] == (None, "no-quantity")
    assert checks(declared) == [("content-ratio", "warning")]
    assert "8101100000 from 5700 in 2026-04" in declared.findings[0].message


def test_product_that_is_all_metal_is_plausible():
    declared = read(row(TUNGSTEN, first="100", second="100"))
    assert cells(declared)[0][5:] == (100.0, "normal")
    assert declared.findings == ()


def test_rows_of_zeros_are_no_trade_whatever_their_flags_and_blank_units():
    declared = read(
        row(month="2026-01", value="0", first="0"),
        row(month="2026-02", value="0", first="0", GEN_QY1_MO_FLAG="M"),
        row(month="2026-03", value="0", first="0", UNIT_QY1="", UNIT_QY2=None),
        row(month="2026-04"),
        row(month="2026-05", value="2500", first="0"),
    )
    assert [cell[3] for cell in cells(declared)] == ["2026-04", "2026-05"]
    assert declared.left_out == {"no-trade": 3}
    assert declared.findings == ()
    assert (declared.scope.first, declared.scope.last) == ("2026-01", "2026-05")


@pytest.mark.parametrize(
    "shown",
    [
        {"UNIT_QY1": "T"},
        {"UNIT_QY1": "CKG"},
        {"UNIT_QY2": "CKG"},
        {"UNIT_QY1": ""},
        {"UNIT_QY1": None, "UNIT_QY2": "KG"},
        {"UNIT_QY1": "X"},
    ],
)
def test_one_row_in_another_unit_leaves_its_code_out_and_no_other(shown):
    declared = read(
        row(month="2026-03"),
        row(month="2026-04", **shown),
        row(month="2026-05", value="0", first="0"),
        row(MAGNETS, first="9", second="8"),
    )
    assert [cell[0] for cell in cells(declared)] == [MAGNETS.code]
    assert declared.left_out == {"unit-changed": 2, "no-trade": 1}
    assert declared.scope.codes == (MAGNETS.code,)
    (finding,) = declared.findings
    assert (finding.check, finding.severity, finding.period) == ("unit-changed", "error", "2026-04")
    assert finding.evidence["expected"] == "KG"
    assert finding.evidence["found"] == [
        " ".join(u for u in (row(**shown)[6], row(**shown)[9]) if u and u != "-") or "none"
    ]
    assert GALLIUM.code in finding.message


def test_another_unit_on_a_row_of_zeros_is_a_changed_unit_too():
    declared = read(row(), row(month="2026-05", value="0", first="0", UNIT_QY1="T"))
    assert cells(declared) == []
    assert checks(declared) == [("unit-changed", "error")]


def test_gross_and_contained_in_the_other_order_are_not_taken_for_each_other():
    declared = read(row(TUNGSTEN, first="70", second="100", UNIT_QY1="CKG", UNIT_QY2="KG"))
    assert cells(declared) == []
    assert checks(declared) == [("unit-changed", "error")]


def test_units_may_change_where_the_code_has_another_life():
    lives = (tariff("2822000010", valid_to="2026-06"), tariff("2822000010", "KG", "CKG", valid_from="2026-07"))
    old, new = (row(one, month=m, second=s) for one, m, s in zip(lives, ("2026-06", "2026-07"), "09", strict=True))
    declared = read(old, new, codes=lives)
    assert [cell[5] for cell in cells(declared)] == [260.0, 9.0]
    assert declared.findings == ()


def test_trade_outside_the_validity_of_a_code_is_left_out_and_said():
    code = tariff("2805199010", valid_from="2026-02", valid_to="2026-03")
    rows = [row(code, month=f"2026-{m:02d}") for m in range(1, 5)]
    declared = read(*rows, row(code, month="2026-05", value="0", first="0"), codes=[code])
    assert [cell[3] for cell in cells(declared)] == ["2026-02", "2026-03"]
    assert declared.left_out == {"outside-validity": 2, "no-trade": 1}
    assert checks(declared) == [("code-outside-validity", "error")]
    assert declared.findings[0].evidence["periods"] == ["2026-01", "2026-04"]


def test_a_row_that_stands_twice_counts_once_and_one_that_contradicts_itself_not_at_all():
    declared = read(
        *(row(month="2026-01"), row(month="2026-01")),
        *(row(month="2026-02"), row(month="2026-02", value="441601")),
        *(row(month="2026-03"), row(month="2026-03", value="0", first="0")),
    )
    assert [cell[3] for cell in cells(declared)] == ["2026-01"]
    assert checks(declared) == [("duplicate-cell", severity) for severity in ("note", "error", "error")]
    assert declared.left_out == {"duplicate": 5}


def test_countries_that_do_not_add_up_to_the_total_are_said():
    declared = read(row(partner="-", value="1000"), row(partner="5700", value="600"), row(partner="4280", value="399"))
    assert checks(declared) == [("total-differs", "warning")]
    assert declared.findings[0].evidence == {"code": GALLIUM.code, "sum": 999, "total": [1000]}
    assert len(declared.cells) == 2


def test_echoed_filters_may_repeat_a_column_but_not_contradict_it():
    head = [*HEAD, "I_COMMODITY", "SUMMARY_LVL"]
    fine = answer([*row(), GALLIUM.code, "DET"], head=head)
    assert cells(declarations(fine, CODES, source())) == cells(read(row()))
    with pytest.raises(ParseError, match="SUMMARY_LVL stands twice"):
        declarations(answer([*row(), GALLIUM.code, "CGP"], head=head), CODES, source())


@pytest.mark.parametrize("name", [*census.ASKED.split(",")[1:], "I_COMMODITY", "time"])
def test_a_missing_column_is_named(name):
    position = HEAD.index(name)
    cut = [[*one[:position], *one[position + 1 :]] for one in (HEAD, row())]
    with pytest.raises(ParseError, match=f"no column {name}"):
        declarations(answer(cut[1], head=cut[0]), CODES, source())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"GEN_VAL_MO": "1,000"}, "GEN_VAL_MO '1,000'"),
        ({"GEN_VAL_MO": "-5"}, "GEN_VAL_MO '-5'"),
        ({"GEN_VAL_MO": "5.0"}, "GEN_VAL_MO '5.0'"),
        ({"GEN_VAL_MO": ""}, "GEN_VAL_MO ''"),
        ({"GEN_VAL_MO": None}, "GEN_VAL_MO None"),
        ({"GEN_VAL_MO": "٣"}, "GEN_VAL_MO"),
        ({"GEN_VAL_MO": "9" * 400}, "15 digits"),
        ({"GEN_QY1_MO": "1e3"}, "GEN_QY1_MO '1e3'"),
        ({"GEN_QY1_MO": None}, "GEN_QY1_MO None"),
        ({"GEN_QY2_MO": "N/A"}, "GEN_QY2_MO 'N/A'"),
        ({"time": "2026"}, "time '2026'"),
        ({"time": "2026-13"}, "time '2026-13'"),
        ({"time": None}, "time None"),
        ({"SUMMARY_LVL": None}, "SUMMARY_LVL None"),
        ({"SUMMARY_LVL": "ALL"}, "SUMMARY_LVL 'ALL'"),
        ({"CTY_CODE": "CN"}, "CTY_CODE 'CN'"),
        ({"CTY_CODE": None}, "CTY_CODE None"),
    ],
)
def test_what_is_not_in_the_documented_form_is_refused_with_its_row(wrong, said):
    with pytest.raises(ParseError, match=r"^row 3 \(8112921000, .*" + said):
        read(row(month="2026-03"), row(**wrong))


def test_a_quantity_may_be_null_where_no_unit_stands():
    assert cells(read(row(GEN_QY2_MO=None, UNIT_QY2=None))) == cells(read(row()))


@pytest.mark.parametrize("name", ["DISTRICT", "RP", "CTY_SUBCODE"])
def test_an_answer_broken_down_further_is_not_taken_for_whole_cells(name):
    head = [*HEAD, name]
    assert cells(declarations(answer([*row(), "-"], head=head), CODES, source())) == cells(read(row()))
    with pytest.raises(ParseError, match=f"column {name} is broken down"):
        declarations(answer([*row(), "13"], head=head), CODES, source())


def test_a_country_that_was_renamed_bears_its_latest_name():
    rows = [row(month=month, CTY_NAME=name) for month, name in (("2026-02", "NEW"), ("2026-01", "OLD"))]
    assert read(*rows).names == {"5700": "NEW"}


def test_an_answer_without_rows_holds_nothing_and_speaks_of_nothing():
    declared = read()
    assert declared.cells.empty
    assert tuple(declared.cells.columns) == COLUMNS
    assert declared.scope == census.Scope((), "", "")


# ------------------------------------------------------------------------------------ properties

COUNTRIES = ("1220", "2010", "4280", "5700", "5880")
known_rows = st.lists(
    st.builds(
        lambda code, partner, month, value, first, second, flag: row(
            code, partner, f"2026-{month:02d}", str(value), str(first), str(second), GEN_QY1_MO_FLAG=flag
        ),
        st.sampled_from(CODES),
        st.sampled_from(COUNTRIES),
        st.integers(1, 3),
        st.integers(0, 10**9),
        st.integers(0, 1000),
        st.integers(0, 1000),
        st.sampled_from([None, "", "M"]),
    ),
    max_size=12,
)
summaries = st.lists(
    st.builds(
        lambda code, partner, month, value: row(
            code, partner, f"2026-{month:02d}", str(value), SUMMARY_LVL="DET" if partner == "-" else "CGP"
        ),
        st.sampled_from(CODES),
        st.sampled_from(["-", "0003", "0022", "1XXX", "5XXX"]),
        st.integers(1, 3),
        st.integers(0, 10**9),
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(known_rows, summaries)
def test_totals_and_groupings_never_change_the_cells(rows, more):
    plain, full = read(*rows), read(*more, *rows)
    pd.testing.assert_frame_equal(plain.cells, full.cells)
    assert plain.names == full.names
    added = Counter("total" if one[2] == "-" else "grouping" for one in more)
    assert full.left_out == {**plain.left_out, **added}


@settings(max_examples=60, deadline=None)
@given(st.data(), known_rows, summaries)
def test_the_order_of_rows_and_columns_changes_nothing(data, rows, more):
    rows = [*rows, *more]
    shuffled = data.draw(st.permutations(rows))
    order = data.draw(st.permutations(range(len(HEAD))))
    turned = [[one[i] for i in order] for one in (HEAD, *shuffled)]
    one, other = read(*rows), declarations(json.dumps(turned).encode(), CODES, source())
    pd.testing.assert_frame_equal(one.cells, other.cells)
    assert (one.findings, one.scope, one.names, one.left_out) == (
        other.findings,
        other.scope,
        other.names,
        other.left_out,
    )


@settings(max_examples=60, deadline=None)
@given(known_rows)
def test_every_row_is_a_cell_or_counted_under_one_rule(rows):
    declared = read(*rows)
    assert len(declared.cells) + sum(declared.left_out.values()) == len(rows)


# ------------------------------------------------------------------------------------ real files


def lines(name):
    with (SHARED / name).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@real
def test_the_documented_shape_reads_once_the_columns_we_ask_for_are_there():
    raw = (SHARED / "census_imports_hs_shape.json").read_bytes()
    assert understood(raw).kind == "data"
    horses = tariff("0101210010", "NO")
    with pytest.raises(ParseError, match="no column CTY_NAME"):
        declarations(raw, [horses], source())
    head, *rows = json.loads(raw)
    added = {name: "-" for name in census.READ if name not in head} | {"CTY_NAME": "CANADA"}
    full = json.dumps([[*head, *added], *([*one, *added.values()] for one in rows)]).encode()
    declared = declarations(full, [horses], source())
    assert cells(declared) == [("0101210010", "US", "1220", "2026-01", 1000.0, None, "no-quantity")]
    assert declared.left_out == {"total": 1}
    assert declared.findings == ()


@real
def test_every_combination_of_units_of_the_real_tariff_is_read_as_its_units_say():
    kinds = Counter()
    for line in lines("us_hts10_cbp_units_dates_minerals.csv"):
        units = tuple(u for u in (line["census_qty1"], line["census_qty2"]) if u)
        code = tariff(line["code"], *units)
        (cell,) = cells(read(row(code, first="200", second="100" if len(units) == 2 else "0"), codes=[code]))
        expected = {("KG",): 200.0, ("KG", "CKG"): 100.0, ("NO", "KG"): 100.0, ("NO",): None, ("T",): 200_000.0}
        assert cell[5] == expected[units]
        kinds[units] += 1
        if len(units) == 2:
            turned = read(row(code, second="100", UNIT_QY1=units[1], UNIT_QY2=units[0]), codes=[code])
            assert checks(turned) == [("unit-changed", "error")]
    assert kinds == {("KG",): 188, ("KG", "CKG"): 53, ("NO", "KG"): 5, ("NO",): 3, ("T",): 1}


@real
def test_the_sums_of_the_real_months_come_back_from_the_total_china_and_the_rest():
    # The excerpt has the first quantity only, so tungstate stands here with its gross kilograms alone.
    every = lines("us_census_hts10_monthly_excerpt.csv")
    codes = [tariff(code) for code in sorted({line["I_COMMODITY"] for line in every})]
    rows, without_row, zeros = [], 0, 0  # rows of zeros: China's, and the rest's where all came from China
    for line in every:
        code, month = tariff(line["I_COMMODITY"]), line["time"]
        value, kg = int(line["GEN_VAL_MO"]), int(line["GEN_QY1_MO"])
        rows.append(row(code, "-", month, str(value), str(kg)))
        from_china = int(line["GEN_VAL_MO_china"] or 0), int(line["GEN_QY1_MO_china"] or 0)
        without_row += not line["GEN_QY1_MO_china"]
        zeros += line["GEN_QY1_MO_china"] != "" and from_china == (0, 0)
        if line["GEN_QY1_MO_china"]:
            rows.append(row(code, "5700", month, *map(str, from_china)))
        rows.append(row(code, "4280", month, str(value - from_china[0]), str(kg - from_china[1])))
        zeros += (value, kg) == from_china
    declared = read(*rows, codes=codes)
    assert declared.findings == ()
    assert (len(every), without_row) == (113, 50)
    assert declared.left_out == {"total": 113, "no-trade": zeros}
    assert len(declared.cells) == len(rows) - 113 - zeros
    sums = declared.cells.groupby(["code", "period"])[["value", "kg"]].sum()
    china = declared.cells[declared.cells["partner"] == "5700"].set_index(["code", "period"])
    for line in every:
        key = (line["I_COMMODITY"], line["time"])
        assert sums.loc[key].tolist() == [float(line["GEN_VAL_MO"]), float(line["GEN_QY1_MO"])]
        traded = line["GEN_QY1_MO_china"] not in ("", "0")
        assert (key in china.index) == traded
        if traded:
            assert china.loc[key, "kg"] == float(line["GEN_QY1_MO_china"])
    assert math.isclose(
        sums.loc[("2841800010", "2023-03"), "value"] / sums.loc[("2841800010", "2023-03"), "kg"], 117, rel_tol=0.01
    )
