"""What every foreign script does before it meets a model's text: limits, and no way out of the process.

Nothing here is a security boundary by itself. It closes what a parser that evaluates its input would need: files opened
for writing, other programs, sockets, foreign code. The parent adds namespaces where the machine has them.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

REFUSED_CODE = 77
"""Exit code of a process that ended itself because a text reached for what grading never needs."""

EXAMPLE = {"gold": "1", "text": "\\boxed{1}", "integer": False}

_MEMORY_BYTES = 4 << 30  # a whole harness is mapped in, of which grading touches little
_PR_SET_PDEATHSIG = 1
_REFUSED = (
    "ctypes.", "ftplib.", "http.client", "mmap.", "pty.", "shutil.", "smtplib.", "socket.bind", "socket.connect",
    "socket.getaddrinfo", "socket.sendto", "subprocess.", "tempfile.", "urllib.", "webbrowser.",
    "os.chmod", "os.chown", "os.exec", "os.forkpty", "os.link", "os.mkdir", "os.posix_spawn", "os.remove",
    "os.rename", "os.rmdir", "os.spawn", "os.symlink", "os.system", "os.truncate", "os.utime",
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


Grade = Callable[[dict[str, Any]], dict[str, Any]]


def serve(load: Callable[[], Grade]) -> None:
    """Answer one JSON object a line until standard input ends: "taken", then what the loaded grader makes of it.

    What that raises becomes a reply without a label: the library failed on this text.
    """
    die_with_parent()
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    sys.stdout = sys.stderr  # whatever a library prints must not look like an answer
    sys.dont_write_bytecode = True
    grade = load()
    grade(EXAMPLE)  # what a library imports when it is first used, it imports before files are closed
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # the parent's log was for a failure to get here
    confine()
    for line in sys.stdin:
        print('"taken"', file=channel)
        try:
            reply = grade(json.loads(line))
        except Exception as error:  # the boundary that turns a library's failure on hostile text into data
            reply = {"label": None, "extracted": None, "reason": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(reply), file=channel)


def die_with_parent() -> None:
    """Have the kernel end this process when whoever started it is gone, however busy it is (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def confine() -> None:
    """Limit memory and files for good, and end the process when it reaches for what grading never needs."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, mode, flags = arguments
        writes = any(c in mode for c in "wax+") if isinstance(mode, str) else bool((flags or 0) & _WRITING)
        if not writes or path == os.devnull:
            return
    elif not event.startswith(_REFUSED):
        return
    os._exit(REFUSED_CODE)
