"""The stage that publishes an unlearned checkpoint, given or picked."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, model_validator

from erpd_hub.config.common import Fraction, StepConfig
from erpd_hub.fields import CheckpointRef, Later, as_tuple


class UnlearnedConfig(StepConfig):
    """Publishes an early step of an MSE run as a checkpoint of its own: a given one, or one picked from candidates."""

    stage: Literal["unlearned"] = "unlearned"
    teacher: CheckpointRef | None = None
    """`NAME@step-N`, N typically 10 to 30 in the paper [P]."""
    candidates: Annotated[tuple[CheckpointRef, ...], BeforeValidator(as_tuple)] = ()
    """In place of `teacher`: saved steps of one or several MSE runs (a training by itself: all that it keeps), of which
    the rule in `erpd_hub.picker` takes one. Of several runs: the paper's shortcut of one recovered policy
    and ten-step runs at other learning rates [P]."""
    min_fall: Annotated[Fraction, Later] = 0.03
    """Share of the positives' probability (token mean) that a candidate must have lost [I]."""
    max_fall: Annotated[Fraction, Later] = 0.5
    """Share above which a candidate counts as destroyed [I]."""

    @model_validator(mode="after")
    def _one_way(self) -> "UnlearnedConfig":
        if (self.teacher is None) == (not self.candidates):
            got = "neither" if self.teacher is None else "both"
            raise ValueError(f"teacher: expected a saved step, or candidates to pick it from, got {got}")
        if self.min_fall > self.max_fall:
            raise ValueError(f"min_fall: expected at most max_fall {self.max_fall}, got {self.min_fall}")
        return self
