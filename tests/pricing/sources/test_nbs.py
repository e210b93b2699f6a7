from pathlib import Path

import pandas as pd
import pytest

from pricing.config import Series, Source
from pricing.errors import ConfigError, ParseError
from pricing.sources import nbs
from pricing.sources.nbs import NEVER_ISSUED, find_link, missing_periods, parse

SAMPLES = Path(__file__).resolve().parents[2] / "samples" / "nbs"
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "nbs"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")

LIST = "https://www.stats.gov.cn/sj/zxfb/"
SOURCE = Source.model_validate(
    {
        "title": "t",
        "publisher": "p",
        "landing": LIST,
        "link": r"^https?://www\.stats\.gov\.cn/sj/zxfb[a-z]*/20\d{4}/t20\d{6}_\d+\.html$",
        "terms": "t",
        "terms_read": "2026-11-23",
        "licence": "l",
        "attribution": "a",
        "rights": "open",
        "series": [],
    }
)


def product(key, column, *aliases, **more):
    facts = {"kind": "other", "unit": "CNY/t", "frequency": "ten-day", "origin": "nbs", "column": column}
    return Series.model_validate({"id": key, **facts, "aliases": aliases, **more})


SERIES = {
    s.id: s
    for s in (
        product("nbs-copper", "电解铜（1#）", "Electrolytic Copper (1#)"),
        product("nbs-aluminium", "铝锭（A00）", "Aluminum Ingot (A00)"),
        product("nbs-lead", "铅锭（1#）"),
        product("nbs-zinc", "锌锭（0#）"),
        product("nbs-lfp", "磷酸铁锂（普通动力型）", since="2026-01"),
        product("nbs-polysilicon", "多晶硅（致密料）", unit="CNY/kg", since="2026-01"),
    )
}


def sample(name):
    return (SAMPLES / name).read_bytes()


PAGE = sample("bulletin-2026-05-last.html").decode()
OLD = "bulletin-2020-08-last-gb2312.html"
ENGLISH = "bulletin-2024-04-mid-english.html"
HISTORY = sample("history.csv").decode()


def read(text, *keys):
    raw = text if isinstance(text, bytes) else text.encode()
    return parse(raw, {k: SERIES[k] for k in keys} if keys else SERIES, SOURCE)


def changed(old, new, text=PAGE):
    assert old in text
    return text.replace(old, new)


def values(parsed):
    rows = parsed.observations
    return dict(zip(rows["series"], rows["value"], strict=True))


@pytest.mark.parametrize(
    ("name", "published", "absent"),
    [
        ("bulletin-2026-05-last.html", "2026-06-04", ()),
        (OLD, "2020-09-04", ()),
        (ENGLISH, "2024-04-24", ("nbs-lead", "nbs-zinc")),
        ("history.csv", "None", ("nbs-lead", "nbs-zinc", "nbs-lfp", "nbs-polysilicon")),
    ],
)
def test_every_form_is_read_to_exactly_what_stands_in_it(name, published, absent):
    parsed = read(sample(name))
    expected = pd.read_csv(SAMPLES / "expected.csv").query("document == @name").drop(columns="document")
    pd.testing.assert_frame_equal(parsed.observations, expected.reset_index(drop=True), check_dtype=False)
    assert str(parsed.published) == published
    assert parsed.absent == absent
    assert parsed.findings == ()


def test_the_older_sample_is_not_utf_8_so_that_its_encoding_is_really_tried():
    with pytest.raises(UnicodeDecodeError):
        sample(OLD).decode()


@pytest.mark.parametrize(
    ("title", "period"),
    [
        ("2024年2月下旬流通领域重要生产资料市场价格变动情况", "2024-02-29"),
        ("2023年2月下旬流通领域重要生产资料市场价格变动情况", "2023-02-28"),
        ("2023年12月上旬流通领域重要生产资料市场价格变动情况", "2023-12-10"),
        ("流通领域重要生产资料市场价格变动情况（2019年1月1-10日）", "2019-01-10"),
        ("流通领域重要生产资料市场价格变动情况（2017年8月21日—30日）", "2017-08-31"),
        ("Changes of Market Prices of Important Means of Production in Circulation, April 11-20, 2024", "2024-04-20"),
        ("Market Prices of Important Means of Production in Circulation, March 21–31, 2024", "2024-03-31"),
        ("Market Prices of Important Means of Production in Circulation, May 1 to 10, 2024", "2024-05-10"),
    ],
)
def test_the_period_is_the_last_of_the_ten_days_in_the_title(title, period):
    page = changed("2026年5月下旬流通领域重要生产资料市场价格变动情况", title)
    parsed = read(page, "nbs-copper")
    assert parsed.observations["period"].tolist() == [period]


@pytest.mark.parametrize(
    "title",
    [
        "2026年5月流通领域重要生产资料市场价格变动情况",
        "2026年13月上旬流通领域重要生产资料市场价格变动情况",
        "流通领域重要生产资料市场价格变动情况（2019年1月1-20日）",
        "Market Prices of Important Means of Production in Circulation, April 5-14, 2024",
        "Market Prices of Important Means of Production in Circulation, April 2024",
        "2026年5月下旬70个大中城市商品住宅销售价格变动情况",
    ],
)
def test_a_page_whose_title_tells_no_ten_day_period_is_refused(title):
    with pytest.raises(ParseError, match="title|no ten-day period"):
        read(changed("2026年5月下旬流通领域重要生产资料市场价格变动情况", title))


def test_a_page_that_names_two_bulletins_is_refused_but_links_to_others_do_not_count():
    title = "2026年5月中旬流通领域重要生产资料市场价格变动情况"
    assert f"{title}</a>" in PAGE
    with pytest.raises(ParseError, match="2026-05-20, 2026-05-31"):
        read(changed("<p>附注", f"<p>{title}</p><p>附注"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("本期价格（元）", "本期价格（万元）", "no column"),
        ("本期价格（元）", "上期价格（元）", "no column"),
        ("产品名称", "品种", "column of name"),
        ("单位", "本期价格（元）", "column of unit, price"),
        ("比上期价格<br>涨跌（元）", "比上年同期涨跌（元）", "column of change"),
        ("涨跌幅<br>（%）", "比重", "column of percent"),
        ("<td><p><span>90125.5</span></p></td>", "", "4 cells under a head of 5"),
        ("90125.5", "90125,5", "电解铜（1#）': '90125,5' is not one number"),
        ("90125.5", "90,125", "'90,125' is not one number"),
        ("90125.5", "9012<br>5", "'9012 5' is not one number"),
        ("-80.5", "-80,5", "铅锭（1#）': '-80,5'"),
        (
            "<span>千克</span>",
            "<span>吨</span>",
            "多晶硅（致密料）': unit '吨' where series nbs-polysilicon expects CNY/kg",
        ),
    ],
)
def test_a_changed_layout_or_a_number_of_two_readings_is_refused_with_its_place(old, new, message):
    with pytest.raises(ParseError) as caught:
        read(changed(old, new))
    assert message in str(caught.value)


def test_columns_may_change_places_because_they_are_found_by_their_heads():
    swap = changed("<td><p><b>产品名称</b></p></td><td><p><b>单位</b></p></td>", "<td>单位</td><td>产品名称</td>")
    cells = "<td><p><span>电解铜（1#）</span></p></td><td><p><span>吨</span></p></td>"
    page = changed(cells, "<td>吨</td><td>电解铜（1#）</td>", swap)
    assert values(read(page, "nbs-copper")) == {"nbs-copper": 90125.5}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html><head><title>403 Forbidden</title></head><body>Request blocked</body></html>",
        sample("list.html"),
        b"%PDF-1.7",
        b"\xff\xfe\xff",
        b"<html><![x[ ]><body></body></html>",
        b"id,period_id,good_name,unit,current_price\n1,2,x,y,3\n",
    ],
    ids=["empty", "error page", "list page", "pdf", "no text", "malformed", "other csv"],
)
def test_what_is_no_bulletin_is_refused(raw):
    with pytest.raises(ParseError):
        read(raw)


def test_a_page_cut_off_anywhere_is_read_whole_or_refused_never_in_part():
    whole = values(read(PAGE))
    raw = PAGE.encode()
    outcomes = set()
    for end in range(0, len(raw), 37):
        try:
            parsed = read(raw[:end])
        except ParseError:
            outcomes.add("refused")
        else:
            outcomes.add("read")
            assert values(parsed) == whole
    assert outcomes == {"refused", "read"}


def test_two_copies_of_the_table_that_differ_are_refused():
    with pytest.raises(ParseError, match="2 tables of prices on the page, and they differ"):
        read(PAGE.replace("90125.5", "90125.6", 1))


def test_a_price_not_above_zero_is_a_finding_and_no_row():
    parsed = read(changed("90125.5", "0.0"), "nbs-copper", "nbs-lead")
    assert list(values(parsed)) == ["nbs-lead"]
    (finding,) = parsed.findings
    assert (finding.check, finding.severity, finding.series, finding.period) == (
        "implausible-value",
        "error",
        "nbs-copper",
        "2026-05-31",
    )


@pytest.mark.parametrize("sign", ["", "—", "-", "/"])
def test_a_product_without_a_price_is_a_finding_and_no_row(sign):
    parsed = read(changed("90125.5", sign), "nbs-copper", "nbs-lead")
    assert list(values(parsed)) == ["nbs-lead"]
    assert [f.check for f in parsed.findings] == ["no-figure"]


def test_a_percentage_that_contradicts_its_change_is_a_warning_and_the_price_stays():
    parsed = read(changed("<span>0.5</span>", "<span>5.0</span>"), "nbs-copper")
    assert values(parsed) == {"nbs-copper": 90125.5}
    assert [(f.check, f.severity) for f in parsed.findings] == [("inconsistent-change", "warning")]


def test_a_low_price_may_deviate_by_the_rounding_of_its_own_change():
    # 40.4 after -0.85 to -0.75 is -2.06 to -1.82 %: with its own rounding, -2.1 can still be true
    parsed = read(changed("<span>-1.9</span>", "<span>-2.1</span>"), "nbs-polysilicon")
    assert parsed.findings == ()
    parsed = read(changed("<span>-1.9</span>", "<span>-2.3</span>"), "nbs-polysilicon")
    assert [f.check for f in parsed.findings] == ["inconsistent-change"]


def test_full_width_figures_and_a_printed_minus_are_read():
    page = changed("-80.5", "−８０.５")
    page = changed("16010.3", "１６０１０．３", page)
    parsed = read(page, "nbs-lead")
    assert values(parsed) == {"nbs-lead": 16010.3}
    assert parsed.findings == ()


def test_a_product_that_stands_twice_with_two_prices_is_accepted_in_neither():
    parsed = read(changed("铅锭（1#）", "电解铜（1#）"), "nbs-copper")
    assert parsed.observations.empty
    assert [f.check for f in parsed.findings] == ["duplicate-period"]


def test_none_of_the_products_is_refused_and_some_of_them_are_absent():
    assert read(changed("铅锭（1#）", "铅锭（2#）")).absent == ("nbs-lead",)
    page = changed("铅锭（1#）", "铅锭（2#）")
    with pytest.raises(ParseError, match="none of the products '铅锭（1#）'"):
        read(page, "nbs-lead")


def test_a_product_of_the_new_basket_is_not_absent_from_bulletins_before_it():
    assert read(sample(OLD)).absent == ()
    assert read(sample(OLD), "nbs-polysilicon").observations.empty


@pytest.mark.parametrize(
    ("old", "new", "published", "checks"),
    [
        ('<meta name="PubDate" content="2026/06/04 09:30">', "", "2026-06-04", []),
        ("2026/06/04 09:30", "2028/02/03 09:30", "None", ["implausible-stamp"]),
        ("2026/06/04 09:30", "2026/05/24 09:30", "None", ["implausible-stamp"]),
        ("2026/06/04 09:30", "2026/06/31 09:30", "None", ["implausible-stamp"]),
        ("2026/06/04 09:30", "", "None", []),
    ],
)
def test_the_stamp_is_the_day_that_the_page_shows_where_that_can_be(old, new, published, checks):
    page = changed("<span>2026-05-24</span>", "", changed(old, new))
    parsed = read(page, "nbs-copper")
    assert str(parsed.published) == published
    assert [f.check for f in parsed.findings] == checks


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2026,2,1,", "2026,2,4,", "line 4 '电解铜（1#）': 2026-2-4"),
        ("2026,2,1,", "2026,13,1,", "no ten-day period: year 2026, month 13"),
        ("90100.0,,", "90100.0,", "line 4: 8 cells"),
        ("90100.0,", '"90100,0",', "'90100,0' is not one number"),
        ("current_price", "price", "current_price"),
        ("x.html,电解铜（1#）,吨,90100", "x.html,电解铜（1#）,千克,90100", "unit '千克' where series nbs-copper"),
    ],
)
def test_a_history_out_of_layout_is_refused_with_its_line(old, new, message):
    with pytest.raises(ParseError) as caught:
        read(changed(old, new, HISTORY))
    assert message in str(caught.value)


def test_a_hole_in_a_history_is_a_finding_unless_the_period_was_never_issued():
    lines = [line for line in HISTORY.splitlines() if "2026,2,1" not in line]
    parsed = read("\n".join(lines), "nbs-copper")
    (finding,) = parsed.findings
    assert (finding.check, finding.evidence) == ("missing-period", {"periods": ["2026-02-10"]})


def test_a_product_that_a_history_gives_up_is_a_finding():
    lines = [line for line in HISTORY.splitlines() if not ("2026,3,1" in line and "铝锭" in line)]
    (finding,) = read("\n".join(lines), "nbs-copper", "nbs-aluminium").findings
    assert (finding.series, finding.evidence) == ("nbs-aluminium", {"periods": ["2026-03-10"]})


def test_missing_periods_are_those_between_the_first_and_the_last_apart_from_never_issued_ones():
    assert missing_periods(["2026-03-10", "2026-01-31"]) == ["2026-02-10", "2026-02-28"]
    assert missing_periods(["2023-12-31", "2024-03-10"]) == [
        "2024-01-10",
        "2024-01-20",
        "2024-01-31",
        "2024-02-10",
        "2024-02-29",
    ]
    assert missing_periods([]) == []
    with pytest.raises(ValueError, match="2026-01-15"):
        missing_periods(["2026-01-10", "2026-01-15", "2026-01-20"])


def test_the_newest_bulletin_of_the_list_is_found_by_its_title_whatever_its_place_or_link():
    page = sample("list.html").decode()
    assert find_link(page, SOURCE) == "https://www.stats.gov.cn/sj/zxfbhjd/202606/t20260603_1900004.html"
    shorter = page.replace("2026年5月下旬", "2026年4月下旬")
    assert find_link(shorter, SOURCE) == f"{LIST}202605/t20260523_1900003.html"


@pytest.mark.parametrize("page", ["", "<html>blocked</html>", "<a href='./202605/t20260523_1.html'>居民消费价格</a>"])
def test_a_list_without_bulletins_gives_no_link(page):
    assert find_link(page, SOURCE) is None


@pytest.mark.parametrize("more", [{"unit": "USD/t"}, {"frequency": "monthly"}])
def test_only_ten_day_prices_in_yuan_can_be_asked_for(more):
    one = product("x", "电解铜（1#）", **more)
    with pytest.raises(ConfigError, match="series x"):
        parse(PAGE.encode(), {"x": one}, SOURCE)


def test_names_are_compared_without_width_blanks_case_and_stars():
    assert nbs.normal("电解铜 (１#)*") == nbs.normal("电解铜（1#）")
    assert nbs.normal("电解铜（1#）") != nbs.normal("电解铜（2#）")


@real
def test_the_real_history_has_every_issued_period_and_says_nothing_doubtful():
    raw = (SHARED / "nbs_tenday_nonferrous_2020-2026.csv").read_bytes()
    parsed = read(raw)
    rows = parsed.observations
    counts = rows.groupby("series").size().to_dict()
    assert counts == {
        "nbs-copper": 195,
        "nbs-aluminium": 195,
        "nbs-lead": 195,
        "nbs-zinc": 195,
        "nbs-polysilicon": 10,
        "nbs-lfp": 10,
    }
    assert parsed.findings == () and parsed.absent == ()
    periods = rows.query("series == 'nbs-copper'")["period"]
    assert (periods.min(), periods.max()) == ("2020-09-20", "2026-04-20")
    assert missing_periods(periods) == []
    assert not NEVER_ISSUED & set(periods)
    days = pd.date_range("2020-09-20", "2026-04-20")
    ends = {d.date().isoformat() for d in days if d.day in (10, 20) or d.is_month_end}
    assert ends - set(periods) == NEVER_ISSUED


@real
def test_the_real_history_agrees_with_a_plain_reading_to_the_last_value():
    path = SHARED / "nbs_tenday_nonferrous_2020-2026.csv"
    plain = pd.read_csv(path).query("good_name == '锌锭（0#）'")["current_price"]
    assert read(path.read_bytes(), "nbs-zinc").observations["value"].tolist() == plain.tolist()
