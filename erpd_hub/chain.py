"""The built-in long task: a chain of additions, each number the sum of the two before it, modulo a power of ten.

`37+48x2` starts with 37 and 48 and adds twice: 37 + 48 = 85, 48 + 85 = 133. Each addition has its number, counting
down, its columns from the units up and its total, all of one width:
`02:7+8+0=15;3+4+1=08;0+0+0=00;085;01:8+5+0=13;4+8+1=13;0+0+1=01;133;\\boxed{133}`. Whatever a token needs stands at a
fixed distance before it, so that two layers learn it at any length; flaws are made while computing and run through.
"""

import random

from erpd_hub.arithmetic import random_pairs

SIGNS = ("x", ":")
"""What a chain writes and an addition does not."""


def chain_problems(
    count: int, *, min_digits: int, max_digits: int, steps: int, seed: int, spaces: bool = False
) -> list[tuple[str, str]]:
    """Draw `count` different problems as (problem, answer) pairs, such as ("37+48x2", "133").

    Digits of both numbers are drawn as those of `random_problems`; the answer is modulo 10^max_digits. A larger `count`
    at the same seed begins with the same problems.

    Raises:
        ConfigError: the digits are out of order, or there are fewer than `count` problems.
    """
    plus, times = (" + ", " x ") if spaces else ("+", "x")
    pairs = random_pairs(count, min_digits=min_digits, max_digits=max_digits, seed=seed)
    return [(f"{a}{plus}{b}{times}{steps}", str(_last(a, b, steps) % 10**max_digits)) for a, b in pairs]


def chain_solution(
    problem: str, rng: random.Random, *, columns: int, carry_error: float = 0.0, digit_error: float = 0.0
) -> str:
    """A worked solution; the answer has the width of all numbers, zeros in front of it included.

    Args:
        columns: Digits of every number; what is carried beyond them is dropped.
        carry_error: Chance of each carry of 1 to be taken for 0.
        digit_error: Chance of each column's total to be off by one.
    """
    first, second, steps = parse_chain(problem)
    width = counter_width(steps)
    left, right = ([number // 10**place % 10 for place in range(columns)] for number in (first, second))
    work, total = [], ""
    for number in range(steps, 0, -1):
        written, digits = _add(left, right, rng, carry_error, digit_error)
        left, right = right, digits
        total = "".join(map(str, reversed(digits)))
        work.append(f"{number:0{width}d}:{written}{total};")
    return "".join(work) + f"\\boxed{{{total}}}"


def parse_chain(problem: str) -> tuple[int, int, int]:
    """(first, second, steps) of a problem such as `37+48x2`."""
    first, _, rest = problem.partition("+")
    second, _, steps = rest.partition("x")
    return int(first), int(second), int(steps)


def counter_width(steps: int) -> int:
    """Digits of the additions' numbers: two, or as many as it takes."""
    return max(2, len(str(steps)))


def chain_tokens(*, columns: int, steps: int) -> int:
    """Characters of a whole solution, the box as one and the end token included."""
    return steps * (counter_width(steps) + 2 + 10 * columns) + columns + 3


def _last(first: int, second: int, steps: int) -> int:
    """The number that `steps` additions end at."""
    for _ in range(steps):
        first, second = second, first + second
    return second


def _add(
    left: list[int], right: list[int], rng: random.Random, carry_error: float, digit_error: float
) -> tuple[str, list[int]]:
    """One addition, from the units up: its columns as text, and the digits of its total."""
    written, digits, carry = "", [], 0
    for a, b in zip(left, right, strict=True):
        slip = rng.choice((-1, 1)) if rng.random() < digit_error else 0
        total = a + b + carry
        total += slip if 0 <= total + slip <= 19 else -slip
        written += f"{a}+{b}+{carry}={total:02d};"
        digits.append(total % 10)
        carry = 0 if total >= 10 and rng.random() < carry_error else total // 10
    return written, digits
