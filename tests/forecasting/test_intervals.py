import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from forecasting import intervals

P = np.array([0.025, 0.1, 0.5, 0.9, 0.975])


@pytest.mark.parametrize("freedom", [3.0, 5.0, 30.0])
def test_the_t_of_unit_variance_is_scipys(freedom):
    unit = stats.t(freedom, scale=np.sqrt((freedom - 2) / freedom))
    np.testing.assert_allclose(intervals.student(P, freedom), unit.ppf(P), rtol=1e-10, atol=1e-12)
    expected = 2 * integrate.quad(lambda e: e * unit.pdf(e), 0, np.inf)[0]
    assert intervals.mean_absolute(freedom) == pytest.approx(expected, rel=1e-8)


def test_seen_errors_replace_the_shape_at_the_conformal_rank():
    scores = np.arange(1.0, 100)[:, None] * np.where(np.arange(99) % 2, 1, -1)[:, None]
    seen = intervals.calibrated(intervals.student(P), scores, P, prior_errors=0)
    # of 99 exchangeable errors the next lies within the 80th with probability 80 %, within the 95th with 95 %
    np.testing.assert_allclose(seen[0], [-95, -80, 0, 80, 95])


def test_the_weight_of_seen_errors_is_that_of_those_which_do_not_overlap():
    prior, scores = intervals.student(P), np.full((120, 3), 7.0)
    scores[100:, 2] = np.nan
    quantiles = intervals.calibrated(prior, scores, P, prior_errors=60)
    for step, weight in enumerate((120 / 180, 60 / 120, (100 / 3) / (100 / 3 + 60))):
        assert quantiles[step, 3] == pytest.approx(weight * 7 + (1 - weight) * prior[3])
    nothing = np.full((4, 2), np.nan)
    np.testing.assert_array_equal(intervals.calibrated(prior, nothing, P), np.tile(prior, (2, 1)))


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=60), st.floats(0, 1000))
@settings(max_examples=50, deadline=None)
def test_quantiles_rise_with_the_probability(errors, prior_errors):
    p = np.array(intervals.GRID)
    scores = np.column_stack([errors, errors])
    quantiles = intervals.calibrated(intervals.student(p), scores, p, prior_errors)
    assert (np.diff(quantiles, axis=1) >= 0).all()
    np.testing.assert_allclose(quantiles, -quantiles[:, ::-1], atol=1e-12)


def test_the_mean_of_a_distribution_known_by_its_quantiles():
    p = np.array(intervals.GRID)
    np.testing.assert_allclose(intervals.mean_of(np.array([p, 3 + 2 * p]), p), [0.5, 4.0])
    lognormal = np.exp(0.2 * stats.norm.ppf(p))[None, :]
    assert intervals.mean_of(lognormal, p)[0] == pytest.approx(np.exp(0.02), rel=2e-3)


def test_the_grid_holds_what_the_contract_names():
    assert {0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975} <= set(intervals.GRID)
    np.testing.assert_allclose(np.add(intervals.GRID, intervals.GRID[::-1]), 1)
