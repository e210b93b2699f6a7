"""``lodemark methodology``: the method in words, its documents, and the check of a proposed change."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import service
from benchmarks import small_world
from tests.pricing.made_world import serving
from tests.pricing.test_method_changes import DAY, LOWER_CAP

TODAY = DAY + dt.timedelta(days=2)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_now", lambda: TODAY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_world.write(tmp_path, "http://127.0.0.1:9")
    return tmp_path


@pytest.fixture
def proposal(tmp_path: Path) -> Path:
    file = tmp_path / "proposal.toml"
    file.write_text(LOWER_CAP)
    return file


def call(folder: Path, *arguments: object) -> Result:
    line = ["--quiet", "--config", str(folder / "config.toml"), "methodology", *map(str, arguments)]
    return CliRunner().invoke(service.main, line, catch_exceptions=False)


def answer(folder: Path, *arguments: object, code: int = 0) -> Any:
    result = call(folder, *arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_alone_it_prints_the_method_in_force(folder):
    result = call(folder)
    assert result.exit_code == 0 and "No market weighs more than 70 %" in result.stdout


def test_documents_are_listed_with_their_state(folder):
    assert [(row["id"], row["state"]) for row in answer(folder, "list")] == [("2026-11", "in force")]
    (folder / "methodology" / "2026-12.toml").write_text(LOWER_CAP)
    rows = answer(folder, "list")
    assert [(row["id"], row["state"]) for row in rows] == [("2026-11", "in force"), ("2026-12", "pending")]
    assert rows[1]["effective"] == "2026-12-21" and rows[1]["comments_until"] == "2026-12-07"


def test_a_proposal_is_told_its_earliest_day_and_what_it_changes(folder, proposal):
    told = answer(folder, "check", proposal)
    assert (told["effective"], told["earliest"], told["refused"]) == ("2026-12-21", "2026-12-21", "")
    cap = (
        "Indices, two-metals: No market weighs more than {} % when the basket is renewed; "
        "the rest is spread over the others."
    )
    assert told["before"] == [cap.format(70)] and told["after"] == [cap.format(60)]
    said = call(folder, "check", proposal).stdout
    assert f"- {cap.format(70)}\n+ {cap.format(60)}\n" in said
    assert not (folder / "data").exists()


def test_a_proposal_that_changes_no_rule_says_so(folder, proposal):
    proposal.write_text(LOWER_CAP.replace("cap = 0.6", "cap = 0.7"))
    assert "no rule differs from 2026-11" in call(folder, "check", proposal).stdout


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("effective = 2026-12-21", "effective = 2026-12-20", "the earliest day is 2026-12-21"),
        ('[[markets]]\nmineral = "cobalt"', '[[markets]]\nmineral = "tin"', "no market cobalt/metal/XCN"),
        ('production = "output-cobalt"', 'production = "alpha-cobalt"', "alpha-cobalt is a price series"),
        ("cap = 0.6", "cap = 0.6\ncup = 1", "cup: unknown key"),
    ],
)
def test_an_unfit_proposal_ends_with_2_and_says_why(folder, proposal, old, new, expected):
    assert old in LOWER_CAP
    proposal.write_text(LOWER_CAP.replace(old, new, 1))
    result = call(folder, "check", proposal)
    assert result.exit_code == 2 and expected in " ".join(result.stderr.split())


def test_a_pending_document_that_does_not_fit_the_settings_ends_every_command(folder):
    (folder / "methodology" / "2026-12.toml").write_text(LOWER_CAP.replace("output-cobalt", "alpha-cobalt"))
    assert call(folder, "list").exit_code == 2


def test_a_proposal_that_releases_cannot_announce_in_time_ends_with_1(tmp_path):
    with serving(tmp_path) as world:
        world.collect()
        world.now = DAY
        world.release()
    file = tmp_path / "proposal.toml"
    file.write_text(LOWER_CAP)
    told = answer(tmp_path, "check", file, code=1)
    assert told["earliest"] == "2026-12-23"  # announced today at best, two days after it was proposed
    assert "the next release, if it is made today, is the first to announce it" in told["refused"]
    file.write_text(LOWER_CAP.replace("effective = 2026-12-21", "effective = 2026-12-23"))
    assert answer(tmp_path, "check", file)["refused"] == ""
