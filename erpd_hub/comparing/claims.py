"""A twin's comparisons beside the claims of the paper that they are about. Pure; no files, no Hub."""

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from erpd_hub.comparing.paper import Claim
from erpd_hub.evaluation.intervals import t_interval
from erpd_hub.evaluation.paired import LabelsByProblem, compare

NO_GAIN = {"avg": 0.01, "explained_variance": 0.01}
"""[I] A gain that is at most this is none, by metric; of any other only what is not above zero."""

MIN_SEEDS = 3
"""[I] Of fewer nothing is concluded: an accuracy is a multiple of 1 / samples, and two differences may agree to the
last digit by chance, which Student's interval takes for certainty."""

Verdict = Literal["shown", "not shown", "opposite", "not measured"]


class Judged(NamedTuple):
    """One claim and what the twin says to it."""

    says: str
    metric: str
    more: str
    less: str | float
    expect: str
    value_more: float | None
    value_less: float | None
    difference: float | None
    interval: tuple[float, float] | None
    """95 %; of one seed: problems and samples vary in it, trainings do not. None where no error is known, as of a
    single prompt, or of one seed of what a step records: such a value is of one training, often of one batch."""
    verdict: Verdict
    by_seed: tuple[float | None, ...] = ()
    """The difference at each seed, where there are several; None where one of the two is missing."""


class Measured(NamedTuple):
    """One step of a twin, with its checkpoint on the twin's benchmark where it was evaluated."""

    labels: LabelsByProblem = MappingProxyType({})
    lengths: Mapping[str, Sequence[int]] = MappingProxyType({})
    """By problem, tokens of each response that are known."""
    probe: Mapping[str, Any] = MappingProxyType({})
    """The probe's metrics; empty where it was not probed."""
    record: Mapping[str, Any] = MappingProxyType({})
    """The metrics of the step's own artifact; empty for a saved step."""


def judge(claim: Claim, measured: Mapping[str, Measured]) -> Judged:
    """What a twin says to a claim, by the 95 % interval of the difference: shown or opposite where it lies on one side
    of zero; a claim of no gain is shown where it ends below its metric's NO_GAIN, opposite where it lies above zero."""
    found = _sides(claim, measured)
    named = (claim.says, claim.metric, claim.more, claim.less, claim.expect)
    if found is None:
        return Judged(*named, None, None, None, None, "not measured")
    first, second, interval = found
    verdict: Verdict = "not measured" if interval is None else _verdict(claim, interval)
    return Judged(*named, first, second, first - second, interval, verdict)


def judge_over_seeds(claim: Claim, seeds: Sequence[Mapping[str, Measured]]) -> Judged:
    """The same over runs that differ by their seed, so that trainings vary too: Student's interval over the seeds.

    Seeds that lack one of the two checkpoints are left out; of fewer than MIN_SEEDS others there is no verdict, of a
    single one no interval.
    """
    sides = [_sides(claim, seed) for seed in seeds]
    known = [item for item in sides if item is not None]
    means = (fmean(first for first, _, _ in known), fmean(second for _, second, _ in known)) if known else None
    return judge_differences(claim, means, [None if item is None else item[0] - item[1] for item in sides])


def judge_differences(claim: Claim, means: tuple[float, float] | None, by_seed: Sequence[float | None]) -> Judged:
    """The verdict of differences that are known already.

    Args:
        means: Of both sides, over the seeds that have a difference; None where none has.
        by_seed: One a seed, None where it is not known.
    """
    named = (claim.says, claim.metric, claim.more, claim.less, claim.expect)
    known = [value for value in by_seed if value is not None]
    if means is None or not known:
        return Judged(*named, None, None, None, None, "not measured", tuple(by_seed))
    over = t_interval(known)
    interval = None if over.low is None or over.high is None else (over.low, over.high)
    few = len(known) < MIN_SEEDS
    verdict: Verdict = "not measured" if interval is None or few else _verdict(claim, interval)
    return Judged(*named, *means, over.mean, interval, verdict, tuple(by_seed))


def _verdict(claim: Claim, interval: tuple[float, float]) -> Verdict:
    low, high = interval
    if claim.expect == "no_gain":
        return "opposite" if low > 0 else "shown" if high <= NO_GAIN.get(claim.metric, 0.0) else "not shown"
    return "shown" if low > 0 else "opposite" if high < 0 else "not shown"


_Sides = tuple[float, float, tuple[float, float] | None]
"""Both values of a claim and the 95 % interval of their difference, where its error is known."""


def _sides(claim: Claim, measured: Mapping[str, Measured]) -> _Sides | None:
    """None where one of the two is missing."""
    more, less = measured.get(claim.more), claim.less if isinstance(claim.less, float) else measured.get(claim.less)
    if more is None or less is None:
        return None
    if claim.metric in RECORDED:
        first = RECORDED[claim.metric](more.record)
        second = less if isinstance(less, float) else RECORDED[claim.metric](less.record)
        return None if first is None or second is None else (first, second, None)
    assert isinstance(less, Measured), "the paper's file compares such a metric between two checkpoints"
    return _difference(claim.metric, more, less)


def _entry(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda record: record.get(name)


def _gap(record: Mapping[str, Any]) -> float | None:
    if "logprob_positive" not in record or "logprob_negative" not in record:
        return None
    return float(record["logprob_positive"] - record["logprob_negative"])


def _low_tail(record: Mapping[str, Any]) -> float | None:
    found = record.get("values", record)  # a critic's record has tables of its own
    quantiles = found.get("quantiles_positive", {})
    if not found.get("std") or "0.01" not in quantiles:
        return None
    return float((quantiles["0.5"] - quantiles["0.01"]) / found["std"])


RECORDED: Mapping[str, Callable[[Mapping[str, Any]], float | None]] = {
    "explained_variance": _entry("explained_variance"),
    "mean_squared_error": _entry("mean_squared_error"),
    "gap": _gap,
    "low_tail": _low_tail,
    "credit": _entry("credit_at_departure"),
}
"""Metrics of `erpd_hub.comparing.paper.Metric` that a step's own record has."""


def _difference(metric: str, more: Measured, less: Measured) -> _Sides | None:
    if not more.labels or not less.labels:
        return None
    if metric == "avg":
        result = compare(more.labels, less.labels)
        return result.first, result.second, result.within_reach
    if metric == "mean_length":
        return _paired_lengths(more.lengths, less.lengths)
    key = {"kl_to_base": "kl_checkpoint_to_base", "entropy": "entropy"}[metric]
    values = [side.probe.get(key) for side in (more, less)]
    if values[0] is None or values[1] is None:
        return None
    errors = [side.probe.get(f"{key}_stderr") for side in (more, less)]
    known = [error for error in errors if error is not None]  # of one prompt there is none
    interval = _normal_interval(values[0] - values[1], sqrt(sum(error**2 for error in known)))
    return values[0], values[1], interval if len(known) == len(errors) else None


def _paired_lengths(more: Mapping[str, Sequence[int]], less: Mapping[str, Sequence[int]]) -> _Sides | None:
    """None where nobody counted the tokens of a problem's responses."""
    if set(more) != set(less) or not more or not all([*more.values(), *less.values()]):
        return None
    first, second = ([fmean(side[problem]) for problem in more] for side in (more, less))
    differences = [a - b for a, b in zip(first, second, strict=True)]
    if len(differences) < 2:
        return fmean(first), fmean(second), None
    error = stdev(differences) / sqrt(len(differences))
    return fmean(first), fmean(second), _normal_interval(fmean(differences), error)


def _normal_interval(difference: float, error: float) -> tuple[float, float]:
    return difference - 1.96 * error, difference + 1.96 * error
