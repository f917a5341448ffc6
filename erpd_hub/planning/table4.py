"""The paper's Table 4 of a run: seconds a step of each kind, and score against cumulative hours."""

from collections.abc import Iterator
from statistics import fmean
from typing import Any

from erpd_hub.artifacts import LineageRecord
from erpd_hub.lineage import Place
from erpd_hub.planning.ledger import Entry

TABLE4_ROLLOUTS = 512
"""Rollouts of one on-policy step in Table 4: 32 prompts x 16."""


def table4(entries: list[Entry], records: dict[Place, LineageRecord]) -> dict[str, Any]:
    """The paper's Table 4: seconds a step of each kind, and score against cumulative hours.

    Hours are wall clock of the machine at hand, and teacher training runs from the rollouts on, as in the paper.
    The on-policy update needs an `online` stage and is None without one; its sampling is then that of the offline
    rollouts, scaled.
    """
    by_key = {(record.repo_id, record.folder): entry for entry, record in zip(entries, records.values(), strict=True)}
    rollout = next((entry for entry in entries if entry.stage == "rollout"), None)
    online = next((entry for entry in entries if entry.sampling_seconds), None)
    per_512 = None
    if online is not None and online.samples:
        per_512 = sum(online.sampling_seconds) / online.samples * TABLE4_ROLLOUTS
    elif rollout is not None and rollout.samples:
        per_512 = rollout.seconds / rollout.samples * TABLE4_ROLLOUTS
    return {
        "on_policy_rollout_seconds_per_512": None if per_512 is None else round(per_512, 3),
        "on_policy_update_seconds_per_step": _per_step(entries, "online"),
        "rollout_hours": None if rollout is None else round(rollout.seconds / 3600, 4),
        "first_stage_seconds_per_step": _per_step(entries, "teacher"),
        "distill_seconds_per_step": _per_step(entries, "distill"),
        "rows": list(_score_rows(by_key, records)),
    }


def _per_step(entries: list[Entry], stage: str) -> float | None:
    seconds = [value for entry in entries if entry.stage == stage for value in entry.update_seconds]
    return round(fmean(seconds), 4) if seconds else None


def _score_rows(by_key: dict[tuple[str, str], Entry], records: dict[Place, LineageRecord]) -> Iterator[dict[str, Any]]:
    """One row for every evaluation of a trained checkpoint: stage, step, score, hours up to it."""
    for record in records.values():
        if record.stage != "evaluate":
            continue
        measured = next((item for item in record.inputs if item.role == "checkpoints"), None)
        entry = by_key.get((str(measured.repo_id), measured.folder)) if measured else None
        origin = next((r for r in records.values() if measured and r.repo_id == measured.repo_id), None)
        if measured is None or entry is None or origin is None or entry.stage not in ("teacher", "distill", "online"):
            continue
        step = _evaluated_step(record, origin)
        yield {
            "checkpoint": entry.step,
            "stage": entry.stage,
            "step": step,
            "benchmark": record.folder.rpartition("/")[2],
            "score": record.metrics.get("avg"),
            "hours_before": round(_seconds_before(origin, by_key, records) / 3600, 4),
            "hours_of_steps": round(sum(entry.step_seconds[:step]) / 3600, 4),
        }


def _evaluated_step(record: LineageRecord, origin: LineageRecord) -> int | None:
    """The saved step that an evaluation was of, by its folder `{checkpoint}@step-N/{benchmark}`."""
    _, at, step = record.folder.rpartition("/")[0].rpartition("@step-")
    return int(step) if at and step.isdigit() else origin.saved_step


def _seconds_before(
    origin: LineageRecord, by_key: dict[tuple[str, str], Entry], records: dict[Place, LineageRecord]
) -> float:
    """Wall clock of everything a training's inputs took, each once: rollouts, scores, a teacher; not the base."""
    found: dict[tuple[str, str], float] = {}
    pending = [origin]
    known = {(record.repo_id, record.folder): record for record in records.values()}
    while pending:
        for item in pending.pop().inputs:
            key = (str(item.repo_id), item.folder)
            if key in by_key and key not in found and by_key[key].stage not in ("base", "prompts"):
                found[key] = by_key[key].seconds
                pending.append(known[key])
    return sum(found.values())
