"""The embedded Hub, started on demand: a server process that lives exactly as long as somebody uses it.

Every client holds a shared lock on one file; the server ends when it can take that lock for itself. The kernel
releases the locks of a killed client, so a dead run leaves no server behind, and a second run joins the first one's.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import IO

from erpd_hub.errors import ConfigError, HubError
from erpd_hub.hub.server.lifecycle import is_served
from erpd_hub.hub.tokens import token_variable

START_TIMEOUT = 60.0
"""Seconds; a busy machine may take several to import the server."""

FULL_BYTES = 16 << 10
"""Free on a disk on which a server can neither start nor say why."""

START_ATTEMPTS = 5
"""A server killed from outside while it starts (out of memory, somebody's SIGKILL) is started again so often."""


class EmbeddedHub:
    """A client's hold on the embedded Hub below `root`. Use as a context manager, or keep it for the process's life."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._hold: IO[str] | None = None

    def __enter__(self) -> "EmbeddedHub":
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._hold = (self.root / "clients.lock").open("w")
        fcntl.flock(self._hold, fcntl.LOCK_SH)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._hold is not None:
            self._hold.close()
            self._hold = None

    def ensure(self) -> str:
        """The URL of a live server; starts one when there is none.

        Raises:
            ConfigError: somebody serves this root with accounts, whose user nobody is here.
            HubError: it does not come up; the message ends with what it said.
        """
        with (self.root / "start.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return self._live_url() or self._start()

    def _live_url(self) -> str | None:
        if not is_served(self.root):  # in a copy of a root, the URL left behind is another server's
            return None
        try:
            url = str(json.loads(self._ready_file.read_text())["url"])
            with urllib.request.urlopen(f"{url}/api/whoami-v2", timeout=10):
                return url
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.UNAUTHORIZED:
                told = f"{self.root}: expected to join a Hub without accounts, got one that is served with accounts"
                raise ConfigError(f"{told}; name {url} as the endpoint and set {token_variable(url)}") from None
            return url  # it answers
        except (OSError, ValueError, KeyError):
            return None

    def _start(self) -> str:
        log = self.root / "server.log"
        before = log.stat().st_size if log.exists() else 0
        for _ in range(START_ATTEMPTS):
            process = self._spawn()
            if url := self._wait_for(process):
                return url
            if (process.poll() or 0) >= 0:  # it ended by itself, or hangs: the next one would do the same
                break
        if (process.poll() or 0) < 0:
            killed = f"killed by signal {-process.returncode}, {START_ATTEMPTS} times"
            raise HubError(f"the embedded Hub did not start: {killed}")
        last = log.read_bytes()[before:].decode(errors="replace").strip().splitlines()[-1:]
        full = shutil.disk_usage(self.root).free < FULL_BYTES
        silent = f"the disk of {self.root} is full; free some space there" if full else "it said nothing"
        raise HubError(f"the embedded Hub did not start: {' '.join(last) or silent}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._ready_file.unlink(missing_ok=True)
        with (self.root / "server.log").open("ab") as log:
            return subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _wait_for(self, process: subprocess.Popen[bytes]) -> str | None:
        """Its URL once it answers; None where it ended first, or said nothing for `START_TIMEOUT`."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and process.poll() is None:
            if self._ready_file.exists() and (url := self._live_url()):
                return url
            time.sleep(0.02)
        return None

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "erpd_hub.hub.server", "--root", str(self.root), "--host", "127.0.0.1"]
        return [*command, "--port", str(self._last_port()), "--ready-file", str(self._ready_file),
                "--until-unused", str(self.root / "clients.lock")]  # fmt: skip

    @property
    def _ready_file(self) -> Path:
        return self.root / "server.json"

    def _last_port(self) -> int:
        """The port of last time if it is free, so that a URL in somebody's shell stays right; else any free one."""
        import socket

        remembered = self.root / "port"
        try:
            port = int(remembered.read_text())
        except (OSError, ValueError):
            port = 0
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with suppress(OSError):  # of a full disk: the next server may then have another port
            remembered.write_text(str(port))
        return int(port)


def clear_proxy_for_loopback() -> None:
    """Keep requests to the embedded Hub away from any HTTP proxy the shell has set."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        if "127.0.0.1" not in hosts:
            os.environ[name] = ",".join([*hosts, "127.0.0.1"])
