"""One process of a stage that does not run in the main one: `python -m erpd_hub.launching.worker JOB.json`.

The job is a file of plain JSON, so nothing is unpickled and the environment it runs in needs this package and what the
stage imports, nothing of the run's Hub. The answer is a file beside it: the stage's result, or the error as one line.
"""

import importlib.util
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from erpd_hub import config as c
from erpd_hub import plugins, provenance
from erpd_hub.artifacts import write_json
from erpd_hub.errors import ErpdError, require_extra
from erpd_hub.recipe import parse_step
from erpd_hub.stage_context import StageContext, StageResult
from erpd_hub.stages import STAGES

MARK = "\x1f"
"""Begins a line of a worker's own log, with its level; everything else that comes out of it is only kept in a file."""
Inputs = dict[str, Any]
"""Folders by the names of the stage's keyword parameters: a path, a tuple of them, or paths by name."""


@dataclass(frozen=True)
class Job:
    """A stage with all it needs."""

    name: str
    """Of the artifact, for messages."""
    config: c.StepConfig
    out: Path
    inputs: Inputs
    context: StageContext
    threads: int | None = None
    """CPU threads of each process; None is torch's own choice."""

    def replica(self, index: int, count: int) -> "Job":
        return replace(self, context=replace(self.context, replica=index, replicas=count))

    def dump(self, path: Path) -> Path:
        """Write the job for a worker; every path in it is absolute."""
        context = asdict(self.context) | {"work": str(self.context.work.absolute())}
        data = {
            "name": self.name,
            "stage": self.config.stage,
            "config": self.config.model_dump(mode="json"),
            "out": str(self.out.absolute()),
            "inputs": _paths_as_text(self.inputs),
            "context": context,
            "threads": self.threads,
            "user_code": plugins.code_identity(self.config),
        }
        write_json(path, json.dumps(data, indent=2))
        return path

    @classmethod
    def load(cls, path: Path) -> "Job":
        """Read a job; its config is checked again, by the very types that a recipe is checked with."""
        data = json.loads(path.read_text())
        plugins.expect(data["user_code"])
        return cls(
            name=data["name"],
            config=parse_step(data["stage"], data["config"], data["name"]),
            out=Path(data["out"]),
            inputs=_text_as_paths(data["inputs"]),
            context=StageContext(**data["context"] | {"work": Path(data["context"]["work"])}),
            threads=data["threads"],
        )


@dataclass(frozen=True)
class StageRun:
    """What a stage reported, and where it ran."""

    result: StageResult
    environment: dict[str, Any]
    processes: int = 1


def run_job(job: Job) -> StageResult:
    """Run the stage's function in this process.

    Raises:
        ErpdError: a package of the `train` or `eval` extra is missing.
    """
    if job.threads is not None and importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(job.threads)
    stage = job.config.stage
    try:
        return STAGES[stage].load(stage)(job.config, job.out, context=job.context, **job.inputs)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("erpd_hub"):
            raise
        raise require_extra("train,eval", f"{job.name} ({error.name})") from error


def answer_path(job: Path, rank: int = 0) -> Path:
    return job.with_suffix(f".rank-{rank}.answer")


def read_answer(path: Path, log: Path) -> StageRun:
    """The result in an answer.

    Args:
        log: Where the traceback of an error that is not for people can be read.

    Raises:
        ErpdError: the one that the worker met, of the same class.
    """
    from erpd_hub import errors

    data = json.loads(path.read_text())
    if error := data.get("error"):
        where = f"; all it said: {log}" if error["has_traceback"] else ""
        raise getattr(errors, error["class"])(error["message"] + where)
    steps = {int(step): metrics for step, metrics in data["step_metrics"].items()}
    return StageRun(StageResult(data["metrics"], steps), data["environment"])


def main() -> None:
    path = Path(sys.argv[1])
    rank = int(os.environ.get("RANK", "0"))
    _follow_parent()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a stage can stop gracefully
    _log_to_parent(logging.INFO if rank == 0 else logging.WARNING)
    try:
        answer = _answer(Job.load(path))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if not isinstance(error, ErpdError):
            traceback.print_exc()
        write_json(answer_path(path, rank), json.dumps({"error": _as_data(error)}))
        sys.exit(1)
    if rank == 0:
        write_json(answer_path(path), json.dumps(answer))


def _answer(job: Job) -> dict[str, Any]:
    result = run_job(job)
    environment = {**provenance.environment(), **provenance.device()}
    return {"metrics": result.metrics, "step_metrics": result.step_metrics, "environment": environment}


def _as_data(error: Exception) -> dict[str, Any]:
    """An error for people keeps its class and message; of any other the log has the traceback."""
    if isinstance(error, ErpdError):
        known = next(kind for kind in type(error).__mro__ if kind.__module__ == ErpdError.__module__)
        return {"class": known.__name__, "message": str(error), "has_traceback": False}
    lines = str(error).strip().splitlines() or ["no message"]
    remedy = "; lower micro_batch_tokens, or use more GPUs" if type(error).__name__ == "OutOfMemoryError" else ""
    message = f"{type(error).__name__}: {lines[0]}{remedy}"
    return {"class": "StageError", "message": message, "has_traceback": True}


def _follow_parent() -> None:
    """Be told to stop when the process that started this one is gone, however it went.

    A rank of a training that waits for the others in a collective hears no Python handler, and has nothing to save.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL if "RANK" in os.environ else signal.SIGTERM)  # PR_SET_PDEATHSIG


def _log_to_parent(level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line())
    logger = logging.getLogger("erpd_hub")
    logger.setLevel(level)
    logger.addHandler(handler)
    logger.propagate = False


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{MARK}{record.levelno}{MARK}{' '.join(record.getMessage().split())}"


def _paths_as_text(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _paths_as_text(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [_paths_as_text(item) for item in value]
    return None if value is None else str(Path(value).absolute())


def _text_as_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _text_as_paths(item) for name, item in value.items()}
    if isinstance(value, list):
        return tuple(_text_as_paths(item) for item in value)
    return None if value is None else Path(value)


if __name__ == "__main__":
    main()
