"""Environments of other harnesses: their packages refuse to live beside ours, so each has a Python of its own.

An environment is built on demand under ERPD_HOME (or in ERPD_ENVIRONMENTS, which homes may share) from pins that ship
(`lighteval.txt`, `evalscope.txt`), with the CPU build of torch and no other. Nothing is imported from it: `foreign/`
runs there by path, through files and pipes.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Literal

from erpd_hub.errors import ErpdError
from erpd_hub.home import home

Harness = Literal["lighteval", "evalscope"]
HARNESSES: tuple[Harness, ...] = ("lighteval", "evalscope")

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""Where torch's CPU build is; PyPI's build for Linux brings gigabytes of CUDA with it."""

FOREIGN = Path(str(files("erpd_hub.evaluation.backends.foreign")))
_READY = "ready"
_RUN = {"lighteval": "lighteval_run", "evalscope": "evalscope_run, evalscope_programs"}
_TIMEOUT = 3600.0


def environment_folder(harness: Harness) -> Path:
    """Where the environment of these pins is or would be; other pins are another folder."""
    pins = hashlib.sha256(_pins(harness).encode() + sys.version.split()[0].encode()).hexdigest()[:12]
    root = os.environ.get("ERPD_ENVIRONMENTS")
    return (Path(root).expanduser() if root else home() / "environments") / f"{harness}-{pins}"


def find_python(harness: Harness) -> Path | None:
    """The interpreter that has the harness, or None: nothing is built here."""
    folder = environment_folder(harness)
    return _python(folder) if (folder / _READY).is_file() else None


def require_python(harness: Harness) -> Path:
    """The interpreter that has the harness.

    Raises:
        ErpdError: it has not been built.
    """
    python = find_python(harness)
    if python is None:
        raise ErpdError(f"{harness}: its environment is not built; run: erpd-hub backends build {harness}")
    return python


def pinned_version(harness: Harness) -> str:
    """The version that the pins name."""
    return next(line.split("==")[1] for line in _pins(harness).splitlines() if line.startswith(f"{harness}=="))


def build(harness: Harness, *, note: Callable[[str], None] = lambda line: None) -> Path:
    """Make the environment unless it is there: minutes, about 2 GB, one package index.

    Raises:
        ErpdError: pip or the harness's import failed; its last lines are in the message.
    """
    folder = environment_folder(harness)
    if (found := find_python(harness)) is not None:
        return found
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted build left
    folder.parent.mkdir(parents=True, exist_ok=True)
    note(f"building {folder.name} (some minutes, about 2 GB)")
    pins = folder.with_suffix(".txt")
    pins.write_text(_pins(harness), encoding="utf-8")
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], harness)
    _install(folder, pins, harness)
    if harness == "lighteval":
        _seed_registry(folder)
    note(f"importing {harness} for the first time")
    _run(
        [
            str(_python(folder)),
            "-s",
            "-c",
            f"import {_RUN[harness]}, guard, grade_{harness}; grade_{harness}.load()(guard.EXAMPLE)",
        ],
        harness,
        PYTHONPATH=str(FOREIGN),
    )
    (folder / _READY).touch()
    return _python(folder)


def _pins(harness: Harness) -> str:
    return (files("erpd_hub.evaluation.backends") / f"{harness}.txt").read_text(encoding="utf-8")


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _pip(folder: Path) -> list[str]:
    """This interpreter's pip, installing there: a pip of its own takes half a minute to set up."""
    return [sys.executable, "-m", "pip", "--python", str(_python(folder)), "--disable-pip-version-check"]


def _run(command: list[str], harness: str, **variables: str) -> None:
    """Raises ErpdError."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        command, env={**environment, **variables}, capture_output=True, text=True, timeout=_TIMEOUT, check=False
    )
    if done.returncode:
        last = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise ErpdError(f"{harness}: building its environment failed: {last}")


def _install(folder: Path, pins: Path, harness: str) -> None:
    """The pins, torch from its own index unless pip finds the CPU build without: an index is asked for every package.

    Raises:
        ErpdError: pip failed.
    """
    command = [*_pip(folder), "install", "-q", "--no-deps", "--no-compile"]
    torch = next(line for line in pins.read_text(encoding="utf-8").splitlines() if line.startswith("torch=="))
    try:
        _run([*command, torch], harness)
    except ErpdError:
        _run([*command, "--extra-index-url", CPU_INDEX, torch], harness)
    _run([*command, "-r", str(pins)], harness)


def _seed_registry(folder: Path) -> None:
    """An empty file where lighteval's registry would download a pickle while it loads, which nothing here reads."""
    for tasks in folder.glob("lib/python*/site-packages/lighteval/tasks/tasks"):
        (tasks / "tinyBenchmarks.pkl").touch()
