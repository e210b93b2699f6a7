"""Eurostat Comext: what is asked, what an answer is, and which cells it holds."""

import csv
import datetime as dt
import gzip
import io
import itertools
import json
import random
from decimal import Decimal
from pathlib import Path

import pandas as pd
import py7zr
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.config import Code, Source
from pricing.declarations import Request, Scope, frame
from pricing.errors import ParseError
from pricing.sources import comext, comext_bulk
from pricing.sources.comext_cells import EU27

SHARED = Path(__file__).resolve().parents[4] / "shared"
TRADE = SHARED / "data" / "trade"
needs_shared = pytest.mark.skipif(not TRADE.is_dir(), reason="needs ../shared/data/trade")

BASE = "https://statistics.example/eurostat/api/comext/dissemination/"
HEAD = "DATAFLOW,LAST UPDATE,freq,reporter,partner,product,flow,indicators,TIME_PERIOD,OBS_VALUE"
HEAD_2 = "STRUCTURE,STRUCTURE_ID,freq,reporter,partner,product,flow,indicators,TIME_PERIOD,OBS_VALUE"
LITHIUM, GALLIUM, MAGNETS = "28369100", "81129289", "85051110"


def source(**customs):
    given_customs = {
        "system": "CN8", "origin": "eu", "title": "European Union", "currency": "EUR", "valuation": "cif",
        "china": "CN", "since": "2023", "codes_per_request": 3, **customs,
    }  # fmt: skip
    return Source(
        title="t", publisher="p", url=BASE, terms="https://terms.example", terms_read=dt.date(2026, 1, 1),
        licence="l", attribution="a", rights="open", customs=given_customs,
    )  # fmt: skip


def code(text, first="", last="", **more):
    return Code(
        system="CN8", code=text, mineral="m", stage="s", title="t", valid_from=first, valid_to=last,
        units=("KG",), source="s", **{"certainty": "confirmed", **more},
    )  # fmt: skip


CODES = (code(LITHIUM), code(GALLIUM), code(MAGNETS, "2023-01"))


def instant(text):
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def row(number, *, product=LITHIUM, reporter="DE", partner="CN", period="2024-01", what="VALUE_IN_EUROS", flow="1",
        freq="M", flag=None, stamp="15/09/26 11:00:00"):  # fmt: skip
    cells = ["ESTAT:DS-045409(1.0)", stamp, freq, reporter, partner, product, flow, what, period, number]
    return ",".join(cells if flag is None else [*cells, flag])


def pair(value, quantity, **more):
    return [row(value, **more), row(quantity, what="QUANTITY_IN_100KG", **more)]


def sdmx(*rows, head=HEAD):
    return ("\n".join([head, *rows]) + "\n").encode()


def bulk_row(value, kg, *, product=LITHIUM, reporter="DE", partner="CN", period="202401", kind="E", flow="1",
             procedure="1", unit="NO_SU"):  # fmt: skip
    fields = [reporter, partner, kind, product, "5", "2", "2", "2", "3", "06", flow, procedure, unit, period]
    return ",".join([*fields, value, value, kg, "0"])


def bulk(*rows):
    return ("\n".join([comext_bulk.COLUMNS, *rows]) + "\n").encode()


def packed(**members):
    file = io.BytesIO()
    with py7zr.SevenZipFile(file, "w", filters=[{"id": py7zr.FILTER_LZMA2, "preset": 0}]) as archive:
        for name, content in members.items():
            archive.writestr(content, name.replace("_dat", ".dat"))
    return file.getvalue()


def read(raw, codes=CODES, **customs):
    return comext.declarations(raw, codes, source(**customs))


def records(declared):
    return list(declared.cells.itertuples(index=False, name=None))


def checks(declared):
    return [(f.check, f.severity) for f in declared.findings]


# ------------------------------------------------------------------------------------ what to ask


def test_a_question_is_written_as_the_interface_wants_it():
    first, *_ = comext.requests(source(since="2026"), [code(LITHIUM), code(GALLIUM)], {}, instant("2026-03-01"))
    assert first.url == (
        "https://statistics.example/eurostat/api/comext/dissemination/sdmx/2.1/data/DS-045409/"
        "M.AT+BE+BG+CY+CZ+DE+DK+EE+ES+FI+FR+GR+HR+HU+IE+IT+LT+LU+LV+MT+NL+PL+PT+RO+SE+SI+SK."
        ".28369100+81129289.1.VALUE_IN_EUROS+QUANTITY_IN_100KG"
        "?startPeriod=2026-01&endPeriod=2026-12&format=SDMX-CSV&compressed=false"
    )
    assert first.scope == Scope((LITHIUM, GALLIUM), "2026-01", "2026-12")


def test_there_are_27_members_and_the_united_kingdom_is_none():
    assert len(set(EU27)) == 27 and "GR" in EU27 and not {"EL", "GB"} & set(EU27)


def test_the_newest_year_comes_first_and_a_code_only_in_its_years():
    codes = [code(LITHIUM), code("38011000", "", "2025-12"), code("38011010", "2026-01")]
    plan = comext.requests(source(since="2024"), codes, {}, instant("2026-03-01"))
    assert [(r.scope.first[:4], r.scope.codes) for r in plan] == [
        ("2026", (LITHIUM, "38011010")),
        ("2025", (LITHIUM, "38011000")),
        ("2024", (LITHIUM, "38011000")),
    ]


def test_codes_of_another_tariff_are_not_asked_for():
    other = Code(**{**code(LITHIUM).model_dump(), "system": "HTS10", "code": "8112921000"})
    assert comext.requests(source(), [other], {}, instant("2026-03-01")) == []


@pytest.mark.parametrize(
    ("last", "now", "due"),
    [
        (None, "2026-03-01", True),
        ("2026-03-01T00:00", "2026-03-01T19:59", False),  # an open year, too soon
        ("2026-03-01T00:00", "2026-03-01T20:00", True),
        ("2026-10-31T12:00", "2026-10-31T23:59", False),  # still open, too soon
        ("2026-10-31T12:00", "2026-11-01T00:00", True),  # final now, and had before
        ("2026-11-01T00:00", "2030-01-01", False),  # had as final
    ],
)
def test_a_year_is_asked_for_while_it_is_open_once_when_it_is_final_and_never_again(last, now, due):
    for way in ("api", "bulk"):
        src = source(since="2025", way=way)
        (one, *_) = [r for r in comext.requests(src, CODES, {}, instant("2026-03-01")) if r.scope.first[:4] == "2025"]
        plan = comext.requests(src, CODES, {one.url: instant(last)} if last else {}, instant(now))
        assert (one in plan) is due


valid_months = st.sampled_from(["", "2022-07", "2023-01", "2024-01", "2024-06", "2025-01", "2026-01"])
some_codes = st.lists(
    st.builds(
        lambda number, first, last, certainty: code(
            f"{number:08}", first, "" if last and last < first else last, certainty=certainty
        ),
        st.integers(25000000, 25000012), valid_months, valid_months, st.sampled_from(["confirmed", "unconfirmed"]),
    ),
    max_size=12,
)  # fmt: skip


def answered(plan, when):
    return {request.url: when for request in plan}


def code_months(plan):
    return [
        (one, str(month))
        for request in plan
        for one in request.scope.codes
        for month in pd.period_range(request.scope.first, request.scope.last, freq="M")
    ]


@settings(max_examples=60, deadline=None)
@given(some_codes, st.integers(1, 5), st.data())
def test_every_valid_month_of_every_code_is_asked_for_once_and_nothing_that_is_had(codes, size, data):
    src, now = source(codes_per_request=size), instant("2026-03-15")
    plan = comext.requests(src, codes, {}, now)
    covered = code_months(plan)
    assert len(covered) == len(set(covered))
    everything = [str(month) for month in pd.period_range("2023-01", "2026-12", freq="M")]
    assert set(covered) >= {(one.code, month) for one in codes for month in everything if one.valid(month)}
    unsure = {one.code for one in codes if one.certainty == "unconfirmed"}
    assert all(len(r.scope.codes) <= (1 if unsure & set(r.scope.codes) else size) for r in plan)

    had = data.draw(st.lists(st.sampled_from(plan), unique=True)) if plan else []
    done = answered(had, instant("2026-03-15"))
    rest = comext.requests(src, codes, done, now)
    assert sorted(r.url for r in [*had, *rest]) == sorted({r.url for r in [*had, *rest]}), "nothing is asked twice"
    assert sorted(code_months([*had, *rest])) == sorted(covered), "a visit that was cut short is gone on with"
    assert comext.requests(src, codes, {**done, **answered(rest, now)}, now) == []


@settings(max_examples=60, deadline=None)
@given(some_codes, some_codes, st.integers(1, 5))
def test_a_code_that_is_added_changes_no_question_that_was_answered(codes, more, size):
    src, now, later = source(codes_per_request=size), instant("2026-03-15"), instant("2026-12-01")
    new = [one for one in more if one.code not in {known.code for known in codes}]
    done = answered(comext.requests(src, codes, {}, now), now)
    before = {r.url for r in comext.requests(src, codes, done, later)}
    after = comext.requests(src, [*codes, *new], done, later)
    assert before <= {r.url for r in after}
    assert len(code_months(after)) == len(set(code_months(after)))


def test_what_was_had_in_halves_is_asked_in_halves_again():
    src, now = source(since="2026", codes_per_request=4), instant("2026-03-15")
    codes = [code(f"2500000{i}") for i in range(4)]
    (whole,) = comext.requests(src, codes, {}, now)
    first, second = comext.halves(whole, src)
    for done in ({first.url: now, second.url: now}, {first.url: now, second.url: now, whole.url: now}):
        assert comext.requests(src, codes, done, now) == []
        assert comext.requests(src, codes, done, instant("2026-03-18")) == [first, second]
    assert comext.requests(src, codes, {first.url: now}, now) == [second]


def test_a_code_that_becomes_sure_is_not_asked_for_again():
    src, now = source(since="2026"), instant("2026-03-15")
    known, unsure = code("25000001"), code("25000002", certainty="unconfirmed")
    done = answered(comext.requests(src, [known, unsure], {}, now), now)
    assert comext.requests(src, [known, code("25000002")], done, now) == []


def test_a_code_that_is_dropped_dissolves_its_batch_only():
    src, now = source(since="2026", codes_per_request=2), instant("2026-03-15")
    codes = [code(f"2500000{i}") for i in range(4)]
    done = answered(comext.requests(src, codes, {}, now), now)
    (again,) = comext.requests(src, codes[1:], done, now)
    assert again.scope.codes == ("25000001",)


def test_a_question_is_halved_until_one_code_and_one_month_are_left():
    src = source(since="2026", codes_per_request=5)
    (whole,) = comext.requests(src, [code(f"2500000{i}") for i in range(5)], {}, instant("2026-03-15"))
    todo, smallest = [whole], []
    while todo:
        request = todo.pop()
        parts = comext.halves(request, src)
        if parts is None:
            smallest.append(request)
        else:
            assert sorted(code_months(parts)) == sorted(code_months([request]))
            todo += parts
    assert len(smallest) == 5 * 12
    assert sorted(code_months(smallest)) == sorted(code_months([whole]))
    assert all(f".{r.scope.codes[0]}.1." in r.url and f"endPeriod={r.scope.first}&" in r.url for r in smallest)


def test_the_bulk_way_asks_for_one_file_per_month_up_to_two_months_ago():
    src = source(since="2025", way="bulk")
    codes = [code(LITHIUM), code("38011010", "2026-01")]
    plan = comext.requests(src, codes, {}, instant("2026-03-15"))
    assert [r.scope.first for r in plan] == ["2026-01", *(f"2025-{m:02}" for m in range(12, 0, -1))]
    assert plan[0] == Request(
        "https://statistics.example/eurostat/api/dissemination/files"
        "?file=comext%2FCOMEXT_DATA%2FPRODUCTS%2Ffull_v2_202601.7z",
        Scope((LITHIUM, "38011010"), "2026-01", "2026-01"),
    )
    assert plan[1].scope == Scope((LITHIUM,), "2025-12", "2025-12")
    assert comext.halves(plan[0], src) is None


# ------------------------------------------------------------------------------ what an answer is

FAULT = '<S:Fault xmlns:S="http://schemas.xmlsoap.org/soap/envelope/"><faultcode>{}</faultcode><faultstring>{}</faultstring></S:Fault>'
ENVELOPE = '<?xml version="1.0"?><env:Envelope xmlns:env="http://schemas.xmlsoap.org/soap/envelope/"><env:Body>{}</env:Body></env:Envelope>'
STATUS = '<ns0:asyncResponse xmlns:ns0="a" xmlns:ns1="b"><ns1:status><ns1:key>98de05ea-540a</ns1:key><ns1:status>{}</ns1:status></ns1:status></ns0:asyncResponse>'  # noqa: E501


@pytest.mark.parametrize(
    "raw",
    [sdmx(), b"\xef\xbb\xbf" + sdmx(), sdmx(head=HEAD_2), bulk(), packed(a_dat=bulk()), gzip.compress(sdmx())],
)
def test_an_answer_with_the_known_head_is_data(raw):
    assert comext.understood(raw).kind == "data"


@pytest.mark.parametrize(
    ("raw", "kind", "said"),
    [
        (FAULT.format(413, "EXTRACTION_TOO_BIG: estimated 420709314 rows"), "too-big", "420709314"),
        (FAULT.format(100, "NO_RESULTS: The query did not return any results."), "empty", "NO_RESULTS"),
        (FAULT.format(100, "No results found"), "empty", "No results"),
        (FAULT.format(100, "ERR_NOT_FOUND_4: DS-045409 is not available for dissemination."), "fault", "not available"),
        (FAULT.format(150, "INVALID_QUERY_DIMENSION_VALUE: not allowed: PRODUCT=1"), "fault", "PRODUCT=1"),
        (FAULT.format(100, "UNKNOWN_REQUEST: Unknown request."), "fault", "UNKNOWN_REQUEST"),
        (
            '<m:Error xmlns:m="x" xmlns:c="y"><m:ErrorMessage code="100"><c:Text>No Results Found</c:Text>'
            "</m:ErrorMessage></m:Error>",
            "empty",
            "100",
        ),  # fmt: skip
        (json.dumps({"error": [{"status": 404, "id": 100, "label": "ERR_NOT_FOUND_4: no"}]}), "fault", "404 ERR_NOT"),
        (json.dumps({"error": {"status": 413, "label": "EXTRACTION_TOO_BIG"}}), "too-big", "413"),
        (json.dumps({"error": [{"status": 200, "id": 100, "label": "No results found"}]}), "empty", "No results"),
        (json.dumps({"warning": {"status": 413, "label": "ASYNCHRONOUS_RESPONSE. Later."}}), "fault", "ASYNCHRONOUS"),
        (json.dumps({"version": "2.0", "class": "dataset"}), "fault", "JSON in place"),
        ("{", "fault", "JSON"),
        ("<!DOCTYPE html><html><title>Sorry</title>", "fault", "HTML"),
        ('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>', "fault", "XML"),
        ("<a><b></a>", "fault", "XML"),
        ("<a>" + "x" * 2_000_000 + "</a>", "fault", "2,000,007"),
        ("", "fault", "empty"),
        ("  \r\n", "fault", "empty"),
        ("period,reporter,partner\n", "fault", "period,reporter"),
        ("\x1f\x8bnot gzip", "fault", "begins with"),
    ],
)
def test_an_answer_that_is_no_data_says_what_it_is(raw, kind, said):
    reply = comext.understood(raw.encode())
    assert reply.kind == kind and said in reply.message and not reply.poll


@pytest.mark.parametrize("state", ["SUBMITTED", "PROCESSING"])
def test_a_queued_answer_names_the_address_to_ask(state):
    queued = ENVELOPE.format(f"<queued><id>98de05ea-540a</id><status>{state}</status></queued>")
    first = ENVELOPE.format("<queued><id>98de05ea-540a</id></queued>")
    for text in (first, queued, ENVELOPE.format(STATUS.format(state))):
        reply = comext.understood(text.encode())
        assert (reply.kind, reply.poll) == ("queued", "1.0/async/status/98de05ea-540a")


def test_a_queued_answer_that_is_ready_names_the_address_of_the_data():
    reply = comext.understood(ENVELOPE.format(STATUS.format("AVAILABLE")).encode())
    assert (reply.kind, reply.poll) == ("ready", "1.0/async/data/98de05ea-540a")


@pytest.mark.parametrize("state", ["EXPIRED", "UNKNOWN_REQUEST", "ERROR", "SOMETHING_NEW"])
def test_a_queued_answer_that_failed_is_a_fault(state):
    reply = comext.understood(ENVELOPE.format(STATUS.format(state)).encode())
    assert reply.kind == "fault" and state in reply.message


@pytest.mark.parametrize("key", ["../../elsewhere", "https://other.example/x", "a b", "", "x" * 100])
def test_a_key_that_would_lead_elsewhere_is_not_followed(key):
    reply = comext.understood(ENVELOPE.format(f"<queued><id>{key}</id></queued>").encode())
    assert reply.kind == "fault" and not reply.poll


def test_two_keys_are_no_key():
    assert comext.understood(ENVELOPE.format("<queued><id>a</id><id>b</id></queued>").encode()).kind == "fault"


@needs_shared
def test_the_published_fault_is_understood():
    assert comext.understood((TRADE / "comext_fault_413.xml").read_bytes()).kind == "too-big"


# ------------------------------------------------------------------------------------- SDMX cells


def test_values_and_quantities_become_cells_in_euros_and_kilograms():
    got = read(sdmx(*pair("204548", "1772.90"), *pair("17", "0", partner="US", period="2024-02")))
    assert records(got) == [
        (LITHIUM, "DE", "CN", "2024-01", 204548.0, 177290.0, "normal"),
        (LITHIUM, "DE", "US", "2024-02", 17.0, 0.0, "normal"),
    ]
    assert got.published == dt.date(2026, 9, 15)
    assert got.scope == Scope((LITHIUM,), "2024-01", "2024-02")
    assert (got.findings, got.left_out, got.names, got.held) == ((), {}, {}, frozenset())
    expected = frame(records(got))
    pd.testing.assert_frame_equal(got.cells, expected)


def test_version_2_of_the_format_reads_the_same():
    rows = pair("204548", "1772.90")
    second = [line.replace("ESTAT:", "dataflow,ESTAT:").replace(",15/09/26 11:00:00", "") for line in rows]
    one, two = read(sdmx(*rows)), read(sdmx(*second, head=HEAD_2))
    pd.testing.assert_frame_equal(one.cells, two.cells)
    assert two.published is None


@given(st.decimals(min_value=0, max_value=10**12, places=2) | st.decimals(min_value=0, max_value=10**9, places=7))
@settings(max_examples=100, deadline=None)
def test_hundreds_of_kilograms_become_exactly_the_written_kilograms(quantity):
    text = format(quantity, "f")
    ((*_, kg, _),) = records(read(sdmx(*pair("1", text))))
    assert kg == float(Decimal(text) * 100)


def test_a_flag_of_secrecy_and_a_missing_quantity_are_statuses():
    got = read(
        sdmx(
            row("", flag="c"),
            row("12.5", what="QUANTITY_IN_100KG", flag=""),
            row("7", partner="US", flag="p"),
            row("8", partner="JP", flag=""),
            row("", partner="JP", what="QUANTITY_IN_100KG", flag="c"),
            head=HEAD + ",OBS_FLAG",
        )  # fmt: skip
    )
    assert [r[2:] for r in records(got)] == [
        ("CN", "2024-01", pytest.approx(float("nan"), nan_ok=True), 1250.0, "confidential"),
        ("JP", "2024-01", 8.0, pytest.approx(float("nan"), nan_ok=True), "no-quantity"),
        ("US", "2024-01", 7.0, pytest.approx(float("nan"), nan_ok=True), "no-quantity"),
    ]


def test_secrecy_may_stand_in_a_column_of_its_own():
    rows = [row("", flag=",C"), row("12", what="QUANTITY_IN_100KG", flag=",")]
    ((*_, status),) = records(read(sdmx(*rows, head=HEAD + ",OBS_FLAG,CONF_STATUS")))
    assert status == "confidential"


def test_rows_may_have_a_flag_that_the_head_does_not_name():
    got = read(sdmx(*pair("1", "2", flag="")))
    assert [r[4:] for r in records(got)] == [(1.0, 200.0, "normal")]


def test_rows_that_are_no_cells_are_left_out_and_counted_by_rule():
    rows = [
        row("1", freq="A", period="2024"),
        row("1", flow="2"),
        row("1", reporter="EU27_2020"), row("1", reporter="GB"), row("1", reporter="CH"),
        *(row("1", partner=p) for p in ("WORLD", "EXT_EU27_2020", "INT_EU27_2020", "EA21", "EU", "")),
        row("1", partner="FR"), row("1", partner="GR"),
        row("1", partner="XI"), row("1", partner="XU"),
        *(row("1", partner=p) for p in ("QP", "QS", "QV", "QX", "QY", "QZ", "XX", "XZ")),
        row("1", product="28XXXXXX"),
        row("1", product="283691"), row("1", product="28369990"),
        row("1", what="SUPPLEMENTARY_QUANTITY"),
    ]  # fmt: skip
    got = read(sdmx(*rows))
    assert got.left_out == {
        "annual": 1, "other-flow": 1, "other-reporter": 3, "aggregate": 6, "intra-eu": 2, "uk-part": 2,
        "special-partner": 8, "confidential-code": 1, "other-code": 2, "other-indicator": 1,
    }  # fmt: skip
    pd.testing.assert_frame_equal(got.cells, frame([]))
    assert got.scope == Scope((), "", "") and checks(got) == [("no-cells", "note")]


def test_countries_with_strange_codes_are_partners():
    # Namibia, which reads as "not available"; Qatar; Kosovo, Serbia, Ceuta, Melilla; Serbia and Montenegro
    partners = ["NA", "QA", "XK", "XS", "XC", "XL", "CS", "GB"]
    got = read(sdmx(*itertools.chain.from_iterable(pair("1", "2", partner=p) for p in partners)))
    assert list(got.cells["partner"]) == sorted(partners)


def test_codes_keep_their_zeros():
    zero = code("01012100")
    got = read(sdmx(*pair("1", "2", product="01012100")), [zero])
    assert list(got.cells["code"]) == ["01012100"]


def test_an_answer_without_rows_is_empty_and_without_complaint():
    got = read(sdmx())
    pd.testing.assert_frame_equal(got.cells, frame([]))
    assert got.findings == () and got.left_out == {}


def test_a_document_of_other_codes_only_is_warned_of():
    assert checks(read(sdmx(row("1", product="28369990")))) == [("no-cells", "warning")]


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(rnd):
    rows = [
        line
        for product, reporter, partner in itertools.product([LITHIUM, GALLIUM], ["DE", "NL"], ["CN", "US", "WORLD"])
        for line in pair(
            str(rnd.randrange(1000)), f"{rnd.randrange(1000)}.5", product=product, reporter=reporter, partner=partner
        )  # fmt: skip
    ]
    mixed = rnd.sample(rows, len(rows))
    one, other = read(sdmx(*rows)), read(sdmx(*mixed))
    pd.testing.assert_frame_equal(one.cells, other.cells)
    assert one.left_out == other.left_out and one.scope == other.scope


def test_a_cell_that_is_said_twice_counts_once_and_one_that_is_contradicted_not_at_all():
    rows = [*pair("10", "1"), *pair("20", "2", partner="US"), row("10.0"), row("21", partner="US")]
    got = read(sdmx(*rows))
    assert records(got) == [(LITHIUM, "DE", "CN", "2024-01", 10.0, 100.0, "normal")]
    error, note = sorted(got.findings, key=lambda f: f.severity)
    assert (error.check, error.severity, error.series, error.period) == ("duplicate-cell", "error", LITHIUM, "2024-01")
    assert "lines 4, 7 differ" in error.message and error.evidence["value"] == [20.0, 21.0]
    assert (note.check, note.severity) == ("duplicate-cell", "note")
    assert got.held == {LITHIUM}, "what was known of the cell is not withdrawn"


def test_a_quantity_without_a_value_is_no_cell_and_is_told():
    got = read(sdmx(*pair("10", "1"), row("3", partner="US", what="QUANTITY_IN_100KG")))
    assert list(got.cells["partner"]) == ["CN"] and checks(got) == [("no-value", "warning")]
    assert got.held == {LITHIUM}


def test_values_without_any_quantity_are_told():
    got = read(sdmx(row("10")))
    assert list(got.cells["status"]) == ["no-quantity"] and checks(got) == [("no-quantities", "warning")]


def test_a_code_that_shows_a_value_when_it_is_not_in_force_is_told_and_left_out():
    rows = [*pair("10", "1", product=MAGNETS, period="2022-12"), *pair("10", "1", product=MAGNETS, period="2023-01")]
    got = read(sdmx(*rows, *pair("0", "0", product=MAGNETS, period="2022-11")))
    assert list(got.cells["period"]) == ["2023-01"]
    assert got.left_out == {"code-outside-validity": 2}
    (finding,) = got.findings
    assert finding.check == "code-outside-validity" and finding.evidence == {"periods": ["2022-12"]}


def test_a_code_may_be_in_force_twice():
    codes = [code(LITHIUM, "2020-01", "2021-12"), code(LITHIUM, "2024-01")]
    months = ("2021-12", "2022-01", "2024-01")
    got = read(sdmx(*itertools.chain.from_iterable(pair("1", "1", period=m) for m in months)), codes)
    assert list(got.cells["period"]) == ["2021-12", "2024-01"]


@pytest.mark.parametrize(
    "number",
    ["1e3", "1E3", "-5", "+5", "1,5", ".5", "5.", " 5", "5 ", "NaN", "inf", ":", "٥", "1_000", "0x1", "1" * 400],
)
def test_only_plain_decimals_are_numbers(number):
    quoted = f'"{number}"'
    with pytest.raises(ParseError, match=r"line 3: OBS_VALUE .* is not a plain decimal"):
        read(sdmx(row("1"), row(quoted, partner="US")))


def test_a_strange_number_outside_the_wanted_cells_disturbs_nothing():
    assert len(read(sdmx(*pair("1", "1"), row("-5", flow="2"))).cells) == 1


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (sdmx(row("1", period="2024-13")), "TIME_PERIOD '2024-13'"),
        (sdmx(row("1", period="2024-M01")), "TIME_PERIOD '2024-M01'"),
        (sdmx(row("1", freq="Q", period="2024-Q1")), "freq 'Q'"),
        (sdmx(row("1", freq="Monthly")), "freq 'Monthly' is not a code: labels"),
        (sdmx(row("1", flow="IMPORT")), "flow 'IMPORT' is not a code: labels"),
        (sdmx(row("1", reporter="DE: Germany")), "reporter 'DE: Germany' is not a code: labels"),
        (sdmx(row("1", product="Lithium carbonates")), "labels"),
        (sdmx(row("1").replace("DS-045409", "DS-059341")), "is not DS-045409"),
        (sdmx(row("1", flag=""), row("", partner="US", flag="")), "line 3: neither a value nor a flag"),
        (sdmx(row("1"), row("1")[:60]), "line 3: fewer fields"),
        (sdmx(row("1"), "", row("1")), "line 3: fewer fields"),
        (sdmx(row("1"), row("1") + ",a,b,c"), "SDMX-CSV"),
        (sdmx(row("1") + ",a,b,c"), "SDMX-CSV"),
        (sdmx(row("1"), row('"1')), "SDMX-CSV"),
        (
            sdmx(row("1", partner="\udcff").encode("utf-8", "surrogateescape").decode("latin-1"))
            .decode()
            .encode("latin-1"),
            "SDMX-CSV",
        ),  # fmt: skip
        (sdmx(row("1"), head=HEAD.replace("flow", "freq: Time frequency")), "lacks flow"),
        (sdmx(row("1") + ",1", head=HEAD + ",STAT_PROCEDURE"), "has STAT_PROCEDURE"),
        (sdmx(row("1"), head=HEAD.replace("LAST UPDATE", "LAST UPDATE,flow")), "twice"),
    ],
)
def test_another_layout_is_refused_by_name(raw, said):
    with pytest.raises(ParseError) as caught:
        read(raw)
    assert said in str(caught.value)


def test_the_newest_stamp_counts_and_an_impossible_one_does_not():
    rows = [*pair("1", "1", stamp="15/09/26 11:00:00"), row("1", partner="US", stamp="16/09/26 11:00:00")]
    assert read(sdmx(*rows)).published == dt.date(2026, 9, 16)
    for stamp in ("2026-09-15", "15/13/26", "15/01/24 11:00:00"):  # the last: in the month that it reports
        got = read(sdmx(*pair("1", "1", stamp=stamp)))
        assert got.published is None and checks(got) == [("implausible-stamp", "warning")]


def test_an_answer_whose_last_line_does_not_end_may_be_cut_off():
    assert checks(read(sdmx(*pair("1", "12345"))[:-3])) == [("no-line-end", "warning")]


def test_a_packed_answer_and_one_with_a_mark_read_the_same():
    raw = sdmx(*pair("1", "2"))
    for other in (gzip.compress(raw), b"\xef\xbb\xbf" + raw, raw.replace(b"\n", b"\r\n")):
        pd.testing.assert_frame_equal(read(other).cells, read(raw).cells)
    with pytest.raises(ParseError, match="gzip"):
        read(gzip.compress(raw)[:-12])


# ------------------------------------------------------------------------------------- bulk files


def random_trade(seed=7):
    rnd = random.Random(seed)
    cells = itertools.product([LITHIUM, GALLIUM, MAGNETS], ["DE", "FR", "NL"], ["CN", "GB", "NA", "US", "XS"])
    return [(*cell, rnd.randrange(10**8), rnd.randrange(10**6)) for cell in cells]


def test_both_ways_lead_to_the_same_cells():
    trade = random_trade()
    by_month = [bulk_row(str(v), str(kg), product=c, reporter=r, partner=p) for c, r, p, v, kg in trade]
    by_question = [
        line
        for c, r, p, v, kg in trade
        for line in pair(str(v), f"{kg // 100}.{kg % 100:02}", product=c, reporter=r, partner=p)
    ]
    one, other = read(bulk(*by_month)), read(sdmx(*by_question))
    pd.testing.assert_frame_equal(one.cells, other.cells)
    assert records(one) == sorted((c, r, p, "2024-01", float(v), float(kg), "normal") for c, r, p, v, kg in trade)
    assert one.scope == Scope((LITHIUM, GALLIUM, MAGNETS), "2024-01", "2024-01") and one.published is None


def test_normal_trade_and_what_passes_no_customs_is_summed_over_procedures_and_units():
    rows = [
        bulk_row("100.25", "10"), bulk_row("50.50", "5", procedure="9"), bulk_row("7", "1", unit="PST"),
        bulk_row("1000", "1000", procedure="2"), bulk_row("1000", "1000", procedure="3"),
    ]  # fmt: skip
    got = read(bulk(*rows))
    assert records(got) == [(LITHIUM, "DE", "CN", "2024-01", 157.75, 16.0, "normal")]
    assert got.left_out == {"other-procedure": 2}


def test_a_sum_of_which_a_part_is_missing_is_missing():
    got = read(bulk(bulk_row("100", "10"), bulk_row("50", "", procedure="9")))
    ((*_, value, kg, status),) = records(got)
    assert value == 150.0 and kg != kg and status == "no-quantity"


def test_rows_of_a_bulk_file_are_left_out_by_the_same_rules():
    rows = [
        bulk_row("1", "1", flow="2"), bulk_row("1", "1", partner="FR", kind="I"), bulk_row("1", "1", reporter="GB"),
        bulk_row("1", "1", partner="QZ"), bulk_row("1", "1", partner="XU"), bulk_row("1", "1", partner="XI"),
        bulk_row("1", "1", product="28XXXXXX"), bulk_row("1", "1", product="28369990"), bulk_row("1", "0"),
    ]  # fmt: skip
    got = read(bulk(*rows))
    assert got.left_out == {
        "other-flow": 1, "intra-eu": 1, "other-reporter": 1, "special-partner": 1, "uk-part": 2,
        "confidential-code": 1, "other-code": 1,
    }  # fmt: skip
    assert records(got) == [(LITHIUM, "DE", "CN", "2024-01", 1.0, 0.0, "normal")]


def test_a_bulk_file_speaks_of_the_codes_in_force_in_its_month():
    got = read(bulk(bulk_row("1", "1", period="202212"), bulk_row("5", "1", product=MAGNETS, period="202212")))
    assert got.scope == Scope((LITHIUM, GALLIUM), "2022-12", "2022-12")
    assert list(got.cells["code"]) == [LITHIUM] and checks(got) == [("code-outside-validity", "warning")]


def test_a_contradicted_cell_of_a_bulk_file_is_not_taken():
    got = read(bulk(bulk_row("1", "1"), bulk_row("2", "1"), bulk_row("3", "1", partner="US")))
    (finding,) = got.findings
    assert list(got.cells["partner"]) == ["US"] and (finding.check, finding.severity) == ("duplicate-cell", "error")
    assert "lines 2, 3 differ" in finding.message and finding.evidence["value"] == [1.0, 2.0]


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_of_a_bulk_file_changes_nothing(rnd):
    rows = [bulk_row(f"0.{i}", f"{i}", procedure=p, unit=f"U{i}") for i in range(1, 10) for p in "19"]
    pd.testing.assert_frame_equal(read(bulk(*rnd.sample(rows, len(rows)))).cells, read(bulk(*rows)).cells)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (bulk(bulk_row("1", "1", period="202452")), "PERIOD 202452 is the whole year 2024"),
        (bulk(bulk_row("1", "1", period="2024")), "PERIOD '2024' is not YYYYMM"),
        (bulk(bulk_row("1", "1"), bulk_row("1", "1", period="202402", partner="US")), "line 3: PERIOD '202402'"),
        (bulk(bulk_row("1", "1"), bulk_row("1", "1,5", partner="US")), "line 3: 19 fields"),
        (
            bulk(bulk_row("1", "1"), bulk_row("1", "1", product="99"), bulk_row("1", "-1", partner="US")),
            "line 4: QUANTITY_KG '-1'",
        ),
        (bulk(), "no row"),
        (packed(a_dat=bulk()), "no row"),
        (packed(a_dat=bulk(bulk_row("1", "1", period="202452"))), "the whole year"),
        (packed(a_dat=b"DECLARANT,DECLARANT_ISO\n1,2\n"), "legacy layout"),
        (packed(a_dat=b"REPORTER,PARTNER\n1,2\n"), "expected REPORTER,PARTNER,TRADE_TYPE"),
        (packed(a_dat=bulk(), b_dat=bulk()), "expected one .dat"),
        (packed(readme=b"x"), "expected one .dat"),
        (packed(a_dat=bulk(bulk_row("1", "1")))[:-9], "7z"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
    ],
)  # fmt: skip
def test_another_bulk_file_is_refused_by_name(raw, said):
    with pytest.raises(ParseError) as caught:
        read(raw)
    assert said in str(caught.value)


def test_a_damaged_archive_is_refused():
    raw = bytearray(packed(a_dat=bulk(*(bulk_row(str(i), "1", product=f"{i:08}") for i in range(3000)))))
    raw[200] ^= 0xFF
    with pytest.raises(ParseError, match="7z"):
        read(bytes(raw))


def test_a_packed_file_is_read_piece_by_piece(monkeypatch):
    rnd = random.Random(3)
    codes = [LITHIUM, GALLIUM, MAGNETS, *(f"{rnd.randrange(10**7, 10**8)}" for _ in range(100)), "28XXXXXX"]
    rows = [
        # what is not read, and hardly packs: the archive must have several blocks
        bulk_row(str(i), "1", product=c, reporter=r, partner=p).replace(",5,", f",{rnd.randbytes(120).hex()},", 1)
        for i, (c, r, p) in enumerate(itertools.product(codes, EU27, ["CN", "US", "NA", "QZ"]))
    ]
    raw = bulk(*rows)
    sizes = []
    write = comext_bulk._Sieve.write
    monkeypatch.setattr(comext_bulk._Sieve, "write", lambda self, s: sizes.append(len(s)) or write(self, s))
    whole = read(raw)
    assert sizes == [len(raw)]
    by_piece = read(packed(full_v2_202401_dat=raw))
    assert len(sizes) > 2 and sum(sizes[1:]) == len(raw)
    pd.testing.assert_frame_equal(by_piece.cells, whole.cells)
    assert by_piece.left_out == whole.left_out == {"special-partner": 81, "confidential-code": 108, "other-code": 10800}
    assert len(whole.cells) == 3 * 27 * 3


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 700), max_size=12))
def test_where_the_pieces_are_cut_changes_nothing(cuts):
    cells = itertools.product([LITHIUM, "28XXXXXX", "99"], ["CN", "US"])
    raw = bulk(*(bulk_row("7", "1", product=product, partner=partner) for product, partner in cells))
    sieve = comext_bulk._Sieve([LITHIUM])
    for start, end in itertools.pairwise([0, *sorted(cuts), len(raw)]):
        sieve.write(raw[start:end])
    assert sieve.finish() == "2024-01"
    assert [(line, fields[3], fields[1]) for line, *fields in sieve.kept] == [(2, LITHIUM, "CN"), (3, LITHIUM, "US")]
    assert sieve.left_out == {"confidential-code": 2, "other-code": 2}


def test_no_archive_unpacks_without_end(monkeypatch):
    monkeypatch.setattr(comext_bulk, "MOST_BYTES", 10_000)
    with pytest.raises(ParseError, match="unpacked"):
        read(packed(a_dat=bulk(*[bulk_row("1", "1", product="99999999")] * 500)))


# ---------------------------------------------------------------------------------------- damage

CN_US_NA = [bulk_row("1", "2", partner=partner) for partner in ("CN", "US", "NA")]
DOCUMENTS = [
    sdmx(*pair("10", "1.5"), *pair("3", "2", partner="NA"), row("1", flag="p")),
    bulk(*CN_US_NA),
    packed(a_dat=bulk(*CN_US_NA)),
    ENVELOPE.format(STATUS.format("AVAILABLE")).encode(),
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(DOCUMENTS), st.data())
def test_a_damaged_document_is_refused_or_read_and_nothing_else(document, data):
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(document)))
        gone = data.draw(st.integers(0, 20))
        document = document[:at] + data.draw(st.binary(max_size=3)) + document[at + gone :]
    comext.understood(document)
    try:
        got = read(document)
    except ParseError as error:
        assert str(error)
    else:
        assert set(got.cells["reporter"]) <= set(EU27) and got.cells["value"].ge(0).all()


# -------------------------------------------------------------------------------------- real files


@needs_shared
def test_the_real_answer_holds_years_and_exports():
    raw = (TRADE / "comext_sdmx21_csv_DS-045409.csv").read_bytes()
    got = read(raw)
    assert got.left_out == {"annual": 4, "other-flow": 2} and got.published == dt.date(2026, 9, 15)
    # The same figures as if they were imports of a tariff line of eight digits
    imports = raw.replace(b",7204,2,", b",72040000,1,")
    assert records(read(imports, [code("72040000")])) == [
        ("72040000", "AT", "AE", "2023-09", 204548.0, 177290.0, "normal")
    ]


@needs_shared
def test_the_real_layout_of_version_3_holds_a_total_of_all_members():
    got = read((TRADE / "comext_sdmx30_csv_shape.csv").read_bytes(), [code("31021090")])
    assert got.left_out == {"other-reporter": 1} and got.cells.empty


@needs_shared
def test_the_real_download_with_labels_is_refused():
    with pytest.raises(ParseError, match="labels in place of codes"):
        read((TRADE / "eurostat_comext_sdmxcsv_plastics_DS045409.csv").read_bytes())


@needs_shared
def test_the_six_real_rows_of_a_bulk_file():
    raw = (TRADE / "comext_bulk_v2_202402_rows.dat").read_bytes()
    got = read(raw, [code("39269097"), code("39205100")])
    assert got.left_out == {"other-flow": 2, "other-code": 3, "confidential-code": 1}
    assert got.scope == Scope(("39205100", "39269097"), "2024-02", "2024-02")
    imports = read(raw.replace(b",2,1,NO_SU", b",1,1,NO_SU"), [code("39269097"), code("39205100")])
    assert records(imports) == [
        ("39205100", "AT", "AD", "2024-02", 15.0, 0.0, "normal"),
        ("39269097", "AT", "AD", "2024-02", 76.0, 0.0, "normal"),
    ]


@needs_shared
def test_the_real_legacy_file_is_named():
    with pytest.raises(ParseError, match="legacy layout"):
        read((TRADE / "comext_bulk_v1_legacy_shape.dat").read_bytes())


@needs_shared
def test_the_real_file_of_united_kingdom_parts_is_not_taken_for_all_of_trade():
    with (TRADE / "comext_cn8_202605_uk_partner_rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 326
    lines = [
        bulk_row(
            r["value_eur"],
            r["qty_kg"],
            product=r["cn8"],
            reporter=r["reporter"],
            partner=r["partner"],
            period=r["period"],
            flow={"import": "1", "export": "2"}[r["flow"]],
        )  # fmt: skip
        for r in rows
    ]
    codes = [code(c) for c in sorted({r["cn8"] for r in rows})]
    with pytest.raises(ParseError, match="full_partxixu"):
        read(bulk(*lines), codes)
    # Among trade with others, the whole counts and its parts do not.
    got = read(bulk(*lines, bulk_row("1", "1", product=codes[0].code, period="202605")), codes)
    imports = [r for r in rows if r["flow"] == "import"]
    whole = [r for r in imports if r["partner"] == "GB"]
    assert len(got.cells) == len(whole) + 1 and set(got.cells["partner"]) == {"GB", "CN"}
    assert got.left_out == {"other-flow": len(rows) - len(imports), "uk-part": len(imports) - len(whole)}
    assert (got.cells["kg"] == 0).sum() == sum(float(r["qty_kg"]) == 0 for r in whole)


@needs_shared
def test_the_real_annual_table_of_another_office_is_refused():
    with pytest.raises(ParseError, match="begins with"):
        read((TRADE / "comext_annual2024_critical_cn8_value_only.csv").read_bytes())


@needs_shared
def test_the_real_partners_of_a_year_are_told_apart():
    """1,138 rows of value, in the interface's layout: Namibia stays, members of the union go."""
    with (TRADE / "comext_annual2024_critical_cn8_value_only.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [
        row(r["VALUE_IN_EUROS"], product=r["PRODUCT_NC"], reporter=r["DECLARANT_ISO"], partner=r["PARTNER_ISO"])
        for r in rows
    ]
    codes = [code(c) for c in sorted({r["PRODUCT_NC"] for r in rows})]
    with pytest.raises(ParseError, match="reporter 'EL' is not a reporter here: Greece is GR"):
        read(sdmx(*lines), codes)
    got = read(sdmx(*(line.replace(",EL,", ",GR,") for line in lines)), codes)
    partners = set(got.cells["partner"])
    assert {"NA", "CN", "GB", "US"} <= partners and not partners & set(EU27)
    assert len(got.cells) + sum(got.left_out.values()) == len(rows) == 1138
    members = sum(r["PARTNER_ISO"] in EU27 for r in rows)
    assert got.left_out == {"intra-eu": members} and members > 400
