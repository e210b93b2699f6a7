"""What the endpoint shares with others: the release stage's tree, and the documentation."""

import datetime as dt
import re
from pathlib import Path

from pricing import keys, releases
from pricing.web.app import create_app

REPOSITORY = Path(__file__).resolve().parents[3]
NOW = dt.datetime(2026, 11, 23, 14, 0, tzinfo=dt.UTC)


def test_a_release_of_the_release_stage_is_served_whole(tmp_path):
    root = tmp_path / "public"
    key = keys.new_key(tmp_path, NOW)
    instant = "2026-11-23T14:00:00.000000Z"
    content = {"root.json": b'{"a":1}\n', "indices.json": b'{"indices":[]}\n', "methodology.toml": b"id = '2026-11'\n"}
    made = releases.freeze(root, content, {"vintage": instant, "released_at": instant, "simulated": False}, key)
    client = create_app(root, tmp_path / "status.json").test_client()
    assert client.get("/v1/").data == content["root.json"]
    assert client.get("/readyz").json["missing"] == []
    assert client.get("/v1/releases").json["releases"][0]["manifest_sha256"] == made.manifest_sha256
    for name in [*made.manifest["files"], "manifest.json", "manifest.jws"]:
        assert client.get(f"/v1/releases/1/{name}").data == (made.folder / name).read_bytes()
    assert key.kid in client.get("/.well-known/jwks.json").text


def test_every_address_parameter_and_problem_is_documented(tmp_path):
    documented = (REPOSITORY / "docs" / "api.md").read_text("utf-8")
    source = "".join(p.read_text("utf-8") for p in (REPOSITORY / "pricing" / "web").glob("*.py"))
    kinds = set(re.findall(r'Problem\(\s*\d{3},\s*"([a-z-]+)"', source))
    assert len(kinds) >= 8
    assert {k for k in kinds if f"urn:lodemark:problem:{k}`" not in documented} == set()
    rules = [str(rule) for rule in create_app(tmp_path, tmp_path).url_map.iter_rules()]
    fixed = {re.sub("<.*", "", rule) for rule in rules}
    assert len(fixed) >= 7 and {f for f in fixed if f"`{f}" not in documented} == set()
    for name in ("asOf", "from", "to", "frequency", "limit", "before", "since", "after"):
        assert f"`{name}`" in documented
