import itertools
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing import published
from pricing.errors import ReleaseError
from pricing.published import Row, append, changes, discard_after, query, read, release_at

NAME = "exchange-traded-metals"


def stamp(number: int, second: int = 0) -> str:
    return f"2026-{1 + number // 28:02d}-{1 + number % 28:02d}T14:00:{second:02d}.000000Z"


def row(period: str, value: float, **changes) -> Row:
    return Row("index", NAME, "monthly", "2015 = 100", period, value, value + 0.001, "normal", None)._replace(**changes)


def record(path, number, rows, **options):
    return append(path, number, stamp(number), stamp(number, 30), rows, **options)


def shown(path, release, **bounds):
    values = query(path, lambda db: read(db, "index", NAME, "monthly", release=release, **bounds))
    return {v.period: v.value for v in values if v.value is not None}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "published.db"


states = st.lists(
    st.dictionaries(
        st.tuples(st.sampled_from(["copper", "tin"]), st.sampled_from(["2025", "2025-12", "2026-01", "2026-01-31"])),
        st.tuples(
            st.sampled_from([1.0, 2.0, -3.5]),
            st.sampled_from(["normal", "provisional"]),
            st.sampled_from([None, "A"]),
        ),
    ),
    min_size=1,
    max_size=6,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(states)
def test_every_release_reads_back_as_it_was_whatever_came_later(tmp_path_factory, releases):
    path = tmp_path_factory.mktemp("db") / "published.db"
    model: list[dict] = []
    since: dict = {}
    for number, state in enumerate(releases, 1):
        rows = [
            Row("price", name, "daily", "USD/t", period, value, value * 2, status, grade)
            for (name, period), (value, status, grade) in state.items()
        ]
        before = model[-1][0] if model else {}
        changed = {k for k in before.keys() | state.keys() if before.get(k) != state.get(k)}
        assert append(path, number, stamp(number), stamp(number), rows) == len(changed)
        since = {**since, **dict.fromkeys(changed, number)}
        model.append((state, since))
    for number, (state, since) in enumerate(model, 1):
        for name in ("copper", "tin"):
            values = query(path, lambda db, n=name, r=number: read(db, "price", n, "daily", release=r))
            assert [v.period for v in values] == sorted(v.period for v in values)
            kept = {(name, v.period): (v.value, v.status, v.grade) for v in values if v.value is not None}
            assert kept == {k: v for k, v in state.items() if k[0] == name}
            assert {(name, v.period): v.since_release for v in values} == {
                k: n for k, n in since.items() if k[0] == name
            }
            assert all(v.unrounded == v.value * 2 for v in values if v.value is not None)


@settings(max_examples=60, deadline=None)
@given(states, st.lists(st.sampled_from(["USD/t", "EUR/t"]), min_size=6, max_size=6), st.integers(1, 4))
def test_the_changes_between_any_two_releases_turn_the_figures_of_the_one_into_those_of_the_other(
    tmp_path_factory, releases, units, page
):
    path = tmp_path_factory.mktemp("db") / "published.db"
    model: list[dict] = [{}]
    for number, state in enumerate(releases, 1):
        shown = {(name, units[number - 1], period): (v, v * 2, *rest) for (name, period), (v, *rest) in state.items()}
        rows = [Row("price", name, "daily", unit, period, *content) for (name, unit, period), content in shown.items()]
        append(path, number, stamp(number), stamp(number), rows, units_may_change=True, causes=lambda *_: ["method"])
        model.append(shown)
    for since, until in ((a, b) for b in range(len(model)) for a in range(b + 1)):
        whole = query(path, lambda db, a=since, b=until: list(changes(db, a, b)))
        state = dict(model[since])
        for one in whole:
            key = one.name, one.unit, one.period
            assert state.pop(key, None) == (one.before and one.before[1:5])
            if one.after is not None:
                state[key] = one.after[1:5]
            assert one.what == what_changed(model[since].get(key), model[until].get(key))
            steps = [n for n in range(since + 1, until + 1) if model[n - 1].get(key) != model[n].get(key)]
            assert sorted({release for release, _ in one.reasons}) == steps and one.place[0] == steps[-1]
        assert state == model[until]
        paged: list = []
        while more := query(path, lambda db, a=since, b=until, p=paged: following(db, a, b, p, page)):
            paged += more
        assert paged == whole


def what_changed(before, after):
    if before is None or after is None:
        return "new" if before is None else "withdrawn"
    return "revised" if before[:2] != after[:2] else "status"


def following(db, since, until, paged, page):
    return list(itertools.islice(changes(db, since, until, place=paged[-1].place if paged else None), page))


def test_a_change_bears_the_reasons_that_its_releases_gave(path):
    def told(kind, name, frequency, period):
        return {"2026-01": ["decision:7", "quotations"], "2026-02": []}[period]

    ends = row("2026-01", 5.0, name="tin")
    record(path, 1, [row("2026-01", 1.0), row("2026-02", 1.0), row("2026-04", 1.0), ends])
    states = [row("2026-01", 2.0), row("2026-02", 2.0), row("2026-03", 3.0), row("2026-04", 1.0), row("2026-05", 1.0)]
    record(path, 2, states, causes=lambda *key: told(*key) if key[3] < "2026-03" and key[1] != "tin" else ["method"])
    found = {(c.name, c.period): c for c in query(path, lambda db: list(changes(db, 1, 2)))}
    assert {key: [word for _, word in c.reasons] for key, c in found.items()} == {
        (NAME, "2026-01"): ["decision:7", "quotations"],
        (NAME, "2026-02"): ["inputs"],
        (NAME, "2026-03"): ["method", "late-period"],
        (NAME, "2026-05"): ["new-period"],
        ("tin", "2026-01"): ["no-longer-published"],
    }
    shown = found[NAME, "2026-01"].document()
    assert shown["reasons"] == [
        {"release": 2, "reason": "decision", "decision": 7},
        {"release": 2, "reason": "quotations"},
    ]
    assert shown["before"]["value"] == 1.0 and shown["before"]["since_release"] == 1 and shown["after"]["value"] == 2.0
    gone = found["tin", "2026-01"].document()
    assert gone["change"] == "withdrawn" and gone["before"] is None and gone["after"] is None


def test_a_file_from_before_reasons_were_kept_is_continued_and_its_changes_have_none(path):
    record(path, 1, [row("2026-01", 1.0)])
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP INDEX value_by_release")
        db.execute("ALTER TABLE value DROP COLUMN reasons")
    record(path, 2, [row("2026-01", 2.0)])
    (both,), (second,) = (query(path, lambda db, a=a: list(changes(db, a, 2))) for a in (0, 1))
    assert both.what == "new" and both.reasons == ((2, "inputs"),) and second.what == "revised"


@settings(max_examples=40, deadline=None)
@given(states, st.integers(0, 6))
def test_discarding_leaves_the_file_as_if_the_later_releases_had_never_been(tmp_path_factory, releases, keep):
    folder = tmp_path_factory.mktemp("db")
    dumps = []
    for name, wanted in (("all.db", len(releases)), ("kept.db", keep)):
        path = folder / name
        for number, state in enumerate(releases[:wanted], 1):
            rows = [Row("price", n, "daily", "USD/t", p, v, v, s, g) for (n, p), (v, s, g) in state.items()]
            append(path, number, stamp(number), stamp(number), rows)
        discard_after(path, keep)
        if path.exists():
            question = (
                "SELECT kind, name, frequency, period, release, value, status, grade "
                "FROM value JOIN dataset ON id = dataset ORDER BY 1, 2, 3, 4, 5"
            )
            dumps.append(query(path, lambda db, q=question: (db.execute(q).fetchall(), published.newest(db))))
    expected = dumps[1] if keep else ([], 0)
    assert dumps[0] == expected


def test_a_release_recorded_twice_changes_nothing(path):
    rows = [row("2026-01", 1.0)]
    assert record(path, 1, rows) == 1
    assert record(path, 1, rows) == 0
    assert shown(path, 1) == {"2026-01": 1.0}


def test_a_release_recorded_again_with_other_content_is_refused_and_kept(path):
    record(path, 1, [row("2026-01", 1.0)])
    with pytest.raises(ReleaseError, match=r"recorded with other content.*2026-01; discard_after\(0\)"):
        record(path, 1, [row("2026-01", 2.0)])
    assert shown(path, 1) == {"2026-01": 1.0}
    with pytest.raises(ReleaseError, match="recorded with the instants"):
        append(path, 1, stamp(1), stamp(2), [row("2026-01", 1.0)])


def test_a_market_that_a_release_no_longer_names_is_withdrawn(path):
    record(path, 1, [row("2026-01", 1.0), row("2026-01", 5.0, name="tin")])
    assert record(path, 2, [row("2026-01", 5.0, name="tin")]) == 1
    assert shown(path, 2) == {} and shown(path, 1) == {"2026-01": 1.0}
    assert record(path, 3, [row("2026-02", 7.0)], complete=False) == 1
    assert query(path, lambda db: read(db, "index", "tin", "monthly", release=3))[0].value == 5.0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("2026-01", float("nan"))], "value is nan"),
        ([row("2026-01", 1.0, unrounded=float("inf"))], "unrounded is inf"),
        ([row("2026-01", 1.0)._replace(value=None)], "value is None"),
        ([row("2026-1", 1.0)], "a period is YYYY"),
        ([row("2026-01", 1.0), row("2026-01", 1.0)], "given twice"),
        ([row("2026-01", 1.0), row("2026-02", 1.0, unit="t")], "unit 't', but '2015 = 100'"),
    ],
)
def test_an_unusable_row_is_refused_by_name_and_nothing_is_recorded(path, rows, message):
    with pytest.raises(ReleaseError, match=message) as caught:
        record(path, 1, rows)
    assert NAME in str(caught.value)
    assert not path.exists()


def test_numbers_and_instants_only_grow_and_units_stay(path):
    record(path, 5, [row("2026-01", 1.0)])
    for number, vintage, released, message in (
        (4, stamp(6), stamp(6), "numbers only grow"),
        (6, stamp(4), stamp(6), "lies before release 5"),
        (6, stamp(6), stamp(4), "lies before release 5"),
        (6, "2026-11-23", stamp(6), "vintage '2026-11-23' is not as"),
    ):
        with pytest.raises(ReleaseError, match=message):
            append(path, number, vintage, released, [])
    with pytest.raises(ReleaseError, match=r"unit '2020 = 100', but '2015 = 100' before"):
        record(path, 6, [row("2026-01", 1.0, unit="2020 = 100")])
    assert query(path, published.newest) == 5


OTHER = "2020 = 100"


def in_unit(path, number, unit, *values):
    rows = [row(f"2026-{n:02d}", v, unit=unit) for n, v in enumerate(values, 1)]
    return append(path, number, stamp(number), stamp(number), rows, units_may_change=True)


def unit_at(path, number):
    return query(path, lambda db: published.datasets(db, "index", NAME, release=number))


def test_in_another_unit_a_dataset_begins_anew_and_older_releases_show_what_they_showed(path):
    record(path, 1, [row("2026-01", 1.0), row("2026-02", 2.0)])
    assert in_unit(path, 2, OTHER, 10.0) == 3  # one new, two withdrawn
    assert in_unit(path, 2, OTHER, 10.0) == 0, "recorded again, as after a kill"
    assert in_unit(path, 3, OTHER, 10.0, 20.0) == 1
    assert unit_at(path, 1) == {"monthly": "2015 = 100"} and unit_at(path, 2) == unit_at(path, 3) == {"monthly": OTHER}
    assert shown(path, 1) == {"2026-01": 1.0, "2026-02": 2.0}
    assert shown(path, 2) == {"2026-01": 10.0} and shown(path, 3) == {"2026-01": 10.0, "2026-02": 20.0}
    with pytest.raises(ReleaseError, match=r"unit '2015 = 100', but '2020 = 100' before"):
        record(path, 4, [row("2026-01", 1.0)])


def test_a_unit_may_come_back(path):
    record(path, 1, [row("2026-01", 1.0), row("2026-02", 2.0)])
    in_unit(path, 2, OTHER, 10.0)
    in_unit(path, 3, "2015 = 100", 1.0)
    assert [unit_at(path, n)["monthly"] for n in (1, 2, 3)] == ["2015 = 100", OTHER, "2015 = 100"]
    assert [shown(path, n) for n in (2, 3)] == [{"2026-01": 10.0}, {"2026-01": 1.0}]
    record(path, 4, [row("2026-01", 5.0, name="tin")])
    assert shown(path, 4) == {} and unit_at(path, 4)["monthly"] == "2015 = 100"
    with pytest.raises(ReleaseError, match="another unit needs another method"):
        record(path, 5, [row("2026-01", 1.0, unit=OTHER)])


def test_an_unfinished_change_of_unit_is_forgotten_whole(path):
    record(path, 1, [row("2026-01", 1.0)])
    in_unit(path, 2, OTHER, 10.0)
    assert published.discard_after(path, 1) == 1
    assert unit_at(path, 2) == {"monthly": "2015 = 100"} and shown(path, 2) == {"2026-01": 1.0}
    assert record(path, 2, [row("2026-01", 1.5)]) == 1


def test_a_failure_half_way_leaves_the_release_out_altogether(path):
    record(path, 1, [row("2026-01", 1.0)])
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "CREATE TRIGGER late BEFORE INSERT ON value WHEN NEW.period = '2026-03' "
            "BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    with pytest.raises(sqlite3.IntegrityError, match="disk full"):
        record(path, 2, [row("2026-01", 9.0), row("2026-02", 2.0), row("2026-03", 3.0)])
    assert query(path, published.newest) == 1
    assert shown(path, 9) == {"2026-01": 1.0}


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2025-12", None, ["2025-12", "2025-12-31", "2026", "2026-01", "2026-01-01", "2026-01-15"]),
        ("2026", "2026", ["2026", "2026-01", "2026-01-01", "2026-01-15"]),
        ("2026-01-01", "2026-01", ["2026", "2026-01", "2026-01-01", "2026-01-15"]),
        ("2026-01-02", None, ["2026-01-15"]),
        (None, "2025-12-30", ["2025", "2025-12"]),
        ("2025-12-31", "2026-01-01", ["2025-12-31", "2026", "2026-01", "2026-01-01"]),
    ],
)
def test_a_period_lies_between_by_its_first_day(path, start, end, expected):
    every = ["2025", "2025-12", "2025-12-31", "2026", "2026-01", "2026-01-01", "2026-01-15"]
    record(path, 1, [row(p, 1.0) for p in every])
    assert list(shown(path, 1, start=start, end=end)) == expected


def test_the_release_at_an_instant_is_the_last_one_that_was_out(path):
    record(path, 1, [])
    record(path, 3, [])
    asked = [stamp(1, 29), stamp(1, 30), stamp(3, 29), stamp(3, 30), "2099-01-01T00:00:00.000000Z"]
    assert [query(path, lambda db, i=i: release_at(db, i)) for i in asked] == [None, 1, 1, 3, 3]
    with pytest.raises(ValueError, match="an instant is as"):
        query(path, lambda db: release_at(db, "2026-11-23"))


def test_readers_never_see_part_of_a_release_while_it_is_written(path):
    record(path, 1, [row(f"{y}", 1.0) for y in range(1900, 2000)])
    seen, stop = set(), threading.Event()

    def poll():
        while not stop.is_set():
            seen.add(tuple(set(shown(path, 10**6).values())))

    reader = threading.Thread(target=poll)
    reader.start()
    for number in range(2, 30):
        record(path, number, [row(f"{y}", float(number)) for y in range(1900, 2000)])
    stop.set()
    reader.join()
    assert all(len(values) == 1 for values in seen)


def test_a_reader_cannot_write(path):
    record(path, 1, [row("2026-01", 1.0)])
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        query(path, lambda db: db.execute("DELETE FROM value"))
    assert shown(path, 1) == {"2026-01": 1.0}


def test_an_absent_file_is_an_error_and_is_not_made(path):
    with pytest.raises(sqlite3.OperationalError):
        query(path, published.newest)
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without rights")
def test_a_process_that_may_not_write_the_folder_reads_it_all_the_same(tmp_path_factory):
    folder = tmp_path_factory.mktemp("db")
    path = folder / "published.db"
    record(path, 1, [row("2026-01", 1.0)])
    ours = [each for each in (folder, *folder.parents) if each.name.startswith(("db", "popen", "pytest"))]
    for each in ours:
        each.chmod(0o755)
    code = (
        "import os, sys; from pathlib import Path; from pricing import published; os.setgid(65534); os.setuid(65534)\n"
        "ask = lambda db: published.read(db, 'index', sys.argv[2], 'monthly', release=1)[0].value\n"
        "print(published.query(Path(sys.argv[1]), ask))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path), NAME], capture_output=True, text=True, check=False)
    assert done.stdout == "1.0\n", done.stderr
    assert sorted(p.name for p in folder.iterdir()) == ["published.db"]
