import datetime as dt
import hashlib
import shutil
import sqlite3
from contextlib import closing
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.config import Series, Source, load_operation
from pricing.errors import StoreError
from pricing.quality import Finding
from pricing.sources import frame, worldbank
from pricing.store import Changes, Store, instant, iso, micros

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")

DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def day(n: float) -> dt.datetime:
    return DAY + dt.timedelta(days=n)


@pytest.fixture
def store():
    with closing(Store(":memory:")) as opened:
        yield opened


def append(store, at, rows, *, name=None, source="bank", register="r", **options):
    """Store one document that says ``rows``: (series, period, value[, status])."""
    sha = hashlib.sha256(repr((name, at, rows)).encode()).hexdigest()
    document = store.add_document(source, sha, url="u", retrieved_at=at, size=1)
    return store.append(document, source, at, frame(rows), register=register, **options)


def known(store, as_of=None, **options) -> dict[tuple[str, str], tuple[float, str]]:
    rows = store.observations(as_of=as_of, **options)
    keys = zip(rows["series"], rows["period"], strict=True)
    return dict(zip(keys, zip(rows["value"], rows["status"], strict=True), strict=True))


def counts(changes) -> tuple[int, int, int, int]:
    return changes.new, changes.revised, changes.withdrawn, changes.unchanged


# ---------------------------------------------------------------------------- as it was known

MONTHS = [f"2025-{m:02d}" for m in range(1, 8)]
contents = st.dictionaries(
    st.tuples(st.sampled_from(["copper", "tin"]), st.sampled_from(MONTHS)),
    st.tuples(st.sampled_from([1.5, 2.5, 3.5]), st.sampled_from(["normal", "normal", "provisional", "voided"])),
    max_size=14,
)
histories = st.lists(st.tuples(contents, st.booleans(), st.integers(0, 3)), min_size=1, max_size=5)


def learnt(before: dict, said: dict, complete: bool) -> dict:
    """What is known after a document, by the words of the design and nothing else."""
    after = dict(before)
    for series in {key[0] for key in said}:
        periods = [p for s, p in said if s == series]
        for key in [k for k in before if k[0] == series and min(periods) <= k[1] <= max(periods)]:
            if complete and key not in said:
                del after[key]
    return after | said


@settings(max_examples=40, deadline=None)
@given(histories)
def test_reading_as_of_any_instant_gives_what_was_known_then(documents):
    with closing(Store(":memory:")) as store:
        model, at = [(day(-1), {})], DAY
        for said, complete, gap in documents:
            at += dt.timedelta(hours=1 + gap)
            rows = [(s, p, v, status) for (s, p), (v, status) in said.items()]
            before = model[-1][1]
            changes = append(store, at, rows, complete=complete)
            model.append((at, learnt(before, said, complete)))
            after = model[-1][1]
            assert changes.new == len(said.keys() - before.keys()) - _returned(store, at, said, before)
            assert changes.withdrawn == len(before.keys() - after.keys())
            assert changes.unchanged == sum(before.get(key) == value for key, value in said.items())
        for moment, expected in model:
            for shift in (0, 30):  # until the next document nothing changes
                assert known(store, moment + dt.timedelta(minutes=shift)) == expected
        assert known(store) == model[-1][1]
        only = {key: value for key, value in model[-1][1].items() if key[0] == "tin"}
        assert known(store, series=["tin"]) == only


def _returned(store, at, said, before) -> int:
    """Figures that come back after a withdrawal count as revised."""
    back = 0
    for series, period in said.keys() - before.keys():
        rows = store.history(series, period)
        back += bool((rows["vintage"] < micros(at)).any())
    return back


def test_rows_come_sorted_and_carry_vintage_and_document(store):
    append(store, day(1), [("tin", "2025-02", 2.0), ("tin", "2025-01", 1.0)])
    append(store, day(2), [("copper", "2025-01", 3.0), ("tin", "2025-01", 9.0)], complete=False)
    rows = store.observations()
    rows["vintage"] = rows["vintage"].map(instant)
    assert rows[["series", "period", "value", "vintage", "document"]].values.tolist() == [
        ["copper", "2025-01", 3.0, day(2), 2],
        ["tin", "2025-01", 9.0, day(2), 2],
        ["tin", "2025-02", 2.0, day(1), 1],
    ]
    assert store.observations(["tin", "copper"])["series"].tolist() == ["copper", "tin", "tin"]


def test_an_empty_document_changes_nothing(store):
    append(store, day(1), [("tin", "2025-01", 1.0)])
    assert counts(append(store, day(2), [])) == (0, 0, 0, 0)
    assert known(store) == {("tin", "2025-01"): (1.0, "normal")}


def test_the_history_of_a_period_shows_every_vintage(store):
    for n, rows in enumerate(([("tin", "2025-01", 1.0)], [("tin", "2025-01", 2.0)], [("tin", "2025-02", 9.0)])):
        append(store, day(n), rows, complete=False)
    assert store.history("tin", "2025-01")["value"].tolist() == [1.0, 2.0]
    assert store.history("tin")["period"].tolist() == ["2025-01", "2025-01", "2025-02"]
    assert store.history("lead").empty


# ------------------------------------------------------------------------------------ revisions

YEAR = [f"2024-{m:02d}" for m in range(1, 13)]  # enough figures to tell the decimals of a document


@pytest.mark.parametrize(
    ("old", "new", "revised"),
    [
        (0.9137, 0.91, False),  # re-rounded
        (0.91, 0.9137, False),  # and back
        (0.9137, 0.92, True),  # more than half a unit of the coarser decimals
        (164.77, 163.80, True),
        (100.0, 100.5, False),  # half a unit of whole numbers
        (100.0, 101.0, True),
        (1e-7, 2e-7, True),
        (123456789.123456, 123456789.123457, False),  # below a billionth a difference is arithmetic
    ],
)
def test_a_revision_is_more_than_half_a_unit_of_the_coarser_decimals(store, old, new, revised):
    append(store, day(1), [("tin", m, old) for m in YEAR])
    changes = append(store, day(2), [("tin", m, new) for m in YEAR])
    assert counts(changes) == ((0, 12, 0, 0) if revised else (0, 0, 0, 12))
    assert {value for value, _ in known(store).values()} == {new if revised else old}


def test_the_decimals_of_a_document_are_those_of_its_finest_figure(store):
    append(store, day(1), [("tin", "2025-01", 10.0), ("tin", "2025-02", 10.25)])
    changes = append(store, day(2), [("tin", "2025-01", 10.3), ("tin", "2025-02", 10.26)])
    assert counts(changes) == (0, 2, 0, 0)


def test_a_round_figure_in_a_short_document_does_not_hide_its_revision(store):
    """53.00 alone in a document reads as no decimals; the series has shown that it has two."""
    append(store, day(1), [("cobalt", "2026-01-01", 53.25)], complete=False)
    append(store, day(2), [("cobalt", "2026-01-02", 53.0)], complete=False)
    append(store, day(3), [("cobalt", "2026-01-02", 53.4)], complete=False)
    assert known(store)["cobalt", "2026-01-02"] == (53.4, "normal")


def test_small_steps_add_up_to_a_revision_against_what_is_stored(store):
    revised = [append(store, day(n), [("tin", m, v) for m in YEAR]).revised for n, v in enumerate((1.23456, 1.2, 1.24))]
    assert revised == [0, 0, 12]


def test_a_change_of_status_is_a_revision(store):
    append(store, day(1), [("nickel", "2022-03-08", 80000.0)])
    assert append(store, day(2), [("nickel", "2022-03-08", 80000.0, "voided")]).revised == 1
    assert known(store)["nickel", "2022-03-08"] == (80000.0, "voided")
    assert known(store, day(1.5))["nickel", "2022-03-08"] == (80000.0, "normal")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 10**12), min_size=12, max_size=20),
    st.integers(1, 5),
    st.integers(0, 4),
    st.sampled_from([ROUND_HALF_UP, ROUND_HALF_EVEN]),
)
def test_a_file_that_is_only_rounded_again_revises_nothing(numbers, fine, coarse, how):
    """Up to ten million, where half a unit and the last bits of a double come close."""

    def rounded(values: list[Decimal], places: int) -> list[Decimal]:
        return [v.quantize(Decimal(1).scaleb(-places), how) for v in values]

    first = rounded([Decimal(n).scaleb(-5) for n in numbers], fine)
    again = rounded(first, min(coarse, fine))
    months = [f"{1990 + i // 12}-{i % 12 + 1:02d}" for i in range(len(first))]
    with closing(Store(":memory:")) as store:
        append(store, day(1), [("tin", m, float(v)) for m, v in zip(months, first, strict=True)])
        changes = append(store, day(2), [("tin", m, float(v)) for m, v in zip(months, again, strict=True)])
        assert counts(changes) == (0, 0, 0, len(first))


numbers = st.one_of(
    st.floats(1e-12, 1e15),
    st.decimals(0, 10**7, places=6).map(float),
    st.sampled_from([0.1 + 0.2, 1e-7, 1.5e-7, 1e22, 123456789.125, 5e-324, 2.0**53]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=5))
def test_decimals_are_counted_as_a_reader_counts_them(values):
    with closing(Store(":memory:")) as store:
        append(store, day(1), [("tin", m, v) for m, v in zip(MONTHS, values, strict=False)])
        (row,) = store.db.query("SELECT decimals FROM precision")
    assert row["decimals"] == max(0, *(-int(Decimal(repr(v)).normalize().as_tuple().exponent) for v in values))


# --------------------------------------------------------------------------- withdrawn and discontinued


def test_a_value_is_withdrawn_inside_the_span_only(store):
    append(store, day(1), [("tin", m, 1.0) for m in MONTHS])
    changes = append(store, day(2), [("tin", m, 1.0) for m in MONTHS[2:6] if m != "2025-04"])
    assert counts(changes) == (0, 0, 1, 3)
    assert [p for _, p in known(store)] == [m for m in MONTHS if m != "2025-04"]
    assert [p for _, p in known(store, day(1.5))] == MONTHS
    # withdrawn once is withdrawn; coming back is a revision
    assert append(store, day(3), [("tin", m, 1.0) for m in ("2025-03", "2025-05")]).withdrawn == 0
    assert counts(append(store, day(4), [("tin", "2025-04", 1.0)])) == (0, 1, 0, 0)
    assert [p for _, p in known(store)] == MONTHS


def test_a_document_of_changes_withdraws_nothing(store):
    append(store, day(1), [("tin", m, 1.0) for m in MONTHS])
    changes = append(store, day(2), [("tin", MONTHS[0], 2.0), ("tin", MONTHS[-1], 2.0)], complete=False)
    assert counts(changes) == (0, 2, 0, 0)
    assert len(known(store)) == len(MONTHS)


def test_a_series_that_vanishes_is_discontinued_once_and_may_return(store):
    both = [("tin", "2025-01", 1.0), ("steel", "2025-01", 5.0)]
    append(store, day(1), both)
    told = [append(store, day(n), both[:1], absent=["steel", "never-seen"]).discontinued for n in (2, 3)]
    assert told == [("steel",), ()]
    assert len(known(store)) == 2  # what was published stays known
    assert append(store, day(4), both).discontinued == ()
    assert append(store, day(5), both[:1], absent=["steel"]).discontinued == ("steel",)
    found = [f for f in store.findings() if f["check"] == "discontinued"]
    assert [(f["series"], instant(f["vintage"])) for f in found] == [("steel", day(2)), ("steel", day(5))]


# ------------------------------------------------------------------------------------------ order


def test_vintages_only_grow(store):
    append(store, day(2), [("tin", "2025-01", 1.0)])
    with pytest.raises(StoreError, match="tin: a document of 2026-01-03.* is already stored; .* comes too late"):
        append(store, day(1), [("tin", "2025-01", 2.0)])
    assert known(store) == {("tin", "2025-01"): (1.0, "normal")}
    append(store, day(1), [("lead", "2025-01", 2.0)])  # another series has a time of its own


def test_nothing_is_learnt_at_or_before_the_last_release(store):
    append(store, day(1), [("tin", "2025-01", 1.0)])
    store.record_release("internal", 7, day(3), day(3), "m")
    for late in (day(2), day(3)):
        with pytest.raises(StoreError, match="is not after release 7"):
            append(store, late, [("lead", "2025-01", 2.0)])
    assert list(known(store)) == [("tin", "2025-01")]
    append(store, day(3) + dt.timedelta(microseconds=1), [("lead", "2025-01", 2.0)])


def test_documents_of_one_instant_follow_each_other(store):
    for value in (1.0, 2.0, 3.0):
        append(store, day(1), [("tin", "2025-01", value)], name=str(value))
    rows = store.history("tin")
    assert rows["value"].tolist() == [1.0, 2.0, 3.0]
    assert (rows["vintage"] - micros(day(1))).tolist() == [0, 1, 2]


def test_a_document_is_read_once_under_one_register(store):
    rows = [("tin", "2025-01", 1.0)]
    assert counts(append(store, day(1), rows, name="a")) == (1, 0, 0, 0)
    document = store.documents()[0]["id"]
    again = frame([("tin", "2025-01", 9.0)])
    assert store.append(document, "bank", day(2), again, register="r") == Changes()
    assert store.is_current(document, "r") and not store.is_current(document, "s")
    assert store.append(document, "bank", day(3), again, register="s").revised == 1


def test_a_publisher_that_goes_back_to_an_earlier_file_is_believed(store):
    for n, (sha, value) in enumerate([("a", 100.5), ("b", 10050.5), ("a", 100.5)], start=1):
        document = store.add_document("bank", sha, url="prices.csv", retrieved_at=day(n), size=1)
        store.append(document, "bank", day(n), frame([("tin", "2025-01", value)]), register="r")
    assert known(store)["tin", "2025-01"] == (100.5, "normal")
    assert len(store.history("tin", "2025-01")) == 3


def test_a_last_figure_that_a_newer_document_takes_back_is_withdrawn(store):
    append(store, day(1), [("tin", "2025-01", 1.0), ("tin", "2025-02", 999.5)])
    assert append(store, day(2), [("tin", "2025-01", 1.0)]).withdrawn == 0
    assert append(store, day(3), [("tin", "2025-01", 1.0)], name="c", to_the_end=True).withdrawn == 1


def test_a_time_without_a_zone_is_refused(store):
    with pytest.raises(StoreError, match="without a time zone"):
        append(store, dt.datetime(2026, 1, 1, tzinfo=dt.UTC).replace(tzinfo=None), [])


@given(st.integers(-(2**51), 2**52).map(lambda n: dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + n * dt.timedelta.resolution))
def test_instants_survive_being_stored_and_text_order_is_time_order(moment):
    assert instant(micros(moment)) == moment
    assert dt.datetime.fromisoformat(iso(moment)) == moment
    assert iso(moment) < iso(moment + dt.timedelta(microseconds=1))


# -------------------------------------------------------------------------------- kinds and schema


@pytest.mark.parametrize(("first", "second"), [("live", "simulated"), ("simulated", "live")])
def test_simulated_and_real_prices_never_meet(tmp_path, first, second):
    path = tmp_path / "store.db"
    Store(path, first).close()
    with pytest.raises(StoreError, match="simulated and real prices never meet"):
        Store(path, second)
    with closing(Store(path, first)) as again:
        assert again.kind == first


def test_replayed_is_for_life_and_never_of_simulated_prices(tmp_path):
    with closing(Store(tmp_path / "live.db")) as store:
        store.mark_replayed()
    with closing(Store(tmp_path / "live.db")) as store:
        assert store.kind == "replayed"
    with pytest.raises(StoreError, match="never meet"):
        Store(tmp_path / "live.db", "simulated")
    with closing(Store(tmp_path / "demo.db", "simulated")) as store:
        store.mark_replayed()
        assert store.kind == "simulated"


def test_another_file_is_no_database_of_ours(tmp_path):
    path = tmp_path / "store.db"
    path.write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(StoreError, match="not a Lodemark database"):
        Store(path)


@pytest.mark.parametrize(
    "row",
    [
        (1, "2025-01", 0, "one", "normal", 1),
        ("tin", "2025-01", 0, 1.0, "normal", 1),
        (1, "2025-01", "yesterday", 1.0, "normal", 1),
        (1, "2025-01", 0, 1.0, None, 1),
    ],
)
def test_tables_refuse_a_wrong_type(store, row):
    with pytest.raises(sqlite3.IntegrityError):
        store.db.execute("INSERT INTO observation VALUES (?, ?, ?, ?, ?, ?)", row)


def test_every_table_is_strict_and_observations_are_kept_by_series_period_vintage(store):
    listed = {row["name"]: row for row in store.db.query("PRAGMA table_list") if row["schema"] == "main"}
    ours = {name: row for name, row in listed.items() if not name.startswith(("sqlite_", "_sqlite"))}
    assert len(ours) >= 10 and all(row["strict"] for row in ours.values())
    assert ours["observation"]["wr"] == 1  # WITHOUT ROWID
    columns = [row for row in store.db.query("PRAGMA table_info(observation)") if row["pk"]]
    assert [row["name"] for row in sorted(columns, key=lambda row: row["pk"])] == ["series", "period", "vintage"]


def test_one_period_twice_in_a_document_stores_nothing_of_it(store):
    with pytest.raises(sqlite3.IntegrityError):
        append(store, day(1), [("tin", "2025-01", 1.0), ("tin", "2025-01", 2.0)])
    assert known(store) == {} and store.documents() == []


# ----------------------------------------------------------------------------------------- crashes


class Fragile:
    """A connection on which something happens before every statement, and every row of one."""

    def __init__(self, conn, happen):
        self._conn, self._happen, self.steps = conn, happen, 0

    def _step(self):
        self.steps += 1
        self._happen(self.steps)

    def execute(self, *args):
        self._step()
        return self._conn.execute(*args)

    def executemany(self, sql, rows):
        def each():
            for row in rows:
                self._step()
                yield row

        self._step()
        return self._conn.executemany(sql, each())

    def __getattr__(self, name):
        return getattr(self._conn, name)


BEFORE = [("tin", m, 1.0) for m in MONTHS] + [("steel", "2025-01", 7.0)]
AFTER = [("tin", m, 1.0 if m < "2025-04" else 2.0) for m in MONTHS if m != "2025-02"] + [("lead", "2025-01", 3.0)]
TOLD = [Finding("doubt", "warning", "a doubt", series="tin")]


def everything(store) -> dict[str, list]:
    names = ("observation", "parsed", "precision", "series", "finding")
    return {name: list(store.db.query(f"SELECT * FROM {name} ORDER BY 1, 2, 3")) for name in names}


def second(store):
    return append(store, day(2), AFTER, absent=["steel"], findings=TOLD, published=dt.date(2026, 1, 3))


def whole_and_steps() -> tuple[dict[str, list], int]:
    with closing(Store(":memory:")) as store:
        append(store, day(1), BEFORE)
        store._conn = counting = Fragile(store._conn, lambda step: None)
        second(store)
        return everything(store), counting.steps


def failing(store, at: int):
    """Let the second document fail at one of its steps."""

    def fail(step):
        if step == at:
            raise KeyboardInterrupt

    sound, store._conn = store._conn, Fragile(store._conn, fail)
    with pytest.raises(KeyboardInterrupt):
        second(store)
    store._conn = sound


def test_an_error_at_any_statement_leaves_nothing_and_a_retry_completes():
    whole, steps = whole_and_steps()
    assert steps > 30
    for step in range(1, steps + 1):  # the last one is COMMIT, which fails when the disk is full
        with closing(Store(":memory:")) as store:
            append(store, day(1), BEFORE)
            before = everything(store)
            failing(store, step)
            assert everything(store) == before, f"step {step}"
            second(store)
            assert everything(store) == whole


def test_a_kill_at_any_statement_leaves_nothing_of_the_document_and_a_retry_completes(tmp_path):
    """The files as they lie on the disk at each moment are opened as after a kill."""
    whole, steps = whole_and_steps()

    def copy(step):
        for file in (tmp_path / "store.db", tmp_path / "store.db-wal"):
            shutil.copy(file, tmp_path / file.name.replace("store", f"at-{step}"))

    with closing(Store(tmp_path / "store.db")) as store:
        append(store, day(1), BEFORE)
        before = everything(store)
        store._conn = Fragile(store._conn, copy)
        second(store)
    for step in range(1, steps + 1):
        with closing(Store(tmp_path / f"at-{step}.db")) as store:
            assert everything(store) == before, f"step {step}"
            second(store)
            assert everything(store) == whole


# -------------------------------------------------------------------------- releases, bases, visits


def test_a_release_is_recorded_once_and_never_with_another_manifest(store):
    assert store.last_release() is None
    for _ in range(2):
        store.record_release("public", 1, day(1), day(1), "aa")
    with pytest.raises(StoreError, match=r"release 1 \(public\) is already recorded with another manifest"):
        store.record_release("public", 1, day(1), day(1), "bb")
    store.record_release("internal", 1, day(2), day(2), "cc")
    assert store.last_release("public")["manifest"] == "aa"
    assert store.last_release()["manifest"] == "cc"


def test_a_basis_is_set_for_life(store):
    row = {"market": "tin/metal/XCN", "frequency": "daily", "effective": "", "origin": "a", "common": 30}
    row |= {"via": "anchor", "first": "2025-01", "last": "2026-01"}
    store.add_bases("public", [{**row, "ratio": 1.02, "vintage": micros(day(1))}])
    later = {**row, "vintage": micros(day(2))}
    store.add_bases("public", [{**later, "ratio": 1.5}, {**later, "origin": "b", "ratio": 0.9}])
    assert [b["origin"] for b in store.bases("public", day(1))] == ["a"]
    kept = [(b["origin"], b["ratio"], instant(b["vintage"])) for b in store.bases("public")]
    assert kept == [("a", 1.02, day(1)), ("b", 0.9, day(2))]
    assert store.bases("internal") == []


def test_a_visit_keeps_its_validators_through_a_failure(store):
    store.record_visit("bank", "u", day(1), "new", etag='"1"', sha256="aa")
    store.record_visit("bank", "u", day(2), "failed", "no route")
    seen = store.visit("bank", "u")
    assert (seen["etag"], seen["sha256"], seen["outcome"]) == ('"1"', "aa", "failed")
    assert (seen["at"], seen["succeeded_at"]) == (iso(day(2)), iso(day(1)))
    assert store.visit("bank", "elsewhere")["etag"] == ""


def test_findings_are_read_as_they_were_known(store):
    store.add_findings(day(1), "bank", [Finding("fetch", "warning", "no answer", evidence={"tries": 4})])
    store.add_findings(day(3), "bank", [Finding("layout", "error", "cell B7")])
    assert [f["check"] for f in store.findings()] == ["fetch", "layout"]
    (first,) = store.findings(day(2))
    assert first["evidence"] == {"tries": 4} and first["message"] == "no answer"


def test_the_summary_counts_each_source(store):
    append(store, day(1), [("tin", m, 1.0) for m in MONTHS])
    append(store, day(2), [("tin", m, 2.0 if m == "2025-01" else 1.0) for m in MONTHS if m != "2025-03"])
    append(store, day(2), [("tin-mine", "2025", 3.0)], source="survey")
    bank, survey = store.summary()
    assert (bank["source"], bank["documents"], bank["observations"]) == ("bank", 2, len(MONTHS) - 1)
    assert (bank["revised"], bank["withdrawn"], bank["last_period"]) == (1, 1, MONTHS[-1])
    assert (survey["source"], survey["observations"], survey["revised"]) == ("survey", 1, 0)
    assert store.last_vintage("bank") == day(2) and store.last_vintage("nobody") is None


def test_two_hundred_thousand_figures_in_one_document(store):
    days = pd.date_range("1980-01-01", periods=10_000).strftime("%Y-%m-%d")
    rows = pd.DataFrame({"series": [f"s{i}" for i in range(20) for _ in days], "period": list(days) * 20})
    rows = rows.assign(value=(rows.index % 9973 + 100) / 4, status="normal")
    document = store.add_document("bank", "1", url="u", retrieved_at=day(1), size=1)
    assert store.append(document, "bank", day(1), rows, register="r") == Changes(new=200_000)
    rows.loc[5, "value"] += 1
    document = store.add_document("bank", "2", url="u", retrieved_at=day(2), size=1)
    changes = store.append(document, "bank", day(2), rows[:50_000], register="r")
    assert changes == Changes(revised=1, unchanged=49_999)
    assert len(store.observations(as_of=day(1))) == 200_000
    assert store.history("s0", days[5])["value"].tolist() == [105 / 4, 105 / 4 + 1]


# ----------------------------------------------------------------------------------- the real files


def pinksheet(stamp: str) -> bytes:
    return (SHARED / f"data/worldbank/pinksheet_{stamp}.xlsx").read_bytes()


def learn(store, stamp: str, series: dict[str, Series], source: Source):
    at = dt.datetime.combine(dt.date.fromisoformat(stamp), dt.time.max, dt.UTC)
    parsed = worldbank.parse(pinksheet(stamp), series, source)
    document = store.add_document("worldbank", stamp, url=stamp, retrieved_at=at, size=1)
    return store.append(document, "worldbank", at, parsed.observations, register="r", absent=parsed.absent)


def columns(stamp: str) -> dict[str, Series]:
    """Every column of a vintage as a series, of the same id in every vintage."""
    facts = {"kind": "other", "unit": "USD/t", "frequency": "monthly", "origin": "x"}
    names = {worldbank.normal(name): name for name in worldbank.columns(pinksheet(stamp))}
    ids = {normal: f"c{hashlib.sha256(normal.encode()).hexdigest()[:12]}" for normal in names}
    return {ids[n]: Series.model_validate({**facts, "id": ids[n], "column": name}) for n, name in names.items()}


@real
@pytest.mark.parametrize(
    ("old", "new", "revised"),
    [("2022-04-04", "2022-10-04", 12), ("2020-08-04", "2020-12-02", 204), ("2021-03-02", "2021-04-02", 32)],
)
def test_pairs_of_real_vintages_are_stored_with_the_known_number_of_revisions(store, old, new, revised):
    source = load_operation(ROOT / "config.toml").sources["worldbank"]
    before, after = learn(store, old, columns(old), source), learn(store, new, columns(new), source)
    assert before.revised == 0 and before.new > 40_000
    assert after.revised == revised


@real
def test_iron_ore_is_known_as_it_was_published_before_and_after_its_revision(store):
    source = load_operation(ROOT / "config.toml").sources["worldbank"]
    for stamp in ("2021-03-02", "2021-04-02"):
        learn(store, stamp, {s.id: s for s in source.series}, source)
    on = [known(store, dt.datetime(2021, month, 15, tzinfo=dt.UTC)) for month in (3, 4)]
    (iron,) = [s.id for s in source.series if s.mineral == "iron-ore"]
    assert [seen[iron, "2021-02"][0] for seen in on] == [164.77, 163.80]


def test_a_figure_that_was_held_back_withdraws_nothing(store):
    append(store, day(1), [("tin", m, 2.0) for m in MONTHS])
    rest = [("tin", m, 2.0) for m in MONTHS if m != "2025-03"]
    assert append(store, day(2), rest, held=[("tin", "2025-03")]).withdrawn == 0
    assert known(store)["tin", "2025-03"] == (2.0, "normal")


def test_what_is_known_is_read_from_so_many_periods_before_one_on(store):
    append(store, day(1), [("tin", m, float(k)) for k, m in enumerate(MONTHS)] + [("copper", MONTHS[0], 9.0)])
    append(store, day(2), [("tin", m, 10.0 + k) for k, m in enumerate(MONTHS) if m != "2025-04"])
    rows = store.known_around({"tin": "2025-05", "copper": "2025-01", "lead": "2025-01"}, 2)
    assert rows[["series", "period", "value"]].to_numpy().tolist() == [
        ["tin", "2025-03", 12.0], ["tin", "2025-05", 14.0], ["tin", "2025-06", 15.0], ["tin", "2025-07", 16.0],
        ["copper", "2025-01", 9.0],
    ]  # fmt: skip
    assert store.known_around({"tin": "2026-01"}, 1)["period"].tolist() == ["2025-07"]


def test_revisions_and_first_days_are_told_of_each_period(store):
    append(store, day(1), [("tin", "2025-01", 1.01), ("tin", "2025-02", 2.01)])
    append(store, day(2), [("tin", "2025-01", 1.51), ("tin", "2025-02", 2.01), ("tin", "2025-03", 3.01)])
    append(store, day(3), [("tin", "2025-01", 1.01, "voided"), ("tin", "2025-02", 2.51), ("tin", "2025-03", 3.01)])
    told = store.revisions(["tin", "zinc"])
    assert told[["period", "old", "new"]].to_numpy().tolist() == [
        ["2025-01", 1.01, 1.51], ["2025-01", 1.51, 1.01], ["2025-02", 2.01, 2.51],
    ]  # fmt: skip
    assert told["vintage"].tolist() == [micros(day(2)), micros(day(3)), micros(day(3))]
    first = store.first_learnt(["tin"], 2)
    assert first["period"].tolist() == ["2025-03", "2025-02"]
    assert first["day"].tolist() == [day(2).date(), day(1).date()]


def test_the_newest_stamp_is_told_by_series_and_known_periods_include_withdrawn_ones(store):
    append(store, day(1), [("tin", m, 1.0) for m in MONTHS], published=dt.date(2026, 1, 1))
    append(store, day(2), [("tin", m, 1.0) for m in MONTHS if m != "2025-03"], published=dt.date(2026, 2, 1))
    append(store, day(3), [("lead", "2025-01", 1.0)], published=dt.date(2025, 5, 5))
    assert store.last_published("bank") == {"tin": dt.date(2026, 2, 1), "lead": dt.date(2025, 5, 5)}
    assert ("tin", "2025-03") in store.periods(["tin"]) and ("tin", "2025-03") not in known(store)


def test_a_kept_file_that_is_loaded_again_at_its_own_vintage_is_no_news(store):
    rows = {sha: frame([("tin", "2025-01", value)]) for sha, value in (("a", 1.0), ("b", 2.0))}
    ids = {sha: store.add_document("bank", sha, url="CMO.xlsx", retrieved_at=day(1), size=1) for sha in rows}
    for n, sha in enumerate("ab", start=1):
        assert store.append(ids[sha], "bank", day(n), rows[sha], register="r") != Changes()
    for n, sha in enumerate("ab", start=1):
        assert store.append(ids[sha], "bank", day(n), rows[sha], register="r") == Changes()
