"""The child process that compares two answers by algebra; run as `python -m erpd_hub.evaluation.grading_worker`.

Answers are hostile: a tower of powers or a deep nest can take all time and memory there is. So the comparison runs
here, under resource limits, where `grading_pool` can kill it. One JSON object a line comes in: {gold, answer, seconds}.
Out go the progress lines "taken" (the clock starts) and "gold" (it is parsed: what follows is the answer's fault), then
the outcome. Only the LaTeX parser reads model text; math-verify's plain-expression reader is left out: it evaluates.
"""

import json
import os
import resource
import signal
import sys
from typing import Any, Literal

Outcome = Literal["equal", "different", "unparsed", "bad_gold"]

_MEMORY_BYTES = 2 << 30  # sympy itself takes a tenth of it
_ORPHAN_SECONDS = 5  # past the deadline a worker whose parent died kills itself
_DIGITS = 60  # enough to tell 50 (1 - 2**-101) from 50
_TOLERANCE = 1e-40


def main() -> None:
    """Serve comparisons until standard input ends."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    sys.stdout = sys.stderr  # whatever a library prints must not look like an outcome
    import math_verify  # noqa: F401  imported before the limits, so that those cover the comparison alone

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        job = json.loads(line)
        signal.alarm(int(job["seconds"]) + _ORPHAN_SECONDS)  # the default action ends the process even in C code
        print("taken", file=channel)
        gold = _parse(job["gold"])
        print("gold", file=channel)
        print(_compare(gold, job["answer"]) if gold else "bad_gold", file=channel)
        signal.alarm(0)


def _compare(gold: list[Any], answer: str) -> Outcome:
    """Compare a parsed gold with an answer's text; no failure here is anything but the answer's."""
    from math_verify import verify

    parsed = _parse(answer)
    if not parsed:
        return "unparsed"
    try:
        equal = verify(gold, parsed, timeout_seconds=None) and not _differ_exactly(gold[0], parsed[0])
    except Exception:  # the boundary that turns whatever algebra raises on hostile text into data
        return "unparsed"
    return "equal" if equal else "different"


def _parse(text: str) -> list[Any]:
    """The expressions in a text read as the content of a box; empty where it is not maths."""
    from math_verify import LatexExtractionConfig, parse

    boxes = [LatexExtractionConfig(boxed_match_priority=0)]
    return parse(f"\\boxed{{{text}}}", boxes, fallback_mode="no_fallback", parsing_timeout=None)


def _differ_exactly(gold: Any, answer: Any) -> bool:
    """Whether two constants that agree to 15 digits are different numbers all the same.

    A decimal stands for what it rounds, except where the gold is an integer.
    """
    from sympy import Expr, Float

    if not (isinstance(gold, Expr) and isinstance(answer, Expr)) or gold.free_symbols or answer.free_symbols:
        return False
    gold, answer = gold.doit(), answer.doit()
    if gold == answer:  # also infinity, whose difference from itself is not a number
        return False
    if not gold.is_Integer and (gold.has(Float) or answer.has(Float)):
        return False
    difference = gold - answer
    if difference.is_zero is not None:
        return not difference.is_zero
    return bool(abs(difference.evalf(_DIGITS)) > _TOLERANCE * max(1, abs(gold.evalf(_DIGITS))))


if __name__ == "__main__":
    main()
