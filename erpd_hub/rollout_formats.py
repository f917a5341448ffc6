"""Rows of other programs' rollout files, read one by one: `jsonl`, `trl` and `verl` (`config.ImportedRollouts`).

* `jsonl`: the columns of a rollouts artifact (`samples`), of which few are needed.
* `trl`: what GRPOTrainer's `log_completions` writes (TRL 1.16: step, prompt, completion, a column for each reward
  function, advantage; no token ids), or a dataset of such columns with `prompt_ids` and `completion_ids`.
* `verl`: `trainer.rollout_data_dir` (input, output, gts, score, step; texts without special tokens), or rows of a
  batch with `prompts` and `responses` as token ids, padded where `attention_mask` says so.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from erpd_hub.errors import ArtifactError
from erpd_hub.samples import FinishReason

Row = dict[str, Any]
Messages = list[dict[str, Any]]

_ANSWERS = ("gold", "answer", "solution", "ground_truth")
_COMMON = {
    "problem_id": ("problem_id",),
    "k": ("k",),
    "benchmark": ("benchmark", "data_source"),
    "finish_reason": ("finish_reason",),
    "sampler_logprobs": ("sampler_logprobs",),
    "prompt_ids": ("prompt_ids",),
}
COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    "jsonl": {**_COMMON, "prompt": ("prompt",), "response": ("text", "response"), "response_ids": ("response_ids",),
              "gold": _ANSWERS, "reward": ("label", "reward")},
    "trl": {**_COMMON, "prompt": ("prompt",), "response": ("completion",), "response_ids": ("completion_ids",),
            "gold": _ANSWERS, "reward": ("reward", "rewards")},
    "verl": {**_COMMON, "prompt": ("input",), "response": ("output",), "prompt_ids": ("prompt_ids", "prompts"),
             "response_ids": ("response_ids", "responses"), "gold": ("gts", *_ANSWERS), "reward": ("score",)},
}  # fmt: skip
"""Ours to the format's own names; the first that a row has."""
_NO_REWARD = ("step", "advantage", "advantages", "k")
_SUFFIXES = (".jsonl", ".json", ".parquet")
_BLOCK_ROWS = 256
_MAX_LOGPROB = 3.4028234e38
"""In size: a rollouts artifact has them as float32."""


class BadRow(Exception):
    """A row that is no sample, with the reason."""


@dataclass
class Drawn:
    """One sample as its file has it."""

    prompt: str | Messages | None
    prompt_ids: list[int] | None
    response: str | None
    response_ids: list[int] | None
    gold: str
    reward: float | None
    problem_id: str | None
    k: int | None
    benchmark: str | None
    finish_reason: FinishReason
    sampler_logprobs: list[float] | None


def data_files(source: Path) -> list[Path]:
    """The files of an import in order of name.

    Raises:
        ArtifactError: none, or one of another kind.
    """
    if source.is_file() and source.suffix not in _SUFFIXES:
        raise ArtifactError(f"source: expected a file named *.jsonl, *.json or *.parquet, got *{source.suffix}")
    found = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.suffix in _SUFFIXES)
    if not found:
        raise ArtifactError("source: expected files named *.jsonl, *.json or *.parquet in the folder, got none")
    return found


def read_rows(path: Path) -> Iterator[tuple[int, Row | None]]:
    """Number, from 1, and content of each row, a few at a time; None for what is no JSON object.

    A `.json` file has JSON lines, as datasets write it, or one array of rows, as others do, which is read whole.

    Raises:
        ArtifactError: a parquet file or an array that cannot be read.
    """
    if path.suffix == ".json" and (rows := _array(path)) is not None:
        yield from enumerate((row if isinstance(row, dict) else None for row in rows), 1)
        return
    if path.suffix != ".parquet":
        with path.open(encoding="utf-8", errors="replace") as stream:
            yield from ((number, _object(line)) for number, line in enumerate(stream, 1) if line.strip())
        return
    try:
        blocks = pq.ParquetFile(path).iter_batches(_BLOCK_ROWS)
        yield from enumerate((row for block in blocks for row in block.to_pylist()), 1)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # the last two: a text, a date
        raise ArtifactError(f"source: expected a parquet file, got one that cannot be read ({error})") from None


def parse(row: Row | None, format: str, columns: Mapping[str, str]) -> Drawn:
    """One row as a sample; token ids may be missing.

    Raises:
        BadRow: what is there is not of the right kind.
    """
    if row is None:
        raise BadRow("no JSON object")
    names = {ours: (columns[ours],) if ours in columns else theirs for ours, theirs in COLUMNS[format].items()}
    found = {ours: next((row[name] for name in theirs if row.get(name) is not None), None)
             for ours, theirs in names.items()}  # fmt: skip
    if found["reward"] is None and format == "trl" and "reward" not in columns:
        found["reward"] = _only_number(row, [name for theirs in names.values() for name in theirs])
    prompt_ids, response_ids = (_ids(found[name], name) for name in ("prompt_ids", "response_ids"))
    logprobs = found["sampler_logprobs"]
    if format == "verl" and row.get("attention_mask") is not None and prompt_ids and response_ids:
        prompt_ids, response_ids, logprobs = _unpadded(row["attention_mask"], prompt_ids, response_ids, logprobs)
    if found["response_ids"] is not None and response_ids is None and not _completion(found["response"]):
        raise BadRow("response: expected at least one token, got none")
    return Drawn(
        prompt=_prompt(found["prompt"]),
        prompt_ids=prompt_ids,
        response=_completion(found["response"]),
        response_ids=response_ids,
        gold=(_text(found["gold"], "gold") or "").strip(),
        reward=_number(found["reward"], "reward"),
        problem_id=_text(found["problem_id"], "problem_id"),
        k=_index(found["k"]),
        benchmark=_text(found["benchmark"], "benchmark"),
        finish_reason=_finish(found["finish_reason"]),
        sampler_logprobs=_logprobs(logprobs, response_ids),
    )


def _array(path: Path) -> list[Any] | None:
    """The elements of a file that is one JSON array, None of another.

    Raises:
        ArtifactError: it begins as an array and is none.
    """
    with path.open(encoding="utf-8", errors="replace") as stream:
        if not stream.read(80).lstrip().startswith("["):
            return None
        stream.seek(0)
        try:
            found: list[Any] = json.load(stream)
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"source: expected JSON lines or an array, got neither ({error})") from None
    return found


def _object(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _ids(value: Any, name: str) -> list[int] | None:
    if value is None or (isinstance(value, Sequence) and not len(value)):
        return None
    if not isinstance(value, list) or not all(type(i) is int and 0 <= i < 1 << 31 for i in value):
        raise BadRow(f"{name}: expected a list of token ids")
    return value


def _unpadded(mask: Any, prompt: list[int], response: list[int], logprobs: Any) -> tuple[list[int], list[int], Any]:
    """Ids, and log-probs that are as long as the response, without padding."""
    if not isinstance(mask, list) or len(mask) != len(prompt) + len(response):
        raise BadRow("attention_mask: expected a value for each token of prompts and responses")
    of_prompt, of_response = mask[: len(prompt)], mask[len(prompt) :]
    if isinstance(logprobs, list) and len(logprobs) == len(response):
        logprobs = list(compress(logprobs, of_response))
    return list(compress(prompt, of_prompt)), list(compress(response, of_response)), logprobs


def _text(value: Any, name: str) -> str | None:
    text = None if value is None else str(value)
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise BadRow(f"{name}: expected text that is UTF-8, got half of a surrogate pair") from None
    return text


def _prompt(value: Any) -> str | Messages | None:
    if value is None or isinstance(value, str):
        return _text(value, "prompt")
    if (
        isinstance(value, list)
        and value
        and all(isinstance(m, dict) and isinstance(m.get("content"), str) for m in value)
    ):
        for message in value:
            _text(message["content"], "prompt")
        return value
    raise BadRow("prompt: expected a text or a list of messages with text")


def _completion(value: Any) -> str | None:
    """The text of a completion; TRL's conversational ones are a list of one message."""
    if value is None or isinstance(value, str):
        return _text(value, "completion")
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        content = value[0].get("content")
        if isinstance(content, str):
            return _text(content, "completion")
    raise BadRow("completion: expected a text or one message; several turns are not one response")


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, bool | int | float):
        raise BadRow(f"{name}: expected a number, got {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        raise BadRow(f"{name}: expected a number that a float can hold, got one that is larger") from None
    return None if math.isnan(number) else number


def _only_number(row: Row, taken: list[str]) -> float | None:
    """TRL names a reward's column after its function: the one column of numbers that is nothing else.

    Raises:
        BadRow: there are several.
    """
    numbers = [n for n, v in row.items() if isinstance(v, bool | int | float) and n not in (*taken, *_NO_REWARD)]
    if len(numbers) > 1:
        raise BadRow(f"reward: expected one column of numbers, got {', '.join(sorted(numbers))}; set columns.reward")
    return row[numbers[0]] if numbers else None


def _index(value: Any) -> int | None:
    if value is None or (type(value) is int and 0 <= value < 1 << 31):
        return value
    raise BadRow("k: expected a whole number from 0 on")


def _finish(value: Any) -> FinishReason:
    if value is None or value == "stop":  # what a file does not say is graded by its text alone
        return "stop"
    if value == "length":
        return "length"
    raise BadRow("finish_reason: expected stop or length")


def _logprobs(value: Any, response_ids: list[int] | None) -> list[float] | None:
    if value is None:
        return None
    good = isinstance(value, list) and response_ids is not None and len(value) == len(response_ids)
    if not good or not all(isinstance(x, int | float) and abs(x) <= _MAX_LOGPROB for x in value):
        raise BadRow("sampler_logprobs: expected a number for each response token")
    return [float(x) for x in value]
