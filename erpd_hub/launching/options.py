"""What `--gpus` and `--launch` said, checked against this machine: how many processes, and on which GPUs."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from erpd_hub import config as c
from erpd_hub.errors import ConfigError
from erpd_hub.launching.machine import visible_gpus

_REPLICATED = (c.RolloutConfig, c.ScoreConfig, c.ProbeConfig, c.EvaluateConfig)

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
        size = tensor_parallel(config)
        if self.gpus % size:
            raise ConfigError(f"{config.stage}.engine.tensor_parallel: expected a divisor of --gpus {self.gpus}, got "
                              f"{size}")  # fmt: skip
        return self.gpus // size


def tensor_parallel(config: c.StepConfig) -> int:
    """GPUs of one sampling engine."""
    engine: Any = getattr(config, "engine", None)
    return engine.tensor_parallel if isinstance(engine, c.VLLMEngine) else 1


def _is_remote(config: c.StepConfig) -> bool:
    """Whether the sampling is done by servers: one client is enough for them."""
    return isinstance(getattr(config, "engine", None), c.ServerEngine)
