"""What stands in for a price that nobody quoted: reachable, limited, barred by a trade control, never observed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_reference import METHOD, RULES, house, quoted

from pricing.config import Control, Market
from pricing.errors import ConfigError
from pricing.fallback import barred, from_linked, market_periods, with_silent_periods
from pricing.reference import determine

DAYS = [d.strftime("%Y-%m-%d") for d in pd.bdate_range("2025-01-06", periods=80)]
SILENT = slice(60, 63)
RATIO = 1.07
LEAST = METHOD.basis.min_common["daily"]


def beside() -> pd.Series:
    """The linked market: a path that no test depends on."""
    rng = np.random.default_rng(7)
    return pd.Series(30_000 * np.exp(np.cumsum(rng.normal(0, 0.02, len(DAYS)))), index=DAYS)


def made(own: pd.Series, status=None, **rules):
    table = pd.DataFrame({"a": own})
    return determine(quoted(table, [house("a")], status), [], RULES.model_copy(update=rules))


def linked(own: pd.Series, other=None, status=None, controls=(), **parts):
    other = made(beside() if other is None else other)
    rules = METHOD.fallback.model_copy(update=parts)
    method = METHOD.model_copy(update={"fallback": rules, "controls": tuple(controls)})
    return from_linked(made(own, status), other.frame, method).frame


def own_prices(noise: float = 0.0) -> pd.Series:
    out = beside() * RATIO * np.exp(np.random.default_rng(3).normal(0, noise, len(DAYS)))
    out.iloc[SILENT] = np.nan
    return out


def control(since: str, until: str | None = None, mineral: str = "tin") -> Control:
    return Control.model_validate(
        {"mineral": mineral, "zone": "CN", "since": since, "until": until, "measure": "licences", "source": "a notice"}
    )


def test_a_silent_day_is_the_linked_price_at_the_median_ratio_of_the_window_before():
    own = own_prices(noise=0.01)
    frame = linked(own)
    filled = frame.iloc[SILENT]
    for t, (day, row) in zip(range(60, 63), filled.iterrows(), strict=True):
        before = [own.iloc[i] / beside().iloc[i] for i in range(t - 60, t) if not np.isnan(own.iloc[i])]
        assert row["unrounded"] == pytest.approx(float(np.median(before)) * beside()[day], rel=1e-3)
        assert (row["status"], row["type"], row["grade"]) == ("estimated", "spread", "C")
        assert row["linked_common"] == len(before) and row["linked_price"] == beside()[day]
        assert row["interval_low"] < row["unrounded"] < row["interval_high"]
        assert np.isnan(row["carried"]), "an estimate stands where a carried price would have"
    assert filled["interval_high"].div(filled["interval_low"]).is_monotonic_increasing
    others = frame.drop(index=filled.index)
    assert (others["type"] != "spread").all() and others["linked_price"].isna().all()


def test_an_exact_ratio_is_found_exactly():
    filled = linked(own_prices()).iloc[SILENT]
    assert filled["unrounded"].to_numpy() == pytest.approx((beside() * RATIO).iloc[SILENT].to_numpy(), rel=1e-12)


def test_no_more_periods_in_a_row_than_the_limit():
    own = own_prices()
    own.iloc[60:78] = np.nan
    frame = linked(own, limit={"daily": 4, "ten-day": 1, "monthly": 1})
    assert (frame["type"] == "spread").tolist() == [60 <= i < 64 for i in range(80)]
    assert frame["unrounded"].iloc[64:78].isna().all()


def test_a_hole_in_the_linked_market_does_not_begin_the_limit_anew():
    own, other = own_prices(), beside()
    own.iloc[60:78], other.iloc[62] = np.nan, np.nan
    frame = linked(own, other, limit={"daily": 4, "ten-day": 1, "monthly": 1})
    assert np.flatnonzero(frame["type"] == "spread").tolist() == [60, 61, 63]


def test_a_control_within_ten_days_bars_them():
    market = Market(mineral="tin", stage="metal", zone="XCN", per="product")
    periods = ["2025-01-10", "2025-01-20", "2025-01-31"]
    assert barred(market, periods, [control("2025-01-12", "2025-01-19")], ten_day=True).tolist() == [False, True, False]
    assert barred(market, periods, [control("2025-01-21", "2025-01-22")], ten_day=True).tolist() == [False, False, True]


def test_too_few_common_periods_give_no_ratio():
    assert (linked(own_prices(), window={"daily": LEAST - 1, "ten-day": 1, "monthly": 1})["type"] != "spread").all()
    assert (linked(own_prices(), window={"daily": LEAST, "ten-day": 1, "monthly": 1})["type"] == "spread").sum() == 1


@pytest.mark.parametrize("status", ["voided", "suspended", "limit"])
def test_where_the_market_said_that_there_is_no_price_nothing_stands_in(status):
    own = own_prices()
    own.iloc[SILENT] = 31_000.0
    frame = linked(own, status={(day, "a"): status for day in DAYS[SILENT]})
    assert (frame["status"].iloc[SILENT] == "suspended").all() and frame["unrounded"].iloc[SILENT].isna().all()


def test_a_linked_price_that_is_itself_an_estimate_or_missing_is_none():
    other = beside()
    other.iloc[60] = np.nan
    assert (linked(own_prices(), other)["type"] == "spread").tolist() == [i in (61, 62) for i in range(80)]
    estimated = made(beside()).frame
    estimated.loc[DAYS[60], "type"] = "spread"
    frame = from_linked(made(own_prices()), estimated, METHOD).frame
    assert frame["type"].iloc[60] != "spread" and frame["type"].iloc[61] == "spread"


@pytest.mark.parametrize(
    ("open_", "filled"),
    [
        (control(DAYS[61]), [60]),
        (control("2020-01-01"), []),
        (control(DAYS[60], DAYS[61]), [62]),
        (control("2020-01-01", DAYS[30]), [60, 61, 62]),
        (control("2020-01-01", DAYS[60 - LEAST]), []),  # the days since it closed are too few to tell the ratio
        (control("2020-01-01", mineral="cobalt"), [60, 61, 62]),
    ],
)
def test_a_trade_control_bars_the_link_while_it_is_open(open_, filled):
    frame = linked(own_prices(), controls=[open_])
    assert np.flatnonzero(frame["type"] == "spread").tolist() == filled


def test_a_control_covers_the_whole_month_of_which_it_covers_a_day():
    market = Market(mineral="tin", stage="metal", zone="XCN", per="product")
    months = ["2025-01", "2025-02", "2025-03", "2025-04"]
    assert barred(market, months, [control("2025-02-28", "2025-03-01")]).tolist() == [False, True, True, False]
    assert barred(market, [], [control("2025-02-28")]).tolist() == []


def test_what_was_observed_is_never_touched():
    own = own_prices()
    before = made(own).frame
    frame = linked(own)[before.columns]
    kept = frame["type"] != "spread"
    pd.testing.assert_frame_equal(frame[kept], before[kept], check_dtype=False)


# ------------------------------------------------------------------------------------ calendar


def table(*days: str) -> pd.DataFrame:
    return pd.DataFrame({"s": 1.0}, index=pd.Index(sorted(days), dtype=object))


def test_the_calendar_of_a_zone_is_what_most_of_its_living_markets_quoted():
    first, second, third = table("01", "02", "04", "05"), table("01", "02", "04"), table("01", "03", "05", "06")
    # on the 4th two of three; on the 3rd one of three; on the 5th the second is over; on the 6th the first too
    assert market_periods([first, second, third]).tolist() == ["01", "02", "04", "05", "06"]
    assert market_periods([]).empty and market_periods([first.where(first > 1)]).empty


def test_a_period_in_which_nobody_spoke_has_a_record_that_says_so():
    rows = pd.DataFrame({"a": [9000.0, 9100.0]}, index=["2025-01-06", "2025-01-10"])
    calendar = pd.Index(["2025-01-03", "2025-01-06", "2025-01-08", "2025-01-13", "2025-01-14", "2025-01-15"])
    whole = with_silent_periods(quoted(rows), calendar, 2)
    assert whole.value.index.tolist() == ["2025-01-06", "2025-01-08", "2025-01-10", "2025-01-13", "2025-01-14"]
    frame = determine(whole, [], RULES).frame
    assert frame["status"].tolist() == ["normal", "missing", "normal", "missing", "missing"]
    assert frame["carried"].dropna().to_dict() == {"2025-01-08": 9000.0, "2025-01-13": 9100.0}


# ------------------------------------------------------------------------------------ settings


def method_with(**link: str):
    markets = [
        {"mineral": "tin", "stage": "metal", "zone": "CN", "per": "product", "linked": link.get("cn", "")},
        {"mineral": "tin", "stage": "metal", "zone": "XCN", "per": "product", "linked": link.get("xcn", "")},
        {"mineral": "tin", "stage": "ore", "zone": "XCN", "per": "contained", "element": "Sn"},
    ]
    return type(METHOD).model_validate({**METHOD.model_dump(), "markets": markets})


def test_a_link_goes_one_step_to_the_same_mineral_in_the_same_unit():
    assert method_with(cn="tin/metal/XCN").markets[0].linked == "tin/metal/XCN"
    for link, said in (
        ({"cn": "tin/metal/WLD"}, "no other market tin/metal/WLD"),
        ({"cn": "tin/metal/CN"}, "no other market"),
        ({"cn": "tin/ore/XCN"}, "not the same mineral in the same unit"),
        ({"cn": "tin/metal/XCN", "xcn": "tin/metal/CN"}, "links have one step"),
    ):
        with pytest.raises((ConfigError, ValueError), match=said):
            method_with(**link)
