"""A hand-made tree of releases: written by the test's own writer, not by the release stage."""

import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest

from pricing import published
from pricing.web.app import create_app

NAME = "exchange-traded-metals"
VALUES = {1: {"2026-08": 101.5, "2026-09": 102.25}, 2: {"2026-08": 101.5, "2026-09": 102.5, "2026-10": 99.75}}


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def files_of(number: int) -> dict[str, bytes]:
    change = {"before": -1.25, "year": None, "unit": "%"}
    latest = {"period": f"2026-1{number - 1}", "value": 12345.5 + number, "status": "normal", "change": change}
    coverage = {"weight": 0.934, "statement": "6 of 20 listed markets have an own price."}
    documents = {
        "root.json": {"about": "Lodemark", "release": number},
        "indices.json": {
            "indices": [
                {"id": NAME, "title": "Exchange-traded metals", "unit": "2015 = 100",
                 "latest": {"monthly": latest, "daily": None}, "coverage": coverage},
                {"id": "critical-minerals", "title": "", "latest": {}, "withheld": "too little is covered"},
            ]
        },
        f"indices/{NAME}.json": {"id": NAME, "release": number, "values": [*VALUES.get(number, VALUES[2])] * 40},
        f"indices/{NAME}/monthly/2026.json": {"id": NAME, "year": 2026},
        "indices/critical-minerals.json": {"id": "critical-minerals"},
        "prices.json": {
            "prices": [
                {"id": "nickel/metal/XCN", "title": "Nickel <ex China>", "unit": "USD/t",
                 "latest": {"daily": {**latest, "value": None, "change": None, "grade": "C", "type": "official"}}},
            ]
        },
        "prices/nickel/metal/XCN.json": {"id": "nickel/metal/XCN", "release": number},
        "prices/nickel/metal/XCN/daily/2026.json": {"id": "nickel/metal/XCN", "year": 2026},
        "methodology.json": {"id": "2026-11"},
        "sources.json": {"sources": []},
    }  # fmt: skip
    return {name: json.dumps(document).encode() for name, document in documents.items()}


def released_at(number: int) -> str:
    return f"2026-11-{number:02d}T14:00:30.250000Z"


class Trees:
    """Writes releases as the release stage does: finished folder first, pointer last."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.root = data / "public"
        (self.root / "releases").mkdir(parents=True)
        (self.root / "jwks.json").write_text('{"keys":[]}')
        self.status = data / "status.json"

    def write(self, number: int, *, simulated: bool = False, point: bool = True) -> Path:
        folder = self.root / "releases" / f"{number:06d}"
        listed = {}
        for name, body in files_of(number).items():
            for each, raw in ((name, body), (name + ".gz", gzip.compress(body, mtime=0))):
                path = folder / each
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(raw)
                listed[each] = {"sha256": sha256(raw), "size": len(raw)}
        manifest = {
            "number": number, "vintage": f"2026-11-{number:02d}T14:00:00.000000Z", "released_at": released_at(number),
            "simulated": simulated, "files": listed,
        }  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest, sort_keys=True) + "\n")
        (folder / "manifest.jws").write_text("e30..e30")
        self.append(number)
        if point:
            self.point(number)
        return folder

    def append(self, number: int) -> None:
        rows = [
            published.Row("index", NAME, "monthly", "2015 = 100", p, v, v + 0.001, "normal")
            for p, v in VALUES.get(number, VALUES[2]).items()
        ]
        for frequency, periods in (("monthly", ["2026-09"]), ("daily", ["2026-09-01", "2026-09-30"])):
            rows += [
                published.Row("price", "nickel/metal/XCN", frequency, "USD/t", p, 15000.0, 15000.0, "normal", "C")
                for p in periods
            ]
        vintage = f"2026-11-{number:02d}T14:00:00.000000Z"
        published.append(self.root / "published.db", number, vintage, released_at(number), rows)

    def point(self, number: int) -> None:
        beside = self.root / "current.tmp"
        beside.write_text(f"{number}\n")
        os.replace(beside, self.root / "current")

    def app(self, **options):
        return create_app(self.root, self.status, **options)

    def client(self, **options):
        return self.app(**options).test_client()


@pytest.fixture(scope="session")
def new_trees():
    return Trees


@pytest.fixture
def trees(tmp_path):
    return Trees(tmp_path)


@pytest.fixture
def client(trees):
    trees.write(1)
    trees.write(2)
    return trees.client()
