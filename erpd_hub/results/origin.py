"""What lineage says of an evaluation: which checkpoint it is of, where that comes from, and what decided on it."""

from collections.abc import Iterator
from typing import NamedTuple

from erpd_hub.artifacts import InputRecord, LineageRecord
from erpd_hub.checkpoint_role import Role, role_of, weights_of
from erpd_hub.errors import ArtifactError, ErpdError
from erpd_hub.hub.client import Hub
from erpd_hub.inputs import ENDPOINT
from erpd_hub.lineage import Ancestor, ancestry, input_place

DECIDING = ("select", "gate")
"""Stages that look at a benchmark and choose by it."""


class Spot(NamedTuple):
    """A checkpoint's repository and commit."""

    repo: str
    revision: str


class Origin(NamedTuple):
    """The checkpoint behind an evaluation."""

    item: InputRecord
    """As the evaluation recorded it."""
    record: LineageRecord | None
    """Its own record; None for what is not ours."""
    role: Role
    base: Spot | None
    """Where its weights began; None for an endpoint."""
    teacher: Spot | None
    """Whose signal went into it."""
    loss: str | None = None
    """What it, or its teacher, was trained with; None without a training of ours."""
    strategy: int | None = None
    """Of the signal that went into it."""

    @property
    def pinned(self) -> bool:
        return self.item.kind != ENDPOINT


def source_of(hub: Hub, item: InputRecord) -> Hub:
    """The Hub that an input was read from."""
    return hub.upstream if item.upstream and hub.upstream else hub


def record_of(hub: Hub, item: InputRecord) -> LineageRecord | None:
    """The record of an input; None for what is not ours."""
    if item.kind == "external" or item.repo_type is None or item.repo_id is None or item.revision is None:
        return None
    return source_of(hub, item).lineage(item.repo_type, item.repo_id, item.revision, item.folder)


def evaluation_of(hub: Hub, details: LineageRecord) -> LineageRecord:
    """The evaluation itself: of a judged copy, what it is a copy of.

    Raises:
        ArtifactError: its lineage leads in a circle.
    """
    seen: set[InputRecord] = set()
    while details.stage != "evaluate":
        above = next((item for item in details.inputs if item.role == "details"), None)
        record = record_of(hub, _new(above, seen)) if above else None
        if record is None:
            break
        details = record
    return details


def _new(item: InputRecord, seen: set[InputRecord]) -> InputRecord:
    """An input on the way up, remembered. Raises ArtifactError: the way has come by it before."""
    if item in seen:
        raise ArtifactError(f"{item.repo_id}@{str(item.revision)[:10]}: expected a lineage with an end, got a circle")
    seen.add(item)
    return item


def checkpoint_of(evaluation: LineageRecord) -> InputRecord | None:
    """What was evaluated; None where the record names nothing."""
    return next((item for item in evaluation.inputs if item.role == "checkpoints"), None)


def origin_of(hub: Hub, details: LineageRecord) -> Origin | None:
    """The checkpoint that was evaluated; None where the record names none."""
    evaluation = evaluation_of(hub, details)
    item = checkpoint_of(evaluation)
    if item is None:
        return None
    if item.kind == ENDPOINT:
        return Origin(item, None, "endpoint", None, None)
    record = record_of(hub, item)
    if record is None:
        return Origin(item, None, role_of(None), _base(hub, item), None)
    trained = _trained(hub, record)
    signal = _input_record(hub, trained, "signal")
    teacher = _teacher(hub, trained, signal) if signal else None
    loss = _loss(hub, record_of(hub, teacher) if teacher else trained)
    spot = Spot(teacher.repo_id, teacher.revision) if teacher and teacher.repo_id and teacher.revision else None
    strategy = signal.metrics.get("strategy") if signal else None
    return Origin(item, record, role_of(record), _base(hub, item), spot, loss, strategy)


def _base(hub: Hub, item: InputRecord) -> Spot | None:
    """Up along the weights to where they began."""
    seen: set[InputRecord] = set()
    while (record := record_of(hub, item)) is not None and record.stage != "base":
        above = weights_of(record)
        if above is None:
            break
        item = _new(above, seen)
    return Spot(item.repo_id, item.revision) if item.repo_id and item.revision else None


def _trained(hub: Hub, record: LineageRecord) -> LineageRecord:
    """Of a selection, what it chose; everything else itself."""
    seen: set[InputRecord] = set()
    while record.stage == "select" and (item := weights_of(record)) is not None:
        chosen = record_of(hub, _new(item, seen))
        if chosen is None:
            break
        record = chosen
    return record


def _above(hub: Hub, record: LineageRecord) -> LineageRecord | None:
    """The record of the checkpoint whose weights this one started from."""
    item = weights_of(record)
    return record_of(hub, item) if item else None


def _teacher(hub: Hub, student: LineageRecord, signal: LineageRecord) -> InputRecord | None:
    """The checkpoint behind a signal: its numerator, or its denominator where the numerator is the student's start."""
    start = weights_of(student)
    for role in ("numerator", "denominator"):
        scored = _scored(hub, signal, role)
        if scored is not None and (start is None or scored.digest != start.digest):
            return scored
    return None


def _loss(hub: Hub, record: LineageRecord | None) -> str | None:
    """The loss that a checkpoint was trained with; of an unlearned one, that of the training it is a step of."""
    if record is not None and record.stage == "unlearned":
        record = _above(hub, record)
    return (record.config.get("loss") or {}).get("type") if record else None


def _scored(hub: Hub, signal: LineageRecord, role: str) -> InputRecord | None:
    """The checkpoint that a side of a signal is the log-probs of."""
    record = _input_record(hub, signal, role)
    return next((above for above in record.inputs if above.kind == "checkpoint"), None) if record else None


def _input_record(hub: Hub, record: LineageRecord, role: str) -> LineageRecord | None:
    item = next((item for item in record.inputs if item.role == role), None)
    return record_of(hub, item) if item else None


def decision_on(hub: Hub, item: InputRecord, benchmark: str) -> LineageRecord | None:
    """The gate or selection on the way to a checkpoint that looked at the benchmark.

    Raises:
        ErpdError: a part of its lineage is not there.
    """
    place = input_place(item)
    if place is None or item.kind == "external":
        return None
    for ancestor in _walk(ancestry(source_of(hub, item), place)):
        record = ancestor.record
        if record is not None and record.stage in DECIDING and record.metrics.get("benchmark") == benchmark:
            return record
    return None


def decided_or_unknown(hub: Hub, item: InputRecord, benchmark: str) -> bool:
    """Whether there is one (`decision_on`), and yes where the lineage does not rule it out."""
    try:
        return decision_on(hub, item, benchmark) is not None
    except ErpdError:
        return True


def _walk(root: Ancestor) -> Iterator[Ancestor]:
    pending, seen = [root], set()
    while pending:
        here = pending.pop()
        if id(here) not in seen:
            seen.add(id(here))
            yield here
            pending += [above for _, above in here.inputs]
