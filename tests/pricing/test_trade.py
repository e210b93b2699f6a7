"""Cells judged and summed: rules one by one, what must change nothing, and the real American sample."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import simulated_customs as sim
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from pricing import trade
from pricing.config import Code, Customs, Source, load_methodology
from pricing.declarations import COLUMNS, frame
from pricing.sources import census

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT.parent / "shared" / "data" / "trade" / "us_census_hts10_monthly_excerpt.csv"
METHOD = load_methodology(ROOT / "methodology")
RULES = METHOD.trade
SMALL = sim.Kind(months=36, tonnes={"eu": 120.0, "us": 60.0})
OTHER = (
    Code(system="CN8", code="81129289", mineral="gallium", stage="metal", title="t", units=("KG",),
         certainty="confirmed", source="s"),
    Code(system="HTS10", code="8112921000", mineral="gallium", stage="metal", title="t", units=("KG",),
         certainty="confirmed", source="s"),
)  # fmt: skip
SEEDS = st.integers(0, 10_000)
few = settings(max_examples=8, deadline=None)


def code(text="81101000", **more):
    given = {"mineral": "antimony", "stage": "metal", "title": "t", "units": ("KG",), "source": "s"}
    return Code(**{"system": "CN8", "code": text, "certainty": "confirmed", **given, **more})


def months(n, first="2022-01"):
    return list(pd.period_range(first, periods=n, freq="M").strftime("%Y-%m"))


def prepared(cells, usd=None, codes=sim.CODES):
    parts = []
    for origin, some in cells.items():
        rate = pd.Series(1.0, index=pd.Index(some["period"].unique())) if usd is None else usd
        mine = [c for c in codes if c.system == sim.SYSTEMS[origin]]
        parts.append(trade.prepared(some, mine, sim.CUSTOMS[origin], rate))
    return pd.concat(parts)


def figures(cells, usd=None, codes=sim.CODES, rules=RULES):
    judged = trade.judged(prepared(cells, usd, codes), rules)
    made = trade.indicators(judged, codes, sim.SYSTEMS, rules)
    return judged, {(i.origin, i.mineral): i for i in made}


def flat(
    n=18, price=10.0, kg=20_000.0, pairs=(("DE", "BO"), ("FR", "KG"), ("NL", "VN"), ("PL", "TR")), product="81101000"
):
    """Steady trade at one price: nothing is doubtful in it."""
    return frame((product, r, p, m, kg * price, kg, "normal") for m in months(n) for r, p in pairs)


def changed(cells, reporter, partner, periods, kg=1.0, value=1.0):
    which = (cells["reporter"] == reporter) & (cells["partner"] == partner) & cells["period"].isin(list(periods))
    out = cells.copy()
    out.loc[which, "kg"] *= kg
    out.loc[which, "value"] *= value
    return out


def rules_of(judged, reporter, partner):
    rows = judged[(judged["reporter"] == reporter) & (judged["partner"] == partner)]
    return dict(zip(rows["period"], rows["rule"], strict=True))


def same_figures(one, other, scale=1.0):
    for leg, table in one.frames.items():
        expected = table.copy()
        expected[["value", "low", "high", "month_value"]] *= scale
        expected["traded"] *= scale
        pd.testing.assert_frame_equal(other.frames[leg], expected, rtol=1e-12, atol=0)


# -------------------------------------------------------------------------------- preparing


def test_what_has_no_value_or_no_mass_is_named_and_kept():
    rows = [
        (10.0, 5.0, "normal"),
        (10.0, 0.0, "normal"),
        (10.0, np.nan, "no-quantity"),
        (np.nan, np.nan, "confidential"),
        (0.0, 5.0, "normal"),
    ]
    cells = frame(("81101000", "DE", f"P{n}", "2024-01", *row) for n, row in enumerate(rows))
    made = trade.prepared(cells, [code()], sim.CUSTOMS["eu"], pd.Series({"2024-01": 1.25}))
    assert made["rule"].tolist() == ["", "zero-quantity", "no-quantity", "confidential", "zero-value"]
    assert made["usd"].iloc[0] == 12.5
    unknown = trade.prepared(cells, [code()], sim.CUSTOMS["eu"], pd.Series({"2023-12": 1.25}))
    assert unknown["rule"].iloc[0] == "no-rate"


def test_content_turns_product_into_metal_and_contained_mass_stays():
    cells = frame([("81101000", "DE", "CN", "2024-01", 8.0, 1000.0, "normal")])
    usd = pd.Series({"2024-01": 1.0})
    oxide = trade.prepared(cells, [code(element="Sb", content=0.8)], sim.CUSTOMS["eu"], usd)
    assert oxide["tonnes"].tolist() == [0.8]
    contained = trade.prepared(cells, [code(element="Sb", content=0.8, units=("KG", "CKG"))], sim.CUSTOMS["eu"], usd)
    assert contained["tonnes"].tolist() == [1.0]
    assert oxide["leg"].tolist() == ["CN"]


def test_a_code_that_changes_what_it_counts_is_read_as_it_stood_in_each_month():
    cells = frame(("81101000", "DE", "CN", m, 8.0, 1000.0, "normal") for m in ("2023-12", "2024-01"))
    codes = [code(element="Sb", content=0.8, valid_to="2023-12"), code(element="Sb", content=0.5, valid_from="2024-01")]
    made = trade.prepared(cells, codes, sim.CUSTOMS["eu"], pd.Series({"2023-12": 1.0, "2024-01": 1.0}))
    assert made["tonnes"].tolist() == [0.8, 0.5]


def test_a_line_of_which_a_part_is_unconfirmed_is_left_out_while_that_part_is_valid():
    parts = [code("81101001", stem="s"), code("81101009", stem="s", certainty="unconfirmed", valid_to="2023-12")]
    cells = frame(("81101001", "DE", "CN", m, 8.0, 1000.0, "normal") for m in ("2023-12", "2024-01"))
    made = trade.prepared(cells, parts, sim.CUSTOMS["eu"], pd.Series({"2023-12": 1.0, "2024-01": 1.0}))
    assert made["period"].tolist() == ["2024-01"]


def test_nothing_comes_of_nothing():
    none = frame([])
    made = trade.judged(trade.prepared(none, [code()], sim.CUSTOMS["eu"], pd.Series(dtype=float)), RULES)
    assert made.empty
    assert trade.indicators(made, [code()], sim.SYSTEMS, RULES) == []


# ---------------------------------------------------------------------------------- judging


@pytest.mark.parametrize(
    ("factor", "rule"),
    [(1000, "(kg and t)"), (10, "(a decimal place)"), (0.1, "(a decimal place)"), (1 / 2204.6, "(lb and t)"), (5, "")],
)
def test_a_mass_off_by_a_factor_is_excluded_and_the_slip_named(factor, rule):
    judged, made = figures({"eu": changed(flat(), "DE", "BO", ["2023-03"], kg=factor)})
    assert rules_of(judged, "DE", "BO")["2023-03"] == f"implausible-mass {rule}".strip()
    assert (judged["rule"] != "").sum() == 1
    assert made["eu", "antimony"].frames["XCN"]["value"].dropna().to_numpy() == pytest.approx(10_000)


def test_within_the_factor_nothing_is_doubted():
    judged, _ = figures({"eu": changed(flat(), "DE", "BO", ["2023-03"], kg=1 / 2.9)})
    assert (judged["rule"] == "").all()


def test_a_move_that_two_others_share_stands_at_once():
    cells = flat()
    for reporter, partner in (("DE", "BO"), ("FR", "KG"), ("NL", "VN")):
        cells = changed(cells, reporter, partner, ["2023-03"], value=4.0)
    judged, _ = figures({"eu": cells})
    assert (judged["rule"] == "").all()


def test_a_move_that_only_one_other_shares_does_not():
    cells = changed(flat(pairs=(("DE", "BO"), ("FR", "KG"))), "DE", "BO", ["2023-03"], value=4.0)
    judged, _ = figures({"eu": changed(cells, "FR", "KG", ["2023-03"], value=4.0)})
    assert judged.loc[judged["rule"] != "", "period"].tolist() == ["2023-03", "2023-03"]


@pytest.mark.parametrize(("leg", "excluded"), [("5700", 1), ("3350", 0)])
def test_the_other_origin_confirms_a_move_of_its_own_leg_only(leg, excluded):
    american = changed(
        flat(pairs=(("US", "3350"), ("US", "5700")), product="8110100000"), "US", leg, ["2023-03"], value=4.0
    )
    european = changed(flat(pairs=(("DE", "BO"), ("DE", "CN"))), "DE", "BO", ["2023-03"], value=4.0)
    judged, _ = figures({"us": american, "eu": european})
    assert (judged["rule"] != "").sum() == 2 * excluded
    assert (judged.loc[judged["rule"] != "", "period"] == "2023-03").all()


def test_a_partner_whose_quality_differs_lastingly_is_doubted_until_it_has_stood():
    cells = changed(flat(24), "DE", "BO", months(24)[14:], value=5.0)
    got = rules_of(figures({"eu": cells})[0], "DE", "BO")
    assert [m for m, rule in got.items() if rule] == months(24)[14:16]


def test_a_wrong_unit_never_stands_however_long_it_lasts():
    cells = changed(flat(24), "DE", "BO", months(24)[14:], kg=0.1)
    got = rules_of(figures({"eu": cells})[0], "DE", "BO")
    assert [m for m, rule in got.items() if rule] == months(24)[14:]


def test_the_first_year_is_judged_against_itself():
    judged, _ = figures({"eu": changed(flat(), "DE", "BO", ["2022-01"], kg=1000.0)})
    assert judged.loc[judged["rule"] != "", "period"].tolist() == ["2022-01"]


# ------------------------------------------------------------------------------ unit values


def test_a_ratio_of_sums_over_three_months_labelled_by_the_last():
    cells = changed(flat(6, kg=10_000.0), "DE", "BO", ["2022-04"], kg=3.0, value=6.0)
    table = figures({"eu": cells})[1]["eu", "antimony"].frames["XCN"]
    expected = (11 * 100_000 + 600_000) / (11 * 10 + 30)
    assert table.loc[["2022-04", "2022-05", "2022-06"], "value"].to_numpy() == pytest.approx(expected, rel=1e-12)
    assert table["months"].tolist() == [1, 2, 3, 3, 3, 3]
    assert table["rule"].tolist() == ["too-few", "", "", "", "", ""]
    assert table.loc["2022-04", "month_value"] == pytest.approx(900_000 / 60)
    assert table.loc["2022-04", "largest"] == pytest.approx(30 / 140)
    assert table.loc["2022-04", "hhi"] == pytest.approx(10_000 * ((50 / 140) ** 2 + 3 * (30 / 140) ** 2))


def test_the_interval_without_history_is_that_of_a_ratio():
    pairs, prices, masses = (("DE", "BO"), ("FR", "KG"), ("NL", "VN")), (8.0, 10.0, 13.0), (9_000.0, 20_000.0, 6_000.0)
    cells = frame(
        ("81101000", r, p, m, price * kg, kg, "normal")
        for m in months(3)
        for (r, p), price, kg in zip(pairs, prices, masses, strict=True)
    )
    one = figures({"eu": cells})[1]["eu", "antimony"].frames["XCN"].iloc[-1]
    y, x = 3 * np.array(prices) * masses, 3 * np.array(masses) / 1000
    ratio = y.sum() / x.sum()
    se = np.sqrt(3 / 2 * ((y - ratio * x) ** 2).sum()) / (ratio * x.sum())
    reach = student.ppf(0.9, x.sum() ** 2 / (x**2).sum() - 1) * se
    assert one["se"] == pytest.approx(se, rel=1e-12)
    assert [one["low"], one["high"]] == pytest.approx([ratio * np.exp(-reach), ratio * np.exp(reach)], rel=1e-12)


def test_a_partner_that_was_always_dear_does_not_widen_the_interval_and_a_new_one_does():
    dear = changed(flat(24), "DE", "BO", months(24), value=1.8)
    table = figures({"eu": dear})[1]["eu", "antimony"].frames["XCN"]
    assert table["se"].iloc[2] > 0.05
    assert table["se"].iloc[-1] < 1e-9
    shifted = figures({"eu": changed(dear, "DE", "BO", months(24)[21:], kg=3.0, value=3.0)})[1]["eu", "antimony"]
    assert shifted.frames["XCN"]["se"].iloc[-1] > 0.05


def test_a_month_below_the_least_mass_does_not_count():
    table = figures({"eu": flat(6, kg=1_000.0)})[1]["eu", "antimony"].frames["XCN"]
    assert set(table["rule"]) == {"minimum"}
    assert table["value"].isna().all()


def test_an_excluded_month_an_empty_month_and_a_wide_spread_are_told_apart():
    one_pair = flat(18, pairs=(("DE", "BO"),))
    gone = one_pair[one_pair["period"] != "2023-05"]
    table = figures({"eu": changed(gone, "DE", "BO", ["2023-02"], kg=0.001)})[1]["eu", "antimony"].frames["XCN"]
    assert table["rule"][["2023-02", "2023-03", "2023-05", "2023-06"]].tolist() == [
        "excluded", "too-few", "incomplete", "too-few",
    ]  # fmt: skip
    spoken = pd.concat([gone, frame([("81101000", "DE", "CN", "2023-05", 9e5, 9e4, "normal")])])
    assert figures({"eu": spoken})[1]["eu", "antimony"].frames["XCN"]["rule"]["2023-05"] == "no-trade"
    wide = changed(flat(3, pairs=(("DE", "BO"), ("FR", "KG"))), "DE", "BO", months(3), value=2.9)
    assert figures({"eu": wide})[1]["eu", "antimony"].frames["XCN"]["rule"].iloc[-1] == "dispersed"


def test_codes_of_one_stem_are_no_break_and_others_are():
    then, now = flat(12), flat(12).assign(code="81102000")
    cells = pd.concat([then[then["period"] < "2022-07"], changed(now, "DE", "BO", months(12), value=1.5)])
    cells = cells[(cells["code"] == "81101000") | (cells["period"] >= "2022-07")]

    def table(stem):
        codes = [code(valid_to="2022-06", stem=stem), code("81102000", valid_from="2022-07", stem=stem)]
        judged = trade.judged(prepared({"eu": cells}, codes=codes), RULES)
        return trade.indicators(judged, codes, sim.SYSTEMS, RULES)[0].frames["XCN"]

    linked, broken = table("antimony"), table("")
    assert not linked["break"].any()
    assert linked["months"].tolist() == [1, 2, *[3] * 10]
    assert broken.index[broken["break"]].tolist() == ["2022-07"]
    assert broken["months"].tolist() == [1, 2, 3, 3, 3, 3, 1, 2, 3, 3, 3, 3]
    assert broken.loc["2022-08", "value"] == pytest.approx(11_250)
    assert linked.loc["2022-08", "value"] == pytest.approx((40 * 10_000 + 80 * 11_250) / 120)


def test_a_month_is_withheld_until_its_main_reporters_have_spoken():
    cells = pd.concat([flat(), flat(pairs=(("ES", "BO"),), kg=1_000.0)])
    last = cells["period"] == "2023-06"

    def rule(absent, also=()):
        told = pd.concat([cells[~(last & cells["reporter"].isin(absent))], frame(also)])
        return figures({"eu": told}, codes=(*sim.CODES, *OTHER))[1]["eu", "antimony"].frames["XCN"]["rule"]["2023-06"]

    assert rule([]) == ""
    assert rule(["ES"]) == ""
    assert rule(["DE"]) == "incomplete"
    assert rule(["DE"], [("81129289", "DE", "JP", "2023-06", 1.0, 1.0, "normal")]) == ""


def test_a_reporter_is_waited_for_as_long_as_it_traded_within_twelve_months():
    cells = pd.concat([flat(), frame([("81101000", "ES", "BO", "2022-01", 1e8, 1e7, "normal")])])
    reported = figures({"eu": cells})[1]["eu", "antimony"].frames["XCN"]["reported"]
    assert (reported[(reported.index > "2022-01") & (reported.index <= "2023-01")] < 0.95).all()
    assert reported["2023-02"] == 1


def test_a_leg_waits_for_its_own_reporters_only():
    cells = pd.concat([flat(), flat(pairs=(("ES", "CN"),), kg=500_000.0)])
    told = cells[~((cells["period"] == "2023-06") & (cells["reporter"] == "ES"))]
    frames = figures({"eu": told})[1]["eu", "antimony"].frames
    assert [frames[leg]["rule"]["2023-06"] for leg in ("CN", "XCN", "WLD")] == ["incomplete", "", "incomplete"]


def test_the_gap_stands_where_both_legs_do():
    cells = changed(
        flat(6, pairs=(("DE", "BO"), ("FR", "KG"), ("DE", "CN"), ("FR", "CN"))), "DE", "CN", months(6), value=1.5
    )
    gap = figures({"eu": changed(cells, "FR", "CN", months(6), value=1.5)})[1]["eu", "antimony"].gap
    assert gap.index.tolist() == months(6)[2:]
    assert gap["gap"].to_numpy() == pytest.approx(0.5)


def test_supply_counts_what_was_not_excluded_over_twelve_months():
    judged, made = figures({"eu": changed(flat(18), "DE", "BO", ["2023-05"], kg=1000.0)})
    found = trade.supply(made["eu", "antimony"].cells, pd.Period("2023-06", "M"))
    assert found["tonnes"].to_dict() == pytest.approx({"KG": 240, "TR": 240, "VN": 240, "BO": 220})
    assert found["share"].sum() == pytest.approx(1)
    assert found.attrs == {"first": "2022-07", "last": "2023-06"}


@pytest.mark.parametrize("late", [-2, 0, 3])
def test_a_track_record_finds_by_how_many_months_one_follows_the_other(late):
    walk = pd.Series(np.exp(np.cumsum(np.random.default_rng(5).normal(0, 0.1, 60))), index=months(60))
    found = trade.record(1.2 * walk.shift(late), walk, 3)
    assert (found.lag, found.at_lag) == (late, pytest.approx(1.0))
    assert found.months == 60 - abs(late)
    assert found.level == pytest.approx(1.2, rel=0.15)


def test_a_track_record_of_too_few_months_says_nothing():
    short = pd.Series([1.0, 2.0, 3.0, 5.0], index=months(4))
    found = trade.record(short, short, 3)
    assert (found.correlation, found.lag, found.level) == (None, None, 1.0)


# ------------------------------------------------------------- what must change nothing


def voiced(cells):
    """The same, with another product of which every reporter speaks every month."""
    out = {}
    for origin, some in cells.items():
        product = next(c.code for c in OTHER if c.system == sim.SYSTEMS[origin])
        spoken = [
            (product, r, "JP", m, 1e4, 1e3, "normal") for r in sim.REPORTERS[origin] for m in some["period"].unique()
        ]
        out[origin] = pd.concat([some, frame(spoken)], ignore_index=True)
    return out


@pytest.mark.parametrize("leg", ["CN", "XCN"])
@few
@given(seed=SEEDS, share=st.floats(0.02, 0.9))
def test_nothing_of_one_leg_reaches_the_other(leg, seed, share):
    world = sim.world(seed % 20, SMALL)
    rng = np.random.default_rng(seed)
    before, after = voiced(world.cells), {}
    for origin, cells in before.items():
        product = cells["code"].isin([c.code for c in sim.CODES])
        mine = product & ((cells["partner"] == sim.CUSTOMS[origin].china) == (leg == "CN"))
        hit = (mine & (rng.random(len(cells)) < share)).to_numpy()
        some = cells.copy()
        some.loc[hit, "value"] *= np.exp(rng.normal(0, 2, hit.sum()))
        some.loc[hit, "kg"] *= np.exp(rng.normal(0, 2, hit.sum()))
        after[origin] = some[~(hit & (rng.random(len(cells)) < 0.3))]
    codes = (*sim.CODES, *OTHER)
    (one, made), (other, remade) = (figures(c, world.usd, codes) for c in (before, after))
    untouched = "XCN" if leg == "CN" else "CN"
    for key, indicator in made.items():
        pd.testing.assert_frame_equal(remade[key].frames[untouched], indicator.frames[untouched], check_exact=True)
    verdicts = [judged[judged["leg"] == untouched].reset_index(drop=True) for judged in (one, other)]
    pd.testing.assert_frame_equal(*verdicts, check_exact=True)
    assert not made["eu", "antimony"].frames[leg]["traded"].equals(remade["eu", "antimony"].frames[leg]["traded"])


@few
@given(seed=SEEDS, factor=st.floats(1e-3, 1e3))
def test_another_currency_changes_nothing(seed, factor):
    world = sim.world(seed, SMALL)
    judged, made = figures(world.cells, world.usd)
    euro = world.cells["eu"]
    cells = {**world.cells, "eu": euro.assign(value=euro["value"] * factor)}
    again, remade = figures(cells, world.usd / factor)
    assert again["rule"].equals(judged["rule"])
    for key in made:
        same_figures(made[key], remade[key])


@few
@given(seed=SEEDS, factor=st.floats(1e-3, 1e3))
def test_another_unit_of_value_scales_every_figure_and_excludes_the_same(seed, factor):
    world = sim.world(seed, SMALL)
    judged, made = figures(world.cells, world.usd)
    scaled = {o: c.assign(value=c["value"] * factor) for o, c in world.cells.items()}
    again, remade = figures(scaled, world.usd)
    assert again["rule"].equals(judged["rule"])
    for key in made:
        same_figures(made[key], remade[key], factor)


def test_a_line_counted_in_tonnes_gives_what_one_in_kilograms_gives():
    facts = {"title": "t", "publisher": "p", "url": "https://census.example", "terms": "t", "licence": "l",
             "terms_read": dt.date(2026, 1, 1), "attribution": "a", "rights": "open"}  # fmt: skip
    source = Source.model_validate(facts | {"customs": sim.CUSTOMS["us"].model_dump()})
    head = [*census.ASKED.split(","), "COMM_LVL", "I_COMMODITY", "time"]
    made = []
    for unit, masses in (("KG", (20_000, 31_000, 17_000)), ("T", (20, 31, 17))):
        rows = []
        for m in months(3):
            for partner, value, mass in zip(("3350", "4635", "5700"), (250_000, 300_000, 260_000), masses, strict=True):
                row = {"CTY_NAME": "N", "CTY_CODE": partner, "GEN_VAL_MO": str(value), "GEN_QY1_MO": str(mass)}
                row |= {"UNIT_QY1": unit, "GEN_QY2_MO": "0", "UNIT_QY2": "-", "SUMMARY_LVL": "DET", "COMM_LVL": "HS10"}
                row |= {"I_COMMODITY": "8110100000", "time": m, "I_COMMODITY_LDESC": "X"}
                rows.append([row.get(name) for name in head])
        mine = [code("8110100000", system="HTS10", units=(unit,))]
        declared = census.declarations(json.dumps([head, *rows]).encode(), mine, source)
        assert len(declared.cells) == 9
        made.append(figures({"us": declared.cells}, codes=mine)[1]["us", "antimony"])
    same_figures(*made)
    assert made[0].frames["WLD"]["value"].notna().any()


@few
@given(seed=SEEDS)
def test_a_declaration_split_into_ten_changes_nothing(seed):
    world = sim.world(seed, SMALL)
    rng = np.random.default_rng(seed)
    judged, made = figures(world.cells, world.usd)
    parts = {}
    for origin, cells in world.cells.items():
        split = (cells["kg"] > 0).to_numpy() & (rng.random(len(cells)) < 0.3)
        tenth = cells[split].loc[cells[split].index.repeat(10)]
        shares = [rng.dirichlet(np.ones(10), split.sum()).ravel() for _ in range(2)]
        parts[origin] = pd.concat(
            [cells[~split], tenth.assign(value=tenth["value"] * shares[0], kg=tenth["kg"] * shares[1])]
        )
    again, remade = figures(parts, world.usd)
    assert again["rule"].tolist() == judged["rule"].tolist()
    for key in made:
        same_figures(made[key], remade[key])


@few
@given(seed=SEEDS)
def test_the_order_of_rows_changes_nothing(seed):
    world = sim.world(seed, SMALL)
    judged, made = figures(world.cells, world.usd)
    again, remade = figures({o: c.sample(frac=1, random_state=seed) for o, c in world.cells.items()}, world.usd)
    pd.testing.assert_frame_equal(again, judged, check_exact=True)
    for key in made:
        pd.testing.assert_frame_equal(remade[key].cells, made[key].cells, check_exact=True)
        same_figures(made[key], remade[key])


@few
@given(seed=SEEDS, known=st.integers(14, 35))
@example(seed=66, known=14)
def test_what_comes_later_changes_no_verdict_and_no_figure_after_the_first_year(seed, known):
    world = sim.world(seed, SMALL)
    until = months(36, "2020-01")[known - 1]
    judged, made = figures(world.cells, world.usd)
    then, figures_then = figures({o: c[c["period"] <= until] for o, c in world.cells.items()}, world.usd)
    later = judged[judged["period"] <= until].reset_index(drop=True)
    pd.testing.assert_frame_equal(then, later, check_exact=True)
    for key, indicator in figures_then.items():
        for leg, table in indicator.frames.items():
            pd.testing.assert_frame_equal(made[key].frames[leg].loc[:until].iloc[1:], table.iloc[1:], rtol=1e-12)


# --------------------------------------------------------------------------- the real sample


@pytest.fixture(scope="module")
def real():
    """The sample as two partners, China and the rest; the tungstate by its gross mass."""
    rows = []
    for r in pd.read_csv(SAMPLE, dtype={"I_COMMODITY": str}).itertuples():
        china = np.nan_to_num([r.GEN_VAL_MO_china, r.GEN_QY1_MO_china])
        if not np.isnan(r.GEN_VAL_MO_china):
            rows.append((r.I_COMMODITY, "US", "5700", r.time, *china, "normal"))
        rows.append((r.I_COMMODITY, "US", "REST", r.time, r.GEN_VAL_MO - china[0], r.GEN_QY1_MO - china[1], "normal"))
    gross = {"units": ("KG",), "content": 0.70425}
    codes = [c.model_copy(update=gross) if c.code == "2841800010" else c for c in METHOD.codes if c.system == "HTS10"]
    customs = Customs(system="HTS10", origin="us", title="t", currency="USD", valuation="v", china="5700", since="2023")
    judged = trade.judged(trade.prepared(frame(rows), codes, customs, pd.Series(dtype=float)), RULES)
    return judged, {i.mineral: i for i in trade.indicators(judged, codes, {"us": "HTS10"}, RULES)}


sample = pytest.mark.skipif(
    not SAMPLE.is_file(), reason="needs ../shared/data/trade/us_census_hts10_monthly_excerpt.csv"
)


@sample
def test_the_cells_of_the_sample_that_cannot_be_believed_are_these_six(real):
    judged, _ = real
    doubted = judged[judged["rule"].str.startswith("implausible")]
    assert sorted(zip(doubted["mineral"], doubted["leg"], doubted["period"], strict=True)) == [
        ("antimony", "CN", "2025-03"), ("antimony", "CN", "2025-08"), ("gallium", "CN", "2023-07"),
        ("tungsten", "XCN", "2023-03"), ("tungsten", "XCN", "2026-01"), ("tungsten", "XCN", "2026-06"),
    ]  # fmt: skip


@sample
@pytest.mark.parametrize(
    ("mineral", "leg", "counts"),
    [
        ("antimony", "CN", {"": 5, "excluded": 10, "minimum": 6, "no-trade": 2, "too-few": 4}),
        ("antimony", "XCN", {"": 25, "too-few": 2}),
        ("gallium", "CN", {"": 3, "excluded": 22, "minimum": 4, "no-trade": 5, "too-few": 9}),
        ("gallium", "XCN", {"": 39, "dispersed": 2, "too-few": 2}),
        ("tungsten", "CN", {"no-trade": 43}),
        ("tungsten", "XCN", {"": 30, "excluded": 3, "minimum": 1, "too-few": 9}),
    ],
)
def test_months_of_the_sample_published_and_withheld_by_rule(real, mineral, leg, counts):
    assert real[1][mineral].frames[leg]["rule"].value_counts().sort_index().to_dict() == counts


@sample
def test_impossible_tungstate_does_not_get_through_and_the_antimony_rise_does(real):
    tungsten, antimony = (real[1][m].frames["XCN"]["value"].dropna() / 1000 for m in ("tungsten", "antimony"))
    assert not {"2023-03", "2023-04", "2026-01", "2026-06"} & set(tungsten.index)
    assert 35 < tungsten[:"2025-12"].min() < tungsten[:"2025-12"].max() < 60  # per contained kilogram
    assert tungsten["2026-05"] == pytest.approx(75.4 / 0.70425, rel=0.01)
    raw = pd.read_csv(SAMPLE, dtype={"I_COMMODITY": str}).set_index("time")
    raw = raw[raw["I_COMMODITY"] == "8110100000"][["GEN_VAL_MO", "GEN_QY1_MO"]]
    china = real[0][(real[0]["mineral"] == "antimony") & (real[0]["leg"] == "CN")].set_index("period")[["value", "kg"]]
    rest = raw.sub(china.set_axis(raw.columns, axis=1), fill_value=0).rolling(3).sum().iloc[2:]
    expected = rest["GEN_VAL_MO"] / rest["GEN_QY1_MO"]
    assert antimony.to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-12)
    assert antimony.iloc[0] < 15 < 50 < antimony.max()


def test_the_columns_that_the_generator_makes_are_those_of_declarations():
    assert tuple(sim.world(1, SMALL).cells["eu"].columns) == COLUMNS


# -------------------------------------------------------------------- what one alone could get published


@pytest.mark.parametrize("factor", [1000.0, 0.001])
def test_the_mistake_of_a_whole_reporter_is_confirmed_by_none_of_its_own_cells(factor):
    """Most of the value and four partners of one country declared in another unit: no other country moved."""
    pairs = [("DE", p) for p in ("BO", "KG", "VN", "TR")] + [("FR", "BO"), ("NL", "VN")]
    cells = flat(pairs=pairs)
    cells.loc[cells["reporter"] == "DE", ["value", "kg"]] *= 20
    wrong = months(18)[15]
    for _, partner in pairs[:4]:
        cells = changed(cells, "DE", partner, [wrong], kg=factor)
    judged, made = figures({"eu": cells}, codes=[code()])
    for _, partner in pairs[:4]:
        assert rules_of(judged, "DE", partner)[wrong].startswith("implausible-mass")
    value = made["eu", "antimony"].frames["XCN"]["value"].dropna()
    assert value.to_numpy() == pytest.approx(np.full(len(value), 10_000.0), rel=1e-9)


def test_a_single_reporter_does_not_confirm_its_own_wrong_unit():
    american = code("8110100000", system="HTS10")
    cells = flat(pairs=[("US", p) for p in ("BO", "KG", "VN", "TR")], product="8110100000")
    wrong = months(18)[15]
    for partner in ("BO", "KG", "VN", "TR"):
        cells = changed(cells, "US", partner, [wrong], kg=1000.0)
    judged, made = figures({"us": cells}, codes=[american])
    assert all(rules_of(judged, "US", p)[wrong].startswith("implausible-mass") for p in ("BO", "KG", "VN", "TR"))
    assert made["us", "antimony"].frames["XCN"].at[wrong, "rule"] == "excluded"


def test_a_tiny_second_partner_does_not_make_a_figure_certain():
    rng = np.random.default_rng(3)
    prices = dict(zip(months(18), 10 * np.exp(rng.normal(0, 0.15, 18)), strict=True))
    big = frame(("81101000", "DE", "BO", m, 50_000 * p, 50_000.0, "normal") for m, p in prices.items())
    tiny = frame([("81101000", "DE", "KG", months(18)[-1], 1.0 * prices[months(18)[-1]], 1.0, "normal")])
    alone = figures({"eu": big}, codes=[code()])[1]["eu", "antimony"].frames["XCN"].iloc[-1]
    beside = figures({"eu": pd.concat([big, tiny])}, codes=[code()])[1]["eu", "antimony"].frames["XCN"].iloc[-1]
    assert beside["value"] == pytest.approx(alone["value"], rel=1e-4)
    assert beside["high"] / beside["low"] > 0.9 * alone["high"] / alone["low"] > 1.05


def test_a_gap_sets_the_same_months_side_by_side():
    rising = {m: 10 * 1.15**i for i, m in enumerate(months(18))}
    elsewhere = [
        ("81101000", r, p, m, 20_000 * price, 20_000.0, "normal")
        for m, price in rising.items()
        for r, p in (("DE", "BO"), ("FR", "KG"), ("NL", "VN"))
    ]
    china = [
        ("81101000", r, "CN", m, 20_000 * price, 20_000.0, "normal")
        for m, price in rising.items()
        for r in ("DE", "FR", "NL", "PL", "ES")
        if m in (*months(18)[:12], months(18)[-1])
    ]
    made = figures({"eu": frame([*elsewhere, *china])}, codes=[code()])[1]["eu", "antimony"]
    assert made.frames["CN"]["rule"].iloc[-1] == "" and made.frames["XCN"]["rule"].iloc[-1] == ""
    assert months(18)[-1] not in made.gap.index  # China's figure rests on one month, the other on three
    assert made.gap.loc[months(18)[11], "gap"] == pytest.approx(0, abs=1e-9)


def test_a_month_that_was_incomplete_enters_no_later_window():
    cells = flat(pairs=[("DE", "BO"), ("DE", "KG"), ("FR", "VN"), ("FR", "TR")])
    cells.loc[cells["reporter"] == "DE", "value"] *= 1.5
    silent = months(18)[-2]
    cells = cells[~((cells["reporter"] == "DE") & (cells["period"] == silent))]
    frame_of = figures({"eu": cells}, codes=[code()])[1]["eu", "antimony"].frames["XCN"]
    assert frame_of.at[silent, "rule"] == "incomplete"
    last = frame_of.iloc[-1]
    assert last["counted"].split() == [months(18)[-3], months(18)[-1]]
    assert last["value"] == pytest.approx(12_500.0)


def test_a_product_of_which_a_code_was_not_read_is_incomplete_and_never_a_part_that_looks_like_the_whole():
    cheap, dear = flat(price=2.0), flat(price=10.0, product="81101001")
    codes = [code(), code("81101001")]
    judged = trade.judged(
        prepared({"eu": pd.concat([cheap, dear[dear["period"] < months(18)[15]]])}, codes=codes), RULES
    )
    everything = frozenset(months(18))
    read = {"eu": {"81101000": everything, "81101001": frozenset(months(18)[:15])}}
    (made,) = trade.indicators(judged, codes, sim.SYSTEMS, RULES, read)
    assert (made.frames["XCN"]["rule"].iloc[-3:] == "incomplete").all()
    assert made.frames["XCN"]["value"].iloc[:15].to_numpy() == pytest.approx(np.full(15, 6_000.0))
    (whole,) = trade.indicators(judged, codes, sim.SYSTEMS, RULES, {"eu": dict.fromkeys(read["eu"], everything)})
    assert (whole.frames["XCN"]["rule"].iloc[-3:] == "").all()  # the office said that there was none


def test_a_month_without_exchange_rates_says_so():
    usd = pd.Series(1.0, index=pd.Index(months(18)[:-1]))
    made = figures({"eu": flat()}, usd=usd, codes=[code()])[1]["eu", "antimony"]
    assert made.frames["XCN"]["rule"].iloc[-1] == "no-rate"
