"""Problems and how they become prompts: shared by rollouts, probes, evaluation and the prompts stage.

A prompt set is a folder with `data/train-*.parquet` (PROMPT_SCHEMA) and `format.json` (one PromptFormat for all).
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from erpd_hub.config import PromptFormat
from erpd_hub.errors import ArtifactError
from erpd_hub.samples import read_rows, shard_path, write_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPT_SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("source", pa.string()),  # where the problem is from: a generator or a Hub dataset
        ("problem", pa.string()),
        ("answer", pa.string()),  # the gold
    ]
)
_EXTRA = pa.field("extra", pa.string())  # Problem.extra; a column only of prompt sets in which it holds something


@dataclass(frozen=True)
class Problem:
    """A problem with its gold answer; an empty gold makes every response to it ungradable."""

    problem_id: str
    source: str
    problem: str
    gold: str
    extra: str | None = None
    """JSON object of the other columns of its source that a reward function is to see."""


def read_prompts(folder: Path) -> tuple[list[Problem], PromptFormat]:
    """The problems of a prompt set in their order, and the format they share.

    Raises:
        ArtifactError: the folder is no prompt set.
    """
    format_path = folder / "format.json"
    if not format_path.is_file():
        raise ArtifactError(f"{folder.name}: expected a prompt set with format.json in it, got none")
    format = PromptFormat.model_validate_json(format_path.read_text(encoding="utf-8"))
    rows = read_rows(folder)
    problems = [
        Problem(row["problem_id"], row["source"], row["problem"], row["answer"], row.get("extra")) for row in rows
    ]
    return problems, format


def write_prompts(folder: Path, problems: Sequence[Problem], format: PromptFormat) -> None:
    """Write the two parts of a prompt set."""
    rows = [
        {"problem_id": p.problem_id, "source": p.source, "problem": p.problem, "answer": p.gold, "extra": p.extra}
        for p in problems
    ]
    with_extra = any(problem.extra is not None for problem in problems)
    write_rows(shard_path(folder, 0), rows, PROMPT_SCHEMA.append(_EXTRA) if with_extra else PROMPT_SCHEMA)
    (folder / "format.json").write_text(format.model_dump_json(indent=2) + "\n", encoding="utf-8")


def normalise_problem(text: str) -> str:
    """A key for comparing problems: case, Unicode forms and white space do not tell two apart."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"\s+", " ", re.sub(r"\s*([^\w\s])\s*", r"\1", folded)).strip()


def problem_key(text: str) -> str:
    """The id of a problem that has none: 16 hex digits of its normalised text's sha256."""
    return hashlib.sha256(normalise_problem(text).encode()).hexdigest()[:16]


def render(problem: str, format: PromptFormat, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Token ids of the prompt for a problem: the template filled in, then the chat template or plain completion."""
    messages = prompt_messages(problem, format)
    if not format.chat:
        return list(tokenizer(messages[-1]["content"], add_special_tokens=True)["input_ids"])
    return list(
        tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            **format.chat_template_kwargs,
        )
    )


def prompt_messages(problem: str, format: PromptFormat) -> list[dict[str, str]]:
    """The conversation that asks for a solution, the filled-in template last; plain completion takes that alone."""
    system = format.system_prompt if format.chat else None
    messages = [] if system is None else [{"role": "system", "content": system}]
    return [*messages, {"role": "user", "content": format.template.replace("{problem}", problem)}]


def opens_thinking(rendered: str) -> bool:
    """Whether the rendered prompt leaves a think block open, so that a response without `</think>` has no answer."""
    return rendered.rstrip().endswith("<think>")
