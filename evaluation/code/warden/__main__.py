"""The warden's loop: enter the walls, then answer one request after the other until the parent has gone."""

import contextlib
import gc
import json
import math
import os
import select
import signal
import socket
import sys
import time
from types import CodeType
from typing import Any

import inmate
import walls

_FILES = 5  # source, stdin, stdout, stderr, result
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Warden:
    """Serves one parent over one socket, one program at a time."""

    def __init__(self, control: socket.socket, settings: dict[str, Any], prelude: CodeType) -> None:
        self.control, self.settings, self.prelude = control, settings, prelude
        self.alone = "pid" in settings["layers"]
        self.here = os.open("/proc/self/ns/pid", os.O_RDONLY) if self.alone else -1

    def serve(self) -> None:
        while True:
            message, files, _, _ = socket.recv_fds(self.control, 1 << 16, _FILES)
            if not message:
                return
            try:
                reply = self.attend(json.loads(message), files)
            finally:
                for file in files:
                    os.close(file)
            self.control.send(json.dumps(reply).encode())

    def attend(self, request: dict[str, Any], files: list[int]) -> dict[str, Any]:
        """Fork, wait within the limits, kill; what became of it."""
        news, finished = os.pipe()
        if self.alone:
            walls.call("unshare", walls.NAMESPACES["pid"])
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            self.imprison(request, files, finished)
        os.close(finished)
        if self.alone:
            walls.call("setns", self.here, walls.NAMESPACES["pid"])
        late = self.wait(child, start, request)
        self.kill(child)
        _, status, usage = os.wait4(child, 0)
        said = os.read(news, 1000)
        os.close(news)
        return {
            "started": said == b"x",
            "why": said.decode(errors="replace") or "its set-up was killed",
            "late": late,
            "code": os.waitstatus_to_exitcode(status),
            "cpu": usage.ru_utime + usage.ru_stime,
            "wall": time.monotonic() - start,
            "memory": usage.ru_maxrss * 1024,
        }

    def imprison(self, request: dict[str, Any], files: list[int], finished: int) -> None:
        """In the child; says on `finished` that the walls stand, before any of the program has run."""
        try:
            source = inmate.become_nobody(request, self.settings, files, finished)
        except BaseException as error:
            os.write(finished, str(error)[:300].encode())
            os._exit(1)
        os.write(finished, b"x")
        os.close(finished)
        inmate.run(source, self.prelude, request["function"], files[4])

    def wait(self, child: int, start: float, request: dict[str, Any]) -> bool:
        """Until the child ends by itself (False), or has used its time (True)."""
        clock = (~child << 3) | 2  # CPU time of all its threads
        watched = os.pidfd_open(child)
        poller = select.poll()
        poller.register(watched, select.POLLIN)
        poller.register(self.control, select.POLLHUP)
        try:
            while True:
                try:
                    cpu = time.clock_gettime(clock)
                except OSError:  # it has ended
                    return False
                left = min(request["seconds"] - cpu, start + request["wall_seconds"] - time.monotonic())
                if left <= 0:
                    return True
                events = dict(poller.poll(math.ceil(left * 1000)))
                if self.control.fileno() in events:
                    os._exit(0)  # the parent has gone, and the child goes with us
                if watched in events:
                    return False
        finally:
            os.close(watched)

    def kill(self, child: int) -> None:
        """The child and all it has left: the first process of a pid namespace takes the others along."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        if self.alone:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        while orphans := [pid for pid in _children() if pid != child]:
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _children() -> list[int]:
    """Ours, adopted ones too: as a subreaper we inherit whatever a program leaves."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]


def _enter(layers: list[str]) -> None:
    """The namespaces; with one for pids, the caller goes on as a child that is its first process."""
    for layer, flag in walls.NAMESPACES.items():
        if layer in layers:
            with walls.naming(layer):
                walls.enter_user_namespace() if layer == "user" else walls.call("unshare", flag)
    if "pid" not in layers:
        walls.call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        return
    first = os.fork()
    if first:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) & 0x7F)
    walls.call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    settings = json.loads(sys.argv[1])
    control = socket.socket(fileno=settings["control"])
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # out of memory, the kernel takes programs first
    try:
        _enter(settings["layers"])
        warden = Warden(control, settings, inmate.preload())
        with walls.naming("mount"):
            if "mount" in settings["layers"]:
                walls.build_root(settings["libraries"], settings["hidden"])
    except OSError as error:
        control.send(json.dumps({"failed": str(error)}).encode())
        return
    own = os.path.dirname(__file__)
    sys.path[:], sys.argv[:] = [path for path in sys.path if path != own] + settings["packages"], [""]
    del sys.modules["inmate"], sys.modules["walls"]
    os.environ.clear()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy would start a thread a core
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"ready": True}).encode())
    warden.serve()


main()
