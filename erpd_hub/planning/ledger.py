"""The ledger of a run: seconds, GPU-seconds and tokens of each artifact, from the `metrics.jsonl` beside it on the Hub.

An artifact costs what it cost where it was made. One that a run reuses or inherits is counted with that, once, however
many paths of the lineage lead to it; of a training's saved steps only the run of all steps is counted.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from erpd_hub.artifacts import TIMES, LineageRecord, fingerprint_tag
from erpd_hub.hub.client import Hub
from erpd_hub.lineage import Place, input_place


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


def made_of(hub: Hub, roots: Iterable[Place]) -> Iterator[tuple[Place, LineageRecord]]:
    """Every artifact of ours that the roots are or come from, each once; saved steps of one training are one."""
    pending = [(hub, place) for place in roots]
    seen: set[tuple[str, str, str]] = set()
    visited: set[Place] = set()
    while pending:
        source, place = pending.pop(0)
        record = None if place in visited else source.lineage(*address(place))
        visited.add(place)
        if record is None:
            continue
        key = (record.repo_id, record.folder, record.fingerprint)
        if key not in seen:
            seen.add(key)
            place = _whole(source, place, record)
            yield place, source.lineage(*address(place)) or record
        for item in record.inputs:
            above = input_place(item)
            if above is not None and item.kind != "external":
                pending.append((source.upstream if item.upstream and source.upstream else source, above))


def address(place: Place) -> tuple[Any, str, str, str]:
    """What `Hub.lineage` takes."""
    return place.repo_type, place.repo_id, place.revision, place.folder


def _whole(hub: Hub, place: Place, record: LineageRecord) -> Place:
    """The last step of the training a saved step belongs to: its times are those of all steps."""
    if record.saved_step is None:
        return place
    sha = hub.tags(record.repo_type, place.repo_id).get(fingerprint_tag(record.fingerprint))
    return replace(place, revision=sha) if sha is not None else place


def entries(hub: Hub, records: dict[Place, LineageRecord], own: set[str]) -> Iterator[Entry]:
    """A line for each artifact; all but those of the runs `own` are inherited."""
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
    """What the record itself says, where no line of its times does."""
    metrics = record.metrics
    if "response_tokens" in metrics:
        return int(metrics["response_tokens"])
    samples = _samples(record)
    return round(samples * metrics["mean_length"]) if samples and metrics.get("mean_length") else None
