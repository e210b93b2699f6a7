from __future__ import annotations

import base64
import datetime as dt
import json
import os
import stat
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pricing import keys
from pricing.errors import ReleaseError, VerificationError

NOW = dt.datetime(2026, 3, 2, 14, 0, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
# RFC 8032 section 7.1 test 1 and RFC 8037 appendix A give this seed, public key and thumbprint.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


JWK = json.dumps({"kty": "OKP", "crv": "Ed25519", "d": b64(SEED), "x": b64(PUBLIC)})
KEY = keys.parse_key(JWK.encode(), "test")


def key_set(**more: object) -> dict[str, object]:
    return {"keys": [{**KEY.public, "nbf": int(NOW.timestamp()), **more}]}


def test_the_key_of_rfc_8037_has_the_thumbprint_that_the_rfc_prints() -> None:
    assert KEY.kid == THUMBPRINT
    assert KEY.public["x"] == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"


def test_pem_and_jwk_of_one_key_are_the_same_key() -> None:
    assert keys.parse_key(KEY.private.as_pem(private=True), "test") == KEY


def test_a_jwk_that_restricts_itself_to_verifying_still_signs() -> None:
    odd = json.dumps({**json.loads(JWK), "key_ops": ["verify"], "alg": "EdDSA", "kid": "mine"})
    key = keys.parse_key(odd.encode(), "test")
    assert key == KEY
    assert keys.sign(b"x", key, "t") == keys.sign(b"x", KEY, "t")


def test_a_signature_verifies_with_nothing_but_cryptography() -> None:
    payload = b"any bytes \xff"
    header, empty, signature = keys.sign(payload, KEY, "lodemark-test").decode().split(".")
    assert empty == ""
    signed = f"{header}.{b64(payload)}".encode()
    raw = base64.urlsafe_b64decode(signature + "==")
    Ed25519PublicKey.from_public_bytes(PUBLIC).verify(raw, signed)
    assert raw == Ed25519PrivateKey.from_private_bytes(SEED).sign(signed)
    with pytest.raises(InvalidSignature):
        Ed25519PublicKey.from_public_bytes(PUBLIC).verify(raw, signed + b"A")
    assert json.loads(base64.urlsafe_b64decode(header + "==")) == {
        "alg": "Ed25519",
        "kid": THUMBPRINT,
        "typ": "lodemark-test",
    }


def test_a_signature_of_a_large_payload_verifies() -> None:
    payload = os.urandom(1_000_000)
    assert keys.check(keys.sign(payload, KEY, "t"), payload, key_set(), typ="t", at=NOW) == KEY.kid


def test_every_other_byte_string_of_the_signature_fails() -> None:
    signature = keys.sign(b"payload", KEY, "t")
    for place in range(len(signature)):
        for other in {b"A", b"B", b".", b"=", b" ", b"\n", b"+", b"\x00", b"\xff", b""}:
            changed = signature[:place] + other + signature[place + 1 :]
            if changed != signature:
                with pytest.raises(VerificationError):
                    keys.check(changed, b"payload", key_set(), typ="t", at=NOW)
    for changed in (signature + b"=", signature + b"==", signature + b"\n", b" " + signature, b"", b".", b".."):
        with pytest.raises(VerificationError):
            keys.check(changed, b"payload", key_set(), typ="t", at=NOW)


def test_a_last_character_that_decodes_alike_is_refused() -> None:
    signature = keys.sign(b"payload", KEY, "t").decode()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    raw = base64.urlsafe_b64decode(signature.split(".")[2] + "==")
    twins = [signature[:-1] + letter for letter in alphabet if letter != signature[-1]]
    alike = [twin for twin in twins if base64.urlsafe_b64decode(twin.split(".")[2] + "==") == raw]
    assert len(alike) == 15
    for twin in alike:
        with pytest.raises(VerificationError, match="canonical base64url"):
            keys.check(twin.encode(), b"payload", key_set(), typ="t", at=NOW)


def test_a_signature_plus_the_group_order_is_refused() -> None:
    head, _, tail = keys.sign(b"payload", KEY, "t").decode().split(".")
    raw = base64.urlsafe_b64decode(tail + "==")
    order = 2**252 + 27742317777372353535851937790883648493  # RFC 8032 section 5.1
    malleable = raw[:32] + (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")
    with pytest.raises(VerificationError, match="not of these bytes"):
        keys.check(f"{head}..{b64(malleable)}".encode(), b"payload", key_set(), typ="t", at=NOW)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "EdDSA", "ed25519", None, ["Ed25519"]])
def test_any_other_algorithm_is_refused(algorithm: object) -> None:
    header = b64(json.dumps({"alg": algorithm, "kid": KEY.kid, "typ": "t"}).encode())
    raw = Ed25519PrivateKey.from_private_bytes(SEED).sign(f"{header}.{b64(b'payload')}".encode())
    with pytest.raises(VerificationError, match="only Ed25519"):
        keys.check(f"{header}..{b64(raw)}".encode(), b"payload", key_set(), typ="t", at=NOW)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "Ed25519", "kid": THUMBPRINT, "typ": "other"},
        {"alg": "Ed25519", "kid": THUMBPRINT},
        {"alg": "Ed25519", "kid": THUMBPRINT, "typ": "t", "crit": ["b64"], "b64": False},
        {"alg": "Ed25519", "kid": THUMBPRINT, "typ": "t", "jwk": {"kty": "OKP"}},
    ],
)
def test_a_validly_signed_header_of_another_shape_is_refused(header: dict[str, object]) -> None:
    text = b64(json.dumps(header).encode())
    raw = Ed25519PrivateKey.from_private_bytes(SEED).sign(f"{text}.{b64(b'payload')}".encode())
    with pytest.raises(VerificationError, match="exactly alg, kid and typ"):
        keys.check(f"{text}..{b64(raw)}".encode(), b"payload", key_set(), typ="t", at=NOW)


@pytest.mark.parametrize("header", [b"[1]", b"null", b"\xff", b'{"alg":'])
def test_a_header_that_is_no_object_is_refused(header: bytes) -> None:
    with pytest.raises(VerificationError, match="header"):
        keys.check(f"{b64(header)}..{b64(bytes(64))}".encode(), b"payload", key_set(), typ="t", at=NOW)


def test_a_key_counts_from_its_first_second_to_the_one_before_its_retirement() -> None:
    signature = keys.sign(b"p", KEY, "t")
    known = key_set(exp=int((NOW + DAY).timestamp()))
    for at in (NOW, NOW + DAY - dt.timedelta(seconds=1), None):
        assert keys.check(signature, b"p", known, typ="t", at=at) == KEY.kid
    with pytest.raises(VerificationError, match="signs from 2026-03-02"):
        keys.check(signature, b"p", known, typ="t", at=NOW - dt.timedelta(seconds=1))
    with pytest.raises(VerificationError, match="retired at 2026-03-03"):
        keys.check(signature, b"p", known, typ="t", at=NOW + DAY)


@pytest.mark.parametrize("at", [NOW, None])
def test_a_revoked_key_vouches_for_nothing(at: dt.datetime | None) -> None:
    known = key_set(revoked={"revoked_at": int((NOW + DAY).timestamp()), "reason": "laptop stolen"})
    with pytest.raises(VerificationError, match=r"revoked \(laptop stolen\)"):
        keys.check(keys.sign(b"p", KEY, "t"), b"p", known, typ="t", at=at)


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(VerificationError, match=f"{THUMBPRINT}.*not in the key set"):
        keys.check(keys.sign(b"p", KEY, "t"), b"p", {"keys": []}, typ="t", at=NOW)


def test_a_new_key_is_private_on_disk_and_public_in_the_key_set(tmp_path: Path) -> None:
    key = keys.new_key(tmp_path, NOW)
    path = tmp_path / "keys" / f"{key.kid}.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    published = json.loads((tmp_path / "public" / "jwks.json").read_text())
    assert published == {"keys": [{**key.public, "nbf": int(NOW.timestamp())}]}
    assert set(key.public) == {"kty", "crv", "x", "kid", "use", "alg"}
    assert keys.read_key(path) == key
    assert keys.signing_key(tmp_path, {}, NOW) == key


def test_a_private_key_never_shows_in_text(tmp_path: Path) -> None:
    assert b64(SEED) not in repr(KEY)
    path = tmp_path / "key"
    path.write_text(JWK.replace("Ed25519", "Ed448"))
    path.chmod(0o600)
    with pytest.raises(ReleaseError, match="not a private Ed25519 key") as caught:
        keys.read_key(path)
    assert b64(SEED) not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_file_that_others_can_reach_is_refused_with_the_mend(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.write_text(JWK)
    path.chmod(mode)
    with pytest.raises(ReleaseError, match=f"chmod 600 {path}"):
        keys.read_key(path)
    path.chmod(0o600)
    assert keys.read_key(path) == KEY


def test_a_key_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    path.write_text(JWK)
    path.chmod(0o600)
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(ReleaseError, match=f"chown {other} "):
        keys.read_key(path)


@pytest.mark.parametrize("text", ["", "{}", "not a key", '{"kty":"OKP","crv":"Ed25519","x":"AAAA"}'])
def test_text_that_is_no_private_key_is_refused(text: str) -> None:
    with pytest.raises(ReleaseError, match="somewhere: not a private Ed25519 key"):
        keys.parse_key(text.encode(), "somewhere")


def test_a_public_key_alone_cannot_sign() -> None:
    with pytest.raises(ReleaseError, match="not a private"):
        keys.parse_key(json.dumps(KEY.public).encode(), "somewhere")


def test_the_environments_key_wins_over_the_file(tmp_path: Path) -> None:
    file_key = keys.new_key(tmp_path, NOW)
    environ = {keys.ENVIRONMENT: JWK}
    with pytest.raises(ReleaseError, match=f"{THUMBPRINT} is not in"):
        keys.signing_key(tmp_path, environ, NOW)
    keys.publish_key(tmp_path, KEY, NOW)
    assert keys.signing_key(tmp_path, environ, NOW) == KEY
    assert keys.signing_key(tmp_path, {}, NOW) == file_key
    keys.retire(tmp_path, KEY.kid, NOW)
    with pytest.raises(ReleaseError, match="LODEMARK_SIGNING_KEY.*retired"):
        keys.signing_key(tmp_path, environ, NOW)


def test_the_newest_usable_key_signs(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="lodemark keys new"):
        keys.signing_key(tmp_path, {}, NOW)
    old, new = keys.new_key(tmp_path, NOW), keys.new_key(tmp_path, NOW + DAY)
    assert [entry["kid"] for entry in keys.list_keys(tmp_path)] == [old.kid, new.kid]
    assert keys.signing_key(tmp_path, {}, NOW) == old
    assert keys.signing_key(tmp_path, {}, NOW + DAY) == new
    keys.retire(tmp_path, old.kid, NOW + DAY)
    keys.revoke(tmp_path, new.kid, NOW + DAY, "test")
    with pytest.raises(ReleaseError, match=f"{old.kid} was retired.*{new.kid} is revoked"):
        keys.signing_key(tmp_path, {}, NOW + 2 * DAY)


def test_a_private_key_whose_public_half_was_never_published_does_not_sign(tmp_path: Path) -> None:
    key = keys.new_key(tmp_path, NOW)
    (tmp_path / "public" / "jwks.json").unlink()
    with pytest.raises(ReleaseError, match="no key can sign"):
        keys.signing_key(tmp_path, {}, NOW)
    keys.publish_key(tmp_path, key, NOW)
    assert keys.signing_key(tmp_path, {}, NOW) == key


def test_the_first_retirement_and_the_first_revocation_stay(tmp_path: Path) -> None:
    key = keys.new_key(tmp_path, NOW)
    for when in (NOW + DAY, NOW + 2 * DAY):
        keys.retire(tmp_path, key.kid, when)
        keys.revoke(tmp_path, key.kid, when, when.isoformat())
    (entry,) = keys.list_keys(tmp_path)
    first = int((NOW + DAY).timestamp())
    assert entry["exp"] == first
    assert entry["revoked"] == {"revoked_at": first, "reason": (NOW + DAY).isoformat()}
    with pytest.raises(ReleaseError, match="no key nobody"):
        keys.retire(tmp_path, "nobody", NOW)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "not a key set"),
        ({"keys": [1]}, "not a key set"),
        ({"keys": [{**KEY.public, "nbf": 0, "d": b64(SEED)}]}, "private half"),
        ({"keys": [{**KEY.public, "nbf": 0, "kid": "mine"}]}, "thumbprint"),
        ({"keys": [{**KEY.public, "nbf": 0, "x": "AAAA"}]}, "not an Ed25519 public key"),
        ({"keys": [KEY.public]}, "nbf and exp"),
        ({"keys": [{**KEY.public, "nbf": 0, "exp": "2026"}]}, "nbf and exp"),
        ({"keys": [{**KEY.public, "nbf": 0, "revoked": True}]}, "revoked is an object"),
        ({"keys": [{**KEY.public, "nbf": 0}, {**KEY.public, "nbf": 1}]}, "named twice"),
    ],
)
def test_a_key_set_with_a_fault_is_refused(tmp_path: Path, value: object, message: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(value))
    with pytest.raises(VerificationError, match=message):
        keys.load_key_set(path)


def test_keys_of_other_kinds_are_left_out_of_a_key_set() -> None:
    ours = {**KEY.public, "nbf": 0}
    assert keys.load_key_set({"keys": [{"kty": "EC", "crv": "P-256"}, ours]}) == {"keys": [ours]}


def test_a_missing_or_broken_key_set_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"absent\.json: cannot be read"):
        keys.load_key_set(tmp_path / "absent.json")
    (tmp_path / "jwks.json").write_text("{")
    with pytest.raises(VerificationError, match=r"jwks\.json: not JSON"):
        keys.load_key_set(tmp_path / "jwks.json")


def test_a_second_writer_is_turned_away(tmp_path: Path) -> None:
    message = "another process is writing"
    with keys.locked(tmp_path), pytest.raises(ReleaseError, match=message), keys.locked(tmp_path):
        pass
    with keys.locked(tmp_path):
        pass


def test_an_old_key_vouches_for_exactly_the_new_one(tmp_path: Path) -> None:
    old = keys.new_key(tmp_path, NOW)
    new = keys.new_key(tmp_path, NOW + DAY, old)
    first, second = keys.list_keys(tmp_path)
    assert "endorsement" not in first
    made, said = second["endorsement"].encode(), f"{new.kid} {int((NOW + DAY).timestamp())}".encode()
    assert keys.check(made, said, {"keys": [first]}, typ=keys.ENDORSED, at=NOW + DAY) == old.kid
    with pytest.raises(VerificationError):
        keys.check(made, said + b"0", {"keys": [first]}, typ=keys.ENDORSED, at=NOW + DAY)
