"""Whether this machine is ready: versions, devices, memory, disk, kernels, the Hub. `--live` pushes and pulls for real.

Each check says what it found and, where that is not as it should be, what to do. `broken` is what a run would stop at;
`note` is what makes it slower or is needed for something else. Never prints a token.
"""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from erpd_hub.errors import ErpdError
from erpd_hub.home import home
from erpd_hub.hub.client import Hub
from erpd_hub.hub.connecting import connect

SCHEMA = "erpd-hub/doctor/v1"
State = Literal["ok", "note", "broken"]
MIN_PYTHON = (3, 11)
MIN_DISK = 20.0
"""GB free at ERPD_HOME below which a run of a real model is doubtful: one 4B checkpoint in fp32 is 16."""
_PROBE_TIMEOUT = 60.0
"""Seconds for nvidia-smi or another interpreter to answer."""


@dataclass(frozen=True)
class Check:
    name: str
    state: State
    found: str
    remedy: str = ""


def diagnose(endpoint: str = "local", *, live: bool = False, size: float = 1.0) -> dict[str, Any]:
    """All checks, in the order in which a run would meet them.

    Args:
        size: GB that `live` pushes and pulls.
    """
    checks = [*_python(), *_packages(), *_machine(), *_kernels(), *_sandbox(), *_home(), *_hub(endpoint, live, size)]
    return {
        "schema": SCHEMA,
        "ok": all(check.state != "broken" for check in checks),
        "checks": [asdict(check) for check in checks],
    }


# --------------------------------------------------------------------------------------------- packages


def _python() -> Iterator[Check]:
    found = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= MIN_PYTHON
    yield Check("python", "ok" if good else "broken", found, "" if good else "expected 3.11 or newer")


def _packages() -> Iterator[Check]:
    """Every dependency of ours, with its extra, against its pin."""
    for text in requires("erpd-hub") or []:
        name, pin, extra = _requirement(text)
        if name == "erpd-hub" or extra in ("test", "space"):
            continue
        yield _package(name, pin, extra)


def _requirement(text: str) -> tuple[str, str, str]:
    """(name, version specifier, extra) of a metadata line such as `torch<3,>=2.11; extra == "train"`."""
    requirement, _, marker = text.partition(";")
    name = requirement.strip()
    for index, character in enumerate(name):
        if character in "<>=!~[ (":
            name, pin = name[:index], name[index:]
            break
    else:
        pin = ""
    pin = pin.partition("]")[2] if pin.startswith("[") else pin
    extra = marker.partition("extra ==")[2].strip().strip("\"' ")
    return name, pin.strip(" ()"), extra


def _package(name: str, pin: str, extra: str) -> Check:
    label = f"{name} ({extra})" if extra else name
    install = f"pip install 'erpd-hub[{extra}]'" if extra else "pip install --upgrade erpd-hub"
    try:
        found = version(name)
    except PackageNotFoundError:
        state: State = "note" if extra else "broken"
        where = " into an environment of its own, named by a step's `python`" if extra == "vllm" else ""
        return Check(label, state, "not installed", f"needed for {extra or 'everything'}: {install}{where}")
    if _within(found, pin):
        return Check(label, "ok", f"{found} ({pin})" if pin else found)
    return Check(label, "broken", f"{found}, expected {pin}", install)


def _within(found: str, pin: str) -> bool:
    """Whether a version meets a specifier of plain comparisons, which is all our pins are."""
    numbers = _numbers(found)
    for part in filter(None, (piece.strip() for piece in pin.split(","))):
        operator = part.rstrip("0123456789.abrcpostdev ")
        bound = _numbers(part[len(operator) :])
        width = max(len(numbers), len(bound))
        a, b = (value + (0,) * (width - len(value)) for value in (numbers, bound))
        if not {">=": a >= b, "<": a < b, "<=": a <= b, ">": a > b, "==": a == b, "!=": a != b}.get(operator, True):
            return False
    return True


def _numbers(text: str) -> tuple[int, ...]:
    found = []
    for piece in text.split("+")[0].split("."):
        digits = "".join(character for character in piece if character.isdigit())
        if not digits or not piece[0].isdigit():
            break
        found.append(int(digits))
    return tuple(found)


# ---------------------------------------------------------------------------------------------- machine


def _machine() -> Iterator[Check]:
    gpus = _gpus()
    if gpus:
        yield Check("GPUs", "ok", "; ".join(gpus))
    else:
        yield Check(
            "GPUs", "note", "none seen by nvidia-smi", "tiny models run on the CPU; nothing else is quick there"
        )
    if gpus and find_spec("torch"):
        yield _cuda()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("CPU", "ok", f"{cores} cores")
    memory = _host_memory()
    if memory is not None:
        yield Check("host memory", "ok" if memory >= 4 else "note", f"{memory:.0f} GB",
                    "" if memory >= 4 else "loading a 4B model in fp32 takes 16 GB of it")  # fmt: skip


def _gpus() -> list[str]:
    """`name, memory` of each GPU, asked of the driver: importing torch for it would open a context."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


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


def _kernels() -> Iterator[Check]:
    """Compiled kernels that an architecture is slow without; none is needed for a right result."""
    wanted = {
        "flash_attn": ("long sequences under attn_implementation=flash_attention_2; sdpa needs none",
                       "pip install --no-build-isolation flash-attn"),
        "fla": ("Qwen3.5's linear attention", "pip install 'erpd-hub[linear-attention]'"),
        "causal_conv1d": ("Qwen3.5's linear attention", "pip install --no-build-isolation causal-conv1d"),
    }  # fmt: skip
    for module, (purpose, remedy) in wanted.items():
        there = find_spec(module) is not None
        yield Check(f"kernels {module}", "ok" if there else "note", "installed" if there else "not installed",
                    "" if there else f"for {purpose}: {remedy}")  # fmt: skip


# -------------------------------------------------------------------------------------------------- home


def _sandbox() -> Iterator[Check]:
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


def _home() -> Iterator[Check]:
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


# --------------------------------------------------------------------------------------------------- Hub


def _hub(endpoint: str, live: bool, size: float) -> Iterator[Check]:
    try:
        hub = connect(endpoint)
        hub.patient = False
        who = _who(hub)
    except ErpdError as error:
        yield Check("Hub", "broken", str(error), "check the endpoint and the network, or use --endpoint local")
        return
    yield who
    if live:
        yield from _live(hub, size)


def _who(hub: Hub) -> Check:
    """Reachable, and as whom; the name is shown, the token is not."""
    if hub.embedded is not None:
        return Check("Hub", "ok", "the embedded Hub is up; it needs no token")
    if not (os.environ.get("ERPD_HUB_TOKEN") or _own_token()):
        remedy = "run `hf auth login` or set HF_TOKEN; for an endpoint of your own, ERPD_HUB_TOKEN"
        return Check("Hub", "broken", f"no token for {hub.identity}", remedy)
    name = hub.ask(lambda: hub.api.whoami())["name"]
    return Check("Hub", "ok", f"{hub.identity} is reached as {name}")


def _own_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _live(hub: Hub, size: float) -> Iterator[Check]:
    """Create a private repository, push, pull, compare, delete: what a run does, with its speed.

    The repository and all files are gone afterwards, whatever fails.
    """
    from huggingface_hub import CommitOperationAdd

    namespace = "local" if hub.embedded is not None else hub.ask(lambda: hub.api.whoami())["name"]
    repo = f"{namespace}/erpd-doctor-{os.urandom(4).hex()}"
    step = "create a private repository"
    with tempfile.TemporaryDirectory(dir=home(), prefix="doctor-") as folder:
        path = Path(folder) / "probe.bin"
        digest = _write_random(path, round(size * 1e9))
        try:
            hub.ask(lambda: hub.api.create_repo(repo, repo_type="model", private=True))
            step = f"push {size:g} GB"
            started = time.monotonic()
            addition = CommitOperationAdd("probe.bin", path)
            hub.ask(lambda: hub.api.create_commit(repo, operations=[addition], commit_message="doctor"))
            pushed = time.monotonic() - started
            step, started = f"pull {size:g} GB", time.monotonic()
            back = hub.ask(lambda: hub.api.hf_hub_download(repo, "probe.bin", cache_dir=Path(folder) / "cache"))
            pulled = time.monotonic() - started
            same = _sha256(Path(back)) == digest
        except (ErpdError, OSError) as error:
            yield Check(
                "live", "broken", f"cannot {step}: {error}", "check the token's right to write, quota and network"
            )
            return
        finally:
            left = _deleted(hub, repo)
    yield Check("live", "ok" if same else "broken",
                f"pushed {size:g} GB at {size * 1e3 / pushed:,.0f} MB/s, pulled at {size * 1e3 / pulled:,.0f} MB/s, "
                f"{'the same bytes' if same else 'OTHER BYTES came back'}",
                "" if same else "a proxy or the storage alters files; do not run against this endpoint")  # fmt: skip
    yield left


def _deleted(hub: Hub, repo: str) -> Check:
    try:
        hub.ask(lambda: hub.api.delete_repo(repo, repo_type="model", missing_ok=True))
    except ErpdError as error:
        return Check("live clean-up", "broken", f"{repo} could not be deleted: {error}", "delete it by hand")
    return Check("live clean-up", "ok", "the repository is deleted again")


def _write_random(path: Path, size: int) -> str:
    """A file of random bytes, which no storage can deduplicate; its sha256."""
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        while size > 0:
            block = os.urandom(min(size, 1 << 24))
            digest.update(block)
            stream.write(block)
            size -= len(block)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
