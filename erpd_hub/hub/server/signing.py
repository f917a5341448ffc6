"""Signed upload links: the client sends LFS bytes without its token, so the link itself carries the permission."""

import hmac
import os
import re
import secrets
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlencode

LINK_LIFETIME_S = 6 * 3600
"""Long enough for one slow upload of a large checkpoint."""

Purpose = Literal["session", "xet"]

_NUMBER = re.compile(r"[0-9]{1,15}")


class Upload(NamedTuple):
    """What a link permits: an account to send the content of one object for one repository."""

    repo: int
    account: str
    oid: str
    size: int


class Signer:
    """Signs uploads and tokens, with their expiry, by a secret kept in the Hub's root."""

    def __init__(self, root: Path) -> None:
        self._key = _secret(root / "secret")

    def query(self, upload: Upload, lifetime_s: int = LINK_LIFETIME_S) -> str:
        """The query string that permits an upload."""
        expires = int(time.time()) + lifetime_s
        fields = {"repo": upload.repo, "account": upload.account, "size": upload.size, "expires": expires}
        return urlencode({**fields, "signature": self._sign(upload, expires)})

    def permitted(self, oid: str, query: Mapping[str, str]) -> Upload | None:
        """The upload that a link's query permits, None when it is not ours or has expired."""
        repo, size, expires = (query.get(name, "") for name in ("repo", "size", "expires"))
        if not all(_NUMBER.fullmatch(text) for text in (repo, size, expires)):
            return None
        upload = Upload(int(repo), query.get("account", ""), oid, int(size))
        expected = self._sign(upload, int(expires)).encode()
        good = hmac.compare_digest(expected, query.get("signature", "").encode())
        return upload if good and int(expires) >= time.time() else None

    def token(self, purpose: Purpose, owner: str, lifetime_s: int) -> tuple[str, int]:
        """A token that names its owner and is good for one purpose, and when it expires (Unix seconds)."""
        expires = int(time.time()) + lifetime_s
        return f"{expires}.{self._sign_token(purpose, owner, expires)}.{owner}", expires

    def owner(self, purpose: Purpose, token: str) -> str | None:
        """Whose token it is, None when it is not ours, for something else or has expired."""
        expires, _, rest = token.partition(".")
        signature, _, owner = rest.partition(".")
        if not (expires.isascii() and expires.isdigit()) or len(expires) > 12:
            return None
        good = hmac.compare_digest(self._sign_token(purpose, owner, int(expires)).encode(), signature.encode())
        return owner if good and int(expires) >= time.time() else None

    def _sign(self, upload: Upload, expires: int) -> str:
        text = f"upload {upload.repo} {upload.account} {upload.oid} {upload.size} {expires}"
        return hmac.new(self._key, text.encode("utf-8", "replace"), sha256).hexdigest()

    def _sign_token(self, purpose: Purpose, owner: str, expires: int) -> str:
        return hmac.new(self._key, f"{purpose} {owner} {expires}".encode("utf-8", "replace"), sha256).hexdigest()


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
