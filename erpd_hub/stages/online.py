"""Online phases between the offline rounds: micro-rounds of rollout and one optimizer step, from and to a checkpoint.

Everything a step draws is from the policy that the step before left, so nothing of it can be made beforehand or shared:
the lineage of the result is its start, its prompts and this config.
"""

from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from erpd_hub.config import OnlineConfig, PromptFormat
from erpd_hub.errors import StageError
from erpd_hub.prompts import Problem
from erpd_hub.stage_context import StageContext, StageResult
from erpd_hub.stages.training import loss_of

if TYPE_CHECKING:
    from accelerate import PartialState
    from transformers import PreTrainedTokenizerBase

    from erpd_hub.training.checkpoints import RunFiles
    from erpd_hub.training.micro_rounds import PromptStep
    from erpd_hub.training.online import OnlineTrainer
    from erpd_hub.training.online_trl import TRLTrainer
    from erpd_hub.training.policy import Room


def run(config: OnlineConfig, out: Path, *, context: StageContext, init: Path, prompts: Path) -> StageResult:
    """Train on fresh samples of each step's prompts and write `out/step-N/` for every kept step.

    Raises:
        ConfigError: the loss or the reward is a function that cannot be loaded; a model that TRL would get wrong.
        StageError: prompts that are empty or too long for the policy; a training that cannot fit; what TRL cannot do.
    """
    from erpd_hub.models import chat_template_hash
    from erpd_hub.training.trainer import train

    make = make_trl_trainer if config.backend == "trl" else make_online_trainer
    trainer = make(config, out, context, init=init, prompts=prompts)
    with closing(trainer.rounds):
        train(trainer)
    facts = {"k": config.k, **_sampled_by(config), "chat_template_hash": chat_template_hash(trainer.tokenizer)}
    facts["layout"] = "padded" if config.backend == "trl" else trainer.layout
    step_metrics = {step: _totals(trainer.files, step) | facts for step in config.kept_steps}
    return StageResult(step_metrics[config.steps], step_metrics)


class _Start(NamedTuple):
    """What a phase starts from, looked at before the weights are loaded."""

    problems: list[Problem]
    format: PromptFormat
    tokenizer: "PreTrainedTokenizerBase"
    state: "PartialState"
    room: "Room"


def _start(config: OnlineConfig, init: Path, prompts: Path) -> _Start:
    """Raises StageError: prompts that are empty or too long for the policy; a training that cannot fit."""
    from erpd_hub.models import load_tokenizer
    from erpd_hub.prompts import read_prompts
    from erpd_hub.sampling.plan import refuse_unfit, render_prompts
    from erpd_hub.sampling.stopping import context_tokens
    from erpd_hub.training.policy import check_fit, processes

    tokenizer = load_tokenizer(init)
    problems, format = read_prompts(prompts)
    problems = problems[: config.limit]
    rendered = render_prompts(problems, format, tokenizer)
    limit = config.decoding.max_new_tokens
    refuse_unfit(rendered, limit, context_tokens(init))
    state = processes()
    room = check_fit("online", init, config, max(len(prompt.prompt_ids) for prompt in rendered) + limit, state)
    return _Start(problems, format, tokenizer, state, room)


def make_online_trainer(
    config: OnlineConfig, out: Path, context: StageContext, *, init: Path, prompts: Path
) -> "OnlineTrainer":
    """The trainer of a phase, everything refused that can be before the weights are loaded."""
    from erpd_hub.layout import exact_layout
    from erpd_hub.training.arguments import training_arguments
    from erpd_hub.training.checkpoints import RunFiles
    from erpd_hub.training.micro_rounds import MicroRounds
    from erpd_hub.training.online import OnlineTrainer, StartPolicy
    from erpd_hub.training.policy import agreed, load_policy, probe_sharded

    problems, format, tokenizer, state, room = _start(config, init, prompts)
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


def make_trl_trainer(
    config: OnlineConfig, out: Path, context: StageContext, *, init: Path, prompts: Path
) -> "TRLTrainer":
    """TRL's trainer for the same phase.

    Raises:
        StageError: several processes, stop strings, or steps of unlike size.
    """
    from erpd_hub.sampling.plan import render_prompts
    from erpd_hub.training.checkpoints import RunFiles
    from erpd_hub.training.online_trl import OwnReward, TRLTrainer
    from erpd_hub.training.policy import load_policy

    problems, format, tokenizer, state, _ = _start(config, init, prompts)
    steps = prompt_steps(problems, config.prompts_per_step, config.steps, context.seed)
    whole = len(problems) - len(problems) % config.prompts_per_step
    misfits: tuple[tuple[bool, str, Any, str], ...] = (
        (state.num_processes > 1, "one process", state.num_processes, "run it without --gpus and --launch"),
        (bool(format.stop), "prompts without stop strings", list(format.stop), "leave stop out of their format"),
        (
            len({len(step.problems) for step in steps}) > 1,
            f"prompts in whole steps of {config.prompts_per_step}", len(problems), f"set limit: {whole}",
        ),
    )  # fmt: skip
    for misfit, expected, got, remedy in misfits:
        if misfit:
            raise StageError(
                f"online: expected {expected} with backend: trl, got {got}; {remedy}, or take backend: own"
            )
    rounds = OwnReward(
        config, format, tokenizer,
        steps=[render_prompts(step.problems, format, tokenizer) for step in steps],
        prompts=prompts, seed=context.seed, folder=context.work / "samples",
    )  # fmt: skip
    return TRLTrainer(
        load_policy(init, config, state), rounds=rounds, files=RunFiles(out, context.work), tokenizer=tokenizer,
        source=init, context=context,
    )  # fmt: skip


def prompt_steps(problems: list[Any], prompts_per_step: int, steps: int, seed: int) -> list["PromptStep"]:
    """The prompts of every step: all of them in random order, and again in another."""
    from erpd_hub.training.data import prompt_schedule
    from erpd_hub.training.micro_rounds import PromptStep

    schedule = prompt_schedule(len(problems), prompts_per_step, steps, seed)
    return [PromptStep(step, tuple(problems[index] for index in chosen)) for step, chosen in enumerate(schedule, 1)]


def _sampled_by(config: OnlineConfig) -> dict[str, Any]:
    """What drew the samples, for the record."""
    from erpd_hub.sampling.engines import describe_engine

    if config.backend == "own":
        return {"engine": describe_engine(config.engine)}
    return {"engine": {"type": "trl", "dtype": config.dtype}, "backend": "trl", "trl": version("trl")}


def _totals(files: "RunFiles", step: int) -> dict[str, Any]:
    """The metrics of a saved step, with the samples and response tokens of the phase up to it."""
    lines = files.dynamics(step)
    tokens = sum(line["tokens"] for line in lines)
    return lines[-1] | {"samples": sum(line["samples"] for line in lines), "response_tokens": tokens}
