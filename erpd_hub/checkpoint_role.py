"""What a checkpoint is for the reader of a table, told by its record."""

from typing import Literal

from erpd_hub.artifacts import LineageRecord

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
