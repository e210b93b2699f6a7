"""The rules of a made methodology, that tests add their markets and baskets to."""

from __future__ import annotations

RULES = {
    "max_spread": 0.15,
    "max_weight": 0.49,
    "carry_days": 3,
    "interval": 80,
    "interval_periods": 250,
    "widest": 0.3,
    "stale_days": {"daily": 0, "weekly": 6, "ten-day": 0, "monthly": 0, "annual": 0},
    "relaxed_days": {"daily": 0, "weekly": 13, "ten-day": 0, "monthly": 0, "annual": 0},
    "tier_weights": {"transaction": 1.0, "committed": 0.9, "official": 0.8, "assessment": 0.7, "model": 0.3},
    "grades": {"A": 3, "B": 2, "C": 1},
    "month_share": 0.5,
}
METHOD = {
    "id": "2026-11",
    "title": "t",
    "status": "initial",
    "proposed": "2026-11-02",
    "effective": "2026-11-23",
    "notice_days": 28,
    "determination": RULES,
    "fallback": {
        "window": {"daily": 60, "ten-day": 18, "monthly": 12},
        "limit": {"daily": 10, "ten-day": 3, "monthly": 2},
    },
    "basis": {
        "review_month": 1,
        "window_months": 12,
        "min_common": {"daily": 20, "weekly": 8, "ten-day": 9, "monthly": 6},
    },
    "twins": {"risk_months": 36, "min_changes": 24, "geks_window": 25},
}
"""A methodology without markets and baskets."""
