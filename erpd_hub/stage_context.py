"""What goes into a stage besides its config and inputs, and what it says about the folder it wrote."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
    run: str = "erpd-hub"
    """Name of the run, a tracker's project."""
    label: str | None = None
    """The artifact's name there, another for each fingerprint of a step."""


@dataclass(frozen=True)
class StageResult:
    """What a stage reports about the folder it wrote."""

    metrics: dict[str, Any] = field(default_factory=dict)
    """JSON values for lineage and card; no times (those go to `metrics.jsonl`)."""
    step_metrics: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Saved steps of a training stage: `out/step-N/` holds each, complete by itself; the last is the artifact."""
