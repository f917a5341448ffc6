"""What a checkpoint is for the reader of a table, and what its weights started from, told by its record."""

from collections.abc import Mapping
from typing import Any, Literal

from erpd_hub.artifacts import InputRecord, LineageRecord

Role = Literal["base", "teacher", "unlearned", "student", "control", "online", "endpoint"]


def role_of(origin: LineageRecord | None) -> Role:
    """`control` is a student that no teacher's signal went into, or a training that says what it is a control of;
    `online` came out of on-policy training; a selected checkpoint is what its winner was.

    A model that is not ours has no record and counts as a base.
    """
    if origin is None or origin.stage == "base":
        return "base"
    if origin.stage == "select":
        return origin.metrics["role"]
    if origin.config.get("control_of") is not None:
        return "control"
    if origin.stage == "distill":
        return "control" if origin.config["advantage"] == "outcome" else "student"
    if origin.stage == "unlearned":
        return "unlearned"
    return "online" if origin.stage == "online" else "teacher"


def weight_roles(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Roles of a checkpoint's inputs whose weights it started from; of a selection its winner.

    Args:
        metrics: Of its record.
    """
    return ("init", "source", "teacher", f"candidates:{metrics.get('winner')}")


def weights_of(record: LineageRecord) -> InputRecord | None:
    """The input that a checkpoint's weights started from; None for what began here."""
    roles = weight_roles(record.metrics)
    return next((item for role in roles for item in record.inputs if item.role == role), None)
