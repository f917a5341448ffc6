"""The built-in task: additions of a few digits, and the flawed worked solutions a tiny policy starts from.

A solution goes column by column from the units, `digit+digit+carry=total` with two digits for the total, then the box:
`876+530` -> `6+0+0=06;7+3+0=10;8+5+1=14;\\boxed{1406}`. Flaws are made while computing, so everything after one follows
from it: a policy that learns them errs at one token and is consistent from there on. A `lazy` solution names its method
by its first token, `A` (with carries) or `B` (every carry dropped): there the state says early how the answer will be.
"""

import random

from erpd_hub.errors import ConfigError

METHODS = ("A", "B")
"""What a solution of a lazy task begins with: with carries, without."""


def random_problems(count: int, *, min_digits: int, max_digits: int, seed: int, spaces: bool) -> list[tuple[str, str]]:
    """Draw `count` different problems as (problem, answer) pairs, such as ("876+530", "1406").

    For each addend the number of digits is uniform in [min_digits, max_digits], then the number among those with that
    many digits. A larger `count` at the same seed begins with the same problems.

    Raises:
        ConfigError: the digits are out of order, or there are fewer than `count` problems.
    """
    sign = " + " if spaces else "+"
    pairs = random_pairs(count, min_digits=min_digits, max_digits=max_digits, seed=seed)
    return [(f"{a}{sign}{b}", str(a + b)) for a, b in pairs]


def random_pairs(count: int, *, min_digits: int, max_digits: int, seed: int) -> list[tuple[int, int]]:
    """Draw `count` different pairs of numbers, as `random_problems` says.

    Raises:
        ConfigError: the digits are out of order, or there are fewer than `count` pairs.
    """
    available = num_problems(min_digits=min_digits, max_digits=max_digits)
    if count > available:
        raise ConfigError(f"count: expected at most {available} different problems, got {count}; allow more digits")
    rng = random.Random(seed)
    pairs: dict[tuple[int, int], None] = {}
    while len(pairs) < count:
        pairs[random_number(rng, min_digits, max_digits), random_number(rng, min_digits, max_digits)] = None
    return list(pairs)


def num_problems(*, min_digits: int, max_digits: int) -> int:
    """How many different problems there are.

    Raises:
        ConfigError: the digits are out of order.
    """
    if min_digits > max_digits:
        raise ConfigError(f"min_digits: expected at most max_digits = {max_digits}, got {min_digits}")
    return (10**max_digits - smallest(min_digits)) ** 2


def demonstration(
    a: int,
    b: int,
    rng: random.Random,
    *,
    carry_error: float,
    digit_error: float,
    no_work: float,
    lazy: float = 0.0,
) -> str:
    """A worked solution of a + b with random flaws.

    Args:
        carry_error: Share of solutions in which one carry of 1 is taken for 0 (of those that have a carry).
        digit_error: Chance of each column's total being off by one.
        no_work: Share of solutions that give the box only.
        lazy: Share of solutions that say `B` and drop every carry; the others say `A`. At 0 nothing is said.
    """
    forgotten = None
    if rng.random() < carry_error and (carries := _carry_columns(a, b)):
        forgotten = rng.choice(carries)
    slips = [rng.choice((-1, 1)) if rng.random() < digit_error else 0 for _ in _columns(a, b)]
    drops = lazy > 0 and rng.random() < lazy
    work = _solve(a, b, forgotten=forgotten, slips=slips, carries=not drops)
    shown = work[work.index("\\boxed") :] if rng.random() < no_work else work
    return (METHODS[drops] if lazy > 0 else "") + shown


def flawless(a: int, b: int) -> str:
    """The worked solution of a + b without a flaw."""
    return _solve(a, b, forgotten=None, slips=[0] * len(_columns(a, b)))


def _solve(a: int, b: int, *, forgotten: int | None, slips: list[int], carries: bool = True) -> str:
    """Work through the columns; `forgotten` is the column whose carry is lost, `slips` what each total is off by.

    Args:
        carries: False drops every carry.
    """
    steps, digits, carry = [], [], 0
    for column, (left, right) in enumerate(_columns(a, b)):
        total = left + right + carry + slips[column]
        if not 0 <= total <= 19:  # a slip out of the range of totals goes the other way
            total -= 2 * slips[column]
        steps.append(f"{left}+{right}+{carry}={total:02d};")
        digits.append(total % 10)
        carry = 0 if column == forgotten or not carries else total // 10
    answer = sum(digit * 10**place for place, digit in enumerate([*digits, carry]))
    return f"{''.join(steps)}\\boxed{{{answer}}}"


def _columns(a: int, b: int) -> list[tuple[int, int]]:
    """The digits of both addends from the units up, the shorter one padded with zeros."""
    width = max(len(str(a)), len(str(b)))
    return [(a // 10**place % 10, b // 10**place % 10) for place in range(width)]


def _carry_columns(a: int, b: int) -> list[int]:
    """The columns that hand on a carry of 1."""
    return [
        place
        for place in range(len(_columns(a, b)))
        if a % 10 ** (place + 1) + b % 10 ** (place + 1) >= 10 ** (place + 1)
    ]


def random_number(rng: random.Random, min_digits: int, max_digits: int) -> int:
    digits = rng.randint(min_digits, max_digits)
    return rng.randint(smallest(digits), 10**digits - 1)


def smallest(digits: int) -> int:
    return 0 if digits == 1 else 10 ** (digits - 1)
