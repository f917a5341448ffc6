"""Stage `prompts`: draw the problems of a round from a generator, a JSONL file or a Hub dataset.

Order: read, filter, drop bad rows and duplicates, drop what earlier prompt sets hold, drop what overlaps a benchmark,
then draw `count`. Writes the prompt set (`erpd_hub.prompts`), `rejected.jsonl` (bad rows and duplicates) and
`hits.jsonl` (overlaps with benchmarks). Leaves out: benchmark problems that were reworded throughout.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erpd_hub.arithmetic import num_problems, random_problems
from erpd_hub.chain import chain_problems
from erpd_hub.config import CodePrompts, GeneratedPrompts, HubPrompts, JsonlPrompts, PromptSelection
from erpd_hub.errors import StageError
from erpd_hub.evaluation.benchmarks import load_problems, searched_benchmarks
from erpd_hub.evaluation.contamination import Hit, OverlapIndex
from erpd_hub.evaluation.tables import require_columns
from erpd_hub.programs import program_problems, tests_of
from erpd_hub.prompt_tests import write_tests
from erpd_hub.prompts import Problem, problem_key, read_prompts, write_prompts
from erpd_hub.stage_context import StageContext, StageResult
from erpd_hub.stages.prompts_rows import bad_reasons, duplicates, passes, problem_of, source_name, source_rows

if TYPE_CHECKING:
    from erpd_hub.evaluation.code.programs import Tests


@dataclass
class _Selection:
    """What is left, and what became of the rest."""

    problems: list[Problem] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    tests: "Callable[[Iterable[Problem]], Iterable[tuple[str, Tests]]] | None" = None
    """The tests of problems, by their ids, where they have some."""


def run(
    config: GeneratedPrompts | JsonlPrompts | HubPrompts | CodePrompts,
    out: Path,
    *,
    context: StageContext,
    disjoint_from: tuple[Path, ...] = (),
    path: Path | None = None,
    dataset: Path | None = None,
    benchmarks: Mapping[str, Path | None] | None = None,
) -> StageResult:
    """Write a prompt set to `out`.

    Args:
        disjoint_from: Earlier prompt sets.
        path: The JSONL file (or a folder with just that file in it).
        dataset: Folder of the Hub dataset.
        benchmarks: Folders of the Hub benchmarks to look for; generated ones need none.

    Raises:
        ConfigError: a column is missing.
        StageError: fewer problems are left than asked for, or a bad row where none may be.
    """
    earlier = {problem_key(p.problem) for folder in disjoint_from for p in read_prompts(folder)[0]}
    known = _benchmark_problems(config, benchmarks or {})
    selection = _Selection()
    if isinstance(config, GeneratedPrompts):
        _take_generated(selection, config, context.seed, spare=len(earlier) + len(known))
    elif isinstance(config, CodePrompts):
        assert dataset is not None, "the runner brings the input of a prompts step"
        _take_code(selection, config, dataset)
    else:
        source = path if isinstance(config, JsonlPrompts) else dataset
        assert source is not None, "the runner brings the input of a prompts step"
        _take_rows(selection, config, source)
    _drop_earlier(selection, earlier)
    _drop_overlaps(selection, known)
    _draw(selection, config.count, context.seed)
    _write(selection, config, out)
    searched = {problem.source for problem in known}
    asked = {benchmark.name for benchmark in searched_benchmarks(config)}
    checked = {"decontaminated_against": sorted(searched), "not_checked": sorted(asked - searched)}
    return StageResult(metrics={**selection.counts, **checked})


def _benchmark_problems(config: PromptSelection, folders: Mapping[str, Path | None]) -> list[Problem]:
    """Problems to decontaminate against: of the generated benchmarks, and of those whose dataset is at hand."""
    found = []
    for benchmark in searched_benchmarks(config):
        folder = folders.get(benchmark.name)
        if folder is not None or benchmark.reference is None:
            found += load_problems(benchmark, folder)
    return found


def _take_generated(selection: _Selection, config: GeneratedPrompts, seed: int, *, spare: int) -> None:
    """Draw `count` problems and `spare` more: as many as dropping can cost, since generated problems all differ."""
    digits = {"min_digits": config.min_digits, "max_digits": config.max_digits}
    if config.generator == "program":
        selection.tests = _program_tests
    count = max(config.count, min(config.count + spare, num_problems(**digits)))
    if config.generator == "chain":
        pairs = chain_problems(count, **digits, steps=config.chain_steps, seed=seed, spaces=config.spaces)
    elif config.generator == "program":
        pairs = program_problems(count, **digits, seed=seed)
    else:
        pairs = random_problems(count, **digits, seed=seed, spaces=config.spaces)
    selection.problems = [Problem(problem_key(problem), config.generator, problem, answer) for problem, answer in pairs]
    selection.counts["read"] = len(pairs)


def _take_rows(selection: _Selection, config: JsonlPrompts | HubPrompts, source: Path) -> None:
    """Rows of a file or dataset as problems, without those that are filtered out, bad or there already."""
    rows = source_rows(config, source)
    columns = [config.problem_column, config.answer_column, *([config.id_column] if config.id_column else [])]
    require_columns(rows, [*columns, *(item.column for item in config.filters), *config.columns], where="prompts")
    kept = [(i, row) for i, row in enumerate(rows) if all(passes(row, item) for item in config.filters)]
    selection.counts |= {"read": len(rows), "filtered": len(rows) - len(kept)}
    name = source_name(config)
    problems = {index: problem_of(row, config, name) for index, row in kept}
    reasons = dict(zip(problems, bad_reasons(list(problems.values()), config), strict=True))
    _keep_good(selection, config, problems, {index: reason for index, reason in reasons.items() if reason is not None})


def _take_code(selection: _Selection, config: CodePrompts, source: Path) -> None:
    """Programming problems, whose tests are read again for those that are drawn."""
    from erpd_hub.stages.prompts_code import read_code_rows, tests_at

    rows = list(read_code_rows(config, source, source_name(config)))
    kept = {row.row: row for row in rows if all(passes(row.columns, item) for item in config.filters)}
    selection.counts |= {"read": len(rows), "filtered": len(rows) - len(kept)}
    bad = {index: row.reason for index, row in kept.items() if row.reason is not None}
    _keep_good(selection, config, {index: row.problem for index, row in kept.items()}, bad)
    of = {row.problem.problem_id: row for row in reversed(kept.values()) if row.reason is None}
    selection.tests = lambda problems: tests_at((of[problem.problem_id] for problem in problems), config)


def _program_tests(problems: "Iterable[Problem]") -> "Iterator[tuple[str, Tests]]":
    return ((problem.problem_id, tests_of(problem.problem)) for problem in problems)


def _keep_good(
    selection: _Selection, config: PromptSelection, problems: Mapping[int, Problem], bad: Mapping[int, str]
) -> None:
    """Keep the rows that are neither bad nor there already.

    Raises:
        StageError: a row is bad, and none may be.
    """
    if bad and config.on_bad_row == "refuse":
        index, reason = next(iter(bad.items()))
        raise StageError(f"prompts: expected no bad row, got {len(bad)}, the first is row {index}: {reason}")
    good = {index: problem for index, problem in problems.items() if index not in bad}
    repeated = duplicates(good)
    selection.problems = [problem for index, problem in good.items() if index not in repeated]
    dropped = {**bad, **repeated}
    selection.rejected = [
        {"row": index, "problem_id": problems[index].problem_id, "reason": dropped[index]} for index in sorted(dropped)
    ]
    selection.counts |= {"bad": len(bad), "duplicate": len(repeated)}


def _drop_earlier(selection: _Selection, earlier: set[str]) -> None:
    left = [problem for problem in selection.problems if problem_key(problem.problem) not in earlier]
    selection.counts["in_earlier_sets"] = len(selection.problems) - len(left)
    selection.problems = left


def _drop_overlaps(selection: _Selection, known: list[Problem]) -> None:
    index = OverlapIndex(known)
    hits = {problem.problem_id: index.find(problem) for problem in selection.problems}
    selection.hits = [hit for hit in hits.values() if hit is not None]
    selection.counts["in_benchmarks"] = len(selection.hits)
    selection.problems = [problem for problem in selection.problems if hits[problem.problem_id] is None]


def _draw(selection: _Selection, count: int | None, seed: int) -> None:
    """Put the problems in an order drawn for each on its own, so that a dropped row moves no other; keep `count`."""
    left = len(selection.problems)
    if left < (count or 1):
        dropped = ", ".join(f"{name} {number}" for name, number in selection.counts.items())
        advice = "lower `count`" if left else "select less strictly"
        raise StageError(f"prompts: expected at least {count or 1} problems, got {left} ({dropped}); {advice}")
    selection.problems.sort(key=lambda p: hashlib.sha256(f"{seed}\x1f{p.problem_id}".encode()).digest())
    selection.problems = selection.problems[:count]
    selection.counts |= {"left": left, "count": len(selection.problems)}


def _write(selection: _Selection, config: PromptSelection, out: Path) -> None:
    write_prompts(out, selection.problems, config.format)
    if selection.tests is not None:
        write_tests(out, selection.tests(selection.problems))
    _write_jsonl(out / "rejected.jsonl", selection.rejected)
    _write_jsonl(out / "hits.jsonl", (_hit_row(hit) for hit in selection.hits))


def _hit_row(hit: Hit) -> dict[str, Any]:
    return {name: value for name, value in hit._asdict().items() if value is not None}


def _write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
