"""Stored samples on which graders differ, each for a reason of its own."""

from pathlib import Path

from erpd_hub.evaluation.grading import Response, grade_many
from erpd_hub.samples import SAMPLE_SCHEMA, sample_seed, shard_path, write_rows

CASES: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "integer": (
        "204",
        [(r"so \boxed{204}", "stop"), (r"\boxed{205}", "stop"), ("Thus the answer is 204.", "stop"),
         (r"\boxed{7} </think> \boxed{204}", "stop")],
    ),
    "half": (
        r"\frac{1}{2}",
        [(r"\boxed{0.5}", "stop"), (r"\boxed{1/2}", "stop"), (r"\boxed{\frac12}", "length"),
         (r"<think>\boxed{1/2}</think> That is all.", "stop")],
    ),
    "pair": (
        "(1,2)",
        [(r"\boxed{(1,2)}", "stop"), (r"\boxed{\{1,2\}}", "stop"), (r"\boxed{[1,2]}", "stop"),
         (r"\boxed{(2,1)}", "stop")],
    ),
    "degrees": (
        r"74^\circ",
        [(r"\boxed{74}", "stop"), (r"\boxed{74^\circ}", "stop"), (r"\boxed{75}", "stop"),
         (r"\boxed{3} and \boxed{74^\circ}", "stop")],
    ),
    "close": (
        r"50(1 - \frac{1}{2^{101} - 1})",
        [(r"\boxed{50}", "stop"), (r"\boxed{50 - \frac{50}{2^{101}-1}}", "stop"), (r"\boxed{49}", "stop"),
         ("", "stop")],
    ),
}  # fmt: skip


def write_details(folder: Path, benchmark: str) -> None:
    """A folder of samples, graded by us."""
    rows = []
    for problem_id, (gold, texts) in CASES.items():
        grades = grade_many([Response(gold, text, finish) for text, finish in texts], extract="boxed")  # type: ignore[arg-type]
        for k, ((text, finish), grade) in enumerate(zip(texts, grades, strict=True)):
            rows.append(
                {
                    "benchmark": benchmark,
                    "problem_id": problem_id,
                    "k": k,
                    "seed": sample_seed(0, benchmark, problem_id, k),
                    "prompt_ids": [1],
                    "response_ids": [1, 2],
                    "sampler_logprobs": None,
                    "finish_reason": finish,
                    "text": text,
                    "gold": gold,
                    "extracted": grade.extracted,
                    "verdict": grade.verdict,
                    "label": grade.label,
                    "judge": None,
                }
            )
    write_rows(shard_path(folder, 0), rows, SAMPLE_SCHEMA)
