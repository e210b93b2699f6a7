"""Query parameters: every mistake is named, none is passed over.

A parameter that is ignored in silence gives a wrong figure with the look of a right one, so an unknown
name is an error, and so is one that is given twice or means nothing.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence

from flask import Request

from pricing.published import lower_bound
from pricing.web.problems import Problem, nearest, shown
from pricing.web.releases import Snapshot, Tree

FREQUENCIES = ("daily", "ten-day", "monthly")
LEGS = ("CN", "XCN", "WLD")
BASES = ("net", "gross", "export-parity")
_LONGEST = 1000  # characters of a query
_PERIOD = re.compile(r"\d{4}(-\d\d(-\d\d)?)?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d(:\d\d([.,]\d{1,6})?)?([Zz]|[+-]\d\d:?\d\d)", re.ASCII)
# What other services call the same thing.
_ELSEWHERE = {
    "start": "from", "since": "from", "startperiod": "from", "observation_start": "from", "start_date": "from",
    "end": "to", "until": "to", "endperiod": "to", "observation_end": "to", "end_date": "to",
    "vintage": "asOf", "vintage_date": "asOf", "vintage_dates": "asOf", "as_of": "asOf", "realtime_start": "asOf",
    "freq": "frequency", "interval": "frequency", "page": "before", "per_page": "limit", "pagesize": "limit",
    "updatedafter": "since",
}  # fmt: skip


def parameters(request: Request, allowed: Sequence[str]) -> dict[str, str]:
    """Return the parameters of a request by name.

    Raises Problem 400 that names every unknown, empty or repeated one, with the nearest right name.
    """
    if not request.query_string:
        return {}
    if len(request.query_string) > _LONGEST:
        raise bad("query", f"the query is longer than {_LONGEST} characters")
    given: dict[str, list[str]] = dict(request.args.lists())
    unknown = [name for name in given if name not in allowed]
    if unknown:
        hints = {shown(name): _meant(name, allowed) for name in unknown}
        text = ", ".join(f"{name!r}" + (f" (meant: {hint}?)" if hint else "") for name, hint in hints.items())
        takes = f"this address takes {', '.join(allowed)}" if allowed else "this address takes none"
        raise Problem(
            400,
            "unknown-parameter",
            "Unknown query parameter",
            f"unknown: {text}; {takes}",
            unknown=hints,
            allowed=list(allowed),
        )
    for name, values in given.items():
        if len(values) > 1:
            raise bad(name, f"{name} is given {len(values)} times")
        if not values[0].strip():
            raise bad(name, f"{name} is empty; leave it out instead")
    return {name: values[0].strip() for name, values in given.items()}


def _meant(name: str, allowed: Sequence[str]) -> str | None:
    known = _ELSEWHERE.get(name.lower())
    if known in allowed:
        return known
    return next(iter(nearest(name, allowed, 1)), None)


def bad(name: str, detail: str) -> Problem:
    """400: a parameter that this address knows has a value that it cannot take."""
    return Problem(400, "bad-parameter", "Unusable query parameter", detail, parameter=name)


def period(name: str, text: str | None) -> str | None:
    """Check a ``from`` or ``to``: a year, a month or a day of the calendar."""
    if text is None:
        return None
    try:
        if not _PERIOD.fullmatch(text):
            raise ValueError("form")
        dt.date.fromisoformat(text + "-01-01"[len(text) - 4 :])
    except ValueError:
        raise bad(name, f"{name}={shown(text)!r} is not a period: YYYY, YYYY-MM or YYYY-MM-DD") from None
    return text


def span(given: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the checked ``from`` and ``to``. Raises Problem 400 when nothing could lie between them."""
    start, end = period("from", given.get("from")), period("to", given.get("to"))
    if start and end and lower_bound(start) > end + "~":
        raise bad("from", f"from={start} lies after to={end}")
    return start, end


def one_of(given: Mapping[str, str], name: str, choices: Sequence[str]) -> str | None:
    """Return a parameter that is one of a few words, None when it is not given."""
    value = given.get(name)
    if value is not None and value not in choices:
        near = nearest(value, choices, 1)
        raise bad(
            name, f"{name}={shown(value)!r} is none of {', '.join(choices)}" + (f" (meant: {near[0]}?)" if near else "")
        )
    return value


def whole(given: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """Return a whole number between two limits."""
    text = given.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
        raise bad(name, f"{name}={shown(text)!r} is not a whole number from {least} to {most}")
    return int(text)


def as_of(tree: Tree, text: str | None) -> Snapshot:
    """Return the release that ``asOf`` names: an instant, a date (the end of that day, UTC) or ``release:17``.

    Raises Problem 400 for another form, 404 when no release is that old.
    """
    if text is None:
        return tree.current()
    word, _, number = text.partition(":")
    if word.lower() == "release":
        return tree.snapshot(release_number(number))
    return tree.at(instant(text))


def since(tree: Tree, text: str) -> int:
    """Return the release that ``since`` names, 0 before the first: ``17``, ``release:17``, an instant or a date.

    Raises Problem 400 for another form, 404 for a release that there is not.
    """
    word, _, number = text.partition(":")
    if text.isdecimal() or word.lower() == "release":
        found = release_number(number if word.lower() == "release" else text)
        return tree.snapshot(found).number if found else 0
    moment = instant(text, "since")
    return tree.at(moment).number if moment >= tree.facts(tree.numbers()[0]).instant else 0


def place(text: str | None) -> tuple[int, int, str] | None:
    """Read ``after``, the place in a list of changes at which a page ended."""
    if text is None:
        return None
    release, _, rest = text.partition(".")
    dataset, _, day = rest.partition(".")
    if not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in (release, dataset)):
        raise bad("after", f"after={shown(text)!r} is no place in the list: take the address that next gives")
    return int(release), int(dataset), str(period("after", day))


def release_number(text: str) -> int:
    """Read the number of a release. Raises Problem 404: what is no number is no release."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise Problem(
            404, "unknown-release", "No such release", f"{shown(text)!r} is not the number of a release, such as 17"
        )
    return int(text)


def instant(text: str, name: str = "asOf") -> dt.datetime:
    """Read an ``asOf`` (or another parameter's) instant or date as aware UTC."""
    try:
        if _DATE.fullmatch(text):
            return dt.datetime.combine(dt.date.fromisoformat(text), dt.time.max, dt.UTC)
        if _INSTANT.fullmatch(text):
            return dt.datetime.fromisoformat(text.upper()).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        pass
    plus = "; write + as %2B" if re.search(r"\d \d\d:?\d\d$", text) else ""
    forms = "an instant with its zone (2026-11-23T14:00:00Z), a date (2026-11-23) or a release (release:17)"
    raise bad(name, f"{name}={shown(text)!r} is not {forms}{plus}")
