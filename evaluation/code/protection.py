"""Which layers of the sandbox stand on this machine: each is tried once, and left out where it does not."""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from erpd_hub.errors import StageError
from erpd_hub.evaluation.code.process import Lost, SupervisorProcess, memory_file, numpy_version
from erpd_hub.evaluation.code.syscalls import filter_program

LAYERS = ("user", "mount", "net", "ipc", "uts", "pid", "pid_max", "nobody", "landlock", "seccomp", "processes")
_NAMESPACES = LAYERS[:6]
_TRIAL = "import colorsys, threading\nt = threading.Thread(target=print, args=(input(),))\nt.start()\n"
_TRIAL_REQUEST: dict[str, Any] = {
    "function": None,
    "seconds": 10.0,
    "wall_seconds": 60.0,
    "memory_bytes": 1 << 30,
    "output_bytes": 1 << 20,
    "disk_bytes": 1 << 20,
    "source_bytes": len(_TRIAL),
    "processes": 16,
}


@dataclass(frozen=True)
class Protection:
    """Which layers stand."""

    layers: tuple[str, ...]
    refused: dict[str, str]
    """Why, by layer."""

    @property
    def level(self) -> Literal["full", "partial", "none"]:
        """full: nothing of yours is in a program's reach; none: it has your rights, less some limits."""
        have = set(self.layers)
        confined = {"pid", "net"} <= have or "seccomp" in have
        if {"mount", "pid", "net", "seccomp"} <= have:
            return "full"
        return "partial" if confined and have & {"mount", "landlock", "nobody"} else "none"

    @property
    def text(self) -> str:
        """Level and layers, and which numpy a program finds."""
        return f"{self.level}: {', '.join(self.layers)}; numpy {numpy_version() or 'none'}"

    @property
    def missing(self) -> str:
        """What was refused, with the reasons."""
        return "; ".join(f"{layer}: {why}" for layer, why in self.refused.items())


@functools.cache
def protection(without: frozenset[str] = frozenset()) -> Protection:
    """Try the layers, once a process.

    Args:
        without: Layers not to try.

    Raises:
        StageError: a trivial program does not run even without any.
    """
    if sys.platform != "linux":
        raise StageError("sandbox: expected Linux, got another system; grade programs on a Linux machine or in docker")
    wanted = [layer for layer in LAYERS if layer not in without]
    refused: dict[str, str] = {}
    while True:
        layers = _sensible(wanted)
        failure = try_layers(layers)
        if failure is None:
            return Protection(layers, refused)
        layer, why = failure
        if layer not in layers:
            raise StageError(f"sandbox: expected a trivial program to run, got {why}; see `erpd-hub doctor`")
        gone = _NAMESPACES if layer == "user" and os.geteuid() != 0 else (layer,)
        refused |= {name: why for name in gone if name in layers}
        wanted = [name for name in wanted if name not in gone]


def try_layers(layers: Sequence[str]) -> tuple[str, str] | None:
    """The layer that does not stand, with the reason; None when a program with a thread runs."""
    try:
        process = SupervisorProcess(layers)
    except Lost as lost:
        return _named(lost)
    with contextlib.ExitStack() as stack:
        stack.callback(process.close)
        files = [stack.enter_context(memory_file(data)) for data in (_TRIAL.encode(), b"works", b"", b"", b"")]
        limit = 16 if "processes" in layers else None
        try:
            reply = process.ask(_TRIAL_REQUEST | {"processes": limit}, files)
        except Lost as lost:
            return _named(lost)
        if (reply.code, os.pread(files[2], 100, 0)) == (0, b"works\n"):
            return None
        told = os.pread(files[3], 1000, 0).decode("utf-8", "replace").strip()
    # A library that cannot be read lies where only the user gets to; else a thread could not be started.
    order = ("nobody", "landlock") if "ModuleNotFoundError" in told else ("processes", "seccomp")
    suspect = next((layer for layer in order if layer in layers), "")
    return suspect, f"a trivial program ended with code {reply.code}, {told or 'nothing said'}"


def docker_answers() -> bool:
    """Whether there is a docker daemon, so that evalscope's own sandbox is an option."""
    if shutil.which("docker") is None:
        return False
    with contextlib.suppress(subprocess.TimeoutExpired):
        asked = subprocess.run(["docker", "version"], capture_output=True, timeout=10, check=False)
        return asked.returncode == 0
    return False


def _sensible(wanted: list[str]) -> tuple[str, ...]:
    """Of the wanted layers those that can do anything here."""
    pointless = set()
    if os.geteuid() != 0:
        pointless.add("nobody")
    if filter_program(os.uname().machine, signals=True, changes=True) is None:
        pointless.add("seccomp")
    if "pid" not in wanted or ("seccomp" in wanted and "seccomp" not in pointless):
        pointless.add("pid_max")  # nothing to bound, or no process to be started at all
    if "mount" in wanted:
        pointless.add("landlock")  # a root of its own leaves nothing to forbid
    if "user" not in wanted and "seccomp" in wanted:
        pointless.add("processes")  # outside a user namespace the limit counts what other programs have, too
    return tuple(layer for layer in wanted if layer not in pointless)


def _named(lost: Lost) -> tuple[str, str]:
    layer, _, why = str(lost).partition("\n")
    return layer, why or layer
