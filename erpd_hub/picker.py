"""Which early checkpoint of an MSE run is the unlearned one: the denominator of strategy 2.

The rule: of the candidates whose positives have clearly fallen, the one that fell least.

* It must have fallen: at a learning rate at which ten steps unlearn too little, strategy 2 fails [P: code at LR 1e-6
  scores 40.2, the base 56.1].
* Beyond that, shallower is better: of steps 10, 20 and 30 the first is best and the last below the base [P Table 7],
  and of the two larger learning rates the smaller [P: 63.7 at 5e-6, 62.4 at 1e-5].
* It must not be destroyed, nor past the lowest point of its run, where it is on its way to being the teacher [I].

How far one fell is the share of the probability of right responses' tokens (token mean) that is lost since the run's
first step; that measure and its bounds are ours [I]. It is seen on one step's batch, and batches differ. A step's line
is written before its update: the last candidate of a run is seen one update early, and yields to those seen whole.
Candidates of several runs, such as ten-step runs at other learning rates, are compared by it and not by steps. Leaves
out: what the student of each would score, which decides in the end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

Verdict = Literal["picked", "clear", "too shallow", "destroyed", "recovering"]

_REGAINED = 1 / 3
"""Share of the lowest point's loss after which a later checkpoint is on its way up; batches differ by less [I]."""
_MEASURES = ("probability_positive", "probability_negative", "logprob_positive", "logprob_negative")


class Point(NamedTuple):
    """Token means on the batch of one optimizer step, before its update; log-probs in nats."""

    step: int
    probability_positive: float
    probability_negative: float
    logprob_positive: float
    logprob_negative: float


Curve = tuple[Point, ...]


@dataclass(frozen=True)
class Depth:
    """How far a candidate has unlearned."""

    position: int
    """Which of the candidates, from 1."""
    step: int
    """Updates it has had."""
    updates_seen: int
    """Updates after which the probabilities were seen: one fewer for the last candidate of a run, others where the
    lines beside it are of batches that had only right or only wrong responses."""
    probability_positive: float
    probability_negative: float
    fall: float
    """1 - p / p at the first step, p the probability of right responses' tokens."""
    verdict: Verdict


@dataclass(frozen=True)
class Choice:
    """The pick, with its reason in a sentence."""

    index: int
    """Among the candidates, from 0."""
    reason: str
    depths: tuple[Depth, ...]

    def report(self) -> dict[str, Any]:
        """JSON values: the choice, the reason and every candidate's depth."""
        return {"picked": self.index + 1, "reason": self.reason, "candidates": [asdict(depth) for depth in self.depths]}


def read_curve(dynamics: Sequence[Mapping[str, Any]]) -> Curve:
    """The curve of a run from its dynamics; steps whose batch had only right or only wrong responses are left out.

    Raises:
        KeyError: the dynamics have no probabilities at all.
    """
    curve = tuple(
        Point(int(line["step"]), *(float(line[name]) for name in _MEASURES))
        for line in dynamics
        if all(name in line for name in _MEASURES)
    )
    if not curve:
        raise KeyError("probability_positive")
    return curve


def pick(
    curves: Sequence[Curve], steps: Sequence[int], runs: Sequence[str], *, min_fall: float, max_fall: float
) -> Choice:
    """The unlearned checkpoint among candidates.

    Args:
        curves: Each candidate's run, at least up to its step. Where another candidate's is the same run and goes on,
            the longer one is looked at: the line after a step is the first to see its update.
        steps: Updates that each candidate has had.
        runs: What names each candidate's run: runs at other learning rates begin with the same line.
        min_fall: Share of its probability that must be lost.
        max_fall: Share above which it counts as destroyed.
    """
    assert curves and len(curves) == len(steps), "a step for each curve"
    assert len(runs) == len(curves), "a run for each curve"
    longest = [max((c for c, other in zip(curves, runs, strict=True) if other == run), key=len) for run in runs]
    depths = [
        _depth(position, curve, step, min_fall, max_fall)
        for position, (curve, step) in enumerate(zip(longest, steps, strict=True), 1)
    ]
    index, reason = _choose(depths, min_fall, max_fall)
    reason += _seen_early(depths) + _seen_late(depths)
    chosen = Depth(**(asdict(depths[index]) | {"verdict": "picked"}))
    return Choice(index, reason, (*depths[:index], chosen, *depths[index + 1 :]))


def _depth(position: int, curve: Curve, step: int, min_fall: float, max_fall: float) -> Depth:
    start = curve[0].probability_positive
    at = min(curve, key=lambda point: abs(point.step - (step + 1)))  # a line sees what was before its own update
    lowest = min(curve, key=lambda point: point.probability_positive)
    fall = 1 - at.probability_positive / start
    lost = start - lowest.probability_positive
    verdict: Verdict = "clear"
    if at.step > lowest.step and at.probability_positive - lowest.probability_positive > _REGAINED * lost:
        verdict = "recovering"
    elif fall < min_fall:
        verdict = "too shallow"
    elif fall > max_fall:
        verdict = "destroyed"
    return Depth(position, step, at.step - 1, at.probability_positive, at.probability_negative, fall, verdict)


def _choose(depths: Sequence[Depth], min_fall: float, max_fall: float) -> tuple[int, str]:
    """Index and reason; where no candidate is within the bounds, the nearest one, and what to do."""
    clear = [depth for depth in depths if depth.verdict == "clear"]
    if clear:
        best = min(clear, key=lambda depth: (depth.updates_seen < depth.step, depth.fall, depth.step))
        return best.position - 1, (
            f"{_name(best)} is the least unlearned of the {len(clear)} of {len(depths)} candidates whose positives "
            f"have clearly fallen: their probability is down by {best.fall:.1%} (at least {min_fall:.1%}, at most "
            f"{max_fall:.1%})"
        )
    deep = [depth for depth in depths if depth.verdict == "destroyed"]
    if deep:
        best = min(deep, key=lambda depth: (depth.fall, depth.step))
        return best.position - 1, (
            f"{_name(best)} is the least unlearned, but every candidate that fell lost more than {max_fall:.1%} of the "
            f"positives' probability (this one {best.fall:.1%}): save earlier steps or lower the learning rate"
        )
    falling = [depth for depth in depths if depth.verdict == "too shallow"] or depths
    best = max(falling, key=lambda depth: (depth.fall, -depth.step))
    return best.position - 1, (
        f"{_name(best)} fell most, but no candidate on its way down has lost {min_fall:.1%} of the positives' "
        f"probability (this one {best.fall:.1%}): save later steps or raise the learning rate"
    )


def _seen_early(depths: Sequence[Depth]) -> str:
    """What to know of candidates that are the last step of their run."""
    early = [_name(depth) for depth in depths if depth.updates_seen < depth.step]
    if not early:
        return ""
    return (
        f"; seen before their last update, and so behind the others: {', '.join(early)} (a later step of the same run "
        "among the candidates shows it whole)"
    )


def _seen_late(depths: Sequence[Depth]) -> str:
    """What to know of candidates next to which no batch had both right and wrong responses."""
    late = [f"{_name(depth)} after {depth.updates_seen}" for depth in depths if depth.updates_seen > depth.step]
    return f"; seen after more updates than it has had: {', '.join(late)} (take more prompts a step)" if late else ""


def _name(depth: Depth) -> str:
    return f"candidate {depth.position} (step {depth.step})"
