"""Answers graded a minute, from a cold start, and the ratio to math-verify alone on a sample of the same.

The mix: every shipped mathematics benchmark with K samples a problem, whose answers are drawn as models give them: one
right answer in a few ways of writing, some wrong ones that come again and again, some that come once, some without a
box, some cut off, after a few hundred words of reasoning. Problems come from a folder of the benchmarks' rows
(`ERPD_BENCHDATA`); without one, golds of the same kinds are made up. Cold: no worker has started, nothing is cached.
"""

import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erpd_hub.evaluation.grading import Grade, Response, grade_many
from erpd_hub.evaluation.grading_pool import GradingPool, Method

_MIX = {  # file, column, K
    "HuggingFaceH4__aime_2024": ("answer", 32),
    "MathArena__aime_2025": ("answer", 32),
    "MathArena__hmmt_feb_2025": ("answer", 32),
    "MathArena__hmmt_nov_2025": ("answer", 32),
    "MathArena__hmmt_feb_2026": ("answer", 32),
    "ByteDance-Seed__BeyondAIME": ("answer", 32),
    "Hwilner__imo-answerbench__v2": ("Short Answer", 32),
    "openai__gsm8k__main__test": ("answer", 32),
}
_MADE_UP = ("204", "33", r"\frac{1}{576}", r"\frac{9\sqrt{23}}{23}", "1, 2, 4", r"(0, \frac{1}{3}]", "n^2-n", "odd $n$")
_REASONING = "We look at the cases in turn, and \\(x^2 = \\frac{1}{2}\\) follows from {the first} of them. "


@dataclass(frozen=True)
class GradeBench:
    problems: int = 400
    """Of all benchmarks together, drawn at random; each with its benchmark's K."""
    words: int = 300
    """Of reasoning before an answer."""
    sample: int = 200
    """Different answers that math-verify alone is timed on."""
    seed: int = 0


def run(bench: GradeBench) -> dict[str, Any]:
    """Grade the mix, then a sample of its different answers by both graders with workers that are warm."""
    rng = random.Random(bench.seed)
    golds = _golds(rng, bench.problems)
    responses = [response for gold, k in golds for response in _responses(gold, k, rng, bench.words)]
    started = time.perf_counter()
    grades = grade_many(responses, extract="boxed")
    seconds = time.perf_counter() - started
    pairs = sorted({(r.gold, g.extracted) for r, g in zip(responses, grades, strict=True) if g.extracted})
    sample = rng.sample(pairs, min(bench.sample, len(pairs)))
    ours, theirs = _timed(sample, "reader first"), _timed(sample, "math-verify")
    return {
        "answers": len(responses),
        "different": len(pairs),
        "from_rows": bool(os.environ.get("ERPD_BENCHDATA")),
        "seconds": round(seconds, 2),
        "answers_per_minute": round(60 * len(responses) / seconds),
        "cores": os.cpu_count(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "verdicts": _counted(grades, "verdict"),
        "graders": _counted(grades, "grader"),
        "sample": len(sample),
        "sample_per_minute": round(60 * len(sample) / ours),
        "sample_per_minute_math_verify": round(60 * len(sample) / theirs),
        "times_math_verify": round(theirs / ours, 2),
    }


def render(report: dict[str, Any]) -> str:
    """The report in a few lines."""
    mix = "all shipped benchmarks" if report["from_rows"] else "made-up golds (ERPD_BENCHDATA is not set)"
    return "\n".join(
        [
            f"{report['answers_per_minute']} answers a minute from a cold start: {report['answers']} answers "
            f"({report['different']} different) in {report['seconds']} s; {mix}",
            f"cores {report['cores']}, load {report['load']}",
            f"graders: {report['graders']}; verdicts: {report['verdicts']}",
            f"{report['sample']} different answers, warm workers: {report['sample_per_minute']} a minute, math-verify "
            f"alone {report['sample_per_minute_math_verify']}: {report['times_math_verify']} times as many",
        ]
    )


def _golds(rng: random.Random, count: int) -> list[tuple[str, int]]:
    folder = os.environ.get("ERPD_BENCHDATA")
    if not folder:
        return [(_MADE_UP[index % len(_MADE_UP)], 32) for index in range(count)]
    found: list[tuple[str, int]] = []
    for name, (column, k) in _MIX.items():
        lines = (Path(folder) / f"{name}.jsonl").read_text().splitlines()
        found += [(str(json.loads(line)[column]).rpartition("####")[2].strip(), k) for line in lines]
    return rng.sample(found, min(count, len(found)))


def _responses(gold: str, k: int, rng: random.Random, words: int) -> list[Response]:
    """K answers to one problem: a policy's favourite right and wrong ones, and others."""
    bare = gold.strip("$ .\n")
    right = [
        bare,
        f"${bare}$",
        f"x = {bare}",
        bare.replace("\\frac", "\\dfrac"),
        f"{bare} \\text{{ units}}",
        f"{{{bare}}}",
    ]
    wrong = [_changed(bare, rng) for _ in range(3)]
    accuracy = rng.betavariate(0.8, 0.8)
    found = []
    for _ in range(k):
        draw = rng.random()
        if rng.random() < accuracy:
            answer = bare if rng.random() < 0.6 else rng.choice(right)
        else:
            answer = rng.choice(wrong) if rng.random() < 0.7 else _changed(bare, rng)
        reasoning = _REASONING * rng.randint(1, max(1, words // 9))
        text = f"{reasoning}</think>\nSo the answer is $\\boxed{{{answer}}}$." if draw < 0.95 else reasoning
        found.append(Response(gold, text, "length" if draw > 0.98 else "stop"))
    return found


def _changed(gold: str, rng: random.Random) -> str:
    numbers = list(re.finditer(r"\d+", gold))
    if not numbers:
        return f"{gold} + {rng.randint(1, 50)}"
    match = rng.choice(numbers)
    return gold[: match.start()] + str(int(match[0]) + rng.randint(1, 50)) + gold[match.end() :]


def _timed(pairs: Sequence[tuple[str, str]], method: Method) -> float:
    """Seconds for the pairs with two workers that have loaded what they need."""
    pool = GradingPool(2)
    try:
        pool.compare([(r"\begin{pmatrix}1\end{pmatrix}", str(index)) for index in range(8)], seconds=60, method=method)
        started = time.perf_counter()
        pool.compare(pairs, seconds=10, method=method)
        return time.perf_counter() - started
    finally:
        pool.close()


def _counted(grades: Sequence[Grade], name: str) -> dict[str, int]:
    return dict(Counter(getattr(grade, name) for grade in grades).most_common())
