import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from pricing.web.pages import change, note, number


class Page(HTMLParser):
    """Tags with attributes, and the text of table rows."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.rows, self.inside = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def test_the_start_page_shows_the_release_and_its_figures(client):
    answer = client.get("/")
    page = Page(answer.text)
    assert answer.status_code == 200 and answer.content_type == "text/html; charset=utf-8"
    assert "2026-11-02T14:00:30.250000Z" in answer.text and "/v1/releases/2" in page.links
    rows = [[cell.strip() for cell in row] for row in page.rows]
    covered = "6 of 20 listed markets have an own price."
    assert ["Exchange-traded metals", "12,347.5", "2015 = 100", "2026-11 monthly", "−1.25 %", covered] in rows
    assert ["critical-minerals", "–", "", "", "–", "too little is covered"] in rows
    assert ["Nickel <ex China>", "–", "USD/t", "2026-11 daily", "–", "C, official"] in rows
    assert len(rows) == 2 + 3
    assert "banner" not in re.sub(r"<style>.*</style>", "", answer.text, flags=re.S)


def test_every_link_of_the_page_is_our_own_and_answers(trees, client):
    links = Page(client.get("/").text).links
    assert len(links) >= 8
    for link in links:
        assert link.startswith("/") and not link.startswith("//")
        assert client.get(link).status_code == 200, link


def test_the_page_runs_no_script_and_its_policy_allows_exactly_its_style(client):
    answer = client.get("/")
    style = re.search(r"<style>(.*)</style>", answer.text, re.S)[1]
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["Content-Security-Policy"]
    assert f"style-src 'sha256-{allowed}'" in policy and "default-src 'none'" in policy and "unsafe" not in policy
    assert "script" not in Page(answer.text).tags
    assert "style=" not in answer.text and 'name="viewport"' in answer.text and "color-scheme: light dark" in style


def test_a_simulated_release_says_so_in_a_banner(trees):
    trees.write(1, simulated=True)
    assert 'class="banner" role="note">Simulated.' in trees.client().get("/").text


def test_the_page_answers_conditionally_and_follows_the_pointer(trees, client):
    first = client.get("/")
    assert client.get("/", headers={"If-None-Match": first.headers["ETag"]}).status_code == 304
    trees.write(3)
    assert "/v1/releases/3" in client.get("/", headers={"If-None-Match": first.headers["ETag"]}).text


def test_before_any_release_the_page_says_what_is_missing(trees):
    answer = trees.client().get("/")
    assert answer.status_code == 503 and "no release has been made yet" in answer.text


@pytest.mark.parametrize(
    ("value", "text"),
    [(16432.5, "16,432.5"), (0.1 + 0.2, "0.30000000000000004"), (100, "100"), (None, "–"), (-1234.0, "-1,234.0")],
)
def test_a_figure_keeps_every_digit_that_was_published(value, text):
    assert number(value) == text


def test_what_a_list_does_not_say_stays_empty():
    assert change(None) == "–" and change(0.5) == "+0.50 %"
    assert note({}) == "" and note({"grade": "B", "status": "provisional"}) == "B, provisional"
