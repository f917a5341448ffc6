"""What a run has to show: the summary for programs, the table and the picture for people.

Every number comes from the records of `evaluate` and `probe` artifacts; none is computed or typed here.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from erpd_hub import config as c
from erpd_hub.artifacts import LineageRecord
from erpd_hub.plan import Node, Plan
from erpd_hub.runner import Finished

SCHEMA = "erpd-hub/summary/v1"
Role = Literal["base", "teacher", "unlearned", "student", "control"]


class Checkpoint(NamedTuple):
    """One checkpoint on one benchmark; the probe's numbers are null where it was not probed."""

    ref: str
    role: Role
    step: int | None
    stage: str
    benchmark: str
    avg: float | None
    stderr: float | None
    k: int
    n: int
    kl_to_base: float | None
    """Nats per token, KL(checkpoint || base) on the checkpoint's own samples."""
    kl_stderr: float | None
    entropy: float | None
    mean_length: float | None
    truncated: float | None
    well_formed: float | None
    """Share of samples that end by themselves in an answer of the gold's kind."""
    seconds: float
    """Spent on the checkpoint, its evaluation and its probe."""
    repo: str
    revision: str
    digest: str
    """Of the checkpoint's payload: the same on every machine that made the same bytes."""
    details: str
    """Folder of the details repository, at the commit that holds every sample."""


def summarise_run(plan: Plan, finished: Iterable[Finished], seconds: float) -> dict[str, Any]:
    """The `--json` object."""
    done = list(finished)
    return {
        "schema": SCHEMA,
        "run": plan.recipe.run,
        "seed": plan.recipe.seed,
        "seconds": round(seconds, 2),
        "checkpoints": [item._asdict() for item in checkpoints(plan, done)],
        "artifacts": [_artifact(item) for item in done],
    }


def _artifact(item: Finished) -> dict[str, Any]:
    return {
        "step": item.node.name,
        "stage": item.node.config.stage,
        "repo": item.record.repo_id,
        "repo_type": item.record.repo_type,
        "folder": item.record.folder,
        "revision": item.revision,
        "fingerprint": item.record.fingerprint,
        "digest": item.record.digest,
        "reused": item.reused,
        "seconds": round(item.seconds, 2),
    }


def checkpoints(plan: Plan, finished: Iterable[Finished]) -> list[Checkpoint]:
    """One entry for every evaluated checkpoint and benchmark, in the recipe's order."""
    by_name = {item.node.name: item for item in finished}
    probes = {_measured(item): item for item in by_name.values() if isinstance(item.node.config, c.ProbeConfig)}
    return [_checkpoint(plan, item, probes.get(_measured(item)), by_name) for item in evaluations(by_name.values())]


def evaluations(finished: Iterable[Finished]) -> list[Finished]:
    """The evaluations that count: one that was extended is only a part of its extension."""
    found = [item for item in finished if isinstance(item.node.config, c.EvaluateConfig)]
    extended = {edge.source for item in found for edge in item.node.inputs if edge.role == "extended"}
    return [item for item in found if item.node.name not in extended]


def _measured(item: Finished) -> tuple[str, str]:
    """What identifies the checkpoint that an evaluation or a probe measured: its repository and digest."""
    edge = next(i for i in item.record.inputs if i.role == "checkpoints")
    return str(edge.repo_id), edge.digest


def _checkpoint(plan: Plan, evaluation: Finished, probe: Finished | None, by_name: dict[str, Finished]) -> Checkpoint:
    metrics = evaluation.record.metrics
    probed = probe.record.metrics if probe else {}
    edge = next(e for e in evaluation.node.inputs if e.role == "checkpoints")
    item = next(i for i in evaluation.record.inputs if i.role == "checkpoints")
    origin = evaluation.origins["checkpoints"]
    assert isinstance(evaluation.node.config, c.EvaluateConfig)
    spent = sum(f.seconds for f in (by_name.get(str(edge.source)), evaluation, probe) if f is not None)
    return Checkpoint(
        ref=_reference(plan, evaluation.node),
        role=role_of(origin),
        step=origin.saved_step if origin else None,
        stage=origin.stage if origin else "base",
        benchmark=evaluation.node.config.benchmarks[0],
        avg=metrics["avg"],
        stderr=metrics["stderr"],
        k=metrics["k"],
        n=metrics["n"],
        kl_to_base=probed.get("kl_checkpoint_to_base"),
        kl_stderr=probed.get("kl_checkpoint_to_base_stderr"),
        entropy=probed.get("entropy"),
        mean_length=metrics.get("mean_length"),
        truncated=metrics.get("truncated"),
        well_formed=metrics.get("well_formed"),
        seconds=round(spent, 2),
        repo=str(item.repo_id),
        revision=str(item.revision),
        digest=item.digest,
        details=f"{evaluation.record.repo_id}/{evaluation.record.folder}@{evaluation.revision[:10]}",
    )


def _reference(plan: Plan, node: Node) -> str:
    """The checkpoint as the recipe names it, with its round where there are several."""
    assert isinstance(node.config, c.EvaluateConfig)
    text = node.config.checkpoints[0]
    bare = len(plan.recipe.rounds) == 1 or "/" in text or text == "base"
    return text if bare else f"r{node.round}/{text}"


def role_of(origin: LineageRecord | None) -> Role:
    """What a checkpoint is for the reader; `control` is a student that no teacher's signal went into.

    A model that is not ours has no record and counts as a base.
    """
    if origin is None or origin.stage == "base":
        return "base"
    if origin.stage == "distill":
        return "control" if origin.config["advantage"] == "outcome" else "student"
    return "unlearned" if origin.stage == "unlearned" else "teacher"


def write_summary(folder: Path, summary: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "summary.json"
    path.write_text(json.dumps(summary, indent=2) + "\n")
    return path
