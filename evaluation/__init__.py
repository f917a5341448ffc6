"""The evaluation harness: benchmarks, grading, AVG@K with its errors, leaderboard rows.

`benchmarks` says what is asked, `grading` what an answer is worth, `statistics` what the labels of many answers say,
`leaderboard` what is published. Sampling is not here: an evaluation is a rollout on a benchmark
(`erpd_hub.stages.evaluate`). Importing this package loads neither torch nor math-verify.
"""

from erpd_hub.evaluation.benchmarks import BENCHMARKS, Benchmark, get_benchmark, load_problems
from erpd_hub.evaluation.grading import Grade, Response, check_gold, check_golds, grade, grade_many
from erpd_hub.evaluation.statistics import summarise

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "Grade",
    "Response",
    "check_gold",
    "check_golds",
    "get_benchmark",
    "grade",
    "grade_many",
    "load_problems",
    "summarise",
]
