"""Decimals are counted for whole columns at once; each count must be that of the number as it is written."""

from __future__ import annotations

from decimal import Decimal

import pandas as pd
from hypothesis import example, given
from hypothesis import strategies as st

from pricing.store import _decimals, _spans

AS_PUBLISHED = st.decimals(-(10**15), 10**15, allow_nan=False, places=None).map(float)
ROUNDED = st.builds(round, st.floats(-1e18, 1e18), st.integers(0, 12))
ANY = st.floats(allow_nan=False, allow_infinity=False)


def _written(value: float) -> int:
    exponent = Decimal(repr(value)).normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


@given(st.lists(AS_PUBLISHED | ROUNDED | ANY, min_size=1, max_size=50))
@example([0.1 + 0.2, 1e-10, 5e-324, 1.7e308, 2.0**51 + 0.5, 2.0**52 + 0.5, 123456789012345.67, -0.0, 164.77])
def test_each_value_counts_the_decimals_that_it_is_written_with(values: list[float]) -> None:
    found = _decimals(pd.DataFrame({"series": range(len(values)), "value": values}))
    assert found == {i: _written(v) for i, v in enumerate(values)}


def test_a_missing_value_shows_no_decimals_and_the_most_of_a_series_counts() -> None:
    frame = pd.DataFrame({"series": [7, 7, 7, 9], "value": [1.5, float("nan"), 2.25, float("nan")]})
    assert _decimals(frame) == {7: 2, 9: 0}


def test_the_span_of_a_series_is_its_first_and_last_period_in_whatever_order_they_come() -> None:
    periods = ["2024-02", "2023-12", "2024-01", "2020-05"]
    assert _spans(pd.DataFrame({"series": [1, 1, 1, 2], "period": periods}), to_the_end=False) == [
        (1, "2023-12", "2024-02"),
        (2, "2020-05", "2020-05"),
    ]


def test_a_document_without_a_figure_has_no_span() -> None:
    empty = pd.DataFrame({"series": pd.Series(dtype="object"), "period": pd.Series(dtype="str")})
    assert _spans(empty, to_the_end=False) == []
