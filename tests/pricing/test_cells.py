"""Customs cells in the store against a plain dictionary: what was known when, whatever was told or broken off."""

from __future__ import annotations

import datetime as dt
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing import cells
from pricing.declarations import Declared, Scope, frame
from pricing.errors import StoreError
from pricing.quality import Finding
from pricing.store import Store, micros

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
CODES, REPORTERS, PARTNERS = ("28051100", "28051200", "81129289"), ("DE", "NL"), ("CN", "US")
MONTHS = ("2025-11", "2025-12", "2026-01")
NAN = math.nan

Key = tuple[str, str, str, str]
Told = tuple[float, float, str]
Known = dict[Key, Told]


@pytest.fixture
def store() -> Iterator[Store]:
    with Store(":memory:") as made:
        yield made


def tell(
    store: Store,
    hours: float,
    shown: Known,
    codes: tuple[str, ...] = CODES,
    months: tuple[str, str] = (MONTHS[0], MONTHS[-1]),
    *,
    held: frozenset[str] = frozenset(),
    url: str = "",
    register: str = "r",
    **more: Any,
) -> cells.Changes:
    """One document, named by what it says."""
    scope = Scope(codes, *months)
    said = repr((sorted(shown.items()), scope, sorted(held)))
    at = START + hours * HOUR
    document = store.add_document("office", said, url=url or repr(scope), retrieved_at=at, size=1)
    rows = frame([(*key, *told) for key, told in shown.items()])
    declared = Declared(rows, scope, held=held, **more)
    return cells.append(store, document, "office", at, declared, url=url or repr(scope), register=register, scope=scope)


def read(store: Store, hours: float | None = None) -> Known:
    rows = cells.known(store, "office", None if hours is None else START + hours * HOUR)
    return {tuple(row[:4]): tuple(row[4:7]) for row in rows.itertuples(index=False)}


def same(left: Known, right: Known) -> bool:
    return repr(sorted(left.items())) == repr(sorted(right.items()))


# ---------------------------------------------------------------------------------- the model

tolds = st.one_of(
    st.tuples(st.sampled_from([0.0, 1.0, 2.0, 1234.5]), st.sampled_from([0.0, 5.0, 6.0]), st.just("normal")),
    st.just((7.0, NAN, "no-quantity")),
    st.just((NAN, NAN, "confidential")),
)


@st.composite
def documents(draw: st.DrawFn) -> tuple[tuple[str, ...], tuple[str, str], Known, frozenset[str]]:
    codes = tuple(sorted(draw(st.sets(st.sampled_from(CODES), min_size=1))))
    first, last = sorted((draw(st.sampled_from(MONTHS)), draw(st.sampled_from(MONTHS))))
    inside = [m for m in MONTHS if first <= m <= last]
    keys = [(c, r, p, m) for c in codes for r in REPORTERS for p in PARTNERS for m in inside]
    shown = {key: draw(tolds) for key in keys if draw(st.integers(0, 3))}
    held = frozenset(draw(st.sets(st.sampled_from(codes), max_size=1))) if draw(st.booleans()) else frozenset()
    return codes, (first, last), shown, held


FEW = 3


class Model:
    """The rules of a document in ten lines of dictionaries."""

    def __init__(self) -> None:
        self.now: Known = {}
        self.ever: set[Key] = set()

    def hear(
        self, codes: tuple[str, ...], months: tuple[str, str], shown: Known, held: frozenset[str]
    ) -> tuple[int, ...]:
        inside = {k: v for k, v in self.now.items() if k[0] in codes and months[0] <= k[3] <= months[1]}
        gone = {k for k in inside if k not in shown and k[0] not in held}
        if len(gone) > max(FEW, len(inside) / 5) or 1 < len(gone) == len(inside):
            gone = set()
        new = shown.keys() - self.ever
        revised = {k for k in shown.keys() & self.ever if repr(self.now.get(k)) != repr(shown[k])}
        self.ever |= shown.keys()
        self.now = {k: v for k, v in (self.now | shown).items() if k not in gone}
        return len(new), len(revised), len(gone)


@settings(max_examples=40, deadline=None)
@given(told=st.lists(documents(), min_size=1, max_size=8))
def test_what_is_known_at_any_instant_is_what_a_plain_dictionary_says(told: Any) -> None:
    model, snapshots = Model(), []
    with Store(":memory:") as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "FEW", FEW)
        for hours, (codes, months, shown, held) in enumerate(told):
            expected = model.hear(codes, months, shown, held)
            changes = tell(store, hours, shown, codes, months, held=held)
            assert (changes.new, changes.revised, changes.withdrawn) == expected
            snapshots.append(dict(model.now))
        for hours, then in enumerate(snapshots):
            assert same(read(store, hours), then) and same(read(store, hours + 0.5), then)
        assert same(read(store), model.now) and read(store, -1) == {}


# ------------------------------------------------------------------------------- broken off


def counted(store: Store) -> dict[str, int]:
    tables = ("cell", "declaration", "partner", "finding", "parsed")
    return {t: store.db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables}


FIRST = {(c, r, p, m): (100.0, 10.0, "normal") for c in CODES[:2] for r in REPORTERS for p in PARTNERS for m in MONTHS}
SECOND = {
    **{k: (v, 11.0, s) for k, (v, _, s) in list(FIRST.items())[1:]},
    (CODES[2], "DE", "CN", MONTHS[0]): (1.0, 1.0, "normal"),
}


def test_a_document_that_is_broken_off_at_any_step_has_said_nothing_at_all(tmp_path: Path) -> None:
    more = {"findings": (Finding("made", "note", "said"),), "names": {"CN": "China"}}
    with Store(tmp_path / "store.db") as store:
        tell(store, 0, FIRST)
        document = counted(store)
        interrupted = 0
        for steps in (*range(1, 60, 3), *range(60, 3000, 97)):
            left = iter(range(steps))
            store.db.conn.set_progress_handler(lambda left=left: next(left, None) is None, 5)  # type: ignore[misc]
            try:
                tell(store, 1, SECOND, **more)  # type: ignore[arg-type]
            except sqlite3.OperationalError as error:
                assert "interrupted" in str(error)
                interrupted += 1
            else:
                break
            finally:
                store.db.conn.set_progress_handler(None, 0)
            assert counted(store) == document and same(read(store), FIRST)
        assert interrupted >= 15 and same(read(store), SECOND) and same(read(store, 0), FIRST)
        assert counted(store) == {"cell": 9, "declaration": 24 + 25, "partner": 1, "finding": 1, "parsed": 2}


def test_a_document_is_a_part_of_the_transaction_around_it(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.writing():
        tell(store, 0, FIRST)
        store.record_visit("office", "u", START, "new")
        raise KeyboardInterrupt
    assert read(store) == {} and not store.visits()


# ------------------------------------------------------------------------------- single rules


def test_a_document_that_shows_too_little_withdraws_when_a_second_answer_says_the_same(store: Store) -> None:
    many = {(CODES[0], "DE", f"P{i}", m): (9.0, 1.0, "normal") for i in range(40) for m in MONTHS[:2]}
    tell(store, 0, many)
    half = dict(list(many.items())[::2])
    for hours in (1, 2):
        assert tell(store, hours, half) == cells.Changes(0, 0, 0, 40)
    assert same(read(store), many)
    (finding,) = store.findings()
    assert (finding["check"], finding["severity"]) == ("mass-withdrawal", "error")
    assert (finding["evidence"]["known"], finding["evidence"]["gone"]) == (80, 40)
    assert "shows 40 of 80 cells known in 2025-11 to 2026-01" in finding["message"]
    nothing = tell(store, 3, {})
    assert nothing.withdrawn == 0 and same(read(store), many), "an answer without any cell is believed no more"
    assert tell(store, 22, half).withdrawn == 40 and same(read(store), half)
    assert [f["check"] for f in store.findings()][-1] == "withdrawal"


def test_an_empty_answer_takes_back_two_cells_at_its_second_saying_only(store: Store) -> None:
    two = {(CODES[0], "DE", p, MONTHS[0]): (9.0, 1.0, "normal") for p in ("CN", "US")}
    tell(store, 0, two)
    assert tell(store, 1, {}).withdrawn == 0 and same(read(store), two)
    assert tell(store, 30, {}).withdrawn == 2 and read(store) == {}


def test_a_code_is_read_for_a_month_once_it_was_asked_for_after_the_month_appeared(store: Store) -> None:
    old, new = MONTHS[0], MONTHS[1]
    tell(store, 0, {(c, "DE", "CN", old): (9.0, 1.0, "normal") for c in CODES[:2]}, CODES[:2], (old, new))
    tell(store, 48, {(CODES[0], "DE", "CN", m): (9.0, 1.0, "normal") for m in (old, new)}, CODES[:1], (old, new))
    said = cells.read_months(store, "office")
    assert said[CODES[0]] == {old, new} and said[CODES[1]] == {old}
    tell(store, 49, {(CODES[1], "DE", "CN", old): (9.0, 1.0, "normal")}, CODES[1:2], (old, new))
    assert cells.read_months(store, "office")[CODES[1]] == {old, new}
    assert cells.read_months(store, "office", START + dt.timedelta(hours=48))[CODES[1]] == {old}


@pytest.mark.parametrize(
    ("cells_known", "gone", "believed"),
    [(20, 20, False), (21, 20, True), (1, 1, True), (24, 21, False), (105, 21, True), (104, 21, False)],
)
def test_up_to_twenty_cells_or_a_fifth_may_go(store: Store, cells_known: int, gone: int, believed: bool) -> None:
    many = {(CODES[0], "DE", f"P{i}", MONTHS[0]): (9.0, 1.0, "normal") for i in range(cells_known)}
    tell(store, 0, many)
    changes = tell(store, 1, dict(list(many.items())[gone:]))
    assert changes.withdrawn == (gone if believed else 0)
    assert len(read(store)) == cells_known - changes.withdrawn


def test_a_cell_that_was_withdrawn_may_come_back_and_every_vintage_stays(store: Store) -> None:
    key = (CODES[0], "DE", "CN", MONTHS[0])
    tell(store, 0, {key: (5.0, 1.0, "normal")})
    assert tell(store, 1, {}).withdrawn == 1 and tell(store, 2, {}).withdrawn == 0
    assert tell(store, 3, {key: (5.0, 1.0, "normal")}).revised == 1
    told = cells.history(store, "office", key[:3], key[3])
    assert told["status"].tolist() == ["normal", "withdrawn", "normal"]
    assert told["vintage"].tolist() == [micros(START + h * HOUR) for h in (0, 1, 3)]
    assert [len(read(store, hours)) for hours in (0, 1, 2, 3)] == [1, 0, 0, 1]


def test_a_difference_of_arithmetic_is_no_revision_and_a_changed_status_is(store: Store) -> None:
    key = (CODES[0], "DE", "CN", MONTHS[0])
    tell(store, 0, {key: (1e9, 3.0, "normal")})
    assert tell(store, 1, {key: (1e9 * (1 + 1e-12), 3.0, "normal")}).revised == 0
    assert tell(store, 2, {key: (1e9 + 2, 3.0, "normal")}).revised == 1
    assert tell(store, 3, {key: (1e9 + 2, NAN, "no-quantity")}).revised == 1
    assert tell(store, 4, {key: (1e9 + 2, NAN, "confidential")}).revised == 1
    assert tell(store, 5, {key: (1e9 + 2, 0.0, "normal")}).revised == 1


def test_the_same_document_is_no_news_unless_another_address_has_said_otherwise(store: Store) -> None:
    key = (CODES[0], "DE", "CN", MONTHS[0])
    one, other = {key: (1.0, 1.0, "normal")}, {key: (2.0, 1.0, "normal")}
    tell(store, 0, one, url="a")
    tell(store, 1, one, url="a")
    assert len(store.documents()) == 1
    tell(store, 2, other, url="b")
    assert tell(store, 3, one, url="a").revised == 1 and same(read(store), one)
    tell(store, 4, one, url="a", register="new")
    assert len(store.documents()) == 4, "read under another register it is noted as read"


def test_a_document_older_than_the_last_or_than_a_release_is_refused(store: Store) -> None:
    key = (CODES[0], "DE", "CN", MONTHS[0])
    tell(store, 1, {key: (1.0, 1.0, "normal")})
    with pytest.raises(StoreError, match="comes too late"):
        tell(store, 0, {key: (2.0, 1.0, "normal")})
    store.record_release("public", 1, START + 2 * HOUR, START + 2 * HOUR, "m")
    with pytest.raises(StoreError, match="not after release 1"):
        tell(store, 2, {key: (2.0, 1.0, "normal")})
    assert same(read(store), {key: (1.0, 1.0, "normal")})


def test_documents_of_one_instant_follow_each_other(store: Store) -> None:
    for i, code in enumerate(CODES):
        tell(store, 0, {(code, "DE", "CN", MONTHS[0]): (float(i), 1.0, "normal")}, (code,))
    vintages = cells.known(store, "office")["vintage"].tolist()
    assert vintages == [micros(START) + i for i in range(3)]
    assert cells.known(store, "another").empty


def test_names_of_partners_are_kept_and_renewed(store: Store) -> None:
    tell(store, 0, {}, names={"5700": "CHINA", "1220": "CANADA"})
    tell(store, 1, {}, held=frozenset(CODES), names={"5700": "CHINA, PEOPLE'S REPUBLIC"})
    assert cells.partners(store, "office") == {"1220": "CANADA", "5700": "CHINA, PEOPLE'S REPUBLIC"}


def test_the_frame_of_known_cells_is_sorted_and_typed_even_when_empty(store: Store) -> None:
    empty = cells.known(store, "office")
    tell(store, 0, dict(reversed(FIRST.items())))
    full = cells.known(store, "office")
    assert list(empty.columns) == list(full.columns) and (full["kg"].dtype, empty["kg"].dtype) == ("float64", "float64")
    keys = ["code", "reporter", "partner", "period"]
    pd.testing.assert_frame_equal(full, full.sort_values(keys).reset_index(drop=True))
