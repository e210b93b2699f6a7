"""Verify a Lodemark release, with nothing of Lodemark: Python 3.11, ``cryptography`` and this one file.

    python verify_release.py releases/000017 --keys jwks.json
    python verify_release.py https://host --keys jwks.json --state lodemark.state

Checks a downloaded folder, or what an address hands out (its newest release, or …/v1/releases/17): the
signature of manifest.json, every file's SHA-256 and size, that nothing is missing or added, the .gz twins,
and the chain of manifests back to release 1 or to one that you trust already. Ends with 0 when all of it
holds, 1 when something does not, 2 when nothing can be said (wrong usage, no answer).
"""

import argparse
import base64
import contextlib
import datetime as dt
import hashlib
import http.client
import json
import os
import re
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LARGEST = 256_000_000  # bytes of a manifest or key set; a listed file is read to its listed size
Keys = dict[str, dict[str, Any]]


class Wrong(Exception):
    """Something is not as the publisher signed it."""


class Unusable(Exception):
    """Nothing can be said: wrong usage, or no answer."""


class Release:
    """A release's files, the manifests before it and the key set: in folders, or at an address."""

    def __init__(self, target: str) -> None:
        self.online = urlsplit(target).scheme in ("http", "https")
        self.base, self.keys = target.rstrip("/").removesuffix("/manifest.json"), "/.well-known/jwks.json"
        if self.online and not re.search(r"/[0-9]+$", self.base):
            raw = _fetch(urljoin(self.base, "/v1/releases?limit=1"), LARGEST)
            try:
                number = int(_json(raw or b"", "list")["releases"][0]["number"])
            except (Wrong, LookupError, TypeError, ValueError) as error:
                raise Unusable(f"{target}: hands out no list of releases; name one, as …/v1/releases/17") from error
            self.base = urljoin(self.base, f"/v1/releases/{number}")
        elif not self.online:
            self.base, self.keys = str(Path(target).resolve()), "../../jwks.json"
            if not Path(self.base).is_dir():
                raise Unusable(f"{target}: no such folder; name one, as releases/000017, or an http(s) address")
        self.number = self.base.replace(os.sep, "/").rpartition("/")[2]

    def read(self, name: str, limit: int = LARGEST) -> bytes | None:
        """Return a file's bytes, at most one more than the limit; None where there is no such plain file."""
        if self.online:
            return _fetch(urljoin(f"{self.base}/", name), limit)
        path = Path(self.base, name)
        if path.is_symlink() or not path.is_file():
            return None
        with open(path, "rb") as file:
            return file.read(limit + 1)

    def earlier(self, number: int) -> str:
        """Name the manifest of another release: addresses say 17 or 000017, folders 000017."""
        return f"../{number if self.online and self.number[0] != '0' else f'{number:06d}'}/manifest.json"

    def added(self, listed: set[str]) -> Iterator[str]:
        """Tell what lies in the folder and is not of the release; an address shows only what it is asked for."""
        for here, folders, files in () if self.online else os.walk(self.base):
            for path in (Path(here, name) for name in (*folders, *files)):
                name = path.relative_to(self.base).as_posix()
                if path.is_symlink() or not (path.is_dir() or (path.is_file() and name in listed)):
                    yield f"{name}: added; not a plain file that the manifest lists"


def _fetch(address: str, limit: int) -> bytes | None:
    # Bytes as stored: a .json.gz file is a file of its own, not a transfer encoding.
    request = urllib.request.Request(address, headers={"Accept-Encoding": "identity"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read(limit + 1))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (404, 410):
            return None
        raise Unusable(f"{address}: HTTP {error.code}; try again later") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unusable(f"{address}: {error}; check address and network, then try again") from error


def _json(raw: bytes, where: str) -> Any:
    try:
        return json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Wrong(f"{where}: not JSON ({error})") from error


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    if re.fullmatch(r"[A-Za-z0-9_-]+", text) and len(text) % 4 != 1:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        if _encode(data) == text:  # spare bits at the end decode alike, and are not canonical (RFC 7515, section 2)
            return data
    raise Wrong("not canonical base64url, without padding, spaces or spare bits")


def _signer(signature: str, payload: bytes, keys: Keys, typ: str, at: float | None) -> str:
    """Verify a detached JWS, ``header..signature`` (RFC 7515, appendix F); return the name of its key."""
    parts = signature.split(".")
    if len(parts) != 3 or parts[1]:
        raise Wrong("not a detached signature, which is header..signature")
    header, made = _json(_decode(parts[0]), "header"), _decode(parts[2])
    kid = header.get("kid") if isinstance(header, dict) else None
    if header != {"alg": "Ed25519", "kid": kid, "typ": typ}:
        raise Wrong(f"its header is not that of a {typ} by Ed25519")
    if not isinstance(kid, str) or kid not in keys:
        raise Wrong(f"key {kid!r} is not one you trust, nor signed by one; a stranger's, or name new --keys")
    if "revoked" in keys[kid]:
        raise Wrong(f"key {kid} is revoked; only a later release, signed by another key, can confirm this one")
    if at is not None and not keys[kid]["nbf"] <= at < keys[kid].get("exp", float("inf")):
        raise Wrong(f"key {kid} was not in use at the time this bears: not yet, or retired before")
    try:
        public = Ed25519PublicKey.from_public_bytes(_decode(keys[kid]["x"]))
        public.verify(made, f"{parts[0]}.{_encode(payload)}".encode())
    except InvalidSignature:
        raise Wrong(f"is not the signature of these bytes by key {kid}") from None
    return kid


def _key_set(raw: bytes, where: str) -> Keys:
    """Read a key set (RFC 7517): its Ed25519 keys by their names, the thumbprints of RFC 7638."""
    value, found = _json(raw, where), {}
    try:
        for entry in (e for e in value["keys"] if (e.get("kty"), e.get("crv")) == ("OKP", "Ed25519")):
            told = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": entry["x"]}, separators=(",", ":")).encode()
            sound = entry["kid"] == _encode(hashlib.sha256(told).digest()) and len(_decode(entry["x"])) == 32
            sound &= {type(entry["nbf"]), type(entry.get("exp", 0))} == {int} and "d" not in entry
            if not sound or entry["kid"] in found:
                raise Wrong(f"{where}: key {entry['kid']!r} is not a public key, once, named by its thumbprint")
            found[entry["kid"]] = entry
    except (LookupError, TypeError, AttributeError) as error:
        raise Wrong(f'{where}: not a key set, which is {{"keys": […]}}') from error
    return found


def _merged(trusted: Keys, offered: Keys) -> Keys:
    """Add the keys that a trusted key has signed; to a trusted key an offer may only set an end."""
    known = {kid: dict(entry) for kid, entry in trusted.items()}
    for kid in known.keys() & offered.keys():
        ends = [entry["exp"] for entry in (known[kid], offered[kid]) if "exp" in entry]
        known[kid] |= {"exp": min(ends)} if ends else {}
        known[kid] |= {"revoked": offered[kid]["revoked"]} if "revoked" in offered[kid] else {}
    for kid, entry in sorted(offered.items(), key=lambda item: item[1]["nbf"]):  # each by one before it
        if kid not in known and isinstance(entry.get("endorsement"), str):
            with contextlib.suppress(Wrong):
                _signer(entry["endorsement"], f"{kid} {entry['nbf']}".encode(), known, "lodemark-key", entry["nbf"])
                known[kid] = entry
    return known


def _manifest(raw: bytes | None, number: str, where: str) -> dict[str, Any]:
    if raw is None:
        raise Wrong(f"{where}: missing; fetch it again, or from another mirror")
    value = _json(raw, where)
    try:
        own, before, listed = value["number"], value["previous"], value["files"]
        sound = value["format"] == "lodemark-release/1" and type(own) is int and own >= 1
        sound &= dt.datetime.fromisoformat(value["released_at"]).tzinfo is not None
        sound &= before is None if own == 1 else type(before["sha256"]) is str and before["number"] == own - 1
        for name, entry in listed.items():
            sound &= bool(re.fullmatch(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+", f"/{name}")) and type(entry["size"]) is int
            sound &= type(entry["sha256"]) is str and name not in ("manifest.json", "manifest.jws")
            sound &= not name.endswith(".json") or f"{name}.gz" in listed
    except (LookupError, TypeError, ValueError, AttributeError):
        sound = False
    if not sound:
        raise Wrong(f"{where}: is JSON, but not the manifest of a release")
    if not re.fullmatch(f"0*{own}", number):
        raise Wrong(f"{where}: is of release {own}, in the place of {number}; another release was put there")
    return dict(value)


def _file_faults(release: Release, files: dict[str, Any]) -> Iterator[str]:
    for name, listed in files.items():
        data, plain = release.read(name, listed["size"]), files.get(name.removesuffix(".gz"))
        if data is None:
            yield f"{name}: missing; fetch it again"
        elif len(data) != listed["size"] or hashlib.sha256(data).hexdigest() != listed["sha256"]:
            yield f"{name}: changed; its size or SHA-256 is not the one signed. Fetch it again, or from elsewhere"
        elif name.endswith(".json.gz") and plain:
            stream, inflated = zlib.decompressobj(wbits=31), b""
            with contextlib.suppress(zlib.error):
                inflated = stream.decompress(data, plain["size"] + 1)
            if not stream.eof or stream.unused_data or hashlib.sha256(inflated).hexdigest() != plain["sha256"]:
                yield f"{name}: does not decompress to {name.removesuffix('.gz')}; tell the publisher"


def _chain(release: Release, manifest: dict[str, Any], sha256: str, trusted: dict[int, str]) -> str:
    """Follow ``previous`` to the oldest release trusted, else to the first."""
    last, newest = min(trusted, default=1), max(trusted, default=1)
    if manifest["number"] < newest:
        told = f"roll-back: release {manifest['number']} is older than release {newest}, which you trusted before"
        raise Wrong(f"{told}; newer ones are held back from you. Ask the publisher or another mirror")
    for number in range(manifest["number"], last - 1, -1):
        if trusted.get(number, sha256) != sha256:
            raise Wrong(f"fork: two releases {number}, yours and {sha256}; keep both, ask the publisher in public")
        if number == last and trusted:
            return f"chain back to release {last}, which you trusted before"
        if number < manifest["number"]:
            where = release.earlier(number)
            if (raw := release.read(where)) is None:
                raise Wrong(f"{where}: missing, the chain ends; fetch it, or name a release you trust with --trusted")
            if hashlib.sha256(raw).hexdigest() != sha256:
                raise Wrong(f"{where}: not the release {number} that {number + 1} names: changed, or a fork")
            manifest = _manifest(raw, str(number), where)
        sha256 = manifest["previous"]["sha256"] if number > 1 else ""
    return "chain back to release 1"


def _verify(release: Release, trusted: dict[int, str], keys: Keys) -> tuple[list[str], dict[str, Any]]:
    """Check everything; return what is wrong, and what to remember when nothing is."""
    raw = release.read("manifest.json") or b""
    faults, kid, chain, sha256 = [], "", "", hashlib.sha256(raw).hexdigest()
    try:
        manifest = _manifest(raw or None, release.number, "manifest.json")
    except Wrong as error:
        return [str(error)], {}
    try:
        if (offered := release.read(release.keys)) is not None:
            keys = _merged(keys, _key_set(offered, "jwks.json, as published"))
        # A deemed time is not that of the signature: then only a revocation counts.
        deemed = manifest.get("simulated") is True or manifest.get("replayed") is True
        at = None if deemed else dt.datetime.fromisoformat(manifest["released_at"]).timestamp()
        kid = _signer((release.read("manifest.jws") or b"").decode("latin-1"), raw, keys, "lodemark-release", at)
    except Wrong as error:
        faults.append(f"manifest.jws, as signature of manifest.json: {error}")
    try:
        chain = _chain(release, manifest, sha256, trusted)
    except Wrong as error:
        faults.append(str(error))
    faults += _file_faults(release, manifest["files"])
    faults += release.added({*manifest["files"], "manifest.json", "manifest.jws"})
    if not faults:
        print(f"release {manifest['number']}: good; key {kid}; {len(manifest['files'])} files as signed; {chain}.")
        print(f"To build on it next time: --trusted {manifest['number']}:{sha256}")
    return faults, {"trusted": f"{manifest['number']}:{sha256}", "keys": list(keys.values())}


def main(argv: list[str] | None = None) -> int:
    """Verify what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="a release folder, or an http(s) address")
    parser.add_argument("--keys", type=Path, help="the publisher's key set, got once by a way that you trust")
    parser.add_argument("--trusted", help="NUMBER:SHA256 of a manifest that you trusted before")
    parser.add_argument("--state", type=Path, help="file that remembers the newest release that held, and the keys")
    asked = parser.parse_args(argv)
    trusted: dict[int, str] = {}
    try:
        state = _json(asked.state.read_bytes(), "--state") if asked.state and asked.state.exists() else {"keys": []}
        keys = _key_set(json.dumps(state).encode(), "--state")
        if asked.keys:
            given = _key_set(asked.keys.read_bytes(), "--keys")
            keys = _merged(given | keys, given)
        for told in filter(None, (asked.trusted, state.get("trusted"))):
            found = re.fullmatch(r"([1-9][0-9]{0,8}):([0-9a-f]{64})", str(told), re.ASCII)
            if not found or trusted.setdefault(int(found[1]), found[2]) != found[2]:
                raise Unusable(f"{told!r}: not NUMBER:SHA256, or --trusted and --state name two different releases")
        if not keys:
            raise Unusable("nothing to trust: name the publisher's key set, got by another way, with --keys")
        faults, state = _verify(Release(asked.target), trusted, keys)
        if asked.state and not faults:
            beside = asked.state.with_name(f".{asked.state.name}.{os.getpid()}.tmp")
            beside.write_text(json.dumps(state, indent=1) + "\n")
            os.replace(beside, asked.state)
    except (Wrong, Unusable, OSError) as error:
        print(f"could not check: {error}", file=sys.stderr)
        return 2
    if faults:
        print(*faults, f"NOT as signed, {len(faults)} found: do not use this release.", sep="\n", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
