"""Reads the tree of releases: which is current, what it holds, its bytes.

Only releases up to ``current`` are seen, so nobody gets one before it is announced. A request takes
one ``Snapshot`` and answers from it alone; a snapshot's files never change, so no answer mixes two
releases. Every file is checked against the manifest's SHA-256 before it is first sent.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import threading
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pricing.web.answers import JSON, LOCKED, RELEASE_HEADER, Document, cached_for, digest, seconds
from pricing.web.problems import Problem, nearest, shown, unavailable

FOREVER = ("Cache-Control", "public, max-age=31536000, immutable")
_KEPT_BYTES = 128_000_000  # of the current release, in memory
_RETRY_SECONDS = 1.0
_TYPES = {".json": JSON, ".gz": "application/gzip", ".jws": "application/jose", ".toml": "application/toml"}
_TYPES[".txt"] = PLAIN = "text/plain; charset=utf-8"
_TYPES[".atom"] = "application/atom+xml"


@dataclass(frozen=True)
class Facts:
    """What the list of releases says of one."""

    number: int
    vintage: str
    released_at: str
    manifest_sha256: str
    simulated: bool

    @property
    def instant(self) -> dt.datetime:
        """When it was released, aware UTC."""
        return dt.datetime.fromisoformat(self.released_at)


class Snapshot:
    """One release, its files read when they are first asked for.

    Parameters
    ----------
    keep : bool
        Hold the documents in memory: for the current release.
    """

    def __init__(self, folder: Path, number: int, max_age: int, *, keep: bool) -> None:
        raw = (folder / "manifest.json").read_bytes()
        manifest = json.loads(raw)
        if manifest["number"] != number:
            raise ValueError(f"{folder / 'manifest.json'}: says it is release {manifest['number']}")
        self.folder, self.number = folder, number
        self.facts = Facts(
            number, manifest["vintage"], manifest["released_at"], digest(raw), bool(manifest.get("simulated", False))
        )
        self.files: dict[str, dict[str, Any]] = manifest["files"]
        self.documents: dict[str, Document] = {}
        # A simulated release bears the time of its simulated clock; HTTP dates are real ones.
        written = int((folder / "manifest.json").stat().st_mtime)
        self.modified = written if self.facts.simulated else min(seconds(self.facts.instant), written)
        self.headers = [("Content-Type", JSON), cached_for(max_age), LOCKED, (RELEASE_HEADER, str(number))]
        self._keep = keep
        self._kept_bytes = 0
        self._names: dict[str, Any] | None = None

    def document(self, path: str) -> Document:
        """Return the document at an address below ``/v1/`` (``""`` is the root's).

        Raises Problem 404 that names what is near, and 503 when a file is damaged.
        """
        path = path.removesuffix("/")
        found = self.documents.get(path)
        if found is None:
            name = f"{path or 'root'}.json"
            if name not in self.files or path == "root":
                raise self.unknown(path)
            twin = name + ".gz"
            zipped = (self._read(twin), self.files[twin]["sha256"]) if twin in self.files else None
            found = Document(self._read(name), self.files[name]["sha256"], zipped, self.headers, self.modified)
            if self._keep:
                self._hold(path, found)
        return found

    def text(self, name: str) -> Document:
        """Return a file that is no JSON, as long as the release is what is asked for. Raises Problem 404."""
        if name not in self.files:
            raise Problem(404, "unknown-file", "Not a file of this release", f"release {self.number} has no {name}")
        headers = [("Content-Type", _TYPES[Path(name).suffix]), *self.headers[1:]]
        return Document(self._read(name), self.files[name]["sha256"], None, headers, self.modified)

    def _hold(self, path: str, document: Document) -> None:
        if self._kept_bytes + document.size > _KEPT_BYTES:
            self.documents.clear()
            self._kept_bytes = 0
        self._kept_bytes += document.size
        self.documents[path] = document

    def file(self, name: str) -> Document:
        """Return one file of the release exactly as it lies there: it never changes."""
        if name in ("manifest.json", "manifest.jws"):
            try:
                body = (self.folder / name).read_bytes()
            except OSError as error:
                raise unavailable([f"release {self.number}: {name}: {error.strerror}"]) from error
            sha256, zipped = digest(body), None
        elif name in self.files:
            body, sha256 = self._read(name), self.files[name]["sha256"]
            twin = name + ".gz"
            zipped = (self._read(twin), self.files[twin]["sha256"]) if twin in self.files else None
        else:
            raise Problem(
                404, "unknown-file", "Not a file of this release", f"release {self.number} has no file {shown(name)!r}",
                nearest=[f"/v1/releases/{self.number}/{n}" for n in self._siblings(name)],
            )  # fmt: skip
        content_type = _TYPES.get(Path(name).suffix, "application/octet-stream")
        headers = [("Content-Type", content_type), FOREVER, LOCKED, (RELEASE_HEADER, str(self.number))]
        return Document(body, sha256, zipped, headers, self.modified)

    def json(self, name: str) -> Any:
        """Return a JSON file of the release as a value, None when the release has none of that name."""
        return json.loads(self._read(name)) if name in self.files else None

    def _read(self, name: str) -> bytes:
        """Return a file that the manifest names, or raise Problem 503 when it is not what it was."""
        try:
            body = (self.folder / name).read_bytes()
        except OSError as error:
            raise unavailable([f"release {self.number}: {name}: {error.strerror}"]) from error
        if digest(body) != self.files[name]["sha256"]:
            mend = "the operator restores it and runs lodemark verify"
            raise unavailable([f"release {self.number}: {name} is not what was signed; {mend}"])
        return body

    # ------------------------------------------------------------------ helping who mistyped

    def unknown(self, path: str) -> Problem:
        """404 for an address: each wrong part put right where something is like it."""
        level, right, wrong, known = self._tree(), [], "", []
        for part in path[:1000].split("/"):
            choice = part if part in level else next(iter(nearest(part, level, 1)), None)
            if choice != part and not wrong:
                wrong, known = part, sorted(level)[:20]
            if choice is None:
                break
            right.append(choice)
            level = level[choice]
        guess = "/".join(right)
        addresses = (
            [f"/v1/{guess}"]
            if f"{guess}.json" in self.files
            else [f"/v1/{guess}/{n}" for n in sorted(level)[:5]]
            if right
            else []
        )
        what = f"nothing is called {shown(wrong)!r} there" if wrong else "it is not a document itself"
        return Problem(
            404, "unknown-document", "No such document",
            f"release {self.number} has no document /v1/{shown(path)}: {what}",
            nearest=[a for a in addresses if a.removeprefix("/v1/") + ".json" in self.files], known=known,
        )  # fmt: skip

    def _tree(self) -> dict[str, Any]:
        if self._names is None:
            self._names = {}
            for name in self.files:
                if name.endswith(".json") and name != "root.json":
                    level = self._names
                    for part in name.removesuffix(".json").split("/"):
                        level = level.setdefault(part, {})
        return self._names

    def _siblings(self, name: str) -> list[str]:
        folder = name[:1000].rpartition("/")[0]
        return nearest(name, [n for n in self.files if n.rpartition("/")[0] == folder][:2000])


class Tree:
    """The releases of one audience, below ``root``."""

    def __init__(self, root: Path, max_age: int) -> None:
        self.root = root
        self._max_age = max_age
        self._pointer = root / "current"
        self._lock = threading.Lock()
        self._state: tuple[tuple[int, int], Snapshot] | None = None
        self._failed: tuple[tuple[int, int], float, Problem] | None = None
        self._facts: dict[int, Facts] = {}
        self._numbers: tuple[tuple[int, int], list[int]] = ((0, 0), [])

    def current(self) -> Snapshot:
        """Return the current release; costs one ``stat`` while the pointer stands still.

        While a new pointer cannot be followed (a file is missing, say), the release before it is still
        served and ``lacking`` tells why. Raises Problem 503 before there is any.
        """
        key, state = self._key(), self._state
        if state is not None and state[0] == key:
            return state[1]
        return self._follow(key)

    def lacking(self) -> list[str]:
        """Return why the pointer cannot be followed; empty when it can."""
        failed = self._failed
        return failed[2].more["missing"] if failed and failed[0] == self._key() else []

    def _key(self) -> tuple[int, int]:
        try:
            found = os.stat(self._pointer)
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_ino

    def _follow(self, key: tuple[int, int]) -> Snapshot:
        with self._lock:
            if self._state is not None and self._state[0] == key:
                return self._state[1]
            failed = self._failed
            if failed is None or failed[0] != key or time.monotonic() - failed[1] >= _RETRY_SECONDS:
                try:
                    number = self._pointed_to()
                    # The key was taken before the pointer was read: a change in between is seen next time.
                    self._state = (key, Snapshot(self._folder(number), number, self._max_age, keep=True))
                    self._failed = None
                except (OSError, ValueError, KeyError, TypeError) as error:
                    self._failed = (key, time.monotonic(), unavailable([_reason(error)]))
            if self._state is None:
                raise self._failed[2] if self._failed else unavailable(["no release"])
            return self._state[1]

    def _pointed_to(self) -> int:
        try:
            text = self._pointer.read_text("ascii").strip()
        except FileNotFoundError:
            raise ValueError("no release has been made yet; lodemark release makes the first") from None
        if not (text.isdecimal() and len(text) < 10):
            raise ValueError(f"the file 'current' does not hold a number: {text[:20]!r}")
        return int(text)

    def _folder(self, number: int) -> Path:
        return self.root / "releases" / f"{number:06d}"

    def numbers(self) -> Sequence[int]:
        """Return the releases that may be seen, oldest first; listed anew when one comes or goes."""
        last = self.current().number
        folder = self.root / "releases"
        key, numbers = (last, folder.stat().st_mtime_ns), self._numbers[1]
        if self._numbers[0] != key:
            names = [p.name for p in folder.iterdir()]
            numbers = sorted(int(n) for n in names if n.isdecimal() and n.isascii() and 1 <= int(n) <= last)
            self._numbers = (key, numbers)
        return numbers

    def snapshot(self, number: int) -> Snapshot:
        """Return a release by number. Raises Problem 404 when there is none, or not yet."""
        current = self.current()
        if number == current.number:
            return current
        if number not in self.numbers():
            raise Problem(
                404, "unknown-release", "No such release",
                f"there is no release {number}; the latest is {current.number}",
                nearest=[f"/v1/releases/{current.number}"],
            )  # fmt: skip
        try:
            return Snapshot(self._folder(number), number, self._max_age, keep=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise unavailable([_reason(error)]) from error

    def facts(self, number: int) -> Facts:
        """Return what the list says of one release; its manifest is read once."""
        found = self._facts.get(number)
        if found is None:
            found = self._facts[number] = self.snapshot(number).facts
        return found

    def at(self, instant: dt.datetime) -> Snapshot:
        """Return the last release made at or before an instant. Raises Problem 404 before the first."""
        numbers = self.numbers()
        position = bisect_right(numbers, instant, key=lambda n: self.facts(n).instant)
        if position == 0:
            first = self.facts(numbers[0])
            raise Problem(
                404, "before-first-release", "Nothing was released yet",
                f"asOf lies before the first release that is kept, {first.number} of {first.released_at}",
                nearest=[f"/v1/releases/{first.number}"],
            )  # fmt: skip
        return self.snapshot(numbers[position - 1])


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{'/'.join(Path(error.filename or '').parts[-2:])}: {error.strerror}"
    if isinstance(error, KeyError | TypeError):
        return f"the manifest of the current release lacks {error}"
    return str(error)
