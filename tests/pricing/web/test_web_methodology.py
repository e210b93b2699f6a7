"""The method as JSON, as plain text and as a page, from a release of the release stage."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pricing.config import load_methodologies
from pricing.web.app import create_app
from tests.pricing.made_world import serving
from tests.pricing.test_method_changes import DAY, EFFECT, LOWER_CAP, METHODOLOGY


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two releases: the first announces a change, in the second it is in force."""
    folder = tmp_path_factory.mktemp("world")
    with serving(folder) as world:
        world.collect()
        (folder / "methodology" / "2026-11.toml").write_text(METHODOLOGY)
        (folder / "methodology" / "2026-12.toml").write_text(LOWER_CAP)
        world.methodology = load_methodologies(folder / "methodology")  # type: ignore[assignment]
        for world.now in (DAY, EFFECT):
            world.release()
    return world.data


@pytest.fixture
def client(data: Path) -> Any:
    return create_app(data / "public", data / "status.json").test_client()


@pytest.fixture
def announcing(data: Path, tmp_path: Path) -> Any:
    """What readers were served while the first release was the current one."""
    root = tmp_path / "public"
    root.mkdir()
    for name in ("releases", "objects", "jwks.json", "published.db"):
        (root / name).symlink_to(data / "public" / name)
    (root / "current").write_text("1\n")
    return create_app(root, tmp_path / "status.json").test_client()


def seen(page: str) -> str:
    """The text that a reader of a page sees."""
    return html.unescape(re.sub(r"<[^>]*>", "", re.sub(r"<style>.*?</style>", "", page, flags=re.S)))


def test_the_page_says_every_sentence_and_row_of_the_release_and_no_markup_of_it(announcing):
    answer = announcing.get("/methodology")
    assert answer.status_code == 200 and answer.content_type == "text/html; charset=utf-8"
    document = announcing.get("/v1/methodology").json
    text = seen(answer.text)
    for block in document["text"]:
        assert block["heading"] in text
        assert all(sentence in text for sentence in block["sentences"])
        assert all(cell in text for table in block["tables"] for row in table["rows"] for cell in row)
    (change,) = document["pending"]
    assert "Nickel <outweighs> cobalt." in text and "Nickel <outweighs>" not in answer.text
    for sentence in (*change["changes"], *change["differences"]["before"], *change["differences"]["after"]):
        assert sentence in text
    assert "Comment of A smelter, 2026-12-01: Too low." in text and "Answer: It was heard." in text


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.links, self.names = [], [], []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name == "href"]
        self.names += [name for name, _ in attrs]


@pytest.mark.parametrize("path", ["/methodology", "/methodology/", "/"])
def test_pages_run_no_script_load_nothing_and_link_to_what_answers(announcing, path):
    answer = announcing.get(path)
    assert answer.headers["Content-Security-Policy"] == announcing.get("/").headers["Content-Security-Policy"]
    page = Tags(answer.text)
    assert not {"script", "img", "link", "form", "iframe"} & set(page.tags)
    assert not any(name.startswith("on") or name in ("style", "src") for name in page.names)
    assert "/v1/methodology/pending/2026-12" in page.links
    for link in page.links:
        assert link.startswith("/") and announcing.get(link.partition("#")[0]).status_code == 200, link


def test_the_start_page_announces_a_change_until_it_is_in_force(announcing, client):
    assert "A change of method takes effect on 2026-12-21" in seen(announcing.get("/").text)
    assert "A change of method" not in client.get("/").text
    assert "Proposed change" not in client.get("/methodology").text
    earlier = client.get("/v1/methodology").json["earlier"]
    assert earlier[0]["sha256"] in client.get("/methodology").text


def test_the_pages_answer_conditionally_and_each_keeps_its_own(client):
    tags = [client.get(path).headers["ETag"] for path in ("/", "/methodology", "/", "/methodology")]
    assert tags[0] == tags[2] != tags[1] == tags[3]
    assert client.get("/methodology", headers={"If-None-Match": tags[1]}).status_code == 304


def test_the_method_is_served_as_text_at_any_release(client, data):
    for number, query in ((2, "format=text"), (1, "format=text&asOf=release:1"), (1, "asOf=2026-12-20&format=text")):
        answer = client.get(f"/v1/methodology?{query}")
        made = (data / "public" / "releases" / f"{number:06d}" / "methodology.txt").read_bytes()
        assert answer.data == made and answer.content_type == "text/plain; charset=utf-8"
        assert answer.headers["Lodemark-Release"] == str(number)
    assert "No market weighs more than 60 %" in client.get("/v1/methodology?format=text").text
    first = client.get("/v1/methodology?format=text&asOf=release:1").text
    assert "Proposed change 2026-12" in first and "Then: Indices, two-metals: No market weighs more than 60 %" in first
    assert client.get("/v1/methodology?format=json").data == client.get("/v1/methodology").data
    assert client.get("/v1/releases/1/methodology.txt").content_type == "text/plain; charset=utf-8"


def test_other_formats_and_places_are_refused(client):
    assert client.get("/v1/methodology?format=pdf").json["parameter"] == "format"
    assert client.get("/v1/sources?format=text").json["unknown"] == {"format": None}
    assert client.get("/v1/methodology?from=2025").status_code == 400


def test_the_pending_document_is_there_as_long_as_the_change_is(client, announcing):
    found = announcing.get("/v1/methodology/pending/2026-12").json
    assert found["parallel_run"]["figures"][0]["id"] == "two-metals"
    assert client.get("/v1/methodology/pending/2026-12").status_code == 404
    assert client.get("/v1/methodology/pending/2026-12?asOf=release:1").json == found


def test_a_release_without_a_method_in_words_has_a_page_that_says_so(trees):
    trees.write(1)
    client = trees.client()
    assert "no method in words" in client.get("/methodology").text
    assert client.get("/v1/methodology?format=text").status_code == 404


def test_before_any_release_the_page_says_what_is_missing(trees):
    answer = trees.client().get("/methodology")
    assert answer.status_code == 503 and "no release has been made yet" in answer.text
