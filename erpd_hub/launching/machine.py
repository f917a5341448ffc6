"""What this machine has for a stage, found out before anything runs: GPUs, another interpreter, a tracker."""

import os
import shutil
import subprocess
from functools import cache
from importlib.util import find_spec

from erpd_hub import __version__
from erpd_hub import config as c
from erpd_hub.errors import ConfigError


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, found without opening one."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return tuple(name.strip() for name in given.split(",") if name.strip() not in ("", "-1"))
    return tuple(ask_driver("index"))


def ask_driver(what: str) -> list[str]:
    """What nvidia-smi says of each GPU, which opens none; nothing where it is missing or fails.

    Args:
        what: As for its `--query-gpu`.

    Raises:
        subprocess.TimeoutExpired: the driver does not answer.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=60)
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def available_cores() -> int:
    """Of this process, which may be fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_machine(name: str, config: c.StepConfig) -> None:
    """Refuse what this machine lacks for a stage, before the stages in front of it have run.

    Raises:
        ConfigError: no such interpreter, or none with this package; no such tracker.
    """
    check_interpreter(name, config)
    tracker = getattr(config, "report_to", "none")
    if tracker != "none" and not config.python and find_spec(tracker) is None:
        raise ConfigError(
            f"{name}.report_to: expected {tracker} to be installed, got no such package; `pip install {tracker}`, or "
            "set report_to to none"
        )


def check_interpreter(name: str, config: c.StepConfig) -> None:
    """Raises:
    ConfigError: the interpreter that the stage names cannot run it.
    """
    if config.python and (problem := _interpreter_problem(config.python)):
        raise ConfigError(f"{name}.python: {problem}")


@cache
def _interpreter_problem(python: str) -> str | None:
    """Why an interpreter cannot run our stages: it is none, or this package is not installed for it as it is here."""
    ask = [python, "-P", "-c", "import erpd_hub.launching.worker; print(erpd_hub.__version__)"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=120)
    except OSError as error:
        return f"expected a Python interpreter, got {python}: {error.strerror}"
    found = done.stdout.strip()
    if done.returncode == 0 and found == __version__:
        return None
    said = found or (done.stderr.strip().splitlines() or ["nothing"])[-1]
    return (
        f"expected erpd-hub {__version__} in the environment of {python}, got {said!r}; run: {python} -m pip install "
        f"'erpd-hub=={__version__}' (from a checkout: {python} -m pip install .)"
    )
