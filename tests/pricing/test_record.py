"""Every determination record has the fields that the schema requires, and says whether it may be believed."""

import pytest

from pricing.documents import record
from pricing.documents.prices import determination_type


def test_the_schema_requires_what_annex_ii_asks_for_and_allows_nothing_else():
    defs = record.schema()["$defs"]
    asked = {
        "contributors",
        "excluded",
        "range",
        "spread",
        "tiers",
        "determination_type",
        "judgement",
        "largest_weight",
    }
    assert asked <= set(defs["Determination"]["required"])
    assert all(form.get("additionalProperties") is False for name, form in defs.items() if form["type"] == "object")


@pytest.mark.parametrize(
    ("tiers", "n", "said"),
    [
        ({"transaction": 0.5, "assessment": 0.5}, 2, "transaction-based"),
        ({"committed": 0.9, "transaction": 0.1}, 2, "assessed"),
        ({"official": 1.0}, 1, "official"),
        ({"official": 0.4, "assessment": 0.6}, 2, "assessed"),
        ({"model": 0.6, "assessment": 0.4}, 2, "interpolated or extrapolated"),
    ],
)
def test_a_price_is_called_by_what_weighs_half_or_more(tiers, n, said):
    assert determination_type(tiers, n, priced=True) == said
    assert determination_type(tiers, n, priced=False) == "none"
