"""The chart of an alert, from the documents of its release."""

from __future__ import annotations

import json
import struct

from mail_server import alert, shock

from pricing import charts


def test_the_chart_of_an_alert_is_a_wide_picture_of_its_series_as_released(tmp_path):
    rows = [{"period": f"2026-01-{d:02d}", "value": 33_000.0 + d} for d in range(1, 6)]
    file = tmp_path / "releases" / "000003" / "prices" / "cobalt" / "metal" / "XCN.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"values": {"daily": rows}}))
    png = charts.of_alert(alert(), tmp_path)
    assert png is not None and png.startswith(b"\x89PNG\r\n\x1a\n") and len(png) < 200_000
    width, height = struct.unpack(">II", png[16:24])
    assert width > 600 and width > height
    assert charts.of_alert(alert(release=4), tmp_path) is None
    assert charts.of_alert(alert(shocks=[]), tmp_path) is None
    assert charts.of_alert(alert(shocks=[shock(href="/v1/../../../etc/passwd")]), tmp_path) is None


def test_a_gap_is_drawn_as_the_ratio_that_was_judged():
    assert charts._level({"china": 2.0, "other": 4.0, "value": -50.0}) == 0.5
    assert charts._level({"china": None, "other": 4.0}) is None
