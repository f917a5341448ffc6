"""The sqlite file: one connection a thread, one writer at a time."""

import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from weakref import WeakSet

from erpd_hub.hub.server import schema, spare
from erpd_hub.hub.server.seal import break_seal, make_seal

BUSY_TIMEOUT_S = 30.0


@contextmanager
def open_unchanged(path: Path, *, served: bool) -> Iterator[sqlite3.Connection]:
    """For reading only. sqlite keeps an index beside a database that has a log; so one that lies where nothing can be
    written is read as a file that nobody changes, or, with a log, from a copy."""
    options = "mode=ro"
    with ExitStack() as stack:
        if not served and not os.access(path.parent, os.W_OK):
            log = path.with_name(f"{path.name}-wal")
            if log.exists():
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                path = Path(shutil.copy(path, folder))
                shutil.copy(log, folder)
            else:
                options += "&immutable=1"
        uri = f"{path.absolute().as_uri()}?{options}"
        yield stack.enter_context(closing(sqlite3.connect(uri, uri=True)))


class _Connection(sqlite3.Connection):
    """One that may be referred to weakly: a thread's own is closed with the thread, and threads come and go."""


class Database:
    """Connections to one sqlite file in WAL mode; readers never wait for the writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._writer = threading.Lock()
        self._opened: WeakSet[_Connection] = WeakSet()
        spare.release(path.parent)
        break_seal(path.parent)
        with self.write() as db:
            schema.upgrade(db)
        spare.keep(path.parent)

    def read(self) -> sqlite3.Connection:
        """This thread's connection; each statement sees the latest committed state."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        return connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction: everything done in the block is committed, or nothing if it raises."""
        connection = self.read()
        with self._writer:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """This thread's reads in the block all see the same state."""
        connection = self.read()
        connection.execute("BEGIN")
        try:
            yield
        finally:
            connection.execute("COMMIT")

    def close(self) -> None:
        """Close every thread's connection; no request may be running."""
        for connection in list(self._opened):
            connection.close()
        make_seal(self._path.parent)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256,
            factory=_Connection,
        )  # fmt: skip
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA recursive_triggers = ON")  # or a row replaced would not leave its table's total
        connection.execute("PRAGMA trusted_schema = ON")  # the triggers call a function of ours
        connection.create_function("toggled", -1, schema.toggled, deterministic=True)
        self._opened.add(connection)
        return connection
