"""What lineage says about code and machine: versions and a commit, never a name, a host or a path."""

import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from erpd_hub import __version__

PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "peft",
    "deepspeed",
    "datasets",
    "huggingface_hub",
    "vllm",
    "math-verify",
)


@cache
def code() -> dict[str, Any]:
    """Package version, and commit and dirty flag when it runs from a checkout of its own."""
    commit = _git("rev-parse", "HEAD") if (_checkout() / ".git").exists() else None
    dirty = bool(_git("status", "--porcelain")) if commit else None
    return {"version": __version__, "git_commit": commit, "dirty": dirty}


@cache
def environment() -> dict[str, Any]:
    """Python and package versions, and what the tensors live on."""
    found: dict[str, Any] = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def device() -> dict[str, Any]:
    """Device, thread count and, on a CPU, the instructions that kernels were chosen by, for a stage that used torch.

    The last since a CPU of another kind makes other bits of the same plan.
    """
    if "torch" not in sys.modules:
        return {}
    import torch

    if torch.cuda.is_available():
        return {"device": torch.cuda.get_device_name(), "threads": torch.get_num_threads()}
    instructions = torch.backends.cpu.get_cpu_capability()
    return {"device": "cpu", "instructions": instructions, "threads": torch.get_num_threads()}


def _checkout() -> Path:
    return Path(__file__).resolve().parent.parent


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=_checkout(), capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
