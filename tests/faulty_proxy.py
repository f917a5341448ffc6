"""A proxy in front of a Hub that does to chosen requests what networks and busy servers do."""

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

RESET = struct.pack("ii", 1, 0)
FAULTS = ("429", "500", "503-done", "reset", "reset-done", "cut")
"""A status before the Hub sees the request, one after it has done it, a reset before and after, half an answer."""


class FaultyProxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, target: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.target = urlsplit(target).netloc
        self.fault: Callable[[int, str], str | None] = lambda number, line: None
        """From the number of a request, counted from 0, and its `METHOD path` to what happens to it."""
        self.seen: list[str] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def next_fault(self, line: str) -> str | None:
        with self._lock:
            self.seen.append(line)
            return self.fault(len(self.seen) - 1, line)

    def start_over(self, fault: Callable[[int, str], str | None]) -> None:
        self.seen = []
        self.fault = fault

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections that end early are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def _handle(self) -> None:
        fault = self.server.next_fault(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if fault is not None and fault.isdigit():
            return self._answer(int(fault), [("Retry-After", "0")], b"busy")
        if fault == "reset":
            return self._reset()
        status, headers, content = self._forward(body)
        if fault == "reset-done":
            return self._reset()
        if fault == "503-done":
            return self._answer(503, [], b"gone")
        if fault == "cut":
            self._answer(status, headers, content, sent=len(content) // 2)
            return self._reset()
        return self._answer(status, headers, content)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _handle

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        try:
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, sent: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date"):
                self.send_header(name, value)
        length = dict((name.lower(), value) for name, value in headers).get("content-length", str(len(body)))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])
        self.wfile.flush()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def faulty_proxy(target: str) -> Iterator[FaultyProxy]:
    with FaultyProxy(target) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()


@contextmanager
def silent_endpoint(port: int = 0) -> Iterator[str]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
