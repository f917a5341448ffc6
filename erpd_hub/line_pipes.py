"""JSON values, one a line, to and from a child process that may hang or end at any moment."""

import json
import os
import selectors
import subprocess
import threading
import time
from typing import Any


class LinePipes:
    """Both pipes of a process that was started with `bufsize=0`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None, "both are pipes"
        self._requests, self._replies = process.stdin, process.stdout
        self._unread = b""

    def send(self, value: Any) -> None:
        """In a thread: a process that does not read would hold up whoever fills its pipe."""
        threading.Thread(target=self._send, args=(json.dumps(value).encode() + b"\n",), daemon=True).start()

    def receive(self, seconds: float) -> Any:
        """The next line.

        Raises:
            TimeoutError: none in time. EOFError: the process has closed its end.
        """
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._replies, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(deadline - time.monotonic(), 0.0)):
                    raise TimeoutError
                if not (data := os.read(self._replies.fileno(), 1 << 16)):
                    raise EOFError
                self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)

    def close(self) -> None:
        self._requests.close()
        self._replies.close()

    def _send(self, line: bytes) -> None:
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(self._requests.fileno(), view) :]
        except (OSError, ValueError):
            return  # it ended meanwhile, which `receive` notices
