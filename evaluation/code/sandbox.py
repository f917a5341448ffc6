"""Runs one untrusted Python program at a time, with nothing but its input, and says how it ended and what it wrote.

A program is a fresh process without arguments, environment or any file of ours; what it should print is never inside
it. Each of these layers is tried once and left out where the kernel refuses (`protection` says what stands):

- namespaces of its own (user, mount, pid, net, ipc, uts): no network, no sight of other processes, and whatever it
  starts ends with it;
- a root that holds read-only libraries, a few devices and a small empty folder in memory; where mounts are refused,
  Landlock allows the same libraries and the filter no writing at all;
- another user (nobody, where we are root), no capabilities, and a seccomp filter that allows threads but no processes,
  programs, sockets or files in memory;
- limits on address space, CPU time, output, open files, threads and processes, core dumps; CPU and wall time are
  watched from outside and end it by SIGKILL.

It protects your files, credentials, network and other processes from a program, and grades from being forged. It does
not protect against a bug in the kernel, nor hide what the processor's caches and timing give away, and it shares this
machine's cores and memory. Where too few layers stand (`Protection.level` none) it refuses to run anything unless the
environment has ERPD_UNPROTECTED_CODE=1. For anything stronger, run evalscope's docker backend (`docker_answers`).
"""

import contextlib
import os
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from erpd_hub.errors import StageError
from erpd_hub.evaluation.code.process import Lost, Reply, SupervisorProcess, memory_file
from erpd_hub.evaluation.code.protection import Protection, protection, try_layers

Status = Literal["ok", "timeout", "memory", "runtime error", "compile error", "output limit"]

SANDBOX_VERSION = 1
"""Recorded with every score of programs; raised when a program may get another verdict than before."""

MAX_SOURCE_BYTES = 1 << 20
"""Of a program; longer ones are compile errors. LiveCodeBench's longest answers are some tens of thousands."""
_EXITS: dict[int, Status] = {82: "memory", 83: "compile error"}  # supervisor/child.py
_OWN_PROCESSES = 2  # the supervisor and its parent count where they are the same user
_DETAIL = 500
_UNPROTECTED = "ERPD_UNPROTECTED_CODE"


@dataclass(frozen=True)
class Limits:
    """What one run of a program may use."""

    seconds: float = 6.0
    """CPU time of all its threads, so that other work does not count. [S LiveCodeBench: 6 s of wall time]"""
    wall_seconds: float = 18.0
    """[I] For one that sleeps or waits. One that computes meets it first where it gets less than a third of a core."""
    memory_mb: int = 2048
    """Address space, twice what AtCoder allows to be resident. [I]"""
    output_mb: int = 16
    """Of its output, and of each file it writes. [I]"""
    disk_mb: int = 64
    """Of its working folder. [I]"""
    processes: int = 16
    """Threads and processes in all. [I]"""


class Run(NamedTuple):
    """How a program ended."""

    status: Status
    stdout: str
    """Undecodable bytes replaced."""
    result: str
    """What its function returned, in JSON; empty without one."""
    detail: str
    """The last of what it wrote on stderr, or the signal that ended it."""
    cpu_seconds: float
    wall_seconds: float
    memory_bytes: int
    """Peak of what was resident."""


class Sandbox:
    """A warm place to run programs, one at a time; of one thread. Starts its process when the first program comes."""

    def __init__(self, layers: tuple[str, ...] | None = None) -> None:
        """`layers`: those of LAYERS to use, each of which then has to stand; None takes what this machine allows."""
        self._layers = layers
        self._process: SupervisorProcess | None = None

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, source: str, *, stdin: str = "", function: str | None = None, limits: Limits | None = None) -> Run:
        """Run a program on `stdin`, or call its function (of class Solution, if it has one) with the JSON lines there.

        Raises:
            StageError: the sandbox does not work, or is not safe, on this machine.
        """
        limits, text = limits or Limits(), source.encode("utf-8", "replace")
        if len(text) > MAX_SOURCE_BYTES:
            return Run("compile error", "", "", f"a program of {len(text)} bytes", 0.0, 0.0, 0)
        layers = self._layers if self._layers is not None else protection().layers
        _refuse_unprotected(layers)
        why = ""
        for _ in range(2):  # something else may have ended the supervisor
            try:
                self._process = self._process or SupervisorProcess(layers)
                return _run(self._process, text, stdin.encode("utf-8", "replace"), function, limits, layers)
            except Lost as lost:
                self.close()
                why = str(lost)
        failure = try_layers(layers)
        if failure is not None:
            raise StageError(f"sandbox: expected a trivial program to run, got {failure[1]}; see `erpd-hub doctor`")
        return Run("runtime error", "", "", f"it ended its sandbox: {why}", 0.0, 0.0, 0)

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None


def _refuse_unprotected(layers: tuple[str, ...]) -> None:
    if Protection(layers, {}).level == "none" and os.environ.get(_UNPROTECTED) != "1":
        raise StageError(
            f"sandbox: expected namespaces, or seccomp with Landlock or another user, got {', '.join(layers) or 'none'}"
            "; programs would have your rights: use a kernel or container that allows more, or set "
            f"{_UNPROTECTED}=1 if this machine has nothing to lose"
        )


def _run(
    process: SupervisorProcess,
    source: bytes,
    stdin: bytes,
    function: str | None,
    limits: Limits,
    layers: tuple[str, ...],
) -> Run:
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(memory_file(data)) for data in (source, stdin, b"", b"", b"")]
        reply = process.ask(_request(limits, function, len(source), "processes" in layers), files)
        cap = limits.output_mb << 20
        outputs = [os.pread(file, cap + 1, 0) for file in files[2:]]
    return _judge(reply, outputs, cap, limits)


def _request(limits: Limits, function: str | None, size: int, counted: bool) -> dict[str, Any]:
    return {
        "function": function,
        "seconds": limits.seconds,
        "wall_seconds": limits.wall_seconds,
        "memory_bytes": limits.memory_mb << 20,
        "output_bytes": limits.output_mb << 20,
        "disk_bytes": limits.disk_mb << 20,
        "source_bytes": size,
        "processes": limits.processes + _OWN_PROCESSES if counted else None,
    }


def _judge(reply: Reply, outputs: list[bytes], cap: int, limits: Limits) -> Run:
    stdout, stderr, result = outputs
    detail = stderr[-_DETAIL:].decode("utf-8", "replace").strip()
    status: Status = "ok"
    if reply.late or reply.cpu >= limits.seconds:
        status, detail = "timeout", f"{reply.cpu:.1f} s of CPU time, {reply.wall:.1f} s in all"
    elif max(map(len, outputs)) >= cap:
        status, detail = "output limit", f"{limits.output_mb} MB"
    elif reply.code < 0:
        status, detail = "runtime error", f"ended by signal {-reply.code}"
    elif reply.code:
        status = _EXITS.get(reply.code, "runtime error")
    return Run(status, stdout.decode("utf-8", "replace"), result.decode("utf-8", "replace"), detail, *reply[4:])
