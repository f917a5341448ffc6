"""The supervisor's loop: isolate itself, then answer one request after the other until the parent has gone."""

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

import child
import isolation

_FILES = 5  # source, stdin, stdout, stderr, result
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Supervisor:
    """Serves one parent over one socket, one program at a time."""

    def __init__(self, control: socket.socket, settings: dict[str, Any], prelude: CodeType) -> None:
        self.control, self.settings, self.prelude = control, settings, prelude
        self.alone = "pid" in settings["layers"]
        own = "/proc/self/ns/pid" if self.alone else f"/proc/self/task/{os.getpid()}/children"
        self.place = os.open(own, os.O_RDONLY)  # now, since the root that is built has no /proc

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
            isolation.call("unshare", isolation.NAMESPACES["pid"])
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            self.become_program(request, files, finished)
        os.close(finished)
        if self.alone:
            isolation.call("setns", self.place, isolation.NAMESPACES["pid"])
        late = self.wait(pid, start, request)
        self.kill(pid)
        _, status, usage = os.wait4(pid, 0)
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

    def become_program(self, request: dict[str, Any], files: list[int], finished: int) -> None:
        """In the child; says on `finished` that every layer stands, before any of the program has run."""
        try:
            source = child.become_nobody(request, self.settings, files, finished)
        except BaseException as error:
            os.write(finished, str(error)[:300].encode())
            os._exit(1)
        os.write(finished, b"x")
        os.close(finished)
        child.run(source, self.prelude, request["function"], files[4])

    def wait(self, pid: int, start: float, request: dict[str, Any]) -> bool:
        """Until the child ends by itself (False), or has used its time (True)."""
        clock = (~pid << 3) | 2  # CPU time of all its threads
        watched = os.pidfd_open(pid)
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

    def kill(self, pid: int) -> None:
        """The child and all it has left: the first process of a pid namespace takes the others along."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if self.alone:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        while orphans := [other for other in self.children() if other != pid]:
            for orphan in orphans:
                os.kill(orphan, signal.SIGKILL)
                os.waitpid(orphan, 0)

    def children(self) -> list[int]:
        """Ours, adopted ones too: as a subreaper we inherit whatever a program leaves."""
        return [int(pid) for pid in os.pread(self.place, 1 << 20, 0).split()]


def _enter(layers: list[str]) -> None:
    """The namespaces; with one for pids, the caller goes on as a child that is its first process."""
    outside = isolation.most_pids()
    for layer, flag in isolation.NAMESPACES.items():
        if layer in layers:
            with isolation.naming(layer):
                isolation.enter_user_namespace() if layer == "user" else isolation.call("unshare", flag)
    if "pid" not in layers:
        isolation.call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        return
    first = os.fork()
    if first:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) & 0x7F)
    isolation.call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with isolation.naming("pid_max"):
        if "pid_max" in layers:
            isolation.limit_pids(outside)


def main() -> None:
    settings = json.loads(sys.argv[1])
    control = socket.socket(fileno=settings["control"])
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # out of memory, the kernel takes programs first
    try:
        _enter(settings["layers"])
        supervisor = Supervisor(control, settings, child.preload())
        with isolation.naming("mount"):
            if "mount" in settings["layers"]:
                isolation.build_root(settings["libraries"], settings["hidden"])
    except OSError as error:
        control.send(json.dumps({"failed": str(error)}).encode())
        return
    own = os.path.dirname(__file__)
    sys.path[:], sys.argv[:] = [path for path in sys.path if path != own] + settings["packages"], [""]
    del sys.modules["child"], sys.modules["isolation"]
    os.environ.clear()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy would start a thread a core
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"ready": True}).encode())
    supervisor.serve()


main()
