"""How a stage runs: in this process, in another interpreter, as replicas that share its work, or under `accelerate`.

Without `--gpus` everything runs here, and a stage with `python` in that interpreter. With it, what samples or scores
runs as one process for each GPU (or group of `tensor_parallel` GPUs), and training under `accelerate launch` with the
preset of its `parallel`. Each of these processes ends with its stage, so the next one finds the memory free; this one
never opens a GPU. On a machine without GPUs as many CPU processes rehearse it.
"""

import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import yaml

from erpd_hub import config as c
from erpd_hub import provenance
from erpd_hub.errors import ConfigError, StageError
from erpd_hub.launching.machine import check_interpreter, visible_gpus
from erpd_hub.launching.processes import Command, Ended, alone, run_together
from erpd_hub.launching.worker import Job, StageRun, answer_path, read_answer, run_job

Preset = Literal["single", "ddp", "fsdp2", "zero3"]

_REPLICATED = (c.RolloutConfig, c.ScoreConfig, c.ProbeConfig, c.EvaluateConfig)
_LIGHT = ("prompts", "unlearned", "signal", "gate", "judge")
"""Stages that never open a GPU."""

_OF_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_",
             "ACCELERATE_", "FSDP_")  # fmt: skip
"""Beginnings of the names by which a rank of a training knows what it is."""

logger = logging.getLogger(__name__)


class AccelerateFile(NamedTuple):
    """What a config of accelerate says that concerns us."""

    path: Path
    machines: int
    processes: int | None
    """On all machines together."""
    kind: str
    """`fsdp`, `deepspeed`, `multi_gpu`."""

    @classmethod
    def read(cls, path: Path) -> "AccelerateFile":
        """Raises:
        ConfigError: it is no mapping in YAML.
        """
        try:
            data = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError):
            data = None
        if not isinstance(data, dict):
            raise ConfigError(
                f"--launch: expected a config of accelerate, got {path.name}; `accelerate config` makes one"
            )
        kind = str(data.get("distributed_type", "")).lower()
        return cls(path, int(data.get("num_machines") or 1), data.get("num_processes"), kind)


@dataclass(frozen=True)
class Launch:
    """What `--gpus` and `--launch` said, and what this machine has."""

    gpus: int | None = None
    """Processes of a stage; None runs it in this process."""
    devices: tuple[str, ...] = ()
    """The GPUs of this machine by what CUDA_VISIBLE_DEVICES calls them, as many as `gpus`; none on a CPU."""
    accelerate: AccelerateFile | None = None
    """The user's own file for training, in place of a preset."""

    @classmethod
    def from_options(cls, gpus: int | None, launch: str | None) -> "Launch":
        """Check the options against the machine.

        Raises:
            ConfigError: more GPUs than there are, or an unknown way to launch.
        """
        file = None
        if launch is not None:
            kind, _, name = launch.partition(":")
            path = Path(name).expanduser().absolute()
            if kind != "accelerate" or not path.is_file():
                raise ConfigError(f"--launch: expected accelerate:FILE with an existing file, or slurm, got {launch!r}")
            file = AccelerateFile.read(path)
            gpus = gpus or (file.processes or file.machines) // file.machines
        devices = visible_gpus() if gpus is not None else ()
        if gpus is not None and devices and gpus > len(devices):
            raise ConfigError(f"--gpus: expected at most {len(devices)}, the GPUs of this machine, got {gpus}")
        if gpus is not None and gpus > 1 and not devices:
            logger.warning("no GPU on this machine: %d CPU processes rehearse --gpus %d", gpus, gpus)
        return cls(gpus, devices[: gpus or 0], file)

    def groups(self, config: c.StepConfig) -> int:
        """Replicas of a stage that samples or scores: one for each engine's GPUs; 1 for any other.

        Raises:
            ConfigError: `tensor_parallel` does not divide the GPUs.
        """
        if self.gpus is None or not isinstance(config, _REPLICATED) or _is_remote(config):
            return 1
        size = _tensor_parallel(config)
        if self.gpus % size:
            raise ConfigError(f"{config.stage}.engine.tensor_parallel: expected a divisor of --gpus {self.gpus}, got "
                              f"{size}")  # fmt: skip
        return self.gpus // size


def run_stage(job: Job, launch: Launch, folder: Path) -> StageRun:
    """Run a stage the way that `launch` says.

    Args:
        folder: For jobs, answers and logs; survives a kill.

    Raises:
        ErpdError: what the stage raised, wherever it ran.
    """
    if launch.gpus and isinstance(job.config, c.TrainingConfig) and (launch.gpus > 1 or launch.accelerate):
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
    devices = launch.devices[: _tensor_parallel(job.config)]
    run = _run([_worker(job, folder, "job", job.name, devices or None, threads=_threads(job, 1))], folder, lock)
    return replace(run, processes=len(devices) or 1)


def _replicate(job: Job, launch: Launch, folder: Path, lock: int, count: int) -> StageRun:
    """Each replica does its share, then one process finds all of it done and finishes."""
    size = len(launch.devices) // count
    commands = [
        _worker(
            job.replica(index, count), folder, f"job-{index}", f"{job.name} {index + 1}/{count}",
            launch.devices[index * size : (index + 1) * size] or None, threads=_threads(job, count),
        )
        for index in range(count)
    ]  # fmt: skip
    run = _run(commands, folder, lock)
    if launch.devices or job.config.python:
        done = _elsewhere(job, launch, folder, lock).result
    else:
        done = run_job(job)
    return StageRun(done, {**run.environment, "processes": launch.gpus}, processes=launch.gpus or count)


def _train(job: Job, launch: Launch, folder: Path, lock: int) -> StageRun:
    """Under `accelerate launch`; the first process writes."""
    assert launch.gpus is not None
    threads = _threads(job, launch.gpus)
    command = _worker(job, folder, "job", job.name, launch.devices or None, threads=threads)
    config = _accelerate_config(job, launch)
    total = launch.gpus * config.machines
    options = ["--config_file", str(config.path), "--num_processes", str(total), "--num_cpu_threads_per_process"]
    options += [str(threads), "-m", "erpd_hub.launching.worker", str(folder / "job.json")]
    head = [_python(job), "-m", "accelerate.commands.launch"]
    command = replace(command, arguments=_on_machines(job.name, config.machines, head, options))
    run = _run([command], folder, lock)
    return StageRun(run.result, {**run.environment, "processes": total, "parallel": config.kind}, processes=total)


def _accelerate_config(job: Job, launch: Launch) -> AccelerateFile:
    """How the processes of a training share the model: as the user's file says, or a preset."""
    from erpd_hub.accelerate_configs import preset_path

    if launch.accelerate is not None:
        return launch.accelerate
    preset = _preset(job, launch)
    return AccelerateFile(preset_path(preset), 1, None, preset)


def _preset(job: Job, launch: Launch) -> Preset:
    """The preset of `parallel`; `auto` is DDP where every GPU can hold the whole training, else FSDP2."""
    parallel: str = job.config.parallel  # type: ignore[attr-defined]
    if not launch.devices:
        if parallel == "fsdp2":
            logger.warning("%s: FSDP2 needs GPUs, DDP rehearses it", job.name)
        return "zero3" if parallel == "zero3" else "ddp"
    if parallel == "auto":
        return "ddp" if _fits_each(job, launch) else "fsdp2"
    return parallel  # type: ignore[return-value]


def _fits_each(job: Job, launch: Launch) -> bool:
    """Whether one GPU holds weights, gradients, Adam state and activations of the longest sequence."""
    from erpd_hub.planning.devices import USABLE
    from erpd_hub.planning.estimate import training_memory
    from erpd_hub.planning.facts import facts_of_folder

    config = job.config
    assert isinstance(config, c.TrainingConfig)
    facts = facts_of_folder(job.inputs["init"])
    if facts is None:
        return False
    memory = training_memory(
        facts,
        tokens=max(_longest(job), config.micro_batch_tokens),
        gpus=len(launch.devices),
        strategy="ddp",
        gradient_checkpointing=config.gradient_checkpointing,
        offload=config.activation_offload,
        lora_rank=config.lora.r if config.lora else None,
        dtype=config.dtype,
        context_parallel=config.context_parallel,
    )
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    mebibytes = min(map(int, subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()))
    return memory.total <= USABLE * mebibytes * (1 << 20) / 1e9


def _longest(job: Job) -> int:
    """Tokens of the longest sequence that is trained on; of an online step, which has yet to draw it, the limit."""
    from erpd_hub.columns import ShardReader, row_lengths
    from erpd_hub.samples import shard_paths

    if isinstance(job.config, c.OnlineConfig):
        return job.config.decoding.max_new_tokens  # prompts are short against it
    longest = 0
    for shard in shard_paths(job.inputs["rollouts"]):
        for block in ShardReader(shard, ["prompt_ids", "response_ids"]).blocks():
            lengths = row_lengths(block["prompt_ids"]) + row_lengths(block["response_ids"])
            longest = max(longest, int(lengths.max(initial=0)))
    return longest


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


# ------------------------------------------------------------------------------------------ workers


def _worker(job: Job, folder: Path, stem: str, label: str, devices: Sequence[str] | None, *, threads: int) -> Command:
    path = replace(job, threads=job.threads or (None if devices else threads)).dump(folder / f"{stem}.json")
    for old in folder.glob(f"{stem}.rank-*"):
        old.unlink()
    check_interpreter(job.name, job.config)
    return Command(label, [_python(job), "-m", "erpd_hub.launching.worker", str(path)], _environment(devices, threads),
                   folder / f"{stem}.log")  # fmt: skip


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


def _run(commands: Sequence[Command], folder: Path, lock: int) -> StageRun:
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


def _python(job: Job) -> str:
    return job.config.python or sys.executable


def _threads(job: Job, processes: int) -> int:
    """CPU threads of each of several processes on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return job.threads or max(1, cores // processes)


def _tensor_parallel(config: c.StepConfig) -> int:
    engine: Any = getattr(config, "engine", None)
    return engine.tensor_parallel if isinstance(engine, c.VLLMEngine) else 1


def _is_remote(config: c.StepConfig) -> bool:
    """Whether the sampling is done by servers: one client is enough for them."""
    return isinstance(getattr(config, "engine", None), c.ServerEngine)
