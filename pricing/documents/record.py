"""What a determination record holds: its fields, required, as settings that give the JSON schema.

The fields are those that Regulation (EU) 2016/1011, Annex II, 7(a) and (b) ask for with each determination:
how many inputs and of which kind, their range and mean, what it rests on, what was excluded by which rule,
and whether anybody judged. A public record leaves out what would give a closed value away; an auditor's has all.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pricing.decisions import Reason
from pricing.judgement import OverrideKind

Status = Literal["normal", "estimated", "missing", "dispersed", "suspended", "held", "confidential"]
Share = Field(ge=0, le=1)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Interval(_Record):
    """Bounds of the interval of a price, in the market's unit, and its nominal coverage in per cent."""

    low: float
    high: float
    level: int


class Range(_Record):
    """Lowest, highest and mean of the adjusted prices that made the determination."""

    low: float | None
    high: float | None
    mean: float | None


class Contributor(_Record):
    """One origin's quotation: what was quoted, and each factor to the adjusted price."""

    series: str
    origin: str
    source: str
    tier: str
    unit: str
    age_days: int | None = None
    weight: float | None = None
    quoted: float | None = None
    usd_per_t: float | None = None
    usd_per_currency: float | None = None
    rate_of: str | None = None
    vat: float | None = None
    basis: float | None = None
    adjusted: float | None = None


class Excluded(Contributor):
    """A quotation that did not enter, and the rule that kept it out."""

    rule: str = Field(min_length=1)


class Influence(_Record):
    """The origin without which the price would be furthest away, and how far, as a share."""

    origin: str
    moves: float


class Carried(_Record):
    """The last price, shown where a day has none; it enters no figure."""

    value: float
    since: str = Field(alias="from")


class Linked(_Record):
    """The linked market's price of the period, and the usual ratio to it, over so many common periods before."""

    market: str
    price: float
    ratio: float
    common: int


class DaysPriced(_Record):
    """Days of a month that have a price, where a mean of days could not stand for it."""

    priced: int
    weekdays: int
    needed: float


class Judgement(_Record):
    """A person's decision that bears on the determination: its number in the log, and since when it is in effect.

    Who decided and in which words stands in the auditors' records only.
    """

    decision: int
    kind: OverrideKind
    reason: Reason
    at: str
    origin: str | None = None
    actors: list[str] | None = None
    comment: str | None = None


class Figure(_Record):
    """What every record says of its period."""

    period: str
    value: float | None
    unrounded: float | None
    status: Status
    grade: Literal["A", "B", "C"] | None
    type: str
    interval: Interval | None
    origins: int
    shocks: list[str] = Field(default=[], description="ids of the shocks that the period is part of")


class Determination(Figure):
    """A price formed from the quotations of its period."""

    range: Range | None
    spread: float | None
    largest_weight: float | None
    influence: Influence | None
    carried: Carried | None
    judgement: Literal["none"] | list[Judgement]
    contributors: list[Contributor]
    excluded: list[Excluded]
    tiers: dict[str, float]
    not_from_days: DaysPriced | None = None
    linked: Linked | None = None
    determination_type: Literal[
        "transaction-based",
        "assessed",
        "official",
        "spread-based",
        "interpolated or extrapolated",
        "judged",
        "carried",
        "none",
    ]


class MeanOfDays(Figure):
    """A monthly price as the mean of its daily determinations, whose records it names."""

    days: int
    weekdays: int
    records: str
    estimated_days: int | None = None
    judged_days: int | None = None


class MeanOfTenDays(Figure):
    """A monthly price as the mean of its ten-day determinations."""

    ten_day_periods: int
    of: int
    records: str
    estimated_ten_day_periods: int | None = None
    judged_ten_day_periods: int | None = None


def schema() -> dict[str, Any]:
    """Return the JSON schema (2020-12) of a record, whichever of the three forms it has."""
    forms = {
        model.__name__: model.model_json_schema(by_alias=True) for model in (Determination, MeanOfDays, MeanOfTenDays)
    }
    defs = {name: d for form in forms.values() for name, d in form.pop("$defs", {}).items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Determination record",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in forms],
        "$defs": {**defs, **forms},
    }


def check(record: dict[str, Any]) -> None:
    """Check one record. Raises pydantic.ValidationError that names every field amiss."""
    model = MeanOfDays if "weekdays" in record else MeanOfTenDays if "ten_day_periods" in record else Determination
    model.model_validate(record)
