"""A change of method from its announcement to its effect, in the small world."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks.small_world import METHODOLOGY
from pricing import pipeline, published, releases
from pricing.config import Methodologies, load_methodologies, load_methodology
from pricing.documents.methods import Draft, parallel_run
from pricing.errors import MethodError, ReleaseError
from pricing.published import Row
from pricing.web.app import create_app
from tests.pricing.made_world import World, serving

DAY = dt.datetime(2026, 11, 23, 14, 0, tzinfo=dt.UTC)
EFFECT = dt.datetime(2026, 12, 21, tzinfo=dt.UTC)  # 28 days after the first release
CHANGE = """id = "2026-12"
title = "A method for two metals"
status = "change"
proposed = 2026-11-23
comments_until = 2026-12-07
effective = 2026-12-21
notice_days = 28
rationale = "Nickel <outweighs> cobalt."
changes = ["The cap goes from 70 % to 60 %."]

[[comments]]
by = "A smelter"
received = 2026-12-01
comment = "Too low."
answer = "It was heard."

"""
RULES = METHODOLOGY[METHODOLOGY.index("[determination]") :]
LOWER_CAP = CHANGE + RULES.replace("cap = 0.7", "cap = 0.6")
PRICES = {("price", "nickel/metal/XCN"), ("price", "cobalt/metal/XCN")}


def methods(world: World, *changes: str, initial: str = METHODOLOGY) -> Methodologies:
    folder = world.data.parent / "methodology"
    for file in folder.glob("*.toml"):
        file.unlink()
    (folder / "2026-11.toml").write_text(initial)
    for n, text in enumerate(changes):
        (folder / f"change-{n}.toml").write_text(text)
    return load_methodologies(folder)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Sources of two rounds collected, the clock at the day of the proposal."""
    with serving(tmp_path) as made:
        made.collect()
        made.second_round()
        made.collect()
        made.now = DAY
        yield made


def released(world: World, at: dt.datetime, *changes: str, **options: Any) -> releases.Release:
    world.methodology = methods(world, *changes, **options)  # type: ignore[assignment]
    world.now = at
    return world.release()


def read(made: releases.Release, name: str) -> Any:
    return orjson.loads((made.folder / name).read_bytes())


def shown(world: World, number: int) -> dict[tuple[str, str], dict[str, tuple[Any, ...]]]:
    """Every monthly figure as the web finds it at a release."""

    def ask(db: Any) -> dict[tuple[str, str], dict[str, tuple[Any, ...]]]:
        names = db.execute("SELECT DISTINCT kind, name FROM dataset WHERE frequency = 'monthly'").fetchall()
        return {
            (kind, name): {
                v.period: (v.value, v.unrounded, v.status, v.grade)
                for v in published.read(db, kind, name, "monthly", release=number)
                if v.value is not None
            }
            for kind, name in names
        }

    return published.query(world.data / "public" / "published.db", ask)


def of_run(run: dict[str, Any], side: str) -> dict[tuple[str, str], dict[str, tuple[Any, ...]]]:
    return {
        (figure["kind"], figure["id"]): {
            row["period"]: tuple(row[side][k] for k in ("value", "unrounded", "status", "grade"))
            for row in figure["values"]
            if row[side] is not None
        }
        for figure in run["figures"]
    }


def test_a_change_is_announced_and_takes_effect_exactly_on_its_day(world):
    world.methodology = methods(world, LOWER_CAP)
    made = []
    with world.opened() as ws:  # one process all the time: the method is chosen at each release
        for at in (DAY, EFFECT - dt.timedelta(seconds=1), EFFECT):
            world.now = at
            made.append(pipeline.release(ws, "public", at, {}))
    first, eve, day = (read(m, "methodology.json") for m in made)
    old, new = (m.sha256 for m in world.methodology.documents)
    assert [m.manifest["methodology"]["sha256"] for m in made] == [old, old, new]
    assert [d["meta"]["methodology"]["id"] for d in (first, eve, day)] == ["2026-11", "2026-11", "2026-12"]
    for m, sha in zip(made, (old, old, new), strict=True):
        assert read(m, "indices/two-metals.json")["meta"]["methodology"]["sha256"] == sha
        assert read(m, "indices/two-metals.json")["cap"] == (0.7 if sha == old else 0.6)
    index = ("index", "two-metals")
    assert shown(world, 1)[index] == shown(world, 2)[index] != shown(world, 3)[index]

    assert [p["id"] for p in first["pending"]] == [p["id"] for p in eve["pending"]] == ["2026-12"]
    assert first["earlier"] == [] and first["in_force"]["sha256"] == old
    assert eve["pending"][0]["announced"] == {"release": 1, "released_at": "2026-11-23T14:00:00.000000Z"}
    assert eve["pending"][0]["earliest"] == "2026-12-21"
    assert day["pending"] == [] and day["in_force"]["rationale"] == "Nickel <outweighs> cobalt."
    assert day["earlier"] == [{"id": "2026-11", "effective": "2026-11-02", "sha256": old}]
    held = [set(m.manifest["files"]) for m in made]
    assert {"methodology/pending/2026-12.json", "methodology/pending/2026-12.toml"} <= held[0] & held[1]
    assert not any(name.startswith("methodology/pending") for name in held[2])
    assert (made[0].folder / "methodology/pending/2026-12.toml").read_text() == LOWER_CAP


@pytest.mark.parametrize(
    ("rules", "moved"),
    [
        (RULES.replace("cap = 0.7", "cap = 0.6"), {("index", "two-metals")}),
        # alpha revised June by 1 %: there is no price then, and the index imputes it
        (RULES.replace("widest = 0.3", "widest = 0.005"), {("index", "two-metals"), *PRICES}),
        (RULES.replace("A = 3", "A = 4"), PRICES),
        (RULES.replace("cap = 0.7", "cap = 0.7 # no rule"), set()),
    ],
    ids=["cap", "widest", "grades", "nothing"],
)
def test_the_parallel_run_is_what_the_change_then_does(world, rules, moved):
    announced = released(world, DAY, CHANGE + rules)
    with world.opened() as ws:
        bases = ws.store.bases("public")
    run = read(announced, "methodology/pending/2026-12.json")["parallel_run"]
    after = released(world, EFFECT, CHANGE + rules)
    assert after.manifest["methodology"]["id"] == "2026-12"
    with world.opened() as ws:
        assert ws.store.bases("public") == bases, "the parallel run stores nothing"
    before, then = shown(world, 1), shown(world, 2)
    assert {(f["kind"], f["id"]) for f in run["figures"]} == moved
    for side, real in (("before", before), ("after", then)):
        for name, values in of_run(run, side).items():
            assert values == {p: v for p, v in real[name].items() if p >= "2024-11"}, (side, name)
    for name in then.keys() - moved:
        assert before[name] == then[name]
    assert sum(c["different"] for c in run["counts"].values()) == len(moved)
    assert sum(c["compared"] for c in run["counts"].values()) >= 3
    for figure in run["figures"]:
        for row in figure["values"]:
            if row["before"] and row["after"]:
                ratio = row["after"]["unrounded"] / row["before"]["unrounded"]
                assert row["difference"] == pytest.approx((ratio - 1) * 100, abs=1e-4)


def test_the_parallel_run_equals_that_of_a_folder_that_always_had_the_other_method(world, tmp_path):
    other = METHODOLOGY.replace("widest = 0.3", "widest = 0.005").replace("A = 3", "A = 4")
    other = other.replace("cap = 0.7", "cap = 0.6")
    announced = released(world, DAY, CHANGE + other[other.index("[determination]") :])
    run = read(announced, "methodology/pending/2026-12.json")["parallel_run"]
    with serving(tmp_path / "other") as twin:
        twin.collect()
        twin.second_round()
        twin.collect()
        released(twin, DAY, initial=other)
        real = shown(twin, 1)
    found = of_run(run, "after")
    assert len(found) == 3
    for name, values in found.items():
        assert values == {p: v for p, v in real[name].items() if p >= "2024-11"}


def test_a_withheld_index_is_told_of_in_the_parallel_run(world):
    rules = RULES.replace("min_coverage = 0.8", "min_coverage = 1.0").replace("[baskets", SILVER + "[baskets", 1)
    announced = released(world, DAY, CHANGE + rules + IN_BASKET)
    run = read(announced, "methodology/pending/2026-12.json")["parallel_run"]
    (told,) = run["withheld"]
    assert told["id"] == "two-metals" and told["before"] is None and "own prices cover 67%" in told["after"]
    assert run["counts"]["index"] == {"compared": 1, "different": 1, "only_before": 1, "only_after": 0}
    assert all(row["after"] is None and row["difference"] is None for row in run["figures"][0]["values"])


SILVER = '[[markets]]\nmineral = "silver"\nstage = "metal"\nzone = "XCN"\nper = "product"\n\n'
IN_BASKET = SILVER.replace("markets", "baskets.two-metals.constituents").replace('per = "product"', 'production = "x"')


# --------------------------------------------------------------------------------- announcement


def test_a_change_that_no_release_announced_is_refused_whatever_its_dates_say(world):
    released(world, DAY)
    with pytest.raises(MethodError, match="2026-12: effective: 2026-12-21 has come, but no release.*2027-01-18"):
        released(world, EFFECT, LOWER_CAP)
    later = LOWER_CAP.replace("effective = 2026-12-21", "effective = 2027-01-18")
    assert read(released(world, EFFECT, later), "methodology.json")["in_force"]["id"] == "2026-11"
    day = dt.datetime(2027, 1, 18, tzinfo=dt.UTC)
    assert read(released(world, day, later), "methodology.json")["in_force"]["id"] == "2026-12"


def test_a_change_that_was_announced_too_late_is_warned_of_and_then_refused(world):
    released(world, DAY)
    late = released(world, DAY + dt.timedelta(days=1), LOWER_CAP)
    assert read(late, "methodology.json")["pending"][0]["earliest"] == "2026-12-22"
    assert [f["check"] for f in world.findings("lodemark")] == ["notice"]
    with pytest.raises(MethodError, match="release 2 of 2026-11-24 was the first .* earliest day is 2026-12-22"):
        released(world, EFFECT, LOWER_CAP)
    moved = LOWER_CAP.replace("effective = 2026-12-21", "effective = 2026-12-22")
    made = released(world, EFFECT + dt.timedelta(days=1), moved)
    assert made.manifest["methodology"]["id"] == "2026-12"


@pytest.mark.parametrize(
    "other",
    [
        LOWER_CAP.replace("cap = 0.6", "cap = 0.55"),
        LOWER_CAP.replace("effective = 2026-12-21", "effective = 2026-12-20"),
    ],
    ids=["other rules", "an earlier day"],
)
def test_another_change_than_the_announced_one_begins_its_notice_anew(world, other):
    shorter = METHODOLOGY.replace("notice_days = 28", "notice_days = 20")
    released(world, DAY, LOWER_CAP, initial=shorter)
    with pytest.raises(MethodError, match="no release has announced this change"):
        released(world, EFFECT, other, initial=shorter)


def test_comments_may_be_added_while_the_notice_runs(world):
    released(world, DAY, LOWER_CAP.replace('answer = "It was heard."\n', ""))
    made = released(world, EFFECT, LOWER_CAP)
    assert read(made, "methodology.json")["in_force"]["comments"][0]["answer"] == "It was heard."


def test_a_method_in_force_is_not_edited_nor_taken_back(world):
    released(world, DAY, LOWER_CAP)
    with pytest.raises(MethodError, match="2026-11: its rules are not those of the last release"):
        released(world, DAY + dt.timedelta(days=1), initial=METHODOLOGY.replace("cap = 0.7", "cap = 0.65"))
    remarked = METHODOLOGY + "# a remark\n"
    assert released(world, DAY + dt.timedelta(days=1), LOWER_CAP, initial=remarked).number == 2
    assert released(world, EFFECT, LOWER_CAP).manifest["methodology"]["id"] == "2026-12"
    with pytest.raises(MethodError, match="2026-11: effective: 2026-11-02 has come, but no release"):
        released(world, EFFECT + dt.timedelta(days=1))


def test_replayed_releases_prove_no_notice_and_need_none(world):
    with world.opened() as ws:
        ws.store.mark_replayed()
    released(world, DAY)
    assert released(world, EFFECT, LOWER_CAP).manifest["methodology"]["id"] == "2026-12"


def test_the_auditors_release_follows_what_the_public_was_told(world):
    world.methodology = methods(world, LOWER_CAP)
    inside = read(world.release("internal"), "methodology.json")
    assert inside["pending"][0]["announced"] is None
    world.release()
    world.now += dt.timedelta(hours=1)
    inside = read(world.release("internal"), "methodology.json")
    assert inside["pending"][0]["announced"]["release"] == 1
    world.now = EFFECT
    assert world.release("internal").manifest["methodology"]["id"] == "2026-12"


# ------------------------------------------------------------------------------------- another unit


def test_figures_in_another_unit_begin_anew_with_the_method_and_each_release_says_its_unit(world):
    for name, source in world.operation.sources.items():
        half = [s.model_copy(update={"content": 0.5} if s.mineral == "nickel" else {}) for s in source.series]
        world.set_source(name, series=tuple(half))
    rules = RULES.replace('base_period = "2025"', 'base_period = "2024"')
    rules = rules.replace('per = "product"', 'per = "contained"', 1)
    announced = released(world, DAY, CHANGE + rules)
    run = read(announced, "methodology/pending/2026-12.json")["parallel_run"]
    units = {f["id"]: (f["unit"]["before"], f["unit"]["after"]) for f in run["figures"]}
    assert units["two-metals"] == ("index, 2025 = 100", "index, 2024 = 100")
    assert units["nickel/metal/XCN"] == ("USD/t", "USD/t Ni contained")
    assert all(row["difference"] is None for f in run["figures"] for row in f["values"])
    released(world, EFFECT, CHANGE + rules)
    client = create_app(world.data / "public", world.data / "status.json").test_client()
    for address, (before, after) in (
        ("indices/two-metals", units["two-metals"]),
        ("prices/nickel/metal/XCN", units["nickel/metal/XCN"]),
    ):
        told = [client.get(f"/v1/{address}?from=2025&to=2025{rest}").json for rest in ("&asOf=release:1", "")]
        assert [t["meta"]["unit"] for t in told] == [before, after]
        assert [len(t["values"]) for t in told] == [12, 12] and [t["meta"]["withdrawn"] for t in told] == [[], []]
        assert {v["since_release"] for v in told[0]["values"]} == {1}
        assert {v["since_release"] for v in told[1]["values"]} == {2}
    levels = [client.get(f"/v1/indices/two-metals?from=2024&to=2025{r}").json for r in ("&asOf=release:1", "")]
    prices = [client.get(f"/v1/prices/nickel/metal/XCN?from=2025{r}").json for r in ("&asOf=release:1", "")]
    pairs = zip(*([v["unrounded"] for v in t["values"]] for t in prices), strict=True)
    assert all(after == pytest.approx(2 * before) for before, after in pairs)
    for told, base in zip(levels, ("2025", "2024"), strict=True):
        assert sum(v["unrounded"] for v in told["values"] if v["period"][:4] == base) / 12 == pytest.approx(100)


def test_the_same_method_in_another_unit_is_refused(world):
    made = released(world, DAY)
    path = world.data / "public" / "published.db"
    row = Row("price", "nickel/metal/XCN", "monthly", "EUR/t", "2026-10", 1.0, 1.0, "normal", "C")
    stamp = "2026-11-24T14:00:00.000000Z"
    with pytest.raises(ReleaseError, match="unit 'EUR/t', but 'USD/t' before"):
        published.append(path, made.number + 1, stamp, stamp, [row])


# ------------------------------------------------------------------------------ side by side, by hand


def side_by_side(old: list[Row], new: list[Row]) -> dict[str, Any]:
    method = load_methodology(Path(__file__).resolve().parents[2] / "methodology" / "2026-11.toml")
    return parallel_run(Draft(method, old, {}), Draft(method, new, {}), dt.date(2026, 11, 23))


def figure(value: float, unrounded: float, period: str = "2026-10", **changes: Any) -> Row:
    return Row("price", "tin/metal/XCN", "monthly", "USD/t", period, value, unrounded, "normal", "B")._replace(
        **changes
    )


@pytest.mark.parametrize(
    ("before", "after", "moved", "different", "difference"),
    [
        (figure(100.12, 100.1234), figure(100.1, 100.1234), 0, 0, 0.0),  # fewer decimals
        (figure(0.12, 0.125), figure(0.13, 0.125 + 1e-13), 0, 0, 0.0),  # the last bit, across a half
        (figure(100.12, 100.1211), figure(100.12, 100.1214), 0, 0, 0.0003),  # the same figure is published
        (figure(100.0, 100.0), figure(101.0, 101.0), 1, 1, 1.0),
        (figure(100.0, 100.0), figure(100.0, 100.0, grade="C"), 0, 1, 0.0),
        (figure(100.0, 100.0), figure(100.0, 100.0, status="imputed"), 0, 1, 0.0),
        (figure(100.0, 100.0), figure(100.0, 100.0, unit="USD/t Sn contained"), 1, 1, None),
        (figure(-2.0, -2.0, unit="%"), figure(1.0, 1.0, unit="%"), 1, 1, 3.0),  # points
        (figure(0.0, 0.0), figure(1.0, 1.0), 1, 1, None),
        (figure(100.0, 100.0), None, 1, 1, None),
        (None, figure(100.0, 100.0), 1, 1, None),
    ],
)
def test_a_month_differs_by_more_than_rounding_or_not_at_all(before, after, moved, different, difference):
    run = side_by_side([r for r in (before,) if r], [r for r in (after,) if r])
    assert run["counts"]["price"]["different"] == bool(different)
    assert len(run["figures"]) == bool(different)
    for found in run["figures"]:
        assert (found["moved_months"], found["different_months"]) == (moved, different)
        assert found["values"][0]["difference"] == difference
        assert found["difference_unit"] == ("points" if before and before.unit == "%" else "%")
        assert (found["unit"]["before"], found["unit"]["after"]) == tuple(r and r.unit for r in (before, after))


def test_a_parallel_run_goes_back_two_years_and_shows_months_only():
    rows = [figure(1.0, 1.0, p) for p in ("2024-10", "2024-11", "2026-10")]
    rows.append(figure(1.0, 1.0, "2026-11-20", frequency="daily"))
    run = side_by_side(rows, [r._replace(value=2.0, unrounded=2.0) for r in rows])
    assert [v["period"] for v in run["figures"][0]["values"]] == ["2024-11", "2026-10"]
    assert run["figures"][0]["largest_difference"] == 100.0
