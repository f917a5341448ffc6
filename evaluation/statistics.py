"""What the labels of K samples a problem say: AVG@K, its errors and pass@k. Pure, standard library only.

`labels` throughout: one sequence a problem, holding 1 (correct), 0 (not) or None (ungradable: left out, and counted).
AVG@K is the mean over problems of the mean over the problem's samples. Two errors, which answer different questions:
`stderr_problem` for "how good on problems like these" (problems are the sample, their K draws one cluster) and
`stderr_sampling` for "how good on these very problems" (what matters between checkpoints); the error of nK independent
draws, sqrt(p (1 - p) / (n K)), is neither.
Leaves out: cons@k. Two checkpoints are compared in `erpd_hub.evaluation.paired`.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import comb, fsum, sqrt
from statistics import fmean, stdev
from typing import Any, NamedTuple

from erpd_hub.evaluation.answers import parse_integer

Labels = Sequence[Sequence[int | None]]

_DRAWS = 10_000
_BOOTSTRAP_SEED = 20_240_517  # any fixed number: the same labels must give the same interval everywhere


class Average(NamedTuple):
    """AVG@K with what it stands on."""

    value: float | None
    """In [0, 1]; None without a single graded sample."""
    num_problems: int
    """Problems with at least one graded sample."""
    num_ungradable: int
    """Samples left out."""
    equal_k: bool
    """Whether each problem has the same number of graded samples; unequal K weighs problems by luck."""


def avg_at_k(labels: Labels) -> Average:
    """Mean over problems of the mean over graded samples."""
    graded = _graded(labels)
    means = [fmean(row) for row in graded if row]
    return Average(
        value=fmean(means) if means else None,
        num_problems=len(means),
        num_ungradable=sum(len(row) for row in labels) - sum(len(row) for row in graded),
        equal_k=len({len(row) for row in graded}) <= 1,
    )


def stderr_problem(labels: Labels) -> float | None:
    """sd over problems of their mean (ddof 1) / sqrt(problems); None for fewer than two problems."""
    means = [fmean(row) for row in _graded(labels) if row]
    return stdev(means) / sqrt(len(means)) if len(means) > 1 else None


def stderr_sampling(labels: Labels) -> float | None:
    """sqrt(mean_i p_i (1 - p_i) / (K_i - 1)) / sqrt(problems); None where a problem has fewer than two samples."""
    rows = [row for row in _graded(labels) if row]
    if not rows or min(len(row) for row in rows) < 2:
        return None
    return sqrt(fmean(fmean(row) * (1 - fmean(row)) / (len(row) - 1) for row in rows) / len(rows))


def bootstrap_interval(labels: Labels, *, level: float = 0.95, draws: int = _DRAWS) -> tuple[float, float] | None:
    """Percentile interval of AVG@K when problems are drawn again with replacement; None without graded samples.

    Problems that all score the same give an interval of no width: an artefact of the bootstrap, not certainty.
    """
    means = [fmean(row) for row in _graded(labels) if row]
    return resampled_interval(means, level=level, draws=draws) if means else None


def resampled_interval(values: Sequence[float], *, level: float = 0.95, draws: int = _DRAWS) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values`, one a problem."""
    rng = random.Random(_BOOTSTRAP_SEED)
    averages = sorted(fsum(rng.choices(values, k=len(values))) / len(values) for _ in range(draws))
    tail = round((1 - level) / 2 * (draws - 1))
    return averages[tail], averages[draws - 1 - tail]


def pass_at_k(labels: Labels, k: int) -> float | None:
    """Unbiased chance that at least one of k samples is right: mean of 1 - C(n-c, k) / C(n, k).

    None where a problem has fewer than k graded samples (problems without any are left out).
    """
    rows = [row for row in _graded(labels) if row]
    if not rows or min(len(row) for row in rows) < k:
        return None
    return fmean(1 - comb(len(row) - sum(row), k) / comb(len(row), k) for row in rows)


def summarise(samples: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """All figures of one checkpoint on one benchmark, from its sample rows (see `erpd_hub.samples.SAMPLE_SCHEMA`).

    `n` problems and `k` samples each (the most of any problem); `avg`, both errors, `interval` [low, high] at 95 % and
    `pass_at_k` (k as text, powers of two up to K) in [0, 1]; `mean_length` in tokens; `truncated`, `no_answer`,
    `timeout` and `ungradable` as shares of all samples; `coverage` the graded share of n * k. `well_formed` is the
    share of samples that end by themselves in an answer of the gold's kind (an integer for an integer), and
    `avg_well_formed` the accuracy among those: what is format apart from what is mathematics.
    """
    rows = list(samples)
    by_problem: dict[str, list[int | None]] = {}
    for row in rows:
        by_problem.setdefault(row["problem_id"], []).append(row["label"])
    labels = list(by_problem.values())
    average = avg_at_k(labels)
    n, k = len(labels), max(map(len, labels), default=0)
    interval = bootstrap_interval(labels)
    lengths = [len(row["response_ids"]) for row in rows if row["response_ids"] is not None]
    verdicts = Counter(row["verdict"] for row in rows)
    formed = [row["label"] for row in rows if _is_well_formed(row) and row["label"] is not None]
    return {
        "n": n,
        "k": k,
        "equal_k": average.equal_k,
        "avg": average.value,
        "stderr": stderr_problem(labels),
        "stderr_sampling": stderr_sampling(labels),
        "interval": list(interval) if interval else None,
        "pass_at_k": _pass_at_powers(labels, k),
        "mean_length": fmean(lengths) if lengths else None,
        **{name: _share(verdicts[name], len(rows)) for name in ("truncated", "no_answer", "timeout", "ungradable")},
        "coverage": _share(len(rows) - average.num_ungradable, n * k),
        "well_formed": _share(len(formed), len(rows)),
        "avg_well_formed": fmean(formed) if formed else None,
    }


def _pass_at_powers(labels: Labels, most: int) -> dict[str, float]:
    powers = [2**exponent for exponent in range(most.bit_length())]
    values = {str(k): pass_at_k(labels, k) for k in powers if k <= most}
    return {k: value for k, value in values.items() if value is not None}


def _is_well_formed(row: Mapping[str, Any]) -> bool:
    """Whether a response stopped by itself with an answer, an integer where the gold is one."""
    if row["finish_reason"] != "stop" or row["extracted"] is None:
        return False
    return parse_integer(row["gold"]) is None or parse_integer(row["extracted"]) is not None


def _graded(labels: Labels) -> list[list[int]]:
    return [[label for label in row if label is not None] for row in labels]


def _share(count: int, total: int) -> float:
    return count / total if total else 0.0
