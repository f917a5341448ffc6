"""Online phases between the offline rounds: micro-rounds of rollout and one optimizer step, from and to a checkpoint.

Everything a step draws is from the policy that the step before left, so nothing of it can be made beforehand or shared:
the lineage of the result is its start, its prompts and this config.
"""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erpd_hub.config import OnlineConfig
from erpd_hub.stage_context import StageContext, StageResult
from erpd_hub.stages.training import loss_of

if TYPE_CHECKING:
    from erpd_hub.training.micro_rounds import PromptStep
    from erpd_hub.training.online import OnlineTrainer


def run(config: OnlineConfig, out: Path, *, context: StageContext, init: Path, prompts: Path) -> StageResult:
    """Train on fresh samples of each step's prompts and write `out/step-N/` for every kept step.

    Raises:
        ConfigError: the loss or the reward is a function that cannot be loaded.
        StageError: prompts that are empty or too long for the policy; a training that cannot fit.
    """
    from erpd_hub.models import chat_template_hash, load_tokenizer
    from erpd_hub.sampling.engines import describe_engine
    from erpd_hub.training.trainer import train

    trainer = make_online_trainer(config, out, context, init=init, prompts=prompts)
    with closing(trainer.rounds):
        train(trainer)
    facts = {
        "k": config.k,
        "engine": describe_engine(config.engine),
        "chat_template_hash": chat_template_hash(load_tokenizer(init)),
        "layout": trainer.layout,
    }
    step_metrics = {step: _totals(trainer, step) | facts for step in config.kept_steps}
    return StageResult(step_metrics[config.steps], step_metrics)


def make_online_trainer(
    config: OnlineConfig, out: Path, context: StageContext, *, init: Path, prompts: Path
) -> "OnlineTrainer":
    """The trainer of a phase, everything refused that can be before the weights are loaded."""
    from erpd_hub.layout import exact_layout
    from erpd_hub.models import load_tokenizer
    from erpd_hub.prompts import read_prompts
    from erpd_hub.sampling.plan import refuse_unfit, render_prompts
    from erpd_hub.sampling.stopping import context_tokens
    from erpd_hub.training.arguments import training_arguments
    from erpd_hub.training.checkpoints import RunFiles
    from erpd_hub.training.micro_rounds import MicroRounds
    from erpd_hub.training.online import OnlineTrainer, StartPolicy
    from erpd_hub.training.policy import agreed, check_fit, load_policy, probe_sharded, processes

    tokenizer = load_tokenizer(init)
    problems, format = read_prompts(prompts)
    problems = problems[: config.limit]
    rendered = render_prompts(problems, format, tokenizer)
    limit = config.decoding.max_new_tokens
    refuse_unfit(rendered, limit, context_tokens(init))
    state = processes()
    room = check_fit("online", init, config, max(len(prompt.prompt_ids) for prompt in rendered) + limit, state)
    layout = probe_sharded(init, config.layout, config, state)
    start = StartPolicy(init, config) if config.kl_to_start else None
    files = RunFiles(out, context.work)
    arguments = training_arguments(config, context)
    model = load_policy(init, config, state)
    return OnlineTrainer(
        model,
        rounds=MicroRounds(
            config, format, tokenizer,
            prompts=prompts, seed=context.seed, work=context.work, rank=state.process_index, world=state.num_processes,
        ),
        start=start,
        steps=prompt_steps(problems, config.prompts_per_step, config.steps, context.seed),
        loss=loss_of(config.loss),
        role="online",
        config=config,
        seed=context.seed,
        files=files,
        tokenizer=tokenizer,
        source=init,
        arguments=arguments,
        layout=agreed(layout or exact_layout(model, config.layout, dtype=config.dtype)),
        room=room,
    )  # fmt: skip


def prompt_steps(problems: list[Any], prompts_per_step: int, steps: int, seed: int) -> list["PromptStep"]:
    """The prompts of every step: all of them in random order, and again in another."""
    from erpd_hub.training.data import prompt_schedule
    from erpd_hub.training.micro_rounds import PromptStep

    schedule = prompt_schedule(len(problems), prompts_per_step, steps, seed)
    return [PromptStep(step, tuple(problems[index] for index in chosen)) for step, chosen in enumerate(schedule, 1)]


def _totals(trainer: "OnlineTrainer", step: int) -> dict[str, Any]:
    """The metrics of a saved step, with the samples and response tokens of the phase up to it."""
    lines = trainer.files.dynamics(step)
    tokens = sum(line["tokens"] for line in lines)
    return lines[-1] | {"samples": sum(line["samples"] for line in lines), "response_tokens": tokens}
