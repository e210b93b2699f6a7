"""Which methodology document governs a day."""

import datetime as dt
from pathlib import Path

from pricing.config import load_methodology

REAL = Path(__file__).parents[2] / "methodology" / "2026-11.toml"


def test_a_change_of_method_is_not_in_force_before_its_day(tmp_path):
    initial = REAL.read_text()
    (tmp_path / "2026-11.toml").write_text(initial)
    change = initial.replace('id = "2026-11"', 'id = "2027-06"').replace('status = "initial"', 'status = "change"')
    (tmp_path / "2027-06.toml").write_text(change.replace("effective = 2026-11-23", "effective = 2027-06-01"))
    day = dt.date(2027, 5, 31)
    assert load_methodology(tmp_path, day).id == "2026-11"
    assert load_methodology(tmp_path, day + dt.timedelta(days=1)).id == "2027-06"


def test_the_initial_method_governs_all_days_before_it(tmp_path):
    (tmp_path / "2026-11.toml").write_text(REAL.read_text())
    assert load_methodology(tmp_path, dt.date(2016, 12, 2)).id == "2026-11"
