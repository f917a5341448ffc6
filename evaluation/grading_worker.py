"""The child process that compares answers with golds; run as `python -m erpd_hub.evaluation.grading_worker`.

Answers are hostile: a tower of powers or a deep nest can take all time and memory there is. So the comparison runs
here, under resource limits, where `grading_pool` can kill it. One JSON object a line comes in: {gold, answer, seconds,
method}. Out go progress lines, "loading" (math-verify is imported), "taken" (the clock starts) and "gold" (it is read:
what follows is the answer's fault), then "worn" from a worker that has grown large, the outcome and who decided.

The reader of `maths` comes first: exact, and quick. What it cannot read goes to math-verify, which is loaded only then;
not where the gold is in words, of which math-verify would see the letters.
Of that only the LaTeX parser sees model text; its plain-expression reader is left out: it evaluates.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from erpd_hub.evaluation.answers import is_prose
from erpd_hub.evaluation.maths.comparing import compare, read_gold
from erpd_hub.evaluation.maths.guards import refuses

Outcome = Literal["equal", "different", "unparsed", "bad_gold"]
Method = Literal["reader first", "math-verify"]

_MEMORY_BYTES = 2 << 30  # sympy itself takes a tenth of it
_WORN_KIB = 500 << 10  # of memory at its peak: what answers have left there is not the next one's to find
_ORPHAN_SECONDS = 5  # past the deadline a worker whose parent died kills itself
_LOADING_SECONDS = 600
_DIGITS = 60  # enough to tell 50 (1 - 2**-101) from 50
_TOLERANCE = 1e-40


def main() -> None:
    """Serve comparisons until standard input ends."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    sys.stdout = sys.stderr  # whatever a library prints must not look like an outcome
    sys.dont_write_bytecode = True
    import mpmath  # noqa: F401  before the limits, so that those cover the comparison alone

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def say(line: str) -> None:
        print(line, file=channel)

    for line in sys.stdin:
        job = json.loads(line)
        signal.alarm(int(job["seconds"]) + _ORPHAN_SECONDS)  # the default action ends the process even in C code
        say("taken")
        outcome = _outcome(job, say)
        if _peak_kib() > _WORN_KIB:
            say("worn")
        say(" ".join(outcome))
        signal.alarm(0)


def _peak_kib() -> int:
    """Most resident memory since this program began, in KiB.

    The kernel's rusage keeps its peak over exec: there a worker is at least as large as the process that started it.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10  # macOS, in bytes
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def _outcome(job: dict[str, Any], say: Callable[[str], None]) -> tuple[Outcome, str]:
    """The outcome and the layer that decided."""
    gold, answer, readable = job["gold"], job["answer"], False
    if job["method"] == "reader first":
        try:
            read_gold(gold)
            say("gold")
            readable = True
            opinion = compare(gold, answer)
        except Exception:  # what cannot be read, or trips the reader up, is unread; the worker lives on
            opinion = None
        if opinion is not None:
            return ("equal" if opinion else "different"), "reader"
        if is_prose(gold):
            return "different", "phrase"
        if refuses(gold, answer):
            return "different", "reader"
    return _algebra(job, say, gold_is_read=readable), "math-verify"


def _algebra(job: dict[str, Any], say: Callable[[str], None], *, gold_is_read: bool) -> Outcome:
    """math-verify's opinion; no failure once the gold is parsed is anything but the answer's."""
    if "math_verify" not in sys.modules:
        signal.alarm(_LOADING_SECONDS)
        say("loading")
        import math_verify  # noqa: F401

        say("taken")
        signal.alarm(int(job["seconds"]) + _ORPHAN_SECONDS)
    if gold_is_read:
        say("gold")
    gold = _parse(job["gold"])
    say("gold")
    if not gold:
        return "unparsed" if gold_is_read else "bad_gold"
    from math_verify import verify

    parsed = _parse(job["answer"])
    if not parsed:
        return "unparsed"
    try:
        equal = verify(gold, parsed, timeout_seconds=None)
        if equal and job["method"] == "reader first":
            equal = not _differ_exactly(gold[0], parsed[0])
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
