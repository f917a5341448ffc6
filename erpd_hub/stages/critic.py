"""The critic of PPO: a value model that is fitted to the outcomes of the rollouts, and its values on them.

Value pre-training with lambda 1 (`losses.value`): on a fixed batch with gamma 1 the target of every token is the
outcome of its response, whatever the policy does, so nothing updates the critic once the policy moves. PPO's teacher
reads the values and turns them into generalised advantages with a lambda of its own.

Each saved step is a checkpoint by itself, with its values in `data/` and `values.json` beside the weights.
"""

import random
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from erpd_hub.config import CriticConfig
from erpd_hub.errors import StageError
from erpd_hub.stage_context import StageContext, StageResult
from erpd_hub.stages.teacher import graded, refuse_one_outcome
from erpd_hub.stages.training import Extras, train_policy
from erpd_hub.stages.values import write_values

if TYPE_CHECKING:
    from erpd_hub.training.batches import Trajectory


def run(config: CriticConfig, out: Path, *, context: StageContext, rollouts: Path, init: Path) -> StageResult:
    """Train on the rollouts' outcomes and write `out/step-N/`, values included, for every kept step.

    V starts as the mean outcome of all trained tokens, which explains nothing of the variance.

    Raises:
        StageError: every outcome is the same, or all prompts are held out.
    """
    from erpd_hub.losses import value_loss
    from erpd_hub.training.values import VALUES
    from erpd_hub.values import value_model

    trajectories = graded(rollouts)
    refuse_one_outcome(trajectories)
    held_out = _held_out(trajectories, config.held_out, context.seed)
    trained = [row for row in trajectories if row.problem_id not in held_out]
    tokens = sum(len(row.response_ids) for row in trained)
    start = sum(row.label * len(row.response_ids) for row in trained) / tokens
    extras = Extras(model=partial(value_model, start=start), computes=VALUES)
    result = train_policy(
        config, out, context, init=init, trajectories=trained, loss=value_loss, role="critic", scored=None,
        extras=extras,
    )  # fmt: skip
    steps = {}
    for step, metrics in result.step_metrics.items():
        found = write_values(
            config, out / f"step-{step}", rollouts=rollouts, layout=metrics["layout"], held_out=held_out
        )
        steps[step] = {**metrics, **found, "prompts_held_out": len(held_out)}
    return StageResult(steps[config.steps], steps)


def _held_out(trajectories: list["Trajectory"], share: float, seed: int) -> frozenset[str]:
    """Prompts that are not trained on, drawn by the seed."""
    prompts = list(dict.fromkeys(row.problem_id for row in trajectories))
    chosen = frozenset(random.Random(f"{seed}/held-out").sample(prompts, round(share * len(prompts))))
    if len(chosen) == len(prompts):
        raise StageError(f"held_out: expected a share that leaves prompts to train on, got {share} of {len(prompts)}")
    return chosen
