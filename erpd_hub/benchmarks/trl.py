"""Tokens per second of a training step against TRL's GRPOTrainer on the same rollouts.

Both sides run their own trainer loop, forward to optimizer, on the same model, rows, advantages and thread count, in
fp32 with the clipped surrogate as a token mean (TRL's `dapo`), and take turns. TRL is fed stored completions through
its `_generate_and_score_completions`; it pads a step's rows to the longest and cuts them into passes of `micro_rows`.
Ours gets as many tokens a pass as TRL's padded passes hold. The first step of each run is left out of the times; there
the gradients of the two are compared.

Tokens are response tokens, as in `metrics.jsonl`. Not here: sampling, which TRL would do within its step.
"""

import copy
import math
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import datasets
import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerFast, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from erpd_hub.advantages import group_advantages
from erpd_hub.benchmarks.shapes import random_model, shape_named
from erpd_hub.config import DistillConfig
from erpd_hub.errors import ConfigError
from erpd_hub.losses import clip_loss
from erpd_hub.training.batches import StepBatch, Trajectory
from erpd_hub.training.checkpoints import RunFiles
from erpd_hub.training.trainer import PolicyTrainer, train

SCHEMA = "erpd-hub/bench-trl/v1"
Lengths = Literal["even", "heavy"]
Gradients = dict[str, Tensor]

_CLIP_LOW, _CLIP_HIGH = 0.2, 0.28
_LEARNING_RATE = 1e-6
_PROMPT = (16, 48)
"""Tokens, fewest and most."""
_SAMPLES = 4
"""Of a prompt."""
_SPREAD = {"even": 0.1, "heavy": 1.0}
"""Standard deviation of the logarithm of a response's length; 1.0 is what thinking traces look like: the longest of
16 is some five times the median."""


@dataclass(frozen=True)
class TRLBench:
    shape: str = "smollm2-135m"
    lengths: Lengths = "even"
    median: int = 192
    """Response tokens."""
    rows: int = 16
    """Of an optimizer step."""
    micro_rows: int = 4
    """TRL's `per_device_train_batch_size`."""
    steps: int = 1
    """Timed steps of a run, after one that warms up."""
    repeats: int = 3
    """Runs of each side, taking turns."""


class Run(NamedTuple):
    tokens_per_second: float
    tokens_per_cpu_second: float
    """The same by the time the process had a core: what a machine that others use as well allows to compare."""
    gradients: Gradients
    """Of the first step, as the optimizer got them."""
    model: PreTrainedModel


def run(options: TRLBench) -> dict[str, Any]:
    """Both sides' tokens/s, the ratio of each repeat, and how far the first step's gradients are apart."""
    _check(options)
    base = random_model(shape_named(options.shape), torch.device("cpu"))
    steps = make_steps(options)
    found: dict[str, list[Run]] = {"ours": [], "trl": []}
    for repeat in range(options.repeats):
        for side in ("trl", "ours") if repeat % 2 == 0 else ("ours", "trl"):
            train_side = train_trl if side == "trl" else train_ours
            found[side].append(train_side(copy.deepcopy(base), steps, options))
    rates = {side: [each.tokens_per_second for each in runs] for side, runs in found.items()}
    cpu_rates = {side: [each.tokens_per_cpu_second for each in runs] for side, runs in found.items()}
    ratios, cpu_ratios = (
        [ours / trl for ours, trl in zip(each["ours"], each["trl"], strict=True)] for each in (rates, cpu_rates)
    )
    return {
        "schema": SCHEMA,
        **asdict(options),
        "threads": torch.get_num_threads(),
        "response_tokens": [step.tokens for step in steps],
        "padding_of_trl": _padding(steps),
        "ours_tokens_per_second": rates["ours"],
        "trl_tokens_per_second": rates["trl"],
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "cpu_time_ratio": statistics.median(cpu_ratios),
        "gradient_difference": gradient_difference(found["ours"][0].gradients, found["trl"][0].gradients),
    }


def make_steps(options: TRLBench) -> list[StepBatch]:
    """One step to warm up and the timed ones: random tokens, old log-probs near the model's, group advantages."""
    generator = torch.Generator().manual_seed(0)
    shape = shape_named(options.shape)
    batches = []
    for step in range(options.steps + 1):
        spread = _SPREAD[options.lengths] * torch.randn(options.rows, generator=generator)
        lengths = (options.median * spread.exp()).round().long().clamp(8, 16 * options.median)
        labels = torch.arange(options.rows) % 2
        groups = torch.arange(options.rows) // _SAMPLES
        advantages = group_advantages(labels.float(), groups)
        rows = [
            _row(shape.vocab, int(length), float(label), float(advantage), index, generator)
            for index, (length, label, advantage) in enumerate(zip(lengths, labels, advantages, strict=True))
        ]
        batches.append(StepBatch(step + 1, tuple(rows)))
    return batches


def train_ours(model: PreTrainedModel, steps: list[StepBatch], options: TRLBench) -> Run:
    """The steps through PolicyTrainer."""
    config = DistillConfig(
        rollouts="./none", advantage="outcome", learning_rate=_LEARNING_RATE, steps=len(steps),
        prompts_per_step=options.rows // _SAMPLES, micro_batch_tokens=_padded_pass(steps, options),
        checkpoint_every=len(steps) + 1,
    )  # fmt: skip
    loss = partial(clip_loss, clip_low=_CLIP_LOW, clip_high=_CLIP_HIGH, kl_weight=0.0, entropy_weight=0.0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = PolicyTrainer(
            model, steps=steps, loss=loss, role="student", config=config, seed=0,
            files=_NothingKept(Path(folder, "out"), Path(folder, "work")), tokenizer=_tokenizer(),
        )  # fmt: skip
        watch = _Watch()
        trainer.add_callback(watch)
        train(trainer)
    return Run(*watch.rates(steps), watch.gradients, model)


def train_trl(model: PreTrainedModel, steps: list[StepBatch], options: TRLBench) -> Run:
    """The steps through GRPOTrainer."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            folder, per_device_train_batch_size=options.micro_rows,
            gradient_accumulation_steps=options.rows // options.micro_rows, num_generations=_SAMPLES,
            max_steps=len(steps), learning_rate=_LEARNING_RATE, lr_scheduler_type="constant", adam_beta2=0.95,
            max_grad_norm=1.0, beta=0.0, epsilon=_CLIP_LOW, epsilon_high=_CLIP_HIGH, loss_type="dapo",
            temperature=1.0, disable_dropout=True, gradient_checkpointing=False, bf16=False, save_strategy="no",
            logging_strategy="no", report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
            use_cpu=not torch.cuda.is_available(),
        )  # fmt: skip
        watch = _Watch()
        trainer = StoredRollouts(
            model, reward_funcs=_no_reward, args=arguments, processing_class=_tokenizer(), callbacks=[watch],
            train_dataset=datasets.Dataset.from_dict({"prompt": [""] * options.rows * len(steps)}),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.stored = steps
        trainer.train()
    return Run(*watch.rates(steps), watch.gradients, model)


class StoredRollouts(GRPOTrainer):
    """GRPOTrainer on completions that are there already."""

    stored: list[StepBatch]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        rows = self.stored[self.state.global_step].trajectories
        tensors = {
            "prompt_ids": pad_sequence([row.prompt_ids for row in rows], True, 0, "left"),
            "prompt_mask": pad_sequence([torch.ones_like(row.prompt_ids) for row in rows], True, 0, "left"),
            "completion_ids": pad_sequence([row.response_ids for row in rows], True),
            "completion_mask": pad_sequence([torch.ones_like(row.response_ids) for row in rows], True),
            "advantages": pad_sequence([_column(row.advantages) for row in rows], True),
            "old_per_token_logps": pad_sequence([_column(row.old_logprobs) for row in rows], True),
            "num_items_in_batch": torch.tensor(float(sum(len(row.response_ids) for row in rows))),
        }
        return {name: value.to(self.accelerator.device) for name, value in tensors.items()}


class _NothingKept(RunFiles):
    def save_step(self, *_: object, **__: object) -> None:
        """A benchmark keeps no weights."""


class _Watch(TrainerCallback):
    """Seconds and CPU seconds of each step, and the first one's gradients."""

    def __init__(self) -> None:
        self.seconds: list[tuple[float, float]] = []
        self.gradients: Gradients = {}

    def on_step_begin(self, *_: object, **__: object) -> None:
        self.started = time.perf_counter(), time.process_time()

    def on_pre_optimizer_step(self, *_: object, model: PreTrainedModel, **__: object) -> None:
        if not self.gradients:
            self.gradients = {
                name: weight.grad.detach().cpu().clone()
                for name, weight in model.named_parameters()
                if weight.grad is not None
            }

    def on_step_end(self, *_: object, **__: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        wall, cpu = self.started
        self.seconds.append((time.perf_counter() - wall, time.process_time() - cpu))

    def rates(self, steps: list[StepBatch]) -> tuple[float, float]:
        """Response tokens per second and per CPU second after the first step."""
        tokens = sum(step.tokens for step in steps[1:])
        wall, cpu = (sum(column) for column in zip(*self.seconds[1:], strict=True))
        return tokens / wall, tokens / cpu


def gradient_difference(ours: Gradients, theirs: Gradients) -> float:
    """Norm of the difference over the norm of theirs."""
    assert ours.keys() == theirs.keys(), "both train every weight"
    difference = sum((ours[name] - theirs[name]).double().square().sum() for name in ours)
    return float((difference / sum(value.double().square().sum() for value in theirs.values())) ** 0.5)


def _row(vocab: int, length: int, label: float, advantage: float, index: int, generator: torch.Generator) -> Trajectory:
    prompt = int(torch.randint(*_PROMPT, (), generator=generator))
    ids = torch.randint(2, vocab, (prompt + length,), generator=generator)
    old = -math.log(vocab) + 0.3 * torch.randn(length, generator=generator)
    return Trajectory(
        str(index // _SAMPLES), index % _SAMPLES, ids[:prompt], ids[prompt:], label,
        old_logprobs=old, advantages=torch.full((length,), advantage),
    )  # fmt: skip


def _padded_pass(steps: list[StepBatch], options: TRLBench) -> int:
    """Tokens of TRL's largest pass, padding included."""
    return options.micro_rows * max(len(row) for step in steps for row in step.trajectories)


def _padding(steps: list[StepBatch]) -> float:
    """Share of TRL's positions that are padding, in the timed steps."""
    rows = [step.trajectories for step in steps[1:]]
    padded = sum(len(step) * max(len(row) for row in step) for step in rows)
    return 1 - sum(len(row) for step in rows for row in step) / padded if padded else 0.0


def _column(values: Tensor | None) -> Tensor:
    assert values is not None, "made by make_steps"
    return values


def _no_reward(completions: list, **_: object) -> list[float]:
    return [0.0] * len(completions)


def _tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


def _check(options: TRLBench) -> None:
    if options.lengths not in _SPREAD:
        raise ConfigError(f"lengths: expected {' or '.join(_SPREAD)}, got {options.lengths!r}")
    if options.rows % _SAMPLES or options.rows % options.micro_rows:
        raise ConfigError(
            f"rows: expected a multiple of {_SAMPLES} samples a prompt and of micro_rows, got {options.rows} and "
            f"{options.micro_rows}; TRL cuts a step evenly"
        )


def render(report: dict[str, Any]) -> str:
    """The report as text."""
    rates = {side: [f"{rate:.1f}" for rate in report[f"{side}_tokens_per_second"]] for side in ("ours", "trl")}
    return "\n".join(
        [
            f"{report['shape']}, {report['lengths']} lengths, {report['rows']} rows a step, passes of "
            f"{report['micro_rows']} rows in TRL ({report['padding_of_trl']:.0%} of its positions are padding)",
            f"response tokens/s, ours        {', '.join(rates['ours'])}",
            f"response tokens/s, GRPOTrainer {', '.join(rates['trl'])}",
            f"ratio                          {report['ratio']:.2f} ({', '.join(f'{x:.2f}' for x in report['ratios'])})",
            f"ratio by CPU time              {report['cpu_time_ratio']:.2f}",
            f"gradients of the first step differ by {report['gradient_difference']:.1e} of their norm",
        ]
    )
