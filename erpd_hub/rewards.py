"""Outcomes from a user's own reward function, with the signature of TRL's `reward_funcs`.

    def reward(prompts, completions, completion_ids, **columns) -> list[float | None]

Prompts and completions are texts, or lists of messages where the prompt set has `chat`; the columns are `problem_id`,
`source`, `problem`, `gold` and the same again as `answer`, and those of the user's own dataset that the prompt set has
kept (its `columns`). The losses here are about outcomes, so a reward is 1 (right), 0 (wrong) or None (ungraded); any
other number is refused. A function judges each sample by itself: which samples share a call is not fixed.

It runs in a process of its own, without this one's Hub tokens and endpoint keys (variables ending in _API_KEY too; one
that the function itself needs has to have another name). What it raises stops the stage, and so does a value that
is no outcome: both are mistakes in the function, and finished samples are kept. A call that takes too long, or ends the
process, is made again sample by sample: the answer that does it alone is wrong, as for the grader of maths, so that a
policy gains nothing by stalling. Many of these in a row are the function's fault and stop the stage.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from erpd_hub.config import PromptFormat
from erpd_hub.errors import ConfigError, StageError
from erpd_hub.evaluation.grading import Grade
from erpd_hub.line_pipes import LinePipes
from erpd_hub.plugins import recorded_hash
from erpd_hub.prompts import prompt_messages

if TYPE_CHECKING:
    from erpd_hub.sampling.engine import Completion
    from erpd_hub.sampling.plan import Draw

_STARTUP_SECONDS = 300.0  # it may import torch on a crowded machine, or load a model
_CALL_SAMPLES = 64
_FAILURES_IN_A_ROW = 8
_SECRET = re.compile(r"(HF|HUGGING_FACE_HUB|ERPD_HUB)_TOKEN|ERPD_HUB_TOKEN_.*|ERPD_\w+_KEY|\w*_API_KEY", re.IGNORECASE)
"""Variables with tokens of Hubs and keys of endpoints; a judge's key may have any name in _API_KEY."""

Pair = tuple["Draw", "Completion"]


class Reward(Protocol):
    """What says which samples are right, in place of a gold answer."""

    def grade(self, pairs: Sequence[Pair], format: PromptFormat) -> list[Grade]:
        """Grades of samples, in order."""

    def close(self) -> None: ...


def open_reward(name: str, *, seconds: float, prompts: Path) -> Reward | None:
    """The reward of a rollout on a prompt set; None for `math`, which compares with the gold.

    Raises:
        ConfigError: the function cannot be loaded.
        StageError: `unit_tests` on prompts without tests, or where programs cannot be run safely.
    """
    if name == "math":
        return None
    if name == "unit_tests":
        from erpd_hub.prompt_tests import unit_tests

        return unit_tests(prompts)
    return RewardFunction(name, seconds=seconds)


class _Lost(Exception):
    """A call without an answer: the time was up, or the process is gone."""


class RewardFunction:
    """A user's function, ready to grade: its process is started at once, so that a bad one costs nothing.

    Raises:
        ConfigError: the function cannot be loaded.
    """

    def __init__(self, path: str, *, seconds: float) -> None:
        self.path = path
        self._seconds = seconds
        self._worker: _Worker | None = None
        self._failures = 0
        self._started()

    def grade(self, pairs: Sequence[Pair], format: PromptFormat) -> list[Grade]:
        """Grades of samples, in order.

        Raises:
            StageError: the function raised, gave what is no outcome, or failed to answer many times in a row.
        """
        grades = [Grade("ungradable", None, None, "the engine failed", "none")] * len(pairs)
        asked = [index for index, (_, completion) in enumerate(pairs) if completion.finish_reason != "error"]
        for start in range(0, len(asked), _CALL_SAMPLES):
            part = asked[start : start + _CALL_SAMPLES]
            for index, grade in zip(part, self._graded([pairs[i] for i in part], format), strict=True):
                grades[index] = grade
        return grades

    def close(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _graded(self, pairs: Sequence[Pair], format: PromptFormat) -> list[Grade]:
        """Of one call; if that has no answer, of a call for each."""
        try:
            rewards = self._ask(pairs, format)
        except _Lost as lost:
            if len(pairs) > 1:
                return [self._graded([pair], format)[0] for pair in pairs]
            return [self._failed(pairs[0], str(lost))]
        self._failures = 0
        return [self._grade(pair, reward) for pair, reward in zip(pairs, rewards, strict=True)]

    def _ask(self, pairs: Sequence[Pair], format: PromptFormat) -> list[float | None]:
        worker = self._started()
        try:
            reply = worker.ask({**_arguments(pairs, format), "seconds": self._seconds}, self._seconds)
        except _Lost:
            self.close()
            raise
        if "error" in reply:
            raise StageError(
                f"{self.path}: {reply['error']}; called with {len(pairs)} samples from {_name(pairs[0])} on"
            )
        return list(reply["rewards"])

    def _grade(self, pair: Pair, reward: float | None) -> Grade:
        if reward is None:
            return Grade("ungradable", None, None, "the reward function gave None", "function")
        if reward not in (0, 1):
            raise StageError(
                f"{self.path}: expected a reward of 0, 1 or None, got {reward:g} for sample {_name(pair)}; the losses "
                "need outcomes, so compare a score with a bound in the function"
            )
        if reward:
            return Grade("correct", 1, None, None, "function")
        return Grade("truncated" if pair[1].finish_reason == "length" else "wrong", 0, None, None, "function")

    def _failed(self, pair: Pair, reason: str) -> Grade:
        self._failures += 1
        if self._failures >= _FAILURES_IN_A_ROW:
            raise StageError(
                f"{self.path}: no answer for {self._failures} samples in a row, the last {_name(pair)} ({reason}); "
                "check the function, or give it more reward_seconds"
            )
        return Grade("timeout", 0, None, reason, "function")

    def _started(self) -> "_Worker":
        if self._worker is None:
            self._worker = _Worker(self.path)
            try:
                reply = self._worker.receive(_STARTUP_SECONDS)
            except _Lost as lost:
                self.close()
                raise ConfigError(f"{self.path}: importing it failed: {lost}") from None
            if "error" in reply:
                self.close()
                raise ConfigError(reply["error"])
        return self._worker


class _Worker:
    """The child process (`reward_worker`)."""

    def __init__(self, path: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not _SECRET.fullmatch(name)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "erpd_hub.reward_worker", path, recorded_hash(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment, "PYTHONSAFEPATH": "1"},
            start_new_session=True,  # Ctrl-C is the parent's to handle
            bufsize=0,
        )
        self._pipes = LinePipes(self._process)

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Raises _Lost: no answer in time, or ever."""
        self._pipes.send(request)
        return self.receive(seconds)

    def receive(self, seconds: float) -> dict[str, Any]:
        """The next line. Raises _Lost: none in time, or the process has ended."""
        try:
            reply: dict[str, Any] = self._pipes.receive(seconds)
        except TimeoutError:
            raise _Lost(f"no answer in {seconds:g} s") from None
        except EOFError:
            raise _Lost(f"its process ended with code {self._process.wait()}") from None
        return reply

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._pipes.close()


def _arguments(pairs: Sequence[Pair], format: PromptFormat) -> dict[str, Any]:
    """What TRL's GRPOTrainer calls a reward function with, column by column."""
    problems = [draw.prompt.problem for draw, _ in pairs]
    prompts = [prompt_messages(problem.problem, format) for problem in problems]
    texts = [completion.text for _, completion in pairs]
    extras = [json.loads(problem.extra or "{}") for problem in problems]
    return {
        **{name: [extra.get(name) for extra in extras] for name in dict.fromkeys(chain.from_iterable(extras))},
        "prompts": prompts if format.chat else [messages[-1]["content"] for messages in prompts],
        "completions": [[{"role": "assistant", "content": text}] for text in texts] if format.chat else texts,
        "completion_ids": [completion.response_ids for _, completion in pairs],
        "problem_id": [problem.problem_id for problem in problems],
        "source": [problem.source for problem in problems],
        "problem": [problem.problem for problem in problems],
        "gold": [problem.gold for problem in problems],
        "answer": [problem.gold for problem in problems],
    }


def _name(pair: Pair) -> str:
    draw, _ = pair
    return f"{draw.prompt.problem.problem_id}#{draw.k}"
