"""The one-file verifier, run as a partner runs it: another process, isolated, told nothing but its arguments."""

import ast
import base64
import datetime as dt
import functools
import gzip
import hashlib
import http.server
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pricing import keys, releases
from pricing.releases import canonical
from tests.pricing.made_world import serving

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "verify_release.py"
DAY = dt.timedelta(days=1)
KINDS = (
    "prices.json",
    "prices.json.gz",
    "methodology.toml",
    "manifest.json",
    "manifest.jws",
    "../000001/manifest.json",
)


def run(target, *more):
    command = [sys.executable, "-I", "-W", "error", str(PROGRAM), str(target), *map(str, more)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Two releases as the project makes them, beside the key set: ``public/releases/000001`` and ``000002``."""
    with serving(tmp_path_factory.mktemp("world")) as world:
        world.collect()
        world.release()
        world.second_round()
        world.collect()
        world.release()
        yield world.data


@pytest.fixture
def copied(tree, tmp_path):
    shutil.copytree(tree / "public" / "releases", tmp_path / "public" / "releases")
    shutil.copy(tree / "public" / "jwks.json", tmp_path / "public" / "jwks.json")
    shutil.copy(tree / "public" / "jwks.json", tmp_path / "mine.json")
    return tmp_path


def put(path, data):
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def pin(folder):
    return f"{int(folder.name)}:{hashlib.sha256((folder / 'manifest.json').read_bytes()).hexdigest()}"


def signed(folder, manifest, key):
    put(folder / "manifest.json", canonical(manifest))
    put(folder / "manifest.jws", keys.sign(canonical(manifest), key, releases.TYP))


def own_key(data):
    (path,) = (data / "keys").glob("*.pem")
    return keys.read_key(path)


# ------------------------------------------------------------------------------------- the file itself


def test_it_is_short_and_needs_python_and_cryptography_alone():
    text = PROGRAM.read_text("utf-8")
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(node.module.partition(".")[0])
    assert names - sys.stdlib_module_names == {"cryptography"}
    assert len(text.splitlines()) < 300


def test_the_readme_names_its_hash():
    found = re.findall(r"`([0-9a-f]{64})`", (ROOT / "README.md").read_text("utf-8"))
    assert found == [hashlib.sha256(PROGRAM.read_bytes()).hexdigest()], "write the new SHA-256 into README.md"


def test_every_option_is_documented():
    page = (ROOT / "docs" / "verification.md").read_text("utf-8")
    for option in re.findall(r'"(--[a-z]+)"', PROGRAM.read_text("utf-8")):
        assert f"`{option}" in page


# ---------------------------------------------------------------------------------------- what holds


def test_a_sound_release_holds_and_the_state_carries_trust_forward(copied):
    folders, state = copied / "public" / "releases", copied / "state.json"
    code, said = run(folders / "000001", "--keys", copied / "mine.json", "--state", state)
    assert code == 0 and "release 1: good" in said and pin(folders / "000001") in said
    assert run(folders / "000002", "--state", state)[0] == 0  # the keys are remembered
    code, said = run(folders / "000001", "--state", state)
    assert code == 1 and "roll-back" in said
    shutil.rmtree(folders / "000001")
    assert run(folders / "000002", "--state", state)[0] == 0  # nothing before what is trusted is needed


def test_the_project_and_the_one_file_agree_on_every_sound_release(copied):
    for folder in sorted((copied / "public" / "releases").iterdir()):
        assert releases.verify(folder, copied / "mine.json").ok
        assert run(folder, "--keys", copied / "mine.json")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [[], ["--keys", "/nowhere.json"], ["--keys", str(PROGRAM)], ["--trusted", "2:ab"], ["--state", str(PROGRAM)]],
    ids=lambda a: " ".join(a[:1]) or "none",
)
def test_without_something_sound_to_trust_nothing_is_said(tree, arguments):
    assert run(tree / "public" / "releases" / "000002", *arguments)[0] == 2


def test_what_is_not_there_or_does_not_answer_is_no_verdict(tree):
    for target in (tree / "nothing", "http://127.0.0.1:9/"):
        code, said = run(target, "--keys", tree / "public" / "jwks.json")
        assert code == 2 and "could not check" in said


# --------------------------------------------------------------------------------------- what does not


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mutation", ["one byte", "removed", "swapped"])
def test_no_change_of_a_file_goes_unseen(copied, kind, mutation):
    newest = copied / "public" / "releases" / "000002"
    path, data = newest / kind, (newest / kind).read_bytes()
    if mutation == "one byte":
        put(path, data[:40] + bytes([data[40] ^ 1]) + data[41:])
    elif mutation == "removed":
        path.unlink()
    else:
        put(path, (newest / "sources.json").read_bytes())
    code, said = run(newest, "--keys", copied / "mine.json")
    assert code == 1
    assert Path(kind).name in said


def test_a_link_to_the_right_bytes_is_not_the_file(copied):
    newest = copied / "public" / "releases" / "000002"
    (newest / "prices.json").rename(copied / "elsewhere")
    (newest / "prices.json").symlink_to(copied / "elsewhere")
    code, said = run(newest, "--keys", copied / "mine.json")
    assert code == 1 and "prices.json: missing" in said and "not a plain file" in said


@pytest.mark.parametrize("name", ["more.json", "prices/more.json", "manifest.json.gz", ".hidden"])
def test_an_added_file_is_seen(copied, name):
    newest = copied / "public" / "releases" / "000002"
    put(newest / name, b"{}")
    code, said = run(newest, "--keys", copied / "mine.json")
    assert code == 1 and f"{name}: added" in said


def test_a_strangers_signature_is_refused_even_with_his_key_published(copied):
    newest = copied / "public" / "releases" / "000002"
    stranger = keys.new_key(copied, dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    put(newest / "manifest.jws", keys.sign((newest / "manifest.json").read_bytes(), stranger, releases.TYP))
    code, said = run(newest, "--keys", copied / "mine.json")
    assert code == 1 and stranger.kid in said


def test_an_old_release_in_the_place_of_the_newest_is_refused(copied):
    folders = copied / "public" / "releases"
    trusted = pin(folders / "000002")
    shutil.rmtree(folders / "000002")
    shutil.copytree(folders / "000001", folders / "000002")
    code, said = run(folders / "000002", "--keys", copied / "mine.json")
    assert code == 1 and "is of release 1" in said
    code, said = run(folders / "000001", "--keys", copied / "mine.json", "--trusted", trusted)
    assert code == 1 and "roll-back" in said


def test_a_second_history_by_the_right_key_is_a_fork(tree, copied):
    folders, key = copied / "public" / "releases", own_key(tree)
    true = {n: pin(folders / f"{n:06d}") for n in (1, 2)}
    for number in (1, 2):  # the whole history anew, every signature right
        folder = folders / f"{number:06d}"
        manifest = json.loads((folder / "manifest.json").read_bytes()) | {"software": "another"}
        if number == 2:
            manifest["previous"]["sha256"] = pin(folders / "000001").split(":")[1]
        signed(folder, manifest, key)
    assert run(folders / "000002", "--keys", copied / "mine.json")[0] == 0  # who trusted nothing before cannot know
    for number in (1, 2):
        code, said = run(folders / "000002", "--keys", copied / "mine.json", "--trusted", true[number])
        assert code == 1 and f"fork: two releases {number}" in said


def test_a_twin_that_says_something_else_is_seen_though_signed(tree, copied):
    newest = copied / "public" / "releases" / "000002"
    manifest, other = json.loads((newest / "manifest.json").read_bytes()), gzip.compress(b'{"price":1}\n', mtime=0)
    put(newest / "prices.json.gz", other)
    manifest["files"]["prices.json.gz"] = {"sha256": hashlib.sha256(other).hexdigest(), "size": len(other)}
    signed(newest, manifest, own_key(tree))
    code, said = run(newest, "--keys", copied / "mine.json")
    assert code == 1 and "does not decompress to prices.json" in said


def test_spare_bits_in_the_signature_are_refused(copied):
    path = copied / "public" / "releases" / "000002" / "manifest.jws"
    text, alphabet = path.read_text(), "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = text[:-1] + alphabet[alphabet.index(text[-1]) + 1]
    same = [base64.urlsafe_b64decode(t.split(".")[2] + "==") for t in (text, other)]
    assert same[0] == same[1]
    put(path, other.encode())
    code, said = run(path.parent, "--keys", copied / "mine.json")
    assert code == 1 and "canonical base64url" in said


# --------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("endorsed", [True, False])
def test_a_new_key_counts_when_the_old_one_signed_it(tree, copied, endorsed):
    old, newest = own_key(tree), copied / "public" / "releases" / "000002"
    at = dt.datetime.fromisoformat(json.loads((newest / "manifest.json").read_bytes())["released_at"])
    new = keys.new_key(copied, at - DAY / 2, old if endorsed else None)
    keys.retire(copied, old.kid, at)
    put(newest / "manifest.jws", keys.sign((newest / "manifest.json").read_bytes(), new, releases.TYP))
    assert releases.verify(newest, copied / "public" / "jwks.json").ok
    code, said = run(newest, "--keys", copied / "mine.json")
    assert (code, new.kid in said) == (0 if endorsed else 1, True)
    if endorsed:  # another start of use is not what the old key signed
        path = copied / "public" / "jwks.json"
        value = json.loads(path.read_bytes())
        next(e for e in value["keys"] if e["kid"] == new.kid)["nbf"] -= 1
        path.write_text(json.dumps(value))
        assert run(newest, "--keys", copied / "mine.json")[0] == 1


def test_retirement_and_revocation_published_later_end_trust_in_a_key(tree, copied):
    newest, kid = copied / "public" / "releases" / "000002", own_key(tree).kid
    at = dt.datetime.fromisoformat(json.loads((newest / "manifest.json").read_bytes())["released_at"])
    keys.retire(copied, kid, at + DAY)
    assert run(newest, "--keys", copied / "mine.json")[0] == 0
    keys.retire(copied, kid, at)
    code, said = run(newest, "--keys", copied / "mine.json")
    assert code == 1 and "not in use" in said
    keys.revoke(copied, kid, at, "stolen")
    code, said = run(newest, "--keys", copied / "mine.json")
    assert code == 1 and "revoked" in said


# ------------------------------------------------------------------------------------------ addresses


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint(copied, monkeypatch):
    """Serve the copy below the endpoint's own addresses."""
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    site = copied / "site"
    (site / ".well-known").mkdir(parents=True)
    shutil.copy(copied / "mine.json", site / ".well-known" / "jwks.json")
    for number in (1, 2):
        shutil.copytree(copied / "public" / "releases" / f"{number:06d}", site / "v1" / "releases" / str(number))
    (site / "v1" / "releases" / "index.html").write_text('{"releases":[{"number":2}]}')
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    serving_ = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving_.start()
    yield site / "v1" / "releases", f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    serving_.join()
    server.server_close()


def test_an_address_is_verified_and_an_older_newest_is_a_roll_back(copied, endpoint):
    site, address = endpoint
    trust = ("--keys", copied / "mine.json", "--state", copied / "state.json")
    assert run(f"{address}/v1/releases/1", *trust)[0] == 0
    code, said = run(address, *trust)
    assert code == 0 and "release 2: good" in said
    (site / "index.html").write_text('{"releases":[{"number":1}]}')
    code, said = run(address, *trust)
    assert code == 1 and "roll-back" in said
    put(site / "2" / "prices.json", b"{}")
    (site / "2" / "sources.json").unlink()
    code, said = run(f"{address}/v1/releases/2", *trust)
    assert code == 1 and "prices.json: changed" in said and "sources.json: missing" in said


# ------------------------------------------------------------------------------------- any single byte


def test_any_single_byte_anywhere_is_seen(tree, tmp_path_factory, capsys):
    spec = importlib.util.spec_from_file_location("verify_release", PROGRAM)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    home = tmp_path_factory.mktemp("bytes")
    shutil.copytree(tree / "public" / "releases", home / "releases")
    folder, arguments = home / "releases" / "000002", ["--keys", str(tree / "public" / "jwks.json")]
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    assert program.main([str(folder), *arguments]) == 0

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.sampled_from(files), st.integers(min_value=0), st.integers(1, 255))
    def changed(path, place, bits):
        data = path.read_bytes()
        place %= len(data)
        put(path, data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :])
        try:
            assert program.main([str(folder), *arguments]) == 1
            assert path.name in capsys.readouterr().err
        finally:
            put(path, data)

    changed()
