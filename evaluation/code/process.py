"""The parent's end of a supervisor: starts its process, hands it programs in memory files, takes its replies."""

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from erpd_hub.evaluation.code.syscalls import filter_program

_STARTUP_SECONDS = 60.0
_GRACE_SECONDS = 20.0  # beyond the program's wall time, for a supervisor that may have to wait for a core


class Lost(Exception):
    """The supervisor has ended or does not answer, or a layer does not stand: then `<layer>\\n<why>`."""


class Reply(NamedTuple):
    """What became of a program, in the supervisor's words."""

    started: bool
    why: str
    late: bool
    code: int
    cpu: float
    wall: float
    memory: int


class SupervisorProcess:
    """A running supervisor, one program at a time.

    Raises:
        Lost: it does not start with these layers.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            settings = json.dumps(_settings(layers) | {"control": theirs.fileno()})
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-S", "-P", "-B", str(Path(__file__).parent / "supervisor"), settings],
                pass_fds=[theirs.fileno()],
                env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )
        try:
            said = self._receive(_STARTUP_SECONDS)
        except Lost:
            self.close()
            raise
        if "ready" not in said:
            self.close()
            raise Lost(said["failed"])

    def ask(self, request: dict[str, Any], files: Sequence[int]) -> Reply:
        """Run a program; raises Lost, also when a layer does not stand for it."""
        try:
            self._control.settimeout(_STARTUP_SECONDS)
            socket.send_fds(self._control, [json.dumps(request).encode()], list(files))
        except OSError as error:
            raise Lost(f"its process takes no program ({error})") from None
        reply = Reply(**self._receive(request["wall_seconds"] + _GRACE_SECONDS))
        if not reply.started:
            raise Lost(reply.why)
        return reply

    def close(self) -> None:
        """End it and whatever runs in it."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._control.settimeout(_GRACE_SECONDS)
            while self._control.recv(1 << 16):  # until the supervisor, which the kernel ends with its parent, is gone
                pass
        self._control.close()

    def _receive(self, seconds: float) -> dict[str, Any]:
        self._control.settimeout(seconds)
        try:
            message = self._control.recv(1 << 16)
        except OSError as error:  # TimeoutError is one
            raise Lost(f"no answer from its process ({error})") from None
        if not message:
            raise Lost("its process has ended")
        said: dict[str, Any] = json.loads(message)
        return said


@contextlib.contextmanager
def memory_file(data: bytes) -> Iterator[int]:
    """A file that has no name, read from its start."""
    file = os.memfd_create("program")
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.lseek(file, 0, os.SEEK_SET)
        yield file
    finally:
        os.close(file)


def _settings(layers: Sequence[str]) -> dict[str, Any]:
    standard = str(Path(os.__file__).parent)
    system = [path for path in ("/lib", "/lib64", "/usr/lib", "/usr/lib64") if Path(path).exists()]
    packages = [str(Path(folder).parent) for folder in _numpy()[:1]]
    hidden = {f"{standard}/site-packages", f"{standard}/dist-packages", "/usr/lib/python3/dist-packages"}
    calls = filter_program(os.uname().machine, signals="pid" in layers, changes="mount" in layers)
    return {
        "owner": os.getpid(),  # says in a list of processes whose it is
        "layers": list(layers),
        "libraries": [*system, standard, *_numpy()],
        "packages": packages,
        "hidden": sorted(hidden - set(packages)),
        "filter": "" if calls is None else calls.hex(),
    }


def numpy_version() -> str | None:
    """Of the numpy that programs can import; None where they cannot."""
    return version("numpy") if _numpy() else None


def _numpy() -> list[str]:
    """Folders of numpy, which LiveCodeBench's own programs may import, if this environment has it."""
    found = importlib.util.find_spec("numpy")
    if found is None or found.origin is None:
        return []
    folder = Path(found.origin).parent
    return [str(path) for path in (folder, folder.with_name("numpy.libs")) if path.is_dir()]
