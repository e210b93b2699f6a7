from __future__ import annotations

import base64
import datetime as dt
import functools
import gzip
import hashlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pricing import keys, releases
from pricing.errors import ReleaseError, VerificationError
from pricing.releases import Report, canonical, freeze, latest, list_releases, load, recover, verify

REPOSITORY = Path(__file__).resolve().parents[2]
NOW = dt.datetime(2026, 3, 2, 14, 0, tzinfo=dt.UTC)
SECRET = base64.urlsafe_b64encode(bytes(range(32))).rstrip(b"=").decode()
JWK = json.dumps({"kty": "OKP", "crv": "Ed25519", "x": "", "d": SECRET})
KEY = keys.parse_key(JWK.encode(), "test")
KNOWN = {"keys": [{**KEY.public, "nbf": int(NOW.timestamp())}]}
# A busy machine is slow; that is no fault of what is tested.
patient = functools.partial(settings, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FILES = {
    "v1/prices.json": canonical({"value": 15250.5, "unrounded": 15250.4999}),
    "v1/prices/nickel.json": canonical([1, 2, None]),
    "feed.atom": b"<feed/>",
}


def facts(day: int = 0) -> dict[str, Any]:
    at = NOW + dt.timedelta(days=day)
    return {"released_at": at.isoformat(), "vintage": at.isoformat(), "audience": "public"}


def changed(day: int) -> dict[str, bytes]:
    return {**FILES, "v1/prices.json": canonical({"value": 15000 + day})}


def tree(root: Path, count: int) -> Path:
    """Make ``count`` releases and return the folder of the last."""
    for day in range(count):
        last = freeze(root, changed(day), facts(day), KEY)
    return last.folder


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def put(path: Path, data: bytes) -> None:
    """Change one file of one release without changing what it was linked to."""
    path.unlink()
    path.write_bytes(data)


# --------------------------------------------------------------------------------- canonical JSON


def test_the_order_of_keys_does_not_change_the_bytes() -> None:
    assert canonical({"b": 1, "a": {"d": 2, "c": 3}}) == b'{"a":{"c":3,"d":2},"b":1}\n'
    assert canonical({"ä": "€"}) == '{"ä":"€"}\n'.encode()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_named_by_its_path(bad: float) -> None:
    with pytest.raises(ReleaseError, match=r"\$\.prices\[1\]\.value: -?(nan|inf) is not a finite number"):
        canonical({"ok": None, "prices": [{"value": 1.5}, {"value": bad}]})


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"at": NOW}, r"\$\.at: datetime"),
        ({"x": [{1, 2}]}, r"\$\.x\[0\]: set"),
        ({1: 2}, "key 1 is not text"),
        ({"n": 2**53}, r"\$\.n: .*not exact"),
        ({"n": SimpleNamespace(x=1)}, r"\$\.n: SimpleNamespace"),
        ({"s": "\ud800"}, "surrogates"),
    ],
)
def test_what_json_cannot_hold_is_named_by_its_path(bad: Any, message: str) -> None:
    with pytest.raises(ReleaseError, match=message):
        canonical(bad)


def test_a_document_without_end_is_refused() -> None:
    endless: list[Any] = [None]
    endless.append(endless)
    with pytest.raises(ReleaseError, match="nested too deeply"):
        canonical(endless)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@patient()
@given(VALUES)
def test_a_document_reads_back_as_itself_with_any_json_reader(value: Any) -> None:
    data = canonical(value)
    assert json.loads(data) == value
    assert canonical(json.loads(data)) == data


@patient()
@given(VALUES, st.sampled_from([math.nan, math.inf]))
def test_a_hidden_number_that_is_not_finite_never_passes(value: Any, bad: float) -> None:
    with pytest.raises(ReleaseError, match="finite"):
        canonical({"a": value, "b": [[bad]], "c": value})


# ----------------------------------------------------------------------------------------- freeze


def test_a_release_holds_its_files_their_twins_and_a_signed_manifest(tmp_path: Path) -> None:
    release = freeze(tmp_path / "public", FILES, facts(), KEY)
    assert release.folder == tmp_path / "public" / "releases" / "000001"
    twins = [f"{name}.gz" for name in FILES if name.endswith(".json")]
    assert everything(release.folder) == sorted([*FILES, *twins, "manifest.json", "manifest.jws"])
    for name, data in FILES.items():
        assert (release.folder / name).read_bytes() == data
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        assert release.manifest["files"][name] == entry
    for name in twins:
        assert gzip.decompress((release.folder / name).read_bytes()) == FILES[name.removesuffix(".gz")]
    assert (tmp_path / "public" / "current").read_text() == "1\n"
    raw = (release.folder / "manifest.json").read_bytes()
    assert release.manifest_sha256 == hashlib.sha256(raw).hexdigest()
    assert json.loads(raw) == release.manifest
    assert release.manifest["previous"] is None
    assert verify(release.folder, KNOWN) == Report(True, (), 5, 1, KEY.kid, (1,))


def test_each_release_names_the_manifest_before_it_by_its_hash(tmp_path: Path) -> None:
    tree(tmp_path, 3)
    for number in (2, 3):
        before = (tmp_path / "releases" / f"{number - 1:06d}" / "manifest.json").read_bytes()
        previous = load(tmp_path, number).manifest["previous"]
        assert previous == {"number": number - 1, "sha256": hashlib.sha256(before).hexdigest()}
    assert verify(tmp_path / "releases" / "000003", KNOWN).chain == (3, 2, 1)


def test_the_same_files_and_facts_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "a", 2), tree(tmp_path / "b", 2)
    assert everything(one) == everything(two)
    for name in everything(one):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_files_that_did_not_change_take_no_room(tmp_path: Path) -> None:
    tree(tmp_path, 2)
    one, two = (tmp_path / "releases" / name for name in ("000001", "000002"))
    shared = {name for name in everything(one) if (one / name).stat().st_ino == (two / name).stat().st_ino}
    assert shared == {"feed.atom", "v1/prices/nickel.json", "v1/prices/nickel.json.gz"}
    inodes = {path.stat().st_ino for path in tmp_path.rglob("*") if path.is_file() and path.name != "current"}
    new = {"v1/prices.json", "v1/prices.json.gz", "manifest.json", "manifest.jws"}
    assert len(inodes) == len(everything(one)) + len(new)


def test_without_hard_links_a_release_is_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(1, "Operation not permitted")

    linked = tree(tmp_path / "linked", 2)
    monkeypatch.setattr(os, "link", no_links)
    copied = tree(tmp_path / "copied", 2)
    assert {(copied / name).stat().st_nlink for name in everything(copied)} == {1}
    assert [(linked / name).read_bytes() for name in everything(linked)] == [
        (copied / name).read_bytes() for name in everything(copied)
    ]
    assert verify(copied, KNOWN).ok


def test_content_that_rotted_in_the_store_is_not_used_again(tmp_path: Path) -> None:
    tree(tmp_path, 1)
    digest = hashlib.sha256(FILES["feed.atom"]).hexdigest()
    kept = tmp_path / "objects" / digest[:2] / digest[2:]
    kept.chmod(0o644)
    kept.write_bytes(b"<fead/>")
    assert verify(tmp_path / "releases" / "000001", KNOWN).problems[0].startswith("feed.atom: ")
    second = freeze(tmp_path, FILES, facts(1), KEY)
    assert verify(second.folder, KNOWN).ok
    assert kept.read_bytes() == FILES["feed.atom"]


@pytest.mark.parametrize(
    "name",
    [
        "../x.json",
        "a/../b",
        "/etc/x",
        "a\\b",
        "a//b",
        "",
        ".",
        "a/.hidden",
        "a b",
        "ä.json",
        "a:b",
        "a\n",
        "manifest.json",
        "manifest.jws",
    ],
)
def test_a_name_that_could_lead_astray_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ReleaseError, match="file name"):
        freeze(tmp_path, {name: b""}, facts(), KEY)
    assert list_releases(tmp_path) == []


@pytest.mark.parametrize(
    "names",
    [("a.txt", "A.txt"), ("a/x", "A/y"), ("a", "a/b"), ("a.json", "a.json.gz"), ("a.json", "A.JSON.GZ")],
)
def test_names_that_clash_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(ReleaseError, match=f"{names[0]}|{names[1]}"):
        freeze(tmp_path, dict.fromkeys(names, b"1"), facts(), KEY)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "released_at is None"),
        ({"released_at": "2026-03-02T14:00:00"}, "offset"),
        ({"released_at": "yesterday"}, "ISO 8601"),
        ({**facts(), "number": 7}, "may not name number"),
        ({**facts(), "coverage": math.nan}, r"\$\.coverage"),
    ],
)
def test_facts_that_cannot_stand_in_a_manifest_are_refused(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ReleaseError, match=message):
        freeze(tmp_path, FILES, wrong, KEY)
    assert latest(tmp_path) is None


def test_only_the_next_number_and_a_later_time_are_taken(tmp_path: Path) -> None:
    assert freeze(tmp_path, FILES, facts(5), KEY, number=1).number == 1
    for number in (0, 1, 3):
        with pytest.raises(ReleaseError, match=f"release {number} was asked for, but the next one is 2"):
            freeze(tmp_path, FILES, facts(6), KEY, number=number)
    with pytest.raises(ReleaseError, match="time only moves forward"):
        freeze(tmp_path, FILES, facts(4), KEY)
    assert freeze(tmp_path, FILES, facts(6), KEY, number=2).number == 2


def test_a_chain_does_not_grow_on_a_manifest_that_rotted(tmp_path: Path) -> None:
    folder = tree(tmp_path, 1)
    path = folder / "manifest.json"
    put(path, path.read_bytes().replace(b'"audience":"public"', b'"audience":"qublic"'))
    with pytest.raises(ReleaseError, match="not what was signed"):
        freeze(tmp_path, FILES, facts(1), KEY)


def test_a_second_writer_is_turned_away(tmp_path: Path) -> None:
    with keys.locked(tmp_path), pytest.raises(ReleaseError, match="another process"):
        freeze(tmp_path, FILES, facts(), KEY)
    assert freeze(tmp_path, FILES, facts(), KEY).number == 1


def test_what_was_not_released_cannot_be_loaded(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    assert list_releases(tmp_path) == []
    assert recover(tmp_path) == []
    with pytest.raises(ReleaseError, match="release 1 does not exist; the newest is none"):
        load(tmp_path, 1)
    tree(tmp_path, 2)
    (tmp_path / "current").write_text("two\n")
    with pytest.raises(ReleaseError, match="holds 'two"):
        latest(tmp_path)


# ----------------------------------------------------------------------------------------- verify


def problems_after(change: Callable[[Path], None], source: Path) -> tuple[str, ...]:
    """Verify a copy of the tree after a change to its last release."""
    with tempfile.TemporaryDirectory() as place:
        copied = Path(place) / "releases"
        shutil.copytree(source.parent, copied)
        folder = copied / source.name
        change(folder)
        report = verify(folder, KNOWN)
        assert report.ok is not bool(report.problems)
        return report.problems


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("sound"), 2)


def test_the_copied_release_itself_is_sound(sound: Path) -> None:
    assert problems_after(lambda folder: None, sound) == ()


@patient(max_examples=200)
@given(data=st.data())
def test_any_changed_byte_of_any_file_is_found_and_its_file_named(sound: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(everything(sound)))
    old = (sound / name).read_bytes()
    place = data.draw(st.integers(0, len(old) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != old[place]))
    new = old[:place] + bytes([other]) + old[place + 1 :]
    problems = problems_after(lambda folder: put(folder / name, new), sound)
    named = [p for p in problems if p.startswith(f"{name}: ")]
    assert named or (name == "manifest.json" and any("signature of manifest.json" in p for p in problems))


@patient(max_examples=60)
@given(data=st.data())
def test_any_longer_or_shorter_file_is_found(sound: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(everything(sound)))
    old = (sound / name).read_bytes()
    new = data.draw(st.sampled_from([old[:-1], old[1:], b"", old + b"\n", old + b"\0", b" " + old, old + old]))
    problems = problems_after(lambda folder: put(folder / name, new), sound)
    assert any(p.startswith(f"{name}: ") for p in problems)


def test_every_removed_file_is_named(sound: Path) -> None:
    for name in everything(sound):
        problems = problems_after(lambda folder, name=name: (folder / name).unlink(), sound)  # type: ignore[misc]
        assert f"{name}: missing" in problems


@patient(max_examples=40)
@given(name=st.from_regex(r"(v1/|new/)?[.a-z]{0,3}[a-z0-9]{1,8}(\.json|\.gz)?", fullmatch=True))
def test_every_added_file_is_named(sound: Path, name: str) -> None:
    def add(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"{}\n")

    if not (sound / name).exists():
        assert f"{name}: not in the manifest" in problems_after(add, sound)


def test_an_added_folder_a_link_and_a_pipe_are_named(sound: Path) -> None:
    assert any(p.startswith("empty: an empty folder") for p in problems_after(lambda f: (f / "empty").mkdir(), sound))
    assert any(p.startswith("pipe: not a plain") for p in problems_after(lambda f: os.mkfifo(f / "pipe"), sound))

    def link(name: str, folder: Path) -> None:
        (folder / name).rename(folder.parent / "aside")
        (folder / name).symlink_to(folder.parent / "aside")

    for name in ("feed.atom", "v1", "manifest.json", "manifest.jws"):
        problems = problems_after(functools.partial(link, name), sound)
        assert f"{name}: a symbolic link; a release holds plain files only" in problems


def test_a_signature_that_decodes_alike_but_is_spelt_otherwise_names_its_file(sound: Path) -> None:
    text = (sound / "manifest.jws").read_text()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = text[:-1] + alphabet[alphabet.index(text[-1]) + 1]
    parts = [base64.urlsafe_b64decode(each.split(".")[2] + "==") for each in (text, twin)]
    assert parts[0] == parts[1]
    (problem,) = problems_after(lambda f: put(f / "manifest.jws", twin.encode()), sound)
    assert problem.startswith("manifest.jws: ")
    assert "canonical base64url" in problem


def resigned(change: Callable[[dict[str, Any]], Any], folder: Path) -> None:
    """Sign a changed manifest properly: what remains wrong is its content."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    change(manifest)
    raw = canonical(manifest)
    put(folder / "manifest.json", raw)
    put(folder / "manifest.jws", keys.sign(raw, KEY, releases.TYP))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format="lodemark-release/2"), "manifest.json: format is"),
        (lambda m: m.update(number=True), "manifest.json: number is True"),
        (lambda m: m.update(number=0), "manifest.json: number is 0"),
        (lambda m: m.update(previous=None), "manifest.json: previous"),
        (lambda m: m["previous"].update(number=0), "manifest.json: previous"),
        (lambda m: m["previous"].update(sha256="../x"), "manifest.json: previous"),
        (lambda m: m["previous"].update(sha256="0" * 64), "000001/manifest.json: its SHA-256"),
        (lambda m: m.update(files=[]), "manifest.json: files"),
        (lambda m: m["files"].update({"../../x": {"sha256": "0" * 64, "size": 1}}), "manifest.json: files: '../../x'"),
        (lambda m: m["files"].update({"manifest.json": {"sha256": "0" * 64, "size": 1}}), "manifest.json: files"),
        (lambda m: m["files"].update({"x": {"sha256": "0" * 64}}), "manifest.json: files: x"),
        (lambda m: m["files"].update({"x": {"sha256": "0", "size": 1}}), "manifest.json: files: x"),
        (lambda m: m["files"].pop("v1/prices.json.gz"), "manifest.json: files: v1/prices.json: its twin"),
        (lambda m: m.pop("released_at"), "manifest.json: released_at"),
        (lambda m: m.update(released_at=17), "manifest.json: released_at"),
    ],
)
def test_a_well_signed_manifest_of_another_shape_is_refused(sound: Path, change: Any, message: str) -> None:
    problems = problems_after(functools.partial(resigned, change), sound)
    assert any(p.startswith(message) for p in problems)


def test_a_well_signed_twin_of_other_content_is_named(sound: Path) -> None:
    def swap(folder: Path) -> None:
        packed = gzip.compress(b'{"value":1}\n', mtime=0)
        put(folder / "v1/prices.json.gz", packed)
        entry = {"sha256": hashlib.sha256(packed).hexdigest(), "size": len(packed)}
        resigned(lambda manifest: manifest["files"].update({"v1/prices.json.gz": entry}), folder)

    assert problems_after(swap, sound) == ("v1/prices.json.gz: does not decompress to v1/prices.json",)


@pytest.mark.parametrize("raw", [b"", b"[]\n", b"null\n", b"[" * 5000, b"[" * 900 + b"null" + b"]" * 900, b"\xff"])
def test_a_manifest_that_is_none_is_named(sound: Path, raw: bytes) -> None:
    (problem,) = problems_after(lambda f: put(f / "manifest.json", raw), sound)
    assert problem.startswith("manifest.json: ")


def test_a_manifest_with_spaces_or_a_key_twice_is_not_canonical(sound: Path) -> None:
    raw = (sound / "manifest.json").read_bytes()
    for other in (raw.replace(b":", b": ", 1), raw.rstrip(), raw.replace(b"{", b'{"audience":"internal",', 1)):
        (problem,) = problems_after(functools.partial(lambda o, f: put(f / "manifest.json", o), other), sound)
        assert problem == "manifest.json: not canonical JSON"


def test_a_release_in_the_folder_of_another_number_is_refused(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound.parent, tmp_path / "releases")
    moved = (tmp_path / "releases" / "000002").rename(tmp_path / "releases" / "000003")
    assert verify(moved, KNOWN).problems == ("manifest.json: is of release 2, but lies in a folder 000003",)


def test_a_changed_or_missing_release_before_breaks_the_chain(tmp_path: Path) -> None:
    last = tree(tmp_path, 4)
    path = tmp_path / "releases" / "000002" / "manifest.json"
    kept = path.read_bytes()
    put(path, kept.replace(b"public", b"qublic"))
    report = verify(last, KNOWN)
    assert report.chain == (4, 3)
    assert report.problems == ("000002/manifest.json: its SHA-256 is not the one that release 3 names",)
    assert verify(last, KNOWN, chain=False) == Report(True, (), 5, 4, KEY.kid, ())
    assert verify(last, KNOWN, trusted=3).ok
    path.unlink()
    assert verify(last, KNOWN).problems == ("000002/manifest.json: missing; release 3 is chained to it",)
    path.write_bytes(kept)
    assert verify(last, KNOWN).chain == (4, 3, 2, 1)


def test_the_time_of_release_decides_whether_a_key_counts(tmp_path: Path) -> None:
    folder = tree(tmp_path, 2)
    at = int((NOW + dt.timedelta(days=1)).timestamp())

    def problems(**more: Any) -> tuple[str, ...]:
        return verify(folder, {"keys": [{**KNOWN["keys"][0], **more}]}).problems

    assert problems(exp=at + 1) == ()
    assert "was retired" in problems(exp=at)[0]
    assert "signs from" in problems(nbf=at + 1)[0]
    assert "is revoked" in problems(revoked={"revoked_at": at + 99, "reason": "stolen"})[0]
    assert "not in the key set" in verify(folder, {"keys": []}).problems[0]
    assert all(p.startswith("manifest.jws: ") for p in problems(exp=at))


@pytest.mark.parametrize("mark", ["simulated", "replayed"])
def test_a_deemed_time_of_release_does_not_count_against_the_key(tmp_path: Path, mark: str) -> None:
    past = {**facts(-3000), mark: True}
    folder = freeze(tmp_path, FILES, past, KEY).folder
    assert verify(folder, KNOWN).ok
    assert not verify(folder, {"keys": [{**KNOWN["keys"][0], "revoked": {}}]}).ok
    other = freeze(tmp_path / "live", FILES, facts(-3000), KEY).folder
    assert "signs from" in verify(other, KNOWN).problems[0]


def test_a_release_verifies_with_nothing_but_cryptography(sound: Path) -> None:
    raw = (sound / "manifest.json").read_bytes()
    header, _, signature = (sound / "manifest.jws").read_bytes().split(b".")
    public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(KEY.public["x"] + "="))
    signed = header + b"." + base64.urlsafe_b64encode(raw).rstrip(b"=")
    public.verify(base64.urlsafe_b64decode(signature + b"=="), signed)
    for name, entry in json.loads(raw)["files"].items():
        assert hashlib.sha256((sound / name).read_bytes()).hexdigest() == entry["sha256"]


def test_a_release_with_many_files_verifies(tmp_path: Path) -> None:
    many = {f"v1/prices/{place:04d}.json": canonical(place % 7) for place in range(700)}
    folder = freeze(tmp_path, many, facts(), KEY).folder
    assert (folder / "manifest.json").stat().st_size > 128_000
    assert verify(folder, KNOWN).checked_files == 1400


# ------------------------------------------------------------------------------------ interruption


class Killed(BaseException):
    """Stands for the end of the process: no handler of ours may catch it."""


STEPS = ("mkdir", "open", "fsync", "link", "rename", "replace", "unlink", "rmdir", "close")


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int | None], None]]:
    """Arm the n-th step at the level of the system, counted over all kinds, to end the process."""
    state = {"left": math.inf}

    def stepping(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **named: Any) -> Any:
            state["left"] -= 1
            if name == "close":  # the system closes what a process leaves open
                real(*args, **named)
            if state["left"] == 0 or (state["left"] < 0 and name != "close"):
                raise Killed
            return None if name == "close" else real(*args, **named)

        return step

    for name in STEPS:
        monkeypatch.setattr(os, name, stepping(name, getattr(os, name)))

    def arm(count: int | None) -> None:
        state["left"] = math.inf if count is None else count

    yield arm
    arm(None)


def assert_whole(root: Path, released: int, done: Report | None = None) -> None:
    """What is visible is whole: every listed release verifies, and the newest is one of them."""
    numbers = list_releases(root)
    assert numbers == list(range(1, released + 1))
    newest = latest(root)
    assert (newest.number if newest else 0) == released
    for number in numbers:
        assert verify(load(root, number).folder, KNOWN).ok


def test_an_end_at_any_step_leaves_no_half_release_and_the_next_run_finishes(
    tmp_path: Path, kill_at: Callable[[int | None], None]
) -> None:
    outcomes = set()
    for step in range(1, 400):
        root = tmp_path / f"{step}"
        tree(root, 1)
        kill_at(step)
        try:
            freeze(root, changed(1), facts(1), KEY)
            finished = True
        except Killed:
            finished = False
        kill_at(None)
        if finished:
            break
        released = 2 if (root / "current").read_text() == "2\n" else 1
        assert_whole(root, released)
        complete = [path for path in (root / "releases").iterdir() if not path.name.startswith(".")]
        assert all(verify(path, KNOWN).ok for path in complete)
        done = recover(root, KNOWN)
        assert recover(root, KNOWN) == []
        assert sorted(p.name for p in (root / "releases").iterdir()) == [f"{n + 1:06d}" for n in range(len(complete))]
        assert_whole(root, len(complete))
        freeze(root, changed(2), facts(2), KEY)
        assert_whole(root, len(complete) + 1)
        outcomes.add((released, len(complete), tuple(text.split()[0] for text in done)))
    assert finished
    assert outcomes == {(1, 1, ()), (1, 1, ("removed",)), (1, 2, ("pointed",)), (2, 2, ())}


def test_the_next_freeze_clears_up_by_itself(tmp_path: Path, kill_at: Callable[[int | None], None]) -> None:
    tree(tmp_path, 1)
    kill_at(20)
    with pytest.raises(Killed):
        freeze(tmp_path, changed(1), facts(1), KEY)
    kill_at(None)
    assert [path.name for path in (tmp_path / "releases").iterdir() if path.name.startswith(".")]
    assert freeze(tmp_path, changed(1), facts(1), KEY, number=2).number == 2
    assert not [path.name for path in (tmp_path / "releases").iterdir() if path.name.startswith(".")]


def test_everything_is_durable_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    real_fsync, real_rename, real_replace = os.fsync, os.rename, os.replace
    order = []

    def fsync(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        real_fsync(handle)

    def rename(old: Path, new: Path) -> None:
        assert {path.stat().st_ino for path in [old, *old.rglob("*")]} <= synced
        order.append("named")
        synced.discard(new.parent.stat().st_ino)
        real_rename(old, new)

    def replace(old: Path, new: Path) -> None:
        assert old.stat().st_ino in synced
        assert (tmp_path / "releases").stat().st_ino in synced
        order.append("pointed")
        synced.discard(new.parent.stat().st_ino)
        real_replace(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(os, "replace", replace)
    tree(tmp_path, 2)
    assert order == ["named", "pointed"] * 2
    assert tmp_path.stat().st_ino in synced


def test_a_disk_that_refuses_leaves_nothing_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    tree(tmp_path, 1)
    with monkeypatch.context() as patched, pytest.raises(ReleaseError, match="No space left"):
        patched.setattr(os, "fsync", full)
        freeze(tmp_path, changed(1), facts(1), KEY)
    assert_whole(tmp_path, 1)
    freeze(tmp_path, changed(1), facts(1), KEY)
    assert_whole(tmp_path, 2)


def test_a_complete_release_that_does_not_verify_is_not_pointed_to(tmp_path: Path) -> None:
    tree(tmp_path, 2)
    (tmp_path / "current").write_text("1\n")
    put(tmp_path / "releases" / "000002" / "feed.atom", b"<fead/>")
    for attempt in (lambda: recover(tmp_path), lambda: freeze(tmp_path, FILES, facts(3), KEY)):
        with pytest.raises(VerificationError, match=r"000002: feed\.atom: "):
            attempt()
        assert list_releases(tmp_path) == [1]


def test_recovery_with_a_key_set_checks_the_signature(tmp_path: Path) -> None:
    tree(tmp_path, 1)
    (tmp_path / "current").unlink()
    with pytest.raises(VerificationError, match=r"manifest\.jws"):
        recover(tmp_path, {"keys": []})
    assert recover(tmp_path, KNOWN) == ["pointed to release 1, which was complete"]


LOOP = """
import sys
from pathlib import Path
from pricing import keys
from pricing.releases import freeze, latest
key = keys.parse_key(sys.argv[2].encode(), "test")
root = Path(sys.argv[1])
while True:
    number = (latest(root).number if latest(root) else 0) + 1
    files = {f"v1/{n}.json": str(n * number).encode() for n in range(6)}
    freeze(root, files, {"released_at": "2026-03-02T14:00:00+00:00"}, key)
    print(number, flush=True)
"""


def test_killing_the_process_for_real_leaves_whole_releases(tmp_path: Path) -> None:
    random_ = random.Random(20260302)
    for _ in range(8):
        command = [sys.executable, "-c", LOOP, str(tmp_path), JWK]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
            assert process.stdout is not None
            assert process.stdout.readline().strip().isdigit()
            time.sleep(random_.uniform(0, 0.06))
            process.send_signal(signal.SIGKILL)
        newest = latest(tmp_path)
        assert newest is not None
        assert verify(newest.folder, KNOWN).ok
        recover(tmp_path, KNOWN)
        assert not list((tmp_path / "releases").glob(".*"))
    newest = latest(tmp_path)
    assert newest is not None
    assert newest.number == len(list_releases(tmp_path)) >= 8
    assert all(verify(load(tmp_path, n).folder, KNOWN, chain=False).ok for n in list_releases(tmp_path))
