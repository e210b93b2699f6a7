"""Everything on the real files of ``../shared/data``: backfilled, released, verified, asked over HTTP."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import sqlite3
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from pricing import config, declarations, pipeline
from pricing.store import Store
from pricing.web.app import create_app
from service import main

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
DATA = SHARED / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")

FILES = {
    "worldbank": ["worldbank"],
    "ecb": ["ecb/eurofxref-hist.csv"],
    "usgs": ["usgs/mcs2022", "usgs/mcs2023/world", "usgs/mcs2024", "usgs/mcs2026_data_release.csv"],
    "imf": ["imf/imf_external-data_thru2017M6_base2005.xls", "imf/imf_external-data_thru2020M2_base2016.xlsx",
            "imf/imf_external-data_thru2025M7_base2016.xls"],
    "lme": [f"daily/lme_westmetall_{m}.csv" for m in ("aluminium", "copper", "nickel", "zinc")],
}  # fmt: skip
CLOSED = ("imf", "lme")
METALS = ("aluminium", "copper", "nickel", "zinc", "lead", "tin", "gold")


def call(data: Path, *arguments: object, file: Path = ROOT / "config.toml") -> Result:
    line = ["--quiet", "--config", str(file), "--data", str(data), *map(str, arguments)]
    return CliRunner().invoke(main, line, catch_exceptions=False)


@dataclass(frozen=True)
class Real:
    """A folder with all real files backfilled, then released to both audiences."""

    data: Path
    before: Path  # the same folder before any release
    loaded: dict[str, list[dict[str, Any]]]
    made: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def public(self) -> Path:
        return Path(self.made["public"]["folder"])


def loaded(data: Path, *sources: str) -> dict[str, list[dict[str, Any]]]:
    out = {}
    for name in sources:
        result = call(data, "backfill", name, *(DATA / f for f in FILES[name]), "--json")
        out[name] = json.loads(result.stdout)
    return out


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    data, before = tmp_path_factory.mktemp("real"), tmp_path_factory.mktemp("before") / "data"
    made = Real(data, before, loaded(data, *FILES))
    shutil.copytree(data, before)
    for audience, options in (("public", []), ("internal", ["--internal"])):
        result = call(data, "release", *options, "--json")
        assert result.exit_code == 0, result.output
        made.made[audience] = json.loads(result.stdout)
    return made


@pytest.fixture(scope="session")
def store(real: Real) -> Iterator[Store]:
    with Store(real.data / "store.db") as opened:
        yield opened


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())


# -------------------------------------------------------------------------------------- loading


def test_every_file_is_loaded_or_passed_over_by_its_name(real: Real) -> None:
    outcomes = {n: {r["outcome"] for r in rows} for n, rows in real.loaded.items()}
    assert outcomes["worldbank"] == {"new"} and len(real.loaded["worldbank"]) == 17
    assert outcomes["imf"] == outcomes["lme"] == outcomes["ecb"] == {"new"}
    refused = [r["file"] for r in real.loaded["usgs"] if r["outcome"] == "refused"]
    assert refused == []
    new = {n: sum(r["new"] for r in rows) for n, rows in real.loaded.items()}
    assert new["worldbank"] > 8900 and new["imf"] > 7000 and new["lme"] > 18000 and new["ecb"] > 26000


def test_iron_ore_is_what_was_known_at_each_day(store: Store) -> None:
    def known(day: str) -> float:
        rows = store.observations(["wb-iron-ore"], as_of=dt.datetime.fromisoformat(f"{day}T12:00:00+00:00"))
        return float(rows.loc[rows["period"] == "2021-02", "value"].item())

    assert (known("2021-03-15"), known("2021-04-15")) == (164.77, 163.80)


@pytest.mark.parametrize(
    ("source", "name", "place"),
    [
        ("ecb", "ecb/KNOWN-BAD_eurofxref-daily_2026-03-13_comma-decimals.xml", "1,1476"),
        ("imf", "imf/KNOWN-BAD_datasets_commodity-prices_v2_misaligned.csv", ""),
    ],
)
def test_every_known_bad_file_is_refused_and_named(real: Real, source: str, name: str, place: str) -> None:
    result = call(real.data, "sources", "try", source, DATA / name)
    assert result.exit_code in (1, 2) and place in result.stderr and "Traceback" not in result.stderr
    before = (real.data / "store.db").stat().st_size
    rows = json.loads(call(real.data, "collect", source, DATA / name, "--json").stdout)
    assert [r["outcome"] for r in rows] in (["refused"], ["skipped"]) and rows[0]["new"] == 0
    assert (real.data / "store.db").stat().st_size - before < 100_000


def test_no_known_bad_file_is_forgotten_here() -> None:
    found = {str(p.relative_to(DATA)) for p in DATA.rglob("KNOWN-BAD*")}
    assert found == {
        "ecb/KNOWN-BAD_eurofxref-daily_2026-03-13_comma-decimals.xml",
        "imf/KNOWN-BAD_datasets_commodity-prices_v2_misaligned.csv",
    }


def test_the_checks_hold_back_no_figure_of_the_real_files_and_tell_of_few(store: Store) -> None:
    found = [f for f in store.findings() if f["check"] != "layout"]
    assert [f["message"] for f in found if f["severity"] == "error"] == []
    told = [f for f in found if f["severity"] == "warning" and f["source"] in FILES]
    checks = {f["check"] for f in told}
    assert checks <= {"revision", "missing-period", "discontinued", "unit-contradiction"}, (
        "prices moved, and were prices"
    )
    assert len(told) < 40
    potash = next(f for f in told if f["series"] == "wb-potassium-chloride")
    assert potash["check"] == "revision" and potash["evidence"]["deep"] > 400, "another quotation, back to 1977"


def test_what_would_have_been_learnt_before_the_release_is_refused(real: Real) -> None:
    rows = json.loads(call(real.data, "backfill", "investing",
                           DATA / "daily/investing_cobalt_futures_2022-12.csv", "--json").stdout)  # fmt: skip
    assert [r["outcome"] for r in rows] == ["refused"] and "is not after release" in rows[0]["message"]


# ---------------------------------------------------------------------------------- cross-checks


def monthly(store: Store, series: str) -> dict[str, float]:
    rows = store.observations([series])
    return dict(zip(rows["period"], rows["value"], strict=True))


@pytest.mark.parametrize(
    ("metal", "median"),
    [("copper", 0.053), ("nickel", 0.070), ("tin", 0.082), ("zinc", 0.071), ("lead", 0.104), ("gold", 0.024)],
)
def test_the_imf_agrees_with_the_pink_sheet_as_it_should(store: Store, metal: str, median: float) -> None:
    """Expected medians: per cent, 403 months to July 2025, against the Pink Sheet of 2025-11-04."""
    bank_rows = store.observations([f"wb-{metal}"], as_of=dt.datetime(2025, 11, 5, 12, tzinfo=dt.UTC))
    bank = dict(zip(bank_rows["period"], bank_rows["value"], strict=True))
    fund = monthly(store, f"imf-{metal}")
    months = sorted(m for m in bank.keys() & fund.keys() if "1992-01" <= m <= "2025-07")
    assert len(months) == 403
    difference = statistics.median(abs(fund[m] / bank[m] - 1) * 100 for m in months)
    assert difference == pytest.approx(median, abs=0.0006)


def test_monthly_means_of_the_lme_agree_with_the_pink_sheet_but_for_the_suspended_nickel(store: Store) -> None:
    medians, worst = {}, {}
    for metal in ("aluminium", "copper", "nickel", "zinc"):
        rows = store.observations([f"lme-{metal}"])
        days = defaultdict(list)
        for period, value in zip(rows["period"], rows["value"], strict=True):
            days[period[:7]].append(value)
        bank = monthly(store, f"wb-{metal}")
        off = {m: (statistics.fmean(v) / bank[m] - 1) * 100 for m, v in days.items() if m in bank}
        assert len(off) == 218
        medians[metal] = statistics.median(abs(v) for v in off.values())
        worst[metal] = max(off, key=lambda m, off=off: abs(off[m]))  # type: ignore[misc]
        if metal == "nickel":
            assert off["2022-03"] == pytest.approx(-6.1, abs=0.1)
    assert min(medians.values()) == pytest.approx(0.113, abs=0.0006)
    assert max(medians.values()) == pytest.approx(0.158, abs=0.0006)
    assert worst["nickel"] == "2022-03"


# ---------------------------------------------------------------------------------------- release


def test_both_releases_verify(real: Real) -> None:
    for audience in ("public", "internal"):
        result = call(real.data, "verify", real.made[audience]["folder"], "--json")
        report = json.loads(result.stdout)
        assert result.exit_code == 0 and report["ok"] and report["checked_files"] == real.made[audience]["files"]


def test_public_monthly_prices_are_the_pink_sheets_own_figures(real: Real) -> None:
    """Independent reader: the last column that the Bank published of each metal, in USD/t."""
    for metal in ("aluminium", "copper", "nickel", "tin"):
        rows = [r for p in sorted((real.public / f"prices/{metal}/metal/XCN/monthly").glob("*.json"))
                for r in read(p)["determinations"]]  # fmt: skip
        with Store(real.data / "store.db") as opened:
            bank = monthly(opened, f"wb-{metal}")
        shown = {r["period"]: r["unrounded"] for r in rows if r["unrounded"] is not None}
        assert shown == {p: v for p, v in bank.items() if p in shown} and len(shown) > 700
        assert {r["type"] for r in rows} == {"official"} and {r["grade"] for r in rows} == {"C"}


def test_the_index_answers_over_http_with_its_coverage(real: Real) -> None:
    client = create_app(real.data / "public", real.data / "status.json").test_client()
    assert client.get("/readyz").status_code == 200
    lines = {i["id"]: i for i in client.get("/v1/indices").get_json()["indices"]}
    assert lines["exchange-traded-metals"]["published"] is True
    assert lines["exchange-traded-metals"]["latest"]["monthly"]["period"] == "2026-02"
    assert lines["critical-minerals"]["published"] is False and "needs" in lines["critical-minerals"]["withheld"]
    document = client.get("/v1/indices/exchange-traded-metals").get_json()
    assert document["coverage"]["priced"] == document["coverage"]["listed"]
    rows = client.get("/v1/indices/exchange-traded-metals?from=2020&to=2020&frequency=monthly").get_json()["values"]
    assert len(rows) == 12 and statistics.fmean(r["unrounded"] for r in rows) == pytest.approx(100, abs=1e-9)


def test_the_history_of_the_index_follows_the_prices_it_is_made_of(real: Real) -> None:
    """Between two links the index is a sum of fixed quantities times prices: recomputed here from the documents."""
    name = "exchange-traded-metals"
    document = read(real.public / f"indices/{name}.json")
    link = next(w for w in document["weights"] if w["link"] == "2024-03")
    shares = {m["market"]: m["share"] for m in link["markets"]}

    def prices(market: str, year: int) -> dict[str, float]:
        rows = read(real.public / f"prices/{market}/monthly/{year}.json")["determinations"]
        return {r["period"]: r["unrounded"] for r in rows}

    at_link = {m: prices(m, 2024)["2024-03"] for m in shares}
    levels = {r["period"]: r["unrounded"] for r in read(real.public / f"indices/{name}/monthly/2024.json")["values"]}
    for month in ("2024-04", "2024-08", "2024-12"):
        ratio = sum(s * prices(m, 2024)[month] / at_link[m] for m, s in shares.items())
        assert levels[month] == pytest.approx(levels["2024-03"] * ratio, rel=1e-12)


# ----------------------------------------------------------------------------------------- rights


def numbers(node: Any) -> Iterator[float]:
    if isinstance(node, dict):
        for inner in node.values():
            yield from numbers(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from numbers(inner)
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield float(node)


@pytest.fixture(scope="session")
def shown(real: Real) -> set[float]:
    """Every number in every public file (but the sizes of files in the manifest) and in published.db.

    Not the quantiles of forecasts: among thousands of them some meet a closed figure by chance, and without the closed
    sources they are the same bytes (below).
    """
    public = [p for p in real.public.rglob("*.json") if p.name != "manifest.json" and "forecasts" not in p.parts]
    found = {n for p in public for n in numbers(read(p))}
    with closing(sqlite3.connect(real.data / "public" / "published.db")) as db:
        found |= {v for row in db.execute("SELECT value, unrounded FROM value") for v in row if v is not None}
    return found


def test_no_imf_or_lme_figure_can_be_read_from_the_public_release(real: Real, store: Store, shown: set[float]) -> None:
    operation = config.load_operation(ROOT / "config.toml")
    owner, series = operation.source_of(), operation.series()
    per_tonne = {"USD/lb": 1 / 0.00045359237, "USD/ozt": 1 / 0.0000311034768, "USD/kg": 1000.0}
    rows = store.db.query("SELECT n.name, o.value FROM observation o JOIN series n ON n.id = o.series"
                          " WHERE o.value IS NOT NULL")  # fmt: skip
    secret, opened = set(), set()
    for row in rows:
        factor = per_tonne.get(series[row["name"]].unit, 1.0)
        both = {row["value"], row["value"] * factor}
        if owner[row["name"]] not in CLOSED:
            opened |= both
        elif len(f"{row['value']:.9g}".replace(".", "").strip("0")) >= 5:  # shorter ones are met by chance
            secret |= both
    assert len(secret) > 8_000
    assert within(within(sorted(secret), shown), opened, absent=True) == []


def within(values: Iterable[float], others: Iterable[float], *, absent: bool = False) -> list[float]:
    """Those values that some other equals to 1e-9 (or that none does)."""
    wanted, there = np.array(list(values)), np.array(sorted(others))
    at = np.clip(np.searchsorted(there, wanted * (1 - 1e-9)), 0, len(there) - 1)
    near = np.abs(there[at] - wanted) <= 1e-9 * wanted
    return [float(v) for v in wanted[~near if absent else near]]


def test_the_same_search_finds_them_in_the_auditors_release(real: Real, store: Store) -> None:
    inside = {n for p in (Path(real.made["internal"]["folder"]) / "prices").rglob("*.json") for n in numbers(read(p))}
    copper = store.observations(["lme-copper"])["value"]
    assert len(within(copper.unique(), inside)) > 0.9 * copper.nunique()


def test_no_closed_series_is_named_and_no_fact_of_its_data_is_told_in_public(real: Real) -> None:
    operation = config.load_operation(ROOT / "config.toml")
    closed = {n for n, s in operation.sources.items() if not s.rights.publish_derived}
    assert {"imf", "lme", "komis", "investing"} <= closed
    ids = {s.id.encode() for n in closed for s in operation.sources[n].series if not s.quarantined}
    for path in real.public.rglob("*.json"):
        raw = path.read_bytes()
        assert not [i for i in ids if b'"' + i + b'"' in raw], path
    for row in read(real.public / "sources.json")["sources"]:
        if row["id"] in closed:
            assert not row.keys() & {"data", "series", "url"} and row["used_in_this_release"] is False
    documents = {d["source"] for d in read(real.public / "manifest.json")["documents"]}
    assert documents == {"worldbank", "ecb", "usgs"}
    told = read(real.data / "status.json")["sources"]
    assert not {k for n in closed for k in told[n]} & {"last_period", "observations", "last_vintage"}


def test_without_the_closed_sources_prices_and_indices_are_the_same_bytes(real: Real, tmp_path: Path) -> None:
    operation = config.load_operation(ROOT / "config.toml")
    method = config.load_methodology(ROOT / "methodology")
    sources = {n: s for n, s in operation.sources.items() if s.rights.publish_derived}
    bare = operation.model_copy(update={"sources": sources})
    at = dt.datetime.fromisoformat(read(real.public / "manifest.json")["vintage"])
    data = shutil.copytree(real.before, tmp_path / "data")
    with pipeline.opened(data, bare, method, lambda: at) as ws:
        made = pipeline.release(ws, "public", at, {})
    unlike = {
        n for n in made.manifest["files"] | read(real.public / "manifest.json")["files"]
        if not (real.public / n).exists() or (made.folder / n).read_bytes() != (real.public / n).read_bytes()
    }  # fmt: skip
    assert unlike == {"sources.json", "sources.json.gz"}


# ------------------------------------------------------------------------------------------- as of


def test_a_release_of_the_past_can_be_made_from_replayed_data(real: Real, tmp_path: Path) -> None:
    shutil.copytree(real.before, tmp_path, dirs_exist_ok=True)
    result = call(tmp_path, "release", "--at", "2022-12-31", "--json")
    assert result.exit_code == 0, result.output
    folder = Path(json.loads(result.stdout)["folder"])
    rows = read(folder / "prices/nickel/metal/XCN/monthly/2022.json")["determinations"]
    september = next(r for r in rows if r["period"] == "2022-09")
    assert september["value"] == 22857.87, "as known before it was revised to 22773.97"
    assert rows[-1]["period"] == "2022-09"
    later = json.loads(call(tmp_path, "release", "--at", "2024-03-01", "--json").stdout)
    rows = read(Path(later["folder"]) / "prices/nickel/metal/XCN/monthly/2022.json")["determinations"]
    assert next(r for r in rows if r["period"] == "2022-09")["value"] == 22773.97
    client = create_app(tmp_path / "public", tmp_path / "status.json").test_client()
    for as_of, value in (("2023-06-01", 22857.87), ("2024-06-01", 22773.97), ("release:1", 22857.87)):
        path = f"/v1/prices/nickel/metal/XCN?from=2022-09&to=2022-09&frequency=monthly&asOf={as_of}"
        assert [v["value"] for v in client.get(path).get_json()["values"]] == [value], as_of


def test_in_a_live_database_the_clock_says_when(tmp_path: Path) -> None:
    sheet = DATA / "worldbank/pinksheet_2026-03-03.xlsx"
    assert call(tmp_path, "collect", "worldbank", sheet).exit_code == 0
    result = call(tmp_path, "release", "--at", "2026-04-01")
    assert result.exit_code == 2 and "the clock says" in result.stderr
    assert call(tmp_path, "release").exit_code == 0


def test_the_repeated_rows_of_the_atlas_are_counted_once_and_its_contradictions_not_at_all():
    raw = pd.read_csv(SHARED / "data" / "trade" / "comtrade_2024_atlas.csv.gz", dtype={"cmd": str})
    rows = raw.assign(code=raw["cmd"] + raw["flow"], period="2024-12", kg=raw["netwgt"], status="normal")
    kept, findings = declarations.once(rows[list(declarations.COLUMNS)])
    repeated, contradicted = findings
    assert int(raw.duplicated().sum()) == 90_083  # as counted when the file was gathered
    assert repeated.message.startswith("90083 rows") and repeated.severity == "note"
    assert contradicted.severity == "error" and contradicted.evidence["rows"] == len(raw) - 90_083 - len(kept)
    assert not kept.duplicated(["code", "reporter", "partner", "period"]).any()
