"""GPUs, CPU, memory, the sandbox, the folder that everything is kept in, and a port of this machine."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec

from erpd_hub.doctor.check import Check, State
from erpd_hub.errors import ErpdError
from erpd_hub.home import home
from erpd_hub.launching.machine import ask_driver, available_cores

MIN_DISK = 20.0
"""GB free at ERPD_HOME below which a run of a real model is doubtful: one 4B checkpoint in fp32 is 16."""
_PROBE_TIMEOUT = 60.0
"""Seconds for another interpreter to answer."""


def check_machine() -> Iterator[Check]:
    """GPUs and whether torch can use them, cores, memory."""
    gpus = _gpus()
    if gpus:
        yield Check("GPUs", "ok", "; ".join(gpus))
    else:
        yield Check(
            "GPUs", "note", "none seen by nvidia-smi", "tiny models run on the CPU; nothing else is quick there"
        )
    if gpus and find_spec("torch"):
        yield _cuda()
    yield Check("CPU", "ok", f"{available_cores()} cores")
    memory = _host_memory()
    if memory is not None:
        yield Check("host memory", "ok" if memory >= 4 else "note", f"{memory:.0f} GB",
                    "" if memory >= 4 else "loading a 4B model in fp32 takes 16 GB of it")  # fmt: skip


def _gpus() -> list[str]:
    """`name, memory, driver` of each GPU."""
    try:
        return ask_driver("name,memory.total,driver_version")
    except subprocess.TimeoutExpired:
        return []


def _cuda() -> Check:
    """Whether this environment's torch can use the GPUs, asked in another process so that none is held here."""
    code = "import torch as t; print(t.__version__, t.version.cuda, t.cuda.is_available(), t.cuda.device_count())"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=_PROBE_TIMEOUT)
    except subprocess.TimeoutExpired:
        return Check(
            "torch on CUDA", "broken", f"no answer in {_PROBE_TIMEOUT:.0f} s", "restart the driver or the machine"
        )
    words = done.stdout.split()
    if done.returncode == 0 and words[2:3] == ["True"]:
        return Check("torch on CUDA", "ok", f"torch {words[0]}, CUDA {words[1]}, {words[3]} devices")
    remedy = "install the CUDA build (pip install -c constraints-cuda.txt -e '.[train]') and a driver new enough for it"
    return Check("torch on CUDA", "broken", "there are GPUs, and torch cannot use them", remedy)


def _host_memory() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError, AttributeError):
        return None


def check_sandbox() -> Iterator[Check]:
    """Which layers stand between this machine and the programs of LiveCodeBench and of code rewards."""
    from erpd_hub.evaluation.code.protection import docker_answers, protection

    try:
        standing = protection()
    except ErpdError as error:
        yield Check("sandbox", "note", str(error), "needed to grade programs; elsewhere use evalscope with docker")
        return
    remedy = "" if standing.level == "full" else f"allow user namespaces for the rest ({standing.missing})"
    yield Check("sandbox", "ok" if standing.level == "full" else "note", standing.text, remedy)
    yield Check("docker", "ok", "a daemon answers" if docker_answers() else "none; needed for evalscope's sandbox only")


def check_home() -> Iterator[Check]:
    """The folder that runs and the embedded Hub live in, and a port for the latter."""
    place = home()
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place):
            pass
    except OSError as error:
        yield Check("ERPD_HOME", "broken", f"cannot be written: {error.strerror}", "set ERPD_HOME to a folder that can")
        return
    free = shutil.disk_usage(place).free / 1e9
    state: State = "ok" if free >= MIN_DISK else "note" if free >= 1 else "broken"
    remedy = "" if state == "ok" else "a checkpoint of 4B parameters in fp32 is 16 GB: free space, or set ERPD_HOME"
    yield Check("ERPD_HOME", state, f"writable, {free:.0f} GB free", remedy)
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", 0))
            yield Check("loopback port", "ok", "one can be opened")
        except OSError as error:
            yield Check(
                "loopback port", "broken", str(error.strerror), "the embedded Hub and launched processes need one"
            )
