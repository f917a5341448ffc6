"""Which strategy a gate's comparison calls for, and which candidate a race picks. Pure: numbers in, decisions out.

A race spends samples where they decide something [I]. All candidates get a few samples a problem; those that are
significantly worse than the leader leave, the others get as many again, and so on. Each of its tests is made at
alpha / (looks x rivals), so that the candidate that is truly best leaves with a chance of at most alpha, however often
one looks. The winner's score in the race is biased upwards (it was picked for it), so its score is that of samples
drawn afresh.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from erpd_hub.errors import ConfigError, StageError
from erpd_hub.evaluation.paired import (
    Comparison,
    LabelsByProblem,
    clustered_error,
    differences_by_problem,
    sign_flip,
)
from erpd_hub.evaluation.statistics import avg_at_k

# ------------------------------------------------------------------------------------------------- gate


class Verdict(NamedTuple):
    """What a gate says."""

    teacher_better: bool
    strategies: tuple[int, ...]
    """In order of preference; a signal takes the first one that it offers."""
    reason: str


def judge(found: Comparison, *, alpha: float, otherwise: Sequence[int], where: str) -> Verdict:
    """Strategy 1 when the teacher is better than the policy by more than the margin, else one of the others.

    Args:
        found: The teacher against the policy.
        alpha: Level of the one-sided test.
        where: Benchmark, for the sentence.
    """
    better = found.p_greater <= alpha
    strategies = (1,) if better else tuple(otherwise)
    error = "" if found.stderr is None else f" ± {100 * found.stderr:.1f}"
    beyond = f" by more than {100 * found.margin:g} points" if found.margin else ""
    reason = (
        f"the teacher has {100 * found.first:.1f} % and the policy {100 * found.second:.1f} % on {where} "
        f"({found.num_problems} problems): {100 * found.difference:+.1f}{error} points, one-sided p = "
        f"{found.p_greater:.2g} against alpha = {alpha:g}; the teacher is {'better' if better else 'not shown better'}"
        f"{beyond}, so strategy {' or else '.join(map(str, strategies))}"
    )
    return Verdict(better, strategies, reason)


def choose(strategies: Sequence[int], offered: Sequence[int], *, where: str) -> int:
    """The first of a gate's strategies that a signal offers.

    Raises:
        ConfigError: it offers none of them.
    """
    for strategy in strategies:
        if strategy in offered:
            return strategy
    raise ConfigError(
        f"{where}.choices: expected strategy {' or '.join(map(str, strategies))}, as the gate says, got "
        f"{', '.join(map(str, offered))}; add a choice, or change the gate's `otherwise`"
    )


# ------------------------------------------------------------------------------------------------- race


@dataclass(frozen=True)
class Rules:
    """How a race is run; the fields are those of `SelectConfig`."""

    k_start: int
    k_max: int
    alpha: float
    token_budget: int | None = None
    patience: int | None = None

    @property
    def schedule(self) -> tuple[int, ...]:
        """Samples a problem at each look: doubled until `k_max`."""
        found = [self.k_start]
        while found[-1] < self.k_max:
            found.append(min(2 * found[-1], self.k_max))
        return tuple(found)


class Drawn(NamedTuple):
    """Samples that a candidate got."""

    labels: LabelsByProblem
    tokens: int
    """Response tokens."""


Draw = Callable[[int, int, int], Drawn]
"""(candidate, k_from, k_to) -> its samples k_from ... k_to - 1 of every problem."""

Stopped = Literal["one candidate is left", "k_max is reached", "the token budget is used"]


@dataclass
class _Entrant:
    """A candidate so far."""

    labels: dict[str, list[int | None]] = field(default_factory=dict)
    tokens: int = 0

    def add(self, drawn: Drawn) -> None:
        for name, labels in drawn.labels.items():
            self.labels.setdefault(name, []).extend(labels)
        self.tokens += drawn.tokens

    @property
    def samples(self) -> int:
        return sum(map(len, self.labels.values()))

    @property
    def average(self) -> float:
        """Raises StageError: it has no graded sample."""
        value = avg_at_k(list(self.labels.values())).value
        if value is None:
            raise StageError("select: expected graded samples, got none; this benchmark has no gold that can be graded")
        return value


@dataclass(frozen=True)
class Race:
    """What became of a race."""

    winner: int
    stopped: Stopped
    tried: int
    """Candidates that got samples; with `patience` perhaps not all."""
    tokens: int
    looks: tuple[dict[str, Any], ...]
    """For each look its `k`, `level` and `leader`, and of each candidate still in it `average`, `difference` to the
    leader, `p` and whether it `stays`."""


def race(candidates: int, draw: Draw, rules: Rules) -> Race:
    """Run a race; a pure function of what `draw` returns.

    Raises:
        StageError: nothing could be graded.
    """
    entrants = _first_look(candidates, draw, rules)
    level = rules.alpha / (len(rules.schedule) * max(1, candidates - 1))
    alive = list(range(len(entrants)))
    looks: list[dict[str, Any]] = []
    for number, k in enumerate(rules.schedule):
        if number:
            for index in alive:
                entrants[index].add(draw(index, rules.schedule[number - 1], k))
        look = _look(entrants, alive, k, level)
        looks.append(look)
        alive = [row["candidate"] for row in look["candidates"] if row["stays"]]
        if stopped := _stops(entrants, alive, number, rules):
            return Race(look["leader"], stopped, len(entrants), sum(each.tokens for each in entrants), tuple(looks))
    raise AssertionError("the last look of a schedule stops a race")


def _first_look(candidates: int, draw: Draw, rules: Rules) -> list[_Entrant]:
    """The first samples of the candidates in their order; `patience` of them in a row below the best end it."""
    entrants: list[_Entrant] = []
    best, worse = -1.0, 0
    for index in range(candidates):
        entrant = _Entrant()
        entrant.add(draw(index, 0, rules.k_start))
        entrants.append(entrant)
        best, worse = (best, worse + 1) if entrant.average < best else (entrant.average, 0)
        if worse == rules.patience:
            break
    return entrants


def _look(entrants: Sequence[_Entrant], alive: Sequence[int], k: int, level: float) -> dict[str, Any]:
    """Test each candidate against the leader, the earliest of the best."""
    leader = max(alive, key=lambda index: (entrants[index].average, -index))
    rows = []
    for index in alive:
        behind = differences_by_problem(entrants[leader].labels, entrants[index].labels)
        p = sign_flip(behind).greater
        rows.append(
            {
                "candidate": index,
                "average": entrants[index].average,
                "difference": float(-sum(behind) / len(behind)),
                "stderr": clustered_error(behind),
                "p": p,
                "stays": index == leader or p > level,
            }
        )
    return {"k": k, "level": level, "leader": leader, "candidates": rows}


def _stops(entrants: Sequence[_Entrant], alive: Sequence[int], number: int, rules: Rules) -> Stopped | None:
    if len(alive) == 1:
        return "one candidate is left"
    if number + 1 == len(rules.schedule):
        return "k_max is reached"
    growth = rules.schedule[number + 1] / rules.schedule[number] - 1
    expected = sum(entrants[index].tokens * growth for index in alive)
    if rules.token_budget is not None and sum(r.tokens for r in entrants) + expected > rules.token_budget:
        return "the token budget is used"
    return None


def final_seed(seed: int) -> int:
    """Seed of the samples that count: none of them was seen in the race."""
    digest = hashlib.sha256(f"{seed}\x1ffinal samples of a selection".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
