"""The archive of documents: the bytes of each source as they were received, named by their SHA-256."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import secrets
import zlib
from contextlib import suppress
from pathlib import Path

from pricing.errors import StoreError


class Archive:
    """Documents by the SHA-256 of their bytes: ``root/ab/cdef….gz``.

    A file is written beside its final name and renamed, so a name in the archive always stands for
    a whole document. A run that was killed may leave a ``.….part`` file, which nothing reads.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, raw: bytes) -> str:
        """Store bytes and return their SHA-256. A damaged copy that is already there is replaced.

        Raises StoreError, naming the file, when it cannot be written.
        """
        sha256 = hashlib.sha256(raw).hexdigest()
        path = self._path(sha256)
        if self._intact(sha256):
            return sha256
        part = path.with_name(f".{path.stem[:16]}-{secrets.token_hex(8)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("xb") as file:
                # No name and no time inside: the same bytes give the same file.
                with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                    packed.write(raw)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            _sync_folder(path.parent)
            _sync_folder(self.root)
        except OSError as error:
            raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        return sha256

    def get(self, sha256: str) -> bytes:
        """Return a document's bytes. Raises StoreError, naming the file, when absent or damaged."""
        path = self._path(sha256)
        try:
            raw = gzip.decompress(path.read_bytes())
        except FileNotFoundError as error:
            raise StoreError(f"{path}: no such document in the archive") from error
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise StoreError(f"{path}: damaged ({error}); restore it from a backup, or fetch it again") from error
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from error
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise StoreError(
                f"{path}: damaged (its bytes have another SHA-256); restore it from a backup, or fetch it again"
            )
        return raw

    def __contains__(self, sha256: object) -> bool:
        return isinstance(sha256, str) and _is_digest(sha256) and self._path(sha256).is_file()

    def _path(self, sha256: str) -> Path:
        if not _is_digest(sha256):
            raise StoreError(f"{sha256!r} does not name a document: expected 64 hexadecimal digits in lower case")
        return self.root / sha256[:2] / f"{sha256[2:]}.gz"

    def _intact(self, sha256: str) -> bool:
        if sha256 not in self:
            return False
        try:
            self.get(sha256)
        except StoreError:
            return False
        return True


def _is_digest(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
