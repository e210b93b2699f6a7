"""Which methodology document governs a day, and which changes are refused when the documents are read."""

import datetime as dt
import shutil
from pathlib import Path

import pytest

from benchmarks.small_world import METHODOLOGY
from pricing import config
from pricing.config import Methodologies, load_methodologies, load_methodology
from pricing.errors import ConfigError

ROOT = Path(__file__).parents[2] / "methodology"
CHANGE = {
    "id": '"2027-06"',
    "status": '"change"',
    "proposed": "2027-05-04",
    "comments_until": "2027-05-18",
    "effective": "2027-06-01",
    "rationale": '"Nickel outweighs cobalt more than a reader expects."',
    "changes": '["The cap goes from 70 % to 60 %."]',
}


def document(initial: str = METHODOLOGY, **keys: str | None) -> str:
    """A changed document: keys of the first table are set, or taken out where they are None."""
    head, bracket, rules = initial.strip().partition("\n[")
    lines = {line.split(" = ")[0]: line for line in head.splitlines() if " = " in line}
    for name, value in (CHANGE | keys).items():
        lines[name] = f"{name} = {value}" if value is not None else ""
    return "\n".join(filter(None, lines.values())) + bracket + rules


def known(folder: Path, *changes: str) -> Methodologies:
    (folder / "2026-11.toml").write_text(METHODOLOGY)
    for n, text in enumerate(changes):
        (folder / f"change-{n}.toml").write_text(text)
    return load_methodologies(folder)


def refusal(folder: Path, *changes: str) -> str:
    with pytest.raises(ConfigError) as caught:
        known(folder, *changes)
    return str(caught.value)


def test_a_change_of_method_is_not_in_force_before_its_day(tmp_path):
    methods = known(tmp_path, document())
    day = dt.date(2027, 5, 31)
    assert load_methodology(tmp_path, day).id == methods.in_force(day).id == "2026-11"
    assert [m.id for m in methods.pending(day)] == ["2027-06"] and methods.earlier(day) == ()
    day += dt.timedelta(days=1)
    assert load_methodology(tmp_path, day).id == methods.in_force(day).id == "2027-06"
    assert [m.id for m in methods.earlier(day)] == ["2026-11"] and methods.pending(day) == ()


def test_the_initial_method_governs_all_days_before_it(tmp_path):
    methods = known(tmp_path, document())
    assert load_methodology(tmp_path, dt.date(2016, 12, 2)).id == "2026-11"
    assert len(methods.pending(dt.date(2016, 12, 2))) == 1


def test_a_change_may_take_effect_on_the_day_its_notice_has_run_and_not_the_day_before(tmp_path):
    assert known(tmp_path, document(proposed="2027-05-04")).documents[1].effective == dt.date(2027, 6, 1)
    message = refusal(tmp_path, document(proposed="2027-05-05"))
    assert message.startswith(f"{tmp_path / 'change-0.toml'}: effective: 2027-06-01 comes before")
    assert "28 days" in message and message.endswith("the earliest day is 2027-06-02")


def test_a_change_cannot_shorten_its_own_notice_but_that_of_those_after_it(tmp_path):
    shorter = {"notice_days": "7", "comments_until": "2027-05-25"}
    assert "notice_days of 2026-11" in refusal(tmp_path, document(proposed="2027-05-20", **shorter))
    later = {"id": '"2027-07"', "proposed": "2027-06-01", "comments_until": "2027-06-05", "effective": "2027-06-08"}
    assert len(known(tmp_path, document(notice_days="7"), document(**later)).documents) == 3
    too_soon = later | {"effective": "2027-06-07"}
    assert "notice_days of 2027-06" in refusal(tmp_path, document(notice_days="7"), document(**too_soon))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"comments_until": "2027-05-03"}, "comments_until: 2027-05-03 is outside the days from proposed, 2027-05-04"),
        ({"comments_until": "2027-06-02"}, "to effective, 2027-06-01"),
        ({"effective": "2027-05-04"}, "effective: 2027-05-04 is not after proposed"),
        ({"comments_until": None}, "a change says comments_until too"),
        ({"rationale": None, "changes": None}, "a change says rationale, changes too"),
        ({"changes": '[""]'}, "changes.0: String should have at least 1 character"),
        ({"notice_days": "0"}, "notice_days: Input should be greater than or equal to 1"),
        ({"notice_days": None}, "notice_days: missing"),
        ({"status": '"initial"'}, "status: the first document, and only that, is 'initial'"),
        ({"id": '"2026-11"'}, "id: 2026-11 does not come after 2026-11"),
        ({"id": '"2026-10"'}, "id: 2026-10 does not come after 2026-11"),
    ],
)
def test_an_unfit_change_is_refused_with_its_file_and_key(tmp_path, keys, expected):
    message = refusal(tmp_path, document(**keys))
    assert message.startswith(str(tmp_path / "change-0.toml")) and expected in message


def test_two_documents_of_one_day_are_refused(tmp_path):
    assert "effective: 2027-06-01 is the day of 2027-06 too" in refusal(tmp_path, document(), document(id='"2027-07"'))


def test_a_method_begins_with_an_initial_document(tmp_path):
    (tmp_path / "2027-06.toml").write_text(document())
    with pytest.raises(ConfigError, match="'initial' \\(got 'change'\\)"):
        load_methodologies(tmp_path)


def test_a_proposal_outside_the_folder_is_judged_with_those_inside(tmp_path):
    folder = tmp_path / "methodology"
    folder.mkdir()
    known(folder)
    proposal = tmp_path / "proposal.toml"
    proposal.write_text(document(effective="2027-05-31"))
    with pytest.raises(ConfigError, match=f"{proposal}: effective"):
        load_methodologies(folder, proposal)
    proposal.write_text(document())
    assert [m.id for m in load_methodologies(folder, proposal).documents] == ["2026-11", "2027-06"]
    assert len(load_methodologies(folder, folder / "2026-11.toml").documents) == 1


def test_only_what_makes_figures_enters_the_hash_of_the_rules(tmp_path):
    initial, change = known(tmp_path, document()).documents
    assert change.rules_sha256 == initial.rules_sha256 and change.sha256 != initial.sha256
    for old, new in (("cap = 0.7", "cap = 0.6"), ("notice_days = 28", "notice_days = 29")):
        (tmp_path / "2026-11.toml").write_text(METHODOLOGY.replace(old, new))
        assert config.load_methodology(tmp_path / "2026-11.toml").rules_sha256 != initial.rules_sha256


@pytest.mark.parametrize("folder", [ROOT, ROOT / "demo"], ids=["real", "demo"])
def test_the_documents_as_shipped_are_in_order_and_bear_a_change(tmp_path, folder):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    initial = (tmp_path / "2026-11.toml").read_text()
    (tmp_path / "2027-06.toml").write_text(document(initial[initial.index("id =") :]))
    assert [m.id for m in load_methodologies(tmp_path).documents] == ["2026-11", "2027-06"]
