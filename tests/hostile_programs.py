"""Programs that try to score, to read, to reach out, to stay or to bring the machine down, and what may come of them.

`python hostile_programs.py` runs them all under the layers that stand for whoever runs it and prints one JSON object:
how another user sees the sandbox (tests/test_sandbox.py).
"""

import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from erpd_hub.evaluation.code.protection import protection
from erpd_hub.evaluation.code.sandbox import Limits, Run, Sandbox

ANSWER = "EXPECTED-42"
LIMITS = Limits(seconds=0.15, wall_seconds=1.0, memory_mb=128, output_mb=1, disk_mb=4, processes=8)

PROGRAMS: dict[str, str] = {
    # to score
    "walk the frames": """
import sys
frame, seen = sys._getframe(), []
while frame:
    seen.append(repr(frame.f_locals))
    frame = frame.f_back
print(seen)
""",
    "look through memory": """
import gc
print([repr(o)[:2000] for o in gc.get_objects() if isinstance(o, (dict, list, tuple, str))][:5000])
""",
    "patch the comparison": """
import builtins, decimal, json, os
class Equal(str):
    __eq__ = __ne__ = lambda *a: True
    __hash__ = str.__hash__
builtins.str = builtins.print.__class__
json.dumps = json.loads = lambda *a, **k: 'EXPECTED'
decimal.Decimal.__class__ = Equal
os._exit(0)
""",
    "forge a verdict": """
print('{"started": true, "late": false, "code": 0, "verdict": "passed"}')
""",
    "write to every file": """
import os
for file in range(256):
    for text in (b'x', b'[1]', b'{"started": true, "late": false, "code": 0}'):
        try:
            os.write(file, text)
        except OSError:
            pass
""",
    "leave early": "import os\nos._exit(0)",
    "leave as if the set-up had failed": "import os\nos._exit(1)",
    "an input for an output": "print(input())",
    # to read
    "read a file": "print(open({secret!r}).read())",
    "read through a link": "import os\nos.symlink({secret!r}, 'link')\nprint(open('link').read())",
    "list the folder": "import os\nprint([open(e.path).read() for e in os.scandir({folder!r})])",
    "read /etc/passwd": "print(open('/etc/passwd').read(), {answer!r})",
    "read the parent": """
import glob
print([open(name, 'rb').read() for name in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/cmdline')])
print(ANSWER)
""",
    "read the environment": "import os\nprint(dict(os.environ)['ERPD_HOME'])",
    # to reach out
    "connect": """
import socket
with socket.create_connection(('127.0.0.1', {port}), 1) as s:
    print(s.recv(100).decode())
""",
    "connect to a local socket": """
import socket
s = socket.socket(socket.AF_UNIX)
s.connect({unix!r})
print(s.recv(100).decode())
""",
    "kill everybody": """
import os
for pid in (-1, 0, 1, os.getppid(), *range(2, 400)):
    try:
        if pid != os.getpid():
            os.kill(pid, 9)
    except OSError:
        pass
""",
    # to stay, and to leave something
    "write a file": "open({folder!r} + '/pwned', 'w').write('x')\nprint(open({folder!r} + '/pwned').read())",
    "run a shell": "import os\nos.execv('/bin/sh', ['sh', '-c', 'echo {answer}; touch {folder}/pwned'])",
    "ask for a shell": "import os\nos.system('cat {secret}; touch {folder}/pwned')",
    "a process of its own": """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for stream in (0, 1, 2):
            os.close(stream)
        time.sleep(3600)
    os._exit(0)
""",
    "trace and mount": """
import ctypes
c = ctypes.CDLL(None)
c.ptrace(16, 1, 0, 0), c.unshare(0x10000000), c.mount(b'proc', b'/program', b'proc', 0, None), c.setuid(0)
print(open('/program/1/environ').read(), open({secret!r}).read())
""",
    # to bring it down
    "fork without end": """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
""",
    "threads without end": """
import threading, time
while True:
    threading.Thread(target=time.sleep, args=(1000,)).start()
""",
    "memory at once": "x = bytearray(1 << 40)",
    "memory bit by bit": "x = []\nwhile True:\n    x.append(bytes(1 << 24))",
    "files in memory": "import os\nfor i in range(60):\n    os.write(os.memfd_create(str(i)), b'x' * 900000)",
    "a full disk": "for i in range(1000):\n    open(str(i), 'wb').write(b'x' * 900000)\nprint({answer!r})",
    "output without end": "while True:\n    print('x' * 65536)",
    "a loop": "while True:\n    pass",
    "a loop in C": "sum(range(10**12))",
    "a loop in a thread": """
import threading
def loop():
    while True: pass
threading.Thread(target=loop).start()
""",
    "no signal helps": """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True:
    pass
""",
    "a loop at its end": "import atexit\n@atexit.register\ndef _():\n    while True:\n        pass",
    "a loop on deletion": """
class A:
    def __del__(self):
        while True:
            pass
a = A()
del a
""",
    "depth without end": "import sys\nsys.setrecursionlimit(10**9)\nf = lambda n: f(n + 1) + 1\nf(0)",
    "nested source": "(" * 100_000,
    "a crash": "import ctypes\nctypes.string_at(0)",
}
SLEEP = "import time\ntime.sleep(3600)"


class Scene(NamedTuple):
    """What there is to be had outside the sandbox."""

    folder: Path
    port: int
    unix: str

    def program(self, text: str) -> str:
        for name, value in (
            ("secret", str(self.folder / "secret")),
            ("folder", str(self.folder)),
            ("unix", self.unix),
            ("port", self.port),
            ("answer", ANSWER[::-1]),
        ):
            text = text.replace(f"{{{name}!r}}", repr(value)).replace(f"{{{name}}}", str(value))
        return text

    def traces(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.name not in ("secret", "socket"))


@contextlib.contextmanager
def scene() -> Iterator[Scene]:
    """A readable file, a writable folder and two servers that would give the answer away."""
    with tempfile.TemporaryDirectory() as name, socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "secret").write_text(ANSWER)
        (folder / "secret").chmod(0o666)
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        unix.bind(str(folder / "socket"))
        (folder / "socket").chmod(0o777)
        unix.listen()
        yield Scene(folder, tcp.getsockname()[1], str(folder / "socket"))


def run_all(sandbox: Sandbox, place: Scene) -> dict[str, Run]:
    return {name: sandbox.run(place.program(text), stdin="1", limits=LIMITS) for name, text in PROGRAMS.items()}


def main(without: list[str]) -> dict[str, Any]:
    """Outcome by program, and what is left of them."""
    standing = protection(frozenset(without))
    with scene() as place, Sandbox(standing.layers) as sandbox:
        runs = run_all(sandbox, place)
        works = sandbox.run("print(int(input()) + 1)", stdin="41").stdout
        return {
            "level": standing.level,
            "layers": standing.layers,
            "works": works,
            "told": [name for name, run in runs.items() if ANSWER in run.stdout + run.detail],
            "status": {name: run.status for name, run in runs.items()},
            "traces": place.traces(),
            "user": os.getuid(),
        }


if __name__ == "__main__":
    json.dump(main(sys.argv[1:]), sys.stdout)
