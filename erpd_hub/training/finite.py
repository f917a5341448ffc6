"""What stops a training whose numbers have run away, before they reach the weights."""

import math

from erpd_hub.errors import StageError
from erpd_hub.training.batches import StepBatch

_LISTED = 5


def refuse_non_finite(role: str, what: str, value: float, batch: StepBatch) -> None:
    """Raises:
    StageError: the value is not finite; the message names the step and its prompts.
    """
    if math.isfinite(value):
        return
    ids = list(dict.fromkeys(row.problem_id for row in batch.trajectories))
    shown = ", ".join(ids[:_LISTED]) + (", ..." if len(ids) > _LISTED else "")
    remedy = (
        "the last checkpoint is kept, lower the learning rate"
        if batch.step > 1
        else "nothing has been trained yet, so look at the loss (its arguments, a function of your own) and the "
        "weights it started from"
    )
    raise StageError(
        f"{role}: expected a finite {what}, got {value} at step {batch.step} on {len(ids)} prompts ({shown}); {remedy}"
    )
