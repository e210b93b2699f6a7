import math
from dataclasses import astuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from forecasting import evaluation as ev
from forecasting.errors import ForecastError

NODES = [0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975]
prices = st.floats(0.1, 1e6, allow_nan=False)


def midpoints(n):
    return (np.arange(n) + 0.5) / n


# ------------------------------------------------------------------------------------ scores


def test_weights_are_the_cells_around_the_nodes():
    assert ev.node_weights([0.025, 0.1, 0.5, 0.9, 0.975]) == pytest.approx([0.0625, 0.2375, 0.4, 0.2375, 0.0625])
    assert ev.node_weights(NODES).sum() == pytest.approx(1)


@pytest.mark.parametrize("grid", [[], [0.5, 0.5], [0.9, 0.1], [0, 0.5], [0.5, 1], [float("nan")], [[0.5]]])
def test_a_grid_that_is_none_is_refused(grid):
    with pytest.raises(ForecastError, match="increase strictly between 0 and 1"):
        ev.node_weights(grid)


@pytest.mark.parametrize(("mean", "sd", "actual"), [(0, 1, 0), (0, 1, 2.5), (100, 15, 60), (-3, 0.2, -3.1)])
def test_crps_of_a_normal_is_its_closed_form(mean, sd, actual):
    z = (actual - mean) / sd  # Gneiting and Raftery 2007, section 4.2
    closed = sd * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / math.sqrt(math.pi))
    grid = midpoints(20_000)
    assert ev.crps_from_quantiles(actual, stats.norm.ppf(grid, mean, sd), grid) == pytest.approx(closed, rel=1e-4)


@given(st.lists(prices, min_size=1, max_size=12), prices)
def test_crps_of_a_sample_is_its_mean_distance_less_half_its_spread(sample, actual):
    x = np.sort(sample)
    energy = np.abs(x - actual).mean() - np.abs(x[:, None] - x).mean() / 2
    assert ev.crps_from_quantiles(actual, x, midpoints(len(x))) == pytest.approx(energy, rel=1e-9, abs=1e-7)


def test_pinball_is_least_at_the_quantile():
    sample = np.random.default_rng(1).gamma(2, size=999)
    for p in (0.1, 0.5, 0.9):
        candidates = np.sort(sample)
        losses = ev.pinball(sample[:, None], candidates[None, :, None], [p])[..., 0].mean(axis=0)
        assert candidates[losses.argmin()] == pytest.approx(np.quantile(sample, p, method="inverted_cdf"))


@given(prices, prices, prices, st.sampled_from([50, 80, 95]))
def test_winkler_is_the_pinball_of_both_bounds(actual, one, other, level):
    lower, upper, alpha = min(one, other), max(one, other), 1 - level / 100
    loss = ev.pinball(actual, [lower, upper], [alpha / 2, 1 - alpha / 2]).sum()
    assert ev.winkler(actual, lower, upper, level) == pytest.approx(loss * 2 / alpha, rel=1e-9, abs=1e-6)


def test_bounds_belong_to_the_interval_and_the_unknown_to_neither():
    assert ev.covered([1, 2, 3, np.nan, 1], [1, 0, 0, 0, np.nan], [3, 2, 2.9, 1, 2]).tolist()[:3] == [1, 1, 0]
    assert np.isnan(ev.covered([np.nan, 1], [0, np.nan], [1, 2])).all()
    assert ev.width([90, 80], [110, 120], 100).tolist() == [0.2, 0.4]


def test_point_scores_by_hand():
    assert ev.smape([100, 0, np.nan], [110, 0, 5]) == pytest.approx(200 * 10 / 210 / 2)
    assert ev.mase([13, 15], [12, 12], [1, 2, 4, 7]) == pytest.approx(2 / 2)
    assert ev.mase([13], [12], [1, 2, 4, 7], season=2) == pytest.approx(1 / 4)
    assert ev.mase([13], [12], [1, np.nan, 4, 7]) == pytest.approx(1 / 3)
    assert math.isnan(ev.mase([13], [12], [5, 5, 5])) and math.isnan(ev.mase([13], [12], [5]))
    # averaged over series before the ratio, not a mean of ratios
    assert ev.owa([10, 2], [1, 1], [5, 5], [2, 2]) == pytest.approx((12 / 10 + 2 / 4) / 2)
    assert ev.owa([10, 2], [1, 3], [10, 2], [1, 3]) == 1


def test_bias_is_above_zero_where_forecasts_were_too_high():
    found = ev.bias(np.full(20, 100.0), 100 + np.array([1.0, 3.0] * 10), 100)
    assert found.value == pytest.approx(0.02) and found.origins == 20


# ----------------------------------------------------------------------- test of equal accuracy


def test_without_overlap_the_test_is_a_paired_t_test():
    rng = np.random.default_rng(3)
    a, b = rng.gamma(2, size=(2, 40))
    for alternative in ("two-sided", "less", "greater"):
        truth = stats.ttest_rel(a, b, alternative=alternative)
        found = ev.diebold_mariano(a, b, alternative=alternative)
        assert (found.statistic, found.p_value) == pytest.approx((truth.statistic, truth.pvalue))


def test_with_overlap_it_is_the_formula_of_the_paper():
    rng = np.random.default_rng(4)
    d, h, n = np.convolve(rng.normal(size=62), np.ones(3), "valid"), 3, 60
    gamma = [sum((d[t] - d.mean()) * (d[t - k] - d.mean()) for t in range(k, n)) / n for k in range(h)]
    s1 = d.mean() / math.sqrt((gamma[0] + 2 * sum(gamma[1:])) / n)  # Diebold and Mariano 1995
    corrected = s1 * math.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)  # Harvey, Leybourne and Newbold 1997, eq. 9
    found = ev.diebold_mariano(d, np.zeros(n), overlap=h - 1)
    assert found.statistic == pytest.approx(corrected)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(corrected), n - 1))


def equal_losses(rng, n, overlap):
    """Squared errors of two equally accurate forecasts whose spans overlap: moving averages of independent noise."""
    errors = [np.convolve(rng.normal(size=n + overlap), np.ones(overlap + 1), "valid") for _ in range(2)]
    return errors[0] ** 2, errors[1] ** 2


@pytest.mark.parametrize(
    ("variance", "n", "overlap"),
    [("autocovariances", 60, 0), ("autocovariances", 120, 2), ("cosines", 60, 0), ("cosines", 48, 11),
     ("cosines", 120, 11)],
)  # fmt: skip
def test_the_test_has_its_size(variance, n, overlap):
    """5 % of 2000 tries have a standard error of .5 points; the test may be off by that thrice, and by one more."""
    rng = np.random.default_rng(20)
    two = one = 0
    for _ in range(2000):
        a, b = equal_losses(rng, n, overlap)
        two += ev.diebold_mariano(a, b, overlap=overlap, variance=variance).p_value < 0.05
        one += ev.diebold_mariano(a, b, overlap=overlap, variance=variance, alternative="less").p_value < 0.05
    assert 0.025 < two / 2000 < 0.075 and 0.025 < one / 2000 < 0.075


def test_the_test_finds_a_better_forecast():
    rng = np.random.default_rng(21)
    found = [
        ev.diebold_mariano(a, 2 * b, overlap=3, alternative="less", variance="cosines").p_value < 0.05
        for a, b in (equal_losses(rng, 240, 3) for _ in range(200))
    ]
    assert np.mean(found) > 0.8


@given(st.lists(st.tuples(prices, prices), min_size=16, max_size=40), st.integers(0, 3))
def test_the_two_sides_of_a_test_agree(pairs, overlap):
    a, b = np.array(pairs).T
    for variance in ("autocovariances", "cosines"):
        less, greater, swapped = (
            ev.diebold_mariano(x, y, overlap=overlap, alternative=side, variance=variance)
            for x, y, side in ((a, b, "less"), (a, b, "greater"), (b, a, "less"))
        )
        assert less.p_value + greater.p_value == pytest.approx(1)
        assert swapped.p_value == pytest.approx(greater.p_value, abs=1e-9)


def test_equal_losses_prove_nothing_and_constant_ones_everything():
    a = np.arange(10.0)
    assert astuple(ev.diebold_mariano(a, a)) == (0, 1, 10)
    assert ev.diebold_mariano(a, a + 1, alternative="less").p_value == 0


def test_an_origin_that_was_not_observed_keeps_its_place():
    rng = np.random.default_rng(5)
    a, b = equal_losses(rng, 60, 2)
    a[10] = np.nan
    d = (a - b)[~np.isnan(a)]
    close = ev.diebold_mariano(d, np.zeros(59), overlap=2)
    kept = ev.diebold_mariano(a, b, overlap=2)
    assert kept.origins == 59 and kept.statistic != close.statistic
    assert ev.diebold_mariano(a, b).statistic == pytest.approx(ev.diebold_mariano(d, np.zeros(59)).statistic)


def test_a_test_on_too_little_is_refused():
    for n, overlap in ((7, 0), (47, 11)):
        with pytest.raises(ForecastError, match=f"needs {ev.enough(overlap)} of them, not {n}"):
            ev.diebold_mariano(np.arange(n), np.ones(n), overlap=overlap)
    with pytest.raises(ForecastError, match="same origins"):
        ev.diebold_mariano(np.ones(10), np.ones(11))
    with pytest.raises(ForecastError, match="alternative is one of"):
        ev.diebold_mariano(np.ones(10), np.ones(10), alternative="better")
    with pytest.raises(ForecastError, match="variance is one of"):
        ev.diebold_mariano(np.ones(10), np.ones(10), variance="robust")


def test_overlap_counts_origins_not_periods():
    assert [ev.overlapping(h) for h in (1, 2, 12)] == [0, 1, 11]
    assert [ev.overlapping(h, 3) for h in (1, 3, 4, 12)] == [0, 0, 1, 3]


# ---------------------------------------------------------------------------- skill and coverage


@pytest.mark.parametrize(("n", "overlap"), [(120, 0), (120, 2), (240, 11)])
def test_the_standard_error_of_skill_is_how_far_it_scatters(n, overlap):
    rng = np.random.default_rng(8)
    tries = []
    for _ in range(800):
        a, b = equal_losses(rng, n, overlap)
        tries.append(ev.skill(a + b / 2, 1.2 * b + a / 2 + 1, overlap=overlap))
    scatter = np.std([t.value for t in tries])  # known to 2.5 %
    stated = math.sqrt(np.mean([t.error**2 for t in tries]))
    assert stated == pytest.approx(scatter, rel=0.12)


def test_skill_and_test_tell_the_same_story():
    rng = np.random.default_rng(9)
    a, b = rng.gamma(4, size=(2, 200))
    b *= a.mean() / b.mean() * 1.0001
    skill, test = ev.skill(a, b), ev.diebold_mariano(a, b, variance="cosines")
    assert skill.value / skill.error == pytest.approx(-test.statistic, rel=1e-3)


def test_skill_without_a_loss_to_beat_is_unknown():
    assert math.isnan(ev.skill([0.0] * 9, [0.0] * 9).value)
    few = ev.skill([1.0, 2.0], [2.0, 4.0])
    assert few.value == pytest.approx(50) and math.isnan(few.error) and few.origins == 2


@pytest.mark.parametrize("overlap", [0, 5])
def test_the_standard_error_of_coverage_is_how_far_it_scatters(overlap):
    rng = np.random.default_rng(10)
    z = stats.norm.ppf(0.9) * math.sqrt(overlap + 1)
    tries = []
    for _ in range(500):
        y = np.convolve(rng.normal(size=240 + overlap), np.ones(overlap + 1), "valid")
        tries.append(ev.coverage(y, np.full(240, -z), np.full(240, z), 80, overlap=overlap))
    assert np.mean([t.value for t in tries]) == pytest.approx(0.8, abs=0.01)
    assert math.sqrt(np.mean([t.error**2 for t in tries])) == pytest.approx(np.std([t.value for t in tries]), rel=0.15)


def test_coverage_of_nothing_is_unknown_and_of_all_has_an_error_still():
    assert math.isnan(ev.coverage([np.nan], [0], [1], 80).value)
    whole = ev.coverage(np.ones(25), np.zeros(25), np.full(25, 2.0), 80)
    assert astuple(whole) == (1, pytest.approx(0.08), 25)


# ------------------------------------------------------------------------------------ origins

DAYS = [f"2024-01-{day:02}" for day in range(1, 29)]


@st.composite
def histories(draw):
    rows = draw(
        st.dictionaries(
            st.tuples(st.integers(0, 9), st.integers(0, 15)),
            st.one_of(prices, st.just(math.nan)),
            min_size=1,
            max_size=40,
        )
    )
    frame = pd.DataFrame(
        [(f"2023-{p + 1:02}", DAYS[v], x) for (p, v), x in rows.items()], columns=["period", "vintage", "value"]
    )
    return frame.sample(frac=1, random_state=draw(st.integers(0, 99)))


CALENDAR = pd.Index([f"2023-{m:02}" for m in range(1, 13)])


@given(histories(), st.sampled_from(["first", "latest"]))
@settings(max_examples=60)
def test_an_origin_knows_what_was_known_then_and_no_more(history, outcome):
    got = list(ev.rolling_origins(history, DAYS, 4, periods=CALENDAR, outcome=outcome))
    for origin in got:
        at = f"{origin.vintage:%Y-%m-%d}"
        past = history[history.vintage <= at].sort_values("vintage").drop_duplicates("period", keep="last")
        known = past.set_index("period").value.reindex(CALENDAR)
        known = known.loc[known.first_valid_index() : known.last_valid_index()]
        pd.testing.assert_series_equal(origin.series, known, check_names=False)
        after = CALENDAR[known.index[-1] < CALENDAR][:4]
        assert list(origin.periods) == list(after)
        later = history.dropna().query("vintage > @at").sort_values("vintage").drop_duplicates("period")
        if outcome == "latest":
            later = history.sort_values("vintage").drop_duplicates("period", keep="last")
        expected = later.set_index("period").value.reindex(after).tolist()
        assert origin.outcome.tolist() == pytest.approx(expected + [math.nan] * (4 - len(after)), nan_ok=True)
        # whatever is learnt later, the series stays
        changed = history.assign(value=history.value.where(history.vintage <= at, 12345.0))
        same = next(ev.rolling_origins(changed, [at], 4, periods=CALENDAR))
        pd.testing.assert_series_equal(same.series, origin.series)


def test_a_revision_is_scored_against_the_first_value_or_the_latest():
    history = pd.DataFrame(
        [("2023-01", "2023-02-05", 10.0), ("2023-02", "2023-03-05T08:00Z", 11.0), ("2023-02", "2023-04-05", 12.0)],
        columns=["period", "vintage", "value"],
    )
    one = next(ev.rolling_origins(history, ["2023-02-05"], 2))
    assert one.outcome.tolist() == pytest.approx([11, math.nan], nan_ok=True) and list(one.outcome.index) == [1, 2]
    assert next(ev.rolling_origins(history, ["2023-02-05"], 1, outcome="latest")).outcome[1] == 12
    before, at = ev.rolling_origins(history, ["2023-03-05T08:00Z", "2023-03-05T07:59Z"], 1)
    assert len(before.series) == 1 and at.series.tolist() == [10, 11]


@pytest.mark.parametrize(
    ("rows", "calendar", "message"),
    [
        ([("2023-01", "2023-02-05", 1.0), ("2023-01", "2023-02-05T00:00Z", 2.0)], None, "'2023-01' has two values"),
        ([("2022-12", "2023-02-05", 1.0)], CALENDAR, "'2022-12' is not in the calendar"),
        ([("2023-01", "2023-02-05", 1.0)], CALENDAR[::-1], "increase"),
        ([("2023-01", 5, 1.0)], None, "an instant"),
        ([("2023-01", None, 1.0)], None, "an instant"),
        ([("2023-01", "soon", 1.0)], None, "an instant"),
    ],
)
def test_a_history_that_is_none_is_refused(rows, calendar, message):
    history = pd.DataFrame(rows, columns=["period", "vintage", "value"])
    with pytest.raises(ForecastError, match=message):
        list(ev.rolling_origins(history, ["2023-03-01"], 1, periods=calendar))
    with pytest.raises(ForecastError, match="first or the latest"):
        next(ev.rolling_origins(history, [], 1, outcome="final"))


# ------------------------------------------------------------------------------ record, decision


def simulated(rng, origins=120, horizons=3, spread=1.0):
    """Outcomes that are standard normal at every horizon, with the true quantiles and some that are too wide."""
    actual = 100 + rng.normal(size=(origins, horizons))
    grid = 100 + np.broadcast_to(stats.norm.ppf(NODES), (origins, horizons, len(NODES)))
    return actual, grid, 100 + (grid - 100) * spread


def test_a_record_holds_each_figure_by_horizon():
    rng = np.random.default_rng(11)
    actual, model, benchmark = simulated(rng, spread=2)
    actual[-1, 1:] = np.nan  # the last origin has seen one period only
    found = ev.record(actual, model, benchmark, NODES, scale=np.full(120, 100.0))
    table = found.by_horizon
    assert table.index.tolist() == [1, 2, 3] and table.origins.tolist() == [120, 119, 119]
    assert found.skill.origins == found.test.origins == 119
    loss, loss0 = (ev.crps_from_quantiles(actual[:119], q[:119], NODES)[:, 2] for q in (model, benchmark))
    assert table.skill[3] == pytest.approx(ev.skill(loss, loss0, overlap=2).value) and table.skill[3] > 10
    assert table.skill_error[3] == pytest.approx(ev.skill(loss, loss0, overlap=2).error)
    assert (table.p_value < 0.01).all() and found.test.p_value < 0.01
    assert table["coverage-80"][1] == np.mean((actual[:, 0] > model[0, 0, 2]) & (actual[:, 0] < model[0, 0, 6]))
    assert table["width-95"].tolist() == pytest.approx([2 * 1.959964 / 100] * 3)
    assert (abs(table.bias) < 3 * table.bias_error).all()


def test_a_record_on_little_says_how_little():
    actual, model, benchmark = simulated(np.random.default_rng(12), origins=5)
    found = ev.record(actual, model, benchmark, NODES)
    assert found.test is None and found.by_horizon.p_value.isna().all() and (found.by_horizon.origins == 5).all()
    assert ev.decide(None, found, ev.Rules(), "2024-03-01").why == "too few origins for a test (5)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {**a, "probabilities": NODES[1:]}, "do not fit"),
        (lambda a: {**a, "levels": (50.5,)}, "no node at 0.2475"),
        (lambda a: {**a, "scale": np.zeros(120)}, "above zero at every origin"),
        (lambda a: {**a, "benchmark": a["benchmark"][:-1]}, "do not fit"),
    ],
)
def test_a_record_of_what_does_not_fit_is_refused(change, message):
    actual, model, benchmark = simulated(np.random.default_rng(13))
    arguments = {"actual": actual, "model": model, "benchmark": benchmark, "probabilities": NODES}
    with pytest.raises(ForecastError, match=message):
        ev.record(**change(arguments))


def with_p(p, origins=100):
    return ev.Record(pd.DataFrame(), ev.Estimate(1.0, 1.0, origins), ev.EqualAccuracy(-1.0, p, origins))


def test_a_model_enters_below_one_level_and_leaves_above_another_at_reviews_only():
    rules = ev.Rules(enter=0.05, leave=0.2, origins=60, months=(1, 7))
    seen, decision = [], None
    for today, p in [
        ("2024-03-05", 0.10), ("2024-06-30", 0.01), ("2024-07-01", 0.04), ("2024-12-31", 0.9), ("2025-01-02", 0.19),
        ("2025-07-09", 0.21), ("2025-08-01", 0.01), ("2026-02-01", 0.049),
    ]:  # fmt: skip
        decision = ev.decide(decision, with_p(p), rules, today)
        seen.append((decision.published, decision.since))
    assert seen == [
        ("benchmark", "2024-03-05"), ("benchmark", "2024-03-05"), ("model", "2024-07-01"), ("model", "2024-07-01"),
        ("model", "2024-07-01"), ("benchmark", "2025-07-09"), ("benchmark", "2025-07-09"), ("model", "2026-02-01"),
    ]  # fmt: skip
    assert ev.decide(None, with_p(0.001, 59), rules, "2024-01-01").why == "59 origins, fewer than 60"
    assert "p = 0.049 over 100 origins" in decision.why


def test_rules_that_could_flutter_are_refused():
    with pytest.raises(ForecastError, match="enter ≤ leave"):
        ev.Rules(enter=0.2, leave=0.05)
    with pytest.raises(ForecastError, match="months"):
        ev.Rules(months=(0,))


def test_a_model_without_skill_is_adopted_as_often_as_the_level_says():
    """600 models, monthly origins, horizon 3, a first review after 10 years and nine more: no skill at any time.

    At the first review 5 % enter (standard error .9 points), where half have a skill above zero. Over the ten reviews,
    the later ones on all that the earlier had, hysteresis holds what once entered, so more are published, but few.
    """
    rng = np.random.default_rng(14)
    rules, entered, above, published = ev.Rules(), 0, 0, 0
    for _ in range(600):
        a, b = equal_losses(rng, 228, 2)
        decision = None
        for year in range(10):
            n = 120 + 12 * year
            skill = ev.skill(a[:n], b[:n], overlap=2)
            test = ev.diebold_mariano(a[:n], b[:n], overlap=2, alternative="less", variance="cosines")
            decision = ev.decide(decision, ev.Record(pd.DataFrame(), skill, test), rules, f"{2010 + year}-01-15")
            entered += year == 0 and decision.published == "model"
            above += year == 0 and skill.value > 0
            published += decision.published == "model"
    assert entered / 600 == pytest.approx(0.05, abs=0.027)
    assert above / 600 == pytest.approx(0.5, abs=0.062)
    assert published / 6000 < 0.12
