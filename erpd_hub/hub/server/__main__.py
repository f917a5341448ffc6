"""The embedded Hub as a process.

`python -m erpd_hub.hub.server --root DIR [--host 127.0.0.1] [--port 0] [--accounts FILE] [--ready-file PATH]
[--until-unused LOCKFILE]`

- Without `--accounts` everybody who reaches the server is its one user, so it listens on loopback only; `accounts_file`
  describes the file. An address beyond loopback without it is refused with exit code 2, as is a root being served.
- `--ready-file` is written in one step as {"pid", "port", "url"} once connections are accepted, and removed at exit if
  it is still this process's own.
- `--until-unused`: each client holds a shared flock on LOCKFILE while it wants the server. From 5 s after the start the
  server tries every 0.5 s to lock it exclusively; when it can, no client is left and it leaves.
- SIGTERM and SIGINT end it after the requests in flight.
"""

import argparse
import asyncio
import ipaddress
import logging
import os
import signal
import socket
import sqlite3
import sys
from contextlib import ExitStack
from pathlib import Path

import uvicorn

from erpd_hub.errors import ConfigError
from erpd_hub.hub.server.accounts import Accounts
from erpd_hub.hub.server.accounts_file import read_accounts, readable_by_others
from erpd_hub.hub.server.app import HubApp
from erpd_hub.hub.server.call import Hub
from erpd_hub.hub.server.errors import disk_is_full
from erpd_hub.hub.server.lifecycle import AlreadyServed, ClientLock, announce, only_server, ready_file
from erpd_hub.hub.server.schema import WrongSchema

logger = logging.getLogger(__name__)

SHUTDOWN_S = 10
KEEP_ALIVE_S = 75
MAX_CONNECTIONS = 500
"""Of all clients together, idle ones too. A further one gets a 503, which clients try again; without a bound it would
take the last file numbers (1,024 by default on Linux) from requests in work."""


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m erpd_hub.hub.server", description="The embedded Hub.")
    parser.add_argument("--root", type=Path, required=True, help="folder of the Hub's data; created if absent")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--accounts", type=Path, help="YAML of users, their tokens and organizations")
    parser.add_argument("--ready-file", type=Path)
    parser.add_argument("--until-unused", type=Path, metavar="LOCKFILE")
    return parser.parse_args(argv)


class Server(uvicorn.Server):
    """uvicorn on a bound socket, telling when it is ready and leaving when unused. `greeting` is for people, without
    the URL; a server that a run starts for itself has none."""

    def __init__(
        self, config: uvicorn.Config, listener: socket.socket, *, ready: Path | None, clients: ClientLock, greeting: str
    ) -> None:
        super().__init__(config)
        self.listener = listener
        self._ready = ready
        self._clients = clients
        self._greeting = greeting

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self.listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        if self._ready is not None:
            self._announce(self._ready, port, url)
        if self._greeting:
            sys.stderr.write(f"erpd-hub server: {self._greeting} at {url}\n")

    def _announce(self, ready: Path, port: int, url: str) -> None:
        """A server that people start serves without a ready file where the disk is full; nobody finds another one."""
        try:
            announce(ready, port=port, url=url)
        except OSError as error:
            if not (self._greeting and disk_is_full(error)):
                raise
            logger.warning("%s: its disk is full: what is there is served; free some space, or no run joins", ready)

    async def leave_when_unused(self) -> None:
        await self._clients.wait_unused()
        self.should_exit = True


async def serve(server: Server, *, until_unused: bool) -> None:
    watch = asyncio.create_task(server.leave_when_unused()) if until_unused else None
    await server.serve(sockets=[server.listener])
    if watch is not None:
        watch.cancel()


def main(argv: list[str]) -> int:
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if arguments.accounts is None and not _is_loopback(arguments.host):
        reason = "expected a loopback address, as without accounts everybody may do everything"
        return _refuse(f"--host {arguments.host}: {reason}; give --accounts FILE to serve others")
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again once it has shut down
        signal.signal(number, lambda *_: sys.exit(0))
    os.umask(0o077)  # what is private here is private on this machine too
    try:
        accounts = _accounts(arguments.accounts)
        _make_folder(arguments.root)
        with ExitStack() as stack:
            clients = stack.enter_context(ClientLock(arguments.until_unused))
            stack.enter_context(only_server(arguments.root))
            run(arguments, accounts, clients, stack)
    except AlreadyServed:
        return _refuse(f"--root {arguments.root}: another server is serving it; stop that one or join it")
    except ConfigError as error:
        return _refuse(str(error))
    except (OSError, sqlite3.DatabaseError, WrongSchema) as error:
        return _refuse(_remedy(arguments, error))
    return 0


def _remedy(arguments: argparse.Namespace, error: Exception) -> str:
    if disk_is_full(error):
        return f"--root {arguments.root}: its disk is full ({error}); free some space there, or run erpd-hub hub gc"
    if isinstance(error, sqlite3.DatabaseError):
        return f"--root {arguments.root}: hub.sqlite cannot be used: {error}; run erpd-hub hub fsck"
    where = f"{arguments.root} on {arguments.host}:{arguments.port}"
    return f"cannot serve {where}: {error}; give another --root, --host or --port"


def _accounts(path: Path | None) -> Accounts:
    """Those of the file, with a warning where others can read it."""
    if path is None:
        return Accounts()
    accounts = read_accounts(path)
    if warning := readable_by_others(path):
        logger.warning(warning)
    return accounts


def _make_folder(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--root {root}: expected a folder to write to: {error.strerror}; give another") from None


def _greeting(root: Path, accounts: Accounts) -> str:
    """Whom it serves. Organizations are named, as one that only a user's entry names may be a slip of the pen."""
    if accounts.users is None:
        return f"serving {root} to everybody on this machine"
    orgs = f" and the organizations {', '.join(org.name for org in accounts.orgs.values())}" if accounts.orgs else ""
    return f"serving {root} to {', '.join(user.name for user in accounts.users.values())}{orgs}"


def run(arguments: argparse.Namespace, accounts: Accounts, clients: ClientLock, stack: ExitStack) -> None:
    """Serve until told to leave; what must be undone afterwards goes on the stack."""
    hub = Hub(arguments.root, accounts)
    stack.callback(hub.close)
    listener = _bind(arguments.host, arguments.port)
    stack.callback(listener.close)
    stack.enter_context(ready_file(arguments.ready_file))
    hosts = None if arguments.accounts else frozenset({"127.0.0.1", "localhost", "::1", arguments.host})
    config = uvicorn.Config(
        HubApp(hub, hosts=hosts),
        lifespan="off",
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    embedded = arguments.until_unused is not None
    greeting = "" if embedded else _greeting(arguments.root, accounts)
    server = Server(config, listener, ready=arguments.ready_file, clients=clients, greeting=greeting)
    asyncio.run(serve(server, until_unused=embedded))


def _bind(host: str, port: int) -> socket.socket:
    """A bound socket that names its protocol: asyncio turns Nagle's delays off only for such."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, proto=socket.IPPROTO_TCP)[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refuse(reason: str) -> int:
    sys.stderr.write(f"erpd-hub server: {reason}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
