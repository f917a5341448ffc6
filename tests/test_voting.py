"""majority@K against enumeration of all subsets, and the classes that votes go to."""

import random
from itertools import combinations

import pytest

from erpd_hub.evaluation.voting import MOST_PAIRS, Ballot, answer_class, ballots, graded_same, majority_at_k


def _row(problem, answer, label, finish="stop"):
    return {"problem_id": problem, "label": label, "extracted": answer, "finish_reason": finish}


def _enumerated(ballot: Ballot, k: int) -> float:
    """0 is right, -1 silent, positive numbers are wrong classes."""
    votes = [0] * ballot.correct + [-1] * ballot.silent
    votes += [number for number, size in enumerate(ballot.wrong, 1) for _ in range(size)]
    total = count = 0
    for subset in combinations(range(len(votes)), k):
        drawn = [votes[i] for i in subset if votes[i] >= 0]
        tally = {one: drawn.count(one) for one in drawn}
        best = max(tally.values(), default=0)
        tied = [one for one, size in tally.items() if size == best]
        total += 1 / len(tied) if 0 in tied else 0
        count += 1
    return total / count


@pytest.mark.parametrize("seed", range(10))
def test_the_chance_is_that_over_all_subsets(seed):
    rng = random.Random(seed)
    ballot = Ballot(rng.randint(0, 4), tuple(rng.randint(1, 4) for _ in range(rng.randint(0, 3))), rng.randint(0, 2))
    sizes = range(1, ballot.num_samples + 1)
    found = majority_at_k([ballot], sizes)
    assert found == {k: pytest.approx(_enumerated(ballot, k), abs=1e-12) for k in sizes}


def test_of_one_sample_it_is_the_average_and_ties_are_shared():
    assert majority_at_k([Ballot(1, (1, 1), 1)], [1]) == {1: 0.25}
    assert majority_at_k([Ballot(2, (2, 1), 0)], [5]) == {5: 0.5}
    assert majority_at_k([Ballot(2, (2, 2), 0), Ballot(0, (), 6)], [6]) == {6: pytest.approx(1 / 6)}
    assert majority_at_k([Ballot(1, (), 31)], [32]) == {32: 1.0}, "one answer against none wins"


def test_k_that_a_problem_cannot_give_is_left_out():
    assert majority_at_k([Ballot(2, (), 0), Ballot(4, (), 0)], [1, 2, 4]) == {1: 1.0, 2: 1.0}
    assert majority_at_k([], [1]) == {}


def test_many_samples_take_no_time():
    ballot = Ballot(30, (20, 12, 8, 5, *[1] * 43), 10)
    found = majority_at_k([ballot] * 10, [1, 2, 4, 8, 16, 32, 64, 128])
    assert found[1] == pytest.approx(30 / 128)
    assert found[128] == 1.0


def test_right_answers_are_one_class_and_wrong_ones_go_by_their_form():
    rows = [
        _row("a", r"\frac{1}{2}", 1), _row("a", "0.5", 1), _row("a", "1,406", 0), _row("a", "$1406$", 0),
        _row("a", r"\dfrac13", 0), _row("a", r"\frac13", 0), _row("a", None, 0), _row("a", "7", 0, "length"),
        _row("b", "3", None),
    ]  # fmt: skip
    assert ballots(rows) == [Ballot(2, (2, 2), 2)]
    assert answer_class("x" * 5000) == "x" * 5000


def test_a_grader_puts_wrong_classes_together():
    rows = [_row("a", "5", 1), _row("a", "5", 1), *(_row("a", x, 0) for x in ("0.5", "1/2", "0.5", "2/4", "9", "10"))]
    asked = []

    def same(pairs):
        asked.extend(pairs)
        return [one != "9" and other != "9" and "10" not in (one, other) for one, other in pairs]

    assert ballots(rows) == [Ballot(2, (2, 1, 1, 1, 1), 0)]
    assert ballots(rows, same=same) == [Ballot(2, (4, 1, 1), 0)]
    assert ("9", "10") not in asked, "two integers need no grader"


def test_a_grader_is_asked_a_bounded_number_of_times():
    rows = [row for p in range(100) for row in (_row(str(p), "x", 1), *(_row(str(p), f"x+{i}", 0) for i in range(40)))]
    counts = []

    def same(pairs):
        counts.append(len(pairs))
        return [False] * len(pairs)

    ballots(rows, same=same)
    assert counts == [MOST_PAIRS]


def test_the_grader_itself_knows_equal_answers():
    pytest.importorskip("math_verify")
    assert graded_same([("0.5", r"\frac{1}{2}"), ("0.5", r"\frac{1}{3}")]) == [True, False]
