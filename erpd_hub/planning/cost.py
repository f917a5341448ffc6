"""What a run took: seconds, GPU-seconds and tokens of every artifact, from the `metrics.jsonl` beside it on the Hub.

An artifact costs what it cost where it was made. One that a run reuses or inherits is counted with that, once, however
many paths of the lineage lead to it; of a training's saved steps only the run of all steps is counted. The paper's
Table 4 has four rates and a cumulative time; they are made here from the same lines.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from statistics import fmean
from typing import Any

from erpd_hub.artifacts import TIMES, LineageRecord, fingerprint_tag
from erpd_hub.errors import ArtifactError
from erpd_hub.home import run_folder
from erpd_hub.hub.client import Hub
from erpd_hub.lineage import Place, input_place, locate

SCHEMA = "erpd-hub/cost/v1"
TABLE4_ROLLOUTS = 512
"""Rollouts of one on-policy step in Table 4: 32 prompts x 16."""


@dataclass(frozen=True)
class Entry:
    """One artifact."""

    step: str
    stage: str
    run: str
    repo: str
    folder: str
    seconds: float
    """Wall clock, all attempts together."""
    gpus: int
    device: str
    tokens: int | None
    """Response tokens sampled, scored or trained on; None where nothing says."""
    inherited: bool
    """Made by another run."""
    samples: int | None = None
    gpu_seconds: float = 0.0
    """Attempt by attempt: one may have run on another number of them."""
    step_seconds: tuple[float, ...] = ()
    """Of a training's optimizer steps."""
    update_seconds: tuple[float, ...] = ()
    """The same without what an online training samples and measures."""
    sampling_seconds: tuple[float, ...] = ()
    """Of an online training's steps."""


def cost(hub: Hub, name: str) -> dict[str, Any]:
    """The cost of a run by name (its last one on this machine), or of everything an artifact comes from.

    Raises:
        ArtifactError: no such run or artifact.
    """
    roots = list(_roots(hub, name))
    records = dict(_closure(hub, roots))
    if not records:
        raise ArtifactError(f"{name}: none of its artifacts is on {hub.identity}; give its --endpoint")
    own = {record.run for place in roots if (record := hub.lineage(*_address(place))) is not None}
    entries = list(_entries(hub, records, own))
    return {
        "schema": SCHEMA,
        "of": name,
        "artifacts": [asdict(entry) for entry in entries],
        "stages": _by_stage(entries),
        "totals": _sums(entries) | {"inherited": _sums([entry for entry in entries if entry.inherited])},
        "table4": _table4(entries, records),
    }


def measured_rates(hub: Hub, name: str) -> dict[str, float]:
    """Response tokens per GPU-second by stage, of a run that has been; what `plan --measured` goes by."""
    stages = cost(hub, name)["stages"]
    return {stage: row["tokens_per_gpu_second"] for stage, row in stages.items() if row["tokens_per_gpu_second"]}


# ---------------------------------------------------------------------------------------------- lineage


def _roots(hub: Hub, name: str) -> Iterator[Place]:
    if "/" in name:
        yield locate(hub, name)
        return
    path = run_folder(name) / "summary.json"
    if not path.is_file():
        raise ArtifactError(f"{name}: expected a run of this machine, or namespace/name of an artifact; found neither")
    for item in json.loads(path.read_text())["artifacts"]:
        yield Place(item["repo_type"], item["repo"], item["revision"], item["folder"])


def _closure(hub: Hub, roots: Iterable[Place]) -> Iterator[tuple[Place, LineageRecord]]:
    """Every artifact of ours that the roots are or come from, each once; saved steps of one training are one."""
    pending = [(hub, place) for place in roots]
    seen: set[tuple[str, str, str]] = set()
    visited: set[Place] = set()
    while pending:
        source, place = pending.pop(0)
        record = None if place in visited else source.lineage(*_address(place))
        visited.add(place)
        if record is None:
            continue
        key = (record.repo_id, record.folder, record.fingerprint)
        if key not in seen:
            seen.add(key)
            place = _whole(source, place, record)
            yield place, source.lineage(*_address(place)) or record
        for item in record.inputs:
            above = input_place(item)
            if above is not None and item.kind != "external":
                pending.append((source.upstream if item.upstream and source.upstream else source, above))


def _address(place: Place) -> tuple[Any, str, str, str]:
    return place.repo_type, place.repo_id, place.revision, place.folder


def _whole(hub: Hub, place: Place, record: LineageRecord) -> Place:
    """The last step of the training a saved step belongs to: its times are those of all steps."""
    if record.saved_step is None:
        return place
    sha = hub.tags(record.repo_type, place.repo_id).get(fingerprint_tag(record.fingerprint))
    return replace(place, revision=sha) if sha is not None else place


# ------------------------------------------------------------------------------------------------ entries


def _entries(hub: Hub, records: dict[Place, LineageRecord], own: set[str]) -> Iterator[Entry]:
    for place, record in records.items():
        path = hub.file(place.repo_type, place.repo_id, place.revision, str(PurePosixPath(place.folder) / TIMES))
        lines = _lines(path) if path is not None else []
        stages = [line for line in lines if "stage_seconds" in line]
        steps = {line["step"]: line for line in lines if "step" in line and "seconds" in line}
        in_order = [steps[step] for step in sorted(steps)]
        last = stages[-1] if stages else {}
        yield Entry(
            step=f"r{record.round}/{record.step}" + (f"/{record.folder}" if record.folder else ""),
            stage=record.stage,
            run=record.run,
            repo=place.repo_id,
            folder=place.folder,
            seconds=round(sum(line["stage_seconds"] for line in stages), 3),
            gpus=int(last.get("gpus") or 1),
            device=str(last.get("device") or record.environment.get("device") or "not recorded"),
            tokens=last.get("tokens") or _tokens(lines) or _recorded_tokens(record),
            inherited=record.run not in own,
            samples=_samples(record),
            gpu_seconds=round(sum(line["stage_seconds"] * int(line.get("gpus") or 1) for line in stages), 3),
            step_seconds=tuple(line["seconds"] for line in in_order),
            update_seconds=tuple(line.get("update_seconds", line["seconds"]) for line in in_order),
            sampling_seconds=tuple(line["sampling_seconds"] for line in in_order if "sampling_seconds" in line),
        )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def _tokens(lines: list[dict[str, Any]]) -> int | None:
    """Of a training whose stage line does not say: the sum over its steps."""
    steps = {
        x["step"]: x["seconds"] * x["tokens_per_second"] for x in lines if "step" in x and "tokens_per_second" in x
    }
    return round(sum(steps.values())) or None


def _samples(record: LineageRecord) -> int | None:
    value = record.metrics.get("samples") or record.metrics.get("n_samples")
    if value is None and {"n", "k"} <= record.metrics.keys():
        value = record.metrics["n"] * record.metrics["k"]
    return int(value) if value else None


def _recorded_tokens(record: LineageRecord) -> int | None:
    """What the record itself says of an artifact made before stage lines had tokens."""
    metrics = record.metrics
    if "response_tokens" in metrics:
        return int(metrics["response_tokens"])
    samples = _samples(record)
    return round(samples * metrics["mean_length"]) if samples and metrics.get("mean_length") else None


def _sums(entries: list[Entry]) -> dict[str, Any]:
    return {
        "artifacts": len(entries),
        "seconds": round(sum(entry.seconds for entry in entries), 3),
        "gpu_seconds": round(sum(entry.gpu_seconds for entry in entries), 3),
        "tokens": sum(entry.tokens or 0 for entry in entries),
    }


def _by_stage(entries: list[Entry]) -> dict[str, dict[str, Any]]:
    found = {}
    for stage in dict.fromkeys(entry.stage for entry in entries):
        some = [entry for entry in entries if entry.stage == stage]
        timed = [entry for entry in some if entry.tokens and entry.seconds]
        spent = sum(entry.gpu_seconds for entry in timed)
        rate = sum(entry.tokens or 0 for entry in timed) / spent if spent else None
        found[stage] = _sums(some) | {"tokens_per_gpu_second": None if rate is None else round(rate, 2)}
    return found


# ------------------------------------------------------------------------------------------------ Table 4


def _table4(entries: list[Entry], records: dict[Place, LineageRecord]) -> dict[str, Any]:
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
