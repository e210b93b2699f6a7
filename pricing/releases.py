"""Releases: numbered folders of finished bytes, frozen, signed, chained and verified.

One audience's tree::

    releases/000001/   finished files; each .json with its .json.gz; manifest.json, manifest.jws
    objects/ab/cdef…   every file's content once, by SHA-256; release files are hard links to it
    current            the number of the newest release, as text

A release is written beside its final name, made durable, renamed, then pointed to. A process that
ends at any moment leaves the old release or the new one; ``recover``, and the next ``freeze``,
clear away or finish what it left. What stands behind ``current`` is released, nothing else is.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import hashlib
import math
import os
import re
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pricing import keys
from pricing.errors import ReleaseError, VerificationError
from pricing.keys import SigningKey

FORMAT = "lodemark-release/1"
TYP = "lodemark-release"
_OWN = {"format", "number", "previous", "files"}
_SIGNED = ("manifest.json", "manifest.jws")
_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Release:
    """One complete release on disk, as its manifest tells it; reading it verifies nothing."""

    number: int
    folder: Path
    manifest: dict[str, Any]
    manifest_sha256: str


@dataclass(frozen=True)
class Report:
    """What a verification found; each problem names its file.

    ``chain`` lists the releases whose manifests were confirmed, newest first; ``checked_files``
    counts the listed files that were there to compare; ``key_id`` is empty when no signature held.
    """

    ok: bool
    problems: tuple[str, ...]
    checked_files: int
    number: int
    key_id: str
    chain: tuple[int, ...]


# --------------------------------------------------------------------------------- canonical JSON


def canonical(value: Any) -> bytes:
    """Serialise a document in the one way: UTF-8, sorted keys, no spaces, shortest doubles, a line end.

    Raises
    ------
    ReleaseError
        A number is not finite or not exact in a double, or a value has no place in JSON; the
        message names its path.
    """
    options = (
        orjson.OPT_SORT_KEYS
        | orjson.OPT_APPEND_NEWLINE
        | orjson.OPT_STRICT_INTEGER
        | orjson.OPT_PASSTHROUGH_DATETIME
        | orjson.OPT_PASSTHROUGH_DATACLASS
    )
    try:
        data = orjson.dumps(value, default=_plain, option=options)
    except TypeError as error:
        raise ReleaseError(f"not JSON: {_fault(value) or error}") from error
    # orjson writes NaN and infinities as null, so only a document with a null in it can hide one.
    if b"null" in data and (fault := _fault(value)):
        raise ReleaseError(f"not JSON: {fault}")
    return data


def _plain(value: Any) -> float:
    if isinstance(value, float):  # numpy's double
        return float(value)
    raise TypeError(type(value).__name__)


def _fault(value: Any) -> str | None:
    """Find the first value that JSON cannot hold, and say where."""
    pending: list[tuple[str, int, Any]] = [("$", 0, value)]
    while pending:
        path, depth, item = pending.pop()
        if depth > 250:
            return f"{path[:80]}…: nested too deeply"
        if isinstance(item, dict):
            if odd := [name for name in item if not isinstance(name, str)]:
                return f"{path}: the key {odd[0]!r} is not text"
            pending += [(f"{path}.{name}", depth + 1, inner) for name, inner in item.items()]
        elif isinstance(item, list | tuple):
            pending += [(f"{path}[{place}]", depth + 1, inner) for place, inner in enumerate(item)]
        elif isinstance(item, float):
            if not math.isfinite(item):
                return f"{path}: {item} is not a finite number; a missing one is None"
        elif isinstance(item, int):
            if abs(item) >= 2**53:
                return f"{path}: {item} is not exact in a double; write it as text"
        elif not isinstance(item, str | None):
            return f"{path}: {type(item).__name__} has no place in JSON; make it text, number, list or object"
    return None


# ------------------------------------------------------------------------------------------- read


def _name(number: int) -> str:
    return f"{number:06d}"


def _folders(root: Path) -> list[int]:
    """Numbers of the complete release folders, pointed to or not."""
    named = [path for path in (root / "releases").glob("[0-9]*") if path.name.isdecimal() and path.is_dir()]
    return sorted(int(path.name) for path in named if path.name == _name(int(path.name)) and int(path.name))


def _pointed(root: Path) -> int:
    """Return the number in ``current``; 0 when nothing was released."""
    path = root / "current"
    try:
        text = path.read_text("ascii", errors="replace")
    except FileNotFoundError:
        return 0
    if not re.fullmatch(r"[1-9][0-9]*\n", text, re.ASCII):
        raise ReleaseError(f"{path}: holds {text[:20]!r}, not the number of a release; remove it and recover")
    return int(text)


def list_releases(root: Path) -> list[int]:
    """Return the numbers of what has been released, ascending."""
    newest = _pointed(root)
    return [number for number in _folders(root) if number <= newest]


def latest(root: Path) -> Release | None:
    """Return the newest release; None when there is none yet."""
    number = _pointed(root)
    return load(root, number) if number else None


def load(root: Path, number: int) -> Release:
    """Return one release.

    Raises
    ------
    ReleaseError
        It has not been released, or its manifest is missing or not one.
    """
    if number > _pointed(root):
        raise ReleaseError(f"release {number} does not exist; the newest is {_pointed(root) or 'none'}")
    folder = root / "releases" / _name(number)
    try:
        raw = (folder / "manifest.json").read_bytes()
        manifest = _manifest(raw)
    except (OSError, VerificationError) as error:
        raise ReleaseError(f"{folder}: {error}") from error
    return Release(number, folder, manifest, _sha256(raw))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ----------------------------------------------------------------------------------------- freeze


def freeze(
    root: Path,
    files: Mapping[str, bytes],
    facts: Mapping[str, Any],
    key: SigningKey,
    *,
    number: int | None = None,
) -> Release:
    """Make the next release of one audience: write, sign, make durable, then point to it.

    Parameters
    ----------
    root
        The audience's tree, such as ``DATA/public``.
    files
        Content by relative POSIX name. A ``.json`` file gets a ``.json.gz`` twin.
    facts
        What the manifest says beside the files; ``released_at`` (ISO 8601 with offset) is a must.
    number
        Refused unless it is the next one; None takes the next one.

    Raises
    ------
    ReleaseError
        A name or fact is not allowed, the number is not the next, another process is writing, what
        an interrupted run left does not verify, or the disk refuses. Nothing is released then.
    """
    try:
        (root / "releases").mkdir(parents=True, exist_ok=True)
        keys.sync_folder(root.parent)
        keys.sync_folder(root)
        with keys.locked(root):
            _finish(root, None)
            before = latest(root)
            due = before.number + 1 if before else 1
            if number not in (None, due):
                raise ReleaseError(f"release {number} was asked for, but the next one is {due}")
            if before:
                _refuse_spoilt(before, key)
            content = _with_twins(files, before)
            manifest = _new_manifest(due, before, content, facts)
            return _write_release(root, content, manifest, key)
    except OSError as error:
        raise ReleaseError(f"{root}: no release was made: {error}") from error


def _refuse_spoilt(before: Release, key: SigningKey) -> None:
    """Refuse to chain to a manifest that the disk has spoilt, as far as this key can tell.

    Ed25519 always signs alike, so signing again shows it. After a change of key the headers differ.
    """
    raw, kept = ((before.folder / name).read_bytes() for name in _SIGNED)
    again = keys.sign(raw, key, TYP)
    if again != kept and again.partition(b"..")[0] == kept.partition(b"..")[0]:
        raise ReleaseError(f"{before.folder}: manifest.json is not what was signed; restore it from a mirror")


def _with_twins(files: Mapping[str, bytes], before: Release | None) -> dict[str, bytes]:
    """Add the gzip twin of each JSON file, and refuse names that some file system would not keep apart."""
    content: dict[str, bytes] = {}
    for name, data in sorted(files.items()):
        if fault := _name_fault(name):
            raise ReleaseError(f"file name {name!r}: {fault}")
        content[name] = data
        if name.endswith(".json"):
            if f"{name}.gz" in files:
                raise ReleaseError(f"file name {name + '.gz'!r}: is made from {name}; leave it out")
            content[f"{name}.gz"] = _twin(name, data, before)
    spelt: dict[str, str] = {}
    for name in content:
        for path in (name, *(f"{folder}/" for folder in _folders_of(name))):
            other = spelt.setdefault(path.rstrip("/").casefold(), path)
            if other != path:
                raise ReleaseError(f"file name {name!r}: clashes with {other!r} where case is ignored or as a folder")
    return content


def _twin(name: str, data: bytes, before: Release | None) -> bytes:
    """Compress; an unchanged file keeps its twin (sixteen times faster, and zlib may come to differ)."""
    listed = before.manifest["files"] if before else {}
    if before and name in listed and listed[name]["sha256"] == _sha256(data):
        with contextlib.suppress(OSError):
            kept = (before.folder / f"{name}.gz").read_bytes()
            if _inflates_to(kept, data):
                return kept
    return gzip.compress(data, compresslevel=9, mtime=0)


def _inflates_to(packed: bytes, data: bytes) -> bool:
    stream = zlib.decompressobj(wbits=31)
    try:
        return stream.decompress(packed, len(data) + 1) == data and stream.eof and not stream.unused_data
    except zlib.error:
        return False


def _name_fault(name: str) -> str | None:
    if name in _SIGNED or name == f"{_SIGNED[0]}.gz":
        return "is the release's own"
    if not all(_SEGMENT.fullmatch(part) for part in name.split("/")):
        return "use relative names of ASCII letters, digits, '.', '_' and '-', none beginning with a dot"
    return None


def _folders_of(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _new_manifest(
    number: int, before: Release | None, content: Mapping[str, bytes], facts: Mapping[str, Any]
) -> dict[str, Any]:
    if clash := _OWN & set(facts):
        raise ReleaseError(f"facts may not name {', '.join(sorted(clash))}: the release sets them")
    manifest = {
        **facts,
        "format": FORMAT,
        "number": number,
        "previous": {"number": before.number, "sha256": before.manifest_sha256} if before else None,
        "files": {name: {"sha256": _sha256(data), "size": len(data)} for name, data in content.items()},
    }
    try:
        _manifest(canonical(manifest))
    except VerificationError as error:
        raise ReleaseError(str(error)) from error
    if before and _instant(manifest["released_at"]) < _instant(before.manifest["released_at"]):
        raise ReleaseError(
            f"released_at {manifest['released_at']} lies before that of release {before.number}, "
            f"{before.manifest['released_at']}; time only moves forward"
        )
    return manifest


def _write_release(root: Path, content: Mapping[str, bytes], manifest: dict[str, Any], key: SigningKey) -> Release:
    number = manifest["number"]
    staging = root / "releases" / f".{_name(number)}.tmp-{os.getpid()}"
    final = root / "releases" / _name(number)
    staging.mkdir()
    raw = canonical(manifest)
    _place(root, staging, {**content, _SIGNED[0]: raw, _SIGNED[1]: keys.sign(raw, key, TYP)})
    for folder, _, _ in os.walk(staging, topdown=False):
        keys.sync_folder(Path(folder))
    os.rename(staging, final)
    keys.sync_folder(final.parent)
    _point(root, number)
    return Release(number, final, manifest, _sha256(raw))


def _point(root: Path, number: int) -> None:
    keys.write_durably(root / "current", f"{number}\n".encode())


def _object(root: Path, sha256: str) -> Path:
    return root / "objects" / sha256[:2] / sha256[2:]


def _place(root: Path, staging: Path, content: Mapping[str, bytes]) -> None:
    """Put every file into the staging folder, durably: a link to known content, else new bytes.

    New content enters the object store only after it is durable, so a link never leads to less.
    """
    fresh = []
    for name, data in content.items():
        path, kept = staging / name, _object(root, _sha256(data))
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _linked(kept, path, data):
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444), "wb") as file:
                file.write(data)
            fresh.append((path, kept))
    # Written first, then made durable: the file system then does most of it in one go.
    for path, _ in fresh:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    for path, kept in fresh:
        # Without links (another file system, or none possible) each release just takes its full room.
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, kept)


def _linked(kept: Path, path: Path, data: bytes) -> bool:
    """Link known content to ``path``; False where there is none, it has rotted, or links do not work."""
    try:
        if kept.read_bytes() != data:
            kept.unlink()
            return False
        os.link(kept, path)
    except OSError:
        return False
    return True


def recover(root: Path, key_set: dict[str, Any] | Path | None = None) -> list[str]:
    """Clear away or finish what an interrupted freeze left; return what was done, in words.

    A complete folder that ``current`` does not reach is verified (its signature too, when a key
    set is given) and then pointed to.

    Raises
    ------
    VerificationError
        Such a folder does not verify; nothing is pointed to then.
    """
    if not (root / "releases").is_dir():
        return []
    with keys.locked(root):
        return _finish(root, keys.load_key_set(key_set) if key_set is not None else None)


def _finish(root: Path, key_set: dict[str, Any] | None) -> list[str]:
    done = []
    for stale in sorted((root / "releases").glob(".*.tmp-*")):
        shutil.rmtree(stale)
        done.append(f"removed the unfinished {stale.name}")
    pointed = _pointed(root)
    for number in _folders(root):
        if number > pointed:
            folder = root / "releases" / _name(number)
            report = _inspect(folder, key_set, chain=True, trusted=1)
            if report.problems:
                raise VerificationError(f"{folder}: {'; '.join(report.problems)}; move it away, then recover again")
            keys.sync_folder(folder.parent)
            _point(root, number)
            done.append(f"pointed to release {number}, which was complete")
    return done


# ----------------------------------------------------------------------------------------- verify


def verify(folder: Path, key_set: dict[str, Any] | Path, *, chain: bool = True, trusted: int = 1) -> Report:
    """Check a release folder: signature, every file's hash, nothing missing or added, the chain.

    Parameters
    ----------
    folder
        The release, named by its number; the releases before it lie beside it.
    key_set
        The keys that you trust, or the file that holds them.
    chain
        Walk the manifests back by their hashes. A signed manifest vouches for those before it,
        whatever key had signed them.
    trusted
        Where the walk ends: 1, or a release that was verified before.

    Raises
    ------
    VerificationError
        The key set is not one. What is wrong with the release is in the report.
    """
    return _inspect(folder, keys.load_key_set(key_set), chain, trusted)


def _inspect(folder: Path, key_set: dict[str, Any] | None, chain: bool, trusted: int) -> Report:
    folder = folder.resolve()
    found, problems = _listing(folder)
    missing = [f"{name}: missing" for name in _SIGNED if name not in found]
    if missing:
        return Report(False, (*problems, *missing), 0, 0, "", ())
    raw = (folder / _SIGNED[0]).read_bytes()
    try:
        manifest = _manifest(raw)
    except VerificationError as error:
        return Report(False, (*problems, str(error)), 0, 0, "", ())
    if folder.name != _name(manifest["number"]):
        problems.append(f"manifest.json: is of release {manifest['number']}, but lies in a folder {folder.name}")
    key_id = ""
    if key_set is not None:
        try:
            signature = (folder / _SIGNED[1]).read_bytes()
            key_id = keys.check(signature, raw, key_set, typ=TYP, at=_signed_at(manifest))
        except VerificationError as error:
            problems.append(f"manifest.jws: as signature of manifest.json: {error}")
    problems += _file_problems(folder, found, manifest["files"])
    walked, broken = _chain(folder, manifest, trusted) if chain else ((), [])
    problems += broken
    checked = len(found & set(manifest["files"]))
    return Report(not problems, tuple(problems), checked, manifest["number"], key_id, walked)


def _listing(folder: Path) -> tuple[set[str], list[str]]:
    """Names of the plain files below a folder; links, devices and empty folders are problems."""
    found: set[str] = set()
    problems = []
    for path, folders, files in os.walk(folder):
        here = Path(path)
        if not folders and not files:
            problems.append(f"{here.relative_to(folder).as_posix()}: an empty folder, not of this release")
        for child in [here / name for name in (*folders, *files)]:
            name = child.relative_to(folder).as_posix()
            if child.is_symlink():
                problems.append(f"{name}: a symbolic link; a release holds plain files only")
            elif child.is_file():
                found.add(name)
            elif not child.is_dir():
                problems.append(f"{name}: not a plain file")
    return found, problems


def _instant(text: Any) -> dt.datetime:
    instant = dt.datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError("no offset from UTC")
    return instant


def _signed_at(manifest: Mapping[str, Any]) -> dt.datetime | None:
    """Return when it was signed; unknown where the release says that its clock was not the real one."""
    deemed = manifest.get("replayed") is True or manifest.get("simulated") is True
    return None if deemed else _instant(manifest["released_at"])


def _manifest(raw: bytes) -> dict[str, Any]:
    """Read a manifest that may come from anyone, and check its shape."""
    try:
        manifest = orjson.loads(raw)
        same = canonical(manifest) == raw
    except (orjson.JSONDecodeError, ReleaseError) as error:
        raise VerificationError(f"manifest.json: not JSON ({error})") from error
    fault = "not an object" if not isinstance(manifest, dict) else "not canonical JSON" if not same else ""
    if fault or (fault := _shape_fault(manifest)):
        raise VerificationError(f"manifest.json: {fault}")
    return dict(manifest)


def _shape_fault(manifest: dict[str, Any]) -> str:
    """Say how a manifest departs from the format; empty when it does not."""
    number, previous, files = manifest.get("number"), manifest.get("previous"), manifest.get("files")
    if manifest.get("format") != FORMAT:
        return f"format is {manifest.get('format')!r}, not {FORMAT!r}"
    if type(number) is not int or number < 1:
        return f"number is {number!r}, not 1, 2, 3 …"
    try:
        _instant(manifest.get("released_at"))
    except (ValueError, TypeError):
        return f"released_at is {manifest.get('released_at')!r}, not an ISO 8601 instant with its offset"
    if number == 1:
        chained = previous is None
    else:
        chained = (
            isinstance(previous, dict)
            and set(previous) == {"number", "sha256"}
            and type(previous["number"]) is int
            and previous["number"] == number - 1
            and _SHA256.fullmatch(str(previous["sha256"])) is not None
        )
    if not chained:
        return "previous is not the number and hash of the release before"
    if not isinstance(files, dict):
        return "files is not an object"
    for name, entry in files.items():
        if fault := _name_fault(name):
            return f"files: {name!r}: {fault}"
        if not isinstance(entry, dict) or set(entry) != {"sha256", "size"} or type(entry["size"]) is not int:
            return f"files: {name}: is not a sha256 and a size"
        if not _SHA256.fullmatch(str(entry["sha256"])):
            return f"files: {name}: sha256 is not 64 hexadecimal digits"
        if name.endswith(".json") and f"{name}.gz" not in files:
            return f"files: {name}: its twin {name}.gz is not listed"
    return ""


def _file_problems(folder: Path, found: set[str], files: Mapping[str, Any]) -> list[str]:
    """Compare what lies in the folder with what the manifest lists."""
    problems = [f"{name}: not in the manifest" for name in sorted(found - set(files) - set(_SIGNED))]
    sound: dict[str, bytes] = {}
    for name, entry in files.items():
        if name not in found:
            problems.append(f"{name}: missing")
            continue
        size = (folder / name).stat().st_size
        if size != entry["size"]:
            problems.append(f"{name}: has {size} bytes, not {entry['size']}")
            continue
        data = (folder / name).read_bytes()
        if _sha256(data) != entry["sha256"]:
            problems.append(f"{name}: its SHA-256 is not that of the manifest")
        elif name.endswith(".json"):
            sound[name] = data
        elif (plain := sound.pop(name.removesuffix(".gz"), None)) is not None and not _inflates_to(data, plain):
            problems.append(f"{name}: does not decompress to {name.removesuffix('.gz')}")
    return problems


def _chain(folder: Path, manifest: Mapping[str, Any], trusted: int) -> tuple[tuple[int, ...], list[str]]:
    """Walk from a manifest back to the trusted one, each named by the hash in the one after it."""
    walked = [manifest["number"]]
    while manifest["number"] > max(trusted, 1):
        previous = manifest["previous"]
        name = f"{_name(previous['number'])}/manifest.json"
        path = folder.parent / name
        if path.is_symlink() or not path.is_file():
            return tuple(walked), [f"{name}: missing; release {manifest['number']} is chained to it"]
        raw = path.read_bytes()
        if _sha256(raw) != previous["sha256"]:
            return tuple(walked), [f"{name}: its SHA-256 is not the one that release {manifest['number']} names"]
        try:
            manifest = _manifest(raw)
        except VerificationError as error:
            return tuple(walked), [f"{_name(previous['number'])}/{error}"]
        if manifest["number"] != previous["number"]:
            return tuple(walked), [f"{name}: is of release {manifest['number']}"]
        walked.append(manifest["number"])
    return tuple(walked), []
