"""What the labels of K samples a problem say: AVG@K, its errors and pass@k. Pure, standard library only.

`labels` throughout: one sequence a problem, holding 1 (correct), 0 (not) or None (ungradable: left out, and counted).
AVG@K is the mean over problems of the mean over the problem's samples. Two errors, which answer different questions:
`stderr_problem` for "how good on problems like these" (problems are the sample, their K draws one cluster) and
`stderr_sampling` for "how good on these very problems" (what matters between checkpoints); the error of nK independent
draws, sqrt(p (1 - p) / (n K)), is neither. The interval is of the first kind (`erpd_hub.evaluation.bounded`).
Two checkpoints are compared in `erpd_hub.evaluation.paired`; majority@K is in `erpd_hub.evaluation.voting`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import comb, sqrt
from statistics import fmean, stdev
from typing import Any, NamedTuple

from erpd_hub.evaluation.answers import parse_integer
from erpd_hub.evaluation.bounded import METHOD, bounded_interval
from erpd_hub.evaluation.voting import ballots, majority_at_k

Labels = Sequence[Sequence[int | None]]

QUANTILES = (0.1, 0.5, 0.9, 0.99)
"""Of the responses' lengths."""
_REPORTED = (5,)
"""Of pass@k, beside the powers of two: LiveCodeBench reports pass@5."""


class Average(NamedTuple):
    """AVG@K with what it stands on."""

    value: float | None
    """In [0, 1]; None without a single graded sample."""
    num_problems: int
    """Problems with at least one graded sample."""
    num_ungradable: int
    """Samples left out."""
    equal_k: bool
    """Whether each problem has the same number of graded samples; else some means rest on fewer."""


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


def score_interval(labels: Labels, *, level: float = 0.95) -> tuple[float, float] | None:
    """Interval of AVG@K on problems like these: Gaffke's, with the problems as the sample; None without graded samples.

    It has a width where every problem is solved, or none is, and needs no number of problems to be right.
    """
    means = [fmean(row) for row in _graded(labels) if row]
    return bounded_interval(means, level=level) if means else None


def pass_at_k(labels: Labels, k: int) -> float | None:
    """Unbiased chance that at least one of k samples is right: mean of 1 - C(n-c, k) / C(n, k).

    None where a problem has fewer than k graded samples (problems without any are left out).
    """
    rows = [row for row in _graded(labels) if row]
    if not rows or min(len(row) for row in rows) < k:
        return None
    return fmean(1 - comb(len(row) - sum(row), k) / comb(len(row), k) for row in rows)


def summarise(samples: Iterable[Mapping[str, Any]], *, votes: bool = True) -> dict[str, Any]:
    """All figures of one checkpoint on one benchmark, from its rows (`erpd_hub.samples.SAMPLE_SCHEMA`, or light).

    `n` problems, `n_graded` of them with a graded sample, and `k` samples each (the most of any problem); `avg`, both
    errors, `interval` [low, high] at 95 % (by `interval_method`), `pass_at_k` and `majority_at_k` (k as text, powers of
    two up to K, and pass@5) in [0, 1];
    `mean_length` and `length_quantiles` in tokens, the latter also of correct responses; `truncated`, `no_answer`,
    `timeout` and `ungradable` as shares of all samples; `coverage` the graded share of n * k. `well_formed` is the
    share of samples that end by themselves in an answer of the gold's kind (an integer for an integer), and
    `avg_well_formed` the accuracy among those: what is format apart from what is mathematics; both None where the rows
    have no golds.

    Args:
        votes: Whether there is a majority@K: answers that are wrong can be equal, programs that are wrong cannot.
    """
    rows = list(samples)
    by_problem: dict[str, list[int | None]] = {}
    for row in rows:
        by_problem.setdefault(row["problem_id"], []).append(row["label"])
    labels = list(by_problem.values())
    average = avg_at_k(labels)
    n, k = len(labels), max(map(len, labels), default=0)
    interval = score_interval(labels)
    lengths = [(length, row["label"]) for row in rows if (length := response_length(row)) is not None]
    verdicts = Counter(row["verdict"] for row in rows)
    return {
        "n": n,
        "n_graded": average.num_problems,
        "k": k,
        "equal_k": average.equal_k,
        "avg": average.value,
        "stderr": stderr_problem(labels),
        "stderr_sampling": stderr_sampling(labels),
        "interval": list(interval) if interval else None,
        "interval_method": METHOD,
        "pass_at_k": _pass_at_powers(labels, k),
        "majority_at_k": _majority_at_powers(rows, k) if votes else {},
        "mean_length": fmean(length for length, _ in lengths) if lengths else None,
        "length_quantiles": {
            "all": quantiles([length for length, _ in lengths]),
            "correct": quantiles([length for length, label in lengths if label == 1]),
        },
        **{name: _share(verdicts[name], len(rows)) for name in ("truncated", "no_answer", "timeout", "ungradable")},
        "coverage": _share(len(rows) - average.num_ungradable, n * k),
        **_format_figures(rows),
    }


def quantiles(values: Sequence[float], at: Sequence[float] = QUANTILES) -> dict[str, float]:
    """Quantiles by linear interpolation between the values, and the largest as "1"; empty without values."""
    ordered = sorted(values)
    found = {}
    for share in (*at, 1) if ordered else ():
        whole, part = divmod(share * (len(ordered) - 1), 1)
        above = ordered[min(int(whole) + 1, len(ordered) - 1)]
        found[f"{share:g}"] = ordered[int(whole)] + part * (above - ordered[int(whole)])
    return found


def _format_figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    if any(row["gold"] is None for row in rows):
        return {"well_formed": None, "avg_well_formed": None}
    formed = [row["label"] for row in rows if _is_well_formed(row) and row["label"] is not None]
    return {"well_formed": _share(len(formed), len(rows)), "avg_well_formed": fmean(formed) if formed else None}


def _pass_at_powers(labels: Labels, most: int) -> dict[str, float]:
    sizes = sorted({*_powers(most), *(k for k in _REPORTED if k <= most)})
    values = {str(k): pass_at_k(labels, k) for k in sizes}
    return {k: value for k, value in values.items() if value is not None}


def _majority_at_powers(rows: Iterable[Mapping[str, Any]], most: int) -> dict[str, float]:
    return {str(k): value for k, value in majority_at_k(ballots(rows), _powers(most)).items()}


def _powers(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`."""
    return [2**exponent for exponent in range(most.bit_length())]


def _is_well_formed(row: Mapping[str, Any]) -> bool:
    """Whether a response stopped by itself with an answer, an integer where the gold is one."""
    if row["finish_reason"] != "stop" or row["extracted"] is None:
        return False
    return parse_integer(row["gold"]) is None or parse_integer(row["extracted"]) is not None


def response_length(row: Mapping[str, Any]) -> int | None:
    """Tokens of a row's response: counted already, of its ids, or as a server says; None where nobody does."""
    if "length" in row:
        return row["length"]
    return row.get("num_tokens") if row["response_ids"] is None else len(row["response_ids"])


def _graded(labels: Labels) -> list[list[int]]:
    return [[label for label in row if label is not None] for row in labels]


def _share(count: int, total: int) -> float:
    return count / total if total else 0.0
