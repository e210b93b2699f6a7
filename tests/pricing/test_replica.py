"""Another publisher's index rebuilt from its own prices and weights: the arithmetic, the settings, the command."""

from __future__ import annotations

import io
import json
from fractions import Fraction
from functools import cache
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
from click.testing import CliRunner

from pricing import config, sources
from pricing.config import Replica, load_replicas
from pricing.errors import ConfigError, MethodError
from pricing.replica import compared, rebuilt
from pricing.sources import worldbank
from service import main

ROOT = Path(__file__).resolve().parents[2]
REPLICAS = ROOT / "methodology" / "replicas"
VINTAGES = sorted((ROOT.parent / "shared" / "data" / "worldbank").glob("*.xlsx"))
real = pytest.mark.skipif(not VINTAGES, reason="needs ../shared/data/worldbank")
BASKETS = load_replicas(REPLICAS, "worldbank").baskets
METALS = sorted({m.column for basket in BASKETS.values() for m in basket.members})


def months(first: str, count: int) -> list[str]:
    return list(pd.period_range(first, periods=count, freq="M").strftime("%Y-%m"))


def basket(**weights: float) -> Replica:
    members = [{"column": column, "weight": weight} for column, weight in weights.items()]
    facts = {"title": "made", "index": "Made", "formula": "young", "base_period": "2010", "tolerance": 1e-9}
    return Replica.model_validate({**facts, "members": members})


# ---------------------------------------------------------------------------------- the arithmetic


def two_metals() -> pd.DataFrame:
    """Copper and tin; in 2010 they cost 10 and 5 in the mean, and 20 and 4 a year later."""
    copper, tin = [8.0, 12.0] * 6 + [20.0], [5.0] * 12 + [4.0]
    return pd.DataFrame({"copper": copper, "tin": tin, "lead": [7.0] * 12 + [70.0]}, index=months("2010-01", 13))


def test_shares_are_taken_over_the_relatives_to_the_mean_price_of_the_base_year():
    index = rebuilt(two_metals(), basket(copper=3, tin=1))
    assert index.values["2011-01"] == pytest.approx(100 * (3 * 2 + 1 * 0.8) / 4, rel=1e-15)
    assert index.values["2010-01"] == pytest.approx(100 * (3 * 0.8 + 1) / 4, rel=1e-15)
    assert index.values["2010-01":"2010-12"].mean() == pytest.approx(100, rel=1e-15)
    assert index.base == "2010" and list(index.values.index) == months("2010-01", 13)


def test_neither_the_scale_of_weights_nor_the_unit_of_a_price_matters():
    prices = two_metals()
    one, two = (
        rebuilt(prices, basket(copper=3, tin=1)),
        rebuilt(prices * [2204.6, 0.01, 1], basket(copper=0.3, tin=0.1)),
    )
    assert one.values.to_numpy() == pytest.approx(two.values.to_numpy(), rel=1e-14)


def test_a_month_in_which_a_member_has_no_price_is_null_and_agreement_is_denied():
    prices, both = two_metals(), basket(copper=3, tin=1)
    published = rebuilt(prices, both).values
    prices.loc["2011-01", "tin"] = float("nan")
    assert rebuilt(prices, both).values.isna().tolist() == [False] * 12 + [True]
    found = compared(prices, published, both)
    assert found.unmatched == ("2011-01",) and found.months == 12
    assert found.largest("absolute") == 0 and not found.agrees(1e-9)


def test_a_month_that_neither_side_has_is_not_passed_over():
    prices, both = two_metals(), basket(copper=3, tin=1)
    prices.index = [*months("2010-01", 12), "2011-03"]
    published = rebuilt(prices, both).values
    assert compared(prices, published, both).unmatched == ("2011-01", "2011-02")
    assert compared(prices, published.drop("2010-04"), both).unmatched == ("2010-04", "2011-01", "2011-02")


def test_nothing_is_rebuilt_without_the_whole_base_year_or_a_member():
    prices = two_metals()
    with pytest.raises(MethodError, match="made: no prices of zinc"):
        rebuilt(prices, basket(copper=1, zinc=1))
    with pytest.raises(MethodError, match="made: copper, tin lacks a price in a month of 2010"):
        rebuilt(prices.iloc[1:], basket(copper=1, tin=1))
    with pytest.raises(MethodError, match="no published values"):
        compared(prices, pd.Series(dtype=float), basket(copper=1))


def test_the_larger_of_absolute_and_relative_difference_decides():
    prices, both = two_metals(), basket(copper=3, tin=1)
    published = rebuilt(prices, both).values
    published["2011-01"] += 2e-9
    found = compared(prices, published, both)
    assert found.largest("absolute") == pytest.approx(2e-9, rel=1e-3)
    assert found.largest("relative") == pytest.approx(2e-9 / 170, rel=1e-3)
    assert not found.agrees(1e-9) and found.agrees(3e-9)


# -------------------------------------------------------------------------------------- the settings


def test_every_mistake_of_a_file_is_reported_at_once(tmp_path):
    (tmp_path / "bank.toml").write_text(
        """
        publisher = "p"
        [baskets.one]
        title = "t"
        index = "i"
        formula = "dutot"
        base_period = "2010-01"
        tolerance = -1
        cap = 0.1
        members = [{ column = "a", weight = 0 }, { column = "", weight = 1 }]
        [baskets.two]
        title = "t"
        index = "i"
        formula = "young"
        base_period = "2010"
        tolerance = 1e-9
        members = [{ column = "a", weight = 1 }, { column = "a", weight = 2 }]
        """
    )
    with pytest.raises(ConfigError) as refused:
        load_replicas(tmp_path, "bank")
    said = str(refused.value)
    for place in ("formula", "base_period", "tolerance", "cap: unknown key", "members.0.weight", "members.1.column"):
        assert f"baskets.one.{place}" in said, place
    assert "  weights: missing" in said and "baskets.two: a column stands in the basket twice: a" in said


def test_a_source_without_such_a_file_is_named_with_those_that_have_one(tmp_path):
    with pytest.raises(ConfigError, match="no index of source 'bank' is reproduced; there are those of: worldbank"):
        load_replicas(REPLICAS, "bank")
    with pytest.raises(ConfigError, match="there are those of: none"):
        load_replicas(tmp_path, "bank")


@pytest.mark.parametrize("path", sorted(REPLICAS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_file_as_shipped_is_of_a_source_whose_reader_can_serve_it(path):
    source = config.load_operation(ROOT / "config.toml").sources[path.stem]
    reader = sources.load(path.stem, source)
    assert callable(reader.monthly_prices) and callable(reader.published_indices)
    assert load_replicas(REPLICAS, path.stem).baskets


# -------------------------------------------------------------------------------------- the command

HEADS = [
    ["", "Total Index", "", "", "", "Precious Metals"],
    ["", "", "Energy", "Metals  & Minerals **", "", ""],
    ["", "", "", "", "Base Metals (ex. iron ore)", ""],
    ["", "", " ", "", "", ""],
]
GROUPS = {"worldbank-metals-and-minerals": 3, "worldbank-base-metals": 4, "worldbank-precious-metals": 5}
UNITS = {"Iron ore, cfr spot": "($/dmtu)", **dict.fromkeys(("Gold", "Silver", "Platinum"), "($/troy oz)")}


def by_hand(prices: dict[str, list[float]], name: str, month: int) -> float:
    """Cost of the basket that the weights buy at the mean price of the first twelve months, in exact fractions."""
    own = {m.column: Fraction(str(m.weight)) for m in BASKETS[name].members}
    cost = Fraction(0)
    for metal, weight in own.items():
        paid = [Fraction(price) for price in prices[metal]]
        cost += weight / (sum(paid[:12]) / 12) * paid[month]
    return float(100 * cost / sum(own.values()))


def workbook(stamp: str, *, wrong: float = 0.0) -> bytes:
    """Two years of all metals, and their indices as the publisher would state them; one value may be wrong."""
    prices = {metal: [100.0 + 7 * i + (t * (3 + i)) % 11 for t in range(24)] for i, metal in enumerate(METALS)}
    book = openpyxl.Workbook()
    sheets = [book.create_sheet(name) for name in ("Monthly Prices", "Monthly Indices")]
    for sheet in sheets:
        sheet.append(["World Bank Commodity Price Data"])
        sheet.append([f"Updated on {stamp}"])
    for row in (["", *METALS], ["", *(UNITS.get(metal, "($/mt)") for metal in METALS)]):
        sheets[0].append(row)
    for row in HEADS:
        sheets[1].append(row)
    for t, month in enumerate(months("2010-01", 24)):
        label = month.replace("-", "M")
        sheets[0].append([label, *(prices[metal][t] for metal in METALS)])
        values = {column: by_hand(prices, name, t) for name, column in GROUPS.items()}
        values[5] += wrong if month == "2011-07" else 0.0
        sheets[1].append([label, 1.0, 2.0, *(values[column] for column in (3, 4, 5))])
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def lodemark(data: Path, *arguments: object, code: int = 0) -> str:
    line = ["--quiet", "--config", str(ROOT / "config.toml"), "--data", str(data), *map(str, arguments)]
    result = CliRunner().invoke(main, line, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout if code != 2 else result.stderr


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pinksheet.xlsx"
    path.write_bytes(workbook("January 04, 2012"))
    return path


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_the_command_reproduces_an_index_that_was_computed_by_hand(tmp_path, file, name):
    (row,) = json.loads(lodemark(tmp_path, "index", name, "--source", "worldbank", file, "--json"))
    assert row["agrees"] and row["message"] == ""
    assert (row["vintage"], row["months"], row["first"], row["last"]) == ("2012-01-04", 24, "2010-01", "2011-12")
    assert row["rebuilt"] == pytest.approx(row["published"], rel=1e-14) and row["largest_relative"] < 1e-13
    assert not (tmp_path / "store.db").exists(), "files are looked at, not collected"


def test_one_wrong_value_in_the_middle_ends_with_1_and_shows_the_difference(tmp_path, file):
    bad = tmp_path / "wrong.xlsx"
    bad.write_bytes(workbook("February 02, 2012", wrong=1e-6))
    line = ("index", "worldbank-precious-metals", "--source", "worldbank", file, bad)
    good, wrong = json.loads(lodemark(tmp_path, *line, "--json", code=1))
    assert good["agrees"] and not wrong["agrees"]
    assert wrong["largest_absolute"] == pytest.approx(1e-6, rel=1e-4) and wrong["months"] == 24
    shown = lodemark(tmp_path, *line, code=1)
    assert "wrong.xlsx" in shown and "1.0e-06" in shown and "False" in shown


def test_a_document_that_cannot_be_read_fails_alone(tmp_path, file):
    (tmp_path / "moved.xlsx").write_bytes(b"<html>moved</html>")
    line = ("index", "worldbank-base-metals", "--source", "worldbank", tmp_path, "--json")
    one, two = json.loads(lodemark(tmp_path, *line, code=1))
    assert not one["agrees"] and "not a readable workbook" in one["message"] and one["months"] is None
    assert two["agrees"]


def test_without_files_every_collected_vintage_is_compared_once(tmp_path, file):
    data, later = tmp_path / "data", tmp_path / "later.xlsx"
    later.write_bytes(workbook("February 02, 2012"))
    lodemark(data, "backfill", "worldbank", file, later, file)
    rows = json.loads(lodemark(data, "index", "worldbank-base-metals", "--source", "worldbank", "--json"))
    assert [row["vintage"] for row in rows] == ["2012-01-04", "2012-02-02"] and all(row["agrees"] for row in rows)


def test_what_is_not_there_is_said_with_what_there_is(tmp_path):
    said = lodemark(tmp_path, "index", "worldbank-tin", "--source", "worldbank", code=2)
    assert "there are worldbank-base-metals" in said
    assert "no source 'bank'" in lodemark(tmp_path, "index", "worldbank-tin", "--source", "bank", code=2)
    assert "there are those of: worldbank" in lodemark(tmp_path, "index", "x", "--source", "usgs", code=2)
    lodemark(tmp_path, "index", "worldbank-base-metals", "--source", "worldbank", code=1)


# -------------------------------------------------------------------------------------- the real files


@cache
def read(path: Path) -> tuple[worldbank.Table, worldbank.Table]:
    raw = path.read_bytes()
    columns = [(metal,) for metal in METALS]
    return worldbank.monthly_prices(raw, columns), worldbank.published_indices(raw, [b.index for b in BASKETS.values()])


@real
@pytest.mark.parametrize("name", sorted(BASKETS))
@pytest.mark.parametrize("path", VINTAGES, ids=lambda path: path.stem)
def test_the_world_banks_own_index_is_reproduced_in_every_month_of_every_vintage(path, name):
    prices, published = read(path)
    found = compared(prices.values, published.values[BASKETS[name].index], BASKETS[name])
    assert found.agrees(1e-9), (found.largest("relative"), found.largest("absolute"), found.unmatched)
    assert found.frame.index[0] == "1960-01"
    assert found.frame.index[-1] == str(pd.Period(path.stem.partition("_")[2][:7], "M") - 1)


@real
@pytest.mark.parametrize("path", VINTAGES, ids=lambda path: path.stem)
def test_the_weights_are_those_of_the_workbooks_own_sheet(path):
    _, grid = worldbank.open_sheet(path.read_bytes(), ("Index Weights",))
    stated = {}
    for row in grid:
        names, numbers = ([x for x in row if isinstance(x, kind)] for kind in (str, float))
        if numbers:
            stated[next(x.strip() for x in names if x.strip())] = numbers[-1]
    for replica in BASKETS.values():
        for member in replica.members:
            assert member.weight == stated[{"Iron ore, cfr spot": "Iron Ore"}.get(member.column, member.column)]


@real
@pytest.mark.parametrize("name", sorted(BASKETS))
def test_a_weight_that_is_wrong_in_its_sixth_digit_is_noticed(name):
    prices, published = read(VINTAGES[-1])
    whole = BASKETS[name]
    for i, member in enumerate(whole.members):
        wrong = member.model_copy(update={"weight": member.weight * (1 + 1e-6)})
        other = whole.model_copy(update={"members": (*whole.members[:i], wrong, *whole.members[i + 1 :])})
        found = compared(prices.values, published.values[whole.index], other)
        assert not found.agrees(1e-9) and found.months == len(published.values), member.column


@real
def test_iron_ore_belongs_to_metals_and_minerals_only():
    prices, published = read(VINTAGES[-1])
    with_ore, without = BASKETS["worldbank-metals-and-minerals"], BASKETS["worldbank-base-metals"]
    assert not compared(prices.values, published.values[with_ore.index], without).agrees(1e-2)
    assert not compared(prices.values, published.values[without.index], with_ore).agrees(1e-2)
