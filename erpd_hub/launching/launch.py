"""How a stage runs: in this process, in another interpreter, as replicas that share its work, or under `accelerate`.

Without `--gpus` everything runs here, and a stage with `python` in that interpreter. With it, what samples or scores
runs as one process for each GPU (or group of `tensor_parallel` GPUs), and training under `accelerate launch` with the
preset of its `parallel`. Each of these processes ends with its stage, so the next one finds the memory free; this one
never opens a GPU. On a machine without GPUs as many CPU processes rehearse it.
"""

import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path

from erpd_hub import config as c
from erpd_hub import provenance
from erpd_hub.errors import ConfigError
from erpd_hub.launching.commands import interpreter, run_workers, threads_each, worker_command
from erpd_hub.launching.options import Launch, tensor_parallel
from erpd_hub.launching.processes import alone
from erpd_hub.launching.sharing import accelerate_config
from erpd_hub.launching.worker import Job, StageRun, run_job

_LIGHT = ("prompts", "unlearned", "signal", "gate", "judge")
"""Stages that never open a GPU."""


def run_stage(job: Job, launch: Launch, folder: Path) -> StageRun:
    """Run a stage the way that `launch` says.

    Args:
        folder: For jobs, answers and logs; survives a kill.

    Raises:
        ErpdError: what the stage raised, wherever it ran.
    """
    together = isinstance(job.config, c.TrainingConfig) and not job.config.in_one_process
    if launch.gpus and together and (launch.gpus > 1 or launch.accelerate):
        with alone(folder / "running.lock") as lock:
            return _train(job, launch, folder, lock)
    replicas = launch.groups(job.config)
    if replicas > 1:
        with alone(folder / "running.lock") as lock:
            return _replicate(job, launch, folder, lock, replicas)
    if job.config.python or (launch.devices and job.config.stage not in _LIGHT):
        with alone(folder / "running.lock") as lock:
            return _elsewhere(job, launch, folder, lock)
    device = {"device": "cpu"} if launch.devices else None  # asking torch for its name would open a GPU here
    result = run_job(job)
    return StageRun(result, {**provenance.environment(), **(device or provenance.device())})


def _elsewhere(job: Job, launch: Launch, folder: Path, lock: int) -> StageRun:
    """In one worker process."""
    devices = launch.devices[: tensor_parallel(job.config)]
    command = worker_command(job, folder, "job", job.name, devices or None, threads=threads_each(job, 1))
    run = run_workers([command], folder, lock)
    return replace(run, processes=len(devices) or 1)


def _replicate(job: Job, launch: Launch, folder: Path, lock: int, count: int) -> StageRun:
    """Each replica does its share, then one process finds all of it done and finishes."""
    size = len(launch.devices) // count
    commands = [
        worker_command(
            job.replica(index, count), folder, f"job-{index}", f"{job.name} {index + 1}/{count}",
            launch.devices[index * size : (index + 1) * size] or None, threads=threads_each(job, count),
        )
        for index in range(count)
    ]  # fmt: skip
    run = run_workers(commands, folder, lock)
    if launch.devices or job.config.python:
        done = _elsewhere(job, launch, folder, lock).result
    else:
        done = run_job(job)
    return StageRun(done, {**run.environment, "processes": launch.gpus}, processes=launch.gpus or count)


def _train(job: Job, launch: Launch, folder: Path, lock: int) -> StageRun:
    """Under `accelerate launch`; the first process writes."""
    assert launch.gpus is not None
    threads = threads_each(job, launch.gpus)
    command = worker_command(job, folder, "job", job.name, launch.devices or None, threads=threads)
    config = accelerate_config(job, launch)
    total = launch.gpus * config.machines
    options = ["--config_file", str(config.path), "--num_processes", str(total), "--num_cpu_threads_per_process"]
    options += [str(threads), "-m", "erpd_hub.launching.worker", str(folder / "job.json")]
    head = [interpreter(job), "-m", "accelerate.commands.launch"]
    command = replace(command, arguments=_on_machines(job.name, config.machines, head, options))
    run = run_workers([command], folder, lock)
    return StageRun(run.result, {**run.environment, "processes": total, "parallel": config.kind}, processes=total)


def _on_machines(name: str, machines: int, head: list[str], options: list[str]) -> list[str]:
    """The command of a training; on several machines of a SLURM job one of it on each, which meet at this one."""
    if machines == 1:
        return [*head, *options]
    if "SLURM_JOB_ID" not in os.environ or shutil.which("srun") is None:
        raise ConfigError(
            f"{name}: --launch: expected a SLURM job for num_machines {machines}, got none; sbatch the script that "
            "--launch slurm prints"
        )
    srun = ["srun", f"--nodes={machines}", f"--ntasks={machines}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    command = f'exec {" ".join(head)} --machine_rank "$SLURM_PROCID" --main_process_ip "$0" "$@"'
    return [*srun, "bash", "-c", command, socket.gethostname(), *options]
