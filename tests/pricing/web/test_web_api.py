import datetime as dt
import gzip
import hashlib
import json
import os
import shutil
import sqlite3
import threading
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing import published
from pricing.web.answers import takes_gzip

INDEX = "/v1/indices/exchange-traded-metals"
PRICE = "/v1/prices/nickel/metal/XCN"


def on_disk(trees, number, name):
    return (trees.root / "releases" / f"{number:06d}" / name).read_bytes()


def problem(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    document = json.loads(answer.data)
    assert document["status"] == status and document["title"] and document["detail"] and document["type"]
    return document


# ------------------------------------------------------------------------------ plain documents


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("/v1", "root.json"),
        ("/v1/", "root.json"),
        ("/v1/indices", "indices.json"),
        ("/v1/indices/", "indices.json"),
        (INDEX, "indices/exchange-traded-metals.json"),
        (INDEX + "/", "indices/exchange-traded-metals.json"),
        (INDEX + "/monthly/2026", "indices/exchange-traded-metals/monthly/2026.json"),
        ("/v1/prices", "prices.json"),
        (PRICE, "prices/nickel/metal/XCN.json"),
        (PRICE + "/daily/2026", "prices/nickel/metal/XCN/daily/2026.json"),
        ("/v1/methodology", "methodology.json"),
        ("/v1/sources", "sources.json"),
    ],
)
def test_an_address_answers_the_current_releases_file_byte_for_byte(trees, client, address, file):
    answer = client.get(address)
    body = on_disk(trees, 2, file)
    assert answer.status_code == 200 and answer.data == body
    assert answer.headers["ETag"] == f'"{hashlib.sha256(body).hexdigest()}"'
    assert answer.headers["Last-Modified"] == "Mon, 02 Nov 2026 14:00:30 GMT" or trees_are_older_than_the_release(trees)
    assert answer.headers["Cache-Control"] == "public, max-age=60"
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Length"] == str(len(body))
    assert answer.headers["Lodemark-Release"] == "2"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def trees_are_older_than_the_release(trees):
    """An HTTP date may not lie in the future: on a machine whose clock is behind, the file's time counts."""
    written = (trees.root / "releases/000002/manifest.json").stat().st_mtime
    return written < dt.datetime(2026, 11, 2, 14, 0, 30, tzinfo=dt.UTC).timestamp()


def test_the_gzip_twin_is_sent_as_it_lies_with_an_etag_of_its_own(trees, client):
    answer = client.get(INDEX, headers={"Accept-Encoding": "br, gzip"})
    twin = on_disk(trees, 2, "indices/exchange-traded-metals.json.gz")
    assert answer.headers["Content-Encoding"] == "gzip" and answer.data == twin
    assert answer.headers["ETag"] == f'"{hashlib.sha256(twin).hexdigest()}"'
    assert gzip.decompress(answer.data) == client.get(INDEX).data


@pytest.mark.parametrize(
    ("accepted", "taken"),
    [
        ("gzip", True), ("GZIP;q=0.5", True), ("*", True), ("x-gzip", True), ("identity, gzip;q=1.0", True),
        ("gzip;q=0", False), ("gzip; q=0.0, *", False), ("*;q=0", False), ("br", False), ("identity", False),
        ("", False), ("gzip;q=wrong", False), ("notgzip", False),
    ],
)  # fmt: skip
def test_gzip_is_sent_only_to_who_takes_it(accepted, taken):
    assert takes_gzip(accepted) is taken


@pytest.mark.parametrize(
    "address", ["/v1/", INDEX, INDEX + "?from=2026", "/v1/releases", "/v1/releases/2/indices.json", "/v1/releases/1"]
)
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_who_has_the_answer_gets_304_without_a_body(client, address, encoding):
    first = client.get(address, headers={"Accept-Encoding": encoding})
    assert first.status_code == 200
    etag, modified = first.headers["ETag"], first.headers["Last-Modified"]
    earlier = (first.last_modified - dt.timedelta(seconds=1)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    for headers, status in (
        ({"If-None-Match": etag}, 304),
        ({"If-None-Match": f'"other", W/{etag}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-None-Match": '"other"', "If-Modified-Since": modified}, 200),
        ({"If-Modified-Since": modified}, 304),
        ({"If-Modified-Since": earlier}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
    ):
        again = client.get(address, headers={"Accept-Encoding": encoding, **headers})
        assert again.status_code == status, headers
        if status == 304:
            assert again.data == b"" and again.headers["ETag"] == etag
            assert again.headers["Cache-Control"] == first.headers["Cache-Control"]
            assert "Content-Length" not in again.headers and "Content-Type" not in again.headers
        else:
            assert again.data == first.data


@pytest.mark.parametrize(
    "address", ["/", "/v1/", INDEX, INDEX + "?from=2026", "/v1/releases/1/indices.json", "/v1/nothing", "/healthz"]
)
def test_head_gives_the_headers_of_get_and_nothing_else(client, address):
    get, head = client.get(address), client.head(address)
    assert head.status_code == get.status_code and head.data == b""
    assert dict(head.headers) == dict(get.headers)
    assert head.headers["Content-Length"] == str(len(get.data))


def test_a_browser_elsewhere_may_ask_conditionally(client):
    answer = client.options(
        INDEX, headers={"Origin": "https://partner.example", "Access-Control-Request-Method": "GET"}
    )
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "If-None-Match" in answer.headers["Access-Control-Allow-Headers"]
    assert "GET" in answer.headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch"])
def test_nothing_can_be_written(client, method):
    answer = getattr(client, method)(INDEX)
    problem(answer, 405)
    assert "GET" in answer.headers["Allow"]


def test_a_maximum_age_of_nought_makes_caches_ask(trees):
    trees.write(1)
    assert trees.client(max_age=0).get("/v1/").headers["Cache-Control"] == "no-cache"


def test_a_simulated_release_has_real_http_dates(trees):
    folder = trees.write(1, simulated=True)
    os.utime(folder / "manifest.json", (1_700_000_000, 1_700_000_000))
    assert trees.client().get("/v1/").headers["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"


# ------------------------------------------------------------------------------------- releases


def test_the_list_of_releases_is_newest_first_and_paged(trees, client):
    trees.write(3)
    first = client.get("/v1/releases?limit=2").json
    assert [r["number"] for r in first["releases"]] == [3, 2]
    assert first["next"] == "/v1/releases?limit=2&before=2"
    last = client.get(first["next"]).json
    assert [r["number"] for r in last["releases"]] == [1] and last["next"] is None
    entry = last["releases"][0]
    raw = on_disk(trees, 1, "manifest.json")
    assert entry["manifest_sha256"] == hashlib.sha256(raw).hexdigest()
    assert entry["released_at"] == json.loads(raw)["released_at"] and entry["vintage"] == json.loads(raw)["vintage"]
    assert client.get(entry["href"]).data == raw


@pytest.mark.parametrize("name", ["manifest.json", "manifest.jws", "indices.json", "prices.json.gz"])
def test_a_releases_file_is_served_for_good_and_exactly(trees, client, name):
    answer = client.get(f"/v1/releases/1/{name}")
    assert answer.data == on_disk(trees, 1, name)
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["ETag"] == f'"{hashlib.sha256(answer.data).hexdigest()}"'


def test_a_release_that_is_not_yet_pointed_to_is_not_seen(trees, client):
    trees.write(3, point=False)
    assert problem(client.get("/v1/releases/3"), 404)["detail"] == "there is no release 3; the latest is 2"
    assert [r["number"] for r in client.get("/v1/releases").json["releases"]] == [2, 1]
    problem(client.get(INDEX + "?asOf=release:3"), 404)
    assert client.get(INDEX + "?asOf=2099-01-01").json["release"] == 2


def test_a_pruned_release_leaves_the_list(trees, client):
    assert len(client.get("/v1/releases").json["releases"]) == 2
    shutil.rmtree(trees.root / "releases" / "000001")
    assert [r["number"] for r in client.get("/v1/releases").json["releases"]] == [2]
    problem(client.get("/v1/releases/1/indices.json"), 404)


def test_a_new_release_is_served_as_soon_as_the_pointer_moves(trees, client):
    assert client.get("/v1/").json["release"] == 2
    trees.write(3)
    assert client.get("/v1/").json["release"] == 3
    trees.point(2)
    assert client.get("/v1/").json["release"] == 2


def test_a_pointer_to_a_broken_release_keeps_the_last_good_one_and_says_so(trees, client):
    assert client.get("/readyz").status_code == 200
    trees.point(9)
    assert client.get("/v1/").json["release"] == 2
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json["missing"] == ["000009/manifest.json: No such file or directory"]


def test_a_release_that_was_mended_is_found_without_a_new_pointer(trees, monkeypatch):
    monkeypatch.setattr("pricing.web.releases._RETRY_SECONDS", 0)
    manifest = trees.write(1) / "manifest.json"
    away = manifest.rename(manifest.with_suffix(".away"))
    client = trees.client()
    assert problem(client.get("/v1/"), 503)["missing"] == ["000001/manifest.json: No such file or directory"]
    away.rename(manifest)
    assert client.get("/v1/").json["release"] == 1
    assert client.get("/readyz").status_code == 200


def test_a_damaged_file_is_never_served(trees, client):
    path = trees.root / "releases" / "000002" / "methodology.json"
    path.write_bytes(path.read_bytes().replace(b"2026", b"2027"))
    found = problem(client.get("/v1/methodology"), 503)
    assert found["missing"][0].startswith("release 2: methodology.json is not what was signed")
    problem(client.get("/v1/releases/2/methodology.json"), 503)


def test_no_answer_mixes_two_releases_while_the_pointer_moves(trees):
    for number in (1, 2):
        trees.write(number)
    app, stop, wrong = trees.app(), threading.Event(), []

    def poll():
        client = app.test_client()
        while not stop.is_set():
            answer = client.get(INDEX)
            matches = answer.headers["ETag"] == f'"{hashlib.sha256(answer.data).hexdigest()}"'
            if (
                answer.status_code != 200
                or not matches
                or str(answer.json["release"]) != answer.headers["Lodemark-Release"]
            ):
                wrong.append((answer.status_code, answer.text))

    readers = [threading.Thread(target=poll) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(200):
        trees.point(1 + turn % 2)
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []


# ---------------------------------------------------------------------------------------- as of


@pytest.mark.parametrize(
    ("as_of", "release"),
    [
        ("release:1", 1), ("release:2", 2), ("2026-11-01", 1), ("2026-11-02", 2),
        ("2026-11-02T14:00:30Z", 1), ("2026-11-02T14:00:30.25Z", 2), ("2026-11-02T15:00:30.249999%2B01:00", 1),
        ("2026-11-02T10:00:31-04:00", 2), ("2030-01-01", 2),
    ],
)  # fmt: skip
def test_as_of_answers_the_last_release_that_was_out_at_that_instant(client, as_of, release):
    answer = client.get(f"{INDEX}?asOf={as_of}")
    assert answer.json["release"] == release and answer.headers["Lodemark-Release"] == str(release)
    assert client.get(f"{INDEX}?asOf={as_of}&from=2026").json["meta"]["release"] == release
    assert client.get(f"/v1/?asOf={as_of}").json["release"] == release


def test_before_the_first_release_there_is_nothing_and_the_first_is_named(client):
    found = problem(client.get(INDEX + "?asOf=2026-10-31"), 404)
    assert "1 of 2026-11-01T14:00:30.250000Z" in found["detail"] and found["nearest"] == ["/v1/releases/1"]


# --------------------------------------------------------------------------- filtered by period


def test_a_filtered_answer_holds_the_rows_of_its_release_and_since_when_they_stand(client):
    document = client.get(INDEX + "?from=2026-09").json
    assert document["values"] == [
        {"period": "2026-09", "value": 102.5, "unrounded": 102.501, "status": "normal", "since_release": 2},
        {"period": "2026-10", "value": 99.75, "unrounded": 99.751, "status": "normal", "since_release": 2},
    ]
    meta = document["meta"]
    assert (meta["unit"], meta["frequency"], meta["release"]) == ("2015 = 100", "monthly", 2)
    assert meta["released_at"] == "2026-11-02T14:00:30.250000Z" and meta["vintage"] == "2026-11-02T14:00:00.000000Z"
    earlier = client.get(INDEX + "?from=2026-08&to=2026-09&asOf=release:1").json
    assert [(v["period"], v["value"], v["since_release"]) for v in earlier["values"]] == [
        ("2026-08", 101.5, 1),
        ("2026-09", 102.25, 1),
    ]


def test_a_price_is_monthly_unless_another_frequency_is_asked_for(client):
    assert client.get(PRICE + "?from=2026").json["meta"]["frequency"] == "monthly"
    daily = client.get(PRICE + "?frequency=daily&to=2026-09-15").json
    assert [(v["period"], v["grade"]) for v in daily["values"]] == [("2026-09-01", "C")]


def test_a_withdrawn_period_is_listed_and_not_a_value(trees, client):
    assert client.get(INDEX + "?from=2026").json["meta"]["withdrawn"] == []
    stamp = "2026-11-04T14:00:00.000000Z"
    published.append(trees.root / "published.db", 4, stamp, "2026-11-04T14:00:30.250000Z", [])
    folder = trees.root / "releases"
    shutil.copytree(folder / "000002", folder / "000004")
    manifest = folder / "000004" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"number": 2', '"number": 4').replace("2026-11-02", "2026-11-04"))
    trees.point(4)
    document = client.get(INDEX + "?from=2026-10").json
    assert document["values"] == []
    assert document["meta"]["withdrawn"] == [{"period": "2026-10", "since_release": 4}]


def test_filtered_answers_differ_in_etag_by_release_and_span(client):
    tags = [
        client.get(INDEX + query).headers["ETag"]
        for query in (
            "?from=2026",
            "?from=2026-01",
            "?to=2026",
            "?from=2026&asOf=release:1",
            "?from=2026&asOf=release:2",
        )
    ]
    assert len(set(tags)) == 4 and tags[0] == tags[4]


def test_a_long_filtered_answer_is_zipped_for_who_takes_it(trees):
    trees.write(1)
    rows = [
        published.Row(
            "index", "exchange-traded-metals", "monthly", "2015 = 100", f"{y}-{m:02d}", y / 7, y / 7, "normal"
        )
        for y in range(1990, 2026)
        for m in range(1, 13)
    ]
    (trees.root / "published.db").unlink()
    published.append(trees.root / "published.db", 1, "2026-11-01T14:00:00.000000Z", "2026-11-01T14:00:30.250000Z", rows)
    client = trees.client()
    plain = client.get(INDEX + "?from=1990")
    zipped = client.get(INDEX + "?from=1990", headers={"Accept-Encoding": "gzip"})
    assert len(plain.json["values"]) == 432
    assert zipped.headers["Content-Encoding"] == "gzip" and gzip.decompress(zipped.data) == plain.data
    assert zipped.headers["ETag"] != plain.headers["ETag"]


def test_without_the_rows_of_the_release_a_filter_is_refused_not_answered_short(trees, client):
    trees.write(3)
    published.discard_after(trees.root / "published.db", 2)
    assert problem(client.get(INDEX + "?from=2026"), 503)["missing"] == [
        "published.db ends at release 2, before release 3"
    ]
    (trees.root / "published.db").unlink()
    problem(client.get(INDEX + "?from=2026"), 503)


def test_a_market_without_rows_says_which_there_are(trees, client):
    assert client.get(PRICE + "?frequency=daily").status_code == 200
    trees.write(3)
    with closing(sqlite3.connect(trees.root / "published.db")) as db, db:
        db.execute("DELETE FROM value WHERE dataset = (SELECT id FROM dataset WHERE frequency = 'daily')")
    assert "it has monthly" in problem(client.get(PRICE + "?frequency=daily"), 404)["detail"]


# ------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("address", "says"),
    [
        (INDEX + "?asof=2026-11-02", {"asof": "asOf"}),
        (INDEX + "?form=2026", {"form": "from"}),
        (INDEX + "?start=2026", {"start": "from"}),
        (INDEX + "?vintage_date=2026-11-01", {"vintage_date": "asOf"}),
        (PRICE + "?freq=daily&zzz=1", {"freq": "frequency", "zzz": None}),
        (INDEX + "/monthly/2026?from=2026", {"from": None}),
        ("/v1/?limit=1", {"limit": None}),
        ("/v1/releases?limt=5", {"limt": "limit"}),
        ("/v1/releases/1?x=1", {"x": None}),
        ("/v1/releases/1/indices.json?asOf=2026-11-01", {"asOf": None}),
        ("/v1/status?x=1", {"x": None}),
    ],
)
def test_an_unknown_parameter_is_named_with_the_one_that_was_meant(client, address, says):
    found = problem(client.get(address), 400)
    assert found["unknown"] == says
    assert all(name in found["detail"] for name in says)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("from=2026-13", "from='2026-13' is not a period"),
        ("from=2026-02-30", "is not a period"),
        ("to=02/2026", "is not a period"),
        ("from=0000", "is not a period"),
        ("from=２０２６", "is not a period"),
        ("from=2026&from=2025", "from is given 2 times"),
        ("to=", "to is empty"),
        ("from=2026-06&to=2026-05-31", "lies after"),
        ("frequency=dayly", "(meant: daily?)"),
        ("asOf=yesterday", "asOf='yesterday' is not an instant"),
        ("asOf=2026-11-02T14:00:00", "is not an instant with its zone"),
        ("asOf=2026-11-02T14:00:00+01:00", "write + as %2B"),
        ("asOf=2026-02-30", "is not an instant"),
        ("from=" + "9" * 2000, "longer than"),
    ],
)
def test_an_unusable_value_is_named_with_the_forms_that_are_known(client, query, says):
    assert says in problem(client.get(f"{PRICE}?{query}"), 400)["detail"]


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=-1", "limit=ten", "before=0", "limit=1e2"])
def test_a_page_size_out_of_bounds_is_refused(client, query):
    assert "is not a whole number from" in problem(client.get("/v1/releases?" + query), 400)["detail"]


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("/v1/indexes", "/v1/indices"),
        ("/v1/indices/exchange-traded-metal", INDEX),
        ("/v1/indices.json", "/v1/indices"),
        ("/v1/prices/nickel/metal/xcn", PRICE),
        ("/v1/prices/nikel/metal/XCN", PRICE),
        ("/v1/prices/nickel/metal/XCN/dayly/2026", PRICE + "/daily/2026"),
        ("/v1/releases/2/indeces.json", "/v1/releases/2/indices.json"),
    ],
)
def test_a_mistyped_address_names_the_nearest(client, address, near):
    assert near in problem(client.get(address), 404)["nearest"]


def test_an_address_half_way_lists_what_is_below(client):
    assert "XCN" in problem(client.get("/v1/prices/nickel/metal/nowhere"), 404)["known"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../../status", "/v1/..%2f..%2fstatus", "/v1/%2e%2e/%2e%2e/current", "/v1/releases/1/../../../current",
        "/v1/releases/1/..%2f000002%2findices.json", "/v1/releases/1//etc/passwd", "/v1/%00", "/v1/indices%00.json",
        "/v1//indices", "//v1/indices", "/v1/indices//", "/v1/" + "a" * 60_000, "/v1/" + "a/" * 20_000, "/v1/root",
        "/v1/manifest", "/v1/%ff%fe", "/v1/releases/99999999999999999999999", "/v1/releases/" + "9" * 5000,
        "/v1/releases/-1", "/v1/releases/٣", "/static/style.css", "/v1/prices/nickel",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_release_or_to_an_error_of_ours(client, path):
    problem(client.get(path), 404)


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=30),
    st.text(max_size=30),
    st.sampled_from(["/v1/", INDEX, PRICE, "/v1/releases", "/v1/releases/1/", "/readyz"]),
)
def test_whatever_is_asked_the_answer_is_never_a_failure(fuzzed, path, query, base):
    for answer in (
        fuzzed.get(base + path.replace("?", "")),
        fuzzed.get(base, query_string={query: path}),
        fuzzed.get(base + "?" + query),
    ):
        assert answer.status_code in (200, 400, 404)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory, new_trees):
    trees = new_trees(tmp_path_factory.mktemp("data"))
    trees.write(1)
    return trees.client()


# -------------------------------------------------------------------------------- how it stands


def test_before_any_release_everything_says_what_is_missing(trees):
    client = trees.client()
    for address in ("/v1/", INDEX, INDEX + "?from=2026", "/v1/releases", "/v1/releases/1/indices.json"):
        answer = client.get(address)
        found = problem(answer, 503)
        assert answer.headers["Retry-After"] == "30"
        assert "no release has been made yet" in found["missing"][0]
    assert client.get("/healthz").json == {"alive": True}
    ready = client.get("/readyz")
    assert ready.status_code == 503 and "no release has been made yet" in ready.json["missing"][0]
    assert client.get("/v1/status").json["release"] is None


def test_the_first_release_is_served_without_a_restart(trees):
    client = trees.client()
    problem(client.get("/v1/"), 503)
    trees.write(1)
    assert client.get("/v1/").json["release"] == 1


def test_a_release_too_old_is_not_ready_and_the_unreachable_sources_are_named(trees):
    trees.write(1)
    trees.status.write_text(json.dumps({"sources": {"ecb": {"reachable": False}, "imf": {"reachable": True}}}))
    clock = [dt.datetime(2026, 11, 4, 14, 0, tzinfo=dt.UTC)]
    client = trees.client(release_max_age_days=3, now=lambda: clock[0])
    young = client.get("/readyz")
    assert young.status_code == 200
    assert young.json == {"ready": True, "release": 1, "missing": [], "unreachable": ["source ecb cannot be reached"]}
    clock[0] += dt.timedelta(minutes=1)
    old = client.get("/readyz")
    assert old.status_code == 503
    assert old.json["missing"] == [
        "a release of the last 3 days; the current one is of 2026-11-01T14:00:30.250000Z",
        "source ecb cannot be reached",
    ]
    status = client.get("/v1/status")
    assert status.json["fresh"] is False and status.json["operation"]["sources"]["imf"] == {"reachable": True}
    assert client.get("/v1/status", headers={"If-None-Match": status.headers["ETag"]}).status_code == 304
    assert client.get("/v1/").status_code == 200


@pytest.mark.parametrize("content", ["", "[]", "{", '{"sources": []}', '{"sources": {"ecb": 1}}'])
def test_a_half_written_status_breaks_nothing(trees, content):
    trees.write(1)
    trees.status.write_text(content)
    client = trees.client()
    assert client.get("/readyz").status_code == 200 and client.get("/v1/status").status_code == 200


def test_a_release_without_signature_is_not_ready(trees):
    (trees.write(1) / "manifest.jws").unlink()
    assert trees.client().get("/readyz").json["missing"] == ["the signature of release 1 (manifest.jws)"]


def test_the_key_set_is_served_and_missed(trees, client):
    answer = client.get("/.well-known/jwks.json")
    assert (
        answer.data == b'{"keys":[]}' and answer.content_type == "application/jwk-set+json" and answer.headers["ETag"]
    )
    (trees.root / "jwks.json").unlink()
    assert "lodemark keys new" in problem(client.get("/.well-known/jwks.json"), 503)["detail"]
