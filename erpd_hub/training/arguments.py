"""What Trainer is told of a run: its own arguments, from our config."""

from importlib.util import find_spec
from typing import Any

import torch
from transformers import TrainingArguments

from erpd_hub.config import TrainingConfig
from erpd_hub.errors import ConfigError
from erpd_hub.stage_context import StageContext
from erpd_hub.training.policy import processes


class RunArguments(TrainingArguments):
    """Those of a run, of which trackers are sent all but this machine's folder."""

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"output_dir": ""}


def training_arguments(config: TrainingConfig, context: StageContext) -> TrainingArguments:
    """Settings of the run; making them also sets up the process group, and ZeRO-3's loading in parts.

    Raises:
        ConfigError: the tracker is not installed.
    """
    if config.report_to != "none" and find_spec(config.report_to) is None:
        raise ConfigError(
            f"report_to: expected {config.report_to} to be installed, got no such package; `pip install "
            f"{config.report_to}`, or set report_to to none"
        )
    processes()
    arguments = RunArguments(
        output_dir=str(context.work),
        max_steps=config.steps,
        per_device_train_batch_size=1,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        max_grad_norm=config.max_grad_norm,
        seed=context.seed,
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to=config.report_to,
        project=context.run,
        run_name=context.label,
        trackio_static_space_id=False,  # else each training leaves a copy of the Space it logs to
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available(),
    )
    # With several GPUs and one process Trainer would wrap the model in DataParallel, which cannot cut our batches.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
