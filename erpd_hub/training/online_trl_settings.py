"""What TRL's GRPOTrainer is told of an online phase, from our config."""

from collections.abc import Sequence
from typing import Any

from trl import GRPOConfig

from erpd_hub.config import LossConfig, OnlineConfig
from erpd_hub.sampling.draws import Prompt
from erpd_hub.stage_context import StageContext
from erpd_hub.training.arguments import RunArguments, training_arguments

_SHARED = (
    "output_dir", "max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "adam_beta1",
    "adam_beta2", "max_grad_norm", "seed", "save_strategy", "logging_strategy", "logging_nan_inf_filter", "report_to",
    "project", "run_name", "trackio_static_space_id", "disable_tqdm", "dataloader_pin_memory", "use_cpu",
)  # fmt: skip
"""Arguments that are those of our own trainer."""


class GRPOArguments(RunArguments, GRPOConfig):
    """GRPOTrainer's, of which trackers are sent what they are of our own trainer's."""


def grpo_arguments(config: OnlineConfig, context: StageContext, steps: Sequence[Sequence[Prompt]]) -> GRPOArguments:
    """Our config as GRPOTrainer's: one optimizer step takes all samples of a step's prompts, each once.

    Raises:
        ConfigError: the tracker is not installed.
    """
    shared = training_arguments(config, context)
    decoding, samples = config.decoding, len(steps[0]) * config.k
    longest = max(len(prompt.prompt_ids) for step in steps for prompt in step) + decoding.max_new_tokens
    rows = pass_rows(samples, longest, config.micro_batch_tokens)
    arguments = GRPOArguments(
        **{name: getattr(shared, name) for name in _SHARED},
        **loss_settings(config.loss),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=samples // rows,  # and so the passes between two samplings
        num_generations=config.k,
        num_iterations=1,
        shuffle_dataset=False,
        max_completion_length=decoding.max_new_tokens,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        top_k=decoding.top_k,
        scale_rewards="group",
        beta=0.0,
        router_aux_loss_coef=0.0,
        disable_dropout=True,
        gradient_checkpointing=config.gradient_checkpointing,
        bf16=config.dtype == "bfloat16",
    )
    arguments._n_gpu = shared.n_gpu
    return arguments


def loss_settings(loss: LossConfig) -> dict[str, Any]:
    """A loss of ours as GRPOTrainer calls it; `tests/test_trl_losses.py` compares their gradients."""
    given = loss.parameters
    clips = {"epsilon": given.get("clip_low"), "epsilon_high": given.get("clip_high")}
    match loss.type:
        case "grpo":
            return {"loss_type": "dapo", **clips}
        case "gspo":
            return {"loss_type": "grpo", "importance_sampling_level": "sequence", **clips}
        case "cispo":  # TRL's bound is the weight itself; the lower one, which it has not, never acts on-policy
            return {"loss_type": "cispo", "epsilon_high": 1 + given["clip_high"]}
        case "sapo":
            names = {"pos": "tau_positive", "neg": "tau_negative"}
            return {"loss_type": "sapo", **{f"sapo_temperature_{end}": given[name] for end, name in names.items()}}
        case "vespo":
            names = {"pos": "positive", "neg": "negative"}
            return {"loss_type": "vespo"} | {
                f"vespo_{what}_{end}": given[f"{what}_{name}"]
                for what in ("k", "lambda")
                for end, name in names.items()
            }
    raise AssertionError(f"the config refuses {loss.type}")


def pass_rows(samples: int, longest: int, budget: int) -> int:
    """Rows of a pass: as many as fit into the token budget at their longest and cut a step evenly, one at least."""
    even = (rows for rows in range(1, samples + 1) if samples % rows == 0)
    return max((rows for rows in even if rows * longest <= budget), default=1)
