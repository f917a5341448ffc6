"""Rows of a prompt file or dataset: which count, what problem each is, and what is wrong with it."""

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from erpd_hub.config import CodePrompts, HubPrompts, JsonlPrompts, PromptSelection, RangeFilter
from erpd_hub.errors import ConfigError
from erpd_hub.evaluation.golds import normalise_gold
from erpd_hub.evaluation.grading import check_golds
from erpd_hub.evaluation.tables import Row, read_file, read_split
from erpd_hub.prompts import Problem, problem_key
from erpd_hub.references import RepoRef, parse_reference


def source_rows(config: JsonlPrompts | HubPrompts, source: Path) -> list[Row]:
    if isinstance(config, HubPrompts):
        return read_split(source, config_name=config.config_name, split=config.split)
    return read_file(source) if source.is_file() else read_split(source, config_name=None, split="train")


def source_name(config: JsonlPrompts | HubPrompts | CodePrompts) -> str:
    """The dataset's repository; a local file has no name that would mean anything elsewhere."""
    reference = None if isinstance(config, JsonlPrompts) else parse_reference(config.dataset)
    return reference.repo_id if isinstance(reference, RepoRef) else config.type


def problem_of(row: Row, config: JsonlPrompts | HubPrompts, source: str) -> Problem:
    text, answer = _text(row.get(config.problem_column)), normalise_gold(row.get(config.answer_column))
    problem_id = _text(row.get(config.id_column)) if config.id_column else ""
    extra = _extra({name: row.get(name) for name in config.columns}) if config.columns else None
    return Problem(problem_id or problem_key(text), source, text, answer, extra)


def _extra(columns: Row) -> str:
    """Raises ConfigError: a value that JSON does not have."""
    try:
        return json.dumps(columns, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"columns: expected values that JSON has in {', '.join(columns)}, got another: {error}; leave that column "
            "out, or store it as text"
        ) from None


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def bad_reasons(problems: list[Problem], config: PromptSelection) -> list[str | None]:
    golds = check_golds([problem.gold for problem in problems], extract=config.format.extract)
    return [gold if problem.problem else "no problem" for problem, gold in zip(problems, golds, strict=True)]


def duplicates(problems: Mapping[int, Problem]) -> dict[int, str]:
    """Rows that repeat an earlier one's problem, or its id, with the reason."""
    seen: dict[str, int] = {}
    found = {}
    for index, problem in problems.items():
        text, name = f"text {problem_key(problem.problem)}", f"id {problem.problem_id}"
        if (first := seen.get(text, seen.get(name))) is not None:
            found[index] = f"duplicate of row {first} ({'problem' if text in seen else 'id'})"
        else:
            seen |= {text: index, name: index}
    return found


def passes(row: Mapping[str, Any], item: RangeFilter) -> bool:
    """Whether a row's column lies in the filter; a number may also be text, such as `3/8`."""
    value = row.get(item.column)
    if item.values is not None and value not in item.values:
        return False
    if item.minimum is None and item.maximum is None:
        return True
    try:
        number = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        return False
    return (item.minimum is None or number >= item.minimum) and (item.maximum is None or number <= item.maximum)
