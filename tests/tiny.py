"""What the learning tests share: a two-layer policy and rollouts made of real and flawed solutions."""

import hashlib
import random
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from erpd_hub.arithmetic import demonstration, random_problems
from erpd_hub.config import PromptFormat, TinyBase
from erpd_hub.models import save_checkpoint
from erpd_hub.prompts import PROMPT_SCHEMA, render
from erpd_hub.samples import SAMPLE_SCHEMA, Sample, shard_path, write_rows
from erpd_hub.stage_context import StageContext
from erpd_hub.tiny_policies import tiny_policy

TINY = TinyBase(type="tiny", hidden_size=24, layers=2, heads=2, intermediate_size=48, max_digits=2, min_digits=1)
FORMAT = PromptFormat(template="{problem}?")


def make_policy(seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return tiny_policy(TINY, seed)


def save_policy(folder: Path, seed: int = 0) -> Path:
    save_checkpoint(*make_policy(seed), folder)
    return folder


def context(folder: Path, seed: int = 0) -> StageContext:
    return StageContext(seed, folder / "work")


def write_prompts(folder: Path, count: int = 4) -> Path:
    rows = [
        {"problem_id": problem, "source": "addition", "problem": problem, "answer": answer}
        for problem, answer in _problems(count)
    ]
    write_rows(shard_path(folder, 0), rows, PROMPT_SCHEMA)
    (folder / "format.json").write_text(FORMAT.model_dump_json())
    return folder


def write_rollouts(folder: Path, *, prompts: int = 6, k: int = 3, label: int | None = None) -> Path:
    """Rollouts of demonstrations, the first of each problem right and the others flawed; two shards.

    Args:
        label: Given, it is the label of all.
    """
    tokenizer = make_policy()[1]
    rng = random.Random(0)
    rows = []
    for problem, answer in _problems(prompts):
        for index in range(k):
            flaw = 0.0 if index == 0 else 1.0
            a, b = map(int, problem.split("+"))
            text = demonstration(a, b, rng, carry_error=0.0, digit_error=flaw, no_work=0.0)
            outcome = int(text.endswith(f"{{{answer}}}")) if label is None else label
            rows.append(_row(problem, answer, index, text, outcome, tokenizer))
    half = len(rows) // 2
    write_rows(shard_path(folder, 0), rows[:half], SAMPLE_SCHEMA)
    write_rows(shard_path(folder, 1), rows[half:], SAMPLE_SCHEMA)
    return folder


def folder_digest(folder: Path, *leave_out: str) -> dict[str, str]:
    """SHA-256 of each file in a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in leave_out
    }


def _problems(count: int) -> list[tuple[str, str]]:
    return random_problems(count, min_digits=1, max_digits=2, seed=5, spaces=False)


def _row(problem: str, answer: str, k: int, text: str, label: int, tokenizer: PreTrainedTokenizerBase) -> Sample:
    return Sample(
        benchmark="addition",
        problem_id=problem,
        k=k,
        seed=k,
        prompt_ids=render(problem, FORMAT, tokenizer),
        response_ids=[*tokenizer(text)["input_ids"], tokenizer.eos_token_id],
        sampler_logprobs=None,
        finish_reason="stop",
        text=text,
        gold=answer,
        extracted=answer if label else "0",
        verdict="correct" if label else "wrong",
        label=label,
        judge=None,
    )
