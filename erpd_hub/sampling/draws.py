"""One sample that is to be drawn: of which prompt, its place among those of its problem, its seed."""

from typing import NamedTuple

from erpd_hub.prompts import Problem


class Prompt(NamedTuple):
    problem: Problem
    prompt_ids: tuple[int, ...]
    """Empty for an endpoint, which gets `messages`."""
    thinking: bool
    messages: tuple[tuple[str, str], ...] = ()
    """(role, content), where the tokens of a model are not known here."""


class Draw(NamedTuple):
    """One sample of the plan."""

    prompt: Prompt
    k: int
    seed: int


def draw_name(draw: Draw) -> str:
    """A sample for messages: `algebra-7#3`."""
    return f"{draw.prompt.problem.problem_id}#{draw.k}"
