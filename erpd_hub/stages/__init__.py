"""The stages: each a function `run(config, out, *, context, <role>=Path, ...) -> StageResult` in a module of its own.

A stage reads input folders and writes one output folder; it never touches the Hub. The runner pulls its inputs before
it, writes `lineage.json` after it and pushes. A stage may be killed anywhere: what it keeps under `context.work` lets
the next call continue, and the result is the same.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["checkpoint", "prompts", "rollouts", "logprobs", "critic", "signal", "probe", "details", "gate"]


@dataclass(frozen=True)
class StageContext:
    """What the runner hands to every stage besides config and inputs."""

    seed: int
    work: Path
    """Scratch that survives a kill; private to this fingerprint."""
    replica: int = 0
    replicas: int = 1
    """This process is one of several that share the work: it does its part of the plan and leaves the rest, and the
    call with `replicas == 1` that follows finds all parts done and finishes the artifact."""


@dataclass(frozen=True)
class StageResult:
    """What a stage reports about the folder it wrote."""

    metrics: dict[str, Any] = field(default_factory=dict)
    """JSON values for lineage and card; no times (those go to `metrics.jsonl`)."""
    step_metrics: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Saved steps of a training stage: `out/step-N/` holds each, complete by itself; the last is the artifact."""


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
    "unlearned": Stage("checkpoint", "model", 2),
    "signal": Stage("signal", "dataset", 4),
    "distill": Stage("checkpoint", "model", 1),
    "online": Stage("checkpoint", "model", 2),
    "probe": Stage("probe", "dataset", 1),
    "evaluate": Stage("details", "dataset", 2),
    "judge": Stage("details", "dataset", 2),
    "gate": Stage("gate", "dataset", 2),
    "select": Stage("checkpoint", "model", 2),
}
