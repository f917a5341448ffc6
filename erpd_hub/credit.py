"""Whether a signal blames a wrong response where it goes wrong: where it leaves all right ones of its prompt. Pure.

Where right responses to a prompt begin alike (worked solutions of one form, as in the tiny settings), that token is the
flaw. Samples of free text part within a few tokens, and there this says little.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np


class Credited(NamedTuple):
    """A response of T tokens."""

    problem_id: str
    label: float
    """Outcome, NaN where ungraded."""
    tokens: np.ndarray
    """(T,) ids."""
    signal: np.ndarray
    """(T,) log-ratios, nats."""
    old: np.ndarray
    """(T,) log-probs under the policy that is distilled into, nats."""


def departure(response: np.ndarray, others: Iterable[np.ndarray]) -> int:
    """Position of the first token of (T,) ids that none of the others has after the same beginning; T where one goes
    on from the whole response."""
    return max(_common(response, other) for other in others)


def credit(responses: Iterable[Credited]) -> dict[str, Any]:
    """How often the lowest log-ratio of a wrong response is at its departure from the right ones of its prompt.

    Args:
        responses: Those of a prompt together, as sampling leaves them.

    Returns:
        `credit_responses`, the wrong responses that depart from a right one; of them `credit_at_departure`, the share
        whose lowest log-ratio is there (the first of equal ones); `credit_by_surprise`, the same of the log-prob under
        the old policy, which needs no teacher; `credit_by_chance`, the mean of 1/T. Nothing where there are none, nor
        where a prompt comes again further on, as an import may have it: some of its right ones would be overlooked.
    """
    found = np.zeros(3)
    count = 0
    prompts = set()
    for problem_id, group in groupby(responses, key=lambda response: response.problem_id):
        if problem_id in prompts:
            return {}
        prompts.add(problem_id)
        for response, at in _departing(list(group)):
            lowest = response.signal.argmin(), response.old.argmin()
            found += [lowest[0] == at, lowest[1] == at, 1 / len(response.tokens)]
            count += 1
    if not count:
        return {}
    names = ("credit_at_departure", "credit_by_surprise", "credit_by_chance")
    return {"credit_responses": count} | dict(zip(names, (found / count).tolist(), strict=True))


def _departing(group: Sequence[Credited]) -> list[tuple[Credited, int]]:
    """Wrong responses of a prompt that leave all of its right ones, each with the position at which it does."""
    right = [response.tokens for response in group if response.label == 1]
    wrong = [response for response in group if response.label == 0] if right else []
    places = [(response, departure(response.tokens, right)) for response in wrong]
    return [(response, at) for response, at in places if at < len(response.tokens)]


def _common(first: np.ndarray, second: np.ndarray) -> int:
    """How many ids two arrays begin with in common."""
    shorter = min(len(first), len(second))
    differing = np.flatnonzero(first[:shorter] != second[:shorter])
    return int(differing[0]) if len(differing) else shorter
