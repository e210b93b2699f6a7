"""One contributor of three that goes wrong for a month: the published price stays where the two sound ones are."""

import numpy as np
import pytest

from benchmarks.wrong_feed import CASES, VERSIONS, Case, World

MARKETS = 3
ROBUST = [case for case in CASES if case.absent is None and "model" not in case.tiers]
"""Three that quote each day, none of whom weighs one half."""
NAMED = {
    "×1000": ({"unit-slip"}, 0),
    "stale": ({"stale"}, 5),
    "swapped": ({"swap", "divergence", "unit-slip", "decimal", "gross"}, 2),
    "sign-flipped": ({"not-positive, held back"}, 0),
    "random walk": ({"divergence"}, 20),
}
"""How each version may be named, and the most days until it is: a walk leaves the others by chance, not at once."""


@pytest.fixture(scope="module", params=ROBUST, ids=lambda case: case.name)
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param, MARKETS, seed=17)


@pytest.mark.parametrize("name", NAMED)
def test_a_wrong_feed_leaves_the_price_between_the_sound_ones_and_is_told(world: World, name: str) -> None:
    made = world.published(VERSIONS[name])
    for m, effect in enumerate(world.effects(made)):
        assert len(made.prices[f"m{m:02}/metal/XCN"].frame("daily")) == len(world.days)
        assert effect.silent == 0
        assert effect.outside == 0, f"{effect.excursion:.2%} outside the sound range"
        assert effect.after < 0.003  # the noise of one origin: what is left in its basis, and so in the median
        assert effect.index_outside == 0, f"the index moved by {effect.index_moved:.2%}"
    checks, most = NAMED[name]
    for flag, _ in world.flags(made):
        assert flag is not None, f"nobody noticed that a feed was {name} for a month"
        assert flag.check in checks
        assert flag.delay <= most
    # the store never learnt what is not above zero, and learnt all the rest
    assert len(made.held) == (MARKETS * len(world.wrong_days) if name == "sign-flipped" else 0)


def test_the_price_of_sound_feeds_is_the_median_of_what_was_simulated(world: World) -> None:
    """What the others are compared with follows from the simulation, but for bases that are estimated."""
    for m in range(MARKETS):
        price = world.usual.prices[f"m{m:02}/metal/XCN"].frame("daily")["unrounded"].to_numpy()
        quoted = world.sound[:, m]
        true_basis = np.median(quoted / quoted[:, [0]], axis=0)  # over all days
        assert np.all(np.abs(price / np.median(quoted / true_basis, axis=1) - 1) < 0.003)


def test_a_negative_price_that_somebody_let_in_is_not_used() -> None:
    world = World(Case("one of three", 1, "2025-06-02", "2025-06-30"), 1, seed=18)
    made = world.published(VERSIONS["sign-flipped"], store=False)
    (effect,) = world.effects(made)
    assert effect.outside == 0
    assert effect.silent == 0
    ((flag, _),) = world.flags(made)
    assert flag is not None
    assert (flag.check, flag.delay) == ("sign", 0)


def test_an_origin_that_weighs_one_half_cannot_move_the_price_alone() -> None:
    (half,) = (case for case in CASES if "model" in case.tiers)
    world = World(half, 1)
    (effect,) = world.effects(world.published(VERSIONS["stale"]))
    assert effect.outside == 0, f"{effect.excursion:.2%} outside the sound range"
