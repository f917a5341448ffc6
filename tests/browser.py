"""A headless Chromium, driven through its own pipe: what it asks the network for, and what a page is and looks like."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
_OFFLINE = (
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
    "--disable-default-apps", "--disable-extensions", "--no-pings", "--disable-domain-reliability",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
"""Nothing of the browser's own leaves the machine, and no name resolves."""
_LIMIT_S = 120.0


class Browser:
    """One tab. `requests` and `console` are what the page asked for and what was said of it since `open`."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._buffer = b""
        self._count = 0
        self._events: list[dict[str, Any]] = []
        target = self._ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a page and wait until it is done and quiet."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=scheme)
        self._events.clear()
        self.ask("Page.navigate", url=url)
        self._wait_loaded()

    def submit(self, script: str) -> None:
        """Run a script that leaves the page, as a person would by clicking, and wait for the next one."""
        self._events.clear()
        self.ask("Runtime.evaluate", expression=script)
        self._wait_loaded()

    def value(self, expression: str) -> Any:
        """What an expression is on the page."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def picture(self, path: Path, *, whole: bool = False) -> None:
        data = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    @property
    def requests(self) -> list[str]:
        return [event["params"]["request"]["url"] for event in self._named("Network.requestWillBeSent")]

    @property
    def console(self) -> list[str]:
        return [event["params"]["entry"]["text"] for event in self._named("Log.entryAdded")]

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        return self._ask(method, params, self._session)

    def _named(self, method: str) -> list[dict[str, Any]]:
        return [event for event in self._events if event.get("method") == method]

    def _wait_loaded(self) -> None:
        deadline = time.monotonic() + _LIMIT_S
        while not self._named("Page.loadEventFired"):
            assert time.monotonic() < deadline, "the page did not load"
            self._ask("Browser.getVersion", {})  # reads the events; a page on its way answers with an error
            time.sleep(0.02)
        self.ask("Runtime.evaluate", expression="new Promise(done => setTimeout(done, 150))", awaitPromise=True)

    def _ask(self, method: str, params: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        self._count += 1
        number = self._count
        message = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._read, 1 << 16)
            assert data, "the browser is gone"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with an empty profile below `folder`."""
    assert BROWSER is not None
    to_it, from_us = os.pipe()
    from_it, its_answers = os.pipe()

    def arrange() -> None:
        # It listens on 3 and answers on 4. The copies take free numbers above both: neither writes over the other.
        copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 5) for fd in (to_it, its_answers)]
        os.dup2(copies[0], 3)
        os.dup2(copies[1], 4)

    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
               "--hide-scrollbars", "--remote-debugging-pipe",
               f"--user-data-dir={folder / 'profile'}", *_OFFLINE]  # fmt: skip
    process = subprocess.Popen(
        command, preexec_fn=arrange, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip
    os.close(to_it)
    os.close(its_answers)
    try:
        one = Browser(from_us, from_it)
        yield one
        one.ask("Browser.close")  # with all its processes, so that nothing writes to the profile any more
        process.wait(timeout=_LIMIT_S)
    finally:
        process.kill()
        process.wait()
        os.close(from_us)
        os.close(from_it)
