"""The tiny policy's start: supervised steps on flawed solutions, until it solves as many as the recipe asks for.

It stops on *sampled* accuracy: with a fixed number of steps the same recipe gave 0.48, 0.32 and 0.17 on three seeds.
Chains grow with the steps, and most are much shorter than the longest: a batch holds as many more of them, and it is
different numbers that teach to add.
"""

import logging
import math
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from erpd_hub.arithmetic import demonstration, random_problems
from erpd_hub.chain import chain_problems, chain_solution, chain_tokens
from erpd_hub.config import TINY_FORMAT, Decoding, TinyBase
from erpd_hub.errors import StageError
from erpd_hub.evaluation.grading import Response, grade_many
from erpd_hub.logprobs import response_logprobs
from erpd_hub.programs import MOST_TOKENS as PROGRAM_TOKENS
from erpd_hub.programs import flawless_program, program, program_problems
from erpd_hub.prompts import render
from erpd_hub.response_batch import ResponseBatch, make_batch
from erpd_hub.samples import sample_seed
from erpd_hub.sampling.engine import Request
from erpd_hub.sampling.transformers_engine import LocalEngine

_WARMUP_STEPS = 30
_BETAS = (0.9, 0.95)
_MAX_GRAD_NORM = 1.0
_MICRO_BATCH = 16
"""Rows of one pass: more of them only miss the cache."""
_VALIDATION_PROBLEMS = 64
_VALIDATION_SAMPLES = 4
_TOKENS_PER_COLUMN = 10
"""`6+0+0=06;` is nine."""
_TOKENS_BESIDES = 24
"""Room for the box, and for a policy that does a column too many."""
_FULL_SHARE = 0.2
"""Of the steps that draw chains, those that draw the longest so far; the others' lengths are log-uniform below."""

logger = logging.getLogger(__name__)


@dataclass
class WarmStart:
    """Steps that are each a function of seed and step, so that resuming needs no state of data or noise."""

    config: TinyBase
    seed: int
    work: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    step: int = 0
    reached: int | None = None
    """Step at which the target was met; the decay runs from there."""

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.config.learning_rate, betas=_BETAS, weight_decay=0.0
        )

    def run(self) -> None:
        """Train to the end of the decay, from the last saved state if there is one.

        Raises:
            StageError: the target is not met within `max_steps`.
        """
        self._resume()
        while self.reached is None or self.step < self.reached + self.config.decay_steps:
            self._train_step()
            if self.reached is None:
                self._check()
            if self.step % self.config.checkpoint_every == 0:
                self._save()

    def accuracy(self) -> float:
        """Sampled accuracy at temperature 1 on problems kept for validation."""
        problems = self._problems(_VALIDATION_PROBLEMS, "validation", 0)
        samples = 1 if self.config.task == "chain" else _VALIDATION_SAMPLES  # a long one costs as much as thirty
        draws = [(problem, answer, k) for problem, answer in problems for k in range(samples)]
        requests = [
            Request(tuple(self._prompt(problem)), sample_seed(self.seed, "validation", problem, k))
            for problem, _, k in draws
        ]
        decoding = Decoding(max_new_tokens=self._room())
        drawn = dict(LocalEngine(self.model, self.tokenizer).generate(requests, decoding, ()))
        if self.config.task == "program":  # one program is right, so nothing has to be run
            texts = [flawless_program(problem) for problem, _, _ in draws]
            return sum(drawn[index].text == text for index, text in enumerate(texts)) / len(draws)
        answers = [answer for _, answer, _ in draws]
        responses = [
            Response(answer, drawn[index].text, drawn[index].finish_reason) for index, answer in enumerate(answers)
        ]
        return sum(grade.label or 0 for grade in grade_many(responses, extract="boxed")) / len(responses)

    def _train_step(self) -> None:
        batches = self._demonstrations()
        tokens = sum(int(batch.response_lengths.sum()) for batch in batches)
        for batch in batches:
            (-response_logprobs(self.model, batch, temperature=1.0).logprobs.sum() / tokens).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _MAX_GRAD_NORM)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1

    def _check(self) -> None:
        config = self.config
        if self.step < config.first_check or (self.step - config.first_check) % config.check_every:
            return
        accuracy = self.accuracy()
        logger.info("warm start: step %d, sampled accuracy %.3f", self.step, accuracy)
        if accuracy >= config.target_accuracy:
            self.reached = self.step
        elif self.step >= config.max_steps:
            raise StageError(
                f"base: expected a sampled accuracy of {config.target_accuracy} within {config.max_steps} steps, got "
                f"{accuracy:.3f}; raise max_steps or make the model larger"
            )

    def _learning_rate(self) -> float:
        """Linear warm-up, constant, then linear decay to zero over the steps after the target is met."""
        rate = self.config.learning_rate
        if self.reached is None:
            return rate * min(1.0, (self.step + 1) / _WARMUP_STEPS)
        return rate * (1 - (self.step - self.reached) / self.config.decay_steps)

    def _demonstrations(self) -> list[ResponseBatch]:
        """One step's demonstrations, in micro-batches of like length."""
        rng = random.Random(f"{self.seed}/{self.step}")
        end = self.tokenizer.eos_token_id
        pairs = []
        for problem, _ in self._drawn(rng):
            solution = self.tokenizer(self._demonstration(problem, rng))["input_ids"]
            pairs.append((self._prompt(problem), [*solution, end]))
        pairs.sort(key=lambda pair: len(pair[1]))
        parts = [pairs[start : start + _MICRO_BATCH] for start in range(0, len(pairs), _MICRO_BATCH)]
        return [
            make_batch([prompt for prompt, _ in part], [response for _, response in part], self.model.device)
            for part in parts
        ]

    def _drawn(self, rng: random.Random) -> list[tuple[str, str]]:
        """One step's problems; of chains about as many additions at every length."""
        config = self.config
        if config.task != "chain":
            return self._problems(config.batch_size, "warm-start", self.step)
        grown = min(config.chain_steps, 2 + self.step * config.chain_steps // config.grow_steps)
        length = grown if rng.random() < _FULL_SHARE else round(math.exp(rng.uniform(0, math.log(grown))))
        count = max(1, round(config.batch_size * config.chain_steps / length))
        return self._problems(count, "warm-start", self.step, length)

    def _demonstration(self, problem: str, rng: random.Random) -> str:
        config = self.config
        if config.task == "chain":
            flaws = {"carry_error": config.carry_error, "digit_error": config.digit_error}
            return chain_solution(problem, rng, columns=config.max_digits, **flaws)
        if config.task == "program":
            return program(
                problem, rng, no_addend=config.carry_error, digit_error=config.digit_error, unclosed=config.no_work
            )
        a, b = map(int, problem.split("+"))
        return demonstration(
            a,
            b,
            rng,
            carry_error=config.carry_error,
            digit_error=config.digit_error,
            no_work=config.no_work,
            lazy=config.lazy,
        )

    def _problems(self, count: int, purpose: str, step: int, length: int | None = None) -> list[tuple[str, str]]:
        """The problems of a purpose and step; chains are of `length` additions, by default as the task has them."""
        config = self.config
        low, high = config.min_digits, config.max_digits
        seed = sample_seed(self.seed, purpose, str(step), 0)
        if config.task == "chain":
            return chain_problems(count, min_digits=low, max_digits=high, steps=length or config.chain_steps, seed=seed)
        if config.task == "program":
            return program_problems(count, min_digits=low, max_digits=high, seed=seed)
        return random_problems(count, min_digits=low, max_digits=high, seed=seed, spaces=False)

    def _room(self) -> int:
        """Tokens that a response may have."""
        config = self.config
        if config.task == "chain":
            return chain_tokens(columns=config.max_digits, steps=config.chain_steps) + _TOKENS_BESIDES
        if config.task == "program":
            return PROGRAM_TOKENS
        return _TOKENS_PER_COLUMN * config.max_digits + _TOKENS_BESIDES

    def _prompt(self, problem: str) -> list[int]:
        return render(problem, TINY_FORMAT, self.tokenizer)

    @property
    def _state_path(self) -> Path:
        return self.work / "warm-start.pt"

    def _save(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        temporary = self._state_path.with_suffix(".partial")
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state | {"step": self.step, "reached": self.reached}, temporary)
        temporary.replace(self._state_path)

    def _resume(self) -> None:
        if not self._state_path.exists():
            return
        state = torch.load(self._state_path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.reached = state["step"], state["reached"]
        logger.info("warm start: resuming at step %d", self.step)
