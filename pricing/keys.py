"""Signing keys and detached signatures: Ed25519 (RFC 8032) as JWK and JWS (RFC 7515, 7517, 9864).

Private keys live under ``DATA/keys`` (mode 0600), one PEM file each, or in the environment
variable ``LODEMARK_SIGNING_KEY``. The public halves are the key set ``DATA/public/jwks.json``.
A key is named by its RFC 7638 thumbprint. Beside the members of RFC 7517 an entry bears those of
OpenID Federation's historical keys: ``nbf`` (signs from), ``exp`` (retired from; the end is open
without it) and ``revoked`` (``revoked_at``, ``reason``), times in seconds since 1970; and, where an
older key vouches for it, ``endorsement``: that key's signature of ``KID NBF``.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import fcntl
import math
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from pricing.errors import ReleaseError, VerificationError

if TYPE_CHECKING:
    from joserfc.jwk import OKPKey

# joserfc costs 0.2 s of CPU to import: the web, which reads releases and never signs, does without.

ALGORITHM: Final = "Ed25519"  # RFC 9864 deprecates the older name "EdDSA", which leaves the curve open
ENDORSED = "lodemark-key"  # the kind of signature by which one key vouches for the next
ENVIRONMENT = "LODEMARK_SIGNING_KEY"
_BASE64URL = re.compile(rb"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class SigningKey:
    """A private key that can sign; its secret part is never shown."""

    kid: str
    public: dict[str, str]
    private: OKPKey = field(repr=False, compare=False)


# --------------------------------------------------------------------------------- files on disk


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file in one step: a reader, and a machine that lost power, has the old or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    with open(beside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names inside a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for one writer; the system lets go of it when the process ends, however it ends.

    Raises
    ------
    ReleaseError
        Another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ReleaseError(f"{folder}: another process is writing here; try again when it is done") from error
        yield
    finally:
        os.close(handle)


# ------------------------------------------------------------------------------------ private keys


def parse_key(text: bytes, where: str) -> SigningKey:
    """Read a private Ed25519 key from PEM (PKCS #8) or JWK text.

    Raises
    ------
    ReleaseError
        It is neither, or another kind of key. The message names ``where``, never the text.
    """
    from joserfc.jwk import OKPKey

    try:
        key = OKPKey.import_key(orjson.loads(text) if text.lstrip().startswith(b"{") else text.strip() + b"\n")
        fits = key.is_private and key.curve_name == ALGORITHM
    except Exception:  # narrower would let a library's own message through, which may quote the secret
        fits = False
    if not fits:
        raise ReleaseError(f"{where}: not a private Ed25519 key as PEM or JWK; make one with `lodemark keys new`")
    # Anew from the bare key: a JWK may carry members, such as key_ops, that would change what it does.
    bare = OKPKey.import_key(key.raw_value)
    public = {name: str(value) for name, value in bare.as_dict(private=False).items()}
    return SigningKey(bare.thumbprint(), {**public, "kid": bare.thumbprint(), "use": "sig", "alg": ALGORITHM}, bare)


def _public(entry: Mapping[str, Any]) -> OKPKey:
    from joserfc.jwk import OKPKey

    return OKPKey.import_key({name: entry[name] for name in ("kty", "crv", "x")})


def read_secret(path: Path) -> bytes:
    """Read a file that only its owner, this process, may read.

    Raises
    ------
    ReleaseError
        The file cannot be read, belongs to another user, or others may read or write it.
    """
    try:
        with open(path, "rb") as file:
            facts = os.fstat(file.fileno())
            text = file.read()
    except OSError as error:
        raise ReleaseError(f"{path}: cannot be read ({error.strerror})") from error
    if facts.st_uid != os.geteuid():
        raise ReleaseError(
            f"{path}: belongs to user {facts.st_uid}, not to this process; `chown {os.geteuid()} {path}`"
        )
    if facts.st_mode & 0o077:
        raise ReleaseError(f"{path}: others can reach this private key; `chmod 600 {path}`")
    return text


def read_key(path: Path) -> SigningKey:
    """Read a private key file. Raises as ``read_secret``, and where the file holds no such key."""
    return parse_key(read_secret(path), str(path))


def new_key(folder: Path, now: dt.datetime, by: SigningKey | None = None) -> SigningKey:
    """Make a key: the private half under ``folder/keys``, then the public half into the key set.

    Parameters
    ----------
    folder
        The data folder.
    now
        Aware instant from which the key signs.
    by
        A key in use, which vouches for the new one: who trusts it then needs no other way to get the new one.
    """
    from joserfc.jwk import OKPKey

    pem = OKPKey.generate_key(ALGORITHM).as_pem(private=True)
    key = parse_key(pem, "new key")
    secrets = folder / "keys"
    secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(secrets / f"{key.kid}.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(handle)
    sync_folder(secrets)
    publish_key(folder, key, now, by)
    return key


def signing_key(folder: Path, environ: Mapping[str, str], now: dt.datetime) -> SigningKey:
    """Return the key that signs now: the environment's, else the newest usable one under ``folder/keys``.

    Raises
    ------
    ReleaseError
        There is none, it may not sign now, or nobody could verify it because the key set lacks it.
    """
    entries = {entry["kid"]: entry for entry in list_keys(folder)}
    if environ.get(ENVIRONMENT):
        key = parse_key(environ[ENVIRONMENT].encode(), ENVIRONMENT)
        if key.kid not in entries:
            raise ReleaseError(f"{ENVIRONMENT}: key {key.kid} is not in {_key_set_file(folder)}; add its public half")
        if refused := refusal(entries[key.kid], now):
            raise ReleaseError(f"{ENVIRONMENT}: {refused}")
        return key
    held = [entry for kid, entry in entries.items() if (folder / "keys" / f"{kid}.pem").exists()]
    usable = sorted((entry["nbf"], entry["kid"]) for entry in held if refusal(entry, now) is None)
    if not usable:
        why = "; ".join(str(refusal(entry, now)) for entry in held) or "none was made"
        raise ReleaseError(f"{folder / 'keys'}: no key can sign now ({why}); make one with `lodemark keys new`")
    path = folder / "keys" / f"{usable[-1][1]}.pem"
    key = read_key(path)
    if key.kid != usable[-1][1]:
        raise ReleaseError(f"{path}: holds key {key.kid}, not the one it is named for; put the right file back")
    return key


# ----------------------------------------------------------------------------------------- key set


def _key_set_file(folder: Path) -> Path:
    return folder / "public" / "jwks.json"


def load_key_set(source: Path | dict[str, Any]) -> dict[str, Any]:
    """Read and check a key set.

    Entries of other key types are left out, as RFC 7517 section 5 asks.

    Raises
    ------
    VerificationError
        Not a key set, a key is not named by its thumbprint or named twice, a time is not a whole
        number, or a private key stands in it.
    """
    name = str(source) if isinstance(source, Path) else "key set"
    try:
        value = orjson.loads(source.read_bytes()) if isinstance(source, Path) else source
    except OSError as error:
        raise VerificationError(f"{name}: cannot be read ({error.strerror})") from error
    except orjson.JSONDecodeError as error:
        raise VerificationError(f"{name}: not JSON ({error})") from error
    entries = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise VerificationError(f'{name}: not a key set, which is {{"keys": […]}}')
    ours = [entry for entry in entries if entry.get("kty") == "OKP" and entry.get("crv") == ALGORITHM]
    for place, entry in enumerate(ours):
        if fault := _fault(entry) or ("named twice" if entry["kid"] in [e["kid"] for e in ours[:place]] else ""):
            raise VerificationError(f"{name}: key {entry.get('kid')!r}: {fault}")
    return {"keys": ours}


def _fault(entry: dict[str, Any]) -> str:
    """Say what is wrong with one entry of a key set; empty when nothing is."""
    from joserfc.errors import JoseError

    if "d" in entry:
        return "holds the private half; take it out of every public place and revoke the key"
    try:
        thumbprint = _public(entry).thumbprint()
    except (JoseError, ValueError, TypeError, KeyError):
        return "x is not an Ed25519 public key"
    if entry.get("kid") != thumbprint:
        return f"kid is not its RFC 7638 thumbprint {thumbprint}"
    if type(entry.get("nbf")) is not int or type(entry.get("exp", 0)) is not int:
        return "nbf and exp are whole seconds since 1970"
    if "revoked" in entry and not isinstance(entry["revoked"], dict):
        return "revoked is an object with revoked_at and reason"
    return ""


def list_keys(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of the data folder's key set, oldest first; none when there is no key set."""
    path = _key_set_file(folder)
    entries = load_key_set(path)["keys"] if path.exists() else []
    return sorted(entries, key=lambda entry: (entry["nbf"], entry["kid"]))


def publish_key(folder: Path, key: SigningKey, now: dt.datetime, by: SigningKey | None = None) -> None:
    """Add the public half of a key to the key set, endorsed by another; one that is there already stays as it is."""
    entry: dict[str, Any] = {**key.public, "nbf": math.floor(now.timestamp())}
    if by is not None:
        entry["endorsement"] = sign(f"{key.kid} {entry['nbf']}".encode(), by, ENDORSED).decode()

    def add(entries: dict[str, dict[str, Any]]) -> None:
        entries.setdefault(key.kid, entry)

    _change(folder, add)


def retire(folder: Path, kid: str, now: dt.datetime) -> None:
    """End a key's use: what it signed before ``now`` stays valid. An earlier end is kept.

    Raises
    ------
    ReleaseError
        The key set has no such key.
    """

    def end(entries: dict[str, dict[str, Any]]) -> None:
        entry = _entry(entries, kid)
        entry["exp"] = min(math.ceil(now.timestamp()), entry.get("exp", math.inf))

    _change(folder, end)


def revoke(folder: Path, kid: str, now: dt.datetime, reason: str) -> None:
    """Withdraw all trust in a key, for what it signed before too. The first revocation is kept.

    Raises
    ------
    ReleaseError
        The key set has no such key.
    """

    def withdraw(entries: dict[str, dict[str, Any]]) -> None:
        _entry(entries, kid).setdefault("revoked", {"revoked_at": math.floor(now.timestamp()), "reason": reason})

    _change(folder, withdraw)


def _entry(entries: dict[str, dict[str, Any]], kid: str) -> dict[str, Any]:
    if kid not in entries:
        raise ReleaseError(f"no key {kid} in the key set; it has {', '.join(sorted(entries)) or 'none'}")
    return entries[kid]


def _change(folder: Path, change: Callable[[dict[str, dict[str, Any]]], None]) -> None:
    path = _key_set_file(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        entries = {entry["kid"]: entry for entry in list_keys(folder)}
        change(entries)
        text = {"keys": sorted(entries.values(), key=lambda entry: (entry["nbf"], entry["kid"]))}
        write_durably(path, orjson.dumps(text, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n")


def refusal(entry: Mapping[str, Any], at: dt.datetime | None) -> str | None:
    """Say why a key of the set may not vouch for something signed at an instant; None when it may.

    ``at`` is None where no real time of signing is known: then only a revocation counts.
    """
    if "revoked" in entry:
        return f"key {entry['kid']} is revoked ({entry['revoked'].get('reason') or 'no reason given'})"
    if at is not None and at.timestamp() < entry["nbf"]:
        return f"key {entry['kid']} signs from {_instant(entry['nbf'])} on, this is of {at.isoformat()}"
    if at is not None and "exp" in entry and at.timestamp() >= entry["exp"]:
        return f"key {entry['kid']} was retired at {_instant(entry['exp'])}, this is of {at.isoformat()}"
    return None


def _instant(seconds: int) -> str:
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"


# --------------------------------------------------------------------------------------- signatures


def sign(payload: bytes, key: SigningKey, typ: str) -> bytes:
    """Return a detached compact JWS, ``header..signature`` (RFC 7515 appendix F), without a line end.

    ``typ`` says what is signed, so that a signature of one kind never passes for another.
    """
    from joserfc import jws

    header = {"alg": ALGORITHM, "kid": key.kid, "typ": typ}
    whole = jws.serialize_compact(header, payload, key.private, algorithms=[ALGORITHM])
    return jws.detach_content(whole).encode("ascii")


def check(signature: bytes, payload: bytes, key_set: Mapping[str, Any], *, typ: str, at: dt.datetime | None) -> str:
    """Verify a detached compact JWS and return the name of the key that made it.

    Parameters
    ----------
    key_set
        As ``load_key_set`` returns it.
    at
        When it was signed; None where that is not a real time (see ``refusal``).

    Raises
    ------
    VerificationError
        Any byte is not as ``sign`` writes it, the algorithm or kind is another, the key is unknown,
        not yet valid, retired or revoked, or the signature is of other bytes.
    """
    from joserfc import jws
    from joserfc.errors import JoseError

    header = _header(signature)
    if header.get("alg") != ALGORITHM:
        raise VerificationError(f"algorithm {header.get('alg')!r} is not accepted, only {ALGORITHM}")
    if set(header) != {"alg", "kid", "typ"} or header["typ"] != typ:
        raise VerificationError(f"the header is not that of a {typ}: it has exactly alg, kid and typ {typ!r}")
    entry = next((entry for entry in key_set["keys"] if entry["kid"] == header["kid"]), None)
    if entry is None:
        raise VerificationError(f"key {header['kid']!r} is not in the key set")
    if refused := refusal(entry, at):
        raise VerificationError(refused)
    try:
        jws.deserialize_compact(signature, _public(entry), algorithms=[ALGORITHM], payload=payload)
    except (JoseError, ValueError) as error:
        raise VerificationError("the signature is not of these bytes by this key") from error
    return str(entry["kid"])


def _header(signature: bytes) -> dict[str, Any]:
    """Read the protected header; every part must be spelt the one way that RFC 7515 section 2 allows."""
    parts = signature.split(b".")
    if len(parts) != 3 or parts[1]:
        raise VerificationError("not a detached signature, which is header..signature")
    for part in (parts[0], parts[2]):
        text = part + b"=" * (-len(part) % 4)
        # Unused trailing bits may differ and still decode alike, so the text is written anew and compared.
        if (
            not _BASE64URL.fullmatch(part)
            or len(part) % 4 == 1
            or base64.urlsafe_b64encode(base64.urlsafe_b64decode(text)) != text
        ):
            raise VerificationError("not canonical base64url, without padding, spaces or spare bits")
    try:
        header = orjson.loads(base64.urlsafe_b64decode(parts[0] + b"=" * (-len(parts[0]) % 4)))
    except orjson.JSONDecodeError as error:
        raise VerificationError("the header is not JSON") from error
    if not isinstance(header, dict):
        raise VerificationError("the header is not an object")
    return header
