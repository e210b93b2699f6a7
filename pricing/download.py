"""Fetch a published release from its address, so that it can be verified at home."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

from pricing.errors import ReleaseError

if TYPE_CHECKING:
    from pricing.pipeline import Track

SECONDS = 30


def download(address: str, into: Path, track: Track, *, chain: bool) -> tuple[Path, Path]:
    """Fetch all files of one release, the manifests before it, and the key set.

    Parameters
    ----------
    address : str
        ``https://host/v1/releases/17``.
    into : Path
        An empty folder.
    chain : bool
        Fetch the earlier manifests too.

    Returns
    -------
    folder, key_set : Path

    Raises
    ------
    ReleaseError
        When an address does not answer as a release does.
    """
    base = address.rstrip("/").removesuffix("/manifest.json")
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(base))
    with requests.Session() as session:
        key_set = into / "jwks.json"
        key_set.write_bytes(_get(session, f"{origin}/.well-known/jwks.json"))
        raw = _get(session, f"{base}/manifest.json")
        manifest = _manifest(raw, base)
        folder = _folder(into, manifest["number"])
        for name in track(["manifest.jws", *manifest["files"]], f"release {manifest['number']}"):
            path = (folder / name).resolve()
            if not path.is_relative_to(folder.resolve()):
                raise ReleaseError(f"{base}: the manifest names a file outside the release: {name!r}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_get(session, f"{base}/{name}"))
        (folder / "manifest.json").write_bytes(raw)
        before = manifest["previous"]
        while chain and before:
            earlier = f"{base.rsplit('/', 1)[0]}/{before['number']}/manifest.json"
            raw = _get(session, earlier)
            (_folder(into, before["number"]) / "manifest.json").write_bytes(raw)
            before = _manifest(raw, earlier)["previous"]
    return folder, key_set


def _folder(into: Path, number: int) -> Path:
    folder = into / "releases" / f"{number:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _manifest(raw: bytes, where: str) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(raw)
        int(manifest["number"])
    except (ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"{where}: not a release's manifest: {error}") from error
    return manifest


def _get(session: requests.Session, address: str) -> bytes:
    try:
        # the bytes as stored: a .json.gz file is a file of its own, not a transfer encoding
        answer = session.get(address, timeout=SECONDS, headers={"Accept-Encoding": "identity"})
        answer.raise_for_status()
    except requests.RequestException as error:
        raise ReleaseError(f"{address}: {error}") from error
    return answer.content
