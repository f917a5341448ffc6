"""The addition task: problems, flawless and flawed solutions."""

import random
import re

import pytest

from erpd_hub.arithmetic import demonstration, flawless, num_problems, random_problems
from erpd_hub.errors import ConfigError


class NoChance(random.Random):
    """Takes the first of every choice, so that a flaw's effect can be written down."""

    def choice(self, seq):
        return seq[0]


def test_problems_are_right_and_all_different() -> None:
    pairs = random_problems(500, min_digits=2, max_digits=4, seed=3, spaces=False)
    assert len({problem for problem, _ in pairs}) == 500
    for problem, answer in pairs:
        a, b = problem.split("+")
        assert int(a) + int(b) == int(answer)
        assert 2 <= len(a) <= 4
        assert 2 <= len(b) <= 4


def test_digit_counts_are_uniform() -> None:
    pairs = random_problems(3000, min_digits=2, max_digits=4, seed=0, spaces=False)
    lengths = [len(problem.split("+")[0]) for problem, _ in pairs]
    assert all(abs(lengths.count(digits) / 3000 - 1 / 3) < 0.04 for digits in (2, 3, 4))


def test_a_larger_draw_begins_with_the_smaller_one() -> None:
    few, many = (random_problems(n, min_digits=1, max_digits=2, seed=7, spaces=True) for n in (5, 50))
    assert many[:5] == few
    assert re.fullmatch(r"\d+ \+ \d+", few[0][0])


def test_all_problems_can_be_drawn_and_no_more() -> None:
    assert num_problems(min_digits=1, max_digits=1) == 100
    assert len(random_problems(100, min_digits=1, max_digits=1, seed=0, spaces=False)) == 100
    with pytest.raises(ConfigError, match="at most 100 different problems, got 101"):
        random_problems(101, min_digits=1, max_digits=1, seed=0, spaces=False)
    with pytest.raises(ConfigError, match="min_digits"):
        random_problems(1, min_digits=3, max_digits=2, seed=0, spaces=False)


@pytest.mark.parametrize(
    ("a", "b", "solution"),
    [
        (876, 530, r"6+0+0=06;7+3+0=10;8+5+1=14;\boxed{1406}"),
        (99, 1, r"9+1+0=10;9+0+1=10;\boxed{100}"),
        (10, 20, r"0+0+0=00;1+2+0=03;\boxed{30}"),
    ],
)
def test_flawless(a: int, b: int, solution: str) -> None:
    assert flawless(a, b) == solution
    assert demonstration(a, b, random.Random(0), carry_error=0, digit_error=0, no_work=0) == solution


def test_a_forgotten_carry_runs_through_to_the_answer() -> None:
    flawed = demonstration(876, 537, NoChance(0), carry_error=1, digit_error=0, no_work=0)
    assert flawed == r"6+7+0=13;7+3+0=10;8+5+1=14;\boxed{1403}"
    without_carries = demonstration(11, 22, random.Random(0), carry_error=1, digit_error=0, no_work=0)
    assert without_carries == flawless(11, 22)


def test_a_slip_is_off_by_one_and_stays_two_digits() -> None:
    assert demonstration(12, 34, NoChance(0), carry_error=0, digit_error=1, no_work=0) == (
        r"2+4+0=05;1+3+0=03;\boxed{35}"
    )
    assert demonstration(10, 10, NoChance(0), carry_error=0, digit_error=1, no_work=0).startswith("0+0+0=01;")


def test_shares_of_flaws() -> None:
    rng = random.Random(0)
    texts = [demonstration(99, 99, rng, carry_error=0.2, digit_error=0.0, no_work=0.1) for _ in range(2000)]
    assert sum(text.startswith("\\boxed") for text in texts) / 2000 == pytest.approx(0.1, abs=0.02)
    assert sum(not text.endswith("{198}") for text in texts) / 2000 == pytest.approx(0.2, abs=0.03)
