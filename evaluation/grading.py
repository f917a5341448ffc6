"""Grading: what a response is worth against a gold answer.

Cheap rules first: a response that was cut off or has no answer is wrong; integers are compared digit by digit; equal
typesetting is equal; words are compared as words. What is left goes to a child process (`grading_pool`): our reader of
answers (`maths`), and math-verify for what that cannot read and is not in words. Whatever an answer does to the grader
is a wrong answer with its reason; a gold or a harness that fails makes the response ungradable. Leaves out: a judge.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from erpd_hub.evaluation.answers import (
    Extract,
    extract_answer,
    is_plain_sum,
    is_prose,
    normalise_answer,
    parse_integer,
)
from erpd_hub.evaluation.choices import same_choice
from erpd_hub.evaluation.golds import is_worked_solution
from erpd_hub.evaluation.grading_pool import Comparison, Method, shared_pool
from erpd_hub.evaluation.maths.comparing import can_read
from erpd_hub.evaluation.phrases import same_nothing, same_phrase
from erpd_hub.samples import FinishReason, Verdict

GRADER_VERSION = 4
"""Raised when the same answer may get another grade."""

Grader = Literal["none", "integer", "string", "phrase", "reader", "math-verify", "function"]
_LAYERS: dict[str, Grader] = {"reader": "reader", "phrase": "phrase"}

MAX_ANSWER_CHARACTERS = 2000
"""Longer answers are wrong: no final answer of a contest is, and parsing time grows with length."""

SECONDS = 10.0
"""Wall time of one comparison; honest ones take milliseconds."""


class Response(NamedTuple):
    """A response to grade."""

    gold: str
    text: str
    finish_reason: FinishReason = "stop"
    thinking: bool = False
    """Whether its prompt opened a think block (see `erpd_hub.prompts.opens_thinking`)."""


@dataclass(frozen=True)
class Grade:
    """The outcome of grading one response."""

    verdict: Verdict
    label: Literal[0, 1] | None
    """None only for `ungradable`."""
    extracted: str | None
    """The answer as graded, cut at MAX_ANSWER_CHARACTERS."""
    reason: str | None
    """Why, where the verdict alone does not say."""
    grader: Grader
    """The layer that decided."""
    ms: float = field(default=0.0, compare=False)
    """Wall time of the comparison; 0 where a rule decided."""


def grade(gold: str, text: str, *, finish_reason: FinishReason, extract: Extract, thinking: bool) -> Grade:
    """Grade one response (see `grade_many`)."""
    return grade_many([Response(gold, text, finish_reason, thinking)], extract=extract)[0]


def grade_many(
    responses: Sequence[Response], *, extract: Extract, seconds: float = SECONDS, method: Method = "reader first"
) -> list[Grade]:
    """Grade responses, in order; equal (gold, answer) pairs are compared once.

    First-line answers are compared as integers or as text only, never by algebra. With the method `math-verify` every
    extracted answer is compared by that alone, without our rules.

    Raises:
        ErpdError: an answer needs algebra and math-verify is not installed.
    """
    extracted = [extract_answer(r.text, extract=extract, thinking=r.thinking) for r in responses]
    settled: dict[tuple[str, str], Grade | None] = {}
    grades: list[Grade | None] = []
    for response, answer in zip(responses, extracted, strict=True):
        grade = _grade_without_gold(response, answer)
        if grade is None and answer is not None:
            pair = response.gold, answer
            if pair not in settled:
                by_rules = method == "reader first" or extract == "first-line"
                settled[pair] = _grade_by_rules(*pair, algebra=extract != "first-line") if by_rules else None
            grade = settled[pair]
        grades.append(grade)
    open_pairs = [pair for pair, grade in settled.items() if grade is None]
    for (gold, answer), found in zip(open_pairs, _compare(open_pairs, seconds, method), strict=True):
        settled[gold, answer] = _grade_by_algebra(found, answer)
    return [
        grade or settled[response.gold, answer]  # type: ignore[misc, index]
        for response, answer, grade in zip(responses, extracted, grades, strict=True)
    ]


def check_gold(gold: str, *, extract: Extract) -> str | None:
    """Why the grader would not accept a gold as an answer to itself; None when it does."""
    return check_golds([gold], extract=extract)[0]


def check_golds(golds: Sequence[str], *, extract: Extract, seconds: float = SECONDS) -> list[str | None]:
    """`check_gold` of many. A gold is accepted as an integer, as prose (compared as text), or as maths that is read."""
    reasons: dict[str, str | None] = {gold: _check_by_rules(gold, extract) for gold in golds}
    open_golds = [
        gold
        for gold, reason in reasons.items()
        if reason is None and extract != "first-line" and parse_integer(gold) is None and not is_prose(gold)
    ]
    found = _compare([(gold, gold) for gold in open_golds], seconds, "reader first")
    reasons |= {
        gold: None if outcome == "equal" else f"the grader does not accept it as its own answer ({outcome})"
        for gold, (outcome, *_) in zip(open_golds, found, strict=True)
    }
    return [reasons[gold] for gold in golds]


def _grade_without_gold(response: Response, answer: str | None) -> Grade | None:
    """The grade of what is settled before any comparison."""
    shown = answer[:MAX_ANSWER_CHARACTERS] if answer is not None else None
    if response.finish_reason == "error":
        return Grade("ungradable", None, shown, "the engine failed", "none")
    if not response.gold.strip():
        return Grade("ungradable", None, shown, "no gold answer", "none")
    if len(response.gold) > MAX_ANSWER_CHARACTERS:
        return Grade("ungradable", None, shown, f"a gold of {len(response.gold)} characters", "none")
    if is_worked_solution(response.gold):
        return Grade("ungradable", None, shown, "the gold is a worked solution, not an answer", "none")
    if response.finish_reason == "length":
        return Grade("truncated", 0, shown, None, "none")
    if answer is None:
        return Grade("no_answer", 0, None, None, "none")
    if len(answer) > MAX_ANSWER_CHARACTERS:
        return Grade("wrong", 0, shown, f"an answer of {len(answer)} characters", "none")
    return None


def _grade_by_rules(gold: str, answer: str, *, algebra: bool) -> Grade | None:
    """The grade, or None where only algebra can tell."""
    gold_integer, integer = parse_integer(gold), parse_integer(answer)
    if gold_integer is not None and integer is not None:
        return _settled(gold_integer == integer, answer, "integer")
    if normalise_answer(gold) == normalise_answer(answer):
        return _settled(True, answer, "string")
    if gold_integer is not None and is_plain_sum(answer):
        return Grade("wrong", 0, answer, "a sum left undone", "string")
    if (same := same_choice(gold, answer)) is not None:
        return _settled(same, answer, "string")
    if not algebra:
        return _settled(False, answer, "string")
    if (same := same_nothing(gold, answer)) is not None:
        return _settled(same, answer, "phrase")
    if not is_prose(gold):
        return None
    same = same_phrase(gold, answer)
    return _settled(same, answer, "phrase") if same or not can_read(gold) else None


def _grade_by_algebra(found: Comparison, answer: str) -> Grade:
    outcome, layer, ms = found
    grader = _LAYERS.get(layer, "math-verify")
    if outcome in ("equal", "different"):
        return replace(_settled(outcome == "equal", answer, grader), ms=ms)
    if outcome == "unparsed":
        return Grade("wrong", 0, answer, "the answer is no maths that parses", grader, ms)
    if outcome in ("timeout", "crash"):
        return Grade("timeout", 0, answer, f"the answer's comparison ended in a {outcome}", grader, ms)
    return Grade("ungradable", None, answer, f"the gold or the harness failed ({outcome})", grader, ms)


def _settled(correct: bool, answer: str | None, grader: Grader) -> Grade:
    return Grade("correct" if correct else "wrong", int(correct), answer, None, grader)  # type: ignore[arg-type]


def _check_by_rules(gold: str, extract: Extract) -> str | None:
    text = f"\\boxed{{{gold}}}" if extract == "boxed" else gold
    if not gold.strip():
        return "no answer"
    if len(gold) > MAX_ANSWER_CHARACTERS:
        return f"an answer of {len(gold)} characters"
    if is_worked_solution(gold):
        return "a worked solution, not an answer"
    answer = extract_answer(text, extract=extract, thinking=False)
    if answer is None or normalise_answer(answer) != normalise_answer(gold):
        return f"it is not extracted whole ({extract})"
    return None


def _compare(pairs: Sequence[tuple[str, str]], seconds: float, method: Method) -> list[Comparison]:
    """Outcomes by algebra; without pairs no worker is started and math-verify is not needed."""
    return shared_pool().compare(pairs, seconds=seconds, method=method) if pairs else []
