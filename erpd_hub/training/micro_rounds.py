"""The samples of a step of online training: some prompts, K graded responses each, from the policy as it is now.

A step's samples are a small rollout in the work directory, drawn and resumed as any rollout is. One engine samples in
the training's own process, from the very weights; any other gets the weights as a checkpoint folder and a process of
its own, whose end gives the GPU back. Only the step at hand has a folder: after a kill the step behind the checkpoint
finds what it had, and that came from exactly these weights.
"""

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from erpd_hub.config import OnlineConfig, PromptFormat, RolloutConfig, TransformersEngine
from erpd_hub.launching.launch import run_stage
from erpd_hub.launching.machine import visible_gpus
from erpd_hub.launching.options import Launch
from erpd_hub.launching.worker import Job as StageJob
from erpd_hub.logprobs import unwrap
from erpd_hub.prompts import Problem, write_prompts
from erpd_hub.rewards import Reward, open_reward
from erpd_hub.samples import sample_seed
from erpd_hub.sampling.engines import fast_dtype
from erpd_hub.sampling.job import Job
from erpd_hub.sampling.plan import all_draws, render_prompts
from erpd_hub.sampling.sampler import draw_batches
from erpd_hub.sampling.transformers_engine import LocalEngine
from erpd_hub.stage_context import StageContext

_POLL = 0.1
_DONE = "done"
_HOST = torch.device("cpu")


@dataclass(frozen=True)
class PromptStep:
    """The prompts of one step."""

    step: int
    """From 1."""
    problems: tuple[Problem, ...]


class MicroRounds:
    """Draws the samples of steps into `work/micro-rounds/step-N/`.

    Args:
        prompts: The prompt set, with its tests where the reward needs some.
        rank, world: This process among those that train together, on one file system.
    """

    def __init__(
        self,
        config: OnlineConfig,
        format: PromptFormat,
        tokenizer: PreTrainedTokenizerBase,
        *,
        prompts: Path,
        seed: int,
        work: Path,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.config, self.format, self.tokenizer = config, format, tokenizer
        self.seed, self.rank, self.world = seed, rank, world
        self.prompts, self.folder = prompts, work / "micro-rounds"
        self._opened: Reward | None = None

    def close(self) -> None:
        """End the reward's processes."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def draw_here(self, step: PromptStep, model: nn.Module) -> Path:
        """Sample from a model in this process, which draws its share of the step's batches.

        Args:
            model: The policy in training, whole, whatever wraps it.
        """
        assert isinstance(self.config.engine, TransformersEngine)
        out = self._open(step)
        context = StageContext(self._seed(step), out / "work", self.rank, self.world)
        prompts = render_prompts(step.problems, self.format, self.tokenizer)
        draws = all_draws(prompts, step.problems[0].source, self.config.k, context.seed)
        job = Job(
            draws, step.problems[0].source, self.config.decoding, self.format,
            earlier=None, out=out, context=context, reward=self._reward(),
        )  # fmt: skip
        with _in_dtype(model, fast_dtype(self.config.engine.dtype)) as policy:
            draw_batches(job, lambda: LocalEngine(policy, self.tokenizer), self.config.engine.batch_tokens)
        self._wait(out)
        return out

    def draw_elsewhere(self, step: PromptStep, publish: Callable[[Path], None]) -> Path:
        """Sample in processes of their own, on all GPUs that this one sees; the first of a training starts them.

        Args:
            publish: Writes the policy as a checkpoint folder; all processes of the training take part in it.
        """
        out = self._open(step)
        if (out / _marker(0, self.world)).exists():  # from before a kill
            return out
        weights, prompts = out / "policy", out / "prompts"
        if self.rank == 0:
            shutil.rmtree(weights, ignore_errors=True)  # from before a kill
        publish(weights)
        if self.rank == 0:
            write_prompts(prompts, step.problems, self.format)
            if (tests := self.prompts / "tests").is_dir() and not (prompts / "tests").exists():
                (prompts / "tests").symlink_to(tests.resolve(), target_is_directory=True)
            context = StageContext(self._seed(step), out / "work")
            inputs = {"prompts": prompts, "policy": weights}
            job = StageJob(f"step {step.step}", self._rollout(), out, inputs, context, torch.get_num_threads())
            run_stage(job, _all_devices(), out / "launch")
            shutil.rmtree(weights)
        self._wait(out, first_only=True)
        return out

    def _open(self, step: PromptStep) -> Path:
        """The step's folder, with what an attempt before has drawn; the others go."""
        out = self.folder / f"step-{step.step}"
        if self.rank == 0:
            for other in self.folder.glob("step-*"):
                if other != out:
                    shutil.rmtree(other)
        out.mkdir(parents=True, exist_ok=True)
        return out

    def _seed(self, step: PromptStep) -> int:
        """Of all its samples, each of which has a seed of its own: a prompt that comes again gets other responses."""
        return sample_seed(self.seed, "online", str(step.step), 0)

    def _rollout(self) -> RolloutConfig:
        config = self.config
        return RolloutConfig(
            prompts="prompts",
            k=config.k,
            decoding=config.decoding,
            engine=config.engine,
            reward=config.reward,
            reward_seconds=config.reward_seconds,
            python=config.sampler_python or sys.executable,
        )

    def _reward(self) -> Reward | None:
        config = self.config
        if self._opened is None:
            self._opened = open_reward(config.reward, seconds=config.reward_seconds, prompts=self.prompts)
        return self._opened

    def _wait(self, out: Path, *, first_only: bool = False) -> None:
        """Until every process has drawn its share: by files, since a collective gives up after minutes."""
        if self.rank == 0 or not first_only:
            (out / _marker(self.rank, self.world)).touch()
        awaited = [_marker(rank, self.world) for rank in range(1 if first_only else self.world)]
        while not all((out / name).exists() for name in awaited):
            time.sleep(_POLL)


@contextmanager
def parked(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within it a policy that is not in shards and its optimizer state are in host memory: the GPU is the engine's."""
    weights = [(value, value.device) for value in (*model.parameters(), *model.buffers())]
    states = [
        (state, name, value.device)
        for state in optimizer.state.values()
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    ]
    _place([(value, _HOST) for value, _ in weights], [(state, name, _HOST) for state, name, _ in states])
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        yield
    finally:
        _place(weights, states)


def _place(
    weights: Sequence[tuple[torch.Tensor, torch.device]], states: Sequence[tuple[dict[str, Any], str, torch.device]]
) -> None:
    for value, device in weights:
        value.data = value.data.to(device)
    for state, name, device in states:
        state[name] = state[name].to(device)


@contextmanager
def _in_dtype(model: nn.Module, dtype: str) -> Iterator[Any]:
    """The policy in a model, computing in the engine's dtype; its fp32 weights are cast once."""
    policy = unwrap(model)
    policy.eval()
    with torch.autocast(policy.device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        yield policy


def _all_devices() -> Launch:
    devices = visible_gpus()
    return Launch(len(devices) or None, devices)


def _marker(rank: int, world: int) -> str:
    return f"{_DONE}-{rank}-of-{world}"
