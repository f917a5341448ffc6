"""The stages: each a function `run(config, out, *, context, <role>=Path, ...) -> StageResult` in a module of its own.

A stage reads input folders and writes one output folder; it never touches the Hub. The runner pulls its inputs before
it, writes `lineage.json` after it and pushes. A stage may be killed anywhere: what it keeps under `context.work` lets
the next call continue, and the result is the same.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from erpd_hub.stage_context import StageResult

Kind = Literal["checkpoint", "prompts", "rollouts", "logprobs", "critic", "signal", "probe", "details", "gate"]


@dataclass(frozen=True)
class Stage:
    """How the pipeline sees a stage."""

    kind: Kind
    repo_type: Literal["model", "dataset"]
    version: int
    """Goes into the fingerprint; raised when the same config makes something else."""

    def load(self, name: str) -> Callable[..., StageResult]:
        """Import the stage's `run` (and with it torch, where it needs torch)."""
        return importlib.import_module(f"erpd_hub.stages.{name}").run


STAGES: dict[str, Stage] = {
    "base": Stage("checkpoint", "model", 1),
    "prompts": Stage("prompts", "dataset", 2),
    "rollout": Stage("rollouts", "dataset", 2),
    "score": Stage("logprobs", "dataset", 4),
    "critic": Stage("critic", "model", 1),
    "teacher": Stage("checkpoint", "model", 2),
    "unlearned": Stage("checkpoint", "model", 3),
    "signal": Stage("signal", "dataset", 4),
    "distill": Stage("checkpoint", "model", 1),
    "online": Stage("checkpoint", "model", 2),
    "probe": Stage("probe", "dataset", 1),
    "evaluate": Stage("details", "dataset", 2),
    "judge": Stage("details", "dataset", 2),
    "gate": Stage("gate", "dataset", 2),
    "select": Stage("checkpoint", "model", 2),
}
