"""What a run has to show: the summary for programs, the table and the picture for people.

Every number comes from the records of `evaluate` and `probe` artifacts; none is computed or typed here.
"""

import json
from collections.abc import Iterable, Mapping
from math import sqrt
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from erpd_hub import config as c
from erpd_hub.checkpoint_role import Role, role_of
from erpd_hub.finished import Finished
from erpd_hub.inputs import ENDPOINT
from erpd_hub.judging import SUFFIX
from erpd_hub.nodes import Node, Plan
from erpd_hub.references import named_with_round

SCHEMA = "erpd-hub/summary/v1"


class Checkpoint(NamedTuple):
    """One checkpoint on one benchmark; the probe's numbers are null where it was not probed."""

    ref: str
    role: Role
    step: int | None
    stage: str
    benchmark: str
    selection: bool
    """A gate or a selection of the run decided on this benchmark: no unbiased score, and in no mean."""
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
    interval: list[float] | None = None
    """Of `avg`, at 95 %."""
    stderr_sampling: float | None = None
    """On these very problems."""
    equal_k: bool = True
    """Whether each problem has as many graded samples."""
    no_answer: float | None = None
    coverage: float | None = None
    """Graded share of the n * k samples."""
    errors: int = 0
    """Samples that failed; the same command tries them again."""
    cut_short: int = 0
    """Samples that a server ended by a limit of its own."""
    duplicates: int = 0
    """Samples that repeat another of their problem."""
    seeds_ignored: bool = False
    """Whether that is more than chance, so that whatever drew them ignores seeds."""
    taken_over: int = 0
    """Samples that an earlier evaluation had drawn."""
    taken_over_otherwise: dict[str, Any] | None = None
    """How those were made, where that differs."""
    temperature: float | None = None
    pinned: bool = True
    """False for an endpoint: nothing says what answered."""
    avg_judged: float | None = None
    """AVG@K with what the judge accepted; null without one, as all that follows."""
    stderr_judged: float | None = None
    judge: str | None = None
    """The model that judged."""
    judge_share: float | None = None
    """Share of samples that are right by the judge's word alone."""
    judge_unjudged: int | None = None
    """Samples it was asked about and gave no verdict on."""
    judge_kappa: float | None = None
    """Cohen's kappa of judge and rule in the audit."""
    canary_acceptance: float | None = None
    """Share of injected wrong answers that the judge took for right."""
    canaries_alarm: bool | None = None
    """Whether that is more than the recipe allows, or was not measured."""
    canaries_problem: str | None = None
    """Why, in words."""


def summarise_run(plan: Plan, finished: Iterable[Finished], seconds: float) -> dict[str, Any]:
    """The `--json` object."""
    done = list(finished)
    rows = checkpoints(plan, done)
    return {
        "schema": SCHEMA,
        "run": plan.recipe.run,
        "seed": plan.recipe.seed,
        "seconds": round(seconds, 2),
        "checkpoints": [item._asdict() for item in rows],
        "headline": headline(rows),
        "artifacts": [artifact_entry(item) for item in done],
    }


def artifact_entry(item: Finished) -> dict[str, Any]:
    """An artifact as the summary lists it."""
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


def as_counted(item: Finished, by_name: Mapping[str, Finished]) -> Finished:
    """The artifact whose rows count for an evaluation: its judged copy, where it has one."""
    return by_name.get(item.node.name + SUFFIX, item)


def probe_of(evaluation: Finished, finished: Iterable[Finished]) -> Finished | None:
    """The probe of the checkpoint that was evaluated, where the run has one."""
    wanted = _measured(evaluation)
    probes = [f for f in finished if isinstance(f.node.config, c.ProbeConfig) and _measured(f) == wanted]
    return probes[-1] if probes else None


def selection_benchmarks(plan: Plan) -> set[str]:
    """Benchmarks that decided something in the run, or that the recipe says did."""
    found = {n.config.benchmark for n in plan.nodes if isinstance(n.config, c.GateConfig | c.SelectConfig)}
    return found | set(plan.recipe.selection)


def headline(rows: Iterable[Checkpoint]) -> list[dict[str, Any]]:
    """Mean AVG@K of every checkpoint over its benchmarks, without those that decided something.

    One entry a checkpoint: `ref`, `role`, `avg`, `stderr` (over problems, benchmarks independent), the `benchmarks`
    that are in it, those of them that are `incomplete` (samples without a grade, or unequal K), and those `left_out`;
    `avg` is None where there is nothing else.
    """
    by_checkpoint: dict[tuple[str, str], list[Checkpoint]] = {}
    for row in rows:
        by_checkpoint.setdefault((row.ref, row.digest), []).append(row)
    return [_headline(group) for group in by_checkpoint.values()]


def _headline(rows: list[Checkpoint]) -> dict[str, Any]:
    counted = [row for row in rows if not row.selection and row.avg is not None]
    errors = [row.stderr for row in counted if row.stderr is not None]
    whole = bool(counted) and len(errors) == len(counted)
    return {
        "ref": rows[0].ref,
        "role": rows[0].role,
        "avg": fmean(row.avg for row in counted if row.avg is not None) if counted else None,
        "stderr": sqrt(sum(error**2 for error in errors)) / len(counted) if whole else None,
        "benchmarks": [row.benchmark for row in counted],
        "incomplete": [row.benchmark for row in counted if (row.coverage or 0) < 1 or not row.equal_k],
        "left_out": sorted({row.benchmark for row in rows if row.selection}),
    }


def _measured(item: Finished) -> tuple[str, str]:
    """What identifies the checkpoint that an evaluation or a probe measured: its repository and digest."""
    edge = next(i for i in item.record.inputs if i.role == "checkpoints")
    return str(edge.repo_id), edge.digest


def _checkpoint(plan: Plan, evaluation: Finished, probe: Finished | None, by_name: dict[str, Finished]) -> Checkpoint:
    details = as_counted(evaluation, by_name)
    metrics = details.record.metrics
    judge = metrics.get("judge", {})
    probed = probe.record.metrics if probe else {}
    edge = next(e for e in evaluation.node.inputs if e.role == "checkpoints")
    item = next(i for i in evaluation.record.inputs if i.role == "checkpoints")
    origin = evaluation.origins["checkpoints"]
    assert isinstance(evaluation.node.config, c.EvaluateConfig)
    spent = sum(f.seconds for f in (by_name.get(str(edge.source)), evaluation, probe) if f is not None)
    return Checkpoint(
        ref=reference_of(plan, evaluation.node),
        role="endpoint" if item.kind == ENDPOINT else role_of(origin),
        step=origin.saved_step if origin else None,
        stage=origin.stage if origin else "base",
        benchmark=evaluation.node.config.benchmarks[0],
        selection=evaluation.node.config.benchmarks[0] in selection_benchmarks(plan),
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
        repo=evaluation.node.config.checkpoints[0] if item.kind == ENDPOINT else str(item.repo_id),
        revision="" if item.kind == ENDPOINT else str(item.revision),
        digest=item.digest,
        details=f"{details.record.repo_id}/{details.record.folder}@{details.revision[:10]}",
        interval=metrics.get("interval"),
        stderr_sampling=metrics.get("stderr_sampling"),
        equal_k=metrics.get("equal_k", True),
        no_answer=metrics.get("no_answer"),
        coverage=metrics.get("coverage"),
        errors=metrics.get("errors", 0),
        cut_short=metrics.get("cut_short", 0),
        duplicates=metrics.get("duplicates", 0),
        seeds_ignored=metrics.get("seeds_ignored", False),
        taken_over=metrics.get("taken_over", 0),
        taken_over_otherwise=metrics.get("taken_over_otherwise"),
        temperature=metrics["decoding"]["temperature"],
        pinned=item.kind != ENDPOINT,
        avg_judged=metrics.get("avg_judged"),
        stderr_judged=metrics.get("stderr_judged"),
        judge=judge.get("model"),
        judge_share=metrics.get("judge_share"),
        judge_unjudged=judge.get("unjudged"),
        judge_kappa=judge.get("audit", {}).get("kappa"),
        canary_acceptance=judge.get("canary_acceptance"),
        canaries_alarm=judge.get("canaries_alarm"),
        canaries_problem=judge.get("canaries_problem"),
    )


def reference_of(plan: Plan, node: Node) -> str:
    """What a node measured, as tables name it."""
    assert isinstance(node.config, c.EvaluateConfig | c.ProbeConfig)
    return named_with_round(node.config.checkpoints[0], node.round, several=len(plan.recipe.rounds) > 1)


def write_summary(folder: Path, summary: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "summary.json"
    path.write_text(json.dumps(summary, indent=2) + "\n")
    return path
