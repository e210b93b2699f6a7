"""Quotations that look like a wrong unit beside their own past: held back, unless somebody confirms them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.slips import LEAST, LOOSE, SLIPS, Past, named
from pricing.slips import beside_own_past as of_markets


def beside_own_past(table, settled=None):
    """(row, column) of what is held in one market, with the slip that it looks like."""
    held, _ = of_markets(table[None], settled=None if settled is None else settled[None])
    return {(t, m): named(held[0, t, m], LOOSE, LEAST)[0] for t, m in zip(*np.nonzero(~np.isnan(held[0])), strict=True)}


def column(*values: float | None) -> np.ndarray:
    return np.array([[np.nan if v is None else v] for v in values], dtype="float64")


POUND, TROY_OUNCE, SHORT_TON = 0.45359237, 0.0311034768, 907.18474  # [kg], by definition


@pytest.mark.parametrize(
    ("right", "wrong"),
    [(1000, 1), (POUND, 1000), (TROY_OUNCE, 0.001), (TROY_OUNCE, 1000), (POUND, 1), (SHORT_TON, 1000)],
)
def test_every_factor_is_that_of_two_units_taken_for_one_another(right, wrong):
    ratio = right / wrong
    assert named(ratio)[0] and named([1 / ratio, ratio]) == named(ratio) * 2
    assert min(abs(max(ratio, 1 / ratio) / f - 1) for f in SLIPS) < 1e-6


@pytest.mark.parametrize("factor", [f for f in SLIPS if f > 8])
@pytest.mark.parametrize("way", [1, -1])
def test_a_slip_is_held_for_as_long_as_it_stays_and_what_follows_is_not(factor, way):
    wrong = 30_000 * factor**way
    held = beside_own_past(column(29_000, None, 30_000, 31_000, wrong, wrong * 1.02, None, 30_500))
    assert sorted(held) == [(4, 0), (5, 0)]
    assert set(held.values()) == {SLIPS[factor]}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-2.0, 2.0), min_size=1, max_size=40))
def test_no_move_below_eightfold_is_ever_held(steps):
    # e^2 = 7.4 times from one quotation to the next: more than any of these markets did
    assert not beside_own_past(np.exp(np.cumsum(steps))[:, None])


def test_a_move_that_fits_no_unit_is_a_market_and_is_not_held():
    assert not beside_own_past(column(100, 101, 99, 100, 1700, 1750))


def test_what_another_origin_confirms_is_not_held_and_a_common_slip_is():
    past = [100.0, 101.0, 99.0, 100.0]
    confirmed = np.array([[p, np.nan] for p in past] + [[1000.0, 1010.0]])
    assert not beside_own_past(confirmed)
    both = np.array([[p, p] for p in past] + [[1000.0, 1010.0]])
    assert sorted(beside_own_past(both)) == [(4, 0), (4, 1)]
    apart = np.array([[p, p] for p in past] + [[1000.0, 101.0]])
    assert sorted(beside_own_past(apart)) == [(4, 0)]


def test_what_somebody_accepted_is_the_past_of_what_follows():
    values = column(100, 101, 99, *[1000.0] * 8)
    assert len(beside_own_past(values)) == 8
    settled = np.zeros(values.shape, dtype=bool)
    settled[3:6] = True
    assert not beside_own_past(values, settled)


def test_two_quotations_are_no_past():
    assert not beside_own_past(column(1000, 1000, 100, 101))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_the_past_is_all_that_the_next_period_needs(seed, cut):
    rng = np.random.default_rng(seed)
    table = 100 * rng.choice([1.0, 1.01, 10.0, 1000.0], (3, 12, 2), p=[0.5, 0.3, 0.1, 0.1])
    table[rng.random(table.shape) < 0.2] = np.nan
    settled = rng.random(table.shape) < 0.1
    whole, past = of_markets(table, settled=settled)
    before = Past(past.last[:, cut - 1], past.standing[:, cut - 1]) if cut else None
    rest, after = of_markets(table[:, cut:], before, settled[:, cut:])
    np.testing.assert_array_equal(rest, whole[:, cut:])
    np.testing.assert_array_equal(after.last, past.last[:, cut:])
    np.testing.assert_array_equal(np.minimum(after.standing, 3), np.minimum(past.standing[:, cut:], 3))
