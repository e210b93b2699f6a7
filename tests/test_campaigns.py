"""A short seeded sample of every campaign, and proof that its checks can fail."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import kill_campaign

ROOT = Path(__file__).resolve().parents[1]


def test_killing_collect_or_release_at_any_moment_loses_and_doubles_nothing() -> None:
    command = [sys.executable, "-m", "benchmarks.kill_campaign", "--moments", "6", "--seed", "11", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    moments = json.loads(done.stdout or "null")
    assert moments is not None, done.stderr
    assert [m["violations"] for m in moments] == [[]] * 6
    assert {m["start"] for m in moments} == {"empty", "second round"}
    assert sum("not killed" not in m["killed"] for m in moments) >= 3, "the steps are certain, the times are not"
    assert done.returncode == 0


# ------------------------------------------------------------------- the checks themselves can fail


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after one round, made in a process of its own as the campaign does."""
    code = (
        "import sys, pathlib; from benchmarks import kill_campaign as k\n"
        "with k.campaign() as made:\n"
        "    import shutil; shutil.copytree(made._folder / 'done-1', sys.argv[1])"
    )
    folder = tmp_path_factory.mktemp("campaign") / "done"
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, check=True, timeout=120)
    assert kill_campaign.half_done(folder) == []
    return folder


@pytest.fixture
def folder(undisturbed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed, tmp_path / "spot"))


def change(folder: Path, database: str, sql: str) -> None:
    """Spoil a database, behind the back of what guards it."""
    with closing(sqlite3.connect(folder / "data" / database)) as db:
        db.execute("DROP TRIGGER IF EXISTS observation_no_delete")
        assert db.execute(sql).rowcount > 0
        db.commit()


def test_a_lost_observation_and_a_forgotten_document_are_seen(folder: Path) -> None:
    change(folder, "store.db", "DELETE FROM observation WHERE period = '2025-03'")
    assert any("observations of a document that changed" in line for line in kill_campaign.half_done(folder))


def test_a_doubled_observation_is_seen(folder: Path) -> None:
    change(folder, "store.db", "INSERT INTO observation SELECT series, period, vintage + 1, value, status, document"
                               " FROM observation LIMIT 1")  # fmt: skip
    assert any("observations of a document that changed" in line for line in kill_campaign.half_done(folder))


def test_a_half_release_is_seen(folder: Path) -> None:
    (folder / "data/public/releases/000001/prices/cobalt/metal/XCN.json").unlink()
    assert "public: release 1: prices/cobalt/metal/XCN.json: missing" in kill_campaign.half_done(folder)


def test_a_pointer_to_nothing_is_seen(folder: Path) -> None:
    (folder / "data/internal/current").write_text("2\n")
    assert any(line.startswith("internal:") and "000002" in line for line in kill_campaign.half_done(folder))


def test_queryable_rows_that_are_not_those_of_the_documents_are_seen(folder: Path) -> None:
    change(folder, "public/published.db", "UPDATE value SET unrounded = unrounded * 1.0001 WHERE period = '2025-06'")
    assert any("published.db and documents differ" in line for line in kill_campaign.half_done(folder))


def test_validators_of_a_document_that_was_not_stored_are_seen(folder: Path) -> None:
    change(folder, "store.db", "DELETE FROM parsed WHERE document = 3")
    wrong = kill_campaign.half_done(folder)
    assert any("has the validators of a document that was not stored" in line for line in wrong)


def test_a_release_that_differs_in_one_file_differs_from_the_undisturbed_run(folder: Path, undisturbed: Path) -> None:
    same = kill_campaign.contents(undisturbed, signatures=True)
    assert kill_campaign.contents(folder, signatures=True) == same
    path = folder / "data/public/releases/000001/root.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b" ")
    now = kill_campaign.contents(folder, signatures=True)
    assert [n for n in same if same[n] != now[n]] == ["public/releases/000001/root.json"]
