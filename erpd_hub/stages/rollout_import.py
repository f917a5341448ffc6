"""Rollouts that another program drew, as the artifact that a rollout stage would have made.

Rows need the token ids that were sampled: the same text makes other ids often enough that log-probs of it say nothing
about the sample. `retokenize` makes them all the same, and the artifact says so.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from erpd_hub.artifacts import hash_file
from erpd_hub.config import ImportedRollouts
from erpd_hub.errors import StageError
from erpd_hub.rollout_formats import BadRow, Drawn, data_files, parse, read_rows
from erpd_hub.rollout_outcomes import check_outcome, outcome_of
from erpd_hub.samples import SAMPLE_SCHEMA, Sample, Verdict, sample_seed, shard_path, write_rows
from erpd_hub.stage_context import StageResult

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from erpd_hub.evaluation.grading import Grade

_SHARD_SAMPLES = 1024
_SHARD_TOKENS = 4_000_000

logger = logging.getLogger(__name__)


@dataclass
class _Import:
    """What an import goes by, and what it has met so far."""

    config: ImportedRollouts
    tokenizer: "PreTrainedTokenizerBase"
    vocabulary: int
    seed: int
    seen: dict[str, set[int]] = field(default_factory=dict)
    """Indices of the samples of each problem."""
    rejected: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def import_rollouts(config: ImportedRollouts, out: Path, *, source: Path, policy: Path, seed: int) -> StageResult:
    """Write sample shards, `format.json`, `rollout.json` and `rejected.jsonl`.

    Raises:
        ArtifactError: a file that cannot be read.
        StageError: rows without token ids, rewards that are no outcomes, bad rows where none may be, or no sample.
    """
    from erpd_hub.models import load_tokenizer
    from erpd_hub.sample_statistics import describe_samples

    tokenizer = load_tokenizer(policy)
    state = _Import(config, tokenizer, _vocabulary(policy, tokenizer), seed)
    files = data_files(source)
    for index, rows in enumerate(_shards(_accepted(state, files))):
        write_rows(shard_path(out, index), _graded(state, rows), SAMPLE_SCHEMA)
    if not state.seen:
        first = f", the first: {state.rejected[0]['reason']}" if state.rejected else ""
        raise StageError(f"source: expected samples, got none; {len(state.rejected)} bad rows{first}")
    _tell_rejected(state)
    (out / "rejected.jsonl").write_text("".join(json.dumps(row) + "\n" for row in state.rejected), encoding="utf-8")
    (out / "format.json").write_text(config.prompt_format.model_dump_json(indent=2) + "\n", encoding="utf-8")
    drawn = {
        "decoding": config.decoding and config.decoding.model_dump(),
        "engine": None,
        "format": config.format,
        "k": max(map(len, state.seen.values())),
        "retokenized": state.counts["retokenized"],
        "source_sha256": sorted(hash_file(path).sha256 for path in files),
    }
    (out / "rollout.json").write_text(json.dumps(drawn, indent=2, sort_keys=True) + "\n")
    names = ("retokenized", "regraded", "disagreements")
    met = {"bad_rows": len(state.rejected), **{name: state.counts[name] for name in names}}
    return StageResult({**describe_samples(out), **met, "k": drawn["k"]})


def _accepted(state: _Import, files: list[Path]) -> Iterator[tuple[Drawn, Sample]]:
    """Samples with everything but their grade; bad rows go to the list.

    Raises:
        StageError: see `import_rollouts`.
    """
    config = state.config
    for path in files:
        for number, row in read_rows(path):
            if state.counts["rows"] == config.limit:
                return
            state.counts["rows"] += 1
            where = f"row {number}" if len(files) == 1 else f"row {number} of file {files.index(path) + 1}"
            try:
                drawn = parse(row, config.format, config.columns)
                check_outcome(where, config, drawn)
                if (drawn.prompt_ids is None or drawn.response_ids is None) and not config.retokenize:
                    _refuse_text(where, drawn)
                yield drawn, _sample(state, drawn)
            except BadRow as bad:
                if config.on_bad_row == "refuse":
                    raise StageError(f"source: {where}: {bad}; correct it, or set on_bad_row: skip") from None
                state.rejected.append({"row": where.removeprefix("row "), "reason": str(bad)})


def _refuse_text(where: str, drawn: Drawn) -> NoReturn:
    missing = "prompt" if drawn.prompt_ids is None else "response"
    raise StageError(
        f"source: {where}: expected token ids of the {missing}, got none; text makes other tokens than were sampled: "
        "export the ids, name their column in columns, or accept the difference with retokenize: true"
    )


def _tell_rejected(state: _Import) -> None:
    if state.rejected:
        first = state.rejected[0]
        logger.warning(
            "source: %d of %d rows are no samples and were left out, the first row %s: %s; rejected.jsonl lists them, "
            "on_bad_row: refuse stops at one",
            len(state.rejected), state.counts["rows"], first["row"], first["reason"],
        )  # fmt: skip


def _sample(state: _Import, drawn: Drawn) -> Sample:
    """Raises BadRow: ids that the policy does not have, or a sample that is there already."""
    prompt_ids, response_ids = _token_ids(state, drawn)
    if (largest := max(max(prompt_ids), max(response_ids))) >= state.vocabulary:
        raise BadRow(f"expected token ids below {state.vocabulary}, got {largest}")
    problem_id = drawn.problem_id or hashlib.sha256(json.dumps(prompt_ids).encode()).hexdigest()[:16]
    others = state.seen.get(problem_id, set())
    k = drawn.k if drawn.k is not None else next(index for index in count(len(others)) if index not in others)
    if k in others:
        raise BadRow(f"sample {k} of problem {problem_id} is there already")
    state.seen.setdefault(problem_id, set()).add(k)
    benchmark, text = drawn.benchmark or state.config.format, drawn.response
    if text is None:
        text = str(state.tokenizer.decode(response_ids, skip_special_tokens=True))
    return Sample(
        benchmark=benchmark,
        problem_id=problem_id,
        k=k,
        seed=sample_seed(state.seed, benchmark, problem_id, k),
        prompt_ids=prompt_ids,
        response_ids=response_ids,
        sampler_logprobs=drawn.sampler_logprobs,
        finish_reason=drawn.finish_reason,
        text=text,
        gold=drawn.gold,
        extracted=None,
        verdict="ungradable",
        label=None,
        judge=None,
    )


def _token_ids(state: _Import, drawn: Drawn) -> tuple[list[int], list[int]]:
    """The row's own, or made from its text.

    Raises:
        BadRow: neither ids nor text, no token at all, or messages that the chat template does not take.
    """
    from jinja2 import TemplateError

    prompt, response = drawn.prompt_ids, drawn.response_ids
    state.counts["retokenized"] += prompt is None or response is None
    tokenizer = state.tokenizer
    if prompt is None and isinstance(drawn.prompt, str):
        prompt = list(tokenizer(drawn.prompt)["input_ids"])
    elif prompt is None and drawn.prompt is not None:
        options = state.config.prompt_format.chat_template_kwargs
        try:
            prompt = list(tokenizer.apply_chat_template(
                drawn.prompt, add_generation_prompt=True, tokenize=True, return_dict=False, **options
            ))  # fmt: skip
        except (TemplateError, TypeError, ValueError) as error:
            raise BadRow(f"prompt: expected messages that the chat template takes, got others ({error})") from None
    if response is None and drawn.response is not None:
        response = list(tokenizer(drawn.response, add_special_tokens=False)["input_ids"])
        if drawn.finish_reason == "stop" and tokenizer.eos_token_id is not None:
            response.append(tokenizer.eos_token_id)
    if not prompt or not response:
        raise BadRow(f"no {'response' if prompt else 'prompt'}, neither as token ids nor as text")
    return prompt, response


def _shards(samples: Iterable[tuple[Drawn, Sample]]) -> Iterator[list[tuple[Drawn, Sample]]]:
    shard: list[tuple[Drawn, Sample]] = []
    tokens = 0
    for pair in samples:
        shard.append(pair)
        tokens += len(pair[1]["response_ids"] or ())
        if len(shard) == _SHARD_SAMPLES or tokens >= _SHARD_TOKENS:
            yield shard
            shard, tokens = [], 0
    if shard:
        yield shard


def _graded(state: _Import, pairs: list[tuple[Drawn, Sample]]) -> list[Sample]:
    """Samples with their outcome: the grader's where there is a gold answer, else the file's."""
    from erpd_hub.evaluation.grading import Grade, Response, grade_many
    from erpd_hub.prompts import opens_thinking

    graded = [sample for drawn, sample in pairs if state.config.regrade and drawn.gold]
    responses = [
        Response(s["gold"], s["text"], s["finish_reason"],
                 opens_thinking(state.tokenizer.decode((s["prompt_ids"] or [])[-16:])))
        for s in graded
    ]  # fmt: skip
    grades = iter(grade_many(responses, extract=state.config.prompt_format.extract))
    rows = []
    for drawn, sample in pairs:
        outcome = outcome_of(state.config, drawn)
        if state.config.regrade and drawn.gold:
            grade = next(grades)
            state.counts["regraded"] += 1
            state.counts["disagreements"] += outcome is not None and grade.label is not None and outcome != grade.label
        else:
            wrong: Verdict = "truncated" if drawn.finish_reason == "length" else "wrong"
            grade = Grade("correct", 1, None, None, "none") if outcome else Grade(wrong, 0, None, None, "none")
        rows.append(_with_grade(sample, grade))
    return rows


def _with_grade(sample: Sample, grade: "Grade") -> Sample:
    return {**sample, "extracted": grade.extracted, "verdict": grade.verdict, "label": grade.label}


def _vocabulary(policy: Path, tokenizer: "PreTrainedTokenizerBase") -> int:
    """Token ids that the policy has an embedding for."""
    path = policy / "config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    size = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
    return int(size or len(tokenizer))
