"""The sampler with vLLM against vLLM alone, and against itself when lengths have a heavy tail.

* `against_bare`: tokens/s through the whole sampler (journal, grading beside it, shards) over tokens/s of the bare
  engine's own loop, on the same requests with the same parameters in the same engine; the two take turns. 0.95 or more.
* `heavy_tail`: seconds of a workload of forced, Pareto-distributed lengths over (its tokens / steady throughput), the
  throughput being the bare engine's on as many samples and tokens of about one length; the two take turns. 1.1 or less.
  What is above 1 is the end, when fewer samples are unfinished than the engine decodes together: it falls with samples
  a slot (16,000 on 256 slots are 62).
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from erpd_hub.arithmetic import random_problems
from erpd_hub.config import Decoding, PromptFormat, VLLMEngine
from erpd_hub.models import load_tokenizer
from erpd_hub.prompts import Problem
from erpd_hub.sampling.collect import collect
from erpd_hub.sampling.engine import Request
from erpd_hub.sampling.engines import fast_dtype
from erpd_hub.sampling.job import Job
from erpd_hub.sampling.plan import Draw, all_draws, render_prompts
from erpd_hub.sampling.vllm_engine import InProcessEngine
from erpd_hub.stage_context import StageContext

_FORMAT = PromptFormat(template="3 + 8 = 11\n45 + 38 = 83\n{problem} =", chat=False, extract="first-line")
_LONGEST = 4
"""The limit over the mean: 32,768 where the mean is about 8,000."""
_ROOM = 128
"""Tokens for the prompt; these have about 30."""


@dataclass(frozen=True)
class Workload:
    prompts: int = 16
    k: int = 8
    mean_tokens: int = 64
    repeats: int = 3
    """Runs of each side."""


class ForcedLengths(InProcessEngine):
    """The engine with a length for each request, whatever the model says."""

    lengths: dict[int, int]
    """By seed."""

    def params(self, request: Request, decoding: Decoding, stop: Sequence[str]) -> Any:
        params = super().params(request, decoding, stop)
        params.ignore_eos = True
        params.max_tokens = self.lengths[request.seed]
        return params


class Spent(NamedTuple):
    """Seconds of one run."""

    wall: float
    cpu: float
    """Of this process, vLLM's threads included: on a shared CPU, with one thread, the steadier of the two."""


class _Bench:
    """An engine and the draws that all runs share."""

    def __init__(self, checkpoint: Path, config: VLLMEngine, work: Workload, longest: int) -> None:
        self.work, self.longest = work, longest
        tokenizer = load_tokenizer(checkpoint)
        pairs = random_problems(work.prompts, min_digits=2, max_digits=2, seed=0, spaces=True)
        problems = [Problem(problem, "addition", problem, answer) for problem, answer in pairs]
        self.draws = all_draws(render_prompts(problems, _FORMAT, tokenizer), "addition", work.k, 0)
        # No stop tokens: each response has the length it is given.
        self.engine = ForcedLengths(
            config, checkpoint, tokenizer, frozenset(), dtype=fast_dtype(config.dtype), longest=longest + _ROOM,
            scratch=checkpoint,
        )  # fmt: skip
        self.decoding = Decoding(max_new_tokens=longest)

    def bare(self, lengths: dict[int, int]) -> Spent:
        """vLLM's own loop."""
        self._reset(lengths)
        started = _now()
        for index, draw in enumerate(self.draws):
            self.engine.submit(index, Request(draw.prompt.prompt_ids, draw.seed), self.decoding, ())
        tokens = 0
        while self.engine.llm.has_unfinished_requests():
            tokens += sum(len(output.outputs[0].token_ids) for output in self.engine.llm.step())
        spent = _since(started)
        assert tokens == sum(lengths.values())
        return spent

    def sampled(self, lengths: dict[int, int]) -> Spent:
        """The sampler, with everything it writes."""
        self._reset(lengths)
        with TemporaryDirectory() as folder:
            out = Path(folder)
            context = StageContext(0, out / "work")
            job = Job(self.draws, "addition", self.decoding, _FORMAT, None, out / "out", context)
            started = _now()
            collect(job, lambda: _Kept(self.engine))
            return _since(started)

    def close(self) -> None:
        self.engine.close()

    def _reset(self, lengths: dict[int, int]) -> None:
        self.engine.lengths = lengths
        self.engine.llm.reset_prefix_cache()


class _Kept:
    """An engine that outlives the job it is lent to."""

    reproducible = False
    unseeded = False

    def __init__(self, engine: InProcessEngine) -> None:
        self.generate = engine.generate

    def close(self) -> None:
        pass


def against_bare(checkpoint: Path, config: VLLMEngine, work: Workload) -> dict[str, Any]:
    """Sampler over bare engine; see the module."""
    bench = _Bench(checkpoint, config, work, 2 * work.mean_tokens)
    rng = random.Random(0)
    lengths = {draw.seed: rng.randint(1, 2 * work.mean_tokens) for draw in bench.draws}
    pairs = _in_turns(bench, lambda: bench.sampled(lengths), lambda: bench.bare(lengths))
    tokens = sum(lengths.values())
    return {
        "benchmark": "sampling",
        "samples": len(lengths),
        "tokens": tokens,
        "sampler_tokens_per_second": [round(tokens / ours.wall, 1) for ours, _ in pairs],
        "bare_tokens_per_second": [round(tokens / bare.wall, 1) for _, bare in pairs],
        "ratio": round(median(bare.wall / ours.wall for ours, bare in pairs), 3),
        "cpu_ratio": round(median(bare.cpu / ours.cpu for ours, bare in pairs), 3),
        "aim": ">= 0.95",
    }


def heavy_tail(checkpoint: Path, config: VLLMEngine, work: Workload) -> dict[str, Any]:
    """Seconds over tokens at steady throughput; see the module."""
    longest = _LONGEST * work.mean_tokens
    bench = _Bench(checkpoint, config, work, longest)
    tail = pareto_lengths(bench.draws, work.mean_tokens, longest)
    tokens = sum(tail.values())
    even = _even_lengths(tail)
    pairs = _in_turns(bench, lambda: bench.sampled(tail), lambda: bench.bare(even))
    return {
        "benchmark": "tail",
        "samples": len(tail),
        "tokens": tokens,
        "longest": max(tail.values()),
        "median": int(median(tail.values())),
        "seconds": [round(ours.wall, 2) for ours, _ in pairs],
        "seconds_at_steady_throughput": [round(steady.wall, 2) for _, steady in pairs],
        "ratio": round(median(ours.wall / steady.wall for ours, steady in pairs), 3),
        "cpu_ratio": round(median(ours.cpu / steady.cpu for ours, steady in pairs), 3),
        "aim": "<= 1.1",
    }


def pareto_lengths(draws: Sequence[Draw], mean: int, longest: int) -> dict[int, int]:
    """Lengths by seed with about this mean, from a Pareto distribution (shape 1.5) cut at `longest`."""
    rng = random.Random(0)
    raw = [min(rng.paretovariate(1.5), 3 * longest / mean) for _ in draws]
    scale = mean * len(raw) / sum(raw)
    return {draw.seed: max(1, min(longest, round(scale * value))) for draw, value in zip(draws, raw, strict=True)}


def _even_lengths(lengths: dict[int, int]) -> dict[int, int]:
    """As many tokens in lengths within a quarter of the mean, so that samples start and end at different times too."""
    rng = random.Random(1)
    mean = sum(lengths.values()) // len(lengths)
    even = {seed: rng.randint(mean - mean // 4, mean + mean // 4) for seed in lengths}
    missing = sum(lengths.values()) - sum(even.values())
    for place, seed in enumerate(even):
        even[seed] += missing // len(even) + (place < missing % len(even))
    return even


def _in_turns(bench: _Bench, first: Callable[[], Spent], second: Callable[[], Spent]) -> list[tuple[Spent, Spent]]:
    """What both spend, taking turns, after a run that warms up."""
    second()
    pairs = []
    for turn in range(bench.work.repeats):
        if turn % 2:
            later = second()
            pairs.append((first(), later))
        else:
            pairs.append((first(), second()))
    bench.close()
    return pairs


def _now() -> Spent:
    return Spent(time.perf_counter(), time.process_time())


def _since(started: Spent) -> Spent:
    now = _now()
    return Spent(now.wall - started.wall, now.cpu - started.cpu)
