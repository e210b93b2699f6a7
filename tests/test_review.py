"""``lodemark review`` from outside: what was held back, who decided, and what a release says of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks import small_world
from pricing.documents import record
from service import main

NICKEL, COBALT = "nickel/metal/XCN", "cobalt/metal/XCN"


def call(folder: Path, *arguments: object) -> Result:
    line = ["--quiet", "--config", str(folder / "config.toml"), *map(str, arguments)]
    return CliRunner().invoke(main, line, catch_exceptions=False)


def answer(folder: Path, *arguments: object) -> Any:
    result = call(folder, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def fails(folder: Path, *arguments: object, code: int = 1) -> str:
    result = call(folder, *arguments)
    assert result.exit_code == code and "Traceback" not in result.output, result.output
    return " ".join(result.stderr.split())


def decide(folder: Path, *arguments: object, reason: str, actor: str = "ann") -> Any:
    return answer(folder, "review", *arguments, "--reason", reason, "--actor", actor)


def load(folder: Path, name: str, *changes: tuple[bytes, bytes]) -> None:
    """Collect what a source says, with some of its text changed, as learnt now."""
    content = small_world.document(name, 1)
    for old, new in changes:
        assert old in content
        content = content.replace(old, new)
    file = folder / f"{name}.csv"
    file.write_bytes(content)
    answer(folder, "collect", name, file)


def release(folder: Path, *options: str) -> Path:
    return Path(answer(folder, "release", *options)["folder"])


def records(made: Path, market: str, frequency: str, year: str = "2026") -> dict[str, dict[str, Any]]:
    part = json.loads((made / "prices" / market / frequency / f"{year}.json").read_bytes())
    for one in part["determinations"]:
        record.check(one)
    return {one["period"]: one for one in part["determinations"]}


def held(folder: Path) -> list[dict[str, Any]]:
    return list(answer(folder, "review")["held"])


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collected")
    small_world.write(folder, "http://127.0.0.1:9")
    for name in small_world.SOURCES:
        load(folder, name)
    return folder


@pytest.fixture
def world(collected: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(collected, tmp_path / "world"))


def test_a_tonnage_in_another_unit_is_held_back_with_what_it_would_be_and_flows_once_accepted(world: Path) -> None:
    load(world, "output", (LAST, b"2025,3310000000,201500"))
    (row,) = held(world)
    assert (row["check"], row["value"], row["known"]["value"]) == ("unit-slip", 3_310_000_000.0, 3_303_000.0)
    (found,) = findings(world)
    assert found["evidence"]["undone"] == 3_310_000.0 and "kg and t" in row["why"]
    assert known_values(world, "output-nickel", "2025") == [3_303_000.0], "neither replaced nor withdrawn"
    decide(world, "accept", row["finding"], reason="confirmed-by-publisher")
    assert held(world) == [] and known_values(world, "output-nickel", "2025") == [3_303_000.0, 3_310_000_000.0]
    load(world, "output", (LAST, b"2025,3310000000,201501"))
    assert held(world) == [] and len(findings(world)) == 1


def test_what_the_publisher_corrects_waits_for_nobody(world: Path) -> None:
    load(world, "alpha", alpha_of("2026-08", "99999"))
    (row,) = held(world)
    assert (row["check"], row["period"], row["value"]) == ("placeholder", "2026-08", 99_999.0)
    load(world, "alpha", alpha_of("2026-08", "15001.5"))
    assert held(world) == [] and known_values(world, "alpha-nickel", "2026-08")[-1] == 15_001.5


def test_a_source_whose_unit_is_mistaken_stays_out_until_its_settings_are_mended(tmp_path: Path) -> None:
    small_world.write(tmp_path, "http://127.0.0.1:9")
    load(tmp_path, "alpha")
    file = tmp_path / "config.toml"
    right = file.read_text()
    file.write_text(right.replace('unit = "USD/kg"', 'unit = "USD/t"'))
    load(tmp_path, "beta")
    rows = held(tmp_path)
    assert [(r["series"], r["check"]) for r in rows] == [("beta-cobalt", "magnitude"), ("beta-nickel", "magnitude")]
    assert known_values(tmp_path, "beta-nickel", "2026-01") == [] and "kg and t would explain it" in rows[0]["why"]
    file.write_text(right)
    load(tmp_path, "beta")
    assert held(tmp_path) == [] and len(known_values(tmp_path, "beta-nickel", "2026-01")) == 1


def test_a_mistaken_magnitude_once_accepted_answers_for_the_series(tmp_path: Path) -> None:
    file = small_world.write(tmp_path, "http://127.0.0.1:9")
    load(tmp_path, "alpha")
    file.write_text(file.read_text().replace('unit = "USD/kg"', 'unit = "USD/t"'))
    load(tmp_path, "beta")
    for row in held(tmp_path):
        decide(tmp_path, "accept", row["finding"], reason="check-does-not-fit")
    line = next(x for x in small_world.document("beta", 1).splitlines() if x.startswith(b"2024-02"))
    load(tmp_path, "beta", (line, line + b"1"))
    assert held(tmp_path) == [] and len(known_values(tmp_path, "beta-nickel", "2024-01")) == 1


def test_a_period_that_a_document_gives_twice_is_shown_with_both_values_and_withdraws_nothing(world: Path) -> None:
    line, other = alpha_of("2026-08", "14000")
    before = known_values(world, "alpha-nickel", "2026-08")
    load(world, "alpha", (line, line + b"\n" + other))
    (found,) = [f for f in findings(world) if f["check"] == "duplicate-period"]
    assert found["evidence"]["values"] == sorted([14_000.0, *before]) and found["series"] == "alpha-nickel"
    assert known_values(world, "alpha-nickel", "2026-08") == before


def test_a_large_revision_is_told_once_with_both_figures_and_flows(world: Path) -> None:
    load(world, "alpha", alpha_of("2025-06", "20000"))
    load(world, "alpha", alpha_of("2025-06", "20000.5"))
    assert checks_of(world).count("revision") == 1
    assert known_values(world, "alpha-nickel", "2025-06")[-2:] == [20_000.0, 20_000.5]


def two_persons(folder: Path, *actors: str) -> None:
    file = folder / "config.toml"
    listed = ", ".join(f'"{a}"' for a in actors)
    said = f"[review]\npersons = {{ accept = 2, override = 2 }}\nactors = [{listed}]\n\n[web]"
    file.write_text(file.read_text().replace("[web]", said, 1))


def checks_of(folder: Path) -> list[str]:
    from pricing.store import Store

    with Store(folder / "data" / "store.db", None) as store:
        return [f["check"] for f in store.findings()]


# ------------------------------------------------------------------------------------- held back

LAST = b"2025,3303000,201500"


def test_a_figure_that_was_held_back_is_accepted_once_and_neither_held_nor_found_again(world: Path) -> None:
    load(world, "output", (LAST, b"2025,0,201500"))
    (row,) = held(world)
    known = {"value": 3_303_000.0, "status": "normal"}
    assert (row["series"], row["period"], row["value"], row["check"]) == ("output-nickel", "2025", 0.0, "not-positive")
    assert row["known"].items() >= known.items() and row["seen"] == 1 and 0 <= row["age_days"] < 1
    assert row["document"] == hashlib.sha256((world / "output.csv").read_bytes()).hexdigest()
    assert "output-nickel" in call(world, "review").output
    assert "is no reason to accept" in fails(
        world, "review", "accept", row["finding"], "--reason", "mistaken", "--actor", "a"
    )
    load(world, "output", (LAST, b"2025,0,201501"))
    assert held(world)[0]["seen"] == 2, "another document repeats it"
    made = decide(world, "accept", row["finding"], reason="check-does-not-fit")
    assert made["number"] == 1 and made["reason_text"] and made["source"] == "output" and made["value"] == 0.0
    assert held(world) == [] and known_values(world, "output-nickel", "2025") == [3_303_000.0, 0.0]
    load(world, "output", (LAST, b"2025,0,201502"))
    assert held(world) == [] and known_values(world, "output-nickel", "2025") == [3_303_000.0, 0.0]
    assert known_values(world, "output-cobalt", "2025") == [201_500.0, 201_501.0, 201_502.0]
    assert len(findings(world)) == 2
    again = ("--reason", "check-does-not-fit", "--actor", "ann")
    for number in (f["id"] for f in findings(world)):
        assert "is decided already" in fails(world, "review", "accept", number, *again)
    assert json.loads((release(world) / "manifest.json").read_bytes())["decisions"]["number"] == 1
    load(world, "output", (LAST, b"2025,-5,201502"))
    assert [r["value"] for r in held(world)] == [-5.0], "another value is another question"


def known_values(folder: Path, series: str, period: str) -> list[float]:
    from pricing.store import Store

    with Store(folder / "data" / "store.db", None) as store:
        return [float(v) for v in store.history(series, period)["value"]]


def findings(folder: Path) -> list[dict[str, Any]]:
    from pricing.store import Store

    with Store(folder / "data" / "store.db", None) as store:
        return [f for f in store.findings() if f["severity"] == "error"]


def alpha_of(month: str, price: str) -> tuple[bytes, bytes]:
    """The line of a month in alpha's table, and the same with another price of nickel."""
    line = next(x for x in small_world.document("alpha", 1).splitlines() if x.startswith(month.encode()))
    _, _, cobalt = line.split(b",")
    return line, b",".join((month.encode(), price.encode(), cobalt))


def test_a_quotation_in_another_unit_is_held_back_in_its_determination_until_it_is_included_or_corrected(world) -> None:
    rows = small_world.document("days", 1).decode().split()
    day, nickel, _ = rows[-3].split(",")
    load(world, "days", (rows[-3].encode(), rows[-3].replace(nickel, f"{float(nickel) / 1000:.5f}").encode()))
    first = records(release(world), "nickel/metal/XCN", "daily")[day]
    (out,) = first["excluded"]
    assert (out["origin"], out["rule"]) == ("alpha", "held: unit-slip (kg and t)")
    assert [c["origin"] for c in first["contributors"]] == ["euro"] and first["status"] == "normal"
    (slip,) = answer(world, "review")["slips"]
    assert (slip["market"], slip["frequency"], slip["period"]) == ("nickel/metal/XCN", "daily", day)
    assert "kg and t" in slip["why"] and "held back in determinations: 1" in call(world, "review").stdout

    span = ("override", "nickel/metal/XCN", day, "--frequency", "daily")
    decide(world, *span, "--include", "alpha", reason="confirmed-by-publisher")
    assert answer(world, "review")["slips"] == []
    second = records(release(world), "nickel/metal/XCN", "daily")[day]
    assert {c["origin"] for c in second["contributors"]} == {"alpha", "euro"} and second["status"] == "dispersed"

    answer(world, "review", "revoke", "1", "--reason", "mistaken", "--actor", "ann")
    assert len(answer(world, "review")["slips"]) == 1
    load(world, "days", (rows[-1].encode(), (rows[-1] + "0").encode()))  # the publisher sends it right
    assert answer(world, "review")["slips"] == []


def test_a_price_below_zero_cannot_be_accepted_and_once_rejected_is_not_raised_again(world: Path) -> None:
    load(world, "alpha", alpha_of("2026-08", "-7.5"))
    (row,) = held(world)
    reason = ("--reason", "publisher-error", "--actor", "ann")
    accept = fails(world, "review", "accept", row["finding"], "--reason", "confirmed-by-publisher", "--actor", "ann")
    assert "-7.5 is no price that a figure could rest on: reject it" in accept
    assert fails(world, "review", "reject", 999, *reason).startswith("lodemark: there is no finding 999")
    decide(world, "reject", row["finding"], reason="publisher-error")
    assert held(world) == [] and len(known_values(world, "alpha-nickel", "2026-08")) == 1
    load(world, "alpha", alpha_of("2026-08", "-7.5"), alpha_of("2026-07", "17000"))
    assert held(world) == [] and len(findings(world)) == 1
    assert len(known_values(world, "alpha-nickel", "2026-08")) == 1, "what was known before is not withdrawn"
    decide(world, "revoke", 1, reason="mistaken")
    assert [r["finding"] for r in held(world)] == [row["finding"]], "the question is open again"


def test_what_became_known_since_is_not_replaced_by_an_older_figure(world: Path) -> None:
    load(world, "output", (LAST, b"2025,0,201500"))
    (row,) = held(world)
    load(world, "output", (LAST, b"2025,3400000,201500"))
    said = fails(world, "review", "accept", row["finding"], "--reason", "confirmed-elsewhere", "--actor", "ann")
    assert "since then output-nickel 2025 became known as 3400000.0" in said
    assert answer(world, "review")["overrides"] == [] and call(world, "review", "log").stdout == ""


# ------------------------------------------------------------------------------------- overrides


def test_an_excluded_origin_is_as_if_it_had_not_quoted_and_the_releases_before_stand(world: Path) -> None:
    first = release(world)
    before = {p.relative_to(first): p.read_bytes() for p in first.rglob("*") if p.is_file()}
    made = decide(
        world, "override", NICKEL, "2025-03/2025-04", "--frequency", "monthly", "--exclude", "beta",
        reason="stale-quotation",
    )  # fmt: skip
    assert (made["number"], made["kind"], made["origin"]) == (1, "exclude", "beta")
    second = release(world)
    assert {p.relative_to(first): p.read_bytes() for p in first.rglob("*") if p.is_file()} == before
    was, now = (records(folder, NICKEL, "monthly", "2025") for folder in (first, second))
    assert {p for p in now if now[p] != was[p]} >= {"2025-03", "2025-04"}
    for month in ("2025-03", "2025-04"):
        (out,) = now[month]["excluded"]
        assert out["rule"] == "judged (decision 1)" and out["series"] == "beta-nickel"
        left = sorted(c["adjusted"] for c in now[month]["contributors"])
        assert len(left) == 2 == now[month]["origins"]
        assert now[month]["unrounded"] == pytest.approx(sum(left) / 2, rel=1e-12)
        (told,) = now[month]["judgement"]
        assert told == {**told, "decision": 1, "kind": "exclude", "reason": "stale-quotation", "origin": "beta"}
        assert set(told) == {"decision", "kind", "reason", "at", "origin"}, "who decided is for auditors"
    assert now["2025-05"]["judgement"] == "none" and now["2025-05"]["unrounded"] == was["2025-05"]["unrounded"]
    for name in (f"prices/{NICKEL}/monthly/2024.json", f"prices/{COBALT}/monthly/2025.json"):
        assert (second / name).read_bytes() == (first / name).read_bytes()
    manifests = [json.loads((folder / "manifest.json").read_bytes()) for folder in (first, second)]
    log = call(world, "review", "log").stdout.encode()
    assert [m["decisions"]["number"] for m in manifests] == [0, 1]
    assert manifests[1]["decisions"]["sha256"] == hashlib.sha256(log).hexdigest()
    assert manifests[0]["decisions"]["sha256"] == hashlib.sha256(b"").hexdigest()
    from pricing.archive import Archive

    assert Archive(world / "data" / "documents").get(manifests[1]["decisions"]["sha256"]) == log


def test_a_revoked_override_ends_from_then_on_and_gives_the_old_bytes_back(world: Path) -> None:
    first = release(world)
    name = f"prices/{NICKEL}/monthly/2025.json"
    decide(world, "override", NICKEL, "2025-03", "--frequency", "monthly", "--suspend", reason="market-closed")
    second = release(world)
    assert records(second, NICKEL, "monthly", "2025")["2025-03"]["status"] == "suspended"
    decide(world, "revoke", 1, reason="ended", actor="ben")
    third = release(world)
    assert (third / name).read_bytes() == (first / name).read_bytes() != (second / name).read_bytes()
    log = [json.loads(line) for line in call(world, "review", "log").stdout.splitlines()]
    assert [(d["number"], d["kind"], d["actor"]) for d in log] == [(1, "suspend", "ann"), (2, "revoke", "ben")]
    assert answer(world, "review")["overrides"] == []


def test_a_judged_price_says_so_and_an_auditor_reads_by_whom_and_why(world: Path) -> None:
    release(world)
    price = ("--frequency", "daily", "--price", 40_000, "--comment", "two bids at the close")
    day = small_world.DAYS[30].isoformat()  # of September 2026
    made = decide(world, "override", COBALT, day, *price, reason="unrepresentative")
    assert made["beside"]["release"] == 1 and made["beside"]["period"] == day
    level = made["beside"]["value"]
    assert made["beside"]["distance"] == pytest.approx(40_000 / level - 1, abs=1e-4)
    public, internal = release(world), release(world, "--internal")
    one, other = (records(folder, COBALT, "daily")[day] for folder in (public, internal))
    # an internal source quotes the market too: a judged price could repeat it, so the public is told that there is one
    assert (one["unrounded"], one["status"], one["carried"]) == (None, "confidential", None)
    shown = (other["unrounded"], other["type"], other["grade"], other["determination_type"])
    assert shown == (4e4, "judged", "C", "judged")
    assert one["interval"] is None and one["contributors"] == [] and one["origins"] == 0 and one["tiers"] == {}
    assert {r["rule"] for r in one["excluded"]} == {"judged (decision 1)"} and len(one["excluded"]) == 2
    assert other["judgement"] == [
        {**one["judgement"][0], "actors": ["ann"], "comment": "two bids at the close"}
    ]  # fmt: skip
    month = records(internal, COBALT, "monthly")[day[:7]]
    assert month["type"] == "mean-of-days" and month["judged_days"] == month["estimated_days"] == 1
    daily = [r["unrounded"] for p, r in records(internal, COBALT, "daily").items() if p[:7] == day[:7]]
    assert month["unrounded"] == pytest.approx(sum(daily) / len(daily), rel=1e-14) and 4e4 in daily
    assert "judged_days" not in records(public, NICKEL, "monthly")[day[:7]]
    span = ("--from", day[:7], "--to", "2026-11")
    report = answer(world, "report", "quality", *span)
    section = report["sections"]["judgement"]
    assert [(r["kind"], r["reason"], r["ever"]) for r in section["tables"]["decisions"]] == [
        ("price", "unrepresentative", 1)
    ]
    assert report["sections"]["determinations"]["figures"]["judged_by_hand"] == 1
    verdicts = {c["clause"]: c["verdict"] for c in report["clauses"]}
    assert verdicts["Annex II 1(b)"] == "in part" and verdicts["Annex II 1(c)"] == "kept"


def test_an_override_about_a_closed_origin_is_not_told_to_the_public(world: Path) -> None:
    first = release(world)
    span = ("2025-03", "--frequency", "monthly", "--exclude", "closed")
    decide(world, "override", NICKEL, *span, reason="publisher-error")
    second, audited = release(world), release(world, "--internal")
    name = f"prices/{NICKEL}/monthly/2025.json"
    assert (second / name).read_bytes() == (first / name).read_bytes()
    assert records(audited, NICKEL, "monthly", "2025")["2025-03"]["judgement"][0]["origin"] == "closed"


# ------------------------------------------------------------------------------------ two persons


def test_with_two_persons_nothing_changes_until_another_actor_confirms(world: Path) -> None:
    two_persons(world, "ann", "ben")
    suspend = ("2025-03", "--frequency", "monthly", "--suspend")
    first = release(world)
    name = f"prices/{NICKEL}/monthly/2025.json"
    decide(world, "override", NICKEL, *suspend, reason="market-closed")
    assert (release(world) / name).read_bytes() == (first / name).read_bytes()
    assert [p["number"] for p in answer(world, "review")["proposed"]] == [1]
    assert "waiting for a second person: 1" in call(world, "review").output
    assert "proposed by ann: another person" in fails(world, "review", "confirm", 1, "--actor", "ann")
    assert "carl may not decide" in fails(world, "review", "confirm", 1, "--actor", "carl")
    answer(world, "review", "confirm", 1, "--actor", "ben")
    made = release(world, "--internal")
    (told,) = records(made, NICKEL, "monthly", "2025")["2025-03"]["judgement"]
    assert told["actors"] == ["ann", "ben"]
    assert told["at"] == json.loads(call(world, "review", "log").stdout.splitlines()[1])["at"]
    load(world, "output", (LAST, b"2025,0,201500"))
    (row,) = held(world)
    decide(world, "accept", row["finding"], reason="confirmed-elsewhere", actor="ben")
    assert known_values(world, "output-nickel", "2025") == [3_303_000.0] and held(world)[0]["proposed"]
    waiting = fails(world, "review", "reject", row["finding"], "--reason", "publisher-error", "--actor", "ann")
    assert "has a proposal: confirm or revoke decision 3" in waiting
    answer(world, "review", "confirm", 3, "--actor", "ann")
    assert known_values(world, "output-nickel", "2025") == [3_303_000.0, 0.0] and held(world) == []


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["tin/metal/XCN", "2025-03", "--suspend"], 1, "no market 'tin/metal/XCN'; there are cobalt/metal/XCN, nickel"),
        ([NICKEL, "2025-3", "--suspend"], 1, "'2025-3' is no monthly period"),
        (
            [NICKEL, "2025-03", "--exclude", "delta"],
            1,
            "'delta' is no origin of nickel/metal/XCN monthly; there are al",
        ),
        ([NICKEL, "2025-03"], 2, "name one of --exclude ORIGIN"),
        ([NICKEL, "2025-03", "--suspend", "--price", "5"], 2, "name one of"),
        ([NICKEL, "2025-03", "--price", "nan", "--comment", "x"], 1, "a price is a number above zero; got nan"),
        ([NICKEL, "2025-03", "--price", "5"], 1, "names its evidence"),
    ],
)
def test_an_override_that_is_refused_says_why_and_records_nothing(
    collected: Path, arguments: list[str], code: int, why: str
) -> None:
    rest = ("--frequency", "monthly", "--reason", "unrepresentative", "--actor", "ann")
    rest = (*rest[:3], "publisher-error", *rest[4:]) if "--exclude" in arguments else rest
    assert why in fails(collected, "review", "override", *arguments, *rest, code=code)
    assert call(collected, "review", "log").stdout == ""


def test_the_reason_codes_are_listed(collected: Path) -> None:
    from pricing.decisions import REASONS

    rows = answer(collected, "review", "reasons")
    assert {r["reason"]: r["text"] for r in rows} == {code: text for code, (text, _) in REASONS.items()}
