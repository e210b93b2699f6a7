import io
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from pricing.config import Series, Source
from pricing.errors import ConfigError, ParseError
from pricing.sources.ecb import parse

SAMPLES = Path(__file__).resolve().parents[2] / "samples" / "ecb"
SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "ecb"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")


def fx(currency, **more):
    given = {"kind": "fx", "unit": f"{currency}/EUR", "frequency": "daily", "origin": "ecb", "currency_of": currency}
    return Series(id=f"ecb-{currency.lower()}", **(given | more))


def source(max_bytes=64_000_000):
    return Source(
        title="rates",
        publisher="ECB",
        terms="https://example.org",
        terms_read="2026-11-23",
        licence="free reuse with the source named",
        attribution="ECB",
        rights="open",
        max_bytes=max_bytes,
        series=(),
    )


def read(raw, *currencies, max_bytes=64_000_000):
    return parse(raw, {s.id: s for s in map(fx, currencies or ("USD", "CNY"))}, source(max_bytes))


def zipped(**members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return packed.getvalue()


def xml(cubes):
    return (
        '<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01" '
        f'xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref"><Cube>{cubes}</Cube></gesmes:Envelope>'
    ).encode()


HIST = (SAMPLES / "eurofxref-hist.csv").read_bytes()
DAILY = b"Date, USD, CNY, \n13 April 2026, 1.1684, 7.9827, \n"


@pytest.mark.parametrize(
    "raw",
    [HIST, zipped(eurofxref_csv=HIST), (SAMPLES / "eurofxref-hist-90d.xml").read_bytes()],
    ids=["csv", "zip", "xml"],
)
def test_every_form_of_the_same_rates_gives_the_same_observations(raw):
    parsed = read(raw)
    expected = pd.read_csv(SAMPLES / "expected.csv")
    pd.testing.assert_frame_equal(parsed.observations, expected, check_dtype=False)
    assert str(parsed.published) == "2024-01-09"
    assert parsed.findings == ()


def test_the_daily_csv_with_its_long_date_is_read():
    parsed = read(DAILY)
    assert parsed.observations.values.tolist() == [
        ["ecb-cny", "2026-04-13", 7.9827, "normal"],
        ["ecb-usd", "2026-04-13", 1.1684, "normal"],
    ]


def test_a_currency_that_the_document_does_not_carry_is_absent():
    assert read(HIST, "USD", "BRL").absent == ("ecb-brl",)


def test_a_retired_currency_is_carried_but_has_no_rows():
    parsed = read(HIST, "HRK")
    assert parsed.absent == ()
    assert parsed.observations.empty


@pytest.mark.parametrize("rate", ["1,1476", "0", "-1.1", "nan", "Infinity", "1e3", "0.00001", "99999999", "1.1 ?"])
def test_a_rate_that_is_not_a_plausible_plain_decimal_is_refused_with_its_place(rate):
    raw = xml(f"<Cube time='2026-03-13'><Cube currency='USD' rate='{rate}'/></Cube>")
    with pytest.raises(ParseError, match=r"Cube time='2026-03-13' currency='USD'"):
        read(raw)


def test_a_quoted_comma_decimal_in_the_csv_is_refused():
    with pytest.raises(ParseError, match=r"line 2 \(2024-01-09\), column USD"):
        read(b'Date,USD,CNY,\n2024-01-09,"1,0900",7.81,\n')


def test_an_unknown_missing_marker_is_a_finding_and_no_row():
    parsed = read(HIST.replace(b"2024-01-08,1.0950,158.00,N/A,N/A", b"2024-01-08,1.0950,158.00,N/A,n.q."))
    assert len(parsed.observations) == 5
    (finding,) = parsed.findings
    assert (finding.check, finding.series, finding.period) == ("unknown-missing-marker", "ecb-cny", "2024-01-08")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (HIST.replace(b"2024-01-09", b"2024-01-06"), "line 2: 2024-01-06 is a Saturday"),
        (HIST.replace(b"2024-01-09", b"09/01/2024"), "line 2: '09/01/2024' is not a day"),
        (HIST.replace(b",N/A,N/A,", b",N/A,"), "line 3: 5 cells under a head of 6"),
        (HIST.replace(b"JPY", b"USD"), "stands twice"),
        (HIST.splitlines()[0] + b"\n", "no dated rate"),
        (xml(""), "no dated rate"),
        (xml("<Cube time='2026-03-13'><Cube currency='USD'/></Cube>"), "both attributes"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "XML"),
        (b"<a><b></a>", "XML"),
        (b"KEY,FREQ,CURRENCY\n", "neither zip, XML nor a CSV"),
        (b'<?xml version="1.0" encoding="UTF-88"?><a/>', "XML"),
        (b"", "neither zip"),
        (b"PK\x03\x04 torn", "zip"),
        (zipped(a_csv=HIST, b_csv=HIST), "expected one CSV"),
        (zipped(a_exe=HIST), "expected one CSV"),
        (zipped(a_csv=HIST)[:-30], "zip"),
    ],
)
def test_a_document_out_of_layout_is_refused(raw, message):
    with pytest.raises(ParseError, match=message.replace("(", r"\(")):
        read(raw)


def test_a_zip_that_unpacks_to_more_than_the_limit_is_refused():
    bomb = zipped(a_csv=b"0" * 3_000_000)
    assert len(bomb) < 10_000
    with pytest.raises(ParseError, match="more than max_bytes = 100000"):
        read(bomb, max_bytes=100_000)


def test_a_day_given_twice_with_two_rates_is_accepted_in_neither():
    parsed = read(HIST.replace(b"2024-01-08", b"2024-01-09"), "USD")
    assert parsed.observations["period"].tolist() == ["2024-01-05"]
    assert [f.check for f in parsed.findings] == ["duplicate-period"]


def test_only_daily_exchange_rates_can_be_asked_for():
    monthly = fx("USD", frequency="monthly")
    with pytest.raises(ConfigError, match="daily"):
        parse(HIST, {monthly.id: monthly}, source())


@real
def test_zip_and_csv_of_the_real_history_agree_to_the_last_value():
    currencies = ("USD", "CNY", "GBP", "JPY")
    one = read((SHARED / "eurofxref-hist.csv").read_bytes(), *currencies)
    two = read((SHARED / "eurofxref-hist_2026-04.zip").read_bytes(), *currencies)
    pd.testing.assert_frame_equal(one.observations, two.observations)
    raw = pd.read_csv(SHARED / "eurofxref-hist.csv", index_col="Date").sort_index()
    for currency in currencies:
        mine = one.observations[one.observations.series == f"ecb-{currency.lower()}"].set_index("period")["value"]
        theirs = raw[currency].dropna()
        assert mine.tolist() == theirs.tolist()
        assert mine.index.tolist() == theirs.index.tolist()


@real
@pytest.mark.parametrize(
    ("name", "rows", "published"),
    [
        ("eurofxref-daily_2021-12-14.xml", 4, "2021-12-14"),
        ("eurofxref-daily_2025-05-09.xml", 4, "2025-05-09"),
        ("eurofxref-hist-90d_2013-01.xml", 4 * 61, "2013-01-24"),
        ("eurofxref-hist-90d_2020-12.xml", 4 * 64, "2020-12-10"),
        ("eurofxref_daily_sample.csv", 4, "2026-04-13"),
    ],
)
def test_the_other_real_files_parse_whole(name, rows, published):
    parsed = read((SHARED / name).read_bytes(), "USD", "CNY", "GBP", "JPY")
    assert (len(parsed.observations), str(parsed.published), parsed.findings) == (rows, published, ())


@real
@pytest.mark.parametrize("name", ["eurofxref-hist-90d_2013-01.xml", "eurofxref-hist-90d_2020-12.xml"])
def test_ninety_days_of_xml_agree_with_the_history(name):
    short = read((SHARED / name).read_bytes(), "USD", "JPY").observations
    history = read((SHARED / "eurofxref-hist.csv").read_bytes(), "USD", "JPY").observations
    both = short.merge(history, on=["series", "period"])
    assert len(both) == len(short)
    assert (both["value_x"] == both["value_y"]).all()


@real
def test_the_known_bad_file_is_refused_and_not_read_as_eleven_thousand():
    raw = next(SHARED.glob("KNOWN-BAD*")).read_bytes()
    with pytest.raises(ParseError, match=r"Cube time='2026-03-13' currency='USD': rate '1,1476'"):
        read(raw)
