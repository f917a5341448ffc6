"""The built-in code task: one line of Python that multiplies its input and adds, and the flawed ones a policy learns.

`37x+48` asks for a program that reads x and prints 37x + 48; the answer is a fenced `print(37*int(input())+48)`.
Whether a response is right is for its tests to say: `tests_of` has three, which no flaw passes.
"""

import random
from typing import TYPE_CHECKING

from erpd_hub.arithmetic import random_pairs

if TYPE_CHECKING:
    from erpd_hub.evaluation.code.programs import Tests

TOKENS = ("x", "*", ")", "\n", "```", "print(", "int(input())")
"""What a program writes and an addition does not; the longer ones are one token each."""

MOST_TOKENS = 32
"""Of a response with numbers of up to four digits, the end token included."""

_INPUTS = (1, 10, 23)


def program_problems(count: int, *, min_digits: int, max_digits: int, seed: int) -> list[tuple[str, str]]:
    """Draw `count` different problems as (problem, hash of its tests) pairs, such as ("37x+48", "sha256:...").

    Raises:
        ConfigError: the digits are out of order, or there are fewer than `count` problems.
    """
    pairs = random_pairs(count, min_digits=min_digits, max_digits=max_digits, seed=seed)
    problems = [f"{a}x+{b}" for a, b in pairs]
    return [(problem, tests_of(problem).gold) for problem in problems]


def tests_of(problem: str) -> "Tests":
    """What a program for a problem must print."""
    from erpd_hub.evaluation.code.programs import Case, Tests

    a, b = parse_program_problem(problem)
    return Tests("stdin", tuple(Case(f"{x}\n", f"{a * x + b}\n") for x in _INPUTS))


def parse_program_problem(problem: str) -> tuple[int, int]:
    """(factor, addend) of a problem such as `37x+48`."""
    factor, _, addend = problem.partition("x+")
    return int(factor), int(addend)


def program(problem: str, rng: random.Random, *, no_addend: float, digit_error: float, unclosed: float) -> str:
    """A response with random flaws; without any flaw it passes.

    Args:
        no_addend: Share of programs that forget to add.
        digit_error: Chance of each digit to be off by one.
        unclosed: Share of programs that lack the last bracket, so that they do not compile.
    """
    factor, addend = (_slipped(number, rng, digit_error) for number in parse_program_problem(problem))
    added = "" if rng.random() < no_addend else f"+{addend}"
    closed = "" if rng.random() < unclosed else ")"
    return f"```\nprint({factor}*int(input()){added}{closed}\n```"


def flawless_program(problem: str) -> str:
    """The response to a problem without a flaw."""
    return program(problem, random.Random(0), no_addend=0.0, digit_error=0.0, unclosed=0.0)


def _slipped(number: int, rng: random.Random, digit_error: float) -> str:
    return "".join(
        str((int(digit) + rng.choice((-1, 1))) % 10) if rng.random() < digit_error else digit for digit in str(number)
    )
