"""The report of quality: a made world with two releases whose counts are known by hand."""

from __future__ import annotations

import copy
import datetime as dt
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from made_world import numbers, serving

from benchmarks.small_world import DAYS, MONTHS
from pricing import report
from pricing.report import Evidence, Span, assemble, gather, markdown
from service import main

NOVEMBER = Span("2026-11", "2026-11")
HALF = Span("2026-06", "2026-11")  # five months that were over at the second release, and the one that was not


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("world")
    with serving(made) as world:
        world.collect()
        world.release()
        world.second_round()
        world.collect()
        world.release()
    yield made


@pytest.fixture(scope="module")
def evidence(folder: Path) -> dict[str, Evidence]:
    return {"november": _gathered(folder, NOVEMBER), "half": _gathered(folder, HALF)}


def _gathered(folder: Path, span: Span, now: str = "2026-11-25T14:30:00Z") -> Evidence:
    from pricing import config, pipeline

    operation = config.load_operation(folder / "config.toml")
    method = config.load_methodology(folder / "methodology")
    clock = dt.datetime.fromisoformat(now)
    with pipeline.opened(folder / "data", operation, method, lambda: clock) as ws:
        return gather(ws, span)


def figures(made: dict[str, Any], section: str) -> dict[str, Any]:
    return dict(made["sections"][section]["figures"])


def rows(made: dict[str, Any], section: str, table: str) -> list[dict[str, Any]]:
    return list(made["sections"][section]["tables"][table])


def verdicts(made: dict[str, Any]) -> dict[str, str]:
    return {c["clause"]: c["verdict"] for c in made["clauses"]}


def call(folder: Path, *arguments: object) -> Result:
    line = ["--quiet", "--config", str(folder / "config.toml"), "report", "quality", *map(str, arguments)]
    return CliRunner().invoke(main, line, catch_exceptions=False)


# ------------------------------------------------------------------------------- known by hand


def test_coverage_counts_each_market_in_each_month_that_was_over(evidence):
    made = assemble(evidence["half"])
    table = rows(made, "coverage", "markets")
    assert [(r["month"], r["over"], r["zone"], r["listed"], r["monthly_price"], r["any_price"]) for r in table] == [
        *((month, True, "XCN", 2, 2, 2) for month in MONTHS[-5:]),
        ("2026-11", False, "XCN", 2, 0, 2),
    ]
    assert figures(made, "coverage") == {"market_months_over": 10, "market_months_priced": 10, "share": 1.0}
    (index,) = rows(made, "coverage", "indices")
    assert (index["index"], index["published"], index["needed"], index["values"]) == ("two-metals", True, 0.8, 5)


def test_releases_are_set_against_the_schedule_and_a_missed_one_is_counted(evidence):
    made = assemble(evidence["november"])
    # Friday 20 and Monday 23 were kept to the minute; Tuesday 24 and Wednesday 25 at 14:00 were due and not made
    told = figures(made, "timeliness")
    assert (told["due"], told["kept"], told["missed"], told["largest_delay_minutes"]) == (4, 2, 2, 0.0)
    first, second = rows(made, "timeliness", "ages")
    assert (first["alpha"], second["alpha"], second["beta"]) == (0.0, 0.0, 3.0)
    assert verdicts(made)["Annex II 1(f)"] == "not kept"


def test_a_release_that_came_late_is_kept_and_tells_its_delay(evidence):
    late = replace(evidence["november"], due=["2026-11-20T13:15:00.000000Z", "2026-11-23T14:00:00.000000Z"])
    told = figures(assemble(late), "timeliness")
    assert (told["kept"], told["missed"], told["median_delay_minutes"]) == (2, 0, 22.5)


def test_a_replayed_database_claims_no_timeliness(evidence):
    told = assemble(replace(evidence["november"], kind="replayed"))
    assert figures(told, "timeliness")["kept"] is None
    assert verdicts(told)["Annex II 1(f)"] == "not shown"


def test_revisions_withdrawals_and_findings_are_those_of_the_made_sources(evidence):
    made = assemble(evidence["november"])
    by_source = {r["source"]: r for r in rows(made, "changes", "sources")}
    # round 2: alpha revises one figure and adds two, euro withdraws two and adds two, days adds two
    assert {n: (r["documents"], r["revised"], r["withdrawn"]) for n, r in by_source.items()} == {
        **dict.fromkeys(("beta", "closed", "moody", "output", "rates"), (1, 0, 0)),
        "alpha": (2, 1, 0),
        "days": (2, 0, 0),
        "euro": (2, 0, 2),
    }
    assert (figures(made, "changes")["revised_by_sources"], figures(made, "changes")["withdrawn_by_sources"]) == (1, 2)
    # moody's second page is no table: refused, one error
    assert {"check": "layout", "severity": "error", "n": 1} in rows(made, "findings", "findings")
    assert figures(made, "findings")["error"] == 1


def test_reports_of_spans_that_follow_each_other_count_everything_once(folder, evidence, monkeypatch):
    whole = evidence["november"]
    second = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
    monkeypatch.setattr(Span, "begin", lambda self: second)
    later = _gathered(folder, NOVEMBER)
    monkeypatch.undo()
    monkeypatch.setattr(Span, "end", lambda self: second)
    earlier = _gathered(folder, NOVEMBER)
    assert (len(earlier.documents), len(later.documents)) == (8, 3)
    assert earlier.documents + later.documents == whole.documents
    assert earlier.findings + later.findings == whole.findings


def test_shares_of_type_grade_and_status_count_every_determination_of_the_span(evidence):
    made = assemble(evidence["november"])
    days = [d for d in DAYS if d.month == 11]  # each of two metals
    daily = [r for r in rows(made, "determinations", "statuses") if r["frequency"] == "daily"]
    assert daily == [{"frequency": "daily", "status": "normal", "n": 2 * len(days), "share": 1.0}]
    types = [r for r in rows(made, "determinations", "types") if r["frequency"] == "daily"]
    assert sum(r["n"] for r in types) == 2 * len(days) and sum(r["share"] for r in types) == pytest.approx(1)
    grades = {r["grade"]: r["n"] for r in rows(made, "determinations", "grades")}
    own = figures(made, "determinations")
    # euro withdrew one day of each metal: that day has one origin and grade C
    alone = sum(d["origins"] == 1 for d in evidence["november"].determinations)
    assert own["of_one_origin"] == alone == grades.get("C", 0)
    assert rows(made, "determinations", "tiers") == [{"tier": "official", "share": 1.0}]
    assert (own["above_cap"], own["weights_not_summing_to_1"], own["records_lacking_a_field"]) == (0, 0, 0)


def test_indicators_are_counted_by_the_rule_that_withheld_them(evidence):
    withheld = [{"value": None, "status": "withheld", "rule": r} for r in ("few-cells", "few-cells", "dominated")]
    given = {"value": 1.0, "status": "normal", "rule": None}
    made = assemble(replace(evidence["november"], indicators=[*withheld, given]))
    assert figures(made, "indicators") == {"published": 1, "withheld": 3}
    assert {r["rule"]: r["n"] for r in rows(made, "indicators", "rules")} == {"few-cells": 2, "dominated": 1, "none": 1}


def test_what_does_not_exist_yet_is_said_to_be_absent(evidence):
    said = assemble(evidence["november"])["sections"]["judgement"]["says"]
    assert "No forecast" in said and "No record of a detector" in said


# ------------------------------------------------------------------------------------- clauses


def test_a_clause_is_kept_only_by_figures_and_broken_by_one_that_is_wrong(evidence):
    sound = evidence["november"]
    clauses = ("Annex II 1(a)", "Annex II 1(c)", "Annex II 1(g)", "Annex II 10", "IOSCO FB P9")
    assert {verdicts(assemble(sound))[c] for c in clauses} == {"kept"}
    record = copy.deepcopy(sound.determinations[0])
    wrong = {
        "Annex II 1(a)": replace(sound, releases=[{**sound.releases[0], "method_matches": False}]),
        "Annex II 1(b)": replace(sound, releases=[{**sound.releases[0], "decisions_match": False}]),
        "Annex II 1(c)": replace(sound, determinations=[{**record, "contributors": record["contributors"][:1]}]),
        "Annex II 1(d)": replace(sound, indices=[{**sound.indices[0], "coverage": {"markets": 0.5, "weight": 0.9}}]),
        "Annex II 1(e)": replace(sound, determinations=[{**record, "value": None}]),
        "Annex II 1(g)": replace(sound, determinations=[{**record, "largest_weight": 0.51}]),
        "Annex II 7(a)": replace(sound, determinations=[{k: v for k, v in record.items() if k != "range"}]),
        "Annex II 10": replace(sound, proof={**sound.proof, "absent": 1}),
    }  # fmt: skip
    wrong["IOSCO FB P9"] = wrong["Annex II 7(a)"]
    for clause, spoilt in wrong.items():
        assert verdicts(assemble(spoilt))[clause] == "not kept", clause


def test_every_clause_tells_its_evidence_and_where_to_look(evidence):
    clauses = assemble(evidence["november"])["clauses"]
    assert len(clauses) == 14 and all(c["evidence"] and c["where"] for c in clauses)


def test_a_spoilt_file_of_a_release_breaks_the_clause_of_records(folder, tmp_path):
    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    file = copied / "data/public/releases/000002/gaps.json"
    content = file.read_bytes()
    file.unlink()  # a link to what other releases hold too
    file.write_bytes(content.replace(b"}", b" }", 1))
    assert verdicts(assemble(_gathered(copied, NOVEMBER)))["Annex II 10"] == "not kept"


def test_an_empty_span_shows_nothing_and_claims_nothing(folder):
    made = assemble(_gathered(folder, Span("2025-01", "2025-03")))
    assert made["releases"] == 0 and made["as_of"] is None
    assert set(verdicts(made).values()) == {"not shown"}
    assert all(not table for s in made["sections"].values() for table in s["tables"].values())
    assert "Nothing was released, so nothing is shown." in markdown(made)


def test_a_span_in_which_every_due_release_was_missed_does_not_keep_its_times(folder):
    made = assemble(_gathered(folder, Span("2026-12", "2026-12"), now="2027-01-05T00:00:00Z"))
    told = figures(made, "timeliness")
    assert (told["due"], told["kept"], told["missed"]) == (23, 0, 23)  # weekdays of December 2026
    assert verdicts(made).pop("Annex II 1(f)") == "not kept"


# --------------------------------------------------------------------------------- both forms


def test_json_and_markdown_say_the_same_numbers(evidence):
    made = assemble(evidence["half"])
    text = markdown(made)
    assert text.splitlines()[2] == "**Self-assessment, not assured**" and made["title"] in text
    for section in made["sections"].values():
        for name, value in section["figures"].items():
            assert f"- {name.replace('_', ' ')}: {'–' if value is None else value}\n" in text + "\n"
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = {float(c) for line in lines for c in line.strip("| ").split(" | ") if re.fullmatch(r"\d[\d.]*(e-\d+)?", c)}
    told = list(numbers([s["tables"] for s in made["sections"].values()]))
    assert len(told) > 50 and set(told) == cells
    for clause in made["clauses"]:
        assert f"### {clause['clause']}: {clause['verdict']}" in text
        assert all(f"- {line}" in text for line in clause["evidence"])


def test_the_command_writes_both_forms_and_changes_nothing_else(folder, tmp_path):
    def state() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in (folder / "data" / "public").rglob("*") if p.is_file()}

    before = state()
    span = ("--from", "2026-11", "--to", "2026-11")
    made = json.loads(call(folder, *span, "--json").stdout)
    assert made["releases"] == 2
    out = tmp_path / "quality.md"
    done = call(folder, *span, "--output", out)
    assert (done.exit_code, done.stdout, out.read_text("utf-8")) == (0, "", call(folder, *span).stdout)
    assert {k: v for k, v in state().items() if k in before} == before


@pytest.mark.parametrize(
    ("first", "last", "why"),
    [
        ("2026-13", "2026-12", "'2026-13' is not a month such as 2026-01"),
        ("2026", "2026-12", "'2026' is not a month such as 2026-01"),
        ("2026-01-01", "2026-12", "'2026-01-01' is not a month such as 2026-01"),
        ("2026-03", "2026-01", "the span ends in 2026-01, before it begins in 2026-03"),
    ],
)
def test_bad_dates_are_a_clear_error(folder, first, last, why):
    result = call(folder, "--from", first, "--to", last)
    assert result.exit_code == 2 and why in result.stderr and not result.stdout


def test_due_instants_follow_the_local_clock_through_both_changes():
    autumn = report.due("30 2 * * *", "Europe/Berlin", _at("2026-10-24"), _at("2026-10-27"))
    assert [a[:16] for a in autumn] == ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"]
    spring = report.due("0 14 * * mon-fri", "Europe/Berlin", _at("2026-03-27"), _at("2026-03-31"))
    assert [a[:16] for a in spring] == ["2026-03-27T13:00", "2026-03-30T12:00"]


def _at(day: str) -> dt.datetime:
    return dt.datetime.fromisoformat(f"{day}T00:00:00Z")
