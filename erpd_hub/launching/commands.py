"""The worker processes of a stage as commands, and what becomes of their answers."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from erpd_hub.errors import StageError
from erpd_hub.launching.machine import available_cores, check_interpreter, visible_gpus
from erpd_hub.launching.processes import Command, Ended, run_together
from erpd_hub.launching.worker import Job, StageRun, answer_path, read_answer

_OF_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_",
             "ACCELERATE_", "FSDP_")  # fmt: skip
"""Beginnings of the names by which a rank of a training knows what it is."""


def worker_command(
    job: Job, folder: Path, stem: str, label: str, devices: Sequence[str] | None, *, threads: int
) -> Command:
    """A process for a job, which is written down for it in `folder`; an earlier one's answers are removed.

    Args:
        stem: Of the names of its files.
        devices: GPUs of its own; None leaves it those that there are.
    """
    path = replace(job, threads=job.threads or (None if devices else threads)).dump(folder / f"{stem}.json")
    for old in folder.glob(f"{stem}.rank-*"):
        old.unlink()
    check_interpreter(job.name, job.config)
    arguments = [interpreter(job), "-m", "erpd_hub.launching.worker", str(path)]
    return Command(label, arguments, _environment(devices, threads), folder / f"{stem}.log")


def _environment(devices: Sequence[str] | None, threads: int) -> Mapping[str, str]:
    """That of this process, with the GPUs and cores that are the child's."""
    found = {**_outside_environment(), "OMP_NUM_THREADS": str(threads), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
    if devices is None:
        return {**found, "ACCELERATE_USE_CPU": "true"} if not visible_gpus() else found
    return {**found, "CUDA_VISIBLE_DEVICES": ",".join(devices)}


def _outside_environment() -> dict[str, str]:
    """That of this process; what starts in a rank of a training, which samples for itself, is no rank of it."""
    if "RANK" not in os.environ:
        return dict(os.environ)
    return {name: value for name, value in os.environ.items() if not name.startswith(_OF_RANKS)}


def run_workers(commands: Sequence[Command], folder: Path, lock: int) -> StageRun:
    """Run workers to their end.

    Raises:
        ErpdError: what the first of them that failed met.
    """
    ended = run_together(commands, lock)
    if failed := next((item for item in ended if item.code), None):
        _raise_failure(failed, folder)
    return read_answer(answer_path(commands[0].log.with_suffix(".json")), commands[0].log)


def _raise_failure(failed: Ended, folder: Path) -> NoReturn:
    log = failed.command.log
    for answer in sorted(folder.glob(f"{log.stem}.rank-*.answer")):
        read_answer(answer, log)  # raises what the worker met
    raise StageError(
        f"{failed.command.label}: {failed.reason}; what is finished is kept and the same command goes on; all it "
        f"said: {log}"
    )


def interpreter(job: Job) -> str:
    """The Python that a stage runs in."""
    return job.config.python or sys.executable


def threads_each(job: Job, processes: int) -> int:
    """CPU threads of each of several processes on this machine."""
    return job.threads or max(1, available_cores() // processes)
