"""Every loss that TRL's GRPOTrainer has, through GRPOTrainer itself: the same gradients of the same model."""

import copy
import tempfile
from functools import partial

import datasets
import pytest
import torch
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig

from erpd_hub.benchmarks.shapes import SHAPES, random_model
from erpd_hub.benchmarks.trl import StoredRollouts, TRLBench, _no_reward, _tokenizer, gradient_difference, make_steps
from erpd_hub.logprobs import install_logprob_forward
from erpd_hub.losses import cispo_loss, clip_loss, dr_grpo_loss, grpo_loss, gspo_loss, sapo_loss, vespo_loss
from erpd_hub.training.batches import Denominators, StepBatch, share
from erpd_hub.training.step import forward_backward

CASES = {
    "grpo, token mean": (partial(grpo_loss, clip_low=0.2, clip_high=0.28), {"loss_type": "dapo"}),
    "grpo, sequence mean": (
        partial(clip_loss, clip_low=0.2, clip_high=0.28, reduction="sequence"), {"loss_type": "grpo"}),
    "dr_grpo": (partial(dr_grpo_loss, clip_low=0.2, clip_high=0.28), {"loss_type": "dr_grpo"}),
    "sapo": (
        partial(sapo_loss, tau_positive=1.0, tau_negative=1.05),
        {"loss_type": "sapo", "sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05},
    ),
    "gspo": (
        partial(gspo_loss, clip_low=3e-2, clip_high=4e-2),
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-2, "epsilon_high": 4e-2},
    ),
    "cispo": (  # TRL bounds the ratio above only, at an absolute value
        partial(cispo_loss, clip_low=1.0, clip_high=0.2), {"loss_type": "cispo", "epsilon_high": 1.2}),
    "vespo": (
        partial(vespo_loss, k_positive=2.0, lambda_positive=3.0, k_negative=3.0, lambda_negative=2.0),
        {"loss_type": "vespo"},
    ),
}  # fmt: skip


class _Gradients(TrainerCallback):
    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, *_: object, model: torch.nn.Module, **__: object) -> None:
        self.found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_that_of_grpo_trainer(name: str) -> None:
    loss, settings = CASES[name]
    steps = make_steps(TRLBench(shape="tiny", lengths="heavy", median=16, rows=8, micro_rows=4, steps=0))
    base = random_model(SHAPES["tiny"], torch.device("cpu"))
    assert gradient_difference(ours(copy.deepcopy(base), steps[0], loss), theirs(base, steps, settings)) < 1e-5


def ours(model, step: StepBatch, loss) -> dict[str, Tensor]:
    install_logprob_forward(model)
    rows = step.trajectories
    forward_backward(
        model, share(rows, budget=256), loss, Denominators.of(rows), temperature=1.0, device=torch.device("cpu")
    )
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def theirs(model, steps: list[StepBatch], settings: dict) -> dict[str, Tensor]:
    longest = max(len(row.response_ids) for row in steps[0].trajectories)
    settings = {"epsilon": 0.2, "epsilon_high": 0.28} | settings
    watch = _Gradients()
    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            folder, per_device_train_batch_size=8, num_generations=8, max_steps=1, beta=0.0, max_grad_norm=1e9,
            max_completion_length=longest, temperature=1.0, disable_dropout=True, gradient_checkpointing=False,
            bf16=False, save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
            dataloader_pin_memory=False, use_cpu=True, **settings,
        )  # fmt: skip
        trainer = StoredRollouts(
            model, reward_funcs=_no_reward, args=arguments, processing_class=_tokenizer(), callbacks=[watch],
            train_dataset=datasets.Dataset.from_dict({"prompt": [""] * 8}),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.stored = steps
        trainer.train()
    return watch.found
