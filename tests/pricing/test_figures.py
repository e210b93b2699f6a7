import datetime as dt
import math

import numpy as np
import pandas as pd
import pytest
from made_method import METHOD
from pydantic import ValidationError

from pricing import figures
from pricing.config import Market, Methodology, Operation, Source, Tonnage
from pricing.errors import ConfigError
from pricing.figures import MarketPrices
from pricing.reference import Prices, Quotes
from pricing.store import micros

MARKETS = [("copper", "XCN"), ("tin", "XCN"), ("zinc", "XCN"), ("gallium", "CN")]


def key(mineral: str) -> str:
    return f"{mineral}/metal/{dict(MARKETS)[mineral]}"


def method(constituents=("copper", "tin"), basket=None, **parts) -> Methodology:
    listed = [
        {"mineral": m, "stage": "metal", "zone": dict(MARKETS)[m], "production": f"mine-{m}", **parts.get(m, {})}
        for m in constituents
    ]
    rules = {"title": "Metals", "base_period": "2024", "review": 2, "cap": 1.0, "min_weight": 0.5}
    rules["constituents"] = listed
    return Methodology.model_validate(
        {
            **METHOD,
            "markets": [{"mineral": m, "stage": "metal", "zone": z, "per": "product"} for m, z in MARKETS],
            "baskets": {"metals": {**rules, **(basket or {})}},
        }
    )


def months(first: str, last: str) -> list[str]:
    return [str(p) for p in pd.period_range(first, last, freq="M")]


def priced(**columns: dict[str, float]) -> dict[str, MarketPrices]:
    """Monthly prices by market, as if they had been determined."""
    out = {}
    for mineral, values in columns.items():
        frame = pd.DataFrame({"unrounded": pd.Series(values, dtype="float64")})
        market = Market(mineral=mineral, stage="metal", zone=dict(MARKETS)[mineral], per="product")
        out[key(mineral)] = MarketPrices(market, None, None, frame)
    return out


def flat(value: float, first: str = "2023-01", last: str = "2026-06") -> dict[str, float]:
    return dict.fromkeys(months(first, last), value)


def at(day: str, hour: int = 12) -> int:
    return micros(dt.datetime.fromisoformat(day).replace(hour=hour, tzinfo=dt.UTC))


def mined(*rows: tuple) -> pd.DataFrame:
    """Production as stored: (mineral, year, vintage day, value[, status])."""
    full = [(f"mine-{m}", year, at(day), value, *(rest or ("normal",))) for m, year, day, value, *rest in rows]
    return pd.DataFrame(full, columns=["series", "period", "vintage", "value", "status"])


UNITS = {"mine-copper": "t", "mine-tin": "t", "mine-zinc": "t", "mine-gallium": "kg"}


def compiled(production, made=None, rules=None, known_on="2026-07-01"):
    made = made if made is not None else priced(copper=flat(10.0), tin=flat(30.0))
    return figures.baskets(rules or method(), made, figures.Production(production, UNITS), known_on)["metals"]


# ------------------------------------------------------------------------------------------- links


def test_a_link_uses_only_weights_that_were_known_before_the_end_of_its_month():
    production = mined(
        ("copper", "2022", "2023-01-31", 900.0),
        ("tin", "2022", "2023-01-31", 100.0),
        ("copper", "2023", "2024-01-31", 300.0),  # known at the link of March 2024
        ("tin", "2023", "2024-01-31", 100.0),
        ("tin", "2023", "2024-04-01", 300.0),  # revised after it: for March 2025
        ("copper", "2024", "2025-01-31", 100.0),
    )
    made = compiled(production)
    used = {month: {w.market: (w.tonnes, w.production_period) for w in ws} for month, ws in made.weights.items()}
    assert used == {
        "2024-03": {key("copper"): (300.0, "2023"), key("tin"): (100.0, "2023")},
        "2025-03": {key("copper"): (100.0, "2024"), key("tin"): (300.0, "2023")},
        "2026-03": {key("copper"): (100.0, "2024"), key("tin"): (300.0, "2023")},
    }
    shares = [link.shares for link in made.indices["monthly"].links]
    assert shares[0] == {key("copper"): 0.5, key("tin"): 0.5}  # 300 t at 10 and 100 t at 30
    assert shares[1] == pytest.approx({key("copper"): 0.1, key("tin"): 0.9})


@pytest.mark.parametrize(("day", "hour", "tonnes"), [("2025-03-31", 23, 7.0), ("2025-04-01", 0, 1.0)])
def test_the_end_of_march_is_the_last_instant(day, hour, tonnes):
    revised = mined(("copper", "2024", day, 7.0)).assign(vintage=at(day, hour))
    first = mined(("copper", "2024", "2025-02-01", 1.0), ("tin", "2024", "2025-02-01", 1.0))
    made = compiled(pd.concat([first, revised]))
    assert {w.market: w.tonnes for w in made.weights["2025-03"]}[key("copper")] == tonnes
    assert {w.market: w.tonnes for w in made.weights["2026-03"]}[key("copper")] == 7.0


def test_the_first_link_keeps_the_weights_that_it_learnt_late():
    """What a first release of summer 2025 was made on stands, though better weights come before March 2026."""
    late = [("copper", "2024", "2025-06-15", 3.0), ("tin", "2024", "2025-06-15", 1.0)]
    before = compiled(mined(*late), known_on="2025-07-01")
    after = compiled(mined(*late, ("copper", "2024", "2026-02-01", 9.0)))
    assert [link.month for link in after.indices["monthly"].links] == ["2025-03", "2026-03"]
    assert after.weights["2025-03"] == before.weights["2025-03"]
    assert {w.market: w.tonnes for w in after.weights["2026-03"]}[key("copper")] == 9.0


def test_when_the_first_weights_come_after_the_last_link_all_before_it_is_a_back_cast():
    made = compiled(mined(("copper", "2024", "2026-06-15", 3.0), ("tin", "2024", "2026-06-15", 1.0)))
    (link,) = made.indices["monthly"].links
    assert link.month == "2026-03"
    frame = made.indices["monthly"].frame
    assert (frame["status"] == np.where(frame.index <= "2026-03", "back-cast", "normal")).all()


def test_weights_are_tonnes_of_the_year_before_at_its_mean_price():
    copper = flat(10.0) | dict.fromkeys(months("2025-01", "2025-06"), 20.0)
    copper |= dict.fromkeys(months("2026-01", "2026-06"), 999.0)
    production = mined(("copper", "2024", "2025-12-01", 4.0), ("gallium", "2025", "2026-02-01", 5_000.0))
    rules = method(("copper", "gallium"), gallium={"share": 0.4})
    made = compiled(production, priced(copper=copper, gallium=flat(6.0)), rules)
    got = {w.market: w for w in made.weights["2026-03"]}
    assert got[key("copper")].price == 15.0 and got[key("copper")].price_year == "2025"
    assert got[key("copper")].tonnes == 4.0 and got[key("copper")].production_period == "2024"
    assert got[key("gallium")].tonnes == pytest.approx(5.0 * 0.4)  # 5000 kg, two fifths of which this market is
    link = made.indices["monthly"].links[-1]
    assert link.shares == pytest.approx({key("copper"): 60 / 72, key("gallium"): 12 / 72})


def test_a_production_figure_counts_as_it_was_last_known_and_not_once_withdrawn():
    production = mined(
        ("copper", "2023", "2024-01-31", 300.0),
        ("copper", "2023", "2025-01-31", 200.0),
        ("copper", "2023", "2026-01-31", math.nan, "withdrawn"),
        ("copper", "2022", "2024-01-31", 50.0),
        ("tin", "2023", "2024-01-31", 100.0),
    )
    got = {month: next(w for w in ws if "copper" in w.market) for month, ws in compiled(production).weights.items()}
    assert [(m, w.production_period, w.tonnes) for m, w in got.items()] == [
        ("2024-03", "2023", 300.0),
        ("2025-03", "2023", 200.0),
        ("2026-03", "2022", 50.0),
    ]
    assert [w.production_vintage for w in got.values()] == [at("2024-01-31"), at("2025-01-31"), at("2024-01-31")]


def test_production_of_the_link_year_itself_is_not_used():
    made = compiled(mined(("copper", "2026", "2026-01-31", 9.0), ("tin", "2026", "2026-01-31", 9.0)))
    assert not made.indices and "no weights" in made.withheld


@pytest.mark.parametrize(("known", "weighed"), [(5, False), (6, True)])
def test_a_market_needs_half_a_year_of_prices_to_weigh(known, weighed):
    tin = dict(list(flat(30.0, "2025-01", "2025-12").items())[-known:]) | flat(30.0, "2026-01", "2026-06")
    production = mined(("copper", "2024", "2025-02-01", 1.0), ("tin", "2024", "2025-02-01", 1.0))
    made = compiled(production, priced(copper=flat(10.0), tin=tin))
    assert (key("tin") in {w.market for w in made.weights["2026-03"]}) is weighed


def test_caps_hold_and_the_uncapped_shares_are_kept():
    production = mined(*((m, "2023", "2024-01-31", t) for m, t in (("copper", 97.0), ("tin", 1.0), ("zinc", 2.0))))
    rules = method(("copper", "tin", "zinc"), {"cap": 0.5})
    made = compiled(production, priced(copper=flat(1.0), tin=flat(1.0), zinc=flat(1.0)), rules)
    link = made.indices["monthly"].links[0]
    assert link.shares == pytest.approx({key("copper"): 0.5, key("zinc"): 1 / 3, key("tin"): 1 / 6})
    assert link.uncapped == pytest.approx({key("copper"): 0.97, key("zinc"): 0.02, key("tin"): 0.01})


# ---------------------------------------------------------------------------------- cited tonnages


def cited(period: str, tonnes: float, published: str, name: str = "survey-tin") -> dict:
    return {"id": name, "mineral": "tin", "element": "Sn", "period": period, "tonnes": tonnes} | {
        "source": "A survey, table 3", "published": published
    }  # fmt: skip


def weighed(*given: dict, until: str = "2026-07-01") -> dict[str, tuple[float, str, int]]:
    """What tin weighs at each link, whose output is cited."""
    production = mined(("copper", "2023", "2024-01-31", 300.0))
    tonnages = [Tonnage.model_validate(one) for one in given]
    made = figures.baskets(
        method(tin={"production": "survey-tin"}),
        priced(copper=flat(10.0), tin=flat(30.0)),
        figures.Production(production, UNITS, tonnages, at(until)),
        until,
    )["metals"]
    return {
        month: (w.tonnes, w.production_period, w.production_vintage)
        for month, ws in made.weights.items()
        for w in ws
        if w.market == key("tin")
    }


def test_a_cited_tonnage_weighs_as_a_collected_one_from_the_end_of_its_day():
    last_instant = micros(dt.datetime(2025, 3, 31, 23, 59, 59, 999999, tzinfo=dt.UTC))
    given = [cited("2023", 100.0, "2024-02-01"), cited("2023", 110.0, "2025-04-01"), cited("2024", 120.0, "2025-03-31")]
    assert weighed(*given) == {
        "2024-03": (100.0, "2023", figures.end_of_day(dt.date(2024, 2, 1))),
        "2025-03": (120.0, "2024", last_instant),
        "2026-03": (120.0, "2024", last_instant),
    }
    a_day_later = weighed(given[0], cited("2024", 120.0, "2025-04-01"))
    assert [tonnes for tonnes, _, _ in a_day_later.values()] == [100.0, 100.0, 120.0]


def test_a_tonnage_published_after_the_release_is_not_known_to_it():
    late = cited("2023", 500.0, "2026-06-30")
    early = cited("2023", 100.0, "2024-02-01")
    assert weighed(early, late, until="2026-06-30") == weighed(early, until="2026-06-30")
    known = figures.Production(mined(), UNITS, [Tonnage.model_validate(late)], figures.end_of_day(dt.date(2026, 6, 30)))
    assert known.latest("survey-tin") == ("2023", 500.0, figures.end_of_day(dt.date(2026, 6, 30)))


# ------------------------------------------------------------------------- joining and ceasing


def three(**lives) -> Methodology:
    return method(("copper", "tin", "zinc"), **lives)


def paths() -> dict[str, MarketPrices]:
    rng = np.random.default_rng(7)
    spans = months("2023-01", "2026-06")
    moves = {m: rng.normal(0, 0.05, len(spans)) for m in ("copper", "tin", "zinc")}
    return priced(**{m: dict(zip(spans, np.exp(np.cumsum(by)), strict=True)) for m, by in moves.items()})


OUTPUT = mined(*((m, "2023", "2024-01-31", 100.0) for m in ("copper", "tin", "zinc")))


def test_a_constituent_joins_at_one_link_month_and_another_ceases_at_the_next():
    made = compiled(OUTPUT, paths(), three(zinc={"from": "2025-03"}, copper={"until": "2026-03"}))
    members = {link.month: set(link.shares) for link in made.indices["monthly"].links}
    assert members == {
        "2024-03": {key("copper"), key("tin")},
        "2025-03": {key("copper"), key("tin"), key("zinc")},
        "2026-03": {key("tin"), key("zinc")},
    }
    weights = made.indices["monthly"].weights.gt(0)
    assert weights.index[weights[key("zinc")]].min() == "2025-04"
    assert weights.index[weights[key("copper")]].max() == "2026-03"


def test_until_it_joins_a_constituent_changes_no_value_and_once_it_has_ceased_neither():
    plain, joined = (compiled(OUTPUT, paths(), rules) for rules in (method(), three(zinc={"from": "2025-03"})))
    values = [made.indices["monthly"].frame["unrounded"] for made in (plain, joined)]
    assert (values[0][:"2025-03"] == values[1][:"2025-03"]).all()
    assert (values[0]["2025-04":] != values[1]["2025-04":]).all()
    left = compiled(OUTPUT, paths(), three(zinc={"until": "2025-03"})).indices["monthly"].frame["unrounded"]
    after = [v["2025-03":] / v["2025-03"] for v in (values[0], left)]
    assert np.allclose(*after, rtol=1e-13, atol=0)


def test_joining_and_ceasing_at_unchanged_prices_move_neither_index_nor_drift():
    """Flat from March 2025 on, with different pasts."""
    made = paths()
    for market in made.values():
        market.months.loc["2025-03":, "unrounded"] = market.months.loc["2025-03", "unrounded"]
    lives = {"zinc": {"from": "2025-03"}, "copper": {"until": "2026-03"}}
    got = compiled(OUTPUT, made, three(**lives))
    values = got.indices["monthly"].frame["unrounded"]["2025-03":]
    assert len(values) == 16 and np.allclose(values, values.iloc[0], rtol=1e-13, atol=0)
    for twin in (got.twins.unweighted, got.twins.equal_risk):
        assert np.allclose(twin.frame["unrounded"]["2025-03":], twin.frame["unrounded"]["2025-03"], rtol=1e-13, atol=0)


def test_coverage_counts_the_basket_in_force_and_not_what_ceased_or_will_join():
    made = priced(copper=flat(10.0), tin=flat(30.0))  # zinc has no price at all
    for life, on, listed in (
        ({"from": "2026-03"}, "2026-03-31", 2),
        ({"from": "2026-03"}, "2026-04-01", 3),
        ({"until": "2026-03"}, "2026-03-31", 3),
        ({"until": "2026-03"}, "2026-04-01", 2),
    ):
        got = compiled(OUTPUT, made, three(zinc=life), known_on=on).coverage
        assert (got["listed"], got["priced"], got["zones"]["XCN"]["listed"]) == (listed, 2, listed)


@pytest.mark.parametrize(
    ("lives", "basket", "message"),
    [
        ({"zinc": {"from": "2025-04"}}, {}, "zinc/metal/XCN: from 2025-04 is not a link month \\(month 3\\)"),
        ({"zinc": {"until": "2025-02"}}, {}, "zinc/metal/XCN: until 2025-02 is not a link month"),
        ({"zinc": {"from": "2025-03"}}, {"link_month": 4}, "from 2025-03 is not a link month \\(month 4\\)"),
        ({"zinc": {"from": "2025-03", "until": "2025-03"}}, {}, "until 2025-03 is not after from 2025-03"),
        ({"zinc": {"from": "2025"}}, {}, "zinc|from"),
        ({"zinc": {"from": "2025-03"}}, {"cap": 0.4}, "cap 0.4 is below 1/2: no weights can satisfy it"),
        ({"zinc": {"until": "2025-03"}}, {"cap": 0.4}, "cap 0.4 is below 1/2 from 2025-03: no weights"),
        ({m: {"until": "2025-03"} for m in ("copper", "tin", "zinc")}, {}, "there is no constituent from 2025-03"),
        ({m: {"from": "2025-03"} for m in ("copper", "tin", "zinc")}, {}, "there is no constituent at first"),
        ({}, {"review": 13}, "review"),
    ],
)
def test_a_life_that_does_not_begin_and_end_at_links_is_refused(lives, basket, message):
    with pytest.raises(ValidationError, match=message):
        method(("copper", "tin", "zinc"), basket, **lives)


# ---------------------------------------------------------------------------------------- coverage


def test_coverage_says_which_markets_and_what_weight_have_an_own_price():
    production = mined(
        ("copper", "2023", "2024-01-31", 300.0),
        ("copper", "2024", "2025-01-31", 400.0),
        ("tin", "2023", "2024-01-31", 100.0),
        ("gallium", "2023", "2024-01-31", 2_000_000.0),
    )
    rules = method(("copper", "tin", "zinc", "gallium"), gallium={"value_price": 500.0})
    got = compiled(production, priced(copper=flat(10.0), tin=flat(30.0), zinc=flat(5.0)), rules).coverage
    value = {"copper": 400 * 10, "tin": 100 * 30, "gallium": 2000 * 500}
    assert got["weight"] == pytest.approx((value["copper"] + value["tin"]) / sum(value.values()), rel=1e-14)
    assert (got["listed"], got["priced"], got["markets"], got["weighed"]) == (4, 3, 0.75, 3)
    assert got["missing"] == [key("gallium")] and got["unweighed"] == [key("zinc")]
    assert got["zones"] == {"CN": {"listed": 1, "priced": 0}, "XCN": {"listed": 3, "priced": 3}}


def test_a_price_older_than_a_year_does_not_cover():
    production = mined(("copper", "2023", "2024-01-31", 1.0), ("tin", "2023", "2024-01-31", 1.0))
    got = compiled(production, priced(copper=flat(10.0), tin=flat(30.0, "2023-01", "2025-06")))
    assert got.coverage["missing"] == [key("tin")] and got.coverage["priced"] == 1


def test_below_its_coverage_an_index_does_not_bear_its_name():
    production = mined(("copper", "2023", "2024-01-31", 1.0), ("gallium", "2023", "2024-01-31", 1e9))
    rules = method(("copper", "gallium"), {"min_coverage": 0.6}, gallium={"value_price": 500.0})
    made = compiled(production, priced(copper=flat(10.0)), rules)
    assert made.indices == {} and made.weights == {}
    told = "own prices cover 50% of the listed markets and 0% of the weight; this name needs 60% of both"
    assert made.withheld == told


def test_one_heavy_market_does_not_lend_its_name_to_all():
    production = mined(("copper", "2023", "2024-01-31", 1e9), ("gallium", "2023", "2024-01-31", 1.0))
    rules = method(("copper", "gallium"), {"min_coverage": 0.6}, gallium={"value_price": 500.0})
    made = compiled(production, priced(copper=flat(10.0)), rules)
    assert made.coverage["weight"] > 0.99 and made.indices == {}


def test_without_any_price_or_weight_the_reason_is_told():
    assert compiled(mined(), {}).withheld == "no constituent has a price"
    made = compiled(mined())
    assert not made.indices and made.withheld and made.coverage["weight"] is None


# ------------------------------------------------------------------------------------------ rights


def source(name: str, rights, *series: dict, **facts) -> Source:
    given = {"title": name, "publisher": name, "terms": "t", "terms_read": "2026-11-23", "licence": "l"}
    defaults = {"mineral": "tin", "stage": "metal", "zone": "XCN", "unit": "USD/t", "frequency": "monthly"}
    listed = [{"id": f"{name}-tin", "origin": name, **defaults, **one} for one in series or ({},)]
    return Source.model_validate({**given, "attribution": name, "rights": rights, "series": listed, **facts})


def operation() -> Operation:
    derived = {"publish_derived": True}
    return Operation(
        sources={
            "free": source("free", "open"),
            "inside": source("inside", "internal"),
            "derived": source("derived", derived),
            "shut": source("shut", {"compute": False, "publish_derived": True}),
            "doubtful": source("doubtful", "open", {"quarantined": "its unit is doubtful"}),
        }
    )


def test_internal_and_quarantined_series_never_enter_a_public_figure():
    public, internal = figures.eligible(operation(), "public"), figures.eligible(operation(), "internal")
    assert set(public.series) == {"free-tin", "derived-tin"} and public.closed == {"derived-tin"}
    assert set(internal.series) == {"free-tin", "derived-tin", "inside-tin"} and internal.closed == set()


def monthly_rows(**levels: float) -> pd.DataFrame:
    rows = [(f"{name}-tin", m, v, "normal") for name, v in levels.items() for m in months("2025-01", "2025-12")]
    return pd.DataFrame(rows, columns=["series", "period", "value", "status"])


def determined(audience, observed):
    rules = method()
    quoted, _ = figures.all_quotes(rules, figures.eligible(operation(), audience), observed)
    bases = figures.bases_due(quoted, rules, [], "2026-01-02")
    return figures.prices(quoted, rules, bases, "2026-01-02")


def test_the_value_of_an_internal_source_changes_no_public_price():
    public = [
        determined("public", monthly_rows(free=100.0, inside=v, doubtful=v, shut=v))[key("tin")].months
        for v in (101.0, 999.0)
    ]
    pd.testing.assert_frame_equal(*public)
    assert (public[0]["unrounded"] == 100.0).all() and (public[0]["type"] == "official").all()
    audited = determined("internal", monthly_rows(free=100.0, inside=110.0))[key("tin")]
    assert (audited.months["origins"] == 2).all()


def test_a_closed_value_alone_is_withheld_from_the_public_and_shown_to_an_auditor():
    observed = monthly_rows(derived=100.0)
    assert (determined("public", observed)[key("tin")].months["status"] == "confidential").all()
    assert (determined("internal", observed)[key("tin")].months["unrounded"] == 100.0).all()


# ------------------------------------------------------------------------- quotations into prices


RATES = source(
    "ecb",
    "open",
    {"id": "usd", "kind": "fx", "currency_of": "USD", "frequency": "daily", "mineral": None, "unit": "USD/EUR"},
)


def test_quotations_are_brought_to_the_unit_of_the_market_with_dated_rates():
    kg = source("kilo", "open", {"unit": "EUR/kg"})
    made = Operation(sources={"kilo": kg, "ecb": RATES})
    rates = [("usd", str(d.date()), 1.25, "normal") for d in pd.bdate_range("2025-01-01", "2025-01-31")]
    observed = pd.DataFrame([*rates, ("kilo-tin", "2025-01", 30.0, "normal")], columns=monthly_rows().columns)
    quoted, left_out = figures.all_quotes(method(), figures.eligible(made, "public"), observed)
    assert list(quoted) == [(key("tin"), "monthly")] and left_out == {}
    got = quoted[key("tin"), "monthly"]
    assert got.usd_per_t.loc["2025-01", "kilo-tin"] == pytest.approx(30 * 1000 * 1.25)
    assert got.value.loc["2025-01", "kilo-tin"] == 30.0 and got.fx.loc["2025-01", "kilo-tin"] == 1.25


def test_without_a_rate_near_its_day_a_quotation_has_no_price():
    made = Operation(sources={"kilo": source("kilo", "open", {"unit": "EUR/kg"}), "ecb": RATES})
    public = figures.eligible(made, "public")
    rows = [("usd", "2024-06-03", 1.25, "normal"), ("kilo-tin", "2025-01", 30.0, "normal")]
    observed = pd.DataFrame(rows, columns=monthly_rows().columns)
    quoted, _ = figures.all_quotes(method(), public, observed)
    assert quoted[key("tin"), "monthly"].usd_per_t.isna().all().all()
    assert quoted[key("tin"), "monthly"].value.loc["2025-01", "kilo-tin"] == 30.0
    none, left_out = figures.all_quotes(method(), public, observed[1:])
    assert none == {} and "USD" in left_out["kilo-tin"]


@pytest.mark.parametrize("same_origin", [True, False])
def test_a_month_is_the_mean_of_the_days_of_its_origin_and_else_the_monthly_quotation(same_origin):
    """Days of another origin must not displace a month that its own origin has quoted whole."""
    free = source("free", "open")
    origin = free.series[0].origin if same_origin else "exchange"
    days = source("exchange", "open", {"frequency": "daily", "origin": origin})
    made = Operation(sources={"free": free, "exchange": days})
    rows = [("exchange-tin", str(d.date()), 50.0, "normal") for d in pd.bdate_range("2025-02-01", "2025-02-28")]
    observed = pd.concat([monthly_rows(free=100.0), pd.DataFrame(rows, columns=monthly_rows().columns)])
    quoted, _ = figures.all_quotes(method(), figures.eligible(made, "public"), observed)
    got = figures.prices(quoted, method(), [], "2026-01-02")[key("tin")]
    second = (50.0, "mean-of-days") if same_origin else (100.0, "official")
    assert got.months["unrounded"].tolist() == [100.0, second[0]] + [100.0] * 10
    assert got.months["type"].tolist() == ["official", second[1]] + ["official"] * 10
    assert len(got.frame("daily")) == 20 and got.frame("monthly") is got.months


def test_a_series_that_cannot_be_converted_is_left_out_with_its_reason_and_keeps_no_other_out():
    sources = {"barrel": source("barrel", "open", {"unit": "USD/barrel"}), "free": source("free", "open")}
    public = figures.eligible(Operation(sources=sources), "public")
    quoted, left_out = figures.all_quotes(method(), public, monthly_rows(barrel=1.0, free=100.0))
    assert [s.id for s in quoted[key("tin"), "monthly"].series] == ["free-tin"]
    assert list(left_out) == ["barrel-tin"] and "barrel" in left_out["barrel-tin"]


def test_units_that_lead_nowhere_are_told_at_start_all_at_once():
    made = Operation(
        sources={
            "one": source("one", "open", {"unit": "USD/barrel"}),
            "two": source("two", "open", {"id": "mine", "kind": "production", "unit": "lb", "mineral": None}),
            "three": source("three", "open", {"unit": "USD/barrel", "quarantined": "doubtful"}),
        }
    )
    with pytest.raises(ConfigError, match="series one-tin") as caught:
        figures.check_units(made, method())
    assert "series mine: production is counted in t, kg, kt, Mt; got 'lb'" in str(caught.value)
    assert "three" not in str(caught.value)


# ----------------------------------------------------------------------------------- daily indices


def with_days(made: dict[str, MarketPrices], mineral: str, days: pd.Series) -> None:
    """Give a market daily prices too."""
    empty = np.empty((len(days), 0))
    frame = pd.DataFrame({"unrounded": days})
    blank = pd.DataFrame(index=days.index)
    quotes = Quotes(made[key(mineral)].market, "daily", (), blank, blank, blank, blank, blank, blank)
    daily = Prices(quotes, frame, (), empty.astype(int), empty.astype(int), empty, empty, empty, empty.astype(object))
    made[key(mineral)] = MarketPrices(made[key(mineral)].market, daily, None, made[key(mineral)].months)


def test_a_daily_index_is_compiled_where_days_reach_every_link_and_the_base():
    production = mined(("copper", "2023", "2024-01-31", 300.0), ("tin", "2023", "2024-01-31", 100.0))
    made = priced(copper=flat(10.0), tin=flat(30.0))
    days = [str(d.date()) for d in pd.bdate_range("2024-01-01", "2026-06-30")]
    for mineral, level in (("copper", 10.0), ("tin", 30.0)):
        with_days(made, mineral, pd.Series(level, index=days))
    got = compiled(production, made).indices
    assert set(got) == {"monthly", "daily"}
    assert np.allclose(got["daily"].frame["unrounded"], 100.0, rtol=1e-13)
    late = priced(copper=flat(10.0), tin=flat(30.0))
    with_days(late, "copper", pd.Series(10.0, index=[d for d in days if d > "2024-04"]))
    assert set(compiled(production, late).indices) == {"monthly"}


def test_ten_day_prices_stand_by_themselves_and_make_the_month_with_its_last_period():
    made = Operation(sources={"bureau": source("bureau", "open", {"frequency": "ten-day"})})
    ends = {"2025-01-10": 90.0, "2025-01-20": 100.0, "2025-01-31": 110.0, "2025-02-10": 90.0, "2025-02-20": 100.0}
    ends |= {"2025-03-20": 100.0, "2025-03-31": 120.0}
    rows = [("bureau-tin", period, value, "normal") for period, value in ends.items()]
    observed = pd.DataFrame(rows, columns=monthly_rows().columns)
    quoted, _ = figures.all_quotes(method(), figures.eligible(made, "public"), observed)
    got = figures.prices(quoted, method(), [], "2026-01-02")[key("tin")]
    assert got.frame("ten-day")["unrounded"].tolist() == list(ends.values()) and got.frame("daily").empty
    assert got.months["unrounded"].to_dict() == {"2025-01": 100.0, "2025-03": 110.0}  # February ends open
    assert (got.months["type"] == "mean-of-ten-days").all()


def test_a_young_basket_without_a_march_is_withheld_with_its_reason():
    production = mined(("copper", "2024", "2025-12-01", 1.0), ("tin", "2024", "2025-12-01", 1.0))
    young = {"first": "2025-04", "last": "2026-02"}
    made = compiled(production, priced(copper=flat(10.0, **young), tin=flat(30.0, **young)), known_on="2026-03-01")
    assert not made.indices and "no weights" in made.withheld


def test_a_first_link_takes_what_came_in_one_month_together():
    """Files of one edition are learnt one after the other: the link must not stop between them."""
    late = [("copper", "2024", "2025-06-15", 3.0), ("tin", "2024", "2025-06-16", 1.0)]
    made = compiled(mined(*late))
    assert {w.market for w in made.weights["2025-03"]} == {key("copper"), key("tin")}


def test_the_first_link_stays_when_the_prices_of_the_next_march_come():
    production = mined(("copper", "2024", "2026-04-05", 3.0), ("tin", "2024", "2026-04-05", 1.0))
    before = compiled(production, priced(copper=flat(10.0, last="2026-02"), tin=flat(30.0, last="2026-02")))
    after = compiled(production, priced(copper=flat(10.0, last="2026-03"), tin=flat(30.0, last="2026-03")))
    first = [link.month for link in after.indices["monthly"].links][0]
    assert not before.indices or before.indices["monthly"].links[0].month == first == "2026-03"
