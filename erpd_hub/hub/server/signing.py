"""Signed upload links: the client sends LFS bytes without its token, so the link itself carries the permission."""

import hmac
import os
import secrets
import time
from hashlib import sha256
from pathlib import Path

LINK_LIFETIME_S = 6 * 3600
"""Long enough for one slow upload of a large checkpoint."""


class Signer:
    """Signs (oid, size, expiry) with a secret kept in the Hub's root."""

    def __init__(self, root: Path) -> None:
        self._key = _secret(root / "secret")

    def query(self, oid: str, size: int) -> str:
        """The query string that permits uploading `size` bytes hashing to `oid`."""
        expires = int(time.time()) + LINK_LIFETIME_S
        return f"size={size}&expires={expires}&signature={self._sign(oid, size, expires)}"

    def allows(self, oid: str, *, size: str, expires: str, signature: str) -> bool:
        if not (size.isascii() and size.isdigit() and expires.isascii() and expires.isdigit()):
            return False
        expected = self._sign(oid, int(size), int(expires))
        return hmac.compare_digest(expected.encode(), signature.encode()) and int(expires) >= time.time()

    def _sign(self, oid: str, size: int, expires: int) -> str:
        return hmac.new(self._key, f"upload {oid} {size} {expires}".encode(), sha256).hexdigest()


def _secret(path: Path) -> bytes:
    """The stored key, created readable by its owner only."""
    if not path.exists():
        temporary = path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    return path.read_bytes()
