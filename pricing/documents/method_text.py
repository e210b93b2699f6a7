"""The method in words: sentences and tables made from the settings, and from nothing else.

Every setting is said. One that has no sentence of its own here is said with its description, so a new
setting cannot be forgotten, and the page cannot say what the data do not.
"""

from __future__ import annotations

import calendar
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from pricing.config import (
    CONSULTATION,
    Basis,
    Basket,
    Determination,
    Fallback,
    Forecasting,
    ImportBasket,
    Methodology,
    Trade,
    TwinRules,
)

Block = dict[str, Any]
"""``heading``; ``level``, 2 or below; ``sentences``; ``tables``, each of ``columns`` and ``rows``, all text."""

_HEADINGS = {
    "determination": "How a reference price is determined",
    "fallback": "Where nobody quoted",
    "controls": "Trade controls",
    "forecasts": "Forecasts",
    "shocks": "Shocks",
    "basis": "Lasting differences between origins",
    "markets": "Markets",
    "baskets": "Indices",
    "twins": "Analytical twins of an index",
    "tonnages": "World production from other sources",
    "trade": "Unit values of imports: indicators, not prices",
    "imports": "Indices of imports",
    "gap_days": "China against the world",
    "rebates": "What China refunds of its value-added tax on exports",
    "spreads": "Spreads between stages",
}
_ELSEWHERE = CONSULTATION | {"notice_days", "codes", "codes_raw", "sha256", "raw"}
_LONG = 5  # a list of more pairs than this is a table

# {form} is where the value goes, written as that form writes it.
_SENTENCES: dict[type[BaseModel], dict[str, str]] = {
    Determination: {
        "max_spread": "An origin further than {share} from the median of the others is excluded.",
        "widest": "Where the origins that are left lie more than {share} apart, there is no price.",
        "stale_days": "Beyond its own period a quotation stays usable for a number of days: {listed}.",
        "relaxed_days": "Where nobody quoted a period itself, older quotations still make an estimate, of grade C, "
        "by how often their origin quotes: {listed} days.",
        "tier_weights": "An origin weighs by the best tier of its quotations: {listed}.",
        "max_weight": "No origin weighs more than {share} where others share the rest.",
        "interval": "The interval of a price is to cover it in {number} of 100 periods.",
        "interval_periods": "It rests on how far origins lay apart in {number} periods.",
        "grades": "Independent origins with a quotation of the period itself that a grade needs: {listed}.",
        "month_share": "A month is the mean of its days where {share} of the days on which it is quoted have a price.",
    },
    Forecasting: {
        "horizons": "Periods ahead that are forecast: {listed}.",
        "levels": "The bounds are to cover what happens in as many of 100 cases: {text}.",
        "enter": "At a review a model replaces its benchmark where its test is below {number} …",
        "leave": "… and stays until a review at which it is above {number}.",
        "least_origins": "It may not enter on fewer than {number} origins with all horizons observed.",
        "review_months": "Months that begin with a review: {text}.",
        "first": "Observations before the first origin of a test: {listed}.",
        "step": "Periods between two origins of a test: {listed}.",
        "most_origins": "A test looks at the latest {number} origins at most.",
    },
    Fallback: {
        "window": "Where nobody quoted, a market's price is that of its linked market at the median ratio of so many "
        "periods before, as an estimate of grade C, never while a trade control is open on either side: {listed}.",
        "limit": "No more periods in a row rest on a linked market than {listed}.",
    },
    Basis: {
        "review_month": "The ratio of each origin to its market's anchor is estimated each {month}, and then held.",
        "window_months": "The estimate rests on the {number} months before.",
        "min_common": "Periods that two origins must share for an estimate, by how often they quote: {listed}.",
    },
    Basket: {
        "title": "Title: {text}.",
        "base_period": "The mean of {text} is 100.",
        "link_month": "The basket is renewed each {month}.",
        "review": "Its constituents and rules are reviewed each {month}.",
        "cap": "No market weighs more than {share} when the basket is renewed; the rest is spread over the others.",
        "min_weight": "There is no value where less than {share} of the weight has a price of its own.",
        "min_coverage": "The name is used where own prices cover {share} of the listed markets and of their weight.",
        "rounding": "Values have {number} decimals.",
    },
    TwinRules: {
        "risk_months": "The equal-risk twin weighs by the volatility of the {number} months before a link.",
        "min_changes": "A volatility needs {number} monthly changes among them.",
        "geks_window": "The superlative twin looks at {number} months at a time.",
    },
    Trade: {
        "codes": "The tariff codes stand in {text}.",
        "window_months": "A unit value is the value over the mass of {number} months, labelled by the last.",
        "reference_months": "A cell is judged against the median of the accepted cells of {number} months before.",
        "min_reference_months": "With fewer than {number} such months the other origin is asked.",
        "outlier_factor": "A cell further than a factor of {number} from that median is doubted.",
        "corroboration": "It stands where others confirm at least {share} of its move, as logarithm.",
        "persistence_months": "A doubted level that stands for {number} months is accepted.",
        "min_months": "A figure needs trade in {number} months of the window, or as many cells as follow.",
        "min_cells": "Cells that are enough without so many months: {number}.",
        "min_reported": "A month counts when reporters of {share} of the last year's value have spoken of it.",
        "interval": "The interval covers {number} %.",
        "widest": "There is no figure whose interval spans more than a factor of {number}.",
        "min_kg": "Least mass of a leg and month, in kilograms: {listed}.",
        "geks_window": "The index of imports looks at {number} months at a time.",
        "least_correlation": "A track record with a correlation below {number} is a finding.",
        "quotations": "Quotation beside which an indicator is run: {listed}.",
    },
    ImportBasket: {
        "title": "Title: {text}.",
        "base_period": "The mean of {text} is 100.",
        "products": "Products (none named: all that have a unit value): {text}.",
        "min_items": "Two months are compared where they share at least {number} products and legs.",
        "min_covered": "There is no value where unit values cover less than {share} of the value traded.",
        "rounding": "Values have {number} decimals.",
    },
}  # fmt: skip


def blocks(method: Methodology) -> list[Block]:
    """Say a method in words: what it is, how it may change, and every rule."""
    return [_head(method), *rules(method)]


def rules(method: Methodology) -> list[Block]:
    """Say the rules alone: all that makes figures, nothing of proposal and consultation."""
    changing = f"A change takes effect {number(method.notice_days)} days after its proposal at the earliest."
    out = [_block("Changes of the method", 2, [changing])]
    for name, info in type(method).model_fields.items():
        if name not in _ELSEWHERE:
            out += _section(name, getattr(method, name), info.description or "")
        if name == "trade" and method.codes:
            out.append(_codes(method))
    return out


def _head(method: Methodology) -> Block:
    sentences = [f"Method {method.id}: {method.title}."]
    if method.text:
        sentences.append(method.text)
    sentences.append(f"Proposed on {method.proposed}, in force from {method.effective}.")
    if method.comments_until:
        sentences.append(f"Comments were or are taken until {method.comments_until}.")
    if method.rationale:
        sentences.append(f"Why: {method.rationale}")
    sentences += [f"Change: {sentence}" for sentence in method.changes]
    for one in method.comments:
        answer = f" Answer: {one.answer}" if one.answer else " Not answered yet."
        sentences.append(f"Comment of {one.by}, {one.received}: {one.comment}{answer}")
    sentences.append(f"SHA-256 of the document: {method.sha256}.")
    return _block("The method", 2, sentences)


def _codes(method: Methodology) -> Block:
    confirmed = sum(code.certainty == "confirmed" for code in method.codes)
    digest = hashlib.sha256(method.codes_raw.encode()).hexdigest()
    return _block(
        "Tariff codes",
        3,
        [
            f"{number(len(method.codes))} lines, of which {number(confirmed)} are confirmed; "
            "codes that are not are collected and enter no figure.",
            f"SHA-256 of the file: {digest}.",
        ],
    )


def _section(name: str, value: Any, description: str, level: int = 2) -> list[Block]:
    """Say one setting of the document: a table of settings, several such tables, a list of them, or a plain value."""
    heading = _HEADINGS.get(name, _words(name).capitalize())
    if isinstance(value, BaseModel):
        return _model(heading, value, level)
    if isinstance(value, Mapping) and value and all(isinstance(one, BaseModel) for one in value.values()):
        inner = [block for key, one in value.items() for block in _model(str(key), one, level + 1)]
        return [_block(heading, level, []), *inner]
    if _is_list(value):
        return [_block(heading, level, [], [_listing(value)])]
    if value in (None, "", (), {}):
        return []
    return [_block(heading, level, [_unsaid(name, value, description)])]


def _model(heading: str, model: BaseModel, level: int) -> list[Block]:
    sentences, tables, inner = list[str](), list[dict[str, Any]](), list[Block]()
    said = _SENTENCES.get(type(model), {})
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        nested = isinstance(value, Mapping) and any(isinstance(one, BaseModel) for one in value.values())
        if isinstance(value, BaseModel) or nested:
            inner += _section(name, value, info.description or "", level + 1)
        elif _is_list(value):
            tables.append(_listing(value))
        elif isinstance(value, Mapping) and len(value) > _LONG:
            what = said.get(name, f"{_words(name)}: {{listed}}.").replace("{listed}", "see the table")
            sentences.append(what)
            tables.append({"columns": [_words(name), "value"], "rows": [[str(k), _any(v)] for k, v in value.items()]})
        elif name in said:
            sentences.append(_say(said[name], value))
        else:
            sentences.append(_unsaid(name, value, info.description or ""))
    return [_block(heading, level, sentences, tables), *inner]


def _is_list(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(one, BaseModel) for one in value)


def _listing(models: Iterable[BaseModel]) -> dict[str, Any]:
    """Lay settings out as a table; a column in which nothing is said is left out."""
    given = list(models)
    columns = [
        name
        for name in type(given[0]).model_fields
        if any(getattr(model, name) not in ("", None, ()) for model in given)
    ]
    rows = [["" if (v := getattr(model, name)) in ("", None, ()) else _any(v) for name in columns] for model in given]
    return {"columns": [_words(name) for name in columns], "rows": rows}


def _block(heading: str, level: int, sentences: list[str], tables: list[dict[str, Any]] | None = None) -> Block:
    return {"heading": heading, "level": level, "sentences": sentences, "tables": tables or []}


# ------------------------------------------------------------------------------------- values


def _say(template: str, value: Any) -> str:
    return re.sub(r"\{(\w+)\}", lambda form: _FORMS[form[1]](value), template)


def _unsaid(name: str, value: Any, description: str) -> str:
    """Say a setting that has no sentence of its own."""
    return f"{_words(name).capitalize()}: {_any(value)}" + (f" ({description})." if description else ".")


def _words(name: str) -> str:
    return name.replace("_", " ")


def number(value: float) -> str:
    """Write a number in full, with no digit lost."""
    return f"{Decimal(repr(value)).normalize():,f}"


def share(value: float) -> str:
    """Write a share in per cent, with no digit lost."""
    return f"{(Decimal(repr(value)) * 100).normalize():,f} %"


def _any(value: Any) -> str:
    if value is None or value == "" or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_any(one)}" for key, one in value.items()) or "none"
    if isinstance(value, tuple | list):
        return "; ".join(map(_any, value))
    if isinstance(value, BaseModel):
        return ", ".join(f"{name} {_any(getattr(value, name))}" for name in type(value).model_fields)
    return str(value)


_FORMS: dict[str, Callable[[Any], str]] = {
    "share": share,
    "number": number,
    "listed": _any,
    "text": _any,
    "month": lambda value: str(calendar.month_name[value]),
}


# -------------------------------------------------------------------------------- text, difference


def plain(said: Iterable[Block]) -> str:
    """Write blocks as plain text."""
    lines: list[str] = []
    for block in said:
        underline = "=" if block["level"] == 2 else "-"
        lines += ["", block["heading"], underline * len(block["heading"])]
        lines += ["", *block["sentences"]] if block["sentences"] else []
        for table in block["tables"]:
            rows = [table["columns"], *([cell or "–" for cell in row] for row in table["rows"])]
            widths = [max(len(row[i]) for row in rows) for i in range(len(table["columns"]))]
            lines += ["", *("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)]
    return "\n".join(lines).strip() + "\n"


def differences(old: Methodology, new: Methodology) -> dict[str, list[str]]:
    """Say in words which rules a change leaves out and which it brings.

    Returns
    -------
    dict
        ``before`` and ``after``: sentences, and rows of tables, that stand in one of the two only.
    """
    before, after = _lines(old), _lines(new)
    return {
        "before": [line for line in before if line not in after],
        "after": [line for line in after if line not in before],
    }


def _lines(method: Methodology) -> dict[str, None]:
    """Every sentence and every row of the rules under its headings, in order, each once."""
    out: dict[str, None] = {}
    path: list[str] = []
    for block in rules(method):
        path = [*path[: block["level"] - 2], block["heading"]]
        where = ", ".join(path)
        out |= dict.fromkeys(f"{where}: {sentence}" for sentence in block["sentences"])
        for table in block["tables"]:
            for row in table["rows"]:
                cells = (f"{c} {v}" for c, v in zip(table["columns"], row, strict=True) if v)
                out[f"{where}: {', '.join(cells)}."] = None
    return out
