"""Room that the Hub keeps for itself on its disk, so that one that fills up can still be started, read and deleted
from: sqlite writes to its log and index for any of it."""

import logging
import os
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)

FILE = "spare"
BYTES = 512 << 10
"""A deletion takes some 20 KB of sqlite's log."""
ENOUGH = 4 * BYTES
"""Free bytes from which on some are kept; below that all of them are for the server that starts."""


def release(root: Path) -> None:
    (root / FILE).unlink(missing_ok=True)


def keep(root: Path) -> None:
    """Take room for the next start, where there is some."""
    if shutil.disk_usage(root).free < ENOUGH:
        logger.warning("%s: its disk is full; reading and deleting go on until there is space", root)
        return
    (root / FILE).write_bytes(os.urandom(BYTES))  # zeros would take no room on a disk that packs
