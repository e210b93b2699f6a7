"""Several sources of one price, and several series of one feed, on made series."""

import json
import math

import numpy as np
import pytest

from pricing import corroboration
from pricing.anomalies import KINDS, Alarms
from pricing.corroboration import Detector

START = 730_000


def market(seed=1, n=300, sigma=0.012):
    return 2000 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, sigma, n)))


def panel(seed=1, n=300, sources=5, noise=0.002):
    """Sources that quote one price with premiums of their own; the last one learns of it a day late."""
    rng = np.random.default_rng(seed + 100)
    price = market(seed, n)
    quotes = {f"s{k}": price * math.exp(0.02 * k) * np.exp(rng.normal(0, noise, n)) for k in range(sources)}
    late = f"s{sources - 1}"
    quotes[late] = np.concatenate([quotes[late][:1], quotes[late][:-1]])
    return quotes


def run(quotes, detector=None, since=0):
    """Verdicts by (price, source), of quotes by (price, source)."""
    detector = detector or Detector("daily")
    found = {key: [] for key in quotes}
    for t in range(since, len(next(iter(quotes.values())))):
        rows = [(*key, float(values[t])) for key, values in quotes.items()]
        for key, verdict in zip(quotes, detector.update(START + t, rows), strict=True):
            found[key].append(verdict)
    return found


def one_price(quotes):
    return {("copper", source): values for source, values in quotes.items()}


def flagged(found, check=None):
    return {
        (*key, v.day - START)
        for key, verdicts in found.items()
        for v in verdicts
        if v.flagged and (check is None or v.check == check)
    }


def test_premiums_and_late_sources_are_no_divergence():
    assert not flagged(run(one_price(panel())), "divergence")


@pytest.mark.parametrize("step", [0.03, -0.04])
def test_the_source_that_leaves_the_others_is_the_culprit_and_the_only_one(step):
    quotes = panel()
    quotes["s1"][200:] *= math.exp(step)
    found = run(one_price(quotes))
    culprits = flagged(found, "divergence")
    assert {source for _, source, _ in culprits} == {"s1"}
    assert min(day for *_, day in culprits) == 201  # one day is left for the others to follow
    verdict = found["copper", "s1"][201]
    assert verdict.evidence["deviation"] == pytest.approx(step, abs=0.025)  # less what is put down to lateness


def test_a_drift_away_from_the_others_is_seen_before_it_is_large():
    quotes = panel()
    quotes["s2"][200:] *= np.exp(0.001 * np.arange(100))
    days = [day for _, source, day in flagged(run(one_price(quotes)), "divergence") if source == "s2"]
    assert days and min(days) < 225


def test_a_premium_that_stays_becomes_the_source_s_own():
    quotes = panel(n=420)
    quotes["s1"][200:] *= 1.05
    days = [day for *_, day in flagged(run(one_price(quotes)), "divergence")]
    assert max(days) < 200 + corroboration.SETTLED + 5


def test_a_shock_that_all_share_is_the_market_and_confirmed():
    quotes = panel()
    for source, values in quotes.items():
        values[200 + (source == "s4") :] *= 1.12
    found = run(one_price(quotes))
    assert not flagged(found, "divergence")
    verdict = found["copper", "s0"][200]
    assert verdict.kind == "market"
    assert (verdict.evidence["others"], verdict.evidence["confirming"]) == (4, 3)


def test_a_source_that_stands_still_while_the_others_move_is_stale():
    quotes = panel()
    quotes["s1"][200:210] = quotes["s1"][199]
    names = {check for *_, check in [(v.check,) for v in run(one_price(quotes))["copper", "s1"][200:210] if v.flagged]}
    assert names == {"stale"}


def test_of_two_sources_nobody_is_the_culprit():
    quotes = panel(sources=2)
    quotes["s0"][200:] *= 1.03
    assert not flagged(run(one_price(quotes)), "divergence")


@pytest.mark.parametrize("length", [1, 2])
def test_two_series_of_one_feed_that_changed_places(length):
    copper, tin = market(3), 3.1 * market(4)
    quotes = {("copper", "feed"): copper.copy(), ("tin", "feed"): tin.copy(), ("zinc", "feed"): market(5)}
    swapped = slice(200, 200 + length)
    quotes["copper", "feed"][swapped], quotes["tin", "feed"][swapped] = tin[swapped], copper[swapped]
    found = run(quotes)
    days = range(200, 200 + length)
    assert flagged(found) == {(price, "feed", day) for price in ("copper", "tin") for day in days}
    for price, truth in (("copper", copper), ("tin", tin)):
        verdict = found[price, "feed"][200]
        assert (verdict.kind, verdict.check, verdict.undone) == ("data", "swap", truth[200])


def test_series_of_different_feeds_do_not_change_places():
    copper, tin = market(3), 3.1 * market(4)
    quotes = {("copper", "one"): copper.copy(), ("tin", "two"): tin.copy()}
    quotes["copper", "one"][200], quotes["tin", "two"][200] = tin[200], copper[200]
    assert not flagged(run(quotes), "swap")


def test_the_order_of_series_does_not_matter():
    quotes = one_price(panel(7)) | {("tin", "s0"): 3 * market(8), ("tin", "s1"): 3 * market(8)}
    quotes["copper", "s1"][220:] *= 1.05
    keys = list(quotes)
    plain = run(quotes)
    for seed in range(3):
        order = [keys[k] for k in np.random.default_rng(seed).permutation(len(keys))]
        mixed = run({key: quotes[key] for key in order})
        assert {key: repr(mixed[key]) for key in keys} == {key: repr(plain[key]) for key in keys}


def test_a_restored_detector_goes_on_to_the_last_bit():
    quotes = one_price(panel(9)) | {("tin", "s0"): 3 * market(8)}
    quotes["copper", "s2"][150:] *= 1.04
    whole, detector = run(quotes), Detector("daily", Alarms())
    first = run({key: values[:140] for key, values in quotes.items()}, detector)
    detector = Detector.from_state(json.loads(json.dumps(detector.state(), allow_nan=False)))
    second = run(quotes, detector, since=140)
    assert {key: repr(first[key] + second[key]) for key in quotes} == {key: repr(whole[key]) for key in quotes}


def test_absent_missing_and_absurd_quotes_are_borne():
    rng, detector = np.random.default_rng(11), Detector("daily")
    odd = [math.nan, math.inf, 0.0, -5.0, 1e300, 5e-324]
    prices = market(11)
    for t, price in enumerate(prices):
        quotes = [("copper", f"s{k}", float(price)) for k in range(5) if rng.random() < 0.7]
        quotes += [("copper", "odd", odd[t % len(odd)]), ("copper", "s0", float(price))]
        for verdict in detector.update(START + t, quotes):
            assert math.isfinite(verdict.score) and verdict.check in {"", *KINDS}
    assert json.dumps(detector.state(), allow_nan=False)
