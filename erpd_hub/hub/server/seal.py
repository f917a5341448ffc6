"""Hashes of the files that nobody writes to while no server runs, noted as the last one closes them.

With them a check finds any flipped byte of those files, also where sqlite keeps nothing. A killed server leaves none.
Whoever opens the root next compares them once more and breaks the seal; what did not match stays on record in a file,
which people remove.
"""

import hashlib
import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from erpd_hub.hub.server.blobs import sync_folder

logger = logging.getLogger(__name__)

SEALED = ("hub.sqlite", "secret")
SEAL = "seal.json"
RECORD = "altered"
"""A line of time and name for each file that a server found altered as it started."""
LONGEST_BYTES = 2 << 30
"""Of a file that is still hashed; a server should not take longer than seconds to leave."""


def make_seal(root: Path) -> None:
    """Note the hashes, once the database is closed and all of its log is in it."""
    if (root / "hub.sqlite-wal").exists():
        return
    files = [path for path in map(root.joinpath, SEALED) if path.exists() and path.stat().st_size <= LONGEST_BYTES]
    temporary = root / f"{SEAL}.new"
    try:
        with temporary.open("w") as file:
            json.dump({path.name: _digest(path) for path in files}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(root / SEAL)
    except OSError as error:  # a full disk: there is no seal then
        logger.warning("no seal: %s", error)
        temporary.unlink(missing_ok=True)


def break_seal(root: Path) -> None:
    """Before anything is written; what was altered is logged, and noted for every later check."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for name in altered_files(root):
        logger.error("%s: is not as the last server left it; run erpd-hub hub fsck", name)
        with (root / RECORD).open("a") as file:
            file.write(f"{now} {name}\n")
            file.flush()
            os.fsync(file.fileno())
    (root / SEAL).unlink(missing_ok=True)
    sync_folder(root)


def recorded(root: Path) -> list[str]:
    """The lines of the record."""
    path = root / RECORD
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def altered_files(root: Path) -> list[str]:
    """Sealed files that are not as they were left, the seal itself among them."""
    if not (root / SEAL).exists():
        return []
    try:
        sealed = json.loads((root / SEAL).read_text())
        altered = [name for name in SEALED if name in sealed and _digest(root / name) != sealed.pop(name)]
    except (ValueError, AttributeError, TypeError, OSError):
        return [SEAL]
    return altered + [SEAL] * bool(sealed.keys() - set(SEALED))


def _digest(path: Path) -> str | None:
    """None for a file that is not there."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
