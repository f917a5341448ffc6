"""What each process of the distributed tests does, alone or as one of several."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tiny import context, make_policy
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from erpd_hub.config import CELoss, CriticConfig, TeacherConfig
from erpd_hub.errors import StageError
from erpd_hub.logprobs import install_logprob_forward
from erpd_hub.losses import (
    LossOutput,
    TokenBatch,
    ce_loss,
    cispo_loss,
    clip_loss,
    dr_grpo_loss,
    gspo_loss,
    mse_loss,
    sapo_loss,
    sft_loss,
    topr_loss,
    vespo_loss,
)
from erpd_hub.signals import Evolving, Shaping, Whitening
from erpd_hub.stages import critic
from erpd_hub.stages.training import Extras, make_trainer
from erpd_hub.training.batches import Denominators, Trajectory, share
from erpd_hub.training.data import read_trajectories
from erpd_hub.training.step import Loss, forward_backward
from erpd_hub.training.trainer import PolicyTrainer, train

CASES: dict[str, Loss] = {
    "ce-sum": partial(ce_loss, beta=0.3, aggregate="sum"),
    "ce-mean": partial(ce_loss, beta=3.0, aggregate="mean"),
    "mse": partial(mse_loss, negative_weight=0.5),
    "clip": partial(clip_loss, clip_low=0.2, clip_high=0.28, kl_weight=0.0, entropy_weight=0.0),
    "clip-kl-entropy": partial(clip_loss, clip_low=0.2, clip_high=0.28, kl_weight=0.1, entropy_weight=0.05),
    "sapo": partial(sapo_loss, tau_positive=1.0, tau_negative=1.05),
    "dr_grpo": partial(dr_grpo_loss, clip_low=0.2, clip_high=0.28),
    "gspo": partial(gspo_loss, clip_low=0.1, clip_high=0.1),
    "vespo": partial(vespo_loss, k_positive=2.0, lambda_positive=3.0, k_negative=3.0, lambda_negative=2.0),
    "topr": partial(topr_loss, ratio_level="sequence"),
    "sft": sft_loss,
}
_CLIP = partial(clip_loss, clip_low=0.2, clip_high=0.28)
FORMULAS: dict[str, Loss] = CASES | {
    "ce-kl": partial(ce_loss, beta=0.3, aggregate="sum", kl_weight=0.5),
    "cispo": partial(cispo_loss, clip_low=0.2, clip_high=0.28),
    "clip-k1": partial(_CLIP, kl_weight=0.1, kl_estimator="k1", kl_correction="ratio"),
    "clip-k2": partial(_CLIP, kl_weight=0.1, kl_estimator="k2"),
    "evolving": partial(_CLIP, evolving=Evolving(Shaping(right="negative"), Whitening(shift=-0.2, scale=2.0))),
}
"""All that has a formula of its own. What a trainer does with a loss is its reduction, so it gets those above alone."""
CPU = torch.device("cpu")


def rows_of(folder: Path, loss: Loss) -> list[Trajectory]:
    """The rollouts in `folder` that the loss trains on, with columns of noise, the same in every process."""
    generator = torch.Generator().manual_seed(0)

    def noise(row: Trajectory) -> torch.Tensor:
        return torch.randn(len(row.response_ids), generator=generator)

    def logprobs(row: Trajectory) -> torch.Tensor:
        return noise(row) - 3

    return [
        replace(
            row, reference_logprobs=logprobs(row), old_logprobs=logprobs(row), numerator_logprobs=logprobs(row),
            advantages=noise(row),
        )
        for row in read_trajectories(folder / "rollouts")
        if loss is not sft_loss or row.label == 1
    ]  # fmt: skip


def trainer_for(folder: Path, name: str, loss: Loss, **changes: object) -> PolicyTrainer:
    """A run in `folder/NAME` from `folder/policy`."""
    fields = {
        "learning_rate": 1e-3, "steps": 2, "prompts_per_step": 4, "micro_batch_tokens": 150, "save_steps": (1,),
        "checkpoint_every": 2,
    }  # fmt: skip
    config = TeacherConfig(rollouts="rollouts", loss=CELoss(type="ce"), **(fields | changes))
    trainer = make_trainer(
        config, folder / name / "out", context(folder / name), init=folder / "policy",
        trajectories=rows_of(folder, loss), loss=loss, role="teacher", scored=None, extras=Extras(),
    )  # fmt: skip
    if plugin := trainer.accelerator.state.deepspeed_plugin:
        # Weights as small as these would stay whole, and nothing would be gathered.
        plugin.deepspeed_config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return trainer


def train_all(folder: Path, name: str, wrapper: str) -> None:
    """A run of each loss, one that is killed and resumed, and a critic's; the model must have been wrapped as said."""
    for case, loss in CASES.items():
        trainer = trainer_for(folder, f"{name}/{case}", loss)
        train(trainer)
        assert type(trainer.model_wrapped).__name__ == wrapper
        if wrapper == "DeepSpeedEngine":
            assert all(weight.ds_status.name == "NOT_AVAILABLE" for weight in trainer.model.parameters())
    train_killed(folder, f"{name}/killed")
    fit_critic(folder, f"{name}/critic")


def fit_critic(folder: Path, name: str) -> None:
    """A critic and its values, each process valuing its shards."""
    config = CriticConfig(rollouts="rollouts", learning_rate=1e-3, steps=2, prompts_per_step=4, micro_batch_tokens=150)
    critic.run(
        config, folder / name / "out", context=context(folder / name), rollouts=folder / "rollouts",
        init=folder / "policy",
    )  # fmt: skip


def train_killed(folder: Path, name: str) -> None:
    """A run of 4 steps with a checkpoint at 2, killed in step 3 and run again."""

    def killed(batch: TokenBatch) -> LossOutput:
        if trainer.state.global_step == 2:
            raise KeyboardInterrupt
        return CASES["ce-sum"](batch)

    trainer = trainer_for(folder, name, killed, steps=4)
    with pytest.raises(KeyboardInterrupt):
        train(trainer)
    assert [path.name for path in (folder / name / "work").glob("checkpoint-*")] == ["checkpoint-2"]
    train(trainer_for(folder, name, CASES["ce-sum"], steps=4))


def meet_a_nan(folder: Path, name: str) -> None:
    """One process alone meets a number that is not finite, and all of them stop."""

    def broken(batch: TokenBatch) -> LossOutput:
        output = CASES["ce-sum"](batch)
        return replace(output, sum=output.sum * (math.nan if dist.get_rank() == 1 else 1))

    with pytest.raises(StageError, match="finite loss, got nan at step 1"):
        train(trainer_for(folder, name, broken))


def train_with_ddp(folder: Path) -> None:
    train_all(folder, "ddp", "DistributedDataParallel")
    meet_a_nan(folder, "nan")


def train_with_zero3(folder: Path) -> None:
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # would be compiled for minutes; gloo does it too
    train_all(folder, "zero3", "DeepSpeedEngine")


def steps_with_fsdp2(folder: Path) -> None:
    """Two optimizer steps of each loss; what is gathered from the shards goes to `folder/fsdp2.pt`."""
    dist.init_process_group("gloo")
    found = {case: steps(folder, loss, _fully_sharded) for case, loss in FORMULAS.items()}
    if dist.get_rank() == 0:
        torch.save(found, folder / "fsdp2.pt")


def steps_with_ddp(folder: Path, budget: int) -> None:
    dist.init_process_group("gloo")
    found = {case: steps(folder, loss, DistributedDataParallel, budget) for case, loss in FORMULAS.items()}
    if dist.get_rank() == 0:
        torch.save(found, folder / "ddp.pt")


def steps(
    folder: Path, loss: Loss, wrap: Callable[[torch.nn.Module], torch.nn.Module] | None = None, budget: int = 150
) -> dict[str, object]:
    """Losses, metrics and parameters of two steps over all rows, and the number of micro-batches of a step."""
    world, rank = (dist.get_world_size(), dist.get_rank()) if wrap else (1, 0)
    policy, _ = make_policy()
    install_logprob_forward(policy)
    model = wrap(policy) if wrap else policy
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rows, sums = rows_of(folder, loss), []
    for _ in range(2):
        batches = share(rows, budget=budget, rank=rank, world=world)
        sums.append(forward_backward(model, batches, loss, Denominators.of(rows), temperature=1.0, device=CPU))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    weights = {name: _whole(value).detach() for name, value in policy.named_parameters()}
    return {"sums": sums, "weights": weights, "micro_batches": len(batches)}


def _fully_sharded(policy: torch.nn.Module) -> torch.nn.Module:
    for layer in policy.model.layers:
        fully_shard(layer)
    fully_shard([policy.model.norm, policy.model.embed_tokens, policy.lm_head], reshard_after_forward=False)
    model = fully_shard(policy)
    assert isinstance(model, FSDPModule)
    return model


def _whole(value: torch.Tensor) -> torch.Tensor:
    return value.full_tensor() if hasattr(value, "full_tensor") else value
