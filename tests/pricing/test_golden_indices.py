"""The golden cases of the field's reference packages, and the figures that are published beside them."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.adapters import index as index_adapter
from pricing.chaining import chain
from pricing.formulas import fixed_base, period_on_period
from pricing.multilateral import geks, geks_windows, splice
from pricing.panels import Panel

CASES = Path(__file__).resolve().parents[3] / "shared" / "scoring" / "index" / "public.json"
NOT_OFFERED = {
    "dutot", "carli", "sato_vartia", "geary_khamis", "wtpd", "aggregate", "chain_in_year", "index_carry_zero_q",
    "year_over_year", "mudgett_stone_annual", "rolling_year",
}  # fmt: skip
needs_cases = pytest.mark.skipif(not CASES.is_file(), reason="needs ../shared/scoring/index")


@cache
def cases():
    read = json.loads(CASES.read_text("utf-8")) if CASES.is_file() else []
    return {case["name"]: case for case in read if case["method"] not in NOT_OFFERED}


@needs_cases
@pytest.mark.parametrize("name", sorted(cases()) or ["none"])
def test_a_golden_case_comes_out_to_nine_digits(name):
    case = cases()[name]
    found, expected = index_adapter.compute(case), case["expected"]["values"]
    assert [value is None for value in found] == [value is None for value in expected]
    for key, one, two in zip(case["expected"]["keys"], found, expected, strict=True):
        if two is not None:
            assert one == pytest.approx(two, rel=1e-9, abs=1e-12), key


def panel(name):
    return index_adapter.panel_of(cases()[name])


@needs_cases
@pytest.mark.parametrize(
    ("formula", "drift"),
    [
        ("laspeyres", 2.376),
        ("paasche", 0.433),
        ("geometric_laspeyres", 1.546),
        ("fisher", 1.014),
        ("tornqvist", 1.003),
        ("jevons", 1),
        ("walsh", 1),
    ],
)
def test_a_chain_that_returns_to_its_first_period_has_drifted_as_published(formula, drift):
    there = panel("ces2_fisher_chained")
    first = there.prices.index[0]
    back = [pd.concat([part, part.loc[[first]].set_axis(["again"])]) for part in (there.prices, there.quantities)]
    assert chain(period_on_period(Panel(*back), formula)).values["again"] == pytest.approx(drift, abs=6e-4)
    if formula in ("fisher", "tornqvist", "walsh", "jevons"):
        assert geks(Panel(*back), formula).values["again"] == pytest.approx(1, abs=1e-13)


@needs_cases
def test_geks_lies_between_the_fixed_base_and_the_chained_fisher_of_the_manual():
    cpi = panel("cpi6_fisher_fixed_t1")
    assert fixed_base(cpi, "fisher", "t1").values["t5"] == pytest.approx(1.071, abs=6e-4)
    assert chain(period_on_period(cpi, "fisher")).values["t5"] == pytest.approx(1.223, abs=6e-4)
    assert geks(cpi, "fisher").values["t5"] == pytest.approx(1.133, abs=6e-4)


@needs_cases
def test_the_choice_of_splice_shows_in_the_second_decimal():
    ces = panel("ces2_fisher_chained")
    windows = geks_windows(ces, "fisher", 5)
    for method, level in (("movement", 1.1136), ("window", 1.1195), ("mean", 1.1177)):
        assert splice(windows, method).values["12"] == pytest.approx(level, abs=6e-5)
    assert geks(ces, "tornqvist").values["12"] == pytest.approx(1.1328, abs=6e-5)


@needs_cases
def test_entering_and_leaving_products_move_the_index_by_the_rule_chosen():
    minerals = panel("minA_jevons_chained_matched")
    assert chain(period_on_period(minerals, "jevons")).values["2024-03"] == pytest.approx(1.0776, abs=6e-5)
    assert fixed_base(minerals, "jevons", "2023-01").values["2024-03"] == pytest.approx(1.0092, abs=6e-5)


@needs_cases
def test_the_two_fisher_decompositions_lie_as_far_apart_as_published():
    case = cases()["cpi6_contrib_fisher_t1_t2"]
    one = index_adapter.compute(case)
    two = index_adapter.compute({**case, "params": {**case["params"], "decomposition": "nested_logmean"}})
    widest = max(abs(b / a - 1) for a, b in zip(one, two, strict=True) if a)
    assert math.isclose(sum(one), sum(two), rel_tol=1e-12) and 1e-5 < widest < 1e-2
