"""What the two ways into Comext share: which rows are cells of the European Union's imports, and their sums."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pricing.config import Code
from pricing.declarations import COLUMNS, frame
from pricing.errors import ParseError
from pricing.quality import Finding

# fmt: off
EU27 = (
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU",
    "IE", "IT", "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
)
# fmt: on
"""EU27_2020, the members since February 2020; these statistics say GR for Greece."""
UK_PARTS = frozenset({"XI", "XU"})
"""Northern Ireland, and the rest of the United Kingdom, since 2021; GB holds both."""
PLACES_IN_X = frozenset({"XC", "XK", "XL", "XS"})
"""Ceuta, Kosovo, Melilla, Serbia: the places whose codes are not ISO's (Regulation (EU) 2020/1470)."""

MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])", re.ASCII)
KEY = ["code", "reporter", "partner", "period"]
Test = tuple[str, str, Callable[[str], bool]]
"""A rule, the column that it looks at, and what of it is left out."""


def valid_in(codes: Iterable[Code], first: str, last: str) -> list[str]:
    """Return the codes in force at some time between two months."""
    return sorted({c.code for c in codes if c.valid_from <= last and (not c.valid_to or c.valid_to >= first)})


def refuse(table: pd.DataFrame, column: str, accept: Callable[[str], Any], expected: str) -> None:
    """Raise ParseError with the line of the first value that is not accepted."""
    for value in table[column].unique():
        if not accept(value):
            line = table["line"][table[column] == value].iloc[0]
            raise ParseError(f"line {line}: {column} {value[:80]!r} is not {expected}")


def _is_aggregate(partner: str) -> bool:
    return partner in ("EU", "EA") or not re.fullmatch("[A-Z]{2}", partner)


def _is_special(partner: str) -> bool:
    """Tell whether a code stands for no place: stores, the high seas, not specified, secret."""
    return (partner[0] == "Q" and partner != "QA") or (partner[0] == "X" and partner not in PLACES_IN_X)


COUNTRIES: list[Test] = [
    ("other-reporter", "reporter", lambda reporter: reporter not in EU27),
    ("aggregate", "partner", _is_aggregate),
    ("intra-eu", "partner", lambda partner: partner in EU27 or partner == "EL"),
    ("uk-part", "partner", lambda partner: partner in UK_PARTS),
    ("special-partner", "partner", _is_special),
]


def sifted(table: pd.DataFrame, tests: Sequence[Test]) -> tuple[pd.DataFrame, Counter[str]]:
    """Return the rows that no rule leaves out, and the rows per rule: the first rule counts."""
    refuse(table, "reporter", lambda reporter: reporter != "EL", "a reporter here: Greece is GR")
    keep = np.ones(len(table), dtype=bool)
    left_out: Counter[str] = Counter()
    for rule, column, is_out in tests:
        places = table[column].cat.codes.to_numpy()
        # A later test is asked of values that an earlier one took out, too; an empty text is an aggregate.
        verdicts = np.array([is_out(v) if v else rule == "aggregate" for v in table[column].cat.categories], dtype=bool)
        out = keep & (verdicts[places] if len(verdicts) else False)
        left_out[rule] += int(out.sum())
        keep &= ~out
    return table[keep].copy(), +left_out


def numbers(table: pd.DataFrame, column: str, shift: str = "") -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return plain decimals, shifted as text by a power of ten so that nothing is rounded twice; empty is NaN."""
    texts = table[column]
    given = (texts != "").to_numpy(dtype=bool)
    some = texts[given]
    plain = some.str.fullmatch(r"[0-9]{1,30}(?:\.[0-9]{1,30})?").to_numpy(dtype=bool)
    if not plain.all():
        place = int(np.argmin(plain))
        line = table["line"][given].iloc[place]
        raise ParseError(f"line {line}: {column} {some.iloc[place]!r} is not a plain decimal number of at least zero")
    out = np.full(len(texts), np.nan)
    out[given] = np.fromiter((float(text + shift) for text in some), dtype=np.float64, count=len(some))
    return out


def assembled(
    rows: pd.DataFrame, by_code: Mapping[str, list[Code]]
) -> tuple[pd.DataFrame, list[Finding], Counter[str]]:
    """Make cells of rows ``code, reporter, partner, period, what, part, number, confidential, line``."""
    for name in KEY:
        rows[name] = rows[name].astype("category")
        rows[name] = rows[name].cat.set_categories(sorted(rows[name].unique()))
    rows, findings = _without_twins(rows)
    if rows.empty:
        return frame([]), findings, Counter()
    # A sum of which one part is missing is missing.
    totals = rows.groupby([*KEY, "what"], observed=True)["number"].sum(skipna=False).unstack("what")
    secret = rows[rows["confidential"] & (rows["what"] == "value")]
    hidden = totals.index.isin(pd.MultiIndex.from_frame(secret[KEY])) if len(secret) else np.zeros(len(totals), bool)
    cells = totals.reindex(columns=["value", "kg"]).reset_index()
    cells = cells.astype(dict.fromkeys(KEY, "str"))
    cells["status"] = np.where(hidden, "confidential", np.where(cells["kg"].isna(), "no-quantity", "normal"))
    cells["status"] = cells["status"].astype("str")
    cells.columns.name = None
    cells, doubts = _without_value(cells)
    cells, more, outside = _within_validity(cells, by_code)
    if len(cells) and not (rows["what"] == "kg").any():
        doubts.append(Finding("no-quantities", "warning", f"{len(cells)} values, and no quantity at all"))
    return cells[list(COLUMNS)].reset_index(drop=True), [*findings, *doubts, *more], outside


def _without_twins(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[Finding]]:
    """Keep one of rows that say the same of one cell, and nothing of a cell of which they differ."""
    place = [*KEY, "what", "part"]
    twins = rows[rows.duplicated(place, keep=False)]
    if twins.empty:
        return rows, []
    said = twins.drop_duplicates([*place, "number", "confidential"])
    differing = said[said.duplicated(place, keep=False)]
    findings = []
    for key, group in differing.groupby(KEY, observed=True):
        code, reporter, partner, period = map(str, key)
        said_of = {str(what): sorted(part["number"]) for what, part in group.groupby("what")}
        evidence = {"reporter": reporter, "partner": partner, **said_of}
        lines = ", ".join(map(str, sorted(set(group["line"]))))
        message = f"{code} {reporter} from {partner} {period}: lines {lines} differ; none accepted"
        findings.append(Finding("duplicate-cell", "error", message, code, period, evidence))
    bad = pd.MultiIndex.from_frame(rows[KEY]).isin(pd.MultiIndex.from_frame(differing[KEY]))
    kept = rows[~bad].drop_duplicates(place)
    if again := int((~bad).sum()) - len(kept):
        first = twins.iloc[0]
        message = f"{again} rows say again what another said, as line {first['line']}; one kept of each"
        findings.append(Finding("duplicate-cell", "note", message))
    return kept, findings


def _without_value(cells: pd.DataFrame) -> tuple[pd.DataFrame, list[Finding]]:
    lacking = cells["value"].isna() & (cells["status"] != "confidential")
    if not lacking.any():
        return cells, []
    findings = []
    for code, group in cells[lacking].groupby("code"):
        first = group.iloc[0]
        place = f"{first['reporter']} from {first['partner']} {first['period']}"
        message = f"{code}: {len(group)} cells with a quantity and no value, as {place}; left out"
        findings.append(Finding("no-value", "warning", message, str(code), first["period"]))
    return cells[~lacking], findings


def _within_validity(
    cells: pd.DataFrame, by_code: Mapping[str, list[Code]]
) -> tuple[pd.DataFrame, list[Finding], Counter[str]]:
    """Leave out cells of months in which their code was not in force, and say which showed a value."""
    pairs = cells[["code", "period"]].drop_duplicates()
    wrong = [(c, p) for c, p in pairs.itertuples(index=False) if not any(k.valid(p) for k in by_code[c])]
    if not wrong:
        return cells, [], Counter()
    out = pd.MultiIndex.from_frame(cells[["code", "period"]]).isin(wrong)
    findings = []
    for code, group in cells[out & (cells["value"] > 0).to_numpy(dtype=bool)].groupby("code"):
        months = sorted(set(group["period"]))
        message = f"{code} shows {group['value'].sum():,.0f} in {', '.join(months)}, when it was not in force"
        findings.append(
            Finding("code-outside-validity", "warning", message, str(code), months[-1], {"periods": months})
        )
    return cells[~out], findings, Counter({"code-outside-validity": int(out.sum())})


def held(findings: Iterable[Finding]) -> frozenset[str]:
    """Return the codes of which a cell was there and could not be taken."""
    return frozenset(f.series for f in findings if f.check in ("duplicate-cell", "no-value") and f.series)


def nothing(cells: pd.DataFrame, left_out: Mapping[str, int]) -> list[Finding]:
    """Say when rows were read and none is a cell; it is a warning when none was even of a wanted code."""
    if len(cells) or not left_out:
        return []
    counts = ", ".join(f"{rule} {n}" for rule, n in sorted(left_out.items()))
    strange = not set(left_out).difference({"other-code", "confidential-code", "annual", "other-flow"})
    return [Finding("no-cells", "warning" if strange else "note", f"no row is a cell of these codes: {counts}")]
