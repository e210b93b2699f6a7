"""The log of decisions: what a person may decide, with which reason, and what stands at an instant.

Pure. A decision is one typed record of an append-only log; nothing in it is ever edited. One that needs two
persons is *proposed* until another one confirms it. ``standing`` folds a log into what it amounts to.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import orjson
import pandas as pd
from pydantic import Field, TypeAdapter

from pricing.config import Methodology, Operation, Review
from pricing.errors import DecisionError
from pricing.judgement import Judgement, OverrideKind
from pricing.settings import Settings

Frequency = Literal["daily", "ten-day", "monthly"]
Reason = Literal[
    "confirmed-by-publisher",
    "confirmed-elsewhere",
    "check-does-not-fit",
    "publisher-error",
    "reading-error",
    "stale-quotation",
    "other-specification",
    "market-closed",
    "unrepresentative",
    "no-usable-input",
    "mistaken",
    "ended",
]

REASONS: dict[Reason, tuple[str, frozenset[str]]] = {
    "confirmed-by-publisher": ("the publisher confirmed the figure", frozenset({"accept", "include"})),
    "confirmed-elsewhere": ("an independent document says the same", frozenset({"accept", "include"})),
    "check-does-not-fit": ("the check does not fit what was quoted", frozenset({"accept", "include"})),
    "publisher-error": ("the publisher's figure is wrong", frozenset({"reject", "exclude"})),
    "reading-error": ("the document was misread; the reader is to be mended", frozenset({"reject", "exclude"})),
    "stale-quotation": ("an old price was repeated", frozenset({"reject", "exclude", "suspend"})),
    "other-specification": ("another grade, delivery or tax was quoted", frozenset({"reject", "exclude"})),
    "market-closed": ("trading was suspended or its trades were voided", frozenset({"suspend"})),
    "unrepresentative": ("what was quoted does not stand for the market", frozenset({"exclude", "suspend", "price"})),
    "no-usable-input": ("nobody quoted, and other evidence tells the price", frozenset({"price"})),
    "mistaken": ("the decision was mistaken", frozenset({"revoke"})),
    "ended": ("what it answered has ended or was corrected", frozenset({"revoke"})),
}
"""Every reason code: its text, and the kinds of decision that it may be given for."""


# --------------------------------------------------------------------------------------- records


class _Record(Settings):
    """One line of the log. ``at`` is an instant, ISO, UTC."""

    number: int = Field(ge=1)
    at: str
    actor: str = Field(min_length=1)
    comment: str = ""


class _Reasoned(_Record):
    reason: Reason
    reason_text: str
    persons: Literal[1, 2] = 1


class OnFinding(_Reasoned):
    """A figure that was held back is accepted, or stays out."""

    kind: Literal["accept", "reject"]
    finding: int
    check: str
    source: str
    series: str
    period: str
    value: float
    document: str = Field(description="SHA-256")
    read_by: str = Field(description="hash of the rules by which the document was read")

    @property
    def figure(self) -> tuple[str, str, float]:
        """Series, period and value."""
        return (self.series, self.period, self.value)


class Override(_Reasoned):
    """A determination is changed: see ``pricing.judgement.Judgement``."""

    kind: OverrideKind
    market: str
    frequency: Frequency
    first: str
    last: str
    origin: str = ""
    price: float | None = None
    unit: str = Field(default="", description="of the price: the market's, by the method of the day")


class Revoke(_Reasoned):
    """A decision ends, from now on; what was made under it stays as it was."""

    kind: Literal["revoke"]
    decision: int


class Confirm(_Record):
    """A second person agrees to a proposed decision, which takes effect."""

    kind: Literal["confirm"]
    decision: int


Decision = OnFinding | Override | Revoke | Confirm
_READER: TypeAdapter[Decision] = TypeAdapter(Annotated[Decision, Field(discriminator="kind")])


def line(record: Decision) -> str:
    """Return a record as one line of the log: canonical JSON."""
    return orjson.dumps(record.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS).decode()


def read(lines: Iterable[str]) -> tuple[Decision, ...]:
    """Inverse of ``line``. Raises pydantic.ValidationError for a line that no version of ours wrote."""
    return tuple(_READER.validate_json(one) for one in lines)


# -------------------------------------------------------------------------------------- standing


@dataclass(frozen=True)
class Standing:
    """What a log amounts to.

    ``proposed`` wait for a second person; ``taken`` are in effect, by number, with the instant since when and
    all who agreed. Confirmations and revocations are in neither: they are in what they did.
    """

    proposed: dict[int, Decision]
    taken: dict[int, tuple[Decision, str, tuple[str, ...]]]

    @property
    def judgements(self) -> tuple[Judgement, ...]:
        """Overrides in force, in order of their numbers."""
        names = ("kind", "market", "frequency", "first", "last", "reason", "origin", "price", "unit", "comment")
        return tuple(
            Judgement(decision=n, since=since, actors=actors, **{name: getattr(one, name) for name in names})
            for n, (one, since, actors) in sorted(self.taken.items())
            if isinstance(one, Override)
        )

    @property
    def accepted(self) -> frozenset[tuple[str, str, float]]:
        """(series, period, value) of figures that are no longer held back."""
        return frozenset(one.figure for one in self._on_findings("accept"))

    @property
    def rejected(self) -> frozenset[tuple[str, str, float, str]]:
        """(series, period, value, register) of figures that stay out and raise no finding again."""
        return frozenset((*one.figure, one.read_by) for one in self._on_findings("reject"))

    def decides(self, series: str, period: str, value: float, register: str) -> bool:
        """Tell whether a held figure is decided already."""
        return (series, period, value) in self.accepted or (series, period, value, register) in self.rejected

    def _on_findings(self, kind: str) -> list[OnFinding]:
        return [one for one, _, _ in self.taken.values() if isinstance(one, OnFinding) and one.kind == kind]


def standing(log: Iterable[Decision]) -> Standing:
    """Fold a log, in its order, into what stands at its end."""
    proposed: dict[int, Decision] = {}
    taken: dict[int, tuple[Decision, str, tuple[str, ...]]] = {}
    for entry in log:
        one: Decision = entry
        actors: tuple[str, ...] = (entry.actor,)
        if isinstance(entry, Confirm):
            one = proposed.pop(entry.decision)
            actors = (one.actor, entry.actor)
        elif isinstance(entry, _Reasoned) and entry.persons > 1:
            proposed[entry.number] = entry
            continue
        if isinstance(one, Revoke):
            proposed.pop(one.decision, None)
            taken.pop(one.decision, None)
        else:
            taken[one.number] = (one, entry.at, actors)
    return Standing(proposed, taken)


# -------------------------------------------------------------------------------------- deciding


def reasoned(kind: str, reason: str, comment: str = "") -> dict[str, Any]:
    """Return the fields of a reason. Raises DecisionError for a code that is not for this kind of decision."""
    fitting = [code for code, (_, kinds) in REASONS.items() if kind in kinds]
    if reason not in fitting:
        raise DecisionError(f"--reason {reason!r} is no reason to {kind}; there are {', '.join(fitting)}")
    if kind == "price" and not comment.strip():
        raise DecisionError("a judged price names its evidence: give it with --comment")
    return {"kind": kind, "reason": reason, "reason_text": REASONS[reason][0], "comment": comment}


def check_actor(review: Review, actor: str) -> None:
    """Check that somebody may decide. Raises DecisionError."""
    if not actor.strip():
        raise DecisionError("--actor names who decides; it is empty")
    if review.actors and actor not in review.actors:
        raise DecisionError(f"{actor} may not decide: review.actors in config.toml names {', '.join(review.actors)}")


def check_confirm(now: Standing, number: int, actor: str) -> Decision:
    """Return the proposal that a second person confirms. Raises DecisionError."""
    one = now.proposed.get(number)
    if one is None:
        waiting = ", ".join(map(str, now.proposed)) or "none"
        raise DecisionError(f"decision {number} waits for no second person; those that do: {waiting}")
    if actor == one.actor:
        raise DecisionError(f"decision {number} was proposed by {actor}: another person has to confirm it")
    return one


def check_revoke(now: Standing, number: int) -> Literal[1, 2]:
    """Return how many persons a revocation needs: as many as what it ends took. Raises DecisionError."""
    ending = [n for n, one in now.proposed.items() if isinstance(one, Revoke) and one.decision == number]
    if ending:
        raise DecisionError(f"the end of decision {number} is proposed already, as decision {ending[0]}: confirm it")
    if number in now.proposed:
        return 1
    if number not in now.taken:
        raise DecisionError(f"there is no decision {number} in force")
    one = now.taken[number][0]
    if isinstance(one, OnFinding) and one.kind == "accept":
        raise DecisionError(f"decision {number} accepted a figure, which is history: exclude its origin by an override")
    return one.persons if isinstance(one, Override) else 1


def check_price(kind: str, price: float | None) -> None:
    """Check the number of a judged price, and that no other override has one. Raises DecisionError."""
    if kind == "price" and (price is None or not math.isfinite(price) or price <= 0):
        raise DecisionError(f"a price is a number above zero; got {price!r}")
    if kind != "price" and price is not None:
        raise DecisionError(f"to {kind} names no price")


def check_override(one: Override, now: Standing, operation: Operation, methodology: Methodology) -> None:
    """Check that an override can take effect. Raises DecisionError that names the place and the mend."""
    markets = {m.key for m in methodology.markets}
    if one.market not in markets:
        raise DecisionError(f"the methodology has no market {one.market!r}; there are {', '.join(sorted(markets))}")
    check_price(one.kind, one.price)
    _check_periods(one)
    quoted: dict[str, set[str]] = {}
    for s in operation.series().values():
        if s.kind == "price" and not s.quarantined and f"{s.mineral}/{s.stage}/{s.zone}" == one.market:
            quoted.setdefault("daily" if s.frequency == "weekly" else s.frequency, set()).add(s.origin)
    of_days = one.frequency == "monthly" and one.kind in ("suspend", "price")  # a month may be the mean of its days
    origins = set().union(*quoted.values()) if of_days else quoted.get(one.frequency, set())
    if not origins:
        there = ", ".join(f for f in get_args(Frequency) if f in quoted)
        raise DecisionError(f"{one.market} has no {one.frequency} determinations; it has {there or 'none'}")
    if one.kind in ("exclude", "include") and one.origin not in origins:
        raise DecisionError(
            f"{one.origin!r} is no origin of {one.market} {one.frequency}; there are {', '.join(sorted(origins))}"
        )
    if one.kind in ("suspend", "price") and one.origin:
        raise DecisionError(f"to {one.kind} is about the whole market: name no origin")
    _check_free(now, one)


def _check_periods(one: Override) -> None:
    for period in (one.first, one.last):
        if not _is_period(period, one.frequency):
            example = {"daily": "2026-11-20", "ten-day": "2026-11-20 (the last day)", "monthly": "2026-11"}
            raise DecisionError(f"{period!r} is no {one.frequency} period such as {example[one.frequency]}")
    if one.last < one.first:
        raise DecisionError(f"the span ends in {one.last}, before it begins in {one.first}")
    if one.kind != "price":
        return
    if one.first != one.last:
        raise DecisionError("a price is judged for one period at a time")
    if str(pd.Period(one.first, "M" if one.frequency == "monthly" else "D").end_time.date()) > one.at[:10]:
        raise DecisionError(f"{one.first} is not over: no price can be judged for it yet")
    if one.frequency == "daily" and dt.date.fromisoformat(one.first).weekday() > 4:
        raise DecisionError(f"{one.first} is no weekday: a month is the mean of its weekdays")


def _is_period(text: str, frequency: str) -> bool:
    try:
        day = dt.date.fromisoformat(f"{text}-01" if frequency == "monthly" else text)
    except ValueError:
        return False
    if len(text) != (7 if frequency == "monthly" else 10):
        return False
    return frequency != "ten-day" or day.day in (10, 20) or bool(pd.Timestamp(day).is_month_end)


def _check_free(now: Standing, one: Override) -> None:
    """Refuse an override where another one of its kind is in force or proposed: order would decide."""
    others = [(n, o) for n, o in now.proposed.items() if isinstance(o, Override)]
    others += [(n, o) for n, (o, _, _) in now.taken.items() if isinstance(o, Override)]
    for number, other in others:
        same = (other.market, other.frequency, other.origin) == (one.market, one.frequency, one.origin)
        if number != one.number and same and other.first <= one.last and one.first <= other.last:
            raise DecisionError(
                f"decision {number} ({other.kind}, {other.first} to {other.last}) is about the same: revoke it first"
            )


def held_figure(findings: Sequence[dict[str, Any]], number: int) -> dict[str, Any]:
    """Return a finding that can be decided. Raises DecisionError where it cannot."""
    found = next((f for f in findings if f["id"] == number), None)
    if found is None:
        raise DecisionError(f"there is no finding {number}: see 'lodemark review list'")
    if not is_held_figure(found):
        raise DecisionError(
            f"finding {number} ({found['check']}, {found['severity']}) holds no single figure back: "
            "nothing can be accepted or rejected"
        )
    return found


def is_held_figure(finding: dict[str, Any]) -> bool:
    """Tell whether a finding holds one figure of one document back."""
    value = finding["evidence"].get("value")
    whole = finding["series"] and finding["period"] and finding["document"] is not None
    return bool(finding["severity"] == "error" and whole and isinstance(value, int | float))
