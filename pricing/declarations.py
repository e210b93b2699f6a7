"""What customs offices declare: the contract between their parsers and everything after.

A *cell* is what one reporter imported of one tariff code from one partner in one month: a value and a
mass. Customs modules under ``pricing.sources`` define

::

    def requests(source, codes, done, now) -> list[Request]      # what is due, and nothing that is had
    def understood(raw) -> Reply                                 # is it data, or what else is it
    def halves(request, source) -> tuple[Request, Request] | None  # where an answer would be too big
    def declarations(raw, codes, source) -> Declared             # the cells
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from pricing.quality import Finding

COLUMNS = ("code", "reporter", "partner", "period", "value", "kg", "status")


@dataclass(frozen=True)
class Scope:
    """What a document speaks of wholly: a cell inside it that the document does not show is none."""

    codes: tuple[str, ...]
    first: str
    last: str


@dataclass(frozen=True)
class Request:
    """One question to a customs office.

    ``url`` holds no key: it is the identity of the question, kept and logged. ``scope`` is what the
    answer speaks of wholly.
    """

    url: str
    scope: Scope


@dataclass(frozen=True)
class Reply:
    """What an answer is, before anybody reads figures from it.

    ``queued``: ask ``poll`` until it is data or says ``data_at``. ``too-big``: ask in halves.
    ``empty``: there is nothing in the scope. ``wrong-key``: no question of this source will be answered.
    """

    kind: Literal["data", "queued", "ready", "too-big", "empty", "fault", "wrong-key"]
    message: str = ""
    poll: str = ""


@dataclass(frozen=True)
class Declared:
    """What one document says.

    Attributes
    ----------
    cells : DataFrame
        Columns ``code, reporter, partner`` (the publisher's codes), ``period`` (``YYYY-MM``), ``value``
        (float, the publisher's currency), ``kg`` (float on the basis that the code's ``units`` name;
        NaN where the publisher gives none), ``status`` (``normal``; ``no-quantity``: the publisher
        says that it is missing, or counts no mass; ``confidential``). One row per code, reporter,
        partner and month. Zero is what the publisher wrote as zero. No totals, no groupings.
    scope : Scope
        What the document holds wholly, by its own content; a request knows better.
    published : date or None
        The publisher's own stamp.
    findings : tuple of Finding
    names : mapping of partner code to the publisher's name, where it gives one
    left_out : mapping of rule to number of rows
        Rows that are no cells (totals, groupings, other flows, secret partners …), counted.
    held : frozenset of code
        Codes of which a row was held back as doubtful: what was known of them is not withdrawn.
    """

    cells: pd.DataFrame
    scope: Scope
    published: dt.date | None = None
    findings: tuple[Finding, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    held: frozenset[str] = frozenset()


def frame(rows: Iterable[tuple[Any, ...]]) -> pd.DataFrame:
    """Make the cells frame from rows in the order of ``COLUMNS``."""
    return pd.DataFrame(list(rows), columns=list(COLUMNS)).astype({"value": "float64", "kg": "float64"})


def once(cells: pd.DataFrame) -> tuple[pd.DataFrame, list[Finding]]:
    """Keep one of rows that say the same of one cell and month, and nothing where they differ.

    The sum of rows that repeat would count trade twice, and which of two is right cannot be known here.
    """
    key = ["code", "reporter", "partner", "period"]
    distinct = cells.drop_duplicates([*key, "value", "kg", "status"])
    findings = []
    if repeated := len(cells) - len(distinct):
        findings.append(Finding("duplicate-cell", "note", f"{repeated} rows repeat another one: counted once"))
    twins = distinct.duplicated(key, keep=False)
    if twins.any():
        first = distinct[twins].iloc[0]
        places = len(distinct[twins][key].drop_duplicates())
        message = (
            f"{places} cells are given twice and differ, the first {first['code']} {first['reporter']} from "
            f"{first['partner']} {first['period']}: none accepted"
        )
        codes = sorted(set(distinct[twins]["code"]))
        evidence = {"cells": places, "rows": int(twins.sum()), "codes": codes}
        findings.append(Finding("duplicate-cell", "error", message, evidence=evidence))
    return distinct[~twins], findings
