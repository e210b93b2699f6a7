"""What a release says: complete, self-consistent, and a function of its inputs alone."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_world
import pytest

from benchmarks.small_world import METHODOLOGY, NOW, SOURCES
from pricing import releases
from pricing.config import Basket
from pricing.documents.indices import _next_review
from pricing.store import iso
from pricing.web.app import create_app

ROOT = Path(__file__).resolve().parents[2]
MARKETS = ("nickel/metal/XCN", "cobalt/metal/XCN")
STATUSES = {
    "normal",
    "provisional",
    "revised",
    "back-cast",
    "imputed",
    "insufficient",
    "dispersed",
    "suspended",
    "missing",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[releases.Release]]:
    """Two public releases of the made market; between them sources revised, added and withdrew."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            patched.delenv(name, raising=False)
        with made_world.serving(tmp_path_factory.mktemp("documents")) as world:
            world.collect()
            first = world.release()
            world.second_round()
            world.collect()
            yield [first, world.release()]


def read(release: releases.Release, name: str) -> Any:
    return json.loads((release.folder / name).read_bytes())


def documents(release: releases.Release, *folders: str) -> dict[str, Any]:
    names = [n for n in release.manifest["files"] if n.endswith(".json") and n.split("/")[0] in folders]
    return {n: read(release, n) for n in names}


# ---------------------------------------------------------------------- what every value carries


def test_every_current_document_names_its_release_vintage_method_and_sources(made: list[releases.Release]) -> None:
    for release in made:
        for name, document in documents(release, "prices", "indices").items():
            meta = document["meta"]
            assert meta["methodology"]["id"] == "2026-11" and len(meta["methodology"]["sha256"]) == 64, name
            assert meta["simulated"] is False and meta["audience"] == "public" and meta["note"]
            assert meta["sources"], name
            for source in meta["sources"]:
                assert source["publisher"] and source["attribution"] == f"Made by {source['id']}" and source["licence"]
            if not name.split("/")[-1].removesuffix(".json").isdecimal():
                assert meta["release"] == release.number and meta["vintage"] == iso(NOW[release.number]), name
                assert meta["released_at"] == meta["vintage"] and meta["next_release"] > meta["vintage"]


def test_every_price_has_unit_status_type_grade_and_every_contributor_its_unit_and_source(
    made: list[releases.Release],
) -> None:
    seen = 0
    for name, document in documents(made[1], "prices").items():
        assert document["market"]["unit"] == "USD/t", name
        for row in document.get("determinations", []):
            assert row["status"] in STATUSES and row["type"]
            assert (row["value"] is None) == (row["unrounded"] is None)
            if row["value"] is not None:
                assert row["grade"] in ("A", "B", "C") and row["origins"] >= 1
                seen += 1
            for one in [*row.get("contributors", []), *row.get("excluded", [])]:
                assert one["unit"] in ("USD/t", "USD/kg", "EUR/t") and one["source"] in SOURCES and one["origin"]
            assert all(one["rule"] for one in row.get("excluded", []))
    assert seen > 200


def test_every_index_value_has_a_unit_and_a_status_and_rounds_what_stands_beside_it(
    made: list[releases.Release],
) -> None:
    rounded = 0
    for name, document in documents(made[1], "prices", "indices").items():
        if name.startswith("indices/"):
            assert document["unit"] == "index, 2025 = 100"
        values = document.get("determinations") or document.get("values")
        rows = values if isinstance(values, list) else [v for part in values.values() for v in part]
        for row in rows:
            assert row["status"]
            if row["unrounded"] is not None:
                assert row["value"] == round(row["unrounded"], 2)
                rounded += 1
    assert rounded > 250


def test_a_contributor_can_be_followed_from_its_quotation_to_its_place_in_the_median(
    made: list[releases.Release],
) -> None:
    kilograms, rates = {"USD/t": 1.0, "EUR/t": 1.0, "USD/kg": 1000.0}, set()
    for key in MARKETS:
        for name, document in documents(made[1], "prices").items():
            if not name.startswith(f"prices/{key}/"):
                continue
            for row in document["determinations"]:
                for one in row.get("contributors", []):
                    rate = one.get("usd_per_currency", 1.0)
                    rates.add(rate)
                    assert one["usd_per_t"] == pytest.approx(one["quoted"] * rate * kilograms[one["unit"]], rel=1e-12)
                    assert one["adjusted"] == pytest.approx(one["usd_per_t"] / one["basis"], rel=1e-12)
                weights = [one["weight"] for one in row.get("contributors", [])]
                assert not weights or math.fsum(weights) == pytest.approx(1, abs=1e-12)
    assert len(rates) > 50, "the euro quotations use the rate of their day"


# ------------------------------------------------------------------------------------- indices


def test_an_index_document_says_its_coverage_in_numbers_and_in_words(made: list[releases.Release]) -> None:
    document = read(made[1], "indices/two-metals.json")
    coverage = document["coverage"]
    assert (coverage["listed"], coverage["priced"], coverage["missing"], coverage["weight"]) == (2, 2, [], 1.0)
    assert coverage["zones"] == {"XCN": {"listed": 2, "priced": 2}}
    assert "2 listed markets have an own price" in coverage["statement"]
    assert document["published"] is True and document["withheld"] is None
    (line,) = read(made[1], "indices.json")["indices"]
    assert line["coverage"] == coverage and line["latest"] == document["latest"]


def test_the_weights_of_a_link_are_capped_sum_to_one_and_name_where_they_come_from(
    made: list[releases.Release],
) -> None:
    links = read(made[1], "indices/two-metals.json")["weights"]
    assert links
    for link in links:
        shares = {m["market"]: m["share"] for m in link["markets"]}
        assert math.fsum(shares.values()) == pytest.approx(1, abs=1e-12) and max(shares.values()) <= 0.7 + 1e-12
        values = {m["market"]: m["tonnes"] * m["price_usd_per_t"] for m in link["markets"]}
        nickel = values["nickel/metal/XCN"] / math.fsum(values.values())
        uncapped = {m["market"]: m["uncapped"] for m in link["markets"]}
        assert uncapped["nickel/metal/XCN"] == pytest.approx(nickel, rel=1e-12) and nickel > 0.7
        assert {m["production"]["source"] for m in link["markets"]} == {"output"}


def test_an_index_says_when_it_is_reviewed_and_how_far_its_links_have_drifted(made: list[releases.Release]) -> None:
    document = read(made[1], "indices/two-metals.json")
    assert document["review"] == {"month": 2, "next": "2027-02"}
    twins, drift = document["twins"], document["drift"]
    assert "Analytical" in twins["note"] and "Analytical" in drift["note"] and drift["unit"] == "%"
    assert set(twins) == {"note", "unweighted", "equal_risk", "superlative"}
    for name in ("unweighted", "superlative"):
        twin = twins[name]
        assert twin["analytical"] is True and twin["withheld"] is None and 20 < len(twin["values"]) <= 36
        assert twin["latest"] == twin["values"][-1]
    months = {row["period"]: row["unrounded"] for row in document["values"]["monthly"]}
    latest = twins["superlative"]["latest"]
    expected = (months[latest["period"]] / latest["unrounded"] - 1) * 100
    assert drift["latest"] == {"period": latest["period"], "value": pytest.approx(expected, abs=5e-5)}
    (link,) = twins["equal_risk"]["weights"]  # in March 2025 no price was three years old, nor two
    assert link["link"] == "2026-03" and {row["status"] for row in twins["equal_risk"]["values"][:-7]} == {"back-cast"}
    shares = {m["market"]: m["share"] for m in link["markets"]}
    assert math.fsum(shares.values()) == pytest.approx(1, abs=1e-12) and max(shares.values()) <= 0.7 + 1e-12
    inverse = {m["market"]: 1 / m["volatility"] for m in link["markets"]}
    for one in link["markets"]:
        assert one["uncapped"] == pytest.approx(inverse[one["market"]] / math.fsum(inverse.values()), rel=1e-12)


@pytest.mark.parametrize(("month", "told"), [("2026-01", "2026-02"), ("2026-02", "2027-02"), ("2026-12", "2027-02")])
def test_the_next_review_is_the_first_that_is_not_under_way(month: str, told: str) -> None:
    document = tomllib.loads(METHODOLOGY)["baskets"]["two-metals"]
    assert _next_review(Basket.model_validate(document), month) == told


def test_twins_are_never_queried_as_indices(made: list[releases.Release]) -> None:
    root = made[1].folder.parent.parent
    client = create_app(root, root.parent / "status.json").test_client()
    for name in ("unweighted", "equal_risk", "equal-risk", "superlative", "two-metals-unweighted", "twins", "drift"):
        assert client.get(f"/v1/indices/{name}").status_code == 404
        assert client.get(f"/v1/indices/two-metals/{name}").status_code == 404
    assert [line["id"] for line in read(made[1], "indices.json")["indices"]] == ["two-metals"]
    answer = client.get("/v1/indices/two-metals?from=2025-01&to=2026-12").get_json()
    assert "superlative" not in json.dumps(answer)


def test_the_contributions_sum_to_the_change_of_the_index(made: list[releases.Release]) -> None:
    for release in made:
        parts = documents(release, "indices")
        rows = [v for n in sorted(parts) if n.startswith("indices/two-metals/monthly/") for v in parts[n]["values"]]
        given = [r for r in rows if r["unrounded"] is not None]
        assert len(given) > 30
        for before, now in zip(given, given[1:], strict=False):
            moved = math.fsum(m["points"] for m in now["moved_by"].values())
            assert moved == pytest.approx(now["unrounded"] - before["unrounded"], abs=1e-10), now["period"]


def test_the_mean_of_the_base_period_is_a_hundred(made: list[releases.Release]) -> None:
    values = [v["unrounded"] for v in read(made[1], "indices/two-metals/monthly/2025.json")["values"]]
    assert len(values) == 12 and math.fsum(values) / 12 == pytest.approx(100, abs=1e-10)


# -------------------------------------------------------------------------------- consistency


def test_the_yearly_parts_hold_what_the_current_documents_show_of_them(made: list[releases.Release]) -> None:
    parts = documents(made[1], "prices", "indices")
    for name, key in ((f"prices/{MARKETS[0]}", "determinations"), (f"prices/{MARKETS[1]}", "determinations"),
                      ("indices/two-metals", "values")):  # fmt: skip
        document = parts[f"{name}.json"]
        for frequency, recent in document["values"].items():
            years = [entry["year"] for entry in document["history"][frequency]]
            whole = [row for y in years for row in parts[f"{name}/{frequency}/{y}.json"][key]]
            assert [r["period"] for r in whole] == sorted({r["period"] for r in whole})
            for short, long in zip(recent, whole[-len(recent) :], strict=True):
                assert short.items() <= long.items()
            last = [r for r in whole if r["unrounded"] is not None][-1]
            latest = document["latest"][frequency]
            assert {k: latest[k] for k in ("period", "value", "unrounded", "status")}.items() <= last.items()


def test_every_address_in_a_document_answers(made: list[releases.Release]) -> None:
    root = made[1].folder.parent.parent
    client = create_app(root, root.parent / "status.json").test_client()

    def addresses(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            for key, value in node.items():
                if key in ("href", "records") and isinstance(value, str):
                    yield value
                yield from addresses(value)
        elif isinstance(node, list):
            for value in node:
                yield from addresses(value)

    found = {a for d in documents(made[1], "prices", "indices", "root.json", "prices.json", "indices.json").values()
             for a in addresses(d)}  # fmt: skip
    found |= set(read(made[1], "root.json")["links"].values())
    assert len(found) > 15
    assert {a: client.get(a).status_code for a in found} == dict.fromkeys(found, 200)


def test_a_month_that_is_a_mean_of_days_is_that_mean(made: list[releases.Release]) -> None:
    months = read(made[1], f"prices/{MARKETS[0]}/monthly/2026.json")["determinations"]
    (september,) = [m for m in months if m["period"] == "2026-09"]
    assert september["type"] == "mean-of-days" and september["days"] == 22
    days = read(made[1], f"prices/{MARKETS[0]}/daily/2026.json")["determinations"]
    values = [d["unrounded"] for d in days if d["period"].startswith("2026-09") and d["unrounded"] is not None]
    assert len(values) == 22 and september["unrounded"] == pytest.approx(math.fsum(values) / 22, rel=1e-12)
    assert not [m for m in months if m["period"] == "2026-11"], "November is not over"


# ------------------------------------------------------------------------- same inputs, same bytes


def test_a_year_in_which_nothing_changed_is_the_same_file_in_both_releases(made: list[releases.Release]) -> None:
    same, other = set(), set()
    for name in made[0].manifest["files"]:
        if name.startswith(("prices/", "indices/")) and name.removesuffix(".gz").split("/")[-1][:4].isdecimal():
            inodes = {(release.folder / name).stat().st_ino for release in made}
            (same if len(inodes) == 1 else other).add(name)
    past = {f"prices/{key}/monthly/{year}.json" for key in MARKETS for year in (2024, 2025)}
    assert past <= same and {f"{name}.gz" for name in past} <= same
    assert {f"prices/{key}/daily/2026.json" for key in MARKETS} <= other
    for name in other:
        assert len({release.manifest["files"][name]["sha256"] for release in made}) == 2, "equal bytes, stored twice"


def test_nothing_outside_the_inputs_enters_a_release(tmp_path: Path) -> None:
    """Two processes at other places, in other time zones, with other orders of sets: the same bytes."""
    code = """
import sys, pathlib, hashlib, json
from benchmarks import small_world as w
from pricing import config, pipeline
folder = pathlib.Path(sys.argv[1])
file = w.write(folder, "http://127.0.0.1:1")
operation, method = config.load_operation(file), config.load_methodology(folder / "methodology")
for n in (1, 2):
    with pipeline.opened(folder / "data", operation, method, lambda: w.NOW[n]) as ws:
        for name in operation.sources:
            pipeline.take(ws, name, w.document(name, n), w.NOW[n], name + ".csv")
        made = [pipeline.release(ws, audience, w.NOW[n], {}) for audience in ("public", "internal")]
print(json.dumps([m.manifest for m in made]))
"""
    manifests = []
    for seed, zone in (("1", "Asia/Tokyo"), ("2", "America/New_York")):
        env = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone}
        command = [sys.executable, "-c", code, str(tmp_path / seed)]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        manifests.append(json.loads(done.stdout.splitlines()[-1]))
    assert manifests[0] == manifests[1]
    assert [m["number"] for m in manifests[0]] == [2, 2] and len(manifests[0][0]["files"]) > 30
