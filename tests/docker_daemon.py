"""As much of a docker daemon as evalscope asks for, at a Unix socket; its containers are folders without walls."""

import io
import json
import re
import socketserver
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


class DockerDaemon(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, folder: Path, *, broken: bool = False) -> None:
        self.root, self.broken = folder / "root", broken
        self.created: list[dict[str, Any]] = []
        self.executed: dict[str, list[str]] = {}
        self.codes: dict[str, int] = {}
        (self.root / "tmp").mkdir(parents=True)
        super().__init__(str(folder / "docker.sock"), _Handler)

    def execute(self, name: str) -> tuple[bytes, bytes]:
        """Run a command with the container's folder in place of its root."""
        inside = [re.sub(r"(?<!\S)/tmp", str(self.root / "tmp"), word) for word in self.executed[name]]
        words = [re.sub(r"^python(?= )", sys.executable, word) for word in inside]
        done = subprocess.run(words, capture_output=True, check=False)
        self.codes[name] = 125 if self.broken else done.returncode
        return (b"", b"broken") if self.broken else (done.stdout, done.stderr)


class _Handler(BaseHTTPRequestHandler):
    server: DockerDaemon

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that needs no more of an answer closes
            super().handle()

    def address_string(self) -> str:
        return "client"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = self._path()
        if path == "/_ping":
            return self._reply(200, "OK")
        if path == "/version":
            return self._reply(200, {"ApiVersion": "1.47", "MinAPIVersion": "1.24", "Version": "28"})
        if path.startswith("/images/"):
            return self._reply(200, {"Id": "sha256:1", "RepoTags": ["python:3.11-slim"]})
        if path.startswith("/exec/"):
            return self._reply(200, {"ExitCode": self.server.codes[path.split("/")[2]], "Pid": 0, "Running": False})
        return self._reply(200, {"Id": "c", "Name": "/c", "State": {"Status": "running"}, "Image": "sha256:1"})

    def do_POST(self) -> None:
        path, body = self._path(), self._body()
        if path == "/containers/create":
            self.server.created.append(json.loads(body))
            return self._reply(201, {"Id": "c", "Warnings": []})
        if path.endswith("/exec"):
            name = f"e{len(self.server.executed)}"
            self.server.executed[name] = json.loads(body)["Cmd"]
            return self._reply(201, {"Id": name})
        if path.startswith("/exec/"):
            self.send_response(200)
            self.end_headers()  # before the program runs: what comes with the headers, docker's client does not see
            for stream, data in zip((1, 2), self.server.execute(path.split("/")[2]), strict=True):
                self.wfile.write(struct.pack(">BxxxL", stream, len(data)) + data if data else b"")
            return None
        return self._reply(204)

    def do_PUT(self) -> None:
        with tarfile.open(fileobj=io.BytesIO(self._body())) as archive:
            archive.extractall(self.server.root / "tmp", filter="data")
        self._reply(200)

    def do_DELETE(self) -> None:
        self._reply(204)

    def _path(self) -> str:
        return re.sub(r"^/v1\.\d+", "", self.path.partition("?")[0])

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _reply(self, code: int, data: Any = b"") -> None:
        content = data if isinstance(data, bytes) else (data if isinstance(data, str) else json.dumps(data)).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def docker_daemon(folder: Path, *, broken: bool = False) -> Iterator[DockerDaemon]:
    with DockerDaemon(folder, broken=broken) as daemon:
        threading.Thread(target=daemon.serve_forever, daemon=True).start()
        yield daemon
        daemon.shutdown()
