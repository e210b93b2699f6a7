"""Unit values of cells made from known prices: how far they lie from the truth, and how often they say so.

The truth of a window is the mean of the true prices of the leg's lasting average quality, weighted by the
tonnes that came (`simulated_customs.World.windowed`). Beside the figure: the plain ratio of sums over the same
window and all cells with a mass.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import simulated_customs as sim

from pricing import trade
from pricing.config import load_methodology

RULES = load_methodology(Path(__file__).resolve().parents[2] / "methodology").trade
SEEDS = range(12)
KINDS = {
    "ordinary": sim.Kind(),
    "no mistakes": sim.Kind(mistakes=0.0),
    "rough": sim.Kind(partner_quality=0.5, pair_quality=0.3, shipment_price=0.3),
    "wandering": sim.Kind(share_walk=0.3),
    "thin": sim.Kind(tonnes={"eu": 60.0, "us": 25.0}, shipment_tonnes=3.0),
}


def of_world(world):
    """Figures of one world beside the truth, by month; and its cells as judged beside what is wrong with them."""
    parts = []
    for origin, cells in world.cells.items():
        codes = [c for c in sim.CODES if c.system == sim.SYSTEMS[origin]]
        parts.append(trade.prepared(cells, codes, sim.CUSTOMS[origin], world.usd))
    judged = trade.judged(pd.concat(parts), RULES)
    tables = []
    for one in trade.indicators(judged, sim.CODES, sim.SYSTEMS, RULES):
        for leg in ("CN", "XCN"):
            table = one.frames[leg]
            massy = one.cells[(one.cells["leg"] == leg) & (one.cells["tonnes"] > 0)]
            sums = massy.groupby("period")[["usd", "tonnes"]].sum().reindex(table.index, fill_value=0.0)
            sums = sums.rolling(RULES.window_months).sum()
            beside = {
                "plain": sums["usd"] / sums["tonnes"],
                "truth": world.windowed(one.origin, leg, RULES.window_months),
                "origin": one.origin,
                "leg": leg,
                "month": np.arange(sim.Kind().months)[-len(table) :],
            }
            tables.append(table.assign(**beside).iloc[RULES.window_months - 1 :])
    key = ["origin", "reporter", "partner", "period"]
    marks = [
        pd.concat([cells[key[1:]], world.marks[origin]], axis=1).assign(origin=origin)
        for origin, cells in world.cells.items()
    ]
    return pd.concat(tables), judged.merge(pd.concat(marks), on=key, validate="1:1")


@cache
def simulated(name):
    worlds = [of_world(sim.world(seed, KINDS[name])) for seed in SEEDS]
    return pd.concat([w[0] for w in worlds]), pd.concat([w[1] for w in worlds])


def errors(figures, column):
    published = figures[figures["rule"] == ""]
    return np.log(published[column] / published["truth"])


def rmse(figures, column):
    return float(np.sqrt((errors(figures, column) ** 2).mean()))


def median(figures, column):
    return float(errors(figures, column).abs().median())


def trimmed(cells):
    return cells["rule"].str.startswith("implausible")


def correct(cells):
    """Cells with a right mass that hold more than a sample lot."""
    return (cells["factor"] == 1) & ~cells["tiny"] & ((cells["rule"] == "") | trimmed(cells))


@pytest.mark.parametrize("name", ["ordinary", "rough", "wandering", "thin"])
def test_the_error_is_at_most_half_of_the_plain_ratios(name):
    figures, _ = simulated(name)
    assert rmse(figures, "value") < rmse(figures, "plain") / 2
    assert median(figures, "value") < median(figures, "plain")


def test_without_mistakes_nothing_is_lost_by_judging():
    figures, _ = simulated("no mistakes")
    assert median(figures, "value") < 1.03 * median(figures, "plain")
    assert rmse(figures, "value") < 1.03 * rmse(figures, "plain")
    assert median(figures, "value") < 0.05


@pytest.mark.parametrize("name", ["ordinary", "no mistakes", "wandering", "thin"])
def test_real_shocks_are_not_trimmed(name):
    cells = simulated(name)[1]
    shock = correct(cells) & (cells["move"].abs() > np.log(1.5))
    assert shock.sum() > 1000
    assert trimmed(cells)[shock].mean() < 0.01
    large = shock & (cells["move"].abs() > np.log(2.5))
    assert large.sum() > 100
    assert not trimmed(cells)[large].any()


def test_both_shocks_come_through_in_full():
    figures, _ = simulated("no mistakes")
    for leg, rise in (("CN", np.log(4)), ("XCN", np.log(2))):
        some = figures[(figures["leg"] == leg) & (figures["origin"] == "eu")]
        truth = np.log(some["truth"]).groupby(some["month"]).mean()
        said = np.log(some["value"]).groupby(some["month"]).mean()
        assert said[34:38].mean() - said[20:25].mean() > 0.85 * rise
        assert said[34:38].mean() - said[20:25].mean() == pytest.approx(
            truth[34:38].mean() - truth[20:25].mean(), abs=0.05
        )
        assert said[58:62].mean() - said[44:48].mean() == pytest.approx(
            truth[58:62].mean() - truth[44:48].mean(), abs=0.05
        )


def test_a_lasting_quality_of_its_own_is_no_mistake():
    cells = simulated("rough")[1]
    assert trimmed(cells)[correct(cells)].mean() < 0.05


@pytest.mark.parametrize("name", ["ordinary", "thin"])
def test_masses_in_a_wrong_unit_are_found_where_they_are_off_by_ten_or_more(name):
    cells = simulated(name)[1]
    wrong = (cells["factor"] != 1) & ((cells["rule"] == "") | trimmed(cells))
    far = wrong & (np.log(cells["factor"]).abs() > 1)
    assert far.sum() > 60
    assert trimmed(cells)[far].mean() > 0.93
    # pounds for kilograms lie within the scatter of qualities: that most get through is known, and said
    assert trimmed(cells)[wrong & ~far].mean() < 0.5


@pytest.mark.parametrize("name", KINDS)
def test_the_interval_covers_about_as_often_as_it_says(name):
    published = simulated(name)[0].query("rule == ''")
    covers = published["truth"].between(published["low"], published["high"])
    assert 0.7 < covers.mean() < 0.9
    by_leg = covers.groupby([published["origin"], published["leg"]]).mean()
    assert len(by_leg) == 4
    assert by_leg.between(0.68, 0.95).all(), by_leg


@pytest.mark.parametrize(("name", "europe", "america"), [("ordinary", 0.97, 0.85), ("thin", 0.9, 0.8)])
def test_most_months_are_published(name, europe, america):
    share = simulated(name)[0].groupby("origin")["rule"].apply(lambda rule: (rule == "").mean())
    assert share["eu"] > europe
    assert share["us"] > america
